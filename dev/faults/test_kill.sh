#!/bin/sh
# test_kill.sh VBON KILL LIBRARY: makes tiny models with the program itself, lists the commands that write, and hands
# both to dev/faults/kill.c, which says what is tried. SEED=N chooses the sample; BUDGET=N trials of a kind for each
# command; FULL=1: all of them, but of the allocations (of which there are tens of thousands, alike) the first 500 and a
# sample of the rest, MEMORY=N trials in all (0: all); ONLY="train kill 37": one trial, ONLY="train kill": one kind,
# ONLY=train: one command. JOBS=N at once. Everything is written in a temporary folder.
set -eu
VBON=$(realpath "$1") KILL=$(realpath "$2") LIBRARY=$(realpath "$3")
JOBS=${JOBS:-$(nproc)} SEED=${SEED:-1}
if [ -n "${FULL:-}" ]; then BUDGET=0 MEMORY=${MEMORY:-1500}; elif [ -n "${ONLY:-}" ]; then BUDGET=0 MEMORY=0; fi
BUDGET=${BUDGET:-40} MEMORY=${MEMORY:-${BUDGET:-40}}
cd "$(dirname "$0")/../.."
dir=$(mktemp -d /dev/shm/vbon-kill-XXXXXX 2> /dev/null || mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
in=$dir/in
mkdir -p "$in/tokenizer" "$dir/before/out/step-notes"

# The demo's tokenizer without all but its first 44 merges, so that 301 ids are left.
sed -E 's/"id":1999/"id":300/; s/(":299),.*\},"merges":\[(([^]]*\],){43}[^]]*\]).*/\1},"merges":[\2]}}/' \
    dev/demo/tokenizer/tokenizer.json > "$in/tokenizer/tokenizer.json"
cp dev/demo/tokenizer/tokenizer_config.json "$in/tokenizer"
# A field that nobody reads makes files of several blocks, so that a read can fail in their middle.
note=$(printf '%1500s' '' | tr ' ' x)
printf "{\"prompt\":\"%s\",\"note\":\"$note\"}\n" "This film" "I" "The acting" > "$in/prompts.jsonl"
for text in "This film is good" "I hate this" "The acting was fine" "A bad film" "is it?"; do
    printf '{"text":"%s","label":%d,"note":"%s"}\n' "$text" "$((${#text} % 2))" "$note"
done > "$in/texts.jsonl"
make_inputs() {
    TINY="--threads 1 --data $in/texts.jsonl --context 32 --steps 2 --batch 2 --lr 3e-3"
    "$VBON" sft --tokenizer "$in/tokenizer" --layers 2 --width 16 --heads 2 $TINY --out "$in/lm"
    "$VBON" reward --init "$in/lm" --layers 1 $TINY --out "$in/rm"
    "$VBON" cache --threads 1 --model "$in/lm" --reward "$in/rm" --prompts "$in/prompts.jsonl" --samples 8 --max-new 6 \
        --out "$in/cache.jsonl"
}
make_inputs > "$dir/made" 2>&1 || { cat "$dir/made"; exit 1; }

# What stands in the folder before: a user's notes, by names that look like ours, and a link to more of them.
mkdir "$in/notes"
echo mine > "$in/notes/a"; echo mine > "$dir/before/out/step-notes/b"; echo mine > "$dir/before/out/step-1.txt"
ln -s ../../../in/notes "$dir/before/out/step-link"

LM="--threads 1 --model ../../in/lm" BOTH="--threads 1 --model ../../in/lm --reward ../../in/rm"
# A reward program that answers a batch at once, of eight, which a cache that goes on scores again too: in how many
# pieces answers come must not differ from run to run.
LENGTHS='while read -r l; do a="$a${#l}\n" n=$((n + 1)); [ $((n % 8)) = 0 ] && { printf "$a"; a=; }; done'
PROMPTS="--prompts ../../in/prompts.jsonl --max-new 6" CACHE="--cache ../../in/cache.jsonl"
RUN="--threads 1 --lr 3e-3 --save-every 1 --out out"
TEXTS="--data ../../in/texts.jsonl --held-out ../../in/texts.jsonl --context 32 --steps 3 --batch 2"
PPO="$BOTH $CACHE --max-new 6 --episodes 12 --rollout 4 --minibatch 4 --ppo-epochs 1"
DPO="--loss dpo --beta 0.1 --draws 4 --pairs 2 --batch 2 --steps 3"
"$KILL" "$dir" "$VBON" "$LIBRARY" "$JOBS" "$SEED" "$BUDGET" "$MEMORY" "${ONLY:-}" <<END
cache     g  cache $BOTH $PROMPTS --samples 16 --decode-rows 24 --out cache.jsonl
shard     g  cache $BOTH $PROMPTS --samples 16 --decode-rows 8 --shard 1/2 --out cache.jsonl
program   g  cache $LM --reward '$LENGTHS' $PROMPTS --samples 8 --decode-rows 8 --out cache.jsonl
train     ru train $PPO $RUN
prefix    r  train $PPO $RUN --critic prefix-rank --trace 2
offline   ru offline $LM $CACHE $DPO $RUN
sft       r  sft --tokenizer ../../in/tokenizer --layers 2 --width 16 --heads 2 $TEXTS $RUN
shards    ru sft --tokenizer ../../in/tokenizer --layers 2 --width 128 --shard-mib 1 $TEXTS $RUN
reward    r  reward --init ../../in/lm --layers 1 --dtype bf16 $TEXTS $RUN
sample    -  sample $LM $PROMPTS --samples 4 --out out.jsonl
bon       -  bon $BOTH $PROMPTS --n 4 --out out.jsonl
score     -  score $BOTH --in ../../in/texts.jsonl --out out.jsonl
eval      -  eval $BOTH $CACHE --reference ../../in/lm --ns 4 --samples 2 --max-new 6 --out out.json
END
