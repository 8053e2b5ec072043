// shard.h: a job in shards that need not know of each other, and `vbon merge`, which joins what they wrote.
//
// cache, bon, score and eval work through blocks of fixed size, in order. What a block holds is a function of flags,
// files, weights and its number alone, for draws are by counters (gpt2.h). So a shard is nothing but a choice of
// blocks: --shard i/n makes those whose number leaves i when divided by n, on whichever machine, and writes them to
// OUT.i-of-n:
//     {"vbon_shard":1, ...}         who it is: command, i and n, flags, fingerprints of files and weights
//     {"block":b,"bytes":k}         and k bytes: what a single run writes for block b (eval: its numbers a prompt)
//     {"blocks":B}                  at the end: how many blocks there are in all
// The file grows by whole blocks. A shard that was killed is cut back to its last whole one and goes on by itself.
// merge reads all n and puts the blocks in order: its file is the single run's, byte for byte. (Apart from eval's
// tokens a second: what a clock said of one shard says nothing of all.)
//
// Under mpirun (parallel.h) each process is a shard without being told, and rank 0 merges at the end.
#pragma once
#ifdef VBON_IMPLEMENTATION

// on false: no shard was asked for, and every block is made.
typedef struct {
    bool on;
    size_t i, n;                        // this one of so many
    Append file; char *path;            // OUT.i-of-n
    size_t next;                        // blocks before this one are in the file already
    bool whole;                         // and all of them are: there is nothing to do
    FILE *f; char *data; size_t bytes;  // of the block at hand
    AsideFile *merged;                  // rank 0 of several processes: OUT itself
} Shard;
static void merge(const char *out, AsideFile *file); // all shards of out into file; see eval.h
static size_t shards_beside(const char *out);

static char *shard_path(const char *out, size_t i, size_t n) { return format("%s.%zu-of-%zu", out, i, n); }

// Reads --shard, or takes the rank for it; opens and locks the file where there is one.
static void shard_open(Shard *s, const Args *a)
{
    char *end = NULL;
    long i = parallel_rank(), n = parallel_ranks();
    *s = (Shard){.n = 1};
    if (!a->shard && n == 1) return;
    if (a->shard && n > 1) usage("--shard %s: under mpirun each process is a shard: leave it out", a->shard);
    bool two = !a->shard ||
        (whole_number(a->shard, &end, &i) && *end == '/' && whole_number(end + 1, &end, &n) && !*end);
    if (!two || n < 1 || n > 1000000) usage("--shard %s: i/n, as 0/3, 1/3 and 2/3", a->shard);
    if (i < 0 || i >= n) usage("--shard %s: of %ld shards the first is 0/%ld, the last %ld/%ld", a->shard, n, n, n - 1,
        n);
    require(a->out, "out");
    if (a->prompts && !strcmp(a->prompts, "-")) usage("--prompts -: shards read their prompts from a file: name it");
    s->on = true;
    s->i = (size_t)i;
    s->n = (size_t)n;
    s->path = shard_path(a->out, s->i, s->n);
    if (!a->shard && !s->i) s->merged = out_file(a);
    append_open(&s->file, s->path);
    shards_beside(a->out); // or dies now, not after the work: there are others, of another number
}

// The next mark in a shard's file: of a block and its bytes, or of the end and the number of blocks. False: the file
// ends before it.
static bool shard_mark(Lines *in, size_t *block, size_t *bytes, bool *end)
{
    int read = 0;
    if (!lines_next(in) || in->buffer[in->n - 1] != '\n') return false;
    *end = sscanf(in->buffer, "{\"blocks\":%zu}%n", block, &read) == 1 && read;
    if (*end) return true;
    if (sscanf(in->buffer, "{\"block\":%zu,\"bytes\":%zu}%n", block, bytes, &read) == 2 && read) return true;
    die("%s: what stands after its %zu. mark is none: delete the file and make the shard again", in->path,
        in->line - 2);
}

// The header of a shard's file, a new reference; NULL: the file ends before it.
static json_t *shard_header(Lines *in)
{
    static const char begin[] = "{\"vbon_shard\"";
    size_t n = lines_next(in) ? in->n : 0, known = n < sizeof begin - 1 ? n : sizeof begin - 1;
    if (n && strncmp(in->buffer, begin, known)) die("%s: holds something else than a shard: name another --out",
        in->path);
    if (!n || in->buffer[n - 1] != '\n') return NULL;
    json_t *j = json_loadb(in->buffer, n, 0, NULL);
    if (!j) die("%s: its first line is no JSON: delete the file and make the shard again", in->path);
    return j;
}

