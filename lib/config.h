// config.h: Hugging Face folders in and out: config.json, the weights, the tokenizer beside them.
//
// A folder is read through the model's parameter list: each parameter is looked up by name (with or without
// `transformer.` or `gpt_neox.`), checked for shape and handed to param_set a piece at a time, so that loading needs
// little memory beside the weights. What is missing, left over or of another shape is listed all at once. config.json
// is read and written through tables of fields with their types and ranges, one of each architecture's and one for all;
// what would change the mathematics (inverse-layer attention scaling, scaled rotary positions, quantisation) is refused
// there. What is written loads with AutoModelForCausalLM and AutoModelForSequenceClassification of transformers 4 and
// 5. Reward models of summarize_from_feedback_details (https://github.com/vwxyzjn/summarize_from_feedback_details),
// here called cleanrl's form, are read and not written: `lm_backbone.*`, `scalar_head.*` and a nested base_config.
#pragma once
#include "../gpt2.h"

// a folder, or a config.json by itself; dies naming the file and the field
void config_read(Config *c, const char *dir);
// All parameters of a created model from a folder of the same configuration, but a value head, which no folder has;
// of one measured only, names and shapes are checked.
void model_fill(Model *m, const char *dir);
// Fills what the folder has under the same name and shape; returns how many parameters it did not find (their values
// are kept).
size_t model_fill_partial(Model *m, const char *dir);
// Writes a new folder aside and renames it; into an existing one file by file, weights last. shard_bytes 0: one file.
void model_save(const Model *m, const char *dir, DType type, const char *tokenizer_dir, size_t shard_bytes);
// Of configuration and weights, the value head excepted. Weights are taken as bfloat16, which is all that a device
// keeps of what it does not train: so the same files have the same fingerprint on every device, whatever of them
// trains.
uint64_t model_fingerprint(const Model *m);

#ifdef VBON_IMPLEMENTATION

// ----------------------------------------------------------------------------
// config.json

// The names of activations, all that transformers has for these functions. The first three, in the order of Activation,
// are those that are written.
static const struct {
    const char *name;
    Activation act;
} activations[] = {{"gelu_new", ACT_GELU_TANH},
                   {"gelu", ACT_GELU_ERF},
                   {"relu", ACT_RELU},
                   {"gelu_pytorch_tanh", ACT_GELU_TANH},
                   {"gelu_python_tanh", ACT_GELU_TANH},
                   {"gelu_fast", ACT_GELU_TANH},
                   {"gelu_accurate", ACT_GELU_TANH},
                   {"gelu_python", ACT_GELU_ERF}};

// The fields that every architecture has beside its own.
static const ConfigField common_fields[] = {
    {"num_labels", NULL, F_SIZE, KEPT(labels), 1, 100000, 0},
    {"initializer_range", NULL, F_NUMBER, KEPT(init_std), 0, 100, 0.02},
    {"bos_token_id", NULL, F_TOKEN, KEPT(bos), -(1 << 30), 1 << 30, -1},
    {"eos_token_id", NULL, F_TOKEN, KEPT(eos), -(1 << 30), 1 << 30, -1},
    {"pad_token_id", NULL, F_TOKEN, KEPT(pad), -(1 << 30), 1 << 30, -1},
    {"quantization_config", NULL, F_EMPTY, CHECKED, 0, 0, 0}, // by it transformers would quantise even fp32 weights
    {"pruned_heads", NULL, F_EMPTY, CHECKED, 0, 0, 0}, // transformers 4 takes these heads out, 5 passes over the field
    {0},
};

