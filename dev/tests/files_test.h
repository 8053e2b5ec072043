// files_test.h: folders written and read, and what happens with broken ones. Errors end the process, so each is provoked in a child.

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
        f(arg);
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    text = read_file(err, &n);
    for (size_t i = 0; i < n; i++) lines += text[i] == '\n';
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == code, "%s: ended with %s %d, not %d; it said: %s", says, WIFEXITED(status) ? "exit" : "signal", WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status), code, text);
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
                CHECK(!strcmp(b.cfg.arch, c.arch) && b.cfg.parallel == c.parallel && b.cfg.tied == c.tied && rotary_dims(&b.cfg) == rotary_dims(&c), "configuration");
                CHECK(b.cfg.scalar_head == scalar && b.n_params == a.n_params - (a.n_params - a.list[a.n_list - 4].offset), "the value head is not part of a folder");
                double worst = 0;
                for (size_t i = 0; i < b.n_params; i++) worst = fmax(worst, fabs((double)R_(a.data)[i] - (double)R_(b.data)[i]) / fmax(fabs((double)R_(a.data)[i]), 6e-5));
                CHECK(worst <= unit[t], "type %d: relative error %g", t, worst);
                if (t == 1) CHECK(model_fingerprint(&a) == model_fingerprint(&b), "fingerprint");
                model_save(&b, dir, types[t], NULL, sharded ? 0 : 4000); // over what is there, in the other form
                model_free(&b);
                model_load(&b, ops_cpu(), dir, TRAIN_NONE, false);
                model_free(&a); model_free(&b);
                free(dir);
            }
    for (uint32_t h = 0; h < 65536; h++) { // every half survives the way to double and back
        double x = (double)half_to_float((uint16_t)h);
        if (!isnan(x)) CHECK(double_to_half(x) == h && (isinf(x) || x == ldexp((h & 1023) + (h & 0x7c00 ? 1024 : 0), (h & 0x7c00 ? h >> 10 & 31 : 1) - 25) * (h & 0x8000 ? -1 : 1)), "half %04x", h);
        else CHECK((h & 0x7fff) > 0x7c00, "half %04x", h);
    }
    CHECK(double_to_half(65519.9) == 0x7bff && double_to_half(65520) == 0x7c00 && double_to_half(2.9802322387695312e-08) == 0 && double_to_half(2.99e-08) == 1, "rounding of halves");
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

static void patch_header(const char *from, const char *to, const char *find, const char *replace) // same length, or the length field is fixed up
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
    struct { unsigned long cur, max; } limit = {4096, 4096};
    signal(SIGXFSZ, SIG_IGN);
    (void)limit;
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

