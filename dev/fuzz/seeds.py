"""The fuzzer's first inputs, made from the committed fixtures: python3 dev/fuzz/seeds.py OUT fills OUT/TARGET.

harness.h says what an input is. What is too long for a fuzzer is made small: models of width 8 (names of the fixtures,
other shapes), tokenizers of some letters and their merges.
"""
import glob, json, os, re, shlex, struct, sys

out, fixtures = sys.argv[1], "dev/fixtures/"


def seed(target, name, *parts):
    os.makedirs(f"{out}/{target}", exist_ok=True)
    data = b"\x1e\x1e".join(p if isinstance(p, bytes) else p.encode() for p in parts)
    open(f"{out}/{target}/seed-{name}", "wb").write(data)


def read(path):
    return open(path, "rb").read()


def weights(path):
    """Header and data of a safetensors file."""
    s = read(path)
    n, = struct.unpack("<Q", s[:8])
    return s[8:8 + n], s[8 + n:]


# weight files as they are, and by parts
for path in glob.glob(fixtures + "variants/*/model.safetensors") + [fixtures + "head.safetensors"]:
    name = path.split("/")[-2]
    seed("safetensors", name, b"", *weights(path))
    seed("safetensors", "raw-" + name, read(path))
one = '{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}'
index = '{"metadata":{"total_size":8},"weight_map":{"a":"a.safetensors","b":"b.safetensors"}}'
seed("safetensors", "shards", b"", b"", b"", index, one, b"\0\x2c" * 2, one.replace('"a"', '"b"'), b"\0\x2d" * 2)

# models: every integer of a fixture's configuration and every dimension of its weights becomes a small one;
# fields that nobody reads are left out
known = set(re.findall(r'"(\w+)"', "".join(open(f).read() for f in glob.glob("lib/*.h") + glob.glob("*.h"))))
patterns = ("*/config.json", "variants/*/config.json", "configs/*")
for path in (p for pattern in patterns for p in glob.glob(fixtures + pattern)):
    name, config, folder = path.split("/")[-2] + path.split("/")[-1][:-5], json.loads(read(path)), os.path.dirname(path)
    seed("config", "whole-" + name, json.dumps(config, separators=(",", ":")))
    base = config.get("base_config", config)
    for key in [k for k in base if k not in known]:
        del base[key]
    C, V, T = (next(base[k] for k in keys if k in base) for keys in (
        ("n_embd", "hidden_size", "dim"), ("vocab_size",), ("n_positions", "max_position_embeddings")))
    small = {V: 5, T: 4, 4 * C: 32, 3 * C: 24, 40: 6, C: 8}
    for key, x in base.items():
        if isinstance(x, int) and not isinstance(x, bool):
            one_of = "head" in key or "layer" in key
            base[key] = 1 if one_of else 4 if key.endswith("_id") and x > 4 else small.get(x, x)
    header, data = {}, b""
    for file in sorted(glob.glob(folder + "/model*.safetensors")):
        for key, t in json.loads(weights(file)[0]).items():
            if key == "__metadata__" or re.search(r"\.[1-9]\.", key):
                continue
            shape, n = [small.get(x, x) for x in t["shape"]], 1
            for x in shape:
                n *= x
            header[key] = {"dtype": "F16", "shape": shape, "data_offsets": [len(data), len(data) + 2 * n]}
            data += b"\0\x2c" * n
    if header:
        seed("config", name, json.dumps(config, separators=(",", ":")), json.dumps(header, separators=(",", ":")), data)

