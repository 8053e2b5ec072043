// world_test.h: a language model so small that every string can be listed (vocabulary 4, at most 3 tokens: 40 strings),
// trained by the shipped PPO loop with the exact F, and measured by enumeration: the total variation between the
// trained model and the optimum of its objective.
//
// Rewards are structured (additive over tokens, or a count of one token with ties). With rewards that
// order the strings at random, PPO drops rare branches early and N = 16 fails whatever the batch or
// rate: known, and no property of the objective.

enum { STRINGS = 40, WORLD_V = 4, WORLD_T = 3 };
typedef struct {
    Response y[STRINGS];
    double reward[STRINGS], logp[STRINGS], logF[STRINGS];
    Cdf cdf;
    double (*map)(double); // applied to every reward, or NULL
} World;

static void world_strings(World *w)
{
    size_t n = 0;
    for (int len = 1; len <= WORLD_T; len++)
        for (int code = 0; code < 1 << 2 * len; code++) {
            int ids[WORLD_T];
            bool valid = true;
            for (int t = 0; t < len; t++) { ids[t] = code >> 2 * t & 3; valid &= ids[t] != 0 || t == len - 1; }
            if (!valid || (len < WORLD_T && ids[len - 1] != 0)) continue; // token 0 ends a string
            w->y[n] = (Response){.ids = xmalloc(sizeof ids), .n = (size_t)len, .finished = ids[len - 1] == 0,
                .key = order_key(ids, (size_t)len)};
            memcpy(w->y[n++].ids, ids, sizeof ids);
        }
    if (n != STRINGS) die("%zu strings, not 40", n);
}

static void world_rewards(World *w, bool ties, uint64_t seed)
{
    for (int i = 0; i < STRINGS; i++) {
        w->reward[i] = 0;
        for (size_t t = 0; t < w->y[i].n; t++)
            if (ties) w->reward[i] += w->y[i].ids[t] == 2;
            else w->reward[i] += 2 * random_uniform(seed, 77, t, (uint64_t)w->y[i].ids[t], 0) - 1;
        w->reward[i] = (double)(float)w->reward[i];
    }
}

static bool below(const World *w, int a, int b)
{
    return w->reward[a] != w->reward[b] ? w->reward[a] < w->reward[b] : w->y[a].key < w->y[b].key;
}

static void world_probabilities(World *w, Model *m, const Prompt *p, double *logp)
{
    Pass s;
    pass_create(&s, m, 256, false);
    Sequence q[STRINGS];
    double lp[STRINGS * WORLD_T];
    for (int i = 0; i < STRINGS; i++) q[i] = sequence_of(p, &w->y[i]);
    sequence_logps(&s, &m->p, q, STRINGS, 1, lp, NULL);
    for (int i = 0, k = 0; i < STRINGS; i++) { logp[i] = 0; for (size_t t = 0; t < w->y[i].n; t++) logp[i] += lp[k++]; }
    pass_free(&s);
}

static void world_reward(void *context, const Prompt *prompts, Response *r, size_t n, bool prefixes)
{
    World *w = context;
    (void)prompts;
    for (size_t i = 0; i < n; i++) {
        for (int k = 0; k < STRINGS; k++)
            if (w->y[k].key == r[i].key) r[i].reward = w->map ? w->map(w->reward[k]) : w->reward[k];
        if (!prefixes) continue;
        r[i].prefix = xrealloc(r[i].prefix, r[i].n * sizeof(double));
        double score = -0.5; // what the tokens so far add up to, more or less
        for (size_t t = 0; t < r[i].n; score += 0.3 * r[i].ids[t++])
            r[i].prefix[t] = w->map ? w->map((double)(float)score) : (double)(float)score;
    }
}

static double variation(const double *logp, const double *logq)
{
    double s = 0;
    for (int i = 0; i < STRINGS; i++) s += fabs(exp(logp[i]) - exp(logq[i])) / 2;
    return s;
}
static void normalise(double *logp)
{
    double s = 0, most = -INFINITY;
    for (int i = 0; i < STRINGS; i++) most = fmax(most, logp[i]);
    for (int i = 0; i < STRINGS; i++) s += exp(logp[i] - most);
    for (int i = 0; i < STRINGS; i++) logp[i] -= most + log(s);
}

static void world_model(Model *m, const Ops *o, long train_layers, uint64_t seed)
{
    Config c = {.arch = &architectures[ARCH_GPT2], .L = 2, .NH = 2, .C = 16, .F = 64, .V = WORLD_V, .max_T = 4,
        .act = ACT_GELU_TANH, .tied = true, .eps = 1e-5, .init_std = 0.15, .eos = 0};
    model_create(m, o, &c, train_layers, true, false);
    model_random(m, seed);
    value_head_random(m, seed);
}

