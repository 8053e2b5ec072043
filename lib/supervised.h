// supervised.h: training on given text: language models (`vbon sft`) and reward models (`vbon reward`).
//
// Both are one loop: draw a batch of rows from a seeded permutation, pack them, run the model, put a gradient on some positions, update.
// They differ in what stands at a position: the log-probability of the next token, or a score and a label. A document longer than the
// context becomes several rows; each row but a document's first begins with the last token of the one before, so that every token
// except a document's first is predicted exactly once. A row never looks into its neighbours: rows are packed, not concatenated.
//
// Held-out numbers: nats a token, perplexity, and bits a byte (the bytes of the predicted tokens; the end-of-text token costs nats and
// counts no bytes). Reward models: accuracy by the sign of the score at the end of 48-token snippets (first, random, last) and of
// whole texts (mean of the scores at the ends of their windows); of preference pairs, how often the chosen one scores higher.
//
// Left out on purpose: sequence packing across documents, label smoothing, learning-rate search.
#ifndef SUPERVISED_H
#define SUPERVISED_H

typedef enum { LOSS_LM, LOSS_LABEL, LOSS_PAIR } LossKind;
// Tokens [at, at+len) of the corpus. LM: positions from..len-1 are predicted. Reward: scored from position `from` on (LOSS_PAIR: at the last).
typedef struct { size_t at; int len, from; float label; } Row;
// All texts, tokenised. Documents are runs of rows; LOSS_PAIR: rows 2i and 2i+1 are chosen and rejected.
typedef struct { LossKind kind; int *tokens; Row *rows; size_t n_tokens, n_rows, n_docs, n_short; size_t *doc_first;
    /* (n_docs+1) into rows */ } Corpus;
// Reads JSONL: {"text"} or {"prompt","response"} for LOSS_LM; {"text","label"}; {"prompt","chosen","rejected"}. context: tokens a row at
// most. Dies with file and line. An end-of-text token closes every LM document but one that is said not to be "finished", and a pair's texts when the tokenizer has one.
// own: the model's own context, which no flag raises.
void corpus_read(Corpus *c, LossKind kind, const char *path, const Tokenizer *tok, size_t context, size_t own,
    size_t from, size_t max_docs);
void corpus_free(Corpus *c);

// The order in which training sees its items: shuffled passes, one after the other without a break, `batch` items a
// step. By epochs, the last step has what is
// left of them (or, drop_last, is not made); given steps are all whole. What a step has depends on its number alone, so
// that a resumed run goes on.
typedef struct { size_t items, batch, total, *order, epoch; uint64_t seed; long steps; } Passes;
// steps 0: by epochs
void passes_create(Passes *p, size_t items, size_t batch, double epochs, long steps, bool drop_last, uint64_t seed);
// fills which with the items of this step and returns how many, at most p->batch
size_t passes_step(Passes *p, long step, size_t *which);
void passes_report(const Passes *p, const char *what);    // a line where a run leaves items out
void passes_free(Passes *p);

// Room for one model's supervised steps over micro-batches of at most `tokens` tokens.
typedef struct {
    Model *m; Acts acts; Arena work; Batch batch;
    Buf index, target, hidden, dhidden, logp, dlogp; // (tokens) and (tokens,C)
    size_t tokens; int *h_tokens, *h_start, *h_index, *h_target; real *h_value, *h_grad;
} Trainer;
void trainer_carve(Trainer *t, Model *m, size_t tokens, bool backward); // lays out t->work; part of trainer_create
void trainer_create(Trainer *t, Model *m, size_t tokens, bool backward);
void trainer_free(Trainer *t);
// Loss summed over the batch's positions (LM: -log p; label: binary cross-entropy; pair: -log sigmoid of the difference), with gradients of
// loss/total accumulated when `backward`. score, if not NULL, receives each row's score at its last token.
double supervised_batch(Trainer *t, const Corpus *c, const size_t *rows, size_t n, double total, bool backward, double *score);
size_t supervised_positions(const Corpus *c, const size_t *rows, size_t n);
size_t rows_longest(const Corpus *c); // tokens of the longest row
#endif

#if defined(VBON_IMPLEMENTATION) && !defined(SUPERVISED_IMPLEMENTED)
#define SUPERVISED_IMPLEMENTED

// ----------------------------------------------------------------------------
// corpora

static void corpus_tokens(Corpus *c, const int *ids, size_t n)
{
    if (!n) return;
    int *to = arraddnptr(c->tokens, n);
    if (n) memcpy(to, ids, n * sizeof *ids); // before the first token there is no array
    c->n_tokens += n;
}

