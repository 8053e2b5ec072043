// test_vbon.c: the test program. It includes vbon.c, so it sees everything.
//
// A new test is a function `static void test_x(void)` in the file of dev/tests/ that its subject belongs to, full of
// CHECK and CHECK_NEAR, and a row of the table `tests` below: a name, the function, and the builds that run it.
// One alone: `make build/test && build/test NAME` runs the tests whose name contains NAME (build/test_double too).
//
// Built twice by `make test`: optimised, in float, as shipped (behaviour, files, whole training runs); and in double
// without oneDNN, with bounds-checked buffers (gradients of every op, of whole models and losses, by finite
// differences; golden values to 1e-9). What other people's software says is in dev/fixtures, made by dev/golden.py and
// dev/tokenizer_fixtures.py. A comparison is written !(err <= tol), so NaN fails.
//
// VBON names the binary that the command-line tests run (./vbon).
#define TESTING
#include "vbon.c"
#include <sys/resource.h>
#include <sys/wait.h>

const char *__asan_default_options(void); // leaks are looked for in the binary, not in the tests
const char *__asan_default_options(void) { return "detect_leaks=0"; }

static int passed, failed, skipped, bad_checks;
static const char *skip; // a test sets it that cannot run here: why
#define CHECK(condition, ...) do { \
        if (!(condition) && bad_checks++ < 5) { \
            printf("    %s:%d: ", __FILE__, __LINE__); \
            printf(__VA_ARGS__); \
            putchar('\n'); \
        } \
    } while (0)
#define CHECK_NEAR(got, want, tol, what) do { \
        double g_ = (got), w_ = (want); \
        CHECK(fabs(g_ - w_) <= (tol), "%s: got %.17g, want %.17g (tolerance %g)", what, g_, w_, (double)(tol)); \
    } while (0)
// The larger of the worst error so far and another: NaN is worse than any number, and stays.
static double worse(double worst, double error) { return isnan(worst) || error <= worst ? worst : error; }
#define COUNT(table) (sizeof (table) / sizeof *(table))
#ifdef VBON_CUDA
enum { BUILD = 4 };
#else
enum { BUILD = sizeof(real) == 8 ? 2 : 1 };
#endif
static const bool in_double = sizeof(real) == 8;
// The slow builds (sanitizers) run fewer of the long training runs
static bool few(void) { return getenv("VBON_FEW") != NULL; }

static uint64_t test_counter;
static double rnd(void) { return random_uniform(12345, 99, test_counter++, 0, 0) * 2 - 1; }

static Buf new_buf(size_t n) // random values
{
    Buf b = cpu_alloc(n, DT_REAL, "test");
    for (size_t i = 0; i < n; i++) R_(b)[i] = (real)rnd();
    return b;
}
static Buf new_index(size_t n, const int *values)
{
    Buf b = cpu_alloc(n, DT_I32, "test");
    memcpy(b.p, values, n * sizeof(int));
    return b;
}

// A folder's model, parameters filled; its value head, which no folder has, is left undefined.
static void model_load(Model *m, const Ops *o, const char *dir, long train_layers, bool value_head)
{
    Config c;
    config_read(&c, dir);
    config_read_as(&c, dir, "test", c.scalar_head);
    model_create(m, o, &c, train_layers, value_head, false);
    model_fill(m, dir);
}

#include "dev/tests/math_test.h"
#include "dev/tests/gradient_test.h"
#include "dev/tests/model_test.h"
#include "dev/tests/files_test.h"
#include "dev/tests/arch_test.h"
#include "dev/tests/fuzz_test.h"
#include "dev/tests/command_test.h"
#include "dev/tests/terminal_test.h"
#include "dev/tests/world_test.h"
#include "dev/tests/fault_test.h"
#include "dev/tests/sizes_test.h"
#include "dev/tests/ks_test.h"
#ifdef VBON_CUDA
#include "dev/tests/cuda_test.h"
#endif

