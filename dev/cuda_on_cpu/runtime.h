// runtime.h: the CUDA runtime's calls, strict where a GPU is merely unlucky.
//
// Memory. Device memory is one arena of address space which the host cannot read: it has permissions only while
// queued work runs. So a host that follows a device pointer faults, and the report names the allocation. Every
// allocation is filled with signalling NaNs; under AddressSanitizer it has red zones. SIMT_DEVICE_MB limits the arena
// (default 4096), so that running out can be tested.
//
// Streams. Work is queued and runs only when the host waits for it (a stream, an event, the device, a blocking copy),
// and then no more than must run. Whoever forgot to wait therefore sees that nothing has happened: pinned memory that a
// queued copy will write has no permissions until the copy has run, and what a queued copy will read cannot be written.
// Order between streams is a vector clock: an operation carries for each stream the number of operations that come
// before it, by stream order, events and the host's waits. Two operations on one address, one of them writing, that no
// such order connects are an error at once. (An address is a kernel's argument or the range of a copy. What is inside a
// larger buffer is ThreadSanitizer's business, for which a stream is a thread.)
//
// Graphs. A capturing stream collects its operations in a list; launching the graph queues them again.
//
// Calls return the error that the CUDA runtime returns, where a program might handle it (no memory, no such
// attribute). What no program handles ends it with a report. One host thread calls. Left out: managed memory,
// pools, symbols, host functions, several devices.
#pragma once
#include <array>
#include <chrono>
#include <deque>
#include <memory>

namespace simt {

// ----------------------------------------------------------------------------
// memory

enum : size_t { PAGE = 4096, HUGE = 2 << 20, RED_ZONE = 256 };
struct Range {
    const char *start;
    size_t bytes;
    bool writes;
    bool contains(const void *p) const { return (const char *)p >= start && (const char *)p < start + bytes; }
    bool overlaps(const Range &r) const { return start < r.start + r.bytes && r.start < start + bytes; }
};
struct Allocation {
    size_t bytes;
    Where where;
};
struct Waiting { // a queued copy from or to pinned memory
    Range range;
    Where where;
    std::string what;
    int stream;
    unsigned number;
};
struct Pinned {
    size_t bytes;
    std::vector<Waiting> waiting;
};
static std::map<const char *, Allocation> device; // by address
static std::map<const char *, Pinned> pinned;
static char *arena;
static size_t in_use, in_use_most;     // bytes of device memory that the program has now, and had at most
static size_t arena_bytes, arena_high; // arena_high: what has ever been allocated lies below
static cudaError_t last_error;

static cudaError_t error(cudaError_t e)
{
    if (e != cudaSuccess) last_error = e;
    return e;
}
static size_t round_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }
static size_t pages(size_t bytes) { return round_up(bytes, PAGE); }

template <class Map> typename Map::iterator find_in(Map &m, const void *p) // the entry whose memory holds p, or its end
{
    auto i = m.upper_bound((const char *)p);
    if (i == m.begin()) return m.end();
    --i;
    return (const char *)p <= i->first + i->second.bytes ? i : m.end();
}
static bool in_arena(const void *p) { return (const char *)p >= arena && (const char *)p < arena + arena_bytes; }
static std::string describe(const void *p)
{
    auto a = find_in(device, p);
    if (a != device.end())
        return say("%p, byte %zu of the %zu bytes of device memory allocated at %s", p,
            (size_t)((const char *)p - a->first), a->second.bytes, a->second.where.text().c_str());
    if (in_arena(p)) return say("%p, device memory that is not allocated", p);
    return find_in(pinned, p) != pinned.end() ? say("%p, pinned host memory", p) : say("%p, not device memory", p);
}

static void protect(const void *p, size_t bytes, int permissions)
{
    if (bytes && mprotect((void *)p, bytes, permissions)) fail("mprotect of %zu bytes failed", bytes);
}
// Device memory is readable while work runs.
struct OpenDevice {
    static int depth;
    OpenDevice() { if (!depth++) protect(arena, arena_high, PROT_READ | PROT_WRITE); }
    ~OpenDevice() { if (!--depth) protect(arena, arena_high, PROT_NONE); }
};
#ifdef SIMT_COST
int OpenDevice::depth = 1; // the arena is open for good: start()
#else
int OpenDevice::depth;
#endif

