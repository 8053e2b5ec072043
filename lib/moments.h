// moments.h: AdamW's moments in 8 bits each (--optimizer-state 8bit).
//
// Source: Dettmers, Lewis, Shleifer, Zettlemoyer, 8-bit Optimizers via Block-wise Quantization, ICLR 2022,
// arXiv:2110.02861. Neighbours share a scale, MOMENT_BLOCK at a time, so that a large one costs its own block alone its
// precision. A code is their dynamic tree: the place of its leading one says the decade, the bits behind it divide the
// decade linearly. A first moment has a sign and seven bits, a second one, which has none, eight.
//
// One thing is done otherwise: a moment between two levels goes to one of them at random, by its distance from them,
// and so is right on average; in bfloat16, weights too. Rounded to the nearest, a second moment could not fall beside a
// larger one that keeps the block's scale: beta2 .999 takes a thousandth off at a step, and levels lie further apart.
// The draws are of the counter-based generator, by seed, optimiser step and the parameter's place: the same with any
// number of threads, and after a resume.
//
// A second moment that is not 0 never becomes 0: the step divides by its root.
#pragma once
#include "../gpt2.h"

enum { MOMENT_BLOCK = 2048, MOMENT_LEVELS = 256 };
static inline size_t moment_blocks(size_t n) { return (n + MOMENT_BLOCK - 1) / MOMENT_BLOCK; }

// What code c stands for, in units of the block's scale: 0, then 2^i numbers in each decade [10^(i-1), 10^i).
static inline HOST_DEVICE float moment_level(unsigned c)
{
    double decade = 1;
    unsigned n = 1;
    if (!c) return 0;
    for (; 2 * n <= c; n *= 2) decade *= 10;
    return (float)(decade * (0.1 + 0.9 * (c - n + 0.5) / n));
}

// What makes a block's largest absolute value the level of code `most`; 0: it is too small for any.
static inline HOST_DEVICE float moment_scale(const float *level, unsigned most, float largest)
{
    return largest > 1e-30f ? largest / level[most] : 0;
}

// The code, at most `most`, of x >= 0; level: all codes' levels; u in [0, 1) is the draw.
static inline HOST_DEVICE unsigned moment_code(const float *level, unsigned most, float x, float scale, float u)
{
    float y = scale > 0 ? x / scale : 0, top = 1;
    unsigned n = 1; // codes n .. 2n-1 are of [top / 10, top)
    for (; y >= top && 2 * n <= most; n *= 2) top *= 10;
    float at = (y / top - 0.1f) * ((float)n / 0.9f) + 0.5f; // levels passed in this decade; none: between two decades
    unsigned c = n - 1 + (at > 0 ? (unsigned)at : 0);
    if (c > most) c = most;
    // what rounding has put a level too far
    if (c > 0 && level[c] > y) c--;
    else if (c < most && level[c + 1] <= y) c++;
    return c + (c < most && u < (y - level[c]) / (level[c + 1] - level[c]));
}

// First moments: 127 levels and a sign.
enum { FIRST_MOST = 127, SECOND_MOST = 255, MOMENT_SIGN = 128 };
static inline HOST_DEVICE float first_moment(const float *level, uint8_t code, float scale)
{
    float x = level[code & FIRST_MOST] * scale;
    return code & MOMENT_SIGN ? -x : x;
}
static inline HOST_DEVICE uint8_t first_code(const float *level, float x, float scale, float u)
{
    return (uint8_t)(moment_code(level, FIRST_MOST, x < 0 ? -x : x, scale, u) | (x < 0 ? MOMENT_SIGN : 0));
}
static inline HOST_DEVICE uint8_t second_code(const float *level, float x, float scale, float u)
{
    unsigned c = moment_code(level, SECOND_MOST, x, scale, u);
    return (uint8_t)(c || !(x > 0) ? c : 1);
}

// Three draws of 64 random bits: two in [0, 1), and the 16 bits that a float has more than a bfloat16.
static inline HOST_DEVICE float first_draw(uint64_t bits) { return (float)(bits >> 40) * 0x1p-24f; }
static inline HOST_DEVICE float second_draw(uint64_t bits) { return (float)(bits >> 16 & 0xffffff) * 0x1p-24f; }
// Rounds to one of the two neighbours at random, by the distance from them.
static inline HOST_DEVICE uint16_t bf16_round_drawn(float x, uint64_t bits)
{
    union { float f; uint32_t u; } b = {x};
    return (uint16_t)((b.u + (uint32_t)(bits & 0xffff)) >> 16);
}