// One document of tokens [at, end): rows of at most `context` predicted tokens after the first
static void corpus_rows(Corpus *c, size_t at, size_t end, size_t context, size_t from, float label)
{
    size_t step = c->kind == LOSS_LM ? context - 1 : context, doc_start = at;
    do {
        size_t len = end - at < context ? end - at : context;
        int first = c->kind == LOSS_LM ? 1 : (int)from;
        if (c->kind == LOSS_LM && from > at - doc_start + 1) { // a prompt: predicted only from the response on
            size_t skip = from - (at - doc_start);
            first = (int)(skip < len ? skip : len);
        }
        if (c->kind == LOSS_LABEL && (size_t)first >= len) first = (int)len - 1;
        if (c->kind != LOSS_LM || (size_t)first < len) arrput(c->rows, ((Row){at, (int)len, first, label}));
        at += step;
    } while (at + (c->kind == LOSS_LM) < end && c->kind != LOSS_PAIR);
}

void corpus_read(Corpus *c, LossKind kind, const char *path, const Tokenizer *tok, size_t context, size_t own,
    size_t from, size_t max_docs)
{
    *c = (Corpus){.kind = kind};
    Jsonl in = {0};
    json_t *j;
    int eos = tokenizer_eos(tok);
    jsonl_open(&in, path);
    while ((!max_docs || c->n_docs < max_docs * (kind == LOSS_PAIR ? 2 : 1)) && jsonl_next(&in, &j)) {
        for (int side = 0; side < (jsonl_header(j) ? 0 : kind == LOSS_PAIR ? 2 : 1); side++) {
            const char *text = NULL, *prompt = NULL;
            if (kind == LOSS_PAIR) { prompt = jsonl_string(&in, j, "prompt", true); text = jsonl_string(&in, j, side ? "rejected" : "chosen", true); }
            else if (kind == LOSS_LM) jsonl_text(&in, j, &prompt, &text);
            else text = jsonl_string(&in, j, "text", true);
            json_t *label = json_object_get(j, "label");
            if (kind == LOSS_LABEL && !(json_is_integer(label) && (json_integer_value(label) == 0 || json_integer_value(label) == 1)))
                die("%s:%zu: \"label\" must be 0 or 1", path, in.line);
            size_t n = 0, np = 0, at = c->n_tokens;
            if (prompt) {
                int *ids = tokenizer_encode(tok, prompt, strlen(prompt), &np);
                corpus_tokens(c, ids, np);
                free(ids);
            }
            int *ids = tokenizer_encode(tok, text, strlen(text), &n);
            corpus_tokens(c, ids, n);
            free(ids);
            bool cut = json_is_false(json_object_get(j, "finished")); // a response that was cut at the limit has no end
            if (kind != LOSS_LABEL && eos >= 0 && !cut) corpus_tokens(c, &eos, 1);
            size_t end = c->n_tokens;
            if (end - at < (kind == LOSS_LM ? 2 : 1)) { // nothing to learn from
                if (kind == LOSS_PAIR) die("%s:%zu: an empty text", path, in.line);
                c->n_tokens = at;
                c->n_short++;
                arrsetlen(c->tokens, at);
                continue;
            }
            if (kind == LOSS_PAIR && end - at > context)
                die("%s:%zu: %zu tokens; %s %zu: shorten the text%s", path, in.line, end - at, context == own
                ? "the model's own context is" : "--context is", context, context == own ? ""
                : " or raise --context");
            arrput(c->doc_first, arrlenu(c->rows));
            corpus_rows(c, at, end, context, kind == LOSS_LM ? np : from, label ? (float)json_integer_value(label) : 0);
            c->n_docs++;
        }
        json_decref(j);
    }
    jsonl_close(&in);
    arrput(c->doc_first, arrlenu(c->rows));
    c->n_rows = arrlenu(c->rows);
    if (!c->n_rows) die("%s: no text to train on: each needs two tokens at least (with a label, one)", path);
}

size_t rows_longest(const Corpus *c)
{
    size_t longest = 0;
    for (size_t i = 0; i < c->n_rows; i++) if ((size_t)c->rows[i].len > longest) longest = (size_t)c->rows[i].len;
    return longest;
}

void corpus_free(Corpus *c) { arrfree(c->tokens); arrfree(c->rows); arrfree(c->doc_first); }

// ----------------------------------------------------------------------------
// batches

