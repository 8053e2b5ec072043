// ppo.h: variational Best-of-N by PPO (Amini, Vieira, Ash, Cotterell, ICLR 2025; equation and theorem numbers are the paper's).
//
// Best-of-N draws N samples from the reference and keeps the best. Its distribution is known in closed form (Prop. 1): with F(y) the
// probability that one reference sample is worse than y, and p(y) the reference's probability of y,
//
//     pi_bon(y) = (F(y) + p(y))^N - F(y)^N
//
// so a policy can be trained towards it: maximise J = E[log pi_bon(y)] + H = -KL(pi_theta || pi_bon). The first half of this file is that mathematics
// in plain doubles (log_pi_bon, the estimates of log F, the objectives); a program of two lines can include it alone. The second half is
// PPO: sample, score, estimate advantages, take clipped steps. The details, with their sources:
//
//  - EOS trick: sample to the limit, cut after the first end-of-text (N+ detail 23). A row has a length; there is no pad token.
//  - The terminal score goes to the last sampled action, the per-token KL to each (trlx puts it on a masked entry).
//  - Log-probabilities come from logits / temperature; no dropout (N+ detail 7; 2023 blog: divide before the log-softmax).
//  - Old log-probabilities come from the training forward, over the first epoch's minibatches in their shapes, so that on the first
//    minibatch the ratio is 1 bit for bit. It is checked at every iteration. Those kept at sampling time must agree (val/logp_gap).
//  - Advantages are whitened once a rollout over response tokens only; returns use the unwhitened ones (N+ detail 25).
//  - Losses are sums over response tokens divided by those of the whole minibatch, whatever the micro-batches.
//  - The value head is Linear-ReLU-Linear on the shared trunk, its output layer zero at the start; or the prefix-rank baseline (below).
//  - What is frozen runs once a rollout: its output is kept and reused by the reference, the value and every epoch.
//
// Left out on purpose: a separate critic started from the reward model (it would see more than ranks), adaptive KL, reward whitening.
#ifndef PPO_H
#define PPO_H
#include "gpt2.h"

#ifdef __cplusplus
extern "C" {
#endif

// ----------------------------------------------------------------------------
// the mathematics

// log pi_bon(y) from log F(y), log p(y) and N (Prop. 1, Eq. 4 and 11): log[(F+p)^N - F^N], stable for any N >= 1 (never the binomial sum,
// never the difference). NaN for N < 1 or NaN input. log F = -inf gives N log p; log p = -inf gives -inf; N = 1 gives log p.
double log_pi_bon(double logF, double logp, long N);

typedef enum { FHAT_DIGAMMA, FHAT_MC, FHAT_ADD1, FHAT_EXPFIT, FHAT_EXACT } Fhat;
// log F-hat from k of M cached samples below y; k may be half-integer (mid-rank). mc: log(k/M), -inf at k = 0. EXPFIT: add1, where there is no fit. Not for EXACT.
double log_fhat(Fhat kind, double k, double M);
double digamma(double x); // x > 0
// The total order of App. C: reward first, then a hash of the response ids (FNV-1a over 32-bit little-endian words, splitmix64 finaliser).
uint64_t order_key(const int *ids, size_t n);
bool order_below(double reward, uint64_t key, double other_reward, uint64_t other_key); // whether the first of two responses is the lower one

// What is cached of a prompt: rewards and order keys of M reference samples, in draw order.
typedef struct {
    size_t M;
    double *reward; uint64_t *key; // (M) each; key NULL: ties by mid-rank
    double *logF;                  // (M), for FHAT_EXACT: the table of exact values by key, else NULL
    double a, b, mean, sd;         // the exponential fit, log F = -a exp(-b (r - mean)/sd); sd 0: no fit, add1 is used
} Cdf;
double cdf_rank(const Cdf *c, double reward, uint64_t key, bool *tie); // k: cached samples below y; y itself never counts. tie: equal rewards, other key
double cdf_rank_score(const Cdf *c, double score);                     // the same for a score that is no response's: ties count half
// log F-hat(y). Dies when FHAT_EXACT does not know the key. k (may be NULL) receives the rank.
double cdf_log_f(const Cdf *c, Fhat kind, double reward, uint64_t key, double *k, bool *tie);
bool cdf_fit(Cdf *c); // footnote 18 by Levenberg-Marquardt on (z_(i), log(i/(M+1))); false (and sd 0) when it does not converge or rewards have no spread

double bon_mean(const double *rewards, size_t M, long N);       // unbiased expected best of N from a pool of M >= N
double bon_kl_bound(long N);                                    // log N - (N-1)/N
typedef struct { double mean, se; } Estimate;
Estimate estimate(const double *x, size_t n);                   // mean and its standard error (n < 2: NaN)

typedef enum { OBJECTIVE_VBON, OBJECTIVE_L, OBJECTIVE_L1, OBJECTIVE_RL } Objective;
typedef struct {
    Objective kind;
    long N;                 // 0: beta is given
    double beta;
    bool compat_scale;      // the released code's: score / n, kappa 1/(n-1)
    // derived by objective_prepare
    double kappa, score_scale, ref_weight; // per token -kappa (log pi - log ref) + ref_weight log ref; terminal score_scale * (...)
} ObjectiveSpec;
void objective_prepare(ObjectiveSpec *o);                                                     // dies on what does not make sense
double objective_score(const ObjectiveSpec *o, double reward, double logF, double logp);     // the terminal score
// One row's advantages and returns: rewards, values -> (n) each; V after the last action is 0 (generalised advantage estimation, Schulman et al. 2016)
void gae(double *advantage, double *returns, const double *reward, const double *value, size_t n, double gamma, double lambda);
void whiten(double *x, size_t n);                                                             // to mean 0, population variance 1, eps 1e-8

// ----------------------------------------------------------------------------
// sampling

// where: its file and line, for messages; NULL: not known
typedef struct { char *text; int *ids; size_t n; Cdf cdf; char *where; } Prompt;
// A response: the ids sampled (an end-of-text only if it was sampled), their log-probabilities at sampling time, and what was found out about it.
typedef struct {
    size_t prompt; uint64_t sample;  // which prompt, and the global sample counter: with seed and stream they fix every draw
    int *ids; float *logp; size_t n; bool finished;
    double reward; uint64_t key;
    double *prefix;                  // (n): the reward model's score of prompt + ids[0..t), for the prefix-rank baseline, or NULL
} Response;
void response_free(Response *r);

typedef struct { double temperature, top_p; long top_k; uint64_t seed, stream; int eos; } Sampling;
typedef struct {
    Model *m; Acts acts; Batch batch; KVCache prompts, own;
    Buf hidden, index, token, logp, uniform;
    size_t rows, tokens, max_prompt, max_new;
    int *h_tokens, *h_start, *h_pos, *h_index, *h_slot, *h_len, *h_pslot, *h_plen, *live;
    double *h_uniform; real *h_logp;
} Generator;
// Room for `rows` responses at a time of at most max_new tokens to prompts of at most max_prompt, in `a`. Call again at each phase change.
void generator_carve(Generator *g, Model *m, Arena *a, size_t rows, size_t tokens, size_t max_prompt, size_t max_new);
void generator_free(Generator *g);
// Fills ids, logp, n, finished and key of r[0..n) (prompt and sample are given; equal prompts side by side are prefilled once).
// Uses m->packed: call model_pack first.
void generate(Generator *g, const Sampling *s, const Prompt *prompts, Response *r, size_t n);

// ----------------------------------------------------------------------------
// scoring sequences with a model: log-probabilities of responses, values, full-vocabulary KL

typedef struct { const Prompt *prompt; const Response *response; Buf trunk; } Sequence; // trunk: (np+n-1, C) the frozen blocks' output, or none
typedef struct {
    const Model *m; Acts acts; Batch batch;
    Buf index, target, hidden, dhidden, dhidden2, kept, logp, entropy, dlogp, v1, value, dv1, dvalue, old_logp, old_value, advantage, returns, stats;
    size_t tokens, R; int *h_tokens, *h_start, *h_index, *h_target; real *h_real;
} Scorer;
void scorer_carve(Scorer *s, const Model *m, Arena *a, size_t tokens, bool backward);
void scorer_free(Scorer *s);
size_t sequence_tokens(const Sequence *q);                       // np + n - 1: the last token is never read
size_t scorer_fit(const Scorer *s, const Sequence *q, size_t n); // how many of the n next sequences fit one forward pass; dies when the first does not
// Packs q[0..n) and gathers the hidden states at their actions (R of them): s->hidden. joint: at all tokens but a sequence's first.
void scorer_forward(Scorer *s, const Params *p, const Sequence *q, size_t n, bool joint, Buf hidden);
void sequence_logps(Scorer *s, const Params *p, const Sequence *q, size_t n, double temperature, bool joint, double *logp, double *entropy);

// ----------------------------------------------------------------------------
// PPO

// Sets reward (and prefix when `prefixes`) of r[0..n). Must be a function of prompt and response alone.
typedef void (*RewardFn)(void *context, const Prompt *prompts, Response *r, size_t n, bool prefixes);
typedef struct {
    ObjectiveSpec objective; Fhat fhat;
    bool joint_p, prefix_rank, has_missing_eos;
    double missing_eos, temperature, clip, value_clip, vf_coef, gamma, lambda, score_clip, lr;
    long episodes, rollout, minibatch, epochs, max_new, warmup;
    const char *schedule;
    size_t tokens, rows;           // a micro-batch; rows decoded at once (0: 512)
    uint64_t seed; int eos;
    AdamW adamw;
} PpoOptions;

#define EXACT_FLOOR (1.0 / 400) // --fhat exact with l or l1: the worst string has F = 0, and L would be -inf there; vbon needs no floor
enum { METRICS_MAX = 48 };
typedef struct { const char *key; double value; } Metric;
typedef struct {
    PpoOptions opt;
    Model *policy; Params reference; Arena ref_arena, work;
    Prompt *prompts; size_t n_prompts, max_prompt;
    RewardFn reward; void *reward_context;
    Generator gen; Scorer scorer; Buf trunk;
    Response *r; Sequence *seq; size_t *at, *order; // at (rollout+1): where a response's actions begin
    double *lp_old, *lp_ref, *entropy, *value, *rewards, *advantage, *returns; // by action
    double *ridge;                 // (max_new, 12): A (3,3) and b (3) of each position's regression
    long iteration, updates;       // done; optimiser steps of the whole run
    Metric metrics[METRICS_MAX]; size_t n_metrics;
    double (*clock)(void);         // seconds, for the time/ metrics; NULL: not timed
    double seconds_rollout, seconds_reward, seconds_update;
} Ppo;
// policy must be loaded with a value head (unless prefix_rank); prompts carry ids and a filled Cdf. The reference is the policy as it is now.
void ppo_create(Ppo *p, const PpoOptions *opt, Model *policy, Prompt *prompts, size_t n_prompts, RewardFn reward, void *context);
void ppo_free(Ppo *p);
// One iteration (App. F; Huang et al. 2024): roll out, score, advantages, epochs of clipped updates. Fills p->metrics; p->r holds the responses.
void ppo_iteration(Ppo *p);

#ifdef __cplusplus
}
#endif
#endif // PPO_H