# tokenizers of the letters below
letters = "ĠĊabcdefghinorstuH!.,'1Ã©"
for path in ("dev/demo/tokenizer", fixtures + "neox", fixtures + "neox_saved"):
    name, t = path.split("/")[-1], json.loads(read(path + "/tokenizer.json"))
    settings = read(path + "/tokenizer_config.json") if os.path.exists(path + "/tokenizer_config.json") else b""
    pairs = [m.split(" ") if isinstance(m, str) else m for m in t["model"]["merges"]]
    pairs = [m for m in pairs if all(c in letters for c in m[0] + m[1])][:24]
    added = t["added_tokens"][:4]
    keep = list(letters) + ["".join(m) for m in pairs]
    vocab = {w: i for i, w in enumerate(w for w in dict.fromkeys(keep) if w not in [a["content"] for a in added])}
    for i, a in enumerate(added):
        a["id"] = len(vocab) + i
    t["added_tokens"], t["model"]["vocab"] = added, vocab
    t["model"]["merges"] = [" ".join(m) if isinstance(t["model"]["merges"][0], str) else m for m in pairs]
    for i, text in enumerate(("the notes", "this is<|endoftext|>  it's 11!\n\n and so on", "Here café")):
        seed("bpe", f"{name}-{i}", text, json.dumps(t, ensure_ascii=False, separators=(",", ":")), settings)
        seed("bpe", f"old-{name}-{i}", text, b"", settings, json.dumps({"eos_token": added[0]["content"]}),
             json.dumps(vocab, ensure_ascii=False), "#version: 0.2\n" + "\n".join(" ".join(m) for m in pairs) + "\n",
             json.dumps({a["content"]: a["id"] for a in added}), json.dumps({"eos_token_id": added[0]["id"]}))
bert = read(fixtures + "distilbert/vocab.txt").split(b"\n")
words = [w for w in bert if len(w.decode()) < 3][:60] + [w for w in bert if len(w) > 4][:20]
t = json.loads(read(fixtures + "wordpiece/tokenizer.json"))
t["model"]["vocab"] = {w.decode(): i for i, w in enumerate(words)}
for i, text in enumerate(("the cat [MASK] sat", "Éa caf\u0301e, 中文!", "aa" * 60)):
    seed("wordpiece", f"vocab-{i}", b"\x08", text, b"\n".join(words) + b"\n", b"", '{"do_lower_case":true}')
    seed("wordpiece", f"json-{i}", b"\x08", text, b"", json.dumps(t, ensure_ascii=False, separators=(",", ":")))

# lines, for each of their readers; texts
prompts = b"".join(b'{"prompt":"%s"}\n' % p for p in (b"This film", b"I", "café".encode()))
sample = '{"prompt":"I","text":" am","reward":%s,"ids":[314,%d],"logp":-1.5,"draw":%d,"finished":true}\n'
cache = '{"vbon_cache":1,"model":"m","temperature":1.0}\n'
cache += "".join(sample % (r, 5 + i, i) for i, r in enumerate((-0.5, 1e9, 2)))
plain = '{"prompt":"I","text":" am","reward":1,"F":0.5}\n{"prompt":"I","text":" was","reward":2,"F":1}\n'
many = '{"prompt":"I","responses":["a","b"],"rewards":[1,2.5]}\n'
many += '{"prompt":"A","keys":["%016x","%016x"],"logps":[-1,-2],"texts":{"1":"x"},"rewards":[1,1]}\n'
pair = '{"prompt":"I","chosen":" am","rejected":" was"}\n{"prompt":"A","chosen":" b","rejected":""}\n'
text = '{"text":"A good film."}\n{"prompt":"I","response":" am"}\n'
label = '{"text":"A good film.","label":1}\n{"text":"Bad","label":0}\n'
for i, lines in enumerate((prompts, cache, plain, many % (1, 2), pair, text, label)):
    for which in range(8):
        seed("data", f"{i}-{which}", bytes([which, 2 + 16 * i]), lines)
for file in ("bpe", "neox", "wordpiece"):
    for i, line in enumerate(open(f"{fixtures}{file}.jsonl", encoding="utf-8")):
        if i % 12 == 0 and len(line) < 2000:
            seed("text", f"{file}-{i}", json.loads(line)["text"].encode("utf-8", "surrogatepass"))

# the README's commands, and the presets
names = re.findall(r'^    \{"(\w+)", cmd_', read("lib/commands.h").decode(), re.M)
readme = read("README.md").decode()
for name, flags in re.findall(r"\b([MR])=\"([^\"]*)\"", readme):
    readme = readme.replace("$" + name, flags)
lines = re.findall(r"^\./vbon (\w+) (.*)$", readme, re.M)
presets = re.findall(r'^    \{"([\w-]+)", "--', read("lib/args.h").decode(), re.M)
lines += [("train", f"--preset {p} --n 4") for p in presets]
for i, (command, flags) in enumerate(lines):
    if command in names:
        words = "".join(w + "\0" for w in shlex.split(flags, comments=True))
        seed("flags", str(i), bytes([names.index(command)]) + words.encode())
