// supervised.h: training on given text: language models (`vbon sft`) and reward models (`vbon reward`).
//
// Both are one loop: draw a batch of rows from a seeded permutation, pack them, run the model, put a gradient on some
// positions, update. They differ in what stands at a position: the log-probability of the next token, or a score and a
// label. A document longer than the context becomes several rows; each row but a document's first begins with the last
// token of the one before, so that every token except a document's first is predicted exactly once. A row never looks
// into its neighbours: rows are packed, not concatenated.
//
// Held-out numbers: nats a token, perplexity, and bits a byte (the bytes of the predicted tokens; the end-of-text token
// costs nats and counts no bytes). Reward models: accuracy by the sign of the score at the end of 48-token snippets
// (first, random, last) and of whole texts (mean of the scores at the ends of their windows); of preference pairs, how
// often the chosen one scores higher.
//
// Left out on purpose: sequence packing across documents, label smoothing, learning-rate search.
#pragma once

typedef enum { LOSS_LM, LOSS_LABEL, LOSS_PAIR } LossKind;
// Tokens [at, at+len) of the corpus. LM: positions from..len-1 are predicted. Reward: scored from position `from` on.
typedef struct { size_t at; int len, from; float label; } Row;
// All texts, tokenised. Documents are runs of rows; LOSS_PAIR: rows 2i and 2i+1 are chosen and rejected.
typedef struct {
    LossKind kind;
    int *tokens;                                // (n_tokens)
    Row *rows;                                  // (n_rows)
    size_t n_tokens, n_rows, n_docs, n_short;   // n_short: lines too short to learn from
    size_t *doc_first;                          // (n_docs+1) into rows
} Corpus;
// Reads JSONL: {"text"} or {"prompt","response"} for LOSS_LM; {"text","label"}; {"prompt","chosen","rejected"}.
// context: tokens a row at most. Dies with file and line. An end-of-text token closes every LM document but one that is
// said not to be "finished", and a pair's texts when the tokenizer has one. own: the model's own context, which no flag
// raises. from: the first position that is scored, of a pair counted from the response's first; beyond its last: that.
void corpus_read(Corpus *c, LossKind kind, const char *path, const Tokenizer *tok, size_t context, size_t own,
    size_t from, size_t max_docs);
void corpus_free(Corpus *c);

// Loss summed over the batch's positions (LM: -log p; label: binary cross-entropy) or pairs (the mean over the longer
// response's scored positions t of -log sigmoid(s_t - s'_t), Bradley-Terry; of the shorter response the last score
// stands for those that it lacks), with gradients of loss/total accumulated when `backward`. score, if not NULL,
// receives each row's score at its last token.
double supervised_batch(Pass *p, const Corpus *c, const size_t *rows, size_t n, double total, bool backward,
                        double *score);
size_t supervised_positions(const Corpus *c, const size_t *rows, size_t n);
size_t rows_longest(const Corpus *c); // tokens of the longest row

#ifdef VBON_IMPLEMENTATION

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
        if (c->kind != LOSS_LM && from >= len) first = (int)len - 1;
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
            if (kind == LOSS_PAIR) {
                prompt = jsonl_string(&in, j, "prompt", true);
                text = jsonl_string(&in, j, side ? "rejected" : "chosen", true);
            } else if (kind == LOSS_LM) jsonl_text(&in, j, &prompt, &text);
            else text = jsonl_string(&in, j, "text", true);
            json_t *label = json_object_get(j, "label");
            if (kind == LOSS_LABEL &&
                !(json_is_integer(label) && (json_integer_value(label) == 0 || json_integer_value(label) == 1)))
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
            size_t first = kind == LOSS_LM ? np : kind == LOSS_PAIR ? np + from : from;
            corpus_rows(c, at, end, context, first, label ? (float)json_integer_value(label) : 0);
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

