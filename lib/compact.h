// compact.h: `vbon compact`: a reward cache as one line a prompt, for caches that are kept and shared.
//
//     {"prompt","rewards":[...],"keys":[...],"logps":[...],"ids":{"0":[...],"17":[...]}}
//
// Ranks, ties and F-hat need the rewards and order keys of all draws. Only offline training reads responses, and few of
// them: each prompt's first draws (dpo, ipo), or the best and the worst of its first N (bonbon, bon-sft). Of these the
// ids are kept, by number of draw. Their texts would take as much room and say less: a text can be cut into tokens in
// many ways, the model samples all of them, and the tokenizer knows one.
//
// Rewards keep nine digits and come back exactly; log-probabilities, which nothing is computed from, keep five. Left
// out on purpose: compression, which gzip does, and the reading of it.
#pragma once
#ifdef VBON_IMPLEMENTATION

enum { COMPACT_NS = 64 }; // numbers in --ns

static void compact_list(FILE *f, const char *name, const CachePrompt *p, void write(FILE *f, const CacheSample *s))
{
    fprintf(f, ",\"%s\":[", name);
    for (size_t k = 0; k < p->n; k++) {
        if (k) fputc(',', f);
        write(f, &p->samples[k]);
    }
    fputc(']', f);
}
static void write_reward(FILE *f, const CacheSample *s) { fprintf(f, "%.9g", s->reward); }
static void write_logp(FILE *f, const CacheSample *s) { fprintf(f, "%.5g", s->logp); }
static void write_key(FILE *f, const CacheSample *s)
{
    fprintf(f, "\"%016llx\"", (unsigned long long)(s->ids ? order_key(s->ids, s->n_ids) : s->key));
}

static void compact_prompt(FILE *f, const CachePrompt *p, const bool *kept, const char *path)
{
    size_t logps = 0;
    json_t *prompt = json_make("s", p->prompt);
    char *text = json_text(prompt, JSON_ENCODE_ANY);
    for (size_t k = 0; k < p->n; k++) {
        const CacheSample *s = &p->samples[k];
        char *where = format("%s:%zu: draw %zu of prompt \"%.40s\"", path, s->line, k, p->prompt);
        if (!s->ids && !s->has_key)
            die("%s has neither ids nor an order key, and a compact cache needs one: vbon cache writes both", where);
        if (s->ids && s->has_key && order_key(s->ids, s->n_ids) != s->key)
            die("%s: its key is not that of its ids: the file was edited", where);
        if (s->has_F) die("%s has \"F\", which no compact cache can hold: keep this one", where);
        if (kept[k] && !s->ids)
            die("%s has no ids to keep: compact the cache that vbon cache wrote, or lower --draws and --ns", where);
        logps += s->has_logp;
        free(where);
    }
    fprintf(f, "{\"prompt\":%s", text);
    compact_list(f, "rewards", p, write_reward);
    if (logps == p->n) compact_list(f, "logps", p, write_logp);
    compact_list(f, "keys", p, write_key);
    const char *before = ",\"ids\":{";
    for (size_t k = 0; k < p->n; k++) {
        if (!kept[k]) continue;
        fprintf(f, "%s\"%zu\":", before, k);
        write_ids(f, &p->samples[k]);
        before = ",";
    }
    fputs(before[1] ? "}\n" : "}}\n", f); // were there none, there is no object
    free(text);
    json_decref(prompt);
}

static void cmd_compact(const Args *a)
{
    long ns[COMPACT_NS], most = a->draws;
    size_t n_ns = parse_counts("ns", a->ns, ns, COMPACT_NS), draws = 0, n_kept = 0;
    Cache c;
    require(a->cache, "cache"); require(a->out, "out");
    AsideFile *out = out_file(a);
    cache_read(&c, a->cache, 0);
    for (size_t v = 0; v < n_ns; v++) if (ns[v] > most) most = ns[v];
    start_table(a, "compact");
    if (c.header) {
        char *header = json_text(c.header, JSON_COMPACT);
        fprintf(out->f, "%s\n", header);
        free(header);
    }
    for (size_t i = 0; i < c.n; i++) {
        const CachePrompt *p = &c.prompts[i];
        if (p->n < (size_t)most)
            die("%s: prompt \"%.40s\" has %zu samples, --%s asks for %ld", a->cache, p->prompt, p->n,
                a->draws == most ? "draws" : "ns", most);
        bool *kept = (bool *)xcalloc(p->n, sizeof *kept);
        for (long k = 0; k < a->draws; k++) kept[k] = true;
        for (size_t v = 0; v < n_ns; v++) {
            size_t best, worst;
            best_and_worst(p, (size_t)ns[v], &best, &worst);
            kept[best] = kept[worst] = true;
        }
        compact_prompt(out->f, p, kept, a->cache);
        draws += p->n;
        for (size_t k = 0; k < p->n; k++) n_kept += kept[k];
        free(kept);
    }
    aside_commit(out);
    printf("%s: %zu prompts, %zu draws; the ids of %zu\n", a->out, c.n, draws, n_kept);
    cache_free(&c);
}
#endif
