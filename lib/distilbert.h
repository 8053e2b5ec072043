// distilbert.h: DistilBertForSequenceClassification, forward only: the paper's sentiment reward model
// (lvwerra/distilbert-imdb).
//
// The op table's largest pieces in another order: embeddings with a norm of their own, blocks that norm after each
// addition, attention that sees both ways, and on the first token, [CLS], Linear-ReLU-Linear to a logit for each label.
// The reward is the logit of the positive label, as the authors' code has it, or that label's softmax probability,
// p(POS given y) in the paper. The positive label is the one called POSITIVE or POS in config.json, else LABEL_1 of two
// without names of their own.
//
// Texts come in, since the tokenizer is another one than the policy's; a text over the context keeps its beginning.
// Rows are packed end to end: no padding, and a row's result does not depend on its neighbours. A folder is read like
// any other, through a table of parameters. The file has q, k and v apart; they stand one behind the other in the
// table, and so in memory, where they are one matrix (3C,C).
//
// On the CPU --precision bf16 rounds the inputs of its products like all others. On CUDA its numbers are fp32 whatever
// the precision; with bf16 the factors of its products and of its attention have 10 bits of fraction (TF32, half), so
// that its rewards stay closer to those of a cache from elsewhere than bfloat16's 7 would be.
//
// Left out on purpose: training, attention masks (a row has a length), pairs of texts, other heads than the classifier.
#pragma once
#include "../gpt2.h"
#include "wordpiece.h"

typedef struct {
    Buf qkvw, qkvb;         // (3C,C), (3C): queries, keys and values
    Buf outw, outb;         // (C,C), (C): of the attention
    Buf norm1w, norm1b;     // (C): after the attention
    Buf fcw, fcb;           // (F,C), (F)
    Buf fc2w, fc2b;         // (C,F), (C)
    Buf norm2w, norm2b;     // (C): after the MLP
} DistilBlock;
typedef struct {
    Buf words, positions;   // (V,C), (T,C): embeddings
    Buf normw, normb;       // (C): of their sum
    DistilBlock *h;         // (L)
    Buf prew, preb;         // (C,C), (C): the classifier's first layer
    Buf labelw, labelb;     // (labels,C), (labels): its second
} DistilParams;
typedef struct {
    Model m;                     // configuration and parameters; trains nothing, and has its views of them below
    DistilParams p;
    WordPiece *tokenizer;
    size_t labels, positive, tokens, cut; // cut: texts that were longer than the context
    Arena work;
    Batch batch;
    Buf sum;                     // (N,C) what a norm reads
    Buf x, mean, rstd;           // (N,C), (N), (N): what it writes, and what the next layer reads
    Buf qkv, att, lse;           // (N,3C), (N,C), (N,NH)
    Buf fc, act;                 // (N,F)
    Buf first;                   // (B) int32: where each row begins
    Buf cls, pre, hidden;        // (B,C)
    Buf logits;                  // (B,labels)
} DistilBert;
bool is_distilbert(const char *dir);                // by config.json's model_type; dies when that is no JSON
// Reads a folder; work memory for at least `tokens` tokens at a time. measure_only: sizes of the arenas only, from
// config.json alone.
void distilbert_load(DistilBert *d, const Ops *o, const char *dir, size_t tokens, bool measure_only);
void distilbert_free(DistilBert *d);
// Rewards (n) of n UTF-8 texts: the positive label's logit, or its probability. Dies when one is not finite.
void distilbert_score(DistilBert *d, const char *const *texts, double *out, size_t n, bool probability);
uint64_t distilbert_fingerprint(const DistilBert *d); // of configuration, weights, vocabulary and the positive label

#ifdef VBON_IMPLEMENTATION
#include <strings.h>

