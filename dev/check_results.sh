#!/bin/sh
# check_results.sh: dev/results/findings.md and the tables are what their scripts print of the committed results, and a
# file of results whose last line is torn ends every reader of it in one line that names file and line. Plain python3.
cd "$(dirname "$0")/.." || exit 1
bad=0
python3 dev/findings.py | cmp -s - dev/results/findings.md || {
    echo "dev/results/findings.md is not what dev/findings.py prints: write it again, and the figures (dev/plot.py)"
    bad=1
}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat dev/models/imdb/cache_test.jsonl.gz.* | gunzip > "$dir/cache_test.jsonl"
for of in imdb imdb/h200; do
    python3 dev/imdb_results.py dev/results/$of/results.jsonl "$dir/cache_test.jsonl" |
        cmp -s - dev/results/$of/tables.md || {
            echo "dev/results/$of/tables.md is not what dev/imdb_results.py prints with the test cache"
            bad=1
        }
done
python3 dev/tldr_results.py dev/results/tldr/results.jsonl | cmp -s - dev/results/tldr/tables.md ||
    { echo "dev/results/tldr/tables.md is not what dev/tldr_results.py prints"; bad=1; }
torn() { # torn FILE COMMAND...: FILE, cut within its last line, is refused in one line
    head -c -40 "$1" > "$dir/torn.jsonl"; shift
    if ! "$@" > "$dir/out" 2> "$dir/err" && [ "$(wc -l < "$dir/err")" = 1 ] &&
        grep -q 'torn.jsonl: line [0-9]* is cut' "$dir/err"; then return; fi
    echo "$*: does not say in one line that a line is cut:"; cat "$dir/err"; bad=1
}
torn dev/results/imdb/results.jsonl python3 dev/imdb_results.py "$dir/torn.jsonl"
torn dev/results/tldr/results.jsonl python3 dev/tldr_results.py "$dir/torn.jsonl"
torn dev/results/imdb/h200/results.jsonl python3 dev/findings.py --results "$dir/torn.jsonl"
torn dev/results/tldr/results.jsonl python3 dev/findings.py --tldr "$dir/torn.jsonl"
[ $bad = 0 ] && echo "dev/results: findings.md and the tables are up to date, torn lines are refused"
exit $bad
