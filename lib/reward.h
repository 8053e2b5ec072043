// reward.h: what scores a response: a model with a scalar head, a DistilBERT classifier, or any program.
//
// A reward model that shares the policy's tokenizer gets the ids (with the sampled end-of-text token): the prompt goes
// through it once for all its responses, each response is then read on the prompt's keys and values, and the scores
// after every prefix come for free. One with another tokenizer, and every DistilBERT, gets the text, encoded anew. A
// program (anything that is not a folder) is started once; it reads n JSONL lines {"prompt","response"} (text without
// the end-of-text token) and must answer n lines of one number each, flushed.
//
// reward_map rescales: scale > 0 keeps the order, and so everything that is made of ranks. cleanrl's constant
// (config.bias) is subtracted before it.
//
// Left out on purpose: rewards that depend on the batch, or on the step: the cache's ranks would mean nothing.
#pragma once

typedef struct {
    char *what;                       // for headers: the fingerprint of weights and tokenizer, or the command
    const Tokenizer *policy_tokenizer; Tokenizer *tokenizer; bool same_tokenizer;
    Model m; Arena work; Acts acts; Batch batch; KVCache prompts, own; Buf score;
    Turns *turns; Buf kept;           // where a model's weights are between their turns in memory; NULL: here for good
    size_t tokens, room, rows, slots; // tokens: of one pass, as asked for; room: as laid out
    size_t every;                     // of prefixes that are texts of their own, every so many-th is scored
    double scale, offset;
    DistilBert *bert; bool probability;
    pid_t pid; int to, from, life; double timeout; char *command, *pending; size_t n_pending;
} Reward;
void reward_open(Reward *r, const char *folder_or_command, const Tokenizer *policy_tokenizer, const Ops *o,
                 size_t tokens, double timeout);
// from now on a classifier's rewards are p(positive), not the logit; other rewards have none
void reward_probability(Reward *r);
// A model's weights go to the host until their turn comes; of other rewards nothing does.
void reward_offload(Reward *r, Turns *t);
void reward_map(Reward *r, double scale, double offset); // from now on rewards are scale * reward + offset; scale > 0
// Work memory for prompts and responses of at most so many tokens (not for the model's context, which may be any number
// where positions are rotary); r->m is created, r->tokens and r->work are set. At most a GiB of keys and values of
// responses and one of prompts: what is longer or more goes in groups.
void reward_carve(Reward *r, size_t prompt, size_t response);
// dies when a program has written more than it was asked for: call it before results are put in place
void reward_close(Reward *r);
void reward_assign(void *reward, const Prompt *prompts, Response *r, size_t n, bool prefixes); // a RewardFn
// A CandidateFn, of a causal reward model with the policy's tokenizer; r[0..n) have the scores of their prefixes.
void reward_candidates(void *reward, const Prompt *prompts, const Response *r, size_t n, const int *token, size_t K,
                       double *score);
// malloc'd, without the end-of-text token
char *response_text(const Tokenizer *t, const Response *r);

#ifdef VBON_IMPLEMENTATION
#include <poll.h>
#include <sys/wait.h>

char *response_text(const Tokenizer *t, const Response *r)
{
    return tokenizer_decode(t, r->ids, r->n - (r->finished ? 1 : 0), NULL);
}

// ----------------------------------------------------------------------------
// programs

// Dies where a command is one word and no program, or a path that leads nowhere; of other commands the shell tells.
static void program_find(const char *command, const char *kinds)
{
    if (command[strcspn(command, " \t\n;&|<>()$`\\\"'*?[]#~=%{}!")]) return;
    char *find = format("command -v -- %s >/dev/null 2>&1", command);
    if (system(find)) die("--reward %s: no such %s", command, kinds);
    free(find);
}

