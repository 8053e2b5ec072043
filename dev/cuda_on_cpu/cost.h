// cost.h: what a program would cost on a card, found out without one.
//
// With -DSIMT_COST the emulator counts instead of computing. Of a launch it runs a few blocks, spread over the grid,
// and looks at every access of every lane: the kernels are compiled with -fsanitize=thread, whose calls __tsan_readN
// and __tsan_writeN are defined here instead of linking ThreadSanitizer. Matrix products, copies and fills are only
// counted. So the program's own code runs at its real sizes: device memory is address space that nobody has written
// to, all zeros, and what a program decides by (tokens, lengths, slots) comes from the host and is really copied.
//
// Counting. The lanes of a warp that are at one instruction for the nth time make one request. Of global memory a
// request takes the 32-byte sectors it touches; of shared memory as many turns (wavefronts) as the most words that
// one bank is asked for, by groups of lanes that are served together: 32 for 4 bytes, 16 for 8, 8 for 16. Sums over
// the blocks that ran are scaled to the grid. What L2 is asked for are a block's distinct sectors, what DRAM is
// asked for are the sectors of all blocks, but no more than the range of addresses they lie in, once.
//
// Time. A kernel takes mostly what its slowest resource takes: memory, shared memory, tensor cores, instructions, or
// the latency of a warp's accesses one after the other, times the rounds in which the grid's blocks fit the card;
// and some time for itself. A product takes the best tiling's time. Two clocks, the host's and the device's, then go
// through the program's calls: a launch costs the host time and waits in the stream, a wait brings them together. So
// a phase that the host holds up is seen as such.
//
// All constants of this model stand in `cards` and `model`. They were set by hand to the times of one H200
// (dev/results/gpu/h200), by GPT-2's kernels alone; A100 and H100 differ by their data sheets alone. Not seen: the
// host's own work between two calls, register spills, instructions other than memory accesses and meeting points,
// except through one mean number for each access.
#pragma once
#include <stddef.h>
#include <stdio.h>

// ----------------------------------------------------------------------------
// for the program that asks (dev/gpu_cost.c)

#ifdef __cplusplus
extern "C" {
#endif
enum { COST_CARDS = 4 };
typedef struct { // all launches of a kernel, or all products, in a stretch
    char name[96];
    const char *bound;                            // what a launch takes longest for, on the last card
    double launches, dram, l2, asked, ideal;      // bytes; asked: by lanes; ideal: had they lain side by side
    double wavefronts, conflict_free, mma;        // of shared memory, and if no bank had been asked twice
    double seconds[COST_CARDS], floor[COST_CARDS]; // on the device; by the data sheet's bandwidth and matrix rate alone
    double bytes, flops, said_bytes, said_flops;  // counted, and by the line of costs in the kernel (cost_operations)
    const char *longest_bound, *said_bound;       // of its longest launch; by that line, NULL: it has none
    double longest;                               // seconds
} CostKernel;
typedef struct { double seconds, device, floor; } CostTime; // with the host's waits; the sum over operations; the least
const char *cost_card(int k);
void cost_operations(void);                                  // from now on, count floating-point operations too
void cost_begin(void);                                       // a stretch begins: two clocks at 0
void cost_end(CostTime time[COST_CARDS], size_t *waits);     // waits for all that was launched
size_t cost_kernels(CostKernel *out, size_t most);           // of the last stretch, the costliest first; how many
void cost_dump(FILE *f, const char *stretch);                // every launch's counts, a line each; NULL: no more
void cost_want(const char *kernel);                          // count only kernels whose name contains this, for:
extern const char *cost_source;                              // the file whose lines are shown, "vbon.cu" unless set
int cost_lines(void);                                        // their accesses by line, on stdout; how many kernels
#ifdef __cplusplus
}
#endif

#ifdef SIMT_ENGINE
#include <algorithm>
#include <set>
#include <unordered_map>

