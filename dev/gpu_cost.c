// gpu_cost.c: what the paper's work would cost on cards that are not here: a prediction.
//
//   make cost                    the table of all stretches, dev/results/cost.md (a few minutes)
//   make cost KERNEL=sample      what kernels of that name touch, line by line
//   build/gpu_cost STRETCH...    some of them, on stdout;  --check FILE STRETCH...: none may be 5 % over FILE's table
//   build/gpu_cost --dump FILE STRETCH...   every launch's counts, for whoever sets the model's constants
//
// The stretches are gpu_bench.c's own jobs and a few more at the paper's sizes, run by the emulator that counts instead
// of computing (dev/cuda_on_cpu/cost.h says how, and what it does not see). Where dev/results/gpu/h200 has a time of
// the same job on a real H200, the table has it beside the predicted one.
#define main gpu_bench_main
#include "gpu_bench.c"
#undef main
#include "cuda_on_cpu/cost.h"

enum { LINES = 96, SHOWN = 14 };
#define CLAIM_OFF 0.05 // a kernel's line of costs may be so far from the count

// ----------------------------------------------------------------------------
// the jobs

static void cost_job(const Config *shape, long blocks, size_t B, size_t T, bool update)
{
    const AdamW opt = {1e-5, 0.9, 0.95, 1e-8, 0, 1, 0, 0};
    Job j;
    job_create(&j, shape, blocks, B, T);
    cost_begin();
    job_gradient(&j);
    if (update) model_update(&j.m, &opt);
}

// After a first time in which its steps are recorded
static void cost_decode(const Config *shape, size_t rows, size_t n_prompts, size_t length, size_t new)
{
    Decoder d;
    decoder_create(&d, shape, rows, n_prompts, length, new);
    decode(&d, 0);
    cost_begin();
    decode(&d, 0);
}

static void cost_reward(const Config *shape, size_t rows, size_t length, size_t new)
{
    Reward r;
    reward_model_create(&r, shape);
    Prompt *prompt = prompts_random(shape, 1, length);
    Response *y = xcalloc(rows, sizeof *y);
    for (size_t b = 0; b < rows; b++) {
        y[b] = (Response){.ids = xmalloc(new * sizeof(int)), .n = new};
        for (size_t k = 0; k < new; k++) y[b].ids[k] = (int)(random_bits(3, 1, b, k, 0) % shape->V);
    }
    model_assign(&r, prompt, y, rows, false); // its work memory is placed
    cost_begin();
    model_assign(&r, prompt, y, rows, false);
}

static void cost_sentiment_cache(void) // a thousand responses: 5 prompts x 200
{
    Decoder d;
    DistilBert *bert = distilbert_plain(4096);
    decoder_create(&d, &gpt2_124m, 1000, 5, 8, 40);
    decode(&d, 0);
    cost_begin();
    decode(&d, 0);
    distilbert_texts(bert, 1000, 68); // of random tokens, as measured; English has fewer
}

static void cost_ppo(const Config *shape, long blocks, size_t length, long new, bool reward_model)
{
    Tuning u;
    tuning_create(&u, shape, blocks, length, new, reward_model);
    ppo_iteration(&u.p);
    cost_begin();
    ppo_iteration(&u.p);
}

#define RUNS(name, call) static void name(void) { call; }
RUNS(run_train, cost_job(&gpt2_124m, TRAIN_ALL, 8, 1024, true))
RUNS(run_train_small, cost_job(&gpt2_124m, TRAIN_ALL, 4, 64, true))
RUNS(run_gpt2_1, cost_decode(&gpt2_124m, 1, 1, 8, 32))
RUNS(run_gpt2_8, cost_decode(&gpt2_124m, 8, 1, 8, 32))
RUNS(run_gpt2_128, cost_decode(&gpt2_124m, 128, 1, 8, 32))
RUNS(run_gpt2_1024, cost_decode(&gpt2_124m, 1024, 1, 8, 32))
RUNS(run_ppo_2, cost_ppo(&gpt2_124m, 2, 8, 40, false))
RUNS(run_ppo_all, cost_ppo(&gpt2_124m, TRAIN_ALL, 8, 40, false))
RUNS(run_pythia_1, cost_decode(&pythia_2_8b, 1, 1, 8, 32))
RUNS(run_pythia_8, cost_decode(&pythia_2_8b, 8, 1, 8, 32))
RUNS(run_pythia_128, cost_decode(&pythia_2_8b, 128, 1, 8, 32))
RUNS(run_pythia_1024, cost_decode(&pythia_2_8b, 1024, 1, 8, 32))
RUNS(run_pythia_200, cost_decode(&pythia_2_8b, 200, 1, 512, 53))
RUNS(run_pythia_reward, cost_reward(&pythia_2_8b, 200, 512, 53))
RUNS(run_pythia_train, cost_job(&pythia_2_8b, 8, 4, 565, false))
RUNS(run_tldr_8, cost_ppo(&pythia_2_8b, 8, 512, 53, true))
RUNS(run_tldr_all, cost_ppo(&pythia_2_8b, TRAIN_ALL, 512, 53, true))

