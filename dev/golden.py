#!/usr/bin/env python3
"""Writes the golden fixtures under dev/fixtures/: what transformers, torch, mpmath and SciPy say, in float64, from
fixed seeds.

    python3 dev/golden.py          (packages: dev/requirements.txt)

The tests compare vbon with these files and never with itself. Everything is tiny, so that the files stay small."""
import json, math, os
from fractions import Fraction
import mpmath, numpy as np, scipy.optimize, scipy.special, scipy.stats, torch
from safetensors.torch import load_file, save_file
from transformers import (AutoModelForCausalLM, AutoModelForSequenceClassification, GPT2Config, GPT2LMHeadModel,
    GPTNeoXConfig, GPTNeoXModel)
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures")
ROWS = (1, 7, 16)
torch.set_default_dtype(torch.float64)

def config(**over):
    d = dict(n_layer=2, n_embd=24, n_head=3, vocab_size=97, n_positions=16, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
        bos_token_id=96, eos_token_id=96,
        initializer_range=0.3)
    d.update(over)
    return GPT2Config(**d)

def neox_config(**over):
    d = dict(num_hidden_layers=2, hidden_size=24, num_attention_heads=3, intermediate_size=40, vocab_size=61,
        max_position_embeddings=16, bos_token_id=0, eos_token_id=0,
        classifier_dropout=0.0)
    d.update(over)
    return GPTNeoXConfig(**d)

def rotary_tables(self, x, position_ids):
    """GPTNeoXRotaryEmbedding.forward in float64: transformers makes these tables in float32 whatever the model's
    type."""
    rope, c = self.config.rope_parameters, self.config
    dims = int(c.hidden_size // c.num_attention_heads * rope["partial_rotary_factor"])
    angle = position_ids[..., None].double() * rope["rope_theta"] ** (-torch.arange(0, dims, 2).double() / dims)
    angle = torch.cat((angle, angle), -1)
    return angle.cos().to(x.dtype), angle.sin().to(x.dtype)
GPTNeoXRotaryEmbedding.forward = rotary_tables

class ScalarModel(torch.nn.Module):
    """The form of cleanrl's reward checkpoints: a trunk without a head, a linear score with a bias, and a constant in
    the config."""
    def __init__(self, cfg, bias):
        super().__init__()
        self.config, self.bias = cfg, bias
        self.lm_backbone, self.scalar_head = GPTNeoXModel(cfg), torch.nn.Linear(cfg.hidden_size, 1)
    def forward(self, ids):
        return (self.scalar_head(self.lm_backbone(ids).last_hidden_state) - self.bias)[:, -1]
    def save_pretrained(self, folder):
        os.makedirs(folder, exist_ok=True)
        base = dict(self.config.to_dict(), architectures=["GPTNeoXForCausalLM"])
        save_file({k: v.contiguous() for k, v in self.state_dict().items()}, os.path.join(folder, "model.safetensors"),
            metadata={"format": "pt"})
        with open(os.path.join(folder, "config.json"), "w") as f:
            json.dump(dict(architectures=["ScalarModel"], base_config=base, base_model="sft", bias=self.bias,
                hidden_size=self.config.hidden_size, model_type=""), f, indent=2)
            f.write("\n")

def randomise(model, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=torch.float64) * 0.25
                + (1.0 if any(n in name for n in ("ln_", "layernorm", "layer_norm")) and name.endswith("weight")
                else 0.0))

def rows(cfg, seed):
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(0, cfg.vocab_size, (n,), generator=g) for n in ROWS]

def flat(ids):
    start = np.cumsum([0] + [len(r) for r in ids])
    return {"ids": torch.cat(ids), "start": torch.tensor(start)}

