// json.h: JSON files read, JSON records made: none of it half, and nothing that is no JSON written as null.
#ifndef JSON_H
#define JSON_H
#include "files.h"

json_t *json_file(const char *path);       // a new reference; dies naming file and line
json_t *json_settings(const char *path);   // all numbers as reals: some model_max_length is 1e30 in digits
const char *json_token(json_t *j, const char *key); // a token's text: a string, or an object's "content"; or NULL
json_t *json_make(const char *fmt, ...);   // json_pack and json_dumps that die
char *json_text(const json_t *j, size_t flags);
#endif

#if defined(VBON_IMPLEMENTATION) && !defined(JSON_IMPLEMENTED)
#define JSON_IMPLEMENTED

static json_t *json_read(const char *path, size_t flags)
{
    json_error_t e;
    size_t n;
    char *s = file_read(path, &n);
    if (!s) die("%s: cannot be read: %s", path, strerror(ENOENT));
    json_t *j = json_loadb(s, n, flags, &e);
    if (!j) die("%s:%d: %s: is it whole?", path, e.line, e.text);
    free(s);
    return j;
}

json_t *json_file(const char *path) { return json_read(path, 0); }
json_t *json_settings(const char *path) { return json_read(path, JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL); }

const char *json_token(json_t *j, const char *key)
{
    json_t *v = json_object_get(j, key);
    return json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
}

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