static PpoOptions world_options(ObjectiveSpec o, uint64_t seed)
{
    return (PpoOptions){.objective = o, .fhat = ROW(fhats, "exact"), .critic = ROW(critics, "head"), .temperature = 1,
        .clip = 0.2, .value_clip = 0.2, .vf_coef = 1, .gamma = 1, .lambda = 0.95, .lr = 1e-3,
        .episodes = 256 * 200, .rollout = 256, .minibatch = 128, .epochs = 4, .max_new = WORLD_T,
        .schedule = ROW(schedules, "linear"), .tokens = 1024, .seed = seed, .eos = 0,
        .adamw = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip = 1}};
}

static double metric(const Ppo *p, const char *key)
{
    for (size_t i = 0; i < p->n_metrics; i++) if (!strcmp(p->metrics[i].key, key)) return p->metrics[i].value;
    die("no metric %s", key);
}

// Trains in the world and returns the model's log-probabilities of all strings, at the end and, if `halfway` is not
// NULL, after half of the iterations
static void world_train(World *w, ObjectiveSpec o, uint64_t seed, double *halfway, double *out)
{
    static int prompt_ids[1] = {1};
    Prompt p = {.ids = prompt_ids, .n = 1};
    Model m;
    world_model(&m, ops_cpu(), TRAIN_ALL, 3);
    world_probabilities(w, &m, &p, w->logp);
    double *table = xmalloc(STRINGS * sizeof *table), *rewards = xmalloc(STRINGS * sizeof *rewards);
    uint64_t *keys = xmalloc(STRINGS * sizeof *keys);
    for (int i = 0; i < STRINGS; i++) {
        double F = 0;
        for (int k = 0; k < STRINGS; k++) if (below(w, k, i)) F += exp(w->logp[k]);
        w->logF[i] = table[i] = log(F);
        rewards[i] = w->reward[i];
        keys[i] = w->y[i].key;
    }
    Cdf cdf = {.M = STRINGS, .reward = rewards, .key = keys, .logF = table};
    Ppo ppo;
    PpoOptions opt = world_options(o, seed);
    objective_prepare(&o);
    if (o.forward > 0) { opt.critic = ROW(critics, "others"); opt.lambda = 1; } // REINFORCE
    ppo_create(&ppo, &opt, &m, &p, &cdf, 1, world_reward, w);
    while (ppo.iteration < opt.episodes / opt.rollout) {
        if (halfway && 2 * ppo.iteration == opt.episodes / opt.rollout) world_probabilities(w, &m, &p, halfway);
        ppo_iteration(&ppo);
    }
    world_probabilities(w, &m, &p, out);
    ppo_free(&ppo); model_free(&m);
    free(table); free(rewards); free(keys);
}

static void best_of_exactly(const World *w, double N, double *out) // log pi_bon; N may be fractional
{
    for (int i = 0; i < STRINGS; i++) {
        double F = exp(w->logF[i]), p = exp(w->logp[i]);
        out[i] = log(pow(F + p, N) - pow(F, N));
    }
}
static double floored(double logF) { return logF > log(1.0 / 400) ? logF : log(1.0 / 400); }

static void vbon_optima(void) // the trained policy against pi_bon, with and without ties, and beside argmax L
{
    World w = {0};
    double got[STRINGS], want[STRINGS], other[STRINGS];
    world_strings(&w);
    for (int ties = 0; ties < 2; ties++) {
        world_rewards(&w, ties, 4);
        for (int k = 0; k < 3; k++) {
            long N = k == 0 ? 2 : k == 1 ? 4 : 16;
            if (few() && !(ties && N == 16)) continue;
            world_train(&w, (ObjectiveSpec){.row = ROW(objectives, "vbon"), .N = N}, 1, NULL, got);
            best_of_exactly(&w, (double)N, want);
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
        }
    }
    for (int i = 0; i < STRINGS; i++) free(w.y[i].ids);
}