// Builds: 1 float, 2 double, 3 both, 4 with CUDA
static const struct { const char *name; void (*run)(void); int builds; } tests[] = {
    {"log_pi_bon against 400-digit arithmetic", test_log_pi_bon, 3},
    {"log F-hat against SciPy, its fits, its mean", test_fhat, 3},
    {"ranks, keys and ties", test_ranks, 3},
    {"best-of-N means and bounds", test_bon_mean, 3},
    {"ks: p-values against SciPy and counted paths", test_ks, 3},
    {"advantages and PPO losses against torch", test_ppo_pieces, 3},
    {"AdamW and clipping against torch", test_adamw, 3},
    {"moments in 8 bits: levels against bitsandbytes", test_moment_codes, 3},
    {"AdamW with moments in 8 bits", test_adamw_8bit, 3},
    {"objectives' constants", test_objectives, 3},
    {"offline losses against TRL and torch", test_offline_losses, 3},
    {"the prefix-rank baseline's features are ranks", test_prefix_features, 3},
    {"exp, tanh and erf for loops against libm", test_functions, 3},
    {"gradients of the ops", test_op_gradients, 2},
    {"gradients of whole models and losses", test_model_gradients, 2},
    {"bond and jbond: advantages, draws, gradients", test_bond_gradients, 2},
    {"all actions: gradients", test_all_actions_gradients, 2},
    {"all actions: in the world", test_all_actions_world, 1},
    {"all actions: the candidates' scores", test_candidates, 1},
    {"GPT-2 and Pythia against transformers", test_golden, 3},
    {"the head against torch", test_head, 3},
    {"DistilBERT against transformers", test_distilbert, 3},
    {"decoding equals the full forward, in any batching", test_decode, 3},
    {"sampling follows its distribution", test_sampling, 1},
    {"a fresh model: what is drawn, and what is 0 or 1", test_fresh, 1},
    {"the weights' average", test_average, 1},
    {"AdamW's states in parts", test_parts, 3},
    {"moments in 8 bits: a checkpoint has all", test_resume_8bit, 3},
    {"what is frozen stays bit-identical", test_frozen, 1},
    {"gradients with recomputed activations, bit for bit", test_recompute, 3},
    {"packed products, many shapes", test_products, 3},
    {"safetensors and folders", test_files, 1},
    {"malformed files get one clear line", test_malformed, 1},
    {"an architecture of one's own is a row", test_architecture_row, 1},
    {"config.json: what is refused by name", test_config_refusals, 1},
    {"flags: a number, or a word for one", test_word_flags, 1},
    {"byte-level BPE against Hugging Face", test_bpe, 1},
    {"special tokens as transformers resolves them", test_special_tokens, 1},
    {"WordPiece against Hugging Face", test_wordpiece, 1},
    {"fields: types, ranges, and what is not finite", test_fields, 1},
    {"passes over the data", test_passes, 1},
    {"JSONL, caches and flags", test_data, 1},
    {"commands: a line out for each line in", test_lines, 1},
    {"commands: shards merge to what one run writes", test_shards, 1},
    {"terminal: bar, step lines and errors, at three widths and in a pipe", test_terminal_lines, 1},
    {"terminal: the start-up table, after the checks", test_start_table, 1},
    {"terminal: help, version, and what was meant", test_help, 1},
    {"terminal: completions in bash", test_completion, 1},
    {"terminal: prompts from standard input", test_piped_prompts, 1},
    {"terminal: what is not defined is left out", test_left_out, 1},
    {"commands: the last, smaller batch trains", test_last_batch, 1},
    {"commands: each reads what every other writes", test_pairs, 1},
    {"commands: what is not finite is named", test_not_finite, 1},
    {"what the fuzzer found", test_fuzz, 1},
    {"the tiny world: trained models against enumeration", test_world, 1},
    {"the tiny world: offline losses against enumeration", test_offline_world, 1},
    {"ranks of the reference's own draws", test_ranks_drawn, 1},
    {"measured: Best-of-N's own samples are at distance 0", test_measured, 1},
    {"monotone maps of the reward change nothing", test_monotone, 1},
    {"rows of one's own train differently", test_rows, 1},
    {"info: plans, and scaled rewards", test_info, 1},
    {"commands: Pythia through all of them", test_pythia, 1},
    {"a reward model with another tokenizer gets the text", test_other_tokenizer, 1},
    {"what reads texts scores prefixes as texts", test_prefixes_as_texts, 1},
    {"commands: DistilBERT as the reward", test_distilbert_commands, 1},
    {"presets", test_presets, 1},
    {"commands: bad input", test_commands, 1},
    {"sizes: absurd numbers, odd files, little memory", test_sizes, 1},
    {"commands: offline, from whole and compacted caches", test_offline, 1},
    {"commands: ks, Table 1 and Figure 3 from a cache", test_ks_command, 1},
    {"commands: models, tokenizers and caches that do not fit together", test_agree, 1},
    {"commands: a reward that has changed since the cache", test_stale, 1},
    {"commands: world, in a pipe and on a terminal", test_world_command, 1},
    {"commands: killed at random moments, resumed bit for bit", test_resume, 1},
    {"commands: a signal in the middle of a product", test_signals, 1},
    {"faults: writes, reads, locks, links", test_faults, 1},
    {"faults: caches that are not whole", test_incomplete, 1},
    {"faults: reward programs", test_programs, 1},
    {"faults: checkpoints by the clock, runs resumed otherwise", test_saving, 1},
    {"faults: refused early, spelled otherwise, links to nothing", test_early, 1},
    {"faults: runs that were begun, and with which weights", test_begun, 1},
#ifdef VBON_CUDA
    {"CUDA: layers", test_cuda_layers, 4},
    {"CUDA: products", test_cuda_products, 4},
    {"CUDA: attention, rotary positions", test_cuda_attention, 4},
    {"CUDA: decoding", test_cuda_decode, 4},
    {"CUDA: decoding after long prompts", test_cuda_prefix, 4},
    {"CUDA: the head, sampling", test_cuda_head, 4},
    {"CUDA: PPO loss", test_cuda_loss, 4},
    {"CUDA: AdamW with moments in 8 bits", test_cuda_adamw_8bit, 4},
    {"CUDA: moments in 8 bits, from a checkpoint", test_cuda_resume_8bit, 4},
    {"CUDA: AdamW's states in parts", test_cuda_parts, 4},
    {"CUDA: recomputed activations", test_cuda_recompute, 4},
    {"CUDA: decoding steps as graphs", test_cuda_regions, 4},
    {"CUDA: two PPO iterations", test_cuda_ppo, 4},
    {"CUDA: the tiny world", test_cuda_world, 4},
    {"CUDA: three offline steps", test_cuda_offline, 4},
    {"CUDA: DistilBERT", test_cuda_distilbert, 4},
    {"CUDA: the same files, the same fingerprint", test_cuda_files, 4},
    {"CUDA: NCCL", test_cuda_nccl, 4},
#endif
};

