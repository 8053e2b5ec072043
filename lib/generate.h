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
    Buf hidden, index;            // (rows,C) of prompts' last tokens; (rows) where they are
    Buf token, start;             // (rows) a step's, (rows+1) 0, 1, 2, ...
    Buf told, drawn;              // bytes: what a step is told by the host, and what it draws
    Buf pinned_told[2], pinned_drawn[2];
    size_t rows, slots, tokens, max_prompt, max_new; // tokens: of prompts at once
    int *h_tokens, *h_start, *h_slot, *h_index, *lists;
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

// A step of R rows, as the host has told it in one upload: R of each, side by side.
typedef struct {
    Buf uniform;                       // float64, what is drawn by
    Buf from, pos;                     // int32: the row of the step before that it goes on with; its position
    Buf slot, len, pslot, plen;        // int32: as in KVCache
} Step;
enum { TOLD = sizeof(double) + 6 * sizeof(int) }; // bytes of a row
static Step step_of(Buf told, size_t R)
{
    Step s;
    Buf *ints[] = {&s.from, &s.pos, &s.slot, &s.len, &s.pslot, &s.plen};
    s.uniform = (Buf){told.p, R, DT_F64, told.name};
    for (size_t i = 0; i < 6; i++)
        *ints[i] = (Buf){(char *)told.p + R * sizeof(double) + i * R * sizeof(int), R, DT_I32, told.name};
    return s;
}
// What it draws: (rows) int32 tokens, then (rows) real log-probabilities, which begin at this byte
static size_t drawn_logp(const Generator *g) { return (g->rows * sizeof(int) + 7) / 8 * 8; }

// Lists of `rows` responses: those that go on, ...
enum { LIVE, SLOT, ROW, FLIGHT, LISTS = FLIGHT + 2 };

void generator_carve(Generator *g, Model *m, Arena *a, size_t rows, size_t slots, size_t tokens, size_t max_prompt,
                     size_t max_new)
{
    size_t C = m->cfg.C;
    if (tokens < rows) tokens = rows;
    if (tokens < max_prompt) tokens = max_prompt;
    if (!g->h_tokens) {
        g->h_tokens = (int *)xmalloc(tokens * sizeof(int));
        g->h_start = (int *)xmalloc((tokens + 1) * sizeof(int));
        g->h_slot = (int *)xmalloc(rows * sizeof(int));
        g->h_index = (int *)xmalloc(rows * sizeof(int));
        g->lists = (int *)xmalloc(LISTS * rows * sizeof(int));
    }
    g->m = m; g->rows = rows; g->slots = slots; g->tokens = tokens; g->max_prompt = max_prompt; g->max_new = max_new;
    batch_carve(&g->batch, a, tokens, rows);
    acts_carve(&g->acts, m, a, tokens, m->cfg.L);
    kv_carve(&g->prompts, m, a, slots, max_prompt, rows, false);
    kv_carve(&g->own, m, a, rows, max_new, rows, true);
    g->own.prefix = &g->prompts;
    g->hidden = arena_take(a, checked_product("head", rows, C), m->o->type, "head");
    g->index = arena_take(a, rows, DT_I32, "batch"); g->token = arena_take(a, rows, DT_I32, "batch");
    g->start = arena_take(a, rows + 1, DT_I32, "batch");
    g->told = arena_take(a, rows * TOLD, DT_U8, "batch");
    g->drawn = arena_take(a, drawn_logp(g) + rows * sizeof(real), DT_U8, "batch");
}

// The host's side of both, in memory from which, and to which, a device copies while the host goes on
static void pinned_create(Generator *g)
{
    const Ops *o = g->m->o;
    if (g->pinned_told[0].p) return;
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 2; k++) {
            Buf *b = k ? &g->pinned_drawn[i] : &g->pinned_told[i], like = k ? g->drawn : g->told;
            *b = o->pin ? o->pin(like.n, "decoding") : (Buf){xmalloc(like.n), like.n, DT_U8, "decoding"};
        }
}

