// special.h: special tokens, such as <|endoftext|>: which texts they are, what each is for, and which id it has.
//
// A special token is cut out of a text whole, before the rest is split into words. Some of them have a role (the end of
// a text, padding, ...: `token_names`). A folder says both in up to five files, and this is how transformers resolves
// them (tried with its versions 4.57 and 5.24: dev/special_tokens.py).
//
// Which token has a role; where two of these speak of one role the later counts, even when it says null:
//   1. the tokenizer's class (`classes`): tokenizer_config.json's tokenizer_class, else config.json's, or its
//      model_type's
//   2. tokenizer_config.json: bos_token, eos_token, ... (additional_special_tokens and extra_special_tokens have no
//      role)
//   3. special_tokens_map.json, the same fields; not read where tokenizer_config.json has added_tokens_decoder
// Which tokens are cut out, in the order in which those that the vocabulary does not hold are numbered:
//   1. tokenizer.json's added_tokens
//   2. added_tokens_decoder, by id; without it added_tokens.json, by id
//   3. those with a role, in the order of `token_names`, then additional and extra ones
//
// Easy to get wrong: the tokenizers library numbers special tokens itself, whatever ids the files say: as the
// vocabulary does, else on from its end. Where that differs from the files, or transformers 4 from 5, nobody knows what
// the model's ids mean, and the folder is refused.
#pragma once
#include "../gpt2.h"

// A set of texts with ids, which finds the longest of them that stands at a place of another text. They are sorted.
// Where s itself would be sorted in, the text just before it is either the one that is looked for, or begins with it
// ("abc" and "abcd" before "abce"): so a binary search finds that neighbour, and `shorter` leads from it to ever
// shorter beginnings.
typedef struct {
    char *text;
    size_t n;    // its bytes
    int id;
    int shorter; // the longest other text that begins this one, or -1
} Match;
typedef struct {
    Match *list;   // sorted by matcher_ready
    int from[257]; // texts whose first byte is b are list[from[b]] up to list[from[b + 1]]
} Matcher;
void matcher_add(Matcher *m, const char *text, size_t n, int id);
void matcher_ready(Matcher *m);                     // after the last was added; of equal texts the last added counts
int matcher_find(const Matcher *m, const char *s, size_t n, size_t *length); // the longest that begins s, or -1
int matcher_exact(const Matcher *m, const char *s); // the id of s itself, or -1
void matcher_free(Matcher *m);

enum { BOS, EOS, UNK, SEP, PAD, CLS, MASK, NAMES }; // roles
typedef struct {
    char *text;
    const char *path; // the file that names it
    int id;           // what a file says (-1: none does); after special_number, what it is
    bool normalized;  // looked for after the text's normalisation, not before
    bool invented;    // neither a file nor the vocabulary gives it an id, the numbering alone
} AddedToken;
typedef struct {
    const char *kind;                        // the tokenizer's class; NULL: no file names one of `classes`
    bool rebuilt;                            // transformers 5 takes only vocabulary and merges from tokenizer.json
    bool nfc;                                // and then normalises texts to Unicode's form NFC
    char *name[NAMES];                       // the token of each role; NULL: none
    AddedToken *added;                       // all special tokens, in the order of the numbering
    struct { char *key; int value; } *index; // where in `added` a text is
    json_t *settings, *map;                  // tokenizer_config.json and special_tokens_map.json
    char *path[4];                           // of these, of added_tokens.json, of tokenizer.json or the vocabulary
} Special;
// tokenizer_json: NULL, or the file's content. Dies with one line naming file and field.
void special_read(Special *s, const char *dir, json_t *tokenizer_json, const char *json_path);
// Numbers the tokens of `added`: id_of(vocab, text) is the vocabulary's id or -1, `entries` the first id behind its
// end.
void special_number(Special *s, int (*id_of)(const void *vocab, const char *text), const void *vocab, int entries);
int special_id(const Special *s, const char *text);                 // of an added token, or -1
void special_free(Special *s);

