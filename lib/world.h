// world.h: `vbon world`: a language so small that all of it can be written down, and training watched in it.
//
// The alphabet is a, b, c and an end, written "."; a response has at most three tokens. 1 + 3 + 9 strings end by
// themselves (".", "a.", "ab.") and 27 are cut at the limit ("abc"): 40 in all. So few that each one's probability can
// be computed, and that training meets all of them again and again; and yet a language, sampled token by token, where
// the first token decides what can follow it.
//
// The reference is a GPT-2 of two blocks and width 16 with random weights, the policy starts as a copy of it, and
// training is the ppo_iteration of ppo.h that `vbon train` runs. What elsewhere must be estimated is here a sum over
// 40 strings:
//  - p(y), the reference's probability of the string y.
//  - F(y), the probability that a string drawn from the reference is worse than y: the sum of p over all worse
//    strings. It is 0 for the worst string, and F + p = 1 for the best. Worse is by the reward; rewards that are
//    equal (--ties: the reward counts the letter b, and so has four values) are ordered by a hash of the string (App.
//    C), so that every string has its own place, and F jumps by p from one to the next.
//  - pi_bon(y) = (F + p)^N - F^N, Best-of-N's distribution (Prop. 1): all N draws are at most y, but not all are
//    worse. Summed from the worst string to the best, each term cancels the one before, and 1^N - 0^N is left.
//  - the optimum of the bound L, p F^(N-1) / Z (Thm 2). Where p is much smaller than F, (F + p)^N - F^N is nearly
//    N p F^(N-1), and both optima are one: so it is with real responses of 40 tokens, where log p is about -100. Here
//    p is a few percent, F + p is not F, and the two can be told apart: at N = 4 by .03 in total variation.
//  - the optimum of the looser bound L1, p^(N(N+1)/2) F^(N(N-1)/2) / Z (Thm 3), and that of KL-regularised reward,
//    p exp(r/beta) / Z (Eq. 1). The last sees the size of rewards, the others their order alone.
// How far apart two distributions are is told by total variation, half the sum of |pi - q|, which is the largest
// difference that they have in the probability of any set of strings; and by KL(pi || q), in nats.
//
// Rewards add up over tokens. With rewards that order the strings at random PPO gives up rare first letters before it
// has seen what follows them, and N = 16 fails at any rate and batch: known, and nothing that the objective is to
// blame for.
//
// Sources: the paper and its numbers are named at the top of ppo.h.
#pragma once
#ifdef VBON_IMPLEMENTATION
#include <sys/ioctl.h>

// ----------------------------------------------------------------------------
// the world

enum { STRINGS = 40, WORLD_V = 4, WORLD_T = 3 }; // strings, tokens of the vocabulary, tokens of the longest string
typedef struct {                                 // strings stand from the worst to the best
    Response y[STRINGS];
    double token[WORLD_T][WORLD_V];              // what a token at a place adds to the reward
    double reward[STRINGS], logp[STRINGS], logF[STRINGS];
    double (*map)(double);                       // applied to every reward that training sees, or NULL
} World;

// The reward of a string's first n tokens: what a causal reward model would say having read so far. A float, as
// rewards are.
static double world_sum(const World *w, const int *ids, size_t n)
{
    double r = 0;
    for (size_t t = 0; t < n; t++) r += w->token[t][ids[t]];
    return (double)(float)r;
}

// Takes its place among the n strings that are there already.
static void world_insert(World *w, size_t n, Response y)
{
    double reward = world_sum(w, y.ids, y.n);
    for (; n; n--) {
        bool worse = reward != w->reward[n - 1] ? reward < w->reward[n - 1] : y.key < w->y[n - 1].key;
        if (!worse) break;
        w->y[n] = w->y[n - 1];
        w->reward[n] = w->reward[n - 1];
    }
    w->y[n] = y;
    w->reward[n] = reward;
}

