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
// Of one prompt, means over its responses; distance: to Best-of-ns[i]. Doubles only: a shard writes them as an array.
typedef struct {
    double reward, win, win_released, k1, k3, rb, released, length, finished, distance[MAX_NS];
} PromptEvaluation;
// Of all prompts, in the same order.
typedef struct {
    Estimate reward, win, win_released, k1, k3, rb, released, length, finished, distance[MAX_NS];
} Evaluation;
enum { EVAL_NUMBERS = sizeof(PromptEvaluation) / sizeof(double) };
typedef struct { Model *policy, *reference; double temperature; long ns[MAX_NS]; size_t n_ns, tokens; } EvalSpec;
// policy NULL: whose log-probabilities nobody knows; KLs and distances are NaN.
// r: `n` responses, K in a row for each of the n/K prompts, rewards set; e (n/K).
void evaluate(PromptEvaluation *e, const EvalSpec *spec, const Prompt *prompts, const Cdf *cdf, const Response *r,
              size_t n, size_t K);
Evaluation evaluation(const PromptEvaluation *e, size_t n); // of all n prompts
// What Best-of-N's mean reward is by the n prompts' cached samples alone, unbiased; NaN where a prompt has fewer than
// N.
Estimate best_of_cached(const Cdf *cdf, size_t n, long N);

#ifdef VBON_IMPLEMENTATION

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

// One number of each prompt: the mean of x (n) over its K responses
static void over_responses(PromptEvaluation *e, size_t number, const double *x, size_t n, size_t K)
{
    for (size_t i = 0; i < n; i++) ((double *)&e[i / K])[number] += x[i] / (double)K;
}

void evaluate(PromptEvaluation *e, const EvalSpec *spec, const Prompt *prompts, const Cdf *cdf, const Response *r,
              size_t n, size_t K)
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
    double *finished = sum_r; // no longer needed
    for (size_t i = 0; i < n; i++) finished[i] = r[i].finished;
    const double *columns[] = {reward, win, win_released, k1, k3, rb, released, length, finished};
    memset(e, 0, n / K * sizeof *e);
    for (size_t c = 0; c < 9; c++) over_responses(e, c, columns[c], n, K);
    for (size_t v = 0; v < spec->n_ns; v++) over_responses(e, 9 + v, distance + v * n, n, K);
    free(all);
}