#ifdef VBON_IMPLEMENTATION
#include "files.h"

// ----------------------------------------------------------------------------
// the longest of many texts

void matcher_add(Matcher *m, const char *text, size_t n, int id)
{
    char *copy = (char *)xmalloc(n + 1);
    memcpy(copy, text, n);
    copy[n] = 0;
    arrput(m->list, ((Match){copy, n, id, (int)arrlen(m->list)})); // until all are sorted `shorter` is their order
}

static int match_order(const char *a, size_t n, const char *b, size_t k)
{
    int c = memcmp(a, b, n < k ? n : k);
    return c ? c : (n > k) - (n < k);
}

static int by_text(const void *a, const void *b)
{
    const Match *x = (const Match *)a, *y = (const Match *)b;
    int c = match_order(x->text, x->n, y->text, y->n);
    return c ? c : x->shorter - y->shorter;
}

void matcher_ready(Matcher *m)
{
    int n = (int)arrlen(m->list), b = 0;
    if (n) qsort(m->list, (size_t)n, sizeof *m->list, by_text);
    for (int i = 0; i < n; i++) {
        Match *x = &m->list[i];
        int p = i - 1;
        while (p >= 0 && (m->list[p].n > x->n || memcmp(m->list[p].text, x->text, m->list[p].n)))
            p = m->list[p].shorter;
        x->shorter = p;
        while (b <= (uint8_t)x->text[0]) m->from[b++] = i;
    }
    while (b <= 256) m->from[b++] = n;
}

int matcher_find(const Matcher *m, const char *s, size_t n, size_t *length)
{
    int low = m->from[(uint8_t)*s], high = m->from[(uint8_t)*s + 1];
    if (low == high) return -1;
    while (low < high) { // to the first text that is sorted after s
        int middle = low + (high - low) / 2;
        const Match *x = &m->list[middle];
        if (match_order(x->text, x->n, s, n) <= 0) low = middle + 1;
        else high = middle;
    }
    for (int i = low - 1; i >= 0; i = m->list[i].shorter)
        if (m->list[i].n <= n && !memcmp(m->list[i].text, s, m->list[i].n)) {
            *length = m->list[i].n;
            return m->list[i].id;
        }
    return -1;
}

int matcher_exact(const Matcher *m, const char *s)
{
    size_t length;
    int id = matcher_find(m, s, strlen(s), &length);
    return id >= 0 && length == strlen(s) ? id : -1;
}

void matcher_free(Matcher *m)
{
    for (ptrdiff_t i = 0; i < arrlen(m->list); i++) free(m->list[i].text);
    arrfree(m->list);
}

// ----------------------------------------------------------------------------
// the files

static const char *const token_names[NAMES] = {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token",
    "cls_token", "mask_token"};
#define EOT "<|endoftext|>"
#define BERT_NAMES {NULL, NULL, "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"}
// The classes of tokenizers that transformers has for our models, each with the roles that it fills by itself.
static const struct {
    const char *kind;
    const char *model_type; // of config.json: it stands for this class where no file names one
    bool rebuilt, nfc;      // as in Special
    bool pad_of_5;          // the padding token is version 5's alone
    const char *name[NAMES];
} classes[] = {
    {"GPT2Tokenizer", "gpt2", true, false, false, {EOT, EOT, EOT}},
    {"GPTNeoXTokenizer", "gpt_neox", true, true, true, {EOT, EOT, EOT, NULL, "<|padding|>"}},
    {"BertTokenizer", "bert", true, false, false, BERT_NAMES},
    {"DistilBertTokenizer", "distilbert", true, false, false, BERT_NAMES},
    {"PreTrainedTokenizerFast", NULL, false, false, false, {NULL}},
    {"PreTrainedTokenizer", NULL, false, false, false, {NULL}},
    {"TokenizersBackend", NULL, false, false, false, {NULL}}};

