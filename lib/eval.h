// eval.h: the paper's evaluation (sections 5 and 6, appendices F to I) of one policy against a reference and its reward
// cache.
//
// On held-out prompts, with K responses each: the KL to the reference three ways (k1, k3, and Rao-Blackwellised over
// the vocabulary along the path) and in the released code's form; the distance to Best-of-N, KL(pi || pi_bon) = KL(pi
// || ref) + E[log ref - log pi_bon], its first term Rao-Blackwellised too, log F by measured_log_f from the prompts'
// own cache; the win rate against all cached reference samples but those that are the response itself (BoN's N/(N+1) is
// exact for it) and in the released form (one reference sample a prompt, ties lose); the mean reward. Means are over
// prompts, with their standard errors.
//
// Win rate alone rewards drift: look at the distance beside it.
#pragma once

enum { MAX_NS = 8 };
typedef struct {
    Estimate reward, win, win_released, k1, k3, rb, released, length, finished;
    Estimate distance[MAX_NS];          // to Best-of-ns[i]
    double reference_reward;            // the cache's mean
} Evaluation;
typedef struct { Model *policy, *reference; double temperature; long ns[MAX_NS]; size_t n_ns, tokens; } EvalSpec;
// policy NULL: whose log-probabilities nobody knows; KLs and distances are NaN.
// r: `n` responses, K in a row for each of the n/K prompts, rewards set.
void evaluate(Evaluation *e, const EvalSpec *spec, const Prompt *prompts, const Cdf *cdf, const Response *r, size_t n,
              size_t K);
// What Best-of-N's mean reward is by the n prompts' cached samples alone, unbiased; NaN where a prompt has fewer than
// N.
Estimate best_of_cached(const Cdf *cdf, size_t n, long N);

#ifdef VBON_IMPLEMENTATION

static Estimate over_prompts(const double *x, size_t n, size_t K) // x (n): means of K, then over the n/K prompts
{
    size_t P = n / K;
    double *mean = (double *)xcalloc(P, sizeof *mean);
    for (size_t i = 0; i < n; i++) mean[i / K] += x[i] / (double)K;
    Estimate e = estimate(mean, P);
    free(mean);
    return e;
}

// Fills what is made of log-probabilities: (n) each; sum_r is log ref of the response
static void evaluate_logps(const EvalSpec *spec, const Prompt *prompts, const Response *r, size_t n, double *k1,
                           double *k3, double *rb, double *released, double *sum_r)
{
    Model *pi = spec->policy, *ref = spec->reference;
    const Ops *o = pi->o;
    size_t C = pi->cfg.C, V = pi->cfg.V;
    Arena work = {.name = "evaluation", .o = o};
    Pass sp = {0}, sr = {0};
    Buf kl_of = {0}; // (tokens)
    for (int placed = 0; placed < 2; placed++) {
        if (placed) arena_place(&work);
        pass_carve(&sp, pi, &work, spec->tokens, false);
        pass_carve(&sr, ref, &work, spec->tokens, false);
        kl_of = arena_take(&work, spec->tokens, DT_REAL, "head");
    }
    Sequence *q = (Sequence *)xcalloc(n, sizeof *q);
    double *lp = (double *)xmalloc(3 * spec->tokens * sizeof *lp), *lr = lp + spec->tokens, *kl = lr + spec->tokens;
    for (size_t i = 0; i < n; i++) {
        q[i] = sequence_of(&prompts[r[i].prompt], &r[i]);
        q[i].from = 1; // prompts' tokens too, for the released form: a sequence's response is the last of its positions
    }
    for (size_t i = 0, fit; i < n; i += fit) {
        fit = pass_fit(&sp, q + i, n - i, 1);
        sequence_logps(&sp, &pi->p, q + i, fit, spec->temperature, lp, NULL);
        sequence_logps(&sr, &ref->p, q + i, fit, spec->temperature, lr, NULL);
        size_t a = 0;
        for (size_t s = i, at = 0; s < i + fit && ref->cfg.C == C; s++) {
            at += sequence_states(&q[s]);
            size_t from = at - r[s].n, own = r[s].n;
            Buf ours = slice(sp.hidden, from * C, own * C), theirs = slice(sr.hidden, from * C, own * C);
            o->head_kl(slice(kl_of, from, own), ours, head_weight(&pi->p), theirs, head_weight(&ref->p),
                       spec->temperature, own, C, V);
        }
        download_doubles(o, kl, kl_of, sp.R, sp.h_real);
        for (size_t s = i; s < i + fit; s++) {
            // released form: the response's end-of-text left out
            size_t count = sequence_states(&q[s]), drop = r[s].finished;
            for (size_t t = 0; t < count; t++, a++) {
                double d = must_be_finite(lr[a], "a log-probability by the reference", WEIGHTS_OR_TEMPERATURE)
                    - must_be_finite(lp[a], "a log-probability by the policy", WEIGHTS_OR_TEMPERATURE);
                if (t + drop < count) released[s] += exp(d) - 1 - d;
                if (t + r[s].n < count) continue;
                sum_r[s] += lr[a];
                k1[s] -= d;
                k3[s] += exp(d) - 1 - d;
                rb[s] += ref->cfg.C != C ? NAN
                    : must_be_finite(kl[a], "the KL to the reference at a token", WEIGHTS_OR_TEMPERATURE);
            }
        }
    }
    pass_free(&sp); pass_free(&sr);
    arena_release(&work);
    free(q); free(lp);
}

