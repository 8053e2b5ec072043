// bench.c: the engine's speed on GPT-2 124M shapes beside what this machine can do,
// measured in one run, interleaved, medians.
//
//   build/bench [ENTRY...] [--rows N] [--repeats N] [--precision fp32|bf16] [--threads N] [--llmc DIR]
//               [--json] [--tiny]
//
// Entries; none named: all of them, llmc only with --llmc.
//   training, decode, ppo   beside their floors (--rows: episodes of the PPO iteration, default 32)
//   sampling                a token drawn with top-k or top-p beside one drawn from all
//   foreign                 all threads beside one busy thread of another process, against one thread alone
//   memory                  the peak of anonymous memory beside what `vbon info` plans
//   llmc                    a training step of llm.c (--llmc DIR: its checkout with train_gpt2 built) beside ours
//
// Floors. Training: the products a step cannot do without, each shape timed alone by the same library, weights and
// sizes as in the step, and AdamW's 28 bytes a parameter at the rate a plain loop moves them. Decoding: of the prompts
// and then of each step what takes longer, reading every weight once or the products at the rate that the library
// reaches with many rows; the time of a step's products alone is printed beside it. A ratio of 1.00 would mean that
// attention, norms, softmax, sampling, packing and waiting cost nothing. Weights are random: speed does not depend on
// them. Every line ends with a ratio and its goal, and by how much a goal is missed. --json: an object a line instead.
// --tiny: a dry run, its times mean nothing.
#define TESTING
#include "vbon.c"
#include <fcntl.h>
#include <pty.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { MAX_REPEATS = 99 };
typedef struct { double x[MAX_REPEATS]; int n; } Times;
static double median(const Times *t)
{
    double s[MAX_REPEATS];
    memcpy(s, t->x, sizeof s);
    qsort(s, (size_t)t->n, sizeof *s, ascending);
    return t->n % 2 ? s[t->n / 2] : 0.5 * (s[t->n / 2 - 1] + s[t->n / 2]);
}
static void time_add(Times *t, double began) { t->x[t->n++] = clock_seconds() - began; }

static Config gpt2_124m = {.arch = &architectures[ARCH_GPT2], .L = 12, .NH = 12, .C = 768, .F = 3072, .V = 50257,
    .max_T = 1024, .act = ACT_GELU_TANH, .tied = true, .eps = 1e-5, .init_std = 0.02, .eos = 50256};

static bool json_lines;
// One line: x, beside it y, their ratio, and the interval it should lie in.
PRINTF_LIKE(11, 12)
static void result(const char *entry, size_t rows, const char *what, double x, const char *unit, const char *beside,
    double y, double ratio, double low, double high, const char *note, ...)
{
    va_list ap;
    double missed = !(ratio >= low) ? 1 - ratio / low : !(ratio <= high) ? ratio / high - 1 : 0;
    if (json_lines) {
        printf("{\"entry\":\"%s\",\"rows\":%zu,\"what\":\"%s\",\"unit\":\"%s\",\"measured\":%.6g,\"beside\":\"%s\","
               "\"reference\":%.6g,\"ratio\":%.6g}\n",
            entry, rows, what, unit, x, beside, y, ratio);
        fflush(stdout);
        return;
    }
    printf("%-42s %9.2f %s   %s %9.2f %s   ratio %.2f", what, x, unit, beside, y, unit, ratio);
    if (low > 0 && high < INFINITY) printf(", goal %.2f to %.2f", low, high);
    else if (low > 0 || high < INFINITY) printf(low > 0 ? ", goal >= %.2f" : ", goal <= %.2f", low > 0 ? low : high);
    if (missed > 0) printf(", MISSED by %.0f %%", 100 * missed);
    printf("   ");
    va_start(ap, note); vprintf(note, ap); va_end(ap);
    putchar('\n');
    fflush(stdout);
}

// ----------------------------------------------------------------------------
// floors

static real *ga, *gb, *gc; // room for the largest product
// One product of the step, as oneDNN (or the plain loops) does it
static void product_floor(bool ta, bool tb, size_t M, size_t N, size_t K)
{
#ifdef VBON_ONEDNN
    if (cpu_bf16 && bf16_native()) { onednn_bf16gemm(ta, tb, M, N, K, (uint16_t *)ga, (uint16_t *)gb, 0, gc); return; }
#endif
    gemm(ta, tb, M, N, K, ga, ta ? M : K, gb, tb ? K : N, 0, gc, N);
}

// Forward (f times), input gradient (d), weight gradient (w) of the four matrices of `blocks` blocks over N tokens
static double blocks_floor(const Config *c, size_t blocks, size_t N, int f, int d, int w)
{
    const size_t in[] = {c->C, c->C, c->C, c->F}, out[] = {3 * c->C, c->C, c->F, c->C};
    double began = clock_seconds();
    for (size_t l = 0; l < blocks; l++)
        for (int k = 0; k < 4; k++) {
            for (int i = 0; i < f; i++) product_floor(false, true, N, out[k], in[k]);
            for (int i = 0; i < d; i++) product_floor(false, false, N, in[k], out[k]);
            for (int i = 0; i < w; i++) product_floor(true, false, out[k], in[k], N);
        }
    return clock_seconds() - began;
}

