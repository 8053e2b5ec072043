#!/bin/sh
# check_course.sh: dev/doc/course.md keeps its word: the functions it names, and the lines of kernels it shows, are in
# the files it names, the paths exist, and every flag of a command is in that command's --help; what its small programs
# are said to print they print; its faulty kernels are reported, and the sound one is not (a named skip without NVIDIA's
# headers); the objective of lesson 6 builds, and reaches its optimum in the world. With --run every command of the page
# runs in its order: three minutes. Needs vbon.
cd "$(dirname "$0")/.." || exit 1
page=dev/doc/course.md bad=0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
wrong() { echo "check_course.sh: $*"; bad=1; }
# code LANGUAGE: the page's code in it
code() { awk -v fence="^\`\`\`$1\$" '/^```$/ {on = 0} on {print} $0 ~ fence {on = 1}' $page; }

code sh > "$dir/commands"
code c > "$dir/mine.c"
if [ "${1:-}" = --run ]; then # all but the installing, which is the machine's
    [ -e dev/examples/mine.c ] || cp "$dir/mine.c" dev/examples/mine.c
    grep -v 'apt-get\|course.py pictures' "$dir/commands" > "$dir/run"
    # kernels 3 and 4 are to fail
    sed -i 's/^.*course_kernels_plain [$4].*\|^.*course_kernels_tsan 4$/{ &; } || true/' "$dir/run"
    sh -eux "$dir/run"; exit
fi

# - `FILE`: `name`, `name` — what they are
sed -n '/^- `[^`]*`: `/,/—/p' $page |
    awk '/^- / {line = $0} !/^- / {line = line " " $0} /—/ {print line; line = ""}' |
    sed 's/ —.*//' > "$dir/named"
while IFS= read -r row; do
    file=$(printf '%s\n' "$row" | sed -E 's/^- `([^`]*)`.*/\1/')
    for name in $(printf '%s\n' "$row" | sed 's/^[^:]*://' | grep -oE '`[a-z0-9_A-Z]+`' | tr -d '`'); do
        # a kernel's name may stand on a line of its own, under its launch bounds
        grep -qE "^[A-Za-z_].*[ *]$name(\(|\[)|^__global__ .*[ *]$name\(|^    $name\([A-Za-z0-9_]+ \*" "$file" ||
            wrong "$page names $name, which $file does not define"
    done
done < "$dir/named"
names=$(grep -oE '`[a-z0-9_A-Z]+`' "$dir/named" | wc -l)
[ "$names" -ge 50 ] || wrong "found only $names names in $page"

{   grep -oE '\]\([^)]*\)' $page dev/doc/slides.md | grep -v '(https:' | sed -E 's/.*\]\(([^)]*)\)/dev\/doc\/\1/'
    grep -ohE '(dev|lib)/[A-Za-z0-9_./-]*[A-Za-z0-9_]' $page dev/doc/slides.md
} | sort -u | while IFS= read -r path; do
    case $path in dev/examples/mine.c) continue;; esac # the reader's own
    ls $path* > /dev/null 2>&1 || { echo "check_course.sh: $page names $path, which does not exist"; exit 1; }
done || bad=1

# FILE.cu:LINE   CODE, or without the line, as the emulator prints it: the code is there
lines=$(grep -cE '^ +(dev/)?[a-z_]+\.cu(:[0-9]+)?   ' $page)
[ "$lines" -ge 4 ] || wrong "found only $lines lines of kernels in $page"
grep -E '^ +(dev/)?[a-z_]+\.cu(:[0-9]+)?   ' $page | sed 's/^ *//; s/   /\t/' | while IFS='	' read -r at text; do
    case $at in *:*) sed -n "${at#*:}p" "${at%%:*}";; *) cat "$at";; esac | grep -qF -- "$text" ||
        { echo "check_course.sh: $page shows a line that is not in $at: $text"; exit 1; }
done || bad=1

commands=0
./vbon train --help > "$dir/train"; ./vbon eval --help > "$dir/eval"
# help COMMAND: what its --help says, once
help() { [ -e "$dir/$1" ] || ./vbon "$1" --help > "$dir/$1" || wrong "there is no vbon $1"; cat "$dir/$1"; }
known() { # known COMMAND LINE: the line's flags are the command's
    help "$1" > "$dir/help"
    for flag in $(printf '%s\n' "$2" | grep -oE -- ' --[a-z][a-z-]*|"--[a-z][a-z-]*' | tr -d ' "'); do
        grep -q -- "^  $flag " "$dir/help" || wrong "$page gives vbon $1 a flag that it does not have: $flag"
    done
}
while IFS= read -r line; do
    case $line in
        PPO=*) known train "$line"; continue;;
        EVAL=*) known eval "$line"; continue;;
    esac
    for call in $(printf '%s\n' "$line" | grep -oE '(\./vbon|build/mine) [a-z]+' | tr ' ' :); do
        commands=$((commands + 1))
        known "${call#*:}" "$line"
    done