def grads(model):
    # transformers 5 renames it in memory only
    file_name = lambda n: n.replace("lm_head", "embed_out") if hasattr(model, "gpt_neox") else n
    return {"grad." + file_name(n): p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

def language_model(folder, cfg, seed):
    m = AutoModelForCausalLM.from_config(cfg).double().eval()
    randomise(m, seed)
    m.save_pretrained(os.path.join(HERE, folder))
    ids, out, loss, n = rows(cfg, seed + 1), {}, 0, 0
    logits, hidden = [], []
    for r in ids:
        o = m(r[None], output_hidden_states=True)
        logits.append(o.logits[0]); hidden.append(o.hidden_states[-1][0])
        if len(r) > 1:
            loss = loss + torch.nn.functional.cross_entropy(o.logits[0, :-1], r[1:], reduction="sum"); n += len(r) - 1
    loss = loss / n
    loss.backward()
    out.update(flat(ids))
    out.update(logits=torch.cat(logits).detach(), hidden=torch.cat(hidden).detach(), loss=loss.detach().reshape(1))
    out.update(grads(m))
    save_file({k: v.contiguous() for k, v in out.items()}, os.path.join(HERE, folder, "expected.safetensors"))

def reward_model(folder, cfg, seed, cleanrl=False):
    m = (ScalarModel(cfg, 0.37) if cleanrl else AutoModelForSequenceClassification.from_config(cfg)).double().eval()
    randomise(m, seed)
    m.save_pretrained(os.path.join(HERE, folder))
    ids = rows(cfg, seed + 1)
    score = torch.cat([m(r[None])[0] if cleanrl else m(r[None]).logits[0] for r in ids])
    # of the head's output
    loss = torch.nn.functional.binary_cross_entropy_with_logits(score + (m.bias if cleanrl else 0),
        torch.tensor([1.0, 0.0, 1.0]))
    loss.backward()
    out = flat(ids); out.update(score=score.detach(), loss=loss.detach().reshape(1)); out.update(grads(m))
    if not cleanrl: # padding behind a text, before it, inside it, and nothing else: where the score is read
        pad = torch.full((1,), cfg.pad_token_id)
        padded = [torch.cat(r) for r in ((ids[0], pad), (ids[1], pad), (ids[1], pad, pad, pad),
            (pad, pad, ids[1], pad, pad), (ids[1][:3], pad, pad, ids[1][3:], pad), (pad, pad, pad))]
        out.update({"padded_" + k: v for k, v in flat(padded).items()})
        out["padded_score"] = torch.cat([m(r[None]).logits[0] for r in padded]).detach()
    save_file({k: v.contiguous() for k, v in out.items()}, os.path.join(HERE, folder, "expected.safetensors"))

def variants():
    cfg = config(n_layer=1, n_embd=8, n_head=2, vocab_size=13, n_positions=8)
    m = GPT2LMHeadModel(cfg).double().eval()
    randomise(m, 77)
    ids = torch.tensor([3, 1, 4, 1, 5, 9, 2])
    for name, dtype in (("fp64", torch.float64), ("fp32", torch.float32), ("fp16", torch.float16),
        ("bf16", torch.bfloat16)):
        folder = os.path.join(HERE, "variants", name)
        half = GPT2LMHeadModel(cfg).to(dtype)
        half.load_state_dict(m.state_dict())
        half.save_pretrained(folder)
        save_file({"ids": ids, "logits": half.double()(ids[None]).logits[0].detach().contiguous()},
            os.path.join(folder, "expected.safetensors"))
    folder = os.path.join(HERE, "variants", "sharded")
    m.float().save_pretrained(folder, max_shard_size="3KB")
    state = {k: v.clone() for k, v in m.float().state_dict().items()}
    # names without the prefix, the old masks, and a copy of the tied head
    old = {k.replace("transformer.", ""): v for k, v in state.items()}
    old["h.0.attn.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.uint8).tril()
    old["h.0.attn.masked_bias"] = torch.tensor(-1e4, dtype=torch.float32)
    old["lm_head.weight"] = state["transformer.wte.weight"].clone()
    folder = os.path.join(HERE, "variants", "old")
    os.makedirs(folder, exist_ok=True)
    cfg.architectures = ["GPT2LMHeadModel"]
    cfg.save_pretrained(folder)
    save_file({k: v.contiguous() for k, v in old.items()}, os.path.join(folder, "model.safetensors"))

def pythia_old():
    """pythia_tiny as transformers 4 wrote it: config keys, names without the prefix, buffers in the file, shards."""
    tiny, folder = os.path.join(HERE, "pythia_tiny"), os.path.join(HERE, "variants", "pythia_old")
    os.makedirs(folder, exist_ok=True)
    cfg = json.load(open(os.path.join(tiny, "config.json")))
    rope = cfg.pop("rope_parameters")
    cfg.update(rotary_pct=rope["partial_rotary_factor"], rotary_emb_base=rope["rope_theta"],
        torch_dtype=cfg.pop("dtype"), rope_scaling=None)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(cfg, f, indent=2)
        f.write("\n")
    state = {k.replace("gpt_neox.", ""): v for k, v in load_file(os.path.join(tiny, "model.safetensors")).items()}
    for l in range(2):
        state.update({f"layers.{l}.attention.bias": torch.ones(1, 1, 16, 16, dtype=torch.bool).tril(),
            f"layers.{l}.attention.masked_bias": torch.tensor(-1e9),
                      f"layers.{l}.attention.rotary_emb.inv_freq": torch.ones(1)})
    names, where = sorted(state), {}
    for i, part in enumerate((names[::2], names[1::2])):
        name = f"model-0000{i + 1}-of-00002.safetensors"
        save_file({k: state[k].clone() for k in part}, os.path.join(folder, name), metadata={"format": "pt"})
        where.update({k: name for k in part})
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {"total_size": sum(v.numel() * v.element_size() for v in state.values())},
            "weight_map": where}, f, indent=2)
        f.write("\n")

