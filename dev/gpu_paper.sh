#!/bin/sh
# gpu_paper.sh DATA: how long the paper's sentiment run takes at its real sizes on this machine's GPU. GPT-2 124M and a
# DistilBERT of the base size with random weights (times do not depend on them, results mean nothing): a cache of 200
# prompts x 200 samples with 256 and with 1000 responses at once, ten iterations of --preset sentiment, an evaluation.
# DATA/tokenizers holds gpt2/{vocab.json,merges.txt} and bert-base-uncased/vocab.txt, DATA/imdb/train.jsonl.gz reviews.
# Needs torch and transformers to make the models (PYTHON, or python3). One line a command: seconds in all, and what
# vbon said last. Files: runs/gpu_paper. VBON=build/vbon_simt_plain TINY=1: a rehearsal on the emulated device, with
# models of two blocks and few samples, whose times mean nothing.
set -eu
VBON=${VBON:-./vbon} TINY=${TINY:-}
PROMPTS=200 SAMPLES=200 EPISODES=1280 TEST=100 SMALL=''
[ ! "$TINY" ] || { PROMPTS=2 SAMPLES=4 EPISODES=8 TEST=2; SMALL="--rollout 4 --minibatch 4 --m 4"; }
DATA=${1:?gpu_paper.sh DATA: a folder with tokenizers and imdb}; R=runs/gpu_paper; rm -rf "$R"; mkdir -p "$R"
DATA=$DATA R=$R TINY=$TINY "${PYTHON:-python3}" - <<'P'
import gzip, json, os, shutil
import torch
from transformers import DistilBertConfig, DistilBertForSequenceClassification, GPT2Config, GPT2LMHeadModel

data, out = os.environ["DATA"], os.environ["R"]
tiny = os.environ["TINY"] != ""
torch.manual_seed(1)
GPT2LMHeadModel(GPT2Config(**(dict(n_layer=2, n_embd=32, n_head=2) if tiny else {}))).save_pretrained(out + "/gpt2")
for name in ("vocab.json", "merges.txt"):
    shutil.copy(f"{data}/tokenizers/gpt2/{name}", out + "/gpt2/")
labels = {0: "NEGATIVE", 1: "POSITIVE"}
bert = DistilBertConfig(id2label=labels, label2id={v: k for k, v in labels.items()},
                        **(dict(n_layers=2, dim=32, n_heads=2, hidden_dim=64) if tiny else {}))
DistilBertForSequenceClassification(bert).save_pretrained(out + "/bert")
shutil.copy(f"{data}/tokenizers/bert-base-uncased/vocab.txt", out + "/bert/vocab.txt")
with open(out + "/bert/tokenizer_config.json", "w") as f:
    json.dump({"do_lower_case": True, "tokenizer_class": "DistilBertTokenizer"}, f)
with gzip.open(data + "/imdb/train.jsonl.gz", "rt") as reviews, open(out + "/prompts.jsonl", "w") as f:
    for i, line in zip(range(2000), reviews):
        f.write(json.dumps({"prompt": " ".join(json.loads(line)["text"].split()[: 4 + i % 4])}) + "\n")
P
timed() { # timed NAME COMMAND...: of vbon
    name=$1; shift; began=$(date +%s)
    "$VBON" "$@" > "$R/$name.log" 2>&1 || { echo "gpu_paper.sh: $name failed: $(tail -n 1 "$R/$name.log")"; exit 1; }
    echo "$name: $(($(date +%s) - began)) s; $(tr '\r' '\n' < "$R/$name.log" | grep -E 'samples in|seconds:|tokens/s' |
        tail -n 1)"
}
BOTH="--device cuda --model $R/gpt2 --reward $R/bert --seed 1"
# shellcheck disable=SC2086 # words
for rows in 256 1000; do
    timed cache_$rows cache $BOTH --prompts "$R/prompts.jsonl" --prompts-max $PROMPTS --samples $SAMPLES \
        --decode-rows $rows --out "$R/cache_$rows.jsonl"
done
# shellcheck disable=SC2086
timed train train $BOTH --preset sentiment --n 16 --cache "$R/cache_1000.jsonl" --episodes $EPISODES \
    $SMALL --log-every 1 --out "$R/vbon"
timed eval eval --device cuda --model "$R/vbon" --reference "$R/gpt2" --reward "$R/bert" --seed 1 --ns 16 --samples 8 \
    --cache "$R/cache_1000.jsonl" --prompts-max $TEST --out "$R/eval.json"
