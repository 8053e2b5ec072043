// command_test.h: the binary itself (VBON, default ./vbon): JSONL and flags, bad input,
// runs that are killed and resumed.

static char vbon_path[4096];
static const char *vbon(void)
{
    const char *v = getenv("VBON");
    if (!*vbon_path && !realpath(v ? v : "./vbon", vbon_path)) die("%s: build it first", v ? v : "./vbon");
    return vbon_path;
}

// A tiny language model and reward model with the demo's tokenizer, made once
static void tiny_folders(void)
{
    static bool made;
    if (made) return;
    made = true;
    for (int scalar = 0; scalar < 2; scalar++) {
        Config c = {.arch = &architectures[ARCH_GPT2], .L = 2, .NH = 2, .C = 16, .F = 32, .V = 2000, .max_T = 24,
            .act = ACT_GELU_TANH, .tied = true, .scalar_head = scalar, .eps = 1e-5, .init_std = 0.1, .eos = 1999};
        Model m;
        model_create(&m, ops_cpu(), &c, TRAIN_NONE, false, false);
        model_random(&m, 4);
        char *dir = tmp_path(scalar ? "rm" : "lm");
        model_save(&m, dir, DT_F32, "dev/demo/tokenizer", 0);
        model_free(&m);
    }
    char *p = tmp_path("prompts.jsonl");
    const char *text = "{\"prompt\":\"This film\"}\n{\"prompt\":\"I\"}\n\n{\"prompt\":\"The acting in this\"}\n";
    write_text(p, text);
}

