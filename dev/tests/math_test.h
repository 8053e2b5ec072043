// math_test.h: the plain-double mathematics of ppo.h against mpmath, SciPy and torch.

static json_t *fixture(const char *name)
{
    char *path = format("dev/fixtures/%s", name);
    json_t *j = json_file(path);
    free(path);
    return j;
}
static double num(json_t *j, const char *key) { return json_number_value(json_object_get(j, key)); }
static double at(json_t *a, size_t i) { return json_number_value(json_array_get(a, i)); }
static size_t numbers(json_t *j, const char *key, double *out)
{
    json_t *a = json_object_get(j, key);
    for (size_t i = 0; i < json_array_size(a); i++) out[i] = at(a, i);
    return json_array_size(a);
}

static void test_log_pi_bon(void)
{
    json_t *table = fixture("log_pi_bon.json"), *row;
    size_t i;
    json_array_foreach(table, i, row) {
        json_t *a = json_array_get(row, 0);
        double logF = json_is_string(a) ? -INFINITY : json_number_value(a), logp = at(row, 1), N = at(row, 2);
        double want = at(row, 3), got = log_pi_bon(logF, logp, (long)N);
        double tol = 2e-12 * fabs(want) + (isfinite(logF) ? 4e-15 * N * fabs(logF) : 0) + 1e-300;
        CHECK(fabs(got - want) <= tol, "N=%g log F=%g log p=%g: got %.17g, want %.17g", N, logF, logp, got, want);
    }
    CHECK(i > 800, "only %zu rows in the table", i);
    json_decref(table);
    CHECK(isnan(log_pi_bon(-1, -1, 0)) && isnan(log_pi_bon(NAN, -1, 2)) && isnan(log_pi_bon(-1, NAN, 2)),
        "NaN in, NaN out");
    CHECK(log_pi_bon(-3, -7.25, 1) == -7.25 && log_pi_bon(-1, -INFINITY, 9) == -INFINITY &&
            log_pi_bon(-INFINITY, -2, 9) == -18,
        "the special cases");
}

static double log_f_at(const char *fhat, double k, double M) // log F-hat of k among M samples
{
    Cdf c = {.M = (size_t)M};
    return ROW(fhats, fhat)->log_f(&(Place){.cdf = &c, .k = k});
}
static double fitted(const Cdf *c, double reward) // by the fit, or what stands in for it
{
    Place at = cdf_place(c, reward, 1);
    return ROW(fhats, "expfit")->log_f(&at);
}

static void test_fhat(void)
{
    json_t *j = fixture("fhat.json"), *row;
    size_t i;
    json_array_foreach(json_object_get(j, "table"), i, row) {
        double k = at(row, 0), M = at(row, 1);
        CHECK_NEAR(log_f_at("digamma", k, M), at(row, 2), 1e-12, "digamma");
        if (json_is_null(json_array_get(row, 3))) CHECK(log_f_at("mc", k, M) == -INFINITY, "mc at k = 0");
        else CHECK_NEAR(log_f_at("mc", k, M), at(row, 3), 1e-14, "mc");
        CHECK_NEAR(log_f_at("add1", k, M), at(row, 4), 1e-14, "add1");
    }
    json_array_foreach(json_object_get(j, "fits"), i, row) {
        double r[512], x[8], y[8];
        Cdf c = {.M = numbers(row, "rewards", r), .reward = r};
        CHECK(cdf_fit(&c), "fit %s does not converge", json_string_value(json_object_get(row, "name")));
        CHECK_NEAR(c.a, num(row, "a"), 1e-6 * num(row, "a"), "a");
        CHECK_NEAR(c.b, num(row, "b"), 1e-6 * num(row, "b"), "b");
        numbers(row, "at", x);
        for (size_t k = 0; k < numbers(row, "logF", y); k++)
            CHECK_NEAR(fitted(&c, x[k]), y[k], 1e-6 * (1 + fabs(y[k])), "fitted log F");
    }
    CHECK(i == 5, "five fits");
    json_decref(j);
    double same[8] = {2, 2, 2, 2, 2, 2, 2, 2};
    Cdf flat = {.M = 8, .reward = same};
    CHECK(!cdf_fit(&flat) && flat.sd == 0, "equal rewards cannot be fitted");
    CHECK_NEAR(fitted(&flat, 3), 0, 1e-15, "add1 stands in");
    for (int M = 1; M <= 600; M = M * 3 + 1) { // k is uniform on 0..M under the reference
        double digamma_mean = 0;
        for (int k = 0; k <= M; k++) digamma_mean += log_f_at("digamma", k, M) / (M + 1);
        CHECK_NEAR(digamma_mean, -1, 1e-12, "E log F-hat");
    }
    double add1 = 0;
    for (int k = 0; k <= 200; k++) add1 += log_f_at("add1", k, 200) / 201;
    CHECK_NEAR(add1, -0.982, 5e-4, "add1's mean at M = 200");
}

