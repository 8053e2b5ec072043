// data.h: JSONL in and out: texts, prompts, the reward cache.
//
// The reward cache holds, for each prompt, M samples of the reference with their rewards: all that log F-hat needs.
// What we write is a header line (which model, tokenizer, reward, temperature, ...) and one record a sample,
//     {"prompt","text","reward","ids":[...],"logp","draw","key":"16 hex digits","finished"}
// with the prompts in order and each prompt's draws in order. Read are also the two forms of the authors' code:
// {"prompt","text","reward"} a sample, and {"prompt","responses":[...],"rewards":[...]} a prompt; they have no keys, so
// ties are broken by mid-rank (the second form may carry "keys" and "logps" in place of responses, and the "ids" of
// some of them, by draw: `vbon compact` makes it, for caches that are kept). A sample may carry "F", its exact CDF
// value, for --fhat exact. Rewards are floats, live and here, and written with nine digits: they come back exactly, so
// that equal is equal.
//
// What each field may hold stands in the tables of Field below; what is outside is refused by file, line and field.
// Fields nobody reads are not looked at.
#pragma once
#include "../ppo.h"
#include "files.h"

// text (length): the line without a byte order mark and its end.
typedef struct { Lines lines; const char *path; size_t line, length; const char *text; } Jsonl;
void jsonl_open(Jsonl *in, const char *path);
// the next non-empty line, an object the caller owns; bad JSON or UTF-8 dies with file and line
bool jsonl_next(Jsonl *in, json_t **record);
void jsonl_close(Jsonl *in);
const char *jsonl_string(const Jsonl *in, const json_t *j, const char *key, bool required);
// HEX: 16 digits; WHOLE: an integer of 64 bits, exactly
typedef enum { FIELD_TEXT, FIELD_HEX, FIELD_BOOL, FIELD_WHOLE, FIELD_NUMBER } FieldType;
// of: '[' an array of such values, 0 one value
typedef struct { const char *name; FieldType type; double low, high; char of; } Field;
// Each field of the table that the line has is of its type and in its range, or the program ends
void jsonl_check(const Jsonl *in, const json_t *j, const Field *fields, size_t n);
// A line that is a text: {"text"}, or {"prompt","response"}, or a cache's {"prompt","text"}, where text is the
// response. prompt: NULL if it has none.
void jsonl_text(const Jsonl *in, const json_t *j, const char **prompt, const char **text);
bool jsonl_header(const json_t *j);                // a cache's header, which no reader of lines takes for one

// The prompts of {"prompt"} lines in order, malloc'd; *line: where each stands first, malloc'd. distinct: each once,
// and *repeats counts the others. From /dev/stdin, if the first line does not begin with {, each is a prompt.
char **prompts_read(const char *path, size_t *n, size_t **line, bool distinct, size_t *repeats);

// line: where it was read
typedef struct { char *text; int *ids; size_t n_ids; double reward, logp, F; uint64_t key; long draw; bool has_key,
    has_logp, has_F, finished; size_t line; } CacheSample;
typedef struct { char *prompt; CacheSample *samples; size_t n; } CachePrompt; // in draw order
typedef struct { CachePrompt *prompts; size_t n; json_t *header; struct { char *key; size_t value; } *index;
    const char *path; } Cache;
// first_m > 0: only the first so many drawn for each prompt. Dies with file and line, and when the cache has not all
// the samples its header promises.
void cache_read(Cache *c, const char *path, long first_m);
void cache_read_begun(Cache *c, const char *path); // one that may lack samples at its end
void cache_free(Cache *c);
long cache_find(const Cache *c, const char *prompt);       // -1: not there
// One record as a line; ids may be NULL.
void cache_write(FILE *f, const char *prompt, const CacheSample *s);
// How many samples a cache that was begun holds: draws 0..M-1 of each prompt, in order; a torn last line is cut off. A
// file without a whole sample is begun anew. Dies when a line is none of these samples, or they stand under another
// header.
size_t cache_resume(Append *file, const json_t *header, const Prompt *prompts, size_t n, size_t M);

#ifdef VBON_IMPLEMENTATION
#include "json.h"
#include <float.h>
#define WEIGHTS_OR_TEMPERATURE \
    "the weights are too large to compute with (has a training run diverged?), or --temperature is too low"

