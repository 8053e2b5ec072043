// generate.h: drawing responses from a model.
//
// A step runs the rows that are not finished. Each prompt is prefilled once for all its responses and lies in a cache
// of its own; a response's keys and values follow it in another. A response ends with its end-of-text token or at the
// limit; there is no padding. What is drawn is a pure function of (seed, stream, prompt, sample, position) and the
// logits, in any batching.
#pragma once
#include "../gpt2.h"
#ifdef __cplusplus
extern "C" {
#endif

// where: its file and line, for messages; NULL: not known
typedef struct { char *text; int *ids; size_t n; char *where; } Prompt;
// A response: the ids sampled (an end-of-text only if it was sampled), their log-probabilities at sampling time, and
// what was found out about it.
typedef struct {
    // which prompt, and the global sample counter: with seed and stream they fix every draw
    size_t prompt; uint64_t sample;
    int *ids; float *logp; size_t n; bool finished;
    double reward; uint64_t key;
    // (n): the reward model's score of prompt + ids[0..t), for the prefix-rank baseline, or NULL
    double *prefix;
} Response;
void response_free(Response *r);

typedef struct { double temperature, top_p; long top_k; uint64_t seed, stream; int eos; } Sampling;
typedef struct {
    Model *m; Acts acts; Batch batch; KVCache prompts, own;
    Buf hidden, index, token, logp, uniform;
    size_t rows, slots, tokens, max_prompt, max_new;
    int *h_tokens, *h_start, *h_pos, *h_index, *h_slot, *h_len, *h_pslot, *h_plen, *live;
    double *h_uniform; real *h_logp;
} Generator;
// Room for `rows` responses at a time of at most max_new tokens to at most `slots` prompts of at most max_prompt, in
// `a`. Call again at each phase change.
void generator_carve(Generator *g, Model *m, Arena *a, size_t rows, size_t slots, size_t tokens, size_t max_prompt,
                     size_t max_new);
// How many prompts `rows` responses in a row have at most, where each prompt has `share` of them side by side.
static inline size_t prompt_slots(size_t rows, size_t share)
{
    size_t slots = share ? (rows + share - 2) / share + 1 : rows;
    return slots < rows ? slots : rows;
}
void generator_free(Generator *g);
// Fills ids, logp, n, finished and key of r[0..n) (prompt and sample are given; equal prompts side by side are
// prefilled once). Uses m->packed: call model_pack first.
void generate(Generator *g, const Sampling *s, const Prompt *prompts, Response *r, size_t n);

// The total order of the paper's App. C: reward first, then a hash of the response ids (FNV-1a over 32-bit
// little-endian words, splitmix64 finaliser).
uint64_t order_key(const int *ids, size_t n);
// whether the first of two responses is the lower one
bool order_below(double reward, uint64_t key, double other_reward, uint64_t other_key);
size_t best_of(const Response *r, size_t n); // which of r[0..n), n >= 1, is the highest
#ifdef __cplusplus
}
#endif

#ifdef VBON_IMPLEMENTATION

uint64_t order_key(const int *ids, size_t n)
{
    uint64_t h = 0xcbf29ce484222325ull;
    for (size_t i = 0; i < n; i++)
        for (int byte = 0; byte < 4; byte++) h = (h ^ ((uint32_t)ids[i] >> (8 * byte) & 0xff)) * 0x100000001b3ull;
    return mix64(h);
}

bool order_below(double reward, uint64_t key, double other_reward, uint64_t other_key)
{
    return reward != other_reward ? reward < other_reward : key < other_key;
}

size_t best_of(const Response *r, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++) if (order_below(r[best].reward, r[best].key, r[i].reward, r[i].key)) best = i;
    return best;
}

void response_free(Response *r)
{
    free(r->ids); free(r->logp); free(r->prefix);
    r->ids = NULL; r->logp = NULL; r->prefix = NULL; r->n = 0;
}

