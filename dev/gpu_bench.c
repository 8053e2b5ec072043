// gpu_bench.c: times on a GPU, beside two ceilings measured in the same run: the bandwidth of a device
// copy and the rate of a large bf16 product.
//
//   build/gpu_bench [--tiny] [STAGE...]     training, decode, ppo, cache, pythia, identity, sentiment, tldr; none: all
// One JSON object a line, on stdout.
//
// Each stretch is timed twice. device_seconds: between two events on the stream, gaps where the device waits for the
// host included. host_seconds: the host's clock from the first call until the device has finished, which is what a user
// waits for; rates in tokens are of this one. Ceilings are of the device's. Medians of five after two that warm up (a
// decoding step is recorded as a graph in the second); the cache job is timed as a whole, the number of its prompts
// being what fits CACHE_SECONDS. Weights are random: speed does not depend on them, but a product of zeros would be
// faster. flop counts products of weights alone: 2 a weight and token, 6 where the gradient passes too. identity runs
// training and PPO three times from one state and compares all weights bit by bit; exit code 1 if they differ. --tiny:
// shapes for the emulated device, to see that it runs; its times mean nothing.
//
// Left out on purpose: files and text (sentiment judges random tokens; the reward of `ppo` is a hash).
#define TESTING
#include "../vbon.c"

void cuda_timer_begin(void); // vbon.cu
double cuda_timer_seconds(void);
size_t cuda_free_bytes(void);

enum { REPEATS = 5, WARM = 2, CACHE_SECONDS = 15 };
static const Ops *o;
static bool tiny;
static const Config gpt2_124m = {.arch = &architectures[ARCH_GPT2], .L = 12, .NH = 12, .C = 768, .F = 3072, .V = 50257,
    .max_T = 1024, .act = ACT_GELU_TANH, .tied = true, .eps = 1e-5, .init_std = 0.02, .eos = 50256};
static const Config pythia_2_8b = {.arch = &architectures[ARCH_NEOX], .L = 32, .NH = 32, .C = 2560, .F = 10240,
    .V = 50304, .max_T = 2048, .act = ACT_GELU_ERF, .parallel = true, .rotary_pct = 0.25, .rotary_base = 10000,
    .eps = 1e-5, .init_std = 0.02, .eos = 0};
#define SPARE 2e9 // bytes, for what is not estimated: scratch, backward, the libraries
static double copy_rate, product_rate; // bytes and operations a second

static Config shape_of(Config c)
{
    if (tiny) { c.L = 2; c.NH = 2; c.C = 32; c.F = 64; c.V = 61; c.max_T = 64; c.eos = 60; }
    return c;
}

typedef struct { double device[REPEATS], host[REPEATS], began; int n; } Times;
static void time_begin(Times *t) { cuda_timer_begin(); t->began = clock_seconds(); }
static void time_end(Times *t, int repeat)
{
    // in this order: the first waits for the device
    double device = cuda_timer_seconds(), host = clock_seconds() - t->began;
    if (repeat >= 0) { t->device[t->n] = device; t->host[t->n++] = host; }
}
static double median(const double *x)
{
    double s[REPEATS];
    memcpy(s, x, sizeof s);
    qsort(s, REPEATS, sizeof *s, ascending);
    return s[REPEATS / 2];
}

// Random elements in all of b (float or bf16): a piece from the host, then copies of what
// is there, twice as long each time.
static void randomise(Buf b, double bound)
{
    static real piece[1 << 20];
    size_t have = b.n < sizeof piece / sizeof *piece ? b.n : sizeof piece / sizeof *piece;
    for (size_t i = 0; i < have; i++) piece[i] = (real)(bound * (2 * random_uniform(1, STREAM_INIT, b.n, i, 0) - 1));
    o->upload(slice(b, 0, have), piece);
    for (size_t n; have < b.n; have += n) {
        n = b.n - have < have ? b.n - have : have;
        o->copy(slice(b, have, n), slice(b, 0, n));
    }
}

