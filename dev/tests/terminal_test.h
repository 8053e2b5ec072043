// terminal_test.h: what people see: the bar and the lines above it on a pseudo-terminal, the start-up table, help,
// completions, prompts from a pipe. Included by test_vbon.c.
#pragma once
#include <sys/ioctl.h>

// What a shell command, run in the test folder with the program as $V, writes to standard output; malloc'd.
static char *said(const char *command)
{
    setenv("V", vbon(), 1);
    char *all = format("cd %s && { %s\n}", test_folder, command), *text;
    size_t n;
    FILE *f = popen(all, "r"), *kept = open_memstream(&text, &n);
    for (int c; (c = getc(f)) != EOF;) putc(c, kept);
    pclose(f);
    fclose(kept);
    free(all);
    return text;
}

// A terminal of `width` columns as far as a program needs that knows \r, \n and the erasing of the rest of a line: the
// lines that stand there in the end, and whether a line ever ran over the edge. bars: how often a bar was drawn.
typedef struct { char **lines; size_t width, at, bars; char now[256]; bool over, unknown; } Screen;
static void screen_write(Screen *s, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '\r') s->at = 0;
        else if (p[i] == '\n') { arrput(s->lines, xstrdup(s->now)); s->at = 0; memset(s->now, 0, sizeof s->now); }
        else if (p[i] == 27) {
            bool erase = i + 2 < n && p[i + 1] == '[' && p[i + 2] == 'K';
            s->unknown |= !erase;
            if (erase) memset(s->now + s->at, 0, sizeof s->now - s->at);
            i += 2;
        } else {
            s->bars += p[i] == '[';
            s->over |= s->at >= s->width;
            if (s->at < sizeof s->now - 1) s->now[s->at++] = p[i];
        }
    }
}

// Whether there are pseudo-terminals: a container or a chroot may lack /dev/pts. Else the test at hand is skipped.
static bool terminals(void)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    bool there = master >= 0 && !grantpt(master) && !unlockpt(master) && !access(ptsname(master), R_OK | W_OK);
    if (master >= 0) close(master);
    if (!there) skip = "no pseudo-terminal here: is /dev/pts mounted?";
    return there;
}

