#!/bin/sh
# check_kernels.sh: what can be seen of vbon.cu's kernels without a GPU: for sm_80 and sm_90 no kernel spills registers
# (ptxas); in the PTX the bfloat16 attention kernels multiply on tensor cores, and the elementwise ones read 128 bits at
# a time. A named skip without nvcc.
set -eu
cd "$(dirname "$0")/.."
command -v nvcc > /dev/null || { echo "skip check_kernels: nvcc is needed (install the CUDA toolkit)"; exit 0; }
mkdir -p build; out=build/kernels bad=0
nvcc -O3 -std=c++17 -I. -arch=compute_80 -ptx vbon.cu -o $out.ptx
for sm in 80 90; do
    nvcc -O3 -std=c++17 -I. -gencode arch=compute_$sm,code=sm_$sm -Xptxas -v -cubin vbon.cu -o $out.cubin \
        2> $out.txt || { cat $out.txt; exit 1; }
    all=$(grep -c 'bytes spill stores' $out.txt) clean=$(grep -c ' 0 bytes spill stores, 0 bytes spill loads' $out.txt)
    [ "$all" -gt 30 ] && [ "$all" = "$clean" ] ||
        { echo "sm_$sm: $((all - clean)) of $all kernels spill registers (or ptxas said nothing): see $out.txt";
            bad=1; }
done
has() { # has KERNEL PATTERN: every instance of the kernel has a line like it
    awk -v k="$1" -v p="$2" '
        /\.entry/ {
            if (on && !found) { print "no " p " in " name; bad = 1 }
            name = $3; on = index(name, k) > 0; found = 0; n += on
        }
        on && $0 ~ p { found = 1 }
        END {
            if (on && !found) { print "no " p " in " name; bad = 1 }
            if (!n) { print "no kernel is called " k; bad = 1 }
            exit bad
        }' $out.ptx || bad=1
}
for k in attention_mma attention_backward_mma; do has $k 'mma\.sync'; done
for k in add_kernel convert_kernel adamw_kernel sumsq_kernel activation_forward activation_backward \
    layernorm_forward layernorm_backward embed_forward move_rows \
    attention_forward attention_decode logprob_forward logprob_backward head_kl; do has $k 'ld\.global(\.nc)?\.v4'; done
[ $bad = 0 ] &&
    echo "check_kernels: $all kernels, none spills; tensor cores in attention, 128-bit loads in the elementwise ones"
exit $bad
