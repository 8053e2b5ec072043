// commands.h: what `vbon COMMAND` does, in plain code: read flags, load, loop, write. Here stand score, train and the
// table of all; the others stand beside what they are about: sft and reward in supervised.h, sample, bon and cache in
// draw.h, eval and merge in eval.h, offline in baselines.h, compact in compact.h, info in info.h, ks in ks.h, world in
// world.h.
//
// A command checks what it is given, then prints its start-up table, shows its progress, and writes nothing in place
// until it is whole. Runs that take long (sft, reward, train, offline, cache) can be killed at any moment and go on
// with --resume (cache, and every shard: by itself).
#pragma once
typedef struct { const char *name; void (*run)(const Args *a); const char *summary, *example; } Command;

#ifdef VBON_IMPLEMENTATION

#include "run.h"
#include "inputs.h"
#include "plan.h"
#include "shard.h"
#include "supervised.h"
#include "draw.h"
#include "eval.h"
#include "baselines.h"
#include "compact.h"
#include "info.h"
#include "ks.h"
#include "trace.h"

// ----------------------------------------------------------------------------
// score

// A line's text and prompt, with the ids that were sampled where it has them: they tell what a text cannot, as an
// end-of-text token. False: it has none, and a cache's key that says that they were not its text's.
static bool score_line(const Jsonl *in, const json_t *j, const Tokenizer *t, int eos, size_t V, size_t n, Prompt *p,
                       Response *r)
{
    const char *prompt, *text;
    json_t *ids = json_object_get(j, "ids"), *key = json_object_get(j, "key");
    bool same;
    CHECK_FIELDS(in, j, response_fields);
    jsonl_text(in, j, &prompt, &text);
    CacheSample s = {.text = (char *)text, .finished = json_is_true(json_object_get(j, "finished"))};
    if (ids) s.ids = read_ids(ids, &s.n_ids);
    else if ((s.has_key = is_hex(json_string_value(key)))) s.key = read_key(key);
    *p = (Prompt){.text = xstrdup(prompt ? prompt : ""), .where = format("%s:%zu", in->path, in->line)};
    p->ids = tokenizer_encode(t, p->text, strlen(p->text), &p->n);
    *r = (Response){.prompt = n};
    r->ids = sample_ids(&s, t, &r->n, &same);
    free(s.ids);
    r->finished = r->n && r->ids[r->n - 1] == eos;
    for (size_t i = 0; ids && i < r->n; i++) if ((size_t)r->ids[i] >= V)
        die("%s: \"ids\" holds %d, the model knows %zu tokens: leave \"ids\" out to score the text", p->where,
        r->ids[i], V);
    if (!r->n) die("%s: no text to score", p->where);
    // the text may show an end-of-text token
    char *said = utf8_mend(response_text(t, r)), *whole = utf8_mend(tokenizer_decode(t, r->ids, r->n, NULL));
    if (ids && strcmp(said, text) && strcmp(whole, text))
        die("%s: \"ids\" are not this tokenizer's for the text: leave \"ids\" out to score the text", p->where);
    free(said); free(whole);
    return same;
}

