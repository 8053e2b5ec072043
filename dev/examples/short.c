// short.c: an objective, an estimate of log F and a critic of one's own: a row each. Everything else
// (flags, --help, logs, checkpoints) follows.
//
//     make build/short
//     build/short train --objective short --fhat jeffreys --critic rollout-mean ...
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

// The mean of the other responses' total rewards, the same at every position.
static void rollout_mean_values(Ppo *p)
{
    Rollout *r = &p->rollout;
    double all = 0;
    for (size_t j = 0; j < r->actions; j++) all += r->reward[j];
    for (size_t i = 0; i < r->E; i++) {
        double own = 0;
        for (size_t j = r->at[i]; j < r->at[i + 1]; j++) own += r->reward[j];
        for (size_t j = r->at[i]; j < r->at[i + 1]; j++) r->value[j] = r->E > 1 ? (all - own) / (double)(r->E - 1) : 0;
    }
}

int main(int argc, char **argv)
{
    ROW_ADD(objectives,
        {"short", "log pi_bon less half a nat a token", TAKES_N, vbon_weights, short_score, true, false});
    ROW_ADD(fhats, {"jeffreys", "log (k+1/2)/(M+1)", jeffreys_log_f, NULL, false, false});
    ROW_ADD(critics,
        {"rollout-mean", "the mean total reward of the rollout's other responses", false, false, 0, rollout_mean_values,
            NULL});
    return vbon_main(argc, argv);
}