// The value of a field; a flag is 0 or 1, an activation its number
static double field_value(const ConfigField *f, json_t *j, const char *path)
{
    json_t *v = json_object_get(j, f->key), *same = f->also ? json_object_get(j, f->also) : NULL;
    if (v && same && !json_equal(v, same))
        die("%s: \"%s\" and \"%s\" are two names of one number, and differ", path, f->key, f->also);
    if (!v) v = same;
    if (!v && isnan(f->fallback)) die("%s: \"%s\" is missing", path, f->key);
    if (!v) return f->fallback;
    double x = json_is_boolean(v) ? json_is_true(v) : json_number_value(v);
    bool is_null = json_is_null(v), in_range = x >= f->least && x <= f->most;
    char must[160];
    switch (f->type) {
    case F_SIZE:
        if (is_null && f->fallback == 0) return 0;
        if (json_is_integer(v) && in_range) return x;
        snprintf(must, sizeof must, "a whole number from %.10g to %.10g", f->least, f->most);
        break;
    case F_NUMBER:
        if (json_is_number(v) && in_range) return x;
        snprintf(must, sizeof must, "a number from %.10g to %.10g", f->least, f->most);
        break;
    case F_FLAG:
        if (json_is_boolean(v) && in_range) return x;
        if (f->least < f->most) snprintf(must, sizeof must, "true or false");
        else snprintf(must, sizeof must, "%s, or another model is computed", f->least > 0 ? "true" : "false");
        break;
    case F_TOKEN:
        if (is_null) return f->fallback;
        if (json_is_integer(v) && in_range) return x;
        snprintf(must, sizeof must, "one token, or null");
        break;
    case F_ACT:
        for (size_t i = 0; i < sizeof activations / sizeof *activations; i++)
            if (json_is_string(v) && !strcmp(json_string_value(v), activations[i].name)) return activations[i].act;
        snprintf(must, sizeof must, "gelu, gelu_new (or another name of either) or relu");
        break;
    case F_EMPTY:
        if (is_null || ((json_is_object(v) || json_is_array(v)) && !json_object_size(v) && !json_array_size(v)))
            return 0;
        snprintf(must, sizeof must, "left out, with weights that are plain and whole: save them so with transformers");
        break;
    }
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(10));
    die("%s: \"%s\" is %s: it must be %s", path, f->key, shown(text), must);
}

static void fields_read(Config *c, const ConfigField *fields, json_t *j, const char *path)
{
    for (const ConfigField *f = fields; f->key; f++) {
        double x = field_value(f, j, path);
        if (f->at == CHECKED) continue;
        char *at = (char *)c + f->at;
        switch (f->type) {
        case F_SIZE: *(size_t *)at = (size_t)x; break;
        case F_NUMBER: *(double *)at = x; break;
        case F_FLAG: *(bool *)at = x > 0; break;
        case F_TOKEN: *(int *)at = x < 0 ? -1 : (int)x; break;
        case F_ACT: *(Activation *)at = (Activation)x; break;
        case F_EMPTY: break;
        }
    }
}

static void fields_write(const Config *c, const ConfigField *fields, json_t *j)
{
    for (const ConfigField *f = fields; f->key; f++) {
        const void *at = f->at == CHECKED ? NULL : (const char *)c + f->at;
        json_t *v = NULL;
        switch (f->type) {
        case F_SIZE: if (*(const size_t *)at) v = json_integer((json_int_t)*(const size_t *)at); break; // 0: not said
        case F_NUMBER: v = json_real(at ? *(const double *)at : f->fallback); break;
        case F_FLAG: v = json_boolean(at ? *(const bool *)at : f->fallback > 0); break;
        case F_TOKEN: v = *(const int *)at < 0 ? json_null() : json_integer(*(const int *)at); break;
        case F_ACT: v = json_string(activations[*(const Activation *)at].name); break;
        case F_EMPTY: break;
        }
        if (v) json_object_set_new(j, f->key, v);
    }
}

// How many labels a classifier has; where versions of transformers count otherwise, it is refused
static void labels_read(Config *c, json_t *j, const char *path)
{
    json_t *names = json_object_get(j, "id2label");
    size_t n = json_object_size(names);
    if (names && !json_is_null(names) && !n) die("%s: \"id2label\" must be an object with a name for each label", path);
    if (n && c->labels && n != c->labels)
        die("%s: \"num_labels\" is %zu, \"id2label\" has %zu: which is it?", path, c->labels, n);
    c->labels = n ? n : c->labels ? c->labels : 2;
}