void trainer_carve(Trainer *t, Model *m, size_t tokens, bool backward)
{
    size_t C = m->cfg.C;
    batch_carve(&t->batch, &t->work, tokens, tokens);
    acts_carve(&t->acts, m, &t->work, tokens, backward ? m->first_block : m->cfg.L);
    t->index = arena_take(&t->work, tokens, DT_I32, "batch");
    t->target = arena_take(&t->work, tokens, DT_I32, "batch");
    t->logp = arena_take(&t->work, tokens, DT_REAL, "head");
    t->dlogp = arena_take(&t->work, tokens, DT_REAL, "head");
    size_t hidden = checked_product("head", tokens, C);
    t->hidden = arena_take(&t->work, hidden, m->o->type, "head");
    t->dhidden = arena_take(&t->work, hidden, m->o->type, "head");
}

void trainer_create(Trainer *t, Model *m, size_t tokens, bool backward)
{
    *t = (Trainer){.m = m, .tokens = tokens, .work = {.name = "activations", .o = m->o}};
    trainer_carve(t, m, tokens, backward);
    arena_place(&t->work);
    trainer_carve(t, m, tokens, backward);
    t->h_tokens = xmalloc(tokens * sizeof(int)); t->h_start = xmalloc((tokens + 1) * sizeof(int));
    t->h_index = xmalloc(tokens * sizeof(int)); t->h_target = xmalloc(tokens * sizeof(int));
    t->h_value = xmalloc(tokens * sizeof(real)); t->h_grad = xmalloc(tokens * sizeof(real));
}

void trainer_free(Trainer *t)
{
    arena_release(&t->work); acts_free(&t->acts);
    free(t->h_tokens); free(t->h_start); free(t->h_index); free(t->h_target); free(t->h_value); free(t->h_grad);
}

void passes_create(Passes *p, size_t items, size_t batch, double epochs, long steps, bool drop_last, uint64_t seed)
{
    *p = (Passes){.items = items, .batch = batch < items ? batch : items, .epoch = SIZE_MAX, .seed = seed,
        .steps = steps};
    // a tenth of 30 is 3, however it rounds
    double total = steps > 0 ? (double)steps * (double)p->batch : ceil(epochs * (double)items * (1 - 1e-12));
    if (!(total <= 1e9 * (double)p->batch))
        usage("%s %g: %.3g optimiser steps of %zu: at most 1e9; lower it", steps > 0 ? "--steps" : "--epochs",
        steps > 0 ? (double)steps : epochs, total / (double)p->batch, p->batch);
    p->total = total > 1 ? (size_t)total : 1;
    if (steps <= 0) p->steps = (long)((p->total + (drop_last ? 0 : p->batch - 1)) / p->batch);
    if (!p->steps) usage("--drop-last: of %zu items no batch of %zu is whole: lower --batch", p->total, p->batch);
    if (p->total > (size_t)p->steps * p->batch) p->total = (size_t)p->steps * p->batch;
    p->order = (size_t *)xmalloc(items * sizeof *p->order);
}

size_t passes_step(Passes *p, long step, size_t *which)
{
    size_t at = (size_t)step * p->batch, n = p->total - at < p->batch ? p->total - at : p->batch;
    for (size_t i = 0; i < n; i++, at++) {
        if (at / p->items != p->epoch) random_permutation(p->order, p->items, p->seed, STREAM_SHUFFLE,
            p->epoch = at / p->items);
        which[i] = p->order[at % p->items];
    }
    return n;
}

void passes_report(const Passes *p, const char *what)
{
    if (p->total < p->items) printf("%zu of %zu %s are seen in %ld steps\n", p->total, p->items, what, p->steps);
}

void passes_free(Passes *p) { free(p->order); }

static size_t row_positions(const Corpus *c, const Row *r) { return c->kind == LOSS_PAIR ? 1 : (size_t)(r->len - r->from); }

size_t supervised_positions(const Corpus *c, const size_t *rows, size_t n)
{
    size_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += row_positions(c, &c->rows[rows[i]]);
    return c->kind == LOSS_PAIR ? sum / 2 : sum;
}

static const char *loss_cause(const Model *m) { return m->step ? "lower --lr"
    : "the model's weights are too large to compute with (did they come from a run that diverged?)"; }
static double softplus(double x) { return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)); }

