// pass.h: sequences of tokens through a model, and a gradient back.
//
// All that trains, and all that scores given tokens, is one pass: pack sequences side by side, run the blocks, gather
// the final hidden states at the positions that matter, look at them through a head. Training then puts a gradient on
// the gathered states, scatters it to where they came from and runs the blocks backwards. What stands between
// pass_forward and pass_backward is the loss: it reads `hidden` and writes `dhidden`.
//
// A language model predicts: its state at token t-1 is gathered for token t, and a sequence's last token is never read.
// A model with a scalar head judges what it has read: its state at token t is gathered for token t.
#pragma once
#include "generate.h"
#ifdef __cplusplus
extern "C" {
#endif

// Tokens in two parts, either of which may be empty: a prompt and a response, or a text. It owns neither.
typedef struct {
    const int *head, *tail;  // (n_head), (n_tail)
    size_t n_head, n_tail;
    size_t from;             // the first token whose state is gathered; of a language model at least 1
    Buf trunk;               // (tokens read, C): what the frozen blocks make of it, or none
} Sequence;
// gathered at the response; from 0, the prompt empty: at all that can be predicted
Sequence sequence_of(const Prompt *p, const Response *r);
size_t sequence_tokens(const Model *m, const Sequence *q);        // how many m reads
size_t sequence_states(const Sequence *q);                        // how many states are gathered

typedef struct {
    Model *m; Acts acts; Batch batch; Arena own;
    size_t tokens, R;                 // room for so many tokens; states gathered by the last forward pass
    Buf index, target;                // (R) where each state stands in the batch; the token it is gathered for
    Buf hidden, dhidden;              // (R,C)
    Buf logp, dlogp, entropy;         // (R) a language model's
    Buf score, dscore;                // (R) a scalar head's
    int *h_tokens, *h_start, *h_index, *h_target; real *h_real; // (tokens) each on the host, h_start one more
} Pass;
// Room for `tokens` tokens at a time in an arena shared with others (call again whenever it is laid out anew), or in
// one of its own. backward: with what pass_backward needs. pass_free frees either.
void pass_carve(Pass *p, Model *m, Arena *a, size_t tokens, bool backward);
void pass_create(Pass *p, Model *m, size_t tokens, bool backward);
void pass_free(Pass *p);
// How many of the n next sequences one pass takes, a multiple of `unit` (a pair stays together). Dies when the first
// `unit` do not fit.
size_t pass_fit(const Pass *p, const Sequence *q, size_t n, size_t unit);
void pass_pack(Pass *p, const Sequence *q, size_t n);             // the tokens alone into p->batch
// Packs q[0..n), runs the blocks with these parameters (any view of m's) and gathers p->hidden and p->target.
void pass_forward(Pass *p, const Params *params, const Sequence *q, size_t n);
// From p->dhidden down to the lowest block that trains; parameters' gradients accumulate in m->g.
void pass_backward(Pass *p);
// log-probabilities (and entropies, if not NULL) of every token that is predicted, sequence after sequence, in as many
// passes as it takes.
void sequence_logps(Pass *p, const Params *params, const Sequence *q, size_t n, double temperature, double *logp,
                    double *entropy);
void download_doubles(const Ops *o, double *out, Buf b, size_t n, real *host);
#ifdef __cplusplus
}
#endif

#ifdef VBON_IMPLEMENTATION

Sequence sequence_of(const Prompt *p, const Response *r)
{
    return (Sequence){.head = p->ids, .tail = r->ids, .n_head = p->n, .n_tail = r->n, .from = p->n ? p->n : 1};
}

size_t sequence_tokens(const Model *m, const Sequence *q) { return q->n_head + q->n_tail - !m->cfg.scalar_head; }
size_t sequence_states(const Sequence *q) { return q->n_head + q->n_tail - q->from; }
static int token_at(const Sequence *q, size_t t) { return t < q->n_head ? q->head[t] : q->tail[t - q->n_head]; }

void pass_carve(Pass *p, Model *m, Arena *a, size_t tokens, bool backward)
{
    size_t C = m->cfg.C;
    p->m = m; p->tokens = tokens;
    if (!p->h_tokens) {
        int **ints[] = {&p->h_tokens, &p->h_start, &p->h_index, &p->h_target};
        for (int i = 0; i < 4; i++) *ints[i] = (int *)xmalloc((tokens + 1) * sizeof(int));
        p->h_real = (real *)xmalloc(tokens * sizeof(real));
    }
    batch_carve(&p->batch, a, tokens, tokens);
    acts_carve(&p->acts, m, a, tokens, backward ? m->first_block : m->cfg.L);
    #define STATES() arena_take(a, checked_product("head", tokens, C), m->o->type, "head")
    #define NUMBERS() arena_take(a, tokens, DT_REAL, "head")
    p->index = arena_take(a, tokens, DT_I32, "batch");
    p->target = arena_take(a, tokens, DT_I32, "batch");
    p->hidden = STATES();
    if (backward) p->dhidden = STATES();
    if (m->cfg.scalar_head) { p->score = NUMBERS(); if (backward) p->dscore = NUMBERS(); }
    else { p->logp = NUMBERS(); p->entropy = NUMBERS(); if (backward) p->dlogp = NUMBERS(); }
    #undef STATES
    #undef NUMBERS
}

