#!/bin/sh
# imdb_small.sh: vBoN, its bound L and KL-regularised RL on movie reviews, at a size where two cores suffice. Train, evaluate on 512 test prompts against their own
# cache of 600 samples, one line a run into dev/results/imdb/results.jsonl. A run that has its line is never repeated; a killed one goes on from its checkpoint.
#
#     dev/imdb_small.sh [NAME ...]        all runs in the order below, or those whose name begins with one of NAME
#
# Two recipes. `paper` is --preset sentiment (top 2 blocks, value head, 128 episodes x 4 epochs) at ten times its rate, because 3e-5 is a rate for 124 million
# parameters (paper3e-5 shows what it does here); `best` is --preset best. Both at 12,800 episodes of 40 tokens, four strengths, two seeds. Then what matters, one change at a time, at N=16.
# Models and caches: dev/models/imdb (dev/imdb_models.sh DATA=DIR made them). Table and figure: dev/imdb_results.py.
#
# Every size below is a variable. With LM and RM, other models (RM may be followed by flags), the caches of PROMPTS and PROMPTS_TEST are drawn first: README.md, "Reproduce the
# paper", has the paper's models, sizes and grid. GRID holds OBJECTIVE:FLAG:STRENGTH, MS the M of the runs m-M at N=10 (the paper's figure 4), which run only where it is set.
set -eu
M=${MODELS:-dev/models/imdb}; OUT=${OUT:-runs/imdb}; RESULTS=${RESULTS:-dev/results/imdb/results.jsonl}
LM=${LM:-}; RM=${RM:-}; PROMPTS=${PROMPTS:-}; PROMPTS_TEST=${PROMPTS_TEST:-}; M_TRAIN=${M_TRAIN:-200}; M_TEST=${M_TEST:-600}
SEEDS=${SEEDS:-1 2}; MS=${MS:-}; PAPER_LR=${PAPER_LR:-3e-4}; FLAGS=${FLAGS:-} # FLAGS: for every command, e.g. --device cuda
GRID=${GRID:-vbon:n:16 rl:beta:0.1 l:n:16 vbon:n:4 rl:beta:0.3 l:n:4 vbon:n:64 rl:beta:0.03 l:n:64 vbon:n:2 rl:beta:1 l:n:2}
EPISODES=${EPISODES:-12800}; SAMPLES=${SAMPLES:-8}; PROMPTS_MAX=${PROMPTS_MAX:-0} # smaller for a rehearsal: name another RESULTS then
ASKED=
for a in "$@"; do case $a in DATA=*) ;; *) ASKED="$ASKED $a";; esac; done # DATA=DIR: the data went into models and caches, nothing more is read from it
mkdir -p "$OUT" "$(dirname "$RESULTS")"; touch "$RESULTS"
exec 9> "$OUT/lock"; flock -n 9 || { echo "imdb_small.sh: waiting for another one at work in $OUT, or a command that a killed one left running"; flock 9; }
[ -z "$(tail -c 1 "$RESULTS")" ] || sed -i '$d' "$RESULTS" # a line that was killed half-written
cache() { # cache NAME PROMPTS M: drawn, and then renamed, where LM is given; otherwise unpacked
    [ ! -f "$OUT/$1.jsonl" ] || return 0
    if [ -z "$LM" ]; then cat "$M/$1".jsonl.gz.?? | gunzip > "$OUT/$1.tmp"; mv "$OUT/$1.tmp" "$OUT/$1.jsonl"; return; fi
    ./vbon cache --model "$LM" --reward $RM --prompts "$2" --samples "$3" --max-new 40 --seed 1 $FLAGS --out "$OUT/$1.part" > "$OUT/$1.log" 2>&1 || { echo "imdb_small.sh: $1: cache failed: $(tail -n 1 "$OUT/$1.log")"; exit 1; }
    mv "$OUT/$1.part" "$OUT/$1.jsonl"
}
[ -z "$LM" ] || { [ -n "$RM" ] && [ -f "$PROMPTS" ] && [ -f "$PROMPTS_TEST" ]; } || { echo "imdb_small.sh: LM needs RM, PROMPTS and PROMPTS_TEST"; exit 1; }
cache cache "$PROMPTS" "$M_TRAIN"; cache cache_test "$PROMPTS_TEST" "$M_TEST"
MODEL=${LM:-$M/lm}; RM=${RM:-$M/rm}
COMMON="--model $MODEL --reward $RM --cache $OUT/cache.jsonl --max-new 40 --save-every 10 --resume $FLAGS"
EVAL="eval --reference $MODEL --reward $RM --cache $OUT/cache_test.jsonl --prompts-max $PROMPTS_MAX --ns 2,4,16,64 --max-new 40 --seed 1 $FLAGS"

