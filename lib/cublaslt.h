// cublaslt.h: the matrix products of CUDA. A part of vbon.cu, which includes it in its middle.
#pragma once
#include <cublasLt.h>
#include <dlfcn.h>

// What is used of cuBLASLt, loaded when the device is started: linked, the half gigabyte would make every start of the program wait 0.2 s, on the CPU too.
#define LT_FUNCTIONS(X) X(Create) X(GetStatusString) X(Matmul) X(MatmulAlgoGetHeuristic) X(MatmulDescCreate) X(MatmulDescDestroy) \
    X(MatmulDescSetAttribute) X(MatmulPreferenceCreate) X(MatmulPreferenceDestroy) X(MatmulPreferenceSetAttribute) X(MatrixLayoutCreate) X(MatrixLayoutDestroy)
#define X(f) decltype(&cublasLt##f) f;
static struct { LT_FUNCTIONS(X) } blas;
#undef X
static void blas_load(void)
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

// What a product is prepared for. Preparing costs about as much as a small product, so plans are kept in a table by hash.
typedef struct { size_t M, N, K, lda, ldb, ldc; int ta, tb, in, out, bias, align_a, align_b, align_c; } GemmKey;
typedef struct { GemmKey key; bool ready; cublasLtMatmulDesc_t op; cublasLtMatrixLayout_t a, b, c; cublasLtMatmulAlgo_t algo; } GemmPlan;

static int alignment(const void *p) { int a = 256; while ((uintptr_t)p % (uintptr_t)a) a /= 2; return a; }
static cudaDataType_t cublas_type(DType t) { return t == DT_BF16 ? CUDA_R_16BF : CUDA_R_32F; }

static cublasLtHandle_t lt_handle;
static const size_t lt_workspace = (size_t)32 << 20;

static GemmPlan *gemm_plan(const GemmKey *k)
{
    static GemmPlan plans[1024];
    uint64_t h = 0;
    for (size_t i = 0; i < sizeof *k / sizeof(int); i++) h = mix64(h ^ ((const unsigned *)k)[i]);
    GemmPlan *p = &plans[h % (sizeof plans / sizeof *plans)];
    if (p->ready && !memcmp(&p->key, k, sizeof *k)) return p;
    if (p->ready) {
        lt(blas.MatmulDescDestroy(p->op), "plan");
        lt(blas.MatrixLayoutDestroy(p->a), "plan"); lt(blas.MatrixLayoutDestroy(p->b), "plan"); lt(blas.MatrixLayoutDestroy(p->c), "plan");
    }
    p->key = *k;
    p->ready = true;
    cublasOperation_t opa = k->tb ? CUBLAS_OP_T : CUBLAS_OP_N, opb = k->ta ? CUBLAS_OP_T : CUBLAS_OP_N; // theirs: A is our B
    lt(blas.MatmulDescCreate(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F), "plan");
    lt(blas.MatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSA, &opa, sizeof opa), "plan");
    lt(blas.MatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSB, &opb, sizeof opb), "plan");
    if (k->bias) {
        cublasLtEpilogue_t e = CUBLASLT_EPILOGUE_BIAS;
        lt(blas.MatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_EPILOGUE, &e, sizeof e), "plan");
    }
    cudaDataType_t in = cublas_type((DType)k->in), out = cublas_type((DType)k->out);
    lt(blas.MatrixLayoutCreate(&p->a, in, k->tb ? k->K : k->N, k->tb ? k->N : k->K, (int64_t)k->ldb), "plan");
    lt(blas.MatrixLayoutCreate(&p->b, in, k->ta ? k->M : k->K, k->ta ? k->K : k->M, (int64_t)k->lda), "plan");
    lt(blas.MatrixLayoutCreate(&p->c, out, k->N, k->M, (int64_t)k->ldc), "plan");
    cublasLtMatmulPreference_t pref;
    cublasLtMatmulHeuristicResult_t found;
    int n = 0;
    uint32_t aa = (uint32_t)k->align_b, ab = (uint32_t)k->align_a, ac = (uint32_t)k->align_c; // it assumes 256 bytes where it is not told
    lt(blas.MatmulPreferenceCreate(&pref), "plan");
    lt(blas.MatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &lt_workspace, sizeof lt_workspace), "plan");
    lt(blas.MatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &aa, sizeof aa), "plan");
    lt(blas.MatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &ab, sizeof ab), "plan");
    lt(blas.MatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &ac, sizeof ac), "plan");
    lt(blas.MatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &ac, sizeof ac), "plan");
    cublasStatus_t s = blas.MatmulAlgoGetHeuristic(lt_handle, p->op, p->a, p->b, p->c, p->c, pref, 1, &found, &n);
    if (s != CUBLAS_STATUS_SUCCESS || !n)
        die("cuBLASLt: no algorithm for a product of %zu x %zu x %zu (types %d, %d): a bug, please report it", k->M, k->N, k->K, k->in, k->out);
    lt(blas.MatmulPreferenceDestroy(pref), "plan");
    p->algo = found.algo;
    return p;
}