Estimate best_of_cached(const Cdf *cdf, size_t n, long N)
{
    double *mean = (double *)xmalloc(n * sizeof *mean);
    for (size_t i = 0; i < n; i++) mean[i] = cdf[i].M < (size_t)N ? NAN : bon_mean(cdf[i].reward, cdf[i].M, N);
    Estimate e = estimate(mean, n);
    free(mean);
    return e;
}

void evaluate(Evaluation *e, const EvalSpec *spec, const Prompt *prompts, const Cdf *cdf, const Response *r, size_t n,
              size_t K)
{
    double *all = (double *)xcalloc(n * (9 + MAX_NS), sizeof *all), *k1 = all, *k3 = all + n, *rb = all + 2 * n,
           *released = all + 3 * n, *sum_r = all + 4 * n;
    double *win = all + 5 * n, *win_released = all + 6 * n, *reward = all + 7 * n, *length = all + 8 * n,
           *distance = all + 9 * n;
    if (spec->policy) evaluate_logps(spec, prompts, r, n, k1, k3, rb, released, sum_r);
    else for (size_t i = 0; i < 5 * n; i++) all[i] = NAN;
    for (size_t s = 0; s < n; s++) {
        const Cdf *c = &cdf[r[s].prompt];
        Place at = cdf_place(c, r[s].reward, r[s].key);
        double logF = measured_log_f(&at);
        size_t others = c->M; // cached samples that are not the response itself: against those nothing can be won
        for (size_t i = 0; i < c->M && c->key; i++) others -= c->key[i] == r[s].key;
        win[s] = others ? at.k / (double)others : 0.5;
        win_released[s] = r[s].reward > c->reward[0];
        reward[s] = r[s].reward;
        length[s] = (double)r[s].n;
        for (size_t v = 0; v < spec->n_ns; v++)
            distance[v * n + s] = (isnan(rb[s]) ? k1[s] : rb[s]) + sum_r[s] - log_pi_bon(logF, sum_r[s], spec->ns[v]);
    }
    double reference = 0;
    for (size_t i = 0; i < n; i += K) {
        const Cdf *c = &cdf[r[i].prompt];
        for (size_t k = 0; k < c->M; k++) reference += c->reward[k] / (double)c->M / (double)(n / K);
    }
    double *finished = length; // reused below, after length has been read
    *e = (Evaluation){.reward = over_prompts(reward, n, K), .win = over_prompts(win, n, K),
        .win_released = over_prompts(win_released, n, K), .k1 = over_prompts(k1, n, K), .k3 = over_prompts(k3, n, K),
        .rb = over_prompts(rb, n, K), .released = over_prompts(released, n, K), .length = over_prompts(length, n, K),
        .reference_reward = reference};
    for (size_t i = 0; i < n; i++) finished[i] = r[i].finished;
    e->finished = over_prompts(finished, n, K);
    for (size_t v = 0; v < spec->n_ns; v++) e->distance[v] = over_prompts(distance + v * n, n, K);
    free(all);
}

// ----------------------------------------------------------------------------
// the command

static size_t parse_ns(const char *text, long *ns) { return parse_counts("ns", text, ns, MAX_NS); }

// Into a record goes what is defined: not what was not measured, nor what is beyond the largest double, as
// exp(log ref - log pi) may be (the table says which). An estimate is [mean, standard error], of one prompt [mean].
static void put_number(json_t *record, const char *key, double x)
{
    if (isfinite(x)) json_object_set_new(record, key, json_number(x, key, "a bug, please report it"));
}
static void put_estimate(json_t *record, const char *key, Estimate e)
{
    if (!isfinite(e.mean)) return;
    json_t *pair = json_make("[f]", e.mean);
    if (isfinite(e.se)) json_array_append_new(pair, json_real(e.se));
    json_object_set_new(record, key, pair);
}
static void estimate_line(const char *what, Estimate e)
{
    if (isnan(e.mean)) return; // not measured
    if (isinf(e.mean)) printf("  %-44s too large for a number\n", what);
    else if (isnan(e.se)) printf("  %-44s %9.4f (no error: one prompt)\n", what, e.mean);
    else printf("  %-44s %9.4f +- %.4f\n", what, e.mean, e.se);
}

