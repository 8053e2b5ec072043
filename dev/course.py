#!/usr/bin/env python3
"""What dev/doc/course.md looks at: tables of runs, a printed rollout, and its pictures.

    python3 dev/course.py metrics RUN...        a table of metrics along each run (a folder of `vbon train`, or what
                                                `vbon world` wrote into a file)
    python3 dev/course.py rollout FOLDER STEP   the first response that a run's trace keeps of this iteration
    python3 dev/course.py pictures              dev/doc/course_*.svg from runs/course (matplotlib, dev/requirements.txt)

The first two need nothing but Python. `pictures` needs what the lessons' commands leave in runs/course."""
import json, math, os, subprocess, sys

def die(why): sys.exit(f"course: {why}")

def jsonl(path):
    try: lines = open(path, encoding="utf-8").readlines()
    except OSError as e: die(f"{path}: cannot be read: {e.strerror}: run the lesson's commands first")
    try: return [json.loads(x) for x in lines]
    except ValueError: die(f"{path}: is not made of lines of JSON")

def records(run):
    """The records of training of a run."""
    path = os.path.join(run, "log.jsonl") if os.path.isdir(run) else run
    found = [j for j in jsonl(path) if j.get("type") == "train"]
    return found or die(f"{path}: has no record of training")

METRICS = ["objective/scores", "objective/kl", "objective/entropy", "objective/rlhf_reward", "vbon/distance",
    "vbon/saturation", "policy/approxkl_avg", "policy/clipfrac_avg", "val/ratio_var", "val/explained_variance_mc",
    "grad_norm", "kl/reference", "tv/pi_bon"]

def metrics(runs):
    for run in runs:
        r = records(run)
        at = sorted({1 if "episode" not in r[0] else 0, len(r) // 8, len(r) // 4, len(r) // 2, 3 * len(r) // 4,
            len(r) - 1})
        print(f"{run}\n{'iteration':26}" + "".join(f"{r[i]['step']:>10}" for i in at))
        for key in METRICS:
            if any(key in x for x in r):
                print(f"{key:26}" + "".join(f"{r[i][key]:>10.3g}" if key in r[i] else f"{'-':>10}" for i in at))
        print()

def chosen(folder, step):
    for j in jsonl(os.path.join(folder, "trace.jsonl")):
        if j["step"] == step: return j
    die(f"{folder}/trace.jsonl: has no response of iteration {step}: train with --trace, or name another iteration")

def rollout(folder, step):
    j = chosen(folder, step)
    print(f"prompt    {j['prompt']!r}\nresponse  {j['response']!r}")
    print(f"reward {j['reward']:.4f}, above k = {j['k']:g} of M = {j['M']} cached, log F-hat {j['logF']:.4f}, "
          f"log pi_ref {j['ref_logp']:.3f}, score {j['score']:.4f}\n")
    print(" t token          log pi       KL    reward     value    return  return-value  whitened A")
    for t, token in enumerate(j["tokens"]):
        print(f"{t + 1:2} {token!r:14} {j['logps'][t]:7.3f} {j['kl'][t]:8.4f} {j['rewards'][t]:9.5f} "
              f"{j['values'][t]:9.5f} {j['returns'][t]:9.5f} {j['returns'][t] - j['values'][t]:13.5f} "
              f"{j['advantages'][t]:11.4f}")

# ----------------------------------------------------------------------------
# pictures

# Okabe and Ito's colours, which people who do not see red or green tell apart too.
BLUE, RED, GREEN, PINK, YELLOW, GREY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#777777"
OUT, DOC = "runs/course", "dev/doc"

def table(program, *args):
    """The numbers that a program of dev/examples prints, a list a line."""
    path = f"build/{program}"
    if not os.path.exists(path): die(f"{path} is missing: make {path}")
    text = subprocess.run([path, *map(str, args)], check=True, capture_output=True, text=True).stdout
    rows = []
    for line in text.splitlines():
        try: rows.append([float(x) for x in line.split()])
        except ValueError: pass
    return [r for r in rows if r]

def result(name): return json.load(open(f"{OUT}/{name}.json", encoding="utf-8"))

