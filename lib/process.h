// process.h: how the program begins and ends, and what its messages are made of.
//
// begin_program sees to the descriptors and to the libraries' memory; clean_at_end to what is removed when the program
// ends by itself, by Ctrl-C or by SIGTERM. What is left after SIGKILL never stands in the way of the next run.
//
// Past bugs: a signal handler on the ordinary stack. oneDNN 2's AVX2 sgemm moves the stack pointer into a heap block,
// and the kernel then writes the signal's frame over the heap beside it. Handlers here run on a stack of their own.
#pragma once
#include "../gpt2.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

void begin_program(void);                  // first of all in main
void handle_signals(void (*handler)(int)); // for SIGINT and SIGTERM, once: a second Ctrl-C ends the program
void clean_at_end(void (*f)(void));        // f is called when the program ends, by exit or by one of these signals
char *format(const char *fmt, ...) PRINTF_LIKE(1, 2); // malloc'd
char *hex_text(uint64_t x);                           // malloc'd: 16 digits, as fingerprints are written
size_t terminal_width(int fd);             // in columns; of what is no terminal $COLUMNS, or 80

#ifdef VBON_IMPLEMENTATION

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

char *hex_text(uint64_t x) { return format("%016llx", (unsigned long long)x); }

size_t terminal_width(int fd)
{
    struct winsize size;
    if (!ioctl(fd, TIOCGWINSZ, &size) && size.ws_col) return size.ws_col;
    const char *columns = getenv("COLUMNS");
    long n = columns ? strtol(columns, NULL, 10) : 0;
    return n > 0 ? (size_t)n : 80;
}

void begin_program(void)
{
    // A descriptor the caller closed would be given to the first file that is opened, and messages would go into it.
    // It is opened the wrong way round, so that reading or writing fails as it would have.
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd ? O_RDONLY : O_WRONLY) != fd)
            die("descriptor %d is closed and /dev/null cannot be opened", fd);
    json_set_alloc_funcs(xmalloc, free);
}

void handle_signals(void (*handler)(int))
{
    static char stack[1 << 16];
    stack_t own = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction a = {.sa_handler = handler, .sa_flags = (int)(SA_RESETHAND | SA_ONSTACK | SA_RESTART)};
    sigaltstack(&own, NULL);
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

static void (*cleaners[8])(void);
static size_t n_cleaners;
static void clean(void) { for (size_t i = 0; i < n_cleaners; i++) cleaners[i](); }
static void clean_and_end(int s) { clean(); raise(s); } // raised with the default action, which ends the program

void clean_at_end(void (*f)(void))
{
    for (size_t i = 0; i < n_cleaners; i++) if (cleaners[i] == f) return;
    if (!n_cleaners) {
        struct sigaction now;
        // No loop saves at signals. Asked of SIGTERM: a shell has what it starts by & ignore SIGINT.
        bool unclaimed = !sigaction(SIGTERM, NULL, &now) && now.sa_handler == SIG_DFL;
        if (unclaimed) handle_signals(clean_and_end);
        if (atexit(clean)) die("out of memory");
    }
    if (n_cleaners == sizeof cleaners / sizeof *cleaners) die("too many cleaners: a bug, please report it");
    cleaners[n_cleaners++] = f;
}
#endif
