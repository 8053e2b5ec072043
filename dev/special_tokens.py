#!/usr/bin/env python3
"""Folders that name their special tokens in every way, and what transformers makes of them.

    python3 dev/special_tokens.py read FOLDER ...                 what this version of transformers reads in each, a JSON line a folder
    python3 dev/special_tokens.py write PYTHON PYTHON             dev/fixtures/special_tokens.jsonl, by two Pythons with transformers 4 and 5

A record of the fixture is a folder: its files, and what each version said of it. Some folders are what a version saved, the others say in a file or two
what no version would write today. dev/parity.py draws more of them with `draw` and compares them with ./vbon in one version, live."""
import json, os, random, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
FIXTURE = os.path.join(HERE, "fixtures", "special_tokens.jsonl")
EOT = "<|endoftext|>"
TEXTS = ["a cab", "bad<|endoftext|>cab", " <|padding|>[PAD] <x> a<x><y>", "e\u0301<e\u0301>\u00e9", "<|end|> ab</s>cab<|endoftext|", "", "<bad><ba>  abe", "[CLS]a[SEP]"]

# ---- what transformers reads

def read(folder):
    from transformers import AutoTokenizer, GenerationConfig
    try:
        t = AutoTokenizer.from_pretrained(folder)
        end = None if t.eos_token is None else t.convert_tokens_to_ids(t.eos_token)
        got = {"class": type(t).__name__, "ids": [t(s)["input_ids"] for s in TEXTS], "end": end, "size": max(t.get_vocab().values()) + 1}
    except Exception as e: got = {"error": type(e).__name__}
    try: g = GenerationConfig.from_pretrained(folder)
    except OSError:
        try: g = GenerationConfig.from_pretrained(folder, config_file_name="config.json", _from_model_config=True)
        except OSError: g = GenerationConfig()
    return dict(got, generate=g.eos_token_id)

# ---- folders

def vocabulary():
    """A byte-level BPE of the bytes that TEXTS hold."""
    letters = sorted(set("".join(TEXTS).replace(" ", "\u0120").replace("\u0301", "\u00cc\u0123").replace("\u00e9", "\u00c3\u00a9")))
    merges = [("a", "b"), ("c", "ab"), ("\u0120", "a"), ("b", "a"), ("ba", "d"), ("\u00c3", "\u00a9"), ("<", "|")]
    return {t: i for i, t in enumerate([EOT, "<|padding|>"] + letters + ["".join(m) for m in merges] + ["<x>"])}, merges

VOCAB, MERGES = vocabulary()
SIZE = len(VOCAB)

def token(content, i=None, **more):
    return dict({} if i is None else {"id": i}, content=content, single_word=False, lstrip=False, rstrip=False, **dict({"normalized": False, "special": True}, **more))

def tokenizer_json(added=(EOT,), nfc=False, extra=()):
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [token(s, VOCAB[s]) for s in added] + list(extra), "normalizer": {"type": "NFC"} if nfc else None,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}, "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": VOCAB, "merges": [list(m) for m in MERGES]}}

def one_of(rng, *a): return rng.choice(a)