namespace simt {

static bool in_arena(const void *p); // runtime.h

// ----------------------------------------------------------------------------
// the cards and the constants

struct Card {
    const char *name;
    double processors, hz;     // streaming multiprocessors, their clock under load
    double dram, l2;           // bytes a second: of a large copy (read and written), of reads that hit
    double l2_bytes;
    double fma;                // bfloat16 multiply-adds a clock and processor
    double dram_sheet, matrix; // what the data sheet says: bytes a second, bfloat16 operations a second
    bool hopper;
};
enum { CARDS = COST_CARDS };
static const Card cards[CARDS] = {
    {"A100-40", 108, 1.41e9, 1.38e12, 4.0e12, 40e6, 1024, 1.555e12, 312e12, false},
    {"A100-80", 108, 1.41e9, 1.80e12, 4.0e12, 40e6, 1024, 2.039e12, 312e12, false},
    {"H100", 132, 1.74e9, 2.97e12, 5.5e12, 50e6, 2048, 3.35e12, 989e12, true},
    {"H200", 132, 1.74e9, 4.25e12, 5.5e12, 50e6, 2048, 4.8e12, 989e12, true},
};
static const struct {
    double kernel;         // seconds of a kernel's start and end on the device
    double gap, graph_gap; // between two operations of a stream, of a graph
    double step[6];        // clocks that a warp waits for a load, store, shared access, shuffle or vote, barrier, mma
    double overlap;        // of what a kernel is bound by: seconds are (sum part^overlap)^(1/overlap), infinite: all
    double instructions;   // for each access, meeting and mma
    double copy_up, copy_down; // seconds of a small copy on the device
    double host_launch, host_graph, host_copy, host_wait; // seconds of the host's calls
    double mma_ampere, mma_hopper; // share of the matrix rate that mma.sync can have
    double product, product_split; // seconds of a product's start and end, of adding up the parts of one that was cut
    double product_rate;   // share of the matrix rate of the largest tiles
    double product_step;   // clocks that 64 columns of a tile's factors take at least
    double product_load;   // bytes of factors that come to a processor a clock
} model = {1.4e-6, 1.3e-6, 0.3e-6, {60, 4, 13, 19, 370, 11}, 1.6, 6, 2.0e-6, 1.6e-6, 2.2e-6, 6e-6, 3e-6, 8e-6, 0.8, 0.7,
    2.9e-6, 2e-6, 0.77, 195, 56};
enum { SECTOR = 32, L1_BYTES = 64 << 10, FEW_BLOCKS = 6, MANY_BLOCKS = 64 };

// ----------------------------------------------------------------------------
// a block's accesses

struct Request {
    unsigned mask;
    const char *address[WARP];
};
struct Place { // an instruction of the kernel
    const void *pc;
    unsigned size;
    bool write, shared;
    double requests, lanes, bytes, units, ideal; // units: sectors, or wavefronts; ideal: if lanes were side by side
    struct Reach { const char *low, *high; double units; std::vector<size_t> own; }; // own: each block's addresses
    std::map<const void *, Reach> reach;        // of each buffer, by where it begins (an instruction may read several)
    std::vector<unsigned> visits;               // of each thread, in this block
    std::vector<Request> warp[MAX_WARPS];       // the nth visits of a warp's lanes
};
static bool counting;
static const Launch *launched;
static const void *buffer_of(const void *p) // of the arguments that are pointers, the last one up to p
{
    const void *from = nullptr;
    for (const void *a : launched->pointers) if (a && a <= p) from = a;
    return from;
}
static std::unordered_map<const void *, Place> places;
static const std::vector<Symbol> *arrays_now;

static char *tls_base()
{
    static char *base;
    if (!base)
        dl_iterate_phdr(
            [](dl_phdr_info *i, size_t, void *p) {
                *(char **)p = (char *)i->dlpi_tls_data;
                return 1;
            },
            &base);
    return base;
}
static bool is_shared(const char *p)
{
    const char *from = (const char *)dynamic_shared;
    if (p >= from && p < from + block->launch->shared) return true;
    for (const Symbol &a : *arrays_now)
        if (!a.guard && p >= tls_base() + a.value && p < tls_base() + a.value + a.bytes) return true;
    return false;
}

static void record(const void *address, unsigned size, bool write, const void *pc)
{
    if (!counting) return;
    const char *p = (const char *)address;
    bool global = in_arena(p);
    if (!global && !is_shared(p)) return; // the thread's own
    Place &l = places[pc];
    if (!l.size) {
        l.pc = pc;
        l.size = size;
        l.write = write;
        l.shared = !global;
        l.visits.resize(MAX_THREADS);
    }
    int t = block->current;
    std::vector<Request> &w = l.warp[t / WARP];
    unsigned n = l.visits[(size_t)t]++;
    if (n >= w.size()) w.resize(n + 1);
    w[n].mask |= 1u << t % WARP;
    w[n].address[t % WARP] = p;
    if (!global) return;
    Place::Reach &r = l.reach[buffer_of(p)];
    if (!r.low || p < r.low) r.low = p;
    if (p + size > r.high) r.high = p + size;
}

static size_t distinct(std::vector<size_t> &v)
{
    std::sort(v.begin(), v.end());
    return (size_t)(std::unique(v.begin(), v.end()) - v.begin());
}
static double sectors_of(const Request &r, unsigned size, std::vector<size_t> *all, double *ideal)
{
    std::vector<size_t> s, a;
    for (int i = 0; i < WARP; i++) if (r.mask >> i & 1) {
        size_t p = (size_t)r.address[i];
        a.push_back(p);
        for (size_t k = p / SECTOR; k <= (p + size - 1) / SECTOR; k++) s.push_back(k);
    }
    *ideal = (double)((distinct(a) * size + SECTOR - 1) / SECTOR);
    size_t n = distinct(s);
    if (all) all->insert(all->end(), s.begin(), s.begin() + (long)n);
    return (double)n;
}
static double wavefronts_of(const Request &r, unsigned size, double *ideal)
{
    int together = size >= 16 ? 8 : size == 8 ? 16 : 32;
    double turns = 0;
    *ideal = 0;
    for (int from = 0; from < WARP; from += together) {
        std::vector<size_t> bank[32];
        size_t most = 0;
        for (int i = from; i < from + together; i++) if (r.mask >> i & 1)
            for (size_t w = (size_t)r.address[i] / 4; w <= ((size_t)r.address[i] + size - 1) / 4; w++)
                bank[w % 32].push_back(w);
        for (auto &b : bank) most = std::max(most, distinct(b));
        turns += (double)most;
        *ideal += most > 0;
    }
    return turns;
}

// ----------------------------------------------------------------------------
// floating-point operations. The kernels are compiled with -fsanitize-coverage=trace-pc, which puts a call at the start
// of every basic block: how many operations follow it is read from the program's disassembly, once. An addition,
// multiplication, division or root counts one, a function of libm too; what the compiler finds common counts once.

static std::vector<unsigned char> operations; // by the address to which such a call returns, from the program's start
static double flops;                          // of the running block

static void read_operations()
{
    static const std::set<std::string> functions = {"expf", "exp2f", "logf", "tanhf", "erff", "exp", "log", "pow",
        "cos", "sin", "sqrt", "sqrtf"};
    std::string program(4096, 0);
    program.resize((size_t)std::max<ssize_t>(0, readlink(self, &program[0], program.size())));
    FILE *f = popen(("objdump -d --no-show-raw-insn '" + program + "'").c_str(), "r");
    char line[1024], name[64], to[512], with[64];
    size_t address, here = 0;
    bool call = false;
    while (f && fgets(line, sizeof line, f)) {
        int n = sscanf(line, " %zx: %63s %*s <%511[^>]", &address, name, to);
        if (n < 2) { if (line[0] != '\n') here = 0; continue; } // another function
        if (operations.size() <= address) operations.resize(address + 1);
        if (call) here = address;
        call = n == 3 && !strncmp(name, "call", 4) && !strncmp(to, "__sanitizer_cov_trace_pc", 24);
        std::string x(name + (name[0] == 'v')), function(n == 3 && !call ? to : "");
        function = function.substr(0, function.find('@'));
        x = x.substr(0, 3) == "sqr" ? "sqrt" : x.size() == 5 && (x[4] == 's' || x[4] == 'd') ? x.substr(0, 3) : "";
        // a register added to itself: the conversion of an unsigned number
        bool twice = x == "add" && sscanf(line, " %*x: %*s %63[^,],%63s", to, with) == 2 && !strcmp(to, with);
        if (here && !twice && (x == "add" || x == "sub" || x == "mul" || x == "div" || x == "sqrt" ||
                             (!strncmp(name, "call", 4) && functions.count(function))))
            operations[here]++;
    }
    if (!f || pclose(f) || operations.empty()) fail("objdump says nothing of the program: install binutils");
}

// ----------------------------------------------------------------------------
// a launch

enum { LOADS, STORES, SHARED, MEETS, BARRIERS, MMAS, STEPS };
struct Counts { // of all blocks of a launch
    std::string name;
    double blocks, threads, shared_bytes, registers;
    double dram, l2, sectors, ideal, asked, wavefronts, conflict_free, mma, instructions, l2_block;
    double bytes, flops;         // of global memory each byte once, for reading and for writing; operations, mma's too
    double said_bytes, said_flops;
    const char *said_bound;
    double path[STEPS]; // of the slowest warp of a block, on average: how many accesses and meetings, by kind
};

// Registers a thread of each kernel, by nvcc (make registers): "NAME N" a line
static double registers_of(const std::string &name)
{
    static std::map<std::string, double> table;
    if (table.empty()) {
        FILE *f = fopen("dev/cuda_on_cpu/registers.txt", "r");
        char line[512];
        while (f && fgets(line, sizeof line, f)) {
            char *n = strrchr(line, ' ');
            if (line[0] != '#' && n) table[std::string(line, n)] = atof(n + 1);
        }
        if (f) fclose(f);
        table[""] = 0;
    }
    auto i = table.find(name);
    if (i != table.end()) return i->second;
    static bool said;
    if (!said)
        fprintf(stderr, "cost: %s (or more) is not in dev/cuda_on_cpu/registers.txt, 40 registers are assumed: make "
            "registers\n", name.c_str());
    said = true;
    return table[name] = 40;
}

static std::string kernel_name(const void *kernel) // with its template's arguments, without its parameters
{
    static std::map<const void *, std::string> known;
    std::string &name = known[kernel];
    if (!name.empty()) return name;
    void *pc = (void *)kernel;
    std::vector<std::string> l = lines_of(&pc, 1);
    name = l.empty() ? "?" : l.back();
    if (!name.compare(0, 5, "void ")) name = name.substr(5);
    name = name.substr(0, name.find('('));
    for (size_t i; (i = name.find("__nv_bfloat16")) != std::string::npos;) name.replace(i, 13, "bf16");
    return name;
}

static Counts *said; // where a kernel's own line of costs goes, until it has
bool claim_begin()   // claims.h
{
    if (!counting || !said) return false;
    counting = false; // what it looks at for its formulas is not what it does
    return true;
}
void claim(double bytes, double ops, const char *bound)
{
    said->said_bytes = bytes;
    said->said_flops = ops;
    said->said_bound = bound;
    said = nullptr;
    counting = true;
}

static std::string wanted; // count this kernel alone
struct Sample {
    double sectors, blocks, ran;
    std::unordered_map<const void *, Place> places;
};
static std::map<std::string, Sample> wanted_samples; // of each such kernel, the launch with most accesses

static double path_clocks(const double *steps)
{
    double clocks = 0;
    for (int i = 0; i < STEPS; i++) clocks += steps[i] * model.step[i];
    return clocks;
}

static void end_of_block(Counts &c, double weight, std::vector<double> &each)
{
    std::vector<size_t> loads;
    double steps[MAX_WARPS][STEPS] = {{0}}, sectors = 0, loaded = 0, longest = -1;
    for (auto &e : places) {
        Place &l = e.second;
        std::map<const void *, std::vector<size_t>> own; // of this block
        const void *buffer = nullptr;
        Place::Reach *here = nullptr;
        std::vector<size_t> *addresses = nullptr;
        for (int w = 0; w < MAX_WARPS; w++) {
            for (const Request &r : l.warp[w]) {
                double ideal, lanes = __builtin_popcount(r.mask),
                       units = l.shared ? wavefronts_of(r, l.size, &ideal)
                                        : sectors_of(r, l.size, l.write ? nullptr : &loads, &ideal);
                if (weight > 0) {
                    l.requests++; l.lanes += lanes; l.bytes += lanes * l.size; l.units += units; l.ideal += ideal;
                }
                if (l.shared) { c.wavefronts += weight * units; c.conflict_free += weight * ideal; }
                else {
                    c.sectors += weight * units; c.ideal += weight * ideal; c.asked += weight * lanes * l.size;
                    sectors += units;
                    if (!l.write) loaded += units;
                    for (int i = 0; i < WARP && weight > 0; i++) if (r.mask >> i & 1) {
                        const void *b = buffer_of(r.address[i]);
                        if (!here || b != buffer) { buffer = b; here = &l.reach[b]; addresses = &own[b]; }
                        here->units += units / lanes;
                        if (!operations.empty()) addresses->push_back((size_t)r.address[i]);
                    }
                }
                c.instructions += weight;
                steps[w][l.shared ? SHARED : l.write ? STORES : LOADS]++;
            }
            l.warp[w].clear();
        }
        for (auto &b : own) {
            std::vector<size_t> &all = l.reach[b.first].own;
            all.insert(all.end(), b.second.begin(), b.second.begin() + (long)distinct(b.second));
        }
        std::fill(l.visits.begin(), l.visits.end(), 0u);
    }
    double fresh = (double)distinct(loads); // what L1 does not have, if the block's data fit it
    c.l2_block = std::max(c.l2_block, fresh * SECTOR);
    if (fresh * SECTOR > L1_BYTES) fresh = loaded;
    c.l2 += weight * (fresh + sectors - loaded) * SECTOR;
    int slowest = 0, warps = block->n / WARP;
    for (int w = 0; w < warps; w++) {
        steps[w][MEETS] = meets[w] / WARP;
        steps[w][BARRIERS] = barriers / block->n;
        steps[w][MMAS] = mmas / warps;
        c.instructions += weight * steps[w][MEETS];
        double clocks = path_clocks(steps[w]);
        if (clocks > longest) { longest = clocks; slowest = w; }
    }
    for (int i = 0; i < STEPS; i++) c.path[i] += weight * steps[slowest][i];
    c.mma += weight * mmas;
    c.flops += weight * (flops + mmas * 4096);
    c.instructions += weight * mmas;
    if (weight > 0) each.push_back(sectors + mmas);
    std::fill(meets, meets + MAX_WARPS, 0.0);
    barriers = mmas = flops = 0;
}

// Some blocks of the launch, and what all would have done
static Counts count(const Launch &l, const std::function<void()> &call)
{
    Counts c = {};
    long blocks = (long)l.grid.x * l.grid.y * l.grid.z, most = std::min<long>(blocks, FEW_BLOCKS);
    const std::vector<Symbol> &arrays = shared_arrays(l.kernel);
    arrays_now = &arrays;
    c.name = kernel_name(l.kernel);
    c.blocks = (double)blocks;
    c.threads = l.block.x * l.block.y * l.block.z;
    c.shared_bytes = (double)l.shared;
    for (const Symbol &a : arrays) c.shared_bytes += (double)a.bytes;
    if (!wanted.empty() && c.name.find(wanted) == std::string::npos) return c;
    c.registers = registers_of(c.name);
    places.clear();
    said = &c;
    launched = &l;
    counting = true;
    begin(&l, &call);
    std::vector<double> each;
    std::set<long> ran;
    long n = 0;
    for (; n < most; n++) {
        // one of each of MANY_BLOCKS equal parts of the grid's rows, in an order that spreads, anywhere in the part and
        // anywhere down the rows (multiples of such numbers fall everywhere); never a block twice
        auto anywhere = [&](double by) { return fmod(0.5 + (double)n * by, 1.0); };
        long row = (long)l.grid.x, part = n * 37 % MANY_BLOCKS, i = n;
        if (blocks > FEW_BLOCKS)
            i = (long)(((double)part + anywhere(0.6180339887498949)) / MANY_BLOCKS * (double)row) +
                (long)(anywhere(0.7548776662466927) * (double)(blocks / row)) * row;
        while (ran.count(i)) i = (i + 1) % blocks;
        ran.insert(i);
        run_block(i, blocks, arrays);
        end_of_block(c, 1, each);
        if (n + 1 == most && most < std::min<long>(blocks, MANY_BLOCKS)) { // blocks that differ: more of them
            double low = *std::min_element(each.begin(), each.end()),
                   high = *std::max_element(each.begin(), each.end());
            if (high > low * 1.02) most = std::min<long>(blocks, MANY_BLOCKS);
        }
    }
    if (n < blocks)
        for (long i : {0L, blocks - 2, blocks - 1}) { // for the range of addresses alone; the last may be a broken one
            run_block(i, blocks, arrays);
            end_of_block(c, 0, each);
        }
    block->launch = nullptr;
    counting = false;
    said = nullptr;
    double scale = (double)blocks / (double)n;
    for (double *x : {&c.l2, &c.sectors, &c.ideal, &c.asked, &c.wavefronts, &c.conflict_free, &c.mma, &c.instructions,
             &c.flops})
        *x *= scale;
    for (double &x : c.path) x /= (double)n;
    // DRAM: places whose ranges overlap read, or write, one buffer. Bytes: of what the n blocks touched, all of them
    // touch the same part, as weights, and each a part of its own.
    struct Range { const char *low, *high; double taken, own; };
    std::vector<Range> by_low[2];
    for (auto &e : places) for (auto &r : e.second.reach) {
        double apart = (double)r.second.own.size(), together = (double)distinct(r.second.own),
               same = n > 1 ? (apart - together) / ((double)n - 1) : 0;
        by_low[e.second.write].push_back({r.second.low, r.second.high, r.second.units * scale * SECTOR,
            (same + (together - same) * scale) * e.second.size});
    }
    for (auto &v : by_low) {
        std::sort(v.begin(), v.end(), [](const Range &x, const Range &y) { return x.low < y.low; });
        for (size_t i = 0; i < v.size();) {
            const char *low = v[i].low, *high = low;
            double taken = 0, own = 0;
            for (; i < v.size() && (high == low || v[i].low < high); i++) {
                taken += v[i].taken;
                own += v[i].own;
                high = std::max(high, v[i].high);
            }
            c.dram += std::min(taken, (double)(high - low));
            c.bytes += std::min(own, (double)(high - low));
        }
    }
    if (!wanted.empty() && wanted_samples[c.name].sectors <= c.sectors)
        wanted_samples[c.name] = {c.sectors, c.blocks, (double)n, places};
    return c;
}

static double resident(const Card &k, const Counts &c) // blocks at once on a processor
{
    double by_registers = floor(65536 / (ceil(c.registers / 8) * 8 * c.threads)),
           by_shared = floor((k.hopper ? 228e3 : 164e3) / (c.shared_bytes + 1024));
    return std::max(1.0, std::min({floor(2048 / c.threads), by_registers, by_shared, 32.0}));
}
struct Part { const char *name; double seconds; };
static double kernel_seconds(const Card &k, const Counts &c, const char **bound)
{
    double at_once = resident(k, c), rounds = ceil(c.blocks / (k.processors * at_once)), dram = c.dram, all = 0;
    // rows that are read again after the cache has lost them
    if (c.dram > c.l2_block * c.blocks / 2 && c.l2_block * std::min(c.blocks, k.processors * at_once) > k.l2_bytes)
        dram = std::max(dram, c.l2);
    double busy = std::min(c.blocks, k.processors), rate = k.fma * (k.hopper ? model.mma_hopper : model.mma_ampere);
    const bool by_dram = dram / k.dram > c.l2 / k.l2;
    const Part parts[] = {
        {by_dram ? "DRAM" : "L2", by_dram ? dram / k.dram : c.l2 / k.l2},
        {"shared memory", c.wavefronts / busy / k.hz},
        {"tensor cores", c.mma * 16 * 8 * 16 / rate / busy / k.hz},
        {"instructions", c.instructions * model.instructions / busy / 4 / k.hz},
        {"latency", rounds * path_clocks(c.path) / k.hz},
    };
    const Part *most = parts;
    for (const Part &p : parts) {
        all += pow(p.seconds, model.overlap);
        if (p.seconds > most->seconds) most = &p;
    }
    *bound = most->seconds > model.kernel ? most->name : "its launch";
    return model.kernel + pow(all, 1 / model.overlap);
}

// ----------------------------------------------------------------------------
// products

struct Product { double M, N, K, bytes_in, bytes_out; bool bf16, tf32; char shape[8]; };

// The best of the tilings that a library has: tiles of TM x TN, K cut into `split` parts. A tile is bound by the tensor
// cores, by what it loads, or by the steps it takes.
static double product_seconds(const Card &k, const Product &p, const char **bound)
{
    double best = INFINITY, size = p.bf16 ? 2 : 4, fma = k.fma * (p.bf16 ? 1 : p.tf32 ? 0.5 : 1.0 / 16);
    static const double sides[] = {8, 16, 32, 64, 96, 128, 192, 256};
    for (double tm : sides) for (double tn : sides) {
        if (tm * tn > 256 * 128 || (tm < 64 && tn < 64)) continue;
        for (double split = 1; split <= 8; split *= 2) {
            if (split > 1 && p.K / split < 128) continue;
            double tiles = ceil(p.M / tm) * ceil(p.N / tn) * split, rounds = ceil(tiles / k.processors),
                   depth = p.K / split, step = 64 * 2 / size,
                   clocks = std::max({tm * tn * depth / (fma * model.product_rate),
                       (tm + tn) * depth * size / model.product_load, depth / step * model.product_step}),
                   seconds = rounds * clocks / k.hz;
            if (split > 1) seconds += model.product_split + split * p.M * p.N * 4 * 2 / k.l2;
            best = std::min(best, seconds);
        }
    }
    double dram = (p.bytes_in + p.bytes_out) / k.dram;
    *bound = dram > best ? "DRAM" : 2 * p.M * p.N * p.K / k.matrix > 0.4 * best ? "tensor cores" : "its shape";
    // the tiles' results are written when their sums are there
    return model.product + std::max(dram, best);
}

// ----------------------------------------------------------------------------
// the two clocks, and what a phase is made of

static struct Clocks { double host[CARDS], device[CARDS]; } now;
static std::map<std::string, CostKernel> of_phase;
static double phase_waits, phase_graphs;
static bool in_graph;
// What comes from the host decides what kernels do: how many uploads there were, and of the last one to an address a
// hash. Counts are kept as long as it is the same.
static uint64_t uploads;
struct Upload { size_t bytes; uint64_t hash; };
static std::map<const char *, Upload> uploaded; // by where it went
static uint64_t upload_of(const void *p)        // of the last upload to a range that p is in
{
    auto u = uploaded.upper_bound((const char *)p);
    if (u == uploaded.begin()) return uploads;
    u--;
    return (const char *)p < u->first + u->second.bytes ? u->second.hash : uploads;
}

struct Done { // the operation that has just run
    std::string name;
    double seconds[CARDS], host;
} done;

static CostKernel &entry(const std::string &name, double roofline_bytes, double matrix_operations,
                         const char *const *bound)
{
    CostKernel &e = of_phase[name];
    snprintf(e.name, sizeof e.name, "%s", name.c_str());
    if (!e.bound) e.bound = "";
    e.launches++;
    e.dram += roofline_bytes;
    for (int i = 0; i < CARDS; i++) {
        e.seconds[i] += done.seconds[i];
        e.floor[i] += std::max(roofline_bytes / cards[i].dram_sheet, matrix_operations / cards[i].matrix);
    }
    if (bound) e.bound = bound[CARDS - 1];
    return e;
}

// A kernel's accesses follow from its grid and its arguments: of a pointer whether it is one and how round it is.
static void cost_key(Launch *l, const Argument *a, size_t n)
{
    uint64_t h = (uint64_t)l->kernel;
    size_t ints = 0, pointers = 0;
    auto more = [&](uint64_t x) { h = (h ^ x) * 0x9e3779b97f4a7c15ull; h ^= h >> 29; };
    for (uint64_t x : {l->grid.x, l->grid.y, l->grid.z, l->block.x, l->block.y, l->block.z, (unsigned)l->shared})
        more(x);
    for (size_t i = 0; i < n; i++) {
        more(a[i].pointer ? 1 + (uint64_t)a[i].pointer % 256 : a[i].bits);
        if (a[i].pointer && pointers < sizeof l->pointers / sizeof *l->pointers)
            l->pointers[pointers++] = a[i].pointer;
        if (a[i].pointer && a[i].index && ints < sizeof l->ints / sizeof *l->ints) l->ints[ints++] = a[i].pointer;
    }
    std::sort(l->pointers, l->pointers + pointers);
    l->key = h;
}

static FILE *dump;
static void cost_launch(const Launch &l, const std::function<void()> &call)
{
    static std::unordered_map<uint64_t, Counts> known;
    uint64_t key = l.key;
    for (const void *p : l.ints) if (p) {
        key = (key ^ upload_of(p)) * 0x9e3779b97f4a7c15ull;
        key ^= key >> 29;
    }
    auto i = known.find(key);
    if (i == known.end()) i = known.emplace(key, count(l, call)).first;
    const Counts &c = i->second;
    const char *bound[CARDS];
    for (int k = 0; k < CARDS; k++) done.seconds[k] = kernel_seconds(cards[k], c, &bound[k]);
    done.host = model.host_launch;
    CostKernel &e = entry(c.name, c.dram, c.mma * 4096, bound);
    e.l2 += c.l2; e.asked += c.asked; e.wavefronts += c.wavefronts; e.conflict_free += c.conflict_free; e.mma += c.mma;
    e.ideal += c.ideal * SECTOR;
    e.bytes += c.bytes; e.flops += c.flops; e.said_bytes += c.said_bytes; e.said_flops += c.said_flops;
    if (c.said_bound) e.said_bound = c.said_bound;
    if (done.seconds[CARDS - 1] > e.longest) { e.longest = done.seconds[CARDS - 1]; e.longest_bound = e.bound; }
    if (dump) {
        fprintf(dump, "kernel\t%s", c.name.c_str());
        for (double x : {c.blocks, c.threads, resident(cards[CARDS - 1], c), c.dram, c.l2, c.l2_block, c.wavefronts,
                 c.mma, c.instructions, c.path[LOADS], c.path[STORES], c.path[SHARED], c.path[MEETS], c.path[BARRIERS],
                 c.path[MMAS]})
            fprintf(dump, "\t%.8g", x);
        fprintf(dump, "\t%g\t%s\n", done.seconds[CARDS - 1], bound[CARDS - 1]);
    }
}

static void cost_product(const Product &p)
{
    const char *bound[CARDS];
    for (int k = 0; k < CARDS; k++) done.seconds[k] = product_seconds(cards[k], p, &bound[k]);
    done.host = model.host_launch;
    entry(p.bf16 ? "products" : p.tf32 ? "products, TF32" : "products, fp32", p.bytes_in + p.bytes_out,
        2 * p.M * p.N * p.K * (p.bf16 ? 1 : p.tf32 ? 2 : 16), bound);
    if (dump)
        fprintf(dump, "product\t%.8g\t%.8g\t%.8g\t%.8g\t%.8g\t%s\t%g\t%s\n", p.M, p.N, p.K, p.bytes_in, p.bytes_out,
            p.shape, done.seconds[3], bound[3]);
}

// Whether it is really to be done. What comes back from the device is all zeros, since most of it was never computed.
static bool cost_copy(void *to, const void *from, size_t n, bool to_device, bool from_device)
{
    double bytes = (double)n;
    bool within = to_device && from_device;
    for (int k = 0; k < CARDS; k++)
        done.seconds[k] = within ? model.kernel + 2 * bytes / cards[k].dram
                                 : (to_device ? model.copy_up : model.copy_down) + bytes / 12e9;
    done.host = model.host_copy;
    if (to_device && !from_device) {
        uploads++;
        uint64_t h = n;
        for (size_t i = 0; i < n; i++) h = (h ^ ((const unsigned char *)from)[i]) * 0x100000001b3ull;
        uploaded[(const char *)to] = {n, h};
    }
    entry(within ? "(copy)" : to_device ? "(upload)" : "(download)", within ? 2 * bytes : 0, 0, nullptr);
    if (from_device && !to_device) {
        memset(to, 0, n);
        if (n <= 65536) memset((void *)from, 0, n); // what goes on with it there does so with the same
    }
    return !from_device || (within && n <= 65536); // indices, it may be
}
static void cost_fill(double bytes)
{
    for (int k = 0; k < CARDS; k++) done.seconds[k] = model.kernel + bytes / cards[k].dram;
    done.host = model.host_launch;
    entry("(fill)", bytes, 0, nullptr);
}

// After an operation has been queued, and has run
static void cost_queued()
{
    for (int k = 0; k < CARDS; k++) {
        if (!in_graph) now.host[k] += done.host;
        now.device[k] = std::max(now.device[k], now.host[k]) + done.seconds[k] +
            (in_graph ? model.graph_gap : model.gap);
    }
}
static void cost_graph()
{
    phase_graphs++;
    for (int k = 0; k < CARDS; k++) now.host[k] += model.host_graph;
}
static void cost_wait()
{
    phase_waits++;
    for (int k = 0; k < CARDS; k++) now.host[k] = std::max(now.host[k], now.device[k]) + model.host_wait;
}
// An event stands for a time on the device's clock
static std::map<const void *, Clocks> recorded;
static void cost_record(const void *event) { recorded[event] = now; }
static void cost_wait(const void *event)
{
    phase_waits++;
    for (int k = 0; k < CARDS; k++) now.host[k] = std::max(now.host[k], recorded[event].device[k]) + model.host_wait;
}

} // namespace simt

