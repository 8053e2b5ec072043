// kill.c: what is left of a run that is killed, or whose system calls and allocations fail, at every moment where that
// can matter.
//
// A kill at a random moment nearly always comes while the program computes. But files change at system calls alone, so
// between two of them a kill leaves the same files at any moment: killing once before each call that changes a file
// tries every kill there is. ptrace(2) stops the program at each system call, on the way in and on the way out. On the
// way in we may kill it, or put a call that does nothing in place of its own; on the way out we may write the result
// that it shall see (-ENOSPC: the disk is full). Allocations are failed by a library that the loader puts before the C
// library (allocations.c).
//
// For each command: an undisturbed run, whose calls are noted and whose folder is the reference. Then trials, each with
// one fault:
//     kill       SIGKILL before a call that changes files, or ("half") after a write of half the bytes
//     twice      the same, and the run that goes on is killed too, before a call drawn by the seed
//     signal     SIGTERM at such a call
//     write      such a call fails (ENOSPC, EIO ...), writes half ("short"), or the disk is full from it on ("full")
//     read       a call that reads or looks at files fails, or gives seven bytes ("few")
//     memory     allocation k fails ("one"), or it and all that follow ("all")
//     closed     the run starts without some of descriptors 0-2, or its standard output is a full disk
// The run must end with 0 and the reference's files; or with another code and, but for kills, one line on stderr that
// names the file (or memory). In the second case the command runs again (--resume where it has it) and must end with 0
// and the reference's files, with nothing beside them. Files are compared byte by byte, but for the fields "time/..."
// and "resume" of JSON. What the user had in the folder, and the inputs, must stay.
//
// NAME+ is the command that goes on after a kill in the middle of NAME, tried in the same way.
//
// The same files lead to the same second run: one that was seen already is not made again. Of each kind BUDGET trials
// are a sample by SEED; the table says how many of how many.
//
// Left out on purpose: power cuts (what a disk holds then is the file system's affair), errors inside a memory map
// (SIGBUS), runs of several threads (an allocation's number would not name it), and failures inside oneDNN.
#ifdef __x86_64__ // the names of some registers and calls are all that is this machine's
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>
#include <wordexp.h>

// ----------------------------------------------------------------------------
// the calls that are looked at

// How a call names its file: by a descriptor, a path, a folder's descriptor and a path, or a descriptor in fifth place.
enum { FD, PATH, AT, MAP };
enum { READS, CHANGES, OPENS }; // OPENS changes files when its flags say so
typedef struct { const char *name; long number; int names, does; const char *faults; } Known;
static const Known known[] = {
    {"write", SYS_write, FD, CHANGES, "ENOSPC EIO EDQUOT EINTR short full"},
    {"pwrite64", SYS_pwrite64, FD, CHANGES, "ENOSPC EIO EDQUOT EINTR short full"},
    {"writev", SYS_writev, FD, CHANGES, "ENOSPC EIO EDQUOT full"},
    {"open", SYS_open, PATH, OPENS, "EIO EACCES EMFILE ENOSPC"},
    {"openat", SYS_openat, AT, OPENS, "EIO EACCES EMFILE ENOSPC"},
    {"fsync", SYS_fsync, FD, CHANGES, "EIO ENOSPC"},
    {"fdatasync", SYS_fdatasync, FD, CHANGES, "EIO ENOSPC"},
    {"rename", SYS_rename, PATH, CHANGES, "EIO ENOSPC"},
    {"renameat", SYS_renameat, AT, CHANGES, "EIO ENOSPC"},
    {"renameat2", SYS_renameat2, AT, CHANGES, "EIO ENOSPC"},
    {"link", SYS_link, PATH, CHANGES, "EIO ENOSPC"},
    {"unlink", SYS_unlink, PATH, CHANGES, "EIO"},
    {"unlinkat", SYS_unlinkat, AT, CHANGES, "EIO"},
    {"rmdir", SYS_rmdir, PATH, CHANGES, "EIO"},
    {"mkdir", SYS_mkdir, PATH, CHANGES, "EIO ENOSPC full"},
    {"mkdirat", SYS_mkdirat, AT, CHANGES, "EIO ENOSPC full"},
    {"truncate", SYS_truncate, PATH, CHANGES, "EIO"},
    {"ftruncate", SYS_ftruncate, FD, CHANGES, "EIO"},
    {"read", SYS_read, FD, READS, "EIO EINTR few"},
    {"pread64", SYS_pread64, FD, READS, "EIO EINTR few"},
    {"getdents64", SYS_getdents64, FD, READS, "EIO"},
    {"stat", SYS_stat, PATH, READS, "EIO"},
    {"lstat", SYS_lstat, PATH, READS, "EIO"},
    {"fstat", SYS_fstat, FD, READS, "EIO"},
    {"newfstatat", SYS_newfstatat, AT, READS, "EIO"},
    {"statx", SYS_statx, AT, READS, "EIO"},
    {"access", SYS_access, PATH, READS, "EIO"},
    {"faccessat", SYS_faccessat, AT, READS, "EIO"},
    {"faccessat2", SYS_faccessat2, AT, READS, "EIO"},
    {"lseek", SYS_lseek, FD, READS, "EIO"},
    {"mmap", SYS_mmap, MAP, READS, "ENOMEM EIO"},
    {"flock", SYS_flock, FD, READS, "EIO ENOLCK"},
    {"close", SYS_close, FD, READS, "EIO"},
};
typedef struct { const Known *known; bool changes; char path[PATH_MAX]; } Call; // path: relative, "stdout" or "pipe"

