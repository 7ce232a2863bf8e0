#!/bin/sh
# tile_check.sh OUTPUT: builds bench/hopper/tile_check.cu with the library's kernels, from the repository's root. Objects are
# kept beside OUTPUT. Waits of more than a second stop a kernel.
set -e
out=$1
mkdir -p "$out.objects"
flags="-std=c++20 -O3 -gencode=arch=compute_90a,code=sm_90a -cudart static -DMLXN_WATCHDOG -Isrc -Iinclude -Xcompiler=-static-libstdc++"
objects=
for source in bench/hopper/tile_check.cu src/ops/matmul/cuda_hopper_*.cu src/ops/matmul/hopper_tile.cpp src/quant/decode.cpp \
              src/quant/records.cpp src/quant/random_blocks.cpp src/base/dtype.cpp; do
  object="$out.objects/$(basename "$source").o"
  ${CMAKE_CXX_COMPILER_LAUNCHER:-} nvcc $flags -c "$source" -o "$object" &
  objects="$objects $object"
  [ $(jobs | wc -l) -lt 2 ] || wait
done
wait
nvcc $flags $objects -o "$out"
