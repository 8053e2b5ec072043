// bpe.h: byte-level BPE tokenizers from Hugging Face folders (tokenizer.json, or vocab.json and merges.txt).
//
// Text goes through four steps, as in Hugging Face's tokenizers library (https://github.com/huggingface/tokenizers):
// special tokens such as <|endoftext|> are cut out where they stand (lib/special.h); the rest is normalised if the
// tokenizer says so (NFC or nothing); GPT-2's pattern splits it into words; and each word's bytes are merged, the pair
// of the lowest rank first. The pattern is written out by hand (`next_word`):
//     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// A word's merges use a linked list and a heap, so a megabyte without a single space costs n log n, not n^2.
//
// Easy to get wrong:
//  - Vocabularies spell bytes as printable characters (byte 0x20 is U+0120), and a token need not be valid UTF-8.
//  - \s is Unicode's White_Space. A run of spaces before a word leaves its last one to the word.
//  - GPT-NeoX's runs of spaces are added tokens, and are cut out before anything else.
// Known to differ: Hugging Face's NFC does not know the combining classes of 99 marks that came with Unicode 10 to 14
// (listed in dev/tokenizer_fixtures.py), so beside another mark they stand in another order there. Nothing else is
// known. Left out on purpose: training (dev/make_bpe.py), other pre-tokenisers, offsets, truncation, and the
// post-processor: no token is put around a text.
#pragma once
#include "../gpt2.h"

typedef struct Tokenizer Tokenizer;
Tokenizer *tokenizer_load(const char *dir);          // dies with one line naming the file
void tokenizer_free(Tokenizer *t);
// Ids of a UTF-8 text, malloc'd, *n of them. NULL when the text is not UTF-8: *n is the offset of the first bad byte.
int *tokenizer_encode(const Tokenizer *t, const char *text, size_t bytes, size_t *n);
// malloc'd, NUL-terminated; exactly the tokens' bytes. bytes may be NULL
char *tokenizer_decode(const Tokenizer *t, const int *ids, size_t n, size_t *bytes);
int tokenizer_vocab(const Tokenizer *t);             // largest id + 1
// What ends a text: the tokenizer's eos_token (lib/special.h), else the eos_token_id of generation_config.json, or of
// config.json where that is missing; -1: none. Dies when they differ, or name an ordinary word. tokenizer_end does so
// only if an end is `needed`, else it says on stderr which is taken.
int tokenizer_eos(const Tokenizer *t);
int tokenizer_end(const Tokenizer *t, bool needed);
uint64_t tokenizer_fingerprint(const Tokenizer *t);  // of vocabulary and merges, whichever files they came from
void tokenizer_copy(const char *from_dir, const char *to_dir); // the files of a tokenizer, and what generation goes by

#ifdef VBON_IMPLEMENTATION
#include "special.h"
#include "unicode.h"

typedef struct {
    uint64_t pair; // id of the left token << 32 | id of the right one
    int id;        // of the token that they become
} Merge;
struct Tokenizer {
    struct { char *key; int value; } *vocab;  // ids of tokens in the vocabulary's own spelling
    Merge *merges;                            // in the order of the file: an index is a rank, the lowest goes first
    int *rank_of; size_t slots;               // a hash table (open addressing): the rank of the merge of a pair, or -1
    struct { char *bytes; size_t n; } *token; // (size) the bytes that each id stands for; NULL: the id is not in use
    Matcher added[2];                         // special tokens: those looked for before normalisation, and those after
    int byte_id[256];                         // the token of each single byte
    int size;                                 // the largest id + 1
    int eos;                                  // the token that ends a text, or -1
    char *doubt;                              // why eos may not end a text, or NULL
    bool nfc;                                 // texts are normalised to Unicode's form NFC
    uint64_t fingerprint;
};

// ----------------------------------------------------------------------------
// bytes as printable characters: 33-126, 161-172 and 174-255 stand for themselves, the other 68 for U+0100 on

