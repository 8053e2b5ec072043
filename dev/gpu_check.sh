#!/bin/sh
# gpu_check.sh [--list | --dry | --only STAGE | --emulated]: everything there is to know on a machine with a GPU, in
# stages ordered by value. It needs this tree, the CUDA toolkit, gcc, and what deps/ or the system has of jansson,
# utf8proc and stb_ds; no network, no Python but for the stage torch.
#
# A call lasts at most LIMIT seconds (540). A stage that passed is skipped by later calls as long as the sources are the
# same, so calling it again goes on where it stopped, on this machine or, with dev/results/gpu/CARD carried along, on
# another of its kind. A stage that failed is tried again, after those that have not run. Each leaves
# runs/gpu/CARD/STAGE.log and dev/results/gpu/CARD/STAGE.json, one line: stage, exit code, seconds, limit, device,
# version, a checksum of the sources, and as records the JSON lines that it printed (gpu_bench's: make cost puts the
# H200's beside its predictions).
#
#   --list       the stages, their limits, and what is known of each on this card
#   --dry        the commands that a call would run
#   --only STAGE that one, whether it passed before or not
#   --emulated   the stages that can, tiny, on the emulated device: a rehearsal, whose times mean nothing; all in
#                runs/gpu/emulated
# Exit code: 0 all that can run here has passed, 1 a stage failed, 3 stages are left for another call.
set -u
cd "$(dirname "$0")/.." || exit
STAGES="build test nccl files training decode ppo identity pythia sentiment demo tldr cache sanitizer torch"
usage() { echo "gpu_check: $1: it knows --list, --dry, --emulated and --only STAGE, one of: $STAGES" >&2; exit 2; }
mode=run only='' emulated=''
while [ $# -gt 0 ]; do
    case "$1" in
        --list) mode=list ;;
        --dry) mode=dry ;;
        --emulated) emulated=1 ;;
        --only)
            only=${2:-}
            case " $STAGES " in *" ${only:-?} "*) ;; *) usage "--only $only" ;; esac
            shift ;;
        *) usage "$1" ;;
    esac
    shift
done
if [ "$emulated" ]; then
    VBON=build/vbon_simt_plain TEST=build/test_simt_plain BENCH=build/gpu_bench_simt TINY=--tiny
    device="emulated, not a GPU" card=emulated
