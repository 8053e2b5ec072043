// info.h: `vbon info`: what a model is, and what a PPO run with it would need, by family, before anything is allocated
// (of sft, offline and sample: the sum).
//
// The plan is no estimate: the same functions that lay a run's memory out (model_create, packs_carve, generator_carve,
// pass_carve, reward_carve) run in their measuring pass, for the flags given. It works from config.json alone; where
// the folder has weights, their names and shapes are checked too. Not in it: the program itself, the tokenizer, the
// prompts, their cached rewards and their prefixes' scores, and the scratch of single operations (a few chunks of
// logits, on the CPU of 64 MiB each).
#pragma once
#ifdef VBON_IMPLEMENTATION

// One line a piece (without a family: none), and its bytes are added to the total
static void arena_print(const char *family, const Arena *a, double *total)
{
    for (size_t i = 0; i < a->n_pieces && family; i++)
        printf("  %-24s %-24s %12.1f MiB\n", family, a->pieces[i].name, (double)a->pieces[i].bytes / 1048576);
    *total += (double)a->high;
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

static void print_model(const char *what, const Model *m)
{
    const Config *c = &m->cfg;
    printf("%s: %s%s, %zu blocks, %zu heads, width %zu, inner %zu, vocabulary %zu, context %zu, %s head", what,
           c->arch->name, c->scalar_head ? " reward model" : "", c->L, c->NH, c->C, c->F, c->V, c->max_T,
           c->scalar_head ? "scalar"
               : c->tied  ? "tied"
                          : "untied");
    if (c->rotary_pct > 0)
        printf(", %zu of %zu dimensions rotary, %s residual", rotary_dims(c), c->C / c->NH,
               c->parallel ? "parallel" : "sequential");
    putchar('\n');
}

// The plan of a reward model in a run with such prompts and responses
static void plan_reward(const Args *a, const Config *c, size_t prompt, double *total)
{
    Reward r = {.tokens = (size_t)a->micro_tokens, .work = {.o = device_ops(a)}};
    model_create(&r.m, device_ops(a), c, TRAIN_NONE, false, true);
    packs_carve(&r.m);
    reward_carve(&r, prompt, (size_t)a->max_new);
    arena_print("reward model", &r.m.params, total);
    arena_print("reward model", &r.m.packs, total);
    arena_print("reward model", &r.work, total);
    acts_free(&r.acts); kv_free(&r.prompts); kv_free(&r.own); model_free(&r.m);
}

// a block's once; the tensors of the folder are checked by name and shape
static void print_parameters(const Model *m, const char *folder)
{
    for (size_t i = 0; i < m->n_list; i++) {
        const Param *q = &m->list[i];
        if (q->layer) continue;
        printf("  %-44s %8zu x %-6zu %12zu", q->name, q->rows, q->cols ? q->cols : 1, q->n);
        if (q->flags & P_LAYER)
            printf("  in each of %zu blocks, of which the top %zu train", m->cfg.L, m->cfg.L - m->first_block);
        else if (q->offset < m->first) printf("  frozen");
        printf("%s\n", q->flags & P_DECAY ? "; decays" : "");
    }
    if (!folder || !has_weights(folder)) return;
    model_fill((Model *)m, folder); // without memory: a check
    printf("its weight files hold these tensors and no others\n");
}

static void plan_distilbert(const Args *a, const char *folder, bool parameters, double *total)
{
    DistilBert d;
    distilbert_load(&d, device_ops(a), folder, (size_t)a->micro_tokens, true);
    if (parameters) {
        print_model(folder, &d.m);
        print_parameters(&d.m, folder);
        printf("%zu parameters; label %zu of %zu is the positive one\nmemory as a reward model:\n",
               param_count(&d.m, 0), d.positive, d.labels);
    }
    arena_print("reward model", &d.m.params, total);
    arena_print("reward model", &d.work, total);
    distilbert_free(&d);
}

// The plan of a PPO run; p: the policy (measured only), the longest prompt and the options
static void plan_ppo(Ppo *p, double *total)
{
    Model *m = p->policy;
    Arena ref = {.o = m->o};
    double none = 0;
    arena_take(&ref, m->n_params - m->first, m->o->type, "copy of what trains");
    packs_carve(m);
    arena_print("policy", &m->params, total);
    arena_print("policy", &m->optim, total);
    arena_print("policy", &m->packs, total);
    arena_print("reference", &ref, total);
    p->work = (Arena){.o = m->o};
    phase_sample(p);
    arena_print("rollout", &p->work, &none);
    phase_update(p);
    arena_print("update", &p->work, &none);
    printf("  %-24s %-24s %12.1f MiB\n", "work", "the larger of these two", (double)p->work.high / 1048576);
    *total += (double)p->work.high;
    generator_free(&p->gen); pass_free(&p->pass);
}

// In bytes, what a PPO run keeps of a rollout's responses, beside its work; on CUDA too that is in the host's memory.
// In double: the flags allow more than 64 bits hold.
static double plan_rollout(const PpoOptions *o)
{
    Rollout r;
    double **arrays[] = ROLLOUT_ARRAYS(&r);
    double a_response = sizeof *r.y + sizeof *r.seq + sizeof *r.micro + sizeof *r.at + sizeof *r.place + sizeof(size_t);
    double an_action = sizeof arrays / sizeof *arrays * sizeof(double) + sizeof *r.y->ids + sizeof *r.y->logp;
    return (double)o->rollout * (a_response + (double)o->max_new * an_action);
}

// In bytes, what training on given text holds with so many tokens in a forward pass, and what `sample` does with so
// many rows; m: measured only
static double plan_training(Model *m, size_t tokens)
{
    Pass pass = {0};
    Arena work = {.o = m->o};
    double total = 0;
    pass_carve(&pass, m, &work, tokens, true);
    arena_print(NULL, &m->params, &total);
    arena_print(NULL, &m->optim, &total);
    arena_print(NULL, &work, &total);
    pass_free(&pass);
    return total;
}

static double plan_drawing(Model *m, size_t rows, size_t tokens, size_t prompt, size_t max_new)
{
    Generator g = {0};
    Arena work = {.o = m->o};
    double total = 0;
    packs_carve(m);
    generator_carve(&g, m, &work, rows, rows, tokens, prompt, max_new);
    arena_print(NULL, &m->params, &total);
    arena_print(NULL, &m->packs, &total);
    arena_print(NULL, &work, &total);
    generator_free(&g);
    return total;
}

static void print_total(const Args *a, double total, double limit)
{
    printf("total %.1f MiB\n", total / 1048576);
    if (limit > 0) printf("fits in %s: %s\n", a->memory, total <= limit ? "yes" : "no");
}

// Whether there is a reward model to plan for: a folder, or a config.json by itself. Else --reward is a shell command.
static bool has_reward_model(const char *reward)
{
    if (!reward || is_folder(reward)) return reward;
    size_t n = strlen(reward);
    if (n > 5 && !strcmp(reward + n - 5, ".json") && exists(reward)) return true;
    program_find(reward, "folder, config.json or program");
    return false;
}

static void cmd_info(const Args *a)
{
    Config c, reward = {0};
    Model m;
    double limit = memory_limit(a), total = 0;
    size_t value_head = 0;
    require(a->model, "model");
    bool folder = has_reward_model(a->reward), bert = folder && is_distilbert(a->reward);
    if (is_distilbert(a->model)) {
        if (a->reward) die("%s: a reward model itself: --reward goes with a language model", a->model);
        plan_distilbert(a, a->model, true, &total);
        print_total(a, total, limit);
        return;
    }
    config_read(&c, a->model);
    if (c.labels > 1)
        printf("%s: a classifier of %zu labels: planned as the language model it was made from\n", a->model, c.labels);
    c.scalar_head &= c.labels <= 1;
    if (c.scalar_head && a->reward) die("%s: a reward model itself: --reward goes with a language model", a->model);
    if (folder && !bert) config_read_as(&reward, a->reward, "reward", true);
    model_create(&m, device_ops(a), &c, c.scalar_head ? TRAIN_NONE : a->train_layers, !c.scalar_head, true);
    print_model(a->model, &m);
    print_parameters(&m, is_folder(a->model) && c.labels <= 1 ? a->model : NULL);
    for (size_t i = 0; i < m.n_list; i++) if (m.list[i].flags & P_VALUE) value_head += m.list[i].n;
    printf("%zu parameters, and %zu of PPO's value head; %zu train\n", param_count(&m, 0) - value_head, value_head,
           param_count(&m, m.first));
    size_t max_new = (size_t)a->max_new, max_prompt = c.max_T > max_new ? c.max_T - max_new + 1 : 1;
    if (flag_given("max-prompt")) max_prompt = (size_t)a->max_prompt;
    printf("memory %s prompts of at most %zu tokens, responses of at most %ld%s:\n",
           c.scalar_head ? "as a reward model, with" : "of a PPO run with", max_prompt, a->max_new,
           c.scalar_head || a->reward ? "" : ", without a reward model (--reward FOLDER adds one)");
    if (c.scalar_head) plan_reward(a, &c, max_prompt, &total);
    else {
        Ppo p = {.policy = &m,
                 .max_prompt = max_prompt,
                 .opt = {.rollout = a->rollout, .minibatch = a->minibatch, .max_new = a->max_new,
                     .tokens = (size_t)a->micro_tokens, .rows = decode_rows(a, 0)}};
        plan_ppo(&p, &total);
        double host = plan_rollout(&p.opt);
        bool elsewhere = a->device != DEVICE_CPU;
        printf("  %-24s %-24s %12.1f MiB%s\n", "rollout", "responses", host / 1048576,
               elsewhere ? " of the host's, not in the total" : "");
        if (!elsewhere) total += host;
        if (bert) plan_distilbert(a, a->reward, false, &total);
        else if (folder) plan_reward(a, &reward, max_prompt, &total);
        else if (a->reward) printf("  not in this plan: the reward's own program, %s\n", a->reward);
    }
    print_total(a, total, limit);
    model_free(&m);
    if (c.scalar_head) return;
    model_create(&m, device_ops(a), &c, a->train_layers, false, true);
    double training = plan_training(&m, (size_t)a->micro_tokens);
    model_free(&m);
    model_create(&m, device_ops(a), &c, TRAIN_NONE, false, true);
    double drawing = plan_drawing(&m, decode_rows(a, 256), (size_t)a->micro_tokens, max_prompt, max_new);
    model_free(&m);
    printf("other commands with these flags: sft and offline %.1f MiB; sample, and cache without its reward model, "
           "%.1f MiB\n",
           training / 1048576, drawing / 1048576);
}
#endif
