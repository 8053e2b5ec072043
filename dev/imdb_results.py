#!/usr/bin/env python3
"""From dev/results/imdb/results.jsonl: the tables of dev/results/imdb/tables.md. dev/results/imdb/h200 has the same
runs, and more of them, made on an H200. Pictures of both: dev/plot.py; what they say of the paper: dev/findings.py.

    python3 dev/imdb_results.py [RESULTS [CACHE_TEST]] > dev/results/imdb/tables.md

Runs of one recipe, objective and strength are averaged over their seeds; +- is the standard error over prompts of one
run, and where there are several seeds the spread between them is printed beside it. A share is the distance to
Best-of-N over the reference's, (N-1) - log N. With CACHE_TEST (a reward cache of the test prompts, as `vbon cache` or
`vbon compact` wrote it) it also says, without any training, what each objective aims at."""
import gzip, json, math, os, random, re, statistics as st, sys
from runs import NS, Point, at_kl, front, kl_bon, of_reference, read_lines, read_runs, seconds, share, share_se

path = sys.argv[1] if len(sys.argv) > 1 else "dev/results/imdb/results.jsonl"
runs = read_runs(path)
machines = sorted({r["machine"] for r in runs.values() if "machine" in r})
METHODS = ("vbon", "l", "rl")
OFFLINE = ("dpo", "ipo", "bonbon", "bon-sft")
DRAWN = ("bond", "jbond")

points = {}
for name, r in runs.items():
    m = re.fullmatch(r"(best|fitted|paper|scaled|offline)-(%s)-(n|beta)([\d.]+)-s\d+" % "|".join(METHODS + OFFLINE),
        name)
    if m: points.setdefault(m.groups(), []).append(r)
    m = re.fullmatch(r"(%s)-(n|anchor-rate)([\d.]+)(?:-lr(.+))?-s\d+" % "|".join(DRAWN), name)
    if m: points.setdefault(("drawn at %s" % (m[4] or "the preset's rate"), *m.groups()[:3]), []).append(r)
points = [Point(*k, rs) for k, rs in points.items()]
def some(recipe, method):
    return sorted((p for p in points if (p.recipe, p.method) == (recipe, method)), key=lambda p: p.kl)
def table(*columns): print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
def row(*cells): print("| " + " | ".join(cells) + " |")

# on the lines between the points over the root of KL, from the reference on; None beyond the last
def curve_at(ps, key, kl):
    y = at_kl(ps, key, kl, {"win": 0.5, "reward": runs["reference"]["eval"]["reference_reward"]}[key])
    return y and y[0]

reference = runs["reference"]["eval"]
print("# vBoN, L, RL and what learns offline on movie reviews\n")
print("Written by `python3 dev/imdb_results.py` from results.jsonl, which `dev/imdb_small.sh` makes. Reference and "
    "reward model: dev/models/imdb, unless it was given others. Evaluation: %d test prompts × %d responses of 40 "
    "tokens, seed 1,\n"
    "against each prompt's own reference samples (600). KL (Rao-Blackwellised) and distances in nats; ± standard "
    "error over prompts, and how far the seeds lie apart. Distances to Best-of-N are shares\n"
    "of the reference's distance, (N−1) − log N; what measures them is unbiased where F ≫ 1/600, as under every "
    "policy here, and (N−1)/601 nats too small in the reference's own row.\n"
    "`best` is this engine's recipe, `fitted` the same at a rate that follows N. "
    "`paper` is the paper's recipe at ten times its rate, falling, with a clipped gradient; `scaled` the same on "
    "rewards divided by their standard deviation, as is β: the same optimum (the β here is the one before;\n"
    "%s).\n"
    % (reference["prompts"], reference["samples"],
       f"all on {machines[0]}, several runs side by side, so that seconds are not a run's own" if len(machines) == 1
       else "one thread beside other work: its seconds are not comparable"))
table("", "N or β", "reward", "win rate", "KL", *("to BoN-%d" % n for n in NS), "s an iteration, or a step")
row("reference", "", "%.3f ± %.3f" % tuple(reference["reward"]), "%.4f ± %.4f" % tuple(reference["win_rate"]), "0",
    *("%.0f ± %.0f %%" % (100 * share(reference, n), 100 * share_se(reference, n)) for n in NS), "")
for n in NS:
    b = runs.get("bon-%d" % n)
    if b:
        row("Best-of-N, drawn", str(n), "%.3f ± %.3f" % tuple(b["eval"]["reward"]),
            "%.4f ± %.4f (theory %.4f)" % (*b["eval"]["win_rate"], n / (n + 1)), "≤ %.3f" % kl_bon(n),
            *("0 by definition" if k == n else "" for k in NS), "")
