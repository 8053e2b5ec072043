// cuda_test.h: ops_cuda against ops_cpu, op by op, over odd shapes; then whole models and PPO.
//
// Every test runs in float and in bfloat16. In bfloat16 weights and activations hold the same rounded numbers on
// both sides, the device computes with them as they are, and a limit is the float's plus what rounding the results
// costs (a bfloat16 has 8 bits: 2e-3 on average).
//
// Built with -DVBON_CUDA: by `make test_cuda` with nvcc, for a machine with a GPU, and by `make test_simt` with
// dev/cuda_on_cpu, for any machine. Each case runs once on the CPU and three times on the device. Before every run
// its outputs hold NaN (or, where an op adds to them, the same random numbers), the three runs must agree bit for
// bit, and the error is ||device - cpu|| / ||cpu|| over a whole output. An op that launched no kernel fails, so no
// entry of the table can be a copy of the CPU's.

size_t cuda_launches(void);

// One operand on both sides. What it holds before each run is `init`.
typedef struct { const char *name; Buf on[2]; void *init, *first; } Operand;
enum { OPERANDS = 32 };
static Operand operands[OPERANDS];
static size_t n_operands;
static const Ops *sides[2];
static int side; // 0: CPU, 1: device
static bool bf16; // the device's type

static size_t host_size(DType t) { return t == DT_BF16 ? sizeof(real) : dtype_size(t); }
static Operand *operand(const char *name, size_t n, DType type, const void *init) // init: n of them on the host, kept
{
    if (n_operands == OPERANDS) die("%s: more than %d operands", name, OPERANDS);
    Operand *x = &operands[n_operands++];
    *x = (Operand){.name = name, .init = xmalloc(n * host_size(type)), .first = xmalloc(n * host_size(type))};
    memcpy(x->init, init, n * host_size(type));
    for (side = 0; side < 2; side++) {
        x->on[side] = sides[side]->alloc(n, side == 0 && type == DT_BF16 ? DT_REAL : type, name);
        sides[side]->upload(x->on[side], init);
    }
    return x;
}

static Operand *random_of(DType type, const char *name, size_t n, double scale)
{
    real *v = xmalloc(n * sizeof *v);
    for (size_t i = 0; i < n; i++) {
        union { float f; uint32_t u; } x = {(float)(scale * rnd())};
        if (type == DT_BF16) x.u = (x.u + 0x8000) & 0xffff0000u;
        v[i] = (real)x.f;
    }
    Operand *x = operand(name, n, type, v);
    free(v);
    return x;
}
#define ACT (sides[1]->type)
// Weights, activations
static Operand *random_operand(const char *name, size_t n, double scale) { return random_of(ACT, name, n, scale); }
// Statistics, parameter gradients
static Operand *random_real(const char *name, size_t n, double scale) { return random_of(DT_REAL, name, n, scale); }

static Operand *poisoned(const char *name, size_t n, DType type)
{
    void *v = xmalloc(n * host_size(type));
    memset(v, 0xff, n * host_size(type));
    Operand *x = operand(name, n, type, v);
    free(v);
    return x;
}

static void operands_free(void)
{
    for (size_t i = 0; i < n_operands; i++) {
        for (int s = 0; s < 2; s++) sides[s]->release(&operands[i].on[s]);
        free(operands[i].init); free(operands[i].first);
    }
    n_operands = 0;
}

// Errors are relative to an output's root mean square; where that is to be 0, to this instead.
static double least_rms;
static double relative_error(const Operand *x)
{
    size_t n = x->on[0].n;
    real *a = xmalloc(n * sizeof *a), *b = xmalloc(n * sizeof *b);
    double d = 0, s = 0;
    sides[0]->download(a, x->on[0]); sides[1]->download(b, x->on[1]);
    for (size_t i = 0; i < n; i++) {
        d += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        s += (double)a[i] * (double)a[i];
    }
    free(a); free(b);
    return sqrt(d) / (fmax(sqrt(s), least_rms * sqrt((double)n)) + 1e-30);
}

// Before run 0..3 (0: CPU): every output holds what it held at first. After it: the
// device's runs are compared with the first of them.
static void before_run(int run, Operand **out, size_t n)
{
    side = run > 0;
    for (size_t i = 0; i < n; i++) if (out[i]->init) sides[side]->upload(out[i]->on[side], out[i]->init);
}
static void after_run(int run, const char *what, Operand **out, size_t n)
{
    for (size_t i = 0; i < n && run > 0; i++) {
        if (!out[i]->init) continue;
        size_t bytes = out[i]->on[1].n * host_size(out[i]->on[1].type);
        void *now = xmalloc(bytes);
        sides[1]->download(now, out[i]->on[1]);
        if (run == 1) memcpy(out[i]->first, now, bytes);
        else
            CHECK(!memcmp(out[i]->first, now, bytes), "%s: %s: run %d differs from the first", what, out[i]->name, run);
        free(now);
    }
}

#define ON(x) ((x)->on[side])
// CASE(what, tolerance, {outputs}, call): in `call`, o is the table and ON(x) an operand on its side.
#define CASE(what, tol, outputs, ...) do { \
        Operand *out_[] = outputs; \
        const size_t n_out = sizeof out_ / sizeof *out_; \
        for (int run_ = 0; run_ < 4; run_++) { \
            before_run(run_, out_, n_out); \
            const Ops *o = sides[side]; \
            size_t launched = cuda_launches(); \
            __VA_ARGS__; \
            CHECK(!side || !needs_kernel || cuda_launches() > launched, "%s launched no kernel", what); \
            after_run(run_, what, out_, n_out); \
        } \
        for (size_t i_ = 0; i_ < n_out; i_++) { \
            if (!out_[i_]->init || out_[i_]->on[0].type != DT_REAL) continue; \
            double e_ = relative_error(out_[i_]); \
            double limit_ = (tol) + (bf16 ? 4e-3 : 0); \
            CHECK(e_ <= limit_, "%s: %s: error %.3g, at most %g", what, out_[i_]->name, e_, limit_); \
        } \
    } while (0)
#define OUT(...) {__VA_ARGS__}
#define COMMA ,
static bool needs_kernel = true;

// All parameters side by side, without what pads the vocabulary on a device
static real *parameters_of(const Model *m)
{
    real *x = xmalloc(param_count(m, 0) * sizeof *x), *at = x;
    for (size_t i = 0; i < m->n_list; i++) { param_get(m, &m->list[i], at); at += m->list[i].n; }
    return x;
}

static void cuda_start(void) { sides[0] = ops_cpu(); sides[1] = ops_cuda(bf16 ? DT_BF16 : DT_F32); n_operands = 0; }
static void in_both(void (*test)(void)) { for (int b = 0; b < 2; b++) { bf16 = b; test(); } bf16 = false; }

static Operand *index_operand(const char *name, size_t n, size_t below) // random indices
{
    int *v = xmalloc(n * sizeof *v);
    for (size_t i = 0; i < n; i++) v[i] = (int)((rnd() * 0.5 + 0.5) * (double)below) % (int)below;
    Operand *x = operand(name, n, DT_I32, v);
    free(v);
    return x;
}

