// safetensors.h: reading and writing Hugging Face's weight files.
//
// A file is eight bytes of header length, a JSON header of names, types, shapes and offsets, and the data
// (https://huggingface.co/docs/safetensors). It is trusted in nothing: lengths, offsets (no overlap, no hole, none
// outside the file), shapes and types are checked before any is used, for a weight file comes from strangers. A folder
// may hold one model.safetensors, or shards and model.safetensors.index.json. The file stays open and pieces of it are
// read when they are wanted: a file that shrinks, or a disk that fails, is an error with a name (under mmap it would be
// SIGBUS), and reading costs no more than mmap (500 MB: 1.30 s of one processor, by mmap 1.38).
//
// Left out on purpose: types nobody stores language models in (complex, fp8), pickles.
#pragma once
#include "../gpt2.h"

typedef struct {
    const char *name;
    DType type;
    int rank;         // dimensions
    size_t shape[8];
    size_t n;         // elements: the product of the shape
    const void *data; // of a file that is written: the elements, or NULL where safetensors_write gets a function
    int file;         // of a file that is read: its descriptor,
    size_t at;        // and the byte at which the elements begin
} Tensor;
typedef struct Safetensors Safetensors;
bool has_weights(const char *folder);
Safetensors *safetensors_open(const char *path);                       // a file or a folder; dies with one line
void safetensors_close(Safetensors *s);
const Tensor *safetensors_find(const Safetensors *s, const char *name); // NULL: not there
size_t safetensors_count(const Safetensors *s);
const Tensor *safetensors_at(const Safetensors *s, size_t i);
const char *safetensors_meta(const Safetensors *s, const char *key);    // of __metadata__; NULL: not there
const char *safetensors_path(const Safetensors *s);
// All elements as they stand in the file
void tensor_read(void *out, const Tensor *t, const char *path);
// Elements [first, first + n), exact up to real; NaN, infinity or a type that is no float dies.
void tensor_to_real(real *out, const Tensor *t, size_t first, size_t n, const char *path);
void real_to_type(void *out, DType type, const real *in, size_t n);     // rounds to nearest even
// Written under another name, flushed and renamed. meta: key, value, ..., NULL; or NULL. data(context, i) gives tensor
// i's elements, in order of i, good until the next call: so only one tensor at a time need exist in the file's form.
// Without that function they are tensors[i].data.
void safetensors_write(const char *path, const Tensor *tensors, size_t n, const char *const *meta,
                       const void *(*data)(void *, size_t), void *context);

#ifdef VBON_IMPLEMENTATION
#include "json.h"

// Bytes of a header at most. The format allows 100 MB, for which jansson would need gigabytes of memory; a model of
// 1000 blocks has a header of 3 MB.
enum { MOST_HEADER = 8 << 20 };
struct Safetensors {
    char *path;
    int *files;
    json_t **headers;                           // names point into them
    Tensor *tensors;
    struct { char *key; size_t value; } *index;
};

static const struct { const char *name; DType type;
} dtype_names[] = {{"F64", DT_F64}, {"F32", DT_F32}, {"F16", DT_F16}, {"BF16", DT_BF16},
                   {"I64", DT_I64}, {"I32", DT_I32}, {"U8", DT_U8},   {"BOOL", DT_U8}};

static int by_data(const void *a, const void *b)
{
    const Tensor *x = (const Tensor *)a, *y = (const Tensor *)b;
    return x->at != y->at ? (x->at > y->at) - (x->at < y->at) : (x->n > y->n) - (x->n < y->n);
}

static int read_at(int file, void *out, size_t bytes, size_t at) // 0, or errno; ENODATA: the file ends before
{
    for (ssize_t n; bytes; bytes -= (size_t)n, at += (size_t)n, out = (char *)out + n) {
        n = pread(file, out, bytes, (off_t)at);
        if (n < 0 && errno == EINTR) n = 0;
        else if (n <= 0) return n ? errno : ENODATA;
    }
    return 0;
}

NORETURN static void unreadable(const char *path, const char *what, int why)
{
    die("%s: %s cannot be read: %s", path, what,
        why == ENODATA ? "the file has become shorter: is something writing to it?" : strerror(why));
}

