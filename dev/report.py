#!/usr/bin/env python3
"""One page to look into runs: what they logged, what they kept of their responses, and how they were evaluated.

    python3 dev/report.py RUN... [--out report.html] [--cache FILE]        (packages: matplotlib, dev/requirements.txt)

A RUN is the --out folder of `vbon train`, `offline`, `sft` or `reward`, or a JSON file that `vbon eval --out` wrote; of
a folder runs/x the evaluation runs/x.json is taken along where it is there. The page stands alone: its pictures are in
it, it loads nothing and runs no script. It has

  - the training curves of all runs beside each other, with a band of a standard error where the log has one;
  - the evaluations: win rate, KL, distance to Best-of-N and reward, with bars of a standard error;
  - of each run with a trace (`train --trace N`, lib/trace.h): F-hat of some prompts with the responses to them, from
    the reward cache that the run's flags name (--cache: another place for it), and the responses, each token coloured
    by its advantage, its KL or its value.

A file that is torn, or is not what its name says, ends the program with one line."""
import argparse, base64, collections, html, io, json, math, os, sys

def die(why): sys.exit(f"report: {why}")

try:
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
except ImportError: die("matplotlib is needed: python3 -m pip install matplotlib")

# Okabe and Ito's colours, which people who do not see red or green tell apart too; and dashes, so that of two equal
# curves both are seen.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555"]
DASHES = ["-", "--", ":", "-."]
UP, DOWN = "#0072b2", "#d55e00"
plt.rcParams.update({
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": "#e4e4e4", "axes.edgecolor": "#999999",
    "axes.axisbelow": True, "xtick.color": "#444444", "ytick.color": "#444444", "figure.constrained_layout.use": True,
    "svg.hashsalt": "vbon"})

# Metrics in the order of the page: title, and what to look for (ppo.h says more).
METRICS = {
    "objective/scores": ("Mean reward", "as the reward model gives it: should rise"),
    "vbon/distance": ("Distance to Best-of-N, KL(π‖π_bon), nats",
        "on the rollout: should fall; dotted: the untrained reference, (N−1) − log N"),
    "objective/kl": ("KL to the reference, nats",
        "rises to a few; tens: the policy drifts; dotted: Best-of-N's, log N − (N−1)/N"),
    "vbon/logF": ("Mean log F̂", "−1 for the reference; dotted: Best-of-N, about −1/N"),
    "objective/rlhf_reward": ("What PPO maximises", "score and KL terms together: should rise"),
    "objective/entropy": ("Entropy, nats a response", "falls slowly; towards 0 the policy collapses"),
    "vbon/saturation": ("Share above every cached sample", "all of them get one score; over .5: cache more samples"),
    "val/explained_variance_mc": ("Variance of the returns that values explain",
        "sums of rewards; 1 is perfect, 0 no help, below 0 harm"),
    "policy/approxkl_avg": ("KL of one update, nats a token", ".001 to .1; more: the rate is too high"),
    "policy/clipfrac_avg": ("Share of actions whose ratio was clipped", "0 to .3"),
    "loss": ("Loss", "of the steps since the last record"),
    "loss/value_avg": ("Value loss", "half a squared error: should fall"),
    "val/response_length": ("Tokens a response", "a steady drift is the reward's taste, not quality"),
    "grad_norm": ("Gradient norm before clipping", "many times --clip-grad: the clip sets the rate"),
    "lr": ("Learning rate", "of the last optimiser step"),
}
# Shown in a second block: they matter when something is wrong.
LESS = ("objective/kl_k3", "vbon/zero", "vbon/tie_rate", "vbon/logpi_ref", "loss/policy_avg", "val/clipfrac_avg",
        "val/ratio", "val/ratio_var", "val/num_eos_tokens", "val/logp_gap", "val/explained_variance")

# ----------------------------------------------------------------------------
# what is read

def number(x): return isinstance(x, (int, float)) and not isinstance(x, bool)

