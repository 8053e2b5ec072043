#!/bin/sh
# scale.sh [VBON]: what two processes of one thread each make of two cores, beside one process of two threads: PPO on
# the demo's models. A run of few iterations is taken from one of many, so that neither a start nor mpirun's counts; all
# in turns, ROUNDS times (5), and of each the median: seconds by the clock, and of the processors, which other work on
# the machine disturbs less. The speeds are beside one process with as many groups, which does the same arithmetic.
set -eu
VBON=$(realpath "${1:-./vbon}")
cd "$(dirname "$0")/.."
demo=$PWD/dev/demo
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
command -v mpirun > /dev/null || { echo "skip scale.sh: no mpirun was found (install openmpi-bin)"; exit 0; }
dir=$(mktemp -d /dev/shm/vbon-scale-XXXXXX 2> /dev/null || mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
cd "$dir"
"$VBON" cache --model "$demo/lm" --reward "$demo/rm" --prompts "$demo/prompts.jsonl" --prompts-max 256 --samples 16 \
    --max-new 24 --out cache.jsonl > made 2>&1
TRAIN="train --model $demo/lm --reward $demo/rm --cache cache.jsonl --n 4 --max-new 24 --rollout 256 --minibatch 64"
few=256 many=${EPISODES:-2304}
one() { # one EPISODES COMMAND...: seconds, and seconds of processors, into `spent`
    episodes=$1; shift
    rm -rf out
    bash -c 'TIMEFORMAT="%R %U %S"; { time "$@" > log 2> err < /dev/null; } 2> spent' - "$@" --episodes "$episodes" \
        --out out || { cat err; exit 1; }
}
run() { # run NAME COMMAND...: a line NAME SECONDS PROCESSOR-SECONDS into times
    name=$1; shift
    one "$few" "$@"; mv spent start
    one "$many" "$@"
    paste -d ' ' spent start | awk -v name="$name" '{print name, $1 - $4, $2 + $3 - $5 - $6}' >> times
}
for _ in $(seq "${ROUNDS:-5}"); do
    run one "$VBON" $TRAIN --threads 2
    run groups "$VBON" $TRAIN --threads 2 --groups 2
    run two mpirun -q --bind-to none -n 2 "$VBON" $TRAIN --threads 1 --groups 2
    run zero mpirun -q --bind-to none -n 2 "$VBON" $TRAIN --threads 1 --groups 2 --zero 1
done
median() { # median NAME COLUMN
    awk -v name="$1" -v column="$2" '$1 == name {print $column}' times | sort -n |
        awk '{x[NR] = $1} END {print x[int((NR + 1) / 2)]}'
}
echo "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores, load" \
    "$(cut -d ' ' -f 1-3 /proc/loadavg); $(((many - few) / 256)) iterations, medians of ${ROUNDS:-5}"
printf '%-26s %9s %12s %16s %15s\n' "" seconds processors "speed, by clock" "by processors"
while read -r name what; do
    awk -v t="$(median "$name" 2)" -v c="$(median "$name" 3)" -v t1="$(median groups 2)" -v c1="$(median groups 3)" \
        -v what="$what" 'BEGIN {printf "%-26s %9.2f %12.2f %16.2f %15.2f\n", what, t, c, t1 / t, c1 / c}'
done <<END
one one process, 2 threads
groups the same, --groups 2
two two processes, 1 thread
zero the same, --zero 1
END