// Three ranges of n elements, or as many as there are, for AdamW: the second does not decay, and the element before
// it is in none. blocks: of MOMENT_BLOCK, in all
static Operand *ranges_operand(size_t n, size_t *blocks)
{
    ParamRange s[3];
    size_t count = 0;
    *blocks = 0;
    for (size_t at = 0; at < n && count < 3; count++) {
        size_t some = count < 2 ? (n - at + 2) / 3 : n - at;
        s[count] = (ParamRange){at, some, *blocks, count != 1};
        *blocks += moment_blocks(some);
        at += some + (count == 0);
    }
    return operand("ranges", count * sizeof *s, DT_U8, s);
}

// ----------------------------------------------------------------------------
// the ops

// A residual stream's additions and norms in one kernel: as on the CPU, and what add and layernorm_forward make one
// after the other, to the bit; the outputs lie over the inputs as in the model.
static void norm_tests(const char *what, size_t N, size_t C, Operand *d, Operand *w, Operand *b)
{
    Operand *sum = random_operand("a, then the sum", N * C, 1), *out[2] = {random_operand("b, then the norm", N * C, 1),
        poisoned("the other norm", N * C, ACT)}, *mean = poisoned("mean", N, DT_REAL),
            *rstd = poisoned("rstd", N, DT_REAL);
    size_t bytes = N * C * host_size(ACT);
    void *together = xmalloc(bytes), *apart = xmalloc(bytes);
    for (int kind = 0; kind < 3; kind++) { // a + b; a + (b + c); and with two norms
        Operand *written[] = {sum, out[0], out[1], mean, rstd};
        #define NORMS(name) \
            const Buf third_ = kind ? ON(d) : (Buf){0}; \
            Norm name[2] = {{ON(out[0]), ON(w), ON(b)}}; \
            if (kind == 2) name[1] = (Norm){ON(out[1]), ON(b), ON(w)}
        #define TOGETHER(norm) \
            o->add_layernorm(ON(sum), ON(mean), ON(rstd), norm, ON(sum), ON(out[0]), third_, N, C, 1e-5)
        least_rms = 2; // terms are rounded, and their sum or a mean may be near 0
        CASE(what, 2e-5, OUT(sum, out[0], mean, rstd), { NORMS(norm); TOGETHER(norm); });
        least_rms = 0;
        const Ops *o = sides[1];
        side = 1;
        NORMS(norm);
        for (int i = 0; i < 3; i++) { // of the stream and each norm
            if (i == 2 && kind < 2) continue;
            before_run(1, written, 5);
            TOGETHER(norm);
            o->download(together, ON(written[i]));
            before_run(1, written, 5);
            if (kind) o->add(ON(out[0]), ON(out[0]), ON(d), N * C);
            o->add(ON(sum), ON(sum), ON(out[0]), N * C);
            if (i)
                o->layernorm_forward(ON(out[0]), ON(mean), ON(rstd), ON(sum), norm[i - 1].w, norm[i - 1].b, N, C, 1e-5);
            o->download(apart, i ? ON(out[0]) : ON(sum));
            CHECK(!memcmp(together, apart, bytes), "%s, kind %d: %s is not what the ops apart make", what, kind,
                written[i]->name);
        }
        #undef NORMS
        #undef TOGETHER
    }
    free(together); free(apart);
}

static void cuda_layers_tests(void)
{
    static const struct { size_t N, C; } shapes[] = {
        {1, 1}, {1, 96}, {7, 13}, {33, 96}, {130, 64}, {5, 768}, {70, 257}, {300, 24}, {3, 2560}, {2, 4099}};
    cuda_start();
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        size_t N = shapes[k].N, C = shapes[k].C, V = 11, T = 9, R = (N + 1) / 2;
        char what[64];
        #define NAME(op) (snprintf(what, sizeof what, "%s (%zu,%zu)", op, N, C), what)
        Operand *x = random_operand("x", N * C, 1), *w = random_operand("w", C, 1), *b = random_operand("b", C, 1),
                *d = random_operand("dout", N * C, 1), *y = poisoned("out", N * C, ACT);
        Operand *mean = poisoned("mean", N, DT_REAL), *rstd = poisoned("rstd", N, DT_REAL),
                *dx = random_operand("dinp", N * C, 1), *dw = random_real("dw", C, 1), *db = random_real("db", C, 1);
        CASE(NAME("layernorm_forward"), 1e-5, OUT(y, mean, rstd),
            o->layernorm_forward(ON(y), ON(mean), ON(rstd), ON(x), ON(w), ON(b), N, C, 1e-5));
        norm_tests(NAME("add_layernorm"), N, C, d, w, b);
        if (C > 1024) { operands_free(); continue; } // for the norms' sake
        if (C > 1) {
            CASE(NAME("layernorm_backward"), 2e-5, OUT(dx, dw, db),
                o->layernorm_backward(ON(dx), ON(dw), ON(db), ON(d), ON(x), ON(w), ON(mean), ON(rstd), N, C));
            CASE(NAME("layernorm_backward, frozen"), 2e-5, OUT(dx),
                o->layernorm_backward(ON(dx), (Buf){0}, (Buf){0}, ON(d), ON(x), ON(w), ON(mean), ON(rstd), N, C));
        }
        for (int act = ACT_GELU_TANH; act <= ACT_RELU; act++) {
            CASE(NAME("activation_forward"), 1e-5, OUT(y), o->activation_forward(ON(y), ON(x), (Activation)act, N * C));
            CASE(NAME("activation_backward"), 1e-5, OUT(y),
                o->activation_backward(ON(y), ON(d), ON(x), (Activation)act, N * C));
        }
        CASE(NAME("add"), 1e-6, OUT(y), o->add(ON(y), ON(x), ON(d), N * C));
        Operand *p = random_real("p", N * C, 1), *g1 = random_real("g", N * C, 1), *m1 = random_real("m", N * C, 1),
                *m2 = random_real("v", N * C, 1);
        size_t blocks;
        Operand *ranges = ranges_operand(N * C, &blocks), *rounded = random_operand("rounded", N * C, 1);
        CASE(NAME("adamw"), 1e-5, OUT(p, m1, m2, rounded), {
            o->fill(ON(m2), 0.5);
            o->adamw(bf16 ? ON(rounded) : (Buf){0}, ON(p), ON(g1), ON(m1), ON(m2), ON(ranges), blocks, 1e-2, 0.9, 0.95,
                     1e-8, 0.1, 0.7, 3);
        });
        if (bf16) { // to the bit as by copy
            real *got[2];
            sides[1]->copy(y->on[1], p->on[1]);
            sides[1]->download(got[0] = xmalloc(N * C * sizeof(real)), y->on[1]);
            sides[1]->download(got[1] = xmalloc(N * C * sizeof(real)), rounded->on[1]);
            for (size_t i = 0; i < N * C; i++)
                CHECK(got[0][i] == got[1][i] || i == (N * C + 2) / 3, "element %zu of %zu: %.9g, copied %.9g", i, N * C,
                    (double)got[1][i], (double)got[0][i]);
            free(got[0]); free(got[1]);
        }
        double s[2] = {sides[0]->sumsq(g1->on[0]), sides[1]->sumsq(g1->on[1])};
        CHECK(fabs(s[0] - s[1]) <= 1e-9 * s[0], "sumsq: %.17g, %.17g", s[0], s[1]);
        if (bf16) CASE(NAME("copy of weights"), 0, OUT(y), o->copy(ON(y), ON(g1)));
        Operand *tokens = index_operand("tokens", N, V), *pos = index_operand("pos", N, T),
                *wte = random_operand("wte", V * C, 1), *wpe = random_operand("wpe", T * C, 1);
        Operand *dwte = random_real("dwte", V * C, 1), *dwpe = random_real("dwpe", T * C, 1);
        CASE(NAME("embed_forward"), 1e-6, OUT(y), o->embed_forward(ON(y), ON(tokens), ON(pos), ON(wte), ON(wpe), N, C));
        CASE(NAME("embed_forward, no positions"), 1e-6, OUT(y),
            o->embed_forward(ON(y), ON(tokens), ON(pos), ON(wte), (Buf){0}, N, C));
        CASE(NAME("embed_backward"), 1e-5, OUT(dwte, dwpe),
            o->embed_backward(ON(dwte), ON(dwpe), ON(d), ON(tokens), ON(pos), N, C));
        int *rows = xmalloc(R * sizeof *rows); // distinct
        for (size_t i = 0; i < R; i++) rows[i] = (int)(N - 1 - 2 * i);
        Operand *index = operand("index", R, DT_I32, rows), *g = poisoned("rows", R * C, ACT),
                *h = random_operand("rows", R * C, 1);
        free(rows);
        CASE(NAME("gather_rows"), 0, OUT(g), o->gather_rows(ON(g), ON(x), ON(index), R, C));
        CASE(NAME("scatter_rows"), 1e-6, OUT(dx), o->scatter_rows(ON(dx), ON(h), ON(index), R, C));
        operands_free();
    }
}

