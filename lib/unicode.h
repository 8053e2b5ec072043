// unicode.h: UTF-8 and normal forms, on utf8proc's tables.
//
// Whatever text enters (JSONL, flags, files) is checked by utf8_valid once, and errors name the byte. Normal forms are
// utf8proc's but for one step: it sorts combining marks by swapping neighbours, which takes hours for a megabyte of
// nothing else; here each run of marks is counted into order.
//
// utf8proc 2.8 has Unicode 14's tables; other versions know other characters. Left out on purpose: compatibility forms,
// grapheme clusters.
#pragma once
#include "../gpt2.h"

size_t utf8_valid(const char *s, size_t n);                      // the offset of the first byte that is not UTF-8, or n
// takes s; malloc'd, with U+FFFD where it is not UTF-8, once for each broken character
char *utf8_mend(char *s);
char *nfc(const char *s, size_t n, size_t *out_n);               // of valid UTF-8, malloc'd
int32_t *nfd(const int32_t *c, size_t n, size_t *out_n);         // code points in and out, malloc'd

#ifdef VBON_IMPLEMENTATION
#include <utf8proc.h>

size_t utf8_valid(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t c;
        if ((uint8_t)s[i] < 128) { i++; continue; }
        utf8proc_ssize_t len = utf8proc_iterate((const utf8proc_uint8_t *)s + i, (utf8proc_ssize_t)(n - i), &c);
        if (len < 1) return i;
        i += (size_t)len;
    }
    return n;
}

// How many bytes at s (n >= 1 are there) begin one character and end too soon: Unicode's "maximal subpart", as Python
// and Rust count
static size_t broken_length(const uint8_t *s, size_t n)
{
    uint8_t low = *s == 0xe0 ? 0xa0 : *s == 0xf0 ? 0x90 : 0x80, high = *s == 0xed ? 0x9f : *s == 0xf4 ? 0x8f : 0xbf;
    if (*s < 0xe0 || *s > 0xf4 || n < 2 || s[1] < low || s[1] > high) return 1;
    return *s < 0xf0 || n < 3 || (s[2] & 0xc0) != 0x80 ? 2 : 3;
}

char *utf8_mend(char *s)
{
    size_t n = strlen(s), good = utf8_valid(s, n), at = 0;
    if (good == n) return s;
    char *out = (char *)xmalloc(3 * n + 1);
    for (size_t i = 0; i < n; good = utf8_valid(s + i, n - i)) {
        memcpy(out + at, s + i, good);
        at += good;
        i += good;
        if (i == n) break;
        memcpy(out + at, "\xef\xbf\xbd", 3);
        at += 3;
        i += broken_length((const uint8_t *)s + i, n - i);
    }
    out[at] = 0;
    free(s);
    return out;
}

// Puts marks (from, to) of non-zero combining class into the order of their classes, equals as they stand
static void order_marks(int32_t *c, size_t n)
{
    size_t count[257] = {0};
    int32_t few[32], *out = n <= 32 ? few : (int32_t *)xmalloc(n * sizeof *out);
    for (size_t i = 0; i < n; i++) count[utf8proc_get_property(c[i])->combining_class + 1]++;
    for (int k = 1; k < 257; k++) count[k] += count[k - 1];
    for (size_t i = 0; i < n; i++) out[count[utf8proc_get_property(c[i])->combining_class]++] = c[i];
    memcpy(c, out, n * sizeof *c);
    if (out != few) free(out);
}

int32_t *nfd(const int32_t *c, size_t n, size_t *out_n)
{
    size_t cap = n + 32, at = 0;
    int32_t *out = (int32_t *)xmalloc(cap * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        // nothing below decomposes
        if (c[i] < 0xc0) {
            if (at + 1 > cap) out = (int32_t *)xrealloc(out, (cap *= 2) * sizeof *out);
            out[at++] = c[i];
            continue;
        }
        if (at + 32 > cap) out = (int32_t *)xrealloc(out, (cap = cap * 2 + 32) * sizeof *out);
        utf8proc_ssize_t k = utf8proc_decompose_char(c[i], out + at, (utf8proc_ssize_t)(cap - at),
                                                     UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, NULL);
        if (k < 0 || (size_t)k > cap - at) die("text cannot be normalised: %s", utf8proc_errmsg(k));
        at += (size_t)k;
    }
    for (size_t i = 0, j; i < at; i = j + 1) {
        bool sorted = true;
        for (j = i; j < at && out[j] >= 0x300 && utf8proc_get_property(out[j])->combining_class; j++)
            sorted &= j == i ||
                utf8proc_get_property(out[j - 1])->combining_class <= utf8proc_get_property(out[j])->combining_class;
        if (!sorted) order_marks(out + i, j - i);
    }
    *out_n = at;
    return out;
}

char *nfc(const char *s, size_t n, size_t *out_n)
{
    size_t plain = 0, len, at = 0;
    int32_t *c = (int32_t *)xmalloc((n + 1) * sizeof *c);
    while (plain < n && (uint8_t)s[plain] < 0xcc) plain++; // below U+0300 all text is in NFC
    if (plain < n) {
        len = 0;
        for (size_t i = 0; i < n; len++)
            i += (size_t)utf8proc_iterate((const utf8proc_uint8_t *)s + i, (utf8proc_ssize_t)(n - i), &c[len]);
        int32_t *d = nfd(c, len, &len);
        utf8proc_ssize_t k = utf8proc_normalize_utf32(d, (utf8proc_ssize_t)len, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        if (k < 0) die("text cannot be normalised: %s", utf8proc_errmsg(k));
        char *out = (char *)xmalloc(4 * (size_t)k + 1);
        for (utf8proc_ssize_t i = 0; i < k; i++) at += (size_t)utf8proc_encode_char(d[i], (utf8proc_uint8_t *)out + at);
        out[at] = 0;
        *out_n = at;
        free(c); free(d);
        return out;
    }
    free(c);
    char *out = (char *)xmalloc(n + 1);
    memcpy(out, s, n);
    out[n] = 0;
    *out_n = n;
    return out;
}
#endif
