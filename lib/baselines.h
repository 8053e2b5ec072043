// baselines.h: what vBoN is compared with that learns from the reward cache alone: DPO, IPO, BoNBoN, and supervised
// training on the best of N (`vbon offline`).
//
// All four are one loop over comparisons (y_w, y_l) of two responses to one prompt: y_w is the better one in the
// cache's total order (or, for dpo and ipo, the one that a file of preferences calls chosen). With the margin
//
//     h = [log pi(y_w) - log pi(y_l)] - [log ref(y_w) - log ref(y_l)]
//
// of log-probabilities summed over a response's tokens (an end-of-text included if it was sampled), the loss of a
// comparison is
//
//     dpo      -log sigmoid(beta h)                                      Rafailov et al. 2023, Eq. 7
//     ipo      (h - 1/(2 beta))^2                                        Azar et al. 2024, Eq. 17
//     bonbon   -alpha log pi(y_w) + (1 - alpha) (h - 1/(2 beta*))^2      Gui et al. 2024; y_w and y_l the best and
//                                                                        worst of N, 1/(2 beta*) =
//                                                                        (N - 1) (1 + 1/2 + ... + 1/(N-1))
//     bon-sft  -log pi(y_w)                                              y_w the best of N
//
// and a step's loss is the mean of its comparisons'. The texts are fixed, so the reference is read once, before the
// first step; its sums are all that is kept of it.
//
// Easy to get wrong: sums over tokens, also for ipo (TRL's is given means: its beta is another); 1/(2 beta*) is a
// target of many nats (18 at N = 8), not its reciprocal; ties in reward are no preference (dpo, ipo leave them out;
// best and worst of N follow the total order); ids that were sampled are used as they are: their text may encode to
// others, and where only the text is kept, these are what is learned from, and counted.
//
// Left out on purpose: BOND, which samples (`train --objective bond`); label smoothing and the other losses of the DPO
// family.
#pragma once
#include "../ppo.h"
#include "agree.h"

// The rows of offline_losses, in their order.
typedef struct { OfflineKind kind; double beta, alpha; long N; } OfflineLoss; // beta: dpo, ipo; alpha and N: bonbon
double bonbon_target(long N);                                                 // 1/(2 beta*), nats; 0 for N = 1
// The loss of one comparison from the four sums, in nats; its derivatives by log pi(y_w) and log pi(y_l). bon-sft: what
// is said of y_l is not read.
double offline_loss(const OfflineLoss *o, double w, double l, double ref_w, double ref_l, double *dw, double *dl);

typedef struct { size_t w, l; } Comparison; // of responses; bon-sft: w alone
// All comparisons of a cache, prompt by prompt. It owns everything; stb arrays.
// retokenised: texts that encode to other ids than were sampled
typedef struct {
    Prompt *prompts;
    Response *responses;
    Sequence *sequences;
    double *ref;
    Comparison *list;
    size_t retokenised;
} Comparisons;
// bonbon, bon-sft: the best (and the worst) of each prompt's first N draws. dpo, ipo: of the first `draws`, at most
// `pairs` of all pairs with unequal rewards, chosen by seed. Dies naming the prompt that has too few draws, a text that
// is not kept, or more tokens than its context.
void comparisons_make(Comparisons *c, const Cache *cache, size_t prompts_max, const OfflineLoss *o, size_t draws,
                      size_t pairs, uint64_t seed, const Tokenizer *t, const Config *cfg);
// dpo, ipo: from JSONL lines {"prompt","chosen","rejected"}; an end-of-text token closes both texts if the tokenizer
// has one. Dies with file and line.
void comparisons_read(Comparisons *c, const char *path, size_t prompts_max, const Tokenizer *t, const Config *cfg);
void comparisons_free(Comparisons *c);
// ref: log-probabilities of responses [from, from+n) by the model as it is
void comparisons_reference(Comparisons *c, Pass *p, size_t from, size_t n, double temperature);

// sums over comparisons: loss, h, h > 0, log pi(y_w), log pi(y_l)
enum { OFFLINE_LOSS, OFFLINE_MARGIN, OFFLINE_RIGHT, OFFLINE_W, OFFLINE_L, OFFLINE_SUMS };
// Accumulates into m->g the gradient of the loss of comparisons which[0..n) over `total`, and their sums into sums
// (OFFLINE_SUMS). p: made for backward.
void offline_batch(Pass *p, const OfflineLoss *o, const Comparisons *c, const size_t *which, size_t n,
                   double total, double temperature, double *sums);

