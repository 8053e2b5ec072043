#define VBON_IMPLEMENTATION
#include "ppo.h"
int main(void) { printf("%.15g\n", log_pi_bon(log(0.5), -40, 16)); return 0; }
