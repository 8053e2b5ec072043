// onednn.h: the matrix product on the CPU, by oneDNN, behind three functions.
//
// oneDNN is as fast as any at products of many rows on the CPUs we measured, and is optional: without VBON_ONEDNN (no
// libdnnl-dev, or a -Dreal=double build) vbon.c falls back to plain loops (products by packed weights are its own
// either way). Two interfaces are used: dnnl_sgemm, which costs nothing to call, and the matmul primitive, which does
// bf16. A primitive takes longer to make than a small product to run, so they are kept in a hash map by shape. oneDNN 2
// describes tensors by value and 3 by handle; the few lines that differ are in `describe` and `create`. All matrices
// are row-major.
//
// Left out on purpose: int8, fused activations (the op table hides fusion where it pays; on this side it is under 2 %).
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>

// C (M,N) = op(A) op(B) + beta C in fp32. ta: A is stored (K,M). tb: B is stored (N,K).
void onednn_sgemm(bool ta, bool tb, size_t M, size_t N, size_t K, const float *A, size_t lda, const float *B,
                  size_t ldb, float beta, float *C, size_t ldc);
// The same with A and B in bfloat16 (dense), sums and C in fp32.
void onednn_bf16gemm(bool ta, bool tb, size_t M, size_t N, size_t K, const uint16_t *A, const uint16_t *B, float beta,
                     float *C);
void onednn_prepare(void);  // has it write the code of its products now
bool onednn_has_bf16(void); // this CPU multiplies bfloat16 (AVX-512, or AMX); onednn_bf16gemm needs it

#if defined(VBON_IMPLEMENTATION) && defined(VBON_ONEDNN)
#include <dnnl.h>
#include <dnnl_version.h>

static void onednn_check(dnnl_status_t s, const char *what)
{
    if (s != dnnl_success) die("oneDNN: %s failed with status %d: build without it (make ONEDNN=0)", what, (int)s);
}

void onednn_sgemm(bool ta, bool tb, size_t M, size_t N, size_t K, const float *A, size_t lda, const float *B,
                  size_t ldb, float beta, float *C, size_t ldc)
{
    onednn_check(dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', (dnnl_dim_t)M, (dnnl_dim_t)N, (dnnl_dim_t)K, 1, A,
                            (dnnl_dim_t)lda, B, (dnnl_dim_t)ldb, beta, C, (dnnl_dim_t)ldc),
                 "sgemm");
}

void onednn_prepare(void)
{
    enum { MOST = 96 };
    static const size_t sizes[] = {1, 8, MOST};
    float *x = (float *)xcalloc(3 * MOST * MOST, sizeof *x);
    for (int form = 0; form < 8; form++)
        for (int i = 0; i < 27; i++) {
            size_t M = sizes[i % 3], N = sizes[i / 3 % 3], K = sizes[i / 9];
            float *y = x + MOST * MOST, *z = y + MOST * MOST;
            onednn_sgemm(form & 1, form & 2, M, N, K, x, form & 1 ? M : K, y, form & 2 ? K : N, form & 4 ? 1 : 0, z, N);
        }
    free(x);
}

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t Desc;
typedef const_dnnl_memory_desc_t DescRef;
#define DESC_REF(d) (d)
#else
typedef dnnl_memory_desc_t Desc;
typedef const dnnl_memory_desc_t *DescRef;
#define DESC_REF(d) (&(d))
#endif

static dnnl_engine_t onednn_engine;
static dnnl_stream_t onednn_stream;
static void onednn_start(void)
{
    if (onednn_engine) return;
    onednn_check(dnnl_engine_create(&onednn_engine, dnnl_cpu, 0), "engine");
    onednn_check(dnnl_stream_create(&onednn_stream, onednn_engine, dnnl_stream_default_flags), "stream");
}

// A rows x cols matrix; transposed: it is stored (cols, rows).
static Desc describe(size_t rows, size_t cols, bool transposed, dnnl_data_type_t type)
{
    dnnl_dims_t dims = {(dnnl_dim_t)rows, (dnnl_dim_t)cols};
    dnnl_dims_t strides = {transposed ? 1 : (dnnl_dim_t)cols, transposed ? (dnnl_dim_t)rows : 1};
    Desc d;
#if DNNL_VERSION_MAJOR >= 3
    onednn_check(dnnl_memory_desc_create_with_strides(&d, 2, dims, type, strides), "memory");
#else
    onednn_check(dnnl_memory_desc_init_by_strides(&d, 2, dims, type, strides), "memory");
#endif
    return d;
}

