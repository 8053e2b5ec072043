// gpt2.h: the seam between the model and the machine, and the model itself: GPT-2, and all that Pythia shares with it.
//
// Everything above this file (ppo.h, lib/) speaks of models, batches and losses; everything below it (vbon.c, vbon.cu)
// is one table of operations on buffers. A model is compiled once: it calls o->matmul_forward(...) through `const Ops
// *o`, and ops_cpu or ops_cuda does the work. So there is one GPT-2 here, not one per backend and precision.
//
// What to know before reading on:
//  - Batches are packed. The rows' tokens stand end to end, N in all; `start` (B+1) says where each row begins. There
//    is no padding and no pad token: a row has a length, and a mask is a length.
//  - Parameters live in one buffer, in the order of one list (Param): embeddings, blocks from the bottom up, final
//    norm, heads. What trains is always a suffix of it, so freezing is one offset, and gradients and moments are as
//    long as that suffix.
//  - Weights are kept as (out, in) rows whatever the file says: normalise at load (param_set), undo at save
//    (param_get).
//  - An architecture is a row (Architecture): the names of its tensors, its config.json, and functions for what is its
//    own. GPT-2's tables are here, Pythia's in pythia.h, the rows in lib/config.h. The block is one function: it asks
//    Config whether the MLP stands beside the attention or after it and which activation it has, and the row for the
//    positions.
//  - Logits never exist as a whole: the head is part of the ops logprob_*, head_kl and sample, which work in chunks of
//    rows.
//  - Memory is an Arena a family, carved by one function that runs twice: once to measure, once to place.
//
// Left out on purpose: dropout (it makes PPO's ratios differ from 1), left padding, gradient accumulation across calls
// as a mode (gradients always accumulate; zero them when you mean to), any file format (lib/safetensors.h,
// lib/config.h).
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>
#include <stdarg.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef real
#define real float // -Dreal=double builds the whole engine in double, for gradient checks
#endif

// ----------------------------------------------------------------------------
// errors and memory: one line, what, where, what to do

#ifdef __GNUC__
#define PRINTF_LIKE(a, b) __attribute__((format(printf, a, b)))
#define NORETURN __attribute__((noreturn))
#else
#define PRINTF_LIKE(a, b)
#define NORETURN
#endif
#ifdef __CUDACC__
#define HOST_DEVICE __host__ __device__ // for both sides' operations
#else
#define HOST_DEVICE
#endif

NORETURN void die(const char *fmt, ...) PRINTF_LIKE(1, 2);   // "vbon: ..." on stderr, exit code 1
NORETURN void usage(const char *fmt, ...) PRINTF_LIKE(1, 2); // the same for a wrong command line, exit code 2
// a times b elements. Every product of numbers that come from flags or files goes through it before it becomes a size:
// beyond 2^56 it ends the program, naming `what` and the flags to lower. What it returns can be multiplied by the size
// of an element, and a few of them added, without a further look.
size_t checked_product(const char *what, size_t a, size_t b);
void *xmalloc(size_t bytes);                                 // these four end the program when memory runs out
void *xcalloc(size_t count, size_t size);
void *xrealloc(void *p, size_t bytes);
char *xstrdup(const char *s);

// Tables of rows: architectures, schedules, objectives, ... Each row begins with its name and a help text (or NULL); a
// row without a name ends a table. Flags get their choices and their help from them. Tables that are yours to extend
// have room for ROWS_MAX rows: ROW(table, "name") is a row by its name, ROW_ADD(table, {...}) adds one at the end.
enum { ROWS_MAX = 16 };
// The name of row i, NULL where the table ends. Rows are asked for in order: nothing is known of what lies beyond.
const char *row_name(const void *table, size_t row_size, size_t i);
size_t row_named(const void *table, size_t row_size, const char *name); // its index; dies when no row has that name
size_t row_room(const void *table, size_t row_size);                    // the index of the next row; dies if it is full
#define ROW(table, name) (&(table)[row_named(table, sizeof *(table), name)])
#define ROW_ADD(table, ...) ((table)[row_room(table, sizeof *(table))] = (__typeof__(*(table)))__VA_ARGS__)

// ----------------------------------------------------------------------------
// random numbers: a pure function of (seed, stream, prompt, sample, position), so that a draw is the same in any
// batching and after any resume

enum {
    STREAM_INIT = 1,
    STREAM_SHUFFLE,
    STREAM_CACHE,
    STREAM_ROLLOUT,
    STREAM_EVAL,
    STREAM_SAMPLE,
    STREAM_BON,
    STREAM_MINIBATCH,
    STREAM_SPLIT,
    STREAM_PAIRS,
    STREAM_RECHECK,
    STREAM_ANCHOR,
    STREAM_ROUNDING
};

