// vbon.c: the CPU operations (ops_cpu), the flag table and main.
//
// It implements the op table of gpt2.h on the CPU: plain loops with OpenMP, oneDNN for matrix products, packed weights by hand. These are the
// reference that the CUDA kernels of vbon.cu are compared with, op by op, so they stay plain where speed does not matter; where it
// does (products, attention, the softmax over the vocabulary) they are written so that the compiler vectorises them. `real` is float;
// -Dreal=double builds all of it in double, without oneDNN, and is what gradients are checked in.
//
// Easy to get wrong:
//  - A reduction's order must not depend on the thread schedule, or two equal runs differ: sums over rows are kept per thread
//    under a static schedule and added in thread order; sumsq adds fixed chunks.
//  - Never -Ofast or -ffast-math here: under it isnan() is constant 0 and a NaN passes every check.
//  - Few and large parallel regions, and threads that soon sleep when they wait (main sees to it): beside one busy
//    foreign thread spinning barriers cost 20 to 100 times the work.
#ifndef VBON_IMPLEMENTATION
#define VBON_IMPLEMENTATION
#endif
#define STB_DS_IMPLEMENTATION
#include <stddef.h>
#include <stdlib.h>
void *xrealloc(void *p, size_t bytes); // of gpt2.h: memory that runs out ends the program, in the libraries too
#define STBDS_REALLOC(context, p, bytes) xrealloc(p, bytes)
#define STBDS_FREE(context, p) free(p)
#include <stb/stb_ds.h>   // hash maps and growing arrays
#pragma push_macro("real") // jansson has parameters of that name
#undef real
#include <jansson.h>      // JSON
#pragma pop_macro("real")
#include <omp.h>
#include <limits.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "gpt2.h"
#include "ppo.h"
#include "lib/onednn.h"

// ----------------------------------------------------------------------------
// precision and memory

static bool cpu_bf16;    // --precision bf16: products take bfloat16 inputs, sums and everything else stay fp32

static inline real *R_(Buf b) { return (real *)b.p; }
static inline int *I_(Buf b) { return (int *)b.p; }

#ifdef DEBUG
static void need(const char *op, Buf b, size_t n, DType type)
{
    if (b.p && (b.n < n || b.type != type)) die("%s: %s has %zu elements of type %d, needs %zu of type %d", op, b.name ? b.name : "?", b.n, b.type, n, type);
}
#define NEED(b, count) need(__func__, b, count, DT_REAL)
#define NEED_INDEX(b, count) need(__func__, b, count, DT_I32)
#else
#define NEED(b, count) ((void)0)
#define NEED_INDEX(b, count) ((void)0)
#endif

#define SMALL 16384 // below this many elements a parallel region costs more than it saves

// Bytes that this program can ever hold: the machine's memory, or less where its control group says so.
static double machine_memory(void)
{
    static double bytes;
    if (bytes > 0) return bytes;
    struct sysinfo s;
    bytes = sysinfo(&s) ? INFINITY : ((double)s.totalram + (double)s.totalswap) * s.mem_unit;
    static const char *const limits[] = {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"};
    for (int i = 0; i < 2; i++) {
        FILE *f = fopen(limits[i], "r");
        double limit;
        if (f && fscanf(f, "%lf", &limit) == 1 && limit > 0 && limit < bytes) bytes = limit; // "max" is no number
        if (f) fclose(f);
    }
    return bytes;
}

// Memory is asked for before a run begins, and so must be refused then. The system grants more than it has, and ends the
// program when it is used: so the sum is held against the machine's. And where address space is limited some must be left
// for the products: oneDNN 2's sgemm writes through what its own malloc returned, NULL too, in its calls and when it writes
// the code for the first of a kind.
static size_t granted;
static void grant(size_t bytes, const char *name)
{
    const double MiB = 1048576, left = 48 + 8 * (double)omp_get_max_threads();
    const char *remedy = "lower --micro-tokens, --decode-rows, --rollout or --max-new, or see vbon info";
    if ((double)granted + (double)bytes > machine_memory())
        die("out of memory: %s needs %.1f MiB, and %.1f are taken of %.1f: %s", name, (double)bytes / MiB,
            (double)granted / MiB, machine_memory() / MiB, remedy);
    void *room = mmap(NULL, bytes + (size_t)(left * MiB), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED)
        die("out of memory: %s needs %.1f MiB, and %.0f for products: %s", name, (double)bytes / MiB, left, remedy);
    munmap(room, bytes + (size_t)(left * MiB));
    granted += bytes;
#ifdef VBON_ONEDNN
    static bool prepared;
    struct rlimit addresses;
    if (!prepared && !getrlimit(RLIMIT_AS, &addresses) && addresses.rlim_cur != RLIM_INFINITY) onednn_prepare();
    prepared = true;
#endif
}

static Buf cpu_alloc(size_t n, DType type, const char *name)
{
    size_t huge = 2u << 20, bytes = checked_product(name, n, dtype_size(type));
    grant(bytes, name);
    size_t align = bytes >= huge ? huge : 256;
    Buf b = {aligned_alloc(align, (bytes + align - 1) / align * align + (bytes ? 0 : align)), n, type, name};
    if (!b.p) die("out of memory: %s needs %.1f MiB: lower --micro-tokens, or see vbon info", name, (double)bytes / 1048576);
#ifdef MADV_HUGEPAGE
    if (bytes >= huge) madvise(b.p, bytes, MADV_HUGEPAGE); // 10 to 35 % of read bandwidth
#endif
    return b;
}

static void cpu_release(Buf *b)
{
    granted -= b->p ? b->n * dtype_size(b->type) : 0;
    free(b->p);
    b->p = NULL;
}
static void cpu_upload(Buf dst, const void *src) { memcpy(dst.p, src, dst.n * dtype_size(dst.type)); }
static void cpu_download(void *dst, Buf src) { memcpy(dst, src.p, src.n * dtype_size(src.type)); }
static void cpu_copy(Buf dst, Buf src) { memcpy(dst.p, src.p, dst.n * dtype_size(dst.type)); }

static void cpu_fill(Buf dst, double value)
{
    if (dst.type == DT_REAL) {
        real *d = R_(dst);
        #pragma omp parallel for simd schedule(static) if (dst.n > 8 * SMALL)
        for (size_t i = 0; i < dst.n; i++) d[i] = (real)value;
    } else if (dst.type == DT_F64) for (size_t i = 0; i < dst.n; i++) ((double *)dst.p)[i] = value;
    else if (dst.type == DT_I32) for (size_t i = 0; i < dst.n; i++) I_(dst)[i] = (int)value;
    else memset(dst.p, (int)value, dst.n * dtype_size(dst.type));
}

// Memory of one op call that outlives it only as capacity; one block for each use, grown to the largest ever asked for.
typedef struct { void *p; size_t bytes; } Scratch;
static void *scratch(Scratch *s, size_t bytes)
{
    if (bytes > s->bytes) {
        free(s->p);
        s->p = aligned_alloc(256, (bytes + 255) / 256 * 256);
        if (!s->p) die("out of memory: %.1f MiB of scratch: lower --micro-tokens", (double)bytes / 1048576);
        s->bytes = bytes;
    }
    return s->p;
}

// exp for loops: the library's in double, in float one that vectorises (relative error 1e-7, 0 below -87).
static inline real exp_(real x)
{
    if (sizeof(real) == 8) return (real)exp(x);
    float y = x < -87 ? -87.0f : x > 88 ? 88.0f : (float)x;
    float n = rintf(y * 1.44269504f), r = fmaf(n, -0.693359375f, y);
    r = fmaf(n, 2.12194440e-4f, r);
    float e = fmaf(fmaf(fmaf(fmaf(fmaf(1.9875691500e-4f, r, 1.3981999507e-3f), r, 8.3334519073e-3f), r, 4.1665795894e-2f), r, 1.6666665459e-1f), r, 5.0000001201e-1f);
    e = fmaf(e * r, r, r) + 1.0f;
    union { float f; int32_t i; } scale = {.i = ((int32_t)(n >= -126 ? n : -126.0f) + 127) << 23}; // of NaN: it stays in e
    return x < -87 ? 0 : e * scale.f;
}

static inline real tanh_(real x)
{
    if (sizeof(real) == 8) return (real)tanh(x);
    float a = fabsf((float)x), t = 1 - 2 / ((float)exp_(2 * a) + 1);
    return copysignf(a < 1e-3f ? a : t, (float)x); // tanh x = x - x^3/3, below float's rounding there
}

// In float 1 - exp(-x^2) t P(t), t = 1/(1 + 0.4 |x|); P's coefficients minimise the largest error, 3e-8 before rounding and 4e-7 with it.
static inline real erf_(real x)
{
    if (sizeof(real) == 8) return (real)erf(x);
    float a = fabsf((float)x), t = 1 / fmaf(0.4f, a, 1);
    float p = fmaf(fmaf(fmaf(fmaf(fmaf(-0.20025976f, t, 0.70914941f), t, -0.37091131f), t, 0.46827689f), t, 0.16182247f), t, 0.23192227f);
    return copysignf(fmaf(-t * p, (float)exp_((real)(-a * a)), 1), (float)x);
}

// ----------------------------------------------------------------------------
// matrix products: C (M,N) = op(A) op(B) + beta C, row-major; ta: A is stored (K,M), tb: B is stored (N,K)

#ifndef VBON_ONEDNN
static void gemm(bool ta, bool tb, size_t M, size_t N, size_t K, const real *A, size_t lda, const real *B, size_t ldb, real beta, real *C, size_t ldc)
{
    #pragma omp parallel for schedule(static) if (M * N * K > 64 * SMALL)
    for (size_t i = 0; i < M; i++) {
        real *c = C + i * ldc;
        if (beta == 0) for (size_t j = 0; j < N; j++) c[j] = 0;
        if (!tb) {
            for (size_t k = 0; k < K; k++) {
                real a = ta ? A[k * lda + i] : A[i * lda + k];
                const real *b = B + k * ldb;
                for (size_t j = 0; j < N; j++) c[j] += a * b[j];
            }
            continue;
        }
        for (size_t j = 0; j < N; j++) {
            const real *b = B + j * ldb;
            real sum = 0;
            if (ta) for (size_t k = 0; k < K; k++) sum += A[k * lda + i] * b[k];
            else {
                const real *a = A + i * lda;
                #pragma omp simd reduction(+:sum)
                for (size_t k = 0; k < K; k++) sum += a[k] * b[k];
            }
            c[j] += sum;
        }
    }
}
#else
static void gemm(bool ta, bool tb, size_t M, size_t N, size_t K, const real *A, size_t lda, const real *B, size_t ldb, real beta, real *C, size_t ldc)
{
    onednn_sgemm(ta, tb, M, N, K, A, lda, B, ldb, beta, C, ldc);
}
#endif

// Whether the library multiplies bfloat16 on this CPU (products by packed weights are ours, below). Where it does not, --precision bf16
// means the same mathematics (inputs rounded to bfloat16, sums in fp32), computed by its fp32 products and no faster.
static bool bf16_native(void)
{
#ifdef VBON_ONEDNN
    return onednn_has_bf16();
#else
    return false;
#endif
}

// x (n) as a bfloat16 product takes it: bfloat16 words where they are native, else reals that bfloat16 can hold
static const void *in_bf16(Scratch *s, const real *x, size_t n)
{
    void *out = scratch(s, n * sizeof *x);
    if (bf16_native()) {
        #pragma omp parallel for simd schedule(static) if (n > 8 * SMALL)
        for (size_t i = 0; i < n; i++) ((uint16_t *)out)[i] = bf16_round((float)x[i]);
    } else {
        #pragma omp parallel for simd schedule(static) if (n > 8 * SMALL)
        for (size_t i = 0; i < n; i++) ((real *)out)[i] = (real)bf16_value(bf16_round((float)x[i]));
    }
    return out;
}

// The same product, its inputs in bfloat16 where --precision says so; dense operands (lda, ldb, ldc as the shapes have it).
static void gemm_bf16(bool ta, bool tb, size_t M, size_t N, size_t K, const real *A, size_t lda, const real *B, size_t ldb, real beta, real *C, size_t ldc)
{
    static Scratch sa, sb;
    const void *a = cpu_bf16 ? in_bf16(&sa, A, M * K) : A, *b = cpu_bf16 ? in_bf16(&sb, B, K * N) : B;
#ifdef VBON_ONEDNN
    if (cpu_bf16 && bf16_native()) { onednn_bf16gemm(ta, tb, M, N, K, (const uint16_t *)a, (const uint16_t *)b, beta, C); return; }
#endif
    gemm(ta, tb, M, N, K, (const real *)a, lda, (const real *)b, ldb, beta, C, ldc);
}

// ----------------------------------------------------------------------------
// packed weights: products by the same weights again and again (decoding, prefill, scoring), most often with few rows
//
// A weight w (OC,C) becomes panels of PANEL outputs, panel[C][PANEL], zeros beyond the last output: one long read. In bfloat16 a word holds
// two places: panel[(C+1)/2][PANEL], multiplied as pairs where the CPU can, else made floats on the way: half the bytes to read, the same arithmetic.
// TILE_K rows of a panel are a piece of 16 KiB, half of the first cache. Tiles of up to TILE_ROWS rows of the input take turns at a piece,
// their sums in registers (6 x 2 vectors, two of w and one of x: 15 of AVX2's 16; AVX-512 has 32), and each fetches a share of the next piece, the smaller
// the more tiles there are: with few rows reading the weights is most of the time. Threads share out panels times chunks of at most CHUNK_ROWS rows. A row's sums have one order
// whatever stands beside it: its results are the same bits in any batch and with any number of threads.

#if defined __AVX512F__
#define VECTOR_BYTES 64
#elif defined __AVX__
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
typedef real Vector __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));
typedef uint32_t Words __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));
#ifdef __AVX512BF16__ // one instruction multiplies pairs of bfloat16 and adds both products
#include <immintrin.h>
enum { BF16_DOT = 1 };
static inline Vector pair_dot(Vector sum, const void *x, Vector w)
{
    int pair;
    memcpy(&pair, x, sizeof pair);
    return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(pair), (__m512bh)w);
}
#else
enum { BF16_DOT = 0 };
static inline Vector pair_dot(Vector sum, const void *x, Vector w) { (void)x; (void)w; return sum; } // never called
#endif
enum { LANES = VECTOR_BYTES / sizeof(real), PANEL = 2 * LANES, TILE_ROWS = VECTOR_BYTES == 64 ? 8 : 6, TILE_K = 16384 / (PANEL * sizeof(real)), CHUNK_ROWS = 192 };
_Static_assert(TILE_ROWS <= 8, "packed_product has a case for each number of rows, and tile unrolls so many");