static int run_vbon(const char *args, char **err) // in the test folder; stdout dropped, stderr malloc'd when asked for
{
    char *e = tmp_path("err"), *cmd = format("cd %s && '%s' %s >/dev/null 2>%s", test_folder, vbon(), args, e);
    size_t n;
    int status = system(cmd);
    if (err) *err = read_file(e, &n);
    free(cmd); free(e);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void expect_failure(const char *args, int code, const char *says)
{
    char *err, *old = getenv("ASAN_OPTIONS"), *options = old ? xstrdup(old) : NULL;
    // what a program that gives up still holds is no leak
    setenv("ASAN_OPTIONS", "detect_leaks=0:allocator_may_return_null=1", 1);
    int got = run_vbon(args, &err);
    if (options) setenv("ASAN_OPTIONS", options, 1);
    else unsetenv("ASAN_OPTIONS");
    free(options);
    size_t lines = 0;
    for (char *s = err; s && *s; s = strchr(s, '\n') ? strchr(s, '\n') + 1 : s + strlen(s))
        lines += strncmp(s, "note:", 5) != 0;
    CHECK(got == code && lines == 1 && strstr(err, says),
        "vbon %s: exit %d (want %d), want one line with \"%s\", got: %s", args, got, code, says, err);
}

// A command line that is refused: its exit code, and what stands in its one line on stderr
typedef struct { const char *args; int code; const char *says; } Refused;
static void expect_refusals(const char *in, const Refused *cases, size_t n) // in: a format with a %s for the arguments
{
    for (size_t i = 0; i < n; i++) {
        char *args = format(in, cases[i].args);
        expect_failure(args, cases[i].code, cases[i].says);
        free(args);
    }
}

static void shell(const char *command) // in the test folder
{
    char *cmd = format("cd %s && { %s; }", test_folder, command);
    CHECK(system(cmd) == 0, "%s: failed", command);
    free(cmd);
}

PRINTF_LIKE(1, 2) static void expect_success(const char *fmt, ...)
{
    char *args, *err;
    va_list list;
    va_start(list, fmt);
    if (vasprintf(&args, fmt, list) < 0) die("out of memory");
    va_end(list);
    int got = run_vbon(args, &err);
    CHECK(got == 0, "vbon %s: exit %d: %s", args, got, err);
    free(args);
}

static bool same_files(const char *a, const char *b)
{
    size_t n, m;
    char *pa = tmp_path(a), *pb = tmp_path(b), *x = read_file(pa, &n), *y = read_file(pb, &m);
    bool same = x && y && n == m && !memcmp(x, y, n);
    arrfree(x); arrfree(y); free(pa); free(pb);
    return same;
}

#define CACHE "cache --model lm --reward rm --prompts prompts.jsonl --samples 8 --max-new 6 --seed 3 --out "

// How many lines of a file are samples or texts: all but a cache's header
static size_t count_lines(const char *name)
{
    size_t n, lines = 0;
    char *path = tmp_path(name), *s = read_file(path, &n);
    for (size_t i = 0; i < n; i++) lines += s[i] == '\n';
    if (s && !strncmp(s, "{\"vbon_cache\"", 13)) lines--;
    arrfree(s); free(path);
    return lines;
}

// Writes lines to a file of the test folder, reads one file's `key` of line i
static void put(const char *name, const char *text)
{
    char *p = tmp_path(name); write_text(p, text); free(p);
}
static json_t *get_line(const char *name, size_t i)
{
    Jsonl in;
    json_t *j = NULL;
    char *path = tmp_path(name);
    jsonl_open(&in, path);
    for (size_t k = 0; jsonl_next(&in, &j) && k < i; k++) json_decref(j);
    jsonl_close(&in);
    free(path);
    return j;
}

// ----------------------------------------------------------------------------
// shards: for every n the merged file is that of a single run, after a kill too

static void without_times(const char *name) // in place; of eval's record
{
    char *sed = format("sed -i 's/,\"time[^,}]*//' %s", name);
    shell(sed);
    free(sed);
}

static void test_shards(void)
{
    tiny_folders();
    static const struct { const char *name, *command; } sharded[] = {
        {"sc.jsonl", "cache --model lm --reward rm --prompts prompts.jsonl --samples 12 --max-new 6 --decode-rows 5"},
        {"sb.jsonl", "bon --all --model lm --reward rm --prompts prompts.jsonl --n 3 --max-new 6 --decode-rows 5"},
        {"ss.jsonl", "score --model lm --reward rm --in many.jsonl"},
        {"se.json", "eval --model lm2 --reference lm --reward rm --cache one_sc.jsonl --samples 3 --max-new 6 "
                    "--decode-rows 5"},
        {"sn.json", "eval --method bon --n 2 --reference lm --reward rm --cache one_sc.jsonl --samples 2 --max-new 6 "
                    "--decode-rows 5"}};
    shell("cp -r lm lm2");
    for (size_t k = 0; k < COUNT(sharded); k++) {
        const char *name = sharded[k].name, *command = sharded[k].command;
        expect_success("%s --out one_%s", command, name);
        if (!k) shell("cat one_sc.jsonl one_sc.jsonl one_sc.jsonl one_sc.jsonl one_sc.jsonl one_sc.jsonl one_sc.jsonl "
                      "one_sc.jsonl > many.jsonl && sed -i /vbon_cache/d many.jsonl");
        char *one = format("one_%s", name);
        without_times(one);
        for (int n = 1; n <= (few() ? 1 : 4); n += n == 1 ? 1 : 2) {
            for (int i = n; i-- > 0;) expect_success("%s --out %s --shard %d/%d", command, name, i, n);
            expect_success("merge --out %s", name);
            CHECK(same_files(one, name), "%s: %d shards merge to another file than one run writes", name, n);
            if (n < 3) { char *rm = format("rm -f %s %s.*", name, name); shell(rm); free(rm); }
        }
        free(one);
    }
    // cut off anywhere, as a kill leaves it, a shard goes on by itself; whole, it stays as it is
    expect_success("%s --out cut.jsonl --shard 1/2", sharded[0].command);
    size_t n, step = few() ? 1500 : 400;
    char *path = tmp_path("cut.jsonl.1-of-2"), *whole = read_file(path, &n);
    for (size_t cut = 0; cut <= n + step; cut += step) {
        size_t left = cut < n ? cut : n - (cut > n + 1), m;
        write_file(path, whole, left);
        expect_success("%s --out cut.jsonl --shard 1/2", sharded[0].command);
        char *now = read_file(path, &m);
        CHECK(m == n && !memcmp(now, whole, n), "a shard that was cut to %zu of %zu bytes does not go on", left, n);
        arrfree(now);
    }
    static const Refused asked[] = {
        {"3/3", 2, "--shard 3/3: of 3 shards the first is 0/3, the last 2/3"},
        {"-1/3", 2, "of 3 shards the first is 0/3"},
        {"1", 2, "--shard 1: i/n, as 0/3, 1/3 and 2/3"},
        {"1/0", 2, "i/n"},
        {"1/2 --seed 9", 1, "cut.jsonl.1-of-2: was begun with another --seed"},
        {"1/2 --model lm3", 1, "was begun with other weights, tokenizer or program of --model"},
        {"1/2 --reward 'sed -u s/.*/1/'", 1, "was begun with other weights, tokenizer or program of --reward"},
        {"1/2 --prompts two.jsonl", 1, "was begun with another file of --prompts"},
        {"1/2 --prompts -", 2, "shards read their prompts from a file"}};
    expect_success("sft --tokenizer rm --data many.jsonl --layers 1 --width 16 --heads 2 --context 24 --steps 1 "
        "--out lm3");
    put("two.jsonl", "{\"prompt\":\"This film\"}\n{\"prompt\":\"I\"}\n");
    char *in = format("%s --out cut.jsonl --shard %%s", sharded[0].command);
    expect_refusals(in, asked, COUNT(asked));
    free(in);
    expect_failure("bon --model lm --reward rm --prompts prompts.jsonl --shard 0/2", 2, "--out is required");
    expect_failure("merge --out cut.jsonl", 1, "cut.jsonl.0-of-2: shard 0 of 2 is missing: --shard 0/2 makes it");
    expect_failure("merge --out other.jsonl", 1, "other.jsonl: no shards of it");
    expect_success("%s --seed 9 --out cut.jsonl --shard 0/2", sharded[0].command);
    expect_failure("merge --out cut.jsonl", 1, "cut.jsonl.1-of-2: was made with another --seed than shard 0");
    shell("rm cut.jsonl.0-of-2");
    expect_success("%s --out cut.jsonl --shard 0/2", sharded[0].command);
    write_file(path, whole, n - 3);
    expect_failure("merge --out cut.jsonl", 1, "cut.jsonl.1-of-2: is not whole: --shard 1/2 goes on with it");
    shell("cp cut.jsonl.0-of-2 cut.jsonl.2-of-3");
    expect_failure("merge --out cut.jsonl", 1, "delete those that are not meant");
    put("cut.jsonl.1-of-2", "something else\n");
    shell("rm cut.jsonl.2-of-3");
    expect_failure("merge --out cut.jsonl", 1, "cut.jsonl.1-of-2: holds something else than a shard");
    arrfree(whole); free(path);
}

// The last record of a training log: its value of `key`
static double last_metric(const char *log, const char *key)
{
    double x = NAN;
    Jsonl in;
    json_t *j;
    jsonl_open(&in, tmp_path(log));
    while (jsonl_next(&in, &j)) { if (json_object_get(j, key)) x = num(j, key); json_decref(j); }
    jsonl_close(&in);
    return x;
}

// A cache again, every reward x as scale*x + offset
static void rewrite_cache(const char *from, const char *to, bool header, double scale, double offset)
{
    Cache c;
    cache_read(&c, tmp_path(from), 0);
    FILE *f = fopen(tmp_path(to), "w");
    if (header) { json_dumpf(c.header, f, JSON_COMPACT); fputc('\n', f); }
    for (size_t i = 0; i < c.n; i++)
        for (size_t k = 0; k < c.prompts[i].n; k++) {
            CacheSample x = c.prompts[i].samples[k];
            x.reward = scale * x.reward + offset;
            cache_write(f, c.prompts[i].prompt, &x);
        }
    fclose(f);
    cache_free(&c);
}

static void cache_goes_on(void) // cut anywhere, in the middle of a line too: no sample is lost, none repeated
{
    expect_success(CACHE "c1.jsonl");
    size_t n;
    char *c1 = tmp_path("c1.jsonl"), *c2 = tmp_path("c2.jsonl"), *s = read_file(c1, &n);
    const size_t cuts[] = {0, 30, 200, 1000, n - 1, n};
    for (size_t i = 0; i < COUNT(cuts); i++) {
        write_file(c2, s, cuts[i]);
        expect_success(CACHE "c2.jsonl");
        CHECK(same_files("c1.jsonl", "c2.jsonl"), "a cache cut after %zu bytes differs when it is finished", cuts[i]);
    }
    expect_failure("cache --model lm --reward rm --prompts prompts.jsonl --samples 9 --max-new 6 --seed 3 "
        "--out c2.jsonl", 1, "samples");
    Cache c;
    cache_read(&c, c1, 0);
    CHECK(c.n == 3 && c.prompts[2].n == 8, "what the cache holds");
    CHECK(cache_find(&c, "I") == 1 && cache_find(&c, "x") == -1, "what the cache finds");
    for (size_t k = 0; k < 8; k++) {
        const CacheSample *x = &c.prompts[1].samples[k];
        CHECK(x->draw == (long)k && x->key == order_key(x->ids, x->n_ids), "sample %zu: its draw and key", k);
        CHECK(x->reward == (double)(float)x->reward && x->has_logp && x->n_ids >= 1, "sample %zu", k);
    }
    cache_free(&c);
    arrfree(s);
    free(c1); free(c2);
}

static void other_cache_forms(void) // the authors' two
{
    Cache c;
    char *path = tmp_path("theirs.jsonl");
    static const char *const forms[] = {
        "{\"prompt\":\"a\",\"text\":\"x\",\"reward\":1.5}\n"
        "{\"prompt\":\"b\",\"text\":\"y\",\"reward\":-2}\n"
        "{\"prompt\":\"a\",\"text\":\"z\",\"reward\":0.25}\n",
        "{\"prompt\":\"a\",\"responses\":[\"x\",\"z\"],\"rewards\":[1.5,0.25]}\n"
        "{\"prompt\":\"b\",\"responses\":[\"y\"],\"rewards\":[-2]}\n"};
    for (size_t f = 0; f < COUNT(forms); f++) {
        write_text(path, forms[f]);
        cache_read(&c, path, 0);
        const CacheSample *x = c.prompts[0].samples;
        CHECK(c.n == 2 && c.prompts[0].n == 2, "form %zu: %zu prompts, %zu samples", f, c.n, c.prompts[0].n);
        CHECK(x[1].reward == 0.25 && !strcmp(x[0].text, "x") && !x[0].has_key, "form %zu: its samples", f);
        cache_free(&c);
    }
    free(path);
}

// What vbon compact writes, to the letter, and that all of it is read again
static void compact_form(void)
{
    const int ids[3][2] = {{7, 300}, {5, 1}, {7, 2}};
    char *line = xstrdup("");
    for (int k = 0; k < 3; k++) { // the draws in another order than they are numbered in
        char *more = format("%s{\"prompt\":\"\\u00e9\\\"\",\"text\":\"x\",\"reward\":%s,\"ids\":[%d,%d],"
            "\"logp\":-3.456789,\"draw\":%d,\"key\":\"%016llx\"}\n", line, k == 2 ? "-0.100000001" : "2.5",
            ids[k][0], ids[k][1], 2 - k, (unsigned long long)order_key(ids[k], 2));
        free(line);
        line = more;
    }
    put("plain.jsonl", line);
    unsigned long long key[3];
    for (int k = 0; k < 3; k++) key[k] = order_key(ids[2 - k], 2);
    int best = key[1] > key[2] ? 1 : 2; // of two equal rewards
    static const char *const flags[] = {"", "--draws 2", "--ns 3", "--ns 1,3 --draws 3"};
    for (int v = 0; v < 4; v++) {
        expect_success("compact --cache plain.jsonl %s --out kept%d.jsonl", flags[v], v);
        char *want = format("{\"prompt\":\"\u00e9\\\"\",\"rewards\":[-0.100000001,2.5,2.5],"
            "\"logps\":[-3.4568,-3.4568,-3.4568],\"keys\":[\"%016llx\",\"%016llx\",\"%016llx\"]", key[0], key[1],
            key[2]), *sep = ",\"ids\":{";
        for (int k = 0; k < 3; k++) {
            bool kept = v == 3 || (v == 1 && k < 2) || (v == 2 && (!k || k == best));
            char *more = kept ? format("%s%s\"%d\":[%d,%d]", want, sep, k, ids[2 - k][0], ids[2 - k][1])
                : xstrdup(want);
            if (kept) sep = ",";
            free(want);
            want = more;
        }
        size_t n;
        char *name = format("kept%d.jsonl", v), *path = tmp_path(name), *got = read_file(path, &n),
            *whole = format("%s%s\n", want, v ? "}}" : "}");
        CHECK(!strcmp(got, whole), "vbon compact %s: %s, want %s", flags[v], got, whole);
        Cache c;
        cache_read(&c, path, 0);
        const CacheSample *x = c.prompts[0].samples;
        CHECK(x[0].reward == (float)-0.1f && x[2].key == key[2] && x[1].logp == -3.4568, "%s: what is read", name);
        CHECK(!x[0].ids == !v && (!v || (x[0].n_ids == 2 && x[0].ids[1] == 2)), "%s: its ids", name);
        cache_free(&c);
        arrfree(got); free(whole); free(want); free(path); free(name);
    }
    expect_success("compact --cache kept3.jsonl --draws 2 --out again.jsonl"); // of what was compacted, less
    CHECK(same_files("again.jsonl", "kept1.jsonl"), "a cache compacted twice");
    free(line);
}

static void compact_refuses(void)
{
    #define BARE_KEYS(ids) \
        "{\"prompt\":\"a\",\"rewards\":[1,2],\"keys\":[\"0000000000000001\",\"0000000000000002\"]," ids "}\n"
    static const struct { const char *line, *flags, *says; } cases[] = {
        {BARE_KEYS("\"ids\":[[1],[2]]"), "", "edited.jsonl:1: \"ids\" must be an object"},
        {BARE_KEYS("\"ids\":{\"2\":[1]}"), "", "\"ids\" has \"2\", must be by number of draw, from 0 to 1"},
        {BARE_KEYS("\"ids\":{\"x\":[1]}"), "", "edited.jsonl:1: \"ids\" has \"x\", must be by number of draw"},
        {BARE_KEYS("\"ids\":{\"1\":7}"), "", "edited.jsonl:1: \"1\" must be an array"},
        {BARE_KEYS("\"ids\":{\"1\":[7,-1]}"), "", "edited.jsonl:1: \"1\"[1] is -1, must be a whole number from 0"},
        {BARE_KEYS("\"ids\":{\"1\":[7]}"), "", "edited.jsonl:1: \"ids\" of draw 1 are not those of its key"},
        {BARE_KEYS("\"x\":0"), "--draws 1", "edited.jsonl:1: draw 0 of prompt \"a\" has no ids to keep"},
        {BARE_KEYS("\"x\":0"), "--ns 2", "has no ids to keep"},
        {BARE_KEYS("\"x\":0"), "--draws 3", "prompt \"a\" has 2 samples, --draws asks for 3"},
        {BARE_KEYS("\"x\":0"), "--draws 1 --ns 2,4", "prompt \"a\" has 2 samples, --ns asks for 4"},
        {"{\"prompt\":\"a\",\"text\":\"x\",\"reward\":1}\n", "", "has neither ids nor an order key"},
        {"{\"prompt\":\"a\",\"ids\":[3],\"reward\":1,\"F\":0.5}\n", "", "has \"F\", which no compact cache can hold"},
        {"{\"prompt\":\"a\",\"ids\":[3],\"reward\":1,\"key\":\"0000000000000001\"}\n", "",
            "its key is not that of its ids"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        put("edited.jsonl", cases[i].line);
        char *args = format("compact --cache edited.jsonl --out no.jsonl %s", cases[i].flags);
        expect_failure(args, 1, cases[i].says);
        free(args);
        CHECK(access(tmp_path("no.jsonl"), F_OK), "a cache that is not compacted leaves a file behind");
    }
    const int id = 7;
    char *twice = format("{\"prompt\":\"a\",\"rewards\":[1],\"keys\":[\"%016llx\"],\"ids\":{\"0\":[7],\"00\":[7]}}",
        (unsigned long long)order_key(&id, 1));
    put("edited.jsonl", twice);
    free(twice);
    expect_failure("compact --cache edited.jsonl --out no.jsonl", 1, "edited.jsonl:1: \"ids\" has draw 0 twice");
    put("edited.jsonl", BARE_KEYS("\"x\":0"));
    expect_failure("compact --cache edited.jsonl --out edited.jsonl", 1, "is the file of --cache");
    expect_failure("compact --cache edited.jsonl --out no.jsonl --ns 4,x", 2, "--ns 4,x: numbers from 1 to 1e9");
    expect_failure("compact --cache edited.jsonl", 2, "--out is required");
    expect_failure("offline --model lm --loss bon-sft --n 2 --steps 1 --cache edited.jsonl --out no", 1,
        "edited.jsonl:1: draw 1 of prompt \"a\" has neither ids nor text: vbon compact keeps its ids");
}

static void score_adds_up(void) // a response's log-probability is the sum over its tokens; other fields stay
{
    put("in.jsonl", "{\"prompt\":\"This film\",\"response\":\" is good.\",\"id\":7}\n{\"text\":\"A film\"}\n");
    expect_success("score --model lm --reward rm --in in.jsonl --out scored.jsonl");
    Jsonl j;
    json_t *r;
    jsonl_open(&j, tmp_path("scored.jsonl"));
    for (int line = 0; jsonl_next(&j, &r); line++) {
        double sum = 0;
        json_t *lps = json_object_get(r, "logps"), *tokens = json_object_get(r, "tokens");
        for (size_t k = 0; k < json_array_size(lps); k++) sum += at(lps, k);
        CHECK_NEAR(num(r, "logp"), sum, 1e-6, "logp");
        CHECK(json_array_size(lps) + (line == 1) == json_array_size(tokens), "scored line %d: its tokens", line);
        CHECK(json_is_real(json_object_get(r, "reward")), "scored line %d: its reward", line);
        if (!line) CHECK(num(r, "id") == 7, "other fields stay");
        json_decref(r);
    }
    jsonl_close(&j);
}

static void supervised_learns(void) // a reward model from pairs and from labels, a language model from responses
{
    char *pairs = tmp_path("pairs.jsonl"), *labels = tmp_path("labels.jsonl"), *chat = tmp_path("chat.jsonl");
    FILE *fp = fopen(pairs, "w"), *fl = fopen(labels, "w"), *fc = fopen(chat, "w");
    for (int i = 0; i < 64; i++) {
        const char *word = i % 2 ? "good" : "bad", *other = i % 2 ? "nice" : "dull";
        fprintf(fp, "{\"prompt\":\"Film %d\",\"chosen\":\" is good\",\"rejected\":\" is bad\"}\n", i);
        fprintf(fl, "{\"text\":\"Film %d is %s, so %s\",\"label\":%d}\n", i, word, other, i % 2);
        fprintf(fc, "{\"prompt\":\"Film %d\",\"response\":\" is good\"}\n", i);
    }
    fclose(fp); fclose(fl); fclose(fc);
    free(pairs); free(labels); free(chat);
    static const struct { const char *args, *out, *key; double least, most; } cases[] = {
        {"reward --tokenizer lm --layers 1 --width 16 --heads 2 --context 24 --data pairs.jsonl --held-out pairs.jsonl "
         "--lr 1e-2 --steps 30 --batch 16", "pair_rm", "held_out/pair_accuracy", 0.95, 1},
        {"reward --tokenizer lm --layers 1 --width 16 --heads 2 --context 24 --data pairs.jsonl --held-out pairs.jsonl "
         "--every-position --lr 1e-2 --steps 30 --batch 16", "prefix_rm", "held_out/pair_accuracy", 0.95, 1},
        {"reward --init lm --layers 2 --context 24 --from-position 4 --data labels.jsonl --held-out labels.jsonl "
         "--lr 1e-2 --steps 60 --batch 16", "label_rm", "held_out/accuracy_whole", 0.95, 1},
        {"sft --model lm --data chat.jsonl --held-out chat.jsonl --lr 1e-2 --steps 100 --batch 16", "chat_lm",
         "held_out/nats_per_token", 0, 1}};
    for (size_t k = 0; k < COUNT(cases); k++) {
        expect_success("%s --out %s", cases[k].args, cases[k].out);
        char *log = format("%s/log.jsonl", cases[k].out);
        double last = last_metric(log, cases[k].key);
        CHECK(last >= cases[k].least && last <= cases[k].most, "%s: %s is %g", cases[k].out, cases[k].key, last);
        free(log);
    }
}

// Of a pool: two Best-of-4 a prompt among the 8 cached draws, chosen by the cache's rewards (worked out here) and
// judged by another reward: the number of ids.
static bool worse_draw(const CacheSample *a, const CacheSample *b)
{
    return a->reward < b->reward || (a->reward == b->reward && a->key < b->key);
}
static void eval_of_a_pool(void)
{
    #define LENGTH "--reward 'while read -r l; do echo ${#l}; done' "
    expect_success("cache --model lm " LENGTH "--prompts prompts.jsonl --samples 8 --max-new 6 --seed 3 "
        "--out lengths.jsonl");
    expect_success("eval --method bon --n 4 --reference lm " LENGTH "--pool c1.jsonl --cache lengths.jsonl --samples 2 "
        "--max-new 6 --out eval_pool.json");
    Cache pool, judge;
    double judged = 0, wins = 0;
    cache_read(&pool, tmp_path("c1.jsonl"), 0); cache_read(&judge, tmp_path("lengths.jsonl"), 0);
    for (size_t i = 0; i < 6; i++) {
        const CacheSample *x = pool.prompts[i / 2].samples, *y = judge.prompts[i / 2].samples;
        size_t first = i % 2 * 4, best = first;
        for (size_t k = first; k < first + 4; k++) if (worse_draw(&x[best], &x[k])) best = k;
        judged += y[best].reward / 6;
        size_t others = 0, won = 0; // a draw is not compared with itself
        for (size_t k = 0; k < 8; k++) { others += y[k].key != y[best].key; won += worse_draw(&y[k], &y[best]); }
        wins += (double)won / (double)others / 6;
    }
    json_t *said = json_file(tmp_path("eval_pool.json"));
    CHECK_NEAR(at(json_object_get(said, "reward"), 0), judged, 1e-6, "what the pool's choice is worth to its judge");
    CHECK_NEAR(at(json_object_get(said, "win_rate"), 0), wins, 1e-6, "and how often it wins");
    CHECK(!json_object_get(said, "time/tokens_per_second"), "nothing was drawn");
    double of_cache = 0; // by all 70 ways to take four of eight
    for (size_t i = 0; i < 3; i++)
        for (int four = 0; four < 256; four++) {
            double best = -INFINITY;
            if (__builtin_popcount((unsigned)four) != 4) continue;
            for (int k = 0; k < 8; k++) if (four >> k & 1) best = fmax(best, judge.prompts[i].samples[k].reward);
            of_cache += best / 210;
        }
    CHECK_NEAR(at(json_object_get(said, "reward_by_cache"), 0), of_cache, 1e-6,
        "Best-of-4's mean reward by the cache");
    cache_free(&pool); cache_free(&judge);
    json_decref(said);
}

// bon --all: every candidate, the best of them as without it; sample and bon say where a reward stands in the cache
static void draws_are_placed(void)
{
    #define DRAWN "--model lm --reward rm --prompts prompts.jsonl --max-new 6 "
    expect_success("bon " DRAWN "--n 5 --all --cache c1.jsonl --out bon_all.jsonl");
    CHECK(count_lines("bon_all.jsonl") == 15, "bon --all wrote %zu lines", count_lines("bon_all.jsonl"));
    Cache c;
    cache_read(&c, tmp_path("c1.jsonl"), 0);
    for (size_t i = 0; i < 15; i++) {
        json_t *j = get_line("bon_all.jsonl", i), *alone = get_line("bon.jsonl", i / 5);
        double k = 0, reward = num(j, "reward"), most = num(alone, "reward");
        bool best = json_is_true(json_object_get(j, "best"));
        for (size_t s = 0; s < 8; s++) k += c.prompts[i / 5].samples[s].reward < reward;
        CHECK(num(j, "k") == k && num(j, "M") == 8, "bon --all: candidate %zu stands at %g of %g, want %g", i,
            num(j, "k"), num(j, "M"), k);
        CHECK(reward <= most && best == json_equal(json_object_get(j, "ids"), json_object_get(alone, "ids")),
            "bon --all: candidate %zu is marked wrongly", i);
        json_decref(j); json_decref(alone);
    }
    cache_free(&c);
    expect_success("sample " DRAWN "--samples 2 --cache c1.jsonl --out sample_placed.jsonl");
    expect_success("score --model lm --reward rm --in sample_placed.jsonl --out sample_scored.jsonl");
    json_t *j = get_line("sample_placed.jsonl", 5), *scored = get_line("sample_scored.jsonl", 5);
    CHECK_NEAR(num(j, "reward"), num(scored, "reward"), 1e-6, "the reward that sample shows");
    CHECK(num(j, "M") == 8 && num(j, "k") >= 0 && num(j, "k") <= 8, "sample says no place");
    json_decref(j); json_decref(scored);
    // without --out nothing but lines stands on the standard output
    char *command = format("'%s' sample --model lm --reward rm --cache c1.jsonl --max-new 6 --samples 2 2>placed.err "
        "| tee placed.out | wc -l | grep -qx 6; ! grep -v '^{.*}$' placed.out; grep -q 'scored again' placed.err",
        vbon());
    shell(command);
    free(command);
    expect_failure("sample --model lm --cache c1.jsonl --max-new 6", 2, "--cache");
    expect_failure("sample " DRAWN "--max-new 7 --cache c1.jsonl", 1, "--max-new 6, not 7");
}

static void eval_warns_of_few_samples(void)
{
    static const Refused cases[] = {
        {"--model chat_lm --ns 4,512", 0, "warning: N = 512 is larger than M = "},
        {"--method bon --n 12", 0, "warning: N = 12 is larger than M = "}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *file = tmp_path("few.txt"), *cmd = format("cd %s && '%s' eval --reference lm --reward rm "
            "--cache c1.jsonl --samples 1 --max-new 6 %s >%s", test_folder, vbon(), cases[i].args, file);
        size_t n;
        CHECK(system(cmd) == 0, "%s", cmd);
        char *said = read_file(file, &n), *first = strstr(said, cases[i].says);
        CHECK(first && !strstr(first + 1, "warning"), "%s: one line with \"%s\"", cmd, cases[i].says);
        arrfree(said); free(file); free(cmd);
    }
}

static void test_data(void)
{
    tiny_folders();
    cache_goes_on();
    other_cache_forms();
    compact_form();
    compact_refuses();
    score_adds_up();
    expect_success("bon --model lm --reward rm --prompts prompts.jsonl --n 5 --max-new 6 --out bon.jsonl");
    expect_success("sample --model lm --prompts prompts.jsonl --samples 2 --top-k 5 --top-p 0.9 --max-new 6 "
        "--out sample.jsonl");
    draws_are_placed();
    supervised_learns();
    expect_success("eval --model chat_lm --reference lm --reward rm --cache c1.jsonl --samples 3 --max-new 6 "
        "--out eval.json");
    expect_success("eval --method bon --n 4 --reference lm --reward rm --cache c1.jsonl --samples 3 --max-new 6 "
        "--out eval_bon.json");
    eval_of_a_pool();
    eval_warns_of_few_samples();
    expect_success("info --model lm --memory 1GB");
    // a program as the reward
    expect_success("cache --model lm --reward 'while IFS= read -r l; do echo ${#l}; done' --prompts prompts.jsonl "
        "--samples 4 --max-new 6 --out c3.jsonl");
    Cache c;
    cache_read(&c, tmp_path("c3.jsonl"), 2);
    CHECK(c.prompts[0].n == 2 && c.prompts[0].samples[0].reward > 10, "rewards from a program");
    cache_free(&c);
}

static void lines_are_answered(void) // sample and bon: in order, each its own prompt
{
    put("lines.jsonl",
        "\xef\xbb\xbf{\"prompt\":\"This film\"}\n{\"prompt\":\"I\",\"id\":123456789012345678901234567890}\n\n"
        "{\"prompt\":\"This film\"}\n{\"prompt\":\"I\"}\r\n{\"prompt\":\"The acting\"}");
    static const char *const prompts[] = {"This film", "I", "This film", "I", "The acting"};
    expect_success(
        "sample --model lm --prompts lines.jsonl --max-new 4 --samples 2 --decode-rows 3 --out lines_sample.jsonl");
    expect_success(
        "bon --model lm --reward rm --prompts lines.jsonl --max-new 4 --n 3 --decode-rows 3 --out lines_bon.jsonl");
    CHECK(count_lines("lines_sample.jsonl") == 10 && count_lines("lines_bon.jsonl") == 5, "5 lines in, %zu and %zu out",
        count_lines("lines_sample.jsonl"), count_lines("lines_bon.jsonl"));
    for (size_t i = 0; i < 10; i++) {
        json_t *s = get_line("lines_sample.jsonl", i), *b = get_line("lines_bon.jsonl", i / 2);
        json_t *want = json_string(prompts[i / 2]);
        CHECK(json_equal(json_object_get(s, "prompt"), want) && json_equal(json_object_get(b, "prompt"), want),
            "line %zu answers another prompt", i);
        json_decref(want);
        json_decref(s); json_decref(b);
    }
}

static void cache_has_a_prompt_once(void) // a cache has each prompt once, and says so
{
    char *said = format("cd %s && '%s' cache --model lm --reward rm --prompts lines.jsonl --max-new 4 --samples 2 "
                        "--out lines_cache.jsonl 2>/dev/null | grep -q 'lines.jsonl: 2 lines repeat a prompt'",
        test_folder, vbon());
    CHECK(!system(said) && count_lines("lines_cache.jsonl") == 6,
        "a prompt that stands there twice is cached once, and said");
    free(said);
}

// Score: more lines than one block has, and each line's other fields to the last digit
static void score_keeps_fields(void)
{
    FILE *f = fopen(tmp_path("many.jsonl"), "w");
    for (int i = 0; i < 300; i++)
        fprintf(f, "{\"text\":\"A film %d\", \"id\": 1234567890123456789012345%d,\"x\":0.1}\n", i % 7, i);
    fclose(f);
    expect_success("score --model lm --reward rm --in many.jsonl --out many_scored.jsonl");
    CHECK(count_lines("many_scored.jsonl") == 300, "300 lines in, %zu out", count_lines("many_scored.jsonl"));
    size_t n;
    char *all = read_file(tmp_path("many_scored.jsonl"), &n);
    for (int i = 0; i < 300; i++) {
        char id[64];
        snprintf(id, sizeof id, " \"id\": 1234567890123456789012345%d,\"x\":0.1,\"tokens\":[", i);
        CHECK(all && strstr(all, id), "line %d is not kept as it was", i);
    }
    arrfree(all);
    expect_failure("score --model lm --in many_scored.jsonl --out again.jsonl", 1,
        "many_scored.jsonl:1: was scored before");
}

static void score_of_a_cache(void) // a cache's lines: the reward and log-probability that were cached
{
    expect_success(CACHE "lines_c.jsonl");
    expect_success("score --model lm --reward rm --in lines_c.jsonl --out lines_cs.jsonl");
    CHECK(count_lines("lines_cs.jsonl") == 24, "24 samples in, %zu out", count_lines("lines_cs.jsonl"));
    for (size_t i = 0; i < 24; i++) {
        json_t *c = get_line("lines_c.jsonl", i + 1), *s = get_line("lines_cs.jsonl", i);
        CHECK_NEAR(num(s, "reward"), num(c, "reward"), 1e-5, "a cached reward, scored again");
        CHECK_NEAR(num(s, "logp"), num(c, "logp"), 1e-4, "a cached log-probability, scored again");
        CHECK(json_equal(json_object_get(c, "ids"), json_object_get(s, "tokens")) &&
                json_equal(json_object_get(c, "key"), json_object_get(s, "key")),
            "line %zu is scored by other tokens than were sampled", i);
        json_decref(c); json_decref(s);
    }
}

static void score_of_ends(void) // an empty response is one whose end was sampled at once
{
    put("ended.jsonl",
        "{\"prompt\":\"I\",\"response\":\"\",\"ids\":[1999],\"logp\":-7.5,\"finished\":true}\n"
        "{\"prompt\":\"I\",\"response\":\"<|endoftext|>\",\"ids\":[1999]}\n"
        "{\"prompt\":\"I\",\"response\":\"\",\"finished\":true}\n"
        "{\"prompt\":\"I\",\"text\":\" like\",\"finished\":true}\n");
    expect_success("score --model lm --reward rm --in ended.jsonl --out ended_s.jsonl");
    for (size_t i = 0; i < 4; i++) {
        json_t *s = get_line("ended_s.jsonl", i), *first = get_line("ended_s.jsonl", 0),
               *ids = json_object_get(s, "tokens");
        CHECK(json_array_size(ids) == (i < 3 ? 1 : 2) && at(ids, json_array_size(ids) - 1) == 1999 &&
                (i == 3 || num(s, "reward") == num(first, "reward")),
            "line %zu of responses that ended", i);
        json_decref(s); json_decref(first);
    }
}

static void score_nothing(const char *folder) // neither a prompt nor a response, beside one that has both
{
    Tokenizer *t = tokenizer_load(folder);
    Reward r;
    int ids[] = {5};
    Prompt p[] = {{.where = "texts.jsonl:1"}, {.ids = ids, .n = 1}};
    Response y[] = {{.prompt = 0}, {.prompt = 1, .ids = ids, .n = 1}};
    reward_open(&r, folder, t, ops_cpu(), 64, 1);
    reward_assign(&r, p, y, 2, false);
}

static void score_refuses(void) // by line
{
    static const struct { const char *line, *says; } bad[] = {
        {"{\"prompt\":\"I\",\"text\":\"a\",\"response\":\"b\"}", "has \"text\" and \"response\""},
        {"{\"response\":\"b\"}", "has \"response\" and no \"prompt\""},
        {"{\"prompt\":\"b\"}", "\"text\" is missing"},
        {"{\"texts\":\"b\"}", "\"text\" is missing"},
        {"{\"prompt\":\"I\",\"responses\":[\"a\"],\"rewards\":[1]}", "a cache of a prompt a line"},
        {"{\"text\":7}", "\"text\" is missing or no string"},
        {"{\"prompt\":7,\"text\":\"a\"}", "\"prompt\" is missing or no string"},
        {"{\"prompt\":\"I\",\"response\":\"\"}", "no text to score"},
        {"{\"text\":\"\"}", "no text to score"},
        {"{\"prompt\":\"I\",\"text\":\"a\",\"ids\":[5,6]}", "\"ids\" are not this tokenizer's for the text"},
        {"{\"prompt\":\"I\",\"text\":\"a\",\"ids\":[2000]}", "\"ids\" holds 2000"},
        {"{\"prompt\":\"I\",\"text\":\"a\",\"ids\":[-1]}", "\"ids\"[0] is -1"},
        {"{\"prompt\":\"I\",\"text\":\"a\",\"finished\":\"yes\"}", "\"finished\" is \"yes\""},
        {"{\"text\":\"a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a\"}",
         "the model's own context is 24"}};
    for (size_t i = 0; i < COUNT(bad); i++) {
        char *two = format("{\"text\":\"fine\"}\n%s\n", bad[i].line), *err;
        put("bad_line.jsonl", two);
        CHECK(run_vbon("score --model lm --in bad_line.jsonl --out bad_scored.jsonl", &err) == 1 &&
                strstr(err, "bad_line.jsonl:2: ") && strstr(err, bad[i].says),
            "%s: %s", bad[i].line, err);
        free(two);
    }
    CHECK(access(tmp_path("bad_scored.jsonl"), F_OK), "a file that was refused was written");
    expect_death(score_nothing, tmp_path("rm"), 1, "texts.jsonl:1: a text without a token has no reward");
}

static void too_long_for_the_context(void) // of the model, or of --context, which is another
{
    put("long.jsonl", "{\"prompt\":\"I\"}\n{\"prompt\":\"a a a a a a a a a a a a a a a a a a a a a a\"}\n");
    expect_failure("sample --model lm --prompts long.jsonl --max-new 8 --out long_s.jsonl", 1,
        "long.jsonl:2: the prompt has 22 tokens; with --max-new 8 the model's own context of 24 is too short");
    put("long_pairs.jsonl",
        "{\"prompt\":\"a a a a a a a a a a a a a a a a\",\"chosen\":\" a a a a a a a a a a\",\"rejected\":\" b\"}\n");
    expect_failure("reward --init lm --layers 1 --data long_pairs.jsonl --out long_rm", 1,
        "the model's own context is 24: shorten the text");
    expect_failure("reward --init lm --layers 1 --context 16 --data long_pairs.jsonl --out long_rm", 1,
        "--context is 16: shorten the text or raise --context");
    expect_failure("reward --tokenizer lm --layers 1 --width 16 --heads 2 --context 24 --data long_pairs.jsonl "
        "--out long_rm", 1, "--context is 24: shorten the text or raise --context");
}

static void test_lines(void) // commands that map lines answer each one, in order
{
    tiny_folders();
    lines_are_answered();
    cache_has_a_prompt_once();
    score_keeps_fields();
    score_of_a_cache();
    score_of_ends();
    score_refuses();
    too_long_for_the_context();
}

// Of sft, reward and offline: it trains, and each of its items weighs what it would in a batch of its own size
static void test_last_batch(void)
{
    tiny_folders();
    put("last.jsonl",
        "{\"text\":\"a film about a man\",\"label\":1}\n{\"text\":\"another one\",\"label\":0}\n"
        "{\"text\":\"the third of them is good\",\"label\":1}\n");
    put("last_pairs.jsonl",
        "{\"prompt\":\"a\",\"chosen\":\" film\",\"rejected\":\" man\"}\n"
        "{\"prompt\":\"I\",\"chosen\":\" like it\",\"rejected\":\" do not\"}\n"
        "{\"prompt\":\"The\",\"chosen\":\" end\",\"rejected\":\" beginning of it\"}\n");
    static const char *const runs[] = {"sft --model lm --data last.jsonl",
        "reward --init lm --layers 2 --from-position 1 --data last.jsonl",
        "reward --init lm --layers 2 --data last_pairs.jsonl",
        "offline --model lm --data last_pairs.jsonl --loss dpo --beta 0.5"};
    // at a rate of 0 nothing moves: the third item's gradient and loss, by itself and as the rest of a batch of two
    for (int k = 0; k < 4; k++) {
        json_t *want[2];
        for (int batch = 1; batch <= 3; batch++) {
            char *dir = format("last%d_%d", k, batch), *log = format("%s/log.jsonl", dir),
                 *args = format("%s --lr 0 --weight-decay 0 --batch %d%s --out %s", runs[k], batch < 3 ? batch : 2,
                     batch == 3 ? " --drop-last" : "", dir);
            expect_success("%s", args);
            size_t steps = count_lines(log) - 1; // and the config record
            CHECK(steps == (batch == 1 ? 3 : batch == 2 ? 2 : 1), "%s: %zu steps", args, steps);
            if (batch < 3) want[batch - 1] = get_line(log, steps);
            free(dir); free(log); free(args);
        }
        CHECK_NEAR(num(want[1], "loss"), num(want[0], "loss"), 1e-6, runs[k]);
        CHECK(fabs(num(want[1], "grad_norm") / num(want[0], "grad_norm") - 1) < 1e-4 &&
                num(want[0], "grad_norm") > 1e-3,
            "%s: the last batch's gradient is %g, the item's %g", runs[k], num(want[1], "grad_norm"),
            num(want[0], "grad_norm"));
        json_decref(want[0]); json_decref(want[1]);
    }
    char *said = format("cd %s && '%s' sft --model lm --data last.jsonl --batch 2 --drop-last "
                        "--out last_said 2>/dev/null | grep -q '2 of 3 rows are seen in 1 optimiser steps'",
        test_folder, vbon());
    CHECK(!system(said), "what is left out is said");
    free(said);
    expect_failure("sft --model lm --data last.jsonl --epochs 0.5 --batch 3 --drop-last --out last_none", 2,
        "no batch of 3 is whole");
    expect_failure("sft --model lm --data last.jsonl --epochs 1e9 --batch 1 --out last_none", 2,
        "optimiser steps of 1: at most 1e9");
}

static void test_pairs(void) // every command reads what every other writes, or refuses it by file and line
{
    tiny_folders();
    expect_success("sample --model lm --prompts prompts.jsonl --samples 2 --max-new 4 --out by_sample.jsonl");
    expect_success("bon --model lm --reward rm --prompts prompts.jsonl --n 2 --max-new 4 --out by_bon.jsonl");
    expect_success("cache --model lm --reward rm --prompts prompts.jsonl --samples 4 --max-new 4 --out by_cache.jsonl");
    expect_success("score --model lm --reward rm --in by_sample.jsonl --out by_score_sample.jsonl");
    expect_success("score --model lm --reward rm --in by_bon.jsonl --out by_score_bon.jsonl");
    expect_success("score --model lm --reward rm --in by_cache.jsonl --out by_score_cache.jsonl");
    expect_success("eval --model lm --reference lm --reward rm --cache by_cache.jsonl --max-new 4 --out by_eval.json");
    expect_success("sft --model lm --data by_sample.jsonl --steps 1 --out by_sft");
    expect_success("train --model lm --reward rm --cache by_cache.jsonl --n 2 --max-new 4 --episodes 4 --rollout 4 "
                   "--minibatch 4 --out by_train");
    static const struct { const char *name; size_t lines; bool texts, cache; } written[] = {
        {"by_sample.jsonl", 6, true, false},
        {"by_bon.jsonl", 3, true, false},
        {"by_cache.jsonl", 12, true, true},
        {"by_score_sample.jsonl", 6, true, false},
        {"by_score_bon.jsonl", 3, true, false},
        {"by_score_cache.jsonl", 12, true, true},
        {"by_eval.json", 1, false, false},
        {"by_train/log.jsonl", 2, false, false}};
    enum { LINES, TEXTS, SAMPLES, NEVER };
    static const struct { const char *args; int needs; size_t each; } readers[] = {
        {"sample --model lm --max-new 2 --samples 2 --out pairs.out --prompts %s", LINES, 2},
        {"bon --model lm --reward rm --max-new 2 --n 2 --out pairs.out --prompts %s", LINES, 1},
        {"score --model lm --reward rm --out pairs.out --in %s", LINES, 1},
        {"cache --model lm --reward rm --max-new 2 --samples 2 --out pairs.out --prompts %s", TEXTS, 0},
        {"sft --model lm --steps 1 --out pairs.out --data %s", TEXTS, 0},
        {"train --model lm --reward rm --n 2 --max-new 4 --episodes 4 --rollout 4 --minibatch 4 "
         "--out pairs.out --cache %s", SAMPLES, 0},
        {"offline --model lm --loss dpo --beta 1 --draws 2 --steps 1 --out pairs.out --cache %s", SAMPLES, 0},
        {"eval --model lm --reference lm --reward rm --max-new 4 --out pairs.out --cache %s", SAMPLES, 0},
        {"eval --method bon --n 2 --reference lm --reward rm --max-new 4 --out pairs.out "
         "--cache by_cache.jsonl --pool %s", SAMPLES, 0},
        {"ks --ms 2 --out pairs.out --cache %s", SAMPLES, 0},
        {"reward --init lm --layers 1 --out pairs.out --data %s", NEVER, 0},
        {"offline --model lm --loss dpo --beta 1 --out pairs.out --data %s", NEVER, 0}};
    char *out = tmp_path("pairs.out"), *clean = format("rm -rf %s", out);
    for (size_t r = 0; r < COUNT(readers); r++)
        for (size_t w = 0; w < COUNT(written); w++) {
            char *args = format(readers[r].args, written[w].name), *err, *where = format("%s:", written[w].name);
            bool works = readers[r].needs == SAMPLES ? written[w].cache : readers[r].needs != NEVER && written[w].texts;
            int code = run_vbon(args, &err);
            CHECK(works ? code == 0 : code == 1 && strstr(err, where), "vbon %s: exit %d: %s", args, code, err);
            if (works && readers[r].needs == LINES)
                CHECK(count_lines("pairs.out") == written[w].lines * readers[r].each, "vbon %s: %zu lines from %zu",
                    args, count_lines("pairs.out"), written[w].lines);
            if (!works) CHECK(access(out, F_OK), "vbon %s: refused, and written", args);
            if (system(clean)) {}
            free(args); free(where);
        }
    static const char *const models[] = {"by_sft", "by_train"};
    for (size_t i = 0; i < COUNT(models); i++) expect_success("sample --model %s --prompt a --max-new 2", models[i]);
}

static void test_not_finite(void) // what is no number is named, with its likeliest cause, and nothing is written
{
    tiny_folders();
    for (int scalar = 0; scalar < 2; scalar++) { // finite weights whose products are not
        Model m;
        char *from = tmp_path(scalar ? "rm" : "lm"), *to = tmp_path(scalar ? "huge_rm" : "huge_lm");
        model_load(&m, ops_cpu(), from, TRAIN_NONE, false);
        for (size_t i = 0; i < m.n_list; i++)
            for (size_t k = 0; k < m.list[i].n; k++)
                if (!strcmp(m.list[i].name, "ln_f.weight")) R_(m.data)[m.list[i].offset + k] = (real)2e38;
                else if (!strcmp(m.list[i].name, "wte.weight") || !strcmp(m.list[i].name, "score.weight"))
                    R_(m.data)[m.list[i].offset + k] *= (real)1e4;
        model_save(&m, to, DT_F32, "dev/demo/tokenizer", 0);
        model_free(&m); free(from); free(to);
    }
    expect_success("cache --model lm --reward rm --prompts prompts.jsonl --samples 4 --max-new 4 --out finite.jsonl");
    size_t n;
    char *cache = read_file(tmp_path("finite.jsonl"), &n);
    put("headless.jsonl", strchr(cache, '\n') + 1);
    put("huge_reward.jsonl", "{\"prompt\":\"I\",\"text\":\"a\",\"reward\":1e39}\n");
    put("finite_text.jsonl", "{\"text\":\"This film\"}\n");
    static const Refused cases[] = {
        {"score --model lm --in finite_text.jsonl --temperature 1e-38 --out no.jsonl", 2,
         "--temperature 1e-38: must be at least 0.0001"},
        {"sample --model lm --prompt a --temperature 1e-38 --out no.jsonl", 2, "--temperature 1e-38: must be at least"},
        {"score --model lm --reward 'while read x; do echo 1e30; done' --reward-scale 1e9 "
         "--in finite_text.jsonl --out no.jsonl", 1,
         "by --reward-scale 1e+09 and --reward-offset 0, is no number that a float holds"},
        {"cache --model lm --reward 'while read x; do echo 1e30; done' --reward-scale 1e9 "
         "--prompts prompts.jsonl --max-new 4 --samples 2 --out no_cache.jsonl", 1, "--reward-scale 1e+09"},
        {"bon --model lm --reward rm --reward-offset 1e39 --prompts prompts.jsonl --n 2 --max-new 4 --out no.jsonl", 2,
         "--reward-offset 1e39: must be"},
        {"bon --model lm --reward rm --missing-eos 1e39 --prompts prompts.jsonl --n 2 --max-new 4 --out no.jsonl", 2,
         "--missing-eos"},
        {"offline --model lm --cache huge_reward.jsonl --loss bon-sft --n 1 --out no", 1,
         "huge_reward.jsonl:1: \"reward\" is 1"},
        {"score --model huge_lm --in finite_text.jsonl --out no.jsonl", 1,
         "finite_text.jsonl:1: the log-probability of a token is"},
        {"sample --model huge_lm --prompts prompts.jsonl --max-new 4 --out no.jsonl", 1, "has training diverged?"},
        {"sample --model huge_lm --prompts prompts.jsonl --max-new 4 --out no.jsonl", 1,
         "prompts.jsonl:1: after 0 tokens"},
        {"bon --model lm --reward huge_rm --prompts prompts.jsonl --n 2 --max-new 4 --out no.jsonl", 1,
         "prompts.jsonl:1: the reward model's score is not finite"},
        {"eval --model huge_lm --reference lm --reward rm --cache headless.jsonl --max-new 4 --out no.jsonl", 1,
         "has training diverged?"},
        {"eval --method bon --n 2 --reference lm --reward huge_rm --cache headless.jsonl --max-new 4 --out no.jsonl", 1,
         "reward model's score is not finite"},
        {"eval --model lm --reference huge_lm --reward rm --cache headless.jsonl --max-new 4 --out no.jsonl", 1,
         "a log-probability by the reference is"},
        {"offline --model huge_lm --cache headless.jsonl --loss bonbon --n 2 --out no", 1,
         "before training, a token's log-probability is"},
        {"sft --model huge_lm --data finite_text.jsonl --out no", 1,
         "at optimiser step 1: the model's weights are too large"},
        {"train --model huge_lm --reward rm --cache headless.jsonl --max-new 4 --n 2 --episodes 8 --rollout 8 "
         "--minibatch 8 --out no", 1, "has training diverged?"},
        {"bon --model lm --reward 'while read x; do echo 0x8; done' --prompt a --n 2 --max-new 4 --out no.jsonl", 1,
         "\"0x8\", is no finite number"},
        {"bon --model lm --reward 'while read x; do printf \"5\\0garbage\\n\"; done' --prompt a --n 2 --max-new 4 "
         "--out no.jsonl", 1, "is no finite number"}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *err;
        int code = run_vbon(cases[i].args, &err);
        CHECK(code == cases[i].code && strstr(err, cases[i].says), "vbon %s: exit %d: %s", cases[i].args, code, err);
        CHECK(access(tmp_path("no.jsonl"), F_OK) && access(tmp_path("no/model.safetensors"), F_OK),
            "vbon %s: something was written", cases[i].args);
        unlink(tmp_path("no.jsonl"));
    }
    // training that runs away is named, and its model is not saved
    char *err;
    int code = run_vbon("sft --model lm --data finite_text.jsonl --lr 1000 --weight-decay 1000 --schedule constant "
        "--clip-grad 0 --steps 20 --save-every 1 --out no", &err);
    CHECK(code == 1 && strstr(err, "lower --lr"), "a rate of 1000: exit %d: %s", code, err);
    CHECK(access(tmp_path("no/model.safetensors"), F_OK), "a model that ran away was saved");
    // one prompt has no standard error: the table says so
    char line[400], *said = format("cd %s && '%s' eval --model lm --reference lm --reward rm --cache finite.jsonl "
        "--prompts-max 1 --max-new 4 --ns 2 --out one.json 2>&1", test_folder, vbon());
    FILE *f = popen(said, "r");
    bool words = false;
    while (fgets(line, sizeof line, f)) {
        CHECK(!strstr(line, "nan") && !strstr(line, " inf"), "a table's line: %s", line);
        words |= strstr(line, "(no error: one prompt)") != NULL;
    }
    CHECK(!pclose(f) && words, "an evaluation of one prompt");
    free(said); arrfree(cache);
}

static char *vbon_output(const char *args) // stdout, malloc'd; run in the folder of the sources
{
    char *o = tmp_path("out"), *cmd = format("'%s' %s >%s", vbon(), args, o);
    size_t n;
    CHECK(system(cmd) == 0, "vbon %s fails", args);
    char *s = read_file(o, &n);
    free(o); free(cmd);
    return s;
}

static void info_knows_every_pythia(void) // by its public shape and parameter count
{
    // every Pythia, by its public shape and parameter count
    static const struct { const char *name; size_t L, C, NH, F, V, n; } sizes[] = {
        {"14m", 6, 128, 4, 512, 50304, 14067712},
        {"70m", 6, 512, 8, 2048, 50304, 70426624},
        {"160m", 12, 768, 12, 3072, 50304, 162322944},
        {"410m", 24, 1024, 16, 4096, 50304, 405334016},
        {"1b", 16, 2048, 8, 8192, 50304, 1011781632},
        {"1.4b", 24, 2048, 16, 8192, 50304, 1414647808},
        {"2.8b", 32, 2560, 32, 10240, 50304, 2775208960},
        {"6.9b", 32, 4096, 32, 16384, 50432, 6857302016},
        {"12b", 36, 5120, 40, 20480, 50688, 11846072320}};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        Config c = {.arch = &architectures[ARCH_NEOX], .L = sizes[i].L, .C = sizes[i].C, .NH = sizes[i].NH,
            .F = sizes[i].F, .V = sizes[i].V, .max_T = 2048, .rotary_pct = 0.25, .rotary_base = 10000,
            .parallel = true};
        Model m;
        model_create(&m, ops_cpu(), &c, TRAIN_NONE, false, true);
        CHECK(m.n_params == sizes[i].n, "Pythia %s has %zu parameters, not %zu", sizes[i].name, sizes[i].n, m.n_params);
        model_free(&m);
    }
}

static void info_says(void) // of a plan from config.json alone: families, and the answer
{
    #define PLAN "info --max-prompt 512 --max-new 53 --train-layers 8 --rollout 128 --minibatch 32 " \
        "--model dev/fixtures/configs/pythia-"
    #define RM28 " --reward dev/fixtures/configs/pythia-2.8b-rm.json"
    static const struct { const char *args, *says[6]; } plans[] = {
        {PLAN "410m.json --memory 40GB",
         {"classifier of 3 labels", "405334016 parameters", "16 of 64 dimensions rotary",
          "in each of 24 blocks, of which the top 8 train", "fits in 40GB: yes"}},
        {PLAN "2.8b.json --memory 40GB", {"2775208960 parameters", "20 of 80", "fits in 40GB: no"}},
        {PLAN "6.9b.json --memory 400GB", {"6857302016 parameters", "32 of 128", "fits in 400GB: yes"}},
        {"info --model dev/demo/lm --reward dev/demo/rm --memory 1MiB",
         {"packed weights", "kv cache", "second moments", "copy of what trains", "fits in 1MiB: no",
          "other jobs with these flags: cache "}},
        // a device's plans in any build, on any machine: whole jobs, and what makes them fit
        {PLAN "2.8b.json --memory 40GB --device cuda",
         {"on cuda (bf16)", "scratch of operations", "master weights", "of the host's, not in the total",
          "fits in 40GB: no, ", "too much; with --decode-rows 64 it needs "}},
        {PLAN "2.8b.json --memory 40GB --device cuda --decode-rows 32", {"fits in 40GB: yes, "}},
        {"info --model dev/demo/rm --device cuda --memory 300MiB", {"CUDA's context", "fits in 300MiB: no"}},
        {PLAN "2.8b.json --memory 16GB --device cuda",
         {"too much; with --decode-rows 16 --micro-tokens 2048 --optimizer-state 8bit it needs "}},
        {PLAN "2.8b.json --memory 10GB --device cuda",
         {"too much; with --train-layers ", " --recompute --offload --optimizer-state 8bit it needs "}},
        // the paper's summaries on one card: the top 8 blocks on 30 GB, all on 38, and with exact states on 76
        {PLAN "2.8b.json --memory 30GB --device cuda" RM28 " --decode-rows 16 --recompute --offload",
         {"weights, over reference", "what --offload keeps", "fits in 30GB: yes, "}},
        {PLAN "2.8b.json --memory 38GB --device cuda" RM28 " --decode-rows 16 --recompute --offload --train-layers all "
         "--optimizer-state 8bit", {"scales of moments", "fits in 38GB: yes, "}},
        {PLAN "2.8b.json --memory 76GB --device cuda" RM28 " --decode-rows 32 --recompute --train-layers all",
         {"master weights", "fits in 76GB: yes, "}},
        // on two cards and on four, AdamW's states in parts; and told of parts where they are what is missing
        {PLAN "2.8b.json --memory 36GB --device cuda" RM28 " --ranks 2 --zero 1 --groups 2 --decode-rows 32 "
         "--recompute --offload --train-layers all --optimizer-state 8bit",
         {"second moments                 1329.6 MiB", "from another process", "fits in 36GB: yes, "}},
        {PLAN "2.8b.json --memory 31GB --device cuda" RM28 " --ranks 2 --groups 2 --decode-rows 4 --micro-tokens 565 "
         "--recompute --offload --train-layers all --optimizer-state 8bit",
         {"fits in 31GB: no, ", "; with --zero 1 it needs "}},
        {PLAN "2.8b.json --memory 40GB --device cuda" RM28 " --ranks 4 --zero 1 --groups 4 --decode-rows 16 "
         "--micro-tokens 2048 --recompute --offload --train-layers all",
         {"master weights                 2659.2 MiB", "gradients                     10636.6", "fits in 40GB: yes, "}},
        {PLAN "2.8b.json --memory 2GB --device cuda --job cache", {"too much; even with ", "take a smaller model"}},
        // J-BOND's anchor has weights, and draws: one prompt's slot for its two draws
        {PLAN "2.8b.json --device cuda --objective jbond --average .9",
         {"averaged weights               2942.3 MiB", "copy of what trains            1471.2 MiB",
          "anchor                         1471.2 MiB", "kv cache                      24720.0 MiB  while drawing"}},
        {PLAN "2.8b.json --device cuda --objective bond --k 2 --n 2", {"kv cache                      24720.0 MiB"}},
        {PLAN "2.8b.json --device cuda --job offline", {"while training", "other jobs with these flags: train "}},
        {PLAN "2.8b.json --device cuda --job eval --precision fp32",
         {"on cuda (fp32)", "reference                weights", "while measuring"}},
        {"info --model dev/demo/lm --reward dev/demo/rm/config.json", {"reward model", "kv cache"}},
        {"info --model dev/demo/lm --reward dev/fixtures/distilbert/config.json", {"reward model             weights"}},
        {"info --model dev/fixtures/distilbert/config.json", {"label 0 of", "memory as a reward model"}},
        {"info --model dev/demo/lm --reward 'cat -'", {"not in this plan: the reward's own program, cat -"}},
        {"info --model dev/fixtures/pythia_cleanrl",
         {"gpt_neox reward model", "scalar_head.bias", "as a reward model"}}};
    for (size_t i = 0; i < COUNT(plans); i++) {
        char *s = vbon_output(plans[i].args);
        for (size_t k = 0; k < 6 && plans[i].says[k]; k++)
            CHECK(strstr(s, plans[i].says[k]), "vbon %s does not say \"%s\"", plans[i].args, plans[i].says[k]);
        arrfree(s);
    }
}

static void plans_are_what_is_allocated(void) // for sampling and training
{
    Config c = {.arch = &architectures[ARCH_GPT2], .L = 2, .C = 32, .NH = 2, .F = 64, .V = 61, .max_T = 32, .eps = 1e-5,
        .tied = true};
    for (int training = 0; training < 2; training++) {
        Model m;
        Pass p = {0};
        Generator g = {0};
        Arena work = {.o = ops_cpu()};
        Plan plan;
        JobSpec j = {.kind = training ? JOB_OFFLINE : JOB_CACHE, .o = ops_cpu(), .model = c, .train_layers = 1,
            .tokens = 40, .rows = 5, .share = 3, .max_prompt = 7, .max_new = 9};
        plan_job(&plan, &j);
        model_create(&m, ops_cpu(), &c, training ? 1 : TRAIN_NONE, false, false);
        model_random(&m, 1);
        if (training) pass_create(&p, &m, 40, true);
        else {
            generator_carve(&g, &m, &work, 5, 3, 40, 7, 9); // 1, 3 and 1 of three prompts
            arena_place(&work);
            generator_carve(&g, &m, &work, 5, 3, 40, 7, 9);
            model_pack(&m);
        }
        size_t bytes = m.params.base.n + (training ? m.optim.base.n + p.own.base.n : m.packs.base.n + work.base.n);
        const char *what = training ? "sft" : "sample";
        CHECK(plan.total == (double)bytes, "%s: %.0f bytes planned, %zu allocated", what, plan.total, bytes);
        generator_free(&g); pass_free(&p); arena_release(&work);
        model_free(&m);
    }
}

static void scaled_rewards(void) // the same texts, 2 r - 3
{
    put("two.jsonl", "{\"prompt\":\"This film\",\"response\":\" is good\"}\n{\"text\":\"I like it\"}\n");
    expect_success("score --model lm --reward rm --in two.jsonl --out r1.jsonl");
    expect_success("score --model lm --reward rm --in two.jsonl --out r2.jsonl --reward-scale 2 --reward-offset -3");
    Jsonl ja, jb;
    json_t *x = NULL, *y = NULL;
    jsonl_open(&ja, tmp_path("r1.jsonl")); jsonl_open(&jb, tmp_path("r2.jsonl"));
    for (int i = 0; i < 2; i++) {
        CHECK(jsonl_next(&ja, &x) && jsonl_next(&jb, &y), "2 texts are scored");
        CHECK_NEAR(num(y, "reward"), 2 * num(x, "reward") - 3, 1e-6, "scaled reward");
    }
    jsonl_close(&ja); jsonl_close(&jb);
}

static void test_info(void)
{
    tiny_folders();
    info_knows_every_pythia();
    info_says();
    plans_are_what_is_allocated();
    scaled_rewards();
}

static void test_pythia(void) // every command once
{
    char *text = tmp_path("nt.jsonl"), *labels = tmp_path("nl.jsonl");
    const char *lines = "{\"text\":\"This film is good and long\"}\n{\"text\":\"I did not like the acting\"}\n",
               *labelled = "{\"text\":\"good\",\"label\":1}\n{\"text\":\"bad film\",\"label\":0}\n";
    write_text(text, lines); write_text(labels, labelled);
    tiny_folders();
    expect_failure("sft --arch gpt_neox --tokenizer lm --data nt.jsonl --width 12 --heads 3 --out n0", 2,
        "multiples of 8");
    expect_success("sft --arch gpt_neox --tokenizer lm --data nt.jsonl --layers 3 --width 32 --heads 2 --context 24 "
                   "--steps 2 --lr 1e-3 --out neox");
    expect_success("reward --init neox --layers 2 --data nl.jsonl --from-position 1 --steps 2 --lr 1e-3 --out neox_rm");
    char fixture[4096]; // with another tokenizer, in which another token ends a text
    if (!realpath("dev/fixtures/neox", fixture)) die("no fixture");
    expect_success("sft --model neox --tokenizer %s --data nt.jsonl --steps 1 --out neox_other", fixture);
    expect_success("sample --model neox_other --prompt a --max-new 2 --out neox_other.jsonl");
    // GPTNeoXConfig's own end of text beside a tokenizer with another: texts can be scored, but nothing can be
    // sampled; and what only transformers reads is kept
    char *config = tmp_path("neox_other/config.json"),
         *chat[] = {tmp_path("neox/chat_template.jinja"), tmp_path("neox_vbon/chat_template.jinja")},
         *generation[] = {tmp_path("neox/generation_config.json"), tmp_path("neox_vbon/generation_config.json")};
    json_t *j = json_load_file(config, 0, NULL);
    json_object_set_new(j, "eos_token_id", json_integer(2));
    json_dump_file(j, config, 0);
    json_decref(j);
    expect_success("score --model neox_other --in nt.jsonl --out neox_other.jsonl");
    expect_failure("sample --model neox_other --prompt a --max-new 2 --out neox_other.jsonl", 1,
        "\"eos_token_id\" is 2, the tokenizer's <|endoftext|> is 0");
    expect_failure("score --model neox_other --reward neox_rm --in nt.jsonl --out neox_other.jsonl", 1,
        "which ends a text");
    write_file(chat[0], "{{ messages }}", 14); write_file(generation[0], "{\"do_sample\": true}", 19);
    expect_success("cache --model neox --reward neox_rm --prompts prompts.jsonl --samples 8 --max-new 6 --seed 3 "
                   "--out neox.jsonl");
    expect_success(
        "train --model neox --reward neox_rm --cache neox.jsonl --n 4 --max-new 6 --train-layers 1 --episodes 64 "
        "--rollout 32 --lr 1e-3 --out neox_vbon");
    expect_success(
        "eval --model neox_vbon --reference neox --reward neox_rm --cache neox.jsonl --ns 4 --samples 4 --max-new 6");
    CHECK(!access(chat[1], R_OK) && !access(generation[1], R_OK),
        "chat_template.jinja and generation_config.json are copied");
    Model before, after;
    char *a = tmp_path("neox"), *b = tmp_path("neox_vbon");
    model_load(&before, ops_cpu(), a, 1, false); model_load(&after, ops_cpu(), b, 1, false);
    for (size_t i = 0; i < before.n_list; i++) {
        const Param *q = &before.list[i];
        bool same = !memcmp(R_(before.data) + q->offset, R_(after.data) + q->offset, q->n * sizeof(real));
        CHECK(same == (q->offset < before.first),
            "%s %s in a run that trains the top block, the final norm and the untied head", q->name,
            same ? "did not move" : "moved");
    }
    CHECK(!strcmp(before.list[before.n_list - 1].name, "embed_out.weight"), "the head is the last parameter");
    model_free(&before); model_free(&after);
    free(a); free(b);
}

// What `train` with these flags (the last of them NULL) would maximise, and how
static PpoOptions options_of(const char **flags)
{
    PpoOptions o;
    Args a;
    int n = 0;
    while (flags[n]) n++;
    flags_parse(&a, flag_table, n_flags, "train", n, (char **)flags, preset_flags);
    ppo_options(&o, &a);
    objective_prepare(&o.objective);
    return o;
}
#define OPTIONS(...) options_of((const char *[]){__VA_ARGS__, NULL})

static void test_presets(void)
{
    PpoOptions o = OPTIONS("--preset", "sentiment");
    CHECK(o.objective.row == ROW(objectives, "vbon") && o.schedule == ROW(schedules, "constant") &&
              o.score_clip == 10 && o.adamw.clip == 0,
          "sentiment: trlx's constant rate, score clip 10, no gradient clip");
    o = OPTIONS("--preset", "sentiment", "--objective", "rl", "--beta", "0.5");
    CHECK(o.objective.N == 0 && o.objective.kappa == 0.5, "a preset's n gives way to --beta");
    o = OPTIONS("--preset", "sentiment-released");
    CHECK(o.objective.row == ROW(objectives, "vbon") && o.objective.N == 11 && o.objective.kappa == 0.1 &&
              o.objective.score_scale == 1 / 11.0 && o.joint_p,
          "sentiment-released: n = int(1/beta) + 1 is %ld, the KL's weight %g, the score's %g", o.objective.N,
          o.objective.kappa, o.objective.score_scale);
    o = OPTIONS("--preset", "sentiment-released", "--n", "4");
    CHECK(o.objective.N == 4 && o.objective.beta == 0 && o.objective.score_scale == 0.25, "its beta gives way to --n");
    o = OPTIONS("--preset", "sentiment-released", "--objective", "l");
    CHECK(o.objective.kappa == 0.1 && o.objective.score_scale == 1, "its scaling is vbon's alone");
    o = OPTIONS("--preset", "tldr");
    CHECK(o.objective.N == 100 && o.schedule == ROW(schedules, "linear") && o.adamw.clip == 1 && o.score_clip == 0,
          "tldr: N = 100");
    o = OPTIONS("--preset", "tldr-released");
    CHECK(o.objective.row == ROW(objectives, "l") && o.objective.kappa == 0.005, "tldr-released");
    o = OPTIONS("--preset", "bond", "--n", "16");
    CHECK(o.objective.row == ROW(objectives, "bond") && o.objective.N == 16 && o.objective.best == 16 &&
              o.objective.k == 16 && o.minibatch == o.rollout && o.epochs == 1 && o.lambda == 1,
          "bond: one step a rollout, 16 draws");
    o = OPTIONS("--preset", "jbond");
    CHECK(o.objective.row == ROW(objectives, "jbond") && o.objective.N == 0 && o.objective.anchor_rate == 0.02 &&
              o.objective.kappa == 1.5 && o.critic == ROW(critics, "others"),
          "jbond: its anchor's rate and KL");
    o = OPTIONS("--preset", "sentiment", "--objective", "jbond");
    CHECK(o.objective.N == 0, "a preset's n gives way to an objective that takes none");
}

// ----------------------------------------------------------------------------
// what is refused, and what is not

static void odd_files(void) // those that the commands below are to refuse, and a few that are fine
{
    static const struct { const char *name, *text; } files[] = {
        {"more.jsonl", "{\"prompt\":\"This film\"}\n{\"prompt\":\"Unknown\"}\n"},
        {"nan.jsonl", "{\"vbon_cache\":1}\n{\"prompt\":\"I\",\"text\":\"a\",\"reward\":NaN}\n"},
        {"bad.jsonl",
         "{\"prompt\":\"I\",\"text\":\"a\",\"reward\":1}\n"
         "{\"prompt\":\"I\",\"text\":\"b\",\"reward\":2}\n"
         "{\"prompt\":\"I\",\"text\":\"c\"}\n"},
        {"utf8.jsonl", "{\"prompt\":\"a\",\"response\":\"b\"}\n{\"prompt\":\"a\xff\",\"response\":\"b\"}\n"},
        {"no_ids.jsonl", "{\"prompt\":\"This film\",\"text\":\"a\",\"reward\":1}\n"},
        {"wild.jsonl", "{\"prompt\":\"This film\",\"ids\":[5,2000],\"reward\":1}\n"},
        {"in2.jsonl", "{\"text\":\"some words\"}\n"},
        {"empty.jsonl", "\n"},
        {"text.jsonl", "{\"text\":\"some words\"}\n"},
        {"label2.jsonl", "{\"text\":\"a\",\"label\":2}\n"},
        {"notes.txt", "not to be lost"},
        {"newline.jsonl",
         "{\"prompt\":\"This\\n\\nfilm\",\"text\":\"a\",\"reward\":1,\"draw\":3}\n"
         "{\"prompt\":\"This\\n\\nfilm\",\"text\":\"b\",\"reward\":1,\"draw\":3}\n"}};
    for (size_t i = 0; i < COUNT(files); i++) put(files[i].name, files[i].text);
    size_t n; // other.jsonl: cc.jsonl of another reference model
    char *s = read_file(tmp_path("cc.jsonl"), &n), *model = strstr(s, "\"model\":\"");
    model[9] = model[9] == '0' ? '1' : '0';
    write_file(tmp_path("other.jsonl"), s, n);
    arrfree(s);
}

static void flags_are_refused(void)
{
    static const Refused cases[] = {
        {"trian", 2, "no command"},
        {"sample --modle lm --prompt a", 2, "did you mean --model"},
        {"sample --model lm --prompt a --samples 4x", 2, "whole number"},
        {"sample --model lm --prompt a --temperature 1e999", 2, "number"},
        {"sample --model lm --prompt a --samples", 2, "needs a value"},
        {"sample --model lm --prompt a --n 3", 2, "belongs to"},
        {"sample lm", 2, "begin with --"},
        {"train --preset nosuch", 2, "no such preset"},
        {"train --objective ppo", 2, "must be one of"},
        {"sample --prompt a", 2, "--model is required"},
        {"train --reward rm --cache cc.jsonl --out t", 2, "--model is required"},
        {"sample --model lm --prompt a --temperature 0", 2, "at least 0.0001"},
        {"train --beta -1", 2, "at least 1e-06"},
        {"train --beta2 1", 2, "less than 1"},
        {"train --optimizer-state 16bit", 2, "must be one of fp32|8bit"},
        {"train --offload", 2, "on the CPU there is no other memory to go to"},
        {"info --offload --model lm", 2, "on the CPU there is no other memory to go to"},
        {"info --model lm --reward rm --critic head --all-actions 4", 2, "goes with --critic prefix-rank"},
        {"info --model lm --reward rm --critic prefix-rank --objective bond --all-actions 4", 2,
         "does not go with --objective bond"},
        {"train --offload --device cuda --objective jbond", 2, "the anchor of --objective jbond draws"},
        {"sft --tokenizer dev/demo/tokenizer --data prompts.jsonl --out agree_none --device cuda --average .9 "
         "--optimizer-state 8bit", 2, "no exact weights to average"},
        {"sample --model lm --prompt a --threads 100000", 2, "at most 1024"},
        {"sample --model lm --prompt a --max-new 100", 1, "context"},
        {"info --model lm --memory 4", 2, "--memory"}};
    expect_refusals("%s", cases, COUNT(cases));
}

static void folders_are_refused(void) // that are not there, or hold a model of the other kind
{
    static const Refused cases[] = {
        {"sample --model nosuch --prompt a", 1, "nosuch: there is no such folder"},
        {"info --model nosuch", 1, "nosuch: there is no such folder"},
        {"sample --model rm --prompt a", 1, "reward model"},
        {"score --model rm --in in2.jsonl --out s.jsonl", 1, "--model takes a language model"},
        {"bon --model lm --reward lm --prompt a --max-new 4", 1, "--reward takes a reward model"},
        {"info --model lm --reward lm", 1, "--reward takes a reward model"},
        {"info --model rm --reward rm", 1, "rm: a reward model itself"},
        {"info --model rm --reward nosuch_", 1, "no such folder, config.json or program"},
        {"info --model lm --reward nosuch_", 1, "no such folder, config.json or program"},
        {"info --model lm --reward no/such", 1, "no such folder, config.json or program"}};
    expect_refusals("%s", cases, COUNT(cases));
}

static void data_is_refused(void)
{
    static const Refused cases[] = {
        {"sample --model lm --prompts nosuch.jsonl", 1, "nosuch.jsonl"},
        {"score --model lm --in utf8.jsonl --out s.jsonl", 1, "utf8.jsonl:2: byte"},
        {"score --model lm --in nan.jsonl --out s.jsonl", 1, "nan.jsonl:2"},
        {"score --model lm --in in2.jsonl --out /nonexistent/x", 1, "there is no folder /nonexistent: make it"},
        {"cache --model lm --reward rm --prompts prompts.jsonl --max-new 6 --out nosuch/c", 1, "no folder nosuch:"},
        {"sample --model lm --prompt x --max-new 6 --memory 1GB", 2, "it goes with --device cuda"},
        {"sft --tokenizer lm --data utf8.jsonl --out t", 1, "utf8.jsonl:2"},
        {"sft --tokenizer lm --data empty.jsonl --out t", 1, "no text"},
        {"sft --tokenizer lm --data text.jsonl --width 15 --out t", 2, "head size"},
        {"reward --tokenizer lm --data label2.jsonl --out t", 1, "label2.jsonl:1"},
        {"reward --init lm --layers 5 --data label2.jsonl --out t", 2, "has 2"},
        {"cache --model lm --reward rm --prompts prompts.jsonl --max-new 6 --out text.jsonl", 1,
         "something else than a cache"},
        {"cache --model lm --reward rm --prompts prompts.jsonl --max-new 6 --out notes.txt", 1,
         "something else than a cache"}};
    expect_refusals("%s", cases, COUNT(cases));
    size_t n;
    char *kept = read_file(tmp_path("notes.txt"), &n);
    CHECK(n == 14 && !memcmp(kept, "not to be lost", n), "a file that is no cache is left as it was");
    arrfree(kept);
}

static void training_is_refused(void) // on caches that do not fit the run, and by flags that do not fit the cache
{
    static const Refused cases[] = {
        {"--reward rm --cache cc.jsonl --max-new 6 --n 0", 2, "at least 1"},
        {"--reward rm --cache cc.jsonl --max-new 6 --objective rl", 1, "--beta"},
        {"--reward rm --cache cc.jsonl --max-new 6 --n 4 --beta 0.1", 1, "exclude"},
        {"--reward rm --cache cc.jsonl --max-new 6 --objective bond --n 1", 1, "at least 2"},
        {"--reward rm --cache cc.jsonl --max-new 6 --objective bond --beta 0.1", 1, "takes --n"},
        {"--reward rm --cache cc.jsonl --max-new 6 --objective jbond --n 4", 1, "neither --n nor --beta"},
        {"--reward rm --cache cc.jsonl --max-new 6 --k 4", 2, "--objective bond"},
        {"--reward rm --cache cc.jsonl --max-new 6 --objective bond --anchor-rate 0.1", 2, "--objective jbond"},
        {"--reward rm --cache cc.jsonl --max-new 6 --critic head --all-actions 4", 2, "goes with --critic prefix-rank"},
        {"--reward rm --cache cc.jsonl --max-new 6 --correction 1", 2, "--correction goes with --all-actions"},
        {"--reward rm --cache cc.jsonl --max-new 6 --critic prefix-rank --all-actions 4 --objective jbond", 2,
         "does not go with --objective jbond"},
        {"--reward rm --objective bond --max-new 6", 2, "--prompts is required"},
        {"--reward rm --cache cc.jsonl --max-new 7", 1, "--max-new 6"},
        {"--reward rm --cache cc.jsonl --max-new 6 --temperature 0.5", 1, "temperature"},
        {"--reward rm --cache cc.jsonl --max-new 6 --m 9", 1, "--m asks for 9"},
        {"--reward rm --cache cc.jsonl --max-new 6 --compat foo", 2, "--compat"},
        {"--reward rm --cache cc.jsonl --max-new 6 --train-layers 3", 1, "2 blocks"},
        {"--reward rm --cache cc.jsonl --max-new 6 --fhat exact", 1, "needs \"F\""},
        {"--reward 'cat' --cache cc.jsonl --max-new 6", 1, "another reward"},
        {"--reward rm --cache other.jsonl --max-new 6", 1, "another reference model"},
        {"--reward rm --cache cc.jsonl --prompts more.jsonl --max-new 6", 1, "no samples for prompt"},
        {"--reward rm --cache newline.jsonl --prompts prompts.jsonl --max-new 6", 1, "stands there twice"},
        {"--reward rm --cache nan.jsonl --max-new 6", 1, "nan.jsonl:2"},
        {"--reward rm --cache bad.jsonl --max-new 6", 1, "bad.jsonl:3"}};
    expect_refusals("train --model lm %s --out t", cases, COUNT(cases));
}

static void pools_are_refused(void)
{
    static const Refused cases[] = {
        {"cc.jsonl --n 4 --samples 3", 1, "need 12"},
        {"newline.jsonl", 1, "stands there twice"},
        {"bad.jsonl", 1, "bad.jsonl:3"},
        {"no_ids.jsonl --n 1", 1, "has no ids"},
        {"wild.jsonl --n 1", 1, "\"ids\" holds 2000"},
        {"more.jsonl", 1, "more.jsonl:1"},
        {"other.jsonl", 1, "another reference model"}};
    expect_refusals("eval --method bon --reference lm --reward rm --cache cc.jsonl --max-new 6 --pool %s", cases,
        COUNT(cases));
    expect_failure("eval --model lm --reference lm --reward rm --cache cc.jsonl --pool cc.jsonl --max-new 6", 2,
        "--method bon");
}

static void rewards_are_refused(void)
{
    static const Refused cases[] = {
        {"--n 2 --reward rm --reward-scale 0", 2, "--reward-scale"},
        {"--n 2 --reward 'exit 3'", 1, "ended with status 3"},
        {"--n 2 --reward 'nosuchprogram 2>/dev/null'", 1, "no such folder or program"},
        {"--n 3 --reward 'read x; echo 1'", 1, "1 of 3"},
        {"--n 2 --reward 'while read x; do echo nan; done'", 1, "no finite number"},
        {"--n 2 --reward 'while read x; do echo one; done'", 1, "no finite number"},
        {"--n 2 --reward 'kill -9 $$'", 1, "killed by signal 9"},
        {"--n 2 --reward 'sleep 9' --reward-timeout 0.2", 1, "--reward-timeout"}};
    expect_refusals("bon --model lm --prompt a --max-new 4 %s", cases, COUNT(cases));
    // one answer too many, whenever it is noticed (a progress line may come first): nothing is put in place
    char *said;
    int code = run_vbon("bon --model lm --reward 'echo 0; while read x; do echo 1; done' --prompt a --n 2 --max-new 4 "
        "--out shifted.jsonl", &said);
    CHECK(code == 1 && (strstr(said, "not asked for") || strstr(said, "more answers")),
        "a reward program's extra answer: exit %d: %s", code, said);
    CHECK(access(tmp_path("shifted.jsonl"), F_OK), "shifted rewards were written");
}

static void finished_runs_stay(void) // they are not replaced, and another run's model is not taken for one's own
{
    #define SHORT "train --model lm --reward rm --cache cc.jsonl --max-new 6 --episodes 8 --rollout 8 --minibatch 8 " \
        "--out short"
    expect_success(SHORT);
    expect_success(SHORT " --resume");
    expect_failure(SHORT, 1, "holds a model already");
    expect_failure(SHORT " --seed 2 --resume", 1, "another --seed");
    // a preset's n or beta gives way to the command line's
    expect_success(SHORT "1 --preset sentiment --m 0 --objective rl --beta 0.5 --train-layers all");
    expect_success(SHORT "2 --preset sentiment-released --objective vbon --n 4");
    expect_success(SHORT "3 --preset best --rollout 8 --minibatch 4");
}

static void two_lines_run(void) // ppo.h's mathematics in a program of two lines, as plain C
{
    FILE *p = popen("build/two_lines", "r");
    double printed = NAN;
    CHECK(p && fscanf(p, "%lf", &printed) == 1 && !pclose(p), "build/two_lines does not run");
    CHECK_NEAR(printed, -47.6246189861594, 1e-12, "log_pi_bon(log .5, -40, 16), by decimal arithmetic of 60 digits");
}

static void nan_weights_are_refused(void)
{
    size_t n;
    float nan = NAN;
    char *copy = format("cp -r %s/lm %s/nan_lm", test_folder, test_folder);
    CHECK(!system(copy), "%s", copy);
    char *weights = tmp_path("nan_lm/model.safetensors"), *s = read_file(weights, &n);
    memcpy(s + n - 4, &nan, 4);
    write_file(weights, s, n);
    expect_failure("sample --model nan_lm --prompt a", 1, "not finite");
    arrfree(s);
    free(copy); free(weights);
}

static void test_commands(void)
{
    tiny_folders();
    expect_success(CACHE "cc.jsonl");
    odd_files();
    flags_are_refused();
    folders_are_refused();
    data_is_refused();
    training_is_refused();
    pools_are_refused();
    rewards_are_refused();
    CHECK(!is_folder(tmp_path("t")) && access(tmp_path("s.jsonl"), F_OK),
        "a run that cannot start leaves nothing behind");
    finished_runs_stay();
    two_lines_run();
    for (size_t i = 0; i < n_commands; i++) expect_success("%s --help", commands[i].name);
    nan_weights_are_refused();
}

// Everything in log.jsonl but what a clock measured, and the flags that may differ
static char *log_without_times(const char *dir)
{
    char *name = format("%s/log.jsonl", dir), *path = tmp_path(name), *out = NULL;
    Jsonl in;
    json_t *j, *v;
    const char *key;
    void *next;
    jsonl_open(&in, path);
    while (jsonl_next(&in, &j)) {
        if (json_object_get(j, "flags")) { json_decref(j); continue; }
        json_object_foreach_safe(j, next, key, v) if (!strncmp(key, "time/", 5)) json_object_del(j, key);
        char *s = json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS), *more = format("%s%s\n", out ? out : "", s);
        free(out); free(s);
        out = more;
        json_decref(j);
    }
    jsonl_close(&in);
    return out;
}

