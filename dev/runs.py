"""What dev/imdb_small.sh and dev/tldr_small.sh wrote, read again: lines of results, points with their standard errors,
curves between points and Pareto fronts. For imdb_results.py (tables), findings.py (the paper's findings) and plot.py
(its figures); plain Python, nothing to install."""
import json, math, re, statistics as st, sys

def read_lines(path):
    """The records of a JSONL file, in order. Ends the program in one line where one is no record: a run that was killed
    while it wrote its line leaves half of it."""
    try:
        lines = open(path, encoding="utf-8").read().split("\n")
    except (OSError, UnicodeDecodeError) as e:
        sys.exit(f"{path}: cannot be read: {e}")
    whole, records = lines.pop() == "", []
    if not whole: lines.append("") # what stands after the last newline is torn, even where it happens to parse
    for i, line in enumerate(lines, 1):
        try:
            record = json.loads(line) if line else None
        except ValueError:
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("run"), str):
            sys.exit(f"{path}: line {i} is cut or no record: the script that wrote it drops a torn last line when it "
                "is started again; else take the line out")
        records.append(record)
    return records

def read_runs(path):
    """The evaluated runs of dev/imdb_small.sh by name. Lines from before "m" and "vbon/distance_se" were there measured
    by training's log F-hat, psi(k+1) - psi(M+2), and their distances are (N-1)/(M+1) too large, which is taken off
    here. They are of the caches in dev/models/imdb: 600 samples of a test prompt, and 200 (or --m) of a training
    prompt."""
    runs = {r["run"]: r for r in read_lines(path) if "eval" in r}
    for r in runs.values():
        if "m" not in r["eval"]:
            for n, d in r["eval"]["distance"].items():
                if d[0] is not None: d[0] -= (int(n) - 1) / (600 + 1)
        last = r.get("last", {})
        if last.get("vbon/distance") is not None and "vbon/distance_se" not in last:
            n, m = (re.findall(r"--%s (\d+)" % flag, r["flags"]) for flag in "nm")
            last["vbon/distance"] -= (int(n[-1]) - 1) / (int(m[-1] if m else 200) + 1)
    if "reference" not in runs:
        sys.exit(f"{path}: no line of the reference: dev/imdb_small.sh reference")
    return runs

def read_tldr(path):
    """The evaluations of dev/tldr_small.sh, the N of their Best-of-N, the reference samples of a post, and whether
    SFT's and Best-of-N's draws come from a pool of their own. Without a pool-seed the pool was the reference samples
    themselves. A draw never wins against itself, so it has to be compared with the other M-1 alone; lines without "m"
    divided by M, which is mended here. (Draws that repeat each other, and a policy's responses that are among the
    samples, would need the draws.)"""
    lines = read_lines(path)
    settings = next((r["settings"] for r in lines if r["run"] == "split"), None)
    if settings is None: sys.exit(f"{path}: no line of the split: dev/tldr_small.sh writes it first")
    n, pool_apart = re.search(r" N (\d+)", settings)[1], "pool-seed" in settings
    seeds, samples = (re.search(r" %s ([\d ]+?) temp" % x, settings) for x in ("seeds", "samples"))
    M = int(n) * (int(samples[1]) if samples else len(seeds[1].split()))
    evals = [r for r in lines if "eval" in r]
    for r in evals:
        if r["method"] in ("SFT", "BoN") and not pool_apart and "m" not in r["eval"]:
            r["eval"]["win_rate"] = [x * M / (M - 1) for x in r["eval"]["win_rate"]]
    return evals, n, M, pool_apart

NS = (2, 4, 16, 64) # Best-of-N that distances are measured to
KEYS = {"win": "win_rate", "reward": "reward", "kl": "kl_rb"}