static void cuda_products_tests(void)
{
    static const struct { size_t N, C, OC; } shapes[] = {
        {1, 1, 1}, {1, 96, 96}, {7, 13, 5}, {33, 96, 100}, {130, 64, 1}, {9, 21, 1}, {1, 301, 70}, {40, 128, 257}};
    cuda_start();
    needs_kernel = false;
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        size_t N = shapes[k].N, C = shapes[k].C, OC = shapes[k].OC;
        char what[64];
        #undef NAME
        #define NAME(op) (snprintf(what, sizeof what, "%s (%zu,%zu,%zu)", op, N, C, OC), what)
        Operand *x = random_operand("x", N * C, 1), *w = random_operand("w", OC * C, 1),
                *b = random_operand("b", OC, 1), *d = random_operand("dout", N * OC, 1),
                *y = poisoned("out", N * OC, ACT);
        Operand *dx = poisoned("dinp", N * C, ACT), *dw = random_real("dw", OC * C, 1), *db = random_real("db", OC, 1);
        CASE(NAME("matmul_forward"), 1e-5, OUT(y), o->matmul_forward(ON(y), ON(x), ON(w), ON(b), N, C, OC));
        CASE(NAME("matmul_forward, no bias"), 1e-5, OUT(y), o->matmul_forward(ON(y), ON(x), ON(w), (Buf){0}, N, C, OC));
        CASE(NAME("matmul_backward"), 1e-5, OUT(dx, dw, db),
            o->matmul_backward(ON(dx), ON(dw), ON(db), ON(d), ON(x), ON(w), N, C, OC));
        CASE(NAME("matmul_backward, frozen"), 1e-5, OUT(dx),
            o->matmul_backward(ON(dx), (Buf){0}, (Buf){0}, ON(d), ON(x), ON(w), N, C, OC));
        Operand *score = poisoned("score", N * OC, DT_REAL), *dscore = random_real("dscore", N * OC, 1);
        CASE(NAME("matmul_forward, scores"), 1e-5, OUT(score),
            o->matmul_forward(ON(score), ON(x), ON(w), ON(b), N, C, OC));
        CASE(NAME("matmul_backward, scores"), 1e-5, OUT(dx, dw, db),
            o->matmul_backward(ON(dx), ON(dw), ON(db), ON(dscore), ON(x), ON(w), N, C, OC));
        operands_free();
    }
    needs_kernel = true;
}

static void cuda_attention_tests(void)
{
    static const struct { size_t NH, HS; int B, lengths[6]; } shapes[] = {
        {1, 16, 1, {1}}, {2, 16, 3, {1, 5, 2}}, {3, 32, 2, {70, 3}}, {1, 64, 3, {33, 64, 65}},
        {2, 80, 2, {40, 33}}, {1, 13, 4, {1, 1, 9, 17}}, {1, 128, 2, {31, 20}}, {1, 256, 2, {37, 6}},
    };
    cuda_start();
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        size_t NH = shapes[k].NH, HS = shapes[k].HS, B = (size_t)shapes[k].B, N = 0, C = NH * HS;
        int start[8] = {0};
        for (size_t b = 0; b < B; b++) { N += (size_t)shapes[k].lengths[b]; start[b + 1] = (int)N; }
        char what[64];
        #undef NAME
        #define NAME(op) (snprintf(what, sizeof what, "%s (N %zu, %zu heads of %zu)", op, N, NH, HS), what)
        Operand *qkv = random_operand("qkv", 3 * N * C, 2), *st = operand("start", B + 1, DT_I32, start),
                *y = poisoned("out", N * C, ACT), *lse = poisoned("lse", N * NH, DT_REAL);
        Operand *d = random_operand("dout", N * C, 1), *dqkv = poisoned("dqkv", 3 * N * C, ACT),
                *pos = index_operand("pos", N, 2000);
        for (int causal = 1; causal >= 0; causal--) {
            CASE(NAME(causal ? "attention_forward" : "attention_forward, full"), 1e-5, OUT(y, lse),
                o->attention_forward(ON(y), ON(lse), ON(qkv), ON(st), B, N, NH, HS, causal));
            CASE(NAME(causal ? "attention_backward" : "attention_backward, full"), 2e-5, OUT(dqkv),
                 o->attention_backward(ON(dqkv), ON(d), ON(y), ON(lse), ON(qkv), ON(st), B, N, NH, HS, causal));
        }
        if (bf16) { // what is float there, DistilBERT's, is half where tensor cores multiply: 10 bits instead of 7
            Operand *fine = random_real("qkv", 3 * N * C, 2), *out = poisoned("out", N * C, DT_REAL);
            bf16 = false;
            for (int causal = 1; causal >= 0; causal--)
                CASE(NAME("attention_forward of float"), 1e-3, OUT(out, lse),
                    o->attention_forward(ON(out), ON(lse), ON(fine), ON(st), B, N, NH, HS, causal));
            bf16 = true;
        }
        Operand *turned = random_operand("qkv", 3 * N * C, 1);
        CASE(NAME("rotary"), 1e-6, OUT(turned), o->rotary(ON(turned), ON(pos), N, NH, HS, HS / 4 * 2, 10000, false));
        CASE(NAME("rotary, inverse"), 1e-6, OUT(turned),
            o->rotary(ON(turned), ON(pos), N, NH, HS, HS / 2 * 2, 10000, true));
        operands_free();
    }
}

