// files_test.h: folders written and read, and what happens with broken ones. Errors end
// the process, so each is provoked in a child.

static char test_folder[64]; // a fresh folder under /tmp, removed at exit
static void remove_test_folder(void) { char *c = format("rm -rf %s", test_folder); if (system(c)) {} free(c); }
static char *tmp_path(const char *name)
{
    if (!*test_folder) {
        strcpy(test_folder, "/tmp/vbon-test-XXXXXX");
        if (!mkdtemp(test_folder)) die("%s: cannot be made", test_folder);
        atexit(remove_test_folder);
    }
    return format("%s/%s", test_folder, name);
}

static void write_file(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f)) die("%s: cannot be written", path);
}
static void write_text(const char *path, const char *text) { write_file(path, text, strlen(text)); }
static char *read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *s = NULL;
    *n = 0;
    if (!f) return NULL;
    for (int c; (c = fgetc(f)) != EOF;) { arrput(s, (char)c); (*n)++; }
    arrput(s, 0);
    fclose(f);
    return s;
}

static void copy_file(const char *from, const char *to)
{
    size_t n;
    char *s = read_file(from, &n);
    write_file(to, s, n);
    arrfree(s);
}

// Runs f(arg) in a child; checks that it ends with `code` and writes one line that contains `says`
static void expect_death(void (*f)(const char *), const char *arg, int code, const char *says)
{
    char *err = tmp_path("stderr"), *text;
    size_t n, lines = 0;
    fflush(NULL);
    pid_t pid = fork();
    if (!pid) {
        if (!freopen(err, "w", stderr) || !freopen("/dev/null", "w", stdout)) _exit(99);
        *test_folder = 0; // the child's exit must not remove it
        arrfree(made_paths); // nor what is in it
        f(arg);
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    text = read_file(err, &n);
    for (size_t i = 0; i < n; i++) lines += text[i] == '\n';
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == code, "%s: ended with %s %d, not %d; it said: %s", says,
        WIFEXITED(status) ? "exit" : "signal", WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status), code, text);
    CHECK(lines == 1 && strstr(text, says), "wanted one line with \"%s\", got %zu: %s", says, lines, text);
    arrfree(text);
    free(err);
}

static void load_model(const char *dir) { Model m; model_load(&m, ops_cpu(), dir, TRAIN_NONE, false); }
static void load_tokenizer(const char *dir) { tokenizer_eos(tokenizer_load(dir)); }

static void test_files(void)
{
    const DType types[] = {DT_F64, DT_F32, DT_F16, DT_BF16};
    const double unit[] = {0, 0x1p-24, 0x1p-11, 0x1p-8}; // half a unit in the last place, relative
    for (int scalar = 0; scalar < 2; scalar++)
      for (int which = 0; which < TINIES; which++)
        for (int t = 0; t < 4; t++)
            for (int sharded = 0; sharded < 2; sharded++) {
                char name[60];
                snprintf(name, sizeof name, "m%d%d%d%d", scalar, which, t, sharded);
                char *dir = tmp_path(name);
                Model a, b;
                Config c = tiny_of(which, 31, which == 0, scalar);
                model_create(&a, ops_cpu(), &c, TRAIN_ALL, true, false);
                model_random(&a, 8);
                model_save(&a, dir, types[t], NULL, sharded ? 4000 : 0);
                load_piece = t % 2 ? 37 : 4 << 20; // pieces that end inside a head
                model_load(&b, ops_cpu(), dir, TRAIN_NONE, false);
                load_piece = 4 << 20;
                CHECK(b.cfg.arch == c.arch && b.cfg.parallel == c.parallel && b.cfg.tied == c.tied &&
                        rotary_dims(&b.cfg) == rotary_dims(&c),
                    "configuration");
                CHECK(b.cfg.scalar_head == scalar &&
                        b.n_params == a.n_params - (a.n_params - a.list[a.n_list - 4].offset),
                    "the value head is not part of a folder");
                double worst = 0;
                for (size_t i = 0; i < b.n_params; i++)
                    worst = worse(worst,
                        fabs((double)R_(a.data)[i] - (double)R_(b.data)[i]) / fmax(fabs((double)R_(a.data)[i]), 6e-5));
                CHECK(worst <= unit[t], "type %d: relative error %g", t, worst);
                if (t == 1) CHECK(model_fingerprint(&a) == model_fingerprint(&b), "fingerprint");
                model_save(&b, dir, types[t], NULL, sharded ? 0 : 4000); // over what is there, in the other form
                model_free(&b);
                model_load(&b, ops_cpu(), dir, TRAIN_NONE, false);
                model_free(&a); model_free(&b);
                free(dir);
            }
    for (uint32_t h = 0; h < 65536; h++) { // every half survives the way to double and back
        double x = (double)half_to_float((uint16_t)h), sign = h & 0x8000 ? -1 : 1;
        bool normal = h & 0x7c00;
        double want = sign * ldexp((h & 1023) + (normal ? 1024 : 0), (normal ? (int)(h >> 10 & 31) : 1) - 25);
        if (!isnan(x))
            CHECK(double_to_half(x) == h && (isinf(x) || x == want), "half %04x", h);
        else CHECK((h & 0x7fff) > 0x7c00, "half %04x", h);
    }
    CHECK(double_to_half(65519.9) == 0x7bff && double_to_half(65520) == 0x7c00 &&
            double_to_half(2.9802322387695312e-08) == 0 && double_to_half(2.99e-08) == 1,
        "rounding of halves");
    // a file is replaced as a whole or not at all
    char *path = tmp_path("aside");
    write_file(path, "old", 3);
    AsideFile *f = aside_open(path);
    fputs("new", f->f);
    size_t n;
    char *s = read_file(path, &n);
    CHECK(!strcmp(s, "old"), "not yet replaced");
    aside_commit(f);
    s = read_file(path, &n);
    CHECK(!strcmp(s, "new"), "replaced");
}

// Same length, or the length field is fixed up
static void patch_header(const char *from, const char *to, const char *find, const char *replace)
{
    size_t n, k = strlen(find), r = strlen(replace);
    char *s = read_file(from, &n), *hit = NULL;
    for (size_t i = 8; i + k <= n && !hit; i++) if (!memcmp(s + i, find, k)) hit = s + i;
    if (!hit) die("no %s in %s", find, from);
    char *out = xmalloc(n + r);
    size_t before = (size_t)(hit - s);
    memcpy(out, s, before); memcpy(out + before, replace, r); memcpy(out + before + r, hit + k, n - before - k);
    uint64_t len = 0;
    for (int i = 7; i >= 0; i--) len = len << 8 | (uint8_t)s[i];
    len = len + r - k;
    for (int i = 0; i < 8; i++) out[i] = (char)(len >> 8 * i & 255);
    write_file(to, out, n + r - k);
    free(out);
    arrfree(s);
}

static void fill_disk(const char *path)
{
    AsideFile *a = aside_open(path);
    if (!freopen("/dev/full", "wb", a->f)) _exit(99);
    for (int i = 0; i < 100000; i++) fputs("data", a->f);
    aside_commit(a);
}

static void plan_model(const char *dir) // a check of names and shapes, without memory for the weights
{
    Model m;
    Config c;
    config_read(&c, dir);
    model_create(&m, ops_cpu(), &c, TRAIN_NONE, false, true);
    model_fill(&m, dir);
}

static void load_bert(const char *dir) { DistilBert d; distilbert_load(&d, ops_cpu(), dir, 64, true); }

// Of a name that stands twice, JSON's reader takes the last
#define GPT "{\"model_type\":\"gpt2\",\"n_embd\":8,\"n_layer\":1,\"n_head\":2,\"vocab_size\":31,\"n_positions\":4"
#define NEOX "{\"model_type\":\"gpt_neox\""
#define SIZES ",\"hidden_size\":8,\"num_hidden_layers\":1,\"num_attention_heads\":2,\"intermediate_size\":16," \
    "\"vocab_size\":31,\"max_position_embeddings\":4"
#define BPE(vocab, merges) "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false}," \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{" vocab "},\"merges\":[" merges "]}"
#define TOKEN BPE("\"a\":0", "")
#define END(id) ",\"added_tokens\":[{\"content\":\"<|endoftext|>\",\"id\":" #id "}]"
#define BERT_CLASSIFIER "{\"model_type\":\"distilbert\",\"architectures\":[\"DistilBertForSequenceClassification\"],"

