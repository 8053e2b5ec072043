// nccl.h: numbers from card to card without the host's memory between, by NVIDIA's NCCL.
//
// Two operations of the table: exchange, of which lib/parallel.h makes its sums and shares, and all_reduce. Both stand
// on the stream of all other operations, and nobody waits for them. Whoever waits for the stream later (cuda_download)
// asks meanwhile whether NCCL has lost another process or the network, for then the stream would never end.
//
// One communicator a run, of all processes, made when it is first needed: rank 0's id goes to the others by MPI. Like
// cuBLASLt the library, of 200 MB, is loaded by then and not when the program starts: it may be missing on a machine
// that has no use for it. Processes that share a card NCCL refuses; numbers then go by the host, and a note says so.
//
// Easy to get wrong: a program that ends while NCCL's kernels wait for another process hangs in the driver. So the
// communicator is aborted first, by a function that exit calls before the driver's own.
//
// It has been compiled, and run by dev/cuda_on_cpu, where a library of the same functions sends by MPI; not on cards.
#pragma once
#include <dlfcn.h>
#include <nccl.h>
#include <unistd.h>

#define NCCL_FUNCTIONS(X) \
    X(GetUniqueId) X(CommInitRank) X(CommAbort) X(CommDestroy) X(CommGetAsyncError) X(GetErrorString) X(GroupStart) \
        X(GroupEnd) X(Send) X(Recv) X(AllReduce)
#define X(f) decltype(&nccl##f) f;
static struct { NCCL_FUNCTIONS(X) } cards;
#undef X
static ncclComm_t cards_comm;
static bool cards_busy; // something of NCCL's may be on the stream

static void nccl(ncclResult_t r, const char *what)
{
    if (r == ncclSuccess || r == ncclInProgress) return;
    die("NCCL: %s: %s: another process, or what connects the cards, has failed (NCCL_DEBUG=WARN says more); --resume "
        "goes on from the last checkpoint", what, cards.GetErrorString(r));
}

static void nccl_leave(int status, void *unused)
{
    (void)unused;
    if (status) cards.CommAbort(cards_comm); else cards.CommDestroy(cards_comm);
}

// False: two processes have the same card.
static bool nccl_start(void)
{
    enum { UUID = sizeof device.uuid.bytes };
    if (cards_comm) return true;
    static bool noted;
    const size_t ranks = (size_t)parallel_ranks(), own = (size_t)parallel_rank();
    char *uuid = (char *)xcalloc(ranks, UUID);
    bool shared = false;
    memcpy(uuid + own * UUID, device.uuid.bytes, UUID);
    parallel_gather(uuid, ranks * UUID);
    for (size_t i = 0; i < ranks; i++)
        for (size_t k = 0; k < i; k++) shared |= !memcmp(uuid + i * UUID, uuid + k * UUID, UUID);
    free(uuid);
    if (shared && !noted && !own)
        fprintf(stderr, "vbon: note: processes share a card: between them numbers go by the host's memory\n");
    noted = true;
    if (shared) return false;
    void *library = dlopen("libnccl.so.2", RTLD_NOW);
    if (!library)
        die("--device cuda in several processes: %s: install the NCCL that this vbon was built with", dlerror());
    #define X(f) if (!(cards.f = (decltype(cards.f))dlsym(library, "nccl" #f))) die("NCCL: %s", dlerror());
    NCCL_FUNCTIONS(X)
    #undef X
    ncclUniqueId id;
    memset(&id, 0, sizeof id);
    if (!own) nccl(cards.GetUniqueId(&id), "no id");
    parallel_gather(&id, sizeof id);
    nccl(cards.CommInitRank(&cards_comm, (int)ranks, id, (int)own), "cannot start");
    if (on_exit(nccl_leave, NULL)) die("out of memory");
    return true;
}

// Ops.exchange
static bool cuda_exchange(Buf in, Buf out, int other)
{
    if (!nccl_start()) return false;
    nccl(cards.GroupStart(), "exchange");
    if (out.n) nccl(cards.Send(out.p, out.n * dtype_size(out.type), ncclUint8, other, cards_comm, stream), "send");
    if (in.n) nccl(cards.Recv(in.p, in.n * dtype_size(in.type), ncclUint8, other, cards_comm, stream), "receive");
    nccl(cards.GroupEnd(), "exchange");
    return cards_busy = true;
}

// Ops.all_reduce
static bool cuda_all_reduce(Buf b)
{
    if (!nccl_start()) return false;
    ncclDataType_t type = b.type == DT_U8 ? ncclUint8 : ncclFloat32;
    nccl(cards.AllReduce(b.p, b.p, b.n, type, ncclSum, cards_comm, stream), "sum");
    return cards_busy = true;
}

static void nccl_watch(void) // returns when the stream has done all that is on it
{
    ncclResult_t r;
    while (cards_busy) {
        cards_busy = cudaStreamQuery(stream) == cudaErrorNotReady;
        nccl(cards.CommGetAsyncError(cards_comm, &r), "between the cards");
        nccl(r, "between the cards");
        if (cards_busy) usleep(20);
    }
}
