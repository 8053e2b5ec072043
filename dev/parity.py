#!/usr/bin/env python3
"""make parity SEED=...: random models of every architecture, through transformers and through ./vbon.

    python3 dev/parity.py SEED [--models N] [--large CONFIG.json] [--data DIR]     (packages: dev/requirements.txt)

From the seed it draws configurations (widths, heads, layers, rotary share and base, activation, tied or not, parallel
or not, type, shards, the spelling of config.json; of activations every name of transformers that is one of our
functions), has transformers write random models with them, and compares:
  tokens and log-probabilities of given texts (vbon score): every position, two temperatures; and of each token of the
      vocabulary after a prompt
  greedy decoding through the KV cache (vbon sample --top-k 1): ids, and the log-probability of what was drawn
  rewards (vbon score --reward): ForSequenceClassification, and cleanrl's form; one text ends in the end-of-text token,
      which is the padding, or is not, or there is none
  the gradient of every parameter (vbon sft --steps 1): one AdamW step with lr = eps = 1e6 subtracts the gradient itself
  rewards of DistilBERT classifiers (vbon score --reward): see parity_bert.py
  what a folder may ask for and we do not do (vbon score): refused in one line that names file and field; so are texts
      of nothing, or equal
  three tokenizers on nasty strings (lib/bpe.h, wordpiece.h): see tokenizer_fixtures.py, which also does every code
      point and a million strings; --data DIR: GPT-2's, Pythia's and BERT's own, of DIR/tokenizers, on reviews and posts
  folders that name special tokens in every way (lib/special.h): see special_tokens.py: ids, and what ends a text; or
      refused by a line
  what was a pickle (to_safetensors.py): killed between two files, without one of them, and again
  what vbon wrote, read by from_pretrained (vbon sft, vbon reward): log-probabilities, rewards, tokenizer, no missing or
      unexpected tensor
The other side is float64 with exact rotary tables, from the same rounded weights; vbon is the float build, so the
tolerances are float's: 5e-5 of the larger of 1 and the value (gradients: of the tensor's largest). --large builds a
model of that config's full size in float16 and scores with it; it also checks the memory that loading needs."""
import argparse, json, os, random, shutil, subprocess, sys, tempfile, time
import safetensors.torch, torch
from tokenizers import Tokenizer
from transformers import (AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, GPT2Config,
    GPTNeoXConfig)
from transformers.activations import ACT2FN
from transformers.utils import logging
from safetensors.torch import load_file, save_file
import parity_bert, special_tokens, to_safetensors
from tokenizer_fixtures import fuzz
from golden import ScalarModel  # and with it float64 and the exact rotary tables

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOKENIZER, EOS, TOL = os.path.join(ROOT, "dev", "demo", "tokenizer"), 1999, 5e-5
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "fp64": torch.float64}
WORDS = ("the film was a long and beautiful waste of time, I loved it! <br /> naïve café 東京 \U0001f600 don't "
    "1984 \n isn't  over-acted . Dr. O'Brien's plot").split(" ")
WHITE = [" ", "  ", "\n", "\n\n", "\t", " \t\n ", "\r\n", "\u00a0", "\u3000"]   # texts of nothing but white space
failures, checks, worst = 0, 0, {}

def activations():
    """The names of transformers' activations, in two lists: those that are one of our three functions, by their values,
    and the others."""
    logging.set_verbosity_error()
    x, ours, others = torch.linspace(-30, 30, 6001, dtype=torch.float64), [], []
    for name in sorted(ACT2FN):
        try: y = ACT2FN[name].double()(x).detach()
        except Exception: y = x.new_full(x.shape, float("nan"))
        same = any(float((y - ACT2FN[f](x)).abs().max()) < 1e-8 for f in ("gelu", "gelu_new", "relu"))
        (ours if same else others).append(name)
    return ours, others
OURS, OTHERS = activations()

def check(what, error, tolerance=TOL):
    """error is relative already; written so that NaN fails."""
    global failures, checks
    checks += 1
    worst[what] = max(worst.get(what, 0), error) if error == error else float("nan")
    if not error <= tolerance:
        failures += 1
        print(f"  FAIL {what}: {error:.3g} (tolerance {tolerance:g})")

