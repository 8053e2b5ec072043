// dice.c: Best-of-N of a die, the highest of N throws, by log_pi_bon. dev/doc/course.md, lessons 1 and 2.
//
//     make build/dice
//     build/dice FACES N
//
// A fair die with so many faces stands for the language model, the number thrown for the reward. Of each face it prints
// p, F, Best-of-N's probability in closed form and how often it was the highest of N throws that a generator made; then
// the win rate against a single throw (ties count half), KL(Best-of-N || die), and the bound log N - (N-1)/N.
#define VBON_IMPLEMENTATION
#include "ppo.h"

int main(int argc, char **argv)
{
    long faces = argc > 1 ? strtol(argv[1], NULL, 10) : 6, N = argc > 2 ? strtol(argv[2], NULL, 10) : 2;
    if (faces < 2 || faces > 100000 || N < 1 || N > 1000000) {
        fprintf(stderr, "dice: give 2 to 100000 faces and an N of 1 to 1000000: build/dice 6 2\n");
        return 1;
    }
    const long games = 100000;
    long *seen = (long *)xcalloc((size_t)faces, sizeof *seen);
    for (long g = 0; g < games; g++) {
        long best = 0;
        for (long i = 0; i < N; i++) {
            long face = (long)((double)faces * random_uniform(1, 0, (uint64_t)g, (uint64_t)i, 0));
            if (face > best) best = face;
        }
        seen[best]++;
    }
    double p = 1 / (double)faces, sum = 0, win = 0, kl = 0;
    if (faces <= 20) printf("face       p       F  Best-of-%ld  thrown\n", N);
    for (long i = 0; i < faces; i++) {
        double F = (double)i * p, log_bon = log_pi_bon(log(F), log(p), N), bon = exp(log_bon);
        sum += bon;
        win += bon * (F + p / 2);
        kl += bon > 0 ? bon * (log_bon - log(p)) : 0;
        if (faces <= 20)
            printf("%4ld  %.4f  %.4f     %.4f  %.4f\n", i + 1, p, F, bon, (double)seen[i] / (double)games);
    }
    printf("sum of Best-of-%ld %.6f\n", N, sum);
    printf("win rate %.4f; N/(N+1) = %.4f\n", win, (double)N / (double)(N + 1));
    printf("KL %.4f nats; log N - (N-1)/N = %.4f\n", kl, bon_kl_bound(N));
    free(seen);
    return 0;
}