#ifdef VBON_IMPLEMENTATION

double bonbon_target(long N)
{
    double sum = 0;
    for (long k = 1; k < N; k++) sum += 1 / (double)k;
    return (double)(N - 1) * sum;
}

double offline_loss(const OfflineLoss *o, double w, double l, double ref_w, double ref_l, double *dw, double *dl)
{
    if (o->kind == OFFLINE_BON_SFT) { *dw = -1; *dl = 0; return -w; }
    double h = (w - l) - (ref_w - ref_l), loss, dh;
    if (o->kind == OFFLINE_DPO) {
        loss = softplus(-o->beta * h);
        dh = -o->beta / (1 + exp(o->beta * h));
    } else {
        double d = h - (o->kind == OFFLINE_IPO ? 1 / (2 * o->beta) : bonbon_target(o->N)),
               weight = o->kind == OFFLINE_IPO ? 1 : 1 - o->alpha;
        loss = weight * d * d;
        dh = weight * 2 * d;
    }
    *dw = dh; *dl = -dh;
    if (o->kind == OFFLINE_BONBON) { loss -= o->alpha * w; *dw -= o->alpha; }
    return loss;
}

// ----------------------------------------------------------------------------
// comparisons from a cache

// Of add_prompt and add_response: `where` says in an error which one it is
static void add_prompt(Comparisons *c, const char *where, const char *text, const Tokenizer *t)
{
    Prompt p = {.text = xstrdup(text)};
    p.ids = tokenizer_encode(t, text, strlen(text), &p.n);
    if (!p.n) die("%s: the prompt is empty: the model needs a token to go on from", where);
    arrput(c->prompts, p);
}

// to the last prompt
static size_t add_response(Comparisons *c, const char *where, const CacheSample *s, const Tokenizer *t,
                           const Config *cfg)
{
    bool same;
    Response r = {.prompt = arrlenu(c->prompts) - 1, .reward = s->reward};
    r.ids = sample_ids(s, t, &r.n, &same);
    if (!r.n) die("%s is empty", where);
    if (s->ids && !same) die("%s: its key is not that of its ids: the file was edited", where);
    size_t tokens = c->prompts[r.prompt].n + r.n;
    // the last one is never read
    if (tokens - 1 > cfg->max_T)
        die("%s has %zu tokens with its prompt; the model's own context is %zu: shorten it", where, tokens, cfg->max_T);
    c->retokenised += !same;
    arrput(c->responses, r);
    return arrlenu(c->responses) - 1;
}

// The place of a prompt's k-th draw among the responses, where it is put on first use (placed[k] < 0)
static size_t response_of(Comparisons *c, const Cache *cache, const CachePrompt *p, size_t k, long *placed,
    const Tokenizer *t, const Config *cfg)
{
    if (placed[k] >= 0) return (size_t)placed[k];
    char *where = format("%s:%zu: draw %zu of prompt \"%.40s\"", cache->path, p->samples[k].line, k, p->prompt);
    if (!p->samples[k].ids && !p->samples[k].text)
        die("%s has neither ids nor text: vbon compact keeps its ids by its --draws or --ns", where);
    placed[k] = (long)add_response(c, where, &p->samples[k], t, cfg);
    c->responses[placed[k]].sample = k;
    free(where);
    return (size_t)placed[k];
}

static void comparisons_finish(Comparisons *c) // when all responses are in their place
{
    for (size_t i = 0; i < arrlenu(c->responses); i++) {
        arrput(c->sequences, sequence_of(&c->prompts[c->responses[i].prompt], &c->responses[i]));
        arrput(c->ref, 0);
    }
}

// in the total order; without keys the earlier draw is the lower one
static bool draw_below(const CacheSample *a, const CacheSample *b)
{
    uint64_t x = a->ids ? order_key(a->ids, a->n_ids) : a->key, y = b->ids ? order_key(b->ids, b->n_ids) : b->key;
    return a->reward == b->reward && x == y ? a->draw < b->draw : order_below(a->reward, x, b->reward, y);
}

