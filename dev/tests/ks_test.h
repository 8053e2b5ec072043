// ks_test.h: `vbon ks`: exact p-values against SciPy and whole-number counts; the command against the definitions.

static void test_ks(void)
{
    json_t *j = fixture("ks.json"), *row;
    size_t i;
    double a[600], b[600];
    json_array_foreach(json_object_get(j, "tests"), i, row) {
        size_t n = numbers(row, "a", a), m = numbers(row, "b", b);
        KsTest ours = ks_test(a, n, b, m), turned = ks_test(b, m, a, n);
        CHECK_NEAR(ours.statistic, num(row, "statistic"), 1e-14, "SciPy's statistic");
        CHECK(fabs(ours.p / num(row, "p") - 1) <= 1e-10, "%zu and %zu: p %.17g, SciPy's %.17g", n, m, ours.p,
              num(row, "p"));
        CHECK(turned.statistic == ours.statistic && fabs(turned.p / ours.p - 1) <= 1e-12, "the two samples exchanged");
    }
    json_array_foreach(json_object_get(j, "paths"), i, row) {
        size_t n = (size_t)num(row, "n"), m = (size_t)num(row, "m");
        double p = ks_p_value((long long)num(row, "gap"), n, m), want = num(row, "p");
        CHECK(fabs(p / want - 1) <= 1e-12, "%zu and %zu: p %.17g, by counting %.17g", n, m, p, want);
    }
    json_decref(j);
    // of independent samples from one distribution 5 % are rejected, or a little less where p-values are coarse; of the
    // first of the same ones almost none: 400 prompts of 100 rewards, M = 50
    size_t nested = 0, independent = 0;
    for (int prompt = 0; prompt < 400; prompt++) {
        double r[100];
        for (size_t k = 0; k < 100; k++) r[k] = rnd();
        nested += ks_test(r, 50, r, 100).p < 0.05;
        independent += ks_test(r, 50, r + 50, 50).p < 0.05;
    }
    CHECK(nested <= 4 && independent >= 6 && independent <= 32, "%zu and %zu of 400 rejected", nested, independent);
}

// k of the samples from..to-1 are below sample i, which is not one of them
static double ks_below(const CachePrompt *p, size_t i, size_t from, size_t to)
{
    const CacheSample *y = &p->samples[i];
    double k = 0;
    for (size_t e = from; e < to; e++) {
        const CacheSample *x = &p->samples[e];
        if (e == i || (x->has_key && x->key == y->key)) continue;
        k += x->reward != y->reward ? x->reward < y->reward : x->has_key ? x->key < y->key : 0.5;
    }
    return k;
}

// log F-hat of k of M by its definition (math of each estimate: its name), expfit where there is no fit
static double ks_log_f(const char *name, double k, double M)
{
    if (!strcmp(name, "digamma")) return digamma(k + 1) - digamma(M + 2);
    if (!strcmp(name, "mc")) return log(k > 0 ? k / M : 0.5 / M);
    return log((k + 1) / (M + 1)); // add1
}

