// plan.h: what memory a whole job needs, before anything is allocated, and which flags make it need less.
//
// A plan is no estimate: the functions that lay a run's memory out (model_create, packs_carve, generator_carve,
// pass_carve, reward_carve, distilbert_load) run in their measuring pass, on an op table that has types and sizes
// alone. So a plan for --device cuda needs neither a device nor a build with CUDA. `vbon info` prints one; on a device
// `train`, `cache` and what else draws or trains choose --decode-rows and --micro-tokens by one where they are not
// given, and stop before they load a model that does not fit.
//
// Not in it: on the CPU the program itself, the tokenizer, the prompts, their cached rewards and their prefixes'
// scores, and the scratch memory of single operations (a few chunks of logits, of 64 MiB each); a reward program; that
// a reward model with another tokenizer than the policy's may read more tokens.
#pragma once
#ifdef VBON_IMPLEMENTATION
#include "cuda_plan.h"

typedef struct {
    size_t kind;                           // JOB_...
    const Ops *o;                          // only its type and sizes are looked at
    Config model, reference;               // reference: of eval
    Config reward; bool has_reward;        // a causal reward model
    const char *bert;                      // or the folder of a DistilBERT
    long train_layers; bool value_head, recompute, offload;
    bool average;                          // --average: the trained weights' moving average
    size_t draws; bool moving;             // of bond and jbond: the anchor's to a prompt; it has weights of its own
    size_t actions;                        // --all-actions: candidates a state
    size_t rollout, minibatch, batch;      // of train: episodes; of offline: comparisons
    size_t groups, ranks;                  // --groups, processes
    size_t tokens, rows;                   // --micro-tokens, --decode-rows
    size_t share;                          // how many responses of a prompt are drawn side by side
    size_t max_prompt, max_new;            // tokens
    size_t longest;                        // the fewest tokens that a pass must have room for
} JobSpec;

// Memory in bytes. What a job has throughout, and what it has in either of two phases: `total` has the larger one.
typedef struct { const char *family, *name; double bytes; int phase; } PlanPiece; // phase -1: throughout
typedef struct {
    PlanPiece piece[64];
    size_t n;
    double always, phase[2], total;
    double turns;  // of one that takes turns in it, all that `always` has for them; a larger one adds what is missing
    double device; // part of `always`: what CUDA and its libraries have by themselves
    double host;   // not in the total: the rollout's responses, where the device is not the host
} Plan;

// What CUDA has with this program's and cuBLASLt's kernels loaded, beside what the program allocates: on an H200 with
// driver 580, by nvidia-smi less the plan, 540 MiB where models are small and 190 to 340 where plans are of 2 to 4 GiB,
// so that a whole plan was up to 9 % more than was used. Other cards and drivers: not measured.
static const double cuda_context = 540 * 1048576.0;

static const Ops *plan_ops(const Args *a) // an op table for plans alone
{
    static Ops sizes;
    if (a->device == DEVICE_CPU) sizes = *ops_cpu();
    else
        sizes = (Ops){.name = "cuda", .type = device_type(a), .packed_size = cuda_packed_size,
            .head_rows = cuda_head_rows, .vocabulary_rows = cuda_vocabulary_rows};
    sizes.moments_8bit = a->optimizer_state == OPTIMIZER_8BIT;
    sizes.parts = a->zero ? (size_t)a->ranks : 0;
    return &sizes;
}

static void plan_piece(Plan *p, const char *family, const char *name, double bytes, int phase)
{
    if (bytes <= 0) return;
    if (p->n < sizeof p->piece / sizeof *p->piece) p->piece[p->n++] = (PlanPiece){family, name, bytes, phase};
    *(phase < 0 ? &p->always : &p->phase[phase]) += bytes;
}

static void plan_arena(Plan *p, const char *family, const Arena *a, int phase)
{
    for (size_t i = 0; i < a->n_pieces; i++)
        plan_piece(p, family, a->pieces[i].name, (double)a->pieces[i].bytes, phase);
}

static void plan_weights(Plan *p, const char *family, Model *m, const JobSpec *j, const Config *c, long train_layers,
                       bool value_head, bool packed, int phase)
{
    model_create(m, j->o, c, train_layers, value_head, true);
    plan_arena(p, family, &m->params, phase);
    plan_arena(p, family, &m->optim, phase);
    if (j->average && m->first < m->n_params)
        plan_piece(p, family, "averaged weights", (double)m->own_n * sizeof(real), phase);
    if (packed) packs_carve(m);
    plan_arena(p, family, &m->packs, phase);
}