static bool random_weights = true;
static void randomise_model(Model *m)
{
    if (!random_weights) return;
    for (size_t i = 0; i < m->n_list; i++) {
        const Param *q = &m->list[i];
        bool trains = q->offset >= m->first && m->first < m->n_params;
        Buf w = slice(m->data, q->offset, q->n), exact = trains ? slice(m->master, q->offset - m->first, q->n) : w;
        if (q->cols) randomise(exact, 0.03); else o->fill(exact, q->flags & P_NORM ? 1 : 0);
        if (trains) o->copy(w, exact);
    }
}

static void bench_ceilings(void)
{
    size_t n = tiny ? 4096 : (size_t)1 << 29, D = tiny ? 64 : 8192;
    Times copy = {0}, product = {0};
    Buf a = o->alloc(n, DT_BF16, "a"), b = o->alloc(n, DT_BF16, "b"), c = o->alloc(D * D, DT_BF16, "c");
    randomise(a, 0.5);
    o->copy(b, a);
    for (int r = -WARM; r < REPEATS; r++) {
        time_begin(&copy);
        for (int k = 0; k < 10; k++) o->copy(b, a);
        time_end(&copy, r);
        time_begin(&product);
        for (int k = 0; k < 10; k++) o->matmul_forward(c, slice(a, 0, D * D), slice(b, 0, D * D), (Buf){0}, D, D, D);
        time_end(&product, r);
    }
    copy_rate = 10 * 2.0 * (double)n * 2 / median(copy.device); // read and written
    product_rate = 10 * 2.0 * (double)D * (double)D * (double)D / median(product.device);
    printf("{\"what\":\"ceilings\",\"clock\":\"device events\",\"copy_bytes_per_second\":%.4g,"
           "\"bf16_flop_per_second\":%.4g,\"product_size\":%zu,\"shapes\":\"%s\"}\n",
        copy_rate, product_rate, D, tiny ? "tiny" : "as named");
    fflush(stdout);
    o->release(&a); o->release(&b); o->release(&c);
}

// False, and a record that says so, where the device has less free memory than `need`.
static bool room_for(const char *what, double need)
{
    double there = (double)cuda_free_bytes();
    if (need <= there) return true;
    printf("{\"what\":\"%s\",\"skipped\":\"needs about %.1f GB of device memory, %.1f are free\"}\n", what, need / 1e9,
        there / 1e9);
    return false;
}

static double model_bytes(const Config *shape, long train)
{
    Model m;
    model_create(&m, o, shape, train, false, true);
    double bytes = (double)m.params.high + (double)m.optim.high;
    model_free(&m);
    return bytes;
}

static double block_weights(const Config *c) { return (double)c->C * (4.0 * (double)c->C + 2.0 * (double)c->F); }

// ----------------------------------------------------------------------------
// training

typedef struct { Model m; Pass p; Corpus c; size_t *which; } Job;
static void job_create(Job *j, const Config *shape, long train, size_t B, size_t T)
{
    model_create(&j->m, o, shape, train, false, false);
    randomise_model(&j->m);
    j->c = (Corpus){.kind = LOSS_LM, .tokens = xmalloc(B * (T + 1) * sizeof(int)), .rows = xmalloc(B * sizeof(Row)),
        .n_tokens = B * (T + 1), .n_rows = B};
    j->which = xmalloc(B * sizeof *j->which);
    for (size_t i = 0; i < j->c.n_tokens; i++) j->c.tokens[i] = (int)(random_bits(1, 1, i, 0, 0) % shape->V);
    for (size_t b = 0; b < B; b++) { j->c.rows[b] = (Row){b * (T + 1), (int)T + 1, 1, 0}; j->which[b] = b; }
    pass_create(&j->p, &j->m, B * T, true);
}
static void job_free(Job *j)
{
    pass_free(&j->p); model_free(&j->m); free(j->c.tokens); free(j->c.rows); free(j->which);
}
static void job_gradient(Job *j)
{
    model_zero_grad(&j->m);
    supervised_batch(&j->p, &j->c, j->which, j->c.n_rows, (double)(j->c.n_tokens - j->c.n_rows), true, NULL);
}

