#!/usr/bin/env python3
"""Byte-level BPE against Hugging Face's tokenizers.

    python3 dev/bpe_fixtures.py write                     the committed fixture, dev/fixtures/bpe.jsonl
    python3 dev/bpe_fixtures.py fuzz TOKENIZER_DIR [N]    N random strings (default a million) and all code points of Unicode 14, live,
                                                          against lib/bpe.h compiled into a shared object

Fuzzing compares ids and checks that decoding gives the bytes back; it prints the exceptions and exits 1 if there are any."""
import ctypes, json, os, random, subprocess, sys, tempfile, unicodedata
from tokenizers import Tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
DEMO = os.path.join(HERE, "demo", "tokenizer")
SPACES = " \t\n\r\x0b\x0c\x85\xa0\u1680\u2003\u2028\u2029\u202f\u205f\u3000\u200b\ufeff"
PIECES = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'", "''", "<|endoftext|>", "<|endoftext", "the", " movie", "  ", "\n\n", "É", "e\u0301", "한국", "日本語", "العربية", "हिन्दी", "ไทย",
          "🎬", "👩‍👩‍👧‍👦", "🇫🇷", "1", "²", "½", "Ⅷ", "٣", "...", "!?", "_", "-", "<br />", "\u00ad", "ﬁ", "ß", "İ", "ǅ", "\U00010400", "\U0001d7d8", "\x00\x01", "\x7f", "\ufffd"]

def random_string(r):
    out = []
    for _ in range(r.randint(0, 12)):
        k = r.random()
        if k < 0.45: out.append(r.choice(PIECES))
        elif k < 0.65: out.append(r.choice(SPACES) * r.randint(1, 3))
        elif k < 0.85: out.append("".join(chr(r.randint(32, 126)) for _ in range(r.randint(1, 6))))
        else:
            c = r.choice((r.randint(0x80, 0x2fff), r.randint(0x3000, 0xd7ff), r.randint(0x10000, 0x1ffff)))
            out.append(chr(c) if unicodedata.category(chr(c)) not in ("Cn", "Cs") else "?")
    return "".join(out)

def code_points():
    """Assigned in Unicode 14 or earlier, by this Python's tables (3.11 has 14.0): alone, doubled, between letter, digit and space."""
    assert unicodedata.unidata_version == "14.0.0", unicodedata.unidata_version
    for c in range(0x110000):
        if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co"):
            x = chr(c)
            for s in (x, x + x, "a" + x + "b", "1" + x + "2", " " + x + " ", "a" + x + "1 " + x): yield s

def write():
    t, r = Tokenizer.from_file(os.path.join(DEMO, "tokenizer.json")), random.Random(14)
    strings = PIECES + list(SPACES) + [" " + p for p in PIECES] + ["", " ", "This film is", "I can't believe it's not 1999!  \n\n Really...", "x" * 300, "ab " * 40] + [random_string(r) for _ in range(400)]
    with open(os.path.join(HERE, "fixtures", "bpe.jsonl"), "w", encoding="utf-8") as f:
        for s in strings:
            if "\x00" not in s:
                f.write(json.dumps({"text": s, "ids": t.encode(s, add_special_tokens=False).ids}, ensure_ascii=False, separators=(",", ":")) + "\n")

def fuzz(folder, n):
    so = os.path.join(tempfile.mkdtemp(), "bpe.so")
    subprocess.check_call(["gcc", "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-march=native", "-fopenmp", "-w", "-shared", "-fPIC", "-DTESTING", "-I", os.path.dirname(HERE), os.path.join(HERE, "..", "vbon.c"),
                           "-o", so, "-ljansson", "-lutf8proc", "-lm"])
    lib = ctypes.CDLL(so)
    lib.tokenizer_load.restype = ctypes.c_void_p
    lib.tokenizer_encode.restype = ctypes.POINTER(ctypes.c_int); lib.tokenizer_encode.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_size_t)]
    lib.tokenizer_decode.restype = ctypes.POINTER(ctypes.c_char); lib.tokenizer_decode.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_int), ctypes.c_size_t, ctypes.POINTER(ctypes.c_size_t)]
    free = ctypes.CDLL(None).free; free.argtypes = [ctypes.c_void_p]
    ours, theirs, count = lib.tokenizer_load(folder.encode()), Tokenizer.from_file(os.path.join(folder, "tokenizer.json")), [0, 0]
    nfc = theirs.normalizer is not None
    def compare(batch):
        for s, e in zip(batch, theirs.encode_batch(batch, add_special_tokens=False)):
            b, m, k = s.encode(), ctypes.c_size_t(), ctypes.c_size_t()
            ids = lib.tokenizer_encode(ours, b, len(b), ctypes.byref(m))
            back = lib.tokenizer_decode(ours, ids, m.value, ctypes.byref(k))
            want = unicodedata.normalize("NFC", s).encode() if nfc else b
            if ids[:m.value] != e.ids or (back[:k.value] != want and not (nfc and "<|" in s)):
                count[1] += 1
                if count[1] < 20: print("differs:", ascii(s), ids[:m.value], e.ids)
            free(ids); free(back)
            count[0] += 1
    def run(strings):
        batch = []
        for s in strings:
            batch.append(s)
            if len(batch) == 5000: compare(batch); batch = []
        compare(batch)
    run(code_points())
    print(f"{folder}: all code points of Unicode 14: {count[0]} strings, {count[1]} differ", flush=True)
    r = random.Random(1)
    run(random_string(r) for _ in range(n))
    print(f"{folder}: with {n} random strings (seed 1): {count[0]} strings, {count[1]} differ")
    return count[1]

if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]: write()
    elif sys.argv[1:2] == ["fuzz"] and len(sys.argv) > 2: sys.exit(1 if fuzz(sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 1000000) else 0)
    else: sys.exit(__doc__)
