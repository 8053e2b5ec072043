#!/usr/bin/env python3
"""What a learned F-hat would be worth: a network that reads the reference's hidden states at the prompt, trained on
other prompts' caches, says how the prompt's rewards are distributed, and the prompt's own M samples correct it.

    python3 dev/fhat_learned.py MODEL CACHE CACHE_TEST      e.g. dev/models/imdb/lm and its two caches, unpacked
    python3 dev/fhat_learned.py MODEL CACHE --write OUT [--m 8]

Every guess G at the CDF is blended with the k of M samples below as s samples more: F has the posterior
Beta(k + s G + 1, M - k + s (1 - G) + 1), and log F-hat is its mean, psi(k + s G + 1) - psi(M + s + 2); s = 0 is
--fhat digamma. The guesses: `pooled`, the CDF of all other prompts' rewards; `moved`, that of their rewards less their
prompts' means, about this prompt's mean, which is shrunk to the mean of all (empirical Bayes); `learned`, by bins of
equally many rewards, a softmax of the final hidden state of the prompt's last token and the mean of all its tokens';
`learned, moved`, that again moved by the mean of the prompt's samples, shrunk to the prediction's. What they have of
CACHE are the first M samples of each prompt, or all, but for 300 prompts, held out to choose s and when to stop.

Printed: the mean over CACHE_TEST's prompts of |log F-hat_M - log F-hat_all| over draws M and on, as `vbon ks` has it,
and the M at which plain digamma is as good.

--write makes a cache to train on: M samples of a prompt (--m), blended with `learned`. The s samples more are
pseudo-samples, with rewards at the quantiles (i + 1/2) / s of the guess. The engine counts how many of the M + s are
below a response, and its --fhat digamma is then the blend, but for G's being rounded to steps of 1/s. Pseudo-samples
have no text, no ids, and an order key of zeros; they come after the M draws of their prompt, and the header says how
many they are. Nothing is used but the first M samples of any prompt. Prompts are dealt into five parts, and each part's
guess is learned from the others; s is the one by which a sample of a held-out prompt is foretold best from the M - 1
others (squared error of the blended CDF at all bins' edges). What CACHE has beyond M only tells, at the end, how good
the blend is."""
import argparse, json, sys
import numpy as np, torch
from scipy.special import digamma
from transformers import AutoModel, AutoTokenizer

BINS, HIDDEN, HELD_OUT, PARTS = 64, 64, 300, 5
STRENGTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
torch.set_num_threads(1)

def read(path, tokenizer, model):
    states, records = [], []
    for line in open(path, encoding="utf-8"):
        r = json.loads(line)
        if "rewards" not in r: continue
        with torch.no_grad():
            h = model(torch.tensor([tokenizer(r["prompt"])["input_ids"]])).last_hidden_state[0]
        states.append(torch.cat([h[-1], h.mean(0)]))
        records.append(r)
    if not records: sys.exit(f"{path}: no line has the rewards of a prompt: vbon compact writes such caches")
    return torch.stack(states), np.array([r["rewards"] for r in records]), records

def log_f(k, M, s=0, G=0): return digamma(k + s * G + 1) - digamma(M + s + 2)

def error(R, M, s=0, G=0): # mean over prompts, its standard error
    k = np.stack([np.searchsorted(np.sort(r[:M]), r) for r in R])
    every = log_f(R.argsort(1).argsort(1), R.shape[1])
    e = np.abs(log_f(k, M, s, G) - every)[:, M:].mean(1)
    return e.mean(), e.std(ddof=1) / len(e) ** .5

