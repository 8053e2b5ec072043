// kill.c: what is left of a run that is killed, or whose system calls and allocations fail, at every moment where that can matter.
//
// A program cannot be interrupted everywhere by waiting for luck. But its files change only at system calls, so between two of them a kill leaves
// the same files at any moment: killing it once before every call that changes a file tries every kill there is. ptrace(2) stops the program at
// each system call, on the way in and on the way out. On the way in we may kill it, or replace the call by none; on the way out we may write the
// result it shall see (-ENOSPC: the disk is full). Allocations are failed by a library that comes before the C library (allocations.c).
//
// For each command: an undisturbed run, whose calls are written down and whose folder is the reference. Then trials, each with one fault in an
// empty folder. Kinds of fault:
//     kill       SIGKILL before a call that changes files; "half": a write of half the bytes, then SIGKILL
//     twice      the same, and the run that goes on is killed too, at a call drawn by the seed
//     signal     SIGTERM at such a call
//     write      such a call fails (ENOSPC, EIO ...), writes half ("short"), or the disk is full from it on ("full")
//     read       a call that reads or looks at the user's files fails, or gives seven bytes ("few")
//     memory     allocation k fails ("one"), or it and all that follow ("all")
//     closed     the run starts with some of descriptors 0-2 closed, or with standard output on /dev/full
// After the fault: exit code 0 and the reference's files; or another exit code and one line on stderr that names the file (or memory), but after
// a kill. Then the command runs again (--resume where it has it), and must end with 0 and the reference's files, with nothing beside them. Files
// are compared byte by byte, but for fields "time/..." and "resume" in JSON. The inputs and what stood in the folder before stay as they were.
//
// The same files lead to the same second run: one that was seen already is not made again. Trials of a kind beyond BUDGET are a sample by SEED;
// the table says how many of how many.
//
// Left out on purpose: kills of the machine (what a disk holds after a power cut is the file system's), errors inside a memory map (SIGBUS),
// calls by other threads (runs have one), failures inside oneDNN.
#define _GNU_SOURCE
#include <ctype.h>
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
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <wordexp.h>

#ifdef __x86_64__ // the names of two registers and some numbers of calls are all that is of this machine
// ----------------------------------------------------------------------------
// the calls that are looked at

enum { FD, PATH, AT, MAP }; // where a call names its file: a descriptor, a path, a folder's descriptor and a path; or the descriptor of a map
enum { READS, CHANGES, OPENS }; // OPENS: changes files if its flags say so
static const struct Known { const char *name; long number; int where, what; const char *faults; } known[] = {
    {"write", SYS_write, FD, CHANGES, "ENOSPC EIO EDQUOT EINTR short full"}, {"writev", SYS_writev, FD, CHANGES, "ENOSPC EIO EDQUOT full"},
    {"pwrite64", SYS_pwrite64, FD, CHANGES, "ENOSPC EIO EDQUOT EINTR short full"}, {"openat", SYS_openat, AT, OPENS, "EIO EACCES EMFILE ENOSPC"},
    {"open", SYS_open, PATH, OPENS, "EIO EACCES EMFILE ENOSPC"}, {"fsync", SYS_fsync, FD, CHANGES, "EIO ENOSPC"}, {"fdatasync", SYS_fdatasync, FD, CHANGES, "EIO ENOSPC"},
    {"rename", SYS_rename, PATH, CHANGES, "EIO ENOSPC"}, {"renameat", SYS_renameat, AT, CHANGES, "EIO ENOSPC"}, {"renameat2", SYS_renameat2, AT, CHANGES, "EIO ENOSPC"},
    {"unlink", SYS_unlink, PATH, CHANGES, "EIO"}, {"unlinkat", SYS_unlinkat, AT, CHANGES, "EIO"}, {"rmdir", SYS_rmdir, PATH, CHANGES, "EIO"},
    {"mkdir", SYS_mkdir, PATH, CHANGES, "EIO ENOSPC full"}, {"mkdirat", SYS_mkdirat, AT, CHANGES, "EIO ENOSPC full"},
    {"truncate", SYS_truncate, PATH, CHANGES, "EIO"}, {"ftruncate", SYS_ftruncate, FD, CHANGES, "EIO"}, {"link", SYS_link, PATH, CHANGES, "EIO ENOSPC"},
    {"read", SYS_read, FD, READS, "EIO EINTR few"}, {"pread64", SYS_pread64, FD, READS, "EIO EINTR few"}, {"getdents64", SYS_getdents64, FD, READS, "EIO"},
    {"newfstatat", SYS_newfstatat, AT, READS, "EIO"}, {"fstat", SYS_fstat, FD, READS, "EIO"}, {"stat", SYS_stat, PATH, READS, "EIO"}, {"lstat", SYS_lstat, PATH, READS, "EIO"},
    {"statx", SYS_statx, AT, READS, "EIO"}, {"access", SYS_access, PATH, READS, "EIO"}, {"faccessat", SYS_faccessat, AT, READS, "EIO"},
    {"lseek", SYS_lseek, FD, READS, "EIO"}, {"mmap", SYS_mmap, MAP, READS, "ENOMEM EIO"}, {"flock", SYS_flock, FD, READS, "EIO ENOLCK"}, {"close", SYS_close, FD, READS, "EIO"},
};
typedef struct { const struct Known *known; bool changes; char path[PATH_MAX]; unsigned long size; } Call; // path: below the folder of all trials