// Of each prompt's draws in the cache `path`, K times N in a row, the best of N by the rewards that stand there: K
// responses a prompt, rewards not set.
static void pool_choose(Response *out, const char *path, const Prompt *prompts, size_t n, size_t K, size_t N,
                        const Args *a, const Model *reference, const Tokenizer *t)
{
    Cache c;
    cache_read(&c, path, 0);
    check_cache(&c, path, a, reference, t);
    check_missing_eos(c.header, path, a);
    Response *draws = (Response *)xmalloc(N * sizeof *draws);
    for (size_t i = 0; i < n; i++) {
        long at = cache_find(&c, prompts[i].text);
        if (at < 0)
            die("%s: has no samples for prompt %zu, \"%.40s\": make the pool with these prompts", path, i + 1,
                prompts[i].text);
        const CachePrompt *pool = &c.prompts[at];
        if (pool->n < K * N)
            die("%s: prompt \"%.40s\" has %zu draws, --samples %zu with --n %zu need %zu: draw more", path,
                prompts[i].text, pool->n, K, N, K * N);
        for (size_t k = 0; k < K; k++) {
            for (size_t s = k * N; s < (k + 1) * N; s++) {
                const CacheSample *x = &pool->samples[s];
                if (!x->ids || !x->n_ids)
                    die("%s: draw %zu of prompt \"%.40s\" has no ids: a pool is what vbon cache writes", path, s,
                        prompts[i].text);
                draws[s - k * N] = (Response){.prompt = i, .sample = s, .ids = x->ids, .n = x->n_ids,
                    .finished = x->ids[x->n_ids - 1] == tokenizer_eos(t), .reward = x->reward,
                    .key = order_key(x->ids, x->n_ids)};
            }
            Response *best = &out[i * K + k];
            *best = draws[best_of(draws, N)];
            best->reward = 0; // the judge's is not known yet
            best->ids = (int *)memcpy(xmalloc(best->n * sizeof(int)), best->ids, best->n * sizeof(int));
        }
    }
    free(draws);
    cache_free(&c);
}