def jsonl(path):
    """The objects of a file of lines, each with where it stands."""
    try: lines = open(path, encoding="utf-8", newline="\n").readlines()
    except OSError as e: die(f"{path}: cannot be read: {e.strerror}")
    except UnicodeDecodeError: die(f"{path}: is not UTF-8: no file of vbon's")
    for i, line in enumerate(lines, 1):
        where = f"{path}:{i}"
        if not line.endswith("\n"):
            die(f"{where}: the last line is torn: go on with the run (--resume), or delete that line")
        try: j = json.loads(line, parse_constant=lambda c: die(f"{where}: {c} is no JSON"))
        except ValueError: die(f"{where}: is not a line of JSON: no file of vbon's, or a damaged one")
        if not isinstance(j, dict): die(f"{where}: is not a JSON object: no file of vbon's")
        yield where, j

class Run:
    def __init__(self, folder):
        self.folder, self.series, self.records, self.trace = folder, collections.defaultdict(list), [], []
        path = os.path.join(folder, "log.jsonl")
        if not os.path.exists(path): die(f"{folder}: has no log.jsonl: name the --out folder of a run")
        self.command = None
        for where, j in jsonl(path):
            if self.command is None:
                if j.get("type") != "config" or not isinstance(j.get("flags"), dict) or not isinstance(
                    j.get("command"), str):
                    die(f"{where}: is no config record: not a log of vbon's")
                self.config, self.flags, self.command = j, j["flags"], j["command"]
                continue
            if not isinstance(j.get("step"), int) or not isinstance(j.get("type"), str):
                die(f"{where}: has no step or type: not a log of vbon's")
            for key, y in j.items():
                if key in ("type", "step", "episode") or key.startswith("time/"): continue
                if y is not None and not number(y): die(f"{where}: {key} is not a number: not a log of vbon's")
                if y is not None: self.series[key].append((j.get("episode", j["step"]), y))
            self.x = "episodes" if "episode" in j else "optimiser steps"
            self.records.append(j)
        if self.command is None: die(f"{path}: is empty: the run logged nothing")
        if not self.series: die(f"{path}: has no record yet: wait for the run's first")
        n, strength = self.flags.get("n"), self.flags.get("objective") in ("vbon", "l", "l1")
        self.N = n if strength and number(n) and n > 1 and not self.flags.get("beta") else None
        path = os.path.join(folder, "trace.jsonl")
        if os.path.exists(path): self.trace = [trace_record(where, j) for where, j in jsonl(path)]

TOKENS = ("logps", "kl", "rewards", "values", "returns", "advantages")
def trace_record(where, j):
    try:
        n = len(j["ids"])
        good = n > 0 and all(len(j[k]) == n and all(map(number, j[k])) for k in TOKENS) and len(j["tokens"]) == n
        good = good and all(isinstance(x, str) for x in j["tokens"] + [j["prompt"], j["response"]])
        good = good and all(number(j[k]) for k in ("step", "reward", "ref_logp", "score"))
        good = good and ("k" not in j or (number(j["k"]) and number(j["M"]) and j["M"] > 0))
    except (KeyError, TypeError): good = False
    if not good: die(f"{where}: is no record of vbon train --trace")
    return j

EVAL = ("reward", "win_rate", "kl_rb")
def evaluation(path):
    try: text = open(path, encoding="utf-8").read()
    except OSError as e: die(f"{path}: cannot be read: {e.strerror}")
    except UnicodeDecodeError: die(f"{path}: is not UTF-8: not what vbon eval wrote")
    try: j = json.loads(text)
    except ValueError: die(f"{path}: is not JSON: torn, or not what vbon eval wrote")
    pair = lambda x: isinstance(x, list) and len(x) in (1, 2) and all(v is None or number(v) for v in x)
    if isinstance(j, dict) and "kl_bound" in j: j.setdefault("kl_rb", [None, None]) # Best-of-N's has a bound alone
    if not isinstance(j, dict) or not all(pair(j.get(k)) for k in EVAL) or not isinstance(j.get("distance"), dict) or (
        not all(map(pair, j["distance"].values()))):
        die(f"{path}: is not what vbon eval --out wrote")
    for x in [j[k] for k in EVAL] + list(j["distance"].values()): x += [None] * (2 - len(x)) # of one prompt: no error
    return j