static void test_ranks(void)
{
    double r[] = {1, 2, 2, 3};
    uint64_t key[] = {5, 7, 9, 1};
    Cdf c = {.M = 4, .reward = r, .key = key}, plain = {.M = 4, .reward = r};
    bool tie;
    CHECK(cdf_rank(&c, 2, 8, &tie) == 2 && tie, "of equal rewards the smaller key is smaller");
    CHECK(cdf_rank(&c, 2.5, 6, &tie) == 3 && !tie, "no tie");
    CHECK(cdf_rank(&c, 2.0001, 7, &tie) == 2, "y itself is never smaller, whatever the last bit of its reward");
    CHECK(cdf_rank(&plain, 2, 8, &tie) == 2 && tie, "mid-rank without keys");
    CHECK(cdf_rank(&c, 0, 1, &tie) == 0 && cdf_rank(&c, 9, 2, &tie) == 4, "the ends");
    // FNV-1a over little-endian words, by hand for one word: then the splitmix64 finaliser
    int id = 0x01020304;
    uint64_t h = 0xcbf29ce484222325ull;
    for (uint64_t byte = 4; byte; byte--) h = (h ^ byte) * 0x100000001b3ull;
    CHECK(order_key(&id, 1) == mix64(h), "order key");
    CHECK(mix64(0x9e3779b97f4a7c15ull) == 0xe220a8397b1dcdafull, "splitmix64's first output for seed 0");
}

static void test_bon_mean(void)
{
    json_t *j = fixture("bon.json"), *row;
    size_t i;
    double r[512];
    json_array_foreach(j, i, row) {
        size_t M = numbers(row, "rewards", r);
        CHECK_NEAR(bon_mean(r, M, (long)num(row, "N")), num(row, "mean"), 1e-11, "best-of-N mean");
    }
    json_decref(j);
    CHECK_NEAR(bon_kl_bound(16), log(16) - 15.0 / 16, 1e-15, "KL bound");
    double x[] = {1, 2, 3, 4};
    Estimate e = estimate(x, 4);
    CHECK_NEAR(e.mean, 2.5, 1e-15, "mean"); CHECK_NEAR(e.se, sqrt(5.0 / 3 / 4), 1e-15, "standard error");
}

static Buf buf_of(const double *x, size_t n)
{
    Buf b = cpu_alloc(n, DT_REAL, "test");
    for (size_t i = 0; i < n; i++) R_(b)[i] = (real)x[i];
    return b;
}

static void test_ppo_pieces(void)
{
    json_t *j = fixture("ppo.json");
    double reward[32], value[32], adv[32], ret[32], want[32], white[32], x[8][32], tol = in_double ? 1e-12 : 3e-5;
    size_t n = numbers(j, "rewards", reward), row = 0;
    numbers(j, "old_value", value);
    for (size_t i = 0; i < json_array_size(json_object_get(j, "lengths")); i++) {
        size_t len = (size_t)at(json_object_get(j, "lengths"), i);
        gae(adv + row, ret + row, reward + row, value + row, len, 1, 0.95);
        row += len;
    }
    numbers(j, "advantage", want); for (size_t i = 0; i < n; i++) CHECK_NEAR(adv[i], want[i], 1e-12, "advantage");
    numbers(j, "returns", want); for (size_t i = 0; i < n; i++) CHECK_NEAR(ret[i], want[i], 1e-12, "return");
    whiten(adv, n);
    numbers(j, "white", white);
    for (size_t i = 0; i < n; i++) CHECK_NEAR(adv[i], white[i], 1e-12, "whitened advantage");
    const char *keys[] = {"logp", "value", "old_logp", "old_value", "white", "returns", "dlogp", "dvalue"};
    Buf b[8];
    for (int k = 0; k < 8; k++) { numbers(j, keys[k], x[k]); b[k] = buf_of(x[k], n); }
    Buf dlogp = new_buf(n), dvalue = new_buf(n), stats = cpu_alloc(8, DT_F64, "stats");
    cpu_fill(stats, 0);
    cpu_ppo_loss(dlogp, dvalue, stats, b[0], b[1], b[2], b[3], b[4], b[5], 1 / (double)n, num(j, "clip"),
        num(j, "value_clip"), num(j, "vf_coef"), n);
    for (size_t i = 0; i < n; i++) {
        CHECK_NEAR(R_(dlogp)[i], x[6][i], tol * (1 + fabs(x[6][i])), "policy gradient");
        CHECK_NEAR(R_(dvalue)[i], x[7][i], tol, "value gradient");
    }
    double *s = stats.p;
    CHECK(fabs(s[0] / (double)n - num(j, "policy_loss")) <= tol * fabs(num(j, "policy_loss")) * 10, "policy loss %g",
        s[0] / (double)n);
    CHECK_NEAR(s[1] / (double)n, num(j, "value_loss"), tol * 10, "value loss");
    CHECK(fabs(s[2] / (double)n - num(j, "approx_kl")) <= tol * fabs(num(j, "approx_kl")) * 10, "approximate KL");
    json_decref(j);
}

