// sizes_test.h: numbers that are too large, files that are no files or become shorter, memory that is not there.
// dev/check_flags.sh tries every flag's ends.

static void multiply(const char *by) { checked_product("the size", (size_t)1 << 30, (size_t)strtoull(by, NULL, 10)); }
static void carve_much(const char *what)
{
    (void)what;
    Arena a = {.name = "test", .o = ops_cpu()};
    for (int i = 0; i < 9; i++) arena_take(&a, (size_t)1 << 51, DT_F64, "a heap");
}
static void read_shorter(const char *path) // the file loses its end between being opened and being read
{
    Safetensors *s = safetensors_open(path);
    const Tensor *last = NULL;
    for (size_t i = 0; i < safetensors_count(s); i++)
        if (!last || safetensors_at(s, i)->at > last->at) last = safetensors_at(s, i);
    if (truncate(path, (off_t)last->at)) {}
    real *x = (real *)xmalloc(last->n * sizeof *x);
    tensor_to_real(x, last, 0, last->n, path);
}
static void open_weights(const char *path) { safetensors_open(path); }

// Runs vbon in the test folder behind `before`, which is shell; in 60 seconds at most
static int in_limits(const char *before, const char *args, char **err)
{
    char *e = tmp_path("err"),
         *cmd = format("cd %s && %s timeout -k 1 60 '%s' %s >/dev/null 2>%s", test_folder, before, vbon(), args, e);
    size_t n;
    int status = system(cmd);
    *err = read_file(e, &n);
    free(cmd); free(e);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void works(const char *before, const char *args)
{
    char *said;
    int code = in_limits(before, args, &said);
    CHECK(code == 0, "%s vbon %s: exit %d: %s", before, args, code, said);
}

static void products_that_are_too_large(void)
{
    CHECK(checked_product("", 1 << 20, 1 << 20) == (size_t)1 << 40 && !checked_product("", 0, SIZE_MAX) &&
            !checked_product("", SIZE_MAX, 0),
        "products that fit");
    expect_death(multiply, "1073741824", 1, "the size: more than any memory holds");
    expect_death(multiply, "18446744073709551615", 1, "the size: more than any memory holds");
    expect_death(carve_much, "", 1, "a heap: more than any memory holds");
}

static void flags_have_ranges(void) // every number among the flags has two ends (a seed is any number)
{
    for (size_t i = 0; i < n_flags; i++) {
        const Flag *f = &flag_table[i];
        const char *dots = f->choices ? strstr(f->choices, "..") : NULL;
        bool number = f->type == FLAG_LONG || f->type == FLAG_DOUBLE;
        CHECK(!number || (dots && (dots[2] || !strcmp(f->name, "seed"))), "--%s has no range", f->name);
        CHECK(f->type != FLAG_LONG || !strcmp(f->name, "seed") || (dots && strtod(dots + 2, NULL) <= 1e9),
            "--%s: two such numbers must multiply in 64 bits", f->name);
    }
}

static void numbers_that_are_too_large(void)
{
    #define SIZED "eval --model lm --reference lm --reward rm --cache sizes.jsonl --max-new 6 "
    static const Refused cases[] = {
        {"sample --model lm --prompt a --temperature 1e-38", 2, "--temperature 1e-38: must be at least 0.0001"},
        {"sample --model lm --prompt a --temperature 1e-400", 2, "must be at least"},
        {"train --model lm --reward rm --cache sizes.jsonl --max-new 6 --out big --episodes 9223372036854775807", 2,
         "--episodes 9223372036854775807: must be"},
        {"sft --tokenizer lm --data sized.jsonl --out big --epochs 1e30", 2, "--epochs 1e30: must be"},
        {"sft --tokenizer lm --data sized.jsonl --out big --layers 1 --width 8 --heads 1 --epochs 1e9 --batch 1", 2,
         "e+09 optimiser steps"},
        {"sft --tokenizer lm --data sized.jsonl --out big --width 65536 --layers 1000", 2, "parameters is absurd"},
        {"sft --tokenizer lm --data sized.jsonl --out big --train-layers 99999999999999999999", 2,
         "--train-layers 99999999999999999999"},
        {"train --model lm --reward rm --cache sizes.jsonl --max-new 6 --out big --missing-eos 1e30", 2,
         "--missing-eos 1e30"},
        {SIZED "--ns 99999999999999999999", 2, "--ns 99999999999999999999"},
        {SIZED "--ns 1,2,3,4,5,6,7,8,9", 2, "at most 8"},
        {SIZED "--method bon --samples 1000000000 --n 1000000000", 1,
         "--samples times --n: more than any memory holds"},
        {"train --model lm --reward rm --cache sizes.jsonl --max-new 6 --out big --rollout 1000000000 "
         "--episodes 1000000000",
         1, "out of memory"},
        {"score --model lm --in sized.jsonl --out big --micro-tokens 1000000000", 1,
         "out of memory: activations needs"}};
    expect_refusals("%s", cases, COUNT(cases));
}

static void seeds_of_64_bits(void) // come back
{
    size_t n;
    expect_success(SIZED "--samples 1 --ns 2 --seed 9007199254740993 --out seed.json");
    char *e = tmp_path("seed.json"), *s = read_file(e, &n);
    CHECK(s && strstr(s, "\"seed\":9007199254740993"), "the seed in eval's output: %s", s ? s : "none");
    arrfree(s);
}

// A config may name any context: work memory follows the texts. A context of 1 has nothing to predict.
static void contexts_of_any_length(void)
{
    for (int kind = 0; kind < 3; kind++) {
        Config c = {.arch = &architectures[ARCH_NEOX], .L = 2, .NH = 2, .C = 16, .F = 32, .V = 2000,
            .max_T = kind < 2 ? 1 << 24 : 1, .act = ACT_GELU_ERF, .rotary_pct = 0.25, .rotary_base = 10000,
            .scalar_head = kind == 1, .eps = 1e-5, .init_std = 0.1, .eos = 1999, .pad = -1};
        Model m;
        model_create(&m, ops_cpu(), &c, TRAIN_NONE, false, false);
        model_random(&m, 4);
        char *dir = tmp_path(kind == 2 ? "one_lm" : kind ? "vast_rm" : "vast_lm");
        model_save(&m, dir, DT_F32, "dev/demo/tokenizer", 0);
        Reward r = {.m = m, .tokens = 512, .work = {.name = "test", .o = ops_cpu()}};
        reward_carve(&r, 8, 8);
        CHECK(r.work.high < 2 << 20, "a reward model's work memory for 8 tokens and 8: %zu bytes", r.work.high);
        acts_free(&r.acts); kv_free(&r.prompts); kv_free(&r.own);
        model_free(&m);
        free(dir);
    }
    const char *limit = few() ? "" : "ulimit -v 1500000 &&"; // AddressSanitizer needs all addresses
    works(limit, "score --model vast_lm --reward vast_rm --in sized.jsonl --out vast.jsonl");
    works(limit, "cache --model vast_lm --reward vast_rm --prompts prompts.jsonl --samples 4 --max-new 4 "
        "--out vc.jsonl");
    works(limit, "eval --model vast_lm --reference vast_lm --reward vast_rm --cache vc.jsonl --samples 2 --max-new 4 "
        "--ns 2");
    works(limit, "sft --model vast_lm --data sized.jsonl --context 1000000000 --steps 1 --out vast_sft");
    expect_failure("sft --model one_lm --data sized.jsonl --steps 1 --out one_sft", 1, "own context is 1");
    // texts longer than the context, and than the 48 tokens that are measured on
    works("", "reward --tokenizer lm --data sized.jsonl --held-out sized.jsonl --layers 1 --width 8 --heads 1 "
        "--context 4 --micro-tokens 1 --steps 1 --out short_rm");
}

static void little_memory(void) // one line, whenever the address space runs out
{
    char *said;
    for (int MiB = 48; MiB < 260 && !few(); MiB += 12) {
        char *before = format("rm -rf tight; ulimit -v %d && OMP_NUM_THREADS=2", MiB << 10);
        const char *args = "sft --tokenizer lm --data sized.jsonl --layers 1 --width 64 --heads 2 --context 16 "
            "--steps 2 --out tight";
        int code = in_limits(before, args, &said);
        // seen once in some 400 runs and not found again; a fault of ours would come again
        if (code >= 128) code = in_limits(before, args, &said);
        CHECK(code == 0 || (code == 1 && (strstr(said, "out of memory") || strstr(said, "libgomp"))) ||
                strstr(said, "shared librar"),
            "sft in %d MiB of addresses: %d: %s", MiB, code, said);
        free(before);
    }
}

// Files that are none: a folder, a pipe that nobody writes to, a device that never ends, in place of each file that is
// read
static void files_that_are_none(void)
{
    char *said;
    static const struct { const char *file, *args; bool stream; } read[] = {
        {"odd/config.json", "sample --model odd --prompt a", false},
        {"odd/model.safetensors", "sample --model odd --prompt a", false},
        {"odd/tokenizer.json", "sample --model odd --prompt a", false},
        {"odd/tokenizer_config.json", "sample --model odd --prompt a", false},
        {"odd.jsonl", "train --model lm --reward rm --cache odd.jsonl --max-new 6 --out big", false},
        {"odd.jsonl", "reward --tokenizer lm --data odd.jsonl --out big", false},
        {"odd.jsonl", CACHE "odd.jsonl", false},
        {"odd.jsonl", "sample --model lm --prompts odd.jsonl", true},
        {"odd.jsonl", "score --model lm --in odd.jsonl --out big", true},
        {"odd.jsonl", "sft --tokenizer lm --data odd.jsonl --out big", true},
        {"odd/vocab.txt", "score --model lm --reward odd --in sized.jsonl --out big", false}};
    static const struct { const char *make, *says; } odd[] = {
        {"mkdir", "it is a folder"}, {"mkfifo", "it is a pipe"}, {"ln -s /dev/zero", "it is a device"}};
    for (size_t i = 0; i < COUNT(read); i++)
        for (size_t k = 0; k < 3; k++) {
            if (read[i].stream && k == 1) continue;
            bool bert = strstr(read[i].file, "vocab.txt");
            char *make = format("cd %s && rm -rf odd odd.jsonl && cp -r %s odd && rm -rf %s && %s %s", test_folder,
                bert ? realpath("dev/fixtures/distilbert", NULL) : "lm", read[i].file, odd[k].make, read[i].file);
            CHECK(!system(make), "%s", make);
            if (bert) { char *json = tmp_path("odd/tokenizer.json"); unlink(json); free(json); }
            int code = in_limits("", read[i].args, &said);
            CHECK(code == 1 && strstr(said, read[i].file) && strstr(said, odd[k].says),
                "%s for %s, vbon %s: exit code %d: %s", odd[k].make, read[i].file, read[i].args, code, said);
            free(make);
        }
    works("cat sized.jsonl |", "score --model lm --in /dev/stdin --out piped.jsonl");
    works("cat prompts.jsonl |", "sample --model lm --prompts /dev/stdin --max-new 2");
    int piped = in_limits("cat sizes.jsonl |",
        "eval --model lm --reference lm --reward rm --max-new 6 --cache /dev/stdin", &said);
    CHECK(piped == 1 && strstr(said, "it is a pipe"), "a cache, which is read twice, from a pipe: %s", said);
}

static void files_that_shrink(void) // while they are read
{
    size_t n;
    char *whole = tmp_path("lm/model.safetensors"), *cut = tmp_path("cut.safetensors");
    char *s = read_file(whole, &n);
    write_file(cut, s, n);
    expect_death(read_shorter, cut, 1,
        "cut.safetensors: transformer.ln_f.bias cannot be read: the file has become shorter");
    uint64_t header = (8 << 20) + 1;
    memcpy(s, &header, 8);
    write_file(cut, s, n);
    expect_death(open_weights, cut, 1, "its header claims 8388609 bytes, 8 MiB are read at most");
    arrfree(s);
    free(whole); free(cut);
}

static void test_sizes(void)
{
    tiny_folders();
    put("sized.jsonl",
        "{\"text\":\"some words of a film\",\"label\":1}\n"
        "{\"text\":\"another film that is too long for a row of so few tokens as these\",\"label\":0}\n");
    expect_success(CACHE "sizes.jsonl");
    products_that_are_too_large();
    flags_have_ranges();
    numbers_that_are_too_large();
    seeds_of_64_bits();
    contexts_of_any_length();
    little_memory();
    files_that_are_none();
    files_that_shrink();
}