static dnnl_status_t matmul_desc(dnnl_primitive_desc_t *pd, DescRef a, DescRef b, DescRef c,
                                 const_dnnl_primitive_attr_t attr)
{
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_matmul_primitive_desc_create(pd, onednn_engine, a, b, NULL, c, attr);
#else
    dnnl_matmul_desc_t md;
    dnnl_status_t s = dnnl_matmul_desc_init(&md, a, b, NULL, c);
    return s == dnnl_success ? dnnl_primitive_desc_create(pd, &md, attr, onednn_engine, NULL) : s;
#endif
}

static dnnl_primitive_desc_t create(DescRef a, DescRef b, DescRef c, bool accumulate)
{
    dnnl_primitive_attr_t attr;
    dnnl_post_ops_t ops;
    dnnl_primitive_desc_t pd;
    onednn_check(dnnl_primitive_attr_create(&attr), "attributes");
    onednn_check(dnnl_post_ops_create(&ops), "post-ops");
#if DNNL_VERSION_MAJOR >= 3
    if (accumulate) onednn_check(dnnl_post_ops_append_sum(ops, 1, 0, dnnl_data_type_undef), "sum");
#else
    if (accumulate) onednn_check(dnnl_post_ops_append_sum(ops, 1), "sum");
#endif
    onednn_check(dnnl_primitive_attr_set_post_ops(attr, ops), "post-ops");
    onednn_check(matmul_desc(&pd, a, b, c, attr), "matmul");
    dnnl_post_ops_destroy(ops);
    dnnl_primitive_attr_destroy(attr);
    return pd;
}

// A product with its shape fixed, and the three memory objects through which its data is named.
typedef struct { dnnl_primitive_t matmul; dnnl_memory_t a, b, c; } Product;
typedef struct { int64_t M, N, K, threads, ta, tb, accumulate; } ProductKey; // threads: a primitive is made for so many
static struct { ProductKey key; Product value; } *products;

static void product_run(ProductKey key, void *A, void *B, void *C)
{
    onednn_start();
    key.threads = omp_get_max_threads();
    ptrdiff_t i = hmgeti(products, key);
    if (i < 0) {
        // shapes of a long run with ragged batches: begin again rather than grow without bound
        if (hmlen(products) > 4096) {
            for (ptrdiff_t j = 0; j < hmlen(products); j++) {
                Product *p = &products[j].value;
                dnnl_primitive_destroy(p->matmul);
                dnnl_memory_destroy(p->a);
                dnnl_memory_destroy(p->b);
                dnnl_memory_destroy(p->c);
            }
            hmfree(products);
        }
        Product p;
        size_t M = (size_t)key.M, N = (size_t)key.N, K = (size_t)key.K;
        Desc a = describe(M, K, key.ta, dnnl_bf16), b = describe(K, N, key.tb, dnnl_bf16),
             c = describe(M, N, false, dnnl_f32);
        dnnl_primitive_desc_t pd = create(DESC_REF(a), DESC_REF(b), DESC_REF(c), key.accumulate);
        onednn_check(dnnl_primitive_create(&p.matmul, pd), "matmul");
        dnnl_primitive_desc_destroy(pd);
        onednn_check(dnnl_memory_create(&p.a, DESC_REF(a), onednn_engine, DNNL_MEMORY_NONE), "memory");
        onednn_check(dnnl_memory_create(&p.b, DESC_REF(b), onednn_engine, DNNL_MEMORY_NONE), "memory");
        onednn_check(dnnl_memory_create(&p.c, DESC_REF(c), onednn_engine, DNNL_MEMORY_NONE), "memory");
        hmput(products, key, p);
        i = hmgeti(products, key);
    }
    Product *p = &products[i].value;
    dnnl_memory_set_data_handle(p->a, A);
    dnnl_memory_set_data_handle(p->b, B);
    dnnl_memory_set_data_handle(p->c, C);
    dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, p->a}, {DNNL_ARG_WEIGHTS, p->b}, {DNNL_ARG_DST, p->c}};
    onednn_check(dnnl_primitive_execute(p->matmul, onednn_stream, 3, args), "matmul");
    dnnl_stream_wait(onednn_stream);
}

bool onednn_has_bf16(void)
{
    static int has = -1;
    if (has >= 0) return has;
    onednn_start();
    Desc a = describe(16, 16, false, dnnl_bf16), c = describe(16, 16, false, dnnl_f32);
    dnnl_primitive_desc_t pd = NULL;
    has = matmul_desc(&pd, DESC_REF(a), DESC_REF(a), DESC_REF(c), NULL) == dnnl_success;
    if (has) dnnl_primitive_desc_destroy(pd);
    return has;
}

void onednn_bf16gemm(bool ta, bool tb, size_t M, size_t N, size_t K, const uint16_t *A, const uint16_t *B, float beta,
                     float *C)
{
    product_run((ProductKey){(int64_t)M, (int64_t)N, (int64_t)K, 0, ta, tb, beta != 0}, (void *)A, (void *)B, C);
}
#endif