static bool packs_bf16(void) { return cpu_bf16 && sizeof(real) == sizeof(uint32_t); } // in double: rounded to bfloat16, kept as double

static size_t cpu_packed_size(size_t OC, size_t C) { return (OC + PANEL - 1) / PANEL * PANEL * (packs_bf16() ? (C + 1) / 2 : C) * sizeof(real); }

static void cpu_pack(Buf out, Buf w, size_t OC, size_t C)
{
    const real *from = R_(w);
    bool pairs = packs_bf16();
    size_t K = pairs ? (C + 1) / 2 : C;
    #pragma omp parallel for schedule(static) if (OC * C > SMALL)
    for (size_t j0 = 0; j0 < OC; j0 += PANEL) {
        real *panel = R_(out) + j0 * K;
        for (size_t k = 0; k < K; k++)
            for (size_t j = 0; j < PANEL; j++) {
                bool in = j0 + j < OC;
                const real *row = from + (in ? j0 + j : 0) * C;
                if (pairs) ((uint32_t *)panel)[k * PANEL + j] = !in ? 0 : bf16_round((float)row[2 * k]) | (2 * k + 1 < C ? (uint32_t)bf16_round((float)row[2 * k + 1]) << 16 : 0);
                else panel[k * PANEL + j] = !in ? 0 : cpu_bf16 ? (real)bf16_value(bf16_round((float)row[k])) : row[k];
            }
    }
}

// x (N,C) as pairs of bfloat16 meet it: rows of an even length, of bfloat16 where BF16_DOT, else of reals that bfloat16 can hold
static const real *in_pairs(Scratch *s, const real *x, size_t N, size_t C)
{
    size_t even = (C + 1) / 2 * 2;
    void *out = scratch(s, N * even * sizeof *x);
    #pragma omp parallel for schedule(static) if (N * C > 8 * SMALL)
    for (size_t i = 0; i < N; i++)
        for (size_t c = 0; c < even; c++) {
            uint16_t b = c < C ? bf16_round((float)x[i * C + c]) : 0;
            if (BF16_DOT) ((uint16_t *)out)[i * even + c] = b;
            else ((real *)out)[i * even + c] = (real)bf16_value(b);
        }
    return (const real *)out;
}

// n words of each output of a panel as floats, which are the upper halves of theirs
static void unpair(real *out, const real *w, size_t n)
{
    for (size_t k = 0; k < n; k++)
        for (size_t j = 0; j < PANEL; j += LANES) {
            Words pair = *(const Words *)(w + k * PANEL + j);
            *(Words *)(out + 2 * k * PANEL + j) = pair << 16;
            *(Words *)(out + (2 * k + 1) * PANEL + j) = pair & 0xffff0000u;
        }
}

// out (rows,width) = or += x (rows,K) w (K,PANEL), width <= PANEL, pairs of bfloat16 if `pairs`; x is a row every X reals, out every OC. Meanwhile fetches K places from next, `step` apart (0: none).
static inline __attribute__((always_inline)) void tile(real *out, size_t OC, size_t width, const real *x, size_t X, const real *w, size_t K, int rows, bool pairs, bool add, const real *next, size_t step)
{
    Vector sum[TILE_ROWS][2];
    #pragma GCC unroll 8
    for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = (Vector){0};
    for (size_t k = 0; k < K; k++) {
        Vector w0 = *(const Vector *)(w + k * PANEL), w1 = *(const Vector *)(w + k * PANEL + LANES);
        if (step) {
            __builtin_prefetch(next + k * step);
            if (VECTOR_BYTES == 64) __builtin_prefetch(next + k * step + LANES);
        }
        if (!pairs) {
            #pragma GCC unroll 8
            for (int r = 0; r < rows; r++) { sum[r][0] += x[(size_t)r * X + k] * w0; sum[r][1] += x[(size_t)r * X + k] * w1; }
        } else {
            #pragma GCC unroll 8
            for (int r = 0; r < rows; r++) { sum[r][0] = pair_dot(sum[r][0], x + (size_t)r * X + k, w0); sum[r][1] = pair_dot(sum[r][1], x + (size_t)r * X + k, w1); }
        }
    }
    #pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        real *o = out + (size_t)r * OC, last[PANEL] = {0};
        Vector *to = (Vector *)(width == PANEL ? o : last);
        if (width < PANEL && add) memcpy(last, o, width * sizeof *o);
        if (add) { sum[r][0] += to[0]; sum[r][1] += to[1]; }
        to[0] = sum[r][0]; to[1] = sum[r][1];
        if (width < PANEL) memcpy(o, last, width * sizeof *o);
    }
}

// out (N,OC) = or += inp (N,C) w^T, w packed, and inp of in_pairs if it is of pairs
static void packed_product(real *out, const real *inp, const real *w, size_t N, size_t C, size_t OC, bool add)
{
    bool pairs = packs_bf16(), expand = pairs && !BF16_DOT;
    size_t K = pairs ? (C + 1) / 2 : C, X = expand ? 2 * K : K; // places of a panel, reals of a row of inp
    size_t panels = (OC + PANEL - 1) / PANEL, chunks = (N + CHUNK_ROWS - 1) / CHUNK_ROWS;
    while (chunks * panels < (size_t)omp_get_max_threads() && chunks * TILE_ROWS < N) chunks++; // something for every thread
    #pragma omp parallel for collapse(2) schedule(static) if (N * X * OC > 16 * SMALL)
    for (size_t i = 0; i < chunks; i++) {
        for (size_t j = 0; j < OC; j += PANEL) {
            size_t first = N * i / chunks, rows = N * (i + 1) / chunks - first, tiles = (rows + TILE_ROWS - 1) / TILE_ROWS, width = OC - j < PANEL ? OC - j : PANEL;
            for (size_t k = 0, most = expand ? TILE_K / 2 : TILE_K; k < K; k += most) {
                real floats[TILE_K * PANEL] __attribute__((aligned(64)));
                size_t words = K - k < most ? K - k : most, n = expand ? 2 * words : words, step = PANEL / tiles * words / n;
                const real *piece = w + (j * K + k * PANEL), *next = piece + words * PANEL;
                if (expand) { unpair(floats, piece, words); piece = floats; }
                for (size_t t = 0; t < tiles; t++) {
                    size_t from = first + rows * t / tiles, to = first + rows * (t + 1) / tiles;
                    #define TILE(rows, dot) tile(out + from * OC + j, OC, width, inp + from * X + (expand ? 2 * k : k), X, piece, n, rows, dot, add || k, next + t * n * step, step)
                    #define CASE(rows) case rows: if (rows > TILE_ROWS) break; if (BF16_DOT && pairs) TILE(rows, true); else TILE(rows, false); break
                    switch (to - from) { CASE(1); CASE(2); CASE(3); CASE(4); CASE(5); CASE(6); CASE(7); CASE(8); }
                    #undef CASE
                    #undef TILE
                }
            }
        }
    }
}

