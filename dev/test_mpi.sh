#!/bin/sh
# test_mpi.sh VBON [OPTIONS]: several processes against one, on this machine (lib/parallel.h). Training must leave the
# same bytes for 1, 2 and 4 of them at equal --groups, killed and resumed with another number too; cache, bon, score and
# eval the same files; and what goes wrong must end all, with one line that names a rank. OPTIONS go to every run
# (--device cuda). ONLY="vbon sft": the trainings of these names alone. SIMT_CARDS=1: on the emulated device each
# process has a card, and NCCL is between them. Tiny models, made here; a minute or two.
set -eu
VBON=$(realpath "$1"); shift; OPTIONS="$*"
cd "$(dirname "$0")/.."
demo=$PWD/dev/demo
export OMP_NUM_THREADS=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export MPIEXEC_TIMEOUT=300 # a hang ends
dir=$(mktemp -d /dev/shm/vbon-mpi-XXXXXX 2> /dev/null || mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
cd "$dir"
passed=0 failed=0
ok() { passed=$((passed + 1)); echo "  ok   $*"; }
bad() { failed=$((failed + 1)); echo "  FAIL $*"; }
check() { what=$1; shift; if "$@"; then ok "$what"; else bad "$what"; fi; } # check WHAT COMMAND...
mpi() { # mpi PROCESSES COMMAND...
    n=$1; shift
    timeout 120 mpirun -q --oversubscribe -n "$n" "$VBON" "$@" > out 2> err < /dev/null
}
refused() { # refused LINE PROCESSES COMMAND...
    says=$1; shift
    if mpi "$@"; then bad "not refused: $*"
    elif [ "$(grep -c '^vbon: ' err)" = 1 ] && grep -qF "vbon: $says" err; then ok "$says"
    else bad "\"$says\" is wanted, there was: $(cat err)"; fi
}

i=0
for t in "This film is good" "I hate this" "The acting was fine" "A bad film" "is it good?" "no" "The end of it" \
    "yes, it is"; do
    i=$((i + 1)); echo "{\"text\":\"$t\",\"label\":$((i % 2))}"
done > texts.jsonl
sed 's/"text":"\([^"]*\)".*/"prompt":"\1"}/' texts.jsonl > prompts.jsonl
sed 's/"prompt":\("[^"]*"\)}/"prompt":\1,"chosen":" good","rejected":" a bad film"}/' prompts.jsonl > pairs.jsonl
TINY="--data texts.jsonl --context 32 --steps 3 --lr 3e-3 --threads 1"
FRESH="--tokenizer $demo/tokenizer --layers 2 --width 32 --heads 2"
{   "$VBON" sft $FRESH $TINY --out lm
    "$VBON" reward --init lm --layers 1 $TINY --out rm
    "$VBON" cache --threads 1 --model lm --reward rm --prompts prompts.jsonl --samples 12 --max-new 6 --out cache.jsonl
} > made 2>&1 || { cat made; exit 1; }

# the same job by 1, 2 and 4 processes: weights, and the log but for its times
hash() {
    { cat "$1/model.safetensors"; grep -v '"type":"config"' "$1/log.jsonl" | sed 's/,"time[^,}]*//g'; } | sha1sum
}
same() { # same NAME COMMAND...: leaves NAME.1, NAME.2 and NAME.4
    name=$1; shift
    case " ${ONLY:-$name} " in *" $name "*) ;; *) return;; esac
    "$VBON" "$@" --groups 8 --threads 1 $OPTIONS --out "$name.1" > out 2> err || { bad "$name: $(cat err)"; return; }
    for n in 2 4; do
        if ! mpi $n "$@" --threads 1 $OPTIONS --out "$name.$n"; then bad "$name, $n processes: $(cat err)"; return; fi
    done
    one=$(hash "$name.1")
    if [ "$one" = "$(hash "$name.2")" ] && [ "$one" = "$(hash "$name.4")" ]; then
        ok "$name: 1, 2 and 4 processes, the same bytes"
    else bad "$name: the bytes differ: $one, $(hash "$name.2"), $(hash "$name.4")"; fi
}
zero() { # zero NAME COMMAND...: with AdamW's states in parts 2 and 4 processes leave what NAME.1 has
    name=$1; shift
    case " ${ONLY:-$name} " in *" $name "*) ;; *) return;; esac
    for n in 2 4; do
        if ! mpi $n "$@" --zero 1 --threads 1 $OPTIONS --out "$name.zero$n"; then
            bad "$name, --zero 1, $n processes: $(cat err)"; return
        fi
    done
    if [ "$(hash "$name.1")" = "$(hash "$name.zero2")" ] && [ "$(hash "$name.1")" = "$(hash "$name.zero4")" ]; then
        ok "$name: with --zero 1 the same bytes, 2 and 4 processes"
    else bad "$name: with --zero 1 the bytes differ"; fi
}
PPO="train --model lm --reward rm --cache cache.jsonl --max-new 6 --episodes 40 --rollout 20 --minibatch 6 --lr 3e-3 \
    --critic head --ppo-epochs 4"