static int byte_char(int byte)
{
    static int table[256];
    if (!table['!']) {
        int next = 256;
        for (int b = 0; b < 256; b++)
            table[b] = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174 ? b : next++;
    }
    return table[byte];
}

// The bytes a vocabulary entry spells, malloc'd; characters outside the alphabet (added tokens) stand for their own
// bytes.
static char *spelled_bytes(const char *s, size_t *n)
{
    static int byte_of[512];
    if (!byte_of['!']) for (int b = 0; b < 256; b++) byte_of[byte_char(b)] = b + 1;
    char *out = (char *)xmalloc(strlen(s) + 1);
    *n = 0;
    for (const utf8proc_uint8_t *p = (const utf8proc_uint8_t *)s; *p;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t len = utf8proc_iterate(p, -1, &c);
        if (len < 1) break;
        if (c < 512 && byte_of[c]) out[(*n)++] = (char)(byte_of[c] - 1);
        else { memcpy(out + *n, p, (size_t)len); *n += (size_t)len; }
        p += len;
    }
    out[*n] = 0;
    return out;
}

// ----------------------------------------------------------------------------
// loading

static void set_token(Tokenizer *t, int id, char *bytes, size_t n)
{
    while (t->size <= id) { arrput(t->token, ((__typeof__(*t->token)){NULL, 0})); t->size++; }
    free(t->token[id].bytes);
    t->token[id].bytes = bytes;
    t->token[id].n = n;
}

static void load_vocab(Tokenizer *t, const char *path, json_t *vocab)
{
    const char *s;
    json_t *v;
    if (!json_is_object(vocab)) die("%s: no vocabulary: is it a byte-level BPE?", path);
    sh_new_arena(t->vocab);
    json_object_foreach(vocab, s, v) {
        json_int_t id = json_integer_value(v);
        if (!json_is_integer(v) || id < 0 || id > 10000000) die("%s: token \"%s\" has no valid id", path, s);
        size_t n;
        char *bytes = spelled_bytes(s, &n);
        if (id < t->size && t->token[id].bytes) die("%s: id %d is given twice", path, (int)id);
        set_token(t, (int)id, bytes, n);
        shput(t->vocab, s, (int)id);
    }
    for (int b = 0; b < 256; b++) {
        char s2[5] = {0};
        utf8proc_encode_char(byte_char(b), (utf8proc_uint8_t *)s2);
        ptrdiff_t i = shgeti(t->vocab, s2);
        t->byte_id[b] = i < 0 ? -1 : t->vocab[i].value;
    }
}

static void add_merge(Tokenizer *t, const char *path, size_t line, const char *a, const char *b)
{
    char *ab = (char *)xmalloc(strlen(a) + strlen(b) + 1);
    strcat(strcpy(ab, a), b);
    ptrdiff_t ia = shgeti(t->vocab, a), ib = shgeti(t->vocab, b), iab = shgeti(t->vocab, ab);
    if (ia < 0 || ib < 0 || iab < 0) die("%s: merge %zu, \"%s %s\": not in the vocabulary", path, line, a, b);
    arrput(t->merges,
           ((Merge){(uint64_t)t->vocab[ia].value << 32 | (uint32_t)t->vocab[ib].value, t->vocab[iab].value}));
    free(ab);
}

static size_t pair_slot(const Tokenizer *t, uint64_t pair)
{
    size_t i = mix64(pair) & (t->slots - 1);
    while (t->rank_of[i] >= 0 && t->merges[t->rank_of[i]].pair != pair) i = (i + 1) & (t->slots - 1);
    return i;
}

static void index_merges(Tokenizer *t)
{
    for (t->slots = 64; t->slots < 4 * arrlenu(t->merges);) t->slots *= 2;
    t->rank_of = (int *)xmalloc(t->slots * sizeof(int));
    for (size_t i = 0; i < t->slots; i++) t->rank_of[i] = -1;
    for (size_t r = 0; r < arrlenu(t->merges); r++) // where a pair has two merges, the last counts
        t->rank_of[pair_slot(t, t->merges[r].pair)] = (int)r;
}