static void world_create(World *w, bool ties, uint64_t seed)
{
    size_t n = 0;
    *w = (World){0};
    for (uint64_t t = 0; t < WORLD_T; t++)
        for (uint64_t id = 0; id < WORLD_V; id++)
            w->token[t][id] = ties ? id == 2 : 2 * random_uniform(seed, 77, t, id, 0) - 1;
    for (size_t len = 1; len <= WORLD_T; len++)
        for (int code = 0; code < 1 << 2 * len; code++) { // two bits a token
            int ids[WORLD_T];
            bool whole = true;
            for (size_t t = 0; t < len; t++) {
                ids[t] = code >> 2 * t & 3;
                bool end = ids[t] == 0, last = t == len - 1; // an end is last, and all but the longest have one
                whole &= end ? last : !last || len == WORLD_T;
            }
            if (!whole) continue;
            Response y = {.ids = (int *)xmalloc(sizeof ids), .n = len, .finished = ids[len - 1] == 0,
                .key = order_key(ids, len)};
            memcpy(y.ids, ids, len * sizeof *ids);
            world_insert(w, n++, y);
        }
    if (n != STRINGS) die("a bug: %zu strings, not %d", n, STRINGS);
}
static void world_free(World *w) { for (int i = 0; i < STRINGS; i++) free(w->y[i].ids); }

// A RewardFn; context: the World.
static void world_reward(void *context, const Prompt *prompts, Response *r, size_t n, bool prefixes)
{
    const World *w = (const World *)context;
    (void)prompts;
    for (size_t i = 0; i < n; i++) {
        double whole = world_sum(w, r[i].ids, r[i].n);
        r[i].reward = w->map ? w->map(whole) : whole;
        if (!prefixes) continue;
        r[i].prefix = (double *)xrealloc(r[i].prefix, r[i].n * sizeof(double));
        for (size_t t = 0; t < r[i].n; t++) {
            double part = world_sum(w, r[i].ids, t);
            r[i].prefix[t] = w->map ? w->map(part) : part;
        }
    }
}

// A CandidateFn
static void world_candidates(void *context, const Prompt *prompts, const Response *r, size_t n, const int *token,
                             size_t K, double *score)
{
    const World *w = (const World *)context;
    (void)prompts;
    for (size_t i = 0; i < n; i++)
        for (size_t t = 0; t < r[i].n; t++)
            for (size_t k = 0; k < K; k++) {
                double part = (double)(float)(world_sum(w, r[i].ids, t) + w->token[t][*token++]);
                *score++ = w->map ? w->map(part) : part;
            }
}

// ----------------------------------------------------------------------------
// its language model

static void world_model(Model *m, const Ops *o, long train_layers, uint64_t seed)
{
    Config c = {.arch = &architectures[ARCH_GPT2], .L = 2, .NH = 2, .C = 16, .F = 64, .V = WORLD_V, .max_T = 4,
        .act = ACT_GELU_TANH, .tied = true, .eps = 1e-5, .init_std = 0.15, .eos = 0};
    model_create(m, o, &c, train_layers, true, false);
    model_random(m, seed);
    value_head_random(m, seed);
}

// A model's log-probabilities of all strings after prompt p -> (STRINGS)
static void world_probabilities(const World *w, Model *m, const Prompt *p, double *logp)
{
    Pass s;
    Sequence q[STRINGS];
    double of_token[STRINGS * WORLD_T];
    pass_create(&s, m, 256, false);
    for (int i = 0; i < STRINGS; i++) q[i] = sequence_of(p, &w->y[i]);
    sequence_logps(&s, &m->p, q, STRINGS, 1, of_token, NULL);
    for (int i = 0, k = 0; i < STRINGS; i++) {
        logp[i] = 0;
        for (size_t t = 0; t < w->y[i].n; t++) logp[i] += of_token[k++];
    }
    pass_free(&s);
}

// p and F of the reference, which m is now
static void world_reference(World *w, Model *m, const Prompt *p)
{
    double F = 0;
    world_probabilities(w, m, p, w->logp);
    for (int i = 0; i < STRINGS; i++) {
        w->logF[i] = log(F);
        F += exp(w->logp[i]);
    }
}

static int world_draw(const World *w, double u) // of the reference, u uniform in [0, 1)
{
    int i = 0;
    while (i < STRINGS - 1 && u >= exp(w->logp[i])) u -= exp(w->logp[i++]);
    return i;
}

