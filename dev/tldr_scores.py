#!/usr/bin/env python3
"""What dev/tldr_small.sh says of its reward models and of its cache: JSON on standard output.

    python3 dev/tldr_scores.py models RM.jsonl JUDGE.jsonl      texts of dev/tldr_data.py, scored by the two
    python3 dev/tldr_scores.py cache CACHE.jsonl N              a reward cache, and the N of Best-of-N

models: by kind of pair, each model's share of pairs whose chosen text scores higher [share, standard error, pairs]; and
of the draws, of several for each post, "agree": the share of pairs of one post's draws of which both models prefer the
same one [mean over posts, standard error, posts], "correlation": of the two models' scores within posts, "within" and
"between": the training reward's standard deviation within posts and of posts' means, "length": the correlation of its
scores with the texts' lengths within posts. cache: the mean reward, and Best-of-N's, each over all ways to choose N of
a prompt's M samples: the i-th smallest of M is the largest of N with probability C(i-1, N-1) / C(M, N)."""
import json, math, statistics as st, sys

def read(path):
    with open(path, encoding="utf-8") as f: return [json.loads(line) for line in f]
def mean_se(x): return [st.mean(x), st.stdev(x) / math.sqrt(len(x)), len(x)]

def models(rm, judge):
    rm, judge = read(rm), read(judge)
    if [x["response"] for x in rm] != [x["response"] for x in judge]: sys.exit("the models scored different texts")
    out = {}
    for name, rows in (("rm", rm), ("judge", judge)):
        rows, right = [x for x in rows if "chosen" in x], {}
        for a, b in zip(rows[::2], rows[1::2]): # the chosen text stands first
            right.setdefault(a["kind"], []).append(float(a["reward"] > b["reward"]))
        out[name] = {kind: mean_se(x) for kind, x in right.items()}
    posts = {}
    for a, b in zip(rm, judge):
        if "chosen" not in a: posts.setdefault(a["prompt"], {})[a["response"]] = (a["reward"], b["reward"])
    posts = [x for x in posts.values() if len(x) > 1]
    agree = []
    for x in posts:
        v = list(x.values())
        agree.append(st.mean((a[0] > b[0]) == (a[1] > b[1]) for i, a in enumerate(v) for b in v[:i]))
    centred = lambda v: [a - st.mean(v) for a in v]
    def within(f): return [a for x in posts for a in centred([f(text, *scores) for text, scores in x.items()])]
    r, j, n = within(lambda t, a, b: a), within(lambda t, a, b: b), within(lambda t, a, b: len(t))
    dot = lambda a, b: sum(x * y for x, y in zip(a, b))
    correlation = lambda a, b: dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))
    out |= {"agree": mean_se(agree), "correlation": correlation(r, j), "length": correlation(r, n),
        "within": math.sqrt(dot(r, r) / (len(r) - len(posts))),
        "between": st.stdev(st.mean(a for a, _ in x.values()) for x in posts)}
    return out

def cache(path, n):
    n, rewards = int(n), {}
    for x in read(path):
        if "text" in x: rewards.setdefault(x["prompt"], []).append(x["reward"])
    best = lambda v: sum(r * math.comb(i, n - 1) for i, r in enumerate(sorted(v))) / math.comb(len(v), n)
    return {"mean": mean_se([st.mean(v) for v in rewards.values()]),
        "best": mean_se([best(v) for v in rewards.values()])}

if len(sys.argv) != 4 or sys.argv[1] not in ("models", "cache"): sys.exit(__doc__)
print(json.dumps((models if sys.argv[1] == "models" else cache)(*sys.argv[2:])))