static size_t row_positions(const Corpus *c, const Row *r)
{
    return c->kind == LOSS_PAIR ? 1 : (size_t)(r->len - r->from);
}

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
        o->logprob_backward(p->dhidden, dw, p->logp, p->dlogp, (Buf){0}, p->hidden, w, p->target, 1, p->R, m->cfg.C,
                            m->cfg.V);
    } else o->logprob_forward(p->logp, (Buf){0}, (Buf){0}, p->hidden, w, p->target, 1, p->R, m->cfg.C, m->cfg.V);
    o->download(p->h_real, slice(p->logp, 0, p->R));
    for (size_t i = 0; i < p->R; i++) loss -= p->h_real[i];
    return loss;
}

// Bradley-Terry at every scored position: x[0..n) of the chosen, y[0..m) of the rejected response. The loss; x and y
// become the gradients of loss/total.
static double pair_loss(real *x, size_t n, real *y, size_t m, double total)
{
    size_t steps = n > m ? n : m;
    double loss = 0, last_x = x[n - 1], last_y = y[m - 1], rest_x = 0, rest_y = 0; // rest: the last scores' gradients
    for (size_t t = 0; t < steps; t++) {
        double d = (t < n ? x[t] : last_x) - (t < m ? y[t] : last_y), g = -1 / (1 + exp(d)) / total / (double)steps;
        loss += softplus(-d);
        if (t < n - 1) x[t] = (real)g;
        else rest_x += g;
        if (t < m - 1) y[t] = (real)-g;
        else rest_y -= g;
    }
    x[n - 1] = (real)rest_x;
    y[m - 1] = (real)rest_y;
    return loss / (double)steps;
}

