// eval.h: the paper's evaluation (sections 5 and 6, appendices F to I) of one policy against a reference and its reward cache.
//
// On held-out prompts, with K responses each: the KL to the reference three ways (k1, k3, and Rao-Blackwellised over the vocabulary along the
// path) and in the released code's form; the distance to Best-of-N, KL(pi || pi_bon) = KL(pi || ref) + E[log ref - log pi_bon], its first term
// Rao-Blackwellised too, log F by measured_log_f from the prompts' own cache; the win rate against all cached reference samples but those that
// are the response itself (BoN's N/(N+1) is exact for it) and in the released form (one reference sample a prompt, ties lose); the mean
// reward. Means are over prompts, with their standard errors.
//
// Win rate alone rewards drift: look at the distance beside it.
#ifndef EVAL_H
#define EVAL_H

enum { MAX_NS = 8 };
typedef struct {
    Estimate reward, win, win_released, k1, k3, rb, released, length, finished;
    Estimate distance[MAX_NS];          // to Best-of-ns[i]
    double reference_reward, seconds, tokens; // the cache's mean reward; sampling time and sampled tokens
} Evaluation;
typedef struct { const Model *policy, *reference; double temperature; long ns[MAX_NS]; size_t n_ns, tokens; } EvalSpec;
// policy NULL: whose log-probabilities nobody knows; KLs and distances are NaN.
// r: `n` responses, K in a row for each of the n/K prompts, rewards set. Fills all but seconds and tokens.
void evaluate(Evaluation *e, const EvalSpec *spec, const Prompt *prompts, const Cdf *cdf, const Response *r, size_t n, size_t K);
#endif

#if defined(VBON_IMPLEMENTATION) && !defined(EVAL_IMPLEMENTED)
#define EVAL_IMPLEMENTED

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
static void evaluate_logps(const EvalSpec *spec, const Prompt *prompts, const Response *r, size_t n, double *k1, double *k3, double *rb, double *released, double *sum_r)
{
    const Model *pi = spec->policy, *ref = spec->reference;
    const Ops *o = pi->o;
    size_t C = pi->cfg.C, V = pi->cfg.V;
    Arena work = {.name = "evaluation", .o = o};
    Scorer sp = {0}, sr = {0};
    for (int pass = 0; pass < 2; pass++) {
        if (pass) arena_place(&work);
        scorer_carve(&sp, pi, &work, spec->tokens, false);
        scorer_carve(&sr, ref, &work, spec->tokens, false);
    }
    Sequence *q = (Sequence *)xcalloc(n, sizeof *q);
    double *lp = (double *)xmalloc(3 * spec->tokens * sizeof *lp), *lr = lp + spec->tokens, *kl = lr + spec->tokens;
    for (size_t i = 0; i < n; i++) q[i] = (Sequence){&prompts[r[i].prompt], &r[i], {0}};
    for (size_t i = 0, fit; i < n; i += fit) { // prompts' tokens too, for the released form: a sequence's response is the last of its positions
        fit = scorer_fit(&sp, q + i, n - i);
        scorer_forward(&sp, &pi->p, q + i, fit, true, sp.hidden);
        scorer_forward(&sr, &ref->p, q + i, fit, true, sr.hidden);
        size_t R = sp.R, a = 0;
        o->logprob_forward(sp.logp, (Buf){0}, (Buf){0}, sp.hidden, head_weight(&pi->p), sp.target, spec->temperature, R, C, V);
        o->logprob_forward(sr.logp, (Buf){0}, (Buf){0}, sr.hidden, head_weight(&ref->p), sr.target, spec->temperature, R, ref->cfg.C, V);
        download_doubles(o, lp, sp.logp, R, sp.h_real);
        download_doubles(o, lr, sr.logp, R, sr.h_real);
        for (size_t s = i, at = 0; s < i + fit && ref->cfg.C == C; s++) {
            at += sequence_tokens(&q[s]);
            size_t from = at - r[s].n;
            o->head_kl(slice(sp.logp, from, r[s].n), slice(sp.hidden, from * C, r[s].n * C), head_weight(&pi->p), slice(sr.hidden, from * C, r[s].n * C), head_weight(&ref->p), spec->temperature, r[s].n, C, V);
        }
        download_doubles(o, kl, sp.logp, R, sp.h_real);
        for (size_t s = i; s < i + fit; s++) {
            size_t count = sequence_tokens(&q[s]), drop = r[s].finished; // released form: the response's end-of-text left out
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
    scorer_free(&sp); scorer_free(&sr);
    arena_release(&work);
    free(q); free(lp);
}

void evaluate(Evaluation *e, const EvalSpec *spec, const Prompt *prompts, const Cdf *cdf, const Response *r, size_t n, size_t K)
{
    double *all = (double *)xcalloc(n * (9 + MAX_NS), sizeof *all), *k1 = all, *k3 = all + n, *rb = all + 2 * n, *released = all + 3 * n, *sum_r = all + 4 * n;
    double *win = all + 5 * n, *win_released = all + 6 * n, *reward = all + 7 * n, *length = all + 8 * n, *distance = all + 9 * n;
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
        for (size_t v = 0; v < spec->n_ns; v++) distance[v * n + s] = (isnan(rb[s]) ? k1[s] : rb[s]) + sum_r[s] - log_pi_bon(logF, sum_r[s], spec->ns[v]);
    }
    double reference = 0;
    for (size_t i = 0; i < n; i += K) {
        const Cdf *c = &cdf[r[i].prompt];
        for (size_t k = 0; k < c->M; k++) reference += c->reward[k] / (double)c->M / (double)(n / K);
    }
    double *finished = length; // reused below, after length has been read
    *e = (Evaluation){.reward = over_prompts(reward, n, K), .win = over_prompts(win, n, K), .win_released = over_prompts(win_released, n, K), .k1 = over_prompts(k1, n, K),
        .k3 = over_prompts(k3, n, K), .rb = over_prompts(rb, n, K), .released = over_prompts(released, n, K), .length = over_prompts(length, n, K), .reference_reward = reference};
    for (size_t i = 0; i < n; i++) finished[i] = r[i].finished;
    e->finished = over_prompts(finished, n, K);
    for (size_t v = 0; v < spec->n_ns; v++) e->distance[v] = over_prompts(distance + v * n, n, K);
    free(all);
}
#endif