// blocks: how many train (TRAIN_ALL: everything); update: AdamW is part of what is timed
static void bench_training(const char *name, const Config *shape, long blocks, size_t B, size_t T, bool update)
{
    const AdamW opt = {1e-5, 0.9, 0.95, 1e-8, 0, 1, 0, 0};
    Job j;
    Times t = {0};
    if (!room_for(name,
            model_bytes(shape, blocks) +
                (double)(B * T) * (double)shape->C * 2 * 20 * (double)(blocks < 0 ? (long)shape->L : blocks) + SPARE))
        return;
    job_create(&j, shape, blocks, B, T);
    for (int r = -WARM; r < REPEATS; r++) {
        time_begin(&t);
        job_gradient(&j);
        if (update) model_update(&j.m, &opt);
        time_end(&t, r);
    }
    double tokens = (double)(B * T), own = blocks < 0 ? (double)shape->L : (double)blocks,
           frozen = (double)shape->L - own, s = median(t.host);
    double flop = tokens *
        (6 * (own * block_weights(shape) + (double)shape->V * (double)shape->C) + 2 * frozen * block_weights(shape));
    printf("{\"what\":\"%s\",\"batch\":%zu,\"length\":%zu,\"blocks_trained\":%.0f,\"host_seconds\":%.4g,"
           "\"device_seconds\":%.4g,\"tokens_per_second\":%.4g,\"flop\":%.4g,\"share_of_bf16_rate\":%.3f}\n",
        name, B, T, own, s, median(t.device), tokens / s, flop, flop / median(t.device) / product_rate);
    fflush(stdout);
    job_free(&j);
}

// ----------------------------------------------------------------------------
// decoding

typedef struct { Model m; Generator g; Arena work; Prompt *prompts; Response *r; size_t n_prompts, rows; } Decoder;
static Prompt *prompts_random(const Config *shape, size_t n, size_t length)
{
    Prompt *p = xcalloc(n, sizeof *p);
    for (size_t i = 0; i < n; i++) {
        p[i] = (Prompt){.ids = xmalloc(length * sizeof(int)), .n = length};
        for (size_t k = 0; k < length; k++) p[i].ids[k] = (int)(random_bits(2, 1, i, k, 0) % shape->V);
    }
    return p;
}

static void decoder_create(Decoder *d, const Config *shape, size_t rows, size_t n_prompts, size_t length, size_t new)
{
    *d = (Decoder){.rows = rows, .n_prompts = n_prompts, .work = {.name = "decoding", .o = o}};
    model_create(&d->m, o, shape, TRAIN_NONE, false, false);
    randomise_model(&d->m);
    model_pack(&d->m);
    d->prompts = prompts_random(shape, n_prompts, length);
    d->r = xcalloc(rows, sizeof *d->r);
    for (int pass = 0; pass < 2; pass++) {
        if (pass) arena_place(&d->work);
        generator_carve(&d->g, &d->m, &d->work, rows, n_prompts, 256, length, new);
    }
}
static void decoder_free(Decoder *d)
{
    for (size_t b = 0; b < d->rows; b++) response_free(&d->r[b]);
    free(d->r);
    prompts_free(d->prompts, d->n_prompts);
    generator_free(&d->g); arena_release(&d->work); model_free(&d->m);
}
// Rows responses, an equal number to each prompt, the samples' counter going on at `first`
static void decode(Decoder *d, size_t first)
{
    const Sampling s = {.temperature = 1, .top_p = 1, .seed = 1, .stream = STREAM_SAMPLE, .eos = -1};
    for (size_t b = 0; b < d->rows; b++) {
        response_free(&d->r[b]);
        d->r[b] = (Response){.prompt = b * d->n_prompts / d->rows, .sample = first + b};
    }
    generate(&d->g, &s, d->prompts, d->r, d->rows);
}

static void bench_decode(const char *name, const Config *shape, size_t rows, size_t n_prompts, size_t length,
    size_t new)
{
    double weights = (double)shape->L * block_weights(shape) + (double)shape->V * (double)shape->C;
    Decoder d;
    Times t = {0};
    double positions = (double)(rows * new + n_prompts * length);
    if (!room_for(name, model_bytes(shape, TRAIN_NONE) + positions * (double)(shape->L * 2 * shape->C * 2) + SPARE))
        return;
    decoder_create(&d, shape, rows, n_prompts, length, new);
    for (int i = -WARM; i < REPEATS; i++) { time_begin(&t); decode(&d, 0); time_end(&t, i); }
    double step = median(t.host) / (double)new; // each ends with its tokens on the host
    printf("{\"what\":\"%s\",\"rows\":%zu,\"prompts\":%zu,\"prompt\":%zu,\"new\":%zu,\"host_seconds\":%.4g,"
           "\"device_seconds\":%.4g,\"tokens_per_second\":%.4g,\"weight_bytes_share_of_copy_bandwidth\":%.3f}\n",
        name, rows, n_prompts, length, new, step, median(t.device) / (double)new, (double)rows / step,
        2 * weights / step / copy_rate);
    fflush(stdout);
    decoder_free(&d);
}

