// run.h: the life of a run, as sft, reward, offline and train share it: where it goes on from, the record of what it
// began with, its steps with their log and checkpoints, its end.
//
// A run can be killed at any moment and goes on with --resume as if it had not been: checkpoint.h says how. What a
// command adds is one step, and what it has to say of its last steps.
#pragma once

// The order in which training sees its items: shuffled passes, one after the other without a break, `batch` items a
// step. By epochs, the last step has what is left of them (or, drop_last, is not made); given steps are all whole. What
// a step has depends on its number alone, so that a resumed run goes on.
typedef struct { size_t items, batch, total, *order, epoch; uint64_t seed; long steps; } Passes;
// steps 0: by epochs
void passes_create(Passes *p, size_t items, size_t batch, double epochs, long steps, bool drop_last, uint64_t seed);
// fills which with the items of this step and returns how many, at most p->batch
size_t passes_step(Passes *p, long step, size_t *which);
void passes_report(const Passes *p, const char *what);    // a line where a run leaves items out
void passes_free(Passes *p);

typedef struct Run Run;
struct Run {
    const Args *a; const char *command, *unit;  // what is counted: "optimiser steps", or train's "iterations"
    const char *tokenizer_dir;                  // whose tokenizer goes with the weights
    char *from;                                 // the checkpoint to go on from, or NULL
    Model *m; void *context;                    // context: the command's own
    json_t *weights;                            // fingerprints of what it begins with, by weights_json
    json_t *chosen;                             // what flags that are `auto` came to, by flag; NULL: there are none
    long done, steps;                           // steps done, and in all
    State state[2]; size_t n_state;             // what a checkpoint keeps beside the model and `done`
    void (*step)(Run *r);                       // makes step number `done`
    // fills x (METRICS_MAX) with what happened since the last record, and returns how many
    size_t (*record)(Run *r, Metric *x);
    void (*measure)(Run *r, Log *log);          // every --eval-every steps and at the end; NULL: nothing
    const Column *shown;                        // train: metrics of a line a record, NULL-terminated; NULL: no lines
    void (*trace)(Run *r, Log *trace);          // into trace.jsonl, after some of the steps; NULL: there is none
    double grad_norm, lr;                       // of the last step: the norm before clipping, the rate
    double seconds;                             // that the steps since the last record took
    double saved;                               // when the last checkpoint was written
};
// Looks at what is in --out already and sets a, command and from. False, and says so: the run is finished. Never
// replaces another run's model.
static bool run_open(Run *r, const Args *a, const char *command);
// Before it: what the run in --out chose by the memory there was (plan.h) is what a resumed one goes on with.
static void run_keep(Args *a);
// The run from its first step, or from `from`, to its last, and the model into --out. Frees from.
static void run_steps(Run *r);
static AdamW adamw(const Args *a);               // of the flags
static void adamw_step(Run *r);                  // the gradient is in r->m->g

#ifdef VBON_IMPLEMENTATION

// ----------------------------------------------------------------------------
// the start-up table

// Written once everything that was asked for is found to be there: what is refused says that in one line, alone.
static void start_table(const Args *a, const char *command)
{
    flags_table(stdout, a, flag_table, n_flags, command, a->verbose);
    file_flush(stdout, "standard output", false); // a full disk behind it, or none, is noticed before the work
}

// ----------------------------------------------------------------------------
// --out, and what a run in it began with

// --out, tried before the work; never what the run reads, which would be lost
static AsideFile *out_file(const Args *a)
{
    const struct { const char *flag, *path; } reads[] =
        {{"in", a->in}, {"prompts", a->prompts}, {"cache", a->cache}, {"pool", a->pool}};
    struct stat out, in;
    for (size_t i = 0; i < sizeof reads / sizeof *reads; i++) {
        if (!reads[i].path || !look(reads[i].path, &in) || !look(a->out, &out)) continue;
        bool same = in.st_dev == out.st_dev && in.st_ino == out.st_ino;
        if (same) die("--out %s: is the file of --%s, and would take its place: name another", a->out, reads[i].flag);
    }
    Lines old;
    const char *cache = "{\"vbon_cache\"";
    if (look(a->out, &out) && S_ISREG(out.st_mode) && lines_open(&old, a->out, false)) {
        if (lines_next(&old) && !strncmp(old.buffer, cache, strlen(cache)))
            die("--out %s: holds a cache: name another file, or delete it", a->out);
        lines_close(&old);
    }
    return aside_open(a->out);
}

