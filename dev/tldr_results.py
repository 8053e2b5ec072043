#!/usr/bin/env python3
"""From the lines that dev/tldr_small.sh wrote: dev/results/tldr/tables.md.

    python3 dev/tldr_results.py dev/results/tldr/results.jsonl > dev/results/tldr/tables.md

Each cell is the mean over posts, of SAMPLES responses each, with its standard error over posts. Rewards have mean 0 and
deviation 1 on the SFT model's draws; a response without an end counts -1."""
import statistics as st, sys
from runs import read_lines, read_tldr

MISSING = -1.0
runs = {r["run"]: r for r in read_lines(sys.argv[1])}
evals, N, M, pool_apart = read_tldr(sys.argv[1])
temperatures = sorted({r["temperature"] for r in evals})
METHODS = ("SFT", "RL", "vBoN", "DPO", "BoNBoN", "BoN")

def cell(rows, key):
    if not rows: return ""
    x = [r["eval"].get(key, [None]) for r in rows]
    if x[0][0] is None: return "" # not measured: left out, or null in older lines
    spread = " (%.3f apart)" % (max(a[0] for a in x) - min(a[0] for a in x)) if len(x) > 1 else ""
    return "%.3f ± %.3f%s" % (st.mean(a[0] for a in x), st.mean(a[1] for a in x), spread)

small = "kinds" in runs # its reward models were trained here; otherwise they were given
print("# TL;DR: %s the paper's section 6\n" % ("a rehearsal of" if small else "the experiment of"))
print("Written by `python3 dev/tldr_results.py` from results.jsonl, which `dev/tldr_small.sh` makes.", end=" ")
if small:
    print("**These are not the paper's numbers, nor small\nversions of them**: the policy has a few million "
        "parameters, not 2.8 billion, N is %s, not 100, and **the reward is no human\npreference**: it tells human "
        "summaries from other texts, as the first table says." % N, end=" ")
print("A response without an end counts %g%s.\n" % (MISSING, ", one\ndeviation below the SFT model's draws" if small
    else ""))
print("Settings: `%s`\n" % runs["split"]["settings"])
KINDS = ( # trained on, and what
    ("judged", "yes", "the preferred summary over the other, human or of a model of 1.3 billion parameters (labels)"),
    ("draw", "yes", "a post's human summary over the SFT model's draw for it"),
    ("cut", "yes", "a post's human summary over itself cut short"),
    ("shuffled", "yes", "a post's human summary over itself, its words shuffled"),
    ("other human", "no", "a post's human summary over another post's"),
    ("other model", "no", "the same of the model of 1.3 billion parameters"),
    ("other draw", "no", "the same of the SFT model's draws"))
if small:
    k = runs["kinds"]["models"]
    print("## The reward models\n\nRight on pairs of held-out posts, which neither model saw; the two saw no post in "
        "common:\n\n| pairs | trained on | held out | training reward | judge |\n|---|---|---|---|---|")
    percent = lambda x: "%.1f ± %.1f %%" % (100 * x[0], 100 * x[1])
    for kind, trained, what in KINDS:
        print("| %s: %s | %s | %d | %s | %s |" % (kind, what, trained, k["rm"][kind][2], *(percent(k[m][kind])
            for m in ("rm", "judge"))))
    print("\nOf two of the SFT model's draws for one held-out post the two models prefer the same in %s (%d posts); "
        "their scores\ncorrelate by %.2f within posts. Of the training reward's deviation on draws, %.2f is within "
        "posts and %.2f between posts'\nmeans. Within posts it correlates by %.2f with the text's length.\n"
        % (percent(k["agree"]), k["agree"][2], k["correlation"], k["within"], k["between"], k["length"]))
    for m, what in (("lm", "The language model on reviews"), ("sft", "The SFT model on human summaries of "
        "in-distribution test posts")):
        if m in runs: print("%s: %.3f nats a token.\n" % (what, runs[m]["held_out"]["held_out/nats_per_token"]))
    print("The split: %s.\n" % runs["split"]["said"])
print("## Training on the training reward\n")
if "cache" in runs:
    c = runs["cache"]["rewards"]
    print("On the training prompts the reference's mean reward is %.3f ± %.3f, and Best-of-%s's %.3f ± %.3f (of the "
        "cached draws).\n" % (*c["mean"][:2], N, *c["best"][:2]))
print("| | training reward, first → last iteration | KL to the reference | distance to Best-of-N | log F̂ | "
    "explained variance, last: of returns, of sums of rewards |\n|---|---|---|---|---|---|")