// ============================================================================
#if defined(VBON_IMPLEMENTATION) && !defined(PPO_IMPLEMENTED)
#define PPO_IMPLEMENTED

// ----------------------------------------------------------------------------
// log pi_bon and log F

double log_pi_bon(double logF, double logp, long N)
{
    if (N < 1 || isnan(logF) || isnan(logp)) return NAN;
    if (N == 1) return logp;
    if (logp == -INFINITY) return -INFINITY;
    if (logF == -INFINITY) return (double)N * logp;
    // (F+p)^N - F^N = F^N (exp(N log(1 + p/F)) - 1); with x = log(p/F): log(1 + p/F) = softplus(x), kept as its logarithm ls
    double x = logp - logF;
    double ls = x < -36.7 ? x : x > 36.7 ? log(x + exp(-x)) : log(log1p(exp(x)));
    double lz = log((double)N) + ls, z = exp(lz);
    double g = lz < -36 ? lz : lz > 4 ? z + log1p(-exp(-z)) : log(expm1(z));
    return (double)N * logF + g;
}

double digamma(double x) // recurrence up to 10, then the asymptotic series: absolute error below 1e-14
{
    double sum = 0;
    while (x < 10) sum -= 1 / x++;
    double i = 1 / (x * x);
    return sum + log(x) - 0.5 / x - i * (1.0 / 12 - i * (1.0 / 120 - i * (1.0 / 252 - i * (1.0 / 240 - i * (1.0 / 132 - i * (691.0 / 32760 - i / 12))))));
}

double log_fhat(Fhat kind, double k, double M)
{
    switch (kind) {
    case FHAT_DIGAMMA: return digamma(k + 1) - digamma(M + 2);
    case FHAT_MC: return log(k / M);
    default: return log((k + 1) / (M + 1));
    }
}

uint64_t order_key(const int *ids, size_t n)
{
    uint64_t h = 0xcbf29ce484222325ull;
    for (size_t i = 0; i < n; i++)
        for (int byte = 0; byte < 4; byte++) h = (h ^ ((uint32_t)ids[i] >> (8 * byte) & 0xff)) * 0x100000001b3ull;
    return mix64(h);
}

double cdf_rank(const Cdf *c, double reward, uint64_t key, bool *tie)
{
    double k = 0;
    if (tie) *tie = false;
    for (size_t i = 0; i < c->M; i++) {
        if (c->key && c->key[i] == key) continue; // y itself, whatever the last bit of its reward
        if (c->reward[i] == reward) {
            if (tie) *tie = true;
            k += !c->key ? 0.5 : c->key[i] < key;
        } else k += c->reward[i] < reward;
    }
    return k;
}

bool order_below(double reward, uint64_t key, double other_reward, uint64_t other_key)
{
    return reward != other_reward ? reward < other_reward : key < other_key;
}

double cdf_rank_score(const Cdf *c, double score)
{
    double k = 0;
    for (size_t i = 0; i < c->M; i++) k += c->reward[i] < score ? 1 : c->reward[i] == score ? 0.5 : 0;
    return k;
}

double cdf_log_f(const Cdf *c, Fhat kind, double reward, uint64_t key, double *k, bool *tie)
{
    double rank = cdf_rank(c, reward, key, tie);
    if (k) *k = rank;
    if (kind == FHAT_EXPFIT && c->sd > 0) return -c->a * exp(-c->b * (reward - c->mean) / c->sd);
    if (kind != FHAT_EXACT) return log_fhat(kind, rank, (double)c->M);
    for (size_t i = 0; i < c->M && c->logF; i++) if (c->key[i] == key) return c->logF[i];
    die("--fhat exact: a response with order key %016llx is not in the cache's table: list every string with its F", (unsigned long long)key);
}

static int ascending(const void *a, const void *b) { double x = *(const double *)a, y = *(const double *)b; return (x > y) - (x < y); }

