#!/bin/sh
# check_flags.sh VBON: every number of every command's flags at the ends of its range, beyond them, and as what is no
# number; on tiny models, a run each. Good is: it ends with 0, or is refused with 1 or 2 and one line; or it is still at
# work after a second and stops when asked. Not good: a signal, more lines or none, or a word of a sanitizer's. `make
# test_flags` builds VBON so that integers that overflow or lose bits end it.
set -eu
VBON=$(realpath "${1:-./vbon}"); demo=$(realpath dev/demo)
if [ "${2:-}" ]; then # one run, in a folder of its own: check_flags.sh VBON FOLDER COMMAND ...
    work=$2/$$; what=$(echo "$@" | cut -d ' ' -f 3-); shift 2
    mkdir "$work"; cd "$work"
    for f in ../base/*; do ln -s "$f" .; done
    ulimit -v 6000000
    code=0; timeout -k 3 1 "$VBON" "$@" > out 2> err < /dev/null || code=$?
    said=$(grep -c '^vbon: ' err || true)
    case $code in
        0) bad=$said;;
        1) [ "$said" = 1 ] && bad=0 || bad=1;;
        2) [ "$(wc -l < err)" = 1 ] && [ "$said" = 1 ] && bad=0 || bad=1;;
        124|137|143) bad=$said;;
        *) bad=1;;
    esac
    grep -q 'runtime error' err && bad=1
    if [ "$bad" != 0 ]; then echo "vbon $what: exit code $code, and: $(head -c 400 err)" >> ../bad; fi
    cd ..; rm -rf "$work"
    echo "$what: $code" >> runs
    exit 0
fi
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
mkdir "$dir/base"; cd "$dir/base"
export OMP_NUM_THREADS=1
printf '{"text":"a film to see","label":1}\n{"text":"one more film","label":0}\n' > data.jsonl
printf '{"prompt":"This film","response":" is good."}\n{"text":"a film"}\n' > in.jsonl
printf '{"prompt":"This film"}\n{"prompt":"I"}\n' > prompts.jsonl
{   "$VBON" sft --tokenizer "$demo/tokenizer" --data data.jsonl --layers 1 --width 16 --heads 2 --context 24 --steps 1 \
    --out lm
    "$VBON" reward --init lm --data data.jsonl --layers 1 --context 24 --steps 1 --out rm
    "$VBON" cache --model lm --reward rm --prompts prompts.jsonl --samples 4 --max-new 4 --out cache.jsonl
    "$VBON" cache --model lm --reward rm --prompts prompts.jsonl --samples 4 --max-new 4 --out m.jsonl --shard 0/1
    } > /dev/null 2>&1
cd - > /dev/null
base() { # the command line that each flag is added to: the last of two equal flags counts
    case $1 in
        sft) echo "--tokenizer $demo/tokenizer --data data.jsonl --held-out data.jsonl --layers 1 --width 16" \
            "--heads 2 --context 24 --batch 2 --epochs 1 --out out_lm";;
        reward) echo "--tokenizer $demo/tokenizer --data data.jsonl --held-out data.jsonl --layers 1 --width 16" \
            "--heads 2 --context 24 --batch 2 --epochs 1 --out out_rm";;
        sample) echo "--model lm --prompts prompts.jsonl --max-new 4 --out s.jsonl";;
        bon) echo "--model lm --reward rm --prompts prompts.jsonl --max-new 4 --n 2 --out b.jsonl";;
        score) echo "--model lm --reward rm --in in.jsonl --out sc.jsonl";;
        cache) echo "--model lm --reward rm --prompts prompts.jsonl --samples 2 --max-new 4 --out c.jsonl";;
        train) echo "--model lm --reward rm --cache cache.jsonl --max-new 4 --n 2 --episodes 4 --rollout 2" \
            "--minibatch 1 --ppo-epochs 1 --out out_tr";;
        offline) echo "--model lm --cache cache.jsonl --loss dpo --beta 0.1 --draws 2 --pairs 2 --steps 1" \
            "--out out_off";;
        eval) echo "--model lm --reference lm --reward rm --cache cache.jsonl --max-new 4 --samples 1 --ns 2" \
            "--out e.json";;
        compact) echo "--cache cache.jsonl --draws 2 --out compact.jsonl";;
        merge) echo "--out m.jsonl";;
        ks) echo "--cache cache.jsonl --ms 2 --out k.json";;
        info) echo "--model lm --reward rm";;
        world) echo "--fhat digamma --episodes 4 --rollout 4 --minibatch 2 --ppo-epochs 1";;
    esac
}
for c in $("$VBON" --help | sed -n 's/^  \([a-z]*\) .*/\1/p'); do
    [ "$(base "$c")" ] || { echo "check_flags.sh: no command line for vbon $c: add one"; exit 1; }
    # name, kind, lowest, highest of each number; of those that are text something like it
    range=' .* (\([a-z]*|\)\{0,1\}>\{0,1\}\([-0-9.e]*\)\.\.<\{0,1\}\([0-9e]*\))$'
    COLUMNS=10000 "$VBON" "$c" --help | # so that each flag has a line
    sed -n -e "s/^  --\([a-z0-9-]*\) \(INT\|NUMBER\)$range/\1 \2 \4 \5/p" \
        -e 's/^  --\(ns\|ms\|curves\|memory\) \(TEXT\) .*/\1 \2 0 1e9/p' |
    while read -r flag kind low high; do
        [ "$kind $high" != "INT 1e9" ] || high=1000000000
        for v in $low ${high:-9223372036854775807} 0 \
            -1 1 2147483647 2147483648 4611686018427387904 9223372036854775807 9223372036854775808 1e-38 1e308 nan inf \
                0x10 ''; do
            echo "$c $(base "$c") --$flag=$v"
        done
    done
done | sort -u > "$dir/all"
numbers=$(grep -o -- '--[a-z0-9-]*=' "$dir/all" | sort -u | wc -l)
[ "$numbers" -ge 45 ] || { echo "check_flags.sh: found only $numbers flags with numbers in the help"; exit 1; }
xargs -P "$(nproc)" -L 1 "$0" "$VBON" "$dir" < "$dir/all"
runs=$(wc -l < "$dir/runs"); all=$(wc -l < "$dir/all")
[ "$runs" = "$all" ] || { echo "check_flags.sh: $runs of $all runs came to an end"; exit 1; }
if [ -e "$dir/bad" ]; then cat "$dir/bad"; exit 1; fi
ends=$(sed 's/.*: //' "$dir/runs" | sort | uniq -c |
    awk '{printf "%s%s ended with %s", (NR > 1 ? ", " : ""), $1, $2}')
echo "$runs runs of $numbers flags with numbers, at their ends and beyond: $ends"
