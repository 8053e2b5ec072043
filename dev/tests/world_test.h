// world_test.h: the world of lib/world.h, whose 40 strings can all be listed: the shipped PPO loop trains in it with
// the exact F and is measured by enumeration, as total variation between the trained model and the optimum of its
// objective; and `vbon world`, which shows it.

// What `vbon world` with these flags does, and the rest of what it was told
PRINTF_LIKE(2, 3) static PpoOptions world_told(Args *a, const char *fmt, ...)
{
    static char **told; // values stay where they are, in the flags
    char *flags, *words[32];
    int n = 0;
    PpoOptions o;
    va_list list;
    va_start(list, fmt);
    if (vasprintf(&flags, fmt, list) < 0) die("out of memory");
    va_end(list);
    for (char *w = strtok(flags, " "); w; w = strtok(NULL, " ")) words[n++] = w;
    arrput(told, flags);
    flags_parse(a, flag_table, n_flags, "world", n, words, preset_flags);
    world_options(&o, a);
    return o;
}

static double metric(const Ppo *p, const char *key)
{
    for (size_t i = 0; i < p->n_metrics; i++) if (!strcmp(p->metrics[i].key, key)) return p->metrics[i].value;
    die("no metric %s", key);
}

// A run in a world by these flags; world_close frees it.
static void world_begin(WorldRun *r, const char *flags)
{
    Args a;
    PpoOptions opt = world_told(&a, "%s", flags);
    world_open(r, ops_cpu(), &opt, a.ties, (size_t)a.m);
}

// Trains up to an iteration, and returns the model's log-probabilities of all strings.
static void world_until(WorldRun *r, long iteration, double *out)
{
    int threads = omp_get_max_threads();
    omp_set_num_threads(1); // as cmd_world does
    while (r->ppo.iteration < iteration) ppo_iteration(&r->ppo);
    world_probabilities(&r->w, &r->m, &r->prompt, out);
    omp_set_num_threads(threads);
}

static void world_train(WorldRun *r, const char *flags, double *out)
{
    world_begin(r, flags);
    world_until(r, r->iterations, out);
}

static void best_of_exactly(const World *w, double N, double *out) // log pi_bon; N may be fractional
{
    for (int i = 0; i < STRINGS; i++) {
        double F = exp(w->logF[i]), p = exp(w->logp[i]);
        out[i] = log(pow(F + p, N) - pow(F, N));
    }
}

// What the world says of where a run leads is what its theorem says.
static void leads_to(const WorldRun *r, const char *goal, const double *want)
{
    double off = variation(r->q[r->goal], want);
    CHECK(!strcmp(optima[r->goal].name, goal), "leads to %s, not to %s", optima[r->goal].name, goal);
    CHECK(off < 1e-6, "%s is %g off its optimum", goal, off);
}

static double floored(double logF) { return logF > log(1.0 / 400) ? logF : log(1.0 / 400); }

static void vbon_optima(void) // the trained policy against pi_bon, with and without ties, and beside argmax L
{
    static WorldRun r;
    double got[STRINGS], want[STRINGS], other[STRINGS];
    for (int ties = 0; ties < 2; ties++) {
        for (int k = 0; k < 3; k++) {
            long N = k == 0 ? 2 : k == 1 ? 4 : 16;
            if (few() && !(ties && N == 16)) continue;
            char *flags = format("--n %ld%s", N, ties ? " --ties" : "");
            world_train(&r, flags, got);
            free(flags);
            World w = r.w;
            best_of_exactly(&w, (double)N, want);
            leads_to(&r, "pi_bon", want);
            double sum = 0, mass = 0, positive = 0, J = 0, L = 0, L1 = 0, n = (double)N;
            for (int i = 0; i < STRINGS; i++) {
                sum += exp(want[i]);
                mass += exp(w.logp[i]);
                CHECK_NEAR(log_pi_bon(w.logF[i], w.logp[i], N), want[i], 1e-9 * fabs(want[i]) + 1e-9,
                    "log pi_bon by enumeration");
                other[i] = w.logp[i] + (n - 1) * (isfinite(w.logF[i]) ? w.logF[i] : -700); // argmax L: 0 where F = 0
                positive += isfinite(w.logF[i]) ? exp(got[i]) : 0;
            }
            // J >= L >= L1, the paper's theorems 2 and 3, at the trained policy on the strings with F > 0: where F = 0
            // the bounds are -inf.
            for (int i = 0; i < STRINGS; i++) {
                if (!isfinite(w.logF[i])) continue;
                double logpi = got[i] - log(positive), pi = exp(logpi), logF = w.logF[i];
                J += pi * (want[i] - logpi);
                L += pi * ((n - 1) * logF + w.logp[i] - logpi);
                L1 += pi *
                    (n * (n - 1) / 2 * logF + (n + 2) * (n - 1) / 2 * logpi + n * (n + 1) / 2 * (w.logp[i] - logpi));
            }
            normalise(other);
            double start = variation(w.logp, want), end = variation(got, want), argmax_l = variation(other, want);
            printf("    %-30s %3ld  %.4f   %.4f   argmax L is at %.4f\n", ties ? "vbon, ties" : "vbon, additive", N,
                start, end, argmax_l);
            // it telescopes to (sum of p)^N, and p is a float model's
            CHECK_NEAR(sum, pow(mass, n), 1e-12, "sum of pi_bon");
            CHECK_NEAR(mass, 1, 1e-6, "sum of p");
            CHECK(J >= L && L >= L1 && J <= 1e-9, "J %g >= L %g >= L1 %g, J <= 0", J, L, L1);
            CHECK(start >= 0.2 && end <= 0.02 && end < argmax_l, "N=%ld: total variation %.4f -> %.4f, argmax L %.4f",
                N, start, end, argmax_l);
            world_close(&r);
        }
    }
}

