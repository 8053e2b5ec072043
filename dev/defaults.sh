#!/bin/sh
# defaults.sh: where `vbon train` ends when it is told nothing but the N: on the demo's models, 12,800 episodes, judged
# on the demo's 128 test prompts x 8 responses; with the critic that `auto` takes there, and with the one it takes for a
# reward that is a program. Prints the table of dev/results/defaults.md; ten minutes on two cores. Everything is written
# under OUT (runs/defaults). FLAGS: of every `train`, for what stands beside the defaults; CRITICS: some of the two.
# shellcheck disable=SC2086
set -eu
cd "$(dirname "$0")/.."
D=dev/demo OUT=${OUT:-runs/defaults} BOTH="--max-new 24" SEEDS=${SEEDS:-1 2} NS=${NS:-2 4 8 16}
FLAGS=${FLAGS:-} CRITICS=${CRITICS:-auto head}
rm -rf "$OUT"; mkdir -p "$OUT"
./vbon cache --model $D/lm --reward $D/rm --prompts $D/prompts.jsonl --samples 32 $BOTH --out $OUT/cache.jsonl \
    > $OUT/log 2>&1
./vbon cache --model $D/lm --reward $D/rm --prompts $D/prompts_test.jsonl --samples 64 $BOTH --out $OUT/test.jsonl \
    > $OUT/log 2>&1
EVAL="--reference $D/lm --reward $D/rm --cache $OUT/test.jsonl --ns $(echo $NS | tr ' ' ,) --samples 8 $BOTH"
./vbon eval $EVAL --model $D/lm --out $OUT/reference.json > $OUT/log 2>&1
# field RUN KEY 1|2: value | standard error
field() { sed -E "s/.*\"$2\":\\[([^],]*),([^]]*)\\].*/\\$3/" "$OUT/$1.json"; }
echo "| N | critic | seed | rate | win rate | KL to reference | distance to Best-of-N | left of the reference's |"
echo "|---|---|---|---|---|---|---|---|"
for n in $NS; do
    for critic in $CRITICS; do
        for seed in $SEEDS; do
            run=$n-$critic-$seed
            ./vbon train --model $D/lm --reward $D/rm --cache $OUT/cache.jsonl --n $n --critic $critic --seed "$seed" \
                $BOTH $FLAGS --out $OUT/$run > $OUT/log 2>&1
            ./vbon eval $EVAL --model $OUT/$run --out $OUT/$run.json > $OUT/log 2>&1
            rate=$(sed -n '1s/.*"auto":{[^}]*"lr":\([^,}]*\).*/\1/p' $OUT/$run/log.jsonl)
            printf '| %d | %s | %d | %.1e ' $n $critic "$seed" "$rate"
            for key in win_rate kl_rb $n; do
                printf '| %.4f ± %.4f ' "$(field $run $key 1)" "$(field $run $key 2)"
            done
            awk -v d="$(field $run $n 1)" -v r="$(field reference $n 1)" 'BEGIN {printf "| %.1f %% |\n", 100 * d / r}'
        done
    done
done
