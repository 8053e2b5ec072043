#!/bin/sh
# gpu_check.sh [--only STAGE]: everything there is to know on a machine with a GPU, in stages ordered by value: build, test, timings, demo, sanitizer.
# Each stage leaves STAGE.log and STAGE.json (its exit code and seconds; timings.json holds what was timed) in runs/gpu, as soon as it ends. Works
# without a network, with what the CUDA toolkit, gcc and deps/ bring. A stage that cannot run here says so. Exit code 1 if any stage failed.
set -u
cd "$(dirname "$0")/.."
OUT=runs/gpu; mkdir -p "$OUT"
case "${1:-}" in
    --only) only=${2:?gpu_check.sh --only STAGE: build, test, timings, demo or sanitizer} ;;
    "") only= ;;
    *) echo "gpu_check.sh: it knows --only STAGE" >&2; exit 2 ;;
esac
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader > "$OUT/device.txt" 2>&1 || { echo "gpu_check: no GPU here (nvidia-smi: $(head -n 1 "$OUT/device.txt"))"; exit 1; }
cat "$OUT/device.txt"
bad=0
stage() { # stage NAME SECONDS COMMAND...
    name=$1 limit=$2; shift 2
    [ -z "$only" ] || [ "$only" = "$name" ] || return 0
    began=$(date +%s)
    timeout "$limit" "$@" > "$OUT/$name.log" 2>&1; code=$?
    seconds=$(($(date +%s) - began))
    printf '{"stage":"%s","exit":%d,"seconds":%d,"device":"%s"}\n' "$name" "$code" "$seconds" "$(head -n 1 "$OUT/device.txt")" > "$OUT/$name.json"
    [ "$name" != timings ] || grep '^{' "$OUT/$name.log" >> "$OUT/$name.json"
    echo "$name: exit $code, $seconds s"; tail -n 6 "$OUT/$name.log" | sed 's/^/    /'
    [ "$code" = 0 ] || bad=1
}
stage build 150 make vbon build/test_cuda build/gpu_bench
stage test 120 make test_cuda
stage timings 120 build/gpu_bench
stage demo 120 env EPISODES=5120 FLAGS="--device cuda" make demo
if command -v compute-sanitizer > /dev/null; then stage sanitizer 120 compute-sanitizer --error-exitcode 1 build/test_cuda "CUDA: attention"
else echo "sanitizer: not run: compute-sanitizer is not installed"; fi
exit $bad