void generator_carve(Generator *g, Model *m, Arena *a, size_t rows, size_t slots, size_t tokens, size_t max_prompt,
                     size_t max_new)
{
    size_t C = m->cfg.C;
    if (tokens < rows) tokens = rows;
    if (tokens < max_prompt) tokens = max_prompt;
    if (!g->h_tokens) {
        g->h_tokens = (int *)xmalloc(tokens * sizeof(int));
        g->h_start = (int *)xmalloc((tokens + 1) * sizeof(int));
        g->h_pos = (int *)xmalloc(tokens * sizeof(int));
        g->h_index = (int *)xmalloc(rows * sizeof(int));
        g->h_slot = (int *)xmalloc(rows * sizeof(int));
        g->h_len = (int *)xmalloc(rows * sizeof(int));
        g->h_pslot = (int *)xmalloc(rows * sizeof(int));
        g->h_plen = (int *)xmalloc(rows * sizeof(int));
        g->live = (int *)xmalloc(2 * rows * sizeof(int));
        g->h_uniform = (double *)xmalloc(rows * sizeof(double)); g->h_logp = (real *)xmalloc(rows * sizeof(real));
    }
    g->m = m; g->rows = rows; g->slots = slots; g->tokens = tokens; g->max_prompt = max_prompt; g->max_new = max_new;
    batch_carve(&g->batch, a, tokens, rows);
    acts_carve(&g->acts, m, a, tokens, m->cfg.L);
    kv_carve(&g->prompts, m, a, slots, max_prompt, rows, false);
    kv_carve(&g->own, m, a, rows, max_new, rows, true);
    g->own.prefix = &g->prompts;
    g->hidden = arena_take(a, checked_product("head", rows, C), m->o->type, "head");
    g->index = arena_take(a, rows, DT_I32, "batch"); g->token = arena_take(a, rows, DT_I32, "batch");
    g->logp = arena_take(a, rows, DT_REAL, "head"); g->uniform = arena_take(a, rows, DT_F64, "batch");
}

void generator_free(Generator *g)
{
    acts_free(&g->acts); kv_free(&g->prompts); kv_free(&g->own);
    free(g->h_tokens);
    free(g->h_start);
    free(g->h_pos);
    free(g->h_index);
    free(g->h_slot);
    free(g->h_len);
    free(g->h_pslot);
    free(g->h_plen);
    free(g->live); free(g->h_uniform); free(g->h_logp);
    *g = (Generator){0};
}

// The prompts of r[0..n) through the model, each distinct run once; leaves the hidden state of each response's prompt's
// last token in g->hidden and the prompt's slot in slot_of.
static void prefill(Generator *g, const Prompt *prompts, const Response *r, size_t n, int *slot_of)
{
    const Ops *o = g->m->o;
    size_t C = g->m->cfg.C, slots = 0;
    for (size_t i = 0; i < n;) {
        size_t B = 0, N = 0, first = i;
        while (i < n) {
            const Prompt *p = &prompts[r[i].prompt];
            if (N + p->n > g->tokens) break;
            g->h_start[B] = (int)N;
            memcpy(g->h_tokens + N, p->ids, p->n * sizeof(int));
            N += p->n;
            g->h_slot[B] = (int)slots;
            for (size_t same = r[i].prompt; i < n && r[i].prompt == same; i++) {
                slot_of[i] = (int)slots;
                g->h_index[i - first] = (int)N - 1;
            }
            B++; slots++;
        }
        g->h_start[B] = (int)N;
        batch_set(&g->batch, g->m, g->h_tokens, g->h_start, NULL, B);
        o->upload(slice(g->prompts.slot, 0, B), g->h_slot);
        Buf final = model_forward(g->m, &g->m->packed, &g->acts, &g->batch, 0, g->m->cfg.L, &g->prompts);
        o->upload(slice(g->index, 0, i - first), g->h_index);
        o->gather_rows(slice(g->hidden, first * C, (i - first) * C), final, g->index, i - first, C);
    }
}

// Stands for all that a decoding step of R rows is made of: the memory's layout follows from where it begins and from
// these sizes.
static uint64_t step_key(const Generator *g, const Sampling *s, size_t R)
{
    uint64_t x[] = {(uintptr_t)g->m->data.p,
                    (uintptr_t)g->batch.tokens.p,
                    g->rows,
                    g->tokens,
                    g->max_prompt,
                    g->max_new,
                    R,
                    (uint64_t)s->top_k,
                    0,
                    0},
             h = 0;
    memcpy(&x[8], &s->temperature, sizeof x[8]); memcpy(&x[9], &s->top_p, sizeof x[9]);
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) h = hash_more(h, x[i]);
    return h;
}