static void cmd_eval(const Args *asked)
{
    Args own = *asked, *a = &own;
    const char *reference = require(a->reference, "reference");
    bool bon = a->method == METHOD_BON;
    const char *policy = bon ? reference : require(a->model, "model");
    size_t K = (size_t)a->samples, N = bon ? (size_t)a->n : 1;
    require(a->cache, "cache"); require(a->reward, "reward");
    if (a->pool && !bon) usage("--pool is what --method bon chooses from");
    EvalSpec spec = {.temperature = a->temperature};
    spec.n_ns = parse_ns(a->ns, spec.ns);
    AsideFile *file = a->out ? out_file(a) : NULL;
    Drawing d;
    drawing_open(&d, a, JOB_EVAL, policy, STREAM_EVAL, K * N);
    spec.tokens = (size_t)a->micro_tokens;
    Model ref;
    Tokenizer *ref_t = model_load_as(&ref, device_ops(a), reference, "reference", false, TRAIN_NONE, false);
    tokenizers_check(d.t, policy, ref_t, reference);
    tokenizer_free(ref_t);
    if (ref.cfg.V != d.m.cfg.V)
        die("%s and %s have vocabularies of %zu and %zu ids: log-probabilities over them cannot be compared", policy,
            reference, d.m.cfg.V, ref.cfg.V);
    Reward reward;
    open_reward(&reward, a, d.t);
    Cdf *cdf = cdfs_load(d.prompts, d.n, a, &ref, d.t, &reward);
    // of Best-of-N no log-probabilities: they are not the reference's, and only the bound on its KL is known
    spec.policy = bon ? NULL : &d.m;
    spec.reference = &ref;
    // the largest product below
    checked_product("--samples times --n for all prompts", d.n, checked_product("--samples times --n", K, N));
    Response *kept = (Response *)xcalloc(d.n * K, sizeof *kept);
    start_table(a, "eval");
    double began = clock_seconds(), tokens = 0;
    size_t group = d.rows > K * N ? d.rows / (K * N) : 1;
    if (a->pool) {
        pool_choose(kept, a->pool, d.prompts, d.n, K, N, a, &ref, d.t);
        judge(&reward, a, d.prompts, kept, d.n * K);
    }
    Progress progress = progress_begin("eval", d.n, a->pool ? d.n : 0, "prompts");
    for (size_t i = 0; i < d.n && !a->pool; i += group) { // K responses a prompt, each the best of N
        size_t end = i + group < d.n ? i + group : d.n;
        Response *r = draw(&d, &reward, a, K * N, i * K * N, end * K * N);
        for (size_t k = 0; k < (end - i) * K; k++) {
            Response *best = &r[k * N + best_of(r + k * N, N)];
            kept[i * K + k] = *best;
            tokens += (double)best->n;
            best->ids = NULL; best->logp = NULL; best->prefix = NULL;
        }
        for (size_t k = 0; k < (end - i) * K * N; k++) response_free(&r[k]);
        free(r);
        progress_show(&progress, end, NULL);
    }
    Evaluation e;
    double seconds = clock_seconds() - began;
    reward_close(&reward);
    for (size_t k = 0; k < d.n * K; k++) { // a sequence is never split
        size_t both = d.prompts[kept[k].prompt].n + kept[k].n;
        if (both > spec.tokens) spec.tokens = both;
    }
    evaluate(&e, &spec, d.prompts, cdf, kept, d.n * K, K);
    size_t M = SIZE_MAX; // cached samples of the prompt that has fewest
    for (size_t i = 0; i < d.n; i++) if (cdf[i].M < M) M = cdf[i].M;
    json_t *distances = json_object();
    json_t *j = json_make("{s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "method", methods[a->method].name, "model", policy,
                          "n", (json_int_t)N, "prompts", (json_int_t)d.n, "samples", (json_int_t)K, "m", (json_int_t)M,
                          "seed", (json_int_t)a->seed);
    struct {
        const char *key;
        Estimate e;
    } out[] = {
        {"reward", e.reward},    {"win_rate", e.win}, {"win_rate_released", e.win_released}, {"kl_k1", e.k1},
        {"kl_k3", e.k3},         {"kl_rb", e.rb},     {"kl_released", e.released},           {"length", e.length},
        {"finished", e.finished}};
    for (size_t i = 0; i < sizeof out / sizeof *out; i++) put_estimate(j, out[i].key, out[i].e);
    for (size_t v = 0; v < spec.n_ns; v++) {
        char key[24];
        snprintf(key, sizeof key, "%ld", spec.ns[v]);
        put_estimate(distances, key, e.distance[v]);
    }
    Estimate cached = bon ? best_of_cached(cdf, d.n, (long)N) : (Estimate){NAN, NAN};
    if (bon) put_estimate(j, "reward_by_cache", cached);
    if (bon) json_object_set_new(j, "kl_bound", json_number(bon_kl_bound((long)N), "the bound on the KL", "lower --n"));
    json_object_set_new(j, "distance", distances);
    json_object_set_new(j, "reference_reward", json_number(e.reference_reward, "the cache's mean reward",
        "look at its rewards"));
    if (!a->pool) put_number(j, "time/tokens_per_second", tokens / seconds); // from a pool nothing was drawn
    printf("%zu prompts, %zu responses each; the cache's mean reward is %.4f\n", d.n, K, e.reference_reward);
    estimate_line("mean reward", e.reward);
    estimate_line("mean reward of Best-of-N, by the cache", cached);
    estimate_line("win rate (all cached samples)", e.win);
    estimate_line("win rate (released form: one, ties lose)", e.win_released);
    if (bon) printf("  %-44s %9.4f\n", "KL to the reference: at most", bon_kl_bound((long)N));
    else {
        estimate_line("KL to the reference, k1", e.k1);
        estimate_line("KL, k3", e.k3);
        estimate_line("KL, Rao-Blackwellised", e.rb);
        estimate_line("KL, released form (k3, prompt included)", e.released);
    }
    for (size_t v = 0; v < spec.n_ns; v++) {
        char what[64];
        snprintf(what, sizeof what, "distance to Best-of-%ld (nats)", spec.ns[v]);
        estimate_line(what, e.distance[v]);
    }
    estimate_line("response length", e.length);
    estimate_line("share finished", e.finished);
    if (!a->pool)
        printf("  %-44s %9.0f\n",
               bon ? "delivered tokens/s, N samples and rewards each" : "delivered tokens/s, rewards included",
               tokens / seconds);
    if (file) { // last: should it not be written now, the numbers stand above
        char *text = json_text(j, JSON_COMPACT | JSON_REAL_PRECISION(9));
        fprintf(file->f, "%s\n", text);
        aside_commit(file);
        free(text);
    }
    json_decref(j);
    for (size_t k = 0; k < d.n * K; k++) response_free(&kept[k]);
    free(kept);
    cdfs_free(cdf, d.n);
    model_free(&ref);
    drawing_close(&d);
}
#endif
