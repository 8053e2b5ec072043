// log.h: log.jsonl for machines, step lines and progress bars for people, from the same numbers.
//
// log.jsonl begins with a config record (flags, version, device, libraries); then one record a line, flushed as it is written. Numbers are
// written with nine digits, NaN as null. Everything measured by a clock has a key that begins with "time/": apart from those a resumed run's log
// equals that of a run never stopped, for it is first cut back to the checkpoint.
#ifndef LOG_H
#define LOG_H
#include "../ppo.h"

typedef struct Log Log;
Log *log_open(const char *dir, json_t *config, bool append);  // config is taken over; append: go on with an existing log
void log_metrics(Log *l, const char *type, long step, const Metric *m, size_t n);
void log_close(Log *l);
void log_cut(const char *dir, long step);                     // drops records of later steps and a torn last line
void print_metrics(long step, const Metric *m, size_t n, const char *const *keys); // the chosen keys (NULL-terminated) in one line
typedef struct { const char *what, *unit; size_t total; double began, shown; size_t first; bool terminal; } Progress;
Progress progress_begin(const char *what, size_t total, size_t done, const char *unit); // done: of an earlier run
void progress_show(Progress *p, size_t done, const char *extra); // on a terminal a bar; else a line every ten seconds and at the end
#endif

#if defined(VBON_IMPLEMENTATION) && !defined(LOG_IMPLEMENTED)
#define LOG_IMPLEMENTED
#include "files.h"

struct Log { FILE *f; char *path; };

static void log_line(Log *l, char *line)
{
    if (fprintf(l->f, "%s\n", line) < 0 || fflush(l->f)) die("%s: cannot be written: %s", l->path, strerror(errno));
    free(line);
}

Log *log_open(const char *dir, json_t *config, bool append)
{
    Log *l = (Log *)xcalloc(1, sizeof *l);
    make_folder(dir);
    l->path = format("%s/log.jsonl", dir);
    append = append && !access(l->path, F_OK);
    l->f = fopen(l->path, append ? "a" : "w");
    if (!l->f) die("%s: cannot be written: %s", l->path, strerror(errno));
    if (!append) log_line(l, json_dumps(config, JSON_COMPACT | JSON_REAL_PRECISION(9)));
    json_decref(config);
    return l;
}

void log_close(Log *l)
{
    if (fclose(l->f)) die("%s: cannot be written: %s", l->path, strerror(errno));
    free(l->path);
    free(l);
}

void log_metrics(Log *l, const char *type, long step, const Metric *m, size_t n)
{
    char *line = format("{\"type\":\"%s\",\"step\":%ld", type, step);
    for (size_t i = 0; i < n; i++) {
        char *more = isfinite(m[i].value) ? format("%s,\"%s\":%.9g", line, m[i].key, m[i].value) : format("%s,\"%s\":null", line, m[i].key);
        free(line);
        line = more;
    }
    char *whole = format("%s}", line);
    free(line);
    log_line(l, whole);
}

void log_cut(const char *dir, long step)
{
    char *path = format("%s/log.jsonl", dir), *line = NULL;
    FILE *f = fopen(path, "r");
    size_t cap = 0;
    if (!f) { free(path); return; }
    AsideFile *a = aside_open(path);
    for (ssize_t n; (n = getline(&line, &cap, f)) > 0;) {
        json_t *j = line[n - 1] == '\n' ? json_loadb(line, (size_t)n, 0, NULL) : NULL, *s = json_object_get(j, "step");
        if (j && (!s || json_integer_value(s) <= step)) fwrite(line, 1, (size_t)n, a->f);
        json_decref(j);
    }
    aside_commit(a);
    fclose(f);
    free(line); free(path);
}

void print_metrics(long step, const Metric *m, size_t n, const char *const *keys)
{
    printf("step %ld", step);
    for (; *keys; keys++)
        for (size_t i = 0; i < n; i++)
            if (!strcmp(m[i].key, *keys)) printf(" | %s %.4g", *keys, m[i].value);
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
    return (Progress){.what = what, .unit = unit, .total = total, .began = now, .shown = now, .first = done, .terminal = isatty(2)};
}

void progress_show(Progress *p, size_t done, const char *extra)
{
    double now = clock_seconds(), spent = now - p->began, rate = spent > 0 ? (double)(done - p->first) / spent : 0;
    if (done < p->total && now - p->shown < (p->terminal ? 0.1 : 10)) return;
    p->shown = now;
    long eta = rate > 0 ? (long)((double)(p->total - done) / rate) : 0;
    if (!p->terminal) { fprintf(stderr, "%s %zu/%zu %s, %.3g/s, %ld s left %s\n", p->what, done, p->total, p->unit, rate, eta, extra ? extra : ""); return; }
    char bar[31] = "..............................";
    memset(bar, '#', p->total ? 30 * done / p->total : 30);
    fprintf(stderr, "\r%s [%s] %zu/%zu %s, %.3g/s, ETA %ld:%02ld %s\033[K%s", p->what, bar, done, p->total, p->unit, rate, eta / 60, eta % 60, extra ? extra : "", done >= p->total ? "\n" : "");
}
#endif
