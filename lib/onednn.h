// onednn.h: the matrix product on the CPU, by oneDNN, behind six functions.
//
// oneDNN is as fast as any at products of many rows on the CPUs we measured, and is optional: without VBON_ONEDNN (no libdnnl-dev, or
// a -Dreal=double build) vbon.c falls back to plain loops (weights packed in fp32 are its own either way). Two interfaces are used:
// dnnl_sgemm, which costs nothing to call, and the matmul primitive, which does bf16, its weights laid out beforehand where they serve often. A primitive takes longer to make than a small product to run, so
// they are kept in a hash map by shape. oneDNN 2 describes tensors by value and 3 by handle; the few lines that differ are in
// `describe` and `create`. All matrices are row-major.
//
// Left out on purpose: int8, fused activations (the op table hides fusion where it pays; on this side it is under 2 %).
#ifndef ONEDNN_H
#define ONEDNN_H
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>

// C (M,N) = op(A) op(B) + beta C in fp32. ta: A is stored (K,M). tb: B is stored (N,K).
void onednn_sgemm(bool ta, bool tb, size_t M, size_t N, size_t K, const float *A, size_t lda, const float *B, size_t ldb, float beta, float *C, size_t ldc);
// The same with A and B in bfloat16 (dense), sums and C in fp32.
void onednn_bf16gemm(bool ta, bool tb, size_t M, size_t N, size_t K, const uint16_t *A, const uint16_t *B, float beta, float *C);
bool onednn_has_bf16(void); // this CPU multiplies bfloat16 (AVX-512, or AMX); the bf16 of the next functions needs it
// A weight w (OC,C) fp32 laid out in bf16 for out (N,OC) = or += inp (N,C) w^T with any N.
size_t onednn_packed_bytes(size_t OC, size_t C);
void onednn_pack(void *out, const float *w, size_t OC, size_t C);
void onednn_packed_matmul(float *out, const void *inp, const void *packed, size_t N, size_t OC, size_t C, bool add);
#endif

#if defined(VBON_IMPLEMENTATION) && defined(VBON_ONEDNN) && !defined(ONEDNN_IMPLEMENTED)
#define ONEDNN_IMPLEMENTED
#include <dnnl.h>
#include <dnnl_version.h>

static void onednn_check(dnnl_status_t s, const char *what)
{
    if (s != dnnl_success) die("oneDNN: %s failed with status %d: build without it (make ONEDNN=0)", what, (int)s);
}