static bool on_disk(const Call *c) { return c->changes && strstr(c->known->faults, "ENOSPC") && strcmp(c->path, "stdout") && strcmp(c->path, "pipe"); }

typedef struct { int kind; long k; char fault[12]; } Trial; // a fault at call (or allocation) k, from 1
enum { KILL, TWICE, SIGNAL, WRITE, READ, MEMORY, CLOSED, KINDS };
static const char *const kinds[] = {"kill", "twice", "signal", "write", "read", "memory", "closed"};

static const char *top;         // the folder of all trials: in (inputs), before (what stands in --out already), w0, w1 ... (a worker's)
static char home[PATH_MAX];     // this worker's folder: run (where the command runs), stdout, stderr, allocations
static char **arguments;        // of the command
static const char *library;     // allocations.so
static volatile struct { long first, last, count; } *allocations;
static double limit = 60;       // seconds a run may take

__attribute__((noreturn, format(printf, 1, 2))) static void stop(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt); fputs("test_kill: ", stderr); vfprintf(stderr, fmt, ap); fputc('\n', stderr); va_end(ap);
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

static uint64_t mix(uint64_t x) { x += 0x9e3779b97f4a7c15u; x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u; x = (x ^ x >> 27) * 0x94d049bb133111ebu; return x ^ x >> 31; }

static int errno_of(const char *name)
{
    static const struct { const char *name; int value; } all[] = {{"EIO", EIO}, {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT}, {"EINTR", EINTR}, {"EACCES", EACCES}, {"EMFILE", EMFILE},
        {"ENOMEM", ENOMEM}, {"ENOLCK", ENOLCK}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) if (!strcmp(all[i].name, name)) return all[i].value;
    stop("no error is called %s", name);
}

// ----------------------------------------------------------------------------
// one run of the command

static char *file_text(const char *path, size_t *n)
{
    int fd = open(path, O_RDONLY);
    struct stat st;
    if (fd < 0 || fstat(fd, &st)) stop("%s: %s", path, strerror(errno));
    char *s = malloc((size_t)st.st_size + 1);
    ssize_t got = s ? read(fd, s, (size_t)st.st_size) : -1;
    if (got < 0) stop("%s: cannot be read", path);
    close(fd);
    s[got] = 0;
    if (n) *n = (size_t)got;
    return s;
}

static pid_t start(int closed, bool traced) // closed: bits of descriptors; 8: standard output is /dev/full
{
    pid_t pid = fork();
    if (pid) return pid;
    char *out = format("%s/stdout", home), *err = format("%s/stderr", home), *run = format("%s/run", home);
    int fds[3] = {open("/dev/null", O_RDONLY), open(closed & 8 ? "/dev/full" : out, O_WRONLY | O_CREAT | O_TRUNC, 0666), open(err, O_WRONLY | O_CREAT | O_TRUNC, 0666)};
    if (chdir(run)) _exit(126);
    for (int i = 0; i < 3; i++) dup2(fds[i], i);
    for (int i = 0; i < 3; i++) { close(fds[i]); if (closed & 1 << i) close(i); }
    if (traced) { ptrace(PTRACE_TRACEME, 0, 0, 0); raise(SIGSTOP); }
    if (allocations->first) { setenv("LD_PRELOAD", library, 1); setenv("VBON_ALLOCATIONS", format("%s/allocations", home), 1); }
    execv(arguments[0], arguments);
    _exit(126);
}

