#!/bin/sh
# download.sh [sentiment|tldr|all] [DIR]: the paper's checkpoints and data, fetched and checked, and the prompts of its
# experiments. DIR defaults to paper/.
#
# Needs a network, curl and python3 with the packages of dev/requirements.txt (for checkpoints that exist only as
# pickles, and for cutting prompts). What is there already is not fetched again; a file appears under its name only when
# it is whole. Every model's files must hold the tensors that its config.json implies, by name and shape, and no others;
# every data file's lines are counted. Sizes: sentiment 1.2 GB, tldr about 60 GB.
set -eu
cd "$(dirname "$0")/.."
WHAT=${1:-all} DIR=${2:-paper} HUB=${HUB:-https://huggingface.co} PYTHON=${PYTHON:-python3}
BLOB=${BLOB:-https://openaipublic.blob.core.windows.net/summarize-from-feedback} \
    IMDB=${IMDB:-https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz}
die() { echo "download.sh: $*" >&2; exit 1; }
case $WHAT in sentiment|tldr|all) ;; *) die "$WHAT: sentiment, tldr or all" ;; esac
[ -x ./vbon ] || die "./vbon is not built: make"

get() { # URL FILE: 1 when it is not there, an error when it cannot be fetched
    [ -s "$2" ] && return 0
    code=$(curl -sSL --retry 3 -o "$2.part" -w '%{http_code}' "$1") || die "$1: cannot be fetched"
    case $code in
        200) mv "$2.part" "$2"; echo "$2" ;;
        404) rm -f "$2.part"; return 1 ;;
        *) rm -f "$2.part"; die "$1: the server says $code" ;;
    esac
}

model() { # REPOSITORY NAME
    to=$DIR/$2 from=$HUB/$1/resolve/main
    mkdir -p "$to"
    get "$from/config.json" "$to/config.json" || die "$1: no config.json"
    tokenizer=
    for f in tokenizer.json tokenizer_config.json vocab.json merges.txt vocab.txt special_tokens_map.json; do
        get "$from/$f" "$to/$f" && tokenizer=1
    done
    [ -n "$tokenizer" ] || die "$1: no tokenizer"
    weights=
    for f in model.safetensors model.safetensors.index.json pytorch_model.bin pytorch_model.bin.index.json; do
        get "$from/$f" "$to/$f" || continue
        case $f in *.index.json)
            for shard in $(grep -oE '"[^"/]+\.(safetensors|bin)"' "$to/$f" | tr -d '"' | sort -u); do get \
                "$from/$shard" "$to/$shard" || die "$1: no $shard"; done ;;
        esac
        weights=1
        break
    done
    [ -n "$weights" ] || die "$1: no weights"
    "$PYTHON" dev/to_safetensors.py "$to" || die "$1: conversion failed"
    ./vbon info --model "$to" > "$to/info.txt" || die "$to: its files do not fit its config.json"
    echo "$to: $(grep -oE '^[0-9]+ parameters' "$to/info.txt"), in its files as by its config.json"
}

lines() { # FILE LINES
    n=$(wc -l < "$1")
    [ "$n" -eq "$2" ] || die "$1: $n lines, $2 expected: delete it and what it was made from, and fetch them again"
}

if [ "$WHAT" != tldr ]; then # section 5 of the paper
    model lvwerra/gpt2-imdb gpt2-imdb                                           # the policy
    model lvwerra/distilbert-imdb distilbert-imdb                               # the reward model
    mkdir -p "$DIR/archives"
    get "$IMDB" "$DIR/archives/aclImdb_v1.tar.gz" || die "the Large Movie Review Dataset has moved"
    [ -s "$DIR/imdb/unsup.jsonl" ] || "$PYTHON" dev/public_data.py imdb "$DIR/archives/aclImdb_v1.tar.gz" "$DIR/imdb"
    lines "$DIR/imdb/train.jsonl" 25000; lines "$DIR/imdb/test.jsonl" 25000; lines "$DIR/imdb/unsup.jsonl" 50000
    prompts() {
        [ -s "$DIR/imdb/$1.jsonl" ] ||
            "$PYTHON" dev/make_prompts.py "$DIR/imdb/$2.jsonl" --tokenizer "$DIR/gpt2-imdb" --count "$3" --seed "$4" \
                --out "$DIR/imdb/$1.jsonl"
        lines "$DIR/imdb/$1.jsonl" "$3"
    }
    prompts prompts train 5000 1; prompts prompts_test test 512 2
fi
if [ "$WHAT" != sentiment ]; then # section 6
    model cleanrl/EleutherAI_pythia-2.8b-deduped__sft__tldr sft-2.8b           # the policy
    # the reward model: no LM head, a scalar one with a bias
    model cleanrl/EleutherAI_pythia-2.8b-deduped__reward__tldr reward-2.8b
    model cleanrl/EleutherAI_pythia-6.9b-deduped__reward__tldr reward-6.9b     # the evaluator
    mkdir -p "$DIR/archives/tldr"
    for split in train valid test; do
        get "$BLOB/datasets/tldr_3_filtered/$split.jsonl" "$DIR/archives/tldr/$split.jsonl" ||
            die "TL;DR posts: no $split"
    done
    for i in 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 22; do
        get "$BLOB/dataset/comparisons/batch$i.json" "$DIR/archives/tldr/batch$i.json" || die "comparisons: no batch$i"
    done
    [ -s "$DIR/tldr/comparisons_valid.jsonl" ] ||
        "$PYTHON" dev/public_data.py tldr "$DIR/archives/tldr" "$DIR/tldr" --tokenizer "$DIR/sft-2.8b/tokenizer.json"
    lines "$DIR/tldr/train.jsonl" 116722; lines "$DIR/tldr/valid.jsonl" 6447; lines "$DIR/tldr/test.jsonl" 6553
    lines "$DIR/tldr/comparisons_train.jsonl" 92858
    lines "$DIR/tldr/split/test.jsonl" 392
fi
echo "all there, in $DIR"