static inline HOST_DEVICE uint64_t mix64(uint64_t x) // the finaliser of splitmix64 (Steele, Lea, Flood 2014)
{
    x ^= x >> 30; x *= 0xbf58476d1ce4e5b9ull;
    x ^= x >> 27; x *= 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

// A hash of what h is one of, and x
static inline HOST_DEVICE uint64_t hash_more(uint64_t h, uint64_t x) { return mix64((h ^ x) + 0x9e3779b97f4a7c15ull); }

// What all positions' bits begin with: hash_more(key, position) are one's
static inline uint64_t random_key(uint64_t seed, uint64_t stream, uint64_t prompt, uint64_t sample)
{
    return hash_more(hash_more(hash_more(hash_more(seed, 0), stream), prompt), sample);
}
static inline uint64_t random_bits(uint64_t seed, uint64_t stream, uint64_t prompt, uint64_t sample, uint64_t position)
{
    return hash_more(random_key(seed, stream, prompt, sample), position);
}

// in [0, 1)
static inline double random_uniform(uint64_t seed, uint64_t stream, uint64_t prompt, uint64_t sample, uint64_t position)
{
    return (double)(random_bits(seed, stream, prompt, sample, position) >> 11) * 0x1p-53;
}

void random_permutation(size_t *out, size_t n, uint64_t seed, uint64_t stream, uint64_t epoch); // Fisher-Yates, out (n)

// ----------------------------------------------------------------------------
// buffers and arenas

typedef enum { DT_F64, DT_F32, DT_F16, DT_BF16, DT_I64, DT_I32, DT_U8, DT_PACKED } DType; // the last: of ops.pack
#define DT_REAL (sizeof(real) == 8 ? DT_F64 : DT_F32)
static inline size_t dtype_size(DType t) // bytes of an element
{
    switch (t) {
    case DT_F64: case DT_I64: return 8;
    case DT_F32: case DT_I32: return 4;
    case DT_F16: case DT_BF16: return 2;
    case DT_U8: case DT_PACKED: return 1;
    }
    return 0;
}

static inline float bf16_value(uint16_t h) { union { uint32_t u; float f; } b = {(uint32_t)h << 16}; return b.f; }
static inline uint16_t bf16_round(float x) // to nearest even; NaN stays NaN
{
    union { float f; uint32_t u; } b = {x};
    return (uint16_t)(x != x ? b.u >> 16 | 0x40 : (b.u + 0x7fff + (b.u >> 16 & 1)) >> 16);
}

// An opaque handle: only ops look behind p. p == NULL is "none" (a frozen gradient, an absent bias).
typedef struct {
    void *p;
    size_t n;         // elements
    DType type;
    const char *name; // for messages and the memory table
} Buf;
static inline Buf slice(Buf b, size_t first, size_t n) // n elements from `first`; none of none
{
    if (!b.p) return b;
    if (first > b.n || n > b.n - first)
        die("slice of %s: %zu elements from %zu, it has %zu: a bug, please report it", b.name, n, first, b.n);
    b.p = (char *)b.p + first * dtype_size(b.type);
    b.n = n;
    return b;
}

typedef struct Ops Ops;
typedef struct {
    const char *name;
    size_t bytes;
} Piece;
typedef struct {
    const char *name;
    const Ops *o;
    Buf base;         // DT_U8; p == NULL while measuring
    size_t used;      // bytes taken since arena_reset
    size_t high;      // bytes: the most that were ever taken
    size_t n_pieces;
    Piece pieces[48]; // by name, for the memory table (equal names are added up)
} Arena;
// the next carving starts; debug builds poison what was there
void arena_reset(Arena *a);
// 256-byte aligned; a Buf without memory while measuring
Buf arena_take(Arena *a, size_t n, DType type, const char *name);
// after the last measuring: allocate `high` bytes
void arena_place(Arena *a);
void arena_release(Arena *a);

// Memory of a device that frozen weights take turns in (--offload). All of them lie in pinned memory of the host, and
// are copied in when it is their turn; they are never written to, so nothing is copied back.
typedef struct {
    const Ops *o;
    Buf memory;     // bytes; none before turns_place
    size_t most;    // bytes of the largest that has a turn
    const Buf *now; // whose turn it is; NULL: nobody's
} Turns;
// What `b` holds, in pinned memory: from now on it may have a turn.
Buf turns_keep(Turns *t, Buf b);
void turns_place(Turns *t);                // when all are kept
void turns_take(Turns *t, const Buf *kept); // afterwards t->memory begins with what was kept; nothing to do if it does
void turns_free(Turns *t);

// ----------------------------------------------------------------------------
// the op table
//
// Contract. Outputs first, then inputs, then dimensions. All sizes are size_t; any N, T, R >= 1. Types: activations and
// their gradients, weights and cached keys and values are of the table's `type`; statistics, log-probabilities, losses
// and the gradients and moments of parameters are `real` (moments may be of 8 bits: adamw_8bit), indices int32. On the
// host all are real. (The outputs of scalar heads, rewards and values, are statistics in this sense: a matmul may write
// real outputs, and read their gradient. And a forward pass may have everything real, whatever the type: DistilBERT's
// has.) A forward overwrites its output. A backward overwrites activation gradients, and accumulates parameter
// gradients and the residual stream (marked +=). A Buf without memory as a gradient means: frozen, do not compute. No
// op reads what it did not get, keeps state between calls, or lets a row's result depend on what its neighbours
// contain. Reductions have a fixed order at a given thread count.
//   N tokens in all rows, B rows, R gathered positions, C width, OC/V outputs, NH heads of size HS, S slots,
//   T positions a slot.

typedef enum { ACT_GELU_TANH, ACT_GELU_ERF, ACT_RELU } Activation;
typedef struct { Buf out, w, b; } Norm; // of a layer norm: what it writes (N,C), its weight and bias (C)

// Elements [first, first + n) of what trains, all of which decay or none do. AdamW works on them in blocks of
// MOMENT_BLOCK, the last of which may be broken; `block` of these are in the ranges before.
typedef struct { size_t first, n, block, decays; } ParamRange;

struct Ops {
    const char *name;
    DType type;                                                  // of weights and activations: DT_REAL, or DT_BF16
    bool moments_8bit;                                           // AdamW's, by lib/moments.h; no master weights then
    // AdamW's states are cut into so many parts, of which a model has one (states_cut; lib/parallel.h); 0: it has all
    size_t parts, part;
    // memory
    Buf (*alloc)(size_t n, DType type, const char *name);
    void (*release)(Buf *b);
    // the host's memory, from which a device copies fastest; NULL: this table's memory is the host's
    Buf (*pin)(size_t bytes, const char *name);
    void (*unpin)(Buf *b);
    // host to buffer, dst.n elements of dst.type (real for DT_BF16, rounded on the way). Pinned memory must stay as it
    // is until something that was queued later has been waited for
    void (*upload)(Buf dst, const void *src);
    void (*download)(void *dst, Buf src);
    // A download that the host need not wait for at once, into pinned memory: number `which`, 0 or 1, of two that may
    // be on their way. download_end waits for it, and for no more.
    void (*download_begin)(void *dst, Buf src, int which);
    void (*download_end)(int which);
    void (*copy)(Buf dst, Buf src);                              // of equal types, or from real to DT_BF16
    void (*fill)(Buf dst, double value);
    // between processes with a device each (lib/nccl.h), called by all of them; false: it must go by the host's memory.
    // NULL where there is none, or no NCCL. `out` becomes `in` of process `other`, and its out this in
    bool (*exchange)(Buf in, Buf out, int other);
    bool (*all_reduce)(Buf b);                                   // b (real, or bytes) summed, in NCCL's order
    // layers
    // out (N,C); wpe may be none
    void (*embed_forward)(Buf out, Buf tokens, Buf pos, Buf wte, Buf wpe, size_t N, size_t C);
    // dwte, dwpe +=
    void (*embed_backward)(Buf dwte, Buf dwpe, Buf dout, Buf tokens, Buf pos, size_t N, size_t C);
    void (*layernorm_forward)(Buf out, Buf mean, Buf rstd, Buf inp, Buf w, Buf b, size_t N, size_t C, double eps);
    // A residual stream's addition and the norms that read it, to the bit what add and layernorm_forward make one
    // after the other: sum = a + b (c none) or a + (b + c), and norm[0] and (norm[1].out not none) norm[1] of sum.
    // Whatever is written may be a, b or c; with c, what b held is lost.
    void (*add_layernorm)(Buf sum, Buf mean, Buf rstd, const Norm norm[2], Buf a, Buf b, Buf c, size_t N, size_t C,
                          double eps);
    // dinp += (residual)
    void (*layernorm_backward)(Buf dinp, Buf dw, Buf db, Buf dout, Buf inp, Buf w, Buf mean, Buf rstd, size_t N,
                               size_t C);
    // elements (bytes) of a packed weight; 0: this device packs nothing
    size_t (*packed_size)(size_t OC, size_t C);
    // out DT_PACKED: w laid out for many products with few rows
    void (*pack)(Buf out, Buf w, size_t OC, size_t C);
    // out (N,OC) = inp (N,C) w^T (OC,C) + b
    void (*matmul_forward)(Buf out, Buf inp, Buf w, Buf b, size_t N, size_t C, size_t OC);
    // dinp =, dw, db +=
    void (*matmul_backward)(Buf dinp, Buf dw, Buf db, Buf dout, Buf inp, Buf w, size_t N, size_t C, size_t OC);
    void (*activation_forward)(Buf out, Buf inp, Activation kind, size_t n);
    // dinp may be dout
    void (*activation_backward)(Buf dinp, Buf dout, Buf inp, Activation kind, size_t n);
    // out may be a
    void (*add)(Buf out, Buf a, Buf b, size_t n);
    // rotary positions: in place on the q and k parts of qkv (N,3C), on the first `dims` (even) elements of each head.
    // Element j < dims/2 and j + dims/2 turn as one complex number by pos[i] * base^(-2j/dims) (GPT-NeoX's halves);
    // inverse turns back, which is the backward pass
    void (*rotary)(Buf qkv, Buf pos, size_t N, size_t NH, size_t HS, size_t dims, double base, bool inverse);
    // attention over packed rows: qkv (N,3C), start (B+1), lse (N,NH)
    void (*attention_forward)(Buf out, Buf lse, Buf qkv, Buf start, size_t B, size_t N, size_t NH, size_t HS,
                              bool causal);
    void (*attention_backward)(Buf dqkv, Buf dout, Buf out, Buf lse, Buf qkv, Buf start, size_t B, size_t N, size_t NH,
                               size_t HS, bool causal);
    // the new tokens of row b see, in this order: the first plen[b] positions of slot pslot[b] of the prefix cache pkv
    // (SP,2,NH,TP,HS; may be none), the len[b] positions (len none: 0) already in slot[b] of kv (S,2,NH,T,HS), and
    // themselves
    // causally; their keys and values are stored in kv
    void (*attention_decode)(Buf out, Buf kv, Buf qkv, Buf start, Buf slot, Buf len, size_t T, Buf pkv, Buf pslot,
                             Buf plen, size_t TP, size_t B, size_t N, size_t NH, size_t HS);
    void (*gather_ints)(Buf out, Buf inp, Buf index, size_t n);  // out (n) = inp[index], all int32
    // out (R,C) = inp[index]
    void (*gather_rows)(Buf out, Buf inp, Buf index, size_t R, size_t C);
    // out[index] += inp, indices distinct
    void (*scatter_rows)(Buf out, Buf inp, Buf index, size_t R, size_t C);
    // the head: softmax(inp (R,C) w^T (V,C) / temperature), never stored as (R,V)
    size_t (*head_rows)(size_t V);                               // how many rows' logits are in memory at once
    // How many rows of a model's (V,C) matrices are kept, V or more: tensor cores want round sizes. Those beyond V are
    // 0, and no token. The head's w and dw may have them, which shows in their n.
    size_t (*vocabulary_rows)(size_t V);
    // entropy and kept may be none. kept holds the probabilities of all R rows (R <= head_rows(V), V rounded up to 64),
    // so that a backward call on the same rows need not compute them again
    void (*logprob_forward)(Buf logp, Buf entropy, Buf kept, Buf inp, Buf w, Buf target, double temperature, size_t R,
                            size_t C, size_t V);
    // kept: as logprob_forward left it, and overwritten here; or none. dinp =, dw +=; logp is written too (or none), so
    // that a loss linear in logp needs no forward
    void (*logprob_backward)(Buf dinp, Buf dw, Buf logp, Buf dlogp, Buf kept, Buf inp, Buf w, Buf target,
                             double temperature, size_t R, size_t C, size_t V);
    // logp (R,K) of K tokens of each row; choose: the likeliest, the first first, written to token (R,K); of equals the
    // lower id comes first
    void (*candidate_logprobs)(Buf logp, Buf token, bool choose, Buf inp, Buf w, double temperature, size_t K, size_t R,
                               size_t C, size_t V);
    // logprob_backward with logp and kept as this device's logprob_forward left them, and beside the gradient of dlogp
    // that of -scale sum_k pi_k (worth_k - kappa log pi_k - b) over a row's K tokens, b being what makes the sum 0.
    // worth (R,K) becomes the second at these tokens
    void (*all_actions_backward)(Buf dinp, Buf dw, Buf logp, Buf dlogp, Buf kept, Buf inp, Buf w, Buf target, Buf token,
                                 Buf worth, double kappa, double scale, double temperature, size_t K, size_t R,
                                 size_t C, size_t V);
    // (R): KL(p||q) over the vocabulary
    void (*head_kl)(Buf kl, Buf p_inp, Buf p_w, Buf q_inp, Buf q_w, double temperature, size_t R, size_t C, size_t V);
    void (*sample)(Buf token, Buf logp, Buf inp, Buf w, Buf uniform, double temperature, long top_k, double top_p,
                   size_t R, size_t C, size_t V); // inverse CDF at uniform (R, float64); logp before any cut
    // losses and optimiser
    // sums +=: a PpoSums of ppo.h in float64
    void (*ppo_loss)(Buf dlogp, Buf dvalue, Buf sums, Buf logp, Buf value, Buf old_logp, Buf old_value, Buf advantage,
                     Buf returns, double scale, double clip, double value_clip, double vf_coef, size_t R);
    double (*sumsq)(Buf a);
    // y = keep y + (1 - keep) x, both real
    void (*blend)(Buf y, Buf x, double keep);
    // A step on those elements of p, g, m and v, all real, that `ranges` names (DT_U8: one ParamRange after another, in
    // ascending order, of so many blocks). w (of the table's type; may be none) becomes p, as by copy.
    void (*adamw)(Buf w, Buf p, Buf g, Buf m, Buf v, Buf ranges, size_t blocks, double lr, double beta1, double beta2,
                  double eps, double decay, double grad_scale, long step);
    // The same step with m, v in codes of 8 bits, scale (blocks, 2) real: a block's first moments', its second
    // moments'. p is of the table's type: what is bfloat16 is rounded at random. Element i draws
    // hash_more(key, first + i).
    void (*adamw_8bit)(Buf p, Buf g, Buf m, Buf v, Buf scale, Buf ranges, size_t blocks, double lr, double beta1,
                       double beta2, double eps, double decay, double grad_scale, long step, uint64_t key,
                       size_t first);
    // what is between is launched as one: `if (o->region_begin(key)) { ops...; o->region_end(); }`. True: run the ops;
    // false: the device has run them itself, as recorded under this key. A key stands for all their arguments, buffers
    // and numbers; what buffers contain may change. Only ops on buffers may be inside, no transfer to or from the host.
    bool (*region_begin)(uint64_t key);
    void (*region_end)(void);
};

const Ops *ops_cpu(void);
const Ops *ops_cuda(DType type); // DT_F32 or DT_BF16. In builds with nvcc; dies where the machine has no usable device

// ----------------------------------------------------------------------------
// configuration and parameters

typedef struct {
    const struct Architecture *arch; // its row
    size_t L;           // blocks
    size_t NH;          // attention heads in each; HS = C / NH is the size of one
    size_t C;           // channels: the width of the residual stream
    size_t F;           // inner width of the MLP
    size_t V;           // tokens in the vocabulary
    size_t max_T;       // context: the most tokens in a row
    Activation act;     // of the MLP
    bool tied;          // the LM head is the token embedding, wte
    bool scalar_head;   // a reward model: Linear(C,1) in place of the LM head
    bool score_bias;    // its Linear has a bias (cleanrl's form)
    double score_shift; // and this number is subtracted from the reward (cleanrl's form)
    size_t labels;      // of a classifier; what runs as a reward model has one (0: config.json says none)
    int pad;            // a reward model reads a text at its last token that is not this id (-1: at its last)
    bool parallel;      // x + attention(norm1(x)) + mlp(norm2(x)) instead of one after the other
    double rotary_pct;  // the share of each head that rotary positions turn (0: learned positions, wpe)
    double rotary_base; // the slowest of them turns once in about 2 pi times so many tokens
    double eps;         // added to the variance in layer norms
    double init_std;    // standard deviation of fresh weights: initializer_range
    int bos, eos;       // token ids (-1: none)
} Config;

enum {
    P_LAYER = 1,     // there is one in each block
    P_DECAY = 2,     // AdamW's weight decay applies
    P_TRANSPOSE = 4, // the file has (cols, rows)
    P_NORM = 8,      // a norm's weight: begins as ones
    P_MATMUL = 16,   // is packed for decoding
    P_PROJ = 32,     // writes to the residual stream: begins smaller
    P_VALUE = 64,    // of PPO's value head
    P_HEAD = 128,    // of a head: it has no prefix in the file
    P_PLACED = 256,  // the file has the rows in another order (Architecture.place)
    P_BIASED = 512,  // of the scalar head in the form that has a bias
};
typedef enum { D_NONE, D_1, D_C, D_3C, D_F, D_V, D_T, D_2C, D_LABELS } Dimension; // sizes by their names in Config
// One parameter of an architecture, or one of each block.
typedef struct {
    const char *hf;       // its name in a Hugging Face file, the block's number as %zu; NULL ends a table
    size_t field;         // where its Buf stands: IN_PARAMS(f), or with P_LAYER IN_BLOCK(f)
    Dimension rows, cols; // as kept in memory; cols 0: a vector
    int flags;            // P_...
} ParamSpec;

// One field of config.json.
typedef enum { F_SIZE, F_NUMBER, F_FLAG, F_TOKEN, F_ACT, F_EMPTY } ConfigType; // F_EMPTY: null, {} or [] alone is taken
typedef struct {
    const char *key;      // its name; NULL ends a table
    const char *also;     // another name by which transformers takes it, or NULL
    ConfigType type;
    size_t at;            // where it is kept: KEPT(f), or CHECKED: nowhere, and its default is written
    double least, most;   // its range. A flag of which we know one value has that as its range
    double fallback;      // its value where it is left out; NAN: it must be there
} ConfigField;
#define KEPT(f) offsetof(Config, f)
#define CHECKED ((size_t)-1)

// What sets one architecture apart: a row of `architectures` in lib/config.h. A new one is a header like pythia.h, and
// its row. Its first parameter is the token embedding and one row has P_HEAD; its classifier's name has "For" in it.
struct json_t; // of jansson
typedef struct Param Param;
typedef struct Architecture {
    const char *name;                // config.json's model_type, and the choice of --arch
    const char *help;                // of --arch, or NULL
    const char *prefix;              // what tensors' names may begin with in a file, those of heads excepted
    const char *lm, *classifier;     // the names of transformers' classes
    const ParamSpec *params;         // in their order in memory, the untied head last
    const char *const *buffers;      // endings of tensors that are no parameters, saved by old versions; NULL ends it
    const ConfigField *fields;       // of config.json, beside those of all architectures
    // Functions for what tables cannot say. All but `fresh` may be NULL: there is nothing of the kind.
    // The rest of config.json: read from j, dying with its path and the field's name; written into j.
    void (*read)(Config *c, struct json_t *j, const char *path);
    void (*write)(const Config *c, struct json_t *j);
    // All but the sizes of a model made from scratch; usage() when it cannot have those.
    void (*fresh)(Config *c);
    // P_PLACED: *at is where the file's row stands in memory; returns how many rows from there on follow in both.
    size_t (*place)(const Config *c, size_t row, size_t *at);
    // Works positions into q and k of qkv (N,3C), or with `back` out of their gradients. NULL: wpe has the positions.
    void (*turn)(const Ops *o, const Config *c, Buf qkv, Buf pos, size_t N, bool back);
} Architecture;

// One parameter of one model: the table unrolled over the blocks.
struct Param {
    char name[80];
    size_t field;      // as in ParamSpec
    size_t layer;      // its block, or 0
    size_t rows, cols; // cols 0: a vector
    size_t offset, n;  // in elements, of the model's data
    size_t room;       // n, and what pads a vocabulary (vocabulary_rows)
    int flags;         // as in ParamSpec
};

typedef struct {
    Buf ln1w, ln1b;   // (C), (C) before the attention
    Buf qkvw, qkvb;   // (3C,C), (3C): q, k and v of all heads, [3][NH][HS]
    Buf projw, projb; // (C,C), (C)
    Buf ln2w, ln2b;   // (C), (C) before the MLP
    Buf fcw, fcb;     // (F,C), (F)
    Buf fc2w, fc2b;   // (C,F), (C)
} Block;
typedef struct {
    Buf wte;        // (V,C) token embedding
    Buf wpe;        // (max_T,C) position embedding; none with rotary positions
    Buf lnfw, lnfb; // (C), (C) the final norm
    Buf head;       // (V,C) the LM head; none where it is wte
    Buf score;      // (1,C) a reward model's scalar head
    Buf scoreb;     // (1) its bias, or none
    Buf v1w, v1b;   // (2C,C), (2C) PPO's value head, Linear-ReLU-Linear
    Buf v2w, v2b;   // (1,2C), (1)
    Block *h;       // (L)
} Params;

typedef struct {
    const Ops *o;
    Config cfg;
    Param *list;                // (n_list) all parameters, in their order in memory
    size_t n_list;
    size_t n_params;            // elements in all, those that pad the vocabulary's matrices included
    size_t first_block, first;  // blocks below first_block and elements below first are frozen
    bool recompute;             // what blocks that train keep for the backward pass (acts_carve); set before carving
    Arena params, optim, packs; // of data; of gradients, moments and the master; of packed weights
    Buf data;                   // (n_params) the weights, of o->type
    size_t own, own_n;          // of what trains, own_n elements from first + own on have their states here
    // (own_n) real: the weights that train, exactly; part of data where that is real, or moments have 8 bits
    Buf master;
    Buf grad;                   // (n_params - first) real
    Buf m, v;                   // (own_n) AdamW's moments: real, or 8 bits with `scale`
    Buf scale;                  // real, a pair a block of moments, in the ranges' order; else none
    Buf exact;                  // (n_params - first), on the host: `master` of all parts while it is saved; else none
    ParamRange *range; size_t n_ranges; // what trains, states here or not
    Buf ranges;                 // DT_U8: what has its states here, counted from `own` on, for AdamW
    size_t n_blocks;            // of MOMENT_BLOCK, in all of them
    Params p;                   // data by name
    Params g;                   // grad by name; what is frozen is none
    Params packed;              // as p, its matmul weights packed for decoding
    Buf average;                // as master: the weights' moving average; none where nobody asked for it
    long step;                  // optimiser steps taken
} Model;

#define TRAIN_ALL (-1)  // train_layers: everything, embeddings too
#define TRAIN_NONE (-2) // inference: no gradients, no moments
// Lays out the parameters of cfg (values undefined until param_set or model_random). train_layers K >= 0 trains the top
// K blocks, the final norm, and the head if it is untied; value_head adds Linear(C,2C)-ReLU-Linear(2C,1). measure_only:
// sizes only, nothing is allocated.
void model_create(Model *m, const Ops *o, const Config *cfg, long train_layers, bool value_head, bool measure_only);
void model_free(Model *m);
// From now on the weights of a model that does not train lie at `data`, which has them; their own memory is released.
void model_move(Model *m, Buf data);
size_t param_count(const Model *m, size_t from); // parameters that lie from element `from` on, padding not counted
// GPT-2's initialisation for all; projections scaled by 1/sqrt(2L)
void model_random(Model *m, uint64_t seed);
void value_head_random(Model *m, uint64_t seed);        // first layer uniform +-1/sqrt(C), output layer zero
// n of the file's rows from `first` on; all of them if transposed
void param_set(Model *m, const Param *q, const real *rows, size_t first, size_t n);
void param_get(const Model *m, const Param *q, real *file_layout);                  // all
// A frozen twin: shares what m keeps frozen, copies what it trains (the reference of a policy). The copy lives in
// `arena`.
void params_twin(Params *out, const Model *m, Buf copy); // copy (n_params - first)
void params_free(Params *p);
// what model_pack does: lays out m->packs and packs into it what is there already
void packs_carve(Model *m);
// fills m->packed from m->p; call after every change of the weights, before decoding
void model_pack(Model *m);

// ----------------------------------------------------------------------------
// batches, activations, forward and backward

// Dies when one is not of the model's vocabulary: asked of all that a model reads, draws or has as a target.
void ids_check(const Model *m, const int *ids, size_t n);
typedef struct {
    size_t N, B;         // tokens in all, rows
    Buf tokens;          // (N) int32 ids
    Buf pos;             // (N) int32 position of each in its row
    Buf start;           // (B+1) int32 row r is tokens [start[r], start[r+1])
    size_t cap_N, cap_B; // room for so many
} Batch;
void batch_carve(Batch *b, Arena *a, size_t N, size_t B);
// tokens (N) on the host; start (B+1); first_pos (B) is each row's first position, or NULL for 0. Dies when a position
// is outside the context.
void batch_set(Batch *b, const Model *m, const int *tokens, const int *start, const int *first_pos, size_t B);

// Keys and values of decoding.
typedef struct KVCache {
    size_t S, T;                  // slots, positions in each
    Buf *kv;                      // (L) of (S,2,NH,T,HS), an order that is known to attention_decode alone
    Buf slot, len;                // (B) int32: row b is in slot[b], which holds len[b] positions of it already; len
                                  // none: no slot is ever gone on with
    Buf pslot, plen;              // (B) int32: and sees the first plen[b] positions of slot pslot[b] of `prefix`
    const struct KVCache *prefix; // keys and values that rows share; NULL: rows see only themselves
} KVCache;
// grows: rows go on where they were, a few tokens at a time; else each comes whole
void kv_carve(KVCache *c, const Model *m, Arena *a, size_t S, size_t T, size_t rows, bool grows);
void kv_free(KVCache *c);

typedef struct {
    Buf ln1;          // (N,C) norm1(x)
    Buf mean1, rstd1; // (N), (N) real: of x
    Buf qkv;          // (N,3C) of all heads, [3][NH][HS]
    Buf lse;          // (N,NH) real: log of the sum that the attention's softmax divides by
    Buf att;          // (N,C) the heads' outputs
    Buf mid;          // (N,C) x + attention
    Buf ln2;          // (N,C) norm2(mid), or with `parallel` norm2(x)
    Buf mean2, rstd2; // (N), (N) real: of what norm2 read; with `parallel` those of norm1
    Buf fc, act;      // (N,F), (N,F) before and after the activation
    Buf out;          // (N,C) mid + mlp, the next block's x
} BlockActs;
typedef struct {
    size_t cap_N;
    Buf x;            // (N,C) what the first block that runs reads
    BlockActs *h;     // (L) blocks that train keep their own, the others share one; `out` apart with m->recompute
    Buf lnf;          // (N,C) the final hidden state
    Buf meanf, rstdf; // (N), (N) real
    // Scratch of the backward pass, none without one: gradients
    Buf dx;           // (N,C) of the residual stream
    Buf dln;          // (N,C) of a norm's output
    Buf dqkv;         // (N,3C)
    Buf datt;         // (N,C)
    Buf dfc;          // (N,F)
    Buf dhidden;      // (N,C) of lnf: where model_backward begins
} Acts;
// Room for N tokens. Blocks from `keep` on keep their activations for a backward pass (keep = L: none). With
// m->recompute all blocks share one's, and each that trains keeps its output alone: of 8C + 2F numbers a token C. The
// backward pass then runs a block's forward pass again, with the same bits (Chen et al., Training Deep Nets with
// Sublinear Memory Cost, 2016, arXiv:1604.06174).
void acts_carve(Acts *a, const Model *m, Arena *arena, size_t N, size_t keep);
void acts_free(Acts *a);
// Blocks [from, to) over a packed batch, reading a->x when from > 0 (else the embedding fills it); p is any view of m's
// parameters. Returns what block to-1 wrote (N,C), or with to == L the normalised final hidden state. kv != NULL
// decodes.
Buf model_forward(const Model *m, const Params *p, Acts *a, const Batch *b, size_t from, size_t to, const KVCache *kv);
// From a->dhidden (N,C), the gradient of the final hidden state, down to m->first_block; parameter gradients accumulate
// in m->g.
void model_backward(Model *m, Acts *a, const Batch *b);
void model_zero_grad(Model *m);
Buf head_weight(const Params *p);                       // (V,C): the LM head, which is wte where it is tied
// Where a part of AdamW's states begins (part = o->parts: where the last one ends): its first element, counted from
// m->first on, and its first block of moments. Parts have equally many elements, to a block.
typedef struct { size_t at, block; } StatesCut;
StatesCut states_cut(const Model *m, size_t part);
// One AdamW step over all that has its states here, the gradient scaled to a norm of at most clip (0: no clipping).
// Returns the norm before clipping; dies naming the parameter when it is not finite, before any weight has changed.
typedef struct {
    double lr;           // step size
    double beta1, beta2; // how much of the moments is kept at each step
    double eps;          // added to the root of the second moment
    double weight_decay; // times lr, the share that decaying weights lose at each step
    double clip;         // largest norm of the gradient (0: any)
    double average;      // how much of the average is kept at each step (0: there is none)
    uint64_t seed;       // of the rounding of moments in 8 bits, and of their weights
} AdamW;
double model_update(Model *m, const AdamW *opt);
// The average of the weights over the optimiser steps (Polyak and Juditsky, 1992; exponential): the first call of begin
// makes room for it, model_update carries it along, use puts it in the weights' place. A policy near its optimum is
// thrown about by the noise of its gradients; the middle of where it was is nearer.
void model_average_begin(Model *m);
void model_average_use(Model *m);
// How the learning rate goes to 0, by --schedule.
typedef struct {
    const char *name, *help;
    double (*rate)(double left); // the share of --lr when `left`, a share too, of the steps after the warm-up is left
} Schedule;
extern const Schedule schedules[];
// The rate of optimiser step `step` (from 0) of `steps`, after `warmup` steps in which it rises.
double schedule_lr(const Schedule *schedule, double lr, long step, long steps, long warmup);

#ifdef __cplusplus
}
#endif