static volatile sig_atomic_t late;
static void on_alarm(int s) { (void)s; late = 1; }
static int await(pid_t pid) // until it stops or ends
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0) if (errno != EINTR) stop("waitpid: %s", strerror(errno)); else if (late) kill(pid, SIGKILL);
    return status;
}

// The file a call is about, below `top`; false: none of ours.
static bool call_path(pid_t pid, const struct Known *c, const uint64_t *a, char *path)
{
    char link[64], full[PATH_MAX] = "", base[PATH_MAX] = "";
    long fd = c->where == FD || c->where == AT ? (int)a[0] : c->where == MAP ? (int)a[4] : -1;
    if (fd >= 0) {
        snprintf(link, sizeof link, "/proc/%d/fd/%ld", pid, fd);
        ssize_t n = readlink(link, base, sizeof base - 1);
        if (n < 0 || fd == 2) return false; // what cannot be said on stderr cannot be complained of
        base[n] = 0;
    } else if (c->where == FD || c->where == MAP) return false;
    if (c->where == PATH || c->where == AT) {
        uint64_t from = a[c->where == AT];
        for (size_t i = 0; i + 8 < sizeof full; i += 8) {
            errno = 0;
            long word = ptrace(PTRACE_PEEKDATA, pid, from + i, 0);
            if (errno) return false;
            memcpy(full + i, &word, 8);
            if (memchr(&word, 0, 8)) break;
        }
    }
    if (*full == '/') strcpy(base, full);
    else if (*full) { char *whole = format("%s/run/%s", home, full); snprintf(base, sizeof base, "%s", fd >= 0 ? format("%s/%s", base, full) : whole); free(whole); }
    if (!strncmp(base, "pipe:", 5)) { strcpy(path, "pipe"); return true; }
    size_t n = strlen(top), h = strlen(home);
    if (strncmp(base, top, n) || base[n] != '/') return false;
    const char *mine = base + n + 1, *in = strstr(base, "/../in/");
    if (!strncmp(base, home, h) && !strncmp(base + h, "/run/", 5)) mine = base + h + 5;
    else if (!strncmp(base, home, h)) mine = base + h + 1;
    strcpy(path, in ? in + 4 : mine);
    return true;
}

typedef struct { int status; bool hit; char path[PATH_MAX]; } Outcome; // hit: call k was reached; path: of that call