static void plan_reward(Plan *p, const JobSpec *j, CudaScratch *s, int phase)
{
    if (j->bert) {
        DistilBert d;
        distilbert_load(&d, j->o, j->bert, j->tokens, true);
        plan_arena(p, "reward model", &d.m.params, phase);
        plan_arena(p, "reward model", &d.work, phase);
        distilbert_free(&d);
        return;
    }
    if (!j->has_reward) return;
    Reward r = {.tokens = j->tokens, .work = {.o = j->o}};
    if (j->offload && j->kind == JOB_TRAIN) {
        model_create(&r.m, j->o, &j->reward, TRAIN_NONE, false, true);
        p->host += (double)r.m.params.high;
        plan_piece(p, "reward model", "weights, over reference", fmax((double)r.m.params.high - p->turns, 0), phase);
    } else plan_weights(p, "reward model", &r.m, j, &j->reward, TRAIN_NONE, false, true, phase);
    reward_carve(&r, j->max_prompt, j->max_new);
    plan_arena(p, "reward model", &r.work, phase);
    cuda_scratch(s, &j->reward, j->o->type, r.room, 0, false, false);
    acts_free(&r.acts); kv_free(&r.prompts); kv_free(&r.own); model_free(&r.m);
}

// In bytes, what a PPO run keeps of a rollout's responses, and of an anchor that draws too, beside its work; on CUDA
// too that is in the host's memory. trained: parameters. In double: the flags allow more than 64 bits hold.
static double plan_rollout(const JobSpec *j, double trained)
{
    double episodes = (double)j->rollout, max_new = (double)j->max_new, draws = episodes * (double)j->draws;
    Rollout r;
    double **arrays[] = ROLLOUT_ARRAYS(&r);
    double a_response = sizeof *r.y + sizeof *r.seq + sizeof *r.micro + sizeof *r.at + sizeof *r.place + sizeof(size_t);
    double an_action = sizeof arrays / sizeof *arrays * sizeof(double) + sizeof *r.y->ids + sizeof *r.y->logp;
    if (j->actions) an_action += sizeof(double) + (double)j->actions * (sizeof(int) + 3 * sizeof(double));
    double token = sizeof *r.y->ids + sizeof *r.y->logp, a_draw = sizeof *r.y + sizeof(double) + sizeof(uint64_t);
    double anchor = draws * (a_draw + max_new * token) + (j->draws ? episodes * sizeof *r.seq : 0);
    anchor += j->draws ? trained * sizeof(real) : 0; // on their way
    anchor += j->moving ? (trained + episodes * max_new) * sizeof(double) : 0;
    return episodes * (a_response + max_new * an_action) + anchor;
}

// What groups_create takes: sums of groups that wait for their neighbours', and room for those of another process.
static void plan_groups(Plan *p, const JobSpec *j, const Model *m)
{
    size_t n = m->n_params - m->first, ranks = j->ranks ? j->ranks : 1, room = parallel_room(ranks, n);
    for (size_t own = j->groups / ranks; own > 1; own /= 2)
        plan_piece(p, "policy", "gradients of groups", (double)n * sizeof(real), -1);
    plan_piece(p, "policy", "from another process", (double)room * sizeof(real), -1);
}

static size_t smaller(double a, double b) { return (size_t)(a < b ? a : b); }

