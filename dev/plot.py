#!/usr/bin/env python3
"""The paper's figures, drawn from committed results alone (matplotlib: dev/requirements.txt).

    python3 dev/plot.py [--results FILE] [--tldr FILE] [--ks FILE] [--out FOLDER] [--png FOLDER] [FIGURE ...]

figure2   win rate and mean reward over KL, every fine-tuned point, the Pareto front: this engine's recipe;
          figure2_paper: the paper's
figure3   log F-hat of three prompts from 10 to 600 cached samples
figure4   win rate and mean reward against the M of the cache, and the seconds that such a cache takes
figure5   TL;DR: win rate by temperature, in-distribution and out;  figure7: the judge's mean reward
figure6   the exact objective and its bound L
distance  how much of the reference's distance to Best-of-N is left, which no curve over KL shows
curves    training: reward, KL and distance by episodes

Without names all of them. A figure whose runs are not in the files is not drawn, and the command that makes them is
printed. Points are means over seeds; a bar is one standard error, of prompts and seeds together (runs.py). SVG, of the
same bytes each time with the same matplotlib."""
import argparse, json, os, re, statistics as st, sys, textwrap
from runs import NS, front, kl_bon, mean_se, points_of, read_lines, read_runs, read_tldr, root
try:
    import matplotlib
except ImportError:
    sys.exit("plot.py: matplotlib is needed: pip install -r dev/requirements.txt")
matplotlib.use("svg")
import matplotlib.pyplot as plt

matplotlib.rcParams.update({"svg.hashsalt": "vbon", "svg.fonttype": "none", "font.size": 9,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 9.5, "axes.titlelocation": "left",
    "legend.frameon": False, "legend.fontsize": 8, "axes.grid": True, "grid.color": "#e8e8e8", "grid.linewidth": 0.6,
    "axes.axisbelow": True})

# name, colour (Okabe and Ito's, told apart by any eye, and three of Tol's), marker; the order is the legend's. An
# objective that is not here is drawn under its own name.
METHODS = {"vbon": ("vBoN", "#0072B2", "o"), "l": ("bound L of vBoN", "#E69F00", "^"),
    "rl": ("RL with a KL penalty (PPO)", "#E69F00", "^"), "bond": ("BOND", "#117733", "P"),
    "jbond": ("J-BOND", "#882255", "X"), "dpo": ("DPO", "#009E73", "s"), "ipo": ("IPO", "#CC79A7", "D"),
    "bonbon": ("BoNBoN", "#D55E00", "v"), "bon-sft": ("supervised on Best-of-N (BoN-SFT)", "#56B4E9", "p")}
OTHERS = (("#332288", "h"), ("#999933", "*"), ("#AA4499", "<"), ("#666666", ">"))

def look(method, methods):
    if method in METHODS: return METHODS[method]
    unknown = sorted(set(methods) - set(METHODS))
    return (method,) + OTHERS[unknown.index(method) % len(OTHERS)]

def missing(figure, what, command): print(f"{figure}: not drawn: {what}. This makes it:\n    {command}")

def finish(fig, name, said, sources, legend_rows=0):
    """The caption under the panels, above it room for the legend where it has rows, and the files."""
    whole = "%s From %s by `python3\u00a0dev/plot.py\u00a0%s`." % (said, " and ".join(sources), name)
    text = "\n".join(textwrap.wrap(whole, int(fig.get_figwidth() * 17.5))).replace("\u00a0", " ")
    height = fig.get_figheight()
    caption = (0.14 * (text.count("\n") + 1) + 0.12) / height
    fig.tight_layout(rect=(0, caption + 0.2 * legend_rows / height, 1, 1))
    fig.text(0.012, 0.06 / height, text, fontsize=7.5, color="#444444", va="bottom")
    for legend in fig.legends: legend.set_bbox_to_anchor((0.5, caption))
    for ax in fig.axes: write_labels(ax) # now that it stands where it stays
    path = os.path.join(args.out, name + ".svg")
    fig.savefig(path, metadata={"Date": None, "Creator": None})
    if args.png: fig.savefig(os.path.join(args.png, name + ".png"), dpi=110)
    plt.close(fig)
    # hundredths of a point are enough, and half the bytes; texts stay as they are
    with open(path, encoding="utf-8") as f:
        svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), f.read())
    with open(path, "w", encoding="utf-8") as f: f.write(svg)
    print(path)

