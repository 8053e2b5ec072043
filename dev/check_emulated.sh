#!/bin/sh
# check_emulated.sh: whole commands with --device cuda on the emulated device (dev/cuda_on_cpu): caches, PPO, offline
# training and evaluation with a GPT-2, a Pythia and a DistilBERT reward model, from folders of float32 weights that
# bfloat16 does not hold. What `vbon info` plans must be what the emulator counts, to 5 %; and what is chosen where
# memory is short, kept by a resumed run, or refused, is looked at. Then check_paper.sh on the same device.
set -eu
cd "$(dirname "$0")/.."
VBON=$PWD/build/vbon_simt_plain
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
die() { echo "check_emulated: $*"; exit 1; }
export SIMT_MEMORY="$dir/memory"
quiet() { "$@" > "$dir/log" 2>&1 || { tail -n 3 "$dir/log"; die "fails: $*"; }; }

# Models of float32: the demo's after a step of training, and a Pythia from scratch.
head -n 24 dev/demo/prompts.jsonl > "$dir/prompts.jsonl"
sed 's/"prompt"/"text"/' "$dir/prompts.jsonl" > "$dir/texts.jsonl"
sed 's/}$/,"label":1}/; n; s/}$/,"label":0}/' "$dir/texts.jsonl" > "$dir/labels.jsonl"
# shellcheck disable=SC2086
{
FP32="--dtype fp32 --steps 2 --batch 4 --lr 1e-3"
NEOX="--arch gpt_neox --layers 2 --width 128 --heads 2 --context 64 $FP32"
quiet "$VBON" sft --model dev/demo/lm --data "$dir/texts.jsonl" $FP32 --out "$dir/gpt2_lm"
quiet "$VBON" reward --init "$dir/gpt2_lm" --layers 2 --from-position 2 --data "$dir/labels.jsonl" $FP32 \
    --out "$dir/gpt2_rm"
quiet "$VBON" sft --tokenizer dev/demo/tokenizer --data "$dir/texts.jsonl" $NEOX --out "$dir/pythia_lm"
quiet "$VBON" reward --tokenizer dev/demo/tokenizer --from-position 2 --data "$dir/labels.jsonl" $NEOX \
    --out "$dir/pythia_rm"
}
quiet "$VBON" score --model dev/demo/lm --in "$dir/texts.jsonl" --out "$dir/scored.jsonl"
LONGEST=$(sed 's/.*"tokens":\[\([^]]*\)\].*/\1/' "$dir/scored.jsonl" | awk -F, 'NF > n { n = NF } END { print n }')

# planned JOB FLAGS...: run the job beforehand, with SIMT_MEMORY; then its plan must be what it had
planned() {
    job=$1; shift
    "$VBON" info --job "$job" --max-prompt "$LONGEST" --max-new 16 --device cuda "$@" > "$dir/plan"
    awk -v job="$job" -v had="$(cat "$dir/memory")" -v kind="$kind" '
        /^  device / && !/scratch|more of it/ { device += $(NF - 1) } /^total/ { total = $2 }
        END {
            planned = total - device; had /= 1048576
            printf "%-8s %-10s planned %8.2f MiB, had %8.2f\n", job, kind, planned, had
            exit !(planned >= 0.95 * had && planned <= 1.05 * had)
        }' "$dir/plan" || die "the plan is more than 5 % off"
}
for kind in gpt2 pythia distilbert gpt2_fp32; do
    precision=auto lm=$dir/gpt2_lm rm=$dir/gpt2_rm
    case $kind in
        pythia) lm=$dir/pythia_lm rm=$dir/pythia_rm ;;
        distilbert) rm=dev/fixtures/distilbert ;;
        gpt2_fp32) precision=fp32 ;;
    esac
    D="--device cuda --precision $precision" S="--micro-tokens 512 --precision $precision" R="--decode-rows 48"
    c=$dir/$kind.jsonl
    # shellcheck disable=SC2086
    {
    quiet "$VBON" cache $D $S $R --model "$lm" --reward "$rm" --prompts "$dir/prompts.jsonl" --samples 8 \
        --max-new 16 --out "$c"
    planned cache $S $R --model "$lm" --reward "$rm" --samples 8
    [ $precision = fp32 ] && says=fp32 || says=bf16
    grep -q "\"precision\":\"$says\"" "$c" || die "$c: its header does not say $says"
    P="--rollout 24 --minibatch 24"
    quiet "$VBON" train $D $S $R $P --model "$lm" --reward "$rm" --cache "$c" --n 4 --max-new 16 \
        --episodes 24 --train-layers 1 --ppo-epochs 1 --out "$dir/$kind.ppo"
    planned train $S $R $P --model "$lm" --reward "$rm" --train-layers 1
    case $kind in gpt2 | pythia) # what spares memory: these two keep the bits, the third one does not
        SPARE="--offload --recompute"
        quiet "$VBON" train $D $S $R $P --model "$lm" --reward "$rm" --cache "$c" --n 4 --max-new 16 \
            --episodes 24 --train-layers 1 --ppo-epochs 1 $SPARE --out "$dir/$kind.spare"
        planned train $S $R $P --model "$lm" --reward "$rm" --train-layers 1 $SPARE
        cmp "$dir/$kind.ppo/model.safetensors" "$dir/$kind.spare/model.safetensors" || die "$SPARE: other weights"
        SPARE="$SPARE --optimizer-state 8bit"
        quiet "$VBON" train $D $S $R $P --model "$lm" --reward "$rm" --cache "$c" --n 4 --max-new 16 \
            --episodes 24 --ppo-epochs 1 $SPARE --out "$dir/$kind.8bit"
        planned train $S $R $P --model "$lm" --reward "$rm" $SPARE
        ACTIONS="--critic prefix-rank --all-actions 32"
        quiet "$VBON" train $D $S $R $P $ACTIONS --model "$lm" --reward "$rm" --cache "$c" --n 4 --max-new 16 \
            --episodes 24 --ppo-epochs 1 --out "$dir/$kind.actions"
        planned train $S $R $P $ACTIONS --model "$lm" --reward "$rm"
    esac
    J="--objective jbond --average .9 --train-layers 2"
    quiet "$VBON" train $D $S $R $P $J --model "$lm" --reward "$rm" --prompts "$dir/prompts.jsonl" --max-new 16 \
        --episodes 24 --ppo-epochs 1 --out "$dir/$kind.jbond"
    planned train $S $R $P $J --model "$lm" --reward "$rm"
    quiet "$VBON" offline $D $S --model "$lm" --reward "$rm" --cache "$c" --loss bonbon --n 4 --batch 8 --steps 1 \
        --out "$dir/$kind.offline"
    planned offline $S --batch 8 --model "$lm" --reward "$rm"
    quiet "$VBON" eval $D $S $R --model "$dir/$kind.ppo" --reference "$lm" --reward "$rm" --cache "$c" --samples 2 \
        --max-new 16 --out "$dir/$kind.json"
    planned eval $S $R --model "$lm" --reference "$lm" --reward "$rm" --samples 2
    }