// ----------------------------------------------------------------------------
// reward models

static void reward_model_create(Reward *r, const Config *shape)
{
    Config c = *shape;
    c.scalar_head = true;
    c.pad = -1;
    *r = (Reward){.tokens = tiny ? 64 : 4096, .scale = 1, .work = {.name = "reward model", .o = o}};
    model_create(&r->m, o, &c, TRAIN_NONE, false, false);
    randomise_model(&r->m);
    model_pack(&r->m);
}

static void reward_model_free(Reward *r)
{
    arena_release(&r->work);
    acts_free(&r->acts);
    kv_free(&r->prompts);
    kv_free(&r->own);
    model_free(&r->m);
}

// A block of the TL;DR cache: `rows` responses to one prompt through a reward model, the prompt too
static void bench_reward(const char *name, const Config *shape, size_t rows, size_t length, size_t new)
{
    if (!room_for(name, model_bytes(shape, TRAIN_NONE) + 2 * SPARE)) return;
    Reward r;
    Times t = {0};
    reward_model_create(&r, shape);
    const Config c = r.m.cfg;
    Prompt *prompt = prompts_random(&c, 1, length);
    Response *y = xcalloc(rows, sizeof *y);
    for (size_t b = 0; b < rows; b++) {
        y[b] = (Response){.ids = xmalloc(new * sizeof(int)), .n = new};
        for (size_t k = 0; k < new; k++) y[b].ids[k] = (int)(random_bits(3, 1, b, k, 0) % c.V);
    }
    for (int i = -WARM; i < REPEATS; i++) { time_begin(&t); model_assign(&r, prompt, y, rows, false); time_end(&t, i); }
    double s = median(t.host), flop = 2 * (double)(rows * new + length) * (double)c.L * block_weights(&c);
    printf("{\"what\":\"%s\",\"rows\":%zu,\"prompt\":%zu,\"new\":%zu,\"host_seconds\":%.4g,\"device_seconds\":%.4g,"
           "\"tokens_per_second\":%.4g,\"flop\":%.4g,\"share_of_bf16_rate\":%.3f}\n",
        name, rows, length, new, s, median(t.device), (double)(rows * new) / s, flop,
        flop / median(t.device) / product_rate);
    fflush(stdout);
    for (size_t b = 0; b < rows; b++) response_free(&y[b]);
    free(y);
    prompts_free(prompt, 1);
    reward_model_free(&r);
}

static DistilBert *distilbert_plain(size_t tokens) // of the base size, without files and without a tokenizer
{
    DistilBert *d = xcalloc(1, sizeof *d);
    char dir[] = "/tmp/gpu_bench.XXXXXX", path[64];
    if (!mkdtemp(dir)) die("gpu_bench: no folder %s: %s", dir, strerror(errno));
    snprintf(path, sizeof path, "%s/config.json", dir);
    FILE *f = fopen(path, "w");
    if (!f) die("gpu_bench: %s: %s", path, strerror(errno));
    fprintf(f, "{\"model_type\":\"distilbert\",\"architectures\":[\"%s\"],\"id2label\":{\"1\":\"POSITIVE\"}}",
        distilbert.classifier);
    fclose(f);
    distilbert_load(d, ops_cuda(DT_BF16), dir, tokens, true);
    remove(path);
    remove(dir);
    arena_place(&d->m.params);
    arena_place(&d->work);
    d->m.data = arena_take(&d->m.params, d->m.n_params, DT_REAL, "weights");
    if (random_weights) randomise(d->m.data, 0.03);
    distilbert_carve(d);
    distilbert_view(d);
    return d;
}

