// bound.c: when the bound L is exact. dev/doc/course.md, lesson 2.
//
//     make build/bound
//     build/bound N
//
// L replaces log pi_bon by log N + (N-1) log F + log p. For F = .1, .5 and .9 and smaller and smaller p it prints how
// much log pi_bon is above that, and the first term of the difference, (N-1)/2 p/F.
#define VBON_IMPLEMENTATION
#include "ppo.h"

int main(int argc, char **argv)
{
    long N = argc > 1 ? strtol(argv[1], NULL, 10) : 16;
    if (N < 1 || N > 1000000) { fprintf(stderr, "bound: give an N of 1 to 1000000: build/bound 16\n"); return 1; }
    printf("N = %ld; nats\n log p     F  log pi_bon   with p<<F   excess   (N-1)/2 p/F\n", N);
    const double logps[] = {-1, -2, -4, -10, -20, -40, -80};
    for (int j = 0; j < 7; j++)
        for (int i = 0; i < 3; i++) {
            double logp = logps[j], F = 0.1 + 0.4 * i, n = (double)N;
            if (F + exp(logp) > 1) continue; // no such string
            double exact = log_pi_bon(log(F), logp, N), simple = log(n) + (n - 1) * log(F) + logp;
            printf("%6g  %.2f  %10.4f  %10.4f  %.1e  %.1e\n", logp, F, exact, simple, exact - simple,
                (n - 1) / 2 * exp(logp) / F);
        }
    return 0;
}
