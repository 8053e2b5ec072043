// wordpiece.h: BERT's uncased WordPiece, for reward models (lib/distilbert.h). Policies never use it, so it only encodes.
//
// A text goes through the steps of Hugging Face's BertTokenizerFast, in this order:
//  1. [UNK], [CLS], ... written in the text are cut out as they stand; what is between goes on.
//  2. clean-up: control and format characters go, every white space becomes a space; CJK ideographs get spaces around them;
//     accents go (NFD without Mn); lower case, each character by itself (no final sigma).
//  3. words: split at spaces; each punctuation character is a word of its own (Unicode's P, and ASCII's symbols such as $ and ^).
//  4. pieces: the longest entry of the vocabulary again and again, "##" before all but the first; a word of more than 100 characters, or with a
//     rest that no entry begins, is one [UNK].
// [CLS] goes before and [SEP] behind; what is over the limit is cut from the end, [SEP] stays.
//
// Easy to get wrong: accents go before, not after, the lower case; the ideographs' ranges are BERT's own, gap included; a word's length counts characters.
// Exceptions: Hugging Face's tables are of Unicode 8 here, utf8proc's of 14 or later. 504 characters that came or changed in between (386 marks, 105
// punctuation marks and symbols, 13 format characters; listed in dev/tokenizer_fixtures.py) are treated as what they are now. BERT's vocabulary has none of them.
// Left out on purpose: cased models (refused), pairs of texts, decoding.
#ifndef WORDPIECE_H
#define WORDPIECE_H
#include "../gpt2.h"

typedef struct WordPiece WordPiece;
WordPiece *wordpiece_load(const char *dir);             // of tokenizer.json, else vocab.txt; dies with one line naming the file
void wordpiece_free(WordPiece *w);
// Ids of a UTF-8 text with [CLS] and [SEP], at most `limit` (0: any number), malloc'd, *n of them. NULL when it is not UTF-8: *n is the offset of the first bad byte.
int *wordpiece_encode(const WordPiece *w, const char *text, size_t bytes, size_t limit, size_t *n);
int wordpiece_vocab(const WordPiece *w);                // largest id + 1
uint64_t wordpiece_fingerprint(const WordPiece *w);     // of the vocabulary, whichever file it came from
#endif

#if defined(VBON_IMPLEMENTATION) && !defined(WORDPIECE_IMPLEMENTED)
#define WORDPIECE_IMPLEMENTED
#include "files.h"
#include "unicode.h"

typedef struct { char *key; int value; } WordEntry;
struct WordPiece {
    WordEntry *first, *rest;                            // the vocabulary; its entries in "##", without that
    WordEntry *special;                                 // cut out of raw text
    int unk, cls, sep, size;
    size_t longest, max_chars;                          // bytes of the longest entry; characters of the longest word
    uint64_t fingerprint;
};

// ----------------------------------------------------------------------------
// loading

static void wordpiece_add(WordPiece *w, const char *path, const char *s, int id)
{
    if (utf8_valid(s, strlen(s)) < strlen(s)) die("%s: token %d is not UTF-8", path, id);
    shput(w->first, s, id);
    if (!strncmp(s, "##", 2) && s[2]) shput(w->rest, s + 2, id);
    if (strlen(s) > w->longest) w->longest = strlen(s);
    if (id >= w->size) w->size = id + 1;
    uint64_t h = (uint64_t)id;
    for (const char *p = s; *p; p++) h = mix64((h ^ (uint8_t)*p) + 0x9e3779b97f4a7c15ull);
    w->fingerprint += mix64(h);                         // a sum: in any order
}