static void program_start(Reward *r, const char *command)
{
    int in[2], out[2], life[2]; // life: nothing is ever written to it; it closes when we end, however we do
    r->command = xstrdup(command);
    signal(SIGPIPE, SIG_IGN); // a program that dies shows as a failed write
    bool piped = !pipe2(in, O_CLOEXEC) && !pipe2(out, O_CLOEXEC) && !pipe2(life, O_CLOEXEC);
    if (!piped || fcntl(in[1], F_SETFL, O_NONBLOCK)) die("--reward %s: no pipes: %s", command, strerror(errno));
    fflush(NULL);
    r->pid = fork();
    if (r->pid < 0) die("--reward %s: cannot be started: %s", command, strerror(errno));
    if (!r->pid) {
        signal(SIGPIPE, SIG_DFL);
        setpgid(0, 0); // Ctrl-C is ours: the program ends when its input does
        bool moved = dup2(in[0], 0) == 0 && dup2(out[1], 1) == 1 &&
                     (life[0] == 3 ? !fcntl(3, F_SETFD, 0) : dup2(life[0], 3) == 3);
        // A shell that is no child of the program waits for the end of descriptor 3 and then ends the whole process
        // group.
        const char *both = "({ read -r x; kill -KILL 0; } <&3 >&- 2>&- &); exec 3<&-; exec /bin/sh -c \"$1\"";
        if (moved) execl("/bin/sh", "sh", "-c", both, "sh", command, (char *)NULL);
        _exit(126);
    }
    setpgid(r->pid, r->pid); // here too: whichever comes first
    close(in[0]); close(out[1]); close(life[0]);
    r->to = in[1]; r->from = out[0]; r->life = life[1];
}

NORETURN static void program_died(Reward *r, size_t got, size_t n, const char *closed) // its input or output
{
    int status = 0;
    pid_t ended = 0;
    for (int i = 0; i < 100 && !ended; i++) if (!(ended = waitpid(r->pid, &status, WNOHANG))) usleep(10000);
    if (!ended)
        die("--reward %s: closed its %s after %zu of %zu answers, and lives on: it must answer every line and go on "
            "reading", r->command, closed, got, n);
    if (WIFSIGNALED(status))
        die("--reward %s: killed by signal %d after %zu of %zu answers", r->command, WTERMSIG(status), got, n);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127) die("--reward %s: no such folder or program", r->command);
    die("--reward %s: ended with status %d after %zu of %zu answers: it must answer every line and go on reading",
        r->command, WEXITSTATUS(status), got, n);
}

// Between batches it has nothing to say: one line too many would shift every later answer.
static void program_silent(Reward *r, int milliseconds)
{
    struct pollfd p = {.fd = r->from, .events = POLLIN};
    char c;
    ssize_t k = poll(&p, 1, milliseconds) > 0 ? read(r->from, &c, 1) : 0;
    if (k < 0) die("--reward %s: cannot be read: %s", r->command, strerror(errno));
    if (k || arrlenu(r->pending))
        die("--reward %s: wrote something it was not asked for: it must answer one number for each line", r->command);
}

enum { ANSWER = 256 }; // bytes of an answer at most
static double answer_number(const char *s, size_t n) // a decimal number with blanks around it; else NaN
{
    char text[ANSWER + 1], *end;
    while (n && strchr(" \t\r", s[n - 1]) && s[n - 1]) n--;
    while (n && (*s == ' ' || *s == '\t')) { s++; n--; }
    snprintf(text, sizeof text, "%.*s", (int)n, n ? s : "");
    double x = strtod(text, &end);
    bool decimal = n && strspn(text, "+-.0123456789eE") == n; // nothing hexadecimal, nothing behind a NUL
    return decimal && end == text + n ? x : NAN;
}

