// known_costs.cu: kernels whose costs can be counted by hand, to see that cost.h counts the same. make test_cost.
#include "cuda_on_cpu.h"
#include "tensor_core.h"
#include "cost.h"
#include <stdio.h>

enum { N = 1 << 16, BLOCK = 256, BLOCKS = N / BLOCK, LANES_IN_ALL = N / 32 };

__global__ void side_by_side(float *out, const float *in) // 32 lanes of 4 bytes: 4 sectors
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = in[i];
}
__global__ void apart(float *out, const float *in) // 32 bytes from lane to lane: a sector each
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = in[i * 8];
}
__global__ void one_for_all(float *out, const float *in) // all lanes at one address: 1 sector
{
    out[(size_t)blockIdx.x * blockDim.x + threadIdx.x] = in[0];
}
__global__ void wide(float4 *out, const float4 *in) // 32 lanes of 16 bytes: 16 sectors, all of them used
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = in[i];
}
__global__ void arithmetic(float *out, const float *in) // a product, a sum and a square root for each
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = sqrtf(in[i] * in[i] + 1);
}
template <int STRIDE> __global__ void column(float *out) // a column of a tile: of 32 words one bank, of 33 all
{
    __shared__ float tile[32 * STRIDE];
    for (int r = threadIdx.x / 32; r < 32; r += 8) tile[r * STRIDE + threadIdx.x % 32] = 1;
    __syncthreads();
    out[(size_t)blockIdx.x * blockDim.x + threadIdx.x] = tile[threadIdx.x % 32 * STRIDE + threadIdx.x / 32];
}
__global__ void multiply(float *out) // a warp's product, and the matrix it loads: 4 turns without a conflict
{
    __shared__ __align__(16) uint16_t tile[16 * 24];
    for (int i = threadIdx.x; i < 16 * 24; i += 32) tile[i] = 0;
    __syncwarp();
    uint32_t a[4], b[2] = {0, 0};
    float d[4] = {0, 0, 0, 0};
    ldmatrix_x4(a, tile + threadIdx.x % 16 * 24 + threadIdx.x / 16 * 8);
    mma_m16n8k16<__nv_bfloat16>(d, a, b);
    out[threadIdx.x] = d[0];
}

static int bad;
static void is(const char *kernel, const char *what, double got, double expected)
{
    if (got == expected) return;
    printf("known_costs: %s: %s: %g counted, %g expected\n", kernel, what, got, expected);
    bad = 1;
}

int main()
{
    float *in, *out;
    CostTime time[COST_CARDS];
    CostKernel k[16];
    size_t waits, n;
    cudaStream_t stream;
    cudaMalloc((void **)&in, N * 32);
    cudaMalloc((void **)&out, N * 32);
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    cost_operations();
    cost_begin();
    LAUNCH(side_by_side, BLOCKS, BLOCK, 0, stream, out, in);
    LAUNCH(apart, BLOCKS, BLOCK, 0, stream, out, in);
    LAUNCH(one_for_all, BLOCKS, BLOCK, 0, stream, out, in);
    LAUNCH(wide, BLOCKS, BLOCK, 0, stream, (float4 *)out, (const float4 *)in);
    LAUNCH(arithmetic, BLOCKS, BLOCK, 0, stream, out, in);
    LAUNCH(column<32>, BLOCKS, BLOCK, 0, stream, out);
    LAUNCH(column<33>, BLOCKS, BLOCK, 0, stream, out);
    LAUNCH(multiply, 3, 32, 0, stream, out);
    cost_end(time, &waits);
    n = cost_kernels(k, 16);
    is("all", "kernels", (double)n, 8);
    is("all", "waits", (double)waits, 0);
    for (size_t i = 0; i < n; i++) {
        const char *name = k[i].name;
        auto named = [&](const char *s) { return !strcmp(name, s); };
        // what L2 is asked for, in sectors, is the store's 4 a warp and the load's
        double load = named("side_by_side") || named("arithmetic") ? 4 : named("apart") ? 32
            : named("one_for_all") ? 1. / 8 : named("wide") ? 16 : 0, store = named("wide") ? 16 : 4;
        if (named("multiply")) {
            is(name, "mma", k[i].mma, 3);
            is(name, "flops", k[i].flops, 3 * 4096);
            is(name, "wavefronts", k[i].wavefronts, 3 * (12 + 4)); // 12 stores of a half-word each, 4 of ldmatrix
            continue;
        }
        // each byte once, read or written
        is(name, "bytes", k[i].bytes, named("wide") ? N * 32 : named("one_for_all") ? N * 4 + 4
            : strncmp(name, "column", 6) ? N * 8 : N * 4);
        is(name, "flops", k[i].flops, named("arithmetic") ? N * 3 : 0);
        is(name, "L2 sectors", k[i].l2 / 32, LANES_IN_ALL * (load + store));
        if (named("apart")) is(name, "bytes of DRAM", k[i].dram, N * 4 + (N - 1) * 32. + 4);
        if (named("one_for_all")) is(name, "bytes of DRAM", k[i].dram, N * 4 + 4);
        // 32 rows are stored, 8 warps read a column each
        if (named("column<32>")) is(name, "wavefronts", k[i].wavefronts, BLOCKS * (32 + 8 * 32.));
        if (named("column<33>")) is(name, "wavefronts", k[i].wavefronts, BLOCKS * (32 + 8.));
    }
    if (!bad) printf("known_costs: 8 kernels cost what they cost\n");
    return bad;
}