static void best_and_worst(const CachePrompt *p, size_t n, size_t *best, size_t *worst) // of the first n draws
{
    *best = *worst = 0;
    for (size_t k = 1; k < n; k++) {
        if (draw_below(&p->samples[*best], &p->samples[k])) *best = k;
        if (draw_below(&p->samples[k], &p->samples[*worst])) *worst = k;
    }
}

void comparisons_make(Comparisons *c, const Cache *cache, size_t prompts_max, const OfflineLoss *o, size_t draws,
                      size_t pairs, uint64_t seed, const Tokenizer *t, const Config *cfg)
{
    bool best_of = o->kind == OFFLINE_BONBON || o->kind == OFFLINE_BON_SFT;
    size_t first = best_of ? (size_t)o->N : draws,
           n_prompts = prompts_max && prompts_max < cache->n ? prompts_max : cache->n;
    for (size_t i = 0; i < n_prompts; i++) {
        const CachePrompt *p = &cache->prompts[i];
        if (p->n < first)
            die("%s: prompt \"%.40s\" has %zu draws, %zu are needed: draw more, or lower --%s", cache->path, p->prompt,
            p->n, first, best_of ? "n" : "draws");
    }
    long *placed = (long *)xmalloc(first * sizeof *placed);
    size_t *order = best_of ? NULL : (size_t *)xmalloc(first * first * sizeof *order);
    *c = (Comparisons){0};
    for (size_t i = 0; i < n_prompts; i++) {
        const CachePrompt *p = &cache->prompts[i];
        add_prompt(c, cache->path, p->prompt, t);
        for (size_t k = 0; k < first; k++) placed[k] = -1;
        if (best_of) {
            size_t best, worst;
            best_and_worst(p, first, &best, &worst);
            Comparison x = {.w = response_of(c, cache, p, best, placed, t, cfg)};
            if (o->kind == OFFLINE_BONBON) x.l = response_of(c, cache, p, worst, placed, t, cfg);
            arrput(c->list, x);
            continue;
        }
        Comparison *all = NULL; // by number of draw first: only those that are chosen become responses
        for (size_t a = 0; a < first; a++)
            for (size_t b = a + 1; b < first; b++)
                if (p->samples[a].reward != p->samples[b].reward)
                    arrput(all,
                           ((Comparison){p->samples[a].reward > p->samples[b].reward ? a : b,
                                         p->samples[a].reward > p->samples[b].reward ? b : a}));
        random_permutation(order, arrlenu(all), seed, STREAM_PAIRS, i);
        for (size_t k = 0; k < arrlenu(all) && k < pairs; k++) {
            Comparison x = all[order[k]];
            x.w = response_of(c, cache, p, x.w, placed, t, cfg);
            x.l = response_of(c, cache, p, x.l, placed, t, cfg);
            arrput(c->list, x);
        }
        arrfree(all);
    }
    free(placed); free(order);
    if (!arrlenu(c->list)) die("%s: no comparison: all rewards of each prompt are equal", cache->path);
    comparisons_finish(c);
}

void comparisons_read(Comparisons *c, const char *path, size_t prompts_max, const Tokenizer *t, const Config *cfg)
{
    Jsonl in;
    json_t *j;
    *c = (Comparisons){0};
    jsonl_open(&in, path);
    while ((!prompts_max || arrlenu(c->prompts) < prompts_max) && jsonl_next(&in, &j)) {
        char *where = format("%s:%zu", path, in.line);
        size_t side[2];
        add_prompt(c, where, jsonl_string(&in, j, "prompt", true), t);
        for (int k = 0; k < 2; k++) {
            const char *key = k ? "rejected" : "chosen";
            char *which = format("%s: the %s text", where, key);
            side[k] = add_response(
                c, which, &(CacheSample){.text = (char *)jsonl_string(&in, j, key, true), .finished = true}, t, cfg);
            free(which);
        }
        arrput(c->list, ((Comparison){side[0], side[1]}));
        free(where);
        json_decref(j);
    }
    jsonl_close(&in);
    if (!arrlenu(c->list)) die("%s: no comparisons: lines {\"prompt\",\"chosen\",\"rejected\"} are needed", path);
    comparisons_finish(c);
}

