// parallel.h: one run on several processes (`mpirun -n R vbon train ...`), with a result that does not depend on R.
//
// Each process has the whole model and does a share of every rollout and of every minibatch. What all must know is
// gathered, and the mathematics on gathered numbers is done by each of them, alike: the optimiser's step too, so the
// weights stay equal without being sent.
//
// With --zero 1 they are sent: AdamW's moments, and exact weights beside bfloat16's, are most of what training keeps,
// and each process has a part of them alone, updates its part of the weights by the sum of gradients that all have, and
// gives it to the others (ZeRO stage 1: Rajbhandari, Rasley, Ruwase, He, ZeRO: Memory Optimizations Toward Training
// Trillion Parameter Models, SC 2020, arXiv:1910.02054). AdamW treats every number alike, so where it is treated does
// not show in its bits.
//
// A sum of floating-point numbers depends on its order, and a matrix product in its last bits on how many rows it has.
// So whatever is shared is cut into G groups (--groups), always in the same way, and the work on a group is the same
// wherever it is done. The gradients of groups are added by one binary tree:
//
//     ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7))           G = 8
//      \____________/        \_____________/               R = 2: each process adds up its half
//
// G and R are powers of two and R divides G, so the share of a process is a whole branch. R = 1, 2, 4 and 8 then train
// to the same bits at G = 8. G = 1, one process's default, is the computation without groups.
//
// The branches that are left meet by halves (Rabenseifner, Optimization of Collective Reduction Operations, ICCS 2004):
// two processes trade so that each adds up one half of what both have; then with the next neighbour halves of that
// half; when each has the whole sum of its part, the parts come together by the same trades backwards. The tree is what
// it was, and a process sends 2 (R - 1) / R of a gradient's bytes, the least there can be, instead of log2 R whole ones
// to the left and as many back.
//
// Rank 0 alone writes: log, trace, checkpoints, the model; it reads the clock for them, too. A process that ends with
// an error says so in a line that names its rank and takes the others with it (MPI_Abort).
//
// Between processes goes MPI. Gradients, and what else is large on a device, go from card to card by NCCL (nccl.h)
// where the build has it and each process a card; else through the host's memory, piece by piece. With CUDA all of this
// has run through dev/cuda_on_cpu only, never on cards. dev/doc/scale.md says how far it goes.
//
// Left out: gradients cut over the ranks (ZeRO-2), sums that begin before the backward pass has ended, ranks that are
// no power of two, models cut in parts.
#pragma once
#include "generate.h"
#ifdef __cplusplus
extern "C" {
#endif

int parallel_rank(void);  // of this process, from 0
int parallel_ranks(void); // how many there are; 1 without mpirun
int parallel_local(void); // of this process among those on its machine, from 0: which card it takes
// Joins the other processes, where mpirun started this one. From then on standard output is rank 0's alone.
void parallel_start(void);
void parallel_end(void);  // with all others, before an orderly end that is no success
// Dies, naming a rank, unless `what` is the same in all processes. Waits for all.
void parallel_same(const char *what, const char *text);
// x: each byte is known to some processes and 0 in the others. To all it is known afterwards.
void parallel_gather(void *x, size_t bytes);
void parallel_gather_buf(const Ops *o, Buf b); // the same for a device's numbers
// And for n responses of at most max tokens: each is known to the process that drew it (its ids are there), its reward,
// and where they are wanted the scores of its prefixes, to the one that gave it.
void responses_gather(Response *y, size_t n, size_t max, bool prefixes);
// b (real) summed over the processes, by the tree, into b of each. room: parallel_room(R, b.n) elements of o's.
void parallel_sum(const Ops *o, Buf b, Buf room);
size_t parallel_room(size_t ranks, size_t n);
extern bool parallel_fast; // in MPI's or NCCL's own order in place of the tree; last bits may depend on R

// Parts, one a process. Part k of a buffer is its elements [cut[k], cut[k + 1]).
size_t parallel_part(void);                                 // which is this process's
// Each process has its part of b; afterwards all of it.
void parallel_share(const Ops *o, Buf b, const size_t *cut);
// b is this process's part. On rank 0 x, on the host, becomes the whole.
void parallel_collect(const Ops *o, void *x, Buf b, const size_t *cut);

// With AdamW's states in parts (o->parts), and without:
double parallel_update(Model *m, const AdamW *opt); // model_update, after which all have all weights
void weights_share(Model *m);                       // what trains was changed where its states are: now everywhere
void states_begin(Model *m); // before a model is saved, by all: on rank 0 param_get then finds the exact weights
void states_end(Model *m);

// A share of the work: this process's groups [first, end) of n.
enum { GROUP_LEVELS = 10, GROUP_SUMS = 16 };
typedef struct {
    const Model *m;
    const Ops *o; // m's, which may be gone when the groups are freed
    size_t n, first, end;
    Buf waiting[GROUP_LEVELS]; // (gradient) each: the sum of 2^level groups, until its neighbour's is there
    Buf room;                  // of parallel_sum
    double *sums;              // (n, GROUP_SUMS)
} Groups;
void groups_check(size_t n, size_t ranks); // dies unless both are powers of two and ranks divides n
// n: so many, 0 counts as 1. m: whose gradients are added.
void groups_create(Groups *g, const Model *m, size_t n);
void groups_free(Groups *g);
// `for (Group x = {0}; group_next(g, &x, items);)`: this process's groups in order, group k being items [from, from+n)
// of all of them. A group may be empty.
typedef struct { size_t k, from, n, next; } Group;
bool group_next(const Groups *g, Group *x, size_t items);
// m->grad is group k's gradient, and begins anew after it; sums (n_sums) are what its loss adds up to. For each group
// in order.
void groups_add(Groups *g, size_t k, const double *sums, size_t n_sums);
// After the last: m->grad and sums (n_sums) of all groups, in every process.
void groups_finish(Groups *g, double *sums, size_t n_sums);

#ifdef __cplusplus
}
#endif

