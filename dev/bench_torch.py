"""bench_torch.py: PyTorch and transformers beside vbon on this CPU, in one run: the same shapes (GPT-2 124M, random
weights), rows and number of threads.

    python3 dev/bench_torch.py [--rows N] [--repeats N] [--threads N] [--only training,decode,ppo] [--tiny]
        (after `make build/bench`)

Three jobs, each measured by PyTorch and then by `build/bench --json` before the next, so that a change of the machine's
load meets both:
  training   B=4, T=64: forward, cross-entropy over all positions, backward, gradient clipped to norm 1, AdamW
  decode     `generate` with sampling, 8-token prompts, 32 new tokens, at 1, 8, 32 and 128 rows
  ppo        a sentiment PPO iteration of --rows episodes (default 32) x 40 tokens, written the plain way, as TRL does
             it: rollout by generate; old log-probabilities, values and the reference's log-probabilities by whole
             forwards, logits at all positions; 4 epochs of minibatches of 32 in which the top 2 blocks, the final norm
             and a value head train under the whole model's forward; the reference a second model
Ratios are theirs / ours, with goals 1.15, 2 and 3. fp32, and bf16 (autocast; generate on a bf16 copy of the weights)
where the CPU multiplies bfloat16 itself. Weights are random: speed does not depend on them. Left out on purpose:
torch.compile (minutes of compiling for these few steps). Needs torch and transformers; without them it says so and ends
well."""
import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time

JOBS = ("training", "decode", "ppo")
GOALS = {"training": 1.15, "decode": 2, "ppo": 3}
PROMPT, NEW, RESPONSE, EPOCHS, TOP, MINIBATCH = 8, 32, 40, 4, 2, 32


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--rows", type=int, default=32, help="episodes of the PPO iteration")
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--only", default=",".join(JOBS))
    p.add_argument("--tiny", action="store_true", help="a dry run: its times mean nothing")
    a = p.parse_args()
    if a.rows < 1 or a.repeats < 1 or a.threads < 1:
        p.error("--rows, --repeats and --threads are at least 1")
    if set(a.only.split(",")) - set(JOBS):
        p.error("--only: of training, decode and ppo")
    return a


args = arguments()
try:
    import torch
    import torch.nn.functional as F
    import transformers
except ImportError as e:
    print(f"bench_torch: skip: {e.name} is not installed: python3 -m pip install -r dev/requirements.txt")
    sys.exit(0)

BENCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "build", "bench")
SHAPE = dict(vocab_size=61, n_positions=64, n_embd=32, n_layer=2, n_head=2, n_inner=128) if args.tiny else {}
CONFIG = transformers.GPT2Config(**SHAPE, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=None,
    eos_token_id=None)


def gpt2():
    torch.manual_seed(1)
    return transformers.GPT2LMHeadModel(CONFIG)


def timed(f):
    """Seconds of f: the median of --repeats calls after one that warms up."""
    seconds = []
    for _ in range(args.repeats + 1):
        began = time.perf_counter()
        f()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def ours(job, precision):
    """build/bench's seconds of the same job, by rows (decode: of a token)."""
    command = [BENCH, "--json", job, "--rows", str(args.rows), "--repeats", str(args.repeats), "--threads",
        str(args.threads), "--precision", precision]
    r = subprocess.run(command + ["--tiny"] * args.tiny, capture_output=True, text=True)
    lines = [json.loads(line) for line in r.stdout.splitlines() if line.startswith("{")]
    if r.returncode or not lines:
        sys.exit(f"bench_torch: {' '.join(command)} failed: {(r.stderr.strip() or 'no output')}")
    return {line["rows"]: line["measured"] / 1e3 for line in lines if line["entry"] == job}


# ----------------------------------------------------------------------------
# PyTorch's side: a function that does the job once