def difference(got, want):
    got, want = torch.as_tensor(got).double(), torch.as_tensor(want).double()
    if got.shape != want.shape: return float("inf")
    return float(((got - want).abs() / want.abs().clamp(min=1)).max()) if got.numel() else 0.0

# bytes of the largest run measured. A process in between: a child of this one would be charged with our own memory
peak = 0
MEASURE = ("import resource, subprocess, sys; p = subprocess.run(sys.argv[1:]); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=open(3, 'w')); sys.exit(p.returncode)")

def vbon(*args, program="vbon"):
    global peak
    r, w = os.pipe()
    p = subprocess.run(["sh", "-c", f'exec "$@" 3>&{w}', "sh", sys.executable, "-c", MEASURE,
        os.path.join(ROOT, program), *map(str, args)], capture_output=True, text=True, pass_fds=[w])
    os.close(w)
    with open(r) as f: peak = max(peak, 1024 * int(f.read()))
    if p.returncode: sys.exit(f"vbon {' '.join(map(str, args))}: {p.stderr.strip()}")
    return p.stdout

def refused(*args):
    """What vbon says, in one line, when it does not do what it is told; nothing when it does."""
    p = subprocess.run([os.path.join(ROOT, "vbon"), *map(str, args)], capture_output=True, text=True)
    check("one line when something is refused", float(p.returncode not in (0, 1)
        or (p.returncode == 1 and p.stderr.count("\n") != 1)), 0)
    return p.stderr.strip() if p.returncode else ""

def write_lines(path, records):
    with open(path, "w") as f:
        for r in records: f.write(json.dumps(r, ensure_ascii=False) + "\n")
    return path

def read_lines(path, records):
    """The lines that a command wrote for these records, one each."""
    got = [json.loads(line) for line in open(path, encoding="utf-8")]
    check("a line for each that was given", float(len(got) != len(records)), 0)
    return got

# ---------------------------------------------------------------------------- models