done

# What is chosen where memory is short; a killed or resumed run keeps it; what cannot fit is refused before it begins.
# shellcheck disable=SC2086
{
L="--device cuda --model $dir/gpt2_lm --reward $dir/gpt2_rm --max-new 16"
CACHE="cache $L --prompts $dir/prompts.jsonl --samples 16"
quiet "$VBON" $CACHE --out "$dir/free.jsonl"
grep -q 'with --decode-rows 1024 and --micro-tokens 4096, chosen by the memory there is' "$dir/log" ||
    die "a cache does not say what it chose: $(grep 'device memory' "$dir/log")"
quiet "$VBON" $CACHE --memory 600MiB --out "$dir/short.jsonl"
chosen=$(sed -n 's/.* of 600.0, with \(--decode-rows [0-9]\{1,3\} and --micro.*\), chosen.*/\1/p' "$dir/log")
[ "$chosen" ] || die "a cache with little memory chose otherwise: $(grep 'device memory' "$dir/log")"
head -c $(($(wc -c < "$dir/short.jsonl") * 2 / 3)) "$dir/short.jsonl" > "$dir/again.jsonl"
quiet "$VBON" $CACHE --out "$dir/again.jsonl"
grep -q -- "with $chosen, as it began" "$dir/log" ||
    die "a resumed cache forgot that it chose $chosen: $(grep 'device memory' "$dir/log")"
cmp "$dir/short.jsonl" "$dir/again.jsonl" || die "a resumed cache differs from one that was not killed"
! "$VBON" $CACHE --decode-rows 16 --out "$dir/free.jsonl" > "$dir/log" 2>&1 &&
    grep -q 'another decode_rows' "$dir/log" ||
    die "a cache went on with other rows: $(tail -n 1 "$dir/log")"
PPO="train $L --cache $dir/short.jsonl --n 4 --rollout 16 --minibatch 8 --ppo-epochs 1 --episodes"
quiet "$VBON" $PPO 48 --memory 615MiB --save-every 1 --out "$dir/whole"
grep -q 'chosen by the memory there is' "$dir/log" || die "train does not say what it chose"
chosen=$(sed -n 's/.*with \(--decode-rows.*[0-9]\), chosen.*/\1/p' "$dir/log")
timeout -s INT 6 "$VBON" $PPO 48 --memory 615MiB --save-every 1 --out "$dir/cut" > "$dir/log" 2>&1 || true
quiet "$VBON" $PPO 48 --resume --out "$dir/cut"
[ ! -s "$dir/cut/latest" ] || die "the resumed run did not end"
cmp "$dir/whole/model.safetensors" "$dir/cut/model.safetensors" || die "a resumed run chose other rows than $chosen"
for e in "--memory 560MiB" "--memory 600MiB --decode-rows 512 --micro-tokens 16384"; do
    ! "$VBON" $PPO 16 $e --out "$dir/none" > "$dir/log" 2>&1 &&
        grep -q "not enough device memory: train needs .* the .* being .* of it, and may have .*--" "$dir/log" ||
        die "what does not fit is not refused by its plan: $(tail -n 1 "$dir/log")"
done
! SIMT_SHARED_KB=64 "$VBON" $CACHE --out "$dir/none.jsonl" > "$dir/log" 2>&1 &&
    grep -q "65536 bytes of shared memory a block; attention with the heads of 32" "$dir/log" ||
    die "a device with too little shared memory is not refused by that limit: $(tail -n 1 "$dir/log")"
}
echo "check_emulated: plans are what runs take, and are kept"
[ "${1:-}" = --plans ] || dev/check_paper.sh --emulated
