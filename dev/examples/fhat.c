// fhat.c: what an estimate of log F is worth, without drawing: its mean and spread over k ~ Binomial(M, F), summed.
// dev/doc/course.md, lesson 3.
//
//     make build/fhat
//     build/fhat M
//
// For every row of fhats that looks at k and M alone: its mean less log F, and its standard deviation, in nats; then
// the share of samples above all M cached ones, for the reference and for Best-of-N.
#define VBON_IMPLEMENTATION
#include "ppo.h"

static void moments(const Fhat *fhat, const Cdf *cdf, double F, double *mean, double *sd)
{
    double M = (double)cdf->M, first = 0, second = 0;
    for (double k = 0; k <= M; k++) {
        double chance = exp(lgamma(M + 1) - lgamma(k + 1) - lgamma(M - k + 1) + k * log(F) + (M - k) * log1p(-F));
        Place at = {.cdf = cdf, .k = k};
        double x = fhat ? fhat->log_f(&at) : measured_log_f(&at);
        if (fhat && fhat->least) x = fmax(x, fhat->least(cdf, true));
        first += chance * x;
        second += chance * x * x;
    }
    *mean = first;
    *sd = sqrt(fmax(second - first * first, 0));
}

int main(int argc, char **argv)
{
    long M = argc > 1 ? strtol(argv[1], NULL, 10) : 32;
    if (M < 1 || M > 10000) { fprintf(stderr, "fhat: give an M of 1 to 10000: build/fhat 32\n"); return 1; }
    const Cdf cdf = {.M = (size_t)M};
    const double F[] = {0.01, 0.1, 0.5, 0.9, 0.99};
    printf("M = %ld; mean of the estimate less log F, +- its standard deviation, nats\n%-11s", M, "");
    for (int i = 0; i < 5; i++) printf("       F = %-5g", F[i]);
    printf("\n");
    for (int row = 0; row < ROWS_MAX && (!row || fhats[row - 1].name); row++) { // first the one that measures
        const Fhat *fhat = row ? &fhats[row - 1] : NULL;
        if (fhat && (!fhat->name || fhat->fits || fhat->exact)) continue;
        printf("%-11s", fhat ? fhat->name : "(measuring)");
        for (int i = 0; i < 5; i++) {
            double mean, sd;
            moments(fhat, &cdf, F[i], &mean, &sd);
            printf("  %+.3f +- %.3f", mean - log(F[i]), sd);
        }
        printf("\n");
    }
    printf("above all %ld cached samples: of the reference's 1/(M+1) = %.4f", M, 1 / (double)(M + 1));
    for (long N = 4; N <= 256; N *= 4)
        printf(", of Best-of-%ld's N/(N+M) = %.4f", N, (double)N / (double)(N + M));
    printf("\n");
    return 0;
}
