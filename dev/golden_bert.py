#!/usr/bin/env python3
"""Writes the golden DistilBERT, dev/fixtures/distilbert/: a small random DistilBertForSequenceClassification in
float64, and what transformers says of some texts (logits, in batches of one).

    python3 dev/golden_bert.py
        (after dev/tokenizer_fixtures.py write, which makes its vocab.txt; packages: dev/requirements.txt)"""
import json, os, torch
from transformers import BertTokenizerFast, DistilBertConfig, DistilBertForSequenceClassification

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures", "distilbert")
TEXTS = ["This film is wonderful.", "", "No!",
    "I can't believe it's not 1999 \u2014 na\u00efve caf\u00e9, \u6771\u4eac \U0001f600",
    "[MASK] and [SEP] in the text", "x" * 101,
    "The acting was bad, the story was worse, and nobody I know would ever want to see this again; but the music, "
    "the music was the best part of it all, by far.", "A\u0301 b"]

def randomise(model, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            norm = "norm" in name.lower() and name.endswith("weight")
            p.copy_(torch.randn(p.shape, generator=g, dtype=torch.float64) * 0.3 + (1.0 if norm else 0.0))

def logits(model, tokenizer, text, limit):
    ids = tokenizer(text, truncation=True, max_length=limit, return_tensors="pt").input_ids
    with torch.no_grad(): return model(input_ids=ids).logits[0].double()

if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    cfg = DistilBertConfig(vocab_size=500, dim=24, n_layers=2, n_heads=3, hidden_dim=40, max_position_embeddings=32,
        id2label={0: "POSITIVE", 1: "NEGATIVE", 2: "neutral"},
        label2id={"POSITIVE": 0, "NEGATIVE": 1, "neutral": 2})
    model = DistilBertForSequenceClassification(cfg).double().eval()
    randomise(model, 11)
    model.save_pretrained(FOLDER)
    tokenizer = BertTokenizerFast.from_pretrained(FOLDER)
    with open(os.path.join(FOLDER, "expected.jsonl"), "w", encoding="utf-8") as f:
        for text in TEXTS:
            f.write(json.dumps({"text": text, "logits": logits(model, tokenizer, text, 32).tolist()},
                ensure_ascii=False) + "\n")