static void test_adamw(void)
{
    json_t *j = fixture("adamw.json"), *step;
    double p[8], g[8], want[8], tol = in_double ? 1e-13 : 2e-6;
    size_t n = numbers(j, "start", p), i;
    Buf b = buf_of(p, n), m = new_buf(n), v = new_buf(n);
    cpu_fill(m, 0); cpu_fill(v, 0);
    json_array_foreach(json_object_get(j, "steps"), i, step) {
        numbers(step, "grad", g);
        Buf grad = buf_of(g, n);
        double norm = sqrt(cpu_sumsq(grad));
        CHECK_NEAR(norm, num(step, "norm"), 1e-6, "gradient norm");
        adamw_range(b, grad, m, v, num(step, "lr"), 0.9, 0.95, 1e-8, 0.1, norm > 1 ? 1 / (norm + 1e-6) : 1,
            (long)i + 1);
        numbers(step, "p", want);
        for (size_t k = 0; k < n; k++) CHECK_NEAR(R_(b)[k], want[k], tol, "parameter");
    }
    CHECK(i == 5, "five steps");
    json_decref(j);
    CHECK_NEAR(schedule_lr(ROW(schedules, "linear"), 1, 0, 10, 0), 1, 1e-15, "linear");
    CHECK_NEAR(schedule_lr(ROW(schedules, "linear"), 1, 9, 10, 0), 0.1, 1e-15, "linear");
    CHECK_NEAR(schedule_lr(ROW(schedules, "cosine"), 1, 5, 10, 0), 0.5, 1e-15, "cosine");
    CHECK_NEAR(schedule_lr(ROW(schedules, "constant"), 1, 1, 10, 4), 0.5, 1e-15, "warm-up");
}

// Levels against bitsandbytes' (dev/golden_moments.py), whose last one, the scale itself, is ours by another scale;
// what is rounded lies between its neighbours, and is right on average
static void test_moment_codes(void)
{
    json_t *j = fixture("moments.json");
    double want[256];
    float level[MOMENT_LEVELS];
    for (unsigned c = 0; c < MOMENT_LEVELS; c++) level[c] = moment_level(c);
    size_t n = numbers(j, "signed", want);
    CHECK(n == FIRST_MOST + 1, "%zu levels with a sign", n);
    for (size_t c = 1; c <= FIRST_MOST; c++) CHECK_NEAR(level[c] * 1e-6, want[c - 1], 2e-7 * want[c - 1], "signed");
    n = numbers(j, "unsigned", want);
    CHECK(n == SECOND_MOST, "%zu levels without a sign", n);
    for (size_t c = 2; c <= SECOND_MOST; c++) CHECK_NEAR(level[c] * 1e-7, want[c - 2], 2e-7 * want[c - 2], "unsigned");
    for (unsigned c = 0; c <= SECOND_MOST; c++)
        for (int part = 0; part < 5; part++) {
            unsigned most = c <= FIRST_MOST ? FIRST_MOST : SECOND_MOST;
            float scale = moment_scale(level, most, 0.3f), next = level[c < most ? c + 1 : c];
            float x = scale * (level[c] + (next - level[c]) * 0.24f * (float)part), sum = 0;
            enum { DRAWS = 1000 };
            for (int k = 0; k < DRAWS; k++) {
                unsigned got = moment_code(level, most, x, scale, ((float)k + 0.5f) / DRAWS);
                CHECK(got == c || got == c + 1, "%g of level %u became %u", (double)x, c, got);
                sum += scale * level[got] / DRAWS;
            }
            CHECK_NEAR(sum, x, 2e-3 * scale * (double)(next - level[c]) + 1e-4 * (double)x, "rounded, on average");
        }
    CHECK(second_code(level, 1e-9f, 1, 0.999f) == 1 && second_code(level, 0, 1, 0) == 0, "what is not 0 becomes 0");
    CHECK_NEAR(first_moment(level, first_code(level, -0.2f, moment_scale(level, FIRST_MOST, 0.2f), 0),
                            moment_scale(level, FIRST_MOST, 0.2f)), -0.2, 1e-7, "the largest of a block, and its sign");
    double sum = 0; // a bfloat16 has 8 bits: 1 + 2^-9 lies a quarter of the way from 1 to the next one
    for (uint64_t k = 0; k < 1 << 16; k++) sum += (double)bf16_value(bf16_round_drawn(1 + 0x1p-9f, k)) / (1 << 16);
    CHECK_NEAR(sum, 1 + 0x1p-9, 1e-9, "weights, on average");
    json_decref(j);
}

