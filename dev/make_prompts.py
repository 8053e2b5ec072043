#!/usr/bin/env python3
"""Cuts prompts from reviews as the paper has it: each the first n tokens of another review, n uniform in 2..8, by seed.

    python3 dev/make_prompts.py train.jsonl --tokenizer FOLDER --count 5000 --seed 1 --out prompts.jsonl

Reviews are drawn without replacement from lines {"text"} (.gz too); FOLDER holds the policy's tokenizer.json. Prompts
are distinct: a repeated one, and one that would end inside a character, is left out and the next review taken."""
import argparse, gzip, json, os, random, sys
from tokenizers import Tokenizer

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("reviews")
    ap.add_argument("--tokenizer", required=True)
    ap.add_argument("--count", type=int, required=True)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--out", required=True)
    a = ap.parse_args()
    tok = Tokenizer.from_file(os.path.join(a.tokenizer, "tokenizer.json"))
    with (gzip.open if a.reviews.endswith(".gz") else open)(a.reviews, "rt", encoding="utf-8") as f:
        texts = [json.loads(line)["text"] for line in f]
    rng, prompts = random.Random(a.seed), {}
    rng.shuffle(texts)
    for text in texts:
        ids = tok.encode(text, add_special_tokens=False).ids[:rng.randint(2, 8)]
        prompt = tok.decode(ids, skip_special_tokens=False)
        if len(ids) >= 2 and text.startswith(prompt) and len(prompts) < a.count:
            prompts[prompt] = None
    if len(prompts) < a.count:
        sys.exit(f"{a.reviews}: only {len(prompts)} distinct prompts, {a.count} wanted")
    with open(a.out + ".tmp", "w", encoding="utf-8") as f:
        f.writelines(json.dumps({"prompt": p}, ensure_ascii=False) + "\n" for p in prompts)
    os.replace(a.out + ".tmp", a.out)

if __name__ == "__main__":
    main()
