#!/usr/bin/env python3
"""The paper's thirteen findings, each with a verdict at this size, from committed results alone (plain Python).

    python3 dev/findings.py [--results FILE] [--cpu FILE] [--tldr FILE] [--ks FILE] > dev/results/findings.md

The rules of the verdicts are printed with them. Beside --results and --cpu, alone.jsonl (runs that had the
machine to themselves) is read for what is measured by a clock, if it is there."""
import argparse, json, math, os, random, re, statistics as st, sys
from runs import (NS, KEYS, at_kl, front, kl_bon, kl_slope, mean_se, points_of, read_lines, read_runs, read_tldr, root,
    seconds)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--results", help="default: dev/results/imdb/h200/results.jsonl")
parser.add_argument("--cpu", help="runs of the same models that --results lacks; default, without --results: "
    "dev/results/imdb/results.jsonl")
parser.add_argument("--tldr", default="dev/results/tldr/results.jsonl")
parser.add_argument("--ks", default="dev/results/imdb/ks.json")
args = parser.parse_args()
study = not args.results # of the committed runs; else of models and goals that only their owner knows
if study:
    args.results, args.cpu = "dev/results/imdb/h200/results.jsonl", args.cpu or "dev/results/imdb/results.jsonl"
machines = {"two CPU cores": read_runs(args.cpu)} if args.cpu else {} # and --results'
rs = read_runs(args.results)
machines[next((r["machine"] for r in rs.values() if "machine" in r), "?")] = rs
runs = {name: r for rs in machines.values() for name, r in rs.items()} # a run of both machines: that of --results
points = points_of(runs)
reference = runs["reference"]["eval"]
START = {"win": 0.5, "reward": reference["reference_reward"]}
OFFLINE = ("dpo", "ipo", "bonbon", "bon-sft")
NAMES = {"vbon": "vBoN", "l": "L", "rl": "RL", "dpo": "DPO", "ipo": "IPO", "bonbon": "BoNBoN", "bon-sft": "BoN-SFT",
    "bond": "BOND", "jbond": "J-BOND"}
OURS, PAPERS = "this engine's recipe", "the paper's recipe"

# ----------------------------------------------------------------------------
# verdicts

FOR, AGAINST, FAR, OPEN = "for", "against", "far against", "open"

def side(ahead, behind, s): # by how much a comparison is on the claim's side, or on the other; its standard error
    if ahead >= 2 * s and ahead > 0: return FOR
    return FAR if behind >= 4 * s and behind > 0 else AGAINST if behind >= 2 * s and behind > 0 else OPEN
def more(d, s, least=0): return side(d, least - d, s) # least: an advantage that is worth naming
def within(d, s, most): return side(most - abs(d), abs(d) - most, s)

def verdict(sides):
    if not sides: return "not decided"
    n = {side: sides.count(side) for side in (FOR, AGAINST, FAR, OPEN)}
    against = n[AGAINST] + n[FAR]
    if n[FOR] >= 0.9 * len(sides) and not against: return "holds"
    return "does not" if n[FAR] or against and against >= n[FOR] else "not decided"

