// commands.h: what `vbon COMMAND` does, in plain code: read flags, load, loop, write.
//
// Before a command begins main prints its start-up table. A command shows its progress, and writes nothing in place until it is whole. Runs that take long (sft, reward,
// train, offline, cache) can be killed at any moment and go on with --resume (cache: by itself).
#ifndef COMMANDS_H
#define COMMANDS_H
typedef struct { const char *name; void (*run)(const Args *a); const char *summary, *example; } Command;
#endif

#if defined(VBON_IMPLEMENTATION) && !defined(COMMANDS_IMPLEMENTED)
#define COMMANDS_IMPLEMENTED

#include "run.h"

// ----------------------------------------------------------------------------
// what commands share

static long train_layers(const Args *a)
{
    char *end;
    long k;
    if (!strcmp(a->train_layers, "all")) return TRAIN_ALL;
    if (!whole_number(a->train_layers, &end, &k) || *end || k < 0)
        usage("--train-layers %s: all, or a number of blocks", a->train_layers);
    return k;
}

static size_t decode_rows(const Args *a, size_t fallback) { return a->decode_rows ? (size_t)a->decode_rows : fallback; }

static void missing_eos(const Args *a, bool *has, double *value)
{
    char *end;
    *has = strcmp(a->missing_eos, "none") != 0;
    *value = *has ? strtod(a->missing_eos, &end) : 0;
    if (*has && (end == a->missing_eos || *end || !(fabs(*value) <= 1e9)))
        usage("--missing-eos %s: none, or a number between -1e9 and 1e9", a->missing_eos);
    *value = (float)*value; // as rewards are
}

// each: every line of --prompts is a prompt, for commands that answer lines; else a prompt that stands there again
// counts once.
static Prompt *prompts_load(const Args *a, const Tokenizer *t, size_t max_T, size_t *n, bool each)
{
    char **text;
    const char *path = a->prompts ? a->prompts : a->cache;
    size_t *line = NULL, repeats = 0;
    if (a->prompt) {
        text = (char **)xmalloc(sizeof *text);
        text[0] = xstrdup(a->prompt);
        *n = 1;
    } else text = prompts_read(require(path, "prompts"), n, &line, !each, &repeats);
    if (repeats && a->prompts) printf("%s: %zu lines repeat a prompt and count once\n", path, repeats);
    while (a->prompts_max > 0 && *n > (size_t)a->prompts_max) free(text[--*n]);
    Prompt *p = (Prompt *)xcalloc(*n, sizeof *p);
    for (size_t i = 0; i < *n; i++) {
        p[i].text = text[i];
        p[i].where = line ? format("%s:%zu", path, line[i]) : xstrdup("--prompt");
        p[i].ids = tokenizer_encode(t, text[i], strlen(text[i]), &p[i].n);
        if (!p[i].ids) die("--prompt: byte %zu is not UTF-8: is the terminal's encoding another?", p[i].n + 1); // files are checked as they are read
        if (!p[i].n) die("%s: the prompt is empty: the model needs a token to go on from", p[i].where);
        if (p[i].n + (size_t)a->max_new - 1 > max_T)
            die("%s: the prompt has %zu tokens; with --max-new %ld the model's own context of %zu is too short: cut the prompt or lower --max-new", p[i].where, p[i].n, a->max_new, max_T);
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
    if (then && strcmp(then, now)) die("%s: was made with another %s (%s, now %s): make the cache again, or name the right one", path, what, then, now);
}

// A cache must, by its header, come from this reference, sampled at this temperature, and hold its ids alone;
// and (check_cache) be of this length.
static void check_origin(const Cache *c, const char *path, const Args *a, const Model *reference, const Tokenizer *t)
{
    const json_t *header = c->header;
    char *model = format("%016llx", (unsigned long long)model_fingerprint(reference)), *tok = format("%016llx", (unsigned long long)tokenizer_fingerprint(t));
    check_header(header, path, "model", model, "reference model");
    check_header(header, path, "tokenizer", tok, "tokenizer");
    free(model); free(tok);
    json_t *T = json_object_get(header, "temperature");
    if (json_is_number(T) && fabs(json_number_value(T) - a->temperature) > 1e-9) die("%s: was sampled at temperature %g, not %g", path, json_number_value(T), a->temperature);
    cache_ids_check(c, path, reference);
}
static void check_cache(const Cache *c, const char *path, const Args *a, const Model *reference, const Tokenizer *t)
{
    check_origin(c, path, a, reference, t);
    json_t *new = json_object_get(c->header, "max_new");
    if (json_is_integer(new) && json_integer_value(new) != a->max_new) die("%s: was sampled with --max-new %lld, not %ld", path, (long long)json_integer_value(new), a->max_new);
}

// Its rewards must, by its header, be of this reward; and in fact, as far as a few of them tell.
static void check_reward(const Cache *c, const char *path, const Args *a, Reward *reward, const Tokenizer *t)
{
    bool has;
    double value;
    missing_eos(a, &has, &value);
    check_header(c->header, path, "reward", reward->what, "reward");
    check_header(c->header, path, "missing_eos", a->missing_eos, "--missing-eos");
    reward_recheck(reward, c, path, t, (uint64_t)a->seed, has ? &value : NULL, a->reward_tolerance);
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

// What is cached of each prompt, malloc'd. The cache must know every prompt.
static Cdf *cdfs_load(const Prompt *p, size_t n, const Args *a, const Model *reference, const Tokenizer *t, Reward *reward)
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
        if (at < 0) die("%s: has no samples for prompt %zu, \"%.40s\": make the cache with these prompts", a->cache, i + 1, p[i].text);
        const CachePrompt *s = &c.prompts[at];
        Cdf *d = &cdf[i];
        *d = cdf_of_cached(s, a->cache);
        no_keys += !d->key;
        if (exact) {
            d->logF = (double *)xmalloc(s->n * sizeof(double));
            for (size_t k = 0; k < s->n; k++) {
                if (!s->samples[k].has_F || !d->key) die("%s: --fhat exact needs \"F\" and \"ids\" (or \"key\") in every record of prompt \"%.40s\"", a->cache, p[i].text);
                d->logF[k] = log(s->samples[k].F);
            }
        }
        if (expfit) unfitted += !cdf_fit(d);
    }
    if (no_keys) printf("%s: no order keys for %zu prompts: ties are broken by mid-rank\n", a->cache, no_keys);
    if (expfit) printf("expfit: %zu of %zu prompts have no fit and use add1\n", unfitted, n);
    cache_free(&c);
    return cdf;
}

static void cdfs_free(Cdf *c, size_t n) // NULL: nothing
{
    for (size_t i = 0; c && i < n; i++) { free(c[i].reward); free(c[i].key); free(c[i].logF); }
    free(c);
}