// Kernels that none of the stretches runs: of float, of what training by hand and evaluation need. Not in the table.
static void run_others(void)
{
    enum { N = 2048, B = 4, NH = 12, HS = 64, C = NH * HS, V = 50257, R = 640, K = 32 };
    const Ops *f = ops_cuda(DT_F32);
    int start_[B + 1], index_[R], few_[R * K];
    for (int b = 0; b <= B; b++) start_[b] = b * (N / B);
    for (int i = 0; i < R; i++) index_[i] = i;
    for (int i = 0; i < R * K; i++) few_[i] = i % K * 1000 + i / K;
    #define NEW(name, n) Buf name = f->alloc(n, DT_F32, #name)
    NEW(out, (size_t)N * C); NEW(lse, (size_t)N * NH); NEW(qkv, (size_t)3 * N * C); NEW(dqkv, (size_t)3 * N * C);
    NEW(dout, (size_t)N * C); NEW(weight, (size_t)V * C); NEW(kl, R); NEW(kept, R * f->vocabulary_rows(V));
    NEW(few_logp, R * K);
    #undef NEW
    Buf start = f->alloc(B + 1, DT_I32, "start"), target = f->alloc(R, DT_I32, "target"),
        few = f->alloc(R * K, DT_I32, "tokens"), likeliest = f->alloc(R * K, DT_I32, "candidates"),
        half = o->alloc((size_t)N * C, DT_BF16, "bfloat16"), square = o->alloc((size_t)C * C, DT_BF16, "weight"),
        bias = o->alloc(C, DT_BF16, "bias"), p = o->alloc(weight.n, DT_BF16, "weights"),
        m = o->alloc(weight.n, DT_U8, "first moments"), v = o->alloc(weight.n, DT_U8, "second moments"),
        scale = o->alloc(2 * moment_blocks(weight.n), DT_F32, "scales of moments"), none = {0},
        ranges = o->alloc(sizeof(ParamRange), DT_U8, "ranges");
    const ParamRange all = {0, weight.n, 0, 1};
    f->upload(start, start_);
    f->upload(ranges, &all);
    f->upload(target, index_);
    f->upload(few, few_);
    cost_begin();
    for (int causal = 0; causal < 2; causal++) {
        f->attention_forward(out, lse, qkv, start, B, N, NH, HS, causal);
        f->attention_backward(dqkv, dout, out, lse, qkv, start, B, N, NH, HS, causal);
    }
    f->logprob_forward(kl, kl, none, out, weight, target, 1, R, C, V);
    f->head_kl(kl, out, weight, dout, weight, 1, R, C, V);
    f->candidate_logprobs(few_logp, likeliest, true, out, weight, 1, K, R, C, V);
    f->logprob_forward(kl, none, kept, out, weight, target, 1, R, C, V);
    f->all_actions_backward(dout, none, kl, lse, kept, out, weight, target, few, few_logp, 1, 1, 1, K, R, C, V);
    f->blend(dqkv, qkv, 0.99);
    f->fill(weight, 1);
    o->matmul_forward(out, half, square, bias, N, C, C);
    o->adamw_8bit(p, weight, m, v, scale, ranges, moment_blocks(weight.n), 1e-3, 0.9, 0.95, 1e-8, 0, 1, 1, 1, 0);
}