static double head_floor(const Config *c, size_t N, int f, int d, int w) // in chunks, as logits never exist as a whole
{
    double began = clock_seconds();
    for (size_t r = 0, chunk = cpu_head_rows(c->V); r < N; r += chunk) {
        size_t n = N - r < chunk ? N - r : chunk;
        for (int i = 0; i < f; i++) product_floor(false, true, n, c->V, c->C);
        for (int i = 0; i < d; i++) product_floor(false, false, n, c->C, c->V);
        for (int i = 0; i < w; i++) product_floor(true, false, c->V, c->C, n);
    }
    return clock_seconds() - began;
}

// Bytes a second: reading a; or reading a and b and writing b
static double bandwidth_floor(bool write, float *a, float *b, size_t n)
{
    double began = clock_seconds();
    float sum = 0;
    if (write) {
        #pragma omp parallel for simd schedule(static)
        for (size_t i = 0; i < n; i++) b[i] += 0.5f * a[i];
        return 12.0 * (double)n / (clock_seconds() - began);
    }
    #pragma omp parallel for simd schedule(static) reduction(+:sum)
    for (size_t i = 0; i < n; i++) sum += a[i];
    double rate = 4.0 * (double)n / (clock_seconds() - began);
    if (sum == 12345) puts("");
    return rate;
}

static double product_rate(void) // FLOPs a second with many rows
{
    const size_t M = 1024, N = gpt2_124m.F, K = gpt2_124m.C;
    double began = clock_seconds();
    product_floor(false, true, M, N, K);
    return 2.0 * (double)(M * N * K) / (clock_seconds() - began);
}

// Every packed weight once, for so many rows
static double decode_products(const Model *m, Buf in, Buf out, size_t rows)
{
    double began = clock_seconds();
    for (size_t i = 0; i < m->cfg.L; i++) {
        const Block *h = &m->packed.h[i];
        m->o->matmul_forward(out, in, h->qkvw, (Buf){0}, rows, m->cfg.C, 3 * m->cfg.C);
        m->o->matmul_forward(out, in, h->projw, (Buf){0}, rows, m->cfg.C, m->cfg.C);
        m->o->matmul_forward(out, in, h->fcw, (Buf){0}, rows, m->cfg.C, m->cfg.F);
        m->o->matmul_forward(out, in, h->fc2w, (Buf){0}, rows, m->cfg.F, m->cfg.C);
    }
    m->o->matmul_forward(out, in, head_weight(&m->packed), (Buf){0}, rows, m->cfg.C, m->cfg.V);
    return clock_seconds() - began;
}

// The blocks for so many tokens, the head for one of each row
static double forward_floor(const Model *m, size_t tokens, size_t rows, double read_rate, double rate)
{
    double head = (double)m->p.wte.n, blocks = (double)(m->n_params - m->p.wpe.n) - head;
    double bytes = (blocks + head) * (cpu_bf16 ? 2 : 4) / read_rate,
           flops = 2 * (blocks * (double)tokens + head * (double)rows) / rate;
    return bytes > flops ? bytes : flops;
}

enum { PROMPT = 8 };
// Responses of `new` tokens: the first comes out of the prompts' forward pass
static double decode_floor(const Model *m, size_t rows, size_t new, double read_rate, double rate)
{
    return forward_floor(m, rows * PROMPT, rows, read_rate, rate) +
        (double)(new - 1) * forward_floor(m, rows, rows, read_rate, rate);
}

// ----------------------------------------------------------------------------
// what is measured

typedef struct { Model m; Pass p; Corpus c; Row rows[4]; size_t which[4]; } Training;
enum { B = 4, T = 64 }; // llm.c's defaults on the CPU
static void training_create(Training *j, const Config *shape)
{
    model_create(&j->m, ops_cpu(), shape, TRAIN_ALL, false, false);
    model_random(&j->m, 1);
    j->c = (Corpus){.kind = LOSS_LM, .tokens = xmalloc(B * (T + 1) * sizeof(int)), .rows = j->rows,
        .n_tokens = B * (T + 1), .n_rows = B};
    for (size_t i = 0; i < j->c.n_tokens; i++) j->c.tokens[i] = (int)(random_bits(1, 1, i, 0, 0) % shape->V);
    // T are read and T predicted
    for (size_t b = 0; b < B; b++) { j->rows[b] = (Row){b * (T + 1), T + 1, 1, 0}; j->which[b] = b; }
    pass_create(&j->p, &j->m, B * T, true);
}
static void training_free(Training *j) { pass_free(&j->p); model_free(&j->m); free(j->c.tokens); }
static void training_step(Training *j, Times *t) // t NULL: not timed
{
    AdamW opt = {1e-5, 0.9, 0.95, 1e-8, 0, 1, 0, 0};
    double began = clock_seconds();
    model_zero_grad(&j->m);
    supervised_batch(&j->p, &j->c, j->which, B, B * T, true, NULL);
    model_update(&j->m, &opt);
    if (t) time_add(t, began);
}

