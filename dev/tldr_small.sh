#!/bin/sh
# tldr_small.sh [DATA=DIR]: section 6 of the paper, TL;DR summaries, at a size where two cores suffice: a rehearsal of
# its pipeline, not of its numbers. A language model of four million parameters does not summarise, and 800 preferences
# teach a reward model little; what is shown is that every step runs and is measured as at full size.
#
# Stages: split the posts; language model (GPT-NeoX, reviews and training posts); SFT on the human summaries; a training
# reward model from its lower half and a larger one, the judge, from all of it, each centred on the human summaries;
# reward cache; vBoN and RL on the training reward, DPO and BoNBoN on the cache alone; at each temperature reference
# samples judged by the judge and a pool of other draws rewarded by the training reward; SFT, the four policies and
# Best-of-N (chosen from the pool) judged by the judge; one response each to look at. --preset tldr but for: N and M (no
# 100 of 200 at two cores), --lr (3e-6 is for billions of parameters), --episodes, --train-layers and --critic
# prefix-rank (few episodes).
#
# DIR holds imdb/train.jsonl.gz, imdb/test.jsonl.gz and tldr/posts.jsonl.gz (lines
# {"prompt","reference","policy","subreddit","preferred"?}). The split and the tables need python3 with the tokenizers
# package (dev/requirements.txt; PYTHON=...). Every size below is a variable; with SPLIT, SFT, RM and JUDGE, the folders
# of a split and of three models that are there (dev/download.sh), it starts at the caches and needs no DATA:
# dev/doc/paper.md has the sizes of the paper. Killed at any moment and started again it goes on: no finished
# stage, run or evaluation is repeated. It works in OUT (runs/tldr); at the end lines and tables go to dev/results/tldr,
# the models of KEEP to dev/models/tldr: no file over 4 MiB, 19 MiB in all; the policies follow from them in half an
# hour.
#
# Work, in 10^12 FLOPs: a training token costs 6 P and attention, a forward or decoded one 2 P and attention; P = 3.4 M
# (blocks and head; training reward 1.3 M, judge 2.7 M). A post has 376 tokens, a summary about 40. Minutes on two idle
# cores: half the CPU minutes of small runs of each stage on a busy machine, scaled (responses of 53 tokens), not a full
# run.
# language model  2.24 M tokens           53   9  vBoN and RL     1,536 episodes each, 4 epochs, top 2 blocks  76  11
# SFT             0.83 M tokens           20   4  reference, pool 4 temperatures x 392 posts x 24 draws, twice  62  18
# reward, judge   1.34 M tokens each      38   7  RL, vBoN        48 evaluations of 196 posts                 117  23
# reward cache    600 posts x 32 draws    13   4  SFT, BoN        16 evaluations of the pool                   10   3
# Together 390 (about an hour at 100 GFLOP/s) and 65 to 80 minutes; on top of it DPO and BoNBoN, whose evaluations cost
# what RL's and vBoN's do (their training: not measured).
set -eu
for a in "$@"; do
    case $a in DATA=*) DATA=${a#DATA=};; *) echo "tldr_small.sh: $a: usage: dev/tldr_small.sh DATA=DIR"; exit 2;; esac
done
# prompts.jsonl, test_in.jsonl, test_out.jsonl and test.jsonl; policy, training reward model, judge
SPLIT=${SPLIT:-} SFT=${SFT:-} RM=${RM:-} JUDGE=${JUDGE:-} GIVEN=
OUT=${OUT:-runs/tldr}; RESULTS=${RESULTS:-dev/results/tldr}; MODELS=${MODELS:-dev/models/tldr}
KEEP=${KEEP-sft rm judge}
PYTHON=${PYTHON:-python3}; TOKENIZER=${TOKENIZER:-dev/tldr/tokenizer}
# SEEDS: sampling seeds of the evaluation; Best-of-N and SFT: as many draws a post
SEED=${SEED:-1}; SEEDS=${SEEDS:-1 2 3}; TEMPERATURES=${TEMPERATURES:-.25 .5 .75 1}
LAYERS=${LAYERS:-6}; WIDTH=${WIDTH:-192}; HEADS=${HEADS:-4}; RM_LAYERS=${RM_LAYERS:-3}; TRAIN_LAYERS=${TRAIN_LAYERS:-2}
# CENTRE: summaries whose mean reward becomes 0
REVIEWS=${REVIEWS:-5000}; LM_EPOCHS=${LM_EPOCHS:-1}; SFT_EPOCHS=${SFT_EPOCHS:-2}; RM_EPOCHS=${RM_EPOCHS:-2}
CENTRE=${CENTRE:-300}
LM_LR=${LM_LR:-2e-3}; SFT_LR=${SFT_LR:-5e-4}; RM_LR=${RM_LR:-5e-4}; PPO_LR=${PPO_LR:-1e-4}
OFFLINE_LR=${OFFLINE_LR:-1e-4}
# posts in each half of the test; tokens
TEST=${TEST:-196}; QUERY=${QUERY:-512}; CONTEXT=${CONTEXT:-576}; MAX_NEW=${MAX_NEW:-53}
# of vBoN and RL: what departs from --preset tldr
TRAIN=${TRAIN---m 0 --critic prefix-rank}; SHARD_MIB=${SHARD_MIB:-4}; SAVE_EVERY=${SAVE_EVERY:-2}
PROMPTS=${PROMPTS:-600}; M=${M:-32}; N=${N:-8}; BETA=${BETA:-0.05}; DPO_BETA=${DPO_BETA:-0.1}
EPISODES=${EPISODES:-1536}; T=${T:-0.7}
# FLAGS: for every command, e.g. --device cuda
HELD_OUT=${HELD_OUT:-200}; POOL_SEED=$((SEED + 1)); FLAGS=${FLAGS:-}
if [ -n "$SPLIT$SFT$RM$JUDGE" ]; then
    GIVEN=" given $SPLIT $SFT $RM $JUDGE train $TRAIN"
    for f in "$SPLIT/prompts.jsonl" "$SPLIT/test_in.jsonl" "$SPLIT/test_out.jsonl" "$SPLIT/test.jsonl" \
        "$SFT/config.json" "$RM/config.json" "$JUDGE/config.json"; do
        [ -f "$f" ] || { echo "tldr_small.sh: $f is missing: SPLIT, SFT, RM and JUDGE are folders, all four or none";
            exit 1; }
    done
else
    DATA=${DATA:?usage: dev/tldr_small.sh DATA=DIR (the folder with imdb/ and tldr/)}
    for f in imdb/train imdb/test tldr/posts; do
        [ -f "$DATA/$f.jsonl.gz" ] || { echo "tldr_small.sh: $DATA/$f.jsonl.gz is missing"; exit 1; }
    done
    [ -f "$TOKENIZER/tokenizer.json" ] ||
        { echo "tldr_small.sh: $TOKENIZER/tokenizer.json is missing: dev/make_bpe.py makes one"; exit 1; }
fi
mkdir -p "$OUT"
exec 9> "$OUT/lock"
flock -n 9 || {
    echo "tldr_small.sh: waiting for another one at work in $OUT, or a command that a killed one left running"
    flock 9
}
SETTINGS="seed $SEED seeds $SEEDS temperatures $TEMPERATURES layers $LAYERS width $WIDTH heads $HEADS"
SETTINGS="$SETTINGS rm-layers $RM_LAYERS train-layers $TRAIN_LAYERS reviews $REVIEWS"
SETTINGS="$SETTINGS epochs $LM_EPOCHS $SFT_EPOCHS $RM_EPOCHS centre $CENTRE"
SETTINGS="$SETTINGS lr $LM_LR $SFT_LR $RM_LR $PPO_LR $OFFLINE_LR test $TEST query $QUERY context $CONTEXT"
SETTINGS="$SETTINGS max-new $MAX_NEW prompts $PROMPTS M $M N $N beta $BETA $DPO_BETA episodes $EPISODES T $T"
SETTINGS="$SETTINGS held-out $HELD_OUT pool-seed $POOL_SEED $FLAGS$GIVEN"
[ -f "$OUT/settings" ] || { echo "$SETTINGS" > "$OUT/settings.tmp"; mv "$OUT/settings.tmp" "$OUT/settings"; }
[ "$SETTINGS" = "$(cat "$OUT/settings")" ] ||
    { echo "tldr_small.sh: $OUT was begun with other sizes (see $OUT/settings): name another OUT"; exit 1; }
LINES=$OUT/results.jsonl
touch "$LINES"
[ -z "$(tail -c 1 "$LINES")" ] || sed -i '$d' "$LINES" # a line that was killed half-written
DRAWS=$((N * $(set -- $SEEDS; echo $#)))

wanted() { ! grep -q "^{\"run\":\"$1\"," "$LINES"; }
say() { printf '%s %s\n' "$(date +%T)" "$*"; }
step() { # step NAME COMMAND...: runs vbon, its output in NAME.log
    name=$1; shift
    say "$name"
    ./vbon "$@" $FLAGS > "$OUT/$name.log" 2>&1 ||
        { echo "tldr_small.sh: $name failed: $(tail -n 1 "$OUT/$name.log")"; exit 1; }
}
line() { # line NAME REST: one write, so a line is there whole or is cut at the next start
    printf '{"run":"%s",%s}\n' "$1" "$2" >> "$LINES"
}

# 1. the posts, split by seed, and the text of the language model
[ -n "$GIVEN" ] || [ -d "$OUT/data" ] || {
    say split; rm -rf "$OUT/data.tmp"
    $PYTHON dev/tldr_data.py "$DATA/tldr/posts.jsonl.gz" --tokenizer "$TOKENIZER" --seed "$SEED" --test "$TEST" \
        --query "$QUERY" --context "$CONTEXT" --out "$OUT/data.tmp" > "$OUT/split.log"
    { zcat "$DATA/imdb/train.jsonl.gz" | head -n "$REVIEWS";
        cat "$OUT/data.tmp/text.jsonl"; } > "$OUT/data.tmp/lm.jsonl"
    zcat "$DATA/imdb/test.jsonl.gz" | head -n "$HELD_OUT" > "$OUT/data.tmp/lm_test.jsonl"
    mv "$OUT/data.tmp" "$OUT/data"
}
D=${SPLIT:-$OUT/data}
if wanted split; then
    if [ -n "$GIVEN" ]; then said="as given"; else said=$(tail -n 1 "$OUT/split.log"); fi
    line split "\"settings\":\"$SETTINGS\",\"said\":\"$said\""
fi

# 2. models; the reward models are shifted so that human summaries score 0 on average (given ones: as they come)
model() { # model NAME COMMAND FLAGS: a supervised run and its line
    name=$1; shift
    [ -z "$GIVEN" ] && wanted "$name" || return 0
    step "$name" "$@" --seed "$SEED" --context "$CONTEXT" --schedule cosine --beta2 0.98 --dtype bf16 \
        --shard-mib "$SHARD_MIB" --log-every 10 --save-every 25 --max-docs "$HELD_OUT" --resume --out "$OUT/$name"
    last=$(grep '"type":"train"' "$OUT/$name/log.jsonl" | tail -n 1)
    line "$name" "\"last\":$last,\"held_out\":$(grep '"type":"held_out"' "$OUT/$name/log.jsonl" | tail -n 1)"
}
model lm sft --arch gpt_neox --tokenizer "$TOKENIZER" --layers "$LAYERS" --width "$WIDTH" --heads "$HEADS" \
    --data "$D/lm.jsonl" --held-out "$D/lm_test.jsonl" --epochs "$LM_EPOCHS" --batch 32 --lr "$LM_LR" --warmup 20 \
        --weight-decay 0.05
model sft sft --model "$OUT/lm" --data "$D/sft.jsonl" --held-out "$D/sft_test.jsonl" --epochs "$SFT_EPOCHS" --batch 32 \
    --lr "$SFT_LR"
model rm reward --init "$OUT/sft" --layers "$RM_LAYERS" --data "$D/pairs.jsonl" --held-out "$D/pairs_test.jsonl" \
    --epochs "$RM_EPOCHS" --batch 32 --lr "$RM_LR" --weight-decay 0.1
model judge reward --init "$OUT/sft" --layers "$LAYERS" --data "$D/pairs.jsonl" --held-out "$D/pairs_test.jsonl" \
    --epochs "$RM_EPOCHS" --batch 32 --lr "$RM_LR" --weight-decay 0.1
SFT=${SFT:-$OUT/sft} RM=${RM:-$OUT/rm} JUDGE=${JUDGE:-$OUT/judge}
[ -n "$GIVEN" ] || head -n "$CENTRE" "$D/answers.jsonl" > "$OUT/centre.jsonl"
for r in rm judge; do
    if [ -n "$GIVEN" ]; then echo 0 > "$OUT/$r.offset"; fi
    [ -f "$OUT/$r.offset" ] || {
        step centre-$r score --model "$SFT" --reward "$OUT/$r" --in "$OUT/centre.jsonl" --out "$OUT/centre-$r.jsonl"
        sed -E 's/.*"reward":([^,}]*).*/\1/' "$OUT/centre-$r.jsonl" |
            awk '{ s += $1 } END { printf "%.6f\n", -s / NR }' > "$OUT/$r.offset.tmp"
        mv "$OUT/$r.offset.tmp" "$OUT/$r.offset"
    }
done
BY_RM="--reward $RM --reward-offset $(cat "$OUT/rm.offset")"
BY_JUDGE="--reward $JUDGE --reward-offset $(cat "$OUT/judge.offset")"; RULES="--missing-eos -1 --max-new $MAX_NEW"

# 3. the reward cache, vBoN and RL; DPO and BoNBoN
cache() { # cache NAME SEED FLAGS: goes on by itself, then is renamed
    name=$1; seed=$2; shift 2
    [ -f "$OUT/$name.jsonl" ] || {
        step "$name" cache --model "$SFT" "$@" $RULES --seed "$seed" --out "$OUT/$name.part"
        mv "$OUT/$name.part" "$OUT/$name.jsonl"
    }
}
cache cache "$SEED" $BY_RM --temperature "$T" --prompts "$D/prompts.jsonl" --prompts-max "$PROMPTS" --samples "$M"
policy() { # policy NAME COMMAND FLAGS
    name=$1; command=$2; shift 2
    wanted "$name" || return 0
    step "$name" $command --model "$SFT" --cache "$OUT/cache.jsonl" --temperature "$T" --train-layers "$TRAIN_LAYERS" \
        "$@" --seed "$SEED" \
        --dtype bf16 --shard-mib "$SHARD_MIB" --save-every "$SAVE_EVERY" --resume --out "$OUT/$name"
    first=$(grep '"type":"train"' "$OUT/$name/log.jsonl" | head -n 1)
    last=$(grep '"type":"train"' "$OUT/$name/log.jsonl" | tail -n 1)
    line "$name" "\"flags\":\"$*\",\"first\":$first,\"last\":$last"
}
PPO="train --preset tldr $BY_RM $RULES $TRAIN --lr $PPO_LR --episodes $EPISODES"
policy vbon "$PPO" --objective vbon --n "$N"
policy rl "$PPO" --objective rl --beta "$BETA"
policy dpo "offline --preset dpo --lr $OFFLINE_LR" --loss dpo --beta "$DPO_BETA"
policy bonbon "offline --preset bonbon --lr $OFFLINE_LR" --loss bonbon --n "$N"

# 4. evaluation: at each temperature against reference samples of that temperature; SFT's responses and Best-of-N's come
# from a pool of other draws: among those they are compared with, a response would meet itself and those that it was
# preferred to. Best-of-N chooses by the training reward; the judge judges
evaluate() { # evaluate NAME FLAGS
    name=$1; shift
    wanted "$name" || return 0
    step "$name" eval --reference "$SFT" $BY_JUDGE $RULES --cache "$OUT/reference-$t.jsonl" \
        --prompts "$D/test_$half.jsonl" --temperature "$t" --ns "$N" "$@" --out "$OUT/$name.json"
    at="\"method\":\"$method\",\"half\":\"$half\",\"temperature\":$(printf '%g' "$t")"
    line "$name" "$at,\"eval\":$(cat "$OUT/$name.json")"
}
for t in $TEMPERATURES; do
    cache "reference-$t" "$SEED" $BY_JUDGE --temperature "$t" --prompts "$D/test.jsonl" --samples "$DRAWS"
    cache "pool-$t" "$POOL_SEED" $BY_RM --temperature "$t" --prompts "$D/test.jsonl" --samples "$DRAWS"
    for half in in out; do
        method=SFT
        evaluate "SFT-$half-$t" --method bon --n 1 --pool "$OUT/pool-$t.jsonl" --samples "$(set -- $SEEDS; echo $#)"
        method=BoN
        evaluate "BoN-$half-$t" --method bon --n "$N" --pool "$OUT/pool-$t.jsonl" --samples "$(set -- $SEEDS; echo $#)"
        for s in $SEEDS; do
            for method in RL vBoN DPO BoNBoN; do
                evaluate "$method-$half-$t-s$s" --model "$OUT/$(echo "$method" | tr A-Z a-z)" --samples 1 --seed "$s"
            done
        done
    done
done

# 5. one response a method to look at: the k-th test post for the k-th temperature, in-distribution and out by turns;
# rewards of both models
k=0
for t in $TEMPERATURES; do
    k=$((k + 1)); half=in; [ $((k % 2)) = 1 ] || half=out
    wanted "look-$t" || continue
    sed -n "${k}p" "$D/test_$half.jsonl" > "$OUT/look.jsonl"
    DRAW="--prompts $OUT/look.jsonl --seed $SEED --max-new $MAX_NEW --temperature $t"
    for m in sft rl vbon dpo bonbon; do
        of=$OUT/$m
        [ $m != sft ] || of=$SFT
        step "look-$m" sample --model "$of" $DRAW --out "$OUT/look-$m.jsonl"
    done
    step look-bon bon --model "$SFT" $DRAW $BY_RM --missing-eos -1 --n "$N" --out "$OUT/look-bon.jsonl"
    # the end-of-text token is part of what is scored, where one was sampled
    for m in sft rl vbon dpo bonbon bon; do sed \
        -E "/\"finished\":true/s/\",\"ids\":/<|endoftext|>&/; s/^\{/{\"method\":\"$m\",/" "$OUT/look-$m.jsonl"; done \
            > "$OUT/look-all.jsonl"
    step look-rm score --model "$SFT" $BY_RM --in "$OUT/look-all.jsonl" --out "$OUT/look-by-rm.jsonl"
    step look-judge score --model "$SFT" $BY_JUDGE --in "$OUT/look-all.jsonl" --out "$OUT/look-by-judge.jsonl"
    by_rm=$(paste -s -d , "$OUT/look-by-rm.jsonl")
    by_judge=$(paste -s -d , "$OUT/look-by-judge.jsonl")
    at="\"temperature\":$(printf '%g' "$t"),\"half\":\"$half\""
    line "look-$t" "$at,\"rm\":[$by_rm],\"judge\":[$by_judge]"
done

# 6. tables, and the models that are kept
say tables
$PYTHON dev/tldr_results.py "$LINES" > "$OUT/tables.tmp"
mkdir -p "$RESULTS"
cp "$LINES" "$RESULTS"; mv "$OUT/tables.tmp" "$RESULTS/tables.md"
for m in $KEEP; do
    rm -rf "${MODELS:?}/$m"; mkdir -p "$MODELS/$m"
    cp "$OUT/$m"/*.json "$OUT/$m"/*.jsonl "$OUT/$m"/*.safetensors "$MODELS/$m"
    [ ! -f "$OUT/$m.offset" ] || cp "$OUT/$m.offset" "$MODELS"
done
say "done: $RESULTS/tables.md${KEEP:+, $(du -sh "$MODELS" | cut -f 1) of models in $MODELS}"