// times: what one run's milliseconds are multiplied by for the figure in the table. file, what and two numbers name the
// record of a real run.
typedef struct {
    const char *id, *name; void (*run)(void); double times;
    const char *file, *what, *key[2]; long value[2];
} Stretch;
static const Stretch stretches[] = {
    {"train", "GPT-2 124M, training step of 8 x 1024 tokens", run_train, 1,
        "training", "GPT-2 124M training step", {"batch", "length"}, {8, 1024}},
    {"train-small", "GPT-2 124M, training step of 4 x 64 tokens", run_train_small, 1,
        "training", "GPT-2 124M training step", {"batch", "length"}, {4, 64}},
    #define DECODE(id, name, run, file, what, rows, prompt, new) \
        {id, name, run, 1. / new, file, what " decoding step", {"rows", "prompt"}, {rows, prompt}}
    DECODE("gpt2-1", "GPT-2 124M, decoding step of 1 row", run_gpt2_1, "decode", "GPT-2 124M", 1, 8, 32),
    DECODE("gpt2-8", "GPT-2 124M, decoding step of 8 rows", run_gpt2_8, "decode", "GPT-2 124M", 8, 8, 32),
    DECODE("gpt2-128", "GPT-2 124M, decoding step of 128 rows", run_gpt2_128, "decode", "GPT-2 124M", 128, 8, 32),
    DECODE("gpt2-1024", "GPT-2 124M, decoding step of 1024 rows", run_gpt2_1024, "decode", "GPT-2 124M", 1024, 8, 32),
    {"ppo", "sentiment PPO iteration, top 2 blocks, rewards apart", run_ppo_2, 1,
        "ppo", "PPO iteration", {"episodes", "new"}, {128, 40}},
    {"ppo-all", "sentiment PPO iteration, all blocks, rewards apart", run_ppo_all, 1,
        "ppo", "PPO iteration, all blocks", {"episodes", "new"}, {128, 40}},
    {"sentiment-cache", "**seconds:** sentiment cache, 5000 x 200, GPT-2 124M and DistilBERT in TF32",
        cost_sentiment_cache, 1000 / 1e3, "sentiment", "sentiment cache", {"rows", "new"}, {1000, 40}},
    DECODE("pythia-1", "Pythia 2.8B, decoding step of 1 row", run_pythia_1, "pythia", "Pythia 2.8B", 1, 8, 32),
    DECODE("pythia-8", "Pythia 2.8B, decoding step of 8 rows", run_pythia_8, "pythia", "Pythia 2.8B", 8, 8, 32),
    DECODE("pythia-128", "Pythia 2.8B, decoding step of 128 rows", run_pythia_128, "pythia", "Pythia 2.8B", 128, 8, 32),
    DECODE("pythia-1024", "Pythia 2.8B, decoding step of 1024 rows", run_pythia_1024, "pythia", "Pythia 2.8B", 1024, 8,
        32),
    DECODE("pythia-200", "Pythia 2.8B, decoding step of 200 rows on one prompt of 512, its prefill over 53 steps",
        run_pythia_200, "pythia", "Pythia 2.8B", 200, 512, 53),
    {"pythia-reward", "Pythia 2.8B reward model, 200 x 53 tokens on one prompt of 512", run_pythia_reward, 1,
        "pythia", "Pythia 2.8B reward model", {"rows", "prompt"}, {200, 512}},
    {"pythia-train", "Pythia 2.8B, forward and backward of 4 x 565 tokens, top 8 blocks", run_pythia_train, 1,
        "pythia", "Pythia 2.8B forward and backward", {"batch", "length"}, {4, 565}},
    {"tldr-8", "**seconds:** TL;DR PPO, 10,000 episodes, 2.8B policy and reward model, top 8 blocks", run_tldr_8,
        10000. / 128 / 1e3, "tldr", "TL;DR PPO iteration, top 8 blocks", {"episodes", "new"}, {128, 53}},
    {"tldr-all", "**seconds:** TL;DR PPO, 10,000 episodes, 2.8B policy and reward model, all blocks", run_tldr_all,
        10000. / 128 / 1e3, "tldr", "TL;DR PPO iteration, all blocks", {"episodes", "new"}, {128, 53}},
    {"others", NULL, run_others, 1, NULL, NULL, {0}, {0}},
};
enum { STRETCHES = sizeof stretches / sizeof *stretches };

// ----------------------------------------------------------------------------
// the table

typedef struct { CostTime time[COST_CARDS]; CostKernel k[LINES]; size_t n, waits; double launches; bool there; } Result;

static double measured_ms(const Stretch *s) // on the H200, or 0
{
    char path[128];
    double ms = 0;
    if (!s->file) return 0;
    snprintf(path, sizeof path, "dev/results/gpu/h200/%s.json", s->file);
    json_t *j = json_load_file(path, 0, NULL), *x;
    size_t i;
    json_array_foreach(json_object_get(j, "records"), i, x) {
        const char *what = json_string_value(json_object_get(x, "what"));
        if (what && !strcmp(what, s->what) && json_integer_value(json_object_get(x, s->key[0])) == s->value[0] &&
            json_integer_value(json_object_get(x, s->key[1])) == s->value[1])
            ms = json_number_value(json_object_get(x, "host_seconds")) * 1e3 * (strcmp(s->file, "tldr") ? 1 : s->times);
    }
    json_decref(j);
    return ms;
}

static void run_here(const Stretch *s, Result *r, FILE *dump)
{
    setenv("SIMT_DEVICE_MB", "200000", 1); // it is address space
    o = ops_cuda(DT_BF16);
    random_weights = false; // nobody computes with them
    if (dump) cost_dump(dump, s->id);
    s->run();
    cost_end(r->time, &r->waits);
    r->n = cost_kernels(r->k, LINES);
    for (size_t i = 0; i < r->n; i++) r->launches += r->k[i].launches;
    r->there = true;
}