typedef struct { Times products, adamw, rate; } TrainingFloor;
static void training_floor(Training *j, TrainingFloor *f) // f NULL: not timed
{
    double gemms = blocks_floor(&gpt2_124m, gpt2_124m.L, B * T, 1, 1, 1) + head_floor(&gpt2_124m, B * T, 1, 1, 1);
    double rate = bandwidth_floor(true, j->m.m.p, j->m.v.p, j->m.n_params);
    j->m.o->fill(j->m.m, 0); j->m.o->fill(j->m.v, 0);
    if (!f) return;
    f->products.x[f->products.n++] = gemms;
    f->adamw.x[f->adamw.n++] = 28.0 * (double)j->m.n_params / rate;
    f->rate.x[f->rate.n++] = rate;
}

static void bench_training(int repeats)
{
    Training j;
    training_create(&j, &gpt2_124m);
    Times step = {0};
    TrainingFloor floor = {0};
    for (int r = -1; r < repeats; r++) {
        training_step(&j, r < 0 ? NULL : &step);
        training_floor(&j, r < 0 ? NULL : &floor);
    }
    double s = median(&step), f = median(&floor.products) + median(&floor.adamw);
    result("training", B, "training step, B=4, T=64", 1e3 * s, "ms", "floor", 1e3 * f, s / f, 0, 1.15,
        "products %.0f, AdamW %.0f at %.1f GB/s; %.0f tokens/s", 1e3 * median(&floor.products),
        1e3 * median(&floor.adamw), median(&floor.rate) / 1e9, B * T / s);
    training_free(&j);
}

enum { NEW = 32, DECODE_TOKENS = 256 };
typedef struct { Arena work; Generator g; Response *r; Prompt *prompts; size_t rows; int *ids; } Decoding;
static void decoding_create(Decoding *d, Model *m, size_t rows) // m is packed
{
    *d = (Decoding){.work = {.name = "bench", .o = m->o}, .r = xcalloc(rows, sizeof *d->r),
        .prompts = xcalloc(rows, sizeof *d->prompts), .rows = rows, .ids = xmalloc(rows * PROMPT * sizeof(int))};
    for (size_t i = 0; i < rows * PROMPT; i++) d->ids[i] = (int)((1000 + i) % m->cfg.V);
    for (size_t b = 0; b < rows; b++) d->prompts[b] = (Prompt){.ids = d->ids + b * PROMPT, .n = PROMPT};
    for (int pass = 0; pass < 2; pass++) {
        if (pass) arena_place(&d->work);
        generator_carve(&d->g, m, &d->work, rows, rows, DECODE_TOKENS, PROMPT, NEW);
    }
}
static void decoding_free(Decoding *d)
{
    for (size_t b = 0; b < d->rows; b++) response_free(&d->r[b]);
    free(d->r); free(d->prompts); free(d->ids); generator_free(&d->g); arena_release(&d->work);
}
static void decoding_run(Decoding *d, Times *t) // t NULL: not timed
{
    Sampling s = {.temperature = 1, .top_p = 1, .seed = 1, .stream = STREAM_SAMPLE, .eos = -1};
    for (size_t b = 0; b < d->rows; b++) { response_free(&d->r[b]); d->r[b] = (Response){.prompt = b, .sample = b}; }
    double began = clock_seconds();
    generate(&d->g, &s, d->prompts, d->r, d->rows);
    if (t) time_add(t, began);
}

static const size_t decode_sizes[] = {1, 8, 32, 128};
enum { MOST_ROWS = 128 };

static void bench_decode(int repeats)
{
    Model m;
    model_create(&m, ops_cpu(), &gpt2_124m, TRAIN_NONE, false, false);
    model_random(&m, 1);
    model_pack(&m);
    Buf in = m.o->alloc(MOST_ROWS * gpt2_124m.F, DT_REAL, "in"),
        out = m.o->alloc(MOST_ROWS * (gpt2_124m.V + gpt2_124m.F), DT_REAL, "out");
    m.o->fill(in, 0.1);
    for (size_t k = 0; k < sizeof decode_sizes / sizeof *decode_sizes; k++) {
        size_t rows = decode_sizes[k];
        Decoding d;
        decoding_create(&d, &m, rows);
        Times whole = {0}, gemms = {0}, read = {0}, large = {0};
        for (int i = -1; i < repeats; i++) {
            decoding_run(&d, i < 0 ? NULL : &whole);
            double few = 0;
            for (int j = 0; j < 4; j++) few += decode_products(&m, in, out, rows) / 4;
            double read_rate = bandwidth_floor(false, m.data.p, NULL, m.n_params), rate = product_rate();
            if (i >= 0) { gemms.x[gemms.n++] = few; read.x[read.n++] = read_rate; large.x[large.n++] = rate; }
        }
        double token = median(&whole) / NEW, f = decode_floor(&m, rows, NEW, median(&read), median(&large)) / NEW;
        char what[64];
        snprintf(what, sizeof what, "decode, %zu rows, a token", rows);
        result("decode", rows, what, 1e3 * token, "ms", "floor", 1e3 * f, token / f, 0, 1 / 0.75,
            "weights at %.1f GB/s or products at %.0f GFLOP/s; a step's products alone %.2f ms; %.0f tokens/s",
            median(&read) / 1e9, median(&large) / 1e9, 1e3 * median(&gemms), (double)rows / token);
        decoding_free(&d);
    }
    m.o->release(&in); m.o->release(&out);
    model_free(&m);
}

