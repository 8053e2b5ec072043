// log.h: log.jsonl for machines, step lines and progress bars for people, from the same numbers.
//
// log.jsonl begins with a config record (flags, version, device, libraries); then one record a line, flushed as it is
// written. Numbers are written with nine digits; what was not measured or is not defined (NaN) is left out; infinity is
// an error. "step" counts train's iterations, and the optimiser steps of the other commands. Everything measured by a
// clock has a key that begins with "time/": apart from those a resumed run's log equals that of a run never stopped,
// for it is first cut back to the checkpoint.
#pragma once
#include "../ppo.h"

typedef struct Log Log;
// config is taken over; append: go on with an existing log
Log *log_open(const char *dir, json_t *config, bool append);
Log *trace_open(const char *dir); // trace.jsonl (trace.h), kept and cut as log.jsonl is; goes on with what is there
void trace_remove(const char *dir);
void log_record(Log *l, json_t *record);                      // as a line; record is taken over
void log_metrics(Log *l, const char *type, long step, const Metric *m, size_t n);
void log_close(Log *l);
void log_cut(const char *dir, long step);                     // drops records of later steps and a torn last line
// One line for people: what was done of how many, some of the metrics by short names, all of one width, and seconds;
// NaN is left out. columns: NULL-terminated.
typedef struct { const char *key, *name; } Column;
void print_metrics(const char *what, long done, long total, const Metric *m, size_t n, const Column *columns,
                   double seconds);
// A bar on a terminal, as wide as that has room for, drawn anew ten times a second; elsewhere a line every ten seconds;
// and a last line that stays. Other lines take the bar's place, and it comes again below them.
typedef struct { const char *what, *unit; size_t total; double began, shown; size_t first; bool terminal; } Progress;
Progress progress_begin(const char *what, size_t total, size_t done, const char *unit); // done: before this run
void progress_show(Progress *p, size_t done, const char *extra); // extra: NULL, or a few words
void progress_clear(void); // takes the bar away, before a line is written in its place

#ifdef VBON_IMPLEMENTATION
#include "json.h"

static bool lines_on_stdout; // of `sample` and `bon` without --out: what is said beside them goes to stderr
static FILE *notes(void) { return lines_on_stdout ? stderr : stdout; }

struct Log { Append file; };

static void log_line(Log *l, char *line)
{
    char *whole = format("%s\n", line);
    append_write(&l->file, whole, strlen(whole));
    free(line); free(whole);
}

void log_record(Log *l, json_t *record)
{
    log_line(l, json_text(record, JSON_COMPACT | JSON_REAL_PRECISION(9)));
    json_decref(record);
}

static Log *log_open_file(const char *dir, const char *name, bool append)
{
    Log *l = (Log *)xcalloc(1, sizeof *l);
    make_folder(dir);
    char *path = format("%s/%s", dir, name);
    append_open(&l->file, path);
    if (!append) append_cut(&l->file, 0);
    free(path);
    return l;
}

Log *log_open(const char *dir, json_t *config, bool append)
{
    Log *l = log_open_file(dir, "log.jsonl", append);
    if (!l->file.whole) log_record(l, json_incref(config));
    json_decref(config);
    return l;
}

Log *trace_open(const char *dir) { return log_open_file(dir, "trace.jsonl", true); }

void trace_remove(const char *dir)
{
    char *path = format("%s/trace.jsonl", dir);
    remove_file(path);
    free(path);
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
        if (isnan(m[i].value)) continue;
        char *more = format("%s,\"%s\":%.9g", line, m[i].key, must_be_finite(m[i].value, m[i].key,
            "training has diverged: lower --lr"));
        free(line);
        line = more;
    }
    char *whole = format("%s}", line);
    free(line);
    log_line(l, whole);
}

static void log_cut_file(const char *dir, const char *name, long step)
{
    char *path = format("%s/%s", dir, name);
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

void log_cut(const char *dir, long step)
{
    log_cut_file(dir, "log.jsonl", step);
    log_cut_file(dir, "trace.jsonl", step);
}

void print_metrics(const char *what, long done, long total, const Metric *m, size_t n, const Column *columns,
                   double seconds)
{
    progress_clear();
    printf("%s %*ld/%ld", what, snprintf(NULL, 0, "%ld", total), done, total);
    for (const Column *c = columns; c->key; c++)
        for (size_t i = 0; i < n; i++) {
            double x = m[i].value;
            if (strcmp(m[i].key, c->key) || isnan(x)) continue;
            printf(fabs(x) < 100 || (x > 0 && x < 1000) ? " | %s %7.3f" : " | %s %7.1e", c->name, x);
        }
    if (!isnan(seconds)) printf(" | %6.2f s", seconds);
    putchar('\n');
    fflush(stdout);
}

static double clock_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool bar_stands; // on the terminal's last line
void progress_clear(void)
{
    static const char erase[] = "\r\033[K";
    if (bar_stands && write(2, erase, sizeof erase - 1) < 0) {} // nothing to be done: a signal may have brought us here
    bar_stands = false;
}

Progress progress_begin(const char *what, size_t total, size_t done, const char *unit)
{
    double now = clock_seconds();
    const char *term = getenv("TERM");
    bool terminal = !parallel_rank() && isatty(2) && strcmp(term ? term : "dumb", "dumb");
    if (terminal) clean_at_end(progress_clear);
    if (!parallel_rank()) before_message = progress_clear;
    return (Progress){
        .what = what, .unit = unit, .total = total, .began = now, .shown = now, .first = done, .terminal = terminal};
}

static char *rate_text(double rate) { return format(rate < 100 ? "%.3g/s" : "%.0f/s", rate); }
static char *time_text(double seconds)
{
    if (seconds < 60) return format("%.*f s", seconds < 10, seconds);
    long s = lround(seconds);
    return s < 3600 ? format("%ld:%02ld", s / 60, s % 60) : format("%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
}

void progress_show(Progress *p, size_t done, const char *extra)
{
    double now = clock_seconds(), spent = now - p->began, rate = spent > 0 ? (double)(done - p->first) / spent : 0;
    bool last = done >= p->total;
    if (parallel_rank()) return; // rank 0 tells
    if (!last && now - p->shown < (p->terminal ? 0.1 : 10)) return;
    p->shown = now;
    char *speed = rate_text(rate), *time = time_text(last ? spent : rate > 0 ? (double)(p->total - done) / rate : 0);
    char *say = format(last ? "%zu/%zu %s in %s, %s" : "%zu/%zu %s, %s left, %s", done, p->total, p->unit, time, speed);
    if (extra && *extra) { char *more = format("%s, %s", say, extra); free(say); say = more; }
    progress_clear();
    if (last || !p->terminal) fprintf(stderr, "%s %s\n", p->what, say);
    else {
        // the last column stays free: some terminals go on in the next line once it is written
        size_t width = terminal_width(2) - 1, taken = strlen(p->what) + strlen(say) + 4;
        char bar[31] = "..............................";
        size_t size = taken + 5 > width ? 0 : width - taken < 30 ? width - taken : 30;
        memset(bar, '#', size * done / p->total);
        char *line = size ? format("%s [%.*s] %s", p->what, (int)size, bar, say) : format("%s %s", p->what, say);
        fflush(stdout);
        fprintf(stderr, "%.*s", (int)width, line);
        fflush(stderr);
        bar_stands = true;
        free(line);
    }
    free(speed); free(time); free(say);
}
#endif