static void open_lines(Jsonl *in, const char *path, bool pipes)
{
    *in = (Jsonl){.path = path};
    if (!lines_open(&in->lines, path, pipes)) die("%s: cannot be read: %s", path, strerror(ENOENT));
}
void jsonl_open(Jsonl *in, const char *path) { open_lines(in, path, true); }

static bool jsonl_line(Jsonl *in) // the next one, which may be empty; false: the end
{
    if (!lines_next(&in->lines)) return false;
    size_t bom = in->lines.line == 1 ? bom_length(in->lines.buffer, in->lines.n) : 0;
    in->line = in->lines.line;
    in->text = in->lines.buffer + bom;
    in->length = in->lines.n - bom;
    while (in->length && memchr(" \t\r\n", in->text[in->length - 1], 4)) in->length--;
    return true;
}

static json_t *line_parse(const Jsonl *in)
{
    json_error_t e;
    size_t bad = utf8_valid(in->text, in->length);
    if (bad < in->length)
        die("%s:%zu: byte %zu is not UTF-8: convert the file", in->path, in->line,
        (size_t)(in->text - in->lines.buffer) + bad + 1);
    json_t *j = json_parse(in->text, in->length, JSON_REJECT_DUPLICATES, &e);
    if (!j) die("%s:%zu: %s (column %d)", in->path, in->line, e.text, e.column);
    if (!json_is_object(j)) die("%s:%zu: not a JSON object", in->path, in->line);
    return j;
}

bool jsonl_next(Jsonl *in, json_t **record)
{
    while (jsonl_line(in)) {
        if (!in->length) continue;
        *record = line_parse(in);
        return true;
    }
    return false;
}

void jsonl_close(Jsonl *in) { lines_close(&in->lines); }

const char *jsonl_string(const Jsonl *in, const json_t *j, const char *key, bool required)
{
    json_t *v = json_object_get(j, key);
    if (!v && !required) return NULL;
    if (!json_is_string(v)) die("%s:%zu: \"%s\" is missing or no string", in->path, in->line, key);
    return json_string_value(v);
}

static bool is_hex(const char *s) { return s && strlen(s) == 16 && strspn(s, "0123456789abcdefABCDEF") == 16; }

static void check_value(const Jsonl *in, const Field *f, const json_t *v, const char *where)
{
    static const char *const types[] = {"text", "16 hex digits", "true or false", "a whole number", "a number"};
    bool right = f->type == FIELD_TEXT ? json_is_string(v) : f->type == FIELD_HEX ? is_hex(json_string_value(v))
        : f->type == FIELD_BOOL ? json_is_boolean(v) : f->type == FIELD_WHOLE ? json_is_integer(v) : json_is_number(v);
    bool number = f->type == FIELD_WHOLE || f->type == FIELD_NUMBER;
    double x = json_number_value(v);
    if (right && (!number || (x >= f->low && x <= f->high))) return;
    char range[80] = "", *is = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(12));
    if (number && f->low == f->high) snprintf(range, sizeof range, " (%g)", f->low);
    else if (number) snprintf(range, sizeof range, " from %.15g to %.15g", f->low, f->high);
    die("%s:%zu: \"%s\"%s is %.40s, must be %s%s", in->path, in->line, f->name, where, is ? is : "no JSON",
        types[f->type], range);
}

void jsonl_check(const Jsonl *in, const json_t *j, const Field *fields, size_t n)
{
    for (const Field *f = fields; f < fields + n; f++) {
        json_t *v = json_object_get(j, f->name), *x;
        char where[24];
        size_t i;
        if (!v) continue;
        if (!f->of) { check_value(in, f, v, ""); continue; }
        if (!json_is_array(v)) die("%s:%zu: \"%s\" must be an array", in->path, in->line, f->name);
        json_array_foreach(v, i, x) { snprintf(where, sizeof where, "[%zu]", i); check_value(in, f, x, where); }
    }
}

bool jsonl_header(const json_t *j) { return json_object_get(j, "vbon_cache") != NULL; }

