// planted_bugs.cu: proof that the net holds. Every bug below must be reported, with its
// line; every clean program must pass unreported.
//
// Without arguments the program runs each case again as a process of its own, in the orders that the case is to be seen
// in, and looks for a phrase and for the line that carries the comment "// HERE: name" in what was printed.
// `planted_bugs NAME` runs one case. It is built three times (plain, ASan+UBSan, TSan), and a case says in which builds
// it must be seen: an index beyond an array is ASan's business, a missing barrier shows in the plain build when the
// order is unlucky, and under TSan in every order.
#include "dev/cuda_on_cpu/cuda_on_cpu.h"
#include "dev/cuda_on_cpu/tensor_core.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <string>
#include <vector>

static void check(cudaError_t e)
{
    if (e == cudaSuccess) return;
    fprintf(stderr, "unexpected: %s\n", cudaGetErrorString(e));
    exit(3);
}
static void expect(bool ok, const char *what)
{
    if (ok) return;
    fprintf(stderr, "wrong result: %s\n", what);
    exit(4);
}

enum { N = 64 }; // threads in most blocks: under TSan each is costly to make
template <class T> static T *device(size_t n) // zeroed
{
    T *p;
    check(cudaMalloc(&p, n * sizeof(T)));
    check(cudaMemset(p, 0, n * sizeof(T)));
    check(cudaDeviceSynchronize());
    return p;
}
static std::vector<float> download(const float *p, size_t n)
{
    std::vector<float> h(n);
    check(cudaMemcpy(h.data(), p, n * sizeof(float), cudaMemcpyDeviceToHost));
    return h;
}
static void finish() { check(cudaDeviceSynchronize()); }

// ----------------------------------------------------------------------------
// bugs in kernels

template <class T> __global__ void missing_barrier(T *o)
{
    __shared__ T s[N];
    s[threadIdx.x] = (T)threadIdx.x;
    o[threadIdx.x] = s[(threadIdx.x + 1) % N] + 1; // HERE: missing_barrier
}
__global__ void reused_too_early(float *o)
{
    __shared__ float s[N / 32];
    float sum = 0;
    for (int round = 0; round < 4; round++) {
        if (threadIdx.x % 32 == 0) s[threadIdx.x / 32] = (float)round; // HERE: reused_too_early
        __syncthreads();
        for (int i = 0; i < N / 32; i++) sum += s[i]; // HERE: reused_too_early
    }
    o[threadIdx.x] = sum;
}
__global__ void missing_syncwarp(float *o)
{
    __shared__ float s[32];
    s[threadIdx.x] = 1;
    o[threadIdx.x] = s[31 - threadIdx.x] + 1; // HERE: missing_syncwarp
    __shfl_xor_sync(~0u, 0, 1);
}
template <class T> __global__ void static_shared_write(T *o, int i)
{
    __shared__ T s[40];
    T *p = s;
    p[i] = 1; // HERE: static_shared_write
    o[0] = p[i];
}
__global__ void dynamic_shared_write(float *o, int i)
{
    DYNAMIC_SHARED(float, s);
    s[i] = 1; // HERE: dynamic_shared_write
    o[0] = s[i];
}
__global__ void global_write(float *o, int i)
{
    o[i] = 1; // HERE: global_write
}
__global__ void misaligned_load(float *o)
{
    float4 v = *(const float4 *)(o + 1); // HERE: misaligned_load
    *(float4 *)(o + 4) = v;
}
__global__ void divergent_shuffle(float *o)
{
    float v = (float)threadIdx.x;
    if (threadIdx.x % 2) v = __shfl_xor_sync(0xffffffffu, v, 2); // HERE: divergent_shuffle
    o[threadIdx.x] = v;
    __syncthreads();
}
__global__ void shuffle_from_nobody(float *o)
{
    if (threadIdx.x >= 16) return;
    o[threadIdx.x] = __shfl_down_sync(0xffffu, (float)threadIdx.x, 8); // HERE: shuffle_from_nobody
}
__global__ void divergent_barrier(float *o)
{
    if (threadIdx.x < 40) __syncthreads(); // HERE: divergent_barrier
    __syncthreads();
    o[threadIdx.x] = 1;
}
__global__ void uninitialised_shared(float *o)
{
    __shared__ float s[N];
    if (threadIdx.x > 0) s[threadIdx.x] = 1;
    __syncthreads();
    o[threadIdx.x] = 2 * s[threadIdx.x]; // HERE: uninitialised_shared
}
__global__ void uninitialised_global(float *o, const __nv_bfloat16 *in)
{
    o[threadIdx.x] = __bfloat162float(in[threadIdx.x]) * 2; // HERE: uninitialised_global
}
__global__ void copy_kernel(float *o, const float *in, size_t n)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) o[i] = in[i]; // HERE: missing_event_inside
}
__global__ void race_between_blocks(float *o)
{
    if (threadIdx.x == 0) o[0] += 1; // HERE: race_between_blocks
}
// The block that comes last adds up what the others have stored: right only with __threadfence.
template <bool FENCE> __global__ void last_block(float *o, float *part, unsigned *count)
{
    __shared__ bool last;
    if (threadIdx.x == 0) {
        part[blockIdx.x] = 1; // HERE: missing_threadfence
        if (FENCE) __threadfence();
        last = atomicAdd(count, 1) == gridDim.x - 1;
        if (last) for (unsigned i = 0; i < gridDim.x; i++) o[0] += part[i]; // HERE: missing_threadfence
    }
    __syncthreads();
}
__global__ void deep_recursion(float *o, int depth)
{
    struct Down {
        static __attribute__((noinline)) float go(int d)
        {
            volatile float x[256] = {(float)d};
            return d ? x[0] + go(d - 1) + x[1] : x[0]; // HERE: stack_overflow
        }
    };
    o[0] = Down::go(depth);
}