void comparisons_free(Comparisons *c)
{
    for (size_t i = 0; i < arrlenu(c->prompts); i++) { free(c->prompts[i].text); free(c->prompts[i].ids); }
    for (size_t i = 0; i < arrlenu(c->responses); i++) response_free(&c->responses[i]);
    arrfree(c->prompts); arrfree(c->responses); arrfree(c->sequences); arrfree(c->ref); arrfree(c->list);
}

void comparisons_reference(Comparisons *c, Pass *p, size_t from, size_t n, double temperature)
{
    double *logp = (double *)xmalloc(p->tokens * sizeof *logp);
    for (size_t i = from, fit; i < from + n; i += fit) {
        fit = pass_fit(p, c->sequences + i, from + n - i, 1);
        sequence_logps(p, &p->m->p, c->sequences + i, fit, temperature, logp, NULL);
        for (size_t j = i, k = 0; j < i + fit; j++) {
            c->ref[j] = 0;
            for (size_t t = 0; t < c->responses[j].n; t++) c->ref[j] += must_be_finite(logp[k++],
                "before training, a token's log-probability", WEIGHTS_OR_TEMPERATURE);
        }
    }
    free(logp);
}

// ----------------------------------------------------------------------------
// training

void offline_batch(Pass *p, const OfflineLoss *o, const Comparisons *c, const size_t *which, size_t n,
                   double total, double temperature, double *sums)
{
    Model *m = p->m;
    const Ops *ops = m->o;
    size_t C = m->cfg.C, V = m->cfg.V, unit = o->kind == OFFLINE_BON_SFT ? 1 : 2; // a comparison stays together
    Buf head = head_weight(&m->p), dhead = head_weight(&m->g);
    Sequence *q = (Sequence *)xmalloc(n * unit * sizeof *q);
    for (size_t i = 0; i < n; i++) {
        const Comparison *x = &c->list[which[i]];
        q[i * unit] = c->sequences[x->w];
        if (unit == 2) q[i * unit + 1] = c->sequences[x->l];
    }
    for (size_t i = 0, fit; i < n; i += fit) {
        const Sequence *micro = q + i * unit;
        fit = pass_fit(p, micro, (n - i) * unit, unit) / unit;
        pass_forward(p, &m->p, micro, fit * unit);
        ops->logprob_forward(p->logp, (Buf){0}, (Buf){0}, p->hidden, head, p->target, temperature, p->R, C, V);
        ops->download(p->h_real, slice(p->logp, 0, p->R));
        real *token = p->h_real;
        for (size_t j = i; j < i + fit; j++) {
            const Comparison *x = &c->list[which[j]];
            double y[2] = {0}, d[2], ref_l = unit == 2 ? c->ref[x->l] : 0;
            size_t length[2] = {c->responses[x->w].n, unit == 2 ? c->responses[x->l].n : 0};
            for (size_t u = 0, t = 0; u < unit; u++) for (size_t k = 0; k < length[u]; k++) y[u] += (double)token[t++];
            if (x->w == x->l) y[1] = y[0]; // the best is the worst: h is 0 without rounding, for Adam would magnify it
            double loss = offline_loss(o, y[0], y[1], c->ref[x->w], ref_l, &d[0], &d[1]),
                   h = (y[0] - y[1]) - (c->ref[x->w] - ref_l);
            if (!isfinite(loss)) die("the loss is not finite at optimiser step %ld: %s", m->step + 1, loss_cause(m));
            for (size_t u = 0; u < unit; u++)
                for (size_t k = 0; k < length[u]; k++) *token++ = (real)(d[u] / total);
            const double add[OFFLINE_SUMS] = {loss, h, h > 0, y[0], y[1]};
            for (int k = 0; k < OFFLINE_SUMS; k++) sums[k] += add[k];
        }
        ops->upload(slice(p->dlogp, 0, p->R), p->h_real);
        ops->logprob_backward(p->dhidden, dhead, (Buf){0}, p->dlogp, (Buf){0}, p->hidden, head, p->target, temperature,
                              p->R, C, V);
        pass_backward(p);
    }
    free(q);
}

