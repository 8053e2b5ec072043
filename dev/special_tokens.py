#!/usr/bin/env python3
"""Folders that name their special tokens in every way, and what transformers makes of them.

    python3 dev/special_tokens.py read FOLDER ...
        says what this version of transformers reads in each, a JSON line a folder
    python3 dev/special_tokens.py write PYTHON PYTHON
        writes dev/fixtures/special_tokens.jsonl, by two Pythons with transformers 4 and 5

A record of the fixture is a folder: its files, and what each version said of it. Some folders are what a version saved,
the others say in a file or two what no version would write today. dev/parity.py draws more of them with `draw` and
compares them with ./vbon in one version, live."""
import json, os, random, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
FIXTURE = os.path.join(HERE, "fixtures", "special_tokens.jsonl")
EOT = "<|endoftext|>"
TEXTS = ["a cab", "bad<|endoftext|>cab", " <|padding|>[PAD] <x> a<x><y>", "e\u0301<e\u0301>\u00e9",
    "<|end|> ab</s>cab<|endoftext|", "", "<bad><ba>  abe", "[CLS]a[SEP]"]

# ---- what transformers reads, and what we do

def read(folder, texts=TEXTS):
    from transformers import AutoTokenizer, GenerationConfig
    try:
        t = AutoTokenizer.from_pretrained(folder)
        end = None if t.eos_token is None else t.convert_tokens_to_ids(t.eos_token)
        got = {"ids": [t(s)["input_ids"] for s in texts], "end": end, "size": max(t.get_vocab().values()) + 1}
    except Exception as e: return {"error": type(e).__name__}
    try: g = GenerationConfig.from_pretrained(folder)
    except OSError:
        try: g = GenerationConfig.from_pretrained(folder, config_file_name="config.json", _from_model_config=True)
        except (OSError, TypeError): g = GenerationConfig() # 5 opens a config.json that is not there
    return dict(got, generate=g.eos_token_id)

def ours(folder, texts=TEXTS):
    """In a child, since a refusal ends the process: the same, or the line that it said; and for "end" the token or a
    line, too."""
    from tokenizer_fixtures import Engine, library
    library()
    r, w = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.dup2(w, 2)
            with os.fdopen(w, "w") as f:
                e = Engine(folder)
                print(json.dumps({"ids": [e.encode(s) for s in texts],
                    "size": (e.lib.tokenizer_vocab if e.bpe else e.lib.wordpiece_vocab)(e.tokenizer)}), file=f,
                    flush=True)
                print(e.lib.tokenizer_eos(e.tokenizer) if e.bpe else -1, file=f)
        finally: os._exit(0)
    os.close(w)
    with os.fdopen(r) as f: lines = f.read().splitlines()
    os.waitpid(pid, 0)
    if len(lines) < 2: return {"error": "\n".join(lines)}
    return dict(json.loads(lines[0]), end={"error": lines[1]} if lines[1].startswith("vbon: ") else int(lines[1]))

def the_end(files, said):
    """What ends a text, by what transformers said: a token, -1 for none, or a word of the line that refuses it."""
    stops = said["generate"] if isinstance(said["generate"], list) else [said["generate"]]
    ends = {i for i in stops + [said["end"]] if i is not None and 0 <= i < said["size"]}
    settings = files.get("tokenizer_config.json") or {} # beside its added_tokens_decoder added_tokens.json is not read
    listed = [VOCAB, {} if "added_tokens_decoder" in settings else files.get("added_tokens.json", {}),
        settings.get("added_tokens_decoder", {}),
        [t["id"] for t in files.get("tokenizer.json", {}).get("added_tokens", [])]]
    if said["end"] is not None and not any(said["end"] in (l.values() if l is VOCAB or l is listed[1] else map(int, l))
        for l in listed):
        return "not in the vocabulary"
    if len(ends) > 1: return "which ends a text"
    merged = {VOCAB["".join(m)] for m in MERGES} | {i for t, i in VOCAB.items() if len(t) == 1}
    return "an ordinary word" if ends & merged else min(ends, default=-1)

# ---- folders