static void run_missing_barrier() { LAUNCH(missing_barrier<float>, 1, N, 0, 0, device<float>(N)); finish(); }
static void run_reused_too_early() { LAUNCH(reused_too_early, 1, N, 0, 0, device<float>(N)); finish(); }
static void run_missing_syncwarp() { LAUNCH(missing_syncwarp, 1, 32, 0, 0, device<float>(32)); finish(); }
static void run_static_shared_write()
{
    LAUNCH(static_shared_write<float>, 1, 1, 0, 0, device<float>(1), 40);
    finish();
}
static void run_dynamic_shared_write()
{
    LAUNCH(dynamic_shared_write, 1, 1, 63 * sizeof(float), 0, device<float>(1), 63);
    finish();
}
static void run_global_write() { LAUNCH(global_write, 1, 1, 0, 0, device<float>(63), 63); finish(); }
static void run_misaligned_load() { LAUNCH(misaligned_load, 1, 1, 0, 0, device<float>(N)); finish(); }
static void run_divergent_shuffle() { LAUNCH(divergent_shuffle, 1, 64, 0, 0, device<float>(N)); finish(); }
static void run_shuffle_from_nobody() { LAUNCH(shuffle_from_nobody, 1, 32, 0, 0, device<float>(N)); finish(); }
static void run_divergent_barrier() { LAUNCH(divergent_barrier, 1, 64, 0, 0, device<float>(N)); finish(); }
static void run_uninitialised_shared() { LAUNCH(uninitialised_shared, 1, N, 0, 0, device<float>(N)); finish(); }
static void run_uninitialised_global()
{
    __nv_bfloat16 *in;
    check(cudaMalloc(&in, N * sizeof *in));
    LAUNCH(uninitialised_global, 1, N, 0, 0, device<float>(N), in);
    finish();
}
static void run_race_between_blocks() { LAUNCH(race_between_blocks, 4, 32, 0, 0, device<float>(1)); finish(); }
static void run_missing_threadfence()
{
    LAUNCH(last_block<false>, 4, 32, 0, 0, device<float>(1), device<float>(4), device<unsigned>(1));
    finish();
}
static void run_stack_overflow() { LAUNCH(deep_recursion, 1, 1, 0, 0, device<float>(1), 1 << 20); finish(); }