static void distilbert_texts(DistilBert *d, size_t n, size_t length) // scores n texts of so many tokens
{
    size_t most = d->tokens / length;
    int *tokens = xcalloc(d->tokens, sizeof *tokens), *start = xcalloc(most + 1, sizeof *start);
    real *logits = xcalloc(most * d->labels, sizeof *logits);
    for (size_t b = 0; b <= most; b++) start[b] = (int)(b * length);
    for (size_t i = 0; i < d->tokens; i++) tokens[i] = (int)(random_bits(4, 1, i, 0, 0) % d->m.cfg.V);
    for (size_t i = 0, B; i < n; i += B) {
        B = n - i < most ? n - i : most;
        batch_set(&d->batch, &d->m, tokens, start, NULL, B);
        o->upload(slice(d->first, 0, B), start);
        o->download(logits, slice(distilbert_forward(d), 0, B * d->labels));
    }
    free(tokens); free(start); free(logits);
}

// A thousand responses of the sentiment cache, 200 to each of 5 prompts, drawn and judged
static void bench_sentiment(const Config *shape)
{
    const size_t rows = tiny ? 4 : 1000, new = tiny ? 4 : 40, length = tiny ? 8 : 68;
    Decoder d;
    Times t = {0};
    DistilBert *bert = distilbert_plain(tiny ? 64 : 4096);
    decoder_create(&d, shape, rows, tiny ? 1 : 5, 8, new);
    for (int i = -WARM; i < REPEATS; i++) {
        time_begin(&t);
        decode(&d, 0);
        distilbert_texts(bert, rows, length);
        time_end(&t, i);
    }
    printf("{\"what\":\"sentiment cache\",\"rows\":%zu,\"new\":%zu,\"judged_length\":%zu,\"host_seconds\":%.4g,"
           "\"device_seconds\":%.4g,\"responses_per_second\":%.4g}\n",
        rows, new, length, median(t.host), median(t.device), (double)rows / median(t.host));
    fflush(stdout);
    decoder_free(&d);
}

static void bench_cache(const Config *shape) // as many prompts as time allows
{
    const size_t new = tiny ? 4 : 40, samples = tiny ? 4 : 200, at_once = tiny ? 1 : 5;
    Decoder d;
    size_t n = 0;
    decoder_create(&d, shape, samples * at_once, at_once, 8, new);
    for (int i = 0; i < WARM; i++) decode(&d, 0);
    double began = clock_seconds(), s;
    do { decode(&d, n * samples); n += at_once; s = clock_seconds() - began; } while (s < (tiny ? 0 : CACHE_SECONDS));
    printf("{\"what\":\"cache job, sampling alone\",\"clock\":\"host\",\"prompts\":%zu,\"samples\":%zu,\"new\":%zu,"
           "\"rows\":%zu,\"host_seconds\":%.4g,\"tokens_per_second\":%.4g}\n",
        n, samples, new, d.rows, s, (double)(n * samples * new) / s);
    fflush(stdout);
    decoder_free(&d);
}

// ----------------------------------------------------------------------------
// PPO, with the sentiment preset's numbers

static void reward_by_key(void *context, const Prompt *prompts, Response *r, size_t n, bool prefixes)
{
    (void)context; (void)prompts; (void)prefixes;
    for (size_t i = 0; i < n; i++) r[i].reward = (double)(r[i].key % 1000) / 1000;
}

static void reward_by_model(void *reward, const Prompt *prompts, Response *r, size_t n, bool prefixes)
{
    model_assign(reward, prompts, r, n, prefixes);
}