static void open_file(Safetensors *s, const char *path)
{
    int fd = readable(path, false), why;
    struct stat st;
    if (fd < 0 || fstat(fd, &st)) die("%s: cannot be read: %s", path, strerror(errno));
    size_t bytes = (size_t)st.st_size;
    uint8_t length[8];
    if (bytes < 8) die("%s: too short for a safetensors file: download it again", path);
    if ((why = read_at(fd, length, 8, 0))) unreadable(path, "its beginning", why);
    uint64_t header = 0;
    for (int i = 7; i >= 0; i--) header = header << 8 | length[i];
    if (header > MOST_HEADER)
        die("%s: its header claims %llu bytes, %d MiB are read at most: not a safetensors file, or none of a language "
            "model's",
            path, (unsigned long long)header, MOST_HEADER >> 20);
    if (header > bytes - 8)
        die("%s: its header claims %llu bytes, the file has %zu: truncated; download it again", path,
            (unsigned long long)header, bytes);
    char *text = (char *)xmalloc((size_t)header);
    if ((why = read_at(fd, text, (size_t)header, 8))) unreadable(path, "its header", why);
    json_error_t e;
    json_t *j = json_loadb(text, (size_t)header, JSON_REJECT_DUPLICATES, &e), *v;
    free(text);
    if (!json_is_object(j))
        die("%s: header: %s (at byte %d): download it again", path, j ? "not an object" : shown(e.text),
            j ? 0 : e.position);
    const char *name;
    const size_t data = 8 + (size_t)header;
    size_t room = bytes - data, first = arrlenu(s->tensors), end = 0;
    json_object_foreach(j, name, v) {
        if (!strcmp(name, "__metadata__")) continue;
        if (shown(name) != name) die("%s: a tensor's name has control characters: not a weight file to trust", path);
        Tensor t = {.name = name, .n = 1};
        const char *type = json_string_value(json_object_get(v, "dtype"));
        json_t *shape = json_object_get(v, "shape"), *offsets = json_object_get(v, "data_offsets");
        size_t k = 0, known = sizeof dtype_names / sizeof *dtype_names;
        while (k < known && (!type || strcmp(type, dtype_names[k].name))) k++;
        if (k == known)
            die("%s: tensor %s: type %s is not supported: convert it to F32, F16 or BF16", path, name, shown(type));
        t.type = dtype_names[k].type;
        if (!json_is_array(shape) || json_array_size(shape) > 8) die("%s: tensor %s: no valid shape", path, name);
        t.rank = (int)json_array_size(shape);
        for (int d = 0; d < t.rank; d++) {
            json_int_t x = json_integer_value(json_array_get(shape, (size_t)d));
            if (!json_is_integer(json_array_get(shape, (size_t)d)) || x < 0 ||
                (x > 0 && t.n > SIZE_MAX / 16 / (size_t)x))
                die("%s: tensor %s: no valid shape", path, name);
            t.n *= t.shape[d] = (size_t)x;
        }
        json_int_t a = json_integer_value(json_array_get(offsets, 0)),
                   b = json_integer_value(json_array_get(offsets, 1));
        bool whole = json_array_size(offsets) == 2 && json_is_integer(json_array_get(offsets, 0)) &&
            json_is_integer(json_array_get(offsets, 1));
        if (!whole)
            die("%s: tensor %s: data_offsets must be two whole numbers: not a valid safetensors file", path, name);
        if (a < 0 || b < a || (size_t)b > room)
            die("%s: tensor %s: offsets %lld..%lld outside the file's %zu bytes of data: truncated?", path, name,
                (long long)a, (long long)b, room);
        if ((size_t)(b - a) != t.n * dtype_size(t.type))
            die("%s: tensor %s: %lld bytes for %zu elements of %s", path, name, (long long)(b - a), t.n, type);
        t.file = fd;
        t.at = data + (size_t)a;
        if (shgeti(s->index, name) >= 0) die("%s: tensor %s stands in two shards", path, name);
        shput(s->index, name, 0);
        arrput(s->tensors, t);
    }
    size_t n = arrlenu(s->tensors) - first;
    Tensor *sorted = (Tensor *)xmalloc((n + 1) * sizeof *sorted);
    if (n) memcpy(sorted, s->tensors + first, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_data);
    for (size_t i = 0; i < n; i++) {
        size_t at = sorted[i].at - data;
        if (at != end)
            die("%s: tensor %s: its data %s: not a valid safetensors file", path, sorted[i].name,
                at < end ? "overlaps another's" : "leaves a hole");
        end = at + sorted[i].n * dtype_size(sorted[i].type);
    }
    if (end != room)
        die("%s: %zu bytes of data, the tensors take %zu: truncated or not a safetensors file", path, room, end);
    free(sorted);
    arrput(s->files, fd);
    arrput(s->headers, j);
}

bool has_weights(const char *folder)
{
    char *one = format("%s/model.safetensors", folder), *index = format("%s/model.safetensors.index.json", folder);
    bool has = exists(one) || exists(index);
    free(one); free(index);
    return has;
}

