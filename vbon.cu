// vbon.cu: the CUDA operations (ops_cuda). No model, no algorithm, no main: every op cuda_NAME here has its plain twin
// cpu_NAME in vbon.c, and the two are compared op by op (dev/tests/cuda_test.h). Matrix products are cuBLASLt's, all
// else is written out.
//
// How to read it: an op is a kernel or two and a function cuda_NAME that launches them; the table at the end lists the
// ops.
//  - A kernel begins with what it costs: the bytes that it must read and write, its floating-point operations, and
//    what bounds its longest launch at the paper's sizes. make test_cost evaluates these lines beside what the kernel
//    was counted to do (dev/cuda_on_cpu/claims.h).
//  - Kernels are templates over T, the type of weights and activations (float or bfloat16). Whatever is summed is
//    summed in float, sums over many rows or a vocabulary in double; statistics, log-probabilities and parameter
//    gradients are float in both.
//  - Memory is touched 16 bytes at a time through load and store, which fall back to single elements at odd ends and
//    odd addresses: so any width works, and the usual ones are fast.
//  - Nothing is added with float atomics. A sum over rows is made of fixed parts added in a fixed order: equal runs are
//    equal to the bit.
//  - Attention never stores the scores of all pairs. A block owns a tile of packed positions, which may belong to
//    several rows; a mask says which pairs see each other. So there is no padding, and the grid does not depend on
//    lengths only the device knows.
//  - The head's logits exist for a chunk of rows at a time, with a leading dimension that keeps every row aligned.
//
// The same file is compiled by g++ with -DCUDA_ON_CPU and run by dev/cuda_on_cpu, which is how it is tested where there
// is no GPU. Hence LAUNCH instead of <<<>>>, DYNAMIC_SHARED, no warp function without a full mask, and no barrier in a
// divergent branch.
//
// Left out on purpose: several GPUs in one process, tensor-core instructions newer than mma.sync (they would need a
// second kernel for each card).
#ifdef CUDA_ON_CPU
#include "dev/cuda_on_cpu/cuda_on_cpu.h" // device_gemm too
#include "dev/cuda_on_cpu/tensor_core.h"
#else
#include <cuda_runtime.h>
#include "lib/cublaslt.h"    // device_gemm
#include "lib/tensor_core.h" // ldmatrix and mma.sync as functions
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)
#define DYNAMIC_SHARED(type, name) \
    extern __shared__ __align__(16) unsigned char dynamic_shared_[]; \
    type *name = (type *)dynamic_shared_
#endif
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <type_traits>
#include "lib/cuda_plan.h"
#include "ppo.h" // the loss of one action
#include "lib/moments.h"

typedef __nv_bfloat16 bf16;
static const Buf none = {NULL, 0, DT_F32, NULL};

// ----------------------------------------------------------------------------
// the device: errors, memory, launches

static cudaStream_t stream;                        // everything runs in order on this one
static size_t launches;                            // kernels launched so far (tests look at it)
extern "C" size_t cuda_launches(void);
extern "C" size_t cuda_launches(void) { return launches; }

static void check(cudaError_t e, const char *what)
{
    if (e != cudaSuccess) die("CUDA: %s: %s", what, cudaGetErrorString(e));
}

static cudaDeviceProp device;

// More than 48 KiB of shared memory must be asked for, once a kernel.
template <class Kernel> static void allow_shared(Kernel kernel, size_t bytes, const char *name)
{
    if (bytes > device.sharedMemPerBlockOptin)
        die("--device cuda: %s: %s needs %zu bytes of shared memory a block, the device has %zu: leave --device out",
            device.name, name, bytes, (size_t)device.sharedMemPerBlockOptin);
    if (bytes > 48 * 1024)
        check(cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
              name);
}

#define RUN(kernel, grid, block, shared_bytes, ...) do { \
        allow_shared(kernel, shared_bytes, #kernel); \
        LAUNCH(kernel, grid, block, shared_bytes, stream, __VA_ARGS__); \
        check(cudaGetLastError(), #kernel); \
        launches++; \
    } while (0)

// Runs a statement with T as the element type of a buffer.
#define BY_TYPE(buf, ...) do { \
        if ((buf).type == DT_BF16) { typedef bf16 T; __VA_ARGS__; } \
        else { typedef float T; __VA_ARGS__; } \
    } while (0)

static void need(const char *op, Buf b, size_t n, bool index)
{
    bool type = index ? b.type == DT_I32 : b.type == DT_F32 || b.type == DT_BF16;
    if (b.p && (b.n < n || !type))
        die("%s: %s has %zu elements of type %d, needs %zu: a bug, please report it", op, b.name ? b.name : "?", b.n,
            (int)b.type, n);
}
#define NEED(b, count) need(__func__, b, count, false)
#define NEED_INDEX(b, count) need(__func__, b, count, true)

template <class T> static T *at(Buf b) { return (T *)b.p; }
static float *F_(Buf b)
{
    if (b.p && b.type != DT_F32) die("%s is of type %d, not float: a bug, please report it", b.name, (int)b.type);
    return (float *)b.p;
}
static int *I_(Buf b) { return (int *)b.p; }
static size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }

static Buf cuda_alloc(size_t n, DType type, const char *name)
{
    size_t bytes = n * dtype_size(type), unused, total;
    Buf b = {NULL, n, type, name};
    cudaError_t e = cudaMalloc(&b.p, bytes ? bytes : 256);
    if (e == cudaErrorMemoryAllocation) {
        if (cudaMemGetInfo(&unused, &total) != cudaSuccess) unused = total = 0;
        die("out of device memory: %s needs %.1f MiB, %.1f of %.1f are free: lower --micro-tokens or --rollout, or see "
            "vbon info",
            name, (double)bytes / 1048576, (double)unused / 1048576, (double)total / 1048576);
    }
    check(e, name);
    return b;
}

static void regions_forget(void);
static void cuda_release(Buf *b)
{
    check(cudaStreamSynchronize(stream), "before freeing memory");
    regions_forget(); // they hold addresses
    check(cudaFree(b->p), b->name);
    b->p = NULL;
}

// Memory of one op call that outlives it only as capacity, grown to the largest ever asked for. Ops run in order on the
// stream, so all share two blocks (cuda_plan.h counts them).
typedef struct { Buf b; } Scratch;
static Scratch scratch_1, scratch_2;
static void *scratch(Scratch *s, size_t bytes)
{
    if (bytes > s->b.n) {
        if (s->b.p) cuda_release(&s->b);
        s->b = cuda_alloc(bytes, DT_U8, "scratch");
    }
    return s->b.p;
}

static Buf cuda_pin(size_t bytes, const char *name)
{
    Buf b = {NULL, bytes, DT_U8, name};
    cudaError_t e = cudaMallocHost(&b.p, bytes);
    if (e != cudaSuccess)
        die("out of pinned host memory: %s needs %.1f MiB (%s): leave --offload out", name, (double)bytes / 1048576,
            cudaGetErrorString(e));
    return b;
}

static void cuda_unpin(Buf *b)
{
    check(cudaStreamSynchronize(stream), "before freeing memory"); // a copy from it may be on its way
    check(cudaFreeHost(b->p), b->name);
    b->p = NULL;
}

#ifdef VBON_NCCL
#include "lib/nccl.h" // exchange, all_reduce
#else
static void nccl_watch(void) {}
#endif

static uint16_t *staging(size_t n) // a host copy of a bfloat16 buffer, on its way
{
    static uint16_t *p;
    static size_t room;
    if (n > room) { p = (uint16_t *)xrealloc(p, n * sizeof *p); room = n; }
    return p;
}

static void cuda_upload(Buf dst, const void *src)
{
    if (dst.type == DT_BF16) {
        uint16_t *h = staging(dst.n);
        for (size_t i = 0; i < dst.n; i++) {
            bf16 x = (bf16)((const float *)src)[i];
            memcpy(&h[i], (const void *)&x, 2);
        }
        src = h;
    }
    // not waited for: of pageable memory the driver has taken its own copy when this returns
    check(cudaMemcpyAsync(dst.p, src, dst.n * dtype_size(dst.type), cudaMemcpyHostToDevice, stream), "upload");
}

static void cuda_download(void *dst, Buf src)
{
    uint16_t *h = src.type == DT_BF16 ? staging(src.n) : NULL;
    check(cudaMemcpyAsync(h ? (void *)h : dst, src.p, src.n * dtype_size(src.type), cudaMemcpyDeviceToHost, stream),
          "download");
    nccl_watch();
    check(cudaStreamSynchronize(stream), "download");
    for (size_t i = 0; h && i < src.n; i++) { bf16 x; memcpy((void *)&x, &h[i], 2); ((float *)dst)[i] = (float)x; }
}

static cudaEvent_t arrived[2]; // downloads, by number
static void cuda_download_begin(void *dst, Buf src, int which)
{
    check(cudaMemcpyAsync(dst, src.p, src.n * dtype_size(src.type), cudaMemcpyDeviceToHost, stream), "download");
    check(cudaEventRecord(arrived[which], stream), "download");
}
static void cuda_download_end(int which) { check(cudaEventSynchronize(arrived[which]), "download"); }

// ----------------------------------------------------------------------------
// what kernels share: 128-bit accesses, sums over a warp and over a block

// Before a loop over an array in registers that the compiler would not unroll by itself: an index known only at run
// time moves the array to memory.
#ifdef CUDA_ON_CPU
#define UNROLL
#define UNROLL_BY(n)
#define IN_ONE_PIECE(bits) __asm__("" : "+m"(bits)) // else g++ makes four loads of it, and four are counted
#else
#define IN_ONE_PIECE(bits)
#define UNROLL _Pragma("unroll")
#define PRAGMA(x) _Pragma(#x)
#define UNROLL_BY(n) PRAGMA(unroll n)
#endif

enum { THREADS = 256 }; // a block, where nothing else asks for another size

template <class T> struct Wide { enum { n = 16 / sizeof(T) }; }; // elements of one 128-bit access

// The 16 bytes at p as they are; `left` elements are there, the others become 0. ALIGNED: the caller knows that all n
// are there and that p is a round address, so that nothing is asked and several loads can be on their way.
template <bool ALIGNED = false, class T> __device__ inline uint4 load_bits(const T *p, size_t left)
{
    enum { W = Wide<T>::n };
    uint4 bits;
    if constexpr (!ALIGNED)
        if (left < W || (uintptr_t)p % 16) {
            T v[W];
            for (int i = 0; i < W; i++) v[i] = (size_t)i < left ? p[i] : (T)0.0f;
            memcpy(&bits, (const void *)v, 16);
            return bits;
        }
    bits = *(const uint4 *)p;
    IN_ONE_PIECE(bits);
    return bits;
}

// x[0..n), the elements of 16 bytes
template <class T> __device__ inline void unpack(float *x, uint4 bits)
{
    T v[Wide<T>::n];
    memcpy((void *)v, &bits, 16);
    for (int i = 0; i < Wide<T>::n; i++) x[i] = (float)v[i];
}

template <class T> __device__ inline void load(float *x, const T *p, size_t left) { unpack<T>(x, load_bits(p, left)); }

// x[0..W), of which `left` have a place: 16 bytes, or as many as W asks for
template <bool ALIGNED = false, int WIDTH = 0, class T> __device__ inline void store(T *p, const float *x, size_t left)
{
    enum { W = WIDTH ? WIDTH : Wide<T>::n };
    T v[W];
    for (int i = 0; i < W; i++) v[i] = (T)x[i];
    if (ALIGNED || (left >= W && (uintptr_t)p % sizeof v == 0)) {
        typename std::conditional<sizeof v == 16, uint4, uint2>::type bits;
        memcpy(&bits, (const void *)v, sizeof v);
        *(decltype(bits) *)p = bits;
    } else {
        for (int i = 0; i < W; i++) if ((size_t)i < left) p[i] = v[i];
    }
}

// Sums over groups of 32 or fewer neighbouring lanes: every lane gets the result, and the same one.
template <class V> __device__ inline V lanes_sum(V x, int lanes)
{
    for (int i = lanes / 2; i > 0; i /= 2) x += __shfl_xor_sync(0xffffffffu, x, i);
    return x;
}
__device__ inline float lanes_max(float x, int lanes)
{
    for (int i = lanes / 2; i > 0; i /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, i));
    return x;
}

__device__ inline unsigned long long lanes_max(unsigned long long x, int lanes)
{
    for (int i = lanes / 2; i > 0; i /= 2) {
        unsigned long long y = __shfl_xor_sync(0xffffffffu, x, i);
        x = x > y ? x : y;
    }
    return x;
}

// The sum over a block of whole warps; every thread gets it. part: shared memory for a number a warp.
enum { WARPS_MAX = 32 };
template <class V> __device__ inline V block_sum(V x, V *part)
{
    unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    x = lanes_sum(x, 32);
    if (lane == 0) part[warp] = x;
    __syncthreads();
    x = lanes_sum(lane < blockDim.x / 32 ? part[lane] : (V)0, 32);
    __syncthreads();
    return x;
}

__device__ inline float block_max(float x, float *part)
{
    unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    x = lanes_max(x, 32);
    if (lane == 0) part[warp] = x;
    __syncthreads();
    x = lanes_max(lane < blockDim.x / 32 ? part[lane] : -INFINITY, 32);
    __syncthreads();
    return x;
}

// Which row of a packed batch of N tokens holds token i: start (B+1) is ascending and rows are not empty.
__device__ inline size_t row_of(const int *start, size_t B, size_t N, size_t i)
{
    if (N == B) return i; // a token a row, as decoding has it
    size_t low = 0, high = B;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if ((size_t)start[middle] <= i) low = middle; else high = middle;
    }
    return low;
}

// Elementwise kernels: a thread owns W neighbouring elements.
#define EACH_CHUNK(i, n) \
    enum { W = Wide<T>::n }; \
    const size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * W; \
    if (i >= (n)) return
static unsigned chunk_blocks(size_t n, DType type) { return (unsigned)ceil_div(n, THREADS * 16 / dtype_size(type)); }

template <class V> __global__ void fill_kernel(V *p, V value, size_t n)
{
    // bytes: n * sizeof(V); flops: 0; bound: memory
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) p[i] = value;
}

static void cuda_fill(Buf dst, double value)
{
    if (!dst.n) return;
    unsigned blocks = (unsigned)ceil_div(dst.n, THREADS);
    if (value == 0 || dst.type == DT_U8 || dst.type == DT_PACKED)
        check(cudaMemsetAsync(dst.p, (int)value, dst.n * dtype_size(dst.type), stream), "fill");
    else if (dst.type == DT_F64) RUN(fill_kernel<double>, blocks, THREADS, 0, at<double>(dst), value, dst.n);
    else if (dst.type == DT_I32) RUN(fill_kernel<int>, blocks, THREADS, 0, at<int>(dst), (int)value, dst.n);
    else BY_TYPE(dst, RUN(fill_kernel<T>, blocks, THREADS, 0, at<T>(dst), (T)(float)value, dst.n));
}

template <class T> __global__ void convert_kernel(T *out, const float *inp, size_t n)
{
    // bytes: n * (4 + sizeof(T)); flops: 0; bound: its launch
    EACH_CHUNK(i, n);
    float x[W];
    for (int j = 0; j < W; j += 4) load(x + j, inp + i + j, i + j < n ? n - i - j : 0);
    store(out + i, x, n - i);
}

static void cuda_copy(Buf dst, Buf src)
{
    if (!dst.n) return;
    if (dst.type == DT_BF16 && src.type == DT_F32)
        RUN(convert_kernel<bf16>, chunk_blocks(dst.n, dst.type), THREADS, 0, at<bf16>(dst), F_(src), dst.n);
    else check(cudaMemcpyAsync(dst.p, src.p, dst.n * dtype_size(dst.type), cudaMemcpyDeviceToDevice, stream), "copy");
}

// ----------------------------------------------------------------------------
// matrix products: C (M,N) = op(A) op(B) + beta C (+ bias of N), row-major; ta: A is stored (K,M), tb: B is stored
// (N,K). A and B are of one type; C is of theirs or float.

// Of float products: on tensor cores, which take factors with 10 bits of fraction (bfloat16 has 7) and sum in float
static bool tf32;

static void gemm(bool ta, bool tb, size_t M, size_t N, size_t K, Buf A, size_t lda, Buf B, size_t ldb, float beta,
                 Buf C, size_t ldc, Buf bias)
{
    if (A.type != B.type)
        die("product of %s and %s: types %d and %d: a bug, please report it", A.name, B.name, (int)A.type, (int)B.type);
    device_gemm(stream, ta, tb, M, N, K, A.p, A.type == DT_BF16, lda, B.p, ldb, beta, C.p, C.type == DT_BF16, ldc,
                bias.p, tf32);
}

static void cuda_pack(Buf out, Buf w, size_t OC, size_t C)
{
    (void)w;
    (void)OC;
    (void)C;
    die("pack: %s: weights are not packed on CUDA: a bug, please report it", out.name);
}

