#!/usr/bin/env python3
"""Cuts hand-made posts (dev/public_data.py) and compares with dev/fixtures/tldr_cut.jsonl: what Huang et al.'s
published process_query makes of them, a character being a token. A null there: it cannot be cut so short. Run by
dev/check_paper.sh."""
import json, os, sys
DEV = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, DEV)
from public_data import cut

bad = 0
lines = [json.loads(line) for line in open(os.path.join(DEV, "fixtures", "tldr_cut.jsonl"), encoding="utf-8")]
for r in lines:
    text = lambda post: f"SUBREDDIT: r/x\n\nTITLE: t\n\nPOST: {post}\n\nTL;DR:"
    try: got = text(cut(r["post"], lambda post: len(text(post)) <= r["limit"]))
    except SystemExit: got = None
    if got != r["query"]: bad += 1; print(f"{r['post']!r} cut to {r['limit']}: {got!r}, not {r['query']!r}")
sys.exit(f"tldr_cut: {bad} of {len(lines)} posts differ" if bad or len(lines) < 40 else 0)
