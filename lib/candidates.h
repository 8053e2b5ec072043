// candidates.h: the all-actions gradient (--all-actions K).
//
// PPO's gradient looks at one token of each state, the one that was sampled. A causal reward model that reads the
// policy's tokens can be asked about others: it scores each of the K likeliest next tokens in one decoding step on the
// sequence's keys and values, and the regression of the critic prefix-rank says what such a score is worth. So at every
// state s of a rollout there is for each candidate y
//
//     Q(s,y) = -kappa log(pi(y|s) / pi_ref(y|s)) + V(s+y),
//
// V(s+y) the regression's value of the longer prefix, or the terminal score where y ends the response; and the gradient
// over the candidates is a sum instead of a sample (Asadi et al., Mean Actor Critic, 2017, arXiv:1709.00503):
//
//     sum_y pi(y|s) (Q(s,y) - b(s)) grad log pi(y|s),    b(s) = sum_y pi(y|s) Q(s,y) / sum_y pi(y|s)
//
// with kappa log pi(y|s) the current policy's at every step, so that it has an optimum at each state and needs no clip.
// The sampled action keeps what Q does not say of it, as a control variate (Gu et al., Q-Prop, 2017, arXiv:1611.02247):
// its control C is Q(s,y) - b(s), or 0 where it is no candidate, and GAE runs over rewards less controls with the
// values b. With lambda = 1 the gradient is PPO's own in expectation, whatever Q is; with lambda = 0 it trusts Q.
#pragma once
#ifdef VBON_IMPLEMENTATION

static void candidates_create(Ppo *p, size_t actions)
{
    Candidates *c = &p->candidates;
    size_t n = checked_product("candidates", actions, p->opt.all_actions);
    if (!(c->K = p->opt.all_actions)) return;
    if (p->opt.critic->values != prefix_values || p->opt.objective.forward > 0)
        die("--all-actions: needs --critic prefix-rank, and an objective other than bond and jbond");
    if (c->K > p->policy->cfg.V)
        die("--all-actions %zu: the policy's vocabulary has %zu tokens", c->K, p->policy->cfg.V);
    c->token = (int *)xcalloc(n, sizeof(int));
    double **arrays[] = {&c->logp, &c->ref_logp, &c->worth};
    for (int i = 0; i < 3; i++) *arrays[i] = (double *)xcalloc(n, sizeof(double));
    c->control = (double *)xcalloc(actions, sizeof(double));
}

static void candidates_free(Candidates *c)
{
    free(c->token); free(c->logp); free(c->ref_logp); free(c->worth); free(c->control);
}

static void candidates_carve(Candidates *c, Arena *a, size_t tokens)
{
    if (!c->K) return;
    size_t n = checked_product("candidates", tokens, c->K);
    c->tokens = arena_take(a, n, DT_I32, "candidates");
    c->numbers = arena_take(a, n, DT_REAL, "candidates");
}

// To the device, or from it, in the order of a micro-batch: tokens and numbers of the responses rows[0..n).
static void candidates_move(Ppo *p, double *numbers, const size_t *rows, size_t n, bool up)
{
    Candidates *c = &p->candidates;
    const Ops *o = p->policy->o;
    const size_t *at = p->rollout.at;
    size_t N = p->pass.R * c->K, k = 0;
    int *token = (int *)xmalloc(N * sizeof *token);
    real *number = (real *)xmalloc(N * sizeof *number);
    if (!up) { o->download(token, slice(c->tokens, 0, N)); o->download(number, slice(c->numbers, 0, N)); }
    for (size_t i = 0; i < n; i++)
        for (size_t j = at[rows[i]] * c->K; j < at[rows[i] + 1] * c->K; j++, k++) {
            if (up) { token[k] = c->token[j]; number[k] = (real)numbers[j]; }
            else { c->token[j] = token[k]; numbers[j] = (double)number[k]; }
        }
    if (up) { o->upload(slice(c->tokens, 0, N), token); o->upload(slice(c->numbers, 0, N), number); }
    free(token); free(number);
}

// Of every process, what it does not choose itself is 0 until all is gathered.
static void candidates_clear(Ppo *p)
{
    Candidates *c = &p->candidates;
    if (!c->K) return;
    size_t n = p->rollout.actions * c->K;
    memset(c->token, 0, n * sizeof *c->token);
    memset(c->logp, 0, n * sizeof *c->logp);
}

// The K likeliest of the states that the pass has run, the responses rows[0..n)
static void candidates_choose(Ppo *p, const size_t *rows, size_t n)
{
    Candidates *c = &p->candidates;
    const Model *m = p->policy;
    if (!c->K) return;
    m->o->candidate_logprobs(c->numbers, c->tokens, true, p->pass.hidden, head_weight(&m->p), p->opt.temperature, c->K,
                             p->pass.R, m->cfg.C, m->cfg.V);
    candidates_move(p, c->logp, rows, n, false);
}