// out (N,OC) = or += inp (N,C) w^T, w packed or not
static void product(real *out, const real *inp, Buf w, size_t N, size_t C, size_t OC, bool add)
{
    static Scratch s;
    if (w.type != DT_PACKED) { gemm_bf16(false, true, N, OC, C, inp, C, R_(w), C, add, out, OC); return; }
#ifdef DEBUG
    need(__func__, w, cpu_packed_size(OC, C), DT_PACKED);
#endif
    const real *x = packs_bf16() ? in_pairs(&s, inp, N, C) : cpu_bf16 ? (const real *)in_bf16(&s, inp, N * C) : inp;
    packed_product(out, x, R_(w), N, C, OC, add);
}

static void cpu_matmul_forward(Buf out, Buf inp, Buf w, Buf b, size_t N, size_t C, size_t OC)
{
    NEED(out, N * OC); NEED(inp, N * C); NEED(b, OC);
    if (b.p) {
        #pragma omp parallel for schedule(static) if (N * OC > 8 * SMALL)
        for (size_t i = 0; i < N; i++) memcpy(R_(out) + i * OC, R_(b), OC * sizeof(real));
    }
    product(R_(out), R_(inp), w, N, C, OC, b.p != NULL);
}

// dst (C) += the column sums of x (N,C)
static void column_sums(real *dst, const real *x, size_t N, size_t C)
{
    #pragma omp parallel for schedule(static) if (N * C > 8 * SMALL)
    for (size_t j0 = 0; j0 < C; j0 += 64) {
        real sum[64] = {0};
        size_t w = C - j0 < 64 ? C - j0 : 64;
        for (size_t i = 0; i < N; i++)
            for (size_t j = 0; j < w; j++) sum[j] += x[i * C + j0 + j];
        for (size_t j = 0; j < w; j++) dst[j0 + j] += sum[j];
    }
}

static void cpu_matmul_backward(Buf dinp, Buf dw, Buf db, Buf dout, Buf inp, Buf w, size_t N, size_t C, size_t OC)
{
    NEED(dinp, N * C); NEED(dw, OC * C); NEED(db, OC); NEED(dout, N * OC); NEED(inp, N * C); NEED(w, OC * C);
    if (dinp.p) gemm_bf16(false, false, N, C, OC, R_(dout), OC, R_(w), C, 0, R_(dinp), C);
    if (dw.p) gemm_bf16(true, false, OC, C, N, R_(dout), OC, R_(inp), C, 1, R_(dw), C);
    if (db.p) column_sums(R_(db), R_(dout), N, OC);
}

// ----------------------------------------------------------------------------
// embedding, layer norm, activations

static void cpu_embed_forward(Buf out, Buf tokens, Buf pos, Buf wte, Buf wpe, size_t N, size_t C)
{
    NEED(out, N * C); NEED_INDEX(tokens, N); NEED_INDEX(pos, N);
    #pragma omp parallel for schedule(static) if (N * C > 4 * SMALL)
    for (size_t i = 0; i < N; i++) {
        real *o = R_(out) + i * C;
        const real *t = R_(wte) + (size_t)I_(tokens)[i] * C, *p = wpe.p ? R_(wpe) + (size_t)I_(pos)[i] * C : NULL;
        for (size_t j = 0; j < C; j++) o[j] = t[j] + (p ? p[j] : 0);
    }
}

static void cpu_embed_backward(Buf dwte, Buf dwpe, Buf dout, Buf tokens, Buf pos, size_t N, size_t C)
{
    NEED(dout, N * C);
    #pragma omp parallel for schedule(static) if (N * C > 4 * SMALL) // a column belongs to one thread: no two add to one place
    for (size_t j0 = 0; j0 < C; j0 += 16)
        for (size_t i = 0; i < N; i++) {
            const real *d = R_(dout) + i * C;
            real *t = R_(dwte) + (size_t)I_(tokens)[i] * C, *p = dwpe.p ? R_(dwpe) + (size_t)I_(pos)[i] * C : NULL;
            for (size_t j = j0; j < j0 + 16 && j < C; j++) { t[j] += d[j]; if (p) p[j] += d[j]; }
        }
}

static void cpu_layernorm_forward(Buf out, Buf mean, Buf rstd, Buf inp, Buf w, Buf b, size_t N, size_t C, double eps)
{
    NEED(out, N * C); NEED(mean, N); NEED(rstd, N); NEED(inp, N * C); NEED(w, C); NEED(b, C);
    const real *wp = R_(w), *bp = R_(b);
    #pragma omp parallel for schedule(static) if (N * C > 4 * SMALL)
    for (size_t i = 0; i < N; i++) {
        const real *x = R_(inp) + i * C;
        real *o = R_(out) + i * C, m = 0, v = 0;
        #pragma omp simd reduction(+:m)
        for (size_t j = 0; j < C; j++) m += x[j];
        m /= (real)C;
        #pragma omp simd reduction(+:v)
        for (size_t j = 0; j < C; j++) v += (x[j] - m) * (x[j] - m);
        real s = (real)(1 / sqrt((double)v / (double)C + eps));
        for (size_t j = 0; j < C; j++) o[j] = (x[j] - m) * s * wp[j] + bp[j];
        R_(mean)[i] = m;
        R_(rstd)[i] = s;
    }
}

static void cpu_layernorm_backward(Buf dinp, Buf dw, Buf db, Buf dout, Buf inp, Buf w, Buf mean, Buf rstd, size_t N, size_t C)
{
    NEED(dinp, N * C); NEED(dw, C); NEED(db, C); NEED(dout, N * C); NEED(inp, N * C);
    static Scratch s;
    size_t threads = (size_t)omp_get_max_threads();
    real *partial = scratch(&s, threads * 2 * C * sizeof *partial);
    memset(partial, 0, threads * 2 * C * sizeof *partial);
    #pragma omp parallel if (N * C > 4 * SMALL)
    {
        real *pw = partial + (size_t)omp_get_thread_num() * 2 * C, *pb = pw + C;
        const real *wp = R_(w);
        #pragma omp for schedule(static)
        for (size_t i = 0; i < N; i++) {
            const real *x = R_(inp) + i * C, *d = R_(dout) + i * C;
            real *dx = R_(dinp) + i * C, m = R_(mean)[i], r = R_(rstd)[i], sum = 0, dot = 0;
            // with n = (x - m) r and g = w d:  dx = r (g - mean(g) - n mean(g n))
            #pragma omp simd reduction(+:sum, dot)
            for (size_t j = 0; j < C; j++) {
                real n = (x[j] - m) * r, g = wp[j] * d[j];
                sum += g;
                dot += g * n;
            }
            sum /= (real)C;
            dot /= (real)C;
            for (size_t j = 0; j < C; j++) {
                real n = (x[j] - m) * r;
                dx[j] += r * (wp[j] * d[j] - sum - n * dot);
                pw[j] += d[j] * n;
                pb[j] += d[j];
            }
        }
    }
    for (size_t t = 0; t < threads && dw.p; t++)
        for (size_t j = 0; j < C; j++) {
            R_(dw)[j] += partial[t * 2 * C + j];
            R_(db)[j] += partial[t * 2 * C + C + j];
        }
}

static inline real gelu_tanh(real x) { return (real)0.5 * x * (1 + tanh_((real)0.7978845608028654 * (x + (real)0.044715 * x * x * x))); }
static inline real gelu_tanh_gradient(real x)
{
    real u = (real)0.7978845608028654 * (x + (real)0.044715 * x * x * x), t = tanh_(u);
    return (real)0.5 * (1 + t) + (real)0.5 * x * (1 - t * t) * (real)0.7978845608028654 * (1 + 3 * (real)0.044715 * x * x);
}
static inline real gelu_erf(real x) { return (real)0.5 * x * (1 + erf_(x * (real)0.7071067811865476)); }
static inline real gelu_erf_gradient(real x) { return (real)0.5 * (1 + erf_(x * (real)0.7071067811865476)) + x * (real)0.3989422804014327 * exp_((real)-0.5 * x * x); }

static void cpu_activation_forward(Buf out, Buf inp, Activation kind, size_t n)
{
    NEED(out, n); NEED(inp, n);
    real *o = R_(out);
    const real *x = R_(inp);
    if (kind == ACT_GELU_TANH) {
        #pragma omp parallel for simd schedule(static) if (n > SMALL)
        for (size_t i = 0; i < n; i++) o[i] = gelu_tanh(x[i]);
    } else if (kind == ACT_GELU_ERF) {
        #pragma omp parallel for simd schedule(static) if (n > SMALL)
        for (size_t i = 0; i < n; i++) o[i] = gelu_erf(x[i]);
    } else {
        #pragma omp parallel for simd schedule(static) if (n > SMALL)
        for (size_t i = 0; i < n; i++) o[i] = x[i] > 0 ? x[i] : 0;
    }
}

static void cpu_activation_backward(Buf dinp, Buf dout, Buf inp, Activation kind, size_t n)
{
    NEED(dinp, n); NEED(dout, n); NEED(inp, n);
    real *dx = R_(dinp), *d = R_(dout); // may be one buffer
    const real *x = R_(inp);
    if (kind == ACT_GELU_TANH) {
        #pragma omp parallel for simd schedule(static) if (n > SMALL)
        for (size_t i = 0; i < n; i++) dx[i] = d[i] * gelu_tanh_gradient(x[i]);
    } else if (kind == ACT_GELU_ERF) {
        #pragma omp parallel for simd schedule(static) if (n > SMALL)
        for (size_t i = 0; i < n; i++) dx[i] = d[i] * gelu_erf_gradient(x[i]);
    } else {
        #pragma omp parallel for simd schedule(static) if (n > SMALL)
        for (size_t i = 0; i < n; i++) dx[i] = x[i] > 0 ? d[i] : 0;
    }
}

