# vbon: make builds it, make demo runs the method end to end, make test proves it. `make help` lists the rest.
#
# Libraries come from Debian packages or from deps/ (`make deps` fills it, so that a machine without a network can build).
# oneDNN is optional: without it products are plain loops, but those by packed weights. CUDA too: where nvcc is found (12 or 13), vbon has --device cuda.
# Override any variable: make CC=clang ONEDNN=0 NVCC=.
CC      ?= gcc
ARCH    ?= -march=native
OPT     ?= -O3 $(ARCH) -fno-math-errno -fno-trapping-math -g
WARN    := -Wall -Wextra -Wshadow -Wswitch-enum $(if $(WERROR),-Werror)
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unversioned)
BASE    := -std=gnu11 -D_GNU_SOURCE -DVBON_VERSION='"$(VERSION)"' $(WARN) -I. $(if $(wildcard deps/include),-Ideps/include -Ldeps/lib)
LIBS    := -ljansson -lutf8proc -lm

have     = $(shell echo 'int main(void){return 0;}' | $(CC) -x c - -include $(1) $(if $(wildcard deps/include),-Ideps/include -Ldeps/lib) $(2) -o /dev/null 2>/dev/null && echo 1)
OPENMP  := $(call have,omp.h,-fopenmp)
JANSSON := $(call have,jansson.h,-ljansson)
UTF8    := $(call have,utf8proc.h,-lutf8proc)
STB     := $(call have,stb/stb_ds.h,)
ONEDNN  ?= $(call have,dnnl.h,-ldnnl)
NVCC    ?= $(firstword $(shell command -v nvcc 2>/dev/null) $(wildcard /usr/local/cuda/bin/nvcc /opt/cuda/bin/nvcc))
CUDA    := $(if $(NVCC),$(shell $(NVCC) --dryrun -E -x cu /dev/null 2>&1 | sed -n 's/^\#$$ TOP=//p'))
# Any MPI whose mpicc knows -show (Open MPI, MPICH): its flags, for the compiler that is used here.
MPICC   ?= $(shell command -v mpicc 2>/dev/null)
MPIFLAGS := $(if $(MPICC),$(filter -I% -L% -l% -Wl% -pthread,$(shell $(MPICC) -show 2>/dev/null)))
MPI     := $(if $(MPIFLAGS),$(call have,mpi.h,$(MPIFLAGS)))
# What is used of NCCL is loaded when it is needed (lib/nccl.h), so its header is enough.
NCCL    ?= $(if $(NVCC),$(call have,nccl.h,-I$(CUDA)/include))
say      = $(if $(filter 1,$(1)),✓ $(2),✗ $(2): $(3))

