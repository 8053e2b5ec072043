// wordpiece.h: BERT's WordPiece, for reward models (lib/distilbert.h). Policies never use it, so it only encodes.
//
// A text goes through the steps of Hugging Face's BertTokenizerFast, in this order:
//  1. [UNK], [CLS], ... written in the text are cut out as they stand; what is between goes on.
//  2. clean-up: control and format characters are dropped and every white space becomes a space; CJK ideographs get
//     spaces around them; accents are dropped (the marks, category Mn, of the decomposed form NFD); letters become
//     lower case, each by itself (no final sigma). A folder may say which of these are done (`wordpiece_settings`).
//  3. words: split at spaces; each punctuation character is a word of its own (Unicode's category P, and ASCII's
//     symbols such as $ and ^).
//  4. pieces: the longest entry of the vocabulary that begins the word, then the longest that begins the rest, and so
//     on; all but the first are entries with "##" before them. A word of more than 100 characters, or with a rest that
//     no entry begins, is one [UNK].
// [CLS] goes before and [SEP] behind; what is over the limit is cut from the end, [SEP] stays.
//
// Easy to get wrong: accents are dropped before, not after, letters become lower case; the ranges of ideographs are
// BERT's own, with a gap between two of them that Unicode has filled since; a word's length counts characters. Known to
// differ: Hugging Face's tables are of Unicode 8 here, utf8proc's of 14 or later. 504 characters that came or changed
// in between (386 marks, 105 punctuation marks and symbols, 13 format characters; listed in dev/tokenizer_fixtures.py)
// are treated as what they are now. BERT's vocabulary has none of them. Left out on purpose: pairs of texts, decoding.
#pragma once
#include "../gpt2.h"

typedef struct WordPiece WordPiece;
// of tokenizer.json, else vocab.txt; dies with one line naming the file
WordPiece *wordpiece_load(const char *dir);
void wordpiece_free(WordPiece *w);
// Ids of a UTF-8 text with [CLS] and [SEP], at most `limit` (0: any number), malloc'd, *n of them. NULL when it is not
// UTF-8: *n is the offset of the first bad byte.
int *wordpiece_encode(const WordPiece *w, const char *text, size_t bytes, size_t limit, size_t *n);
int wordpiece_vocab(const WordPiece *w);                // largest id + 1
uint64_t wordpiece_fingerprint(const WordPiece *w);     // of the vocabulary, whichever file it came from

#ifdef VBON_IMPLEMENTATION
#include "special.h"
#include "unicode.h"

struct WordPiece {
    Matcher first, rest;                                // all entries; those that begin with "##", without it
    Matcher special;                                    // special tokens, cut out of the raw text
    int unk, cls, sep;                                  // ids of [UNK], [CLS] and [SEP]
    int size;                                           // the largest id + 1
    bool clean;                                         // control characters are dropped
    bool ideographs;                                    // CJK ideographs get spaces around them
    bool strip, lower;                                  // accents are dropped; letters become lower case
    size_t max_chars;                                   // a longer word is one [UNK]
    uint64_t fingerprint;
};

// ----------------------------------------------------------------------------
// loading

static void wordpiece_add(WordPiece *w, const char *path, const char *s, int id)
{
    if (utf8_valid(s, strlen(s)) < strlen(s)) die("%s: token %d is not UTF-8", path, id);
    if (*s) matcher_add(&w->first, s, strlen(s), id);
    if (!strncmp(s, "##", 2) && s[2]) matcher_add(&w->rest, s + 2, strlen(s) - 2, id);
    if (id >= w->size) w->size = id + 1;
    uint64_t h = (uint64_t)id;
    for (const char *p = s; *p; p++) h = hash_more(h, (uint8_t)*p);
    w->fingerprint += mix64(h);                         // a sum, so that the order of the file does not matter
}

