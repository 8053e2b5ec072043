#!/usr/bin/env python3
"""lib/bpe.h and lib/wordpiece.h against Hugging Face's tokenizers.

    python3 dev/tokenizer_fixtures.py write                                the committed fixtures,
    dev/fixtures/{bpe,neox,wordpiece}*
    python3 dev/tokenizer_fixtures.py settings                             dev/fixtures/wordpiece_settings.jsonl alone:
    the same by transformers 4 and 5 python3 dev/tokenizer_fixtures.py fuzz DIR [N] [SEED] [TEXT.jsonl.gz ...]
                                                                           every code point assigned in Unicode 14 in
                                                                           seven surroundings, N random strings (default
                                                                           a million), every string of the files: ids,
                                                                           and bytes back
    python3 dev/tokenizer_fixtures.py speed DIR                            seconds for a megabyte of several kinds

DIR holds tokenizer.json (byte-level BPE) or vocab.txt (WordPiece). The engine's side is compiled into a shared object
and called in the same process. Fuzzing exits 1 if anything differs that holds none of the exceptions below: characters
newer than the tables that Hugging Face's normaliser was built with, where lib/ follows Unicode 14."""
import ctypes, functools, gzip, json, os, random, re, shutil, subprocess, sys, tempfile, time, unicodedata
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, BertTokenizerFast, GPTNeoXTokenizerFast

HERE = os.path.dirname(os.path.abspath(__file__))
DEMO = os.path.join(HERE, "demo", "tokenizer")
FIXTURES = os.path.join(HERE, "fixtures")
SPACES = " \t\n\r\x0b\x0c\x85\xa0\u1680\u2003\u2028\u2029\u202f\u205f\u3000\u200b\ufeff"
MARKS = ("\u0300\u0301\u0308\u0323\u0327\u0331\u0338\u0344\u0345\u05b0\u05b4"
    "\u064b\u0651\u093c\u094d\u09be\u0bbe\u0e31\u1161\u11a8\u3099\u309a\u20dd\ufe0f\U0001d165")
PIECES = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'", "''", "<|endoftext|>", "<|endoftext", "the", " movie",
    "  ", "\n\n", "É", "e\u0301", "한국", "日本語", "العربية", "हिन्दी", "ไทย",
    "🎬", "👩‍👩‍👧‍👦", "🇫🇷", "1", "²", "½", "Ⅷ", "٣", "...", "!?", "_", "-",
    "<br />", "\u00ad", "ﬁ", "ß", "İ", "ǅ",
    "\U00010400", "\U0001d7d8", "\x00\x01", "\x7f", "\ufffd"]
NASTY = ["<|padding|>", "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[", "]", "##ing", "\u1100\u1161\u11a8",
    "\u1112\u1161", "\uac00\u11a8", "\u212b", "\u0958", "\u0374", "\u2126", "ộ", "o\u0323\u0302", "o\u0302\u0323",
    "Ἄ", "ς", "Σ", "I\u0307", "ŉ", "ﷺ", "Straße", "naïve", "Łódź", "\u4e2d文a", "x\u3007",
    "\U00020000", "\uf900",
    "カ゚", "がぎ", "\ue000", "\U000f0000", "\u2060", "\u061c", "don’t", "“quoted”", "a—b", "$9.99",
    "^`+=~|", "½cup",
    "unaffable", "antidisestablishmentarianism", "x" * 120, "é" * 101, "a" * 100, "a" * 101]

def ranges(text):
    return {chr(c) for r in text.split() for c in range(int(r.split("-")[0], 16), int(r.split("-")[-1], 16) + 1)}
# NFC: combining marks of Unicode 10 to 14, whose classes its normaliser does not know: beside another mark they stand
# in another order
NEW_MARKS = ranges("7FD 898-89F 8CA-8D3 9FE C3C D3B D3C EBA 1715 1ABF-1ACE 1DF6-1DFA A82C 10D24-10D27 10EAB 10EAC "
    "10F46-10F50 10F82-10F85 11070 1133B 1145E 11839 1183A 11930 1193D 1193E 11943 "
    "119E0 11A34 11A47 11A99 11D42 11D44 11D45 11D97 16FF0 16FF1 1E130-1E136 1E2AE 1E2EC-1E2EF")

