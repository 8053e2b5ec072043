// harness.h: the whole engine inside a libFuzzer program, which calls its readers some ten thousand times a second in
// one process.
//
// The engine's readers end the program when a file is wrong: here `exit` is a longjmp back to the fuzzer, and what a
// run left behind is taken back. Memory: the sanitizer tells us of every block (also those of jansson and stdio), and
// those still alive after a run are freed. Streams: the C library chains them, and those opened since are closed; then
// every descriptor that was not there before. The engine's own static variables stand in two sections of their own,
// which get back the bytes they had at the start. So a run finds the engine as a new process would, and the harness
// knows none of its variables. `mmap` is a copy in memory, for the sanitizer to see the first byte read beyond a file.
// An input is a folder: its files one after the other, in the order that a target names them, with two bytes 1e
// between; an empty one is not there. A name in .safetensors takes two parts, header and data, and gets the header's
// length before them, which a mutation would hardly find. The files are written below /dev/shm, and the engine opens
// them as it opens any. What it writes to stdout or stderr is dropped (-close_fd_mask=3). MUST is an assertion of a
// target: it says what failed, and traps.
#ifndef HARNESS_H
#define HARNESS_H
#include <assert.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <utf8proc.h>
#include <sanitizer/allocator_interface.h>

static _Thread_local bool in_run; // libFuzzer has a thread that watches memory: what it allocates is its own
static jmp_buf end_of_run;
__attribute__((noreturn)) static void fuzz_exit(int code) { if (in_run) longjmp(end_of_run, 1); _exit(code); }
static int fuzz_atexit(void (*f)(void)) { (void)f; return 0; } // asked again in every run
static void *fuzz_mmap(size_t n, int fd)
{
    char *p = (char *)malloc(n);
    for (size_t at = 0; p && at < n;) {
        ssize_t k = pread(fd, p + at, n - at, (off_t)at);
        if (k <= 0) break;
        at += (size_t)k;
    }
    return p ? p : MAP_FAILED;
}
static int fuzz_munmap(void *p) { free(p); return 0; }

#define exit(code) fuzz_exit(code)
#define atexit(f) fuzz_atexit(f)
#define mmap(at, n, how, flags, fd, from) fuzz_mmap(n, fd)
#define munmap(p, n) fuzz_munmap(p)
#define madvise(p, n, what) 0
#define TESTING
#pragma clang diagnostic ignored "-Wunused-function" // main has callers elsewhere
#pragma clang section bss="engine_bss" data="engine_data"
#include "vbon.c"
#pragma clang section bss="" data=""
#undef exit
#undef atexit

static int complaints; // stderr, before it is closed
#define MUST(c) do { if (!(c)) must(#c, __LINE__); } while (0)
static void must(const char *what, int line)
{
    dprintf(complaints, "line %d: must hold: %s\n", line, what);
    __builtin_trap();
}

// ----------------------------------------------------------------------------
// what a run leaves behind

static void *blocks[1 << 22]; // every block that a run was given, dead or alive
static size_t n_blocks;
static void block_made(const volatile void *p, size_t n)
{
    (void)n;
    if (in_run && n_blocks < sizeof blocks / sizeof *blocks) blocks[n_blocks++] = (void *)p;
}
static void block_freed(const volatile void *p) { (void)p; }

extern char __start_engine_bss[], __stop_engine_bss[], __start_engine_data[], __stop_engine_data[];
static char *first_bss, *first_data;
// Not memcpy: the sanitizer's looks whether it may.
__attribute__((no_sanitize("address", "undefined"), no_builtin))
static void copy_bytes(char *to, const char *from, size_t n)
{
    uint64_t *t = (uint64_t *)to;
    const uint64_t *f = (const uint64_t *)from;
    for (size_t i = 0; i < n / 8; i++) t[i] = f[i];
    for (size_t i = n / 8 * 8; i < n; i++) to[i] = from[i];
}

extern FILE *_IO_list_all; // the C library's chain of open streams, the newest first
static void take_back(FILE *streams, int descriptors)
{
    while (_IO_list_all != streams) fclose(_IO_list_all);
    close_range((unsigned)descriptors, ~0u, 0);
    for (size_t i = 0; i < n_blocks; i++) if (__sanitizer_get_ownership(blocks[i])) free(blocks[i]);
    n_blocks = 0;
    copy_bytes(__start_engine_bss, first_bss, (size_t)(__stop_engine_bss - __start_engine_bss));
    copy_bytes(__start_engine_data, first_data, (size_t)(__stop_engine_data - __start_engine_data));
}

// ----------------------------------------------------------------------------
// inputs as folders