// What training is told of the reference's rewards. M = 0: every string with its exact F; else M draws, as a reward
// cache has, from which F must be estimated.
static void world_cdf(const World *w, size_t M, uint64_t seed, Cdf *c)
{
    size_t n = M ? M : STRINGS;
    *c = (Cdf){.M = n, .reward = (double *)xmalloc(n * sizeof(double))};
    c->key = (uint64_t *)xmalloc(n * sizeof(uint64_t));
    if (!M) c->logF = (double *)xmalloc(n * sizeof(double));
    for (size_t k = 0; k < n; k++) {
        int i = M ? world_draw(w, random_uniform(seed, STREAM_CACHE, 0, k, 0)) : (int)k;
        c->reward[k] = w->reward[i];
        c->key[k] = w->y[i].key;
        if (!M) c->logF[k] = w->logF[i];
    }
}

// ----------------------------------------------------------------------------
// distributions over its strings, as logarithms (STRINGS)

static double variation(const double *logp, const double *logq)
{
    double s = 0;
    for (int i = 0; i < STRINGS; i++) s += fabs(exp(logp[i]) - exp(logq[i])) / 2;
    return s;
}

static double divergence(const double *logp, const double *logq) // KL(p || q), in nats
{
    double s = 0;
    for (int i = 0; i < STRINGS; i++) if (exp(logp[i]) > 0) s += exp(logp[i]) * (logp[i] - logq[i]);
    return s;
}

static void normalise(double *logp)
{
    double s = 0, most = -INFINITY;
    for (int i = 0; i < STRINGS; i++) most = fmax(most, logp[i]);
    for (int i = 0; i < STRINGS; i++) s += exp(logp[i] - most);
    for (int i = 0; i < STRINGS; i++) logp[i] -= most + log(s);
}

// log[(F+p)^N - F^N] without the difference: of (F+p)^N the share 1 - (1 + p/F)^-N. N may be fractional, which
// log_pi_bon does not allow: F^N is a distribution function for any N > 0, though only a whole one counts draws.
static double world_pi_bon(double logF, double logp, double N)
{
    double F = exp(logF), p = exp(logp);
    return N * log(F + p) + log(-expm1(-N * log1p(p / F)));
}

// The distributions that a policy can be near to. TARGET is what training's own rewards lead to, whatever they are.
enum { REFERENCE, PI_BON, BEST_L, BEST_L1, BEST_RL, TARGET, OPTIMA };
typedef struct { const char *name, *variation, *divergence, *what, *objective; } Optimum; // objective: whose it is
static const Optimum optima[OPTIMA] = {
    {"reference", "tv/reference", "kl/reference", "the reference", ""},
    {"pi_bon", "tv/pi_bon", "kl/pi_bon", "pi_bon", "vbon"},
    {"l", "tv/l", "kl/l", "L's optimum", "l"},
    {"l1", "tv/l1", "kl/l1", "L1's optimum", "l1"},
    {"rl", "tv/rl", "kl/rl", "rl's optimum", "rl"},
    {"target", "tv/target", "kl/target", "these rewards' optimum", ""},
};

// All but TARGET. L and L1 are -inf where the worst string, whose F is 0, has any probability: here too they take a
// small F in its place, as training does.
static void world_optimum(const World *w, int which, double N, double beta, double *out)
{
    for (int i = 0; i < STRINGS; i++) {
        double logp = w->logp[i], logF = fmax(w->logF[i], exact_least(NULL, true));
        if (which == REFERENCE) out[i] = logp;
        if (which == PI_BON) out[i] = world_pi_bon(w->logF[i], logp, N);
        if (which == BEST_L) out[i] = logp + (N - 1) * logF;
        if (which == BEST_L1) out[i] = N * (N + 1) / 2 * logp + N * (N - 1) / 2 * logF;
        if (which == BEST_RL) out[i] = logp + w->reward[i] / beta;
    }
    normalise(out);
}

// ----------------------------------------------------------------------------
// training in it