// What is done to a text: BERT's own classes go by tokenizer_config.json, whatever tokenizer.json says; other folders
// by tokenizer.json.
static void wordpiece_settings(WordPiece *w, const Special *s, json_t *norm, const char *path)
{
    const struct {
        bool *to;
        const char *bert, *json;
    } list[] = {{&w->lower, "do_lower_case", "lowercase"}, {&w->strip, "strip_accents", "strip_accents"},
        {&w->ideographs, "tokenize_chinese_chars", "handle_chinese_chars"}, {&w->clean, NULL, "clean_text"}};
    bool bert = s->rebuilt || !norm;
    for (int i = 0; i < 4; i++) {
        const char *key = bert ? list[i].bert : list[i].json;
        json_t *v = key ? json_object_get(bert ? s->settings : norm, key) : NULL;
        if (v && !json_is_boolean(v) && !json_is_null(v))
            die("%s: \"%s\" is neither true nor false", bert ? s->path[0] : path, key);
        *list[i].to = v && !json_is_null(v) ? json_is_true(v) : i == 1 ? w->lower : true;
    }
    if (bert && json_is_false(json_object_get(norm, "clean_text")))
        die("%s: \"clean_text\" is false, but transformers 5 cleans for a %s: name tokenizer_class "
            "PreTrainedTokenizerFast in %s",
            path, s->kind, s->path[0]);
    if (json_is_false(json_object_get(s->settings, "do_basic_tokenize")))
        die("%s: \"do_basic_tokenize\" is false, which is not supported", s->path[0]);
    uint64_t unusual = (w->lower ? 0 : 1) + (w->strip ? 0 : 2) + (w->ideographs ? 0 : 4) + (w->clean ? 0 : 8);
    if (unusual) w->fingerprint += mix64(unusual);
}

static void wordpiece_json(WordPiece *w, const char *path, json_t *j, const Special *special)
{
    json_t *model = json_object_get(j, "model"), *norm = json_object_get(j, "normalizer"), *v;
    const char *type = json_string_value(json_object_get(model, "type")),
               *n = json_string_value(json_object_get(norm, "type")), *s;
    const char *pre = json_string_value(json_object_get(json_object_get(j, "pre_tokenizer"), "type"));
    // old files do not name it
    if (type && strcmp(type, "WordPiece")) die("%s: a %s model: BERT's WordPiece is needed here", path, shown(type));
    if (!n || strcmp(n, "BertNormalizer") || !pre || strcmp(pre, "BertPreTokenizer"))
        die("%s: its normaliser and pre-tokeniser are not BERT's", path);
    const char *prefix = json_string_value(json_object_get(model, "continuing_subword_prefix"));
    if (prefix && strcmp(prefix, "##")) die("%s: pieces begin with \"%s\", not ##", path, shown(prefix));
    const char *unk = json_string_value(json_object_get(model, "unk_token"));
    if (unk && strcmp(unk, "[UNK]")) die("%s: unk_token %s is not supported: BERT's is [UNK]", path, shown(unk));
    // BertProcessing has cls and sep, TemplateProcessing the three in a row
    json_t *post = json_object_get(j, "post_processor"), *single = json_object_get(post, "single");
    const char *ends[] = {json_string_value(json_array_get(json_object_get(post, "cls"), 0)),
                          json_string_value(json_array_get(json_object_get(post, "sep"), 0))};
    for (size_t i = 0; i < 2 && json_array_size(single) == 3; i++)
        ends[i] =
            json_string_value(json_object_get(json_object_get(json_array_get(single, 2 * i), "SpecialToken"), "id"));
    if (!ends[0] || !ends[1] || strcmp(ends[0], "[CLS]") || strcmp(ends[1], "[SEP]"))
        die("%s: its post_processor does not put [CLS] before a text and [SEP] behind, as BERT's does", path);
    json_t *max = json_object_get(model, "max_input_chars_per_word");
    if (max && (!json_is_integer(max) || json_integer_value(max) < 1 || json_integer_value(max) > 10000))
        die("%s: max_input_chars_per_word is no valid number", path);
    if (max) w->max_chars = (size_t)json_integer_value(max);
    if (special->rebuilt && w->max_chars != 100)
        die("%s: max_input_chars_per_word is %zu, but transformers 5 takes 100 for a %s: name tokenizer_class "
            "PreTrainedTokenizerFast in %s",
            path, w->max_chars, special->kind, special->path[0]);
    json_object_foreach(json_object_get(model, "vocab"), s, v) {
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > 10000000)
            die("%s: token \"%s\" has no valid id", path, shown(s));
        wordpiece_add(w, path, s, (int)json_integer_value(v));
    }
}