// db (C) += the column sums of d (N,C), for a bias; with NORM also dw += those of d times the normalised inp, for the
// bias and the weight of a layer norm. A block has the columns of COLUMN_LANES 128-bit loads and walks down all rows,
// as many at a time as it has such teams of lanes. Their sums are added within a warp, then over the warps, in a fixed
// order.
enum { COLUMN_LANES = 4, COLUMN_THREADS = 1024 };
template <class T, bool NORM>
__global__ void __launch_bounds__(COLUMN_THREADS)
    column_sums_kernel(float *db, float *dw, const T *d, const T *inp, const float *mean, const float *rstd, size_t N,
                       size_t C)
{
    enum { W = Wide<T>::n, COLUMNS = COLUMN_LANES * W };
    // bytes: (1 + NORM) * N * C * sizeof(T) + (1 + NORM) * 8 * C + NORM * 8 * N;
    // flops: gridDim.x * COLUMNS * ((NORM ? 5 : 1) * N + (1 + NORM) * (3 * 256 + 33));
    // bound: memory
    __shared__ float part[1 + NORM][WARPS_MAX][COLUMNS];
    const size_t x = threadIdx.x % COLUMN_LANES * W, c = blockIdx.x * COLUMNS + x;
    float sum[1 + NORM][W] = {{0}};
    UNROLL_BY(4)
    for (size_t i = threadIdx.x / COLUMN_LANES; i < N; i += COLUMN_THREADS / COLUMN_LANES) {
        float g[W], v[W];
        load(g, d + i * C + c, c < C ? C - c : 0);
        if (NORM) load(v, inp + i * C + c, c < C ? C - c : 0);
        for (int j = 0; j < W; j++) {
            sum[0][j] += g[j];
            if (NORM) sum[NORM][j] += g[j] * (v[j] - mean[i]) * rstd[i];
        }
    }
    for (int k = 0; k <= NORM; k++)
        for (int j = 0; j < W; j++) {
            float all = sum[k][j];
            for (int l = COLUMN_LANES; l < 32; l *= 2) all += __shfl_xor_sync(0xffffffffu, all, l);
            if (threadIdx.x % 32 < COLUMN_LANES) part[k][threadIdx.x / 32][x + j] = all;
        }
    __syncthreads();
    const size_t k = threadIdx.x / COLUMNS, j = threadIdx.x % COLUMNS;
    if (k > NORM || blockIdx.x * COLUMNS + j >= C) return;
    float all = 0;
    for (int r = 0; r < COLUMN_THREADS / 32; r++) all += part[k][r][j];
    (k ? dw : db)[blockIdx.x * COLUMNS + j] += all;
}

static void column_sums(Buf db, Buf dw, Buf d, Buf inp, Buf mean, Buf rstd, size_t N, size_t C)
{
    const unsigned blocks = (unsigned)ceil_div(C, COLUMN_LANES * 16 / dtype_size(d.type));
    #define SUMS(norm) \
        BY_TYPE(d, RUN((column_sums_kernel<T, norm>), blocks, COLUMN_THREADS, 0, F_(db), F_(dw), at<T>(d), at<T>(inp), \
                       F_(mean), F_(rstd), N, C))
    if (dw.p) SUMS(true); else SUMS(false);
    #undef SUMS
}

template <class T> __global__ void add_bias_kernel(float *out, const T *b, size_t N, size_t OC)
{
    // bytes: 8 * N * OC + OC * sizeof(T); flops: N * OC; bound: memory
    size_t k = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (k < N * OC) out[k] += (float)b[k % OC];
}

static void cuda_matmul_forward(Buf out, Buf inp, Buf w, Buf b, size_t N, size_t C, size_t OC)
{
    NEED(out, N * OC); NEED(inp, N * C); NEED(w, OC * C); NEED(b, OC);
    bool apart = b.p && b.type != out.type; // a bias of another type than the output: no epilogue for it
    gemm(false, true, N, OC, C, inp, C, w, C, 0, out, OC, apart ? none : b);
    if (apart)
        BY_TYPE(b, RUN(add_bias_kernel<T>, (unsigned)ceil_div(N * OC, THREADS), THREADS, 0, F_(out), at<T>(b), N, OC));
}

// In bfloat16 runs what stays in float, DistilBERT, need not be more exact than what it judges.
static void cuda_matmul_forward_tf32(Buf out, Buf inp, Buf w, Buf b, size_t N, size_t C, size_t OC)
{
    tf32 = true;
    cuda_matmul_forward(out, inp, w, b, N, C, OC);
    tf32 = false;
}

static void cuda_matmul_backward(Buf dinp, Buf dw, Buf db, Buf dout, Buf inp, Buf w, size_t N, size_t C, size_t OC)
{
    NEED(dinp, N * C); NEED(dw, OC * C); NEED(db, OC); NEED(dout, N * OC); NEED(inp, N * C); NEED(w, OC * C);
    Buf d = dout;
    if (d.type != w.type) { // a product's inputs are of one type
        d.type = w.type; d.n = N * OC; d.p = scratch(&scratch_1, d.n * dtype_size(d.type));
        cuda_copy(d, dout);
    }
    if (dinp.p) gemm(false, false, N, C, OC, d, OC, w, C, 0, dinp, C, none);
    if (dw.p) gemm(true, false, OC, C, N, d, OC, inp, C, 1, dw, C, none);
    if (db.p) column_sums(db, none, dout, none, none, none, N, OC);
}

// ----------------------------------------------------------------------------
// embedding, layer norm, activations, rotary positions

template <class T>
__global__ void embed_forward_kernel(T *out, const int *tokens, const int *pos, const T *wte, const T *wpe, size_t N,
                                     size_t C)
{
    // bytes: (N + different(tokens, N) + (wpe ? different(pos, N) : 0)) * C * sizeof(T);
    // flops: wpe ? N * C : 0; bound: memory
    enum { W = Wide<T>::n };
    size_t chunks = (C + W - 1) / W, k = (size_t)blockIdx.x * blockDim.x + threadIdx.x, i = k / chunks,
           c = k % chunks * W;
    if (i >= N) return;
    float x[W], p[W];
    load(x, wte + (size_t)tokens[i] * C + c, C - c);
    if (wpe) {
        load(p, wpe + (size_t)pos[i] * C + c, C - c);
        for (int j = 0; j < W; j++) x[j] += p[j];
    }
    store(out + i * C + c, x, C - c);
}

static unsigned row_chunk_blocks(size_t N, size_t C, DType type)
{
    return (unsigned)ceil_div(N * ceil_div(C, 16 / dtype_size(type)), THREADS);
}

static void cuda_embed_forward(Buf out, Buf tokens, Buf pos, Buf wte, Buf wpe, size_t N, size_t C)
{
    NEED(out, N * C); NEED_INDEX(tokens, N); NEED_INDEX(pos, N);
    BY_TYPE(out,
            RUN(embed_forward_kernel<T>, row_chunk_blocks(N, C, out.type), THREADS, 0, at<T>(out), I_(tokens), I_(pos),
                at<T>(wte), at<T>(wpe), N, C));
}

// dtable[index[i]] += dout[i]. The block of the first token with an index adds up all tokens that have it, in their
// order. Each of its warps looks for them by itself, 128 tokens at a time.
template <class T>
__global__ void embed_backward_kernel(float *dtable, const T *dout, const int *index, size_t N, size_t C)
{
    // bytes: N * C * sizeof(T) + 8 * C * different(index, N) + 4 * N; flops: (N + different(index, N)) * C;
    // bound: memory
    enum { W = Wide<T>::n };
    __shared__ int part[WARPS_MAX];
    const size_t first = blockIdx.x, c = ((size_t)blockIdx.y * blockDim.x + threadIdx.x) * W;
    const int mine = index[first];
    auto equal = [&](size_t j, size_t end) { // a bit for each of index[j..j+4) before `end` that is the same
        int four[4];
        int bits = 0;
        const uint4 all = load_bits(index + j, j < end ? end - j : 0);
        memcpy(four, &all, 16);
        for (int k = 0; k < 4; k++) if (j + k < end && four[k] == mine) bits |= 1 << k;
        return bits;
    };
    int earlier = 0;
    for (size_t j = threadIdx.x * 4; j < first; j += blockDim.x * 4) earlier |= equal(j, first);
    if (block_sum(earlier, part)) return;
    float sum[W] = {0};
    for (size_t j = first / 4 * 4; j < N; j += 128) {
        const int bits = equal(j + threadIdx.x % 32 * 4, N);
        for (unsigned lanes = __ballot_sync(0xffffffffu, bits != 0); lanes; lanes &= lanes - 1) {
            const int lane = __ffs((int)lanes) - 1;
            const int there = __shfl_sync(0xffffffffu, bits, lane);
            for (int k = 0; k < 4; k++) {
                if (!(there >> k & 1) || c >= C) continue;
                float d[W];
                load(d, dout + (j + lane * 4 + k) * C + c, C - c);
                for (int e = 0; e < W; e++) sum[e] += d[e];
            }
        }
    }
    for (int k = 0; k < W; k++) if (c + k < C) dtable[(size_t)mine * C + c + k] += sum[k];
}

static void cuda_embed_backward(Buf dwte, Buf dwpe, Buf dout, Buf tokens, Buf pos, size_t N, size_t C)
{
    NEED(dout, N * C);
    const size_t chunks = ceil_div(C, 16 / dtype_size(dout.type)); // of a row, a thread each
    const unsigned threads = chunks < THREADS ? 32 * (unsigned)ceil_div(chunks, 32) : (unsigned)THREADS;
    dim3 grid((unsigned)N, (unsigned)ceil_div(chunks, threads));
    BY_TYPE(dout, RUN(embed_backward_kernel<T>, grid, threads, 0, F_(dwte), at<T>(dout), I_(tokens), N, C));
    if (dwpe.p) BY_TYPE(dout, RUN(embed_backward_kernel<T>, grid, threads, 0, F_(dwpe), at<T>(dout), I_(pos), N, C));
}

// A row is read once and kept in registers, NORM_KEPT elements a thread: so as many warps a row as its width asks for,
// and what comes out of a row does not depend on how many there are. ADD: sum = a + b, or a + (b + c), rounded as it is
// stored, is what is normalised, by `also` too where it is not NULL. Whatever is written may lie over what is read: a
// thread writes where it alone has read.
enum { NORM_KEPT = 32 };
template <class T, int WARPS, bool ALIGNED, bool ADD>
__global__ void __launch_bounds__(WARPS < 4 ? 128 : 32 * WARPS)
    layernorm_forward_kernel(T *sum, T *out, T *also, float *mean, float *rstd, const T *a, const T *b, const T *c,
                             const T *w, const T *bias, const T *also_w, const T *also_bias, size_t N, size_t C,
                             float eps)
{
    // bytes: ((ADD ? 4 + (c ? 1 : 0) + (also ? 1 : 0) : 2) * N + (also ? 4 : 2)) * C * sizeof(T) + 8 * N;
    // flops: N * ((8 + (ADD ? c ? 2 : 1 : 0) + (also ? 4 : 0)) * C + 32 * WARPS * 15); bound: memory
    enum { W = Wide<T>::n, EACH = 32 * WARPS, PER = NORM_KEPT / W };
    __shared__ float part[2][WARPS];
    const size_t i = (size_t)blockIdx.x * (blockDim.x / EACH) + threadIdx.x / EACH, lane = threadIdx.x % EACH;
    if (i >= N) return; // a whole warp, or a block
    const size_t row = i * C;
    uint4 bits[PER], more[PER], third[PER], weight[PER], shift[PER];
    auto fetch = [&](uint4 *to, const T *from) {
        UNROLL
        for (int k = 0; k < PER; k++) {
            size_t at = (k * EACH + lane) * W;
            if (at < C) to[k] = load_bits<ALIGNED>(from + at, C - at);
        }
    };
    fetch(bits, a + row);
    if (ADD) fetch(more, b + row);
    if (ADD && c) fetch(third, c + row);
    const bool early = sizeof(T) == 2; // the weights: on their way while the row is summed up, if registers allow it
    if (early) { fetch(weight, w); fetch(shift, bias); }
    float x[PER][W], m = 0, v = 0;
    UNROLL
    for (int k = 0; k < PER; k++) {
        size_t at = (k * EACH + lane) * W;
        if (at >= C) continue;
        unpack<T>(x[k], bits[k]);
        if (ADD) {
            float y[W], z[W];
            unpack<T>(y, more[k]);
            if (c) {
                unpack<T>(z, third[k]);
                for (int j = 0; j < W; j++) y[j] = (float)(T)(y[j] + z[j]);
            }
            for (int j = 0; j < W; j++) x[k][j] = (float)(T)(x[k][j] + y[j]);
            store<ALIGNED>(sum + row + at, x[k], C - at);
        }
        for (int j = 0; j < W; j++) m += x[k][j];
    }
    auto total = [&](float y, float *of_warps) { // over the row's threads
        y = lanes_sum(y, 32);
        if (WARPS == 1) return y;
        if (lane % 32 == 0) of_warps[lane / 32] = y;
        __syncthreads();
        return lanes_sum(of_warps[lane % WARPS], WARPS);
    };
    m = total(m, part[0]) / (float)C;
    UNROLL
    for (int k = 0; k < PER; k++) {
        size_t at = (k * EACH + lane) * W;
        for (int j = 0; j < W; j++) if (at + (ALIGNED ? 0 : j) < C) v += (x[k][j] - m) * (x[k][j] - m);
    }
    const float s = 1 / sqrtf(total(v, part[1]) / (float)C + eps);
    auto write = [&](T *to) {
        UNROLL
        for (int k = 0; k < PER; k++) {
            size_t at = (k * EACH + lane) * W;
            float y[W], ww[W], bb[W];
            if (at >= C) continue;
            unpack<T>(ww, weight[k]);
            unpack<T>(bb, shift[k]);
            for (int j = 0; j < W; j++) y[j] = (x[k][j] - m) * s * ww[j] + bb[j];
            store<ALIGNED>(to + row + at, y, C - at);
        }
    };
    if (!early) { fetch(weight, w); fetch(shift, bias); }
    write(out);
    if (ADD && also) {
        fetch(weight, also_w);
        fetch(shift, also_bias);
        write(also);
    }
    if (lane == 0) { mean[i] = m; rstd[i] = s; }
}

template <bool ADD>
static void layernorm(Buf sum, Buf mean, Buf rstd, const Norm norm[2], Buf a, Buf b, Buf c, size_t N, size_t C,
                      double eps)
{
    const Norm *also = &norm[1];
    bool aligned = C * dtype_size(a.type) % 16 == 0;
    for (Buf x : {sum, a, b, c, norm->out, norm->w, norm->b, also->out, also->w, also->b})
        aligned = aligned && (uintptr_t)x.p % 16 == 0;
    #define NORM(WARPS, ALIGNED) \
        RUN((layernorm_forward_kernel<T, WARPS, ALIGNED, ADD>), (unsigned)(WARPS < 4 ? ceil_div(N, 4) : N), \
            WARPS < 4 ? 128 : 32 * WARPS, 0, at<T>(sum), at<T>(norm->out), at<T>(also->out), F_(mean), F_(rstd), \
            at<T>(a), at<T>(b), at<T>(c), at<T>(norm->w), at<T>(norm->b), at<T>(also->w), at<T>(also->b), N, C, \
            (float)eps)
    if (aligned && C <= 32 * NORM_KEPT) BY_TYPE(a, NORM(1, true));
    else if (aligned && C <= 4 * 32 * NORM_KEPT) BY_TYPE(a, NORM(4, true));
    else if (C <= 16 * 32 * NORM_KEPT) BY_TYPE(a, NORM(16, false));
    else die("a layer norm of %zu: at most %d", C, 16 * 32 * NORM_KEPT);
    #undef NORM
}

static void cuda_layernorm_forward(Buf out, Buf mean, Buf rstd, Buf inp, Buf w, Buf b, size_t N, size_t C, double eps)
{
    NEED(out, N * C); NEED(mean, N); NEED(rstd, N); NEED(inp, N * C); NEED(w, C); NEED(b, C);
    const Norm norm[2] = {{out, w, b}, {none, none, none}};
    layernorm<false>(none, mean, rstd, norm, inp, none, none, N, C, eps);
}

static void cuda_add_layernorm(Buf sum, Buf mean, Buf rstd, const Norm norm[2], Buf a, Buf b, Buf c, size_t N, size_t C,
                               double eps)
{
    NEED(sum, N * C); NEED(mean, N); NEED(rstd, N); NEED(a, N * C); NEED(b, N * C); NEED(c, N * C);
    for (int i = 0; i < 2; i++) { NEED(norm[i].out, N * C); NEED(norm[i].w, C); NEED(norm[i].b, C); }
    layernorm<true>(sum, mean, rstd, norm, a, b, c, N, C, eps);
}