done < "$dir/commands"
grep '^PPO=' dev/course_runs.sh > "$dir/ppo"
while IFS= read -r line; do known train "$line"; done < "$dir/ppo"
[ "$commands" -ge 18 ] || wrong "found only $commands commands of vbon in $page"

# ```text COMMAND: each line below is among what the command prints
make -s build/dice build/bound build/fhat || wrong "the course's programs do not build"
grep '^```text ' $page | sort -u | sed 's/^```text //' | while IFS= read -r command; do
    $command > "$dir/printed" || { echo "check_course.sh: $command fails"; exit 1; }
    code "text $command" | while IFS= read -r line; do
        grep -qxF -- "$line" "$dir/printed" || { echo "check_course.sh: $command does not print: $line"; exit 1; }
    done || exit 1
done || bad=1

cp "$dir/mine.c" dev/examples/course_mine.c
make -s build/course_mine || wrong "the objective of lesson 6 does not build"
rm dev/examples/course_mine.c
build/course_mine world --objective win --beta 0.25 --log-every 1000 > "$dir/world" 2> "$dir/log" ||
    wrong "the objective of lesson 6 does not train: $(tail -n 1 "$dir/log")"
far=$(tail -n 1 "$dir/world" | sed 's/.*"tv\/target":\([^,]*\),.*/\1/')
awk -v far="$far" 'BEGIN {exit !(far > 0 && far < 0.02)}' ||
    wrong "the objective of lesson 6 ends $far from its optimum in the world, more than .02"

python3 -c 'import ast; ast.parse(open("dev/course.py").read())' || wrong "dev/course.py is not Python"
kernels=$(make -s build/course_kernels_plain 2>&1) && k=build/course_kernels_plain || k=
if [ -n "$k" ]; then
    for n in 1 2; do $k $n > "$dir/log" || wrong "$k $n: $(tail -n 1 "$dir/log")"; done
    $k 3 > "$dir/log" 2>&1 && wrong "$k 3 passes"
    line=$(sed -n '/^__global__ void column_sums_3/,/^}/{/w = 1; w < ROWS/=}' dev/course_kernels.cu)
    grep -q "computes with memory that nothing was written to" "$dir/log" && grep -q ":$line\$" "$dir/log" ||
        wrong "$k 3 does not report line $line"
    $k 4 > "$dir/log" 2>&1 && wrong "$k 4 passes"
    grep -qxF -- "$(cat "$dir/log")" $page || wrong "$page does not show what $k 4 prints: $(cat "$dir/log")"
    for order in $(grep -oE 'SIMT_ORDER=[a-z]+(:[0-9]+)?' $page); do
        env "$order" $k 4 2>&1 | cmp -s - "$dir/log" && wrong "$order $k 4 prints what $k 4 does"
    done
    make -s build/course_kernels_cost build/course_kernels_tsan || wrong "the course's kernels do not build"
    build/course_kernels_cost 2 2>&1 | grep -q 'not coalesced' || wrong "kernel 2's load is not reported"
    build/course_kernels_cost 1 2>&1 | grep -q 'not coalesced' && wrong "kernel 1's loads are reported"
    if setarch -R true 2> /dev/null; then
        OMP_NUM_THREADS=1 setarch -R build/course_kernels_tsan 4 > "$dir/log" 2>&1
        grep -q 'data race.*column_sums_4' "$dir/log" || wrong "kernel 4's race is not reported"
    else echo "skip check_course, the race: setarch -R is not permitted here"; fi
elif printf '%s' "$kernels" | grep -q 'cuda_runtime.h: No such file\|include.*expects'; then
    echo "skip check_course, the kernels: NVIDIA's headers are needed (make cuda_headers)"
else wrong "dev/course_kernels.cu does not build: $kernels"; fi
[ $bad = 0 ] &&
    echo "check_course: $names names, $commands commands, programs and kernels of dev/doc/course.md are as it says"
exit $bad
