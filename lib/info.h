// info.h: `vbon info`: what a model is, and what a whole job with it would need (plan.h), by family, before anything is
// allocated. It works from config.json alone; where the folder has weights, their names and shapes are checked too.
#pragma once
#ifdef VBON_IMPLEMENTATION
#include "plan.h"

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

static void print_plan(const Args *a, const Plan *p, const JobSpec *j)
{
    static const char *const phases[][2] = {{"drawing", "updating"}, {"", ""}, {"checking", "training"},
                                            {"drawing", "measuring"}};
    for (size_t i = 0; i < p->n; i++) {
        const PlanPiece *x = &p->piece[i];
        printf("  %-24s %-24s %12.1f MiB%s%s\n", x->family, x->name, x->bytes / 1048576,
               x->phase < 0 ? "" : "  while ", x->phase < 0 ? "" : phases[j->kind][x->phase]);
    }
    if (p->phase[1] > 0)
        printf("  %s %.1f MiB or %s %.1f MiB: the larger counts\n", phases[j->kind][0], p->phase[0] / 1048576,
               phases[j->kind][1], p->phase[1] / 1048576);
    if (p->host > 0)
        printf("  %-24s %-24s %12.1f MiB of the host's, not in the total\n", "rollout",
               p->turns > 0 ? "responses, what --offload keeps" : "responses", p->host / 1048576);
    printf("total %.1f MiB\n", p->total / 1048576);
    double limit = memory_limit(a);
    if (limit <= 0) return;
    bool fits = p->total <= limit;
    char *remedy = fits || !j->model.arch ? xstrdup("") : plan_remedy(j, limit, &fits);
    printf("fits in %s: %s, %.1f MiB %s%s%s\n", a->memory, p->total <= limit ? "yes" : "no",
           fabs(limit - p->total) / 1048576, p->total <= limit ? "are left" : "too much", *remedy ? "; " : "", remedy);
    free(remedy);
}

// Whether there is a reward model to plan for: a folder, or a config.json by itself. Else --reward is a shell command.
static bool has_reward_model(const char *reward)
{
    if (!reward || is_folder(reward) || is_config(reward)) return reward;
    program_find(reward, "folder, config.json or program");
    return false;
}

// Of a reward model by itself, with prompts and responses of so many tokens
static void info_reward(const Args *a, const Config *c, size_t max_prompt)
{
    Plan p = {0};
    JobSpec j = {.o = plan_ops(a), .tokens = (size_t)a->micro_tokens, .max_prompt = max_prompt,
        .max_new = (size_t)a->max_new};
    CudaScratch s[2] = {{0, 0}, {0, 0}};
    if (c) { j.reward = *c; j.has_reward = true; } else j.bert = a->model;
    plan_reward(&p, &j, s, -1);
    plan_device(&p, &j, s);
    p.total = p.always;
    print_plan(a, &p, &j);
}

static void cmd_info(const Args *a)
{
    Config c;
    Model m;
    size_t value_head = 0;
    memory_limit(a); // refused now
    groups_check((size_t)a->groups, (size_t)a->ranks);
    offload_check(a);
    require(a->model, "model");
    bool folder = has_reward_model(a->reward);
    if (is_distilbert(a->model)) {
        if (a->reward) die("%s: a reward model itself: --reward goes with a language model", a->model);
        DistilBert d;
        distilbert_load(&d, plan_ops(a), a->model, 1, true);
        print_model(a->model, &d.m);
        print_parameters(&d.m, a->model);
        printf("%zu parameters; label %zu of %zu is the positive one\nmemory as a reward model:\n",
               param_count(&d.m, 0), d.positive, d.labels);
        distilbert_free(&d);
        info_reward(a, NULL, 0);
        return;
    }
    config_read(&c, a->model);
    if (c.labels > 1)
        printf("%s: a classifier of %zu labels: planned as the language model it was made from\n", a->model, c.labels);
    c.scalar_head &= c.labels <= 1;
    if (c.scalar_head && a->reward) die("%s: a reward model itself: --reward goes with a language model", a->model);
    model_create(&m, plan_ops(a), &c, c.scalar_head ? TRAIN_NONE : a->train_layers, !c.scalar_head, true);
    print_model(a->model, &m);
    print_parameters(&m, is_folder(a->model) && c.labels <= 1 ? a->model : NULL);
    for (size_t i = 0; i < m.n_list; i++) if (m.list[i].flags & P_VALUE) value_head += m.list[i].n;
    printf("%zu parameters, and %zu of PPO's value head; %zu train\n", param_count(&m, 0) - value_head, value_head,
           param_count(&m, m.first));
    model_free(&m);
    size_t max_new = (size_t)a->max_new, max_prompt = c.max_T > max_new ? c.max_T - max_new + 1 : 1;
    if (flag_given("max-prompt")) max_prompt = (size_t)a->max_prompt;
    char *what = c.scalar_head ? xstrdup("as a reward model") : format("of vbon %s", jobs[a->job].name);
    printf("memory %s on %s (%s), prompts of at most %zu tokens, responses of at most %ld%s:\n", what,
           devices[a->device].name, precisions[precision_used(a)].name, max_prompt, a->max_new,
           c.scalar_head || a->reward ? "" : ", without a reward model (--reward FOLDER adds one)");
    free(what);
    if (c.scalar_head) { info_reward(a, &c, max_prompt); return; }
    JobSpec j;
    Plan p;
    for (size_t pass = 0; pass < 2; pass++) // the job asked for, and then the others in a line
        for (size_t kind = 0; kind < NAMES(jobs); kind++) {
            if ((kind == a->job) == (pass == 1)) continue;
            job_of(&j, kind, a, &c, plan_ops(a), kind == JOB_OFFLINE ? 2 * (max_prompt + max_new) : max_prompt,
                   (size_t)(kind == JOB_CACHE || kind == JOB_EVAL ? a->samples : 1));
            plan_job(&p, &j);
            if (pass == 0) print_plan(a, &p, &j);
            else printf("%s %s %.1f MiB", kind == (a->job == 0) ? "other jobs with these flags:" : ",", jobs[kind].name,
                        p.total / 1048576);
        }
    putchar('\n');
    if (a->reward && !folder) printf("not in this plan: the reward's own program, %s\n", a->reward);
}
#endif