// ----------------------------------------------------------------------------
// sft and reward

static void corpus_report(const char *what, const Corpus *c)
{
    printf("%s: %zu documents, %zu rows, %zu tokens\n", what, c->n_docs, c->n_rows, c->n_tokens);
    if (c->n_short) printf("%s: %zu lines are too short to learn from and left out\n", what, c->n_short);
}

static size_t lm_measure(Pass *p, const Corpus *c, const Tokenizer *tok, Metric *out)
{
    size_t *rows = (size_t *)xmalloc(c->n_rows * sizeof *rows), bytes = 0, n;
    for (size_t i = 0; i < c->n_rows; i++) rows[i] = i;
    for (size_t i = 0; i < c->n_rows; i++)
        for (int k = c->rows[i].from; k < c->rows[i].len; k++) {
            int id = c->tokens[c->rows[i].at + (size_t)k];
            if (id != tokenizer_eos(tok)) { size_t b; free(tokenizer_decode(tok, &id, 1, &b)); bytes += b; }
        }
    n = supervised_positions(c, rows, c->n_rows);
    double nats = supervised_batch(p, c, rows, c->n_rows, 1, false, NULL);
    free(rows);
    out[0] = (Metric){"held_out/nats_per_token", nats / (double)n};
    out[1] = (Metric){"held_out/perplexity", exp(nats / (double)n)};
    out[2] = (Metric){"held_out/bits_per_byte", nats / log(2) / (double)bytes};
    return 3;
}

// Accuracy of one way of cutting: rows of `c` are given in [first, last) of each document; the sign of their mean score is the answer
static double sign_accuracy(Pass *p, const Corpus *c)
{
    size_t *rows = (size_t *)xmalloc(c->n_rows * sizeof *rows), right = 0;
    double *score = (double *)xmalloc(c->n_rows * sizeof *score);
    for (size_t i = 0; i < c->n_rows; i++) rows[i] = i;
    supervised_batch(p, c, rows, c->n_rows, 1, false, score);
    for (size_t d = 0; d < c->n_docs; d++) {
        double sum = 0;
        for (size_t i = c->doc_first[d]; i < c->doc_first[d + 1]; i++) sum += score[i];
        right += (sum > 0) == (c->rows[c->doc_first[d]].label > 0.5f);
    }
    free(rows); free(score);
    return (double)right / (double)c->n_docs;
}

// Tokens of what reward_measure cuts out
static size_t snippet(const Config *c) { return c->max_T < 48 ? c->max_T : 48; }

static size_t reward_measure(Pass *p, const Corpus *c, uint64_t seed, Metric *out)
{
    if (c->kind == LOSS_PAIR) {
        size_t *rows = (size_t *)xmalloc(c->n_rows * sizeof *rows), right = 0;
        double *score = (double *)xmalloc(c->n_rows * sizeof *score);
        for (size_t i = 0; i < c->n_rows; i++) rows[i] = i;
        double loss = supervised_batch(p, c, rows, c->n_rows, 1, false, score);
        for (size_t i = 0; i < c->n_rows; i += 2) right += score[i] > score[i + 1];
        out[0] = (Metric){"held_out/pair_accuracy", 2 * (double)right / (double)c->n_rows};
        out[1] = (Metric){"held_out/loss", 2 * loss / (double)c->n_rows};
        free(rows); free(score);
        return 2;
    }
    static const char *const keys[] = {"held_out/accuracy_first_48", "held_out/accuracy_random_48", "held_out/accuracy_last_48"};
    out[0] = (Metric){"held_out/accuracy_whole", sign_accuracy(p, c)};
    size_t most = snippet(&p->m->cfg);
    for (int cut = 0; cut < 3; cut++) { // one row a document: a snippet, or the whole when it is shorter
        Corpus s = {.kind = LOSS_LABEL, .tokens = c->tokens, .n_docs = c->n_docs, .n_rows = c->n_docs};
        for (size_t d = 0; d < c->n_docs; d++) {
            const Row *a = &c->rows[c->doc_first[d]], *b = &c->rows[c->doc_first[d + 1] - 1];
            size_t begin = a->at, end = b->at + (size_t)b->len, len = end - begin < most ? end - begin : most, room = end - begin - len;
            size_t at = begin + (cut == 0 ? 0 : cut == 2 ? room : (size_t)(random_uniform(seed, STREAM_SPLIT, d, 0, 0) * (double)(room + 1)));
            arrput(s.rows, ((Row){at, (int)len, (int)len - 1, a->label}));
            arrput(s.doc_first, d);
        }
        arrput(s.doc_first, c->n_docs);
        out[1 + cut] = (Metric){keys[cut], sign_accuracy(p, &s)};
        arrfree(s.rows); arrfree(s.doc_first);
    }
    return 4;
}

static void fresh_config(Config *c, const Args *a, const Tokenizer *t, bool scalar)
{
    double C = (double)a->width, size = 12 * (double)a->layers * C * C + ((double)a->context + tokenizer_vocab(t)) * C;
    if (size > 1e12)
        usage("--layers %ld, --width %ld, --context %ld: a model of %.0e parameters is absurd: lower them",
              a->layers, a->width, a->context, size);
    if (a->width % a->heads || a->width / a->heads > 256) usage("--width %ld over --heads %ld is no whole head size up to 256", a->width, a->heads);
    *c = (Config){.arch = "gpt2", .L = (size_t)a->layers, .C = (size_t)a->width, .NH = (size_t)a->heads, .F = 4 * (size_t)a->width, .V = (size_t)tokenizer_vocab(t),
        .max_T = (size_t)a->context, .act = ACT_GELU_TANH, .tied = true, .scalar_head = scalar, .pad = -1, .eps = 1e-5, .init_std = 0.02, .bos = tokenizer_eos(t), .eos = tokenizer_eos(t)};
    if (a->arch == ARCH_GPT2) return;
    strcpy(c->arch, architectures[a->arch].name); // as the Pythias are
    c->act = ACT_GELU_ERF; c->tied = false; c->parallel = true; c->rotary_pct = 0.25; c->rotary_base = 10000;
    if (c->C / c->NH % 8) usage("--width %ld over --heads %ld: a gpt_neox turns a quarter of each head in pairs, so heads must be multiples of 8", a->width, a->heads);
}

// A run of supervised training: what its steps have at hand
typedef struct {
    Pass pass; Corpus data, held; Passes passes; Tokenizer *tok;
    size_t unit, *which, *rows;              // rows of an item (a pair has two); (batch) items and (batch * unit) rows of a step
    double loss, positions, tokens;          // since the last record
} Supervised;