static void plan_train(Plan *p, const JobSpec *j, CudaScratch *s)
{
    Model m;
    plan_weights(p, "policy", &m, j, &j->model, j->train_layers, j->value_head, true, -1);
    m.recompute = j->recompute;
    plan_groups(p, j, &m);
    Ppo ppo = {.policy = &m, .max_prompt = j->max_prompt, .work = {.o = j->o},
        .opt = {.rollout = (long)j->rollout, .minibatch = (long)j->minibatch, .max_new = (long)j->max_new,
            .tokens = j->tokens, .rows = j->rows, .groups = j->groups}, .anchor.K = j->draws,
        .candidates.K = j->actions};
    Arena reference = {.o = j->o};
    size_t trained = m.n_params - m.first;
    arena_take(&reference, trained, j->o->type, "copy of what trains");
    if (j->moving) arena_take(&reference, trained, j->o->type, "anchor");
    plan_arena(p, "reference", &reference, -1);
    if (j->offload) p->turns = (double)reference.high;
    phase_sample(&ppo);
    plan_arena(p, "rollout", &ppo.work, 0);
    phase_update(&ppo);
    plan_arena(p, "update", &ppo.work, 1);
    double host = plan_rollout(j, (double)trained);
    if (j->o->type == DT_REAL && !strcmp(j->o->name, "cpu")) plan_piece(p, "rollout", "responses", host, -1);
    else p->host = host + p->turns;
    double states = (double)j->rollout * (double)j->max_new, tokens = (double)j->tokens;
    cuda_scratch(s, &j->model, j->o->type, ppo.gen.tokens, ppo.gen.rows, false, false);
    cuda_scratch_decode(s, &j->model, j->o->type, ppo.gen.rows, j->max_prompt);
    cuda_scratch(s, &j->model, j->o->type, j->tokens, smaller(states, tokens), false, false);
    cuda_scratch(s, &j->model, j->o->type, j->tokens, smaller((double)j->minibatch * (double)j->max_new, tokens), true,
        false);
    generator_free(&ppo.gen); pass_free(&ppo.pass); model_free(&m);
    plan_reward(p, j, s, -1);
}

static void plan_drawing(Plan *p, const JobSpec *j, CudaScratch *s, const char *family, int phase)
{
    Model m;
    Generator g = {0};
    Arena work = {.o = j->o};
    plan_weights(p, family, &m, j, &j->model, TRAIN_NONE, false, true, -1);
    generator_carve(&g, &m, &work, j->rows, prompt_slots(j->rows, j->share), j->tokens, j->max_prompt, j->max_new);
    plan_arena(p, "sampling", &work, phase);
    cuda_scratch(s, &j->model, j->o->type, g.tokens, g.rows, false, false);
    cuda_scratch_decode(s, &j->model, j->o->type, g.rows, j->max_prompt);
    generator_free(&g); model_free(&m);
}

// Of jobs with two phases: s[0] is scratch memory from the first one on, s[1] from the second one on.
static void plan_offline(Plan *p, const JobSpec *j, CudaScratch s[2])
{
    Model m;
    Pass pass = {0};
    Arena work = {.o = j->o};
    plan_weights(p, "model", &m, j, &j->model, j->train_layers, false, false, -1);
    m.recompute = j->recompute;
    plan_groups(p, j, &m);
    plan_reward(p, j, s, 0); // its check of the cache comes first
    pass_carve(&pass, &m, &work, j->tokens, true);
    plan_arena(p, "training", &work, 1);
    double states = 2 * (double)j->batch * (double)j->max_new;
    cuda_scratch(s + 1, &j->model, j->o->type, j->tokens, j->tokens, false, false); // before the first step, of all
    cuda_scratch(s + 1, &j->model, j->o->type, j->tokens, smaller(states, (double)j->tokens), true, false);
    pass_free(&pass); model_free(&m);
}

static void plan_eval(Plan *p, const JobSpec *j, CudaScratch s[2])
{
    Model m, ref;
    Pass sp = {0}, sr = {0};
    Arena work = {.o = j->o};
    plan_drawing(p, j, s, "policy", -1);
    plan_reward(p, j, s, -1); // it judges block by block, as they are measured
    plan_weights(p, "reference", &ref, j, &j->reference, TRAIN_NONE, false, false, -1);
    model_create(&m, j->o, &j->model, TRAIN_NONE, false, true);
    size_t tokens = j->tokens > j->longest ? j->tokens : j->longest;
    pass_carve(&sp, &m, &work, tokens, false);
    pass_carve(&sr, &ref, &work, tokens, false);
    arena_take(&work, tokens, DT_REAL, "head");
    plan_arena(p, "measuring", &work, 1);
    cuda_scratch(s + 1, &j->model, j->o->type, tokens, tokens, false, false);
    cuda_scratch(s + 1, &j->model, j->o->type, tokens, j->max_new, false, true); // a response at a time
    pass_free(&sp); pass_free(&sr); model_free(&m); model_free(&ref);
}

static void plan_device(Plan *p, const JobSpec *j, const CudaScratch s[2])
{
    if (strcmp(j->o->name, "cuda")) return;
    double first = (double)s[0].first, second = (double)s[0].second;
    plan_piece(p, "device", "scratch of operations", first + second, -1);
    plan_piece(p, "device", "and more of it", fmax((double)s[1].first - first, 0), 1);
    plan_piece(p, "device", "and more of it", fmax((double)s[1].second - second, 0), 1);
    p->device = cuda_context + (double)cuda_workspace;
    plan_piece(p, "device", "workspace of products", (double)cuda_workspace, -1);
    plan_piece(p, "device", "CUDA's context", cuda_context, -1);
}

