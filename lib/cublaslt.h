// cublaslt.h: a matrix product on the device, by cuBLASLt.
//
// NVIDIA's library is as fast as any on its cards and chooses a kernel for each shape, so vbon.cu asks it for every
// product, by one function. dev/cuda_on_cpu has a function of the same name that does the same on the CPU. Three
// things take the lines here:
//  - Loading. What is used of the library is loaded when the device is started. If it were linked, its half gigabyte
//    would make every start of the program wait 0.2 s, on the CPU too.
//  - Plans. Before a product cuBLASLt wants a description of the operation, a layout of each matrix and an
//    algorithm, which it picks by a heuristic. That costs about as much as a small product, so all of it is kept as
//    a plan, by everything that it depends on (GemmKey).
//  - Column-major order. The library counts matrices by columns, and we by rows. Our (rows, columns) read its way is
//    the transposed matrix; so instead of C = op(A) op(B) we ask it for C^T = op(B)^T op(A)^T, and nothing has to be
//    turned: its A is our B, its M our N.
#pragma once
#include <cublasLt.h>
#include <cuda_runtime.h>
#include <dlfcn.h>
#include "cuda_plan.h"

#define LT_FUNCTIONS(X) \
    X(Create) \
    X(GetStatusString) X(Matmul) X(MatmulAlgoGetHeuristic) X(MatmulDescCreate) X(MatmulDescDestroy) \
        X(MatmulDescSetAttribute) X(MatmulPreferenceCreate) X(MatmulPreferenceDestroy) X(MatmulPreferenceSetAttribute) \
            X(MatrixLayoutCreate) X(MatrixLayoutDestroy)
#define X(f) decltype(&cublasLt##f) f;
static struct { LT_FUNCTIONS(X) } blas;
#undef X
static void lt_load(void)
{
    #define QUOTE(x) #x
    #define LT_LIBRARY(version) "libcublasLt.so." QUOTE(version)
    void *library = dlopen(LT_LIBRARY(CUBLAS_VER_MAJOR), RTLD_NOW);
    if (!library) die("--device cuda: %s: install the CUDA toolkit that this vbon was built with", dlerror());
    #define X(f) if (!(blas.f = (decltype(blas.f))dlsym(library, "cublasLt" #f))) die("--device cuda: %s", dlerror());
    LT_FUNCTIONS(X)
    #undef X
}

static void lt(cublasStatus_t s, const char *what)
{
    if (s != CUBLAS_STATUS_SUCCESS) die("cuBLASLt: %s: %s", what, blas.GetStatusString(s));
}

typedef struct {
    size_t M, N, K, lda, ldb, ldc;
    int ta, tb, bf16, bf16_out, bias, tf32, align_a, align_b, align_c, none; // none: so that nothing pads
} GemmKey;
typedef struct {
    GemmKey key;
    bool ready;
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algo;
} GemmPlan;

// The largest power of two up to 256 that divides an address: some algorithms need matrices that begin at a round one.
static int alignment(const void *p) { int a = 256; while ((uintptr_t)p % (uintptr_t)a) a /= 2; return a; }
static cublasLtHandle_t lt_handle;
static const size_t lt_workspace = cuda_workspace; // bytes that an algorithm may use beside the matrices
static void *lt_room;                              // so many

static void device_gemm_start(void)
{
    lt_load();
    lt(blas.Create(&lt_handle), "cannot start");
    cudaError_t e = cudaMalloc(&lt_room, lt_workspace);
    if (e != cudaSuccess)
        die("--device cuda: no 32 MiB for matrix products (%s): end what else uses the device", cudaGetErrorString(e));
}

