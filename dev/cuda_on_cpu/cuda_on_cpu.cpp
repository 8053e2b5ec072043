// cuda_on_cpu.cpp: the half of "CUDA on the CPU" that runs things. It is always compiled without sanitizers, which
// would take its own bookkeeping for the program's; SIMT_ASAN or SIMT_TSAN says which one the kernels are compiled
// with.
#define SIMT_ENGINE
#include "cuda_on_cpu.h"
#include "report.h"
#include "tensor_core.h"
#include "scheduler.h"
#ifdef SIMT_COST
#include "cost.h"
#endif
#include "runtime.h"
#include "gemm.h"