// Starts vbon, and kills it after so many seconds or, with seconds 0, when this file of the test's folder is there, if
// that is before it ends; returns 1 when it was still running
static int kill_when(const char *args, double seconds, const char *file, int sig)
{
    fflush(NULL);
    pid_t pid = fork();
    if (!pid) {
        if (chdir(test_folder) || !freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr)) _exit(99);
        char *cmd = format("exec '%s' %s", vbon(), args);
        execl("/bin/sh", "sh", "-c", cmd, (char *)NULL);
        _exit(99);
    }
    char *path = file ? tmp_path(file) : NULL;
    int status, running = 1;
    usleep((useconds_t)(seconds * 1e6));
    do running = waitpid(pid, &status, WNOHANG) == 0;
    while (running && path && access(path, F_OK) && !usleep(500));
    free(path);
    if (running) { kill(pid, sig); waitpid(pid, &status, 0); }
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    CHECK(!running || code == 0 || code == 128 + sig, "vbon %s: stopped by signal %d it ended with %d", args, sig,
        code);
    return running;
}
static int kill_later(const char *args, double seconds, int sig) { return kill_when(args, seconds, NULL, sig); }

// ----------------------------------------------------------------------------
// offline training

static void comparisons_from_caches(void) // the same from a cache, and from its compact form
{
    Cache full, compact;
    Comparisons a, b;
    Config cfg;
    Tokenizer *t = tokenizer_load(tmp_path("lm"));
    config_read(&cfg, tmp_path("lm"));
    expect_success("compact --cache co.jsonl --draws 6 --ns 5 --out compact.jsonl");
    cache_read(&full, tmp_path("co.jsonl"), 0);
    cache_read(&compact, tmp_path("compact.jsonl"), 0);
    for (int kind = 0; kind < 4; kind++) {
        enum { N = 5 };
        OfflineLoss o = {.kind = (OfflineKind)kind, .beta = 0.1, .N = N};
        bool of_pairs = kind == OFFLINE_DPO || kind == OFFLINE_IPO; // the others compare the best and the worst of N
        comparisons_make(&a, &full, 0, &o, 6, 12, 1, t, &cfg);
        comparisons_make(&b, &compact, 0, &o, 6, 12, 1, t, &cfg);
        size_t n = arrlenu(a.list), per_prompt = of_pairs ? 12 : 1;
        CHECK(n == 3 * per_prompt && n == arrlenu(b.list) && !memcmp(a.list, b.list, n * sizeof *a.list),
            "loss %d: %zu comparisons, %zu from the compact form", kind, n, arrlenu(b.list));
        for (size_t i = 0; i < n; i++) {
            const Comparison *x = &a.list[i];
            const Response *w = &a.responses[x->w], *l = &a.responses[x->l];
            if (kind != OFFLINE_BON_SFT) // whose second response is nobody's
                CHECK(w->reward > l->reward && w->prompt == l->prompt, "loss %d: comparison %zu: %g over %g", kind, i,
                    w->reward, l->reward);
            for (size_t k = 0; k < i && of_pairs; k++)
                CHECK(a.list[k].w != x->w || a.list[k].l != x->l, "loss %d: a pair stands there twice", kind);
            const CacheSample *draws = full.prompts[w->prompt].samples;
            for (size_t k = 0; k < N && !of_pairs; k++)
                CHECK(draws[k].reward <= w->reward && (kind == OFFLINE_BON_SFT || draws[k].reward >= l->reward),
                    "loss %d: draw %zu is better or worse", kind, k);
        }
        for (size_t i = 0; i < arrlenu(a.responses); i++) {
            const Response *y = &a.responses[i];
            CHECK(order_key(y->ids, y->n) == full.prompts[y->prompt].samples[y->sample].key,
                "loss %d: response %zu has not the ids that were sampled", kind, i);
            const Response *z = &b.responses[i];
            CHECK(z->n == y->n && !memcmp(z->ids, y->ids, y->n * sizeof *y->ids),
                "loss %d: response %zu has other ids in the compact form", kind, i);
        }
        comparisons_free(&a); comparisons_free(&b);
    }
    cache_free(&full); cache_free(&compact); tokenizer_free(t);
}