static void program_assign(Reward *r, const Prompt *prompts, Response *y, size_t n)
{
    char *out = NULL, chunk[65536];
    size_t sent = 0, got = 0;
    program_silent(r, 0);
    for (size_t i = 0; i < n; i++) {
        char *text = response_text(r->policy_tokenizer, &y[i]);
        text = utf8_mend(text); // a response may end inside a character: JSON cannot say that
        json_t *j = json_make("{s:s, s:s}", "prompt", prompts[y[i].prompt].text, "response", text);
        char *line = json_text(j, JSON_COMPACT);
        size_t len = strlen(line);
        memcpy(arraddnptr(out, len), line, len);
        arrput(out, '\n');
        free(line); free(text);
        json_decref(j);
    }
    double deadline = clock_seconds() + r->timeout;
    while (got < n) {
        struct pollfd p[2] = {{.fd = r->from, .events = POLLIN},
                              {.fd = sent < arrlenu(out) ? r->to : -1, .events = POLLOUT}};
        double left = deadline - clock_seconds();
        if (left <= 0)
            die("--reward %s: no answer within %g s (%zu of %zu lines came): flush each line, or raise "
                "--reward-timeout",
                r->command, r->timeout, got, n);
        if (poll(p, 2, (int)(left * 1000) + 1) < 0 && errno != EINTR)
            die("--reward %s: %s", r->command, strerror(errno));
        if (p[1].revents) {
            ssize_t k = write(r->to, out + sent, arrlenu(out) - sent);
            if (k < 0 && errno != EAGAIN && errno != EINTR) program_died(r, got, n, "input");
            sent += k > 0 ? (size_t)k : 0;
        }
        if (!p[0].revents) continue;
        ssize_t k = read(r->from, chunk, sizeof chunk);
        if (k == 0) program_died(r, got, n, "output");
        bool failed = k < 0 && errno != EAGAIN && errno != EINTR;
        if (failed) die("--reward %s: cannot be read: %s", r->command, strerror(errno));
        for (ssize_t i = 0; i < k; i++) {
            if (chunk[i] != '\n') {
                if (arrlenu(r->pending) == ANSWER)
                    die("--reward %s: answer %zu is longer than %d bytes: it must be one number", r->command, got + 1,
                        ANSWER);
                arrput(r->pending, chunk[i]);
                continue;
            }
            double x = answer_number(r->pending, arrlenu(r->pending));
            arrput(r->pending, 0);
            if (got == n) die("--reward %s: more answers than the %zu lines it was given", r->command, n);
            if (!isfinite((float)x))
                die("--reward %s: answer %zu, \"%.40s\", is no finite number", r->command, got + 1, r->pending);
            y[got++].reward = (float)x;
            deadline = clock_seconds() + r->timeout; // of each answer
            arrsetlen(r->pending, 0);
        }
    }
    arrfree(out);
}

// ----------------------------------------------------------------------------
// reward models

void reward_open(Reward *r, const char *what, const Tokenizer *policy_tokenizer, const Ops *o, size_t tokens,
                 double timeout)
{
    *r = (Reward){.policy_tokenizer = policy_tokenizer, .timeout = timeout, .tokens = tokens, .every = 1, .scale = 1,
        .to = -1, .from = -1};
    if (!is_folder(what)) {
        program_find(what, "folder or program");
        program_start(r, what);
        r->what = xstrdup(what);
        return;
    }
    if (is_distilbert(what)) {
        r->bert = (DistilBert *)xmalloc(sizeof *r->bert);
        distilbert_load(r->bert, o, what, tokens, false);
        r->what = hex_text(distilbert_fingerprint(r->bert));
        return;
    }
    r->tokenizer = model_load_as(&r->m, o, what, "reward", true, TRAIN_NONE, false);
    model_pack(&r->m);
    r->same_tokenizer = tokenizer_fingerprint(r->tokenizer) == tokenizer_fingerprint(policy_tokenizer);
    if (!r->same_tokenizer) tokenizer_eos(r->tokenizer); // or dies now, not in the middle of the work
    if (!r->same_tokenizer)
        fprintf(stderr, "vbon: note: %s has another tokenizer than the policy: it scores the text, not the ids\n",
                what);
    r->what = hex_text(mix64(model_fingerprint(&r->m) ^ tokenizer_fingerprint(r->tokenizer)));
    r->work = (Arena){.name = "reward model", .o = o};
}

void reward_probability(Reward *r)
{
    if (!r->bert || r->bert->labels < 2)
        usage("--reward-output prob: the reward is no classifier of two labels or more: it has no probability");
    char *what = format("p %s", r->what);
    r->probability = true;
    free(r->what);
    r->what = what;
}

void reward_map(Reward *r, double scale, double offset)
{
    if (scale == 1 && offset == 0) return;
    char *what = format("%s * %.17g + %.17g", r->what, scale, offset); // other numbers in a cache, so another header
    r->scale = scale; r->offset = offset;
    free(r->what);
    r->what = what;
}

void reward_offload(Reward *r, Turns *t)
{
    if (r->command || r->bert) return;
    r->turns = t;
    r->kept = turns_keep(t, r->m.data);
    model_move(&r->m, (Buf){0});
}