// ----------------------------------------------------------------------------
// bugs in host code

static void run_host_pointer()
{
    std::vector<float> h(N);
    LAUNCH(copy_kernel, 1, N, 0, 0, device<float>(N), h.data(), N); // HERE: host_pointer
    finish();
}
static void run_host_reads_device()
{
    volatile float *p = device<float>(N);
    printf("%g\n", p[3]); // HERE: host_reads_device
}
static void run_wrong_direction()
{
    std::vector<float> h(N);
    check(cudaMemcpy(h.data(), device<float>(N), N * sizeof(float), cudaMemcpyHostToDevice)); // HERE: wrong_direction
}
static void run_copy_too_long()
{
    std::vector<float> h(N + 1);
    size_t bytes = (N + 1) * sizeof(float);
    check(cudaMemcpy(device<float>(N), h.data(), bytes, cudaMemcpyHostToDevice)); // HERE: copy_too_long
}
static void run_missing_sync()
{
    volatile float *h;
    cudaStream_t s;
    check(cudaMallocHost((void **)&h, N * sizeof(float)));
    check(cudaStreamCreate(&s));
    check(cudaMemcpyAsync((void *)h, device<float>(N), N * sizeof(float), cudaMemcpyDeviceToHost, s));
    printf("%g\n", h[3]); // HERE: missing_sync
}
static void run_reused_source()
{
    volatile float *h;
    cudaStream_t s;
    check(cudaMallocHost((void **)&h, N * sizeof(float)));
    check(cudaStreamCreate(&s));
    check(cudaMemcpyAsync(device<float>(N), (void *)h, N * sizeof(float), cudaMemcpyHostToDevice, s));
    h[3] = 1; // HERE: reused_source
}
// b = a, c = b on two streams. offset: where c's kernel begins to read, as a pointer that the first kernel did not get.
static void two_streams(bool wait, size_t offset)
{
    float *a = device<float>(2 * N), *b = device<float>(2 * N), *c = device<float>(2 * N);
    cudaStream_t s, t;
    cudaEvent_t e, end;
    float ms;
    check(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    check(cudaStreamCreateWithFlags(&t, cudaStreamNonBlocking));
    check(cudaEventCreate(&e));
    check(cudaEventCreate(&end));
    LAUNCH(copy_kernel, 2, N, 0, s, b, a, 2 * N);
    check(cudaEventRecord(e, s));
    if (wait) check(cudaStreamWaitEvent(t, e, 0));
    LAUNCH(copy_kernel, 1, N, 0, t, c, b + offset, N); // HERE: missing_event
    check(cudaStreamSynchronize(t));
    check(cudaEventRecord(end, s));
    expect(cudaEventElapsedTime(&ms, e, end) == cudaErrorNotReady && cudaEventQuery(end) == cudaErrorNotReady,
        "an event that nobody waited for");
    cudaGetLastError();
    check(cudaEventSynchronize(end));
    check(cudaEventElapsedTime(&ms, e, end));
    expect(ms >= 0, "time passes");
    check(cudaEventDestroy(e));
    check(cudaEventDestroy(end));
    check(cudaStreamDestroy(s));
    check(cudaStreamDestroy(t));
}
static void run_malloc_in_capture()
{
    cudaStream_t s;
    check(cudaStreamCreate(&s));
    check(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
    float *p;
    check(cudaMalloc(&p, N)); // HERE: malloc_in_capture
}
static void run_missing_event() { two_streams(false, 0); }
static void run_missing_event_inside() { two_streams(false, N); }
static void run_use_after_free()
{
    float *p = device<float>(N);
    check(cudaFree(p));
    LAUNCH(copy_kernel, 1, N, 0, 0, device<float>(2 * N), p, N); // HERE: use_after_free
    finish();
}
static void run_too_many_threads()
{
    LAUNCH(copy_kernel, 1, 2048, 0, 0, device<float>(N), device<float>(N), N); // HERE: too_many_threads
}
static void run_too_much_shared()
{
    LAUNCH(dynamic_shared_write, 1, 1, 50 << 10, 0, device<float>(1), 0); // HERE: too_much_shared
}
static void run_uninitialised_product()
{
    float *a, *b = device<float>(6), *c = device<float>(4);
    check(cudaMalloc(&a, 6 * sizeof(float)));
    device_gemm(0, false, true, 2, 2, 3, a, false, 3, b, 3, 0, c, false, 2, NULL, false); // HERE: uninitialised_product
    finish();
}

// ----------------------------------------------------------------------------
// clean programs

// Sum of the block by shuffles and shared memory, a vote, an integer reduction, a partial
// warp, and dynamic shared memory.
__global__ void clean_kernel(float *o, const float *in, unsigned *votes)
{
    __shared__ float part[32];
    DYNAMIC_SHARED(float, s);
    unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    s[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    float x = s[blockDim.x - 1 - threadIdx.x];
    for (int i = 16; i > 0; i /= 2) x += __shfl_xor_sync(~0u, x, i);
    if (lane == 0) part[warp] = x;
    __syncthreads();
    float sum = 0;
    for (unsigned i = 0; i < blockDim.x / 32; i++) sum += part[i];
    __syncthreads();
    s[threadIdx.x] = sum;
    __syncwarp();
    sum = s[threadIdx.x ^ 1];
    unsigned even = __ballot_sync(~0u, lane % 2 == 0), most = __reduce_max_sync(~0u, lane),
             all = __reduce_add_sync(~0u, lane);
    float up = __shfl_up_sync(~0u, x, 1), down = __shfl_down_sync(~0u, (float)lane, 1),
          first = __shfl_sync(~0u, (float)lane, 3, 8);
    if (lane < 8) sum += __any_sync(0xffu, lane == 7) - __all_sync(0xffu, lane < 8);
    o[threadIdx.x] = sum + (up - x);
    if (lane == 5)
        votes[warp] = (even == 0x55555555u && most == 31 && all == 31 * 16 && down == 6 && first == 3) ? 1 : 0;
}
static void run_clean()
{
    std::vector<float> h(N);
    for (int i = 0; i < N; i++) h[(size_t)i] = (float)i;
    float *in = device<float>(N), *o = device<float>(N);
    unsigned *votes = device<unsigned>(N / 32), v[N / 32];
    check(cudaMemcpy(in, h.data(), N * sizeof(float), cudaMemcpyHostToDevice));
    LAUNCH(clean_kernel, 1, N, N * sizeof(float), 0, o, in, votes);
    std::vector<float> r = download(o, N);
    for (float x : r) expect(x == N * (N - 1) / 2, "sum over a block");
    check(cudaMemcpy(v, votes, sizeof v, cudaMemcpyDeviceToHost));
    for (unsigned x : v) expect(x == 1, "votes and reductions");
    float *total = device<float>(1);
    LAUNCH(last_block<true>, 4, 32, 0, 0, total, device<float>(4), device<unsigned>(1));
    expect(download(total, 1)[0] == 4, "last block");
    expect(cuda_on_cpu_launches() == 2, "two launches are counted");
}
// Blocks that run at once on several OS threads, each with its own shared memory.
__global__ void many_blocks(float *o)
{
    __shared__ float s[N];
    s[threadIdx.x] = (float)(blockIdx.x + threadIdx.x);
    __syncthreads();
    o[blockIdx.x * N + threadIdx.x] = s[N - 1 - threadIdx.x];
}
static void run_clean_blocks()
{
    enum { BLOCKS = 100 };
    float *o = device<float>(BLOCKS * N);
    LAUNCH(many_blocks, BLOCKS, N, 0, 0, o);
    std::vector<float> r = download(o, BLOCKS * N);
    for (size_t i = 0; i < r.size(); i++) expect(r[i] == (float)(i / N + N - 1 - i % N), "many blocks");
}
static void run_clean_streams()
{
    two_streams(true, 0);
    two_streams(true, N);
}
// A graph of copies from pinned memory and a kernel, replayed with new input.
static void run_clean_graph()
{
    cudaStream_t s;
    cudaGraph_t g;
    cudaGraphExec_t exec;
    check(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking)); // before anything uses the default stream
    float *h, *r, *a = device<float>(N), *b = device<float>(N);
    check(cudaMallocHost((void **)&h, N * sizeof(float)));
    check(cudaMallocHost((void **)&r, N * sizeof(float)));
    check(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
    check(cudaMemcpyAsync(a, h, N * sizeof(float), cudaMemcpyHostToDevice, s));
    LAUNCH(copy_kernel, 1, N, 0, s, b, a, N);
    check(cudaMemcpyAsync(r, b, N * sizeof(float), cudaMemcpyDeviceToHost, s));
    check(cudaStreamEndCapture(s, &g));
    check(cudaGraphInstantiate(&exec, g, 0));
    cudaStream_t t;
    cudaEvent_t e;
    check(cudaStreamCreateWithFlags(&t, cudaStreamNonBlocking));
    check(cudaEventCreate(&e));
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < N; i++) h[i] = (float)(i + round);
        check(cudaGraphLaunch(exec, s));
        check(cudaEventRecord(e, s));
        check(cudaStreamWaitEvent(t, e, 0));
        check(cudaStreamSynchronize(t)); // the other stream waits for the graph, the host for that stream
        for (int i = 0; i < N; i++) expect(r[i] == (float)(i + round), "a graph's result");
    }
    expect(cuda_on_cpu_launches() == 3, "a graph's launches are counted when it runs");
    check(cudaGraphExecDestroy(exec));
    check(cudaGraphDestroy(g));
    check(cudaFreeHost(h));
    check(cudaFreeHost(r));
    check(cudaStreamDestroy(s));
    check(cudaStreamDestroy(t));
    check(cudaEventSynchronize(e)); // of a stream that is gone
    check(cudaEventDestroy(e));
}
// C (16,8) = A (16,16) B (16,8) by one mma.sync; A is read row-major, and B both as
// stored and through the transposing ldmatrix.
__global__ void mma_kernel(float *c, const __nv_bfloat16 *a, const __nv_bfloat16 *b)
{
    __shared__ __align__(16) __nv_bfloat16 A[16][24], B[16][8];
    int lane = (int)threadIdx.x;
    for (int i = lane; i < 256; i += 32) A[i / 16][i % 16] = a[i];
    for (int i = lane; i < 128; i += 32) B[i / 8][i % 8] = b[i];
    __syncwarp();
    uint32_t fa[4], fb[4];
    float d[4] = {1, 1, 1, 1};
    ldmatrix_x4(fa, &A[lane % 16][lane / 16 * 8]);
    ldmatrix_x4_trans(fb, &B[lane % 16][0]);
    mma_m16n8k16<__nv_bfloat16>(d, fa, fb);
    for (int q = 0; q < 4; q++) c[(lane / 4 + q / 2 * 8) * 8 + lane % 4 * 2 + q % 2] = d[q];
}
static void run_clean_mma()
{
    __nv_bfloat16 a[256], b[128], *da = device<__nv_bfloat16>(256), *db = device<__nv_bfloat16>(128);
    for (int i = 0; i < 256; i++) a[i] = __float2bfloat16((float)(i * 37 % 101) / 32 - 1);
    for (int i = 0; i < 128; i++) b[i] = __float2bfloat16((float)(i * 53 % 97) / 32 - 1);
    check(cudaMemcpy(da, a, sizeof a, cudaMemcpyHostToDevice));
    check(cudaMemcpy(db, b, sizeof b, cudaMemcpyHostToDevice));
    float *c = device<float>(128), *g = device<float>(128);
    LAUNCH(mma_kernel, 1, 32, 0, 0, c, da, db);
    device_gemm(0, false, false, 16, 8, 16, da, true, 16, db, 8, 0, g, false, 8, nullptr, false);
    std::vector<float> r = download(c, 128), p = download(g, 128);
    for (int i = 0; i < 16; i++) for (int j = 0; j < 8; j++) {
        double sum = 0;
        for (int k = 0; k < 16; k++)
            sum += (double)__bfloat162float(a[i * 16 + k]) * (double)__bfloat162float(b[k * 8 + j]);
        expect(fabs(r[(size_t)(i * 8 + j)] - 1 - sum) <= 1e-4, "mma.sync");
        expect(fabs(p[(size_t)(i * 8 + j)] - sum) <= 1e-4, "product");
    }
}
static void run_clean_errors()
{
    float *p;
    cudaDeviceProp prop;
    check(cudaGetDeviceProperties(&prop, 0));
    expect(cudaMalloc(&p, prop.totalGlobalMem) == cudaErrorMemoryAllocation && !p,
        "running out of device memory is returned");
    expect(cudaGetLastError() == cudaErrorMemoryAllocation && cudaGetLastError() == cudaSuccess, "the last error");
    check(cudaFuncSetAttribute(dynamic_shared_write, cudaFuncAttributeMaxDynamicSharedMemorySize, 100 << 10));
    LAUNCH(dynamic_shared_write, 1, 1, 100 << 10, 0, device<float>(1), 0);
    finish();
    LAUNCH(copy_kernel, 1, N, 0, 0, NULL, NULL, 0); // no memory and nothing to do
    finish();
}

// ----------------------------------------------------------------------------
// the driver

enum { PLAIN = 1, ASAN = 2, TSAN = 4, ALL = 7, EVERY_ORDER = 8 };
#if defined(__SANITIZE_ADDRESS__)
static const int build = ASAN;
#elif defined(__SANITIZE_THREAD__)
static const int build = TSAN;
#else
static const int build = PLAIN;
#endif
struct Case {
    const char *name;
    void (*run)();
    int seen;           // in which builds, and whether in every order; 0: clean, everywhere
    const char *phrase; // one of these, separated by |, is in the report
};
#define CASE(name, seen, phrase) {#name, run_##name, seen, phrase}
static const Case cases[] = {
    CASE(missing_barrier, PLAIN | ASAN, "memory that nothing was written to"),
    CASE(missing_barrier, TSAN | EVERY_ORDER, "data race|memory that nothing was written to"),
    CASE(reused_too_early, TSAN | EVERY_ORDER, "data race"),
    CASE(missing_syncwarp, TSAN | EVERY_ORDER, "data race|memory that nothing was written to"),
    CASE(static_shared_write, ASAN | EVERY_ORDER, "global-buffer-overflow|insufficient space"),
    CASE(dynamic_shared_write, ASAN | EVERY_ORDER, "heap-buffer-overflow"),
    CASE(global_write, ASAN | EVERY_ORDER, "use-after-poison"),
    CASE(misaligned_load, ASAN | EVERY_ORDER, "misaligned address"),
    CASE(divergent_shuffle, ALL | EVERY_ORDER, "wait"),
    CASE(shuffle_from_nobody, ALL | EVERY_ORDER, "which takes no part"),
    CASE(divergent_barrier, ALL | EVERY_ORDER, "different __syncthreads"),
    CASE(uninitialised_shared, ALL | EVERY_ORDER, "memory that nothing was written to"),
    CASE(uninitialised_global, ALL | EVERY_ORDER, "memory that nothing was written to"),
    CASE(race_between_blocks, TSAN | EVERY_ORDER, "data race"),
    CASE(missing_threadfence, TSAN | EVERY_ORDER, "data race"),
    CASE(stack_overflow, PLAIN, "stack overflows"),
    CASE(host_pointer, ALL, "not device memory"),
    CASE(host_reads_device, ALL, "host code reads or writes"),
    CASE(wrong_direction, ALL, "to the device was called with memory for a copy from the device"),
    CASE(copy_too_long, ALL, "ends beyond it"),
    CASE(missing_sync, ALL, "has yet to write"),
    CASE(reused_source, ALL, "has yet to read"),
    CASE(missing_event, ALL, "cudaStreamWaitEvent is missing"),
    CASE(missing_event_inside, TSAN | EVERY_ORDER, "data race"),
    CASE(malloc_in_capture, ALL, "while a stream is capturing"),
    CASE(use_after_free, ALL, "not allocated"),
    CASE(too_many_threads, ALL, "at most 1024 threads"),
    CASE(too_much_shared, ALL, "cudaFuncSetAttribute"),
    CASE(uninitialised_product, ALL, "memory that nothing was written to"),
    CASE(clean, 0, ""),
    CASE(clean_blocks, 0, ""),
    CASE(clean_streams, 0, ""),
    CASE(clean_graph, 0, ""),
    CASE(clean_mma, 0, ""),
    CASE(clean_errors, 0, ""),
};

// Runs this program with one case in one order; *out is what it printed.
static int run_process(const char *name, const char *order, std::string *out)
{
    int fd[2];
    if (pipe(fd)) exit(5);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fd[1], 1);
        dup2(fd[1], 2);
        setenv("SIMT_ORDER", order, 1);
        execl("/proc/self/exe", "planted_bugs", name, (char *)NULL);
        _exit(127);
    }
    close(fd[1]);
    char text[4096];
    for (ssize_t n; (n = read(fd[0], text, sizeof text)) > 0;) out->append(text, (size_t)n);
    close(fd[0]);
    int status = 0;
    waitpid(pid, &status, 0);
    return status;
}

