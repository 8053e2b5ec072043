// products.h: the matrix products of the CPU. A part of vbon.c, which includes it in its middle: it uses R_, need
// and SMALL from there.
//
// There are two. gemm multiplies any two matrices, for training and attention: it is oneDNN's where that is built
// in, else plain loops. product multiplies rows by a weight, out (N,OC) = inp (N,C) w^T, and where the weight was
// packed before (model_pack: for decoding, prefill and scoring, which multiply by the same weights again and again,
// most often with few rows) packed_product does it, written here by hand because with few rows it is faster than
// oneDNN (dev/doc/speed.md). How it works, from the inside out:
//
//  - Register tiles (tile). An output is a sum over k of x[k] w[k]. Made one by one, each multiply-add (FMA) needs
//    two loads, its x and its w, and a core that can begin two FMAs a cycle has only two or three loads a cycle. So
//    a tile makes `rows` x PANEL outputs at once and keeps their sums in registers. For each k it loads two vectors
//    of w (PANEL outputs that stand side by side) and one x of each row, repeated over a whole vector, and
//    multiplies each with each: 2 + rows loads for 2 rows FMAs. With 6 rows these are 8 loads for 12 FMAs, 0.67 an
//    FMA; with 8 rows 10 for 16, 0.63. With one row they are 3 for 2, but then waiting for the weights from memory
//    is most of the time whatever the arithmetic does.
//  - Why these sizes. 6 rows and 2 vectors are 12 sums; with two vectors of w and one of x they fill 15 of AVX2's 16
//    registers. AVX-512 has 32 registers: 8 rows, 16 sums. (Without AVX a vector is 4 floats, and all else as with
//    AVX2.) Twelve are enough: an FMA's result is there after 4 or 5 cycles, so 8 to 10 sums must be under way to
//    begin two a cycle.
//  - Why TILE and CASE (packed_product). An array is kept in registers only if every index into it is a constant. So
//    the number of rows must be known to the compiler: tile is always inlined, TILE writes a call with constants,
//    and CASE makes one for each number of rows that a tile may have.
//  - How K is walked. A piece is TILE_K places of a panel, 16 KiB, which is half of the smallest first cache (L1).
//    All tiles of a chunk of rows take turns at it while it is there; then comes the next piece. The first piece
//    overwrites the output (or adds to the bias there), the later ones add to it. While it computes, each tile asks
//    the memory for its share of the next piece (`next`, `step`): the fewer the tiles, the larger the share.
//  - Packing (cpu_pack). A weight w (OC,C) has the outputs of one k C places apart. Packed it is panels of PANEL
//    outputs, panel[C][PANEL], with zeros beyond the last output: what a tile loads stands side by side, and pieces
//    and panels follow each other, one long read.
//  - bfloat16. Packed with --precision bf16, a word of a panel holds two places of K, panel[(C+1)/2][PANEL]: half
//    the bytes to read. Where the CPU has AVX512_BF16 one instruction multiplies a pair of w with a pair of x and
//    adds both products to a sum in fp32 (pair_dot): 32 multiply-adds, where an FMA does 16. Elsewhere a piece is
//    made floats in the first cache (unpair) and multiplied as such. x is rounded to bfloat16 before.
//  - Threads share out panels times chunks of at most CHUNK_ROWS rows, so that what tiles read of x stays in the
//    second cache.
//
// The order of a row's sums is fixed by C alone, whatever stands beside the row: its results are the same bits in
// any batch and with any number of threads.
#pragma once
#include "onednn.h"

static bool cpu_bf16;    // --precision bf16: products take bfloat16 inputs, sums and everything else stay fp32

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

// ----------------------------------------------------------------------------
// matrix products: C (M,N) = op(A) op(B) + beta C, row-major; ta: A is stored (K,M), tb: B is stored (N,K)

#ifndef VBON_ONEDNN
static void gemm(bool ta, bool tb, size_t M, size_t N, size_t K, const real *A, size_t lda, const real *B, size_t ldb,
                 real beta, real *C, size_t ldc)
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
static void gemm(bool ta, bool tb, size_t M, size_t N, size_t K, const real *A, size_t lda, const real *B, size_t ldb,
                 real beta, real *C, size_t ldc)
{
    onednn_sgemm(ta, tb, M, N, K, A, lda, B, ldb, beta, C, ldc);
}
#endif

// Whether the library multiplies bfloat16 on this CPU (products by packed weights are ours, below). Where it does not,
// --precision bf16 means the same mathematics (inputs rounded to bfloat16, sums in fp32), computed by its fp32 products
// and no faster.
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