// ----------------------------------------------------------------------------
// for the program that asks

void cost_operations(void) { simt::read_operations(); }
const char *cost_card(int k) { return simt::cards[k].name; }
void cost_begin(void)
{
    simt::now = {};
    simt::of_phase.clear();
    simt::phase_waits = 0;
}
void cost_end(CostTime time[COST_CARDS], size_t *waits)
{
    simt::cost_wait();
    *waits = (size_t)simt::phase_waits - 1;
    for (int k = 0; k < COST_CARDS; k++) {
        time[k] = {simt::now.host[k], 0, 0};
        for (auto &e : simt::of_phase) {
            time[k].device += e.second.seconds[k];
            time[k].floor += e.second.floor[k];
        }
    }
}
size_t cost_kernels(CostKernel *out, size_t most)
{
    std::vector<CostKernel> v;
    for (auto &e : simt::of_phase) v.push_back(e.second);
    std::sort(v.begin(), v.end(), [](const CostKernel &a, const CostKernel &b) {
        return a.seconds[COST_CARDS - 1] > b.seconds[COST_CARDS - 1];
    });
    if (v.size() > most) v.resize(most);
    std::copy(v.begin(), v.end(), out);
    return v.size();
}
void cost_dump(FILE *f, const char *stretch)
{
    simt::dump = f;
    if (f) fprintf(f, "stretch\t%s\n", stretch);
}
void cost_want(const char *kernel) { simt::wanted = kernel; }
const char *cost_source = "vbon.cu";