static void config_check(const Config *c, const char *path) // what no field by itself shows
{
    double C = (double)c->C,
           size = (double)c->L * C * (4 * C + 2 * (double)c->F) + ((double)c->V + (double)c->max_T) * C;
    if (size > 1e12) die("%s: a model of %.0e parameters: its dimensions are absurd", path, size);
    if (c->C % c->NH || c->C / c->NH > 256)
        die("%s: width %zu over %zu heads is no whole head size up to 256", path, c->C, c->NH);
}

// ----------------------------------------------------------------------------
// architectures: a row each, of what its header has

#include "../pythia.h"
enum { ARCH_GPT2, ARCH_NEOX };
static Architecture architectures[ROWS_MAX] = {
    [ARCH_GPT2] = {
        .name = "gpt2", .prefix = "transformer.",
        .lm = "GPT2LMHeadModel", .classifier = "GPT2ForSequenceClassification",
        .params = gpt2_params, .buffers = gpt2_buffers, .fields = gpt2_fields, .fresh = gpt2_fresh,
    },
    [ARCH_NEOX] = {
        .name = "gpt_neox", .prefix = "gpt_neox.",
        .lm = "GPTNeoXForCausalLM", .classifier = "GPTNeoXForSequenceClassification",
        .params = neox_params, .buffers = neox_buffers, .fields = neox_fields, .fresh = neox_fresh,
        .read = neox_read, .write = neox_write, .place = neox_place, .turn = neox_turn,
    },
};

// "gpt2, gpt_neox", or their classes: one name of every row, by its place in the row; malloc'd
static char *architecture_names(size_t at)
{
    char *all = xstrdup("");
    for (const Architecture *a = architectures; a->name; a++) {
        char *more = format("%s%s%s", all, *all ? ", " : "", *(const char *const *)((const char *)a + at));
        free(all);
        all = more;
    }
    return all;
}

// ----------------------------------------------------------------------------
// reading a folder

// of a folder, or the file itself
static char *config_path(const char *dir)
{
    return !is_folder(dir) && exists(dir) ? xstrdup(dir) : format("%s/config.json", dir);
}

// Dies where the folder holds what would be left out: an adapter, which transformers puts on the weights
static json_t *config_file(const char *dir)
{
    static const char *const adapters[] = {"adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"};
    for (size_t i = 0; i < sizeof adapters / sizeof *adapters && is_folder(dir); i++) {
        char *adapter = format("%s/%s", dir, adapters[i]);
        if (exists(adapter))
            die("%s: adapters are not applied: merge it into the weights, save those, and take it away", adapter);
        free(adapter);
    }
    must_be_there(dir);
    char *path = config_path(dir);
    if (!exists(path)) die("%s: missing: %s is not a Hugging Face model folder", path, dir);
    json_t *j = json_file(path);
    free(path);
    return j;
}

// The causal model, the classifier, and the trunk by itself (GPT2Model); transformers 4 put FSDP before the name after
// sharded training
static bool is_own_class(const Architecture *a, const char *class)
{
    if (!strncmp(class, "FSDP", 4)) class += 4;
    size_t stem = (size_t)(strstr(a->classifier, "For") - a->classifier);
    return !strcmp(class, a->lm) || !strcmp(class, a->classifier) ||
        (!strncmp(class, a->classifier, stem) && !strcmp(class + stem, "Model"));
}

