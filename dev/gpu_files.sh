#!/bin/sh
# gpu_files.sh VBON: from cache to policy with --device cuda, from folders of float32 weights that bfloat16 does not
# hold: a cache drawn on the device is read by training there and on the CPU, and what was trained there is evaluated
# on both. A reward model of GPT-2's architecture judges, then a DistilBERT. Small models, made here. No number is
# judged.
set -eu
cd "$(dirname "$0")/.."
VBON=${1:?gpu_files.sh VBON: the program, ./vbon or build/vbon_simt_plain}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
vbon() { # vbon WORDS...: what it says where it fails
    # shellcheck disable=SC2086,SC2048 # words
    "$VBON" $* > "$dir/log" 2>&1 || { echo "vbon $*:"; tail -n 5 "$dir/log"; exit 1; }
}
sed 's/"prompt"/"text"/; 9q' dev/demo/prompts.jsonl > "$dir/texts.jsonl"
sed 's/}$/,"label":1}/; n; s/}$/,"label":0}/' "$dir/texts.jsonl" > "$dir/labels.jsonl"
head -n 4 dev/demo/prompts.jsonl > "$dir/prompts.jsonl"
new="--tokenizer dev/demo/tokenizer --layers 2 --width 32 --heads 2 --context 128 --dtype fp32"
vbon "sft $new --data $dir/texts.jsonl --steps 24 --lr 1e-2 --out $dir/lm"
vbon "reward $new --data $dir/labels.jsonl --from-position 2 --steps 1 --out $dir/rm"
for reward in "$dir/rm" dev/fixtures/distilbert; do
    both="--reward $reward --max-new 6 --seed 1"
    vbon "cache $both --device cuda --model $dir/lm --prompts $dir/prompts.jsonl --samples 4 --out $dir/cache.jsonl"
    for on in cuda cpu; do
        # the all-actions gradient, where the reward model reads the policy's tokens
        [ "$reward" != "$dir/rm" ] || vbon "train $both --device $on --model $dir/lm --cache $dir/cache.jsonl --n 2
            --episodes 8 --rollout 4 --minibatch 4 --all-actions 4 --out $dir/actions.$on"
        vbon "train $both --device $on --model $dir/lm --cache $dir/cache.jsonl --n 2 --episodes 8 --rollout 4
            --minibatch 4 --out $dir/policy.$on"
        vbon "eval $both --device $on --model $dir/policy.cuda --reference $dir/lm --cache $dir/cache.jsonl --ns 2
            --samples 2 --out $dir/eval.json"
    done
    rm -rf "$dir"/policy.* "$dir"/actions.* "$dir/cache.jsonl"
    echo "$(basename "$reward"): cached on the device, trained and evaluated there and on the CPU"
done