static void other_optima(void) // of the other objectives, and where --compat scale lands
{
    static const struct { const char *objective; double strength; const char *flags; } cases[] = {
        {"rl", 0.5, "--beta 0.5"},
        {"l", 4, "--n 4"},
        {"l", 3.5, "--beta 0.4"},
        {"l1", 3, "--n 3"},
        {"vbon", 2, "--n 2 --compat scale"},
        {"vbon", 4, "--n 4 --compat scale"}};
    static WorldRun r;
    double got[STRINGS], want[STRINGS], best[STRINGS];
    for (size_t k = 0; k < COUNT(cases); k++) {
        const char *objective = cases[k].objective;
        double N = cases[k].strength, beta = N;
        bool compat = !strcmp(objective, "vbon");
        if (few() && strcmp(objective, "l1")) continue;
        char *name = format("--objective %s %s", objective, cases[k].flags), *flags = format("%s --seed 2", name);
        world_train(&r, flags, got);
        World w = r.w;
        for (int i = 0; i < STRINGS; i++) {
            double p = w.logp[i], F = floored(w.logF[i]);
            if (!strcmp(objective, "rl")) want[i] = p + w.reward[i] / beta;
            else if (!strcmp(objective, "l")) want[i] = p + (N - 1) * F;
            else want[i] = N * (N + 1) / 2 * p + N * (N - 1) / 2 * F; // l1
        }
        if (compat) best_of_exactly(&w, 1 + (N - 1) * (N - 1) / N, want); // N_eff
        normalise(want);
        if (!compat) leads_to(&r, objective, want);
        double start = variation(w.logp, want), end = variation(got, want);
        if (compat) {
            best_of_exactly(&w, N, best);
            double beside = variation(got, best);
            printf("    %-39s %.4f   %.4f   to Best-of-N %.4f\n", name, start, end, beside);
            CHECK(end < beside, "released scaling lands at N_eff");
        } else {
            printf("    %-39s %.4f   %.4f\n", name, start, end);
            CHECK(end <= 0.02 && end < start, "%s: total variation to its own optimum %.4f -> %.4f", name, start, end);
        }
        world_close(&r);
        free(name); free(flags);
    }
}

// log of the policy that minimises forward KL(best || pi) + kappa KL(pi || anchor) - score E_pi[g], the anchor being
// the reference: where -forward best/pi + kappa log(pi/anchor) - score g is one constant for all strings.
static void bond_minimum(const World *w, const ObjectiveSpec *o, const double *g, double *out)
{
    double best[STRINGS], low = -1e4, high = 1e4;
    best_of_exactly(w, (double)o->best, best);
    for (int it = 0; it < 200; it++) {
        double constant = (low + high) / 2, sum = 0;
        for (int i = 0; i < STRINGS; i++) {
            double a = -1e3, b = 1e3; // log pi
            for (int k = 0; k < 100; k++) {
                double x = (a + b) / 2;
                bool more = -o->forward * exp(best[i] - x) + o->kappa * (x - w->logp[i]) - o->score_scale * g[i] <
                    constant;
                if (more) a = x;
                else b = x;
            }
            out[i] = (a + b) / 2;
            sum += exp(out[i]);
        }
        if (sum < 1) low = constant;
        else high = constant;
    }
}

// The policy among Best-of-N's of real N that is nearest to this one: returns N and the total variation.
static double nearest_best_of(const World *w, const double *logp, double *apart)
{
    double at = 1, q[STRINGS];
    *apart = INFINITY;
    for (double N = 1; N < 1e4; N *= 1.02) {
        best_of_exactly(w, N, q);
        double d = variation(logp, q);
        if (d < *apart) { *apart = d; at = N; }
    }
    return at;
}

// BOND converges to the minimum of its loss by enumeration, and so does J-BOND while its anchor stands still. Where the
// anchor moves there is no such minimum: the policy goes along Best-of-N's of growing N, to the best string alone.
static void bond_optima(void)
{
    static const struct { const char *name, *flags; } cases[] =
        {{"jbond, the anchor stands", "--objective jbond --anchor-rate 0"}, {"bond", "--objective bond --n 16"}};
    static WorldRun r;
    double got[STRINGS], want[STRINGS], best[STRINGS], g[STRINGS], half[STRINGS], apart[2];
    for (size_t c = 0; c < COUNT(cases); c++) {
        if (few() && c) continue;
        char *flags = format("%s --critic others --lambda 1 --seed 3", cases[c].flags); // REINFORCE
        world_train(&r, flags, got);
        free(flags);
        World w = r.w;
        ObjectiveSpec o = r.ppo.opt.objective;
        for (int i = 0; i < STRINGS; i++) { // the mean over the draws of log p<=
            double P = exp(w.logF[i]) + exp(w.logp[i]), k = 16;
            g[i] = 0;
            for (int j = 0; j <= 16; j++)
                g[i] += exp(lgamma(k + 1) - lgamma(j + 1.0) - lgamma(k - j + 1)) * pow(P, j) *
                    pow(fmax(1 - P, 0), k - j) * log((1 + j) / (1 + k));
            if (!o.N) g[i] = -log(16) * (1 - P) * (1 - P);
        }
        bond_minimum(&w, &o, g, want);
        best_of_exactly(&w, (double)o.best, best);
        double start = variation(w.logp, want), end = variation(got, want), beside = variation(want, best);
        printf("    %-30s %3ld  %.4f   %.4f   Best-of-%ld is at %.4f\n", cases[c].name, o.best, start, end, o.best,
            beside);
        CHECK(end <= 0.02 && end < start, "%s, N = %ld: total variation to its minimum %.4f -> %.4f", cases[c].name,
            o.best, start, end);
        world_close(&r);
    }
    if (few()) return;
    world_begin(&r, "--objective jbond --anchor-rate 0.1 --critic others --lambda 1 --seed 3");
    world_until(&r, r.iterations / 2, half);
    world_until(&r, r.iterations, got);
    double N[2] = {nearest_best_of(&r.w, half, &apart[0]), nearest_best_of(&r.w, got, &apart[1])},
           all = exp(got[STRINGS - 1]); // strings stand from the worst to the best
    printf("    %-30s      halfway %.4f from Best-of-%.0f, then %.4f from Best-of-%.0f; the best string has %.4f\n",
        "jbond, the anchor moves", apart[0], N[0], apart[1], N[1], all);
    CHECK(apart[0] <= 0.1 && apart[1] <= 0.1 && N[0] > 16 && N[1] > 4 * N[0],
        "jbond goes along Best-of-N: %.4f from N = %g, then %.4f from N = %g", apart[0], N[0], apart[1], N[1]);
    CHECK(all >= 0.95, "jbond ends at the best string: it has %.4f of the probability", all);
    world_close(&r);
}