// AdamW with moments in 8 bits: beside itself in real; the same bits with one thread; and second moments fall as they
// should where there is no gradient any more, beside one in each block that has
static void test_adamw_8bit(void)
{
    enum { N = 3 * MOMENT_BLOCK + 77 };
    int threads = omp_get_max_threads();
    Buf g = new_buf(N), start = new_buf(N), p[3], m[3], v[3], scale[3];
    for (int k = 0; k < 3; k++) {
        p[k] = cpu_alloc(N, DT_REAL, "p"); cpu_copy(p[k], start);
        m[k] = cpu_alloc(N, k ? DT_U8 : DT_REAL, "m"); cpu_fill(m[k], 0);
        v[k] = cpu_alloc(N, k ? DT_U8 : DT_REAL, "v"); cpu_fill(v[k], 0);
        scale[k] = cpu_alloc(2 * moment_blocks(N), DT_REAL, "scale"); cpu_fill(scale[k], 0);
    }
    for (long step = 1; step <= 200; step++) {
        for (size_t i = 0; i < N; i++) R_(g)[i] = (real)(random_normal(3, 1, (uint64_t)step, i) + 0.3);
        adamw_range(p[0], g, m[0], v[0], 1e-3, 0.9, 0.999, 1e-8, 0.1, 0.5, step);
        for (int k = 1; k < 3; k++) {
            omp_set_num_threads(k == 1 ? threads : 1);
            adamw_8bit_range(p[k], g, m[k], v[k], scale[k], 1e-3, 0.9, 0.999, 1e-8, 0.1, 0.5, step,
                           random_key(7, STREAM_ROUNDING, (uint64_t)step, 0), 100);
        }
        omp_set_num_threads(threads);
        double off = 0, far = 0;
        for (size_t i = 0; i < N; i++) {
            off += pow((double)(R_(p[0])[i] - R_(p[1])[i]), 2);
            far += pow((double)(R_(p[0])[i] - R_(start)[i]), 2);
        }
        double limit = step == 1 ? 1e-6 : 0.05; // the first step comes before anything was rounded
        CHECK(sqrt(off / far) <= limit, "step %ld: weights off by %.3g of their way", step, sqrt(off / far));
    }
    CHECK(!memcmp(p[1].p, p[2].p, N * sizeof(real)) && !memcmp(m[1].p, m[2].p, N) && !memcmp(v[1].p, v[2].p, N),
        "one thread computes another thing");
    double sum[2] = {0}, level[MOMENT_LEVELS];
    for (unsigned c = 0; c < MOMENT_LEVELS; c++) level[c] = (double)moment_level(c);
    for (int later = 0; later < 2; later++) {
        for (size_t i = 0; i < N; i++)
            if (i % MOMENT_BLOCK)
                sum[later] += level[((uint8_t *)v[1].p)[i]] * (double)R_(scale[1])[i / MOMENT_BLOCK * 2 + 1];
        for (size_t i = 0; i < N; i++) R_(g)[i] = i % MOMENT_BLOCK ? 0 : 3;
        for (long step = 201; step <= 1200 && !later; step++)
            adamw_8bit_range(p[1], g, m[1], v[1], scale[1], 1e-3, 0.9, 0.999, 1e-8, 0, 1, step,
                           random_key(7, STREAM_ROUNDING, (uint64_t)step, 0), 0);
    }
    CHECK_NEAR(sum[1] / sum[0], pow(0.999, 1000), 0.02, "second moments after a thousand steps without a gradient");
    for (int k = 0; k < 3; k++) { cpu_release(&p[k]); cpu_release(&m[k]); cpu_release(&v[k]); cpu_release(&scale[k]); }
    cpu_release(&g); cpu_release(&start);
}

