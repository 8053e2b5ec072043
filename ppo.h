// ppo.h: variational Best-of-N by PPO.
//
// Best-of-N draws N samples from the reference and keeps the best. Its distribution is known in closed form (Prop. 1):
// with F(y) the probability that one reference sample is worse than y, and p(y) the reference's probability of y,
//
//     pi_bon(y) = (F(y) + p(y))^N - F(y)^N
//
// so a policy can be trained towards it: maximise J = E[log pi_bon(y)] + H = -KL(pi_theta || pi_bon). This file is that
// mathematics in plain doubles (log_pi_bon, the estimates of log F, the objectives), which a program of two lines can
// include alone, and PPO: the numbered steps of ppo_iteration, each a function under it. An objective, an estimate of
// log F and a critic (lib/critics.h) are rows of tables; add yours there.
//
// Sources, by the names that are used in this project:
//  - the paper: Amini, Vieira, Ash, Cotterell, Variational Best-of-N Alignment, ICLR 2025, arXiv:2407.06057. Numbers of
//    equations (Eq.), propositions, theorems, footnotes and appendices are the paper's.
//  - the released code: its authors' program, https://github.com/rycolab/vbon.
//  - N+: Huang et al., The N+ Implementation Details of RLHF with PPO, 2024, arXiv:2403.17031; its details are
//    numbered.
//  - PPO: Schulman et al., Proximal Policy Optimization Algorithms, 2017, arXiv:1707.06347.
//  - BOND: Sessa et al., BOND: Aligning LLMs with Best-of-N Distillation, 2024, arXiv:2407.14622 (lib/bond.h).
//  - GAE: Schulman et al., High-Dimensional Continuous Control Using Generalized Advantage Estimation, 2016,
//    arXiv:1506.02438.
//
// Three words: a *score* is what a reward model's head says of a text; the *reward* of a response is made of it
// (--reward-scale, --missing-eos), or is what a program answers; the *terminal score* is what an objective makes of a
// response, and PPO's reward of its last action. `rollout.reward` is the reward of an action.
//
// What is easy to get wrong, and how it is done here:
//  - A response is sampled to the limit and cut after the first end-of-text (N+ detail 23). A row has a length; there
//    is no pad token.
//  - The terminal score goes to the last sampled action, the per-token KL to each (the released code puts it on a
//    masked entry).
//  - Log-probabilities come from logits / temperature, divided before the log-softmax; no dropout (N+ detail 7).
//  - Old log-probabilities come from the training forward, over the first epoch's minibatches in their shapes, so that
//    on the first minibatch the ratio is 1 bit for bit. It is checked at every iteration. Those kept at sampling time
//    must agree (val/logp_gap).
//  - Advantages are whitened once a rollout over response tokens only; returns use the unwhitened ones (N+ detail 25).
//  - Losses are sums over response tokens divided by those of the whole minibatch, whatever the micro-batches.
//  - The value head is Linear-ReLU-Linear on the shared trunk, its output layer zero at the start.
//  - What is frozen runs once a rollout: its output is kept and reused by the reference, the value and every epoch.
//
// Left out on purpose: a separate critic started from the reward model (it would see more than ranks), adaptive KL,
// reward whitening.
#pragma once
#include "gpt2.h"
#include "lib/pass.h"
#include "lib/parallel.h"