#ifdef VBON_IMPLEMENTATION
bool parallel_fast;
static int own_rank, all_ranks = 1, local_rank;

int parallel_rank(void) { return own_rank; }
int parallel_ranks(void) { return all_ranks; }
int parallel_local(void) { return local_rank; }

// ----------------------------------------------------------------------------
// what is gathered, and groups

void responses_gather(Response *y, size_t n, size_t max, bool prefixes)
{
    size_t size = sizeof(Response) + max * (sizeof(double) + sizeof(int) + sizeof(float));
    if (all_ranks == 1) return;
    char *all = (char *)xcalloc(n, size);
    for (int after = 0; after < 2; after++) {
        for (size_t i = 0; i < n; i++) {
            Response *a = &y[i], *b = (Response *)(void *)(all + i * size); // and behind it the arrays
            double *prefix = (double *)(b + 1);
            int *ids = (int *)(prefix + max);
            float *logp = (float *)(ids + max);
            if (!after) {
                *b = (Response){.n = a->n, .finished = a->finished, .reward = a->reward, .key = a->key};
                if (a->ids) memcpy(ids, a->ids, a->n * sizeof *ids);
                if (a->ids) memcpy(logp, a->logp, a->n * sizeof *logp);
                if (a->prefix) memcpy(prefix, a->prefix, a->n * sizeof *prefix);
                continue;
            }
            a->n = b->n; a->finished = b->finished; a->reward = b->reward; a->key = b->key;
            if (!a->ids) {
                a->ids = (int *)memcpy(xmalloc(max * sizeof *ids), ids, max * sizeof *ids);
                a->logp = (float *)memcpy(xmalloc(max * sizeof *logp), logp, max * sizeof *logp);
            }
            if (!a->prefix && prefixes)
                a->prefix = (double *)memcpy(xmalloc(max * sizeof *prefix), prefix, max * sizeof *prefix);
        }
        if (!after) parallel_gather(all, n * size);
    }
    free(all);
}

void groups_check(size_t n, size_t ranks)
{
    if ((n & (n - 1)) || n % ranks || n >> GROUP_LEVELS)
        usage("--groups %zu with %zu processes: both must be powers of two, --groups at most %d, and the processes at "
              "most as many as --groups", n, ranks, 1 << (GROUP_LEVELS - 1));
}

void groups_create(Groups *g, const Model *m, size_t n)
{
    if (!n) n = 1;
    groups_check(n, (size_t)all_ranks);
    size_t share = n / (size_t)all_ranks;
    *g = (Groups){.m = m, .o = m->o, .n = n, .first = (size_t)own_rank * share, .end = ((size_t)own_rank + 1) * share};
    for (int level = 0; share >> (level + 1); level++)
        g->waiting[level] = m->o->alloc(m->grad.n, DT_REAL, "gradients of groups");
    size_t room = parallel_room((size_t)all_ranks, m->grad.n);
    if (room) g->room = m->o->alloc(room, DT_REAL, "gradients of another process");
    g->sums = (double *)xcalloc(n * GROUP_SUMS, sizeof *g->sums);
}