// Each stretch in a process of its own, which gives its memory back, two at a time
static void run_all(const bool *chosen, Result *results, FILE *dump)
{
    pid_t child[STRETCHES] = {0};
    FILE *out[STRETCHES] = {0};
    int running = 0;
    for (int i = 0; i <= STRETCHES; i++) {
        if (i < STRETCHES && !chosen[i]) continue;
        while (running && (running == (dump ? 1 : 2) || i == STRETCHES)) {
            int status, k = 0;
            pid_t p = wait(&status);
            while (k < STRETCHES && child[k] != p) k++;
            if (k == STRETCHES) continue;
            if (status) die("gpu_cost: %s failed", stretches[k].id);
            rewind(out[k]);
            if (fread(&results[k], sizeof *results, 1, out[k]) != 1)
                die("gpu_cost: %s left no result", stretches[k].id);
            fclose(out[k]);
            running--;
            fprintf(stderr, "%s: done\n", stretches[k].id);
        }
        if (i == STRETCHES) break;
        if (!(out[i] = tmpfile())) die("gpu_cost: no temporary file: %s", strerror(errno));
        fflush(NULL);
        if (!(child[i] = fork())) {
            Result r = {0};
            run_here(&stretches[i], &r, dump);
            fwrite(&r, sizeof r, 1, out[i]);
            fflush(NULL);
            _exit(0);
        }
        running++;
    }
}

// two digits after the point where there is one before it, else one or none
static void print_ms(double ms) { printf(ms < 10 ? "%.2f" : ms < 100 ? "%.1f" : "%.0f", ms); }

static void print_header(void)
{
    printf("# What it would cost\n\nA prediction, made without a GPU by `make cost` (dev/gpu_cost.c): the "
        "emulator runs this code at these sizes, counts what a sample of every launch's blocks touches, and "
        "a model of a card turns counts into times (dev/cuda_on_cpu/cost.h). Milliseconds (seconds where it "
        "says so) on the program's own clock, the host's calls and waits included, the host's other work "
        "(tokenizers, JSON, PPO's sums) not. The model's constants were set by hand to GPT-2's kernel times "
        "on one H200 (`dev/results/gpu/h200`): for GPT-2 \"off by\" is the error of a fit, for Pythia, whose "
        "times were not looked at for it, of a forecast to another size. A100 and H100 differ from it by "
        "their data sheets alone, and nothing has been measured there. The measured times are of earlier versions "
        "of this code, which those files name: what has become faster since is predicted below them. "
        "\"Of the roofline\": the least time "
        "that the bytes and matrix operations of these launches need by the H200's data sheet, over the "
        "predicted one. Launches and waits are of one run of the stretch: a decoding step's are divided by "
        "the tokens it makes (32, or 53) like its time.\n\n`make test_cost` fails when a time is predicted 5 "
        "%% over this table, or when the bytes and operations that a kernel's own comment in vbon.cu says are 5 %% off "
        "the count. `make cost KERNEL=name` shows a kernel's accesses line by line.\n\n");
}

static void print_table(const Result *results)
{
    printf("| | ");
    for (int k = 0; k < COST_CARDS; k++) printf("%s | ", cost_card(k));
    printf("of the roofline | H200, measured | off by | launches | waits |\n|---|");
    for (int k = 0; k < COST_CARDS + 5; k++) printf("---|");
    printf("\n");
    for (int i = 0; i < STRETCHES; i++) {
        const Stretch *s = &stretches[i];
        const Result *r = &results[i];
        if (!r->there || !s->name) continue;
        printf("| %s <!-- %s --> | ", s->name, s->id);
        for (int k = 0; k < COST_CARDS; k++) { print_ms(r->time[k].seconds * s->times * 1e3); printf(" | "); }
        const CostTime *t = &r->time[COST_CARDS - 1];
        printf("%.0f %% | ", 100 * t->floor / t->seconds);
        double ms = measured_ms(s);
        if (ms > 0) { print_ms(ms); printf(" | %+.0f %% | ", 100 * (t->seconds * s->times * 1e3 / ms - 1)); }
        else printf("| | ");
        printf("%.0f | %zu |\n", r->launches, r->waits);
    }
    const Result *draw = NULL, *judge = NULL; // a prompt of TL;DR's cache is one run of each
    for (int i = 0; i < STRETCHES; i++) {
        if (!strcmp(stretches[i].id, "pythia-200")) draw = &results[i];
        if (!strcmp(stretches[i].id, "pythia-reward")) judge = &results[i];
    }
    if (!draw->there || !judge->there) return;
    printf("| **seconds:** TL;DR cache: 200 rows on one prompt and the reward model, 10,000 times | ");
    for (int k = 0; k < COST_CARDS; k++) {
        print_ms((draw->time[k].seconds + judge->time[k].seconds) * 1e4);
        printf(" | ");
    }
    const CostTime *a = &draw->time[COST_CARDS - 1], *b = &judge->time[COST_CARDS - 1];
    printf("%.0f %% | | | %.0f | %zu |\n", 100 * (a->floor + b->floor) / (a->seconds + b->seconds),
        draw->launches + judge->launches, draw->waits + judge->waits);
}

