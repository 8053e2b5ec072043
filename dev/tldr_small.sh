#!/bin/sh
# tldr_small.sh [DATA=DIR]: section 6 of the paper, TL;DR summaries, at a size where two cores suffice: a rehearsal of
# its pipeline, not of its numbers. A language model of four million parameters does not summarise; what is shown is
# that every step runs and is measured as at full size, on a reward that is named for what it is.
#
# Stages: split the posts; language model (GPT-NeoX, reviews and training posts) and SFT on the human summaries, both
# only with SFT= (empty): dev/models/tldr/sft is what they came to; SFT's draws for the posts of the reward models;
# pairs of texts made from posts, draws and 800 preferences (dev/tldr_data.py has the kinds); a training reward model
# from SFT's lower half and, on other posts, a larger one, the judge, from all of it, each scaled to mean 0 and
# deviation 1 on SFT's draws; their accuracy on held-out posts by kind, and how often they agree on two draws; reward
# cache; vBoN and RL on the training reward, DPO and BoNBoN on the cache alone; SFT, Best-of-N and the four policies by
# the training reward at one temperature; at each temperature reference samples judged by the judge and a pool of other
# draws rewarded by the training reward; the same six, Best-of-N chosen from the pool, judged by the judge; one response
# each to look at. --preset tldr but for: N and M (no 100 of 200 at two cores); TRAIN, what the study of movie reviews
# found better for few episodes; RL's --beta: of .1, .12 and .52 the one whose KL at T = .75 is nearest to vBoN's.
#
# DIR holds imdb/train.jsonl.gz and imdb/test.jsonl.gz (with SFT= alone) and tldr/posts.jsonl.gz (lines
# {"prompt","reference","policy","subreddit","preferred"?}). The split, the pairs and the tables need python3 with the
# tokenizers package (dev/requirements.txt; PYTHON=...). Every size below is a variable; with SPLIT, SFT, RM and JUDGE,
# the folders of a split and of three models that are there (dev/download.sh), it starts at the caches and needs no
# DATA: dev/doc/paper.md has the sizes of the paper. Killed at any moment and started again it goes on: no finished
# stage, run or evaluation is repeated. It works in OUT (runs/tldr); at the end lines and tables go to dev/results/tldr,
# the models of KEEP to dev/models/tldr: no file over 4 MiB, 19 MiB in all.
#
# Work, in 10^12 FLOPs, estimated: a training token costs 6 P and attention, a forward or decoded one 2 P and attention;
# P = 3.4 M (blocks and head; training reward 1.3 M, judge 2.7 M). A prompt has 210 tokens, a response about 42.
# draws        1,553 posts x 4               5   vBoN and RL    4,096 episodes each                    90
# reward       5,189 pairs                  16   DPO, BoNBoN    their pairs once                       10
# judge        3,438 pairs                  22   caches         4 temperatures x 256 posts x 32, twice 33
# their texts  3,550 texts                   9   evaluations    60 of 128 posts x 2 responses          40
# reward cache 512 posts x 64 draws         14
# Together 239: 80 minutes on one idle core at 50 GFLOP/s. Measured with one thread on two cores that ten other programs
# used too, minutes: split and pairs 3, draws 2, reward 4, judge 7, texts 10, reward cache 8, each of vBoN's 16
# iterations 1.
set -eu
for a in "$@"; do
    case $a in DATA=*) DATA=${a#DATA=};; *) echo "tldr_small.sh: $a: usage: dev/tldr_small.sh DATA=DIR"; exit 2;; esac
done
# prompts.jsonl, test_in.jsonl, test_out.jsonl and test.jsonl; policy, training reward model, judge
SPLIT=${SPLIT:-} SFT=${SFT-dev/models/tldr/sft} RM=${RM:-} JUDGE=${JUDGE:-} GIVEN=
OUT=${OUT:-runs/tldr}; RESULTS=${RESULTS:-dev/results/tldr}; MODELS=${MODELS:-dev/models/tldr}
KEEP=${KEEP-rm judge}
PYTHON=${PYTHON:-python3}; TOKENIZER=${TOKENIZER:-dev/tldr/tokenizer}
# SAMPLES: responses a post of every evaluation. BY_RM_AT: where the training reward judges too
SEED=${SEED:-1}; SAMPLES=${SAMPLES:-2}; BY_RM_AT=${BY_RM_AT-.75}; TEMPERATURES=${TEMPERATURES:-.25 .5 .75 1}
LAYERS=${LAYERS:-6}; WIDTH=${WIDTH:-192}; HEADS=${HEADS:-4}; RM_LAYERS=${RM_LAYERS:-3}
TRAIN_LAYERS=${TRAIN_LAYERS:-all}
# PAIR_DRAWS: SFT's draws for each post of the reward models. CENTRE: draws whose mean reward becomes 0, deviation 1
REVIEWS=${REVIEWS:-5000}; LM_EPOCHS=${LM_EPOCHS:-1}; SFT_EPOCHS=${SFT_EPOCHS:-2}; RM_EPOCHS=${RM_EPOCHS:-1}
JUDGE_EPOCHS=${JUDGE_EPOCHS:-1}; PAIR_DRAWS=${PAIR_DRAWS:-4}; CENTRE=${CENTRE:-300}
LM_LR=${LM_LR:-2e-3}; SFT_LR=${SFT_LR:-5e-4}; RM_LR=${RM_LR:-1e-3}; PPO_LR=${PPO_LR:-1.5e-4}
OFFLINE_LR=${OFFLINE_LR:-1e-4}
# posts in each half of the test, of which HALF are used; tokens
TEST=${TEST:-196}; HALF=${HALF:-128}; QUERY=${QUERY:-256}; CONTEXT=${CONTEXT:-320}; MAX_NEW=${MAX_NEW:-53}
# of vBoN and RL: what departs from --preset tldr
TRAIN=${TRAIN---m 0 --fhat digamma --critic prefix-rank --lambda 0.7 --rollout 256 --ppo-epochs 1 --warmup 6}
SHARD_MIB=${SHARD_MIB:-4}; SAVE_EVERY=${SAVE_EVERY:-2}
PROMPTS=${PROMPTS:-512}; M=${M:-64}; N=${N:-16}; BETA=${BETA:-0.12}; DPO_BETA=${DPO_BETA:-0.1}
EPISODES=${EPISODES:-4096}; T=${T:-0.7}
# FLAGS: for every command, e.g. --device cuda
HELD_OUT=${HELD_OUT:-200}; POOL_SEED=$((SEED + 1)); FLAGS=${FLAGS:-}
if [ -n "$SPLIT$RM$JUDGE" ]; then
    GIVEN=" given $SPLIT $SFT $RM $JUDGE"
    for f in "$SPLIT/prompts.jsonl" "$SPLIT/test_in.jsonl" "$SPLIT/test_out.jsonl" "$SPLIT/test.jsonl" \
        "$SFT/config.json" "$RM/config.json" "$JUDGE/config.json"; do
        [ -f "$f" ] || { echo "tldr_small.sh: $f is missing: SPLIT, SFT, RM and JUDGE are folders, all four or none";
            exit 1; }
    done
else
    DATA=${DATA:?usage: dev/tldr_small.sh DATA=DIR (the folder with imdb/ and tldr/)}
    for f in $([ -n "$SFT" ] || echo imdb/train imdb/test) tldr/posts; do
        [ -f "$DATA/$f.jsonl.gz" ] || { echo "tldr_small.sh: $DATA/$f.jsonl.gz is missing"; exit 1; }
    done
    [ -f "$TOKENIZER/tokenizer.json" ] ||
        { echo "tldr_small.sh: $TOKENIZER/tokenizer.json is missing: dev/make_bpe.py makes one"; exit 1; }
    [ -z "$SFT" ] || [ -f "$SFT/config.json" ] ||
        { echo "tldr_small.sh: $SFT/config.json is missing: SFT= (empty) trains the model"; exit 1; }
fi
mkdir -p "$OUT"
exec 9> "$OUT/lock"
flock -n 9 || {
    echo "tldr_small.sh: waiting for another one at work in $OUT, or a command that a killed one left running"
    flock 9
}
SETTINGS="seed $SEED samples $SAMPLES temperatures $TEMPERATURES layers $LAYERS width $WIDTH heads $HEADS"
SETTINGS="$SETTINGS rm-layers $RM_LAYERS train-layers $TRAIN_LAYERS reviews $REVIEWS"
SETTINGS="$SETTINGS sft ${SFT:-trained} epochs $LM_EPOCHS $SFT_EPOCHS $RM_EPOCHS $JUDGE_EPOCHS"
SETTINGS="$SETTINGS pair-draws $PAIR_DRAWS centre $CENTRE by-rm-at $BY_RM_AT train $TRAIN"
SETTINGS="$SETTINGS lr $LM_LR $SFT_LR $RM_LR $PPO_LR $OFFLINE_LR test $TEST half $HALF query $QUERY context $CONTEXT"
SETTINGS="$SETTINGS max-new $MAX_NEW prompts $PROMPTS M $M N $N beta $BETA $DPO_BETA episodes $EPISODES T $T"
SETTINGS="$SETTINGS held-out $HELD_OUT pool-seed $POOL_SEED $FLAGS$GIVEN"
[ -f "$OUT/settings" ] || { echo "$SETTINGS" > "$OUT/settings.tmp"; mv "$OUT/settings.tmp" "$OUT/settings"; }
[ "$SETTINGS" = "$(cat "$OUT/settings")" ] ||
    { echo "tldr_small.sh: $OUT was begun with other sizes (see $OUT/settings): name another OUT"; exit 1; }
LINES=$OUT/results.jsonl
touch "$LINES"
[ -z "$(tail -c 1 "$LINES")" ] || sed -i '$d' "$LINES" # a line that was killed half-written
DRAWS=$((N * SAMPLES))

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
split="$PYTHON dev/tldr_data.py ${DATA:-}/tldr/posts.jsonl.gz --tokenizer $TOKENIZER --seed $SEED --test $TEST"
split="$split --query $QUERY --context $CONTEXT"
[ -n "$GIVEN" ] || [ -d "$OUT/data" ] || {
    say split; rm -rf "$OUT/data.tmp"
    $split --out "$OUT/data.tmp" > "$OUT/split.log"
    [ -n "$SFT" ] || {
        { zcat "$DATA/imdb/train.jsonl.gz" | head -n "$REVIEWS"; cat "$OUT/data.tmp/text.jsonl"; } \
            > "$OUT/data.tmp/lm.jsonl"
        zcat "$DATA/imdb/test.jsonl.gz" | head -n "$HELD_OUT" > "$OUT/data.tmp/lm_test.jsonl"
    }
    mv "$OUT/data.tmp" "$OUT/data"
}
D=${SPLIT:-$OUT/data}
for half in in out; do
    [ -f "$OUT/test_$half.jsonl" ] || head -n "$HALF" "$D/test_$half.jsonl" > "$OUT/test_$half.jsonl"
done
[ -f "$OUT/test.jsonl" ] || cat "$OUT/test_in.jsonl" "$OUT/test_out.jsonl" > "$OUT/test.jsonl"
if wanted split; then
    if [ -n "$GIVEN" ]; then said="as given"; else said=$(tail -n 1 "$OUT/split.log"); fi
    line split "\"settings\":\"$SETTINGS\",\"said\":\"$said\""
fi

# 2. models
model() { # model NAME COMMAND FLAGS: a supervised run and its line
    name=$1; shift
    wanted "$name" || return 0
    step "$name" "$@" --seed "$SEED" --context "$CONTEXT" --schedule cosine --beta2 0.98 --dtype bf16 \
        --shard-mib "$SHARD_MIB" --log-every 10 --save-every 25 --max-docs "$HELD_OUT" --resume --out "$OUT/$name"
    last=$(grep '"type":"train"' "$OUT/$name/log.jsonl" | tail -n 1)
    line "$name" "\"last\":$last,\"held_out\":$(grep '"type":"held_out"' "$OUT/$name/log.jsonl" | tail -n 1)"
}
[ -n "$SFT" ] || {
    model lm sft --arch gpt_neox --tokenizer "$TOKENIZER" --layers "$LAYERS" --width "$WIDTH" --heads "$HEADS" \
        --data "$D/lm.jsonl" --held-out "$D/lm_test.jsonl" --epochs "$LM_EPOCHS" --batch 32 --lr "$LM_LR" --warmup 20 \
        --weight-decay 0.05
    model sft sft --model "$OUT/lm" --data "$D/sft.jsonl" --held-out "$D/sft_test.jsonl" --epochs "$SFT_EPOCHS" \
        --batch 32 --lr "$SFT_LR"
    SFT=$OUT/sft
}
RM=${RM:-$OUT/rm} JUDGE=${JUDGE:-$OUT/judge}
[ -n "$GIVEN" ] || {
    [ -f "$D/draws.jsonl" ] || {
        step draws sample --model "$SFT" --prompts "$D/pair_prompts.jsonl" --samples "$PAIR_DRAWS" --temperature "$T" \
            --max-new "$MAX_NEW" --seed "$SEED" --out "$D/draws.part"
        mv "$D/draws.part" "$D/draws.jsonl"
    }
    [ -f "$OUT/pairs.log" ] || {
        say pairs
        $split --draws "$D/draws.jsonl" --out "$D" > "$OUT/pairs.tmp"
        mv "$OUT/pairs.tmp" "$OUT/pairs.log"
    }
    # every prefix is scored in training too: a prefix then says what may become of it
    pairs() { # pairs NAME LAYERS EPOCHS
        model "$1" reward --init "$SFT" --layers "$2" --data "$D/pairs_$1.jsonl" --held-out "$D/pairs_test.jsonl" \
            --every-position --epochs "$3" --batch 32 --lr "$RM_LR" --warmup 10 --weight-decay 0.1
    }
    pairs rm "$RM_LAYERS" "$RM_EPOCHS"
    pairs judge "$LAYERS" "$JUDGE_EPOCHS"
    head -n "$CENTRE" "$D/centre.jsonl" > "$OUT/centre.jsonl"
}
scored() { # scored MODEL IN OUT
    [ -f "$3" ] || { step "score-$(basename "$3" .jsonl)" score --model "$SFT" --reward "$1" --in "$2" --out "$3"; }
}
for r in rm judge; do
    if [ -n "$GIVEN" ]; then echo > "$OUT/$r.scale"; fi # given models: as they come
    [ -f "$OUT/$r.scale" ] || {
        scored "$OUT/$r" "$OUT/centre.jsonl" "$OUT/centre-$r.jsonl"
        sed -E 's/.*"reward":([^,}]*).*/\1/' "$OUT/centre-$r.jsonl" |
            awk '{ s += $1; q += $1 * $1 } END { m = s / NR; d = sqrt(q / NR - m * m);
                printf "--reward-scale %.6f --reward-offset %.6f\n", 1 / d, -m / d }' > "$OUT/$r.scale.tmp"
        mv "$OUT/$r.scale.tmp" "$OUT/$r.scale"
    }
    [ -n "$GIVEN" ] || scored "$OUT/$r" "$D/texts.jsonl" "$OUT/texts-$r.jsonl"
