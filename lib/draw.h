// draw.h: drawing from a model: `vbon sample`, `vbon bon` and `vbon cache`, and what `vbon eval` draws.
#pragma once
#ifdef VBON_IMPLEMENTATION

typedef struct { Model m; Tokenizer *t; Arena work; Generator g; Prompt *prompts; size_t n, rows; Sampling s; } Drawing;

// share: how many responses of a prompt are drawn side by side
static void drawing_open(Drawing *d, Args *a, size_t job, const char *model, uint64_t stream, size_t share)
{
    memset(d, 0, sizeof *d);
    const char *flag = model == a->model ? "model" : "reference";
    plan_run(a, job, require(model, flag), 0, share);
    d->t = model_load_as(&d->m, device_ops(a), model, flag, false, TRAIN_NONE, false);
    d->prompts = prompts_load(a, d->t, d->m.cfg.max_T, &d->n, stream == STREAM_SAMPLE || stream == STREAM_BON);
    size_t longest = 1;
    for (size_t i = 0; i < d->n; i++) if (d->prompts[i].n > longest) longest = d->prompts[i].n;
    plan_run(a, job, model, longest, share);
    d->rows = decode_rows(a, 256);
    d->work = (Arena){.name = "sampling", .o = d->m.o};
    for (int pass = 0; pass < 2; pass++) {
        if (pass) arena_place(&d->work);
        generator_carve(&d->g, &d->m, &d->work, d->rows, prompt_slots(d->rows, share),
                        (size_t)a->micro_tokens, longest, (size_t)a->max_new);
    }
    model_pack(&d->m);
    d->s = (Sampling){.temperature = a->temperature, .top_p = a->top_p, .top_k = a->top_k, .seed = (uint64_t)a->seed,
        .stream = stream, .eos = tokenizer_eos(d->t)};
}

static char *prompts_fingerprint(const Prompt *p, size_t n) // malloc'd: of their ids, in order
{
    uint64_t h = 0;
    for (size_t i = 0; i < n; i++) h = mix64(h ^ order_key(p[i].ids, p[i].n));
    return hex_text(h);
}

// What shards must have in common beside flags and files, by flag; without shards nothing.
static json_t *drawing_weights(const Shard *s, const Drawing *d, const Reward *reward)
{
    if (!s->on) return NULL;
    char *prompts = prompts_fingerprint(d->prompts, d->n);
    json_t *j = weights_json("model", &d->m, d->t, NULL);
    json_object_set_new(j, "prompts", json_make("s", prompts));
    json_object_set_new(j, "reward", json_make("s", reward->what));
    free(prompts);
    return j;
}

static void drawing_close(Drawing *d)
{
    generator_free(&d->g); arena_release(&d->work); prompts_free(d->prompts, d->n);
    model_free(&d->m); tokenizer_free(d->t);
}

static double response_logp(const Response *r)
{
    double s = 0;
    for (size_t t = 0; t < r->n; t++) s += (double)r->logp[t];
    return s;
}

// Rewards, with the missing-EOS rule
static void judge(Reward *reward, const Args *a, const Prompt *prompts, Response *r, size_t n)
{
    double value = missing_eos(a);
    reward_assign(reward, prompts, r, n, false);
    for (size_t i = 0; i < n; i++) if (!isnan(value) && !r[i].finished) r[i].reward = value;
}

// Draws and scores draws [from, to) of the sequence prompt 0 draws 0..M-1, prompt 1 draws 0..M-1, ...
static Response *draw(Drawing *d, Reward *reward, const Args *a, size_t M, size_t from, size_t to)
{
    Response *r = (Response *)xcalloc(to - from, sizeof *r);
    for (size_t i = from; i < to; i++) r[i - from] = (Response){.prompt = i / M, .sample = i % M};
    generate(&d->g, &d->s, d->prompts, r, to - from);
    if (reward) judge(reward, a, d->prompts, r, to - from);
    return r;
}

// A line of `sample` and `bon`. cdf: of its prompt, or NULL. best NULL: not told.
static void write_response(FILE *f, const Tokenizer *t, const Prompt *p, const Response *r, bool rewarded,
                           const Cdf *cdf, const bool *best)
{
    char *text = response_text(t, r);
    text = utf8_mend(text); // cut inside a character; the ids say exactly what was sampled
    json_t *j = json_make("{s:s, s:s}", "prompt", p->text, "response", text), *ids = json_array();
    for (size_t k = 0; k < r->n; k++) json_array_append_new(ids, json_integer(r->ids[k]));
    json_object_set_new(j, "ids", ids);
    json_object_set_new(j, "logp", json_number(response_logp(r), "a response's log-probability",
        WEIGHTS_OR_TEMPERATURE));
    if (rewarded) json_object_set_new(j, "reward", json_number(r->reward, "a response's reward",
        "look at --reward and its scale"));
    if (cdf) {
        json_object_set_new(j, "k", json_number(cdf_rank(cdf, r->reward, r->key, NULL), "k of M", ""));
        json_object_set_new(j, "M", json_integer((json_int_t)cdf->M));
    }
    if (best) json_object_set_new(j, "best", json_boolean(*best));
    json_object_set_new(j, "finished", json_boolean(r->finished));
    char *line = json_text(j, JSON_COMPACT | JSON_REAL_PRECISION(9));
    fprintf(f, "%s\n", line);
    free(line); free(text);
    json_decref(j);
}

