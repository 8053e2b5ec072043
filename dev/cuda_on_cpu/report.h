// report.h: how an error is told. One report names the kernel, the block and the thread (or the host), says what is
// wrong, and lists the source lines that led there; then the program aborts, so that a debugger stops at it. Source
// lines come from addr2line (binutils, which comes with gcc): it costs nothing until there is something to report.
//
// Faults are turned into such reports too. A device pointer that the host follows, or memory that waits for a
// copy, is a page without permission (SIGSEGV); a NaN that is made, or the signalling NaN that fresh memory
// is filled with, raises SIGFPE in a kernel.
#pragma once
#include <execinfo.h>
#include <fenv.h>
#include <link.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <string>
#include <vector>

namespace simt {

// "kernel k launched at file:line, block .., thread ..", "" in host code (scheduler.h)
std::string kernel_context();
bool in_kernel();
// What a fault at this address means; resume: it was harmless (runtime.h)
std::string explain_fault(const void *address, bool *resume);

// The program's own place in memory, and its name.
static const char *const self = "/proc/self/exe";
static size_t load_bias()
{
    size_t bias = 0;
    // the first is the program
    dl_iterate_phdr([](dl_phdr_info *i, size_t, void *p) { *(size_t *)p = i->dlpi_addr; return 1; }, &bias);
    return bias;
}

// "function at file.cu:12" for each address, inlined functions on lines of their own;
// what has no source line is left out.
static std::vector<std::string> lines_of(void *const *pcs, int n)
{
    std::vector<std::string> lines;
    char program[4096];
    ssize_t len = readlink(self, program, sizeof program - 1);
    int fd[2];
    if (n < 1 || len < 0 || pipe(fd)) return lines;
    program[len] = 0;
    std::vector<std::string> text;
    for (int i = 0; i < n; i++) {
        char hex[32];
        snprintf(hex, sizeof hex, "%#zx", (size_t)pcs[i] - load_bias());
        text.push_back(hex);
    }
    std::vector<const char *> argv = {"addr2line", "-Cfpis", "-e", program};
    for (auto &t : text) argv.push_back(t.c_str());
    argv.push_back(nullptr);
    pid_t pid = _Fork(); // not fork(): the sanitizers wrap it
    if (pid == 0) {
        dup2(fd[1], 1);
        close(2);
        unsetenv("LD_PRELOAD");
        execvp(argv[0], (char *const *)argv.data());
        _exit(127);
    }
    close(fd[1]);
    FILE *f = fdopen(fd[0], "r");
    char line[1024];
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *tail = strstr(line, " (discriminator");
        if (tail) *tail = 0;
        const char *at = strstr(line, " at ");
        if (!at || strstr(at, "??") || strstr(at, ":?")) continue;
        lines.push_back(strncmp(line, " (inlined by) ", 14) ? line : line + 14);
    }
    if (f) fclose(f);
    if (pid > 0) waitpid(pid, nullptr, 0);
    return lines;
}

static std::string line_of(const void *return_address)
{
    void *pc = (char *)return_address - 1;
    std::vector<std::string> l = lines_of(&pc, 1);
    return l.empty() ? "an unknown line (is the program built with -g, and addr2line installed?)"
                     : l.back().substr(l.back().find(" at ") + 4);
}

// What a queued operation remembers of who queued it: a site for launches, a return address for the runtime's calls.
struct Where {
    Site at;
    const void *pc;
    std::string text() const
    {
        if (!at.file) return line_of(pc);
        const char *slash = strrchr(at.file, '/');
        return std::string(slash ? slash + 1 : at.file) + ":" + std::to_string(at.line);
    }
};
#define SIMT_CALLER simt::Where{{nullptr, 0}, __builtin_return_address(0)}

// The source lines of the running thread, innermost first, without those of this folder's
// engine and of the C++ library.
static void print_stack(const void *faulting_pc)
{
    static const char *const engine[] = {" report.h:", " scheduler.h:", " runtime.h:", " cuda_on_cpu.h:",
        " tensor_core.h:", " std_function.h:", " invoke.h:", " functional:"};
    void *pcs[40];
    int n = backtrace(pcs, 40), first = 0;
    for (int i = 0; faulting_pc && i < n; i++) if (pcs[i] == faulting_pc) first = i;
    // a return address: the call is before it
    for (int i = first; i < n; i++) if (pcs[i] != faulting_pc) pcs[i] = (char *)pcs[i] - 1;
    int shown = 0;
    for (const std::string &line : lines_of(pcs + first, n - first)) {
        bool ours = false;
        for (const char *e : engine) ours = ours || line.find(e) != std::string::npos;
        if (!ours && shown++ < 12) fprintf(stderr, "  in %s\n", line.c_str());
    }
}

[[noreturn]] static void fail_at(const void *faulting_pc, const std::string &what)
{
    fedisableexcept(FE_ALL_EXCEPT);
    fflush(stdout);
    std::string context = kernel_context();
    fprintf(stderr, "\ncuda_on_cpu: %s%s%s\n", context.c_str(), context.empty() ? "" : ": ", what.c_str());
    print_stack(faulting_pc);
    signal(SIGABRT, SIG_DFL);
    abort();
}

static std::string format(const char *f, va_list ap)
{
    char text[2048];
    vsnprintf(text, sizeof text, f, ap);
    return text;
}
static std::string say(const char *f, ...) __attribute__((format(printf, 1, 2)));
static std::string say(const char *f, ...)
{
    va_list ap;
    va_start(ap, f);
    std::string s = format(f, ap);
    va_end(ap);
    return s;
}
void fail(const char *f, ...)
{
    va_list ap;
    va_start(ap, f);
    std::string s = format(f, ap);
    va_end(ap);
    fail_at(nullptr, s);
}

// ----------------------------------------------------------------------------
// faults

static void on_fault(int sig, siginfo_t *info, void *context)
{
    const void *pc = nullptr;
#if defined(__x86_64__)
    pc = (const void *)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
#else
    (void)context;
#endif
    if (sig == SIGFPE)
        fail_at(pc, info->si_code == FPE_FLTINV ?
            "makes or compares a NaN, or computes with memory that nothing was written to" :
            info->si_code == FPE_INTDIV ? "divides an integer by zero" : "floating-point exception");
    bool resume = false;
    std::string what = explain_fault(info->si_addr, &resume);
    if (!resume) fail_at(pc, what);
}

// Faults of this OS thread are handled on a stack of its own, since a thread's stack may be what has overflowed.
static void handle_faults_here()
{
    static __thread bool done;
    if (done) return;
    done = true;
    stack_t s = {};
    s.ss_size = 256 << 10;
    s.ss_sp = mmap(nullptr, s.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (s.ss_sp == MAP_FAILED || sigaltstack(&s, nullptr)) fail("no memory for a signal stack");
    struct sigaction a = {};
    a.sa_sigaction = on_fault;
    a.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (int sig : {SIGSEGV, SIGBUS, SIGFPE}) sigaction(sig, &a, nullptr);
}

} // namespace simt