// Fingerprints of the files that a run reads line by line, made before it reads any: resumed, it must find the same in
// them.
static json_t *files_json(const Args *a)
{
    static json_t *j;
    if (j) return json_incref(j);
    const struct { const char *flag, *path; } files[] =
        {{"data", a->data}, {"held-out", a->held_out}, {"prompts", a->prompts}, {"cache", a->cache}, {"in", a->in},
            {"pool", a->pool}};
    j = json_object();
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (!files[i].path) continue;
        char *hex = hex_text(file_fingerprint(files[i].path));
        json_object_set_new(j, files[i].flag, json_make("s", hex));
        free(hex);
    }
    return json_incref(j);
}

// And of the weights and tokenizers that it begins with, by flag; made before a checkpoint's weights take their place.
// m NULL: a new model. r NULL: no reward; of a program nothing is known but its command, which is a flag.
static json_t *weights_json(const char *flag, const Model *m, const Tokenizer *t, const Reward *r)
{
    json_t *j = json_object();
    if (m) {
        char *hex = hex_text(mix64(model_fingerprint(m) ^ tokenizer_fingerprint(t)));
        json_object_set_new(j, flag, json_make("s", hex));
        free(hex);
    }
    if (r && !r->command) json_object_set_new(j, "reward", json_make("s", r->what));
    return j;
}

static json_t *config_record(const Args *a, const char *command, json_t *weights) // which it takes over
{
    return json_make("{s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:o}", "type", "config", "command", command,
                     "version", VBON_VERSION, "device", devices[a->device].name, "libraries", cpu_libraries(),
                     "flags", flags_json(a, flag_table, n_flags, command), "files", files_json(a), "weights", weights);
}

static json_t *first_record(const Args *a) // of the run that stands in --out
{
    char *path = format("%s/log.jsonl", a->out);
    Jsonl in;
    json_t *j;
    jsonl_open(&in, path);
    if (!jsonl_next(&in, &j))
        die("%s: empty: it cannot be told what the run began with; delete %s to start afresh", path, a->out);
    jsonl_close(&in);
    free(path);
    return j;
}

// A resumed run must have the flags it began with, but for those that change no result, and read the same.
static void check_same_flags(const Args *a, const char *command)
{
    static const char *const free_flags[] = {"resume",       "log-every", "save-every",
                                             "save-minutes", "out",       "reward-tolerance",
                                             "verbose",      "memory",    "recompute",
                                             "offload",      "zero"};
    json_t *j = first_record(a), *v;
    const char *key;
    json_t *now = flags_json(a, flag_table, n_flags, command), *then = json_object_get(j, "flags");
    json_t *files = files_json(a), *read = json_object_get(j, "files"); // older logs have none
    json_object_foreach(now, key, v) {
        bool skip = false;
        for (size_t i = 0; i < sizeof free_flags / sizeof *free_flags; i++) skip |= !strcmp(key, free_flags[i]);
        json_t *old = json_object_get(then, key);
        bool by_value = json_is_real(v) || (json_is_integer(v) && json_is_string(old)); // older logs have some as texts
        bool same = json_equal(v, old) || (by_value && same_number(v, old));
        // newer than the log: the default is how it was, where it is one process's
        bool newer = !old && !flag_given(key) && (strcmp(key, "groups") || a->groups == 1);
        if (skip || same || newer) continue;
        size_t how = JSON_ENCODE_ANY | JSON_REAL_PRECISION(9);
        char *was = json_text(old ? old : json_null(), how), *is = json_text(v, how);
        die("--resume: the run in %s began with another --%s (%s, now %s): resume with the flags it began with, or "
            "delete %s/latest and begin afresh without --resume", a->out, key, was, is, a->out);
    }
    json_object_foreach(files, key, v) {
        bool same = !read || json_equal(v, json_object_get(read, key));
        if (!same)
            die("--resume: the file of --%s has changed since the run in %s began: resume with that one", key, a->out);
    }
    json_decref(now); json_decref(files); json_decref(j);
}

// And the same weights, once they are loaded.
static void check_same_weights(const Args *a, const json_t *now)
{
    json_t *j = first_record(a), *then = json_object_get(j, "weights"), *v;
    const char *key;
    if (!then)
        fprintf(stderr,
                "vbon: note: %s: its log is older than fingerprints of weights: see to it yourself that they are "
                "those it began with\n",
                a->out);
    json_object_foreach((json_t *)now, key, v)
        if (then && !json_equal(v, json_object_get(then, key)))
            die("--resume: the weights or the tokenizer of --%s have changed since the run in %s began: resume with "
                "those", key, a->out);
    json_decref(j);
}

// a log that was killed before its first record was whole says nothing about the run
static bool has_record(const char *log)
{
    Lines in;
    if (!lines_open(&in, log, false)) return false;
    bool whole = lines_next(&in) && in.buffer[in.n - 1] == '\n';
    lines_close(&in);
    return whole;
}

