#!/bin/sh
# tile_check.sh OUTPUT: builds bench/hopper/tile_check.cu with the library's kernels, from the repository's root. Objects are
# kept beside OUTPUT. Waits of more than a second stop a kernel.
set -e
out=$1
mkdir -p "$out.objects"
flags="-std=c++20 -O3 -gencode=arch=compute_90a,code=sm_90a -cudart static -DMLXN_WATCHDOG -Isrc -Iinclude -Ibench/hopper -Xcompiler=-static-libstdc++"
sources="bench/hopper/tile_check.cu $(echo src/ops/matmul/cuda_hopper_*.cu) src/ops/matmul/hopper_tile.cpp src/ops/matmul/hopper_dense.cpp
  src/quant/decode.cpp src/quant/records.cpp src/quant/random_blocks.cpp src/base/dtype.cpp"
# Two compilers at a time.
for source in $sources; do echo "$source"; done |
  xargs -P 2 -I{} sh -c "${CMAKE_CXX_COMPILER_LAUNCHER:-} nvcc $flags -c {} -o $out.objects/\$(basename {}).o"
objects=
for source in $sources; do objects="$objects $out.objects/$(basename "$source").o"; done
nvcc $flags $objects -o "$out"
