// model_test.h: GPT-2, Pythia and the head against transformers and torch; decoding, sampling, freezing.

static double *tensor_doubles(Safetensors *s, const char *name)
{
    const Tensor *t = safetensors_find(s, name);
    if (!t) die("fixture has no %s", name);
    double *x = xmalloc(t->n * sizeof *x);
    tensor_read(x, t, name);
    for (size_t i = 0; i < t->n && t->type == DT_I64; i++) { int64_t k; memcpy(&k, x + i, sizeof k); x[i] = (double)k; }
    return x;
}

// Relative to the tensor's largest entry: double reproduces float64 transformers, float rounds
static void check_tensor(const char *what, const real *got, const double *want, size_t n, double tol)
{
    double largest = 0, worst = 0;
    for (size_t i = 0; i < n; i++) largest = fmax(largest, fabs(want[i]));
    for (size_t i = 0; i < n; i++) worst = worse(worst, fabs((double)got[i] - want[i]));
    CHECK(worst <= tol * largest, "%s: off by %g of the largest, %g (tolerance %g)", what, worst / largest, largest,
        tol);
}

static void golden_folder(const char *name)
{
    char *dir = format("dev/fixtures/%s", name), *expected = format("%s/expected.safetensors", dir);
    Safetensors *s = safetensors_open(expected);
    double *ids = tensor_doubles(s, "ids"), *start = tensor_doubles(s, "start"), tol = in_double ? 1e-9 : 2e-4,
           total = 0;
    Model m;
    Pass p;
    model_load(&m, ops_cpu(), dir, TRAIN_ALL, false);
    pass_create(&p, &m, 64, true);
    Corpus c = {.kind = m.cfg.scalar_head ? LOSS_LABEL : LOSS_LM, .n_rows = 3};
    const float labels[3] = {1, 0, 1};
    for (int i = 0; i < 24; i++) arrput(c.tokens, (int)ids[i]);
    for (int r = 0; r < 3; r++) { // a row of one token has nothing to predict, but its hidden state is compared below
        size_t len = (size_t)(start[r + 1] - start[r]);
        arrput(c.rows, ((Row){(size_t)start[r], (int)len, m.cfg.scalar_head ? (int)len - 1 : 1, labels[r]}));
        total += m.cfg.scalar_head ? 1 : (double)len - 1;
    }
    size_t rows[3] = {0, 1, 2};
    double score[3];
    model_zero_grad(&m);
    double loss = supervised_batch(&p, &c, rows, 3, total, true, score) / total, *want_loss = tensor_doubles(s, "loss");
    CHECK_NEAR(loss, *want_loss, tol * fabs(*want_loss), "loss");
    if (m.cfg.scalar_head) {
        double *want = tensor_doubles(s, "score");
        for (int r = 0; r < 3; r++) CHECK_NEAR(score[r] - m.cfg.score_shift, want[r], tol * 5, "score");
    } else {
        double *hidden = tensor_doubles(s, "hidden"), *logits = tensor_doubles(s, "logits");
        real *got = xmalloc(24 * m.cfg.V * sizeof *got);
        int starts[4];
        for (int r = 0; r < 4; r++) starts[r] = (int)start[r];
        batch_set(&p.batch, &m, c.tokens, starts, NULL, 3); // each row whole: training does not read its last token
        Buf all = model_forward(&m, &m.p, &p.acts, &p.batch, 0, m.cfg.L, NULL);
        check_tensor("hidden", R_(all), hidden, 24 * m.cfg.C, tol);
        gemm(false, true, 24, m.cfg.V, m.cfg.C, R_(all), m.cfg.C, R_(head_weight(&m.p)), m.cfg.C, 0, got,
            m.cfg.V);
        check_tensor("logits", got, logits, 24 * m.cfg.V, tol);
    }
    for (size_t i = 0; i < m.n_list; i++) {
        const Param *q = &m.list[i];
        char key[128];
        const char *prefix = q->flags & P_HEAD ? "" : m.cfg.score_bias ? backbone : m.cfg.arch->prefix;
        snprintf(key, sizeof key, "grad.%s%s", prefix, q->name);
        double *want = tensor_doubles(s, key);
        real *g = xmalloc(q->n * sizeof *g);
        to_file_layout(&m, m.o, q, *param_field(&m.g, q), g);
        check_tensor(key, g, want, q->n, tol);
        free(want); free(g);
    }
    pass_free(&p); model_free(&m); corpus_free(&c);
    safetensors_close(s);
}

