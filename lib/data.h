// data.h: JSONL in and out: texts, prompts, the reward cache.
//
// The reward cache holds, for each prompt, M samples of the reference with their rewards: all that log F-hat needs. What we write is a header
// line (which model, tokenizer, reward, temperature, ...) and one record a sample,
//     {"prompt","text","reward","ids":[...],"logp","draw","key":"16 hex digits","finished"}
// with the prompts in order and each prompt's draws in order. Read are also the two forms of the authors' code: {"prompt","text","reward"} a
// sample, and {"prompt","responses":[...],"rewards":[...]} a prompt; they have no keys, so ties are broken by mid-rank (the second form may carry
// "keys" and "logps" and then needs no texts, or has some in "texts", by draw: dev/compact_cache.py makes it, for caches that are kept). A sample may carry "F",
// its exact CDF value, for --fhat exact. Rewards are floats, live and here, and written with nine digits: they come back exactly, so that equal is equal.
#ifndef DATA_H
#define DATA_H
#include "../gpt2.h"

typedef struct { const char *path; FILE *f; size_t line, cap; char *buffer; } Jsonl;
void jsonl_open(Jsonl *in, const char *path);
bool jsonl_next(Jsonl *in, json_t **record);       // the next non-empty line, an object the caller owns; bad JSON or UTF-8 dies with file and line
void jsonl_close(Jsonl *in);
const char *jsonl_string(const Jsonl *in, const json_t *j, const char *key, bool required);
double jsonl_number(const Jsonl *in, const json_t *j, const char *key); // finite, required

char **prompts_read(const char *path, size_t *n);  // distinct prompts in order, of {"prompt"} lines; malloc'd

typedef struct { char *text; int *ids; size_t n_ids; double reward, logp, F; uint64_t key; long draw; bool has_key, has_logp, has_F, finished; } CacheSample;
typedef struct { char *prompt; CacheSample *samples; size_t n; } CachePrompt; // in draw order
typedef struct { CachePrompt *prompts; size_t n; json_t *header; struct { char *key; size_t value; } *index; } Cache;
void cache_read(Cache *c, const char *path, long first_m); // first_m > 0: only the first so many drawn for each prompt; dies with file and line
void cache_free(Cache *c);
long cache_find(const Cache *c, const char *prompt);       // -1: not there
// One record as a line; ids may be NULL.
void cache_write(FILE *f, const char *prompt, const CacheSample *s);
// How many whole sample records `path` has, after cutting a torn last line; 0 when there is no file. Dies when its header differs from `header`.
size_t cache_resume(const char *path, const json_t *header);
#endif

#if defined(VBON_IMPLEMENTATION) && !defined(DATA_IMPLEMENTED)
#define DATA_IMPLEMENTED
#include "files.h"

void jsonl_open(Jsonl *in, const char *path)
{
    *in = (Jsonl){.path = path, .f = fopen(path, "r")};
    if (!in->f || is_folder(path)) die("%s: cannot be read: %s", path, in->f ? "it is a folder" : strerror(errno));
}

bool jsonl_next(Jsonl *in, json_t **record)
{
    for (ssize_t n; (n = getline(&in->buffer, &in->cap, in->f)) > 0;) {
        in->line++;
        if (strspn(in->buffer, " \t\r\n") == (size_t)n) continue;
        size_t bad = utf8_valid(in->buffer, (size_t)n);
        if (bad < (size_t)n) die("%s:%zu: byte %zu is not UTF-8: convert the file", in->path, in->line, bad + 1);
        json_error_t e;
        *record = json_loadb(in->buffer, (size_t)n, JSON_REJECT_DUPLICATES, &e);
        if (!*record) die("%s:%zu: %s (column %d)", in->path, in->line, e.text, e.column);
        if (!json_is_object(*record)) die("%s:%zu: not a JSON object", in->path, in->line);
        return true;
    }
    if (ferror(in->f)) die("%s: cannot be read: %s", in->path, strerror(errno));
    return false;
}

void jsonl_close(Jsonl *in) { fclose(in->f); free(in->buffer); }

const char *jsonl_string(const Jsonl *in, const json_t *j, const char *key, bool required)
{
    json_t *v = json_object_get(j, key);
    if (!v && !required) return NULL;
    if (!json_is_string(v)) die("%s:%zu: \"%s\" is missing or no string", in->path, in->line, key);
    return json_string_value(v);
}

double jsonl_number(const Jsonl *in, const json_t *j, const char *key)
{
    json_t *v = json_object_get(j, key);
    if (!json_is_number(v)) die("%s:%zu: \"%s\" is missing or no finite number", in->path, in->line, key);
    return json_number_value(v);
}

