#!/usr/bin/env python3
"""Splits the TL;DR posts by seed and writes what the pipeline reads; with draws, the pairs of the reward models too.

    python3 dev/tldr_data.py POSTS.jsonl.gz --out FOLDER [--tokenizer FOLDER] [--seed 1] [--test 196] [--query 256]
    [--context 320] [--draws FILE]

POSTS holds lines {"prompt","reference","policy","subreddit","preferred"?}. Of the posts without a preference, --test of
relationships and relationship_advice and as many of other places are the test posts; of the preferences a fifth is held
out; every other post of those two subreddits is a training post. Three fifths of all posts that are neither test nor
held out, whatever their subreddit, are the training reward's, the others the judge's: no post is both's. Written, each
a JSONL:

    text             the training posts as {"text"}, whole (for the tokenizer and the language model)
    prompts          the training posts' prompts             sft, sft_test    prompt and human summary of training posts
                     and of in-distribution test posts
    test_in, test_out, test     prompts of the test posts
    pair_prompts     prompts of the training reward's posts, the judge's and those held out: what draws are wanted of

With --draws, lines {"prompt","response","finished"} of the SFT model on pair_prompts, instead:

    pairs_rm, pairs_judge, pairs_test    {"prompt","chosen","rejected","kind"}, the held-out preferences first
    texts            the held-out posts' texts {"prompt","response","kind","chosen"?}, each closed by the end-of-text
                     token: both sides of each pair of pairs_test in turn, and then every draw (kind "a draw")
    centre           draws of the training reward's posts, closed so: where the reward models' scores get 0 and 1

The kinds of pairs, of which people labelled none and a model the first. Trained on, of each post what it has of:

    judged           the preferred summary over the other: the data set's preferences between a human's summary and that
                     of a model of 1.3 billion parameters
    draw             a post's human summary over each of the SFT model's draws for it
    cut, shuffled    a post's human summary over itself cut short (3 to 7 tenths of its words), its words shuffled

Measured too, on the held-out posts (one draw each); trained on as well, a reward of this size stayed at chance on them:

    other human      a post's human summary over another post's
    other model      the same of the model of 1.3 billion parameters
    other draw       the same of the SFT model's draws

Prompts are `SUBREDDIT: r/X`, `TITLE:`, `POST:`, `TL;DR:` with empty lines between, at most --query tokens, and with
their longest answer at most --context: the longer ones are cut as public_data.py cuts them. Summaries begin with a
space. Three of four pairs that are trained on have a prompt of --short tokens at most: what most of them teach is in
the response, and it costs half. Without --tokenizer only `text` is written."""
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
    ap.add_argument("--query", type=int, default=256)
    ap.add_argument("--context", type=int, default=320)
    ap.add_argument("--short", type=int, default=96)
    ap.add_argument("--draws")
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
    known = {p["prompt"]: p for p in posts if p["prompt"] not in taken}
    known = sorted(known.values(), key=lambda p: p["prompt"])
    rng.shuffle(known)
    of_rm, of_judge, held_out = known[:3 * len(known) // 5], known[3 * len(known) // 5:], judged[:held]
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
    kept = {} # by post and room: where a long post has no newline, its cut takes a second
    def prompt(p, *answers, short=False):
        nonlocal cuts
        room = min([a.query] + [a.context - 1 - count(s) for s in answers]) # 1: the end-of-text token
        head, _, post = p["prompt"][:-len(END)].partition(POST)
        text = lambda body: head + POST + body + END
        if short: room = min(room, max(a.short, count(text("")))) # a long title stays
        key = p["prompt"], room
        if key not in kept:
            fits = lambda body: count(text(body)) <= room
            start = post[:6 * room] # what is cut of a start that is too long is cut of the whole
            kept[key] = cut(post if fits(start) else start, fits)
        cuts += kept[key] != post
        return text(kept[key])
    human, model = (lambda p, k=k: " " + p[k].strip() for k in ("reference", "policy"))
    if a.draws:
        return write_pairs(a, write, rng, prompt, human, model, of_rm, of_judge, held_out)
    sft = lambda rows: [{"prompt": prompt(p, human(p)), "response": human(p)} for p in rows]
    prompts = lambda rows: [{"prompt": prompt(p)} for p in rows]
    write("sft", sft(train))
    write("sft_test", sft(test_in))
    write("prompts", prompts(train))
    write("test_in", prompts(test_in))
    write("test_out", prompts(test_out))
    write("test", prompts(test_in + test_out))
    cuts = 0
    write("pair_prompts", prompts(of_rm + of_judge + held_out))
    longer = sum((len(human(p)) > len(model(p))) == (p["preferred"] == "reference") for p in held_out)
    print(f"{cuts} of the {len(known) + held} prompts of pairs are cut to fit; of the {held} held-out preferences the "
        f"longer summary is preferred in {longer}")

def write_pairs(a, write, rng, prompt, human, model, of_rm, of_judge, held_out):
    with open(a.draws, encoding="utf-8") as f:
        lines = [json.loads(line) for line in f]
    draws = {}
    for x in lines:
        if x["finished"]: draws.setdefault(x["prompt"], []).append(x["response"])
    drawn = lambda p: draws.get(prompt(p), [])
    def pairs(posts, training):
        rows = []
        def pair(kind, p, chosen, rejected):
            if chosen == rejected: return
            short = training and rng.random() < .75
            rows.append({"prompt": prompt(p, chosen, rejected, short=short), "chosen": chosen, "rejected": rejected,
                "kind": kind})
        for p in posts:
            if "preferred" in p:
                texts = {"reference": human(p), "policy": model(p)}
                pair("judged", p, texts.pop(p["preferred"]), *texts.values())
        for i, p in enumerate(posts):
            mine = drawn(p)
            for y in mine if training else mine[:1]: pair("draw", p, human(p), y)
            words = human(p).split()
            if len(words) >= 4:
                pair("cut", p, human(p), " " + " ".join(words[:round(len(words) * rng.uniform(.3, .7))]))
                pair("shuffled", p, human(p), " " + " ".join(rng.sample(words, len(words))))
            if training: continue
            other = posts[(i + 1 + rng.randrange(len(posts) - 1)) % len(posts)]
            pair("other human", p, human(p), human(other))
            pair("other model", p, model(p), model(other))
            if mine and drawn(other): pair("other draw", p, mine[0], drawn(other)[0])
        return rows
    write("pairs_rm", pairs(of_rm, True))
    write("pairs_judge", pairs(of_judge, True))
    test = pairs(held_out, False)
    write("pairs_test", test)
    text = lambda p, response, kind, **more: {"prompt": p, "response": response + EOT, "kind": kind, **more}
    write("texts", [text(x["prompt"], x[side], x["kind"], chosen=side == "chosen") for x in test for side in (
        "chosen", "rejected")] + [text(prompt(p), y, "a draw") for p in held_out for y in drawn(p)])
    write("centre", [text(prompt(p), y, "a draw") for p in of_rm for y in drawn(p)[:1]])

if __name__ == "__main__":
    main()