// A classifier's score of texts with its padding token, which may well be the end-of-text
// token, wherever prompt ends and response begins
static void golden_padded(const char *name)
{
    char *dir = format("dev/fixtures/%s", name), *expected = format("%s/expected.safetensors", dir);
    Safetensors *s = safetensors_open(expected);
    double *ids = tensor_doubles(s, "padded_ids"), *start = tensor_doubles(s, "padded_start"),
           *want = tensor_doubles(s, "padded_score");
    size_t rows = safetensors_find(s, "padded_score")->n;
    Reward r = {.same_tokenizer = true, .scale = 1, .to = -1, .from = -1, .tokens = 64};
    model_load(&r.m, ops_cpu(), dir, TRAIN_NONE, false);
    model_pack(&r.m);
    r.work = (Arena){.name = "reward model", .o = ops_cpu()};
    CHECK(rows == 6, "%zu texts", rows);
    for (size_t i = 0; i < rows; i++) {
        enum { MOST = 16 };
        int text[MOST];
        size_t n = (size_t)(start[i + 1] - start[i]);
        Prompt p[MOST];
        Response y[MOST] = {{0}};
        for (size_t k = 0; k < n; k++) text[k] = (int)ids[(size_t)start[i] + k];
        for (size_t split = 0; split < n; split++) {
            p[split] = (Prompt){.ids = text, .n = split};
            y[split] = (Response){.prompt = split, .ids = text + split, .n = n - split};
        }
        reward_assign(&r, p, y, n, true);
        for (size_t split = 0; split < n; split++) {
            // rewards are kept as floats
            CHECK_NEAR(y[split].reward, want[i], in_double ? 2e-7 * fabs(want[i]) : 2e-4, name);
            for (size_t t = split; t < n; t++) { // the score of every prefix is the reward of that text
                double prefix = y[split].prefix[t - split];
                if (t) {
                    y[0].n = t;
                    double *keep = y[0].prefix;
                    reward_assign(&r, p, y, 1, false);
                    y[0].prefix = keep;
                    CHECK_NEAR(prefix, y[0].reward, in_double ? 1e-6 : 2e-4, name);
                }
            }
        }
        for (size_t split = 0; split < n; split++) free(y[split].prefix);
    }
    acts_free(&r.acts); kv_free(&r.prompts); kv_free(&r.own); arena_release(&r.work); model_free(&r.m);
    free(ids); free(start); free(want); free(dir); free(expected);
    safetensors_close(s);
}

static void test_golden(void)
{
    golden_folder("gpt2_tiny");
    golden_folder("gpt2_untied");
    golden_folder("gpt2_reward");
    golden_folder("pythia_tiny");
    golden_folder("pythia_sequential");
    golden_folder("pythia_reward");
    golden_folder("pythia_cleanrl");
    golden_padded("gpt2_reward");
    golden_padded("pythia_reward");
    // every way of storing the same weights; logits as transformers computes them from the rounded ones
    const char *names[] = {"fp64", "fp32", "fp16", "bf16"};
    for (int v = 0; v < 4; v++) {
        char *dir = format("dev/fixtures/variants/%s", names[v]), *expected = format("%s/expected.safetensors", dir);
        Safetensors *s = safetensors_open(expected);
        Model m;
        Pass p;
        model_load(&m, ops_cpu(), dir, TRAIN_NONE, false);
        pass_create(&p, &m, 16, false);
        int ids[7], start[2] = {0, 7};
        double *x = tensor_doubles(s, "ids"), *want = tensor_doubles(s, "logits");
        real got[7 * 13];
        for (int i = 0; i < 7; i++) ids[i] = (int)x[i];
        batch_set(&p.batch, &m, ids, start, NULL, 1);
        Buf h = model_forward(&m, &m.p, &p.acts, &p.batch, 0, 1, NULL);
        gemm(false, true, 7, 13, 8, R_(h), 8, R_(m.p.wte), 8, 0, got, 13);
        check_tensor(names[v], got, want, 7 * 13, in_double ? 1e-9 : 1e-5);
        pass_free(&p); model_free(&m); safetensors_close(s);
    }
    Model a, b, c;
    model_load(&a, ops_cpu(), "dev/fixtures/variants/fp32", TRAIN_NONE, false);
    model_load(&b, ops_cpu(), "dev/fixtures/variants/sharded", TRAIN_NONE, false);
    model_load(&c, ops_cpu(), "dev/fixtures/variants/old", TRAIN_NONE, false);
    CHECK(model_fingerprint(&a) == model_fingerprint(&b) && model_fingerprint(&a) == model_fingerprint(&c),
        "shards, old names and masks hold the same weights");
    model_free(&a); model_free(&b); model_free(&c);
    model_load(&a, ops_cpu(), "dev/fixtures/pythia_tiny", TRAIN_NONE, false);
    model_load(&b, ops_cpu(), "dev/fixtures/variants/pythia_old", TRAIN_NONE, false);
    CHECK(model_fingerprint(&a) == model_fingerprint(&b),
        "transformers 4's spelling, shards, no prefix and old buffers: the same model");
    model_free(&a); model_free(&b);
}