def kl_bon(n): return math.log(n) - (n - 1) / n # at most
def of_reference(n): return n - 1 - math.log(n) # its distance to Best-of-N
def share(e, n): return e["distance"][str(n)][0] / of_reference(n)
def share_se(e, n): return e["distance"][str(n)][1] / of_reference(n)
def seconds(r): return sum(r.get("time/" + k, 0) for k in ("rollout", "reward", "update"))
def root(kl): return math.sqrt(max(kl, 0)) # a policy that never moved has a KL of 0 but for rounding
def kl_slope(p): return p.se["kl"] / (2 * root(p.kl)) if p.kl > 0 else 0 # the error of the root of a point's KL

def mean_se(x): # (mean, standard error over prompts) of each seed: over both
    """The seeds' runs are judged on the same prompts, whose error no number of seeds makes smaller; what training and
    sampling add varies from seed to seed, and their mean has it by its spread over the root of their number."""
    spread = st.stdev(a[0] for a in x) / math.sqrt(len(x)) if len(x) > 1 else 0
    return st.mean(a[0] for a in x), math.hypot(math.sqrt(st.mean(a[1] ** 2 for a in x)), spread)

class Point:
    """One recipe, objective, strength and variant (what its runs' names say else, such as a rate), over its seeds."""
    def __init__(self, recipe, method, flag, strength, rs, variant=""):
        self.recipe, self.method, self.strength, self.variant, self.rs = recipe, method, strength, variant, rs
        self.said = {"n": "N = ", "beta": "β = ", "anchor-rate": "η = ", "": ""}[flag] + strength
        self.se = {}
        for key, name in KEYS.items():
            mean, self.se[key] = mean_se([r["eval"][name] for r in rs])
            setattr(self, key, mean)
        self.shares = {n: st.mean(share(r["eval"], n) for r in rs) for n in NS}
    def share_se(self, n):
        return mean_se([(share(r["eval"], n), share_se(r["eval"], n)) for r in self.rs])[1]
    def cell(self, key, digits):
        x = [r["eval"][key] for r in self.rs]
        spread = " (%.*f apart)" % (digits, max(a[0] for a in x) - min(a[0] for a in x)) if len(x) > 1 else ""
        return "%.*f ± %.*f%s" % (digits, st.mean(a[0] for a in x), digits, x[0][1], spread)

def points_of(runs):
    """[RECIPE-]METHOD[-FLAGSTRENGTH][-VARIANT]-sSEED, any method: by recipe, method, strength and variant."""
    groups = {}
    for name, r in runs.items():
        name = re.fullmatch(r"(?:(best|fitted|paper|scaled|offline|nearer)-)?(.+)-s\d+", name)
        m = name and (re.fullmatch(r"([a-z][a-z-]*?)-(n|beta|anchor-rate)([\d.]+)(?:-(.+))?", name[2])
            or re.fullmatch(r"([a-z]{2,})()()(?:-(.+))?", name[2]))
        if m and m[1] not in ("change", "control"):
            groups.setdefault((name[1] or "", *m.groups(default="")), []).append(r)
    return sorted((Point(*k[:4], rs, k[4]) for k, rs in groups.items()),
        key=lambda p: (p.recipe, p.method, p.variant, float(p.strength or 0)))

def front(ps, key): # no other point has at most its KL and at least its key, and is better in one
    better = lambda q, p: q.kl <= p.kl and getattr(q, key) >= getattr(p, key) and (q.kl < p.kl
        or getattr(q, key) > getattr(p, key))
    return [p for p in ps if not any(better(q, p) for q in ps)]

def at_kl(ps, key, kl, start):
    """(value, standard error) at a KL on the straight lines between the points over the root of KL, from the reference
    (0, start) on, whose error is left out; None beyond the last. The points' own errors in KL count by the slope."""
    xs = sorted([(root(p.kl), getattr(p, key), p.se[key], kl_slope(p))
        for p in ps] + [(0.0, start, 0, 0)])
    for (a, ya, sa, ka), (b, yb, sb, kb) in zip(xs, xs[1:]):
        if a <= root(kl) <= b:
            if b == a: return yb, sb
            w, slope = (root(kl) - a) / (b - a), (yb - ya) / (b - a)
            return ya + (yb - ya) * w, math.hypot((1 - w) * math.hypot(sa, slope * ka), w * math.hypot(sb, slope * kb))
    return None