// alpha that weighs both terms of bonbon equally (Variational Best-of-N, footnote 12), from the first 512 comparisons:
// before the first step h is 0 in all of them
static double bonbon_alpha(const Comparisons *c, long N)
{
    size_t n = arrlenu(c->list) < 512 ? arrlenu(c->list) : 512;
    double squared = bonbon_target(N) * bonbon_target(N), nll = 0;
    for (size_t i = 0; i < n; i++) nll -= c->ref[c->list[i].w] / (double)n;
    return squared / (squared + nll);
}

// A run of offline training: what its steps have at hand
typedef struct {
    Pass pass; Comparisons c; OfflineLoss loss; Passes passes; Groups groups;
    size_t *which;                     // (batch) comparisons of a step
    double sums[OFFLINE_SUMS], counted; // since the last record
} Offline;

static void offline_step(Run *r)
{
    Offline *s = (Offline *)r->context;
    size_t n = passes_step(&s->passes, r->done, s->which);
    double sums[OFFLINE_SUMS];
    model_zero_grad(r->m);
    for (Group x = {0}; group_next(&s->groups, &x, n);) {
        double own[OFFLINE_SUMS] = {0};
        offline_batch(&s->pass, &s->loss, &s->c, s->which + x.from, x.n, (double)n, r->a->temperature, own);
        groups_add(&s->groups, x.k, own, OFFLINE_SUMS);
    }
    groups_finish(&s->groups, sums, OFFLINE_SUMS);
    for (int k = 0; k < OFFLINE_SUMS; k++) s->sums[k] += sums[k];
    s->counted += (double)n;
    adamw_step(r);
}

static size_t offline_record(Run *r, Metric *x)
{
    Offline *s = (Offline *)r->context;
    const OfflineKind kind = s->loss.kind;
    double *sums = s->sums, n = s->counted, margin = sums[OFFLINE_MARGIN] / n;
    bool second = kind != OFFLINE_BON_SFT; // whether there is a second response
    const Metric all[] = {
        {"comparisons", fmin((double)r->done * (double)s->passes.batch, (double)s->passes.total)},
        {"loss", sums[OFFLINE_LOSS] / n},
        {"offline/margin", second ? margin : NAN},
        {"rewards/accuracies", second ? sums[OFFLINE_RIGHT] / n : NAN},
        {"logps/chosen", sums[OFFLINE_W] / n},
        {"logps/rejected", second ? sums[OFFLINE_L] / n : NAN},
        {"rewards/margins", kind == OFFLINE_DPO || kind == OFFLINE_IPO ? s->loss.beta * margin : NAN},
        {"bonbon/alpha", kind == OFFLINE_BONBON ? s->loss.alpha : NAN},
        {"grad_norm", r->grad_norm},
        {"lr", r->lr},
        {"time/update", r->seconds}};
    memcpy(x, all, sizeof all);
    memset(sums, 0, sizeof s->sums);
    s->counted = 0;
    return sizeof all / sizeof *all;
}

