#!/usr/bin/env python3
"""From dev/results/imdb/results.jsonl: the tables of dev/results/imdb/README.md and, where matplotlib is installed, front.svg.

    python3 dev/imdb_results.py [RESULTS] > dev/results/imdb/README.md

Runs of one recipe, objective and strength are averaged over their seeds; +- is the standard error over prompts of one run, and where there are several
seeds the spread between them is printed beside it. The share is distance to Best-of-N over the reference's distance to it."""
import json, math, os, re, statistics as st, sys

path = sys.argv[1] if len(sys.argv) > 1 else "dev/results/imdb/results.jsonl"
runs = {r["run"]: r for r in map(json.loads, open(path, encoding="utf-8"))}
reference = runs["reference"]["eval"]
METHODS = ("vbon", "l", "rl")
NS = (2, 4, 16, 64)

def kl_bon(n): return math.log(n) - (n - 1) / n
def share(e, n): return e["distance"][str(n)][0] / reference["distance"][str(n)][0]

class Point: # one recipe, objective and strength, over its seeds
    def __init__(self, recipe, method, strength, rs):
        self.recipe, self.method, self.strength, self.rs = recipe, method, strength, rs
        self.win, self.reward, self.kl = (st.mean(r["eval"][k][0] for r in rs) for k in ("win_rate", "reward", "kl_rb"))
        self.shares = {n: st.mean(share(r["eval"], n) for r in rs) for n in NS}
        self.seconds = st.mean(sum(r.get("time/" + k, 0) for k in ("rollout", "reward", "update")) for r in rs)
    def cell(self, key, digits):
        x = [r["eval"][key] for r in self.rs]
        spread = " (%.*f apart)" % (digits, max(a[0] for a in x) - min(a[0] for a in x)) if len(x) > 1 else ""
        return "%.*f ± %.*f%s" % (digits, st.mean(a[0] for a in x), digits, x[0][1], spread)

points = {}
for name, r in runs.items():
    m = re.fullmatch(r"(best|paper)-(vbon|l|rl)-([\d.]+)-s\d+", name)
    if m: points.setdefault(m.groups(), []).append(r)
points = [Point(*k, rs) for k, rs in points.items()]

def front(ps, key): # no other point has less KL and more of key
    return [p for p in ps if not any(q is not p and q.kl <= p.kl and getattr(q, key) >= getattr(p, key) for q in ps)]

print("# vBoN, L and RL on movie reviews\n")
print("Written by `python3 dev/imdb_results.py` from results.jsonl, which `dev/imdb_small.sh` makes. Reference and reward model: dev/models/imdb, unless it was given others. Evaluation: %d test prompts × %d responses of 40 tokens, seed 1,\n"
      "against each prompt's own reference samples (600). KL (Rao-Blackwellised) and distances in nats; ± standard error over prompts, and how far the seeds lie apart.\n" % (reference["prompts"], reference["samples"]))
print("| | N or β | reward | win rate | KL | to BoN-2 | to BoN-4 | to BoN-16 | to BoN-64 | s an iteration |\n|---|---|---|---|---|---|---|---|---|---|")
print("| reference | | %.3f ± %.3f | %.4f | 0 | %s | |" % (*reference["reward"], reference["win_rate"][0], " | ".join("%.3f" % reference["distance"][str(n)][0] for n in NS)))
for n in NS:
    b = runs.get("bon-%d" % n)
    if b: print("| Best-of-N, drawn | %d | %.3f ± %.3f | %.4f ± %.4f (theory %.4f) | ≤ %.3f | %s | |" % (n, *b["eval"]["reward"], *b["eval"]["win_rate"], n / (n + 1), kl_bon(n), " | ".join("0" if k == n else "" for k in NS)))
for recipe in ("best", "paper"):
    for method in METHODS:
        for p in sorted((p for p in points if (p.recipe, p.method) == (recipe, method)), key=lambda p: float(p.strength) * (-1 if method == "rl" else 1)):
            print("| %s, %s (%d seed%s) | %s | %s | %s | %s | %s | %.2f |" % (method, recipe, len(p.rs), "s"[:len(p.rs) - 1], p.strength, p.cell("reward", 3), p.cell("win_rate", 4), p.cell("kl_rb", 3),
                  " | ".join("%.0f %%" % (100 * p.shares[n]) for n in NS), p.seconds))