#define IN_DISTIL(f) offsetof(DistilParams, f)
#define IN_DISTIL_BLOCK(f) offsetof(DistilBlock, f)
#define JOINED ((size_t)-1) // no field: one with the row before it
static const ParamSpec distilbert_table[] = {
    {"embeddings.word_embeddings.weight",              IN_DISTIL(words),         D_V, D_C, 0},
    {"embeddings.position_embeddings.weight",          IN_DISTIL(positions),     D_T, D_C, 0},
    {"embeddings.LayerNorm.weight",                    IN_DISTIL(normw),         D_C, 0,   P_NORM},
    {"embeddings.LayerNorm.bias",                      IN_DISTIL(normb),         D_C, 0,   0},
    {"transformer.layer.%zu.attention.q_lin.weight",   IN_DISTIL_BLOCK(qkvw),    D_C, D_C, P_LAYER},
    {"transformer.layer.%zu.attention.k_lin.weight",   JOINED,                   D_C, D_C, P_LAYER},
    {"transformer.layer.%zu.attention.v_lin.weight",   JOINED,                   D_C, D_C, P_LAYER},
    {"transformer.layer.%zu.attention.q_lin.bias",     IN_DISTIL_BLOCK(qkvb),    D_C, 0,   P_LAYER},
    {"transformer.layer.%zu.attention.k_lin.bias",     JOINED,                   D_C, 0,   P_LAYER},
    {"transformer.layer.%zu.attention.v_lin.bias",     JOINED,                   D_C, 0,   P_LAYER},
    {"transformer.layer.%zu.attention.out_lin.weight", IN_DISTIL_BLOCK(outw),    D_C, D_C, P_LAYER},
    {"transformer.layer.%zu.attention.out_lin.bias",   IN_DISTIL_BLOCK(outb),    D_C, 0,   P_LAYER},
    {"transformer.layer.%zu.sa_layer_norm.weight",     IN_DISTIL_BLOCK(norm1w),  D_C, 0,   P_LAYER | P_NORM},
    {"transformer.layer.%zu.sa_layer_norm.bias",       IN_DISTIL_BLOCK(norm1b),  D_C, 0,   P_LAYER},
    {"transformer.layer.%zu.ffn.lin1.weight",          IN_DISTIL_BLOCK(fcw),     D_F, D_C, P_LAYER},
    {"transformer.layer.%zu.ffn.lin1.bias",            IN_DISTIL_BLOCK(fcb),     D_F, 0,   P_LAYER},
    {"transformer.layer.%zu.ffn.lin2.weight",          IN_DISTIL_BLOCK(fc2w),    D_C, D_F, P_LAYER},
    {"transformer.layer.%zu.ffn.lin2.bias",            IN_DISTIL_BLOCK(fc2b),    D_C, 0,   P_LAYER},
    {"transformer.layer.%zu.output_layer_norm.weight", IN_DISTIL_BLOCK(norm2w),  D_C, 0,   P_LAYER | P_NORM},
    {"transformer.layer.%zu.output_layer_norm.bias",   IN_DISTIL_BLOCK(norm2b),  D_C, 0,   P_LAYER},
    {"pre_classifier.weight",                          IN_DISTIL(prew),          D_C, D_C, P_HEAD},
    {"pre_classifier.bias",                            IN_DISTIL(preb),          D_C, 0,   P_HEAD},
    {"classifier.weight",                              IN_DISTIL(labelw),   D_LABELS, D_C, P_HEAD},
    {"classifier.bias",                                IN_DISTIL(labelb),   D_LABELS, 0,   P_HEAD},
    {0},
};
static const char *const distilbert_buffers[] = {"embeddings.position_ids", NULL};
static const ConfigField distilbert_fields[] = {
    {"vocab_size", NULL, F_SIZE, KEPT(V), 1, 1 << 28, 30522},
    {"max_position_embeddings", NULL, F_SIZE, KEPT(max_T), 1, 1 << 28, 512},
    {"dim", "hidden_size", F_SIZE, KEPT(C), 1, 1 << 20, 768},
    {"n_layers", "num_hidden_layers", F_SIZE, KEPT(L), 1, 1000, 6},
    {"n_heads", "num_attention_heads", F_SIZE, KEPT(NH), 1, 1 << 20, 12},
    {"hidden_dim", NULL, F_SIZE, KEPT(F), 1, 1 << 24, 3072},
    {"activation", NULL, F_ACT, KEPT(act), 0, 0, ACT_GELU_ERF},
    {0},
};
static const Architecture distilbert = { // in no table of rows: it is no language model
    .name = "distilbert", .prefix = "distilbert.", .classifier = "DistilBertForSequenceClassification",
    .params = distilbert_table, .buffers = distilbert_buffers, .fields = distilbert_fields,
};