// Runs the command with a fault at call k; with `calls`, writes down all calls
static Outcome run(const char *fault, long k, int closed, Call **calls, size_t *n_calls)
{
    bool traced = k || calls, cancel = false, then_kill = false, inside = false;
    long result = 0, n = 0;
    Outcome r = {0};
    int sig = 0;
    late = 0;
    struct itimerspec t = {.it_value = {(time_t)limit, 0}, .it_interval = {1, 0}}; // again, in case it was between two waits
    static timer_t timer;
    static bool made;
    if (!made) { timer_create(CLOCK_MONOTONIC, NULL, &timer); made = true; }
    timer_settime(timer, 0, &t, NULL);
    pid_t pid = start(closed, traced);
    r.status = await(pid);
    if (traced) ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL);
    while (!WIFEXITED(r.status) && !WIFSIGNALED(r.status)) {
        ptrace(PTRACE_SYSCALL, pid, 0, sig);
        r.status = await(pid);
        sig = 0;
        if (!WIFSTOPPED(r.status)) break;
        if (r.status >> 8 == (SIGTRAP | PTRACE_EVENT_EXEC << 8)) { inside = true; continue; }
        if (WSTOPSIG(r.status) != (SIGTRAP | 0x80)) { sig = WSTOPSIG(r.status); continue; }
        struct __ptrace_syscall_info info;
        struct user_regs_struct regs;
        if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info) <= 0 || !inside) continue;
        if (info.op == PTRACE_SYSCALL_INFO_EXIT) {
            if (cancel) { ptrace(PTRACE_GETREGS, pid, 0, &regs); regs.rax = (unsigned long)result; ptrace(PTRACE_SETREGS, pid, 0, &regs); }
            if (then_kill) kill(pid, SIGKILL);
            cancel = false;
            continue;
        }
        const struct Known *c = NULL;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) if ((uint64_t)known[i].number == info.entry.nr) c = &known[i];
        Call call = {.known = c, .size = c && (c->where == FD) ? info.entry.args[2] : 0};
        if (!c || !call_path(pid, c, info.entry.args, call.path)) continue;
        unsigned long flags = info.entry.args[c->where == AT ? 2 : 1];
        call.changes = c->what == CHANGES || (c->what == OPENS && flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC));
        n++;
        if (calls) { *calls = realloc(*calls, (size_t)n * sizeof **calls); (*calls)[n - 1] = call; *n_calls = (size_t)n; }
        bool full = k && n > k && !strcmp(fault, "full") && on_disk(&call);
        if (n != k && !full) continue;
        if (n == k) { r.hit = true; strcpy(r.path, call.path); }
        ptrace(PTRACE_GETREGS, pid, 0, &regs);
        if (!strcmp(fault, "kill")) kill(pid, SIGKILL);
        else if (!strcmp(fault, "TERM")) kill(pid, SIGTERM);
        else if (!strcmp(fault, "half") || !strcmp(fault, "short") || !strcmp(fault, "few")) {
            regs.rdx = strcmp(fault, "few") ? regs.rdx / 2 : regs.rdx < 7 ? regs.rdx : 7;
            then_kill = !strcmp(fault, "half");
            ptrace(PTRACE_SETREGS, pid, 0, &regs);
        } else {
            cancel = true;
            result = -(strcmp(fault, "full") ? errno_of(fault) : ENOSPC);
            if (c->number != SYS_close) { regs.orig_rax = (unsigned long)-1; ptrace(PTRACE_SETREGS, pid, 0, &regs); } // close(2) closes, whatever it returns
        }
    }
    struct itimerspec none = {0};
    timer_settime(timer, 0, &none, NULL);
    return r;
}

// What the command started must be gone; true if it is, within two seconds.
static bool alone(void)
{
    for (int i = 0; i < 200; i++) {
        pid_t p = waitpid(-1, NULL, WNOHANG);
        if (p < 0) return true;
        if (!p) usleep(10000);
    }
    char *path = format("/proc/self/task/%d/children", getpid()), *list = file_text(path, NULL), *s = list;
    FILE *f = fopen(path, "r");
    int pid;
    while (f && fscanf(f, "%d", &pid) == 1) { kill(pid, SIGKILL); waitpid(pid, NULL, 0); }
    if (f) fclose(f);
    free(s); free(path);
    return false;
}

// ----------------------------------------------------------------------------
// what is in a folder, as text: a line a file, with size and hash

static uint64_t content_hash(const char *path, const char *s, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;
    const char *dot = strrchr(path, '.'), *end = s + n;
    bool json = dot && (!strncmp(dot, ".json", 5) || !strcmp(dot, ".tmp"));
    while (s < end) {
        while (json && (!strncmp(s, ",\"time/", 7) || !strncmp(s, ",\"resume\":", 10)))
            for (s++; s < end && *s != ',' && *s != '}' && *s != '\n';) s++;
        if (s < end) h = (h ^ (unsigned char)*s++) * 0x100000001b3u;
    }
    return h;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }
static void list_folder(FILE *out, const char *folder, const char *below)
{
    DIR *d = opendir(folder);
    char *names[4096];
    size_t n = 0;
    if (!d) stop("%s: %s", folder, strerror(errno));
    for (struct dirent *e; (e = readdir(d));) if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && n < 4096) names[n++] = strdup(e->d_name);
    closedir(d);
    qsort(names, n, sizeof *names, by_name);
    for (size_t i = 0; i < n; i++) {
        char *path = format("%s/%s", folder, names[i]), *name = format("%s%s", below, names[i]), target[PATH_MAX] = "";
        struct stat st;
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
            size_t size;
            char *s = file_text(path, &size);
            fprintf(out, "%s %016llx\n", name, (unsigned long long)content_hash(path, s, size));
            free(s);
        }
        free(path); free(name); free(names[i]);
    }
}