static void supervised_step(Run *r)
{
    Supervised *s = (Supervised *)r->context;
    size_t n = passes_step(&s->passes, r->done, s->which) * s->unit;
    for (size_t i = 0; i < n; i++) s->rows[i] = s->which[i / s->unit] * s->unit + i % s->unit;
    size_t positions = supervised_positions(&s->data, s->rows, n);
    for (size_t i = 0; i < n; i++) s->tokens += s->data.rows[s->rows[i]].len;
    model_zero_grad(r->m);
    s->loss += supervised_batch(&s->pass, &s->data, s->rows, n, (double)positions, true, NULL);
    s->positions += (double)positions;
    adamw_step(r);
}

static size_t supervised_record(Run *r, Metric *x)
{
    Supervised *s = (Supervised *)r->context;
    size_t n = 0;
    x[n++] = (Metric){"loss", s->loss / s->positions};
    x[n++] = (Metric){"grad_norm", r->grad_norm};
    x[n++] = (Metric){"lr", r->lr};
    x[n++] = (Metric){"time/tokens_per_second", s->tokens / r->seconds};
    s->loss = s->positions = s->tokens = 0;
    return n;
}

static void supervised_measure(Run *r, Log *log)
{
    Supervised *s = (Supervised *)r->context;
    Metric x[8];
    size_t k = s->held.kind == LOSS_LM ? lm_measure(&s->pass, &s->held, s->tok, x) : reward_measure(&s->pass, &s->held, (uint64_t)r->a->seed, x);
    const char *keys[9] = {NULL};
    for (size_t i = 0; i < k; i++) keys[i] = x[i].key;
    log_metrics(log, "held_out", r->done, x, k);
    print_metrics(r->done, x, k, keys);
}

static LossKind reward_data_kind(const char *path) // which form the file has shows in its first line
{
    Jsonl in;
    json_t *j;
    jsonl_open(&in, path);
    if (!jsonl_next(&in, &j)) die("%s: empty: lines {\"text\",\"label\"} or {\"prompt\",\"chosen\",\"rejected\"} are needed", path);
    LossKind kind = json_object_get(j, "chosen") ? LOSS_PAIR : LOSS_LABEL;
    json_decref(j);
    jsonl_close(&in);
    return kind;
}

static void supervised_run(const Args *a, const char *command)
{
    bool reward = !strcmp(command, "reward");
    const char *folder = reward ? a->init : a->model, *tokenizer_dir = folder ? folder : require(a->tokenizer, "tokenizer");
    if (a->tokenizer) tokenizer_dir = a->tokenizer;
    require(a->data, "data");
    Run r;
    if (!run_open(&r, a, command)) return;
    const Ops *o = device_ops(a);
    Config c;
    if (folder) config_read_as(&c, folder, reward ? "init" : "model", false);
    Supervised s = {.tok = tokenizer_load(tokenizer_dir)};
    Tokenizer *tok = s.tok;
    if (!folder) fresh_config(&c, a, tok, reward);
    else if (reward) { // the lower blocks of a language model
        if ((size_t)a->layers > c.L) usage("--layers %ld: %s has %zu", a->layers, folder, c.L);
        c.L = (size_t)a->layers; c.scalar_head = true; c.tied = true; c.pad = -1; // the end of a text is scored too
    }
    if (c.eos != tokenizer_eos(tok)) c.bos = c.eos = tokenizer_eos(tok); // of another tokenizer than the folder's
    vocabulary_check(tok, tokenizer_dir, c.V, folder ? folder : a->out);
    // a new model has the context it is given
    size_t context = (size_t)a->context < c.max_T ? (size_t)a->context : c.max_T, own = folder ? c.max_T : SIZE_MAX;
    if (context < 2) die("%s: the model's own context is %zu: a row must hold two tokens at least, one to read and one to predict", folder, context);
    Model m;
    model_create(&m, o, &c, train_layers(a), false, false);
    model_random(&m, (uint64_t)a->seed);
    if (folder && !reward) model_fill(&m, folder);
    if (folder && reward) { size_t absent = model_fill_partial(&m, folder); if (absent > 1) die("--init %s: %zu parameters are not in it: is it of this width?", folder, absent - 1); }
    LossKind kind = reward ? reward_data_kind(a->data) : LOSS_LM;
    corpus_read(&s.data, kind, a->data, tok, context, own, (size_t)a->from_position, 0);
    corpus_report(a->data, &s.data);
    if (a->held_out) {
        corpus_read(&s.held, kind, a->held_out, tok, context, own, (size_t)a->from_position, (size_t)a->max_docs);
        corpus_report(a->held_out, &s.held);
    }
    s.unit = kind == LOSS_PAIR ? 2 : 1;
    passes_create(&s.passes, s.data.n_rows / s.unit, (size_t)a->batch, a->epochs, a->steps, a->drop_last, (uint64_t)a->seed);
    s.which = (size_t *)xmalloc(s.passes.batch * sizeof *s.which);
    s.rows = (size_t *)xmalloc(s.passes.batch * s.unit * sizeof *s.rows);
    printf("%zu parameters, %zu train; %ld steps of %zu rows\n", m.n_params, m.n_params - m.first, s.passes.steps, s.passes.batch * s.unit);
    passes_report(&s.passes, s.unit == 2 ? "pairs" : "rows");
    size_t longest = rows_longest(&s.data);
    if (a->held_out && rows_longest(&s.held) > longest) longest = rows_longest(&s.held);
    if (kind == LOSS_LABEL && snippet(&c) > longest) longest = snippet(&c);
    pass_create(&s.pass, &m, (size_t)a->micro_tokens > s.unit * longest ? (size_t)a->micro_tokens : s.unit * longest, true);
    r.m = &m; r.context = &s; r.tokenizer_dir = tokenizer_dir; r.steps = s.passes.steps;
    r.state[0] = (State){"loss", &s.loss, 1};
    r.state[1] = (State){"positions", &s.positions, 1};
    r.n_state = 2;
    r.step = supervised_step; r.record = supervised_record; r.measure = a->held_out ? supervised_measure : NULL;
    run_steps(&r);
    pass_free(&s.pass); corpus_free(&s.data); corpus_free(&s.held);
    model_free(&m); tokenizer_free(tok);
    passes_free(&s.passes);
    free(s.which); free(s.rows);
}

static void cmd_sft(const Args *a) { supervised_run(a, "sft"); }
static void cmd_reward(const Args *a) { supervised_run(a, "reward"); }

static void open_reward(Reward *r, const Args *a, const Tokenizer *t)
{
    reward_open(r, require(a->reward, "reward"), t, device_ops(a), (size_t)a->micro_tokens, a->reward_timeout);
    if (a->reward_output == REWARD_PROB) reward_probability(r);
    reward_map(r, a->reward_scale, a->reward_offset);
}