#ifdef __cplusplus
extern "C" {
#endif

// ----------------------------------------------------------------------------
// the mathematics

// log pi_bon(y) from log F(y), log p(y) and N (Prop. 1, Eq. 4 and 11): log[(F+p)^N - F^N], stable for any N >= 1 (never
// the binomial sum, never the difference). NaN for N < 1 or NaN input. log F = -inf gives N log p; log p = -inf gives
// -inf; N = 1 gives log p.
double log_pi_bon(double logF, double logp, long N);

double digamma(double x); // x > 0
// What is cached of a prompt: rewards and order keys of M reference samples, in draw order.
typedef struct {
    size_t M;
    double *reward; uint64_t *key; // (M) each; key NULL: ties by mid-rank
    double *logF;                  // (M), for --fhat exact: the table of exact values by key, else NULL
    double a, b, mean, sd;         // the exponential fit, log F = -a exp(-b (r - mean)/sd); sd 0: no fit, add1 is used
} Cdf;
// k: cached samples below y; y itself never counts. tie: equal rewards, other key
double cdf_rank(const Cdf *c, double reward, uint64_t key, bool *tie);
// The same for a score that is no response's: ties count half.
double cdf_rank_of(const Cdf *c, double score);
// Footnote 18 by Levenberg-Marquardt on (z_(i), log(i/(M+1))); false (and sd 0) when it does not converge or rewards
// have no spread.
bool cdf_fit(Cdf *c);

// Where a response stands among its prompt's cached samples: all that an estimate of log F may look at.
// k of M samples are below; it may be half-integer
typedef struct { const Cdf *cdf; double reward; uint64_t key; double k; bool tie; } Place;
Place cdf_place(const Cdf *c, double reward, uint64_t key);
// log F for measuring, psi(k+1) - psi(M+1): for k ~ Bin(M, F) its mean is log F + sum_{j>M} (1-F)^j/j, so Best-of-N's
// own samples come out at a distance of 0. (Training's digamma is the posterior mean, 1/(M+1) lower: a constant in the
// score, but N-1 times that in a distance. Under the reference itself, where F < 1/M happens, this one is as much too
// high.)
double measured_log_f(const Place *at);

// An estimate of log F, by --fhat.
typedef struct {
    const char *name, *help;
    double (*log_f)(const Place *at);             // -inf where the estimate says F = 0
    // what stands for a smaller log F in training (finite: the score must be); NULL: nothing does
    double (*least)(const Cdf *c, bool finite);
    bool fits, exact;                             // wants cdf_fit of every prompt, the exact value of every string
} Fhat;
extern Fhat fhats[ROWS_MAX];

double bon_mean(const double *rewards, size_t M, long N);       // unbiased expected best of N from a pool of M >= N
double bon_kl_bound(long N);                                    // log N - (N-1)/N
typedef struct { double mean, se; } Estimate;
Estimate estimate(const double *x, size_t n);                   // mean and its standard error (n < 2: NaN)

// What PPO maximises, by --objective: a terminal score, and at every action the reward -kappa (log pi - log ref) +
// ref_weight log ref. One scale for all of it, or the optimum moves (App. B, Thms 2 and 3).
typedef struct ObjectiveSpec ObjectiveSpec;
enum { TAKES_N = 1, TAKES_BETA = 2 };
typedef struct {
    const char *name, *help;
    int takes;                            // how its strength is given: one of these or both
    void (*weights)(ObjectiveSpec *o);    // sets kappa, ref_weight and score_scale from N or beta
    // of a whole response; logp: the reference's
    double (*score)(const ObjectiveSpec *o, const Response *y, double logF, double logp);
    bool cached;                          // the score is made of log F: a reward cache is needed
    bool finite;                          // and is not finite where log F is not
} Objective;
extern Objective objectives[ROWS_MAX];
struct ObjectiveSpec {
    const Objective *row;
    long N; double beta;    // the strength: one of them, the other 0
    bool compat_scale;      // vbon as in the released code: score / n, kappa 1/(n-1)
    double kappa, ref_weight, score_scale;
    // bond, jbond (lib/bond.h): an anchor draws, and kappa's log ref is its. Beside PPO's loss stands -forward log
    // pi(y'), y' the best of its first `best` draws; log F is log_f of y's place among the first k, not --fhat's
    double forward;
    double (*log_f)(const Place *among);
    long best, k;
    double anchor_rate, anchor_kl; // jbond: how fast the anchor follows the policy; weight of the KL to it
};
void objective_prepare(ObjectiveSpec *o); // checks the strength, dies on what does not make sense, sets the weights
// One row's advantages and returns: rewards, values -> (n) each; V after the last action is 0 (GAE, Eq. 16)
void gae(double *advantage, double *returns, const double *reward, const double *value, size_t n, double gamma,
         double lambda);
// to mean 0, population variance 1, eps 1e-8
void whiten(double *x, size_t n);

// ----------------------------------------------------------------------------
// PPO

// Sets reward (and prefix when `prefixes`) of r[0..n). Must be a function of prompt and response alone.
typedef void (*RewardFn)(void *context, const Prompt *prompts, Response *r, size_t n, bool prefixes);
// Scores r[0..n) with other last tokens: score (actions,K) is that of the prompt, the first t tokens of a response and
// one of the K tokens that `token` (actions,K) has for its action t.
typedef void (*CandidateFn)(void *context, const Prompt *prompts, const Response *r, size_t n, const int *token,
                            size_t K, double *score);
typedef struct Ppo Ppo;

// Where the values V come from, by --critic.
typedef struct {
    const char *name, *help;
    bool value_head;         // a head on the policy's trunk, trained with it by the clipped value loss
    bool prefixes;           // wants the reward model's score of every prefix of a response
    size_t state;            // doubles it keeps for each position of a response, in p->critic; saved in checkpoints
    void (*values)(Ppo *p);  // fills rollout.value when rewards are known and returns are not; NULL: the head has
    void (*learn)(Ppo *p);   // after the returns are known; NULL: nothing is learned there
} Critic;
extern Critic critics[ROWS_MAX];
enum { CRITIC_AUTO, CRITIC_HEAD, CRITIC_PREFIX_RANK }; // its first rows

typedef struct {
    ObjectiveSpec objective; const Fhat *fhat; const Critic *critic;
    bool joint_p, has_missing_eos;
    double missing_eos, temperature, clip, value_clip, vf_coef, gamma, lambda, score_clip, lr;
    long episodes, rollout, minibatch, epochs, max_new, warmup;
    const Schedule *schedule;
    size_t tokens, rows;           // a micro-batch; rows decoded at once (0: 512)
    size_t all_actions;            // of each state the gradient is taken over so many tokens; 0: the sampled one
    double correction;             // and the weight of what is left of the sampled one's advantage
    size_t groups;                 // that rollouts and minibatches are cut into, for several processes (0: 1)
    uint64_t seed; int eos;
    AdamW adamw;
    Turns *turns;                  // where the reference is between its turns in memory; NULL: on the device for good
} PpoOptions;

// What draws beside the policy, for bond and jbond; all 0 for the others. lib/bond.h is about it.
typedef struct {
    size_t K;                      // draws to each prompt of a rollout
    Response *y;                   // (E,K)
    double *reward; uint64_t *key; // (E,K) of the draws, as a Cdf has them
    Sequence *best;                // (E) the best of each prompt's first `best` draws
    Buf weights; Params params;    // of the n parameters that train; all of them by name
    double *average, *logp;        // jbond: (n) the weights exactly, saved in checkpoints; (actions) log pi_anchor
    real *host;                    // (n) for weights on their way
    double nll, counted;           // -log pi(y') of the best draws of an iteration, and how many
} Anchor;

// The likeliest tokens at every state of a rollout, for the all-actions gradient; lib/candidates.h is about it.
typedef struct {
    size_t K;                          // 0: there are none
    int *token;                        // (actions,K)
    double *logp, *ref_logp, *worth;   // (actions,K) log pi_old, log pi_ref; the score, then what it is worth
    double *control;                   // (actions)
    double unit;                       // what the advantages were divided by
    double covered, explained, seconds; // for the log (candidates_report)
    Buf tokens, numbers;               // (actions,K) a micro-batch's
} Candidates;

// What a rollout of E responses is known by, filled step by step by ppo_iteration.
typedef struct {
    size_t E, actions;                             // an action is a sampled token
    Response *y; Sequence *seq, *micro;            // (E) each; micro: the sequences of the micro-batch at hand
    // (E+1): the actions of y[i] are at[i] .. at[i+1]-1 of the arrays below
    size_t *at;
    double *old_logp, *ref_logp, *entropy, *value; // (actions)
    double *reward, *advantage, *returns;          // (actions)
    // (E) log p of the whole response; what the terminal score takes for it
    double *ref_logp_y, *score_logp_y;
    double *logF, *score; Place *place;            // (E); score: the terminal score, clipped
} Rollout;

// The value head: V = v2(relu(v1(state))), v1 (C,2C), at the R states that a Pass gathered.
typedef struct {
    Buf v1, dv1;       // (R,2C)
    Buf value, dvalue; // (R)
    Buf dhidden;       // (R,C) its part of the states' gradient
} ValueHead;
// without the head's parameters: value and dvalue alone
void value_carve(ValueHead *v, const Model *m, Arena *a, size_t tokens);
void value_forward(ValueHead *v, const Pass *p);
void value_backward(ValueHead *v, const Pass *p);                        // adds to p->dhidden

// Sums over actions that the loss of a minibatch leaves. Doubles only: devices add them up as an array.
typedef struct {
    double policy_loss, value_loss, approx_kl, clipped, value_clipped, ratio, ratio_spread, actions;
} PpoSums;
enum { PPO_SUMS = sizeof(PpoSums) / sizeof(double) };

// PPO's clipped losses of one action (PPO, Eq. 7 and 9) and their derivatives by its log-probability and its value. A
// loss is the larger, that is the worse, of the clipped and the unclipped one. Both devices' ppo_loss are a loop over
// this.
static inline HOST_DEVICE void ppo_action_loss(double *dlogp, double *dvalue, PpoSums *sums, double logp, double value,
                                               double old_logp, double old_value, double advantage, double returns,
                                               double clip, double value_clip)
{
    double diff = logp - old_logp, logratio = diff > 20 ? 20 : diff < -20 ? -20 : diff, ratio = exp(logratio);
    double clipped = ratio < 1 - clip ? 1 - clip : ratio > 1 + clip ? 1 + clip : ratio;
    double loss = -advantage * ratio, loss_clipped = -advantage * clipped;
    *dlogp = loss >= loss_clipped && logratio == diff ? loss : 0;

    double near_old = value < old_value - value_clip ? old_value - value_clip
        : value > old_value + value_clip             ? old_value + value_clip
                                                     : value;
    double square = (value - returns) * (value - returns), square_clipped = (near_old - returns) * (near_old - returns);
    *dvalue = square >= square_clipped ? value - returns : 0;

    sums->policy_loss += loss > loss_clipped ? loss : loss_clipped;
    sums->value_loss += 0.5 * (square > square_clipped ? square : square_clipped);
    sums->approx_kl += ratio - 1 - logratio; // the estimator k3 of http://joschu.net/blog/kl-approx.html
    sums->clipped += loss_clipped > loss;
    sums->value_clipped += square_clipped > square;
    sums->ratio += ratio;
    sums->ratio_spread += (ratio - 1) * (ratio - 1);
    sums->actions += 1;
}

enum { METRICS_MAX = 48 };
typedef struct { const char *key; double value; } Metric;
struct Ppo {
    PpoOptions opt;
    Model *policy; Params reference; Arena ref_arena, work;
    Buf ref_kept;                  // the reference's weights in opt.turns
    // (n_prompts) each; cdf NULL: nothing is cached
    const Prompt *prompts; const Cdf *cdf; size_t n_prompts, max_prompt;
    RewardFn reward; CandidateFn score_candidates; void *reward_context; // score_candidates: NULL without all_actions
    Generator gen; Pass pass; ValueHead head; Buf trunk;
    // a micro-batch's: (actions) each; what the LM head keeps; PpoSums
    Buf old_logp, old_value, advantage, returns, kept, sums;
    Rollout rollout; size_t *order;
    Groups groups;                 // this process's share of the work (lib/parallel.h)
    Anchor anchor;
    Candidates candidates;
    double *critic;                // (max_new, critic->state)
    long iteration, updates;       // done; optimiser steps of the whole run
    Metric metrics[METRICS_MAX]; size_t n_metrics;
    double (*clock)(void);         // seconds, for the time/ metrics; NULL: not timed
    double seconds_rollout, seconds_reward, seconds_update;
};
// policy must be loaded with a value head if the critic is one; prompts and their Cdfs (NULL if neither objective nor
// critic looks at the cache) must outlive p. The reference is the policy as it is now.
void ppo_create(Ppo *p, const PpoOptions *opt, Model *policy, const Prompt *prompts, const Cdf *cdf, size_t n_prompts,
                RewardFn reward, void *context);
void ppo_free(Ppo *p);
// One iteration (App. F): roll out, score, advantages, epochs of clipped updates. Fills p->metrics; p->rollout keeps
// what it is made of.
void ppo_iteration(Ppo *p);

#ifdef __cplusplus
}
#endif