FAST    := $(BASE) $(OPT) -fopenmp $(if $(filter 1,$(ONEDNN)),-DVBON_ONEDNN)
WITHMPI := $(if $(filter 1,$(MPI)),-DVBON_MPI $(MPIFLAGS))
FASTLIB := $(if $(filter 1,$(ONEDNN)),-ldnnl) $(LIBS)
DOUBLE  := $(BASE) -O2 $(ARCH) -fopenmp -g -Dreal=double -DDEBUG
SAN     := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
comma   := ,
# Machine code for A100 and H100 generations, PTX for what comes after.
NVFLAGS := -O3 -std=c++17 -g -lineinfo -I. -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=[sm_90,compute_90] -Xcompiler -Wall,-Wextra $(if $(WERROR),-Werror all-warnings) $(if $(filter 1,$(NCCL)),-DVBON_NCCL)
GPU     := $(if $(NVCC),-DVBON_CUDA)
GPULIB  := $(if $(NVCC),-L$(CUDA)/lib64 -L$(CUDA)/lib -Wl$(comma)-rpath$(comma)$(CUDA)/lib64 -lcudart -ldl -lstdc++)
SOURCES := vbon.c gpt2.h pythia.h ppo.h $(wildcard lib/*.h)
TESTS   := test_vbon.c $(wildcard dev/tests/*.h)

all: vbon

PYTHON  ?= python3
.PHONY: all check check_emulated demo demo-models fuzz parity test test_asan test_kill test_mpi test_mpi_simt test_flags test_cuda test_simt test_simt_asan test_simt_tsan test_cost cost registers bench deps cuda_headers clean help
check:
	@echo "$(call say,$(OPENMP),OpenMP,install gcc)"
	@echo "$(call say,$(JANSSON),jansson,install libjansson-dev)"
	@echo "$(call say,$(UTF8),utf8proc,install libutf8proc-dev)"
	@echo "$(call say,$(STB),stb_ds,install libstb-dev)"
	@echo "$(call say,$(ONEDNN),oneDNN,install libdnnl-dev for fast products (plain loops are used))"
	@echo "$(call say,$(MPI),MPI,install libopenmpi-dev and openmpi-bin to train in several processes)"
	@echo "$(call say,$(if $(NVCC),1),CUDA,install NVIDIA's toolkit for --device cuda (nvcc was not found))"
	@echo "$(call say,$(NCCL),NCCL,install libnccl-dev for gradients from card to card (they go by the host's memory))"
	@[ "$(OPENMP)$(JANSSON)$(UTF8)$(STB)" = 1111 ] || { echo "make: something that vbon needs is missing, see above"; exit 1; }

vbon: $(SOURCES) $(if $(NVCC),build/vbon_cuda.o) Makefile | check
	$(CC) $(FAST) $(GPU) vbon.c $(filter %.o,$^) -o $@ $(FASTLIB) $(GPULIB) $(WITHMPI)
build/vbon_cuda.o: vbon.cu gpt2.h ppo.h lib/generate.h lib/pass.h lib/parallel.h lib/nccl.h lib/cuda_plan.h lib/cublaslt.h lib/tensor_core.h Makefile
	@mkdir -p build
	$(NVCC) $(NVFLAGS) -c vbon.cu -o $@

build/test: $(TESTS) $(SOURCES) Makefile | check
	@mkdir -p build
	$(CC) $(FAST) test_vbon.c -o $@ $(FASTLIB)
build/test_double: $(TESTS) $(SOURCES) Makefile | check
	@mkdir -p build
	$(CC) $(DOUBLE) test_vbon.c -o $@ $(LIBS)
build/test_asan: $(TESTS) $(SOURCES) Makefile | check
	@mkdir -p build
	$(CC) $(BASE) -O1 $(ARCH) -fopenmp -g -DDEBUG $(SAN) test_vbon.c -o $@ $(LIBS)
build/test_double_asan: $(TESTS) $(SOURCES) Makefile | check
	@mkdir -p build
	$(CC) $(DOUBLE) -O1 $(SAN) test_vbon.c -o $@ $(LIBS)
build/vbon_asan: $(SOURCES) Makefile | check
	@mkdir -p build
	$(CC) $(BASE) -O1 $(ARCH) -fopenmp -g -DDEBUG $(SAN) vbon.c -o $@ $(LIBS)
# For make parity, where float cannot be compared.
build/vbon_double: $(SOURCES) Makefile | check
	@mkdir -p build
	$(CC) $(DOUBLE) vbon.c -o $@ $(LIBS)
# Integers that overflow, or lose bits when converted, end this one. Without OpenMP's loops, whose bounds clang computes in wrapping numbers.
CLANG   ?= clang
INTEGER := -fsanitize=integer,undefined -fno-sanitize-recover=all
build/vbon_integer: $(SOURCES) dev/integer_ignore.txt Makefile | check
	@mkdir -p build
	$(CLANG) $(BASE) -Wno-unknown-pragmas -O1 -g $(INTEGER) -fsanitize-ignorelist=dev/integer_ignore.txt -c vbon.c -o $@.o
	$(CLANG) -fopenmp $(INTEGER) $@.o -o $@ $(LIBS)
# ops_cuda against ops_cpu on a GPU.
build/test_cuda: $(TESTS) $(SOURCES) build/vbon_cuda.o Makefile | check
	$(CC) $(FAST) $(GPU) test_vbon.c build/vbon_cuda.o -o $@ $(FASTLIB) $(GPULIB)
# And on the CPU, through dev/cuda_on_cpu and NVIDIA's headers: plain, under ASan and UBSan, and under TSan, which watches the kernels only.
CUDAINC := $(firstword $(foreach d,$(CUDA) $(CUDA_HOME) deps/cuda /usr/local/cuda,$(if $(wildcard $(d)/include/cuda_runtime.h),$(d)/include)))
SIMT    := -std=c++17 -g -fopenmp -fno-strict-aliasing -DCUDA_ON_CPU $(WARN) -Wno-unknown-pragmas -I. -isystem $(CUDAINC)
ENGINE_asan   := -DSIMT_ASAN
ENGINE_tsan   := -DSIMT_TSAN
ENGINE_cost   := -DSIMT_COST
KERNELS_plain := -O2
KERNELS_cost  := -O2 -fsanitize=thread --param tsan-instrument-func-entry-exit=0 -fno-tree-vectorize -fno-store-merging
KERNELS_asan  := -O1 $(SAN)
KERNELS_tsan  := -O1 -fsanitize=thread
HOST_plain    := $(FAST)
HOST_asan     := $(BASE) -O1 $(ARCH) -fopenmp -g -DDEBUG $(SAN)
HOST_tsan     := $(BASE) -O2 $(ARCH) -fopenmp -g
# With NCCL's header its calls are compiled for the emulated device too; build/nccl/libnccl.so.2 answers them.
NCCLSIMT := $(if $(CUDAINC),$(call have,nccl.h,-I$(CUDAINC)))
SIMTLIB        = $(filter -fsanitize=%,$(KERNELS_$*)) $(if $(filter plain,$*),$(FASTLIB),$(LIBS)) -lstdc++ -lpthread
.SECONDARY:
build/cuda_on_cpu_%.o: $(wildcard dev/cuda_on_cpu/*) Makefile
	@mkdir -p build
	$(CXX) $(SIMT) -O2 $(ENGINE_$*) -c dev/cuda_on_cpu/cuda_on_cpu.cpp -o $@
build/vbon_simt_%.o: vbon.cu gpt2.h ppo.h lib/generate.h lib/pass.h lib/parallel.h lib/nccl.h lib/cuda_plan.h $(wildcard dev/cuda_on_cpu/*) Makefile
	@mkdir -p build
	$(CXX) -x c++ $(SIMT) $(KERNELS_$*) $(if $(filter plain1,$*$(NCCLSIMT)),-DVBON_NCCL) -c vbon.cu -o $@
COUNTED := -fsanitize-coverage=trace-pc
# For the counting build a kernel's line of costs becomes a call, so that it is compiled (dev/cuda_on_cpu/claims.h).
build/vbon_claims.cu: vbon.cu Makefile
	@mkdir -p build
	{ echo '#include "dev/cuda_on_cpu/claims.h"'; echo '#line 1 "vbon.cu"'; \
	  sed '/^ *\/\/ bytes: /{:a; /bound: /!{N; s|\n *//|\n|; ba}; s|^ *// bytes: \(.*\);\([ \n]*\)flops: \(.*\);\([ \n]*\)bound: \([a-z ]*\)$$|CLAIM((\1),\2(\3),\4"\5");|}' \
	    vbon.cu; } > $@
	@[ $$(wc -l < $@) = $$(($$(wc -l < vbon.cu) + 2)) ] || { echo "make: $@ has other lines than vbon.cu"; rm $@; exit 1; }