static void test_head(void)
{
    Safetensors *s = safetensors_open("dev/fixtures/head.safetensors");
    const char *names[] = {"hp", "hq", "wp", "wq", "dlogp"};
    const size_t n[] = {30, 30, 66, 66, 5};
    Buf b[5];
    double tol = in_double ? 1e-12 : 2e-5, *target = tensor_doubles(s, "target");
    for (int i = 0; i < 5; i++) b[i] = buf_of(tensor_doubles(s, names[i]), n[i]);
    int t[5];
    for (int i = 0; i < 5; i++) t[i] = (int)target[i];
    Buf ti = new_index(5, t), logp = new_buf(5), entropy = new_buf(5), kl = new_buf(5), dx = new_buf(30),
        dw = zeros(66);
    cpu_logprob_forward(logp, entropy, (Buf){0}, b[0], b[2], ti, 0.7, 5, 6, 11);
    cpu_head_kl(kl, b[0], b[2], b[1], b[3], 0.7, 5, 6, 11);
    check_tensor("log-probability", R_(logp), tensor_doubles(s, "logp"), 5, tol);
    check_tensor("entropy", R_(entropy), tensor_doubles(s, "entropy"), 5, tol);
    check_tensor("KL", R_(kl), tensor_doubles(s, "kl"), 5, tol);
    cpu_logprob_backward(dx, dw, (Buf){0}, b[4], (Buf){0}, b[0], b[2], ti, 0.7, 5, 6, 11);
    check_tensor("input gradient", R_(dx), tensor_doubles(s, "dhp"), 30, tol);
    check_tensor("weight gradient", R_(dw), tensor_doubles(s, "dwp"), 66, tol);
    safetensors_close(s);
}

// ----------------------------------------------------------------------------
// decoding

static void draw_tiny(Model *m, Prompt *p, Response *r, size_t n, size_t rows, size_t tokens, double temperature)
{
    Generator g = {0};
    Arena work = {.name = "work", .o = m->o};
    for (int pass = 0; pass < 2; pass++) {
        if (pass) arena_place(&work);
        // of few rows fewer prompts than they have
        generator_carve(&g, m, &work, rows, rows < 10 ? 2 : rows, tokens, 4, 8);
    }
    model_pack(m);
    Sampling s = {.temperature = temperature, .top_p = 1, .seed = 5, .stream = STREAM_SAMPLE, .eos = 0};
    generate(&g, &s, p, r, n);
    generator_free(&g); arena_release(&work);
}