for recipe, methods in (("best", METHODS), ("paper", METHODS), ("scaled", METHODS), ("offline", OFFLINE)):
    for method in methods:
        for p in some(recipe, method):
            row("%s, %s (%d seed%s)" % (method, recipe, len(p.rs), "s"[:len(p.rs) - 1]), p.said, p.cell("reward", 3),
                p.cell("win_rate", 4), p.cell("kl_rb", 3),
                *("%.1f ± %.1f %%" % (100 * p.shares[n], 100 * share_se(p.rs[0]["eval"], n)) for n in NS), "%.2f"
                % st.mean(map(seconds, p.rs)))

if any("m" not in r["eval"] for r in runs.values()):
    print("\nIn results.jsonl the distances of lines without `m` are (N−1)/(M+1) too large, for they were measured "
        "by training's log F̂: the tables have them corrected.")
print("\n## vBoN against RL at equal KL\n\nEach point beside the other method's curve at its KL (straight lines "
    "between its points over √KL, from the reference on; beyond its last point: none).\n"
    "Over √KL the curves are nearly straight; a concave one still lies above its straight lines: each difference "
    "flatters the point it is said of a little.\n")
if some("paper", "rl"):
    print("RL by the recipe `paper` is no fair other: its returns are in units of the reward, not in nats, its value "
        "loss grows with their square, and head and policy share a trunk and a\n"
        "clipped gradient. %s\n"
        % ("`scaled` mends it." if some("scaled", "rl") else "The runs that mend it, `scaled`, were not run."))
table("recipe", "point", "KL", "win rate", "the other's", "difference", "reward", "the other's", "difference")
for recipe, of_other in (("best", "best"), ("paper", "paper"), ("paper", "scaled"), ("scaled", "paper")):
    for method, other in (("vbon", "rl"), ("rl", "vbon")):
        for p in some(recipe, method) if some(of_other, other) else []:
            cells = []
            for key, digits in (("win", 4), ("reward", 3)):
                x, y = getattr(p, key), curve_at(some(of_other, other), key, p.kl)
                cells += ["%.*f" % (digits, x)]
                cells += (["%.*f" % (digits, y), "%+.*f" % (digits, x - y)] if y is not None else ["none", ""])
            row(recipe + (" beside " + of_other) * (recipe != of_other), "%s, %s" % (method, p.said), "%.3f" % p.kl,
                *cells)

if any(p.recipe == "offline" for p in points):
    beside = "best" if some("best", "vbon") else "paper"
    print("\n## What learns from the cache alone, at equal KL\n\nBeside the curves of vbon and rl with the recipe "
        "`%s`, as above. Minutes: of the updates.\n" % beside)
    table("point", "KL", "win rate", "vbon's", "rl's", "reward", "vbon's", "rl's", "comparisons", "minutes")
    for method in OFFLINE:
        for p in some("offline", method):
            cells = []
            for key, digits in (("win", 4), ("reward", 3)):
                curves = [curve_at(some(beside, other), key, p.kl) for other in ("vbon", "rl")]
                cells += ["%.*f" % (digits, getattr(p, key))] + ["none" if y is None else "%.*f" % (digits, y)
                    for y in curves]
            row("%s, %s" % (method, p.said), "%.3f" % p.kl, *cells, "%d" % p.rs[0]["last"]["comparisons"],
                "%.1f" % (p.rs[0]["iterations"] * seconds(p.rs[0]) / 60))

drawn = sorted((p for p in points if p.method in DRAWN), key=lambda p: (p.method, float(p.strength), p.recipe))
if drawn:
    beside = "best" if some("best", "vbon") else "paper"
    print("\n## BOND and J-BOND, which draw beside the policy\n\nBeside the curve of vbon with the recipe `%s`, as "
        "above; that draws one response an episode and has its cache from before. Draws: responses an episode, the "
        "policy's own included.\nJ-BOND has no N: which Best-of-N it is near depends on when it stops.\n" % beside)
    table("point", "seeds", "KL", "win rate", "vbon's", "reward", "vbon's", *("to BoN-%d" % n for n in NS), "draws",
        "minutes")
    for p in drawn:
        cells = []
        for key, digits in (("win", 4), ("reward", 3)):
            y = curve_at(some(beside, "vbon"), key, p.kl)
            cells += ["%.*f" % (digits, getattr(p, key)), "none" if y is None else "%.*f" % (digits, y)]
        draws = 3 if p.method == "jbond" else 1 + max(16, int(p.strength))
        row("%s, %s, %s" % (p.method, p.said, p.recipe), str(len(p.rs)), "%.3f" % p.kl, *cells,
            *("%.1f ± %.1f %%" % (100 * p.shares[n], 100 * share_se(p.rs[0]["eval"], n)) for n in NS), str(draws),
            "%.1f" % (p.rs[0]["iterations"] * seconds(p.rs[0]) / 60))

