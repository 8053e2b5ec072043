// checkpoint.h: saving a run so that it can be killed at any moment and end as if it had not been.
//
// A checkpoint is a Hugging Face folder OUT/step-N plus state.safetensors: moments, value head, and whatever the loop
// keeps (counters, a regression). It is written beside (step-N.tmp), fsynced and renamed; the log is fsynced; then
// OUT/latest is replaced by a file that names it; only then are older ones removed. So at any moment `latest` names a
// whole checkpoint, and the log has the records up to it. Everything random is a function of counters (gpt2.h), so no
// generator state is kept. Ctrl-C and SIGTERM set a flag; loops look at it between steps, save and stop with exit code
// 130 or 143. Of several processes rank 0 writes; states that are cut among them (--zero) it collects, so that a
// checkpoint is the same with any number of processes, and any other number goes on with it.
//
// Easy to get wrong: weights must be saved in the run's own precision (not in the --dtype of the final model), or the
// resumed run differs.
#pragma once
#include <signal.h>
extern volatile sig_atomic_t stop_signal;  // the signal that asked the program to stop, or 0
void stop_on_signals(void);

// What a loop keeps beside the model: named arrays of doubles, restored in place.
typedef struct { const char *name; double *values; size_t n; } State;
// Called by all processes, between states_begin and states_end (parallel.h); rank 0 writes.
void checkpoint_save(const Model *m, const char *out, long step, const char *tokenizer_dir, const State *state,
                     size_t n_state);
// The folder `latest` names, malloc'd, or NULL when there is none. Dies when it names a folder that is not there.
char *checkpoint_latest(const char *out);
// Weights, moments, value head and state from a checkpoint folder into a model created with the same flags; dies naming
// what differs.
void checkpoint_load(Model *m, const char *folder, State *state, size_t n_state);
void checkpoint_clear(const char *out);    // after the final model is in place: removes latest and step-N

#ifdef VBON_IMPLEMENTATION
#include "files.h"

volatile sig_atomic_t stop_signal;
static void on_signal(int s) { stop_signal = s; }
void stop_on_signals(void) { handle_signals(on_signal); }

// Whether checkpoint_save makes folders of this name: step-N, or step-N.tmp if that will do
static bool is_checkpoint(const char *name, bool unfinished_too)
{
    if (strncmp(name, "step-", 5)) return false;
    size_t digits = strspn(name + 5, "0123456789");
    return digits && digits < 20 && (!name[5 + digits] || (unfinished_too && !strcmp(name + 5 + digits, ".tmp")));
}

static void remove_checkpoints(const char *out, const char *keep)
{
    DIR *d = opendir(out);
    if (!d) die("%s: cannot be read: %s", out, strerror(errno));
    for (struct dirent *e; errno = 0, (e = readdir(d));) {
        if (!is_checkpoint(e->d_name, true) || !strcmp(e->d_name, keep)) continue;
        char *f = format("%s/%s", out, e->d_name);
        remove_folder(f, model_file);
        free(f);
    }
    if (errno) die("%s: cannot be read: %s", out, strerror(errno));
    closedir(d);
}

// What a checkpoint has of the optimiser, by name.
enum { OPTIM_MAX = 4 };
typedef struct { const char *name; Buf buf; bool scales; } Optim;
static size_t optim_bufs(const Model *m, Optim out[OPTIM_MAX])
{
    const Optim all[OPTIM_MAX] = {{"grad.first_moments", m->m, false}, {"grad.second_moments", m->v, false},
                                  {"grad.scales_of_moments", m->scale, true}, {"averaged_weights", m->average, false}};
    size_t n = 0;
    for (size_t i = 0; i < OPTIM_MAX; i++) if (all[i].buf.p) out[n++] = all[i];
    return n;
}

// Where a part of it begins in the whole that a checkpoint has
static size_t optim_cut(const Model *m, const Optim *s, size_t part)
{
    StatesCut cut = states_cut(m, part);
    return s->scales ? 2 * cut.block : cut.at;
}
static size_t optim_n(const Model *m, const Optim *s) { return optim_cut(m, s, m->o->parts ? m->o->parts : 1); }

