#!/bin/sh
# imdb_models.sh DATA=DIR: the models and caches of dev/models/imdb, made again: a reference language model (one pass
# over the training and the unlabelled reviews), a reward model from its lower two blocks, and the reward caches of
# 2,000 training prompts (M=200) and 512 test prompts (M=600). DIR holds imdb/train.jsonl.gz, unsup.jsonl.gz and
# test.jsonl.gz (dev/download.sh). About three hours on two idle cores with AVX2; killed and started again it goes on.
# It works in OUT (runs/imdb-models) and packs what is to be kept into OUT/keep: no file over 4 MiB.
set -eu
for a in "$@"; do
    case $a in DATA=*) DATA=${a#DATA=};; *) echo "imdb_models.sh: $a: usage: dev/imdb_models.sh DATA=DIR"; exit 2;; esac
done
DATA=${DATA:?usage: dev/imdb_models.sh DATA=DIR (the folder with imdb/train.jsonl.gz)}
OUT=${OUT:-runs/imdb-models}
for f in train unsup test; do
    [ -f "$DATA/imdb/$f.jsonl.gz" ] ||
        { echo "imdb_models.sh: $DATA/imdb/$f.jsonl.gz is missing: see dev/download.sh"; exit 1; }
done
mkdir -p "$OUT"
unpack() { # unpack NAME FILES: aside, then renamed
    name=$1; shift
    [ -f "$OUT/$name.jsonl" ] || { zcat "$@" > "$OUT/$name.tmp"; mv "$OUT/$name.tmp" "$OUT/$name.jsonl"; }
}
unpack train "$DATA/imdb/train.jsonl.gz"
unpack text "$DATA/imdb/train.jsonl.gz" "$DATA/imdb/unsup.jsonl.gz"
unpack test "$DATA/imdb/test.jsonl.gz"
./vbon sft --tokenizer dev/imdb/tokenizer --data "$OUT/text.jsonl" --held-out "$OUT/test.jsonl" --max-docs 2000 \
    --layers 3 --width 256 --heads 4 --context 128 \
    --epochs 1 --batch 32 --lr 2e-3 --schedule cosine --warmup 200 --beta2 0.98 --weight-decay 0.05 --dtype bf16 \
        --shard-mib 4 --seed 1 \
    --log-every 50 --eval-every 2000 --save-every 250 --resume --out "$OUT/lm"
./vbon reward --init "$OUT/lm" --layers 2 --context 64 --from-position 12 --data "$OUT/train.jsonl" \
    --held-out "$OUT/test.jsonl" --max-docs 2000 \
    --epochs 2 --batch 64 --lr 5e-4 --schedule cosine --warmup 100 --beta2 0.98 --weight-decay 0.1 --dtype bf16 \
        --shard-mib 4 --seed 1 \
    --log-every 100 --eval-every 1000 --save-every 500 --resume --out "$OUT/rm"
CACHE="cache --model $OUT/lm --reward $OUT/rm --max-new 40 --seed 1"
./vbon $CACHE --prompts dev/imdb/prompts.jsonl --samples 200 --out "$OUT/cache.jsonl"
./vbon $CACHE --prompts dev/imdb/prompts_test.jsonl --samples 600 --out "$OUT/cache_test.jsonl"
rm -rf "$OUT/keep"; mkdir -p "$OUT/keep"
for m in lm rm; do
    mkdir "$OUT/keep/$m"
    cp "$OUT/$m"/*.json "$OUT/$m"/*.jsonl "$OUT/$m"/*.safetensors "$OUT/keep/$m"
done
# what offline training needs of each training prompt: the ids of its first 6 samples, and of the best and the worst of
# its first 2, 4, ... 128
keep() { # keep NAME FLAGS
    name=$1; shift
    rm -f "$OUT/$name.keep.jsonl"
    ./vbon compact --cache "$OUT/$name.jsonl" "$@" --out "$OUT/$name.keep.jsonl"
    gzip -9nc "$OUT/$name.keep.jsonl" | split -b 4M -d - "$OUT/keep/$name.jsonl.gz."
}
keep cache --draws 6 --ns 2,4,8,16,32,64,128
keep cache_test
du -sh "$OUT/keep"