// A folder that test_malformed makes; each case below goes on with it as the one before left it.
static char *broken, *broken_config, *broken_weights, *whole_weights;

static void malformed_weights(void) // cut, grown, and with headers that do not fit them
{
    size_t n;
    char *s = read_file(whole_weights, &n), *grown = xcalloc(n + 8, 1);
    copy_file(tmp_path("good/config.json"), broken_config);
    expect_death(load_model, "/nonexistent", 1, "/nonexistent: there is no such folder");
    expect_death(load_tokenizer, "/nonexistent", 1, "/nonexistent: there is no such folder");
    expect_death(load_model, broken, 1, "no model.safetensors");
    write_file(broken_weights, s, 5);
    expect_death(load_model, broken, 1, "too short");
    write_file(broken_weights, "", 0);
    expect_death(load_model, broken, 1, "too short");
    write_file(broken_weights, s, 40);
    expect_death(load_model, broken, 1, "truncated");
    write_file(broken_weights, s, n - 8);
    expect_death(load_model, broken, 1, "truncated");
    memcpy(grown, s, n);
    write_file(broken_weights, grown, n + 8);
    expect_death(load_model, broken, 1, "bytes of data");
    memcpy(grown, s, n);
    memset(grown, 0xff, 8);
    write_file(broken_weights, grown, n);
    expect_death(load_model, broken, 1, "8 MiB");
    static const struct { const char *find, *replace, *says; } patches[] = {
        {"\"F32\"", "\"F8\"", "type F8"},
        {"\"F32\"", "\"I32\"", "holds integers"},
        {"[31,8]", "[8,31]", "wte.weight"},
        {"\"shape\":[31,8]", "\"shape\":[31,9]", "bytes for"},
        {"\"shape\":[31,8]", "\"shape\":[-31,8]", "no valid shape"},
        {"transformer.wpe.weight", "transformer.wpx.weight", "missing: wpe.weight unused: transformer.wpx.weight"},
        {"{\"__meta", "{{\"__meta", "header"},
        {"transformer.ln_f.bias", "transformer.ln_f.weight", "header"},
        {"[0,992]", "[0,99999999]", "outside"},
        {"[0,992]", "[8,1000]", "hole"},
        {"[992,1376]", "[984,1368]", "overlap"},
        {"\"shape\":[31,8]", "\"shape\":[4611686018427387904,8]", "no valid shape"}};
    for (size_t i = 0; i < COUNT(patches); i++) {
        patch_header(whole_weights, broken_weights, patches[i].find, patches[i].replace);
        expect_death(load_model, broken, 1, patches[i].says);
    }
    memcpy(grown, s, n);
    float nan = NAN;
    memcpy(grown + n - 4, &nan, 4);
    write_file(broken_weights, grown, n);
    expect_death(load_model, broken, 1, "not finite");
    write_file(broken_weights, s, n);
}

static void reward_with_a_head(void) // a reward folder with a language model's head
{
    Model reward;
    Config rc = tiny_of(1, 31, false, true);
    rc.bos = 5; rc.eos = 3;
    model_create(&reward, ops_cpu(), &rc, TRAIN_NONE, false, false);
    model_random(&reward, 8);
    char *rm = tmp_path("rm_head"), *rmw = tmp_path("rm_head/model.safetensors");
    model_save(&reward, rm, DT_F32, NULL, 0);
    config_read(&rc, rm);
    CHECK(rc.bos == 5 && rc.eos == 3, "bos_token_id %d, eos_token_id %d", rc.bos, rc.eos);
    patch_header(rmw, rmw, "{\"__meta",
        "{\"embed_out.weight\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},\"__meta");
    expect_death(load_model, rm, 1, "unused: embed_out.weight");
    expect_death(plan_model, rm, 1, "unused: embed_out.weight");
    model_free(&reward);
}

static void malformed_configs(void) // GPT-2's, then Pythia's
{
    static const struct { const char *text, *says; } configs[] = {
        {"{", "config.json:"}, {"[]", "config.json"},
        {"{\"model_type\":\"llama\"}", "llama"},
        {"{\"model_type\":\"gpt2\"}", "\"vocab_size\" is missing"},
        {GPT ",\"n_embd\":\"8\"}", "\"n_embd\" is \"8\": it must be a whole number from 1 to 1048576"},
        {GPT ",\"n_embd\":8.0}", "\"n_embd\" is 8.0"},
        {GPT ",\"n_embd\":9}", "head size"},
        {GPT ",\"n_layer\":0}", "\"n_layer\" is 0"},
        {GPT ",\"n_layer\":null}", "\"n_layer\" is null"},
        {GPT ",\"n_inner\":0}", "\"n_inner\" is 0"},
        {GPT ",\"n_positions\":-1}", "\"n_positions\" is -1"},
        {GPT ",\"num_attention_heads\":4}",
         "\"n_head\" and \"num_attention_heads\" are two names of one number, and differ"},
        {GPT ",\"vocab_size\":268435456,\"n_embd\":1048576}", "its dimensions are absurd"},
        {GPT ",\"layer_norm_epsilon\":1e308}", "\"layer_norm_epsilon\" is 1e308: it must be a number from 1e-30 to 1"},
        {GPT ",\"layer_norm_epsilon\":\"1e-5\"}", "\"layer_norm_epsilon\""},
        {GPT ",\"layer_norm_epsilon\":0}", "\"layer_norm_epsilon\""},
        {GPT ",\"initializer_range\":-1}", "\"initializer_range\""},
        {GPT ",\"attn_pdrop\":2}", "\"attn_pdrop\""},
        {GPT ",\"eos_token_id\":[1,2]}", "\"eos_token_id\" is [1,2]"},
        {GPT ",\"pad_token_id\":2147483648}", "\"pad_token_id\""},
        {GPT ",\"activation_function\":\"silu\"}", "\"activation_function\" is \"silu\""},
        {GPT ",\"activation_function\":\"gelu_10\"}", "gelu_10"},
        {GPT ",\"activation_function\":null}", "\"activation_function\" is null"},
        {GPT ",\"scale_attn_by_inverse_layer_idx\":true}",
         "\"scale_attn_by_inverse_layer_idx\" is true: it must be false"},
        {GPT ",\"scale_attn_by_inverse_layer_idx\":1}", "\"scale_attn_by_inverse_layer_idx\" is 1"},
        {GPT ",\"scale_attn_by_inverse_layer_idx\":\"true\"}", "\"scale_attn_by_inverse_layer_idx\" is \"true\""},
        {GPT ",\"scale_attn_weights\":0}", "\"scale_attn_weights\" is 0: it must be true"},
        {GPT ",\"scale_attn_weights\":null}", "\"scale_attn_weights\" is null"},
        {GPT ",\"scale_attn_weights\":false}", "\"scale_attn_weights\" is false"},
        {GPT ",\"reorder_and_upcast_attn\":1}", "\"reorder_and_upcast_attn\" is 1: it must be true or false"},
        {GPT ",\"add_cross_attention\":true}", "\"add_cross_attention\""},
        {GPT ",\"tie_word_embeddings\":1}", "\"tie_word_embeddings\" is 1"},
        {GPT ",\"architectures\":\"GPT2LMHeadModel\"}", "\"architectures\" must be a list"},
        {GPT ",\"architectures\":[\"GPT2ForSequenceClassification\"],\"num_labels\":2}",
         "a classifier of 2 labels"},
        {GPT ",\"architectures\":[\"GPT2ForSequenceClassification\"]}", "2 labels"},
        {GPT ",\"architectures\":[\"GPT2ForSequenceClassification\"],\"num_labels\":1,"
         "\"id2label\":{\"0\":\"a\",\"1\":\"b\"}}", "\"num_labels\" is 1, \"id2label\" has 2"},
        {GPT ",\"architectures\":[\"GPT2ForSequenceClassification\"],\"id2label\":[\"a\"]}",
         "\"id2label\" must be an object"},
        {GPT ",\"num_labels\":\"1\"}", "\"num_labels\" is \"1\""},
        {NEOX "}", "\"vocab_size\" is missing"},
        {NEOX SIZES "}", "rotary dimensions"},
        {NEOX SIZES ",\"rotary_pct\":0.5,\"attention_bias\":false}", "\"attention_bias\" is false: it must be true"},
        {NEOX SIZES ",\"hidden_act\":\"silu\"}", "\"hidden_act\" is \"silu\""},
        {NEOX SIZES ",\"use_parallel_residual\":1}", "\"use_parallel_residual\" is 1"},
        {NEOX SIZES ",\"layer_norm_eps\":1e308}", "\"layer_norm_eps\" is 1e308"},
        {NEOX SIZES ",\"rotary_pct\":2.51e307}", "\"rotary_pct\" is 2.51e307"},
        {NEOX SIZES ",\"rotary_pct\":0.5,\"rope_parameters\":{\"partial_rotary_factor\":0.25}}",
         "is 0.25, and 0.5 at another place"},
        {NEOX SIZES ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}", "linear"},
        {NEOX SIZES ",\"rotary_pct\":0.5,\"rope_scaling\":{\"rope_type\":\"default\",\"partial_rotary_factor\":0.25}}",
         "is 0.25, and 0.5 at another place"},
        {NEOX SIZES ",\"rope_parameters\":[]}", "\"rope_parameters\" must be an object"},
        {NEOX SIZES ",\"rotary_pct\":0.5,\"partial_rotary_factor\":1.0}", "is 0.5, and 1 at another place"},
        {NEOX SIZES ",\"partial_rotary_factor\":0.5}", "is 0.25, and 0.5 at another place"},
        {NEOX SIZES ",\"rotary_pct\":0.5,\"rope_theta\":100}", "is 10000, and 100 at another place"},
        {NEOX SIZES ",\"rotary_pct\":0.5,\"rope_scaling\":{\"type\":\"default\"},"
         "\"rope_parameters\":{\"rope_theta\":100}}", "is 10000, and 100 at another place"},
        {NEOX SIZES ",\"rope_scaling\":{\"rope_type\":1}}", "its type must be a string"},
        {NEOX SIZES ",\"rope_scaling\":{\"factor\":2.0}}", "a factor and no type"},
        {NEOX SIZES ",\"rotary_pct\":0.5,\"head_dim\":8}", "\"head_dim\" must be 4"},
        {NEOX SIZES ",\"rope_parameters\":{\"rope_theta\":\"100\"}}", "\"rope_theta\" is \"100\""},
        {NEOX SIZES ",\"rope_scaling\":{\"rope_type\":\"default\",\"partial_rotary_factor\":1.5}}",
         "\"partial_rotary_factor\" is 1.5: it must be a number from 0.001 to 1"},
        {NEOX SIZES ",\"rotary_pct\":0.5,\"architectures\":[\"GPTNeoXForTokenClassification\"]}",
         "architecture GPTNeoXForTokenClassification is not supported (GPTNeoXForCausalLM and "
         "GPTNeoXForSequenceClassification are)"},
        {NEOX SIZES ",\"rotary_pct\":1.5}", "\"rotary_pct\" is 1.5"},
        {NEOX SIZES ",\"rotary_emb_base\":-1}", "\"rotary_emb_base\" is -1"},
        {NEOX SIZES ",\"rotary_emb_base\":1e-300}", "\"rotary_emb_base\" is 1e-300"},
        {"{\"base_config\":{}}", "model_type"},
        {"{\"base_config\":" NEOX SIZES ",\"rotary_pct\":0.5},\"bias\":\"x\"}", "bias"}};
    for (size_t i = 0; i < COUNT(configs); i++) {
        write_text(broken_config, configs[i].text);
        expect_death(load_model, broken, 1, configs[i].says);
    }
}

