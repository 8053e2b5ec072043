// critics.h: where PPO's values V come from: a head on the policy's trunk, a regression on the ranks of prefixes, or
// the rollout's other responses. The table at the end is what --critic chooses from; a critic of one's own is a row
// there, and two functions. CRITIC_AUTO is none: it becomes one of the next two before training begins.
#pragma once
#ifdef VBON_IMPLEMENTATION

// ----------------------------------------------------------------------------
// the value head

void value_carve(ValueHead *v, const Model *m, Arena *a, size_t tokens)
{
    size_t C = m->cfg.C;
    v->value = arena_take(a, tokens, DT_REAL, "head");
    v->dvalue = arena_take(a, tokens, DT_REAL, "head");
    if (!m->p.v1w.n) return;
    v->dhidden = arena_take(a, checked_product("head", tokens, C), m->o->type, "head");
    v->v1 = arena_take(a, checked_product("head", tokens, 2 * C), m->o->type, "head");
    v->dv1 = arena_take(a, checked_product("head", tokens, 2 * C), m->o->type, "head");
}

void value_forward(ValueHead *v, const Pass *p)
{
    const Ops *o = p->m->o;
    const Params *w = &p->m->p;
    size_t C = p->m->cfg.C, R = p->R;
    o->matmul_forward(v->v1, p->hidden, w->v1w, w->v1b, R, C, 2 * C);
    o->activation_forward(v->v1, v->v1, ACT_RELU, R * 2 * C);
    o->matmul_forward(v->value, v->v1, w->v2w, w->v2b, R, 2 * C, 1);
}

void value_backward(ValueHead *v, const Pass *p)
{
    const Ops *o = p->m->o;
    const Params *w = &p->m->p, *g = &p->m->g;
    size_t C = p->m->cfg.C, R = p->R;
    o->matmul_backward(v->dv1, g->v2w, g->v2b, v->dvalue, v->v1, w->v2w, R, 2 * C, 1);
    o->activation_backward(v->dv1, v->dv1, v->v1, ACT_RELU, R * 2 * C); // relu(x) > 0 where x > 0
    o->matmul_backward(v->dhidden, g->v1w, g->v1b, v->dv1, p->hidden, w->v1w, R, C, 2 * C);
    o->add(p->dhidden, p->dhidden, v->dhidden, R * C);
}

// ----------------------------------------------------------------------------
// the prefix-rank baseline
//
// V_t = w_t . (1, 1 + log F-hat(s_t), k(s_t)/M - 1/2), s_t the reward model's score of prompt + y_<t. w_t comes from
// past rollouts only, so the gradient stays unbiased; it sees rewards through ranks only, so monotone maps change
// nothing. Where prefixes are texts of their own, s_t is the score of the longest of them that is scored (reward.h).

enum { FEATURES = 3, RIDGE = FEATURES * FEATURES + FEATURES }; // a position's regression: A (3,3), b (3)

// Solves (A + I) w = b, A positive semi-definite, by Cholesky.
static void ridge_solve(const double *ab, double w[FEATURES])
{
    double l[FEATURES][FEATURES] = {{0}}, y[FEATURES];
    const double *A = ab, *rhs = ab + FEATURES * FEATURES;
    for (int i = 0; i < FEATURES; i++)
        for (int j = 0; j <= i; j++) {
            double s = A[i * FEATURES + j] + (i == j);
            for (int k = 0; k < j; k++) s -= l[i][k] * l[j][k];
            l[i][j] = i == j ? sqrt(s) : s / l[j][j];
        }
    for (int i = 0; i < FEATURES; i++) {
        y[i] = rhs[i];
        for (int k = 0; k < i; k++) y[i] -= l[i][k] * y[k];
        y[i] /= l[i][i];
    }
    for (int i = FEATURES - 1; i >= 0; i--) {
        w[i] = y[i];
        for (int k = i + 1; k < FEATURES; k++) w[i] -= l[k][i] * w[k];
        w[i] /= l[i][i];
    }
}

static void rank_features(const Cdf *c, double score, double f[FEATURES])
{
    Place at = {.cdf = c, .k = cdf_rank_of(c, score)};
    f[0] = 1;
    f[1] = 1 + digamma_log_f(&at); // whatever --fhat is: a fit in the reward has no bounds where prefixes score
    f[2] = at.k / (double)c->M - 0.5;
}

static void prefix_features(const Ppo *p, const Response *y, size_t t, double f[FEATURES])
{
    rank_features(&p->cdf[y->prompt], y->prefix[t], f);
}

static void prefix_values(Ppo *p)
{
    Rollout *r = &p->rollout;
    double w[FEATURES], f[FEATURES];
    for (size_t t = 0; t < (size_t)p->opt.max_new; t++) {
        ridge_solve(p->critic + t * RIDGE, w);
        for (size_t i = 0; i < r->E; i++) {
            if (t >= r->y[i].n) continue;
            prefix_features(p, &r->y[i], t, f);
            r->value[r->at[i] + t] = w[0] * f[0] + w[1] * f[1] + w[2] * f[2];
        }
    }
}

static void prefix_learn(Ppo *p) // from Monte-Carlo returns; what was learned before decays by .8 an iteration
{
    Rollout *r = &p->rollout;
    double f[FEATURES];
    for (size_t j = 0; j < (size_t)p->opt.max_new * RIDGE; j++) p->critic[j] *= 0.8;
    for (size_t i = 0; i < r->E; i++) {
        double G = 0;
        for (size_t t = r->y[i].n; t > 0;) {
            t--;
            double *A = p->critic + t * RIDGE, *b = A + FEATURES * FEATURES;
            G = r->reward[r->at[i] + t] + p->opt.gamma * G;
            prefix_features(p, &r->y[i], t, f);
            for (int k = 0; k < FEATURES; k++) {
                for (int j = 0; j < FEATURES; j++) A[k * FEATURES + j] += f[k] * f[j];
                b[k] += f[k] * G;
            }
        }
    }
}

// ----------------------------------------------------------------------------
// REINFORCE with the other responses as a baseline (Kool, van Hoof, Welling 2019; BOND)
//
// V_t = mean return of the others - rewards so far. So with lambda = 1 the advantage of every action is its response's
// return less that of the others.

static void others_values(Ppo *p)
{
    Rollout *r = &p->rollout;
    double all = 0;
    for (size_t j = 0; j < r->actions; j++) all += r->reward[j];
    for (size_t i = 0; i < r->E; i++) {
        double own = 0;
        for (size_t j = r->at[i]; j < r->at[i + 1]; j++) own += r->reward[j];
        double left = r->E > 1 ? (all - own) / (double)(r->E - 1) : 0;
        for (size_t j = r->at[i]; j < r->at[i + 1]; j++) { r->value[j] = left; left -= r->reward[j]; }
    }
}

Critic critics[ROWS_MAX] = {
    {"auto", "prefix-rank where the reward model reads the policy's tokens and there is a cache, else head", false,
     false, 0, NULL, NULL},
    {"head", "a value head on the trunk", true, false, 0, NULL, NULL},
    {"prefix-rank", "ridge regression on the ranks of prefixes", false, true, RIDGE, prefix_values, prefix_learn},
    {"others", "the mean return of the rollout's other responses", false, false, 0, others_values, NULL},
};
#endif