static char *listing(const char *folder)
{
    char *s = NULL;
    size_t n;
    FILE *f = open_memstream(&s, &n);
    list_folder(f, folder, "");
    fclose(f);
    return s;
}

static void difference(const char *want, const char *got, char *out, size_t room) // names of files that differ, with - missing, + too many, ~ other content
{
    size_t n = 0;
    *out = 0;
    for (int side = 0; side < 2; side++) {
        const char *from = side ? got : want, *other = side ? want : got;
        for (const char *line = from, *end; *line; line = end + 1) {
            end = strchr(line, '\n');
            int len = (int)(end - line);
            char whole[PATH_MAX + 64], name[PATH_MAX + 64];
            snprintf(whole, sizeof whole, "\n%.*s\n", len, line);
            snprintf(name, sizeof name, "\n%.*s ", (int)strcspn(line, " \n"), line);
            char *text = format("\n%s", other);
            bool same = strstr(text, whole), there = strstr(text, name);
            free(text);
            if (same || (side && there)) continue;
            n += (size_t)snprintf(out + n, n < room ? room - n : 0, " %c%.*s", side ? '+' : there ? '~' : '-', (int)strcspn(line, " \n"), line);
            if (n >= room) return;
        }
    }
}

static void fresh_folder(const char *before)
{
    char *cmd = format("rm -rf '%s/run' && %s '%s/run'", home, before ? format("cp -a '%s'", before) : "mkdir", home);
    if (system(cmd)) stop("%s: cannot be emptied", home);
    free(cmd);
}

// ----------------------------------------------------------------------------
// one trial

typedef struct { char *name, **first, **again; bool resumes; const char *before; char *reference; Call *calls; size_t n_calls; long n_allocations; } Command;
static char **seen; // listings whose second run ended well
static size_t n_seen;

// NULL, or what is wrong with the messages of a run that ended by itself: malloc'd
static char *bad_message(const Outcome *r, const Trial *t, const char *what)
{
    char *path = format("%s/stderr", home), *text = file_text(path, NULL), *said = NULL, *bad = NULL;
    size_t lines = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        if (!strncmp(line, "vbon: ", 6) && strncmp(line, "vbon: note: ", 12) && strncmp(line, "vbon: warning", 13)) { lines++; said = line; }
    char *base = strrchr(r->path, '/'), name[PATH_MAX];
    snprintf(name, sizeof name, "%s", t->kind == MEMORY ? "memory" : t->kind == CLOSED || !strcmp(r->path, "stdout") ? "standard output" : !strcmp(r->path, "pipe") ? "--reward" : base ? base + 1 : r->path);
    size_t n = strlen(name);
    if (n > 4 && !strcmp(name + n - 4, ".tmp")) name[n - 4] = 0;
    if (WIFSIGNALED(r->status)) bad = format("%s: ended by signal %d", what, WTERMSIG(r->status));
    else if (lines != 1) bad = format("%s: exit code %d with %zu lines that say why", what, WEXITSTATUS(r->status), lines);
    else if (t->kind != CLOSED && strcmp(t->fault, "full") && !strstr(said, name) && !(t->kind == MEMORY && strcasestr(said, "memory"))) bad = format("%s: does not name %s: %.160s", what, name, said);
    free(text); free(path);
    return bad;
}