static void cmd_score(const Args *a)
{
    require(a->in, "in");
    require(a->out, "out");
    Shard shard;
    shard_open(&shard, a);
    AsideFile *out = shard.on ? NULL : out_file(a);
    Model m;
    Tokenizer *t = model_load_as(&m, device_ops(a), require(a->model, "model"), "model", false, TRAIN_NONE, false);
    Reward reward;
    int eos = tokenizer_end(t, a->reward != NULL); // for the text, which a reward gets without its end
    if (a->reward) open_reward(&reward, a, t);
    Pass pass = {0};
    // as many tokens as the longest text so far: the context may be any number where positions are rotary
    size_t room = 0;
    Jsonl in;
    jsonl_open(&in, a->in);
    enum { BLOCK = 256 };
    json_t *record[BLOCK];
    char *line[BLOCK]; // as it was read
    Prompt p[BLOCK];
    Response r[BLOCK];
    Sequence q;
    double *logp = NULL;
    size_t retokenised = 0, b = 0;
    json_t *weights = weights_json("model", &m, t, NULL);
    if (a->reward) json_object_set_new(weights, "reward", json_make("s", reward.what));
    shard_begin(&shard, a, "score", weights, NULL);
    start_table(a, "score");
    for (bool more = true; more; b++) {
        bool mine = shard_makes(&shard, b);
        size_t n = 0, tokens = (size_t)a->micro_tokens;
        while (n < BLOCK && (more = jsonl_next(&in, &record[n]))) {
            if (jsonl_header(record[n])) {
                printf("%s:%zu: a cache's header is not copied: what is written is no cache of its reward\n", a->in,
                       in.line);
                json_decref(record[n]);
                continue;
            }
            if (!mine) { json_decref(record[n++]); continue; }
            retokenised += !score_line(&in, record[n], t, eos, m.cfg.V, n, &p[n], &r[n]);
            if (p[n].n + r[n].n > m.cfg.max_T)
                die("%s: %zu tokens; the model's own context is %zu: shorten the text", p[n].where, p[n].n + r[n].n,
                m.cfg.max_T);
            if (p[n].n + r[n].n > tokens) tokens = p[n].n + r[n].n;
            line[n] = format("%.*s", (int)in.length, in.text);
            n++;
        }
        if (!n) break;
        if (!mine) continue;
        FILE *to = shard_block(&shard, shard.on ? NULL : out->f);
        if (tokens > room) {
            pass_free(&pass);
            pass_create(&pass, &m, tokens, false);
            logp = (double *)xrealloc(logp, tokens * sizeof *logp);
            room = tokens;
        }
        if (!shard.on) file_flush(to, a->out, false);
        if (a->reward) reward_assign(&reward, p, r, n, false);
        for (size_t i = 0; i < n; i++) {
            // of a text without a prompt the first token has nothing to be predicted from
            q = sequence_of(&p[i], &r[i]);
            json_t *lps = json_array();
            double sum = 0;
            size_t count = sequence_states(&q);
            if (count) sequence_logps(&pass, &m.p, &q, 1, a->temperature, logp, NULL);
            char *what = format("%s: the log-probability of a token", p[i].where);
            for (size_t k = 0; k < count; k++) { json_array_append_new(lps, json_number(logp[k], what,
                WEIGHTS_OR_TEMPERATURE)); sum += logp[k]; }
            json_t *ids = json_array();
            for (size_t k = 0; k < r[i].n; k++) json_array_append_new(ids, json_integer(r[i].ids[k]));
            json_t *ours = json_make("{s:o, s:o, s:o}", "tokens", ids, "logps", lps, "logp", json_number(sum, what,
                WEIGHTS_OR_TEMPERATURE));
            if (a->reward) json_object_set_new(ours, "reward", json_number(r[i].reward, "a reward",
                "look at --reward and its scale"));
            const char *key;
            json_t *v;
            // of a line that was scored before our fields replace its; another is copied as it is, to the last digit
            bool scored = false;
            json_object_foreach(ours, key, v) scored |= !json_object_del(record[i], key);
            json_t *exact = scored ? json_loads(line[i], 0, NULL) : NULL;
            if (scored && !exact)
                die("%s: was scored before and has an integer of more than 64 bits: leave \"tokens\", \"logps\", "
                    "\"logp\" and \"reward\" out",
                    p[i].where);
            json_decref(exact);
            char *theirs = scored ? json_text(record[i], JSON_COMPACT | JSON_REAL_PRECISION(17)) : xstrdup(line[i]),
                *more_fields = json_text(ours, JSON_COMPACT | JSON_REAL_PRECISION(9));
            fprintf(to, "%.*s,%s\n", (int)strlen(theirs) - 1, theirs, more_fields + 1);
            free(theirs); free(more_fields); free(line[i]); free(what);
            json_decref(ours); json_decref(record[i]);
            free(p[i].text); free(p[i].ids); free(p[i].where);
            response_free(&r[i]);
        }
        shard_put(&shard, b);
    }
    jsonl_close(&in);
    if (retokenised)
        printf("%s: %zu texts encode to other tokens than were sampled, and are scored as texts\n", a->in, retokenised);
    if (a->reward) reward_close(&reward);
    if (out) aside_commit(out);
    shard_close(&shard, a, b);
    pass_free(&pass);
    model_free(&m); tokenizer_free(t);
    free(logp);
}

// ----------------------------------------------------------------------------
// train