// What transformers reads the same in every version: other names, and the same number twice
static void configs_of_any_version(void)
{
    Config c;
    static const char *const taken[] = {
        GPT ",\"num_attention_heads\":2,\"n_ctx\":9,\"reorder_and_upcast_attn\":true,\"num_labels\":null}",
        "{\"model_type\":\"gpt2\",\"hidden_size\":8,\"num_hidden_layers\":1,\"num_attention_heads\":2,"
        "\"vocab_size\":31,\"max_position_embeddings\":4}",
        NEOX SIZES ",\"rotary_pct\":0.5,\"rotary_emb_base\":10000,\"partial_rotary_factor\":0.5,"
        "\"rope_theta\":10000.0,\"rope_scaling\":null}",
        NEOX SIZES ",\"rope_scaling\":{},"
        "\"rope_parameters\":{\"rope_type\":\"default\",\"partial_rotary_factor\":0.5}}"};
    for (size_t i = 0; i < COUNT(taken); i++) {
        write_text(broken_config, taken[i]);
        config_read(&c, broken);
        CHECK(c.C == 8 && c.L == 1 && c.NH == 2 && c.max_T == 4 && c.V == 31 && c.eps == 1e-5 && c.labels == 0, "%s",
            taken[i]);
        CHECK(i < 2 ? c.F == 32 && !(c.rotary_pct > 0) : c.F == 16 && c.rotary_pct == 0.5 && c.rotary_base == 10000,
            "%s", taken[i]);
    }
}

static void activations_by_name(void)
{
    Config c;
    static const struct { const char *name; Activation act; } functions[] = { // all that transformers has of them
        {"gelu", ACT_GELU_ERF}, {"gelu_python", ACT_GELU_ERF},
        {"gelu_new", ACT_GELU_TANH}, {"gelu_fast", ACT_GELU_TANH}, {"gelu_accurate", ACT_GELU_TANH},
        {"gelu_pytorch_tanh", ACT_GELU_TANH}, {"gelu_python_tanh", ACT_GELU_TANH},
        {"relu", ACT_RELU}};
    for (size_t i = 0; i < COUNT(functions); i++) {
        char *text = format(GPT ",\"activation_function\":\"%s\"}", functions[i].name);
        write_text(broken_config, text);
        config_read(&c, broken);
        CHECK(c.act == functions[i].act, "%s", functions[i].name);
        free(text);
    }
}

static void adapters_are_refused(void) // beside a whole model
{
    static const char *const adapters[] = {"bad/adapter_config.json", "bad/adapter_model.safetensors",
        "bad/adapter_model.bin"};
    for (size_t i = 0; i < COUNT(adapters); i++) {
        char *adapter = tmp_path(adapters[i]);
        write_file(adapter, "{}", 2);
        expect_death(load_model, broken, 1, adapters[i]);
        expect_death(plan_model, broken, 1, "adapters are not applied");
        expect_death(load_bert, broken, 1, "adapters are not applied");
        unlink(adapter);
    }
}

static void malformed_distilberts(void)
{
    static const struct { const char *text, *says; } berts[] = {
        {"\"max_position_embeddings\":2", "a context of 2"},
        {"\"dim\":24.5", "\"dim\" is 24.5"},
        {"\"hidden_size\":24,\"dim\":12", "\"dim\" and \"hidden_size\""},
        {"\"activation\":\"mish\"", "\"activation\" is \"mish\""},
        {"\"id2label\":{\"0\":\"NEGATIVE\",\"1\":\"POSITIVE\"},\"label2id\":{\"POSITIVE\":0,\"NEGATIVE\":1}",
         "do not agree about POSITIVE"},
        {"\"label2id\":{\"pos\":0,\"neg\":1}", "do not agree about pos"},
        {"\"num_labels\":3,\"id2label\":{\"0\":\"NEGATIVE\",\"1\":\"POSITIVE\"}",
         "\"num_labels\" is 3, \"id2label\" has 2"},
        {"\"id2label\":{\"1\":\"a\",\"2\":\"POS\"}", "2 labels, none called"}};
    for (size_t i = 0; i < COUNT(berts); i++) {
        char *text = format(BERT_CLASSIFIER "%s}", berts[i].text);
        write_text(broken_config, text);
        expect_death(load_bert, broken, 1, berts[i].says);
        free(text);
    }
}

static void trunks_are_read(void) // GPT2Model is read as what it is the trunk of, however it was trained
{
    Config c;
    write_text(broken_config, GPT ",\"architectures\":[\"FSDPGPT2Model\"],\"bos_token_id\":2,\"eos_token_id\":null}");
    config_read(&c, broken);
    CHECK(!c.scalar_head && c.tied && c.bos == 2 && c.eos == -1 && c.pad == -1, "GPT2Model with FSDP before it");
}

