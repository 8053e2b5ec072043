#!/bin/sh
# imdb_small.sh: vBoN, its bound L and KL-regularised RL on movie reviews, at a size where two cores suffice. Train,
# evaluate on 512 test prompts against their own cache of 600 samples, one line a run into
# dev/results/imdb/results.jsonl. A run that has its line is never repeated; a killed one goes on from its checkpoint.
#
#     dev/imdb_small.sh [NAME ...]        all runs in the order below, or those whose name begins with one of NAME
#
# Two recipes. `paper` is --preset sentiment (top 2 blocks, value head, 128 episodes x 4 epochs) at ten times its rate,
# because 3e-5 is a rate for 124 million parameters (control-paper-3e-5 shows what it does here), with a falling rate
# and a clipped gradient, unless LM is given; `best` is --preset best. Both at 12,800 episodes of 40 tokens, four
# strengths (RL five), three seeds. RL's optima have about the KL of Best-of-2 to Best-of-64 from beta = 3 to 0.5, but
# training goes only part of the way there: so beta goes on to 0.2. The l of N has beta = 1/(N-1): the bound of the vbon
# of that N. Then what matters, one change at a time, at N=16. `offline`: DPO and IPO on 12 comparisons of 6 cached
# samples a prompt, once; BoNBoN and supervised training on the best of the first N cached samples, six times over; all
# at 1e-4, a hundred times the rate for 124 million parameters (bon-sft: twenty), N = 16 and beta = 0.1 at 3e-5 and 3e-4
# too.
# `scaled`: RL by the recipe `paper` on rewards divided by the standard deviation of the cache's, beta too, so that its
# optimum stays: the value loss grows with the square of the returns, and through the trunk that the head shares with
# the policy it drowns the policy's gradient where rewards are large. (vBoN's returns are in nats and have no such
# unit.) The beta in a run's name is the one before the division.
# `bond` and `jbond`: their presets at two rates that fit this size, falling; 16 draws of the reference a response, or 2
# of the anchor, which the line's times include. J-BOND has no N: the anchor's rate says how far its steps towards
# Best-of-2 have led by the end, 0.02 as published, and 0.1, the largest that was tried there.
# The order is that of the questions: stopped after any run, what there is says most. A run that fails is named at the
# end and tried again the next time. Models and caches: dev/models/imdb (dev/imdb_models.sh DATA=DIR made them). Tables:
# dev/imdb_results.py; figures: dev/plot.py; what they say of the paper: dev/findings.py.
#
# With LM and RM, other models (RM may be followed by flags), the caches of PROMPTS and PROMPTS_TEST are drawn first.
# GRID, of OBJECTIVE:FLAG:STRENGTH, and MS, the M of runs m-M at N=10 (the paper's figure 4), take the place of all that
# is trained below: each with --preset sentiment (RECIPE=best or scaled: by that recipe; offline: over OFFLINE_EPOCHS at
# OFFLINE_LR, or if it is empty at the presets' rates) and every seed of SEEDS. For each M a cache of so many samples a
# training prompt is drawn anew and thrown away: its seconds are the line cache-M. dev/doc/paper.md
# uses them.
set -eu
M=${MODELS:-dev/models/imdb}; OUT=${OUT:-runs/imdb}; RESULTS=${RESULTS:-dev/results/imdb/results.jsonl}
LM=${LM:-}; RM=${RM:-}; PROMPTS=${PROMPTS:-}; PROMPTS_TEST=${PROMPTS_TEST:-}; M_TRAIN=${M_TRAIN:-200}
M_TEST=${M_TEST:-600}
# FLAGS: for every command, e.g. --device cuda --precision fp32. MACHINE: what lines say they were made on (two CPU
# cores where they say nothing).
GRID=${GRID:-}; MS=${MS:-}; SEEDS=${SEEDS:-1 2}; PAPER_LR=${PAPER_LR:-3e-4}; OFFLINE_LR=${OFFLINE_LR-1e-4}
FLAGS=${FLAGS:-} RECIPE=${RECIPE:-paper} OFFLINE_EPOCHS=${OFFLINE_EPOCHS:-1}
# what the recipe `paper` changes of --preset sentiment
[ -n "$LM" ] && PAPER=${PAPER-} || PAPER=${PAPER---schedule linear --clip-grad 1 --score-clip 0}
SCALE=${SCALE:-0.435} # of `scaled`: 1 over the deviation of the cache's rewards, 2.298
# smaller for a rehearsal: name another RESULTS then
EPISODES=${EPISODES:-12800}; SAMPLES=${SAMPLES:-8}; PROMPTS_MAX=${PROMPTS_MAX:-0}
ASKED=
# DATA=DIR: the data went into models and caches, nothing more is read from it
for a in "$@"; do case $a in DATA=*) ;; *) ASKED="$ASKED $a";; esac; done
mkdir -p "$OUT" "$(dirname "$RESULTS")"; touch "$RESULTS"
exec 9> "$OUT/lock"
flock -n 9 || {
    echo "imdb_small.sh: waiting for another one at work in $OUT, or a command that a killed one left running"
    flock 9
}
[ -z "$(tail -c 1 "$RESULTS")" ] || sed -i '$d' "$RESULTS" # a line that was killed half-written
cache() { # cache NAME PROMPTS M: drawn, and then renamed, where LM is given; otherwise unpacked
    [ ! -f "$OUT/$1.jsonl" ] || return 0
    if [ -z "$LM" ]; then cat "$M/$1".jsonl.gz.?? | gunzip > "$OUT/$1.tmp"; mv "$OUT/$1.tmp" "$OUT/$1.jsonl"; return; fi
    ./vbon cache --model "$LM" --reward $RM --prompts "$2" --samples "$3" --max-new 40 --seed 1 $FLAGS \
        --out "$OUT/$1.part" > "$OUT/$1.log" 2>&1 ||
            { echo "imdb_small.sh: $1: cache failed: $(tail -n 1 "$OUT/$1.log")"; exit 1; }
    mv "$OUT/$1.part" "$OUT/$1.jsonl"
}
[ -z "$LM" ] || { [ -n "$RM" ] && [ -f "$PROMPTS" ] && [ -f "$PROMPTS_TEST" ]; } ||
    { echo "imdb_small.sh: LM needs RM, PROMPTS and PROMPTS_TEST"; exit 1; }
