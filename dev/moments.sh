#!/bin/sh
# moments.sh: does training with AdamW's moments in 8 bits come out where training with exact ones does? vBoN on the
# demo's models at N = 4 and 16, seeds 1 to 3, both ways, each evaluated on the demo's test prompts; prints the table of
# dev/results/moments.md. It took 23 minutes on two cores beside other work; everything is written under runs/moments.
# shellcheck disable=SC2086
set -eu
D=dev/demo; OUT=runs/moments; BOTH="--max-new 24"; SEEDS=${SEEDS:-1 2 3}
rm -rf "$OUT"; mkdir -p "$OUT"
./vbon cache --model $D/lm --reward $D/rm --prompts $D/prompts.jsonl --samples 32 $BOTH --out $OUT/cache.jsonl \
    > $OUT/log 2>&1
./vbon cache --model $D/lm --reward $D/rm --prompts $D/prompts_test.jsonl --samples 64 $BOTH --out $OUT/test.jsonl \
    > $OUT/log 2>&1
# field RUN KEY 1|2: value | standard error
field() { sed -E "s/.*\"$2\":\\[([^],]*),([^]]*)\\].*/\\$3/" "$OUT/$1.json"; }
echo "| N | seed | moments | mean reward | win rate | KL to reference | distance to Best-of-N |"
echo "|---|---|---|---|---|---|---|"
for n in 4 16; do
    lr=2e-4; [ $n = 16 ] && lr=4e-4
    for seed in $SEEDS; do
        for states in fp32 8bit; do
            run=$n-$seed-$states
            ./vbon train --model $D/lm --reward $D/rm --cache $OUT/cache.jsonl --critic prefix-rank --lambda 0.7 \
                --episodes 10240 --rollout 512 --minibatch 64 --ppo-epochs 1 --warmup 12 $BOTH --seed "$seed" --n $n \
                --lr $lr --optimizer-state $states --out $OUT/$run > $OUT/log 2>&1
            ./vbon eval --reference $D/lm --reward $D/rm --cache $OUT/test.jsonl --ns 4,16 --samples 8 $BOTH \
                --model $OUT/$run --out $OUT/$run.json > $OUT/log 2>&1
            printf '| %d | %d | %s ' $n "$seed" $states
            for key in reward win_rate kl_rb $n; do
                printf '| %.4f ± %.4f ' "$(field $run $key 1)" "$(field $run $key 2)"
            done
            echo "|"
        done
    done
done