enum { KILL, TWICE, SIGNAL, WRITE, READ, MEMORY, CLOSED, KINDS };
static const char *const kinds[] = {"kill", "twice", "signal", "write", "read", "memory", "closed"};
typedef struct { int kind; long k; char fault[8]; } Trial; // k: call or allocation, from 1; CLOSED: bits

static const char *top;     // folder of all: in (inputs), before (the user's files in --out), w0, w1 ... (the workers')
static char home[PATH_MAX - 64]; // this worker's folder: run (where the command runs), stdout, stderr, allocations
static const char *library; // allocations.so
static volatile struct { long first, last, count; } *allocations; // shared with it; first = 0: it is not loaded
enum { LIMIT = 600 };       // seconds a run may take: on a busy machine each stop waits for its turn

__attribute__((noreturn, format(printf, 1, 2))) static void stop(const char *fmt, ...)
{
    va_list ap;
    fputs("test_kill: ", stderr);
    va_start(ap, fmt); vfprintf(stderr, fmt, ap); va_end(ap);
    fputc('\n', stderr);
    exit(2);
}

__attribute__((format(printf, 1, 2))) static char *format(const char *fmt, ...)
{
    char *s;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&s, fmt, ap) < 0) stop("out of memory");
    va_end(ap);
    return s;
}

static void *memory_for(size_t n, size_t size) // zeroed
{
    void *p = calloc(n + 1, size);
    if (!p) stop("out of memory");
    return p;
}

static uint64_t mix(uint64_t x) // splitmix64
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static int errno_of(const char *name)
{
    static const struct { const char *name; int value; } all[] = {{"EIO", EIO}, {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT},
        {"EINTR", EINTR}, {"EACCES", EACCES}, {"EMFILE", EMFILE}, {"ENOMEM", ENOMEM}, {"ENOLCK", ENOLCK}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) if (!strcmp(all[i].name, name)) return all[i].value;
    stop("no error is called %s", name);
}

// A disk can be full at this call.
static bool on_disk(const Call *c)
{
    return c->changes && strstr(c->known->faults, "ENOSPC") && strcmp(c->path, "stdout") && strcmp(c->path, "pipe");
}

static char *file_text(const char *path, size_t *n) // n may be NULL
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_NOFOLLOW);
    if (fd < 0 || fstat(fd, &st)) stop("%s: cannot be read: %s", path, strerror(errno));
    char *s = memory_for((size_t)st.st_size, 1);
    ssize_t got = read(fd, s, (size_t)st.st_size);
    if (got < 0) stop("%s: cannot be read: %s", path, strerror(errno));
    close(fd);
    if (n) *n = (size_t)got;
    return s;
}

static char *said(void) // on stderr by the last run
{
    char *path = format("%s/stderr", home), *s = file_text(path, NULL);
    free(path);
    return s;
}

// ----------------------------------------------------------------------------
// one run of the command

static pid_t start(char **argv, int closed, bool traced)
{
    pid_t pid = fork();
    if (pid) return pid;
    char *out = format("%s/stdout", home), *err = format("%s/stderr", home), *run = format("%s/run", home);
    int fds[3], flags = O_WRONLY | O_CREAT | O_TRUNC;
    fds[0] = open("/dev/null", O_RDONLY);
    fds[1] = open(closed & 8 ? "/dev/full" : out, flags, 0666);
    fds[2] = open(err, flags, 0666);
    if (chdir(run)) _exit(126);
    for (int i = 0; i < 3; i++) dup2(fds[i], i);
    for (int i = 0; i < 3; i++) close(fds[i]);
    for (int i = 0; i < 3; i++) if (closed & 1 << i) close(i);
    if (allocations->first) {
        setenv("LD_PRELOAD", library, 1);
        setenv("VBON_ALLOCATIONS", format("%s/allocations", home), 1);
    }
    if (traced) { ptrace(PTRACE_TRACEME, 0, 0, 0); raise(SIGSTOP); }
    execv(argv[0], argv);
    _exit(126);
}