static void cpu_add(Buf out, Buf a, Buf b, size_t n)
{
    NEED(out, n); NEED(a, n); NEED(b, n);
    real *o = R_(out);
    const real *x = R_(a), *y = R_(b);
    #pragma omp parallel for simd schedule(static) if (n > 8 * SMALL)
    for (size_t i = 0; i < n; i++) o[i] = x[i] + y[i];
}

static void cpu_rotary(Buf qkv, Buf pos, size_t N, size_t NH, size_t HS, size_t dims, double base, bool inverse)
{
    NEED(qkv, 3 * N * NH * HS); NEED_INDEX(pos, N);
    const size_t half = dims / 2;
    #pragma omp parallel for schedule(static) if (N * NH * dims > SMALL)
    for (size_t i = 0; i < N; i++) {
        real c[half + 1], s[half + 1];
        for (size_t j = 0; j < half; j++) {
            double angle = (double)I_(pos)[i] * pow(base, -2.0 * (double)j / (double)dims); // in double: thousands of radians lose float's digits
            c[j] = (real)cos(angle);
            s[j] = (real)(inverse ? -sin(angle) : sin(angle));
        }
        for (size_t h = 0; h < 2 * NH; h++) { // q's heads, then k's
            real *a = R_(qkv) + i * 3 * NH * HS + h * HS, *b = a + half;
            for (size_t j = 0; j < half; j++) {
                real x = a[j], y = b[j];
                a[j] = x * c[j] - y * s[j];
                b[j] = y * c[j] + x * s[j];
            }
        }
    }
}

// ----------------------------------------------------------------------------
// attention: for each row and head, tiles of queries against all keys they may see. Five matrix products make the backward pass.

enum { QUERIES = 64 }; // a tile

static size_t longest_row(const int *start, size_t B)
{
    size_t most = 1;
    for (size_t b = 0; b < B; b++) if ((size_t)(start[b + 1] - start[b]) > most) most = (size_t)(start[b + 1] - start[b]);
    return most;
}

static void cpu_attention_forward(Buf out, Buf lse, Buf qkv, Buf start, size_t B, size_t N, size_t NH, size_t HS, bool causal)
{
    NEED(out, N * NH * HS); NEED(lse, N * NH); NEED(qkv, 3 * N * NH * HS); NEED_INDEX(start, B + 1);
    (void)N;
    static Scratch s;
    const size_t C = NH * HS, T = longest_row(I_(start), B), threads = (size_t)omp_get_max_threads();
    real *all = scratch(&s, threads * QUERIES * T * sizeof *all), scale = (real)(1 / sqrt((double)HS));
    #pragma omp parallel for collapse(2) schedule(dynamic) if (N * C > SMALL)
    for (size_t b = 0; b < B; b++)
        for (size_t h = 0; h < NH; h++) {
            real *P = all + (size_t)omp_get_thread_num() * QUERIES * T;
            size_t first = (size_t)I_(start)[b], n = (size_t)I_(start)[b + 1] - first;
            const real *q = R_(qkv) + first * 3 * C + h * HS, *k = q + C, *v = q + 2 * C;
            for (size_t t0 = 0; t0 < n; t0 += QUERIES) {
                size_t rows = n - t0 < QUERIES ? n - t0 : QUERIES, keys = causal ? t0 + rows : n;
                gemm(false, true, rows, keys, HS, q + t0 * 3 * C, 3 * C, k, 3 * C, 0, P, T);
                for (size_t i = 0; i < rows; i++) {
                    real *p = P + i * T, most = p[0], sum = 0;
                    size_t see = causal ? t0 + i + 1 : n;
                    for (size_t j = 1; j < see; j++) most = p[j] > most ? p[j] : most;
                    #pragma omp simd reduction(+:sum)
                    for (size_t j = 0; j < see; j++) { p[j] = exp_((p[j] - most) * scale); sum += p[j]; }
                    real inverse = 1 / sum;
                    for (size_t j = 0; j < see; j++) p[j] *= inverse;
                    for (size_t j = see; j < keys; j++) p[j] = 0;
                    R_(lse)[(first + t0 + i) * NH + h] = most * scale + (real)log((double)sum);
                }
                gemm(false, false, rows, HS, keys, P, T, v, 3 * C, 0, R_(out) + (first + t0) * C + h * HS, C);
            }
        }
}

static void cpu_attention_backward(Buf dqkv, Buf dout, Buf out, Buf lse, Buf qkv, Buf start, size_t B, size_t N, size_t NH, size_t HS, bool causal)
{
    NEED(dqkv, 3 * N * NH * HS); NEED(dout, N * NH * HS); NEED(out, N * NH * HS); NEED(lse, N * NH); NEED(qkv, 3 * N * NH * HS);
    static Scratch s;
    const size_t C = NH * HS, T = longest_row(I_(start), B), threads = (size_t)omp_get_max_threads();
    real *all = scratch(&s, threads * 2 * QUERIES * T * sizeof *all), scale = (real)(1 / sqrt((double)HS));
    #pragma omp parallel for collapse(2) schedule(dynamic) if (N * C > SMALL)
    for (size_t b = 0; b < B; b++)
        for (size_t h = 0; h < NH; h++) {
            real *P = all + (size_t)omp_get_thread_num() * 2 * QUERIES * T, *dP = P + QUERIES * T;
            size_t first = (size_t)I_(start)[b], n = (size_t)I_(start)[b + 1] - first;
            const real *q = R_(qkv) + first * 3 * C + h * HS, *k = q + C, *v = q + 2 * C;
            real *dq = R_(dqkv) + first * 3 * C + h * HS, *dk = dq + C, *dv = dq + 2 * C;
            for (size_t t0 = 0; t0 < n; t0 += QUERIES) {
                size_t rows = n - t0 < QUERIES ? n - t0 : QUERIES, keys = causal ? t0 + rows : n;
                const real *o = R_(out) + (first + t0) * C + h * HS, *d = R_(dout) + (first + t0) * C + h * HS;
                gemm(false, true, rows, keys, HS, q + t0 * 3 * C, 3 * C, k, 3 * C, 0, P, T);
                gemm(false, true, rows, keys, HS, d, C, v, 3 * C, 0, dP, T);
                for (size_t i = 0; i < rows; i++) {
                    real *p = P + i * T, *dp = dP + i * T, l = R_(lse)[(first + t0 + i) * NH + h], delta = 0;
                    size_t see = causal ? t0 + i + 1 : n;
                    for (size_t j = 0; j < HS; j++) delta += o[i * C + j] * d[i * C + j]; // sum_j p_j dp_j
                    #pragma omp simd
                    for (size_t j = 0; j < see; j++) { p[j] = exp_(p[j] * scale - l); dp[j] = p[j] * (dp[j] - delta) * scale; }
                    for (size_t j = see; j < keys; j++) p[j] = dp[j] = 0;
                }
                // the first tile overwrites dk and dv up to its keys, later tiles add to what is there and overwrite the rest
                size_t old = t0 == 0 ? 0 : causal ? t0 : n;
                for (size_t j = old; j < keys; j++) { memset(dk + j * 3 * C, 0, HS * sizeof(real)); memset(dv + j * 3 * C, 0, HS * sizeof(real)); }
                gemm(false, false, rows, HS, keys, dP, T, k, 3 * C, 0, dq + t0 * 3 * C, 3 * C);
                gemm(true, false, keys, HS, rows, dP, T, q + t0 * 3 * C, 3 * C, 1, dk, 3 * C);
                gemm(true, false, keys, HS, rows, P, T, d, C, 1, dv, 3 * C);
            }
        }
}

// out (n) = the products of q (HS) with the rows of k (n,HS)
static inline void dots(real *restrict out, const real *restrict q, const real *restrict k, size_t n, size_t HS)
{
    for (size_t j = 0; j < n; j++) {
        real dot = 0;
        #pragma omp simd reduction(+:dot)
        for (size_t c = 0; c < HS; c++) dot += q[c] * k[j * HS + c];
        out[j] = dot;
    }
}

// o (HS) += sum_j w_j v_j, four rows at a time so that o is read and written a quarter as often
static inline void weighted_sum(real *restrict o, const real *restrict w, const real *restrict v, size_t n, size_t HS)
{
    size_t j = 0;
    for (; j + 4 <= n; j += 4)
        for (size_t c = 0; c < HS; c++) o[c] += w[j] * v[j * HS + c] + w[j + 1] * v[(j + 1) * HS + c] + w[j + 2] * v[(j + 2) * HS + c] + w[j + 3] * v[(j + 3) * HS + c];
    for (; j < n; j++)
        for (size_t c = 0; c < HS; c++) o[c] += w[j] * v[j * HS + c];
}

// The cache: for each slot all keys, then all values, (2,NH,T,HS): what one head reads lies in one piece.
static void cpu_attention_decode(Buf out, Buf kv, Buf qkv, Buf start, Buf slot, Buf len, size_t T, Buf pkv, Buf pslot, Buf plen, size_t TP,
                                 size_t B, size_t N, size_t NH, size_t HS)
{
    NEED(out, N * NH * HS); NEED(qkv, 3 * N * NH * HS); NEED_INDEX(slot, B); NEED_INDEX(len, B);
    static Scratch s;
    const size_t C = NH * HS, threads = (size_t)omp_get_max_threads();
    real *all = scratch(&s, threads * (TP + T) * sizeof *all), scale = (real)(1 / sqrt((double)HS));
    #pragma omp parallel for collapse(2) schedule(dynamic, 8) if (N * C > SMALL / 4)
    for (size_t b = 0; b < B; b++)
        for (size_t h = 0; h < NH; h++) {
            real *p = all + (size_t)omp_get_thread_num() * (TP + T);
            size_t first = (size_t)I_(start)[b], n = (size_t)I_(start)[b + 1] - first, past = (size_t)I_(len)[b];
            size_t before = pkv.p ? (size_t)I_(plen)[b] : 0;
            real *keys = R_(kv) + ((size_t)I_(slot)[b] * 2 * NH + h) * T * HS, *values = keys + NH * T * HS;
            const real *shared_keys = before ? R_(pkv) + ((size_t)I_(pslot)[b] * 2 * NH + h) * TP * HS : NULL, *shared_values = before ? shared_keys + NH * TP * HS : NULL;
            for (size_t i = 0; i < n; i++) {
                const real *q = R_(qkv) + (first + i) * 3 * C + h * HS;
                real *o = R_(out) + (first + i) * C + h * HS, most, sum = 0;
                size_t mine = past + i + 1, see = before + mine;
                memcpy(keys + (mine - 1) * HS, q + C, HS * sizeof(real));
                memcpy(values + (mine - 1) * HS, q + 2 * C, HS * sizeof(real));
                dots(p, q, shared_keys, before, HS);
                dots(p + before, q, keys, mine, HS);
                most = p[0];
                for (size_t j = 1; j < see; j++) most = p[j] > most ? p[j] : most;
                #pragma omp simd reduction(+:sum)
                for (size_t j = 0; j < see; j++) { p[j] = exp_((p[j] - most) * scale); sum += p[j]; }
                real inverse = 1 / sum;
                for (size_t c = 0; c < HS; c++) o[c] = 0;
                weighted_sum(o, p, shared_values, before, HS);
                weighted_sum(o, p + before, values, mine, HS);
                for (size_t c = 0; c < HS; c++) o[c] *= inverse;
            }
        }
}

