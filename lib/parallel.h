// parallel.h: one run on several processes (`mpirun -n R vbon train ...`), with a result that does not depend on R.
//
// Each process has the whole model and does a share of every rollout and of every minibatch. What all must know is
// gathered, and the mathematics on gathered numbers is done by each of them, alike: the optimiser's step too, so the
// weights stay equal without being sent.
//
// A sum of floating-point numbers depends on its order, and a matrix product in its last bits on how many rows it has.
// So whatever is shared is cut into G groups (--groups), always in the same way, and the work on a group is the same
// wherever it is done. The gradients of groups are added by one binary tree:
//
//     ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7))           G = 8
//      \____________/        \_____________/               R = 2: each process adds up its half, then one sends
//
// G and R are powers of two and R divides G, so the share of a process is a whole branch. R = 1, 2, 4 and 8 then train
// to the same bits at G = 8. G = 1, one process's default, is the computation without groups.
//
// Rank 0 alone writes: log, trace, checkpoints, the model; it reads the clock for them, too. A process that ends with
// an error says so in a line that names its rank and takes the others with it (MPI_Abort).
//
// Between processes goes MPI, through the host's memory. On a device gradients are downloaded for it, piece by piece:
// two processes with a card each must move 8 bytes a parameter over PCIe and the network at each optimiser step. With
// CUDA this has run through dev/cuda_on_cpu only, never on cards.
//
// Left out: NCCL, which would send between cards without the host (parallel_sum is the one place for it), optimiser
// states cut over the ranks (ZeRO), ranks that are no power of two, models cut in parts.
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
// b (real) summed over the processes, by the tree, into b of each.
void parallel_sum(const Ops *o, Buf b);
extern bool parallel_fast; // by MPI's own order in place of the tree: faster, and last bits may depend on R

// A share of the work: this process's groups [first, end) of n.
enum { GROUP_LEVELS = 10, GROUP_SUMS = 16 };
typedef struct {
    const Model *m;
    const Ops *o; // m's, which may be gone when the groups are freed
    size_t n, first, end;
    Buf waiting[GROUP_LEVELS]; // (gradient) each: the sum of 2^level groups, until its neighbour's is there
    double *sums;              // (n, GROUP_SUMS)
} Groups;
void groups_check(size_t n); // dies unless n is a power of two that parallel_ranks divides
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

void groups_check(size_t n)
{
    size_t ranks = (size_t)all_ranks;
    if ((n & (n - 1)) || n % ranks || n >> GROUP_LEVELS)
        usage("--groups %zu with %zu processes: both must be powers of two, --groups at most %d, and the processes at "
              "most as many as --groups", n, ranks, 1 << (GROUP_LEVELS - 1));
}

void groups_create(Groups *g, const Model *m, size_t n)
{
    if (!n) n = 1;
    groups_check(n);
    size_t share = n / (size_t)all_ranks;
    *g = (Groups){.m = m, .o = m->o, .n = n, .first = (size_t)own_rank * share, .end = ((size_t)own_rank + 1) * share};
    for (int level = 0; share >> (level + 1); level++)
        g->waiting[level] = m->o->alloc(m->grad.n, DT_REAL, "gradients of groups");
    g->sums = (double *)xcalloc(n * GROUP_SUMS, sizeof *g->sums);
}

void groups_free(Groups *g)
{
    for (int level = 0; level < GROUP_LEVELS; level++) if (g->waiting[level].p) g->o->release(&g->waiting[level]);
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
    parallel_sum(g->m->o, g->m->grad);
    parallel_gather(g->sums, g->n * GROUP_SUMS * sizeof *g->sums);
    memcpy(sums, g->sums, n_sums * sizeof *sums);
    for (size_t k = 1; k < g->n; k++) for (size_t i = 0; i < n_sums; i++) sums[i] += g->sums[k * GROUP_SUMS + i];
}

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

enum { PIECE = 1 << 22 }; // elements, or bytes, that are sent at once

void parallel_gather(void *x, size_t bytes)
{
    for (size_t at = 0; at < bytes && all_ranks > 1; at += PIECE) {
        size_t n = bytes - at < PIECE ? bytes - at : PIECE;
        MPI_Allreduce(MPI_IN_PLACE, (char *)x + at, (int)n, MPI_BYTE, MPI_BOR, MPI_COMM_WORLD);
    }
}

void parallel_gather_buf(const Ops *o, Buf b)
{
    real *x = (real *)xmalloc(PIECE * sizeof *x);
    for (size_t at = 0; at < b.n && all_ranks > 1; at += PIECE) {
        Buf piece = slice(b, at, b.n - at < PIECE ? b.n - at : PIECE);
        o->download(x, piece);
        parallel_gather(x, piece.n * sizeof *x);
        o->upload(piece, x);
    }
    free(x);
}

void parallel_sum(const Ops *o, Buf b)
{
    MPI_Datatype type = sizeof(real) == 8 ? MPI_DOUBLE : MPI_FLOAT;
    if (all_ranks == 1) return;
    real *own = (real *)xmalloc(PIECE * sizeof *own), *other = (real *)xmalloc(PIECE * sizeof *other);
    for (size_t at = 0; at < b.n; at += PIECE) {
        size_t n = b.n - at < PIECE ? b.n - at : PIECE;
        o->download(own, slice(b, at, n));
        if (parallel_fast) MPI_Allreduce(MPI_IN_PLACE, own, (int)n, type, MPI_SUM, MPI_COMM_WORLD);
        for (int step = 1; step < all_ranks && !parallel_fast; step *= 2) {
            if (own_rank % (2 * step)) { // the right branch goes to the left one, and is done
                MPI_Send(own, (int)n, type, own_rank - step, 0, MPI_COMM_WORLD);
                break;
            }
            MPI_Recv(other, (int)n, type, own_rank + step, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            for (size_t i = 0; i < n; i++) own[i] += other[i];
        }
        if (!parallel_fast) MPI_Bcast(own, (int)n, type, 0, MPI_COMM_WORLD);
        o->upload(slice(b, at, n), own);
    }
    free(own); free(other);
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
void parallel_sum(const Ops *o, Buf b) { (void)o; (void)b; }
void parallel_same(const char *what, const char *text) { (void)what; (void)text; }
#endif
#endif // VBON_IMPLEMENTATION