void groups_free(Groups *g)
{
    for (int level = 0; level < GROUP_LEVELS; level++) if (g->waiting[level].p) g->o->release(&g->waiting[level]);
    if (g->room.p) g->o->release(&g->room);
    free(g->sums);
    *g = (Groups){0};
}

bool group_next(const Groups *g, Group *x, size_t items)
{
    x->k = x->next > g->first ? x->next : g->first;
    x->next = x->k + 1;
    x->from = items * x->k / g->n;
    x->n = items * x->next / g->n - x->from;
    return x->k < g->end;
}

void groups_add(Groups *g, size_t k, const double *sums, size_t n_sums)
{
    const Ops *o = g->o;
    Buf grad = g->m->grad;
    if (k == g->first) memset(g->sums, 0, g->n * GROUP_SUMS * sizeof *g->sums);
    memcpy(g->sums + k * GROUP_SUMS, sums, n_sums * sizeof *sums);
    // as a carry goes through a binary number: where a branch of this size waits, the two make a larger one
    size_t i = k - g->first;
    int level = 0;
    for (; i & 1; i >>= 1, level++) o->add(grad, g->waiting[level], grad, grad.n);
    if (k + 1 == g->end) return;
    o->copy(g->waiting[level], grad);
    o->fill(grad, 0);
}

void groups_finish(Groups *g, double *sums, size_t n_sums)
{
    parallel_sum(g->m->o, g->m->grad, g->room);
    parallel_gather(g->sums, g->n * GROUP_SUMS * sizeof *g->sums);
    memcpy(sums, g->sums, n_sums * sizeof *sums);
    for (size_t k = 1; k < g->n; k++) for (size_t i = 0; i < n_sums; i++) sums[i] += g->sums[k * GROUP_SUMS + i];
}

// ----------------------------------------------------------------------------
// parts

static size_t part_of(int rank) // its bits in reverse: so what meets first, ranks 0 and 1, are the two halves
{
    size_t part = 0, bit = (size_t)all_ranks / 2;
    for (; rank; rank /= 2, bit /= 2) part += rank % 2 ? bit : 0;
    return part;
}
size_t parallel_part(void) { return part_of(own_rank); }

enum { PIECE = 1 << 22 }; // elements, or bytes, that are sent at once

size_t parallel_room(size_t ranks, size_t n) { return ranks == 1 ? 0 : n < PIECE ? n : PIECE; }

static void trade(const Ops *o, Buf in, Buf out, int other); // in (of process `other`) for out, at most PIECE elements
static Buf piece(Buf b, size_t from) // what of b is from there on, at most PIECE elements
{
    return from < b.n ? slice(b, from, b.n - from < PIECE ? b.n - from : PIECE) : slice(b, b.n, 0);
}

static void sum_by_tree(const Ops *o, Buf b, Buf room)
{
    size_t ranks = (size_t)all_ranks, first = 0, end = ranks; // parts that this process still adds up
    for (int step = 1; step < all_ranks; step *= 2) {
        size_t middle = (first + end) / 2, cut = b.n / ranks * middle;
        size_t low = b.n / ranks * first, high = end == ranks ? b.n : b.n / ranks * end;
        Buf own = slice(b, low, cut - low), other = slice(b, cut, high - cut);
        if (own_rank & step) { Buf swap = own; own = other; other = swap; first = middle; }
        else end = middle;
        for (size_t at = 0; at < own.n || at < other.n; at += PIECE) {
            Buf mine = piece(own, at), theirs = slice(room, 0, mine.n);
            trade(o, theirs, piece(other, at), own_rank ^ step);
            if (mine.n) o->add(mine, mine, theirs, mine.n);
        }
    }
    size_t *cut = (size_t *)xcalloc(ranks + 1, sizeof *cut);
    for (size_t k = 0; k <= ranks; k++) cut[k] = k == ranks ? b.n : b.n / ranks * k;
    parallel_share(o, b, cut);
    free(cut);
}

void parallel_share(const Ops *o, Buf b, const size_t *cut)
{
    size_t n = 1, first = parallel_part(); // this process has parts [first, first + n), its neighbour n others
    for (int step = all_ranks / 2; step; step /= 2, n *= 2) {
        size_t other = first ^ n;
        Buf in = slice(b, cut[other], cut[other + n] - cut[other]);
        Buf out = slice(b, cut[first], cut[first + n] - cut[first]);
        for (size_t at = 0; at < in.n || at < out.n; at += PIECE)
            trade(o, piece(in, at), piece(out, at), own_rank ^ step);
        first &= ~n;
    }
}