static void run_keep(Args *a)
{
    if (a->device == DEVICE_CPU || !a->resume || !a->out) return;
    char *log = format("%s/log.jsonl", a->out);
    if (has_record(log)) {
        json_t *j = first_record(a), *flags = json_object_get(j, "flags");
        json_t *rows = json_object_get(flags, "decode-rows");
        // of older logs 0, which stands for 512
        if (!flag_given("decode-rows") && rows) a->decode_rows = (long)json_integer_value(rows);
        if (!flag_given("micro-tokens"))
            a->micro_tokens = (long)json_integer_value(json_object_get(flags, "micro-tokens"));
        a->kept = true;
        json_decref(j);
    }
    free(log);
}

static void same_json(const char *what, const json_t *j)
{
    char *text = json_text(j, JSON_COMPACT);
    parallel_same(what, text);
    free(text);
}

static bool run_open(Run *r, const Args *a, const char *command)
{
    *r = (Run){.a = a, .command = command, .unit = "optimiser steps"};
    bool rounded = a->optimizer_state == OPTIMIZER_8BIT && a->device == DEVICE_CUDA && device_type(a) == DT_BF16;
    if (rounded && a->average > 0)
        usage("--average: with --optimizer-state 8bit a device in bfloat16 has no exact weights to average: leave one "
              "of them out, or add --precision fp32");
    groups_check((size_t)a->groups, (size_t)parallel_ranks());
    require(a->out, "out");
    if (!parallel_rank()) out_folder(a->out);
    json_t *files = files_json(a);
    same_json("file of --data, --held-out, --prompts or --cache", files);
    json_decref(files);
    char *latest = checkpoint_latest(a->out), *log = format("%s/log.jsonl", a->out);
    bool model = has_weights(a->out), finished = model && !latest;
    if (latest && !a->resume)
        die("%s: holds an unfinished run (%s): go on with --resume, or delete %s/latest to begin afresh", a->out,
            latest, a->out);
    if (model && !a->resume) die("%s: holds a model already: name another --out, or delete it", a->out);
    if (finished && !has_record(log)) die("%s: holds a model that is no finished run's: name another --out", a->out);
    if (latest || model) check_same_flags(a, command);
    if (finished && !parallel_rank()) checkpoint_clear(a->out); // what a kill between the last steps of that run left
    if (finished) printf("%s: finished already\n", a->out);
    if (a->resume && !model && !latest) printf("%s: no checkpoint: the run starts from the beginning\n", a->out);
    free(log);
    parallel_same("view of --out (do they share a file system?)", finished ? "finished" : latest ? latest : "");
    r->from = latest;
    return !finished;
}

// ----------------------------------------------------------------------------
// the order of items

void passes_create(Passes *p, size_t items, size_t batch, double epochs, long steps, bool drop_last, uint64_t seed)
{
    *p = (Passes){.items = items, .batch = batch < items ? batch : items, .epoch = SIZE_MAX, .seed = seed,
        .steps = steps};
    // a tenth of 30 is 3, however it rounds
    double total = steps > 0 ? (double)steps * (double)p->batch : ceil(epochs * (double)items * (1 - 1e-12));
    if (!(total <= 1e9 * (double)p->batch))
        usage("%s %g: %.3g optimiser steps of %zu: at most 1e9; lower it", steps > 0 ? "--steps" : "--epochs",
        steps > 0 ? (double)steps : epochs, total / (double)p->batch, p->batch);
    p->total = total > 1 ? (size_t)total : 1;
    if (steps <= 0) p->steps = (long)((p->total + (drop_last ? 0 : p->batch - 1)) / p->batch);
    if (!p->steps) usage("--drop-last: of %zu items no batch of %zu is whole: lower --batch", p->total, p->batch);
    if (p->total > (size_t)p->steps * p->batch) p->total = (size_t)p->steps * p->batch;
    p->order = (size_t *)xmalloc(items * sizeof *p->order);
}

size_t passes_step(Passes *p, long step, size_t *which)
{
    size_t at = (size_t)step * p->batch, n = p->total - at < p->batch ? p->total - at : p->batch;
    for (size_t i = 0; i < n; i++, at++) {
        size_t epoch = at / p->items;
        if (epoch != p->epoch) random_permutation(p->order, p->items, p->seed, STREAM_SHUFFLE, epoch);
        p->epoch = epoch;
        which[i] = p->order[at % p->items];
    }
    return n;
}

void passes_report(const Passes *p, const char *what)
{
    if (p->total < p->items)
        printf("%zu of %zu %s are seen in %ld optimiser steps\n", p->total, p->items, what, p->steps);
}

void passes_free(Passes *p) { free(p->order); }

// ----------------------------------------------------------------------------
// the loop

static AdamW adamw(const Args *a)
{
    return (AdamW){.lr = a->lr, .beta1 = a->beta1, .beta2 = a->beta2, .eps = a->eps, .weight_decay = a->weight_decay,
        .clip = a->clip_grad, .average = a->average, .seed = (uint64_t)a->seed};
}

