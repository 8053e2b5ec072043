"""gpu_torch.py: PyTorch's times beside gpu_bench's: a compiled GPT-2-124M-shaped training step (batch 8, length 1024,
bf16 autocast, fused AdamW) and transformers' generate at 1, 8 and 128 rows (prompt 8, 32 new tokens, bf16). Weights are
random. One JSON object a line, medians of five after three that warm up; host_seconds end with the device idle,
device_seconds are between two events. Needs torch with CUDA; without transformers generate is skipped by name. The
training step is plain torch (fused attention, cross-entropy over the whole vocabulary, weights tied), so that it runs
where transformers is missing."""
import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

L, NH, C, V, T_MAX = 12, 12, 768, 50257, 1024


def say(**record):
    print(json.dumps(record), flush=True)


def timed(f, warm=3, repeats=5):
    host, device = [], []
    for i in range(warm + repeats):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        began = time.perf_counter()
        a.record()
        f()
        b.record()
        torch.cuda.synchronize()
        if i >= warm:
            host.append(time.perf_counter() - began)
            device.append(a.elapsed_time(b) / 1e3)
    return statistics.median(host), statistics.median(device)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.qkv, self.proj = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.fc, self.fc2 = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)

    def forward(self, x):
        B, T, _ = x.shape
        q, k, v = self.qkv(self.ln1(x)).view(B, T, 3, NH, C // NH).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(a.transpose(1, 2).reshape(B, T, C))
        return x + self.fc2(F.gelu(self.fc(self.ln2(x)), approximate="tanh"))


class GPT2(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.wpe, self.lnf = nn.Embedding(V, C), nn.Embedding(T_MAX, C), nn.LayerNorm(C)
        self.h = nn.ModuleList(Block() for _ in range(L))
        nn.init.normal_(self.wte.weight, std=0.02)
        nn.init.normal_(self.wpe.weight, std=0.02)

    def forward(self, ids):
        x = self.wte(ids[:, :-1]) + self.wpe.weight[: ids.shape[1] - 1]
        for block in self.h:
            x = block(x)
        logits = F.linear(self.lnf(x), self.wte.weight)
        return F.cross_entropy(logits.view(-1, V), ids[:, 1:].reshape(-1))


def training(B, T):
    model = GPT2().cuda()
    opt = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.95), fused=True)
    compiled = torch.compile(model)
    ids = torch.randint(0, V, (B, T), device="cuda")

    def step():
        opt.zero_grad(set_to_none=True)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = compiled(ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()

    host, device = timed(step)
    say(what="GPT-2 124M training step, PyTorch " + torch.__version__ + ", compiled", batch=B, length=T,
        host_seconds=host, device_seconds=device, tokens_per_second=B * T / host)


def generation():
    try:
        import transformers
    except ImportError:
        return say(what="GPT-2 124M generate", skipped="transformers is not installed")
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config()).to("cuda", torch.bfloat16).eval()
    for rows in (1, 8, 128):
        ids = torch.randint(0, V, (rows, 8), device="cuda")

        def run():
            model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0, min_new_tokens=32,
                max_new_tokens=32, pad_token_id=50256)

        with torch.no_grad():
            host, device = timed(run, warm=2)
        say(what="GPT-2 124M decoding step, transformers " + transformers.__version__, rows=rows, prompt=8, new=32,
            host_seconds=host / 32, device_seconds=device / 32, tokens_per_second=rows * 32 / host)


torch.manual_seed(1)
torch.set_float32_matmul_precision("high")
generation()
training(8, 1024)
