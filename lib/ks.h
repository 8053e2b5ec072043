// ks.h: `vbon ks`: how well M samples of a prompt know the distribution of its rewards (the paper's Table 1, Figure 3).
//
// Table 1 asks of every prompt whether the empirical CDF of M rewards can be told from that of all of them (600), by
// the two-sample Kolmogorov-Smirnov test (Eq. 9), and counts the prompts where it can: p < .05. Its M samples are the
// first M of the 600, and there lies a trap. The test is made for two independent samples, and when both come from one
// distribution it rejects about 5 %, whatever M is: a small sample is a poor estimate, but the test knows how small it
// is and makes allowance. The first M of the *same* 600 are not independent of them: the larger a part they are, the
// more the two CDFs agree by construction, and the share that is rejected falls to 0. It would for any distribution,
// and says nothing of how good M samples are. Both forms are printed: `nested`, the first M against all, and
// `independent`, the first M against the others.
//
// What does matter is the error of log F-hat, for that is what the policy is trained on: the mean of
// |log F-hat_M - log F-hat_all|, first over the prompt's draws from M on, then over prompts. Those draws are new to
// F-hat_M, as a rollout's responses are; F-hat_all counts all samples but the response itself. As the M are among all,
// this is smaller than the error against the truth, by a factor of about sqrt(1 - M/all): .76 for 250 of 600. It is
// printed for every estimate that --fhat names, as it is trained on (`mc` with half a sample where none is below), and
// each is compared with `digamma` of all samples, where all but `expfit` hardly differ. For `digamma` it is printed
// over the quarter of the prompts with the lowest mean rewards too, the adversarial ones: the paper's F-hat is stable
// earlier on the one such prompt that it shows.
#pragma once
typedef struct { double statistic, p; } KsTest; // the largest distance between two empirical CDFs; its exact p-value
KsTest ks_test(const double *a, size_t n, const double *b, size_t m); // each in any order
double ks_p_value(long long gap, size_t n, size_t m);                 // of the statistic gap/(n m), without ties

#ifdef VBON_IMPLEMENTATION

// ----------------------------------------------------------------------------
// the test

// Both samples in one ascending row are a path on a grid from (0, 0) to (n, m): a step along i for each value of the
// first, along j for each of the second. At (i, j) the CDFs are |i/n - j/m| apart, in whole numbers |i m - j n| of n m.
// If all values come from one continuous distribution every path is equally likely, and the p-value is the share of the
// paths on which the CDFs get `gap` apart somewhere (Hodges 1958, "The significance probability of the Smirnov
// two-sample test"; SciPy's ks_2samp counts the same paths where its documentation says method="exact").
//
// Numbers of paths overflow: C(850, 250) has 223 digits. Shares do not. Of all paths to (i, j), i in every i + j come
// from (i - 1, j) and the rest from (i, j - 1), so the share there is a mean of the two before it, never outside
// [0, 1]; and as nothing is subtracted, a small one has all its digits.
double ks_p_value(long long gap, size_t n, size_t m)
{
    double *share = (double *)xcalloc(m + 1, sizeof *share); // (j) of row i; to the right of j still of row i - 1
    for (size_t i = 0; i <= n; i++)
        for (size_t j = 0; j <= m; j++) {
            double along_i = (double)i * share[j], along_j = j ? (double)j * share[j - 1] : 0;
            bool apart = llabs((long long)(i * m) - (long long)(j * n)) >= gap;
            share[j] = apart ? 1 : i + j ? (along_i + along_j) / (double)(i + j) : 0;
        }
    double p = share[m];
    free(share);
    return p;
}

// Equal rewards are one step of a CDF, so they are passed together. The p-value supposes that none are equal, as
// SciPy's does: where some are, fewer orders of the two samples get so far apart, and it is an upper bound. (In the
// nested form each of the M has its twin in the other sample: there it is what the paper computes, and no probability.)
KsTest ks_test(const double *a, size_t n, const double *b, size_t m)
{
    double *x = (double *)xmalloc((n + m) * sizeof *x), *y = x + n;
    long long gap = 0;
    memcpy(x, a, n * sizeof *x);
    memcpy(y, b, m * sizeof *y);
    qsort(x, n, sizeof *x, ascending);
    qsort(y, m, sizeof *y, ascending);
    for (size_t i = 0, j = 0; i < n && j < m;) { // when one is at its end the CDFs only come nearer
        double least = x[i] < y[j] ? x[i] : y[j];
        while (i < n && x[i] <= least) i++;
        while (j < m && y[j] <= least) j++;
        long long here = llabs((long long)(i * m) - (long long)(j * n));
        if (here > gap) gap = here;
    }
    free(x);
    return (KsTest){(double)gap / ((double)n * (double)m), ks_p_value(gap, n, m)};
}