// The sampler with top-p .9 (and with top-k 40) beside the sampler without, logits included.
static void bench_sampling(int repeats)
{
    const Config *c = &gpt2_124m;
    Buf hidden = cpu_alloc(MOST_ROWS * c->C, DT_REAL, "hidden"), w = cpu_alloc(c->V * c->C, DT_REAL, "head"),
        uniform = cpu_alloc(MOST_ROWS, DT_F64, "u");
    Buf token = cpu_alloc(MOST_ROWS, DT_I32, "token"), logp = cpu_alloc(MOST_ROWS, DT_REAL, "logp");
    for (size_t i = 0; i < hidden.n; i++) R_(hidden)[i] = (real)random_uniform(1, 1, i, 0, 0);
    for (size_t i = 0; i < w.n; i++) R_(w)[i] = (real)(0.2 * random_uniform(1, 2, i, 0, 0) - 0.1);
    for (size_t i = 0; i < uniform.n; i++) ((double *)uniform.p)[i] = random_uniform(1, 3, i, 0, 0);
    for (size_t rows = 1; rows <= MOST_ROWS; rows *= MOST_ROWS) {
        static const struct { const char *name; long top_k; double top_p; } cuts[] = {
            {"plain", 0, 1}, {"top-k 40", 40, 1}, {"top-p .9", 0, 0.9}};
        Times t[3] = {{{0}, 0}};
        for (int i = -1; i < repeats; i++)
            for (int k = 0; k < 3; k++) {
                double began = clock_seconds();
                cpu_sample(token, logp, hidden, w, uniform, 1, cuts[k].top_k, cuts[k].top_p, rows, c->C, c->V);
                if (i >= 0) time_add(&t[k], began);
            }
        for (int k = 1; k < 3; k++) {
            char what[64];
            snprintf(what, sizeof what, "sampling, %zu rows, %s", rows, cuts[k].name);
            result("sampling", rows, what, 1e3 * median(&t[k]), "ms", cuts[0].name, 1e3 * median(&t[0]),
                median(&t[k]) / median(&t[0]), 0, 1.2, "logits included");
        }
    }
    Buf *all[] = {&hidden, &w, &uniform, &token, &logp};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) cpu_release(all[i]);
}

static void reward_by_length(void *context, const Prompt *prompts, Response *r, size_t n, bool prefixes)
{
    (void)context; (void)prompts; (void)prefixes;
    for (size_t i = 0; i < n; i++) r[i].reward = (double)(r[i].key % 1000);
}

enum { RESPONSE = 40, EPOCHS = 4, TOP = 2 }; // the sentiment experiment's
static PpoOptions sentiment_options(size_t rows)
{
    return (PpoOptions){.objective = {.row = ROW(objectives, "rl"), .beta = 0.1}, .fhat = ROW(fhats, "digamma"),
        .critic = ROW(critics, "head"), .temperature = 1, .clip = 0.2, .value_clip = 0.2, .vf_coef = 1, .gamma = 1,
        .lambda = 0.95, .lr = 1e-6, .schedule = ROW(schedules, "constant"),
        .episodes = (long)rows * 100, .rollout = (long)rows, .minibatch = rows < 32 ? (long)rows : 32, .epochs = EPOCHS,
        .max_new = RESPONSE, .tokens = 2048, .seed = 1, .eos = -1, .adamw = {1e-6, 0.9, 0.95, 1e-8, 0, 1, 0, 0}};
}
typedef struct { Model m; Ppo p; Prompt *prompts; size_t rows; } Iteration;
static void iteration_create(Iteration *j, size_t rows)
{
    j->rows = rows;
    model_create(&j->m, ops_cpu(), &gpt2_124m, TOP, true, false);
    model_random(&j->m, 1);
    value_head_random(&j->m, 1);
    j->prompts = xcalloc(rows, sizeof *j->prompts);
    for (size_t i = 0; i < rows; i++) {
        j->prompts[i] = (Prompt){.ids = xmalloc(PROMPT * sizeof(int)), .n = PROMPT};
        for (size_t k = 0; k < PROMPT; k++) j->prompts[i].ids[k] = (int)(random_bits(2, 1, i, k, 0) % gpt2_124m.V);
    }
    PpoOptions opt = sentiment_options(rows);
    ppo_create(&j->p, &opt, &j->m, j->prompts, NULL, rows, reward_by_length, NULL);
    j->p.clock = clock_seconds;
}
static void iteration_free(Iteration *j)
{
    ppo_free(&j->p); model_free(&j->m);
    for (size_t i = 0; i < j->rows; i++) free(j->prompts[i].ids);
    free(j->prompts);
}

