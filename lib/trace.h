// trace.h: trace.jsonl, beside log.jsonl: a run one can look into. `train --trace N` keeps N responses of some of its
// rollouts, each with all that PPO knew of it. dev/report.py draws them.
//
// is_traced (run.h) says which iterations. Of a rollout those N responses are kept whose prompts come first in their
// file, one of each prompt before a second of any: where the prompts are few, the same ones come again, and one sees
// what becomes of them. Nothing is drawn or computed for it, so the training keeps every bit, and a resumed run's trace
// is that of a run never stopped.
//
// A line is a response:
//     step                 the iteration, as in log.jsonl
//     prompt, response, ids, finished     as `vbon sample` writes them
//     reward               the reward model's
//     k, M, logF           k of the prompt's M cached samples are below it; log F-hat as --fhat makes it, null where it
//                          is -inf (all three only where a cache is read)
//     ref_logp             nats, log pi_ref(y), the sum over the response
//     score                what the objective makes of it, after --score-clip
// and, an entry a token, the end-of-text included where one was sampled:
//     tokens               its text: all of them together are the response. A character made of several tokens stands
//                          with the last of them
//     logps                nats, log pi of the token by the policy that drew it
//     kl                   nats, log pi - log pi_ref: their sum is the response's k1
//     rewards              what PPO takes as the reward of the action (the last holds the score)
//     values, returns      V and the return by GAE: A before whitening is returns - values
//     advantages           A as the loss sees it: whitened over the rollout
#pragma once
#ifdef VBON_IMPLEMENTATION

#define DIVERGED "training has diverged: lower --lr"

// The text of each token, so that all of them together are the text: an array of strings, a new reference.
static json_t *token_texts(const Tokenizer *t, const Response *y)
{
    char *text = response_text(t, y); // of a last end-of-text token there is no text
    size_t n = strlen(text), at = 0, end = 0;
    json_t *a = json_array();
    for (size_t i = 0; i < y->n; i++) {
        size_t bytes, from = at;
        free(tokenizer_decode(t, &y->ids[i], 1, &bytes));
        end += bytes;
        while (at < n) { // a character at a time, as utf8_mend sees them
            size_t rest = n - at, length = 1;
            while (length < 4 && length < rest && utf8_valid(text + at, length) < length) length++;
            if (utf8_valid(text + at, length) < length) length = broken_length((const uint8_t *)text + at, rest);
            if (at + length > end) break;
            at += length;
        }
        char *piece = utf8_mend(format("%.*s", (int)(at - from), text + from));
        json_array_append_new(a, json_make("s", piece));
        free(piece);
    }
    free(text);
    return a;
}

// n numbers, one a token, less those of `less` if there are any
static json_t *token_numbers(const double *x, const double *less, size_t n, const char *what)
{
    json_t *a = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(a, json_number((less ? x[i] - less[i] : x[i]) + 0.0, what, DIVERGED)); // -0 is 0
    return a;
}

static json_t *trace_record(const Ppo *p, const Tokenizer *t, size_t i)
{
    const Rollout *r = &p->rollout;
    const Response *y = &r->y[i];
    const Place *at = &r->place[i];
    size_t from = r->at[i], n = y->n;
    char *text = utf8_mend(response_text(t, y));
    json_t *ids = json_array();
    for (size_t k = 0; k < n; k++) json_array_append_new(ids, json_integer(y->ids[k]));
    json_t *j = json_make("{s:s, s:I, s:s, s:s, s:o, s:b, s:f}", "type", "trace", "step", (json_int_t)p->iteration,
        "prompt", p->prompts[y->prompt].text, "response", text, "ids", ids, "finished", y->finished, "reward",
        y->reward);
    if (at->cdf) {
        json_object_set_new(j, "k", json_number(at->k, "k of M", DIVERGED));
        json_object_set_new(j, "M", json_integer((json_int_t)at->cdf->M));
        json_object_set_new(j, "logF", isfinite(r->logF[i]) ? json_number(r->logF[i], "", "") : json_null());
    }
    const struct { const char *key; const double *x, *less; } each[] = {
        {"logps", r->old_logp, NULL}, {"kl", r->old_logp, r->ref_logp}, {"rewards", r->reward, NULL},
        {"values", r->value, NULL},   {"returns", r->returns, NULL},    {"advantages", r->advantage, NULL}};
    json_object_set_new(j, "ref_logp", json_number(r->ref_logp_y[i], "log pi_ref of a response", DIVERGED));
    json_object_set_new(j, "score", json_number(r->score[i], "a terminal score", DIVERGED));
    json_object_set_new(j, "tokens", token_texts(t, y));
    for (size_t k = 0; k < sizeof each / sizeof *each; k++)
        json_object_set_new(j, each[k].key, token_numbers(each[k].x + from, each[k].less ? each[k].less + from : NULL,
            n, each[k].key));
    free(text);
    return j;
}

typedef struct { size_t pass, prompt, i; } Kept; // pass: over the prompts, so one response a pass and prompt
static int by_pass(const void *a, const void *b)
{
    const Kept *x = (const Kept *)a, *y = (const Kept *)b;
    if (x->pass != y->pass) return x->pass < y->pass ? -1 : 1;
    return (x->prompt > y->prompt) - (x->prompt < y->prompt);
}

static void trace_rollout(Run *run, Log *trace) // of `train`
{
    const Ppo *p = (const Ppo *)run->context;
    const Rollout *r = &p->rollout;
    const Tokenizer *t = ((const Reward *)p->reward_context)->policy_tokenizer;
    Kept *order = (Kept *)xmalloc(r->E * sizeof *order);
    for (size_t i = 0; i < r->E; i++) order[i] = (Kept){r->y[i].sample / p->n_prompts, r->y[i].prompt, i};
    qsort(order, r->E, sizeof *order, by_pass);
    for (size_t i = 0; i < r->E && i < (size_t)run->a->trace; i++)
        log_record(trace, trace_record(p, t, order[i].i));
    free(order);
}
#endif