print("\nDistances of trained policies are shares of the reference's.\n")

print("## The Pareto front (all fine-tuned points, Best-of-N excluded)\n\n| recipe | front of | points | vbon | l | rl |\n|---|---|---|---|---|---|")
for recipe in ("best", "paper"):
    ps = [p for p in points if p.recipe == recipe]
    for key, what in (("win", "win rate"), ("reward", "reward")):
        f = front(ps, key)
        if f: print("| %s | %s over KL | %d | %s |" % (recipe, what, len(f), " | ".join("%.0f %%" % (100 * sum(p.method == m for p in f) / len(f)) for m in METHODS)))

sweep = {}
for name, r in runs.items():
    m = re.fullmatch(r"m-(\d+)-s\d+", name)
    if m: sweep.setdefault(int(m[1]), []).append(r)
if sweep:
    print("\n## M at N=10\n\n| M | seeds | win rate | reward | to BoN-16 |\n|---|---|---|---|---|")
    for m in sorted(sweep):
        p = Point("", "vbon", "10", sweep[m])
        print("| %d | %d | %s | %s | %.1f %% |" % (m, len(p.rs), p.cell("win_rate", 4), p.cell("reward", 3), 100 * p.shares[16]))

changes = [r for name, r in runs.items() if re.match("change-|long-|paper3e-5", name)]
if changes:
    print("\n## What matters at N=16 (seed 1)\n\n| run | episodes | win rate | reward | KL | to BoN-16 | saturation | explained variance | minutes |\n|---|---|---|---|---|---|---|---|---|")
    for name in ["best-vbon-16-s1", "paper-vbon-16-s1"] + [r["run"] for r in changes]:
        if name not in runs: continue
        r = runs[name]; e, l = r["eval"], r["last"]
        print("| %s | %d | %.4f ± %.4f | %.3f ± %.3f | %.3f | %.1f %% | %.2f | %.2f | %.1f |" % (name, l["episode"], *e["win_rate"], *e["reward"], e["kl_rb"][0], 100 * share(e, 16), l.get("vbon/saturation", float("nan")),
              l.get("val/explained_variance", float("nan")), r["iterations"] * sum(r["time/" + k] for k in ("rollout", "reward", "update")) / 60))

try:
    import matplotlib
except ImportError:
    print("imdb_results.py: no figure: matplotlib is not installed", file=sys.stderr)
    sys.exit()
matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "vbon"
import matplotlib.pyplot as plt
colour = {"vbon": "#1b6ca8", "l": "#d1762a", "rl": "#5a8f3c"}
fig, axes = plt.subplots(1, 2, figsize=(10, 4), sharex=True)
ns = [2 ** (i / 8) for i in range(0, 49)]
axes[0].plot([kl_bon(n) for n in ns], [n / (n + 1) for n in ns], "k-", lw=1, label="Best-of-N, by theory (KL at most)")
for key, ax in (("win", axes[0]), ("reward", axes[1])):
    drawn = [(kl_bon(n), runs["bon-%d" % n]["eval"]["win_rate" if key == "win" else "reward"][0]) for n in NS if "bon-%d" % n in runs]
    ax.plot([x for x, _ in drawn], [y for _, y in drawn], "k*", ms=9, label="Best-of-N, drawn")
    for recipe, marker in (("best", "o"), ("paper", "^")):
        for method in METHODS:
            ps = sorted((p for p in points if (p.recipe, p.method) == (recipe, method)), key=lambda p: p.kl)
            own = front(ps, key)
            for p in ps: ax.plot(p.kl, getattr(p, key), marker, color=colour[method], alpha=1 if p in own else 0.35, ms=6)
            ax.plot([p.kl for p in own], [getattr(p, key) for p in own], "-" if recipe == "best" else ":", color=colour[method], lw=1, label="%s, %s" % (method, recipe) if ps else None)
    ax.set_xlabel("KL to the reference (nats)"); ax.set_ylabel("win rate" if key == "win" else "mean reward")
axes[1].legend(fontsize=7, frameon=False)
fig.tight_layout()
fig.savefig(os.path.join(os.path.dirname(path), "front.svg"), metadata={"Date": None})
