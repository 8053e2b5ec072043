// arch_test.h: architectures are rows: one of one's own through every step of a folder's life; what config.json may not
// say; flags with a word.

// A GPT-2 with Pythia's rotary positions and order of queries, keys and values, other names for its tensors, and one
// more field.
static const ParamSpec mine_params[] = {
    {"embed",              IN_PARAMS(wte),  D_V,  D_C, P_DECAY},
    {"block.%zu.norm1.w",  IN_BLOCK(ln1w),  D_C,  0,   P_LAYER | P_NORM},
    {"block.%zu.norm1.b",  IN_BLOCK(ln1b),  D_C,  0,   P_LAYER},
    {"block.%zu.qkv.w",    IN_BLOCK(qkvw),  D_3C, D_C, P_LAYER | P_DECAY | P_PLACED | P_MATMUL},
    {"block.%zu.qkv.b",    IN_BLOCK(qkvb),  D_3C, 0,   P_LAYER | P_PLACED},
    {"block.%zu.proj.w",   IN_BLOCK(projw), D_C,  D_C, P_LAYER | P_DECAY | P_TRANSPOSE | P_MATMUL | P_PROJ},
    {"block.%zu.proj.b",   IN_BLOCK(projb), D_C,  0,   P_LAYER},
    {"block.%zu.norm2.w",  IN_BLOCK(ln2w),  D_C,  0,   P_LAYER | P_NORM},
    {"block.%zu.norm2.b",  IN_BLOCK(ln2b),  D_C,  0,   P_LAYER},
    {"block.%zu.up.w",     IN_BLOCK(fcw),   D_F,  D_C, P_LAYER | P_DECAY | P_MATMUL},
    {"block.%zu.up.b",     IN_BLOCK(fcb),   D_F,  0,   P_LAYER},
    {"block.%zu.down.w",   IN_BLOCK(fc2w),  D_C,  D_F, P_LAYER | P_DECAY | P_MATMUL | P_PROJ},
    {"block.%zu.down.b",   IN_BLOCK(fc2b),  D_C,  0,   P_LAYER},
    {"norm.w",             IN_PARAMS(lnfw), D_C,  0,   P_NORM},
    {"norm.b",             IN_PARAMS(lnfb), D_C,  0,   0},
    {"unembed",            IN_PARAMS(head), D_V,  D_C, P_DECAY | P_MATMUL | P_HEAD},
    {0},
};
static const char *const no_buffers[] = {NULL};
static const ConfigField mine_fields[] = {
    {"vocab_size", NULL, F_SIZE, KEPT(V), 1, 1 << 28, NAN},
    {"length", NULL, F_SIZE, KEPT(max_T), 1, 1 << 28, NAN},
    {"width", NULL, F_SIZE, KEPT(C), 1, 1 << 20, NAN},
    {"depth", NULL, F_SIZE, KEPT(L), 1, 1000, NAN},
    {"heads", NULL, F_SIZE, KEPT(NH), 1, 1 << 20, NAN},
    {"inner", NULL, F_SIZE, KEPT(F), 1, 1 << 24, 0},
    {"epsilon", NULL, F_NUMBER, KEPT(eps), 1e-30, 1, 1e-5},
    {"activation", NULL, F_ACT, KEPT(act), 0, 0, ACT_RELU},
    {0},
};
static void mine_read(Config *c, json_t *j, const char *path)
{
    c->rotary_pct = json_number_value(json_object_get(j, "turned"));
    c->rotary_base = 100;
    if (!(c->rotary_pct > 0)) die("%s: \"turned\" is missing", path);
}
static void mine_write(const Config *c, json_t *j) { json_object_set_new(j, "turned", json_real(c->rotary_pct)); }
static void mine_fresh(Config *c) { c->rotary_pct = 0.5; c->rotary_base = 100; c->act = ACT_RELU; }

