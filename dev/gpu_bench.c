// gpu_bench.c: times on a GPU, beside two ceilings measured in the same run: the bandwidth of a device copy and the rate of a large bf16 product.
//
//   build/gpu_bench [--tiny]      one JSON object a line, on stdout; medians of five repeats after two that warm up (a decoding step is recorded
//                                 in the second). --tiny: shapes for the emulated device, to see that it runs; its times mean nothing.
//
// It goes through the op table alone. Every timed stretch ends with a transfer to the host, which waits for the device.
#define TESTING
#include "../vbon.c"

enum { REPEATS = 5, WARM = 2 };
static const Ops *o;
static bool tiny;
static Config shape;

static int by_size(const void *a, const void *b) { double x = *(const double *)a, y = *(const double *)b; return (x > y) - (x < y); }
static double median(double *x) { qsort(x, REPEATS, sizeof *x, by_size); return x[REPEATS / 2]; }
static void wait_for(Buf b) { double x[2]; o->download(x, slice(b, 0, 1)); }

static void bench_ceilings(void)
{
    size_t n = tiny ? 4096 : (size_t)1 << 29, D = tiny ? 64 : 8192;
    double copy[REPEATS], product[REPEATS];
    Buf a = o->alloc(n, DT_BF16, "a"), b = o->alloc(n, DT_BF16, "b"), c = o->alloc(D * D, DT_BF16, "c");
    real *x = xmalloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = (real)(random_uniform(1, 1, i, 0, 0) - 0.5); // a product of zeros would be faster
    o->upload(a, x);
    free(x);
    o->copy(b, a);
    for (int r = -WARM; r < REPEATS; r++) {
        wait_for(b);
        double t = clock_seconds();
        for (int k = 0; k < 10; k++) o->copy(b, a);
        wait_for(b);
        if (r >= 0) copy[r] = 10 * 2.0 * (double)n * 2 / (clock_seconds() - t);
        t = clock_seconds();
        for (int k = 0; k < 10; k++) o->matmul_forward(c, slice(a, 0, D * D), slice(b, 0, D * D), (Buf){0}, D, D, D);
        wait_for(c);
        if (r >= 0) product[r] = 10 * 2.0 * (double)D * (double)D * (double)D / (clock_seconds() - t);
    }
    printf("{\"what\":\"ceilings\",\"copy_bytes_per_second\":%.4g,\"bf16_flop_per_second\":%.4g,\"product_size\":%zu}\n", median(copy), median(product), D);
    o->release(&a); o->release(&b); o->release(&c);
}

static void bench_training(size_t B, size_t T)
{
    Model m;
    model_create(&m, o, &shape, TRAIN_ALL, false, false);
    model_random(&m, 1);
    int *tokens = xmalloc(B * T * sizeof *tokens);
    Row *rows = xmalloc(B * sizeof *rows);
    size_t *which = xmalloc(B * sizeof *which);
    for (size_t i = 0; i < B * T; i++) tokens[i] = (int)(random_bits(1, 1, i, 0, 0) % shape.V);
    for (size_t b = 0; b < B; b++) { rows[b] = (Row){b * T, T, 1, 0}; which[b] = b; }
    Corpus c = {.kind = LOSS_LM, .tokens = tokens, .rows = rows, .n_tokens = B * T, .n_rows = B};
    Trainer t;
    AdamW opt = {1e-5, 0.9, 0.95, 1e-8, 0, 1};
    double x[REPEATS];
    trainer_create(&t, &m, B * T, true);
    for (int r = -WARM; r < REPEATS; r++) {
        wait_for(m.data);
        double began = clock_seconds();
        model_zero_grad(&m);
        supervised_batch(&t, &c, which, B, (double)(B * (T - 1)), true, NULL);
        model_update(&m, &opt);
        wait_for(m.data);
        if (r >= 0) x[r] = clock_seconds() - began;
    }
    double s = median(x);
    printf("{\"what\":\"training step\",\"batch\":%zu,\"length\":%zu,\"seconds\":%.4g,\"tokens_per_second\":%.4g}\n", B, T, s, (double)(B * T) / s);
    trainer_free(&t); model_free(&m);
    free(tokens); free(rows); free(which);
}

static void bench_decode(size_t rows)
{
    enum { NEW = 32, PROMPT = 8 };
    Model m;
    model_create(&m, o, &shape, TRAIN_NONE, false, false);
    model_random(&m, 1);
    model_pack(&m);
    int ids[PROMPT];
    for (int i = 0; i < PROMPT; i++) ids[i] = 3 + i;
    Prompt prompt = {.ids = ids, .n = PROMPT};
    Sampling s = {.temperature = 1, .top_p = 1, .seed = 1, .stream = STREAM_SAMPLE, .eos = -1};
    Arena work = {.name = "bench", .o = o};
    Generator g = {0};
    for (int pass = 0; pass < 2; pass++) { if (pass) arena_place(&work); generator_carve(&g, &m, &work, rows, 256, PROMPT, NEW); }
    Response *r = xcalloc(rows, sizeof *r);
    double x[REPEATS];
    for (int i = -WARM; i < REPEATS; i++) {
        for (size_t b = 0; b < rows; b++) { response_free(&r[b]); r[b] = (Response){.sample = b}; }
        double began = clock_seconds();
        generate(&g, &s, &prompt, r, rows); // each step ends with its tokens on the host
        if (i >= 0) x[i] = clock_seconds() - began;
    }
    double step = median(x) / NEW;
    printf("{\"what\":\"decoding step\",\"rows\":%zu,\"seconds\":%.4g,\"tokens_per_second\":%.4g}\n", rows, step, (double)rows / step);
    for (size_t b = 0; b < rows; b++) response_free(&r[b]);
    free(r);
    generator_free(&g); arena_release(&work); model_free(&m);
}

int main(int argc, char **argv)
{
    wait_by_sleeping(argv);
    tiny = argc > 1 && !strcmp(argv[1], "--tiny");
    if (argc > 1 + tiny) usage("gpu_bench: it knows --tiny");
    o = ops_cuda(DT_BF16);
    shape = (Config){.arch = "gpt2", .L = 12, .NH = 12, .C = 768, .F = 3072, .V = 50257, .max_T = 1024, .act = ACT_GELU_TANH, .tied = true, .eps = 1e-5, .init_std = 0.02, .eos = 50256};
    if (tiny) { shape.L = 1; shape.NH = 2; shape.C = 32; shape.F = 64; shape.V = 61; shape.max_T = 64; shape.eos = 60; }
    bench_ceilings();
    bench_training(4, tiny ? 16 : 64);
    if (!tiny) bench_training(8, 1024);
    static const size_t rows[] = {1, 8, 128, 1024};
    for (size_t i = 0; i < (tiny ? 2 : 4); i++) { bench_decode(rows[i]); fflush(stdout); }
    (void)commands; (void)n_commands; (void)preset_flags; (void)flag_table; (void)n_flags;
    return 0;
}