// Prompts into a prefix cache, then two steps of several tokens a row over it, slots in any
// order: as sampling and scoring on a prefix do.
static void cuda_decode_tests(void)
{
    static const struct { size_t NH, HS; } shapes[] = {{1, 13}, {2, 16}, {3, 64}, {2, 80}, {1, 128}, {2, 256}};
    cuda_start();
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        size_t NH = shapes[k].NH, HS = shapes[k].HS, C = NH * HS, T = 9, TP = 40, S = 5;
        char what[64];
        #undef NAME
        #define NAME(op) (snprintf(what, sizeof what, "%s (%zu heads of %zu)", op, NH, HS), what)
        int pstart[] = {0, 1, 38}, pslot[] = {1, 0}, zero[] = {0, 0, 0, 0}, start[] = {0, 3, 4, 8}, slot[] = {4, 0, 2},
            len[] = {3, 1, 4}, prefix_slot[] = {0, 1, 0}, prefix_len[] = {37, 1, 20};
        Operand *prompts = random_operand("qkv", 38 * 3 * C, 2), *step1 = random_operand("qkv", 8 * 3 * C, 2),
                *step2 = random_operand("qkv", 3 * 3 * C, 2);
        Operand *pkv = poisoned("prefix cache", 2 * TP * 2 * C, ACT), *kv = poisoned("cache", S * T * 2 * C, ACT);
        Operand *p_start = operand("start", 3, DT_I32, pstart), *p_slot = operand("slot", 2, DT_I32, pslot),
                *nothing = operand("len", 4, DT_I32, zero), *st = operand("start", 4, DT_I32, start);
        Operand *sl = operand("slot", 3, DT_I32, slot), *ln = operand("len", 3, DT_I32, len),
                *ps = operand("pslot", 3, DT_I32, prefix_slot), *pl = operand("plen", 3, DT_I32, prefix_len);
        int one[] = {0, 1, 2, 3};
        Operand *ones = operand("start", 4, DT_I32, one), *y0 = poisoned("out", 38 * C, ACT),
                *y1 = poisoned("out", 8 * C, ACT), *y2 = poisoned("out", 3 * C, ACT);
        CASE(NAME("attention_decode"), 1e-5, OUT(y0, y1, y2), {
            o->upload(ON(pkv), pkv->init); o->upload(ON(kv), kv->init);
            o->attention_decode(ON(y0), ON(pkv), ON(prompts), ON(p_start), ON(p_slot), (Buf){0}, TP, (Buf){0},
                (Buf){0}, (Buf){0}, 0, 2, 38, NH, HS);
            o->attention_decode(ON(y1), ON(kv), ON(step1), ON(st), ON(sl), ON(nothing), T, ON(pkv), ON(ps), ON(pl), TP,
                3, 8, NH, HS);
            o->attention_decode(ON(y2), ON(kv), ON(step2), ON(ones), ON(sl), ON(ln), T, ON(pkv), ON(ps), ON(pl), TP, 3,
                3, NH, HS);
        });
        operands_free();
    }
}

// So many rows that a warp sees to each head of each of them
static void cuda_many_rows_test(void)
{
    enum { B = 2050, T = 6, NH = 2, HS = 16, C = NH * HS };
    cuda_start();
    int one[B + 1], slot[B], old[B];
    for (int b = 0; b <= B; b++) one[b] = b;
    for (int b = 0; b < B; b++) { slot[b] = B - 1 - b; old[b] = b % T; }
    Operand *qkv = random_operand("qkv", B * 3 * C, 2), *kv = random_operand("cache", B * T * 2 * C, 1),
            *ones = operand("start", B + 1, DT_I32, one), *sl = operand("slot", B, DT_I32, slot),
            *ln = operand("len", B, DT_I32, old), *y = poisoned("out", B * C, ACT);
    CASE("attention_decode, many rows", 1e-5, OUT(y), {
        o->upload(ON(kv), kv->init);
        o->attention_decode(ON(y), ON(kv), ON(qkv), ON(ones), ON(sl), ON(ln), T, (Buf){0}, (Buf){0}, (Buf){0}, 0, B, B,
            NH, HS);
    });
    operands_free();
}

// Long prompts that many neighbours share, or few, or each its own: one token a row, as in decoding, and several, as in
// scoring. A prompt of no tokens is among them.
static void cuda_prefix_tests(void)
{
    enum { PROMPTS = 11, TP = 150, B = 70, T = 7, N_MOST = 3 * B };
    static const struct { size_t NH, HS; } shapes[] = {{2, 64}, {1, 80}, {1, 13}, {1, 256}};
    cuda_start();
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++)
        for (int kind = 0; kind < 3; kind++) { // all of one prompt but the last; three runs; each its own
            size_t NH = shapes[k].NH, HS = shapes[k].HS, C = NH * HS;
            char what[80];
            int plen[PROMPTS], slot[B], pslot[B], length[B], old[B], one[B + 1], three[B + 1];
            for (int p = 0; p < PROMPTS; p++) plen[p] = p == 2 ? 0 : p == 0 ? TP : 1 + 13 * p;
            for (int b = 0; b <= B; b++) { one[b] = b; three[b] = 3 * b; }
            for (int b = 0; b < B; b++) {
                pslot[b] = kind == 0 ? b == B - 1 : kind == 1 ? b < 5 ? 0 : b < 40 ? 2 : 3 : b % PROMPTS;
                length[b] = plen[pslot[b]];
                slot[b] = (b + 9) % B;
                old[b] = b % 4;
            }
            Operand *q1 = random_operand("qkv", B * 3 * C, 2), *q3 = random_operand("qkv", N_MOST * 3 * C, 2),
                    *pkv = random_operand("prefix cache", PROMPTS * TP * 2 * C, 1),
                    *kv = random_operand("cache", B * T * 2 * C, 1), *ones = operand("start", B + 1, DT_I32, one),
                    *threes = operand("start", B + 1, DT_I32, three), *sl = operand("slot", B, DT_I32, slot),
                    *ps = operand("pslot", B, DT_I32, pslot), *pl = operand("plen", B, DT_I32, length),
                    *ln = operand("len", B, DT_I32, old), *y1 = poisoned("out", B * C, ACT),
                    *y3 = poisoned("out", N_MOST * C, ACT), *whole = poisoned("out", N_MOST * C, ACT);
            snprintf(what, sizeof what, "attention_decode, long prompts %d (%zu heads of %zu)", kind, NH, HS);
            CASE(what, 1e-5, OUT(y1, y3, whole), {
                o->upload(ON(kv), kv->init);
                o->attention_decode(ON(y1), ON(kv), ON(q1), ON(ones), ON(sl), ON(ln), T, ON(pkv), ON(ps), ON(pl), TP,
                    B, B, NH, HS);
                o->attention_decode(ON(y3), ON(kv), ON(q3), ON(threes), ON(sl), ON(ln), T, ON(pkv), ON(ps), ON(pl),
                    TP, B, N_MOST, NH, HS);
                o->attention_decode(ON(whole), ON(kv), ON(q3), ON(threes), ON(sl), (Buf){0}, T, ON(pkv), ON(ps), ON(pl),
                    TP, B, N_MOST, NH, HS);
            });
            operands_free();
        }
}