def pictures():
    try: import matplotlib
    except ImportError: die("matplotlib is needed: python3 -m pip install matplotlib")
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    plt.rcParams.update({"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10, "svg.hashsalt": "vbon",
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e4e4e4",
        "axes.axisbelow": True, "figure.constrained_layout.use": True})

    def figure(columns=1, width=None, height=3.4):
        return plt.subplots(1, columns, figsize=(width or 4.6 * columns, height))

    def save(f, name):
        f.savefig(f"{DOC}/course_{name}.svg", metadata={"Date": None})
        plt.close(f)
        print(f"{DOC}/course_{name}.svg")

    # 1: two laws of Best-of-N, and what Best-of-N of a real model does
    f, (a, b) = figure(2)
    N = [1, 2, 4, 8, 16, 32, 64]
    a.plot(N, [n / (n + 1) for n in N], color=GREY, label="N/(N+1)")
    for n in (1, 4, 16):
        win, se = result(f"bon{n}")["win_rate"]
        a.errorbar(n, win, 2 * se, fmt="o", color=BLUE, label="demo model, ± 2 s.e." if n == 1 else None)
    a.set_xscale("log", base=2); a.set_xticks(N, map(str, N)); a.set_xlabel("N"); a.set_ylabel("win rate"); a.legend()
    b.plot(N, [math.log(n) - (n - 1) / n for n in N], color=GREY, label="log N − (N−1)/N")
    for faces, colour in ((6, RED), (20, GREEN)):
        kl = []
        for n in N:
            text = subprocess.run(["build/dice", str(faces), str(n)], check=True, capture_output=True, text=True).stdout
            kl.append(float(text.split("KL ")[1].split()[0]))
        b.plot(N, kl, "o-", color=colour, ms=3, label=f"a die with {faces} faces")
    b.set_xscale("log", base=2); b.set_xticks(N, map(str, N)); b.set_xlabel("N")
    b.set_ylabel("KL to the reference, nats")
    b.legend()
    save(f, "1_laws")

    # 2: the world's strings
    for name, run in (("2_world", "world4"), ("2_world16", "world16")):
        last = records(f"{OUT}/{run}.jsonl")[-1]
        y = last["strings"][:24]
        f, a = figure(width=9.2)
        x = range(len(y))
        a.bar(x, [s["p"] for s in y], color="#cccccc", label="p, the reference")
        a.plot(x, [s["pi_bon"] for s in y], "_", color=BLUE, ms=11, mew=2.5, label="π_bon")
        a.plot(x, [s["l"] for s in y], "x", color=RED, ms=5, label="the optimum of L")
        a.plot(x, [s["pi_theta"] for s in y], "o", color="black", ms=3, label="π_θ, trained")
        a.set_xticks(x, [s["string"] for s in y], rotation=60, family="monospace", fontsize=8)
        a.set_ylabel("probability"); a.set_xlabel("the best 24 of 40 strings, the best first"); a.legend()
        a.set_title(f"N = {4 if run == 'world4' else 16}: total variation to π_bon {last['tv/pi_bon']:.4f}, "
                    f"to L's optimum {last['tv/l']:.4f}", fontsize=10)
        save(f, name)
    f, a = figure(width=5.4)
    rows = table("bound", 16)
    for F, colour in ((0.1, RED), (0.5, BLUE), (0.9, GREEN)):
        r = [x for x in rows if len(x) == 6 and abs(x[1] - F) < 1e-9 and x[4] > 1e-12]
        a.plot([x[0] for x in r], [x[4] for x in r], "o-", color=colour, ms=4, label=f"F = {F}")
        a.plot([x[0] for x in r], [x[5] for x in r], ":", color=colour)
    a.set_yscale("log"); a.set_xlabel("log p, nats"); a.set_ylabel("log π_bon over L's, nats"); a.legend()
    a.set_title("N = 16; dotted: (N−1)/2 · p/F", fontsize=10)
    save(f, "2_bound")

    # 3: the estimates, and Table 1
    f, (a, b) = figure(2)
    for M, style in ((8, ":"), (32, "-")):
        text = subprocess.run(["build/fhat", str(M)], check=True, capture_output=True, text=True).stdout.splitlines()
        F = [float(x) for x in text[1].replace("F =", "").split()]
        for line in text[2:-1]:
            name, *row = line.replace("+-", "").split()
            a.plot(F, [float(x) for x in row[::2]], style, marker="o", ms=3, label=name if M == 32 else None,
                color={"(measuring)": GREY, "digamma": BLUE, "mc": RED, "add1": GREEN}.get(name, PINK))
    a.set_xscale("logit"); a.set_xticks(F, map(str, F)); a.set_xticks([], minor=True)
    a.set_xlabel("F"); a.set_ylabel("mean of log F̂ − log F, nats"); a.set_ylim(-.6, 1.5)
    a.legend(title="M = 32; dotted: M = 8")
    ks = result("ks")["table"]
    M = [t["M"] for t in ks]
    for kind, colour, label in (("nested", RED, "against all 600, which hold them"),
                                ("independent", BLUE, "against the 600 − M others")):
        b.errorbar(M, [100 * t[kind]["rejected"][0] for t in ks], [200 * t[kind]["rejected"][1] for t in ks],
            fmt="o-", capsize=2, color=colour, label=label)
    b.axhline(5, color=GREY, lw=1, ls="--")
    b.set_xlabel("M"); b.set_ylabel("% of prompts rejected (± 2 s.e.)"); b.set_ylim(0, 10); b.legend()
    save(f, "3_fhat")

    # 4: a rollout, and the broken runs
    j = chosen(f"{OUT}/good", 8)
    f, axes = plt.subplots(4, 1, figsize=(9.2, 6), sharex=True)
    for a, (key, colour, label) in zip(axes, (("rewards", GREEN, "reward"), ("values", YELLOW, "value"),
            ("returns", BLUE, "return"), ("advantages", RED, "advantage,\nwhitened"))):
        a.bar(range(len(j[key])), j[key], color=colour); a.set_ylabel(label); a.axhline(0, color="black", lw=.6)
    axes[-1].set_xticks(range(len(j["tokens"])), j["tokens"], rotation=50, ha="right", fontsize=8)
    axes[0].set_title("one response of iteration 8, token by token", fontsize=10)
    save(f, "4_rollout")

    f, axes = plt.subplots(2, 3, figsize=(11, 6))
    runs = [("good", "black", 2.4)] + list(zip("abd", (RED, BLUE, GREEN), (1.4,) * 3))
    for a, (key, label, scale) in zip(axes.flat, (("vbon/distance", "distance to Best-of-8, nats", "log"),
            ("objective/kl", "KL to the reference, nats", "symlog"), ("objective/entropy", "entropy, nats", "linear"),
            ("vbon/saturation", "share above all cached samples", "linear"),
            ("policy/approxkl_avg", "KL of an update, nats a token", "log"), (None, "", ""))):
        if key:
            for run, colour, width in runs:
                r = records(f"{OUT}/{run}")
                a.plot([x["step"] for x in r], [x[key] for x in r], color=colour, lw=width, label=run)
            a.set_yscale(scale)
        else:
            for run, colour in (("world", "black"), ("c", PINK)):
                r = records(f"{OUT}/{run}.jsonl")
                a.plot([x["step"] for x in r], [x["tv/pi_bon"] for x in r], color=colour,
                    label="healthy" if run == "world" else run)
            a.legend()
            label = "in the world: variation to π_bon"
        a.set_title(label, fontsize=10); a.set_xlabel("iteration")
    axes[0][0].legend()
    save(f, "4_faults")

    # 5: what a warp asks of memory
    f, axes = figure(2, height=2.6)
    for a, title, column, colour in zip(axes, ("kernel 1: 32 neighbouring floats, 4 sectors",
            "kernel 2: 32 floats a row apart, 32 sectors"), (False, True), (BLUE, RED)):
        for i in range(8):
            a.add_patch(plt.Rectangle((0, -i), 31.9, .8, color="#e8e8e8"))
            for c in range(32):
                if c == 3 if column else i == 2: a.add_patch(plt.Rectangle((c, -i), .9, .8, color=colour))
        a.set_xlim(0, 32); a.set_ylim(-7.2, 1); a.axis("off"); a.set_title(title, fontsize=10)
        for c in range(0, 33, 8): a.axvline(c - .05, color="black", lw=.8)
    save(f, "5_coalescing")

    # 6: one's own objective
    f, (a, b) = figure(2)
    for name, label, colour, marker in (("good4", "vBoN, N = 4", BLUE, "s"), ("good", "vBoN, N = 8", BLUE, "o"),
            ("win", "win, β = .11", RED, "s"), ("win06", "win, β = .06", RED, "o")):
        j = result(name)
        (win, se), kl, (far, far_se) = j["win_rate"], j["kl_rb"][0], j["distance"]["8"]
        a.errorbar(kl, win, 2 * se, fmt=marker, color=colour, label=label, capsize=2)
        b.errorbar(kl, far, 2 * far_se, fmt=marker, color=colour, label=label, capsize=2)
    N = [1 + i / 20 for i in range(0, 300)]
    a.plot([math.log(n) - (n - 1) / n for n in N], [n / (n + 1) for n in N], color=GREY, label="Best-of-N")
    b.plot(math.log(8) - 7 / 8, 0, "*", color=GREY, ms=11, label="Best-of-8")
    for x, where in ((a, "lower right"), (b, "lower left")):
        x.set_xlabel("KL to the reference, nats"); x.legend(loc=where)
    a.set_ylabel("win rate, ± 2 s.e."); b.set_ylabel("distance to Best-of-8, nats"); a.set_xlim(0, 2); b.set_xlim(0, 2)
    save(f, "6_own")

def main():
    a = sys.argv[1:]
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    if a[:1] == ["metrics"] and len(a) > 1: metrics(a[1:])
    elif a[:1] == ["rollout"] and len(a) == 3 and a[2].isdigit(): rollout(a[1], int(a[2]))
    elif a == ["pictures"]: pictures()
    else: die("give metrics RUN..., rollout FOLDER STEP, or pictures")

if __name__ == "__main__": main()