void config_read(Config *c, const char *dir)
{
    char *path = config_path(dir);
    json_t *file = config_file(dir), *base = json_object_get(file, "base_config"), *j = base ? base : file,
           *types = json_object_get(file, "architectures");
    const char *type = json_string_value(json_object_get(j, "model_type")),
               *class = json_string_value(json_array_get(types, 0));
    const Architecture *own = architectures;
    while (own->name && (!type || strcmp(own->name, type))) own++;
    if (!own->name)
        die("%s: model_type %s is not supported (supported are %s)", path, shown(type),
            architecture_names(offsetof(Architecture, name)));
    *c = (Config){.arch = own};
    fields_read(c, own->fields, j, path);
    fields_read(c, common_fields, j, path);
    if (!c->F) c->F = 4 * c->C;
    config_check(c, path);
    if (own->read) own->read(c, j, path);
    if (types && !json_is_null(types) && !class) die("%s: \"architectures\" must be a list that names the class", path);
    if (class && !base && !is_own_class(own, class))
        die("%s: architecture %s is not supported (%s and %s are)", path, shown(class), own->lm, own->classifier);
    c->scalar_head = base || (class && strstr(class, "ForSequenceClassification"));
    if (base) { // cleanrl's form
        json_t *shift = json_object_get(file, "bias");
        c->score_bias = true;
        c->pad = -1;
        if (shift && !json_is_number(shift)) die("%s: \"bias\" must be a number", path);
        c->score_shift = json_number_value(shift);
    }
    if (c->scalar_head && !base) labels_read(c, j, path);
    else c->labels = 0;
    json_decref(file);
    free(path);
}

static bool ends_with(const char *s, const char *end)
{
    size_t a = strlen(s), b = strlen(end);
    return a >= b && !strcmp(s + a - b, end);
}

static const char *const backbone = "lm_backbone."; // of cleanrl's reward models
static const char *bare_name(const Model *m, const char *s)
{
    const char *prefixes[] = {m->cfg.score_bias ? backbone : "", m->cfg.arch->prefix};
    for (int i = 0; i < 2; i++) if (!strncmp(s, prefixes[i], strlen(prefixes[i]))) s += strlen(prefixes[i]);
    return s;
}

static const Tensor *find_param(const Model *m, const Safetensors *s, const Param *q)
{
    const char *prefixes[] = {"", m->cfg.arch->prefix, backbone, backbone};
    for (int i = 0; i < (m->cfg.score_bias ? 4 : 2); i++) {
        char name[112];
        snprintf(name, sizeof name, "%s%s%s", prefixes[i], i == 3 ? m->cfg.arch->prefix : "", q->name);
        const Tensor *t = safetensors_find(s, name);
        if (t) return t;
    }
    return NULL;
}

static bool same_shape(const Tensor *t, const Param *q)
{
    bool transposed = q->flags & P_TRANSPOSE;
    return q->cols ? t->rank == 2 && t->shape[transposed] == q->rows && t->shape[!transposed] == q->cols
                   : t->rank == 1 && t->shape[0] == q->rows;
}

static const char *head_name(const Architecture *a)
{
    const ParamSpec *s = a->params;
    while (!(s->flags & P_HEAD)) s++;
    return s->hf;
}

// all of them in one line, unless a stranger's file would fill the screen
typedef struct { char *text; size_t n; } Names;
static void add_name(Names *list, const char *name)
{
    if (list->n++ && strlen(list->text) > 20000) return;
    char *s = format("%s%s%s", list->text ? list->text : "", list->text ? ", " : "", name);
    free(list->text);
    list->text = s;
}