static void plan_job(Plan *p, const JobSpec *j)
{
    CudaScratch s[2] = {{0, 0}, {0, 0}};
    *p = (Plan){0};
    switch (j->kind) {
    case JOB_TRAIN: plan_train(p, j, s); break;
    case JOB_CACHE: plan_drawing(p, j, s, "reference", -1); plan_reward(p, j, s, -1); break;
    case JOB_OFFLINE: plan_offline(p, j, s); break;
    case JOB_EVAL: plan_eval(p, j, s); break;
    }
    plan_device(p, j, s);
    p->total = p->always + (p->phase[0] > p->phase[1] ? p->phase[0] : p->phase[1]);
}

static size_t rows_most(const JobSpec *j, size_t groups) // that are ever drawn at once, a group at a time
{
    double group = ceil((double)j->rollout / (double)groups), all = group * (double)(j->draws ? j->draws : 1);
    return j->kind == JOB_TRAIN ? smaller(all, 1e9) : SIZE_MAX;
}

// Halves rows and tokens, one at a time, whichever brings the total down further, until it is at most `limit` or
// nothing helps any more; as few tokens as the longest text has. True: it fits.
static bool plan_fit(JobSpec *j, Plan *p, double limit, bool rows, bool tokens)
{
    for (plan_job(p, j); p->total > limit;) {
        JobSpec by[2] = {*j, *j};
        Plan plan[2];
        by[0].rows = (j->rows < rows_most(j, j->groups) ? j->rows : rows_most(j, j->groups)) / 2;
        by[1].tokens = j->tokens / 2 > j->longest ? j->tokens / 2 : j->longest;
        bool can[2] = {rows && by[0].rows > 0 && j->kind != JOB_OFFLINE, tokens && by[1].tokens < j->tokens};
        int best = -1;
        for (int i = 0; i < 2; i++) {
            if (!can[i]) continue;
            plan_job(&plan[i], &by[i]);
            if (plan[i].total < (best < 0 ? p->total : plan[best].total)) best = i;
        }
        if (best < 0) return false;
        *j = by[best];
        *p = plan[best];
    }
    return true;
}

// The flags that make a job that needs `now` fit, and what it needs with them, malloc'd; fits: whether anything does.
// What is tried: rows and tokens; with them --recompute, --offload, of several processes --zero, 8-bit moments and a
// group a process, what keeps the bits before what does not; with all of these, fewer blocks that train.
static char *plan_remedy(const JobSpec *now, double limit, bool *fits)
{
    enum { RECOMPUTE = 1, OFFLOAD = 2, ZERO = 4, MOMENTS = 8, GROUPS = 16, ALL = 31 };
    JobSpec j, most;
    Plan p;
    Ops ops[ALL + 1];
    bool trains = now->kind == JOB_TRAIN || now->kind == JOB_OFFLINE, device = !strcmp(now->o->name, "cuda");
    bool offloads = now->kind == JOB_TRAIN && !now->draws && device;
    *fits = false;
    for (int add = 0; !*fits && add <= (trains ? ALL : 0); add++) {
        if ((add & RECOMPUTE && now->recompute) || (add & OFFLOAD && (now->offload || !offloads)) ||
            (add & ZERO && (now->o->parts || now->ranks == 1)) || (add & GROUPS && now->groups == now->ranks) ||
            (add & MOMENTS && (now->o->moments_8bit || now->average))) continue;
        j = *now;
        ops[add] = *now->o;
        if (add & ZERO) ops[add].parts = now->ranks;
        if (add & MOMENTS) ops[add].moments_8bit = true;
        if (add & GROUPS) j.groups = now->ranks;
        j.o = &ops[add];
        if (add & RECOMPUTE) j.recompute = true;
        if (add & OFFLOAD) j.offload = true;
        most = j;
        *fits = plan_fit(&j, &p, limit, true, true);
    }
    long K = j.train_layers == TRAIN_ALL ? (long)j.model.L : j.train_layers;
    for (K -= j.train_layers != TRAIN_ALL; !*fits && trains && K > 0; K /= 2) {
        j = most;
        j.train_layers = K;
        *fits = plan_fit(&j, &p, limit, true, true);
    }
    char *layers = j.train_layers != now->train_layers ? format(" --train-layers %ld", j.train_layers) : xstrdup("");
    char *rows = j.rows != now->rows ? format(" --decode-rows %zu", j.rows) : xstrdup("");
    char *tokens = j.tokens != now->tokens ? format(" --micro-tokens %zu", j.tokens) : xstrdup("");
    char *groups = j.groups != now->groups ? format(" --groups %zu", j.groups) : xstrdup("");
    char *flags = format("%s%s%s%s%s%s%s%s", layers, rows, tokens, j.recompute && !now->recompute ? " --recompute" : "",
                         j.offload && !now->offload ? " --offload" : "",
                         j.o->parts && !now->o->parts ? " --zero 1" : "",
                         j.o->moments_8bit && !now->o->moments_8bit ? " --optimizer-state 8bit" : "", groups);
    char *s = *fits ? format("with%s it needs %.1f MiB", flags, p.total / 1048576)
        : *flags    ? format("even with%s it needs %.1f MiB: take a smaller model, or shorter prompts", flags,
                             p.total / 1048576)
                    : xstrdup("fewer --decode-rows or --micro-tokens do not help: take a smaller model");
    free(layers); free(rows); free(tokens); free(groups); free(flags);
    return s;
}