// Before the model is used
static void reward_come(Reward *r)
{
    if (!r->turns) return;
    if (r->m.data.p != r->turns->memory.p) model_move(&r->m, r->turns->memory);
    turns_take(r->turns, &r->kept);
}

void reward_carve(Reward *r, size_t prompt, size_t response)
{
    // bytes of keys and values: in all, and of one token
    const size_t room = (size_t)1 << 30, position = 2 * r->m.cfg.C * r->m.cfg.L * dtype_size(r->m.o->type);
    size_t rows = room / checked_product("kv cache", response, position);
    size_t slots = room / checked_product("kv cache", prompt ? prompt : 1, position);
    r->room = r->tokens > prompt ? r->tokens : prompt;
    if (r->room < response) r->room = response;
    r->rows = rows < 1 ? 1 : rows > r->room / 8 + 1 ? r->room / 8 + 1 : rows;
    r->slots = slots < 1 ? 1 : slots > r->rows ? r->rows : slots;
    batch_carve(&r->batch, &r->work, r->room, r->rows);
    acts_carve(&r->acts, &r->m, &r->work, r->room, r->m.cfg.L);
    kv_carve(&r->prompts, &r->m, &r->work, r->slots, prompt ? prompt : 1, r->rows, false);
    kv_carve(&r->own, &r->m, &r->work, r->rows, response, r->rows, false);
    r->own.prefix = &r->prompts;
    r->score = arena_take(&r->work, r->room, DT_REAL, "head");
}

// Room for these lengths. The grouping that follows from it depends on them alone, not on earlier calls, so that a
// resumed run has the same one.
static void reward_fit(Reward *r, size_t prompt, size_t response)
{
    Buf base = r->work.base;
    r->work.base = (Buf){0};
    arena_reset(&r->work);
    reward_carve(r, prompt, response);
    if (base.p && r->work.high <= base.n) r->work.base = base;
    else { if (base.p) r->m.o->release(&base); arena_place(&r->work); }
    arena_reset(&r->work);
    reward_carve(r, prompt, response);
}

void reward_close(Reward *r)
{
    if (r->command) {
        close(r->to);
        program_silent(r, 2000); // until it ends, as it should now
        close(r->from);
        siginfo_t ended = {0};
        // while its leader is not waited for, no other group has its number
        for (int i = 0; i < 200 && !ended.si_pid; i++) {
            if (i) usleep(10000);
            if (i == 150) kill(-r->pid, SIGTERM);
            if (waitid(P_PID, (id_t)r->pid, &ended, WEXITED | WNOHANG | WNOWAIT)) break;
        }
        kill(-r->pid, SIGKILL); // what is left of it
        waitpid(r->pid, NULL, 0);
        close(r->life);
        free(r->command); arrfree(r->pending);
    } else if (r->bert) {
        distilbert_free(r->bert);
        free(r->bert);
    } else {
        acts_free(&r->acts); kv_free(&r->prompts); kv_free(&r->own);
        arena_release(&r->work);
        if (r->turns) r->m.o->unpin(&r->kept);
        model_free(&r->m);
        tokenizer_free(r->tokenizer);
    }
    free(r->what);
}

// Runs B rows of `tokens` (row b in start[b]..start[b+1]) and leaves the score after every token in out (start[B])
static void run_rows(Reward *r, KVCache *kv, const int *tokens, const int *start, const int *pos, const int *slot,
                     const int *pslot, const int *plen, size_t B, real *out)
{
    const Ops *o = r->m.o;
    int *zero = (int *)xcalloc(B, sizeof *zero);
    size_t N = (size_t)start[B], C = r->m.cfg.C;
    batch_set(&r->batch, &r->m, tokens, start, pos, B);
    o->upload(slice(kv->slot, 0, B), slot);
    o->upload(slice(kv->pslot, 0, B), pslot ? pslot : zero); o->upload(slice(kv->plen, 0, B), plen ? plen : zero);
    Buf final = model_forward(&r->m, &r->m.packed, &r->acts, &r->batch, 0, r->m.cfg.L, kv);
    o->matmul_forward(r->score, final, r->m.p.score, r->m.p.scoreb, N, C, 1);
    o->download(out, slice(r->score, 0, N));
    free(zero);
}