static void malformed_tokenizers(void)
{
    char *tok = tmp_path("bad/tokenizer.json");
    expect_death(load_tokenizer, broken, 1, "no tokenizer.json");
    static const struct { const char *text, *says; } tokenizers[] = {
        {"{\"model\":", "tokenizer.json:1"},
        {"{\"model\":{\"type\":\"WordPiece\"}}", "WordPiece"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", "pre-tokeniser"},
        {BPE("\"a\":0,\"b\":-1", "") "}", "valid id"},
        {BPE("\"a\":0", "\"a b\"") "}", "not in the vocabulary"},
        {BPE("\"a\":0", "\"ab\"") "}", "not a pair"},
        {TOKEN END(1) "}", "\"eos_token_id\" is 0, the tokenizer's <|endoftext|> is 1"},
        {TOKEN ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"a\"}}]}}",
         "post_processor TemplateProcessing"},
        {TOKEN ",\"post_processor\":{\"type\":\"RobertaProcessing\"}}", "post_processor RobertaProcessing"}};
    write_file(broken_config, "{\"eos_token_id\":0}", 18);
    for (size_t i = 0; i < COUNT(tokenizers); i++) {
        write_text(tok, tokenizers[i].text);
        expect_death(load_tokenizer, broken, 1, tokenizers[i].says);
    }
    write_text(tok, BPE("\"a\":0,\"<s>\":1", "") "}");
    expect_death(load_tokenizer, broken, 1, "an ordinary word");
}

static void config_names_the_end(void) // of a text, unless it is of another vocabulary
{
    for (int i = 0; i < 2; i++) {
        write_file(broken_config, i ? "{\"eos_token_id\":7}" : "{\"eos_token_id\":1}", 18);
        Tokenizer *named = tokenizer_load(broken);
        CHECK(tokenizer_eos(named) == (i ? -1 : 1), "the end of a text is %d", tokenizer_eos(named));
        tokenizer_free(named);
    }
}

static void ends_that_disagree(void)
{
    static const struct { const char *text, *says; int eos; } settings[] = {
        {"{\"add_prefix_space\":true}", "add_prefix_space", 0},
        {"{\"add_bos_token\":true}", "add_bos_token", 0},
        {"{\"eos_token\":\"</s>\"}", "eos_token </s> is not in the vocabulary", 0},
        {"{\"eos_token\":\"a\"}", "\"eos_token_id\" is 1, the tokenizer's a is 0", 1},
        {"{\"eos_token\":{\"content\":\"a\"}}", "\"eos_token\" is token 0, \"a\", an ordinary word", 0},
        {"{\"eos_token\":null}", NULL, 1},
        {"{\"eos_token\":null}", "\"eos_token_id\" is token 0, \"a\", an ordinary word", 0},
        {"{\"eos_token\":7}", "\"eos_token\" holds no token", 1},
        {"{\"tokenizer_class\":\"LlamaTokenizer\"}", "tokenizer_class LlamaTokenizer is not supported", 1},
        {"{\"split_special_tokens\":true}", "split_special_tokens", 1}};
    write_text(tmp_path("bad/tokenizer.json"), TOKEN END(1) "}");
    // eos_token beside <|endoftext|>: it is the one that ends a text
    for (size_t i = 0; i < COUNT(settings); i++) {
        char *tc = tmp_path("bad/tokenizer_config.json"), *id = format("{\"eos_token_id\":%d}", settings[i].eos);
        write_text(tc, settings[i].text);
        write_text(broken_config, id);
        if (settings[i].says) { expect_death(load_tokenizer, broken, 1, settings[i].says); continue; }
        Tokenizer *named = tokenizer_load(broken);
        CHECK(tokenizer_eos(named) == settings[i].eos, "the end of a text is %d", tokenizer_eos(named));
        tokenizer_free(named);
    }
    char *generation = tmp_path("bad/generation_config.json"), *left_over = tmp_path("bad/tokenizer_config.json");
    unlink(left_over);
    write_file(generation, "{\"eos_token_id\":[1,0]}", 22);
    expect_death(load_tokenizer, broken, 1,
        "generation_config.json: \"eos_token_id\" is 0, the tokenizer's <|endoftext|> is 1");
    unlink(generation);
}

static void full_disk(void) // a failed write leaves nothing behind
{
    char *full = tmp_path("full"), *left = tmp_path("full.tmp");
    expect_death(fill_disk, full, 1, "No space left");
    CHECK(access(full, F_OK) && access(left, F_OK), "a failed write leaves nothing behind");
}

static void test_malformed(void)
{
    broken = tmp_path("bad"); broken_config = tmp_path("bad/config.json");
    broken_weights = tmp_path("bad/model.safetensors"); whole_weights = tmp_path("good/model.safetensors");
    Config c = tiny_config(31, true, false);
    Model m;
    model_create(&m, ops_cpu(), &c, TRAIN_NONE, false, false);
    model_random(&m, 8);
    model_save(&m, tmp_path("good"), DT_F32, NULL, 0);
    model_free(&m);
    make_folder(broken);
    malformed_weights();
    reward_with_a_head();
    malformed_configs();
    configs_of_any_version();
    activations_by_name();
    adapters_are_refused();
    malformed_distilberts();
    trunks_are_read();
    malformed_tokenizers();
    config_names_the_end();
    ends_that_disagree();
    full_disk();
}

// Ids and bytes of every string of a fixture
static void golden_strings(const Tokenizer *t, const char *path, size_t at_least)
{
    Jsonl in;
    json_t *j;
    size_t n = 0;
    jsonl_open(&in, path);
    for (; jsonl_next(&in, &j); n++) {
        const char *text = jsonl_string(&in, j, "text", true), *bytes_back = jsonl_string(&in, j, "back", false);
        if (!bytes_back) bytes_back = text;
        json_t *want = json_object_get(j, "ids");
        size_t k, bytes;
        int *ids = tokenizer_encode(t, text, strlen(text), &k);
        bool same = ids && k == json_array_size(want);
        for (size_t i = 0; i < k && same; i++) same = ids[i] == (int)at(want, i);
        CHECK(same, "%s:%zu: other ids for %s", path, in.line, text);
        char *back = tokenizer_decode(t, ids, k, &bytes);
        CHECK(bytes == strlen(bytes_back) && !memcmp(back, bytes_back, bytes), "%s:%zu: decoding gives %s", path,
            in.line, back);
        const char *cut = jsonl_string(&in, j, "cut", false);
        if (cut) {
            char *mended = utf8_mend(tokenizer_decode(t, ids, k - 1, NULL));
            CHECK(!strcmp(mended, cut), "%s:%zu: cut inside a character: %s", path, in.line, mended);
            free(mended);
        }
        free(ids); free(back);
        json_decref(j);
    }
    jsonl_close(&in);
    CHECK(n > at_least, "%s: %zu strings", path, n);
}

static void only_load_tokenizer(const char *dir) { tokenizer_load(dir); }
static bool is_refused(const char *dir) // in a child
{
    fflush(NULL);
    pid_t pid = fork();
    int status;
    if (!pid) {
        if (!freopen("/dev/null", "w", stderr)) _exit(99);
        *test_folder = 0;
        only_load_tokenizer(dir);
        _exit(0);
    }
    waitpid(pid, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) <= 1, "%s: status %d", dir, status);
    return status != 0;
}