// dinp += the norm's gradient: with n = (x - m) r and g = w d, dx = r (g - mean(g) - n mean(g n)). A warp a row.
template <class T>
__global__ void layernorm_backward_kernel(T *dinp, const T *dout, const T *inp, const T *w, const float *mean,
                                          const float *rstd, size_t N, size_t C)
{
    // bytes: (4 * N + 1) * C * sizeof(T) + 8 * N; flops: N * (14 * C + 320); bound: memory
    enum { W = Wide<T>::n };
    const size_t i = (size_t)blockIdx.x * (THREADS / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (i >= N) return;
    const float m = mean[i], r = rstd[i];
    float x[W], d[W], ww[W], dx[W], sum = 0, dot = 0;
    for (size_t c = lane * W; c < C; c += 32 * W) {
        load(x, inp + i * C + c, C - c); load(d, dout + i * C + c, C - c); load(ww, w + c, C - c);
        for (int j = 0; j < W; j++) { sum += ww[j] * d[j]; dot += ww[j] * d[j] * (x[j] - m) * r; }
    }
    sum = lanes_sum(sum, 32) / (float)C;
    dot = lanes_sum(dot, 32) / (float)C;
    for (size_t c = lane * W; c < C; c += 32 * W) {
        load(x, inp + i * C + c, C - c);
        load(d, dout + i * C + c, C - c);
        load(ww, w + c, C - c);
        load(dx, dinp + i * C + c, C - c);
        for (int j = 0; j < W; j++) dx[j] += r * (ww[j] * d[j] - sum - (x[j] - m) * r * dot);
        store(dinp + i * C + c, dx, C - c);
    }
}

static void cuda_layernorm_backward(Buf dinp, Buf dw, Buf db, Buf dout, Buf inp, Buf w, Buf mean, Buf rstd, size_t N,
                                    size_t C)
{
    NEED(dinp, N * C); NEED(dw, C); NEED(db, C); NEED(dout, N * C); NEED(inp, N * C); NEED(w, C);
    BY_TYPE(dinp,
            RUN(layernorm_backward_kernel<T>, (unsigned)ceil_div(N, THREADS / 32), THREADS, 0, at<T>(dinp), at<T>(dout),
                at<T>(inp), at<T>(w), F_(mean), F_(rstd), N, C));
    if (dw.p) column_sums(db, dw, dout, inp, mean, rstd, N, C);
}

__device__ inline float activation(float x, Activation kind)
{
    switch (kind) {
    case ACT_GELU_TANH: return 0.5f * x * (1 + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    case ACT_GELU_ERF: return 0.5f * x * (1 + erff(x * 0.70710678f));
    case ACT_RELU: break;
    }
    return fmaxf(x, 0.0f);
}
__device__ inline float activation_gradient(float x, Activation kind)
{
    switch (kind) {
    case ACT_GELU_TANH: {
        float t = tanhf(0.79788456f * (x + 0.044715f * x * x * x));
        return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * 0.79788456f * (1 + 3 * 0.044715f * x * x);
    }
    case ACT_GELU_ERF: return 0.5f * (1 + erff(x * 0.70710678f)) + x * 0.39894228f * expf(-0.5f * x * x);
    case ACT_RELU: break;
    }
    return x > 0 ? 1.0f : 0.0f;
}

template <class T> __global__ void activation_forward_kernel(T *out, const T *inp, Activation kind, size_t n)
{
    // bytes: 2 * n * sizeof(T); flops: n * (kind == ACT_GELU_TANH ? 9 : kind == ACT_GELU_ERF ? 5 : 0); bound: memory
    EACH_CHUNK(i, n);
    float x[W];
    load(x, inp + i, n - i);
    for (int j = 0; j < W; j++) x[j] = activation(x[j], kind);
    store(out + i, x, n - i);
}

template <class T>
__global__ void activation_backward_kernel(T *dinp, const T *dout, const T *inp, Activation kind, size_t n)
{
    // bytes: 3 * n * sizeof(T); flops: n * (kind == ACT_GELU_TANH ? 19 : kind == ACT_GELU_ERF ? 11 : 1); bound: memory
    EACH_CHUNK(i, n);
    float x[W], d[W];
    load(x, inp + i, n - i);
    load(d, dout + i, n - i);
    for (int j = 0; j < W; j++) d[j] *= activation_gradient(x[j], kind);
    store(dinp + i, d, n - i);
}

static void cuda_activation_forward(Buf out, Buf inp, Activation kind, size_t n)
{
    NEED(out, n); NEED(inp, n);
    BY_TYPE(out,
            RUN(activation_forward_kernel<T>, chunk_blocks(n, out.type), THREADS, 0, at<T>(out), at<T>(inp), kind, n));
}

static void cuda_activation_backward(Buf dinp, Buf dout, Buf inp, Activation kind, size_t n)
{
    NEED(dinp, n); NEED(dout, n); NEED(inp, n);
    BY_TYPE(dinp,
            RUN(activation_backward_kernel<T>, chunk_blocks(n, dinp.type), THREADS, 0, at<T>(dinp), at<T>(dout),
                at<T>(inp), kind, n));
}

template <class T> __global__ void add_kernel(T *out, const T *a, const T *b, size_t n)
{
    // bytes: 3 * n * sizeof(T); flops: n; bound: memory
    EACH_CHUNK(i, n);
    float x[W], y[W];
    load(x, a + i, n - i);
    load(y, b + i, n - i);
    for (int j = 0; j < W; j++) x[j] += y[j];
    store(out + i, x, n - i);
}

static void cuda_add(Buf out, Buf a, Buf b, size_t n)
{
    NEED(out, n); NEED(a, n); NEED(b, n);
    BY_TYPE(out, RUN(add_kernel<T>, chunk_blocks(n, out.type), THREADS, 0, at<T>(out), at<T>(a), at<T>(b), n));
}

// A block turns the pairs of all heads of q and k of `each` tokens. A token's angles are found once, in double
// (thousands of radians lose float's digits), and serve all heads.
enum { ROTARY_ANGLES = 512 };
template <class T>
__global__ void rotary_kernel(T *qkv, const int *pos, size_t N, size_t NH, size_t HS, size_t pairs, double base,
                              float sign, size_t each)
{
    // bytes: 8 * N * NH * pairs * sizeof(T); flops: N * pairs * (12 * NH + 6); bound: memory
    __shared__ float cosine[ROTARY_ANGLES], sine[ROTARY_ANGLES];
    const size_t first = blockIdx.x * each, n = N - first < each ? N - first : each;
    for (size_t k = threadIdx.x; k < n * pairs; k += THREADS) {
        double angle = pos[first + k / pairs] * pow(base, -(double)(k % pairs) / (double)pairs);
        cosine[k] = (float)cos(angle);
        sine[k] = sign * (float)sin(angle);
    }
    __syncthreads();
    for (size_t k = threadIdx.x; k < n * 2 * NH * pairs; k += THREADS) {
        size_t j = k % pairs, h = k / pairs % (2 * NH), i = k / pairs / (2 * NH);
        T *a = qkv + (first + i) * 3 * NH * HS + h * HS + j;
        float x = (float)a[0], y = (float)a[pairs], c = cosine[i * pairs + j], s = sine[i * pairs + j];
        a[0] = (T)(x * c - y * s);
        a[pairs] = (T)(y * c + x * s);
    }
}

static void cuda_rotary(Buf qkv, Buf pos, size_t N, size_t NH, size_t HS, size_t dims, double base, bool inverse)
{
    NEED(qkv, 3 * N * NH * HS); NEED_INDEX(pos, N);
    if (dims < 2) return;
    if (dims > 2 * ROTARY_ANGLES) die("%zu rotary dimensions: at most %d", dims, 2 * ROTARY_ANGLES);
    size_t most = ROTARY_ANGLES / (dims / 2), each = N <= 2048 ? 1 : most < 8 ? most : 8;
    BY_TYPE(qkv,
            RUN(rotary_kernel<T>, (unsigned)ceil_div(N, each), THREADS, 0, at<T>(qkv), I_(pos), N, NH, HS, dims / 2,
                base, inverse ? -1.0f : 1.0f, each));
}

// ----------------------------------------------------------------------------
// attention in tiles. A block of 16 x 16 threads owns TILE = 16 M packed positions of one head and walks over tiles of
// the others. Tiles of vectors lie in shared memory as TILE rows of HS floats (HS: the head size rounded up to 64, 128
// or 256; what is over is 0) with a stride of HS + 4; tiles of scores with TILE + 4: so a quarter of a warp that reads
// 16 bytes of each of 8 rows touches every bank once. Thread (ty, tx) has rows ty M + i; of the scores columns tx + 16
// j; of the vectors columns 4 tx + 64 g + 0..3, kept at [i][4 g + 0..3].

#define QUERY_ROW(i) (ty * M + (i))
#define SCORE_COLUMN(j) (tx + 16 * (j))
#define VECTOR_COLUMN(g) (4 * tx + 64 * (g))

// rows [first, first + TILE) of a head's vectors into shared memory; rows from `end` on are 0
template <class T, int HS, int M>
__device__ inline void tile_load(float *tile, const T *head, size_t stride, size_t first, size_t end, size_t hs)
{
    enum { W = Wide<T>::n, CHUNKS = HS / W };
    for (int k = threadIdx.x; k < 16 * M * CHUNKS; k += THREADS) {
        size_t r = k / CHUNKS, c = k % CHUNKS * W;
        float x[W] = {0};
        if (first + r < end && c < hs) load(x, head + (first + r) * stride + c, hs - c);
        for (int j = 0; j < W; j += 4)
            *(float4 *)(tile + r * (HS + 4) + c + j) = make_float4(x[j], x[j + 1], x[j + 2], x[j + 3]);
    }
}

// s[i][j] = row QUERY_ROW(i) of a . row SCORE_COLUMN(j) of b
template <int HS, int M> __device__ inline void tile_dot(float s[M][M], const float *a, const float *b, int tx, int ty)
{
    for (int i = 0; i < M; i++) for (int j = 0; j < M; j++) s[i][j] = 0;
    for (int c = 0; c < HS; c += 4) {
        float4 x[M], y[M];
        for (int i = 0; i < M; i++) x[i] = *(const float4 *)(a + QUERY_ROW(i) * (HS + 4) + c);
        for (int j = 0; j < M; j++) y[j] = *(const float4 *)(b + SCORE_COLUMN(j) * (HS + 4) + c);
        for (int i = 0; i < M; i++)
            for (int j = 0; j < M; j++)
                s[i][j] += x[i].x * y[j].x + x[i].y * y[j].y + x[i].z * y[j].z + x[i].w * y[j].w;
    }
}

// acc += w (TILE,TILE) x (TILE,HS)
template <int HS, int M>
__device__ inline void tile_multiply(float acc[M][HS / 16], const float *w, const float *x, int tx, int ty)
{
    for (int k = 0; k < 16 * M; k++)
        for (int g = 0; g < HS / 64; g++) {
            float4 v = *(const float4 *)(x + k * (HS + 4) + VECTOR_COLUMN(g));
            for (int i = 0; i < M; i++) {
                float p = w[QUERY_ROW(i) * (16 * M + 4) + k];
                acc[i][4 * g] += p * v.x;
                acc[i][4 * g + 1] += p * v.y;
                acc[i][4 * g + 2] += p * v.z;
                acc[i][4 * g + 3] += p * v.w;
            }
        }
}

// acc, each row i times factor[i], to the block's rows of a head's vectors
template <class T, int HS, int M>
__device__ inline void tile_store(T *head, size_t stride, size_t first, size_t end, size_t hs, float acc[M][HS / 16],
                                  const float *factor, int tx, int ty)
{
    for (int i = 0; i < M; i++)
        for (int j = 0; j < HS / 16; j++) {
            size_t r = first + QUERY_ROW(i), c = VECTOR_COLUMN(j / 4) + j % 4;
            if (r < end && c < hs) head[r * stride + c] = (T)(acc[i][j] * factor[i]);
        }
}

// Of each of a tile's positions, which positions of the other kind it is paired with: [low, high). QUERIES: the keys a
// query sees; else: the queries that see a key. A tile's lows and highs ascend.
template <bool QUERIES, int TILE>
__device__ inline void tile_partners(int *low, int *high, const int *start, size_t B, size_t N, size_t first,
                                     bool causal)
{
    if (threadIdx.x >= TILE) return;
    size_t i = first + threadIdx.x, row = row_of(start, B, N, i < N ? i : N - 1);
    low[threadIdx.x] = i >= N ? (int)N : !QUERIES && causal ? (int)i : start[row];
    high[threadIdx.x] = i >= N ? 0 : QUERIES && causal ? (int)i + 1 : start[row + 1];
}

template <class T, int HS, int M>
__global__ void __launch_bounds__(THREADS)
    attention_forward_kernel(T *out, float *lse, const T *qkv, const int *start, size_t B, size_t N, size_t NH,
                             size_t hs, bool causal, float scale)
{
    // bytes: 4 * N * NH * hs * sizeof(T) + 4 * N * NH;
    // flops: (4 * HS + 6) * NH * tile_pairs(start, B, N, 16 * M, 16 * M, 16 * M, causal, false); bound: shared memory
    enum { TILE = 16 * M };
    DYNAMIC_SHARED(float, shared);
    float *q = shared, *kv = q + TILE * (HS + 4), *p = kv + TILE * (HS + 4); // kv: keys, then values
    __shared__ int low[TILE], high[TILE];
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    const size_t C = NH * hs, h = blockIdx.y, first = (size_t)blockIdx.x * TILE,
                 n = N - first < TILE ? N - first : (size_t)TILE;
    const T *head = qkv + h * hs;
    tile_partners<true, TILE>(low, high, start, B, N, first, causal);
    tile_load<T, HS, M>(q, head, 3 * C, first, N, hs);
    __syncthreads();
    float o[M][HS / 16] = {{0}}, most[M], sum[M];
    for (int i = 0; i < M; i++) { most[i] = -INFINITY; sum[i] = 0; }
    for (size_t k0 = low[0], end = high[n - 1]; k0 < end; k0 += TILE) {
        tile_load<T, HS, M>(kv, head + C, 3 * C, k0, N, hs);
        __syncthreads();
        float s[M][M];
        tile_dot<HS, M>(s, q, kv, tx, ty);
        __syncthreads(); // the keys are read
        tile_load<T, HS, M>(kv, head + 2 * C, 3 * C, k0, N, hs);
        for (int i = 0; i < M; i++) {
            float m = most[i], row_sum = 0;
            for (int j = 0; j < M; j++) {
                int k = (int)k0 + SCORE_COLUMN(j);
                s[i][j] = k >= low[QUERY_ROW(i)] && k < high[QUERY_ROW(i)] ? s[i][j] * scale : -INFINITY;
                m = fmaxf(m, s[i][j]);
            }
            m = lanes_max(m, 16);
            for (int j = 0; j < M; j++) {
                float e = s[i][j] > -INFINITY ? expf(s[i][j] - m) : 0;
                p[QUERY_ROW(i) * (TILE + 4) + SCORE_COLUMN(j)] = e;
                row_sum += e;
            }
            float shrink = most[i] > -INFINITY ? expf(most[i] - m) : 0;
            most[i] = m;
            sum[i] = sum[i] * shrink + lanes_sum(row_sum, 16);
            for (int j = 0; j < HS / 16; j++) o[i][j] *= shrink;
        }
        __syncthreads(); // values and weights are there
        tile_multiply<HS, M>(o, p, kv, tx, ty);
        __syncthreads(); // and read
    }
    float inverse[M];
    for (int i = 0; i < M; i++) {
        inverse[i] = 1 / sum[i];
        if (tx == 0 && first + QUERY_ROW(i) < N) lse[(first + QUERY_ROW(i)) * NH + h] = most[i] + logf(sum[i]);
    }
    tile_store<T, HS, M>(out + h * hs, C, first, N, hs, o, inverse, tx, ty);
}

// What the backward pass knows of a query in a head: of its softmax the log-sum-exp, and delta = out . dout, which is
// sum_j p_j dp_j. about (NH,N): a head's are side by side. TEAM lanes a token and head.
typedef struct __align__(8) { float lse, delta; } QueryState;
template <class T>
__global__ void attention_delta_kernel(QueryState *about, const T *out, const T *dout, const float *lse, size_t N,
                                       size_t NH, size_t hs)
{
    enum { W = Wide<T>::n, TEAM = 8 };
    // bytes: N * NH * (2 * hs * sizeof(T) + 12); flops: N * NH * (2 * ((hs + W - 1) / W * W) + 24); bound: memory
    const size_t k = (size_t)blockIdx.x * (THREADS / TEAM) + threadIdx.x / TEAM, lane = threadIdx.x % TEAM;
    const bool there = k < N * NH;
    float dot = 0;
    for (size_t c = lane * W; there && c < hs; c += TEAM * W) {
        float x[W], d[W];
        load(x, out + k * hs + c, hs - c);
        load(d, dout + k * hs + c, hs - c);
        for (int j = 0; j < W; j++) dot += x[j] * d[j];
    }
    dot = lanes_sum(dot, TEAM);
    QueryState q = {there ? lse[k] : 0, dot};
    if (there && lane == 0) about[k % NH * N + k / NH] = q;
}

// Backward, run twice: KEYS: a block owns keys and values and walks over the queries that see them, for dk and dv; else
// it owns queries and walks over the keys, for dq. Either way with (a, b) = the block's own (k, v) or (q, dout) and (x,
// y) = the others' (q, dout) or (k, v): p = exp(a.x scale - lse), ds = p (b.y - delta) scale, da += ds x, and for KEYS
// db += p y.
template <class T, int HS, int M, bool KEYS>
__global__ void __launch_bounds__(THREADS)
    attention_backward_kernel(T *dqkv, const T *dout, const QueryState *about, const T *qkv, const int *start,
                              size_t B, size_t N, size_t NH, size_t hs, bool causal, float scale)
{
    // bytes: (KEYS ? 6 : 5) * N * NH * hs * sizeof(T) + 8 * N * NH;
    // flops: (KEYS ? 8 : 6) * (HS + 1) * NH * tile_pairs(start, B, N, 16 * M, 16 * M, 16 * M, causal, KEYS);
    // bound: shared memory
    enum { TILE = 16 * M, VECTORS = TILE * (HS + 4), SCORES = TILE * (TILE + 4) };
    DYNAMIC_SHARED(float, shared);
    float *a = shared, *b = a + VECTORS, *x = b + VECTORS, *y = x + VECTORS, *p = y + VECTORS, *ds = p + SCORES;
    __shared__ int low[TILE], high[TILE];
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    const size_t C = NH * hs, h = blockIdx.y, first = (size_t)blockIdx.x * TILE,
                 n = N - first < TILE ? N - first : (size_t)TILE;
    const T *q = qkv + h * hs, *d = dout + h * hs;
    tile_partners<!KEYS, TILE>(low, high, start, B, N, first, causal);
    tile_load<T, HS, M>(a, KEYS ? q + C : q, 3 * C, first, N, hs);
    tile_load<T, HS, M>(b, KEYS ? q + 2 * C : d, KEYS ? 3 * C : C, first, N, hs);
    __syncthreads();
    float da[M][HS / 16] = {{0}}, db[M][HS / 16] = {{0}};
    for (size_t t0 = low[0], end = high[n - 1]; t0 < end; t0 += TILE) {
        tile_load<T, HS, M>(x, KEYS ? q : q + C, 3 * C, t0, N, hs);
        tile_load<T, HS, M>(y, KEYS ? d : q + 2 * C, KEYS ? C : 3 * C, t0, N, hs);
        __syncthreads();
        float s[M][M], dp[M][M];
        tile_dot<HS, M>(s, a, x, tx, ty);
        tile_dot<HS, M>(dp, b, y, tx, ty);
        for (int i = 0; i < M; i++)
            for (int j = 0; j < M; j++) {
                int t = (int)t0 + SCORE_COLUMN(j), at_ = QUERY_ROW(i) * (TILE + 4) + SCORE_COLUMN(j);
                bool pair = t >= low[QUERY_ROW(i)] && t < high[QUERY_ROW(i)];
                size_t query = pair ? h * N + (KEYS ? (size_t)t : first + QUERY_ROW(i)) : 0;
                float w = pair ? expf(s[i][j] * scale - about[query].lse) : 0;
                if (KEYS) p[at_] = w;
                ds[at_] = pair ? w * (dp[i][j] - about[query].delta) * scale : 0;
            }
        __syncthreads(); // weights are there
        tile_multiply<HS, M>(da, ds, x, tx, ty);
        if (KEYS) tile_multiply<HS, M>(db, p, y, tx, ty);
        __syncthreads(); // and read
    }
    float one[M];
    for (int i = 0; i < M; i++) one[i] = 1;
    tile_store<T, HS, M>(dqkv + h * hs + (KEYS ? C : 0), 3 * C, first, N, hs, da, one, tx, ty);
    if (KEYS) tile_store<T, HS, M>(dqkv + h * hs + 2 * C, 3 * C, first, N, hs, db, one, tx, ty);
}

// The same on tensor cores (mma.sync m16n8k16; tensor_core.h says which lane holds what). A block of 4 warps owns 64
// positions, 16 a warp, and walks over tiles of TILE others. Tiles lie in shared memory as rows of HS (the head size,
// rounded up) elements of 16 bits with a stride of HS + 8, which spreads the 8 rows of a matrix over all banks. A
// warp's scores s[n] are 16 x 8 for the others 8 n..8 n + 7; rounded, they are the next product's left side as they
// are.

// Elements E of a product's factors, of memory's type T. Of float half precision, which has as many bits of fraction as
// TF32, 10; it ends at 65504, where no query, key or value is.
template <class T> struct Factor { typedef bf16 type; };
template <> struct Factor<float> { typedef __half type; };

enum { MMA_THREADS = 128, MMA_ROWS = 64 };
#define LOG2_E 1.4426950408889634f

// Begins to load rows [first, first + ROWS) of a head's vectors; those from `end` on are 0. They are there after
// copy_commit, copy_wait and __syncthreads. (What is not aligned, or must be converted, is loaded at once.)
template <int HS, int ROWS, class E, class T>
__device__ inline void mma_load(E *tile, const T *head, size_t stride, size_t first, size_t end, size_t hs)
{
    const bool aligned = hs % 8 == 0 && stride % 8 == 0 && (uintptr_t)head % 16 == 0; // the same for all
    for (int k = threadIdx.x; k < ROWS * (HS / 8); k += MMA_THREADS) {
        size_t r = k / (HS / 8), c = k % (HS / 8) * 8;
        const bool there = first + r < end && c < hs;
        const T *from = there ? head + (first + r) * stride + c : head;
        E *to = tile + r * (HS + 8) + c;
        if (sizeof(T) == 2 && aligned) { copy_async(to, from, there); continue; }
        float x[8] = {0};
        for (size_t j = 0; there && j < 8 && c + j < hs; j += Wide<T>::n) load(x + j, from + j, hs - c - j);
        store(to, x, 8);
    }
}

// s (16, TILE) = 16 rows of a . rows of x
template <int HS, int TILE, class E>
__device__ inline void mma_dot(float s[TILE / 8][4], const E *a, const E *x)
{
    const int lane = threadIdx.x % 32;
    UNROLL
    for (int n = 0; n < TILE / 8; n++) for (int e = 0; e < 4; e++) s[n][e] = 0;
    UNROLL_BY(HS <= 80 ? HS / 16 : 2) // more would not fit the registers of the backward pass
    for (int c = 0; c < HS; c += 16) {
        uint32_t left[4], right[4];
        ldmatrix_x4(left, a + lane % 16 * (HS + 8) + c + lane / 16 * 8);
        UNROLL
        for (int n = 0; n < TILE / 8; n += 2) {
            ldmatrix_x4(right, x + (n * 8 + lane / 16 * 8 + lane % 8) * (HS + 8) + c + lane / 8 % 2 * 8);
            mma_m16n8k16<E>(s[n], left, right);
            mma_m16n8k16<E>(s[n + 1], left, right + 2);
        }
    }
}

template <class E> __device__ inline uint32_t two(float low, float high)
{
    E pair[2] = {(E)low, (E)high};
    uint32_t bits;
    memcpy(&bits, (const void *)pair, 4);
    return bits;
}

// acc (16, HS) += w (16, TILE) x
template <int HS, int TILE, class E>
__device__ inline void mma_multiply(float acc[HS / 8][4], const float w[TILE / 8][4], const E *x)
{
    const int lane = threadIdx.x % 32;
    UNROLL
    for (int n = 0; n < TILE / 8; n += 2) {
        uint32_t left[4] = {two<E>(w[n][0], w[n][1]), two<E>(w[n][2], w[n][3]), two<E>(w[n + 1][0], w[n + 1][1]),
                            two<E>(w[n + 1][2], w[n + 1][3])},
                 right[4];
        UNROLL
        for (int c = 0; c < HS / 8; c += 2) {
            ldmatrix_x4_trans(right, x + (n * 8 + lane % 16) * (HS + 8) + c * 8 + lane / 16 * 8);
            mma_m16n8k16<E>(acc[c], left, right);
            mma_m16n8k16<E>(acc[c + 1], left, right + 2);
        }
    }
}

// acc, rows g and g + 8 of it times the two factors, through the warp's own 16 rows of a tile (nobody reads them any
// more) to a head's vectors
template <int HS, class T, class E>
__device__ inline void mma_store(T *head, size_t stride, size_t first, size_t end, size_t hs, float acc[HS / 8][4],
                                 float factor, float factor8, E *rows)
{
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4 * 2;
    UNROLL
    for (int c = 0; c < HS / 8; c++)
        for (int e = 0; e < 4; e++)
            rows[(g + e / 2 * 8) * (HS + 8) + c * 8 + t + e % 2] = (E)(acc[c][e] * (e < 2 ? factor : factor8));
    __syncwarp();
    for (int k = lane; k < 16 * (HS / 8); k += 32) {
        size_t r = k / (HS / 8), c = k % (HS / 8) * 8;
        float x[8];
        if (first + r >= end || c >= hs) continue;
        load(x, rows + r * (HS + 8) + c, 8);
        for (size_t j = 0; j < 8 && c + j < hs; j += Wide<T>::n)
            store(head + (first + r) * stride + c + j, x + j, hs - c - j);
    }
    __syncwarp();
}

// One tile of keys k and values v, the first of them k0, for a warp's 16 queries: an online softmax, in powers of two
// (scale has log2(e) in it). Of the two rows that a lane has, g and g + 8, each sees the keys low[r] <= key < high[r].
template <int HS, int TILE, class E>
__device__ inline void mma_attend(float o[HS / 8][4], float most[2], float sum[2], const E *q, const E *k, const E *v,
                                  int k0, const int low[2], const int high[2], float scale)
{
    const int t = threadIdx.x % 4 * 2;
    float s[TILE / 8][4];
    mma_dot<HS, TILE>(s, q, k);
    UNROLL
    for (int r = 0; r < 2; r++) {
        const bool whole = low[r] <= k0 && k0 + TILE <= high[r];
        float m = most[r], row_sum = 0;
        UNROLL
        for (int i = 0; i < TILE / 8; i++)
            for (int e = 2 * r; e < 2 * r + 2; e++) {
                int key = k0 + 8 * i + t + e % 2;
                s[i][e] = whole || (key >= low[r] && key < high[r]) ? s[i][e] * scale : -INFINITY;
                m = fmaxf(m, s[i][e]);
            }
        m = lanes_max(m, 4);
        const float base = m > -INFINITY ? m : 0; // of a row that sees nothing yet all weights are 0
        UNROLL
        for (int i = 0; i < TILE / 8; i++)
            for (int e = 2 * r; e < 2 * r + 2; e++) {
                s[i][e] = exp2f(s[i][e] - base);
                row_sum += s[i][e];
            }
        float shrink = exp2f(most[r] - base);
        most[r] = m;
        sum[r] = sum[r] * shrink + lanes_sum(row_sum, 4);
        UNROLL
        for (int c = 0; c < HS / 8; c++) for (int e = 2 * r; e < 2 * r + 2; e++) o[c][e] *= shrink;
    }
    mma_multiply<HS, TILE>(o, s, v);
}

// What is left of an online softmax: the warp's rows of out, which begin at `first`, and their log-sum-exp
template <int HS, class T, class E>
__device__ inline void mma_finish(T *out, float *lse, float o[HS / 8][4], const float most[2], const float sum[2],
                                  E *rows, size_t first, size_t N, size_t NH, size_t h, size_t hs)
{
    const int lane = threadIdx.x % 32;
    for (int r = 0; r < 2; r++) {
        size_t row = first + lane / 4 + 8 * r;
        if (lse && lane % 4 == 0 && row < N) lse[row * NH + h] = most[r] / LOG2_E + logf(sum[r]);
    }
    mma_store<HS>(out + h * hs, NH * hs, first, N, hs, o, sum[0] > 0 ? 1 / sum[0] : 0, sum[1] > 0 ? 1 / sum[1] : 0,
                  rows);
}

// What tokens see, in this order: the first plen positions of their prompts' slots of pkv (S,2,NH,positions,HS; NULL:
// no prompts), and (own) the rows of qkv that they are in, causally or whole. So the same walk serves training,
// prompts, responses on prompts, and for decoding the prompts' part alone. A block has 64 queries of a head; it walks
// over the prompt of each run of them that has one prompt, then over the rows. While it works on a tile of keys and
// values the next is on its way. Not own: the walk over a prompt may be cut into gridDim.z parts, each with its out and
// lse; and where there are so many prompts that most of the work would be masked, lse is -infinity:
// attention_decode_kernel sees to them. Bytes: keys and values once per 64 queries; operations: 4 HS for each pair of
// query and key, by mma.
enum { PREFIX_RUNS = 8 };
template <class T, int HS, int TILE>
__global__ void __launch_bounds__(MMA_THREADS, HS <= 64 ? 4 : 2)
    attention_mma_kernel(T *out, float *lse, const T *qkv, const int *start, const T *pkv, const int *pslot,
                         const int *plen, size_t positions, size_t B, size_t N, size_t NH, size_t hs, bool own,
                         bool causal, float scale)
{
    // bytes: (own || few_prompts(start, pslot, B, N, PREFIX_RUNS)) *
    //        ((own ? 4 : 2 * gridDim.z) * N + 2 * prompt_positions(pkv, pslot, plen, B)) * NH * hs * sizeof(T);
    // flops: (own || few_prompts(start, pslot, B, N, PREFIX_RUNS)) *
    //        (own * tile_pairs(start, B, N, 64, 16, TILE, causal, false) +
    //         prompt_pairs(pkv, start, pslot, plen, B, N, TILE)) * 4 * HS * NH; bound: latency
    enum { ROWS = MMA_ROWS * (HS + 8), KEYS = TILE * (HS + 8) };
    typedef typename Factor<T>::type E;
    DYNAMIC_SHARED(E, shared);
    E *q = shared, *tiles = q + ROWS; // keys and values, twice
    __shared__ int low[MMA_ROWS], high[MMA_ROWS], slot[MMA_ROWS], len[MMA_ROWS], runs[WARPS_MAX];
    const int row = threadIdx.x / 32 * 16, g = threadIdx.x % 32 / 4, i = threadIdx.x; // row: the warp's first
    const size_t C = NH * hs, h = blockIdx.y, first = (size_t)blockIdx.x * MMA_ROWS;
    const int n = (int)(N - first < MMA_ROWS ? N - first : (size_t)MMA_ROWS);
    const T *head = qkv + h * hs;
    out += blockIdx.z * N * C;
    if (lse) lse += blockIdx.z * N * NH;
    if (own) tile_partners<true, MMA_ROWS>(low, high, start, B, N, first, causal);
    if (pkv && i < n) {
        size_t b = row_of(start, B, N, first + (size_t)i);
        slot[i] = pslot[b];
        len[i] = plen[b];
    }
    __syncthreads();
    if (!own && block_sum(i > 0 && i < n && slot[i] != slot[i - 1] ? 1 : 0, runs) >= PREFIX_RUNS) {
        if (i < n) lse[(first + (size_t)i) * NH + h] = -INFINITY;
        return;
    }
    mma_load<HS, MMA_ROWS>(q, head, 3 * C, first, N, hs);
    // the walk: queries [from, to) see the keys [k0, end) of these
    const T *keys = NULL;
    size_t values = 0, stride = 0; // the values are so far from the keys, and positions from each other
    int from = 0, to = 0, k0 = 0, end = 0;
    bool rows = false;             // it has come to the rows of qkv
    auto next = [&]() {            // the next tile; false after the last
        for (k0 += TILE; k0 >= end;) {
            if (rows) return false;
            if (pkv && to < n) {
                for (from = to++; to < n && slot[to] == slot[from];) to++;
                int each = (len[from] + TILE - 1) / TILE; // tiles, then positions, of a part
                each = (each + (int)gridDim.z - 1) / (int)gridDim.z * TILE;
                k0 = each * (int)blockIdx.z;
                end = len[from] < k0 + each ? len[from] : k0 + each;
                keys = pkv + ((size_t)slot[from] * 2 * NH + h) * positions * hs;
                values = positions * NH * hs;
                stride = hs;
            } else if (own) {
                rows = true;
                from = 0; to = n;
                k0 = low[0];
                end = high[n - 1];
                keys = head + C;
                values = C;
                stride = 3 * C;
            } else return false;
        }
        E *k = tiles, *v = k + KEYS;
        tiles = tiles == q + ROWS ? tiles + 2 * KEYS : q + ROWS; // where the one after goes
        mma_load<HS, TILE>(k, keys, stride, (size_t)k0, (size_t)end, hs);
        mma_load<HS, TILE>(v, keys + values, stride, (size_t)k0, (size_t)end, hs);
        return true;
    };
    float o[HS / 8][4] = {{0}}, most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}; // of rows g and g + 8
    bool more = next();
    copy_commit();
    while (more) {
        const E *k = tiles == q + ROWS ? tiles + 2 * KEYS : q + ROWS; // the other one
        const int here = k0;
        int see[2], until[2]; // rows g and g + 8 see these keys
        for (int r = 0; r < 2; r++) {
            int j = row + g + 8 * r;
            see[r] = rows ? low[j] : 0;
            until[r] = rows ? high[j] : j >= from && j < to ? end : 0;
        }
        const bool mine = row < to && row + 16 > from; // the same for all of a warp
        copy_wait<0>();
        __syncthreads(); // this tile is there, the one before is read
        more = next();
        copy_commit();
        if (mine)
            mma_attend<HS, TILE>(o, most, sum, q + row * (HS + 8), k, k + KEYS, here, see, until, scale);
    }
    copy_wait<0>();
    __syncthreads(); // the queries are there, where no key was
    mma_finish<HS>(out, lse, o, most, sum, q + row * (HS + 8), first + row, N, NH, h, hs);
}

// as attention_backward_kernel, but for the scale, which da is multiplied by at the end. While a block works on a tile
// of others the next is on its way; one barrier a tile says that this one is there and the one before is read. How many
// blocks a multiprocessor holds is decided by their registers.
template <int HS, int TILE, bool KEYS>
__global__ void __launch_bounds__(MMA_THREADS, HS <= 64 ? (KEYS ? 3 : 4) : HS <= 80 && !KEYS ? 3 : 2)
    attention_backward_mma_kernel(bf16 *dqkv, const bf16 *dout, const QueryState *about, const bf16 *qkv,
                                  const int *start, size_t B, size_t N, size_t NH, size_t hs, bool causal, float scale)
{
    // bytes: (KEYS ? 6 : 5) * N * NH * hs * 2 + 8 * N * NH;
    // flops: (KEYS ? 8 : 6) * HS * NH * tile_pairs(start, B, N, 64, 64, TILE, causal, KEYS); bound: latency
    DYNAMIC_SHARED(bf16, shared);
    enum { OTHERS = 2 * TILE * (HS + 8) };
    bf16 *a = shared, *b = a + MMA_ROWS * (HS + 8), *x = b + MMA_ROWS * (HS + 8), *free = x + OTHERS;
    __shared__ int low[MMA_ROWS], high[MMA_ROWS];
    __shared__ __align__(16) QueryState states[2][TILE]; // KEYS: of two tiles of queries
    const int lane = threadIdx.x % 32, own = threadIdx.x / 32 * 16, g = lane / 4, t = lane % 4 * 2;
    const size_t C = NH * hs, h = blockIdx.y, first = (size_t)blockIdx.x * MMA_ROWS,
                 n = N - first < MMA_ROWS ? N - first : (size_t)MMA_ROWS;
    const bf16 *q = qkv + h * hs, *d = dout + h * hs;
    about += h * N;
    tile_partners<!KEYS, MMA_ROWS>(low, high, start, B, N, first, causal);
    mma_load<HS, MMA_ROWS>(a, KEYS ? q + C : q, 3 * C, first, N, hs);
    mma_load<HS, MMA_ROWS>(b, KEYS ? q + 2 * C : d, KEYS ? 3 * C : C, first, N, hs);
    __syncthreads();
    int see[2], until[2];                  // rows g and g + 8 are paired with these others
    QueryState mine[2], next = {0, 0};     // KEYS: of the next tile's queries this thread's, else of rows g and g + 8
    for (int r = 0; r < 2; r++) {
        const int row = own + g + 8 * r;
        see[r] = low[row];
        until[r] = high[row];
        mine[r] = !KEYS && first + row < N ? about[first + row] : next;
        mine[r].lse *= LOG2_E;
    }
    float da[HS / 8][4] = {{0}}, db[HS / 8][4] = {{0}};
    const size_t begin = low[0], end = high[n - 1];
    auto load_others = [&](bf16 *to, size_t t0) {
        mma_load<HS, TILE>(to, KEYS ? q : q + C, 3 * C, t0, end, hs);
        mma_load<HS, TILE>(to + OTHERS / 2, KEYS ? d : q + 2 * C, KEYS ? C : 3 * C, t0, end, hs);
        if (KEYS && threadIdx.x < TILE && t0 + threadIdx.x < end) next = about[t0 + threadIdx.x];
    };
    load_others(x, begin);
    copy_commit();
    for (size_t t0 = begin, tile = 0; t0 < end; t0 += TILE, tile ^= 1) {
        const bf16 *y = x + OTHERS / 2;
        next.lse *= LOG2_E;
        if (KEYS && threadIdx.x < TILE) states[tile][threadIdx.x] = next;
        copy_wait<0>();
        __syncthreads();
        if (t0 + TILE < end) load_others(free, t0 + TILE);
        copy_commit();
        float s[TILE / 8][4], dp[TILE / 8][4];
        mma_dot<HS, TILE>(s, a + own * (HS + 8), x);
        mma_dot<HS, TILE>(dp, b + own * (HS + 8), y);
        UNROLL
        for (int i = 0; i < TILE / 8; i++) {
            float two[4]; // lse and delta of the queries of two columns
            if (KEYS) unpack<float>(two, load_bits<true>(&states[tile][8 * i + t].lse, 4));
            for (int e = 0; e < 4; e++) {
                const int r = e / 2, other = (int)t0 + 8 * i + t + e % 2;
                const bool pair = other >= see[r] && other < until[r];
                const float lse = KEYS ? two[e % 2 * 2] : mine[r].lse,
                            delta = KEYS ? two[e % 2 * 2 + 1] : mine[r].delta;
                s[i][e] = pair ? exp2f(s[i][e] * (scale * LOG2_E) - lse) : 0;
                dp[i][e] = s[i][e] * (dp[i][e] - delta);
            }
        }
        mma_multiply<HS, TILE>(da, dp, x);
        if (KEYS) mma_multiply<HS, TILE>(db, s, y);
        bf16 *read = x;
        x = free;
        free = read;
    }
    __syncwarp(); // the warp's own rows are read
    mma_store<HS>(dqkv + h * hs + (KEYS ? C : 0), 3 * C, first + own, N, hs, da, scale, scale, a + own * (HS + 8));
    if (KEYS) mma_store<HS>(dqkv + h * hs + 2 * C, 3 * C, first + own, N, hs, db, 1, 1, b + own * (HS + 8));
}

// Runs a statement with HS, the head size rounded up to one that tensor cores have a program for: those of GPT-2 and of
// Pythia 2.8B are among them, for what is beyond a head costs time.
#define BY_MMA_SIZE(hs, ...) do { \
        if ((hs) <= 64) { enum { HS = 64 }; __VA_ARGS__; } \
        else if ((hs) <= 80) { enum { HS = 80 }; __VA_ARGS__; } \
        else if ((hs) <= 128) { enum { HS = 128 }; __VA_ARGS__; } \
        else if ((hs) <= 256) { enum { HS = 256 }; __VA_ARGS__; } \
        else die("head size %zu: at most 256", hs); \
    } while (0)

