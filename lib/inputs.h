// inputs.h: what a command reads by its flags: prompts, a reward, and a reward cache, each checked against the models
// that it meets.
#pragma once
#ifdef VBON_IMPLEMENTATION

// Numbers with commas between, of --FLAG: how many there are
static size_t parse_counts(const char *flag, const char *text, long *out, size_t most)
{
    size_t n = 0;
    for (const char *p = text; *p; p += *p == ',') {
        char *end;
        if (n == most) usage("--%s %s: at most %zu numbers", flag, text, most);
        if (!whole_number(p, &end, &out[n]) || (*end && *end != ',') || out[n] < 1 || out[n] > 1000000000)
            usage("--%s %s: numbers from 1 to 1e9 with commas between", flag, text);
        n++;
        p = end;
    }
    return n;
}

static size_t decode_rows(const Args *a, size_t fallback) { return a->decode_rows ? (size_t)a->decode_rows : fallback; }

static double missing_eos(const Args *a) { return (float)a->missing_eos; } // as rewards are; NaN: none
static char *missing_eos_text(const Args *a) // malloc'd, for headers
{
    return isnan(a->missing_eos) ? xstrdup("none") : format("%.9g", a->missing_eos);
}

// Where lines with prompts are: a cache's, where it alone is given. each: of a command that answers lines, and takes
// them from a pipe too. Dies where there are none; NULL: --prompt is the only one.
static const char *prompts_path(const Args *a, bool each)
{
    struct stat st;
    if (a->prompt && a->prompts) usage("--prompt and --prompts exclude each other");
    if (a->prompt) return NULL;
    bool dash = each && a->prompts && !strcmp(a->prompts, "-");
    if (a->prompts && !dash) return a->prompts;
    if (!each || (a->cache && !dash)) return require(a->cache, "prompts");
    bool piped = !fstat(0, &st) && (S_ISFIFO(st.st_mode) || S_ISREG(st.st_mode));
    if (!dash && !piped) usage("no prompt: name one by --prompt, a file of them by --prompts, or pipe them in");
    return "/dev/stdin";
}

// each: every line of --prompts is a prompt, for commands that answer lines; else a prompt that stands there again
// counts once.
static Prompt *prompts_load(const Args *a, const Tokenizer *t, size_t max_T, size_t *n, bool each)
{
    char **text;
    const char *path = prompts_path(a, each);
    each &= path != a->cache; // whose prompts stand there once for each sample
    size_t *line = NULL, repeats = 0;
    if (a->prompt) {
        text = (char **)xmalloc(sizeof *text);
        text[0] = xstrdup(a->prompt);
        *n = 1;
    } else text = prompts_read(path, n, &line, !each, &repeats);
    if (repeats && a->prompts) printf("%s: %zu lines repeat a prompt and count once\n", path, repeats);
    while (a->prompts_max > 0 && *n > (size_t)a->prompts_max) free(text[--*n]);
    Prompt *p = (Prompt *)xcalloc(*n, sizeof *p);
    for (size_t i = 0; i < *n; i++) {
        p[i].text = text[i];
        p[i].where = line ? format("%s:%zu", path, line[i]) : xstrdup("--prompt");
        p[i].ids = tokenizer_encode(t, text[i], strlen(text[i]), &p[i].n);
        // files are checked as they are read
        if (!p[i].ids) die("--prompt: byte %zu is not UTF-8: is the terminal's encoding another?", p[i].n + 1);
        if (!p[i].n) die("%s: the prompt is empty: the model needs a token to go on from", p[i].where);
        if (p[i].n + (size_t)a->max_new - 1 > max_T)
            die("%s: the prompt has %zu tokens; with --max-new %ld the model's own context of %zu is too short: cut "
                "the prompt or lower --max-new",
                p[i].where, p[i].n, a->max_new, max_T);
    }
    free(text); free(line);
    return p;
}

static void prompts_free(Prompt *p, size_t n)
{
    for (size_t i = 0; i < n; i++) { free(p[i].text); free(p[i].ids); free(p[i].where); }
    free(p);
}

static void check_header(const json_t *header, const char *path, const char *key, const char *now, const char *what)
{
    const char *then = json_string_value(json_object_get(header, key));
    if (then && strcmp(then, now))
        die("%s: was made with another %s (%s, now %s): make the cache again, or name the right one", path, what, then,
            now);
}

static void check_missing_eos(const json_t *header, const char *path, const Args *a)
{
    char *now = missing_eos_text(a);
    json_t *j = json_make("s", now);
    if (!same_number(json_object_get(header, "missing_eos"), j))
        check_header(header, path, "missing_eos", now, "--missing-eos");
    json_decref(j);
    free(now);
}

// A cache must, by its header, come from this reference, sampled at this temperature, and hold its ids alone;
// and (check_cache) be of this length. reference NULL: of the tokenizer alone can it be asked.
static void check_origin(const Cache *c, const char *path, const Args *a, const Model *reference, const Tokenizer *t)
{
    const json_t *header = c->header;
    char *tok = hex_text(tokenizer_fingerprint(t));
    check_header(header, path, "tokenizer", tok, "tokenizer");
    free(tok);
    if (!reference) return;
    char *model = hex_text(model_fingerprint(reference));
    check_header(header, path, "model", model, "reference model");
    free(model);
    json_t *T = json_object_get(header, "temperature");
    if (json_is_number(T) && fabs(json_number_value(T) - a->temperature) > 1e-9)
        die("%s: was sampled at temperature %g, not %g", path, json_number_value(T), a->temperature);
    const char *then = json_string_value(json_object_get(header, "precision"));
    const char *now = precisions[precision_used(a)].name;
    if (then && strcmp(then, "auto") && strcmp(then, now)) // which older ones say
        fprintf(notes(), "%s: was drawn in %s, and this computes in %s: its numbers are taken to agree to rounding\n",
                path, then, now);
    cache_ids_check(c, path, reference);
}
static void check_cache(const Cache *c, const char *path, const Args *a, const Model *reference, const Tokenizer *t)
{
    check_origin(c, path, a, reference, t);
    json_t *new = json_object_get(c->header, "max_new");
    if (json_is_integer(new) && json_integer_value(new) != a->max_new)
        die("%s: was sampled with --max-new %lld, not %ld", path, (long long)json_integer_value(new), a->max_new);
}