bool cdf_fit(Cdf *c)
{
    size_t M = c->M;
    double mean = 0, var = 0, a = 1, b = 1, damping = 1e-3, cost = INFINITY;
    c->sd = 0;
    if (M < 3) return false;
    for (size_t i = 0; i < M; i++) mean += c->reward[i] / (double)M;
    for (size_t i = 0; i < M; i++) var += (c->reward[i] - mean) * (c->reward[i] - mean) / (double)M;
    if (!(var > 0) || !isfinite(var)) return false;
    double *z = (double *)xmalloc(M * sizeof *z), sd = sqrt(var);
    memcpy(z, c->reward, M * sizeof *z);
    qsort(z, M, sizeof *z, ascending);
    for (size_t i = 0; i < M; i++) z[i] = (z[i] - mean) / sd;
    bool converged = false;
    for (int it = 0; it < 500 && !converged; it++) {
        // residual e_i = -a exp(-b z) - log(i/(M+1)); Jacobian (-exp(-b z), a z exp(-b z))
        double haa = 0, hab = 0, hbb = 0, ga = 0, gb = 0, sum = 0;
        for (size_t i = 0; i < M; i++) {
            double e = exp(-b * z[i]), r = -a * e - log((double)(i + 1) / (double)(M + 1)), ja = -e, jb = a * z[i] * e;
            haa += ja * ja; hab += ja * jb; hbb += jb * jb; ga += ja * r; gb += jb * r; sum += r * r;
        }
        cost = sum;
        for (;;) {
            double A = haa * (1 + damping), B = hbb * (1 + damping), det = A * B - hab * hab;
            double da = -(B * ga - hab * gb) / det, db = -(A * gb - hab * ga) / det, try_cost = 0;
            for (size_t i = 0; i < M; i++) {
                double r = -(a + da) * exp(-(b + db) * z[i]) - log((double)(i + 1) / (double)(M + 1));
                try_cost += r * r;
            }
            if (try_cost <= cost) {
                converged = fabs(da) <= 1e-12 * (fabs(a) + 1e-12) && fabs(db) <= 1e-12 * (fabs(b) + 1e-12);
                if (cost - try_cost <= 1e-15 * cost) converged = true;
                a += da; b += db; damping = damping > 1e-12 ? damping / 10 : damping;
                break;
            }
            damping *= 10;
            if (!(damping < 1e12)) { converged = isfinite(cost) && fabs(ga) + fabs(gb) <= 1e-6 * (1 + cost); it = 500; break; }
        }
    }
    free(z);
    if (!converged || !(a > 0) || !(b > 0)) return false;
    c->a = a; c->b = b; c->mean = mean; c->sd = sd;
    return true;
}

double bon_mean(const double *rewards, size_t M, long N)
{
    double *r = (double *)xmalloc(M * sizeof *r), sum = 0, n = (double)N, m = (double)M;
    memcpy(r, rewards, M * sizeof *r);
    qsort(r, M, sizeof *r, ascending);
    for (size_t i = (size_t)N; i <= M; i++) { // C(i-1, N-1) / C(M, N): the best of N distinct draws is the i-th smallest
        double x = (double)i, w = lgamma(x) - lgamma(n) - lgamma(x - n + 1) - (lgamma(m + 1) - lgamma(n + 1) - lgamma(m - n + 1));
        sum += r[i - 1] * exp(w);
    }
    free(r);
    return sum;
}

double bon_kl_bound(long N) { return log((double)N) - (double)(N - 1) / (double)N; }

Estimate estimate(const double *x, size_t n)
{
    double mean = 0, var = 0;
    for (size_t i = 0; i < n; i++) mean += x[i] / (double)n;
    for (size_t i = 0; i < n; i++) var += (x[i] - mean) * (x[i] - mean);
    return (Estimate){mean, n < 2 ? NAN : sqrt(var / (double)(n - 1) / (double)n)};
}

// ----------------------------------------------------------------------------
// objectives: one scale for the terminal score and the KL, or the optimum moves

void objective_prepare(ObjectiveSpec *o)
{
    if (o->compat_scale && o->kind != OBJECTIVE_VBON) die("--compat scale: it is a scaling of --objective vbon");
    if (o->kind == OBJECTIVE_RL && !(o->beta > 0)) die("--objective rl needs --beta, the strength of the KL penalty (> 0)");
    if (o->kind == OBJECTIVE_RL && o->N) die("--objective rl takes --beta, not --n");
    if (o->kind != OBJECTIVE_RL && o->N && o->beta > 0) die("--n and --beta exclude each other: N is never made from beta");
    if (o->compat_scale && !o->N && o->beta > 0) o->N = (long)(1 / o->beta) + 1; // as they do, and only for them
    else if ((o->kind == OBJECTIVE_VBON || o->kind == OBJECTIVE_L1) && o->beta > 0) die("--objective %s takes --n, not --beta", o->kind == OBJECTIVE_VBON ? "vbon" : "l1");
    if (o->kind != OBJECTIVE_RL && !(o->beta > 0) && o->N < 1) die("--n must be at least 1");
    double N = (double)o->N, c = o->N == 1 ? 1 : 1 / (N - 1);
    o->ref_weight = 0;
    o->score_scale = 1;
    switch (o->kind) {
    case OBJECTIVE_VBON:
        o->score_scale = o->compat_scale ? 1 / N : c;
        o->kappa = o->compat_scale && o->beta > 0 ? o->beta : c;
        break;
    case OBJECTIVE_L: o->kappa = o->beta > 0 ? o->beta : c; o->score_scale = o->N == 1 ? 0 : 1; break;
    case OBJECTIVE_L1: // Thm 3: gamma1 E[log F] - alpha1 H - beta1 KL, scaled by c; the entropy folds into the reference term
        o->score_scale = c * N * (N - 1) / 2;
        o->kappa = c;
        o->ref_weight = c * (N * (N + 1) / 2 - 1);
        break;
    case OBJECTIVE_RL: o->kappa = o->beta; break;
    }
}

double objective_score(const ObjectiveSpec *o, double reward, double logF, double logp)
{
    switch (o->kind) {
    case OBJECTIVE_VBON: return o->score_scale * (log_pi_bon(logF, logp, o->N) - logp);
    case OBJECTIVE_RL: return reward;
    default: return o->score_scale > 0 ? o->score_scale * logF : 0;
    }
}

void gae(double *advantage, double *returns, const double *reward, const double *value, size_t n, double gamma, double lambda)
{
    double A = 0;
    for (size_t t = n; t > 0;) {
        t--;
        double delta = reward[t] + gamma * (t + 1 < n ? value[t + 1] : 0) - value[t];
        A = delta + gamma * lambda * A;
        advantage[t] = A;
        returns[t] = A + value[t];
    }
}

void whiten(double *x, size_t n)
{
    double mean = 0, var = 0;
    for (size_t i = 0; i < n; i++) mean += x[i] / (double)n;
    for (size_t i = 0; i < n; i++) var += (x[i] - mean) * (x[i] - mean) / (double)n;
    double s = 1 / sqrt(var + 1e-8);
    for (size_t i = 0; i < n; i++) x[i] = (x[i] - mean) * s;
}

// ----------------------------------------------------------------------------
// sampling

void response_free(Response *r)
{
    free(r->ids); free(r->logp); free(r->prefix);
    r->ids = NULL; r->logp = NULL; r->prefix = NULL; r->n = 0;
}

void generator_carve(Generator *g, Model *m, Arena *a, size_t rows, size_t tokens, size_t max_prompt, size_t max_new)
{
    size_t C = m->cfg.C;
    if (tokens < rows) tokens = rows;
    if (tokens < max_prompt) tokens = max_prompt;
    if (!g->h_tokens) {
        g->h_tokens = (int *)xmalloc(tokens * sizeof(int)); g->h_start = (int *)xmalloc((tokens + 1) * sizeof(int)); g->h_pos = (int *)xmalloc(tokens * sizeof(int));
        g->h_index = (int *)xmalloc(rows * sizeof(int)); g->h_slot = (int *)xmalloc(rows * sizeof(int)); g->h_len = (int *)xmalloc(rows * sizeof(int));
        g->h_pslot = (int *)xmalloc(rows * sizeof(int)); g->h_plen = (int *)xmalloc(rows * sizeof(int)); g->live = (int *)xmalloc(2 * rows * sizeof(int));
        g->h_uniform = (double *)xmalloc(rows * sizeof(double)); g->h_logp = (real *)xmalloc(rows * sizeof(real));
    }
    g->m = m; g->rows = rows; g->tokens = tokens; g->max_prompt = max_prompt; g->max_new = max_new;
    batch_carve(&g->batch, a, tokens, rows);
    acts_carve(&g->acts, m, a, tokens, m->cfg.L);
    kv_carve(&g->prompts, m, a, rows, max_prompt, rows);
    kv_carve(&g->own, m, a, rows, max_new, rows);
    g->own.prefix = &g->prompts;
    g->hidden = arena_take(a, checked_product("head", rows, C), m->o->type, "head");
    g->index = arena_take(a, rows, DT_I32, "batch"); g->token = arena_take(a, rows, DT_I32, "batch");
    g->logp = arena_take(a, rows, DT_REAL, "head"); g->uniform = arena_take(a, rows, DT_F64, "batch");
}