// In what two shards of one job differ, in words, malloc'd; NULL: in nothing that the result depends on. Names of
// files may differ from machine to machine: their fingerprints tell.
static char *shard_difference(const json_t *a, const json_t *b)
{
    static const char *const parts[] = {"flags", "files", "weights"}, *const words[] =
        {"another --%s", "another file of --%s", "other weights, tokenizer or program of --%s"};
    static const char free_flags[] = "out shard threads verbose memory model reference reward prompts prompt cache "
        "pool in reward-timeout reward-tolerance";
    if (!json_equal(json_object_get(a, "command"), json_object_get(b, "command"))) return xstrdup("another command");
    if (!json_equal(json_object_get(a, "version"), json_object_get(b, "version")))
        return xstrdup("another build of vbon");
    for (size_t i = 0; i < 3; i++) {
        json_t *x = json_object_get(a, parts[i]), *y = json_object_get(b, parts[i]), *v;
        const char *key;
        for (int swapped = 0; swapped < 2; swapped++) { // what only the other one has differs too
            json_object_foreach(swapped ? y : x, key, v)
                if (!(i == 0 && word_in(free_flags, key)) && !json_equal(v, json_object_get(swapped ? x : y, key)))
                    return format(words[i], key);
        }
    }
    return NULL;
}

// Once all is loaded. Finds what is in the file already and writes the header where there is none. weights: by flag,
// taken over; about: what merge must know, or NULL, taken over.
static void shard_begin(Shard *s, const Args *a, const char *command, json_t *weights, json_t *about)
{
    if (!s->on) { json_decref(weights); json_decref(about); return; }
    json_t *header = json_make("{s:i, s:s, s:s, s:I, s:I, s:o, s:o, s:o}", "vbon_shard", 1, "version", VBON_VERSION,
        "command", command,
        "shard", (json_int_t)s->i, "shards", (json_int_t)s->n, "flags", flags_json(a, flag_table, n_flags, command),
        "files", files_json(a), "weights", weights);
    if (about) json_object_set_new(header, "about", about);
    Lines in;
    if (!lines_open(&in, s->path, false)) die("%s: cannot be read: %s", s->path, strerror(ENOENT));
    json_t *was = shard_header(&in);
    char *differs = was ? shard_difference(was, header) : NULL;
    if (differs) die("%s: was begun with %s: go on as it was begun, or delete it", s->path, differs);
    size_t good = was ? in.n : 0, block, bytes;
    s->next = s->i;
    while (was && !s->whole && shard_mark(&in, &block, &bytes, &s->whole)) {
        if (!s->whole && block != s->next)
            die("%s: has block %zu in the place of %zu: delete the file and make the shard again", s->path, block,
                s->next);
        size_t more = s->whole ? in.n : in.n + bytes;
        if (more < in.n || more > s->file.whole - good) break; // torn
        if (!s->whole && fseeko(in.f, (off_t)bytes, SEEK_CUR)) die("%s: cannot be read: %s", s->path, strerror(errno));
        good += more;
        s->next = s->whole ? SIZE_MAX : block + s->n;
    }
    lines_close(&in);
    append_cut(&s->file, good);
    if (!good) {
        char *line = json_text(header, JSON_COMPACT | JSON_REAL_PRECISION(17)), *whole = format("%s\n", line);
        append_write(&s->file, whole, strlen(whole));
        free(line); free(whole);
    } else printf("%s: %s\n", s->path, s->whole ? "finished already" : "is gone on with");
    json_decref(header); json_decref(was);
}

// Whether this run makes block b.
static bool shard_makes(const Shard *s, size_t b) { return !s->on || (b % s->n == s->i && b >= s->next); }

// How many of `items`, `size` of them a block, stand in this shard's blocks below block `before`.
static size_t shard_items(const Shard *s, size_t items, size_t size, size_t before)
{
    size_t n = 0;
    for (size_t b = s->i; b < before && b * size < items; b += s->n)
        n += items - b * size < size ? items - b * size : size;
    return n;
}

// Puts block b into the file, all of it or nothing.
static void shard_write(Shard *s, size_t b, const char *data, size_t bytes)
{
    char *mark = format("{\"block\":%zu,\"bytes\":%zu}\n", b, bytes);
    size_t n = strlen(mark);
    char *whole = (char *)memcpy(xmalloc(n + bytes), mark, n);
    memcpy(whole + n, data, bytes);
    append_write(&s->file, whole, n + bytes);
    free(mark); free(whole);
}

// For what is printed: a block goes to the stream that shard_block returns, which is `plain` where there are no shards,
// and shard_put then puts it into the file.
static FILE *shard_block(Shard *s, FILE *plain)
{
    if (!s->on) return plain;
    s->f = open_memstream(&s->data, &s->bytes);
    if (!s->f) die("out of memory");
    return s->f;
}