def draw_config(rng, arch, head=False):
    HS = rng.choice([4, 8, 12, 16, 24, 64, 80, 128, 256])
    NH = rng.randint(1, max(1, min(6, 320 // HS)))
    C, L, T, V = HS * NH, rng.randint(1, 4), rng.randint(64, 200), rng.randint(2000, 2100)
    F = rng.choice([4 * C, 2 * C + 4, C + 12])
    tied, eps, act = rng.random() < 0.5, rng.choice([1e-5, 1e-3, 1e-6]), rng.choice(OURS)
    more = dict(num_labels=1) if head else {}
    if arch == "gpt2":
        return GPT2Config(n_layer=L, n_embd=C, n_head=NH, n_inner=rng.choice([None, F]), vocab_size=V, n_positions=T,
            layer_norm_epsilon=eps, activation_function=act,
            tie_word_embeddings=tied, reorder_and_upcast_attn=rng.random() < 0.3, bos_token_id=EOS,
            eos_token_id=EOS, attn_pdrop=0, resid_pdrop=0, embd_pdrop=0, **more)
    dims = 2 * rng.randint(1, HS // 2)
    share = rng.choice([dims / HS, min(1.0, (dims + 0.3) / HS)])   # rounded down to the same dimensions
    if int(HS * share) != dims: share = 1.0
    return GPTNeoXConfig(num_hidden_layers=L, hidden_size=C, num_attention_heads=NH, intermediate_size=F, vocab_size=V,
        max_position_embeddings=T, layer_norm_eps=eps,
        hidden_act=act, tie_word_embeddings=tied, use_parallel_residual=rng.random() < 0.6,
        bos_token_id=EOS, eos_token_id=EOS, attention_dropout=0, hidden_dropout=0,
        classifier_dropout=0.0, rope_parameters={"rope_type": "default",
                         "rope_theta": rng.choice([100.0, 10000.0, 1e6]), "partial_rotary_factor": share}, **more)

def randomise(model, seed):
    g = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        norm = p.dim() == 1 and name.endswith("weight")
        std = 0.1 if p.dim() == 1 else 1.2 / p.shape[0 if "c_" in name else 1] ** 0.5
        p.data = torch.randn(p.shape, generator=g, dtype=torch.float64) * std + (1.0 if norm else 0.0)
    if hasattr(model, "tie_weights"): model.tie_weights()

def respell(rng, folder, cfg):
    """config.json as transformers 4 wrote it, and sometimes its names and buffers."""
    path = os.path.join(folder, "config.json")
    c = json.load(open(path))
    inner = c.get("base_config", c)
    if "dtype" in inner: inner["torch_dtype"] = inner.pop("dtype")
    rope = inner.pop("rope_parameters", None)
    if rope:
        inner.update(rotary_pct=rope["partial_rotary_factor"], rotary_emb_base=rope["rope_theta"], rope_scaling=None)
    json.dump(c, open(path, "w"), indent=2)
    one = os.path.join(folder, "model.safetensors")
    if not os.path.exists(one) or "base_config" in c or rng.random() < 0.5: return
    state = {k.removeprefix("transformer.").removeprefix("gpt_neox."): v for k, v in load_file(one).items()}
    T = 8
    for l in range(cfg.num_hidden_layers):
        at = f"h.{l}.attn" if cfg.model_type == "gpt2" else f"layers.{l}.attention"
        state.update({f"{at}.bias": torch.ones(1, 1, T, T, dtype=torch.bool).tril(),
            f"{at}.masked_bias": torch.tensor(-1e9, dtype=torch.float32)})
        if rope: state[f"{at}.rotary_emb.inv_freq"] = torch.ones(2, dtype=torch.float32)
    save_file(state, one, metadata={"format": "pt"})

def write_model(rng, model, folder, dtype, shards):
    """The rounded model in `folder`; returns it in float64 for the other side."""
    model = model.to(TYPES[dtype])
    if shards and not isinstance(model, ScalarModel):
        model.save_pretrained(folder, max_shard_size=f"{rng.randint(30, 300)}KB")
    else: model.save_pretrained(folder)
    for name in os.listdir(TOKENIZER): shutil.copy(os.path.join(TOKENIZER, name), folder)
    return model.double().eval()

def through_pickle(folder, cfg):
    """As old checkpoints come, pytorch_model*.bin, a tied head one in memory with its embedding, and made into
    safetensors again."""
    for name in [n for n in os.listdir(folder) if n.endswith(".safetensors")]:
        state = load_file(os.path.join(folder, name))
        for k in [k for k in state if k.endswith(("wte.weight", "embed_in.weight"))]:
            if cfg.tie_word_embeddings and name == "model.safetensors":
                state["lm_head.weight" if cfg.model_type == "gpt2" else "embed_out.weight"] = state[k]
        torch.save(state, os.path.join(folder, "pytorch_" + name[:-len("safetensors")] + "bin"))
        os.remove(os.path.join(folder, name))
    index = os.path.join(folder, "model.safetensors.index.json")
    if os.path.exists(index):
        j = json.load(open(index))
        j["weight_map"] = {k: "pytorch_" + v[:-len("safetensors")] + "bin" for k, v in j["weight_map"].items()}
        json.dump(j, open(os.path.join(folder, "pytorch_model.bin.index.json"), "w"))
        os.remove(index)
    to_safetensors.main(folder)

def compare_conversion(work):
    """Three files of a checkpoint, the last with two tensors that are one in memory: a conversion that dies before or
    between the renames leaves nothing that passes for whole."""
    folder = os.path.join(work, "pickles")
    index_path = os.path.join(folder, "model.safetensors.index.json")
    there = lambda: sorted(n for n in os.listdir(folder) if n.endswith(".safetensors"))
    g = torch.Generator().manual_seed(1)
    state = {f"{i}.{name}": torch.randn(3, 4 + i, generator=g).to(t) for i in range(3)
        for name, t in (("weight", torch.float16), ("other", torch.bfloat16))}
    state["2.same"] = state["2.other"]
    for die_at, left in ((("save_file", 2), 0), (("replace", 3), 2), (("replace", 4), 3), (None, 3)):
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        files = [f"pytorch_model-0000{i + 1}-of-00003.bin" for i in range(3)]
        for i, name in enumerate(files):
            torch.save({k: v for k, v in state.items() if k[0] == str(i)}, os.path.join(folder, name))
        json.dump({"weight_map": {k: files[int(k[0])] for k in state}},
            open(os.path.join(folder, "pytorch_model.bin.index.json"), "w"))
        if die_at: # at the n-th call; nothing tidies up behind it, as nothing does behind a killed process
            (place, name), n = {"save_file": (safetensors.torch, "save_file"), "replace": (os, "replace")}[die_at[0]], 0
            real = getattr(place, name)
            def dying(*args, **more):
                nonlocal n
                n += 1
                if n == die_at[1]: raise KeyboardInterrupt
                return real(*args, **more)
            setattr(place, name, dying)
            try: to_safetensors.main(folder)
            except KeyboardInterrupt: pass
            setattr(place, name, real)
            check("a conversion dies where it should", float(n != die_at[1] or len(there()) != left), 0)
        to_safetensors.main(folder)
        index = json.load(open(index_path))["weight_map"]
        got = {k: v for name in there() for k, v in load_file(os.path.join(folder, name)).items()}
        check("what was a pickle", float(got.keys() != state.keys()
            or any(not torch.equal(got[k], state[k]) or got[k].dtype != state[k].dtype for k in state)
              or index != {k: f"model-0000{int(k[0]) + 1}-of-00003.safetensors" for k in state}
              or any(n.endswith(".tmp") for n in os.listdir(folder))), 0)
    # an index that names what is not there: theirs where ours is gone, then ours
    for name in ("pytorch_model-00003-of-00003.bin", "model-00002-of-00003.safetensors"):
        if name.startswith("pytorch"): os.rename(index_path, index_path + ".aside")
        else: os.rename(index_path + ".aside", index_path)
        os.remove(os.path.join(folder, name))
        try: to_safetensors.main(folder); refused = False
        except SystemExit as e: refused = f"names {name}" in str(e)
        check("a conversion refuses what is not whole", float(not refused), 0)
    shutil.rmtree(folder)

# ---------------------------------------------------------------------------- comparisons

def logps(model, ids, first, temperature=1.0):
    """log p of ids[first:] given what stands before."""
    with torch.no_grad(): lp = torch.log_softmax(model(torch.tensor([ids])).logits[0].double() / temperature, -1)
    return [float(lp[t - 1, ids[t]]) for t in range(first, len(ids))]

def draw_texts(rng, tok, n, limit):
    """Texts with prompts that are no two the same; one is nothing but white space."""
    out = {}
    while len(out) < n:
        prompt, response = " ".join(rng.choices(WORDS, k=rng.randint(1, 8))), " " + " ".join(
            rng.choices(WORDS, k=rng.randint(1, 9)))
        if len(out) == n - 1: prompt, response = rng.choice(WHITE), rng.choice(WHITE)
        if prompt and len(tok.encode(prompt).ids) + len(tok.encode(response).ids) <= limit:
            out.setdefault(prompt, {"prompt": prompt, "response": response})
    return rng.sample(list(out.values()), n)

def compare_scores(tok, model, folder, texts, work, temperature, what="log-probabilities"):
    out = os.path.join(work, "scored.jsonl")
    vbon("score", "--model", folder, "--in", write_lines(os.path.join(work, "texts.jsonl"), texts), "--out", out,
        "--temperature", temperature)
    for text, got in zip(texts, read_lines(out, texts)):
        p, r = tok.encode(text["prompt"]).ids, tok.encode(text["response"]).ids
        check("tokens", 0.0 if got["tokens"] == r else 1.0, 0)
        check(what, difference(got["logps"], logps(model, p + r, len(p), temperature)))

def compare_vocabulary(tok, model, folder, texts, work):
    """The whole next-token distribution, from what there is: every token that is a string of its own, scored as the
    response to one prompt."""
    prompt, out = texts[0]["prompt"], os.path.join(work, "vocabulary.jsonl")
    responses = [s for i, s in ((i, tok.decode([i], skip_special_tokens=False)) for i in range(EOS)) if s != "\0"
        and tok.encode(s).ids == [i]]
    check("tokens that are strings of their own", float(len(responses) < EOS // 2), 0)
    texts = [{"prompt": prompt, "response": s} for s in responses]
    vbon("score", "--model", folder, "--in", write_lines(os.path.join(work, "texts.jsonl"), texts), "--out", out)
    with torch.no_grad():
        want = torch.log_softmax(model(torch.tensor([tok.encode(prompt).ids])).logits[0, -1].double(), -1)
    got = read_lines(out, texts)
    check("log-probabilities of the vocabulary", difference([g["logp"] for g in got],
        want[[i for g in got for i in g["tokens"]]]))

def compare_greedy(tok, model, folder, texts, work):
    out, new = os.path.join(work, "greedy.jsonl"), 12
    vbon("sample", "--model", folder, "--prompts", write_lines(os.path.join(work, "prompts.jsonl"), texts), "--top-k",
        1, "--max-new", new, "--out", out)
    for text, got in zip(texts, read_lines(out, texts)):
        p = tok.encode(text["prompt"]).ids
        want = model.generate(torch.tensor([p]), max_new_tokens=new, do_sample=False, use_cache=True, eos_token_id=EOS,
            pad_token_id=EOS)[0].tolist()[len(p):]
        if got["ids"] != want:   # a tie within rounding may go either way
            k = next(i for i, (a, b) in enumerate(zip(got["ids"] + [-1], want + [-1])) if a != b)
            with torch.no_grad(): top = model(torch.tensor([p + want[:k]])).logits[0, -1].topk(2).values
            check("greedy decoding: gap where it differs", float(top[0] - top[1]))
        check("log-probability of the greedy response",
            difference(got["logp"], sum(logps(model, p + got["ids"], len(p)))))

def reward(model, ids):
    with torch.no_grad():
        return float(model(torch.tensor([ids])).reshape(-1)[0] if isinstance(model, ScalarModel)
            else model(torch.tensor([ids])).logits[0, 0])

def compare_rewards(tok, model, folder, policy, texts, work, what="rewards"):
    out = os.path.join(work, "rewarded.jsonl")
    vbon("score", "--model", policy, "--reward", folder, "--reward-scale", 2, "--reward-offset", -1, "--in",
        write_lines(os.path.join(work, "texts.jsonl"), texts), "--out", out)
    for text, got in zip(texts, read_lines(out, texts)):
        check(what, difference(got["reward"], 2 * reward(model,
            tok.encode(text["prompt"]).ids + tok.encode(text["response"]).ids) - 1))

def compare_refusals(rng, arch, tok, work):
    """What transformers would compute otherwise, or not at all, and a text that is empty: by name, or equal."""
    folder, cfg = os.path.join(work, "refused"), draw_config(rng, arch)
    write_model(rng, AutoModelForCausalLM.from_config(cfg), folder, "fp32", False)
    path, texts = os.path.join(folder, "config.json"), os.path.join(work, "texts.jsonl")
    good = json.load(open(path))
    rope, heads = good.get("rope_parameters"), cfg.num_attention_heads
    wrong = [({"gpt2": "activation_function", "gpt_neox": "hidden_act"}[arch], name)
        for name in OTHERS + [None]] + [({"gpt2": "layer_norm_epsilon", "gpt_neox": "layer_norm_eps"}[arch], x)
        for x in (1e308, 0, "1e-5")]
    wrong = rng.sample(wrong, 6) + ([("scale_attn_weights", False), ("scale_attn_weights", 0),
        ("scale_attn_by_inverse_layer_idx", True), ("scale_attn_by_inverse_layer_idx", 1),
        ("scale_attn_by_inverse_layer_idx", "true"),
             ("reorder_and_upcast_attn", 1),
             ("add_cross_attention", True),
             ("num_attention_heads", heads + 1)] if arch == "gpt2" else
             [("attention_bias", False), ("use_parallel_residual", 1), ("rope_theta", 123.0),
             ("partial_rotary_factor", 0.0123), ("rotary_emb_base", 1e-300), ("rotary_pct", 0.251e308),
             ("head_dim", 1000),
              *(("rotary", dict(rope, rope_type=kind, factor=2.0)) for kind in ("linear", "dynamic", "yarn"))])
    write_lines(texts, draw_texts(rng, tok, 2, 50))
    score = ("score", "--model", folder, "--in", texts, "--out", os.path.join(work, "nothing.jsonl"))
    check("a folder as it should be", float(refused(*score) != ""), 0)
    for key, value in rng.sample(wrong, 8):
        json.dump(dict(good, **{"rope_parameters" if key == "rotary" else key: value}), open(path, "w"))
        said = refused(*score)
        ok = "config.json" in said and (key in said or (key == "rope_theta" and "rotary_emb_base" in said)
            or (key == "partial_rotary_factor" and "rotary_pct" in said))
        if not ok: print(f"  {key}: {value!r}: {said}")
        check("refused by file and field", float(not ok), 0)
    json.dump(good, open(path, "w"))
    adapter = os.path.join(folder, rng.choice(["adapter_config.json", "adapter_model.safetensors"]))
    open(adapter, "w").write("{}")
    check("refused by file and field", float(adapter not in refused(*score)), 0)
    os.remove(adapter)
    texts = draw_texts(rng, tok, 3, 50)
    for nothing in ({"prompt": "", "response": ""}, {"prompt": texts[0]["prompt"], "response": ""}, {"text": ""}):
        said = refused(*score[:4], write_lines(os.path.join(work, "texts.jsonl"), texts + [nothing]), *score[5:])
        check("an empty text: its line is named", float(said != "" and ":4:" not in said), 0)
        if not said:
            check("an empty text: no log-probabilities",
                float(read_lines(score[-1], texts + [nothing])[3]["logps"] != []), 0)
    shutil.rmtree(folder)

def tensors(folder):
    index = os.path.join(folder, "model.safetensors.index.json")
    files = set(json.load(open(index))["weight_map"].values()) if os.path.exists(index) else ["model.safetensors"]
    return {k: v.double() for f in files for k, v in load_file(os.path.join(folder, f)).items()}

def compare_gradients(rng, tok, model, folder, texts, work, layers):
    """One AdamW step from zero moments moves by lr g / (|g| + eps); with lr = eps far above every |g| that is g."""
    out = os.path.join(work, "step")
    shutil.rmtree(out, ignore_errors=True)
    texts = [{"text": t["prompt"] + t["response"]} for t in texts]
    K = rng.choice(["all", "all", rng.randint(0, layers)])
    vbon("sft", "--model", folder, "--data", write_lines(os.path.join(work, "data.jsonl"), texts), "--steps", 1,
        "--batch", len(texts), "--context", 200, "--lr", 1e6, "--eps", 1e6,
        "--schedule", "constant", "--weight-decay", 0, "--clip-grad", 0, "--train-layers", K, "--out", out,
        # at a ReLU's kink float's rounding turns a whole unit on or off: its gradients are those of the double build
        program="build/vbon_double" if "relu" in (model.config.to_dict().get("activation_function"),
            model.config.to_dict().get("hidden_act")) else "vbon")
    model.zero_grad()
    loss, n = 0, 0
    for t in texts:
        ids = torch.tensor([tok.encode(t["text"]).ids + [EOS]])
        loss = loss + torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="sum")
        n += ids.shape[1] - 1
    (loss / n).backward()
    after, moved = tensors(out), 0
    for name, p in model.named_parameters():
        name = name.replace("lm_head", "embed_out") if hasattr(model, "gpt_neox") else name
        got, g = p.detach() - after[name], p.grad
        layer = next((int(x) for x in name.split(".") if x.isdigit()), None)
        frozen = K != "all" and (layer < layers - K if layer is not None
            else any(e in name for e in ("wte", "wpe", "embed_in")))
        if frozen: # what was read as float32 is written
            check("frozen parameters", float((p.detach().float() - after[name].float()).abs().max()), 0)
            continue
        moved += 1
        noise = 2e-7 * float(p.detach().abs().max() / g.abs().max())   # p - g in float
        # 4 TOL: narrow models cancel most of a sum; where float is 8e-5 off, the double build is 6e-6 (the noise of
        # saved floats)
        check("gradients", float((got - g).abs().max() / g.abs().max()), 4 * TOL + noise)
    return out

def load_back(auto, folder, tok, texts):
    model, info = auto.from_pretrained(folder, dtype=torch.float64, output_loading_info=True)
    left = [k for k in list(info["missing_keys"]) + list(info["unexpected_keys"]) + list(info["mismatched_keys"])]
    check("a folder of ours loads whole", float(len(left)), 0)
    theirs = AutoTokenizer.from_pretrained(folder)
    for t in texts:
        check("its tokenizer", 0.0 if theirs(t["response"])["input_ids"] == tok.encode(t["response"]).ids else 1.0, 0)
    return model.eval()

# ---------------------------------------------------------------------------- one drawing

def one(rng, arch, tok, work, number):
    folder = os.path.join(work, f"{arch}{number}")
    cfg, dtype = draw_config(rng, arch), rng.choice(["fp32", "fp32", "fp16", "bf16", "fp64"])
    shards, old, T = rng.random() < 0.4, rng.random() < 0.5, rng.choice([1.0, 0.7])
    pickled = rng.random() < 0.3
    print(f"{arch} {number}: {cfg.num_hidden_layers} blocks, {cfg.num_attention_heads} x "
        f"{cfg.hidden_size // cfg.num_attention_heads}, "
        + (f"rotary {cfg.rope_parameters['partial_rotary_factor']:.3f}, "
          f"{'parallel' if cfg.use_parallel_residual else 'sequential'}, {cfg.hidden_act}, " if arch != "gpt2"
          else f"{cfg.activation_function}, ")
        + f"{'tied' if cfg.tie_word_embeddings else 'untied'}, "
        f"{dtype}{', sharded' if shards else ''}{', old spelling' if old else ''}"
        f"{', from a pickle' if pickled else ''}", flush=True)
    model = AutoModelForCausalLM.from_config(cfg)
    randomise(model, rng.randrange(2**31))
    model = write_model(rng, model, folder, dtype, shards)
    if old: respell(rng, folder, cfg)
    if pickled: through_pickle(folder, cfg)
    texts = draw_texts(rng, tok, 6, 50)
    compare_scores(tok, model, folder, texts, work, T)
    compare_vocabulary(tok, model, folder, texts, work)
    compare_greedy(tok, model, folder, texts, work)
    step = compare_gradients(rng, tok, model, folder, texts, work, cfg.num_hidden_layers)
    compare_scores(tok, load_back(AutoModelForCausalLM, step, tok, texts), step, texts, work, 1.0,
        "log-probabilities of a folder of ours")
    # rewards: the classifier, or cleanrl's form of it
    cleanrl = arch != "gpt2" and rng.random() < 0.5
    rcfg, rfolder = draw_config(rng, arch, head=not cleanrl), folder + "_rm"
    rcfg.pad_token_id = (EOS, None, rcfg.vocab_size - 1)[number % 3]   # so that a run sees all three
    padding = {EOS: "is the end of text", None: "none"}.get(rcfg.pad_token_id, "is another token")
    print(f"  reward model: "
        f"{'cleanrl' if cleanrl else 'classifier, padding ' + padding}", flush=True)
    rm = ScalarModel(rcfg, rng.uniform(-2, 2)) if cleanrl else AutoModelForSequenceClassification.from_config(rcfg)
    randomise(rm, rng.randrange(2**31))
    rm = write_model(rng, rm, rfolder, rng.choice(["fp32", "fp16", "bf16"]), shards)
    if old: respell(rng, rfolder, rcfg)
    end = "<|endoftext|>"   # behind a response, and where prompt and response hold little else
    ended = texts + [dict(texts[-1], response=texts[-1]["response"] + end),
        {"prompt": texts[0]["prompt"] + end, "response": end}, {"prompt": end, "response": end},
        {"prompt": end + texts[1]["prompt"], "response": end * 2}]
    compare_rewards(tok, rm, rfolder, folder, ended, work)
    # a reward model of ours, in another type and in shards
    out = os.path.join(work, "rm")
    shutil.rmtree(out, ignore_errors=True)
    vbon("reward", "--init", folder, "--layers", cfg.num_hidden_layers, "--data",
        write_lines(os.path.join(work, "labels.jsonl"),
        [{"text": t["prompt"], "label": i % 2} for i, t in enumerate(texts)]),
        "--steps", 2, "--lr", 1e-3, "--dtype", rng.choice(["fp32", "fp16", "bf16"]), "--shard-mib", rng.choice([0, 1]),
        "--out", out)
    compare_rewards(tok, load_back(AutoModelForSequenceClassification, out, tok, texts), out, folder, ended, work,
        "rewards of a folder of ours")
    for f in (folder, rfolder, step, out): shutil.rmtree(f)

def real_tokenizers(data, seed):
    """GPT-2's, Pythia's and BERT's own tokenizers on random strings, every test review and every post: ids, and for BPE
    the bytes back."""
    files = [os.path.join(data, f) for f in ("imdb/test.jsonl.gz", "tldr/posts.jsonl.gz")]
    folders = [os.path.join(data, "tokenizers", f) for f in ("gpt2", "pythia", "bert-base-uncased")]
    for path in [p for p in files + folders if not os.path.exists(p)]: print(f"skipped: {path} is not there")
    for folder in filter(os.path.exists, folders):
        check("tokenizers of real models", float(fuzz(folder, 20000, seed, list(filter(os.path.exists, files)),
            False)), 0)

def large(path, tok, work, seed):
    """A model of full size in float16: what loading it costs, and its log-probabilities."""
    c = json.load(open(path))
    left_out = ("architectures", "id2label", "label2id", "torch_dtype", "dtype", "problem_type")
    folder = os.path.join(work, "large")
    # of the demo's tokenizer
    cfg = GPTNeoXConfig(**{**{k: v for k, v in c.items() if k not in left_out}, "bos_token_id": EOS,
        "eos_token_id": EOS})
    torch.set_default_dtype(torch.float32)
    t0 = time.time()
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(cfg).eval()
    n = sum(p.numel() for p in model.parameters())
    write_model(random.Random(seed), model, folder, "fp16", False)
    model = model.float()
    config = json.load(open(os.path.join(folder, "config.json")))
    json.dump(dict(config, **{k: c[k] for k in ("rotary_pct", "rotary_emb_base") if k in c}),
        open(os.path.join(folder, "config.json"), "w"))
    print(f"{path}: {n} parameters written in {time.time() - t0:.0f} s", flush=True)
    texts = draw_texts(random.Random(seed), tok, 3, 50)
    t0 = time.time()
    compare_scores(tok, model, folder, texts, work, 1.0, "log-probabilities at full size")
    print(f"loaded and scored in {time.time() - t0:.0f} s; vbon's peak {peak / 2**20:.0f} MiB, its weights "
        f"{4 * n / 2**20:.0f} MiB in float")
    check("loading: GiB beside the weights", (peak - 4 * n) / 2**30, 1.0)
    torch.set_default_dtype(torch.float64)

if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("seed", type=int)
    ap.add_argument("--models", type=int, default=4, help="of each architecture")
    ap.add_argument("--large", metavar="CONFIG", help="a config.json of a GPT-NeoX to build at full size")
    ap.add_argument("--data", metavar="DIR",
        help="holds tokenizers/{gpt2,pythia,bert-base-uncased}, imdb/test.jsonl.gz and tldr/posts.jsonl.gz")
    a = ap.parse_args()
    logging.set_verbosity_error(); logging.disable_progress_bar()
    tok = Tokenizer.from_file(os.path.join(TOKENIZER, "tokenizer.json"))
    with tempfile.TemporaryDirectory() as work:
        for i in range(a.models):
            for arch in ("gpt2", "gpt_neox"): one(random.Random(f"{a.seed} {arch} {i}"), arch, tok, work, i)
        for arch in ("gpt2", "gpt_neox"): compare_refusals(random.Random(f"{a.seed} {arch} refused"), arch, tok, work)
        for i in range(a.models):
            parity_bert.one(random.Random(f"{a.seed} distilbert {i}"), work, i, sys.modules[__name__])
        for folder in ("demo/tokenizer", "fixtures/neox", "fixtures/wordpiece"):
            check("tokenizers", float(fuzz(os.path.join(ROOT, "dev", folder), 20000, a.seed, [], False)), 0)
        print(f"special tokens: 60 folders, {special_tokens.compare(random.Random(a.seed), 60, work, check)} refused")
        if a.data: real_tokenizers(a.data, a.seed)
        else:
            print("skipped: the tokenizers of GPT-2, Pythia and BERT on reviews and posts (make parity DATA=DIR, "
                "--data DIR)")
        compare_conversion(work)
        if a.large: large(a.large, tok, work, a.seed)
    for what, error in sorted(worst.items()): print(f"  {what:44} worst {error:.2g}")
    print(f"{checks} comparisons, {failures} failed")
    sys.exit(failures > 0)