static void offload_check(const Args *a)
{
    if (a->offload && a->device == DEVICE_CPU)
        usage("--offload: on the CPU there is no other memory to go to: leave it out, or add --device cuda");
}

static double memory_limit(const Args *a) // bytes; 0: none was named
{
    static const struct {
        const char *name;
        double bytes;
    } units[] = {{"GB", 1e9}, {"GiB", 1073741824.0}, {"MB", 1e6}, {"MiB", 1048576.0}};
    if (!a->memory) return 0;
    char *unit;
    double limit = strtod(a->memory, &unit);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (!strcmp(unit, units[i].name) && limit > 0 && isfinite(limit)) return limit * units[i].bytes;
    usage("--memory %s: a number and GB, GiB, MB or MiB", a->memory);
}

// ----------------------------------------------------------------------------
// before a run on a device

static bool is_config(const char *path) // a config.json by itself
{
    size_t n = strlen(path);
    return n > 5 && !strcmp(path + n - 5, ".json") && exists(path);
}

// What the flags say of a job; prompts of at most max_prompt tokens (offline: pairs of texts), `share` responses of
// each side by side.
static void job_of(JobSpec *j, size_t kind, const Args *a, const Config *model, const Ops *o, size_t max_prompt,
                   size_t share)
{
    *j = (JobSpec){.kind = kind, .o = o, .model = *model, .reference = *model, .train_layers = a->train_layers,
        .value_head = kind == JOB_TRAIN && critic_used(a)->value_head, .recompute = a->recompute, .offload = a->offload,
        .rollout = (size_t)a->rollout,
        .minibatch = (size_t)a->minibatch, .batch = (size_t)a->batch,
        .groups = a->groups ? (size_t)a->groups : 1, .ranks = (size_t)a->ranks, .tokens = (size_t)a->micro_tokens,
        .rows = (size_t)a->decode_rows,
        .share = share, .max_prompt = max_prompt, .max_new = (size_t)a->max_new,
        .longest = max_prompt + (kind == JOB_OFFLINE ? 0 : (size_t)a->max_new)};
    if (kind == JOB_TRAIN || kind == JOB_OFFLINE) j->average = a->average > 0;
    if (kind == JOB_TRAIN) {
        j->actions = (size_t)a->all_actions;
        ObjectiveSpec goal = {.row = &objectives[a->objective], .N = a->n > 1 ? a->n : 2, .beta = 1, .k = a->k,
            .anchor_rate = a->anchor_rate};
        goal.row->weights(&goal);
        all_actions_check(a, goal.forward);
        if (goal.forward > 0) j->draws = (size_t)(goal.best > goal.k ? goal.best : goal.k);
        j->moving = j->draws && goal.anchor_rate > 0;
    }
    if (!j->rows) j->rows = kind == JOB_TRAIN ? 512 : 256;
    if (j->rows > rows_most(j, 1)) j->rows = rows_most(j, 1);
    if (kind == JOB_OFFLINE && j->tokens < j->longest) j->tokens = j->longest; // as it does itself
    bool model_there = a->reward && (is_folder(a->reward) || is_config(a->reward));
    if (model_there && is_distilbert(a->reward)) j->bert = a->reward;
    else if (model_there) {
        config_read_as(&j->reward, a->reward, "reward", true);
        j->has_reward = true;
    }
    if (kind == JOB_EVAL && a->reference) config_read_as(&j->reference, a->reference, "reference", false);
}