// The same of a scalar head's scores against labels, or of a pair's two scores; score (n): each row's last one, or
// NULL.
static double score_loss(Pass *p, const Corpus *c, const size_t *rows, const Sequence *q, size_t n, double total,
                         bool backward, double *score)
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
        if (c->kind == LOSS_PAIR && i % 2) {
            size_t before = sequence_states(&q[i - 1]);
            loss += pair_loss(x + at - before, before, x + at, states, total);
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

double supervised_batch(Pass *p, const Corpus *c, const size_t *rows, size_t n, double total, bool backward,
                        double *score)
{
    Sequence *q = (Sequence *)xmalloc(n * sizeof *q);
    double loss = 0;
    for (size_t i = 0; i < n; i++) {
        const Row *r = &c->rows[rows[i]];
        q[i] = (Sequence){.tail = c->tokens + r->at, .n_tail = (size_t)r->len, .from = (size_t)r->from};
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

// ----------------------------------------------------------------------------
// the commands

static void corpus_report(const char *what, const Corpus *c)
{
    printf("%s: %zu documents, %zu rows, %zu tokens\n", what, c->n_docs, c->n_rows, c->n_tokens);
    if (c->n_short) printf("%s: %zu lines are too short to learn from and left out\n", what, c->n_short);
}

static size_t lm_measure(Pass *p, const Corpus *c, const Tokenizer *tok, Metric *out)
{
    size_t *rows = (size_t *)xmalloc(c->n_rows * sizeof *rows), bytes = 0, n;
    for (size_t i = 0; i < c->n_rows; i++) rows[i] = i;
    for (size_t i = 0; i < c->n_rows; i++)
        for (int k = c->rows[i].from; k < c->rows[i].len; k++) {
            int id = c->tokens[c->rows[i].at + (size_t)k];
            if (id != tokenizer_eos(tok)) { size_t b; free(tokenizer_decode(tok, &id, 1, &b)); bytes += b; }
        }
    n = supervised_positions(c, rows, c->n_rows);
    double nats = supervised_batch(p, c, rows, c->n_rows, 1, false, NULL);
    free(rows);
    out[0] = (Metric){"held_out/nats_per_token", nats / (double)n};
    out[1] = (Metric){"held_out/perplexity", exp(nats / (double)n)};
    out[2] = (Metric){"held_out/bits_per_byte", nats / log(2) / (double)bytes};
    return 3;
}

// Accuracy of one way of cutting: rows of `c` are given in [first, last) of each document; the sign of their mean score
// is the answer
static double sign_accuracy(Pass *p, const Corpus *c)
{
    size_t *rows = (size_t *)xmalloc(c->n_rows * sizeof *rows), right = 0;
    double *score = (double *)xmalloc(c->n_rows * sizeof *score);
    for (size_t i = 0; i < c->n_rows; i++) rows[i] = i;
    supervised_batch(p, c, rows, c->n_rows, 1, false, score);
    for (size_t d = 0; d < c->n_docs; d++) {
        double sum = 0;
        for (size_t i = c->doc_first[d]; i < c->doc_first[d + 1]; i++) sum += score[i];
        right += (sum > 0) == (c->rows[c->doc_first[d]].label > 0.5f);
    }
    free(rows); free(score);
    return (double)right / (double)c->n_docs;
}

// Tokens of what reward_measure cuts out
static size_t snippet(const Config *c) { return c->max_T < 48 ? c->max_T : 48; }

static size_t reward_measure(Pass *p, const Corpus *c, uint64_t seed, Metric *out)
{
    if (c->kind == LOSS_PAIR) {
        size_t *rows = (size_t *)xmalloc(c->n_rows * sizeof *rows), right = 0;
        double *score = (double *)xmalloc(c->n_rows * sizeof *score);
        for (size_t i = 0; i < c->n_rows; i++) rows[i] = i;
        double loss = supervised_batch(p, c, rows, c->n_rows, 1, false, score);
        for (size_t i = 0; i < c->n_rows; i += 2) right += score[i] > score[i + 1];
        out[0] = (Metric){"held_out/pair_accuracy", 2 * (double)right / (double)c->n_rows};
        out[1] = (Metric){"held_out/loss", 2 * loss / (double)c->n_rows};
        free(rows); free(score);
        return 2;
    }
    static const char *const keys[] = {"held_out/accuracy_first_48", "held_out/accuracy_random_48",
                                       "held_out/accuracy_last_48"};
    out[0] = (Metric){"held_out/accuracy_whole", sign_accuracy(p, c)};
    size_t most = snippet(&p->m->cfg);
    for (int cut = 0; cut < 3; cut++) { // one row a document: a snippet, or the whole when it is shorter
        Corpus s = {.kind = LOSS_LABEL, .tokens = c->tokens, .n_docs = c->n_docs, .n_rows = c->n_docs};
        for (size_t d = 0; d < c->n_docs; d++) {
            const Row *a = &c->rows[c->doc_first[d]], *b = &c->rows[c->doc_first[d + 1] - 1];
            size_t begin = a->at, end = b->at + (size_t)b->len, len = end - begin < most ? end - begin : most,
                   room = end - begin - len;
            size_t at = begin +
                (cut == 0       ? 0
                     : cut == 2 ? room
                                : (size_t)(random_uniform(seed, STREAM_SPLIT, d, 0, 0) * (double)(room + 1)));
            arrput(s.rows, ((Row){at, (int)len, (int)len - 1, a->label}));
            arrput(s.doc_first, d);
        }
        arrput(s.doc_first, c->n_docs);
        out[1 + cut] = (Metric){keys[cut], sign_accuracy(p, &s)};
        arrfree(s.rows); arrfree(s.doc_first);
    }
    return 4;
}

static void fresh_config(Config *c, const Args *a, const Tokenizer *t, bool scalar)
{
    double C = (double)a->width, size = 12 * (double)a->layers * C * C + ((double)a->context + tokenizer_vocab(t)) * C;
    if (size > 1e12)
        usage("--layers %ld, --width %ld, --context %ld: a model of %.0e parameters is absurd: lower them",
              a->layers, a->width, a->context, size);
    if (a->width % a->heads || a->width / a->heads > 256)
        usage("--width %ld over --heads %ld is no whole head size up to 256", a->width, a->heads);
    *c = (Config){.arch = &architectures[a->arch], .L = (size_t)a->layers, .C = (size_t)a->width,
        .NH = (size_t)a->heads, .F = 4 * (size_t)a->width, .V = (size_t)tokenizer_vocab(t), .max_T = (size_t)a->context,
        .scalar_head = scalar, .pad = -1, .eps = 1e-5, .init_std = 0.02, .bos = tokenizer_eos(t),
        .eos = tokenizer_eos(t)};
    c->arch->fresh(c);
}

// A run of supervised training: what its steps have at hand
typedef struct {
    Pass pass; Corpus data, held; Passes passes; Groups groups; Tokenizer *tok;
    // rows of an item (a pair has two); (batch) items and (batch * unit) rows of a step
    size_t unit, *which, *rows;
    double loss, positions, tokens;          // since the last record
} Supervised;

static void supervised_step(Run *r)
{
    Supervised *s = (Supervised *)r->context;
    size_t items = passes_step(&s->passes, r->done, s->which), n = items * s->unit;
    double loss;
    for (size_t i = 0; i < n; i++) s->rows[i] = s->which[i / s->unit] * s->unit + i % s->unit;
    size_t positions = supervised_positions(&s->data, s->rows, n);
    for (size_t i = 0; i < n; i++) s->tokens += s->data.rows[s->rows[i]].len;
    model_zero_grad(r->m);
    for (Group x = {0}; group_next(&s->groups, &x, items);) {
        double own = supervised_batch(&s->pass, &s->data, s->rows + x.from * s->unit, x.n * s->unit, (double)positions,
                                      true, NULL);
        groups_add(&s->groups, x.k, &own, 1);
    }
    groups_finish(&s->groups, &loss, 1);
    s->loss += loss;
    s->positions += (double)positions;
    adamw_step(r);
}

static size_t supervised_record(Run *r, Metric *x)
{
    Supervised *s = (Supervised *)r->context;
    size_t n = 0;
    x[n++] = (Metric){"loss", s->loss / s->positions};
    x[n++] = (Metric){"grad_norm", r->grad_norm};
    x[n++] = (Metric){"lr", r->lr};
    x[n++] = (Metric){"time/tokens_per_second", s->tokens / r->seconds};
    s->loss = s->positions = s->tokens = 0;
    return n;
}

static void supervised_measure(Run *r, Log *log)
{
    Supervised *s = (Supervised *)r->context;
    Metric x[8];
    size_t k = s->held.kind == LOSS_LM ? lm_measure(&s->pass, &s->held, s->tok, x)
                                       : reward_measure(&s->pass, &s->held, (uint64_t)r->a->seed, x);
    static const Column shown[] = {
        {"held_out/nats_per_token", "nats/token"}, {"held_out/perplexity", "perplexity"},
        {"held_out/bits_per_byte", "bits/byte"}, {"held_out/pair_accuracy", "pair accuracy"},
        {"held_out/loss", "loss"}, {"held_out/accuracy_whole", "accuracy"},
        {"held_out/accuracy_first_48", "first 48"}, {"held_out/accuracy_last_48", "last 48"}, {NULL, NULL}};
    log_metrics(log, "held_out", r->done, x, k);
    print_metrics("held out", r->done, r->steps, x, k, shown, NAN);
}

static LossKind reward_data_kind(const char *path) // which form the file has shows in its first line
{
    Jsonl in;
    json_t *j;
    jsonl_open(&in, path);
    if (!jsonl_next(&in, &j))
        die("%s: empty: lines {\"text\",\"label\"} or {\"prompt\",\"chosen\",\"rejected\"} are needed", path);
    LossKind kind = json_object_get(j, "chosen") ? LOSS_PAIR : LOSS_LABEL;
    json_decref(j);
    jsonl_close(&in);
    return kind;
}

static void supervised_run(const Args *a, const char *command)
{
    bool reward = !strcmp(command, "reward");
    const char *folder = reward ? a->init : a->model,
               *tokenizer_dir = folder ? folder : require(a->tokenizer, "tokenizer");
    if (a->tokenizer) tokenizer_dir = a->tokenizer;
    require(a->data, "data");
    Run r;
    if (!run_open(&r, a, command)) return;
    const Ops *o = device_ops(a);
    Config c;
    if (folder) config_read_as(&c, folder, reward ? "init" : "model", false);
    Supervised s = {.tok = tokenizer_load(tokenizer_dir)};
    Tokenizer *tok = s.tok;
    if (!folder) fresh_config(&c, a, tok, reward);
    else if (reward) { // the lower blocks of a language model
        if ((size_t)a->layers > c.L) usage("--layers %ld: %s has %zu", a->layers, folder, c.L);
        c.L = (size_t)a->layers; c.scalar_head = true; c.tied = true; c.pad = -1; // the end of a text is scored too
    }
    if (c.eos != tokenizer_eos(tok)) c.bos = c.eos = tokenizer_eos(tok); // of another tokenizer than the folder's
    vocabulary_check(tok, tokenizer_dir, c.V, folder ? folder : a->out);
    // a new model has the context it is given
    size_t context = (size_t)a->context < c.max_T ? (size_t)a->context : c.max_T, own = folder ? c.max_T : SIZE_MAX;
    if (context < 2)
        die("%s: the model's own context is %zu: a row must hold two tokens at least, one to read and one to predict",
            folder, context);
    Model m;
    model_create(&m, o, &c, a->train_layers, false, false);
    m.recompute = a->recompute;
    model_random(&m, (uint64_t)a->seed);
    if (folder && !reward) model_fill(&m, folder);
    if (folder && reward) {
        size_t absent = model_fill_partial(&m, folder);
        if (absent > 1) die("--init %s: %zu parameters are not in it: is it of this width?", folder, absent - 1);
    }
    LossKind kind = reward ? reward_data_kind(a->data) : LOSS_LM;
    // of pairs the ends alone are scored, unless every position is
    size_t from = kind != LOSS_PAIR ? (size_t)a->from_position : a->every_position ? 0 : context;
    corpus_read(&s.data, kind, a->data, tok, context, own, from, 0);
    corpus_report(a->data, &s.data);
    if (a->held_out) {
        corpus_read(&s.held, kind, a->held_out, tok, context, own, from, (size_t)a->max_docs);
        corpus_report(a->held_out, &s.held);
    }
    s.unit = kind == LOSS_PAIR ? 2 : 1;
    passes_create(&s.passes, s.data.n_rows / s.unit, (size_t)a->batch, a->epochs, a->steps, a->drop_last,
                  (uint64_t)a->seed);
    s.which = (size_t *)xmalloc(s.passes.batch * sizeof *s.which);
    s.rows = (size_t *)xmalloc(s.passes.batch * s.unit * sizeof *s.rows);
    printf("%zu parameters, %zu train; %ld optimiser steps of %zu rows\n", param_count(&m, 0), param_count(&m, m.first),
           s.passes.steps, s.passes.batch * s.unit);
    passes_report(&s.passes, s.unit == 2 ? "pairs" : "rows");
    size_t longest = rows_longest(&s.data);
    if (a->held_out && rows_longest(&s.held) > longest) longest = rows_longest(&s.held);
    if (kind == LOSS_LABEL && snippet(&c) > longest) longest = snippet(&c);
    pass_create(&s.pass, &m, (size_t)a->micro_tokens > s.unit * longest ? (size_t)a->micro_tokens : s.unit * longest,
                true);
    groups_create(&s.groups, &m, (size_t)a->groups);
    r.weights = weights_json(reward ? "init" : "model", folder ? &m : NULL, tok, NULL);
    r.m = &m; r.context = &s; r.tokenizer_dir = tokenizer_dir; r.steps = s.passes.steps;
    r.state[0] = (State){"loss", &s.loss, 1};
    r.state[1] = (State){"positions", &s.positions, 1};
    r.n_state = 2;
    r.step = supervised_step; r.record = supervised_record; r.measure = a->held_out ? supervised_measure : NULL;
    run_steps(&r);
    groups_free(&s.groups); pass_free(&s.pass); corpus_free(&s.data); corpus_free(&s.held);
    model_free(&m); tokenizer_free(tok);
    passes_free(&s.passes);
    free(s.which); free(s.rows);
}

static void cmd_sft(const Args *a) { supervised_run(a, "sft"); }
static void cmd_reward(const Args *a) { supervised_run(a, "reward"); }
#endif