// ============================================================================
#ifdef VBON_IMPLEMENTATION
#include "lib/moments.h"

static void (*before_message)(void); // NULL, or takes away what stands where the message goes: a progress bar
static const char *speaker = ""; // which of several processes this is (lib/parallel.h), before its messages
static void complain(const char *fmt, va_list ap)
{
    char line[32768];
    vsnprintf(line, sizeof line, fmt, ap);
    // one line, whatever a file or prompt holds
    for (char *p = line; *p; p++) if ((unsigned char)*p < 32 || *p == 127) *p = ' ';
    fflush(stdout);
    if (before_message) before_message();
    fprintf(stderr, "vbon: %s%s\n", speaker, line);
}

void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt); complain(fmt, ap); va_end(ap);
    exit(1);
}

void usage(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt); complain(fmt, ap); va_end(ap);
    exit(2);
}

static const size_t absurd = (size_t)1 << 56;
#define LOWER \
    "lower the largest of --micro-tokens, --decode-rows, --rollout, --samples, --n, --max-new and --context, " \
    "or see vbon info"
NORETURN static void too_large(const char *what) { die("%s: more than any memory holds: " LOWER, what); }

size_t checked_product(const char *what, size_t a, size_t b)
{
    if (b && a > absurd / b) too_large(what);
    return a * b;
}