static double score_of(const ObjectiveSpec *o, double reward, double logF, double logp)
{
    return o->row->score(o, &(Response){.reward = reward}, logF, logp);
}

static void test_objectives(void)
{
    ObjectiveSpec o = {.row = ROW(objectives, "vbon"), .N = 5};
    objective_prepare(&o);
    CHECK_NEAR(o.kappa, 0.25, 1e-15, "kappa");
    CHECK_NEAR(score_of(&o, 0, -1, -20), 0.25 * (log_pi_bon(-1, -20, 5) + 20), 1e-14, "vbon");
    o = (ObjectiveSpec){.row = ROW(objectives, "vbon"), .N = 1};
    objective_prepare(&o);
    CHECK_NEAR(score_of(&o, 3, -1, -20), 0, 1e-15, "at N = 1 nothing is left of the score");
    CHECK_NEAR(o.kappa, 1, 1e-15, "kappa at N = 1");
    o = (ObjectiveSpec){.row = ROW(objectives, "l"), .N = 1};
    objective_prepare(&o);
    CHECK(score_of(&o, 3, -1, -20) == 0, "L at N = 1");
    o = (ObjectiveSpec){.row = ROW(objectives, "l"), .beta = 0.3};
    objective_prepare(&o);
    CHECK(o.kappa == 0.3 && score_of(&o, 3, -1.5, -20) == -1.5, "L by beta");
    o = (ObjectiveSpec){.row = ROW(objectives, "l1"), .N = 4};
    objective_prepare(&o);
    CHECK_NEAR(o.kappa, 1.0 / 3, 1e-15, "l1 kappa");
    CHECK_NEAR(o.ref_weight, 9.0 / 3, 1e-15, "l1 reference");
    CHECK_NEAR(score_of(&o, 0, -1, 0), -2, 1e-15, "l1 score");
    o = (ObjectiveSpec){.row = ROW(objectives, "vbon"), .N = 4, .compat_scale = true};
    objective_prepare(&o);
    CHECK_NEAR(o.kappa, 1.0 / 3, 1e-15, "released kappa"); CHECK_NEAR(o.score_scale, 0.25, 1e-15, "released scale");
    o = (ObjectiveSpec){.row = ROW(objectives, "vbon"), .beta = 0.3, .compat_scale = true};
    objective_prepare(&o);
    CHECK(o.N == 4 && o.kappa == 0.3, "released: n = int(1/beta) + 1");
    // BOND: half of L plus half of a likelihood; J-BOND's strength is its KL to the anchor
    o = (ObjectiveSpec){.row = ROW(objectives, "bond"), .N = 5, .k = 16, .anchor_rate = 0.5};
    objective_prepare(&o);
    double (*bond_log)(const Place *) = o.log_f;
    CHECK(o.kappa == 0.5 && o.forward == 0.5 && o.best == 5 && o.k == 16 && o.anchor_rate == 0, "bond's weights");
    CHECK_NEAR(score_of(&o, 3, -1.5, -20), 4 / 2.0 * -1.5, 1e-15, "bond's score");
    o = (ObjectiveSpec){.row = ROW(objectives, "jbond"), .k = 16, .anchor_rate = 0.02, .anchor_kl = 2};
    objective_prepare(&o);
    CHECK(o.kappa == 2.5 && o.forward == 0.5 && o.best == 2 && o.k == 2 && o.anchor_rate == 0.02, "jbond's weights");
    CHECK_NEAR(score_of(&o, 3, -1.5, -20), -1.5 / 2, 1e-15, "jbond's score");
    // their log p<= from places among draws: y itself, an equal reward by key, above and below all
    double rewards[4] = {1, 2, 2, 3};
    uint64_t keys[4] = {7, 5, 9, 8};
    const Cdf four = {.M = 4, .reward = rewards, .key = keys}, two = {.M = 2, .reward = rewards + 1, .key = keys + 1};
    static const struct { double reward; uint64_t key; double not_above; bool below_both; } places[] = {
        {0.5, 1, 0, true}, {1, 7, 1, true}, {2, 4, 1, true}, {2, 5, 2, false}, {2, 6, 2, false}, {2.5, 1, 3, false},
        {4, 1, 4, false}};
    for (size_t i = 0; i < COUNT(places); i++) {
        Place in4 = cdf_place(&four, places[i].reward, places[i].key),
              in2 = cdf_place(&two, places[i].reward, places[i].key);
        CHECK_NEAR(bond_log(&in4), log((1 + places[i].not_above) / 5), 1e-15, "bond's log p<=");
        CHECK_NEAR(o.log_f(&in2), places[i].below_both ? -log(16) : 0, 1e-15, "jbond's");
    }
    // for p << F the exact score differs from L's by a constant: they have the same gradient
    CHECK_NEAR(log_pi_bon(-0.7, -60, 101) + 60 - (log(101) + 100 * -0.7), 0, 1e-10, "J - L -> log N");
}

