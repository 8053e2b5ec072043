// fault_test.h: failed writes and reads, closed descriptors, two runs at once, other people's files and links, early
// ends.

static void limit_files(long bytes) // the largest file this process may write; -1: any
{
    struct rlimit r;
    getrlimit(RLIMIT_FSIZE, &r);
    r.rlim_cur = bytes < 0 ? r.rlim_max : (rlim_t)bytes;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &r);
}

static void limit_memory(void) // to 64 MiB more than it has
{
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f || fscanf(f, "%lu", &pages) != 1) die("no /proc/self/statm");
    fclose(f);
    rlim_t bytes = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + (64 << 20);
    setrlimit(RLIMIT_AS, &(struct rlimit){bytes, bytes});
}

static void append_fails(const char *path)
{
    Append a;
    char *lines = format("%4095s\n", "whole");
    append_open(&a, path);
    append_write(&a, lines, 4096);
    limit_files(4100); // standard error has room
    append_write(&a, "half a line\n", 12);
}

// the stream forgets what it could not write; what comes after is written
static void aside_fails_once(const char *path)
{
    AsideFile *a = aside_open(path);
    fputs("lost", a->f);
    limit_files(1);
    fflush(a->f);
    limit_files(-1);
    fputs("written", a->f);
    aside_commit(a);
}

static const char *cookie_text;
static bool cookie_endless;
static ssize_t cookie_read(void *cookie, char *to, size_t n)
{
    (void)cookie;
    size_t k = strlen(cookie_text) < n ? strlen(cookie_text) : n;
    if (cookie_endless) { memset(to, 'x', n); return (ssize_t)n; }
    if (!k) { errno = EIO; return -1; }
    memcpy(to, cookie_text, k);
    cookie_text += k;
    return (ssize_t)k;
}
static void read_fails(const char *text) // after this text
{
    Lines in = {.path = "broken", .f = fopencookie(NULL, "r", (cookie_io_functions_t){.read = cookie_read})};
    cookie_text = text;
    while (lines_next(&in)) {}
}
static void memory_ends(const char *text)
{
    limit_memory();
    cookie_endless = true;
    read_fails(text);
}
static void make_latin1(const char *s) { json_make("{s:s}", "a", s); }
static void open_aside(const char *path) { aside_open(path); }
static void fill_array(const char *path)
{
    char *a = NULL;
    (void)path;
    limit_memory();
    for (int i = 0; i < 1000; i++) *arraddnptr(a, 1 << 20) = 0;
}
static void fill_json(const char *path)
{
    char *s = xcalloc(1 << 20, 1);
    (void)path;
    limit_memory();
    begin_program();
    memset(s, 'a', (1 << 20) - 1);
    for (int i = 0; i < 1000; i++) json_string(s);
}