static void load_tokenizer_json(Tokenizer *t, const char *path, json_t *j)
{
    json_t *model = json_object_get(j, "model"), *merges = json_object_get(model, "merges"),
           *norm = json_object_get(j, "normalizer"), *v;
    json_t *pre = json_object_get(j, "pre_tokenizer"), *post = json_object_get(j, "post_processor");
    const char *post_type = json_string_value(json_object_get(post, "type")),
               *type = json_string_value(json_object_get(model, "type")),
               *pre_type = json_string_value(json_object_get(pre, "type"));
    size_t i;
    if (type && strcmp(type, "BPE")) die("%s: a %s model: only byte-level BPE is supported here", path, type);
    if (json_is_true(json_object_get(model, "byte_fallback")) ||
        json_is_true(json_object_get(model, "ignore_merges")) ||
        json_number_value(json_object_get(model, "dropout")) > 0)
        die("%s: byte_fallback, ignore_merges and dropout are not supported", path);
    const char *affix[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (int k = 0; k < 2; k++) {
        const char *s = json_string_value(json_object_get(model, affix[k]));
        if (s && *s) die("%s: %s is not supported", path, affix[k]);
    }
    if (!pre_type || strcmp(pre_type, "ByteLevel") || json_is_true(json_object_get(pre, "add_prefix_space")) ||
        json_is_false(json_object_get(pre, "use_regex")))
        die("%s: its pre-tokeniser is not GPT-2's ByteLevel without prefix space", path);
    if (json_is_object(norm)) {
        const char *n = json_string_value(json_object_get(norm, "type"));
        if (!n || strcmp(n, "NFC")) die("%s: normaliser %s is not supported (only NFC)", path, n ? n : "?");
        t->nfc = true;
    }
    bool adds = json_is_object(post) && (!post_type || strcmp(post_type, "ByteLevel"));
    if (adds && post_type && !strcmp(post_type, "TemplateProcessing"))
        adds = json_array_size(json_object_get(post, "single")) != 1 ||
            !json_object_get(json_array_get(json_object_get(post, "single"), 0), "Sequence");
    if (adds) die("%s: post_processor %s is not supported: no token is put around a text", path, shown(post_type));
    load_vocab(t, path, json_object_get(model, "vocab"));
    if (!json_is_array(merges)) die("%s: no merges: is it whole?", path);
    json_array_foreach(merges, i, v) { // "a b", or ["a","b"]
        if (json_is_array(v) && json_is_string(json_array_get(v, 0)) && json_is_string(json_array_get(v, 1))) {
            add_merge(t, path, i + 1, json_string_value(json_array_get(v, 0)), json_string_value(json_array_get(v, 1)));
            continue;
        }
        const char *s = json_string_value(v), *space = s ? strchr(s, ' ') : NULL;
        if (!space) die("%s: merge %zu is not a pair", path, i + 1);
        char *a = strndup(s, (size_t)(space - s));
        add_merge(t, path, i + 1, a, space + 1);
        free(a);
    }
}

static void load_vocab_merges(Tokenizer *t, const char *vocab_path, const char *merges_path)
{
    json_t *j = json_file(vocab_path);
    load_vocab(t, vocab_path, j);
    json_decref(j);
    Lines in;
    if (!lines_open(&in, merges_path, false)) die("%s: missing: a folder with vocab.json needs it", merges_path);
    while (lines_next(&in)) {
        char *line = in.buffer;
        size_t len = in.n, n = in.line;
        while (len && (line[len - 1] == '\n' || line[len - 1] == '\r')) line[--len] = 0;
        if (!len || (n == 1 && !strncmp(line, "#version", 8))) continue;
        char *space = strchr(line, ' ');
        if (!space) die("%s:%zu: not a pair", merges_path, n);
        *space = 0;
        add_merge(t, merges_path, n, line, space + 1);
    }
    lines_close(&in);
}

static int id_in_vocab(const void *tokenizer, const char *text)
{
    const Tokenizer *t = (const Tokenizer *)tokenizer;
    ptrdiff_t i = shgeti(((Tokenizer *)t)->vocab, text);
    return i < 0 ? -1 : t->vocab[i].value;
}

static void load_added(Tokenizer *t, Special *s, const char *path)
{
    special_number(s, id_in_vocab, t, (int)shlen(t->vocab));
    bool said = s->kind || json_object_get(s->settings, token_names[EOS]) || json_object_get(s->map, token_names[EOS]);
    if (!said && (special_id(s, EOT) >= 0 || id_in_vocab(t, EOT) >= 0)) {
        // No file says what ends a text: then it is what ends one in GPT-2 and GPT-NeoX.
        s->name[EOS] = xstrdup(EOT);
        if (special_id(s, EOT) < 0) special_add(s, EOT, path, id_in_vocab(t, EOT), false, true);
    }
    for (size_t i = 0; i < arrlenu(s->added); i++) {
        AddedToken *a = &s->added[i];
        size_t n = strlen(a->text);
        char *match = a->normalized && t->nfc ? nfc(a->text, n, &n) : xstrdup(a->text); // looked for in normalised text
        matcher_add(&t->added[a->normalized], match, n, a->id);
        set_token(t, a->id, match, n);
    }
    matcher_ready(&t->added[0]);
    matcher_ready(&t->added[1]);
}

// Whether it is a byte's token or one that merges make: such tokens occur inside texts, so none of them can mark an
// end.
static bool is_word(const Tokenizer *t, int id)
{
    for (int b = 0; b < 256; b++) if (t->byte_id[b] == id) return true;
    for (size_t i = 0; i < arrlenu(t->merges); i++) if (t->merges[i].id == id) return true;
    return false;
}

static void load_end(Tokenizer *t, const Special *s, const char *dir)
{
    char *generation = format("%s/generation_config.json", dir), *config = format("%s/config.json", dir),
         *path = !exists(generation) ? config : generation;
    json_t *j = !exists(path) ? json_object() : json_settings(path), *base = json_object_get(j, "base_config"),
           *v = json_object_get(base ? base : j, "eos_token_id");
    const char *named = s->name[EOS];
    t->eos = special_id(s, named);
    size_t n = json_is_array(v) ? json_array_size(v) : v && !json_is_null(v);
    for (size_t i = 0; i < n; i++) { // the ids at which generation stops in transformers
        json_t *one = json_is_array(v) ? json_array_get(v, i) : v;
        double id = json_number_value(one);
        if (!json_is_number(one) || id != floor(id))
            die("%s: \"eos_token_id\" is no token's number, nor a list of them", path);
        if (!(id >= 0 && id < t->size) || !t->token[(int)id].bytes) continue; // no text ever holds it
        if (t->eos < 0) t->eos = (int)id;
        else if (id == t->eos || t->doubt) continue;
        else if (named)
            t->doubt =
                format("%s: \"eos_token_id\" is %.0f, the tokenizer's %s is %d: which ends a text? make them agree",
                       path, id, shown(named), t->eos);
        else t->doubt = format("%s: \"eos_token_id\" names %d and %.0f: which ends a text?", path, t->eos, id);
    }
    for (size_t i = 0; i < arrlenu(s->added) && named; i++)
        if (s->added[i].invented && s->added[i].id == t->eos) {
            free(t->doubt);
            t->doubt = format("%s: eos_token %s is not in the vocabulary, and would be token %d, which no file names: "
                              "name one that is",
                s->added[i].path, shown(named), t->eos);
        }
    if (!t->doubt && t->eos >= 0 && is_word(t, t->eos))
        t->doubt = format("%s: \"%s\" is token %d, \"%s\", an ordinary word that ends no text: name a token of its own",
            named ? s->path[0] : path, named ? "eos_token" : "eos_token_id", t->eos, shown(t->token[t->eos].bytes));
    json_decref(j);
    free(generation);
    free(config);
}

Tokenizer *tokenizer_load(const char *dir)
{
    Tokenizer *t = (Tokenizer *)xcalloc(1, sizeof *t);
    char *path = format("%s/tokenizer.json", dir), *vocab = format("%s/vocab.json", dir),
         *merges = format("%s/merges.txt", dir);
    must_be_there(dir);
    json_t *j = !exists(path) ? NULL : json_file(path);
    Special s;
    if (!j && !exists(vocab))
        die("%s: no tokenizer.json, and no vocab.json with merges.txt: copy the model's tokenizer there", dir);
    special_read(&s, dir, j, j ? path : vocab);
    if (!j && s.kind && !s.rebuilt)
        die("%s: vocab.json and merges.txt make no %s: name tokenizer_class GPT2Tokenizer", s.path[0], s.kind);
    if (j) load_tokenizer_json(t, path, j);
    else load_vocab_merges(t, vocab, merges);
    if (!j) t->nfc = s.nfc;
    else if (s.rebuilt && t->nfc != s.nfc)
        die("%s: normaliser %s, but transformers 5 takes %s for a %s: name tokenizer_class PreTrainedTokenizerFast in "
            "%s",
            path, t->nfc ? "NFC" : "none", s.nfc ? "NFC" : "none", s.kind, s.path[0]);
    load_added(t, &s, j ? path : vocab);
    load_end(t, &s, dir);
    uint64_t h = (uint64_t)t->size;
    for (int i = 0; i < t->size; i++)
        for (size_t k = 0; k <= t->token[i].n; k++)
            h = hash_more(h, k < t->token[i].n ? (uint8_t)t->token[i].bytes[k] : 256u);
    for (size_t i = 0; i < arrlenu(t->merges); i++) h = hash_more(h, t->merges[i].pair);
    t->fingerprint = h;
    index_merges(t);
    special_free(&s);
    json_decref(j);
    free(path);
    free(vocab);
    free(merges);
    return t;
}

void tokenizer_free(Tokenizer *t)
{
    for (int i = 0; i < t->size; i++) free(t->token[i].bytes);
    matcher_free(&t->added[0]); matcher_free(&t->added[1]);
    arrfree(t->token); shfree(t->vocab); arrfree(t->merges); free(t->rank_of); free(t->doubt);
    free(t);
}

int tokenizer_vocab(const Tokenizer *t) { return t->size; }
int tokenizer_eos(const Tokenizer *t) { return tokenizer_end(t, true); }
int tokenizer_end(const Tokenizer *t, bool needed)
{
    if (t->doubt && needed) die("%s", t->doubt);
    if (t->doubt) fprintf(stderr, "vbon: note: %s; %d is taken\n", t->doubt, t->eos);
    return t->eos;
}
uint64_t tokenizer_fingerprint(const Tokenizer *t) { return t->fingerprint; }

// ----------------------------------------------------------------------------
// words

typedef enum { LETTER, NUMBER, SPACE, OTHER } CharClass;
static CharClass char_class(int c)
{
    if (c < 128)
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ? LETTER
            : c >= '0' && c <= '9'                              ? NUMBER
            : c == ' ' || (c >= 9 && c <= 13)                   ? SPACE
                                                                : OTHER;
    if (c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
        c == 0x202f || c == 0x205f || c == 0x3000)
        return SPACE;
    utf8proc_category_t k = utf8proc_category(c);
    return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO ? LETTER
        : k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO  ? NUMBER
                                                                  : OTHER;
}

static CharClass class_at(const char *s, const char *end, size_t *len)
{
    if ((uint8_t)*s < 128) { *len = 1; return char_class(*s); }
    utf8proc_int32_t c;
    *len = (size_t)utf8proc_iterate((const utf8proc_uint8_t *)s, end - s, &c);
    return char_class(c);
}

// The end of the word that starts at s < end, by GPT-2's pattern
static const char *next_word(const char *s, const char *end)
{
    static const char *const contractions[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    size_t len;
    if (*s == '\'')
        for (int i = 0; i < 7; i++) {
            size_t n = strlen(contractions[i]);
            if ((size_t)(end - s) >= n && !memcmp(s, contractions[i], n)) return s + n;
        }
    const char *p = *s == ' ' ? s + 1 : s; // " ?" before a run of letters, numbers, or neither
    if (p < end) {
        CharClass k = class_at(p, end, &len);
        if (k != SPACE) {
            while (p < end && class_at(p, end, &len) == k) p += len;
            return p;
        }
    }
    const char *last = s; // white space: up to the end of the text all of it, before a word all but the last
    for (p = s; p < end && class_at(p, end, &len) == SPACE; p += len) last = p;
    return p == end || last == s ? p : last;
}

// ----------------------------------------------------------------------------
// merges: the lowest rank first, the leftmost of equals
//
// A word is a list of places, at first one a byte. Each place knows the rank of its merge with its right neighbour, and
// a heap holds rank << 32 | place of all that can be merged. A merge changes the ranks beside it; what the heap says of
// those places is then out of date, which shows by the rank, and is passed over when it comes up.

typedef struct { // growing arrays, reused from word to word
    int *id;          // the token at a place
    int *prev, *next; // its neighbours, or -1
    int *rank;        // of its merge with the next, or -1
    uint64_t *heap;   // smallest first, each node with four children
    size_t n_heap;
} Merger;

static void heap_push(Merger *m, uint64_t c)
{
    size_t i = m->n_heap++;
    if (m->n_heap > arrlenu(m->heap)) arrput(m->heap, c);
    for (; i > 0 && c < m->heap[(i - 1) / 4]; i = (i - 1) / 4) m->heap[i] = m->heap[(i - 1) / 4];
    m->heap[i] = c;
}

static uint64_t heap_pop(Merger *m)
{
    uint64_t top = m->heap[0], c = m->heap[--m->n_heap];
    size_t i = 0, child;
    while ((child = 4 * i + 1) < m->n_heap) {
        size_t end = child + 4 < m->n_heap ? child + 4 : m->n_heap, least = child;
        for (size_t k = child + 1; k < end; k++) if (m->heap[k] < m->heap[least]) least = k;
        if (m->heap[least] >= c) break;
        m->heap[i] = m->heap[least];
        i = least;
    }
    m->heap[i] = c;
    return top;
}

static void consider(const Tokenizer *t, Merger *m, int left)
{
    int right = m->next[left];
    m->rank[left] = right < 0 ? -1 : t->rank_of[pair_slot(t, (uint64_t)m->id[left] << 32 | (uint32_t)m->id[right])];
    if (m->rank[left] >= 0) heap_push(m, (uint64_t)m->rank[left] << 32 | (uint32_t)left);
}

static int *encode_word(const Tokenizer *t, Merger *m, const char *s, size_t n, int *out)
{
    arrsetlen(m->id, n); arrsetlen(m->prev, n); arrsetlen(m->next, n); arrsetlen(m->rank, n);
    m->n_heap = 0;
    for (size_t i = 0; i < n; i++) {
        m->id[i] = t->byte_id[(uint8_t)s[i]];
        if (m->id[i] < 0) die("byte 0x%02x has no token in the vocabulary: it is not a byte-level BPE", (uint8_t)s[i]);
        m->prev[i] = (int)i - 1;
        m->next[i] = i + 1 < n ? (int)i + 1 : -1;
    }
    for (size_t i = 0; i < n; i++) consider(t, m, (int)i);
    while (m->n_heap) {
        uint64_t c = heap_pop(m);
        int left = (int)(uint32_t)c, right = m->next[left];
        if (m->rank[left] != (int)(c >> 32)) continue;
        m->id[left] = t->merges[m->rank[left]].id;
        m->rank[right] = -1;
        m->next[left] = m->next[right];
        if (m->next[right] >= 0) m->prev[m->next[right]] = left;
        if (m->prev[left] >= 0) consider(t, m, m->prev[left]);
        consider(t, m, left);
    }
    for (int i = 0; i >= 0 && n; i = m->next[i]) arrput(out, m->id[i]);
    return out;
}

static int *encode_plain(const Tokenizer *t, Merger *m, const char *s, size_t n, int *out)
{
    for (const char *end = s + n, *e; s < end; s = e) {
        e = next_word(s, end);
        out = encode_word(t, m, s, (size_t)(e - s), out);
    }
    return out;
}

// Cuts out the longest added token at each place, those matched before (false) or after (true) normalisation; what is
// between goes on.
static int *encode_added(const Tokenizer *t, Merger *m, const char *s, size_t n, bool normalized, int *out)
{
    size_t from = 0;
    for (size_t i = 0; i <= n;) {
        size_t length = 0;
        int found = i < n ? matcher_find(&t->added[normalized], s + i, n - i, &length) : -1;
        if (i < n && found < 0) { i++; continue; }
        if (i > from) {
            if (normalized) out = encode_plain(t, m, s + from, i - from, out);
            else if (!t->nfc) out = encode_added(t, m, s + from, i - from, true, out);
            else {
                size_t len;
                char *text = nfc(s + from, i - from, &len);
                out = encode_added(t, m, text, len, true, out);
                free(text);
            }
        }
        if (found < 0) break;
        arrput(out, found);
        from = i += length;
    }
    return out;
}

int *tokenizer_encode(const Tokenizer *t, const char *text, size_t bytes, size_t *n)
{
    *n = utf8_valid(text, bytes);
    if (*n < bytes) return NULL;
    Merger m = {0};
    int *out = encode_added(t, &m, text, bytes, false, NULL);
    *n = arrlenu(out);
    int *ids = (int *)xmalloc(*n * sizeof *ids);
    if (*n) memcpy(ids, out, *n * sizeof *ids);
    arrfree(m.id); arrfree(m.prev); arrfree(m.next); arrfree(m.rank); arrfree(m.heap); arrfree(out);
    return ids;
}

char *tokenizer_decode(const Tokenizer *t, const int *ids, size_t n, size_t *bytes)
{
    size_t total = 0, at = 0;
    for (size_t i = 0; i < n; i++) total += ids[i] >= 0 && ids[i] < t->size ? t->token[ids[i]].n : 0;
    char *s = (char *)xmalloc(total + 1);
    for (size_t i = 0; i < n; i++) {
        // a padded vocabulary's unused ids are nothing
        if (ids[i] < 0 || ids[i] >= t->size || !t->token[ids[i]].bytes) continue;
        memcpy(s + at, t->token[ids[i]].bytes, t->token[ids[i]].n);
        at += t->token[ids[i]].n;
    }
    s[at] = 0;
    if (bytes) *bytes = at;
    return s;
}

static const char *const tokenizer_files[] = {"tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "generation_config.json", NULL};
void tokenizer_copy(const char *from_dir, const char *to_dir)
{
    for (int i = 0; tokenizer_files[i]; i++) {
        char *from = format("%s/%s", from_dir, tokenizer_files[i]), *to = format("%s/%s", to_dir, tokenizer_files[i]);
        size_t n;
        char *whole = strcmp(from, to) ? file_read(from, &n) : NULL;
        if (whole) {
            AsideFile *a = aside_open(to);
            fwrite(whole, 1, n, a->f);
            aside_commit(a);
        }
        free(from); free(to); free(whole);
    }
}
#endif
