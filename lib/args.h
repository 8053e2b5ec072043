// args.h: every flag of every command, and the presets. The parser of flags.h, --help, the start-up table and the
// config record of log.jsonl all come from this table. A new flag is a field of Args and a row here.
#pragma once
#ifdef VBON_IMPLEMENTATION

typedef struct {
    const char *model, *tokenizer, *init, *reference, *reward, *data, *held_out, *in, *out, *prompts, *prompt, *cache;
    const char *shard, *compat, *preset, *pool, *ns, *ms, *curves, *memory;
    // rows of the tables below
    size_t reduce, objective, fhat, critic, loss, arch, dtype, schedule, method, reward_output, precision, device,
        optimizer_state;
    long train_layers, max_docs, draws, pairs, layers, width, heads, context, shard_mib, samples, max_new, max_prompt,
        top_k, n, m, k, prefix_every, all_actions, episodes, rollout, minibatch, ppo_epochs;
    long steps, batch, from_position, warmup, trace, seed, log_every, eval_every, save_every, micro_tokens,
        decode_rows, threads, prompts_max, groups;
    long zero, ranks; // ranks: of info as asked for, else how many processes there are
    double missing_eos, alpha, reward_timeout, reward_scale, reward_offset, reward_tolerance, temperature, top_p, beta,
        clip, value_clip, vf_coef, gamma, lambda, score_clip, epochs, lr, beta1, beta2, eps, weight_decay, clip_grad,
        average, save_minutes, anchor_rate, anchor_kl, correction;
    size_t job;
    bool resume, drop_last, every_position, verbose, ties, all, recompute, offload;
    bool kept; // decode_rows and micro_tokens are those that an earlier start of this run chose (plan.h)
} Args;

// Choices without more to say than their names; an enum beside each says which is which.
typedef struct { const char *name, *help; } Named;
enum { DEVICE_CPU, DEVICE_CUDA };
static const Named devices[] = {{"cpu", NULL}, {"cuda", NULL}, {NULL, NULL}};
enum { PRECISION_AUTO, PRECISION_FP32, PRECISION_BF16 };
static const Named precisions[] = {{"auto", NULL}, {"fp32", NULL}, {"bf16", NULL}, {NULL, NULL}};
enum { JOB_TRAIN, JOB_CACHE, JOB_OFFLINE, JOB_EVAL };
static const Named jobs[] = {{"train", "PPO: policy, reference, reward model"},
                             {"cache", "a model that draws and a reward model; without --reward: sample"},
                             {"offline", "a model that trains; without --reward: sft too"},
                             {"eval", "policy, reference, and the reward model or judge"},
                             {NULL, NULL}};
enum { REDUCE_TREE, REDUCE_FAST };
static const Named reductions[] =
    {{"tree", "the same bits with any number of processes"}, {"fast", "between processes in MPI's or NCCL's own order"},
     {NULL, NULL}};
enum { METHOD_POLICY, METHOD_BON };
static const Named methods[] = {{"policy", NULL}, {"bon", NULL}, {NULL, NULL}};
enum { OPTIMIZER_FP32, OPTIMIZER_8BIT };
static const Named optimizer_states[] =
    {{"fp32", "AdamW's moments, and the weights they are applied to, exactly"},
     {"8bit", "moments of 8 bits, and in bfloat16 no other weights: both rounded at random, by seed"}, {NULL, NULL}};
enum { REWARD_LOGIT, REWARD_PROB };
static const Named reward_outputs[] = {{"logit", NULL}, {"prob", NULL}, {NULL, NULL}};
// baselines.h says what they are
typedef enum { OFFLINE_DPO, OFFLINE_IPO, OFFLINE_BONBON, OFFLINE_BON_SFT } OfflineKind;
static const Named offline_losses[] = {{"dpo", NULL}, {"ipo", NULL}, {"bonbon", NULL}, {"bon-sft", NULL}, {NULL, NULL}};
#define NAMES(table) (sizeof(table) / sizeof *(table) - 1) // a name without its place in the enum does not compile
_Static_assert(NAMES(devices) == DEVICE_CUDA + 1 && NAMES(precisions) == PRECISION_BF16 + 1, "names and enums");
_Static_assert(NAMES(jobs) == JOB_EVAL + 1, "names and enums");
_Static_assert(NAMES(methods) == METHOD_BON + 1 && NAMES(reward_outputs) == REWARD_PROB + 1, "names and enums");
_Static_assert(NAMES(optimizer_states) == OPTIMIZER_8BIT + 1, "names and enums");
_Static_assert(NAMES(offline_losses) == OFFLINE_BON_SFT + 1, "names and enums");
static const struct {
    const char *name, *help;
    DType type;
} dtypes[] = {{"fp32", NULL, DT_F32},
              {"fp16", NULL, DT_F16},
              {"bf16", NULL, DT_BF16},
              {"fp64", NULL, DT_F64},
              {NULL, NULL, DT_F32}};

