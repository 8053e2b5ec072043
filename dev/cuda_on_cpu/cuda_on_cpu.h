// cuda_on_cpu.h: what a CUDA kernel needs in order to be compiled by g++ and run on the CPU.
//
// NVIDIA's own headers compile under plain g++: there __global__ and __device__ expand to nothing and the types are
// ordinary structs. This header adds the rest: where threadIdx comes from, what __shared__ means, the operations by
// which threads meet (barriers, shuffles, votes, reductions), atomics, cached loads and the fast mathematics. The
// program's other half is cuda_on_cpu.cpp, which runs the threads (scheduler.h) and implements the runtime's calls
// (runtime.h). So one source, vbon.cu, is both what runs on a GPU and what the tests run, a debugger steps through, and
// the sanitizers watch. README.md in this folder says how, and what this cannot show.
//
// Easy to get wrong in a kernel, and refused or reported here:
//  - Launch with LAUNCH, dynamic shared memory by DYNAMIC_SHARED. __shared__ arrays stand in the kernel itself, not in
//  what it calls.
//  - The lanes named in a mask all come to the same line; a lane reads no lane that is not in the mask.
//  - A shuffle or a vote orders no memory: __syncwarp() does (within a warp), __syncthreads() does (within a block).
//  - Kernels take pointers as arguments, not inside structs: only arguments are checked against device memory.
//  - A NaN must not be compared or made. Fill what a tile has beyond its matrix with zeros.
//
// Left out on purpose: __activemask, cooperative groups, textures, dynamic parallelism,
// clusters, TMA, spinning on another block.
#pragma once
#include <cuda_runtime.h>
#include <cuda_bf16.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <functional>
#include <type_traits>

// ----------------------------------------------------------------------------
// functions and memory

// Internal linkage makes the __shared__ arrays of templates ordinary variables, which
// AddressSanitizer puts red zones around.
#undef __global__
#define __global__ static __attribute__((unused))
#define __launch_bounds__(...)
#undef __shared__
#ifdef __SANITIZE_ADDRESS__
// There are no red zones around thread-local variables, so in this build blocks run one after the other.
#define __shared__ static
#else
// One copy for each OS thread, that is, for each block that is running.
#define __shared__ static thread_local
#endif
#define DYNAMIC_SHARED(type, name) type *name = reinterpret_cast<type *>(simt::dynamic_shared)

extern __thread uint3 threadIdx, blockIdx;
extern __thread dim3 blockDim, gridDim;
static const int warpSize = 32;

namespace simt {

// Where in the source something was called: as a default argument it is the caller's file and line.
struct Site {
    const char *file;
    int line;
};
#define SIMT_SITE simt::Site at = {__builtin_FILE(), __builtin_LINE()}

// One report with kernel, block, thread and source lines; aborts
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
extern __thread unsigned char *dynamic_shared;

// ----------------------------------------------------------------------------
// launching

struct Argument {
    const void *pointer; // NULL for an argument that is not a pointer
    bool writes;         // the kernel takes it as a pointer to something not const
    bool index;          // to const ints
    uint64_t bits;       // of an argument that is not a pointer, the first eight bytes
};
struct Launch {
    const char *name;
    Site at;
    const void *kernel;
    dim3 grid, block;
    size_t shared;
    uint64_t key; // cost.h: launches of one key touch memory in the same way
    const void *ints[8]; // as far as the ints that they read, here, are the same
    const void *pointers[16]; // its arguments that are pointers, ascending: where buffers begin
};
// Checks the configuration and the pointers, and queues the launch on the stream.
void launch(const Launch &l, cudaStream_t stream, const Argument *arguments, size_t n, std::function<void()> call);

template <class T> Argument argument(const T &v)
{
    Argument a = {nullptr, false, false, 0};
    memcpy(&a.bits, (const void *)&v, sizeof v < sizeof a.bits ? sizeof v : sizeof a.bits);
    return a;
}
template <class T> Argument argument(T *const &p)
{
    return {(const void *)p, !std::is_const<T>::value, std::is_same<T, const int>::value, 0};
}

template <class... P> struct Launcher {
    const char *name;
    Site at;
    void (*kernel)(P...);
    void operator()(dim3 grid, dim3 block, size_t shared, cudaStream_t stream, P... args) const
    {
        const Argument list[] = {argument(args)..., {nullptr, false, false, 0}};
        void (*k)(P...) = kernel;
        launch({name, at, (const void *)k, grid, block, shared, 0, {}, {}}, stream, list, sizeof...(P),
            [=] { k(args...); });
    }
};
template <class... P> Launcher<P...> launcher(const char *name, void (*kernel)(P...), SIMT_SITE)
{
    return {name, at, kernel};
}

} // namespace simt

