// fuzz.c: what the fuzzer feeds, and what must hold when the engine does not refuse it. One program; FUZZ_TARGET names
// a target of the table at the end. harness.h explains how an input becomes files. Only what the headers of lib/
// declare is called, so that a reader may change inside.
#include "harness.h"

static Tokenizer *demo, *neox;
static WordPiece *bert;
static void load_tokenizers(void)
{
    demo = tokenizer_load("dev/demo/tokenizer");
    neox = tokenizer_load("dev/fixtures/neox");
    bert = wordpiece_load("dev/fixtures/distilbert");
}

// ----------------------------------------------------------------------------
// safetensors: each tensor can be read to its last byte, weights are finite, and what is written again reads the same

static void run_safetensors(const Part *part)
{
    Safetensors *s = safetensors_open(path(part->n ? "raw" : "f"));
    size_t n = safetensors_count(s);
    Tensor *list = (Tensor *)xmalloc((n + 1) * sizeof *list);
    bool writable = n > 0;
    for (size_t i = 0; i < n; i++) {
        const Tensor *t = safetensors_at(s, i);
        size_t elements = 1;
        for (int d = 0; d < t->rank; d++) elements *= t->shape[d];
        MUST(elements == t->n && safetensors_find(s, t->name) == t);
        volatile uint8_t sum = 0;
        size_t bytes = t->n * dtype_size(t->type);
        uint8_t *data = (uint8_t *)xmalloc(bytes + 1);
        tensor_read(data, t, "f");
        for (size_t k = 0; k < bytes; k++) sum ^= data[k];
        (void)sum;
        list[i] = *t;
        list[i].data = data;
        writable &= t->type != DT_U8;
    }
    (void)safetensors_meta(s, "format");
    if (writable) {
        safetensors_write(path("again.safetensors"), list, n, NULL, NULL, NULL);
        Safetensors *u = safetensors_open(path("again.safetensors"));
        MUST(safetensors_count(u) == n);
        for (size_t i = 0; i < n; i++) {
            const Tensor *a = &list[i], *b = safetensors_find(u, a->name);
            MUST(b && b->type == a->type && b->rank == a->rank && b->n == a->n);
            MUST(!memcmp(b->shape, a->shape, (size_t)a->rank * sizeof *a->shape));
            uint8_t *again = (uint8_t *)xmalloc(a->n * dtype_size(a->type) + 1);
            tensor_read(again, b, "again");
            MUST(!memcmp(again, a->data, a->n * dtype_size(a->type)));
        }
        safetensors_close(u);
    }
    for (size_t i = 0; i < n; i++) {
        const Tensor *t = safetensors_at(s, i);
        size_t half = t->n / 2;
        real *x = (real *)xmalloc((t->n + 1) * sizeof *x);
        tensor_to_real(x, t, 0, half, "x");
        tensor_to_real(x + half, t, half, t->n - half, "x");
        for (size_t k = 0; k < t->n; k++) MUST(isfinite(x[k]));
    }
    safetensors_close(s);
}

// ----------------------------------------------------------------------------
// config: a folder's sizes can be planned; a small model's weights are read, written and read again to the same
// fingerprint

static void run_config(const Part *part)
{
    char *dir = path("m"), *again = path("again");
    Model m, u;
    if (is_distilbert(dir)) {
        DistilBert d;
        distilbert_load(&d, ops_cpu(), dir, 64, true);
        if (part[1].n) model_fill(&d.m, dir);
        return;
    }
    Config c;
    config_read(&c, dir);
    MUST(c.C && c.L && c.NH && c.V && c.max_T && c.F && c.C % c.NH == 0);
    model_create(&m, ops_cpu(), &c, TRAIN_ALL, true, true);
    size_t params = m.n_params;
    MUST((double)params < 2e12);
    if (part[1].n) model_fill(&m, dir);
    model_free(&m);
    char *argv[] = {"--model", dir, "--memory", "1GB"};
    static Args a;
    memset(&a, 0, sizeof a);
    flags_parse(&a, flag_table, n_flags, "info", 4, argv, preset_flags);
    for (size_t i = 0; i < n_commands; i++) if (!strcmp(commands[i].name, "info")) commands[i].run(&a);
    if (params > 100000 || !part[1].n) return;
    model_create(&m, ops_cpu(), &c, TRAIN_NONE, false, false);
    model_fill(&m, dir);
    uint64_t fingerprint = model_fingerprint(&m);
    empty_folder("again");
    model_save(&m, again, DT_F64, NULL, 0);
    config_read(&c, again);
    model_create(&u, ops_cpu(), &c, TRAIN_NONE, false, false);
    model_fill(&u, again);
    MUST(model_fingerprint(&u) == fingerprint);
}

// ----------------------------------------------------------------------------
// bpe, wordpiece: a tokenizer that loads encodes any text to ids of its vocabulary