// Of a text without ids, the order key tells whether an end-of-text was sampled; without a key "finished" does.
static void ends_without_ids(void)
{
    static const struct { const char *name; bool has_key, key_ends, finished; } cases[] = {
        {"a key of a text cut off", true, false, false},
        {"a key of a text that ended", true, true, false},
        {"no key, and finished", false, false, true}};
    Tokenizer *t = tokenizer_load(tmp_path("lm"));
    for (size_t i = 0; i < COUNT(cases); i++) {
        size_t n, got;
        bool same, ends = cases[i].key_ends || cases[i].finished;
        int *ids = tokenizer_encode(t, " is good", 8, &n), *all = xmalloc((n + 1) * sizeof *all);
        memcpy(all, ids, n * sizeof *ids);
        all[n] = tokenizer_eos(t);
        CacheSample x = {.text = " is good", .has_key = cases[i].has_key, .key = order_key(all, n + cases[i].key_ends),
            .finished = cases[i].finished};
        int *made = sample_ids(&x, t, &got, &same);
        CHECK(same && got == n + ends && !memcmp(made, all, got * sizeof *all), "%s: %zu ids of %zu", cases[i].name,
            got, n);
        free(made);
        x.key++; // now the ids are not the key's, if there is one: they are the text's, and that is told
        made = sample_ids(&x, t, &got, &same);
        CHECK(same == !x.has_key && got == n + cases[i].finished, "%s, of other ids: %zu of %zu", cases[i].name, got,
            n);
        free(ids); free(all); free(made);
    }
    tokenizer_free(t);
}