// LAUNCH(kernel, grid, block, shared bytes, stream, arguments...): kernel<<<grid, block,
// shared, stream>>>(arguments...) under nvcc.
#define LAUNCH(kernel, ...) simt::launcher(#kernel, kernel)(__VA_ARGS__)

// For the runtime's calls that name a kernel, which nvcc's half of cuda_runtime.h would provide.
template <class... P> cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute attribute, int value)
{
    return cudaFuncSetAttribute((const void *)kernel, attribute, value);
}

// C (M,N) = op(A) op(B) + beta C + bias on the stream, row-major: what lib/cublaslt.h asks of cuBLASLt. ta: A is stored
// (K,M); tb: B is stored (N,K). A and B are bfloat16 or float, C and bias (N, or NULL) bfloat16 or float.
void device_gemm(cudaStream_t stream, bool ta, bool tb, size_t M, size_t N, size_t K, const void *A, bool bf16,
    size_t lda, const void *B, size_t ldb, float beta, void *C, bool bf16_out, size_t ldc, const void *bias, bool tf32);
inline void device_gemm_start() {}

// How many launches there have been (replays of a graph included): a test can see that an
// operation launched a kernel at all.
extern "C" size_t cuda_on_cpu_launches(void);

// ----------------------------------------------------------------------------
// meeting points

namespace simt {

// A warp operation: every lane of `mask` leaves a pointer to its slot, and when the last has come `exchange` runs once
// over all of them. It is not watched by ThreadSanitizer and orders no memory, as on a GPU, unless `orders`.
typedef void (*Exchange)(void **slots, unsigned lanes);
void meet_warp(unsigned mask, Exchange exchange, void *slot, Site at, bool orders = false);
void meet_block(Site at);
// ThreadSanitizer: orders what precedes a __threadfence before what follows a later atomic or fence
void fence(bool releases);
#define SIMT_EXCHANGE __attribute__((no_sanitize("thread"), no_sanitize("address"))) static void

inline int thread_id() { return (int)(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)); }
inline int lane_id() { return thread_id() % 32; }

SIMT_EXCHANGE nothing(void **, unsigned) {}

template <class T> struct Shuffle {
    T in, out;
    int from;
};
template <class T> SIMT_EXCHANGE shuffle(void **slots, unsigned lanes)
{
    for (int i = 0; i < 32; i++) if (lanes >> i & 1) {
        Shuffle<T> *me = (Shuffle<T> *)slots[i];
        if (!(lanes >> me->from & 1)) fail("lane %d shuffles from lane %d, which takes no part", i, me->from);
        __builtin_memcpy((void *)&me->out, (void *)&((Shuffle<T> *)slots[me->from])->in, sizeof(T));
    }
}
template <class T> T shuffle_from(unsigned mask, T v, int from, Site at)
{
    Shuffle<T> slot = {v, v, from};
    meet_warp(mask, shuffle<T>, &slot, at);
    return slot.out;
}

struct Vote {
    bool yes;
    unsigned ballot;
};
SIMT_EXCHANGE vote(void **slots, unsigned lanes)
{
    unsigned ballot = 0;
    for (int i = 0; i < 32; i++) if (lanes >> i & 1) ballot |= (unsigned)((Vote *)slots[i])->yes << i;
    for (int i = 0; i < 32; i++) if (lanes >> i & 1) ((Vote *)slots[i])->ballot = ballot;
}