// Their log-probabilities under the reference, and their scores, into `worth`
static void candidates_score(Ppo *p)
{
    Candidates *c = &p->candidates;
    Rollout *r = &p->rollout;
    const Model *m = p->policy;
    if (!c->K) return;
    size_t n = r->actions * c->K;
    double began = seconds_now(p);
    parallel_gather(c->token, n * sizeof *c->token);
    parallel_gather(c->logp, n * sizeof *c->logp);
    memset(c->ref_logp, 0, n * sizeof *c->ref_logp);
    memset(c->worth, 0, n * sizeof *c->worth);
    for (size_t i = 0; i < r->E; i++) p->order[i] = i;
    for (Group x = {0}; group_next(&p->groups, &x, r->E);) {
        for (size_t i = x.from, end = i + x.n, fit; i < end; i += fit) {
            fit = next_micro(p, p->order + i, end - i);
            pass_forward(&p->pass, &p->reference, r->micro, fit);
            candidates_move(p, c->logp, p->order + i, fit, true);
            m->o->candidate_logprobs(c->numbers, c->tokens, false, p->pass.hidden, head_weight(&p->reference),
                                     p->opt.temperature, c->K, p->pass.R, m->cfg.C, m->cfg.V);
            candidates_move(p, c->ref_logp, p->order + i, fit, false);
        }
        size_t at = r->at[x.from] * c->K;
        p->score_candidates(p->reward_context, p->prompts, r->y + x.from, x.n, c->token + at, c->K, c->worth + at);
    }
    parallel_gather(c->ref_logp, n * sizeof *c->ref_logp);
    parallel_gather(c->worth, n * sizeof *c->worth);
    c->seconds = seconds_now(p) - began;
}

// V of response i's first t tokens and candidate j (of all candidates); w: the regression of position t + 1
static double candidate_value(const Ppo *p, size_t i, size_t t, size_t j, const double w[FEATURES], double logp)
{
    const Candidates *c = &p->candidates;
    Response y = p->rollout.y[i];
    bool last = t + 1 == (size_t)p->opt.max_new, end = c->token[j] == p->opt.eos;
    double f[FEATURES], logF;
    Place at;
    if (!last && !end) {
        rank_features(&p->cdf[y.prompt], c->worth[j], f);
        return p->opt.gamma * (w[0] * f[0] + w[1] * f[1] + w[2] * f[2]);
    }
    y.reward = !end && p->opt.has_missing_eos ? p->opt.missing_eos : c->worth[j];
    y.key = 0;
    response_place(p, &y, &at, &logF);
    return terminal_score(p, &y, logF, logp);
}

// What each candidate is worth, Q but for -kappa log pi; from it the controls, and b as the values. The rewards lose
// their controls, for GAE and the regression.
static void candidates_worth(Ppo *p)
{
    Candidates *c = &p->candidates;
    Rollout *r = &p->rollout;
    const ObjectiveSpec *o = &p->opt.objective;
    c->covered = 0;
    for (size_t t = 0; t < (size_t)p->opt.max_new; t++) {
        double w[FEATURES] = {0};
        if (t + 1 < (size_t)p->opt.max_new) ridge_solve(p->critic + (t + 1) * RIDGE, w);
        for (size_t i = 0; i < r->E; i++) {
            if (t >= r->y[i].n) continue;
            size_t a = r->at[i] + t;
            double mass = 0, b = 0, before = r->score_logp_y[i]; // log p of what stands before the candidate
            for (size_t j = a; j < r->at[i + 1]; j++) before -= r->ref_logp[j];
            for (size_t j = a * c->K; j < (a + 1) * c->K; j++) {
                c->worth[j] = candidate_value(p, i, t, j, w, before + c->ref_logp[j]) +
                    (o->kappa + o->ref_weight) * c->ref_logp[j];
                mass += exp(c->logp[j]);
                b += exp(c->logp[j]) * (c->worth[j] - o->kappa * c->logp[j]);
            }
            r->value[a] = b / mass;
            c->control[a] = 0;
            for (size_t j = a * c->K; j < (a + 1) * c->K; j++)
                if (c->token[j] == r->y[i].ids[t]) {
                    c->control[a] = c->worth[j] - o->kappa * c->logp[j] - r->value[a];
                    c->covered += 1 / (double)r->actions;
                }
            r->reward[a] -= c->control[a];
        }
    }
}

// The unit of the gradient is one deviation of the sampled actions' whole advantages, of which they keep what their
// controls do not say, weighed by --correction. The rewards get their controls back.
static void candidates_unit(Ppo *p)
{
    Candidates *c = &p->candidates;
    Rollout *r = &p->rollout;
    double n = (double)r->actions, mean = 0, all = 0, square = 0, left = 0;
    for (size_t a = 0; a < r->actions; a++) {
        mean += r->advantage[a] / n;
        all += (r->advantage[a] + c->control[a]) / n;
        r->reward[a] += c->control[a];
    }
    for (size_t a = 0; a < r->actions; a++) {
        double d = r->advantage[a] + c->control[a] - all;
        square += d * d / n;
        left += (r->advantage[a] - mean) * (r->advantage[a] - mean) / n;
    }
    c->unit = sqrt(square + 1e-8);
    c->explained = 1 - left / square;
    for (size_t a = 0; a < r->actions; a++) r->advantage[a] = p->opt.correction * (r->advantage[a] - mean) / c->unit;
    for (size_t j = 0; j < r->actions * c->K; j++) c->worth[j] /= c->unit;
}

static void candidates_report(Ppo *p)
{
    const Candidates *c = &p->candidates;
    measure(p, "candidates/covered", c->covered);     // share of sampled actions that are candidates: more K, more
    measure(p, "candidates/explained", c->explained); // of the variance of their advantages, by the controls: above 0
    measure(p, "time/candidates", c->seconds);        // seconds, part of time/update: the reference's and the scores
}
#endif