// ============================================================================
#ifdef VBON_IMPLEMENTATION

// ----------------------------------------------------------------------------
// log pi_bon and log F

double log_pi_bon(double logF, double logp, long N)
{
    if (N < 1 || isnan(logF) || isnan(logp)) return NAN;
    if (N == 1) return logp;
    if (logp == -INFINITY) return -INFINITY;
    if (logF == -INFINITY) return (double)N * logp;
    // (F+p)^N - F^N = F^N (exp(N log(1 + p/F)) - 1); with x = log(p/F): log(1 + p/F) = softplus(x), kept as its
    // logarithm ls
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
    double tail = 1.0 / 240 - i * (1.0 / 132 - i * (691.0 / 32760 - i / 12));
    return sum + log(x) - 0.5 / x - i * (1.0 / 12 - i * (1.0 / 120 - i * (1.0 / 252 - i * tail)));
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

double cdf_rank_of(const Cdf *c, double score)
{
    double k = 0;
    for (size_t i = 0; i < c->M; i++) k += c->reward[i] < score ? 1 : c->reward[i] == score ? 0.5 : 0;
    return k;
}

Place cdf_place(const Cdf *c, double reward, uint64_t key)
{
    Place at = {c, reward, key, 0, false};
    at.k = cdf_rank(c, reward, key, &at.tie);
    return at;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

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
            if (!(damping < 1e12)) {
                converged = isfinite(cost) && fabs(ga) + fabs(gb) <= 1e-6 * (1 + cost);
                it = 500;
                break;
            }
        }
    }
    free(z);
    if (!converged || !(a > 0) || !(b > 0)) return false;
    c->a = a; c->b = b; c->mean = mean; c->sd = sd;
    return true;
}

// Eq. 6: the share of the samples that are below. At k = 0 training takes half a sample: L would be -inf there, and log
// pi_bon hundreds of nats off.
static double mc_log_f(const Place *at) { return log(at->k / (double)at->cdf->M); }
static double mc_least(const Cdf *c, bool finite) { (void)finite; return log(0.5 / (double)c->M); }
// The posterior mean of log F under a uniform prior; its own mean under the reference is exactly -1.
static double digamma_log_f(const Place *at) { return digamma(at->k + 1) - digamma((double)at->cdf->M + 2); }
static double add1_log_f(const Place *at) { return log((at->k + 1) / ((double)at->cdf->M + 1)); }
static double expfit_log_f(const Place *at)
{
    const Cdf *c = at->cdf;
    return c->sd > 0 ? -c->a * exp(-c->b * (at->reward - c->mean) / c->sd) : add1_log_f(at);
}
static double exact_log_f(const Place *at)
{
    const Cdf *c = at->cdf;
    for (size_t i = 0; i < c->M && c->logF; i++) if (c->key[i] == at->key) return c->logF[i];
    die("--fhat exact: a response with order key %016llx is not in the cache's table: list every string with its F",
        (unsigned long long)at->key);
}
// the worst string has F = 0
static double exact_least(const Cdf *c, bool finite) { (void)c; return finite ? log(1.0 / 400) : -INFINITY; }

double measured_log_f(const Place *at)
{
    return at->cdf->logF ? exact_log_f(at) : digamma(at->k + 1) - digamma((double)at->cdf->M + 1);
}

Fhat fhats[ROWS_MAX] = {
    {"digamma", "the posterior mean of log F", digamma_log_f, NULL, false, false},
    {"mc", "log k/M, Eq. 6", mc_log_f, mc_least, false, false},
    {"add1", "log (k+1)/(M+1), the released code's", add1_log_f, NULL, false, false},
    {"expfit", "an exponential of the reward fitted to each prompt's samples, footnote 18", expfit_log_f, NULL, true,
     false},
    {"exact", "F from the cache, where all strings can be listed", exact_log_f, exact_least, false, true},
};