// A run, and what is known of it: pi is the policy when it was last measured, q the optima for this N and this beta.
// An objective that is given one of the two is compared with the others' optima at the same strength of the KL,
// beta = 1/(N-1). It holds pointers into itself: not to be copied.
typedef struct {
    World w; Model m; Prompt prompt; Cdf cdf; Ppo ppo;
    double N, beta, q[OPTIMA][STRINGS], fhat[STRINGS], pi[STRINGS];
    int goal;                         // the optimum that training leads to
    long iterations;
} WorldRun;

// Where PPO's rewards lead, and log F-hat on the way. Over a response the rewards add up to score(y) - kappa
// log(pi(y)/p(y)) + ref_weight log p(y), and of all distributions p exp((score + ref_weight log p) / kappa) / Z has
// the largest mean of that: for `vbon` with the exact F it is pi_bon, for `l` the optimum of L. With an estimated F, a
// clipped score or --compat scale it is another one.
static void world_target(WorldRun *r)
{
    const ObjectiveSpec *o = &r->ppo.opt.objective;
    for (int i = 0; i < STRINGS; i++) {
        Response y = r->w.y[i];
        Place at;
        double logp = r->w.logp[i];
        y.reward = r->w.reward[i];
        response_place(&r->ppo, &y, &at, &r->fhat[i]);
        double score = terminal_score(&r->ppo, &y, o->log_f ? 0 : r->fhat[i], logp);
        r->q[TARGET][i] = logp + (score + o->ref_weight * logp) / o->kappa;
    }
    normalise(r->q[TARGET]);
    if (o->log_f) memcpy(r->q[TARGET], r->q[PI_BON], sizeof r->q[TARGET]); // bond and jbond: lib/bond.h says how near
}

// Which of the optima the target is: of several that are the same, the objective's own.
static int world_goal(const WorldRun *r)
{
    int goal = TARGET;
    for (int k = PI_BON; k < TARGET; k++) {
        bool own = !strcmp(optima[k].objective, r->ppo.opt.objective.row->name);
        if (variation(r->q[k], r->q[TARGET]) < 1e-6 && (goal == TARGET || own)) goal = k;
    }
    return goal;
}

// M: draws of the reference for an estimate of F (unless it is exact).
static void world_open(WorldRun *r, const Ops *o, const PpoOptions *opt, bool ties, size_t M)
{
    static int begin[1] = {1};
    *r = (WorldRun){.prompt = {.ids = begin, .n = 1}};
    world_create(&r->w, ties, 4);
    world_model(&r->m, o, TRAIN_ALL, 3);
    world_reference(&r->w, &r->m, &r->prompt);
    world_cdf(&r->w, opt->fhat->exact ? 0 : M, opt->seed, &r->cdf);
    if (opt->fhat->fits && !cdf_fit(&r->cdf))
        fprintf(stderr, "note: --fhat %s finds no fit for these samples and uses add1\n", opt->fhat->name);
    ppo_create(&r->ppo, opt, &r->m, &r->prompt, &r->cdf, 1, world_reward, &r->w);
    r->ppo.score_candidates = world_candidates;
    r->iterations = (opt->episodes + opt->rollout - 1) / opt->rollout;
    const ObjectiveSpec *spec = &r->ppo.opt.objective;
    r->N = spec->N > 0 ? (double)spec->N : spec->beta > 0 ? 1 / spec->beta + 1 : 2; // jbond's steps have N = 2
    r->beta = spec->beta > 0 ? spec->beta : spec->kappa;
    for (int k = 0; k < TARGET; k++) world_optimum(&r->w, k, r->N, r->beta, r->q[k]);
    world_target(r);
    r->goal = world_goal(r);
}

static void world_close(WorldRun *r)
{
    ppo_free(&r->ppo);
    model_free(&r->m);
    free(r->cdf.reward); free(r->cdf.key); free(r->cdf.logF);
    world_free(&r->w);
}

// ----------------------------------------------------------------------------
// what is measured: by enumeration, so nothing here has an error but rounding

