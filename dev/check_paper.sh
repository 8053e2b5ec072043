#!/bin/sh
# check_paper.sh: the commands of dev/doc/paper.md run as they stand there, but for what is fetched and
# what is large: the demo's models under the paper's names, made-up posts split by dev/public_data.py, small sizes and
# short grids. No number is judged, only that every command passes and that every table has its rows. Half a minute.
# --emulated: the lines with their --device cuda, on the emulated device (dev/cuda_on_cpu), from folders of float32
# weights that bfloat16 does not hold; fewer prompts, tokens and episodes an iteration.
set -eu
cd "$(dirname "$0")/.."
emulated=''
[ "${1:-}" != --emulated ] || emulated=1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
die() { echo "check_paper: $*"; exit 1; }
python3 dev/tests/tldr_cut.py || die "posts are cut otherwise than by Huang et al."
LM=dev/demo/lm RM=dev/demo/rm PROMPTS=4
if [ "$emulated" ]; then
    PROMPTS=2
    sed 's/"prompt"/"text"/; 9q' dev/demo/prompts.jsonl > "$dir/texts.jsonl"
    sed 's/}$/,"label":1}/; n; s/}$/,"label":0}/' "$dir/texts.jsonl" > "$dir/labels.jsonl"
    tiny="--tokenizer dev/demo/tokenizer --layers 2 --width 32 --heads 2 --context 128 --dtype fp32"
    # steps enough that some responses end
    build/vbon_simt_plain sft $tiny --data "$dir/texts.jsonl" --steps 24 --lr 1e-2 --out "$dir/lm" > "$dir/log" 2>&1 &&
        build/vbon_simt_plain reward $tiny --data "$dir/labels.jsonl" --from-position 2 --steps 1 --out "$dir/rm" \
            > "$dir/log" 2>&1 || { tail -n 5 "$dir/log"; die "no models of float32 are made"; }
    LM=$dir/lm RM=$dir/rm
fi
link() { ln -s "$(realpath "$1")" "$dir/$2"; }
link $LM gpt2-imdb; link $LM sft-2.8b; link $RM reward-2.8b; link $RM reward-6.9b
link dev/fixtures/distilbert distilbert-imdb
mkdir "$dir/imdb" "$dir/posts"
head -n $PROMPTS dev/demo/prompts.jsonl > "$dir/imdb/prompts.jsonl"
head -n $PROMPTS dev/demo/prompts_test.jsonl > "$dir/imdb/prompts_test.jsonl"
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

cpu='s# --device cuda##; s#"--device cuda"#"--threads 1"#'
[ -z "$emulated" ] || cpu=''
sed -n '/^## The commands/,/^## /{/^```sh/,/^```/{/^```/d;p}}' dev/doc/paper.md | sed -E "
    /^dev\/download.sh /d; $cpu
    s#paper/#$dir/#g
    s/PROMPTS=10000 M=200 N=100/PROMPTS=4 M=200 N=2/; s/M_TEST=600/M_TEST=4/; s/EPISODES=[0-9]+/EPISODES=4/
    s/(TRAIN_LAYERS=|--train-layers )8/\12/; s/MAX_NEW=53/MAX_NEW=6/; s/SEEDS=\"1 2( 3)?\"/SEEDS=1/
    s/ SAMPLES=3 HALF=196/ SAMPLES=1/
    s/1 2 3 4 8 16 32 64 128 256 512/1 512/; s/\.005 [.0-9 ]* 5;/.005 5;/; s/\.01 \.1 [.0-9 ]* 5;/.01 5;/
    s/1 2 3 4 8 16 32 64 128;/1 128;/; s/10 50 90 130 170/10 170/; s/8 16 32 64 100 200/2 4/
    s/5,20,100,200,250/2/
    s/\.25 \.5 \.75 1/.25 1/" > "$dir/commands"
# the scripts run ./vbon in the folder that they stand in
if [ "$emulated" ]; then
    mkdir "$dir/tree"
    cp -r dev lib "$dir/tree"
    sed -i 's/--max-new 40/--max-new 4/; s/--preset sentiment/& --rollout 8 --minibatch 4 --ppo-epochs 1/' \
        "$dir/tree/dev/imdb_small.sh"
    sed -i "s/--preset tldr/& --rollout 8 --minibatch 4 --ppo-epochs 1/" "$dir/tree/dev/tldr_small.sh"
    ln -s "$PWD/build/vbon_simt_plain" "$dir/tree/vbon"
    cd "$dir/tree"
fi
[ "$(grep -c '^' "$dir/commands")" -ge 12 ] || die "dev/doc/paper.md has no commands"
SAMPLES=1 sh -eu "$dir/commands" > "$dir/log" 2>&1 || { tail -n 5 "$dir/log"; die "a command of paper.md fails"; }
rows() { # rows FILE PATTERN COUNT
    [ "$(grep -cE "$2" "$1")" = "$3" ] || { cat "$1"; die "its tables have not $3 rows of $2"; }
}
I=$dir/results/imdb/tables.md T=$dir/results/tldr/tables.md
rows "$I" '^\| reference \|' 1; rows "$I" '^\| Best-of-N, drawn \|' 4; rows "$I" '^\| vbon, paper \(1 seed\)' 2
rows "$I" '^\| (rl|l), paper \(1 seed\)' 4; rows "$I" '^\| (dpo|bonbon|bon-sft), offline \(1 seed\)' 6
rows "$I" '^\| (2|4) \| 1 \|' 2
for m in SFT:9 RL:11 vBoN:11 DPO:11 BoNBoN:11 Best-of-2:9; do
    rows "$T" "^\| ${m%:*} \| [-.0-9]+ ± [^|]*\| [-.0-9]+ ± " "${m#*:}"
done
[ "$(grep -cE '^\| [0-9]+ \| .* \|$' "$dir/results/findings.md")" -ge 13 ] ||
    die "findings.md has not thirteen findings"
echo "dev/doc/paper.md: its commands run at a small size"
