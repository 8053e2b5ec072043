#!/usr/bin/env python3
"""Trains a byte-level BPE with Hugging Face tokenizers, as GPT-2 has it, on the IMDB reviews or on given text, and
writes a tokenizer folder.

    python3 dev/make_bpe.py DATA=DIR --vocab 2000 --out dev/demo/tokenizer
    python3 dev/make_bpe.py text.jsonl --vocab 4096 --out dev/tldr/tokenizer

DIR holds imdb/train.jsonl.gz and imdb/unsup.jsonl.gz (see dev/download.sh); a file holds lines {"text"}. The vocabulary
has exactly --vocab entries: 256 bytes, the merges, and <|endoftext|>, which comes last, as in GPT-2. The trainer has no
randomness: the same text gives the same files."""
import argparse, gzip, json, os, sys
from tokenizers import Tokenizer, models, pre_tokenizers, decoders, processors, trainers

EOT = "<|endoftext|>"

def texts(data):
    if os.path.isfile(data):
        with open(data, encoding="utf-8") as f:
            for line in f:
                yield json.loads(line)["text"]
        return
    for part in ("train", "unsup"):
        with gzip.open(os.path.join(data, "imdb", part + ".jsonl.gz"), "rt", encoding="utf-8") as f:
            for line in f:
                yield json.loads(line)["text"]

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("data", help="DATA=DIR, DIR or a JSONL file")
    ap.add_argument("--vocab", type=int, required=True)
    ap.add_argument("--out", required=True)
    a = ap.parse_args()
    data = a.data.split("=", 1)[1] if a.data.startswith("DATA=") else a.data
    if not os.path.isfile(data) and not os.path.exists(os.path.join(data, "imdb", "train.jsonl.gz")):
        sys.exit(f"{data}/imdb/train.jsonl.gz is missing: see dev/download.sh")
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(vocab_size=a.vocab - 1, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False)
    tok.train_from_iterator(texts(data), trainer)
    tok.add_special_tokens([EOT])
    assert tok.get_vocab_size() == a.vocab and tok.token_to_id(EOT) == a.vocab - 1
    os.makedirs(a.out, exist_ok=True)
    with open(os.path.join(a.out, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump(json.loads(tok.to_str()), f, ensure_ascii=False, separators=(",", ":"))
    with open(os.path.join(a.out, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump({"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": False, "bos_token": EOT,
            "eos_token": EOT, "unk_token": EOT,
                   "clean_up_tokenization_spaces": False}, f, indent=1)
        f.write("\n")

if __name__ == "__main__":
    main()