// Folders that name their special tokens in every way: equal to transformers 4 and 5, or refused
// where these differ (dev/special_tokens.py)
static void test_special_tokens(void)
{
    Jsonl in;
    json_t *j, **records = NULL, *texts, *content, *text;
    size_t equal = 0, refused = 0, doubted = 0, i, k;
    const char *name;
    jsonl_open(&in, "dev/fixtures/special_tokens.jsonl");
    while (jsonl_next(&in, &j)) arrput(records, j);
    jsonl_close(&in); // before there are children, which would move on in it
    texts = json_object_get(records[0], "texts");
    for (size_t line = 1; line < arrlenu(records); line++) {
        char *sub = format("special%zu", line), *dir = tmp_path(sub);
        j = records[line];
        const char *what = jsonl_string(&in, j, "name", true), *says = jsonl_string(&in, j, "says", false);
        json_t *ids = json_object_get(j, "ids"), *end = json_object_get(j, "end");
        make_folder(dir);
        json_object_foreach(json_object_get(j, "files"), name, content) {
            char *path = format("%s/%s", dir, name);
            write_file(path, json_string_value(content), json_string_length(content));
            free(path);
        }
        if (says && *says && *says != '?') expect_death(only_load_tokenizer, dir, 1, says);
        if (says && is_refused(dir)) refused++;
        else {
            CHECK(ids, "%s: the versions differ, and it is not refused", what);
            Tokenizer *t = tokenizer_load(dir);
            CHECK((size_t)tokenizer_vocab(t) == (size_t)json_integer_value(json_object_get(j, "size")), "%s: %d tokens",
                what, tokenizer_vocab(t));
            json_array_foreach(texts, i, text) {
                size_t n;
                int *got = tokenizer_encode(t, json_string_value(text), json_string_length(text), &n);
                json_t *want = json_array_get(ids, i);
                bool same = ids && n == json_array_size(want);
                for (k = 0; k < n && same; k++) same = got[k] == (int)at(want, k);
                CHECK(same, "%s: other ids for %s", what, json_string_value(text));
                free(got);
            }
            if (json_is_string(end)) { expect_death(load_tokenizer, dir, 1, json_string_value(end)); doubted++; }
            else CHECK(tokenizer_eos(t) == (int)json_integer_value(end), "%s: %d ends a text", what, tokenizer_eos(t));
            tokenizer_free(t);
            equal++;
        }
        free(sub); free(dir);
    }
    for (i = 0; i < arrlenu(records); i++) json_decref(records[i]);
    arrfree(records);
    CHECK(equal > 35 && refused > 10 && doubted > 8, "%zu equal, %zu refused, %zu whose end is in doubt", equal,
        refused, doubted);
}

static void bpe_strings(void) // ids and bytes of every string of two fixtures
{
    Tokenizer *t = tokenizer_load("dev/demo/tokenizer"), *neox = tokenizer_load("dev/fixtures/neox");
    size_t n;
    CHECK(tokenizer_vocab(t) == 2000 && tokenizer_eos(t) == 1999, "vocabulary %d, end of text %d", tokenizer_vocab(t),
        tokenizer_eos(t));
    CHECK(tokenizer_vocab(neox) > 850 && tokenizer_eos(neox) == 0, "vocabulary %d, end of text %d",
        tokenizer_vocab(neox), tokenizer_eos(neox));
    golden_strings(t, "dev/fixtures/bpe.jsonl", 450);
    golden_strings(neox, "dev/fixtures/neox.jsonl", 600);
    CHECK(!tokenizer_encode(t, "ab\xff", 3, &n) && n == 2, "bad UTF-8 is found at byte 2, not %zu", n);
    char *mended = utf8_mend(xstrdup("a\xf0\x9f\x98 \xe0\x80\xed\xa0\x80\xf4\x90\xff\xc3"));
    // as Python's errors="replace"
    CHECK(!strcmp(mended, "a\ufffd \ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd"), "mended: %s", mended);
    free(mended);
    const int padded[] = {400, 5000, 500}; // ids of a padded vocabulary stand for nothing
    size_t whole_bytes, a_bytes, b_bytes;
    free(tokenizer_decode(neox, padded, 3, &whole_bytes));
    free(tokenizer_decode(neox, padded, 1, &a_bytes));
    free(tokenizer_decode(neox, padded + 2, 1, &b_bytes));
    CHECK(whole_bytes == a_bytes + b_bytes && a_bytes, "unused ids decode to nothing");
    tokenizer_free(t); tokenizer_free(neox);
}

static void merges_as_strings(void) // merges written "a b", as older files have them, and as pairs
{
    Tokenizer *neox = tokenizer_load("dev/fixtures/neox");
    json_t *x;
    size_t n;
    char *old = tmp_path("old_merges"), *old_file = tmp_path("old_merges/tokenizer.json");
    make_folder(old);
    json_t *j = json_load_file("dev/fixtures/neox/tokenizer.json", 0, NULL),
           *pairs = json_object_get(json_object_get(j, "model"), "merges");
    json_array_foreach(pairs, n, x) {
        char *line = format("%s %s", json_string_value(json_array_get(x, 0)), json_string_value(json_array_get(x, 1)));
        json_array_set_new(pairs, n, json_string(line));
        free(line);
    }
    json_dump_file(j, old_file, 0);
    json_decref(j);
    Tokenizer *strings = tokenizer_load(old);
    CHECK(tokenizer_fingerprint(strings) == tokenizer_fingerprint(neox), "two ways of writing merges, one tokenizer");
    golden_strings(strings, "dev/fixtures/neox.jsonl", 600);
    tokenizer_free(neox); tokenizer_free(strings);
}

static void tokenizer_that_was_saved(void) // by transformers: a template that adds nothing, a model_max_length of 1e30
{
    Tokenizer *neox = tokenizer_load("dev/fixtures/neox");
    Tokenizer *saved = tokenizer_load("dev/fixtures/neox_saved");
    CHECK(tokenizer_fingerprint(saved) == tokenizer_fingerprint(neox) && tokenizer_eos(saved) == 0,
        "loaded and saved by transformers, the same tokenizer");
    golden_strings(saved, "dev/fixtures/neox.jsonl", 600);
    tokenizer_free(neox); tokenizer_free(saved);
}

// The same vocabulary from vocab.json and merges.txt: another file form, the same tokenizer
static void vocab_and_merges(void)
{
    Tokenizer *t = tokenizer_load("dev/demo/tokenizer");
    json_t *x;
    size_t n;
    char *dir = tmp_path("vm"), *vocab = tmp_path("vm/vocab.json"), *merges = tmp_path("vm/merges.txt");
    make_folder(dir);
    json_t *whole = json_load_file("dev/demo/tokenizer/tokenizer.json", 0, NULL),
           *model = json_object_get(whole, "model"), *v = json_copy(json_object_get(model, "vocab")),
           *m = json_object_get(model, "merges");
    json_object_set_new(v, "<|endoftext|>", json_integer(1999));
    json_dump_file(v, vocab, 0);
    FILE *f = fopen(merges, "w");
    fputs("#version: 0.2\n", f);
    json_array_foreach(m, n, x)
        fprintf(f, "%s %s\n", json_string_value(json_array_get(x, 0)), json_string_value(json_array_get(x, 1)));
    fclose(f);
    Tokenizer *u = tokenizer_load(dir);
    CHECK(tokenizer_fingerprint(t) == tokenizer_fingerprint(u) && tokenizer_eos(u) == 1999,
        "two file forms, one tokenizer");
    json_decref(whole);
    const char *more = "{\"[PAD]\": 2001, \"[SEP]\": 2000}"; // in the order of their ids
    char *added = tmp_path("vm/added_tokens.json");
    write_text(added, more);
    tokenizer_free(u);
    u = tokenizer_load(dir);
    int *padding = tokenizer_encode(u, "[PAD][SEP]", 10, &n);
    CHECK(tokenizer_vocab(u) == 2002 && n == 2 && padding[0] == 2001 && padding[1] == 2000, "added_tokens.json");
    free(padding);
    more = "{\"[PAD]\": 2003}";
    write_text(added, more);
    expect_death(load_tokenizer, dir, 1, "would give it 2000");
    tokenizer_free(t); tokenizer_free(u);
}

// A megabyte without a space is no harder than with: n log n; nor are combining marks out of order
static void long_words(void)
{
    Tokenizer *t = tokenizer_load("dev/demo/tokenizer");
    Tokenizer *neox = tokenizer_load("dev/fixtures/neox");
    size_t n;
    char *text = xmalloc(1 << 20);
    for (size_t i = 0; i < 1 << 20; i++) text[i] = "abcdefghij"[random_bits(1, 2, i, 0, 0) % 10];
    int *ids = tokenizer_encode(t, text, 1 << 20, &n);
    char *back = tokenizer_decode(t, ids, n, NULL);
    CHECK(!memcmp(back, text, 1 << 20) && n < 1 << 20, "a long word");
    free(ids); free(back);
    for (size_t i = 0; i < 1 << 20; i += 4) memcpy(text + i, "\xcc\x81\xcc\xa3", 4);
    ids = tokenizer_encode(neox, text, 1 << 20, &n);
    back = tokenizer_decode(neox, ids, n, NULL);
    CHECK(!memcmp(back, "\xcc\xa3\xcc\xa3", 4) && !memcmp(back + (1 << 20) - 4, "\xcc\x81\xcc\x81", 4),
        "a million bytes of marks in order");
    free(ids); free(text); free(back);
    tokenizer_free(t); tokenizer_free(neox);
}