// The final hidden state of one row of tokens, malloc'd
static real *hidden_states(const Model *m, const int *tokens, int n)
{
    Arena work = {.name = "work", .o = m->o};
    Batch b;
    Acts acts = {0};
    const int start[2] = {0, n};
    for (int pass = 0; pass < 2; pass++) {
        if (pass) arena_place(&work);
        batch_carve(&b, &work, (size_t)n, 1);
        acts_carve(&acts, m, &work, (size_t)n, m->cfg.L);
    }
    batch_set(&b, m, tokens, start, NULL, 1);
    size_t size = (size_t)n * m->cfg.C;
    real *x = (real *)xmalloc(size * sizeof *x);
    m->o->download(x, slice(model_forward(m, &m->p, &acts, &b, 0, m->cfg.L, NULL), 0, size));
    acts_free(&acts);
    arena_release(&work);
    return x;
}

static void test_architecture_row(void)
{
    ROW_ADD(architectures, {
        .name = "mine", .prefix = "mine.", .lm = "MineForCausalLM", .classifier = "MineForSequenceClassification",
        .params = mine_params, .buffers = no_buffers, .fields = mine_fields, .fresh = mine_fresh,
        .read = mine_read, .write = mine_write, .place = neox_place, .turn = neox_turn});
    const Architecture *row = ROW(architectures, "mine");
    const int tokens[6] = {3, 1, 4, 1, 5, 9};
    Config c = {.arch = row, .L = 2, .NH = 2, .C = 8, .F = 20, .V = 31, .max_T = 12, .eps = 1e-5, .init_std = 0.3,
        .bos = -1, .eos = 7, .pad = -1};
    row->fresh(&c);
    Model a, b;
    model_create(&a, ops_cpu(), &c, TRAIN_ALL, false, false);
    model_random(&a, 5);
    char *dir = tmp_path("mine"), *config = tmp_path("mine/config.json");
    model_save(&a, dir, DT_F32, NULL, 0);
    model_load(&b, ops_cpu(), dir, TRAIN_NONE, false);
    const Config *r = &b.cfg;
    CHECK(r->arch == row && r->act == ACT_RELU && r->rotary_pct == 0.5 && r->eos == 7 && !r->tied, "config.json, read");
    CHECK(model_fingerprint(&a) == model_fingerprint(&b), "its weights, read back");
    json_t *j = json_file(config);
    const char *type = json_string_value(json_object_get(j, "model_type"));
    CHECK(type && !strcmp(type, "mine"), "model_type");
    CHECK(json_integer_value(json_object_get(j, "depth")) == 2, "config.json in its own words");
    Safetensors *s = safetensors_open(dir);
    const Tensor *qkv = safetensors_find(s, "mine.block.1.qkv.b");
    CHECK(qkv && safetensors_find(s, "unembed"), "tensors by its own names");
    for (size_t i = 0; i < a.n_list && qkv; i++) // NH = 2, HS = 4: [NH][3][HS] in the file, [3][NH][HS] in the model
        if (!strcmp(a.list[i].name, "block.1.qkv.b")) {
            real file[24], *own = R_(a.data) + a.list[i].offset;
            for (int k = 0; k < 24; k++) own[k] = (real)k;
            param_get(&a, &a.list[i], file);
            for (int k = 0; k < 24; k++)
                CHECK(file[k] == k / 4 % 3 * 8 + k / 12 * 4 + k % 4, "row %d is row %g here", k, (double)file[k]);
        }
    safetensors_close(s);
    // Its positions are its own function's: without that, tokens do not know where they stand
    real *with = hidden_states(&b, tokens, 6);
    Architecture still = *row;
    still.turn = NULL;
    b.cfg.arch = &still;
    real *without = hidden_states(&b, tokens, 6);
    double apart = 0;
    for (size_t i = 0; i < 6 * 8; i++) apart = fmax(apart, fabs((double)with[i] - (double)without[i]));
    CHECK(apart > 1e-3, "rotary positions change nothing: %g", apart);
    json_object_del(j, "turned");
    char *text = json_text(j, 0);
    write_file(config, text, strlen(text));
    expect_death(load_model, dir, 1, "\"turned\" is missing");
    write_file(config, "{\"model_type\":\"yours\"}", 22);
    expect_death(load_model, dir, 1, "yours is not supported (supported are gpt2, gpt_neox, mine)");
    architectures[row - architectures] = (Architecture){0}; // the table is as it was
    json_decref(j);
    free(text); free(with); free(without); free(dir); free(config);
    model_free(&a); model_free(&b);
}

