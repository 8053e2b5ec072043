// files.h: writing files so that no reader ever sees half of one.
//
// Every output is written aside (PATH.tmp), flushed to disk and renamed into place. Files that were not committed are removed when the
// program ends, by itself, by Ctrl-C or by SIGTERM, so nothing is left behind. A full disk shows at write, flush or fsync: each is checked.
//
// Past bugs: a signal handler on the ordinary stack. oneDNN 2's AVX2 sgemm moves the stack pointer into a heap block, and the kernel then
// writes the signal's frame over the heap beside it. Handlers here run on a stack of their own.
#ifndef FILES_H
#define FILES_H
#include "../gpt2.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct AsideFile { FILE *f; char *path, *tmp; struct AsideFile *next; } AsideFile;
AsideFile *aside_open(const char *path);   // dies when the folder is not writable
void aside_commit(AsideFile *a);           // flush, fsync, rename; frees a
void handle_signals(void (*handler)(int)); // for SIGINT and SIGTERM, once: a second Ctrl-C ends the program
char *format(const char *fmt, ...) PRINTF_LIKE(1, 2); // malloc'd
void make_folder(const char *path);        // and its parents
void sync_folder(const char *path);
void remove_folder(const char *path);      // of files only, as ours are; silent when it is not there
bool is_folder(const char *path);
json_t *json_file(const char *path);       // a new reference; dies naming file and line
json_t *json_settings(const char *path);   // the same with every number as a real (transformers writes a model_max_length of 1e30 in digits)
const char *json_token(json_t *j, const char *key); // a special token's text, which is a string or an object's "content"; NULL: none
#endif

#if defined(VBON_IMPLEMENTATION) && !defined(FILES_IMPLEMENTED)
#define FILES_IMPLEMENTED

// For messages, which are one line whatever a stranger's file holds.
static const char *shown(const char *s)
{
    if (!s) return "missing";
    for (const char *p = s; *p; p++) if ((unsigned char)*p < 32 || *p == 127) return "(unprintable)";
    return s;
}

char *format(const char *fmt, ...)
{
    va_list ap;
    char *s;
    va_start(ap, fmt);
    if (vasprintf(&s, fmt, ap) < 0) die("out of memory");
    va_end(ap);
    return s;
}

void handle_signals(void (*handler)(int))
{
    static char stack[1 << 16];
    stack_t own = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction a = {.sa_handler = handler, .sa_flags = SA_RESETHAND | SA_ONSTACK};
    sigaltstack(&own, NULL);
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

static AsideFile *open_asides;
static void remove_asides(void) { for (AsideFile *a = open_asides; a; a = a->next) unlink(a->tmp); }
static void remove_asides_and_end(int s) { remove_asides(); raise(s); } // raised with the default action, which ends the program

AsideFile *aside_open(const char *path)
{
    static bool registered;
    if (!registered) {
        struct sigaction now;
        if (!sigaction(SIGINT, NULL, &now) && now.sa_handler == SIG_DFL) handle_signals(remove_asides_and_end); // unless a loop saves at signals
        atexit(remove_asides);
        registered = true;
    }
    AsideFile *a = (AsideFile *)xcalloc(1, sizeof *a);
    a->path = xstrdup(path);
    a->tmp = format("%s.tmp", path);
    a->f = fopen(a->tmp, "wb");
    if (!a->f) die("%s: cannot be written: %s", path, strerror(errno));
    a->next = open_asides;
    open_asides = a;
    return a;
}

void aside_commit(AsideFile *a)
{
    bool bad = ferror(a->f) != 0 || fflush(a->f) != 0 || fsync(fileno(a->f)) != 0;
    int why = errno;
    if (fclose(a->f) && !bad) { bad = true; why = errno; }
    if (bad) die("%s: cannot be written: %s", a->path, strerror(why));
    if (rename(a->tmp, a->path)) die("%s: cannot be renamed into place: %s", a->path, strerror(errno));
    for (AsideFile **p = &open_asides; *p; p = &(*p)->next)
        if (*p == a) { *p = a->next; break; }
    free(a->path); free(a->tmp); free(a);
}

void make_folder(const char *path)
{
    if (!*path) die("--out: an empty name");
    char *p = xstrdup(path);
    for (char *s = p + 1;; s++) {
        char c = *s;
        if (c && c != '/') continue;
        *s = 0;
        if (mkdir(p, 0777) && errno != EEXIST) die("%s: cannot be made: %s", p, strerror(errno));
        *s = c;
        if (!c) break;
    }
    free(p);
    if (!is_folder(path)) die("%s: is not a folder: name another", path);
}

void sync_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY);
    if (fd < 0 || fsync(fd)) die("%s: cannot be flushed to disk: %s", path, strerror(errno));
    close(fd);
}

void remove_folder(const char *path)
{
    DIR *d = opendir(path);
    if (!d) return;
    for (struct dirent *e; (e = readdir(d));) {
        char *f = format("%s/%s", path, e->d_name);
        unlink(f);
        free(f);
    }
    closedir(d);
    rmdir(path);
}

bool is_folder(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISDIR(st.st_mode);
}

static json_t *json_read(const char *path, size_t flags)
{
    json_error_t e;
    json_t *j = json_load_file(path, flags, &e);
    if (!j) die("%s:%d: %s: is it whole?", path, e.line, e.text);
    return j;
}

json_t *json_file(const char *path) { return json_read(path, 0); }
json_t *json_settings(const char *path) { return json_read(path, JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL); }

const char *json_token(json_t *j, const char *key)
{
    json_t *v = json_object_get(j, key);
    return json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
}
#endif