static std::vector<int> lines_here(const std::string &name) // the lines of this file that carry "// HERE: name"
{
    std::vector<int> lines;
    FILE *f = fopen(__FILE__, "r");
    if (!f) {
        fprintf(stderr, "cannot open %s: run from the top folder\n", __FILE__);
        exit(2);
    }
    char text[1024];
    for (int n = 1; fgets(text, sizeof text, f); n++) {
        char *mark = strstr(text, "// HERE: ");
        if (mark && std::string(mark + 9) == name + "\n") lines.push_back(n);
    }
    fclose(f);
    return lines;
}

int main(int argc, char **argv)
{
    int passed = 0, failed = 0;
    if (argc > 1) {
        for (const Case &c : cases) if (!strcmp(c.name, argv[1])) return c.run(), 0;
        fprintf(stderr, "no case %s\n", argv[1]);
        return 2;
    }
    for (const Case &c : cases) {
        if (c.seen && !(c.seen & build)) continue;
        for (const char *order : {"forward", "reverse", "random:1", "random:2"}) {
            if (build == TSAN && !strcmp(order, "random:2")) continue; // slow, and it does not depend on the order
            if (c.seen && !(c.seen & EVERY_ORDER) && strcmp(order, "forward")) continue;
            std::string out;
            int status = run_process(c.name, order, &out);
            bool ok;
            if (!c.seen) ok = status == 0 && out.empty();
            else {
                bool line = false;
                for (int n : lines_here(c.name))
                    line = line || out.find("planted_bugs.cu:" + std::to_string(n)) != std::string::npos;
                std::string phrases = c.phrase, second = phrases.substr(phrases.find('|') + 1); // all of it without a |
                ok = status != 0 && line &&
                    (out.find(phrases.substr(0, phrases.find('|'))) != std::string::npos ||
                        out.find(second) != std::string::npos);
            }
            if (ok) passed++;
            else {
                failed++;
                printf("%s, %s order: %s. It printed:\n%s\n", c.name, order,
                    c.seen ? "not reported with its line" : "not clean", out.c_str());
            }
        }
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0;
}