def cached_rewards(path, prompts, m):
    """The sorted rewards of these prompts' first m samples (0: all) in a reward cache; None: there is no such file."""
    if not path or not os.path.exists(path): return None
    kept = collections.defaultdict(list)
    for where, j in jsonl(path):
        if "vbon_cache" in j or j.get("prompt") not in prompts: continue
        if isinstance(j.get("rewards"), list) and all(map(number, j["rewards"])): kept[j["prompt"]] += j["rewards"]
        elif number(j.get("reward")): kept[j["prompt"]].append(j["reward"])
        else: die(f"{where}: has no reward: not a reward cache")
    return {p: sorted(r[:m] if m else r) for p, r in kept.items()}

def names(paths):
    """The last part of each path, or as many as tell them apart."""
    parts = [os.path.normpath(p).split(os.sep) for p in paths]
    for k in range(1, max(map(len, parts), default=1) + 1):
        short = ["/".join(p[-k:]) for p in parts]
        if len(set(short)) == len(short): return short
    return list(paths)

# ----------------------------------------------------------------------------
# pictures

def picture(fig, what):
    """A figure as an <img> that holds it."""
    f = io.BytesIO()
    fig.savefig(f, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(fig)
    data = base64.b64encode(f.getvalue()).decode()
    return f'<img alt="{html.escape(what, True)}" src="data:image/svg+xml;base64,{data}">'

def style(i): return {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i % len(DASHES)]}
def swatch(i):
    dash = {"-": "", "--": "6 3", ":": "2 3", "-.": "7 3 2 3"}[style(i)["linestyle"]]
    return (f'<svg width="30" height="10" aria-hidden="true"><line x1="0" y1="5" x2="30" y2="5" stroke-width="3" '
        f'stroke="{style(i)["color"]}" stroke-dasharray="{dash}"/></svg>')

def dotted(key, N): # what the reference or Best-of-N has
    return {"vbon/distance": N - 1 - math.log(N), "objective/kl": math.log(N) - (N - 1) / N,
        "vbon/logF": -1 / N}.get(key)

def thousands(ax):
    ax.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4, integer=True))
    many = ax.get_xlim()[1] >= 10000
    ax.xaxis.set_major_formatter(lambda v, _: f"{v / 1000:g}k" if many and v else f"{v:g}")

def curve(runs, key):
    title, hint = METRICS.get(key, (key, ""))
    fig, ax = plt.subplots(figsize=(4.4, 2.5))
    for i, run in enumerate(runs):
        points = run.series.get(key)
        if not points: continue
        x, y = zip(*points)
        ax.plot(x, y, **style(i), linewidth=1.8, marker="o" if len(x) < 30 else "", markersize=3.2)
        band = dict(run.series.get(key + "_se", []))
        if band:
            low, high = zip(*((v - band.get(e, 0), v + band.get(e, 0)) for e, v in points))
            ax.fill_between(x, low, high, color=style(i)["color"], alpha=0.18, linewidth=0)
        level = run.N and dotted(key, run.N)
        if level: ax.axhline(level, color=style(i)["color"], linestyle=":", linewidth=1.2)
    thousands(ax)
    ax.set_xlabel(", ".join(sorted({r.x for r in runs if key in r.series})))
    name = "" if key == title else f"<code>{html.escape(key)}</code> "
    return (f"<figure><figcaption><b>{html.escape(title)}</b></figcaption>{picture(fig, title)}"
        f"<figcaption>{name}{html.escape(hint)}</figcaption></figure>")