static void run_bpe(const Part *part)
{
    Tokenizer *t = tokenizer_load(path("t"));
    char *text = part_text(*part);
    size_t n, bytes;
    int vocab = tokenizer_vocab(t);
    MUST(tokenizer_eos(t) < vocab && tokenizer_fingerprint(t) == tokenizer_fingerprint(t));
    int *ids = tokenizer_encode(t, text, part->n, &n);
    if (ids) {
        for (size_t i = 0; i < n; i++) MUST(ids[i] >= 0 && ids[i] < vocab);
        char *back = tokenizer_decode(t, ids, n, &bytes);
        MUST(back[bytes] == 0);
    } else MUST(n < part->n);
    tokenizer_free(t);
}

static void run_wordpiece(const Part *part)
{
    WordPiece *w = wordpiece_load(path("t"));
    size_t limit = part[0].n ? 2 + part[0].p[0] % 64 : 2, n, whole;
    char *text = part_text(part[1]);
    int *ids = wordpiece_encode(w, text, part[1].n, limit, &n), *all = wordpiece_encode(w, text, part[1].n, 0, &whole);
    MUST(!ids == !all);
    if (ids) {
        MUST(n >= 2 && n == (whole > limit ? limit : whole));
        MUST(ids[0] == all[0] && ids[n - 1] == all[whole - 1]); // [CLS] and [SEP] stay
        for (size_t i = 0; i < n; i++) {
            MUST(ids[i] >= 0 && ids[i] < wordpiece_vocab(w));
            MUST(i + 1 == n || ids[i] == all[i]);
        }
    } else MUST(n == whole && n < part[1].n);
    wordpiece_free(w);
}

// ----------------------------------------------------------------------------
// data: the first part says what reads the lines, and with which number

static bool same_sample(const CacheSample *a, const CacheSample *b)
{
    bool text = a->text && b->text ? !strcmp(a->text, b->text) : a->text == b->text;
    bool ids = !a->ids == !b->ids && a->n_ids == b->n_ids;
    bool key = a->has_key == b->has_key && (!a->has_key || a->key == b->key);
    bool F = a->has_F == b->has_F && (!a->has_F || a->F == b->F);
    for (size_t i = 0; ids && i < a->n_ids; i++) ids = a->ids[i] == b->ids[i];
    return text && ids && key && F && a->reward == b->reward && a->draw == b->draw && a->finished == b->finished
        && a->has_logp == b->has_logp;
}

static void cache_again(const Cache *c) // what is read is written and read the same
{
    Cache d;
    FILE *f = fopen(path("again.jsonl"), "w");
    for (size_t i = 0; i < c->n; i++)
        for (size_t k = 0; k < c->prompts[i].n; k++) {
            const CacheSample *s = &c->prompts[i].samples[k];
            if (!(s->text || s->ids)) return;
            cache_write(f, c->prompts[i].prompt, s);
        }
    fclose(f);
    cache_read(&d, path("again.jsonl"), 0);
    for (size_t i = 0; i < c->n; i++) {
        if (!c->prompts[i].n) continue;
        long at = cache_find(&d, c->prompts[i].prompt);
        MUST(at >= 0 && d.prompts[at].n == c->prompts[i].n);
        for (size_t k = 0; k < c->prompts[i].n; k++)
            MUST(same_sample(&c->prompts[i].samples[k], &d.prompts[at].samples[k]));
    }
}

static void resume_cache(const char *name, const Part *lines)
{
    json_t *header = json_make("{s:i, s:s, s:f}", "vbon_cache", 1, "model", "m", "temperature", 1.0);
    const Prompt prompts[2] = {{.text = "a"}, {.text = "b"}};
    Append file;
    append_open(&file, name);
    size_t records = cache_resume(&file, header, prompts, 2, 2), n = 0;
    append_close(&file);
    char *left = (char *)xmalloc(lines->n + 1);
    FILE *f = fopen(name, "r");
    size_t bytes = f ? fread(left, 1, lines->n + 1, f) : 0;
    for (size_t i = 0; i < bytes; i++) n += left[i] == '\n';
    MUST(bytes <= lines->n && !memcmp(left, lines->p, bytes) && records <= 4);
    MUST(records ? left[bytes - 1] == '\n' && n >= records + 1 : !bytes);
}