enum { WORLD_METRICS = 2 + 2 * OPTIMA };
static void world_measure(WorldRun *r, Metric x[WORLD_METRICS])
{
    double reward = 0;
    world_probabilities(&r->w, &r->m, &r->prompt, r->pi);
    for (int i = 0; i < STRINGS; i++) reward += exp(r->pi[i]) * r->w.reward[i];
    *x++ = (Metric){"reward", reward};
    *x++ = (Metric){"J", -divergence(r->pi, r->q[PI_BON])}; // E[log pi_bon] + entropy: at most 0
    for (int k = 0; k < OPTIMA; k++) {
        *x++ = (Metric){optima[k].variation, variation(r->pi, r->q[k])};
        *x++ = (Metric){optima[k].divergence, divergence(r->pi, r->q[k])};
    }
}

static void world_text(char out[WORLD_T + 1], const Response *y)
{
    for (size_t t = 0; t < y->n; t++) out[t] = ".abc"[y->ids[t]];
    out[y->n] = 0;
}

// ----------------------------------------------------------------------------
// for a pipe: a record a line, as log.jsonl has them

static void world_put(json_t *j, const char *key, double x)
{
    json_object_set_new(j, key, json_number(x, key, "training has diverged: lower --lr"));
}

static void world_line(json_t *j) // which it takes over
{
    char *text = json_text(j, JSON_COMPACT | JSON_REAL_PRECISION(9));
    printf("%s\n", text);
    file_flush(stdout, "standard output", false);
    free(text);
    json_decref(j);
}

static void world_config(const WorldRun *r, const Args *a)
{
    json_t *j = config_record(a, "world", json_object());
    json_object_set_new(j, "goal", json_make("s", optima[r->goal].name));
    world_put(j, "N", r->N);
    world_put(j, "beta", r->beta);
    world_line(j);
}

// What was measured, what PPO says of its last iteration, and all strings, the best first. PPO's metrics that are not
// defined are left out: its mean of log F is none when the worst string, whose exact F is 0, was drawn.
static void world_record(const WorldRun *r, const Metric x[WORLD_METRICS], double seconds)
{
    json_t *j = json_make("{s:s, s:I}", "type", "train", "step", (json_int_t)r->ppo.iteration), *list = json_array();
    for (int k = 0; k < WORLD_METRICS; k++) world_put(j, x[k].key, x[k].value);
    for (size_t k = 0; k < r->ppo.n_metrics; k++) {
        Metric m = r->ppo.metrics[k];
        if (isfinite(m.value) && strncmp(m.key, "time/", 5)) world_put(j, m.key, m.value);
    }
    for (int i = STRINGS - 1; i >= 0; i--) {
        char text[WORLD_T + 1];
        world_text(text, &r->w.y[i]);
        json_t *y = json_make("{s:s, s:f, s:f, s:f, s:f, s:f}", "string", text, "reward", r->w.reward[i],
                              "p", exp(r->w.logp[i]), "F", exp(r->w.logF[i]), "F_hat", exp(r->fhat[i]),
                              "pi_theta", exp(r->pi[i]));
        for (int k = PI_BON; k < OPTIMA; k++) json_object_set_new(y, optima[k].name, json_make("f", exp(r->q[k][i])));
        json_array_append_new(list, y);
    }
    json_object_set_new(j, "strings", list);
    world_put(j, "time/seconds", seconds);
    world_line(j);
}

// ----------------------------------------------------------------------------
// for a terminal: a table that is drawn over itself by moving the cursor up (ANSI: ESC [ n A), every line cut to the
// terminal's width.
//
// At 80 columns and 24 lines the 40 strings stand in two columns. From 44 lines on, or below 80 columns, it is one;
// where there is room each string has a bar. What a smaller terminal has no room for are the worst strings, at the
// end. A window that changes its size gets a new table below the old one. A terminal that says it is dumb, or is
// smaller than 40 columns and 8 lines, gets what a pipe gets.

static bool world_terminal(int *lines, int *columns) // false: none to draw on
{
    struct winsize size;
    const char *term = getenv("TERM");
    if (!isatty(1) || !term || !strcmp(term, "dumb") || ioctl(1, TIOCGWINSZ, &size)) return false;
    *lines = size.ws_row; *columns = size.ws_col;
    return *lines >= 8 && *columns >= 40;
}

