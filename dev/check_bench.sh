#!/bin/sh
# check_bench.sh: a dry run of build/bench on tiny shapes beside a stand-in for llm.c: every entry says its ratio,
# llm.c's times are read right (the median without the first step), what cannot work ends in one line, and neither files
# nor the busy process stay behind. No time is judged.
cd "$(dirname "$0")/.." || exit 1
dir=$(mktemp -d) bad=0
trap 'rm -rf "$dir"' EXIT
fail() { echo "check_bench: $1"; bad=1; }
program() { mkdir -p "$dir/$1"; printf '#!/bin/sh\n%s\n' "$2" > "$dir/$1/train_gpt2"; chmod +x "$dir/$1/train_gpt2"; }
program good '[ "$OMP_NUM_THREADS" = 1 ] && [ -s dev/data/tinyshakespeare/tiny_shakespeare_val.bin ] || exit 1
[ "$(stat -c %s gpt2_124M.bin)" = 127488 ] || exit 1
echo "step 0: train loss 4.0 (took 900.5 ms)"; i=1
while [ $i -le 40 ]; do echo "step $i: train loss 4.0 (took $((100 + i % 3)).5 ms)"; i=$((i + 1)); done'
program mute 'echo "hello"'
program short 'echo "step 0: train loss 4.0 (took 900.5 ms)"'

out=$(build/bench --tiny --json --repeats 6 --threads 1 --rows 8 --llmc "$dir/good" 2>&1) || fail "it failed: $out"
for entry in training decode sampling ppo foreign memory llmc; do
    echo "$out" | grep -q "^{\"entry\":\"$entry\",.*\"measured\":[0-9.]*,.*\"reference\":[0-9.]*,\"ratio\":[0-9.]*}\$" \
        || fail "no line of $entry with numbers"
done
echo "$out" | grep -q '"entry":"llmc",.*"reference":101.5,' ||
    fail "llm.c's median is not read as 101.5 ms: $(echo "$out" | grep llmc)"
build/bench --tiny --repeats 1 memory | grep -q 'ratio [0-9.]*  ' || fail "the readable form has no ratio"
refuse() { # refuse TEXT ARGUMENTS...: a single line with the text, and failure
    text=$1; shift
    if message=$(build/bench --tiny --repeats 2 "$@" 2>&1 > "$dir/stdout"); then fail "bench $* succeeded"; fi
    [ "$(echo "$message" | wc -l)" = 1 ] && echo "$message" | grep -q -- "$text" ||
        fail "bench $*: does not say \"$text\" in a line: $message"
}
refuse "make train_gpt2" llmc --llmc "$dir"
refuse "of step 0 in its output, which ended with: hello" llmc --llmc "$dir/mute"
refuse "of step 1 in its output" llmc --llmc "$dir/short"
refuse "needs --llmc DIR" llmc
refuse "bench knows" --nosuch
refuse "needs a value" --rows
[ -z "$(find /tmp -maxdepth 1 -name 'vbon-bench-*' -newer "$dir/good" 2> /dev/null)" ] ||
    fail "a directory is left in /tmp"
build/bench --busy & busy=$!
sh -c 'build/bench --tiny --repeats 99 foreign > /dev/null & sleep 0.3; kill -9 $!' 2> /dev/null
kill $busy
sleep 0.2
[ -z "$(pgrep -f "^bench --busy" || true)" ] || fail "a busy process outlives the bench"
[ $bad = 0 ] && echo "bench: every entry runs and reports"
exit $bad