// A head of one token knows what comes: what is normalised by a largest value of 0 elsewhere is looked at here.
static void only_zeros(const Operand *x, size_t n, const char *what)
{
    real *got = xmalloc(n * sizeof *got);
    for (int s = 0; s < 2; s++) {
        sides[s]->download(got, x->on[s]);
        for (size_t i = 0; i < n; i++)
            CHECK(fabs((double)got[i]) <= 1e-5, "%s, one token, side %d: %g", what, s, (double)got[i]);
    }
    free(got);
}

static void cuda_head_tests(void)
{
    // 1030 rows: two chunks
    static const struct { size_t R, C, V; } shapes[] = {
        {1, 1, 1}, {1, 8, 13}, {37, 16, 257}, {6, 8, 1000}, {1030, 4, 9}, {2, 8, 50257}};
    cuda_start();
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        size_t R = shapes[k].R, C = shapes[k].C, V = shapes[k].V;
        char what[64];
        #undef NAME
        #define NAME(op) (snprintf(what, sizeof what, "%s (%zu,%zu,%zu)", op, R, C, V), what)
        Operand *x = random_operand("x", R * C, 2), *w = random_operand("w", V * C, 1),
                *x2 = random_operand("x", R * C, 2), *w2 = random_operand("w", V * C, 1),
                *target = index_operand("target", R, V);
        Operand *logp = poisoned("logp", R, DT_REAL), *entropy = poisoned("entropy", R, DT_REAL),
                *dlogp = random_real("dlogp", R, 1), *dx = poisoned("dinp", R * C, ACT),
                *dw = random_real("dw", V * C, 0.1);
        double tol = 1e-5 + 4e-9 * (double)V; // the CPU sums a row in float
        least_rms = V == 1; // one token: everything is 0 (only_zeros)
        CASE(NAME("logprob_forward"), tol, OUT(logp, entropy),
            o->logprob_forward(ON(logp), ON(entropy), (Buf){0}, ON(x), ON(w), ON(target), 0.7, R, C, V));
        if (V == 1) { only_zeros(logp, R, "logp"); only_zeros(entropy, R, "entropy"); }
        CASE(NAME("logprob_forward, no entropy"), tol, OUT(logp),
            o->logprob_forward(ON(logp), (Buf){0}, (Buf){0}, ON(x), ON(w), ON(target), 1, R, C, V));
        CASE(NAME("logprob_backward"), tol, OUT(dx, dw, logp),
            o->logprob_backward(ON(dx), ON(dw), ON(logp), ON(dlogp), (Buf){0}, ON(x), ON(w), ON(target), 0.7, R, C, V));
        CASE(NAME("logprob_backward, frozen"), tol, OUT(dx),
            o->logprob_backward(ON(dx), (Buf){0}, (Buf){0}, ON(dlogp), (Buf){0}, ON(x), ON(w), ON(target), 0.7, R, C,
                V));
        if (R <= 1024) { // the backward from what the forward kept
            Operand *kept = poisoned("kept", R * ((V + 63) / 64 * 64), DT_REAL);
            CASE(NAME("logprob, kept"), tol, OUT(dx, dw, logp), {
                o->logprob_forward(ON(logp), (Buf){0}, ON(kept), ON(x), ON(w), ON(target), 0.7, R, C, V);
                o->logprob_backward(ON(dx), ON(dw), (Buf){0}, ON(dlogp), ON(kept), ON(x), ON(w), ON(target), 0.7, R, C,
                    V);
            });
            size_t K = V < 80 ? (V + 1) / 2 : 40; // some, or more than a warp has lanes
            int *some = xmalloc(R * K * sizeof *some);
            for (size_t i = 0; i < R * K; i++) some[i] = (int)((i / K * 31 + i % K) % V);
            Operand *among = operand("candidates", R * K, DT_I32, some), *chosen = poisoned("chosen", R * K, DT_I32),
                    *log_k = poisoned("candidates' logp", R * K, DT_REAL), *worth = random_real("worth", R * K, 1);
            free(some);
            CASE(NAME("candidate_logprobs"), tol, OUT(log_k),
                o->candidate_logprobs(ON(log_k), ON(among), false, ON(x), ON(w), 0.7, K, R, C, V));
            CASE(NAME("candidate_logprobs, the likeliest"), tol, OUT(log_k),
                o->candidate_logprobs(ON(log_k), ON(chosen), true, ON(x), ON(w), 0.7, K, R, C, V));
            CASE(NAME("candidate_logprobs, of those"), tol, OUT(log_k), { // what was written to token is what they are
                o->candidate_logprobs(ON(log_k), ON(chosen), true, ON(x), ON(w), 1, K, R, C, V);
                o->candidate_logprobs(ON(log_k), ON(chosen), false, ON(x), ON(w), 0.7, K, R, C, V);
            });
            CASE(NAME("all_actions_backward"), tol, OUT(dx, dw, worth), {
                o->logprob_forward(ON(logp), (Buf){0}, ON(kept), ON(x), ON(w), ON(target), 0.7, R, C, V);
                o->all_actions_backward(ON(dx), ON(dw), ON(logp), ON(dlogp), ON(kept), ON(x), ON(w), ON(target),
                    ON(among), ON(worth), 0.3, 0.1, 0.7, K, R, C, V);
            });
        }
        CASE(NAME("head_kl"), tol, OUT(logp), o->head_kl(ON(logp), ON(x), ON(w), ON(x2), ON(w2), 0.7, R, C, V));
        if (V == 1) only_zeros(logp, R, "KL");
        double *u = xmalloc(R * sizeof *u);
        for (size_t i = 0; i < R; i++) u[i] = i ? random_uniform(7, 1, k, i, 0) : 0.99999999999;
        Operand *uniform = operand("uniform", R, DT_F64, u), *token = poisoned("token", R, DT_I32),
                *at_ = poisoned("logp", R, DT_REAL);
        free(u);
        static const struct { long k; double p; } cuts[] = {{0, 1}, {5, 1}, {0, 0.7}, {7, 0.8}, {1, 1}};
        for (size_t c = 0; c < (R > 1000 || V > 10000 ? 1 : sizeof cuts / sizeof *cuts); c++) {
            // three equal runs; the log-probabilities are compared below, where the draws are equal
            CASE(NAME("sample"), INFINITY, OUT(token, at_),
                o->sample(ON(token), ON(at_), ON(x), ON(w), ON(uniform), 0.9, cuts[c].k, cuts[c].p, R, C, V));
            int *a = xmalloc(R * sizeof *a), *b = xmalloc(R * sizeof *b);
            real *la = xmalloc(R * sizeof *la), *lb = xmalloc(R * sizeof *lb);
            sides[0]->download(a, token->on[0]); sides[1]->download(b, token->on[1]);
            sides[0]->download(la, at_->on[0]); sides[1]->download(lb, at_->on[1]);
            size_t differ = 0;
            for (size_t i = 0; i < R; i++) { // a draw may differ where two tokens' intervals meet within rounding
                differ += a[i] != b[i];
                if (a[i] == b[i]) CHECK_NEAR(lb[i], la[i], 2 * tol, what);
                CHECK(b[i] >= 0 && (size_t)b[i] < V, "%s: token %d", what, b[i]);
            }
            CHECK(differ <= R / 100, "%s: top-k %ld, top-p %g: %zu of %zu draws differ", what, cuts[c].k, cuts[c].p,
                differ, R);
            free(a); free(b); free(la); free(lb);
        }
        operands_free();
    }
    least_rms = 0;
}