static void bench_ppo(int repeats, size_t rows)
{
    Iteration j;
    iteration_create(&j, rows);
    Model *m = &j.m;
    Ppo *p = &j.p;
    const Config *c = &gpt2_124m;
    Times whole = {0}, floor = {0};
    size_t tokens = PROMPT + RESPONSE - 1, N = rows * tokens, R = rows * RESPONSE, minibatch = (size_t)p->opt.minibatch;
    double parts[3] = {0};
    for (int i = -1; i < repeats; i++) {
        double before[] = {p->seconds_rollout, p->seconds_reward, p->seconds_update}, began = clock_seconds();
        ppo_iteration(p);
        if (i >= 0) {
            time_add(&whole, began);
            parts[0] += p->seconds_rollout - before[0];
            parts[1] += p->seconds_reward - before[1];
            parts[2] += p->seconds_update - before[2];
        }
        // sampling; the frozen trunk once; the reference's top once; then each epoch: top blocks and head
        // forward, backward, weights of the blocks only
        double f = decode_floor(m, rows, RESPONSE, bandwidth_floor(false, m->data.p, NULL, m->n_params),
            product_rate());
        f += blocks_floor(c, c->L - TOP, N, 1, 0, 0) + blocks_floor(c, TOP, N, 1, 0, 0) + head_floor(c, R, 1, 0, 0);
        f += EPOCHS * (double)(rows / minibatch) *
            (blocks_floor(c, TOP, minibatch * tokens, 1, 1, 1) + head_floor(c, minibatch * RESPONSE, 1, 1, 0));
        if (i >= 0) floor.x[floor.n++] = f;
    }
    char what[64];
    snprintf(what, sizeof what, "PPO iteration, %zu x %d tokens", rows, RESPONSE);
    result("ppo", rows, what, 1e3 * median(&whole), "ms", "floor", 1e3 * median(&floor),
        median(&whole) / median(&floor), 0, 1.5, "rollouts %.0f, updates %.0f ms", 1e3 * parts[0] / whole.n,
        1e3 * parts[2] / whole.n);
    iteration_free(&j);
}

// ----------------------------------------------------------------------------
// beside one busy thread of another process: this program with --busy, which dies with the bench. Spawned, not forked:
// fork leaves our pages to be copied when they are next written, which would be measured too.

static pid_t foreign_start(void)
{
    pid_t pid;
    char *argv[] = {"bench", "--busy", NULL};
    int error = posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, environ);
    if (error) die("the busy thread: no new process: %s", strerror(error));
    return pid;
}
static void foreign_run(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (volatile unsigned long n = 0;; n++) if (n % (1ul << 30) == 0 && getppid() == 1) return;
}
static void child_end(pid_t pid) { kill(pid, SIGKILL); waitpid(pid, NULL, 0); }

static void one_training_step(void *job, Times *t) { training_step((Training *)job, t); }
static void one_decoding(void *job, Times *t) { decoding_run((Decoding *)job, t); }

// The job with one thread, with all, and with all beside the busy one
static void beside_foreign(const char *what, const char *shape, void (*run)(void *job, Times *t), void *job,
    int repeats)
{
    Times one = {0}, beside = {0}, idle = {0};
    int threads = omp_get_max_threads();
    for (int r = -1; r < repeats; r++) {
        omp_set_num_threads(1);
        run(job, r < 0 ? NULL : &one);
        omp_set_num_threads(threads);
        run(job, r < 0 ? NULL : &idle);
        pid_t foreign = foreign_start();
        run(job, r < 0 ? NULL : &beside);
        child_end(foreign);
    }
    result("foreign", 0, what, 1e3 * median(&beside), "ms", "one thread alone", 1e3 * median(&one),
        median(&one) / median(&beside), 0.9, INFINITY, "%s; %d threads alone %.2f ms", shape, threads,
        1e3 * median(&idle));
}

static void bench_foreign(int repeats)
{
    Config c = gpt2_124m;
    Training j;
    c.L = 2;
    training_create(&j, &c);
    beside_foreign("training step beside one busy thread", "2 blocks", one_training_step, &j, repeats);
    training_free(&j);

    Model m;
    Decoding d;
    model_create(&m, ops_cpu(), &gpt2_124m, TRAIN_NONE, false, false);
    model_random(&m, 1);
    model_pack(&m);
    decoding_create(&d, &m, 8);
    beside_foreign("decoding beside one busy thread", "8 rows, 32 tokens", one_decoding, &d, repeats);
    decoding_free(&d);
    model_free(&m);
}

