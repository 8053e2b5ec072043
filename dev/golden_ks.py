#!/usr/bin/env python3
"""Writes dev/fixtures/ks.json: two-sample Kolmogorov-Smirnov tests by SciPy's ks_2samp(method="exact"), and, for some
statistics, the same p-value by counting all paths in whole numbers, which small p-values are compared with to the last
digits.

    python3 dev/golden_ks.py          (packages: dev/requirements.txt)"""
import json, os, warnings
from fractions import Fraction
from math import comb
import numpy as np
from scipy.stats import ks_2samp

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures")
g = np.random.default_rng(19)

def paths_p(gap, n, m):
    """The share of the paths from (0, 0) to (n, m) that come to an (i, j) with |i m - j n| >= gap."""
    inside = [0] * (m + 1) # paths to (i, j) that did not
    for i in range(n + 1):
        for j in range(m + 1):
            came = (inside[j] if i else 0) + (inside[j - 1] if j else 0) if i or j else 1
            inside[j] = 0 if abs(i * m - j * n) >= gap else came
    return float(1 - Fraction(inside[m], comb(n + m, n)))

def draw(n, shift=0, values=100):
    return [int(x) for x in g.integers(0, values, n) + shift]

def apart(n, m, by):
    """n and m of 0, 1, ..., n + m - 1: the first sample by chance, or with `by` > 0 rather the smaller ones."""
    order = np.argsort(by * np.linspace(0, 1, n + m) + g.random(n + m))
    return [int(x) for x in order[:n]], [int(x) for x in order[n:]]

def test(a, b):
    t = ks_2samp(a, b, method="exact")
    return dict(a=a, b=b, statistic=float(t.statistic), p=float(t.pvalue))

# where SciPy's p-value is beyond 1 by rounding, or too small, it would go on with an approximation
warnings.simplefilter("error")
many = apart(0, 600, 0)[1]
tests = [test([1], [1]), test([1], [2]), test([1, 2, 3], [1, 2, 3]), test([3, 1, 2], [4, 6, 5, 7]),
    test([7] * 5, [7] * 3 + [8] * 3)]
# the last: ties
tests += [test(draw(7), draw(11)), test(draw(12), draw(12, 40)), test(draw(30, values=6), draw(40, 1, values=6))]
tests += [test(many[:5], many), test(many[:5], many[5:]), test(*apart(5, 600, 3))] # Table 1's sizes
tests += [test(many[:250], many), test(many[:250], many[250:]), test(*apart(250, 600, 0.2)),
    test(*apart(250, 600, 0.8))]
paths = [dict(gap=gap, n=n, m=m, p=paths_p(gap, n, m))
         for n, m, gaps in ((1, 1, (0, 1)), (4, 4, (4, 8, 12, 16)), (3, 5, (5, 9, 15)), (5, 600, (1800, 2400, 3000)),
             (250, 600, (15000, 30000, 150000)))
         for gap in gaps]
with open(os.path.join(HERE, "ks.json"), "w") as f:
    json.dump(dict(tests=tests, paths=paths), f, separators=(",", ":"))
    f.write("\n")