// Runs a statement with HS, the head size rounded up, and with M, the tile's height over 16, as shared memory allows.
#define BY_HEAD_SIZE(hs, m64, m128, m256, ...) do { \
        if ((hs) <= 64) { enum { HS = 64, M = m64 }; __VA_ARGS__; } \
        else if ((hs) <= 128) { enum { HS = 128, M = m128 }; __VA_ARGS__; } \
        else if ((hs) <= 256) { enum { HS = 256, M = m256 }; __VA_ARGS__; } \
        else die("head size %zu: at most 256", hs); \
    } while (0)

static dim3 tiles(size_t N, size_t tile, size_t NH) { return dim3((unsigned)ceil_div(N, tile), (unsigned)NH); }

// attention_mma_kernel over N queries, a prompt's walk in `parts`
template <class T>
static void attention_mma(T *out, float *lse, Buf qkv, Buf start, Buf pkv, Buf pslot, Buf plen, size_t TP, size_t B,
                          size_t N, size_t NH, size_t HS_, bool own, bool causal, size_t parts)
{
    dim3 grid((unsigned)ceil_div(N, MMA_ROWS), (unsigned)NH, (unsigned)parts);
    float scale = LOG2_E / sqrtf((float)HS_);
    #define ATTEND(HS, TILE) \
        RUN((attention_mma_kernel<T, HS, TILE>), grid, MMA_THREADS, \
            (MMA_ROWS + 4 * TILE) * (HS + 8) * sizeof(typename Factor<T>::type), out, lse, at<T>(qkv), I_(start), \
            at<T>(pkv), I_(pslot), I_(plen), TP, B, N, NH, HS_, own, causal, scale)
    if constexpr (sizeof(T) == 4) ATTEND(64, 64); // DistilBERT's
    else BY_MMA_SIZE(HS_, { enum { TILE = HS <= 64 ? 64 : 32 }; ATTEND(HS, TILE); }); // two blocks at a time fit
    #undef ATTEND
}