void generator_free(Generator *g)
{
    acts_free(&g->acts); kv_free(&g->prompts); kv_free(&g->own);
    free(g->h_tokens); free(g->h_start); free(g->h_pos); free(g->h_index); free(g->h_slot); free(g->h_len); free(g->h_pslot); free(g->h_plen);
    free(g->live); free(g->h_uniform); free(g->h_logp);
    *g = (Generator){0};
}

// The prompts of r[0..n) through the model, each distinct run once; leaves the hidden state of each response's prompt's last token in g->hidden
// and the prompt's slot in slot_of.
static void prefill(Generator *g, const Prompt *prompts, const Response *r, size_t n, int *slot_of)
{
    const Ops *o = g->m->o;
    size_t C = g->m->cfg.C, slots = 0;
    for (size_t i = 0; i < n;) {
        size_t B = 0, N = 0, first = i;
        while (i < n) {
            const Prompt *p = &prompts[r[i].prompt];
            if (N + p->n > g->tokens) break;
            g->h_start[B] = (int)N;
            memcpy(g->h_tokens + N, p->ids, p->n * sizeof(int));
            N += p->n;
            g->h_slot[B] = (int)slots; g->h_len[B] = 0;
            for (size_t same = r[i].prompt; i < n && r[i].prompt == same; i++) { slot_of[i] = (int)slots; g->h_index[i - first] = (int)N - 1; }
            B++; slots++;
        }
        g->h_start[B] = (int)N;
        batch_set(&g->batch, g->m, g->h_tokens, g->h_start, NULL, B);
        o->upload(slice(g->prompts.slot, 0, B), g->h_slot);
        o->upload(slice(g->prompts.len, 0, B), g->h_len);
        Buf final = model_forward(g->m, &g->m->packed, &g->acts, &g->batch, 0, g->m->cfg.L, &g->prompts);
        o->upload(slice(g->index, 0, i - first), g->h_index);
        o->gather_rows(slice(g->hidden, first * C, (i - first) * C), final, g->index, i - first, C);
    }
}

// Stands for all that a decoding step of R rows is made of: the memory's layout follows from where it begins and from these sizes.
static uint64_t step_key(const Generator *g, const Sampling *s, size_t R)
{
    uint64_t x[] = {(uintptr_t)g->m->data.p, (uintptr_t)g->batch.tokens.p, g->rows, g->tokens, g->max_prompt, g->max_new, R, (uint64_t)s->top_k, 0, 0}, h = 0;
    memcpy(&x[8], &s->temperature, sizeof x[8]); memcpy(&x[9], &s->top_p, sizeof x[9]);
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) h = hash_more(h, x[i]);
    return h;
}

void generate(Generator *g, const Sampling *s, const Prompt *prompts, Response *all, size_t total)
{
    Model *m = g->m;
    const Ops *o = m->o;
    size_t C = m->cfg.C, V = m->cfg.V;
    Buf head = head_weight(&m->packed);
    int *slot_of = g->live + g->rows;
    for (size_t done = 0; done < total;) {
        Response *r = all + done;
        size_t n = total - done < g->rows ? total - done : g->rows, live = n;
        for (size_t i = 0; i < n; i++) {
            const Prompt *p = &prompts[r[i].prompt];
            if (p->n < 1 || p->n > g->max_prompt || p->n + g->max_new - 1 > m->cfg.max_T)
                die("%s: the prompt has %zu tokens; with %zu new ones the model's context of %zu is full: shorten it or lower --max-new", p->where ? p->where : "sampling", p->n, g->max_new, m->cfg.max_T);
            r[i].ids = (int *)xmalloc(g->max_new * sizeof(int));
            r[i].logp = (float *)xmalloc(g->max_new * sizeof(float));
            r[i].n = 0; r[i].finished = false; r[i].prefix = NULL;
            g->live[i] = (int)i;
        }
        prefill(g, prompts, r, n, slot_of);
        for (size_t t = 0; live; t++) {
            // rows to run: the live ones, rounded up with finished ones so that few distinct shapes occur (recordings on the GPU are prepared by shape)
            size_t R = t == 0 ? n : (live + 15) / 16 * 16;
            if (R > n) R = n;
            if (t > 0) {
                for (size_t i = 0; i < R; i++) {
                    int k = i < live ? g->live[i] : g->live[live - 1];
                    const Response *y = &r[k];
                    g->h_tokens[i] = y->ids[y->n - 1];
                    g->h_start[i] = (int)i;
                    g->h_plen[i] = (int)prompts[y->prompt].n; g->h_pslot[i] = slot_of[k];
                    g->h_slot[i] = k; g->h_len[i] = (int)y->n - 1;
                    g->h_pos[i] = g->h_plen[i] + g->h_len[i];
                }
                // the rounding rows repeat the last live row's token, each in the slot of a finished row, where it sees nothing but its prompt
                for (size_t i = live, spare = 0; i < R; i++, spare++) {
                    while (spare < n && !r[spare].finished) spare++;
                    g->h_slot[i] = (int)spare; g->h_len[i] = 0; g->h_pos[i] = g->h_plen[i];
                }
                g->h_start[R] = (int)R;
                batch_set(&g->batch, m, g->h_tokens, g->h_start, g->h_pos, R);
                o->upload(slice(g->own.slot, 0, R), g->h_slot); o->upload(slice(g->own.len, 0, R), g->h_len);
                o->upload(slice(g->own.pslot, 0, R), g->h_pslot); o->upload(slice(g->own.plen, 0, R), g->h_plen);
            }
            for (size_t i = 0; i < R; i++) {
                const Response *y = &r[i < live ? g->live[i] : 0];
                g->h_uniform[i] = random_uniform(s->seed, s->stream, y->prompt, y->sample, t);
            }
            o->upload(slice(g->uniform, 0, R), g->h_uniform);
            if (t == 0) o->sample(g->token, g->logp, g->hidden, head, g->uniform, s->temperature, s->top_k, s->top_p, R, C, V);
            else if (o->region_begin(step_key(g, s, R))) {
                Buf hidden = model_forward(m, &m->packed, &g->acts, &g->batch, 0, m->cfg.L, &g->own);
                o->sample(g->token, g->logp, hidden, head, g->uniform, s->temperature, s->top_k, s->top_p, R, C, V);
                o->region_end();
            }
            o->download(g->h_index, slice(g->token, 0, R));
            o->download(g->h_logp, slice(g->logp, 0, R));
            size_t still = 0;
            for (size_t i = 0; i < live; i++) {
                Response *y = &r[g->live[i]];
                if (!isfinite((double)g->h_logp[i]))
                    die("%s: after %zu tokens of a response the next one's log-probability is not finite: the model's weights are too large (has training diverged?), or --temperature is too low",
                    prompts[y->prompt].where ? prompts[y->prompt].where : "sampling", y->n);
                ids_check(m, &g->h_index[i], 1);
                y->ids[y->n] = g->h_index[i];
                y->logp[y->n++] = (float)g->h_logp[i];
                y->finished = g->h_index[i] == s->eos;
                if (!y->finished && y->n < g->max_new) g->live[still++] = g->live[i];
            }
            live = still;
        }
        for (size_t i = 0; i < n; i++) r[i].key = order_key(r[i].ids, r[i].n);
        done += n;
    }
}