static void world_share(FILE *f, double x) // a space, and a probability in five characters
{
    char text[16];
    snprintf(text, sizeof text, "%.4f", x);
    fprintf(f, " %.5s", *text == '0' ? text + 1 : text);
}

// y, its reward, p, F, pi_bon, the goal's share if that is not pi_bon, the policy's; and a bar of the last: # of what
// was p already, + of what was won and - of what was lost, with | at the goal. most: the share that fills it
static void world_cell(FILE *f, const WorldRun *r, int i, int bar, double most)
{
    double p = exp(r->w.logp[i]), pi = exp(r->pi[i]), goal = exp(r->q[r->goal][i]);
    char text[WORLD_T + 1];
    world_text(text, &r->w.y[i]);
    fprintf(f, "%-3s %5.2f", text, r->w.reward[i]);
    world_share(f, p); world_share(f, exp(r->w.logF[i])); world_share(f, exp(r->q[PI_BON][i]));
    if (r->goal != PI_BON) world_share(f, goal);
    world_share(f, pi);
    double scale = (bar - 2) / most;
    int was = (int)(p * scale + 0.5), is = (int)(pi * scale + 0.5), mark = (int)(goal * scale + 0.5);
    for (int k = -1; k < bar - 1; k++)
        fputc(k < 0 ? ' ' : k == mark ? '|' : k < is ? (k < was ? '#' : '+') : k < was ? '-' : ' ', f);
}

// width: of a line; across: how many strings stand beside each other. Returns whether there was room for bars.
static bool world_table(FILE *f, const WorldRun *r, const Metric x[WORLD_METRICS], int rows, int across, int width)
{
    const PpoOptions *opt = &r->ppo.opt;
    const ObjectiveSpec *o = &opt->objective;
    bool goal = r->goal != PI_BON;
    int cell = goal ? 39 : 33, gap = width >= across * cell + 3 ? 3 : 1, bar = (width - gap) / across - cell;
    double most = 0;
    if (bar < 8) bar = 0;
    for (int i = 0; i < STRINGS; i++) 
        most = fmax(most, exp(fmax(fmax(r->w.logp[i], r->pi[i]), r->q[r->goal][i])));

    fprintf(f, o->beta > 0 ? "%s, beta = %g" : "%s, N = %g", o->row->name, o->beta > 0 ? o->beta : (double)o->N);
    fprintf(f, ", F %s: iteration %ld of %ld", opt->fhat->name, r->ppo.iteration, r->iterations);
    if (rows * across < STRINGS) fprintf(f, "; the best %d of %d strings", rows * across, STRINGS);
    fputc('\n', f);
    for (int row = -1; row < rows; row++) {
        for (int c = 0; c < across; c++) {
            int from_best = c * rows + row;
            if (c) fprintf(f, "%*s", gap, "");
            if (row < 0) fprintf(f, "%-3s %5s %5s %5s %5s%s    pi%*s", "y", "r", "p", "F", "bon",
                                 goal ? "  goal" : "", c + 1 < across ? bar : 0, "");
            else if (from_best < STRINGS) world_cell(f, r, STRINGS - 1 - from_best, bar, most);
        }
        fputc('\n', f);
    }
    fprintf(f, "J %.4f; total variation to", x[1].value);
    for (int k = PI_BON; k < OPTIMA; k++) {
        if (k == TARGET && r->goal != TARGET) continue;
        fprintf(f, " %s", k == TARGET ? "goal" : optima[k].name);
        world_share(f, x[2 + 2 * k].value);
    }
    fputc('\n', f);
    return bar > 0;
}

