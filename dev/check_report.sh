#!/bin/sh
# check_report.sh: dev/report.py on two small runs and an evaluation. The page stands alone and says what the files say
# (dev/tests/report_page.py), runs without a trace or a cache are drawn too, and a torn or foreign file ends the program
# with one line. Where there is a browser (chromium) it shows the page, and where there is tensorboard it reads what
# dev/to_tensorboard.py writes. Needs vbon, the demo's models and matplotlib (PYTHON=: which python has it).
set -u
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python3}
"$python" -c 'import matplotlib' 2> /dev/null || { echo "check_report: no matplotlib for $python"; exit 1; }
dir=$(mktemp -d) D=$PWD/dev/demo bad=0
trap 'rm -rf "$dir"' EXIT
die() { echo "check_report: $*"; exit 1; }
run() { ./vbon "$@" > "$dir/log" 2>&1 || { tail -3 "$dir/log"; die "vbon $1 fails"; }; }
# two prompts that would be markup
printf '%s\n' '{"prompt":"<b>\"No\" & <i"}' '{"prompt":"A &lt; B.<br /><br"}' '{"prompt":"This film"}' \
    > "$dir/prompts.jsonl"
run cache --model $D/lm --reward $D/rm --prompts "$dir/prompts.jsonl" --samples 16 --max-new 8 --out "$dir/cache.jsonl"
for n in 4 16; do
    run train --model $D/lm --reward $D/rm --cache "$dir/cache.jsonl" --n $n --max-new 8 --episodes 48 --rollout 16 \
        --minibatch 8 --ppo-epochs 1 --lr 1e-3 --out "$dir/vbon$n" $([ $n = 4 ] && echo --trace 8)
done
run offline --model $D/lm --cache "$dir/cache.jsonl" --loss dpo --beta .1 --steps 3 --out "$dir/dpo"
run eval --model "$dir/vbon4" --reference $D/lm --reward $D/rm --cache "$dir/cache.jsonl" --ns 4,16 --samples 4 \
    --max-new 8 --out "$dir/vbon4.json"
run eval --method bon --n 4 --reference $D/lm --reward $D/rm --cache "$dir/cache.jsonl" --ns 4,16 --samples 4 \
    --max-new 8 --out "$dir/bon4.json"
report() { "$python" dev/report.py "$@"; }

# and a token that would be
sed -i -E '1s/("tokens":\[)"([^"\\]|\\.)*"/\1"<i>\&amp;\\n"/' "$dir/vbon4/trace.jsonl"
report "$dir/vbon4" "$dir/vbon16" "$dir/dpo" "$dir/bon4.json" --out "$dir/page.html" || die "no page"
"$python" dev/tests/report_page.py "$dir/page.html" "$dir/vbon4" "$dir/vbon4.json" || die "the page is wrong"
report "$dir/vbon16" --out "$dir/untraced.html" > /dev/null || die "no page of a run without a trace"
mv "$dir/cache.jsonl" "$dir/moved.jsonl"
report "$dir/vbon4" --out "$dir/uncached.html" > /dev/null || die "no page of a run whose cache is gone"
grep -q 'is not there (--cache' "$dir/uncached.html" || die "the page does not say that the cache is gone"
report "$dir/vbon4" --cache "$dir/moved.jsonl" --out "$dir/again.html" > /dev/null || die "--cache fails"
! grep -q 'is not there (--cache' "$dir/again.html" || die "--cache is not read"

refused() { # refused SAYS ARGUMENTS...: one line, which says so
    says=$1; shift
    report "$@" --out "$dir/no.html" > "$dir/out" 2> "$dir/err" && { echo "not refused: $says"; bad=1; return; }
    { [ "$(wc -l < "$dir/err")" = 1 ] && grep -qF -- "$says" "$dir/err" && [ ! -e "$dir/no.html" ]; } ||
        { echo "wanted one line with \"$says\", got:"; head -5 "$dir/err"; bad=1; }
}
broken() { # broken FILE SAYS COMMAND: a run whose FILE went through COMMAND
    rm -rf "$dir/broken"; cp -r "$dir/vbon4" "$dir/broken"
    sh -c "$3" < "$dir/vbon4/$1" > "$dir/broken/$1"
    refused "$2" "$dir/broken"
}
broken log.jsonl 'log.jsonl:4: the last line is torn' 'head -c -20'
broken log.jsonl 'log.jsonl:3: is not a line of JSON' 'sed 3s/,/:/'
broken log.jsonl 'log.jsonl:1: is no config record' 'tail -n +2'
broken log.jsonl 'log.jsonl: is empty' 'head -c 0'
broken log.jsonl 'log.jsonl: has no record yet' 'head -n 1'
broken log.jsonl 'log.jsonl:2: NaN is no JSON' 'sed "2s/\"lr\":[^,]*/\"lr\":NaN/"'
broken log.jsonl 'log.jsonl:2: lr is not a number' 'sed "2s/\"lr\":[^,]*/\"lr\":\"x\"/"'
broken log.jsonl 'is not UTF-8' 'printf "\377\n"'
broken trace.jsonl 'trace.jsonl:24: the last line is torn' 'head -c -20'
broken trace.jsonl 'trace.jsonl:1: is no record of vbon train --trace' 'cat log.jsonl 2>/dev/null; echo "{\"step\":1}"'
broken trace.jsonl 'trace.jsonl:5: is no record of vbon train --trace' 'sed "5s/\"kl\":\[[^,]*,/\"kl\":[/"'
refused 'is not JSON' "$dir/moved.jsonl"
echo '{"a":1}' > "$dir/foreign.json"
refused 'is not what vbon eval --out wrote' "$dir/foreign.json"
refused 'has no log.jsonl' "$dir"
refused 'there is no such folder or file' "$dir/nosuch"
refused 'there is no such file' "$dir/vbon4" --cache "$dir/nosuch"
[ $bad = 0 ] || exit 1
echo "report.py: torn and foreign files are refused in one line"

browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
if [ -n "$browser" ]; then
    # In the page itself: every picture is drawn, nothing is wider than the window, and a choice colours the texts anew.
    cat > "$dir/watch.js" <<'END'
<script>addEventListener("load", () => {
    const images = [...document.images], last = [...document.querySelectorAll(".t")].pop();
    const colours = ["a", "k", "v"].map(by => (document.querySelector(".by-" + by).click(),
        getComputedStyle(last).backgroundColor));
    const drawn = images.filter(x => x.complete && x.naturalWidth > 100).length == images.length;
    const fits = document.documentElement.scrollWidth <= innerWidth;
    document.title = `drawn ${drawn}, fits ${fits}, colours ${new Set(colours).size}`;
});</script>
END
    sed "s#</body>##; s#</html>##" "$dir/page.html" | cat - "$dir/watch.js" > "$dir/watched.html"
    title=$("$browser" --headless --no-sandbox --disable-gpu --window-size=1280,900 --virtual-time-budget=5000 \
        --user-data-dir="$dir/profile" --dump-dom "file://$dir/watched.html" 2> /dev/null |
        sed -n 's/.*<title>\([^<]*\).*/\1/p')
    [ "$title" = "drawn true, fits true, colours 3" ] || die "$browser shows the page otherwise: $title"
    echo "the page in $browser: $title"
fi
if "$python" -c 'import tensorboard' 2> /dev/null; then
    "$python" dev/to_tensorboard.py "$dir/vbon4" "$dir/vbon16" --out "$dir/events" &&
    "$python" dev/tests/tensorboard_events.py "$dir/events/vbon4" "$dir/vbon4" || die "TensorBoard reads other numbers"
fi