static void cuda_attention_forward(Buf out, Buf lse, Buf qkv, Buf start, size_t B, size_t N, size_t NH, size_t HS_,
                                   bool causal)
{
    NEED(out, N * NH * HS_); NEED(lse, N * NH); NEED(qkv, 3 * N * NH * HS_); NEED_INDEX(start, B + 1);
    float scale = (float)(1 / sqrt((double)HS_));
    if (qkv.type == DT_BF16)
        attention_mma(at<bf16>(out), F_(lse), qkv, start, Buf{}, Buf{}, Buf{}, 0, B, N, NH, HS_, true, causal, 1);
    else
        BY_HEAD_SIZE(HS_, 4, 2, 1,
                     RUN((attention_forward_kernel<float, HS, M>), tiles(N, 16 * M, NH), THREADS,
                         (2 * 16 * M * (HS + 4) + 16 * M * (16 * M + 4)) * sizeof(float), at<float>(out), F_(lse),
                         at<float>(qkv), I_(start), B, N, NH, HS_, causal, scale));
}

// As products of float in bfloat16 runs: on tensor cores
static void cuda_attention_forward_tf32(Buf out, Buf lse, Buf qkv, Buf start, size_t B, size_t N, size_t NH, size_t HS_,
                                        bool causal)
{
    if (qkv.type != DT_F32 || HS_ > 64) return cuda_attention_forward(out, lse, qkv, start, B, N, NH, HS_, causal);
    NEED(out, N * NH * HS_); NEED(lse, N * NH); NEED(qkv, 3 * N * NH * HS_); NEED_INDEX(start, B + 1);
    attention_mma(F_(out), F_(lse), qkv, start, none, none, none, 0, B, N, NH, HS_, true, causal, 1);
}

static void cuda_attention_backward(Buf dqkv, Buf dout, Buf out, Buf lse, Buf qkv, Buf start, size_t B, size_t N,
                                    size_t NH, size_t HS_, bool causal)
{
    NEED(dqkv, 3 * N * NH * HS_);
    NEED(dout, N * NH * HS_);
    NEED(out, N * NH * HS_);
    NEED(lse, N * NH);
    NEED(qkv, 3 * N * NH * HS_);
    NEED_INDEX(start, B + 1);
    QueryState *about = (QueryState *)scratch(&scratch_1, N * NH * sizeof *about);
    const float scale = (float)(1 / sqrt((double)HS_));
    BY_TYPE(qkv,
            RUN(attention_delta_kernel<T>, (unsigned)ceil_div(N * NH, THREADS / 8), THREADS, 0, about, at<T>(out),
                at<T>(dout), F_(lse), N, NH, HS_));
#define BACKWARD(T, HS, M, keys) \
    RUN((attention_backward_kernel<T, HS, M, keys>), tiles(N, 16 * M, NH), THREADS, \
        (4 * 16 * M * (HS + 4) + 2 * 16 * M * (16 * M + 4)) * sizeof(float), at<T>(dqkv), at<T>(dout), about, \
        at<T>(qkv), I_(start), B, N, NH, HS_, causal, scale)
#define BACKWARD_MMA(HS, keys) \
    RUN((attention_backward_mma_kernel<HS, 32, keys>), tiles(N, MMA_ROWS, NH), MMA_THREADS, \
        2 * (MMA_ROWS + 2 * 32) * (HS + 8) * sizeof(bf16), at<bf16>(dqkv), at<bf16>(dout), about, \
        at<bf16>(qkv), I_(start), B, N, NH, HS_, causal, scale)
    if (qkv.type == DT_F32)
        BY_HEAD_SIZE(HS_, 2, 2, 1, {
            BACKWARD(float, HS, M, true);
            BACKWARD(float, HS, M, false);
        });
    else if (HS_ <= 64) { BACKWARD_MMA(64, true); BACKWARD_MMA(64, false); }
    else if (HS_ <= 80) { BACKWARD_MMA(80, true); BACKWARD_MMA(80, false); }
    else if (HS_ <= 128) { BACKWARD_MMA(128, true); BACKWARD_MMA(128, false); }
    // two accumulators of mma.sync's do not fit the registers
    else if (HS_ <= 256) { BACKWARD(bf16, 256, 1, true); BACKWARD(bf16, 256, 1, false); }
    else die("head size %zu: at most 256", HS_);
    #undef BACKWARD
    #undef BACKWARD_MMA
}

// ----------------------------------------------------------------------------
// decoding: kv is (S, 2, NH, T, HS): of a slot all keys, then all values, each head's positions side by side

// The new tokens' keys and values into their slots. A thread a chunk.
template <class T>
__global__ void kv_store_kernel(T *kv, const T *qkv, const int *start, const int *slot, const int *len,
                                size_t positions, size_t B, size_t N, size_t NH, size_t hs)
{
    // bytes: 4 * N * NH * hs * sizeof(T); flops: 0; bound: memory
    enum { W = Wide<T>::n };
    const size_t chunks = (hs + W - 1) / W, k = (size_t)blockIdx.x * blockDim.x + threadIdx.x, c = k % chunks * W,
                 part = k / chunks % (2 * NH), i = k / chunks / (2 * NH);
    if (i >= N) return;
    const size_t b = row_of(start, B, N, i), t = (len ? (size_t)len[b] : 0) + i - (size_t)start[b];
    float x[W];
    load(x, qkv + i * 3 * NH * hs + (NH + part) * hs + c, hs - c); // part: k's heads, then v's, as in the cache
    store(kv + (((size_t)slot[b] * 2 * NH + part) * positions + t) * hs + c, x, hs - c);
}

// A TEAM of threads, a block's or a warp's, a token and head. What the prompts give may be there already, in `parts` of
// attention_mma_kernel's: out of the prompt's positions alone (parts,N,NH,hs), and lse (parts,N,NH); where no lse is
// finite, the prompt is left to this kernel. keeps: the token is its row's only new one, and its key and value are not
// in the cache yet, but put there. Groups of LANES threads take every GROUPS-th position and keep an online softmax
// each, the next position's key and value on their way meanwhile, and in the end every GROUPS-th part; then a warp's
// groups are added up by shuffles, a block's warps in shared memory. Bytes: the keys and values of every token's own
// response.
template <class T, int HS, bool ALIGNED, int TEAM>
__global__ void __launch_bounds__(128)
    attention_decode_kernel(T *out, const T *prompts, const float *lse, int parts, T *kv, bool keeps, const T *qkv,
                            const int *start, const int *slot, const int *len, size_t positions, const T *pkv,
                            const int *pslot, const int *plen, size_t prefix_positions, size_t B, size_t N, size_t NH,
                            size_t hs, float scale)
{
    enum { W = Wide<T>::n, LANES = HS / W < 32 ? HS / W : 32, PER = HS / W / LANES, GROUPS = TEAM / LANES };
    // bytes: (2 * seen(start, NULL, len, B, N, 1) + 2 * prompt_positions(parts ? NULL : pkv, pslot, plen, B) +
    //         (keeps ? 4 : 2) * N + parts * N) * NH * hs * sizeof(T);
    // flops: ((seen(start, parts || !pkv ? NULL : plen, len, B, N, GROUPS) * (2 * HS + 5 * LANES) +
    //          seen(start, parts || !pkv ? NULL : plen, len, B, N, 1) * (3 * HS + 6 * LANES) +
    //          N * (GROUPS * HS + 3 * TEAM + 32 / LANES / 2 * TEAM * (PER * W + 1) +
    //               (TEAM == 32 ? GROUPS * HS : 16 * TEAM + 17 * hs) + parts * (3 * LANES + 2 * hs)))) * NH;
    // bound: memory
    __shared__ __align__(16) float out_of[TEAM > 32 ? 4 : 1][HS];
    __shared__ float most_of[4], sum_of[4];
    const unsigned team = threadIdx.x / TEAM, me = threadIdx.x % TEAM, pair = blockIdx.x * (128 / TEAM) + team;
    const unsigned lane = me % LANES, group = me / LANES, width = (unsigned)hs;
    const size_t i = pair / (unsigned)NH, h = pair % (unsigned)NH;
    if (i >= N) return;
    const size_t b = keeps ? i : row_of(start, B, N, i);
    const float *of_part = lse + i * NH + h; // part s's: N NH s further
    float far = -INFINITY;
    for (int s = 0; s < parts; s++) far = fmaxf(far, of_part[s * N * NH]);
    const unsigned before = pkv && !(far > -INFINITY) ? (unsigned)plen[b] : 0,
                   see = before + (len ? (unsigned)len[b] : 0) + (unsigned)i - (unsigned)start[b] + 1;
    const T *shared = before ? pkv + ((size_t)pslot[b] * 2 * NH + h) * prefix_positions * hs : NULL,
            *token = qkv + (i * 3 * NH + h) * hs;
    T *own = kv + ((size_t)slot[b] * 2 * NH + h) * positions * hs;
    const unsigned chunks = (width + W - 1) / W;
    for (unsigned k = me; keeps && k < 2 * chunks; k += TEAM) { // the token's key, then its value
        const unsigned c = k % chunks * W, value = k / chunks;
        float x[W];
        unpack<T>(x, load_bits<ALIGNED>(token + (1 + value) * NH * hs + c, width - c));
        store<ALIGNED>(own + (size_t)(see - 1 - before) * hs + value * positions * NH * hs + c, x, width - c);
    }
    uint4 key[PER], value[PER];
    auto fetch = [&](unsigned j) { // position j's, if it is there
        const bool prompt = j < before, last = keeps && j + 1 == see;
        const T *k = prompt ? shared + j * width : last ? token + NH * hs : own + (j - before) * width,
                *v = k + (prompt ? prefix_positions : last ? 1 : positions) * NH * hs;
        UNROLL
        for (int u = 0; u < PER; u++) {
            unsigned c = (u * LANES + lane) * W;
            key[u] = value[u] = make_uint4(0, 0, 0, 0);
            if (j >= see || c >= width) continue;
            key[u] = load_bits<ALIGNED>(k + c, width - c);
            value[u] = load_bits<ALIGNED>(v + c, width - c);
        }
    };
    fetch(group);
    float q[PER][W], o[PER][W], most = -INFINITY, sum = 0;
    UNROLL
    for (int u = 0; u < PER; u++) {
        unsigned c = (u * LANES + lane) * W;
        for (int j = 0; j < W; j++) q[u][j] = o[u][j] = 0;
        if (c < width) unpack<T>(q[u], load_bits<ALIGNED>(token + c, width - c));
    }
    for (unsigned j0 = 0; j0 < see; j0 += GROUPS) {
        float dot = 0, v[PER][W];
        UNROLL
        for (int u = 0; u < PER; u++) {
            float k[W];
            unpack<T>(k, key[u]);
            unpack<T>(v[u], value[u]);
            for (int e = 0; e < W; e++) dot += q[u][e] * k[e];
        }
        fetch(j0 + GROUPS + group);
        dot = lanes_sum(dot, LANES) * scale;
        if (j0 + group >= see) continue;
        float m = fmaxf(most, dot), shrink = expf(most - m), p = expf(dot - m); // at first expf(-inf) = 0
        most = m;
        sum = sum * shrink + p;
        UNROLL
        for (int u = 0; u < PER; u++) for (int e = 0; e < W; e++) o[u][e] = o[u][e] * shrink + p * v[u][e];
    }
    float m = most; // of the warp; in a block's a warp may have seen nothing
    for (int s = (int)group; s < parts; s += GROUPS) m = fmaxf(m, of_part[s * N * NH]);
    for (int d = 16; d >= LANES; d /= 2) m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, d));
    const float base = m > -INFINITY ? m : 0, shrink = expf(most - base);
    sum *= shrink;
    UNROLL
    for (int u = 0; u < PER; u++) for (int e = 0; e < W; e++) o[u][e] *= shrink;
    for (int s = (int)group; s < parts; s += GROUPS) {
        const float l = of_part[s * N * NH], p = expf(l - base);
        if (!(l > -INFINITY)) continue; // and nothing is there
        sum += p;
        UNROLL
        for (int u = 0; u < PER; u++) {
            unsigned c = (u * LANES + lane) * W;
            float x[W];
            if (c >= width) continue;
            unpack<T>(x, load_bits<ALIGNED>(prompts + ((s * N + i) * NH + h) * hs + c, width - c));
            for (int e = 0; e < W; e++) o[u][e] += p * x[e];
        }
    }
    for (int d = 16; d >= LANES; d /= 2) {
        sum += __shfl_xor_sync(0xffffffffu, sum, d);
        UNROLL
        for (int u = 0; u < PER; u++)
            for (int e = 0; e < W; e++) o[u][e] += __shfl_xor_sync(0xffffffffu, o[u][e], d);
    }
    T *to = out + (i * NH + h) * hs;
    if (TEAM == 32) {
        UNROLL
        for (int u = 0; u < PER; u++) {
            unsigned c = (u * LANES + lane) * W;
            for (int e = 0; e < W; e++) o[u][e] /= sum;
            if (group == 0 && c < width) store<ALIGNED>(to + c, o[u], width - c);
        }
        return;
    }
    const unsigned warp = threadIdx.x / 32;
    if (me % 32 < LANES) {
        UNROLL
        for (int u = 0; u < PER; u++)
            for (int e = 0; e < W; e += 4)
                *(float4 *)(out_of[warp] + (u * LANES + lane) * W + e) =
                    make_float4(o[u][e], o[u][e + 1], o[u][e + 2], o[u][e + 3]);
    }
    if (me % 32 == 0) { most_of[warp] = m; sum_of[warp] = sum; }
    __syncthreads();
    float all = most_of[0], total = 0; // the first warp saw at least one position
    for (int w = 1; w < 4; w++) all = fmaxf(all, most_of[w]);
    for (int w = 0; w < 4; w++) total += sum_of[w] * expf(most_of[w] - all);
    for (unsigned c = me; c < width; c += TEAM) {
        float x = 0;
        for (int w = 0; w < 4; w++) x += out_of[w][c] * expf(most_of[w] - all);
        to[c] = (T)(x / total);
    }
}