// ----------------------------------------------------------------------------
// sample, bon, cache: drawing from a model

typedef struct { Model m; Tokenizer *t; Arena work; Generator g; Prompt *prompts; size_t n, rows; Sampling s; } Drawing;

static void drawing_open(Drawing *d, const Args *a, const char *model, uint64_t stream)
{
    memset(d, 0, sizeof *d);
    const char *flag = model == a->model ? "model" : "reference";
    d->t = model_load_as(&d->m, device_ops(a), require(model, flag), flag, false, TRAIN_NONE, false);
    d->prompts = prompts_load(a, d->t, d->m.cfg.max_T, &d->n, stream == STREAM_SAMPLE || stream == STREAM_BON);
    size_t longest = 1;
    for (size_t i = 0; i < d->n; i++) if (d->prompts[i].n > longest) longest = d->prompts[i].n;
    d->rows = decode_rows(a, 256);
    d->work = (Arena){.name = "sampling", .o = d->m.o};
    for (int pass = 0; pass < 2; pass++) {
        if (pass) arena_place(&d->work);
        generator_carve(&d->g, &d->m, &d->work, d->rows, (size_t)a->micro_tokens, longest, (size_t)a->max_new);
    }
    model_pack(&d->m);
    d->s = (Sampling){.temperature = a->temperature, .top_p = a->top_p, .top_k = a->top_k, .seed = (uint64_t)a->seed, .stream = stream, .eos = tokenizer_eos(d->t)};
}

static void drawing_close(Drawing *d)
{
    generator_free(&d->g); arena_release(&d->work); prompts_free(d->prompts, d->n);
    model_free(&d->m); tokenizer_free(d->t);
}

static double response_logp(const Response *r) { double s = 0; for (size_t t = 0; t < r->n; t++) s += (double)r->logp[t]; return s; }

// Rewards, with the missing-EOS rule
static void judge(Reward *reward, const Args *a, const Prompt *prompts, Response *r, size_t n)
{
    bool has;
    double value;
    missing_eos(a, &has, &value);
    reward_score(reward, prompts, r, n, false);
    for (size_t i = 0; i < n; i++) if (has && !r[i].finished) r[i].reward = value;
}

// Draws and scores draws [from, to) of the sequence prompt 0 draws 0..M-1, prompt 1 draws 0..M-1, ...
static Response *draw(Drawing *d, Reward *reward, const Args *a, size_t M, size_t from, size_t to)
{
    Response *r = (Response *)xcalloc(to - from, sizeof *r);
    for (size_t i = from; i < to; i++) r[i - from] = (Response){.prompt = i / M, .sample = i % M};
    generate(&d->g, &d->s, d->prompts, r, to - from);
    if (reward) judge(reward, a, d->prompts, r, to - from);
    return r;
}

static void write_response(FILE *f, const Tokenizer *t, const Prompt *p, const Response *r, bool rewarded)
{
    char *text = response_text(t, r);
    text = utf8_mend(text); // cut inside a character; the ids say exactly what was sampled
    json_t *j = json_make("{s:s, s:s}", "prompt", p->text, "response", text), *ids = json_array();
    for (size_t k = 0; k < r->n; k++) json_array_append_new(ids, json_integer(r->ids[k]));
    json_object_set_new(j, "ids", ids);
    json_object_set_new(j, "logp", json_number(response_logp(r), "a response's log-probability",
        WEIGHTS_OR_TEMPERATURE));
    if (rewarded) json_object_set_new(j, "reward", json_number(r->reward, "a response's reward",
        "look at --reward and its scale"));
    json_object_set_new(j, "finished", json_boolean(r->finished));
    char *line = json_text(j, JSON_COMPACT | JSON_REAL_PRECISION(9));
    fprintf(f, "%s\n", line);
    free(line); free(text);
    json_decref(j);
}

static void sample_run(const Args *a, bool bon)
{
    Drawing d;
    Reward reward;
    size_t M = (size_t)(bon ? a->n : a->samples);
    AsideFile *out = a->out ? out_file(a) : NULL;
    drawing_open(&d, a, a->model, bon ? STREAM_BON : STREAM_SAMPLE);
    checked_product(bon ? "--n for all prompts" : "--samples for all prompts", d.n, M);
    if (bon) open_reward(&reward, a, d.t);
    size_t step = d.rows / M ? d.rows / M : 1;
    Progress p = progress_begin(bon ? "bon" : "sample", d.n, 0, "prompts");
    for (size_t i = 0; i < d.n; i += step) {
        size_t end = i + step < d.n ? i + step : d.n;
        Response *r = draw(&d, bon ? &reward : NULL, a, M, i * M, end * M);
        for (size_t q = i; q < end; q++) {
            Response *mine = r + (q - i) * M;
            for (size_t k = 0; k < (bon ? 1 : M); k++) write_response(out ? out->f : stdout, d.t, &d.prompts[q], &mine[bon ? best_of(mine, M) : k], bon);
        }
        for (size_t k = 0; k < (end - i) * M; k++) response_free(&r[k]);
        free(r);
        file_flush(out ? out->f : stdout, out ? a->out : "standard output", false);
        progress_show(&p, end, NULL);
    }
    if (bon) reward_close(&reward);
    if (out) aside_commit(out);
    drawing_close(&d);
}

static void cmd_sample(const Args *a) { sample_run(a, false); }
static void cmd_bon(const Args *a) { sample_run(a, true); }

