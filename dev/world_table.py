#!/usr/bin/env python3
"""Estimates of F and the released code's deviations in `vbon world`, where the distance to Best-of-N is a sum over 40
strings and not estimated. Plain Python; needs ./vbon.

    python3 dev/world_table.py > dev/results/world.md       a few minutes

For each estimate (--fhat) and M the reference is drawn from M times, DRAWS times over (--seed), and each time the
objective then has an optimum of its own, which vbon prints beside Best-of-N's distribution before it trains: how far it
lies from that is what the estimate costs. The first TRAINED of them are trained as well, at one N."""
import json, math, os, statistics as st, subprocess
from concurrent.futures import ThreadPoolExecutor

DRAWS, TRAINED, NS, TRAINED_N = 100, 4, (2, 4, 16), 4
MS, FHATS = (8, 32, 200), ("digamma", "mc", "add1", "expfit")

def world(*flags):
    said = subprocess.run(["./vbon", "world", "--log-every", "1000", "--threads", "1", *map(str, flags)],
        capture_output=True, text=True, check=True)
    return [json.loads(line) for line in said.stdout.splitlines()]

def aim(*flags): # KL of the objective's own optimum to Best-of-N's distribution, nats: known before any training
    strings = world("--episodes", 1, "--rollout", 1, "--minibatch", 1, *flags)[1]["strings"]
    return sum(y["target"] * math.log(y["target"] / y["pi_bon"]) for y in strings if y["target"] > 0)

def trained(*flags): return world(*flags)[-1]["kl/pi_bon"]

def pm(x, digits=4): return "%.*f ± %.*f" % (digits, st.mean(x), digits, st.stdev(x) / len(x) ** 0.5)
def row(*cells): print("| " + " | ".join(cells) + " |")
def table(*columns): row(*columns); print("|" + "---|" * len(columns))

with ThreadPoolExecutor(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count())) as pool:
    def seeds(f, n, *flags): return list(pool.map(lambda s: f("--seed", s, *flags), range(1, n + 1)))

    before = lambda n: world("--episodes", 1, "--rollout", 1, "--minibatch", 1, "--n", n)[1]["kl/pi_bon"]
    exactly = lambda n: st.mean(seeds(trained, TRAINED, "--n", n))
    print("# Estimates of F, and the released code's deviations, in a world of 40 strings\n")
    print("Written by `python3 dev/world_table.py`. Distances KL(· ‖ π_bon) in nats, exact; ± standard error over "
        "%d draws of the M samples, of what was trained over %d seeds.\n" % (DRAWS, TRAINED))
    print("## Estimates\n\nHow far the optimum lies from Best-of-N when F is estimated from M samples of the reference "
        "(the same for every estimate). Less digamma's: of the same draws. Trained: where 51,200 episodes ended. "
        "From the reference it is %s nats to Best-of-%s, and with the exact F training ends at %s.\n" % tuple(
            ", ".join(map(said, NS)) for said in (lambda n: "%.3f" % before(n), str, lambda n: "%.4f" % exactly(n))))
    table("N", "M", "`--fhat`", "optimum's distance", "less digamma's", "trained, of the first %d" % TRAINED)
    for n in NS:
        for m in MS:
            x = {f: seeds(aim, DRAWS, "--n", n, "--m", m, "--fhat", f) for f in FHATS}
            for f in FHATS:
                less = [a - b for a, b in zip(x[f], x["digamma"])]
                signed = "" if f == "digamma" else "+" * (st.mean(less) >= 0) + pm(less)
                ends = ""
                if n == TRAINED_N:
                    ends = "%.4f (optimum's %.4f)" % (st.mean(seeds(trained, TRAINED, "--n", n, "--m", m, "--fhat", f)),
                        st.mean(x[f][:TRAINED]))
                row(str(n), str(m), "`%s`" % f, pm(x[f]), signed, ends)

    print("\n## What the released code does otherwise\n\nWith the exact F, so that nothing is drawn but training's own "
        "responses. `--compat jointp` has nothing to change here, where a prompt is one token: vbon refuses it. "
        "`--fhat add1` is above.\n")
    table("N", "", "optimum's distance", "trained")
    for n in NS:
        for said in "", "--compat scale", "--score-clip 10", "--score-clip 1":
            flags = ["--n", n, *said.split()]
            row(str(n), "`%s`" % said if said else "none of it", "%.4f" % aim(*flags), pm(seeds(trained, TRAINED,
                *flags)))