struct Add { template <class T> T operator()(T a, T b) const { return a + b; } };
struct Min { template <class T> T operator()(T a, T b) const { return b < a ? b : a; } };
struct Max { template <class T> T operator()(T a, T b) const { return a < b ? b : a; } };
struct And { template <class T> T operator()(T a, T b) const { return a & b; } };
struct Or  { template <class T> T operator()(T a, T b) const { return a | b; } };
struct Xor { template <class T> T operator()(T a, T b) const { return a ^ b; } };
template <class T, class F> SIMT_EXCHANGE reduce(void **slots, unsigned lanes)
{
    int first = __builtin_ctz(lanes);
    T sum = *(T *)slots[first];
    for (int i = first + 1; i < 32; i++) if (lanes >> i & 1) sum = F()(sum, *(T *)slots[i]);
    for (int i = 0; i < 32; i++) if (lanes >> i & 1) *(T *)slots[i] = sum;
}
template <class F, class T> T reduce_all(unsigned mask, T v, Site at)
{
    static_assert(std::is_same<T, int>::value || std::is_same<T, unsigned>::value,
        "__reduce_*_sync take int or unsigned");
    meet_warp(mask, reduce<T, F>, &v, at);
    return v;
}

} // namespace simt

inline void __syncthreads(SIMT_SITE) { simt::meet_block(at); }
inline void __syncwarp(unsigned mask = ~0u, SIMT_SITE) { simt::meet_warp(mask, simt::nothing, nullptr, at, true); }

template <class T> T __shfl_sync(unsigned mask, T v, int from, int width = 32, SIMT_SITE)
{
    int group = simt::lane_id() & ~(width - 1);
    return simt::shuffle_from(mask, v, group | (from & (width - 1)), at);
}
template <class T> T __shfl_xor_sync(unsigned mask, T v, int with, int width = 32, SIMT_SITE)
{
    int lane = simt::lane_id(), from = (lane ^ with) & 31, end = (lane & ~(width - 1)) + width;
    return simt::shuffle_from(mask, v, from < end ? from : lane, at);
}
template <class T> T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32, SIMT_SITE)
{
    int lane = simt::lane_id(), from = lane + (int)by, end = (lane & ~(width - 1)) + width;
    return simt::shuffle_from(mask, v, from < end ? from : lane, at);
}
template <class T> T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32, SIMT_SITE)
{
    int lane = simt::lane_id(), from = lane - (int)by, start = lane & ~(width - 1);
    return simt::shuffle_from(mask, v, from >= start ? from : lane, at);
}
inline unsigned __ballot_sync(unsigned mask, int yes, SIMT_SITE)
{
    simt::Vote slot = {yes != 0, 0};
    simt::meet_warp(mask, simt::vote, &slot, at);
    return slot.ballot;
}
inline int __any_sync(unsigned mask, int yes, SIMT_SITE) { return __ballot_sync(mask, yes, at) != 0; }
inline int __all_sync(unsigned mask, int yes, SIMT_SITE) { return __ballot_sync(mask, !yes, at) == 0; }
template <class T> T __reduce_add_sync(unsigned mask, T v, SIMT_SITE)
{
    return simt::reduce_all<simt::Add>(mask, v, at);
}
template <class T> T __reduce_min_sync(unsigned mask, T v, SIMT_SITE)
{
    return simt::reduce_all<simt::Min>(mask, v, at);
}
template <class T> T __reduce_max_sync(unsigned mask, T v, SIMT_SITE)
{
    return simt::reduce_all<simt::Max>(mask, v, at);
}
template <class T> T __reduce_and_sync(unsigned mask, T v, SIMT_SITE)
{
    return simt::reduce_all<simt::And>(mask, v, at);
}
template <class T> T __reduce_or_sync(unsigned mask, T v, SIMT_SITE) { return simt::reduce_all<simt::Or>(mask, v, at); }
template <class T> T __reduce_xor_sync(unsigned mask, T v, SIMT_SITE)
{
    return simt::reduce_all<simt::Xor>(mask, v, at);
}