enum { DECODE_MANY = 4096 };

static void cuda_attention_decode(Buf out, Buf kv, Buf qkv, Buf start, Buf slot, Buf len, size_t T_, Buf pkv, Buf pslot,
                                  Buf plen, size_t TP, size_t B, size_t N, size_t NH, size_t HS_)
{
    NEED(out, N * NH * HS_);
    NEED(qkv, 3 * N * NH * HS_);
    NEED_INDEX(start, B + 1);
    NEED_INDEX(slot, B);
    if (len.p) NEED_INDEX(len, B);
    size_t chunks = N * 2 * NH * ceil_div(HS_, 16 / dtype_size(qkv.type)), parts = 0;
    float scale = (float)(1 / sqrt((double)HS_));
    const bool keeps = len.p && N == B; // a token a row: its block stores what it alone reads
    if (!keeps)
        BY_TYPE(qkv,
                RUN(kv_store_kernel<T>, (unsigned)ceil_div(chunks, THREADS), THREADS, 0, at<T>(kv), at<T>(qkv),
                    I_(start), I_(slot), len.p ? I_(len) : NULL, T_, B, N, NH, HS_));
    if (!len.p && qkv.type == DT_BF16) // all that they see is in prompts and qkv
        return attention_mma(at<bf16>(out), NULL, qkv, start, pkv, pslot, plen, TP, B, N, NH, HS_, true, true, 1);
    void *prompts = NULL;
    float *lse = NULL;
    if (qkv.type == DT_BF16 && pkv.p && cuda_prefix_parts(N, NH, TP)) {
        parts = cuda_prefix_parts(N, NH, TP);
        prompts = scratch(&scratch_1, parts * N * NH * HS_ * sizeof(bf16));
        lse = (float *)scratch(&scratch_2, parts * N * NH * sizeof *lse);
        attention_mma((bf16 *)prompts, lse, qkv, start, pkv, pslot, plen, TP, B, N, NH, HS_, false, true, parts);
    }
    // positions lie side by side in both caches: if one begins at a round address and is a round size, all are
    bool aligned = HS_ * dtype_size(qkv.type) % 16 == 0 && (uintptr_t)kv.p % 16 == 0 &&
        (uintptr_t)pkv.p % 16 == 0 && (uintptr_t)qkv.p % 16 == 0;
    #define DECODE(ALIGNED, THREADS_EACH) \
        BY_HEAD_SIZE(HS_, 1, 1, 1, { \
            enum { TEAM = HS <= 128 ? THREADS_EACH : 128 }; \
            BY_TYPE(qkv, \
                    RUN((attention_decode_kernel<T, HS, ALIGNED, TEAM>), (unsigned)ceil_div(N * NH, 128 / TEAM), 128, \
                        0, at<T>(out), (const T *)prompts, lse, (int)parts, at<T>(kv), keeps, at<T>(qkv), I_(start), \
                        I_(slot), len.p ? I_(len) : NULL, T_, at<T>(pkv), I_(pslot), I_(plen), TP, B, N, NH, HS_, \
                        scale)); \
        })
    // a block each while they do not fill the device, a warp each when they do
    if (!aligned) DECODE(false, 128);
    else if (N * NH < DECODE_MANY) DECODE(true, 128);
    else DECODE(true, 32);
    #undef DECODE
}

// ----------------------------------------------------------------------------
// rows by index

__global__ void gather_ints_kernel(int *out, const int *inp, const int *index, size_t n)
{
    // bytes: 8 * n + 4 * different(index, n); flops: 0; bound: its launch
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = inp[index[i]];
}

static void cuda_gather_ints(Buf out, Buf inp, Buf index, size_t n)
{
    NEED_INDEX(out, n); NEED_INDEX(index, n);
    RUN(gather_ints_kernel, (unsigned)ceil_div(n, THREADS), THREADS, 0, I_(out), I_(inp), I_(index), n);
}

// ADD: out[index] += inp; else out = inp[index]
template <class T, bool ADD>
__global__ void move_rows_kernel(T *out, const T *inp, const int *index, size_t R, size_t C)
{
    // bytes: (R + (ADD ? 2 : 1) * different(index, R)) * C * sizeof(T); flops: ADD * R * C; bound: memory
    enum { W = Wide<T>::n };
    size_t chunks = (C + W - 1) / W, k = (size_t)blockIdx.x * blockDim.x + threadIdx.x, i = k / chunks,
           c = k % chunks * W;
    if (i >= R) return;
    size_t far = (size_t)index[i] * C + c, near = i * C + c;
    float x[W], y[W];
    load(x, inp + (ADD ? near : far), C - c);
    if (ADD) {
        load(y, out + far, C - c);
        for (int j = 0; j < W; j++) x[j] += y[j];
    }
    store(out + (ADD ? far : near), x, C - c);
}

static void cuda_gather_rows(Buf out, Buf inp, Buf index, size_t R, size_t C)
{
    NEED(out, R * C); NEED_INDEX(index, R);
    BY_TYPE(out,
            RUN((move_rows_kernel<T, false>), row_chunk_blocks(R, C, out.type), THREADS, 0, at<T>(out), at<T>(inp),
                I_(index), R, C));
}

static void cuda_scatter_rows(Buf out, Buf inp, Buf index, size_t R, size_t C)
{
    NEED(inp, R * C); NEED_INDEX(index, R);
    BY_TYPE(out,
            RUN((move_rows_kernel<T, true>), row_chunk_blocks(R, C, out.type), THREADS, 0, at<T>(out), at<T>(inp),
                I_(index), R, C));
}

// ----------------------------------------------------------------------------
// the head: softmax over the vocabulary, in chunks of rows, so that (R,V) never exists

// at most, in the kernels with a block a row of logits: as many as find 128 bits each to read
enum { ROW_THREADS = 512 };
static unsigned row_threads(size_t V)
{
    return V > ROW_THREADS * 4 ? (unsigned)ROW_THREADS : 32 * (unsigned)ceil_div(V, 128);
}

// of a row of logits: every one aligned, for us and for tensor cores
static size_t head_stride(size_t V) { return cuda_vocabulary_rows(V); }

// as many of w's rows as a product takes: with an odd number of them cuBLASLt's fast kernels are out of the question
static size_t head_columns(Buf w, size_t C, size_t V) { return w.n >= head_stride(V) * C ? head_stride(V) : V; }

static Buf rows_of(Buf b, size_t first, size_t n, size_t C) { return slice(b, first * C, n * C); }

// Room for n rows of logits, in what the caller keeps or, where that is none, in scratch memory
static Buf head_room(Buf kept, Scratch *s, size_t n, size_t V)
{
    size_t elements = n * head_stride(V);
    NEED(kept, elements);
    return Buf{kept.p ? (void *)F_(kept) : scratch(s, elements * sizeof(float)), elements, DT_F32, "logits"};
}

// logits of rows [r, r+n), n rows of V floats
static Buf head_logits(Buf room, Buf inp, Buf w, size_t r, size_t n, size_t C, size_t V)
{
    gemm(false, true, n, head_columns(w, C, V), C, rows_of(inp, r, n, C), C, w, C, 0, room, head_stride(V), none);
    return room;
}

// What one pass over logits z leaves: the largest, sum exp(z - most), sum exp(z - most) x with x any number that comes
// with z
typedef struct { float most, sum, dot; } Online;
__device__ inline Online online_none() { Online a = {-INFINITY, 0, 0}; return a; }

// as if `most` had been there; exp(-inf - -inf) never happens
__device__ inline void online_scale(Online *a, float most)
{
    if (a->most >= most) return;
    float f = expf(a->most - most);
    a->sum *= f; a->dot *= f; a->most = most;
}
__device__ inline void online_add(Online *a, float z, float x)
{
    online_scale(a, z);
    float e = expf(z - a->most);
    a->sum += e;
    a->dot += e * x;
}
__device__ inline Online online_merge(Online a, Online b)
{
    online_scale(&a, b.most);
    online_scale(&b, a.most);
    Online c = {a.most, a.sum + b.sum, a.dot + b.dot};
    return c;
}
__device__ inline Online online_block(Online a, Online *part) // over the block, for every thread; part: as in block_sum
{
    const unsigned lane = threadIdx.x % 32, warps = blockDim.x / 32;
    for (int round = 0; round < 2; round++) {
        for (int i = 16; i > 0; i /= 2) {
            Online b;
            b.most = __shfl_xor_sync(0xffffffffu, a.most, i);
            b.sum = __shfl_xor_sync(0xffffffffu, a.sum, i);
            b.dot = __shfl_xor_sync(0xffffffffu, a.dot, i);
            a = lane & i ? online_merge(b, a) : online_merge(a, b); // the same order in both lanes
        }
        if (round) break;
        if (lane == 0) part[threadIdx.x / 32] = a;
        __syncthreads();
        a = lane < warps ? part[lane] : online_none();
        __syncthreads();
    }
    return a;
}

// A block a row. Entropy is log sum - dot / sum + most with x = z: x = z - z_0 keeps the numbers small.
__global__ void __launch_bounds__(ROW_THREADS)
    logprob_forward_kernel(float *logp, float *entropy, const float *logits, const int *target, float it, size_t V,
                           size_t stride)
{
    // bytes: 4 * V * gridDim.x; flops: (7 * V + 30 * blockDim.x) * gridDim.x; bound: memory
    __shared__ Online part[WARPS_MAX];
    const float *z = logits + blockIdx.x * stride, z0 = z[0] * it;
    Online a = online_none();
    for (size_t j = (size_t)threadIdx.x * 4; j < V; j += blockDim.x * 4) {
        float x[4];
        load(x, z + j, V - j);
        for (int k = 0; k < 4; k++) if (j + k < V) online_add(&a, x[k] * it, x[k] * it - z0);
    }
    a = online_block(a, part);
    if (threadIdx.x) return;
    float lse = a.most + logf(a.sum);
    logp[blockIdx.x] = z[target[blockIdx.x]] * it - lse;
    if (entropy) entropy[blockIdx.x] = (a.most - z0) + logf(a.sum) - a.dot / a.sum;
}

static void cuda_logprob_forward(Buf logp, Buf entropy, Buf kept, Buf inp, Buf w, Buf target, double temperature,
                                 size_t R, size_t C, size_t V)
{
    NEED(logp, R); NEED(entropy, R); NEED(inp, R * C); NEED(w, V * C); NEED_INDEX(target, R);
    for (size_t r = 0, chunk = cuda_head_rows(V); r < R; r += chunk) {
        size_t n = R - r < chunk ? R - r : chunk;
        Buf logits = head_logits(head_room(kept, &scratch_1, n, V), inp, w, r, n, C, V);
        RUN(logprob_forward_kernel, (unsigned)n, row_threads(V), 0, F_(logp) + r, entropy.p ? F_(entropy) + r : NULL,
            F_(logits), I_(target) + r, (float)(1 / temperature), V, head_stride(V));
    }
}

// dlogits = dlogp (onehot - softmax) / temperature; dlogits (T) may lie over logits (float) where T is float. What pads
// a row becomes 0.
template <class T>
__global__ void __launch_bounds__(ROW_THREADS)
    logprob_backward_kernel(T *dlogits, float *logp, const float *dlogp, const float *logits, const int *target,
                            float it, size_t V, size_t stride)
{
    // bytes: (4 * V + stride * sizeof(T)) * gridDim.x; flops: (12 * V + 30 * blockDim.x) * gridDim.x; bound: memory
    __shared__ Online part[WARPS_MAX];
    const float *z = logits + blockIdx.x * stride;
    const size_t t = (size_t)target[blockIdx.x];
    const float at_ = z[t] * it, d = dlogp[blockIdx.x] * it;
    Online a = online_none();
    for (size_t j = (size_t)threadIdx.x * 4; j < V; j += blockDim.x * 4) {
        float x[4];
        load(x, z + j, V - j);
        for (int k = 0; k < 4; k++) if (j + k < V) online_add(&a, x[k] * it, 0);
    }
    a = online_block(a, part); // its barriers also come between reading z[t] and writing over it
    for (size_t j = (size_t)threadIdx.x * 4; j < stride; j += blockDim.x * 4) {
        float x[4];
        load(x, z + j, 4);
        for (int k = 0; k < 4; k++)
            x[k] = j + k < V ? (j + k == t ? d : 0) - d * (expf(x[k] * it - a.most) / a.sum) : 0;
        store<false, 4>(dlogits + blockIdx.x * stride + j, x, 4);
    }
    if (threadIdx.x == 0 && logp) logp[blockIdx.x] = at_ - (a.most + logf(a.sum));
}

// dlogits += all at each row's K tokens, which are distinct.
template <class T>
__global__ void add_at_kernel(T *dlogits, const int *token, const float *all, size_t K, size_t n, size_t stride)
{
    // bytes: (8 + 2 * sizeof(T)) * n; flops: n; bound: its launch
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    T *d = dlogits + i / K * stride + token[i];
    *d = (T)((float)*d + all[i]);
}

