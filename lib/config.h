// config.h: Hugging Face folders in and out: config.json, the weights, the tokenizer beside them.
//
// A folder is read through the model's parameter list: each parameter is looked up by name (with or without `transformer.` or `gpt_neox.`),
// checked for shape and handed to param_set a piece at a time, so that loading needs little memory beside the weights. What is missing, left
// over or of another shape is listed all at once. A config that would change the mathematics without our noticing (inverse-layer attention
// scaling, scaled rotary positions) is refused. What is written loads with AutoModelForCausalLM and AutoModelForSequenceClassification of
// transformers 4 and 5. cleanrl's reward models (`lm_backbone.*`, `scalar_head.*`, a nested base_config) are read, not written.
#ifndef CONFIG_H
#define CONFIG_H
#include "../gpt2.h"

void config_read(Config *c, const char *dir); // a folder, or a config.json by itself; dies naming the file and the field
// A folder's model, parameters filled; the value head, which no folder has, is left undefined.
void model_load(Model *m, const Ops *o, const char *dir, long train_layers, bool value_head);
void model_fill(Model *m, const char *dir);   // all parameters of a created model from a folder of the same configuration; measured only: names and shapes are checked
// Fills what the folder has under the same name and shape; returns how many parameters it did not find (their values are kept).
size_t model_fill_partial(Model *m, const char *dir);
// Writes a new folder aside and renames it; into an existing one file by file, weights last. shard_bytes 0: one file.
void model_save(const Model *m, const char *dir, DType type, const char *tokenizer_dir, size_t shard_bytes);
uint64_t model_fingerprint(const Model *m);   // of configuration and weights as float32, value head excepted
#endif

#if defined(VBON_IMPLEMENTATION) && !defined(CONFIG_IMPLEMENTED)
#define CONFIG_IMPLEMENTED

static json_int_t config_integer(json_t *j, const char *path, const char *key, json_int_t fallback) // fallback < 0: required
{
    json_t *v = json_object_get(j, key);
    if ((!v || json_is_null(v)) && fallback >= 0) return fallback;
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > 1 << 30) die("%s: \"%s\" is missing or no valid number", path, key);
    return json_integer_value(v);
}

static double config_number(json_t *j, const char *path, const char *key, double fallback)
{
    json_t *v = json_object_get(j, key);
    if (!v || json_is_null(v)) return fallback;
    if (!json_is_number(v) || !(json_number_value(v) > 0)) die("%s: \"%s\" must be a positive number", path, key);
    return json_number_value(v);
}

static bool config_bool(json_t *j, const char *path, const char *key, bool fallback)
{
    json_t *v = json_object_get(j, key);
    if (!v || json_is_null(v)) return fallback;
    if (!json_is_boolean(v)) die("%s: \"%s\" must be true or false", path, key);
    return json_is_true(v);
}

static int config_token(json_t *j, const char *path, const char *key) // -1: none
{
    json_t *v = json_object_get(j, key);
    if (!v || json_is_null(v)) return -1;
    if (!json_is_integer(v) || llabs(json_integer_value(v)) > 1 << 30) die("%s: \"%s\" must be one token", path, key);
    return json_integer_value(v) < 0 ? -1 : (int)json_integer_value(v);
}

static const struct { const char *name; Activation act; } activations[] = {{"gelu_new", ACT_GELU_TANH}, {"gelu", ACT_GELU_ERF}, {"relu", ACT_RELU},
    {"gelu_pytorch_tanh", ACT_GELU_TANH}, {"gelu_fast", ACT_GELU_TANH}}; // the first three, in Activation's order, are what we write
static Activation config_activation(json_t *j, const char *path, const char *key, Activation fallback)
{
    json_t *function = json_object_get(j, key);
    const char *act = json_string_value(function);
    if (!function) return fallback;
    for (size_t i = 0; i < sizeof activations / sizeof *activations; i++) if (act && !strcmp(act, activations[i].name)) return activations[i].act;
    die("%s: %s %s is not supported (gelu_new, gelu_pytorch_tanh, gelu_fast, gelu and relu are)", path, key, act ? shown(act) : "(not a string)");
}

static void gpt2_config_read(Config *c, json_t *j, const char *path)
{
    c->tied = true;
    c->C = (size_t)config_integer(j, path, "n_embd", -1);
    c->L = (size_t)config_integer(j, path, "n_layer", -1);
    c->NH = (size_t)config_integer(j, path, "n_head", -1);
    c->max_T = (size_t)config_integer(j, path, json_object_get(j, "n_positions") ? "n_positions" : "n_ctx", -1);
    c->F = (size_t)config_integer(j, path, "n_inner", (json_int_t)(4 * c->C));
    c->eps = config_number(j, path, "layer_norm_epsilon", 1e-5);
    c->act = config_activation(j, path, "activation_function", ACT_GELU_TANH);
    const char *refused[] = {"scale_attn_by_inverse_layer_idx", "add_cross_attention"};
    for (int i = 0; i < 2; i++) if (json_is_true(json_object_get(j, refused[i]))) die("%s: %s is not supported: this model computes something else", path, refused[i]);
    if (json_is_false(json_object_get(j, "scale_attn_weights"))) die("%s: scale_attn_weights false is not supported: this model computes something else", path);
}