static void decode_one(int which)
{
    Config c = tiny_of(which, 13, true, false);
    Model m;
    model_create(&m, ops_cpu(), &c, TRAIN_NONE, false, false);
    model_random(&m, 5);
    int ids[3][4] = {{3}, {4, 5, 6, 7}, {9, 1}};
    Prompt p[3] = {{.ids = ids[0], .n = 1}, {.ids = ids[1], .n = 4}, {.ids = ids[2], .n = 2}};
    enum { N = 50 };
    Response r[N], again[N];
    size_t finished = 0, long_ones = 0;
    for (size_t i = 0; i < N; i++) r[i] = again[i] = (Response){.prompt = i / 5 % 3, .sample = i};
    draw_tiny(&m, p, r, N, N, 64, 0.8);
    draw_tiny(&m, p, again, N, 7, 8, 0.8); // other groups, other chunks of prompts
    Pass s;
    pass_create(&s, &m, 40, false);
    double tol = in_double ? 1e-11 : 2e-4;
    for (size_t i = 0; i < N; i++) {
        Sequence q = sequence_of(&p[r[i].prompt], &r[i]);
        double lp[16];
        CHECK(r[i].n == again[i].n && !memcmp(r[i].ids, again[i].ids, r[i].n * sizeof(int)),
            "response %zu depends on the batching", i);
        sequence_logps(&s, &m.p, &q, 1, 0.8, lp, NULL);
        for (size_t t = 0; t < r[i].n; t++) {
            CHECK_NEAR((double)r[i].logp[t], lp[t], fmax(tol, 1e-6),
                "log-probability at sampling and in a full forward");
            CHECK((r[i].ids[t] == 0) == (t + 1 == r[i].n && r[i].finished), "cut after the first end of text");
        }
        finished += r[i].finished; long_ones += r[i].n == 8;
        CHECK(r[i].key == order_key(r[i].ids, r[i].n), "key");
    }
    CHECK(finished > 5 && long_ones > 5, "both ends occur: %zu finished, %zu full", finished, long_ones);
    for (size_t i = 0; i < N; i++) { response_free(&r[i]); response_free(&again[i]); }
    pass_free(&s); model_free(&m);
}

static void test_decode(void) { for (int i = 0; i < TINIES; i++) decode_one(i); }

static int descending(const void *a, const void *b) { return -ascending(a, b); }

// The smallest weight that top-k and top-p keep, beside what sorting says, with many ties and with none.
static void test_cut(void)
{
    enum { MOST = 700 };
    real e[MOST];
    double sorted[MOST];
    for (int trial = 0; trial < 400; trial++) {
        size_t V = 1 + (size_t)(random_uniform(8, 1, (uint64_t)trial, 0, 0) * MOST), keep = V;
        static const double spreads[] = {0.1, 8, 60};
        double levels = trial % 4 == 0 ? 5 : 1e7, spread = spreads[trial % 3], sum = 0, upto = 0;
        for (size_t j = 0; j < V; j++)
            e[j] = (real)exp(-spread * floor(levels * random_uniform(8, 2, (uint64_t)trial, j, 0)) / levels);
        e[(size_t)trial % V] = 1; // the likeliest token's
        long k = trial % 5 == 0 ? 0 : 1 + (long)(random_uniform(8, 3, (uint64_t)trial, 0, 0) * (double)V * 1.2);
        double p = trial % 5 == 1 ? 1 : random_uniform(8, 4, (uint64_t)trial, 0, 0);
        for (size_t j = 0; j < V; j++) sorted[j] = (double)e[j];
        qsort(sorted, V, sizeof *sorted, descending);
        if (k && (size_t)k < V) keep = (size_t)k;
        for (size_t j = 0; j < keep; j++) sum += sorted[j];
        bool close = false; // the last one kept is a matter of rounding
        size_t n = p < 1 ? 0 : keep;
        while (p < 1 && n < keep && (n == 0 || upto < p * sum)) {
            upto += sorted[n++];
            close |= fabs(upto - p * sum) < 1e-5 * sum;
        }
        real want = keep < V || p < 1 ? (real)sorted[n - 1] : 0, got = least_weight(e, V, k, p);
        CHECK(close || got == want, "trial %d: V %zu, k %ld, p %g: cut at %.9g, sorting says %.9g", trial, V, k, p,
            (double)got, (double)want);
    }
}