def curves(runs):
    found = [k for r in runs for k in r.series if not k.endswith("_se")]
    found = list(dict.fromkeys(found))
    main = [k for k in METRICS if k in found] + [k for k in found if k not in METRICS and k not in LESS]
    page = '<div class="grid">' + "".join(curve(runs, k) for k in main) + "</div>"
    less = [k for k in LESS if k in found]
    if less:
        page += "<details><summary>More curves, for when something is wrong</summary>" + (
            '<div class="grid">' + "".join(curve(runs, k) for k in less) + "</div></details>")
    return page

def evaluations(evals):
    """Dots with bars, a row an evaluation; and the numbers."""
    ns = sorted({n for _, e in evals for n in e["distance"]}, key=int)
    columns = [("Win rate against the reference", lambda e: e["win_rate"]),
        ("KL to the reference, nats", lambda e: e["kl_rb"])]
    columns += [(f"Distance to Best-of-{n}, nats", lambda e, n=n: e["distance"].get(n, [None, None])) for n in ns]
    columns += [("Mean reward", lambda e: e["reward"])]
    figures, rows = "", ""
    for title, of in columns:
        fig, ax = plt.subplots(figsize=(4.4, 0.75 + 0.3 * len(evals)))
        for i, (name, e) in enumerate(evals):
            mean, se = of(e)
            bound = e.get("kl_bound") if title.startswith("KL") else None
            if mean is not None:
                ax.errorbar(mean, -i, xerr=se or 0, fmt="o", markersize=5, capsize=3, linewidth=1.6, color=COLOURS[0])
            elif number(bound): ax.plot(bound, -i, marker="<", color=COLOURS[0], fillstyle="none")
        ax.set_yticks([-i for i in range(len(evals))], [name for name, _ in evals])
        ax.set_ylim(-len(evals) + 0.4, 0.6)
        if title.startswith("Win"): ax.axvline(0.5, color="#999999", linestyle=":", linewidth=1.2)
        figures += f"<figure><figcaption><b>{title}</b></figcaption>{picture(fig, title)}</figure>"
    for name, e in evals:
        cells = ""
        for title, of in columns:
            mean, se = of(e)
            bound = e.get("kl_bound") if title.startswith("KL") else None
            said = "not measured" if mean is None else f"{mean:.3f}" if se is None else f"{mean:.3f} ± {se:.3f}"
            cells += f"<td>≤ {bound:.3f}</td>" if mean is None and number(bound) else f"<td>{said}</td>"
        rows += f"<tr><th>{html.escape(name)}</th>{cells}</tr>"
    head = "".join(f"<th>{t}</th>" for t, _ in columns)
    return (f'<div class="grid">{figures}</div><p>Bars and ± are one standard error over prompts. An open triangle is '
        f"an upper bound: of Best-of-N's own KL only log N − (N−1)/N is known.</p>"
        f"<table><tr><th></th>{head}</tr>{rows}</table>")

# ----------------------------------------------------------------------------
# the trace

def scale(values): # the 95 % quantile of their sizes: what is beyond has the full colour
    sizes = sorted(map(abs, values))
    return sizes[int(0.95 * (len(sizes) - 1))] or 1.0

def colour(x, most):
    depth = round(150 * min(1.0, abs(x) / most))
    return f"{UP if x > 0 else DOWN}{depth:02x}" if depth else "#0000"

def shown(piece, last, finished):
    if last and finished: return "■"
    return html.escape(piece.replace("\r", "").replace("\n", "↵").replace("\t", "⇥"), False) or "▫"

