#!/usr/bin/env python3
"""From the lines that dev/tldr_small.sh wrote: dev/results/tldr/tables.md.

    python3 dev/tldr_results.py dev/results/tldr/results.jsonl > dev/results/tldr/tables.md

Each cell is the mean over the sampling seeds with the standard error over prompts of one seed (SFT, Best-of-N: of all
their draws), and in brackets the spread between seeds. Rewards are the judge's; a response without an end counts -1."""
import re, statistics as st, sys
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

small = "lm" in runs # its models were trained here; otherwise they were given
print("# TL;DR: %s the paper's section 6\n" % ("a rehearsal of" if small else "the experiment of"))
print("Written by `python3 dev/tldr_results.py` from results.jsonl, which `dev/tldr_small.sh` makes. %s"
    % ("**These are not the paper's numbers, nor small versions of them**: the policy has a few million parameters, "
    "not 2.8\n"
      "billion, its reward models were trained on 800 preferences, and N is %s, not 100. What the tables show is that "
      "every step of the pipeline runs, and what it gives at this size. A response\n"
      "without an end counts %g, so a policy gains first by ending: look at the last two tables of each half beside "
      "the first two.\n" % (N, MISSING) if small else "A response without an end counts %g.\n" % MISSING))
print("Settings: `%s`\n" % runs["split"]["settings"])
if any("m" not in r["eval"] for r in evals):
    print("results.jsonl holds distances to Best-of-N too, which no table here shows: in lines without `m` "
        "they are (N−1)/(M+1) too large.\n")
if small:
    print("## Models\n\n| | measured on what was held out |\n|---|---|")
    h = {m: runs[m]["held_out"] for m in ("lm", "sft", "rm", "judge")}
    print("| language model, reviews | %.3f nats a token, %.3f bits a byte |"
        % (h["lm"]["held_out/nats_per_token"], h["lm"]["held_out/bits_per_byte"]))
    print("| SFT, human summaries of in-distribution test posts | %.3f nats a token |"
        % h["sft"]["held_out/nats_per_token"])
    for m, what in (("rm", "training reward model (its lower blocks)"), ("judge", "judge (all blocks)")):
        print("| %s, held-out preferences | accuracy %.1f %%, loss %.4f |"
            % (what, 100 * h[m]["held_out/pair_accuracy"], h[m]["held_out/loss"]))
    print("\nThe split: %s.\n" % runs["split"]["said"])
print("## Training on the training reward\n\n| | training reward, first → last iteration | KL to the reference | log "
    "F̂ | explained variance |\n|---|---|---|---|---|")
for m in ("rl", "vbon"):
    a, b = runs[m]["first"], runs[m]["last"]
    print("| `%s` | %.3f → %.3f | %.2f | %.2f → %.2f | %.2f |"
        % (runs[m]["flags"], a["objective/scores"], b["objective/scores"], b["objective/kl"], a["vbon/logF"],
        b["vbon/logF"], b["val/explained_variance"]))
if "dpo" in runs:
    print("\n## Training on the cache alone\n\n| | loss, first → last step | margin h, nats | right | log π of the "
        "chosen | of the rejected |\n|---|---|---|---|---|---|")
    for m in ("dpo", "bonbon"):
        a, b = runs[m]["first"], runs[m]["last"]
        print("| `%s` | %.4g → %.4g | %.2f → %.2f | %.0f %% | %.1f → %.1f | %.1f → %.1f |"
            % (runs[m]["flags"], a["loss"], b["loss"], a["offline/margin"], b["offline/margin"],
            100 * b["rewards/accuracies"],
            a["logps/chosen"], b["logps/chosen"], a["logps/rejected"], b["logps/rejected"]))
for half, what in (("in", "In-distribution (relationships, relationship_advice)"), ("out", "Out of distribution")):
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
            if any(cells): print("| %s | %s |" % (m if m != "BoN" else "Best-of-" + N, " | ".join(cells)))
        print()
if not pool_apart:
    print("SFT and Best-of-N are draws of the reference samples themselves, each compared with the other %d. Of those "
        "Best-of-N has %d that it was preferred to: its win rate is flattered.\n" % (M - 1, int(N) - 1))

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
