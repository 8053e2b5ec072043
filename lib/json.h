// json.h: JSON files read, JSON records made: none of it half, and nothing that is no JSON written as null.
#pragma once
#include "files.h"

// Integers beyond 64 bits, as some model_max_length, are made reals. NULL: e says why.
json_t *json_parse(const char *s, size_t n, size_t flags, json_error_t *e);
json_t *json_file(const char *path);       // a new reference; dies naming file and line
json_t *json_settings(const char *path);   // the same; what nobody reads may hold a NUL
json_t *json_make(const char *fmt, ...);   // json_pack and json_dumps that die
char *json_text(const json_t *j, size_t flags);
// Every number that is written goes through one of these: NaN and infinity die, naming what it is and the likeliest
// cause.
double must_be_finite(double x, const char *what, const char *cause);
json_t *json_number(double x, const char *what, const char *cause); // a new reference, never NULL
// Whether both are numbers of one value, as far as nine digits tell; also where one stands there as a text.
bool same_number(const json_t *a, const json_t *b);
size_t bom_length(const char *s, size_t n); // of a byte order mark, which some editors put first: 3 or 0
void must_be_there(const char *folder);     // dies when it is not

#ifdef VBON_IMPLEMENTATION
#include <ctype.h>

size_t bom_length(const char *s, size_t n) { return n >= 3 && !memcmp(s, "\xef\xbb\xbf", 3) ? 3 : 0; }
void must_be_there(const char *folder)
{
    if (!exists(folder)) die("%s: there is no such folder: is the path right?", folder);
}

double must_be_finite(double x, const char *what, const char *cause)
{
    if (!isfinite(x)) die("%s is %s: %s", what, isnan(x) ? "not a number" : "infinite", cause);
    return x;
}

static double number_in(const json_t *j) // NaN: none
{
    const char *s = json_string_value(j);
    char *end;
    if (!s) return json_is_number(j) ? json_number_value(j) : NAN;
    double x = strtod(s, &end);
    return end == s || *end ? NAN : x;
}

bool same_number(const json_t *a, const json_t *b)
{
    double x = number_in(a), y = number_in(b);
    return fabs(x - y) <= 1e-8 * fabs(x);
}

json_t *json_number(double x, const char *what, const char *cause)
{
    json_t *j = json_real(must_be_finite(x, what, cause));
    if (!j) die("out of memory");
    return j;
}

// jansson knows integers of 64 bits. Longer ones are made reals, by an exponent of 0; all others of the line stay
// exact. malloc'd.
static char *long_integers_as_reals(const char *s, size_t n)
{
    char *out = (char *)xmalloc(n + n / 9 + 1), *to = out; // two characters more for 19 at least
    bool text = false;
    for (size_t i = 0, k; i < n; i += k) {
        bool number = !text && (isdigit((unsigned char)s[i]) || s[i] == '-');
        k = number ? 1 + strspn(s + i + 1, "+-.0123456789eE") : text && s[i] == '\\' && i + 1 < n ? 2 : 1;
        text ^= s[i] == '"';
        memcpy(to, s + i, k);
        to += k;
        errno = 0;
        if (number && strcspn(s + i, ".eE") >= k && (strtoll(s + i, NULL, 10),
            errno == ERANGE)) { *to++ = 'e'; *to++ = '0'; }
    }
    *to = 0;
    return out;
}

json_t *json_parse(const char *s, size_t n, size_t flags, json_error_t *e)
{
    json_t *j = json_loadb(s, n, flags, e);
    if (j || json_error_code(e) != json_error_numeric_overflow) return j;
    char *mended = long_integers_as_reals(s, n);
    j = json_loads(mended, flags, e);
    free(mended);
    return j;
}

static json_t *json_read(const char *path, size_t flags)
{
    json_error_t e;
    size_t n;
    char *s = file_read(path, &n);
    if (!s) die("%s: cannot be read: %s", path, strerror(ENOENT));
    size_t bom = bom_length(s, n);
    json_t *j = json_parse(s + bom, n - bom, flags, &e);
    if (!j) die("%s:%d: %s: is it whole?", path, e.line, e.text);
    free(s);
    return j;
}

json_t *json_file(const char *path) { return json_read(path, 0); }
json_t *json_settings(const char *path) { return json_read(path, JSON_ALLOW_NUL); }

json_t *json_make(const char *fmt, ...)
{
    va_list ap;
    json_error_t e;
    va_start(ap, fmt);
    json_t *j = json_vpack_ex(&e, 0, fmt, ap);
    va_end(ap);
    if (!j) die("a record cannot be written as JSON: %s", e.text);
    return j;
}

char *json_text(const json_t *j, size_t flags)
{
    char *s = json_dumps(j, flags);
    if (!s) die("a record cannot be written as JSON");
    return s;
}
#endif