void jsonl_text(const Jsonl *in, const json_t *j, const char **prompt, const char **text)
{
    const char *response = jsonl_string(in, j, "response", false);
    *prompt = jsonl_string(in, j, "prompt", false);
    *text = jsonl_string(in, j, "text", false);
    if (*text && response)
        die("%s:%zu: has \"text\" and \"response\": which of them it is cannot be told; leave one out", in->path,
        in->line);
    if (response && !*prompt)
        die("%s:%zu: has \"response\" and no \"prompt\"; a text by itself is called \"text\"", in->path, in->line);
    if (!*text) *text = response;
    if (!*text) die("%s:%zu: \"text\" is missing, and so is \"response\"%s", in->path, in->line,
                    json_object_get(j, "rewards")
                        ? " (a cache of a prompt a line has responses in arrays: one a line is needed)" : "");
}

// The next line of a pipe, which may be no record but the text of a prompt: plain, of all lines what the first one is.
static bool piped_next(Jsonl *in, bool *plain, json_t **record)
{
    bool first = !in->line;
    do if (!jsonl_line(in)) return false; while (!in->length);
    if (first) *plain = in->text[strspn(in->text, " \t")] != '{';
    if (!*plain) { *record = line_parse(in); return true; }
    size_t n = in->lines.n - (size_t)(in->text - in->lines.buffer);
    while (n && memchr("\r\n", in->text[n - 1], 2)) n--; // blanks at the end are the prompt's
    json_t *text = memchr(in->text, 0, n) ? NULL : json_stringn(in->text, n);
    if (!text) die("%s:%zu: a prompt must be UTF-8 text: convert it", in->path, in->line);
    *record = json_make("{s:o}", "prompt", text);
    return true;
}