double bon_mean(const double *rewards, size_t M, long N)
{
    double *r = (double *)xmalloc(M * sizeof *r), sum = 0, n = (double)N, m = (double)M;
    memcpy(r, rewards, M * sizeof *r);
    qsort(r, M, sizeof *r, ascending);
    // C(i-1, N-1) / C(M, N): the best of N distinct draws is the i-th smallest
    for (size_t i = (size_t)N; i <= M; i++) {
        double x = (double)i,
               w = lgamma(x) - lgamma(n) - lgamma(x - n + 1) - (lgamma(m + 1) - lgamma(n + 1) - lgamma(m - n + 1));
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

static double strength_scale(const ObjectiveSpec *o) { return o->N == 1 ? 1 : 1 / ((double)o->N - 1); } // c = 1/(N-1)

// J = E[log pi_bon] + H (Eq. 5), times c.
static void vbon_weights(ObjectiveSpec *o)
{
    double c = strength_scale(o);
    o->score_scale = o->compat_scale ? 1 / (double)o->N : c;
    o->kappa = o->compat_scale && o->beta > 0 ? o->beta : c;
}
static double vbon_score(const ObjectiveSpec *o, const Response *y, double logF, double logp)
{
    (void)y;
    return o->score_scale * (log_pi_bon(logF, logp, o->N) - logp);
}

// The bound L = (N-1) E[log F] - KL (Thm 2, Eq. 8), times c; with beta any strength between the whole N = 1/beta + 1.
static void l_weights(ObjectiveSpec *o)
{
    o->kappa = o->beta > 0 ? o->beta : strength_scale(o);
    o->score_scale = o->N == 1 ? 0 : 1;
}
// The bound L1 = gamma1 E[log F] - alpha1 H - beta1 KL (Thm 3, Eq. 16), times c; the entropy folds into the reference's
// term.
static void l1_weights(ObjectiveSpec *o)
{
    double N = (double)o->N, c = strength_scale(o);
    o->score_scale = c * N * (N - 1) / 2;
    o->kappa = c;
    o->ref_weight = c * (N * (N + 1) / 2 - 1);
}
static double log_f_score(const ObjectiveSpec *o, const Response *y, double logF, double logp)
{
    (void)y; (void)logp;
    return o->score_scale > 0 ? o->score_scale * logF : 0;
}

// KL-regularised reward (Eq. 1).
static void rl_weights(ObjectiveSpec *o) { o->kappa = o->beta; }
static double rl_score(const ObjectiveSpec *o, const Response *y, double logF, double logp)
{
    (void)logF; (void)logp;
    return o->score_scale * y->reward;
}

// BOND (lib/bond.h): half of KL(pi_bon || pi), which is the cross-entropy of Best-of-N's draws, and half of
// KL(pi || pi_bon), which is L with p<=, the probability of a sample that is not above y, in place of F.
static double at_most(const Place *at) // of the draws: those below y, and y itself
{
    double n = at->k;
    for (size_t i = 0; i < at->cdf->M; i++) n += at->cdf->key[i] == at->key;
    return n;
}
static double bond_log_f(const Place *at) { return log((1 + at_most(at)) / (1 + (double)at->cdf->M)); }
static void bond_weights(ObjectiveSpec *o)
{
    if (o->N < 2) die("--objective bond needs --n of at least 2: Best-of-1 is the reference itself");
    o->score_scale = ((double)o->N - 1) / 2;
    o->kappa = o->forward = 0.5;
    o->log_f = bond_log_f;
    o->best = o->N;
    o->anchor_rate = 0;
}
// J-BOND, a step of BOND with N = 2 towards an anchor that follows: log p<= from two draws is -log 16 where both are
// above y, and 0; and anchor_kl times the KL to the anchor.
static double jbond_log_f(const Place *at) { return at_most(at) > 0 ? 0 : -log(16); }
static void jbond_weights(ObjectiveSpec *o)
{
    o->score_scale = o->forward = 0.5;
    o->kappa = 0.5 + o->anchor_kl;
    o->log_f = jbond_log_f;
    o->best = o->k = 2;
}

Objective objectives[ROWS_MAX] = {
    {"vbon", "log pi_bon (Eq. 5)", TAKES_N, vbon_weights, vbon_score, true, false},
    {"l", "the bound L (Thm 2)", TAKES_N | TAKES_BETA, l_weights, log_f_score, true, true},
    {"l1", "the bound L1 (Thm 3)", TAKES_N, l1_weights, log_f_score, true, true},
    {"rl", "KL-regularised reward (Eq. 1)", TAKES_BETA, rl_weights, rl_score, false, false},
    {"bond", "BOND, Jeffreys divergence to Best-of-N", TAKES_N, bond_weights, log_f_score, false, false},
    {"jbond", "J-BOND, Best-of-2 of a moving anchor", 0, jbond_weights, log_f_score, false, false},
};

void objective_prepare(ObjectiveSpec *o)
{
    const char *name = o->row->name;
    if (!o->row->takes && (o->N || o->beta > 0)) die("--objective %s takes neither --n nor --beta", name);
    if (o->compat_scale && o->row->score != vbon_score) die("--compat scale: it is a scaling of --objective vbon");
    if (o->N && o->beta > 0) die("--n and --beta exclude each other: N is never made from beta");
    if (o->compat_scale && o->beta > 0) o->N = (long)(1 / o->beta) + 1; // as they do, and only for them
    else if (o->beta > 0 && !(o->row->takes & TAKES_BETA)) die("--objective %s takes --n, not --beta", name);
    if (o->row->takes == TAKES_BETA) {
        if (o->N) die("--objective %s takes --beta, not --n", name);
        if (!(o->beta > 0)) die("--objective %s needs --beta, the strength of the KL penalty (> 0)", name);
    } else if (o->row->takes && !(o->beta > 0) && o->N < 1) die("--n must be at least 1");
    o->ref_weight = o->forward = 0;
    o->score_scale = 1;
    o->log_f = NULL;
    o->row->weights(o);
}

void gae(double *advantage, double *returns, const double *reward, const double *value, size_t n, double gamma,
         double lambda)
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
// the algorithm: App. F, as N+ does PPO; one function a step, in this order

static void take_prompts(Ppo *p);
static void sample_responses(Ppo *p);
static void reward_responses(Ppo *p);
static void reference_logps(Ppo *p);
static void old_logps_and_values(Ppo *p);
static void action_rewards(Ppo *p);
static void advantages(Ppo *p);
static void clipped_updates(Ppo *p, PpoSums *sums, double *grad_norm, double *lr);
static void anchor_draw(Ppo *p);
static void anchor_logps(Ppo *p);
static void candidates_score(Ppo *p);
static void report(Ppo *p, const double began[4], const PpoSums *sums, double grad_norm, double lr);
static double seconds_now(const Ppo *p) { return p->clock ? p->clock() : 0; }

void ppo_iteration(Ppo *p)
{
    double began[4], grad_norm, lr;
    PpoSums sums;
    began[0] = seconds_now(p);
    take_prompts(p);         // 1. the next E prompts x of a seeded permutation
    anchor_draw(p);          //    (bond and jbond: K draws of the anchor to each, and their rewards)
    sample_responses(p);     // 2. a response to each, y ~ pi_theta(. | x)
    began[1] = seconds_now(p);
    reward_responses(p);     // 3. r(x, y)
    began[2] = seconds_now(p);
    reference_logps(p);      // 4. log pi_ref of every action, and log p(y), their sum
    anchor_logps(p);         //    (jbond: and log pi_anchor)
    old_logps_and_values(p); // 5. log pi_old and the head's V of every action
    candidates_score(p);     //    (--all-actions: of other tokens too, and their scores)
    action_rewards(p);       // 6. log F-hat(y), the terminal score made of it, and the KL to pi_ref at every action
    advantages(p);           // 7. GAE over these rewards, whitened over the rollout
    clipped_updates(p, &sums, &grad_norm, &lr); // 8. epochs of minibatches: the clipped losses, an optimiser step each
    began[3] = seconds_now(p);
    p->iteration++;
    report(p, began, &sums, grad_norm, lr);
}

// What a group of a minibatch adds up: nll, of the anchor's best draws, and how many.
typedef struct { PpoSums loss; double nll, counted; } GroupSums;

// The helpers of the steps stand below them. What is heavy is done group by group, each process its own
// (lib/parallel.h); what is gathered then stands in the rollout of all.
static void phase_sample(Ppo *p);
static void phase_update(Ppo *p);
static void run_trunk(Ppo *p);
static void action_logps(Ppo *p, const Params *w, double *logp);
static size_t next_micro(Ppo *p, const size_t *rows, size_t n);
static void download_actions(const Ppo *p, double *dst, Buf src, const size_t *rows, size_t n);
static double logp_gap(const Rollout *r);
static void minibatch_gradient(Ppo *p, const size_t *rows, size_t n, PpoSums *sums);
static void group_gradient(Ppo *p, const size_t *rows, size_t n, size_t tokens, GroupSums *sums);
static double anchor_log_f(const Ppo *p, size_t i);
static void anchor_gradient(Ppo *p, const size_t *rows, size_t n, size_t tokens, GroupSums *sums);
static void measure(Ppo *p, const char *key, double value);
static void candidates_clear(Ppo *p);
static void candidates_choose(Ppo *p, const size_t *rows, size_t n);
static void candidates_move(Ppo *p, double *numbers, const size_t *rows, size_t n, bool up);
static void candidates_worth(Ppo *p);
static void candidates_unit(Ppo *p);
static void candidates_report(Ppo *p);

static void take_prompts(Ppo *p)
{
    Rollout *r = &p->rollout;
    for (size_t i = 0; i < r->E; i++) {
        size_t episode = (size_t)p->iteration * r->E + i, epoch = episode / p->n_prompts;
        if (i == 0 || episode % p->n_prompts == 0)
            random_permutation(p->order, p->n_prompts, p->opt.seed, STREAM_SHUFFLE, epoch);
        response_free(&r->y[i]);
        r->y[i] = (Response){.prompt = p->order[episode % p->n_prompts], .sample = episode};
    }
}

static void sample_responses(Ppo *p)
{
    Rollout *r = &p->rollout;
    Sampling s = {.temperature = p->opt.temperature, .top_p = 1, .seed = p->opt.seed, .stream = STREAM_ROLLOUT,
        .eos = p->opt.eos};
    phase_sample(p);
    model_pack(p->policy);
    for (Group x = {0}; group_next(&p->groups, &x, r->E);) generate(&p->gen, &s, p->prompts, r->y + x.from, x.n);
    responses_gather(r->y, r->E, (size_t)p->opt.max_new, false);
    r->at[0] = 0;
    for (size_t i = 0; i < r->E; i++) {
        r->at[i + 1] = r->at[i] + r->y[i].n;
        r->seq[i] = sequence_of(&p->prompts[r->y[i].prompt], &r->y[i]);
    }
    r->actions = r->at[r->E];
}

static void assign_rewards(Ppo *p, Response *y, size_t n, bool prefixes)
{
    const PpoOptions *opt = &p->opt;
    if (n) p->reward(p->reward_context, p->prompts, y, n, prefixes);
    for (size_t i = 0; i < n; i++) {
        const char *where = p->prompts[y[i].prompt].where;
        if (!isfinite(y[i].reward))
            die("iteration %ld: the reward of a response to %s is not finite: check --reward", p->iteration + 1,
                where ? where : "a prompt");
        if (opt->has_missing_eos && !y[i].finished) y[i].reward = opt->missing_eos; // before anything looks at it
    }
}
static void reward_responses(Ppo *p)
{
    Rollout *r = &p->rollout;
    for (Group x = {0}; group_next(&p->groups, &x, r->E);)
        assign_rewards(p, r->y + x.from, x.n, p->opt.critic->prefixes);
    responses_gather(r->y, r->E, (size_t)p->opt.max_new, p->opt.critic->prefixes);
}

// The log-probability of every action by the weights w; each process its groups'.
static void action_logps(Ppo *p, const Params *w, double *logp)
{
    const Rollout *r = &p->rollout;
    memset(logp, 0, r->actions * sizeof *logp);
    for (Group x = {0}; group_next(&p->groups, &x, r->E);)
        sequence_logps(&p->pass, w, r->seq + x.from, x.n, p->opt.temperature, logp + r->at[x.from], NULL);
    parallel_gather(logp, r->actions * sizeof *logp);
}

// From here on the work memory is the pass's. What is frozen runs once; the reference and all that follows go on from
// its output.
static void reference_logps(Ppo *p)
{
    Rollout *r = &p->rollout;
    size_t E = r->E, n = 0;
    phase_update(p);
    if (p->policy->first_block) run_trunk(p);
    if (p->opt.turns) turns_take(p->opt.turns, &p->ref_kept);
    action_logps(p, &p->reference, r->ref_logp);
    for (size_t i = 0; i < E; i++) {
        r->ref_logp_y[i] = 0;
        for (size_t j = r->at[i]; j < r->at[i + 1]; j++) r->ref_logp_y[i] += r->ref_logp[j];
        r->score_logp_y[i] = r->ref_logp_y[i];
        r->micro[i] = r->seq[i];
        r->micro[i].from = 1;
        n += sequence_states(&r->micro[i]);
    }
    if (!p->opt.joint_p) return;
    // the released code's log p: the prompt's tokens too
    double *joint = (double *)xmalloc(n * sizeof *joint);
    memset(r->score_logp_y, 0, E * sizeof *r->score_logp_y);
    for (Group x = {0}; group_next(&p->groups, &x, E);) {
        const double *next = joint;
        sequence_logps(&p->pass, &p->reference, r->micro + x.from, x.n, p->opt.temperature, joint, NULL);
        for (size_t i = x.from; i < x.from + x.n; i++)
            for (size_t t = 0; t < sequence_states(&r->micro[i]); t++) r->score_logp_y[i] += *next++;
    }
    parallel_gather(r->score_logp_y, E * sizeof *r->score_logp_y);
    free(joint);
}

// Over the first epoch's minibatches in their shapes, so that the first ratio is 1 to the bit.
static void old_logps_and_values(Ppo *p)
{
    const PpoOptions *opt = &p->opt;
    Rollout *r = &p->rollout;
    Model *m = p->policy;
    Pass *s = &p->pass;
    size_t E = r->E, MB = (size_t)opt->minibatch;
    random_permutation(p->order, E, opt->seed, STREAM_MINIBATCH, (uint64_t)p->iteration * (uint64_t)opt->epochs);
    double *found[] = {r->old_logp, r->entropy, r->value};
    size_t n_found = opt->critic->value_head ? 3 : 2;
    for (size_t k = 0; k < n_found; k++) memset(found[k], 0, r->actions * sizeof **found);
    candidates_clear(p);
    for (size_t b = 0; b < E; b += MB)
        for (Group x = {0}; group_next(&p->groups, &x, b + MB < E ? MB : E - b);)
            for (size_t i = b + x.from, end = i + x.n, fit; i < end; i += fit) {
                fit = next_micro(p, p->order + i, end - i);
                pass_forward(s, &m->p, r->micro, fit);
                m->o->logprob_forward(s->logp, s->entropy, (Buf){0}, s->hidden, head_weight(&m->p), s->target,
                                      opt->temperature, s->R, m->cfg.C, m->cfg.V);
                download_actions(p, r->old_logp, s->logp, p->order + i, fit);
                download_actions(p, r->entropy, s->entropy, p->order + i, fit);
                candidates_choose(p, p->order + i, fit);
                if (!opt->critic->value_head) continue;
                value_forward(&p->head, s);
                download_actions(p, r->value, p->head.value, p->order + i, fit);
            }
    for (size_t k = 0; k < n_found; k++) parallel_gather(found[k], r->actions * sizeof **found);
    double gap = logp_gap(r);
    if (!(gap <= 0.2))
        die("iteration %ld: log-probabilities at sampling and in training differ by %.3g on average (at most 0.2): "
            "weights or kernels disagree",
            p->iteration + 1, gap);
}

// Where a response stands among its prompt's cached samples, and log F-hat of it
static void response_place(const Ppo *p, const Response *y, Place *at, double *logF)
{
    const Fhat *fhat = p->opt.fhat;
    *at = (Place){0};
    *logF = 0;
    if (!p->cdf) return;
    const Cdf *c = &p->cdf[y->prompt];
    *at = cdf_place(c, y->reward, y->key);
    *logF = fhat->log_f(at);
    if (fhat->least) *logF = fmax(*logF, fhat->least(c, p->opt.objective.row->finite));
}

// What the objective makes of a response and its log F; logp is the reference's log-probability of it.
static double terminal_score(const Ppo *p, const Response *y, double logF, double logp)
{
    const ObjectiveSpec *o = &p->opt.objective;
    double most = p->opt.score_clip > 0 ? p->opt.score_clip : INFINITY, score = o->row->score(o, y, logF, logp);
    if (!isfinite(score))
        die("iteration %ld: a terminal score is not finite (log F %g, log p %g): use another --fhat, or say so in the "
            "objective's row", p->iteration + 1, logF, logp);
    return fmin(fmax(score, -most), most);
}

static void action_rewards(Ppo *p)
{
    const ObjectiveSpec *o = &p->opt.objective;
    Rollout *r = &p->rollout;
    const double *base = p->anchor.average ? p->anchor.logp : r->ref_logp; // what the KL is to
    for (size_t i = 0; i < r->E; i++) {
        response_place(p, &r->y[i], &r->place[i], &r->logF[i]);
        double logF = o->log_f ? anchor_log_f(p, i) : r->logF[i];
        double score = r->score[i] = terminal_score(p, &r->y[i], logF, r->score_logp_y[i]);
        for (size_t j = r->at[i]; j < r->at[i + 1]; j++)
            r->reward[j] = -o->kappa * (r->old_logp[j] - base[j]) + o->ref_weight * r->ref_logp[j];
        r->reward[r->at[i + 1] - 1] += score; // at the last sampled action
    }
}

static void advantages(Ppo *p)
{
    const Critic *critic = p->opt.critic;
    Rollout *r = &p->rollout;
    if (critic->values) critic->values(p);
    if (p->candidates.K) candidates_worth(p);
    for (size_t i = 0; i < r->E; i++) {
        size_t a = r->at[i];
        gae(r->advantage + a, r->returns + a, r->reward + a, r->value + a, r->y[i].n, p->opt.gamma, p->opt.lambda);
    }
    if (critic->learn) critic->learn(p);
    // The returns stay as they are. Beside a second loss the advantages keep their scale too.
    if (p->candidates.K) candidates_unit(p);
    else if (!(p->opt.objective.forward > 0)) whiten(r->advantage, r->actions);
}

static void clipped_updates(Ppo *p, PpoSums *sums, double *grad_norm, double *lr)
{
    const PpoOptions *opt = &p->opt;
    Model *m = p->policy;
    size_t E = p->rollout.E, MB = (size_t)opt->minibatch;
    long updates = 0;
    *sums = (PpoSums){0};
    *grad_norm = *lr = 0;
    for (long epoch = 0; epoch < opt->epochs; epoch++) {
        random_permutation(p->order, E, opt->seed, STREAM_MINIBATCH,
                           (uint64_t)p->iteration * (uint64_t)opt->epochs + (uint64_t)epoch);
        for (size_t b = 0; b < E; b += MB) {
            PpoSums own;
            minibatch_gradient(p, p->order + b, b + MB < E ? MB : E - b, &own);
            if (!updates++ && (own.approx_kl != 0 || own.ratio_spread != 0))
                die("iteration %ld: on the first minibatch the ratio is not 1 (approximate KL %g): the old "
                    "log-probabilities were not computed by the same kernels",
                    p->iteration + 1, own.approx_kl);
            for (int i = 0; i < PPO_SUMS; i++) ((double *)sums)[i] += ((double *)&own)[i];
            AdamW a = opt->adamw;
            a.lr = *lr = schedule_lr(opt->schedule, opt->lr, m->step, p->updates, opt->warmup);
            *grad_norm += parallel_update(m, &a);
        }
    }
    *grad_norm /= (double)updates;
}

// ----------------------------------------------------------------------------
// what the steps are made of

// The frozen blocks' output of the rollout's sequences, kept in p->trunk; each sequence gets its part.
static void run_trunk(Ppo *p)
{
    Model *m = p->policy;
    Rollout *r = &p->rollout;
    Pass *s = &p->pass;
    size_t C = m->cfg.C, used = 0;
    for (size_t i = 0, n; i < r->E; i++, used += n) {
        n = sequence_tokens(m, &r->seq[i]) * C;
        r->seq[i].trunk = slice(p->trunk, used, n);
    }
    Buf all = slice(p->trunk, 0, used);
    if (parallel_ranks() > 1) m->o->fill(all, 0);
    for (Group x = {0}; group_next(&p->groups, &x, r->E);)
        for (size_t i = x.from, end = i + x.n, fit; i < end; i += fit) {
            fit = pass_fit(s, r->seq + i, end - i, 1);
            pass_pack(s, r->seq + i, fit);
            Buf out = model_forward(m, &m->p, &s->acts, &s->batch, 0, m->first_block, NULL), part = r->seq[i].trunk;
            if (m->first_block == m->cfg.L) out = s->acts.x; // only the final norm trains
            part.n = s->batch.N * C;                         // of these sequences, side by side
            m->o->copy(part, slice(out, 0, part.n));
        }
    parallel_gather_buf(m->o, all);
}

// How many of the responses rows[0..n) make the next micro-batch, whose sequences are left in r->micro. The old
// log-probabilities and every epoch walk a minibatch by this, so that shapes are equal.
static size_t next_micro(Ppo *p, const size_t *rows, size_t n)
{
    Rollout *r = &p->rollout;
    for (size_t i = 0; i < n; i++) r->micro[i] = r->seq[rows[i]];
    return pass_fit(&p->pass, r->micro, n, 1);
}

// Between an array by action and a device's numbers of a micro-batch, the responses rows[0..n) in order.
static void upload_actions(const Ppo *p, Buf dst, const double *src, const size_t *rows, size_t n)
{
    const size_t *at = p->rollout.at;
    size_t R = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = at[rows[i]]; j < at[rows[i] + 1]; j++) p->pass.h_real[R++] = (real)src[j];
    p->policy->o->upload(slice(dst, 0, R), p->pass.h_real);
}

static void download_actions(const Ppo *p, double *dst, Buf src, const size_t *rows, size_t n)
{
    const size_t *at = p->rollout.at;
    size_t R = 0;
    p->policy->o->download(p->pass.h_real, slice(src, 0, p->pass.R));
    for (size_t i = 0; i < n; i++)
        for (size_t j = at[rows[i]]; j < at[rows[i] + 1]; j++) dst[j] = (double)p->pass.h_real[R++];
}

// The gradient of the PPO loss over one minibatch, the responses rows[0..n), into m->g, and its sums.
static void minibatch_gradient(Ppo *p, const size_t *rows, size_t n, PpoSums *sums)
{
    size_t tokens = 0;
    GroupSums all;
    enum { SUMS = sizeof all / sizeof(double) };
    _Static_assert((int)SUMS <= (int)GROUP_SUMS, "a group's sums");
    for (size_t i = 0; i < n; i++) tokens += p->rollout.y[rows[i]].n;
    model_zero_grad(p->policy);
    for (Group x = {0}; group_next(&p->groups, &x, n);) {
        GroupSums own = {0};
        group_gradient(p, rows + x.from, x.n, tokens, &own);
        groups_add(&p->groups, x.k, (const double *)&own, SUMS);
    }
    groups_finish(&p->groups, (double *)&all, SUMS);
    *sums = all.loss;
    p->anchor.nll += all.nll;
    p->anchor.counted += all.counted;
}

// What a group of it, rows[0..n), adds to that; tokens: the whole minibatch's actions.
static void group_gradient(Ppo *p, const size_t *rows, size_t n, size_t tokens, GroupSums *sums)
{
    const PpoOptions *opt = &p->opt;
    Rollout *r = &p->rollout;
    Model *m = p->policy;
    const Ops *o = m->o;
    Pass *s = &p->pass;
    bool value_head = opt->critic->value_head;
    size_t C = m->cfg.C, V = m->cfg.V, K = p->candidates.K;
    Buf head = head_weight(&m->p), dhead = head_weight(&m->g);
    o->fill(p->sums, 0);
    for (size_t i = 0, fit; i < n; i += fit) {
        fit = next_micro(p, rows + i, n - i);
        pass_forward(s, &m->p, r->micro, fit);
        if (value_head) value_forward(&p->head, s);
        else upload_actions(p, p->head.value, r->value, rows + i, fit);
        upload_actions(p, p->old_logp, r->old_logp, rows + i, fit);
        upload_actions(p, p->old_value, r->value, rows + i, fit);
        upload_actions(p, p->advantage, r->advantage, rows + i, fit);
        upload_actions(p, p->returns, r->returns, rows + i, fit);
        if (K) candidates_move(p, p->candidates.worth, rows + i, fit, true);
        // In chunks: what the LM head knows of so many actions is kept between forward and backward.
        for (size_t a = 0, most = o->head_rows(V), k; a < s->R; a += k) {
            k = s->R - a < most ? s->R - a : most;
            #define AT(b) slice(b, a, k)
            Buf hidden = slice(s->hidden, a * C, k * C), dhidden = slice(s->dhidden, a * C, k * C);
            Buf logp = AT(s->logp), dlogp = AT(s->dlogp), target = AT(s->target);
            o->logprob_forward(logp, (Buf){0}, p->kept, hidden, head, target, opt->temperature, k, C, V);
            o->ppo_loss(dlogp, value_head ? AT(p->head.dvalue) : (Buf){0}, p->sums, logp, AT(p->head.value),
                        AT(p->old_logp), AT(p->old_value), AT(p->advantage), AT(p->returns), 1 / (double)tokens,
                        opt->clip, opt->value_clip, opt->vf_coef, k);
            if (K)
                o->all_actions_backward(dhidden, dhead, logp, dlogp, p->kept, hidden, head, target,
                                        slice(p->candidates.tokens, a * K, k * K),
                                        slice(p->candidates.numbers, a * K, k * K),
                                        opt->objective.kappa / p->candidates.unit, 1 / (double)tokens,
                                        opt->temperature, K, k, C, V);
            else
                o->logprob_backward(dhidden, dhead, (Buf){0}, dlogp, p->kept, hidden, head, target, opt->temperature,
                                    k, C, V);
#undef AT
        }
        if (value_head) value_backward(&p->head, s);
        pass_backward(s);
    }
    anchor_gradient(p, rows, n, tokens, sums);
    o->download(&sums->loss, p->sums);
}

// ----------------------------------------------------------------------------
// critics

#include "lib/critics.h"

// ----------------------------------------------------------------------------
// the all-actions gradient

#include "lib/candidates.h"

// ----------------------------------------------------------------------------
// the anchor of bond and jbond

#include "lib/bond.h"

// ----------------------------------------------------------------------------
// metrics: names are TRL's where TRL has one. A mean over responses is called mean here, one over their actions is
// called a token's.

static void measure(Ppo *p, const char *key, double value)
{
    if (p->n_metrics == METRICS_MAX) die("a bug: more than %d metrics", METRICS_MAX);
    p->metrics[p->n_metrics++] = (Metric){key, value};
}

static double logp_gap(const Rollout *r) // mean |log pi at sampling - log pi in training| of an action
{
    double gap = 0;
    for (size_t i = 0; i < r->E; i++)
        for (size_t t = 0; t < r->y[i].n; t++)
            gap += fabs(r->old_logp[r->at[i] + t] - (double)r->y[i].logp[t]) / (double)r->actions;
    return gap;
}

static double explained_variance(const Rollout *r, const double *returns) // 1 - Var[returns - V] / Var[returns]
{
    double mean_r = 0, mean_e = 0, var_r = 0, var_e = 0, n = (double)r->actions;
    for (size_t j = 0; j < r->actions; j++) { mean_r += returns[j] / n; mean_e += (returns[j] - r->value[j]) / n; }
    for (size_t j = 0; j < r->actions; j++) {
        double d = returns[j] - mean_r, e = returns[j] - r->value[j] - mean_e;
        var_r += d * d; var_e += e * e;
    }
    return var_r > 0 ? 1 - var_e / var_r : NAN;
}

// the same of Monte-Carlo returns: the rewards that came, summed
static double explained_sums(const Rollout *r, double gamma)
{
    double *G = (double *)xmalloc(r->actions * sizeof *G), explained;
    for (size_t i = 0; i < r->E; i++)
        for (size_t end = r->at[i + 1], j = end; j > r->at[i]; j--)
            G[j - 1] = r->reward[j - 1] + (j < end ? gamma * G[j] : 0);
    explained = explained_variance(r, G);
    free(G);
    return explained;
}

static void report(Ppo *p, const double began[4], const PpoSums *sums, double grad_norm, double lr)
{
    const Rollout *r = &p->rollout;
    const ObjectiveSpec *o = &p->opt.objective;
    size_t E = r->E;
    double e = (double)E, n = sums->actions, reward = 0, rewards = 0, entropy = 0, logF = 0, logp_ref = 0, best = 0,
           worst = 0, ties = 0, eos = 0;
    double *k1 = (double *)xcalloc(3 * E, sizeof *k1), *k3 = k1 + E, *distance = k3 + E;
    bool cached = p->cdf != NULL;
    for (size_t i = 0; i < E; i++) {
        const Response *y = &r->y[i];
        const Place *at = &r->place[i];
        double logp = 0;
        for (size_t j = r->at[i]; j < r->at[i + 1]; j++) {
            double d = r->old_logp[j] - r->ref_logp[j];
            k1[i] += d;
            k3[i] += expm1(-d) + r->old_logp[j] - r->ref_logp[j];
            logp += r->old_logp[j];
            entropy += r->entropy[j];
            rewards += r->reward[j];
        }
        reward += y->reward; logF += r->logF[i]; logp_ref += r->ref_logp_y[i]; eos += y->finished;
        if (at->cdf) { best += at->k >= (double)at->cdf->M; worst += at->k <= 0; ties += at->tie; }
        distance[i] = cached && o->N > 0 ? logp - log_pi_bon(measured_log_f(at), r->ref_logp_y[i], o->N) : NAN;
    }
    Estimate kl1 = estimate(k1, E), kl3 = estimate(k3, E), far = estimate(distance, E);
    free(k1);
    p->n_metrics = 0;
    measure(p, "episode", (double)p->iteration * e);         // responses seen so far
    measure(p, "objective/scores", reward / e);              // mean reward, as the reward model gives it: should rise
    // nats, KL(pi || ref) of whole responses, k1 = sum log pi/ref, with its standard error: rises from 0 to a few;
    // tens: the policy drifts
    measure(p, "objective/kl", kl1.mean);
    measure(p, "objective/kl_se", kl1.se);
    // the same by k3, never negative: far above k1 when some responses are much likelier under the reference
    measure(p, "objective/kl_k3", kl3.mean);
    measure(p, "objective/kl_k3_se", kl3.se);
    // nats, of the next-token distributions summed along a response: falls slowly; towards 0 the policy collapses
    measure(p, "objective/entropy", entropy / e);
    // mean of what PPO maximises, score and KL terms together: should rise
    measure(p, "objective/rlhf_reward", rewards / e);
    // nats, KL(pi || pi_bon) = -J, estimated on this rollout (measured_log_f, whatever --fhat): should fall. The one
    // number to watch
    measure(p, "vbon/distance", far.mean);
    measure(p, "vbon/distance_se", far.se);
    // mean log F-hat: -1 for the reference (digamma), about -1/N for Best-of-N
    measure(p, "vbon/logF", cached ? logF / e : NAN);
    // share above every cached sample, where all get one score: 1/(M+1) for the reference; over .5: draw more
    measure(p, "vbon/saturation", cached ? best / e : NAN);
    measure(p, "vbon/zero", cached ? worst / e : NAN);       // share below every cached sample
    // share with a cached sample's reward: the order key decides. Near 1: rewards are coarse
    measure(p, "vbon/tie_rate", cached ? ties / e : NAN);
    measure(p, "vbon/logpi_ref", logp_ref / e);              // nats, mean log p of a response under the reference
    // nats a token, new policy to old (k3): .001 to .1; more: the rate is too high
    measure(p, "policy/approxkl_avg", sums->approx_kl / n);
    measure(p, "policy/clipfrac_avg", sums->clipped / n);    // share of actions whose ratio was clipped: 0 to .3
    measure(p, "loss/policy_avg", sums->policy_loss / n);    // a token's: advantages are whitened, so near 0
    // a token's, half a squared error, in squares of the return's unit: should fall; far above the returns' variance
    // the head is lost
    measure(p, "loss/value_avg", sums->value_loss / n);
    measure(p, "val/clipfrac_avg", sums->value_clipped / n); // share of actions whose value was clipped
    measure(p, "val/ratio", sums->ratio / n);                // mean probability ratio, new to old: 1 +- .1
    // and its variance: below .01; more, and epochs or rate are too many
    measure(p, "val/ratio_var", sums->ratio_spread / n - (sums->ratio / n - 1) * (sums->ratio / n - 1));
    measure(p, "val/num_eos_tokens", eos);                   // responses that ended by themselves
    // nats a token: 1e-6 in fp32, up to 3e-2 in bf16; the run stops over .2
    measure(p, "val/logp_gap", logp_gap(r));
    // of the returns by V: 1 is perfect, 0 no help, below 0 harm. GAE's returns hold the more of V itself the smaller
    // lambda is: only runs of one lambda can be compared by it. Of the sums of rewards any two can; they are noisier,
    // so it is lower
    measure(p, "val/explained_variance", explained_variance(r, r->returns));
    measure(p, "val/explained_variance_mc", explained_sums(r, p->opt.gamma));
    // tokens, the end-of-text included: a steady drift to either end is the reward's taste, not quality
    measure(p, "val/response_length", (double)r->actions / e);
    // mean before clipping: about 1 or below; when it is many times --clip-grad, the clip sets the rate
    measure(p, "grad_norm", grad_norm);
    if (p->anchor.K) anchor_report(p);
    if (p->candidates.K) candidates_report(p);
    measure(p, "lr", lr); // of the last step
    measure(p, "time/rollout", began[1] - began[0]);         // seconds: sampling, and all about the anchor's draws
    measure(p, "time/reward", began[2] - began[1]);          // rewards
    measure(p, "time/update", began[3] - began[2]);          // the reference, old log-probabilities, updates
    p->seconds_rollout += began[1] - began[0];
    p->seconds_reward += began[2] - began[1];
    p->seconds_update += began[3] - began[2];
}

// ----------------------------------------------------------------------------
// memory

static size_t trunk_capacity(const Ppo *p)
{
    size_t longest = p->max_prompt + (size_t)p->opt.max_new - 1;
    return p->policy->first_block ? checked_product("trunk cache", (size_t)p->opt.rollout, longest) : 0;
}

// The work arena is laid out anew for each phase: sampling (KV cache), then scoring and updating.
static void phase_sample(Ppo *p)
{
    arena_reset(&p->work);
    size_t groups = p->opt.groups ? p->opt.groups : 1;
    size_t share = ((size_t)p->opt.rollout + groups - 1) / groups; // of it, one group at a time
    size_t most = p->opt.rows ? p->opt.rows : 512, all = share * (p->anchor.K ? p->anchor.K : 1);
    size_t rows = all < most ? all : most, slots = rows < share ? rows : share;
    generator_carve(&p->gen, p->policy, &p->work, rows, slots, p->opt.tokens, p->max_prompt, (size_t)p->opt.max_new);
}

static void phase_update(Ppo *p)
{
    arena_reset(&p->work);
    const Ops *o = p->policy->o;
    size_t V = p->policy->cfg.V;
    size_t tokens = p->opt.tokens;
    pass_carve(&p->pass, p->policy, &p->work, tokens, true);
    value_carve(&p->head, p->policy, &p->work, tokens);
    Buf *each[] = {&p->old_logp, &p->old_value, &p->advantage, &p->returns};
    for (int i = 0; i < 4; i++) *each[i] = arena_take(&p->work, tokens, DT_REAL, "head");
    candidates_carve(&p->candidates, &p->work, tokens);
    p->sums = arena_take(&p->work, PPO_SUMS, DT_F64, "head");
    p->kept = arena_take(&p->work, o->head_rows(V) * ((V + 63) / 64 * 64), DT_REAL, "head");
    size_t trunk = checked_product("trunk cache", trunk_capacity(p), p->policy->cfg.C);
    p->trunk = arena_take(&p->work, trunk, o->type, "trunk cache");
}

// The arrays of a rollout: all, so that none is forgotten by ppo_free.
#define ROLLOUT_ARRAYS(r) { \
    &(r)->old_logp, &(r)->ref_logp, &(r)->entropy, &(r)->value, &(r)->reward, &(r)->advantage, &(r)->returns, \
    &(r)->ref_logp_y, &(r)->score_logp_y, &(r)->logF, &(r)->score}