// ----------------------------------------------------------------------------
// scoring sequences

void scorer_carve(Scorer *s, const Model *m, Arena *a, size_t tokens, bool backward)
{
    size_t C = m->cfg.C;
    bool critic = m->p.v1w.n > 0;
    s->m = m; s->tokens = tokens;
    if (!s->h_tokens) {
        s->h_tokens = (int *)xmalloc(tokens * sizeof(int)); s->h_start = (int *)xmalloc((tokens + 1) * sizeof(int));
        s->h_index = (int *)xmalloc(tokens * sizeof(int)); s->h_target = (int *)xmalloc(tokens * sizeof(int)); s->h_real = (real *)xmalloc(tokens * sizeof(real));
    }
    batch_carve(&s->batch, a, tokens, tokens);
    acts_carve(&s->acts, m, a, tokens, backward ? m->first_block : m->cfg.L);
    #define TAKE(n) arena_take(a, checked_product("head", tokens, n), m->o->type, "head")
    #define NUMBER() arena_take(a, tokens, DT_REAL, "head")
    s->index = arena_take(a, tokens, DT_I32, "batch"); s->target = arena_take(a, tokens, DT_I32, "batch");
    s->hidden = TAKE(C); s->logp = NUMBER(); s->entropy = NUMBER();
    if (backward) {
        s->dhidden = TAKE(C); s->dlogp = NUMBER(); s->old_logp = NUMBER(); s->old_value = NUMBER(); s->advantage = NUMBER(); s->returns = NUMBER();
        s->stats = arena_take(a, 8, DT_F64, "head"); s->value = NUMBER(); s->dvalue = NUMBER();
        if (critic) { s->dhidden2 = TAKE(C); s->v1 = TAKE(2 * C); s->dv1 = TAKE(2 * C); }
    }
    #undef TAKE
    #undef NUMBER
}

void scorer_free(Scorer *s)
{
    acts_free(&s->acts);
    free(s->h_tokens); free(s->h_start); free(s->h_index); free(s->h_target); free(s->h_real);
    *s = (Scorer){0};
}

size_t sequence_tokens(const Sequence *q) { return q->prompt->n + q->response->n - 1; }

size_t scorer_fit(const Scorer *s, const Sequence *q, size_t n)
{
    size_t fit = 0, N = 0;
    while (fit < n && N + sequence_tokens(&q[fit]) <= s->tokens) N += sequence_tokens(&q[fit++]);
    if (!fit) die("a sequence of %zu tokens does not fit --micro-tokens %zu: raise it", sequence_tokens(q), s->tokens);
    return fit;
}

static int token_at(const Sequence *q, size_t t) { return t < q->prompt->n ? q->prompt->ids[t] : q->response->ids[t - q->prompt->n]; }

static void scorer_pack(Scorer *s, const Sequence *q, size_t n) // the tokens of q[0..n) side by side into the batch
{
    size_t N = 0;
    for (size_t i = 0; i < n; i++) {
        s->h_start[i] = (int)N;
        for (size_t t = 0; t < sequence_tokens(&q[i]); t++) s->h_tokens[N++] = token_at(&q[i], t);
    }
    s->h_start[n] = (int)N;
    batch_set(&s->batch, s->m, s->h_tokens, s->h_start, NULL, n);
}

void scorer_forward(Scorer *s, const Params *p, const Sequence *q, size_t n, bool joint, Buf hidden)
{
    const Model *m = s->m;
    const Ops *o = m->o;
    size_t C = m->cfg.C, R = 0, from = q[0].trunk.p ? m->first_block : 0;
    scorer_pack(s, q, n);
    for (size_t i = 0; i < n; i++) {
        size_t at = (size_t)s->h_start[i], len = sequence_tokens(&q[i]);
        for (size_t t = joint ? 1 : q[i].prompt->n; t <= len; t++) { // the hidden state at t-1 predicts token t
            s->h_index[R] = (int)(at + t) - 1;
            s->h_target[R++] = token_at(&q[i], t);
        }
        if (q[i].trunk.p) o->copy(slice(s->acts.x, at * C, len * C), q[i].trunk);
    }
    s->R = R;
    ids_check(m, s->h_target, R); // a sequence's last token is never read
    o->upload(slice(s->index, 0, R), s->h_index);
    o->upload(slice(s->target, 0, R), s->h_target);
    Buf final = model_forward(m, p, &s->acts, &s->batch, from, m->cfg.L, NULL);
    o->gather_rows(hidden, final, s->index, R, C);
}

static void download_doubles(const Ops *o, double *out, Buf b, size_t n, real *host)
{
    o->download(host, slice(b, 0, n));
    for (size_t i = 0; i < n; i++) out[i] = (double)host[i];
}

void sequence_logps(Scorer *s, const Params *p, const Sequence *q, size_t n, double temperature, bool joint, double *logp, double *entropy)
{
    const Config *c = &s->m->cfg;
    const Ops *o = s->m->o;
    for (size_t i = 0, fit; i < n; i += fit) {
        fit = scorer_fit(s, q + i, n - i);
        scorer_forward(s, p, q + i, fit, joint, s->hidden);
        o->logprob_forward(s->logp, entropy ? s->entropy : (Buf){0}, (Buf){0}, s->hidden, head_weight(p), s->target, temperature, s->R, c->C, c->V);
        download_doubles(o, logp, s->logp, s->R, s->h_real);
        if (entropy) { download_doubles(o, entropy, s->entropy, s->R, s->h_real); entropy += s->R; }
        logp += s->R;
    }
}

// Values at the gathered positions: v2(relu(v1(hidden)))
static void value_forward(Scorer *s)
{
    const Ops *o = s->m->o;
    const Params *p = &s->m->p;
    size_t C = s->m->cfg.C;
    o->matmul_forward(s->v1, s->hidden, p->v1w, p->v1b, s->R, C, 2 * C);
    o->activation_forward(s->v1, s->v1, ACT_RELU, s->R * 2 * C);
    o->matmul_forward(s->value, s->v1, p->v2w, p->v2b, s->R, 2 * C, 1);
}

// Adds the value's gradient to dhidden
static void value_backward(Scorer *s)
{
    const Ops *o = s->m->o;
    const Params *p = &s->m->p, *g = &s->m->g;
    size_t C = s->m->cfg.C;
    o->matmul_backward(s->dv1, g->v2w, g->v2b, s->dvalue, s->v1, p->v2w, s->R, 2 * C, 1);
    o->activation_backward(s->dv1, s->dv1, s->v1, ACT_RELU, s->R * 2 * C); // relu(x) > 0 where x > 0
    o->matmul_backward(s->dhidden2, g->v1w, g->v1b, s->dv1, s->hidden, p->v1w, s->R, C, 2 * C);
    o->add(s->dhidden, s->dhidden, s->dhidden2, s->R * C);
}

// ----------------------------------------------------------------------------
// PPO

enum { RIDGE = 12 }; // a position's regression: A (3,3), b (3)

static size_t trunk_capacity(const Ppo *p)
{
    size_t longest = p->max_prompt + (size_t)p->opt.max_new - 1;
    return p->policy->first_block ? checked_product("trunk cache", (size_t)p->opt.rollout, longest) : 0;
}

// The work arena is laid out anew for each phase: sampling (KV cache), then scoring and updating.
static void phase_sample(Ppo *p)
{
    arena_reset(&p->work);
    size_t most = p->opt.rows ? p->opt.rows : 512, rows = (size_t)p->opt.rollout < most ? (size_t)p->opt.rollout : most;
    generator_carve(&p->gen, p->policy, &p->work, rows, p->opt.tokens, p->max_prompt, (size_t)p->opt.max_new);
}