static size_t load_piece = 4 << 20; // elements read at a time (of a transposed matrix all: GPT-2's are small)
static size_t fill(Model *m, const char *dir, bool partial)
{
    Safetensors *s = safetensors_open(dir);
    const char *path = safetensors_path(s);
    Names missing = {0}, unused = {0}, wrong = {0};
    size_t absent = 0;
    for (size_t i = 0; i < m->n_list; i++) {
        const Param *q = &m->list[i];
        if (q->flags & P_VALUE) continue;
        const Tensor *t = find_param(m, s, q);
        if (!t) { absent++; add_name(&missing, q->name); continue; }
        if (!same_shape(t, q)) {
            bool transposed = q->flags & P_TRANSPOSE;
            char what[400];
            int at = snprintf(what, sizeof what, "%s (", q->name);
            for (int d = 0; d < t->rank; d++)
                at += snprintf(what + at, sizeof what - (size_t)at, "%s%zu", d ? "x" : "", t->shape[d]);
            if (q->cols)
                snprintf(what + at, sizeof what - (size_t)at, ", not %zux%zu)", transposed ? q->cols : q->rows,
                         transposed ? q->rows : q->cols);
            else snprintf(what + at, sizeof what - (size_t)at, ", not %zu)", q->rows);
            absent++;
            add_name(&wrong, what);
            continue;
        }
        if (!m->data.p) continue;
        size_t rows = q->flags & P_TRANSPOSE ? q->cols : q->rows, width = q->n / rows,
               step = q->flags & P_TRANSPOSE ? rows : load_piece / width + 1;
        real *x = (real *)xmalloc((step < rows ? step : rows) * width * sizeof *x);
        for (size_t r = 0; r < rows; r += step) {
            size_t n = rows - r < step ? rows - r : step;
            tensor_to_real(x, t, r * width, n * width, path);
            param_set(m, q, x, r, n);
        }
        free(x);
    }
    for (size_t i = 0; i < safetensors_count(s) && !partial; i++) {
        const Tensor *t = safetensors_at(s, i);
        const char *name = bare_name(m, t->name);
        bool known = false;
        for (const char *const *end = m->cfg.arch->buffers; *end; end++) known |= ends_with(t->name, *end);
        // not twice, with and without the prefix
        for (size_t k = 0; k < m->n_list && !known; k++)
            known = !strcmp(name, m->list[k].name) && find_param(m, s, &m->list[k]) == t;
        const Param *wte = &m->list[0];
        // a copy of the tied head
        if (!known && m->cfg.tied && !m->cfg.scalar_head && !strcmp(name, head_name(m->cfg.arch)) &&
            same_shape(t, wte)) {
            known = !m->data.p || !find_param(m, s, wte);
            if (!known) {
                real *a = (real *)xmalloc(t->n * sizeof *a), *b = (real *)xmalloc(t->n * sizeof *b);
                tensor_to_real(a, t, 0, t->n, path);
                tensor_to_real(b, find_param(m, s, wte), 0, t->n, path); // exactly, as bfloat16 memory has it no more
                known = !memcmp(a, b, t->n * sizeof *a);
                if (!known)
                    die("%s: %s differs from %s though config.json ties them: set tie_word_embeddings to false", path,
                        name, wte->name);
                free(a); free(b);
            }
        }
        if (!known) add_name(&unused, t->name);
    }
    if (!partial && missing.n + wrong.n + unused.n) {
        const Names *kinds[] = {&missing, &wrong, &unused};
        static const char *const titles[] = {"missing", "wrong shape", "unused"};
        char *all = xstrdup("");
        for (int i = 0; i < 3; i++) {
            if (!kinds[i]->n) continue;
            char *more = format("%s %s: %s", all, titles[i], kinds[i]->text);
            free(all);
            all = more;
        }
        die("%s: does not match config.json:%s", path, all);
    }
    free(missing.text); free(unused.text); free(wrong.text);
    safetensors_close(s);
    return absent;
}

void model_fill(Model *m, const char *dir) { fill(m, dir, false); }
size_t model_fill_partial(Model *m, const char *dir) { return fill(m, dir, true); }

// ----------------------------------------------------------------------------
// writing

