#!/usr/bin/env python3
"""DistilBERT classifiers and WordPiece, live: random models through transformers and through ./vbon.

    python3 dev/parity_bert.py SEED [--models N] [--vocab VOCAB.txt]     (packages: dev/requirements.txt; make parity
    SEED=... runs it too)

From the seed it draws configurations (width, heads, blocks, inner width, context, activation, labels and their names,
type, shards, the old position_ids buffer), has transformers write random classifiers with them, and compares the
rewards of texts, nasty ones and ones longer than the context among them: vbon score --reward, as logit and as
probability, against the float64 model with the same rounded weights. Tolerance as in parity.py."""
import argparse, json, os, random, shutil, sys, tempfile
import torch
from safetensors.torch import load_file, save_file
from transformers import (BertTokenizerFast, DistilBertConfig, DistilBertForSequenceClassification, GPT2Config,
    GPT2LMHeadModel)
from golden_bert import logits, randomise
from tokenizer_fixtures import NEW_CLASSES, random_string

VOCAB = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures", "distilbert", "vocab.txt")

def draw_config(rng, V, activations):
    HS, K = rng.choice([4, 8, 16, 24, 64]), rng.choice([1, 2, 2, 2, 3, 5])
    NH = rng.randint(1, max(1, min(6, 256 // HS)))
    names = [f"LABEL_{k}" for k in range(K)]
    if K > 2 or rng.random() < 0.5: names[rng.randrange(K)] = rng.choice(["POSITIVE", "positive"])
    return DistilBertConfig(vocab_size=V + rng.randint(0, 9), dim=HS * NH, n_heads=NH, n_layers=rng.randint(1, 4),
        hidden_dim=rng.choice([HS * NH, 4 * HS * NH, 20]),
        max_position_embeddings=rng.choice([8, 32, 100, 512]), activation=rng.choice(activations),
        id2label=dict(enumerate(names)), label2id={n: k for k, n in enumerate(names)})

def one(rng, work, number, parity, vocab=VOCAB):
    """Draws and compares one model; `parity` is the module parity.py, which runs vbon and counts."""
    policy, folder, out = os.path.join(work, "bert_policy"), os.path.join(work, f"bert{number}"), os.path.join(work,
        "bert_out.jsonl")
    if not os.path.exists(policy): # any language model with a long context
        GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=2000, n_positions=2048, bos_token_id=1999,
            eos_token_id=1999)).save_pretrained(policy)
        for name in os.listdir(parity.TOKENIZER): shutil.copy(os.path.join(parity.TOKENIZER, name), policy)
    cfg = draw_config(rng, sum(1 for _ in open(vocab, encoding="utf-8")), parity.OURS)
    dtype, shards, old = rng.choice(["fp32", "fp16", "bf16", "fp64"]), rng.random() < 0.4, rng.random() < 0.4
    positive = next((k for k, n in cfg.id2label.items() if n.upper() == "POSITIVE"), min(1, cfg.num_labels - 1))
    print(f"distilbert {number}: {cfg.n_layers} blocks, {cfg.n_heads} x {cfg.dim // cfg.n_heads}, inner "
        f"{cfg.hidden_dim}, context {cfg.max_position_embeddings}, {cfg.activation}, "
        f"label {positive} of {cfg.num_labels}, {dtype}{', sharded' if shards else ''}"
        f"{', old buffer' if old else ''}", flush=True)
    model = DistilBertForSequenceClassification(cfg).double()
    randomise(model, rng.randrange(2**31))
    for p in model.parameters(): p.data /= 2 if p.dim() > 1 else 1
    model = model.to(parity.TYPES[dtype])
    model.save_pretrained(folder, **({"max_shard_size": "40KB"} if shards else {}))
    model = model.double().eval()
    file = os.path.join(folder, "model.safetensors")
    if old and os.path.exists(file):
        save_file(dict(load_file(file), **{"distilbert.embeddings.position_ids": torch.arange(
            cfg.max_position_embeddings)[None]}), file, metadata={"format": "pt"})
    if rng.random() < 0.5: # labels in the other order, and counted
        path = os.path.join(folder, "config.json")
        c = json.load(open(path))
        c.update(num_labels=cfg.num_labels, **{k: dict(reversed(c[k].items())) for k in ("id2label", "label2id")
            if c.get(k)})
        json.dump(c, open(path, "w"))
    shutil.copy(vocab, os.path.join(folder, "vocab.txt"))
    tokenizer = BertTokenizerFast.from_pretrained(folder)
    texts = [s for s in (random_string(rng) for _ in range(60)) if s and "\0" not in s
        and not NEW_CLASSES.intersection(s)]
    texts += [" ".join(rng.choices(list(filter(None, parity.WORDS)), k=k))
        for k in (1, 5, 40, 150)] + [rng.choice(parity.WHITE)]
    records = [{"text": t} for t in texts] + [{"prompt": t[:5], "response": t[5:]} for t in texts if len(t) > 8][-4:]
    records.append(dict(records[-1], response=records[-1]["response"] + "<|endoftext|>"))
    parity.write_lines(os.path.join(work, "bert_texts.jsonl"), records)
    for kind in ("logit", "prob") if cfg.num_labels > 1 else ("logit",):
        parity.vbon("score", "--model", policy, "--reward", folder, "--reward-output", kind, "--in",
            os.path.join(work, "bert_texts.jsonl"), "--out", out)
        for r, g in zip(records, parity.read_lines(out, records)):
            # the policy's last token is no text
            text = (r.get("text") or r["prompt"] + r["response"]).removesuffix("<|endoftext|>")
            x = logits(model, tokenizer, text, cfg.max_position_embeddings)
            parity.check(f"distilbert: {kind}", parity.difference(g["reward"],
                x[positive] if kind == "logit" else torch.softmax(x, -1)[positive]))
    shutil.rmtree(folder)

if __name__ == "__main__":
    import parity
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("seed", type=int)
    ap.add_argument("--models", type=int, default=4)
    ap.add_argument("--vocab", default=VOCAB, help="another vocabulary, such as bert-base-uncased's")
    a = ap.parse_args()
    parity.logging.set_verbosity_error(); parity.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as work:
        for i in range(a.models): one(random.Random(f"{a.seed} distilbert {i}"), work, i, parity, a.vocab)
    for what, error in sorted(parity.worst.items()): print(f"  {what:44} worst {error:.2g}")
    print(f"{parity.checks} comparisons, {parity.failures} failed")
    sys.exit(parity.failures > 0)