def training(precision):
    model = gpt2().train()
    opt = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.95), fused=True)
    ids = torch.randint(0, CONFIG.vocab_size, (4, 64))

    def step():
        opt.zero_grad(set_to_none=True)
        with autocast(precision):
            loss = model(ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()

    return step


def autocast(precision):
    return torch.autocast("cpu", dtype=torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def sample(model, prompts, new):
    return model.generate(prompts, attention_mask=torch.ones_like(prompts), do_sample=True, top_k=0, min_new_tokens=new,
        max_new_tokens=new, pad_token_id=0)


def decode(precision, rows):
    model = gpt2().to(torch.bfloat16 if precision == "bf16" else torch.float32).eval()
    prompts = torch.randint(0, CONFIG.vocab_size, (rows, PROMPT))
    return torch.no_grad()(lambda: sample(model, prompts, NEW))


def ppo(precision):
    policy, reference, sampler = (gpt2().eval() for _ in range(3))  # eval: no dropout, in training too
    if precision == "bf16":
        sampler.to(torch.bfloat16)
    critic = torch.nn.Sequential(torch.nn.Linear(CONFIG.n_embd, 2 * CONFIG.n_embd), torch.nn.ReLU(),
        torch.nn.Linear(2 * CONFIG.n_embd, 1))
    for p in list(policy.parameters()) + list(reference.parameters()):
        p.requires_grad_(False)
    trained = [p for part in [*policy.transformer.h[-TOP:], policy.transformer.ln_f, critic] for p in part.parameters()]
    for p in trained:
        p.requires_grad_(True)
    opt = torch.optim.AdamW(trained, lr=1e-6, betas=(0.9, 0.95), fused=True)
    prompts = torch.randint(0, CONFIG.vocab_size, (args.rows, PROMPT))

    def score(model, ids, value):  # log-probabilities (and values) of the responses' tokens
        with autocast(precision):
            out = model(ids, output_hidden_states=True)
            values = critic(out.hidden_states[-1][:, PROMPT - 1 : -1]).squeeze(-1).float() if value else None
        logits = out.logits[:, PROMPT - 1 : -1].float()  # a position's logits predict the next token
        logp = F.log_softmax(logits, -1).gather(-1, ids[:, PROMPT:, None]).squeeze(-1)
        return logp, values

    def iteration():
        with torch.no_grad():
            if precision == "bf16":
                sampler.load_state_dict(policy.state_dict())
            ids = sample(sampler if precision == "bf16" else policy, prompts, RESPONSE)
            old, values, ref = [], [], []
            for rows in ids.split(MINIBATCH):
                logp, value = score(policy, rows, True)
                old.append(logp)
                values.append(value)
                ref.append(score(reference, rows, False)[0])
            old, values, ref = torch.cat(old), torch.cat(values), torch.cat(ref)
            rewards = -0.1 * (old - ref)
            rewards[:, -1] += (ids.sum(1) % 1000).float()  # any function of the response
            advantages, last = torch.zeros_like(rewards), torch.zeros(len(rewards))
            for t in reversed(range(RESPONSE)):
                delta = rewards[:, t] + (values[:, t + 1] if t + 1 < RESPONSE else 0) - values[:, t]
                last = delta + 0.95 * last
                advantages[:, t] = last
            returns = advantages + values
            advantages = (advantages - advantages.mean()) / (advantages.var(unbiased=False) + 1e-8).sqrt()
        for _ in range(EPOCHS):
            for i in torch.randperm(len(ids)).split(MINIBATCH):
                logp, value = score(policy, ids[i], True)
                ratio, A = (logp - old[i]).exp(), advantages[i]
                clipped = values[i] + (value - values[i]).clamp(-0.2, 0.2)
                loss = torch.max(-A * ratio, -A * ratio.clamp(0.8, 1.2)).mean()
                loss = loss + 0.5 * torch.max((value - returns[i]) ** 2, (clipped - returns[i]) ** 2).mean()
                opt.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(trained, 1.0)
                opt.step()

    return iteration


# ----------------------------------------------------------------------------


def beside(job, what, theirs, mine):
    ratio, goal = theirs / mine, GOALS[job]
    missed = f", MISSED by {100 * (1 - ratio / goal):.0f} %" if not ratio >= goal else ""
    print(f"{what:44s} torch {1e3 * theirs:10.2f} ms   vbon {1e3 * mine:10.2f} ms   ratio {ratio:.2f}, goal >= "
        f"{goal:.2f}{missed}", flush=True)


def run(job, precision):
    if job == "training":
        theirs = timed(training(precision))
        beside(job, f"{precision}: training step, B=4, T=64", theirs, ours(job, precision)[4])
    elif job == "decode":
        theirs = {rows: timed(decode(precision, rows)) / NEW for rows in (1, 8, 32, 128)}
        mine = ours(job, precision)
        for rows in theirs:
            beside(job, f"{precision}: decode, {rows} rows, a token", theirs[rows], mine[rows])
    else:
        theirs = timed(ppo(precision))
        beside(job, f"{precision}: PPO iteration, {args.rows} x {RESPONSE} tokens", theirs,
            ours(job, precision)[args.rows])


def main():
    if not os.access(BENCH, os.X_OK):
        sys.exit("bench_torch: build/bench is missing: make build/bench")
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    with open("/proc/cpuinfo") as f:
        flags = f.read().split()
    bf16 = "avx512_bf16" in flags or "amx_bf16" in flags
    print(f"{'Tiny shapes' if args.tiny else 'GPT-2 124M shapes'}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}, {args.threads} threads; "
        f"load before: {os.getloadavg()[0]:.2f}; medians of {args.repeats}", flush=True)
    for precision in ("fp32", "bf16"):
        if precision == "bf16" and not bf16:
            print("bf16: not measured: this CPU has no bf16")
            continue
        for job in args.only.split(","):
            run(job, precision)
    print(f"load after: {os.getloadavg()[0]:.2f} ({args.threads} threads of it ours)")


main()
