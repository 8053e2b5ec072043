#!/bin/sh
# demo.sh: a reference model and a reward model -> reward cache -> vBoN at N = 4 and 16 -> evaluation on prompts it
# never trained on. Everything is written under runs/demo. EPISODES=5120 makes it short, FLAGS="--device cuda" runs it
# elsewhere. Exit code 1 unless vBoN did what it is for.
set -eu
EPISODES=${EPISODES:-10240}
D=dev/demo; OUT=runs/demo; BOTH="--max-new 24 --seed 1 ${FLAGS:-}"
rm -rf "$OUT"; mkdir -p "$OUT"
step() { # step NAME COMMAND...: runs vbon, its output in NAME.log; what it says on failure is shown
    name=$1; shift
    printf '%-58s' "$name" | tr _ ' '; began=$(date +%s)
    ./vbon "$@" > "$OUT/$name.log" 2>&1 || { echo failed; tail -n 3 "$OUT/$name.log"; exit 1; }
    echo "$(($(date +%s) - began)) s"
}
# field RUN KEY 1|2: value | standard error
field() { sed -E "s/.*\"$2\":\\[([^],]*),([^]]*)\\].*/\\$3/" "$OUT/$1.json"; }
# reward, k/M, log p and text of each line
say() {
    number='([^,]*)'
    fields="\"logp\":$number,\"reward\":$number,\"k\":$number,\"M\":$number,"
    sed -E "s/.*\"response\":\"(([^\"\\\\]|\\\\.)*)\".*$fields.*/\\4\t\\5\t\\6\t\\3\t\\1/
        s/\\\\n/ /g; s/\\\\\"/\"/g" | awk -F '\t' '{printf "    %6.2f  %2d/%d  %6.1f  %s\n", $1, $2, $3, $4, $5}'
}

step cache_of_the_reference,_256_prompts_x_32      cache --model $D/lm --reward $D/rm --prompts $D/prompts.jsonl \
    --samples 32 $BOTH --out $OUT/cache.jsonl
step cache_of_the_test_prompts,_128_x_64           cache --model $D/lm --reward $D/rm --prompts $D/prompts_test.jsonl \
    --samples 64 $BOTH --out $OUT/cache_test.jsonl
PPO="train --model $D/lm --reward $D/rm --cache $OUT/cache.jsonl --episodes $EPISODES --trace 16 $BOTH"
step vBoN_N=16,_$EPISODES'_episodes'               $PPO --n 16 --out $OUT/vbon16
step vBoN_N=4,_$EPISODES'_episodes'                $PPO --n 4 --out $OUT/vbon4
EVAL="eval --reference $D/lm --reward $D/rm --cache $OUT/cache_test.jsonl --ns 4,16 --samples 8 $BOTH"
step evaluation_of_the_reference                   $EVAL --model $D/lm --out $OUT/reference.json
step evaluation_of_Best-of-4                       $EVAL --method bon --n 4 --out $OUT/bon4.json
step evaluation_of_Best-of-16                      $EVAL --method bon --n 16 --out $OUT/bon16.json
step evaluation_of_vBoN_N=4                        $EVAL --model $OUT/vbon4 --out $OUT/vbon4.json
step evaluation_of_vBoN_N=16                       $EVAL --model $OUT/vbon16 --out $OUT/vbon16.json

echo
echo "128 held-out prompts x 8 responses of 24 tokens, seed 1, $EPISODES episodes each; +- standard error. Nats."
printf '%-10s %-17s %-17s %-17s %-17s %-17s %s\n' "" "mean reward" "win rate" "KL to reference" "to Best-of-4" \
    "to Best-of-16" "tokens/s"
row() { # row TITLE RUN KL TO4 TO16: an empty cell is measured
    printf '%-10s' "$1"; run=$2; shift 2
    set -- "" "" "$@"
    for key in reward win_rate kl_rb 4 16; do
        if [ -n "$1" ]; then printf ' %-17s' "$1"; else printf ' %8.4f +-%6.4f' "$(field "$run" $key 1)" \
            "$(field "$run" $key 2)"; fi
        shift
    done
    sed -E 's|.*"time/tokens_per_second":([0-9]*).*| \1|' "$OUT/$run.json"
}
row reference reference "" "" ""
row BoN-4  bon4  "<= 0.6363" "0, what it is" "not measured"
row vBoN-4 vbon4 "" "" ""
row BoN-16 bon16 "<= 1.8351" "not measured" "0, what it is"
row vBoN-16 vbon16 "" "" ""
echo "Best-of-N by theory: win rate N/(N+1) = 0.8000 and 0.9412, KL at most log N - (N-1)/N."
echo "BoN draws N responses and N rewards for each it returns; vBoN draws one." \
    "tokens/s: returned, their rewards included."
echo
# Three of the test prompts by seed, and the first five draws of each model by the same seed: none is chosen by hand.
awk -v seed=1 '{line[NR] = $0}
    END {
        for (n = 0; n < 3;) {
            seed = seed * 16807 % 2147483647; i = 1 + seed % NR
            if (!(i in seen)) { seen[i] = 1; n++; print line[i] }
        }
    }' $D/prompts_test.jsonl > $OUT/shown.jsonl
echo "Five texts before and five after training to Best-of-16, not chosen: reward, how many of the prompt's 64"
echo "reference samples are below, log p by the model that wrote it, text."
while IFS= read -r prompt; do
    printf '%s\n' "$prompt" > $OUT/prompt.jsonl
    printf '%s\n' "$prompt" | sed -E 's/.*"prompt": ?"(.*)"}.*/\1 .../; s/\\"/"/g'
    for m in $D/lm $OUT/vbon16; do
        ./vbon sample --model $m --reward $D/rm --cache $OUT/cache_test.jsonl --prompts $OUT/prompt.jsonl --samples 5 \
            $BOTH --out $OUT/sampled.jsonl > /dev/null 2> $OUT/sampled.log ||
                { tail -n 1 $OUT/sampled.log; exit 1; }
        [ $m = $D/lm ] && echo "  before:" || echo "  after:"
        say < $OUT/sampled.jsonl
    done
done < $OUT/shown.jsonl
echo "A million parameters write a review's turns of phrase and its mood, seldom a sentence that holds, and now and"
echo "then no words at all. Training makes texts that please the reward model likelier; it teaches no better English."
echo
awk -v win="$(field vbon16 win_rate 1)" -v d16="$(field vbon16 16 1)" -v r16="$(field reference 16 1)" \
    -v d4="$(field vbon4 4 1)" -v r4="$(field reference 4 1)" 'BEGIN {
    printf "vBoN-16 wins %.1f %% (wanted: 75 %%), keeps %.0f %% of the reference'"'"'s distance to Best-of-16 " \
        "(wanted: under 50 %%); vBoN-4 keeps %.0f %% of that to Best-of-4 (wanted: under 100 %%)\n",
        100 * win, 100 * d16 / r16, 100 * d4 / r4
    ok = win >= 0.75 && d16 < 0.5 * r16 && d4 < r4
    print ok ? "demo: ok" : "demo: FAILED"
    exit !ok }'
