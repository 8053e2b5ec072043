#define main vbon_main
#include "vbon.c"
#undef main
static double brief_score(const ObjectiveSpec *o, const Response *y, double logF, double logp) { return vbon_score(o, y, logF, logp) - 0.5 * (double)y->n; }
int main(int argc, char **argv)
{
    ROW_ADD(objectives, {"brief", "log pi_bon less half a nat a token", TAKES_N, vbon_weights, brief_score, true, false});
    return vbon_main(argc, argv);
}