static void cpu_gather_rows(Buf out, Buf inp, Buf index, size_t R, size_t C)
{
    NEED(out, R * C); NEED_INDEX(index, R);
    for (size_t i = 0; i < R; i++) memcpy(R_(out) + i * C, R_(inp) + (size_t)I_(index)[i] * C, C * sizeof(real));
}

static void cpu_scatter_rows(Buf out, Buf inp, Buf index, size_t R, size_t C)
{
    NEED(inp, R * C); NEED_INDEX(index, R);
    for (size_t i = 0; i < R; i++) {
        real *o = R_(out) + (size_t)I_(index)[i] * C;
        for (size_t j = 0; j < C; j++) o[j] += R_(inp)[i * C + j];
    }
}

// ----------------------------------------------------------------------------
// the head: softmax over the vocabulary, in chunks of rows, so that (R,V) never exists

static size_t cpu_head_rows(size_t V) // rows whose logits fit about 64 MiB: fewer would stay in the cache, but each chunk reads the weights and adds to their gradient anew
{
    size_t rows = (16u << 20) / V;
    return rows < 16 ? 16 : rows > 512 ? 512 : rows;
}

static real *head_scratch(Scratch *s, size_t V) { return scratch(s, cpu_head_rows(V) * V * sizeof(real)); }

// logits of rows [r, r+n), n x V
static real *head_logits(real *logits, Buf inp, Buf w, size_t r, size_t n, size_t C, size_t V)
{
    product(logits, R_(inp) + r * C, w, n, C, V, 0);
    return logits;
}

// x (V) becomes softmax's exponentials e = exp(z), z = x/temperature - max. Returns their sum; max + log sum through lse; the entropy too
static real exponentials(real *x, size_t V, real inverse_temperature, real *lse, real *entropy)
{
    real most = x[0], sum = 0, dot = 0;
    #pragma omp simd reduction(max:most)
    for (size_t j = 0; j < V; j++) most = x[j] > most ? x[j] : most;
    #pragma omp simd reduction(+:sum, dot)
    for (size_t j = 0; j < V; j++) {
        real z = (x[j] - most) * inverse_temperature;
        x[j] = exp_(z);
        sum += x[j];
        dot += x[j] > 0 ? x[j] * z : 0;
    }
    *lse = most * inverse_temperature + (real)log((double)sum);
    if (entropy) *entropy = (real)log((double)sum) - dot / sum; // -sum p log p = log sum - sum e z / sum
    return sum;
}

static void cpu_logprob_forward(Buf logp, Buf entropy, Buf kept, Buf inp, Buf w, Buf target, double temperature, size_t R, size_t C, size_t V)
{
    NEED(logp, R); NEED(entropy, R); NEED(kept, R * V); NEED(inp, R * C); NEED_INDEX(target, R);
    static Scratch s;
    real it = (real)(1 / temperature);
    for (size_t r = 0, chunk = cpu_head_rows(V); r < R; r += chunk) {
        size_t n = R - r < chunk ? R - r : chunk;
        real *logits = head_logits(kept.p ? R_(kept) + r * V : head_scratch(&s, V), inp, w, r, n, C, V);
        #pragma omp parallel for schedule(static) if (n * V > SMALL)
        for (size_t i = 0; i < n; i++) {
            real *x = logits + i * V, at = x[I_(target)[r + i]] * it, lse, sum = exponentials(x, V, it, &lse, entropy.p ? R_(entropy) + r + i : NULL);
            R_(logp)[r + i] = at - lse;
            for (size_t j = 0; j < V && kept.p; j++) x[j] /= sum;
        }
    }
}

static void cpu_logprob_backward(Buf dinp, Buf dw, Buf logp, Buf dlogp, Buf kept, Buf inp, Buf w, Buf target, double temperature,
                                 size_t R, size_t C, size_t V)
{
    NEED(dinp, R * C); NEED(dw, V * C); NEED(logp, R); NEED(dlogp, R); NEED(kept, R * V); NEED(inp, R * C); NEED_INDEX(target, R);
    static Scratch s;
    real it = (real)(1 / temperature);
    for (size_t r = 0, chunk = cpu_head_rows(V); r < R; r += chunk) {
        size_t n = R - r < chunk ? R - r : chunk;
        real *logits = kept.p ? R_(kept) + r * V : head_logits(head_scratch(&s, V), inp, w, r, n, C, V);
        #pragma omp parallel for schedule(static) if (n * V > SMALL)
        for (size_t i = 0; i < n; i++) {
            // logp = z_target - lse, so dlogits = dlogp (onehot - p) / temperature
            size_t t = (size_t)I_(target)[r + i];
            real *x = logits + i * V, d = R_(dlogp)[r + i] * it, f = -d;
            if (!kept.p) {
                real at = x[t] * it, lse;
                f /= exponentials(x, V, it, &lse, NULL);
                if (logp.p) R_(logp)[r + i] = at - lse;
            }
            for (size_t j = 0; j < V; j++) x[j] *= f;
            x[t] += d;
        }
        if (dinp.p) gemm_bf16(false, false, n, C, V, logits, V, R_(w), C, 0, R_(dinp) + r * C, C);
        if (dw.p) gemm_bf16(true, false, V, C, n, logits, V, R_(inp) + r * C, C, 1, R_(dw), C);
    }
}

static void cpu_head_kl(Buf kl, Buf p_inp, Buf p_w, Buf q_inp, Buf q_w, double temperature, size_t R, size_t C, size_t V)
{
    NEED(kl, R); NEED(p_inp, R * C); NEED(q_inp, R * C);
    static Scratch sp, sq;
    real it = (real)(1 / temperature);
    for (size_t r = 0, chunk = cpu_head_rows(V); r < R; r += chunk) {
        size_t n = R - r < chunk ? R - r : chunk;
        real *p = head_logits(head_scratch(&sp, V), p_inp, p_w, r, n, C, V), *q = head_logits(head_scratch(&sq, V), q_inp, q_w, r, n, C, V);
        #pragma omp parallel for schedule(static) if (n * V > SMALL)
        for (size_t i = 0; i < n; i++) {
            // KL = sum_j p_j (z^p_j - z^q_j) - lse_p + lse_q
            real *a = p + i * V, *b = q + i * V, lp, lq, dot = 0;
            for (size_t j = 0; j < V; j++) b[j] = a[j] - b[j]; // z^p - z^q; z^q is z^p minus it
            real most = a[0] - b[0], sum = 0;
            for (size_t j = 0; j < V; j++) most = a[j] - b[j] > most ? a[j] - b[j] : most;
            #pragma omp simd reduction(+:sum)
            for (size_t j = 0; j < V; j++) sum += exp_((a[j] - b[j] - most) * it);
            lq = most * it + (real)log((double)sum);
            sum = exponentials(a, V, it, &lp, NULL);
            #pragma omp simd reduction(+:dot)
            for (size_t j = 0; j < V; j++) dot += a[j] * b[j];
            R_(kl)[r + i] = dot * it / sum - lp + lq;
        }
    }
}

// Sums over weights go by spans of so many, each in real, together in double.
enum { SPAN = 256 };

// The sum of the weights from `least` on (count: their number).
static double mass(const real *e, size_t V, real least, bool count)
{
    double total = 0;
    for (size_t j0 = 0; j0 < V; j0 += SPAN) {
        real span = 0;
        size_t end = j0 + SPAN < V ? j0 + SPAN : V;
        #pragma omp simd reduction(+:span)
        for (size_t j = j0; j < end; j++) span += e[j] >= least ? (count ? 1 : e[j]) : 0;
        total += (double)span;
    }
    return total;
}

// The largest weight whose mass still reaches `goal`. The bits of a positive number are in its order, so it is found bit by bit
// from the top: a selection in 30 passes over the vocabulary (62 in double), and no sort.
static real cut(const real *e, size_t V, double goal, bool count)
{
    typedef __typeof__(_Generic((real)0, float: (uint32_t)0, default: (uint64_t)0)) Bits;
    Bits least = 0, bits;
    real x = 1; // no weight is larger
    memcpy(&bits, &x, sizeof bits);
    for (Bits bit = (Bits)1 << (8 * sizeof bit - 3); bit; bit /= 2) {
        Bits more = least | bit;
        if (more > bits) continue;
        memcpy(&x, &more, sizeof x);
        if (mass(e, V, x, count) >= goal) least = more;
    }
    memcpy(&x, &least, sizeof x);
    return x;
}

// The smallest weight that top-k and top-p keep, of weights up to 1; ties with it are kept too. Top-p is a share of the k
// likeliest: of those that tie for the last place as many as k has room for.
static real least_weight(const real *e, size_t V, long top_k, double top_p)
{
    bool some = top_k > 0 && (size_t)top_k < V;
    real least = some ? cut(e, V, (double)top_k, true) : 0;
    if (top_p < 1) {
        double kept = mass(e, V, least, false);
        if (some) kept -= (mass(e, V, least, true) - (double)top_k) * (double)least;
        real by_mass = cut(e, V, top_p * kept, false);
        if (by_mass > least) least = by_mass;
    }
    return least;
}