static void print_kernels(const Stretch *s, const Result *r)
{
    printf("\n%s (one run of it, H200)\n\n| kernel | launches | us each | share | DRAM, MB | L2, MB | of "
        "sectors used | shared, of what it would be without conflicts | bound by |\n"
        "|---|---|---|---|---|---|---|---|---|\n", s->name);
    double all = r->time[COST_CARDS - 1].device;
    for (size_t i = 0; i < r->n && i < SHOWN; i++) {
        const CostKernel *k = &r->k[i];
        double s3 = k->seconds[COST_CARDS - 1];
        printf("| %s | %.0f | %.2f | %.1f %% | %.3g | %.3g | ", k->name, k->launches, s3 / k->launches * 1e6,
            100 * s3 / all, k->dram / k->launches / 1e6, k->l2 / k->launches / 1e6);
        if (k->l2 > 0) printf("%.0f %% | ", 100 * k->ideal / k->l2); else printf("| ");
        if (k->conflict_free > 0) printf("%.2f | ", k->wavefronts / k->conflict_free); else printf("| ");
        printf("%s |\n", k->bound);
    }
}

// What could be gained by kernels that do the work of two: at most what the one takes that would be launched no more
static void print_fusions(const Result *results)
{
    static const struct { const char *what, *kernel, *why; } fusions[] = {
        {"bias + GELU in the product", "activation_forward_kernel", "cuBLASLt adds the bias already; its GELU is the "
            "tanh form alone, not Pythia's, and training needs what goes into it too"},
        {"rotary + KV store", "kv_store_kernel", "a decoding token's key and value are stored by the attention that "
            "reads them; only prefill launches it"},
    };
    printf("\n## What fusions could save\n\nThe share of the device's time, on the H200, that the kernel takes which "
        "would go: more cannot be gained. Of the stretches those with most and the median of all.\n\n"
        "| fusion | what would go | most | second | third | median | why it is not there |\n"
        "|---|---|---|---|---|---|---|\n");
    for (size_t f = 0; f < sizeof fusions / sizeof *fusions; f++) {
        double share[STRETCHES];
        int order[STRETCHES], n = 0;
        for (int i = 0; i < STRETCHES; i++) {
            if (!results[i].there || !stretches[i].name) continue;
            double s = 0;
            for (size_t k = 0; k < results[i].n; k++)
                if (!strncmp(results[i].k[k].name, fusions[f].kernel, strlen(fusions[f].kernel)))
                    s += results[i].k[k].seconds[COST_CARDS - 1];
            share[i] = 100 * s / results[i].time[COST_CARDS - 1].device;
            int at = n++;
            for (; at > 0 && share[order[at - 1]] < share[i]; at--) order[at] = order[at - 1];
            order[at] = i;
        }
        printf("| %s | %s | ", fusions[f].what, fusions[f].kernel);
        for (int x = 0; x < 3 && x < n; x++) printf("%.1f %% (%s) | ", share[order[x]], stretches[order[x]].id);
        printf("%.1f %% | %s |\n", share[order[n / 2]], fusions[f].why);
    }
}

// What a process sends at an optimiser step: lib/parallel.h's own calls, by an exchange that only counts.
static double inside, outside; // bytes, to processes on its machine and on others
static int on_a_machine;
static bool count_exchange(Buf in, Buf out, int other)
{
    (void)in;
    *(other / on_a_machine == own_rank / on_a_machine ? &inside : &outside) += (double)(out.n * dtype_size(out.type));
    return true;
}
static void count_add(Buf out, Buf a, Buf b, size_t n) { (void)out; (void)a; (void)b; (void)n; }

// The most seconds that one of `ranks` processes sends for, `machine` of which share a machine and its network.
static double send_seconds(Model *m, int ranks, int machine, double link, double network, bool zero, double *bytes)
{
    double most = 0;
    Buf grad = {m->data.p, m->n_params - m->first, DT_F32, "gradients"}, room = grad;
    ((Ops *)m->o)->parts = zero ? (size_t)ranks : 0;
    all_ranks = ranks;
    on_a_machine = machine;
    for (own_rank = 0; own_rank < ranks; own_rank++) {
        inside = outside = 0;
        parallel_sum(m->o, grad, room);
        weights_share(m);
        most = fmax(most, inside / link + outside * machine / network);
        *bytes = fmax(*bytes, inside + outside);
    }
    all_ranks = 1;
    own_rank = 0;
    return most;
}