#ifdef VBON_CUDA
static void heads_check(const CudaLimits *l, const Config *c, const char *what)
{
    size_t HS = c->arch ? c->C / c->NH : 0;
    if (c->arch && l->shared < cuda_shared(HS))
        die("--device cuda: %s has %zu bytes of shared memory a block; attention with the heads of %zu of the %s needs "
            "%zu: leave --device out, or take another device",
            l->name, l->shared, HS, what, cuda_shared(HS));
}
#endif

// On a device: chooses --decode-rows and --micro-tokens where they are not given, as the memory there is allows, and
// says so; what they are changes results by rounding alone. Dies, before anything long has run, when nothing fits.
// Asked twice: before any model is loaded, the longest prompt 0 (not known yet), and with the longest prompt. On the
// CPU nothing is chosen. Memory is what the flags allow, or what was free at the first call.
static void plan_run(Args *a, size_t kind, const char *model, size_t longest, size_t share)
{
    if (a->device == DEVICE_CPU) {
        if (a->memory) usage("--memory says what may be used of a GPU: it goes with --device cuda, and with info");
        return;
    }
#ifdef VBON_CUDA
    static double memory;
    bool alone = !a->shard && parallel_ranks() == 1; // else all come to the same, whatever memory each of them has
    bool rows = alone && !a->decode_rows && !a->kept, tokens = alone && !flag_given("micro-tokens") && !a->kept, fits;
    JobSpec j;
    Plan p;
    Config c;
    const Ops *o = device_ops(a);
    CudaLimits l = cuda_limits();
    config_read_as(&c, model, kind == JOB_EVAL && model == a->reference ? "reference" : "model", false);
    job_of(&j, kind, a, &c, o, longest ? longest : 1, share);
    heads_check(&l, &j.model, "model"); heads_check(&l, &j.reward, "reward model");
    heads_check(&l, &j.reference, "reference");
    if (rows) j.rows = rows_most(&j, 1) < 1024 ? rows_most(&j, 1) : 1024;
    if (tokens && j.tokens < j.longest) j.tokens = j.longest;
    // not all that is free: memory comes in pages, and the driver takes some as kernels are first used
    if (!memory) memory = 0.97 * (double)l.memory + cuda_context + (double)cuda_workspace;
    if (a->memory) memory = fmin(memory, memory_limit(a));
    JobSpec asked = j;
    if (!plan_fit(&j, &p, memory, rows, tokens)) {
        const PlanPiece *most = &p.piece[0]; // what CUDA has by itself stands last
        for (size_t i = 1; i < p.n && strcmp(p.piece[i].family, "device"); i++)
            if (p.piece[i].bytes > most->bytes) most = &p.piece[i];
        if (a->kept)
            die("not enough device memory to go on as this began: it needs %.1f MiB, and may have %.1f: free some, or "
                "add --recompute to train or offline, --offload to train",
                p.total / 1048576, memory / 1048576);
        char *remedy = plan_remedy(&asked, memory, &fits);
        die("not enough device memory: %s needs %.1f MiB, the %s's %s being %.1f of it, and may have %.1f: %s (vbon "
            "info --job %s --device cuda has the whole plan)",
            jobs[kind].name, p.total / 1048576, most->family, most->name, most->bytes / 1048576, memory / 1048576,
            remedy, jobs[kind].name);
    }
    if (!longest) return;
    if (rows || !a->decode_rows) a->decode_rows = (long)j.rows; // what was asked for stays as it was said
    if (tokens) a->micro_tokens = (long)j.tokens;
    char *decode = kind == JOB_OFFLINE ? xstrdup("") : format("--decode-rows %zu and ", j.rows);
    fprintf(notes(), "device memory: %.1f MiB of %.1f, with %s--micro-tokens %zu%s\n", p.total / 1048576,
            memory / 1048576, decode, j.tokens,
            a->kept          ? ", as it began"
            : rows && tokens ? ", chosen by the memory there is"
            : rows           ? ", the rows chosen by the memory there is"
            : tokens         ? ", the tokens chosen by the memory there is"
                             : "");
    free(decode);
#else
    (void)kind; (void)model; (void)longest; (void)share;
#endif
}
#endif