// ----------------------------------------------------------------------------
// peak memory: each job in a process of its own (this program with --peak), which says
// what was planned and what it took

// Reads what argv writes, a line at a time: a terminal, or it would be kept back
static FILE *child_start(pid_t *pid, const char *dir, char **argv, bool their_waiting)
{
    int fd;
    *pid = forkpty(&fd, NULL, NULL, NULL);
    if (*pid < 0) die("%s: no new process: %s", argv[0], strerror(errno));
    if (!*pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (their_waiting) { unsetenv("OMP_WAIT_POLICY"); unsetenv("GOMP_SPINCOUNT"); } // set by us
        if (!dir || !chdir(dir)) execv(argv[0], argv);
        _exit(127);
    }
    return fdopen(fd, "r");
}

static double status_bytes(const char *field)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    double kib = NAN;
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, field, strlen(field))) kib = strtod(line + strlen(field), NULL);
    if (f) fclose(f);
    return 1024 * kib;
}

static void peak(const char *job, size_t rows)
{
    JobSpec plan = {.o = ops_cpu(), .model = gpt2_124m, .train_layers = TRAIN_ALL, .tokens = B * T, .max_new = NEW,
        .max_prompt = PROMPT, .rows = rows};
    Plan p;
    if (!strcmp(job, "training")) {
        Training j;
        plan.kind = JOB_OFFLINE;
        plan_job(&p, &plan);
        training_create(&j, &gpt2_124m);
        for (int i = 0; i < 2; i++) training_step(&j, NULL);
    } else if (!strcmp(job, "decode")) {
        Model m;
        Decoding d;
        plan.kind = JOB_CACHE;
        plan.tokens = DECODE_TOKENS;
        plan_job(&p, &plan);
        model_create(&m, ops_cpu(), &gpt2_124m, TRAIN_NONE, false, false);
        model_random(&m, 1);
        decoding_create(&d, &m, rows);
        model_pack(&m);
        decoding_run(&d, NULL);
    } else {
        Iteration j;
        PpoOptions o = sentiment_options(rows);
        plan.kind = JOB_TRAIN;
        plan.train_layers = TOP;
        plan.value_head = true;
        plan.rollout = (size_t)o.rollout;
        plan.minibatch = (size_t)o.minibatch;
        plan.tokens = o.tokens;
        plan.rows = o.rows ? o.rows : 512;
        plan.max_new = (size_t)o.max_new;
        plan_job(&p, &plan);
        iteration_create(&j, rows);
        ppo_iteration(&j.p);
    }
    // anonymous: files' pages hardly shrink
    printf("peak %.0f planned %.0f\n", status_bytes("VmHWM:") - status_bytes("RssFile:") - status_bytes("RssShmem:"),
        p.total);
    exit(0);
}

static void bench_memory(size_t ppo_rows, bool tiny)
{
    const struct { const char *job, *what; size_t rows; } peaks[] = {
        {"training", "peak memory, training step", B},
        {"decode", "peak memory, decoding", MOST_ROWS},
        {"ppo", "peak memory, PPO iteration", ppo_rows}};
    for (size_t i = 0; i < sizeof peaks / sizeof *peaks; i++) {
        pid_t pid;
        char line[4096], rows[32];
        double most = NAN, plan = NAN;
        snprintf(rows, sizeof rows, "%zu", peaks[i].rows);
        char *argv[] = {"/proc/self/exe", "--peak", (char *)peaks[i].job, "--rows", rows, "--precision",
            cpu_bf16 ? "bf16" : "fp32", tiny ? "--tiny" : NULL, NULL};
        FILE *f = child_start(&pid, NULL, argv, false);
        while (fgets(line, sizeof line, f)) if (sscanf(line, "peak %lf planned %lf", &most, &plan) == 2) break;
        fclose(f);
        waitpid(pid, NULL, 0);
        if (isnan(most)) die("memory: %s ended without saying its peak", peaks[i].job);
        bool judged = plan > 500e6;
        result("memory", peaks[i].rows, peaks[i].what, most / 1e6, "MB", "planned", plan / 1e6, most / plan,
            judged ? 0.95 : 0, judged ? 1.05 : INFINITY, "%zu rows%s", peaks[i].rows,
            judged ? "" : "; a goal for plans over 500 MB only");
    }
}

// ----------------------------------------------------------------------------
// llm.c: its own train_gpt2 (B=4, T=64, all threads) in a child process, in a directory made for it: random weights in
// its version 3, random tokens. Its first step, which allocates, does not count. One run holds several steps, so blocks
// of its steps alternate with blocks of ours.

