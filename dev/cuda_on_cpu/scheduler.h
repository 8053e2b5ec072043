// scheduler.h: one launch of a kernel, run on the CPU.
//
// A CUDA thread is a fiber: it runs until it must wait for others, then another takes over. Threads that never wait
// run one after the other on one and the same stack, so a kernel without barriers costs no switches; only a thread
// that waits keeps its stack. There is no preemption and no scheduler thread: who finds itself waiting picks the
// next and switches to it (28 lines of assembly). Every thread's state is a bit in four masks for each warp: live,
// ready, waiting at a warp operation, waiting at a barrier. So who has not arrived is known at any time, and when
// nobody is ready that is a report, not a hang.
//
// SIMT_ORDER chooses who runs next: forward, reverse, or random:SEED. Random is depth-first: a warp goes on as far as
// it can and now and then another gets the highest priority, since it is one warp far ahead of the others that shows a
// missing barrier (a uniformly random choice hides most of them).
//
// Blocks are spread over OpenMP threads. Under AddressSanitizer they run one after the other (see __shared__). Under
// ThreadSanitizer each CUDA thread is a fiber of its own there too, the blocks take turns on two OS threads, and a
// switch orders nothing: only what orders memory on a GPU (__syncthreads, __syncwarp, __threadfence) does. Then a
// missing one is reported whatever the order was.
#pragma once
#include <elf.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>
#include <xmmintrin.h>
#ifdef SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef SIMT_TSAN
#include <sanitizer/tsan_interface.h>
extern "C" void __tsan_read_range(void *, unsigned long);
extern "C" void __tsan_write_range(void *, unsigned long);
// A fault's report may allocate
extern "C" const char *__tsan_default_options() { return "report_signal_unsafe=0 atexit_sleep_ms=0"; }
#define TSAN(x) x
#else
#define TSAN(x)
#endif

#ifdef SIMT_COST
#define COST(...) __VA_ARGS__
#else
#define COST(...)
#endif

__thread uint3 threadIdx, blockIdx;
__thread dim3 blockDim, gridDim;

// ----------------------------------------------------------------------------
// the switch: push what a function must preserve, swap stack pointers, pop

#ifndef __x86_64__
#error "cuda_on_cpu: write simt_switch for this processor (scheduler.h)"
#endif
extern "C" void simt_switch(void **save, void *load);
extern "C" void simt_start();
extern "C" void simt_fiber();
asm(R"(
.text
.globl simt_switch
.type simt_switch,@function
simt_switch:
    .cfi_startproc
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    .cfi_def_cfa_offset 56
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    .cfi_def_cfa_offset 8
    ret
    .cfi_endproc
.size simt_switch,.-simt_switch
.globl simt_start
.type simt_start,@function
simt_start:
    .cfi_startproc
    .cfi_undefined rip
    call simt_fiber
    ud2
    .cfi_endproc
.size simt_start,.-simt_start
)");