void generate(Generator *g, const Sampling *s, const Prompt *prompts, Response *all, size_t total)
{
    Model *m = g->m;
    const Ops *o = m->o;
    size_t C = m->cfg.C, V = m->cfg.V;
    Buf head = head_weight(&m->packed);
    int *slot_of = g->live + g->rows;
    for (size_t done = 0; done < total;) {
        Response *r = all + done;
        size_t n = total - done < g->rows ? total - done : g->rows, slots = 0;
        for (size_t i = 0; i < n; i++) // as many as there are prompts' slots for
            if ((!i || r[i].prompt != r[i - 1].prompt) && slots++ == g->slots) n = i;
        size_t live = n;
        for (size_t i = 0; i < n; i++) {
            const Prompt *p = &prompts[r[i].prompt];
            if (p->n < 1 || p->n > g->max_prompt || p->n + g->max_new - 1 > m->cfg.max_T)
                die("%s: the prompt has %zu tokens; with %zu new ones the model's context of %zu is full: shorten it "
                    "or lower --max-new",
                    p->where ? p->where : "sampling", p->n, g->max_new, m->cfg.max_T);
            r[i].ids = (int *)xmalloc(g->max_new * sizeof(int));
            r[i].logp = (float *)xmalloc(g->max_new * sizeof(float));
            r[i].n = 0; r[i].finished = false; r[i].prefix = NULL;
            g->live[i] = (int)i;
        }
        prefill(g, prompts, r, n, slot_of);
        for (size_t t = 0; live; t++) {
            // rows to run: the live ones, rounded up with finished ones so that few distinct shapes occur (recordings
            // on the GPU are prepared by shape)
            size_t R = t == 0 ? n : (live + 15) / 16 * 16;
            if (R > n) R = n;
            if (t > 0) {
                for (size_t i = 0; i < R; i++) {
                    int k = i < live ? g->live[i] : g->live[live - 1];
                    const Response *y = &r[k];
                    g->h_tokens[i] = y->ids[y->n - 1];
                    g->h_start[i] = (int)i;
                    g->h_plen[i] = (int)prompts[y->prompt].n; g->h_pslot[i] = slot_of[k];
                    g->h_slot[i] = k; g->h_len[i] = (int)y->n - 1;
                    g->h_pos[i] = g->h_plen[i] + g->h_len[i];
                }
                // the rounding rows repeat the last live row's token, each in the slot of a finished row, where it sees
                // nothing but its prompt
                for (size_t i = live, spare = 0; i < R; i++, spare++) {
                    while (spare < n && !r[spare].finished) spare++;
                    g->h_slot[i] = (int)spare; g->h_len[i] = 0; g->h_pos[i] = g->h_plen[i];
                }
                g->h_start[R] = (int)R;
                batch_set(&g->batch, m, g->h_tokens, g->h_start, g->h_pos, R);
                o->upload(slice(g->own.slot, 0, R), g->h_slot); o->upload(slice(g->own.len, 0, R), g->h_len);
                o->upload(slice(g->own.pslot, 0, R), g->h_pslot); o->upload(slice(g->own.plen, 0, R), g->h_plen);
            }
            for (size_t i = 0; i < R; i++) {
                const Response *y = &r[i < live ? g->live[i] : 0];
                g->h_uniform[i] = random_uniform(s->seed, s->stream, y->prompt, y->sample, t);
            }
            o->upload(slice(g->uniform, 0, R), g->h_uniform);
            if (t == 0)
                o->sample(g->token, g->logp, g->hidden, head, g->uniform, s->temperature, s->top_k, s->top_p, R, C, V);
            else if (o->region_begin(step_key(g, s, R))) {
                Buf hidden = model_forward(m, &m->packed, &g->acts, &g->batch, 0, m->cfg.L, &g->own);
                o->sample(g->token, g->logp, hidden, head, g->uniform, s->temperature, s->top_k, s->top_p, R, C, V);
                o->region_end();
            }
            o->download(g->h_index, slice(g->token, 0, R));
            o->download(g->h_logp, slice(g->logp, 0, R));
            size_t still = 0;
            for (size_t i = 0; i < live; i++) {
                Response *y = &r[g->live[i]];
                if (!isfinite((double)g->h_logp[i]))
                    die("%s: after %zu tokens of a response the next one's log-probability is not finite: the model's "
                        "weights are too large (has training diverged?), or --temperature is too low",
                        prompts[y->prompt].where ? prompts[y->prompt].where : "sampling", y->n);
                ids_check(m, &g->h_index[i], 1);
                y->ids[y->n] = g->h_index[i];
                y->logp[y->n++] = (float)g->h_logp[i];
                y->finished = g->h_index[i] == s->eos;
                if (!y->finished && y->n < g->max_new) g->live[still++] = g->live[i];
            }
            live = still;
        }
        for (size_t i = 0; i < n; i++) r[i].key = order_key(r[i].ids, r[i].n);
        done += n;
    }
}
#endif