static void phase_update(Ppo *p)
{
    arena_reset(&p->work);
    const Ops *o = p->policy->o;
    size_t V = p->policy->cfg.V;
    scorer_carve(&p->scorer, p->policy, &p->work, p->opt.tokens, true);
    p->scorer.kept = arena_take(&p->work, o->head_rows(V) * ((V + 63) / 64 * 64), DT_REAL, "head");
    size_t trunk = checked_product("trunk cache", trunk_capacity(p), p->policy->cfg.C);
    p->trunk = arena_take(&p->work, trunk, o->type, "trunk cache");
}

void ppo_create(Ppo *p, const PpoOptions *opt, Model *policy, Prompt *prompts, size_t n_prompts, RewardFn reward, void *context)
{
    const Ops *o = policy->o;
    *p = (Ppo){.opt = *opt, .policy = policy, .prompts = prompts, .n_prompts = n_prompts, .reward = reward, .reward_context = context};
    objective_prepare(&p->opt.objective);
    size_t minibatches = ((size_t)opt->rollout + (size_t)opt->minibatch - 1) / (size_t)opt->minibatch;
    size_t iterations = ((size_t)opt->episodes + (size_t)opt->rollout - 1) / (size_t)opt->rollout;
    size_t each = checked_product("--ppo-epochs", minibatches, (size_t)opt->epochs);
    p->updates = (long)checked_product("--episodes", each, iterations);
    for (size_t i = 0; i < n_prompts; i++) if (prompts[i].n > p->max_prompt) p->max_prompt = prompts[i].n;
    size_t n = policy->n_params - policy->first, E = (size_t)opt->rollout;
    size_t actions = checked_product("actions of a rollout", E, (size_t)opt->max_new);
    p->ref_arena = (Arena){.name = "reference", .o = o};
    p->work = (Arena){.name = "work", .o = o};
    for (int pass = 0; pass < 2; pass++) {
        if (pass) arena_place(&p->ref_arena);
        Buf copy = arena_take(&p->ref_arena, n, o->type, "reference");
        if (pass) params_twin(&p->reference, policy, copy);
    }
    phase_sample(p); phase_update(p);
    arena_place(&p->work);
    p->r = (Response *)xcalloc(E, sizeof *p->r);
    p->seq = (Sequence *)xcalloc(2 * E, sizeof *p->seq);
    p->at = (size_t *)xmalloc((E + 1) * sizeof *p->at);
    p->order = (size_t *)xmalloc((n_prompts > E ? n_prompts : E) * sizeof *p->order);
    double **arrays[] = {&p->lp_old, &p->lp_ref, &p->entropy, &p->value, &p->rewards, &p->advantage, &p->returns};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) *arrays[i] = (double *)xcalloc(actions + opt->tokens, sizeof(double));
    p->ridge = (double *)xcalloc((size_t)opt->max_new * RIDGE, sizeof(double));
}

void ppo_free(Ppo *p)
{
    for (long i = 0; i < p->opt.rollout; i++) response_free(&p->r[i]);
    generator_free(&p->gen); scorer_free(&p->scorer);
    arena_release(&p->ref_arena); arena_release(&p->work);
    params_free(&p->reference);
    free(p->r); free(p->seq); free(p->at); free(p->order); free(p->ridge);
    free(p->lp_old); free(p->lp_ref); free(p->entropy); free(p->value); free(p->rewards); free(p->advantage); free(p->returns);
    *p = (Ppo){0};
}

static double seconds_now(const Ppo *p) { return p->clock ? p->clock() : 0; }

static void measure(Ppo *p, const char *key, double value)
{
    if (p->n_metrics < METRICS_MAX) p->metrics[p->n_metrics++] = (Metric){key, value};
}

// Solves (A + I) w = b, 3 x 3 and positive definite, by Cholesky
static void ridge_solve(const double *ab, double w[3])
{
    double l[3][3] = {{0}}, y[3];
    for (int i = 0; i < 3; i++)
        for (int j = 0; j <= i; j++) {
            double s = ab[i * 3 + j] + (i == j);
            for (int k = 0; k < j; k++) s -= l[i][k] * l[j][k];
            l[i][j] = i == j ? sqrt(s) : s / l[j][j];
        }
    for (int i = 0; i < 3; i++) { y[i] = ab[9 + i]; for (int k = 0; k < i; k++) y[i] -= l[i][k] * y[k]; y[i] /= l[i][i]; }
    for (int i = 2; i >= 0; i--) { w[i] = y[i]; for (int k = i + 1; k < 3; k++) w[i] -= l[k][i] * w[k]; w[i] /= l[i][i]; }
}

// The prefix-rank baseline: V_t = w_t . (1, 1 + log F-hat(s_t), k(s_t)/M - 1/2), s_t the reward model's score of prompt + y_<t.
// w_t comes from past rollouts only, so the gradient stays unbiased; it sees rewards through ranks only, so monotone maps change nothing.
static void prefix_features(const Ppo *p, const Response *r, size_t t, double f[3])
{
    const Cdf *c = &p->prompts[r->prompt].cdf;
    double k = cdf_rank_score(c, r->prefix[t]);
    f[0] = 1;
    f[1] = 1 + log_fhat(FHAT_DIGAMMA, k, (double)c->M); // whatever --fhat is: a fit in the reward has no bounds where prefixes score
    f[2] = k / (double)c->M - 0.5;
}

static void prefix_values(Ppo *p)
{
    double w[3], f[3];
    for (size_t t = 0; t < (size_t)p->opt.max_new; t++) {
        ridge_solve(p->ridge + t * RIDGE, w);
        for (long i = 0; i < p->opt.rollout; i++) {
            if (t >= p->r[i].n) continue;
            prefix_features(p, &p->r[i], t, f);
            p->value[p->at[i] + t] = w[0] * f[0] + w[1] * f[1] + w[2] * f[2];
        }
    }
}

static void prefix_learn(Ppo *p) // after the rollout's values were taken: returns without discount, decay .8 an iteration
{
    double f[3];
    for (size_t j = 0; j < (size_t)p->opt.max_new * RIDGE; j++) p->ridge[j] *= 0.8;
    for (long i = 0; i < p->opt.rollout; i++) {
        const Response *r = &p->r[i];
        double G = 0;
        for (size_t t = r->n; t > 0;) {
            t--;
            double *ab = p->ridge + t * RIDGE;
            G = p->rewards[p->at[i] + t] + p->opt.gamma * G;
            prefix_features(p, r, t, f);
            for (int a = 0; a < 3; a++) {
                for (int b = 0; b < 3; b++) ab[a * 3 + b] += f[a] * f[b];
                ab[9 + a] += f[a] * G;
            }
        }
    }
}

// Uploads src[at[i]..) of a micro-batch's responses, in order, into dst
static void upload_actions(const Ppo *p, Buf dst, const double *src, const size_t *rows, size_t n)
{
    size_t R = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = p->at[rows[i]]; j < p->at[rows[i] + 1]; j++) p->scorer.h_real[R++] = (real)src[j];
    p->policy->o->upload(slice(dst, 0, R), p->scorer.h_real);
}

static void download_actions(const Ppo *p, double *dst, Buf src, const size_t *rows, size_t n)
{
    size_t R = 0;
    p->policy->o->download(p->scorer.h_real, slice(src, 0, p->scorer.R));
    for (size_t i = 0; i < n; i++)
        for (size_t j = p->at[rows[i]]; j < p->at[rows[i] + 1]; j++) dst[j] = (double)p->scorer.h_real[R++];
}

// Walks a minibatch (rows of p->order) in micro-batches that fit, the same for the old log-probabilities and for every epoch: shapes are equal.
// Returns how many rows from `at` on make the next micro-batch and leaves the sequences in p->seq's second half.
static size_t next_micro(Ppo *p, const size_t *rows, size_t n)
{
    Sequence *q = p->seq + p->opt.rollout;
    for (size_t i = 0; i < n; i++) q[i] = p->seq[rows[i]];
    return scorer_fit(&p->scorer, q, n);
}

