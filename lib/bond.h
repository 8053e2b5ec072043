// bond.h: BOND and J-BOND (Sessa et al. 2024, ppo.h): Best-of-N distilled from draws that are made as training goes.
//
// Both are PPO's loop with three things changed; the objectives' rows in ppo.h say the rest.
//
//  - An *anchor* draws K responses y' to each prompt of a rollout. BOND's is the reference. J-BOND's begins there and
//    follows the policy, theta_anchor <- (1 - rate) theta_anchor + rate theta, before every iteration.
//  - Forward half, KL(pi_bon || pi): beside PPO's loss stands -forward log pi(y'), y' the best of the first N draws
//    (J-BOND: of two).
//  - Backward half, KL(pi || pi_bon): as p << F, pi_bon is about N pi_anchor p<=^(N-1), p<= the probability of a draw
//    that is not above y, so the return is (N-1) log p<=(y) - (log pi(y) - log pi_anchor(y)), with
//    p<= = (1 + draws not above y) / (1 + k) among the first k draws. J-BOND has -log 16 where both draws are above y,
//    and 0, for log p<=, and adds anchor_kl times KL(pi || pi_anchor). (Its Algorithm 2 prints that term's gradient
//    with a minus sign, whose descent would raise the KL: it is a plus.)
//
// Where they go. BOND converges to the minimum of its loss, which is near pi_bon: its halves have theirs at pi_bon and
// at the reference times exp((N-1) E[log p<=]). J-BOND has no fixed point but a policy that always says the best: no
// other is the best of two draws of itself. Each step is a little towards Best-of-2 of an anchor that was on its way
// too, so it goes along Best-of-N's of growing N until the run ends, and with enough iterations to that policy.
//
// As published: one optimiser step an iteration (--ppo-epochs 1, --minibatch as --rollout: the ratio is 1, so PPO's
// loss is REINFORCE's), the mean return of the other responses as the baseline (--critic others, --lambda 1),
// advantages as they are. The presets bond and jbond have that; any critic goes with the objective. Losses are sums
// over tokens divided by the minibatch's response tokens, both halves alike, where the paper divides by responses.
//
// Easy to get wrong: draws are fresh at every iteration; ranks and the best are by the total order, in which a draw
// that is y itself is not above y; the halves have one scale, so advantages are not whitened; log pi_anchor is that of
// the weights which drew.
#pragma once
#ifdef VBON_IMPLEMENTATION

static Buf anchor_follows(const Model *m, size_t n) // the policy's exact weights
{
    if (m->own_n < n && masters(m))
        usage("--zero: the anchor of --anchor-rate follows the exact weights, of which each process then has a part: "
              "leave one of them out, or add --precision fp32");
    return m->own_n < n ? slice(m->data, m->first, n) : m->master;
}

static void anchor_create(Ppo *p, Buf weights) // (n): the anchor's own, or where it stands the reference's
{
    Anchor *a = &p->anchor;
    size_t E = (size_t)p->opt.rollout, draws = checked_product("draws of the anchor", E, a->K);
    a->weights = weights;
    a->y = (Response *)xcalloc(draws, sizeof *a->y);
    a->reward = (double *)xcalloc(draws, sizeof *a->reward);
    a->key = (uint64_t *)xcalloc(draws, sizeof *a->key);
    a->best = (Sequence *)xcalloc(E, sizeof *a->best);
    a->host = (real *)xmalloc(weights.n * sizeof *a->host);
    if (!(p->opt.objective.anchor_rate > 0)) return;
    params_twin(&a->params, p->policy, weights);
    a->average = (double *)xmalloc(weights.n * sizeof *a->average);
    a->logp = (double *)xcalloc(E * (size_t)p->opt.max_new, sizeof *a->logp);
    download_doubles(p->policy->o, a->average, anchor_follows(p->policy, weights.n), weights.n, a->host);
}

static void anchor_free(Anchor *a, size_t E)
{
    for (size_t i = 0; i < E * a->K; i++) response_free(&a->y[i]);
    free(a->y); free(a->reward); free(a->key); free(a->best); free(a->host); free(a->average); free(a->logp);
    params_free(&a->params);
}