def draw(rng):
    """A folder: {file name: JSON value or text}. Every file may name tokens, and they need not agree."""
    f, arch = {}, rng.choice(["gpt2", "gpt2", "gpt_neox"])
    named = lambda: one_of(rng, EOT, EOT, EOT, "<|end|>", "</s>", "<x>", "<|padding|>", "bad", None)
    mapped = lambda s: s if s is None or rng.random() < .6 else token(s)                                     # as special_tokens_map.json says it
    said = lambda s: dict(token(s), __type="AddedToken") if isinstance(s, str) and rng.random() < .4 else s # as tokenizer_config.json does
    new = SIZE
    if rng.random() < .6:
        extra = []
        for s in rng.sample(["<y>", "[PAD]", "<|end|>", "<e\u0301>", "<bad>", "</s>"], one_of(rng, 0, 0, 1, 2)):
            extra.append(token(s, new, special=rng.random() < .6, normalized=rng.random() < .4)); new += 1
        f["tokenizer.json"] = tokenizer_json(one_of(rng, (), (EOT,), (EOT,), (EOT, "<|padding|>"), ("<x>",)), rng.random() < (.8 if arch == "gpt_neox" else .1), extra)
    else: f["vocab.json"], f["merges.txt"] = VOCAB, "#version: 0.2\n" + "".join(" ".join(m) + "\n" for m in MERGES)
    c = {}
    if rng.random() < .8: c["tokenizer_class"] = rng.choice(["GPT2Tokenizer", "GPT2TokenizerFast", "GPTNeoXTokenizerFast", "GPTNeoXTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend"])
    for key in ("bos_token", "eos_token", "unk_token", "pad_token"):
        if rng.random() < (.7 if key != "pad_token" else .3): c[key] = said(named() if rng.random() < .5 else EOT)
    if rng.random() < .2: c["pad_token"] = "[PAD]"
    if rng.random() < .15: c["additional_special_tokens"] = [said(s) for s in rng.sample(["<y>", "<x>", "<bad>"], 2)]
    if rng.random() < .1: c["extra_special_tokens"] = [said("<y>")] if rng.random() < .5 else {"image_token": "<y>"}
    if rng.random() < .05: c["image_token"] = "<ba>"
    if rng.random() < .1: c["split_special_tokens"] = rng.random() < .5
    if rng.random() < .1: c["add_bos_token"] = rng.random() < .3
    if rng.random() < .35:
        c["added_tokens_decoder"] = {str(VOCAB[s]): {k: v for k, v in token(s, normalized=rng.random() < .3).items()} for s in one_of(rng, (EOT,), (EOT,), (EOT, "<|padding|>"), ())}
        for t in f.get("tokenizer.json", {}).get("added_tokens", []):
            if rng.random() < .8: c["added_tokens_decoder"][str(t["id"])] = {k: v for k, v in t.items() if k != "id"}
        if rng.random() < .3: c["added_tokens_decoder"][str(new)] = token("<new>"); new += 1
    if rng.random() < .85: f["tokenizer_config.json"] = c
    if rng.random() < .35:
        f["special_tokens_map.json"] = {k: mapped(named() or EOT) for k in ("bos_token", "eos_token", "unk_token") if rng.random() < .7}
        if rng.random() < .3: f["special_tokens_map.json"]["pad_token"] = mapped(one_of(rng, "[PAD]", "<|padding|>"))
        if rng.random() < .2: f["special_tokens_map.json"][one_of(rng, "additional_special_tokens", "extra_special_tokens")] = [mapped("<y>"), mapped("<ba>")]
    if rng.random() < .25: f["added_tokens.json"] = {s: new + i for i, s in enumerate(rng.sample(["<|end|>", "[PAD]", "<y>"], one_of(rng, 1, 2)))}
    f["config.json"] = {"model_type": arch, "vocab_size": new + 9}
    end = lambda: one_of(rng, VOCAB[EOT], VOCAB[EOT], VOCAB[EOT], VOCAB["<|padding|>"], VOCAB["cab"], SIZE, 50256, None, 2, [0], [0, 1], [0, 50256])
    if rng.random() < .7: f["config.json"]["eos_token_id"] = end()
    if rng.random() < .3: f["generation_config.json"] = {"eos_token_id": end()} if rng.random() < .8 else {}
    return f

def put(files, folder):
    os.makedirs(folder, exist_ok=True)
    for name in os.listdir(folder): os.remove(os.path.join(folder, name))
    for name, v in files.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f: f.write(v if isinstance(v, str) else json.dumps(v, ensure_ascii=False, separators=(",", ":")))

if __name__ == "__main__":
    a = sys.argv[1:]
    if len(a) > 1 and a[0] == "read":
        import warnings, logging
        warnings.simplefilter("ignore"); logging.disable(logging.CRITICAL)
        for folder in a[1:]: print(json.dumps(read(folder)), flush=True)
    else: sys.exit(__doc__)