# BERT: marks, punctuation and format characters whose class came or changed after Unicode 8
NEW_CLASSES = ranges(
    "61D 7FD 890-891 898-89F 8CA-8E2 9FD-9FE A76 AFA-AFF B55 C04 C3C C77 C84 D00 D3B-D3C D81 EBA 166D 1734 180F "
    "1885-1886 1ABF-1ACE 1B7D-1B7E 1DF6-1DFB 2E43-2E4F"
    " 2E52-2E5D A82C A8C5 A8FF A9BD 10D24-10D27 10EAB-10EAD 10F46-10F50 10F55-10F59 10F82-10F89 11070 "
    "11073-11074 110C2 110CD 111C9 111CF 1123E 1133B 11438-1143F"
    " 11442-11444 11446 1144B-1144F 1145A-1145B 1145D-1145E 11660-1166C 116B9 1182F-11837 11839-1183B "
    "11938 1193B-1193C 1193E 11943-11946 119D4-119D7 119DA-119DB 119E0"
    " 119E2 11A01-11A0A 11A33-11A38 11A3B-11A47 11A51-11A56 11A59-11A5B 11A8A-11A96 11A98-11A9C "
    "11A9E-11AA2 11C30-11C36 11C38-11C3D 11C3F 11C41-11C45 11C70-11C71"
    " 11C92-11CA7 11CAA-11CB0 11CB2-11CB3 11CB5-11CB6 11D31-11D36 11D3A 11D3C-11D3D 11D3F-11D45 11D47 "
    "11D90-11D91 11D95 11D97 11EF3-11EF4 11EF7-11EF8 11FFF 12FF1-12FF2"
    " 13430-13438 16E97-16E9A 16F4F 16FE2 16FE4 1CF00-1CF2D 1CF30-1CF46 1E000-1E006 1E008-1E018 "
    "1E01B-1E021 1E023-1E024 1E026-1E02A 1E130-1E136 1E2AE 1E2EC-1E2EF"
    " 1E944-1E94A 1E95E-1E95F")

def random_string(r):
    out = []
    for _ in range(r.randint(0, 12)):
        k = r.random()
        if k < 0.30: out.append(r.choice(PIECES))
        elif k < 0.40: out.append(r.choice(NASTY))
        elif k < 0.50: out.append("".join(r.choice(MARKS) for _ in range(r.randint(1, 4))))
        elif k < 0.56: out.append(" " * r.randint(1, 60))
        elif k < 0.68: out.append(r.choice(SPACES) * r.randint(1, 3))
        elif k < 0.85: out.append("".join(chr(r.randint(32, 126)) for _ in range(r.randint(1, 6))))
        else:
            c = r.choice((r.randint(0x80, 0x2fff), r.randint(0x3000, 0xd7ff), r.randint(0x10000, 0x1ffff)))
            out.append(chr(c) if unicodedata.category(chr(c)) not in ("Cn", "Cs") else "?")
    return "".join(out)

def code_points():
    """Assigned in Unicode 14 or earlier, by this Python's tables (3.11 has 14.0): alone, doubled, between letters,
    digits, spaces and marks."""
    assert unicodedata.unidata_version == "14.0.0", unicodedata.unidata_version
    for c in range(0x110000):
        if unicodedata.category(chr(c)) not in ("Cn", "Cs"):
            x = chr(c)
            for s in (x, x + x, "a" + x + "b", "1" + x + "2", " " + x + " ", "a" + x + "1 " + x,
                "a\u0345" + x + "\u0338"):
                yield s

def texts(path):
    for line in gzip.open(path, "rt", encoding="utf-8") if path.endswith(".gz") else open(path, encoding="utf-8"):
        for v in json.loads(line).values():
            if isinstance(v, str): yield v

# ---- fixtures

def write():
    r = random.Random(14)
    basic = PIECES + list(SPACES) + [" " + p for p in PIECES] + ["", " ", "This film is",
        "I can't believe it's not 1999!  \n\n Really...", "x" * 300, "ab " * 40]
    bpe = Tokenizer.from_file(os.path.join(DEMO, "tokenizer.json"))
    expected("bpe.jsonl", bpe, basic + [random_string(r) for _ in range(400)])
    neox = neox_form()
    expected("neox.jsonl", neox, basic + NASTY + [" " * n + "x" * (n % 2) for n in range(1, 60)]
        + [a + "\u0301" + b for a in ("<|endoftext|>", "cafe", "  ", "e") for b in ("", "x", " ")]
        + [random_string(r) for _ in range(400)])

    bert = bert_form()
    expected("wordpiece.jsonl", bert, basic + NASTY + ["[CLS]" + p + "[MASK]" for p in PIECES]
        + [a + b for a in ("caf", "a", "\u4e2d", "!") for b in MARKS] + [random_string(r) for _ in range(400)], True)