def response(j, scales):
    spans = ""
    for t, piece in enumerate(j["tokens"]):
        a, k, v = j["advantages"][t], j["kl"][t], j["values"][t]
        tip = (f"advantage {a:.2f}&#10;return {j['returns'][t]:.3f}, value {v:.3f}, reward {j['rewards'][t]:.3f}&#10;"
            f"log π {j['logps'][t]:.2f}, KL {k:.2f}")
        spans += (f'<span class="t" title="{tip}" style="--a:{colour(a, scales["advantages"])};'
            f'--k:{colour(k, scales["kl"])};--v:{colour(v, scales["values"])}">'
            f'{shown(piece, t == len(j["tokens"]) - 1, j.get("finished"))}</span>')
    place = f"<b>{j['k']:g}/{j['M']}</b>" if "k" in j else ""
    log_f = f"{j['logF']:.2f}" if number(j.get("logF")) else "−∞" if "k" in j else ""
    return (f'<tr><td>{j["reward"]:.2f}</td><td>{place}</td><td>{log_f}</td><td>{j["ref_logp"]:.1f}</td>'
        f'<td>{sum(j["kl"]):.2f}</td><td>{j["score"]:.2f}</td><td class="text"><span class="p">'
        f'{html.escape(j["prompt"][-200:], False)}</span>{spans}</td></tr>')

HEAD = ('<tr><th>reward</th><th title="cached samples of the reference that are below it">k/M</th><th>log F̂</th>'
    '<th>log π<sub>ref</sub></th><th title="log π − log π_ref, summed">KL</th>'
    '<th title="what the objective makes of it">score</th><th>text</th></tr>')

def texts(run, i):
    scales = {k: scale([x for j in run.trace for x in j[k]]) for k in ("advantages", "kl", "values")}
    steps = collections.defaultdict(list)
    for j in run.trace: steps[j["step"]].append(j)
    page = ""
    for step, js in sorted(steps.items()):
        opened = " open" if step in (min(steps), max(steps)) else ""
        mean = sum(j["reward"] for j in js) / len(js)
        page += (f"<details{opened}><summary>Iteration {step}: {len(js)} responses, mean reward {mean:.2f}</summary>"
            f'<table class="trace">{HEAD}{"".join(response(j, scales) for j in js)}</table></details>')
    choices = "".join(f'<input type="radio" name="by{i}" id="by{i}{k}" class="by-{k}"{c}>'
        f'<label for="by{i}{k}">{n}, full colour at ±{scales[key]:.2g}</label>' for k, n, c, key in (
        ("a", "advantage", " checked", "advantages"), ("k", "log π − log π<sub>ref</sub>", "", "kl"),
        ("v", "value", "", "values")))
    key = "".join(f'<span style="background:{c}96">{s}</span> ' for c, s in ((UP, "positive"), (DOWN, "negative")))
    return (f'<div class="texts"><p class="choose">Colour by {choices} <span class="key">{key}</span></p>{page}</div>')

def prompts_of(run): # four of the prompts with most responses, as they come
    count = collections.Counter(j["prompt"] for j in run.trace if "k" in j)
    return [p for p, _ in count.most_common(4)]

def cdf(run, prompt, rewards):
    js = [j for j in run.trace if j["prompt"] == prompt]
    fig, ax = plt.subplots(figsize=(5.2, 3.1))
    if rewards:
        M = len(rewards)
        ax.step([rewards[0] - 0.5] + rewards + [rewards[-1] + 0.5], [0] + [(i + 1) / M for i in range(M)] + [1],
            where="post", color="#555555", linewidth=1.4)
    first, last = min(j["step"] for j in run.trace), max(j["step"] for j in run.trace)
    dots = ax.scatter([j["reward"] for j in js], [j["k"] / j["M"] for j in js], c=[j["step"] for j in js],
        cmap="viridis", vmin=first, vmax=max(last, first + 1), s=34, edgecolor="white", linewidth=0.6, zorder=3)
    fig.colorbar(dots, label="iteration", ticks=matplotlib.ticker.MaxNLocator(5, integer=True))
    ax.set_xlabel("reward"); ax.set_ylabel("k/M"); ax.set_ylim(-0.04, 1.04)
    return picture(fig, f"F-hat of a prompt with {len(js)} responses")