build/vbon_simt_cost.o: build/vbon_claims.cu vbon.cu gpt2.h ppo.h lib/generate.h lib/pass.h $(wildcard dev/cuda_on_cpu/*) Makefile
	$(CXX) -x c++ $(SIMT) $(KERNELS_cost) $(COUNTED) -c $< -o $@
build/planted_bugs_%: build/cuda_on_cpu_%.o
	$(CXX) -x c++ $(SIMT) -O1 $(filter -f%,$(KERNELS_$*)) dev/cuda_on_cpu/planted_bugs.cu -x none $< -o $@
# The kernels of dev/doc/course.md: plain, tsan, and cost, which counts what they ask of memory.
build/course_kernels_%: dev/course_kernels.cu build/cuda_on_cpu_%.o
	$(CXX) -x c++ $(SIMT) $(ENGINE_$*) $(or $(KERNELS_$*),-O1) dev/course_kernels.cu -c -o $@.o
	$(CXX) -fopenmp $(filter -fsanitize=address$(comma)undefined,$(KERNELS_$*)) $(if $(filter tsan,$*),-fsanitize=thread) $@.o build/cuda_on_cpu_$*.o -o $@ -lpthread
build/test_simt_%: $(TESTS) $(SOURCES) build/vbon_simt_%.o build/cuda_on_cpu_%.o | check
	$(CC) $(HOST_$*) -DVBON_CUDA test_vbon.c $(filter %.o,$^) -o $@ $(SIMTLIB)
build/vbon_simt_%: $(SOURCES) build/vbon_simt_%.o build/cuda_on_cpu_%.o | check
	$(CC) $(HOST_$*) -DVBON_CUDA vbon.c $(filter %.o,$^) -o $@ $(SIMTLIB) $(if $(filter plain,$*),-rdynamic $(WITHMPI))
build/nccl/libnccl.so.2: dev/cuda_on_cpu/nccl.c Makefile
	@mkdir -p build/nccl
	$(CC) -std=gnu11 -O1 -g -fPIC -shared $(WARN) -isystem $(CUDAINC) $< -o $@ $(MPIFLAGS)
build/bench: dev/bench.c $(SOURCES) Makefile | check
	@mkdir -p build
	$(CC) $(FAST) dev/bench.c -o $@ $(FASTLIB)

build/gpu_bench: dev/gpu_bench.c $(SOURCES) build/vbon_cuda.o Makefile | check
	$(CC) $(FAST) $(GPU) dev/gpu_bench.c build/vbon_cuda.o -o $@ $(FASTLIB) $(GPULIB)
build/gpu_bench_simt: dev/gpu_bench.c $(SOURCES) build/vbon_simt_plain.o build/cuda_on_cpu_plain.o Makefile | check
	$(CC) $(FAST) -DVBON_CUDA dev/gpu_bench.c build/vbon_simt_plain.o build/cuda_on_cpu_plain.o -o $@ $(FASTLIB) -lstdc++ -lpthread
# What the same jobs would cost on cards that are not here: the emulator counts instead of computing (dev/cuda_on_cpu/cost.h).
build/gpu_cost: dev/gpu_cost.c dev/gpu_bench.c dev/cuda_on_cpu/cost.h $(SOURCES) build/vbon_simt_cost.o build/cuda_on_cpu_cost.o Makefile | check
	$(CC) $(FAST) -DVBON_CUDA dev/gpu_cost.c build/vbon_simt_cost.o build/cuda_on_cpu_cost.o -o $@ $(FASTLIB) -lstdc++ -lpthread
# What a program's time on a GPU is made of: loaded by the driver, see the file.
build/gpu_profile.so: dev/gpu_profile.c Makefile
	@mkdir -p build
	$(CC) -std=gnu11 -O1 -g -fPIC -shared $(WARN) -I$(CUDAINC) $< -o $@ -L$(CUDA)/lib64 -L$(CUDA)/lib -lcupti
# Programs of one's own that include vbon.c.
build/%: dev/examples/%.c $(SOURCES) Makefile | check
	@mkdir -p build
	$(CC) $(FAST) $< -o $@ $(FASTLIB)
build/two_lines: dev/two_lines.c gpt2.h pythia.h ppo.h $(wildcard lib/*.h) Makefile
	@mkdir -p build
	$(CC) -std=c99 -Wall $(if $(WERROR),-Werror) -I. dev/two_lines.c -o $@ -lm

# Both builds' tests; the last line is their sum.
test: vbon build/test build/test_double build/two_lines
	@dev/run_tests.sh ./vbon build/test_double build/test
test_asan: build/two_lines build/vbon_asan build/test_asan build/test_double_asan
	@VBON_FEW=1 ASAN_OPTIONS=allocator_may_return_null=1 dev/run_tests.sh build/vbon_asan build/test_double_asan build/test_asan

# Kills before every call that changes a file; failed writes, reads and allocations: SEED=N BUDGET=N, or FULL=1.
build/kill: dev/faults/kill.c Makefile
	@mkdir -p build
	$(CC) -std=gnu11 -O1 -g $(WARN) $< -o $@ -lrt
build/allocations.so: dev/faults/allocations.c Makefile
	@mkdir -p build
	$(CC) -std=gnu11 -O1 -g -fPIC -shared $(WARN) $< -o $@
test_kill: vbon build/kill build/allocations.so
	@dev/faults/test_kill.sh ./vbon build/kill build/allocations.so
# Every number among the flags, at its ends and beyond.
test_flags: build/vbon_integer
	@dev/check_flags.sh build/vbon_integer

# Several processes against one, where there is an MPI; and through the emulator of CUDA.
ifeq ($(MPI),1)
test_mpi: vbon
	@dev/test_mpi.sh ./vbon
test_mpi_simt: build/vbon_simt_plain $(if $(NCCLSIMT),build/nccl/libnccl.so.2)
	@ONLY="vbon trunk sft dpo" dev/test_mpi.sh build/vbon_simt_plain --device cuda
ifeq ($(NCCLSIMT),1)
	@echo "and by the emulated NCCL"
	@SIMT_CARDS=1 LD_LIBRARY_PATH=$(CURDIR)/build/nccl ONLY="trunk nccl" dev/test_mpi.sh build/vbon_simt_plain --device cuda
else
	@echo "skip NCCL in test_mpi_simt: no nccl.h was found (install libnccl-dev)"
endif
else
test_mpi test_mpi_simt:
	@echo "skip $@: no MPI was found (install libopenmpi-dev and openmpi-bin)"
endif

test_cuda: build/test_cuda
	@dev/run_tests.sh ./vbon build/test_cuda
# The kernels on the CPU: the planted bugs, then the suite in four orders of threads. TSan of gcc 12 needs fewer random bits in addresses than some kernels use.
ORDERS  := forward reverse random:1 random:2
simt     = build/planted_bugs_$(1) $(foreach o,$(2),"env SIMT_ORDER=$(o) build/test_simt_$(1)")
SKIP     = @echo "skip $@: NVIDIA's headers are needed (install the CUDA toolkit, set CUDA_HOME, or make cuda_headers)"
ifeq ($(CUDAINC),)
check_emulated test_simt test_simt_asan test_simt_tsan:
	$(SKIP)
else
# Whole commands on the emulated device, the paper's among them; plans beside what the emulator counts.
check_emulated: build/vbon_simt_plain
	@dev/check_emulated.sh
test_simt: build/planted_bugs_plain build/test_simt_plain
	@dev/run_tests.sh ./vbon $(call simt,plain,$(ORDERS))
test_simt_asan: build/planted_bugs_asan build/test_simt_asan
	@VBON_FEW=1 dev/run_tests.sh ./vbon $(call simt,asan,forward)
test_simt_tsan: build/planted_bugs_tsan build/test_simt_tsan
	@run=; [ "$$(cat /proc/sys/vm/mmap_rnd_bits 2>/dev/null || echo 28)" -le 28 ] || run="setarch -R"; \
	  $$run true 2>/dev/null || { echo "skip $@: ThreadSanitizer needs setarch -R here, which is not permitted"; exit 0; }; \
	  OMP_NUM_THREADS=1 VBON_FEW=1 VBON_APART=1 $$run dev/run_tests.sh ./vbon $(call simt,tsan,forward)
endif

# The readers under libFuzzer (clang's), ASan and UBSan: each target for SECONDS, from the committed corpus and seeds of the fixtures. New inputs go
# to build/fuzz/TARGET, what breaks to build/fuzz/TARGET-crash-* and the like: FUZZ_TARGET=TARGET build/fuzz/fuzz FILE tries it again.
FUZZ    := safetensors config bpe wordpiece data text checkpoint flags
FUZZSAN := -fsanitize=fuzzer,address,undefined,float-cast-overflow -fno-sanitize-recover=all -fsanitize-ignorelist=build/fuzz/ignore
build/fuzz/fuzz: dev/fuzz/fuzz.c dev/fuzz/harness.h dev/fuzz/omp.h $(SOURCES) Makefile | check
	@echo 'int LLVMFuzzerTestOneInput(void *p, long n) {return 0;}' | clang -x c - -fsanitize=fuzzer -w -o /dev/null 2>/dev/null || \
	  { echo "make fuzz: clang and its libFuzzer are needed: install clang and libclang-rt-dev (older releases: clang alone)"; exit 1; }
	@mkdir -p build/fuzz
	@printf '[bounds]\nsrc:*stb_ds.h\n' > build/fuzz/ignore # the last array of its arena has the size it was given
	clang $(BASE) -O1 $(ARCH) -g -DDEBUG -fno-omit-frame-pointer $(FUZZSAN) -Wno-unknown-pragmas -Idev/fuzz $< -o $@ $(LIBS)
fuzz: build/fuzz/fuzz
	@$(PYTHON) dev/fuzz/seeds.py build/fuzz/seeds
	@grep -oh '"[A-Za-z_#][A-Za-z0-9_.]\{1,40\}"' $(SOURCES) | sort -u > build/fuzz/words # names of fields, types and flags
	@for t in $(or $(TARGET),$(FUZZ)); do \
	  mkdir -p build/fuzz/$$t dev/fuzz/corpus/$$t build/fuzz/seeds/$$t; \
	  FUZZ_TARGET=$$t build/fuzz/fuzz build/fuzz/$$t dev/fuzz/corpus/$$t build/fuzz/seeds/$$t -max_total_time=$(or $(SECONDS),60) -timeout=10 -rss_limit_mb=2500 \
	    -max_len=4096 -dict=build/fuzz/words -close_fd_mask=3 -detect_leaks=0 -print_final_stats=1 -artifact_prefix=build/fuzz/$$t- > build/fuzz/$$t.log 2>&1 || \
	    { tail -60 build/fuzz/$$t.log; echo "fuzz $$t: failed, see build/fuzz/$$t.log"; exit 1; }; \
	  echo "fuzz $$t: $$(sed -n 's/^Done //p' build/fuzz/$$t.log), $$(sed -n 's/.*DONE *\(cov: [0-9]* ft: [0-9]*\).*/\1/p' build/fuzz/$$t.log)"; \
	done

demo: vbon
	@dev/demo.sh
demo-models: vbon
	@dev/demo_models.sh DATA="$(DATA)"
parity: vbon build/vbon_double
	@$(PYTHON) dev/parity.py $(or $(SEED),$(error name a seed: make parity SEED=7)) $(if $(LARGE),--large dev/fixtures/configs/pythia-410m.json) $(if $(DATA),--data "$(DATA)")
# What the paper's work would cost on four cards, predicted (a minute or two; dev/gpu_cost.c); KERNEL=NAME: what kernels of that name touch.
cost: build/gpu_cost
	@$(if $(KERNEL),build/gpu_cost --kernel '$(KERNEL)',build/gpu_cost > build/cost.md && mv build/cost.md dev/results/cost.md && sed -n '/^| |/,/^$$/p' dev/results/cost.md)
build/known_costs: dev/cuda_on_cpu/known_costs.cu build/cuda_on_cpu_cost.o
	$(CXX) -x c++ $(SIMT) $(KERNELS_cost) $(COUNTED) -c dev/cuda_on_cpu/known_costs.cu -o $@.o
	$(CXX) -fopenmp $@.o build/cuda_on_cpu_cost.o -o $@
test_cost: build/known_costs build/gpu_cost
	build/known_costs
	build/gpu_cost --check dev/results/cost.md
# Registers a thread of each kernel, by nvcc for sm_90: how many blocks a processor holds follows from them.
registers:
	@$(NVCC) -O3 -std=c++17 -I. -arch=sm_90 -Xptxas -v -cubin vbon.cu -o build/registers.cubin 2>&1 | \
	  sed -n "s/.*Compiling entry function '\([^']*\)'.*/\1/p; s/.*Used \([0-9]*\) registers.*/\1/p" | paste - - | c++filt | \
	  sed 's/^void //; s/(.*)//; s/__nv_bfloat16/bf16/g; s/\t/ /' | LC_ALL=C sort > dev/cuda_on_cpu/registers.txt

bench: build/bench
	@build/bench $(if $(LLMC),--llmc $(LLMC))

# Static copies of the small libraries, for machines without a network (oneDNN stays optional).
deps:
	@mkdir -p deps/include/stb deps/lib
	cp /usr/include/jansson.h /usr/include/jansson_config.h /usr/include/utf8proc.h deps/include/ 2>/dev/null || cp /usr/include/jansson.h /usr/include/utf8proc.h /usr/include/*/jansson_config.h deps/include/
	cp /usr/include/stb/stb_ds.h deps/include/stb/
	cp $$($(CC) -print-file-name=libjansson.a) $$($(CC) -print-file-name=libutf8proc.a) deps/lib/

# NVIDIA's headers alone (5 MB), for test_simt where there is no toolkit.
cuda_headers:
	@mkdir -p build/wheels deps/cuda/include
	python3 -m pip download -q --no-deps -d build/wheels nvidia-cuda-runtime-cu12==12.4.127 nvidia-cuda-nvcc-cu12==12.4.131
	cd build/wheels && for w in *.whl; do python3 -m zipfile -e $$w unpacked; done
	for d in build/wheels/unpacked/nvidia/*/include; do cp -r $$d/. deps/cuda/include/; done
	rm -rf build/wheels

clean:
	rm -rf vbon build runs
help:
	@echo "make            build ./vbon"
	@echo "make demo       reference and reward model -> cache -> vBoN -> evaluation, about two minutes"
	@echo "make test       the tests;  make test_asan: the same under ASan and UBSan"
	@echo "make test_kill  runs killed before every call that changes a file; writes, reads and allocations that fail (a sample by SEED=N; FULL=1: all)"
	@echo "make test_mpi   several processes train to the bytes of one, go on, and are refused (needs an MPI)"
	@echo "make test_flags every number among the flags at its ends and beyond, integers watched (clang)"
	@echo "make test_cuda  the CUDA operations against the CPU's, on a GPU;  make test_simt: the same on the CPU"
	@echo "make test_simt_asan, test_simt_tsan: the kernels on the CPU under sanitizers"
	@echo "make cost       what the paper's work would cost on A100, H100 and H200, predicted without one (KERNEL=name: what kernels touch, line by line)"
	@echo "make test_cost  the counting, and that nothing costs 5 % more than dev/results/cost.md says"
	@echo "make check_emulated  whole commands with --device cuda on the CPU, the paper's too, and memory beside its plans"
	@echo "make parity SEED=N   random models through transformers and through vbon (Python: dev/requirements.txt; LARGE=1 adds Pythia-410m's size,"
	@echo "                     DATA=DIR real tokenizers on real text)"
	@echo "make fuzz SECONDS=60  the readers under libFuzzer, each for so long (clang; TARGET=bpe: one alone; dev/doc/faults.md)"
	@echo "make bench      speed beside the machine's own floors, memory beside the plan (LLMC=DIR: beside llm.c, built there)"
	@echo "make demo-models DATA=DIR   train the demo's models again (about an hour)"
	@echo "make cuda_headers   NVIDIA's headers alone, for make test_simt without the toolkit"
	@echo "make deps       copy the libraries into deps/ so that a machine without a network can build"
