// eval.h: the paper's evaluation (sections 5 and 6, appendices F to I) of one policy against a reference and its reward cache.
//
// On held-out prompts, with K responses each: the KL to the reference three ways (k1, k3, and Rao-Blackwellised over the vocabulary along the
// path) and in the released code's form; the distance to Best-of-N, KL(pi || pi_bon) = E[log pi - log pi_bon], with F-hat (digamma) from the
// prompts' own cache; the win rate against all cached reference samples (BoN's N/(N+1) is exact for it) and in the released form (one
// reference sample a prompt, ties lose); the mean reward. Means are over prompts, with their standard errors; the KLs' are over responses.
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
// r: `n` responses, K in a row for each of the n/K prompts, rewards set. Fills all but seconds and tokens.
void evaluate(Evaluation *e, const EvalSpec *spec, const Prompt *prompts, const Response *r, size_t n, size_t K);
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

void evaluate(Evaluation *e, const EvalSpec *spec, const Prompt *prompts, const Response *r, size_t n, size_t K)
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
    double *all = (double *)xcalloc(n * (8 + MAX_NS), sizeof *all), *k1 = all, *k3 = all + n, *rb = all + 2 * n, *released = all + 3 * n, *win = all + 4 * n;
    double *win_released = all + 5 * n, *reward = all + 6 * n, *length = all + 7 * n, *distance = all + 8 * n;
    Sequence *q = (Sequence *)xcalloc(n, sizeof *q);
    double *lp = (double *)xmalloc(4 * spec->tokens * sizeof *lp), *lr = lp + spec->tokens, *kl = lr + spec->tokens, *joint = kl + spec->tokens;
    for (size_t i = 0; i < n; i++) q[i] = (Sequence){&prompts[r[i].prompt], &r[i], {0}};
    for (size_t i = 0, fit; i < n; i += fit) {
        fit = scorer_fit(&sp, q + i, n - i);
        scorer_forward(&sp, &pi->p, q + i, fit, false, sp.hidden);
        scorer_forward(&sr, &ref->p, q + i, fit, false, sr.hidden);
        size_t R = sp.R, a = 0;
        o->logprob_forward(sp.logp, (Buf){0}, (Buf){0}, sp.hidden, head_weight(&pi->p), sp.target, spec->temperature, R, C, V);
        o->logprob_forward(sr.logp, (Buf){0}, (Buf){0}, sr.hidden, head_weight(&ref->p), sr.target, spec->temperature, R, ref->cfg.C, V);
        download_doubles(o, lp, sp.logp, R, sp.h_real);
        download_doubles(o, lr, sr.logp, R, sr.h_real);
        if (ref->cfg.C == C) {
            o->head_kl(sp.logp, sp.hidden, head_weight(&pi->p), sr.hidden, head_weight(&ref->p), spec->temperature, R, C, V);
            download_doubles(o, kl, sp.logp, R, sp.h_real);
        } else for (size_t j = 0; j < R; j++) kl[j] = NAN;
        // the released form: k3 over prompt and response, the response's end-of-text left out
        scorer_forward(&sp, &pi->p, q + i, fit, true, sp.hidden);
        scorer_forward(&sr, &ref->p, q + i, fit, true, sr.hidden);
        size_t J = sp.R, b = 0;
        o->logprob_forward(sp.logp, (Buf){0}, (Buf){0}, sp.hidden, head_weight(&pi->p), sp.target, spec->temperature, J, C, V);
        o->logprob_forward(sr.logp, (Buf){0}, (Buf){0}, sr.hidden, head_weight(&ref->p), sr.target, spec->temperature, J, ref->cfg.C, V);
        download_doubles(o, joint, sp.logp, J, sp.h_real);
        o->download(sr.h_real, slice(sr.logp, 0, J));
        for (size_t s = i; s < i + fit; s++) {
            size_t count = sequence_tokens(&q[s]), drop = r[s].finished;
            for (size_t t = 0; t < count; t++, b++) {
                double d = (double)sr.h_real[b] - joint[b];
                if (t + drop < count) released[s] += exp(d) - 1 - d;
            }
            double sum_p = 0, sum_r = 0;
            for (size_t t = 0; t < r[s].n; t++, a++) {
                double d = lr[a] - lp[a];
                sum_p += lp[a]; sum_r += lr[a];
                k1[s] -= d;
                k3[s] += exp(d) - 1 - d;
                rb[s] += kl[a];
            }
            const Cdf *c = &prompts[r[s].prompt].cdf;
            double k = cdf_rank(c, r[s].reward, r[s].key, NULL), logF = log_fhat(FHAT_DIGAMMA, k, (double)c->M);
            win[s] = k / (double)c->M;
            win_released[s] = r[s].reward > c->reward[0];
            reward[s] = r[s].reward;
            length[s] = (double)r[s].n;
            for (size_t v = 0; v < spec->n_ns; v++) distance[v * n + s] = sum_p - log_pi_bon(logF, sum_r, spec->ns[v]);
        }
    }
    double reference = 0;
    for (size_t i = 0; i < n; i += K) {
        const Cdf *c = &prompts[r[i].prompt].cdf;
        for (size_t k = 0; k < c->M; k++) reference += c->reward[k] / (double)c->M / (double)(n / K);
    }
    double *finished = length; // reused below, after length has been read
    *e = (Evaluation){.reward = over_prompts(reward, n, K), .win = over_prompts(win, n, K), .win_released = over_prompts(win_released, n, K), .k1 = estimate(k1, n),
        .k3 = estimate(k3, n), .rb = estimate(rb, n), .released = estimate(released, n), .length = over_prompts(length, n, K), .reference_reward = reference};
    for (size_t i = 0; i < n; i++) finished[i] = r[i].finished;
    e->finished = over_prompts(finished, n, K);
    for (size_t v = 0; v < spec->n_ns; v++) e->distance[v] = over_prompts(distance + v * n, n, K);
    scorer_free(&sp); scorer_free(&sr);
    arena_release(&work);
    free(all); free(q); free(lp);
}
#endif