static void sample_run(const Args *asked, bool bon)
{
    Args own = *asked, *a = &own;
    Drawing d;
    Reward reward;
    size_t M = (size_t)(bon ? a->n : a->samples);
    require(a->model, "model");
    if (bon) require(a->reward, "reward");
    prompts_path(a, true);
    Shard shard;
    shard_open(&shard, a);
    AsideFile *out = a->out && !shard.on ? out_file(a) : NULL;
    lines_on_stdout = !a->out;
    drawing_open(&d, a, JOB_CACHE, a->model, bon ? STREAM_BON : STREAM_SAMPLE, M);
    checked_product(bon ? "--n for all prompts" : "--samples for all prompts", d.n, M);
    bool rewarded = bon || a->reward;
    if (rewarded) open_reward(&reward, a, d.t);
    else if (a->cache) usage("--cache says how many of a prompt's samples are below: it needs --reward too");
    // the model may be a policy: its rewards are ranked among the reference's
    Cdf *cdf = a->cache ? cdfs_load(d.prompts, d.n, a, NULL, d.t, &reward) : NULL;
    size_t step = d.rows / M ? d.rows / M : 1;
    const char *command = bon ? "bon" : "sample";
    if (bon) shard_begin(&shard, a, command, drawing_weights(&shard, &d, &reward), NULL);
    if (a->out) start_table(a, command);
    else if (a->verbose) flags_table(stderr, a, flag_table, n_flags, command, true); // the responses go to stdout
    size_t blocks = (d.n + step - 1) / step;
    Progress p = progress_begin(command, shard_items(&shard, d.n, step, SIZE_MAX),
                                shard.on ? shard_items(&shard, d.n, step, shard.next) : 0, "prompts");
    for (size_t b = 0; b < blocks; b++) {
        if (!shard_makes(&shard, b)) continue;
        size_t i = b * step, end = i + step < d.n ? i + step : d.n;
        FILE *to = shard_block(&shard, out ? out->f : stdout);
        Response *r = draw(&d, rewarded ? &reward : NULL, a, M, i * M, end * M);
        if (to == stdout) progress_clear();
        for (size_t q = i; q < end; q++) {
            Response *mine = r + (q - i) * M;
            size_t chosen = bon ? best_of(mine, M) : M;
            for (size_t k = 0; k < M; k++) {
                bool best = k == chosen;
                if (!bon || a->all || best)
                    write_response(to, d.t, &d.prompts[q], &mine[k], rewarded,
                                   cdf ? &cdf[q] : NULL, a->all ? &best : NULL);
            }
        }
        for (size_t k = 0; k < (end - i) * M; k++) response_free(&r[k]);
        free(r);
        if (!shard.on) file_flush(to, out ? a->out : "standard output", false);
        shard_put(&shard, b);
        progress_show(&p, shard_items(&shard, d.n, step, b + 1), NULL);
    }
    shard_close(&shard, a, blocks);
    if (rewarded) reward_close(&reward);
    cdfs_free(cdf, d.n);
    if (out) aside_commit(out);
    drawing_close(&d);
}

static void cmd_sample(const Args *a) { sample_run(a, false); }
static void cmd_bon(const Args *a) { sample_run(a, true); }

// The rows and tokens of a cache that was begun on a device, so that its blocks stay the same.
static void cache_keep(Args *a)
{
    const char *ours = "{\"vbon_cache\"";
    if (a->device == DEVICE_CPU) return;
    Jsonl in;
    jsonl_open(&in, a->out);
    if (jsonl_line(&in) && in.lines.buffer[in.lines.n - 1] == '\n' && !strncmp(in.text, ours, strlen(ours))) {
        json_t *j = line_parse(&in), *rows = json_object_get(j, "decode_rows"),
               *tokens = json_object_get(j, "micro_tokens");
        if (!a->decode_rows) a->decode_rows = rows ? (long)json_integer_value(rows) : 256; // as before they were kept
        if (!flag_given("micro-tokens")) a->micro_tokens = tokens ? (long)json_integer_value(tokens) : 4096;
        a->kept = true;
        json_decref(j);
    }
    jsonl_close(&in);
}