namespace simt {

__thread unsigned char *dynamic_shared;
enum { WARP = 32, MAX_THREADS = 1024, MAX_WARPS = MAX_THREADS / WARP };
// A signalling NaN as float and as bfloat16, a huge number as an int and as a double
static const uint32_t NEVER_WRITTEN = 0x7fa07fa0;

static void fill(void *p, size_t bytes)
{
    uint32_t *word = (uint32_t *)p;
    for (size_t i = 0; i < bytes / 4; i++) word[i] = NEVER_WRITTEN;
    for (size_t i = bytes & ~(size_t)3; i < bytes; i++) ((volatile unsigned char *)p)[i] = 0x7f;
}

static struct Options {
    enum { FORWARD, REVERSE, RANDOM } order = FORWARD;
    unsigned seed = 1;
    bool trap = true; // SIMT_TRAP=0: a NaN in a kernel is no error
    Options()
    {
        const char *s = getenv("SIMT_ORDER"), *t = getenv("SIMT_TRAP");
        if (s && !strcmp(s, "reverse")) order = REVERSE;
        else if (s && !strncmp(s, "random:", 7)) order = RANDOM, seed = (unsigned)strtoul(s + 7, nullptr, 10);
        else if (s && strcmp(s, "forward")) {
            fprintf(stderr, "cuda_on_cpu: SIMT_ORDER is forward, reverse or random:SEED, not %s\n", s);
            exit(2);
        }
        trap = !t || strcmp(t, "0");
    }
} options;

// ----------------------------------------------------------------------------
// the state of a block

#if defined(SIMT_ASAN) || defined(SIMT_TSAN)
static const size_t STACK_BYTES = 512 << 10;
#else
static const size_t STACK_BYTES = 128 << 10;
#endif
struct Stack {
    char *base;
    void *sp;
    void *fake; // AddressSanitizer's
};
struct Thread {
    Stack *stack; // NULL until it runs
    Site at;      // where it waits
    unsigned mask;
    Exchange exchange;
    bool orders;
    Copies copies;
};
struct Block {
    const Launch *launch;
    const std::function<void()> *call;
    unsigned live[MAX_WARPS], ready[MAX_WARPS], at_warp[MAX_WARPS], at_block[MAX_WARPS]; // a bit a lane
    // a bit a warp with a ready lane
    unsigned warps_ready;
    int n, n_live, n_at_block, current;
    uint32_t random;
    int first_warp; // the warp of highest priority
    Thread thread[MAX_THREADS];
    void *slot[MAX_THREADS];
    uint3 index[MAX_THREADS];
    Stack stacks[MAX_THREADS], *spare[MAX_THREADS], *running, os_stack;
    int n_stacks, n_spare;
    unsigned char *dynamic;
    size_t dynamic_bytes;
#ifdef SIMT_TSAN
    void *fiber[MAX_THREADS], *os_fiber;
    char *started, *ended, previous, barrier[2], warp_barrier[MAX_THREADS][2]; // what release and acquire meet on
    // a barrier's two sides alternate: nobody is two ahead
    int turn, warp_turn[MAX_THREADS];
#endif
};
static __thread Block *block;
COST(static double meets[MAX_WARPS], barriers;) // of the running block: how often each thread of a warp met, ...
static std::string running_what; // the queued operation that runs
static Where running_where;

bool in_kernel() { return block && block->launch; }
std::string kernel_context()
{
    if (!in_kernel()) return running_what.empty() ? "" : running_what + ", called at " + running_where.text();
    return say("kernel %s launched at %s, block (%u,%u,%u), thread (%u,%u,%u)", block->launch->name,
        Where{block->launch->at, nullptr}.text().c_str(), blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y,
        threadIdx.z);
}

// The report of a meeting that cannot take place: where every thread of the block is.
[[noreturn]] static void fail_meeting(const char *why)
{
    std::string text = why, previous;
    int from = 0, groups = 0;
    for (int i = 0; i <= block->n; i++) {
        std::string now;
        if (i < block->n) {
            const Thread &t = block->thread[i];
            unsigned bit = 1u << i % WARP;
            std::string line = t.at.file ? Where{t.at, nullptr}.text() : "";
            if (!(block->live[i / WARP] & bit)) now = "have returned";
            else if (block->at_block[i / WARP] & bit) now = "wait at __syncthreads, " + line;
            else if (block->at_warp[i / WARP] & bit)
                now = say("wait at a warp operation, %s, mask %08x", line.c_str(), t.mask);
            else now = t.stack ? "run or could run" : "have not started";
        }
        if (i && now != previous) {
            std::string who = from == i - 1 ? say("thread %d", from) : say("threads %d to %d", from, i - 1);
            if (groups++ < 16) text += "\n  " + who + ": " + previous;
            from = i;
        }
        previous = now;
    }
    fail_at(nullptr, text + (groups > 16 ? say("\n  and %d more groups", groups - 16) : ""));
}

// ----------------------------------------------------------------------------
// who runs next

static uint32_t draw() // xorshift32
{
    block->random ^= block->random << 13;
    block->random ^= block->random >> 17;
    return block->random ^= block->random << 5;
}
static int lowest(unsigned m) { return __builtin_ctz(m); }
static int highest(unsigned m) { return 31 - __builtin_clz(m); }
static int any_of(unsigned m)
{
    for (unsigned k = draw() % (unsigned)__builtin_popcount(m); k; k--) m &= m - 1;
    return lowest(m);
}

// A ready thread, no longer ready; -1 if there is none. The current warp goes on while it can.
static int next_thread()
{
    if (!block->warps_ready) return -1;
    int w = block->current / WARP, lane;
    bool stay = block->ready[w] != 0;
    if (options.order == Options::RANDOM) {
        if (draw() % 64 == 0) block->first_warp = (int)(draw() % MAX_WARPS), stay = false;
        unsigned later = block->warps_ready >> block->first_warp;
        if (!stay) w = later ? lowest(later) + block->first_warp : lowest(block->warps_ready);
        lane = any_of(block->ready[w]);
    } else if (options.order == Options::REVERSE) {
        if (!stay) w = highest(block->warps_ready);
        lane = highest(block->ready[w]);
    } else {
        if (!stay) w = lowest(block->warps_ready);
        lane = lowest(block->ready[w]);
    }
    if (!(block->ready[w] &= ~(1u << lane))) block->warps_ready &= ~(1u << w);
    return w * WARP + lane;
}
static void make_ready(int w, unsigned lanes)
{
    if (!lanes) return;
    block->ready[w] |= lanes;
    block->warps_ready |= 1u << w;
}

static void set_current(int t)
{
    block->current = t;
    threadIdx = block->index[t];
    TSAN(__tsan_switch_to_fiber(block->fiber[t], __tsan_switch_to_fiber_no_sync));
}

static Stack *new_stack(int t)
{
#ifdef SIMT_TSAN
    Stack *s = &block->stacks[t]; // a stack stays with its thread, or its next use looks like a race
#else
    (void)t;
    Stack *s = block->n_spare ? block->spare[--block->n_spare] : &block->stacks[block->n_stacks++];
#endif
    if (!s->base) {
        s->base = (char *)mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (s->base == MAP_FAILED || mprotect(s->base, 4096, PROT_NONE)) fail("no memory for a thread's stack");
    }
    // staggered, so that they do not share cache sets
    void **top = (void **)(s->base + STACK_BYTES - (s - block->stacks) % 32 * 64);
    *--top = nullptr;
    *--top = nullptr;
    *--top = (void *)simt_start;
    for (int i = 0; i < 6; i++) *--top = nullptr; // what simt_switch pops
    s->sp = top;
    return s;
}

// Goes on with stack `to`. `leaving`: the running stack has nothing to come back to.
static void switch_to(Stack *to, bool leaving)
{
    Stack *from = block->running;
    block->running = to;
#ifdef SIMT_ASAN
    __sanitizer_start_switch_fiber(leaving ? nullptr : &from->fake, to->base, STACK_BYTES);
#endif
    (void)leaving;
    simt_switch(&from->sp, to->sp);
#ifdef SIMT_ASAN
    __sanitizer_finish_switch_fiber(from->fake, nullptr, nullptr);
#endif
}

static void start_or_resume(int t, bool leaving)
{
    if (!block->thread[t].stack) block->thread[t].stack = new_stack(t);
    set_current(t);
    switch_to(block->thread[t].stack, leaving);
}

// The running thread waits until somebody makes it ready and picks it.
static void wait()
{
    int me = block->current, t = next_thread();
    if (t < 0) fail_meeting("nobody can go on: these threads wait for each other");
    if (t != me) start_or_resume(t, false);
}

// ----------------------------------------------------------------------------
// meeting

static void release_block_if_complete()
{
    if (!block->n_at_block || block->n_at_block != block->n_live) return;
    const Thread *first = nullptr;
    for (int i = 0; i < block->n; i++) if (block->at_block[i / WARP] >> i % WARP & 1) {
        const Thread *t = &block->thread[i];
        if (!first) first = t;
        if (t->at.line != first->at.line || strcmp(t->at.file, first->at.file))
            fail_meeting("threads of one block wait at different __syncthreads");
    }
    for (int w = 0; w * WARP < block->n; w++) {
        make_ready(w, block->at_block[w]);
        block->at_block[w] = 0;
    }
    block->n_at_block = 0;
    TSAN(block->turn++);
}

static void release_warp_if_complete(int w)
{
    for (unsigned rest = block->at_warp[w]; rest;) {
        const Thread &first = block->thread[w * WARP + lowest(rest)];
        unsigned lanes = first.mask & block->live[w];
        rest &= ~first.mask;
        if (lanes & block->at_block[w]) fail_meeting("lanes that a warp operation waits for wait at __syncthreads");
        if ((block->at_warp[w] & lanes) != lanes) continue;
        for (unsigned m = lanes; m; m &= m - 1) {
            const Thread &t = block->thread[w * WARP + lowest(m)];
            if (t.mask != first.mask || t.exchange != first.exchange || t.at.line != first.at.line ||
                strcmp(t.at.file, first.at.file))
                fail_meeting("lanes of one warp wait at different operations, lines or masks");
        }
        first.exchange(&block->slot[w * WARP], lanes);
        TSAN(if (first.orders) block->warp_turn[w * WARP + lowest(first.mask)]++);
        block->at_warp[w] &= ~lanes;
        make_ready(w, lanes);
    }
}

Copies *copies() { return &block->thread[block->current].copies; }

void meet_block(Site at)
{
    int t = block->current, w = t / WARP;
    COST(barriers++);
    block->thread[t].at = at;
    block->at_block[w] |= 1u << t % WARP;
    block->n_at_block++;
    TSAN(char *side = &block->barrier[block->turn & 1]; __tsan_release(side));
    if (block->at_warp[w]) release_warp_if_complete(w);
    release_block_if_complete();
    wait();
    TSAN(__tsan_acquire(side));
}

void meet_warp(unsigned mask, Exchange exchange, void *slot, Site at, bool orders)
{
    int t = block->current, w = t / WARP;
    unsigned bit = 1u << t % WARP;
    if (!(mask & bit))
        fail("lane %d is not in the mask %08x of the operation it calls at %s", t % WARP, mask,
            Where{at, nullptr}.text().c_str());
    COST(meets[w]++);
    block->thread[t].at = at;
    block->thread[t].mask = mask;
    block->thread[t].exchange = exchange;
    block->thread[t].orders = orders;
    block->slot[t] = slot;
    block->at_warp[w] |= bit;
#ifdef SIMT_TSAN
    int group = w * WARP + lowest(mask);
    char *side = &block->warp_barrier[group][block->warp_turn[group] & 1];
    if (orders) __tsan_release(side);
#endif
    release_warp_if_complete(w);
    wait();
    TSAN(if (orders) __tsan_acquire(side));
}

void fence(bool releases)
{
    TSAN(static char fence_side; __tsan_acquire(&fence_side); if (releases) __tsan_release(&fence_side));
    if (releases) __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

// The loop of a stack: runs threads one after the other, until the next to run already has a stack.
static void run_threads()
{
#ifdef SIMT_ASAN
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
    for (;;) {
        int t = block->current, w = t / WARP;
        Stack *mine = block->thread[t].stack = block->running;
        TSAN(__tsan_acquire(block->started); __tsan_acquire(&block->previous));
        (*block->call)();
        if (block->thread[t].copies.n) fail("returned with a copy_async that it did not wait for");
        // returning counts as arriving
        TSAN(__tsan_release(block->ended); __tsan_release(&block->previous);
             __tsan_release(&block->barrier[block->turn & 1]));
        block->live[w] &= ~(1u << t % WARP);
        block->n_live--;
        release_warp_if_complete(w);
        release_block_if_complete();
        int next = next_thread();
        if (next < 0 && block->n_live) fail_meeting("nobody can go on: these threads wait for each other");
        if (next < 0) {
            TSAN(__tsan_switch_to_fiber(block->os_fiber, __tsan_switch_to_fiber_no_sync));
            block->spare[block->n_spare++] = mine;
            switch_to(&block->os_stack, true);
        }
#ifndef SIMT_TSAN
        if (!block->thread[next].stack) { // has not started: it does so on this very stack
            set_current(next);
            continue;
        }
#endif
        block->spare[block->n_spare++] = mine;
        start_or_resume(next, true);
    }
}

// ----------------------------------------------------------------------------
// a kernel's static shared memory

// The __shared__ arrays of a kernel are found by their names in the program's symbol table: the kernel _Z1kIfEvPT_ owns
// _ZZ1kIfEvPT_E1s. So they can be filled before each block, and nothing else is. g++ guards arrays of class types
// (bfloat16), as if they had to be constructed, by _ZGVZ1kIfEvPT_E1s: set, since shared memory is not.
struct Symbol {
    size_t value, bytes;
    bool guard;
};
static const std::vector<Symbol> &shared_arrays(const void *kernel)
{
    static std::mutex lock;
    static std::map<std::string, Symbol> variables;
    static std::multimap<size_t, std::string> functions;
    static std::map<const void *, std::vector<Symbol>> found;
    std::lock_guard<std::mutex> hold(lock);
    if (functions.empty()) {
        int fd = open(self, O_RDONLY);
        struct stat st;
        if (fd < 0 || fstat(fd, &st)) fail("cannot open %s", self);
        char *file = (char *)mmap(nullptr, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (file == MAP_FAILED) fail("cannot read %s", self);
        const Elf64_Ehdr *head = (const Elf64_Ehdr *)file;
        const Elf64_Shdr *section = (const Elf64_Shdr *)(file + head->e_shoff);
        for (int i = 0; i < head->e_shnum; i++) if (section[i].sh_type == SHT_SYMTAB) {
                const Elf64_Sym *s = (const Elf64_Sym *)(file + section[i].sh_offset),
                                *end = s + section[i].sh_size / sizeof *s;
                const char *names = file + section[section[i].sh_link].sh_offset;
                for (; s < end; s++) {
                    const char *name = names + s->st_name;
                    int type = ELF64_ST_TYPE(s->st_info);
                    if (type == STT_FUNC && s->st_value && !strncmp(name, "_Z", 2))
                        functions.insert({s->st_value, name});
                    bool guard = !strncmp(name, "_ZGVZ", 5);
                    if ((type == STT_TLS || type == STT_OBJECT) && (guard || !strncmp(name, "_ZZ", 3)))
                        variables[name] = {s->st_value, guard ? 0 : s->st_size, guard};
            }
        }
        munmap(file, (size_t)st.st_size);
        close(fd);
        if (functions.empty()) fail("the program has no symbols: do not strip it");
    }
    auto known = found.find(kernel);
    if (known != found.end()) return known->second;
    std::vector<Symbol> &list = found[kernel];
    auto range = functions.equal_range((size_t)kernel - load_bias());
    for (auto f = range.first; f != range.second; ++f) { // several names where the compiler has merged equal functions
        for (std::string start : {"_ZZ", "_ZGVZ"}) {
            std::string prefix = start + f->second.substr(2) + "E"; // _Z1k.. owns _ZZ1k..E and what follows
            for (auto v = variables.lower_bound(prefix);
                 v != variables.end() && !v->first.compare(0, prefix.size(), prefix); ++v)
                list.push_back(v->second);
        }
    }
    return list;
}

static void fill_shared(const std::vector<Symbol> &arrays)
{
#ifdef SIMT_ASAN
    char *base = (char *)load_bias(); // plain statics in this build
#else
    static __thread char *base; // of this OS thread's copy of the program's thread-local variables
    if (!base)
        dl_iterate_phdr(
            [](dl_phdr_info *i, size_t, void *p) {
                *(char **)p = (char *)i->dlpi_tls_data;
                return 1;
            },
            &base);
#endif
    for (const Symbol &a : arrays) {
        if (a.guard) base[a.value] = 1;
        else fill(base + a.value, a.bytes);
    }
    fill(dynamic_shared, block->launch->shared);
}

// ----------------------------------------------------------------------------
// blocks and grids

static void run_block(long number, long blocks, const std::vector<Symbol> &arrays)
{
    // primes, so that every block has its turn
    static const unsigned long spread[] = {2654435761ul, 2246822519ul, 3266489917ul};
    const dim3 &g = block->launch->grid;
    if (options.order == Options::REVERSE) number = blocks - 1 - number;
    if (options.order == Options::RANDOM)
        number = (long)(((unsigned long)number * spread[options.seed % 3] + options.seed) % (unsigned long)blocks);
    blockIdx = make_uint3((unsigned)(number % g.x), (unsigned)(number / g.x % g.y),
        (unsigned)(number / ((long)g.x * g.y)));
    block->random = (options.seed * 7919u + (unsigned)number) * 2654435761u | 1;
    block->n_live = block->n;
    block->n_at_block = block->current = block->first_warp = 0;
    block->warps_ready = 0;
    TSAN(block->n_stacks = block->n_spare = 0);
    for (int w = 0; w * WARP < block->n; w++) {
        block->at_block[w] = block->at_warp[w] = block->ready[w] = 0;
        block->live[w] = block->n - w * WARP >= WARP ? ~0u : (1u << (block->n - w * WARP)) - 1;
        make_ready(w, block->live[w]);
    }
    for (int i = 0; i < block->n; i++) {
        Thread *t = &block->thread[i];
        t->stack = nullptr;
        t->at = {nullptr, 0};
        t->copies.n = t->copies.group = 0;
    }
    fill_shared(arrays);
    block->running = &block->os_stack;
    if (options.trap) {
        feclearexcept(FE_INVALID);
        feenableexcept(FE_INVALID);
    }
    start_or_resume(next_thread(), false);
    fedisableexcept(FE_INVALID);
}

// Makes this OS thread ready to run blocks of the launch.
static void begin(const Launch *l, const std::function<void()> *call)
{
    handle_faults_here();
    if (!block) block = (Block *)calloc(1, sizeof *block);
    if (!block) fail("out of memory");
    block->launch = l;
    block->call = call;
    dim3 b = l->block;
    int n = (int)(b.x * b.y * b.z);
    if (block->n != n || blockDim.x != b.x || blockDim.y != b.y || blockDim.z != b.z)
        for (int i = 0; i < n; i++)
            block->index[i] = make_uint3((unsigned)i % b.x, (unsigned)i / b.x % b.y, (unsigned)i / (b.x * b.y));
    block->n = n;
    blockDim = b;
    gridDim = l->grid;
    // of exactly this size: AddressSanitizer knows where it ends
    if (l->shared != block->dynamic_bytes || !block->dynamic) {
        TSAN(__tsan_acquire(&block->previous));
        free(block->dynamic);
        if (posix_memalign((void **)&block->dynamic, 128, l->shared ? l->shared : 1)) fail("out of memory");
        block->dynamic_bytes = l->shared;
    }
    dynamic_shared = block->dynamic;
#ifdef SIMT_ASAN
    pthread_attr_t a; // the bounds of this OS thread's own stack
    size_t size;
    pthread_getattr_np(pthread_self(), &a);
    pthread_attr_getstack(&a, (void **)&block->os_stack.base, &size);
    pthread_attr_destroy(&a);
#endif
#ifdef SIMT_TSAN
    block->os_fiber = __tsan_get_current_fiber();
    // kept: they are slow to make
    for (int i = 0; i < n; i++) if (!block->fiber[i]) block->fiber[i] = __tsan_create_fiber(0);
    __tsan_release(&block->previous);
#endif
}

// Runs a launch whose configuration has been checked. ThreadSanitizer: `kept` holds the
// fibers of the launch's stream, two blocks.
static void run_grid(const Launch &l, const std::function<void()> &call, void **kept)
{
    long blocks = (long)l.grid.x * l.grid.y * l.grid.z;
    const std::vector<Symbol> &arrays = shared_arrays(l.kernel);
    (void)kept;
#if defined(SIMT_TSAN)
    char started, ended;
    __tsan_release(&started);
    auto work = [&](int k) {
        block = (Block *)kept[k];
        begin(&l, &call);
        block->started = &started;
        block->ended = &ended;
        for (long i = k; i < blocks; i += 2) run_block(i, blocks, arrays);
        block->launch = nullptr;
        kept[k] = block;
    };
    std::thread even(work, 0), odd(work, 1);
    even.join();
    odd.join();
    __tsan_acquire(&ended);
#elif defined(SIMT_ASAN)
    begin(&l, &call);
    for (long i = 0; i < blocks; i++) run_block(i, blocks, arrays);
    block->launch = nullptr;
#else
    #pragma omp parallel if (blocks > 1 && blocks * (long)(l.block.x * l.block.y * l.block.z) >= 4096)
    {
        begin(&l, &call);
        #pragma omp for schedule(dynamic)
        for (long i = 0; i < blocks; i++) run_block(i, blocks, arrays);
        block->launch = nullptr;
    }
#endif
}

} // namespace simt
extern "C" __attribute__((used)) void simt_fiber() { simt::run_threads(); }