// ----------------------------------------------------------------------------
// Table 1

static const double ks_level = 0.05;
typedef struct { size_t prompt; double mean; } KsMean; // a prompt and its mean reward
static int by_mean(const void *a, const void *b)
{
    const KsMean *x = (const KsMean *)a, *y = (const KsMean *)b;
    if (x->mean != y->mean) return x->mean < y->mean ? -1 : 1;
    return (x->prompt > y->prompt) - (x->prompt < y->prompt);
}

// of one prompt at one M; error: by row of fhats; fitted: `expfit` is a fit
typedef struct { KsTest nested, independent; double error[ROWS_MAX]; bool fitted; } KsPrompt;
typedef struct { Estimate rejected; double statistic, p; } KsShare;    // of prompts; means over the rejected, or NaN

// log F-hat of each draw by all samples
static void ks_log_all(double *out, const Cdf *all)
{
    for (size_t i = 0; i < all->M; i++) {
        Place at = cdf_place(all, all->reward[i], all->key ? all->key[i] : 0);
        if (!all->key) at.k -= 0.5; // without keys it does not know itself, and counts as a tie
        out[i] = ROW(fhats, "digamma")->log_f(&at);
    }
}

static KsPrompt ks_prompt(const Cdf *all, const double *log_all, size_t M)
{
    size_t others = all->M - M;
    const double *reward = all->reward; // in draw order
    Cdf first = *all;
    first.M = M;
    KsPrompt k = {ks_test(reward, M, reward, all->M), ks_test(reward, M, reward + M, others), {0}, cdf_fit(&first)};
    for (size_t i = M; i < all->M; i++) {
        Place at = cdf_place(&first, reward[i], all->key ? all->key[i] : 0);
        for (size_t f = 0; fhats[f].name; f++) {
            if (fhats[f].exact) continue;
            double logF = fhats[f].log_f(&at);
            if (fhats[f].least) logF = fmax(logF, fhats[f].least(&first, true));
            k.error[f] += fabs(logF - log_all[i]) / (double)others;
        }
    }
    return k;
}

static KsShare ks_share(const KsPrompt *k, bool nested, size_t n)
{
    double *rejected = (double *)xcalloc(n, sizeof *rejected), count = 0, statistic = 0, p = 0;
    for (size_t i = 0; i < n; i++) {
        const KsTest *t = nested ? &k[i].nested : &k[i].independent;
        rejected[i] = t->p < ks_level;
        count += rejected[i];
        statistic += rejected[i] * t->statistic;
        p += rejected[i] * t->p;
    }
    Estimate share = estimate(rejected, n);
    free(rejected);
    return (KsShare){share, count > 0 ? statistic / count : NAN, count > 0 ? p / count : NAN};
}

static void ks_share_print(const KsShare *s)
{
    printf(" | %6.2f +- %4.2f %%", 100 * s->rejected.mean, 100 * s->rejected.se);
    if (isnan(s->p)) printf("   none   none");
    else printf("  %.3f  %.3f", s->statistic, s->p);
}
static json_t *ks_share_json(const KsShare *s)
{
    json_t *j = json_object();
    put_estimate(j, "rejected", s->rejected);
    put_number(j, "statistic", s->statistic);
    put_number(j, "p", s->p);
    return j;
}

// A row of the table is printed, and returned as JSON. log_all: (n, samples of a prompt). lowest (n): prompts, those of
// the lowest mean reward first.
static json_t *ks_row(const Cdf *cdf, const double *log_all, const KsMean *lowest, size_t n, size_t M)
{
    KsPrompt *k = (KsPrompt *)xmalloc(n * sizeof *k);
    double *error = (double *)xcalloc(n, sizeof *error);
    #pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++) k[i] = ks_prompt(&cdf[i], log_all + i * cdf->M, M);
    KsShare nested = ks_share(k, true, n), independent = ks_share(k, false, n);
    printf("%6zu %8zu", M, n);
    ks_share_print(&nested);
    ks_share_print(&independent);
    putchar('\n');
    json_t *errors = json_object();
    for (size_t f = 0; fhats[f].name; f++) {
        for (size_t i = 0; i < n; i++) error[i] = k[i].error[f];
        if (!fhats[f].exact) put_estimate(errors, fhats[f].name, estimate(error, n));
    }
    size_t unfitted = 0, digamma = (size_t)(ROW(fhats, "digamma") - fhats);
    for (size_t i = 0; i < n; i++) unfitted += !k[i].fitted;
    json_t *j = json_make("{s:I, s:I, s:o, s:o, s:o, s:I}", "M", (json_int_t)M, "prompts", (json_int_t)n, "nested",
                          ks_share_json(&nested), "independent", ks_share_json(&independent), "errors", errors,
                          "unfitted", (json_int_t)unfitted);
    for (size_t i = 0; i < n / 4; i++) error[i] = k[lowest[i].prompt].error[digamma];
    put_estimate(j, "adversarial", estimate(error, n / 4));
    free(k); free(error);
    return j;
}