// With the whole correction and lambda = 1 training goes to the objective's optimum whatever the regression says of
// prefixes, and half of the tokens as candidates are enough. By the regression alone it goes near.
static void test_all_actions_world(void)
{
    static const struct { const char *flags; double most; } cases[] =
        {{"--all-actions 2 --correction 1 --lambda 1", 0.02}, {"--all-actions 4 --correction 0", 0.1}};
    static WorldRun r;
    double got[STRINGS];
    for (size_t k = 0; k < COUNT(cases); k++) {
        char *flags = format("--n 4 --fhat digamma --m 1000 --critic prefix-rank --episodes 20480 %s", cases[k].flags);
        world_train(&r, flags, got);
        double start = variation(r.w.logp, r.q[TARGET]), end = variation(got, r.q[TARGET]);
        printf("    %-50s %.4f   %.4f\n", cases[k].flags, start, end);
        CHECK(start >= 0.2 && end <= cases[k].most, "%s: total variation %.4f -> %.4f", flags, start, end);
        world_close(&r);
        free(flags);
    }
}

static void test_world(void)
{
    printf("    %-30s %3s  %-8s %-8s %-8s\n", "objective, reward", "N", "start", "end", "beside");
    vbon_optima();
    other_optima();
    bond_optima();
}

// ----------------------------------------------------------------------------
// offline: of enough comparisons drawn from the reference, bon-sft's optimum is pi_bon, and ipo's, over pairs of two
// draws, is ref exp(t (F - G)) / Z, t = 1/(2 beta), G the probability that a draw is better: there the derivative of E
// (h - t)^2 is 0, for h is a difference f_w - f_l and f_i - E f = t (F_i - G_i).

static void world_offline(World *w, OfflineLoss o, double *out)
{
    enum { DRAWS = 40000, B = 400, STEPS = 500 };
    static int prompt_ids[1] = {1};
    Prompt p = {.ids = prompt_ids, .n = 1};
    Model m;
    Pass s;
    Comparisons c = {0};
    world_model(&m, ops_cpu(), TRAIN_ALL, 3);
    world_reference(w, &m, &p);
    for (int i = 0; i < STRINGS; i++) { arrput(c.responses, w->y[i]); arrput(c.ref, 0); }
    for (int i = 0; i < STRINGS; i++) arrput(c.sequences, sequence_of(&p, &c.responses[i]));
    for (uint64_t d = 0; d < DRAWS; d++) {
        int best = -1, worst = -1;
        for (uint64_t k = 0; k < (o.kind == OFFLINE_IPO ? 2 : (uint64_t)o.N); k++) {
            int i = world_draw(w, random_uniform(4, STREAM_CACHE, d, k, 0));
            if (best < 0 || i > best) best = i; // they stand in this order
            if (worst < 0 || i < worst) worst = i;
        }
        if (o.kind != OFFLINE_IPO || best != worst) arrput(c.list, ((Comparison){(size_t)best, (size_t)worst}));
    }
    pass_create(&s, &m, 1024, true);
    comparisons_reference(&c, &s, 0, arrlenu(c.sequences), 1);
    for (int i = 0; i < STRINGS; i++) CHECK_NEAR(c.ref[i], w->logp[i], 1e-5, "the reference's log-probability");
    size_t which[B], n = arrlenu(c.list);
    double sums[OFFLINE_SUMS] = {0};
    while (m.step < STEPS) {
        for (size_t i = 0; i < B; i++) which[i] = ((size_t)m.step * B + i) % n;
        model_zero_grad(&m);
        offline_batch(&s, &o, &c, which, B, B, 1, sums);
        AdamW opt = {.lr = schedule_lr(ROW(schedules, "linear"), 3e-3, m.step, STEPS, 0), .beta1 = 0.9, .beta2 = 0.95,
            .eps = 1e-8, .clip = 1};
        model_update(&m, &opt);
    }
    world_probabilities(w, &m, &p, out);
    arrfree(c.responses); arrfree(c.ref); arrfree(c.sequences); arrfree(c.list);
    pass_free(&s); model_free(&m);
}

