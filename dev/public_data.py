#!/usr/bin/env python3
"""Turns the paper's public data, as downloaded, into the JSONL that vbon reads.

    python3 dev/public_data.py imdb aclImdb_v1.tar.gz OUT
        writes OUT/{train,test,unsup}.jsonl
    python3 dev/public_data.py tldr FOLDER OUT [--tokenizer tokenizer.json]
        writes OUT/{train,valid,test,comparisons_train,comparisons_valid}.jsonl
        and OUT/split/{prompts,test_in,test_out,test}.jsonl

IMDB lines are {"id","label","text"} in a seeded order; TL;DR posts {"prompt","response","subreddit"}, comparisons
{"prompt","chosen","rejected","subreddit"}. The split is the experiment's: prompts are the training posts of
relationships and relationship_advice, test_in --test posts of the test set from there, test_out as many from elsewhere,
test both; each in a seeded order, lines {"prompt"}, no post twice. A TL;DR prompt is `SUBREDDIT: r/X`, `TITLE:`,
`POST:`, `TL;DR:` with empty lines between, at most 512 tokens: of posts that are longer the end is cut (cut(); it needs
--tokenizer and the tokenizers package). A response begins with a space. Comparisons of news articles are passed
over."""
import argparse, glob, json, os, random, re, sys, tarfile

HOME = ("relationships", "relationship_advice")

def write(path, records):
    with open(path + ".tmp", "w", encoding="utf-8") as f:
        n = 0
        for r in records: f.write(json.dumps(r, ensure_ascii=False) + "\n"); n += 1
    os.replace(path + ".tmp", path)
    print(f"{path}: {n} lines")

def cut(post, fits):
    """A post of which fits(post) is true, cut as in Stiennon et al. 2020 and in Huang et al. 2024 (process_query): from
    its last newline on, again and again, the newlines before that one kept; where it has none, by one character."""
    while not fits(post):
        if not post: sys.exit("a prompt without its post is too long: raise the limit")
        at = post.rfind("\n")
        post = post[:at] if at >= 0 else post[:-1]
    return post

def imdb(archive, out):
    splits = {"train": [], "test": [], "unsup": []}
    with tarfile.open(archive) as tar:
        for m in tar:
            k = re.fullmatch(r"aclImdb/(train|test)/(pos|neg|unsup)/(\w+)\.txt", m.name)
            if not k: continue
            text = re.sub(r"(<br />)+", "\n", tar.extractfile(m).read().decode("utf-8")).strip()
            r = {"id": "/".join(k.groups()), "text": text}
            if k[2] == "unsup": splits["unsup"].append(r)
            else: splits[k[1]].append({"id": r["id"], "label": int(k[2] == "pos"), "text": text})
    for name, rows in splits.items():
        rows.sort(key=lambda r: r["id"])
        random.Random(1).shuffle(rows)
        write(os.path.join(out, name + ".jsonl"), rows)

def tldr(folder, out, tokenizer, test):
    count = None
    if tokenizer:
        from tokenizers import Tokenizer
        tok = Tokenizer.from_file(tokenizer)
        count = lambda s: len(tok.encode(s).ids)
    def prompt(post):
        text = lambda body: f"SUBREDDIT: r/{post['subreddit']}\n\nTITLE: {post['title']}\n\nPOST: {body}\n\nTL;DR:"
        return text(cut(post["post"], lambda body: not count or count(text(body)) <= 512))
    lines = lambda path: (json.loads(line) for line in open(path, encoding="utf-8"))
    for name in ("train", "valid", "test"):
        write(os.path.join(out, name + ".jsonl"), ({"prompt": prompt(r), "response": " " + r["summary"].strip(),
            "subreddit": r["subreddit"]} for r in lines(os.path.join(folder, name + ".jsonl"))))
    def prompts(name, home): # distinct, in a seeded order
        found = sorted({r["prompt"] for r in lines(os.path.join(out, name + ".jsonl"))
            if (r["subreddit"] in HOME) == home})
        random.Random(1).shuffle(found)
        return [{"prompt": p} for p in found]
    tests = [prompts("test", home)[:test] for home in (True, False)]
    if min(map(len, tests)) < test:
        raise SystemExit(f"{folder}: {len(tests[0])} and {len(tests[1])} test posts inside and outside "
            f"{' and '.join(HOME)}, --test {test} wanted")
    os.makedirs(os.path.join(out, "split"), exist_ok=True)
    for name, rows in (("prompts", prompts("train", True)), ("test_in", tests[0]), ("test_out", tests[1]),
        ("test", tests[0] + tests[1])):
        write(os.path.join(out, "split", name + ".jsonl"), rows)
    def comparisons(split):
        for path in sorted(glob.glob(os.path.join(folder, "batch*.json"))):
            for r in lines(path):
                if not r["info"].get("subreddit") or not r["split"].startswith(split): continue
                a, b = (" " + s["text"].strip() for s in r["summaries"])
                yield {"prompt": prompt(r["info"]), "chosen": (a, b)[r["choice"]], "rejected": (b, a)[r["choice"]],
                    "subreddit": r["info"]["subreddit"]}
    for split in ("train", "valid"): write(os.path.join(out, f"comparisons_{split}.jsonl"), comparisons(split))

if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("what", choices=["imdb", "tldr"])
    ap.add_argument("source")
    ap.add_argument("out")
    ap.add_argument("--tokenizer")
    ap.add_argument("--test", type=int, default=196)
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    imdb(a.source, a.out) if a.what == "imdb" else tldr(a.source, a.out, a.tokenizer, a.test)
