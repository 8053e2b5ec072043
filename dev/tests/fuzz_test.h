// fuzz_test.h: what the fuzzer (dev/fuzz) found, each by the shortest file that shows it.

static void nameless_folder(const char *name) { make_folder(name); }
static void go_on_with_cache(const char *path)
{
    json_t *header = json_make("{s:i, s:s}", "vbon_cache", 1, "model", "m");
    Append file;
    append_open(&file, path);
    cache_resume(&file, header, NULL, 0, 1);
}
static void cut_log(const char *dir) { log_cut(dir, 3); }

static void test_fuzz(void)
{
    // an empty name was read beyond its end
    expect_death(nameless_folder, "", 1, "an empty name");

    // a first document without tokens was copied to an array that was not there yet (UBSan's builds see it)
    char *path = tmp_path("fuzz.jsonl");
    const char *docs = "{\"text\":\"\"}\n{\"text\":\" film\"}\n";
    write_text(path, docs);
    Tokenizer *t = tokenizer_load("dev/demo/tokenizer");
    Corpus c;
    corpus_read(&c, LOSS_LM, path, t, 8, SIZE_MAX, 0, 0);
    CHECK(c.n_docs == 1 && c.n_tokens == 2, "%zu documents, %zu tokens", c.n_docs, c.n_tokens);
    corpus_free(&c);
    // what was cut at the limit has no end, what ended by itself has one
    docs = "{\"prompt\":\" film\",\"text\":\" film\",\"finished\":false}\n"
           "{\"prompt\":\" film\",\"text\":\" film\",\"finished\":true}\n";
    write_text(path, docs);
    corpus_read(&c, LOSS_LM, path, t, 8, SIZE_MAX, 0, 0);
    CHECK(c.n_docs == 2 && c.n_tokens == 5 && c.tokens[4] == tokenizer_eos(t), "%zu documents, %zu tokens", c.n_docs,
        c.n_tokens);
    corpus_free(&c);
    tokenizer_free(t);

    // a NUL ended a line of the log early: it took the next record with it
    char *dir = tmp_path("fuzz-log"), *log = tmp_path("fuzz-log/log.jsonl");
    const char lines[] = "{\"step\":1}\n{\"step\":2}\0 \n{\"step\":3}\n{\"step\":4}\n";
    make_folder(dir);
    write_file(log, lines, sizeof lines - 1);
    expect_death(cut_log, dir, 1, "log.jsonl:2: no record");

    // and a cache's header was taken for whole
    const char header[] = "{\"vbon_cache\":1,\"model\":\"m\"}\0 \n";
    write_file(path, header, sizeof header - 1);
    expect_death(go_on_with_cache, path, 1, "fuzz.jsonl:1: ");
    free(path); free(dir); free(log);
}