static void test_offline_world(void)
{
    World w;
    double got[STRINGS], want[STRINGS];
    world_create(&w, false, 4);
    for (int k = few(); k < 2; k++) {
        OfflineLoss o = {.kind = k ? OFFLINE_IPO : OFFLINE_BON_SFT, .N = 4, .beta = 0.5};
        world_offline(&w, o, got);
        if (!k) best_of_exactly(&w, 4, want);
        else
            for (int i = 0; i < STRINGS; i++) {
                double F = exp(w.logF[i]), G = 1 - F - exp(w.logp[i]);
                want[i] = w.logp[i] + (F - G) / (2 * o.beta);
            }
        normalise(want);
        double start = variation(w.logp, want), end = variation(got, want);
        printf("    %-30s %3g  %.4f   %.4f\n", k ? "ipo, beta" : "bon-sft, N", k ? o.beta : (double)o.N, start, end);
        CHECK(start >= 0.2 && end <= 0.02, "%s: total variation to its own optimum %.4f -> %.4f", k ? "ipo" : "bon-sft",
            start, end);
    }
    world_free(&w);
}

// ----------------------------------------------------------------------------
// the reference against its own cache, drawn by the engine: a fresh sample's rank is uniform, log
// F-hat (digamma) has mean -1, and the best of N lies above N/(N+1) of the cache. Cache, rollouts
// and Best-of-N must not share draws for that.

static void draw_stream(Model *m, Prompt *p, size_t P, size_t K, uint64_t stream, Response *r)
{
    Generator g = {0};
    Arena work = {.name = "work", .o = m->o};
    for (int pass = 0; pass < 2; pass++) {
        if (pass) arena_place(&work);
        generator_carve(&g, m, &work, 256, 256, 512, 1, 8);
    }
    for (size_t i = 0; i < P * K; i++) r[i] = (Response){.prompt = i / K, .sample = i % K};
    generate(&g, &(Sampling){.temperature = 1, .top_p = 1, .seed = 5, .stream = stream, .eos = -1}, p, r, P * K);
    // any function of the string: continuous, so ranks are uniform
    for (size_t i = 0; i < P * K; i++) r[i].reward = (double)(r[i].key >> 40);
    generator_free(&g); arena_release(&work);
}

static void test_ranks_drawn(void)
{
    enum { P = 3000, M = 9, N = 4 };
    Model m;
    Config c = {.arch = &architectures[ARCH_GPT2], .L = 1, .NH = 2, .C = 16, .F = 32, .V = 60, .max_T = 12,
        .act = ACT_GELU_TANH, .tied = true, .eps = 1e-5, .init_std = 0.3, .eos = 0};
    model_create(&m, ops_cpu(), &c, TRAIN_NONE, false, false);
    model_random(&m, 8);
    model_pack(&m);
    static int id[1] = {7};
    Prompt *p = xcalloc(P, sizeof *p);
    Response *cache = xcalloc(P * M, sizeof *cache), *fresh = xcalloc(P, sizeof *fresh),
             *best = xcalloc(P * N, sizeof *best);
    for (size_t i = 0; i < P; i++) p[i] = (Prompt){.ids = id, .n = 1};
    draw_stream(&m, p, P, M, STREAM_CACHE, cache);
    draw_stream(&m, p, P, 1, STREAM_ROLLOUT, fresh);
    draw_stream(&m, p, P, N, STREAM_BON, best);
    double count[M + 1] = {0}, *logF = xmalloc(P * sizeof *logF), *above = xmalloc(P * sizeof *above), chi = 0;
    for (size_t i = 0; i < P; i++) {
        Cdf d = {.M = M, .reward = xmalloc(M * sizeof(double)), .key = xmalloc(M * sizeof(uint64_t))};
        for (size_t k = 0; k < M; k++) { d.reward[k] = cache[i * M + k].reward; d.key[k] = cache[i * M + k].key; }
        double rank;
        Place at = cdf_place(&d, fresh[i].reward, fresh[i].key);
        rank = at.k;
        logF[i] = ROW(fhats, "digamma")->log_f(&at);
        count[(int)rank]++;
        const Response *top = &best[i * N];
        for (size_t k = 1; k < N; k++) if (best[i * N + k].reward > top->reward) top = &best[i * N + k];
        above[i] = cdf_rank(&d, top->reward, top->key, NULL) / M;
        free(d.reward); free(d.key);
    }
    for (int k = 0; k <= M; k++) chi += (count[k] - P / (M + 1.0)) * (count[k] - P / (M + 1.0)) / (P / (M + 1.0));
    Estimate e = estimate(logF, P), a = estimate(above, P);
    CHECK(chi < 27.88, "ranks are not uniform: chi-square %g with 9 degrees of freedom (27.88 at p = .001)", chi);
    CHECK(fabs(e.mean + 1) <= 4 * e.se, "E[log F-hat] = %g +- %g, not -1", e.mean, e.se);
    CHECK(fabs(a.mean - N / (N + 1.0)) <= 4 * a.se, "Best-of-4 lies above %g +- %g of the cache, not .8", a.mean, a.se);
    for (size_t i = 0; i < P * M; i++) response_free(&cache[i]);
    for (size_t i = 0; i < P; i++) response_free(&fresh[i]);
    for (size_t i = 0; i < P * N; i++) response_free(&best[i]);
    free(cache); free(fresh); free(best); free(p); free(logF); free(above);
    model_free(&m);
}

// ----------------------------------------------------------------------------
// Best-of-N's own samples are at distance 0 from Best-of-N, in the log and by evaluate, whatever M. Rewards of the
// reference are uniform on [0, 1], so that F is the reward, and the largest of N uniform numbers is Best-of-N's. The
// policy is the reference, so its KL to it is 0 and what is measured is E[log ref - log pi_bon]; the exact E[log pi_bon
// - log ref] = E[log N + (N-1) log F] is added.

enum { OWN_N = 16 };
static void own_rewards(void *context, const Prompt *prompts, Response *r, size_t n, bool prefixes)
{
    (void)context; (void)prompts; (void)prefixes;
    for (size_t i = 0; i < n; i++) r[i].reward = pow(random_uniform(4, 1, r[i].prompt, 0, 0), 1.0 / OWN_N);
}