static GemmPlan *gemm_plan(const GemmKey *k)
{
    static GemmPlan plans[8192];
    uint64_t h = 0; // where in the table a key's plan is; another one that is there must go
    for (size_t i = 0; i < sizeof *k / sizeof(int); i++) h = mix64(h ^ ((const unsigned *)k)[i]);
    GemmPlan *p = &plans[h % (sizeof plans / sizeof *plans)];
    if (p->ready && !memcmp(&p->key, k, sizeof *k)) return p;
    if (p->ready) {
        lt(blas.MatmulDescDestroy(p->op), "plan");
        lt(blas.MatrixLayoutDestroy(p->a), "plan");
        lt(blas.MatrixLayoutDestroy(p->b), "plan");
        lt(blas.MatrixLayoutDestroy(p->c), "plan");
    }
    p->key = *k;
    p->ready = true;
    // theirs: A is our B
    cublasOperation_t opa = k->tb ? CUBLAS_OP_T : CUBLAS_OP_N, opb = k->ta ? CUBLAS_OP_T : CUBLAS_OP_N;
    lt(blas.MatmulDescCreate(&p->op, k->tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F), "plan");
    lt(blas.MatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSA, &opa, sizeof opa), "plan");
    lt(blas.MatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSB, &opb, sizeof opb), "plan");
    if (k->bias) {
        cublasLtEpilogue_t e = CUBLASLT_EPILOGUE_BIAS;
        lt(blas.MatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_EPILOGUE, &e, sizeof e), "plan");
    }
    cudaDataType_t in = k->bf16 ? CUDA_R_16BF : CUDA_R_32F, out = k->bf16_out ? CUDA_R_16BF : CUDA_R_32F;
    lt(blas.MatrixLayoutCreate(&p->a, in, k->tb ? k->K : k->N, k->tb ? k->N : k->K, (int64_t)k->ldb), "plan");
    lt(blas.MatrixLayoutCreate(&p->b, in, k->ta ? k->M : k->K, k->ta ? k->K : k->M, (int64_t)k->lda), "plan");
    lt(blas.MatrixLayoutCreate(&p->c, out, k->N, k->M, (int64_t)k->ldc), "plan");
    cublasLtMatmulPreference_t pref;
    cublasLtMatmulHeuristicResult_t found;
    int n = 0;
    // where it is not told otherwise it takes addresses to be multiples of 256
    uint32_t aa = (uint32_t)k->align_b, ab = (uint32_t)k->align_a, ac = (uint32_t)k->align_c;
    lt(blas.MatmulPreferenceCreate(&pref), "plan");
    lt(blas.MatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &lt_workspace,
                                         sizeof lt_workspace),
       "plan");
    lt(blas.MatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &aa, sizeof aa), "plan");
    lt(blas.MatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &ab, sizeof ab), "plan");
    lt(blas.MatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &ac, sizeof ac), "plan");
    lt(blas.MatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &ac, sizeof ac), "plan");
    cublasStatus_t s = blas.MatmulAlgoGetHeuristic(lt_handle, p->op, p->a, p->b, p->c, p->c, pref, 1, &found, &n);
    if (s != CUBLAS_STATUS_SUCCESS || !n)
        die("cuBLASLt: no algorithm for a product of %zu x %zu x %zu (bfloat16: %d, %d): a bug, please report it",
            k->M, k->N, k->K, k->bf16, k->bf16_out);
    lt(blas.MatmulPreferenceDestroy(pref), "plan");
    p->algo = found.algo;
    return p;
}

// C (M,N) = op(A) op(B) + beta C + bias on the stream, row-major. ta: A is stored (K,M); tb: B is stored (N,K).
// lda, ldb, ldc: elements from one stored row to the next. A and B are bfloat16 or float, C and bias (N, or NULL) too.
// tf32: of float factors only 10 bits of fraction count.
static void device_gemm(cudaStream_t stream, bool ta, bool tb, size_t M, size_t N, size_t K,
                        const void *A, bool bf16, size_t lda, const void *B, size_t ldb, float beta,
                        void *C, bool bf16_out, size_t ldc, const void *bias, bool tf32)
{
    GemmKey k;
    memset(&k, 0, sizeof k); // padding too: keys are compared as bytes
    k.M = M; k.N = N; k.K = K; k.lda = lda; k.ldb = ldb; k.ldc = ldc;
    k.ta = ta; k.tb = tb; k.bf16 = bf16; k.bf16_out = bf16_out; k.bias = bias != NULL; k.tf32 = tf32 && !bf16;
    k.align_a = alignment(A); k.align_b = alignment(B); k.align_c = alignment(C);
    GemmPlan *p = gemm_plan(&k);
    if (bias) lt(blas.MatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias), "bias");
    float one = 1;
    lt(blas.Matmul(lt_handle, p->op, &one, B, p->a, A, p->b, &beta, C, p->c, C, p->c,
                   &p->algo, lt_room, lt_workspace, stream), "product");
}