// What transformers would do something about, and we do not: refused by name, even beside plain weights
static void test_config_refusals(void)
{
    char *dir = tmp_path("refused"), *config = tmp_path("refused/config.json");
    make_folder(dir);
    static const char *const bodies[] = {
        "{\"model_type\":\"gpt2\",\"n_embd\":8,\"n_layer\":1,\"n_head\":2,\"vocab_size\":31,\"n_positions\":4",
        "{\"model_type\":\"gpt_neox\",\"hidden_size\":8,\"num_hidden_layers\":1,\"num_attention_heads\":2,"
            "\"intermediate_size\":16,\"vocab_size\":31,\"rotary_pct\":0.5",
        "{\"model_type\":\"distilbert\",\"architectures\":[\"DistilBertForSequenceClassification\"],\"num_labels\":1"};
    static const struct { const char *field, *says; } cases[] = {
        {"\"quantization_config\":{\"bits\":4}", "\"quantization_config\" is {\"bits\":4}: it must be left out"},
        {"\"quantization_config\":\"gptq\"", "\"quantization_config\" is \"gptq\": it must be left out"},
        {"\"pruned_heads\":{\"0\":[1]}", "\"pruned_heads\" is {\"0\":[1]}: it must be left out"},
        {"\"pruned_heads\":{},\"quantization_config\":null", NULL}, {"\"pruned_heads\":null", NULL}};
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
        for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
            char *text = format("%s,%s}", bodies[i], cases[k].field);
            write_file(config, text, strlen(text));
            Config c;
            DistilBert d = {0};
            if (cases[k].says) expect_death(i == 2 ? load_bert : plan_model, dir, 1, cases[k].says);
            else if (i == 2) distilbert_config(&d, &c, dir);
            else config_read(&c, dir);
            free(text);
        }
    char *text = format("%s,\"intermediate_size\":16}", bodies[0]); // no name of a GPT-2's field in transformers
    write_file(config, text, strlen(text));
    Config c;
    config_read(&c, dir);
    CHECK(c.F == 32, "the inner width is %zu", c.F);
    free(text); free(dir); free(config);
}

// A number, or the word that stands for one
static void parse_words(const char *flag)
{
    Args a;
    char *one[] = {(char *)flag};
    flags_parse(&a, flag_table, n_flags, "offline", 1, one, preset_flags);
}
static void test_word_flags(void)
{
    static const struct { const char *flag, *name, *said; } good[] = {
        {"--train-layers=all", "train-layers", "\"all\""}, {"--train-layers=2", "train-layers", "2"},
        {"--alpha=auto", "alpha", "\"auto\""}, {"--alpha=0.25", "alpha", "0.25"},
        {"--missing-eos=none", "missing-eos", "\"none\""}, {"--missing-eos=-1.5", "missing-eos", "-1.5"}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        Args a = {0};
        char *argv[] = {(char *)good[i].flag};
        flags_parse(&a, flag_table, n_flags, "offline", 1, argv, preset_flags);
        json_t *j = flags_json(&a, flag_table, n_flags, "offline");
        char *is = json_text(json_object_get(j, good[i].name), JSON_ENCODE_ANY);
        CHECK(!strcmp(is, good[i].said), "%s is recorded as %s", good[i].flag, is);
        CHECK((a.train_layers == TRAIN_ALL) == (i != 1), "%s: %ld", good[i].flag, a.train_layers);
        CHECK(isnan(a.alpha) == (i != 3) && isnan(a.missing_eos) == (i != 5), "%s", good[i].flag);
        json_decref(j);
        free(is);
    }
    static const struct { const char *flag, *says; } bad[] = {
        {"--train-layers=al", "neither \"all\" nor a whole number"}, {"--train-layers=alls", "neither \"all\""},
        {"--train-layers=-1", "must be all, or at least 0 and at most 1e+09"},
        {"--alpha=1.5", "must be auto, or at least 0 and at most 1"},
        {"--alpha=nan", "neither \"auto\" nor a number"}, {"--missing-eos=", "neither \"none\" nor a number"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) expect_death(parse_words, bad[i].flag, 2, bad[i].says);
}