static void test_measured(void)
{
    enum { P = 2048, MOST = 600 };
    static const size_t Ms[] = {32, 200, MOST};
    static int id[1] = {7};
    static double reward[P][MOST];
    static uint64_t key[P][MOST];
    Config c = {.arch = &architectures[ARCH_GPT2], .L = 1, .NH = 2, .C = 16, .F = 32, .V = 60, .max_T = 12,
        .act = ACT_GELU_TANH, .tied = true, .eps = 1e-5, .init_std = 0.3, .eos = 0};
    Prompt *p = xcalloc(P, sizeof *p);
    Cdf *cdf = xcalloc(P, sizeof *cdf);
    for (size_t i = 0; i < P; i++) {
        p[i] = (Prompt){.ids = id, .n = 1};
        for (size_t k = 0; k < MOST; k++) {
            reward[i][k] = random_uniform(4, 2, i, k, 0);
            key[i][k] = mix64(i * MOST + k);
        }
    }
    for (int v = 0; v < 3; v++) {
        double exact = 0, error = 0, M = (double)Ms[v], n = OWN_N - 1;
        Model m;
        Ppo ppo;
        PromptEvaluation each[P];
        model_create(&m, ops_cpu(), &c, TRAIN_ALL, true, false);
        model_random(&m, 8);
        value_head_random(&m, 8);
        for (size_t i = 0; i < P; i++) cdf[i] = (Cdf){.M = Ms[v], .reward = reward[i], .key = key[i]};
        Args told;
        // distances do not look at --fhat
        PpoOptions opt = world_told(&told, "--n %d --fhat add1 --seed 3 --episodes %d --rollout %d --ppo-epochs 1 "
            "--lr 0", OWN_N, P, P);
        opt.max_new = 8; opt.eos = -1;
        ppo_create(&ppo, &opt, &m, p, cdf, P, own_rewards, NULL);
        ppo_iteration(&ppo);
        const Rollout *r = &ppo.rollout;
        for (size_t i = 0; i < P; i++) {
            double F = r->y[i].reward;
            exact += (log(OWN_N) + n * log(F)) / P;
            error += n * n * (1 - F) / (F * M) / P / P; // of log(k/M), k being binomial, near log F
        }
        error = sqrt(error);
        double logged = metric(&ppo, "vbon/distance") + exact;
        evaluate(each,
                 &(EvalSpec){.policy = &m, .reference = &m, .temperature = 1, .ns = {OWN_N}, .n_ns = 1, .tokens = 1024},
                 p, cdf, r->y, P, 1);
        Evaluation e = evaluation(each, P);
        double evaluated = e.distance[0].mean + exact;
        CHECK(fabs(logged) <= 4 * error, "M = %g: Best-of-16's own samples are at %g +- %g in the log, not 0", M,
              logged, error);
        CHECK(fabs(evaluated) <= 4 * error, "M = %g: Best-of-16's own samples are at %g +- %g by evaluate, not 0", M,
              evaluated, error);
        CHECK_NEAR(metric(&ppo, "vbon/distance_se"), e.distance[0].se, 1e-4, "the error in the log");
        CHECK(fabs(e.win.mean - OWN_N / (OWN_N + 1.0)) <= 4 * e.win.se, "they win %g +- %g, not 16/17", e.win.mean,
              e.win.se);

        // with lambda = 1 the returns are the sums of the rewards, whatever the values
        for (size_t j = 0; j < r->actions; j++) r->value[j] = r->reward[j] * random_uniform(4, 3, j, 0, 0);
        for (size_t i = 0, a; i < P; i++) {
            a = r->at[i];
            gae(r->advantage + a, r->returns + a, r->reward + a, r->value + a, r->y[i].n, 0.9, 1);
        }
        CHECK_NEAR(explained_sums(r, 0.9), explained_variance(r, r->returns), 1e-9, "explained of Monte-Carlo returns");
        ppo_free(&ppo); model_free(&m);
    }
    free(p); free(cdf);

    // all of a prompt's cached samples, each compared with the others: half of the pairs are won
    Response own[5];
    PromptEvaluation e;
    for (size_t k = 0; k < 5; k++) own[k] = (Response){.reward = reward[0][k], .key = key[0][k], .n = 1};
    evaluate(&e, &(EvalSpec){0}, NULL, &(Cdf){.M = 5, .reward = reward[0], .key = key[0]}, own, 5, 5);
    CHECK_NEAR(e.win, 0.5, 1e-12, "the reference's own cached samples win half");
    evaluate(&e, &(EvalSpec){0}, NULL, &(Cdf){.M = 1, .reward = reward[0], .key = key[0]}, own, 1, 1);
    CHECK(e.win == 0.5, "nothing but itself to be compared with: %g", e.win);
}

// ----------------------------------------------------------------------------
// a strictly increasing map of the rewards, applied to cache and rollouts alike, changes
// nothing but the raw rewards in the log

static double cube(double r) { return (double)(float)(r * r * r * 0.01 + exp(r)); }