static void print_links(const Result *results)
{
    enum { STEPS = 16 }; // optimiser steps of an iteration: 128 episodes, minibatches of 32, four epochs
    const double a100 = 300e9, h100 = 450e9, network = 12.5e9; // bytes a second, one way
    Ops ops = {.name = "cuda", .type = DT_BF16, .packed_size = cuda_packed_size, .head_rows = cuda_head_rows,
        .vocabulary_rows = cuda_vocabulary_rows, .exchange = count_exchange, .add = count_add};
    const Result *all = NULL;
    Model m;
    for (int i = 0; i < STRETCHES; i++) if (!strcmp(stretches[i].id, "tldr-all")) all = &results[i];
    if (!all->there) return;
    model_create(&m, &ops, &pythia_2_8b, TRAIN_ALL, true, true);
    m.data.p = (void *)(uintptr_t)256; // never looked at
    double size = 4.0 * (double)(m.n_params - m.first);
    printf("\n## Between cards\n\nWhat a card sends at an optimiser step of Pythia 2.8B, all blocks (a gradient of "
        "%.1f GB), counted in lib/parallel.h's own calls, and the time at the links' full rates, one way: 300 GB/s "
        "(NVLink of an A100), 450 GB/s (of an H100), 100 Gbit/s for each machine. A floor: NCCL reaches less, and "
        "nothing has been measured. \"Whole\": if a process of the tree sent what it has added up to its neighbour "
        "and the sum came back so, 2 log2 R gradients pass through the first; \"least\": 2 (R - 1) / R, what "
        "ncclAllReduce needs. Efficiency: of TL;DR's PPO, all blocks, R H100s share a minibatch of 32, by NVLink up to "
        "8 and beyond that by the network; all else is taken to divide by R.\n\n| cards | by halves, GB | whole, GB | "
        "least, GB | with --zero 1, GB | A100s, ms | H100s, ms | machines of one, ms | machines of eight H100s, ms | "
        "the same, --zero 1, ms | efficiency | --zero 1 |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n",
        size / 1e9);
    for (int ranks = 2; ranks <= 64; ranks *= 2) {
        double sent = 0, zero = 0, unused = 0, log2 = 0;
        for (int r = ranks; r > 1; r /= 2) log2++;
        double on_a100 = send_seconds(&m, ranks, ranks, a100, network, false, &sent);
        double on_h100 = send_seconds(&m, ranks, ranks, h100, network, false, &unused);
        double apart = send_seconds(&m, ranks, 1, h100, network, false, &unused);
        double eights = send_seconds(&m, ranks, 8, h100, network, false, &unused);
        double eights_zero = send_seconds(&m, ranks, 8, h100, network, true, &zero);
        printf("| %d | %.1f | %.1f | %.1f | %.1f | ", ranks, sent / 1e9, 2 * log2 * size / 1e9,
            2 * (ranks - 1.0) / ranks * size / 1e9, zero / 1e9);
        if (ranks <= 8) { print_ms(1e3 * on_a100); printf(" | "); print_ms(1e3 * on_h100); } else printf("| ");
        printf(" | "); print_ms(1e3 * apart);
        printf(" | "); print_ms(1e3 * eights);
        printf(" | "); print_ms(1e3 * eights_zero);
        if (ranks <= 32) {
            double work = all->time[2].seconds / ranks;
            printf(" | %.0f %% | %.0f %% |\n", 100 * work / (work + STEPS * eights),
                100 * work / (work + STEPS * eights_zero));
        } else printf(" | | |\n");
    }
    m.data.p = NULL;
    model_free(&m);
}