// The whole of it, in rank 0's x.
static void optim_collect(const Model *m, const Optim *s, real *x)
{
    if (m->o->parts < 2) { m->o->download(x, s->buf); return; }
    size_t *cut = (size_t *)xcalloc(m->o->parts + 1, sizeof *cut);
    for (size_t k = 0; k <= m->o->parts; k++) cut[k] = optim_cut(m, s, k);
    parallel_collect(m->o, x, s->buf, cut);
    free(cut);
}

// t: the optimiser's buffers, the value head, the caller's state
typedef struct { const Model *m; Tensor *t; Optim optim[OPTIM_MAX]; size_t n; const Param **values; real *x; } Saved;
static const void *saved_state(void *context, size_t i)
{
    Saved *s = (Saved *)context;
    if (s->t[i].data) return s->t[i].data;
    if (i < s->n) optim_collect(s->m, &s->optim[i], s->x);
    else param_get(s->m, s->values[i - s->n], s->x);
    return s->x;
}

void checkpoint_save(const Model *m, const char *out, long step, const char *tokenizer_dir, const State *state,
                     size_t n_state)
{
    Saved s = {.m = m};
    s.n = optim_bufs(m, s.optim);
    bool cut = m->o->parts > 1, writes = !parallel_rank();
    if (!cut && !writes) return;
    // model_save looks at the weights; a sum of squares shows whether a part is finite
    for (size_t i = 0; i < s.n + (writes ? m->n_list : 0); i++) {
        const Param *q = i < s.n ? NULL : &m->list[i - s.n];
        // of codes their scales are looked at
        if (q ? !(q->flags & P_VALUE) : s.optim[i].buf.type == DT_U8 || !s.optim[i].buf.n) continue;
        double sum = 0;
        if (q) {
            real *x = (real *)xmalloc(q->n * sizeof *x);
            param_get(m, q, x);
            for (size_t k = 0; k < q->n; k++) sum += (double)x[k] * (double)x[k];
            free(x);
        } else sum = m->o->sumsq(s.optim[i].buf);
        if (!isfinite(sum))
            die("%s: checkpoint %ld: %s not finite: lower --lr; nothing was saved", out, step,
                q ? "the value head is" : "the optimiser's moments are");
    }
    for (size_t i = 0; i < n_state; i++)
        for (size_t k = 0; k < state[i].n; k++)
            must_be_finite(state[i].values[k], state[i].name, "lower --lr; no checkpoint was saved");
    if (!writes) { // rank 0 asks for them in this order
        for (size_t i = 0; i < s.n; i++) optim_collect(m, &s.optim[i], NULL);
        return;
    }
    char *name = format("step-%ld", step), *folder = format("%s/%s", out, name), *tmp = format("%s.tmp", folder);
    char *file = format("%s/state.safetensors", tmp), *latest = format("%s/latest", out);
    remove_folder(tmp, model_file);
    make_folder(tmp);
    model_save(m, tmp, DT_REAL, tokenizer_dir, 0);
    size_t largest = 0;
    for (size_t i = 0; i < s.n; i++) {
        size_t n = optim_n(m, &s.optim[i]);
        if (n > largest) largest = n;
        arrput(s.t, ((Tensor){.name = s.optim[i].name, .type = s.optim[i].buf.type, .rank = 1, .shape = {n}, .n = n}));
    }
    for (size_t i = 0; i < m->n_list; i++) {
        const Param *q = &m->list[i];
        if (!(q->flags & P_VALUE)) continue;
        if (q->n > largest) largest = q->n;
        arrput(s.t, ((Tensor){.name = q->name, .type = DT_REAL, .rank = 1, .shape = {q->n}, .n = q->n}));
        arrput(s.values, q);
    }
    for (size_t i = 0; i < n_state; i++)
        arrput(s.t,
               ((Tensor){.name = state[i].name, .type = DT_F64, .rank = 1, .shape = {state[i].n}, .n = state[i].n,
                   .data = state[i].values}));
    s.x = (real *)xmalloc(largest * sizeof *s.x);
    char steps[32];
    snprintf(steps, sizeof steps, "%ld", m->step);
    const char *meta[] = {"format", "pt", "optimiser_steps", steps, NULL};
    safetensors_write(file, s.t, arrlenu(s.t), meta, saved_state, &s);
    arrfree(s.t); arrfree(s.values);
    free(s.x);
    sync_folder(tmp);
    // left by a run that died after the rename and before `latest`: not the one latest names, for that one is older
    remove_folder(folder, model_file);
    if (rename(tmp, folder)) die("%s: cannot be renamed to %s: %s", tmp, folder, strerror(errno));
    char *log = format("%s/log.jsonl", out), *trace = format("%s/trace.jsonl", out);
    sync_file(log);
    sync_file(trace);
    AsideFile *a = aside_open(latest);
    fprintf(a->f, "%s\n", name);
    aside_commit(a);
    sync_folder(out);
    remove_checkpoints(out, name);
    free(name); free(folder); free(tmp); free(file); free(latest); free(log); free(trace);
}