static void each_loss_trains(void) // to where its loss or its margin must be after 40 steps
{
    static const struct { const char *flags, *key; double least, most; } cases[] = {
        {"--loss dpo --beta 0.5", "loss", 0, 0.5},
        {"--loss ipo --beta 0.5", "offline/margin", 0.4, 1.2},
        {"--loss bonbon --n 4 --alpha 0.01 --micro-tokens 3", "offline/margin", 0.5, 6},
        {"--loss bon-sft --n 4 --train-layers 1", "loss", 0, 43},
        {"--preset dpo --loss bonbon --n 2 --lr 3e-3", "rewards/accuracies", 0.6, 1}};
    for (size_t k = 0; k < COUNT(cases); k++) {
        char *log = format("off%zu/log.jsonl", k);
        expect_success("offline --model lm --cache co.jsonl --lr 3e-3 --batch 4 --steps 40 --log-every 40 "
            "%s --out off%zu", cases[k].flags, k);
        double x = last_metric(log, cases[k].key);
        CHECK(x >= cases[k].least && x <= cases[k].most, "%s: %s is %g", cases[k].flags, cases[k].key, x);
        free(log);
    }
}

static void preferences_from_a_file(void) // 16 of them, in prefer.jsonl; only the first 3 are read here
{
    char *path = tmp_path("prefer.jsonl");
    FILE *f = fopen(path, "w");
    for (int i = 0; i < 16; i++)
        fprintf(f, "{\"prompt\":\"Film %d\",\"chosen\":\" is good\",\"rejected\":\" is bad\"}\n", i);
    fclose(f);
    Comparisons c;
    Config cfg;
    Tokenizer *t = tokenizer_load(tmp_path("lm"));
    config_read(&cfg, tmp_path("lm"));
    comparisons_read(&c, path, 3, t, &cfg);
    CHECK(arrlenu(c.list) == 3 && arrlenu(c.responses) == 6, "%zu comparisons, %zu responses", arrlenu(c.list),
        arrlenu(c.responses));
    size_t n;
    int *good = tokenizer_encode(t, " is good", 8, &n);
    const Response *chosen = &c.responses[c.list[2].w];
    CHECK(chosen->prompt == 2 && chosen->n == n + 1 && !memcmp(chosen->ids, good, n * sizeof *good) &&
            chosen->ids[n] == tokenizer_eos(t), "what was chosen is the text and its end");
    comparisons_free(&c); tokenizer_free(t);
    free(good); free(path);
    expect_success("offline --model lm --data prefer.jsonl --loss dpo --beta 0.5 --lr 3e-3 --batch 8 --steps 20 "
        "--out off_data");
    double loss = last_metric("off_data/log.jsonl", "loss");
    CHECK(loss < 0.5, "DPO on a file of preferences: loss %g", loss);
}

