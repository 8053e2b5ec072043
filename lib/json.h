// json.h: JSON files read, JSON records made: none of it half, and nothing that is no JSON written as null.
#ifndef JSON_H
#define JSON_H
#include "files.h"

json_t *json_file(const char *path);       // a new reference; dies naming file and line
json_t *json_settings(const char *path);   // all numbers as reals: some model_max_length is 1e30 in digits
json_t *json_make(const char *fmt, ...);   // json_pack and json_dumps that die
char *json_text(const json_t *j, size_t flags);
// Every number that is written goes through one of these: NaN and infinity die, naming what it is and the likeliest cause.
double must_be_finite(double x, const char *what, const char *cause);
json_t *json_number(double x, const char *what, const char *cause); // a new reference, never NULL
size_t bom_length(const char *s, size_t n); // of a byte order mark, which some editors put first: 3 or 0
void must_be_there(const char *folder);     // dies when it is not
#endif

#if defined(VBON_IMPLEMENTATION) && !defined(JSON_IMPLEMENTED)
#define JSON_IMPLEMENTED

size_t bom_length(const char *s, size_t n) { return n >= 3 && !memcmp(s, "\xef\xbb\xbf", 3) ? 3 : 0; }
void must_be_there(const char *folder) { if (!exists(folder)) die("%s: there is no such folder: is the path right?", folder); }

double must_be_finite(double x, const char *what, const char *cause)
{
    if (!isfinite(x)) die("%s is %s: %s", what, isnan(x) ? "not a number" : "infinite", cause);
    return x;
}

json_t *json_number(double x, const char *what, const char *cause)
{
    json_t *j = json_real(must_be_finite(x, what, cause));
    if (!j) die("out of memory");
    return j;
}

static json_t *json_read(const char *path, size_t flags)
{
    json_error_t e;
    size_t n;
    char *s = file_read(path, &n);
    if (!s) die("%s: cannot be read: %s", path, strerror(ENOENT));
    size_t bom = bom_length(s, n);
    json_t *j = json_loadb(s + bom, n - bom, flags, &e);
    if (!j) die("%s:%d: %s: is it whole?", path, e.line, e.text);
    free(s);
    return j;
}

json_t *json_file(const char *path) { return json_read(path, 0); }
json_t *json_settings(const char *path) { return json_read(path, JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL); }

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