// The text of a token as files write it: a string, or an object with "content"; NULL for null. Dies when it asks for
// what is not done here.
static const char *token_said(json_t *v, const char *path, const char *key, bool *normalized)
{
    static const char *const not_done[] = {"lstrip", "rstrip", "single_word"};
    const char *s = json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
    if (json_is_null(v)) return NULL;
    if (!s || !*s) die("%s: \"%s\" holds no token: a string, or an object with \"content\"", path, key);
    for (int i = 0; i < 3; i++)
        if (json_is_true(json_object_get(v, not_done[i])))
            die("%s: token \"%s\": %s is not supported", path, shown(s), not_done[i]);
    *normalized = json_is_true(json_object_get(v, "normalized"));
    return s;
}

// One more that `path` names. Where it was named before, `keep` says whether the earlier word on `normalized` counts.
static void special_add(Special *s, const char *text, const char *path, double id, bool normalized, bool keep)
{
    if (id != -1 && !(id >= 0 && id <= 10000000 && id == floor(id)))
        die("%s: token \"%s\" has no valid id", path, shown(text));
    ptrdiff_t i = shgeti(s->index, text);
    if (i < 0) {
        shput(s->index, text, (int)arrlen(s->added));
        arrput(s->added, ((AddedToken){xstrdup(text), path, (int)id, normalized, false}));
        return;
    }
    AddedToken *a = &s->added[s->index[i].value];
    if (id >= 0 && a->id >= 0 && id != a->id)
        die("%s: token \"%s\" has id %.0f, but %d in %s: make them agree", path, shown(text), id, a->id, a->path);
    if (id >= 0) a->id = (int)id;
    if (!keep) a->normalized = normalized;
}

typedef struct {
    double id;
    const char *text;
    bool normalized;
} Listed;
static int by_id(const void *a, const void *b)
{
    double d = ((const Listed *)a)->id - ((const Listed *)b)->id;
    return (d > 0) - (d < 0);
}

// The tokens of added_tokens_decoder, {"id": token}, or of added_tokens.json, {"token": id}: there they are looked for
// after normalisation, unless they have a role.
static void special_listed(Special *s, json_t *list, const char *path, bool decoder)
{
    Listed *all = NULL;
    const char *key;
    json_t *v;
    if (!json_is_object(list))
        die("%s: %s is no object of tokens and ids", path, decoder ? "\"added_tokens_decoder\"" : "it");
    json_object_foreach(list, key, v) {
        Listed l = {.text = key, .normalized = true};
        char *end;
        if (decoder) {
            l.text = token_said(v, path, key, &l.normalized);
            l.id = strtod(key, &end);
            if (!*key || *end) l.id = -2;
        } else l.id = json_is_number(v) ? json_number_value(v) : -2;
        if (!l.text || !*l.text) die("%s: \"%s\" holds no token", path, key);
        for (int i = 0; i < NAMES && !decoder; i++)
            if (s->name[i] && !strcmp(s->name[i], key)) l.normalized = false;
        arrput(all, l);
    }
    if (all) qsort(all, arrlenu(all), sizeof *all, by_id);
    for (size_t i = 0; i < arrlenu(all); i++)
        special_add(s, all[i].text, path, all[i].id == -1 ? -2 : all[i].id, all[i].normalized, !decoder);
    arrfree(all);
}

static const char *class_of(const Special *s, const char *dir)
{
    char *path = format("%s/config.json", dir);
    json_t *config = !exists(path) ? NULL : json_settings(path), *base = json_object_get(config, "base_config");
    const char *kind = json_string_value(json_object_get(s->settings, "tokenizer_class")), *found = NULL,
               *from = kind ? s->path[0] : path;
    if (!kind) kind = json_string_value(json_object_get(config, "tokenizer_class"));
    const char *type = json_string_value(json_object_get(base ? base : config, "model_type"));
    for (size_t i = 0; i < sizeof classes / sizeof *classes && !found; i++) {
        size_t n = strlen(classes[i].kind);
        if (kind ? !strncmp(kind, classes[i].kind, n) && (!kind[n] || !strcmp(kind + n, "Fast"))
                 : type && classes[i].model_type && !strcmp(type, classes[i].model_type))
            found = classes[i].kind;
    }
    if (kind && !found)
        die("%s: tokenizer_class %s is not supported (GPT2Tokenizer, GPTNeoXTokenizer, BertTokenizer, "
            "DistilBertTokenizer, TokenizersBackend are)",
            from, shown(kind));
    json_decref(config);
    free(path);
    return found;
}