static void ppo_options(PpoOptions *o, const Args *a)
{
    *o = (PpoOptions){.groups = (size_t)a->groups, .temperature = a->temperature, .clip = a->clip,
        .value_clip = a->value_clip, .vf_coef = a->vf_coef, .gamma = a->gamma, .lambda = a->lambda,
        .score_clip = a->score_clip, .lr = a->lr,
        .episodes = a->episodes, .rollout = a->rollout, .minibatch = a->minibatch, .epochs = a->ppo_epochs,
        .max_new = a->max_new, .warmup = a->warmup, .schedule = &schedules[a->schedule],
        .tokens = (size_t)a->micro_tokens, .rows = decode_rows(a, 0), .seed = (uint64_t)a->seed,
        .fhat = &fhats[a->fhat], .critic = critic_used(a),
        .all_actions = (size_t)a->all_actions, .correction = a->correction,
        .objective.row = &objectives[a->objective], .adamw = adamw(a)};
    o->objective.k = a->k; o->objective.anchor_rate = a->anchor_rate; o->objective.anchor_kl = a->anchor_kl;
    for (const char *c = a->compat; *c;) {
        size_t len = strcspn(c, ",");
        if (len == 5 && !strncmp(c, "scale", 5)) o->objective.compat_scale = true;
        else if (len == 6 && !strncmp(c, "jointp", 6)) o->joint_p = true;
        else usage("--compat %s: scale, jointp, or both with a comma", a->compat);
        c += len + (c[len] == ',');
    }
    // the strength is n or beta: what the command line says, or what the objective takes, undoes the other one of a
    // preset, and its scaling
    int n = flag_given("n"), beta = flag_given("beta"), takes = o->objective.row->takes;
    if (flag_given("compat") == 1 && o->objective.row->score != vbon_score) o->objective.compat_scale = false;
    if (o->objective.compat_scale) takes |= TAKES_BETA; // as the released code, which makes n of it
    if (n == 1 && (beta == 2 || !(takes & TAKES_N))) n = 0;
    if (beta == 1 && (n == 2 || !(takes & TAKES_BETA))) beta = 0;
    o->objective.beta = beta ? a->beta : 0;
    o->objective.N = n || (!beta && takes & TAKES_N) ? a->n : 0;
    o->missing_eos = missing_eos(a);
    o->has_missing_eos = !isnan(o->missing_eos);
    static const struct { const char *flag, *objective; } own[] =
        {{"k", "bond"}, {"anchor-rate", "jbond"}, {"anchor-kl", "jbond"}};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (flag_given(own[i].flag) == 2 && strcmp(o->objective.row->name, own[i].objective))
            usage("--%s goes with --objective %s", own[i].flag, own[i].objective);
    offload_check(a);
    ObjectiveSpec tried = o->objective; // strengths that exclude each other are refused now, before anything is read
    objective_prepare(&tried);
    if (a->offload && tried.forward > 0)
        usage("--offload: the anchor of --objective %s draws beside the policy: leave it out", o->objective.row->name);
    if (o->critic->prefixes && o->fhat->exact)
        usage("--critic %s ranks prefixes among cached samples: it does not go with --fhat exact", o->critic->name);
    if (flag_given("correction") == 2 && !o->all_actions) usage("--correction goes with --all-actions");
    all_actions_check(a, tried.forward);
}

// What `auto` comes to, by what did best on two sizes of model (dev/results/imdb). A policy that has far to go from the
// reference has gradients that stand further out of their noise, so the rate grows with the root of Best-of-N's KL,
// log N - (N-1)/N; across sizes it falls as what Adam moves grows, with width and the root of depth (Yang et al. 2022,
// 2023), so as 1 / sqrt(parameters). reads_ids: so the reward scores all prefixes. Returns what was chosen, by flag, or
// NULL: nothing.
static json_t *train_auto(PpoOptions *o, const Args *a, size_t parameters, bool reads_ids)
{
    json_t *chosen = json_object();
    if (a->critic == CRITIC_AUTO) json_object_set_new(chosen, "critic", json_make("s", o->critic->name));
    if (isnan(a->lambda)) {
        o->lambda = !o->critic->prefixes ? 1 : reads_ids ? 0.7 : 0.9;
        json_object_set_new(chosen, "lambda", json_real(o->lambda));
    }
    if (isnan(a->lr)) {
        const double of_16 = log(16) - 15. / 16;
        double N = fmax((double)o->objective.N, 2), of_N = o->objective.N ? log(N) - (N - 1) / N : of_16;
        o->lr = 0.42 / sqrt((double)parameters) * sqrt(of_N / of_16) / (o->critic->value_head ? 2 : 1);
        char text[32];
        snprintf(text, sizeof text, "%.2g", o->lr); // a rate that can be said
        json_object_set_new(chosen, "lr", json_real(o->lr = o->adamw.lr = atof(text)));
    }
    if (json_object_size(chosen)) return chosen;
    json_decref(chosen);
    return NULL;
}