// ----------------------------------------------------------------------------
// loading

bool is_distilbert(const char *dir)
{
    char *path = config_path(dir);
    bool yes = false;
    if (exists(path)) {
        json_t *j = json_file(path);
        const char *type = json_string_value(json_object_get(j, "model_type"));
        yes = type && !strcmp(type, "distilbert");
        json_decref(j);
    }
    free(path);
    return yes;
}

static bool is_positive(const char *label) { return !strcasecmp(label, "POSITIVE") || !strcasecmp(label, "POS"); }

static void distilbert_config(DistilBert *d, Config *c, const char *dir)
{
    char *path = config_path(dir);
    json_t *j = config_file(dir), *names = json_object_get(j, "id2label"), *ids = json_object_get(j, "label2id"), *id;
    const char *class = json_string_value(json_array_get(json_object_get(j, "architectures"), 0)), *label;
    if (!class || strcmp(class, distilbert.classifier))
        die("%s: %s is not a reward model: a %s is", path,
            class ? shown(class) : "a DistilBERT without \"architectures\"", distilbert.classifier);
    const char *problem = json_string_value(json_object_get(j, "problem_type"));
    if (problem && !strcmp(problem, "multi_label_classification"))
        die("%s: problem_type %s is not supported: its labels have probabilities of their own", path, problem);
    *c = (Config){.arch = &distilbert, .eps = 1e-12};
    fields_read(c, distilbert.fields, j, path);
    fields_read(c, common_fields, j, path);
    labels_read(c, j, path);
    config_check(c, path);
    if (c->max_T < 3) die("%s: a context of %zu holds [CLS], [SEP] and nothing else", path, c->max_T);
    d->positive = c->labels;
    for (size_t i = 0; i < c->labels; i++) {
        char key[24];
        snprintf(key, sizeof key, "%zu", i);
        const char *name = json_string_value(json_object_get(names, key));
        if (name && is_positive(name)) d->positive = i;
    }
    json_object_foreach(ids, label, id) // which transformers does not read
        if (is_positive(label) && (d->positive == c->labels || json_integer_value(id) != (json_int_t)d->positive))
            die("%s: \"label2id\" and \"id2label\" do not agree about %s", path, shown(label));
    const char *one = json_string_value(json_object_get(names, "1"));
    if (d->positive == c->labels && (c->labels > 2 || (c->labels == 2 && names && !(one && !strcmp(one, "LABEL_1")))))
        die("%s: %zu labels, none called POSITIVE or POS in \"id2label\": name the one to reward", path, c->labels);
    if (d->positive == c->labels) d->positive = c->labels - 1; // LABEL_1, or the only one
    d->labels = c->labels;
    json_decref(j);
    free(path);
}

static void distilbert_carve(DistilBert *d)
{
    const Config *c = &d->m.cfg;
    size_t N = d->tokens, B = N / 2, C = c->C; // a row is at least [CLS] [SEP]
    batch_carve(&d->batch, &d->work, N, B);
    #define TAKE(rows, n, name) arena_take(&d->work, checked_product(name, rows, n), DT_REAL, name)
    d->x = TAKE(N, C, "activations"); d->mean = TAKE(N, 1, "activations"); d->rstd = TAKE(N, 1, "activations");
    d->qkv = TAKE(N, 3 * C, "activations"); d->lse = TAKE(N, c->NH, "activations");
    d->att = TAKE(N, C, "activations"); d->sum = TAKE(N, C, "activations");
    d->fc = TAKE(N, c->F, "activations"); d->act = TAKE(N, c->F, "activations");
    d->first = arena_take(&d->work, B, DT_I32, "batch");
    d->cls = TAKE(B, C, "head"); d->pre = TAKE(B, C, "head"); d->hidden = TAKE(B, C, "head");
    d->logits = TAKE(B, d->labels, "head");
    #undef TAKE
}