char **prompts_read(const char *path, size_t *n, size_t **line, bool distinct, size_t *repeats)
{
    Jsonl in;
    json_t *j;
    char **out = NULL;
    size_t *at = NULL;
    struct { char *key; int value; } *seen = NULL;
    sh_new_strdup(seen);
    *repeats = 0;
    jsonl_open(&in, path);
    bool piped = !strcmp(path, "/dev/stdin"), plain = false;
    while (piped ? piped_next(&in, &plain, &j) : jsonl_next(&in, &j)) {
        if (!jsonl_header(j)) {
            const char *s = jsonl_string(&in, j, "prompt", true);
            if (!*s) die("%s:%zu: an empty prompt: the model needs a token to go on from", path, in.line);
            bool again = distinct && shgeti(seen, s) >= 0;
            if (again) ++*repeats;
            else { if (distinct) shput(seen, s, 1); arrput(out, xstrdup(s)); arrput(at, in.line); }
        }
        json_decref(j);
    }
    jsonl_close(&in);
    shfree(seen);
    *n = arrlenu(out);
    if (!*n) die("%s: no prompts", path);
    char **list = (char **)memcpy(xmalloc(*n * sizeof *list), out, *n * sizeof *list);
    *line = (size_t *)memcpy(xmalloc(*n * sizeof **line), at, *n * sizeof **line);
    arrfree(out); arrfree(at);
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

static int by_draw(const void *a, const void *b)
{
    long x = ((const CacheSample *)a)->draw, y = ((const CacheSample *)b)->draw;
    return (x > y) - (x < y);
}

// What a cache's fields may hold. "key" is the order key, "draw" counts a prompt's samples from 0, a real reward must
// fit a float; log p may be above 0 by rounding.
static const Field header_fields[] = {{"vbon_cache", FIELD_WHOLE, 1, 1, 0},
                                      {"model", FIELD_HEX, 0, 0, 0},
                                      {"tokenizer", FIELD_HEX, 0, 0, 0},
                                      {"reward", FIELD_TEXT, 0, 0, 0},
                                      {"prompts", FIELD_HEX, 0, 0, 0},
                                      {"missing_eos", FIELD_TEXT, 0, 0, 0},
                                      {"precision", FIELD_TEXT, 0, 0, 0},
                                      {"device", FIELD_TEXT, 0, 0, 0},
                                      {"decode_rows", FIELD_WHOLE, 1, 1e9, 0},
                                      {"micro_tokens", FIELD_WHOLE, 1, 1e9, 0},
                                      {"temperature", FIELD_NUMBER, 1e-6, DBL_MAX, 0},
                                      {"max_new", FIELD_WHOLE, 1, INT_MAX, 0},
                                      {"seed", FIELD_WHOLE, 0, 0x1p63, 0},
                                      {"samples", FIELD_WHOLE, 1, 0x1p63, 0},
                                      {"total", FIELD_WHOLE, 1, 0x1p63, 0}};
static const Field sample_fields[] = {{"prompt", FIELD_TEXT, 0, 0, 0}, {"text", FIELD_TEXT, 0, 0, 0}, {"reward",
    FIELD_NUMBER, -3.4028235e38, 3.4028235e38, 0}, {"ids", FIELD_WHOLE, 0, INT_MAX, '['},
    {"logp", FIELD_NUMBER, -DBL_MAX, 1e-3, 0}, {"draw", FIELD_WHOLE, 0, INT_MAX, 0}, {"key", FIELD_HEX, 0, 0, 0}, {"F",
        FIELD_NUMBER, 0, 1, 0}, {"finished", FIELD_BOOL, 0, 0, 0}};
static const Field prompt_fields[] = {{"prompt", FIELD_TEXT, 0, 0, 0}, {"rewards", FIELD_NUMBER, -3.4028235e38,
    3.4028235e38, '['}, {"responses", FIELD_TEXT, 0, 0, '['}, {"keys", FIELD_HEX, 0, 0, '['},
    {"logps", FIELD_NUMBER, -DBL_MAX, 1e-3, '['}}; // "ids": read_kept
// of a line that is scored
static const Field response_fields[] = {{"ids", FIELD_WHOLE, 0, INT_MAX, '['}, {"finished", FIELD_BOOL, 0, 0, 0}};
#define CHECK_FIELDS(in, j, table) jsonl_check(in, j, table, sizeof table / sizeof *table)

static uint64_t read_key(const json_t *key) { return strtoull(json_string_value(key), NULL, 16); }

static int *read_ids(const json_t *ids, size_t *n) // malloc'd, of an array that was checked
{
    *n = json_array_size(ids);
    int *out = (int *)xmalloc((*n + 1) * sizeof *out);
    for (size_t i = 0; i < *n; i++) out[i] = (int)json_integer_value(json_array_get(ids, i));
    return out;
}

static void read_sample(const Jsonl *in, const json_t *j, CacheSample *s, long fallback_draw)
{
    json_t *ids = json_object_get(j, "ids"), *draw = json_object_get(j, "draw"), *logp = json_object_get(j, "logp"),
        *F = json_object_get(j, "F"), *key = json_object_get(j, "key");
    CHECK_FIELDS(in, j, sample_fields);
    if (json_object_get(j, "response"))
        die("%s:%zu: \"response\" is what sample and bon write: no sample of a cache (vbon cache makes one)", in->path,
        in->line);
    if (!json_object_get(j, "reward")) die("%s:%zu: \"reward\" is missing", in->path, in->line);
    const char *text = jsonl_string(in, j, "text", !ids);
    s->line = in->line;
    s->text = text ? xstrdup(text) : NULL;
    s->reward = (float)json_number_value(json_object_get(j, "reward"));
    s->finished = json_is_true(json_object_get(j, "finished"));
    s->draw = draw ? (long)json_integer_value(draw) : fallback_draw;
    if (logp) { s->logp = json_number_value(logp); s->has_logp = true; }
    if (F) { s->F = json_number_value(F); s->has_F = true; }
    if (key) { s->key = read_key(key); s->has_key = true; }
    if (ids) s->ids = read_ids(ids, &s->n_ids);
}

// "ids" of a line of n samples, the last of p: {"draw": [ids]} of those draws that a compact cache keeps them of.
static void read_kept(const Jsonl *in, const json_t *kept, CachePrompt *p, size_t n)
{
    const char *draw;
    json_t *ids;
    if (kept && !json_is_object(kept)) die("%s:%zu: \"ids\" must be an object", in->path, in->line);
    json_object_foreach((json_t *)kept, draw, ids) {
        char *end;
        long k = strtol(draw, &end, 10);
        if (end == draw || *end || k < 0 || k >= (long)n)
            die("%s:%zu: \"ids\" has \"%.16s\", must be by number of draw, from 0 to %zu", in->path, in->line,
                shown(draw), n - 1);
        CacheSample *x = p->samples + arrlenu(p->samples) - n + k;
        jsonl_check(in, kept, &(Field){draw, FIELD_WHOLE, 0, INT_MAX, '['}, 1);
        if (x->ids) die("%s:%zu: \"ids\" has draw %ld twice", in->path, in->line, k);
        x->ids = read_ids(ids, &x->n_ids);
        if (order_key(x->ids, x->n_ids) != x->key)
            die("%s:%zu: \"ids\" of draw %ld are not those of its key: the file was edited", in->path, in->line, k);
    }
}

// What vbon cache writes says in its header how many samples it will have; one that is not finished, or that lost
// lines, has fewer. Older headers have no total: then each prompt that is there must be whole.
static void cache_whole(const Cache *c, const char *path)
{
    json_t *promised = json_object_get(c->header, "total");
    long long M = json_integer_value(json_object_get(c->header, "samples")), there = 0;
    long long total = promised ? json_integer_value(promised) : M * (long long)c->n;
    bool even = true;
    for (size_t i = 0; i < c->n; i++) {
        there += arrlen(c->prompts[i].samples);
        even &= arrlen(c->prompts[i].samples) == M;
    }
    if (M && (!even || there != total))
        die("%s: holds %lld of %lld samples: the cache command it was begun with goes on with it", path, there, total);
}

static void cache_read_samples(Cache *c, const char *path, long first_m)
{
    Jsonl in;
    json_t *j;
    size_t keyed = 0, total = 0;
    *c = (Cache){.path = path};
    sh_new_strdup(c->index);
    open_lines(&in, path, false); // its prompts may have been read from it before
    while (jsonl_next(&in, &j)) {
        if (jsonl_header(j)) {
            if (in.line != 1) die("%s:%zu: a second header: two caches in one file?", path, in.line);
            CHECK_FIELDS(&in, j, header_fields);
            c->header = json_incref(j);
        } else if (json_object_get(j, "rewards")) { // a prompt a line
            json_t *w = json_object_get(j, "rewards"), *r = json_object_get(j, "responses"),
                   *keys = json_object_get(j, "keys"), *logps = json_object_get(j, "logps"), *v;
            size_t i, n = json_array_size(w);
            CHECK_FIELDS(&in, j, prompt_fields);
            CachePrompt *p = cache_prompt(c, jsonl_string(&in, j, "prompt", true));
            if ((!r && !keys) || (r && json_array_size(r) != n) || (keys && json_array_size(keys) != n) || (logps
                && json_array_size(logps) != n))
                die("%s:%zu: \"rewards\" and \"responses\" or \"keys\" (and \"logps\") must be arrays of one length",
                    path, in.line);
            json_array_foreach(w, i, v) {
                CacheSample x = {.text = r ? xstrdup(json_string_value(json_array_get(r, i))) : NULL,
                    .reward = (float)json_number_value(v), .draw = (long)arrlen(p->samples), .line = in.line};
                if (keys) { x.key = read_key(json_array_get(keys, i)); x.has_key = true; }
                if (logps) { x.logp = json_number_value(json_array_get(logps, i)); x.has_logp = true; }
                arrput(p->samples, x);
            }
            if (keys) read_kept(&in, json_object_get(j, "ids"), p, n);
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
        for (size_t k = 0; k < p->n; k++) {
            const CacheSample *s = &p->samples[k], *next = k + 1 < p->n ? s + 1 : s;
            if (next > s && next->draw == s->draw)
                die("%s:%zu: \"draw\" %ld of prompt \"%.40s\" stands there twice, also in line %zu", path, next->line,
                s->draw, p->prompt, s->line);
            if (s->draw != (long)k)
                die("%s:%zu: \"draw\" is %ld, and draw %zu of prompt \"%.40s\" is missing: they are numbered from 0 "
                    "without a gap",
                    path, s->line, s->draw, k, p->prompt);
        }
        if (first_m > 0 && p->n < (size_t)first_m)
            die("%s: prompt \"%.40s\" has %zu samples, --m asks for %ld", path, p->prompt, p->n, first_m);
        if (first_m > 0) p->n = (size_t)first_m;
        total += p->n;
        for (size_t k = 0; k < p->n; k++) keyed += p->samples[k].has_key;
    }
    if (!total) die("%s: no samples", path);
    if (keyed && keyed < total) die("%s: some samples have order keys and some have none: make it again", path);
}

void cache_read(Cache *c, const char *path, long first_m)
{
    cache_read_samples(c, path, first_m);
    cache_whole(c, path);
}
void cache_read_begun(Cache *c, const char *path) { cache_read_samples(c, path, 0); }

void cache_free(Cache *c)
{
    for (size_t i = 0; i < c->n; i++) {
        for (size_t k = 0; k < arrlenu(c->prompts[i].samples); k++) {
            free(c->prompts[i].samples[k].text);
            free(c->prompts[i].samples[k].ids);
        }
        arrfree(c->prompts[i].samples);
        free(c->prompts[i].prompt);
    }
    arrfree(c->prompts); shfree(c->index);
    json_decref(c->header);
    *c = (Cache){0};
}

static void write_ids(FILE *f, const CacheSample *s)
{
    fputc('[', f);
    for (size_t i = 0; i < s->n_ids; i++) fprintf(f, "%s%d", i ? "," : "", s->ids[i]);
    fputc(']', f);
}

void cache_write(FILE *f, const char *prompt, const CacheSample *s)
{
    json_t *p = json_make("s", prompt), *t = s->text ? json_make("s", s->text) : NULL;
    char *prompt_json = json_text(p, JSON_ENCODE_ANY), *text_json = t ? json_text(t, JSON_ENCODE_ANY) : NULL;
    fprintf(f, "{\"prompt\":%s", prompt_json);
    if (text_json) fprintf(f, ",\"text\":%s", text_json);
    fprintf(f, ",\"reward\":%.9g", must_be_finite(s->reward, "a sample's reward", "look at --reward and its scale"));
    if (s->ids) { fputs(",\"ids\":", f); write_ids(f, s); }
    if (s->has_logp) fprintf(f, ",\"logp\":%.9g", must_be_finite(s->logp, "a sample's log-probability",
        WEIGHTS_OR_TEMPERATURE));
    fprintf(f, ",\"draw\":%ld", s->draw);
    if (s->has_key) fprintf(f, ",\"key\":\"%016llx\"", (unsigned long long)s->key);
    if (s->has_F) fprintf(f, ",\"F\":%.17g", must_be_finite(s->F, "a sample's F", "it must be a probability"));
    fprintf(f, ",\"finished\":%s}\n", s->finished ? "true" : "false");
    json_decref(p); json_decref(t);
    free(prompt_json); free(text_json);
}

size_t cache_resume(Append *file, const json_t *header, const Prompt *prompts, size_t n, size_t M)
{
    const char *path = file->path, *key, *differs = NULL;
    json_t *head = NULL, *j, *v;
    size_t whole = 0, records = 0;
    Jsonl in;
    jsonl_open(&in, path);
    while (jsonl_line(&in)) {
        const Lines *l = &in.lines;
        bool ours = head || !strncmp(in.text, "{\"vbon_cache\"", in.length < 13 ? in.length : 13);
        if (!ours) die("%s: holds something else than a cache: name another file", path);
        if (l->buffer[l->n - 1] != '\n') break; // torn
        whole += l->n;
        if (!in.length) continue;
        j = line_parse(&in);
        if (!head) {
            head = j;
            json_object_foreach((json_t *)header, key, v) {
                const json_t *was = json_object_get(head, key);
                // a header from before there was one; and a precision by the flag, whose meaning "device" says
                bool old =
                    !was && (!strcmp(key, "total") || !strcmp(key, "decode_rows") || !strcmp(key, "micro_tokens"));
                const char *as = json_string_value(was), *now = json_string_value(v);
                old |= !strcmp(key, "precision") && as && !strcmp(as, "auto") &&
                       !strcmp(now, json_object_get(header, "device") ? "bf16" : "fp32");
                bool same = json_equal(v, was) || (!strcmp(key, "missing_eos") && same_number(v, was)); // -1 or -1.0
                if (!old && !differs && !same) differs = key;
            }
            json_object_foreach(head, key, v) if (!differs && !json_object_get(header, key)) differs = key; // "device"
            continue;
        }
        if (differs) die("%s: was begun with another %s: name another file, or delete it", path, differs);
        CacheSample s = {0};
        const char *prompt = jsonl_string(&in, j, "prompt", true);
        read_sample(&in, j, &s, -1);
        bool known = records < n * M && !strcmp(prompt, prompts[records / M].text) && s.draw == (long)(records % M);
        if (!known || !s.ids || !s.has_key || s.key != order_key(s.ids, s.n_ids))
            die("%s:%zu: is not draw %zu of prompt %zu: delete the file from there on, or name another", path, in.line,
                records % M, records / M + 1);
        free(s.text); free(s.ids);
        records++;
        json_decref(j);
    }
    jsonl_close(&in);
    json_decref(head);
    append_cut(file, records ? whole : 0);
    return records;
}
#endif
