#!/usr/bin/env python3
"""Packs a reward cache into one line a prompt, for keeping: rewards, log p (five digits) and order keys in draw order;
texts only on request.

    python3 dev/compact_cache.py cache.jsonl --out cache.jsonl.gz [--texts 6] [--best 2,4,8,16,32,64,128]

--texts K keeps the texts of each prompt's first K samples, --best those of the best and the worst of its first n, for
each n: all that supervised baselines need. They stand in "texts", by draw. Rewards keep nine digits, so ranks and ties
come back exactly. `vbon` reads the result after gunzip."""
import argparse, gzip, json

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("cache")
    ap.add_argument("--out", required=True)
    ap.add_argument("--texts", type=int, default=0)
    ap.add_argument("--best", default="")
    a = ap.parse_args()
    header, prompts = None, {}
    with open(a.cache, encoding="utf-8") as f:
        for line in f:
            r = json.loads(line)
            if "vbon_cache" in r:
                header = r
            else:
                prompts.setdefault(r["prompt"], []).append(r)
    with gzip.GzipFile(a.out, "wb", mtime=0) as z:
        if header:
            z.write((json.dumps(header, separators=(",", ":")) + "\n").encode())
        for prompt, rows in prompts.items():
            rows.sort(key=lambda r: r["draw"])
            assert [r["draw"] for r in rows] == list(range(len(rows))), "a draw of %r is missing" % prompt
            order = lambda i: (rows[i]["reward"], int(rows[i]["key"], 16)) # the total order of App. C
            keep = set(range(min(a.texts, len(rows))))
            for n in (int(x) for x in a.best.split(",") if x):
                if n <= len(rows):
                    keep |= {max(range(n), key=order), min(range(n), key=order)}
            p, w = json.dumps(prompt, ensure_ascii=False), ",".join("%.9g" % r["reward"] for r in rows)
            l, k = ",".join("%.5g" % r["logp"] for r in rows), ",".join('"%s"' % r["key"] for r in rows)
            t = json.dumps({str(i): rows[i]["text"] for i in sorted(keep)}, ensure_ascii=False, separators=(",", ":"))
            z.write(('{"prompt":%s,"rewards":[%s],"logps":[%s],"keys":[%s]%s}\n'
                % (p, w, l, k, ',"texts":' + t if keep else "")).encode())

if __name__ == "__main__":
    main()
