#!/bin/sh
# check_figures.sh: dev/plot.py draws every figure of dev/results/figures from the committed results, with the texts
# that stand in them there (their curves move by hundredths of a point with the version of matplotlib), and no axis has
# two ticks of one name. Needs matplotlib (PYTHON=: which python has it).
cd "$(dirname "$0")/.." || exit 1
dir=$(mktemp -d) bad=0
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" dev/plot.py --out "$dir" > "$dir/log" || exit 1
texts() { sed -n 's/.*<text [^>]*>\([^<]*\)<.*/\1/p' "$1"; }
for f in "$dir"/*.svg dev/results/figures/*.svg; do
    name=${f##*/}
    [ -f "$dir/$name" ] || { echo "$name: dev/plot.py does not draw it"; bad=1; continue; }
    texts "$dir/$name" > "$dir/drawn"; texts "dev/results/figures/$name" | cmp -s - "$dir/drawn" ||
        { echo "$name: says otherwise than dev/plot.py: draw it again"; bad=1; }
    awk '/id="matplotlib.axis_/ { split("", seen) }
        /id="[xy]tick_/ { tick = 1 }
        tick && /<text / { gsub(/.*<text [^>]*>|<.*/, ""); if (seen[$0]++) exit 1; tick = 0 }' "$f" ||
            { echo "$f: an axis has two ticks of one name"; bad=1; }
done
[ $bad = 0 ] && echo "dev/results/figures: as dev/plot.py draws them"
exit $bad