static void cpu_sample(Buf token, Buf logp, Buf inp, Buf w, Buf uniform, double temperature, long top_k, double top_p, size_t R, size_t C, size_t V)
{
    NEED_INDEX(token, R); NEED(logp, R); NEED(inp, R * C);
    static Scratch s;
    real it = (real)(1 / temperature);
    for (size_t r = 0, chunk = cpu_head_rows(V); r < R; r += chunk) {
        size_t n = R - r < chunk ? R - r : chunk;
        real *logits = head_logits(head_scratch(&s, V), inp, w, r, n, C, V);
        #pragma omp parallel for schedule(static) if (n * V > SMALL)
        for (size_t i = 0; i < n; i++) {
            real *x = logits + i * V, lse, most = x[0];
            for (size_t j = 1; j < V; j++) most = x[j] > most ? x[j] : most;
            exponentials(x, V, it, &lse, NULL);
            real least = least_weight(x, V, top_k, top_p);
            for (size_t k = 0; k < V && least > 0; k++) x[k] = x[k] >= least ? x[k] : 0;
            double kept = 0, u, below = 0;
            size_t j = 0, last = 0;
            for (size_t j0 = 0; j0 < V; j0 += SPAN) { // the inverse CDF is found by spans, then inside one
                double span = 0;
                for (size_t e = j0; e < j0 + SPAN && e < V; e++) span += (double)x[e];
                kept += span;
            }
            u = ((double *)uniform.p)[r + i] * kept;
            for (size_t j0 = 0; j0 < V; j0 += SPAN) {
                double span = 0;
                for (size_t e = j0; e < j0 + SPAN && e < V; e++) span += (double)x[e];
                if (below + span <= u && j0 + SPAN < V) { below += span; continue; }
                for (j = j0; j < V; j++) { // the token whose interval [below, below + weight) holds u; the last one with weight if rounding ran past the end
                    double e = (double)x[j];
                    if (e > 0) last = j;
                    if (u < below + e) break;
                    below += e;
                }
                break;
            }
            if (j >= V) j = last;
            I_(token)[r + i] = (int)j;
            R_(logp)[r + i] = (real)log((double)x[j]) + most * it - lse;
        }
    }
}

// ----------------------------------------------------------------------------
// losses and optimiser

static void cpu_ppo_loss(Buf dlogp, Buf dvalue, Buf stats, Buf logp, Buf value, Buf old_logp, Buf old_value, Buf advantage, Buf returns,
                         double scale, double clip, double value_clip, double vf_coef, size_t R)
{
    for (size_t i = 0; i < R; i++) {
        double dl, dv;
        ppo_action_loss(&dl, &dv, stats.p, R_(logp)[i], R_(value)[i], R_(old_logp)[i], R_(old_value)[i], R_(advantage)[i], R_(returns)[i], clip, value_clip);
        R_(dlogp)[i] = (real)(scale * dl);
        if (dvalue.p) R_(dvalue)[i] = (real)(scale * vf_coef * dv);
    }
}

static double cpu_sumsq(Buf a)
{
    enum { CHUNK = 1 << 15, SUMS = 32 };
    size_t chunks = (a.n + CHUNK - 1) / CHUNK;
    double *partial = xmalloc(chunks * sizeof *partial), sum = 0;
    #pragma omp parallel for schedule(static) if (chunks > 4)
    for (size_t c = 0; c < chunks; c++) {
        size_t end = (c + 1) * CHUNK < a.n ? (c + 1) * CHUNK : a.n;
        double s[SUMS] = {0}; // one sum alone would wait for itself
        size_t i = c * CHUNK;
        for (; i + SUMS <= end; i += SUMS) for (size_t j = 0; j < SUMS; j++) s[j] += (double)R_(a)[i + j] * (double)R_(a)[i + j];
        for (; i < end; i++) s[0] += (double)R_(a)[i] * (double)R_(a)[i];
        partial[c] = 0;
        for (size_t j = 0; j < SUMS; j++) partial[c] += s[j];
    }
    for (size_t c = 0; c < chunks; c++) sum += partial[c];
    free(partial);
    return sum;
}

static void cpu_adamw(Buf p, Buf g, Buf m, Buf v, double lr, double beta1, double beta2, double eps, double decay, double grad_scale, long step)
{
    real *w = R_(p), *mm = R_(m), *vv = R_(v);
    const real *gg = R_(g);
    // PyTorch's form: eps is added to sqrt(v / (1 - beta2^t)), which is more aggressive in the first steps than TensorFlow's
    real b1 = (real)beta1, b2 = (real)beta2, c1 = (real)(1 - beta1), c2 = (real)(1 - beta2), e = (real)eps, gs = (real)grad_scale;
    real keep = (real)(1 - lr * decay), rate = (real)(lr / (1 - pow(beta1, (double)step))), root = (real)(1 / sqrt(1 - pow(beta2, (double)step)));
    #pragma omp parallel for simd schedule(static) if (p.n > 2 * SMALL)
    for (size_t i = 0; i < p.n; i++) {
        real d = gg[i] * gs;
        mm[i] = b1 * mm[i] + c1 * d;
        vv[i] = b2 * vv[i] + c2 * d * d;
        w[i] = keep * w[i] - rate * mm[i] / ((sizeof(real) == 8 ? (real)sqrt(vv[i]) : sqrtf((float)vv[i])) * root + e);
    }
}

static void cpu_lerp(Buf dst, Buf src, double weight)
{
    real *d = R_(dst), w = (real)weight;
    const real *x = R_(src);
    #pragma omp parallel for simd schedule(static) if (dst.n > 8 * SMALL)
    for (size_t i = 0; i < dst.n; i++) d[i] += w * (x[i] - d[i]);
}

static bool cpu_region_begin(uint64_t key) { (void)key; return true; }
static void cpu_region_end(void) {}

static const Ops cpu_table = {
    .name = "cpu", .type = DT_REAL, .alloc = cpu_alloc, .release = cpu_release, .upload = cpu_upload, .download = cpu_download, .copy = cpu_copy, .fill = cpu_fill,
    .embed_forward = cpu_embed_forward, .embed_backward = cpu_embed_backward, .layernorm_forward = cpu_layernorm_forward, .layernorm_backward = cpu_layernorm_backward,
    .packed_size = cpu_packed_size, .pack = cpu_pack, .matmul_forward = cpu_matmul_forward, .matmul_backward = cpu_matmul_backward,
    .activation_forward = cpu_activation_forward, .activation_backward = cpu_activation_backward, .add = cpu_add, .rotary = cpu_rotary,
    .attention_forward = cpu_attention_forward, .attention_backward = cpu_attention_backward, .attention_decode = cpu_attention_decode,
    .gather_rows = cpu_gather_rows, .scatter_rows = cpu_scatter_rows, .logprob_forward = cpu_logprob_forward, .logprob_backward = cpu_logprob_backward,
    .head_rows = cpu_head_rows, .head_kl = cpu_head_kl, .sample = cpu_sample, .ppo_loss = cpu_ppo_loss, .sumsq = cpu_sumsq, .adamw = cpu_adamw, .lerp = cpu_lerp,
    .region_begin = cpu_region_begin, .region_end = cpu_region_end,
};
const Ops *ops_cpu(void) { return &cpu_table; }

// ----------------------------------------------------------------------------
// the flag table: parser, --help, start-up table and the config record of log.jsonl all come from here

#include "lib/files.h"
#include "lib/json.h"
#include "lib/unicode.h"
#include "lib/special.h"
#include "lib/bpe.h"
#include "lib/wordpiece.h"
#include "lib/safetensors.h"
#include "lib/config.h"
#include "lib/flags.h"
#include "lib/log.h"
#include "lib/data.h"
#include "lib/checkpoint.h"
#include "lib/supervised.h"
#include "lib/distilbert.h"
#include "lib/agree.h"
#include "lib/reward.h"
#include "lib/recheck.h"
#include "lib/eval.h"

typedef struct {
    const char *model, *tokenizer, *init, *reference, *reward, *data, *held_out, *in, *out, *prompts, *prompt, *cache, *missing_eos, *train_layers;
    const char *alpha, *compat, *preset, *pool, *ns, *ms, *curves, *memory;
    size_t objective, fhat, critic, loss, arch, dtype, schedule, method, reward_output, precision, device; // rows of the tables below
    long max_docs, draws, pairs, layers, width, heads, context, shard_mib, samples, max_new, max_prompt, top_k, n, m, episodes, rollout, minibatch, ppo_epochs;
    long steps, batch, from_position, warmup, seed, log_every, eval_every, save_every, micro_tokens, decode_rows, threads, prompts_max;
    double reward_timeout, reward_scale, reward_offset, reward_tolerance, temperature, top_p, beta, clip, value_clip, vf_coef, gamma, lambda, score_clip, epochs, lr, beta1, beta2, eps, weight_decay, clip_grad, save_minutes;
    bool resume, drop_last;
} Args;

// Choices without more to say than their names; an enum beside each says which is which.
typedef struct { const char *name, *help; } Named;
enum { DEVICE_CPU, DEVICE_CUDA };
static const Named devices[] = {{"cpu", NULL}, {"cuda", NULL}, {NULL, NULL}};
enum { PRECISION_AUTO, PRECISION_FP32, PRECISION_BF16 };
static const Named precisions[] = {{"auto", NULL}, {"fp32", NULL}, {"bf16", NULL}, {NULL, NULL}};
enum { METHOD_POLICY, METHOD_BON };
static const Named methods[] = {{"policy", NULL}, {"bon", NULL}, {NULL, NULL}};
enum { REWARD_LOGIT, REWARD_PROB };
static const Named reward_outputs[] = {{"logit", NULL}, {"prob", NULL}, {NULL, NULL}};
static const Named offline_losses[] = {{"dpo", NULL}, {"ipo", NULL}, {"bonbon", NULL}, {"bon-sft", NULL}, {NULL, NULL}}; // OfflineKind
static const struct { const char *name, *help; DType type; } dtypes[] = {{"fp32", NULL, DT_F32}, {"fp16", NULL, DT_F16}, {"bf16", NULL, DT_BF16}, {"fp64", NULL, DT_F64}, {NULL, NULL, DT_F32}};