enum { PARTS = 12 };
typedef struct { const uint8_t *p; size_t n; } Part;
typedef struct {
    const char *name, *files[PARTS]; // in the order of an input's parts; "=what": the target takes the part itself
    void (*prepare)(void);            // once
    void (*run)(const Part *part);  // ends, or dies
} Target;
static const Target *target;

static char folder[64];
static char *path(const char *name) // good for eight calls
{
    static char paths[8][128];
    static int k;
    k = (k + 1) % 8;
    snprintf(paths[k], sizeof *paths, "%s/%s", folder, name);
    return paths[k];
}

static void empty_folder(const char *name)
{
    DIR *d = opendir(path(name));
    if (!d) return;
    for (struct dirent *e; (e = readdir(d));) unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
}
static void remove_all(void)
{
    char command[100];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    if (system(command)) {}
}

static void put_file(const char *name, Part a, Part b, bool length)
{
    static bool there[PARTS];
    size_t i = 0;
    while (target->files[i] != name) i++;
    if (!a.n) {
        if (there[i]) unlink(path(name));
        there[i] = false;
        return;
    }
    int fd = open(path(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    uint64_t n = a.n; // as a file has it: the least byte first
    MUST(fd >= 0 && (!length || write(fd, &n, 8) == 8));
    MUST(write(fd, a.p, a.n) == (ssize_t)a.n && (!b.n || write(fd, b.p, b.n) == (ssize_t)b.n));
    close(fd);
    there[i] = true;
}

static void put_folder(const uint8_t *data, size_t n, Part *part)
{
    size_t k = 0, from = 0;
    for (size_t i = 0; i + 1 < n && k + 1 < PARTS; i++)
        if (data[i] == 0x1e && data[i + 1] == 0x1e) { part[k++] = (Part){data + from, i - from}; from = i + 2; i++; }
    part[k++] = (Part){data + from, n - from};
    while (k < PARTS) part[k++] = (Part){data, 0};
    for (size_t i = 0, at = 0; i < PARTS && target->files[i]; i++) {
        const char *name = target->files[i], *dot = strrchr(name, '.');
        bool weights = dot && !strcmp(dot, ".safetensors");
        if (*name != '=') put_file(name, part[at], weights ? part[at + 1] : (Part){data, 0}, weights);
        at += 1 + weights;
    }
}

static char *part_text(Part p) // malloc'd, NUL-terminated
{
    char *s = (char *)malloc(p.n + 1);
    memcpy(s, p.p, p.n);
    s[p.n] = 0;
    return s;
}

// ----------------------------------------------------------------------------
// libFuzzer's two functions

extern const Target targets[];
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=1000:handle_abort=1:"
           "detect_stack_use_after_return=0:malloc_context_size=5:quarantine_size_mb=16";
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc; (void)argv;
    const char *name = getenv("FUZZ_TARGET");
    static char buffer[BUFSIZ]; // or stdout takes one in a run, and writes to it when it has been taken back
    complaints = dup(2);
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    for (const Target *t = targets; t->name; t++) if (name && !strcmp(t->name, name)) target = t;
    if (!target) { dprintf(complaints, "FUZZ_TARGET must name a target of dev/fuzz/fuzz.c\n"); _exit(2); }
    size_t bss = (size_t)(__stop_engine_bss - __start_engine_bss);
    size_t data = (size_t)(__stop_engine_data - __start_engine_data);
    copy_bytes(first_bss = (char *)malloc(bss), __start_engine_bss, bss);
    copy_bytes(first_data = (char *)malloc(data), __start_engine_data, data);
    snprintf(folder, sizeof folder, "/dev/shm/vbon-fuzz-%d", (int)getpid());
    mkdir(folder, 0700);
    atexit(remove_all);
    for (size_t i = 0; target->files[i]; i++) {
        char *p = path(target->files[i]);
        for (char *s = strchr(p + strlen(folder) + 1, '/'); s; s = strchr(s + 1, '/')) {
            *s = 0;
            mkdir(p, 0700);
            *s = '/';
        }
    }
    if (target->prepare) target->prepare();
    for (size_t i = 0; target->files[i]; i++) unlink(path(target->files[i]));
    __sanitizer_install_malloc_and_free_hooks(block_made, block_freed);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static int descriptors;
    static Part part[PARTS];
    if (!descriptors) { descriptors = dup(complaints); close(descriptors); } // the first that is free
    FILE *streams = _IO_list_all;
    put_folder(data, n, part);
    in_run = true;
    if (!setjmp(end_of_run)) target->run(part);
    in_run = false;
    take_back(streams, descriptors);
    return 0;
}
#endif