static char llmc_dir[] = "/tmp/vbon-bench-XXXXXX";
static int llmc_at = -1;
#define LLMC_DATA "dev/data/tinyshakespeare"
static const char *const llmc_files[] = {
    "gpt2_124M.bin", LLMC_DATA "/tiny_shakespeare_train.bin", LLMC_DATA "/tiny_shakespeare_val.bin"};
static const char *const llmc_dirs[] = {"dev", "dev/data", LLMC_DATA};
static void llmc_clean(void)
{
    if (llmc_at < 0) return;
    for (int i = 0; i < 3; i++) unlinkat(llmc_at, llmc_files[i], 0);
    for (int i = 3; i-- > 0;) unlinkat(llmc_at, llmc_dirs[i], AT_REMOVEDIR);
    rmdir(llmc_dir);
    llmc_at = -1;
}
static void llmc_interrupted(int signal) { llmc_clean(); _exit(128 + signal); }

static FILE *llmc_create(int file)
{
    int fd = openat(llmc_at, llmc_files[file], O_CREAT | O_WRONLY, 0600);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "wb");
    if (!f) die("%s/%s: cannot be written", llmc_dir, llmc_files[file]);
    return f;
}
static void llmc_close(FILE *f, int file)
{
    if (ferror(f) | fclose(f)) die("%s/%s: cannot be written: is the disk full?", llmc_dir, llmc_files[file]);
}

static void llmc_make_files(const Config *c)
{
    if (!mkdtemp(llmc_dir) || (llmc_at = open(llmc_dir, O_DIRECTORY)) < 0) die("%s: cannot be made", llmc_dir);
    atexit(llmc_clean);
    signal(SIGINT, llmc_interrupted); signal(SIGTERM, llmc_interrupted);
    for (int i = 0; i < 3; i++) mkdirat(llmc_at, llmc_dirs[i], 0700);
    const size_t V = (c->V + 127) / 128 * 128, C = c->C, L = c->L;
    const struct { size_t n; bool norm; } list[] = {
        {V * C, 0}, {c->max_T * C, 0}, {L * C, 1}, {L * C, 0}, {L * 3 * C * C, 0}, {L * 3 * C, 0},
        {L * C * C, 0}, {L * C, 0}, {L * C, 1}, {L * C, 0},
        {L * 4 * C * C, 0}, {L * 4 * C, 0}, {L * 4 * C * C, 0}, {L * C, 0}, {C, 1}, {C, 0}};
    int32_t header[256] = {20240326, 3, (int)c->max_T, (int)c->V, (int)L, (int)c->NH, (int)C, (int)V};
    FILE *f = llmc_create(0);
    fwrite(header, sizeof header, 1, f);
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        for (size_t j = 0; j < list[i].n; j++) {
            float x = list[i].norm ? 1 : (float)(0.06 * random_uniform(1, STREAM_INIT, i, j, 0) - 0.03);
            fwrite(&x, sizeof x, 1, f);
        }
    llmc_close(f, 0);
    for (int file = 1; file < 3; file++) {
        enum { BATCHES = 64 };
        int32_t data[256] = {20240520, 1, BATCHES * B * T + 1};
        f = llmc_create(file);
        fwrite(data, sizeof data, 1, f);
        for (size_t i = 0; i < BATCHES * B * T + 1; i++) {
            uint16_t token = (uint16_t)(random_bits(1, 2, i, 0, 0) % c->V);
            fwrite(&token, sizeof token, 1, f);
        }
        llmc_close(f, file);
    }
}

static bool llmc_line(const char *line, double *ms) // "step 3: train loss 4.1 (took 5012.3 ms)"
{
    const char *took = strstr(line, "(took ");
    return took && sscanf(took, "(took %lf ms)", ms) == 1 && *ms > 0;
}

static void llmc_steps(char *binary, int steps, Times *t)
{
    pid_t pid;
    char line[4096], last[4096] = "nothing";
    char *argv[] = {binary, NULL};
    FILE *f = child_start(&pid, llmc_dir, argv, true);
    int seen = 0;
    double ms;
    while (seen <= steps && fgets(line, sizeof line, f)) {
        memcpy(last, line, sizeof last);
        if (llmc_line(line, &ms) && seen++) t->x[t->n++] = ms / 1e3;
    }
    child_end(pid);
    fclose(f);
    if (seen <= steps) die("%s: no \"took ... ms\" of step %d in its output, which ended with: %s", binary, seen, last);
}