static void cmd_cache(const Args *a)
{
    Drawing d;
    Reward reward;
    size_t M = (size_t)a->samples;
    Append file;
    append_open(&file, require(a->out, "out"));
    drawing_open(&d, a, a->model, STREAM_CACHE);
    open_reward(&reward, a, d.t);
    uint64_t prompts = 0;
    for (size_t i = 0; i < d.n; i++) prompts = mix64(prompts ^ order_key(d.prompts[i].ids, d.prompts[i].n));
    char *model = format("%016llx", (unsigned long long)model_fingerprint(&d.m)), *tok = format("%016llx", (unsigned long long)tokenizer_fingerprint(d.t)), *ps = format("%016llx", (unsigned long long)prompts);
    size_t total = checked_product("--samples for all prompts", d.n, M);
    json_t *header = json_make("{s:i, s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:I, s:I, s:I, s:I}", "vbon_cache", 1, "model", model, "tokenizer", tok, "reward", reward.what, "prompts", ps,
                               "missing_eos", a->missing_eos, "precision", precisions[a->precision].name, "temperature", json_number(a->temperature, "--temperature", "choose another"), "max_new", (json_int_t)a->max_new, "seed", (json_int_t)a->seed,
                               "samples", (json_int_t)M, "total", (json_int_t)total);
    if (a->device != DEVICE_CPU) json_object_set_new(header, "device", json_make("s", devices[a->device].name)); // "auto" is bf16 there
    size_t done = cache_resume(&file, header, d.prompts, d.n, M);
    if (done) printf("%s: %zu of %zu samples are there already\n", a->out, done, total);
    if (done && done < total) { // of two rewards' numbers no later look at a few would be sure to tell
        Cache begun;
        cache_read_begun(&begun, a->out);
        check_reward(&begun, a->out, a, &reward, d.t);
        cache_free(&begun);
    }
    stop_on_signals();
    Progress p = progress_begin("cache", total, done, "samples");
    while (done < total && !stop_signal) {
        size_t begin = done / d.rows * d.rows, end = begin + d.rows < total ? begin + d.rows : total; // always the same blocks, so the same last digits
        Response *r = draw(&d, &reward, a, M, begin, end);
        char *block;
        size_t bytes;
        FILE *f = open_memstream(&block, &bytes);
        if (!f) die("out of memory");
        char *h = json_text(header, JSON_COMPACT); // written with the first samples: a start that fails leaves none
        if (!done) fprintf(f, "%s\n", h);
        free(h);
        for (size_t i = 0; i < done - begin; i++) response_free(&r[i]);
        for (size_t i = done - begin; i < end - begin; i++) {
            char *text = response_text(d.t, &r[i]);
            text = utf8_mend(text);
            CacheSample s = {.text = text, .ids = r[i].ids, .n_ids = r[i].n, .reward = r[i].reward, .logp = response_logp(&r[i]), .has_logp = true,
                .draw = (long)r[i].sample, .key = r[i].key, .has_key = true, .finished = r[i].finished};
            cache_write(f, d.prompts[r[i].prompt].text, &s);
            free(text);
            response_free(&r[i]);
        }
        free(r);
        done = end;
        file_flush(f, a->out, false);
        append_write(&file, block, bytes);
        fclose(f);
        free(block);
        progress_show(&p, done, NULL);
    }
    append_close(&file);
    if (done < total) { printf("stopped by signal %d; the same command goes on\n", (int)stop_signal); exit(128 + stop_signal); }
    reward_close(&reward);
    drawing_close(&d);
    json_decref(header);
    free(model); free(tok); free(ps);
}

// ----------------------------------------------------------------------------
// score

// A line's text and prompt, with the ids that were sampled where it has them: they tell what a text cannot, as an
// end-of-text token. False: it has none, and a cache's key that says that they were not its text's.
static bool score_line(const Jsonl *in, const json_t *j, const Tokenizer *t, int eos, size_t V, size_t n, Prompt *p,
                       Response *r)
{
    const char *prompt, *text;
    json_t *ids = json_object_get(j, "ids"), *key = json_object_get(j, "key");
    bool same;
    CHECK_FIELDS(in, j, response_fields);
    jsonl_text(in, j, &prompt, &text);
    CacheSample s = {.text = (char *)text, .finished = json_is_true(json_object_get(j, "finished"))};
    if (ids) s.ids = read_ids(ids, &s.n_ids);
    else if ((s.has_key = is_hex(json_string_value(key)))) s.key = read_key(key);
    *p = (Prompt){.text = xstrdup(prompt ? prompt : ""), .where = format("%s:%zu", in->path, in->line)};
    p->ids = tokenizer_encode(t, p->text, strlen(p->text), &p->n);
    *r = (Response){.prompt = n};
    r->ids = sample_ids(&s, t, &r->n, &same);
    free(s.ids);
    r->finished = r->n && r->ids[r->n - 1] == eos;
    for (size_t i = 0; ids && i < r->n; i++) if ((size_t)r->ids[i] >= V)
        die("%s: \"ids\" holds %d, the model knows %zu tokens: leave \"ids\" out to score the text", p->where,
        r->ids[i], V);
    if (!r->n) die("%s: no text to score", p->where);
    // the text may show an end-of-text token
    char *said = utf8_mend(response_text(t, r)), *whole = utf8_mend(tokenizer_decode(t, r->ids, r->n, NULL));
    if (ids && strcmp(said, text) && strcmp(whole, text))
        die("%s: \"ids\" are not this tokenizer's for the text: leave \"ids\" out to score the text", p->where);
    free(said); free(whole);
    return same;
}

static void cmd_score(const Args *a)
{
    require(a->in, "in");
    require(a->out, "out");
    AsideFile *out = out_file(a);
    Model m;
    Tokenizer *t = model_load_as(&m, device_ops(a), require(a->model, "model"), "model", false, TRAIN_NONE, false);
    Reward reward;
    int eos = tokenizer_end(t, a->reward != NULL); // for the text, which a reward gets without its end
    if (a->reward) open_reward(&reward, a, t);
    Pass pass = {0};
    size_t room = 0; // as many tokens as the longest text so far: the context may be any number where positions are rotary
    Jsonl in;
    jsonl_open(&in, a->in);
    enum { BLOCK = 256 };
    json_t *record[BLOCK];
    char *line[BLOCK]; // as it was read
    Prompt p[BLOCK];
    Response r[BLOCK];
    Sequence q;
    double *logp = NULL;
    size_t retokenised = 0;
    for (bool more = true; more;) {
        size_t n = 0, tokens = (size_t)a->micro_tokens;
        while (n < BLOCK && (more = jsonl_next(&in, &record[n]))) {
            if (jsonl_header(record[n])) { printf("%s:%zu: a cache's header is not copied: what is written is no cache of its reward\n", a->in, in.line); json_decref(record[n]); continue; }
            retokenised += !score_line(&in, record[n], t, eos, m.cfg.V, n, &p[n], &r[n]);
            if (p[n].n + r[n].n > m.cfg.max_T)
                die("%s: %zu tokens; the model's own context is %zu: shorten the text", p[n].where, p[n].n + r[n].n,
                m.cfg.max_T);
            if (p[n].n + r[n].n > tokens) tokens = p[n].n + r[n].n;
            line[n] = format("%.*s", (int)in.length, in.text);
            n++;
        }
        if (!n) break;
        if (tokens > room) {
            pass_free(&pass);
            pass_create(&pass, &m, tokens, false);
            logp = (double *)xrealloc(logp, tokens * sizeof *logp);
            room = tokens;
        }
        file_flush(out->f, a->out, false);
        if (a->reward) reward_score(&reward, p, r, n, false);
        for (size_t i = 0; i < n; i++) {
            q = sequence_of(&p[i], &r[i]); // of a text without a prompt the first token has nothing to be predicted from
            json_t *lps = json_array();
            double sum = 0;
            size_t count = sequence_states(&q);
            if (count) sequence_logps(&pass, &m.p, &q, 1, a->temperature, logp, NULL);
            char *what = format("%s: the log-probability of a token", p[i].where);
            for (size_t k = 0; k < count; k++) { json_array_append_new(lps, json_number(logp[k], what,
                WEIGHTS_OR_TEMPERATURE)); sum += logp[k]; }
            json_t *ids = json_array();
            for (size_t k = 0; k < r[i].n; k++) json_array_append_new(ids, json_integer(r[i].ids[k]));
            json_t *ours = json_make("{s:o, s:o, s:o}", "tokens", ids, "logps", lps, "logp", json_number(sum, what,
                WEIGHTS_OR_TEMPERATURE));
            if (a->reward) json_object_set_new(ours, "reward", json_number(r[i].reward, "a reward",
                "look at --reward and its scale"));
            const char *key;
            json_t *v;
            // before: ours replace those; a line that was not is copied as it is, to the last digit
            bool scored = false;
            json_object_foreach(ours, key, v) scored |= !json_object_del(record[i], key);
            json_t *exact = scored ? json_loads(line[i], 0, NULL) : NULL;
            if (scored && !exact)
                die("%s: was scored before and has an integer of more than 64 bits: leave \"tokens\", \"logps\", \"logp\" and \"reward\" out", p[i].where);
            json_decref(exact);
            char *theirs = scored ? json_text(record[i], JSON_COMPACT | JSON_REAL_PRECISION(17)) : xstrdup(line[i]),
                *more_fields = json_text(ours, JSON_COMPACT | JSON_REAL_PRECISION(9));
            fprintf(out->f, "%.*s,%s\n", (int)strlen(theirs) - 1, theirs, more_fields + 1);
            free(theirs); free(more_fields); free(line[i]); free(what);
            json_decref(ours); json_decref(record[i]);
            free(p[i].text); free(p[i].ids); free(p[i].where);
            response_free(&r[i]);
        }
    }
    jsonl_close(&in);
    if (retokenised)
        printf("%s: %zu texts encode to other tokens than were sampled, and are scored as texts\n", a->in, retokenised);
    if (a->reward) reward_close(&reward);
    aside_commit(out);
    pass_free(&pass);
    model_free(&m); tokenizer_free(t);
    free(logp);
}