char *checkpoint_latest(const char *out)
{
    char *path = format("%s/latest", out), *folder = NULL;
    size_t n;
    char *name = file_read(path, &n);
    if (name) {
        if (n && name[n - 1] == '\n') name[--n] = 0;
        bool named = strlen(name) == n && is_checkpoint(name, false);
        if (!named) die("%s: does not name a checkpoint: delete it to start afresh", path);
        folder = format("%s/%s", out, name);
        if (!is_folder(folder)) die("%s: names %s, which is not there: delete it to start afresh", path, folder);
    }
    free(path); free(name);
    return folder;
}

static void state_get(const Safetensors *s, const char *folder, const char *name, DType type, size_t n, void *out)
{
    const Tensor *t = safetensors_find(s, name);
    if (!t || t->type != type || t->n != n)
        die("%s/state.safetensors: %s is missing or of another size: resume with the flags, and the version of vbon, "
            "that the run began with", folder, name);
    tensor_read(out, t, safetensors_path(s));
}

void checkpoint_load(Model *m, const char *folder, State *state, size_t n_state)
{
    char *file = format("%s/state.safetensors", folder);
    Safetensors *s = safetensors_open(file);
    model_fill(m, folder);
    Optim optim[OPTIM_MAX];
    size_t n_optim = optim_bufs(m, optim);
    for (size_t i = 0; i < n_optim; i++) {
        Buf b = optim[i].buf;
        size_t n = optim_n(m, &optim[i]), size = dtype_size(b.type);
        char *x = (char *)xmalloc(n * size);
        state_get(s, folder, optim[i].name, b.type, n, x);
        m->o->upload(b, x + optim_cut(m, &optim[i], m->o->part) * size);
        free(x);
    }
    for (size_t i = 0; i < m->n_list; i++) {
        const Param *q = &m->list[i];
        if (!(q->flags & P_VALUE)) continue;
        real *x = xmalloc(q->n * sizeof *x);
        state_get(s, folder, q->name, DT_REAL, q->n, x);
        param_set(m, q, x, 0, q->rows);
        free(x);
    }
    for (size_t i = 0; i < n_state; i++) state_get(s, folder, state[i].name, DT_F64, state[i].n, state[i].values);
    const char *steps = safetensors_meta(s, "optimiser_steps");
    char *end;
    if (!steps || !whole_number(steps, &end, &m->step) || *end || m->step < 0)
        die("%s: no number of optimiser_steps in its metadata: was it edited?", file);
    safetensors_close(s);
    free(file);
}

void checkpoint_clear(const char *out)
{
    char *latest = format("%s/latest", out);
    remove_file(latest);
    free(latest);
    remove_checkpoints(out, "");
}
#endif