else
    VBON=./vbon TEST=build/test_cuda BENCH=build/gpu_bench TINY=''
    device=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>&1) || {
        [ $mode != run ] || { echo "gpu_check: no GPU here (nvidia-smi: $(echo "$device" | head -n 1))"; exit 1; }
        device="no GPU here"
    }
    device=$(echo "$device" | head -n 1)
    card=$(echo "$device" | tr '[:upper:]' '[:lower:]' | sed -E 's/^nvidia //; s/.*a100.*(40|80)gb.*/a100-\1/
        s/^h([12]00)[ ,].*/h\1/; s/,.*//; s/[^a-z0-9]+/-/g')
fi
LOGS=runs/gpu/$card RESULTS=dev/results/gpu/$card
[ ! "$emulated" ] || RESULTS=$LOGS
sources=$(cat vbon.c vbon.cu ./*.h lib/*.h test_vbon.c dev/tests/*.h dev/gpu_bench.c dev/gpu_torch.py dev/gpu_files.sh \
    dev/demo.sh | cksum | cut -d ' ' -f 1)
version=${VERSION:-$(git describe --always --dirty 2>/dev/null || echo unversioned)}
failed=' ' again=''
start=$(date +%s) end=$(($(date +%s) + ${LIMIT:-540})) bad=0 left=''
for name in $STAGES; do
    ! grep -q "\"exit\":[1-9].*\"sources\":\"$sources\"" "$RESULTS/$name.json" 2> /dev/null || failed="$failed$name "
done
passed() { grep -q "\"exit\":0,.*\"sources\":\"$sources\"" "$RESULTS/$1.json" 2> /dev/null; }

stage() { # stage NAME SECONDS WHAT COMMAND...
    name=$1 limit=$2 what=$3; shift 3
    [ -z "$only" ] || [ "$only" = "$name" ] || return 0
    [ ! "$emulated" ] || limit=$((limit * 5))
    now=$(date +%s) done=''
    [ -n "$only" ] || ! passed "$name" || done=1
    # the programs may be gone although they were built, on another machine
    [ "$name" != build ] || { [ -x $VBON ] && [ -x $TEST ] && [ -x $BENCH ]; } || done=''
    if [ $mode = list ]; then
        [ ! "$again" ] || return 0
        state="not run"; [ ! -f "$RESULTS/$name.json" ] || state="run, but not by these sources"
        [ ! "$done" ] || state=passed
        case "$failed" in *" $name "*) state=failed ;; esac
        printf '%-10s %4s s  %-32s %s\n' "$name" "$limit" "$state" "$what"; return 0
    fi
    case "$failed" in # the second time round, and only then; but nothing can do without a build
        *" $name "*) [ "$again" ] || [ "$name" = build ] || return 0 ;;
        *) [ ! "$again" ] || return 0 ;;
    esac
    if [ "$done" ]; then echo "$name: passed before"; return 0
    elif [ $mode = dry ]; then echo "$name: $*"; return 0
    elif [ $((end - now)) -lt "$limit" ] && [ $((now - start)) -gt 30 ]; then
        left="$left $name"; return 0 # the whole of its limit is not there any more
    fi
    [ $((end - now)) -ge "$limit" ] || limit=$((end - now))
    timeout -k 2 "$limit" "$@" > "$LOGS/$name.log" 2>&1; code=$?
    seconds=$(($(date +%s) - now)) note=''
    [ "$code" -ne 124 ] && [ "$code" -ne 137 ] || note=" (stopped at its limit)"
    printf '{"stage":"%s","exit":%d,"seconds":%d,"limit":%d,"device":"%s","version":"%s",' "$name" "$code" "$seconds" \
        "$limit" "$device" "$version" > "$RESULTS/$name.json"
    printf '"sources":"%s","records":[%s]}\n' "$sources" "$(grep '^{.*}$' "$LOGS/$name.log" | paste -sd, -)" \
        >> "$RESULTS/$name.json"
    echo "$name: exit $code, $seconds s$note"; tail -n 8 "$LOGS/$name.log" | sed 's/^/    /'
    [ "$code" = 0 ] || bad=1
    [ "$name" != build ] || [ "$code" = 0 ] || { echo "gpu_check: nothing else can run: see $LOGS/build.log"; exit 1; }
}
skip() { # skip NAME WHY
    [ "$again" ] || { [ "$only" ] && [ "$only" != "$1" ]; } || echo "$1: not run: $2"
}

echo "$device"
[ $mode != run ] || mkdir -p "$LOGS" "$RESULTS"
all() {
    stage build 300 "vbon, the tests and the timings, compiled" make -j2 "${VBON#./}" $TEST $BENCH
    stage test 60 "every operation against the CPU's" dev/run_tests.sh $VBON "$TEST CUDA:"
    if [ "$emulated" ]; then skip nccl "make test_mpi_simt has it"
    elif [ "$(nvidia-smi -L 2> /dev/null | wc -l)" -lt 2 ] || ! command -v mpirun > /dev/null; then
        stage nccl 20 "NCCL with a communicator of one" $TEST "CUDA: NCCL"
    else
        stage nccl 120 "NCCL with itself; two cards train to the bytes of one" sh -c "$TEST 'CUDA: NCCL' && \
            ONLY='vbon trunk sft' dev/test_mpi.sh $VBON --device cuda"
    fi
    stage files 60 "from float32 weights: cache, training, evaluation, there and on the CPU" dev/gpu_files.sh $VBON
    stage training 25 "GPT-2 124M" $BENCH $TINY training
    stage decode 25 "GPT-2 124M at 1, 8, 128, 1024 rows" $BENCH $TINY decode
    stage ppo 40 "an iteration of the sentiment preset, top 2 blocks and all" $BENCH $TINY ppo
    stage identity 30 "equal runs end in the same bits" $BENCH $TINY identity
    stage pythia 60 "2.8B, random weights: decoding, the reward model, training" $BENCH $TINY pythia
    stage sentiment 40 "a thousand responses drawn and judged by DistilBERT" $BENCH $TINY sentiment
    if [ "$emulated" ]; then skip demo "too long for the emulated device"
    else stage demo 60 "the demo, 5120 episodes" env EPISODES=5120 FLAGS="--device cuda" dev/demo.sh; fi
    stage tldr 180 "TL;DR's PPO, policy and reward model of 2.8B, top 8 blocks and all" $BENCH $TINY tldr
    stage cache 40 "the sentiment cache, sampling alone" $BENCH $TINY cache
    if [ "$emulated" ]; then skip sanitizer "it watches a real device"
    elif [ $mode = run ] && ! command -v compute-sanitizer > /dev/null; then
        skip sanitizer "compute-sanitizer is not installed"
    else
        stage sanitizer 120 "the tests under compute-sanitizer" env VBON_FEW=1 compute-sanitizer --error-exitcode 1 \
            $TEST CUDA:
    fi
    if [ "$emulated" ]; then skip torch "it needs a GPU"
    elif [ $mode = run ] && ! python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2> /dev/null; then
        skip torch "PyTorch with CUDA is not installed"
    else stage torch 180 "PyTorch's times of the same" python3 dev/gpu_torch.py; fi
}
all
again=1
[ "$failed" = " " ] || all
[ -z "$left" ] || echo "left for another call:$left"
[ "$bad" = 0 ] || exit 1
[ -z "$left" ] || exit 3
