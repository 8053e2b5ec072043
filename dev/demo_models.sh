#!/bin/sh
# demo_models.sh DATA=DIR: trains the demo's reference and reward model again; exit code 1 unless their held-out numbers
# are the stated ones within 1 %. DIR holds imdb/train.jsonl.gz, unsup.jsonl.gz and test.jsonl.gz (dev/download.sh).
# About an hour on two cores; a killed run goes on.
set -eu
for a in "$@"; do case $a in DATA=*) DATA=${a#DATA=};; esac; done
DATA=${DATA:?usage: make demo-models DATA=DIR (the folder with imdb/train.jsonl.gz)}
OUT=${OUT:-runs/demo-models}
[ -f "$DATA/imdb/train.jsonl.gz" ] ||
    { echo "demo_models.sh: $DATA/imdb/train.jsonl.gz is missing: see dev/download.sh"; exit 1; }
mkdir -p "$OUT"
zcat "$DATA/imdb/train.jsonl.gz" > "$OUT/train.jsonl"
zcat "$DATA/imdb/unsup.jsonl.gz" | cat "$OUT/train.jsonl" - > "$OUT/text.jsonl"
zcat "$DATA/imdb/test.jsonl.gz" > "$OUT/test.jsonl"
./vbon sft --tokenizer dev/demo/tokenizer --data "$OUT/text.jsonl" --held-out "$OUT/test.jsonl" --max-docs 2000 \
    --layers 4 --width 128 --heads 4 --context 128 \
    --epochs 2 --batch 32 --lr 3e-3 --schedule cosine --warmup 200 --beta2 0.98 --weight-decay 0.05 --precision bf16 \
        --dtype bf16 --seed 1 \
    --log-every 100 --eval-every 4000 --save-every 1000 --resume --out "$OUT/lm"
./vbon reward --init "$OUT/lm" --layers 3 --context 64 --from-position 12 --data "$OUT/train.jsonl" \
    --held-out "$OUT/test.jsonl" --max-docs 2000 \
    --epochs 3 --batch 64 --lr 5e-4 --schedule cosine --warmup 100 --beta2 0.98 --weight-decay 0.1 --precision bf16 \
        --dtype bf16 --seed 1 \
    --log-every 100 --eval-every 1000 --save-every 500 --resume --out "$OUT/rm"
bad=0
compare() { # compare MODEL KEY STATED: what the committed model has, within 1 %
    now=$(grep '"held_out"' "$OUT/$1/log.jsonl" | tail -n 1 | sed -E "s|.*\"held_out/$2\":([^,}]*).*|\\1|")
    awk -v w="$1 $2" -v s="$3" -v n="$now" \
        'BEGIN {
            ok = n >= 0.99 * s && n <= 1.01 * s
            printf "%-28s stated %.4f, now %.4f%s\n", w, s, n, ok ? "" : "   more than 1 % apart"
            exit !ok
        }' || bad=1
}
compare lm nats_per_token 3.592
compare rm accuracy_whole 0.898
compare rm accuracy_first_48 0.7565
compare rm accuracy_random_48 0.743
compare rm accuracy_last_48 0.787
exit $bad
