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

// Loss summed over the batch's positions (LM: -log p; label: binary cross-entropy; pair: -log sigmoid of the difference), with gradients of
// loss/total accumulated when `backward`. score, if not NULL, receives each row's score at its last token.
double supervised_batch(Pass *p, const Corpus *c, const size_t *rows, size_t n, double total, bool backward, double *score);
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

// -log p of the gathered tokens, summed; with `backward` the gradient of this/total into p->dhidden and the head.
static double lm_loss(Pass *p, double total, bool backward)
{
    Model *m = p->m;
    const Ops *o = m->o;
    Buf w = head_weight(&m->p), dw = head_weight(&m->g);
    double loss = 0;
    if (backward) {
        o->fill(slice(p->dlogp, 0, p->R), -1 / total);
        o->logprob_backward(p->dhidden, dw, p->logp, p->dlogp, (Buf){0}, p->hidden, w, p->target, 1, p->R, m->cfg.C, m->cfg.V);
    } else o->logprob_forward(p->logp, (Buf){0}, (Buf){0}, p->hidden, w, p->target, 1, p->R, m->cfg.C, m->cfg.V);
    o->download(p->h_real, slice(p->logp, 0, p->R));
    for (size_t i = 0; i < p->R; i++) loss -= p->h_real[i];
    return loss;
}

// The same of a scalar head's scores against labels, or of a pair's two scores; score (n): each row's last one, or NULL.
static double score_loss(Pass *p, const Corpus *c, const size_t *rows, const Sequence *q, size_t n, double total, bool backward, double *score)
{
    Model *m = p->m;
    const Ops *o = m->o;
    real *x = p->h_real; // scores, and then their gradients
    double loss = 0;
    o->matmul_forward(p->score, p->hidden, m->p.score, m->p.scoreb, p->R, m->cfg.C, 1);
    o->download(x, slice(p->score, 0, p->R));
    for (size_t i = 0, at = 0; i < n; i++) {
        size_t states = sequence_states(&q[i]);
        if (score) score[i] = x[at + states - 1];
        if (c->kind == LOSS_PAIR && i % 2) { // Bradley-Terry: -log sigmoid(chosen - rejected)
            double d = x[at - 1] - (double)x[at], g = -1 / (1 + exp(d)) / total;
            loss += softplus(-d);
            x[at - 1] = (real)g;
            x[at] = (real)-g;
        }
        for (size_t k = at; k < at + states && c->kind == LOSS_LABEL; k++) {
            double y = c->rows[rows[i]].label, s = x[k];
            loss += softplus(s) - y * s;
            x[k] = (real)((1 / (1 + exp(-s)) - y) / total);
        }
        at += states;
    }
    if (backward) {
        o->upload(slice(p->dscore, 0, p->R), x);
        o->matmul_backward(p->dhidden, m->g.score, m->g.scoreb, p->dscore, p->hidden, m->p.score, p->R, m->cfg.C, 1);
    }
    return loss;
}

double supervised_batch(Pass *p, const Corpus *c, const size_t *rows, size_t n, double total, bool backward, double *score)
{
    Sequence *q = (Sequence *)xmalloc(n * sizeof *q);
    double loss = 0;
    for (size_t i = 0; i < n; i++) {
        const Row *r = &c->rows[rows[i]];
        size_t len = (size_t)r->len, from = c->kind == LOSS_PAIR ? len - 1 : (size_t)r->from;
        q[i] = (Sequence){.tail = c->tokens + r->at, .n_tail = len, .from = from};
    }
    for (size_t i = 0, fit; i < n; i += fit) {
        fit = pass_fit(p, q + i, n - i, c->kind == LOSS_PAIR ? 2 : 1);
        pass_forward(p, &p->m->p, q + i, fit);
        loss += c->kind == LOSS_LM ? lm_loss(p, total, backward)
            : score_loss(p, c, rows + i, q + i, fit, total, backward, score ? score + i : NULL);
        if (!isfinite(loss)) die("the loss is not finite at optimiser step %ld: %s", p->m->step + 1, loss_cause(p->m));
        if (backward) pass_backward(p);
    }
    free(q);
    return loss;
}

#endif