static volatile sig_atomic_t late;
static void on_alarm(int s) { (void)s; late = 1; }
static int await(pid_t pid) // until it stops or ends; what takes too long is killed
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) stop("waitpid: %s", strerror(errno));
        if (late) kill(pid, SIGKILL);
    }
    return status;
}

static void set_alarm(int seconds)
{
    struct itimerval t = {.it_value = {.tv_sec = seconds}, .it_interval = {.tv_sec = 1}}; // and again: none is missed
    setitimer(ITIMER_REAL, &t, NULL);
}

static bool string_at(pid_t pid, uint64_t address, char *out, size_t room)
{
    for (size_t i = 0; i + 8 < room; i += 8) {
        errno = 0;
        long word = ptrace(PTRACE_PEEKDATA, pid, address + i, 0);
        if (errno) return false;
        memcpy(out + i, &word, 8);
        if (memchr(&word, 0, 8)) return true;
    }
    return false;
}

// The file that a call is about, as the reader knows it: relative to the run's folder, or in/... ; false: none of ours.
static bool call_path(pid_t pid, const Known *c, const uint64_t *a, char *out)
{
    char folder[PATH_MAX] = "", name[PATH_MAX] = "";
    int fd = c->names == FD || c->names == AT ? (int)a[0] : c->names == MAP ? (int)a[4] : AT_FDCWD;
    if (fd == 2 || fd == -1) return false; // what fails on stderr cannot be complained of
    if (fd >= 0) {
        char link[64];
        snprintf(link, sizeof link, "/proc/%d/fd/%d", pid, fd);
        if (readlink(link, folder, sizeof folder - 1) < 0) return false;
    } else if (c->names == FD || c->names == MAP) return false;
    else snprintf(folder, sizeof folder, "%s/run", home);
    if (c->names == PATH && !string_at(pid, a[0], name, sizeof name)) return false;
    if (c->names == AT && !string_at(pid, a[1], name, sizeof name)) return false;
    char *whole = *name == '/' ? strdup(name) : *name ? format("%s/%s", folder, name) : strdup(folder);
    char *in = strstr(whole, "/../in/");
    size_t t = strlen(top), h = strlen(home);
    bool ours = true;
    const char *shown = "pipe";
    if (in) shown = in + 4;
    else if (!strncmp(whole, home, h) && !strncmp(whole + h, "/run/", 5)) shown = whole + h + 5;
    else if (!strncmp(whole, home, h) && whole[h] == '/') shown = whole + h + 1;
    else if (!strncmp(whole, top, t) && whole[t] == '/') shown = whole + t + 1;
    else ours = !strncmp(whole, "pipe:", 5);
    snprintf(out, PATH_MAX, "%s", shown);
    free(whole);
    return ours;
}

typedef struct { int status; bool hit; char path[PATH_MAX]; } Outcome; // hit: call k was reached; path: its file