// What --precision comes to where it is auto
static size_t precision_used(const Args *a)
{
    if (a->precision != PRECISION_AUTO) return a->precision;
    return a->device == DEVICE_CPU ? PRECISION_FP32 : PRECISION_BF16;
}
static DType device_type(const Args *a) { return precision_used(a) == PRECISION_FP32 ? DT_F32 : DT_BF16; } // CUDA's

#define FLAG(name, type, field, commands, fallback, range, help) \
    { \
        name, type, offsetof(Args, field), commands, fallback, range, help, NULL, 0 \
    }
#define CHOICE(name, field, commands, fallback, rows, help) \
    { \
        name, FLAG_CHOICE, offsetof(Args, field), commands, fallback, NULL, help, rows, sizeof *(rows) \
    }
#define GROUP(name) {name, FLAG_GROUP, 0, NULL, NULL, NULL, NULL, NULL, 0}
static const Flag flag_table[] = {
    GROUP("input and output"),
    FLAG("model", FLAG_STRING, model, "sft", NULL, NULL, "Hugging Face folder of a language model to fine-tune"),
    FLAG("model", FLAG_STRING, model, "sample bon score cache train offline eval", NULL, NULL,
         "Hugging Face folder of a language model"),
    FLAG("model", FLAG_STRING, model, "info", NULL, NULL,
         "Hugging Face folder of a language model or a reward model"),
    FLAG("init", FLAG_STRING, init, "reward", NULL, NULL,
         "start from the lower blocks of this language model's folder"),
    FLAG("tokenizer", FLAG_STRING, tokenizer, "sft reward", NULL, NULL,
         "folder with the tokenizer, for a model made from scratch"),
    FLAG("reference", FLAG_STRING, reference, "eval info", NULL, NULL,
         "folder of the reference, a language model with the policy's tokenizer (info: of --job eval; as the model)"),
    FLAG("reward", FLAG_STRING, reward, "sample bon score cache train eval info", NULL, NULL,
         "folder of a reward model (a classifier, no language model), or a program that reads JSONL and writes a "
         "number a line"),
    FLAG("reward", FLAG_STRING, reward, "offline", NULL, NULL,
         "folder or program of the reward, to check that the cache's rewards are its"),
    FLAG("reward-timeout", FLAG_DOUBLE, reward_timeout, "sample bon score cache train offline eval", "600", "1e-3..1e6",
         "seconds a reward program may let pass without an answer"),
    CHOICE("reward-output", reward_output, "sample bon score cache train offline eval", "logit", reward_outputs,
           "of a classifier: the positive label's logit, or its probability"),
    FLAG("reward-scale", FLAG_DOUBLE, reward_scale, "sample bon score cache train offline eval", "1", "1e-9..1e9",
         "rewards are multiplied by it"),
    FLAG("reward-offset", FLAG_DOUBLE, reward_offset, "sample bon score cache train offline eval", "0", "-1e9..1e9",
         "and this is added"),
    FLAG("reward-tolerance", FLAG_DOUBLE, reward_tolerance, "sample bon cache train offline eval", "0", "0..1e9",
         "stop when a cached response, scored again, differs by more than this share of the rewards' spread (0: 1e-4, "
         "and 0.1 where bf16 was or is used)"),
    FLAG("missing-eos", FLAG_DOUBLE, missing_eos, "sample bon cache train offline eval", "none", "none|-1e9..1e9",
         "reward of a response without an end-of-text token, in place of its own (none: its own)"),
    FLAG("data", FLAG_STRING, data, "sft", NULL, NULL,
         "JSONL to train on: lines {\"text\"} or {\"prompt\",\"response\"}"),
    FLAG("data", FLAG_STRING, data, "reward", NULL, NULL,
         "JSONL to train on: lines {\"text\",\"label\"} or {\"prompt\",\"chosen\",\"rejected\"}"),
    FLAG("data", FLAG_STRING, data, "offline", NULL, NULL,
         "JSONL to train on in place of --cache: lines {\"prompt\",\"chosen\",\"rejected\"}"),
    FLAG("held-out", FLAG_STRING, held_out, "sft reward", NULL, NULL, "JSONL to measure on"),
    FLAG("max-docs", FLAG_LONG, max_docs, "sft reward", "0", "0..1e9",
         "use only the first so many held-out lines (0: all)"),
    FLAG("in", FLAG_STRING, in, "score", NULL, NULL, "JSONL lines {\"prompt\",\"response\"} or {\"text\"}"),
    FLAG("prompt", FLAG_STRING, prompt, "sample bon", NULL, NULL, "one prompt"),
    FLAG("prompts", FLAG_STRING, prompts, "sample bon", NULL, NULL,
         "or a file of JSONL lines {\"prompt\"}; or, without either, standard input (also -), whose lines may be the "
         "prompts themselves"),
    FLAG("prompts", FLAG_STRING, prompts, "cache", NULL, NULL, "JSONL lines {\"prompt\"}"),
    FLAG("prompts", FLAG_STRING, prompts, "train eval", NULL, NULL,
         "JSONL lines {\"prompt\"} (left out: the cache's)"),
    FLAG("prompts-max", FLAG_LONG, prompts_max, "sample bon cache train offline eval", "0", "0..1e9",
         "use only the first so many prompts (0: all)"),
    FLAG("cache", FLAG_STRING, cache, "train offline eval ks compact", NULL, NULL,
         "reward cache (JSONL) of the reference model"),
    FLAG("cache", FLAG_STRING, cache, "sample bon", NULL, NULL,
         "reward cache (JSONL) of the reference model, to say how many of its M samples are below"),
    FLAG("out", FLAG_STRING, out, "sft reward train offline", NULL, NULL,
         "folder to write: checkpoints, log.jsonl and the model"),
    FLAG("out", FLAG_STRING, out, "score compact", NULL, NULL, "JSONL file to write"),
    FLAG("out", FLAG_STRING, out, "cache", NULL, NULL, "JSONL file to write; one that was begun is gone on with"),
    FLAG("out", FLAG_STRING, out, "sample bon", NULL, NULL, "JSONL file to write (left out: standard output)"),
    FLAG("out", FLAG_STRING, out, "eval ks", NULL, NULL, "JSON file to write beside the printed table"),
    FLAG("out", FLAG_STRING, out, "merge", NULL, NULL, "the --out of the shards, which stand beside it as OUT.0-of-n"),
    FLAG("shard", FLAG_STRING, shard, "bon score cache eval", NULL, NULL,
         "i/n, as 0/3, 1/3 and 2/3: do this share of the work and write it to OUT.i-of-n; vbon merge joins all n into "
         "what one run would have written"),
    GROUP("model"),
    CHOICE("arch", arch, "sft reward", "gpt2", architectures, "architecture of a model made from scratch"),
    FLAG("layers", FLAG_LONG, layers, "sft reward", "4", "1..1000", "blocks of a model made from scratch"),
    FLAG("width", FLAG_LONG, width, "sft reward", "128", "1..65536", "its width"),
    FLAG("heads", FLAG_LONG, heads, "sft reward", "4", "1..65536", "its attention heads"),
    FLAG("context", FLAG_LONG, context, "sft reward", "128", "2..1e9",
         "its context; training rows are at most so long"),
    FLAG("train-layers", FLAG_LONG, train_layers, "sft reward train offline info", "all", "all|0..1e9",
         "all, or K: the top K blocks, the final norm and an untied head"),
    CHOICE("dtype", dtype, "sft reward train offline", "fp32", dtypes, "type of the weights written at the end"),
    FLAG("shard-mib", FLAG_LONG, shard_mib, "sft reward train offline", "0", "0..1e9",
         "split the written weights into files of at most so many MiB (0: one file)"),
    GROUP("sampling"),
    FLAG("samples", FLAG_LONG, samples, "sample cache eval info", "1", "1..1e9", "responses a prompt"),
    FLAG("max-new", FLAG_LONG, max_new, "sample bon cache train eval info", "40", "1..1e9", "new tokens at most"),
    FLAG("temperature", FLAG_DOUBLE, temperature, "sample bon cache train offline eval score", "1", "1e-4..1e4",
         "logits are divided by it, in sampling and in every log-probability"),
    FLAG("max-prompt", FLAG_LONG, max_prompt, "info", NULL, "1..1e9", "tokens of the longest prompt, for the plan"),
    FLAG("top-k", FLAG_LONG, top_k, "sample bon", "0", "0..1e9", "sample from the k likeliest tokens (0: all)"),
    FLAG("top-p", FLAG_DOUBLE, top_p, "sample bon", "1", "1e-9..1",
         "sample from the smallest set with this probability (1: all)"),
    GROUP("objective"),
    CHOICE("objective", objective, "train world info", "vbon", objectives, "what to maximise"),
    CHOICE("loss", loss, "offline", "dpo", offline_losses,
           "what to minimise over comparisons of cached responses (lib/baselines.h has the formulas)"),
    FLAG("alpha", FLAG_DOUBLE, alpha, "offline", "auto", "auto|0..1",
         "bonbon: weight of the likelihood of the best (auto: both terms weigh the same at the start)"),
    FLAG("draws", FLAG_LONG, draws, "offline", "6", "2..4096",
         "dpo, ipo: compare each prompt's first so many cached draws"),
    FLAG("draws", FLAG_LONG, draws, "compact", "0", "0..1e9", "keep the ids of each prompt's first so many draws"),
    FLAG("pairs", FLAG_LONG, pairs, "offline", "12", "1..1e9",
         "dpo, ipo: comparisons a prompt at most, chosen by seed"),
    FLAG("n", FLAG_LONG, n, "train offline bon eval world info", "4", "1..1e9", "the N of Best-of-N"),
    FLAG("all", FLAG_BOOL, all, "bon", "false", NULL, "write all N candidates of a prompt, the best marked"),
    CHOICE("method", method, "eval", "policy", methods, "measure --model, or Best-of-N drawn from the reference"),
    FLAG("pool", FLAG_STRING, pool, "eval", NULL, NULL,
         "--method bon: choose among this cache's draws by the rewards in it, in place of drawing; --reward and "
         "--cache may be another reward's and judge the choice"),
    FLAG("ns", FLAG_STRING, ns, "eval", "4,16", NULL, "measure the distance to Best-of-N for these N"),
    FLAG("ns", FLAG_STRING, ns, "compact", "", NULL,
         "keep the ids of the best and the worst of each prompt's first N draws, for these N"),
    FLAG("ms", FLAG_STRING, ms, "ks", "5,20,100,200,250", NULL,
         "compare the first M samples of a prompt with all of them, for these M"),
    FLAG("curves", FLAG_STRING, curves, "ks", NULL, NULL,
         "write the CDFs of these prompts too, by M (numbers from 1 on with commas between, or auto: the prompts of "
         "lowest, median and highest mean reward)"),
    FLAG("beta", FLAG_DOUBLE, beta, "train world", NULL, "1e-6..1e6",
         "strength of the KL penalty, for rl and l (never converted into N)"),
    FLAG("beta", FLAG_DOUBLE, beta, "offline", NULL, "1e-6..1e6", "strength of the KL penalty, for dpo and ipo"),
    CHOICE("fhat", fhat, "train", "digamma", fhats, "estimate of log F from k of M cached samples below"),
    CHOICE("fhat", fhat, "world", "exact", fhats, "estimate of log F from k of --m draws below, or F itself"),
    FLAG("m", FLAG_LONG, m, "train eval ks", "0", "0..1e9", "use the first M samples drawn for each prompt (0: all)"),
    FLAG("m", FLAG_LONG, m, "world", "200", "1..1000000", "draws of the reference, for an estimate of F"),
    FLAG("ties", FLAG_BOOL, ties, "world", "false", NULL, "a reward of four values only: it counts the letter b"),
    FLAG("compat", FLAG_STRING, compat, "train world", "", NULL,
         "reproduce the released code: scale, jointp, or both, comma-separated"),
    FLAG("k", FLAG_LONG, k, "train world info", "16", "1..4096",
         "bond: draws of the reference a prompt and iteration that a response is ranked among"),
    FLAG("anchor-rate", FLAG_DOUBLE, anchor_rate, "train world info", "0.02", "0..1",
         "jbond: how far the anchor goes towards the policy after each iteration"),
    FLAG("anchor-kl", FLAG_DOUBLE, anchor_kl, "train world", "1", "0..1e6",
         "jbond: weight of the KL to the anchor"),
    CHOICE("critic", critic, "train info", "auto", critics, "what the values are"),
    CHOICE("critic", critic, "world", "head", critics, "what the values are"),
    FLAG("all-actions", FLAG_LONG, all_actions, "train world info", "0", "0..4096",
         "prefix-rank: at each state the reward model scores so many of the likeliest next tokens, and the gradient is "
         "taken over all of them (0: over the sampled one alone)"),
    FLAG("correction", FLAG_DOUBLE, correction, "train world", "0.3", "0..1",
         "all-actions: weight of what the sampled token's advantage says beyond that (1: the least bias, 0: the least "
         "noise)"),
    FLAG("prefix-every", FLAG_LONG, prefix_every, "train", "4", "1..1e9",
         "prefix-rank: score every so many-th prefix, where each is a text of its own (a causal reward model with the "
         "policy's tokenizer scores all of them in the pass that it makes anyway)"),
    GROUP("PPO"),
    FLAG("episodes", FLAG_LONG, episodes, "train", "12800", "1..1e9", "responses to train on in all"),
    FLAG("episodes", FLAG_LONG, episodes, "world", "51200", "1..1e9", "responses to train on in all"),
    FLAG("rollout", FLAG_LONG, rollout, "train info", "512", "1..1e9", "episodes an iteration"),
    FLAG("rollout", FLAG_LONG, rollout, "world", "256", "1..1e9", "episodes an iteration"),
    FLAG("minibatch", FLAG_LONG, minibatch, "train info", "64", "1..1e9", "episodes an optimiser step"),
    FLAG("minibatch", FLAG_LONG, minibatch, "world", "128", "1..1e9", "episodes an optimiser step"),
    FLAG("ppo-epochs", FLAG_LONG, ppo_epochs, "train", "1", "1..1e9", "passes over each rollout"),
    FLAG("ppo-epochs", FLAG_LONG, ppo_epochs, "world", "4", "1..1e9", "passes over each rollout"),
    FLAG("clip", FLAG_DOUBLE, clip, "train world", "0.2", "1e-9..1e9", "of the probability ratio"),
    FLAG("value-clip", FLAG_DOUBLE, value_clip, "train world", "0.2", "1e-9..1e9", "of the value's change"),
    FLAG("vf-coef", FLAG_DOUBLE, vf_coef, "train", "0.1", "0..1e6", "weight of the value head's loss"),
    FLAG("vf-coef", FLAG_DOUBLE, vf_coef, "world", "1", "0..1e6", "weight of the value head's loss"),
    FLAG("score-clip", FLAG_DOUBLE, score_clip, "train world", "0", "0..1e9",
         "clip the terminal score to +- this (0: no clipping)"),
    FLAG("gamma", FLAG_DOUBLE, gamma, "train", "1", "0..1", "discount"),
    FLAG("lambda", FLAG_DOUBLE, lambda, "train", "auto", "auto|0..1",
         "of generalised advantage estimation (auto: 1; with prefix-rank 0.7, and 0.9 where prefixes are "
         "texts of their own)"),
    FLAG("lambda", FLAG_DOUBLE, lambda, "world", "0.95", "0..1", "of generalised advantage estimation"),
    GROUP("optimisation"),
    FLAG("epochs", FLAG_DOUBLE, epochs, "sft reward offline", "1", ">0..1e9",
         "passes over the data (a fraction is allowed)"),
    FLAG("steps", FLAG_LONG, steps, "sft reward offline", "0", "0..1e9",
         "optimiser steps, in place of epochs (0: by epochs)"),
    FLAG("batch", FLAG_LONG, batch, "sft reward offline info", "32", "1..1e9",
         "rows (or comparisons) an optimiser step"),
    FLAG("drop-last", FLAG_BOOL, drop_last, "sft reward offline", "false", NULL,
         "by epochs: leave out what does not fill a last batch (otherwise the last optimiser step has fewer)"),
    FLAG("from-position", FLAG_LONG, from_position, "reward", "12", "0..1e9",
         "labels: train the score at every position from here on"),
    FLAG("every-position", FLAG_BOOL, every_position, "reward", "false", NULL,
         "comparisons: train the scores at every position of the responses, the t-th against the t-th, and not at "
         "their ends alone: prefixes get a meaning, which --critic prefix-rank lives on"),
    FLAG("lr", FLAG_DOUBLE, lr, "train", "auto", "auto|0..1e9",
         "learning rate (auto: 0.42 / sqrt(parameters), times sqrt(KL of Best-of-N / KL of Best-of-16) where there is "
         "an N, and half of that with the value head; tried with 1 and 4.5 million parameters)"),
    FLAG("lr", FLAG_DOUBLE, lr, "sft reward offline", "3e-5", "0..1e9", "learning rate"),
    FLAG("lr", FLAG_DOUBLE, lr, "world", "1e-3", "0..1e9", "learning rate"),
    CHOICE("schedule", schedule, "sft reward train offline world", "linear", schedules,
           "of the learning rate, to 0, per optimiser step"),
    FLAG("warmup", FLAG_LONG, warmup, "train", "12", "0..1e9", "optimiser steps over which the rate rises"),
    FLAG("warmup", FLAG_LONG, warmup, "sft reward offline world", "0", "0..1e9",
         "optimiser steps over which the rate rises"),
    FLAG("beta1", FLAG_DOUBLE, beta1, "sft reward train offline world", "0.9", "0..<1", "of AdamW"),
    FLAG("beta2", FLAG_DOUBLE, beta2, "sft reward train offline world", "0.95", "0..<1", "of AdamW"),
    FLAG("eps", FLAG_DOUBLE, eps, "sft reward train offline world", "1e-8", "1e-20..1e9", "of AdamW"),
    FLAG("weight-decay", FLAG_DOUBLE, weight_decay, "sft reward train offline", "1e-6", "0..1000",
         "of AdamW, on matrices and embeddings"),
    FLAG("clip-grad", FLAG_DOUBLE, clip_grad, "sft reward train offline world", "1", "0..1e9",
         "largest gradient norm (0: no clipping)"),
    FLAG("average", FLAG_DOUBLE, average, "sft reward train offline info", "0", "0..<1",
         "the model that is written has the weights' moving average, of which this share is kept at each optimiser "
         "step (0: the last weights)"),
    GROUP("running"),
    FLAG("preset", FLAG_STRING, preset, "train", NULL, NULL,
         "a named set of flags: sentiment, sentiment-released, tldr, tldr-released: the paper's; best: what the "
         "defaults come to at N = 16 and 4.5 million parameters, longer; bond, jbond: their own paper's"),
    FLAG("preset", FLAG_STRING, preset, "offline", NULL, NULL,
         "a named set of flags: dpo, bonbon, bon-sft: rates and batches for 124 million parameters"),
    FLAG("seed", FLAG_LONG, seed, "sft reward sample bon cache train offline eval world", "1", "0..",
         "of every random draw"),
    FLAG("resume", FLAG_BOOL, resume, "sft reward train offline", "false", NULL,
         "go on from the last checkpoint in --out"),
    FLAG("log-every", FLAG_LONG, log_every, "sft reward offline", "1", "1..1e9", "optimiser steps between records"),
    FLAG("log-every", FLAG_LONG, log_every, "train", "1", "1..1e9", "iterations between records"),
    FLAG("log-every", FLAG_LONG, log_every, "world", "5", "1..1e9", "iterations between tables, or records"),
    FLAG("trace", FLAG_LONG, trace, "train", "0", "0..1e9",
         "keep so many responses, token by token, of the first iteration and of each that ends a twentieth of the run, "
         "in OUT/trace.jsonl (dev/report.py shows them)"),
    FLAG("eval-every", FLAG_LONG, eval_every, "sft reward", "0", "0..1e9",
         "optimiser steps between held-out measurements (0: at the end)"),
    FLAG("save-every", FLAG_LONG, save_every, "sft reward offline", "0", "0..1e9",
         "optimiser steps between checkpoints (0: by the clock alone)"),
    FLAG("save-every", FLAG_LONG, save_every, "train", "0", "0..1e9",
         "iterations between checkpoints (0: by the clock alone)"),
    FLAG("save-minutes", FLAG_DOUBLE, save_minutes, "sft reward train offline", "10", "0..1e9",
         "minutes between checkpoints (0: none by the clock); one writes 12 bytes a parameter that trains: "
         "0.2 s for a million of them, 15 s for 87 million, beside other work on two cores"),
    FLAG("micro-tokens", FLAG_LONG, micro_tokens, "sft reward score cache train offline eval sample bon info", "4096",
         "1..1e9", "tokens in one forward pass; results do not depend on it beyond rounding"),
    FLAG("decode-rows", FLAG_LONG, decode_rows, "sample bon cache eval", "0", "0..1e9",
         "responses decoded at once at most; fewer need less memory for keys and values (0: 256; on CUDA as many as "
         "memory allows, 1024 at most)"),
    FLAG("decode-rows", FLAG_LONG, decode_rows, "train", "0", "0..1e9",
         "responses decoded at once at most; fewer need less memory for keys and values (0: 512; on CUDA as many as "
         "memory allows, 1024 at most)"),
    FLAG("decode-rows", FLAG_LONG, decode_rows, "info", "0", "0..1e9",
         "responses decoded at once at most; fewer need less memory for keys and values (0: 256, for train 512)"),
    CHOICE("job", job, "info", "train", jobs, "what the plan is for"),
    FLAG("recompute", FLAG_BOOL, recompute, "sft reward train offline info", "false", NULL,
         "of a block that trains keep the output alone and run it again in the backward pass: less memory, more time "
         "in updates, the same bits"),
    FLAG("offload", FLAG_BOOL, offload, "train info", "false", NULL,
         "on CUDA, keep the reference and a reward model in pinned memory of the host, and copy each in when it is "
         "used: of the two the larger counts; the same bits"),
    CHOICE("optimizer-state", optimizer_state, "sft reward train offline world info", "fp32", optimizer_states,
           "what the optimiser keeps of each parameter that trains (lib/moments.h)"),
    FLAG("memory", FLAG_STRING, memory, "info", NULL, NULL, "say whether the plan fits, e.g. 40GB"),
    FLAG("memory", FLAG_STRING, memory, "sample bon cache train offline eval", NULL, NULL,
         "what may be used of a device, e.g. 40GB (what is free)"),
    FLAG("groups", FLAG_LONG, groups, "sft reward train offline info", "0", "0..512",
         "groups that rollouts and batches are cut into: a power of two that the number of processes divides; the "
         "result depends on it beyond rounding only through the shapes of products, and not at all on how many "
         "processes there are (0: 1, and under mpirun 8)"),
    FLAG("zero", FLAG_LONG, zero, "sft reward train offline info", "0", "0..1",
         "1: of AdamW's states and exact weights each process keeps its part alone (ZeRO-1); the same bits, and "
         "checkpoints that any number of processes goes on with"),
    FLAG("ranks", FLAG_LONG, ranks, "info", "1", "1..512", "plan for one of so many processes"),
    CHOICE("reduce", reduce, "sft reward train offline", "tree", reductions, "how gradients are added up"),
    CHOICE("precision", precision, "all", "auto", precisions,
           "bf16: on the CPU of matrix products' inputs, on CUDA of weights and activations, DistilBERT's in TF32; "
           "what trains, its sums and statistics stay fp32 (auto: fp32 on the CPU, bf16 on CUDA)"),
    CHOICE("device", device, "all", "cpu", devices, "where to compute"),
    FLAG("threads", FLAG_LONG, threads, "all", "0", "0..1024", "CPU threads (0: one a core)"),
    FLAG("verbose", FLAG_BOOL, verbose, "sft reward sample bon score cache train offline eval ks", "false", NULL,
         "the start-up table shows every flag, not only what differs from the defaults"),
};
static const size_t n_flags = sizeof flag_table / sizeof *flag_table;