def vocabulary():
    """A byte-level BPE of the bytes that TEXTS hold."""
    letters = sorted(set("".join(TEXTS).replace(" ", "\u0120").replace("\u0301", "\u00cc\u0123").replace("\u00e9",
        "\u00c3\u00a9")))
    merges = [("a", "b"), ("c", "ab"), ("\u0120", "a"), ("b", "a"), ("ba", "d"), ("\u00c3", "\u00a9"), ("<", "|")]
    return {t: i for i, t in enumerate([EOT, "<|padding|>"] + letters + ["".join(m) for m in merges] + ["<x>"])}, merges

VOCAB, MERGES = vocabulary()
MERGES_TXT = "#version: 0.2\n" + "".join(" ".join(m) + "\n" for m in MERGES)
SIZE = len(VOCAB)

def token(content, i=None, **more):
    return dict({} if i is None else {"id": i}, content=content, single_word=False, lstrip=False, rstrip=False,
        **dict({"normalized": False, "special": True}, **more))

def tokenizer_json(added=(EOT,), nfc=False, extra=()):
    return {"version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [token(s, VOCAB[s]) for s in added] + list(extra),
        "normalizer": {"type": "NFC"} if nfc else None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": VOCAB, "merges": [list(m) for m in MERGES]}}

def one_of(rng, *a): return rng.choice(a)

def draw(rng):
    """A folder: {file name: JSON value or text}. Every file may name tokens, and they need not agree."""
    f, arch = {}, rng.choice(["gpt2", "gpt2", "gpt_neox"])
    named = lambda: one_of(rng, EOT, EOT, EOT, "<|end|>", "</s>", "<x>", "<|padding|>", "bad", None)
    # as special_tokens_map.json says it
    mapped = lambda s: s if s is None or rng.random() < .6 else token(s)
    # as tokenizer_config.json does
    said = lambda s: dict(token(s), __type="AddedToken") if isinstance(s, str) and rng.random() < .4 else s
    new = SIZE
    if rng.random() < .6:
        extra = []
        for s in rng.sample(["<y>", "[PAD]", "<|end|>", "<e\u0301>", "<bad>", "</s>"], one_of(rng, 0, 0, 1, 2)):
            extra.append(token(s, new, special=rng.random() < .6, normalized=rng.random() < .4)); new += 1
        f["tokenizer.json"] = tokenizer_json(one_of(rng, (), (EOT,), (EOT,), (EOT, "<|padding|>"), ("<x>",)),
            rng.random() < (.8 if arch == "gpt_neox" else .1), extra)
    else: f["vocab.json"], f["merges.txt"] = VOCAB, MERGES_TXT
    c = {}
    if rng.random() < .8:
        c["tokenizer_class"] = rng.choice(["GPT2Tokenizer", "GPT2TokenizerFast", "GPTNeoXTokenizerFast",
            "GPTNeoXTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend"])
    for key in ("bos_token", "eos_token", "unk_token", "pad_token"):
        if rng.random() < (.7 if key != "pad_token" else .3): c[key] = said(named() if rng.random() < .5 else EOT)
    if rng.random() < .2: c["pad_token"] = "[PAD]"
    if rng.random() < .15: c["additional_special_tokens"] = [said(s) for s in rng.sample(["<y>", "<x>", "<bad>"], 2)]
    if rng.random() < .1: c["extra_special_tokens"] = [said("<y>")] if rng.random() < .5 else {"image_token": "<y>"}
    if rng.random() < .05: c["image_token"] = "<ba>"
    if rng.random() < .1: c["split_special_tokens"] = rng.random() < .5
    if rng.random() < .1: c["add_bos_token"] = rng.random() < .3
    if rng.random() < .35:
        c["added_tokens_decoder"] = {str(VOCAB[s]): {k: v for k, v in token(s, normalized=rng.random() < .3).items()}
            for s in one_of(rng, (EOT,), (EOT,), (EOT, "<|padding|>"), ())}
        for t in f.get("tokenizer.json", {}).get("added_tokens", []):
            if rng.random() < .8: c["added_tokens_decoder"][str(t["id"])] = {k: v for k, v in t.items() if k != "id"}
        if rng.random() < .3: c["added_tokens_decoder"][str(new)] = token("<new>"); new += 1
    if rng.random() < .85: f["tokenizer_config.json"] = c
    if rng.random() < .35:
        f["special_tokens_map.json"] = {k: mapped(named() or EOT) for k in ("bos_token", "eos_token", "unk_token")
            if rng.random() < .7}
        if rng.random() < .3: f["special_tokens_map.json"]["pad_token"] = mapped(one_of(rng, "[PAD]", "<|padding|>"))
        if rng.random() < .2:
            f["special_tokens_map.json"][one_of(rng, "additional_special_tokens", "extra_special_tokens")] = [
                mapped("<y>"), mapped("<ba>")]
    if rng.random() < .25:
        f["added_tokens.json"] = {s: new + i for i, s in enumerate(
            rng.sample(["<|end|>", "[PAD]", "<y>"], one_of(rng, 1, 2)))}
    f["config.json"] = {"model_type": arch, "vocab_size": new + 9}
    end = lambda: one_of(rng, VOCAB[EOT], VOCAB[EOT], VOCAB[EOT], VOCAB["<|padding|>"], VOCAB["cab"], SIZE, 50256, None,
        2, [0], [0, 1], [0, 50256])
    if rng.random() < .7: f["config.json"]["eos_token_id"] = end()
    if rng.random() < .3: f["generation_config.json"] = {"eos_token_id": end()} if rng.random() < .8 else {}
    return f

def put(files, folder):
    os.makedirs(folder, exist_ok=True)
    for name in os.listdir(folder): os.remove(os.path.join(folder, name))
    for name, v in files.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            f.write(v if isinstance(v, str) else json.dumps(v, ensure_ascii=False, separators=(",", ":")))

def compare(rng, n, work, check):
    """n drawn folders, and BERT's settings, by this version of transformers and by us: equal or refused by a line.
    Returns how many were refused."""
    from tokenizer_fixtures import BERT_SETTINGS, bert_folder, random_string, NEW_CLASSES
    refused, folder = 0, os.path.join(work, "special")
    for i in range(n + len(BERT_SETTINGS)):
        bert = i - n
        files = {} if bert >= 0 else draw(rng)
        texts = TEXTS if bert < 0 else [s for s in (random_string(rng) for _ in range(200)) if "\0" not in s
            and not NEW_CLASSES.intersection(s)]
        put(files, folder) if bert < 0 else bert_folder(folder, *BERT_SETTINGS[bert])
        theirs, mine = read(folder, texts), ours(folder, texts)
        if "error" in theirs: continue
        if "error" in mine:
            check("special tokens: a refusal of one line",
                float(not mine["error"].startswith("vbon: ") or "\n" in mine["error"]), 0)
            refused += 1
            continue
        differs = [k for k in ("ids", "size") if theirs[k] != mine[k]]
        if bert < 0:
            end, got = the_end(files, theirs), mine["end"]
            if not (got == end if isinstance(end, int) else isinstance(got, dict) and end in got["error"]):
                differs.append("end")
        if differs: print("differs in", differs, json.dumps(files)[:2000])
        check("special tokens as transformers resolves them", float(bool(differs)), 0)
    return refused

# ---- the fixture

def curated():
    """(name, what of the message that refuses it or None, files)"""
    J, V = {"tokenizer.json": tokenizer_json()}, {"vocab.json": VOCAB, "merges.txt": MERGES_TXT}
    def c(klass, **more): return {"tokenizer_config.json": dict({"tokenizer_class": klass}, **more)}
    def m(arch, end="none", **more):
        return {"config.json": dict({"model_type": arch, "vocab_size": SIZE + 9},
            **({} if end == "none" else {"eos_token_id": end})), **more}
    names, neox = dict(bos_token=EOT, eos_token=EOT, unk_token=EOT), dict(pad_token="<|padding|>")
    N = {"tokenizer.json": tokenizer_json((EOT, "<|padding|>"), True)}
    def decoder(*tokens): return {"added_tokens_decoder": {str(i): token(s, **more) for s, i, more in tokens}}
    return [
        ("gpt2", None, J | c("GPT2TokenizerFast", **names) | m("gpt2", 0)),
        ("gpt2, nothing said", None, J | m("gpt2", 0)),
        ("gpt2, vocabulary and merges", None, V | m("gpt2", 0)),
        ("pythia", None, N | c("GPTNeoXTokenizer", **names) | m("gpt_neox", 0)),
        ("gpt_neox by default", None, N | c("GPTNeoXTokenizerFast", **names) | m("gpt_neox", 2)),
        ("gpt_neox, vocabulary and merges", None, V | m("gpt_neox", 0)),
        ("no class's names", None, J | c("PreTrainedTokenizerFast") | m("gpt2", 0)),
        ("the map over the settings", None, V | c("GPT2Tokenizer", eos_token="<|end|>")
        | m("gpt2", 0, **{"special_tokens_map.json": {"eos_token": token("<x>")}})),
        ("no map beside a decoder", None, J | c("GPT2Tokenizer", eos_token="<x>",
        **decoder((EOT, 0, {}), ("<x>", VOCAB["<x>"], {})))
        | m("gpt2", VOCAB["<x>"], **{"special_tokens_map.json": {"eos_token": EOT}})),
        ("added_tokens.json beside tokenizer.json", None,
        J | c("GPT2Tokenizer") | m("gpt2", **{"added_tokens.json": {"[PAD]": SIZE + 1, "<y>": SIZE}})),
        ("a padding of its own", None, J | c("GPT2Tokenizer", pad_token="[PAD]") | m("gpt2")),
        ("more special tokens", None, J | c("GPT2Tokenizer", additional_special_tokens=["<y>", "<x>"]) | m("gpt2")),
        ("extra tokens", None, J | c("TokenizersBackend", eos_token=EOT, extra_special_tokens=["<y>", "<bad>"])
         | m("gpt2")),
        ("extra tokens by name", None, V | c("GPT2Tokenizer", extra_special_tokens={"image_token": "<y>"}) | m("gpt2")),
        ("null ends nothing", None, V | c("GPT2Tokenizer", eos_token=None) | m("gpt2", None)),
        ("generate's own end", None, J | c("GPT2Tokenizer")
         | m("gpt2", 1, **{"generation_config.json": {"eos_token_id": 0}})),
        ("generate's list", None, J | c("GPT2Tokenizer")
         | m("gpt2", 0, **{"generation_config.json": {"eos_token_id": [0, 1]}})),
        ("an end that is a word", None, V | c("GPT2Tokenizer", eos_token="bad") | m("gpt2")),
        ("an id that is a word", None, J | c("PreTrainedTokenizerFast") | m("gpt2", VOCAB["cab"])),
        ("an end that nobody has", None, J | c("GPT2Tokenizer", eos_token="</s>") | m("gpt2")),
        ("normalised", None, {"tokenizer.json": tokenizer_json((EOT, "<|padding|>"), True,
        [token("<e\u0301>", SIZE, normalized=True, special=False)])} | c("GPTNeoXTokenizer", **names)
        | m("gpt_neox", 0)),
        ("split", "split_special_tokens", J | c("GPT2Tokenizer", split_special_tokens=True) | m("gpt2")),
        ("a beginning", "add_bos_token", V | c("GPT2Tokenizer", add_bos_token=True) | m("gpt2")),
        ("NFC that 5 drops", "normaliser NFC", {"tokenizer.json": tokenizer_json(nfc=True)} | c("GPT2Tokenizer")
         | m("gpt2")),
        ("padding that 5 adds", "no \"pad_token\"", {"tokenizer.json": tokenizer_json(nfc=True)} | c("GPTNeoXTokenizer")
         | m("gpt_neox")),
        ("a name that 4 does not know", "image_token", J | c("GPT2Tokenizer", image_token="<y>") | m("gpt2")),
        ("a token that 5 forgets", "added_tokens_decoder",
         {"tokenizer.json": tokenizer_json(extra=[token("<y>", SIZE)])} | c("GPT2Tokenizer", **decoder((EOT, 0, {})))
         | m("gpt2")),
        ("an id that nobody would give", "number it so",
         J | c("GPT2Tokenizer", **decoder((EOT, 0, {}), ("<y>", SIZE + 1, {}))) | m("gpt2")),
        ("another class", "CodeGenTokenizer is not supported", J | c("CodeGenTokenizer") | m("gpt2"))]

SAVE = """import json, sys
from transformers import AutoConfig, AutoTokenizer
t = AutoTokenizer.from_pretrained(sys.argv[1])
for more in json.loads(sys.argv[3]): t.add_special_tokens(more)
t.save_pretrained(sys.argv[2], **({"legacy_format": True} if sys.argv[4] == "legacy" else {}))
AutoConfig.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])"""

def write(pythons):
    version = {p: subprocess.check_output([p, "-c", "import transformers; print(transformers.__version__)"],
        text=True).strip() for p in pythons}
    records, work = curated(), tempfile.mkdtemp()
    start, out = os.path.join(work, "start"), os.path.join(work, "out")
    J = {n: f for n, _, f in records}
    for p, form, of, more in [(p, "", of, more) for p in pythons for of in ("gpt2", "pythia")
        for more in ([], [{"pad_token": "[PAD]"}], [{"eos_token": "<|end|>",
        "additional_special_tokens": ["<y>"]}])] + [(pythons[0], "legacy", "gpt2", [{"eos_token": "<|end|>"}])]:
        put(J[of], start); put({}, out)
        if version[p] >= "5": more = [{k.replace("additional", "extra"): v for k, v in m.items()} for m in more]
        subprocess.check_call([p, "-c", SAVE, start, out, json.dumps(more), form], stderr=subprocess.DEVNULL)
        files = {n: open(os.path.join(out, n), encoding="utf-8").read() for n in sorted(os.listdir(out))
            if not (form and n == "tokenizer.json")}
        records.append((f"{of}{', ' + form if form else ''}{', with ' + ' '.join(more[0]) if more else ''}, saved by "
            f"{version[p]}", None, {n: json.loads(s) if n.endswith("json") else s for n, s in files.items()}))
    rng = random.Random(5)
    records += [(f"drawn {i}", "?", draw(rng)) for i in range(30)]
    folders = [os.path.join(work, str(i)) for i in range(len(records))]
    for folder, (_, _, files) in zip(folders, records): put(files, folder)
    said = {}
    for p in pythons:
        lines = subprocess.run([p, os.path.abspath(__file__), "read"] + folders, capture_output=True, text=True,
            check=True).stdout.splitlines()
        said[p] = [json.loads(l) for l in lines if l.startswith("{")]
        assert len(said[p]) == len(records)
    with open(FIXTURE, "w", encoding="utf-8") as f:
        f.write(json.dumps({"texts": TEXTS}, ensure_ascii=False) + "\n")
        for i, (name, says, files) in enumerate(records):
            a, b = (said[p][i] for p in pythons)
            told = b if "error" in a else a
            if "error" in told: continue
            agree = "error" in a or "error" in b or all(a[k] == b[k] for k in ("ids", "size", "end", "generate"))
            if says is None: assert agree, name
            r = {"name": name, "files": {n: v if isinstance(v, str)
                else json.dumps(v, ensure_ascii=False, separators=(",", ":")) for n, v in files.items()}}
            r.update({"says": says or ""} if not agree or says else {}) # "?": by any line
            if agree: r.update({k: told[k] for k in ("ids", "size")}, end=the_end(files, told))
            f.write(json.dumps(r, ensure_ascii=False, separators=(",", ":")) + "\n")

if __name__ == "__main__":
    a = sys.argv[1:]
    if len(a) > 1 and a[0] == "read":
        import logging, warnings
        warnings.simplefilter("ignore"); logging.disable(logging.CRITICAL)
        for folder in a[1:]: print(json.dumps(read(folder)), flush=True)
    elif len(a) == 3 and a[0] == "write": write(a[1:])
    else: sys.exit(__doc__)