static void test_cuda_loss(void)
{
    cuda_start();
    for (size_t R = 1; R < 2000; R = R * 7 + 3) {
        Operand *dlogp = poisoned("dlogp", R, DT_REAL), *dvalue = poisoned("dvalue", R, DT_REAL), *x[6], *stats;
        for (int i = 0; i < 6; i++) x[i] = random_real("input", R, i < 2 ? 0.5 : 1);
        double s[8] = {1, 2, 3, 4, 5, 6, 7, 8}, got[2][8];
        stats = operand("stats", 8, DT_F64, s);
        #define LOSS(dv) o->ppo_loss(ON(dlogp), dv, ON(stats), ON(x[0]), ON(x[2]), ON(x[1]), ON(x[3]), ON(x[4]), \
            ON(x[5]), 0.1, 0.2, 0.2, 0.7, R)
        CASE("ppo_loss", 1e-6, OUT(dlogp, dvalue, stats), LOSS(ON(dvalue)));
        for (int i = 0; i < 2; i++) sides[i]->download(got[i], stats->on[i]);
        for (int i = 0; i < 8; i++)
            CHECK_NEAR(got[1][i], got[0][i], 1e-9 * (1 + fabs(got[0][i])), "ppo_loss: statistics");
        CASE("ppo_loss, no values", 1e-6, OUT(dlogp), LOSS((Buf){0}));
        operands_free();
    }
}

// AdamW with moments in 8 bits: the same draws, so the same codes and in bfloat16 the same rounded weights, but where a
// number lies so near to where it turns that rounding in float decides
static void cuda_adamw_8bit_tests(void)
{
    cuda_start();
    for (size_t n = 1; n < 20000; n = n * 9 + 5) {
        size_t blocks, differ = 0;
        Operand *ranges = ranges_operand(n, &blocks);
        const size_t pairs = 2 * blocks;
        uint8_t *codes = xmalloc(n), *got[2][2];
        real *scales = xmalloc(pairs * sizeof *scales), *w[2];
        for (size_t i = 0; i < n; i++) codes[i] = (uint8_t)(i * 37 + 11);
        for (size_t i = 0; i < pairs; i++) scales[i] = (real)(i % 2 ? 1e-8 : 1e-7);
        Operand *p = random_operand("p", n, 1), *g = random_real("g", n, 1), *m1 = operand("m", n, DT_U8, codes),
                *m2 = operand("v", n, DT_U8, codes), *scale = operand("scale", pairs, DT_REAL, scales);
        CASE("adamw_8bit", 1e-5, OUT(p, m1, m2, scale), {
            o->adamw_8bit(ON(p), ON(g), ON(m1), ON(m2), ON(scale), ON(ranges), blocks, 1e-2, 0.9, 0.95, 1e-8, 0.1,
                           0.7, 3, 12345, 77);
        });
        for (side = 0; side < 2; side++) {
            sides[side]->download(got[side][0] = xmalloc(n), m1->on[side]);
            sides[side]->download(got[side][1] = xmalloc(n), m2->on[side]);
            sides[side]->download(w[side] = xmalloc(n * sizeof(real)), p->on[side]);
        }
        for (size_t i = 0; i < n; i++) {
            for (int k = 0; k < 2; k++) {
                differ += got[0][k][i] != got[1][k][i];
                CHECK(abs(got[0][k][i] - got[1][k][i]) <= 1, "moment %d of %zu: code %d, on the device %d", k, i,
                    got[0][k][i], got[1][k][i]);
            }
            float exact = (float)w[0][i];
            float want = bf16 ? bf16_value(bf16_round_drawn(exact, hash_more(12345, 77 + i))) : exact;
            differ += bf16 && want != (float)w[1][i];
            CHECK_NEAR(w[1][i], want, fabs((double)want) * (bf16 ? 0x1p-7 : 1e-5) + 1e-7, "a weight");
        }
        CHECK(differ <= n / 500 + 1, "%zu of %zu numbers differ", differ, 3 * n);
        for (side = 0; side < 2; side++) { free(got[side][0]); free(got[side][1]); free(w[side]); }
        free(codes); free(scales);
        operands_free();
    }
}
static void test_cuda_adamw_8bit(void) { in_both(cuda_adamw_8bit_tests); }

// ----------------------------------------------------------------------------
// whole runs: two PPO iterations in the world of lib/world.h, on both sides, through the shipped loop