// "line of vbon.cu: its text" of an instruction, the kernel's own line first where a function is inlined there
static std::string source_of(const void *pc, std::vector<int> *lines)
{
    void *before = (char *)pc - 1;
    std::string text, file = strrchr(cost_source, '/') ? strrchr(cost_source, '/') + 1 : cost_source;
    for (const std::string &l : simt::lines_of(&before, 1)) {
        size_t colon = l.rfind(':'), slash = l.rfind('/');
        if (l.find(file + ":") == std::string::npos) continue;
        lines->push_back(atoi(l.c_str() + colon + 1));
        (void)slash;
    }
    for (size_t i = lines->size(); i-- > 0;) text += (text.empty() ? "" : " > ") + std::to_string((*lines)[i]);
    return text;
}

int cost_lines(void)
{
    std::vector<std::string> source;
    FILE *f = fopen(cost_source, "r");
    char line[512];
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        source.push_back(line + strspn(line, " "));
    }
    if (f) fclose(f);
    int n = 0;
    for (auto &k : simt::wanted_samples) {
        const simt::Sample &s = k.second;
        struct Row { double requests, lanes, bytes, units, ideal; bool write, shared; unsigned size; };
        std::map<std::pair<std::vector<int>, int>, Row> rows; // unrolled copies of one line are one row
        if (!s.ran) continue;
        n++;
        printf("%s: %.0f blocks, of which %.0f were looked at\n", k.first.c_str(), s.blocks, s.ran);
        for (auto &e : s.places) {
            const simt::Place &l = e.second;
            std::vector<int> at;
            source_of(l.pc, &at);
            std::reverse(at.begin(), at.end());
            Row &r = rows[{at, l.write + 2 * l.shared + 4 * (int)l.size}];
            r.requests += l.requests; r.lanes += l.lanes; r.bytes += l.bytes; r.units += l.units; r.ideal += l.ideal;
            r.write = l.write; r.shared = l.shared; r.size = l.size;
        }
        for (auto &e : rows) {
            const Row &r = e.second;
            if (!r.requests) continue;
            std::string where;
            for (int x : e.first.first) where += (where.empty() ? "" : " > ") + std::to_string(x);
            double each = r.units / r.requests, ideal = r.ideal / r.requests;
            printf("  %-6s %-5s of %2u bytes, %5.1f lanes, %9.0f a block: %5.1f %s, %4.1f would do%s\n",
                r.shared ? "shared" : "global", r.write ? "store" : "load", r.size, r.lanes / r.requests,
                r.requests / s.ran, each, r.shared ? "wavefronts" : "sectors", ideal,
                each < 1.05 * ideal ? "" : r.shared ? "   <- banks collide" : "   <- not coalesced");
            printf("      %s:%s", cost_source, where.c_str());
            if (!e.first.first.empty() && (size_t)e.first.first[0] <= source.size())
                printf("   %.90s", source[(size_t)e.first.first[0] - 1].c_str());
            printf("\n");
        }
    }
    return n;
}