typedef struct { Model m; Ppo p; Reward reward; Prompt *prompts; size_t rows; bool judged; } Tuning;
// blocks: how many train; reward_model: one of the policy's size judges, else rewards are a hash of the response
static void tuning_create(Tuning *u, const Config *shape, long blocks, size_t length, long new, bool reward_model)
{
    size_t rows = tiny ? 4 : 128;
    PpoOptions opt = {.objective = {.row = ROW(objectives, "rl"), .beta = 0.1}, .fhat = ROW(fhats, "digamma"),
        .critic = ROW(critics, "head"), .temperature = 1, .clip = 0.2, .value_clip = 0.2, .vf_coef = 1, .gamma = 1,
        .lambda = 0.95, .lr = 3e-5, .schedule = ROW(schedules, "constant"),
        .episodes = (long)rows * 100, .rollout = (long)rows, .minibatch = (long)rows / 4, .epochs = 4,
        .max_new = new, .tokens = tiny ? 256 : 4096, .seed = 1, .eos = -1,
        .adamw = {3e-5, 0.9, 0.95, 1e-8, 1e-6, 1, 0, 0}};
    u->rows = rows;
    u->judged = reward_model;
    model_create(&u->m, o, shape, blocks, true, false);
    randomise_model(&u->m);
    if (random_weights) value_head_random(&u->m, 1);
    if (reward_model) reward_model_create(&u->reward, shape);
    u->prompts = prompts_random(shape, rows, length);
    ppo_create(&u->p, &opt, &u->m, u->prompts, NULL, rows, reward_model ? reward_by_model : reward_by_key, &u->reward);
    u->p.clock = clock_seconds;
}
static void tuning_free(Tuning *u)
{
    ppo_free(&u->p); model_free(&u->m); prompts_free(u->prompts, u->rows);
    if (u->judged) reward_model_free(&u->reward);
}

static void bench_ppo(const char *name, const Config *shape, long blocks, size_t length, long new, bool reward_model)
{
    Tuning u;
    Times t = {0};
    double rollout = 0, update = 0, tokens_at_once = 4096 * (double)shape->C * 2 * 20 * (double)shape->L;
    if (!room_for(name, model_bytes(shape, blocks) + (reward_model ? model_bytes(shape, TRAIN_NONE) : 0) +
            tokens_at_once + SPARE))
        return;
    tuning_create(&u, shape, blocks, length, new, reward_model);
    for (int r = -WARM; r < REPEATS; r++) {
        double before[] = {u.p.seconds_rollout, u.p.seconds_update};
        time_begin(&t);
        ppo_iteration(&u.p);
        time_end(&t, r);
        if (r >= 0) {
            rollout += (u.p.seconds_rollout - before[0]) / REPEATS;
            update += (u.p.seconds_update - before[1]) / REPEATS;
        }
    }
    double s = median(t.host), tokens = (double)(u.rows * (size_t)u.p.opt.max_new);
    printf("{\"what\":\"%s\",\"episodes\":%zu,\"new\":%ld,\"epochs\":%ld,\"minibatch\":%ld,"
           "\"blocks_trained\":%zu,\"host_seconds\":%.4g,\"device_seconds\":%.4g,\"host_rollout_seconds\":%.4g,"
           "\"host_update_seconds\":%.4g,\"tokens_per_second\":%.4g}\n",
        name, u.rows, u.p.opt.max_new, u.p.opt.epochs, u.p.opt.minibatch, u.m.cfg.L - u.m.first_block, s,
        median(t.device), rollout, update, tokens / s);
    fflush(stdout);
    tuning_free(&u);
}

// ----------------------------------------------------------------------------
// equal runs are equal to the bit

static uint64_t weights_hash(const Model *m) // of what trains, exactly
{
    real *x = xmalloc(m->master.n * sizeof *x);
    uint64_t h = 0;
    o->download(x, m->master);
    for (size_t i = 0; i < m->master.n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        h = mix64(h ^ bits) + 0x9e3779b97f4a7c15ull;
    }
    free(x);
    return h;
}

static bool check_identity(const Config *shape)
{
    const AdamW opt = {1e-3, 0.9, 0.95, 1e-8, 0.01, 1, 0, 0};
    uint64_t hash[2][3], before = 0;
    for (int run = 0; run < 3; run++) {
        Job j;
        Tuning u;
        job_create(&j, shape, TRAIN_ALL, tiny ? 2 : 8, tiny ? 16 : 256);
        before = weights_hash(&j.m);
        for (int i = 0; i < 3; i++) { job_gradient(&j); model_update(&j.m, &opt); }
        hash[0][run] = weights_hash(&j.m);
        job_free(&j);
        tuning_create(&u, shape, tiny ? 1 : 2, 8, tiny ? 4 : 40, false);
        for (int i = 0; i < 2; i++) ppo_iteration(&u.p);
        hash[1][run] = weights_hash(&u.m);
        tuning_free(&u);
    }
    bool same = true;
    for (int k = 0; k < 2; k++) {
        bool equal = hash[k][0] == hash[k][1] && hash[k][0] == hash[k][2];
        same = same && equal;
        printf("{\"what\":\"three runs of %s\",\"weights\":[\"%016llx\",\"%016llx\",\"%016llx\"],"
               "\"bit_identical\":%s}\n",
            k ? "two PPO iterations" : "three training steps", (unsigned long long)hash[k][0],
            (unsigned long long)hash[k][1], (unsigned long long)hash[k][2], equal ? "true" : "false");
    }
    if (hash[0][0] == before) die("gpu_bench: training changed no weight: a bug, please report it");
    return same;
}