inline void __threadfence() { simt::fence(true); }
inline void __threadfence_block() { simt::fence(true); }

// ----------------------------------------------------------------------------
// atomics: real ones, since blocks run on several OS threads. They order nothing by themselves.

namespace simt {
// Keeps an argument out of template deduction: atomicAdd(&unsigned, 1)
template <class T> struct as_is { typedef T type; };
template <class T, class F> T update(T *p, F f)
{
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "atomics are on 32 or 64 bits");
    typedef typename std::conditional<sizeof(T) == 8, uint64_t, uint32_t>::type Bits;
    Bits was = __atomic_load_n((Bits *)p, __ATOMIC_RELAXED), now;
    T old;
    do {
        memcpy(&old, &was, sizeof old);
        T next = f(old);
        memcpy(&now, &next, sizeof now);
    } while (!__atomic_compare_exchange_n((Bits *)p, &was, now, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    fence(false);
    return old;
}
} // namespace simt
#define SIMT_ATOMIC(name, expression) \
    template <class T> T name(T *p, typename simt::as_is<T>::type v) \
    { \
        return simt::update(p, [=](T x) { return (T)(expression); }); \
    }
SIMT_ATOMIC(atomicAdd, x + v)
SIMT_ATOMIC(atomicMin, v < x ? v : x)
SIMT_ATOMIC(atomicMax, x < v ? v : x)
SIMT_ATOMIC(atomicOr, x | v)
SIMT_ATOMIC(atomicExch, ((void)x, v))
template <class T> T atomicCAS(T *p, typename simt::as_is<T>::type compare, typename simt::as_is<T>::type v)
{
    return simt::update(p, [=](T x) { return x == compare ? v : x; });
}

// ----------------------------------------------------------------------------
// loads and stores with a cache hint, bits, mathematics

#define SIMT_LOAD(name) template <class T> T name(const T *p) { return *p; }
#define SIMT_STORE(name) template <class T> void name(T *p, typename simt::as_is<T>::type v) { *p = v; }
SIMT_LOAD(__ldg) SIMT_LOAD(__ldcs) SIMT_LOAD(__ldcg) SIMT_LOAD(__ldca) SIMT_LOAD(__ldlu) SIMT_LOAD(__ldcv)
SIMT_STORE(__stcs) SIMT_STORE(__stcg) SIMT_STORE(__stwb) SIMT_STORE(__stwt)

namespace simt {
template <class To, class From> To bits(From from)
{
    static_assert(sizeof(To) == sizeof(From), "equal sizes");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
} // namespace simt
inline unsigned __float_as_uint(float x) { return simt::bits<unsigned>(x); }
inline int __float_as_int(float x) { return simt::bits<int>(x); }
inline float __uint_as_float(unsigned x) { return simt::bits<float>(x); }
inline float __int_as_float(int x) { return simt::bits<float>(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __float2int_rn(float x) { return (int)nearbyintf(x); }

template <class A, class B> typename std::common_type<A, B>::type max(A a, B b)
{
    typedef typename std::common_type<A, B>::type C;
    return (C)a < (C)b ? (C)b : (C)a;
}
template <class A, class B> typename std::common_type<A, B>::type min(A a, B b)
{
    typedef typename std::common_type<A, B>::type C;
    return (C)b < (C)a ? (C)b : (C)a;
}

// Macros, because the C library declares functions of these names. On a GPU the fast ones are less exact than here.
#define rsqrtf(x) (1.0f / sqrtf(x))
#define __expf expf
#define __logf logf
#define __powf powf
#define __fdividef(a, b) ((a) / (b))
#define __frcp_rn(x) (1.0f / (x))
#define __saturatef(x) fminf(fmaxf(x, 0.0f), 1.0f)
#define __trap() simt::fail("__trap() at %s:%d", __FILE__, __LINE__)
