// agree.h: what must fit together before a run begins: a folder and the flag that names it, a model and its tokenizer,
// a policy and its reference, a cache and the vocabulary it was drawn from. (Cached rewards and the reward: recheck.h.)
//
// A vocabulary may be padded: a model may have more ids than its tokenizer (every Pythia does), never fewer. Such ids
// are the model's like all others: it may draw them, and their probability counts. No text has them: they decode to
// nothing, and to a reward model that has no embedding for one the response is its text.
#pragma once
#include "config.h"
#include "data.h"

// config_read for --flag, which takes a reward model or a language model; what is neither is refused by its name.
void config_read_as(Config *c, const char *dir, const char *flag, bool reward);
// A folder's model for --flag and its tokenizer, which is returned: of that class, with an embedding for every id.
Tokenizer *model_load_as(Model *m, const Ops *o, const char *dir, const char *flag, bool reward, long train_layers,
                         bool value_head);
// Dies when `model`, of V ids, has fewer than the tokenizer.
void vocabulary_check(const Tokenizer *t, const char *tokenizer_dir, size_t V, const char *model);
// Dies unless ids mean the same in both folders, and end texts alike.
void tokenizers_check(const Tokenizer *a, const char *folder_a, const Tokenizer *b, const char *folder_b);
// Whether a reward is the folder of a causal model that reads the ids of the model in that folder.
bool reward_reads_ids(const char *reward, const char *model);
void cache_ids_check(const Cache *c, const char *path, const Model *m); // dies when it holds an id that m does not have
// malloc'd ids of a cached sample: those sampled where the cache has them, else its text's; *same: they are known to
// be, or cannot be told from, what was sampled
int *sample_ids(const CacheSample *s, const Tokenizer *t, size_t *n, bool *same);

#ifdef VBON_IMPLEMENTATION

void config_read_as(Config *c, const char *dir, const char *flag, bool reward)
{
    char what[64] = "a reward model";
    const char *class = distilbert.classifier;
    bool bert = is_distilbert(dir); // as a reward it is read elsewhere
    if (!bert) {
        config_read(c, dir);
        if (c->scalar_head == reward && (!reward || c->labels <= 1)) return;
        class = c->score_bias ? "cleanrl's form" : c->scalar_head ? c->arch->classifier : c->arch->lm;
        if (c->labels > 1) snprintf(what, sizeof what, "a classifier of %zu labels", c->labels);
        else if (!c->scalar_head) strcpy(what, "a language model");
    }
    die("%s: %s (%s), but --%s takes %s", dir, what, class, flag,
        reward ? "a reward model (ForSequenceClassification with one label): train one with vbon reward"
               : format("a language model (%s)", architecture_names(offsetof(Architecture, lm))));
}

void vocabulary_check(const Tokenizer *t, const char *tokenizer_dir, size_t V, const char *model)
{
    int last = tokenizer_vocab(t) - 1;
    if (last < 0 || (size_t)last < V) return;
    die("%s: the tokenizer has %d ids (the last is \"%s\"), the model %s only %zu: name the model's own tokenizer, "
        "or take out the tokens that its files add",
        tokenizer_dir, last + 1, tokenizer_decode(t, &last, 1, NULL), model, V);
}

Tokenizer *model_load_as(Model *m, const Ops *o, const char *dir, const char *flag, bool reward, long train_layers,
                         bool value_head)
{
    Config c;
    config_read_as(&c, dir, flag, reward);
    Tokenizer *t = tokenizer_load(dir);
    vocabulary_check(t, dir, c.V, dir);
    model_create(m, o, &c, train_layers, value_head, false);
    model_fill(m, dir);
    return t;
}

void tokenizers_check(const Tokenizer *a, const char *folder_a, const Tokenizer *b, const char *folder_b)
{
    if (tokenizer_fingerprint(a) != tokenizer_fingerprint(b))
        die("%s and %s have different tokenizers: the ids of one mean something else to the other", folder_a, folder_b);
    if (tokenizer_eos(a) != tokenizer_eos(b))
        die("%s and %s end a text differently, by token %d and %d (-1: none): make their eos_token agree", folder_a,
            folder_b, tokenizer_eos(a), tokenizer_eos(b));
}

bool reward_reads_ids(const char *reward, const char *model)
{
    Config c;
    if (!model || !has_weights(model) || !has_weights(reward) || is_distilbert(reward)) return false;
    config_read_as(&c, reward, "reward", true); // or dies now
    Tokenizer *a = tokenizer_load(reward), *b = tokenizer_load(model);
    bool same = tokenizer_fingerprint(a) == tokenizer_fingerprint(b);
    tokenizer_free(a); tokenizer_free(b);
    return same;
}

void cache_ids_check(const Cache *c, const char *path, const Model *m)
{
    for (size_t i = 0; i < c->n; i++)
        for (size_t k = 0; k < arrlenu(c->prompts[i].samples); k++) {
            const CacheSample *x = &c->prompts[i].samples[k];
            for (size_t j = 0; x->ids && j < x->n_ids; j++)
                if (x->ids[j] < 0 || (size_t)x->ids[j] >= m->cfg.V)
                    die("%s: prompt \"%.40s\", draw %ld: \"ids\" holds %d, the model's vocabulary has %zu: it was drawn"
                        " from another model", path, c->prompts[i].prompt, x->draw, x->ids[j], m->cfg.V);
        }
}

int *sample_ids(const CacheSample *s, const Tokenizer *t, size_t *n, bool *same)
{
    int *ids;
    if (s->ids) ids = (int *)memcpy(xmalloc((s->n_ids + 1) * sizeof *ids), s->ids, (*n = s->n_ids) * sizeof *ids);
    else {
        ids = tokenizer_encode(t, s->text, strlen(s->text), n);
        ids = (int *)xrealloc(ids, (*n + 1) * sizeof *ids);
        // no text shows it; where there is an order key, that does
        ids[*n] = s->has_key || s->finished ? tokenizer_eos(t) : -1;
        *n += ids[*n] >= 0 && (s->has_key ? order_key(ids, *n + 1) == s->key : s->finished);
    }
    *same = !s->has_key || order_key(ids, *n) == s->key;
    return ids;
}
#endif