static void protect_waiting(std::pair<const char *const, Pinned> &p)
{
    protect(p.first, pages(p.second.bytes), PROT_READ | PROT_WRITE);
    for (int writes = 0; writes < 2; writes++)
        for (const Waiting &w : p.second.waiting)
            if (w.range.writes == (writes == 1)) {
                const char *from = (const char *)((size_t)w.range.start / PAGE * PAGE);
                protect(from, pages((size_t)(w.range.start + w.range.bytes - from)), writes ? PROT_NONE : PROT_READ);
            }
}

std::string explain_fault(const void *p, bool *resume)
{
    auto pin = find_in(pinned, p);
    if (pin != pinned.end() && !in_kernel()) {
        for (const Waiting &w : pin->second.waiting) if (w.range.contains(p))
                return say("the host uses pinned memory that %s, queued at %s, has yet to %s: "
                           "wait for its stream or an event first",
                    w.what.c_str(), w.where.text().c_str(), w.range.writes ? "write" : "read");
        // beside what waits, on the same page
        protect((const char *)((size_t)p / PAGE * PAGE), PAGE, PROT_READ | PROT_WRITE);
        *resume = true;
        return "";
    }
    if (in_arena(p) && !in_kernel()) return "host code reads or writes " + describe(p);
    if (!in_kernel()) return say("segmentation fault at %p", p);
    for (const Stack &s : block->stacks) if (s.base && (const char *)p >= s.base && (const char *)p < s.base + PAGE)
        return say("a thread's stack overflows (%zu KiB)", STACK_BYTES >> 10);
    return p ? "reads or writes " + describe(p) : "reads or writes NULL, or a vector at a misaligned address";
}

static void write_account() // SIMT_MEMORY names a file: the most bytes of device memory that there were at one time
{
    FILE *f = fopen(getenv("SIMT_MEMORY"), "w");
    if (!f || fprintf(f, "%zu\n", in_use_most) < 0 || fclose(f)) fprintf(stderr, "SIMT_MEMORY: cannot be written\n");
}

static void start()
{
    if (arena) return;
    if (getenv("SIMT_MEMORY")) atexit(write_account);
    const char *mb = getenv("SIMT_DEVICE_MB");
    arena_bytes = round_up((mb ? strtoul(mb, nullptr, 10) : 4096) << 20, HUGE);
    arena = (char *)mmap(nullptr, arena_bytes + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena == MAP_FAILED)
        fail("no address space for %zu MiB of device memory: set SIMT_DEVICE_MB", arena_bytes >> 20);
    arena = (char *)round_up((size_t)arena, HUGE);
    COST(protect(arena, arena_bytes, PROT_READ | PROT_WRITE); options.trap = false; if (false))
    madvise(arena, arena_bytes, MADV_HUGEPAGE); // permissions change often, and a page at a time
    handle_faults_here();
}

// ----------------------------------------------------------------------------
// streams

} // namespace simt

enum { MAX_STREAMS = 16 };
typedef std::array<unsigned, MAX_STREAMS> Clock;
struct Operation {
    std::string what;
    simt::Where where;
    std::vector<simt::Range> uses;
    std::function<void(CUstream_st &)> run;
    unsigned number;
    Clock after; // how many operations of each stream come before it; of its own, with it
    bool launches;
    std::shared_ptr<char> queued; // ThreadSanitizer: what the host did before it queued this comes before it
};
struct CUgraph_st {
    std::vector<Operation> operations;
};
struct CUgraphExec_st : CUgraph_st {};
struct CUstream_st {
    int id;
    bool blocking; // ordered with the default stream
    std::deque<Operation> queue;
    unsigned queued, done;
    Clock clock;
    CUgraph_st *capture;
    // ThreadSanitizer: a stream is a thread, and this is what its operations release for the host and other streams
    char side;
    void *fiber;
    void *blocks[2];
};
struct CUevent_st {
    bool recorded;
    int stream;
    Clock after; // the record itself with it
    std::shared_ptr<double> ms;
};