// Its rewards must, by its header, be of this reward; and in fact, as far as a few of them tell.
static void check_reward(const Cache *c, const char *path, const Args *a, Reward *reward, const Tokenizer *t)
{
    double value = missing_eos(a);
    check_header(c->header, path, "reward", reward->what, "reward");
    check_missing_eos(c->header, path, a);
    reward_recheck(reward, c, path, t, (uint64_t)a->seed, isnan(value) ? NULL : &value, a->reward_tolerance);
}

// A prompt's cached rewards in draw order, and their order keys where all have one.
static Cdf cdf_of_cached(const CachePrompt *p, const char *path)
{
    Cdf d = {.M = p->n, .reward = (double *)xmalloc(p->n * sizeof(double))};
    bool keyed = true;
    if (!p->n) die("%s: prompt \"%.40s\" has no samples", path, p->prompt);
    for (size_t k = 0; k < p->n; k++) {
        const CacheSample *x = &p->samples[k];
        d.reward[k] = x->reward;
        keyed &= x->has_key || x->ids;
    }
    if (keyed) d.key = (uint64_t *)xmalloc(p->n * sizeof(uint64_t));
    for (size_t k = 0; k < p->n && keyed; k++) {
        const CacheSample *x = &p->samples[k];
        d.key[k] = x->ids ? order_key(x->ids, x->n_ids) : x->key;
        bool edited = x->has_key && x->ids && x->key != d.key[k];
        if (edited) die("%s: a key of prompt \"%.40s\" is not that of its ids: the file was edited", path, p->prompt);
    }
    return d;
}

// What is cached of each prompt, malloc'd. The cache must know every prompt. reference NULL: whichever it was drawn
// from.
static Cdf *cdfs_load(const Prompt *p, size_t n, const Args *a, const Model *reference, const Tokenizer *t,
                      Reward *reward)
{
    Cdf *cdf = (Cdf *)xcalloc(n, sizeof *cdf);
    Cache c;
    size_t no_keys = 0, unfitted = 0;
    cache_read(&c, a->cache, a->m);
    check_cache(&c, a->cache, a, reference, t);
    check_reward(&c, a->cache, a, reward, t);
    bool exact = fhats[a->fhat].exact, expfit = fhats[a->fhat].fits; // of commands without --fhat the first row
    for (size_t i = 0; i < n; i++) {
        long at = cache_find(&c, p[i].text);
        if (at < 0)
            die("%s: has no samples for prompt %zu, \"%.40s\": make the cache with these prompts", a->cache, i + 1,
                p[i].text);
        const CachePrompt *s = &c.prompts[at];
        Cdf *d = &cdf[i];
        *d = cdf_of_cached(s, a->cache);
        no_keys += !d->key;
        if (exact) {
            d->logF = (double *)xmalloc(s->n * sizeof(double));
            for (size_t k = 0; k < s->n; k++) {
                if (!s->samples[k].has_F || !d->key)
                    die("%s: --fhat exact needs \"F\" and \"ids\" (or \"key\") in every record of prompt \"%.40s\"",
                        a->cache, p[i].text);
                d->logF[k] = log(s->samples[k].F);
            }
        }
        if (expfit) unfitted += !cdf_fit(d);
    }
    if (no_keys)
        fprintf(notes(), "%s: no order keys for %zu prompts: ties are broken by mid-rank\n", a->cache, no_keys);
    if (expfit) printf("expfit: %zu of %zu prompts have no fit and use add1\n", unfitted, n);
    cache_free(&c);
    return cdf;
}

static void cdfs_free(Cdf *c, size_t n) // NULL: nothing
{
    for (size_t i = 0; c && i < n; i++) { free(c[i].reward); free(c[i].key); free(c[i].logF); }
    free(c);
}

// What --critic comes to where it is auto
static const Critic *critic_used(const Args *a)
{
    if (a->critic != CRITIC_AUTO) return &critics[a->critic];
    bool ranks = (a->cache || objectives[a->objective].cached) && !fhats[a->fhat].exact;
    return &critics[ranks && a->reward && reward_reads_ids(a->reward, a->model) ? CRITIC_PREFIX_RANK : CRITIC_HEAD];
}

// Refuses --all-actions where it cannot be; forward: the objective's, above 0 where it draws beside the policy.
static void all_actions_check(const Args *a, double forward)
{
    if (!a->all_actions) return;
    if (critic_used(a) != &critics[CRITIC_PREFIX_RANK])
        usage("--all-actions goes with --critic prefix-rank, whose regression says what a token's score is worth: with "
              "a reward cache and a causal reward model with the policy's tokenizer");
    if (forward > 0) usage("--all-actions does not go with --objective %s", objectives[a->objective].name);
}

static void open_reward(Reward *r, const Args *a, const Tokenizer *t)
{
    reward_open(r, require(a->reward, "reward"), t, device_ops(a), (size_t)a->micro_tokens, a->reward_timeout);
    if (a->reward_output == REWARD_PROB) reward_probability(r);
    reward_map(r, a->reward_scale, a->reward_offset);
}
#endif