static void many_added_tokens(void) // a hundred thousand added tokens, and a text of them, in a second
{
    char *dir = tmp_path("vm"), *added = tmp_path("vm/added_tokens.json"); // vocab_and_merges made them
    size_t n;
    clock_t began = clock();
    FILE *many = fopen(added, "w");
    fputs("{\"<0>\":2000", many);
    for (int i = 1; i < 100000; i++) fprintf(many, ",\"<%d>\":%d", i, 2000 + i);
    fputs("}", many);
    fclose(many);
    Tokenizer *u = tokenizer_load(dir);
    char *text = xmalloc(1 << 20);
    for (size_t i = n = 0; i + 16 < 1 << 20; n++) i += (size_t)sprintf(text + i, "<%zu>", n * 7919 % 100000);
    size_t found;
    int *ids = tokenizer_encode(u, text, strlen(text), &found);
    bool right = found == n;
    for (size_t i = 0; i < n && right; i++) right = ids[i] == (int)(2000 + i * 7919 % 100000);
    CHECK(right && tokenizer_vocab(u) == 102000, "%zu added tokens for %zu", found, n);
    CHECK(clock() - began < 4 * CLOCKS_PER_SEC, "added tokens: %g s", (double)(clock() - began) / CLOCKS_PER_SEC);
    free(ids); free(text); free(dir); free(added);
    tokenizer_free(u);
}

static void test_bpe(void)
{
    bpe_strings();
    merges_as_strings();
    tokenizer_that_was_saved();
    vocab_and_merges();
    long_words();
    many_added_tokens();
}

#define BERT "{\"normalizer\":{\"type\":\"BertNormalizer\"},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"}," \
    "\"model\":{\"type\":\"WordPiece\""
static void load_wordpiece(const char *dir) { wordpiece_load(dir); }

// Lower case, accents and ideographs as a folder's files say, by dev/fixtures/wordpiece_settings.jsonl
static void wordpiece_with_settings(void)
{
    Jsonl in;
    json_t *j, *pair;
    size_t n = 0, i, k;
    char *dir = tmp_path("bert_settings"), *config = tmp_path("bert_settings/tokenizer_config.json"),
         *json = tmp_path("bert_settings/tokenizer.json"), *vocab = tmp_path("bert_settings/vocab.txt"), *s;
    make_folder(dir);
    jsonl_open(&in, "dev/fixtures/wordpiece_settings.jsonl");
    for (; jsonl_next(&in, &j); n++) {
        const char *settings = jsonl_string(&in, j, "config", true);
        json_t *normalizer = json_object_get(j, "normalizer");
        unlink(json); unlink(vocab);
        write_text(config, settings);
        if (json_is_object(normalizer)) {
            json_t *whole = json_load_file("dev/fixtures/wordpiece/tokenizer.json", 0, NULL);
            json_object_update(json_object_get(whole, "normalizer"), normalizer);
            json_dump_file(whole, json, 0);
            json_decref(whole);
        } else { s = read_file("dev/fixtures/distilbert/vocab.txt", &k); write_file(vocab, s, k); arrfree(s); }
        WordPiece *w = wordpiece_load(dir);
        json_array_foreach(json_object_get(j, "strings"), i, pair) {
            const char *text = json_string_value(json_array_get(pair, 0));
            json_t *want = json_array_get(pair, 1);
            int *ids = wordpiece_encode(w, text, strlen(text), 0, &k);
            bool same = ids && k == json_array_size(want);
            for (size_t l = 0; l < k && same; l++) same = ids[l] == (int)at(want, l);
            CHECK(same, "%s: other ids for %s", settings, text);
            free(ids);
        }
        wordpiece_free(w);
        json_decref(j);
    }
    jsonl_close(&in);
    CHECK(n == 8, "%zu settings", n);
    free(dir); free(config); free(json); free(vocab);
}

static void wordpiece_strings(void) // of dev/fixtures/wordpiece.jsonl, whole and cut
{
    WordPiece *w = wordpiece_load("dev/fixtures/distilbert"), *same = wordpiece_load("dev/fixtures/wordpiece");
    CHECK(wordpiece_fingerprint(w) == wordpiece_fingerprint(same) && wordpiece_vocab(w) == wordpiece_vocab(same),
        "vocab.txt and tokenizer.json hold one vocabulary");
    Jsonl in;
    json_t *j;
    size_t n = 0, k;
    jsonl_open(&in, "dev/fixtures/wordpiece.jsonl");
    for (; jsonl_next(&in, &j); n++) {
        const char *text = jsonl_string(&in, j, "text", true);
        json_t *want = json_object_get(j, "ids");
        size_t all = json_array_size(want);
        for (size_t limit = 0; limit <= 12; limit += 6) { // cut from the end, [SEP] stays
            int *ids = wordpiece_encode(limit == 6 ? same : w, text, strlen(text), limit, &k);
            bool right = ids && k == (limit && limit < all ? limit : all) && ids[k - 1] == (int)at(want, all - 1);
            for (size_t i = 0; i + 1 < k && right; i++) right = ids[i] == (int)at(want, i);
            CHECK(right, "wordpiece.jsonl:%zu: other ids for %s", in.line, text);
            free(ids);
        }
        json_decref(j);
    }
    jsonl_close(&in);
    CHECK(n > 650, "%zu strings", n);
    CHECK(!wordpiece_encode(w, "ab\xff", 3, 0, &n) && n == 2, "bad UTF-8 is found at byte 2, not %zu", n);
    wordpiece_free(w); wordpiece_free(same);
}

static void wordpiece_without_a_type(void) // as older files are
{
    WordPiece *w = wordpiece_load("dev/fixtures/distilbert");
    json_t *j;
    char *old = tmp_path("old_wordpiece"), *old_file = tmp_path("old_wordpiece/tokenizer.json");
    make_folder(old);
    j = json_load_file("dev/fixtures/wordpiece/tokenizer.json", 0, NULL);
    json_object_del(json_object_get(j, "model"), "type");
    json_dump_file(j, old_file, 0);
    json_decref(j);
    WordPiece *same = wordpiece_load(old);
    CHECK(wordpiece_fingerprint(w) == wordpiece_fingerprint(same), "a tokenizer.json that does not name WordPiece");
    wordpiece_free(w); wordpiece_free(same);
}

// Words of ten thousand characters and an entry as long: no piece costs more than its length
static void wordpiece_long_words(void)
{
    size_t k;
    char *old = tmp_path("old_wordpiece"), *old_file = tmp_path("old_wordpiece/tokenizer.json");
    json_t *j;
    clock_t began = clock();
    char *long_word = xmalloc(10001);
    memset(long_word, 'a', 10000);
    long_word[10000] = 0;
    j = json_load_file("dev/fixtures/wordpiece/tokenizer.json", 0, NULL);
    json_t *model = json_object_get(j, "model");
    json_object_set_new(model, "max_input_chars_per_word", json_integer(10000));
    json_object_set_new(json_object_get(model, "vocab"), long_word, json_integer(600));
    json_dump_file(j, old_file, 0);
    json_decref(j);
    WordPiece *same = wordpiece_load(old);
    long_word[9999] = 0;
    for (int i = 0; i < 20; i++) {
        int *ids = wordpiece_encode(same, long_word, 9999, 0, &k);
        CHECK(k > 300, "%zu pieces", k);
        free(ids);
    }
    CHECK(clock() - began < 2 * CLOCKS_PER_SEC, "a word without end: %g s", (double)(clock() - began) / CLOCKS_PER_SEC);
    free(long_word);
    wordpiece_free(same);
}

