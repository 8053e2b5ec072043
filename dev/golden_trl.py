#!/usr/bin/env python3
"""Writes dev/fixtures/offline.json: what TRL's DPOTrainer says of dpo and ipo, and torch of bonbon and bon-sft, with
gradients by autograd, in float64.

    python3 dev/golden_trl.py          (trl 0.21.0, which needs transformers 4.55.4: an environment of its own)"""
import json, os, types
import torch
from trl import DPOTrainer

torch.set_default_dtype(torch.float64)
HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures")

def case(kind, w, l, ref_w, ref_l, beta=0.0, alpha=0.0, N=1):
    a, b = torch.tensor([w], requires_grad=True), torch.tensor([l], requires_grad=True)
    if kind in ("dpo", "ipo"):
        trainer = types.SimpleNamespace(accelerator=types.SimpleNamespace(device="cpu"), reference_free=False,
            f_divergence_type="reverse_kl", f_divergence_params=None,
            label_smoothing=0, beta=beta)
        loss = DPOTrainer.dpo_loss(trainer, a, b, torch.tensor([ref_w]), torch.tensor([ref_l]),
            "sigmoid" if kind == "dpo" else "ipo")[0]
    elif kind == "bonbon":
        target = (N - 1) * torch.arange(1, N).reciprocal().sum() # 1/(2 beta*): Gui et al. 2024, Theorem 3
        loss = -alpha * a + (1 - alpha) * ((a - b) - (ref_w - ref_l) - target) ** 2
    else:
        # of a token with this probability
        loss = torch.nn.functional.cross_entropy(torch.stack([a, torch.log1p(-torch.exp(a))], 1), torch.tensor([0]))
    grad = torch.autograd.grad(loss.sum(), (a, b), allow_unused=True)
    return dict(kind=kind, beta=beta, alpha=alpha, N=N, logps=[w, l, ref_w, ref_l], loss=loss.item(), dw=grad[0].item(),
        dl=0.0 if grad[1] is None else grad[1].item())

out = []
g = torch.Generator().manual_seed(7)
for i in range(12):
    w, l, rw, rl = (-40 * torch.rand(4, generator=g)).tolist()
    out += [case("dpo", w, l, rw, rl, beta=b) for b in (0.01, 0.5, 5.0)]
    out += [case("ipo", w, l, rw, rl, beta=b) for b in (0.01, 0.5, 5.0)]
    out += [case("bonbon", w, l, rw, rl, alpha=a, N=n) for a, n in ((0.3, 1), (0.005, 2), (0.9, 8), (1.0, 128))]
    out += [case("bon-sft", w, l, rw, rl)]
out.append(case("dpo", -900.0, -10.0, -10.0, -900.0, beta=5.0)) # far into both tails of the sigmoid
out.append(case("dpo", -10.0, -900.0, -900.0, -10.0, beta=5.0))
with open(os.path.join(HERE, "offline.json"), "w") as f:
    json.dump(out, f, separators=(",", ":"))
    f.write("\n")