void generator_free(Generator *g)
{
    const Ops *o = g->m ? g->m->o : NULL;
    acts_free(&g->acts); kv_free(&g->prompts); kv_free(&g->own);
    for (int i = 0; i < 2 && g->pinned_told[0].p; i++)
        for (int k = 0; k < 2; k++) {
            Buf *b = k ? &g->pinned_drawn[i] : &g->pinned_told[i];
            if (o->unpin) o->unpin(b);
            else free(b->p);
        }
    free(g->h_tokens); free(g->h_start); free(g->h_slot); free(g->h_index); free(g->lists);
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

// Step t of the `live` responses r[list[..]]: tells it, launches it, and has what it draws come. rows: which row each
// of r had in the step before, and then has in this one.
static void step_begin(Generator *g, const Sampling *s, const Prompt *prompts, const Response *r, size_t n, size_t t,
                       const int *list, size_t live, const int *slot_of, int *rows)
{
    const Model *m = g->m;
    const Ops *o = m->o;
    const size_t C = m->cfg.C, V = m->cfg.V;
    // rows to run: the live ones, rounded up with finished ones so that few distinct shapes occur (recordings on the
    // GPU are prepared by shape)
    size_t R = t == 0 ? n : (live + 15) / 16 * 16;
    if (R > n) R = n;
    const int which = (int)(t % 2);
    const Step h = step_of(g->pinned_told[which], R), d = step_of(g->told, R);
    int *from = (int *)h.from.p, *pos = (int *)h.pos.p, *slot = (int *)h.slot.p, *len = (int *)h.len.p,
        *pslot = (int *)h.pslot.p, *plen = (int *)h.plen.p;
    for (size_t i = 0, spare = 0; i < R; i++) {
        const int k = list[i < live ? i : live - 1];
        const Response *y = &r[k];
        ((double *)h.uniform.p)[i] = random_uniform(s->seed, s->stream, y->prompt, y->sample, t);
        from[i] = rows[k];
        plen[i] = (int)prompts[y->prompt].n; pslot[i] = slot_of[k];
        slot[i] = k; len[i] = t ? (int)t - 1 : 0;
        // the rounding rows repeat the last live row's token, each in the slot of a finished row, where it sees nothing
        // but its prompt
        if (i >= live) {
            while (spare < n && !r[spare].finished) spare++;
            slot[i] = (int)spare++; len[i] = 0;
        }
        pos[i] = plen[i] + len[i];
    }
    for (size_t i = 0; i < live; i++) rows[list[i]] = (int)i;
    o->upload(slice(g->told, 0, R * TOLD), h.uniform.p);
    const Buf head = head_weight(&m->packed), token = {g->drawn.p, R, DT_I32, "drawn"},
              logp = {(char *)g->drawn.p + drawn_logp(g), R, DT_REAL, "drawn"};
    if (t == 0)
        o->sample(token, logp, g->hidden, head, d.uniform, s->temperature, s->top_k, s->top_p, R, C, V);
    else if (o->region_begin(step_key(g, s, R))) {
        Batch b = {.N = R, .B = R, .tokens = g->token, .pos = d.pos, .start = g->start};
        KVCache own = g->own;
        own.slot = d.slot; own.len = d.len; own.pslot = d.pslot; own.plen = d.plen;
        o->gather_ints(g->token, token, d.from, R);
        Buf hidden = model_forward(m, &m->packed, &g->acts, &b, 0, m->cfg.L, &own);
        o->sample(token, logp, hidden, head, d.uniform, s->temperature, s->top_k, s->top_p, R, C, V);
        o->region_end();
    }
    o->download_begin(g->pinned_drawn[which].p, slice(g->drawn, 0, drawn_logp(g) + R * sizeof(real)), which);
}

// What step t drew for the responses that were live then. One that had ended already was in it because the host learnt
// of it too late: what was drawn for it is nobody's.
static void step_end(Generator *g, const Sampling *s, const Prompt *prompts, Response *r, size_t t, const int *list,
                     size_t live)
{
    const int which = (int)(t % 2);
    g->m->o->download_end(which);
    const int *token = (const int *)g->pinned_drawn[which].p;
    const real *logp = (const real *)((const char *)token + drawn_logp(g));
    for (size_t i = 0; i < live; i++) {
        Response *y = &r[list[i]];
        if (y->finished) continue;
        if (!isfinite((double)logp[i]))
            die("%s: after %zu tokens of a response the next one's log-probability is not finite: the model's weights "
                "are too large (has training diverged?), or --temperature is too low",
                prompts[y->prompt].where ? prompts[y->prompt].where : "sampling", y->n);
        ids_check(g->m, &token[i], 1);
        y->ids[y->n] = token[i];
        y->logp[y->n++] = (float)logp[i];
        y->finished = token[i] == s->eos;
    }
}

void generate(Generator *g, const Sampling *s, const Prompt *prompts, Response *all, size_t total)
{
    Model *m = g->m;
    // A device is told its next step before the host has seen what it drew in this one: tokens go on from step to step
    // there, and a response that has ended is left out a step late.
    const size_t behind = m->o->pin ? 1 : 0;
    int *live = g->lists + LIVE * g->rows, *slot_of = g->lists + SLOT * g->rows, *rows = g->lists + ROW * g->rows;
    pinned_create(g);
    for (size_t i = 0; i <= g->rows; i++) g->h_start[i] = (int)i;
    m->o->upload(g->start, g->h_start);
    m->o->fill(g->drawn, 0); // a download takes more of it than few rows write
    for (size_t done = 0; done < total;) {
        Response *r = all + done;
        size_t n = total - done < g->rows ? total - done : g->rows, slots = 0, n_live, in_flight[2] = {0, 0};
        for (size_t i = 0; i < n; i++) // as many as there are prompts' slots for
            if ((!i || r[i].prompt != r[i - 1].prompt) && slots++ == g->slots) n = i;
        for (size_t i = 0; i < n; i++) {
            const Prompt *p = &prompts[r[i].prompt];
            if (p->n < 1 || p->n > g->max_prompt || p->n + g->max_new - 1 > m->cfg.max_T)
                die("%s: the prompt has %zu tokens; with %zu new ones the model's context of %zu is full: shorten it "
                    "or lower --max-new",
                    p->where ? p->where : "sampling", p->n, g->max_new, m->cfg.max_T);
            r[i].ids = (int *)xmalloc(g->max_new * sizeof(int));
            r[i].logp = (float *)xmalloc(g->max_new * sizeof(float));
            r[i].n = 0; r[i].finished = false; r[i].prefix = NULL;
            live[i] = rows[i] = (int)i;
        }
        n_live = n;
        prefill(g, prompts, r, n, slot_of);
        for (size_t t = 0;; t++) {
            int *list = g->lists + (FLIGHT + t % 2) * g->rows;
            in_flight[t % 2] = t < g->max_new ? n_live : 0;
            if (in_flight[t % 2]) {
                memcpy(list, live, n_live * sizeof *list);
                step_begin(g, s, prompts, r, n, t, list, n_live, slot_of, rows);
            }
            if (t < behind) continue;
            size_t past = t - behind, still = 0;
            if (!in_flight[past % 2]) break; // the last one was seen
            step_end(g, s, prompts, r, past, g->lists + (FLIGHT + past % 2) * g->rows, in_flight[past % 2]);
            in_flight[past % 2] = 0;
            for (size_t i = 0; i < n_live; i++) if (!r[live[i]].finished) live[still++] = live[i];
            n_live = still;
        }
        for (size_t i = 0; i < n; i++) r[i].key = order_key(r[i].ids, r[i].n);
        done += n;
    }
}
#endif