static void wordpiece_refuses(void)
{
    char *dir = tmp_path("cased"), *vocab = tmp_path("cased/vocab.txt"),
         *config = tmp_path("cased/tokenizer_config.json"), *json = tmp_path("cased/tokenizer.json");
    make_folder(dir);
    expect_death(load_wordpiece, dir, 1, "no vocab.txt");
    static const struct { const char *file, *text, *says; } bad[] = {
        {"vocab", "[UNK]\n[SEP]\na\n", "no [CLS]"},
        {"vocab", "[UNK]\n[CLS]\n\xff\n", "not UTF-8"},
        {"config", "{\"do_lower_case\":7}", "do_lower_case"},
        {"config", "{\"tokenizer_class\":\"BertTokenizer\",\"cls_token\":null}", "cls_token null"},
        {"config", "{\"tokenizer_class\":\"GPT2Tokenizer\"}", "a GPT2Tokenizer"},
        {"config", "{\"do_basic_tokenize\":false}", "do_basic_tokenize"},
        {"config", "{\"unk_token\":\"<unk>\"}", "unk_token <unk>"},
        {"json", "{\"model\":{\"type\":\"BPE\"}}", "BPE"},
        {"json", "{\"model\":{\"type\":\"WordPiece\"}}", "normaliser"},
        {"json",
         "{\"model\":{\"type\":\"WordPiece\"},\"normalizer\":{\"type\":\"BertNormalizer\",\"lowercase\":0},"
         "\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},\"post_processor\":{\"type\":\"BertProcessing\","
         "\"cls\":[\"[CLS]\",2],\"sep\":[\"[SEP]\",1]}}", "lowercase"},
        {"json", BERT ",\"unk_token\":\"<unk>\"}}", "unk_token <unk>"},
        {"json", BERT "}}", "does not put [CLS]"},
        {"json", BERT "},\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"[SEP]\",1],\"sep\":[\"[SEP]\",1]}}",
         "does not put [CLS]"}};
    for (size_t i = 0; i < COUNT(bad); i++) {
        write_text(*bad[i].file == 'v' ? vocab : *bad[i].file == 'c' ? config : json, bad[i].text);
        expect_death(load_wordpiece, dir, 1, bad[i].says);
        if (*bad[i].file == 'v') write_file(vocab, "[UNK]\n[SEP]\n[CLS]\na\n", 20);
    }
}

static void test_wordpiece(void)
{
    wordpiece_with_settings();
    wordpiece_strings();
    wordpiece_without_a_type();
    wordpiece_long_words();
    wordpiece_refuses();
}

// Each field of a cache: a value of another type or out of its range is refused by file, line and field
static void load_cache(const char *path) { Cache c; cache_read(&c, path, 0); }
static void load_json(const char *path) { json_file(path); }
static void load_prompts(const char *path) { size_t n, *line, repeats; prompts_read(path, &n, &line, false, &repeats); }
static void log_cut_all(const char *dir) { log_cut(dir, 9); }
static void write_cache(const char *path) // a reward that no file holds
{
    FILE *f = fopen(path, "w");
    cache_write(f, "a", &(CacheSample){.text = "b", .reward = INFINITY});
}
static void log_infinity(const char *dir)
{
    Metric m[] = {{"val/explained_variance", NAN}, {"held_out/perplexity", INFINITY}};
    Log *l = log_open(dir, json_object(), false);
    log_metrics(l, "train", 1, m, 1);
    log_metrics(l, "train", 2, m, 2);
}
static void save_broken(const char *dir) // argument: which part is broken, and where it would be saved
{
    Model m;
    Config c = tiny_config(31, true, false);
    double x = *dir == 's' ? NAN : 1;
    State state[] = {{"loss", &x, 1}};
    model_create(&m, ops_cpu(), &c, TRAIN_ALL, true, false);
    model_random(&m, 8);
    Buf part = {0};
    if (*dir == 'm') part = m.m;
    if (*dir == 'w') part = m.data;
    for (size_t i = 0; i < m.n_list && *dir == 'v'; i++)
        if (m.list[i].flags & P_VALUE) part = param_master(&m, &m.list[i]);
    if (part.p) R_(part)[part.n / 2] = NAN;
    checkpoint_save(&m, dir + 1, 3, NULL, state, 1);
}