def root_axis(ax, to):
    """KL over its square root: there the curves are nearly straight, and small ones stand apart."""
    ax.set_xscale("function", functions=(lambda x: abs(x) ** 0.5, lambda x: x ** 2))
    ax.set_xlim(0, to * 1.12) # labels stand right of points
    ticks = [t for t in (0, 0.1, 0.5, 1, 2, 3, 4, 6, 8, 10, 12, 15, 20, 25, 30) if t <= to * 1.12]
    apart, kept = root(to) / 13, []
    for t in ticks:
        if not kept or root(t) - root(kept[-1]) >= apart: kept.append(t)
    ax.set_xticks(kept, ["%g" % t for t in kept])
    ax.set_xlabel("KL to the reference, nats (over its square root)")

def said(p): return p.said.replace(" ", "").replace("N=", "").replace("=", " ") # beside a point: its N or beta

marks = {} # by axes: of every point its place, what is written beside it ("": nothing) and the colour

def mark(ax, x, y, text="", colour="black"): marks.setdefault(ax, []).append((x, y, text, colour))

def write_labels(ax):
    """Each mark's text at the nearest free place around it: beside no other mark, on no other text, inside the axes."""
    scale, size = 72 / ax.figure.dpi, 6.8 # all in points
    at = [ax.transData.transform(m[:2]) * scale for m in marks.get(ax, [])]
    box = ax.bbox.extents * scale
    taken = [(x - 3.5, y - 3.5, x + 3.5, y + 3.5) for x, y in at]
    shared = lambda a, b: max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    places = [(dx * far, dy * far) for far in (1, 1.7, 2.6, 3.8)
        for dx, dy in ((6, 0), (5, 5), (5, -5), (-6, 0), (-5, 5), (-5, -5), (0, 8), (0, -8))]
    for i, ((x, y), (*_, text, colour)) in enumerate(zip(at, marks.get(ax, []))):
        if not text: continue
        w, found = 0.56 * size * len(text), []
        for k, (dx, dy) in enumerate(places):
            left = x + dx - (0 if dx > 0 else w if dx < 0 else w / 2)
            own = (left, y + dy - size / 2, left + w, y + dy + size / 2)
            over = sum(shared(own, b) for b in taken) + 10 * (w * size - shared(own, box))
            found.append((over, k, own))
        over, k, own = min(found)
        dx, dy = places[k]
        taken.append(own)
        ax.annotate(text, marks[ax][i][:2], textcoords="offset points", xytext=(dx, dy), fontsize=size, color=colour,
            ha="left" if dx > 0 else "right" if dx < 0 else "center", va="center", zorder=6,
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": colour, "shrinkA": 0, "shrinkB": 2} if k > 15 else None)

def axis_of(key): return {"win": "win rate against the reference", "reward": "mean reward"}[key]
def darker(colour): return tuple(0.7 * c for c in matplotlib.colors.to_rgb(colour))

def plain(ps):
    """Those by a method's own rate: where all are variants (BOND and J-BOND have their rates in their names), by the
    lowest."""
    usual = {(p.method, p.recipe): min(q.variant for q in ps if (q.method, q.recipe) == (p.method, p.recipe))
        for p in ps}
    return [p for p in ps if p.variant == usual[p.method, p.recipe]]

def draw_points(ax, ps, key, colour, marker, name):
    """What is on the points' own front is joined where there are two such; the others are paler. Hollow and without a
    label: a variant, which is on no such line."""
    usual = plain(ps)
    own = sorted(front(usual, key), key=lambda p: p.kl)
    if len(own) > 1: ax.plot([p.kl for p in own], [getattr(p, key) for p in own], "-", color=colour, lw=1, zorder=2)
    for p in ps:
        on = p in own
        ax.errorbar(p.kl, getattr(p, key), yerr=p.se[key], xerr=p.se["kl"], fmt=marker, color=colour, ms=5.5, lw=0.8,
            alpha=1 if on else 0.5, zorder=4 if on else 3, mfc=colour if p in usual else "white")
        mark(ax, p.kl, getattr(p, key), said(p) if p in usual else "", darker(colour))
    ax.plot([], [], marker + ("-" if len(own) > 1 else ""), color=colour, ms=5.5, lw=1, label=name)

def best_of_n(ax, key, runs, to, label=True):
    if key == "win":
        ns = [1.0]
        while kl_bon(ns[-1]) < to and ns[-1] < 1e12: ns.append(ns[-1] * 1.05)
        ax.plot([kl_bon(n) for n in ns], [n / (n + 1) for n in ns], "-", color="black", lw=1.2, zorder=2,
            label="Best-of-N, by its formulas" if label else None)
    drawn = [(n, runs["bon-%d" % n]["eval"]) for n in NS if "bon-%d" % n in runs]
    name = "win_rate" if key == "win" else "reward"
    if drawn:
        ax.errorbar([kl_bon(n) for n, _ in drawn], [e[name][0] for _, e in drawn], yerr=[e[name][1] for _, e in drawn],
            fmt="*--" if key == "reward" else "*", color="black", ms=8, lw=0.8, zorder=4,
            label="Best-of-N, drawn (KL at most)" if label else None)
        for n, e in drawn: mark(ax, kl_bon(n), e[name][0], str(n))

def figure2(name, chosen, title, caption):
    ps = [p for p in points if chosen(p)]
    if not any(p.method == "vbon" for p in ps):
        return missing(name, "no such run of vbon", "dev/imdb_small.sh %s" % ("paper" if "paper" in name else "best"))
    groups = sorted({(p.method, p.recipe) for p in ps}, key=lambda g: ((list(METHODS) + [g[0]]).index(g[0]), g))
    to = max(p.kl for p in ps)
    fig, axes = plt.subplots(1, 2, figsize=(12.5, 7))
    fronts = {key: front(plain(ps), key) for key in ("win", "reward")}
    for ax, key, letter in zip(axes, fronts, "ab"):
        best_of_n(ax, key, runs, to)
        f = sorted(fronts[key], key=lambda p: p.kl)
        if len(f) > 1: # a step: between two points of the front nothing is better than the left one
            ax.step([p.kl for p in f], [getattr(p, key) for p in f], where="post", color="#bbbbbb", lw=4,
                alpha=0.5, zorder=1, label="Pareto front of all filled points (%d in a, %d in b)" % tuple(map(len,
                fronts.values())))
        for method, recipe in groups:
            mine = [p for p in ps if (p.method, p.recipe) == (method, recipe)]
            label, colour, marker = look(method, [p.method for p in ps])
            if (method, recipe) == ("rl", "scaled"): label += ", rewards divided by their deviation"
            elif (method, recipe) == ("rl", "paper"):
                label, colour, marker = label + ", rewards as they are", "#997700", "<"
            elif recipe not in ("", "best", "paper", "offline"): label += " (%s)" % recipe
            shares = tuple(100 * sum(p in mine for p in f) / len(f) for f in fronts.values())
            draw_points(ax, mine, key, colour, marker, label + ": %.0f %% of front a, %.0f %% of b" % shares)
        root_axis(ax, to)
        ax.set_ylabel(axis_of(key))
        ax.set_title("(%s) %s, %s" % (letter, axis_of(key), title))
    legend = dict(zip(*reversed(axes[1].get_legend_handles_labels()))) | dict(zip(*reversed(
        axes[0].get_legend_handles_labels())))
    fig.legend(legend.values(), legend.keys(), loc="lower center", ncol=2)
    finish(fig, name, caption + " Beside a point: its N or β (J-BOND: its anchor's rate η); hollow: another "
        "learning rate (which: tables.md). Bars: one standard error over prompts and seeds. Points that another one of "
        "their method beats in both are paler, and joined is only what is on a method's own front.", [args.results],
        legend_rows=(len(legend) + 1) // 2)

def figure3():
    try:
        ks = json.load(open(args.ks, encoding="utf-8"))
    except (OSError, ValueError) as e:
        sys.exit(f"{args.ks}: no JSON: {e}")
    if not ks.get("curves"):
        return missing("figure3", "no curves in " + args.ks, "./vbon ks --cache runs/imdb/cache_test.jsonl --ms "
            "5,20,100,200,250 --curves auto --out " + args.ks)
    fig, axes = plt.subplots(1, len(ks["curves"]), figsize=(3.9 * len(ks["curves"]), 3.9), sharey=True)
    colours = matplotlib.colormaps["viridis_r"]
    for ax, c in zip(axes, ks["curves"]):
        at = sorted(c["cdfs"][-1]["rewards"]) # F-hat at each reward that occurs
        for i, cdf in enumerate(c["cdfs"]):
            M, r = cdf["M"], sorted(cdf["rewards"])
            # log F-hat (digamma) = H_k - H_(M+1), of k below
            harmonic = [0.0]
            for k in range(1, M + 2): harmonic.append(harmonic[-1] + 1 / k)
            xs = [at[0]] + r + [at[-1]]
            ys = [harmonic[k] - harmonic[M + 1] for k in range(M + 1)]
            ax.step(xs, ys + [ys[-1]], where="post", lw=2.2 if M == max(x["M"] for x in c["cdfs"]) else 1.2,
                color=colours(0.12 + 0.88 * i / max(1, len(c["cdfs"]) - 1)), label="M = %d" % M)
        ax.set_title("%s: “%s”" % (c.get("kind") or "prompt %d" % c["number"], c["prompt"]))
        ax.set_xlabel("reward")
        ax.set_ylim(-5.6, 0.15)
    axes[0].set_ylabel("log F̂, nats")
    axes[-1].legend(loc="lower right")
    finish(fig, "figure3", "log F̂ (digamma) by reward, from the first M cached samples of a prompt; the prompts of "
        "the lowest, the median and the highest mean reward. F̂ of M samples cannot fall below "
        "its value for none below.", [args.ks])

def by_seeds(rs, key): # mean and standard deviation over seeds, as the paper has it
    x = [r["eval"][key][0] for r in rs]
    return st.mean(x), st.stdev(x) if len(x) > 1 else 0

def figure4():
    sweep, cache = {}, {}
    for name, r in runs.items():
        m = re.fullmatch(r"m-(\d+)-s\d+", name)
        if m: sweep.setdefault(int(m[1]), []).append(r)
    for r in read_lines(args.results):
        if r["run"].startswith("cache-"): cache[r["m"]] = r
    if len(sweep) < 2:
        return missing("figure4", "no runs m-M in " + args.results, 'MS="8 16 32 64 100 200" SEEDS="1 2 3" RESULTS=%s '
            "dev/imdb_small.sh" % args.results)
    ms = sorted(sweep)
    fig, axes = plt.subplots(1, 3 if cache else 2, figsize=(12.5 if cache else 8.5, 4))
    for ax, key, letter in zip(axes, ("win_rate", "reward"), "ab"):
        y = [by_seeds(sweep[m], key) for m in ms]
        ax.errorbar(ms, [a for a, _ in y], yerr=[b for _, b in y], fmt="o-", color=METHODS["vbon"][1], ms=5, lw=1.2,
            capsize=2, label="vBoN, N = 10")
        ax.set_ylabel(axis_of("win" if key == "win_rate" else key))
        ax.set_title("(%s) %s of vBoN, N = 10" % (letter, key.replace("_", " ")))
    if cache:
        cs = sorted(cache)
        axes[2].plot(cs, [cache[m]["time/cache"] for m in cs], "s-", color="#666666", ms=5, lw=1.2)
        for m in cs:
            axes[2].annotate("%.3g s" % cache[m]["time/cache"], (m, cache[m]["time/cache"]), textcoords="offset points",
                xytext=(0, 7), ha="center", fontsize=7.5)
        axes[2].set_ylabel("seconds to draw and judge the cache")
        axes[2].set_ylim(0, max(c["time/cache"] for c in cache.values()) * 1.15)
        axes[2].set_title("(c) elapsed time of the cache" + (
            ", %s" % cache[cs[0]]["machine"] if "machine" in cache[cs[0]] else ""))
    else: missing("figure4's third panel", "no lines cache-M in " + args.results, 'MS="%s" RESULTS=%s '
        "dev/imdb_small.sh cache-" % (" ".join(map(str, ms)), args.results))
    for ax in axes:
        ax.set_xscale("log", base=2)
        ax.set_xticks(ms, [str(m) for m in ms])
        ax.minorticks_off()
        ax.set_xlabel("M, cached samples a prompt")
    finish(fig, "figure4", "The paper's recipe trained on caches of M samples a prompt (%d seeds; bars: their standard "
        "deviation); judged against 600 samples of each test prompt." % max(map(len, sweep.values())), [args.results])

TLDR = {"SFT": ("SFT (the reference)", "#666666", "h"), "RL": METHODS["rl"], "vBoN": METHODS["vbon"],
    "DPO": METHODS["dpo"], "BoNBoN": METHODS["bonbon"], "BoN": ("Best-of-N", "black", "*")}

def figure57(name, key, title):
    evals, n, _, pool_apart = read_tldr(args.tldr)
    if not evals: return missing(name, "no evaluations in " + args.tldr, "dev/tldr_small.sh DATA=DIR")
    for method in ("DPO", "BoNBoN"):
        if not any(r["method"] == method for r in evals):
            missing("%s's curve of %s" % (name, method), "not in " + args.tldr, "dev/tldr_small.sh DATA=DIR")
    halves = [h for h in ("in", "out") if any(r["half"] == h for r in evals)]
    fig, axes = plt.subplots(1, len(halves), figsize=(9.6, 4.6), sharey=True, squeeze=False)
    ts = sorted({r["temperature"] for r in evals})
    present = [m for m in TLDR if any(r["method"] == m for r in evals)]
    for ax, half, letter in zip(axes[0], halves, "ab"):
        for i, method in enumerate(present):
            label, colour, marker = TLDR[method]
            xs, ys, es = [], [], []
            for t in ts:
                x = [r["eval"][key] for r in evals if (r["method"], r["half"], r["temperature"]) == (method, half, t)]
                if not x: continue
                y, e = mean_se(x)
                xs.append(t + (i - len(present) / 2) * 0.008); ys.append(y); es.append(e)
            ax.errorbar(xs, ys, yerr=es, fmt=marker + "-", color=colour, ms=6, lw=1.1, capsize=2,
                label=label.replace("-N", "-" + n))
        posts = next(r["eval"]["prompts"] for r in evals if r["half"] == half)
        ax.set_title("(%s) %s, %d posts" % (letter, {"in": "in-distribution", "out": "out of distribution"}[half],
            posts))
        ax.set_xticks(ts, ["%g" % t for t in ts])
        ax.set_xlabel("sampling temperature")
    axes[0][0].set_ylabel(title)
    axes[0][-1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    # of the win rate alone: see read_tldr
    flattered = "" if pool_apart or key != "win_rate" else (" SFT and Best-of-N are draws among the samples they are "
        "compared with, which flatters Best-of-N.")
    finish(fig, name, "TL;DR summaries: %s, by a judge that training never saw; N = %s. Bars: one standard error over "
        "posts; points are moved aside a little so that bars can be told apart.%s" % (title, n,
        flattered), [args.tldr])

def figure6():
    recipes = [r for r in ("best", "paper") if any(p.method == "l" and p.recipe == r for p in points)]
    if not recipes: return missing("figure6", "no runs of the bound L", "dev/imdb_small.sh best-l paper-l")
    fig, axes = plt.subplots(len(recipes), 2, figsize=(10.5, 3.9 * len(recipes)), squeeze=False)
    for row, recipe in zip(axes, recipes):
        for ax, key in zip(row, ("win", "reward")):
            ps = [p for p in points if p.recipe == recipe and p.method in ("vbon", "l") and not p.variant]
            best_of_n(ax, key, runs, max(p.kl for p in ps))
            for method in ("vbon", "l"):
                mine = [p for p in ps if p.method == method]
                draw_points(ax, mine, key, METHODS[method][1], METHODS[method][2],
                    {"vbon": "exact log π_bon (vBoN)", "l": "its bound L"}[method])
            root_axis(ax, max(p.kl for p in ps))
            ax.set_ylabel(axis_of(key))
            ax.set_title({"best": "this engine's recipe", "paper": "the paper's recipe"}[recipe])
            ax.legend(loc="lower right")
    finish(fig, "figure6", "The exact objective and its bound L (β = 1/(N−1)) at equal N (beside the points). Bars: "
        "one standard error over prompts and seeds.", [args.results])

def distance():
    """What is left of the reference's distance to Best-of-N, each method at the N it aims at."""
    ps = [p for p in points if p.method != "l" and p.recipe != "nearer" and p.said.startswith("N")
        and int(p.strength) in NS]
    if not ps: return missing("distance", "no runs with N = 2, 4, 16 or 64", "dev/imdb_small.sh")
    fig, ax = plt.subplots(figsize=(8.6, 4.6))
    groups = sorted({(p.method, p.recipe, p not in plain(ps)) for p in ps},
        key=lambda g: ((list(METHODS) + [g[0]]).index(g[0]), g))
    for i, (method, recipe, rated) in enumerate(groups):
        mine = [p for p in ps if (p.method, p.recipe, p not in plain(ps)) == (method, recipe, rated)]
        label, colour, marker = look(method, [p.method for p in ps])
        label += {"best": ", this engine's recipe", "fitted": ", its rate fitted to N",
            "paper": ", the paper's recipe"}.get(recipe, "")
        if recipe in ("fitted", "paper"): colour, marker = OTHERS[("fitted", "paper").index(recipe) * 3]
        ax.errorbar([int(p.strength) * 2 ** ((i - len(groups) / 2) * 0.035) for p in mine],
            [100 * p.shares[int(p.strength)] for p in mine], yerr=[100 * p.share_se(int(p.strength)) for p in mine],
            fmt=marker + ("-" if len(mine) > 1 and not rated else ""), color=colour, ms=6, lw=1, capsize=2,
            label=None if rated else label, mfc="white" if rated else colour)
    ax.axhline(100, color="black", lw=0.8, ls=":")
    ax.annotate("the reference", (2, 100), textcoords="offset points", xytext=(60, 4), fontsize=7.5)
    ax.set_xscale("log", base=2); ax.set_yscale("log")
    ax.set_xticks(NS, [str(n) for n in NS]); ax.minorticks_off()
    most = max(100 * p.shares[int(p.strength)] for p in ps)
    ticks = [t for t in (5, 10, 20, 50, 100, 200, 500, 1000) if t <= 1.2 * most]
    ax.set_yticks(ticks, ["%d %%" % t for t in ticks])
    ax.set_xlabel("N that the method aims at"); ax.set_ylabel("distance to Best-of-N that is left")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    finish(fig, "distance", "KL(policy ‖ Best-of-N) on test prompts as a share of the reference's, (N−1) − "
        "log N: 0 is Best-of-N itself. Not in the paper, whose curves over KL do not show it. Hollow: another learning "
        "rate, or another critic (which: tables.md). Bars: one standard error over prompts and seeds.", [args.results])

def curves():
    beside = os.path.join(os.path.dirname(args.results), "curves.jsonl")
    source = beside if os.path.exists(beside) else args.results
    rs = [r for r in read_lines(source) if "episode" in r.get("curve", {})]
    if source == args.results: rs = [r for r in rs if r["run"].endswith("-s1") and ("-n16-" in r["run"]
        or "-beta0.8-" in r["run"])]
    if not rs:
        return missing("curves", "no line with a training curve", "RESULTS=%s OUT=runs/curves dev/imdb_small.sh "
            "best-vbon-n4-s1 best-vbon-n16-s1 best-vbon-n64-s1 best-rl-beta0.8-s1 best-l-n16-s1 paper-vbon-n16-s1 "
            "scaled-rl-beta0.8-s1 change-critic-head change-10x-episodes" % beside)
    fig, axes = plt.subplots(1, 3, figsize=(13, 4.6))
    colours = list(dict.fromkeys(c for _, c, _ in METHODS.values() if c != METHODS["bond"][1])) # it has another green
    colours += [c for c, _ in OTHERS]
    for i, r in enumerate(rs):
        c = r["curve"]
        for ax, key in zip(axes, ("objective/scores", "objective/kl", "vbon/distance")):
            xy = [(x, y) for x, y in zip(c["episode"], c.get(key, [])) if y is not None]
            if xy: ax.plot([x for x, _ in xy], [y for _, y in xy], color=colours[i % len(colours)], lw=1.3,
                ls=("-", "--")[i // len(colours) % 2], marker="os^vDPX<>"[i % 9], ms=3, label=r["run"])
    for ax, title in zip(axes, ("mean reward of the rollout", "KL to the reference, nats",
        "distance to the Best-of-N aimed at, nats")):
        ax.set_title(title); ax.set_xlabel("episodes"); ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda x, _: "%g" % x))
    axes[2].set_yscale("log")
    low, high = axes[2].get_ylim()
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 3, 5, 8, 12, 20, 30, 60, 100) if low <= t <= high]
    axes[2].set_yticks(ticks, ["%g" % t for t in ticks]); axes[2].minorticks_off()
    axes[1].legend(loc="upper left", fontsize=7)
    finish(fig, "curves", "Training curves of single runs, each point one rollout (on training prompts). RL aims at no "
        "Best-of-N, so it has no distance; rewards of `scaled` runs are divided by their deviation.", [source])

FIGURES = {
    "figure2": lambda: figure2("figure2", lambda p: p.recipe not in ("paper", "scaled", "nearer", "fitted")
        and p.method != "l", "this engine's recipe", "Movie reviews, 512 test prompts: vBoN and RL by this engine's "
        "recipe, and what learns from the cache alone."),
    "figure2_paper": lambda: figure2("figure2_paper", lambda p: p.recipe in ("paper", "scaled", "offline")
        and p.method != "l", "the paper's recipe", "Movie reviews, 512 test prompts: vBoN and RL by the paper's "
        "recipe, and what learns from the cache alone."),
    "figure3": figure3, "figure4": figure4,
    "figure5": lambda: figure57("figure5", "win_rate", "win rate against reference samples"), "figure6": figure6,
    "figure7": lambda: figure57("figure7", "reward", "mean reward"), "distance": distance, "curves": curves}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--results", default="dev/results/imdb/h200/results.jsonl")
parser.add_argument("--tldr", default="dev/results/tldr/results.jsonl")
parser.add_argument("--ks", default="dev/results/imdb/ks.json")
parser.add_argument("--out", default="dev/results/figures")
parser.add_argument("--png", help="the pictures as PNG into this folder too, to look at")
parser.add_argument("figures", nargs="*", choices=[[], *FIGURES], metavar="FIGURE")
args = parser.parse_args()
for folder in (args.out, args.png):
    if folder: os.makedirs(folder, exist_ok=True)
runs = read_runs(args.results)
points = points_of(runs)
for name in args.figures or FIGURES: FIGURES[name]()