cache cache "$PROMPTS" "$M_TRAIN"; cache cache_test "$PROMPTS_TEST" "$M_TEST"
MODEL=${LM:-$M/lm}; RM=${RM:-$M/rm}
TRAIN="train --model $MODEL --reward $RM --cache $OUT/cache.jsonl --max-new 40 --save-every 10 --resume $FLAGS"
TRAIN="$TRAIN --episodes"
OFFLINE="offline --model $MODEL --cache $OUT/cache.jsonl --save-every 100 --resume $FLAGS"
EVAL="eval --reference $MODEL --reward $RM --cache $OUT/cache_test.jsonl --prompts-max $PROMPTS_MAX"
EVAL="$EVAL --ns 2,4,16,64 --max-new 40 --seed 1 $FLAGS"

FAILED=
end() { [ -z "$FAILED" ] || { echo "imdb_small.sh: failed:$FAILED"; exit 1; }; exit 0; }
failed() { echo "imdb_small.sh: $1"; FAILED="$FAILED ${1%%:*}"; }
wanted() { # wanted NAME: asked for, and not there yet
    if grep -qs "^{\"run\":\"$1\"," "$RESULTS" "${RESULTS%/*}/critic.jsonl"; then return 1; fi
    [ -n "$ASKED" ] || return 0
    for a in $ASKED; do case $1 in "$a"*) return 0;; esac; done
    return 1
}
evaluate() { # evaluate NAME HEAD FLAGS: HEAD is what the line says before the evaluation
    name=$1; head=$2; shift 2
    ./vbon $EVAL "$@" --out "$OUT/$name.json" > "$OUT/$name.eval" 2>&1 ||
        { failed "$name: eval failed: $(tail -n 1 "$OUT/$name.eval")"; return 0; }
    # one write: a line is there whole or not at all
    printf '{"run":"%s",%s"eval":%s}\n' "$name" "$head" "$(cat "$OUT/$name.json")" >> "$RESULTS"
    tail -n 1 "$RESULTS" |
        sed -E -e 's/.*"run":"([^"]*)".*"reward":\[([^,]*),(.*"win_rate":.*)/\1  reward \2\n\3/' \
            -e 's/\n.*"win_rate":\[([^,]*),(.*"kl_rb":.*)/  win rate \1\n\2/' \
            -e 's/\n.*"kl_rb":\[([^,]*),.*"16":\[([^,]*),.*/  KL \1  to Best-of-16 \2/'
}
curve() { # curve KEY LOG: "KEY":[its values at every so many train records, the last included], if it is there
    sed -n "s|.*\"type\":\"train\".*\"$1\":\([^,}]*\).*|\1|p" "$2" | awk -v key="$1" '{ x[NR] = $1 }
        END { every = int((NR + 24) / 25); if (!NR) exit; printf "\"%s\":[", key
            for (i = NR - int((NR - 1) / every) * every; i <= NR; i += every)
                printf "%s%s", x[i] == "null" ? "null" : sprintf("%.5g", x[i]), i < NR ? "," : "]\n" }'
}
# timed NAME M: a cache of M samples a prompt, and the line that says how long it took
timed() {
    wanted "$1" || return 0
    began=$(date +%s.%N)
    ./vbon cache --model "$MODEL" --reward $RM --prompts "${PROMPTS:-dev/imdb/prompts.jsonl}" --samples "$2" \
        --max-new 40 --seed 1 $FLAGS --out "$OUT/$1.part" > "$OUT/$1.log" 2>&1 ||
            { failed "$1: cache failed: $(tail -n 1 "$OUT/$1.log")"; return 0; }
    seconds=$(echo "$began $(date +%s.%N)" | awk '{ printf "%.2f", $2 - $1 }')
    # the cache's own first line is no sample
    printf '{"run":"%s",%s"m":%s,"responses":%s,"time/cache":%s}\n' "$1" "${MACHINE:+\"machine\":\"$MACHINE\",}" "$2" \
        "$(grep -vc '"vbon_cache"' "$OUT/$1.part")" "$seconds" >> "$RESULTS"
    echo "$1  $seconds s"
    rm -f "$OUT/$1.part"
}
# run NAME COMMAND FLAGS: train, evaluate, keep the log and the line. COMMAND: the vbon command and what all of its runs
# share
run() {
    name=$1; command=$2; shift 2
    wanted "$name" || return 0
    ./vbon $command "$@" --out "$OUT/$name" > "$OUT/$name.log" 2>&1 ||
        { failed "$name: train failed: $(tail -n 1 "$OUT/$name.log")"; return 0; }
    # the median of the times an iteration takes, its last record, and 25 or so of all as training curves
    times="\"iterations\":$(grep -c '"type":"train"' "$OUT/$name/log.jsonl")"
    for part in rollout reward update; do
        grep -q "time/$part" "$OUT/$name/log.jsonl" || continue # nothing is sampled offline
        seconds=$(sed -n "s|.*\"type\":\"train\".*\"time/$part\":\([^,}]*\).*|\1|p" "$OUT/$name/log.jsonl" | sort -g |
            awk '{ x[NR] = $1 } END { print x[int((NR + 1) / 2)] }')
        times="$times,\"time/$part\":$seconds"
    done
    times="${MACHINE:+\"machine\":\"$MACHINE\",}$times,\"curve\":{$(for key in episode objective/scores objective/kl \
        vbon/distance loss; do curve "$key" "$OUT/$name/log.jsonl"; done | paste -s -d ,)}"
    evaluate "$name" "\"flags\":\"$*\",$times,\"last\":$(grep '"type":"train"' "$OUT/$name/log.jsonl" | tail -n 1)," \
        --model "$OUT/$name" --samples "$SAMPLES"
    [ -n "${KEEP_MODELS:-}" ] || rm -f "$OUT/$name"/*.safetensors
}
# OBJECTIVE FLAG STRENGTH SEED [RATE]: a rate that is given is in the name
best() { run "best-$1-$2$3-s$4" "$TRAIN $EPISODES" --preset best --objective "$1" "--$2" "$3" --seed "$4"; }
paper() {
    run "paper-$1-$2$3${5:+-lr$5}-s$4" "$TRAIN $EPISODES" --preset sentiment $PAPER --lr "${5:-$PAPER_LR}" \
        --objective "$1" "--$2" "$3" --seed "$4"
}
scaled() { # the same; without the cache, whose rewards are not divided
    run "scaled-$1-$2$3${5:+-lr$5}-s$4" \
        "$(echo "$TRAIN" | sed "s#--cache [^ ]*#--prompts ${PROMPTS:-dev/imdb/prompts.jsonl}#") $EPISODES" \
        --preset sentiment $PAPER --lr "${5:-$PAPER_LR}" --objective "$1" \
        "--$2" "$(awk "BEGIN { printf \"%g\", $3 * $SCALE }")" --reward-scale "$SCALE" --seed "$4"
}
# `best` at a rate in proportion to the root of the KL that there is to go (of Best-of-N; RL's is what `best` came to),
# and with the value head, at half of that and lambda 1
fitted() { # OBJECTIVE FLAG STRENGTH SEED RATE [FLAGS of another critic]
    name="fitted-$1-$2$3${6:+-head}-s$4" how="--objective $1 --$2 $3 --seed $4 --lr $5"; shift 5
    run "$name" "$TRAIN $EPISODES" $how --rollout 512 --minibatch 64 --ppo-epochs 1 --warmup 12 \
        ${1:---critic prefix-rank --lambda 0.7}
}
strengths() { # strengths RECIPE SEED: all of them but N=16 and what stands beside it
    $1 vbon n 4 $2; $1 rl beta 1.5 $2; $1 vbon n 64 $2; $1 rl beta 0.4 $2; $1 rl beta 0.2 $2; $1 vbon n 2 $2
    $1 rl beta 3 $2; $1 l n 4 $2; $1 l n 64 $2; $1 l n 2 $2
}
# LOSS FLAG STRENGTH SEED [PRESET EPOCHS [RATE]]: a rate that is given is in the name
offline() {
    run "offline-$1-$2$3${7:+-lr$7}-s$4" "$OFFLINE" --preset "${5:-$(echo "$1" | sed s/ipo/dpo/)}" --loss "$1" "--$2" \
        "$3" --seed "$4" ${OFFLINE_LR:+--lr ${7:-$OFFLINE_LR}} --epochs "${6:-$OFFLINE_EPOCHS}"
}
drawn() { # OBJECTIVE FLAG STRENGTH SEED [RATE]: as the preset has it, or at this rate
    run "$1-$2$3${5:+-lr$5}-s$4" "$TRAIN $EPISODES" --preset "$1" "--$2" "$3" --seed "$4" \
        ${5:+--lr $5 --schedule linear --warmup 8}
}
# The same reward as one of texts: its tokenizer lacks the last merge, so it is taken for another than the policy's, and
# each prefix is a text of its own. 18 % of the cached texts do not encode to what was sampled: hence the tolerance.
# Lambda: from one scored prefix to the next, four actions on, about as much as in `best`.
texts() { # EVERY LAMBDA
    wanted "change-texts-every-$1-lambda-$2" || return 0
    mkdir -p "$OUT/rm-texts"; cp "$RM"/* "$OUT/rm-texts"
    sed -E 's/,\["[^]]*"\]\]\}\}$/]}}/' "$RM/tokenizer.json" > "$OUT/rm-texts/tokenizer.json"
    sed '1s/"reward":"[^"]*",//' "$OUT/cache.jsonl" > "$OUT/cache-texts.jsonl"
    run "change-texts-every-$1-lambda-$2" "$(echo "$TRAIN" | sed "s#--reward $RM#--reward $OUT/rm-texts#
        s#$OUT/cache.jsonl#$OUT/cache-texts.jsonl#") $EPISODES" --preset best --objective vbon --n 16 --seed 1 \
        --prefix-every "$1" --lambda "$2" --reward-tolerance 100
}
change() { name=$1; shift; run "change-$name" "$TRAIN $EPISODES" --preset best --objective vbon --n 16 --seed 1 "$@"; }
# The first M cached samples, blended with what other prompts' first M teach of the prompt (dev/fhat_learned.py, which
# needs torch: PYTHON).
learned() { # M SEED
    wanted "change-learned-m-$1-s$2" || return 0
    blend="$OUT/cache-learned-m-$1.jsonl"
    if [ ! -f "$blend" ]; then
        "${PYTHON:-python3}" dev/fhat_learned.py "$MODEL" "$OUT/cache.jsonl" --m "$1" --write "$blend.part" \
            > "$OUT/blend.log" 2>&1 ||
                { failed "change-learned-m-$1-s$2: blend failed: $(tail -n 1 "$OUT/blend.log")"; return 0; }
        mv "$blend.part" "$blend"
    fi
    change "learned-m-$1-s$2" --cache "$blend" --seed "$2"
}

if wanted reference; then evaluate reference "" --model "$MODEL" --samples "$SAMPLES"; fi
for n in 2 4 16 64; do if wanted bon-$n; then evaluate bon-$n "" --method bon --n $n --samples 2; fi; done
[ -z "$GRID$MS" ] || {
    for s in $SEEDS; do
        for x in $GRID; do
            flag=${x#*:}; recipe=$RECIPE
            case $x in dpo:*|ipo:*|bonbon:*|bon-sft:*) recipe=offline;; bond:*|jbond:*) recipe=drawn;; esac
            $recipe "${x%%:*}" "${flag%:*}" "${x##*:}" "$s"
        done
        for m in $MS; do
            timed "cache-$m" "$m"
            run "m-$m-s$s" "$TRAIN $EPISODES" --preset sentiment $PAPER --lr "$PAPER_LR" --objective vbon --n 10 \
                --m "$m" --seed "$s"
        done
    done
    end
}
best vbon n 16 1; best rl beta 0.8 1; best l n 16 1
change 5x-episodes --episodes $((EPISODES * 5))
change lr-1e-4-5x-episodes --lr 1e-4 --episodes $((EPISODES * 5))
change lambda-0.95-lr-1e-4-5x-episodes --lambda 0.95 --lr 1e-4 --episodes $((EPISODES * 5))
strengths best 1
paper vbon n 16 1; paper rl beta 0.8 1; paper l n 16 1
change critic-head --critic head --vf-coef 0.1 --lambda 0.95
change lambda-0.95 --lambda 0.95
change lambda-0.5 --lambda 0.5
change lr-4e-4 --lr 4e-4
change lr-1e-4 --lr 1e-4
change 4-epochs --ppo-epochs 4
change m-32 --m 32
change rollout-128 --rollout 128
change top-2-blocks --train-layers 2
change 3-blocks --train-layers 3
best vbon n 16 2; best rl beta 0.8 2; best l n 16 2
strengths best 2
offline bon-sft n 16 1 bon-sft 6; offline bonbon n 16 1 bonbon 6; offline dpo beta 0.1 1
offline bonbon n 4 1 bonbon 6; offline bonbon n 64 1 bonbon 6; offline bon-sft n 4 1 bon-sft 6
offline bon-sft n 64 1 bon-sft 6; offline dpo beta 0.5 1; offline ipo beta 0.1 1
strengths paper 1
scaled rl beta 0.8 1; scaled rl beta 1.5 1; scaled rl beta 0.4 1
run control-rl-critic-head "$TRAIN $EPISODES" --preset best --objective rl --beta 0.8 --seed 1 --critic head \
    --vf-coef 0.1 --lambda 0.95
run control-rl-0.1 "$TRAIN $EPISODES" --preset best --objective rl --beta 0.1 --seed 1
run control-paper-3e-5 "$TRAIN $EPISODES" --preset sentiment --objective vbon --n 16 --seed 1
change lr-4e-4-5x-episodes --lr 4e-4 --episodes $((EPISODES * 5))
change minibatch-128 --minibatch 128
change no-warmup --warmup 0
change 128-prompts --prompts-max 128
paper vbon n 16 2; paper rl beta 0.8 2; paper l n 16 2
strengths paper 2
for s in 2 3; do
    scaled rl beta 0.8 $s; scaled rl beta 1.5 $s; scaled rl beta 0.4 $s; scaled rl beta 0.2 $s; scaled rl beta 3 $s
done
scaled rl beta 0.2 1; scaled rl beta 3 1
best vbon n 16 3; best rl beta 0.8 3; best l n 16 3
strengths best 3
paper vbon n 16 3; paper rl beta 0.8 3; paper l n 16 3
strengths paper 3
for s in 1 2; do
    offline dpo beta 1 $s; offline ipo beta 0.5 $s
    for n in 4 16 64; do offline bonbon n $n $s bonbon 6; offline bon-sft n $n $s bon-sft 6; done
    offline dpo beta 0.1 $s; offline dpo beta 0.5 $s; offline ipo beta 0.1 $s
    for rate in 3e-5 3e-4; do # is it the rate?
        offline dpo beta 0.1 $s dpo 1 $rate; offline ipo beta 0.1 $s dpo 1 $rate
        offline bonbon n 16 $s bonbon 6 $rate; offline bon-sft n 16 $s bon-sft 6 $rate
    done
done
for s in 1 2 3; do
    fitted vbon n 2 $s 7e-5; fitted vbon n 4 $s 1.3e-4; fitted vbon n 16 $s 2.2e-4; fitted vbon n 64 $s 2.8e-4
    fitted vbon n 8 $s 1.8e-4; fitted l n 4 $s 1.3e-4; fitted l n 16 $s 2.2e-4
    fitted rl beta 3 $s 7.8e-5; fitted rl beta 1.5 $s 1.1e-4; fitted rl beta 0.8 $s 1.7e-4
    fitted rl beta 0.4 $s 2.8e-4; fitted rl beta 0.2 $s 4.1e-4
    by_head="--critic head --lambda 1 --vf-coef 0.1"
    fitted vbon n 2 $s 3.5e-5 "$by_head"; fitted vbon n 4 $s 6.5e-5 "$by_head"
    fitted vbon n 16 $s 1.1e-4 "$by_head"
done
for s in 1 2; do
    for rate in 1e-4 1e-3; do # is it the rate of the paper's recipe?
        paper vbon n 16 $s $rate; paper l n 16 $s $rate; scaled rl beta 0.8 $s $rate; paper vbon n 4 $s $rate
        scaled rl beta 1.5 $s $rate
    done
done
for s in 1 2; do # few cached samples
    change m-8-s$s --m 8 --seed $s
    learned 8 $s
    change m-23-s$s --m 23 --seed $s # whose log F-hat has the error of the blend's
done
change fhat-expfit-m-200 --fhat expfit # footnote 18's, from all 200
for s in 1 2; do # the other estimates from few samples, and the released code's scales
    change fhat-expfit-m-8-s$s --fhat expfit --m 8 --seed $s
    change compat-scale-n-4-s$s --compat scale --n 4 --seed $s
    change fhat-mc-m-8-s$s --fhat mc --m 8 --seed $s
    change fhat-add1-m-8-s$s --fhat add1 --m 8 --seed $s
    change compat-scale-n-2-s$s --compat scale --n 2 --seed $s
done
change compat-scale-n-16 --compat scale
for f in expfit mc add1; do change fhat-$f-m-32 --fhat $f --m 32; done
for f in mc add1; do change fhat-$f-m-200 --fhat $f; done
[ -n "$LM" ] || texts 4 0.9
change 10x-episodes --episodes $((EPISODES * 10))
# Nearer to Best-of-N, at the rates of `fitted`, longer (TIMES the episodes): plain, with the gradient over the 16
# likeliest tokens of each state, with a policy of twice the blocks (the same distribution at the start: dev/deeper.py).
nearer() { # NAME N SEED RATE TIMES FLAGS
    name="nearer-$1-n$2-$5x-s$3" n=$2 seed=$3 rate=$4 times=$5; shift 5
    run "$name" "$TRAIN $((EPISODES * times))" --preset best --objective vbon --n "$n" --seed "$seed" --lr "$rate" "$@"
}
deeper() { # the same, of the models in dev/models/imdb
    [ -z "$LM" ] || return 0
    wanted "nearer-$1-n$2-$5x-s$3" || return 0
    [ -d "$OUT/deeper" ] || {
        rm -rf "$OUT/deeper.tmp"
        "${PYTHON:-python3}" dev/deeper.py "$MODEL" "$OUT/deeper.tmp" --blocks 6 > "$OUT/deeper.log" 2>&1 ||
            { failed "nearer-$1: dev/deeper.py failed: $(tail -n 1 "$OUT/deeper.log")"; return 0; }
        mv "$OUT/deeper.tmp" "$OUT/deeper"
    }
    sed '1s/"model":"[^"]*",//' "$OUT/cache.jsonl" > "$OUT/cache-deeper.jsonl"
    nearer "$@" --model "$OUT/deeper" --cache "$OUT/cache-deeper.jsonl"
}
ALL="--all-actions 16"
nearer plain 4 1 1.3e-4 5; nearer all-actions 4 1 1.3e-4 5 $ALL; nearer all-actions 16 1 2.2e-4 5 $ALL
deeper deeper 16 1 2.2e-4 5; deeper deeper-all-actions 16 1 2.2e-4 5 $ALL; deeper deeper-all-actions 4 1 1.3e-4 5 $ALL
nearer all-actions 4 2 1.3e-4 5 $ALL; nearer all-actions 16 2 2.2e-4 5 $ALL; nearer plain 4 2 1.3e-4 5
nearer all-actions 16 1 2.2e-4 1 $ALL; nearer all-actions 4 1 1.3e-4 1 $ALL; nearer all-actions 2 1 7e-5 1 $ALL
nearer plain 2 1 7e-5 5; nearer plain 2 2 7e-5 5
for s in 1 2; do
    for rate in 2e-4 5e-4; do
        drawn bond n 16 $s $rate; drawn bond n 4 $s $rate
        drawn jbond anchor-rate 0.02 $s $rate; drawn jbond anchor-rate 0.1 $s $rate
    done
done
end