// Runs the command in the worker's folder with a fault at call k (0: none); with `calls`, notes them all.
static Outcome run(char **argv, const char *fault, long k, int closed, Call **calls, size_t *n_calls)
{
    Outcome r = {0};
    bool traced = k || calls, cancelled = false, then_kill = false, inside = false;
    long result = 0, n = 0;
    int sig = 0;
    late = 0;
    set_alarm(LIMIT);
    pid_t pid = start(argv, closed, traced);
    r.status = await(pid);
    if (traced) ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL);
    for (; WIFSTOPPED(r.status); r.status = await(pid)) {
        struct __ptrace_syscall_info info;
        struct user_regs_struct regs;
        bool at_call = WSTOPSIG(r.status) == (SIGTRAP | 0x80);
        bool at_exec = r.status >> 8 == (SIGTRAP | PTRACE_EVENT_EXEC << 8);
        sig = at_exec || at_call || !inside ? 0 : WSTOPSIG(r.status); // a signal that is its own
        inside |= at_exec;
        if (at_call && inside && ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info) > 0) {
            ptrace(PTRACE_GETREGS, pid, 0, &regs);
            if (info.op == PTRACE_SYSCALL_INFO_EXIT) {
                if (cancelled) { regs.rax = (unsigned long)result; ptrace(PTRACE_SETREGS, pid, 0, &regs); }
                if (then_kill) kill(pid, SIGKILL);
                cancelled = false;
            } else {
                const Known *c = NULL;
                const uint64_t *a = info.entry.args;
                for (size_t i = 0; i < sizeof known / sizeof *known; i++)
                    if ((uint64_t)known[i].number == info.entry.nr) c = &known[i];
                Call call = {.known = c};
                if (c && call_path(pid, c, a, call.path)) {
                    uint64_t flags = a[c->names == AT ? 2 : 1] & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC);
                    call.changes = c->does == CHANGES || (c->does == OPENS && flags);
                    n++;
                    if (calls) {
                        if (!(*calls = realloc(*calls, (size_t)n * sizeof call))) stop("out of memory");
                        (*calls)[n - 1] = call;
                        *n_calls = (size_t)n;
                    }
                    if (n == k) { r.hit = true; strcpy(r.path, call.path); }
                    if (k && n > k && !strcmp(fault, "full") && on_disk(&call)) { cancelled = true; result = -ENOSPC; }
                    if (n == k && !strcmp(fault, "kill")) kill(pid, SIGKILL);
                    else if (n == k && !strcmp(fault, "TERM")) kill(pid, SIGTERM);
                    else if (n == k && !strcmp(fault, "few")) regs.rdx = regs.rdx < 7 ? regs.rdx : 7;
                    else if (n == k && !strcmp(fault, "short")) regs.rdx /= 2;
                    else if (n == k && !strcmp(fault, "half")) { regs.rdx /= 2; then_kill = true; }
                    else if (n == k) { cancelled = true; result = -(strcmp(fault, "full") ? errno_of(fault) : ENOSPC); }
                    // no such call: nothing is done; but close(2) closes, whatever it returns
                    if (cancelled && c->number != SYS_close) regs.orig_rax = (unsigned long)-1;
                    if (n == k || cancelled) ptrace(PTRACE_SETREGS, pid, 0, &regs);
                }
            }
        }
        ptrace(PTRACE_SYSCALL, pid, 0, sig);
    }
    set_alarm(0);
    return r;
}

// What the command had started is gone within two seconds; else it is ended here, and false.
static bool alone(void)
{
    for (int i = 0; i < 200; i++) {
        pid_t p = waitpid(-1, NULL, WNOHANG);
        if (p < 0) return true;
        if (!p) usleep(10000);
    }
    char *path = format("/proc/self/task/%d/children", getpid());
    FILE *f = fopen(path, "r");
    for (int pid; f && fscanf(f, "%d", &pid) == 1;) { kill(pid, SIGKILL); waitpid(pid, NULL, 0); }
    if (f) fclose(f);
    free(path);
    return false;
}

// ----------------------------------------------------------------------------
// what is in a folder, as text: a line a file, its name and a hash

static uint64_t content_hash(const char *path, const char *s, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u; // FNV-1a
    const char *dot = strrchr(path, '.'), *end = s + n;
    bool json = dot && (!strncmp(dot, ".json", 5) || !strcmp(dot, ".tmp"));
    while (s < end) {
        while (json && (!strncmp(s, ",\"time/", 7) || !strncmp(s, ",\"resume\":", 10)))
            for (s++; s < end && !strchr(",}\n", *s);) s++;
        if (s < end) h = (h ^ (unsigned char)*s++) * 0x100000001b3u;
    }
    return h;
}

static void list_folder(FILE *out, const char *folder, const char *below)
{
    struct dirent **e;
    int n = scandir(folder, &e, NULL, alphasort);
    if (n < 0) stop("%s: %s", folder, strerror(errno));
    for (int i = 0; i < n; i++) {
        if (strcmp(e[i]->d_name, ".") && strcmp(e[i]->d_name, "..")) {
            char *path = format("%s/%s", folder, e[i]->d_name), *name = format("%s%s", below, e[i]->d_name);
            char target[PATH_MAX] = "";
            struct stat st;
            size_t size;
            if (lstat(path, &st)) stop("%s: %s", path, strerror(errno));
            if (S_ISDIR(st.st_mode)) {
                char *deeper = format("%s/", name);
                fprintf(out, "%s/\n", name);
                list_folder(out, path, deeper);
                free(deeper);
            } else if (S_ISLNK(st.st_mode)) {
                if (readlink(path, target, sizeof target - 1) < 0) stop("%s: %s", path, strerror(errno));
                fprintf(out, "%s -> %s\n", name, target);
            } else {
                char *s = file_text(path, &size);
                fprintf(out, "%s %016llx\n", name, (unsigned long long)content_hash(path, s, size));
                free(s);
            }
            free(path); free(name);
        }
        free(e[i]);
    }
    free(e);
}

static char *listing(const char *folder)
{
    char *s = NULL;
    size_t n;
    FILE *f = open_memstream(&s, &n);
    if (!f) stop("out of memory");
    list_folder(f, folder, "");
    fclose(f);
    return s;
}