// Where transformers (4.5x and 5) reads the score of n >= 1 tokens: at the last that is not the padding; at the first
// where all are
static size_t last_real(const int *ids, size_t n, int pad)
{
    while (n > 1 && ids[n - 1] == pad) n--;
    return n - 1;
}

// Scores responses of ids the model knows. Groups of rows: their distinct prompts first (equal ones side by side once),
// then the responses on them.
static void model_assign(Reward *r, const Prompt *prompts, Response *y, size_t n, bool prefixes)
{
    size_t longest = 0, response = 1, max_T = r->m.cfg.max_T;
    for (size_t i = 0; i < n; i++) {
        const Prompt *p = &prompts[y[i].prompt];
        if (!(p->n + y[i].n))
            die("%s: a text without a token has no reward: leave it out", p->where ? p->where : "--reward");
        if (p->n + y[i].n > max_T)
            die("a prompt of %zu tokens with a response of %zu does not fit the reward model's context of %zu: shorten "
                "--max-new",
                p->n, y[i].n, max_T);
        if (p->n > longest) longest = p->n;
        if (y[i].n > response) response = y[i].n;
    }
    reward_come(r);
    reward_fit(r, longest, response);
    size_t cap = r->room;
    int *tokens = (int *)xmalloc(cap * sizeof(int)), *start = (int *)xmalloc((cap + 1) * sizeof(int)),
        *slot = (int *)xmalloc(cap * sizeof(int));
    int *pslot = (int *)xmalloc(cap * sizeof(int)), *plen = (int *)xmalloc(cap * sizeof(int));
    real *score = (real *)xmalloc(cap * sizeof(real)), *at_prompt = (real *)xmalloc(cap * sizeof(real));
    for (size_t i = 0; i < n;) {
        size_t first = i, B = 0, N = 0, P = 0, PN = 0;
        for (; i < n && B < r->rows; i++) {
            const Prompt *p = &prompts[y[i].prompt];
            bool shared = i > first && y[i].prompt == y[i - 1].prompt;
            if (N + y[i].n > cap || (!shared && (PN + p->n > cap || P == r->slots))) break;
            if (!shared) { PN += p->n; P++; }
            pslot[B] = (int)P - 1; plen[B] = (int)p->n;
            N += y[i].n;
            B++;
        }
        // the prompts
        start[0] = 0;
        PN = P = 0;
        for (size_t k = first; k < i; k++) {
            const Prompt *p = &prompts[y[k].prompt];
            if ((k > first && y[k].prompt == y[k - 1].prompt) || !p->n) continue;
            memcpy(tokens + PN, p->ids, p->n * sizeof(int));
            PN += p->n;
            slot[P] = pslot[k - first];
            start[++P] = (int)PN;
        }
        if (P) {
            run_rows(r, &r->prompts, tokens, start, NULL, slot, NULL, NULL, P, score);
            for (size_t b = 0; b < P; b++)
                at_prompt[slot[b]] =
                    score[start[b] +
                          (int)last_real(tokens + start[b], (size_t)(start[b + 1] - start[b]), r->m.cfg.pad)];
        }
        // the responses
        N = 0;
        for (size_t b = 0; b < B; b++) {
            memcpy(tokens + N, y[first + b].ids, y[first + b].n * sizeof(int));
            start[b] = (int)N;
            slot[b] = (int)b;
            N += y[first + b].n;
        }
        start[B] = (int)N;
        run_rows(r, &r->own, tokens, start, plen, slot, pslot, plen, B, score);
        for (size_t b = 0; b < B; b++) {
            Response *q = &y[first + b];
            double now = (double)(plen[b] ? at_prompt[pslot[b]] : score[start[b]]); // of what was read so far
            if (prefixes) q->prefix = (double *)xrealloc(q->prefix, q->n * sizeof(double));
            for (size_t t = 0; t < q->n; t++) {
                if (prefixes) q->prefix[t] = now - r->m.cfg.score_shift;
                if (q->ids[t] != r->m.cfg.pad) now = (double)score[start[b] + (int)t];
            }
            q->reward = now - r->m.cfg.score_shift;
            if (!isfinite(q->reward))
                die("%s: the reward model's score is not finite: its weights are too large to compute with (has "
                    "training diverged?)",
                    prompts[q->prompt].where ? prompts[q->prompt].where : "--reward");
        }
    }
    free(tokens); free(start); free(slot); free(pslot); free(plen); free(score); free(at_prompt);
}