summary = [] # (number, claim, verdict)
body = []
def say(text=""): body.append(text)
def table(columns, rows):
    say("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for r in rows: say("| " + " | ".join(r) + " |")
    say()

SAID = {"holds": "holds at this size", "does not": "does not hold at this size", "not decided": "not decided"}
def counts(sides):
    said = ", ".join("%d %s" % (sides.count(x), x) for x in (FOR, AGAINST, FAR, OPEN) if sides.count(x))
    return said or "nothing to compare"

def finding(number, claim, grounds, lacking=()):
    """grounds: {where (a recipe, a machine): [(part of the claim, sides of its comparisons)]}. lacking: (what, command)
    of the runs without which a part has no comparison."""
    verdicts = {}
    for where, parts in (grounds or {"": []}).items():
        v = [verdict(sides) for _, sides in parts] + ["not decided"] * len(lacking)
        verdicts[where] = "holds" if set(v) == {"holds"} else "does not" if "does not" in v else "not decided"
    whole = list(verdicts.values())[0] if len(set(verdicts.values())) == 1 else "not decided"
    summary.append((number, claim, SAID[whole]))
    say("### %s. %s: %s\n" % (number, claim, SAID[whole]))
    for where, parts in grounds.items():
        if where: say("- %s: %s" % (where, SAID[verdicts[where]]))
        for name, sides in parts:
            say("%s- %s: %s (%s)" % ("  " if where else "", name, SAID[verdict(sides)], counts(sides)))
    for what, command in lacking: say("- %s: not run; `%s`" % (what, command))
    say()

def pm(mean, se, digits): return "%+.*f ± %.*f" % (digits, mean, digits, se)
def named(p): return "%s%s%s" % (NAMES.get(p.method, p.method), ", " + p.said if p.said else "",
    ", " + p.variant.replace("lr", "rate ") if p.variant else "")

def some(recipe, method): return [p for p in points if (p.recipe, p.method, p.variant) == (recipe, method, "")]
def offline(method): return [p for p in points if (p.recipe, p.method) == ("offline", method)]

def at_point(curve, key, p): # p's value less the curve's at its KL, and the standard error; None outside of the curve
    y = at_kl(curve, key, p.kl, START[key])
    if y is None: return None
    step = 0.01 * max(root(p.kl), 0.1) # how the curve moves with p's own error in KL
    ahead = at_kl(curve, key, max(root(p.kl) - step, 0) ** 2, START[key])
    slope = (y[0] - ahead[0]) / step if ahead else 0
    return getattr(p, key) - y[0], math.hypot(p.se[key], y[1], slope * kl_slope(p))

# of vBoN and L, of RL (scaled: what makes it fair, where it was run)
RECIPES = [(OURS, "best", "best"), (PAPERS, "paper", "scaled" if some("scaled", "rl") else "paper")]
RECIPES = [r for r in RECIPES if some(r[1], "vbon") and some(r[2], "rl")]
tuned = [p for p in points if p.method != "l"]
if not RECIPES or "bon-%d" % NS[-1] not in runs:
    sys.exit(f"{args.results}: no runs of vBoN and RL by one recipe, or no Best-of-N: dev/imdb_small.sh")

# ----------------------------------------------------------------------------
# sentiment: findings 1 to 8

class Drawn: # a point of Best-of-N itself, at the KL that it has at most
    def __init__(self, n):
        e = runs["bon-%d" % n]["eval"]
        self.kl, self.win, self.reward = kl_bon(n), *(e[k][0] for k in ("win_rate", "reward"))
        self.se = {"win": e["win_rate"][1], "reward": e["reward"][1], "kl": 0}
drawn = [Drawn(n) for n in NS if "bon-%d" % n in runs]

def bon_win(kl): # N/(N+1) of the real N whose KL this is at most
    low, high = 1.0, 2.0
    while kl_bon(high) < kl: high *= 2
    for _ in range(200):
        n = (low + high) / 2
        low, high = (n, high) if kl_bon(n) < kl else (low, n)
    return low / (low + 1)

def finding1():
    sides, nearest = {"win": [], "reward": []}, {}
    for p in tuned:
        slope = (bon_win(p.kl + 1e-4) - bon_win(p.kl)) / 1e-4
        d = bon_win(p.kl) - p.win, math.hypot(p.se["win"], slope * p.se["kl"])
        sides["win"].append(more(*d))
        if "win" not in nearest or d[0] < nearest["win"][1][0]: nearest["win"] = p, d
        d = at_point(drawn, "reward", p)
        if d:
            sides["reward"].append(more(-d[0], d[1]))
            if "reward" not in nearest or -d[0] < nearest["reward"][1][0]: nearest["reward"] = p, (-d[0], d[1])
    finding(1, "Best-of-N is best on both curves", {"": [("win rate at equal KL", sides["win"]),
        ("mean reward at equal KL", sides["reward"])]})
    say("Every fine-tuned point beside Best-of-N at its KL: the win rate by its formulas, N/(N+1) at a KL of "
        "log N − (N−1)/N, the reward on the lines between the drawn ones (none beyond Best-of-%d's KL of %.2f). "
        "Nearest to it: in win rate %s, %s behind; in reward %s, %s." % (NS[-1], kl_bon(NS[-1]),
        *("%s (recipe `%s`)" % (named(p), p.recipe) if i % 2 == 0 else p for i, p in enumerate((nearest["win"][0],
        pm(*nearest["win"][1], 4), nearest["reward"][0], pm(*nearest["reward"][1], 3))))))
    say("In win rate no policy can do much better: that is mathematics. In reward the optimum of RL can; no run came "
        "near it.\n")

def finding2():
    methods = ("bonbon", "rl", "dpo", "vbon")
    papers = {"win": (4, 4, 42, 50), "reward": (7, 33, 10, 50)}
    rng, grounds, rows, draws = random.Random(1), {}, [], 2000
    for name, recipe, of_rl in RECIPES:
        ps = some(recipe, "vbon") + some(of_rl, "rl") + offline("dpo") + offline("bonbon")
        own = [sum(p.method == m for p in ps) for m in methods]
        for key, what in (("win", "win rate"), ("reward", "reward")):
            def on_front(at):
                f = front(at, key)
                return [sum(p.method == m for p in f) for m in methods]
            class Moved:
                def __init__(self, p):
                    self.method, self.kl = p.method, rng.gauss(p.kl, p.se["kl"])
                    setattr(self, key, rng.gauss(getattr(p, key), p.se[key]))
            x, moved = on_front(ps), [on_front([Moved(p) for p in ps]) for _ in range(draws)]
            # strengths that were run are not equally many, so a method is judged by how much of its own is on the front
            part = [[a / b for a, b in zip(m, own)] for m in moved]
            ahead = sum(m[3] > max(m[:3]) for m in part) / draws
            behind = sum(m[3] < max(m[:3]) for m in part) / draws
            grounds.setdefault(name, []).append(("%s: more of its own points on the front than any other in %.0f %% of "
                "%d draws, less than another in %.0f %%" % (what, 100 * ahead, draws, 100 * behind),
                [FOR if ahead >= 0.975 else AGAINST if behind >= 0.975 else OPEN]))
            deviation = [st.stdev(m[i] / sum(m) for m in moved) for i in range(len(methods))]
            rows.append([name, what] + ["%.0f ± %.0f %% (%d); %d of %d" % (100 * x[i] / sum(x), 100 * deviation[i],
                papers[key][i], x[i], own[i]) for i in range(len(methods))])
    finding(2, "vBoN is most often on the Pareto fronts (half of their points in the paper)", grounds)
    say("Shares of the front of these four methods' points; in brackets the paper's share; then how many of the "
        "method's own points are on it. ±: deviation over %d draws, in which every point is moved by its standard "
        "errors.\n" % draws)
    table(("recipe of vBoN and RL", "front", "BoNBoN", "RL (PPO)", "DPO", "vBoN"), rows)

def finding3():
    grounds, rows = {}, []
    for name, _, of_rl in RECIPES:
        sides = {"win": [], "reward": []}
        for p in offline("dpo"):
            d = {key: at_point(some(of_rl, "rl"), key, p) for key in sides}
            if d["win"] is None: continue
            sides["win"].append(more(*d["win"]))
            sides["reward"].append(more(-d["reward"][0], d["reward"][1]))
            rows.append([name, named(p), "%.2f" % p.kl, pm(*d["win"], 4), pm(*d["reward"], 3)])
        grounds[name] = [("DPO's win rate is higher", sides["win"]), ("its reward is lower", sides["reward"])]
    finding(3, "DPO beats RL (PPO) in win rate and loses in reward, at equal KL", grounds)
    table(("recipe of RL", "point", "KL", "win rate less RL's", "reward less RL's"), rows)

def kl_needed(curve, p): # p's KL less that at which the curve has p's win rate, and the standard error; None outside
    xs = sorted([(0.5, 0.0, 0, 0)] + [(q.win, root(q.kl), q.se["win"], kl_slope(q)) for q in curve])
    for (wa, a, sa, ka), (wb, b, sb, kb) in zip(xs, xs[1:]):
        if wa <= p.win <= wb and wb > wa:
            t, slope = (p.win - wa) / (wb - wa), (b - a) / (wb - wa)
            x = a + t * (b - a)
            s = math.hypot(slope * p.se["win"], (1 - t) * math.hypot(slope * sa, ka), t * math.hypot(slope * sb, kb))
            return p.kl - x * x, math.hypot(p.se["kl"], 2 * x * s)
    return None

def finding4():
    grounds, rows = {}, []
    for name, recipe, _ in RECIPES:
        sides = []
        for p in offline("bon-sft"):
            d = kl_needed(some(recipe, "vbon"), p)
            if d is None: continue
            sides.append(more(*d))
            rows.append([name, named(p), "%.4f" % p.win, "%.2f ± %.2f" % (p.kl, p.se["kl"]), pm(*d, 2)])
        grounds[name] = [("more KL than vBoN", sides)]
    finding(4, "Supervised training on Best-of-N (BoN-SFT) has too high a KL: more than vBoN needs for its win rate",
        grounds)
    table(("recipe of vBoN", "point", "win rate", "KL", "KL less vBoN's at that win rate"), rows)

TOLERANCE = {"win": 0.01, "reward": 0.1}
def finding5():
    grounds, rows = {}, []
    for name, recipe, _ in RECIPES:
        pairs = []
        for run in sorted(runs):
            m = re.fullmatch(recipe + r"-vbon-n(\d+)-s(\d+)", run)
            other = m and runs.get("%s-l-n%s-s%s" % (recipe, *m.groups()))
            if other: pairs.append({key: runs[run]["eval"][k][0] - other["eval"][k][0] for key, k in KEYS.items()})
        if len(pairs) < 2: continue
        d = {key: (st.mean(x[key] for x in pairs), st.stdev(x[key] for x in pairs) / math.sqrt(len(pairs)))
            for key in KEYS}
        grounds[name] = [("win rate and reward", [within(*d[key], TOLERANCE[key]) for key in TOLERANCE])]
        rows.append([name, str(len(pairs)), pm(*d["win"], 4), pm(*d["reward"], 3), pm(*d["kl"], 3)])
    finding(5, "The exact objective and its bound L do the same (within %g in win rate and %g in reward)"
        % (TOLERANCE["win"], TOLERANCE["reward"]), grounds)
    say("Exact less L of the same N and seed, mean over the pairs ± its standard error.\n")
    table(("recipe", "pairs", "win rate", "reward", "KL"), rows)

ERROR = 0.1
def finding6():
    try:
        ks = json.load(open(args.ks, encoding="utf-8"))
        at = {r["M"]: r["errors"]["digamma"] for r in ks["table"]}
    except (OSError, ValueError, KeyError) as e:
        sys.exit(f"{args.ks}: not what `vbon ks --out` writes: {e}")
    parts, lacking = [], [("the adversarial prompts", "vbon ks, as in dev/results/imdb/README.md")]
    if 200 in at:
        e, se = at[200]
        parts.append(("mean |log F̂_200 − log F̂_%d| over %d prompts is at most %g" % (ks["samples"], ks["prompts"],
            ERROR), [FOR if e + 2 * se <= ERROR else AGAINST if e - 2 * se > ERROR else OPEN]))
    early = {r["M"]: r["adversarial"] for r in ks["table"] if len(r.get("adversarial", [])) == 2} # 1: of one prompt
    if 100 in early and 200 in at:
        lacking, d = [], (early[100][0] - at[200][0], math.hypot(early[100][1], at[200][1]))
        parts.append(("on the quarter of prompts with the lowest mean rewards it is no more at 100 than on all at "
            "200 (%s)" % pm(*d, 3), [more(-d[0], d[1])]))
    finding(6, "F̂ is stable after 200 samples, after 100 on the adversarial prompt", {"": parts}, lacking)
    table(("M", "mean error of log F̂, nats", "lowest quarter"), [[str(m), "%.3f ± %.3f" % tuple(at[m]),
        "%.3f ± %.3f" % tuple(early[m]) if m in early else ""] for m in sorted(at)])
    say("Where rewards do not repeat, the error of F̂ at a given rank is distributed alike for every prompt: "
        "what differs between prompts is chance. A nat of log F̂ is a nat of the score that is trained on.\n")

alone = {} # machine -> runs that had it to themselves
for path in filter(None, (args.results, args.cpu)):
    path = os.path.join(os.path.dirname(path), "alone.jsonl")
    for r in read_lines(path) if os.path.exists(path) else ():
        alone.setdefault(r.get("machine", "two CPU cores") + ", alone", {})[r["run"]] = r
def clocked(): # machine -> runs: those that were alone on it, or all of them
    if alone: return alone
    return {machine + ", beside other runs": rs for machine, rs in machines.items()}
ALONE = [] if alone else [("with the machine to itself", "RESULTS=dev/results/imdb/alone.jsonl OUT=runs/alone "
    "dev/imdb_small.sh reference bon-16 best-vbon-n16- paper-vbon-n16- best-rl-beta0.8- paper-rl-beta0.8-")]

def finding7():
    grounds, rows = {}, []
    for machine, rs in clocked().items():
        for name, recipe, _ in RECIPES:
            of = {m: [seconds(r) for run, r in sorted(rs.items()) if re.match("%s-%s-" % (recipe, m), run)]
                for m in ("vbon", "rl")}
            if min(map(len, of.values())) < 2: continue
            mean = {m: (st.mean(x), st.stdev(x) / math.sqrt(len(x))) for m, x in of.items()}
            ratio = mean["vbon"][0] / mean["rl"][0]
            s = ratio * math.hypot(*(a[1] / a[0] for a in mean.values()))
            grounds.setdefault(machine, []).append((name, [within(ratio - 1, s, 0.1)]))
            rows.append([machine, name] + ["%.3f ± %.3f (%d runs)" % (*mean[m], len(of[m])) for m in ("vbon", "rl")]
                + ["%.3f ± %.3f" % (ratio, s)])
    finding(7, "An iteration of vBoN costs what one of RL does (within 10 %)", grounds, ALONE)
    say("Seconds of an iteration (a run's median), mean over runs ± standard error.\n")
    table(("machine", "recipe", "vBoN", "RL", "vBoN / RL"), rows)

def finding8():
    sweep = {}
    for name, r in runs.items():
        m = re.fullmatch(r"m-(\d+)-s\d+", name)
        if m: sweep.setdefault(int(m[1]), []).append(r["eval"])
    at = {m: {key: mean_se([e[KEYS[key]] for e in es]) for key in ("win", "reward")} for m, es in sweep.items()}
    less = lambda a, b, key: (at[a][key][0] - at[b][key][0], math.hypot(at[a][key][1], at[b][key][1]))
    claim = "Reward and win rate grow with M, and M = 32 is competitive (within %g of 200's win rate)" % 0.02
    if {8, 32, 200} <= set(at):
        finding(8, claim, {"": [("M = 200 is ahead of M = 8 (against it: by less than %(win)g in win rate, %(reward)g "
            "in reward)" % TOLERANCE, [more(*less(200, 8, key), TOLERANCE[key]) for key in TOLERANCE]),
            ("M = 32 is competitive", [within(*less(32, 200, "win"), 0.02)])]})
        table(("M", "seeds", "win rate", "reward"), [[str(m), str(len(sweep[m])), "%.4f ± %.4f" % at[m]["win"],
            "%.3f ± %.3f" % at[m]["reward"]] for m in sorted(at)])
        return
    a, b = (runs.get(x, {}).get("eval") for x in ("change-m-32", "best-vbon-n16-s1"))
    parts = []
    if a and b:
        d = a["win_rate"][0] - b["win_rate"][0], math.hypot(a["win_rate"][1], b["win_rate"][1])
        parts = [("M = 32 is competitive: %s beside M = 200 (N = 16, one seed)" % pm(*d, 4), [within(*d, 0.02)])]
    finding(8, claim, {"": parts}, [("growth with M",
        'MS="8 16 32 64 100 200" SEEDS="1 2 3" RESULTS=%s dev/imdb_small.sh' % args.results)])

# ----------------------------------------------------------------------------
# TL;DR: findings 9 to 12

evals, best_n, _, pool_apart = read_tldr(args.tldr)
temperatures = sorted({r["temperature"] for r in evals})
halves = {"in": "in-distribution", "out": "out of distribution"}
present = [m for m in ("SFT", "RL", "vBoN", "DPO", "BoNBoN", "BoN") if any(r["method"] == m for r in evals)]
WIDE = 0.05
tldr_lacking = [("%s's runs" % m, "dev/tldr_small.sh DATA=DIR") for m in ("DPO", "BoNBoN") if m not in present]

def at(method, half, t, key):
    x = [r["eval"][key] for r in evals if (r["method"], r["half"], r["temperature"]) == (method, half, t)]
    return mean_se(x) if x else None
def less(a, b): return a[0] - b[0], math.hypot(a[1], b[1])

def finding9():
    cells = [(at(m, "in", t, "win_rate"), at(m, "out", t, "win_rate")) for m in present for t in temperatures]
    equal = [within(*less(a, b), WIDE) for a, b in cells if a and b]
    best = []
    for h in halves:
        for t in temperatures:
            others = [at(m, h, t, "win_rate") for m in present if m != "BoN" and at(m, h, t, "win_rate")]
            if others and at("BoN", h, t, "win_rate"):
                best.append(more(*less(at("BoN", h, t, "win_rate"), max(others))))
    finding(9, "TL;DR: every method is about equal in- and out-of-distribution (win rates within %g), and Best-of-N is "
        "best at every temperature" % WIDE, {"": [("equal in both halves", equal), ("Best-of-%s is best" % best_n,
        best)]})
    table(("win rate", *("%s, T = %g" % (h, t) for h in halves for t in temperatures)),
        [[m if m != "BoN" else "Best-of-" + best_n] + ["%.3f ± %.3f" % x if (x := at(m, h, t, "win_rate")) else ""
            for h in halves for t in temperatures] for m in present])
    if not pool_apart: say("Best-of-N's draws are among the samples they are compared with, which flatters it.\n")

def finding10():
    parts = []
    for m in ("DPO", "BoNBoN"):
        sides = []
        for h in halves:
            low = [x for t in temperatures if t <= 0.5 and (x := at(m, h, t, "win_rate"))]
            high = [x for t in temperatures if t >= 0.75 and (x := at(m, h, t, "win_rate"))]
            if low and high: # the same posts at each temperature: their error does not average out
                d, s = less(*((st.mean(a[0] for a in x), st.mean(a[1] for a in x)) for x in (low, high)))
                sides.append(FOR if d >= 0.1 and d >= 2 * s else AGAINST if d + 2 * s < 0.1 else OPEN)
        if sides: parts.append((m, sides))
    finding(10, "TL;DR: DPO and BoNBoN collapse at T ≥ .75 (lose .1 of win rate against T ≤ .5)", {"": parts},
        tldr_lacking)

def finding11():
    low, high, rows = [], [], []
    for h in halves:
        for t in temperatures:
            if at("vBoN", h, t, "win_rate") and at("RL", h, t, "win_rate"):
                d = less(at("vBoN", h, t, "win_rate"), at("RL", h, t, "win_rate"))
                if t <= 0.5: low.append(more(*d))
                else: high.append(within(*d, WIDE))
                rows.append([halves[h], "%g" % t, pm(*d, 3)])
    finding(11, "TL;DR: vBoN beats RL at T ≤ .5 and equals it above (within %g of its win rate)" % WIDE,
        {"": [("ahead at T ≤ .5", low), ("equal above", high)]})
    table(("half", "T", "vBoN's win rate less RL's"), rows)

def finding12():
    sides, rows = [], []
    for h in halves:
        for m in present:
            a, b = at(m, h, temperatures[-1], "reward"), at(m, h, temperatures[0], "reward")
            if a and b:
                d = less(a, b)
                sides.append(more(-d[0], d[1]))
                rows.append([halves[h], m if m != "BoN" else "Best-of-" + best_n, pm(*d, 3)])
    finding(12, "TL;DR: the reward falls with the temperature", {"": [("T = %g against T = %g" % (temperatures[-1],
        temperatures[0]), sides)]}, tldr_lacking)
    say("Here a response without an end counts −1, and at T = %g many do not end (repetitions).\n" % temperatures[0])
    table(("half", "method", "judge's mean reward at T = %g less that at T = %g" % (temperatures[-1],
        temperatures[0])), rows)

def finding13():
    grounds, rows = {}, []
    rate = lambda r: r["eval"].get("time/tokens_per_second")
    for machine, rs in clocked().items():
        vbon = [rate(r) for run, r in rs.items() if re.match(r"(best|paper)-vbon-", run) and rate(r)]
        if "reference" not in rs or not rate(rs["reference"]) or len(vbon) < 2: continue
        mean, s = st.mean(vbon), st.stdev(vbon) / math.sqrt(len(vbon))
        ratio, bon = mean / rate(rs["reference"]), []
        for n in NS:
            b = rs.get("bon-%d" % n)
            if n == 2 or not b or not rate(b): continue
            bon.append(within(mean / rate(b) / n - 1, s / rate(b) / n, 0.25))
            rows.append([machine, "%.0f" % rate(rs["reference"]), "%.0f ± %.0f" % (mean, s), str(n), "%.0f" % rate(b),
                "%.1f" % (mean / rate(b))])
        # beside other work a clock tells of the other work: no comparison then
        if alone: grounds[machine] = [("vBoN's sample costs a reference sample (within 25 %)", [within(ratio - 1,
            s / rate(rs["reference"]), 0.25)]), ("N times less than Best-of-N's (within 25 %)", bon)]
    finding(13, "One vBoN sample costs what a reference sample costs, N times less than Best-of-N", grounds, ALONE)
    say("Delivered tokens a second, rewards included, of the evaluations. A policy has the reference's shape, so a "
        "token costs the same by construction.%s\n" % ("" if alone else " These were measured beside other work."))
    table(("machine", "reference", "vBoN", "N", "Best-of-N", "times less"), rows)

# ----------------------------------------------------------------------------
# ours

GOALS = {2: 40, 4: 20, 16: 8} if study else {}
def ours():
    say("## What they say of this engine's own\n")
    rows, sides = [], []
    for n in NS:
        a, b = ([p for p in some(r, "vbon") if p.strength == str(n)] for r in ("best", "paper"))
        if not a or not b: continue
        a, b = a[0], b[0]
        d = b.shares[n] - a.shares[n], math.hypot(a.share_se(n), b.share_se(n))
        sides.append(more(*d))
        rows.append([str(n)] + ["%.1f ± %.1f %%" % (100 * p.shares[n], 100 * p.share_se(n)) for p in (a, b)] + ["%.3f"
            % p.kl for p in (a, b)] + ["≤ %.3f" % kl_bon(n), "%.4f" % a.win, "%.4f" % b.win, "%.4f" % (n / (n + 1))])
    say("**This engine's recipe comes nearer to Best-of-N than the paper's, at equal episodes**: %s (%s).\n" % (SAID[
        verdict(sides)], counts(sides)))
    table(("N", "distance left, " + OURS, "the paper's", "KL", "the paper's", "Best-of-N's", "win rate", "the paper's",
        "Best-of-N's"), rows)
    nearest = {} # the recipe of least distance to each N that it aims at
    for p in tuned:
        n = int(p.strength) if p.said.startswith("N") else 0
        if n in NS and len(p.rs) > 1 and (n not in nearest or p.shares[n] < nearest[n].shares[n]): nearest[n] = p
    say("**The nearest to each Best-of-N**, of all recipes with two seeds or more (the best of several: chance "
        "flatters it), and what was aimed at on these prompts:\n")
    rows = []
    for n, p in sorted(nearest.items()):
        x, s = 100 * p.shares[n], 100 * p.share_se(n)
        reached = {FOR: "reached", OPEN: "open"}.get(more(GOALS[n] - x, s), "not reached") if n in GOALS else ""
        rows.append([str(n), "`%s`, %s" % (p.recipe, named(p)), str(len(p.rs)), "%.1f ± %.1f %%" % (x, s),
            "%d %%" % GOALS[n] if n in GOALS else "", reached])
    table(("N", "recipe", "seeds", "distance left", "aimed at", ""), rows)
    nearer = sorted((p for p in points if p.recipe == "nearer"),
        key=lambda p: (int(p.strength), -p.shares[int(p.strength)]))
    if nearer:
        say("**Longer, with all actions, and with more blocks** (recipe `fitted`; 1x is 12,800 episodes; the "
            "seeds' mean):\n")
        table(("N", "how", "episodes", "seeds", "distance left", "win rate", "KL"), [[p.strength, p.method.replace("-",
            " "), p.variant, str(len(p.rs)), "%.1f ± %.1f %%" % (100 * p.shares[int(p.strength)],
            100 * p.share_se(int(p.strength))), "%.4f ± %.4f" % (p.win, p.se["win"]), "%.3f" % p.kl] for p in nearer])
    rows, sides = [], {"win": [], "reward": []}
    for p in some("best", "vbon"):
        d = {key: at_point(some("best", "rl"), key, p) for key in sides}
        if d["win"] is None: continue
        for key in sides: sides[key].append(more(*d[key]))
        rows.append([named(p), "%.3f" % p.kl, pm(*d["win"], 4), pm(*d["reward"], 3)])
    say("**vBoN against RL at equal KL, both by this engine's recipe**: ahead in win rate: %s (%s); in reward: %s "
        "(%s). RL climbs the reward itself, so the latter is its own ground.\n" % (SAID[verdict(sides["win"])],
        counts(sides["win"]), SAID[verdict(sides["reward"])], counts(sides["reward"])))
    table(("point", "KL", "win rate less RL's", "reward less RL's"), rows)
    rest = [p for p in tuned if (p.recipe not in ("paper", "scaled", "nearer") and p.method not in ("vbon", "rl", "dpo",
        "bonbon", "bon-sft")) or (p.method == "vbon" and p.variant)]
    if rest:
        say("**Other methods and variants**, beside vBoN's curve (%s) at their KL; distances left to "
            "Best-of-16:\n" % OURS)
        rows = []
        for p in sorted(rest, key=lambda p: (p.method, p.kl)):
            d = {key: at_point(some("best", "vbon"), key, p) for key in ("win", "reward")}
            rows.append([named(p), "%.3f" % p.kl, *(pm(*d[key], k) if d[key] else "beyond it" for key, k in (("win", 4),
                ("reward", 3))), "%.1f ± %.1f %%" % (100 * p.shares[16], 100 * p.share_se(16))])
        table(("point", "KL", "win rate less vBoN's", "reward less vBoN's", "to Best-of-16"), rows)
    drift = max((p for p in tuned if p.recipe == "offline" and p.shares[16] > 0.9), key=lambda p: p.win, default=None)
    if drift: say("**A win rate alone rewards drift**: %s wins %.3f and is at %.0f ± %.0f %% of the reference's "
        "distance to Best-of-16.\n" % (named(drift), drift.win, 100 * drift.shares[16], 100 * drift.share_se(16)))

for f in (finding1, finding2, finding3, finding4, finding5, finding6, finding7, finding8, finding9, finding10,
    finding11, finding12, finding13, ours): f()

print("# The paper's thirteen findings, at this size\n")
posts = sum(next((r["eval"]["prompts"] for r in evals if r["half"] == h), 0) for h in halves)
print("Written by `python3 dev/findings.py` from %s (TL;DR, findings 9 to 12: %s; finding 6: %s%s). Movie reviews: "
    "%s%d test prompts × %d responses, distances and KL in nats. TL;DR: %sN = %s, %d posts. %s verdict says what "
    "happens here.\n" % (args.results + (" and, for runs that it lacks, " + args.cpu if args.cpu else ""), args.tldr,
    args.ks, "; findings 7 and 13: alone.jsonl beside them" if alone else "", "a language model of a few million "
    "parameters, " * study, reference["prompts"], reference["samples"], "models of a few million parameters, " * study,
    best_n, posts, "These are not the paper's models: a" if study else "A"))
print("""**How a verdict falls.** ± is a standard error: over prompts, and over seeds where there are several (all runs
share their prompts, so errors of differences are rather too large). A comparison is *for* a claim when it lies on its
side by two standard errors, *against* it when it lies on the other side by two, else *open*. Where a claim says
*equal*, it is for it when |difference| + 2 errors is within the stated tolerance, against it when |difference| − 2
errors is not. A part of a claim *holds* where at least nine in ten comparisons are for it and none is against; it *does
not* where some are against, and at least as many as are for it, or where one is *far against* it, by four errors, which
chance does to none of so many; else it is *not decided*. (What is measured by a clock rests on means of two runs.) A
claim holds when all of its parts do, and does not when one of them does not. Where it can be tested on several grounds
(two recipes), it has a verdict only if they agree. "%s" is `--preset best`; "%s" is `--preset sentiment` at a rate
for this size, its RL on rewards %s. The tables behind all of this
stand beside the files named above.
""" % (OURS, PAPERS, "divided by their deviation" if some("scaled", "rl") else "as they are"))
print("| | the paper's finding | here |\n|---|---|---|")
for number, claim, v in summary: print("| %d | %s | **%s** |" % (number, claim, v))
print()
print("\n".join(body).rstrip("\n"))
