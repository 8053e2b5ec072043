// recheck.h: whether a cache's rewards are still what the reward gives: a few responses are scored again before a run.
//
// Headers tell one reward model from another, and one command from another; a program whose file was edited they do
// not, and caches of other software have none. Ranks among stale rewards mean nothing, and nothing later would show it.
#pragma once
#include "reward.h"

// Scores eight cached responses of different prompts, chosen by seed, as they were (missing: the reward of one without
// an end, or NULL), and dies when one differs by more than rounding: by `share` of the rewards' spread, or 0: as
// precision has it. t: the policy's. Says so when the cache keeps nothing that can be scored.
void reward_recheck(Reward *r, const Cache *c, const char *path, const Tokenizer *t, uint64_t seed,
                    const double *missing, double share);

#ifdef VBON_IMPLEMENTATION

enum { RECHECKED = 8 };

// As a share of the rewards' spread (standard deviation) and of their size. In fp32 another batch, device or library
// moves a score by some 1e-6 of the spread (256 of another CPU, in a kept cache: 1.2e-6 at most); bfloat16 products by
// less than .01 as a rule, and of 256 by .03 at most for a GPT-2, .06 for a DistilBERT. The shares leave room for
// deeper models and other devices. The size counts where the spread is small beside it.
static double rounding(const Reward *r, const Cache *c, double share)
{
    const char *precision = json_string_value(json_object_get(c->header, "precision"));
    bool elsewhere = json_object_get(c->header, "device"); // where "auto" is bf16
    bool then = precision && (!strcmp(precision, "bf16") || (elsewhere && !strcmp(precision, "auto")));
    bool now = cpu_bf16 || (!r->command && (r->bert ? r->bert->m.o : r->m.o)->type == DT_BF16);
    bool rough = !r->command && (then || now);
    double n = 0, mean = 0, squares = 0, size = fabs(r->offset);
    if (!r->command && !r->bert) size += r->scale * fabs(r->m.cfg.score_shift);
    for (size_t i = 0; i < c->n; i++)
        for (size_t k = 0; k < c->prompts[i].n; k++) {
            double x = c->prompts[i].samples[k].reward, d = x - mean;
            mean += d / ++n;
            squares += d * (x - mean);
        }
    if (share <= 0) share = rough ? 0.1 : 1e-4;
    return share * sqrt(squares / n) + (rough ? 0x1p-7 : 0x1p-19) * (fabs(mean) + size);
}

// Whether the cache keeps of x what was scored: its ids, or a text that is known to be theirs; where text alone is
// scored, any text
static bool rescorable(const Reward *r, const CacheSample *x, const Tokenizer *t, const double *missing, Response *y)
{
    bool same, reads_text = r->command || r->bert;
    if (!x->ids && !x->text) return false;
    y->ids = sample_ids(x, t, &y->n, &same);
    y->finished = y->n && y->ids[y->n - 1] == tokenizer_eos(t);
    if (y->n && (x->ids || (x->has_key && same) || (reads_text && !missing))) return true;
    response_free(y);
    return false;
}

void reward_recheck(Reward *r, const Cache *c, const char *path, const Tokenizer *t, uint64_t seed,
                    const double *missing, double share)
{
    Prompt p[RECHECKED] = {0};
    Response y[RECHECKED] = {0};
    const CacheSample *cached[RECHECKED];
    double first[RECHECKED], tolerance = rounding(r, c, share);
    size_t n = 0, *order = (size_t *)xmalloc(c->n * sizeof *order);
    random_permutation(order, c->n, seed, STREAM_RECHECK, 0);
    for (size_t k = 0; n < RECHECKED && k < c->n + RECHECKED; k++) { // of few prompts, several responses each
        const CachePrompt *q = &c->prompts[order[k % c->n]];
        size_t from = (size_t)(random_uniform(seed, STREAM_RECHECK, k, 1, 0) * (double)q->n), s = 0;
        while (s < q->n && !rescorable(r, cached[n] = &q->samples[(from + s) % q->n], t, missing, &y[n])) s++;
        if (s == q->n) continue;
        p[n].text = q->prompt;
        p[n].ids = tokenizer_encode(t, q->prompt, strlen(q->prompt), &p[n].n);
        y[n].prompt = n;
        n++;
    }
    for (int again = 0; n && again <= (r->command != NULL); again++) { // a program twice: it may be random
        reward_assign(r, p, y, n, false);
        for (size_t i = 0; i < n; i++) {
            if (again && fabs(y[i].reward - first[i]) > tolerance)
                die("--reward %s: random: to prompt \"%.40s\", draw %ld of %s, it gave %.9g, then %.9g: a reward must "
                    "be"
                    " a function of prompt and response",
                    r->command, p[i].text, cached[i]->draw, path, first[i], y[i].reward);
            first[i] = y[i].reward;
        }
    }
    for (size_t i = 0; i < n; i++) {
        double now = missing && !y[i].finished ? *missing : y[i].reward;
        if (!(fabs(now - cached[i]->reward) <= tolerance))
            die("%s: prompt \"%.40s\", draw %ld: the cached reward is %.9g, the reward gives %.9g now (rounding: %.2g):"
                " make the cache again, name the reward it was made with, or raise --reward-tolerance", path,
                p[i].text, cached[i]->draw, cached[i]->reward, now, tolerance);
    }
    if (n) fprintf(notes(), "%s: %zu responses scored again have their cached rewards\n", path, n);
    else
        fprintf(notes(), "%s: keeps no response that could be scored again: its rewards are taken as they stand\n",
                path);
    for (size_t i = 0; i < n; i++) { free(p[i].ids); response_free(&y[i]); }
    free(order);
}
#endif