// Names the parameters where they lie in m->data.
static void distilbert_view(DistilBert *d)
{
    const Model *m = &d->m;
    Buf *b = NULL;
    d->p.h = (DistilBlock *)xcalloc(m->cfg.L, sizeof *d->p.h);
    for (size_t i = 0; i < m->n_list; i++) {
        const Param *q = &m->list[i];
        if (q->field == JOINED) { b->n += q->n; continue; }
        b = (Buf *)((q->flags & P_LAYER ? (char *)&d->p.h[q->layer] : (char *)&d->p) + q->field);
        *b = slice(m->data, q->offset, q->n);
        b->name = q->name;
        b->n = q->n;
    }
}

void distilbert_load(DistilBert *d, const Ops *o, const char *dir, size_t tokens, bool measure_only)
{
    memset(d, 0, sizeof *d);
    Config c;
    distilbert_config(d, &c, dir);
    Model *m = &d->m;
    *m = (Model){.o = o, .cfg = c};
    m->list = (Param *)xcalloc(sizeof distilbert_table / sizeof *distilbert_table * c.L, sizeof *m->list);
    for (const ParamSpec *s = distilbert_table, *end = s; s->hf; s = end) {
        while (end == s || (end->flags & P_LAYER && s->flags & P_LAYER)) end++;
        for (size_t l = 0; l < (s->flags & P_LAYER ? c.L : 1); l++)
            for (const ParamSpec *k = s; k < end; k++) list_add(m, k, l);
    }
    m->first = m->n_params;
    m->first_block = c.L;
    m->params = (Arena){.name = "parameters", .o = o};
    d->work = (Arena){.name = "reward model", .o = o};
    d->tokens = tokens > c.max_T ? tokens : c.max_T;
    for (int pass = 0; pass < (measure_only ? 1 : 2); pass++) {
        if (pass) { arena_place(&m->params); arena_place(&d->work); }
        m->data = arena_take(&m->params, m->n_params, DT_REAL, "weights");
        distilbert_carve(d);
    }
    distilbert_view(d);
    if (measure_only) return;
    model_fill(m, dir);
    d->tokenizer = wordpiece_load(dir);
    if ((size_t)wordpiece_vocab(d->tokenizer) > c.V)
        die("%s: the tokenizer has %d tokens, the model %zu: copy the model's own there", dir,
            wordpiece_vocab(d->tokenizer), c.V);
}

void distilbert_free(DistilBert *d)
{
    arena_release(&d->work);
    model_free(&d->m);
    free(d->p.h);
    if (d->tokenizer) wordpiece_free(d->tokenizer);
}

uint64_t distilbert_fingerprint(const DistilBert *d)
{
    return mix64(model_fingerprint(&d->m) ^ mix64(wordpiece_fingerprint(d->tokenizer) + d->positive));
}

// ----------------------------------------------------------------------------
// forward

