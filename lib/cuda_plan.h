// cuda_plan.h: what ops_cuda takes of a device beside the buffers it is given. vbon.cu asks for its memory by these
// functions, and plan.h counts it by the same ones on machines without a device and in builds without CUDA.
#pragma once
#include "../gpt2.h"

// Rows whose logits fit about 128 MiB.
static inline size_t cuda_head_rows(size_t V)
{
    size_t rows = ((size_t)32 << 20) / V / 64 * 64;
    return rows < 64 ? 64 : rows > 1024 ? 1024 : rows;
}
static inline size_t cuda_vocabulary_rows(size_t V) { return (V + 63) / 64 * 64; } // and a row of logits is as long
static inline size_t cuda_packed_size(size_t OC, size_t C) { (void)OC; (void)C; return 0; } // plain weights serve

static const size_t cuda_workspace = (size_t)32 << 20; // bytes that a matrix product may use beside the matrices

// N decoded tokens see their prompts first, on tensor cores, in so many parts of the prompts; 0: below these sizes a
// launch costs more than it saves. Parts are made while a block for 64 tokens, a head and a part leaves a device room.
static inline size_t cuda_prefix_parts(size_t N, size_t NH, size_t max_prompt)
{
    if (max_prompt < 64 || N < 16) return 0;
    size_t parts = 512 / ((N + 63) / 64 * NH), most = (max_prompt + 63) / 64 < 4 ? (max_prompt + 63) / 64 : 4;
    return parts < 1 ? 1 : parts > most ? most : parts;
}

// Ops run one after the other, so their scratch memory is two blocks that all of them share, each as large as any of
// them asks for.
typedef struct { size_t first, second; } CudaScratch; // bytes
static inline void cuda_scratch_grow(CudaScratch *s, size_t first, size_t second)
{
    if (first > s->first) s->first = first;
    if (second > s->second) s->second = second;
}
// Of one model in a table of `type`: N tokens in a pass, at most R of their states looked at through the LM head at
// once. backward: with a gradient; kl: two heads are compared.
static inline void cuda_scratch(CudaScratch *s, const Config *c, DType type, size_t N, size_t R, bool backward, bool kl)
{
    size_t rows = c->scalar_head ? 0 : R < cuda_head_rows(c->V) ? R : cuda_head_rows(c->V);
    size_t logits = rows * cuda_vocabulary_rows(c->V);
    cuda_scratch_grow(s, logits * sizeof(float), kl ? logits * sizeof(float) : 0);
    if (!backward) return;
    cuda_scratch_grow(s, N * c->NH * 2 * sizeof(float), 0); // of attention, two numbers a token and head
    if (type == DT_BF16) cuda_scratch_grow(s, 0, logits * dtype_size(type)); // the logits' gradient
}
// Of decoding at most `rows` responses at once, which become fewer as they end: the prompts' parts of the attention's
// output, and their log-sums.
static inline void cuda_scratch_decode(CudaScratch *s, const Config *c, DType type, size_t rows, size_t max_prompt)
{
    for (size_t N = rows; N && type == DT_BF16; N = (N - 1) / 64 * 64) {
        size_t parts = cuda_prefix_parts(N, c->NH, max_prompt);
        cuda_scratch_grow(s, parts * N * c->C * dtype_size(type), parts * N * c->NH * sizeof(float));
    }
}

// Bytes of shared memory that a block of attention takes at most, by the size of a head.
static inline size_t cuda_shared(size_t HS) { return HS > 128 ? 101888 : 77312; }

// What a plan and its checks ask a device for.
// In bytes: what is free, and what a block may have of shared memory
typedef struct { const char *name; size_t memory, shared; } CudaLimits;
#ifdef __cplusplus
extern "C"
#endif
CudaLimits cuda_limits(void); // after the first ops_cuda