static void cuda_ppo_tests(void)
{
    cuda_start();
    World w;
    world_create(&w, false, 4);
    static int prompt_ids[1] = {1};
    // all trains; the top block, the frozen one below run once a rollout; jbond, whose anchor has moved when it draws
    // for the second time; the gradient over three tokens of each state
    for (int variant = 0; variant < 4; variant++) {
        enum { E = 40 };
        static const char *const names[] = {"all", "top block", "jbond", "all actions"};
        static const char *const flags[] = {"--n 4", "--n 4",
            "--objective jbond --anchor-rate 0.5 --critic others --lambda 1",
            "--n 4 --critic prefix-rank --all-actions 3"};
        long layers = variant == 1 ? 1 : TRAIN_ALL;
        Ppo p[2];
        Model m[2];
        Prompt prompt[2];
        Cdf cdf[2];
        for (side = 0; side < 2; side++) {
            world_model(&m[side], sides[side], layers, 3);
            uint64_t *keys = xmalloc(STRINGS * sizeof *keys);
            for (int i = 0; i < STRINGS; i++) keys[i] = w.y[i].key;
            prompt[side] = (Prompt){.ids = prompt_ids, .n = 1};
            cdf[side] = (Cdf){.M = STRINGS, .reward = w.reward, .key = keys};
            Args a;
            PpoOptions opt = world_told(&a,
                "%s --fhat digamma --rollout %d --episodes %d --minibatch 24 --ppo-epochs 2", flags[variant], E, 2 * E);
            opt.tokens = 40;
            ppo_create(&p[side], &opt, &m[side], &prompt[side], &cdf[side], 1, world_reward, &w);
            p[side].score_candidates = world_candidates;
        }
        size_t differ = 0, drawn = 0;
        for (int iteration = 0; iteration < 2; iteration++) {
            for (side = 0; side < 2; side++) ppo_iteration(&p[side]);
            for (size_t i = 0; i < E; i++) {
                const Response *a = &p[0].rollout.y[i], *b = &p[1].rollout.y[i];
                for (size_t t = 0; t < a->n && t < b->n; t++) { drawn++; differ += a->ids[t] != b->ids[t]; }
            }
            for (size_t i = 0; i < E * p[0].anchor.K; i++) {
                drawn++;
                differ += p[0].anchor.key[i] != p[1].anchor.key[i];
            }
            for (size_t k = 0; k < p[0].n_metrics && !differ && !bf16; k++) {
                const char *key = p[0].metrics[k].key;
                if (!strncmp(key, "time/", 5) || !strcmp(key, "val/logp_gap") || !strcmp(key, "val/ratio_var") ||
                    !strcmp(key, "policy/approxkl_avg"))
                    continue;
                double a = metric(&p[0], key), b = metric(&p[1], key);
                if (variant == 2 && isnan(a) && isnan(b)) continue; // jbond has no N to be at a distance from
                CHECK(fabs(a - b) <= 1e-3 * fabs(a) + 1e-4, "variant %d, iteration %d: %s: CPU %.9g, device %.9g",
                    variant, iteration, key, a, b);
            }
        }
        CHECK(differ <= drawn / (bf16 ? 10 : 100), "variant %d: %zu of %zu draws differ", variant, differ, drawn);
        real *x[2], d = 0, s = 0;
        for (side = 0; side < 2; side++) {
            x[side] = parameters_of(&m[side]);
        }
        for (size_t i = 0; i < param_count(&m[0], 0); i++) {
            d += (x[0][i] - x[1][i]) * (x[0][i] - x[1][i]); s += x[0][i] * x[0][i];
            if (i < m[0].first && !bf16) CHECK(x[0][i] == x[1][i], "frozen parameter %zu moved", i);
        }
        CHECK(sqrt((double)(d / s)) <= (bf16 ? 3e-2 : differ ? 1e-2 : 3e-4),
            "variant %d: parameters after two iterations differ by %.3g", variant, sqrt((double)(d / s)));
        printf("    %s, %s: %zu of %zu draws differ, parameters by %.2g\n", bf16 ? "bf16" : "fp32",
            names[variant], differ, drawn, sqrt((double)(d / s)));
        for (side = 0; side < 2; side++) {
            ppo_free(&p[side]);
            model_free(&m[side]);
            free(cdf[side].key);
            free(x[side]);
        }
    }
}

// `vbon world --device cuda`: what is listed there is what the CPU lists, at the start and after two iterations.
static void cuda_world_tests(void)
{
    static WorldRun r[2];
    Metric x[2][WORLD_METRICS];
    Args a;
    PpoOptions opt = world_told(&a, "--objective l --beta 0.4 --seed 2 --rollout 64 --minibatch 32 --ppo-epochs 2");
    cuda_start();
    for (side = 0; side < 2; side++) {
        world_open(&r[side], sides[side], &opt, a.ties, 0);
        for (int i = 0; i < 2; i++) ppo_iteration(&r[side].ppo);
        world_measure(&r[side], x[side]);
    }
    double reference = variation(r[0].w.logp, r[1].w.logp), policy = variation(r[0].pi, r[1].pi);
    CHECK(reference <= (bf16 ? 1e-2 : 1e-5), "the reference differs by %.3g in total variation", reference);
    CHECK(policy <= (bf16 ? 0.1 : 1e-3), "the policy after two iterations differs by %.3g in total variation", policy);
    CHECK(r[1].goal == BEST_L, "on the device it leads to %s", optima[r[1].goal].name);
    CHECK(x[1][2].value > 0.01 + policy, "it moved by %.3g from the reference", x[1][2].value);
    printf("    %s: total variation between the sides: reference %.2g, policy %.2g, which moved by %.2g\n",
        bf16 ? "bf16" : "fp32", reference, policy, x[1][2].value);
    for (side = 0; side < 2; side++) world_close(&r[side]);
}

// Three steps of each offline loss, the reference's log-probabilities taken on the same side
static void cuda_offline_tests(void)
{
    cuda_start();
    for (int kind = 0; kind < 4; kind++) {
        const size_t which[2] = {1, 0};
        OfflineLoss o = {.kind = (OfflineKind)kind, .beta = 0.5, .alpha = 0.2, .N = 2};
        double sums[2][OFFLINE_SUMS] = {{0}}, d = 0, s = 0;
        real *x[2];
        for (side = 0; side < 2; side++) {
            Model m;
            Pass pass;
            Comparisons c = tiny_comparisons();
            Config config = tiny_config(13, kind % 2, false);
            model_create(&m, sides[side], &config, kind < 2 ? TRAIN_ALL : 1, false, false);
            model_random(&m, 5);
            pass_create(&pass, &m, 16, true);
            comparisons_reference(&c, &pass, 0, arrlenu(c.sequences), 0.8);
            for (int step = 0; step < 3; step++) {
                // a large eps: steps in proportion to gradients, so that rounding stays as small as it is
                AdamW opt = {1e-3, 0.9, 0.95, 1e-4, 0, 1, 0, 0};
                model_zero_grad(&m);
                offline_batch(&pass, &o, &c, which, 2, 2, 0.8, sums[side]);
                model_update(&m, &opt);
            }
            x[side] = parameters_of(&m);
            for (size_t i = 0; i < param_count(&m, 0) && side; i++) {
                d += pow((double)(x[0][i] - x[1][i]), 2);
                s += pow((double)x[0][i], 2);
            }
            tiny_comparisons_free(&c);
            pass_free(&pass); model_free(&m);
        }
        for (int k = 0; k < OFFLINE_SUMS; k++)
            CHECK(fabs(sums[0][k] - sums[1][k]) <= (bf16 ? 0.3 : 1e-3) * (1 + fabs(sums[0][k])) || k == OFFLINE_RIGHT,
                "loss %d, sum %d: CPU %g, device %g", kind, k, sums[0][k], sums[1][k]);
        CHECK(sqrt(d / s) <= (bf16 ? 1e-2 : 1e-5), "loss %d: parameters after three steps differ by %.3g", kind,
            sqrt(d / s));
        free(x[0]); free(x[1]);
    }
}

