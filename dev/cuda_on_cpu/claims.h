// claims.h: what a kernel's own line of costs says, beside what cost.h counts.
//
// Every kernel of vbon.cu begins with a line
//     // bytes: FORMULA; flops: FORMULA; bound: WORD
// whose formulas are C++ expressions in the kernel's arguments. bytes: what global memory has to give and to take, each
// byte once, whatever the caches are asked for. flops: additions, multiplications, divisions, roots and functions of
// libm, in all lanes that do them, and 4096 for an mma. WORD: what bounds the longest launch at the paper's sizes
// (memory, latency, tensor cores, shared memory, instructions, its launch). For the build that counts, the Makefile
// turns these lines into calls of claim, so they are compiled, and gpu_cost --check evaluates them at every launch.
#pragma once
#include <stddef.h>

namespace simt {
bool claim_begin(); // true once a launch
void claim(double bytes, double flops, const char *bound);
} // namespace simt
#define CLAIM(bytes, flops, bound) \
    do { if (simt::claim_begin()) simt::claim((double)(bytes), (double)(flops), bound); } while (0)

// What formulas may use of the indices that a kernel reads:

// how many different numbers there are among index[0..n)
static inline double different(const int *index, size_t n)
{
    int most = -1;
    double count = 0;
    for (size_t i = 0; i < n; i++) if (index[i] > most) most = index[i];
    bool *seen = new bool[(size_t)most + 1]();
    for (size_t i = 0; i < n; i++) if (!seen[index[i]]) { seen[index[i]] = true; count++; }
    delete[] seen;
    return count;
}

// The positions that the N new tokens of B rows see, each token's rounded up to a multiple of `unit`: plen[b] of a
// prompt and len[b] of the row (NULL: none), and the new ones up to itself.
static inline double seen(const int *start, const int *plen, const int *len, size_t B, size_t N, size_t unit)
{
    size_t sum = 0;
    for (size_t b = 0; b < B; b++)
        for (size_t i = (size_t)start[b]; i < N && i < (size_t)start[b + 1]; i++)
            sum += ((size_t)(plen ? plen[b] : 0) + (size_t)(len ? len[b] : 0) + i - (size_t)start[b] + unit) / unit *
                unit;
    return (double)sum;
}

// The positions of all prompts that B rows have, each prompt once; none without prompts.
static inline double prompt_positions(const void *prompts, const int *pslot, const int *plen, size_t B)
{
    double sum = 0;
    for (size_t b = 0; prompts && b < B; b++) {
        size_t k = 0;
        while (pslot[k] != pslot[b]) k++;
        if (k == b) sum += plen[b];
    }
    return sum;
}

// Pairs of query and key that attention in tiles works on, masked or not: of each `rows` positions of a packed batch
// with all that any of them is paired with, in tiles of `tile`. keys: the positions are keys, the others queries.
// Of the last rows, what is not there is worked on up to a multiple of `team`.
static inline double tile_pairs(const int *start, size_t B, size_t N, size_t rows, size_t team, size_t tile,
                                bool causal, bool keys)
{
    double pairs = 0;
    auto row = [&](size_t i) { size_t b = 0; while (b + 1 < B && (size_t)start[b + 1] <= i) b++; return b; };
    for (size_t first = 0; first < N; first += rows) {
        size_t last = (first + rows < N ? first + rows : N) - 1, low = (size_t)start[row(first)],
               high = (size_t)start[row(last) + 1];
        if (causal && keys) low = first;
        if (causal && !keys) high = last + 1;
        pairs += (double)((last - first + team) / team * team * ((high - low + tile - 1) / tile * tile));
    }
    return pairs;
}

// Whether there are fewer prompts than `most` to 64 tokens that follow each other, or about as many
static inline bool few_prompts(const int *start, const int *pslot, size_t B, size_t N, size_t most)
{
    size_t changes = 0;
    for (size_t b = 1; b < B && (size_t)start[b] < N; b++) changes += pslot[b] != pslot[b - 1];
    return changes < most * ((N + 63) / 64);
}

// And of queries with the positions of their prompts: each run of one prompt among 64 queries, its warps of 16, walks
// over plen positions in tiles.
static inline double prompt_pairs(const void *prompts, const int *start, const int *pslot, const int *plen, size_t B,
                                  size_t N, size_t tile)
{
    double pairs = 0;
    size_t b = 0;
    if (!prompts) return 0;
    for (size_t first = 0; first < N; first += 64) {
        for (size_t i = first, from = first; i < first + 64 && i < N; i++) {
            while (b + 1 < B && (size_t)start[b + 1] <= i) b++;
            bool ends = i + 1 == first + 64 || i + 1 == N;
            if (!ends) {
                size_t next = b + 1 < B && (size_t)start[b + 1] <= i + 1 ? b + 1 : b;
                ends = pslot[next] != pslot[b];
            }
            if (!ends) continue;
            size_t tiles = ((size_t)plen[b] + tile - 1) / tile, warps = (i - first) / 16 - (from - first) / 16 + 1;
            pairs += (double)(warps * 16 * tiles * tile);
            from = i + 1;
        }
    }
    return pairs;
}
