#!/bin/sh
# tile_check.sh OUTPUT [TYPE...]: builds bench/hopper/tile_check with the library's kernels, of these types of records or of all, from
# the repository's root. Objects are kept beside OUTPUT. Waits of more than a second stop a kernel.
set -e
out=$1
shift
mkdir -p "$out.objects"
flags="-std=c++20 -O3 -gencode=arch=compute_90a,code=sm_90a -cudart static -DMLXN_WATCHDOG -Isrc -Iinclude -Ibench/hopper -Xcompiler=-static-libstdc++"
rm -f "$out.objects/tile_check_types.h"
kernels=$(echo src/ops/matmul/cuda_hopper_*.cu)
if [ $# -gt 0 ]; then
  types= kernels="src/ops/matmul/cuda_hopper_stage.cu"
  for type in f16 bf16 bf16_narrow; do kernels="$kernels src/ops/matmul/cuda_hopper_tile_$type.cu"; done
  for type in "$@"; do
    file=${type%_bf16} types="$types DO($type, ${type%_bf16})"
    case " $kernels " in *"_$file.cu "*) ;; *) kernels="$kernels src/ops/matmul/cuda_hopper_tile_$file.cu" ;; esac
  done
  echo "#define MLXN_TYPES(DO) $types" > "$out.objects/tile_check_types.h"
fi
sources="$(echo bench/hopper/tile_check/*.c*) $kernels src/ops/matmul/hopper_tile.cpp src/ops/matmul/hopper_dense.cpp
  src/quant/decode.cpp src/quant/records.cpp src/quant/random_blocks.cpp src/base/dtype.cpp"
# Two compilers at a time.
for source in $sources; do echo "$source"; done |
  xargs -P 2 -I{} sh -c "${CMAKE_CXX_COMPILER_LAUNCHER:-} nvcc $flags -I$out.objects -c {} -o $out.objects/\$(basename {}).o"
objects=
for source in $sources; do objects="$objects $out.objects/$(basename "$source").o"; done
nvcc $flags $objects -o "$out"
