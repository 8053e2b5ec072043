#!/bin/sh
# check_readme.sh: the lines of code that README.md quotes in its table of equations stand in the file it names; the
# program under "Add your own" and dev/examples build, train, and end with other weights than what they change. Needs
# vbon and the demo's models.
cd "$(dirname "$0")/.." || exit 1
bad=0
grep -E '^\|.*`.*`.*\|.*(\.h|\.c) \|$' README.md | while IFS= read -r row; do
    file=$(printf '%s\n' "$row" | sed -E 's/.* ([a-z0-9_\/]+\.[ch]) \|$/\1/')
    printf '%s\n' "$row" | grep -oE '`[^`]*;`' | tr -d '`' | while IFS= read -r code; do
        grep -qF -- "$code" "$file" || { echo "README.md quotes a line that $file does not have: $code"; exit 1; }
    done || exit 1
done || bad=1
[ $bad = 0 ] && echo "README.md: every quoted line of code is where it says"

dir=$(mktemp -d) models=$PWD/dev/demo
trap 'rm -rf "$dir" dev/examples/readme.c build/readme' EXIT
awk '/^## Add your own/ {on = 1} on && /^```$/ {exit} code {print} on && /^```c$/ {code = 1}' README.md \
    > dev/examples/readme.c
make -s build/readme build/short || exit 1
train() { # train NAME PROGRAM FLAGS...
    name=$1 program=$2; shift 2
    "$program" train --model "$models/lm" --reward "$models/rm" --cache "$dir/cache.jsonl" --n 4 --max-new 8 \
        --episodes 32 --rollout 16 --minibatch 8 --ppo-epochs 1 \
        --lr 1e-3 --threads 1 --out "$dir/$name" "$@" > "$dir/log" 2>&1 ||
            { echo "$program $*:"; tail -3 "$dir/log"; bad=1; return; }
    (cd "$dir/$name" && sha1sum model.safetensors) >> "$dir/weights"
}
./vbon cache --model "$models/lm" --reward "$models/rm" --prompts "$models/prompts.jsonl" --prompts-max 8 --samples 8 \
    --max-new 8 --out "$dir/cache.jsonl" > "$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
train vbon ./vbon
train brief build/readme --objective brief
train short build/short --objective short --fhat jeffreys --critic rollout-mean
train jeffreys build/short --fhat jeffreys
train critic build/short --critic rollout-mean
[ "$(sort -u "$dir/weights" | wc -l)" = 5 ] ||
    { echo "an added row trains to the same weights as another run: $(cat "$dir/weights")"; bad=1; }
build/readme train --help | grep -q 'brief: log pi_bon less' ||
    { echo "--help does not list the new objective"; bad=1; }
[ $bad = 0 ] && echo "README.md: the program under \"Add your own\", and dev/examples, build and train differently"
exit $bad