same vbon $PPO --n 4 --trace 3 --average 0.5
same trunk $PPO --n 4 --train-layers 1 --critic prefix-rank --compat jointp
same actions $PPO --n 4 --critic prefix-rank --all-actions 5
same jbond $PPO --objective jbond --critic others
same small $PPO --n 4 --minibatch 3 --ppo-epochs 2
same sft sft $FRESH $TINY --batch 5 --held-out texts.jsonl
same reward reward --init lm --layers 1 $TINY --batch 5
same pairs reward --init lm --layers 1 $TINY --data pairs.jsonl --batch 3
same dpo offline --model lm --cache cache.jsonl --loss dpo --beta 0.1 --lr 3e-3 --batch 9
same 8bit sft $FRESH $TINY --batch 5 --optimizer-state 8bit
same bonbon offline --model lm --cache cache.jsonl --loss bonbon --n 4 --lr 3e-3 --batch 5
zero vbon $PPO --n 4 --trace 3 --average 0.5
zero trunk $PPO --n 4 --train-layers 1 --critic prefix-rank --compat jointp
zero sft sft $FRESH $TINY --batch 5 --held-out texts.jsonl
zero 8bit sft $FRESH $TINY --batch 5 --optimizer-state 8bit
if [ "${SIMT_CARDS:-}" ]; then # by dev/cuda_on_cpu/nccl.c
    check "NCCL: --reduce fast trains" mpi 2 $PPO --n 4 --threads 1 --reduce fast $OPTIONS --out fast
    check "NCCL was used" grep -q "^emulated NCCL: 2 ranks" err
    export FAKE_NCCL_FAILS=1
    if mpi 2 $PPO --n 4 --threads 1 $OPTIONS --out lost; then bad "NCCL fails and nobody notices"; fi
    check "NCCL fails, and all end" grep -q "^vbon: rank 0: NCCL: between the cards: an error of the emulated" err
fi
if [ "${ONLY:-}" ]; then echo "$passed passed, $failed failed"; exit "$failed"; fi
check "the trace too" cmp vbon.1/trace.jsonl vbon.4/trace.jsonl
check "what is left is what one process leaves" [ "$(ls vbon.1)" = "$(ls vbon.4)" ]
grads=$(hash sft.1)
"$VBON" sft $FRESH $TINY --batch 5 --held-out texts.jsonl --threads 1 $OPTIONS --out sft.none > out 2> err
check "groups are not a formality: without them other bytes" [ "$grads" != "$(hash sft.none)" ]
check "--reduce fast trains" mpi 2 $PPO --n 4 --threads 1 --reduce fast $OPTIONS --out fast