static size_t *states_cuts(const Model *m) // malloc'd
{
    size_t *cut = (size_t *)xcalloc(m->o->parts + 1, sizeof *cut);
    for (size_t k = 0; k <= m->o->parts; k++) cut[k] = states_cut(m, k).at;
    return cut;
}

void weights_share(Model *m)
{
    if (m->o->parts < 2) return;
    size_t *cut = states_cuts(m);
    parallel_share(m->o, slice(m->data, m->first, m->n_params - m->first), cut);
    free(cut);
}

double parallel_update(Model *m, const AdamW *opt)
{
    double norm = model_update(m, opt);
    weights_share(m);
    return norm;
}

void states_begin(Model *m)
{
    if (m->o->parts < 2 || !masters(m)) return;
    size_t *cut = states_cuts(m), n = m->n_params - m->first;
    if (!own_rank) m->exact = (Buf){xmalloc(n * sizeof(real)), n, DT_REAL, "exact weights"};
    parallel_collect(m->o, m->exact.p, m->master, cut);
    free(cut);
}

void states_end(Model *m) { free(m->exact.p); m->exact = (Buf){0}; }

// ----------------------------------------------------------------------------
// MPI

// What mpirun and its like leave in the environment: Open MPI's, MPICH's, PMIx's.
static const char *const launcher[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"};

#ifdef VBON_MPI
#include <mpi.h>
#include <unistd.h>

static bool joined;
static char rank_text[32];

// Most errors are everybody's: then rank 0 says it, and by the time the others would they are no more.
static void let_rank_0_speak(void) { if (own_rank) sleep(1); }

static void leave(int status, void *unused)
{
    (void)unused;
    if (!joined) return;
    if (status) MPI_Abort(MPI_COMM_WORLD, status);
    parallel_end();
}

void parallel_end(void)
{
    if (joined) MPI_Finalize();
    joined = false;
}

void parallel_start(void)
{
    int provided;
    bool launched = false;
    for (int i = 0; i < 3; i++) launched |= getenv(launcher[i]) != NULL;
    if (!launched) return;
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided)) die("MPI cannot be started");
    MPI_Comm_rank(MPI_COMM_WORLD, &own_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &all_ranks);
    for (int i = 0; i < 2; i++)
        if (getenv(launcher[i]) && atoi(getenv(launcher[i])) != all_ranks)
            die("one of %s processes, but MPI knows of %d: start them with the mpirun of the MPI that vbon was built "
                "with",
                getenv(launcher[i]), all_ranks);
    for (int i = 0; i < 3; i++) unsetenv(launcher[i]); // a reward program is none of the processes
    MPI_Comm machine;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &machine);
    MPI_Comm_rank(machine, &local_rank);
    MPI_Comm_free(&machine);
    joined = true;
    if (on_exit(leave, NULL)) die("out of memory");
    if (all_ranks == 1) return;
    snprintf(rank_text, sizeof rank_text, "rank %d: ", own_rank);
    speaker = rank_text;
    before_message = let_rank_0_speak;
    if (own_rank && !freopen("/dev/null", "w", stdout)) die("/dev/null cannot be opened");
}

static const MPI_Datatype mpi_real = sizeof(real) == 8 ? MPI_DOUBLE : MPI_FLOAT;

// Until all processes are here. MPI waits by asking again and again, which takes the time of whoever is waited for
// where there are more threads than cores (as OpenMP's threads did, see main); so this one soon sleeps in between.
static void meet(void)
{
    MPI_Request all;
    MPI_Ibarrier(MPI_COMM_WORLD, &all);
    for (int here = 0, asked = 0; MPI_Test(&all, &here, MPI_STATUS_IGNORE), !here; asked++) if (asked > 200) usleep(50);
}

void parallel_gather(void *x, size_t bytes)
{
    if (all_ranks > 1) meet();
    for (size_t at = 0; at < bytes && all_ranks > 1; at += PIECE) {
        size_t n = bytes - at < PIECE ? bytes - at : PIECE;
        MPI_Allreduce(MPI_IN_PLACE, (char *)x + at, (int)n, MPI_BYTE, MPI_BOR, MPI_COMM_WORLD);
    }
}