BERT_SETTINGS = [(dict(tokenizer_class=k, **c), n) for k, c, n in (
    ("BertTokenizer", dict(do_lower_case=False), None),
    ("DistilBertTokenizer", dict(strip_accents=False), None),
    ("BertTokenizer", dict(do_lower_case=False, strip_accents=True), None),
    ("BertTokenizer", dict(tokenize_chinese_chars=False), None),
    ("DistilBertTokenizer", dict(do_lower_case=True, strip_accents=None), dict(lowercase=False, strip_accents=False)),
    ("PreTrainedTokenizerFast", dict(do_lower_case=True), dict(lowercase=False)),
    ("PreTrainedTokenizerFast", dict(), dict(strip_accents=False, handle_chinese_chars=False)),
    ("PreTrainedTokenizerFast", dict(), dict(clean_text=False)))]

def bert_folder(folder, config, normalizer):
    """BERT's form with settings: in tokenizer_config.json beside vocab.txt, or beside a tokenizer.json that has others
    (or rules, if the class is no BERT's)."""
    os.makedirs(folder, exist_ok=True)
    for f in os.listdir(folder): os.remove(os.path.join(folder, f))
    if normalizer is None: shutil.copy(os.path.join(FIXTURES, "distilbert", "vocab.txt"), folder)
    else:
        j = json.load(open(os.path.join(FIXTURES, "wordpiece", "tokenizer.json"), encoding="utf-8"))
        j["normalizer"].update(normalizer)
        json.dump(j, open(os.path.join(folder, "tokenizer.json"), "w"))
    json.dump(config, open(os.path.join(folder, "tokenizer_config.json"), "w"))
    return folder

def write_settings():
    r, folder = random.Random(15), tempfile.mkdtemp()
    strings = [s for s in PIECES + NASTY + ["[CLS]\u00c9x[MASK]", "A\u0301\u0323b", "\u0130I\u0307",
        "a\x0bb\x0cc\x85d\x01e\u200bf", "Caf\u00e9 CAFE\u0301", "\u4e2dA\u6587"] + [random_string(r) for _ in range(40)]
               if "\x00" not in s and not NEW_CLASSES.intersection(s)]
    with open(os.path.join(FIXTURES, "wordpiece_settings.jsonl"), "w", encoding="utf-8") as f:
        for config, normalizer in BERT_SETTINGS:
            t = AutoTokenizer.from_pretrained(bert_folder(folder, config, normalizer))
            f.write(json.dumps({"config": json.dumps(config), "normalizer": normalizer,
                "strings": [[s, t(s)["input_ids"]] for s in strings]}, ensure_ascii=False, separators=(",", ":"))
                + "\n")