for m in ("rl", "vbon"):
    a, b = runs[m]["first"], runs[m]["last"]
    distance = "%.2f → %.2f" % (a["vbon/distance"], b["vbon/distance"]) if b.get("vbon/distance") is not None else ""
    print("| `%s` | %.3f → %.3f | %.2f | %s | %.2f → %.2f | %.2f, %.2f |"
        % (runs[m]["flags"], a["objective/scores"], b["objective/scores"], b["objective/kl"], distance, a["vbon/logF"],
        b["vbon/logF"], b["val/explained_variance"], b["val/explained_variance_mc"]))
if "dpo" in runs:
    print("\n## Training on the cache alone\n\n| | loss, first → last step | margin h, nats | right | log π of the "
        "chosen | of the rejected |\n|---|---|---|---|---|---|")
    for m in ("dpo", "bonbon"):
        a, b = runs[m]["first"], runs[m]["last"]
        print("| `%s` | %.4g → %.4g | %.2f → %.2f | %.0f %% | %.1f → %.1f | %.1f → %.1f |"
            % (runs[m]["flags"], a["loss"], b["loss"], a["offline/margin"], b["offline/margin"],
            100 * b["rewards/accuracies"],
            a["logps/chosen"], b["logps/chosen"], a["logps/rejected"], b["logps/rejected"]))
HALVES = (("in", "In-distribution (relationships, relationship_advice)"), ("out", "Out of distribution"))
named = lambda m: m if m != "BoN" else "Best-of-" + N
by_rm = [r for r in runs.values() if "by_rm" in r]
if by_rm:
    print("\n## Test posts, by the training reward itself, T = %g\n\nBest-of-N chooses by it among draws of its own.\n"
        % by_rm[0]["temperature"])
    columns = [(half, key, said) for half in ("in", "out") for key, said in (("win_rate", "win rate"), ("reward",
        "reward"), ("kl_rb", "KL"))]
    print("| | %s |\n|---|%s" % (" | ".join("%s, %s" % (half, said) for half, _, said in columns),
        "---|" * len(columns)))
    for m in METHODS:
        rows = {r["half"]: r["by_rm"] for r in by_rm if r["method"] == m}
        value = lambda x: "" if x is None or x[0] is None else "%.3f ± %.3f" % tuple(x)
        if rows: print("| %s | %s |" % (named(m), " | ".join(value(rows[half].get(key)) for half, key, _ in columns)))
print("\n## Over all temperatures and both halves\n\n| | win rate by the judge, mean | least | most | KL, least | "
    "most |\n|---|---|---|---|---|---|")
for m in METHODS:
    here = [r["eval"] for r in evals if r["method"] == m]
    wins, kls = [e["win_rate"][0] for e in here], [e["kl_rb"][0] for e in here if e.get("kl_rb", [None])[0] is not None]
    if here: print("| %s | %.3f | %.3f | %.3f | %s |" % (named(m), sum(wins) / len(wins), min(wins), max(wins),
        "%.2f | %.2f" % (min(kls), max(kls)) if kls else " | "))
for half, what in HALVES:
    here = [r for r in evals if r["half"] == half]
    if not here: continue
    print("\n## %s: %d posts\n" % (what, here[0]["eval"]["prompts"]))
    for key, title in (("win_rate", "Win rate against reference samples of that temperature, by the judge"),
        ("reward", "Mean reward, by the judge"), ("kl_rb", "KL to the reference, nats"),
        ("finished", "Share that ended"), ("length", "Length, tokens")):
        print("%s\n\n| | %s |\n|---|%s" % (title, " | ".join("T = %g" % t for t in temperatures), "---|"
            * len(temperatures)))
        for m in METHODS:
            cells = [cell([r for r in here if r["method"] == m and r["temperature"] == t], key) for t in temperatures]
            if any(cells): print("| %s | %s |" % (named(m), " | ".join(cells)))
        print()
print("## One response each\n\nThe first posts of the split, not chosen by eye; rewards by the training model and the "
    "judge; a response without an end (…) counts %g.\n" % MISSING)
def text(s): return s.replace("<|endoftext|>", "").replace("|", "\\|").replace("\n", "<br>").strip()
for name, r in runs.items():
    if not name.startswith("look-"): continue
    print("### T = %g, %s\n\n> %s\n" % (r["temperature"],
        "in-distribution" if r["half"] == "in" else "out of distribution", text(r["rm"][0]["prompt"])))
    print("| | response | training reward | judge |\n|---|---|---|---|")
    for a, b in zip(r["rm"], r["judge"]):
        value = lambda x: "%.3f" % (x["reward"] if a["finished"] else MISSING)
        print("| %s | %s%s | %s | %s |" % ({"sft": "SFT", "rl": "RL", "vbon": "vBoN", "dpo": "DPO", "bonbon": "BoNBoN",
            "bon": "Best-of-" + N}[a["method"]], text(a["response"]), "" if a["finished"] else " …", value(a),
            value(b)))
    print()
