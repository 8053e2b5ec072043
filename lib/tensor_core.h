// tensor_core.h: the tensor-core instructions, as functions.
//
// A warp of 32 lanes holds each small matrix in pieces. Lane i has group g = i/4 and place t = i%4:
//   m16n8k16, A (16,16): a[0] row g, a[1] row g+8, columns 2t, 2t+1; a[2], a[3] the same rows, columns 2t+8, 2t+9.
//             Two bfloat16, or half, in each.
//             B (16,8):  b[0] rows 2t, 2t+1, b[1] rows 2t+8, 2t+9, column g.
//             D (16,8):  d[0], d[1] row g, columns 2t, 2t+1; d[2], d[3] row g+8. Floats.
//   ldmatrix loads up to four 8x8 matrices of 16-bit elements from shared memory: lane i gives the address of row
//   i%8 of matrix i/8 (16 bytes, aligned), and gets elements 2t, 2t+1 of row g of each; transposed, the elements of
//   column g in rows 2t, 2t+1.
// An mma is 4096 floating-point operations of a warp (16 x 8 sums of 16 products). ldmatrix_x4 reads 512 bytes of
// shared memory, in 4 turns of its banks where no two rows meet in one. dev/cuda_on_cpu/known_costs.cu checks both.
//
// Every lane of the warp takes part. None of them orders memory: __syncwarp or __syncthreads before loading what other
// lanes stored.
//
// copy_async copies 16 aligned bytes from global to shared memory while the thread goes on; where they are not there,
// zeros, and nothing is read. The copies since a thread's last copy_commit are a group; copy_wait<N> waits until all
// but its N newest groups have arrived. A __syncthreads then shows them to the others.
//
// This is inline PTX. dev/cuda_on_cpu/tensor_core.h has the same functions for g++, as the PTX manual describes them.
#pragma once
#include <stdint.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

__device__ inline uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }
__device__ inline void ldmatrix_x4(uint32_t r[4], const void *shared_row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(shared_row)) : "memory");
}
__device__ inline void ldmatrix_x4_trans(uint32_t r[4], const void *shared_row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(shared_row)) : "memory");
}
template <class E> __device__ inline void mma_m16n8k16(float d[4], const uint32_t a[4], const uint32_t b[2]);
#define MMA(E, type) \
    template <> __device__ inline void mma_m16n8k16<E>(float d[4], const uint32_t a[4], const uint32_t b[2]) \
    { \
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 " \
                     "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};" \
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])); \
    }
MMA(__nv_bfloat16, "bf16")
MMA(__half, "f16")
#undef MMA
__device__ inline void copy_async(void *shared, const void *global, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(shared_address(shared)), "l"(__cvta_generic_to_global(global)), "r"(there ? 16 : 0) : "memory");
}
__device__ inline void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ inline void copy_wait() { asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory"); }