static bool has_line(const char *text, const char *line, int len, char after) // a line that begins so
{
    for (; *text; text = strchr(text, '\n') + 1)
        if (!strncmp(text, line, (size_t)len) && text[len] == after) return true;
    return false;
}

// Names of files that differ: -missing, ~of other content, +too many. malloc'd; NULL: none.
static char *difference(const char *want, const char *got)
{
    char *out = NULL;
    for (int side = 0; side < 2; side++)
        for (const char *line = side ? got : want, *end; *line; line = end + 1) {
            end = strchr(line, '\n');
            int len = (int)(end - line), name = (int)strcspn(line, " \n");
            const char *other = side ? want : got;
            if (has_line(other, line, len, '\n')) continue;
            bool there = line[name] == ' ' && has_line(other, line, name, ' ');
            if (side && there) continue;
            char *more = format("%s %c%.*s", out ? out : "", side ? '+' : there ? '~' : '-', name, line);
            free(out);
            out = more;
        }
    return out;
}

static void fresh_folder(const char *before)
{
    char *cmd = format("rm -rf '%s/run' && %s '%s/run'", home, before ? format("cp -a '%s'", before) : "mkdir", home);
    if (system(cmd)) stop("%s: cannot be emptied", home);
    free(cmd);
}

// ----------------------------------------------------------------------------
// one trial

typedef struct {
    char *name, **first, **again; // as it is begun, as it goes on
    char *before;                 // folder of the user's files, or NULL
    char *end;                    // the files it must end with, when that is known before
    char *reference;              // of the undisturbed run: the files, calls and allocations
    Call *calls;
    size_t n_calls;
    long n_allocations;
} Command;

// A run that failed says why in one line, beside notes and progress. NULL, or what is wrong with its end: malloc'd
static char *bad_end(const Outcome *r, const Trial *t)
{
    char *text = said(), *why = NULL, *bad = NULL, *slash = strrchr(r->path, '/');
    size_t lines = 0;
    for (char *s = strtok(text, "\n"); s; s = strtok(NULL, "\n")) {
        bool note = !strncmp(s, "vbon: note: ", 12) || !strncmp(s, "vbon: warning: ", 15);
        if (!strncmp(s, "vbon: ", 6) && !note) { lines++; why = s; }
    }
    char *name = strdup(t->kind == MEMORY ? "memory" : !strcmp(r->path, "stdout") ? "standard output" :
                        !strcmp(r->path, "pipe") ? "--reward" : slash ? slash + 1 : r->path);
    size_t n = strlen(name);
    if (n > 4 && !strcmp(name + n - 4, ".tmp")) name[n - 4] = 0;
    char *folder = format("%.*s", slash ? (int)(slash - r->path) : 0, r->path);
    bool in_folder = strchr(folder, '/') != NULL;              // a checkpoint's name is as good as its file's
    bool any = t->kind == CLOSED || !strcmp(t->fault, "full"); // any file may be the first to tell
    if (WIFSIGNALED(r->status)) bad = format("ended by signal %d", WTERMSIG(r->status));
    else if (lines != 1) bad = format("exit code %d with %zu lines that say why", WEXITSTATUS(r->status), lines);
    else if (!any && !strcasestr(why, name) && !(in_folder && strstr(why, folder)))
        bad = format("does not name %s: %.160s", name, why);
    free(text); free(name); free(folder);
    return bad;
}

static char *first_run(const Command *c, const Trial *t, Outcome *r) // with the fault; NULL, or what is wrong with it
{
    *r = (Outcome){0};
    for (int i = 0; i < 3 && !r->hit; i++) { // a reward program's answers may come in more pieces or fewer
        fresh_folder(c->before);
        if (t->kind == MEMORY) {
            allocations->first = t->k;
            allocations->last = strcmp(t->fault, "all") ? t->k : LONG_MAX;
            allocations->count = 0;
        }
        *r = run(c->first, t->fault, t->kind < MEMORY ? t->k : 0, t->kind == CLOSED ? (int)t->k : 0, NULL, NULL);
        r->hit |= t->kind == CLOSED || (t->kind == MEMORY && allocations->count >= t->k);
        allocations->first = 0;
        bool was_alone = alone();
        if (late) return format("did not end within %d s", LIMIT);
        if (!was_alone) return format("left a process behind");
    }
    if (!r->hit) return format("call %ld was not reached: runs differ", t->k);
    int code = WIFEXITED(r->status) ? WEXITSTATUS(r->status) : 128 + WTERMSIG(r->status);
    bool killed = t->kind == KILL || t->kind == TWICE || (t->kind == SIGNAL && code == 128 + SIGTERM);
    bool mute = t->kind == CLOSED && t->k & 4;
    return code && !killed && !mute ? bad_end(r, t) : NULL;
}