Safetensors *safetensors_open(const char *path)
{
    Safetensors *s = (Safetensors *)xcalloc(1, sizeof *s);
    sh_new_strdup(s->index);
    if (!is_folder(path)) {
        s->path = xstrdup(path);
        open_file(s, path);
    } else {
        char *one = format("%s/model.safetensors", path), *index = format("%s/model.safetensors.index.json", path);
        if (exists(one)) { s->path = xstrdup(one); open_file(s, one); }
        else if (exists(index)) {
            s->path = xstrdup(index);
            json_t *j = json_file(index), *map = json_object_get(j, "weight_map"), *v;
            const char *name, *shard;
            struct { char *key; int value; } *seen = NULL;
            sh_new_strdup(seen);
            if (!json_is_object(map)) die("%s: no weight_map: download it again", index);
            json_object_foreach(map, name, v) {
                shard = json_string_value(v);
                if (!shard || !*shard || strchr(shard, '/') || shown(shard) != shard)
                    die("%s: weight_map: %s has no valid file name", index, shown(name));
                if (shgeti(seen, shard) >= 0) continue;
                shput(seen, shard, 1);
                char *file = format("%s/%s", path, shard);
                open_file(s, file);
                free(file);
            }
            json_object_foreach(map, name, v) if (shgeti(s->index, name) < 0)
                die("%s: %s is in none of the shards: download them again", index, shown(name));
            shfree(seen);
            json_decref(j);
        } else
            die("%s: no model.safetensors and no model.safetensors.index.json: convert or download the weights", path);
        free(one); free(index);
    }
    for (size_t i = 0; i < arrlenu(s->tensors); i++) shput(s->index, s->tensors[i].name, i);
    return s;
}

void safetensors_close(Safetensors *s)
{
    for (size_t i = 0; i < arrlenu(s->files); i++) { close(s->files[i]); json_decref(s->headers[i]); }
    arrfree(s->files); arrfree(s->headers); arrfree(s->tensors); shfree(s->index);
    free(s->path);
    free(s);
}

const Tensor *safetensors_find(const Safetensors *s, const char *name)
{
    Safetensors *w = (Safetensors *)s; // looking up writes to the map's scratch
    ptrdiff_t i = shgeti(w->index, name);
    return i < 0 ? NULL : &s->tensors[s->index[i].value];
}
size_t safetensors_count(const Safetensors *s) { return arrlenu(s->tensors); }
const Tensor *safetensors_at(const Safetensors *s, size_t i) { return &s->tensors[i]; }
const char *safetensors_path(const Safetensors *s) { return s->path; }
const char *safetensors_meta(const Safetensors *s, const char *key)
{
    for (size_t i = 0; i < arrlenu(s->headers); i++) {
        const char *v = json_string_value(json_object_get(json_object_get(s->headers[i], "__metadata__"), key));
        if (v) return v;
    }
    return NULL;
}

// ----------------------------------------------------------------------------
// number types

static inline float half_to_float(uint16_t h) // without branches, so that loops of it vectorise
{
    union {
        uint32_t u;
        float f;
    } b = {(uint32_t)(h & 0x7fff) << 13}, wide = {(uint32_t)(h & 0x7fff) << 13 | 0x7f800000};
    b.f *= 0x1p112f;                                // moves the exponent's bias, subnormals too
    b.u = (h & 0x7c00) == 0x7c00 ? wide.u : b.u;    // infinity and NaN
    b.u |= (uint32_t)(h & 0x8000) << 16;
    return b.f;
}

static uint16_t double_to_half(double x)
{
    uint16_t sign = signbit(x) ? 0x8000 : 0;
    double a = fabs(x);
    if (isnan(x)) return sign | 0x7e00;
    if (a == 0) return sign;                        // frexp gives 0 no exponent
    if (a >= 65520) return sign | 0x7c00;
    int e;
    frexp(a, &e);                                   // a = f 2^e, f in [.5, 1)
    int q = e - 11 < -24 ? -24 : e - 11;            // the unit of the last place
    long m = lrint(ldexp(a, -q));                   // ties to even in the default rounding mode
    // a carry out of m raises the exponent as it should
    return sign | (uint16_t)(q == -24 ? m : ((q + 25) << 10) + (m - 1024));
}

void tensor_read(void *out, const Tensor *t, const char *path)
{
    int why = read_at(t->file, out, t->n * dtype_size(t->type), t->at);
    if (why) unreadable(path, t->name, why);
}