// The DistilBERT fixture: logits and probabilities of texts of several lengths, one of them over the context, a few
// rows at a time and all at once. It computes in fp32 in both of the device's types, in bfloat16 runs with products in
// TF32.
static void cuda_distilbert_tests(void)
{
    const char *texts[16];
    double score[2][16];
    json_t *lines[16];
    size_t n = 0;
    Jsonl in;
    cuda_start();
    jsonl_open(&in, "dev/fixtures/distilbert/expected.jsonl");
    for (; jsonl_next(&in, &lines[n]); n++) texts[n] = jsonl_string(&in, lines[n], "text", true);
    jsonl_close(&in);
    for (size_t tokens = 32; tokens <= 512; tokens *= 16)
        for (int probability = 0; probability < 2; probability++) {
            for (side = 0; side < 2; side++) {
                DistilBert d;
                size_t launched = cuda_launches();
                distilbert_load(&d, sides[side], "dev/fixtures/distilbert", tokens, false);
                distilbert_score(&d, texts, score[side], n, probability);
                CHECK(side == (cuda_launches() > launched), "side %d: kernels were launched, or none was", side);
                distilbert_free(&d);
            }
            for (size_t i = 0; i < n; i++)
                CHECK_NEAR(score[1][i], score[0][i], (bf16 ? 3e-3 : 1e-5) * fmax(1, fabs(score[0][i])), texts[i]);
        }
    for (size_t i = 0; i < n; i++) json_decref(lines[i]);
}
// The same files have the same fingerprint in both of the device's types as on the CPU, whatever of them trains; and a
// tied head that is also stored is known as such.
static void cuda_files_tests(void)
{
    static const char *const dirs[] = {"dev/fixtures/variants/fp32", "dev/fixtures/pythia_tiny",
        "dev/fixtures/variants/pythia_old", "dev/fixtures/variants/old"};
    cuda_start();
    for (size_t k = 0; k < sizeof dirs / sizeof *dirs; k++) {
        static const long train[] = {TRAIN_NONE, 1, TRAIN_ALL};
        uint64_t of[2][3];
        for (side = 0; side < 2; side++)
            for (int i = 0; i < 3; i++) {
                Model m;
                model_load(&m, sides[side], dirs[k], train[i], false);
                of[side][i] = model_fingerprint(&m);
                model_free(&m);
            }
        for (int i = 0; i < 6; i++)
            CHECK(of[i / 3][i % 3] == of[0][0], "%s: fingerprint, %s, train layers %ld", dirs[k],
                i / 3 ? "device" : "CPU", train[i % 3]);
    }
}

static void test_cuda_prefix(void)
{
    in_both(cuda_prefix_tests);
    in_both(cuda_many_rows_test);
}
static void test_cuda_files(void) { in_both(cuda_files_tests); }
static void test_cuda_distilbert(void) { in_both(cuda_distilbert_tests); }
static void test_cuda_world(void) { in_both(cuda_world_tests); }
static void test_cuda_offline(void) { in_both(cuda_offline_tests); }
static void test_cuda_layers(void) { in_both(cuda_layers_tests); }
static void test_cuda_products(void) { in_both(cuda_products_tests); }
static void test_cuda_attention(void) { in_both(cuda_attention_tests); }
static void test_cuda_decode(void) { in_both(cuda_decode_tests); }
static void test_cuda_head(void) { in_both(cuda_head_tests); }
static void cuda_recompute_tests(void) { cuda_start(); recompute_on(sides[1], 7); }
static void cuda_resume_8bit_tests(void) { cuda_start(); resume_8bit(sides[1]); }
static void cuda_parts_tests(void) { cuda_start(); states_in_parts(sides[1]); }
static void test_cuda_parts(void) { in_both(cuda_parts_tests); }
static void test_cuda_resume_8bit(void) { in_both(cuda_resume_8bit_tests); }
static void test_cuda_recompute(void) { in_both(cuda_recompute_tests); }
static void test_cuda_ppo(void) { in_both(cuda_ppo_tests); }

// A decoding step is recorded as a graph and replayed: three times the same draws, all equal to the CPU's.
static void test_cuda_regions(void)
{
    enum { N = 40 };
    int ids[3][4] = {{3}, {4, 5, 6, 7}, {9, 1}};
    Prompt p[3] = {{.ids = ids[0], .n = 1}, {.ids = ids[1], .n = 4}, {.ids = ids[2], .n = 2}};
    Response r[4][N];
    Config c = tiny_config(13, true, false);
    cuda_start();
    for (side = 0; side < 2; side++) {
        Model m;
        Generator g = {0};
        Arena work = {.name = "work", .o = sides[side]};
        Sampling s = {.temperature = 0.8, .top_p = 1, .seed = 5, .stream = STREAM_SAMPLE, .eos = 0};
        model_create(&m, sides[side], &c, TRAIN_NONE, false, false);
        model_random(&m, 5);
        for (int pass = 0; pass < 2; pass++) {
            if (pass) arena_place(&work);
            generator_carve(&g, &m, &work, N, N, 64, 4, 8);
        }
        model_pack(&m);
        for (int run = 0; run < (side ? 3 : 1); run++) {
            size_t before = cuda_launches();
            for (size_t i = 0; i < N; i++) r[side + run][i] = (Response){.prompt = i / 5 % 3, .sample = i};
            generate(&g, &s, p, r[side + run], N);
            if (side) printf("    run %d: %zu launches\n", run + 1, cuda_launches() - before);
        }
        generator_free(&g); arena_release(&work); model_free(&m);
    }
    for (size_t i = 0; i < N; i++) {
        for (int run = 1; run < 4; run++) {
            CHECK(r[run][i].n == r[0][i].n && !memcmp(r[run][i].ids, r[0][i].ids, r[0][i].n * sizeof(int)),
                "response %zu, run %d", i, run);
            CHECK(!memcmp(r[run][i].logp, r[1][i].logp, r[1][i].n * sizeof(float)),
                "response %zu: a replay's log-probabilities differ", i);
        }
        for (int k = 0; k < 4; k++) response_free(&r[k][i]);
    }
}

// NCCL with a communicator of one: what is sent to itself arrives, and a sum over all is what it was.
static void test_cuda_nccl(void)
{
    enum { N = 100003 };
    cuda_start();
    const Ops *o = sides[1];
    if (!o->exchange || !strcmp(cuda_limits().name, "CUDA on the CPU")) {
        skip = o->exchange ? "the device is emulated" : "this build has none";
        return;
    }
    Buf a = o->alloc(N, DT_F32, "sent"), b = o->alloc(N, DT_F32, "received");
    float *x = xmalloc(N * sizeof *x), *y = xmalloc(N * sizeof *y);
    for (size_t i = 0; i < N; i++) x[i] = (float)random_uniform(1, 1, 0, i, 0);
    o->upload(a, x);
    o->fill(b, 0);
    CHECK(o->exchange(b, a, 0) && o->all_reduce(b), "NCCL was not used");
    o->download(y, b);
    CHECK(!memcmp(x, y, N * sizeof *x), "what was sent did not arrive");
    o->release(&a); o->release(&b);
    free(x); free(y);
}
