// nccl.c: what lib/nccl.h asks of NCCL, for the emulated device, by MPI. Loaded in place of libnccl.so.2 (make
// test_mpi_simt). Like NCCL it starts by one id that all have, takes sends and receives in groups, and after the
// stream's earlier work. FAKE_NCCL_FAILS=1: who watches it is told that another process is gone.
#include <mpi.h>
#include <nccl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct ncclComm { int rank, ranks; };
static struct { bool send; void *p; size_t n; int other; } waiting[64];
static int n_waiting, depth;
static cudaStream_t of;

const char *ncclGetErrorString(ncclResult_t r)
{
    return r == ncclSuccess ? "no error" : "an error of the emulated NCCL";
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    for (size_t i = 0; i < sizeof id->internal; i++) id->internal[i] = (char)(i * 37 + 11);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank)
{
    ncclUniqueId right;
    ncclGetUniqueId(&right);
    int own, all;
    MPI_Comm_rank(MPI_COMM_WORLD, &own);
    MPI_Comm_size(MPI_COMM_WORLD, &all);
    if (memcmp(&id, &right, sizeof id) || own != rank || all != ranks) return ncclInvalidArgument;
    *comm = malloc(sizeof **comm);
    **comm = (struct ncclComm){rank, ranks};
    if (!rank) fprintf(stderr, "emulated NCCL: %d ranks\n", ranks); // so that a test sees that it was used
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) { free(comm); return ncclSuccess; }
ncclResult_t ncclCommDestroy(ncclComm_t comm) { free(comm); return ncclSuccess; }
ncclResult_t ncclGroupStart(void) { depth++; return ncclSuccess; }

static ncclResult_t queue(bool send, void *p, size_t n, ncclDataType_t type, int other, cudaStream_t stream)
{
    if (!depth || n_waiting == 64 || type != ncclUint8 || n > 1u << 30) return ncclInvalidUsage; // as it is used here
    waiting[n_waiting].send = send; waiting[n_waiting].p = p; waiting[n_waiting].n = n;
    waiting[n_waiting++].other = other;
    of = stream;
    return ncclSuccess;
}
ncclResult_t ncclSend(const void *p, size_t n, ncclDataType_t type, int other, ncclComm_t comm, cudaStream_t stream)
{
    (void)comm;
    return queue(true, (void *)p, n, type, other, stream);
}
ncclResult_t ncclRecv(void *p, size_t n, ncclDataType_t type, int other, ncclComm_t comm, cudaStream_t stream)
{
    (void)comm;
    return queue(false, p, n, type, other, stream);
}

ncclResult_t ncclGroupEnd(void)
{
    MPI_Request r[64];
    void *host[64];
    if (--depth || !n_waiting) return ncclSuccess;
    if (cudaStreamSynchronize(of) != cudaSuccess) return ncclUnhandledCudaError;
    for (int i = 0; i < n_waiting; i++) {
        int n = (int)waiting[i].n;
        host[i] = malloc(waiting[i].n);
        if (waiting[i].send) cudaMemcpy(host[i], waiting[i].p, waiting[i].n, cudaMemcpyDeviceToHost);
        if (waiting[i].send) MPI_Isend(host[i], n, MPI_BYTE, waiting[i].other, 1, MPI_COMM_WORLD, &r[i]);
        else MPI_Irecv(host[i], n, MPI_BYTE, waiting[i].other, 1, MPI_COMM_WORLD, &r[i]);
    }
    MPI_Waitall(n_waiting, r, MPI_STATUSES_IGNORE);
    for (int i = 0; i < n_waiting; i++) {
        if (!waiting[i].send) cudaMemcpy(waiting[i].p, host[i], waiting[i].n, cudaMemcpyHostToDevice);
        free(host[i]);
    }
    n_waiting = 0;
    return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t n, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm,
                           cudaStream_t stream)
{
    (void)comm;
    size_t bytes = n * (type == ncclUint8 ? 1 : sizeof(float));
    if (from != to || op != ncclSum || n > 1u << 30 || cudaStreamSynchronize(stream) != cudaSuccess)
        return ncclInvalidUsage;
    void *host = malloc(bytes);
    cudaMemcpy(host, from, bytes, cudaMemcpyDeviceToHost);
    MPI_Allreduce(MPI_IN_PLACE, host, (int)n, type == ncclUint8 ? MPI_UINT8_T : MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    cudaMemcpy(to, host, bytes, cudaMemcpyHostToDevice);
    free(host);
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *r)
{
    (void)comm;
    *r = getenv("FAKE_NCCL_FAILS") ? ncclRemoteError : ncclSuccess;
    return ncclSuccess;
}