void tensor_to_real(real *out, const Tensor *t, size_t first, size_t n, const char *path)
{
    enum { PART = 16384 };
    size_t size = dtype_size(t->type);
    if (t->type != DT_F64 && t->type != DT_F32 && t->type != DT_F16 && t->type != DT_BF16)
        die("%s: tensor %s holds integers, weights must be F64, F32, F16 or BF16", path, t->name);
    int why = 0;
    size_t broken = SIZE_MAX; // the first element that is not finite
    #pragma omp parallel for schedule(static) reduction(max:why) reduction(min:broken) if (n > 4 * PART)
    for (size_t at = 0; at < n; at += PART) {
        size_t k = n - at < PART ? n - at : PART;
        real *o = out + at;
        char piece[PART * sizeof(double)], *p = t->type == DT_REAL ? (char *)o : piece;
        uint16_t h;
        int error = read_at(t->file, p, k * size, t->at + (first + at) * size);
        if (error) { why = error; continue; }
        if (t->type == DT_REAL) {
        } else if (t->type == DT_F32)
            for (size_t i = 0; i < k; i++) {
                float f;
                memcpy(&f, p + 4 * i, 4);
                o[i] = (real)f;
            }
        else if (t->type == DT_F64)
            for (size_t i = 0; i < k; i++) {
                double d;
                memcpy(&d, p + 8 * i, 8);
                o[i] = (real)d;
            }
        else if (t->type == DT_F16)
            for (size_t i = 0; i < k; i++) {
                memcpy(&h, p + 2 * i, 2);
                o[i] = (real)half_to_float(h);
            }
        else for (size_t i = 0; i < k; i++) { memcpy(&h, p + 2 * i, 2); o[i] = (real)bf16_value(h); }
        int bad = 0;
        for (size_t i = 0; i < k; i++) bad |= !(o[i] - o[i] == 0);
        for (size_t i = 0; bad && i < k; i++) if (!isfinite(o[i]) && at + i < broken) broken = at + i;
    }
    if (why) unreadable(path, t->name, why);
    if (broken == SIZE_MAX) return;
    double x = NAN;
    if (t->type == DT_F64) why = read_at(t->file, &x, sizeof x, t->at + (first + broken) * size);
    if (why) unreadable(path, t->name, why);
    die("%s: tensor %s: element %zu is %s: the weights are broken", path, t->name, first + broken,
        isfinite(x) ? "out of range" : "not finite");
}

void real_to_type(void *out, DType type, const real *in, size_t n)
{
    #pragma omp parallel for schedule(static) if (n > 65536)
    for (size_t i = 0; i < n; i++)
        switch (type) {
        case DT_F64: ((double *)out)[i] = (double)in[i]; break;
        case DT_F32: ((float *)out)[i] = (float)in[i]; break;
        case DT_F16: ((uint16_t *)out)[i] = double_to_half((double)in[i]); break;
        case DT_BF16: ((uint16_t *)out)[i] = bf16_round((float)in[i]); break;
        case DT_I64: case DT_I32: case DT_U8: case DT_PACKED:
            die("weights cannot be written as type %d: a bug, please report it", type);
        }
}

void safetensors_write(const char *path, const Tensor *tensors, size_t n, const char *const *meta,
                       const void *(*data)(void *, size_t), void *context)
{
    json_t *j = json_object();
    if (meta) {
        json_t *m = json_object();
        for (size_t i = 0; meta[i]; i += 2) json_object_set_new(m, meta[i], json_string(meta[i + 1]));
        json_object_set_new(j, "__metadata__", m);
    }
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const Tensor *t = &tensors[i];
        const char *type = NULL;
        for (size_t k = 0; k < sizeof dtype_names / sizeof *dtype_names - 1; k++)
            if (dtype_names[k].type == t->type) type = dtype_names[k].name;
        if (!type || json_object_get(j, t->name))
            die("%s: tensor %s stands twice or has no type of the format: a bug, please report it", path, t->name);
        json_t *shape = json_array();
        for (int d = 0; d < t->rank; d++) json_array_append_new(shape, json_integer((json_int_t)t->shape[d]));
        size_t bytes = t->n * dtype_size(t->type);
        int bad = json_object_set_new(j, t->name,
                                      json_make("{s:s, s:o, s:[I,I]}", "dtype", type, "shape", shape, "data_offsets",
                                                (json_int_t)at, (json_int_t)(at + bytes)));
        if (bad) die("%s: tensor %zu: its name is not UTF-8: a bug, please report it", path, i);
        at += bytes;
    }
    char *header = json_text(j, JSON_COMPACT);
    size_t len = strlen(header), pad = (8 - len % 8) % 8; // the data begins at a multiple of eight
    AsideFile *a = aside_open(path);
    for (int i = 0; i < 8; i++) fputc((int)((uint64_t)(len + pad) >> (8 * i) & 255), a->f);
    fwrite(header, 1, len, a->f);
    fprintf(a->f, "%*s", (int)pad, "");
    for (size_t i = 0; i < n; i++)
        fwrite(data ? data(context, i) : tensors[i].data, dtype_size(tensors[i].type), tensors[i].n, a->f);
    aside_commit(a);
    free(header);
    json_decref(j);
}
#endif