namespace simt {

static CUstream_st *streams[MAX_STREAMS]; // streams[0] is the default stream, made when it is first used
static Clock host;                        // the operations that the host has waited for
static size_t launches;
struct Past {
    Range range;
    int stream;
    unsigned number;
    std::string what;
    Where where;
};
static std::vector<Past> past; // uses of memory that the host has not waited for; kept once there are several streams

static void join(Clock &a, const Clock &b)
{
    for (int i = 0; i < MAX_STREAMS; i++) if (a[(size_t)i] < b[(size_t)i]) a[(size_t)i] = b[(size_t)i];
}
static bool several_streams()
{
    int n = 0;
    for (CUstream_st *s : streams) n += s != nullptr;
    return n > 1;
}

static cudaError_t new_stream(cudaStream_t *out, bool blocking, int first = 1)
{
    start();
    for (int i = first; i < MAX_STREAMS; i++) if (!streams[i]) {
        streams[i] = *out = new CUstream_st();
        (*out)->id = i;
        (*out)->blocking = blocking;
        (*out)->clock = host;
        (*out)->queued = (*out)->done = host[(size_t)i]; // numbers go on where a destroyed stream of this id left them
        TSAN((*out)->fiber = __tsan_create_fiber(0));
        return cudaSuccess;
    }
    return error(cudaErrorMemoryAllocation);
}
static CUstream_st &stream_of(cudaStream_t s)
{
    if (!s || s == cudaStreamLegacy) {
        if (!streams[0]) new_stream(&s, true, 0);
        return *streams[0];
    }
    for (CUstream_st *t : streams) if (t == s) return *s;
    fail("stream %p does not exist (or was destroyed)", (void *)s);
}

// Runs the stream's operations up to `number`, and before each one what it comes after.
static void run_until(CUstream_st &s, unsigned number)
{
    while (!s.queue.empty() && s.queue.front().number <= number) {
        Operation o = std::move(s.queue.front());
        s.queue.pop_front();
        for (CUstream_st *t : streams) if (t && t != &s) run_until(*t, o.after[(size_t)t->id]);
        OpenDevice open;
        running_what = o.what;
        running_where = o.where;
        for (const Range &r : o.uses) {
            auto p = find_in(pinned, r.start);
            if (p != pinned.end()) protect(p->first, pages(p->second.bytes), PROT_READ | PROT_WRITE);
        }
#ifdef SIMT_TSAN
        void *caller = __tsan_get_current_fiber();
        __tsan_switch_to_fiber(s.fiber, __tsan_switch_to_fiber_no_sync);
        __tsan_acquire(o.queued.get());
        for (CUstream_st *t : streams) if (t && o.after[(size_t)t->id] > host[(size_t)t->id]) __tsan_acquire(&t->side);
#endif
        o.run(s);
        o.run = nullptr; // what it holds is freed by the stream, not by the host
        TSAN(__tsan_release(&s.side); __tsan_switch_to_fiber(caller, __tsan_switch_to_fiber_no_sync));
        s.done = o.number;
        running_what.clear();
        for (const Range &r : o.uses) {
            auto p = find_in(pinned, r.start);
            if (p == pinned.end()) continue;
            std::vector<Waiting> &w = p->second.waiting;
            for (size_t i = w.size(); i-- > 0;)
                if (w[i].stream == s.id && w[i].number == o.number) w.erase(w.begin() + (long)i);
            protect_waiting(*p);
        }
    }
}

// The host waits for these operations: they run.
static void wait_for(const Clock &after)
{
    for (CUstream_st *t : streams) if (t && after[(size_t)t->id] > host[(size_t)t->id]) {
        run_until(*t, after[(size_t)t->id]);
        TSAN(__tsan_acquire(&t->side));
    }
    join(host, after);
    size_t kept = 0;
    for (size_t i = 0; i < past.size(); i++) if (past[i].number > host[(size_t)past[i].stream]) past[kept++] = past[i];
    past.resize(kept);
}
static void wait_for(CUstream_st &s)
{
    COST(cost_wait());
    if (s.capture) fail("the host waits for a stream that is capturing a graph");
    wait_for(s.clock);
}
static void wait_for_all() { for (CUstream_st *s : streams) if (s) wait_for(*s); }
static void forbid_capture(const char *call)
{
    for (CUstream_st *s : streams) if (s && s->capture) fail("%s while a stream is capturing a graph", call);
}

static void queue(CUstream_st &s, Operation o)
{
    if (s.capture) {
        s.capture->operations.push_back(std::move(o));
        return;
    }
    if (s.id == 0) forbid_capture("work on the default stream");
    launches += o.launches;
    join(s.clock, host);
    for (CUstream_st *t : streams)
        if (t && t != &s && s.blocking && t->blocking && (s.id == 0 || t->id == 0)) join(s.clock, t->clock);
    o.number = s.clock[(size_t)s.id] = ++s.queued;
    o.after = s.clock;
    if (several_streams()) {
        for (const Range &r : o.uses) for (const Past &p : past)
            if ((r.writes || p.range.writes) && r.overlaps(p.range) && p.number > o.after[(size_t)p.stream])
                fail_at(nullptr,
                    o.what + " at " + o.where.text() + " and " + p.what + " at " + p.where.text() + " use " +
                        describe(r.start) +
                        ", on two streams, and nothing orders them: cudaStreamWaitEvent is missing");
        for (const Range &r : o.uses) past.push_back({r, s.id, o.number, o.what, o.where});
    }
    for (const Range &r : o.uses) {
        auto p = find_in(pinned, r.start);
        if (p == pinned.end()) continue;
        p->second.waiting.push_back({r, o.where, o.what, s.id, o.number});
        protect_waiting(*p);
    }
    TSAN(o.queued = std::make_shared<char>(); __tsan_release(o.queued.get()));
#ifdef SIMT_COST
    unsigned number = o.number;
    s.queue.push_back(std::move(o));
    run_until(s, number);
    cost_queued();
#else
    s.queue.push_back(std::move(o));
#endif
}

// ----------------------------------------------------------------------------
// launches and copies

static std::map<const void *, size_t> shared_limit; // kernels whose limit was raised
enum : size_t { SHARED_DEFAULT = 48 << 10, SHARED_MOST = 163 << 10 };

void launch(const Launch &l, cudaStream_t stream, const Argument *arguments, size_t n, std::function<void()> call)
{
    CUstream_st &s = stream_of(stream);
    const dim3 &g = l.grid, &b = l.block;
    std::string what = say("kernel %s", l.name), where = Where{l.at, nullptr}.text();
    size_t threads = (size_t)b.x * b.y * b.z, fixed = 0;
    for (const Symbol &a : shared_arrays(l.kernel)) fixed += a.bytes;
    auto raised = shared_limit.find(l.kernel);
    size_t limit = raised == shared_limit.end() ? SHARED_DEFAULT : raised->second;
    if (!g.x || !g.y || !g.z || g.x > 2147483647u || g.y > 65535 || g.z > 65535 || !threads || b.x > 1024 ||
        b.y > 1024 || b.z > 64 || threads > 1024)
        fail("%s at %s: grid (%u,%u,%u) of blocks (%u,%u,%u) is not possible: at most 1024 threads a block and "
             "65535 blocks in y and z, none of it 0",
            what.c_str(), where.c_str(), g.x, g.y, g.z, b.x, b.y, b.z);
    if (fixed > SHARED_DEFAULT || l.shared + fixed > limit)
        fail("%s at %s: %zu bytes of dynamic and %zu of static shared memory, the limit is %zu: see "
             "cudaFuncSetAttribute",
            what.c_str(), where.c_str(), l.shared, fixed, limit);
    Operation o = {what, {l.at, nullptr}, {}, nullptr, 0, {}, true, nullptr};
    for (size_t i = 0; i < n; i++) if (arguments[i].pointer) {
        if (find_in(device, arguments[i].pointer) == device.end())
            fail("%s at %s: argument %zu is %s", what.c_str(), where.c_str(), i + 1,
                describe(arguments[i].pointer).c_str());
        o.uses.push_back({(const char *)arguments[i].pointer, 1, arguments[i].writes});
    }
#ifdef SIMT_COST
    Launch keyed = l;
    cost_key(&keyed, arguments, n);
    o.run = [keyed, call](CUstream_st &) { cost_launch(keyed, call); };
    (void)run_grid;
#else
    o.run = [l, call](CUstream_st &on) { run_grid(l, call, on.blocks); };
#endif
    queue(s, std::move(o));
}

static void check_device_range(const char *what, const void *p, size_t bytes)
{
    auto a = find_in(device, p);
    if (a == device.end()) fail("%s: %s", what, describe(p).c_str());
    if (bytes > a->second.bytes - (size_t)((const char *)p - a->first))
        fail("%s of %zu bytes ends beyond it: %s", what, bytes, describe(p).c_str());
}

static void move_bytes(void *to, const void *from, size_t bytes)
{
    COST(if (!cost_copy(to, from, bytes, in_arena(to), in_arena(from))) return);
    TSAN(__tsan_read_range((void *)from, bytes); __tsan_write_range(to, bytes));
#ifdef SIMT_ASAN
    if (__asan_region_is_poisoned(to, bytes) || __asan_region_is_poisoned((void *)from, bytes))
        fail("a copy reads or writes out of bounds, or what was freed");
#endif
    memmove(to, from, bytes);
}

// Queues a copy. Pageable host memory is read at once, as the CUDA runtime does; a copy
// into it is over when the call returns.
static cudaError_t copy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream, Where where)
{
    CUstream_st &s = stream_of(stream);
    if (!bytes) return cudaSuccess;
    bool to_device = in_arena(to), from_device = in_arena(from);
    static const char *const names[] = {"from host to host", "to the device", "from the device", "within the device"};
    int is = (to_device ? 1 : 0) + (from_device ? 2 : 0);
    if (kind != cudaMemcpyDefault && (int)kind != is)
        fail("a copy %s was called with memory for a copy %s: the destination is %s, the source %s", names[kind],
            names[is], describe(to).c_str(), describe(from).c_str());
    if (to_device) check_device_range("the destination of a copy", to, bytes);
    if (from_device) check_device_range("the source of a copy", from, bytes);
    bool to_pageable = !to_device && find_in(pinned, to) == pinned.end(),
         from_pageable = !from_device && find_in(pinned, from) == pinned.end();
    if (s.capture && (to_pageable || from_pageable))
        fail("a copy from or to pageable memory cannot be captured in a graph: use cudaMallocHost");
    std::shared_ptr<std::vector<char>> held;
    if (from_pageable && !to_pageable)
        held = std::make_shared<std::vector<char>>((const char *)from, (const char *)from + bytes);
    Operation o = {say("a copy of %zu bytes %s", bytes, names[is]), where, {}, nullptr, 0, {}, false, nullptr};
    if (!from_pageable) o.uses.push_back({(const char *)from, bytes, false});
    if (!to_pageable) o.uses.push_back({(const char *)to, bytes, true});
    o.run = [=](CUstream_st &) { move_bytes(to, held ? held->data() : from, bytes); };
    queue(s, std::move(o));
    if (to_pageable) wait_for(s);
    return cudaSuccess;
}