// Logits (B,labels) of the rows in d->batch
static Buf distilbert_forward(DistilBert *d)
{
    const Ops *o = d->m.o;
    const Config *c = &d->m.cfg;
    const DistilParams *p = &d->p;
    const Batch *b = &d->batch;
    size_t N = b->N, B = b->B, C = c->C, F = c->F, NH = c->NH;
    o->embed_forward(d->sum, b->tokens, b->pos, p->words, p->positions, N, C);
    o->layernorm_forward(d->x, d->mean, d->rstd, d->sum, p->normw, p->normb, N, C, c->eps);
    for (size_t l = 0; l < c->L; l++) { // x = norm(x + attention(x)), then x = norm(x + mlp(x))
        const DistilBlock *h = &p->h[l];
        const Norm norm1[2] = {{d->x, h->norm1w, h->norm1b}}, norm2[2] = {{d->x, h->norm2w, h->norm2b}};
        o->matmul_forward(d->qkv, d->x, h->qkvw, h->qkvb, N, C, 3 * C);
        o->attention_forward(d->att, d->lse, d->qkv, b->start, B, N, NH, C / NH, false);
        o->matmul_forward(d->sum, d->att, h->outw, h->outb, N, C, C);
        o->add_layernorm(d->sum, d->mean, d->rstd, norm1, d->sum, d->x, (Buf){0}, N, C, c->eps);
        o->matmul_forward(d->fc, d->x, h->fcw, h->fcb, N, C, F);
        o->activation_forward(d->act, d->fc, c->act, N * F);
        o->matmul_forward(d->sum, d->act, h->fc2w, h->fc2b, N, F, C);
        o->add_layernorm(d->sum, d->mean, d->rstd, norm2, d->sum, d->x, (Buf){0}, N, C, c->eps);
    }
    o->gather_rows(d->cls, d->x, d->first, B, C);
    o->matmul_forward(d->pre, d->cls, p->prew, p->preb, B, C, C);
    o->activation_forward(d->hidden, d->pre, ACT_RELU, B * C);
    o->matmul_forward(d->logits, d->hidden, p->labelw, p->labelb, B, C, d->labels);
    return d->logits;
}

void distilbert_score(DistilBert *d, const char *const *texts, double *out, size_t n, bool probability)
{
    size_t cap = d->tokens, B = 0, K = d->labels, done = 0;
    int *tokens = (int *)xmalloc(cap * sizeof(int)), *start = (int *)xcalloc(cap + 1, sizeof(int));
    real *logits = (real *)xmalloc(cap / 2 * K * sizeof(real));
    int **encoded = (int **)xmalloc((n + 1) * sizeof *encoded);
    size_t *lengths = (size_t *)xcalloc(n + 1, sizeof *lengths);
    #pragma omp parallel for schedule(dynamic, 16)
    for (size_t i = 0; i < n; i++)
        encoded[i] = wordpiece_encode(d->tokenizer, texts[i], strlen(texts[i]), d->m.cfg.max_T + 1, &lengths[i]);
    for (size_t i = 0; i <= n; i++) {
        size_t len = lengths[i];
        int *ids = i < n ? encoded[i] : NULL;
        if (i < n && !ids) die("text %zu is not UTF-8 at byte %zu: convert it", i + 1, len + 1);
        if (len > d->m.cfg.max_T) { len = d->m.cfg.max_T; ids[len - 1] = ids[len]; d->cut++; } // [SEP] stays
        if (B && (i == n || (size_t)start[B] + len > cap)) {
            batch_set(&d->batch, &d->m, tokens, start, NULL, B);
            d->m.o->upload(slice(d->first, 0, B), start);
            d->m.o->download(logits, slice(distilbert_forward(d), 0, B * K));
            for (size_t b = 0; b < B; b++) {
                const real *x = logits + b * K;
                double sum = 0, mine = (double)x[d->positive];
                for (size_t k = 0; k < K; k++) sum += exp((double)x[k] - mine);
                out[done + b] = probability ? 1 / sum : mine;
                if (!isfinite(mine) || isnan(sum))
                    die("--reward: the classifier's score is not finite: its weights are too large to compute with "
                        "(has training diverged?)");
            }
            done += B;
            B = 0;
        }
        if (i < n) memcpy(tokens + start[B], ids, len * sizeof(int));
        if (i < n) { start[B + 1] = start[B] + (int)len; B++; }
        free(ids);
    }
    free(tokens); free(start); free(logits); free(encoded); free(lengths);
}
#endif