#define FLAG(name, type, field, commands, fallback, range, help) {name, type, offsetof(Args, field), commands, fallback, range, help, NULL, 0}
#define CHOICE(name, field, commands, fallback, rows, help) {name, FLAG_CHOICE, offsetof(Args, field), commands, fallback, NULL, help, rows, sizeof *(rows)}
static const Flag flag_table[] = {
    // what goes in and out
    FLAG("model", FLAG_STRING, model, "sft sample bon score cache train offline eval info", NULL, NULL, "Hugging Face folder of a language model (sft: to fine-tune; info: or of a reward model)"),
    FLAG("init", FLAG_STRING, init, "reward", NULL, NULL, "start from the lower blocks of this language model's folder"),
    FLAG("tokenizer", FLAG_STRING, tokenizer, "sft reward", NULL, NULL, "folder with the tokenizer, for a model made from scratch"),
    FLAG("reference", FLAG_STRING, reference, "eval", NULL, NULL, "folder of the reference, a language model with the policy's tokenizer"),
    FLAG("reward", FLAG_STRING, reward, "bon score cache train offline eval info", NULL, NULL, "folder of a reward model (a classifier, no language model), or a program that reads JSONL and writes a number a line (offline: to check that the cache's rewards are its)"),
    FLAG("reward-timeout", FLAG_DOUBLE, reward_timeout, "bon score cache train offline eval", "600", "1e-3..1e6", "seconds a reward program may take for one batch"),
    CHOICE("reward-output", reward_output, "bon score cache train offline eval", "logit", reward_outputs, "of a classifier: the positive label's logit, or its probability"),
    FLAG("reward-scale", FLAG_DOUBLE, reward_scale, "bon score cache train offline eval", "1", "1e-9..1e9", "rewards are multiplied by it"),
    FLAG("reward-offset", FLAG_DOUBLE, reward_offset, "bon score cache train offline eval", "0", "-1e9..1e9", "and this is added"),
    FLAG("reward-tolerance", FLAG_DOUBLE, reward_tolerance, "cache train offline eval", "0", "0..1e9", "stop when a cached response, scored again, differs by more than this share of the rewards' spread (0: 1e-4, and 0.1 where bf16 was or is used)"),
    FLAG("missing-eos", FLAG_STRING, missing_eos, "bon cache train offline eval", "none", NULL, "reward of a response without an end-of-text token, in place of its own (none: its own)"),
    FLAG("data", FLAG_STRING, data, "sft reward offline", NULL, NULL, "JSONL to train on (offline: in place of --cache, lines {\"prompt\",\"chosen\",\"rejected\"})"),
    FLAG("held-out", FLAG_STRING, held_out, "sft reward", NULL, NULL, "JSONL to measure on"),
    FLAG("max-docs", FLAG_LONG, max_docs, "sft reward", "0", "0..1e9", "use only the first so many held-out lines (0: all)"),
    FLAG("in", FLAG_STRING, in, "score", NULL, NULL, "JSONL lines {\"prompt\",\"response\"} or {\"text\"}"),
    FLAG("prompts", FLAG_STRING, prompts, "sample bon cache train eval", NULL, NULL, "JSONL lines {\"prompt\"}; train and eval default to the cache's"),
    FLAG("prompt", FLAG_STRING, prompt, "sample bon", NULL, NULL, "one prompt, in place of a file"),
    FLAG("prompts-max", FLAG_LONG, prompts_max, "sample bon cache train offline eval", "0", "0..1e9", "use only the first so many prompts (0: all)"),
    FLAG("cache", FLAG_STRING, cache, "train offline eval ks", NULL, NULL, "reward cache (JSONL) of the reference model"),
    FLAG("out", FLAG_STRING, out, "sft reward score cache train offline eval ks sample bon", NULL, NULL, "folder or file to write"),
    // the model
    CHOICE("arch", arch, "sft reward", "gpt2", architectures, "architecture of a model made from scratch"),
    FLAG("layers", FLAG_LONG, layers, "sft reward", "4", "1..1000", "blocks of a model made from scratch"),
    FLAG("width", FLAG_LONG, width, "sft reward", "128", "1..65536", "its width"),
    FLAG("heads", FLAG_LONG, heads, "sft reward", "4", "1..65536", "its attention heads"),
    FLAG("context", FLAG_LONG, context, "sft reward", "128", "2..1e9", "its context; training rows are at most so long"),
    FLAG("train-layers", FLAG_STRING, train_layers, "sft reward train offline info", "all", NULL, "all, or K: the top K blocks, the final norm and an untied head"),
    CHOICE("dtype", dtype, "sft reward train offline", "fp32", dtypes, "type of the weights written at the end"),
    FLAG("shard-mib", FLAG_LONG, shard_mib, "sft reward train offline", "0", "0..1e9", "split the written weights into files of at most so many MiB (0: one file)"),
    // sampling
    FLAG("samples", FLAG_LONG, samples, "sample cache eval", "1", "1..1e9", "responses a prompt"),
    FLAG("max-new", FLAG_LONG, max_new, "sample bon cache train eval info", "40", "1..1e9", "new tokens at most"),
    FLAG("temperature", FLAG_DOUBLE, temperature, "sample bon cache train offline eval score", "1", "1e-4..1e4", "logits are divided by it, in sampling and in every log-probability"),
    FLAG("max-prompt", FLAG_LONG, max_prompt, "info", NULL, "1..1e9", "tokens of the longest prompt, for the plan"),
    FLAG("top-k", FLAG_LONG, top_k, "sample bon", "0", "0..1e9", "sample from the k likeliest tokens (0: all)"),
    FLAG("top-p", FLAG_DOUBLE, top_p, "sample bon", "1", "1e-9..1", "sample from the smallest set with this probability (1: all)"),
    // the objective
    CHOICE("objective", objective, "train", "vbon", objectives, "what to maximise"),
    CHOICE("loss", loss, "offline", "dpo", offline_losses, "what to minimise over comparisons of cached responses (lib/baselines.h has the formulas)"),
    FLAG("alpha", FLAG_STRING, alpha, "offline", "auto", NULL, "bonbon: weight of the likelihood of the best, from 0 to 1 (auto: both terms weigh the same at the start)"),
    FLAG("draws", FLAG_LONG, draws, "offline", "6", "2..4096", "dpo, ipo: compare each prompt's first so many cached draws"),
    FLAG("pairs", FLAG_LONG, pairs, "offline", "12", "1..1e9", "dpo, ipo: comparisons a prompt at most, chosen by seed"),
    FLAG("n", FLAG_LONG, n, "train offline bon eval", "4", "1..1e9", "the N of Best-of-N"),
    CHOICE("method", method, "eval", "policy", methods, "measure --model, or Best-of-N drawn from the reference"),
    FLAG("pool", FLAG_STRING, pool, "eval", NULL, NULL, "bon: choose among this cache's draws by the rewards in it, in place of drawing; --reward and --cache may be another reward's and judge the choice"),
    FLAG("ns", FLAG_STRING, ns, "eval", "4,16", NULL, "measure the distance to Best-of-N for these N"),
    FLAG("ms", FLAG_STRING, ms, "ks", "5,20,100,200,250", NULL,
         "compare the first M samples of a prompt with all of them, for these M"),
    FLAG("curves", FLAG_STRING, curves, "ks", NULL, NULL,
         "write the CDFs of these prompts too, by M (numbers from 1 on with commas between, or auto: the prompts of "
         "lowest, median and highest mean reward)"),
    FLAG("beta", FLAG_DOUBLE, beta, "train offline", NULL, "1e-6..1e6", "strength of the KL penalty, for rl, l, dpo and ipo (never converted into N)"),
    CHOICE("fhat", fhat, "train", "digamma", fhats, "estimate of log F from k of M cached samples below"),
    FLAG("m", FLAG_LONG, m, "train eval ks", "0", "0..1e9", "use the first M samples drawn for each prompt (0: all)"),
    FLAG("compat", FLAG_STRING, compat, "train", "", NULL, "reproduce the released code: scale, jointp, or both, comma-separated"),
    CHOICE("critic", critic, "train", "head", critics, "what the values are"),
    // PPO
    FLAG("episodes", FLAG_LONG, episodes, "train", "12800", "1..1e9", "responses to train on in all"),
    FLAG("rollout", FLAG_LONG, rollout, "train info", "128", "1..1e9", "episodes an iteration"),
    FLAG("minibatch", FLAG_LONG, minibatch, "train info", "32", "1..1e9", "episodes an optimiser step"),
    FLAG("ppo-epochs", FLAG_LONG, ppo_epochs, "train", "4", "1..1e9", "passes over each rollout"),
    FLAG("clip", FLAG_DOUBLE, clip, "train", "0.2", "1e-9..1e9", "of the probability ratio"),
    FLAG("value-clip", FLAG_DOUBLE, value_clip, "train", "0.2", "1e-9..1e9", "of the value's change"),
    FLAG("vf-coef", FLAG_DOUBLE, vf_coef, "train", "1", "0..1e6", "weight of the value loss"),
    FLAG("score-clip", FLAG_DOUBLE, score_clip, "train", "0", "0..1e9", "clip the terminal score to +- this (0: no clipping)"),
    FLAG("gamma", FLAG_DOUBLE, gamma, "train", "1", "0..1", "discount"),
    FLAG("lambda", FLAG_DOUBLE, lambda, "train", "0.95", "0..1", "of generalised advantage estimation"),
    // optimisation
    FLAG("epochs", FLAG_DOUBLE, epochs, "sft reward offline", "1", ">0..1e9", "passes over the data (a fraction is allowed)"),
    FLAG("steps", FLAG_LONG, steps, "sft reward offline", "0", "0..1e9", "optimiser steps, in place of epochs (0: by epochs)"),
    FLAG("batch", FLAG_LONG, batch, "sft reward offline", "32", "1..1e9", "rows (or comparisons) an optimiser step"),
    FLAG("drop-last", FLAG_BOOL, drop_last, "sft reward offline", "false", NULL, "by epochs: leave out what does not fill a last batch (otherwise the last step has fewer)"),
    FLAG("from-position", FLAG_LONG, from_position, "reward", "12", "0..1e9", "labels: train the score at every position from here on"),
    FLAG("lr", FLAG_DOUBLE, lr, "sft reward train offline", "3e-5", "0..1e9", "learning rate"),
    CHOICE("schedule", schedule, "sft reward train offline", "linear", schedules, "of the learning rate, to 0, per optimiser step"),
    FLAG("warmup", FLAG_LONG, warmup, "sft reward train offline", "0", "0..1e9", "optimiser steps over which the rate rises"),
    FLAG("beta1", FLAG_DOUBLE, beta1, "sft reward train offline", "0.9", "0..<1", "of AdamW"),
    FLAG("beta2", FLAG_DOUBLE, beta2, "sft reward train offline", "0.95", "0..<1", "of AdamW"),
    FLAG("eps", FLAG_DOUBLE, eps, "sft reward train offline", "1e-8", "1e-20..1e9", "of AdamW"),
    FLAG("weight-decay", FLAG_DOUBLE, weight_decay, "sft reward train offline", "1e-6", "0..1000", "of AdamW, on matrices and embeddings"),
    FLAG("clip-grad", FLAG_DOUBLE, clip_grad, "sft reward train offline", "1", "0..1e9", "largest gradient norm (0: no clipping)"),
    // running
    FLAG("preset", FLAG_STRING, preset, "train offline", NULL, NULL, "a named set of flags. train: sentiment, sentiment-released, tldr, tldr-released: the paper's; best: the demo's recipe, longer (without one: sentiment's numbers, all layers, all samples). offline: dpo, bonbon, bon-sft: rates and batches for 124 million parameters"),
    FLAG("seed", FLAG_LONG, seed, "sft reward sample bon cache train offline eval", "1", "0..", "of every random draw"),
    FLAG("resume", FLAG_BOOL, resume, "sft reward train offline", "false", NULL, "go on from the last checkpoint in --out"),
    FLAG("log-every", FLAG_LONG, log_every, "sft reward train offline", "1", "1..1e9", "optimiser steps (train: iterations) between records"),
    FLAG("eval-every", FLAG_LONG, eval_every, "sft reward", "0", "0..1e9", "optimiser steps between held-out measurements (0: at the end)"),
    FLAG("save-every", FLAG_LONG, save_every, "sft reward train offline", "0", "0..1e9", "optimiser steps (train: iterations) between checkpoints (0: by the clock alone)"),
    FLAG("save-minutes", FLAG_DOUBLE, save_minutes, "sft reward train offline", "10", "0..1e9",
         "minutes between checkpoints (0: none by the clock); one writes 12 bytes a parameter that trains: "
         "0.2 s for a million of them, 15 s for 87 million, beside other work on two cores"),
    FLAG("micro-tokens", FLAG_LONG, micro_tokens, "sft reward score cache train offline eval sample bon info", "4096", "1..1e9", "tokens in one forward pass; results do not depend on it beyond rounding"),
    FLAG("decode-rows", FLAG_LONG, decode_rows, "sample bon cache train eval info", "0", "0..1e9", "responses decoded at once at most; fewer need less memory for keys and values (0: 256, train 512)"),
    FLAG("memory", FLAG_STRING, memory, "info", NULL, NULL, "say whether the plan fits, e.g. 40GB"),
    CHOICE("precision", precision, "all", "auto", precisions, "bf16: on the CPU of matrix products' inputs, on CUDA of weights and activations; what trains, its sums and statistics stay fp32 (auto: fp32 on the CPU, bf16 on CUDA)"),
    CHOICE("device", device, "all", "cpu", devices, "where to compute"),
    FLAG("threads", FLAG_LONG, threads, "all", "0", "0..1024", "CPU threads (0: one a core)"),
};
static const size_t n_flags = sizeof flag_table / sizeof *flag_table;