def log_pi_bon():
    mpmath.mp.dps = 400
    out = []
    for N in (1, 2, 3, 4, 16, 101, 512, 1030, 10000, 1000000):
        for F in (0.0, 1 / 302, 0.01, 0.3, 0.5, 0.9, 0.999, 1 - 1e-9):
            for l in (0.0, -1e-6, -0.1, -1.0, -3.0, -10.0, -20.0, -37.0, -40.0, -100.0, -745.0):
                a = math.log(F) if F else -math.inf
                Fm, p = (mpmath.exp(mpmath.mpf(a)) if F else mpmath.mpf(0)), mpmath.exp(mpmath.mpf(l))
                v = mpmath.log((Fm + p) ** N - Fm ** N)
                out.append(["-inf" if F == 0 else a, l, N, float(v)])
    return out

def fhat():
    table = [[k, M, float(scipy.special.digamma(k + 1) - scipy.special.digamma(M + 2)), math.log(k / M) if k else None,
        math.log((k + 1) / (M + 1))]
             for M in (1, 16, 32, 200, 600) for k in (0, 0.5, 1, 2, M / 2, M - 1, M) if 0 <= k <= M]
    fits, g = [], np.random.default_rng(5)
    sets = {"normal": g.normal(size=32), "normal200": g.normal(1.5, 2.0, size=200), "skewed": g.gumbel(size=200),
        "left": -g.gumbel(size=32), "bimodal": np.concatenate([g.normal(-2, 1, 100), g.normal(2, 1, 100)])}
    for name, r in sets.items():
        r = r.astype(np.float32).astype(float)
        z, y = (np.sort(r) - r.mean()) / r.std(), np.log(np.arange(1, len(r) + 1) / (len(r) + 1))
        (a, b), _ = scipy.optimize.curve_fit(lambda x, a, b: -a * np.exp(-b * x), z, y, p0=(1, 1), maxfev=20000,
            ftol=1e-15, xtol=1e-15, gtol=1e-15)
        at = np.quantile(r, [0, .25, .5, .9, 1])
        fits.append({"name": name, "rewards": list(r), "a": a, "b": b, "at": list(at),
            "logF": list(-a * np.exp(-b * (at - r.mean()) / r.std()))})
    return {"table": table, "fits": fits}

def ppo():
    g = torch.Generator().manual_seed(3)
    lengths, out = [1, 3, 5, 2], {}
    n = sum(lengths)
    rnd = lambda: torch.randn(n, generator=g)
    rewards, old_value = rnd(), rnd()
    adv, at = torch.zeros(n), 0
    for L in lengths:
        A = 0.0
        for t in reversed(range(L)):
            nxt = old_value[at + t + 1] if t + 1 < L else 0.0
            A = rewards[at + t] + 1.0 * nxt - old_value[at + t] + 0.95 * A
            adv[at + t] = A
        at += L
    ret = adv + old_value
    white = (adv - adv.mean()) * torch.rsqrt(adv.var(unbiased=False) + 1e-8)
    old = -rnd().abs() * 2
    new = (old + 0.4 * rnd()); new[4] = old[4] + 25.0; new[7] = old[7] - 24.0
    new.requires_grad_(True)
    value = (old_value + 0.4 * rnd()).requires_grad_(True)
    lr = (new - old).clamp(-20, 20)
    ratio = lr.exp()
    pl = torch.maximum(-white * ratio, -white * ratio.clamp(0.8, 1.2))
    vc = torch.minimum(torch.maximum(value, old_value - 0.2), old_value + 0.2)
    vl = 0.5 * torch.maximum((value - ret) ** 2, (vc - ret) ** 2)
    total = (pl.sum() + 0.3 * vl.sum()) / n
    total.backward()
    L = lambda x: [float(v) for v in x.detach()]
    return dict(lengths=lengths, rewards=L(rewards), old_value=L(old_value), advantage=L(adv), returns=L(ret),
        white=L(white), old_logp=L(old), logp=L(new), value=L(value), clip=0.2, value_clip=0.2, vf_coef=0.3,
        policy_loss=float(pl.sum() / n), value_loss=float(vl.sum() / n),
        approx_kl=float((ratio - 1 - lr).sum() / n), dlogp=L(new.grad), dvalue=L(value.grad))

