# vbon: make builds it, make demo runs the method end to end, make test proves it. `make help` lists the rest.
#
# Libraries come from Debian packages or from deps/ (`make deps` fills it, so that a machine without a network can build).
# oneDNN is optional: without it products are plain loops. Override any variable: make CC=clang ONEDNN=0.
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
say      = $(if $(filter 1,$(1)),✓ $(2),✗ $(2): $(3))

FAST    := $(BASE) $(OPT) -fopenmp $(if $(filter 1,$(ONEDNN)),-DVBON_ONEDNN)
FASTLIB := $(if $(filter 1,$(ONEDNN)),-ldnnl) $(LIBS)
DOUBLE  := $(BASE) -O2 $(ARCH) -fopenmp -g -Dreal=double -DDEBUG
SAN     := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
SOURCES := vbon.c gpt2.h pythia.h ppo.h $(wildcard lib/*.h)
TESTS   := test_vbon.c $(wildcard dev/tests/*.h)

all: vbon

PYTHON  ?= python3
.PHONY: all check demo demo-models parity test test_asan bench deps clean help
check:
	@echo "$(call say,$(OPENMP),OpenMP,install gcc)"
	@echo "$(call say,$(JANSSON),jansson,install libjansson-dev)"
	@echo "$(call say,$(UTF8),utf8proc,install libutf8proc-dev)"
	@echo "$(call say,$(STB),stb_ds,install libstb-dev)"
	@echo "$(call say,$(ONEDNN),oneDNN,install libdnnl-dev for fast products (plain loops are used))"
	@[ "$(OPENMP)$(JANSSON)$(UTF8)$(STB)" = 1111 ] || { echo "make: something that vbon needs is missing, see above"; exit 1; }

vbon: $(SOURCES) Makefile | check
	$(CC) $(FAST) vbon.c -o $@ $(FASTLIB)

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
build/bench: dev/bench.c $(SOURCES) Makefile | check
	@mkdir -p build
	$(CC) $(FAST) dev/bench.c -o $@ $(FASTLIB)

build/two_lines: dev/two_lines.c gpt2.h ppo.h Makefile
	@mkdir -p build
	$(CC) -std=c99 -Wall $(if $(WERROR),-Werror) -I. dev/two_lines.c -o $@ -lm

# Both builds' tests; the last line is their sum.
test: vbon build/test build/test_double build/two_lines
	@dev/run_tests.sh ./vbon build/test_double build/test
test_asan: build/two_lines build/vbon_asan build/test_asan build/test_double_asan
	@VBON_FEW=1 dev/run_tests.sh build/vbon_asan build/test_double_asan build/test_asan

demo: vbon
	@dev/demo.sh
demo-models: vbon
	@dev/demo_models.sh DATA="$(DATA)"
parity: vbon
	@$(PYTHON) dev/parity.py $(or $(SEED),$(error name a seed: make parity SEED=7)) $(if $(LARGE),--large dev/fixtures/configs/pythia-410m.json)
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
	@echo "make parity SEED=N   random models through transformers and through vbon (Python: dev/requirements.txt; LARGE=1 adds Pythia-410m's size)"
	@echo "make bench      speed beside the machine's own floors"
	@echo "make demo-models DATA=DIR   train the demo's models again (about an hour)"
	@echo "make deps       copy the libraries into deps/ so that a machine without a network can build"
