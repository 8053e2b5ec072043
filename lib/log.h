// log.h: log.jsonl for machines, step lines and progress bars for people, from the same numbers.
//
// log.jsonl begins with a config record (flags, version, device, libraries); then one record a line, flushed as it is
// written. Numbers are written with nine digits; NaN, which stands for what was not measured, as null; infinity is an
// error. Everything measured by a clock has a key that begins with "time/": apart from those a resumed run's log equals
// that of a run never stopped, for it is first cut back to the checkpoint.
#pragma once
#include "../ppo.h"

typedef struct Log Log;
// config is taken over; append: go on with an existing log
Log *log_open(const char *dir, json_t *config, bool append);
void log_metrics(Log *l, const char *type, long step, const Metric *m, size_t n);
void log_close(Log *l);
void log_cut(const char *dir, long step);                     // drops records of later steps and a torn last line
// the chosen keys (NULL-terminated) in one line
void print_metrics(long step, const Metric *m, size_t n, const char *const *keys);
typedef struct { const char *what, *unit; size_t total; double began, shown; size_t first; bool terminal; } Progress;
Progress progress_begin(const char *what, size_t total, size_t done, const char *unit); // done: of an earlier run
// on a terminal a bar; else a line every ten seconds and at the end
void progress_show(Progress *p, size_t done, const char *extra);

#ifdef VBON_IMPLEMENTATION
#include "json.h"

struct Log { Append file; };

static void log_line(Log *l, char *line)
{
    char *whole = format("%s\n", line);
    append_write(&l->file, whole, strlen(whole));
    free(line); free(whole);
}

Log *log_open(const char *dir, json_t *config, bool append)
{
    Log *l = (Log *)xcalloc(1, sizeof *l);
    make_folder(dir);
    char *path = format("%s/log.jsonl", dir);
    append_open(&l->file, path);
    if (!append) append_cut(&l->file, 0);
    if (!l->file.whole) log_line(l, json_text(config, JSON_COMPACT | JSON_REAL_PRECISION(9)));
    json_decref(config);
    free(path);
    return l;
}

void log_close(Log *l)
{
    append_close(&l->file);
    free(l);
}

void log_metrics(Log *l, const char *type, long step, const Metric *m, size_t n)
{
    char *line = format("{\"type\":\"%s\",\"step\":%ld", type, step);
    for (size_t i = 0; i < n; i++) {
        char *more = isnan(m[i].value) ? format("%s,\"%s\":null", line, m[i].key)
            : format("%s,\"%s\":%.9g", line, m[i].key, must_be_finite(m[i].value, m[i].key,
                "training has diverged: lower --lr"));
        free(line);
        line = more;
    }
    char *whole = format("%s}", line);
    free(line);
    log_line(l, whole);
}

void log_cut(const char *dir, long step)
{
    char *path = format("%s/log.jsonl", dir);
    Lines in;
    if (!lines_open(&in, path, false)) { free(path); return; }
    AsideFile *a = aside_open(path);
    bool torn = false;
    while (lines_next(&in)) {
        // only a last line can be one that was being written
        if (torn) die("%s:%zu: no record: mend or delete that line", path, in.line - 1);
        json_t *j = in.buffer[in.n - 1] == '\n' ? json_loadb(in.buffer, in.n, 0, NULL) : NULL;
        json_t *s = json_object_get(j, "step");
        torn = !json_is_object(j) || (s && !json_is_integer(s));
        if (!torn && (!s || json_integer_value(s) <= step)) fwrite(in.buffer, 1, in.n, a->f);
        json_decref(j);
    }
    aside_commit(a);
    lines_close(&in);
    free(path);
}

void print_metrics(long step, const Metric *m, size_t n, const char *const *keys)
{
    printf("step %ld", step);
    for (; *keys; keys++)
        for (size_t i = 0; i < n; i++)
            if (!strcmp(m[i].key, *keys)) { if (isnan(m[i].value)) printf(" | %s -", *keys); else printf(" | %s %.4g",
                *keys, m[i].value); }
    putchar('\n');
    fflush(stdout);
}

static double clock_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

Progress progress_begin(const char *what, size_t total, size_t done, const char *unit)
{
    double now = clock_seconds();
    return (Progress){
        .what = what, .unit = unit, .total = total, .began = now, .shown = now, .first = done, .terminal = isatty(2)};
}

void progress_show(Progress *p, size_t done, const char *extra)
{
    double now = clock_seconds(), spent = now - p->began, rate = spent > 0 ? (double)(done - p->first) / spent : 0;
    if (done < p->total && now - p->shown < (p->terminal ? 0.1 : 10)) return;
    p->shown = now;
    long eta = rate > 0 ? (long)((double)(p->total - done) / rate) : 0;
    if (!p->terminal) {
        fprintf(stderr, "%s %zu/%zu %s, %.3g/s, %ld s left %s\n", p->what, done, p->total, p->unit, rate, eta,
                extra ? extra : "");
        return;
    }
    char bar[31] = "..............................";
    memset(bar, '#', p->total ? 30 * done / p->total : 30);
    fprintf(stderr, "\r%s [%s] %zu/%zu %s, %.3g/s, ETA %ld:%02ld %s\033[K%s", p->what, bar, done, p->total, p->unit,
            rate, eta / 60, eta % 60, extra ? extra : "", done >= p->total ? "\n" : "");
}
#endif