void ppo_create(Ppo *p, const PpoOptions *opt, Model *policy, const Prompt *prompts, const Cdf *cdf, size_t n_prompts,
                RewardFn reward, void *context)
{
    const Ops *o = policy->o;
    *p = (Ppo){.opt = *opt, .policy = policy, .prompts = prompts, .cdf = cdf, .n_prompts = n_prompts, .reward = reward,
        .reward_context = context};
    objective_prepare(&p->opt.objective);
    size_t minibatches = ((size_t)opt->rollout + (size_t)opt->minibatch - 1) / (size_t)opt->minibatch;
    size_t iterations = ((size_t)opt->episodes + (size_t)opt->rollout - 1) / (size_t)opt->rollout;
    double updates = (double)minibatches * (double)opt->epochs * (double)iterations;
    if (updates > 1e15)
        usage("--episodes, --ppo-epochs and --minibatch make %.3g optimiser steps: at most 1e15; lower them", updates);
    p->updates = (long)updates;
    for (size_t i = 0; i < n_prompts; i++) if (prompts[i].n > p->max_prompt) p->max_prompt = prompts[i].n;
    size_t n = policy->n_params - policy->first, E = (size_t)opt->rollout;
    size_t actions = checked_product("actions of a rollout", E, (size_t)opt->max_new);
    const ObjectiveSpec *goal = &p->opt.objective;
    bool anchored = goal->forward > 0, moving = anchored && goal->anchor_rate > 0;
    if (anchored) p->anchor.K = (size_t)(goal->best > goal->k ? goal->best : goal->k);
    p->ref_arena = (Arena){.name = "reference", .o = o};
    p->work = (Arena){.name = "work", .o = o};
    for (int pass = 0; pass < 2; pass++) {
        if (pass && opt->turns) {
            if (p->ref_arena.high > opt->turns->most) opt->turns->most = p->ref_arena.high;
            turns_place(opt->turns);
            p->ref_arena.base = opt->turns->memory;
            p->ref_arena.used = 0;
        } else if (pass) arena_place(&p->ref_arena);
        Buf copy = arena_take(&p->ref_arena, n, o->type, "reference");
        Buf anchor = moving ? arena_take(&p->ref_arena, n, o->type, "anchor") : copy;
        if (!pass) continue;
        params_twin(&p->reference, policy, copy);
        if (opt->turns) p->ref_kept = turns_keep(opt->turns, copy);
        if (anchored) anchor_create(p, anchor);
    }
    candidates_create(p, actions);
    groups_create(&p->groups, policy, opt->groups);
    phase_sample(p); phase_update(p);
    arena_place(&p->work);
    Rollout *r = &p->rollout;
    *r = (Rollout){.E = E, .y = (Response *)xcalloc(E, sizeof *r->y), .seq = (Sequence *)xcalloc(E, sizeof *r->seq),
        .micro = (Sequence *)xcalloc(E, sizeof *r->micro), .at = (size_t *)xcalloc(E + 1, sizeof *r->at),
        .place = (Place *)xcalloc(E, sizeof *r->place)};
    double **arrays[] = ROLLOUT_ARRAYS(r);
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) *arrays[i] = (double *)xcalloc(actions, sizeof(double));
    p->order = (size_t *)xmalloc((n_prompts > E ? n_prompts : E) * sizeof *p->order);
    p->critic = (double *)xcalloc((size_t)opt->max_new * opt->critic->state + 1, sizeof(double));
}

void ppo_free(Ppo *p)
{
    Rollout *r = &p->rollout;
    double **arrays[] = ROLLOUT_ARRAYS(r);
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) free(*arrays[i]);
    for (size_t i = 0; i < r->E; i++) response_free(&r->y[i]);
    free(r->y); free(r->seq); free(r->micro); free(r->at); free(r->place);
    anchor_free(&p->anchor, r->E);
    candidates_free(&p->candidates);
    generator_free(&p->gen); pass_free(&p->pass); groups_free(&p->groups);
    if (p->opt.turns) { p->ref_arena.base = (Buf){0}; p->policy->o->unpin(&p->ref_kept); }
    arena_release(&p->ref_arena); arena_release(&p->work);
    params_free(&p->reference);
    free(p->order); free(p->critic);
    *p = (Ppo){0};
}
#endif // VBON_IMPLEMENTATION