// The whole text of each response, for what has another tokenizer; a response cut inside a character ends in U+FFFD, as
// in Hugging Face
static char **whole_texts(const Reward *r, const Prompt *prompts, const Response *y, size_t n)
{
    char **out = (char **)xmalloc(n * sizeof *out);
    #pragma omp parallel for schedule(dynamic, 16)
    for (size_t i = 0; i < n; i++) {
        char *text = response_text(r->policy_tokenizer, &y[i]);
        out[i] = format("%s%s", prompts[y[i].prompt].text, text);
        out[i] = utf8_mend(out[i]);
        free(text);
    }
    return out;
}

static void text_assign(Reward *r, const Prompt *prompts, Response *y, size_t n)
{
    char **texts = whole_texts(r, prompts, y, n);
    if (r->bert) {
        double *out = (double *)xmalloc(n * sizeof *out);
        size_t cut = r->bert->cut;
        distilbert_score(r->bert, (const char *const *)texts, out, n, r->probability);
        for (size_t i = 0; i < n; i++) y[i].reward = out[i];
        if (!cut && r->bert->cut) progress_clear();
        if (!cut && r->bert->cut)
            fprintf(stderr,
                    "vbon: note: texts longer than the reward model's context of %zu tokens are scored by their "
                    "beginning\n",
                    r->bert->m.cfg.max_T);
        free(out);
    } else {
        Prompt *whole = (Prompt *)xcalloc(n, sizeof *whole); // no prompt: the text is encoded as one
        Response *copy = (Response *)xcalloc(n, sizeof *copy);
        int eos = tokenizer_eos(r->tokenizer);
        for (size_t i = 0; i < n; i++) {
            copy[i].prompt = i;
            whole[i].where = prompts[y[i].prompt].where;
            copy[i].ids = tokenizer_encode(r->tokenizer, texts[i], strlen(texts[i]), &copy[i].n);
            if (y[i].finished && eos >= 0) {
                copy[i].ids = (int *)xrealloc(copy[i].ids, (copy[i].n + 1) * sizeof(int));
                copy[i].ids[copy[i].n++] = eos;
            }
        }
        model_assign(r, whole, copy, n, false);
        for (size_t i = 0; i < n; i++) { y[i].reward = copy[i].reward; response_free(&copy[i]); }
        free(whole); free(copy);
    }
    for (size_t i = 0; i < n; i++) free(texts[i]);
    free(texts);
}

// Whether it gets the ids, and not the text
static bool reads_ids(const Reward *r, const Response *y)
{
    if (!r->same_tokenizer) return false; // as of programs
    for (size_t i = 0; i < y->n; i++) if ((size_t)y->ids[i] >= r->m.cfg.V) return false;
    return true;
}

// The scores of prefixes where each is a text of its own: those of 0, every, 2 every, ... tokens are scored, and the
// others have the score of the longest scored prefix inside them, so that none knows what comes after it.
static void prefixes_as_texts(Reward *r, const Prompt *prompts, Response *y, size_t n)
{
    Response *part = NULL;
    for (size_t i = 0; i < n; i++)
        for (size_t t = 0; t < y[i].n; t += r->every)
            arrput(part, ((Response){.prompt = y[i].prompt, .ids = y[i].ids, .n = t}));
    if (r->command) program_assign(r, prompts, part, arrlenu(part));
    else text_assign(r, prompts, part, arrlenu(part));
    for (size_t i = 0, k = 0; i < n; i++) {
        y[i].prefix = (double *)xrealloc(y[i].prefix, y[i].n * sizeof(double));
        for (size_t t = 0; t < y[i].n; t++) y[i].prefix[t] = t % r->every ? y[i].prefix[t - 1] : part[k++].reward;
    }
    arrfree(part);
}