// The anchor follows, and draws K responses to each prompt of the rollout, with its weights in the policy's place.
static void anchor_draw(Ppo *p)
{
    const ObjectiveSpec *o = &p->opt.objective;
    Anchor *a = &p->anchor;
    Model *m = p->policy;
    if (!a->K) return;
    size_t draws = p->rollout.E * a->K, n = a->weights.n;
    Buf own = slice(m->data, m->first, n);
    Sampling s = {.temperature = p->opt.temperature, .top_p = 1, .seed = p->opt.seed, .stream = STREAM_ANCHOR,
        .eos = p->opt.eos};
    if (a->average) { // before the first iteration it is where the policy is
        m->o->download(a->host, anchor_follows(m, n));
        for (size_t i = 0; i < n; i++) {
            a->average[i] += o->anchor_rate * ((double)a->host[i] - a->average[i]);
            a->host[i] = (real)a->average[i];
        }
        m->o->upload(a->weights, a->host);
    }
    for (size_t i = 0; i < draws; i++) {
        const Response *y = &p->rollout.y[i / a->K];
        response_free(&a->y[i]);
        a->y[i] = (Response){.prompt = y->prompt, .sample = y->sample * a->K + i % a->K};
    }
    m->o->download(a->host, own);
    m->o->copy(own, a->weights);
    phase_sample(p);
    model_pack(m);
    for (Group x = {0}; group_next(&p->groups, &x, p->rollout.E);)
        generate(&p->gen, &s, p->prompts, a->y + x.from * a->K, x.n * a->K);
    m->o->upload(own, a->host);
    for (Group x = {0}; group_next(&p->groups, &x, p->rollout.E);)
        assign_rewards(p, a->y + x.from * a->K, x.n * a->K, false);
    responses_gather(a->y, draws, (size_t)p->opt.max_new, false);
    for (size_t i = 0; i < draws; i++) { a->reward[i] = a->y[i].reward; a->key[i] = a->y[i].key; }
    for (size_t i = 0; i < p->rollout.E; i++) {
        const Response *y = &a->y[i * a->K];
        a->best[i] = sequence_of(&p->prompts[y->prompt], &y[best_of(y, (size_t)o->best)]);
    }
}

static void anchor_logps(Ppo *p) // where it has left the reference
{
    if (p->anchor.average) action_logps(p, &p->anchor.params, p->anchor.logp);
}

// The objective's log p<= of response i, by its place among the first k draws to its prompt.
static double anchor_log_f(const Ppo *p, size_t i)
{
    const ObjectiveSpec *o = &p->opt.objective;
    const Anchor *a = &p->anchor;
    const Response *y = &p->rollout.y[i];
    Cdf draws = {.M = (size_t)o->k, .reward = a->reward + i * a->K, .key = a->key + i * a->K};
    Place among = cdf_place(&draws, y->reward, y->key);
    return o->log_f(&among);
}

// Adds to m->g the gradient of -forward log pi(y') / tokens, y' the best draws to the prompts of the responses
// rows[0..n).
static void anchor_gradient(Ppo *p, const size_t *rows, size_t n, size_t tokens, GroupSums *sums)
{
    Anchor *a = &p->anchor;
    Rollout *r = &p->rollout;
    Pass *s = &p->pass;
    const Model *m = p->policy;
    if (!a->K) return;
    for (size_t i = 0, fit; i < n; i += fit) {
        for (size_t j = i; j < n; j++) r->micro[j - i] = a->best[rows[j]];
        fit = pass_fit(s, r->micro, n - i, 1);
        pass_forward(s, &m->p, r->micro, fit);
        m->o->fill(slice(s->dlogp, 0, s->R), -p->opt.objective.forward / (double)tokens);
        m->o->logprob_backward(s->dhidden, head_weight(&m->g), s->logp, s->dlogp, (Buf){0}, s->hidden,
                               head_weight(&m->p), s->target, p->opt.temperature, s->R, m->cfg.C, m->cfg.V);
        pass_backward(s);
        m->o->download(s->h_real, slice(s->logp, 0, s->R));
        for (size_t j = 0; j < s->R; j++) sums->nll -= (double)s->h_real[j];
        sums->counted += (double)fit;
    }
}

static void anchor_report(Ppo *p)
{
    Anchor *a = &p->anchor;
    const Rollout *r = &p->rollout;
    const double *base = a->average ? a->logp : r->ref_logp;
    double kl = 0, logF = 0;
    for (size_t j = 0; j < r->actions; j++) kl += r->old_logp[j] - base[j];
    for (size_t i = 0; i < r->E; i++) logF += anchor_log_f(p, i);
    measure(p, "bond/nll_best", a->nll / a->counted);   // nats a response, -log pi of the best draws: should fall
    measure(p, "bond/logF", logF / (double)r->E);       // mean log p<= among the draws: should rise towards 0
    measure(p, "bond/kl_anchor", kl / (double)r->E);    // nats, KL(pi || pi_anchor); bond: that to the reference
    a->nll = a->counted = 0;
}
#endif