static void shard_put(Shard *s, size_t b)
{
    if (!s->on) return;
    file_flush(s->f, s->path, false);
    shard_write(s, b, s->data, s->bytes);
    fclose(s->f);
    free(s->data);
}

// At the end: how many blocks there were. Several processes wait for each other, and rank 0 merges and tidies up.
static void shard_close(Shard *s, const Args *a, size_t blocks)
{
    if (!s->on) return;
    char *mark = format("{\"blocks\":%zu}\n", blocks);
    if (!s->whole) append_write(&s->file, mark, strlen(mark));
    append_close(&s->file);
    if (parallel_ranks() == 1) printf("wrote %s; when all are there, vbon merge joins them\n", s->path);
    parallel_same("end", "");
    if (s->merged) merge(a->out, s->merged);
    parallel_same("end", "");
    if (parallel_ranks() > 1) remove_file(s->path);
    free(mark); free(s->path);
}

// ----------------------------------------------------------------------------
// merge

// Of how many shards OUT is made, by the names beside it.
static size_t shards_beside(const char *out)
{
    const char *slash = strrchr(out, '/'), *name = slash ? slash + 1 : out;
    char *folder = slash ? format("%.*s/", (int)(slash - out), out) : xstrdup(".");
    size_t length = strlen(name), n = 0, i, of;
    DIR *d = opendir(folder);
    if (!d) die("%s: cannot be read: %s", folder, strerror(errno));
    for (struct dirent *e; errno = 0, (e = readdir(d));) {
        int read = 0;
        if (strncmp(e->d_name, name, length) || e->d_name[length] != '.') continue;
        if (sscanf(e->d_name + length + 1, "%zu-of-%zu%n", &i, &of, &read) < 2) continue;
        if (e->d_name[length + 1 + (size_t)read] || !of || of > 1000000) continue;
        if (n && of != n) die("%s: there are shards %zu-of-%zu and others of %zu: delete those that are not meant", out,
            i, of, n);
        n = of;
    }
    closedir(d);
    free(folder);
    if (!n) die("%s: no shards of it: --out must be what they were made with, and they stand beside it as %s.0-of-2 "
        "and so on", out, name);
    return n;
}

// All blocks of out's shards in order: block(context, data, bytes) gets each. Returns their common header, of shard 0.
static json_t *shards_read(const char *out, void (*begin)(void *context, const json_t *header),
                           void (*block)(void *context, const char *data, size_t bytes), void *context)
{
    size_t n = shards_beside(out), b = 0, at, bytes = 0, blocks = 0;
    Lines *in = (Lines *)xcalloc(n, sizeof *in);
    json_t *header = NULL;
    bool end = false;
    for (size_t i = 0; i < n; i++) {
        char *path = shard_path(out, i, n);
        if (!lines_open(&in[i], path, false))
            die("%s: shard %zu of %zu is missing: --shard %zu/%zu makes it", path, i, n, i, n);
        json_t *own = shard_header(&in[i]);
        if (!own) die("%s: is not whole: --shard %zu/%zu goes on with it", path, i, n);
        char *differs = header ? shard_difference(header, own) : NULL;
        if (differs) die("%s: was made with %s than shard 0: make it again", path, differs);
        if (header) json_decref(own);
        else header = own;
    }
    begin(context, header);
    for (size_t left = n; left; b++) { // when the first has ended the others must too
        Lines *l = &in[b % n];
        bool whole = shard_mark(l, &at, &bytes, &end);
        if (!whole) die("%s: is not whole: --shard %zu/%zu goes on with it", l->path, b % n, n);
        if (left == n && end) blocks = b;
        bool right = end ? at == blocks : left == n && at == b;
        if (!right) die("%s: its blocks are not those that the other shards lack: make it again", l->path);
        if (end) { left--; continue; }
        struct stat st;
        bool there = !fstat(fileno(l->f), &st) && bytes <= (size_t)st.st_size;
        char *data = (char *)xmalloc((there ? bytes : 0) + 1);
        if (!there || fread(data, 1, bytes, l->f) != bytes)
            die("%s: is not whole: --shard %zu/%zu goes on with it", l->path, b % n, n);
        data[bytes] = 0;
        block(context, data, bytes);
        free(data);
    }
    for (size_t i = 0; i < n; i++) { free((char *)in[i].path); lines_close(&in[i]); }
    free(in);
    printf("%s: %zu blocks in %zu shards\n", out, blocks, n);
    return header;
}
#endif