static cudaError_t set(void *p, int value, size_t bytes, cudaStream_t stream, Where where)
{
    CUstream_st &s = stream_of(stream);
    if (!bytes) return cudaSuccess;
    check_device_range("cudaMemset", p, bytes);
    queue(s, {say("a cudaMemset of %zu bytes", bytes), where, {{(const char *)p, bytes, true}}, [=](CUstream_st &) {
        TSAN(__tsan_write_range(p, bytes));
        COST(cost_fill((double)bytes); if (false))
        memset(p, value, bytes);
    }, 0, {}, false, nullptr});
    return cudaSuccess;
}

} // namespace simt

// ----------------------------------------------------------------------------
// the runtime's calls
using namespace simt;

size_t cuda_on_cpu_launches(void) { return simt::launches; }

static char *room_for(char *from, size_t size) // with red zones on both sides; NULL if there is none
{
    char *p = from + RED_ZONE;
    for (auto &a : device) {
        if (a.first >= p + size + RED_ZONE) break;
        char *end = (char *)a.first + round_up(a.second.bytes, RED_ZONE) + RED_ZONE;
        if (end > p) p = end;
    }
    return (size_t)(p - arena) + size + RED_ZONE <= arena_bytes ? p : nullptr;
}

extern "C" {

cudaError_t cudaMalloc(void **out, size_t bytes)
{
    start();
    forbid_capture("cudaMalloc");
    Where where = SIMT_CALLER;
    size_t size = round_up(bytes, RED_ZONE);
    static char *next; // the first room from where the last allocation ended: freed memory is not used again at once
    *out = nullptr;
    char *p = bytes <= arena_bytes ? room_for(next ? next : arena, size) : nullptr;
    if (!p && bytes <= arena_bytes) p = room_for(arena, size);
    if (!p) return error(cudaErrorMemoryAllocation);
    next = p + size;
    size_t high = round_up((size_t)(p - arena) + size + RED_ZONE, HUGE);
    if (high > arena_high) arena_high = high;
    OpenDevice open;
    protect(arena, arena_high, PROT_READ | PROT_WRITE);
#ifdef SIMT_ASAN
    __asan_poison_memory_region(p - RED_ZONE, size + 2 * RED_ZONE);
    __asan_unpoison_memory_region(p, bytes);
#endif
    COST(if (false)) fill(p, bytes);
    device[p] = {bytes, where};
    in_use += bytes;
    if (in_use > in_use_most) in_use_most = in_use;
    *out = p;
    return cudaSuccess;
}
cudaError_t cudaFree(void *p)
{
    if (!p) return cudaSuccess;
    wait_for_all();
    auto a = device.find((const char *)p);
    if (a == device.end()) fail("cudaFree of %s", describe(p).c_str());
    in_use -= a->second.bytes;
#ifdef SIMT_ASAN
    __asan_poison_memory_region(p, a->second.bytes);
#endif
    char *from = (char *)round_up((size_t)p, HUGE), *end = (char *)(((size_t)p + a->second.bytes) / HUGE * HUGE);
    if (end > from) madvise(from, (size_t)(end - from), MADV_DONTNEED);
    device.erase(a);
    return cudaSuccess;
}
cudaError_t cudaMallocHost(void **out, size_t bytes)
{
    start();
    char *p = (char *)mmap(nullptr, pages(bytes + 1), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return error(cudaErrorMemoryAllocation);
    fill(p, bytes);
    pinned[p].bytes = bytes;
    *out = p;
    return cudaSuccess;
}
cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned) { return cudaMallocHost(out, bytes); }
cudaError_t cudaFreeHost(void *p)
{
    if (!p) return cudaSuccess;
    wait_for_all();
    auto a = pinned.find((const char *)p);
    if (a == pinned.end()) fail("cudaFreeHost of %s", describe(p).c_str());
    munmap(p, pages(a->second.bytes + 1));
    pinned.erase(a);
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    start();
    size_t used = 0;
    for (auto &a : device) used += a.second.bytes + RED_ZONE;
    *total = arena_bytes;
    *free_bytes = arena_bytes - (used < arena_bytes ? used : arena_bytes);
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    copy(to, from, bytes, kind, nullptr, SIMT_CALLER);
    wait_for(stream_of(nullptr));
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t s)
{
    return copy(to, from, bytes, kind, s, SIMT_CALLER);
}
cudaError_t cudaMemset(void *p, int value, size_t bytes) { return set(p, value, bytes, nullptr, SIMT_CALLER); }
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t s)
{
    return set(p, value, bytes, s, SIMT_CALLER);
}

