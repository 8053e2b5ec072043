#!/bin/sh
# gpu_check.sh [--only STAGE] [--emulated]: everything there is to know on a machine with a GPU, in at most nine
# minutes, in stages ordered by value. Each stage leaves STAGE.log and STAGE.json (its exit code, its seconds, and what
# gpu_bench or gpu_torch.py recorded) in runs/gpu as soon as it ends; what a real device wrote is copied to
# dev/results/gpu. Works without a network, with what the CUDA toolkit, gcc and deps/ bring. A stage that cannot
# run here, or for which no time is left, says so by name. Exit code 1 if any stage failed.
# --emulated: a dry run of the same stages on the emulated device, tiny; nothing is copied and its times mean nothing.
set -u
cd "$(dirname "$0")/.."
STAGES="build test training decode ppo identity pythia cache sanitizer demo torch"
only='' emulated=''
while [ $# -gt 0 ]; do
    case "$1" in
        --only)
            only=${2:-}; shift
            case " $STAGES " in
                *" ${only:-?} "*) ;;
                *) echo "gpu_check: --only STAGE, one of: $STAGES" >&2; exit 2 ;;
            esac ;;
        --emulated) emulated=1 ;;
        *) echo "gpu_check: $1: it knows --only STAGE and --emulated" >&2; exit 2 ;;
    esac
    shift
done
OUT=runs/gpu; [ "$only" ] || rm -rf "$OUT"; mkdir -p "$OUT"
version=${VERSION:-$(git describe --always --dirty 2>/dev/null || echo unversioned)}
if [ "$emulated" ]; then
    VBON=build/vbon_simt_plain TEST=build/test_simt_plain BENCH=build/gpu_bench_simt TINY=--tiny
    device="emulated, not a GPU"
else
    VBON=./vbon TEST=build/test_cuda BENCH=build/gpu_bench TINY=''
    device=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>&1) ||
        { echo "gpu_check: no GPU here (nvidia-smi: $(echo "$device" | head -n 1))"; exit 1; }
    device=$(echo "$device" | head -n 1)
fi
echo "$device"
start=$(date +%s) bad=0
stage() { # stage NAME SECONDS COMMAND...: the limits add up to 540, and none goes beyond the whole's
    name=$1 limit=$2; shift 2
    [ -z "$only" ] || [ "$only" = "$name" ] || return 0
    began=$(date +%s) left=$((start + 535 - $(date +%s)))
    [ "$left" -ge 5 ] || { echo "$name: not run: the nine minutes are over"; return 0; }
    [ "$limit" -le "$left" ] || limit=$left
    timeout -k 2 "$limit" "$@" > "$OUT/$name.log" 2>&1; code=$?
    seconds=$(($(date +%s) - began)) note=''
    [ "$code" -ne 124 ] && [ "$code" -ne 137 ] || note=" (stopped at its limit)"
    printf '{"stage":"%s","exit":%d,"seconds":%d,"limit":%d,"device":"%s","version":"%s","records":[%s]}\n' \
        "$name" "$code" "$seconds" "$limit" "$device" \
        "$version" "$(grep '^{.*}$' "$OUT/$name.log" | paste -sd, -)" > "$OUT/$name.json"
    [ "$emulated" ] || { mkdir -p dev/results/gpu; cp "$OUT/$name.log" "$OUT/$name.json" dev/results/gpu/; }
    echo "$name: exit $code, $seconds s$note"; tail -n 8 "$OUT/$name.log" | sed 's/^/    /'
    [ "$code" = 0 ] || bad=1
}
skip() { [ -n "$only" ] && [ "$only" != "$1" ] || echo "$1: not run: $2"; }

stage build 140 make -j2 "${VBON#./}" $TEST $BENCH
[ "$bad" = 0 ] || { echo "gpu_check: nothing else can run: see $OUT/build.log"; exit 1; }
for program in $VBON $TEST $BENCH; do
    [ -x $program ] || { echo "gpu_check: $program is missing: the stage build makes it"; exit 1; }
done
stage test 60 dev/run_tests.sh $VBON "$TEST CUDA:"
stage training 25 $BENCH $TINY training
stage decode 25 $BENCH $TINY decode
stage ppo 30 $BENCH $TINY ppo
stage identity 30 $BENCH $TINY identity
stage pythia 45 $BENCH $TINY pythia
stage cache 30 $BENCH $TINY cache
if [ "$emulated" ]; then skip sanitizer "it watches a real device"
elif command -v compute-sanitizer > /dev/null; then
    stage sanitizer 60 env VBON_FEW=1 compute-sanitizer --error-exitcode 1 $TEST CUDA:
else skip sanitizer "compute-sanitizer is not installed"; fi
if [ "$emulated" ]; then skip demo "too long for the emulated device"
else stage demo 55 env EPISODES=5120 FLAGS="--device cuda" dev/demo.sh; fi
if [ "$emulated" ]; then skip torch "it needs a GPU"
elif python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2> /dev/null; then
    stage torch 40 python3 dev/gpu_torch.py
else skip torch "PyTorch with CUDA is not installed"; fi
exit $bad