static char *trial(Command *c, const Trial *t, uint64_t seed) // NULL: as it should be; else what is not, malloc'd
{
    bool killed = t->kind == KILL || t->kind == TWICE, signalled = t->kind == SIGNAL;
    char *run_folder = format("%s/run", home), diff[600], *bad = NULL;
    Outcome r = {0};
    for (int again = 0; again < 3 && !r.hit; again++) { // the answers of a reward program come in more pieces or fewer: a later call may be one too far
        fresh_folder(c->before);
        arguments = c->first;
        if (t->kind == MEMORY) { allocations->first = t->k; allocations->last = strcmp(t->fault, "all") ? t->k : LONG_MAX; allocations->count = 0; }
        r = run(t->fault, t->kind == MEMORY || t->kind == CLOSED ? 0 : t->k, t->kind == CLOSED ? (int)t->k : 0, NULL, NULL);
        if (t->kind == MEMORY) r.hit = allocations->count >= t->k;
        if (t->kind == CLOSED) r.hit = true;
        allocations->first = 0;
    }
    int code = WIFEXITED(r.status) ? WEXITSTATUS(r.status) : 128 + WTERMSIG(r.status);
    if (late) bad = format("did not end within %g s", limit);
    if (!r.hit) bad = format("call %ld was not reached: runs differ", t->k);
    if (!alone()) bad = format("left a process behind (exit code %d)", code);
    char *now = listing(run_folder);
    if (code == 0 && !killed && !bad) {
        difference(c->reference, now, diff, sizeof diff);
        if (*diff) bad = format("exit code 0, and other files:%s", diff);
        free(now); free(run_folder);
        return bad;
    }
    if (code && !killed && !bad && !(signalled && (code == 143 || r.status == SIGTERM)) && !(t->kind == CLOSED && t->k & 4)) bad = bad_message(&r, t, "the run");
    if (t->kind == TWICE && !bad) {
        arguments = c->again;
        run("kill", 1 + (long)(mix(seed ^ (uint64_t)t->k) % c->n_calls), 0, NULL, NULL);
        alone();
        free(now);
        now = listing(run_folder);
    }
    for (size_t i = 0; i < n_seen && !bad; i++) if (!strcmp(seen[i], now)) { free(now); free(run_folder); return NULL; }
    if (!bad) {
        arguments = c->again;
        Outcome end = run(NULL, 0, 0, NULL, NULL);
        char *after = listing(run_folder);
        difference(c->reference, after, diff, sizeof diff);
        if (late) bad = format("run again, it did not end");
        else if (end.status) {
            char *path = format("%s/stderr", home), *said = file_text(path, NULL);
            bad = format("run again, it fails: %.200s", said);
            free(said); free(path);
        } else if (*diff) bad = format("run again, it ends with other files:%s", diff);
        else if (!alone()) bad = format("run again, it left a process behind");
        free(after);
    }
    if (!bad && (seen = realloc(seen, (n_seen + 1) * sizeof *seen))) seen[n_seen++] = now; else free(now);
    free(run_folder);
    for (char *s = bad; s && *s; s++) if (*s == '\n') *s = ' ';
    return bad;
}

// ----------------------------------------------------------------------------
// all of them

static Trial *trials;
static size_t n_trials;
static void add(int kind, long k, const char *fault)
{
    if (!(n_trials & (n_trials - 1)) && !(trials = realloc(trials, (n_trials ? 2 * n_trials : 1) * sizeof *trials))) stop("out of memory");
    trials[n_trials] = (Trial){.kind = kind, .k = k};
    snprintf(trials[n_trials++].fault, sizeof trials->fault, "%s", fault);
}

static void add_each(int kind, long k, const char *faults)
{
    char *list = strdup(faults);
    for (char *f = strtok(list, " "); f; f = strtok(NULL, " ")) add(kind, k, f);
    free(list);
}