const char *row_name(const void *table, size_t row_size, size_t i)
{
    return *(const char *const *)(const void *)((const char *)table + i * row_size);
}

size_t row_named(const void *table, size_t row_size, const char *name)
{
    for (size_t i = 0; row_name(table, row_size, i); i++)
        if (!strcmp(row_name(table, row_size, i), name)) return i;
    die("\"%s\": a table of %s, ... has no such row", name, row_name(table, row_size, 0));
}

size_t row_room(const void *table, size_t row_size)
{
    size_t n = 0;
    while (row_name(table, row_size, n)) n++;
    if (n + 1 >= ROWS_MAX)
        die("\"%s\" and its table: no room for another row: raise ROWS_MAX", row_name(table, row_size, 0));
    return n;
}

void *xmalloc(size_t bytes) { return xrealloc(NULL, bytes); }
void *xcalloc(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size ? size : 1);
    if (!p) die("out of memory: %zu elements of %zu bytes: " LOWER, count, size);
    return p;
}
void *xrealloc(void *p, size_t bytes)
{
    p = realloc(p, bytes ? bytes : 1);
    if (!p) die("out of memory: %zu bytes: " LOWER, bytes);
    return p;
}
char *xstrdup(const char *s) { return strcpy((char *)xmalloc(strlen(s) + 1), s); }

void random_permutation(size_t *out, size_t n, uint64_t seed, uint64_t stream, uint64_t epoch)
{
    for (size_t i = 0; i < n; i++) out[i] = i;
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)(random_uniform(seed, stream, epoch, i, 0) * (double)i), t = out[i - 1];
        out[i - 1] = out[j];
        out[j] = t;
    }
}

// ----------------------------------------------------------------------------
// arenas

void arena_reset(Arena *a)
{
    a->used = a->n_pieces = 0;
#ifdef DEBUG
    if (a->base.p) a->o->fill(a->base, 0xff); // NaN in every type: a stale read shows
#endif
}