// ----------------------------------------------------------------------------
// ThreadSanitizer's calls

#define SIMT_PC __builtin_return_address(0)
#define SIMT_ACCESS(n) \
    void __tsan_read##n(void *p) { simt::record(p, n, false, SIMT_PC); } \
    void __tsan_write##n(void *p) { simt::record(p, n, true, SIMT_PC); } \
    void __tsan_unaligned_read##n(void *p) { simt::record(p, n, false, SIMT_PC); } \
    void __tsan_unaligned_write##n(void *p) { simt::record(p, n, true, SIMT_PC); } \
    void __tsan_volatile_read##n(void *p) { simt::record(p, n, false, SIMT_PC); } \
    void __tsan_volatile_write##n(void *p) { simt::record(p, n, true, SIMT_PC); }
extern "C" {
void __sanitizer_cov_trace_pc()
{
    static const size_t from = simt::load_bias();
    if (simt::counting && !simt::operations.empty()) simt::flops += simt::operations[(size_t)SIMT_PC - from];
}
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}
SIMT_ACCESS(1) SIMT_ACCESS(2) SIMT_ACCESS(4) SIMT_ACCESS(8) SIMT_ACCESS(16)
void __tsan_read_range(void *p, unsigned long n) { simt::record(p, (unsigned)n, false, SIMT_PC); }
void __tsan_write_range(void *p, unsigned long n) { simt::record(p, (unsigned)n, true, SIMT_PC); }
}
#endif