#define NEOX "{\"model_type\":\"gpt_neox\""
#define SIZES ",\"hidden_size\":8,\"num_hidden_layers\":1,\"num_attention_heads\":2,\"intermediate_size\":16,\"vocab_size\":31,\"max_position_embeddings\":4"
#define TOKEN "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}"
#define END(id) ",\"added_tokens\":[{\"content\":\"<|endoftext|>\",\"id\":" #id "}]"
static void test_malformed(void)
{
    char *good = tmp_path("good"), *bad = tmp_path("bad"), *file = tmp_path("good/model.safetensors"), *broken = tmp_path("bad/model.safetensors"), *config = tmp_path("bad/config.json");
    Config c = tiny_config(31, true, false);
    Model m;
    size_t n, nc;
    model_create(&m, ops_cpu(), &c, TRAIN_NONE, false, false);
    model_random(&m, 8);
    model_save(&m, good, DT_F32, NULL, 0);
    make_folder(bad);
    char *good_config = tmp_path("good/config.json"), *s = read_file(file, &n), *cs = read_file(good_config, &nc);
    write_file(config, cs, nc);
    expect_death(load_model, "/nonexistent", 1, "/nonexistent/config.json");
    expect_death(load_model, bad, 1, "no model.safetensors");
    write_file(broken, s, 5);        expect_death(load_model, bad, 1, "too short");
    write_file(broken, "", 0);       expect_death(load_model, bad, 1, "too short");
    write_file(broken, s, 40);       expect_death(load_model, bad, 1, "truncated");
    write_file(broken, s, n - 8);    expect_death(load_model, bad, 1, "truncated");
    char *grown = xcalloc(n + 8, 1);
    memcpy(grown, s, n);
    write_file(broken, grown, n + 8); expect_death(load_model, bad, 1, "bytes of data");
    memcpy(grown, s, n);
    memset(grown, 0xff, 8);
    write_file(broken, grown, n);    expect_death(load_model, bad, 1, "100 MB");
    static const struct { const char *find, *replace, *says; } patches[] = {
        {"\"F32\"", "\"F8\"", "type F8"}, {"\"F32\"", "\"I32\"", "holds integers"}, {"[31,8]", "[8,31]", "wte.weight"}, {"\"shape\":[31,8]", "\"shape\":[31,9]", "bytes for"}, {"\"shape\":[31,8]", "\"shape\":[-31,8]", "no valid shape"},
        {"transformer.wpe.weight", "transformer.wpx.weight", "missing: wpe.weight unused: transformer.wpx.weight"}, {"{\"__meta", "{{\"__meta", "header"}, {"transformer.ln_f.bias", "transformer.ln_f.weight", "header"},
        {"[0,992]", "[0,99999999]", "outside"}, {"[0,992]", "[8,1000]", "hole"}, {"[992,1376]", "[984,1368]", "overlap"}, {"\"shape\":[31,8]", "\"shape\":[4611686018427387904,8]", "no valid shape"}};
    for (size_t i = 0; i < sizeof patches / sizeof *patches; i++) { patch_header(file, broken, patches[i].find, patches[i].replace); expect_death(load_model, bad, 1, patches[i].says); }
    memcpy(grown, s, n);
    float nan = NAN;
    memcpy(grown + n - 4, &nan, 4);
    write_file(broken, grown, n);    expect_death(load_model, bad, 1, "not finite");
    write_file(broken, s, n);
    Model reward; // a reward folder with a language model's head
    Config rc = tiny_of(1, 31, false, true);
    rc.bos = 5; rc.eos = 3;
    model_create(&reward, ops_cpu(), &rc, TRAIN_NONE, false, false);
    model_random(&reward, 8);
    char *rm = tmp_path("rm_head"), *rmw = tmp_path("rm_head/model.safetensors");
    model_save(&reward, rm, DT_F32, NULL, 0);
    config_read(&rc, rm);
    CHECK(rc.bos == 5 && rc.eos == 3, "bos_token_id %d, eos_token_id %d", rc.bos, rc.eos);
    patch_header(rmw, rmw, "{\"__meta", "{\"embed_out.weight\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},\"__meta");
    expect_death(load_model, rm, 1, "unused: embed_out.weight");
    expect_death(plan_model, rm, 1, "unused: embed_out.weight");
    model_free(&reward);
    static const struct { const char *text, *says; } configs[] = {
        {"{", "config.json:"}, {"[]", "config.json"}, {"{\"model_type\":\"llama\"}", "llama"}, {"{\"model_type\":\"gpt2\"}", "n_embd"}, {"{\"model_type\":\"gpt2\",\"n_embd\":\"8\",\"n_layer\":1}", "n_embd"},
        {"{\"model_type\":\"gpt2\",\"n_embd\":9,\"n_layer\":1,\"n_head\":2,\"vocab_size\":31,\"n_positions\":4}", "head size"}, {"{\"model_type\":\"gpt2\",\"n_embd\":8,\"n_layer\":0,\"n_head\":2,\"vocab_size\":31,\"n_positions\":4}", "dimension"},
        {"{\"model_type\":\"gpt2\",\"n_embd\":8,\"n_layer\":1,\"n_head\":2,\"vocab_size\":31,\"n_positions\":4,\"activation_function\":\"silu\"}", "silu"},
        {"{\"model_type\":\"gpt2\",\"n_embd\":8,\"n_layer\":1,\"n_head\":2,\"vocab_size\":31,\"n_positions\":4,\"scale_attn_by_inverse_layer_idx\":true}", "scale_attn"},
        {"{\"model_type\":\"gpt2\",\"n_embd\":8,\"n_layer\":1,\"n_head\":2,\"vocab_size\":31,\"n_positions\":4,\"architectures\":[\"GPT2ForSequenceClassification\"],\"num_labels\":2}", "labels"},
        {NEOX "}", "hidden_size"}, {NEOX SIZES "}", "rotary dimensions"}, {NEOX SIZES ",\"rotary_pct\":0.5,\"attention_bias\":false}", "attention_bias"}, {NEOX SIZES ",\"hidden_act\":\"silu\"}", "hidden_act silu"},
        {NEOX SIZES ",\"rotary_pct\":0.5,\"rope_parameters\":{\"partial_rotary_factor\":0.25}}", "rotary_pct is 0.5, and 0.25"}, {NEOX SIZES ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}", "linear"},
        {NEOX SIZES ",\"rotary_pct\":0.5,\"rope_scaling\":{\"rope_type\":\"default\",\"partial_rotary_factor\":0.25}}", "and 0.25"},
        {NEOX SIZES ",\"rope_scaling\":{\"rope_type\":\"default\",\"partial_rotary_factor\":1.5}}", "6 rotary dimensions"}, {NEOX SIZES ",\"rotary_pct\":0.5,\"architectures\":[\"GPTNeoXForTokenClassification\"]}", "architecture GPTNeoXForTokenClassification is not supported (GPTNeoXForCausalLM and GPTNeoXForSequenceClassification are)"},
        {NEOX SIZES ",\"rotary_pct\":1.5}", "rotary dimensions"}, {NEOX SIZES ",\"rotary_emb_base\":-1}", "rotary_emb_base"}, {"{\"base_config\":{}}", "model_type"}, {"{\"base_config\":" NEOX SIZES ",\"rotary_pct\":0.5},\"bias\":\"x\"}", "bias"}};
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) { write_file(config, configs[i].text, strlen(configs[i].text)); expect_death(load_model, bad, 1, configs[i].says); }
    const char *trunk = "{\"model_type\":\"gpt2\",\"n_embd\":8,\"n_layer\":1,\"n_head\":2,\"vocab_size\":31,\"n_positions\":4,\"architectures\":[\"FSDPGPT2Model\"],\"bos_token_id\":2,\"eos_token_id\":null}";
    write_file(config, trunk, strlen(trunk));
    config_read(&c, bad);
    CHECK(!c.scalar_head && c.tied && c.bos == 2 && c.eos == -1 && c.pad == -1, "GPT2Model is read as what it is the trunk of, however it was trained");
    char *tok = tmp_path("bad/tokenizer.json");
    expect_death(load_tokenizer, bad, 1, "no tokenizer.json");
    static const struct { const char *text, *says; } tokenizers[] = {
        {"{\"model\":", "tokenizer.json:1"}, {"{\"model\":{\"type\":\"WordPiece\"}}", "WordPiece"}, {"{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", "pre-tokeniser"},
        {"{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":-1},\"merges\":[]}}", "valid id"},
        {"{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}", "not in the vocabulary"},
        {"{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"ab\"]}}", "not a pair"},
        {TOKEN END(1) "}", "\"eos_token_id\" is 0, the tokenizer's <|endoftext|> is 1"},
        {TOKEN ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"a\"}}]}}", "post_processor TemplateProcessing"},
        {TOKEN ",\"post_processor\":{\"type\":\"RobertaProcessing\"}}", "post_processor RobertaProcessing"}};
    write_file(config, "{\"eos_token_id\":0}", 18);
    for (size_t i = 0; i < sizeof tokenizers / sizeof *tokenizers; i++) { write_file(tok, tokenizers[i].text, strlen(tokenizers[i].text)); expect_death(load_tokenizer, bad, 1, tokenizers[i].says); }
    #define TWO "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"<s>\":1},\"merges\":[]}}"
    write_file(tok, TWO, strlen(TWO));
    expect_death(load_tokenizer, bad, 1, "an ordinary word");
    for (int i = 0; i < 2; i++) { // config.json names the end of a text, unless it is of another vocabulary
        write_file(config, i ? "{\"eos_token_id\":7}" : "{\"eos_token_id\":1}", 18);
        Tokenizer *named = tokenizer_load(bad);
        CHECK(tokenizer_eos(named) == (i ? -1 : 1), "the end of a text is %d", tokenizer_eos(named));
        tokenizer_free(named);
    }
    static const struct { const char *text, *says; int eos; } settings[] = {
        {"{\"add_prefix_space\":true}", "add_prefix_space", 0}, {"{\"add_bos_token\":true}", "add_bos_token", 0}, {"{\"eos_token\":\"</s>\"}", "eos_token </s> is not in the vocabulary", 0},
        {"{\"eos_token\":\"a\"}", "\"eos_token_id\" is 1, the tokenizer's a is 0", 1}, {"{\"eos_token\":{\"content\":\"a\"}}", "\"eos_token\" is token 0, \"a\", an ordinary word", 0}, {"{\"eos_token\":null}", NULL, 1}, {"{\"eos_token\":null}", "\"eos_token_id\" is token 0, \"a\", an ordinary word", 0},
        {"{\"eos_token\":7}", "\"eos_token\" holds no token", 1}, {"{\"tokenizer_class\":\"LlamaTokenizer\"}", "tokenizer_class LlamaTokenizer is not supported", 1}, {"{\"split_special_tokens\":true}", "split_special_tokens", 1}};
    write_file(tok, TOKEN END(1) "}", strlen(TOKEN END(1) "}"));
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) { // eos_token beside <|endoftext|>: it is the one that ends a text
        char *tc = tmp_path("bad/tokenizer_config.json"), *id = format("{\"eos_token_id\":%d}", settings[i].eos);
        write_file(tc, settings[i].text, strlen(settings[i].text));
        write_file(config, id, strlen(id));
        if (settings[i].says) { expect_death(load_tokenizer, bad, 1, settings[i].says); continue; }
        Tokenizer *named = tokenizer_load(bad);
        CHECK(tokenizer_eos(named) == settings[i].eos, "the end of a text is %d", tokenizer_eos(named));
        tokenizer_free(named);
    }
    char *generation = tmp_path("bad/generation_config.json"), *left_over = tmp_path("bad/tokenizer_config.json");
    unlink(left_over);
    write_file(generation, "{\"eos_token_id\":[1,0]}", 22);
    expect_death(load_tokenizer, bad, 1, "generation_config.json: \"eos_token_id\" is 0, the tokenizer's <|endoftext|> is 1");
    unlink(generation);
    char *full = tmp_path("full"), *left = tmp_path("full.tmp");
    expect_death(fill_disk, full, 1, "No space left");
    CHECK(access(full, F_OK) && access(left, F_OK), "a failed write leaves nothing behind");
    model_free(&m);
    free(grown);
    arrfree(s); arrfree(cs);
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
        CHECK(bytes == strlen(bytes_back) && !memcmp(back, bytes_back, bytes), "%s:%zu: decoding gives %s", path, in.line, back);
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

