// course_kernels.cu: column sums, the gradient of a bias, from a loop to a kernel. dev/doc/course.md, lesson 5.
//
//     make build/course_kernels_plain && build/course_kernels_plain NUMBER
//
// x (N,C) are the rows, sums (C) what is asked for. Of four kernels, 1 to 4, three have a fault, which the emulator
// of dev/cuda_on_cpu shows without a GPU. The program runs a kernel and compares it with the loop; built as
// course_kernels_tsan it looks for races, as course_kernels_cost it counts what each line asks of memory. The kernel
// that vbon uses is column_sums_kernel of vbon.cu.
#include "dev/cuda_on_cpu/cuda_on_cpu.h"
#include "dev/cuda_on_cpu/cost.h"
#include <stdio.h>
#include <stdlib.h>
#include <vector>

enum { ROWS = 8, THREADS = 32 * ROWS }; // a block of 8 warps: 32 threads along the columns, 8 along the rows

// The loop, as on the CPU.
static void column_sums_loop(float *sums, const float *x, int N, int C)
{
    for (int c = 0; c < C; c++) {
        float sum = 0;
        for (int i = 0; i < N; i++) sum += x[i * C + c];
        sums[c] = sum;
    }
}

// 1. The outer loop becomes threads: each has a column.
__global__ void column_sums_1(float *sums, const float *x, int N, int C)
{
    int c = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (c >= C) return;
    float sum = 0;
    for (int i = 0; i < N; i++) sum += x[i * C + c];
    sums[c] = sum;
}

// 2. A warp has a column, and its 32 lanes share the rows.
__global__ void column_sums_2(float *sums, const float *x, int N, int C)
{
    int lane = threadIdx.x % 32, c = (int)(blockIdx.x * ROWS + threadIdx.x / 32);
    if (c >= C) return; // a whole warp
    float sum = 0;
    for (int i = lane; i < N; i += 32) sum += x[i * C + c];
    for (int apart = 16; apart; apart /= 2) sum += __shfl_xor_sync(~0u, sum, apart);
    if (lane == 0) sums[c] = sum;
}

// 3. A block has 32 columns; each of its 8 warps takes every eighth row, and the first adds up what the 8 have found.
__global__ void column_sums_3(float *sums, const float *x, int N, int C)
{
    __shared__ float part[ROWS][32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, c = (int)blockIdx.x * 32 + lane;
    float sum = 0;
    for (int i = warp; i < N && c < C; i += ROWS) sum += x[i * C + c];
    part[warp][lane] = sum;
    if (warp > 0 || c >= C) return;
    for (int w = 1; w < ROWS; w++) sum += part[w][lane];
    sums[c] = sum;
}

// 4. As 3, but a block takes 64 columns, 32 at a time: half as many blocks.
__global__ void column_sums_4(float *sums, const float *x, int N, int C)
{
    __shared__ float part[ROWS][32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int round = 0; round < 2; round++) {
        int c = ((int)blockIdx.x * 2 + round) * 32 + lane;
        float sum = 0;
        for (int i = warp; i < N && c < C; i += ROWS) sum += x[i * C + c];
        part[warp][lane] = sum;
        __syncthreads();
        for (int w = 1; w < ROWS && warp == 0; w++) sum += part[w][lane];
        if (warp == 0 && c < C) sums[c] = sum;
    }
}

static void check(cudaError_t e)
{
    if (e == cudaSuccess) return;
    fprintf(stderr, "course_kernels: %s\n", cudaGetErrorString(e));
    exit(1);
}

int main(int argc, char **argv)
{
    const int number = argc == 2 ? atoi(argv[1]) : 0, N = 256, C = 768;
    if (number < 1 || number > 4) {
        fprintf(stderr, "course_kernels: give the number of a kernel, 1 to 4\n");
        return 1;
    }
    std::vector<float> x(N * C), want(C), sums(C);
    for (int i = 0; i < N * C; i++) x[i] = (float)(i * 7919 % 1000 - 500) / 1000;
    column_sums_loop(want.data(), x.data(), N, C);
    float *d_x, *d_sums;
    check(cudaMalloc(&d_x, x.size() * sizeof(float)));
    check(cudaMalloc(&d_sums, sums.size() * sizeof(float)));
    check(cudaMemcpy(d_x, x.data(), x.size() * sizeof(float), cudaMemcpyHostToDevice));
#ifdef SIMT_COST
    cost_source = "dev/course_kernels.cu";
    cost_want("column_sums");
    cost_begin();
#endif
    if (number == 1) LAUNCH(column_sums_1, (C + THREADS - 1) / THREADS, THREADS, 0, 0, d_sums, d_x, N, C);
    if (number == 2) LAUNCH(column_sums_2, (C + ROWS - 1) / ROWS, THREADS, 0, 0, d_sums, d_x, N, C);
    if (number == 3) LAUNCH(column_sums_3, (C + 31) / 32, THREADS, 0, 0, d_sums, d_x, N, C);
    if (number == 4) LAUNCH(column_sums_4, (C + 63) / 64, THREADS, 0, 0, d_sums, d_x, N, C);
    check(cudaDeviceSynchronize());
#ifdef SIMT_COST
    return cost_lines() == 0; // blocks were counted, not computed
#endif
    check(cudaMemcpy(sums.data(), d_sums, sums.size() * sizeof(float), cudaMemcpyDeviceToHost));
    for (int c = 0; c < C; c++)
        if (!(fabsf(sums[c] - want[c]) <= 1e-3f)) {
            printf("kernel %d: column %d is %g, and the loop says %g\n", number, c, sums[c], want[c]);
            return 1;
        }
    printf("kernel %d: the loop's sums\n", number);
    return 0;
}