static void other_optima(void) // of the other objectives, and where --compat scale lands
{
    static const struct { const char *name, *objective; long N; double beta; bool compat; } cases[] = {
        {"rl, beta .5", "rl", 0, 0.5, false},
        {"l", "l", 4, 0, false},
        {"l, beta .4", "l", 0, 0.4, false},
        {"l1", "l1", 3, 0, false},
        {"vbon, --compat scale", "vbon", 2, 0, true},
        {"vbon, --compat scale", "vbon", 4, 0, true}};
    World w = {0};
    double got[STRINGS], want[STRINGS], best[STRINGS];
    world_strings(&w);
    world_rewards(&w, false, 4);
    for (size_t k = 0; k < COUNT(cases); k++) {
        const char *name = cases[k].name, *objective = cases[k].objective;
        double beta = cases[k].beta, N = cases[k].N ? (double)cases[k].N : *objective == 'r' ? 0 : 1 / beta + 1;
        if (few() && strcmp(objective, "l1")) continue;
        ObjectiveSpec o = {.row = ROW(objectives, objective), .N = cases[k].N, .beta = beta,
            .compat_scale = cases[k].compat};
        world_train(&w, o, 2, NULL, got);
        for (int i = 0; i < STRINGS; i++) {
            double p = w.logp[i], F = floored(w.logF[i]);
            if (!strcmp(objective, "rl")) want[i] = p + w.reward[i] / beta;
            else if (!strcmp(objective, "l")) want[i] = p + (N - 1) * F;
            else want[i] = N * (N + 1) / 2 * p + N * (N - 1) / 2 * F; // l1
        }
        if (cases[k].compat) best_of_exactly(&w, 1 + (N - 1) * (N - 1) / N, want); // N_eff
        normalise(want);
        double start = variation(w.logp, want), end = variation(got, want);
        if (cases[k].compat) {
            best_of_exactly(&w, N, best);
            double beside = variation(got, best);
            printf("    %-30s %3g  %.4f   %.4f   to Best-of-N %.4f\n", name, N, start, end, beside);
            CHECK(end < beside, "released scaling lands at N_eff");
        } else {
            printf("    %-30s %3g  %.4f   %.4f\n", name, N, start, end);
            CHECK(end <= 0.02 && end < start, "%s: total variation to its own optimum %.4f -> %.4f", name, start, end);
        }
    }
    for (int i = 0; i < STRINGS; i++) free(w.y[i].ids);
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
    static const struct { const char *name, *objective; long N; } cases[] = {
        {"jbond, the anchor stands", "jbond", 0}, {"bond", "bond", 16}};
    World w = {0};
    double got[STRINGS], want[STRINGS], best[STRINGS], g[STRINGS], half[STRINGS], apart[2];
    world_strings(&w);
    world_rewards(&w, false, 4);
    for (size_t c = 0; c < COUNT(cases); c++) {
        ObjectiveSpec o = {.row = ROW(objectives, cases[c].objective), .N = cases[c].N, .k = 16, .anchor_kl = 1};
        if (few() && c) continue;
        world_train(&w, o, 3, NULL, got);
        objective_prepare(&o);
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
    }
    if (!few()) {
        int top = 0;
        for (int i = 0; i < STRINGS; i++) if (below(&w, top, i)) top = i;
        ObjectiveSpec o = {.row = ROW(objectives, "jbond"), .anchor_kl = 1, .anchor_rate = 0.1};
        world_train(&w, o, 3, half, got);
        double N[2] = {nearest_best_of(&w, half, &apart[0]), nearest_best_of(&w, got, &apart[1])}, all = exp(got[top]);
        printf("    %-30s      halfway %.4f from Best-of-%.0f, then %.4f from Best-of-%.0f; the best string has %.4f\n",
            "jbond, the anchor moves", apart[0], N[0], apart[1], N[1], all);
        CHECK(apart[0] <= 0.1 && apart[1] <= 0.1 && N[0] > 16 && N[1] > 4 * N[0],
            "jbond goes along Best-of-N: %.4f from N = %g, then %.4f from N = %g", apart[0], N[0], apart[1], N[1]);
        CHECK(all >= 0.95, "jbond ends at the best string: it has %.4f of the probability", all);
    }
    for (int i = 0; i < STRINGS; i++) free(w.y[i].ids);
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
    world_probabilities(w, &m, &p, w->logp);
    for (int i = 0; i < STRINGS; i++) {
        double F = 0;
        for (int k = 0; k < STRINGS; k++) if (below(w, k, i)) F += exp(w->logp[k]);
        w->logF[i] = log(F);
        arrput(c.responses, w->y[i]); arrput(c.ref, 0);
    }
    for (int i = 0; i < STRINGS; i++) arrput(c.sequences, sequence_of(&p, &c.responses[i]));
    for (uint64_t d = 0; d < DRAWS; d++) {
        int best = -1, worst = -1;
        for (uint64_t k = 0; k < (o.kind == OFFLINE_IPO ? 2 : (uint64_t)o.N); k++) {
            double u = random_uniform(4, STREAM_CACHE, d, k, 0);
            int i = 0;
            while (i < STRINGS - 1 && u >= exp(w->logp[i])) u -= exp(w->logp[i++]);
            if (best < 0 || below(w, best, i)) best = i;
            if (worst < 0 || below(w, i, worst)) worst = i;
        }
        if (o.kind != OFFLINE_IPO || best != worst) arrput(c.list, ((Comparison){(size_t)best, (size_t)worst}));
    }
    pass_create(&s, &m, 1024, true);
    comparisons_reference(&c, &s, 1);
    for (int i = 0; i < STRINGS; i++) CHECK_NEAR(c.ref[i], w->logp[i], 1e-5, "the reference's log-probability");
    size_t which[B], n = arrlenu(c.list);
    double sums[OFFLINE_SUMS] = {0};
    while (m.step < STEPS) {
        for (size_t i = 0; i < B; i++) which[i] = ((size_t)m.step * B + i) % n;
        model_zero_grad(&m);
        offline_batch(&s, &o, &c, which, B, 1, sums);
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
    World w = {0};
    double got[STRINGS], want[STRINGS];
    world_strings(&w);
    world_rewards(&w, false, 4);
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
    for (int i = 0; i < STRINGS; i++) free(w.y[i].ids);
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
        Evaluation e;
        model_create(&m, ops_cpu(), &c, TRAIN_ALL, true, false);
        model_random(&m, 8);
        value_head_random(&m, 8);
        for (size_t i = 0; i < P; i++) cdf[i] = (Cdf){.M = Ms[v], .reward = reward[i], .key = key[i]};
        PpoOptions opt = world_options((ObjectiveSpec){.row = ROW(objectives, "vbon"), .N = OWN_N}, 3);
        opt.fhat = ROW(fhats, "add1"); // distances do not look at it
        opt.episodes = opt.rollout = P; opt.epochs = 1; opt.max_new = 8; opt.eos = -1; opt.lr = 0;
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
        evaluate(&e,
                 &(EvalSpec){.policy = &m, .reference = &m, .temperature = 1, .ns = {OWN_N}, .n_ns = 1, .tokens = 1024},
                 p, cdf, r->y, P, 1);
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
    Evaluation e;
    for (size_t k = 0; k < 5; k++) own[k] = (Response){.reward = reward[0][k], .key = key[0][k], .n = 1};
    evaluate(&e, &(EvalSpec){0}, NULL, &(Cdf){.M = 5, .reward = reward[0], .key = key[0]}, own, 5, 5);
    CHECK_NEAR(e.win.mean, 0.5, 1e-12, "the reference's own cached samples win half");
    evaluate(&e, &(EvalSpec){0}, NULL, &(Cdf){.M = 1, .reward = reward[0], .key = key[0]}, own, 1, 1);
    CHECK(e.win.mean == 0.5, "nothing but itself to be compared with: %g", e.win.mean);
}

// ----------------------------------------------------------------------------
// a strictly increasing map of the rewards, applied to cache and rollouts alike, changes
// nothing but the raw rewards in the log

static double cube(double r) { return (double)(float)(r * r * r * 0.01 + exp(r)); }

static void monotone_run(double (*map)(double), const char *objective, const char *fhat, const char *critic,
    real *weights, double *kl)
{
    static int prompt_ids[2][1] = {{1}, {3}};
    World w = {.map = map};
    Prompt p[2] = {{.ids = prompt_ids[0], .n = 1}, {.ids = prompt_ids[1], .n = 1}};
    Cdf cdf[2];
    Model m;
    world_strings(&w);
    world_rewards(&w, false, 9);
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
    PpoOptions opt = world_options((ObjectiveSpec){.row = ROW(objectives, objective), .N = 4}, 3);
    opt.fhat = ROW(fhats, fhat); opt.critic = ROW(critics, critic); opt.episodes = 64 * 6; opt.rollout = 64;
    opt.minibatch = 32;
    opt.has_missing_eos = true; opt.missing_eos = map ? map(-3) : -3;
    ppo_create(&ppo, &opt, &m, p, cdf, 2, world_reward, &w);
    for (int i = 0; i < 6; i++) { ppo_iteration(&ppo); kl[i] = metric(&ppo, "objective/kl"); }
    memcpy(weights, m.data.p, m.n_params * sizeof *weights);
    ppo_free(&ppo); model_free(&m);
    for (int k = 0; k < 2; k++) { free(cdf[k].reward); free(cdf[k].key); }
    for (int i = 0; i < STRINGS; i++) free(w.y[i].ids);
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