Buf arena_take(Arena *a, size_t n, DType type, const char *name)
{
    size_t bytes = (checked_product(name, n, dtype_size(type)) + 255) / 256 * 256;
    Buf b = {NULL, n, type, name};
    if (a->base.p) {
        if (bytes > a->base.n - a->used)
            die("arena %s: %s needs %zu bytes, %zu of %zu are left: a bug, please report it", a->name, name, bytes,
                a->base.n - a->used, a->base.n);
        b.p = (char *)a->base.p + a->used;
    }
    a->used += bytes;
    if (a->used > absurd) too_large(name);
    if (a->used > a->high) a->high = a->used;
    size_t i = 0;
    while (i < a->n_pieces && strcmp(a->pieces[i].name, name)) i++;
    if (i == a->n_pieces && i < sizeof a->pieces / sizeof *a->pieces) a->pieces[a->n_pieces++] = (Piece){name, 0};
    if (i < a->n_pieces) a->pieces[i].bytes += bytes;
    return b;
}

void arena_place(Arena *a)
{
    a->base = a->o->alloc(a->high ? a->high : 256, DT_U8, a->name);
    a->used = a->n_pieces = 0;
}

void arena_release(Arena *a)
{
    if (a->base.p) a->o->release(&a->base);
    a->used = a->high = a->n_pieces = 0;
}

Buf turns_keep(Turns *t, Buf b)
{
    Buf kept = t->o->pin(b.n * dtype_size(b.type), b.name);
    t->o->download(kept.p, (Buf){b.p, kept.n, DT_U8, b.name});
    if (kept.n > t->most) t->most = kept.n;
    return kept;
}

void turns_place(Turns *t) { t->memory = t->o->alloc(t->most, DT_U8, "weights that take turns"); }

void turns_take(Turns *t, const Buf *kept)
{
    if (t->now != kept) t->o->upload(slice(t->memory, 0, kept->n), kept->p);
    t->now = kept;
}

void turns_free(Turns *t) { if (t->memory.p) t->o->release(&t->memory); }

// ----------------------------------------------------------------------------
// GPT-2's tables: the only list of its parameters, and its config.json

#define IN_PARAMS(f) offsetof(Params, f)
#define IN_BLOCK(f) offsetof(Block, f)
static const ParamSpec gpt2_params[] = {
    {"wte.weight",             IN_PARAMS(wte),  D_V,  D_C, P_DECAY},
    {"wpe.weight",             IN_PARAMS(wpe),  D_T,  D_C, P_DECAY},
    {"h.%zu.ln_1.weight",      IN_BLOCK(ln1w),  D_C,  0,   P_LAYER | P_NORM},
    {"h.%zu.ln_1.bias",        IN_BLOCK(ln1b),  D_C,  0,   P_LAYER},
    {"h.%zu.attn.c_attn.weight", IN_BLOCK(qkvw), D_3C, D_C, P_LAYER | P_DECAY | P_TRANSPOSE | P_MATMUL},
    {"h.%zu.attn.c_attn.bias", IN_BLOCK(qkvb),  D_3C, 0,   P_LAYER},
    {"h.%zu.attn.c_proj.weight", IN_BLOCK(projw), D_C, D_C, P_LAYER | P_DECAY | P_TRANSPOSE | P_MATMUL | P_PROJ},
    {"h.%zu.attn.c_proj.bias", IN_BLOCK(projb), D_C,  0,   P_LAYER},
    {"h.%zu.ln_2.weight",      IN_BLOCK(ln2w),  D_C,  0,   P_LAYER | P_NORM},
    {"h.%zu.ln_2.bias",        IN_BLOCK(ln2b),  D_C,  0,   P_LAYER},
    {"h.%zu.mlp.c_fc.weight",  IN_BLOCK(fcw),   D_F,  D_C, P_LAYER | P_DECAY | P_TRANSPOSE | P_MATMUL},
    {"h.%zu.mlp.c_fc.bias",    IN_BLOCK(fcb),   D_F,  0,   P_LAYER},
    {"h.%zu.mlp.c_proj.weight", IN_BLOCK(fc2w), D_C,  D_F, P_LAYER | P_DECAY | P_TRANSPOSE | P_MATMUL | P_PROJ},
    {"h.%zu.mlp.c_proj.bias",  IN_BLOCK(fc2b),  D_C,  0,   P_LAYER},
    {"ln_f.weight",            IN_PARAMS(lnfw), D_C,  0,   P_NORM},
    {"ln_f.bias",              IN_PARAMS(lnfb), D_C,  0,   0},
    {"lm_head.weight",         IN_PARAMS(head), D_V,  D_C, P_DECAY | P_MATMUL | P_HEAD},
    {0},
};
static const char *const gpt2_buffers[] = {".attn.bias", ".attn.masked_bias", NULL};

static const ConfigField gpt2_fields[] = {
    {"vocab_size", NULL, F_SIZE, KEPT(V), 1, 1 << 28, NAN},
    {"n_ctx", NULL, F_SIZE, KEPT(max_T), 1, 1 << 28, 1024}, // transformers has forgotten it, other programs have not
    {"n_positions", "max_position_embeddings", F_SIZE, KEPT(max_T), 1, 1 << 28, 1024},
    {"n_embd", "hidden_size", F_SIZE, KEPT(C), 1, 1 << 20, NAN},
    {"n_layer", "num_hidden_layers", F_SIZE, KEPT(L), 1, 1000, NAN},
    {"n_head", "num_attention_heads", F_SIZE, KEPT(NH), 1, 1 << 20, NAN},
    {"n_inner", NULL, F_SIZE, KEPT(F), 1, 1 << 24, 0}, // 0: four times the width
    {"activation_function", NULL, F_ACT, KEPT(act), 0, 0, ACT_GELU_TANH},
    {"layer_norm_epsilon", NULL, F_NUMBER, KEPT(eps), 1e-30, 1, 1e-5},
    {"attn_pdrop", NULL, F_NUMBER, CHECKED, 0, 1, 0},
    {"resid_pdrop", NULL, F_NUMBER, CHECKED, 0, 1, 0},
    {"embd_pdrop", NULL, F_NUMBER, CHECKED, 0, 1, 0},
    {"tie_word_embeddings", NULL, F_FLAG, KEPT(tied), 0, 1, 1},
    {"scale_attn_weights", NULL, F_FLAG, CHECKED, 1, 1, 1},
    {"scale_attn_by_inverse_layer_idx", NULL, F_FLAG, CHECKED, 0, 0, 0},
    {"add_cross_attention", NULL, F_FLAG, CHECKED, 0, 0, 0},
    {"reorder_and_upcast_attn", NULL, F_FLAG, CHECKED, 0, 1, 0}, // it changes the rounding, not what is computed
    {0},
};

static inline void gpt2_fresh(Config *c)
{
    c->act = ACT_GELU_TANH;
    c->tied = true;
}

// Heads of every architecture: the reward model's scalar head in its two forms, and PPO's value head, which no folder
// has: it is kept in state.safetensors.
static const ParamSpec head_table[] = {
    {"score.weight",   IN_PARAMS(score), D_1,  D_C,  P_DECAY | P_HEAD},
    {"scalar_head.weight", IN_PARAMS(score), D_1, D_C, P_DECAY | P_HEAD | P_BIASED},
    {"scalar_head.bias", IN_PARAMS(scoreb), D_1, 0,  P_HEAD | P_BIASED},
    {"v_head.0.weight", IN_PARAMS(v1w),  D_2C, D_C,  P_DECAY | P_VALUE},
    {"v_head.0.bias",  IN_PARAMS(v1b),   D_2C, 0,    P_VALUE},
    {"v_head.2.weight", IN_PARAMS(v2w),  D_1,  D_2C, P_DECAY | P_VALUE},
    {"v_head.2.bias",  IN_PARAMS(v2b),   D_1,  0,    P_VALUE},
    {0},
};

static size_t dimension(const Config *c, Dimension d)
{
    switch (d) {
    case D_NONE: return 0;
    case D_1: return 1;
    case D_C: return c->C;
    case D_3C: return 3 * c->C;
    case D_F: return c->F;
    case D_V: return c->V;
    case D_T: return c->max_T;
    case D_2C: return 2 * c->C;
    case D_LABELS: return c->labels;
    }
    return 0;
}

static void list_add(Model *m, const ParamSpec *s, size_t layer)
{
    Param *q = &m->list[m->n_list++];
    if (s->flags & P_LAYER) snprintf(q->name, sizeof q->name, s->hf, layer);
    else snprintf(q->name, sizeof q->name, "%s", s->hf);
    q->field = s->field; q->layer = layer; q->flags = s->flags;
    q->rows = dimension(&m->cfg, s->rows);
    q->cols = dimension(&m->cfg, s->cols);
    q->n = q->room = checked_product(q->name, q->rows, q->cols ? q->cols : 1);
    if (s->rows == D_V && q->cols)
        q->room = checked_product(q->name, m->o->vocabulary_rows(q->rows), q->cols);
    q->offset = m->n_params;
    m->n_params += q->room;
    if (m->n_params > absurd) too_large("the parameters");
}

static Buf *param_field(Params *p, const Param *q)
{
    return (Buf *)((q->flags & P_LAYER ? (char *)&p->h[q->layer] : (char *)p) + q->field);
}

// Names the parts of `base`, which holds the elements from `first` on; what lies below is none.
static void params_view(Params *p, const Model *m, Buf base, size_t first)
{
    Block *h = p->h ? p->h : (Block *)xmalloc(m->cfg.L * sizeof *h);
    *p = (Params){.h = h};
    memset(h, 0, m->cfg.L * sizeof *h);
    for (size_t i = 0; i < m->n_list; i++) {
        const Param *q = &m->list[i];
        Buf b = q->offset >= first ? slice(base, q->offset - first, q->room) : (Buf){0};
        b.name = q->name;
        b.n = q->room;
        *param_field(p, q) = b;
    }
}