static void test_sampling(void)
{
    test_cut();
    enum { R = 4000, V = 7 };
    Buf h = cpu_alloc(R, DT_REAL, "h"), w = new_buf(V), u = cpu_alloc(R, DT_F64, "u"),
        token = cpu_alloc(R, DT_I32, "t"), logp = new_buf(R);
    for (size_t i = 0; i < R; i++) { R_(h)[i] = 2; ((double *)u.p)[i] = random_uniform(1, STREAM_SAMPLE, 0, i, 0); }
    for (int mode = 0; mode < 3; mode++) {
        double T = 0.9, p[V], sum = 0, chi = 0, kept = 0;
        int count[V] = {0}, order[V] = {0, 1, 2, 3, 4, 5, 6};
        cpu_sample(token, logp, h, w, u, T, mode == 1 ? 3 : 0, mode == 2 ? 0.5 : 1, R, 1, V);
        for (int v = 0; v < V; v++) sum += p[v] = exp(2 * (double)R_(w)[v] / T);
        for (int v = 0; v < V; v++) p[v] /= sum;
        for (int a = 0; a < V; a++)
            for (int b = a + 1; b < V; b++)
                if (p[order[b]] > p[order[a]]) {
                    int t = order[a];
                    order[a] = order[b];
                    order[b] = t;
                }
        for (size_t i = 0; i < R; i++) {
            count[I_(token)[i]]++;
            CHECK_NEAR(R_(logp)[i], log(p[I_(token)[i]]), 1e-5, "log-probability, without top-k and top-p");
        }
        int keep = mode == 1 ? 3 : V;
        if (mode == 2) { double s = 0; keep = 0; while (s < 0.5) s += p[order[keep++]]; }
        for (int k = 0; k < keep; k++) kept += p[order[k]];
        for (int k = 0; k < V; k++) {
            double want = k < keep ? R * p[order[k]] / kept : 0;
            if (k >= keep) CHECK(count[order[k]] == 0, "token %d was cut off", order[k]);
            else chi += (count[order[k]] - want) * (count[order[k]] - want) / want;
        }
        CHECK(chi < 24, "chi-squared %.1f over %d cells", chi, keep);
    }
}

static void test_fresh(void) // a model made from scratch: biases are 0, norms 1, the scalar head is random
{
    for (int i = 0; i < 2 * TINIES; i++) {
        Config c = tiny_of(i / 2, 13, false, i % 2);
        Model m;
        model_create(&m, ops_cpu(), &c, TRAIN_ALL, false, false);
        model_random(&m, 2);
        for (size_t k = 0; k < m.n_list; k++) {
            const Param *q = &m.list[k];
            const real *x = R_(*param_field(&m.p, q));
            double want = q->flags & P_NORM ? 1 : 0, sum = 0;
            for (size_t j = 0; j < q->n; j++) sum += fabs((double)x[j] - want);
            bool drawn = q->cols || (q->field == IN_PARAMS(score) && !(q->flags & P_LAYER));
            CHECK(drawn ? sum > 0 : sum == 0, "%s: off by %g from %g", q->name, sum, want);
        }
        model_free(&m);
    }
}

static void frozen_one(int which)
{
    Config c = tiny_of(which, 13, true, false);
    Model m;
    Pass p;
    Corpus corpus = tiny_corpus(LOSS_LM);
    model_create(&m, ops_cpu(), &c, 1, false, false);
    model_random(&m, 2);
    pass_create(&p, &m, 64, true);
    real *before = xmalloc(m.n_params * sizeof *before);
    memcpy(before, m.data.p, m.n_params * sizeof *before);
    AdamW opt = {.lr = 0.01, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .clip = 1};
    for (int i = 0; i < 3; i++) {
        model_zero_grad(&m);
        supervised_batch(&p, &corpus, four_rows, 4, 18, true, NULL);
        model_update(&m, &opt);
    }
    CHECK(!memcmp(before, m.data.p, m.first * sizeof *before), "a frozen parameter moved");
    for (size_t i = 0; i < m.n_list; i++)
        if (m.list[i].offset >= m.first)
            CHECK(memcmp(before + m.list[i].offset, R_(m.data) + m.list[i].offset, m.list[i].n * sizeof *before),
                "%s did not move", m.list[i].name);
    CHECK(m.list[0].offset < m.first && m.first_block == 2, "the tied embedding is frozen with the lower blocks");
    pass_free(&p); model_free(&m); corpus_free(&corpus);
}