static void wordpiece_txt(WordPiece *w, const char *path)
{
    Lines in;
    int id = 0;
    if (!lines_open(&in, path, false)) die("%s: cannot be read: %s", path, strerror(errno));
    for (; lines_next(&in); id++) { // a line an id, empty ones too
        char *line = in.buffer;
        size_t n = in.n;
        while (n && (line[n - 1] == '\n' || line[n - 1] == '\r')) line[--n] = 0;
        if (n) wordpiece_add(w, path, line, id);
    }
    lines_close(&in);
}

static int id_in_words(const void *w, const char *text) { return matcher_exact(&((const WordPiece *)w)->first, text); }

WordPiece *wordpiece_load(const char *dir)
{
    WordPiece *w = (WordPiece *)xcalloc(1, sizeof *w);
    char *json = format("%s/tokenizer.json", dir), *txt = format("%s/vocab.txt", dir);
    must_be_there(dir);
    json_t *j = !exists(json) ? NULL : json_file(json);
    const char *path = j ? json : txt;
    Special s;
    if (!j && !exists(txt)) die("%s: no tokenizer.json and no vocab.txt: copy the model's tokenizer there", dir);
    special_read(&s, dir, j, path);
    if (s.kind && s.rebuilt && !strstr(s.kind, "BertTokenizer"))
        die("%s: a %s: BERT's WordPiece is needed here", dir, s.kind);
    w->max_chars = 100;
    if (j) wordpiece_json(w, path, j, &s);
    else wordpiece_txt(w, path);
    wordpiece_settings(w, &s, json_object_get(j, "normalizer"), path);
    matcher_ready(&w->first);
    matcher_ready(&w->rest);
    static const struct {
        int name;
        const char *text;
    } needed[] = {{UNK, "[UNK]"}, {CLS, "[CLS]"}, {SEP, "[SEP]"}};
    int *ids[] = {&w->unk, &w->cls, &w->sep};
    for (int i = 0; i < 3; i++) {
        const char *named = s.name[needed[i].name];
        if (named ? strcmp(named, needed[i].text) : s.rebuilt)
            die("%s: %s %s is not supported: BERT's is %s", s.path[0], token_names[needed[i].name],
                named ? shown(named) : "null", needed[i].text);
        *ids[i] = matcher_exact(&w->first, needed[i].text);
        if (*ids[i] < 0) die("%s: no %s in the vocabulary: is it BERT's?", path, needed[i].text);
    }
    special_number(&s, id_in_words, w, (int)arrlen(w->first.list));
    for (size_t i = 0; i < arrlenu(s.added); i++) {
        const AddedToken *a = &s.added[i];
        if (a->normalized) die("%s: added token \"%s\": normalized is not supported", a->path, shown(a->text));
        matcher_add(&w->special, a->text, strlen(a->text), a->id);
        if (a->id >= w->size) w->size = a->id + 1;
    }
    matcher_ready(&w->special);
    special_free(&s);
    json_decref(j);
    free(json);
    free(txt);
    return w;
}

void wordpiece_free(WordPiece *w)
{
    matcher_free(&w->first);
    matcher_free(&w->rest);
    matcher_free(&w->special);
    free(w);
}
int wordpiece_vocab(const WordPiece *w) { return w->size; }
uint64_t wordpiece_fingerprint(const WordPiece *w) { return w->fingerprint; }

// ----------------------------------------------------------------------------
// characters