// ----------------------------------------------------------------------------
// train

static void ppo_options(PpoOptions *o, const Args *a)
{
    *o = (PpoOptions){.temperature = a->temperature, .clip = a->clip, .value_clip = a->value_clip, .vf_coef = a->vf_coef, .gamma = a->gamma, .lambda = a->lambda,
        .score_clip = a->score_clip, .lr = a->lr, .episodes = a->episodes, .rollout = a->rollout, .minibatch = a->minibatch, .epochs = a->ppo_epochs, .max_new = a->max_new,
        .warmup = a->warmup, .schedule = &schedules[a->schedule], .tokens = (size_t)a->micro_tokens, .rows = decode_rows(a, 0), .seed = (uint64_t)a->seed,
        .fhat = &fhats[a->fhat], .critic = &critics[a->critic], .objective.row = &objectives[a->objective],
        .adamw = adamw(a)};
    // the strength is n or beta: what the command line says, or what the objective takes, undoes the other one of a preset
    int n = flag_given("n"), beta = flag_given("beta"), takes = o->objective.row->takes;
    if (n == 1 && (beta == 2 || !(takes & TAKES_N))) n = 0;
    if (beta == 1 && (n == 2 || !(takes & TAKES_BETA))) beta = 0;
    o->objective.beta = beta ? a->beta : 0;
    o->objective.N = n || (!beta && takes & TAKES_N) ? a->n : 0;
    for (const char *c = a->compat; *c;) {
        size_t len = strcspn(c, ",");
        if (len == 5 && !strncmp(c, "scale", 5)) o->objective.compat_scale = true;
        else if (len == 6 && !strncmp(c, "jointp", 6)) o->joint_p = true;
        else usage("--compat %s: scale, jointp, or both with a comma", a->compat);
        c += len + (c[len] == ',');
    }
    missing_eos(a, &o->has_missing_eos, &o->missing_eos);
    if (o->critic->prefixes && o->fhat->exact) usage("--critic prefix-rank ranks prefixes among cached samples: it does not go with --fhat exact");
}

static void train_step(Run *r)
{
    Ppo *p = (Ppo *)r->context;
    p->iteration = r->done;
    ppo_iteration(p);
}

static size_t train_record(Run *r, Metric *x)
{
    const Ppo *p = (const Ppo *)r->context;
    memcpy(x, p->metrics, p->n_metrics * sizeof *x);
    return p->n_metrics;
}

static void cmd_train(const Args *a)
{
    static const char *const shown[] = {"objective/scores", "objective/kl", "vbon/distance", "vbon/logF", "policy/clipfrac_avg", "val/explained_variance", "lr", NULL};
    PpoOptions opt;
    ppo_options(&opt, a);
    require(a->model, "model"); require(a->reward, "reward");
    bool cached = opt.objective.row->cached || opt.critic->prefixes || a->cache;
    if (cached) require(a->cache, "cache");
    Run r;
    if (!run_open(&r, a, "train")) return;
    Model m;
    Tokenizer *t = model_load_as(&m, device_ops(a), a->model, "model", false, train_layers(a), opt.critic->value_head);
    if (opt.critic->value_head) value_head_random(&m, (uint64_t)a->seed);
    opt.eos = tokenizer_eos(t);
    Reward reward;
    open_reward(&reward, a, t);
    if (opt.critic->prefixes) reward_prefixes(&reward, m.cfg.V);
    size_t n;
    Prompt *prompts = prompts_load(a, t, m.cfg.max_T, &n, false);
    Cdf *cdf = cached ? cdfs_load(prompts, n, a, &m, t, &reward) : NULL;
    size_t least = SIZE_MAX;
    for (size_t i = 0; i < n && cached; i++) if (cdf[i].M < least) least = cdf[i].M;
    double N = opt.objective.N > 0 ? (double)opt.objective.N : opt.objective.row->cached ? 1 / opt.objective.beta + 1 : 1;
    if (cached && N > (double)least && !opt.fhat->exact)
        printf("warning: N = %g is larger than M = %zu: every response above the best cached sample gets the same score\n", N, least);
    Ppo p;
    ppo_create(&p, &opt, &m, prompts, cdf, n, reward_score, &reward); // the reference is the model as loaded
    p.clock = clock_seconds;
    double MiB[] = {(double)m.params.high, (double)m.optim.high, (double)p.ref_arena.high, (double)p.work.high};
    for (int i = 0; i < 4; i++) MiB[i] /= 1048576;
    printf("memory: weights %.1f, gradients and moments %.1f, reference %.1f, work %.1f MiB, and the packed weights (vbon info has the pieces)\n", MiB[0], MiB[1], MiB[2], MiB[3]);
    long iterations = (opt.episodes + opt.rollout - 1) / opt.rollout;
    printf("%zu parameters, %zu train; %zu prompts; %ld iterations of %ld episodes\n", m.n_params, m.n_params - m.first, n, iterations, opt.rollout);
    r.m = &m; r.context = &p; r.tokenizer_dir = a->model; r.steps = iterations; r.unit = "iterations";
    r.state[0] = (State){"critic", p.critic, (size_t)opt.max_new * opt.critic->state};
    r.n_state = opt.critic->state ? 1 : 0;
    r.step = train_step; r.record = train_record; r.shown = shown;
    run_steps(&r);
    reward_close(&reward);
    printf("seconds: rollouts %.1f, rewards %.1f, updates %.1f\n", p.seconds_rollout, p.seconds_reward, p.seconds_update);
    ppo_free(&p); prompts_free(prompts, n); cdfs_free(cdf, n); model_free(&m); tokenizer_free(t);
}