void special_read(Special *s, const char *dir, json_t *tokenizer_json, const char *json_path)
{
    static const char *const files[] = {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"},
                             *const lists[] = {"additional_special_tokens", "extra_special_tokens"};
    static const char *const not_done[] = {
        "split_special_tokens", "add_prefix_space", "add_bos_token", "add_eos_token"};
    struct {
        const char *text, *path;
        bool normalized;
    } said[NAMES] = {{0}}, *unnamed = NULL;
    const char *text, *key;
    bool normalized, pad_of_5 = false;
    json_t *v, *w;
    size_t i;
    *s = (Special){0};
    sh_new_arena(s->index);
    for (i = 0; i < 3; i++) s->path[i] = format("%s/%s", dir, files[i]);
    s->path[3] = xstrdup(json_path ? json_path : dir);
    s->settings = !exists(s->path[0]) ? json_object() : json_settings(s->path[0]);
    json_t *decoder = json_object_get(s->settings, "added_tokens_decoder");
    s->map = decoder || !exists(s->path[1]) ? json_object() : json_settings(s->path[1]);
    for (i = 0; i < 4; i++)
        if (json_is_true(json_object_get(s->settings, not_done[i])))
            die("%s: %s is not supported: a text is encoded as it stands, its special tokens as one id each",
                s->path[0], not_done[i]);
    s->kind = class_of(s, dir);
    for (i = 0; i < sizeof classes / sizeof *classes; i++)
        if (s->kind && !strcmp(s->kind, classes[i].kind)) {
            s->rebuilt = classes[i].rebuilt;
            s->nfc = classes[i].nfc;
            pad_of_5 = classes[i].pad_of_5;
            for (int k = 0; k < NAMES; k++)
                if (classes[i].name[k]) {
                    said[k].text = classes[i].name[k];
                    said[k].path = s->path[3];
                }
        }
    for (int file = 0; file < 2; file++) {
        json_t *from = file ? s->map : s->settings;
        for (int k = 0; k < NAMES; k++)
            if ((v = json_object_get(from, token_names[k]))) {
                said[k].text = token_said(v, s->path[file], token_names[k], &said[k].normalized);
                said[k].path = s->path[file];
            }
        for (int k = 0; k < 2; k++) {
            v = json_object_get(from, lists[k]);
            if (!v || json_is_null(v) || (!json_array_size(v) && !json_object_size(v))) continue;
            if (unnamed && (file || k))
                die("%s: \"%s\" beside other such lists: transformers 4 and 5 read them differently; write one \"%s\"",
                    s->path[file], lists[k], lists[k]);
            if (json_is_array(v))
                json_array_foreach(v, i, w) {
                    text = token_said(w, s->path[file], lists[k], &normalized);
                    if (text) arrput(unnamed, ((__typeof__(*unnamed)){text, s->path[file], normalized}));
                }
            else if (json_is_object(v) && k)
                json_object_foreach(v, key, w) {
                    text = token_said(w, s->path[file], key, &normalized);
                    if (text) arrput(unnamed, ((__typeof__(*unnamed)){text, s->path[file], normalized}));
                }
            else die("%s: \"%s\" is no list of tokens", s->path[file], lists[k]);
        }
    }
    for (int k = 0; k < NAMES; k++) s->name[k] = said[k].text ? xstrdup(said[k].text) : NULL;

    json_array_foreach(json_object_get(tokenizer_json, "added_tokens"), i, v) {
        text = json_is_object(v) ? token_said(v, json_path, "added_tokens", &normalized) : NULL;
        w = json_object_get(v, "id");
        if (!text || !json_is_number(w)) die("%s: added token %zu has no content or id", json_path, i + 1);
        special_add(s, text, s->path[3], json_number_value(w) == -1 ? -2 : json_number_value(w), normalized, true);
    }
    size_t of_json = arrlenu(s->added);
    if (decoder) {
        json_t *listed = json_object();
        json_object_foreach(decoder, key, v) {
            text = token_said(v, s->path[0], key, &normalized);
            if (text) json_object_set_new(listed, text, json_true());
        }
        for (i = 0; i < of_json && s->rebuilt; i++) {
            bool there = json_object_get(listed, s->added[i].text),
                 in_vocab = json_object_get(
                     json_object_get(json_object_get(tokenizer_json, "model"), "vocab"), s->added[i].text);
            for (int k = 0; k < NAMES; k++)
                there |= in_vocab && s->name[k] && !strcmp(s->name[k], s->added[i].text) && !s->added[i].normalized;
            if (!there)
                die("%s: added token \"%s\" is not in the added_tokens_decoder of %s, the only place where "
                    "transformers 5 looks: add it there",
                    json_path, shown(s->added[i].text), s->path[0]);
        }
        json_decref(listed);
        special_listed(s, decoder, s->path[0], true);
    } else if (exists(s->path[2])) {
        v = json_settings(s->path[2]);
        special_listed(s, v, s->path[2], false);
        json_decref(v);
    }
    if (said[PAD].path == s->path[3] && pad_of_5 && tokenizer_json && shgeti(s->index, said[PAD].text) < 0)
        die("%s: no \"pad_token\": transformers 4 takes none for a %s, 5 takes %s: write that, or null", s->path[0],
            s->kind, said[PAD].text);
    for (int k = 0; k < NAMES; k++)
        if (said[k].text) special_add(s, said[k].text, said[k].path, -1, said[k].normalized, true);
    json_object_foreach(s->settings, key, v) { // what transformers 5 takes for a token's name and 4 does not
        size_t n = strlen(key);
        bool known = false;
        for (int k = 0; k < NAMES; k++) known |= !strcmp(key, token_names[k]);
        if (!known && n > 6 && !strcmp(key + n - 6, "_token") && json_is_string(v) &&
            shgeti(s->index, json_string_value(v)) < 0)
            die("%s: \"%s\": transformers 4 does not know it, 5 adds a token: put %s into "
                "\"additional_special_tokens\"",
                s->path[0], shown(key), shown(json_string_value(v)));
    }
    for (i = 0; i < arrlenu(unnamed); i++)
        special_add(s, unnamed[i].text, unnamed[i].path, -1, unnamed[i].normalized, true);
    arrfree(unnamed);
}

void special_number(Special *s, int (*id_of)(const void *, const char *), const void *vocab, int entries)
{
    for (size_t i = 0; i < arrlenu(s->added); i++) {
        AddedToken *a = &s->added[i];
        int id = id_of(vocab, a->text), expect = id >= 0 ? id : entries;
        if (a->id >= 0 && a->id != expect)
            die("%s: added token \"%s\" has id %d, but Hugging Face's tokenizers would give it %d: number it so",
                a->path, shown(a->text), a->id, expect);
        a->invented = a->id < 0 && id < 0;
        a->id = expect;
        if (expect >= entries) entries = expect + 1;
    }
}

int special_id(const Special *s, const char *text)
{
    ptrdiff_t i = text ? shgeti(((Special *)s)->index, text) : -1;
    return i < 0 ? -1 : s->added[s->index[i].value].id;
}

void special_free(Special *s)
{
    for (size_t i = 0; i < arrlenu(s->added); i++) free(s->added[i].text);
    for (int i = 0; i < NAMES; i++) free(s->name[i]);
    for (int i = 0; i < 4; i++) free(s->path[i]);
    arrfree(s->added);
    shfree(s->index);
    json_decref(s->settings);
    json_decref(s->map);
}
#endif