// The goals: what is predicted, and what the H200 spends most of it on
static void print_goals(const Result *results)
{
    static const struct { const char *what, *id[2]; double times, a100, h200; } goals[] = {
        {"a 2.8B step of 200 rows on one prompt, ms", {"pythia-200"}, 1e3 / 53, 8, 4},
        {"sentiment cache, s", {"sentiment-cache"}, 1000, 120, 60},
        {"TL;DR cache, s", {"pythia-200", "pythia-reward"}, 1e4, 7200, 3600},
        {"sentiment PPO iteration, all blocks, ms", {"ppo-all"}, 1e3, 90, 45},
    };
    printf("\n## Goals\n\nAnd in training half of the matrix rate, which Pythia has and GPT-2 has not: the first "
        "table's roofline.\n\n| | A100-40 | goal | H200 | goal | | what the H200 does most of that time |\n"
        "|---|---|---|---|---|---|---|\n");
    for (size_t g = 0; g < sizeof goals / sizeof *goals; g++) {
        static CostKernel sum[2 * LINES];
        size_t n = 0;
        double a100 = 0, h200 = 0, device = 0;
        for (int i = 0; i < STRETCHES; i++) for (int part = 0; part < 2; part++) {
            const Result *r = &results[i];
            if (!goals[g].id[part] || strcmp(goals[g].id[part], stretches[i].id) || !r->there) continue;
            a100 += r->time[0].seconds * goals[g].times;
            h200 += r->time[COST_CARDS - 1].seconds * goals[g].times;
            device += r->time[COST_CARDS - 1].device;
            for (size_t k = 0; k < r->n; k++) {
                size_t j = 0;
                while (j < n && strcmp(sum[j].name, r->k[k].name)) j++;
                if (j == n) sum[n++] = r->k[k];
                else sum[j].seconds[COST_CARDS - 1] += r->k[k].seconds[COST_CARDS - 1];
            }
        }
        printf("| %s | ", goals[g].what);
        print_ms(a100); printf(" | %g | ", goals[g].a100);
        print_ms(h200); printf(" | %g | ", goals[g].h200);
        printf("%s | ", a100 <= goals[g].a100 && h200 <= goals[g].h200 ? "met" : "missed");
        for (int shown = 0; shown < 4 && n; shown++) {
            size_t most = 0;
            for (size_t j = 1; j < n; j++)
                if (sum[j].seconds[COST_CARDS - 1] > sum[most].seconds[COST_CARDS - 1]) most = j;
            printf("%s%s %.0f %% (%s)", shown ? ", " : "", sum[most].name,
                100 * sum[most].seconds[COST_CARDS - 1] / device, sum[most].bound);
            sum[most] = sum[--n];
        }
        printf(" |\n");
    }
}

// No stretch may take over 5 % longer than in a table that was printed before, on any card. How many do.
static int check_table(const char *path, const Result *results)
{
    int worse = 0;
    char line[1024], mark[64];
    FILE *f = fopen(path, "r");
    if (!f) die("gpu_cost: %s: %s", path, strerror(errno));
    for (int i = 0; i < STRETCHES; i++) {
        if (!results[i].there || !stretches[i].name) continue;
        bool found = false;
        snprintf(mark, sizeof mark, "<!-- %s --> |", stretches[i].id);
        rewind(f);
        while (!found && fgets(line, sizeof line, f)) {
            char *at = strstr(line, mark);
            if (!at) continue;
            found = true;
            at += strlen(mark);
            for (int k = 0; k < COST_CARDS; k++) {
                double was = strtod(at, &at), now = results[i].time[k].seconds * stretches[i].times * 1e3;
                at += strspn(at, " |");
                bool more = now > 1.05 * was;
                worse += more;
                printf("%s, %s: %.4g, %s says %.4g%s\n", stretches[i].id, cost_card(k), now, path, was,
                    more ? ": over 5 % more" : "");
            }
        }
        if (!found) die("gpu_cost: %s has no line for %s: make cost", path, stretches[i].id);
    }
    fclose(f);
    if (worse)
        printf("%d times are predicted over 5 %% longer than %s has them: if that is the price of something better, "
            "make cost writes the table anew\n", worse, path);
    return worse;
}