cudaError_t cudaStreamCreate(cudaStream_t *s) { return new_stream(s, true); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags)
{
    return new_stream(s, flags != cudaStreamNonBlocking);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    CUstream_st &s = stream_of(stream);
    wait_for(s);
    streams[s.id] = nullptr;
    TSAN(__tsan_destroy_fiber(s.fiber));
    delete &s;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    wait_for(stream_of(s));
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize()
{
    wait_for_all();
    return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    CUstream_st &s = stream_of(stream);
    if (s.queue.empty()) return wait_for(s), cudaSuccess;
    run_until(s, s.queue.front().number); // so that who polls gets there
    return cudaErrorNotReady;
}

cudaError_t cudaEventCreate(cudaEvent_t *e)
{
    *e = new CUevent_st();
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned) { return cudaEventCreate(e); }
cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    delete e;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t stream)
{
    CUstream_st &s = stream_of(stream);
    std::shared_ptr<double> ms = std::make_shared<double>(0.0);
    queue(s, {"an event's record", SIMT_CALLER, {}, [ms](CUstream_st &) {
        COST(done = Done());
        *ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
    }, 0, {}, false, nullptr});
    if (s.capture) return cudaSuccess; // a graph is replayed in order
    *e = {true, s.id, s.clock, ms};
    COST(cost_record(e));
    return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned)
{
    if (e->recorded) join(stream_of(s).clock, e->after);
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    COST(if (e->recorded) cost_wait(e));
    if (e->recorded) wait_for(e->after);
    return cudaSuccess;
}
static bool has_run(cudaEvent_t e)
{
    CUstream_st *s = streams[e->stream];
    return !s || s->done >= e->after[(size_t)e->stream]; // who destroyed the stream waited for it
}
cudaError_t cudaEventQuery(cudaEvent_t e)
{
    if (!e->recorded || has_run(e)) return cudaEventSynchronize(e);
    run_until(*streams[e->stream], streams[e->stream]->queue.front().number);
    return cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    if (!from->recorded || !to->recorded) return error(cudaErrorInvalidResourceHandle);
    if (!has_run(from) || !has_run(to)) return error(cudaErrorNotReady);
    *ms = (float)(*to->ms - *from->ms);
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode)
{
    CUstream_st &s = stream_of(stream);
    if (s.id == 0) fail("the default stream cannot be captured");
    if (s.capture) fail("the stream captures already");
    s.capture = new CUgraph_st();
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    CUstream_st &s = stream_of(stream);
    if (!s.capture) return error(cudaErrorIllegalState);
    *graph = s.capture;
    s.capture = nullptr;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long)
{
    *out = new CUgraphExec_st();
    (*out)->operations = graph->operations;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags)
{
    return cudaGraphInstantiate(out, graph, flags);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t s)
{
    COST(cost_graph(); in_graph = true);
    for (const Operation &o : graph->operations) {
        for (const Range &r : o.uses) if (in_arena(r.start) && find_in(device, r.start) == device.end())
                fail("the graph's %s, captured at %s, uses %s", o.what.c_str(), o.where.text().c_str(),
                    describe(r.start).c_str());
        queue(stream_of(s), o);
    }
    COST(in_graph = false);
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph)
{
    wait_for_all();
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGetLastError()
{
    cudaError_t e = last_error;
    last_error = cudaSuccess;
    return e;
}
cudaError_t cudaPeekAtLastError() { return last_error; }
const char *cudaGetErrorString(cudaError_t e)
{
    switch ((int)e) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorNotReady: return "device not ready";
    }
    return "an error of the CUDA runtime";
}
const char *cudaGetErrorName(cudaError_t e)
{
    switch ((int)e) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorNotReady: return "cudaErrorNotReady";
    }
    return "cudaError";
}
cudaError_t cudaSetDevice(int n) { return n ? error(cudaErrorInvalidDevice) : cudaSuccess; }
cudaError_t cudaGetDevice(int *n)
{
    *n = 0;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int *n)
{
    *n = 1;
    return cudaSuccess;
}