static void monotone_run(double (*map)(double), const char *objective, const char *fhat, const char *critic,
    real *weights, double *kl)
{
    static int prompt_ids[2][1] = {{1}, {3}};
    World w;
    Prompt p[2] = {{.ids = prompt_ids[0], .n = 1}, {.ids = prompt_ids[1], .n = 1}};
    Cdf cdf[2];
    Model m;
    world_create(&w, false, 9);
    w.map = map;
    world_model(&m, ops_cpu(), TRAIN_ALL, 6);
    for (int k = 0; k < 2; k++) { // a cache of 24 strings drawn with repetition
        Cdf *c = &cdf[k];
        *c = (Cdf){.M = 24, .reward = xmalloc(24 * sizeof(double)), .key = xmalloc(24 * sizeof(uint64_t))};
        for (uint64_t i = 0; i < 24; i++) {
            size_t s = (size_t)(random_uniform(1, STREAM_CACHE, (uint64_t)k, i, 0) * STRINGS);
            c->reward[i] = map ? map(w.reward[s]) : w.reward[s];
            c->key[i] = w.y[s].key;
        }
    }
    Ppo ppo;
    Args a;
    PpoOptions opt = world_told(&a, "--objective %s --n 4 --fhat %s --critic %s --seed 3 --episodes 384 --rollout 64 "
        "--minibatch 32", objective, fhat, critic);
    opt.has_missing_eos = true; opt.missing_eos = map ? map(-3) : -3;
    ppo_create(&ppo, &opt, &m, p, cdf, 2, world_reward, &w);
    for (int i = 0; i < 6; i++) { ppo_iteration(&ppo); kl[i] = metric(&ppo, "objective/kl"); }
    memcpy(weights, m.data.p, m.n_params * sizeof *weights);
    ppo_free(&ppo); model_free(&m);
    for (int k = 0; k < 2; k++) { free(cdf[k].reward); free(cdf[k].key); }
    world_free(&w);
}

// Rows added at run time are found by name and train differently: an objective that sees
// lengths, an estimate of log F, a critic.
static double short_score(const ObjectiveSpec *o, const Response *y, double logF, double logp)
{
    return vbon_score(o, y, logF, logp) - 0.5 * (double)y->n;
}
static double half_log_f(const Place *at) { return log((at->k + 0.5) / ((double)at->cdf->M + 1)); }
static int learned;
static void zero_values(Ppo *p) { for (size_t j = 0; j < p->rollout.actions; j++) p->rollout.value[j] = p->critic[0]; }
static void count_learn(Ppo *p) { p->critic[0] = 0.1 * ++learned; }

static void test_rows(void)
{
    ROW_ADD(objectives, {"short", NULL, TAKES_N, vbon_weights, short_score, true, false});
    ROW_ADD(fhats, {"half", NULL, half_log_f, NULL, false, false});
    ROW_ADD(critics, {"constant", NULL, false, false, 1, zero_values, count_learn});
    static const char *const runs[][3] = {
        {"vbon", "digamma", "head"}, {"short", "digamma", "head"}, {"vbon", "half", "head"},
        {"vbon", "digamma", "constant"}};
    Model m;
    world_model(&m, ops_cpu(), TRAIN_ALL, 6);
    size_t n = m.n_params;
    model_free(&m);
    real *weights = xmalloc(4 * n * sizeof *weights);
    double kl[6];
    for (size_t k = 0; k < 4; k++) monotone_run(NULL, runs[k][0], runs[k][1], runs[k][2], weights + k * n, kl);
    for (size_t a = 0; a < 4; a++)
        for (size_t b = 0; b < a; b++)
            CHECK(memcmp(weights + a * n, weights + b * n, n * sizeof *weights),
                "%s, %s, %s trains to the same bits as %s, %s, %s", runs[a][0], runs[a][1], runs[a][2], runs[b][0],
                runs[b][1], runs[b][2]);
    CHECK(learned == 6, "the critic learned %d times in 6 iterations", learned);
    size_t last = row_named(objectives, sizeof *objectives, "short"), fhat = row_named(fhats, sizeof *fhats, "half"),
           critic = row_named(critics, sizeof *critics, "constant");
    CHECK(!row_name(objectives, sizeof *objectives, last + 1), "the new row is the last");
    objectives[last] = (Objective){0}; fhats[fhat] = (Fhat){0}; critics[critic] = (Critic){0};
    free(weights);
}

static void test_monotone(void)
{
    Model m;
    world_model(&m, ops_cpu(), TRAIN_ALL, 6);
    size_t n = m.n_params;
    model_free(&m);
    real *a = xmalloc(n * sizeof *a), *b = xmalloc(n * sizeof *b);
    double ka[6], kb[6];
    static const char *const kinds[][3] = {
        {"vbon", "digamma", "head"}, {"l", "mc", "head"}, {"l1", "add1", "head"},
        {"vbon", "digamma", "prefix-rank"}};
    for (int k = 0; k < 4; k++) {
        monotone_run(NULL, kinds[k][0], kinds[k][1], kinds[k][2], a, ka);
        monotone_run(cube, kinds[k][0], kinds[k][1], kinds[k][2], b, kb);
        CHECK(!memcmp(a, b, n * sizeof *a) && !memcmp(ka, kb, sizeof ka),
            "weights or KL differ under a monotone map, objective %s", kinds[k][0]);
        CHECK(fabs(ka[5]) > 1e-4, "the run moved: KL %g", ka[5]);
    }
    free(a); free(b);
}

// ----------------------------------------------------------------------------
// vbon world: what a pipe gets

static json_t *world_said(const char *args) // all records, an array
{
    char *command = format("cd %s && '%s' world %s > world.jsonl 2> world_err", test_folder, vbon(), args);
    int status = system(command);
    CHECK(!status, "%s: %d", command, status);
    free(command);
    json_t *all = json_array();
    for (size_t i = 0, n = status ? 0 : count_lines("world.jsonl"); i < n; i++)
        json_array_append_new(all, get_line("world.jsonl", i));
    return all;
}

static double number_of(const json_t *j, const char *key)
{
    const json_t *v = json_object_get(j, key);
    CHECK(json_is_number(v), "no number \"%s\"", key);
    return json_number_value(v);
}

