// vbon.c: the CPU operations (ops_cpu) and main.
//
// It implements the op table of gpt2.h on the CPU: plain loops with OpenMP, around the matrix products of
// lib/products.h. These are the reference that the CUDA kernels of vbon.cu are compared with, op by op, so they stay
// plain where speed does not matter; where it does (attention, the softmax over the vocabulary) they are written so
// that the compiler vectorises them. `real` is float; -Dreal=double builds all of it in double, without oneDNN, and is
// what gradients are checked in.
//
// Easy to get wrong:
//  - A reduction's order must not depend on the thread schedule, or two equal runs differ: sums over rows are kept per
//    thread under a static schedule and added in thread order; sumsq adds fixed chunks.
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
// memory

static inline real *R_(Buf b) { return (real *)b.p; }
static inline int *I_(Buf b) { return (int *)b.p; }

#ifdef DEBUG
static void need(const char *op, Buf b, size_t n, DType type)
{
    if (b.p && (b.n < n || b.type != type))
        die("%s: %s has %zu elements of type %d, needs %zu of type %d", op, b.name ? b.name : "?", b.n, b.type, n,
            type);
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

// Memory is asked for before a run begins, and so must be refused then. The system grants more than it has, and ends
// the program when it is used: so the sum is held against the machine's. And where address space is limited some must
// be left for the products: oneDNN 2's sgemm writes through what its own malloc returned, NULL too, in its calls and
// when it writes the code for the first of a kind.
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
    if (!b.p)
        die("out of memory: %s needs %.1f MiB: lower --micro-tokens, or see vbon info", name, (double)bytes / 1048576);
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
static void cpu_download_begin(void *dst, Buf src, int which) { (void)which; cpu_download(dst, src); }
static void cpu_download_end(int which) { (void)which; }
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

// ----------------------------------------------------------------------------
// exp, tanh and erf: the library's in double, in float ones that the compiler can vectorise

// exp for loops: the library's in double, in float one that vectorises (relative error 1e-7, 0 below -87).
static inline real exp_(real x)
{
    if (sizeof(real) == 8) return (real)exp(x);
    float y = x < -87 ? -87.0f : x > 88 ? 88.0f : (float)x;
    float n = rintf(y * 1.44269504f), r = fmaf(n, -0.693359375f, y);
    r = fmaf(n, 2.12194440e-4f, r);
    float e =
        fmaf(fmaf(fmaf(fmaf(fmaf(1.9875691500e-4f, r, 1.3981999507e-3f), r, 8.3334519073e-3f), r, 4.1665795894e-2f), r,
                  1.6666665459e-1f),
             r, 5.0000001201e-1f);
    e = fmaf(e * r, r, r) + 1.0f;
    // 2^n by its bits; of NaN any exponent will do, for it stays in e
    union { float f; int32_t i; } scale = {.i = ((int32_t)(n >= -126 ? n : -126.0f) + 127) << 23};
    return x < -87 ? 0 : e * scale.f;
}

static inline real tanh_(real x)
{
    if (sizeof(real) == 8) return (real)tanh(x);
    float a = fabsf((float)x), t = 1 - 2 / ((float)exp_(2 * a) + 1);
    return copysignf(a < 1e-3f ? a : t, (float)x); // tanh x = x - x^3/3, below float's rounding there
}

// In float 1 - exp(-x^2) t P(t), t = 1/(1 + 0.4 |x|); P's coefficients minimise the largest error, 3e-8 before rounding
// and 4e-7 with it.
static inline real erf_(real x)
{
    if (sizeof(real) == 8) return (real)erf(x);
    float a = fabsf((float)x), t = 1 / fmaf(0.4f, a, 1);
    float p =
        fmaf(fmaf(fmaf(fmaf(fmaf(-0.20025976f, t, 0.70914941f), t, -0.37091131f), t, 0.46827689f), t, 0.16182247f), t,
             0.23192227f);
    return copysignf(fmaf(-t * p, (float)exp_((real)(-a * a)), 1), (float)x);
}

// ----------------------------------------------------------------------------
// matrix products

#include "lib/products.h"

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
    // a column belongs to one thread: no two add to one place
    #pragma omp parallel for schedule(static) if (N * C > 4 * SMALL)
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

static void cpu_layernorm_backward(Buf dinp, Buf dw, Buf db, Buf dout, Buf inp, Buf w, Buf mean, Buf rstd, size_t N,
                                   size_t C)
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

static inline real gelu_tanh(real x)
{
    return (real)0.5 * x * (1 + tanh_((real)0.7978845608028654 * (x + (real)0.044715 * x * x * x)));
}
static inline real gelu_tanh_gradient(real x)
{
    real u = (real)0.7978845608028654 * (x + (real)0.044715 * x * x * x), t = tanh_(u);
    return (real)0.5 * (1 + t) +
        (real)0.5 * x * (1 - t * t) * (real)0.7978845608028654 * (1 + 3 * (real)0.044715 * x * x);
}
static inline real gelu_erf(real x) { return (real)0.5 * x * (1 + erf_(x * (real)0.7071067811865476)); }
static inline real gelu_erf_gradient(real x)
{
    return (real)0.5 * (1 + erf_(x * (real)0.7071067811865476)) +
        x * (real)0.3989422804014327 * exp_((real)-0.5 * x * x);
}

static void cpu_activation_forward(Buf out, Buf inp, Activation kind, size_t n)
{
    NEED(out, n); NEED(inp, n);
    real *o = R_(out);
    const real *x = R_(inp);
    switch (kind) {
    case ACT_GELU_TANH:
        #pragma omp parallel for simd schedule(static) if (n > SMALL)
        for (size_t i = 0; i < n; i++) o[i] = gelu_tanh(x[i]);
        break;
    case ACT_GELU_ERF:
        #pragma omp parallel for simd schedule(static) if (n > SMALL)
        for (size_t i = 0; i < n; i++) o[i] = gelu_erf(x[i]);
        break;
    case ACT_RELU:
        #pragma omp parallel for simd schedule(static) if (n > SMALL)
        for (size_t i = 0; i < n; i++) o[i] = x[i] > 0 ? x[i] : 0;
        break;
    }
}

static void cpu_activation_backward(Buf dinp, Buf dout, Buf inp, Activation kind, size_t n)
{
    NEED(dinp, n); NEED(dout, n); NEED(inp, n);
    real *dx = R_(dinp), *d = R_(dout); // may be one buffer
    const real *x = R_(inp);
    switch (kind) {
    case ACT_GELU_TANH:
        #pragma omp parallel for simd schedule(static) if (n > SMALL)
        for (size_t i = 0; i < n; i++) dx[i] = d[i] * gelu_tanh_gradient(x[i]);
        break;
    case ACT_GELU_ERF:
        #pragma omp parallel for simd schedule(static) if (n > SMALL)
        for (size_t i = 0; i < n; i++) dx[i] = d[i] * gelu_erf_gradient(x[i]);
        break;
    case ACT_RELU:
        #pragma omp parallel for simd schedule(static) if (n > SMALL)
        for (size_t i = 0; i < n; i++) dx[i] = x[i] > 0 ? d[i] : 0;
        break;
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

static void cpu_add_layernorm(Buf sum, Buf mean, Buf rstd, const Norm norm[2], Buf a, Buf b, Buf c, size_t N, size_t C,
                              double eps)
{
    if (c.p) cpu_add(b, b, c, N * C);
    cpu_add(sum, a, b, N * C);
    for (int i = 0; i < 2 && norm[i].out.p; i++)
        cpu_layernorm_forward(norm[i].out, mean, rstd, sum, norm[i].w, norm[i].b, N, C, eps);
}

static void cpu_rotary(Buf qkv, Buf pos, size_t N, size_t NH, size_t HS, size_t dims, double base, bool inverse)
{
    NEED(qkv, 3 * N * NH * HS); NEED_INDEX(pos, N);
    const size_t half = dims / 2;
    #pragma omp parallel for schedule(static) if (N * NH * dims > SMALL)
    for (size_t i = 0; i < N; i++) {
        real c[half + 1], s[half + 1];
        for (size_t j = 0; j < half; j++) {
            // in double: thousands of radians lose float's digits
            double angle = (double)I_(pos)[i] * pow(base, -2.0 * (double)j / (double)dims);
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
// attention: for each row and head, tiles of queries against all keys they may see. Five matrix products make the
// backward pass.

enum { QUERIES = 64 }; // a tile

static size_t longest_row(const int *start, size_t B)
{
    size_t most = 1;
    for (size_t b = 0; b < B; b++)
        if ((size_t)(start[b + 1] - start[b]) > most) most = (size_t)(start[b + 1] - start[b]);
    return most;
}

static void cpu_attention_forward(Buf out, Buf lse, Buf qkv, Buf start, size_t B, size_t N, size_t NH, size_t HS,
                                  bool causal)
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

static void cpu_attention_backward(Buf dqkv, Buf dout, Buf out, Buf lse, Buf qkv, Buf start, size_t B, size_t N,
                                   size_t NH, size_t HS, bool causal)
{
    NEED(dqkv, 3 * N * NH * HS);
    NEED(dout, N * NH * HS);
    NEED(out, N * NH * HS);
    NEED(lse, N * NH);
    NEED(qkv, 3 * N * NH * HS);
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
                    for (size_t j = 0; j < see; j++) {
                        p[j] = exp_(p[j] * scale - l);
                        dp[j] = p[j] * (dp[j] - delta) * scale;
                    }
                    for (size_t j = see; j < keys; j++) p[j] = dp[j] = 0;
                }
                // the first tile overwrites dk and dv up to its keys, later tiles add to what is there and overwrite
                // the rest
                size_t old = t0 == 0 ? 0 : causal ? t0 : n;
                for (size_t j = old; j < keys; j++) {
                    memset(dk + j * 3 * C, 0, HS * sizeof(real));
                    memset(dv + j * 3 * C, 0, HS * sizeof(real));
                }
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
        for (size_t c = 0; c < HS; c++)
            o[c] += w[j] * v[j * HS + c] + w[j + 1] * v[(j + 1) * HS + c] + w[j + 2] * v[(j + 2) * HS + c] +
                w[j + 3] * v[(j + 3) * HS + c];
    for (; j < n; j++)
        for (size_t c = 0; c < HS; c++) o[c] += w[j] * v[j * HS + c];
}

// The cache: for each slot all keys, then all values, (2,NH,T,HS): what one head reads lies in one piece.
static void cpu_attention_decode(Buf out, Buf kv, Buf qkv, Buf start, Buf slot, Buf len, size_t T, Buf pkv, Buf pslot,
                                 Buf plen, size_t TP, size_t B, size_t N, size_t NH, size_t HS)
{
    NEED(out, N * NH * HS); NEED(qkv, 3 * N * NH * HS); NEED_INDEX(slot, B);
    if (len.p) NEED_INDEX(len, B);
    static Scratch s;
    const size_t C = NH * HS, threads = (size_t)omp_get_max_threads();
    real *all = scratch(&s, threads * (TP + T) * sizeof *all), scale = (real)(1 / sqrt((double)HS));
    #pragma omp parallel for collapse(2) schedule(dynamic, 8) if (N * C > SMALL / 4)
    for (size_t b = 0; b < B; b++)
        for (size_t h = 0; h < NH; h++) {
            real *p = all + (size_t)omp_get_thread_num() * (TP + T);
            size_t first = (size_t)I_(start)[b], n = (size_t)I_(start)[b + 1] - first;
            size_t past = len.p ? (size_t)I_(len)[b] : 0, before = pkv.p ? (size_t)I_(plen)[b] : 0;
            real *keys = R_(kv) + ((size_t)I_(slot)[b] * 2 * NH + h) * T * HS, *values = keys + NH * T * HS;
            const real *shared_keys = before ? R_(pkv) + ((size_t)I_(pslot)[b] * 2 * NH + h) * TP * HS : NULL,
                       *shared_values = before ? shared_keys + NH * TP * HS : NULL;
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

static void cpu_gather_ints(Buf out, Buf inp, Buf index, size_t n)
{
    NEED_INDEX(out, n); NEED_INDEX(index, n);
    for (size_t i = 0; i < n; i++) I_(out)[i] = I_(inp)[I_(index)[i]];
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

// rows whose logits fit about 64 MiB: fewer would stay in the cache, but each chunk reads the weights and adds to their
// gradient anew
static size_t cpu_head_rows(size_t V)
{
    size_t rows = (16u << 20) / V;
    return rows < 16 ? 16 : rows > 512 ? 512 : rows;
}

static size_t cpu_vocabulary_rows(size_t V) { return V; }

static real *head_scratch(Scratch *s, size_t V) { return scratch(s, cpu_head_rows(V) * V * sizeof(real)); }

// logits of rows [r, r+n), n x V
static real *head_logits(real *logits, Buf inp, Buf w, size_t r, size_t n, size_t C, size_t V)
{
    product(logits, R_(inp) + r * C, w, n, C, V, 0);
    return logits;
}

// x (V) becomes softmax's exponentials e = exp(z), z = x/temperature - max. Returns their sum; max + log sum through
// lse; the entropy too
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

static void cpu_logprob_forward(Buf logp, Buf entropy, Buf kept, Buf inp, Buf w, Buf target, double temperature,
                                size_t R, size_t C, size_t V)
{
    NEED(logp, R); NEED(entropy, R); NEED(kept, R * V); NEED(inp, R * C); NEED_INDEX(target, R);
    static Scratch s;
    real it = (real)(1 / temperature);
    for (size_t r = 0, chunk = cpu_head_rows(V); r < R; r += chunk) {
        size_t n = R - r < chunk ? R - r : chunk;
        real *logits = head_logits(kept.p ? R_(kept) + r * V : head_scratch(&s, V), inp, w, r, n, C, V);
        #pragma omp parallel for schedule(static) if (n * V > SMALL)
        for (size_t i = 0; i < n; i++) {
            real *x = logits + i * V, at = x[I_(target)[r + i]] * it, lse,
                 sum = exponentials(x, V, it, &lse, entropy.p ? R_(entropy) + r + i : NULL);
            R_(logp)[r + i] = at - lse;
            for (size_t j = 0; j < V && kept.p; j++) x[j] /= sum;
        }
    }
}

static void cpu_logprob_backward(Buf dinp, Buf dw, Buf logp, Buf dlogp, Buf kept, Buf inp, Buf w, Buf target,
                                 double temperature, size_t R, size_t C, size_t V)
{
    NEED(dinp, R * C);
    NEED(dw, V * C);
    NEED(logp, R);
    NEED(dlogp, R);
    NEED(kept, R * V);
    NEED(inp, R * C);
    NEED_INDEX(target, R);
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

static void cpu_candidate_logprobs(Buf logp, Buf token, bool choose, Buf inp, Buf w, double temperature, size_t K,
                                   size_t R, size_t C, size_t V)
{
    NEED(logp, R * K); NEED_INDEX(token, R * K); NEED(inp, R * C);
    static Scratch s;
    real it = (real)(1 / temperature);
    for (size_t r = 0, chunk = cpu_head_rows(V); r < R; r += chunk) {
        size_t n = R - r < chunk ? R - r : chunk;
        real *logits = head_logits(head_scratch(&s, V), inp, w, r, n, C, V);
        #pragma omp parallel for schedule(static) if (n * V > SMALL)
        for (size_t i = 0; i < n; i++) {
            real *x = logits + i * V, *l = R_(logp) + (r + i) * K, lse;
            int *y = I_(token) + (r + i) * K;
            // those found so far, in order; few of the vocabulary are above the least of them
            for (size_t j = 0, found = 0; j < V && choose; j++) {
                if (found == K && x[j] <= l[K - 1]) continue;
                size_t at = found < K ? found++ : K - 1;
                for (; at > 0 && l[at - 1] < x[j]; at--) { l[at] = l[at - 1]; y[at] = y[at - 1]; }
                l[at] = x[j];
                y[at] = (int)j;
            }
            for (size_t k = 0; k < K; k++) l[k] = x[y[k]] * it;
            exponentials(x, V, it, &lse, NULL);
            for (size_t k = 0; k < K; k++) l[k] -= lse;
        }
    }
}

static void cpu_all_actions_backward(Buf dinp, Buf dw, Buf logp, Buf dlogp, Buf kept, Buf inp, Buf w, Buf target,
                                     Buf token, Buf worth, double kappa, double scale, double temperature, size_t K,
                                     size_t R, size_t C, size_t V)
{
    (void)logp; // kept has the probabilities
    NEED(kept, R * V); NEED(dlogp, R); NEED_INDEX(target, R); NEED_INDEX(token, R * K); NEED(worth, R * K);
    #pragma omp parallel for schedule(static) if (R * V > SMALL)
    for (size_t i = 0; i < R; i++) {
        real *p = R_(kept) + i * V, *d = R_(worth) + i * K;
        const int *y = I_(token) + i * K;
        double mass = 0, b = 0;
        for (size_t k = 0; k < K; k++) { // a probability of 0 has no gradient, and no logarithm
            double pi = (double)p[y[k]];
            d[k] = (real)((double)d[k] - (pi > 0 ? kappa * log(pi) : 0));
            mass += pi;
            b += pi * (double)d[k];
        }
        b = mass > 0 ? b / mass : 0;
        for (size_t k = 0; k < K; k++) d[k] = (real)(-scale / temperature * (double)p[y[k]] * ((double)d[k] - b));
        real taken = (real)((double)R_(dlogp)[i] / temperature);
        for (size_t j = 0; j < V; j++) p[j] *= -taken; // as logprob_backward
        p[I_(target)[i]] += taken;
        for (size_t k = 0; k < K; k++) p[y[k]] += d[k];
    }
    cpu_matmul_backward(dinp, dw, (Buf){0}, kept, inp, w, R, C, V);
}

static void cpu_head_kl(Buf kl, Buf p_inp, Buf p_w, Buf q_inp, Buf q_w, double temperature, size_t R, size_t C,
                        size_t V)
{
    NEED(kl, R); NEED(p_inp, R * C); NEED(q_inp, R * C);
    static Scratch sp, sq;
    real it = (real)(1 / temperature);
    for (size_t r = 0, chunk = cpu_head_rows(V); r < R; r += chunk) {
        size_t n = R - r < chunk ? R - r : chunk;
        real *p = head_logits(head_scratch(&sp, V), p_inp, p_w, r, n, C, V),
             *q = head_logits(head_scratch(&sq, V), q_inp, q_w, r, n, C, V);
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

// The largest weight whose mass still reaches `goal`. The bits of a positive number are in its order, so it is found
// bit by bit from the top: a selection in 30 passes over the vocabulary (62 in double), and no sort.
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

// The smallest weight that top-k and top-p keep, of weights up to 1; ties with it are kept too. Top-p is a share of the
// k likeliest: of those that tie for the last place as many as k has room for.
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

static void cpu_sample(Buf token, Buf logp, Buf inp, Buf w, Buf uniform, double temperature, long top_k, double top_p,
                       size_t R, size_t C, size_t V)
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
                // the token whose interval [below, below + weight) holds u; the last one with weight if rounding ran
                // past the end
                for (j = j0; j < V; j++) {
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

static void cpu_ppo_loss(Buf dlogp, Buf dvalue, Buf sums, Buf logp, Buf value, Buf old_logp, Buf old_value,
                         Buf advantage, Buf returns, double scale, double clip, double value_clip, double vf_coef,
                         size_t R)
{
    for (size_t i = 0; i < R; i++) {
        double dl, dv;
        ppo_action_loss(&dl, &dv, sums.p, R_(logp)[i], R_(value)[i], R_(old_logp)[i], R_(old_value)[i],
                        R_(advantage)[i], R_(returns)[i], clip, value_clip);
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
        for (; i + SUMS <= end; i += SUMS)
            for (size_t j = 0; j < SUMS; j++) s[j] += (double)R_(a)[i + j] * (double)R_(a)[i + j];
        for (; i < end; i++) s[0] += (double)R_(a)[i] * (double)R_(a)[i];
        partial[c] = 0;
        for (size_t j = 0; j < SUMS; j++) partial[c] += s[j];
    }
    for (size_t c = 0; c < chunks; c++) sum += partial[c];
    free(partial);
    return sum;
}

static void cpu_blend(Buf y, Buf x, double keep)
{
    real k = (real)keep, *a = R_(y);
    const real *b = R_(x);
    #pragma omp parallel for simd schedule(static) if (y.n > 2 * SMALL)
    for (size_t i = 0; i < y.n; i++) a[i] = k * a[i] + (1 - k) * b[i];
}

static void adamw_range(Buf p, Buf g, Buf m, Buf v, double lr, double beta1, double beta2, double eps, double decay,
                        double grad_scale, long step)
{
    real *w = R_(p), *mm = R_(m), *vv = R_(v);
    const real *gg = R_(g);
    // PyTorch's form: eps is added to sqrt(v / (1 - beta2^t)), which is more aggressive in the first steps than
    // TensorFlow's
    real b1 = (real)beta1, b2 = (real)beta2, c1 = (real)(1 - beta1), c2 = (real)(1 - beta2), e = (real)eps,
         gs = (real)grad_scale;
    real keep = (real)(1 - lr * decay), rate = (real)(lr / (1 - pow(beta1, (double)step))),
         root = (real)(1 / sqrt(1 - pow(beta2, (double)step)));
    #pragma omp parallel for simd schedule(static) if (p.n > 2 * SMALL)
    for (size_t i = 0; i < p.n; i++) {
        real d = gg[i] * gs;
        mm[i] = b1 * mm[i] + c1 * d;
        vv[i] = b2 * vv[i] + c2 * d * d;
        w[i] = keep * w[i] - rate * mm[i] / ((sizeof(real) == 8 ? (real)sqrt(vv[i]) : sqrtf((float)vv[i])) * root + e);
    }
}

// its element i draws as first + i
static void adamw_8bit_range(Buf p, Buf g, Buf m, Buf v, Buf scale, double lr, double beta1, double beta2,
                             double eps, double decay, double grad_scale, long step, uint64_t key, size_t first)
{
    float level[MOMENT_LEVELS];
    for (unsigned c = 0; c < MOMENT_LEVELS; c++) level[c] = moment_level(c);
    #pragma omp parallel for schedule(static) if (p.n > 2 * MOMENT_BLOCK)
    for (size_t b = 0; b < moment_blocks(p.n); b++) {
        size_t from = b * MOMENT_BLOCK, n = p.n - from < MOMENT_BLOCK ? p.n - from : MOMENT_BLOCK;
        uint8_t *code_m = (uint8_t *)m.p + from, *code_v = (uint8_t *)v.p + from;
        real mm[MOMENT_BLOCK], vv[MOMENT_BLOCK], *pair = R_(scale) + 2 * b;
        Buf own_m = {mm, n, DT_REAL, "first moments"}, own_v = {vv, n, DT_REAL, "second moments"};
        float most_m = 0, most_v = 0;
        for (size_t i = 0; i < n; i++) {
            mm[i] = (real)first_moment(level, code_m[i], (float)pair[0]);
            vv[i] = (real)(level[code_v[i]] * (float)pair[1]);
        }
        adamw_range(slice(p, from, n), slice(g, from, n), own_m, own_v, lr, beta1, beta2, eps, decay, grad_scale,
                      step);
        for (size_t i = 0; i < n; i++) {
            most_m = fmaxf(most_m, fabsf((float)mm[i]));
            most_v = fmaxf(most_v, (float)vv[i]);
        }
        float scale_m = moment_scale(level, FIRST_MOST, most_m), scale_v = moment_scale(level, SECOND_MOST, most_v);
        for (size_t i = 0; i < n; i++) {
            uint64_t bits = hash_more(key, first + from + i);
            code_m[i] = first_code(level, (float)mm[i], scale_m, first_draw(bits));
            code_v[i] = second_code(level, (float)vv[i], scale_v, second_draw(bits));
        }
        pair[0] = (real)scale_m; pair[1] = (real)scale_v;
    }
}

#define EACH_RANGE(s) \
    for (const ParamRange *s = ranges.p, *end_ = s + ranges.n / sizeof *s; s < end_; s++)

static void cpu_adamw(Buf w, Buf p, Buf g, Buf m, Buf v, Buf ranges, size_t blocks, double lr, double beta1,
                      double beta2, double eps, double decay, double grad_scale, long step)
{
    (void)blocks;
    EACH_RANGE(s) {
        Buf own = slice(p, s->first, s->n);
        adamw_range(own, slice(g, s->first, s->n), slice(m, s->first, s->n), slice(v, s->first, s->n), lr, beta1,
                      beta2, eps, s->decays ? decay : 0, grad_scale, step);
        if (w.p) cpu_copy(slice(w, s->first, s->n), own);
    }
}

static void cpu_adamw_8bit(Buf p, Buf g, Buf m, Buf v, Buf scale, Buf ranges, size_t blocks, double lr, double beta1,
                           double beta2, double eps, double decay, double grad_scale, long step, uint64_t key,
                           size_t first)
{
    (void)blocks;
    EACH_RANGE(s)
        adamw_8bit_range(slice(p, s->first, s->n), slice(g, s->first, s->n), slice(m, s->first, s->n),
                           slice(v, s->first, s->n), slice(scale, 2 * s->block, 2 * moment_blocks(s->n)), lr, beta1,
                           beta2, eps, s->decays ? decay : 0, grad_scale, step, key, first + s->first);
}

static bool cpu_region_begin(uint64_t key) { (void)key; return true; }
static void cpu_region_end(void) {}

static const Ops cpu_table = {
    .name = "cpu",
    .type = DT_REAL,
    .alloc = cpu_alloc,
    .release = cpu_release,
    .upload = cpu_upload,
    .download = cpu_download,
    .download_begin = cpu_download_begin,
    .download_end = cpu_download_end,
    .copy = cpu_copy,
    .fill = cpu_fill,
    .embed_forward = cpu_embed_forward,
    .embed_backward = cpu_embed_backward,
    .layernorm_forward = cpu_layernorm_forward,
    .layernorm_backward = cpu_layernorm_backward,
    .packed_size = cpu_packed_size,
    .pack = cpu_pack,
    .matmul_forward = cpu_matmul_forward,
    .matmul_backward = cpu_matmul_backward,
    .activation_forward = cpu_activation_forward,
    .activation_backward = cpu_activation_backward,
    .add = cpu_add,
    .add_layernorm = cpu_add_layernorm,
    .rotary = cpu_rotary,
    .attention_forward = cpu_attention_forward,
    .attention_backward = cpu_attention_backward,
    .attention_decode = cpu_attention_decode,
    .gather_ints = cpu_gather_ints,
    .gather_rows = cpu_gather_rows,
    .scatter_rows = cpu_scatter_rows,
    .logprob_forward = cpu_logprob_forward,
    .logprob_backward = cpu_logprob_backward,
    .head_rows = cpu_head_rows, .vocabulary_rows = cpu_vocabulary_rows,
    .candidate_logprobs = cpu_candidate_logprobs,
    .all_actions_backward = cpu_all_actions_backward,
    .head_kl = cpu_head_kl,
    .sample = cpu_sample,
    .ppo_loss = cpu_ppo_loss,
    .sumsq = cpu_sumsq,
    .blend = cpu_blend,
    .adamw = cpu_adamw,
    .adamw_8bit = cpu_adamw_8bit,
    .region_begin = cpu_region_begin,
    .region_end = cpu_region_end,
};
const Ops *ops_cpu(void) { return &cpu_table; }

// ----------------------------------------------------------------------------
// what is no operation: see each file's head

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
#include "lib/distilbert.h"
#include "lib/agree.h"
#include "lib/reward.h"
#include "lib/recheck.h"
#include "lib/args.h"

#ifndef VBON_VERSION
#define VBON_VERSION "unknown"
#endif
static const char *cpu_libraries(void)
{
    static char s[128];
#ifdef VBON_ONEDNN
    const dnnl_version_t *v = dnnl_version();
    snprintf(s, sizeof s, "oneDNN %d.%d.%d, jansson %s, utf8proc %s", v->major, v->minor, v->patch, JANSSON_VERSION,
             utf8proc_version());
#else
    snprintf(s, sizeof s, "no oneDNN, jansson %s, utf8proc %s", JANSSON_VERSION, utf8proc_version());
#endif
    return s;
}

// The op table that --device names: the only place where a backend is chosen.
static const Ops *device_ops(const Args *a)
{
    static Ops own; // as the device's, but for AdamW's states
    const Ops *o = ops_cpu();
    if (a->device == DEVICE_CUDA) {
#ifdef VBON_CUDA
        o = ops_cuda(device_type(a));
#else
        die("--device cuda: this vbon was built without CUDA: install its toolkit (nvcc) and build again, or leave "
            "--device out");
#endif
    }
    own = *o;
    own.moments_8bit = a->optimizer_state == OPTIMIZER_8BIT;
    if (a->zero && parallel_ranks() > 1) {
        own.parts = (size_t)parallel_ranks();
        own.part = parallel_part();
    }
    return own.moments_8bit || own.parts ? &own : o;
}

#include "lib/commands.h"

// ----------------------------------------------------------------------------
// main

// OpenMP reads its environment before main: have waiting threads sleep rather than spin (see the top of this file),
// then start again. libgomp's first look around 500 times, some 10 microseconds: waking a thread between two short
// regions takes longer, and decoding is made of them.
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
    size_t width = terminal_width(fileno(f));
    fprintf(f,
            "vbon %s: variational Best-of-N alignment\n\nusage: vbon COMMAND [--flag value ...]\n\n",
            VBON_VERSION);
    for (size_t i = 0; i < n_commands; i++) {
        size_t at = (size_t)fprintf(f, "  %-8s", commands[i].name);
        wrap(f, commands[i].summary, &at, 11, width);
        putc('\n', f);
    }
    fprintf(f, "\nvbon COMMAND --help lists the flags of one, vbon --version says which this is,\n"
               "source <(vbon completion) completes them in bash\n");
}

static bool is_help(const char *word) { return !strcmp(word, "--help") || !strcmp(word, "-h"); }

static const Command *command_named(const char *name)
{
    Nearest x = nearest(name);
    for (size_t i = 0; i < n_commands; i++) {
        if (!strcmp(name, commands[i].name)) return &commands[i];
        nearest_try(&x, commands[i].name);
    }
    static const char *const others[] = {"--help", "--version", "completion"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) nearest_try(&x, others[i]);
    if (x.best) usage("no command \"%s\": did you mean %s? see vbon --help", name, x.best);
    usage("no command \"%s\": see vbon --help", name);
}

// A bash function that completes commands, flags and their choices, made from the flag table.
static void completion(void)
{
    printf("# bash completion of vbon: source <(vbon completion), or save this as vbon in a folder of completions\n"
           "_vbon() {\n"
           "    local word=${COMP_WORDS[COMP_CWORD]} flag=${COMP_WORDS[COMP_CWORD - 1]} flags= words=\n"
           "    # --flag=value comes as three words\n"
           "    if [ \"$word\" = = ]; then word=; elif [ \"$flag\" = = ]; then flag=${COMP_WORDS[COMP_CWORD - 2]}; fi\n"
           "    case $COMP_CWORD:${COMP_WORDS[1]} in\n"
           "    1:*) words='");
    for (size_t i = 0; i < n_commands; i++) printf("%s ", commands[i].name);
    printf("completion --help --version' ;;\n");
    for (size_t i = 0; i < n_commands; i++) {
        const char *command = commands[i].name;
        char *names = xstrdup("");
        for (size_t k = 0; k < sizeof presets / sizeof *presets; k++) {
            if (!flags_belong(flag_table, n_flags, command, presets[k].flags)) continue;
            char *more = format("%s%s%s", names, *names ? " " : "", presets[k].name);
            free(names);
            names = more;
        }
        flags_completion(flag_table, n_flags, command, names);
        free(names);
    }
    printf("    esac\n"
           "    COMPREPLY=()\n"
           "    if [ \"$words\" = FILES ]; then compopt -o default 2> /dev/null; return; fi\n"
           "    local IFS=$' \\t\\n'\n"
           "    COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
           "}\n"
           "complete -F _vbon vbon\n");
}

// What several processes must have in common, or what they gather would be mixed up.
static void start_alike(const Args *a, const char *command)
{
    static const char several[] = "train sft reward offline cache bon score eval";
    const char *key;
    if (parallel_ranks() == 1) return;
    if (!word_in(several, command)) usage("%s is no command for several processes", command);
    parallel_same("command", command);
    parallel_same("build", VBON_VERSION);
    json_t *flags = flags_json(a, flag_table, n_flags, command), *v;
    json_object_foreach(flags, key, v) {
        char *what = format("--%s", key), *text = json_text(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
        parallel_same(what, text);
        free(what); free(text);
    }
    json_decref(flags);
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
    const char *word = argv[1];
    if (!strcmp(word, "--version") || !strcmp(word, "version")) { puts("vbon " VBON_VERSION); return output_written(); }
    if (!strcmp(word, "completion")) { completion(); return output_written(); }
    bool asked = is_help(word) || !strcmp(word, "help");
    if (asked && argc < 3) { help(stdout); return output_written(); }
    const Command *c = command_named(asked ? argv[2] : word);
    for (int i = 2; i < argc; i++) asked |= is_help(argv[i]);
    if (asked) {
        flags_help(flag_table, n_flags, c->name, c->summary, c->example);
        return output_written();
    }
    static Args a;
    parallel_start();
    flags_parse(&a, flag_table, n_flags, c->name, argc - 2, argv + 2, preset_flags);
    if (strcmp(c->name, "info")) a.ranks = parallel_ranks(); // info plans for as many as it is told
    if (!a.groups) a.groups = a.ranks > 1 ? 8 : 1;
    parallel_fast = a.reduce == REDUCE_FAST;
    if (a.threads) omp_set_num_threads((int)a.threads);
    a.threads = omp_get_max_threads(); // what a run is resumed with must be the same number
    cpu_bf16 = a.precision == PRECISION_BF16 && a.device == DEVICE_CPU;
    if (cpu_bf16 && !bf16_native())
        fprintf(stderr,
                "note: no bfloat16 products on this CPU or in this build: inputs are rounded to bfloat16 and "
                "multiplied in fp32; %s faster than --precision fp32\n",
                BF16_DOT ? "only what samples and scores is" : "only decoding few rows is");
    start_alike(&a, c->name);
    c->run(&a);
    return output_written();
}
#endif