// The frozen blocks' output of the rollout's sequences, kept in p->trunk; each sequence gets its part.
static void run_trunk(Ppo *p)
{
    Model *m = p->policy;
    Scorer *sc = &p->scorer;
    size_t E = (size_t)p->opt.rollout, C = m->cfg.C, used = 0;
    for (size_t i = 0, fit; i < E; i += fit) {
        fit = scorer_fit(sc, p->seq + i, E - i);
        scorer_pack(sc, p->seq + i, fit);
        Buf x = model_forward(m, &m->p, &sc->acts, &sc->batch, 0, m->first_block, NULL);
        if (m->first_block == m->cfg.L) x = sc->acts.x; // only the final norm trains
        m->o->copy(slice(p->trunk, used * C, sc->batch.N * C), slice(x, 0, sc->batch.N * C));
        for (size_t j = i; j < i + fit; j++) {
            p->seq[j].trunk = slice(p->trunk, used * C, sequence_tokens(&p->seq[j]) * C);
            used += sequence_tokens(&p->seq[j]);
        }
    }
}

// The gradient of the PPO loss over one minibatch, the responses rows[0..n), into m->g, and its sums (of cpu_ppo_loss) into stats.
static void minibatch_gradient(Ppo *p, const size_t *rows, size_t n, double stats[8])
{
    const PpoOptions *opt = &p->opt;
    Model *m = p->policy;
    const Ops *o = m->o;
    Scorer *sc = &p->scorer;
    size_t C = m->cfg.C, V = m->cfg.V, tokens = 0;
    Buf head = head_weight(&m->p), dhead = head_weight(&m->g);
    for (size_t i = 0; i < n; i++) tokens += p->r[rows[i]].n;
    model_zero_grad(m);
    o->fill(sc->stats, 0);
    for (size_t i = 0, fit; i < n; i += fit) {
        fit = next_micro(p, rows + i, n - i);
        scorer_forward(sc, &m->p, p->seq + opt->rollout, fit, false, sc->hidden);
        size_t R = sc->R, N = sc->batch.N;
        if (!opt->prefix_rank) value_forward(sc);
        else upload_actions(p, sc->value, p->value, rows + i, fit);
        upload_actions(p, sc->old_logp, p->lp_old, rows + i, fit);
        upload_actions(p, sc->old_value, p->value, rows + i, fit);
        upload_actions(p, sc->advantage, p->advantage, rows + i, fit);
        upload_actions(p, sc->returns, p->returns, rows + i, fit);
        for (size_t r = 0, most = o->head_rows(V), k; r < R; r += k) { // what the head knows of so many actions is kept between forward and backward
            k = R - r < most ? R - r : most;
            #define AT(b) slice(sc->b, r, k)
            Buf hidden = slice(sc->hidden, r * C, k * C);
            o->logprob_forward(AT(logp), (Buf){0}, sc->kept, hidden, head, AT(target), opt->temperature, k, C, V);
            o->ppo_loss(AT(dlogp), opt->prefix_rank ? (Buf){0} : AT(dvalue), sc->stats, AT(logp), AT(value), AT(old_logp), AT(old_value), AT(advantage), AT(returns),
                        1 / (double)tokens, opt->clip, opt->value_clip, opt->vf_coef, k);
            o->logprob_backward(slice(sc->dhidden, r * C, k * C), dhead, (Buf){0}, AT(dlogp), sc->kept, hidden, head, AT(target), opt->temperature, k, C, V);
            #undef AT
        }
        if (!opt->prefix_rank) value_backward(sc);
        o->fill(slice(sc->acts.dhidden, 0, N * C), 0);
        o->scatter_rows(sc->acts.dhidden, sc->dhidden, sc->index, R, C);
        model_backward(m, &sc->acts, &sc->batch);
    }
    o->download(stats, sc->stats);
}

