// tensor_core.h: what the tensor-core instructions of lib/tensor_core.h do, in C++: which lane holds what stands there.
//
// Sums are float, in the order of k. A GPU adds in another order and rounds a little differently.
#pragma once
#include <stdint.h>
#include <type_traits>
#include <cuda_fp16.h>

namespace simt {

struct LoadMatrix {
    uint32_t row[4]; // the 16 bytes that this lane's address names
    uint32_t *out;
};
template <bool TRANSPOSED> SIMT_EXCHANGE load_matrix(void **slots, unsigned lanes)
{
    if (lanes != ~0u) fail("ldmatrix: only the lanes %08x of the warp are left", lanes);
    for (int i = 0; i < 32; i++) for (int m = 0; m < 4; m++) {
        int g = i / 4, t = i % 4;
        uint32_t word;
        if (!TRANSPOSED) word = ((LoadMatrix *)slots[8 * m + g])->row[t];
        else {
            uint32_t low = ((LoadMatrix *)slots[8 * m + 2 * t])->row[g / 2],
                     high = ((LoadMatrix *)slots[8 * m + 2 * t + 1])->row[g / 2];
            word = g % 2 ? (low >> 16) | (high & 0xffff0000u) : (low & 0xffffu) | high << 16;
        }
        ((LoadMatrix *)slots[i])->out[m] = word;
    }
}
template <bool TRANSPOSED> inline void ldmatrix(uint32_t r[4], const void *shared_row, Site at)
{
    if ((uintptr_t)shared_row % 16) fail("ldmatrix: the row at %p is not aligned to 16 bytes", shared_row);
    uint32_t got[4];
    LoadMatrix slot = {{}, got};
    // by the lane itself, so that the sanitizers see whose access it is
    __builtin_memcpy(slot.row, shared_row, 16);
    meet_warp(~0u, load_matrix<TRANSPOSED>, &slot, at);
    for (int i = 0; i < 4; i++) r[i] = got[i];
}

struct Multiply {
    float d[4];
    uint32_t a[4], b[2];
    bool half; // half precision, else bfloat16
};
void multiply_16_8_16(void **slots, unsigned lanes);

// A copy happens when it is waited for; until then its target holds garbage. So who reads too early, or overwrites what
// others still read, is seen. The thread itself copies, as above.
struct Copies {
    unsigned n, group; // copies that nobody waited for, groups so far
    struct { void *shared; const void *global; unsigned group; bool there; } copy[256];
};
Copies *copies(); // the current thread's
inline void copy_begin(void *shared, const void *global, bool there)
{
    Copies *c = copies();
    if ((uintptr_t)shared % 16 || (there && (uintptr_t)global % 16))
        fail("copy_async: from %p to %p: not aligned to 16 bytes", global, shared);
    if (c->n == sizeof c->copy / sizeof *c->copy) fail("copy_async: %u copies that nobody waited for", c->n);
    c->copy[c->n++] = {shared, global, c->group, there};
#ifndef SIMT_COST // whose accesses are counted
    memset(shared, 0xff, 16);
#endif
}
inline void copy_finish(unsigned left) // all but so many groups
{
    Copies *c = copies();
    unsigned kept = 0;
    for (unsigned i = 0; i < c->n; i++) {
        if (c->copy[i].group + left >= c->group) c->copy[kept++] = c->copy[i];
        else if (c->copy[i].there) __builtin_memcpy(c->copy[i].shared, c->copy[i].global, 16);
        else memset(c->copy[i].shared, 0, 16);
    }
    c->n = kept;
}

} // namespace simt

inline void copy_async(void *shared, const void *global, bool there) { simt::copy_begin(shared, global, there); }
inline void copy_commit() { simt::copies()->group++; }
template <int N> inline void copy_wait() { simt::copy_finish(N); }

inline void ldmatrix_x4(uint32_t r[4], const void *shared_row, SIMT_SITE) { simt::ldmatrix<false>(r, shared_row, at); }
inline void ldmatrix_x4_trans(uint32_t r[4], const void *shared_row, SIMT_SITE)
{
    simt::ldmatrix<true>(r, shared_row, at);
}
template <class E> inline void mma_m16n8k16(float d[4], const uint32_t a[4], const uint32_t b[2], SIMT_SITE)
{
    simt::Multiply slot = {{d[0], d[1], d[2], d[3]}, {a[0], a[1], a[2], a[3]}, {b[0], b[1]},
                           std::is_same<E, __half>::value};
    simt::meet_warp(~0u, simt::multiply_16_8_16, &slot, at);
    for (int i = 0; i < 4; i++) d[i] = slot.d[i];
}

#ifdef SIMT_ENGINE
#ifdef SIMT_COST
namespace simt { static double mmas; } // of the running block
#endif
// Without traps: rows and columns that a kernel throws away may hold anything.
void simt::multiply_16_8_16(void **slots, unsigned lanes)
{
    if (lanes != ~0u) fail("mma.sync: only the lanes %08x of the warp are left", lanes);
#ifdef SIMT_COST
    mmas++;
    (void)slots;
#else
    float A[16][16], B[16][8], D[16][8];
    const bool in_half = ((const Multiply *)slots[0])->half;
    auto low = [&](uint32_t x) {
        __half_raw h;
        h.x = (unsigned short)x;
        return in_half ? __half2float(__half(h)) : bits<float>(x << 16);
    };
    auto high = [&](uint32_t x) { return in_half ? low(x >> 16) : bits<float>(x & 0xffff0000u); };
    int trapped = fedisableexcept(FE_INVALID);
    for (int i = 0; i < 32; i++) {
        const Multiply *m = (const Multiply *)slots[i];
        int g = i / 4, t = i % 4 * 2;
        for (int q = 0; q < 4; q++) {
            A[g + q % 2 * 8][t + q / 2 * 8] = low(m->a[q]);
            A[g + q % 2 * 8][t + q / 2 * 8 + 1] = high(m->a[q]);
            D[g + q / 2 * 8][t + q % 2] = m->d[q];
        }
        for (int q = 0; q < 2; q++) B[t + q * 8][g] = low(m->b[q]), B[t + q * 8 + 1][g] = high(m->b[q]);
    }
    for (int i = 0; i < 16; i++) for (int k = 0; k < 16; k++) for (int j = 0; j < 8; j++) D[i][j] += A[i][k] * B[k][j];
    feclearexcept(FE_INVALID);
    if (trapped & FE_INVALID) feenableexcept(FE_INVALID);
    for (int i = 0; i < 32; i++)
        for (int q = 0; q < 4; q++) ((Multiply *)slots[i])->d[q] = D[i / 4 + q / 2 * 8][i % 4 * 2 + q % 2];
#endif
}
#endif