// Presets are flags, read before the command line (the paper's appendix F and the released code; where they differ:
// dev/doc/manual.md). sentiment: the paper names trlx's defaults, which are a constant rate, a score clip of 10 and no
// clip of the gradient norm. sentiment-released: what the authors' README runs; of beta their code makes
// n = int(1/beta) + 1 = 11. tldr: of the paper's two strengths, N = 100 and beta = .05, which contradict each other
// (1/beta + 1 = 21), N = 100.
// bond, jbond: one step of Adam a rollout of 128, and of their many N 4.
#define BOND_RECIPE \
    "--critic others --lambda 1 --lr 3e-6 --schedule constant --warmup 100 --weight-decay 0 --rollout 128 " \
    "--minibatch 128 --ppo-epochs 1"
// PPO_HEAD: what all of the paper's have.
#define PPO_HEAD "--critic head --lambda 0.95 --warmup 0 "
static const struct { const char *name, *flags;
} presets[] = {
    {"sentiment",
     PPO_HEAD
     "--train-layers 2 --objective vbon --n 4 --fhat digamma --lr 3e-5 --schedule constant --beta1 0.9 --beta2 0.95 "
     "--eps 1e-8 --weight-decay 1e-6 "
     "--rollout 128 --minibatch 32 --ppo-epochs 4 --vf-coef 1 --clip 0.2 --value-clip 0.2 --score-clip 10 --clip-grad "
     "0 --episodes 12800 --max-new 40 --temperature 1 --m 200"},
    {"sentiment-released",
     PPO_HEAD
     "--train-layers 2 --objective vbon --compat scale,jointp --beta 0.1 --fhat add1 --lr 3e-5 --schedule constant "
     "--beta1 0.9 --beta2 0.95 "
     "--eps 1e-8 --weight-decay 1e-6 "
     "--rollout 128 --minibatch 32 --ppo-epochs 4 --vf-coef 1 --score-clip 10 --clip-grad 0 --episodes 12800 --max-new "
     "40 --temperature 1"},
    {"tldr",
     PPO_HEAD
     "--train-layers all --objective vbon --n 100 --fhat expfit --lr 3e-6 --schedule linear --beta1 0.9 --beta2 0.95 "
     "--eps 1e-5 --weight-decay 1e-6 "
     "--rollout 128 --minibatch 32 --ppo-epochs 4 --vf-coef 0.2 --clip 0.2 --value-clip 0.2 --clip-grad 1 --episodes "
     "10000 --max-new 53 --temperature 0.7 --m 200 --missing-eos -1"},
    {"tldr-released",
     PPO_HEAD
     "--train-layers 8 --objective l --beta 0.005 --fhat add1 --lr 3e-6 --schedule constant --beta1 0.9 --beta2 0.999 "
     "--eps 1e-5 --weight-decay 0.01 "
     "--rollout 128 --minibatch 4 --ppo-epochs 4 --vf-coef 0.2 --clip-grad 0 --episodes 10000 --max-new 50 "
     "--temperature 0.7 --missing-eos -20"},
    {"dpo", "--loss dpo --beta 0.1 --draws 6 --pairs 12 --lr 1e-6 --batch 64 --epochs 1"},
    {"bonbon", "--loss bonbon --n 8 --alpha auto --lr 1e-6 --batch 64 --epochs 1"},
    {"bon-sft", "--loss bon-sft --n 8 --lr 5e-6 --batch 8 --epochs 1"},
    {"best",
     "--train-layers all --objective vbon --n 16 --fhat digamma --critic prefix-rank --lambda 0.7 --lr 2e-4 --schedule "
     "linear --warmup 12 --vf-coef 1 --beta1 0.9 --beta2 0.95 --eps 1e-8 "
     "--weight-decay 1e-6 --rollout 512 --minibatch 64 --ppo-epochs 1 --clip 0.2 --clip-grad 1 --episodes 65536 "
     "--max-new 40 --temperature 1 --m 0"},
    {"bond", "--objective bond --n 4 --k 16 " BOND_RECIPE},
    {"jbond", "--objective jbond --anchor-rate 0.02 --anchor-kl 1 " BOND_RECIPE},
};
static const char *preset_flags(const char *name)
{
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++)
        if (!strcmp(presets[i].name, name)) return presets[i].flags;
    return NULL;
}
#endif
