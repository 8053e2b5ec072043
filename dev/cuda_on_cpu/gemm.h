// gemm.h: the matrix product that stands in for cuBLASLt. Inputs are float or bfloat16,
// sums are float, the result is rounded once.
//
// It is queued, ordered and checked like a kernel: every matrix must lie within one allocation of device
// memory, and memory that nothing was written to is an error. It says nothing about what cuBLASLt itself
// would refuse, nor about the order of its sums.
#pragma once

namespace simt {

struct Matrix {
    const void *p;
    bool bf16;
    size_t rows, cols, ld;
    bool tf32;
    size_t bytes() const { return rows && cols ? ((rows - 1) * ld + cols) * size() : 0; }
    size_t size() const { return bf16 ? 2 : 4; }
    float at(size_t r, size_t c) const
    {
        if (bf16) return __bfloat162float(((const __nv_bfloat16 *)p)[r * ld + c]);
        float x = ((const float *)p)[r * ld + c];
        uint32_t u;
        memcpy(&u, &x, sizeof u);
        if (tf32) u = (u + 0x0fff + (u >> 13 & 1)) & ~0x1fffu; // 10 bits of fraction, to nearest even
        memcpy(&x, &u, sizeof x);
        return x;
    }
    void put(size_t r, size_t c, float v) const
    {
        if (bf16) ((__nv_bfloat16 *)p)[r * ld + c] = __float2bfloat16(v);
        else ((float *)p)[r * ld + c] = v;
    }
};

static void multiply(const Matrix &A, bool ta, const Matrix &B, bool tb, float beta, const Matrix &C,
    const Matrix &bias)
{
    size_t K = ta ? A.rows : A.cols;
    std::vector<float> b(K * C.cols); // (K,N)
    for (size_t k = 0; k < K; k++) for (size_t j = 0; j < C.cols; j++) b[k * C.cols + j] = tb ? B.at(j, k) : B.at(k, j);
    #pragma omp parallel if (C.rows * C.cols * K > 1 << 20)
    {
        std::vector<float> sum(C.cols);
        if (options.trap) {
            handle_faults_here();
            feclearexcept(FE_INVALID);
            feenableexcept(FE_INVALID);
        }
        #pragma omp for schedule(static)
        for (size_t i = 0; i < C.rows; i++) {
            for (size_t j = 0; j < C.cols; j++) sum[j] = 0;
            for (size_t k = 0; k < K; k++) {
                float a = ta ? A.at(k, i) : A.at(i, k);
                const float *row = &b[k * C.cols];
                for (size_t j = 0; j < C.cols; j++) sum[j] += a * row[j];
            }
            for (size_t j = 0; j < C.cols; j++) {
                float v = sum[j];
                if (beta != 0) v += beta * C.at(i, j);
                if (bias.p) v += bias.at(0, j);
                C.put(i, j, v);
            }
        }
        fedisableexcept(FE_INVALID);
    }
}

} // namespace simt

void device_gemm(cudaStream_t stream, bool ta, bool tb, size_t M, size_t N, size_t K, const void *A, bool bf16,
    size_t lda, const void *B, size_t ldb, float beta, void *C, bool bf16_out, size_t ldc, const void *bias, bool tf32)
{
    Matrix a = {A, bf16, ta ? K : M, ta ? M : K, lda, tf32}, b = {B, bf16, tb ? N : K, tb ? K : N, ldb, tf32},
           c = {C, bf16_out, M, N, ldc, false}, d = {bias, bf16_out, 1, N, N, false};
    std::vector<Range> uses;
    for (const Matrix *m : {&a, &b, &c, &d}) if (m->p) {
        if (m->ld < m->cols) fail("a matrix of %zu columns has a leading dimension of %zu", m->cols, m->ld);
        check_device_range("a matrix", m->p, m->bytes());
        uses.push_back({(const char *)m->p, m->bytes(), m == &c});
    }
    queue(stream_of(stream),
        {say("the product (%zu,%zu) = (%zu,%zu) (%zu,%zu)", M, N, M, K, K, N), SIMT_CALLER, uses,
            [=](CUstream_st &) {
                for (const Range &r : uses) {
                    TSAN(r.writes ? __tsan_write_range((void *)r.start, r.bytes)
                                  : __tsan_read_range((void *)r.start, r.bytes));
                    (void)r;
                }
#ifdef SIMT_COST
                double out = (double)(M * N) * (double)c.size();
                cost_product({(double)M, (double)N, (double)K,
                    (double)(M * K + K * N) * (double)a.size() + (beta != 0 ? out : 0), out, bf16, tf32,
                    {ta ? 't' : 'n', tb ? 't' : 'n', bf16 ? 'b' : tf32 ? 't' : 'f', bf16_out ? 'b' : 'f',
                        bias ? '+' : '.', beta != 0 ? 'a' : '.'}});
                (void)multiply;
#else
                multiply(a, ta, b, tb, beta, c, d);
#endif
            },
            0, {}, false, nullptr});
}
