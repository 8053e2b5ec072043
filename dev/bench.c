// bench.c: the engine's speed on GPT-2 124M shapes beside what this machine can do, both measured in this run, interleaved, medians.
//
// Floors. GEMM: the products a step cannot do without, each shape timed alone by the same library, weights and sizes as in the step. Bandwidth:
// the bytes that must move (AdamW: 28 a parameter; decoding: every weight once a token) at the rate a plain loop reaches. A ratio of 1.00 would mean that
// attention, norms, softmax, sampling, packing and waiting cost nothing. Weights are random: speed does not depend on them.
//
//   build/bench [--rows N] [--repeats N] [--precision fp32|bf16] [--threads N]     (--rows: episodes of the PPO iteration, default 32)
#define TESTING
#include "vbon.c"

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

static const Config gpt2_124m = {.arch = "gpt2", .L = 12, .NH = 12, .C = 768, .F = 3072, .V = 50257, .max_T = 1024, .act = ACT_GELU_TANH, .tied = true, .eps = 1e-5, .init_std = 0.02, .eos = 50256};

// ----------------------------------------------------------------------------
// floors

static real *ga, *gb, *gc; // room for the largest product
static void product_floor(bool ta, bool tb, size_t M, size_t N, size_t K) // one product of the step, as oneDNN (or the plain loops) does it
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

static double bandwidth_floor(bool write, float *a, float *b, size_t n) // bytes a second: reading a; or reading a and b and writing b
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

static double decode_products(const Model *m, Buf in, Buf out, size_t rows) // every packed weight once, for so many rows
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

// ----------------------------------------------------------------------------
// what is measured

static void bench_training(int repeats)
{
    enum { B = 4, T = 64 };
    Model m;
    model_create(&m, ops_cpu(), &gpt2_124m, TRAIN_ALL, false, false);
    model_random(&m, 1);
    int *tokens = xmalloc(B * T * sizeof *tokens);
    Row rows[B];
    size_t which[B];
    for (size_t i = 0; i < B * T; i++) tokens[i] = (int)(random_bits(1, 1, i, 0, 0) % gpt2_124m.V);
    for (size_t b = 0; b < B; b++) { rows[b] = (Row){b * T, T, 1, 0}; which[b] = b; }
    Corpus c = {.kind = LOSS_LM, .tokens = tokens, .rows = rows, .n_tokens = B * T, .n_rows = B};
    Trainer t;
    trainer_create(&t, &m, B * T, true);
    Times step = {0}, gemms = {0}, read = {0}, adamw = {0};
    AdamW opt = {1e-5, 0.9, 0.95, 1e-8, 0, 1};
    for (int r = -1; r < repeats; r++) {
        double began = clock_seconds();
        model_zero_grad(&m);
        supervised_batch(&t, &c, which, B, B * (T - 1), true, NULL);
        model_update(&m, &opt);
        if (r >= 0) time_add(&step, began);
        double floor = blocks_floor(&gpt2_124m, 12, B * T, 1, 1, 1) + head_floor(&gpt2_124m, B * (T - 1), 1, 1, 1);
        if (r >= 0) gemms.x[gemms.n++] = floor;
        size_t n = m.n_params;
        double rate = bandwidth_floor(true, m.m.p, m.v.p, n);
        m.o->fill(m.m, 0); m.o->fill(m.v, 0);
        if (r >= 0) { adamw.x[adamw.n++] = 28.0 * (double)n / rate; read.x[read.n++] = rate; }
    }
    double s = median(&step), f = median(&gemms) + median(&adamw);
    printf("training step, B=4, T=64      %9.0f ms   floor %8.0f ms (products %.0f, AdamW %.0f at %.1f GB/s)   ratio %.2f   %.0f tokens/s\n", 1e3 * s, 1e3 * f, 1e3 * median(&gemms),
           1e3 * median(&adamw), median(&read) / 1e9, s / f, B * T / s);
    trainer_free(&t); model_free(&m);
    free(tokens);
}