static void adamw_step(Run *r)
{
    AdamW opt = adamw(r->a);
    r->lr = opt.lr = schedule_lr(&schedules[r->a->schedule], r->a->lr, r->m->step, r->steps, r->a->warmup);
    r->grad_norm = parallel_update(r->m, &opt);
}

// After a step: saves when the steps or the clock say so, or a signal asked the run to stop; then it stops.
static void save_when_due(Run *r, const State *state, size_t n)
{
    const Args *a = r->a;
    bool by_steps = a->save_every && r->done % a->save_every == 0;
    bool by_clock = a->save_minutes > 0 && clock_seconds() - r->saved >= 60 * a->save_minutes;
    unsigned char asked[2] = {(unsigned char)(by_clock && !parallel_rank()), (unsigned char)stop_signal};
    parallel_gather(asked, sizeof asked); // one clock and every signal, for all processes
    if (r->done == r->steps || !(by_steps || asked[0] || asked[1])) return;
    states_begin(r->m);
    checkpoint_save(r->m, a->out, r->done, r->tokenizer_dir, state, n);
    states_end(r->m);
    r->saved = clock_seconds();
    if (!asked[1]) return;
    progress_clear();
    printf("stopped by signal %d after %ld of %ld %s; go on with --resume\n", asked[1], r->done, r->steps,
           r->unit);
    parallel_end();
    exit(128 + asked[1]);
}

// Whether a trace has this step, counted from 1: the first, and each at which another twentieth of the run is done. A
// rule of counters alone, so a resumed run keeps the same ones.
static bool is_traced(long done, long steps) { return done == 1 || done * 20 / steps > (done - 1) * 20 / steps; }

static void run_steps(Run *r)
{
    const Args *a = r->a;
    double done = 0;
    bool writes = !parallel_rank();
    State state[3] = {{"done", &done, 1}};
    for (size_t i = 0; i < r->n_state; i++) state[1 + i] = r->state[i];
    if (a->average > 0) model_average_begin(r->m);
    same_json("model, tokenizer or reward", r->weights);
    if (r->from) {
        check_same_weights(a, r->weights);
        checkpoint_load(r->m, r->from, state, 1 + r->n_state);
        if (!(done >= 0 && done <= (double)r->steps))
            die("%s: it has done %g of %ld %s: was it edited?", r->from, done, r->steps, r->unit);
        r->done = (long)done;
        parallel_same("view of --out (do they share a file system?)", ""); // all have read it, before it is cut
        if (writes) log_cut(a->out, r->done);
        printf("going on from %s\n", r->from);
    }
    json_t *config = config_record(a, r->command, r->weights);
    if (r->chosen) json_object_set_new(config, "auto", r->chosen);
    Log *log = writes ? log_open(a->out, config, r->from != NULL) : NULL;
    if (!writes) json_decref(config);
    start_table(a, r->command);
    if (!r->from && writes) trace_remove(a->out); // of a run that was given up
    Log *trace = r->trace && writes ? trace_open(a->out) : NULL;
    stop_on_signals();
    Progress progress = progress_begin(r->command, (size_t)r->steps, (size_t)r->done, r->unit);
    char extra[64] = "";
    r->saved = clock_seconds();
    while (r->done < r->steps) {
        double began = clock_seconds();
        r->step(r);
        r->seconds += clock_seconds() - began;
        done = (double)++r->done;
        bool last = r->done == r->steps;
        if (r->done % a->log_every == 0 || last) {
            Metric x[METRICS_MAX];
            size_t n = r->record(r, x);
            if (log) log_metrics(log, "train", r->done, x, n);
            if (r->shown) print_metrics("iteration", r->done, r->steps, x, n, r->shown, r->seconds);
            r->seconds = 0;
            for (size_t i = 0; i < n; i++)
                if (!strcmp(x[i].key, "loss")) snprintf(extra, sizeof extra, "loss %.4f", x[i].value);
        }
        if (trace && is_traced(r->done, r->steps)) r->trace(r, trace);
        progress_show(&progress, (size_t)r->done, extra);
        if (r->measure && log && (last || (a->eval_every && r->done % a->eval_every == 0))) r->measure(r, log);
        save_when_due(r, state, 1 + r->n_state);
    }
    free(r->from);
    if (a->average > 0) { model_average_use(r->m); weights_share(r->m); }
    states_begin(r->m);
    if (!writes) return;
    if (trace) log_close(trace);
    log_close(log);
    model_save(r->m, a->out, dtypes[a->dtype].type, r->tokenizer_dir, (size_t)a->shard_mib << 20);
    states_end(r->m);
    checkpoint_clear(a->out);
    printf("wrote %s (%s)\n", a->out, dtypes[a->dtype].name);
}
#endif