def by_prompt(run, cache):
    chosen = prompts_of(run)
    if not chosen: return ""
    path = cache or run.flags.get("cache")
    rewards = cached_rewards(path, set(chosen), run.flags.get("m") or 0)
    page, line = "", "Line: the share of cached reference samples below a reward. " if rewards else ""
    for p in chosen:
        js = sorted((j for j in run.trace if j["prompt"] == p), key=lambda j: j["step"])
        some = js if len(js) <= 8 else [js[round(i * (len(js) - 1) / 7)] for i in range(8)]
        rows = "".join(f"<tr><td>{j['step']}</td><td>{j['reward']:.2f}</td><td><b>{j['k']:g}/{j['M']}</b></td>"
            f'<td class="text">{html.escape(j["response"].strip(), False)}</td></tr>' for j in some)
        page += (f'<div class="prompt"><figure><figcaption><b>{html.escape(p[-120:], False)} …</b></figcaption>'
            f"{cdf(run, p, (rewards or {}).get(p))}<figcaption>{line}Dots: the responses that were kept.</figcaption>"
            '</figure><table class="trace"><tr><th>iteration</th><th>reward</th><th>k/M</th><th>response</th></tr>'
            f"{rows}</table></div>")
    note = "" if rewards else (f"<p>The reward cache {html.escape(str(path))} is not there (--cache names another "
        "place): the curve is left out.</p>")
    return f"<h3>F̂ of a prompt, and the responses to it</h3>{note}{page}"

# ----------------------------------------------------------------------------
# the page

CSS = """
body { font: 15px/1.45 system-ui, "DejaVu Sans", sans-serif; color: #222; max-width: 1240px; margin: 24px auto;
    padding: 0 20px; }
h1 { font-size: 26px; } h2 { margin-top: 40px; border-bottom: 2px solid #ddd; padding-bottom: 4px; }
.legend { position: sticky; top: 0; background: #fffd; padding: 8px 0; display: flex; flex-wrap: wrap; gap: 4px 22px;
    z-index: 1; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(360px, 1fr)); gap: 18px 22px; }
figure { margin: 0; } figure img { width: 100%; } figcaption { font-size: 13px; color: #555; }
figcaption b { color: #222; font-size: 14px; }
table { border-collapse: collapse; font-size: 13px; margin: 10px 0; }
th, td { text-align: right; padding: 3px 9px; border-bottom: 1px solid #eee; vertical-align: baseline;
    font-variant-numeric: tabular-nums; }
th { color: #555; font-weight: 600; }
th:first-child, .flags td, .runs td:nth-child(2), .runs th:nth-child(2) { text-align: left; }
.trace { width: 100%; } .trace td, .trace th { white-space: nowrap; } .trace th:first-child { text-align: right; }
td.text, .trace th:last-child { text-align: left; width: 100%; white-space: pre-wrap; overflow-wrap: anywhere; }
td.text { font-size: 14px; line-height: 1.6; } .p { color: #888; }
.t { border-radius: 3px; background: var(--a); padding: 1px 0; }
.texts:has(.by-k:checked) .t { background: var(--k); } .texts:has(.by-v:checked) .t { background: var(--v); }
.choose label { margin-right: 14px; } .key span { padding: 1px 6px; border-radius: 3px; }
.prompt { display: grid; grid-template-columns: 440px minmax(0, 1fr); gap: 22px; margin: 18px 0; align-items: start; }
summary { cursor: pointer; padding: 6px 0; font-weight: 600; } code { font-size: 12px; color: #777; }
@media (max-width: 900px) { .prompt { grid-template-columns: minmax(0, 1fr); } .legend { position: static; } }
"""

def value(x): return "" if x is None else f"{x:g}" if isinstance(x, float) else str(x)