// Presets are flags, read before the command line (the paper's appendix F and the released code; the README says where they differ).
static const struct { const char *name, *flags; } presets[] = {
    {"sentiment", "--train-layers 2 --objective vbon --n 4 --fhat digamma --lr 3e-5 --schedule linear --beta1 0.9 --beta2 0.95 --eps 1e-8 --weight-decay 1e-6 "
                  "--rollout 128 --minibatch 32 --ppo-epochs 4 --vf-coef 1 --clip 0.2 --value-clip 0.2 --clip-grad 1 --episodes 12800 --max-new 40 --temperature 1 --m 200"},
    {"sentiment-released", "--train-layers 2 --objective l --beta 0.1 --fhat add1 --lr 3e-5 --schedule constant --beta1 0.9 --beta2 0.95 --eps 1e-8 --weight-decay 1e-6 "
                  "--rollout 128 --minibatch 32 --ppo-epochs 4 --vf-coef 1 --score-clip 10 --clip-grad 0 --episodes 12800 --max-new 40 --temperature 1"},
    {"tldr", "--train-layers all --objective vbon --n 100 --fhat expfit --lr 3e-6 --schedule linear --beta1 0.9 --beta2 0.95 --eps 1e-5 --weight-decay 1e-6 "
                  "--rollout 128 --minibatch 32 --ppo-epochs 4 --vf-coef 0.2 --clip 0.2 --value-clip 0.2 --clip-grad 1 --episodes 10000 --max-new 53 --temperature 0.7 --m 200 --missing-eos -1"},
    {"tldr-released", "--train-layers 8 --objective l --beta 0.005 --fhat add1 --lr 3e-6 --schedule constant --beta1 0.9 --beta2 0.999 --eps 1e-5 --weight-decay 0.01 "
                  "--rollout 128 --minibatch 4 --ppo-epochs 4 --vf-coef 0.2 --clip-grad 0 --episodes 10000 --max-new 50 --temperature 0.7 --missing-eos -20"},
    {"dpo", "--loss dpo --beta 0.1 --draws 6 --pairs 12 --lr 1e-6 --batch 64 --epochs 1"},
    {"bonbon", "--loss bonbon --n 8 --alpha auto --lr 1e-6 --batch 64 --epochs 1"},
    {"bon-sft", "--loss bon-sft --n 8 --lr 5e-6 --batch 8 --epochs 1"},
    {"best", "--train-layers all --objective vbon --n 16 --fhat digamma --critic prefix-rank --lambda 0.7 --lr 2e-4 --schedule linear --warmup 12 --beta1 0.9 --beta2 0.95 --eps 1e-8 "
                  "--weight-decay 1e-6 --rollout 512 --minibatch 64 --ppo-epochs 1 --clip 0.2 --clip-grad 1 --episodes 65536 --max-new 40 --temperature 1 --m 0"},
};
static const char *preset_flags(const char *name)
{
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) if (!strcmp(presets[i].name, name)) return presets[i].flags;
    return NULL;
}

#ifndef VBON_VERSION
#define VBON_VERSION "unknown"
#endif
static const char *cpu_libraries(void)
{
    static char s[128];
#ifdef VBON_ONEDNN
    const dnnl_version_t *v = dnnl_version();
    snprintf(s, sizeof s, "oneDNN %d.%d.%d, jansson %s, utf8proc %s", v->major, v->minor, v->patch, JANSSON_VERSION, utf8proc_version());
#else
    snprintf(s, sizeof s, "no oneDNN, jansson %s, utf8proc %s", JANSSON_VERSION, utf8proc_version());
#endif
    return s;
}

// The op table that --device names: the only place where a backend is chosen.
static const Ops *device_ops(const Args *a)
{
    if (a->device == DEVICE_CPU) return ops_cpu();
#ifdef VBON_CUDA
    return ops_cuda(a->precision == PRECISION_FP32 ? DT_F32 : DT_BF16);
#else
    die("--device cuda: this vbon was built without CUDA: install its toolkit (nvcc) and build again, or leave --device out");
#endif
}

#include "lib/commands.h"

// ----------------------------------------------------------------------------
// main

// OpenMP reads its environment before main: have waiting threads sleep rather than spin (see the top of this file), then start again. libgomp's first look
// around 500 times, some 10 microseconds: waking a thread between two short regions takes longer, and decoding is made of them.
static void wait_by_sleeping(char **argv)
{
    if (getenv("OMP_WAIT_POLICY")) return;
    setenv("OMP_WAIT_POLICY", "passive", 1);
    setenv("GOMP_SPINCOUNT", "500", 0);
    char path[PATH_MAX] = "";
    if (readlink("/proc/self/exe", path, sizeof path - 1) > 0) execv(path, argv); // by its name, which ps shows
    execv("/proc/self/exe", argv); // goes on in the caller where neither is possible
}

#ifndef TESTING
static void help(FILE *f)
{
    fprintf(f, "vbon %s: variational Best-of-N alignment\n\nusage: vbon COMMAND [--flag value ...]; vbon COMMAND --help lists the flags\n\n", VBON_VERSION);
    for (size_t i = 0; i < n_commands; i++) fprintf(f, "  %-8s %s\n", commands[i].name, commands[i].summary);
}

static int output_written(void) // a full disk behind standard output, or a closed one, is an error
{
    file_flush(stdout, "standard output", false);
    if (close(1)) die("standard output: cannot be written: %s", strerror(errno));
    return 0;
}

int main(int argc, char **argv)
{
    begin_program();
    wait_by_sleeping(argv);
    if (argc < 2) { help(stderr); return 2; }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help")) { help(stdout); return output_written(); }
    const Command *c = NULL;
    for (size_t i = 0; i < n_commands; i++) if (!strcmp(argv[1], commands[i].name)) c = &commands[i];
    if (!c) { fprintf(stderr, "vbon: no command \"%s\": see vbon --help\n", argv[1]); return 2; }
    for (int i = 2; i < argc; i++) if (!strcmp(argv[i], "--help")) { flags_help(flag_table, n_flags, c->name, c->summary, c->example); return output_written(); }
    static Args a;
    flags_parse(&a, flag_table, n_flags, c->name, argc - 2, argv + 2, preset_flags);
    if (a.threads) omp_set_num_threads((int)a.threads);
    a.threads = omp_get_max_threads(); // what a run is resumed with must be the same number
    cpu_bf16 = a.precision == PRECISION_BF16 && a.device == DEVICE_CPU;
    if (cpu_bf16 && !bf16_native()) fprintf(stderr, "note: no bfloat16 products on this CPU or in this build: inputs are rounded to bfloat16 and multiplied in fp32; %s faster than --precision fp32\n",
                                            BF16_DOT ? "only what samples and scores is" : "only decoding few rows is");
    bool to_stdout = !strcmp(c->name, "info") || (!a.out && (!strcmp(c->name, "sample") || !strcmp(c->name, "bon")));
    if (!to_stdout) flags_table(&a, flag_table, n_flags, c->name);
    file_flush(stdout, "standard output", false);
    c->run(&a);
    return output_written();
}
#endif