// Folders that name their special tokens in every way: equal to transformers 4 and 5, or refused where these differ (dev/special_tokens.py)
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
            CHECK((size_t)tokenizer_vocab(t) == (size_t)json_integer_value(json_object_get(j, "size")), "%s: %d tokens", what, tokenizer_vocab(t));
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
    CHECK(equal > 35 && refused > 10 && doubted > 8, "%zu equal, %zu refused, %zu whose end is in doubt", equal, refused, doubted);
}

static void test_bpe(void)
{
    Tokenizer *t = tokenizer_load("dev/demo/tokenizer"), *neox = tokenizer_load("dev/fixtures/neox");
    json_t *x;
    size_t n;
    CHECK(tokenizer_vocab(t) == 2000 && tokenizer_eos(t) == 1999, "vocabulary %d, end of text %d", tokenizer_vocab(t), tokenizer_eos(t));
    CHECK(tokenizer_vocab(neox) > 850 && tokenizer_eos(neox) == 0, "vocabulary %d, end of text %d", tokenizer_vocab(neox), tokenizer_eos(neox));
    golden_strings(t, "dev/fixtures/bpe.jsonl", 450);
    golden_strings(neox, "dev/fixtures/neox.jsonl", 600);
    CHECK(!tokenizer_encode(t, "ab\xff", 3, &n) && n == 2, "bad UTF-8 is found at byte 2, not %zu", n);
    char *broken = utf8_mend(xstrdup("a\xf0\x9f\x98 \xe0\x80\xed\xa0\x80\xf4\x90\xff\xc3"));
    CHECK(!strcmp(broken, "a\ufffd \ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd"), "mended: %s", broken); // as Python's errors="replace"
    free(broken);
    const int padded[] = {400, 5000, 500}; // ids of a padded vocabulary stand for nothing
    size_t whole_bytes, a_bytes, b_bytes;
    free(tokenizer_decode(neox, padded, 3, &whole_bytes)); free(tokenizer_decode(neox, padded, 1, &a_bytes)); free(tokenizer_decode(neox, padded + 2, 1, &b_bytes));
    CHECK(whole_bytes == a_bytes + b_bytes && a_bytes, "unused ids decode to nothing");
    // merges written "a b", as older files have them, and as pairs
    char *old = tmp_path("old_merges"), *old_file = tmp_path("old_merges/tokenizer.json");
    make_folder(old);
    json_t *j = json_load_file("dev/fixtures/neox/tokenizer.json", 0, NULL), *pairs = json_object_get(json_object_get(j, "model"), "merges");
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
    Tokenizer *saved = tokenizer_load("dev/fixtures/neox_saved"); // transformers wrote: a template that adds nothing, a model_max_length of 1e30
    CHECK(tokenizer_fingerprint(saved) == tokenizer_fingerprint(neox) && tokenizer_eos(saved) == 0, "loaded and saved by transformers, the same tokenizer");
    golden_strings(saved, "dev/fixtures/neox.jsonl", 600);
    tokenizer_free(saved);
    // the same vocabulary from vocab.json and merges.txt: another file form, the same tokenizer
    char *dir = tmp_path("vm"), *vocab = tmp_path("vm/vocab.json"), *merges = tmp_path("vm/merges.txt");
    make_folder(dir);
    json_t *whole = json_load_file("dev/demo/tokenizer/tokenizer.json", 0, NULL), *model = json_object_get(whole, "model"), *v = json_copy(json_object_get(model, "vocab")), *m = json_object_get(model, "merges");
    json_object_set_new(v, "<|endoftext|>", json_integer(1999));
    json_dump_file(v, vocab, 0);
    FILE *f = fopen(merges, "w");
    fputs("#version: 0.2\n", f);
    json_array_foreach(m, n, x) fprintf(f, "%s %s\n", json_string_value(json_array_get(x, 0)), json_string_value(json_array_get(x, 1)));
    fclose(f);
    Tokenizer *u = tokenizer_load(dir);
    CHECK(tokenizer_fingerprint(t) == tokenizer_fingerprint(u) && tokenizer_eos(u) == 1999, "two file forms, one tokenizer");
    json_decref(whole);
    const char *more = "{\"[PAD]\": 2001, \"[SEP]\": 2000}"; // in the order of their ids
    char *added = tmp_path("vm/added_tokens.json");
    write_file(added, more, strlen(more));
    tokenizer_free(u);
    u = tokenizer_load(dir);
    int *padding = tokenizer_encode(u, "[PAD][SEP]", 10, &n);
    CHECK(tokenizer_vocab(u) == 2002 && n == 2 && padding[0] == 2001 && padding[1] == 2000, "added_tokens.json");
    free(padding);
    more = "{\"[PAD]\": 2003}";
    write_file(added, more, strlen(more));
    expect_death(load_tokenizer, dir, 1, "would give it 2000");
    // a megabyte without a space is no harder than with: n log n; nor are combining marks out of order
    char *text = xmalloc(1 << 20);
    for (size_t i = 0; i < 1 << 20; i++) text[i] = "abcdefghij"[random_bits(1, 2, i, 0, 0) % 10];
    int *ids = tokenizer_encode(t, text, 1 << 20, &n);
    char *back = tokenizer_decode(t, ids, n, NULL);
    CHECK(!memcmp(back, text, 1 << 20) && n < 1 << 20, "a long word");
    free(ids); free(back);
    for (size_t i = 0; i < 1 << 20; i += 4) memcpy(text + i, "\xcc\x81\xcc\xa3", 4);
    ids = tokenizer_encode(neox, text, 1 << 20, &n);
    back = tokenizer_decode(neox, ids, n, NULL);
    CHECK(!memcmp(back, "\xcc\xa3\xcc\xa3", 4) && !memcmp(back + (1 << 20) - 4, "\xcc\x81\xcc\x81", 4), "a million bytes of marks in order");
    free(ids); free(text); free(back);
    // a hundred thousand added tokens, and a text of them, in a second
    clock_t began = clock();
    FILE *many = fopen(added, "w");
    fputs("{\"<0>\":2000", many);
    for (int i = 1; i < 100000; i++) fprintf(many, ",\"<%d>\":%d", i, 2000 + i);
    fputs("}", many);
    fclose(many);
    tokenizer_free(u);
    u = tokenizer_load(dir);
    text = xmalloc(1 << 20);
    for (size_t i = n = 0; i + 16 < 1 << 20; n++) i += (size_t)sprintf(text + i, "<%zu>", n * 7919 % 100000);
    size_t found;
    ids = tokenizer_encode(u, text, strlen(text), &found);
    bool right = found == n;
    for (size_t i = 0; i < n && right; i++) right = ids[i] == (int)(2000 + i * 7919 % 100000);
    CHECK(right && tokenizer_vocab(u) == 102000, "%zu added tokens for %zu", found, n);
    CHECK(clock() - began < 4 * CLOCKS_PER_SEC, "added tokens: %g s", (double)(clock() - began) / CLOCKS_PER_SEC);
    free(ids); free(text);
    tokenizer_free(t); tokenizer_free(u); tokenizer_free(neox); tokenizer_free(strings);
}