// all (R,K), or none: what is added to the gradient of the logits at the K tokens of each row
static void head_backward(Buf dinp, Buf dw, Buf logp, Buf dlogp, Buf kept, Buf inp, Buf w, Buf target, Buf token,
                          Buf all, double temperature, size_t K, size_t R, size_t C, size_t V)
{
    NEED(dinp, R * C);
    NEED(dw, V * C);
    NEED(logp, R);
    NEED(dlogp, R);
    NEED(inp, R * C);
    NEED(w, V * C);
    NEED_INDEX(target, R);
    size_t stride = head_stride(V);
    for (size_t r = 0, chunk = cuda_head_rows(V); r < R; r += chunk) {
        size_t n = R - r < chunk ? R - r : chunk;
        Buf room = head_room(kept, &scratch_1, n, V), logits = kept.p ? room : head_logits(room, inp, w, r, n, C, V),
            d = logits, x = rows_of(inp, r, n, C);
        if (inp.type != DT_F32) { d.type = inp.type; d.p = scratch(&scratch_2, n * stride * dtype_size(d.type)); }
        BY_TYPE(d,
                RUN(logprob_backward_kernel<T>, (unsigned)n, row_threads(V), 0, at<T>(d), logp.p ? F_(logp) + r : NULL,
                    F_(dlogp) + r, F_(logits), I_(target) + r, (float)(1 / temperature), V, stride);
                if (all.p) RUN(add_at_kernel<T>, (unsigned)ceil_div(n * K, THREADS), THREADS, 0, at<T>(d),
                               I_(token) + r * K, F_(all) + r * K, K, n * K, stride));
        if (dinp.p)
            gemm(false, false, n, C, head_columns(w, C, V), d, stride, w, C, 0, rows_of(dinp, r, n, C), C, none);
        if (dw.p) gemm(true, false, head_columns(dw, C, V), C, n, d, stride, x, C, 1, dw, C, none);
    }
}

static void cuda_logprob_backward(Buf dinp, Buf dw, Buf logp, Buf dlogp, Buf kept, Buf inp, Buf w, Buf target,
                                  double temperature, size_t R, size_t C, size_t V)
{
    head_backward(dinp, dw, logp, dlogp, kept, inp, w, target, none, none, temperature, 0, R, C, V);
}

// KL = sum_j p_j (zp_j - zq_j) - lse_p + lse_q. A block a row.
__global__ void __launch_bounds__(ROW_THREADS)
    head_kl_kernel(float *kl, const float *p, const float *q, float it, size_t V, size_t stride)
{
    // bytes: 8 * V * gridDim.x; flops: (14 * V + 60 * blockDim.x) * gridDim.x; bound: memory
    __shared__ Online part[WARPS_MAX];
    Online a = online_none(), b = online_none();
    for (size_t j = (size_t)threadIdx.x * 4; j < V; j += blockDim.x * 4) {
        float x[4], y[4];
        load(x, p + blockIdx.x * stride + j, V - j);
        load(y, q + blockIdx.x * stride + j, V - j);
        for (int k = 0; k < 4; k++)
            if (j + k < V) {
                online_add(&a, x[k] * it, (x[k] - y[k]) * it);
                online_add(&b, y[k] * it, 0);
            }
    }
    a = online_block(a, part);
    b = online_block(b, part);
    if (threadIdx.x == 0) kl[blockIdx.x] = a.dot / a.sum - (a.most - b.most) - (logf(a.sum) - logf(b.sum));
}

static void cuda_head_kl(Buf kl, Buf p_inp, Buf p_w, Buf q_inp, Buf q_w, double temperature, size_t R, size_t C,
                         size_t V)
{
    NEED(kl, R); NEED(p_inp, R * C); NEED(q_inp, R * C); NEED(p_w, V * C); NEED(q_w, V * C);
    for (size_t r = 0, chunk = cuda_head_rows(V); r < R; r += chunk) {
        size_t n = R - r < chunk ? R - r : chunk;
        Buf p = head_logits(head_room(none, &scratch_1, n, V), p_inp, p_w, r, n, C, V),
            q = head_logits(head_room(none, &scratch_2, n, V), q_inp, q_w, r, n, C, V);
        RUN(head_kl_kernel, (unsigned)n, row_threads(V), 0, F_(kl) + r, F_(p), F_(q), (float)(1 / temperature), V,
            head_stride(V));
    }
}

// Floats in their order as unsigned numbers.
__device__ inline unsigned ordered(float x)
{
    unsigned u = __float_as_uint(x);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

// A row's tokens in the order of their logits, the largest first, and of equals the lower id first, are in the order of
// these numbers, none of which is 0.
__device__ inline unsigned long long rank_of(float z, size_t j)
{
    return (unsigned long long)ordered(z) << 32 | ~(unsigned)j;
}

// The highest rank below `last` of the logits that this thread looks at.
__device__ inline unsigned long long next_rank(const float *z, size_t V, unsigned long long last)
{
    unsigned long long best = 0;
    for (size_t j = (size_t)threadIdx.x * 4; j < V; j += blockDim.x * 4) {
        float x[4];
        load(x, z + j, V - j);
        for (int k = 0; k < 4; k++) {
            unsigned long long r = j + k < V ? rank_of(x[k], j + k) : 0;
            if (r > best && r < last) best = r;
        }
    }
    return best;
}

// A block a row. Each thread knows the best of its own logits, and the one whose logit is the best of all looks again.
__global__ void __launch_bounds__(ROW_THREADS)
    candidate_logprobs_kernel(float *logp, int *token, bool choose, const float *logits, float it, size_t K, size_t V,
                              size_t stride)
{
    // bytes: (4 * V + 8 * K) * gridDim.x; flops: (6 * V + 30 * blockDim.x) * gridDim.x; bound: memory
    __shared__ Online part[WARPS_MAX];
    __shared__ unsigned long long warp_best[2][WARPS_MAX]; // by turns: one barrier a round is enough
    const float *z = logits + blockIdx.x * stride;
    const size_t lane = threadIdx.x % 32, warps = blockDim.x / 32;
    Online a = online_none();
    for (size_t j = (size_t)threadIdx.x * 4; j < V; j += blockDim.x * 4) {
        float x[4];
        load(x, z + j, V - j);
        for (int k = 0; k < 4; k++) if (j + k < V) online_add(&a, x[k] * it, 0);
    }
    a = online_block(a, part);
    const float lse = a.most + logf(a.sum);
    int *y = token + blockIdx.x * K;
    float *l = logp + blockIdx.x * K;
    if (!choose) {
        for (size_t k = threadIdx.x; k < K; k += blockDim.x) l[k] = z[y[k]] * it - lse;
        return;
    }
    unsigned long long own = next_rank(z, V, ~0ull);
    for (size_t k = 0; k < K; k++) {
        unsigned long long best = lanes_max(own, 32), *of = warp_best[k % 2];
        if (lane == 0) of[threadIdx.x / 32] = best;
        __syncthreads();
        best = lanes_max(lane < warps ? of[lane] : 0, 32);
        if (own != best) continue;
        y[k] = (int)~(unsigned)best;
        l[k] = z[y[k]] * it - lse;
        own = next_rank(z, V, best);
    }
}

static void cuda_candidate_logprobs(Buf logp, Buf token, bool choose, Buf inp, Buf w, double temperature, size_t K,
                                    size_t R, size_t C, size_t V)
{
    NEED(logp, R * K); NEED_INDEX(token, R * K); NEED(inp, R * C); NEED(w, V * C);
    for (size_t r = 0, chunk = cuda_head_rows(V); r < R; r += chunk) {
        size_t n = R - r < chunk ? R - r : chunk;
        Buf logits = head_logits(head_room(none, &scratch_1, n, V), inp, w, r, n, C, V);
        RUN(candidate_logprobs_kernel, (unsigned)n, row_threads(V), 0, F_(logp) + r * K, I_(token) + r * K, choose,
            F_(logits), (float)(1 / temperature), K, V, head_stride(V));
    }
}

// worth (K of a row) becomes the gradient of the logits: -scale pi (worth - kappa log pi - b) / temperature. A warp a
// row; logp is the target's.
__global__ void all_actions_kernel(float *worth, const int *token, const float *logits, const float *logp,
                                   const int *target, float it, float kappa, float scale, size_t K, size_t R,
                                   size_t stride)
{
    // bytes: (20 * K + 12) * R; flops: 28 * K * R; bound: its launch
    const size_t row = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (row >= R) return;
    const float *z = logits + row * stride, lse = z[target[row]] * it - logp[row];
    const int *y = token + row * K;
    float *u = worth + row * K;
    double mass = 0, b = 0;
    for (size_t k = lane; k < K; k += 32) {
        float l = z[y[k]] * it - lse, pi = expf(l);
        u[k] -= pi > 0 ? kappa * l : 0;
        mass += (double)pi;
        b += (double)(pi * u[k]);
    }
    mass = lanes_sum(mass, 32);
    b = mass > 0 ? lanes_sum(b, 32) / mass : 0;
    for (size_t k = lane; k < K; k += 32) {
        float pi = expf(z[y[k]] * it - lse);
        u[k] = -scale * it * pi * (u[k] - (float)b);
    }
}

static void cuda_all_actions_backward(Buf dinp, Buf dw, Buf logp, Buf dlogp, Buf kept, Buf inp, Buf w, Buf target,
                                      Buf token, Buf worth, double kappa, double scale, double temperature, size_t K,
                                      size_t R, size_t C, size_t V)
{
    NEED(logp, R); NEED(kept, R * head_stride(V)); NEED_INDEX(target, R); NEED_INDEX(token, R * K); NEED(worth, R * K);
    RUN(all_actions_kernel, (unsigned)ceil_div(R * 32, THREADS), THREADS, 0, F_(worth), I_(token), F_(kept), F_(logp),
        I_(target), (float)(1 / temperature), (float)kappa, (float)scale, K, R, head_stride(V));
    head_backward(dinp, dw, none, dlogp, kept, inp, w, target, token, worth, temperature, K, R, C, V);
}

// The weight of a token whose logit is z when those below `least` are cut off.
__device__ inline double weight(float z, unsigned least, float most, float it)
{
    return ordered(z) >= least ? (double)expf((z - most) * it) : 0;
}

// The weight (COUNT: the number) of the logits from `least` on. Every thread gets the same sum.
template <bool COUNT>
__device__ inline double mass(const float *z, size_t V, unsigned least, float most, float it, double *part)
{
    double s = 0;
    for (size_t j = threadIdx.x; j < V; j += blockDim.x)
        s += COUNT ? (double)(ordered(z[j]) >= least) : weight(z[j], least, most, it);
    return block_sum(s, part);
}

// The largest `least` whose mass still reaches `goal`, found bit by bit from the top: selection without sorting.
template <bool COUNT>
__device__ inline unsigned cut(const float *z, size_t V, double goal, float most, float it, double *part)
{
    unsigned least = 0;
    for (unsigned bit = 0x80000000u; bit; bit /= 2)
        if (mass<COUNT>(z, V, least | bit, most, it, part) >= goal) least |= bit;
    return least;
}

// A block a row. The weights are summed by chunks of the vocabulary; a warp finds the chunk in which u falls, and there
// the token.
enum { SAMPLE_CHUNKS = 128 };
__device__ inline double lanes_prefix(double x) // inclusive prefix sums over a warp
{
    for (int i = 1; i < 32; i *= 2) {
        double y = __shfl_up_sync(0xffffffffu, x, i);
        if (threadIdx.x % 32 >= (unsigned)i) x += y;
    }
    return x;
}
__global__ void __launch_bounds__(ROW_THREADS)
    sample_kernel(int *token, float *logp, const float *logits, const double *uniform, float it, size_t top_k,
                  double top_p, size_t V, size_t stride)
{
    // bytes: 4 * V * gridDim.x; flops: (5 * V + 160 * SAMPLE_CHUNKS) * gridDim.x; bound: memory
    __shared__ double chunk_sum[SAMPLE_CHUNKS], part[WARPS_MAX];
    __shared__ float warp_most[WARPS_MAX];
    const float *z = logits + blockIdx.x * stride;
    const size_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32,
                 size = (V + 128 * SAMPLE_CHUNKS - 1) / (128 * SAMPLE_CHUNKS) * 128, chunks = (V + size - 1) / size;
    float x[4], most = -INFINITY; // the largest of the logits before the temperature
    for (size_t j = (size_t)threadIdx.x * 4; j < V; j += blockDim.x * 4) {
        load(x, z + j, V - j);
        for (int k = 0; k < 4; k++) if (j + k < V) most = fmaxf(most, x[k]);
    }
    most = lanes_max(most, 32);
    if (lane == 0) warp_most[warp] = most;
    __syncthreads();
    most = lanes_max(lane < warps ? warp_most[lane] : -INFINITY, 32);
    unsigned least = 0;
    if (top_k) least = cut<true>(z, V, (double)top_k, most, it, part);
    if (top_p < 1) { // of the top k: those above the last one, and as many of its equals as k allows
        double kept = mass<false>(z, V, least, most, it, part);
        if (top_k) {
            double over = mass<true>(z, V, least + 1, most, it, part),
                   equal = mass<true>(z, V, least, most, it, part) - over,
                   above = mass<false>(z, V, least + 1, most, it, part);
            kept = above + (kept - above) * ((double)top_k - over) / equal;
        }
        unsigned by_mass = cut<false>(z, V, top_p * kept, most, it, part);
        if (by_mass > least) least = by_mass;
    }
    double all = 0;
    for (size_t c = warp; c < chunks; c += warps) {
        double s = 0;
        for (size_t j = c * size + lane * 4; j < (c + 1) * size && j < V; j += 128) {
            load(x, z + j, V - j);
            for (int k = 0; k < 4; k++) {
                double e = j + k < V ? weight(x[k], 0, most, it) : 0;
                all += e;
                if (ordered(x[k]) >= least) s += e;
            }
        }
        s = lanes_sum(s, 32);
        if (lane == 0) chunk_sum[c] = s;
    }
    all = block_sum(all, part); // its barriers also come between writing the sums of chunks and reading them
    if (warp) return;
    double kept = 0;
    for (size_t c = lane; c < chunks; c += 32) kept += chunk_sum[c];
    const double u = uniform[blockIdx.x] * lanes_sum(kept, 32);
    // the chunk in which u falls, and in it the token; the last with weight where rounding ran past the end
    double below = 0, start = 0;
    size_t mine = 0, found = 0;
    unsigned hit = 0;
    for (size_t c = 0; c < chunks && !hit; c += 32) {
        double e = c + lane < chunks ? chunk_sum[c + lane] : 0, upto = lanes_prefix(e);
        hit = __ballot_sync(0xffffffffu, e > 0 && u < below + upto);
        unsigned some = __ballot_sync(0xffffffffu, e > 0);
        int who = hit ? __ffs((int)hit) - 1 : 31 - __clz((int)(some | 1));
        double before = __shfl_sync(0xffffffffu, below + upto - e, who);
        if (some) { mine = c + (size_t)who; start = before; }
        below += __shfl_sync(0xffffffffu, upto, 31);
    }
    below = start;
    hit = 0;
    for (size_t j0 = mine * size; j0 < (mine + 1) * size && j0 < V && !hit; j0 += 128) {
        const size_t j = j0 + lane * 4;
        double e[4], own = 0;
        load(x, z + j, j < V ? V - j : 0);
        for (int k = 0; k < 4; k++) { e[k] = j + k < V ? weight(x[k], least, most, it) : 0; own += e[k]; }
        double upto = lanes_prefix(own), run = below + upto - own;
        hit = __ballot_sync(0xffffffffu, own > 0 && u < below + upto);
        unsigned some = __ballot_sync(0xffffffffu, own > 0), at_ = 0;
        bool over = true; // u is not yet reached
        for (int k = 0; k < 4; k++)
            if (e[k] > 0 && over) { at_ = (unsigned)j + (unsigned)k; run += e[k]; over = u >= run; }
        at_ = __shfl_sync(0xffffffffu, at_, hit ? __ffs((int)hit) - 1 : 31 - __clz((int)(some | 1)));
        if (some) found = at_;
        below += __shfl_sync(0xffffffffu, upto, 31);
    }
    if (lane) return;
    token[blockIdx.x] = (int)found;
    logp[blockIdx.x] = (z[found] - most) * it - (float)log(all);
}

static void cuda_sample(Buf token, Buf logp, Buf inp, Buf w, Buf uniform, double temperature, long top_k, double top_p,
                        size_t R, size_t C, size_t V)
{
    NEED_INDEX(token, R); NEED(logp, R); NEED(inp, R * C); NEED(w, V * C);
    size_t k = top_k > 0 && (size_t)top_k < V ? (size_t)top_k : 0;
    for (size_t r = 0, chunk = cuda_head_rows(V); r < R; r += chunk) {
        size_t n = R - r < chunk ? R - r : chunk;
        Buf logits = head_logits(head_room(none, &scratch_1, n, V), inp, w, r, n, C, V);
        RUN(sample_kernel, (unsigned)n, row_threads(V), 0, I_(token) + r, F_(logp) + r, F_(logits),
            at<double>(uniform) + r, (float)(1 / temperature), k, top_p, V, head_stride(V));
    }
}

// ----------------------------------------------------------------------------
// losses and optimiser

__global__ void ppo_loss_kernel(float *dlogp, float *dvalue, double *stats, const float *logp, const float *value,
                                const float *old_logp, const float *old_value, const float *advantage,
                                const float *returns, double scale, double clip, double value_clip, double vf_coef,
                                size_t R)
{
    // bytes: 32 * R; flops: 27 * R + 10 * THREADS * PPO_SUMS; bound: latency
    __shared__ double part[WARPS_MAX];
    PpoSums sums = {};
    for (size_t i = threadIdx.x; i < R; i += THREADS) {
        double dl, dv;
        ppo_action_loss(&dl, &dv, &sums, logp[i], value[i], old_logp[i], old_value[i], advantage[i], returns[i], clip,
                        value_clip);
        dlogp[i] = (float)(scale * dl);
        if (dvalue) dvalue[i] = (float)(scale * vf_coef * dv);
    }
    for (int k = 0; k < PPO_SUMS; k++) {
        double s = block_sum(((double *)&sums)[k], part);
        if (threadIdx.x == 0) stats[k] += s;
    }
}

static void cuda_ppo_loss(Buf dlogp, Buf dvalue, Buf stats, Buf logp, Buf value, Buf old_logp, Buf old_value,
                          Buf advantage, Buf returns, double scale, double clip, double value_clip, double vf_coef,
                          size_t R)
{
    NEED(dlogp, R);
    NEED(dvalue, R);
    NEED(logp, R);
    NEED(value, R);
    NEED(old_logp, R);
    NEED(old_value, R);
    NEED(advantage, R);
    NEED(returns, R);
    RUN(ppo_loss_kernel, 1, THREADS, 0, F_(dlogp), F_(dvalue), at<double>(stats), F_(logp), F_(value), F_(old_logp),
        F_(old_value), F_(advantage), F_(returns), scale, clip, value_clip, vf_coef, R);
}

__global__ void sumsq_kernel(double *partial, const float *a, size_t n)
{
    // bytes: 4 * n; flops: 2 * n + 10 * THREADS * gridDim.x; bound: memory
    __shared__ double part[WARPS_MAX];
    double s = 0;
    for (size_t i = ((size_t)blockIdx.x * THREADS + threadIdx.x) * 4; i < n; i += (size_t)gridDim.x * THREADS * 4) {
        float x[4];
        load(x, a + i, n - i);
        for (int j = 0; j < 4; j++) s += (double)x[j] * (double)x[j];
    }
    s = block_sum(s, part);
    if (threadIdx.x == 0) partial[blockIdx.x] = s;
}

__global__ void sum_kernel(double *out, const double *x, size_t n)
{
    // bytes: 8 * n; flops: n + 10 * THREADS; bound: its launch
    __shared__ double part[WARPS_MAX];
    double s = 0;
    for (size_t i = threadIdx.x; i < n; i += THREADS) s += x[i];
    s = block_sum(s, part);
    if (threadIdx.x == 0) *out = s;
}

static double cuda_sumsq(Buf a)
{
    NEED(a, a.n);
    // fixed by the length alone, and so is the order of the sum
    size_t blocks = ceil_div(a.n, 4096) < 1024 ? ceil_div(a.n, 4096) : 1024;
    double *partial = (double *)scratch(&scratch_1, 1025 * sizeof *partial), sum;
    RUN(sumsq_kernel, (unsigned)blocks, THREADS, 0, partial, F_(a), a.n);
    RUN(sum_kernel, 1, THREADS, 0, partial + 1024, partial, blocks);
    Buf result = {partial + 1024, 1, DT_F64, "sum of squares"};
    cuda_download(&sum, result);
    return sum;
}

__global__ void blend_kernel(float *y, const float *x, float keep, size_t n)
{
    // bytes: 12 * n; flops: 3.25 * n; bound: memory
    typedef float T;
    EACH_CHUNK(i, n);
    float yy[W], xx[W];
    load(yy, y + i, n - i); load(xx, x + i, n - i);
    for (int j = 0; j < W; j++) yy[j] = keep * yy[j] + (1 - keep) * xx[j];
    store(y + i, yy, n - i);
}

static void cuda_blend(Buf y, Buf x, double keep)
{
    NEED(x, y.n);
    if (!y.n) return;
    RUN(blend_kernel, chunk_blocks(y.n, DT_F32), THREADS, 0, F_(y), F_(x), (float)keep, y.n);
}

typedef struct { float b1, b2, c1, c2, eps, scale, keep, rate, root; } AdamWStep;

// Of the `count` ranges the one that this block of MOMENT_BLOCK elements belongs to
__device__ inline ParamRange own_range(const ParamRange *ranges, size_t count)
{
    size_t low = 0, high = count;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (ranges[middle].block <= blockIdx.x) low = middle; else high = middle;
    }
    return ranges[low];
}