void reward_assign(void *reward, const Prompt *prompts, Response *y, size_t n, bool prefixes)
{
    Reward *r = (Reward *)reward;
    for (size_t i = 0, run; i < n; i += run) {
        // a response with an id of a vocabulary padded further than the reward model's is its text, where that is
        // nothing
        bool ids = reads_ids(r, &y[i]);
        for (run = 1; i + run < n && reads_ids(r, &y[i + run]) == ids;) run++;
        if (ids) model_assign(r, prompts, y + i, run, prefixes);
        else if (r->command) program_assign(r, prompts, y + i, run);
        else text_assign(r, prompts, y + i, run);
        if (prefixes && !ids) prefixes_as_texts(r, prompts, y + i, run);
    }
    for (size_t i = 0; i < n; i++) { // floats, as the cache keeps them
        double own = y[i].reward;
        y[i].reward = (double)(float)(r->scale * own + r->offset);
        if (!isfinite(y[i].reward))
            die("%s: the reward %g, by --reward-scale %g and --reward-offset %g, is no number that a float holds: "
                "choose others",
                prompts[y[i].prompt].where ? prompts[y[i].prompt].where : "--reward", own, r->scale, r->offset);
        for (size_t t = 0; prefixes && t < y[i].n; t++) y[i].prefix[t] = r->scale * y[i].prefix[t] + r->offset;
    }
}

// A sequence is read once, prompt and response; each candidate is then one token on a prefix of its keys and values.
// The padding changes no score.
void reward_candidates(void *reward, const Prompt *prompts, const Response *y, size_t n, const int *token, size_t K,
                       double *score)
{
    Reward *r = (Reward *)reward;
    size_t longest = 1, done = 0;
    for (size_t i = 0; i < n; i++)
        if (prompts[y[i].prompt].n + y[i].n > longest) longest = prompts[y[i].prompt].n + y[i].n;
    reward_come(r);
    reward_fit(r, longest, 1);
    size_t cap = r->room, rows = r->rows;
    int *tokens = (int *)xmalloc(cap * sizeof(int)), *start = (int *)xmalloc((cap + 1) * sizeof(int));
    int *slot = (int *)xmalloc(cap * sizeof(int)), *plen = (int *)xmalloc(rows * sizeof(int));
    int *pslot = (int *)xmalloc(rows * sizeof(int));
    real *out = (real *)xmalloc(cap * sizeof(real));
    double *to = score;
    for (size_t i = 0; i < n;) {
        size_t first = i, B = 0, N = 0;
        for (; i < n && B < r->slots; i++, B++) {
            const Prompt *p = &prompts[y[i].prompt];
            if (N + p->n + y[i].n > cap) break;
            start[B] = (int)N; slot[B] = (int)B;
            memcpy(tokens + N, p->ids, p->n * sizeof(int));
            memcpy(tokens + N + p->n, y[i].ids, y[i].n * sizeof(int));
            N += p->n + y[i].n;
        }
        start[B] = (int)N;
        run_rows(r, &r->prompts, tokens, start, NULL, slot, NULL, NULL, B, out);
        size_t b = 0;
        for (size_t j = first; j < i; j++)
            for (size_t t = 0; t < y[j].n; t++)
                for (size_t k = 0; k < K; k++) {
                    tokens[b] = token[done++];
                    start[b] = slot[b] = (int)b;
                    pslot[b] = (int)(j - first);
                    plen[b++] = (int)(prompts[y[j].prompt].n + t);
                    bool last = j + 1 == i && t + 1 == y[j].n && k + 1 == K;
                    if (b < rows && !last) continue;
                    start[b] = (int)b;
                    run_rows(r, &r->own, tokens, start, plen, slot, pslot, plen, b, out);
                    for (size_t c = 0; c < b; c++, to++)
                        *to = r->scale * ((double)out[c] - r->m.cfg.score_shift) + r->offset;
                    b = 0;
                }
    }
    for (size_t i = 0, at = 0; i < n; i++)
        for (size_t t = 0; t < y[i].n; t++)
            for (size_t k = 0; k < K; k++, at++) if (token[at] == r->m.cfg.pad) score[at] = y[i].prefix[t];
    free(tokens); free(start); free(slot); free(plen); free(pslot); free(out);
}
#endif