// Whether the weights that train are kept apart from data
static bool masters(const Model *m) { return m->o->type != DT_REAL && !m->o->moments_8bit; }

// Neighbours that decay alike are one range, whose moments in 8 bits begin with a new block.
static void list_ranges(Model *m)
{
    m->range = (ParamRange *)xcalloc(m->n_list, sizeof *m->range);
    for (size_t i = 0; i < m->n_list; i++) {
        const Param *q = &m->list[i];
        if (q->offset < m->first) continue;
        const size_t at = q->offset - m->first, decays = (q->flags & P_DECAY) != 0;
        ParamRange *last = m->n_ranges ? &m->range[m->n_ranges - 1] : NULL;
        if (last && last->decays == decays && last->first + last->n == at) last->n += q->n;
        else
            m->range[m->n_ranges++] =
                (ParamRange){at, q->n, last ? last->block + moment_blocks(last->n) : 0, decays};
    }
}

StatesCut states_cut(const Model *m, size_t part)
{
    const size_t all = m->n_params - m->first, parts = m->o->parts ? m->o->parts : 1, from = all / parts * part;
    for (const ParamRange *r = m->range; part < parts && r < m->range + m->n_ranges; r++) {
        if (from >= r->first + r->n) continue;
        size_t blocks = from > r->first ? (from - r->first) / MOMENT_BLOCK : 0;
        return (StatesCut){r->first + blocks * MOMENT_BLOCK, r->block + blocks};
    }
    return (StatesCut){all, all / MOMENT_BLOCK + m->n_list}; // room for a broken block a parameter
}

// What has its states here of the elements [from, end), counted from m->first on. False: nothing.
static bool states_clip(const Model *m, size_t *from, size_t *end)
{
    if (*from < m->own) *from = m->own;
    if (*end > m->own + m->own_n) *end = m->own + m->own_n;
    return *from < *end;
}

// The ranges that have their states here, counted from there on. How many; out has room.
static size_t own_ranges(Model *m, ParamRange *out)
{
    const StatesCut cut = states_cut(m, m->o->part);
    size_t n = 0;
    for (const ParamRange *r = m->range; r < m->range + m->n_ranges; r++) {
        size_t from = r->first, end = r->first + r->n;
        if (!states_clip(m, &from, &end)) continue;
        size_t block = r->block + (from - r->first) / MOMENT_BLOCK - cut.block; // a cut lies between blocks
        out[n++] = (ParamRange){from - m->own, end - from, block, r->decays};
    }
    m->n_blocks = n ? out[n - 1].block + moment_blocks(out[n - 1].n) : 0;
    return n;
}

void model_create(Model *m, const Ops *o, const Config *cfg, long train_layers, bool value_head, bool measure_only)
{
    *m = (Model){.o = o, .cfg = *cfg};
    const size_t L = cfg->L;
    const ParamSpec *table = cfg->arch->params;
    size_t n_table = 0;
    while (table[n_table].hf) n_table++;
    m->list = (Param *)xcalloc(n_table * L + n_table + sizeof head_table / sizeof *head_table, sizeof *m->list);
    for (const ParamSpec *s = table, *end = s; s->hf; s = end) { // what stands together in each block, block by block
        while (end == s || (end->flags & P_LAYER && s->flags & P_LAYER)) end++;
        for (size_t l = 0; l < (s->flags & P_LAYER ? L : 1); l++)
            for (const ParamSpec *k = s; k < end; k++)
                if (!(k->flags & P_HEAD) || (!cfg->tied && !cfg->scalar_head)) list_add(m, k, l);
    }
    for (const ParamSpec *s = head_table; s->hf; s++)
        if (s->flags & P_VALUE ? value_head : cfg->scalar_head && cfg->score_bias == (bool)(s->flags & P_BIASED))
            list_add(m, s, 0);
    // What trains is a suffix of the list. K blocks: from the first parameter of block L-K on.
    if (train_layers > (long)L) die("--train-layers %ld: the model has %zu blocks", train_layers, L);
    m->first_block = train_layers == TRAIN_ALL ? 0 : train_layers == TRAIN_NONE ? L : L - (size_t)train_layers;
    m->first = m->n_params;
    for (size_t i = m->n_list; i > 0; i--) {
        const Param *q = &m->list[i - 1];
        bool below =
            q->flags & P_LAYER ? q->layer < m->first_block : q->field == IN_PARAMS(wte) || q->field == IN_PARAMS(wpe);
        if (train_layers == TRAIN_NONE || (below && train_layers != TRAIN_ALL)) break;
        m->first = q->offset;
    }
    list_ranges(m);
    m->params = (Arena){.name = "parameters", .o = o};
    m->optim = (Arena){.name = "gradients and moments", .o = o};
    m->packs = (Arena){.name = "packed weights", .o = o};
    for (int pass = 0; pass < (measure_only ? 1 : 2); pass++) {
        if (pass) { arena_place(&m->params); if (m->first < m->n_params) arena_place(&m->optim); }
        m->data = arena_take(&m->params, m->n_params, o->type, "weights");
        if (m->first == m->n_params) continue;
        const DType moments = o->moments_8bit ? DT_U8 : DT_REAL;
        const StatesCut from = states_cut(m, o->part), end = states_cut(m, o->part + 1);
        m->own = from.at;
        m->own_n = end.at - from.at;
        m->master = masters(m) ? arena_take(&m->optim, m->own_n, DT_REAL, "master weights")
                               : slice(m->data, m->first + m->own, m->own_n);
        m->grad = arena_take(&m->optim, m->n_params - m->first, DT_REAL, "gradients");
        m->m = arena_take(&m->optim, m->own_n, moments, "first moments");
        m->v = arena_take(&m->optim, m->own_n, moments, "second moments");
        if (o->moments_8bit)
            m->scale = arena_take(&m->optim, 2 * (end.block - from.block), DT_REAL, "scales of moments");
        ParamRange *own = (ParamRange *)xcalloc(m->n_ranges, sizeof *own);
        m->ranges = arena_take(&m->optim, own_ranges(m, own) * sizeof *own, DT_U8, "AdamW's ranges");
        if (pass) o->upload(m->ranges, own);
        free(own);
    }
    params_view(&m->p, m, m->data, 0);
    params_view(&m->g, m, m->grad, m->first);
    if (measure_only) return;
    if (param_count(m, 0) < m->n_params) { // what pads the vocabulary
        o->fill(m->data, 0);
        if (m->first < m->n_params) o->fill(m->master, 0);
    }
    if (m->first == m->n_params) return;
    o->fill(m->grad, 0); o->fill(m->m, 0); o->fill(m->v, 0);
    if (m->scale.p) o->fill(m->scale, 0);
}

void model_move(Model *m, Buf data)
{
    arena_release(&m->params);
    m->data = (Buf){data.p, m->n_params, m->o->type, m->data.name};
    params_view(&m->p, m, m->data, 0);
    params_view(&m->packed, m, m->data, 0);
}

size_t param_count(const Model *m, size_t from)
{
    size_t n = 0;
    for (size_t i = 0; i < m->n_list; i++) if (m->list[i].offset >= from) n += m->list[i].n;
    return n;
}

void params_free(Params *p) { free(p->h); p->h = NULL; }

void model_free(Model *m)
{
    arena_release(&m->params); arena_release(&m->optim); arena_release(&m->packs);
    if (m->average.p) m->o->release(&m->average);
    params_free(&m->p); params_free(&m->g); params_free(&m->packed);
    free(m->list); free(m->range);
    *m = (Model){0};
}

static bool has_master(const Model *m, const Param *q) { return masters(m) && q->offset >= m->first; }
static Buf param_master(const Model *m, const Param *q)
{
    return slice(m->exact.p ? m->exact : m->master, q->offset - m->first, q->n);
}

// n elements from `first`, in the layout kept here
static void param_write(Model *m, const Param *q, size_t first, size_t n, const real *x)
{
    m->o->upload(slice(slice(m->data, q->offset, q->n), first, n), x);
    if (!has_master(m, q)) return;
    size_t begins = q->offset - m->first + first, from = begins, end = begins + n;
    if (states_clip(m, &from, &end)) m->o->upload(slice(m->master, from - m->own, end - from), x + (from - begins));
}

// A standard normal from the counter-based generator (Box-Muller).
static double random_normal(uint64_t seed, uint64_t stream, uint64_t a, uint64_t b)
{
    double u = 1 - random_uniform(seed, stream, a, b, 0), v = random_uniform(seed, stream, a, b, 1);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

void model_random(Model *m, uint64_t seed)
{
    real *x = (real *)xmalloc(m->n_params * sizeof *x);
    for (size_t i = 0; i < m->n_list; i++) {
        const Param *q = &m->list[i];
        double std = q->flags & P_VALUE || !q->cols ? 0
            : q->flags & P_PROJ                     ? m->cfg.init_std / sqrt(2.0 * (double)m->cfg.L)
                                                    : m->cfg.init_std;
        bool score = !(q->flags & P_LAYER) && q->field == IN_PARAMS(score);
        if (score) std = 1 / sqrt((double)m->cfg.C + 1); // as Huang et al. 2024 (ppo.h) have it
        for (size_t j = 0; j < q->n; j++)
            x[j] = (real)(q->flags & P_NORM ? 1 : std > 0 ? std * random_normal(seed, STREAM_INIT, i, j) : 0);
        param_write(m, q, 0, q->n, x);
    }
    free(x);
}

void value_head_random(Model *m, uint64_t seed)
{
    double bound = 1 / sqrt((double)m->cfg.C);
    for (size_t i = 0; i < m->n_list; i++) {
        const Param *q = &m->list[i];
        if (!(q->flags & P_VALUE)) continue;
        real *w = (real *)xcalloc(q->n, sizeof *w);
        if (q->field == IN_PARAMS(v1w))
            for (size_t j = 0; j < q->n; j++)
                w[j] = (real)(bound * (2 * random_uniform(seed, STREAM_INIT, 1u << 20, j, 0) - 1));
        param_write(m, q, 0, q->n, w);
        free(w);
    }
}

static void transpose(real *out, const real *in, size_t rows, size_t cols) // in (rows, cols)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j++) out[j * rows + i] = in[i * cols + j];
}