static void offline_resumes(void) // a run that was killed and resumed ends as if it had not been
{
    #define KILLED "offline --model lm --cache co.jsonl --loss bonbon --n 8 --lr 3e-3 --batch 2 --steps 120 " \
        "--log-every 7 --save-every 1 "
    double s = clock_seconds();
    expect_success(KILLED "--out off_straight");
    s = clock_seconds() - s;
    int hits = 0;
    for (int k = 0; k < 3; k++) {
        char *dir = format("off_killed%d", k), *model = format("%s/model.safetensors", dir);
        char *args = format(KILLED "--out %s", dir);
        hits += kill_later(args, s * (0.5 + 0.12 * k), SIGKILL);
        expect_success("%s --resume", args);
        CHECK(same_files("off_straight/model.safetensors", model), "killed and resumed, the weights differ");
        CHECK(!strcmp(log_without_times("off_straight"), log_without_times(dir)),
            "killed and resumed, the log differs");
        free(dir); free(model); free(args);
    }
    CHECK(hits, "no offline run was still running when it was to be killed");
}

static void offline_refuses(void)
{
    #define OF_CACHE "offline --model lm --cache co.jsonl --out off_bad "
    #define OF_FILE "offline --model lm --data prefer.jsonl --out off_bad "
    static const Refused cases[] = {
        {OF_CACHE "--loss dpo", 2, "--beta is required"},
        {OF_CACHE "--loss bonbon --beta 1", 2, "--beta goes with"},
        {OF_CACHE "--loss dpo --beta 1 --n 2", 2, "--n goes with"},
        {OF_CACHE "--loss bonbon --alpha 1.5", 2, "--alpha"},
        {OF_CACHE "--loss bonbon --n 9", 1, "has 8 draws, 9 are needed"},
        {OF_CACHE "--loss dpo --beta 1 --draws 9", 1, "lower --draws"},
        {OF_CACHE "--loss bon-sft --temperature 2", 1, "temperature"},
        {OF_CACHE "--loss dpo --beta 1 --alpha 0.5", 2, "--alpha goes with"},
        {OF_CACHE "--loss bon-sft --pairs 3", 2, "--draws and --pairs go with"},
        {OF_CACHE "--preset nosuch", 2, "no such preset"},
        {OF_CACHE "--loss bon-sft --critic head", 2, "belongs to"},
        {OF_CACHE "--loss dpo --beta 1 --data prefer.jsonl", 2, "one of --cache and --data"},
        {OF_FILE "--loss bon-sft", 2, "needs a cache"},
        {OF_FILE "--loss dpo --beta 1 --pairs 2", 2, "go with --cache"},
        {"offline --model lm --data nosuch.jsonl --loss dpo --beta 1 --out off_bad", 1, "nosuch.jsonl"},
        {"offline --model rm --cache co.jsonl --loss bon-sft --out off_bad", 1, "a reward model"}};
    expect_refusals("%s", cases, COUNT(cases));
    put("torn.jsonl",
        "{\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"c\"}\n"
        "{\"prompt\":\"a\",\"chosen\":\"b\"}\n");
    expect_failure("offline --model lm --data torn.jsonl --loss dpo --beta 1 --out off_bad", 1,
        "torn.jsonl:2: \"rejected\"");
    // caches that hold no comparison, or none to be trusted
    #define TWO_DRAWS(first, second) \
        "{\"prompt\":\"I\"," first ",\"reward\":1}\n{\"prompt\":\"I\"," second ",\"reward\":2}"
    static const struct { const char *text, *says; } caches[] = {
        {TWO_DRAWS("\"ids\":[5],\"key\":\"0000000000000001\"", "\"ids\":[6],\"key\":\"0000000000000001\""),
         "the file was edited"},
        {"{\"prompt\":\"I\",\"responses\":[\"a\",\"b\"],\"rewards\":[1,1]}", "rewards of each prompt are equal"},
        {TWO_DRAWS("\"ids\":[5]", "\"ids\":[2000]"), "\"ids\" holds 2000"},
        {TWO_DRAWS("\"ids\":[]", "\"ids\":[2]"), "is empty"},
        {TWO_DRAWS("\"ids\":[5,5,5,5,5,5,5,5,5,5,5,5,5,5,5,5,5,5,5,5,5,5,5,5,5]", "\"ids\":[2]"), "context is 24"}};
    for (size_t i = 0; i < COUNT(caches); i++) {
        put("odd.jsonl", caches[i].text);
        expect_failure("offline --model lm --cache odd.jsonl --loss dpo --beta 1 --draws 2 --out off_bad", 1,
            caches[i].says);
    }
    CHECK(!is_folder(tmp_path("off_bad")), "a run that cannot start leaves nothing behind");
}

static void test_offline(void)
{
    tiny_folders();
    expect_success(CACHE "co.jsonl");
    comparisons_from_caches();
    ends_without_ids();
    each_loss_trains();
    preferences_from_a_file();
    offline_resumes();
    offline_refuses();
}

#define TRAINED "train --model lm --reward rm --cache ck.jsonl --max-new 6 --lr 1e-2 --rollout 32 " \
    "--minibatch 16 --episodes 640 --save-every 1 --critic head "
#define TRAIN TRAINED "--n 8 "

// One line of a trace against what it says of itself: texts of tokens, the place among the cached samples, what makes
// the rewards, and GAE over them. The deviations of A from (returns - values - mean) / sd are the caller's.
static void trace_line(json_t *j, const Cache *c, double kappa, double lambda)
{
    const json_t *ids = json_object_get(j, "ids"), *rewards = json_object_get(j, "rewards");
    const json_t *values = json_object_get(j, "values"), *returns = json_object_get(j, "returns");
    static const char *const each[] = {"tokens", "logps", "kl", "rewards", "values", "returns", "advantages"};
    size_t n = json_array_size(ids);
    char *text = xstrdup("");
    for (size_t i = 0; i < COUNT(each); i++)
        CHECK(json_array_size(json_object_get(j, each[i])) == n, "%s: %zu for %zu ids", each[i],
            json_array_size(json_object_get(j, each[i])), n);
    double kl = 0, sum = 0, A = 0, reward = num(j, "reward"), k = 0;
    for (size_t t = n; t-- > 0;) {
        double V = json_number_value(json_array_get(values, t)), r = json_number_value(json_array_get(rewards, t));
        double next = t + 1 < n ? json_number_value(json_array_get(values, t + 1)) : 0;
        A = r + next - V + lambda * A;
        CHECK_NEAR(json_number_value(json_array_get(returns, t)), A + V, 1e-6, "a traced return");
        kl += json_number_value(json_array_get(json_object_get(j, "kl"), t));
        sum += r;
    }
    CHECK_NEAR(sum, num(j, "score") - kappa * kl, 1e-6, "traced rewards: the score less the KL");
    for (size_t t = 0; t < n; t++) {
        char *more = format("%s%s", text, json_string_value(json_array_get(json_object_get(j, "tokens"), t)));
        free(text);
        text = more;
    }
    CHECK(!strcmp(text, json_string_value(json_object_get(j, "response"))), "traced tokens are \"%s\"", text);
    free(text);
    int id[64];
    for (size_t t = 0; t < n && t < COUNT(id); t++) id[t] = (int)json_integer_value(json_array_get(ids, t));
    const CachePrompt *p = &c->prompts[cache_find(c, json_string_value(json_object_get(j, "prompt")))];
    for (size_t i = 0; i < p->n; i++) {
        const CacheSample *x = &p->samples[i];
        k += x->reward < reward || (x->reward == reward && x->key < order_key(id, n));
    }
    CHECK(num(j, "k") == k && num(j, "M") == (double)p->n, "traced place: %g of %g, want %g of %zu", num(j, "k"),
        num(j, "M"), k, p->n);
}

#define TRACED "train --model lm --reward rm --cache ck.jsonl --max-new 6 --n 8 --lr 1e-2 --rollout 8 " \
    "--minibatch 8 --ppo-epochs 1 --episodes 376 "

static void traces(void) // what --trace keeps, and that it changes nothing else
{
    expect_success(TRACED "--out no_trace");
    expect_success(TRACED "--trace 8 --out trace");
    CHECK(same_files("no_trace/model.safetensors", "trace/model.safetensors"), "a trace changes the weights");
    char *a = log_without_times("no_trace"), *b = log_without_times("trace"), *none = tmp_path("no_trace/trace.jsonl");
    CHECK(!strcmp(a, b) && access(none, F_OK), "a trace changes the log, or is there without --trace");
    free(a); free(b);
    // the first of 47 iterations, and those that end a twentieth of them
    CHECK(count_lines("trace/trace.jsonl") == 21 * 8, "the trace has %zu lines", count_lines("trace/trace.jsonl"));
    expect_success("score --model lm --in trace/trace.jsonl --out traced.jsonl");
    Cache c;
    Jsonl in;
    json_t *j;
    cache_read(&c, tmp_path("ck.jsonl"), 0);
    jsonl_open(&in, tmp_path("trace/trace.jsonl"));
    double mean = 0, square = 0, steps = 0, count = 0;
    for (size_t i = 0; jsonl_next(&in, &j); i++) {
        json_t *scored = get_line("traced.jsonl", i), *A = json_object_get(j, "advantages");
        trace_line(j, &c, 1.0 / 7, 0.7);
        CHECK(i > 2 || !strcmp(json_string_value(json_object_get(j, "prompt")), c.prompts[i].prompt),
            "line %zu of the trace is not of that prompt", i);
        CHECK_NEAR(num(scored, "logp"), num(j, "ref_logp"), 1e-4, "log pi_ref of a traced response");
        for (size_t t = 0; t < json_array_size(A); t++, count++) {
            double x = json_number_value(json_array_get(A, t));
            mean += x; square += x * x;
        }
        steps += i % 8 == 0 ? num(j, "step") : 0;
        json_decref(scored); json_decref(j);
    }
    jsonl_close(&in);
    cache_free(&c);
    double want = 1; // 1 and ceil(47 i / 20)
    for (int i = 1; i <= 20; i++) want += ceil(47 * i / 20.0);
    CHECK(steps == want, "the traced iterations add up to %g, want %g", steps, want);
    // the whole rollout is there
    CHECK_NEAR(mean / count, 0, 1e-6, "mean of whitened advantages");
    CHECK_NEAR(square / count, 1, 1e-6, "variance of whitened advantages");
    // a run that is begun afresh in a folder keeps no other run's
    shell("mkdir -p afresh; cp trace/trace.jsonl afresh");
    expect_success(TRACED "--out afresh");
    CHECK(access(tmp_path("afresh/trace.jsonl"), F_OK), "a run without --trace keeps another's trace");
    free(none);
}

// What a run's flags that are `auto` came to: its record has them, and no others.
static void expect_chosen(const char *dir, const char *critic, double lambda, double lr)
{
    char *log = format("%s/log.jsonl", dir);
    json_t *config = get_line(log, 0), *chosen = json_object_get(config, "auto");
    const char *name = json_string_value(json_object_get(chosen, "critic"));
    CHECK(json_object_size(chosen) == 3 && name && !strcmp(name, critic), "%s: auto is %s, want %s", dir,
          name ? name : "nothing", critic);
    CHECK_NEAR(num(chosen, "lambda"), lambda, 1e-15, dir);
    CHECK_NEAR(num(chosen, "lr"), lr, 0.05 * lr, dir); // it has two digits
    json_decref(config);
    free(log);
}

static void what_auto_comes_to(void)
{
    #define AUTO "train --model lm --cache ck.jsonl --max-new 6 --rollout 8 --minibatch 8 --episodes 16 "
    Config c;
    Model m;
    config_read(&c, tmp_path("lm"));
    model_create(&m, ops_cpu(), &c, TRAIN_NONE, false, false);
    double rate = 0.42 / sqrt((double)param_count(&m, 0)), of_16 = log(16) - 15.0 / 16;
    expect_success(AUTO "--reward rm --n 16 --out auto_16");
    expect_chosen("auto_16", "prefix-rank", 0.7, rate);
    expect_success(AUTO "--reward rm --n 2 --out auto_2");
    expect_chosen("auto_2", "prefix-rank", 0.7, rate * sqrt((log(2) - 0.5) / of_16));
    expect_success(AUTO "--reward rm --objective rl --beta 0.5 --out auto_rl");
    expect_chosen("auto_rl", "prefix-rank", 0.7, rate);
    // a program tells nothing of prefixes; of RL without a cache nothing is ranked
    expect_success("train --model lm --prompts prompts.jsonl --max-new 6 --rollout 8 --minibatch 8 --episodes 16 "
                   "--reward rm --objective rl --beta 0.5 --out auto_uncached");
    expect_chosen("auto_uncached", "head", 1, rate / 2);
    expect_success(AUTO "--reward rm --n 16 --critic prefix-rank --lambda 0.7 --lr %.2g --out auto_said", rate);
    CHECK(same_files("auto_16/model.safetensors", "auto_said/model.safetensors"), "auto said in words differs");
    json_t *config = get_line("auto_said/log.jsonl", 0);
    CHECK(!json_object_get(config, "auto"), "nothing is auto, but the log has what it came to");
    json_decref(config);
    // the paper's presets are the paper's
    PpoOptions o = OPTIONS("--preset", "sentiment");
    CHECK(o.critic == ROW(critics, "head") && o.lambda == 0.95 && o.lr == 3e-5 && o.warmup == 0 && o.epochs == 4,
          "sentiment: trlx's value head, lambda, rate and epochs");
    model_free(&m);
}

static void killed_at_any_moment(void) // moments drawn by seed over the run's length; SIGTERM at every fifth
{
    static const char *const runs[] = {TRAIN, TRAIN "--critic prefix-rank --all-actions 3 --train-layers 1 --trace 3 ",
        TRAINED "--objective jbond --critic others --train-layers 1 "};
    const int moments = few() ? 3 : 10;
    for (size_t k = 0; k < COUNT(runs); k++) {
        char *dir = format("straight%zu", k), *wanted = format("%s/model.safetensors", dir);
        double t = clock_seconds();
        expect_success("%s --out %s", runs[k], dir);
        t = clock_seconds() - t;
        char *log = log_without_times(dir);
        int hits = 0;
        for (int i = 0; i < moments; i++) {
            double moment = t * (0.1 + 0.85 * random_uniform(9, 1, (uint64_t)k, (uint64_t)i, 0));
            char *out = format("killed%zu_%d", k, i), *args = format("%s --out %s", runs[k], out);
            hits += kill_later(args, moment, i % 5 == 4 ? SIGTERM : SIGKILL);
            expect_success("%s --resume", args);
            char *model = format("%s/model.safetensors", out), *l = log_without_times(out);
            CHECK(same_files(model, wanted), "killed at moment %d and resumed, the weights differ", i);
            CHECK(!strcmp(l, log), "killed at moment %d and resumed, the log differs", i);
            char *trace = format("%s/trace.jsonl", out), *traced = format("%s/trace.jsonl", dir);
            CHECK(k != 1 || same_files(trace, traced), "killed at moment %d and resumed, the trace differs", i);
            free(trace); free(traced);
            free(l); free(model); free(out); free(args);
        }
        CHECK(hits >= moments / 2, "only %d of %d runs were still running when they were killed", hits, moments);
        free(log); free(dir); free(wanted);
    }
}

static void half_a_run(void) // torn/: begun, and killed after its first checkpoint
{
    char *latest = tmp_path("torn/latest");
    shell("rm -rf torn");
    kill_when(TRAIN "--out torn", 0, "torn/latest", SIGKILL);
    CHECK(!access(latest, F_OK), "no run could be killed after its first checkpoint");
    free(latest);
}

static void killed_in_a_checkpoint(void) // what a crash between any two steps of writing one can leave behind
{
    static const char *const wrecks[] = {
        "mkdir -p torn/step-999.tmp; echo junk > torn/step-999.tmp/model.safetensors",
        "cp -r torn/$(cat torn/latest) torn/step-998; rm torn/step-998/state.safetensors",
        "echo half > torn/latest.tmp; echo '{\"type\":\"train\",\"st' >> torn/log.jsonl"};
    expect_success(TRAIN "--out whole");
    for (size_t i = 0; i < COUNT(wrecks); i++) {
        half_a_run();
        shell(wrecks[i]);
        expect_success(TRAIN "--resume --out torn");
        CHECK(same_files("torn/model.safetensors", "whole/model.safetensors"), "the weights differ after %s",
            wrecks[i]);
    }
}

static void unfinished_runs_stay(void) // they are not overwritten, and not gone on with under other flags
{
    half_a_run();
    expect_failure(TRAIN "--out torn", 1, "unfinished run");
    expect_failure(TRAIN "--seed 2 --resume --out torn", 1, "another --seed");
}

static void supervised_resumes(void)
{
    put("sft.jsonl",
        "{\"text\":\"a film about a man who likes films about men\"}\n"
        "{\"text\":\"another one\"}\n"
        "{\"text\":\"the third of them is good\"}\n");
    #define SFT "sft --model lm --data sft.jsonl --batch 2 --steps 60 --lr 1e-3 --save-every 1 "
    static const char *const states[] = {"--average 0.9", "--optimizer-state 8bit"};
    for (int i = 0; i < 2; i++) {
        double t = clock_seconds();
        shell("rm -rf sft1 sft2");
        expect_success(SFT "%s --out sft1", states[i]);
        t = clock_seconds() - t;
        char *args = format(SFT "%s --out sft2", states[i]);
        kill_later(args, t * 0.6, SIGKILL);
        expect_success("%s --resume", args);
        CHECK(same_files("sft1/model.safetensors", "sft2/model.safetensors"), "a resumed sft run differs, %s",
            states[i]);
        free(args);
    }
}

// With moments in 8 bits, and on a device in bfloat16 no other weights, a checkpoint has all that the next steps depend
// on; another seed rounds otherwise.
static void update_8bit(Model *m, int from, int to, uint64_t seed)
{
    real *g = xmalloc(m->grad.n * sizeof *g);
    for (int t = from; t < to; t++) {
        for (size_t i = 0; i < m->grad.n; i++) g[i] = (real)(random_uniform(1, 1, (uint64_t)t, i, 0) - 0.5);
        m->o->upload(m->grad, g);
        model_update(m, &(AdamW){.lr = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip = 1, .seed = seed});
    }
    free(g);
}