static void cmd_cache(const Args *asked)
{
    Args own = *asked, *a = &own;
    Drawing d;
    Reward reward;
    size_t M = (size_t)a->samples;
    Append file;
    Shard shard;
    require(a->model, "model"); require(a->reward, "reward"); require(a->prompts, "prompts");
    shard_open(&shard, a);
    if (!shard.on) { append_open(&file, require(a->out, "out")); cache_keep(a); }
    drawing_open(&d, a, JOB_CACHE, a->model, STREAM_CACHE, M);
    open_reward(&reward, a, d.t);
    char *model = hex_text(model_fingerprint(&d.m)), *tok = hex_text(tokenizer_fingerprint(d.t));
    char *ps = prompts_fingerprint(d.prompts, d.n), *eos = missing_eos_text(a);
    size_t total = checked_product("--samples for all prompts", d.n, M);
    json_t *header = json_make(
        "{s:i, s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:I, s:I, s:I, s:I}", "vbon_cache", 1, "model", model, "tokenizer",
        tok, "reward", reward.what, "prompts", ps, "missing_eos", eos, "precision", precisions[precision_used(a)].name,
        "temperature", json_number(a->temperature, "--temperature", "choose another"), "max_new",
        (json_int_t)a->max_new, "seed", (json_int_t)a->seed, "samples", (json_int_t)M, "total", (json_int_t)total);
    if (a->device != DEVICE_CPU) { // and what was chosen there
        json_object_set_new(header, "device", json_make("s", devices[a->device].name));
        json_object_set_new(header, "decode_rows", json_integer(a->decode_rows));
        json_object_set_new(header, "micro_tokens", json_integer(a->micro_tokens));
    }
    shard_begin(&shard, a, "cache", drawing_weights(&shard, &d, &reward), NULL);
    size_t done = shard.on ? 0 : cache_resume(&file, header, d.prompts, d.n, M);
    if (done) printf("%s: %zu of %zu samples are there already\n", a->out, done, total);
    if (done && done < total) { // of two rewards' numbers no later look at a few would be sure to tell
        Cache begun;
        cache_read_begun(&begun, a->out);
        check_reward(&begun, a->out, a, &reward, d.t);
        cache_free(&begun);
    }
    start_table(a, "cache");
    stop_on_signals();
    size_t blocks = (total + d.rows - 1) / d.rows, mine = shard_items(&shard, total, d.rows, SIZE_MAX);
    size_t made = shard.on ? shard_items(&shard, total, d.rows, shard.next) : done;
    Progress p = progress_begin("cache", mine, made, "samples");
    for (size_t b = done / d.rows; b < blocks && made < mine && !stop_signal; b++) {
        // always the same blocks, so the same last digits
        size_t begin = b * d.rows, end = begin + d.rows < total ? begin + d.rows : total;
        if (!shard_makes(&shard, b)) continue;
        if (done < begin) done = begin;
        Response *r = draw(&d, &reward, a, M, begin, end);
        char *block;
        size_t bytes;
        FILE *f = open_memstream(&block, &bytes);
        if (!f) die("out of memory");
        char *h = json_text(header, JSON_COMPACT); // written with the first samples: a start that fails leaves none
        if (!done) fprintf(f, "%s\n", h);
        free(h);
        for (size_t i = 0; i < done - begin; i++) response_free(&r[i]);
        for (size_t i = done - begin; i < end - begin; i++) {
            char *text = response_text(d.t, &r[i]);
            text = utf8_mend(text);
            CacheSample s = {.text = text, .ids = r[i].ids, .n_ids = r[i].n, .reward = r[i].reward,
                .logp = response_logp(&r[i]), .has_logp = true, .draw = (long)r[i].sample, .key = r[i].key,
                .has_key = true, .finished = r[i].finished};
            cache_write(f, d.prompts[r[i].prompt].text, &s);
            free(text);
            response_free(&r[i]);
        }
        free(r);
        made += end - done;
        done = end;
        file_flush(f, a->out, false);
        if (shard.on) shard_write(&shard, b, block, bytes);
        else append_write(&file, block, bytes);
        fclose(f);
        free(block);
        progress_show(&p, made, NULL);
    }
    if (!shard.on) append_close(&file);
    if (made < mine) {
        progress_clear();
        printf("stopped by signal %d after %zu of %zu samples; the same command goes on\n", (int)stop_signal, made,
               mine);
        exit(128 + stop_signal);
    }
    shard_close(&shard, a, blocks);
    reward_close(&reward);
    drawing_close(&d);
    json_decref(header);
    free(model); free(tok); free(ps); free(eos);
}
#endif
