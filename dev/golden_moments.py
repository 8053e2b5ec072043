#!/usr/bin/env python3
"""Writes dev/fixtures/moments.json: the levels of bitsandbytes' dynamic maps, with and without a sign, in which its
8-bit optimisers keep AdamW's moments.

    python3 dev/golden_moments.py     (packages: dev/requirements.txt)"""
import json, os
from bitsandbytes.functional import create_dynamic_map

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures")
maps = {"signed": create_dynamic_map(signed=True), "unsigned": create_dynamic_map(signed=False)}
with open(os.path.join(HERE, "moments.json"), "w") as f:
    json.dump({k: [float("%.8g" % x) for x in m.tolist() if x > 0] for k, m in maps.items()}, f)
    f.write("\n")