// ----------------------------------------------------------------------------
// eval

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
static size_t parse_ns(const char *text, long *ns) { return parse_counts("ns", text, ns, MAX_NS); }

// Of the evaluation: null is not measured, or beyond the largest double, as exp(log ref - log pi) may be; the table
// says which.
static json_t *number_json(double x) { return isfinite(x) ? json_number(x, "", "") : json_null(); }
static json_t *estimate_json(Estimate e) { return json_make("[o,o]", number_json(e.mean), number_json(e.se)); }
static void estimate_line(const char *what, Estimate e)
{
    if (isnan(e.mean)) return; // not measured
    if (isinf(e.mean)) printf("  %-44s too large for a number\n", what);
    else if (isnan(e.se)) printf("  %-44s %9.4f (no error: one prompt)\n", what, e.mean);
    else printf("  %-44s %9.4f +- %.4f\n", what, e.mean, e.se);
}

// Of each prompt's draws in the cache `path`, K times N in a row, the best of N by the rewards that stand there: K responses a prompt, rewards not set.
static void pool_choose(Response *out, const char *path, const Prompt *prompts, size_t n, size_t K, size_t N, const Args *a, const Model *reference, const Tokenizer *t)
{
    Cache c;
    cache_read(&c, path, 0);
    check_cache(&c, path, a, reference, t);
    check_header(c.header, path, "missing_eos", a->missing_eos, "--missing-eos");
    Response *draws = (Response *)xmalloc(N * sizeof *draws);
    for (size_t i = 0; i < n; i++) {
        long at = cache_find(&c, prompts[i].text);
        if (at < 0) die("%s: has no samples for prompt %zu, \"%.40s\": make the pool with these prompts", path, i + 1, prompts[i].text);
        const CachePrompt *pool = &c.prompts[at];
        if (pool->n < K * N) die("%s: prompt \"%.40s\" has %zu draws, --samples %zu with --n %zu need %zu: draw more", path, prompts[i].text, pool->n, K, N, K * N);
        for (size_t k = 0; k < K; k++) {
            for (size_t s = k * N; s < (k + 1) * N; s++) {
                const CacheSample *x = &pool->samples[s];
                if (!x->ids || !x->n_ids)
                    die("%s: draw %zu of prompt \"%.40s\" has no ids: a pool is what vbon cache writes", path, s, prompts[i].text);
                draws[s - k * N] = (Response){.prompt = i, .sample = s, .ids = x->ids, .n = x->n_ids, .finished = x->ids[x->n_ids - 1] == tokenizer_eos(t),
                    .reward = x->reward, .key = order_key(x->ids, x->n_ids)};
            }
            Response *best = &out[i * K + k];
            *best = draws[best_of(draws, N)];
            best->reward = 0; // the judge's is not known yet
            best->ids = (int *)memcpy(xmalloc(best->n * sizeof(int)), best->ids, best->n * sizeof(int));
        }
    }
    free(draws);
    cache_free(&c);
}