// Gradients with --recompute, bit for bit those without, all blocks training and the top two; and what it spares
static void recompute_one(const Ops *o, int which, long layers, bool labels)
{
    Config c = tiny_of(which, 13, which % 2, labels);
    Corpus corpus = tiny_corpus(labels ? LOSS_LABEL : LOSS_LM);
    real *grad[2];
    size_t n = 0, bytes[2], outs = 0;
    for (int again = 0; again < 2; again++) {
        Model m;
        Pass p;
        model_create(&m, o, &c, layers, false, false);
        model_random(&m, 2);
        m.recompute = again;
        pass_create(&p, &m, 64, true);
        for (int pass = 0; pass < 2; pass++) supervised_batch(&p, &corpus, four_rows, 4, 18, true, NULL);
        n = m.n_params - m.first;
        o->download(grad[again] = xmalloc(n * sizeof(real)), m.grad);
        bytes[again] = p.own.high;
        outs = c.L - m.first_block;
        pass_free(&p); model_free(&m);
    }
    CHECK(!memcmp(grad[0], grad[1], n * sizeof(real)), "model %d, %ld layers: gradients differ", which, layers);
    size_t most = 64 * outs * (8 * c.C + 2 * c.F) * dtype_size(o->type); // and what a block keeps in statistics
    CHECK(bytes[1] < bytes[0] && bytes[0] - bytes[1] > most / outs * (outs - 1) * 3 / 4,
        "model %d, %ld layers: %zu bytes with --recompute, %zu without", which, layers, bytes[1], bytes[0]);
    free(grad[0]); free(grad[1]); corpus_free(&corpus);
}

static void recompute_on(const Ops *o, int every) // every so many-th case
{
    for (int i = 0; i < 4 * TINIES; i += every) recompute_one(o, i / 4, i % 2 ? TRAIN_ALL : 2, i / 2 % 2);
}
static void test_recompute(void) { recompute_on(ops_cpu(), 1); }

static void test_frozen(void) { for (int i = 0; i < TINIES; i++) frozen_one(i); }

// Plain and packed products against sums in double; a packed one gives a row the same
// bits alone, among others and with one thread.
static void test_products(void)
{
    int threads = omp_get_max_threads();
    for (int bf = 0; bf < 2; bf++) {
        cpu_bf16 = bf;
        for (size_t k = 0; k < 10; k++) {
            const size_t shapes[10][3] = {
                {1, 1, 1}, {1, 64, 200}, {3, 17, 5}, {64, 96, 33}, {200, 128, 384}, {16, 512, 128},
                {7, 768, 40}, {33, 8, 2000}, {450, 300, 50}, {9, 1500, 127}};
            size_t N = shapes[k][0], C = shapes[k][1], OC = shapes[k][2];
            Buf x = new_buf(N * C), w = new_buf(OC * C), b = new_buf(OC), out = new_buf(N * OC),
                packed = cpu_alloc(cpu_packed_size(OC, C), DT_PACKED, "w"), again = new_buf(N * OC),
                bias = k % 2 ? b : (Buf){0};
            cpu_pack(packed, w, OC, C);
            cpu_matmul_forward(out, x, packed, bias, N, C, OC);
            cpu_matmul_forward(again, x, packed, bias, N, C, OC);
            CHECK(!memcmp(out.p, again.p, N * OC * sizeof(real)), "two runs differ");
            omp_set_num_threads(1);
            size_t together = 0;
            for (size_t i = 0; i < N; i += together) { // 1, 2, 3, ... rows at a time
                together = together + 1 < N - i ? together + 1 : N - i;
                cpu_matmul_forward(slice(again, i * OC, together * OC), slice(x, i * C, together * C), packed, bias,
                    together, C, OC);
            }
            omp_set_num_threads(threads);
            CHECK(!memcmp(out.p, again.p, N * OC * sizeof(real)),
                "%zux%zux%zu: a row's result depends on its batch or on the threads", N, C, OC);
            cpu_matmul_forward(again, x, w, bias, N, C, OC);
            double worst = 0, worst2 = 0;
            for (size_t i = 0; i < N; i++)
                for (size_t j = 0; j < OC; j++) {
                    double want = bias.p ? (double)R_(b)[j] : 0;
                    for (size_t c = 0; c < C; c++) {
                        double a = (double)R_(x)[i * C + c], b_ = (double)R_(w)[j * C + c];
                        want += bf
                            ? (double)bf16_value(bf16_round((float)a)) * (double)bf16_value(bf16_round((float)b_))
                            : a * b_;
                    }
                    worst = worse(worst, fabs((double)R_(out)[i * OC + j] - want) / sqrt((double)C));
                    worst2 = worse(worst2, fabs((double)R_(again)[i * OC + j] - want) / sqrt((double)C));
                }
            CHECK(worst <= 2e-6 && worst2 <= 2e-6, "%s %zux%zux%zu: packed off by %g, plain by %g",
                bf ? "bf16" : "fp32", N, C, OC, worst, worst2);
        }
    }
    cpu_bf16 = false;
}