static bool world_show(const WorldRun *r, const Metric x[WORLD_METRICS], int lines, int columns)
{
    static int was_lines, was_columns;
    char *text, *frame;
    size_t bytes, drawn;
    int across = lines < STRINGS + 4 && columns >= 80 ? 2 : 1;
    int rows = (STRINGS + across - 1) / across, room = lines - 4; // beside title, heads, status and the cursor's line
    if (rows > room) rows = room;
    FILE *f = open_memstream(&text, &bytes);
    if (!f) die("out of memory");
    bool bars = world_table(f, r, x, rows, across, columns - 1); // a full last column would wrap
    fclose(f);

    f = open_memstream(&frame, &drawn); // in one piece, so that nothing comes between
    if (!f) die("out of memory");
    if (was_lines == lines && was_columns == columns) fprintf(f, "\033[%dA", rows + 3);
    for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1)
        fprintf(f, "\r%.*s\033[K\n", (int)(end - line < columns ? end - line : columns - 1), line);
    fclose(f);
    was_lines = lines; was_columns = columns;
    fwrite(frame, 1, drawn, stdout);
    file_flush(stdout, "standard output", false);
    free(text); free(frame);
    return bars;
}

static void world_summary(const WorldRun *r, const Metric x[WORLD_METRICS], bool bars, double seconds)
{
    printf("y: a string, r: its reward, p: the reference's probability,\n"
           "F: p of all worse ones, bon: Best-of-N's, pi: the policy's;\n%s"
           "J: -KL(pi || pi_bon), what vbon maximises\n\n",
           bars ? "bars: # of p kept, + won, - lost, | where training leads;\n" : "");
    printf("%-28s %9s %9s\n", "from pi to", "variation", "KL, nats");
    for (int k = 0; k < OPTIMA; k++) {
        char what[64];
        if (k == TARGET && r->goal != TARGET) continue; // it is another one of them
        bool N = k == PI_BON || k == BEST_L || k == BEST_L1;
        int n = snprintf(what, sizeof what, "%s", optima[k].what);
        if (N || k == BEST_RL)
            snprintf(what + n, sizeof what - (size_t)n, ", %s = %.4g", N ? "N" : "beta", N ? r->N : r->beta);
        const char *mark = k == r->goal ? "  <- goal" : "";
        printf("%-28s %9.4f %9.4f%s\n", what, x[2 + 2 * k].value, x[3 + 2 * k].value, mark);
    }
    printf("%ld iterations in %.1f s\n", r->iterations, seconds);
}

// ----------------------------------------------------------------------------
// vbon world

static void world_options(PpoOptions *o, const Args *a)
{
    ppo_options(o, a);
    if (o->joint_p) usage("--compat jointp: the world's prompt is the one token that it leaves out: use scale");
    o->max_new = WORLD_T;
    o->eos = 0;
    o->adamw.weight_decay = 0; // nothing but the objective pulls
}

static void cmd_world(const Args *args)
{
    static WorldRun r;
    PpoOptions opt;
    Metric x[WORLD_METRICS];
    int lines, columns;
    Args own = *args;
    const Args *a = &own;
    if (own.precision == PRECISION_AUTO) own.precision = PRECISION_FP32; // on CUDA too: what is measured is exact
    if (!flag_given("threads")) omp_set_num_threads((int)(own.threads = 1)); // products so small that more would wait
    world_options(&opt, a);
    world_open(&r, device_ops(a), &opt, a->ties, (size_t)a->m);
    if (!opt.fhat->exact && r.N > (double)a->m)
        fprintf(stderr, "note: N = %g is larger than M = %ld: strings above the best draw get one score\n", r.N, a->m);
    bool terminal = world_terminal(&lines, &columns), bars = false;
    if (!terminal) world_config(&r, a);
    double began = clock_seconds();
    Progress progress = progress_begin("world", (size_t)r.iterations, 0, "iterations");
    for (long done = 0;; done++) {
        if (done == r.iterations || done % a->log_every == 0) {
            world_measure(&r, x);
            if (!terminal) world_record(&r, x, clock_seconds() - began);
            else if (world_terminal(&lines, &columns)) bars = world_show(&r, x, lines, columns);
        }
        if (done == r.iterations) break;
        ppo_iteration(&r.ppo);
        if (!terminal) progress_show(&progress, (size_t)done + 1, NULL);
    }
    if (terminal) world_summary(&r, x, bars, clock_seconds() - began);
    world_close(&r);
}
#endif