static void run_data(const Part *part)
{
    if (part->n < 2) return;
    char *file = path("x.jsonl");
    size_t which = part->p[0], x = part->p[1], n;
    Config cfg = {.V = 2000, .max_T = 64};
    Comparisons q;
    Cache c;
    Corpus corpus;
    switch (which % 8) {
    case 0: {
        size_t *line, repeats;
        char **prompts = prompts_read(file, &n, &line, x % 2, &repeats);
        MUST(n > 0);
        for (size_t i = 0; i < n; i++) MUST(*prompts[i]);
        break;
    }
    case 1:
        cache_read(&c, file, (long)(x % 4));
        for (size_t i = 0; i < c.n; i++) {
            const CachePrompt *p = &c.prompts[i];
            MUST(cache_find(&c, p->prompt) == (long)i);
            for (size_t k = 0; k < p->n; k++) MUST(isfinite(p->samples[k].reward));
            for (size_t k = 1; k < p->n; k++) MUST(p->samples[k - 1].draw < p->samples[k].draw);
        }
        cache_again(&c);
        cache_free(&c);
        break;
    case 2: {
        OfflineLoss o = {.kind = (OfflineKind)(x % 4), .beta = 0.1, .alpha = 0.5, .N = 1 + (long)x / 4 % 4};
        cache_read(&c, file, 0);
        comparisons_make(&q, &c, x / 16 % 3, &o, 2 + x / 32 % 3, 1 + x / 64, 1, demo, &cfg);
        for (size_t i = 0; i < arrlenu(q.list); i++) {
            MUST(q.list[i].w < arrlenu(q.responses));
            MUST(o.kind == OFFLINE_BON_SFT || q.list[i].l < arrlenu(q.responses));
        }
        comparisons_free(&q);
        break;
    }
    case 3: comparisons_read(&q, file, x % 3, demo, &cfg); comparisons_free(&q); break;
    case 4: case 5: case 6: {
        size_t context = 2 + x % 16;
        corpus_read(&corpus, (LossKind)(which % 8 - 4), file, demo, context, SIZE_MAX, x / 16, x % 3);
        MUST(arrlenu(corpus.doc_first) == corpus.n_docs + 1);
        MUST(arrlenu(corpus.rows) == corpus.n_rows && arrlenu(corpus.tokens) == corpus.n_tokens);
        for (size_t i = 0; i < corpus.n_rows; i++) {
            Row r = corpus.rows[i];
            MUST(r.len >= 1 && (size_t)r.len <= context && r.at + (size_t)r.len <= corpus.n_tokens && r.from >= 0);
        }
        corpus_free(&corpus);
        break;
    }
    default: resume_cache(file, part + 1);
    }
}

// ----------------------------------------------------------------------------
// text: real tokenizers give back what they were given; UTF-8 against RFC 3629 by hand