static void gpt2_config_write(const Config *c, json_t *j)
{
    json_t *own = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:b}", "activation_function", activations[c->act].name,
        "n_positions", (int)c->max_T, "n_ctx", (int)c->max_T, "n_embd", (int)c->C, "n_layer", (int)c->L, "n_head", (int)c->NH,
        "layer_norm_epsilon", c->eps, "attn_pdrop", 0.0, "embd_pdrop", 0.0, "resid_pdrop", 0.0, "scale_attn_weights", 1);
    json_object_set_new(own, "n_inner", c->F == 4 * c->C ? json_null() : json_integer((json_int_t)c->F));
    json_object_update(j, own);
    json_decref(own);
}

#include "../pythia.h" // neox_config_read, neox_config_write

// What each architecture names in its own way; the rest is common
static const struct { const char *arch; void (*read)(Config *c, json_t *j, const char *path); void (*write)(const Config *c, json_t *j); } config_forms[] =
    {{"gpt2", gpt2_config_read, gpt2_config_write}, {"gpt_neox", neox_config_read, neox_config_write}};

static char *config_path(const char *dir) { return !is_folder(dir) && !access(dir, R_OK) ? xstrdup(dir) : format("%s/config.json", dir); } // of a folder, or the file itself

// The causal model, the classifier, and the trunk by itself (GPT2Model); transformers 4 put FSDP before the name after sharded training
static bool is_own_class(const Architecture *a, const char *class)
{
    if (!strncmp(class, "FSDP", 4)) class += 4;
    size_t stem = (size_t)(strstr(a->classifier, "For") - a->classifier);
    return !strcmp(class, a->lm) || !strcmp(class, a->classifier) || (!strncmp(class, a->classifier, stem) && !strcmp(class + stem, "Model"));
}

void config_read(Config *c, const char *dir)
{
    char *path = config_path(dir);
    must_be_there(dir);
    if (access(path, R_OK)) die("%s: missing: %s is not a Hugging Face model folder", path, dir);
    json_t *file = json_file(path), *base = json_object_get(file, "base_config"), *j = base ? base : file;
    const char *type = json_string_value(json_object_get(j, "model_type"));
    size_t form = 0, n_forms = sizeof config_forms / sizeof *config_forms;
    while (form < n_forms && (!type || strcmp(type, config_forms[form].arch))) form++;
    if (form == n_forms) die("%s: model_type %s is not supported (gpt2 and gpt_neox are)", path, shown(type));
    *c = (Config){0};
    strcpy(c->arch, type);
    config_forms[form].read(c, j, path);
    c->V = (size_t)config_integer(j, path, "vocab_size", -1);
    c->init_std = config_number(j, path, "initializer_range", 0.02);
    c->bos = config_token(j, path, "bos_token_id");
    c->eos = config_token(j, path, "eos_token_id");
    c->pad = base ? -1 : config_token(j, path, "pad_token_id");
    c->tied = config_bool(j, path, "tie_word_embeddings", c->tied);
    if (!c->C || !c->L || !c->NH || !c->V || !c->max_T || !c->F || c->L > 1000) die("%s: a dimension is 0 or absurd", path);
    double C = (double)c->C, size = (double)c->L * C * (4 * C + 2 * (double)c->F) + ((double)c->V + (double)c->max_T) * C;
    if (size > 1e12) die("%s: a model of %.0e parameters: its dimensions are absurd", path, size);
    if (c->C % c->NH || c->C / c->NH > 256) die("%s: width %zu over %zu heads is no whole head size up to 256", path, c->C, c->NH);
    size_t dims = rotary_dims(c);
    if (c->rotary_pct > 0 && (dims == 0 || dims % 2 || dims > C / c->NH)) die("%s: %zu rotary dimensions of a head of %zu: must be even, and at least 2", path, dims, c->C / c->NH);
    const char *class = json_string_value(json_array_get(json_object_get(file, "architectures"), 0));
    const Architecture *own = architecture_find(type);
    if (class && !base && !is_own_class(own, class)) die("%s: architecture %s is not supported (%s and %s are)", path, shown(class), own->lm, own->classifier);
    c->scalar_head = base || (class && strstr(class, "ForSequenceClassification"));
    json_t *labels = json_object_get(j, "num_labels"), *names = json_object_get(j, "id2label"), *shift = json_object_get(file, "bias");
    if (base) { // cleanrl's ScalarModel
        c->score_bias = true;
        if (shift && !json_is_number(shift)) die("%s: \"bias\" must be a number", path);
        c->score_shift = json_number_value(shift);
    } else if (c->scalar_head) {
        c->labels = json_is_integer(labels) ? (size_t)json_integer_value(labels) : json_is_object(names) ? json_object_size(names) : 2;
    }
    json_decref(file);
    free(path);
}