# killed, and resumed by another number
LONG="$PPO --n 4 --episodes 1200 --save-every 1 --threads 1 $OPTIONS"
"$VBON" $LONG --groups 8 --out long.1 > out 2> err || bad "$(cat err)"
mpirun -q --oversubscribe -n 2 "$VBON" $LONG --out long.2 > out 2> err &
run=$!
for i in $(seq 600); do [ -e long.2/latest ] && break; sleep 0.05; done
victim=$(pgrep -P "$run" -x vbon | tail -n 1)
kill -KILL "$victim"
if wait "$run"; then bad "one is killed, and its end is not everybody's"; else ok "one is killed, and all end"; fi
check "4 go on with what 2 began, AdamW's states in parts" mpi 4 $LONG --zero 1 --resume --out long.2
check "to the same bytes" [ "$(hash long.1)" = "$(hash long.2)" ]
mpirun -q --oversubscribe -n 4 "$VBON" $LONG --zero 1 --out long.4 > out 2> err &
run=$!
for i in $(seq 600); do [ -e long.4/latest ] && break; sleep 0.05; done
kill -TERM "$(pgrep -P "$run" -x vbon | tail -n 1)" # not mpirun, which kills soon after it is told to end
wait "$run" || true
check "one is asked to stop by SIGTERM, and all save and stop" grep -q "^stopped by signal 15 after" out
check "one goes on with what 4 began, who had them in parts" "$VBON" $LONG --groups 8 --resume --out long.4 > out 2> err
check "to the same bytes" [ "$(hash long.1)" = "$(hash long.4)" ]

# shards without being told
DRAW="--reward rm --max-new 6 --decode-rows 5 --threads 1 $OPTIONS"
cat cache.jsonl cache.jsonl cache.jsonl cache.jsonl | grep -v vbon_cache > many.jsonl
while read -r file command; do
    "$VBON" $command --out "one.$file" > out 2> err || bad "$(cat err)"
    sed -i 's/,"time[^,}]*//' "one.$file"
    for n in 2 3; do
        check "${command%% *}: $n processes" mpi $n $command --out "$n.$file"
        check "the same file" cmp "one.$file" "$n.$file"
    done
done <<END
cache cache --model lm $DRAW --prompts prompts.jsonl --samples 7
bon bon --all --model lm $DRAW --prompts prompts.jsonl --n 4
score score --model lm --reward rm --in many.jsonl --threads 1 $OPTIONS
eval eval --model vbon.1 --reference lm $DRAW --cache cache.jsonl --samples 3
END
check "no shard is left" [ -z "$(ls | grep -e -of-)" ]

# what is wrong ends all, in one line that names a rank
two() { # two FLAGS FLAGS: a run whose two processes are told different things
    timeout 120 mpirun -q --oversubscribe -n 1 "$VBON" $PPO --n 4 $1 --out two : -n 1 "$VBON" $PPO --n 4 $2 --out two \
        > out 2> err < /dev/null
}
"$VBON" sft $FRESH $TINY --seed 2 --out lm2 > out 2> err
refused "rank 0: --groups 8 with 3 processes" 3 $PPO --n 4 --out no
refused "rank 0: --groups 6 with 2 processes" 2 $PPO --n 4 --groups 6 --out no
refused "rank 0: unknown flag --lrr" 2 $PPO --lrr 1 --out no
refused "rank 0: info is no command for several processes" 2 info --model lm
refused "rank 0: --shard 0/2: under mpirun each process is a shard" 2 bon --model lm $DRAW --prompts prompts.jsonl \
    --shard 0/2 --out no
refused "rank 0: --out is required" 2 bon --model lm $DRAW --prompts prompts.jsonl
refused "rank 0: nowhere: there is no such folder" 2 $PPO --n 4 --model nowhere --out no
for pair in "--seed 2|--seed" "--model lm2|--model" "--groups 16|--groups"; do
    if two "" "${pair%%|*}"; then bad "not refused: ${pair%%|*}"; fi
    says="vbon: rank 0: rank 1 has another ${pair##*|} than rank 0: start all of them with the same"
    check "other ${pair##*|} are refused" grep -qxF "$says" err
done
cat > dies.sh <<'END'
n=0
while read -r l; do
    n=$((n + 1))
    if [ "$OMPI_COMM_WORLD_RANK" = 1 ] && [ $n = 20 ]; then exit 3; fi
    echo "${#l}"
done
END
refused "rank 1: --reward sh dies.sh: ended with status 3" 2 train --model lm --reward "sh dies.sh" --objective rl \
    --beta 1 --prompts prompts.jsonl --max-new 6 --rollout 16 --episodes 320 --threads 1 $OPTIONS --out dies
rm -rf two dies
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