// Where the file's row stands in memory (*at), and how many rows from it on stand together in both
static size_t row_run(const Model *m, const Param *q, size_t row, size_t *at)
{
    if (q->flags & P_PLACED) return m->cfg.arch->place(&m->cfg, row, at);
    *at = row;
    return q->rows - row;
}

void param_set(Model *m, const Param *q, const real *rows, size_t first, size_t n)
{
    if (q->flags & P_TRANSPOSE) {
        real *t = (real *)xmalloc(q->n * sizeof *t);
        transpose(t, rows, q->cols, q->rows);
        param_write(m, q, 0, q->n, t);
        free(t);
        return;
    }
    size_t width = q->cols ? q->cols : 1;
    for (size_t r = first, at, run; r < first + n; r += run) {
        run = row_run(m, q, r, &at);
        if (run > first + n - r) run = first + n - r;
        param_write(m, q, at * width, run * width, rows + (r - first) * width);
    }
}

static void fetch(const Ops *o, real *to, Buf b) // o NULL: b is in the host's memory
{
    if (o) o->download(to, b);
    else memcpy(to, b.p, b.n * sizeof *to);
}

// b: q, or its gradient, in o's memory
static void to_file_layout(const Model *m, const Ops *o, const Param *q, Buf b, real *file_layout)
{
    if (q->flags & P_TRANSPOSE) {
        real *t = (real *)xmalloc(q->n * sizeof *t);
        fetch(o, t, b);
        transpose(file_layout, t, q->rows, q->cols);
        free(t);
        return;
    }
    size_t width = q->cols ? q->cols : 1;
    for (size_t r = 0, at, run; r < q->rows; r += run) {
        run = row_run(m, q, r, &at);
        fetch(o, file_layout + r * width, slice(b, at * width, run * width));
    }
}

void param_get(const Model *m, const Param *q, real *file_layout)
{
    Buf b = slice(m->data, q->offset, q->n);
    if (has_master(m, q)) b = param_master(m, q);
    to_file_layout(m, has_master(m, q) && m->exact.p ? NULL : m->o, q, b, file_layout);
}

void params_twin(Params *out, const Model *m, Buf copy)
{
    out->h = NULL;
    params_view(out, m, m->data, 0);
    m->o->copy(copy, slice(m->data, m->first, m->n_params - m->first));
    for (size_t i = 0; i < m->n_list; i++)
        if (m->list[i].offset >= m->first)
            *param_field(out, &m->list[i]) = slice(copy, m->list[i].offset - m->first, m->list[i].room);
}

void packs_carve(Model *m)
{
    arena_reset(&m->packs);
    params_view(&m->packed, m, m->data, 0);
    for (size_t i = 0; i < m->n_list; i++) {
        const Param *q = &m->list[i];
        bool tied_head = q->field == IN_PARAMS(wte) && !(q->flags & P_LAYER) && m->cfg.tied && !m->cfg.scalar_head;
        if (!(q->flags & P_MATMUL) && !tied_head) continue;
        size_t bytes = m->o->packed_size(q->rows, q->cols);
        Buf b = bytes ? arena_take(&m->packs, bytes, DT_PACKED, "packed weights") : (Buf){0};
        if (!b.p) continue;
        m->o->pack(b, *param_field(&m->p, q), q->rows, q->cols);
        *(tied_head ? &m->packed.head : param_field(&m->packed, q)) = b; // wte itself stays readable for the embedding
    }
}

void model_pack(Model *m)
{
    if (!m->packs.base.p) { packs_carve(m); arena_place(&m->packs); }
    packs_carve(m);
}

// ----------------------------------------------------------------------------
// batches and caches

void batch_carve(Batch *b, Arena *a, size_t N, size_t B)
{
    *b = (Batch){.cap_N = N, .cap_B = B};
    b->tokens = arena_take(a, N, DT_I32, "batch");
    b->pos = arena_take(a, N, DT_I32, "batch");
    b->start = arena_take(a, B + 1, DT_I32, "batch");
}

void ids_check(const Model *m, const int *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= m->cfg.V)
            die("token %d: the model's vocabulary has %zu: is this its tokenizer?", ids[i], m->cfg.V);
}

void batch_set(Batch *b, const Model *m, const int *tokens, const int *start, const int *first_pos, size_t B)
{
    size_t N = (size_t)start[B];
    if (N > b->cap_N || B > b->cap_B)
        die("batch of %zu tokens in %zu rows, room for %zu in %zu: a bug, please report it", N, B, b->cap_N, b->cap_B);
    int *pos = (int *)xmalloc(N * sizeof *pos);
    for (size_t r = 0; r < B; r++)
        for (int i = start[r]; i < start[r + 1]; i++) {
            pos[i] = i - start[r] + (first_pos ? first_pos[r] : 0);
            if ((size_t)pos[i] >= m->cfg.max_T)
                die("position %d: the model's context is %zu tokens: shorten the prompts or --max-new", pos[i],
                    m->cfg.max_T);
        }
    ids_check(m, tokens, N);
    b->N = N; b->B = B;
    m->o->upload(slice(b->tokens, 0, N), tokens);
    m->o->upload(slice(b->pos, 0, N), pos);
    m->o->upload(slice(b->start, 0, B + 1), start);
    free(pos);
}

void kv_carve(KVCache *c, const Model *m, Arena *a, size_t S, size_t T, size_t rows, bool grows)
{
    *c = (KVCache){.S = S, .T = T, .kv = c->kv};
    if (!c->kv) c->kv = (Buf *)xmalloc(m->cfg.L * sizeof *c->kv);
    size_t layer = checked_product("kv cache", checked_product("kv cache", S, T), 2 * m->cfg.C);
    for (size_t l = 0; l < m->cfg.L; l++) c->kv[l] = arena_take(a, layer, m->o->type, "kv cache");
    c->slot = arena_take(a, rows, DT_I32, "batch");
    if (grows) c->len = arena_take(a, rows, DT_I32, "batch");
    c->pslot = arena_take(a, rows, DT_I32, "batch"); c->plen = arena_take(a, rows, DT_I32, "batch");
}

void kv_free(KVCache *c) { free(c->kv); c->kv = NULL; }

void acts_carve(Acts *a, const Model *m, Arena *arena, size_t N, size_t keep)
{
    const Config *c = &m->cfg;
    size_t C = c->C, F = c->F, NH = c->NH, L = c->L;
    BlockActs *h = a->h ? a->h : (BlockActs *)xmalloc(L * sizeof *h);
    *a = (Acts){.cap_N = N, .h = h};
    #define TAKE(n, name) arena_take(arena, checked_product(name, N, n), m->o->type, name)
    #define STATISTIC(n, name) arena_take(arena, checked_product(name, N, n), DT_REAL, name)
    a->x = TAKE(C, "embedding");
    for (size_t l = 0; l < L; l++) {
        const char *name = l < keep ? "frozen blocks" : "activations";
        if (l > 0 && (l < keep || m->recompute)) h[l] = h[0];
        else {
            h[l] = (BlockActs){.ln1 = TAKE(C, name), .mean1 = STATISTIC(1, name), .rstd1 = STATISTIC(1, name),
                .qkv = TAKE(3 * C, name), .lse = STATISTIC(NH, name), .att = TAKE(C, name), .mid = TAKE(C, name),
                .ln2 = TAKE(C, name), .fc = TAKE(F, name), .act = TAKE(F, name)};
            h[l].mean2 = c->parallel ? h[l].mean1 : STATISTIC(1, name);
            h[l].rstd2 = c->parallel ? h[l].rstd1 : STATISTIC(1, name);
        }
        h[l].out = l < keep ? a->x : TAKE(C, name); // a frozen block writes over what it read
    }
    a->lnf = TAKE(C, "activations"); a->meanf = STATISTIC(1, "activations"); a->rstdf = STATISTIC(1, "activations");
    if (keep < L || m->first < m->n_params) {
        a->dx = TAKE(C, "backward"); a->dln = TAKE(C, "backward"); a->dqkv = TAKE(3 * C, "backward");
        a->datt = TAKE(C, "backward"); a->dfc = TAKE(F, "backward"); a->dhidden = TAKE(C, "backward");
    }
    #undef TAKE
    #undef STATISTIC
}

void acts_free(Acts *a) { free(a->h); a->h = NULL; }

// ----------------------------------------------------------------------------
// one block, forward and backward: x -> mid = x + attention(norm1(x)) -> mid + mlp(norm2(mid)), or with `parallel` mid
// + mlp(norm2(x))

// What reads the residual stream below block l: its norms, one or with `parallel` both; below l == L the final norm.
// Their statistics go to *mean and *rstd.
static void norms_of(Norm norm[2], Buf *mean, Buf *rstd, const Config *c, const Params *p, const Acts *a, size_t l)
{
    norm[0] = norm[1] = (Norm){0};
    if (l == c->L) {
        norm[0] = (Norm){a->lnf, p->lnfw, p->lnfb};
        *mean = a->meanf; *rstd = a->rstdf;
        return;
    }
    const BlockActs *h = &a->h[l];
    norm[0] = (Norm){h->ln1, p->h[l].ln1w, p->h[l].ln1b};
    if (c->parallel) norm[1] = (Norm){h->ln2, p->h[l].ln2w, p->h[l].ln2b};
    *mean = h->mean1; *rstd = h->rstd1;
}