int main(int argc, char **argv)
{
    static const char *const stages[] = {"training", "decode", "ppo", "cache", "pythia", "identity", "sentiment",
        "tldr"};
    enum { N = sizeof stages / sizeof *stages };
    bool run[N] = {false}, any = false, same = true;
    wait_by_sleeping(argv);
    for (int i = 1; i < argc; i++) {
        int k = 0;
        while (k < N && strcmp(argv[i], stages[k])) k++;
        if (k < N) run[k] = any = true;
        else if (!strcmp(argv[i], "--tiny")) tiny = true;
        else
            usage("gpu_bench: %s: it knows --tiny, training, decode, ppo, cache, pythia, identity, sentiment and tldr",
                argv[i]);
    }
    for (int k = 0; k < N && !any; k++) run[k] = true;
    o = ops_cuda(DT_BF16);
    const Config gpt2 = shape_of(gpt2_124m), pythia = shape_of(pythia_2_8b);
    static const size_t rows[] = {1, 8, 128, 1024};
    const size_t n_rows = tiny ? 2 : 4;
    bench_ceilings();
    if (run[0]) bench_training("GPT-2 124M training step", &gpt2, TRAIN_ALL, 4, tiny ? 16 : 64, true);
    if (run[0] && !tiny) bench_training("GPT-2 124M training step", &gpt2, TRAIN_ALL, 8, 1024, true);
    for (size_t i = 0; run[1] && i < n_rows; i++) bench_decode("GPT-2 124M decoding step", &gpt2, rows[i], 1, 8, 32);
    const long new = tiny ? 4 : 40;
    if (run[2]) bench_ppo("PPO iteration", &gpt2, tiny ? 1 : 2, 8, new, false);
    if (run[2]) bench_ppo("PPO iteration, all blocks", &gpt2, TRAIN_ALL, 8, new, false);
    if (run[3]) bench_cache(&gpt2);
    for (size_t i = 0; run[4] && i < n_rows; i++) bench_decode("Pythia 2.8B decoding step", &pythia, rows[i], 1, 8, 32);
    // a block of the TL;DR cache: the prompt's prefill is in it
    if (run[4]) bench_decode("Pythia 2.8B decoding step", &pythia, tiny ? 4 : 200, 1, tiny ? 8 : 512, tiny ? 4 : 53);
    // five at once
    if (run[4]) bench_decode("Pythia 2.8B decoding step", &pythia, tiny ? 8 : 1000, 5, tiny ? 8 : 512, tiny ? 4 : 53);
    if (run[4]) bench_reward("Pythia 2.8B reward model", &pythia, tiny ? 4 : 200, tiny ? 8 : 512, tiny ? 4 : 53);
    // a minibatch of TL;DR
    if (run[4]) bench_training("Pythia 2.8B forward and backward", &pythia, tiny ? 1 : 8, 4, tiny ? 16 : 565, false);
    if (run[5]) same = check_identity(&gpt2);
    if (run[6]) bench_sentiment(&gpt2);
    for (int all = 0; all < 2 && run[7]; all++) // policy and reward model of 2.8B, 128 prompts of 512 tokens
        bench_ppo(all ? "TL;DR PPO iteration, all blocks" : "TL;DR PPO iteration, top 8 blocks", &pythia,
            all ? TRAIN_ALL : tiny ? 1 : 8, tiny ? 8 : 512, tiny ? 4 : 53, true);
    (void)commands; (void)n_commands; (void)preset_flags; (void)flag_table; (void)n_flags;
    return same ? 0 : 1;
}