static bool ends_with(const char *s, const char *end) { size_t a = strlen(s), b = strlen(end); return a >= b && !strcmp(s + a - b, end); }

static const char *const backbone = "lm_backbone."; // of cleanrl's reward models
static const char *bare_name(const Model *m, const char *s)
{
    const char *prefixes[] = {m->cfg.score_bias ? backbone : "", m->arch->prefix};
    for (int i = 0; i < 2; i++) if (!strncmp(s, prefixes[i], strlen(prefixes[i]))) s += strlen(prefixes[i]);
    return s;
}

static const Tensor *find_param(const Model *m, const Safetensors *s, const Param *q)
{
    const char *prefixes[] = {"", m->arch->prefix, backbone, backbone};
    for (int i = 0; i < (m->cfg.score_bias ? 4 : 2); i++) {
        char name[112];
        snprintf(name, sizeof name, "%s%s%s", prefixes[i], i == 3 ? m->arch->prefix : "", q->name);
        const Tensor *t = safetensors_find(s, name);
        if (t) return t;
    }
    return NULL;
}

static bool same_shape(const Tensor *t, const Param *q)
{
    bool transposed = q->flags & P_TRANSPOSE;
    return q->cols ? t->rank == 2 && t->shape[transposed] == q->rows && t->shape[!transposed] == q->cols : t->rank == 1 && t->shape[0] == q->rows;
}

static const char *head_name(const Architecture *a)
{
    const ParamSpec *s = a->table;
    while (!(s->flags & P_HEAD)) s++;
    return s->hf;
}