static void resume_8bit(const Ops *o)
{
    Ops ops = *o;
    Model m[3];
    Config config = tiny_config(13, false, false);
    char *dir = tmp_path("eight_bits");
    ops.moments_8bit = true;
    shell("mkdir -p eight_bits");
    for (int k = 0; k < 3; k++) {
        model_create(&m[k], &ops, &config, 2, true, false);
        model_random(&m[k], 3 + (k == 1));
        value_head_random(&m[k], 3 + (k == 1));
    }
    CHECK(m[0].master.type == ops.type && m[0].master.p == slice(m[0].data, m[0].first, 1).p, "there are two weights");
    update_8bit(&m[0], 0, 3, 1);
    checkpoint_save(&m[0], dir, 3, NULL, NULL, 0);
    char *latest = checkpoint_latest(dir);
    checkpoint_load(&m[1], latest, NULL, 0);
    update_8bit(&m[0], 3, 6, 1); update_8bit(&m[1], 3, 6, 1);
    update_8bit(&m[2], 0, 6, 2);
    size_t n = m[0].n_params, codes = m[0].m.n;
    real *x[3];
    uint8_t *c[3];
    for (int k = 0; k < 3; k++) {
        ops.download(x[k] = xmalloc(n * sizeof(real)), m[k].data);
        ops.download(c[k] = xmalloc(codes), m[k].v);
    }
    CHECK(!memcmp(x[0], x[1], n * sizeof(real)) && !memcmp(c[0], c[1], codes), "resumed, weights or moments differ");
    CHECK(memcmp(c[0], c[2], codes), "another seed draws the same");
    for (int k = 0; k < 3; k++) { free(x[k]); free(c[k]); model_free(&m[k]); }
    free(latest); free(dir);
    shell("rm -r eight_bits");
}
static void test_resume_8bit(void) { resume_8bit(ops_cpu()); }

static void test_resume(void)
{
    tiny_folders();
    expect_success(CACHE "ck.jsonl");
    traces();
    what_auto_comes_to();
    killed_at_any_moment();
    killed_in_a_checkpoint();
    unfinished_runs_stay();
    supervised_resumes();
}