def train(x, counts, fit, stop): # -> bins' log-probabilities of all prompts
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(x.shape[1], HIDDEN), torch.nn.GELU(), torch.nn.Linear(HIDDEN, BINS))
    for p in net[2].parameters(): torch.nn.init.zeros_(p)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1)
    loss = lambda i: -(counts[i] * torch.log_softmax(net(x[i]), 1)).sum(1).mean()
    best = (np.inf, None)
    for epoch in range(40):
        for i in torch.tensor(fit)[torch.randperm(len(fit))].split(128):
            optimizer.zero_grad()
            loss(i).backward()
            optimizer.step()
        with torch.no_grad():
            if loss(stop).item() < best[0]: best = loss(stop).item(), torch.softmax(net(x), 1).numpy()
    return best[1].astype(float)

class Guesses:
    def __init__(self, x, R, m, apart=()): # of all prompts; the first n, of R, are CACHE's, with m samples each,
        order = np.random.default_rng(0).permutation(len(R)) # and learned from but for those apart
        order = order[~np.isin(order, apart)]
        self.stop, fit = order[:HELD_OUT], order[HELD_OUT:]
        self.pool = np.sort(R[fit, :m].ravel())
        edges = np.quantile(self.pool, np.arange(1, BINS) / BINS)
        self.counts = np.stack([np.bincount(np.searchsorted(edges, r[:m]), minlength=BINS) for r in R])
        self.p = train(x, torch.tensor(self.counts / m, dtype=torch.float32), fit, self.stop)
        self.middle = np.array([self.pool[int((b + .5) / BINS * len(self.pool))] for b in range(BINS)])
        self.mean, self.within = self.pool.mean(), R[fit, :m].var(1, ddof=1).mean()
        means = R[:, :m].mean(1)
        self.residual = np.sort((R[fit, :m] - means[fit, None]).ravel()) * (m / (m - 1)) ** .5
        spread = lambda d: max(d.var() - self.within / m, 1e-9) # between prompts
        self.between, self.unexplained = spread(means[fit]), spread(means[self.stop] - self.p[self.stop] @ self.middle)

    def cdf(self, which, R, M, kind):
        shrink = lambda v: v / (v + self.within / M)
        at = lambda s, x: np.searchsorted(s, x) / len(s)
        own = R[:, :M].mean(1)
        if kind == "pooled": return at(self.pool, R)
        if kind == "moved":
            return at(self.residual, R - (self.mean + shrink(self.between) * (own - self.mean))[:, None])
        p = self.p[which]
        if kind == "learned, moved": R = R - (shrink(self.unexplained) * (own - p @ self.middle))[:, None]
        u = at(self.pool, R) * BINS
        b = np.minimum(u.astype(int), BINS - 1)
        below, row = np.concatenate([np.zeros((len(p), 1)), p.cumsum(1)], 1), np.arange(len(p))[:, None]
        return below[row, b] + (u - b) * p[row, b]

    def quantiles(self, which, s): # of `learned`: its CDF is (i + 1/2) / s there
        at = (np.arange(s) + 0.5) / s
        u = np.stack([np.interp(at, np.append(0, p.cumsum() / p.sum()), np.arange(BINS + 1)) for p in self.p[which]])
        return np.interp(u / BINS * len(self.pool), np.arange(len(self.pool)) + 0.5, self.pool)

    def strength(self, m): # the s by which held-out prompts' samples are foretold best, each from the m - 1 others
        c, G = self.counts[self.stop].cumsum(1), self.p[self.stop].cumsum(1)
        score = lambda s: sum( # of a sample in bin b: squared errors of the blend at all bins' edges
            (self.counts[self.stop, b, None] * ((np.arange(BINS) >= b) - (c - (np.arange(BINS) >= b) + s * G + 1)
            / (m + s + 1)) ** 2).sum() for b in range(BINS))
        return min(STRENGTHS, key=score)

