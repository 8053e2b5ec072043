#!/bin/sh
# course_runs.sh: the runs that lesson 4 of dev/doc/course.md looks at, under runs/course: good, and four that are
# broken, a to d. Each differs from its healthy twin by one flag. Whoever takes the lesson should not read on before
# having named the four faults. `course_runs.sh good` makes that one alone.
set -eu
cd "$(dirname "$0")/.."
OUT=runs/course PPO="train --model dev/demo/lm --reward dev/demo/rm --cache runs/course/cache.jsonl --n 8 --max-new 24"
PPO="$PPO --critic prefix-rank --lambda 0.7 --ppo-epochs 1 --rollout 256 --minibatch 64 --episodes 4096 --warmup 6"
[ -e "$OUT/cache.jsonl" ] || { echo "course_runs.sh: $OUT/cache.jsonl is missing: make it as lesson 1 does"; exit 1; }
run() { # run NAME COMMAND...: what it says goes to NAME.log, and is shown if it fails
    name=$1; shift
    case $only in ""|"$name") ;; *) return;; esac
    printf '%-6s' "$name"; began=$(date +%s)
    if [ "$1" = world ]; then ./vbon "$@" > "$OUT/$name.jsonl" 2> "$OUT/$name.log"
    else ./vbon "$@" --out "$OUT/$name" > "$OUT/$name.log" 2>&1; fi || { tail -n 3 "$OUT/$name.log"; exit 1; }
    echo "$(($(date +%s) - began)) s"
}
only=${1:-}
case $only in ""|good|a|b|c|d|world) ;;
*) echo "course_runs.sh: there is no run $only: good, a, b, c, d, world, or no name for all" >&2; exit 1;; esac
run good $PPO --lr 4e-4 --trace 8

# The faults.
run a $PPO --lr 4e-4 --m 2
run b $PPO --lr 2e-2
run c world --n 2 --log-every 10 --compat scale
run d $PPO --lr 4e-4 --score-clip 0.05
# c's twin
run world world --n 2 --log-every 10