// DistilBERT: logits and probabilities of texts of several lengths, one of them over the
// context, in batches of any shape
static void test_distilbert(void)
{
    const char *texts[16];
    double want[16], wanted_p[16], got[16], tol = in_double ? 1e-9 : 2e-5;
    size_t n = 0;
    Jsonl in;
    json_t *j[16];
    jsonl_open(&in, "dev/fixtures/distilbert/expected.jsonl");
    for (; jsonl_next(&in, &j[n]); n++) {
        json_t *x = json_object_get(j[n], "logits");
        texts[n] = jsonl_string(&in, j[n], "text", true);
        want[n] = at(x, 0); // POSITIVE, by its name
        wanted_p[n] = exp(at(x, 0)) / (exp(at(x, 0)) + exp(at(x, 1)) + exp(at(x, 2)));
    }
    jsonl_close(&in);
    CHECK(n == 8, "%zu texts", n);
    for (size_t tokens = 32; tokens <= 512; tokens *= 4) {
        DistilBert d;
        distilbert_load(&d, ops_cpu(), "dev/fixtures/distilbert", tokens, false);
        CHECK(d.labels == 3 && d.positive == 0, "positive label %zu of %zu", d.positive, d.labels);
        for (int probability = 0; probability < 2; probability++) {
            distilbert_score(&d, texts, got, n, probability);
            for (size_t i = 0; i < n; i++)
                CHECK_NEAR(got[i], probability ? wanted_p[i] : want[i],
                    tol * (probability ? 1 : fmax(1, fabs(want[i]))), texts[i]);
        }
        CHECK(d.cut == 2, "%zu texts were cut, want 2 (one, twice)", d.cut);
        distilbert_score(&d, texts, got, 0, false);
        distilbert_free(&d);
    }
    for (size_t i = 0; i < n; i++) json_decref(j[i]);
}

// The average of the weights: the plain mean of the first steps, then exponential, and what model_average_use writes
static void test_average(void)
{
    enum { STEPS = 30 };
    const double keep = 0.9;
    Model m;
    Config config = tiny_config(13, false, false);
    model_create(&m, ops_cpu(), &config, 1, false, false);
    model_random(&m, 3);
    size_t n = m.n_params - m.first;
    double *want = xcalloc(n, sizeof *want), far = 0;
    model_average_begin(&m);
    for (int t = 1; t <= STEPS; t++) {
        for (size_t i = 0; i < n; i++) R_(m.grad)[i] = (real)(random_uniform(1, 1, (uint64_t)t, i, 0) - 0.5);
        model_update(&m, &(AdamW){.lr = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .average = keep});
        double k = t <= 10 ? (t - 1) / (double)t : keep; // 1 - 1/t reaches .9 at the tenth step
        for (size_t i = 0; i < n; i++) want[i] = k * want[i] + (1 - k) * (double)R_(m.master)[i];
    }
    for (size_t i = 0; i < n; i++) far = fmax(far, fabs(want[i] - (double)R_(m.master)[i]));
    CHECK(far > 1e-3, "the weights moved by %g only", far);
    model_average_use(&m);
    for (size_t i = 0; i < n; i++) CHECK_NEAR((double)R_(m.master)[i], want[i], in_double ? 1e-14 : 1e-6, "averaged");
    free(want);
    model_free(&m);
}