// SIGTERM in the middle of a product leaves the product and the heap whole. oneDNN 2's AVX2 sgemm moves
// the stack pointer into a heap buffer, so a handler that runs on the ordinary stack overwrites the heap
// beside it and the run aborts instead of saving.
static void test_signals(void)
{
    enum { M = 38, N = 128, K = 512 };
    Buf a = new_buf(M * K), b = new_buf(N * K), c = new_buf(M * N), want = new_buf(M * N);
    gemm(false, true, M, N, K, R_(a), K, R_(b), K, 0, R_(want), N);
    fflush(NULL);
    pid_t pid = fork();
    if (!pid) {
        *test_folder = 0;
        omp_set_num_threads(1); // a forked child has no other threads
        int signals = 0;
        timer_t timer;
        struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGTERM};
        struct itimerspec soon = {.it_value = {0, 300000}}; // one SIGTERM, armed again when it was seen
        stop_on_signals();
        if (timer_create(CLOCK_MONOTONIC, &event, &timer) || timer_settime(timer, 0, &soon, NULL)) _exit(5);
        for (double end = clock_seconds() + 3; clock_seconds() < end && signals < 5000;) {
            gemm(false, true, M, N, K, R_(a), K, R_(b), K, 0, R_(c), N);
            if (memcmp(c.p, want.p, M * N * sizeof(real))) _exit(3);
            if (stop_signal) {
                signals++;
                stop_signal = 0;
                stop_on_signals();
                soon.it_value.tv_nsec = 300000 + signals * 997 % 100000;
                timer_settime(timer, 0, &soon, NULL);
            }
        }
        _exit(signals < 20 ? 4 : 0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "products under signals: %s %d",
        WIFEXITED(status) ? "exit" : "killed by signal", WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    cpu_release(&a); cpu_release(&b); cpu_release(&c); cpu_release(&want);
}

// What reads texts scores a prefix as a text of its own, every fourth; the next three have that score too.
static void check_prefixes(Reward *r, const Tokenizer *policy)
{
    Prompt p[2] = {{.text = "The narrator"}, {.text = "I"}};
    Response y[2] = {{.prompt = 1}, {.finished = true}};
    static const char *const text[] = {" is no actor, the director a traitor", " laughed, \303\251t\303\251, so much!"};
    for (size_t i = 0; i < 2; i++) {
        p[i].ids = tokenizer_encode(policy, p[i].text, strlen(p[i].text), &p[i].n);
        y[i].ids = tokenizer_encode(policy, text[i], strlen(text[i]), &y[i].n);
        CHECK(y[i].n > 8 && y[i].n % 4, "%zu tokens", y[i].n);
    }
    r->every = 4;
    reward_map(r, 0.5, 1);
    reward_assign(r, p, y, 2, true);
    for (size_t i = 0; i < 2; i++) {
        for (size_t t = 0; t < y[i].n; t++) {
            Response part = {.prompt = y[i].prompt, .ids = y[i].ids, .n = t / 4 * 4};
            reward_assign(r, p, &part, 1, false);
            CHECK(fabs(y[i].prefix[t] - part.reward) < 1e-5, "prefix of %zu tokens: %g, as a text %g", t,
                y[i].prefix[t], part.reward);
        }
        Response whole = {.prompt = y[i].prompt, .ids = y[i].ids, .n = y[i].n, .finished = y[i].finished};
        reward_assign(r, p, &whole, 1, false);
        CHECK(fabs(y[i].reward - whole.reward) < 1e-5, "with the prefixes %g, alone %g", y[i].reward, whole.reward);
        free(p[i].ids);
        response_free(&y[i]);
    }
}

// A token scored on the keys and values of what stands before it has the score of that text.
static void test_candidates(void)
{
    enum { N = 3, K = 3 };
    static int written[2][6] = {{40, 300, 7, 1200, 5, 99}, {1999, 31, 8, 640, 77, 12}};
    static const int tokens[] = {40, 1999, 17};
    Prompt prompts[2] = {{.text = "", .ids = written[1] + 2, .n = 3}, {.text = "", .ids = written[0], .n = 5}};
    Response y[N] = {{.prompt = 0, .ids = written[0], .n = 6}, {.prompt = 0, .ids = written[1], .n = 1},
        {.prompt = 1, .ids = written[1], .n = 4}};
    int token[11 * K], ids[6];
    double score[11 * K], *s = score;
    for (int i = 0; i < 11 * K; i++) token[i] = tokens[(i / K + i) % 3];
    Tokenizer *policy = tokenizer_load("dev/demo/lm");
    Reward r;
    reward_open(&r, "dev/demo/rm", policy, ops_cpu(), 16, 60); // so few that they come in groups
    reward_map(&r, 2, 0.5);
    reward_candidates(&r, prompts, y, N, token, K, score);
    for (int i = 0; i < N; i++)
        for (size_t t = 0; t < y[i].n; t++)
            for (int k = 0; k < K; k++, s++) {
                Response part = {.prompt = y[i].prompt, .ids = ids, .n = t + 1};
                memcpy(ids, y[i].ids, t * sizeof *ids);
                ids[t] = token[s - score];
                reward_assign(&r, prompts, &part, 1, false);
                CHECK(fabs(*s - part.reward) < 1e-5, "response %d, token %zu: %g, as a text %g", i, t, *s, part.reward);
            }
    reward_close(&r);
    tokenizer_free(policy);
}

static void test_prefixes_as_texts(void)
{
    static const char *const rewards[] = {"while read -r l; do echo ${#l}; done", "dev/fixtures/distilbert"};
    Tokenizer *policy = tokenizer_load("dev/demo/lm");
    for (size_t i = 0; i < COUNT(rewards); i++) {
        Reward r;
        reward_open(&r, rewards[i], policy, ops_cpu(), 512, 60);
        check_prefixes(&r, policy);
        reward_close(&r);
    }
    tokenizer_free(policy);
}

// A reward model whose tokenizer is not the policy's gets the text: the demo's, with one merge less
static void test_other_tokenizer(void)
{
    const char *files[] = {"config.json", "model.safetensors", "tokenizer_config.json", "tokenizer.json"};
    char *dir = tmp_path("rm_other"), *text = NULL;
    size_t n;
    make_folder(dir);
    for (int i = 0; i < 4; i++) {
        char *from = format("dev/demo/rm/%s", files[i]), *to = format("%s/%s", dir, files[i]), *s = read_file(from, &n),
             *last = strstr(s, ",[\"at\",\"or\"]]}}");
        if (last) n = (size_t)(last - s) + strlen(strcpy(last, "]}}"));
        write_file(to, s, n);
        free(from); free(to); arrfree(s);
    }
    Tokenizer *policy = tokenizer_load("dev/demo/lm"), *own = tokenizer_load(dir);
    Reward r, same;
    reward_open(&r, dir, policy, ops_cpu(), 512, 60);
    reward_open(&same, dir, own, ops_cpu(), 512, 60);
    CHECK(!r.same_tokenizer && same.same_tokenizer, "one merge makes another tokenizer");
    for (int finished = 0; finished < 2; finished++) {
        Prompt p = {.text = xstrdup("The narrator")}, none = {0};
        Response y = {.finished = finished}, z = {0};
        y.ids = tokenizer_encode(policy, " is no actor, the director a traitor", 36, &y.n);
        text = format("%s is no actor, the director a traitor%s", p.text, finished ? "<|endoftext|>" : "");
        z.ids = tokenizer_encode(own, text, strlen(text), &z.n);
        if (finished) { y.ids = xrealloc(y.ids, (y.n + 1) * sizeof(int)); y.ids[y.n++] = tokenizer_eos(policy); }
        p.ids = tokenizer_encode(policy, p.text, strlen(p.text), &p.n);
        CHECK(z.n > p.n + y.n, "the text has the merge");
        reward_assign(&r, &p, &y, 1, false);
        reward_assign(&same, &none, &z, 1, false);
        CHECK(y.reward == z.reward, "finished %d: %g from the text, %g from its ids", finished, y.reward, z.reward);
        free(p.text); free(p.ids); free(text);
        response_free(&y); response_free(&z);
    }
    check_prefixes(&r, policy);
    reward_close(&r); reward_close(&same);
    tokenizer_free(policy); tokenizer_free(own);
}

static void distilbert_scores(const char *rm) // its golden logits and probabilities, scaled
{
    put("bert_in.jsonl", "{\"prompt\":\"This film\",\"response\":\" is wonderful.\"}\n{\"text\":\"No!\"}\n");
    Jsonl f;
    json_t *j, *golden[8];
    size_t n = 0;
    jsonl_open(&f, "dev/fixtures/distilbert/expected.jsonl");
    while (jsonl_next(&f, &golden[n])) n++;
    jsonl_close(&f);
    for (int prob = 0; prob < 2; prob++) {
        expect_success("score --model lm --reward %s --reward-output %s --reward-scale 2 --reward-offset 1 "
            "--in bert_in.jsonl --out bert_out.jsonl", rm, prob ? "prob" : "logit");
        jsonl_open(&f, tmp_path("bert_out.jsonl"));
        for (int line = 0; jsonl_next(&f, &j); line++) {
            json_t *x = json_object_get(golden[line * 2], "logits"); // the fixture's texts 0 and 2
            double want = prob ? 1 / (1 + exp(at(x, 1) - at(x, 0)) + exp(at(x, 2) - at(x, 0))) : at(x, 0);
            CHECK_NEAR(num(j, "reward"), 2 * want + 1, 1e-4, "reward");
            json_decref(j);
        }
        jsonl_close(&f);
    }
}

static void distilbert_runs(const char *rm)
{
    static const char *const runs[] = {
        "bon --model lm --prompts prompts.jsonl --n 3 --max-new 6 --out bert_bon.jsonl",
        "cache --model lm --prompts prompts.jsonl --samples 4 --max-new 6 --out bert_cache.jsonl",
        "train --model lm --prompts prompts.jsonl --cache bert_cache.jsonl --episodes 8 --rollout 4 --minibatch 4 "
        "--max-new 6 --out bert_run",
        "train --critic prefix-rank --prefix-every 2 --model lm --cache bert_cache.jsonl --episodes 8 --rollout 4 "
        "--minibatch 4 --max-new 6 --out bert_prefixes",
        "eval --reference lm --model lm --cache bert_cache.jsonl --samples 2 --max-new 6 --out bert_eval.json",
        "info --model lm --max-new 6"};
    for (size_t i = 0; i < COUNT(runs); i++) expect_success("%s --reward %s", runs[i], rm);
    expect_success("info --model %s --memory 1GB", rm);
    static const Refused cases[] = {
        {"cache --model lm --prompts prompts.jsonl --samples 4 --max-new 6 --reward-output prob "
         "--out bert_cache.jsonl", 1, "another reward"},
        {"eval --reference lm --model lm --cache bert_cache.jsonl --samples 2 --max-new 6 --reward-output prob", 1,
         "another reward"}};
    char *with_reward = format("%%s --reward %s", rm);
    expect_refusals(with_reward, cases, COUNT(cases));
    expect_failure("bon --model lm --reward rm --reward-output prob --prompt a --n 2 --max-new 4", 2, "no classifier");
    free(with_reward);
}

static void distilbert_folders(void) // that are not whole, and configurations that are not what is computed here
{
    #define BERTS "dev/fixtures/distilbert/"
    const char *score = "score --model lm --reward bert_bad --in bert_in.jsonl --out bert_none.jsonl";
    char *config = tmp_path("bert_bad/config.json"), *weights = tmp_path("bert_bad/model.safetensors");
    make_folder(tmp_path("bert_bad"));
    copy_file(BERTS "config.json", config);
    patch_header(BERTS "model.safetensors", weights, "layer.1.attention.k_lin.bias", "layer.1.attention.k_lim.bias");
    expect_failure(score, 1,
        "missing: transformer.layer.1.attention.k_lin.bias "
        "unused: distilbert.transformer.layer.1.attention.k_lim.bias");
    copy_file(BERTS "model.safetensors", weights);
    expect_failure(score, 1, "no vocab.txt");
    copy_file(BERTS "vocab.txt", tmp_path("bert_bad/vocab.txt"));
    expect_success("%s", score);
    static const struct { const char *text, *says; } cases[] = {
        {"{\"model_type\":\"distilbert\",\"architectures\":[\"DistilBertForMaskedLM\"]}", "DistilBertForMaskedLM"},
        {BERT_CLASSIFIER "\"id2label\":{\"0\":\"a\",\"1\":\"b\",\"2\":\"c\"}}", "none called POSITIVE"},
        {BERT_CLASSIFIER "\"id2label\":{\"0\":\"good\",\"1\":\"bad\"}}", "2 labels, none called POSITIVE or POS"},
        {BERT_CLASSIFIER "\"problem_type\":\"multi_label_classification\"}", "multi_label_classification"},
        {BERT_CLASSIFIER "\"activation\":\"silu\"}", "silu"},
        {BERT_CLASSIFIER "\"dim\":10,\"n_heads\":3}", "head size"}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        write_text(config, cases[i].text);
        expect_failure(score, 1, cases[i].says);
    }
    CHECK(access(tmp_path("bert_none.jsonl.tmp"), F_OK), "nothing half-written");
    write_text(config, BERT_CLASSIFIER "\"id2label\":{\"0\":\"pos\",\"1\":\"neg\"}}");
    char *plan = format("info --model %s", config), *said = vbon_output(plan);
    CHECK(strstr(said, "label 0 of 2 is the positive one"), "the label called pos is the positive one: %s", said);
    arrfree(said);
    free(plan); free(config); free(weights);
}

// DistilBERT as the reward of every command that takes one
static void test_distilbert_commands(void)
{
    tiny_folders();
    char rm[4096];
    if (!realpath("dev/fixtures/distilbert", rm)) die("no fixture");
    distilbert_scores(rm);
    distilbert_runs(rm);
    distilbert_folders();
    // what is not UTF-8
    put("bert_in.jsonl", "{\"text\":\"a\xff\"}\n");
    expect_failure("score --model lm --reward rm --in bert_in.jsonl --out bert_none.jsonl", 1,
        "bert_in.jsonl:1: byte 11 is not UTF-8");
    expect_failure("bon --model lm --reward rm --prompt \"$(printf 'a\\377')\" --n 2 --max-new 4", 2,
        "--prompt: byte 2 is not UTF-8");
}

// ----------------------------------------------------------------------------
// what must fit together before a run begins

// A folder with the demo's tokenizer, or without its last merge, and a model of V ids
static void folder_of(const char *name, size_t V, bool scalar, bool merge)
{
    Config c = {.arch = &architectures[ARCH_GPT2], .L = 1, .NH = 2, .C = 16, .F = 32, .V = V, .max_T = 24,
        .act = ACT_GELU_TANH, .tied = true, .scalar_head = scalar, .pad = -1, .eps = 1e-5, .init_std = 0.1,
        .eos = 1999};
    Model m;
    model_create(&m, ops_cpu(), &c, TRAIN_NONE, false, false);
    model_random(&m, 4);
    char *dir = tmp_path(name), *json = format("%s/tokenizer.json", dir);
    model_save(&m, dir, DT_F32, "dev/demo/tokenizer", 0);
    model_free(&m);
    if (!merge) {
        size_t n;
        char *s = read_file(json, &n), *last = strstr(s, ",[\"at\",\"or\"]]}}");
        write_file(json, strcpy(last, "]}}") - (last - s), (size_t)(last - s) + 3);
        arrfree(s);
    }
    free(dir); free(json);
}

static void bad_target(const char *which) // an id that is never read, only predicted; and one that is read
{
    Config c = tiny_of(0, 31, true, false);
    Model m;
    int ids[] = {1, 2, 31}, start[] = {0, 3};
    model_create(&m, ops_cpu(), &c, TRAIN_ALL, false, false);
    model_random(&m, 1);
    Pass pass;
    if (*which == 's') { // a response's score
        Prompt p = {.ids = ids, .n = 1};
        Response y = {.ids = ids + 1, .n = 2};
        Sequence q = sequence_of(&p, &y);
        double logp[8];
        pass_create(&pass, &m, 8, false);
        sequence_logps(&pass, &m.p, &q, 1, 1, logp, NULL);
    } else if (*which == 't') { // training
        Row row = {0, 3, 1, 0};
        Corpus corpus = {.kind = LOSS_LM, .tokens = ids, .rows = &row, .n_rows = 1};
        pass_create(&pass, &m, 8, true);
        supervised_batch(&pass, &corpus, (size_t[]){0}, 1, 1, false, NULL);
    } else {
        Batch b;
        Arena work = {.name = "test", .o = ops_cpu()};
        for (int placed = 0; placed < 2; placed++) { if (placed) arena_place(&work); batch_carve(&b, &work, 8, 1); }
        batch_set(&b, &m, ids, start, NULL, 1);
    }
}

static void other_end(const char *dir)
{
    Tokenizer *t = tokenizer_load(dir), u = *t;
    u.eos = -1;
    tokenizers_check(t, "one", &u, "the other");
}

static void ids_are_in_the_vocabulary(void) // every id that is read or predicted
{
    expect_death(bad_target, "score", 1, "token 31: the model's vocabulary has 31");
    expect_death(bad_target, "trainer", 1, "token 31: the model's vocabulary has 31");
    expect_death(bad_target, "batch", 1, "token 31: the model's vocabulary has 31");
    expect_death(other_end, "dev/demo/lm", 1, "end a text differently, by token 1999 and -1");
}

static void models_and_tokenizers(void)
{
    folder_of("small_lm", 1999, false, true); folder_of("small_rm", 1999, true, true);
    folder_of("pad_lm", 2600, false, true); folder_of("pad_rm", 2600, true, true);
    folder_of("merge_lm", 2000, false, false);
    // classes
    char bert[4096];
    make_folder(tmp_path("three"));
    put("three/config.json", "{\"model_type\":\"gpt2\",\"architectures\":[\"GPT2ForSequenceClassification\"],"
        "\"vocab_size\":2000,\"n_positions\":24,\"n_embd\":16,\"n_layer\":1,\"n_head\":2,"
        "\"id2label\":{\"0\":\"a\",\"1\":\"b\",\"2\":\"c\"}}");
    if (!realpath("dev/fixtures/distilbert", bert)) die("no fixture");
    char *link = format("ln -s %s bert", bert);
    shell(link);
    free(link);
    put("agree.jsonl",
        "{\"prompt\":\"This film\",\"response\":\" is good\"}\n"
        "{\"prompt\":\"I\",\"response\":\" like it\"}\n");
    put("agree_labels.jsonl", "{\"text\":\"good\",\"label\":1}\n{\"text\":\"bad film\",\"label\":0}\n");
    expect_success(CACHE "agree_cache.jsonl");
    #define EVAL "eval --cache agree_cache.jsonl --reward rm --max-new 6 "
    #define LM_WANTED "a language model (GPT2LMHeadModel, GPTNeoXForCausalLM)"
    static const char *const cases[][2] = {
        {"sample --model small_lm --prompt a",
         "small_lm: the tokenizer has 2000 ids (the last is \"<|endoftext|>\"), the model small_lm only 1999"},
        {"bon --model small_lm --reward rm --prompt a", "2000 ids"},
        {"score --model small_lm --in agree.jsonl --out agree_none", "2000 ids"},
        {"cache --model small_lm --reward rm --prompts agree.jsonl --max-new 6 --out agree_none", "2000 ids"},
        {"train --model small_lm --reward rm --cache agree_cache.jsonl --max-new 6 --out agree_none", "2000 ids"},
        {"offline --model small_lm --cache agree_cache.jsonl --loss bon-sft --out agree_none", "2000 ids"},
        {"sft --model small_lm --data agree.jsonl --out agree_none", "2000 ids"},
        {"reward --init small_lm --layers 1 --data agree_labels.jsonl --out agree_none", "2000 ids"},
        {"sft --model small_lm --tokenizer lm --data agree.jsonl --out agree_none", "lm: the tokenizer has 2000 ids"},
        {EVAL "--model small_lm --reference lm", "2000 ids"},
        {EVAL "--model lm --reference small_lm", "2000 ids"},
        {EVAL "--model pad_lm --reference lm", "vocabularies of 2600 and 2000 ids"},
        {EVAL "--model merge_lm --reference lm", "different tokenizers"},
        {EVAL "--model lm --reference merge_lm", "different tokenizers"},
        {"bon --model lm --reward small_rm --prompt a --max-new 6", "small_rm: the tokenizer has 2000 ids"},
        {"cache --model lm --reward small_rm --prompts agree.jsonl --max-new 6 --out agree_none", "2000 ids"},
        {"sft --model rm --data agree.jsonl --out agree_none",
         "rm: a reward model (GPT2ForSequenceClassification), but --model takes " LM_WANTED},
        {"offline --model rm --cache agree_cache.jsonl --loss bon-sft --out agree_none", LM_WANTED},
        {"reward --init rm --layers 1 --data agree_labels.jsonl --out agree_none",
         "rm: a reward model (GPT2ForSequenceClassification), but --init takes"},
        {"reward --init three --layers 1 --data agree_labels.jsonl --out agree_none",
         "three: a classifier of 3 labels"},
        {"sample --model rm --prompt a", LM_WANTED},
        {"sample --model bert --prompt a",
         "bert: a reward model (DistilBertForSequenceClassification), but --model takes"},
        {"sft --model bert --tokenizer lm --data agree.jsonl --out agree_none", LM_WANTED},
        {"bon --model rm --reward rm --prompt a", LM_WANTED},
        {"cache --model rm --reward rm --prompts agree.jsonl --out agree_none", LM_WANTED},
        {"score --model three --in agree.jsonl --out agree_none", "a classifier of 3 labels"},
        {"train --model rm --reward rm --cache agree_cache.jsonl --out agree_none", LM_WANTED},
        {EVAL "--model rm --reference lm", LM_WANTED},
        {EVAL "--model lm --reference rm", "--reference takes " LM_WANTED},
        {EVAL "--method bon --reference rm", "--reference takes " LM_WANTED},
        {"bon --model lm --reward lm --prompt a --max-new 6",
         "lm: a language model (GPT2LMHeadModel), but --reward takes a reward model"},
        {"score --model lm --reward three --in agree.jsonl --out agree_none", "three: a classifier of 3 labels"},
        {"info --model lm --reward three", "three: a classifier of 3 labels"},
        {"info --model lm --reward lm", "--reward takes a reward model"},
        {"offline --model lm --reward lm --cache agree_cache.jsonl --loss bon-sft --out agree_none",
         "--reward takes a reward model"},
        {"cache --model lm --reward lm --prompts agree.jsonl --max-new 6 --out agree_none",
         "--reward takes a reward model"}};
    for (size_t i = 0; i < COUNT(cases); i++) expect_failure(cases[i][0], 1, cases[i][1]);
    CHECK(access(tmp_path("agree_none"), F_OK), "what cannot begin leaves nothing behind");
    setenv("COLUMNS", "10000", 1); // no line of the help is broken
    char *help = vbon_output("reward --help");
    CHECK(strstr(help, "language model's folder"), "reward --help names the class");
    help = vbon_output("score --help");
    CHECK(strstr(help, "folder of a language model") && strstr(help, "folder of a reward model (a classifier"),
          "score --help names the classes");
    unsetenv("COLUMNS");
}

static void wild_caches_are_refused(void) // a cache with another vocabulary's ids, whoever reads it
{
    put("agree_wild.jsonl",
        "{\"prompt\":\"I\",\"ids\":[5],\"reward\":1}\n"
        "{\"prompt\":\"I\",\"ids\":[5,2000],\"reward\":2}\n");
    static const char *const readers[] = {
        "train --model lm --reward rm --max-new 6 --out agree_none --cache",
        "offline --model lm --loss bon-sft --n 1 --out agree_none --cache",
        "eval --model lm --reference lm --reward rm --max-new 6 --cache",
        "eval --method bon --n 1 --reference lm --reward rm --max-new 6 --prompts prompts.jsonl "
        "--cache agree_cache.jsonl --pool"};
    for (size_t i = 0; i < COUNT(readers); i++) {
        char *args = format("%s agree_wild.jsonl", readers[i]);
        expect_failure(args, 1, "agree_wild.jsonl: prompt \"I\", draw 1: \"ids\" holds 2000");
        free(args);
    }
}

// A padded vocabulary is fine: its further ids are drawn, are nothing in a text, and to a reward model without an
// embedding for them the response is its text
static void padded_vocabularies_work(void)
{
    expect_success("cache --model pad_lm --reward rm --prompts prompts.jsonl --samples 16 --max-new 6 "
        "--out agree_pad.jsonl");
    expect_success("train --model pad_lm --reward rm --cache agree_pad.jsonl --n 2 --max-new 6 --episodes 8 "
        "--rollout 8 --minibatch 8 --out agree_pad");
    expect_success("train --model pad_lm --reward rm --cache agree_pad.jsonl --n 2 --max-new 6 --episodes 8 "
        "--rollout 8 --minibatch 8 --critic prefix-rank --out agree_ranks");
    expect_success("eval --model agree_pad --reference pad_lm --reward rm --cache agree_pad.jsonl --samples 2 "
        "--max-new 6");
    expect_success("cache --model pad_lm --reward pad_rm --prompts prompts.jsonl --samples 8 --max-new 6 "
        "--out agree_pads.jsonl");
    expect_success("train --model pad_lm --reward pad_rm --cache agree_pads.jsonl --critic prefix-rank --n 2 "
        "--max-new 6 --episodes 8 --rollout 8 --minibatch 8 --out agree_pads");
    Cache c;
    size_t beyond = 0, n;
    cache_read(&c, tmp_path("agree_pad.jsonl"), 0);
    Tokenizer *t = tokenizer_load("dev/demo/lm");
    Reward r;
    reward_open(&r, tmp_path("rm"), t, ops_cpu(), 512, 60);
    for (size_t i = 0; i < c.n; i++)
        for (size_t k = 0; k < c.prompts[i].n; k++) {
            const CacheSample *x = &c.prompts[i].samples[k];
            bool odd = false;
            for (size_t j = 0; j < x->n_ids; j++) odd |= x->ids[j] >= 2000;
            if (!odd) continue;
            beyond++;
            char *s = tokenizer_decode(t, x->ids, x->n_ids - (x->ids[x->n_ids - 1] == 1999), NULL),
                *all = format("%s%s%s", c.prompts[i].prompt, s, x->ids[x->n_ids - 1] == 1999 ? "<|endoftext|>" : "");
            if (strlen(s) == utf8_valid(s, strlen(s))) {
                Prompt none = {0};
                Response y = {.ids = tokenizer_encode(t, all, strlen(all), &n)};
                y.n = n;
                reward_assign(&r, &none, &y, 1, false);
                CHECK_NEAR(x->reward, y.reward, 1e-6, "a response with an id beyond the reward model's is its text");
                response_free(&y);
            }
            free(s); free(all);
        }
    CHECK(beyond > 10, "%zu responses hold an id beyond the tokenizer's", beyond);
    reward_close(&r); tokenizer_free(t); cache_free(&c);
}

static void test_agree(void)
{
    tiny_folders();
    ids_are_in_the_vocabulary();
    models_and_tokenizers();
    wild_caches_are_refused();
    padded_vocabularies_work();
}

static double reward_spread(const char *name)
{
    Cache c;
    double n = 0, sum = 0, squares = 0;
    cache_read(&c, tmp_path(name), 0);
    for (size_t i = 0; i < c.n; i++)
        for (size_t k = 0; k < c.prompts[i].n; k++) {
            double x = c.prompts[i].samples[k].reward;
            n++; sum += x; squares += x * x;
        }
    cache_free(&c);
    return sqrt(squares / n - sum / n * sum / n);
}

#define LENGTHS "while IFS= read -r l; do echo -${#l}; done\n"
#define RULE_CACHE "cache --model lm --reward 'sh rule.sh' --prompts prompts.jsonl --samples 8 --max-new 6 --out "
static void rewards_that_changed(void)
{
    static const char *const uses[] = {
        "train --model lm --n 2 --max-new 6 --episodes 8 --rollout 8 --minibatch 8 --out stale_run",
        "offline --model lm --loss bon-sft --n 2 --steps 1 --out stale_off",
        "eval --model lm --reference lm --samples 2 --max-new 6 --out stale_eval.json"};
    enum { CHANGED, RANDOM, SAME };
    static const char *const edits[] = {
        [CHANGED] = "while IFS= read -r l; do echo $((5 * ${#l})); done\n",
        [RANDOM] = "n=0; while IFS= read -r l; do n=$((n+1)); echo $n; done\n",
        [SAME] = LENGTHS};
    put("rule.sh", LENGTHS);
    expect_success(RULE_CACHE "stale.jsonl");
    size_t n;
    char *whole = read_file(tmp_path("stale.jsonl"), &n), *end = whole;
    for (int i = 0; i < 12; i++) end = strchr(end, '\n') + 1;
    write_file(tmp_path("begun.jsonl"), whole, (size_t)(end - whole));
    write_file(tmp_path("begun_was.jsonl"), whole, (size_t)(end - whole));
    arrfree(whole);
    for (size_t i = 0; i < COUNT(edits); i++) {
        const char *random = "--reward sh rule.sh: random: to prompt";
        put("rule.sh", edits[i]);
        if (i == SAME) expect_success(RULE_CACHE "begun.jsonl");
        else expect_failure(RULE_CACHE "begun.jsonl", 1, i == RANDOM ? random : "begun.jsonl: prompt \"");
        CHECK(same_files("begun.jsonl", i == SAME ? "stale.jsonl" : "begun_was.jsonl"),
            "a cache gone on with by another reward");
        for (size_t k = 0; k < COUNT(uses); k++) {
            char *args = format("%s --reward 'sh rule.sh' --cache stale.jsonl", uses[k]);
            if (i == SAME) expect_success("%s", args);
            else expect_failure(args, 1, i == RANDOM ? random : "stale.jsonl: prompt \"");
            free(args);
        }
    }
    expect_failure("train --model lm --n 2 --max-new 6 --out stale_no --reward 'echo 1' --cache stale.jsonl", 1,
        "another reward");
}

// How it is mapped, and what a missing end costs, in a cache whose header does not say
static void mappings_that_changed(void)
{
    expect_success("cache --model lm --reward rm --reward-scale 2 --reward-offset -3 --missing-eos -1.5 --prompts "
        "prompts.jsonl --samples 8 --max-new 6 --out mapped.jsonl");
    rewrite_cache("mapped.jsonl", "bare.jsonl", false, 1, 0);
    #define STALE_EVAL "eval --model lm --reference lm --samples 1 --max-new 6 --reward rm "
    expect_success(STALE_EVAL "--reward-scale 2 --reward-offset -3 --missing-eos -1.5 --cache mapped.jsonl");
    expect_success(STALE_EVAL "--reward-scale 2 --reward-offset -3 --missing-eos -1.5 --cache bare.jsonl");
    expect_failure(STALE_EVAL "--reward-scale 2 --reward-offset -3 --cache bare.jsonl", 1,
        "the cached reward is -1.5, the reward gives");
    expect_failure(STALE_EVAL "--reward-scale 2 --reward-offset -3 --missing-eos -2 --cache bare.jsonl", 1,
        "the cached reward is -1.5, the reward gives -2 now");
}

// Rounding: both sides of what is let pass: in fp32, by the flag, with bfloat16 now, with bfloat16 when it was made
static void rounding_is_let_pass(void)
{
    #define RM_CACHE "cache --model lm --reward rm --prompts prompts.jsonl --samples 8 --max-new 6 "
    expect_success(RM_CACHE "--precision fp32 --out exact.jsonl");
    expect_success(RM_CACHE "--precision bf16 --out rough.jsonl");
    double spread = reward_spread("exact.jsonl");
    static const struct { const char *from; double off; const char *flags; bool fine; } cases[] = {
        {"exact.jsonl", 3e-5, "", true}, {"exact.jsonl", -3e-5, "", true},
        {"exact.jsonl", 5e-4, "", false}, {"exact.jsonl", -5e-4, "", false},
        {"exact.jsonl", 5e-4, "--reward-tolerance 0.001", true},
        {"exact.jsonl", 5e-3, "--reward-tolerance 0.001", false},
        {"exact.jsonl", 0.03, "--precision bf16", true},
        {"exact.jsonl", 0.3, "--precision bf16", false},
        {"rough.jsonl", 0.03, "", true}, {"rough.jsonl", 0.3, "", false}, {"rough.jsonl", 0, "--precision bf16", true}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        rewrite_cache(cases[i].from, "moved.jsonl", true, 1, cases[i].off * spread);
        char *args = format(STALE_EVAL "--cache moved.jsonl %s", cases[i].flags);
        if (cases[i].fine) expect_success("%s", args); else expect_failure(args, 1, "moved.jsonl: prompt \"");
        free(args);
    }
}

// The compact form: where it keeps ids their responses are scored, where it keeps none it is said
static void compact_caches_are_checked(void)
{
    const char *f = test_folder;
    char *args = format("eval --model %s/lm --reference %s/lm --reward %s/rm --samples 1 --max-new 6 "
        "--cache %s/compact_stale.jsonl 2>/dev/null", f, f, f, f), *said;
    rewrite_cache("exact.jsonl", "negative.jsonl", false, -1, 0);
    for (int draws = 0; draws < 3; draws += 2) {
        for (int negative = 0; negative < 2; negative++) {
            remove(tmp_path("compact_stale.jsonl")); // which has a header, and would not be replaced
            expect_success("compact --cache %s.jsonl --draws %d --out compact_stale.jsonl",
                negative ? "negative" : "exact", draws);
            if (negative && draws)
                expect_failure(STALE_EVAL "--cache compact_stale.jsonl", 1, "compact_stale.jsonl: prompt \"");
            if (negative) continue;
            said = vbon_output(args);
            const char *want = draws ? "8 responses scored again have" : "keeps no response that could be scored again";
            CHECK(strstr(said, want), "with the ids of %d draws: %s", draws, said);
            arrfree(said);
        }
    }
    free(args);
}

// Texts by themselves: what reads text scores them; what reads ids cannot know theirs
static void texts_by_themselves(void)
{
    put("texts_only.jsonl",
        "{\"prompt\":\"I\",\"text\":\"ab\",\"reward\":-34}\n"
        "{\"prompt\":\"I\",\"text\":\"abcd\",\"reward\":-36}\n");
    #define TEXTS_ONLY "offline --model lm --loss bon-sft --n 2 --steps 1 --cache texts_only.jsonl "
    expect_failure(TEXTS_ONLY "--out stale_no --reward 'sh rule.sh'", 1, "the cached reward is -3");
    expect_success(TEXTS_ONLY "--out stale_ok --reward rm");
    CHECK(access(tmp_path("stale_no"), F_OK), "what cannot begin leaves nothing behind");
}

// A sample without its ids, of which the key says that they were others: scored as a text, and it is said; a key of
// another kind is nobody's business
static void keys_of_other_ids(void)
{
    const int others[] = {1, 2};
    char *keyed = format("{\"prompt\":\"I\",\"text\":\"ab\",\"key\":\"%016llx\"}\n"
        "{\"prompt\":\"I\",\"text\":\"ab\",\"key\":\"mine\"}\n", (unsigned long long)order_key(others, 2));
    put("keyed.jsonl", keyed);
    const char *f = test_folder;
    char *args = format("score --model %s/lm --in %s/keyed.jsonl --out %s/keyed_out.jsonl", f, f, f);
    char *said = vbon_output(args);
    CHECK(strstr(said, "keyed.jsonl: 1 texts encode to other tokens than were sampled"), "score of a key: %s", said);
    arrfree(said);
    free(args); free(keyed);
}

static void test_stale(void) // a reward that is no longer what the cache was made with
{
    tiny_folders();
    rewards_that_changed();
    mappings_that_changed();
    rounding_is_let_pass();
    compact_caches_are_checked();
    texts_by_themselves();
    keys_of_other_ids();
}