static void config_write(const Model *m, const char *dir, DType type)
{
    const Config *c = &m->cfg;
    const char *dtype = type == DT_F64 ? "float64"
        : type == DT_F16               ? "float16"
        : type == DT_BF16              ? "bfloat16"
                                       : "float32";
    char *path = format("%s/config.json", dir);
    json_t *j =
        json_make("{s:[s], s:s, s:s}", "architectures", c->scalar_head ? m->cfg.arch->classifier : m->cfg.arch->lm,
                  "model_type", m->cfg.arch->name, "torch_dtype", dtype);
    fields_write(c, c->arch->fields, j);
    fields_write(c, common_fields, j);
    if (c->arch->write) c->arch->write(c, j);
    if (c->scalar_head) {
        json_object_set_new(j, "id2label", json_make("{s:s}", "0", "LABEL_0"));
        json_object_set_new(j, "label2id", json_make("{s:i}", "LABEL_0", 0));
    }
    // exact: int(head size * rotary share) must not move
    char *text = json_text(j, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    AsideFile *a = aside_open(path);
    fprintf(a->f, "%s\n", text);
    aside_commit(a);
    free(text); free(path);
    json_decref(j);
}

// Whether model_save or checkpoint_save writes files of this name (or is writing them: NAME.tmp)
static bool model_file(const char *name)
{
    static const char *const others[] = {"config.json", "model.safetensors", "model.safetensors.index.json",
        "state.safetensors"};
    char stem[64], numbered[64];
    int shard, shards;
    size_t n = strlen(name);
    if (n >= sizeof stem) return false;
    memcpy(stem, name, n + 1);
    if (n > 4 && !strcmp(stem + n - 4, ".tmp")) stem[n -= 4] = 0;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) if (!strcmp(stem, others[i])) return true;
    for (size_t i = 0; tokenizer_files[i]; i++) if (!strcmp(stem, tokenizer_files[i])) return true;
    if (sscanf(stem, "model-%d-of-%d", &shard, &shards) != 2) return false;
    snprintf(numbered, sizeof numbered, "model-%05d-of-%05d.safetensors", shard, shards);
    return !strcmp(stem, numbered);
}

static char *unfinished; // the folder being written; an error leaves none behind
// at the end nothing dies any more
static void remove_unfinished(void) { if (unfinished) folder_removed(unfinished, model_file); }

// one parameter at a time in the file's form
typedef struct { const Model *m; DType type; const Param **params; size_t first; real *x; void *data; } Saving;
static const void *saved_data(void *context, size_t i)
{
    Saving *s = (Saving *)context;
    const Param *q = s->params[s->first + i];
    param_get(s->m, q, s->x);
    real_to_type(s->data, s->type, s->x, q->n);
    return s->data;
}