static void test_fields(void)
{
    char *path = tmp_path("fields.jsonl");
    #define SAMPLE(more) "{\"prompt\":\"I\",\"text\":\"a\",\"reward\":1" more "}"
    #define HEAD(more) "{\"vbon_cache\":1" more "}"
    static const struct { const char *line, *says; } bad[] = {
        {"{\"vbon_cache\":999}", "\"vbon_cache\" is 999, must be a whole number (1)"},
        {"{\"vbon_cache\":\"1\"}", "\"vbon_cache\" is \"1\""},
        {HEAD(",\"temperature\":\"1\""), "\"temperature\" is \"1\", must be a number from"},
        {HEAD(",\"temperature\":0"), "\"temperature\" is 0,"},
        {HEAD(",\"temperature\":1e-38"), "\"temperature\" is"},
        {HEAD(",\"model\":\"12\""), "\"model\" is \"12\", must be 16 hex digits"},
        {HEAD(",\"tokenizer\":7"), "\"tokenizer\" is 7"},
        {HEAD(",\"prompts\":null"), "\"prompts\" is null"},
        {HEAD(",\"reward\":1"), "\"reward\" is 1, must be text"},
        {HEAD(",\"missing_eos\":-1"), "\"missing_eos\" is -1"},
        {HEAD(",\"precision\":32"), "\"precision\" is 32"},
        {HEAD(",\"max_new\":0"), "\"max_new\" is 0"},
        {HEAD(",\"max_new\":6.5"), "\"max_new\" is 6.5, must be a whole number"},
        {HEAD(",\"seed\":-1"), "\"seed\" is -1"},
        {HEAD(",\"seed\":9223372036854775808"), "\"seed\" is 9.22"},
        {HEAD(",\"samples\":0"), "\"samples\" is 0"},
        {SAMPLE(",\"draw\":\"0\""), "\"draw\" is \"0\", must be a whole number from 0 to 2147483647"},
        {SAMPLE(",\"draw\":-1"), "\"draw\" is -1"},
        {SAMPLE(",\"draw\":0.5"), "\"draw\" is 0.5"},
        {SAMPLE(",\"draw\":1"), "\"draw\" is 1, and draw 0 of prompt \"I\" is missing"},
        {SAMPLE(",\"draw\":123456789012345678901234567890"), "\"draw\" is 1.23"},
        {SAMPLE(",\"key\":\"12\""), "\"key\" is \"12\", must be 16 hex digits"},
        {SAMPLE(",\"key\":null"), "\"key\" is null"},
        {SAMPLE(",\"logp\":\"-3\""), "\"logp\" is \"-3\""},
        {SAMPLE(",\"logp\":2"), "\"logp\" is 2"},
        {SAMPLE(",\"ids\":[5,-1]"), "\"ids\"[1] is -1"},
        {SAMPLE(",\"ids\":[5,2147483648]"), "\"ids\"[1] is 2147483648"},
        {SAMPLE(",\"ids\":[5.0]"), "\"ids\"[0] is 5.0"},
        {SAMPLE(",\"ids\":5"), "\"ids\" must be an array"},
        {SAMPLE(",\"finished\":1"), "\"finished\" is 1, must be true or false"},
        {SAMPLE(",\"F\":1.5"), "\"F\" is 1.5"},
        {"{\"prompt\":\"I\",\"text\":\"a\",\"reward\":\"0x8\"}", "\"reward\" is \"0x8\", must be a number"},
        {"{\"prompt\":\"I\",\"text\":\"a\",\"reward\":0x8}", "line"},
        {"{\"prompt\":\"I\",\"text\":\"a\",\"reward\":1e39}", "\"reward\" is 1"},
        {"{\"prompt\":\"I\",\"text\":\"a\",\"reward\":-1e300}", "\"reward\" is -1"},
        {"{\"prompt\":\"I\",\"text\":\"a\",\"reward\":1e400}", "overflow"},
        {"{\"prompt\":\"I\",\"text\":\"a\"}", "\"reward\" is missing"},
        {"{\"prompt\":\"I\",\"text\":7,\"ids\":[5],\"reward\":1}", "\"text\" is 7"},
        {"{\"prompt\":7,\"text\":\"a\",\"reward\":1}", "\"prompt\" is missing or no string"},
        {"{\"prompt\":\"I\",\"response\":\"a\",\"ids\":[5],\"reward\":1}", "\"response\" is what sample and bon write"},
        {"{\"prompt\":\"I\",\"responses\":[\"a\",7],\"rewards\":[1,2]}", "\"responses\"[1] is 7"},
        {"{\"prompt\":\"I\",\"responses\":[\"a\"],\"rewards\":[\"1\"]}", "\"rewards\"[0] is \"1\""},
        {"{\"prompt\":\"I\",\"responses\":[\"a\"],\"rewards\":[1e39]}", "\"rewards\"[0] is 1"},
        {"{\"prompt\":\"I\",\"responses\":[\"a\"],\"rewards\":1}", "\"rewards\" must be an array"},
        {"{\"prompt\":\"I\",\"keys\":[\"1\"],\"rewards\":[1]}", "\"keys\"[0] is \"1\""},
        {"{\"prompt\":\"I\",\"responses\":[\"a\"],\"rewards\":[1],\"logps\":[9]}", "\"logps\"[0] is 9"},
        {"{\"prompt\":\"I\",\"keys\":[\"0123456789abcdef\"],\"rewards\":[1],\"ids\":{\"0\":[1.5]}}",
         "\"0\"[0] is 1.5"}};
    for (size_t i = 0; i < COUNT(bad); i++) {
        bool header = !strncmp(bad[i].line, "{\"vbon_cache\"", 13); // what is no header follows a good one
        char *where = format("fields.jsonl:%d", header ? 1 : 2);
        char *text = format("%s%s\n", header ? "" : HEAD("") "\n", bad[i].line);
        write_text(path, text);
        expect_death(load_cache, path, 1, where);
        if (strcmp(bad[i].says, "line")) expect_death(load_cache, path, 1, bad[i].says);
        free(where); free(text);
    }
    // what is accepted: a byte order mark, and integers of any length in fields nobody
    // reads, beside others that stay exact
    const char *good = "\xef\xbb\xbf"
        HEAD(",\"seed\":9223372036854775807,\"later\":{\"a\":-123456789012345678901234567890}") "\n"
        SAMPLE(",\"id\":123456789012345678901234567890,\"s\":\"\\\"9999999999999999999999,\","
            "\"ids\":[2147483647,0],\"draw\":1,\"x\":99999999999999999999.5") "\n"
        SAMPLE(",\"draw\":0,\"reward2\":null");
    Cache c;
    write_text(path, good);
    cache_read(&c, path, 0);
    CHECK(c.n == 1 && c.prompts[0].n == 2 && c.prompts[0].samples[1].ids[0] == INT_MAX &&
            json_integer_value(json_object_get(c.header, "seed")) == INT64_MAX,
        "fields beside long integers");
    cache_free(&c);
    Jsonl in;
    json_t *j;
    jsonl_open(&in, path);
    while (jsonl_next(&in, &j))
        if (in.line == 2)
            CHECK(num(j, "id") == 123456789012345678901234567890. &&
                    !strcmp(json_string_value(json_object_get(j, "s")), "\"9999999999999999999999,"),
                "a long integer, and digits in a text");
    jsonl_close(&in);
    write_file(path, "\xef\xbb\xbf{\"prompt\":\"\xff\"}\n", 17);
    expect_death(load_prompts, path, 1, "byte 15 is not UTF-8");
    char *settings = tmp_path("bom.json");
    write_file(settings, "\xef\xbb\xbf{\"a\":1}", 10);
    j = json_file(settings);
    CHECK(num(j, "a") == 1, "a JSON file with a byte order mark");
    json_decref(j);
    write_file(settings, "{}", 2);
    json_decref(json_file(settings));
    const char *longer = "{\"a\": 1,\n \"b\": 1000000000000000019884624838656}"; // in digits, as Python writes it
    write_text(settings, longer);
    j = json_file(settings);
    CHECK(json_is_integer(json_object_get(j, "a")) && num(j, "b") == 1e30, "a JSON file with a long integer");
    json_decref(j);
    write_file(settings, "", 0);
    expect_death(load_json, settings, 1, "bom.json");
    // numbers that are none are named, not written
    expect_death(write_cache, path, 1, "a sample's reward is infinite");
    char *log = tmp_path("infinite"), *text = tmp_path("infinite/log.jsonl");
    expect_death(log_infinity, log, 1, "held_out/perplexity is infinite: training has diverged");
    size_t n;
    char *lines = read_file(text, &n);
    CHECK(lines && strstr(lines, "\"step\":1}\n") && !strstr(lines, "variance") && !strstr(lines, "perplexity"),
        "what was not measured is left out, and no record is half-written: %s", lines);
    static const struct { const char *part, *says; } parts[] = {
        {"m", "the optimiser's moments are not finite: lower --lr"},
        {"v", "the value head is not finite"},
        {"w", "is not a number to train on (lower --lr)"},
        {"s", "loss is not a number: lower --lr"}};
    for (size_t i = 0; i < 4; i++) {
        char *out = tmp_path("broken_save"), *arg = format("%s%s", parts[i].part, out),
             *step = format("%s/latest", out);
        expect_death(save_broken, arg, 1, parts[i].says);
        CHECK(access(step, F_OK), "a checkpoint of what is not finite");
        free(out); free(arg); free(step);
    }
    // a log that is cut: a torn last line goes, a damaged one before it is named
    make_folder(log);
    const char zero[] = "{\"type\":\"config\"}\n{\"step\":1}\n{\"st\0ep\":2}\n";
    write_file(text, zero, sizeof zero - 1);
    log_cut(log, 9);
    lines = read_file(text, &n);
    CHECK(!strcmp(lines, "{\"type\":\"config\"}\n{\"step\":1}\n"), "a last line with a zero byte: %s", lines);
    const char middle[] = "{\"type\":\"config\"}\n{\"st\0ep\":1}\n{\"step\":2}\n";
    write_file(text, middle, sizeof middle - 1);
    expect_death(log_cut_all, log, 1, "log.jsonl:2: no record");
}

// Passes over the data: every item once an epoch, the rest of them in a smaller last step
static void test_passes(void)
{
    static const struct { size_t items, batch; double epochs; long given; bool drop; long steps; size_t total; }
    cases[] = {
        {63, 32, 1, 0, false, 2, 63},
        {63, 32, 1, 0, true, 1, 32},
        {64, 32, 1, 0, false, 2, 64},
        {63, 32, 2, 0, false, 4, 126},
        {3, 2, 0.5, 0, false, 1, 2},
        {30, 4, 0.1, 0, false, 1, 3},
        {30, 1, 0.1, 0, false, 3, 3},
        {30, 1, 0.7, 0, false, 21, 21},
        {5, 32, 3, 0, false, 3, 15},
        {5, 2, 1.3, 0, false, 4, 7},
        {63, 32, 1, 5, false, 5, 160},
        {63, 32, 1e-9, 0, false, 1, 1}};
    for (size_t k = 0; k < COUNT(cases); k++) {
        Passes p;
        size_t which[64], seen[64] = {0}, total = 0;
        passes_create(&p, cases[k].items, cases[k].batch, cases[k].epochs, cases[k].given, cases[k].drop, 7);
        CHECK(p.steps == cases[k].steps && p.total == cases[k].total,
            "%zu items, %g epochs: %ld steps of %zu, %zu items", cases[k].items, cases[k].epochs, p.steps, p.batch,
            p.total);
        for (long s = 0; s < p.steps; s++) {
            size_t n = passes_step(&p, s, which);
            CHECK(n == p.batch || (s == p.steps - 1 && n > 0 && n < p.batch), "step %ld of %ld has %zu items", s,
                p.steps, n);
            for (size_t i = 0; i < n; i++) seen[which[i]]++;
            total += n;
        }
        CHECK(total == p.total, "%zu items in all", total);
        for (size_t i = 0; i < p.items; i++)
            CHECK(seen[i] == total / p.items || seen[i] == total / p.items + 1,
                "item %zu is seen %zu times in %g epochs", i, seen[i], cases[k].epochs);
        passes_free(&p);
    }
}