#define BERT "{\"normalizer\":{\"type\":\"BertNormalizer\"},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},\"model\":{\"type\":\"WordPiece\""
static void load_wordpiece(const char *dir) { wordpiece_load(dir); }

// Lower case, accents and ideographs as a folder's files say, by dev/fixtures/wordpiece_settings.jsonl
static void wordpiece_with_settings(void)
{
    Jsonl in;
    json_t *j, *pair;
    size_t n = 0, i, k;
    char *dir = tmp_path("bert_settings"), *config = tmp_path("bert_settings/tokenizer_config.json"), *json = tmp_path("bert_settings/tokenizer.json"), *vocab = tmp_path("bert_settings/vocab.txt"), *s;
    make_folder(dir);
    jsonl_open(&in, "dev/fixtures/wordpiece_settings.jsonl");
    for (; jsonl_next(&in, &j); n++) {
        const char *settings = jsonl_string(&in, j, "config", true);
        json_t *normalizer = json_object_get(j, "normalizer");
        unlink(json); unlink(vocab);
        write_file(config, settings, strlen(settings));
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

static void test_wordpiece(void)
{
    wordpiece_with_settings();
    WordPiece *w = wordpiece_load("dev/fixtures/distilbert"), *same = wordpiece_load("dev/fixtures/wordpiece");
    CHECK(wordpiece_fingerprint(w) == wordpiece_fingerprint(same) && wordpiece_vocab(w) == wordpiece_vocab(same), "vocab.txt and tokenizer.json hold one vocabulary");
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
    wordpiece_free(same);
    char *old = tmp_path("old_wordpiece"), *old_file = tmp_path("old_wordpiece/tokenizer.json"); // as files without the model's type are
    make_folder(old);
    j = json_load_file("dev/fixtures/wordpiece/tokenizer.json", 0, NULL);
    json_object_del(json_object_get(j, "model"), "type");
    json_dump_file(j, old_file, 0);
    json_decref(j);
    same = wordpiece_load(old);
    CHECK(wordpiece_fingerprint(w) == wordpiece_fingerprint(same), "a tokenizer.json that does not name WordPiece");
    // words of ten thousand characters and an entry as long: no piece costs more than its length
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
    wordpiece_free(same);
    same = wordpiece_load(old);
    long_word[9999] = 0;
    for (int i = 0; i < 20; i++) {
        int *ids = wordpiece_encode(same, long_word, 9999, 0, &k);
        CHECK(k > 300, "%zu pieces", k);
        free(ids);
    }
    CHECK(clock() - began < 2 * CLOCKS_PER_SEC, "a word without end: %g s", (double)(clock() - began) / CLOCKS_PER_SEC);
    free(long_word);
    wordpiece_free(w); wordpiece_free(same);
    char *dir = tmp_path("cased"), *vocab = tmp_path("cased/vocab.txt"), *config = tmp_path("cased/tokenizer_config.json"), *json = tmp_path("cased/tokenizer.json");
    make_folder(dir);
    expect_death(load_wordpiece, dir, 1, "no vocab.txt");
    static const struct { const char *file, *text, *says; } bad[] = {{"vocab", "[UNK]\n[SEP]\na\n", "no [CLS]"}, {"vocab", "[UNK]\n[CLS]\n\xff\n", "not UTF-8"}, {"config", "{\"do_lower_case\":7}", "do_lower_case"}, {"config", "{\"tokenizer_class\":\"BertTokenizer\",\"cls_token\":null}", "cls_token null"}, {"config", "{\"tokenizer_class\":\"GPT2Tokenizer\"}", "a GPT2Tokenizer"}, {"config", "{\"do_basic_tokenize\":false}", "do_basic_tokenize"}, {"config", "{\"unk_token\":\"<unk>\"}", "unk_token <unk>"},
        {"json", "{\"model\":{\"type\":\"BPE\"}}", "BPE"}, {"json", "{\"model\":{\"type\":\"WordPiece\"}}", "normaliser"},
        {"json", "{\"model\":{\"type\":\"WordPiece\"},\"normalizer\":{\"type\":\"BertNormalizer\",\"lowercase\":0},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"[CLS]\",2],\"sep\":[\"[SEP]\",1]}}", "lowercase"},
        {"json", BERT ",\"unk_token\":\"<unk>\"}}", "unk_token <unk>"}, {"json", BERT "}}", "does not put [CLS]"}, {"json", BERT "},\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"[SEP]\",1],\"sep\":[\"[SEP]\",1]}}", "does not put [CLS]"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_file(*bad[i].file == 'v' ? vocab : *bad[i].file == 'c' ? config : json, bad[i].text, strlen(bad[i].text));
        expect_death(load_wordpiece, dir, 1, bad[i].says);
        if (*bad[i].file == 'v') write_file(vocab, "[UNK]\n[SEP]\n[CLS]\na\n", 20);
    }
}
