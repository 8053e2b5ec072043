// gpu_profile.c: what a program's time on the device is made of, kernel by kernel, without changing the program.
//
//   CUDA_INJECTION64_PATH=build/gpu_profile.so build/gpu_bench decode     (make build/gpu_profile.so; needs CUPTI)
// The CUDA driver loads this library at start. It collects CUPTI's record of every kernel, copy and fill, those of
// graphs too, and prints at the end one line a name on standard error, the costliest first: calls, milliseconds in
// all, microseconds each, registers and shared bytes of the last call. Kernels run as they do without it. With
// BY_GRID=1 a kernel has a line for every size of its grid.
#include <cupti.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAMES = 4096, BUFFER = 8 << 20 };
typedef struct { char *name; double ns; long calls; int registers, shared; } Line;
static Line lines[NAMES];
static int n_lines, by_grid;

static void add(const char *name, uint64_t start, uint64_t end, int registers, int shared)
{
    int i = 0;
    while (i < n_lines && strcmp(lines[i].name, name)) i++;
    if (i == n_lines) {
        if (n_lines == NAMES) return;
        lines[n_lines++] = (Line){.name = strdup(name)};
    }
    lines[i].ns += (double)(end - start);
    lines[i].calls++;
    lines[i].registers = registers;
    lines[i].shared = shared;
}

static void CUPTIAPI give(uint8_t **buffer, size_t *size, size_t *max)
{
    *buffer = aligned_alloc(8, BUFFER);
    *size = *buffer ? BUFFER : 0;
    *max = 0;
}

static void CUPTIAPI take(CUcontext context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid)
{
    (void)context; (void)stream; (void)size;
    for (CUpti_Activity *a = NULL; cuptiActivityGetNextRecord(buffer, valid, &a) == CUPTI_SUCCESS;) {
        if (a->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
            CUpti_ActivityKernel10 *k = (CUpti_ActivityKernel10 *)a;
            char name[512];
            if (by_grid) snprintf(name, sizeof name, "%dx%dx%d %s", k->gridX, k->gridY, k->gridZ, k->name);
            add(by_grid ? name : k->name, k->start, k->end, k->registersPerThread,
                k->staticSharedMemory + k->dynamicSharedMemory);
        } else if (a->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
            CUpti_ActivityMemcpy6 *c = (CUpti_ActivityMemcpy6 *)a;
            add(c->copyKind == CUPTI_ACTIVITY_MEMCPY_KIND_HTOD ? "(upload)"
                : c->copyKind == CUPTI_ACTIVITY_MEMCPY_KIND_DTOH ? "(download)" : "(copy)", c->start, c->end, 0, 0);
        } else if (a->kind == CUPTI_ACTIVITY_KIND_MEMSET) {
            CUpti_ActivityMemset4 *s = (CUpti_ActivityMemset4 *)a;
            add("(fill)", s->start, s->end, 0, 0);
        }
    }
    free(buffer);
}

static int costlier(const void *a, const void *b)
{
    double x = ((const Line *)a)->ns, y = ((const Line *)b)->ns;
    return (x < y) - (x > y);
}

static void print(void)
{
    cuptiActivityFlushAll(1);
    double all = 0;
    for (int i = 0; i < n_lines; i++) all += lines[i].ns;
    qsort(lines, (size_t)n_lines, sizeof *lines, costlier);
    fprintf(stderr, "%.1f ms on the device\n%6s %9s %8s %9s %4s %6s\n", all / 1e6, "share", "ms", "calls", "us each",
        "regs", "shared");
    for (int i = 0; i < n_lines && i < 40; i++)
        fprintf(stderr, "%5.1f%% %9.2f %8ld %9.2f %4d %6d %.100s\n", 100 * lines[i].ns / all, lines[i].ns / 1e6,
            lines[i].calls, lines[i].ns / 1e3 / (double)lines[i].calls, lines[i].registers, lines[i].shared,
            lines[i].name);
}

int InitializeInjection(void); // called by the driver
int InitializeInjection(void)
{
    CUpti_ActivityKind kinds[] = {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY,
        CUPTI_ACTIVITY_KIND_MEMSET};
    for (int i = 0; i < 3; i++)
        if (cuptiActivityEnable(kinds[i]) != CUPTI_SUCCESS) fprintf(stderr, "gpu_profile: CUPTI refuses\n");
    cuptiActivityRegisterCallbacks(give, take);
    by_grid = getenv("BY_GRID") != NULL;
    atexit(print);
    return 1;
}