void pass_create(Pass *p, Model *m, size_t tokens, bool backward)
{
    *p = (Pass){.own = {.name = "activations", .o = m->o}};
    for (int placed = 0; placed < 2; placed++) {
        if (placed) arena_place(&p->own);
        pass_carve(p, m, &p->own, tokens, backward);
    }
}

void pass_free(Pass *p)
{
    acts_free(&p->acts);
    if (p->own.o) arena_release(&p->own);
    free(p->h_tokens); free(p->h_start); free(p->h_index); free(p->h_target); free(p->h_real);
    *p = (Pass){0};
}

size_t pass_fit(const Pass *p, const Sequence *q, size_t n, size_t unit)
{
    size_t fit = 0, N = 0, more = 0;
    while (fit < n) {
        more = 0;
        for (size_t i = fit; i < fit + unit; i++) more += sequence_tokens(p->m, &q[i]);
        if (N + more > p->tokens) break;
        N += more;
        fit += unit;
    }
    if (!fit)
        die("%s of %zu tokens does not fit --micro-tokens %zu: raise it", unit > 1 ? "a pair" : "a sequence", more,
            p->tokens);
    return fit;
}

void pass_pack(Pass *p, const Sequence *q, size_t n)
{
    size_t N = 0;
    for (size_t i = 0; i < n; i++) {
        p->h_start[i] = (int)N;
        for (size_t t = 0; t < sequence_tokens(p->m, &q[i]); t++) p->h_tokens[N++] = token_at(&q[i], t);
    }
    p->h_start[n] = (int)N;
    batch_set(&p->batch, p->m, p->h_tokens, p->h_start, NULL, n);
}

void pass_forward(Pass *p, const Params *params, const Sequence *q, size_t n)
{
    const Model *m = p->m;
    const Ops *o = m->o;
    size_t C = m->cfg.C, R = 0, first = q[0].trunk.p ? m->first_block : 0, before = m->cfg.scalar_head ? 0 : 1;
    pass_pack(p, q, n);
    for (size_t i = 0; i < n; i++) {
        size_t at = (size_t)p->h_start[i];
        for (size_t t = q[i].from; t < q[i].n_head + q[i].n_tail; t++) {
            p->h_index[R] = (int)(at + t - before);
            p->h_target[R++] = token_at(&q[i], t);
        }
        size_t read = sequence_tokens(m, &q[i]) * C;
        if (first) o->copy(slice(p->acts.x, at * C, read), q[i].trunk);
    }
    p->R = R;
    ids_check(m, p->h_target, R); // a last token that is never read is looked at here alone
    o->upload(slice(p->index, 0, R), p->h_index);
    o->upload(slice(p->target, 0, R), p->h_target);
    Buf final = model_forward(m, params, &p->acts, &p->batch, first, m->cfg.L, NULL);
    o->gather_rows(p->hidden, final, p->index, R, C);
}

void pass_backward(Pass *p)
{
    const Ops *o = p->m->o;
    size_t C = p->m->cfg.C;
    o->fill(slice(p->acts.dhidden, 0, p->batch.N * C), 0);
    o->scatter_rows(p->acts.dhidden, p->dhidden, p->index, p->R, C);
    model_backward(p->m, &p->acts, &p->batch);
}

void download_doubles(const Ops *o, double *out, Buf b, size_t n, real *host)
{
    o->download(host, slice(b, 0, n));
    for (size_t i = 0; i < n; i++) out[i] = (double)host[i];
}

void sequence_logps(Pass *p, const Params *params, const Sequence *q, size_t n, double temperature, double *logp,
                    double *entropy)
{
    const Config *c = &p->m->cfg;
    const Ops *o = p->m->o;
    for (size_t i = 0, fit; i < n; i += fit) {
        fit = pass_fit(p, q + i, n - i, 1);
        pass_forward(p, params, q + i, fit);
        o->logprob_forward(p->logp, entropy ? p->entropy : (Buf){0}, (Buf){0}, p->hidden, head_weight(params),
                           p->target, temperature, p->R, c->C, c->V);
        download_doubles(o, logp, p->logp, p->R, p->h_real);
        if (entropy) { download_doubles(o, entropy, p->entropy, p->R, p->h_real); entropy += p->R; }
        logp += p->R;
    }
}
#endif