static void plan(const Command *c)
{
    n_trials = 0;
    for (size_t i = 0; i < c->n_calls; i++) {
        const Call *a = &c->calls[i];
        long k = (long)i + 1;
        if (!a->changes) { add_each(READ, k, a->known->faults); continue; }
        if (strcmp(a->path, "stdout") && strcmp(a->path, "pipe")) { // these change no file
            add(KILL, k, "kill"); add(TWICE, k, "kill"); add(SIGNAL, k, "TERM");
            if (strstr(a->known->name, "write")) { add(KILL, k, "half"); add(TWICE, k, "half"); }
        }
        add_each(WRITE, k, strcmp(a->path, "pipe") ? a->known->faults : "EIO EINTR short");
    }
    for (long k = 1; k <= c->n_allocations; k++) add_each(MEMORY, k, "one all");
    for (long k = 1; k < 9; k++) add(CLOSED, k, k == 8 ? "full" : "closed");
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

// The undisturbed run, twice: its files, its calls, its allocations
static long observe(Command *c) // what failed
{
    long bad = 0;
    char *run_folder = format("%s/run", home), *stderr_file = format("%s/stderr", home), diff[600], *was;
    arguments = c->first;
    for (int pass = 0; pass < 2; pass++) {
        fresh_folder(c->before);
        was = listing(run_folder);
        if (pass) { allocations->first = LONG_MAX; allocations->last = 0; allocations->count = 0; }
        Outcome r = run(NULL, 0, 0, pass ? NULL : &c->calls, pass ? NULL : &c->n_calls);
        allocations->first = 0;
        if (r.status) stop("%s: the undisturbed run fails: %s", c->name, file_text(stderr_file, NULL));
        char *now = listing(run_folder);
        if (pass) difference(c->reference, now, diff, sizeof diff); else { difference(was, now, diff, sizeof diff); c->reference = now; }
        if (pass && *diff) stop("%s: two undisturbed runs differ:%s", c->name, diff);
        bool harm = strstr(diff, " -") || strstr(diff, " ~") || strstr(diff, ".tmp") || strstr(diff, "/step-");
        if (!pass && harm) { printf("FAIL %s: the undisturbed run leaves what it should not, or changes what is not its own:%s\n", c->name, diff); bad = 1; }
        free(was);
    }
    c->n_allocations = allocations->count;
    if (!c->n_calls || !c->n_allocations) stop("%s: no calls or no allocations were seen", c->name);
    free(run_folder); free(stderr_file);
    return bad;
}

static bool can_trace(void)
{
    pid_t pid = fork();
    if (!pid) { if (ptrace(PTRACE_TRACEME, 0, 0, 0)) _exit(1); raise(SIGSTOP); _exit(0); }
    int status = 0;
    bool ok = waitpid(pid, &status, 0) == pid && WIFSTOPPED(status) && !ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    ok = ok && !ptrace(PTRACE_SYSCALL, pid, 0, 0) && waitpid(pid, &status, 0) == pid && WIFSTOPPED(status);
    struct __ptrace_syscall_info info;
    ok = ok && ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info) > 0;
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return ok;
}

// The trials to make, in random order: those that `only` names (its first words are the trial's), at most `budget` of a kind, `memory` of that kind; 0: all.
// Without a budget the first 1,000 allocation trials are always among them.
static size_t choose(const Command *c, const char *only, uint64_t seed, long budget, long memory, Trial **chosen, long (*count)[2])
{
    size_t n = 0, l = strlen(only);
    Trial *out = malloc((n_trials + 1) * sizeof *out);
    size_t *order = malloc((n_trials + 1) * sizeof *order);
    if (!out || !order) stop("out of memory");
    for (size_t i = 0; i < n_trials; i++) order[i] = i;
    for (size_t i = n_trials; i > 1; i--) { size_t j = mix(seed ^ mix(i)) % i, s = order[i - 1]; order[i - 1] = order[j]; order[j] = s; }
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < n_trials; i++) {
            const Trial *t = &trials[order[i]];
            bool first = !budget && t->kind == MEMORY && t->k <= 500;
            long most = t->kind == MEMORY ? memory : budget;
            if (first != !pass) continue;
            char *label = format("%s %s %ld %s", c->name, kinds[t->kind], t->k, t->fault);
            bool named = !strncmp(label, only, l) && (!l || !label[l] || label[l] == ' ');
            free(label);
            if (!named) continue;
            count[t->kind][0]++;
            if (most && count[t->kind][1] >= most) continue;
            count[t->kind][1]++;
            out[n++] = *t;
        }
    free(order);
    *chosen = out;
    return n;
}