Evaluation evaluation(const PromptEvaluation *e, size_t n)
{
    Evaluation all;
    double *x = (double *)xmalloc(n * sizeof *x);
    for (size_t c = 0; c < EVAL_NUMBERS; c++) {
        for (size_t i = 0; i < n; i++) x[i] = ((const double *)&e[i])[c];
        ((Estimate *)&all)[c] = estimate(x, n);
    }
    free(x);
    return all;
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

// The table, and the record into file if there is one. about: what does not come from the responses, see cmd_eval;
// e: of its prompts; speed: tokens a second, or NaN.
static void eval_report(const json_t *about, const PromptEvaluation *prompts, double speed, AsideFile *file)
{
    json_t *j = json_deep_copy(json_object_get(about, "record")), *distances = json_object(), *x;
    if (!j) die("out of memory");
    bool bon = !strcmp(json_string_value(json_object_get(j, "method")), methods[METHOD_BON].name);
    size_t n = (size_t)json_integer_value(json_object_get(j, "prompts")), i;
    size_t K = (size_t)json_integer_value(json_object_get(j, "samples"));
    long N = (long)json_integer_value(json_object_get(j, "n"));
    double reference = json_number_value(json_object_get(about, "reference_reward"));
    Evaluation e = evaluation(prompts, n);
    const json_t *by_cache = json_object_get(about, "reward_by_cache");
    Estimate cached = {NAN, NAN};
    if (by_cache) cached.mean = json_number_value(json_array_get(by_cache, 0));
    if (json_array_size(by_cache) > 1) cached.se = json_number_value(json_array_get(by_cache, 1));
    struct {
        const char *key;
        Estimate e;
    } out[] = {
        {"reward", e.reward},    {"win_rate", e.win}, {"win_rate_released", e.win_released}, {"kl_k1", e.k1},
        {"kl_k3", e.k3},         {"kl_rb", e.rb},     {"kl_released", e.released},           {"length", e.length},
        {"finished", e.finished}};
    for (i = 0; i < sizeof out / sizeof *out; i++) put_estimate(j, out[i].key, out[i].e);
    if (bon) put_estimate(j, "reward_by_cache", cached);
    if (bon) json_object_set_new(j, "kl_bound", json_number(bon_kl_bound(N), "the bound on the KL", "lower --n"));
    printf("%zu prompts, %zu responses each; the cache's mean reward is %.4f\n", n, K, reference);
    estimate_line("mean reward", e.reward);
    estimate_line("mean reward of Best-of-N, by the cache", cached);
    estimate_line("win rate (all cached samples)", e.win);
    estimate_line("win rate (released form: one, ties lose)", e.win_released);
    if (bon) printf("  %-44s %9.4f\n", "KL to the reference: at most", bon_kl_bound(N));
    else {
        estimate_line("KL to the reference, k1", e.k1);
        estimate_line("KL, k3", e.k3);
        estimate_line("KL, Rao-Blackwellised", e.rb);
        estimate_line("KL, released form (k3, prompt included)", e.released);
    }
    json_array_foreach(json_object_get(about, "ns"), i, x) {
        char key[24], what[64];
        snprintf(key, sizeof key, "%lld", (long long)json_integer_value(x));
        put_estimate(distances, key, e.distance[i]);
        snprintf(what, sizeof what, "distance to Best-of-%s (nats)", key);
        estimate_line(what, e.distance[i]);
    }
    json_object_set_new(j, "distance", distances);
    json_object_set_new(j, "reference_reward", json_number(reference, "the cache's mean reward",
        "look at its rewards"));
    put_number(j, "time/tokens_per_second", speed);
    estimate_line("response length", e.length);
    estimate_line("share finished", e.finished);
    if (!isnan(speed))
        printf("  %-44s %9.0f\n",
               bon ? "delivered tokens/s, N samples and rewards each" : "delivered tokens/s, rewards included", speed);
    if (file) { // last: should it not be written now, the numbers stand above
        char *text = json_text(j, JSON_COMPACT | JSON_REAL_PRECISION(9));
        fprintf(file->f, "%s\n", text);
        aside_commit(file);
        free(text);
    }
    json_decref(j);
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
    Shard shard;
    shard_open(&shard, a);
    AsideFile *file = a->out && !shard.on ? out_file(a) : NULL;
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
    // what the report has that no response tells
    double mean = 0;
    size_t least = SIZE_MAX; // cached samples of the prompt that has fewest
    for (size_t i = 0; i < d.n; i++) {
        for (size_t k = 0; k < cdf[i].M; k++) mean += cdf[i].reward[k] / (double)cdf[i].M / (double)d.n;
        if (cdf[i].M < least) least = cdf[i].M;
    }
    for (size_t v = 0; v < spec.n_ns && !bon && !cdf->logF; v++)
        if (spec.ns[v] > (long)least)
            printf("warning: N = %ld is larger than M = %zu: distances to Best-of-%ld are too small, the reference's "
                   "by %.3g nats\n",
                   spec.ns[v], least, spec.ns[v], (double)(spec.ns[v] - 1) / (double)(least + 1));
    if (bon && N > least)
        printf("warning: N = %zu is larger than M = %zu: the cache does not say what Best-of-%zu's mean reward is\n", N,
               least, N);
    json_t *ns = json_array(), *about = json_make("{s:{s:s, s:s, s:I, s:I, s:I, s:I, s:I}, s:o, s:o}", "record",
        "method", methods[a->method].name, "model", policy, "n", (json_int_t)N, "prompts", (json_int_t)d.n, "samples",
        (json_int_t)K, "m", (json_int_t)least, "seed", (json_int_t)a->seed, "ns", ns, "reference_reward",
        json_number(mean, "the cache's mean reward", "look at its rewards"));
    for (size_t v = 0; v < spec.n_ns; v++) json_array_append_new(ns, json_integer(spec.ns[v]));
    if (bon) put_estimate(about, "reward_by_cache", best_of_cached(cdf, d.n, (long)N));
    json_t *weights = drawing_weights(&shard, &d, &reward);
    if (weights) {
        char *hex = hex_text(model_fingerprint(&ref));
        json_object_set_new(weights, "reference", json_make("s", hex));
        free(hex);
    }
    shard_begin(&shard, a, "eval", weights, json_incref(about));
    start_table(a, "eval");
    double seconds = 0, tokens = 0;
    size_t group = d.rows > K * N ? d.rows / (K * N) : 1, blocks = (d.n + group - 1) / group;
    if (a->pool) pool_choose(kept, a->pool, d.prompts, d.n, K, N, a, &ref, d.t);
    PromptEvaluation *e = (PromptEvaluation *)xcalloc(d.n, sizeof *e);
    Progress progress = progress_begin("eval", shard_items(&shard, d.n, group, SIZE_MAX),
                                       shard.on ? shard_items(&shard, d.n, group, shard.next) : 0, "prompts");
    for (size_t b = 0; b < blocks; b++) { // K responses a prompt, each the best of N
        if (!shard_makes(&shard, b)) continue;
        size_t i = b * group, end = i + group < d.n ? i + group : d.n, n = (end - i) * K;
        double began = clock_seconds();
        if (a->pool) judge(&reward, a, d.prompts, kept + i * K, n);
        else {
            Response *r = draw(&d, &reward, a, K * N, i * K * N, end * K * N);
            for (size_t k = 0; k < n; k++) {
                Response *best = &r[k * N + best_of(r + k * N, N)];
                kept[i * K + k] = *best;
                best->ids = NULL; best->logp = NULL; best->prefix = NULL;
            }
            for (size_t k = 0; k < n * N; k++) response_free(&r[k]);
            free(r);
        }
        seconds += clock_seconds() - began;
        EvalSpec block = spec;
        for (size_t k = i * K; k < end * K; k++) { // a sequence is never split
            size_t both = d.prompts[kept[k].prompt].n + kept[k].n;
            if (both > block.tokens) block.tokens = both;
            tokens += (double)kept[k].n;
        }
        evaluate(e + i, &block, d.prompts, cdf, kept + i * K, n, K);
        FILE *to = shard_block(&shard, NULL);
        for (size_t q = i; q < end && to; q++)
            for (size_t c = 0; c < EVAL_NUMBERS; c++)
                fprintf(to, "%a%c", ((double *)&e[q])[c], c + 1 < EVAL_NUMBERS ? ' ' : '\n');
        shard_put(&shard, b);
        progress_show(&progress, shard_items(&shard, d.n, group, b + 1), NULL);
    }
    reward_close(&reward);
    if (!shard.on) eval_report(about, e, a->pool ? NAN : tokens / seconds, file); // from a pool nothing was drawn
    shard_close(&shard, a, blocks);
    json_decref(about);
    for (size_t k = 0; k < d.n * K; k++) response_free(&kept[k]);
    free(kept); free(e);
    cdfs_free(cdf, d.n);
    model_free(&ref);
    drawing_close(&d);
}

// ----------------------------------------------------------------------------
// merge

// What is made of the shards' blocks: lines as they are, or eval's numbers.
typedef struct { FILE *f; json_t *eval; double *numbers; } Merged; // eval: its `about`, or NULL
static void merge_begin(void *context, const json_t *header)
{
    Merged *m = (Merged *)context;
    const char *command = json_string_value(json_object_get(header, "command"));
    bool eval = command && !strcmp(command, "eval");
    m->eval = eval ? json_incref(json_object_get(header, "about")) : NULL;
}
static void merge_block(void *context, const char *data, size_t bytes)
{
    Merged *m = (Merged *)context;
    if (!m->eval) { fwrite(data, 1, bytes, m->f); return; }
    char *end;
    for (const char *p = data; *p; p = end + (*end == ' ' || *end == '\n')) {
        double x = strtod(p, &end);
        if (end == p) die("eval's shards hold \"%.20s\" where a number should stand: make them again", shown(p));
        arrput(m->numbers, x);
    }
}

static void merge(const char *out, AsideFile *file)
{
    Merged m = {.f = file->f};
    json_t *header = shards_read(out, merge_begin, merge_block, &m);
    if (m.eval) {
        size_t n = (size_t)json_integer_value(json_object_get(json_object_get(m.eval, "record"), "prompts"));
        if (arrlenu(m.numbers) != n * EVAL_NUMBERS)
            die("%s: its shards hold %zu numbers, not %d for each of %zu prompts: were they made by another version?",
                out, arrlenu(m.numbers), EVAL_NUMBERS, n);
        eval_report(m.eval, (const PromptEvaluation *)m.numbers, NAN, file);
    } else aside_commit(file);
    arrfree(m.numbers);
    json_decref(m.eval); json_decref(header);
}

static void cmd_merge(const Args *a)
{
    require(a->out, "out");
    merge(a->out, out_file(a));
}
#endif