// Those of x, where no addition comes before them
static void norms_forward(const Ops *o, const Config *c, const Params *p, const Acts *a, Buf x, size_t N, size_t l)
{
    Norm norm[2];
    Buf mean, rstd;
    norms_of(norm, &mean, &rstd, c, p, a, l);
    for (int i = 0; i < 2 && norm[i].out.p; i++)
        o->layernorm_forward(norm[i].out, mean, rstd, x, norm[i].w, norm[i].b, N, c->C, c->eps);
}

// Block l, whose own norms of x are there; what reads its output, the next block's norms or the final one, it leaves
// there (next). whole: else as far as the backward pass reads.
static void block_forward(const Ops *o, const Config *c, const Params *params, const Acts *acts, Buf x, const Batch *b,
                          const KVCache *kv, size_t l, bool whole, bool next)
{
    const Block *p = &params->h[l];
    const BlockActs *a = &acts->h[l];
    size_t N = b->N, C = c->C, F = c->F, NH = c->NH;
    o->matmul_forward(a->qkv, a->ln1, p->qkvw, p->qkvb, N, C, 3 * C);
    if (c->arch->turn) c->arch->turn(o, c, a->qkv, b->pos, N, false);
    if (kv) {
        const KVCache *f = kv->prefix;
        o->attention_decode(a->att, kv->kv[l], a->qkv, b->start, kv->slot, kv->len, kv->T, f ? f->kv[l] : (Buf){0},
                            kv->pslot, kv->plen, f ? f->T : 0, b->B, N, NH, C / NH);
    } else {
        o->attention_forward(a->att, a->lse, a->qkv, b->start, b->B, N, NH, C / NH, true);
    }
    o->matmul_forward(a->mid, a->att, p->projw, p->projb, N, C, C);
    if (!c->parallel) {
        const Norm norm[2] = {{a->ln2, p->ln2w, p->ln2b}};
        o->add_layernorm(a->mid, a->mean2, a->rstd2, norm, a->mid, x, (Buf){0}, N, C, c->eps);
    }
    o->matmul_forward(a->fc, a->ln2, p->fcw, p->fcb, N, C, F);
    o->activation_forward(a->act, a->fc, c->act, N * F);
    if (!whole) return;
    // `out` may be x, which in parallel is still read: what norm1 wrote is not then
    Buf third = c->parallel ? x : (Buf){0}, mlp = c->parallel && a->out.p == x.p ? a->ln1 : a->out;
    o->matmul_forward(mlp, a->act, p->fc2w, p->fc2b, N, F, C);
    if (next) {
        Norm norm[2];
        Buf mean, rstd;
        norms_of(norm, &mean, &rstd, c, params, acts, l + 1);
        o->add_layernorm(a->out, mean, rstd, norm, mlp, a->mid, third, N, C, c->eps);
    } else {
        if (third.p) o->add(a->mid, a->mid, third, N * C);
        o->add(a->out, mlp, a->mid, N * C);
    }
}

// dx (N,C) comes in as the gradient of the block's output and leaves as that of its input x.
static void block_backward(const Ops *o, const Config *c, const Block *p, const Block *g, const BlockActs *a,
                           const Acts *s, Buf x, const Batch *b)
{
    size_t N = b->N, C = c->C, F = c->F, NH = c->NH;
    o->matmul_backward(s->dfc, g->fc2w, g->fc2b, s->dx, a->act, p->fc2w, N, F, C);
    o->activation_backward(s->dfc, s->dfc, a->fc, c->act, N * F);
    o->matmul_backward(s->dln, g->fcw, g->fcb, s->dfc, a->ln2, p->fcw, N, C, F);
    // dx is the gradient of `mid`, less what comes through norm2. In parallel, what comes through norm2 belongs to x
    // instead, and must wait until the attention's projection has read dx
    if (!c->parallel) o->layernorm_backward(s->dx, g->ln2w, g->ln2b, s->dln, a->mid, p->ln2w, a->mean2, a->rstd2, N, C);
    o->matmul_backward(s->datt, g->projw, g->projb, s->dx, a->att, p->projw, N, C, C);
    if (c->parallel) o->layernorm_backward(s->dx, g->ln2w, g->ln2b, s->dln, x, p->ln2w, a->mean2, a->rstd2, N, C);
    o->attention_backward(s->dqkv, s->datt, a->att, a->lse, a->qkv, b->start, b->B, N, NH, C / NH, true);
    if (c->arch->turn) c->arch->turn(o, c, s->dqkv, b->pos, N, true);
    o->matmul_backward(s->dln, g->qkvw, g->qkvb, s->dqkv, a->ln1, p->qkvw, N, C, 3 * C);
    o->layernorm_backward(s->dx, g->ln1w, g->ln1b, s->dln, x, p->ln1w, a->mean1, a->rstd1, N, C);
}

// ----------------------------------------------------------------------------
// the model

Buf model_forward(const Model *m, const Params *p, Acts *a, const Batch *b, size_t from, size_t to, const KVCache *kv)
{
    const Ops *o = m->o;
    const Config *c = &m->cfg;
    if (b->N > a->cap_N) die("%zu tokens in a batch with activations for %zu: a bug, please report it", b->N, a->cap_N);
    if (from == 0) o->embed_forward(a->x, b->tokens, b->pos, p->wte, p->wpe, b->N, c->C);
    Buf x = a->x;
    norms_forward(o, c, p, a, x, b->N, from);
    for (size_t l = from; l < to; l++) {
        block_forward(o, c, p, a, x, b, kv, l, true, l + 1 < to || to == c->L);
        x = a->h[l].out;
    }
    return to < c->L ? x : a->lnf;
}

void model_backward(Model *m, Acts *a, const Batch *b)
{
    const Ops *o = m->o;
    const Config *c = &m->cfg;
    Buf last = c->L ? a->h[c->L - 1].out : a->x;
    o->fill(slice(a->dx, 0, b->N * c->C), 0);
    o->layernorm_backward(a->dx, m->g.lnfw, m->g.lnfb, a->dhidden, last, m->p.lnfw, a->meanf, a->rstdf, b->N, c->C);
    for (size_t l = c->L; l > m->first_block; l--) {
        Buf x = l - 1 > m->first_block ? a->h[l - 2].out : a->x;
        if (m->recompute && l < c->L) { // the top block ran last: what it wrote is still there
            norms_forward(o, c, &m->p, a, x, b->N, l - 1);
            block_forward(o, c, &m->p, a, x, b, NULL, l - 1, false, false);
        }
        block_backward(o, c, &m->p.h[l - 1], &m->g.h[l - 1], &a->h[l - 1], a, x, b);
    }
    if (m->first == 0) o->embed_backward(m->g.wte, m->g.wpe, a->dx, b->tokens, b->pos, b->N, c->C);
}

Buf head_weight(const Params *p) { return p->head.p ? p->head : p->wte; }

void model_zero_grad(Model *m) { m->o->fill(m->grad, 0); }

double model_update(Model *m, const AdamW *opt)
{
    double sum = m->o->sumsq(m->grad);
    for (size_t i = 0; i < m->n_list && !isfinite(sum); i++) {
        const Param *q = &m->list[i];
        if (q->offset >= m->first && !isfinite(m->o->sumsq(*param_field(&m->g, q))))
            die("optimiser step %ld: the gradient of %s is not finite: lower --lr, or look for NaN in the data; no "
                "weight was changed",
                m->step + 1, q->name);
    }
    // as torch.nn.utils.clip_grad_norm_
    double norm = sqrt(sum), scale = opt->clip > 0 && norm > opt->clip ? opt->clip / (norm + 1e-6) : 1;
    m->step++;
    const uint64_t key = random_key(opt->seed, STREAM_ROUNDING, (uint64_t)m->step, 0);
    const double decay = opt->weight_decay;
    Buf g = slice(m->grad, m->own, m->own_n), w = slice(m->data, m->first + m->own, m->own_n);
    if (!m->n_blocks) return norm; // other processes have all the states
    if (m->scale.p)
        m->o->adamw_8bit(m->master, g, m->m, m->v, m->scale, m->ranges, m->n_blocks, opt->lr, opt->beta1, opt->beta2,
                         opt->eps, decay, scale, m->step, key, m->own);
    else
        m->o->adamw(masters(m) ? w : (Buf){0}, m->master, g, m->m, m->v, m->ranges, m->n_blocks, opt->lr, opt->beta1,
                    opt->beta2, opt->eps, decay, scale, m->step);
    // the plain mean of the first steps, until it is made of as many as are kept
    double t = (double)m->step;
    if (m->average.p) m->o->blend(m->average, m->master, fmin(opt->average, (t - 1) / t));
    return norm;
}

void model_average_begin(Model *m)
{
    if (!m->average.p) m->average = m->o->alloc(m->own_n, DT_REAL, "averaged weights");
    m->o->copy(m->average, m->master);
}

void model_average_use(Model *m)
{
    m->o->copy(m->master, m->average);
    if (masters(m)) m->o->copy(slice(m->data, m->first + m->own, m->own_n), m->master);
}

static double constant_rate(double left) { (void)left; return 1; }
static double linear_rate(double left) { return left; }
static double cosine_rate(double left) { return 0.5 * (1 + cos(3.141592653589793 * (1 - left))); }
const Schedule schedules[] = {{"constant", NULL, constant_rate},
                              {"linear", NULL, linear_rate},
                              {"cosine", NULL, cosine_rate},
                              {NULL, NULL, NULL}};

double schedule_lr(const Schedule *schedule, double lr, long step, long steps, long warmup)
{
    if (step < warmup) return lr * (double)(step + 1) / (double)warmup;
    return lr * schedule->rate(steps > warmup ? (double)(steps - step) / (double)(steps - warmup) : 1);
}
#endif // VBON_IMPLEMENTATION