void ppo_iteration(Ppo *p)
{
    const PpoOptions *opt = &p->opt;
    Model *m = p->policy;
    const Ops *o = m->o;
    const Config *cfg = &m->cfg;
    size_t E = (size_t)opt->rollout, C = cfg->C, V = cfg->V, MB = (size_t)opt->minibatch;
    double t0 = seconds_now(p);
    p->n_metrics = 0;

    // 1. The next prompts of a seeded permutation, one response each.
    for (size_t i = 0; i < E; i++) {
        size_t episode = (size_t)p->iteration * E + i, epoch = episode / p->n_prompts;
        if (i == 0 || episode % p->n_prompts == 0) random_permutation(p->order, p->n_prompts, opt->seed, STREAM_SHUFFLE, epoch);
        response_free(&p->r[i]);
        p->r[i] = (Response){.prompt = p->order[episode % p->n_prompts], .sample = episode};
    }
    phase_sample(p);
    model_pack(m);
    Sampling s = {.temperature = opt->temperature, .top_p = 1, .seed = opt->seed, .stream = STREAM_ROLLOUT, .eos = opt->eos};
    generate(&p->gen, &s, p->prompts, p->r, E);
    p->at[0] = 0;
    for (size_t i = 0; i < E; i++) p->at[i + 1] = p->at[i] + p->r[i].n;
    size_t actions = p->at[E];
    double t1 = seconds_now(p);

    // 2. Rewards of whole responses; the missing-EOS value replaces them before anything looks at them.
    p->reward(p->reward_context, p->prompts, p->r, E, opt->prefix_rank);
    for (size_t i = 0; i < E; i++) {
        if (!isfinite(p->r[i].reward))
            die("iteration %ld: the reward of a response to %s is not finite: check --reward", p->iteration + 1,
            p->prompts[p->r[i].prompt].where ? p->prompts[p->r[i].prompt].where : "a prompt");
        if (opt->has_missing_eos && !p->r[i].finished) p->r[i].reward = opt->missing_eos;
    }
    double t2 = seconds_now(p);

    // 3. The frozen trunk once; then the reference's log-probabilities from it.
    phase_update(p);
    Scorer *sc = &p->scorer;
    for (size_t i = 0; i < E; i++) p->seq[i] = (Sequence){&p->prompts[p->r[i].prompt], &p->r[i], {0}};
    if (m->first_block) run_trunk(p);
    double *logp_y = (double *)xcalloc(4 * E, sizeof *logp_y), *logp_score = logp_y + E, *k1 = logp_y + 2 * E, *k3 = logp_y + 3 * E, *joint = NULL; // logp_score: what the terminal score takes for log p
    sequence_logps(sc, &p->reference, p->seq, E, opt->temperature, false, p->lp_ref, NULL);
    for (size_t i = 0; i < E; i++)
        for (size_t j = p->at[i]; j < p->at[i + 1]; j++) logp_y[i] += p->lp_ref[j];
    memcpy(logp_score, logp_y, E * sizeof *logp_y);
    if (opt->joint_p) { // the released code's log p: prompt tokens too
        size_t n = 0, k = 0;
        for (size_t i = 0; i < E; i++) n += sequence_tokens(&p->seq[i]);
        joint = (double *)xmalloc(n * sizeof *joint);
        sequence_logps(sc, &p->reference, p->seq, E, opt->temperature, true, joint, NULL);
        for (size_t i = 0; i < E; i++) {
            logp_score[i] = 0;
            for (size_t t = 0; t < sequence_tokens(&p->seq[i]); t++) logp_score[i] += joint[k++];
        }
        free(joint);
    }

    // 4. Old log-probabilities and values, over the first epoch's minibatches.
    random_permutation(p->order, E, opt->seed, STREAM_MINIBATCH, (uint64_t)p->iteration * (uint64_t)opt->epochs);
    for (size_t b = 0; b < E; b += MB)
        for (size_t i = b, end = b + MB < E ? b + MB : E, fit; i < end; i += fit) {
            fit = next_micro(p, p->order + i, end - i);
            scorer_forward(sc, &m->p, p->seq + E, fit, false, sc->hidden);
            o->logprob_forward(sc->logp, sc->entropy, (Buf){0}, sc->hidden, head_weight(&m->p), sc->target, opt->temperature, sc->R, C, V);
            download_actions(p, p->lp_old, sc->logp, p->order + i, fit);
            download_actions(p, p->entropy, sc->entropy, p->order + i, fit);
            if (opt->prefix_rank) continue;
            value_forward(sc);
            download_actions(p, p->value, sc->value, p->order + i, fit);
        }
    if (opt->prefix_rank) prefix_values(p);
    double gap = 0;
    for (size_t i = 0; i < E; i++)
        for (size_t t = 0; t < p->r[i].n; t++) gap += fabs(p->lp_old[p->at[i] + t] - (double)p->r[i].logp[t]) / (double)actions;
    if (!(gap <= 0.2)) die("iteration %ld: log-probabilities at sampling and in training differ by %.3g on average (at most 0.2): weights or kernels disagree", p->iteration + 1, gap);

    // 5. log F-hat, the terminal score, the per-token rewards.
    double mean_reward = 0, all_rewards = 0, mean_logF = 0, distance = 0, mean_logp = 0, full = 0, zero = 0, ties = 0, eos = 0, entropy = 0;
    for (size_t i = 0; i < E; i++) {
        const Response *r = &p->r[i];
        const Cdf *c = &p->prompts[r->prompt].cdf;
        double k = 0, lp = 0, logF = 0;
        bool tie = false;
        if (c->M) {
            logF = cdf_log_f(c, opt->fhat, r->reward, r->key, &k, &tie);
            full += k >= (double)c->M; zero += k <= 0; ties += tie;
        }
        if (opt->fhat == FHAT_MC && k <= 0) logF = log(0.5 / (double)c->M);              // -inf otherwise: floored and counted (vbon/zero)
        if (opt->fhat == FHAT_EXACT && opt->objective.kind != OBJECTIVE_VBON && !(logF > log(EXACT_FLOOR))) logF = log(EXACT_FLOOR);
        double score = objective_score(&opt->objective, r->reward, logF, logp_score[i]);
        if (opt->score_clip > 0) score = score > opt->score_clip ? opt->score_clip : score < -opt->score_clip ? -opt->score_clip : score;
        for (size_t j = p->at[i]; j < p->at[i + 1]; j++) {
            p->rewards[j] = -opt->objective.kappa * (p->lp_old[j] - p->lp_ref[j]) + opt->objective.ref_weight * p->lp_ref[j];
            k1[i] += p->lp_old[j] - p->lp_ref[j];
            k3[i] += expm1(p->lp_ref[j] - p->lp_old[j]) + p->lp_old[j] - p->lp_ref[j];
            lp += p->lp_old[j];
            entropy += p->entropy[j];
        }
        p->rewards[p->at[i + 1] - 1] += score;
        for (size_t j = p->at[i]; j < p->at[i + 1]; j++) all_rewards += p->rewards[j];
        if (!isfinite(score)) die("iteration %ld: a terminal score is not finite (log F %g, log p %g): use another --fhat", p->iteration + 1, logF, logp_score[i]);
        mean_reward += r->reward; mean_logF += logF; mean_logp += logp_y[i]; eos += r->finished;
        if (opt->objective.N > 0 && c->M) distance += lp - log_pi_bon(logF, logp_y[i], opt->objective.N);
    }
    Estimate kl1 = estimate(k1, E), kl3 = estimate(k3, E);
    free(logp_y);

    // 6. Advantages and returns; whitened once over all response tokens.
    for (size_t i = 0; i < E; i++) {
        size_t a = p->at[i];
        gae(p->advantage + a, p->returns + a, p->rewards + a, p->value + a, p->r[i].n, opt->gamma, opt->lambda);
    }
    double mr = 0, vr = 0, ve = 0, me = 0;
    for (size_t j = 0; j < actions; j++) { mr += p->returns[j] / (double)actions; me += (p->returns[j] - p->value[j]) / (double)actions; }
    for (size_t j = 0; j < actions; j++) {
        double r = p->returns[j] - mr, e = p->returns[j] - p->value[j] - me;
        vr += r * r; ve += e * e;
    }
    if (opt->prefix_rank) prefix_learn(p);
    whiten(p->advantage, actions);

    // 7. Epochs over shuffled minibatches: clipped policy and value losses, one optimiser step each.
    double stats[8], sum[8] = {0}, norm = 0, lr = 0;
    long updates = 0;
    for (long epoch = 0; epoch < opt->epochs; epoch++) {
        random_permutation(p->order, E, opt->seed, STREAM_MINIBATCH, (uint64_t)p->iteration * (uint64_t)opt->epochs + (uint64_t)epoch);
        for (size_t b = 0; b < E; b += MB) {
            minibatch_gradient(p, p->order + b, b + MB < E ? MB : E - b, stats);
            if (epoch == 0 && b == 0 && (stats[2] != 0 || stats[6] != 0))
                die("iteration %ld: on the first minibatch the ratio is not 1 (approximate KL %g): the old log-probabilities were not computed by the same kernels", p->iteration + 1, stats[2]);
            for (int i = 0; i < 8; i++) sum[i] += stats[i];
            AdamW a = opt->adamw;
            a.lr = lr = schedule_lr(opt->schedule, opt->lr, m->step, p->updates, opt->warmup);
            norm += model_update(m, &a);
            updates++;
        }
    }
    double t3 = seconds_now(p), e = (double)E, n = sum[7];
    p->iteration++;
    p->seconds_rollout += t1 - t0; p->seconds_reward += t2 - t1; p->seconds_update += t3 - t2;
    measure(p, "episode", (double)p->iteration * e);
    measure(p, "objective/scores", mean_reward / e);
    measure(p, "objective/kl", kl1.mean);
    measure(p, "objective/kl_se", kl1.se);
    measure(p, "objective/kl_k3", kl3.mean);
    measure(p, "objective/kl_k3_se", kl3.se);
    measure(p, "objective/entropy", entropy / e);
    measure(p, "objective/rlhf_reward", all_rewards / e);
    bool cached = p->prompts[0].cdf.M > 0;
    measure(p, "vbon/distance", cached && opt->objective.N > 0 ? distance / e : NAN);
    measure(p, "vbon/logF", cached ? mean_logF / e : NAN);
    measure(p, "vbon/saturation", cached ? full / e : NAN);
    measure(p, "vbon/zero", cached ? zero / e : NAN);
    measure(p, "vbon/tie_rate", cached ? ties / e : NAN);
    measure(p, "vbon/logpi_ref", mean_logp / e);
    measure(p, "policy/approxkl_avg", sum[2] / n);
    measure(p, "policy/clipfrac_avg", sum[3] / n);
    measure(p, "loss/policy_avg", sum[0] / n);
    measure(p, "loss/value_avg", sum[1] / n);
    measure(p, "val/clipfrac_avg", sum[4] / n);
    measure(p, "val/ratio", sum[5] / n);
    measure(p, "val/ratio_var", sum[6] / n - (sum[5] / n - 1) * (sum[5] / n - 1));
    measure(p, "val/num_eos_tokens", eos);
    measure(p, "val/logp_gap", gap);
    measure(p, "val/explained_variance", vr > 0 ? 1 - ve / vr : NAN);
    measure(p, "val/response_length", (double)actions / e);
    measure(p, "grad_norm", norm / (double)updates);
    measure(p, "lr", lr);
    measure(p, "time/rollout", t1 - t0);
    measure(p, "time/reward", t2 - t1);
    measure(p, "time/update", t3 - t2);
}
#endif // VBON_IMPLEMENTATION