int main(int argc, char **argv)
{
    if (argc != 9) stop("kill TOP VBON LIBRARY JOBS SEED BUDGET MEMORY ONLY < commands");
    top = argv[1]; library = argv[3];
    int jobs = atoi(argv[4]);
    uint64_t seed = strtoull(argv[5], NULL, 10);
    long budget = atol(argv[6]), memory = atol(argv[7]), passed = 0, failed = 0;
    const char *only = argv[8]; // "train kill 37" is one trial, "train" a command, "" all
    if (!can_trace()) { puts("test_kill: system calls cannot be watched here: ptrace is not permitted, or the kernel is older than 5.3\n0 passed, 0 failed, 1 skipped"); return 0; }
    struct sigaction alarm_action = {.sa_handler = on_alarm}; // without SA_RESTART: it ends a wait
    sigaction(SIGALRM, &alarm_action, NULL);
    setenv("OMP_WAIT_POLICY", "passive", 1); // as vbon sets it: it need not start itself again
    setvbuf(stdout, NULL, _IOLBF, 0);
    char *in = format("%s/in", top), *inputs = listing(in), *line = NULL, diff[600];
    size_t cap = 0, tried = 0;
    for (ssize_t len; (len = getline(&line, &cap, stdin)) > 0;) { // NAME FLAGS ARGUMENTS; FLAGS: r, it has --resume; u, the user's files stand in --out
        wordexp_t words;
        line[len - 1] = 0;
        if (wordexp(line, &words, WRDE_NOCMD | WRDE_UNDEF) || words.we_wordc < 3) stop("cannot be read: %s", line);
        Command c = {.name = words.we_wordv[0], .before = strchr(words.we_wordv[1], 'u') ? format("%s/before", top) : NULL};
        size_t n = words.we_wordc - 2, only_name = strcspn(only, " ");
        if (*only && (strncmp(only, c.name, only_name) || c.name[only_name])) continue;
        c.first = calloc(n + 4, sizeof *c.first); c.again = calloc(n + 4, sizeof *c.again);
        c.first[0] = argv[2];
        for (size_t i = 0; i < n; i++) c.first[i + 1] = words.we_wordv[i + 2];
        memcpy(c.again, c.first, (n + 4) * sizeof *c.first);
        if (strchr(words.we_wordv[1], 'r')) c.again[n + 1] = "--resume";
        use_home(0);
        failed += observe(&c);
        plan(&c);
        Trial *chosen;
        long count[KINDS][2] = {0}, (*ended)[2] = mmap(NULL, sizeof count, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0); // all and chosen; passed and failed
        if (ended == MAP_FAILED) stop("out of memory");
        size_t n_chosen = choose(&c, only, seed, budget, memory, &chosen, count);
        tried += n_chosen;
        pid_t *pids = calloc((size_t)jobs, sizeof *pids);
        for (int w = 0; w < jobs; w++) {
            if ((pids[w] = fork())) continue;
            use_home(w);
            prctl(PR_SET_CHILD_SUBREAPER, 1); // what a command leaves behind becomes ours
            for (size_t i = (size_t)w; i < n_chosen; i += (size_t)jobs) {
                const Trial *t = &chosen[i];
                const Call *a = t->kind < MEMORY ? &c.calls[t->k - 1] : NULL;
                char *bad = trial(&c, t, seed), *at = a ? format(" (%s %s)", a->known->name, a->path) : NULL, *says = bad ? format("FAIL %s %s %ld %s%s: %s\n", c.name, kinds[t->kind], t->k, t->fault, at ? at : "", bad) : NULL;
                if (says && write(1, says, strlen(says)) < 0) _exit(3);
                __sync_add_and_fetch(&ended[t->kind][bad != NULL], 1);
                free(bad); free(at); free(says);
            }
            _exit(0);
        }
        for (int w = 0; w < jobs; w++) {
            int status;
            waitpid(pids[w], &status, 0);
            if (status) stop("%s: a worker ended with status %x", c.name, status);
        }
        for (int k = 0; k < KINDS; k++) {
            if (count[k][0]) printf("%-8s %-7s %6ld of %6ld tried, %ld failed\n", c.name, kinds[k], count[k][1], count[k][0], ended[k][1]);
            passed += ended[k][0];
            failed += ended[k][1];
        }
        free(pids); free(chosen); munmap(ended, sizeof count);
    }
    if (!tried) stop("no trial is called \"%s\"", only);
    char *now = listing(in);
    difference(inputs, now, diff, sizeof diff);
    if (*diff) printf("FAIL the inputs were changed:%s\n", diff);
    *(*diff ? &failed : &passed) += 1;
    if (failed) printf("one again: make test_kill SEED=%llu ONLY=\"the first words behind FAIL\"\n", (unsigned long long)seed);
    printf("%ld passed, %ld failed\n", passed, failed);
    return failed > 0;
}
#else
#include <stdio.h>
int main(void) { puts("test_kill: knows the registers of x86-64 only\n0 passed, 0 failed, 1 skipped"); return 0; }
#endif