static void ks_table_check(const char *cache, const char *out)
{
    static const size_t ms[] = {2, 5};
    char *args = format("ks --cache %s --ms 2,5 --curves auto --out %s", cache, out), *path = tmp_path(cache);
    expect_success(args);
    json_t *j = get_line(out, 0), *table = json_object_get(j, "table");
    Cache c;
    cache_read(&c, path, 0);
    CHECK(num(j, "prompts") == (double)c.n && num(j, "samples") == 8 && json_array_size(table) == 2, "what was tested");
    for (size_t v = 0; v < 2; v++) {
        static const char *const names[] = {"digamma", "mc", "add1", "expfit"};
        double error[4] = {0}, rejected = 0, of_all = 0, unfitted = 0, r[8], of[64], mean[64];
        for (size_t q = 0; q < c.n; q++) {
            const CachePrompt *p = &c.prompts[q];
            of[q] = mean[q] = 0;
            for (size_t k = 0; k < 8; k++) mean[q] += r[k] = p->samples[k].reward;
            rejected += ks_test(r, ms[v], r + ms[v], 8 - ms[v]).p < 0.05;
            of_all += ks_test(r, ms[v], r, 8).p < 0.05;
            Cdf first = {.M = ms[v], .reward = r};
            bool fits = cdf_fit(&first); // compared with SciPy's in another test
            unfitted += !fits;
            for (size_t i = ms[v]; i < 8; i++)
                for (int f = 0; f < 4; f++) {
                    double k = ks_below(p, i, 0, ms[v]), e = f == 3 && fits
                        ? -first.a * exp(-first.b * (r[i] - first.mean) / first.sd)
                        : ks_log_f(names[f], k, (double)ms[v]);
                    e = fabs(e - ks_log_f("digamma", ks_below(p, i, 0, 8), 8)) / (double)(8 - ms[v]);
                    error[f] += e;
                    if (f == 0) of[q] += e;
                }
        }
        double quarter = 0; // of the prompts below whose mean reward there are fewer than a quarter of them
        for (size_t q = 0; q < c.n; q++) {
            size_t below = 0;
            for (size_t o = 0; o < c.n; o++) below += mean[o] < mean[q] || (mean[o] == mean[q] && o < q);
            if (below < c.n / 4) quarter += of[q] / (double)(c.n / 4);
        }
        json_t *row = json_array_get(table, v), *independent = json_object_get(row, "independent");
        json_t *nested = json_object_get(row, "nested");
        CHECK(num(row, "M") == (double)ms[v] && num(row, "prompts") == (double)c.n, "row %zu", v);
        CHECK_NEAR(at(json_object_get(independent, "rejected"), 0), rejected / (double)c.n, 1e-8, "share rejected");
        CHECK_NEAR(at(json_object_get(nested, "rejected"), 0), of_all / (double)c.n, 1e-8, "share rejected, nested");
        CHECK_NEAR(at(json_object_get(row, "adversarial"), 0), quarter, 1e-8, "the adversarial quarter");
        CHECK(num(row, "unfitted") == unfitted, "prompts without a fit: %g, want %g", num(row, "unfitted"), unfitted);
        for (int f = 0; f < 4; f++)
            CHECK_NEAR(at(json_object_get(json_object_get(row, "errors"), names[f]), 0), error[f] / (double)c.n, 1e-8,
                names[f]);
    }
    json_t *curves = json_object_get(j, "curves"), *of;
    size_t i;
    double before = -INFINITY;
    CHECK(json_array_size(curves) == 3, "three prompts");
    json_array_foreach(curves, i, of) { // 8 samples: one CDF, of all; the prompts in the order of their means
        json_t *rewards = json_object_get(json_array_get(json_object_get(of, "cdfs"), 0), "rewards");
        const CachePrompt *p = &c.prompts[(size_t)num(of, "number") - 1];
        double mean = 0;
        for (size_t k = 0; k < 8; k++) mean += at(rewards, k) / 8;
        CHECK(!strcmp(p->prompt, json_string_value(json_object_get(of, "prompt"))), "the prompt of that number");
        CHECK_NEAR(num(of, "mean_reward"), mean, 1e-6, "mean reward of a curve");
        CHECK(mean >= before && json_array_size(rewards) == 8, "lowest mean first");
        for (size_t k = 1; k < 8; k++) CHECK(at(rewards, k - 1) <= at(rewards, k), "rewards ascend");
        before = mean;
    }
    json_decref(j);
    cache_free(&c);
    free(args); free(path);
}