static char *trial(const Command *c, const Trial *t, uint64_t seed) // NULL: as it should be; else what is not. malloc'd
{
    static char **seen; // listings whose second run ended well
    static size_t n_seen;
    Outcome r;
    char *run_folder = format("%s/run", home), *bad = first_run(c, t, &r), *now = listing(run_folder), *differs;
    if (!bad && r.status && t->kind == TWICE) {
        run(c->again, "kill", 1 + (long)(mix(seed ^ (uint64_t)t->k) % c->n_calls), 0, NULL, NULL);
        alone();
        free(now);
        now = listing(run_folder);
    }
    bool known_end = false;
    for (size_t i = 0; i < n_seen; i++) known_end |= !strcmp(seen[i], now);
    if (!bad && !r.status) {
        if ((differs = difference(c->reference, now))) bad = format("exit code 0, and other files:%s", differs);
    } else if (!bad && !known_end) {
        int status = run(c->again, NULL, 0, 0, NULL, NULL).status;
        char *after = listing(run_folder);
        differs = difference(c->reference, after);
        if (late) bad = format("run again, it did not end");
        else if (status) bad = format("run again, it fails: %.200s", said());
        else if (differs) bad = format("run again, it ends with other files:%s", differs);
        else if (!alone()) bad = format("run again, it left a process behind");
        free(after);
        if (!bad) {
            if (!(seen = realloc(seen, (n_seen + 1) * sizeof *seen))) stop("out of memory");
            seen[n_seen++] = strdup(now);
        }
    }
    free(now); free(run_folder);
    for (char *s = bad; s && *s; s++) if (*s == '\n') *s = ' ';
    return bad;
}

// ----------------------------------------------------------------------------
// all of them

static Trial *trials;
static size_t n_trials;
static void add(int kind, long k, const char *faults) // one for each of the words
{
    char *list = strdup(faults);
    for (char *f = strtok(list, " "); f; f = strtok(NULL, " ")) {
        bool full = !(n_trials & (n_trials - 1)); // a power of two
        if (full && !(trials = realloc(trials, 2 * (n_trials + 1) * sizeof *trials))) stop("out of memory");
        trials[n_trials] = (Trial){.kind = kind, .k = k};
        snprintf(trials[n_trials++].fault, sizeof trials->fault, "%s", f);
    }
    free(list);
}

static void plan(const Command *c)
{
    n_trials = 0;
    for (size_t i = 0; i < c->n_calls; i++) {
        const Call *a = &c->calls[i];
        long k = (long)i + 1;
        bool pipe = !strcmp(a->path, "pipe"), file = !pipe && strcmp(a->path, "stdout");
        if (a->changes && file) {
            const char *ends = strstr(a->known->name, "write") ? "kill half" : "kill";
            add(KILL, k, ends); add(TWICE, k, ends); add(SIGNAL, k, "TERM");
        }
        add(a->changes ? WRITE : READ, k, pipe && a->changes ? "EIO EINTR short" : a->known->faults);
    }
    for (long k = 1; k <= c->n_allocations; k++) add(MEMORY, k, "one all");
    for (long bits = 1; bits < 8; bits++) add(CLOSED, bits, "closed");
    add(CLOSED, 8, "full");
}