// A record lists all strings, the best first, and what is said of them agrees with what they are.
static void world_adds_up(const json_t *record, const char *args)
{
    static const char *const kinds[] = {"p", "pi_theta", "pi_bon", "l", "l1", "rl", "target"};
    double sum[COUNT(kinds)] = {0}, tv = 0, kl = 0, reward = 0;
    json_t *list = json_object_get(record, "strings");
    size_t n = json_array_size(list);
    for (size_t i = 0; i < n; i++) {
        json_t *y = json_array_get(list, i), *next = json_array_get(list, i + 1);
        double pi = number_of(y, "pi_theta"), bon = number_of(y, "pi_bon");
        for (size_t k = 0; k < COUNT(kinds); k++) sum[k] += number_of(y, kinds[k]);
        tv += fabs(pi - bon) / 2;
        kl += pi * log(pi / bon);
        reward += pi * number_of(y, "reward");
        CHECK_NEAR(number_of(y, "F"), next ? number_of(next, "F") + number_of(next, "p") : 0, 1e-7, "F");
        CHECK(!next || number_of(y, "reward") >= number_of(next, "reward"), "%s: string %zu: the order", args, i + 1);
    }
    CHECK(n == STRINGS, "%s: %zu strings", args, n);
    for (size_t k = 0; k < COUNT(kinds); k++) CHECK_NEAR(sum[k], 1, 1e-5, kinds[k]);
    CHECK_NEAR(number_of(record, "tv/pi_bon"), tv, 1e-7, "total variation");
    CHECK_NEAR(number_of(record, "kl/pi_bon"), kl, 1e-6, "KL");
    CHECK_NEAR(number_of(record, "J"), -kl, 1e-6, "J");
    CHECK_NEAR(number_of(record, "reward"), reward, 1e-6, "the mean reward");
}

// Each objective reaches its optimum, which is named; what it is compared with is not where it goes.
static void world_records(void)
{
    static const struct { const char *args, *goal; size_t every; double at_most; } runs[] = {
        {"--n 4 --ties", "pi_bon", 5, 0.02},
        {"--objective rl --beta 0.5", "rl", 5, 0.02},
        {"--objective l1 --n 3", "l1", 5, 0.02},
        {"--objective l --beta 0.4 --log-every 30", "l", 30, 0.02},
        {"--n 4 --compat scale", "target", 5, 0.02},
        {"--n 4 --fhat digamma --critic prefix-rank --m 100", "target", 5, 0.04}};
    for (size_t k = 0; k < COUNT(runs); k++) {
        const char *args = runs[k].args, *goal = runs[k].goal;
        char *hundred = format("%s --episodes 25600", args), *key = format("tv/%s", goal);
        if (!few() || !k) {
            json_t *all = world_said(hundred), *config = json_array_get(all, 0), *begin = json_array_get(all, 1);
            size_t n = json_array_size(all);
            json_t *end = json_array_get(all, n - 1);
            CHECK(n == 1 + (100 + runs[k].every - 1) / runs[k].every + 1, "%s: %zu records", args, n);
            CHECK(json_object_get(config, "flags"), "%s: a config record comes first", args);
            for (size_t i = 1; i < n; i++) {
                double step = i < n - 1 ? (double)((i - 1) * runs[k].every) : 100;
                CHECK(number_of(json_array_get(all, i), "step") == step, "%s: record %zu", args, i);
                world_adds_up(json_array_get(all, i), args);
            }
            const char *said = json_string_value(json_object_get(config, "goal"));
            CHECK(said && !strcmp(said, goal), "%s: leads to %s, not to %s", args, goal, said);
            CHECK(number_of(begin, "tv/reference") < 1e-5 && number_of(begin, key) > 0.2, "%s: begins at p", args);
            CHECK(number_of(end, key) <= runs[k].at_most, "%s: %.4f from %s", args, number_of(end, key), goal);
            CHECK(number_of(end, "tv/target") <= number_of(end, key) + 1e-6, "%s: the target is it", args);
            CHECK(json_object_get(end, "policy/clipfrac_avg"), "%s: PPO's own metrics are there", args);
            json_decref(all);
        }
        free(hundred); free(key);
    }
    json_t *one = world_said("--n 1 --episodes 256"); // Best-of-1 is the reference: exactly, and by every objective
    CHECK(number_of(json_array_get(one, 1), "tv/pi_bon") < 1e-5 && number_of(json_array_get(one, 1), "tv/l") < 1e-5 &&
              number_of(json_array_get(one, 1), "tv/l1") < 1e-5, "Best-of-1 is the reference");
    json_decref(one);
    json_t *same[2];
    for (int k = 0; k < 2; k++) {
        same[k] = world_said("--episodes 768 --seed 7 --log-every 1");
        for (size_t i = 0; i < json_array_size(same[k]); i++)
            json_object_del(json_array_get(same[k], i), "time/seconds");
    }
    CHECK(json_array_size(same[0]) == 5 && json_equal(same[0], same[1]), "two equal runs differ");
    json_decref(same[0]); json_decref(same[1]);
}

static void world_refuses(void)
{
    static const Refused cases[] = {
        {"--objective rl", 1, "needs --beta"},
        {"--objective rl --n 4", 1, "takes --beta, not --n"},
        {"--objective l1 --beta 1", 1, "takes --n, not --beta"},
        {"--n 4 --beta 1", 1, "exclude each other"},
        {"--compat jointp", 2, "the one token that it leaves out"},
        {"--objective l --compat scale", 1, "a scaling of --objective vbon"},
        {"--fhat digamma --m 0", 2, "at least 1"},
        {"--critic prefix-rank", 2, "does not go with --fhat exact"},
        {"--gamma 0.9", 2, "belongs to: train; not to world"},
        {"--episodes 1000000000 --minibatch 1 --rollout 1000000 --ppo-epochs 1000000000", 2, "optimiser steps"}};
    expect_refusals("world %s", cases, COUNT(cases));
}