wanted() { # wanted NAME: asked for, and not there yet
    if grep -q "^{\"run\":\"$1\"," "$RESULTS"; then return 1; fi
    [ -n "$ASKED" ] || return 0
    for a in $ASKED; do case $1 in "$a"*) return 0;; esac; done
    return 1
}
evaluate() { # evaluate NAME HEAD FLAGS: HEAD is what the line says before the evaluation
    name=$1; head=$2; shift 2
    ./vbon $EVAL "$@" --out "$OUT/$name.json" > "$OUT/$name.eval" 2>&1 || { echo "imdb_small.sh: $name: eval failed: see $OUT/$name.eval"; exit 1; }
    printf '{"run":"%s",%s"eval":%s}\n' "$name" "$head" "$(cat "$OUT/$name.json")" >> "$RESULTS" # one write: a line is there whole or not at all
    tail -n 1 "$RESULTS" | sed -E 's/.*"run":"([^"]*)".*"reward":\[([^,]*),.*"win_rate":\[([^,]*),.*"kl_rb":\[([^,]*),.*"16":\[([^,]*),.*/\1  reward \2  win rate \3  KL \4  to Best-of-16 \5/'
}
run() { # run NAME FLAGS: train, evaluate, keep the log and the line
    name=$1; shift
    wanted "$name" || return 0
    ./vbon train $COMMON --episodes "$EPISODES" "$@" --out "$OUT/$name" > "$OUT/$name.log" 2>&1 || { echo "imdb_small.sh: $name: train failed: $(tail -n 1 "$OUT/$name.log")"; exit 1; }
    # the mean of the times an iteration takes, and its last record
    times=$(awk -F '"time/' '/"type":"train"/ { for (i = 2; i <= NF; i++) { split($i, a, "\":"); s[a[1]] += a[2] + 0 } n++ } END { printf "\"iterations\":%d", n; for (k in s) printf ",\"time/%s\":%.4f", k, s[k] / n }' "$OUT/$name/log.jsonl")
    evaluate "$name" "\"flags\":\"$*\",$times,\"last\":$(grep '"type":"train"' "$OUT/$name/log.jsonl" | tail -n 1)," --model "$OUT/$name" --samples "$SAMPLES"
    [ -n "${KEEP_MODELS:-}" ] || rm -f "$OUT/$name"/*.safetensors
}
wanted reference && evaluate reference "" --model "$MODEL" --samples "$SAMPLES"
for n in 2 4 16 64; do wanted bon-$n && evaluate bon-$n "" --method bon --n $n --samples 2; done
# the two recipes over the strengths; l at N has beta = 1/(N-1): the bound of vbon at that N
for seed in $SEEDS; do for x in $GRID; do
    objective=${x%%:*}; strength=${x##*:}; flag=${x#*:}; flag=${flag%:*}
    run best-$objective-$strength-s$seed --preset best --objective $objective --$flag $strength --seed $seed
    run paper-$objective-$strength-s$seed --preset sentiment --lr $PAPER_LR --objective $objective --$flag $strength --seed $seed
done; done
for seed in $SEEDS; do for m in $MS; do run m-$m-s$seed --preset sentiment --lr $PAPER_LR --objective vbon --n 10 --m $m --seed $seed; done; done
# what matters, N=16: one change at a time from `best`, then from `paper`
V="--preset best --objective vbon --n 16 --seed 1"
run change-critic-head $V --critic head
run change-lambda-1 $V --lambda 1
run change-lambda-.95 $V --lambda 0.95
run change-lr-3e-4 $V --lr 3e-4
run change-lr-1.2e-3 $V --lr 1.2e-3
run change-no-warmup $V --warmup 0
run change-4-epochs $V --ppo-epochs 4
run change-rollout-128 $V --rollout 128 --minibatch 32
run change-top-2-blocks $V --train-layers 2
run change-m-32 $V --m 32
run change-128-prompts $V --prompts-max 128
run paper3e-5-vbon-16-s1 --preset sentiment --objective vbon --n 16 --seed 1
# more episodes
EPISODES=$((EPISODES * 4)); run long-4x-vbon-16 $V
EPISODES=$((EPISODES * 2)); run long-8x-vbon-16 $V