static void wordpiece_json(WordPiece *w, const char *path)
{
    json_t *j = json_file(path), *model = json_object_get(j, "model"), *norm = json_object_get(j, "normalizer"), *v;
    const char *type = json_string_value(json_object_get(model, "type")), *n = json_string_value(json_object_get(norm, "type")), *s;
    const char *pre = json_string_value(json_object_get(json_object_get(j, "pre_tokenizer"), "type"));
    if (type && strcmp(type, "WordPiece")) die("%s: a %s model: BERT's WordPiece is needed here", path, shown(type)); // old files do not name it
    if (!n || strcmp(n, "BertNormalizer") || !pre || strcmp(pre, "BertPreTokenizer")) die("%s: its normaliser and pre-tokeniser are not BERT's", path);
    const char *on[] = {"lowercase", "clean_text", "handle_chinese_chars", "strip_accents"};
    for (int i = 0; i < 4; i++) if (json_is_false(json_object_get(norm, on[i]))) die("%s: \"%s\" is false: only BERT's uncased form is supported", path, on[i]);
    const char *prefix = json_string_value(json_object_get(model, "continuing_subword_prefix"));
    if (prefix && strcmp(prefix, "##")) die("%s: pieces begin with \"%s\", not ##", path, prefix);
    const char *unk = json_string_value(json_object_get(model, "unk_token"));
    if (unk && strcmp(unk, "[UNK]")) die("%s: unk_token %s is not supported: BERT's is [UNK]", path, shown(unk));
    json_t *post = json_object_get(j, "post_processor"), *single = json_object_get(post, "single"); // BertProcessing has cls and sep, TemplateProcessing the three in a row
    const char *ends[] = {json_string_value(json_array_get(json_object_get(post, "cls"), 0)), json_string_value(json_array_get(json_object_get(post, "sep"), 0))};
    for (size_t i = 0; i < 2 && json_array_size(single) == 3; i++) ends[i] = json_string_value(json_object_get(json_object_get(json_array_get(single, 2 * i), "SpecialToken"), "id"));
    if (!ends[0] || !ends[1] || strcmp(ends[0], "[CLS]") || strcmp(ends[1], "[SEP]")) die("%s: its post_processor does not put [CLS] before a text and [SEP] behind, as BERT's does", path);
    json_t *max = json_object_get(model, "max_input_chars_per_word");
    if (max && (!json_is_integer(max) || json_integer_value(max) < 1 || json_integer_value(max) > 10000)) die("%s: max_input_chars_per_word is no valid number", path);
    if (max) w->max_chars = (size_t)json_integer_value(max);
    json_object_foreach(json_object_get(model, "vocab"), s, v) {
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > 10000000) die("%s: token \"%s\" has no valid id", path, s);
        wordpiece_add(w, path, s, (int)json_integer_value(v));
    }
    size_t i;
    json_array_foreach(json_object_get(j, "added_tokens"), i, v) {
        const char *content = json_string_value(json_object_get(v, "content"));
        ptrdiff_t at = content ? shgeti(w->first, content) : -1;
        if (at < 0) die("%s: added token %zu is not in the vocabulary", path, i + 1);
        const char *off[] = {"lstrip", "rstrip", "single_word", "normalized"};
        for (int k = 0; k < 4; k++) if (json_is_true(json_object_get(v, off[k]))) die("%s: added token \"%s\": %s is not supported", path, content, off[k]);
        shput(w->special, content, w->first[at].value);
    }
    json_decref(j);
}