def bert_form():
    """A vocabulary of a few hundred entries in the form of bert-base-uncased's, as vocab.txt (beside the model that
    golden_bert.py writes) and as tokenizer.json. Training breaks ties at random, so a vocabulary that is there
    stays."""
    path = os.path.join(FIXTURES, "distilbert", "vocab.txt")
    if not os.path.exists(path):
        t = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
        t.normalizer, t.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
        words = [s for f in ("prompts.jsonl", "prompts_test.jsonl")
            for s in texts(os.path.join(HERE, "demo", f))] * 3 + PIECES + NASTY
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        t.train_from_iterator(words, trainers.WordPieceTrainer(vocab_size=500, special_tokens=special,
            continuing_subword_prefix="##"))
        vocab = sorted(t.get_vocab(), key=t.get_vocab().get)
        for folder in ("wordpiece", "distilbert"): os.makedirs(os.path.join(FIXTURES, folder), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f: f.write("\n".join(vocab) + "\n")
    t = BertTokenizerFast.from_pretrained(os.path.dirname(path)).backend_tokenizer
    t.save(os.path.join(FIXTURES, "wordpiece", "tokenizer.json"), pretty=False)
    return t

def neox_form():
    """The demo's vocabulary in the form of the GPT-NeoX tokenizer, small: special tokens first, 24 runs of spaces added
    behind, NFC, merges as pairs; and what that file does not have: an added token that NFC changes, and one that stands
    in the vocabulary."""
    j = json.load(open(os.path.join(DEMO, "tokenizer.json"), encoding="utf-8"))
    vocab, merges = {"<|endoftext|>": 0, "<|padding|>": 1}, [m if isinstance(m, list) else m.split(" ")
        for m in j["model"]["merges"][:600]]
    for t in [t for t in sorted(j["model"]["vocab"], key=j["model"]["vocab"].get) if len(t) == 1] + ["".join(m)
        for m in merges]:
        vocab.setdefault(t, len(vocab))
    word = next(t for t in vocab if len(t) == 3 and t.isascii() and t.isalpha())
    added = [("<|endoftext|>", 0, False), ("<|padding|>", 1, False),
        (word, vocab[word], True)] + [(" " * n, len(vocab) + 24 - n, True) for n in range(24, 1, -1)]
    added += [("cafe\u0301", len(vocab) + 23, True), ("[PAD]", len(vocab) + 24, False)]
    j["normalizer"], j["model"]["vocab"], j["model"]["merges"] = {"type": "NFC"}, vocab, merges
    j["added_tokens"] = [dict(id=i, content=s, single_word=False, lstrip=False, rstrip=False, normalized=n,
        special=i < 2) for s, i, n in added]
    os.makedirs(os.path.join(FIXTURES, "neox"), exist_ok=True)
    t = Tokenizer.from_str(json.dumps(j))
    t.save(os.path.join(FIXTURES, "neox", "tokenizer.json"), pretty=False)
    # as transformers writes it back
    GPTNeoXTokenizerFast.from_pretrained(os.path.join(FIXTURES, "neox")).save_pretrained(
        os.path.join(FIXTURES, "neox_saved"))
    return t

def expected(name, t, strings, wordpiece=False):
    with open(os.path.join(FIXTURES, name), "w", encoding="utf-8") as f:
        for s in strings:
            if "\x00" not in s and not (t.normalizer and NEW_MARKS.intersection(s)):
                if wordpiece:
                    if not NEW_CLASSES.intersection(s):
                        f.write(json.dumps({"text": s, "ids": t.encode(s).ids}, ensure_ascii=False,
                            separators=(",", ":")) + "\n")
                    continue
                ids = t.encode(s, add_special_tokens=False).ids
                back = bytes_back(t)(s).decode()
                # Hugging Face's decoder takes an added token's \u00e9 for byte 0xe9
                assert back == t.decode(ids, skip_special_tokens=False) or "cafe\u0301" in s, s
                cut = t.decode(ids[:-1], skip_special_tokens=False)             # inside a character
                f.write(json.dumps({"text": s, "ids": ids, **({} if back == s else {"back": back}),
                    **({"cut": cut} if "\ufffd" in cut and "cafe\u0301" not in s else {})}, ensure_ascii=False,
                    separators=(",", ":")) + "\n")

# ---- the engine in this process

@functools.cache
def library():
    so = os.path.join(tempfile.mkdtemp(), "vbon.so")
    subprocess.check_call(["gcc", "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-march=native", "-fopenmp", "-w", "-shared",
        "-fPIC", "-DTESTING", "-I", os.path.dirname(HERE),
                           os.path.join(HERE, "..", "vbon.c"), "-o", so, "-ljansson", "-lutf8proc", "-lm"])
    lib, b, p, n, i = ctypes.CDLL(so), ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    out, ids, characters = ctypes.POINTER(n), ctypes.POINTER(i), ctypes.POINTER(ctypes.c_char)
    for f, result, arguments in ((lib.tokenizer_load, p, [b]), (lib.tokenizer_encode, ids, [p, b, n, out]),
        (lib.tokenizer_decode, characters, [p, ids, n, out]), (lib.tokenizer_vocab, i, [p]),
        (lib.tokenizer_eos, i, [p]), (lib.wordpiece_load, p, [b]),
        (lib.wordpiece_encode, ids, [p, b, n, n, out]), (lib.wordpiece_vocab, i, [p])):
        f.restype, f.argtypes = result, arguments
    return lib

class Engine:
    def __init__(self, folder):
        self.lib, self.free = library(), ctypes.CDLL(None).free
        self.free.argtypes = [ctypes.c_void_p]
        self.bpe = is_bpe(folder)
        self.tokenizer = (self.lib.tokenizer_load if self.bpe else self.lib.wordpiece_load)(folder.encode())
    def encode(self, s):
        b, n = s.encode(), ctypes.c_size_t()
        p = self.lib.tokenizer_encode(self.tokenizer, b, len(b),
            ctypes.byref(n)) if self.bpe else self.lib.wordpiece_encode(self.tokenizer, b, len(b), 0, ctypes.byref(n))
        ids = p[:n.value]
        self.free(p)
        return ids
    def decode(self, ids):
        n = ctypes.c_size_t()
        p = self.lib.tokenizer_decode(self.tokenizer, (ctypes.c_int * len(ids))(*ids), len(ids), ctypes.byref(n))
        out = p[:n.value]
        self.free(p)
        return out

def is_bpe(folder):
    path = os.path.join(folder, "tokenizer.json")
    return json.load(open(path, encoding="utf-8"))["model"]["type"] == "BPE" if os.path.exists(
        path) else os.path.exists(os.path.join(folder, "vocab.json"))

def reference(folder):
    return Tokenizer.from_file(os.path.join(folder, "tokenizer.json")) if is_bpe(
        folder) else BertTokenizerFast.from_pretrained(folder).backend_tokenizer

def bytes_back(t):
    """What decoding must give: the text, in NFC where the tokenizer normalises, but for the tokens that are cut out
    before."""
    raw = sorted((a.content for a in t.get_added_tokens_decoder().values() if not a.normalized), key=len, reverse=True)
    cut = re.compile("(" + "|".join(map(re.escape, raw)) + ")") if raw else None
    nfc = (lambda s: unicodedata.normalize("NFC", s)) if t.normalizer else (lambda s: s)
    return lambda s: "".join(p if i % 2 else nfc(p) for i, p in enumerate(cut.split(s) if cut else [s])).encode()

def fuzz(folder, n, seed, files, every_code_point=True):
    """Returns how many strings differ that hold no known exception."""
    ours, theirs, bad = Engine(folder), reference(folder), 0
    back, exceptions = bytes_back(theirs), NEW_CLASSES if not ours.bpe else NEW_MARKS if theirs.normalizer else set()
    def run(what, strings):
        nonlocal bad
        count, batch, differ, excepted, guilty = 0, [], 0, 0, set()
        def compare():
            nonlocal count, differ, excepted
            for s, e in zip(batch, theirs.encode_batch(batch, add_special_tokens=not ours.bpe)):
                ids = ours.encode(s)
                count += 1
                if ids == e.ids and (not ours.bpe or ours.decode(ids) == back(s)): continue
                holds = exceptions.intersection(s)
                if holds:
                    excepted += 1
                    guilty.update(holds)
                    continue
                differ += 1
                if differ < 8: print("differs:", ascii(s[:200]), ids[:40], e.ids[:40])
            batch.clear()
        for s in strings:
            batch.append(s)
            if len(batch) == 5000: compare()
        compare()
        print(f"{folder}: {what}: {count} strings, {differ} differ, and {excepted} with {len(guilty)} known exceptions",
            flush=True)
        bad += differ
    if every_code_point: run("all code points of Unicode 14", code_points())
    r = random.Random(seed)
    run(f"random strings, seed {seed}", (random_string(r) for _ in range(n)))
    for f in files: run(os.path.basename(f), texts(f))
    return bad

def speed(folder):
    e, r = Engine(folder), random.Random(1)
    n, words = 1 << 20, ["the", "movie", "was", "not", "1999", "wonderful", "it's"]
    kinds = {"words": " ".join(r.choice(words) for _ in range(n // 5)),
        "no space": "".join(r.choice("abcdefghij") for _ in range(n)), "one letter": "a" * n, "spaces": " " * n,
        "punctuation": "!" * n,
        "letters of 3 bytes": "日本語映画" * (n // 15), "combining marks": "e\u0301\u0323" * (n // 5),
        "marks alone": "a" + "\u0301\u0323" * (n // 4), "added tokens": "<|endoftext|>  " * (n // 15)}
    for name, text in kinds.items():
        text = text.encode()[:n].decode(errors="ignore")
        t = time.process_time()
        ids = e.encode(text)
        seconds = time.process_time() - t
        print(f"{folder}: {name}: {len(text.encode())} bytes, {len(ids)} tokens, {seconds:.3f} s of CPU")

if __name__ == "__main__":
    a = sys.argv[1:]
    if a == ["write"]: write(); write_settings()
    elif a == ["settings"]: write_settings()
    elif len(a) > 1 and a[0] == "fuzz":
        numbers, files = [int(x) for x in a[2:] if x.isdigit()], [x for x in a[2:] if not x.isdigit()]
        sys.exit(1 if fuzz(a[1], (numbers + [1000000])[0], (numbers[1:] + [1])[0], files) else 0)
    elif len(a) == 2 and a[0] == "speed": speed(a[1])
    else: sys.exit(__doc__)