// Has every kernel of vbon.cu a line of its costs (dev/cuda_on_cpu/claims.h), has it run, and do its bytes and
// operations in all stretches agree with the count? The count is of samples; sums of many launches are near enough.
// all: all stretches are there. Of some, what bounds the longest launch is not known, nor whether a kernel never runs.
static int check_claims(const Result *results, bool all)
{
    enum { MANY = 256 };
    static CostKernel sum[MANY]; // of each instance of a kernel
    static char kernels[MANY][64];
    char line[512];
    size_t instances = 0, n = 0;
    int wrong = 0;
    double most[2] = {0, 0};
    for (int i = 0; i < STRETCHES; i++) for (size_t k = 0; k < results[i].n; k++) {
        const CostKernel *c = &results[i].k[k];
        size_t j = 0;
        while (j < instances && strcmp(sum[j].name, c->name)) j++;
        if (j == MANY) die("gpu_cost: more than %d kernels: raise MANY", MANY);
        if (j == instances) { sum[instances++] = *c; continue; }
        CostKernel *s = &sum[j];
        s->bytes += c->bytes; s->flops += c->flops; s->said_bytes += c->said_bytes; s->said_flops += c->said_flops;
        if (c->longest > s->longest) { s->longest = c->longest; s->longest_bound = c->longest_bound; }
    }
    FILE *f = fopen("vbon.cu", "r");
    if (!f) die("gpu_cost: vbon.cu: %s", strerror(errno));
    for (bool kernel = false; fgets(line, sizeof line, f);) {
        char *end = strstr(line, "_kernel("), *from = end;
        kernel = kernel || (strstr(line, "__global__") && line[0] != '/');
        if (!kernel || !end) continue;
        kernel = false;
        while (from > line && (isalnum((unsigned char)from[-1]) || from[-1] == '_')) from--;
        if (n == MANY) die("gpu_cost: more than %d kernels: raise MANY", MANY);
        snprintf(kernels[n++], sizeof *kernels, "%.*s_kernel", (int)(end - from), from);
    }
    fclose(f);
    for (size_t j = 0; j < n; j++) {
        const CostKernel *longest = NULL;
        for (size_t i = 0; i < instances; i++) {
            const CostKernel *c = &sum[i];
            size_t length = strcspn(c->name, "<");
            if (strlen(kernels[j]) != length || strncmp(kernels[j], c->name, length)) continue;
            if (!longest || longest->longest < c->longest) longest = c;
            const double said[] = {c->said_bytes, c->said_flops}, counted[] = {c->bytes, c->flops};
            for (int x = 0; x < 2 && c->said_bound; x++) {
                double off = fabs(said[x] - counted[x]) / fmax(counted[x], 1);
                most[x] = fmax(most[x], off);
                if (off <= CLAIM_OFF) continue;
                wrong++;
                fprintf(stderr, "%s: its line of costs says %.4g %s, %.4g were counted\n", c->name, said[x],
                    x ? "flops" : "bytes", counted[x]);
            }
        }
        if (!all) continue;
        const char *is = !longest ? "" : longest->longest_bound;
        if (!strcmp(is, "DRAM") || !strcmp(is, "L2")) is = "memory";
        if (longest && longest->said_bound && !strcmp(is, longest->said_bound)) continue;
        wrong++;
        if (!longest) fprintf(stderr, "%s: no stretch runs it, so its costs are not checked\n", kernels[j]);
        else if (!longest->said_bound) fprintf(stderr, "%s: it has no line of its costs\n", kernels[j]);
        else
            fprintf(stderr, "%s: its line of costs says that it is bound by %s; its longest launch is bound by %s\n",
                longest->name, longest->said_bound, is);
    }
    fprintf(stderr, "%zu kernels say their costs: bytes at most %.1f %% off the count, flops %.1f %%; %d wrong\n", n,
        100 * most[0], 100 * most[1], wrong);
    return wrong;
}

// What kernels of a name touch, line by line, in the first of these jobs in which there are any, or in the stretch
// that was asked for
static int print_lines(const char *kernel, const bool *chosen)
{
    static void (*runs[])(void) = {run_train_small, run_gpt2_8, run_ppo_2, run_pythia_train, run_pythia_200};
    for (int k = 0; k < STRETCHES; k++) if (chosen[k]) for (int i = 0; i < 5; i++) runs[i] = stretches[k].run;
    setenv("SIMT_DEVICE_MB", "200000", 1);
    o = ops_cuda(DT_BF16);
    cost_want(kernel);
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) { runs[i](); if (cost_lines()) return 0; }
    fprintf(stderr, "gpu_cost: no kernel of GPT-2's and Pythia's training and decoding has %s in its name: see the "
        "tables of dev/results/cost.md\n", kernel);
    return 1;
}

int main(int argc, char **argv)
{
    static Result results[STRETCHES];
    bool chosen[STRETCHES] = {false}, any = false;
    const char *kernel = NULL, *check = NULL, *dump = NULL;
    wait_by_sleeping(argv);
    for (int i = 1; i < argc; i++) {
        int k = 0;
        while (k < STRETCHES && strcmp(argv[i], stretches[k].id)) k++;
        if (k < STRETCHES) chosen[k] = any = true;
        else if (!strcmp(argv[i], "--kernel") && i + 1 < argc) kernel = argv[++i];
        else if (!strcmp(argv[i], "--check") && i + 1 < argc) check = argv[++i];
        else if (!strcmp(argv[i], "--dump") && i + 1 < argc) dump = argv[++i];
        else usage("gpu_cost: %s: it knows --kernel NAME, --check FILE, --dump FILE and the stretches in its table",
            argv[i]);
    }
    for (int k = 0; k < STRETCHES && !any && !kernel; k++) chosen[k] = true;
    FILE *d = dump ? fopen(dump, "w") : NULL;
    if (dump && !d) die("gpu_cost: %s: %s", dump, strerror(errno));
    if (kernel) return print_lines(kernel, chosen);
    cost_operations();
    run_all(chosen, results, d);
    bool wrong = check_claims(results, !any);
    if (check) return check_table(check, results) || wrong;
    print_header();
    print_table(results);
    print_links(results);
    for (int i = 0; i < STRETCHES; i++)
        if (results[i].there && stretches[i].name) print_kernels(&stretches[i], &results[i]);
    if (!any) { print_goals(results); print_fusions(results); }
    (void)gpu_bench_main; (void)commands; (void)n_commands; (void)preset_flags; (void)flag_table; (void)n_flags;
    return wrong;
}