__global__ void adamw_kernel(bf16 *w, float *p, const float *g, float *m, float *v, const ParamRange *ranges,
                             size_t count, AdamWStep s)
{
    // bytes: (w ? 30.0 : 28.0) * MOMENT_BLOCK * gridDim.x; flops: 15.0 * MOMENT_BLOCK * gridDim.x; bound: memory
    enum { W = 4 };
    const ParamRange own = own_range(ranges, count);
    const size_t begin = (blockIdx.x - own.block) * MOMENT_BLOCK;
    const float keep = own.decays ? s.keep : 1;
    UNROLL
    for (int e = 0; e < MOMENT_BLOCK; e += THREADS * W) {
        const size_t at_ = begin + e + threadIdx.x * W, i = own.first + at_;
        if (at_ >= own.n) return;
        const size_t left = own.n - at_;
        float pp[W], gg[W], mm[W], vv[W];
        load(pp, p + i, left); load(gg, g + i, left); load(mm, m + i, left); load(vv, v + i, left);
        for (int j = 0; j < W; j++) {
            float d = gg[j] * s.scale;
            mm[j] = s.b1 * mm[j] + s.c1 * d;
            vv[j] = s.b2 * vv[j] + s.c2 * d * d;
            pp[j] = keep * pp[j] - s.rate * mm[j] / (sqrtf(vv[j]) * s.root + s.eps); // eps where PyTorch has it
        }
        store(p + i, pp, left); store(m + i, mm, left); store(v + i, vv, left);
        if (w) store<false, W>(w + i, pp, left);
    }
}

static AdamWStep adamw_step(double lr, double beta1, double beta2, double eps, double decay, double grad_scale,
                            long step)
{
    AdamWStep s = {(float)beta1,
                   (float)beta2,
                   (float)(1 - beta1),
                   (float)(1 - beta2),
                   (float)eps,
                   (float)grad_scale,
                   (float)(1 - lr * decay),
                   (float)(lr / (1 - pow(beta1, (double)step))),
                   (float)(1 / sqrt(1 - pow(beta2, (double)step)))};
    return s;
}

static void cuda_adamw(Buf w, Buf p, Buf g, Buf m, Buf v, Buf ranges, size_t blocks, double lr, double beta1,
                       double beta2, double eps, double decay, double grad_scale, long step)
{
    NEED(w, p.n); NEED(p, p.n); NEED(g, p.n); NEED(m, p.n); NEED(v, p.n);
    AdamWStep s = adamw_step(lr, beta1, beta2, eps, decay, grad_scale, step);
    RUN(adamw_kernel, (unsigned)blocks, THREADS, 0, at<bf16>(w), F_(p), F_(g), F_(m), F_(v), at<ParamRange>(ranges),
        ranges.n / sizeof(ParamRange), s);
}

__device__ inline void store_drawn(float *p, float x, uint64_t bits) { (void)bits; *p = x; }
__device__ inline void store_drawn(bf16 *p, float x, uint64_t bits)
{
    uint16_t h = bf16_round_drawn(x, bits);
    memcpy((void *)p, &h, 2);
}

// A block of threads a block of moments, which are kept in registers until the largest of them is known: so everything
// is read once and written once.
template <class T>
__global__ void __launch_bounds__(THREADS)
    adamw_8bit_kernel(T *p, const float *g, uint8_t *m, uint8_t *v, float *scale, const ParamRange *ranges,
                      size_t count, AdamWStep s, uint64_t key, size_t first)
{
    // bytes: (MOMENT_BLOCK * (2 * sizeof(T) + 8.0) + 16) * gridDim.x; flops: 32.6 * MOMENT_BLOCK * gridDim.x;
    // bound: instructions
    enum { EACH = MOMENT_BLOCK / THREADS };
    __shared__ float level[MOMENT_LEVELS], part[WARPS_MAX];
    const ParamRange own = own_range(ranges, count);
    const size_t begin = (blockIdx.x - own.block) * MOMENT_BLOCK, from = own.first + begin + threadIdx.x,
                 end = own.first + own.n;
    const float keep = own.decays ? s.keep : 1;
    const float old_m = scale[2 * blockIdx.x], old_v = scale[2 * blockIdx.x + 1];
    for (unsigned c = threadIdx.x; c < MOMENT_LEVELS; c += THREADS) level[c] = moment_level(c);
    __syncthreads();
    float mm[EACH], vv[EACH], most_m = 0, most_v = 0;
    UNROLL
    for (int e = 0; e < EACH; e++) {
        const size_t i = from + (size_t)e * THREADS;
        mm[e] = vv[e] = 0;
        if (i >= end) continue;
        const float d = g[i] * s.scale;
        mm[e] = s.b1 * first_moment(level, m[i], old_m) + s.c1 * d;
        vv[e] = s.b2 * (level[v[i]] * old_v) + s.c2 * d * d;
        most_m = fmaxf(most_m, fabsf(mm[e]));
        most_v = fmaxf(most_v, vv[e]);
        store_drawn(p + i, keep * (float)p[i] - s.rate * mm[e] / (sqrtf(vv[e]) * s.root + s.eps),
                    hash_more(key, first + i));
    }
    const float new_m = moment_scale(level, FIRST_MOST, block_max(most_m, part)),
                new_v = moment_scale(level, SECOND_MOST, block_max(most_v, part));
    UNROLL
    for (int e = 0; e < EACH; e++) {
        const size_t i = from + (size_t)e * THREADS;
        if (i >= end) continue;
        const uint64_t bits = hash_more(key, first + i);
        m[i] = first_code(level, mm[e], new_m, first_draw(bits));
        v[i] = second_code(level, vv[e], new_v, second_draw(bits));
    }
    if (threadIdx.x == 0) { scale[2 * blockIdx.x] = new_m; scale[2 * blockIdx.x + 1] = new_v; }
}

static void cuda_adamw_8bit(Buf p, Buf g, Buf m, Buf v, Buf scale, Buf ranges, size_t blocks, double lr, double beta1,
                            double beta2, double eps, double decay, double grad_scale, long step, uint64_t key,
                            size_t first)
{
    NEED(p, p.n); NEED(g, p.n); NEED(scale, 2 * blocks);
    if (m.type != DT_U8 || v.type != DT_U8 || m.n < p.n || v.n < p.n)
        die("%s: moments of types %d and %d: a bug, please report it", __func__, (int)m.type, (int)v.type);
    AdamWStep s = adamw_step(lr, beta1, beta2, eps, decay, grad_scale, step);
    BY_TYPE(p,
            RUN(adamw_8bit_kernel<T>, (unsigned)blocks, THREADS, 0, at<T>(p), F_(g), at<uint8_t>(m), at<uint8_t>(v),
                F_(scale), at<ParamRange>(ranges), ranges.n / sizeof(ParamRange), s, key, first));
}

// ----------------------------------------------------------------------------
// regions: a decode step is some hundred small kernels, and launching them one by one takes longer than running them.
// So the first time a region runs as it is (and its scratch memory is grown and its products are planned); the second
// time it is recorded as a graph; from then on replayed.

typedef struct { uint64_t key; cudaGraphExec_t graph; } Region;
static Region regions[256], *recording;
static size_t n_regions;

static void regions_forget(void)
{
    for (size_t i = 0; i < n_regions; i++) if (regions[i].graph) check(cudaGraphExecDestroy(regions[i].graph), "graph");
    n_regions = 0;
}

static bool cuda_region_begin(uint64_t key)
{
    size_t i = 0;
    while (i < n_regions && regions[i].key != key) i++;
    if (i == n_regions) {
        if (n_regions == sizeof regions / sizeof *regions) {
            check(cudaStreamSynchronize(stream), "graph");
            regions_forget();
        }
        Region fresh = {key, NULL};
        regions[n_regions++] = fresh;
        return true;
    }
    if (regions[i].graph) {
        check(cudaGraphLaunch(regions[i].graph, stream), "replay of a region");
        launches++;
        return false;
    }
    recording = &regions[i];
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "recording a region");
    return true;
}

static void cuda_region_end(void)
{
    if (!recording) return;
    cudaGraph_t graph;
    check(cudaStreamEndCapture(stream, &graph), "recording a region");
    check(cudaGraphInstantiateWithFlags(&recording->graph, graph, 0), "recording a region");
    check(cudaGraphDestroy(graph), "recording a region");
    check(cudaGraphLaunch(recording->graph, stream), "first replay of a region");
    recording = NULL;
}

// ----------------------------------------------------------------------------
// for measurements (dev/gpu_bench.c): the time between two points of the stream as the device saw it, waiting included,
// and free memory

extern "C" void cuda_timer_begin(void);
extern "C" double cuda_timer_seconds(void);
extern "C" size_t cuda_free_bytes(void);
static cudaEvent_t timer_from, timer_to;
extern "C" void cuda_timer_begin(void)
{
    if (!timer_from) { check(cudaEventCreate(&timer_from), "timer"); check(cudaEventCreate(&timer_to), "timer"); }
    check(cudaEventRecord(timer_from, stream), "timer");
}
extern "C" double cuda_timer_seconds(void) // since the last begin; waits for all that was launched
{
    float ms;
    check(cudaEventRecord(timer_to, stream), "timer");
    check(cudaEventSynchronize(timer_to), "timer");
    check(cudaEventElapsedTime(&ms, timer_from, timer_to), "timer");
    return ms / 1e3;
}
extern "C" size_t cuda_free_bytes(void)
{
    size_t unused, total;
    check(cudaMemGetInfo(&unused, &total), "free memory");
    return unused;
}

// ----------------------------------------------------------------------------
// the table

static Ops make_table(void)
{
    Ops t;
    memset(&t, 0, sizeof t);
    t.name = "cuda";
    #define OP(f) t.f = cuda_##f
    OP(alloc); OP(release); OP(pin); OP(unpin); OP(upload); OP(download); OP(copy); OP(fill);
    OP(download_begin); OP(download_end);
    OP(embed_forward);
    OP(embed_backward);
    OP(layernorm_forward);
    OP(layernorm_backward);
    OP(packed_size);
    OP(pack);
    OP(matmul_forward);
    OP(matmul_backward);
    OP(activation_forward);
    OP(activation_backward);
    OP(add);
    OP(add_layernorm);
    OP(rotary);
    OP(attention_forward);
    OP(attention_backward);
    OP(attention_decode);
    OP(gather_ints);
    OP(gather_rows);
    OP(scatter_rows);
    OP(logprob_forward);
    OP(logprob_backward);
    OP(head_rows);
    OP(vocabulary_rows);
    OP(candidate_logprobs);
    OP(all_actions_backward);
    OP(head_kl);
    OP(sample);
    OP(ppo_loss);
    OP(sumsq);
    OP(blend);
    OP(adamw);
    OP(adamw_8bit);
    OP(region_begin);
    OP(region_end);
#ifdef VBON_NCCL
    OP(exchange);
    OP(all_reduce);
#endif
#undef OP
    return t;
}

// A card is taken or refused by what it can do, never by its name.
static void start_device(void)
{
    int n = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e != cudaSuccess || !n)
        die("--device cuda: no CUDA device (%s): run where there is one, or leave --device out",
            e == cudaSuccess ? "none found" : cudaGetErrorString(e));
    int own = parallel_local() % n; // of several processes on this machine each takes its card
    check(cudaGetDeviceProperties(&device, own), "device properties");
    if (device.major < 8)
        die("--device cuda: %s has compute capability %d.%d; 8.0 or later is needed, whose tensor cores take bfloat16: "
            "leave --device out",
            device.name, device.major, device.minor);
    if (device.warpSize != 32 || device.maxThreadsPerBlock < COLUMN_THREADS)
        die("--device cuda: %s has warps of %d threads and at most %d a block; 32 and %d are needed: leave --device "
            "out",
            device.name, device.warpSize, device.maxThreadsPerBlock, (int)COLUMN_THREADS);
    if (device.major > 9)
        fprintf(stderr, "vbon: note: %s has compute capability %d.%d, later than this build's machine code: the driver "
                "compiles it at the first start\n", device.name, device.major, device.minor);
    check(cudaSetDevice(own), device.name);
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
    for (int i = 0; i < 2; i++) check(cudaEventCreateWithFlags(&arrived[i], cudaEventDisableTiming), "event");
    device_gemm_start();
}

extern "C" CudaLimits cuda_limits(void) // after the first ops_cuda
{
    CudaLimits l = {device.name, cuda_free_bytes(), device.sharedMemPerBlockOptin};
    return l;
}

extern "C" const Ops *ops_cuda(DType type)
{
    static Ops in_float, in_bf16;
    if (!stream) {
        start_device();
        in_float = in_bf16 = make_table();
        in_float.type = DT_F32;
        in_bf16.type = DT_BF16;
        in_bf16.matmul_forward = cuda_matmul_forward_tf32;
        in_bf16.attention_forward = cuda_attention_forward_tf32;
    }
    return type == DT_BF16 ? &in_bf16 : &in_float;
}