// Runs a shell command in the test folder on a pseudo-terminal; returns its exit code.
static int on_terminal(Screen *s, const char *command, int width)
{
    *s = (Screen){.width = (size_t)width};
    struct winsize size = {.ws_row = 24, .ws_col = (unsigned short)width};
    int master = posix_openpt(O_RDWR | O_NOCTTY), status;
    CHECK(master >= 0 && !grantpt(master) && !unlockpt(master), "no pseudo-terminal");
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    ioctl(slave, TIOCSWINSZ, &size);
    setenv("V", vbon(), 1);
    fflush(NULL);
    pid_t pid = fork();
    if (!pid) {
        setenv("TERM", "xterm", 1);
        for (int fd = 0; fd < 3; fd++) dup2(slave, fd);
        close(master); close(slave);
        if (!chdir(test_folder)) execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(99);
    }
    close(slave);
    char *all = NULL, block[4096];
    for (ssize_t n; (n = read(master, block, sizeof block)) > 0;) // an escape may be cut by a block's end
        memcpy(arraddnptr(all, (size_t)n), block, (size_t)n);
    screen_write(s, all, arrlenu(all));
    arrfree(all);
    close(master);
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
static void screen_free(Screen *s)
{
    for (size_t i = 0; i < arrlenu(s->lines); i++) free(s->lines[i]);
    arrfree(s->lines);
}

// Iterations that take longer than the tenth of a second after which a bar is drawn anew
#define SLOWLY "\"$V\" train --objective rl --beta .1 --model lm --prompts prompts.jsonl --max-new 4 --episodes 20 " \
    "--rollout 4 --minibatch 4 --ppo-epochs 1 --out slow --reward "
#define SLOW_REWARD "'while read -r l; do sleep .04; echo ${#l}; done'"

static void test_terminal_lines(void)
{
    tiny_folders();
    if (!terminals()) return;
    static const int widths[] = {80, 120, 40};
    for (size_t k = 0; k < COUNT(widths); k++) {
        Screen s;
        size_t steps = 0;
        int code = on_terminal(&s, "rm -rf slow; " SLOWLY SLOW_REWARD, widths[k]);
        CHECK(code == 0, "on a terminal: exit %d", code);
        CHECK(s.bars >= 2 || widths[k] == 40, "%d columns: %zu bars", widths[k], s.bars);
        CHECK(!s.unknown, "an escape beside that which erases a line");
        for (size_t i = 0; i < arrlenu(s.lines); i++) {
            const char *line = s.lines[i];
            double reward, kl, seconds;
            long done, of;
            int end = 0;
            bool step = sscanf(line, "iteration %ld/%ld | reward %lf | KL %lf | %lf s%n", &done, &of, &reward, &kl,
                &seconds, &end) == 5;
            steps += step;
            CHECK(!step || (!line[end] && (size_t)done == steps && of == 5), "a step line: %s", line);
            CHECK(!step || end <= 79, "a step line of %d columns: %s", end, line);
            CHECK(step || !strstr(line, "iteration "), "a garbled step line: %s", line);
            CHECK(!strstr(line, "##") && !strstr(line, " left"), "a bar that stayed: %s", line);
        }
        CHECK(steps == 5, "%d columns: %zu step lines", widths[k], steps);
        CHECK(widths[k] < 80 || !s.over, "%d columns: a line runs over", widths[k]);
        screen_free(&s);
    }
    // an error takes the bar's place
    Screen s;
    int code = on_terminal(&s, "rm -rf slow; " SLOWLY "'n=0; while read -r l; do n=$((n + 1)); "
        "test $n -lt 14 || exit 3; sleep .04; echo 1; done'", 80);
    const char *last = arrlenu(s.lines) ? s.lines[arrlenu(s.lines) - 1] : "";
    CHECK(code == 1 && s.bars >= 1 && !strncmp(last, "vbon: --reward ", 15) && !strchr(last, '#'),
        "an error after %zu bars: exit %d: %s", s.bars, code, last);
    screen_free(&s);
    // in a pipe, and on a terminal that knows no escapes, there are none
    char *piped = said("rm -rf slow; " SLOWLY SLOW_REWARD " 2>&1");
    CHECK(strstr(piped, "iteration 5/5 | ") && !strchr(piped, 27) && !strchr(piped, '\r'), "in a pipe: %s", piped);
    CHECK(strstr(piped, "train 5/5 iterations in "), "its last line: %s", piped);
    free(piped);
    code = on_terminal(&s, "rm -rf slow; TERM=dumb; " SLOWLY SLOW_REWARD, 80);
    CHECK(code == 0 && s.bars == 0, "a dumb terminal: %zu bars", s.bars);
    screen_free(&s);
}

static void test_start_table(void)
{
    tiny_folders();
    #define DRAW "\"$V\" cache --model lm --reward rm --prompts prompts.jsonl --samples 8 --max-new 6 "
    char *text = said("rm -f table.jsonl; " DRAW "--reward-scale 1.0 --out table.jsonl 2>/dev/null");
    static const char *const rows[] = {"  model    lm\n", "  reward   rm\n", "  samples  8\n", "  max-new  6\n"};
    for (size_t i = 0; i < COUNT(rows); i++) CHECK(strstr(text, rows[i]), "no row %s in: %s", rows[i], text);
    CHECK(!strstr(text, "temperature") && !strstr(text, "reward-scale"), "defaults in the table: %s", text);
    CHECK(strstr(text, "defaults, which --verbose shows"), "what is left out is not said: %s", text);
    free(text);
    text = said("rm -f table.jsonl; " DRAW "--verbose --out table.jsonl 2>/dev/null");
    for (size_t i = 0; i < n_flags; i++) {
        char *row = format("\n  %-16s  ", flag_table[i].name);
        if (belongs(&flag_table[i], "cache")) CHECK(strstr(text, row), "--verbose: no %s", row);
        free(row);
    }
    free(text);
    // what is refused says that alone: no table
    static const char *const refused[] = {
        "train --model lm --reward rm --cache table.jsonl --max-new 7 --out none",
        "train --model lm --reward rm --cache nosuch --max-new 6 --out none",
        "train --model lm --reward rm --cache table.jsonl --max-new 6 --objective rl --out none",
        "sft --model lm --data nosuch --out none", "reward --init nosuch --data prompts.jsonl --out none",
        "cache --model lm --reward nosuch --prompts prompts.jsonl --out none",
        "cache --model lm --reward rm --prompts nosuch --out none", "score --model lm --in nosuch --out none",
        "offline --model lm --cache nosuch --loss bon-sft --out none", "ks --cache nosuch",
        "bon --model lm --reward nosuch --prompts prompts.jsonl --out none",
        "eval --model lm --reference nosuch --reward rm --cache table.jsonl"};
    for (size_t i = 0; i < COUNT(refused); i++) {
        char *command = format("\"$V\" %s 2>/dev/null || echo refused", refused[i]);
        text = said(command);
        CHECK(!strcmp(text, "refused\n"), "vbon %s: %s", refused[i], text);
        free(command); free(text);
    }
    expect_failure("bon --model lm --reward nosuch --prompt a --max-new 4", 1,
                   "--reward nosuch: no such folder or program");
}

static void test_help(void)
{
    static const int widths[] = {80, 120, 60};
    for (size_t c = 0; c < n_commands; c++) {
        const char *name = commands[c].name;
        for (size_t k = 0; k < COUNT(widths); k++) {
            char *command = format("COLUMNS=%d \"$V\" %s --help", widths[k], name), *text = said(command);
            for (char *p = text, *end; (end = strchr(p, '\n')); p = end + 1) {
                bool breakable = strncmp(p, "  --", 4) != 0; // a flag's choices are one word
                CHECK(!breakable || end - p < widths[k], "%s: %.*s: longer than %d", command, (int)(end - p), p,
                    widths[k]);
            }
            for (size_t i = 0; i < n_flags; i++) {
                const Flag *f = &flag_table[i];
                if (f->type == FLAG_GROUP) continue;
                char *row = format("\n  --%s", f->name), *at = strstr(text, row);
                while (at && at[strlen(row)] != ' ' && at[strlen(row)] != '\n') at = strstr(at + 1, row);
                bool own = false;
                for (size_t j = 0; j < n_flags; j++)
                    own |= !strcmp(flag_table[j].name, f->name) && belongs(&flag_table[j], name);
                CHECK(own == (at != NULL), "vbon %s --help and --%s", name, f->name);
                free(row);
            }
            free(command); free(text);
        }
    }
    // about this command alone: no remark on another's use of a flag
    char *text = said("COLUMNS=10000 \"$V\" train --help");
    CHECK(!strstr(text, "sft:") && !strstr(text, "offline") && !strstr(text, "dpo"), "train's help: %s", text);
    CHECK(strstr(text, "\n\nPPO\n"), "the help is in groups");
    free(text);
    text = said("\"$V\" train -h > help1; \"$V\" train --help > help2; \"$V\" help train > help3; cmp help1 help2 && "
        "cmp help1 help3 && \"$V\" -h > help1 && \"$V\" --help > help2 && cmp help1 help2 && \"$V\" --version");
    CHECK(!strncmp(text, "vbon ", 5) && strchr(text, '\n') == text + strlen(text) - 1, "-h and --version: %s", text);
    free(text);
    static const Refused cases[] = {
        {"--hlep", 2, "did you mean --help?"}, {"train --hlep", 2, "did you mean --help?"},
        {"trian", 2, "did you mean train?"}, {"smaple --prompt a", 2, "did you mean sample?"},
        {"--verison", 2, "did you mean --version?"}, {"train --epsiodes 3", 2, "did you mean --episodes?"},
        {"qwertyuiop", 2, "no command \"qwertyuiop\": see vbon --help"},
        {"train --qwertyuiop 3", 2, "unknown flag --qwertyuiop: see vbon train --help"},
        {"sample --model lm --prompt a --n 3", 2, "belongs to: train offline bon eval world info; not to sample"}};
    expect_refusals("%s", cases, COUNT(cases));
}

// What bash offers for a word behind others: the function is called as it calls it
static char *offered(const char *words, int at)
{
    char *command = format("bash -c 'source <(\"$V\" completion); COMP_WORDS=(%s); COMP_CWORD=%d; _vbon; "
        "echo \"${COMPREPLY[*]}\"'", words, at);
    char *text = said(command);
    free(command);
    return text;
}

static void test_completion(void)
{
    if (system("bash -c : 2>/dev/null")) { printf("    no bash: not tried\n"); return; }
    static const struct { const char *words; int at; const char *offers; } cases[] = {
        {"vbon tr", 1, "train\n"}, {"vbon --v", 1, "--version\n"}, {"vbon train --objec", 2, "--objective\n"},
        {"vbon train --objective \"\"", 3, "vbon l l1 rl bond jbond\n"}, {"vbon train --objective l", 3, "l l1\n"},
        {"vbon train --objective =", 3, "vbon l l1 rl bond jbond\n"}, {"vbon train --objective = r", 4, "rl\n"},
        {"vbon train --resume --cri", 3, "--critic\n"}, {"vbon train --train-layers \"\"", 3, "all\n"},
        {"vbon train --n \"\"", 3, "\n"}, {"vbon sample --n", 2, "\n"}, {"vbon offline --preset d", 3, "dpo\n"},
        {"vbon train --preset sentiment-", 3, "sentiment-released\n"}, {"vbon train --preset dp", 3, "\n"}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *got = offered(cases[i].words, cases[i].at);
        CHECK(!strcmp(got, cases[i].offers), "%s: bash offers %s", cases[i].words, got);
        free(got);
    }
    for (size_t c = 0; c < n_commands; c++) { // every flag of every command, and no other
        char *words = format("vbon %s --", commands[c].name), *got = offered(words, 2), *want = xstrdup("--help");
        for (size_t i = 0; i < n_flags; i++) {
            if (!belongs(&flag_table[i], commands[c].name)) continue;
            char *more = format("%s --%s", want, flag_table[i].name);
            free(want);
            want = more;
        }
        got[strcspn(got, "\n")] = 0;
        CHECK(!strcmp(got, want), "%s: bash offers %s", words, got);
        free(words); free(got); free(want);
    }
}

static void test_piped_prompts(void)
{
    tiny_folders();
    write_text(tmp_path("two.jsonl"), "{\"prompt\":\"This film\"}\n{\"prompt\":\"The acting \"}\n");
    #define TWO " --model lm --max-new 4 --seed 3 2>/dev/null "
    char *text = said(
        "\"$V\" sample" TWO "--prompts two.jsonl > file; cat two.jsonl | \"$V\" sample" TWO "> json; "
        "printf 'This film\\r\\n\\nThe acting \\n' | \"$V\" sample" TWO "> plain; "
        "\"$V\" sample --prompts -" TWO "< two.jsonl > dash; cmp file json && cmp file plain && cmp file dash && "
        "\"$V\" bon --reward rm --n 3" TWO "--prompts two.jsonl > file && "
        "printf 'This film\\nThe acting ' | \"$V\" bon --reward rm --n 3" TWO "> plain && cmp file plain && "
        "wc -l < file");
    CHECK(atoi(text) == 2, "prompts by a file and by a pipe: %s", text);
    free(text);
    static const struct { const char *command, *says; } bad[] = {
        {"\"$V\" sample --model lm < /dev/null", "no prompt: name one by --prompt"},
        {"printf '' | \"$V\" sample --model lm", "/dev/stdin: no prompts"},
        {"printf '{\"prompt\":\"a\"}\\nb\\n' | \"$V\" sample --model lm", "/dev/stdin:2: "},
        {"printf 'a\\nb\\351\\n' | \"$V\" sample --model lm", "/dev/stdin:2: a prompt must be UTF-8"},
        {"printf 'a\\0b\\n' | \"$V\" sample --model lm", "/dev/stdin:1: a prompt must be UTF-8"},
        {"\"$V\" sample --model lm --prompt a --prompts two.jsonl", "exclude each other"},
        {"\"$V\" cache --model lm --reward rm --out no.jsonl < two.jsonl", "--prompts is required"}};
    for (size_t i = 0; i < COUNT(bad); i++) {
        char *command = format("{ %s; } 2>&1 && echo taken", bad[i].command);
        text = said(command);
        CHECK(strstr(text, bad[i].says) && !strstr(text, "taken"), "%s: %s", bad[i].command, text);
        free(command); free(text);
    }
}

static void test_left_out(void) // rather than nan, in a log's records or an evaluation's
{
    tiny_folders();
    char *text = said("rm -rf slow; " SLOWLY "rm >/dev/null 2>&1; tail -n +2 slow/log.jsonl");
    CHECK(strstr(text, "\"objective/kl\":") && !strstr(text, "null") && !strstr(text, "nan"), "a log: %s", text);
    CHECK(!strstr(text, "vbon/distance") && !strstr(text, "vbon/logF"), "without a cache: %s", text);
    free(text);
    text = said("rm -f left.jsonl; " DRAW "--out left.jsonl >/dev/null 2>&1; "
        "\"$V\" eval --method bon --n 2 --reference lm --reward rm --cache left.jsonl --prompts-max 1 --max-new 6 "
        "--out left.json 2>/dev/null; cat left.json");
    CHECK(!strstr(text, "nan") && !strstr(text, "null"), "an evaluation: %s", text);
    CHECK(strstr(text, "\"distance\":{}") && !strstr(text, "kl_rb"), "Best-of-N has no log-probabilities: %s", text);
    json_t *j = json_file(tmp_path("left.json"));
    CHECK(json_array_size(json_object_get(j, "reward")) == 1, "one prompt has no standard error");
    json_decref(j);
    free(text);
}