rated = [(re.fullmatch(r"((?:offline|paper|scaled)-.+)-lr(.+)-s(\d+)", name), r) for name, r in sorted(runs.items())]
rated = [(m, r) for m, r in rated if m]
if rated:
    print("\n## What learns from the cache alone, and the paper's recipe, at other rates\n")
    table("method and strength", "rate", "seed", "win rate", "reward", "KL", "left to Best-of-16")
    for m, r in rated:
        e = r["eval"]
        row(*m.groups(), "%.4f" % e["win_rate"][0], "%.3f" % e["reward"][0], "%.3f" % e["kl_rb"][0],
            "%.1f %%" % (100 * share(e, 16)))

print("\n## Exact against its bound L: vbon minus l of the same N and seed\n")
table("recipe", "N", "seed", "win rate", "reward", "KL", "distance to BoN-N, nats")
for name, r in sorted(runs.items()):
    m = re.fullmatch(r"(best|fitted|paper)-vbon-n(\d+)-s(\d+)", name)
    other = m and runs.get("%s-l-n%s-s%s" % m.groups())
    if other:
        a, b = r["eval"], other["eval"]
        row(*m.groups(), "%+.4f" % (a["win_rate"][0] - b["win_rate"][0]), "%+.3f" % (a["reward"][0] - b["reward"][0]),
            "%+.3f" % (a["kl_rb"][0] - b["kl_rb"][0]),
            "%+.3f" % (a["distance"][m[2]][0] - b["distance"][m[2]][0]) if m[2] in a["distance"] else "not measured")

print("\n## vBoN against Best-of-N at equal N\n")
table("recipe", "N", "win rate", "Best-of-N's", "reward", "Best-of-N's", "share of the way from the reference", "KL",
    "times Best-of-N's", "left of the distance")
for recipe in ("best", "fitted", "paper"):
    for p in sorted(some(recipe, "vbon"), key=lambda p: float(p.strength)):
        n = int(p.strength); b = runs.get("bon-%d" % n)
        if b:
            r0, rn = reference["reference_reward"], b["eval"]["reward"][0]
            row(recipe, p.strength, "%.4f" % p.win, "%.4f" % (n / (n + 1)), "%.3f" % p.reward, "%.3f" % rn,
                "%.0f %%" % (100 * (p.reward - r0) / (rn - r0)), "%.3f" % p.kl, "%.1f" % (p.kl / kl_bon(n)),
                "%.1f %%" % (100 * p.shares[n]) if n in p.shares else "not measured")

print("\n## The Pareto front\n\nOf all fine-tuned points, Best-of-N excluded: a recipe's with those of what learns "
    "offline, and its vbon and rl alone (vbon and l are nearly one method, and halve each other's share).\n")
present = [m for m in METHODS + OFFLINE if any(p.method == m for p in points)]
table("recipe", "front of", "points", *present, "vbon and rl alone: points", "vbon", "rl")
for recipe, of_rl in (("best", "best"), ("fitted", "fitted"), ("paper", "paper"), ("paper", "scaled")):
    if not some(of_rl, "rl"): continue
    ps = [p for p in points
          if p.recipe == ("offline" if p.method in OFFLINE else of_rl if p.method == "rl" else recipe)]
    for key, what in (("win", "win rate"), ("reward", "reward")):
        f, two = front(ps, key), front([p for p in ps if p.method in ("vbon", "rl")], key)
        if two:
            row(recipe + ", rl scaled" * (of_rl == "scaled"), what + " over KL", str(len(f)),
                *("%.0f %%" % (100 * sum(p.method == m for p in f) / len(f)) for m in present), str(len(two)),
                *("%.0f %%" % (100 * sum(p.method == m for p in two) / len(two)) for m in ("vbon", "rl")))

print("\n## What an iteration costs\n\nSeconds, medians over a run, then over runs; the shares of sampling, reward and "
    "updates.\n")