static void cmd_eval(const Args *a)
{
    const char *reference = require(a->reference, "reference");
    bool bon = a->method == METHOD_BON;
    const char *policy = bon ? reference : require(a->model, "model");
    size_t K = (size_t)a->samples, N = bon ? (size_t)a->n : 1;
    require(a->cache, "cache");
    if (a->pool && !bon) usage("--pool is what --method bon chooses from");
    AsideFile *file = a->out ? out_file(a) : NULL;
    Drawing d;
    drawing_open(&d, a, policy, STREAM_EVAL);
    Model ref;
    Tokenizer *ref_t = model_load_as(&ref, device_ops(a), reference, "reference", false, TRAIN_NONE, false);
    tokenizers_check(d.t, policy, ref_t, reference);
    tokenizer_free(ref_t);
    if (ref.cfg.V != d.m.cfg.V)
        die("%s and %s have vocabularies of %zu and %zu ids: log-probabilities over them cannot be compared", policy,
            reference, d.m.cfg.V, ref.cfg.V);
    Reward reward;
    open_reward(&reward, a, d.t);
    Cdf *cdf = cdfs_load(d.prompts, d.n, a, &ref, d.t, &reward);
    // of Best-of-N no log-probabilities: they are not the reference's, and only the bound on its KL is known
    EvalSpec spec = {.policy = bon ? NULL : &d.m, .reference = &ref, .temperature = a->temperature,
                     .tokens = (size_t)a->micro_tokens};
    spec.n_ns = parse_ns(a->ns, spec.ns);
    checked_product("--samples times --n for all prompts", d.n, checked_product("--samples times --n", K, N)); // the largest
    Response *kept = (Response *)xcalloc(d.n * K, sizeof *kept);
    double began = clock_seconds(), tokens = 0;
    size_t group = d.rows > K * N ? d.rows / (K * N) : 1;
    if (a->pool) {
        pool_choose(kept, a->pool, d.prompts, d.n, K, N, a, &ref, d.t);
        judge(&reward, a, d.prompts, kept, d.n * K);
    }
    Progress progress = progress_begin("eval", d.n, a->pool ? d.n : 0, "prompts");
    for (size_t i = 0; i < d.n && !a->pool; i += group) { // K responses a prompt, each the best of N
        size_t end = i + group < d.n ? i + group : d.n;
        Response *r = draw(&d, &reward, a, K * N, i * K * N, end * K * N);
        for (size_t k = 0; k < (end - i) * K; k++) {
            Response *best = &r[k * N + best_of(r + k * N, N)];
            kept[i * K + k] = *best;
            tokens += (double)best->n;
            best->ids = NULL; best->logp = NULL; best->prefix = NULL;
        }
        for (size_t k = 0; k < (end - i) * K * N; k++) response_free(&r[k]);
        free(r);
        progress_show(&progress, end, NULL);
    }
    Evaluation e;
    double seconds = clock_seconds() - began;
    reward_close(&reward);
    for (size_t k = 0; k < d.n * K; k++) { // a sequence is never split
        size_t both = d.prompts[kept[k].prompt].n + kept[k].n;
        if (both > spec.tokens) spec.tokens = both;
    }
    evaluate(&e, &spec, d.prompts, cdf, kept, d.n * K, K);
    json_t *j = json_make("{s:s, s:s, s:I, s:I, s:I, s:I}", "method", methods[a->method].name, "model", policy, "n", (json_int_t)N, "prompts", (json_int_t)d.n,
                          "samples", (json_int_t)K, "seed", (json_int_t)a->seed), *distances = json_object();
    struct { const char *key; Estimate e; } out[] = {{"reward", e.reward}, {"win_rate", e.win}, {"win_rate_released", e.win_released}, {"kl_k1", e.k1}, {"kl_k3", e.k3}, {"kl_rb", e.rb},
        {"kl_released", e.released}, {"length", e.length}, {"finished", e.finished}};
    for (size_t i = 0; i < sizeof out / sizeof *out; i++) json_object_set_new(j, out[i].key, estimate_json(out[i].e));
    for (size_t v = 0; v < spec.n_ns; v++) {
        char key[24];
        snprintf(key, sizeof key, "%ld", spec.ns[v]);
        json_object_set_new(distances, key, estimate_json(e.distance[v]));
    }
    Estimate cached = bon ? best_of_cached(cdf, d.n, (long)N) : (Estimate){NAN, NAN};
    if (bon) json_object_set_new(j, "reward_by_cache", estimate_json(cached));
    if (bon) json_object_set_new(j, "kl_bound", json_number(bon_kl_bound((long)N), "the bound on the KL", "lower --n"));
    json_object_set_new(j, "distance", distances);
    json_object_set_new(j, "reference_reward", json_number(e.reference_reward, "the cache's mean reward",
        "look at its rewards"));
    json_object_set_new(j, "time/tokens_per_second", number_json(a->pool ? NAN : tokens / seconds)); // from a pool nothing was drawn
    printf("%zu prompts, %zu responses each; the cache's mean reward is %.4f\n", d.n, K, e.reference_reward);
    estimate_line("mean reward", e.reward);
    estimate_line("mean reward of Best-of-N, by the cache", cached);
    estimate_line("win rate (all cached samples)", e.win);
    estimate_line("win rate (released form: one, ties lose)", e.win_released);
    if (bon) printf("  %-44s %9.4f\n", "KL to the reference: at most", bon_kl_bound((long)N));
    else { estimate_line("KL to the reference, k1", e.k1); estimate_line("KL, k3", e.k3);
        estimate_line("KL, Rao-Blackwellised", e.rb); estimate_line("KL, released form (k3, prompt included)",
        e.released); }
    for (size_t v = 0; v < spec.n_ns; v++) {
        char what[64];
        snprintf(what, sizeof what, "distance to Best-of-%ld (nats)", spec.ns[v]);
        estimate_line(what, e.distance[v]);
    }
    estimate_line("response length", e.length);
    estimate_line("share finished", e.finished);
    if (!a->pool) printf("  %-44s %9.0f\n", bon ? "delivered tokens/s, N samples and rewards each" : "delivered tokens/s, rewards included", tokens / seconds);
    if (file) { // last: should it not be written now, the numbers stand above
        char *text = json_text(j, JSON_COMPACT | JSON_REAL_PRECISION(9));
        fprintf(file->f, "%s\n", text);
        aside_commit(file);
        free(text);
    }
    json_decref(j);
    for (size_t k = 0; k < d.n * K; k++) response_free(&kept[k]);
    free(kept);
    cdfs_free(cdf, d.n);
    model_free(&ref);
    drawing_close(&d);
}

#include "baselines.h"
#include "info.h"
#include "ks.h"

static const Command commands[] = {
    {"sft", cmd_sft, "train a language model from scratch, or fine-tune one, on JSONL text", "vbon sft --tokenizer dev/demo/tokenizer --data train.jsonl --held-out test.jsonl --layers 4 --width 128 --lr 3e-3 --out runs/lm"},
    {"reward", cmd_reward, "train a reward model on labels or on preference pairs", "vbon reward --init runs/lm --layers 3 --context 64 --data train.jsonl --held-out test.jsonl --lr 1e-3 --out runs/rm"},
    {"sample", cmd_sample, "draw responses", "vbon sample --model dev/demo/lm --prompt \"This film\" --samples 3"},
    {"bon", cmd_bon, "Best-of-N at inference", "vbon bon --model dev/demo/lm --reward dev/demo/rm --prompts dev/demo/prompts_test.jsonl --n 16 --max-new 24 --out bon.jsonl"},
    {"score", cmd_score, "log-probabilities and rewards of given texts", "vbon score --model dev/demo/lm --reward dev/demo/rm --in texts.jsonl --out scored.jsonl"},
    {"cache", cmd_cache, "sample the reference and its rewards: what F-hat is made from", "vbon cache --model dev/demo/lm --reward dev/demo/rm --prompts dev/demo/prompts.jsonl --samples 32 --max-new 24 --out cache.jsonl"},
    {"train", cmd_train, "PPO: vBoN (exact, or the bounds L and L1), or KL-regularised reward", "vbon train --model dev/demo/lm --reward dev/demo/rm --cache cache.jsonl --n 16 --max-new 24 --lr 6e-4 --out runs/vbon16"},
    {"offline", cmd_offline, "the baselines that learn from the cache or from preferences alone: DPO, IPO, BoNBoN, supervised training on the best of N", "vbon offline --model dev/demo/lm --cache cache.jsonl --loss bonbon --n 16 --lr 1e-4 --out runs/bonbon16"},
    {"eval", cmd_eval, "KL, distance to Best-of-N, win rate and reward on held-out prompts", "vbon eval --model runs/vbon16 --reference dev/demo/lm --reward dev/demo/rm --cache cache_test.jsonl --ns 4,16 --samples 8 --max-new 24"},
    {"ks", cmd_ks, "do M samples a prompt suffice? Kolmogorov-Smirnov tests and the error of log F-hat, by M",
     "vbon ks --cache cache_test.jsonl --ms 5,20,50 --curves auto --out ks.json"},
    {"info", cmd_info, "a model's configuration, parameters and memory plan", "vbon info --model dev/demo/lm --memory 1GB"},
};
static const size_t n_commands = sizeof commands / sizeof *commands;
#endif