static void cmd_offline(const Args *asked)
{
    Args own = *asked, *a = &own;
    const char *name = offline_losses[a->loss].name;
    Offline s = {.loss = {.kind = (OfflineKind)a->loss, .N = a->n, .beta = a->beta}};
    OfflineLoss *loss = &s.loss;
    Comparisons *c = &s.c;
    bool automatic = isnan(a->alpha);
    bool pairwise = loss->kind == OFFLINE_DPO || loss->kind == OFFLINE_IPO;
    if (pairwise && !flag_given("beta")) usage("--beta is required with --loss %s", name);
    if (!pairwise && flag_given("beta") == 2) usage("--beta goes with --loss dpo and ipo; %s has --n", name);
    if (pairwise && flag_given("n") == 2) usage("--n goes with --loss bonbon and bon-sft; %s has --beta", name);
    if (loss->kind != OFFLINE_BONBON && flag_given("alpha") == 2) usage("--alpha goes with --loss bonbon");
    if (!pairwise && (flag_given("draws") == 2 || flag_given("pairs") == 2))
        usage("--draws and --pairs go with --loss dpo and ipo; %s has --n", name);
    if (!automatic) loss->alpha = a->alpha;
    require(a->model, "model");
    if (!a->data == !a->cache) usage("one of --cache and --data is required");
    if (a->data && a->reward) usage("--reward checks the rewards of a cache: it does not go with --data");
    if (a->data && !pairwise) usage("--data goes with --loss dpo and ipo; %s needs a cache", name);
    if (a->data && (flag_given("draws") == 2 || flag_given("pairs") == 2)) usage("--draws and --pairs go with --cache");
    Run r;
    run_keep(a);
    if (!run_open(&r, a, "offline")) return;
    plan_run(a, JOB_OFFLINE, a->model, 0, 1);
    Model m;
    Tokenizer *t = model_load_as(&m, device_ops(a), a->model, "model", false, a->train_layers, false);
    m.recompute = a->recompute;
    tokenizer_eos(t); // or dies now
    Cache cache;
    if (a->data) comparisons_read(c, a->data, (size_t)a->prompts_max, t, &m.cfg);
    else {
        cache_read(&cache, a->cache, 0);
        check_origin(&cache, a->cache, a, &m, t);
        comparisons_make(c, &cache, (size_t)a->prompts_max, loss, (size_t)a->draws, (size_t)a->pairs, (uint64_t)a->seed,
                         t, &m.cfg);
    }
    size_t longest = 0;
    for (size_t i = 0; i < arrlenu(c->list); i++) { // a comparison is never split
        const Comparison *x = &c->list[i];
        size_t both = sequence_tokens(&m, &c->sequences[x->w]);
        if (loss->kind != OFFLINE_BON_SFT) both += sequence_tokens(&m, &c->sequences[x->l]);
        if (both > longest) longest = both;
    }
    plan_run(a, JOB_OFFLINE, a->model, longest, 1);
    size_t tokens = (size_t)a->micro_tokens > longest ? (size_t)a->micro_tokens : longest;
    if (a->cache) {
        if (a->reward) {
            Reward reward;
            open_reward(&reward, a, t);
            check_reward(&cache, a->cache, a, &reward, t);
            reward_close(&reward);
        } else
            printf("%s: its rewards are taken as they stand (--reward names what made them, and checks)\n", a->cache);
        cache_free(&cache);
    }
    if (c->retokenised)
        printf("%s: %zu of %zu texts encode to other tokens than were sampled, and are learned as texts (a cache with "
               "ids has the tokens)\n",
               a->cache, c->retokenised, arrlenu(c->responses));
    pass_create(&s.pass, &m, tokens, true);
    groups_create(&s.groups, &m, (size_t)a->groups);
    size_t n = arrlenu(c->sequences);
    for (Group x = {0}; loss->kind != OFFLINE_BON_SFT && group_next(&s.groups, &x, n);)
        comparisons_reference(c, &s.pass, x.from, x.n, a->temperature);
    parallel_gather(c->ref, n * sizeof *c->ref);
    if (loss->kind == OFFLINE_BONBON && automatic) loss->alpha = bonbon_alpha(c, loss->N);
    passes_create(&s.passes, arrlenu(c->list), (size_t)a->batch, a->epochs, a->steps, a->drop_last, (uint64_t)a->seed);
    s.which = (size_t *)xmalloc(s.passes.batch * sizeof *s.which);
    printf("%zu parameters, %zu train; %zu prompts, %zu responses, %zu comparisons; %ld optimiser steps of %zu\n",
           param_count(&m, 0), param_count(&m, m.first), arrlenu(c->prompts), arrlenu(c->responses), s.passes.items,
           s.passes.steps, s.passes.batch);
    passes_report(&s.passes, "comparisons");
    if (loss->kind == OFFLINE_BONBON) printf("alpha %.4g, target %.4g nats\n", loss->alpha, bonbon_target(loss->N));
    r.weights = weights_json("model", &m, t, NULL); // of its rewards the cache tells
    r.m = &m; r.context = &s; r.tokenizer_dir = a->model; r.steps = s.passes.steps;
    r.state[0] = (State){"sums", s.sums, OFFLINE_SUMS};
    r.state[1] = (State){"comparisons", &s.counted, 1};
    r.n_state = 2;
    r.step = offline_step; r.record = offline_record;
    run_steps(&r);
    groups_free(&s.groups); pass_free(&s.pass); comparisons_free(c);
    model_free(&m); tokenizer_free(t);
    passes_free(&s.passes);
    free(s.which);
}
#endif