static void test_ks_command(void)
{
    tiny_folders();
    expect_success(CACHE "ks_cache.jsonl");
    ks_table_check("ks_cache.jsonl", "ks.json");
    // without keys: equal rewards by mid-rank
    put("ks_plain.jsonl",
        "{\"prompt\":\"a\",\"responses\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\"],\"rewards\":[1,2,2,3,1,4,2,"
        "9]}\n"
        "{\"prompt\":\"b\",\"responses\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\"],\"rewards\":[9,8,1,2,3,4,5,"
        "6]}\n"
        "{\"prompt\":\"c\",\"responses\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\"],\"rewards\":[0,0,0,0,0,0,0,"
        "0]}\n"
        // its first five are the lowest five: rejected against the other three, not against all
        "{\"prompt\":\"d\",\"responses\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\"],\"rewards\":[1,2,3,4,5,6,7,"
        "8]}\n");
    ks_table_check("ks_plain.jsonl", "ks_plain.json");
    json_t *j = get_line("ks_plain.json", 0);
    CHECK(num(j, "prompts_with_ties") == 2, "prompts with equal rewards");
    json_decref(j);
    // prompts by number; a cache of more samples gives CDFs by M; --m takes the first of each
    expect_success("cache --model lm --reward rm --prompts prompts.jsonl --samples 60 --max-new 2 --out ks_60.jsonl");
    expect_success("ks --cache ks_60.jsonl --ms 1,10,40 --curves 3,1 --out ks_60.json");
    j = get_line("ks_60.json", 0);
    json_t *curves = json_object_get(j, "curves"), *cdfs = json_object_get(json_array_get(curves, 0), "cdfs");
    CHECK(json_array_size(curves) == 2 && num(json_array_get(curves, 0), "number") == 3 && json_array_size(cdfs) == 4 &&
              num(json_array_get(cdfs, 0), "M") == 10 && num(json_array_get(cdfs, 3), "M") == 60,
          "curves of prompts 3 and 1 at 10, 20, 50 and 60");
    json_decref(j);
    expect_success("ks --cache ks_60.jsonl --m 8 --ms 7 --threads 1");
    // what cannot be told is refused in one line, and nothing is written
    put("ks_one.jsonl", "{\"prompt\":\"a\",\"responses\":[\"x\",\"y\"],\"rewards\":[1.5,0.25]}\n");
    put("ks_two.jsonl",
        "{\"prompt\":\"a\",\"responses\":[\"x\",\"y\"],\"rewards\":[1.5,0.25]}\n{\"prompt\":\"b\",\"responses\":[\"x\","
        "\"y\"],\"rewards\":[1,2]}\n");
    put("ks_uneven.jsonl",
        "{\"prompt\":\"a\",\"responses\":[\"x\",\"y\"],\"rewards\":[1.5,0.25]}\n{\"prompt\":\"b\",\"responses\":[\"x\"]"
        ",\"rewards\":[1]}\n");
    put("ks_empty.jsonl",
        "{\"prompt\":\"a\",\"responses\":[\"x\"],\"rewards\":[1]}\n{\"prompt\":\"b\",\"responses\":[],\"rewards\":[]}"
        "\n");
    static const struct { const char *args; int code; const char *says; } bad[] = {
        {"ks", 2, "--cache is required"},
        {"ks --cache ks_cache.jsonl --ms 0", 2, "from 1 to 1e9"},
        {"ks --cache ks_cache.jsonl --ms 2,,3", 2, "with commas between"},
        {"ks --cache ks_cache.jsonl --ms ''", 2, "names no M"},
        {"ks --cache ks_cache.jsonl --out ks_no.json", 1, "less than the 8 samples"},
        {"ks --cache ks_cache.jsonl --ms 2,8 --out ks_no.json", 1, "--ms 8: must be less than the 8 samples"},
        {"ks --cache ks_one.jsonl --ms 1 --out ks_no.json", 1, "ks_one.jsonl: one prompt"},
        {"ks --cache ks_uneven.jsonl --ms 1 --out ks_no.json", 1, "prompt \"b\" has 1 samples, the first one 2"},
        {"ks --cache ks_empty.jsonl --ms 1 --out ks_no.json", 1, "prompt \"b\""},
        {"ks --cache ks_cache.jsonl --ms 2 --curves 4 --out ks_no.json", 1, "--curves 4: there are 3 prompts"},
        {"ks --cache ks_cache.jsonl --ms 2 --curves 0 --out ks_no.json", 2, "from 1 to 1e9"},
        {"ks --cache ks_cache.jsonl --ms 2 --curves worst --out ks_no.json", 2, "--curves worst"},
        {"ks --cache ks_cache.jsonl --ms 2 --curves auto", 2, "--out"},
        {"ks --cache ks_two.jsonl --ms 1 --curves auto --out ks_no.json", 1, "chooses three prompts"},
        {"ks --cache ks_cache.jsonl --ms 2 --out ks_cache.jsonl", 1, "is the file of --cache"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) expect_failure(bad[i].args, bad[i].code, bad[i].says);
    char *no = tmp_path("ks_no.json");
    CHECK(access(no, F_OK), "a refused run wrote its table");
    free(no);
}
