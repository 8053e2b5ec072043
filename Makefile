# vbon: make builds it, make demo runs the method end to end, make test proves it. `make help` lists the rest.
#
# Libraries come from Debian packages or from deps/ (`make deps` fills it, so that a machine without a network can build).
# oneDNN is optional: without it products are plain loops. CUDA too: where nvcc is found (12 or 13), vbon has --device cuda.
# Override any variable: make CC=clang ONEDNN=0 NVCC=.
CC      ?= gcc
ARCH    ?= -march=native
OPT     ?= -O3 $(ARCH) -fno-math-errno -fno-trapping-math -g
WARN    := -Wall -Wextra -Wshadow $(if $(WERROR),-Werror)
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
say      = $(if $(filter 1,$(1)),✓ $(2),✗ $(2): $(3))

FAST    := $(BASE) $(OPT) -fopenmp $(if $(filter 1,$(ONEDNN)),-DVBON_ONEDNN)
FASTLIB := $(if $(filter 1,$(ONEDNN)),-ldnnl) $(LIBS)
DOUBLE  := $(BASE) -O2 $(ARCH) -fopenmp -g -Dreal=double -DDEBUG
SAN     := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
comma   := ,
# Machine code for A100 and H100 generations, PTX for what comes after.
NVFLAGS := -O3 -std=c++17 -g -lineinfo -I. -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=[sm_90,compute_90] -Xcompiler -Wall,-Wextra $(if $(WERROR),-Werror all-warnings)
GPU     := $(if $(NVCC),-DVBON_CUDA)
GPULIB  := $(if $(NVCC),-L$(CUDA)/lib64 -L$(CUDA)/lib -Wl$(comma)-rpath$(comma)$(CUDA)/lib64 -lcublasLt -lcudart -lstdc++)
SOURCES := vbon.c gpt2.h ppo.h $(wildcard lib/*.h)
TESTS   := test_vbon.c $(wildcard dev/tests/*.h)

all: vbon

.PHONY: all check demo demo-models test test_asan test_cuda test_simt bench deps clean help
check:
	@echo "$(call say,$(OPENMP),OpenMP,install gcc)"
	@echo "$(call say,$(JANSSON),jansson,install libjansson-dev)"
	@echo "$(call say,$(UTF8),utf8proc,install libutf8proc-dev)"
	@echo "$(call say,$(STB),stb_ds,install libstb-dev)"
	@echo "$(call say,$(ONEDNN),oneDNN,install libdnnl-dev for fast products (plain loops are used))"
	@echo "$(call say,$(if $(NVCC),1),CUDA,install NVIDIA's toolkit for --device cuda (nvcc was not found))"
	@[ "$(OPENMP)$(JANSSON)$(UTF8)$(STB)" = 1111 ] || { echo "make: something that vbon needs is missing, see above"; exit 1; }

vbon: $(SOURCES) $(if $(NVCC),build/vbon_cuda.o) Makefile | check
	$(CC) $(FAST) $(GPU) vbon.c $(filter %.o,$^) -o $@ $(FASTLIB) $(GPULIB)
build/vbon_cuda.o: vbon.cu gpt2.h Makefile
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
# ops_cuda against ops_cpu: on a GPU, and on the CPU through dev/cuda_on_cpu, in four orders of threads.
build/test_cuda: $(TESTS) $(SOURCES) build/vbon_cuda.o Makefile | check
	$(CC) $(FAST) $(GPU) test_vbon.c build/vbon_cuda.o -o $@ $(FASTLIB) $(GPULIB)
SIMT    := -std=c++17 -O2 -g -fopenmp -fno-strict-aliasing -DCUDA_ON_CPU -I. -isystem $(CUDA)/include
build/cuda_on_cpu.o: $(wildcard dev/cuda_on_cpu/*) Makefile
	@mkdir -p build
	$(CXX) $(SIMT) -c dev/cuda_on_cpu/cuda_on_cpu.cpp -o $@
build/vbon_simt.o: vbon.cu gpt2.h $(wildcard dev/cuda_on_cpu/*) Makefile
	@mkdir -p build
	$(CXX) -x c++ $(SIMT) $(WARN) -c vbon.cu -o $@
build/test_simt: $(TESTS) $(SOURCES) build/vbon_simt.o build/cuda_on_cpu.o Makefile | check
	$(CC) $(FAST) -DVBON_CUDA test_vbon.c build/vbon_simt.o build/cuda_on_cpu.o -o $@ $(FASTLIB) -lstdc++ -lpthread
build/vbon_simt: $(SOURCES) build/vbon_simt.o build/cuda_on_cpu.o Makefile | check
	$(CC) $(FAST) -DVBON_CUDA vbon.c build/vbon_simt.o build/cuda_on_cpu.o -o $@ $(FASTLIB) -lstdc++ -lpthread
build/bench: dev/bench.c $(SOURCES) Makefile | check
	@mkdir -p build
	$(CC) $(FAST) dev/bench.c -o $@ $(FASTLIB)

# Both builds' tests; the last line is their sum.
test: vbon build/test build/test_double
	@dev/run_tests.sh ./vbon build/test_double build/test
test_asan: build/vbon_asan build/test_asan build/test_double_asan
	@VBON_FEW=1 dev/run_tests.sh build/vbon_asan build/test_double_asan build/test_asan

test_cuda: build/test_cuda
	@dev/run_tests.sh ./vbon build/test_cuda
test_simt: $(if $(CUDA),build/test_simt)
	@$(if $(CUDA),for order in forward reverse random:1 random:2; do echo "threads in order: $$order"; SIMT_ORDER=$$order dev/run_tests.sh ./vbon build/test_simt || exit 1; done,\
	  echo "skip test_simt: NVIDIA's headers are needed (install the CUDA toolkit)")

demo: vbon
	@dev/demo.sh
demo-models: vbon
	@dev/demo_models.sh DATA="$(DATA)"
bench: build/bench
	@build/bench

# Static copies of the small libraries, for machines without a network (oneDNN stays optional).
deps:
	@mkdir -p deps/include/stb deps/lib
	cp /usr/include/jansson.h /usr/include/jansson_config.h /usr/include/utf8proc.h deps/include/ 2>/dev/null || cp /usr/include/jansson.h /usr/include/utf8proc.h /usr/include/*/jansson_config.h deps/include/
	cp /usr/include/stb/stb_ds.h deps/include/stb/
	cp $$($(CC) -print-file-name=libjansson.a) $$($(CC) -print-file-name=libutf8proc.a) deps/lib/

clean:
	rm -rf vbon build runs
help:
	@echo "make            build ./vbon"
	@echo "make demo       reference and reward model -> cache -> vBoN -> evaluation, about two minutes"
	@echo "make test       the tests;  make test_asan: the same under ASan and UBSan"
	@echo "make test_cuda  the CUDA operations against the CPU's, on a GPU;  make test_simt: the same on the CPU"
	@echo "make bench      speed beside the machine's own floors"
	@echo "make demo-models DATA=DIR   train the demo's models again (about an hour)"
	@echo "make deps       copy the libraries into deps/ so that a machine without a network can build"