static void bench_llmc(int repeats, const char *dir)
{
    char *path = format("%s/train_gpt2", dir), *binary = realpath(path, NULL), threads[16];
    if (!binary || access(binary, X_OK))
        die("%s: no such program: build llm.c there (make train_gpt2), or name another --llmc DIR", path);
    snprintf(threads, sizeof threads, "%d", omp_get_max_threads());
    setenv("OMP_NUM_THREADS", threads, 1);
    llmc_make_files(&gpt2_124m);
    Times ours = {0}, theirs = {0};
    TrainingFloor floor = {0};
    Training j;
    training_create(&j, &gpt2_124m);
    for (int half = 0; half < 2; half++) {
        int n = half ? repeats - repeats / 2 : repeats / 2;
        if (!n) continue;
        training_step(&j, NULL); // the child's fork has left our pages to be touched anew
        for (int i = 0; i < n; i++) { training_step(&j, &ours); training_floor(&j, &floor); }
        llmc_steps(binary, n, &theirs);
    }
    training_free(&j);
    llmc_clean();
    result("llmc", B, "training step, B=4, T=64", 1e3 * median(&ours), "ms", "llm.c", 1e3 * median(&theirs),
        median(&theirs) / median(&ours), 4, INFINITY,
        "%d steps each; llm.c is %.2f times the floor of the training step, "
        "and no engine on these products could be farther ahead",
        theirs.n, median(&theirs) / (median(&floor.products) + median(&floor.adamw)));
    free(path); free(binary);
}

// ----------------------------------------------------------------------------

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "--busy")) { foreign_run(); return 0; }
    wait_by_sleeping(argv);
    static const char *const entries[] = {"training", "decode", "sampling", "ppo", "foreign", "memory", "llmc"};
    bool wanted[7] = {0}, any = false, tiny = false;
    int repeats = 5;
    size_t rows = 32;
    const char *llmc = NULL, *job = NULL;
    for (int i = 1; i < argc; i++) {
        const char *flag = argv[i];
        bool entry = false;
        for (int k = 0; k < 7; k++) if (!strcmp(flag, entries[k])) wanted[k] = any = entry = true;
        if (entry) continue;
        if (!strcmp(flag, "--json")) { json_lines = true; continue; }
        if (!strcmp(flag, "--tiny")) { tiny = true; continue; }
        if (!strstr(" --rows --repeats --precision --threads --llmc --peak ", flag) || strncmp(flag, "--", 2))
            usage("%s: bench knows --rows, --repeats, --precision, --threads, --llmc, --json, "
                  "--tiny, and training decode sampling ppo foreign memory llmc",
                flag);
        if (i + 1 == argc) usage("%s needs a value", flag);
        const char *value = argv[++i];
        if (!strcmp(flag, "--rows")) rows = strtoul(value, NULL, 10);
        else if (!strcmp(flag, "--repeats")) repeats = atoi(value);
        else if (!strcmp(flag, "--threads")) omp_set_num_threads(atoi(value) > 0 ? atoi(value) : 1);
        else if (!strcmp(flag, "--precision")) cpu_bf16 = !strcmp(value, "bf16");
        else if (!strcmp(flag, "--peak")) job = value;
        else llmc = value;
    }
    for (int k = 0; k < 7 && !any; k++) wanted[k] = k < 6 || llmc;
    if (wanted[6] && !llmc) usage("llmc needs --llmc DIR, a checkout of llm.c with train_gpt2 built");
    if (repeats < 1 || repeats > MAX_REPEATS || rows < 1) usage("--repeats 1 to %d, --rows at least 1", MAX_REPEATS);
    (void)commands; (void)n_commands; (void)preset_flags;
    if (tiny) {
        Config *c = &gpt2_124m;
        c->L = 2; c->NH = 2; c->C = 32; c->F = 128; c->V = 61; c->max_T = 64;
    }
    if (job) peak(job, rows);
    double load[3] = {0};
    if (getloadavg(load, 3) < 0) load[0] = NAN;
    if (!json_lines)
        printf("%s, %s, %d threads, %s; load before: %.2f; medians of %d interleaved repeats\n",
            tiny ? "Tiny shapes" : "GPT-2 124M shapes", cpu_bf16 ? "bf16" : "fp32", omp_get_max_threads(),
            cpu_libraries(), load[0], repeats);
    fflush(stdout);
    size_t most = (rows > MOST_ROWS ? rows : MOST_ROWS) * 48;
    size_t n = gpt2_124m.V * gpt2_124m.C;
    if (n < most * gpt2_124m.F) n = most * gpt2_124m.F;
    if (n < cpu_head_rows(gpt2_124m.V) * gpt2_124m.V) n = cpu_head_rows(gpt2_124m.V) * gpt2_124m.V;
    ga = xmalloc(n * sizeof(real)); gb = xmalloc(n * sizeof(real)); gc = xmalloc(n * sizeof(real));
    for (size_t i = 0; i < n; i++) ga[i] = gb[i] = (real)0.01;
    if (wanted[0]) bench_training(repeats);
    if (wanted[1]) bench_decode(repeats);
    if (wanted[2]) bench_sampling(repeats);
    if (wanted[3]) bench_ppo(repeats, rows);
    if (wanted[4]) bench_foreign(repeats);
    if (wanted[5]) bench_memory(rows, tiny);
    if (wanted[6]) bench_llmc(repeats, llmc);
    if (!json_lines && getloadavg(load, 3) > 0)
        printf("load after: %.2f (%d threads of it ours)\n", load[0], omp_get_max_threads());
    return 0;
}
