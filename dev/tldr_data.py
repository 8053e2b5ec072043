#!/usr/bin/env python3
"""Splits the TL;DR posts by seed and writes what the pipeline reads.

    python3 dev/tldr_data.py POSTS.jsonl.gz --out FOLDER [--tokenizer FOLDER] [--seed 1] [--test 196] [--query 512]
    [--context 576]

POSTS holds lines {"prompt","reference","policy","subreddit","preferred"?}. Of the posts without a preference, --test of
relationships and relationship_advice and as many of other places are the test posts; of the preferences a fifth is held
out; every other post of those two subreddits is a training post. Test posts and held-out preferences enter nothing
else. Written, each a JSONL:

    text             the training posts as {"text"}, whole (for the tokenizer and the language model)
    prompts          the training posts' prompts             sft, sft_test    prompt and human summary of training posts
                     and of in-distribution test posts
    test_in, test_out, test     prompts of the test posts    pairs, pairs_test   {"prompt","chosen","rejected"}
    answers          as sft, each summary closed by the end-of-text token: what the reward models are centred on

Prompts are `SUBREDDIT: r/X`, `TITLE:`, `POST:`, `TL;DR:` with empty lines between, at most --query tokens, and with
their longest answer at most
--context: the longer ones are cut as public_data.py cuts them. Summaries begin with a space. Without --tokenizer only
`text` is written."""
import argparse, gzip, json, os, random, sys
from public_data import HOME, cut

EOT = "<|endoftext|>"
POST, END = "\n\nPOST: ", "\n\nTL;DR:"

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("posts")
    ap.add_argument("--out", required=True)
    ap.add_argument("--tokenizer")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--test", type=int, default=196)
    ap.add_argument("--query", type=int, default=512)
    ap.add_argument("--context", type=int, default=576)
    a = ap.parse_args()
    with gzip.open(a.posts, "rt", encoding="utf-8") as f:
        posts = [json.loads(line) for line in f]
    for i, p in enumerate(posts):
        if not p["prompt"].endswith(END) or POST not in p["prompt"]:
            sys.exit(f"{a.posts}:{i + 1}: the prompt does not end in POST: and TL;DR:")
    rng = random.Random(a.seed)
    free = {home: [p for p in posts if "preferred" not in p and (p["subreddit"] in HOME) == home]
        for home in (True, False)}
    for home in free:
        rng.shuffle(free[home])
        if len(free[home]) < a.test:
            sys.exit(f"{a.posts}: {len(free[home])} posts without a preference {'in' if home else 'outside'} "
                f"{' and '.join(HOME)}, --test {a.test} wanted")
    test_in, test_out = free[True][:a.test], free[False][:a.test]
    taken = {p["prompt"] for p in test_in + test_out}
    judged = [p for p in posts if "preferred" in p and p["prompt"] not in taken]
    rng.shuffle(judged)
    held = len(judged) // 5
    taken |= {p["prompt"] for p in judged[:held]} # reward models start from SFT: it must not have seen them either
    train = [p for p in posts if p["subreddit"] in HOME and p["prompt"] not in taken]
    rng.shuffle(train)
    os.makedirs(a.out, exist_ok=True)
    def write(name, rows):
        path = os.path.join(a.out, name + ".jsonl")
        with open(path + ".tmp", "w", encoding="utf-8") as f:
            f.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
        os.replace(path + ".tmp", path)
        print(f"{path}: {len(rows)} lines")
    write("text", [{"text": p["prompt"] + " " + p["reference"]} for p in train])
    if not a.tokenizer:
        return
    from tokenizers import Tokenizer
    tok = Tokenizer.from_file(os.path.join(a.tokenizer, "tokenizer.json"))
    count = lambda s: len(tok.encode(s, add_special_tokens=False).ids)
    cuts = 0
    def prompt(p, *answers):
        nonlocal cuts
        room = min([a.query] + [a.context - 1 - count(s) for s in answers]) # 1: the end-of-text token
        head, _, post = p["prompt"][:-len(END)].partition(POST)
        text = lambda body: head + POST + body + END
        kept = cut(post, lambda body: count(text(body)) <= room)
        cuts += kept != post
        return text(kept)
    chosen = lambda p: " " + p[p["preferred"]].strip()
    other = lambda p: " " + p["policy" if p["preferred"] == "reference" else "reference"].strip()
    summary = lambda p: " " + p["reference"].strip()
    sft = lambda rows: [{"prompt": prompt(p, summary(p)), "response": summary(p)} for p in rows]
    pairs = lambda rows: [{"prompt": prompt(p, chosen(p), other(p)), "chosen": chosen(p), "rejected": other(p)}
        for p in rows]
    prompts = lambda rows: [{"prompt": prompt(p)} for p in rows]
    rows = sft(train)
    write("sft", rows)
    write("answers", [{"prompt": r["prompt"], "response": r["response"] + EOT} for r in rows])
    write("sft_test", sft(test_in))
    write("pairs", pairs(judged[held:]))
    write("pairs_test", pairs(judged[:held]))
    write("prompts", prompts(train))
    write("test_in", prompts(test_in))
    write("test_out", prompts(test_out))
    write("test", prompts(test_in + test_out))
    longer = sum(len(chosen(p)) > len(other(p)) for p in judged[:held])
    print(f"cut to fit: {cuts} prompts; of the {held} held-out preferences the longer summary is preferred in {longer}")

if __name__ == "__main__":
    main()