void model_save(const Model *m, const char *folder, DType type, const char *tokenizer_dir, size_t shard_bytes)
{
    if (m->cfg.score_bias) die("%s: a reward model with a bias in cleanrl's form is read, not written", folder);
    char *dir = xstrdup(folder);
    for (size_t n = strlen(dir); n > 1 && dir[n - 1] == '/'; n--) dir[n - 1] = 0;
    bool fresh = !is_folder(dir);
    char *to = fresh ? format("%s.tmp", dir) : xstrdup(dir);
    if (fresh) {
        clean_at_end(remove_unfinished);
        remove_folder(to, model_file);
        unfinished = to;
    }
    make_folder(to);
    // from here on a value rounds to infinity
    double limit = type == DT_F16 ? 65520 : type == DT_BF16 ? 0x1.ffp127 : type == DT_F32 ? 0x1.ffffffp127 : INFINITY;
    Saving s = {.m = m, .type = type};
    Tensor *t = NULL;
    size_t *shard = NULL, shards = 1, bytes = 0, total = 0, largest = 0;
    for (size_t i = 0; i < m->n_list; i++) if (m->list[i].n > largest) largest = m->list[i].n;
    s.x = (real *)xmalloc(largest * sizeof *s.x);
    s.data = xmalloc(largest * dtype_size(type));
    for (size_t i = 0; i < m->n_list; i++) { // all is looked at before anything is written
        const Param *q = &m->list[i];
        if (q->flags & P_VALUE) continue;
        param_get(m, q, s.x);
        for (size_t k = 0; k < q->n; k++)
            if (!(fabs((double)s.x[k]) < limit))
                die("%s: %s: element %zu is %g, which %s: nothing was saved", dir, q->name, k, (double)s.x[k],
                    isfinite(s.x[k]) ? "the type cannot hold (choose --dtype bf16 or fp32)"
                                     : "is not a number to train on (lower --lr)");
        Tensor e = {.name = format("%s%s", q->flags & P_HEAD ? "" : m->cfg.arch->prefix, q->name), .type = type,
            .rank = q->cols ? 2 : 1, .n = q->n};
        bool transposed = q->flags & P_TRANSPOSE;
        e.shape[0] = transposed ? q->cols : q->rows;
        e.shape[1] = transposed ? q->rows : q->cols;
        size_t size = q->n * dtype_size(type);
        if (shard_bytes && bytes && bytes + size > shard_bytes) { shards++; bytes = 0; }
        bytes += size;
        total += size;
        arrput(t, e);
        arrput(shard, shards);
        arrput(s.params, q);
    }
    config_write(m, to, type);
    if (tokenizer_dir) tokenizer_copy(tokenizer_dir, to);
    const char *meta[] = {"format", "pt", NULL};
    json_t *map = json_object();
    char *one = format("%s/model.safetensors", to), *index = format("%s/model.safetensors.index.json", to);
    // shards of two saves are never mixed: until the new index is there, there is no model
    if (shards > 1 && !fresh && remove_file(index)) sync_folder(to);
    for (size_t k = 1, i = 0; k <= shards; k++) {
        size_t first = i;
        char *name = shards == 1 ? xstrdup("model.safetensors") : format("model-%05zu-of-%05zu.safetensors", k, shards),
             *path = format("%s/%s", to, name);
        for (; i < arrlenu(t) && shard[i] == k; i++) json_object_set_new(map, t[i].name, json_string(name));
        s.first = first;
        safetensors_write(path, t + first, i - first, meta, saved_data, &s);
        free(name); free(path);
    }
    if (shards > 1) {
        json_t *j = json_make("{s:{s:I}, s:O}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
        char *text = json_text(j, JSON_INDENT(2));
        AsideFile *a = aside_open(index);
        fprintf(a->f, "%s\n", text);
        aside_commit(a);
        free(text);
        json_decref(j);
        remove_file(one); // of an earlier save: it would be read in place of the shards
    } else remove_file(index);
    sync_folder(to);
    if (fresh) {
        if (rename(to, dir)) die("%s: cannot be renamed to %s: %s", to, dir, strerror(errno));
        unfinished = NULL;
        char *slash = strrchr(dir, '/'),
             *parent = slash ? format("%.*s", slash == dir ? 1 : (int)(slash - dir), dir) : xstrdup(".");
        sync_folder(parent);
        free(parent);
    }
    for (size_t i = 0; i < arrlenu(t); i++) free((void *)t[i].name);
    arrfree(t); arrfree(shard); arrfree(s.params);
    free(s.x); free(s.data);
    json_decref(map);
    free(to); free(dir); free(one); free(index);
}

uint64_t model_fingerprint(const Model *m)
{
    const Config *c = &m->cfg;
    union { double f; uint64_t u; } eps = {c->eps}, base = {c->rotary_base}, shift = {c->score_shift};
    const uint64_t of_config[] = {
        c->C,           c->L,  c->V,           c->NH,  c->F,        c->max_T, (uint64_t)c->act,
        c->scalar_head, eps.u, rotary_dims(c), base.u, c->parallel, shift.u};
    uint64_t h = c->scalar_head && c->pad >= 0 ? mix64((uint64_t)c->pad + 1) : 0;
    for (size_t i = 0; i < sizeof of_config / sizeof *of_config; i++) h = hash_more(h, of_config[i]);
    for (size_t i = 0; i < m->n_list; i++) {
        const Param *q = &m->list[i];
        if (q->flags & P_VALUE) continue;
        real *x = (real *)xmalloc(q->n * sizeof *x);
        // data, which has the exact weights rounded to it where they are kept apart
        to_file_layout(m, m->o, q, slice(m->data, q->offset, q->n), x);
        for (size_t k = 0; k < q->n; k++) {
            union { float f; uint32_t u; } b = {bf16_value(bf16_round((float)x[k]))};
            h = hash_more(h, b.u);
        }
        free(x);
    }
    return h;
}
#endif