typedef struct { char *text; size_t n; } Names; // all of them in one line, unless a stranger's file would fill the screen
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
    if (m->cfg.scalar_head && m->cfg.labels > 1) die("%s: %zu labels: a reward model has one", dir, m->cfg.labels);
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
            for (int d = 0; d < t->rank; d++) at += snprintf(what + at, sizeof what - (size_t)at, "%s%zu", d ? "x" : "", t->shape[d]);
            if (q->cols) snprintf(what + at, sizeof what - (size_t)at, ", not %zux%zu)", transposed ? q->cols : q->rows, transposed ? q->rows : q->cols);
            else snprintf(what + at, sizeof what - (size_t)at, ", not %zu)", q->rows);
            absent++;
            add_name(&wrong, what);
            continue;
        }
        if (!m->data.p) continue;
        size_t rows = q->flags & P_TRANSPOSE ? q->cols : q->rows, width = q->n / rows, step = q->flags & P_TRANSPOSE ? rows : load_piece / width + 1;
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
        for (const char *const *end = m->arch->buffers; *end; end++) known |= ends_with(t->name, *end);
        for (size_t k = 0; k < m->n_list && !known; k++) known = !strcmp(name, m->list[k].name) && find_param(m, s, &m->list[k]) == t; // not twice, with and without the prefix
        const Param *wte = &m->list[0];
        if (!known && m->cfg.tied && !m->cfg.scalar_head && !strcmp(name, head_name(m->arch)) && same_shape(t, wte)) { // a copy of the tied head
            known = !m->data.p;
            if (!known) {
                real *a = (real *)xmalloc(t->n * sizeof *a), *b = (real *)xmalloc(t->n * sizeof *b);
                tensor_to_real(a, t, 0, t->n, path);
                param_get(m, wte, b);
                known = !memcmp(a, b, t->n * sizeof *a);
                if (!known) die("%s: %s differs from %s though config.json ties them: set tie_word_embeddings to false", path, name, wte->name);
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

void model_load(Model *m, const Ops *o, const char *dir, long train_layers, bool value_head)
{
    Config c;
    config_read(&c, dir);
    model_create(m, o, &c, train_layers, value_head, false);
    model_fill(m, dir);
}

// ----------------------------------------------------------------------------
// writing

static void config_write(const Model *m, const char *dir, DType type)
{
    const Config *c = &m->cfg;
    const char *dtype = type == DT_F64 ? "float64" : type == DT_F16 ? "float16" : type == DT_BF16 ? "bfloat16" : "float32";
    char *path = format("%s/config.json", dir);
    json_t *j = json_pack("{s:[s], s:s, s:i, s:f, s:b, s:s}", "architectures", c->scalar_head ? m->arch->classifier : m->arch->lm, "model_type", m->arch->name,
        "vocab_size", (int)c->V, "initializer_range", c->init_std, "tie_word_embeddings", (int)c->tied, "torch_dtype", dtype);
    for (size_t i = 0; i < sizeof config_forms / sizeof *config_forms; i++) if (!strcmp(c->arch, config_forms[i].arch)) config_forms[i].write(c, j);
    const struct { const char *key; int id; } tokens[] = {{"bos_token_id", c->bos}, {"eos_token_id", c->eos}, {"pad_token_id", c->pad}};
    for (int i = 0; i < 3; i++) json_object_set_new(j, tokens[i].key, tokens[i].id >= 0 ? json_integer(tokens[i].id) : json_null());
    if (c->scalar_head) {
        json_object_set_new(j, "id2label", json_pack("{s:s}", "0", "LABEL_0"));
        json_object_set_new(j, "label2id", json_pack("{s:i}", "LABEL_0", 0));
    }
    char *text = json_dumps(j, JSON_INDENT(2) | JSON_REAL_PRECISION(17)); // exact: int(head size * rotary share) must not move
    AsideFile *a = aside_open(path);
    fprintf(a->f, "%s\n", text);
    aside_commit(a);
    free(text); free(path);
    json_decref(j);
}

static char *unfinished; // the folder being written; an error leaves none behind
static void remove_unfinished(void) { if (unfinished) remove_folder(unfinished); }

typedef struct { const Model *m; DType type; const Param **params; size_t first; real *x; void *data; } Saving; // one parameter at a time in the file's form
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
        static bool registered;
        if (!registered) { atexit(remove_unfinished); registered = true; }
        remove_folder(to);
        unfinished = to;
    }
    make_folder(to);
    double limit = type == DT_F16 ? 65520 : type == DT_BF16 ? 0x1.ffp127 : type == DT_F32 ? 0x1.ffffffp127 : INFINITY; // from here on a value rounds to infinity
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
            if (!(fabs((double)s.x[k]) < limit)) die("%s: %s: element %zu is %g, which %s: nothing was saved", dir, q->name, k, (double)s.x[k],
                isfinite(s.x[k]) ? "the type cannot hold (choose --dtype bf16 or fp32)" : "is not a number to train on (lower --lr)");
        Tensor e = {.name = format("%s%s", q->flags & P_HEAD ? "" : m->arch->prefix, q->name), .type = type, .rank = q->cols ? 2 : 1, .n = q->n};
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
    if (shards > 1 && !fresh && !unlink(index)) sync_folder(to); // shards of two saves are never mixed: until the new index is there, there is no model
    for (size_t k = 1, i = 0; k <= shards; k++) {
        size_t first = i;
        char *name = shards == 1 ? xstrdup("model.safetensors") : format("model-%05zu-of-%05zu.safetensors", k, shards), *path = format("%s/%s", to, name);
        for (; i < arrlenu(t) && shard[i] == k; i++) json_object_set_new(map, t[i].name, json_string(name));
        s.first = first;
        safetensors_write(path, t + first, i - first, meta, saved_data, &s);
        free(name); free(path);
    }
    if (shards > 1) {
        json_t *j = json_pack("{s:{s:I}, s:O}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
        char *text = json_dumps(j, JSON_INDENT(2));
        AsideFile *a = aside_open(index);
        fprintf(a->f, "%s\n", text);
        aside_commit(a);
        free(text);
        json_decref(j);
        unlink(one); // of an earlier save: it would be read in place of the shards
    } else unlink(index);
    sync_folder(to);
    if (fresh) {
        if (rename(to, dir)) die("%s: cannot be renamed to %s: %s", to, dir, strerror(errno));
        unfinished = NULL;
        char *slash = strrchr(dir, '/'), *parent = slash ? format("%.*s", slash == dir ? 1 : (int)(slash - dir), dir) : xstrdup(".");
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
    const uint64_t of_config[] = {c->C, c->L, c->V, c->NH, c->F, c->max_T, (uint64_t)c->act, c->scalar_head, eps.u, rotary_dims(c), base.u, c->parallel, shift.u};
    uint64_t h = c->scalar_head && c->pad >= 0 ? mix64((uint64_t)c->pad + 1) : 0;
    for (size_t i = 0; i < sizeof of_config / sizeof *of_config; i++) h = mix64((h ^ of_config[i]) + 0x9e3779b97f4a7c15ull);
    for (size_t i = 0; i < m->n_list; i++) {
        const Param *q = &m->list[i];
        if (q->flags & P_VALUE) continue;
        real *x = (real *)xmalloc(q->n * sizeof *x);
        param_get(m, q, x);
        for (size_t k = 0; k < q->n; k++) {
            union { float f; uint32_t u; } b = {(float)x[k]};
            h = mix64((h ^ b.u) + 0x9e3779b97f4a7c15ull);
        }
        free(x);
    }
    return h;
}
#endif