static void bench_decode(int repeats)
{
    enum { NEW = 32, PROMPT = 8 };
    const size_t rows[] = {1, 8, 32, 128};
    Model m;
    model_create(&m, ops_cpu(), &gpt2_124m, TRAIN_NONE, false, false);
    model_random(&m, 1);
    model_pack(&m);
    Buf in = m.o->alloc(128 * gpt2_124m.F, DT_REAL, "in"), out = m.o->alloc(128 * gpt2_124m.V, DT_REAL, "out");
    m.o->fill(in, 0.1);
    int ids[PROMPT];
    for (int i = 0; i < PROMPT; i++) ids[i] = 1000 + i;
    Prompt prompt = {.ids = ids, .n = PROMPT};
    Sampling s = {.temperature = 1, .top_p = 1, .seed = 1, .stream = STREAM_SAMPLE, .eos = -1};
    size_t n = m.n_params;
    for (int k = 0; k < 4; k++) {
        Arena work = {.name = "bench", .o = m.o};
        Generator g = {0};
        for (int pass = 0; pass < 2; pass++) { if (pass) arena_place(&work); generator_carve(&g, &m, &work, rows[k], 256, PROMPT, NEW); }
        Response *r = xcalloc(rows[k], sizeof *r);
        Times whole = {0}, gemms = {0}, read = {0};
        for (int i = -1; i < repeats; i++) {
            for (size_t b = 0; b < rows[k]; b++) { response_free(&r[b]); r[b] = (Response){.sample = b}; }
            double began = clock_seconds();
            generate(&g, &s, &prompt, r, rows[k]);
            if (i >= 0) time_add(&whole, began);
            double floor = 0;
            for (int j = 0; j < 4; j++) floor += decode_products(&m, in, out, rows[k]) / 4;
            double rate = bandwidth_floor(false, m.data.p, NULL, n);
            if (i >= 0) { gemms.x[gemms.n++] = floor; read.x[read.n++] = rate; }
        }
        double token = median(&whole) / NEW, bytes = (double)(n - m.p.wpe.n) * (cpu_bf16 ? 2 : 4) / median(&read), f = median(&gemms);
        printf("decode, %3zu rows             %10.2f ms   floor %8.2f ms (products; weights alone %.2f at %.1f GB/s)   ratio %.2f   %.0f tokens/s\n", rows[k], 1e3 * token, 1e3 * f, 1e3 * bytes,
               median(&read) / 1e9, token / f, (double)rows[k] / token);
        for (size_t b = 0; b < rows[k]; b++) response_free(&r[b]);
        free(r);
        generator_free(&g); arena_release(&work);
    }
    m.o->release(&in); m.o->release(&out);
    model_free(&m);
}

static void reward_by_length(void *context, const Prompt *prompts, Response *r, size_t n, bool prefixes)
{
    (void)context; (void)prompts; (void)prefixes;
    for (size_t i = 0; i < n; i++) r[i].reward = (double)(r[i].key % 1000);
}