table("recipe", "objective", "runs", "seconds", "rollout", "reward", "update")
for recipe in ("best", "paper"):
    for method in METHODS:
        rs = [r for p in some(recipe, method) for r in p.rs]
        if rs:
            row(recipe, method, str(len(rs)), "%.2f" % st.median(map(seconds, rs)),
                *("%.2f" % st.median(r["time/" + k] for r in rs) for k in ("rollout", "reward", "update")))

sweep = {}
for name, r in runs.items():
    m = re.fullmatch(r"m-(\d+)-s\d+", name)
    if m: sweep.setdefault(int(m[1]), []).append(r)
if sweep:
    print("\n## M at N=10\n")
    table("M", "seeds", "win rate", "reward", "to BoN-16")
    for m in sorted(sweep):
        p = Point("", "vbon", "n", "10", sweep[m])
        row(str(m), str(len(p.rs)), p.cell("win_rate", 4), p.cell("reward", 3), "%.1f %%" % (100 * p.shares[16]))

SAMPLES = re.compile(r"change-(?:(?:learned-)?m-\d+-s\d+|fhat-\w+-m-\d+(?:-s\d+)?|compat-.+)") # a table below
changes = [r for name, r in runs.items() if re.match("change-|control-|nearer-", name) and not SAMPLES.fullmatch(name)]
if changes:
    print("\n## What matters at N=16 (seed 1), controls, and runs towards Best-of-N\n\n"
        "To BoN: of N = 16, or of the n in the name. "
        "Saturation: share of the last rollout above every cached sample. To BoN on training prompts: "
        "the last rollout's, in nats (no error bar: not logged then). "
        "Explained variance: of GAE's returns,\n"
        "which are the more the values themselves the smaller λ is: it compares runs of one λ (.7 but where the name "
        "says otherwise; .95 with the value head and the paper's recipe). Of Monte-Carlo returns: empty where not "
        "logged.\n")
    table("run", "episodes", "win rate", "reward", "KL", "to BoN", "on training prompts", "saturation",
        "explained variance", "of Monte-Carlo returns", "minutes")
    for name in ["best-vbon-n16-s1", "paper-vbon-n16-s1"] + [r["run"] for r in changes]:
        if name not in runs: continue
        r = runs[name]; e, l = r["eval"], r["last"]
        n = int((re.search(r"-n(\d+)-(?:\d+x-)?s", name) or [0, 16])[1])
        value = lambda key: "%.2f" % l[key] if isinstance(l.get(key), (int, float)) else ""
        error = " ± " + value("vbon/distance_se") if value("vbon/distance_se") else ""
        row(name, "%d" % l["episode"], "%.4f ± %.4f" % tuple(e["win_rate"]), "%.3f ± %.3f" % tuple(e["reward"]),
            "%.3f" % e["kl_rb"][0], "%.1f ± %.1f %%" % (100 * share(e, n), 100 * share_se(e, n)),
            value("vbon/distance") + error, value("vbon/saturation"), value("val/explained_variance"),
            value("val/explained_variance_mc"), "%.1f" % (r["iterations"] * seconds(r) / 60))

few = {}
for name, r in runs.items():
    if not SAMPLES.fullmatch(name) and not re.fullmatch(r"change-m-32|best-vbon-n(2|4|16)-s\d+", name): continue
    said = lambda flag, other: (re.findall(r"--%s (\S+)" % flag, r["flags"]) or [other])[-1]
    blended = re.match(r"change-learned-m-(\d+)", name)
    few.setdefault((int(said("n", "")), -int(blended[1] if blended else said("m", 200)), said("fhat", "digamma")
        + ", blended" * bool(blended), said("compat", "")), []).append(r)
if any(SAMPLES.fullmatch(name) for name in runs):
    print("\n## Few cached samples, other estimates of F, and the released code's scales\n\nBy the recipe `best`. "
        "M: cached samples of a training prompt. Blended: with 16 pseudo-samples, which other prompts' first M teach "
        "(dev/fhat_learned.py). ± is of the mean over\nthe seeds: standard error over prompts, and the spread of the "
        "seeds. Saturation: share of the last rollout above every sample.\n")
    table("N", "M", "log F̂", "deviation", "seeds", "win rate", "reward", "KL", "left to Best-of-N",
        "saturation")
    for key in sorted(few, reverse=True):
        n, rs = key[0], few[key]
        if not any(k[0] == n and k[1:] != key[1:] for k in few): continue
        p = Point("", "vbon", "n", str(n), rs)
        row(str(n), str(-key[1]), *key[2:], str(len(rs)), "%.4f ± %.4f" % (p.win, p.se["win"]), "%.3f ± %.3f"
            % (p.reward, p.se["reward"]), "%.3f" % p.kl, "%.1f ± %.1f %%" % (100 * p.shares[n], 100 * p.share_se(n)),
            "%.2f" % st.mean(r["last"]["vbon/saturation"] for r in rs))