static void wordpiece_txt(WordPiece *w, const char *path)
{
    static const char *const specials[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
    FILE *f = fopen(path, "r");
    char *line = NULL;
    size_t cap = 0;
    int id = 0;
    if (!f) die("%s: cannot be read: %s", path, strerror(errno));
    for (ssize_t n; (n = getline(&line, &cap, f)) > 0; id++) { // a line an id, empty ones too
        while (n && (line[n - 1] == '\n' || line[n - 1] == '\r')) line[--n] = 0;
        if (n) wordpiece_add(w, path, line, id);
    }
    if (ferror(f)) die("%s: cannot be read: %s", path, strerror(errno));
    fclose(f);
    free(line);
    for (int i = 0; i < 5; i++) { ptrdiff_t at = shgeti(w->first, specials[i]); if (at >= 0) shput(w->special, specials[i], w->first[at].value); }
}

static void wordpiece_settings(const char *config)
{
    if (access(config, R_OK)) return;
    json_t *j = json_settings(config);
    const char *on[] = {"do_lower_case", "strip_accents", "tokenize_chinese_chars", "do_basic_tokenize"};
    static const char *const named[][2] = {{"unk_token", "[UNK]"}, {"cls_token", "[CLS]"}, {"sep_token", "[SEP]"}};
    for (int i = 0; i < 3; i++) {
        const char *s = json_token(j, named[i][0]);
        if (s && strcmp(s, named[i][1])) die("%s: %s %s is not supported: BERT's is %s", config, named[i][0], shown(s), named[i][1]);
    }
    for (int i = 0; i < 4; i++) if (json_is_false(json_object_get(j, on[i]))) die("%s: \"%s\" is false: only BERT's uncased form is supported", config, on[i]);
    json_decref(j);
}

WordPiece *wordpiece_load(const char *dir)
{
    WordPiece *w = (WordPiece *)xcalloc(1, sizeof *w);
    char *json = format("%s/tokenizer.json", dir), *txt = format("%s/vocab.txt", dir), *config = format("%s/tokenizer_config.json", dir);
    w->max_chars = 100;
    sh_new_arena(w->first); sh_new_arena(w->rest); sh_new_arena(w->special);
    bool from_json = !access(json, R_OK);
    must_be_there(dir);
    if (from_json) wordpiece_json(w, json);
    else if (!access(txt, R_OK)) wordpiece_txt(w, txt);
    else die("%s: no tokenizer.json and no vocab.txt: copy the model's tokenizer there", dir);
    wordpiece_settings(config);
    const char *needed[] = {"[UNK]", "[CLS]", "[SEP]"};
    int *ids[] = {&w->unk, &w->cls, &w->sep};
    for (int i = 0; i < 3; i++) {
        ptrdiff_t at = shgeti(w->first, needed[i]);
        if (at < 0) die("%s: no %s in the vocabulary: is it BERT's?", from_json ? json : txt, needed[i]);
        *ids[i] = w->first[at].value;
    }
    free(json); free(txt); free(config);
    return w;
}

void wordpiece_free(WordPiece *w) { shfree(w->first); shfree(w->rest); shfree(w->special); free(w); }
int wordpiece_vocab(const WordPiece *w) { return w->size; }
uint64_t wordpiece_fingerprint(const WordPiece *w) { return w->fingerprint; }

// ----------------------------------------------------------------------------
// characters

static bool is_ideograph(int32_t c)
{
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2b73f) ||
           (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) || (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

static bool is_dropped(int32_t c) // Cc, Cf, Co; the replacement character
{
    if (c < 128) return (c < 32 && c != '\t' && c != '\n' && c != '\r') || c == 127;
    utf8proc_category_t k = utf8proc_category(c);
    return c == 0xfffd || k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CF || k == UTF8PROC_CATEGORY_CO;
}

static bool is_blank(int32_t c)
{
    if (c < 128) return c == ' ' || c == '\t' || c == '\n' || c == '\r';
    utf8proc_category_t k = utf8proc_category(c);
    return k == UTF8PROC_CATEGORY_ZS || k == UTF8PROC_CATEGORY_ZL || k == UTF8PROC_CATEGORY_ZP;
}

static bool is_punctuation(int32_t c)
{
    if (c < 128) return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126);
    utf8proc_category_t k = utf8proc_category(c);
    return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO;
}

// Step 2: code points, malloc'd
static int32_t *normalised(const char *s, size_t n, size_t *out_n)
{
    int32_t *c = (int32_t *)xmalloc((3 * n + 1) * sizeof *c);
    size_t at = 0, k = 0;
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t x;
        i += (size_t)utf8proc_iterate((const utf8proc_uint8_t *)s + i, (utf8proc_ssize_t)(n - i), &x);
        if (is_dropped(x)) continue;
        bool ideograph = is_ideograph(x);
        if (ideograph) c[at++] = ' ';
        c[at++] = is_blank(x) ? ' ' : x;
        if (ideograph) c[at++] = ' ';
    }
    int32_t *d = nfd(c, at, &at);
    for (size_t i = 0; i < at; i++)
        if (d[i] < 0x300 || utf8proc_category(d[i]) != UTF8PROC_CATEGORY_MN) d[k++] = utf8proc_tolower(d[i]);
    free(c);
    *out_n = k;
    return d;
}

// ----------------------------------------------------------------------------
// pieces

static int *encode_wordpiece(const WordPiece *w, const int32_t *c, size_t n, int *out)
{
    if (n > w->max_chars) { arrput(out, w->unk); return out; }
    char *word = (char *)xmalloc(4 * n + 1);
    size_t bytes = 0, before = arrlenu(out);
    for (size_t i = 0; i < n; i++) bytes += (size_t)utf8proc_encode_char(c[i], (utf8proc_uint8_t *)word + bytes);
    word[bytes] = 0;
    for (size_t from = 0, end; from < bytes; from = end) {
        WordEntry *table = from ? w->rest : w->first;
        ptrdiff_t found = -1;
        for (end = bytes - from > w->longest ? from + w->longest : bytes; end > from; end--) {
            if (end < bytes && ((uint8_t)word[end] & 0xc0) == 0x80) continue; // inside a character
            char kept = word[end];
            word[end] = 0;
            found = shgeti(table, word + from);
            word[end] = kept;
            if (found >= 0) break;
        }
        if (found < 0) { arrsetlen(out, before); arrput(out, w->unk); break; }
        arrput(out, table[found].value);
    }
    free(word);
    return out;
}

static int *encode_bert(const WordPiece *w, const char *s, size_t n, int *out)
{
    size_t len;
    int32_t *c = normalised(s, n, &len);
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
        ptrdiff_t found = -1;
        size_t length = 0;
        for (size_t k = 0; i < bytes && k < shlenu(w->special); k++) {
            size_t m = strlen(w->special[k].key);
            if (m > length && m <= bytes - i && !memcmp(w->special[k].key, text + i, m)) { found = (ptrdiff_t)k; length = m; }
        }
        if (i < bytes && found < 0) { i++; continue; }
        if (i > from) out = encode_bert(w, text + from, i - from, out);
        if (found < 0) break;
        arrput(out, w->special[found].value);
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