// One micro-batch: n rows that fit. Positions' hidden states are gathered, the loss and its gradient taken there, and scattered back.
static double micro_batch(Trainer *t, const Corpus *c, const size_t *rows, size_t n, double total, bool backward, double *score)
{
    Model *m = t->m;
    const Ops *o = m->o;
    size_t C = m->cfg.C, N = 0, R = 0;
    double loss = 0;
    for (size_t i = 0; i < n; i++) {
        const Row *r = &c->rows[rows[i]];
        t->h_start[i] = (int)N;
        memcpy(t->h_tokens + N, c->tokens + r->at, (size_t)r->len * sizeof(int));
        if (c->kind == LOSS_LM)
            for (int p = r->from; p < r->len; p++) { t->h_index[R] = (int)N + p - 1; t->h_target[R++] = c->tokens[r->at + (size_t)p]; }
        else
            for (int p = c->kind == LOSS_PAIR ? r->len - 1 : r->from; p < r->len; p++) { t->h_index[R] = (int)N + p; t->h_target[R++] = (int)i; }
        N += (size_t)r->len;
    }
    t->h_start[n] = (int)N;
    batch_set(&t->batch, m, t->h_tokens, t->h_start, NULL, n);
    Buf hidden = slice(t->hidden, 0, R * C), dhidden = slice(t->dhidden, 0, R * C), index = slice(t->index, 0, R), target = slice(t->target, 0, R);
    Buf logp = slice(t->logp, 0, R), dlogp = slice(t->dlogp, 0, R);
    o->upload(index, t->h_index);
    o->upload(target, t->h_target);
    Buf final = model_forward(m, &m->p, &t->acts, &t->batch, 0, m->cfg.L, NULL);
    o->gather_rows(hidden, final, index, R, C);
    if (c->kind == LOSS_LM) {
        Buf w = head_weight(&m->p), dw = head_weight(&m->g);
        if (backward) {
            o->fill(dlogp, -1 / total);
            o->logprob_backward(dhidden, dw, logp, dlogp, (Buf){0}, hidden, w, target, 1, R, C, m->cfg.V);
        } else o->logprob_forward(logp, (Buf){0}, (Buf){0}, hidden, w, target, 1, R, C, m->cfg.V);
        o->download(t->h_value, logp);
        for (size_t i = 0; i < R; i++) loss -= t->h_value[i];
    } else {
        o->matmul_forward(logp, hidden, m->p.score, m->p.scoreb, R, C, 1);
        o->download(t->h_value, logp);
        for (size_t i = 0; i < R; i++) {
            double s = t->h_value[i];
            size_t row = (size_t)t->h_target[i];
            if (c->kind == LOSS_LABEL) {
                double y = c->rows[rows[row]].label;
                loss += softplus(s) - y * s;
                t->h_grad[i] = (real)((1 / (1 + exp(-s)) - y) / total);
            } else if (row % 2) { // Bradley-Terry: -log sigmoid(chosen - rejected)
                double d = t->h_value[i - 1] - s, g = -1 / (1 + exp(d)) / total;
                loss += softplus(-d);
                t->h_grad[i - 1] = (real)g;
                t->h_grad[i] = (real)-g;
            }
            if (score) score[row] = s; // positions ascend: the last one stays
        }
        if (backward) {
            o->upload(dlogp, t->h_grad);
            o->matmul_backward(dhidden, m->g.score, m->g.scoreb, dlogp, hidden, m->p.score, R, C, 1);
        }
    }
    if (!isfinite(loss)) die("the loss is not finite at optimiser step %ld: %s", m->step + 1, loss_cause(m));
    if (backward) {
        o->fill(slice(t->acts.dhidden, 0, N * C), 0);
        o->scatter_rows(t->acts.dhidden, dhidden, index, R, C);
        model_backward(m, &t->acts, &t->batch);
    }
    return loss;
}

double supervised_batch(Trainer *t, const Corpus *c, const size_t *rows, size_t n, double total, bool backward, double *score)
{
    double loss = 0;
    size_t unit = c->kind == LOSS_PAIR ? 2 : 1; // a pair stays together
    for (size_t i = 0; i < n;) {
        size_t end = i, tokens = 0;
        while (end < n) {
            size_t more = 0;
            for (size_t u = 0; u < unit; u++) more += (size_t)c->rows[rows[end + u]].len;
            if (tokens + more > t->tokens) break;
            tokens += more;
            end += unit;
        }
        if (end == i) die("a row of %d tokens does not fit --micro-tokens %zu: raise it", c->rows[rows[i]].len, t->tokens);
        loss += micro_batch(t, c, rows + i, end - i, total, backward, score ? score + i : NULL);
        i = end;
    }
    return loss;
}

#endif