def write(x, R, records, header, M, out):
    parts = np.array_split(np.random.default_rng(1).permutation(len(R)), PARTS)
    guesses = [Guesses(x, R[:, :M], M, apart) for apart in parts]
    chosen = [g.strength(M) for g in guesses]
    s = int(np.median(chosen))
    blended = np.concatenate([R, np.zeros((len(R), s))], 1)
    for g, apart in zip(guesses, parts): blended[apart, -s:] = g.quantiles(apart, s)
    header |= {"samples": M + s, "total": (M + s) * len(R), "pseudo_samples": s,
        "pseudo": f"the last {s} rewards of a prompt are guessed from other prompts' samples by dev/fhat_learned.py"}
    with open(out, "w", encoding="utf-8") as f:
        print(json.dumps(header), file=f)
        for r, rewards in zip(records, blended[:, [*range(M), *range(-s, 0)]]):
            ids = {k: v for k, v in r.get("ids", {}).items() if int(k) < M}
            print(json.dumps({"prompt": r["prompt"], "rewards": [float("%.9g" % x) for x in rewards], "ids": ids,
                "keys": r["keys"][:M] + ["0" * 16] * s}), file=f)
    print(f"{out}: {len(R)} prompts of {M} samples and {s} pseudo-samples (by part {chosen})")
    if R.shape[1] > M:
        k = np.stack([np.searchsorted(np.sort(b[[*range(M), *range(-s, 0)]]), r) for b, r in zip(blended, R)])
        every = log_f(R.argsort(1).argsort(1), R.shape[1])
        e = [np.abs(f - every)[:, M:].mean(1) for f in (log_f(k, M + s), log_f(np.stack([np.searchsorted(
            np.sort(r[:M]), r) for r in R]), M))]
        print("|log F-hat - log F-hat of all|: %.4f, of the %d samples alone %.4f" % (e[0].mean(), M, e[1].mean()))

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in "model", "cache": parser.add_argument(name)
    parser.add_argument("cache_test", nargs="?")
    parser.add_argument("--write", metavar="OUT")
    parser.add_argument("--m", type=int, default=8)
    args = parser.parse_args()
    if (args.write is None) == (args.cache_test is None): parser.error("either CACHE_TEST or --write OUT")
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModel.from_pretrained(args.model).float().eval()
    x, R, records = read(args.cache, tokenizer, model)
    if args.write:
        if not 2 <= args.m <= R.shape[1]: parser.error(f"--m: {args.cache} has {R.shape[1]} samples a prompt")
        header = json.loads(open(args.cache, encoding="utf-8").readline())
        if "vbon_cache" not in header or "keys" not in records[0]:
            sys.exit(f"{args.cache}: has no header, or no order keys: vbon compact writes both")
        return write((x - x.mean(0)) / x.std(0), R, records, header, args.m, args.write)
    x_test, T, _ = read(args.cache_test, tokenizer, model)
    x_all = torch.cat([(x - x.mean(0)) / x.std(0), (x_test - x.mean(0)) / x.std(0)])
    grid = sorted({*range(4, 80), *range(80, 300, 4)})
    plain = [error(T, M)[0] for M in grid]
    as_good = lambda e: np.interp(-e, -np.array(plain), grid)
    test = np.arange(len(R), len(R) + len(T))
    print("%4s %6s  %-15s %4s  %-18s %s" % ("M", "others", "guess", "s", "error", "as plain M"))
    for M in (8, 32, 150, 200):
        print("%4d %6s  %-15s %4s  %.4f +- %.4f" % (M, "", "none (digamma)", "", *error(T, M)))
        for m in ((M, 200) if M < 200 else (200,)):
            g = Guesses(x_all, R, m)
            for kind in "pooled", "moved", "learned", "learned, moved":
                tune = min(M, 100) # held-out prompts have 200 samples
                G = g.cdf(g.stop, R[g.stop], tune, kind)
                s = min(STRENGTHS, key=lambda s: error(R[g.stop], tune, s, G)[0])
                e = error(T, M, s, g.cdf(test, T, M, kind))
                print("%4d %6d  %-15s %4d  %.4f +- %.4f   %.0f" % (M, m, kind, s, *e, as_good(e[0])), flush=True)

main()