def adamw():
    g = torch.Generator().manual_seed(9)
    p = torch.nn.Parameter(torch.randn(6, generator=g))
    start, steps = [float(x) for x in p], []
    opt = torch.optim.AdamW([p], lr=1, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    for lr in (1e-2, 5e-3, 1e-1, 1e-3, 0.0):
        p.grad = torch.randn(6, generator=g) * 3
        grad = [float(x) for x in p.grad]
        norm = float(torch.nn.utils.clip_grad_norm_([p], 1.0))
        opt.param_groups[0]["lr"] = lr
        opt.step()
        steps.append(dict(lr=lr, grad=grad, norm=norm, p=[float(x) for x in p]))
    return dict(start=start, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip=1.0, steps=steps)

def bon():
    g, out = np.random.default_rng(8), []
    for M, N in ((5, 1), (5, 2), (5, 5), (40, 7), (200, 16)):
        r = [float(x) for x in np.sort(g.normal(size=M))]
        mean = sum(Fraction(x) * math.comb(i, N - 1) for i, x in enumerate(r)) / math.comb(M, N)
        out.append(dict(rewards=r, N=N, mean=float(mean)))
    return out

def head():
    g = torch.Generator().manual_seed(21)
    R, C, V, T = 5, 6, 11, 0.7
    hp, hq = torch.randn(R, C, generator=g), torch.randn(R, C, generator=g)
    wp, wq = torch.randn(V, C, generator=g), torch.randn(V, C, generator=g)
    hp.requires_grad_(True); wp.requires_grad_(True)
    target, d = torch.tensor([0, 3, 10, 5, 5]), torch.randn(R, generator=g)
    lp, lq = torch.log_softmax(hp @ wp.T / T, -1), torch.log_softmax(hq @ wq.T / T, -1)
    logp = lp[torch.arange(R), target]
    (logp * d).sum().backward()
    e = lambda t: t.detach().contiguous()
    save_file(dict(hp=e(hp), hq=hq, wp=e(wp), wq=wq, target=target, dlogp=d, logp=e(logp),
        entropy=e(-(lp.exp() * lp).sum(-1)), kl=e((lp.exp() * (lp - lq)).sum(-1)), dhp=hp.grad, dwp=wp.grad,
                   temperature=torch.tensor([T])), os.path.join(HERE, "head.safetensors"))

def dump(name, value):
    with open(os.path.join(HERE, name), "w") as f:
        json.dump(value, f, separators=(",", ":"))
        f.write("\n")

if __name__ == "__main__":
    os.makedirs(HERE, exist_ok=True)
    language_model("gpt2_tiny", config(), 1)
    language_model("gpt2_untied", config(tie_word_embeddings=False, activation_function="gelu", n_inner=40,
        layer_norm_epsilon=1e-3), 2)
    reward_model("gpt2_reward", config(num_labels=1, pad_token_id=96), 3)
    rope = lambda theta, share: {"rope_type": "default", "rope_theta": theta, "partial_rotary_factor": share}
    language_model("pythia_tiny", neox_config(rope_parameters=rope(10000.0, 0.25)), 4)
    language_model("pythia_sequential", neox_config(rope_parameters=rope(500.0, 1.0), use_parallel_residual=False,
        hidden_act="gelu_fast", tie_word_embeddings=True), 5)
    reward_model("pythia_reward", neox_config(rope_parameters=rope(10000.0, 0.5), num_labels=1, pad_token_id=0,
        hidden_act="relu"), 6)
    reward_model("pythia_cleanrl", neox_config(num_hidden_layers=1, rope_parameters=rope(10000.0, 0.5)), 7,
        cleanrl=True)
    variants(); pythia_old()
    dump("log_pi_bon.json", log_pi_bon())
    dump("fhat.json", fhat())
    dump("ppo.json", ppo())
    dump("adamw.json", adamw())
    dump("bon.json", bon())
    head()