// The device is as small as an A100 and has few processors, so that grids sized by their number take several rounds.
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int)
{
    start();
    memset((void *)p, 0, sizeof *p);
    strcpy(p->name, "CUDA on the CPU");
    p->major = 8;
    p->minor = 0;
    p->warpSize = WARP;
    p->multiProcessorCount = 4;
    p->maxThreadsPerBlock = MAX_THREADS;
    p->maxThreadsPerMultiProcessor = 2048;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 2147483647;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->sharedMemPerBlock = SHARED_DEFAULT;
    const char *kb = getenv("SIMT_SHARED_KB"); // a device that has less
    p->sharedMemPerBlockOptin = kb ? strtoul(kb, nullptr, 10) << 10 : SHARED_MOST;
    p->sharedMemPerMultiprocessor = SHARED_MOST + 1024;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->l2CacheSize = 40 << 20;
    p->totalGlobalMem = arena_bytes;
    if (getenv("SIMT_CARDS")) snprintf(p->uuid.bytes, sizeof p->uuid.bytes, "%d", getpid()); // each process has its own
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int)
{
    cudaDeviceProp p;
    cudaGetDeviceProperties(&p, 0);
    switch ((int)attribute) { // of more than a hundred these few are asked for
    case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = p.minor; break;
    case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
    case cudaDevAttrWarpSize: *value = p.warpSize; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = p.maxThreadsPerBlock; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = p.maxThreadsPerMultiProcessor; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = (int)p.sharedMemPerBlock; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = (int)p.sharedMemPerBlockOptin; break;
    case cudaDevAttrL2CacheSize: *value = p.l2CacheSize; break;
    default: return error(cudaErrorInvalidValue);
    }
    return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value)
{
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0) return error(cudaErrorInvalidValue);
    size_t fixed = 0;
    for (const Symbol &a : shared_arrays(kernel)) fixed += a.bytes;
    if ((size_t)value + fixed > SHARED_MOST) return error(cudaErrorInvalidValue);
    shared_limit[kernel] = (size_t)value + fixed < SHARED_DEFAULT ? (size_t)SHARED_DEFAULT : (size_t)value + fixed;
    return cudaSuccess;
}

} // extern "C"
