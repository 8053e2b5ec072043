// short.c: an objective, an estimate of log F and a critic of one's own: a row each. Everything else
// (flags, --help, logs, checkpoints) follows.
//
//     make build/short
//     build/short train --objective short --fhat jeffreys --critic none ...
#define main vbon_main
#include "vbon.c"
#undef main

// log pi_bon, and half a nat taken off for every token.
static double short_score(const ObjectiveSpec *o, const Response *y, double logF, double logp)
{
    return vbon_score(o, y, logF, logp) - 0.5 * (double)y->n;
}

// The posterior's mean under Jeffreys' prior.
static double jeffreys_log_f(const Place *at) { return log((at->k + 0.5) / ((double)at->cdf->M + 1)); }

// No baseline: the advantage is what came.
static void no_values(Ppo *p)
{
    for (size_t j = 0; j < p->rollout.actions; j++) p->rollout.value[j] = 0;
}

int main(int argc, char **argv)
{
    ROW_ADD(objectives,
        {"short", "log pi_bon less half a nat a token", TAKES_N, vbon_weights, short_score, true, false});
    ROW_ADD(fhats, {"jeffreys", "log (k+1/2)/(M+1)", jeffreys_log_f, NULL, false, false});
    ROW_ADD(critics, {"none", "no baseline", false, false, 0, no_values, NULL});
    return vbon_main(argc, argv);
}