char **prompts_read(const char *path, size_t *n)
{
    Jsonl in;
    json_t *j;
    char **out = NULL;
    struct { char *key; int value; } *seen = NULL;
    sh_new_strdup(seen);
    jsonl_open(&in, path);
    while (jsonl_next(&in, &j)) {
        if (!json_object_get(j, "vbon_cache")) {
            const char *s = jsonl_string(&in, j, "prompt", true);
            if (!*s) die("%s:%zu: an empty prompt: the model needs a token to go on from", path, in.line);
            if (shgeti(seen, s) < 0) { shput(seen, s, 1); arrput(out, xstrdup(s)); }
        }
        json_decref(j);
    }
    jsonl_close(&in);
    shfree(seen);
    *n = arrlenu(out);
    if (!*n) die("%s: no prompts", path);
    char **list = (char **)xmalloc(*n * sizeof *list);
    memcpy(list, out, *n * sizeof *list);
    arrfree(out);
    return list;
}

// ----------------------------------------------------------------------------
// the reward cache

static CachePrompt *cache_prompt(Cache *c, const char *prompt)
{
    ptrdiff_t i = shgeti(c->index, prompt);
    if (i >= 0) return &c->prompts[c->index[i].value];
    shput(c->index, prompt, c->n);
    arrput(c->prompts, ((CachePrompt){.prompt = xstrdup(prompt)}));
    c->n++;
    return &c->prompts[c->n - 1];
}

long cache_find(const Cache *c, const char *prompt)
{
    Cache *w = (Cache *)c; // looking up writes to the map's scratch
    ptrdiff_t i = shgeti(w->index, prompt);
    return i < 0 ? -1 : (long)c->index[i].value;
}

static int by_draw(const void *a, const void *b) { long x = ((const CacheSample *)a)->draw, y = ((const CacheSample *)b)->draw; return (x > y) - (x < y); }

static uint64_t read_key(const Jsonl *in, const char *key)
{
    char *end;
    errno = 0;
    uint64_t x = strtoull(key, &end, 16);
    if (strlen(key) != 16 || strspn(key, "0123456789abcdefABCDEF") != 16 || *end || errno) die("%s:%zu: \"key\" must be 16 hex digits", in->path, in->line);
    return x;
}

static void read_sample(const Jsonl *in, const json_t *j, CacheSample *s, long fallback_draw)
{
    json_t *ids = json_object_get(j, "ids"), *draw = json_object_get(j, "draw"), *logp = json_object_get(j, "logp"), *F = json_object_get(j, "F");
    const char *key = jsonl_string(in, j, "key", false), *text = jsonl_string(in, j, "text", !ids);
    s->text = text ? xstrdup(text) : NULL;
    s->reward = (float)jsonl_number(in, j, "reward");
    s->finished = json_is_true(json_object_get(j, "finished"));
    s->draw = json_is_integer(draw) ? (long)json_integer_value(draw) : fallback_draw;
    if (json_is_number(logp)) { s->logp = json_number_value(logp); s->has_logp = true; }
    if (json_is_number(F)) {
        s->F = json_number_value(F);
        s->has_F = true;
        if (!(s->F >= 0 && s->F <= 1)) die("%s:%zu: \"F\" must be a probability", in->path, in->line);
    }
    if (key) { s->key = read_key(in, key); s->has_key = true; }
    if (ids) {
        size_t i;
        json_t *v;
        if (!json_is_array(ids)) die("%s:%zu: \"ids\" is no array", in->path, in->line);
        s->n_ids = json_array_size(ids);
        s->ids = (int *)xmalloc(s->n_ids * sizeof(int));
        json_array_foreach(ids, i, v) {
            if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT_MAX) die("%s:%zu: \"ids\" holds what is no token id", in->path, in->line);
            s->ids[i] = (int)json_integer_value(v);
        }
    }
}