static bool is_ideograph(int32_t c)
{
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) ||
        (c >= 0x2a700 && c <= 0x2b73f) || (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
        (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

static bool is_dropped(int32_t c) // Cc, Cf, Co; the replacement character
{
    if (c < 128) return (c < 32 && c != '\t' && c != '\n' && c != '\r') || c == 127;
    utf8proc_category_t k = utf8proc_category(c);
    return c == 0xfffd || k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CF || k == UTF8PROC_CATEGORY_CO;
}

static bool is_blank(int32_t c)
{
    if (c < 128) return c == ' ' || (c >= 9 && c <= 13);
    utf8proc_category_t k = utf8proc_category(c);
    return c == 0x85 || k == UTF8PROC_CATEGORY_ZS || k == UTF8PROC_CATEGORY_ZL || k == UTF8PROC_CATEGORY_ZP;
}

static bool is_punctuation(int32_t c)
{
    if (c < 128) return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126);
    utf8proc_category_t k = utf8proc_category(c);
    return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO;
}

// Step 2: code points, malloc'd
static int32_t *normalised(const WordPiece *w, const char *s, size_t n, size_t *out_n)
{
    int32_t *c = (int32_t *)xmalloc((3 * n + 1) * sizeof *c);
    size_t at = 0, k = 0;
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t x;
        i += (size_t)utf8proc_iterate((const utf8proc_uint8_t *)s + i, (utf8proc_ssize_t)(n - i), &x);
        if (w->clean && is_dropped(x)) continue;
        bool ideograph = w->ideographs && is_ideograph(x);
        if (ideograph) c[at++] = ' ';
        c[at++] = is_blank(x) ? ' ' : x;
        if (ideograph) c[at++] = ' ';
    }
    if (w->strip) {
        int32_t *d = nfd(c, at, &at);
        for (size_t i = 0; i < at; i++)
            if (d[i] < 0x300 || utf8proc_category(d[i]) != UTF8PROC_CATEGORY_MN) d[k++] = d[i];
        free(c);
        c = d;
        at = k;
    }
    int32_t *out = (int32_t *)xmalloc((2 * at + 1) * sizeof *out);
    for (size_t i = k = 0; i < at; i++) {
        out[k++] = w->lower ? utf8proc_tolower(c[i]) : c[i];
        // the one character with a lower case of two
        if (w->lower && c[i] == 0x130) { out[k - 1] = 'i'; out[k++] = 0x307; }
    }
    free(c);
    *out_n = k;
    return out;
}

// ----------------------------------------------------------------------------
// pieces

static int *encode_wordpiece(const WordPiece *w, const int32_t *c, size_t n, int *out)
{
    if (n > w->max_chars) { arrput(out, w->unk); return out; }
    char *word = (char *)xmalloc(4 * n + 1);
    size_t bytes = 0, before = arrlenu(out);
    for (size_t i = 0; i < n; i++) bytes += (size_t)utf8proc_encode_char(c[i], (utf8proc_uint8_t *)word + bytes);
    for (size_t from = 0, length; from < bytes; from += length) {
        int found = matcher_find(from ? &w->rest : &w->first, word + from, bytes - from, &length);
        if (found < 0) { arrsetlen(out, before); arrput(out, w->unk); break; }
        arrput(out, found);
    }
    free(word);
    return out;
}

static int *encode_bert(const WordPiece *w, const char *s, size_t n, int *out)
{
    size_t len;
    int32_t *c = normalised(w, s, n, &len);
    for (size_t i = 0, j; i < len; i = j) {
        j = i + 1;
        if (c[i] == ' ') continue;
        if (!is_punctuation(c[i])) while (j < len && c[j] != ' ' && !is_punctuation(c[j])) j++;
        out = encode_wordpiece(w, c + i, j - i, out);
    }
    free(c);
    return out;
}

int *wordpiece_encode(const WordPiece *w, const char *text, size_t bytes, size_t limit, size_t *n)
{
    *n = utf8_valid(text, bytes);
    if (*n < bytes) return NULL;
    int *out = NULL;
    size_t from = 0;
    arrput(out, w->cls);
    for (size_t i = 0; i <= bytes;) {
        size_t length = 0;
        int found = i < bytes ? matcher_find(&w->special, text + i, bytes - i, &length) : -1;
        if (i < bytes && found < 0) { i++; continue; }
        if (i > from) out = encode_bert(w, text + from, i - from, out);
        if (found < 0) break;
        arrput(out, found);
        from = i += length;
    }
    if (limit && arrlenu(out) + 1 > limit) arrsetlen(out, limit - 1);
    arrput(out, w->sep);
    *n = arrlenu(out);
    int *ids = (int *)xmalloc(*n * sizeof *ids);
    memcpy(ids, out, *n * sizeof *ids);
    arrfree(out);
    return ids;
}
#endif
