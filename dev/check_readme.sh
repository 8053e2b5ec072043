#!/bin/sh
# check_readme.sh: README.md is at most 12 KiB. The lines of code that it and the manual quote in tables stand in the
# file they name. In every document relative links and paths lead to what exists. The README's commands, and the
# manual's, run as they stand there on the demo's models, and what they train keeps at most half of the reference's
# distance to Best-of-8. Its programs, and dev/examples, build, train, and end with other weights than what they change.
# Needs vbon and the demo's models; two minutes.
cd "$(dirname "$0")/.." || exit 1
bad=0
wrong() { echo "check_readme.sh: $*"; bad=1; }
size=$(wc -c < README.md)
[ "$size" -le 12288 ] || wrong "README.md has $size bytes, more than 12288: move what is not for a first reader"
grep -hE '^\|.*`.*`.*\|.*(\.h|\.c) \|$' README.md dev/doc/manual.md | while IFS= read -r row; do
    file=$(printf '%s\n' "$row" | sed -E 's/.* ([a-z0-9_\/]+\.[ch]) \|$/\1/')
    printf '%s\n' "$row" | grep -oE '`[^`]*;`' | tr -d '`' | while IFS= read -r code; do
        grep -qF -- "$code" "$file" || { echo "a document quotes a line that $file does not have: $code"; exit 1; }
    done || exit 1
done || bad=1
[ $bad = 0 ] && echo "documents: every quoted line of code is where it says"

# Links, [text](path#heading), are relative to the document. Paths in its text and code begin with dev/, lib/ or .ci/
# and are relative to the project, as are names of source files between backticks.
headings() { # headings FILE: as links name them
    grep -E '^#+ ' "$1" | sed -E 's/^#+ //' | tr '[:upper:]' '[:lower:]' | sed 's/[^a-z0-9 _-]//g; s/ /-/g'
}
paths() { # paths FILE: what it names that does not exist, a line each
    grep -oE '\]\([^) ]+\)' "$1" | sed -E 's/^\]\(//; s/\)$//' | grep -vE '^[a-z]+:' | while IFS= read -r link; do
        to=${link%%#*}
        [ -z "$to" ] || to=$(dirname "$1")/$to
        [ -e "${to:-$1}" ] || { echo "$link"; continue; }
        case $link in *#*) headings "${to:-$1}" | grep -qxF -- "${link#*#}" || echo "$link";; esac
    done
    {   grep -oE '(^|[][ `"(=|])(dev|lib|\.ci)/[A-Za-z0-9_./*-]*[A-Za-z0-9_/*-]' "$1" | sed -E 's/^[^a-z.]//'
        grep -oE '`[a-z0-9_]+\.(c|h|cu|sh|py|md)`' "$1" | tr -d '`'
    } | sort -u | while IFS= read -r path; do
        case $path in
            dev/examples/mine.c | dev/results/imdb/h200/alone.jsonl) continue;; # yet to be made
            */*) set -- $path;; # may be a pattern
            *) set -- "$path" $(git ls-files "*/$path");;
        esac
        for p; do [ -e "$p" ] && continue 2; done
        echo "$path"
    done
}
dir=$(mktemp -d) models=$PWD/dev/demo
trap 'rm -rf "$dir" dev/examples/readme.c build/readme' EXIT
for doc in $(git ls-files '*.md'); do
    paths "$doc" > "$dir/missing"
    while IFS= read -r path; do wrong "$doc names what does not exist: $path"; done < "$dir/missing"
done
[ $bad = 0 ] && echo "documents: every path that they name exists"

# block FILE HEADING LANGUAGE: the code under the heading, up to the next one of the same level
block() {
    awk -v heading="$2" -v fence='^```'"$3"'$' '/^## / {on = $0 == heading} /^```$/ {code = 0} code {print}
        on && $0 ~ fence {code = 1}' "$1"
}
# The commands, in a folder where dev and vbon are as they are here. train.jsonl and test.jsonl are the reader's own.
mkdir "$dir/here"
ln -s "$PWD/dev" "$PWD/vbon" "$dir/here"
for split in train:prompts test:prompts_test; do
    sed -E 's/"prompt": ?/"label":1,"text":/; n; s/"prompt": ?/"label":0,"text":/' "dev/demo/${split#*:}.jsonl" \
        > "$dir/here/${split%:*}.jsonl"
done
{   block README.md '## Commands' sh
    for model in rl dpo; do # judged as the README judges runs/vbon
        block README.md '## Commands' sh | grep '^./vbon eval' | sed "s#runs/vbon#runs/$model#g"
    done
    for heading in '## Texts and rewards' '## The reward cache'; do block dev/doc/manual.md "$heading" sh; done
} > "$dir/here/commands"
commands=$(grep -c '^./vbon' "$dir/here/commands")
[ "$commands" -ge 19 ] || wrong "found only $commands commands in README.md and dev/doc/manual.md"
if (cd "$dir/here" && sh -eux commands > "$dir/log" 2>&1); then
    for model in vbon rl dpo; do
        left=$(sed -E 's/.*"distance":\{"8":\[([^,]*),.*/\1/' "$dir/here/runs/$model.json")
        awk -v left="$left" 'BEGIN {exit !(left > 0 && left <= (7 - log(8)) / 2)}' ||
            wrong "runs/$model is $left nats from Best-of-8, more than half of the reference's distance, 7 - log 8"
    done
    [ $bad = 0 ] && echo "README.md and the manual: $commands commands run, and train as far as they should"
else
    wrong "a command fails: $(grep '^+ ' "$dir/log" | tail -n 1)"; tail -n 3 "$dir/log"
fi

block README.md '## The method in one page' c > "$dir/program.c"
gcc -I. "$dir/program.c" -o "$dir/program" -lm && "$dir/program" | grep -q '^-' ||
    wrong "the four-line program of README.md fails"
block README.md '## Add your own' c > dev/examples/readme.c
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
train short build/short --objective short --fhat jeffreys --critic none
train jeffreys build/short --fhat jeffreys
train critic build/short --critic none
[ "$(sort -u "$dir/weights" | wc -l)" = 5 ] ||
    { echo "an added row trains to the same weights as another run: $(cat "$dir/weights")"; bad=1; }
build/readme train --help | grep -q 'brief: log pi_bon less' ||
    { echo "--help does not list the new objective"; bad=1; }
[ $bad = 0 ] && echo "README.md: the program under \"Add your own\", and dev/examples, build and train differently"
exit $bad