static void ks_error_print(const json_t *e, const char *otherwise) // [mean, standard error], if they are finite
{
    if (json_array_size(e) < 2) { printf(" | %-20s", otherwise); return; }
    double mean = json_real_value(json_array_get(e, 0)), se = json_real_value(json_array_get(e, 1));
    printf(mean < 1000 ? " | %8.4f +- %-8.4f" : " | %8.3g +- %-8.2g", mean, se);
}
static void ks_errors_print(const json_t *table, size_t samples)
{
    json_t *row;
    size_t v;
    printf("\nmean |log F_M - log F_%zu|, nats, by --fhat, and digamma's over the quarter of\n"
           "the prompts with the lowest mean rewards; no fit: prompts where expfit finds none and is add1\n", samples);
    printf("%6s", "M");
    for (size_t f = 0; fhats[f].name; f++) if (!fhats[f].exact) printf(" | %-20s", fhats[f].name);
    printf(" | %-20s | no fit\n", "adversarial quarter");
    json_array_foreach(table, v, row) {
        printf("%6lld", (long long)json_integer_value(json_object_get(row, "M")));
        for (size_t f = 0; fhats[f].name; f++)
            if (!fhats[f].exact)
                ks_error_print(json_object_get(json_object_get(row, "errors"), fhats[f].name), "too large");
        ks_error_print(json_object_get(row, "adversarial"), "too few prompts");
        printf(" | %6lld\n", (long long)json_integer_value(json_object_get(row, "unfitted")));
    }
}

// ----------------------------------------------------------------------------
// Figure 3

// A prompt's empirical CDFs. That of the first M samples is their rewards, ascending: at the i-th it steps up to i/M.
// kind: what --curves auto calls the prompt, or NULL.
static json_t *ks_curve(const char *prompt, const Cdf *c, KsMean of, const char *kind)
{
    static const size_t ms[] = {10, 20, 50, 100, 200, 400, SIZE_MAX}; // the last: all
    json_t *cdfs = json_array();
    double *sorted = (double *)xmalloc(c->M * sizeof *sorted);
    for (size_t v = 0; v < sizeof ms / sizeof *ms; v++) {
        size_t M = ms[v] < SIZE_MAX ? ms[v] : c->M;
        if (ms[v] < SIZE_MAX && M >= c->M) continue;
        json_t *rewards = json_array();
        memcpy(sorted, c->reward, M * sizeof *sorted);
        qsort(sorted, M, sizeof *sorted, ascending);
        for (size_t i = 0; i < M; i++) json_array_append_new(rewards, json_real(sorted[i]));
        json_array_append_new(cdfs, json_make("{s:I, s:o}", "M", (json_int_t)M, "rewards", rewards));
    }
    free(sorted);
    return json_make("{s:s?, s:I, s:s, s:f, s:o}", "kind", kind, "number", (json_int_t)of.prompt + 1, "prompt", prompt,
                     "mean_reward", of.mean, "cdfs", cdfs);
}

// numbers (n): of prompts, counted from 1. With n = 0, --curves auto, the prompts that come nearest to what the
// paper's three are made to be: of the lowest, the median and the highest mean reward. mean: by prompt; lowest: the
// same from the lowest up.
static json_t *ks_curves(const Cache *c, const Cdf *cdf, const KsMean *mean, const KsMean *lowest, const long *numbers,
                         size_t n)
{
    static const char *const kinds[] = {"adversarial", "neutral", "positive"};
    const size_t picks[] = {0, c->n / 2, c->n - 1};
    json_t *out = json_array();
    for (size_t k = 0; k < (n ? n : 3); k++) {
        KsMean of = n ? mean[numbers[k] - 1] : lowest[picks[k]];
        json_array_append_new(out, ks_curve(c->prompts[of.prompt].prompt, &cdf[of.prompt], of, n ? NULL : kinds[k]));
    }
    return out;
}

// ----------------------------------------------------------------------------
// the command

enum { KS_MAX = 64 }; // numbers in --ms, and in --curves