static void use_home(int worker)
{
    snprintf(home, sizeof home, "%s/w%d", top, worker);
    char *path = format("%s/allocations", home);
    mkdir(home, 0777);
    int fd = open(path, O_RDWR | O_CREAT, 0666);
    if (fd < 0 || ftruncate(fd, sizeof *allocations)) stop("%s: %s", path, strerror(errno));
    allocations = mmap(NULL, sizeof *allocations, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (allocations == MAP_FAILED) stop("%s: %s", path, strerror(errno));
    close(fd);
    free(path);
}

// The undisturbed run: once for its files and calls, once more for its allocations and to see that it is always the
// same. Returns how much of it is wrong.
static long observe(Command *c)
{
    char *run_folder = format("%s/run", home), *d;
    long bad = 0;
    for (int pass = 0; pass < 2; pass++) {
        fresh_folder(c->before);
        char *was = listing(run_folder);
        if (pass) { allocations->first = LONG_MAX; allocations->last = allocations->count = 0; }
        Outcome r = run(c->first, NULL, 0, 0, pass ? NULL : &c->calls, &c->n_calls);
        if (pass) { allocations->first = 0; c->n_allocations = allocations->count; }
        if (r.status) stop("%s: the undisturbed run fails: %s", c->name, said());
        char *now = listing(run_folder);
        if (pass && (d = difference(c->reference, now))) stop("%s: two undisturbed runs differ:%s", c->name, d);
        if (!pass) c->reference = now;
        d = c->end ? difference(c->end, now) : difference(was, now);
        if (!pass && d && c->end) stop("%s: it ends with other files:%s", c->name, d);
        if (!pass && d && (strstr(d, " -") || strstr(d, " ~") || strstr(d, ".tmp") || strstr(d, "/step-"))) {
            printf("FAIL %s: the undisturbed run leaves too much, or takes what is not its own:%s\n", c->name, d);
            bad++;
        }
        free(was);
    }
    if (!c->n_calls || !c->n_allocations) stop("%s: no calls or no allocations were seen", c->name);
    free(run_folder);
    return bad;
}

typedef struct { int jobs; uint64_t seed; long budget, memory; const char *only; } Settings;

// The trials to make, in random order: those whose first words are `only`, at most `budget` of a kind, and of
// allocations `memory`; 0: all. Without a budget the first 500 allocations are among them. count: all and chosen.
static size_t choose(const Command *c, const Settings *s, Trial *chosen, long (*count)[2])
{
    size_t n = 0, length = strlen(s->only), *order = memory_for(n_trials, sizeof *order);
    for (size_t i = 0; i < n_trials; i++) order[i] = i;
    for (size_t i = n_trials; i > 1; i--) {
        size_t j = mix(s->seed ^ mix(i)) % i, other = order[i - 1];
        order[i - 1] = order[j];
        order[j] = other;
    }
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < n_trials; i++) {
            const Trial *t = &trials[order[i]];
            bool first = !s->budget && t->kind == MEMORY && t->k <= 500;
            long most = t->kind == MEMORY ? s->memory : s->budget;
            char *label = format("%s %s %ld %s", c->name, kinds[t->kind], t->k, t->fault);
            bool named = !strncmp(label, s->only, length) && (!length || !label[length] || label[length] == ' ');
            free(label);
            if (!named || first == pass) continue;
            count[t->kind][0]++;
            if (most && count[t->kind][1] == most) continue;
            count[t->kind][1]++;
            chosen[n++] = *t;
        }
    free(order);
    return n;
}

static void work(const Command *c, const Trial *t, size_t n, int worker, const Settings *s, long (*ended)[2])
{
    use_home(worker);
    prctl(PR_SET_CHILD_SUBREAPER, 1); // what a command leaves behind becomes ours
    for (size_t i = (size_t)worker; i < n; i += (size_t)s->jobs) {
        const Call *a = t[i].kind < MEMORY ? &c->calls[t[i].k - 1] : NULL;
        char *bad = trial(c, &t[i], s->seed), *at = a ? format(" (%s %s)", a->known->name, a->path) : strdup("");
        __sync_add_and_fetch(&ended[t[i].kind][bad != NULL], 1);
        if (bad) printf("FAIL %s %s %ld %s%s: %s\n", c->name, kinds[t[i].kind], t[i].k, t[i].fault, at, bad);
        free(bad); free(at);
    }
}

// All trials of a command, by so many processes. Returns how many were made; passed and failed are counted on.
static size_t try_command(Command *c, const Settings *s, long *passed, long *failed)
{
    use_home(0);
    *failed += observe(c);
    plan(c);
    Trial *chosen = memory_for(n_trials, sizeof *chosen);
    long count[KINDS][2] = {0}, (*ended)[2];
    ended = mmap(NULL, sizeof count, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (ended == MAP_FAILED) stop("out of memory");
    size_t n = choose(c, s, chosen, count);
    for (int w = 0; w < s->jobs; w++) {
        pid_t pid = fork();
        if (pid < 0) stop("fork: %s", strerror(errno));
        if (!pid) { work(c, chosen, n, w, s, ended); exit(0); }
    }
    for (int status; wait(&status) > 0;) if (status) stop("%s: a worker ended with status %x", c->name, status);
    for (int k = 0; k < KINDS; k++) {
        if (!count[k][0]) continue;
        printf("%-8s %-7s %6ld of %6ld tried, %ld failed\n", c->name, kinds[k], count[k][1], count[k][0], ended[k][1]);
        *passed += ended[k][0];
        *failed += ended[k][1];
    }
    free(chosen);
    munmap(ended, sizeof count);
    return n;
}

// The command that goes on after a kill in its middle, as a command: its calls may fail too. NAME+
static Command going_on(const Command *c)
{
    size_t half = 0, k = 0, changes = 0;
    for (size_t i = 0; i < c->n_calls; i++) changes += c->calls[i].changes;
    while (half < changes / 2) half += c->calls[k++].changes;
    use_home(0);
    fresh_folder(c->before);
    run(c->first, strstr(c->calls[k - 1].known->name, "write") ? "half" : "kill", (long)k, 0, NULL, NULL);
    Command d = {.name = format("%s+", c->name), .first = c->again, .again = c->again, .end = c->reference};
    d.before = format("%s/left-%s", top, c->name);
    char *cmd = format("rm -rf '%s' && mv '%s/run' '%s'", d.before, home, d.before);
    if (system(cmd)) stop("%s: cannot be moved", home);
    free(cmd);
    return d;
}

static bool can_trace(void)
{
    pid_t pid = fork();
    if (!pid) { if (!ptrace(PTRACE_TRACEME, 0, 0, 0)) raise(SIGSTOP); _exit(0); }
    int status = 0;
    struct __ptrace_syscall_info info;
    bool ok = waitpid(pid, &status, 0) == pid && WIFSTOPPED(status);
    ok = ok && !ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    ok = ok && !ptrace(PTRACE_SYSCALL, pid, 0, 0) && waitpid(pid, &status, 0) == pid && WIFSTOPPED(status);
    ok = ok && ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info) > 0;
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return ok;
}