void cache_read(Cache *c, const char *path, long first_m)
{
    Jsonl in;
    json_t *j;
    size_t keyed = 0, total = 0;
    *c = (Cache){0};
    sh_new_strdup(c->index);
    jsonl_open(&in, path);
    while (jsonl_next(&in, &j)) {
        if (json_object_get(j, "vbon_cache")) {
            if (in.line != 1) die("%s:%zu: a second header: two caches in one file?", path, in.line);
            c->header = json_incref(j);
        } else if (json_object_get(j, "rewards")) { // a prompt a line
            json_t *w = json_object_get(j, "rewards"), *r = json_object_get(j, "responses"), *keys = json_object_get(j, "keys"), *logps = json_object_get(j, "logps"), *texts = json_object_get(j, "texts"), *v;
            size_t i, n = json_array_size(w);
            CachePrompt *p = cache_prompt(c, jsonl_string(&in, j, "prompt", true));
            if (!json_is_array(w) || (!r && !keys) || (r && json_array_size(r) != n) || (keys && json_array_size(keys) != n) || (logps && json_array_size(logps) != n))
                die("%s:%zu: \"rewards\" and \"responses\" or \"keys\" (and \"logps\") must be arrays of one length", path, in.line);
            json_array_foreach(w, i, v) {
                json_t *text = json_array_get(r, i), *key = json_array_get(keys, i), *logp = json_array_get(logps, i);
                if (!json_is_number(v) || (r && !json_is_string(text)) || (keys && !json_is_string(key)) || (logps && !json_is_number(logp)))
                    die("%s:%zu: sample %zu: its text or key is no string, or its reward or log p no finite number", path, in.line, i + 1);
                CacheSample x = {.text = r ? xstrdup(json_string_value(text)) : NULL, .reward = (float)json_number_value(v), .draw = (long)arrlen(p->samples)};
                if (keys) { x.key = read_key(&in, json_string_value(key)); x.has_key = true; }
                if (logps) { x.logp = json_number_value(logp); x.has_logp = true; }
                arrput(p->samples, x);
            }
            const char *draw;
            if (texts && (r || !json_is_object(texts))) die("%s:%zu: \"texts\" must be an object, in place of \"responses\"", path, in.line);
            json_object_foreach(texts, draw, v) {
                char *end;
                long k = strtol(draw, &end, 10);
                CacheSample *x = p->samples + arrlen(p->samples) - n + (k >= 0 && k < (long)n ? k : 0);
                if (end == draw || *end || k < 0 || k >= (long)n || x->text || !json_is_string(v)) die("%s:%zu: \"texts\" must hold strings by number of draw", path, in.line);
                x->text = xstrdup(json_string_value(v));
            }
        } else {
            CachePrompt *p = cache_prompt(c, jsonl_string(&in, j, "prompt", true));
            CacheSample s = {0};
            read_sample(&in, j, &s, (long)arrlen(p->samples));
            arrput(p->samples, s);
        }
        json_decref(j);
    }
    jsonl_close(&in);
    for (size_t i = 0; i < c->n; i++) {
        CachePrompt *p = &c->prompts[i];
        p->n = arrlenu(p->samples);
        if (p->n) qsort(p->samples, p->n, sizeof *p->samples, by_draw);
        for (size_t k = 1; k < p->n; k++)
            if (p->samples[k].draw == p->samples[k - 1].draw) die("%s: draw %ld of prompt \"%.40s\" stands there twice", path, p->samples[k].draw, p->prompt);
        if (first_m > 0 && p->n < (size_t)first_m) die("%s: prompt \"%.40s\" has %zu samples, --m asks for %ld", path, p->prompt, p->n, first_m);
        if (first_m > 0) p->n = (size_t)first_m;
        total += p->n;
        for (size_t k = 0; k < p->n; k++) keyed += p->samples[k].has_key;
    }
    if (!total) die("%s: no samples", path);
    if (keyed && keyed < total) die("%s: some samples have order keys and some have none: make it again", path);
}

void cache_free(Cache *c)
{
    for (size_t i = 0; i < c->n; i++) {
        for (size_t k = 0; k < arrlenu(c->prompts[i].samples); k++) { free(c->prompts[i].samples[k].text); free(c->prompts[i].samples[k].ids); }
        arrfree(c->prompts[i].samples);
        free(c->prompts[i].prompt);
    }
    arrfree(c->prompts); shfree(c->index);
    json_decref(c->header);
    *c = (Cache){0};
}

void cache_write(FILE *f, const char *prompt, const CacheSample *s)
{
    json_t *p = json_string(prompt), *t = s->text ? json_string(s->text) : NULL;
    char *prompt_json = json_dumps(p, JSON_ENCODE_ANY), *text_json = t ? json_dumps(t, JSON_ENCODE_ANY) : NULL;
    fprintf(f, "{\"prompt\":%s", prompt_json);
    if (text_json) fprintf(f, ",\"text\":%s", text_json);
    fprintf(f, ",\"reward\":%.9g", s->reward);
    if (s->ids) {
        fputs(",\"ids\":[", f);
        for (size_t i = 0; i < s->n_ids; i++) fprintf(f, "%s%d", i ? "," : "", s->ids[i]);
        fputc(']', f);
    }
    if (s->has_logp) fprintf(f, ",\"logp\":%.9g", s->logp);
    fprintf(f, ",\"draw\":%ld", s->draw);
    if (s->has_key) fprintf(f, ",\"key\":\"%016llx\"", (unsigned long long)s->key);
    if (s->has_F) fprintf(f, ",\"F\":%.17g", s->F);
    fprintf(f, ",\"finished\":%s}\n", s->finished ? "true" : "false");
    json_decref(p); json_decref(t);
    free(prompt_json); free(text_json);
}

size_t cache_resume(const char *path, const json_t *header)
{
    FILE *f = fopen(path, "r");
    char *line = NULL;
    size_t cap = 0, records = 0;
    off_t whole = 0;
    if (!f) return 0;
    ssize_t n;
    while ((n = getline(&line, &cap, f)) > 0 && line[n - 1] == '\n') {
        whole += n;
        if (whole > n) { records++; continue; }
        json_t *j = json_loadb(line, (size_t)n, 0, NULL), *v;
        const char *key;
        if (!json_object_get(j, "vbon_cache")) die("%s: holds something else than a cache: name another file", path);
        json_object_foreach((json_t *)header, key, v)
            if (!json_equal(v, json_object_get(j, key))) die("%s: was begun with another %s: name another file, or delete it", path, key);
        json_decref(j);
    }
    if (!whole && n > 0 && strncmp(line, "{\"vbon_cache\"", n < 13 ? (size_t)n : 13)) die("%s: holds something else than a cache: name another file", path);
    free(line);
    fclose(f);
    if (truncate(path, whole)) die("%s: cannot be cut back: %s", path, strerror(errno));
    return records;
}
#endif