static size_t rfc3629(const uint8_t *s, size_t n) // the offset of the first byte that is not UTF-8, or n
{
    for (size_t i = 0, k; i < n; i += k + 1) {
        uint32_t c = s[i], least[] = {0, 0x80, 0x800, 0x10000};
        k = c < 0x80 ? 0 : c >= 0xc0 && c < 0xe0 ? 1 : c >= 0xe0 && c < 0xf0 ? 2 : c >= 0xf0 && c < 0xf8 ? 3 : 4;
        if (k == 4 || i + k >= n) return i;
        c &= k ? 0x3f >> k : 0x7f;
        for (size_t j = 1; j <= k; j++) { if ((s[i + j] & 0xc0) != 0x80) return i; c = c << 6 | (s[i + j] & 0x3f); }
        if (c < least[k] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return i;
    }
    return n;
}

static void run_text(const Part *part)
{
    char *text = part_text(*part), *mended = utf8_mend(part_text(*part));
    size_t n = part->n, good = utf8_valid(text, n), k, bytes, once_bytes, twice_bytes;
    MUST(good == rfc3629(part->p, n) && rfc3629((uint8_t *)mended, strlen(mended)) == strlen(mended));
    int *ids = tokenizer_encode(demo, text, n, &k);
    MUST(ids ? good == n : k == good);
    if (ids) {
        for (size_t i = 0; i < k; i++) MUST(ids[i] >= 0 && ids[i] < tokenizer_vocab(demo));
        char *back = tokenizer_decode(demo, ids, k, &bytes);
        char *once = nfc(text, n, &once_bytes), *twice = nfc(once, once_bytes, &twice_bytes);
        MUST(bytes == n && !memcmp(back, text, n));
        MUST(once_bytes == twice_bytes && !memcmp(once, twice, once_bytes));
        MUST(rfc3629((uint8_t *)once, once_bytes) == once_bytes);
        ids = tokenizer_encode(neox, text, n, &k); // it normalises, what is between added tokens each by itself
        back = tokenizer_decode(neox, ids, k, &bytes);
        twice = nfc(back, bytes, &twice_bytes);
        MUST(once_bytes == twice_bytes && !memcmp(once, twice, once_bytes));
    }
    ids = wordpiece_encode(bert, text, n, 64, &k);
    MUST(ids ? good == n && k >= 2 && k <= 64 : k == good);
    int *any = (int *)malloc(n + 4);
    memcpy(any, text, n);
    (void)tokenizer_decode(demo, any, n / 4, NULL);
}

// ----------------------------------------------------------------------------
// checkpoint: a run's folder whose `latest`, state or log a stranger wrote

static Config tiny = {.arch = &architectures[ARCH_GPT2], .L = 1, .C = 4, .NH = 1, .F = 4, .V = 5, .max_T = 6,
    .act = ACT_GELU_TANH, .tied = true, .pad = -1, .eps = 1e-5, .init_std = 0.02, .bos = -1, .eos = -1};
static double counter, ridge[24];
static State state[] = {{"iteration", &counter, 1}, {"ridge", ridge, 24}};
static Args training;
static Model resumed; // one for all runs: to make it anew takes longer than the rest of a run
static json_t *weights;
static void make_run(void)
{
    model_create(&resumed, ops_cpu(), &tiny, TRAIN_ALL, true, false);
    model_random(&resumed, 1);
    value_head_random(&resumed, 1);
    char *argv[] = {"--lr", "1"};
    flags_parse(&training, flag_table, n_flags, "train", 2, argv, preset_flags);
    training.out = strdup(path("out"));
    weights = json_make("{s:s}", "model", "0123456789abcdef");
    Log *log = log_open(training.out, config_record(&training, "train", json_incref(weights)), false);
    Metric x[] = {{"a", 1.5}, {"b", NAN}};
    for (long step = 1; step < 5; step += 3) log_metrics(log, "train", step, x, 2);
    log_close(log);
    checkpoint_save(&resumed, path("out"), 3, NULL, state, 2);
}

static void run_checkpoint(const Part *part)
{
    char *step = checkpoint_latest(training.out);
    if (step) checkpoint_load(&resumed, step, state, 2);
    if (!part[3].n) return;
    log_cut(training.out, 2);
    char *line = NULL;
    size_t cap = 0;
    FILE *f = fopen(path("out/log.jsonl"), "r");
    for (ssize_t n; (n = getline(&line, &cap, f)) > 0;) MUST(line[n - 1] == '\n');
    check_same_flags(&training, "train");
    check_same_weights(&training, weights);
}

// ----------------------------------------------------------------------------
// flags: the first byte is the command, then words, each ended by a NUL

static void run_flags(const Part *part)
{
    static Args a;
    if (!part->n) return;
    char *words = part_text(*part), *argv[64];
    const Command *c = &commands[part->p[0] % n_commands];
    int argc = 0;
    for (size_t at = 1; at < part->n && argc < 64; at += strlen(words + at) + 1) argv[argc++] = words + at;
    memset(&a, 0, sizeof a);
    flags_parse(&a, flag_table, n_flags, c->name, argc, argv, preset_flags);
    MUST(isfinite(a.temperature) && a.temperature > 0 && a.top_p > 0 && a.top_p <= 1 && !(a.lr < 0)); // NaN: auto
    MUST(a.n >= 0 && a.samples >= 1 && a.max_new >= 1 && a.micro_tokens >= 1 && a.threads >= 0 && a.threads <= 1024);
    for (int all = 0; all < 2; all++) flags_table(stdout, &a, flag_table, n_flags, c->name, all);
    char *text = json_dumps(flags_json(&a, flag_table, n_flags, c->name), 0);
    MUST(text);
    long ns[MAX_NS];
    PpoOptions o;
    if (a.ns) parse_ns(a.ns, ns);
    MUST(a.train_layers >= -1 && !(fabs(missing_eos(&a)) > 1e9) && !(a.alpha < 0 || a.alpha > 1));
    if (a.memory) memory_limit(&a);
    if (!strcmp(c->name, "train")) ppo_options(&o, &a);
}

// ----------------------------------------------------------------------------

const Target targets[] = {
    {"safetensors", {"raw", "f/model.safetensors", "f/model.safetensors.index.json", "f/a.safetensors",
                     "f/b.safetensors"}, NULL, run_safetensors},
    {"config", {"m/config.json", "m/model.safetensors", "m/generation_config.json"}, NULL, run_config},
    {"bpe", {"=text", "t/tokenizer.json", "t/tokenizer_config.json", "t/special_tokens_map.json", "t/vocab.json",
             "t/merges.txt", "t/added_tokens.json", "t/config.json", "t/generation_config.json"}, NULL, run_bpe},
    {"wordpiece", {"=limit", "=text", "t/vocab.txt", "t/tokenizer.json", "t/tokenizer_config.json",
                   "t/special_tokens_map.json"}, NULL, run_wordpiece},
    {"data", {"=which", "x.jsonl"}, load_tokenizers, run_data},
    {"text", {"=text"}, load_tokenizers, run_text},
    {"checkpoint", {"out/latest", "out/step-3/state.safetensors", "out/log.jsonl"}, make_run, run_checkpoint},
    {"flags", {"=words"}, NULL, run_flags},
    {0}
};