typedef enum { HELD, FAILED, SKIPPED } Outcome;

static Outcome run_test(size_t i)
{
    bad_checks = 0;
    skip = NULL;
    test_counter = 0; // the same random values whichever tests ran before
    tests[i].run();
    if (skip) printf("  skip %s: %s\n", tests[i].name, skip);
    return bad_checks ? FAILED : skip ? SKIPPED : HELD;
}

// In a process of its own (VBON_APART): in one for all ThreadSanitizer runs out of memory maps
static Outcome run_apart(size_t i)
{
    int status;
    fflush(NULL);
    pid_t child = fork();
    if (!child) exit((int)run_test(i));
    bool ended = child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status);
    return ended && WEXITSTATUS(status) <= SKIPPED ? (Outcome)WEXITSTATUS(status) : FAILED;
}

int main(int argc, char **argv)
{
    wait_by_sleeping(argv);
    for (size_t i = 0; i < COUNT(tests); i++) {
        if (argc > 1 && !strstr(tests[i].name, argv[1])) continue;
        if (!(tests[i].builds & BUILD)) continue;
        double t = clock_seconds();
        Outcome outcome = getenv("VBON_APART") ? run_apart(i) : run_test(i);
        passed += outcome == HELD; failed += outcome == FAILED; skipped += outcome == SKIPPED;
        if (outcome != SKIPPED)
            printf("  %s %s (%.1f s)\n", outcome == HELD ? "ok  " : "FAIL", tests[i].name, clock_seconds() - t);
        fflush(stdout);
    }
    (void)commands; (void)n_commands; (void)preset_flags;
    printf("%d passed, %d failed", passed, failed);
    if (skipped) printf(", %d skipped", skipped);
    putchar('\n');
    return failed > 0;
}
