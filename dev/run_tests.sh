#!/bin/sh
# run_tests.sh VBON TEST...: runs each test program (a command: "env NAME=value program" sets a variable for it) and
# closes with the sum of their counts; exit code 1 if anything failed or died.
VBON=$1; shift; export VBON
log=$(mktemp); bad=0
trap 'rm -f "$log" "$log.sum"' EXIT
for t in "$@"; do
    echo "== $t"
    { $t 2>&1; echo "exit $?"; } | tee "$log" | grep -v -E '^(exit [0-9]+|[0-9]+ passed, .*)$'
    grep -q '^exit 0$' "$log" || { bad=1; tail -n 2 "$log" | grep '^exit'; }
    grep -E '^[0-9]+ passed, [0-9]+ failed' "$log" >> "$log.sum" ||
        { echo "$t: ended without a count"; bad=1; echo "0 passed, 1 failed" >> "$log.sum"; }
done
awk '{p += $1; f += $3; s += $5}
     END {
        printf "%d passed, %d failed", p, f
        if (s) printf ", %d skipped", s
        print ""
        exit f > 0
    }' "$log.sum" || bad=1
exit $bad