static void train_step(Run *r)
{
    Ppo *p = (Ppo *)r->context;
    p->iteration = r->done;
    ppo_iteration(p);
}

static size_t train_record(Run *r, Metric *x)
{
    const Ppo *p = (const Ppo *)r->context;
    memcpy(x, p->metrics, p->n_metrics * sizeof *x);
    return p->n_metrics;
}

static void cmd_train(const Args *asked)
{
    Args own = *asked, *a = &own;
    static const Column shown[] = {
        {"objective/scores", "reward"}, {"vbon/distance", "distance"}, {"objective/kl", "KL"}, {NULL, NULL}};
    PpoOptions opt;
    ppo_options(&opt, a);
    require(a->model, "model"); require(a->reward, "reward");
    bool cached = opt.objective.row->cached || opt.critic->prefixes || a->cache;
    if (cached) require(a->cache, "cache");
    Run r;
    run_keep(a);
    if (!run_open(&r, a, "train")) return;
    plan_run(a, JOB_TRAIN, a->model, 0, 1);
    Model m;
    Tokenizer *t = model_load_as(&m, device_ops(a), a->model, "model", false, a->train_layers, opt.critic->value_head);
    m.recompute = a->recompute;
    if (opt.critic->value_head) value_head_random(&m, (uint64_t)a->seed);
    opt.eos = tokenizer_eos(t);
    size_t n, longest = 1;
    Prompt *prompts = prompts_load(a, t, m.cfg.max_T, &n, false);
    for (size_t i = 0; i < n; i++) if (prompts[i].n > longest) longest = prompts[i].n;
    plan_run(a, JOB_TRAIN, a->model, longest, 1);
    opt.rows = decode_rows(a, 0);
    opt.tokens = (size_t)a->micro_tokens;
    Reward reward;
    open_reward(&reward, a, t);
    reward.every = (size_t)a->prefix_every;
    if (opt.all_actions && !(reward.same_tokenizer && reward.m.cfg.V >= m.cfg.V))
        usage("--all-actions: %s cannot score the policy's tokens one by one: name a causal reward model with the "
              "policy's tokenizer, or leave it out", a->reward);
    json_t *chosen = train_auto(&opt, a, param_count(&m, 0), reward.same_tokenizer);
    Cdf *cdf = cached ? cdfs_load(prompts, n, a, &m, t, &reward) : NULL;
    size_t least = SIZE_MAX;
    for (size_t i = 0; i < n && cached; i++) if (cdf[i].M < least) least = cdf[i].M;
    double N = opt.objective.N > 0  ? (double)opt.objective.N
        : opt.objective.row->cached ? 1 / opt.objective.beta + 1
                                    : 1;
    if (opt.objective.row->cached && N > (double)least && !opt.fhat->exact)
        printf(
            "warning: N = %g is larger than M = %zu: every response above the best cached sample gets the same score\n",
            N, least);
    Turns turns = {.o = m.o};
    if (a->offload) { reward_offload(&reward, &turns); opt.turns = &turns; }
    Ppo p;
    ppo_create(&p, &opt, &m, prompts, cdf, n, reward_assign, &reward); // the reference is the model as loaded
    p.clock = clock_seconds;
    p.score_candidates = reward_candidates;
    double MiB[] = {(double)m.params.high, (double)m.optim.high, (double)p.ref_arena.high, (double)p.work.high};
    for (int i = 0; i < 4; i++) MiB[i] /= 1048576;
    printf("memory: weights %.1f, gradients and moments %.1f, reference %.1f, work %.1f MiB,\n"
           "        and the packed weights (vbon info has the pieces)\n",
           MiB[0], MiB[1], MiB[2], MiB[3]);
    long iterations = (opt.episodes + opt.rollout - 1) / opt.rollout;
    r.weights = weights_json("model", &m, t, &reward);
    r.chosen = chosen;
    const char *flag;
    json_t *value;
    json_object_foreach(chosen, flag, value) {
        char *text = json_text(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
        printf("auto: --%s %s\n", flag, json_is_string(value) ? json_string_value(value) : text);
        free(text);
    }
    printf("%zu parameters, %zu train; %zu prompts; %ld iterations of %ld episodes\n", param_count(&m, 0),
           param_count(&m, m.first), n, iterations, opt.rollout);
    r.m = &m; r.context = &p; r.tokenizer_dir = a->model; r.steps = iterations; r.unit = "iterations";
    r.state[0] = (State){"critic", p.critic, (size_t)opt.max_new * opt.critic->state};
    r.n_state = opt.critic->state ? 1 : 0;
    if (p.anchor.average) r.state[r.n_state++] = (State){"anchor", p.anchor.average, p.anchor.weights.n};
    r.step = train_step; r.record = train_record; r.shown = shown;
    if (a->trace) r.trace = trace_rollout;
    run_steps(&r);
    reward_close(&reward);
    printf("seconds: rollouts %.1f, rewards %.1f, updates %.1f\n", p.seconds_rollout, p.seconds_reward,
           p.seconds_update);
    ppo_free(&p); turns_free(&turns);
    prompts_free(prompts, n); cdfs_free(cdf, n); model_free(&m); tokenizer_free(t);
}

#include "world.h" // it has the options of train, above

// ----------------------------------------------------------------------------

static const Command commands[] = {
    {"sft", cmd_sft, "train a language model from scratch, or fine-tune one, on JSONL text",
     "vbon sft --tokenizer dev/demo/tokenizer --data train.jsonl --held-out test.jsonl --layers 4 --width 128 --lr "
     "3e-3 --out runs/lm"},
    {"reward", cmd_reward, "train a reward model on labels or on preference pairs",
     "vbon reward --init runs/lm --layers 3 --context 64 --data train.jsonl --held-out test.jsonl --lr 1e-3 --out "
     "runs/rm"},
    {"sample", cmd_sample, "draw responses", "vbon sample --model dev/demo/lm --prompt \"This film\" --samples 3"},
    {"bon", cmd_bon, "Best-of-N at inference",
     "vbon bon --model dev/demo/lm --reward dev/demo/rm --prompts dev/demo/prompts_test.jsonl --n 16 --max-new 24 "
     "--out bon.jsonl"},
    {"score", cmd_score, "log-probabilities and rewards of given texts",
     "vbon score --model dev/demo/lm --reward dev/demo/rm --in texts.jsonl --out scored.jsonl"},
    {"cache", cmd_cache, "sample the reference and its rewards: what F-hat is made from",
     "vbon cache --model dev/demo/lm --reward dev/demo/rm --prompts dev/demo/prompts.jsonl --samples 32 --max-new 24 "
     "--out cache.jsonl"},
    {"compact", cmd_compact, "a cache as one line a prompt, with the ids of those draws that offline training reads",
     "vbon compact --cache cache.jsonl --draws 6 --ns 2,4,8,16 --out cache_kept.jsonl"},
    {"train", cmd_train, "PPO: vBoN (exact, or the bounds L and L1), or KL-regularised reward; BOND and J-BOND",
     "vbon train --model dev/demo/lm --reward dev/demo/rm --cache cache.jsonl --n 16 --max-new 24 --out "
     "runs/vbon16"},
    {"offline", cmd_offline,
     "the baselines that learn from the cache or from preferences alone: DPO, IPO, BoNBoN, supervised training on the "
     "best of N",
     "vbon offline --model dev/demo/lm --cache cache.jsonl --loss bonbon --n 16 --lr 1e-4 --out runs/bonbon16"},
    {"eval", cmd_eval, "KL, distance to Best-of-N, win rate and reward on held-out prompts",
     "vbon eval --model runs/vbon16 --reference dev/demo/lm --reward dev/demo/rm --cache cache_test.jsonl --ns 4,16 "
     "--samples 8 --max-new 24"},
    {"merge", cmd_merge, "join the shards that cache, bon, score or eval wrote by --shard",
     "vbon merge --out cache.jsonl"},
    {"ks", cmd_ks, "do M samples a prompt suffice? Kolmogorov-Smirnov tests and the error of log F-hat, by M",
     "vbon ks --cache cache_test.jsonl --ms 5,20,50 --curves auto --out ks.json"},
    {"info", cmd_info, "a model's configuration, parameters and memory plan",
     "vbon info --model dev/demo/lm --memory 1GB"},
    {"world", cmd_world, "a language of 40 strings, all listed: watch training go to its optimum, beside the others'",
     "vbon world --objective vbon --n 4"},
};
static const size_t n_commands = sizeof commands / sizeof *commands;
#endif