static void test_offline_losses(void)
{
    static const char *const kinds[] = {"dpo", "ipo", "bonbon", "bon-sft"};
    json_t *j = fixture("offline.json"), *c;
    size_t i, seen[4] = {0};
    json_array_foreach(j, i, c) {
        OfflineLoss o = {.beta = num(c, "beta"), .alpha = num(c, "alpha"), .N = (long)num(c, "N")};
        double x[4], dw, dl;
        for (int k = 0; k < 4; k++)
            if (!strcmp(json_string_value(json_object_get(c, "kind")), kinds[k])) {
                o.kind = (OfflineKind)k;
                seen[k]++;
            }
        numbers(c, "logps", x);
        double loss = offline_loss(&o, x[0], x[1], x[2], x[3], &dw, &dl);
        double want[] = {num(c, "loss"), num(c, "dw"), num(c, "dl")}, got[] = {loss, dw, dl};
        static const char *const names[] = {"loss", "derivative by log pi(y_w)", "derivative by log pi(y_l)"};
        for (int k = 0; k < 3; k++)
            CHECK_NEAR(got[k], want[k], 1e-12 * (1 + fabs(want[k])), names[k]);
    }
    CHECK(i == 134 && seen[0] && seen[1] && seen[2] && seen[3], "%zu cases", i);
    json_decref(j);
    CHECK_NEAR(bonbon_target(8), 18.15, 1e-12, "BoNBoN's target at N = 8");
    CHECK_NEAR(bonbon_target(1), 0, 0, "at N = 1");
}

// What loops use in float in place of the library's functions
static void test_functions(void)
{
    double worst[3] = {0}, tol[3] = {2e-7, 2e-7, 5e-7};
    for (double x = -12; x <= 12; x += 1e-4) {
        real z = (real)x;
        double y = (double)z;
        double e[3] = {(double)exp_(z) / exp(y) - 1, (double)tanh_(z) - tanh(y), (double)erf_(z) - erf(y)};
        for (int i = 0; i < 3; i++) worst[i] = worse(worst[i], fabs(e[i]));
    }
    static const char *const names[] = {"exp (relative)", "tanh", "erf"};
    for (int i = 0; i < 3; i++) CHECK(worst[i] <= (in_double ? 1e-15 : tol[i]), "%s is off by %g", names[i], worst[i]);
    CHECK(exp_(-INFINITY) == 0 && tanh_(INFINITY) == 1 && erf_(-INFINITY) == -1 && erf_(0) == 0 && isnan(erf_(NAN)) &&
            isnan(exp_(NAN)) && isnan(tanh_(NAN)),
        "at the ends");
}

// Prefixes may score far below every whole response; the features stay those of ranks,
// also where log F-hat is a fit in the reward
static void test_prefix_features(void)
{
    double rewards[32], scores[3] = {-1e4, 0.5, 1e4}, f[3], g[3];
    for (int i = 0; i < 32; i++) rewards[i] = 0.1 * i - 1 + 0.01 * (i % 3);
    Prompt prompt = {0};
    Cdf cdf = {.M = 32, .reward = rewards};
    Ppo p = {.prompts = &prompt, .cdf = &cdf};
    Response r = {.prefix = scores};
    CHECK(cdf_fit(&cdf), "the fit converges");
    for (size_t t = 0; t < 3; t++) {
        p.opt.fhat = ROW(fhats, "expfit"); prefix_features(&p, &r, t, f);
        p.opt.fhat = ROW(fhats, "digamma"); prefix_features(&p, &r, t, g);
        CHECK(memcmp(f, g, sizeof f) == 0 && fabs(f[1]) < 5, "t %zu: %g beside %g", t, f[1], g[1]);
    }
}