static bool file_is(const char *name, const char *text)
{
    size_t n;
    char *path = tmp_path(name), *s = read_file(path, &n);
    bool same = s && n == strlen(text) && !memcmp(s, text, n);
    arrfree(s); free(path);
    return same;
}
static bool is_there(const char *name)
{
    struct stat st;
    char *path = tmp_path(name);
    bool yes = !lstat(path, &st);
    free(path);
    return yes;
}
static int vbon_status(const char *args) // its redirections are its own
{
    char *cmd = format("cd %s && '%s' %s", test_folder, vbon(), args);
    int status = system(cmd);
    free(cmd);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void failed_writes_and_reads(void)
{
    char *grown = tmp_path("grown"), *once = tmp_path("once"), *folder = tmp_path("lm");
    bool address_space = true;
#ifdef __SANITIZE_ADDRESS__
    address_space = false; // it takes terabytes of it
#endif
    expect_death(append_fails, grown, 1, "grown: cannot be written: File too large");
    char *whole = format("%4095s\n", "whole");
    CHECK(file_is("grown", whole), "what a failed write left is cut off");
    expect_death(aside_fails_once, once, 1, "once: cannot be written");
    CHECK(!is_there("once") && !is_there("once.tmp"), "a file that lost a write is put in place");
    expect_death(read_fails, "a\nb", 1, "broken: cannot be read after line 1: Input/output error");
    expect_death(read_fails, "a\nb\n", 1, "broken: cannot be read after line 2: Input/output error");
    if (address_space) expect_death(memory_ends, "", 1, "broken: cannot be read after line 0: Cannot allocate memory");
    if (address_space) expect_death(fill_array, "", 1, "out of memory");
    if (address_space) expect_death(fill_json, "", 1, "out of memory");
    expect_death(make_latin1, "caf\xe9", 1, "UTF-8");
    expect_death(open_aside, "", 1, "empty name");
    expect_death(open_aside, folder, 1, "it is a folder");
    expect_failure("cache --model lm --reward \"$(printf 'a\\351')\" --prompts prompts.jsonl --out latin", 2,
        "--reward: byte 2 is not UTF-8");
}

static void standard_streams(void) // a full disk behind standard output, and descriptors that are closed
{
    static const char *const to_stdout[] = {"sample --model lm --prompt I --max-new 2", "info --model lm",
        "--help", "cache --help", "bon --model lm --reward rm --prompt I --max-new 2",
        "world --episodes 1"};
    for (size_t i = 0; i < COUNT(to_stdout); i++)
        for (int closed = 0; closed < 2; closed++) {
            char *args = format("%s %s 2>/dev/null", to_stdout[i], closed ? ">&-" : ">/dev/full");
            CHECK(vbon_status(args) == 1, "vbon %s ends with %d", args, vbon_status(args));
            free(args);
        }
    CHECK(vbon_status(CACHE "f2.jsonl >/dev/null 2>&-") == 0 && same_files("f1.jsonl", "f2.jsonl"),
        "a closed standard error goes into the cache");
    CHECK(vbon_status(CACHE "f3.jsonl <&- >/dev/null 2>&-") == 0 && same_files("f1.jsonl", "f3.jsonl"),
        "closed descriptors go into the cache");
    CHECK(vbon_status(CACHE "f4.jsonl >&- 2>/dev/null") == 1 && !is_there("f4.jsonl"),
        "a closed standard output is noticed before the work");
    CHECK(vbon_status(CACHE "- >/dev/full 2>/dev/null") == 1, "a full one too");
}

static void out_is_tried_first(void) // --out is tried before the work: before models that are not there
{
    static const struct { const char *args, *of_a_folder; } outs[] = { // and what is said of --out lm, a folder
        {"eval --reference nosuch --reward rm --cache f1.jsonl --model nosuch", "it is a folder"},
        {"bon --model nosuch --reward rm --prompt I", "it is a folder"},
        {"sample --model nosuch --prompt I", "it is a folder"},
        {"score --model nosuch --in prompts.jsonl", "it is a folder"},
        {"cache --model nosuch --reward rm --prompts prompts.jsonl", "cannot be written"},
        {"train --model nosuch --reward rm --cache f1.jsonl", NULL}}; // whose --out is a folder
    for (size_t i = 0; i < COUNT(outs); i++) {
        const Refused cases[] = {{"prompts.jsonl/x", 1, "prompts.jsonl"}, {"begun", 1, "nosuch"},
            {"lm", 1, outs[i].of_a_folder}};
        char *in = format("%s --out %%s", outs[i].args);
        expect_refusals(in, cases, outs[i].of_a_folder ? 3 : 2);
        CHECK(!is_there("begun") && !is_there("begun.tmp"), "vbon %s leaves something behind", outs[i].args);
        free(in);
    }
}

static void inputs_are_kept(void) // what is read is not written over, by whatever name
{
    shell("cp f1.jsonl f15.jsonl; ln -s f15.jsonl f16.jsonl");
    static const char *const over[] = {
        "score --model lm --in f15.jsonl",
        "sample --model lm --max-new 2 --prompts f15.jsonl",
        "bon --model lm --reward rm --max-new 2 --prompts f15.jsonl",
        "eval --model lm --reference lm --reward rm --max-new 6 --cache f15.jsonl",
        "eval --method bon --n 2 --reference lm --reward rm --max-new 6 --cache f1.jsonl --pool f15.jsonl"};
    for (int i = 0; i < 10; i++) {
        char *args = format("%s --out %s", over[i / 2], i % 2 ? "f16.jsonl" : "f15.jsonl");
        expect_failure(args, 1, "and would take its place");
        CHECK(same_files("f1.jsonl", "f15.jsonl"), "vbon %s", args);
        free(args);
    }
    // nor any finished cache
    expect_failure("sample --model lm --max-new 2 --prompt I --out f15.jsonl", 1, "holds a cache");
    CHECK(same_files("f1.jsonl", "f15.jsonl"), "a cache that is no input was replaced");
}

// A second run, also of another kind, is refused while one holds --out; a lock is nothing that stays
static void locks_hold(void)
{
    static const struct { const char *args, *held; bool folder; } locks[] = {
        {CACHE "f5.jsonl", "f5.jsonl", false},
        {"bon --model lm --reward rm --prompt I --max-new 2 --out f6", "f6.tmp", false},
        {"train --model lm --reward rm --cache f1.jsonl --max-new 6 --episodes 8 --rollout 8 --minibatch 8 --out f7",
         "f7", true},
        {"bon --model lm --reward rm --prompt I --max-new 2 --out f13", "f13", false},
        {CACHE "f14.jsonl", "f14.jsonl.tmp", false}};
    for (size_t i = 0; i < COUNT(locks); i++) {
        char *held = tmp_path(locks[i].held);
        if (locks[i].folder) mkdir(held, 0777);
        int fd = open(held, locks[i].folder ? O_RDONLY : O_RDWR | O_CREAT, 0666);
        CHECK(fd >= 0 && !flock(fd, LOCK_EX), "no lock");
        expect_failure(locks[i].args, 1, "another run is writing it");
        close(fd);
        expect_success("%s", locks[i].args);
        free(held);
    }
    CHECK(same_files("f1.jsonl", "f5.jsonl"), "a cache begun after a lock");
}

static void links_are_not_followed(void) // PATH.tmp: one's own is written over, a link is not followed
{
    shell("echo mine > victim; ln -s victim f8.tmp; echo left > f9.tmp; echo mine > hard; ln hard f10.tmp; "
        "mkfifo f17.tmp");
    expect_failure("sample --model lm --prompt I --max-new 2 --out f8", 1, "f8.tmp: is a link");
    expect_failure("sample --model lm --prompt I --max-new 2 --out f10", 1, "f10.tmp: is no file of this program");
    expect_failure("sample --model lm --prompt I --max-new 2 --out f17", 1, "f17.tmp: is no file of this program");
    expect_success("sample --model lm --prompt I --max-new 2 --out f9");
    CHECK(file_is("victim", "mine\n") && file_is("hard", "mine\n") && is_there("f9") && !is_there("f9.tmp"),
        "PATH.tmp");
}

static void others_files_stay(void) // cleaning up removes what this program made, and nothing else
{
    shell("mkdir -p mine f11/step-notes f11/step-7 f11/step-8.tmp f11/step-9 f11/step-9x f11/plan-6 && echo a | "
        "tee mine/config.json mine/notes f11/step-notes/a f11/step-7/a f11/step-7/config.json "
        "f11/step-8.tmp/model.safetensors.tmp f11/step-9/model-00001-of-00002.safetensors "
        "f11/step-9/model-1-of-2.safetensors f11/step-9x/config.json f11/plan-6/config.json "
        "f11/step-10 > /dev/null");
    shell("ln -s ../mine f11/step-11; ln -s ../mine f11/step-12.tmp; "
        "ln -s ../mine/config.json f11/step-8.tmp/config.json");
    CHECK(vbon_status("train --model lm --reward rm --cache f1.jsonl --max-new 6 --episodes 32 --rollout 8 "
        "--minibatch 8 --save-every 1 --out f11 >/dev/null 2>&1") == 0, "a run beside other people's folders");
    static const char *const kept[] = {"mine/config.json", "mine/notes", "f11/step-notes/a", "f11/step-7/a",
        "f11/step-9/model-1-of-2.safetensors", "f11/step-9x/config.json", "f11/plan-6/config.json", "f11/step-10",
        "f11/step-11",
        "f11/step-12.tmp"};
    static const char *const gone[] = {"f11/step-7/config.json", "f11/step-8.tmp",
        "f11/step-9/model-00001-of-00002.safetensors", "f11/step-1", "f11/step-2", "f11/step-3", "f11/latest"};
    for (size_t i = 0; i < COUNT(kept); i++) CHECK(is_there(kept[i]), "%s was removed", kept[i]);
    for (size_t i = 0; i < COUNT(gone); i++) CHECK(!is_there(gone[i]), "%s is still there", gone[i]);
    // a kill after `latest` is gone leaves a checkpoint; the next start takes it away
    shell("mkdir f11/step-4 && cp f11/config.json f11/model.safetensors f11/step-4");
    CHECK(vbon_status("train --model lm --reward rm --cache f1.jsonl --max-new 6 --episodes 32 --rollout 8 "
        "--minibatch 8 --resume --out f11 >/dev/null 2>&1") == 0 && !is_there("f11/step-4"),
        "a checkpoint that a kill left stays");
}

static void test_faults(void)
{
    tiny_folders();
    expect_success(CACHE "f1.jsonl");
    failed_writes_and_reads();
    standard_streams();
    out_is_tried_first();
    inputs_are_kept();
    locks_hold();
    links_are_not_followed();
    others_files_stay();
}

static void test_incomplete(void)
{
    tiny_folders();
    expect_success(CACHE "g1.jsonl");
    size_t n;
    char *path = tmp_path("g1.jsonl"), *other = tmp_path("g2.jsonl"), *s = read_file(path, &n), *line[25], *end = s;
    for (int i = 0; i < 25; i++) { line[i] = end; end = strchr(end, '\n') + 1; } // the header and 24 samples
    CHECK(end == s + n, "lines of the cache");
    // one that ends early, whole prompts or not, or lacks a line: refused by all that read caches, and gone on with
    static const char *const readers[] = {
        "train --model lm --reward rm --cache g2.jsonl --max-new 6 --episodes 8 --rollout 8 --minibatch 8 --out g_run",
        "eval --model lm --reference lm --reward rm --cache g2.jsonl --max-new 6",
        "offline --model lm --cache g2.jsonl --loss bon-sft --n 2 --out g_run",
        "eval --method bon --n 2 --reference lm --reward rm --cache g1.jsonl --pool g2.jsonl --max-new 6"};
    const int cuts[] = {24, 17, 4};
    for (int i = 0; i < 3; i++) {
        char *says = format("holds %d of 24 samples", cuts[i] - 1);
        for (int k = 0; k < 4; k++) {
            write_file(other, s, (size_t)(line[cuts[i]] - s));
            expect_failure(readers[k], 1, says);
        }
        expect_success(CACHE "g2.jsonl");
        CHECK(same_files("g1.jsonl", "g2.jsonl"), "a cache of %d samples, gone on with", cuts[i] - 1);
        free(says);
    }
    // lines that are no samples of this cache: blank ones count for nothing, others are refused
    char *blank = format("%.*s\n \n%.*s", (int)(line[3] - s), s, (int)(line[9] - line[3]), line[3]);
    write_text(other, blank);
    expect_success(CACHE "g2.jsonl");
    Cache a, b;
    cache_read(&a, path, 0); cache_read(&b, other, 0);
    for (size_t i = 0; i < 3; i++)
        for (size_t k = 0; k < 8; k++)
            CHECK(a.prompts[i].samples[k].key == b.prompts[i].samples[k].key,
                "draw %zu of prompt %zu after blank lines", k, i);
    char *wrongs[] = {
        format("%.*sgarbage\n", (int)(line[3] - s), s),
        format("%.*s{}\n", (int)(line[3] - s), s),
        format("%.*s%.*s", (int)(line[3] - s), s, (int)(line[5] - line[4]), line[4]),
        format("%.*s%.*s", (int)(line[3] - s), s, (int)(line[3] - line[2]), line[2]),
            format("%.*s{\"prompt\":\"This film\",\"text\":\"a\",\"reward\":1,\"draw\":2}\n", (int)(line[3] - s), s),
        format("%.*s%.*s", (int)(line[3] - s), s, (int)(line[10] - line[9]), line[9])}; // another prompt's
    for (int i = 0; i < 6; i++) {
        write_text(other, wrongs[i]);
        expect_failure(CACHE "g2.jsonl", 1, i < 5 ? "g2.jsonl:4: " : "g2.jsonl:4: is not draw 2 of prompt 1");
        CHECK(file_is("g2.jsonl", wrongs[i]), "a cache that is refused is left as it was");
        free(wrongs[i]);
    }
    // a header that says more is another's: a cache begun on another device
    char *elsewhere = format("%.*s,\"device\":\"cuda\"%.*s", (int)(line[1] - s) - 2, s,
        (int)(line[9] - line[1]) + 2, line[1] - 2);
    write_text(other, elsewhere);
    expect_failure(CACHE "g2.jsonl", 1, "another device");
    CHECK(file_is("g2.jsonl", elsewhere), "a cache of another device is left as it was");
    free(elsewhere);
    // a cache without a whole sample holds nothing: any header gives way
    const size_t empties[] = {0, 20, (size_t)(line[1] - s), (size_t)(line[1] - s) + 9};
    for (int i = 0; i < 4; i++) {
        write_file(other, s, empties[i]);
        expect_success("cache --model lm --reward rm --prompts prompts.jsonl --samples 2 --max-new 6 --seed 4 "
            "--out g2.jsonl");
        expect_failure(CACHE "g2.jsonl", 1, "another seed");
    }
    expect_failure("cache --model lm --reward 'nosuch_ 2>/dev/null' --prompts prompts.jsonl --samples 2 --max-new 6 "
        "--out g3.jsonl", 1, "no such folder or program");
    expect_success("cache --model lm --reward rm --prompts prompts.jsonl --samples 3 --max-new 6 --out g3.jsonl");
    arrfree(s);
}

static bool alive(const char *pid_file)
{
    size_t n;
    char *path = tmp_path(pid_file), *s = read_file(path, &n);
    char *stat = format("/proc/%d/stat", s ? atoi(s) : 0), *now = read_file(stat, &n);
    bool yes = now && !strstr(now, ") Z"); // dead and not yet waited for by whoever inherited it
    free(path); arrfree(s); free(stat); arrfree(now);
    return yes;
}

static void test_programs(void)
{
    tiny_folders();
    #define BON "bon --model lm --prompt I --n 2 --max-new 4 --reward "
    static const Refused cases[] = {
        {"'while read x; do echo 0x8; done'", 1, "\"0x8\", is no finite number"},
        {"'while read x; do printf \"5\\\\0garbage\\\\n\"; done'", 1, "is no finite number"},
        {"'while read x; do echo 1 2; done'", 1, "is no finite number"},
        {"'while read x; do echo; done'", 1, "is no finite number"},
        {"'while read x; do echo 1e999; done'", 1, "is no finite number"},
        {"'read x; tr \"\\\\0\" 1 < /dev/zero'", 1, "longer than 256 bytes"}};
    expect_refusals(BON "%s", cases, COUNT(cases));
    expect_failure(BON "'exec >&-; while :; do sleep 0.1; done'", 1,
        "closed its output after 0 of 2 answers, and lives on");
    expect_success(BON "'while read x; do printf \" -1.5e-3 \\\\r\\\\n\"; done'");
    // its whole group ends with the run: one that ends well, though leader and child ignore SIGTERM;
    // one that dies; one that a signal ends
    #define STUBBORN "'trap \"\" TERM; sh -c \"trap \\\"\\\" TERM; echo \\$\\$ > child; while :; do sleep 0.1; " \
        "done\" >/dev/null 2>&1 & echo $$ > leader; "
    shell("rm -f child leader");
    expect_success(BON STUBBORN "while [ ! -s child ]; do sleep 0.01; done; while read x; do echo 1; done; "
        "while :; do sleep 0.1; done'");
    CHECK(is_there("child") && !alive("child") && !alive("leader"), "a reward program lives on after a run");
    shell("rm -f child leader");
    expect_failure(BON STUBBORN "while [ ! -s child ]; do sleep 0.01; done; read x; echo x; while :; do sleep 0.1; "
        "done'", 1, "no finite number");
    for (int k = 0; k < 40 && (alive("child") || alive("leader")); k++) usleep(50000);
    CHECK(is_there("child") && !alive("child") && !alive("leader"), "a reward program lives on after an error");
    for (int i = 0; i < 2; i++) {
        shell("rm -f child leader");
        signal(SIGINT, SIG_IGN); // as a shell does for what it starts by &
        CHECK(kill_later(BON STUBBORN "while :; do sleep 0.1; done' --out f12", 1, i ? SIGKILL : SIGTERM),
            "the run had ended");
        signal(SIGINT, SIG_DFL);
        CHECK(i || !is_there("f12.tmp"), "SIGTERM leaves an unfinished file where SIGINT is ignored");
        for (int k = 0; k < 40 && (alive("child") || alive("leader")); k++) usleep(50000);
        CHECK(is_there("child") && !alive("child") && !alive("leader"),
            "a reward program lives on after signal %d", i ? SIGKILL : SIGTERM);
    }
}

static char *vbon_says(const char *args) // both of its outputs, malloc'd; run in the test folder
{
    char *o = tmp_path("said"), *cmd = format("cd %s && '%s' %s >%s 2>&1", test_folder, vbon(), args, o);
    size_t n;
    if (system(cmd)) {}
    char *s = read_file(o, &n);
    free(o); free(cmd);
    return s;
}

static void test_saving(void)
{
    tiny_folders();
    char *said;
    put("h.jsonl",
        "{\"text\":\"a film about a man who likes films about men\"}\n"
        "{\"text\":\"another one\"}\n"
        "{\"text\":\"the third of them is good\"}\n");
    #define SAVED "sft --model lm --data h.jsonl --batch 2 --lr 1e-3 "
    // by the clock: at whatever step it saves, the end is the same
    expect_success(SAVED "--steps 100 --threads 2 --save-minutes 0 --out h1");
    kill_when(SAVED "--steps 100 --threads 2 --save-minutes 1e-5 --out h2", 0, "h2/latest", SIGKILL);
    said = vbon_says(SAVED "--steps 100 --threads 2 --save-minutes 1e-5 --resume --out h2");
    CHECK(strstr(said, "going on from") && same_files("h1/model.safetensors", "h2/model.safetensors"),
        "saved by the clock: %s", said);
    // without a checkpoint it says so
    said = vbon_says(SAVED "--steps 2 --resume --out h3");
    CHECK(strstr(said, "h3: no checkpoint: the run starts from the beginning"),
        "--resume without a checkpoint: %s", said);
    // another thread count, other data
    kill_when(SAVED "--steps 5000 --threads 2 --save-every 1 --out h4", 0, "h4/latest", SIGKILL);
    expect_failure(SAVED "--steps 5000 --threads 1 --save-every 1 --resume --out h4", 1,
        "another --threads (2, now 1)");
    shell("echo '{\"text\":\"a fourth\"}' >> h.jsonl");
    expect_failure(SAVED "--steps 5000 --threads 2 --save-every 1 --resume --out h4", 1,
        "the file of --data has changed");
    char *cmd = format("cd %s && OMP_NUM_THREADS=1 '%s' " SAVED "--steps 1 --out h5 >/dev/null 2>&1 && grep -q "
        "'\"threads\":1,*' h5/log.jsonl && ! grep -q '\"threads\":0' h5/log.jsonl", test_folder, vbon());
    CHECK(system(cmd) == 0, "the record has not the number of threads that ran");
    free(cmd);
}

static void test_early(void) // what is refused before a file is read, and values that are the same by another spelling
{
    tiny_folders();
    #define NOSUCH " --model nosuch --reward nosuch --cache nosuch "
    static const struct { const char *args; int code; const char *says; } early[] = {
        {"eval --reference nosuch --ns 0" NOSUCH, 2, "--ns 0"},
        {"eval --reference nosuch --ns 4,x" NOSUCH, 2, "--ns 4,x"},
        {"train --train-layers -1" NOSUCH, 2, "--train-layers -1"},
        {"train --train-layers some" NOSUCH, 2, "--train-layers some: neither \"all\" nor a whole number"},
        {"train --missing-eos -1x" NOSUCH, 2, "--missing-eos -1x: neither \"none\" nor a number"},
        {"train --missing-eos nan" NOSUCH, 2, "--missing-eos nan"}, {"train --compat foo" NOSUCH, 2, "--compat foo"},
        {"train --n 4 --beta 0.1" NOSUCH, 1, "exclude each other"},
        {"offline --loss bonbon --alpha 1.5" NOSUCH, 2, "--alpha 1.5"},
        {"offline --alpha" NOSUCH, 2, "--alpha --model"},
        {"info --model nosuch --memory 40", 2, "--memory 40"}, {"info --model nosuch --train-layers all1", 2, "all1"}};
    for (size_t i = 0; i < sizeof early / sizeof *early; i++)
        expect_failure(early[i].args, early[i].code, early[i].says);
    // a cache goes on, and a run, whose --missing-eos is spelled otherwise; also where an older version kept the text
    #define ENDLESS \
        "cache --model lm --reward rm --prompts prompts.jsonl --samples 8 --max-new 6 --seed 3 --missing-eos "
    #define ENDED "train --model lm --reward rm --cache e1.jsonl --max-new 6 --episodes 8 --rollout 8 --minibatch 8 "
    expect_success(ENDLESS "-1 --out e1.jsonl");
    shell("head -4 e1.jsonl > e2.jsonl; sed 's/\"missing_eos\":\"-1\"/\"missing_eos\":\"-1.0\"/' e2.jsonl > e3.jsonl; "
        "! cmp -s e2.jsonl e3.jsonl");
    expect_failure(ENDLESS "-2 --out e2.jsonl", 1, "another missing_eos");
    expect_failure(ENDLESS "none --out e2.jsonl", 1, "another missing_eos");
    expect_success(ENDLESS "-1.0 --out e2.jsonl");
    CHECK(same_files("e1.jsonl", "e2.jsonl"), "a cache that went on with --missing-eos -1.0 for -1");
    expect_success(ENDLESS "-1 --out e3.jsonl");
    expect_success("eval --model lm --reference lm --reward rm --cache e3.jsonl --max-new 6 --missing-eos -10e-1");
    expect_success(ENDED "--missing-eos -1 --train-layers 1 --out e4");
    expect_success(ENDED "--missing-eos -1.0 --train-layers 1 --out e4 --resume");
    expect_failure(ENDED "--missing-eos -1.0 --train-layers all --out e4 --resume", 1,
        "another --train-layers (1, now \"all\")");
    shell("sed -i '1s/\"missing-eos\":-1[.0]*,/\"missing-eos\":\"-1\",/; "
          "1s/\"train-layers\":1,/\"train-layers\":\"1\",/' "
          "e4/log.jsonl; "
          "grep -q '\"train-layers\":\"1\"' e4/log.jsonl; grep -q '\"missing-eos\":\"-1\"' e4/log.jsonl");
    expect_success(ENDED "--missing-eos -1.0 --train-layers 1 --out e4 --resume");
    expect_failure(ENDED "--missing-eos -1.5 --train-layers 1 --out e4 --resume", 1, "another --missing-eos");
    // a plan has the responses of a rollout
    char *said = vbon_says("info --model lm --max-new 8 --rollout 1000000000 --memory 40GB");
    CHECK(strstr(said, "fits in 40GB: no"), "a rollout of 1e9 responses fits: %s", said);
    // a link to nothing, by whatever command
    shell("ln -s gone dead");
    static const char *const writers[] = {CACHE, "sample --model lm --prompt I --max-new 2 --out ",
        "bon --model lm --reward rm --prompt I --max-new 2 --out ", "score --model lm --in prompts.jsonl --out ",
        "eval --model lm --reference lm --reward rm --cache e1.jsonl --max-new 6 --missing-eos -1 --out ",
        ENDED "--missing-eos -1 --out ", "sft --model lm --data prompts.jsonl --steps 1 --out "};
    for (size_t i = 0; i < sizeof writers / sizeof *writers; i++) {
        char *args = format("%sdead", writers[i]), *below = format("%sdead/below", writers[i]);
        expect_failure(args, 1, "dead: is a link to nothing");
        expect_failure(below, 1, i < 5 ? "dead/below: cannot be written" : "dead: is a link to nothing");
        free(args); free(below);
    }
    CHECK(is_there("dead") && !is_there("gone"), "a link to nothing was followed, or replaced");
}

static void save_unsynced(const char *out)
{
    Config c = {.arch = &architectures[ARCH_GPT2], .L = 1, .NH = 2, .C = 8, .F = 16, .V = 2000, .max_T = 8,
        .act = ACT_GELU_TANH, .tied = true, .eps = 1e-5, .init_std = 0.1, .eos = 1999};
    Model m;
    model_create(&m, ops_cpu(), &c, TRAIN_ALL, false, false);
    model_random(&m, 4);
    checkpoint_save(&m, out, 1, "dev/demo/tokenizer", NULL, 0);
}

static void test_begun(void) // runs that were begun: their log, and the weights they began with
{
    tiny_folders();
    // a log that cannot be brought to the disk keeps a checkpoint from being the latest
    shell("mkdir w0 && ln -s /dev/null w0/log.jsonl");
    char *out = tmp_path("w0");
    expect_death(save_unsynced, out, 1, "w0/log.jsonl: cannot be flushed to disk");
    CHECK(!is_there("w0/latest"), "a checkpoint is newer than its log");
    // the weights behind a folder change between a run and its going on
    Config c = {.arch = &architectures[ARCH_GPT2], .L = 2, .NH = 2, .C = 16, .F = 32, .V = 2000, .max_T = 24,
        .act = ACT_GELU_TANH, .tied = true, .eps = 1e-5, .init_std = 0.1, .eos = 1999};
    for (int scalar = 0; scalar < 2; scalar++) {
        Model m;
        c.scalar_head = scalar;
        model_create(&m, ops_cpu(), &c, TRAIN_NONE, false, false);
        model_random(&m, 5);
        char *dir = tmp_path(scalar ? "rm_new" : "lm_new");
        model_save(&m, dir, DT_F32, "dev/demo/tokenizer", 0);
        model_free(&m);
    }
    shell("cp -r lm lm_mine; cp -r rm rm_mine; echo '{\"text\":\"a film about a man\",\"label\":1}' > w.jsonl; "
        "echo '{\"prompt\":\"I\",\"chosen\":\" like it\",\"rejected\":\" do not\"}' > w_pairs.jsonl");
    static const struct { const char *args, *changed[2]; } runs[] = {
        {"train --model lm_mine --reward rm_mine --prompts prompts.jsonl --objective rl --beta 0.5 --max-new 6 "
            "--episodes 16 --rollout 8 --minibatch 8", {"lm", "rm"}},
        {"sft --model lm_mine --data w.jsonl --steps 2 --batch 1", {"lm", NULL}},
        {"reward --init lm_mine --layers 1 --from-position 1 --data w.jsonl --steps 2 --batch 1", {"lm", NULL}},
        {"offline --model lm_mine --data w_pairs.jsonl --loss dpo --beta 0.1 --steps 2 --batch 1", {"lm", NULL}}};
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        // a link where the final model is written ends the run with its checkpoint; a link taken away, it goes on
        shell("rm -rf w1; mkdir w1; ln -s gone w1/model.safetensors.tmp");
        char *begin = format("%s --save-every 1 --out w1 >/dev/null 2>&1", runs[i].args);
        char *on = format("%s --save-every 1 --resume --out w1", runs[i].args);
        char *afresh = format("%s --save-every 1 --lr 1e-3 --out w1", runs[i].args);
        CHECK(vbon_status(begin) == 1 && is_there("w1/latest"), "vbon %s leaves no checkpoint", begin);
        shell("rm w1/model.safetensors.tmp");
        // a run begun before there was the flag goes on by its default
        shell("grep -q '\"optimizer-state\":\"fp32\",' w1/log.jsonl");
        shell("sed -i 's/\"optimizer-state\":\"fp32\",//' w1/log.jsonl");
        for (int k = 0; k < 2 && runs[i].changed[k]; k++) {
            const char *of = runs[i].changed[k];
            char *change = format("cp %s_new/model.safetensors %s_mine", of, of);
            char *back = format("cp %s/model.safetensors %s_mine", of, of);
            char *says = format("the weights or the tokenizer of --%s have changed",
                k ? "reward" : i == 2 ? "init" : "model");
            shell(change);
            expect_failure(on, 1, says);
            shell(back);
            free(change); free(back); free(says);
        }
        if (i == 0) { // a corrected command: the message says what makes room for it
            char *corrected = format("%s --lr 1e-3", on);
            expect_failure(corrected, 1,
                "another --lr (\"auto\", now 0.001): resume with the flags it began with, or delete w1/latest");
            expect_failure(afresh, 1, "delete w1/latest to begin afresh");
            shell("cp -r w1 w2; rm w2/latest");
            char *again = format("%s --lr 1e-3 --out w2", runs[i].args);
            expect_success(again);
            CHECK(!is_there("w2/step-1") && is_there("w2/model.safetensors"),
                "a run begun afresh leaves old checkpoints");
            free(corrected); free(again);
        }
        if (i == 1) { // a log of before there were fingerprints
            shell("sed -i '1s/,\"weights\":{[^}]*}//' w1/log.jsonl; ! grep -q weights w1/log.jsonl");
            char *said = vbon_says(on);
            CHECK(strstr(said, "note: w1: its log is older"), "resumed by an older log: %s", said);
        } else expect_success(on);
        CHECK(is_there("w1/model.safetensors") && !is_there("w1/latest"), "vbon %s does not go on", on);
        free(begin); free(on); free(afresh);
    }
}