int main(int argc, char **argv)
{
    if (argc != 9) stop("kill TOP VBON LIBRARY JOBS SEED BUDGET MEMORY ONLY < commands");
    top = argv[1]; library = argv[3];
    const char *only = argv[8]; // "train kill 37" is one trial, "train" a command, "" all
    Settings s = {.jobs = atoi(argv[4]), .seed = strtoull(argv[5], NULL, 10), .only = only};
    s.budget = atol(argv[6]); s.memory = atol(argv[7]);
    long passed = 0, failed = 0;
    if (!can_trace()) {
        puts("test_kill: ptrace is not permitted here, or the kernel is older than 5.3\n0 passed, 0 failed, 1 skipped");
        return 0;
    }
    struct sigaction alarm_action = {.sa_handler = on_alarm}; // without SA_RESTART: it ends a wait
    sigaction(SIGALRM, &alarm_action, NULL);
    setenv("OMP_WAIT_POLICY", "passive", 1); // as vbon sets it: it need not start itself again
    setvbuf(stdout, NULL, _IOLBF, 0);        // the workers' lines stay whole
    char *in = format("%s/in", top), *inputs = listing(in), *line = NULL, *d;
    size_t cap = 0, tried = 0;
    for (ssize_t len; (len = getline(&line, &cap, stdin)) > 0;) {
        // NAME FLAGS ARGUMENTS; flag r: it has --resume; g: it goes on by itself; u: the user's files are there before
        wordexp_t words;
        line[len - 1] = 0;
        if (wordexp(line, &words, WRDE_NOCMD | WRDE_UNDEF) || words.we_wordc < 3) stop("cannot be read: %s", line);
        Command c = {.name = words.we_wordv[0]};
        if (strchr(words.we_wordv[1], 'u')) c.before = format("%s/before", top);
        size_t n = words.we_wordc - 2, word = strcspn(only, " ");
        size_t length = word && only[word - 1] == '+' ? word - 1 : word;
        if (*only && (strncmp(only, c.name, length) || c.name[length])) continue;
        c.first = memory_for(n + 2, sizeof *c.first);
        c.again = memory_for(n + 2, sizeof *c.again);
        for (size_t i = 0; i <= n; i++) c.first[i] = c.again[i] = i ? words.we_wordv[i + 1] : argv[2];
        if (strchr(words.we_wordv[1], 'r')) c.again[n + 1] = "--resume";
        bool goes_on = strpbrk(words.we_wordv[1], "rg"), plus = *only && only[word - 1] == '+';
        if (plus) { use_home(0); failed += observe(&c); } else tried += try_command(&c, &s, &passed, &failed);
        if (!goes_on || (*only && !plus)) continue;
        Command on = going_on(&c);
        tried += try_command(&on, &s, &passed, &failed);
    }
    if (!tried) stop("no trial is called \"%s\"", only);
    char *now = listing(in);
    if ((d = difference(inputs, now))) { printf("FAIL the inputs were changed:%s\n", d); failed++; } else passed++;
    if (failed) printf("one again: make test_kill SEED=%s ONLY=\"the first words behind FAIL\"\n", argv[5]);
    printf("%ld passed, %ld failed\n", passed, failed);
    return failed > 0;
}
#else
#include <stdio.h>
int main(void) { puts("test_kill: knows the registers of x86-64 only\n0 passed, 0 failed, 1 skipped"); return 0; }
#endif