// ZeRO: models that have a part of AdamW's states each, and the others' weights after each step, take the steps of one
// that has all of them: weights, moments and average, bit for bit. Parts end inside tensors too, and some are empty.
static void parts_one(const Ops *device, size_t parts, bool small, size_t width)
{
    enum { STEPS = 3, MOST = 64 };
    const AdamW opt = {.lr = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .clip = 1,
        .average = 0.5, .seed = 5};
    Ops ops[MOST + 1];
    Model m[MOST + 1]; // the last has all
    Config config = tiny_config(101, true, false);
    config.C = width; config.F = 4 * width;
    bool average = !small || device->type == DT_REAL, inside = false;
    for (size_t k = 0; k <= parts; k++) {
        ops[k] = *device;
        ops[k].moments_8bit = small;
        if (k < parts) { ops[k].parts = parts; ops[k].part = k; }
        model_create(&m[k], &ops[k], &config, 2, true, false);
        model_random(&m[k], 3); value_head_random(&m[k], 3);
        if (average) model_average_begin(&m[k]);
    }
    Model *whole = &m[parts];
    size_t first = whole->first, n = whole->n_params - first, at = 0, scales = 0;
    real *x = xmalloc(n * sizeof *x), *y = xmalloc(n * sizeof *y);
    for (int t = 0; t < STEPS; t++) {
        for (size_t i = 0; i < n; i++) x[i] = (real)(random_uniform(1, 1, (uint64_t)t, i, 0) - 0.5);
        for (size_t k = 0; k <= parts; k++) { device->upload(m[k].grad, x); model_update(&m[k], &opt); }
        for (size_t k = 0; k < parts; k++)
            for (size_t i = 0; i < parts; i++)
                if (i != k && m[k].own_n)
                    device->copy(slice(m[i].data, first + m[k].own, m[k].own_n),
                                 slice(m[k].data, first + m[k].own, m[k].own_n));
    }
    for (size_t k = 0; k < parts; k++) {
        CHECK(m[k].own == at, "part %zu of %zu begins at %zu, the one before ends at %zu", k, parts, m[k].own, at);
        CHECK(m[k].own_n < n / parts + MOMENT_BLOCK + 1, "part %zu of %zu has %zu of %zu elements", k, parts,
              m[k].own_n, n);
        for (size_t i = 0; i < whole->n_list; i++)
            inside |= whole->list[i].offset < first + at && first + at < whole->list[i].offset + whole->list[i].n;
        at += m[k].own_n;
        device->download(x, slice(m[k].data, first, n)); device->download(y, slice(whole->data, first, n));
        CHECK(!memcmp(x, y, n * sizeof *x), "the weights of part %zu of %zu differ", k, parts);
        Buf own[] = {m[k].m, m[k].v, m[k].master, m[k].average, m[k].scale};
        Buf all[] = {whole->m, whole->v, whole->master, whole->average, whole->scale};
        for (int b = 0; b < 5; b++) {
            if (!own[b].p || !own[b].n) continue;
            device->download(x, own[b]);
            device->download(y, slice(all[b], b == 4 ? scales : m[k].own, own[b].n));
            bool same = !memcmp(x, y, own[b].type == DT_U8 ? own[b].n : own[b].n * sizeof *x);
            CHECK(same, "%s of part %zu of %zu differ", own[b].name, k, parts);
        }
        scales += m[k].scale.n;
    }
    CHECK(at == n && scales == whole->scale.n, "parts end at %zu of %zu, scales at %zu of %zu", at, n, scales,
          whole->scale.n);
    CHECK(inside == (width > 16), "no part ends inside a tensor");
    for (size_t k = 0; k <= parts; k++) model_free(&m[k]);
    free(x); free(y);
}
static void states_in_parts(const Ops *o)
{
    for (int small = 0; small < 2; small++) {
        parts_one(o, 2, small, 64); parts_one(o, 3, small, 64); parts_one(o, 64, small, 8);
    }
}
static void test_parts(void) { states_in_parts(ops_cpu()); }