void onednn_sgemm(bool ta, bool tb, size_t M, size_t N, size_t K, const float *A, size_t lda, const float *B, size_t ldb, float beta, float *C, size_t ldc)
{
    onednn_check(dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', (dnnl_dim_t)M, (dnnl_dim_t)N, (dnnl_dim_t)K, 1, A, (dnnl_dim_t)lda, B, (dnnl_dim_t)ldb, beta, C, (dnnl_dim_t)ldc), "sgemm");
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

// A rows x cols matrix; transposed: it is stored (cols, rows). any: oneDNN chooses the layout.
static Desc describe(size_t rows, size_t cols, bool transposed, bool any, dnnl_data_type_t type)
{
    dnnl_dims_t dims = {(dnnl_dim_t)rows, (dnnl_dim_t)cols};
    dnnl_dims_t strides = {transposed ? 1 : (dnnl_dim_t)cols, transposed ? (dnnl_dim_t)rows : 1};
    Desc d;
#if DNNL_VERSION_MAJOR >= 3
    onednn_check(any ? dnnl_memory_desc_create_with_tag(&d, 2, dims, type, dnnl_format_tag_any) : dnnl_memory_desc_create_with_strides(&d, 2, dims, type, strides), "memory");
#else
    onednn_check(any ? dnnl_memory_desc_init_by_tag(&d, 2, dims, type, dnnl_format_tag_any) : dnnl_memory_desc_init_by_strides(&d, 2, dims, type, strides), "memory");
#endif
    return d;
}

static dnnl_status_t matmul_desc(dnnl_primitive_desc_t *pd, DescRef a, DescRef b, DescRef c, const_dnnl_primitive_attr_t attr)
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
typedef struct { int64_t M, N, K, threads; int32_t ta, tb, accumulate, packed; } ProductKey; // threads: a primitive is made for so many
typedef struct { int64_t OC, C; } PackKey;
static struct { ProductKey key; Product value; } *products;
static struct { PackKey key; Desc value; } *packings;

// The layout that oneDNN likes best for a weight, asked for once with a middling number of rows and then used with any.
static Desc packed_layout(size_t OC, size_t C)
{
    onednn_start();
    PackKey key = {(int64_t)OC, (int64_t)C};
    ptrdiff_t i = hmgeti(packings, key);
    if (i >= 0) return packings[i].value;
    Desc a = describe(64, C, false, false, dnnl_bf16), b = describe(C, OC, true, true, dnnl_bf16), c = describe(64, OC, false, false, dnnl_f32);
    dnnl_primitive_desc_t pd = create(DESC_REF(a), DESC_REF(b), DESC_REF(c), false);
#if DNNL_VERSION_MAJOR >= 3
    Desc layout;
    onednn_check(dnnl_memory_desc_clone(&layout, dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0)), "layout");
#else
    Desc layout = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
#endif
    dnnl_primitive_desc_destroy(pd);
    hmput(packings, key, layout);
    return layout;
}

static void product_run(ProductKey key, void *A, void *B, void *C)
{
    onednn_start();
    key.threads = omp_get_max_threads();
    ptrdiff_t i = hmgeti(products, key);
    if (i < 0) {
        if (hmlen(products) > 4096) { // shapes of a long run with ragged batches: begin again rather than grow without bound
            for (ptrdiff_t j = 0; j < hmlen(products); j++) {
                Product *p = &products[j].value;
                dnnl_primitive_destroy(p->matmul); dnnl_memory_destroy(p->a); dnnl_memory_destroy(p->b); dnnl_memory_destroy(p->c);
            }
            hmfree(products);
        }
        Product p;
        size_t M = (size_t)key.M, N = (size_t)key.N, K = (size_t)key.K;
        Desc a = describe(M, K, key.ta, false, dnnl_bf16), c = describe(M, N, false, false, dnnl_f32);
        Desc b = key.packed ? packed_layout(N, K) : describe(K, N, key.tb, false, dnnl_bf16);
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
    Desc a = describe(16, 16, false, false, dnnl_bf16), c = describe(16, 16, false, false, dnnl_f32);
    dnnl_primitive_desc_t pd = NULL;
    has = matmul_desc(&pd, DESC_REF(a), DESC_REF(a), DESC_REF(c), NULL) == dnnl_success;
    if (has) dnnl_primitive_desc_destroy(pd);
    return has;
}

void onednn_bf16gemm(bool ta, bool tb, size_t M, size_t N, size_t K, const uint16_t *A, const uint16_t *B, float beta, float *C)
{
    product_run((ProductKey){(int64_t)M, (int64_t)N, (int64_t)K, 0, ta, tb, beta != 0, 0}, (void *)A, (void *)B, C);
}

size_t onednn_packed_bytes(size_t OC, size_t C)
{
    Desc d = packed_layout(OC, C);
    return dnnl_memory_desc_get_size(DESC_REF(d));
}

void onednn_pack(void *out, const float *w, size_t OC, size_t C)
{
    Desc from = describe(C, OC, true, false, dnnl_f32), to = packed_layout(OC, C);
    dnnl_memory_t src, dst;
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t reorder;
    onednn_check(dnnl_memory_create(&src, DESC_REF(from), onednn_engine, (void *)w), "memory");
    onednn_check(dnnl_memory_create(&dst, DESC_REF(to), onednn_engine, out), "memory");
    onednn_check(dnnl_reorder_primitive_desc_create(&pd, DESC_REF(from), onednn_engine, DESC_REF(to), onednn_engine, NULL), "reorder");
    onednn_check(dnnl_primitive_create(&reorder, pd), "reorder");
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, src}, {DNNL_ARG_TO, dst}};
    onednn_check(dnnl_primitive_execute(reorder, onednn_stream, 2, args), "reorder");
    dnnl_stream_wait(onednn_stream);
    dnnl_primitive_destroy(reorder); dnnl_primitive_desc_destroy(pd);
    dnnl_memory_destroy(src); dnnl_memory_destroy(dst);
}

void onednn_packed_matmul(float *out, const void *inp, const void *packed, size_t N, size_t OC, size_t C, bool add)
{
    product_run((ProductKey){(int64_t)N, (int64_t)OC, (int64_t)C, 0, 0, 1, add, 1}, (void *)inp, (void *)packed, out);
}
#endif
