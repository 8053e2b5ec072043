#!/bin/sh
# check_paper.sh: the commands of dev/doc/paper.md run as they stand there, but for what is fetched and
# what is large: the demo's models under the paper's names, made-up posts split by dev/public_data.py, small sizes and
# short grids. No number is judged, only that every command passes and that every table has its rows. Half a minute.
set -eu
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
die() { echo "check_paper: $*"; exit 1; }
python3 dev/tests/tldr_cut.py || die "posts are cut otherwise than by Huang et al."
for m in gpt2-imdb:demo/lm distilbert-imdb:fixtures/distilbert sft-2.8b:demo/lm reward-2.8b:demo/rm \
    reward-6.9b:demo/rm; do
    ln -s "$PWD/dev/${m#*:}" "$dir/${m%%:*}"
done
mkdir "$dir/imdb" "$dir/posts"
head -n 4 dev/demo/prompts.jsonl > "$dir/imdb/prompts.jsonl"
head -n 4 dev/demo/prompts_test.jsonl > "$dir/imdb/prompts_test.jsonl"
for split in train valid test; do
    for i in 1 2 3 4 5 6; do for r in relationships relationship_advice movies; do echo \
        "{\"subreddit\":\"$r\",\"title\":\"$split $i\",\"post\":\"It was long.\",\"summary\":\"Long.\"}"; done; done \
            > "$dir/posts/$split.jsonl"
done
python3 dev/public_data.py tldr "$dir/posts" "$dir/tldr" --test 4 > /dev/null
for x in prompts:12 test_in:4 test_out:4 test:8; do
    [ "$(wc -l < "$dir/tldr/split/${x%:*}.jsonl")" = "${x#*:}" ] || die "the split has not ${x#*:} lines of ${x%:*}"
done
! grep -q movies "$dir/tldr/split/prompts.jsonl" "$dir/tldr/split/test_in.jsonl" ||
    die "the split trains on other subreddits"
[ "$(grep -c movies "$dir/tldr/split/test_out.jsonl")" = 4 ] || die "the split's test_out is not from elsewhere"

sed -n '/^## The commands/,/^## /{/^```sh/,/^```/{/^```/d;p}}' dev/doc/paper.md | sed -E "
    /^dev\/download.sh /d; s# --device cuda##; s#\"--device cuda\"#\"--threads 1\"#; s#paper/#$dir/#g
    s/PROMPTS=10000 M=200 N=100/PROMPTS=4 M=200 N=2/; s/M_TEST=600/M_TEST=4/; s/EPISODES=[0-9]+/EPISODES=4/
    s/(TRAIN_LAYERS=|--train-layers )8/\12/; s/MAX_NEW=53/MAX_NEW=6/; s/SEEDS=\"1 2( 3)?\"/SEEDS=1/
    s/1 2 3 4 8 16 32 64 128 256 512/1 512/; s/\.005 [.0-9 ]* 5;/.005 5;/; s/\.01 \.1 [.0-9 ]* 5;/.01 5;/
    s/1 2 3 4 8 16 32 64 128;/1 128;/; s/10 50 90 130 170/10 170/; s/8 16 32 64 100 200/2 4/
    s/\.25 \.5 \.75 1/.25 1/" > "$dir/commands"
[ "$(grep -c '^' "$dir/commands")" -ge 12 ] || die "dev/doc/paper.md has no commands"
SAMPLES=1 sh -eu "$dir/commands" > "$dir/log" 2>&1 || { tail -n 5 "$dir/log"; die "a command of paper.md fails"; }
rows() { # rows FILE PATTERN COUNT
    [ "$(grep -cE "$2" "$1")" = "$3" ] || { cat "$1"; die "its tables have not $3 rows of $2"; }
}
I=$dir/results/imdb/tables.md T=$dir/results/tldr/tables.md
rows "$I" '^\| reference \|' 1; rows "$I" '^\| Best-of-N, drawn \|' 4; rows "$I" '^\| vbon, paper \(1 seed\)' 2
rows "$I" '^\| (rl|l), paper \(1 seed\)' 4; rows "$I" '^\| (dpo|bonbon|bon-sft), offline \(1 seed\)' 6
rows "$I" '^\| (2|4) \| 1 \|' 2
for m in SFT:8 RL:10 vBoN:10 DPO:10 BoNBoN:10 Best-of-2:8; do
    rows "$T" "^\| ${m%:*} \| [-.0-9]+ ± [^|]*\| [-.0-9]+ ± " "${m#*:}"
done
echo "dev/doc/paper.md: its commands run at a small size"