// A piece of a buffer on the host: where it is, if the table's memory is the host's; else a copy in *room, which
// host_back brings back. On the host a device's bfloat16 are real numbers (Ops.download).
static size_t host_size(Buf b) { return b.type == DT_BF16 ? sizeof(real) : dtype_size(b.type); }
static void *host_copy(const Ops *o, Buf b, bool filled, void **room)
{
    if (!o->pin) return b.p;
    if (!*room) *room = xmalloc(PIECE * sizeof(real));
    if (filled && b.n) o->download(*room, b);
    return *room;
}
static void host_back(const Ops *o, Buf b, const void *x) { if (o->pin && b.n) o->upload(b, x); }

void parallel_gather_buf(const Ops *o, Buf b)
{
    static void *room;
    Buf bytes = {b.p, b.n * dtype_size(b.type), DT_U8, b.name}; // to a byte are added zeros
    if (all_ranks == 1 || (o->all_reduce && o->all_reduce(bytes))) return;
    for (size_t at = 0; at < b.n; at += PIECE) {
        Buf part = piece(b, at);
        void *x = host_copy(o, part, true, &room);
        parallel_gather(x, part.n * host_size(part));
        host_back(o, part, x);
    }
}

static void trade(const Ops *o, Buf in, Buf out, int other)
{
    static void *room[2];
    if (o->exchange && o->exchange(in, out, other)) return;
    void *from = host_copy(o, out, true, &room[0]), *to = host_copy(o, in, false, &room[1]);
    MPI_Sendrecv(from, (int)(out.n * host_size(out)), MPI_BYTE, other, 0, to, (int)(in.n * host_size(in)), MPI_BYTE,
                 other, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    host_back(o, in, to);
}

void parallel_sum(const Ops *o, Buf b, Buf room)
{
    static void *host;
    if (all_ranks == 1) return;
    meet();
    if (!parallel_fast) { sum_by_tree(o, b, room); return; }
    if (o->all_reduce && o->all_reduce(b)) return;
    for (size_t at = 0; at < b.n; at += PIECE) {
        Buf part = piece(b, at);
        void *x = host_copy(o, part, true, &host);
        MPI_Allreduce(MPI_IN_PLACE, x, (int)part.n, mpi_real, MPI_SUM, MPI_COMM_WORLD);
        host_back(o, part, x);
    }
}

void parallel_collect(const Ops *o, void *x, Buf b, const size_t *cut)
{
    static void *room;
    size_t size = host_size(b);
    meet();
    if (!own_rank) o->download(x, b); // its part is the first
    for (int r = 1; r < all_ranks; r++) {
        size_t part = part_of(r);
        for (size_t at = cut[part]; at < cut[part + 1]; at += PIECE) {
            size_t n = cut[part + 1] - at < PIECE ? cut[part + 1] - at : PIECE;
            if (!own_rank)
                MPI_Recv((char *)x + at * size, (int)(n * size), MPI_BYTE, r, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            else if (own_rank == r)
                MPI_Send(host_copy(o, slice(b, at - cut[part], n), true, &room), (int)(n * size), MPI_BYTE, 0, 0,
                         MPI_COMM_WORLD);
        }
    }
}

void parallel_same(const char *what, const char *text)
{
    if (all_ranks == 1) return;
    uint64_t *h = (uint64_t *)xcalloc((size_t)all_ranks, sizeof *h);
    for (const char *p = text; *p; p++) h[own_rank] = hash_more(h[own_rank], (uint64_t)(unsigned char)*p);
    parallel_gather(h, (size_t)all_ranks * sizeof *h);
    for (int r = 1; r < all_ranks; r++)
        if (h[r] != h[0]) die("rank %d has another %s than rank 0: start all of them with the same", r, what);
    free(h);
}
#else
void parallel_start(void)
{
    for (int i = 0; i < 2; i++)
        if (getenv(launcher[i]) && atol(getenv(launcher[i])) > 1)
            die("one of %s processes, but this build knows no MPI: install libopenmpi-dev and build it again",
                getenv(launcher[i]));
}
void parallel_end(void) {}
void parallel_gather(void *x, size_t bytes) { (void)x; (void)bytes; }
void parallel_gather_buf(const Ops *o, Buf b) { (void)o; (void)b; }
static void trade(const Ops *o, Buf in, Buf out, int other) // of dev/gpu_cost.c, whose exchange counts
{
    if (o->exchange) o->exchange(in, out, other);
}
void parallel_sum(const Ops *o, Buf b, Buf room) { if (all_ranks > 1) sum_by_tree(o, b, room); }
void parallel_collect(const Ops *o, void *x, Buf b, const size_t *cut) { (void)o; (void)x; (void)b; (void)cut; }
void parallel_same(const char *what, const char *text) { (void)what; (void)text; }
#endif
#endif // VBON_IMPLEMENTATION