here = "dev/results/imdb/results.jsonl"
if machines and os.path.exists(here) and not os.path.samefile(path, here):
    theirs = {r["run"]: r["eval"] for r in read_lines(here)}
    apart = [abs(r["eval"]["win_rate"][0] - theirs[name]["win_rate"][0]) for name, r in runs.items() if name in theirs]
    print("\n## Beside the same runs on a CPU\n\n%d of these runs are also in %s: same seeds and flags, other "
        "rounding. Win rates differ by %.4f on average, at most %.4f." % (len(apart), here, st.mean(apart), max(apart)))

if len(sys.argv) > 2:
    prompts = {}
    for line in (gzip.open if sys.argv[2].endswith(".gz") else open)(sys.argv[2], "rt", encoding="utf-8"):
        r = json.loads(line)
        if "vbon_cache" in r: continue
        if "rewards" in r: prompts[r["prompt"]] = r["rewards"]
        else: prompts.setdefault(r["prompt"], []).append(r["reward"])
    print("\n## What the methods aim at\n\nEach objective maximised perfectly, by weighting the %d cached draws of "
        "each test prompt, no training: where the points above would lie.\n" % max(map(len, prompts.values())))
    table("", "N or β", "KL", "win rate", "reward")
    aims = [("vbon (Best-of-N)", "N = %d" % n, lambda i, x, m, n=n: ((i + 1) / m) ** n - (i / m) ** n) for n in NS]
    aims += [("l", "N = %d" % n, lambda i, x, m, n=n: ((i + 1) / m) ** (n - 1)) for n in NS]
    aims += [("rl", "β = %g" % b, lambda i, x, m, b=b: math.exp(x / b))
        for b in sorted({float(p.strength) for p in points if p.method == "rl"}, reverse=True)]
    for method, strength, weight in aims:
        sums = []
        for rewards in prompts.values():
            x = sorted(rewards)
            w = [weight(i, a - x[-1], len(x)) for i, a in enumerate(x)]
            z = sum(w)
            sums.append((sum(a / z * math.log(a / z * len(x)) for a in w if a > 0),
                sum(a / z * i / (len(x) - 1) for i, a in enumerate(w)), sum(a / z * b for a, b in zip(w, x))))
        row(method, strength, *("%.*f" % (d, st.mean(k)) for d, k in zip((3, 4, 3), zip(*sums))))

# The best that training on a cache of M can do: the policy that maximises the objective with F-hat from M samples is
# the reference weighted by exp((N-1) log F-hat). F of a reference sample is uniform on [0, 1], so M uniform numbers
# stand for a cache: that policy's density over F is a step function, Best-of-N's is N F^(N-1), and the KL between them
# is a sum over the steps.
def finite_cache(m, n, uniform):
    at = [0.0, *sorted(uniform() for _ in range(m)), 1.0]
    # H(M) - H(k) = -log F-hat but for a constant
    harmonic = [sum(1 / i for i in range(k + 1, m + 1)) for k in range(m + 1)]
    w = [math.exp(-(n - 1) * h) for h in harmonic]
    z = sum(a * (y - x) for a, x, y in zip(w, at, at[1:]))
    integral = lambda x: x * math.log(x) - x if x > 0 else 0 # of log F
    return sum(a / z * ((y - x) * math.log(a / z / n) - (n - 1) * (integral(y) - integral(x)))
        for a, x, y in zip(w, at, at[1:]) if a > 0) / of_reference(n)
CACHES = 500
print("\n## What the finite cache alone costs\n\nThe share of the reference's distance that is left when the "
    "objective with F̂ from M cached samples is maximised perfectly: exactly, for each of %d random caches of rewards "
    "that do not repeat; no training.\n" % CACHES)
table("M", *("to BoN-%d" % n for n in NS))
for m in (8, 32, 100, 200):
    left = [[finite_cache(m, n, random.Random(c).random) for c in range(CACHES)] for n in NS]
    row(str(m), *("%.2f ± %.2f %%" % (100 * st.mean(x), 100 * st.stdev(x) / CACHES ** 0.5) for x in left))