def settings(runs, shorts):
    """The flags that differ; of one run all of them, folded."""
    keys = list(dict.fromkeys(k for r in runs for k in r.flags))
    differ = [k for k in keys if len({json.dumps(r.flags.get(k)) for r in runs}) > 1 and k != "out"]
    def table(keys):
        head = "".join(f"<th>{html.escape(s)}</th>" for s in shorts)
        rows = "".join("<tr><th>--%s</th>%s</tr>" % (html.escape(k), "".join(
            f"<td>{html.escape(value(r.flags.get(k)))}</td>" for r in runs)) for k in keys)
        return f'<table class="flags"><tr><th></th>{head}</tr>{rows}</table>'
    page = f"<p>Flags that differ:</p>{table(differ)}" if differ else ""
    return page + f"<details><summary>All flags</summary>{table(keys)}</details>"

def overview(runs, shorts):
    rows = ""
    for i, (r, s) in enumerate(zip(runs, shorts)):
        what = r.command + (f", {r.flags.get('objective')}" if r.flags.get("objective") else "")
        what += f", N = {r.N}" if r.N else f", β = {r.flags['beta']:g}" if r.flags.get("beta") else ""
        unit = "iterations" if r.command == "train" else "optimiser steps"
        done, kept = f"{r.records[-1]['step']} {unit}", len(r.trace) or "no trace"
        cells = (what, done, kept, r.config.get("device"), r.config.get("version"))
        cells = "".join(f"<td>{html.escape(str(c))}</td>" for c in cells)
        rows += f"<tr><th>{swatch(i)} {html.escape(s)}</th>{cells}</tr>"
    return ('<table class="runs"><tr><th>run</th><th>what</th><th>done</th><th>responses kept</th><th>device</th>'
        f"<th>vbon</th></tr>{rows}</table>")

def page(runs, shorts, evals, cache):
    title = "vbon: " + ", ".join(shorts or [n for n, _ in evals])
    out = [f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"><style>{CSS}</style></head>'
        f"<body><h1>{html.escape(title)}</h1>"]
    if runs:
        legend = "".join(f"<span>{swatch(i)} {html.escape(s)}</span>" for i, s in enumerate(shorts))
        out += [overview(runs, shorts), settings(runs, shorts), "<h2>Training</h2>",
            f'<div class="legend">{legend}</div>', curves(runs)]
    if evals: out += ["<h2>Evaluation on held-out prompts</h2>", evaluations(evals)]
    for i, (r, s) in enumerate(zip(runs, shorts)):
        if not r.trace: continue
        out += [f"<h2>Responses of {html.escape(s)}</h2>", by_prompt(r, cache), "<h3>Texts, token by token</h3>",
            "<p>The prompt is grey. ■ is the end-of-text token, ↵ a new line. Point at a token for its numbers."
            "</p>",
            texts(r, i)]
    return "".join(out) + "</body></html>\n"

def main():
    p = argparse.ArgumentParser(description="draws runs of vbon into one HTML page")
    p.add_argument("run", nargs="+", help="the --out folder of a run, or a JSON file of vbon eval")
    p.add_argument("--out", default="report.html", help="the page (report.html)")
    p.add_argument("--cache", help="the reward cache, where it is not where the run's flags say")
    a = p.parse_args()
    if a.cache and not os.path.exists(a.cache): die(f"--cache {a.cache}: there is no such file")
    folders, files = [], []
    for r in a.run:
        if not os.path.exists(r): die(f"{r}: there is no such folder or file")
        (folders if os.path.isdir(r) else files).append(r)
    for f in folders:
        beside = os.path.normpath(f) + ".json"
        if os.path.exists(beside) and beside not in files: files.append(beside)
    runs = [Run(f) for f in folders]
    shorts = names(folders) if folders else []
    evals = [(n[:-5] if n.endswith(".json") else n, evaluation(f)) for n, f in zip(names(files), files)]
    text = page(runs, shorts, evals, a.cache)
    try:
        with open(a.out, "w", encoding="utf-8") as f: f.write(text)
    except OSError as e: die(f"--out {a.out}: cannot be written: {e.strerror}")
    print(f"wrote {a.out}: {len(runs)} runs, {sum(len(r.trace) for r in runs)} responses, {len(evals)} evaluations")

if __name__ == "__main__": main()