// ----------------------------------------------------------------------------
// and what a terminal shows. This one knows what the table uses: \r, \n, ESC [ n A, ESC [ K; it keeps in `text` (stb's)
// the lines that went out at its top, and counts how often a line was too long, or the cursor above the first.

enum { SCREEN_LINES = 64, SCREEN_COLUMNS = 200 };
typedef struct { char *text, cell[SCREEN_LINES][SCREEN_COLUMNS]; int lines, columns, y, x, too_long, above; }
    WorldScreen;

static void world_screen_keep(WorldScreen *s, int y)
{
    for (int k = 0; k < s->columns; k++) arrput(s->text, s->cell[y][k]);
    arrput(s->text, '\n');
}

static void world_screen_down(WorldScreen *s)
{
    s->x = 0;
    if (++s->y < s->lines) return;
    world_screen_keep(s, 0);
    memmove(s->cell[0], s->cell[1], sizeof s->cell[0] * (size_t)(s->lines - 1));
    memset(s->cell[--s->y], ' ', sizeof s->cell[0]);
}

static void world_screen_show(WorldScreen *s, const char *c)
{
    for (; *c; c++) {
        if (*c == '\r') s->x = 0;
        else if (*c == '\n') world_screen_down(s);
        else if (*c == '\033') {
            char *end;
            long by = strtol(c + 2, &end, 10);
            c = end;
            if (*c == 'A') s->y -= (int)by;
            if (s->y < 0) { s->y = 0; s->above++; }
            if (*c == 'K') memset(s->cell[s->y] + s->x, ' ', (size_t)(s->columns - s->x));
        } else {
            if (s->x == s->columns) { s->too_long++; world_screen_down(s); }
            s->cell[s->y][s->x++] = *c;
        }
    }
}

// What `vbon world` writes to a terminal of this size, stb's.
static char *world_on_terminal(int lines, int columns, const char *type, const char *args)
{
    int fd = posix_openpt(O_RDWR | O_NOCTTY);
    struct winsize size = {.ws_row = (unsigned short)lines, .ws_col = (unsigned short)columns};
    if (fd < 0 || grantpt(fd) || unlockpt(fd)) die("no pseudo-terminal: %s", strerror(errno));
    char *text = NULL, piece[4096];
    pid_t child = fork();
    if (child < 0) die("fork: %s", strerror(errno));
    if (!child) {
        int terminal = open(ptsname(fd), O_RDWR | O_NOCTTY);
        if (terminal < 0 || ioctl(terminal, TIOCSWINSZ, &size) || dup2(terminal, 1) < 0) _exit(99);
        char *command = format("TERM=%s exec '%s' world %s 2> /dev/null", type, vbon(), args);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(99);
    }
    for (ssize_t n; (n = read(fd, piece, sizeof piece)) > 0 || (n < 0 && errno == EINTR);)
        for (ssize_t i = 0; i < n; i++) arrput(text, piece[i]);
    arrput(text, 0);
    int status;
    waitpid(child, &status, 0);
    CHECK(!status, "vbon world on a terminal: %d", status);
    close(fd);
    return text;
}

// One table, all of it in the last lines, nothing cut off or drawn over; each string once, with a number behind it.
static void world_table_is_whole(int lines, int columns, int want, const char *args)
{
    static WorldScreen s;
    s = (WorldScreen){.lines = lines, .columns = columns};
    memset(s.cell, ' ', sizeof s.cell);
    char *text = world_on_terminal(lines, columns, "xterm", args);
    world_screen_show(&s, text);
    for (int y = 0; y < lines; y++) world_screen_keep(&s, y);
    arrput(s.text, 0);
    int tables = 0, strings = 0;
    for (char *p = s.text; (p = strstr(p, ": iteration ")); p++) tables++;
    World w;
    world_create(&w, false, 4);
    for (int i = 0; i < STRINGS; i++) {
        char row[16], y[WORLD_T + 1];
        world_text(y, &w.y[i]);
        snprintf(row, sizeof row, "%-3s %5.2f ", y, w.reward[i]);
        int times = 0;
        for (char *p = s.text; (p = strstr(p, row)); p++) times += p == s.text || p[-1] == ' ' || p[-1] == '\n';
        CHECK(times <= 1, "%s is in the table %d times", y, times);
        strings += times;
    }
    world_free(&w);
    CHECK(tables == 1 && strstr(s.text, "iteration 12 of 12"), "%d tables, %d columns", tables, columns);
    CHECK(strings == want, "%d strings in %d lines and %d columns", strings, lines, columns);
    CHECK(!s.above && !s.too_long, "the cursor was %d times above the top, %d lines too long", s.above, s.too_long);
    arrfree(s.text); arrfree(text);
}

static void test_world_command(void)
{
    tiny_folders();
    world_records();
    world_refuses();
    if (!terminals()) return;
    static const struct { int lines, columns, strings; const char *args; } sizes[] = {
        {24, 80, 40, ""}, {24, 80, 40, "--objective l --n 3"}, {50, 80, 40, ""}, {24, 120, 40, ""},
        {24, 160, 40, "--objective rl --beta 1"}, {12, 60, 8, ""}};
    for (size_t k = 0; k < COUNT(sizes); k++) {
        char *args = format("--episodes 3072 %s", sizes[k].args);
        world_table_is_whole(sizes[k].lines, sizes[k].columns, sizes[k].strings, args);
        free(args);
    }
    char *text = world_on_terminal(24, 80, "dumb", "--episodes 512");
    CHECK(!strncmp(text, "{\"type\":\"config\"", 16) && !strchr(text, '\033'), "a dumb terminal gets what a pipe gets");
    arrfree(text);
}