static void bench_ppo(int repeats, size_t rows)
{
    enum { NEW = 40, PROMPT = 8, EPOCHS = 4, TOP = 2 };
    Model m;
    model_create(&m, ops_cpu(), &gpt2_124m, TOP, true, false);
    model_random(&m, 1);
    value_head_random(&m, 1);
    Prompt *prompts = xcalloc(rows, sizeof *prompts);
    for (size_t i = 0; i < rows; i++) {
        prompts[i] = (Prompt){.ids = xmalloc(PROMPT * sizeof(int)), .n = PROMPT};
        for (size_t k = 0; k < PROMPT; k++) prompts[i].ids[k] = (int)(random_bits(2, 1, i, k, 0) % 50000);
    }
    size_t minibatch = rows < 32 ? rows : 32;
    PpoOptions opt = {.objective = {.kind = OBJECTIVE_RL, .beta = 0.1}, .temperature = 1, .clip = 0.2, .value_clip = 0.2, .vf_coef = 1, .gamma = 1, .lambda = 0.95, .lr = 1e-6, .schedule = "constant",
        .episodes = (long)rows * 100, .rollout = (long)rows, .minibatch = (long)minibatch, .epochs = EPOCHS, .max_new = NEW, .tokens = 2048, .seed = 1, .eos = -1, .adamw = {1e-6, 0.9, 0.95, 1e-8, 0, 1}};
    Ppo p;
    ppo_create(&p, &opt, &m, prompts, rows, reward_by_length, NULL);
    p.clock = clock_seconds;
    Buf in = m.o->alloc(rows * gpt2_124m.F, DT_REAL, "in"), out = m.o->alloc(rows * gpt2_124m.V, DT_REAL, "out");
    m.o->fill(in, 0.1);
    Times whole = {0}, floor = {0};
    size_t N = rows * (PROMPT + NEW - 1), R = rows * NEW;
    double parts[3] = {0};
    for (int i = -1; i < repeats; i++) {
        double before[] = {p.seconds_rollout, p.seconds_reward, p.seconds_update}, began = clock_seconds();
        ppo_iteration(&p);
        if (i >= 0) { time_add(&whole, began); parts[0] += p.seconds_rollout - before[0]; parts[1] += p.seconds_reward - before[1]; parts[2] += p.seconds_update - before[2]; }
        // sampling; the frozen trunk once; the reference's top once; then each epoch: top blocks and head forward, backward, weights of the blocks only
        double f = 0, step = 0;
        for (int j = 0; j < 4; j++) step += decode_products(&m, in, out, rows) / 4;
        f += NEW * step;
        f += blocks_floor(&gpt2_124m, 12 - TOP, N, 1, 0, 0) + blocks_floor(&gpt2_124m, TOP, N, 1, 0, 0) + head_floor(&gpt2_124m, R, 1, 0, 0);
        f += EPOCHS * (double)(rows / minibatch) * (blocks_floor(&gpt2_124m, TOP, minibatch * (PROMPT + NEW - 1), 1, 1, 1) + head_floor(&gpt2_124m, minibatch * NEW, 1, 1, 0));
        if (i >= 0) floor.x[floor.n++] = f;
    }
    printf("PPO iteration, %zu x 40 tokens %9.0f ms   floor %8.0f ms (products)   ratio %.2f   rollouts %.0f, updates %.0f ms\n", rows, 1e3 * median(&whole), 1e3 * median(&floor),
           median(&whole) / median(&floor), 1e3 * parts[0] / whole.n, 1e3 * parts[2] / whole.n);
    ppo_free(&p); model_free(&m);
}

int main(int argc, char **argv)
{
    wait_by_sleeping(argv);
    int repeats = 5;
    size_t rows = 32;
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc) usage("%s needs a value", argv[i]);
        if (!strcmp(argv[i], "--rows")) rows = (size_t)atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--repeats")) repeats = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--threads")) omp_set_num_threads(atoi(argv[i + 1]));
        else if (!strcmp(argv[i], "--precision")) cpu_bf16 = !strcmp(argv[i + 1], "bf16");
        else usage("%s: bench knows --rows, --repeats, --precision and --threads", argv[i]);
    }
    if (repeats < 1 || repeats > MAX_REPEATS || rows < 1) usage("--repeats 1 to %d, --rows at least 1", MAX_REPEATS);
    if (cpu_bf16 && !bf16_native()) usage("--precision bf16: no bfloat16 products on this CPU or in this build");
    (void)commands; (void)n_commands; (void)preset_flags;
    double load[3] = {0};
    if (getloadavg(load, 3) < 0) load[0] = NAN;
    printf("GPT-2 124M shapes, %s, %d threads, %s; load before: %.2f; medians of %d interleaved repeats\n", cpu_bf16 ? "bf16" : "fp32", omp_get_max_threads(), cpu_libraries(), load[0], repeats);
    size_t most = (size_t)(rows > 128 ? rows : 128) * 48;
    size_t n = gpt2_124m.V * gpt2_124m.C;
    if (n < most * gpt2_124m.F) n = most * gpt2_124m.F;
    if (n < cpu_head_rows(gpt2_124m.V) * gpt2_124m.V) n = cpu_head_rows(gpt2_124m.V) * gpt2_124m.V;
    ga = xmalloc(n * sizeof(real)); gb = xmalloc(n * sizeof(real)); gc = xmalloc(n * sizeof(real));
    for (size_t i = 0; i < n; i++) ga[i] = gb[i] = (real)0.01;
    bench_training(repeats);
    bench_decode(repeats);
    bench_ppo(repeats, rows);
    return 0;
}