// The same product, its inputs in bfloat16 where --precision says so; dense operands (lda, ldb, ldc as the shapes have
// it).
static void gemm_bf16(bool ta, bool tb, size_t M, size_t N, size_t K, const real *A, size_t lda, const real *B,
                      size_t ldb, real beta, real *C, size_t ldc)
{
    static Scratch sa, sb;
    const void *a = cpu_bf16 ? in_bf16(&sa, A, M * K) : A, *b = cpu_bf16 ? in_bf16(&sb, B, K * N) : B;
#ifdef VBON_ONEDNN
    if (cpu_bf16 && bf16_native()) {
        onednn_bf16gemm(ta, tb, M, N, K, (const uint16_t *)a, (const uint16_t *)b, beta, C);
        return;
    }
#endif
    gemm(ta, tb, M, N, K, (const real *)a, lda, (const real *)b, ldb, beta, C, ldc);
}

// ----------------------------------------------------------------------------
// packed weights

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
enum {
    LANES = VECTOR_BYTES / sizeof(real),
    PANEL = 2 * LANES,
    TILE_ROWS = VECTOR_BYTES == 64 ? 8 : 6,
    TILE_K = 16384 / (PANEL * sizeof(real)),
    CHUNK_ROWS = 192
};
_Static_assert(TILE_ROWS <= 8, "packed_product has a case for each number of rows, and tile unrolls so many");

// in double: rounded to bfloat16, kept as double
static bool packs_bf16(void) { return cpu_bf16 && sizeof(real) == sizeof(uint32_t); }

static size_t cpu_packed_size(size_t OC, size_t C)
{
    return (OC + PANEL - 1) / PANEL * PANEL * (packs_bf16() ? (C + 1) / 2 : C) * sizeof(real);
}

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
                if (pairs) {
                    uint32_t low = bf16_round((float)row[2 * k]);
                    uint32_t high = 2 * k + 1 < C ? bf16_round((float)row[2 * k + 1]) : 0;
                    ((uint32_t *)panel)[k * PANEL + j] = in ? low | high << 16 : 0;
                } else panel[k * PANEL + j] = !in ? 0 : cpu_bf16 ? (real)bf16_value(bf16_round((float)row[k])) : row[k];
            }
    }
}

// x (N,C) as pairs of bfloat16 meet it: rows of an even length, of bfloat16 where BF16_DOT, else of reals that bfloat16
// can hold
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

// out (rows,width) = or += x (rows,K) w (K,PANEL), width <= PANEL, pairs of bfloat16 if `pairs`; x is a row every X
// reals, out every OC. Meanwhile fetches K places from next, `step` apart (0: none).
static inline __attribute__((always_inline)) void tile(real *out, size_t OC, size_t width, const real *x, size_t X,
                                                       const real *w, size_t K, int rows, bool pairs, bool add,
                                                       const real *next, size_t step)
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
            for (int r = 0; r < rows; r++) {
                sum[r][0] += x[(size_t)r * X + k] * w0;
                sum[r][1] += x[(size_t)r * X + k] * w1;
            }
        } else {
            #pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                sum[r][0] = pair_dot(sum[r][0], x + (size_t)r * X + k, w0);
                sum[r][1] = pair_dot(sum[r][1], x + (size_t)r * X + k, w1);
            }
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
    // something for every thread
    while (chunks * panels < (size_t)omp_get_max_threads() && chunks * TILE_ROWS < N) chunks++;
    #pragma omp parallel for collapse(2) schedule(static) if (N * X * OC > 16 * SMALL)
    for (size_t i = 0; i < chunks; i++) {
        for (size_t j = 0; j < OC; j += PANEL) {
            size_t first = N * i / chunks, rows = N * (i + 1) / chunks - first,
                   tiles = (rows + TILE_ROWS - 1) / TILE_ROWS, width = OC - j < PANEL ? OC - j : PANEL;
            for (size_t k = 0, most = expand ? TILE_K / 2 : TILE_K; k < K; k += most) {
                real floats[TILE_K * PANEL] __attribute__((aligned(64)));
                size_t words = K - k < most ? K - k : most, n = expand ? 2 * words : words,
                       step = PANEL / tiles * words / n;
                const real *piece = w + (j * K + k * PANEL), *next = piece + words * PANEL;
                if (expand) { unpair(floats, piece, words); piece = floats; }
                for (size_t t = 0; t < tiles; t++) {
                    size_t from = first + rows * t / tiles, to = first + rows * (t + 1) / tiles;
#define TILE(rows, dot) \
    tile(out + from * OC + j, OC, width, inp + from * X + (expand ? 2 * k : k), X, piece, n, rows, dot, add || k, \
         next + t * n * step, step)
#define CASE(rows) \
    case rows: \
        if (rows > TILE_ROWS) break; \
        if (BF16_DOT && pairs) TILE(rows, true); \
        else TILE(rows, false); \
        break
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