static void cmd_ks(const Args *a)
{
    long ms[KS_MAX], numbers[KS_MAX];
    bool automatic = a->curves && !strcmp(a->curves, "auto");
    size_t n_ms = parse_counts("ms", a->ms, ms, KS_MAX);
    size_t n_numbers = a->curves && !automatic ? parse_counts("curves", a->curves, numbers, KS_MAX) : 0;
    if (!n_ms) usage("--ms: names no M");
    if (a->curves && !automatic && !n_numbers) usage("--curves: auto, or numbers of prompts");
    if (a->curves && !a->out) usage("--curves are written into --out: name a file");
    require(a->cache, "cache");
    AsideFile *file = a->out ? out_file(a) : NULL;
    Cache c;
    cache_read(&c, a->cache, a->m);
    size_t samples = c.prompts[0].n, ties = 0;
    if (c.n < 2) die("%s: one prompt: a share of prompts needs more of them", a->cache);
    for (size_t i = 0; i < c.n; i++)
        if (c.prompts[i].n != samples)
            die("%s: prompt \"%.40s\" has %zu samples, the first one %zu: --m takes equally many of each", a->cache,
                c.prompts[i].prompt, c.prompts[i].n, samples);
    for (size_t v = 0; v < n_ms; v++)
        if ((size_t)ms[v] >= samples)
            die("--ms %ld: must be less than the %zu samples a prompt in %s: draw more, or name a smaller M", ms[v],
                samples, a->cache);
    for (size_t k = 0; k < n_numbers; k++)
        if ((size_t)numbers[k] > c.n) die("--curves %ld: there are %zu prompts in %s", numbers[k], c.n, a->cache);
    if (automatic && c.n < 3) die("--curves auto: chooses three prompts, and %s has %zu", a->cache, c.n);

    Cdf *cdf = (Cdf *)xcalloc(c.n, sizeof *cdf);
    double *log_all = (double *)xmalloc(c.n * samples * sizeof *log_all);
    KsMean *mean = (KsMean *)xmalloc(2 * c.n * sizeof *mean), *lowest = mean + c.n;
    for (size_t i = 0; i < c.n; i++) {
        cdf[i] = cdf_of_cached(&c.prompts[i], a->cache);
        mean[i] = (KsMean){i, 0};
        for (size_t k = 0; k < samples; k++) mean[i].mean += cdf[i].reward[k] / (double)samples;
    }
    memcpy(lowest, mean, c.n * sizeof *lowest);
    qsort(lowest, c.n, sizeof *lowest, by_mean);
    #pragma omp parallel for schedule(static) reduction(+: ties)
    for (size_t i = 0; i < c.n; i++) {
        bool equal = false;
        const double *r = cdf[i].reward;
        for (size_t k = 0; k < samples; k++) for (size_t e = 0; e < k; e++) equal |= r[e] == r[k];
        ties += equal;
        ks_log_all(log_all + i * samples, &cdf[i]);
    }
    start_table(a, "ks");
    printf("%s: %zu prompts, %zu samples each\n", a->cache, c.n, samples);
    printf("two-sample Kolmogorov-Smirnov tests, exact p-values (upper bounds for %zu prompts with equal rewards)\n",
           ties);
    printf("nested: the first M against all %zu, as in the paper's Table 1; independent: against the %zu - M others\n",
           samples, samples);
    printf("rejected: share of prompts with p < %.2f; statistic and p are means over these\n\n", ks_level);
    static const char *const head = "rejected          stat.      p";
    printf("%15s | nested%25s| independent\n", "", "");
    printf("%6s %8s | %s | %s\n", "M", "prompts", head, head);
    json_t *table = json_array();
    for (size_t v = 0; v < n_ms; v++) json_array_append_new(table, ks_row(cdf, log_all, lowest, c.n, (size_t)ms[v]));
    ks_errors_print(table, samples);
    json_t *j = json_make("{s:s, s:I, s:I, s:I, s:f, s:o}", "cache", a->cache, "prompts", (json_int_t)c.n,
                          "samples", (json_int_t)samples, "prompts_with_ties", (json_int_t)ties, "level", ks_level,
                          "table", table);
    if (a->curves) json_object_set_new(j, "curves", ks_curves(&c, cdf, mean, lowest, numbers, n_numbers));
    if (file) {
        char *text = json_text(j, JSON_COMPACT | JSON_REAL_PRECISION(9));
        fprintf(file->f, "%s\n", text);
        aside_commit(file);
        free(text);
    }
    json_decref(j);
    free(log_all); free(mean);
    cdfs_free(cdf, c.n);
    cache_free(&c);
}
#endif