done
if [ -z "$GIVEN" ] && wanted kinds; then
    said=$($PYTHON dev/tldr_scores.py models "$OUT/texts-rm.jsonl" "$OUT/texts-judge.jsonl")
    line kinds "\"models\":$said"
fi
BY_RM="--reward $RM $(cat "$OUT/rm.scale")"
BY_JUDGE="--reward $JUDGE $(cat "$OUT/judge.scale")"; RULES="--missing-eos -1 --max-new $MAX_NEW"

# 3. the reward cache, vBoN and RL; DPO and BoNBoN
cache() { # cache NAME SEED FLAGS: goes on by itself, then is renamed
    name=$1; seed=$2; shift 2
    [ -f "$OUT/$name.jsonl" ] || {
        step "$name" cache --model "$SFT" "$@" $RULES --seed "$seed" --out "$OUT/$name.part"
        mv "$OUT/$name.part" "$OUT/$name.jsonl"
    }
}
cache cache "$SEED" $BY_RM --temperature "$T" --prompts "$D/prompts.jsonl" --prompts-max "$PROMPTS" --samples "$M"
if wanted cache; then
    said=$($PYTHON dev/tldr_scores.py cache "$OUT/cache.jsonl" "$N")
    line cache "\"rewards\":$said"
fi
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
# preferred to. Best-of-N chooses by the training reward; the judge judges. By the training reward itself, at BY_RM_AT,
# the pool takes the place of the reference samples, and Best-of-N draws anew
evaluate() { # evaluate NAME REWARD CACHE FLAGS
    name=$1; by=$2; against=$3; shift 3
    wanted "$name" || return 0
    step "$name" eval --reference "$SFT" $by $RULES --cache "$OUT/$against-$t.jsonl" --prompts "$OUT/test_$half.jsonl" \
        --temperature "$t" --ns "$N" --samples "$SAMPLES" "$@" --out "$OUT/$name.json"
    at="\"method\":\"$method\",\"half\":\"$half\",\"temperature\":$(printf '%g' "$t")"
    line "$name" "$at,\"$judge\":$(cat "$OUT/$name.json")"
}
all() { # all SUFFIX REWARD CACHE FLAGS: SFT and Best-of-N with FLAGS, and the policies
    suffix=$1; by=$2; against=$3; shift 3
    for half in in out; do
        method=SFT
        evaluate "SFT-$half-$t$suffix" "$by" "$against" --method bon --n 1 "$@"
        method=BoN
        evaluate "BoN-$half-$t$suffix" "$by" "$against" --method bon --n "$N" "$@"
        for method in RL vBoN DPO BoNBoN; do
            evaluate "$method-$half-$t$suffix" "$by" "$against" --model "$OUT/$(echo "$method" | tr A-Z a-z)" \
                --seed "$SEED"
        done
    done
}
for t in $BY_RM_AT $TEMPERATURES; do
    cache "pool-$t" "$POOL_SEED" $BY_RM --temperature "$t" --prompts "$OUT/test.jsonl" --samples "$DRAWS"
done
judge=by_rm
for t in $BY_RM_AT; do all -by-rm "$BY_RM" pool --seed "$SEED"; done
judge=eval
for t in $TEMPERATURES; do
    cache "reference-$t" "$SEED" $BY_JUDGE --temperature "$t" --prompts "$OUT/test.jsonl" --samples "$DRAWS"
    all "" "$BY_JUDGE" reference --pool "$OUT/pool-$t.jsonl"
done

# 5. one response a method to look at: the k-th test post for the k-th temperature, in-distribution and out by turns;
# rewards of both models
k=0
for t in $TEMPERATURES; do
    k=$((k + 1)); half=in; [ $((k % 2)) = 1 ] || half=out
    wanted "look-$t" || continue
    sed -n "${k}p" "$OUT/test_$half.jsonl" > "$OUT/look.jsonl"
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
    [ ! -f "$OUT/$m.scale" ] || cp "$OUT/$m.scale" "$MODELS"
done
say "done: $RESULTS/tables.md${KEEP:+, $(du -sh "$MODELS" | cut -f 1) of models in $MODELS}"
