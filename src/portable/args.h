#pragma once

// Launch arguments: plain structs that every compiler of a kernel reads (C++14, no standard headers but <stdint.h>).

#if defined(__METAL_VERSION__)
#define MLXN_GLOBAL device
#define MLXN_ARGS_FN
#else
#include <stdint.h>
#define MLXN_GLOBAL
#if defined(__CUDACC__)
#define MLXN_ARGS_FN __host__ __device__
#else
#define MLXN_ARGS_FN [[gnu::always_inline]]  // CPU kernels of any instruction set use it: see CpuContext
#endif
#endif

namespace mlxn {

/// A pointer argument of a kernel, by the way the kernel touches it. Eight bytes on every device.
template <class T>
struct In {
  MLXN_GLOBAL const T* ptr;
};
template <class T>
struct Out {
  MLXN_GLOBAL T* ptr;
};
template <class T>
struct InOut {
  MLXN_GLOBAL T* ptr;
};

/// A number of a launch: `value`, or what stands at `at` when the kernel runs, if that is not null. A GPU's graph keeps its
/// parameters in device memory and points there, so that a new value needs no new launch.
struct Index {
  int64_t value;
  MLXN_GLOBAL const int64_t* at;
};

static_assert(sizeof(In<float>) == 8 && sizeof(Out<float>) == 8 && sizeof(InOut<float>) == 8, "args travel as 64-bit pointers");
static_assert(sizeof(Index) == 16, "a value and an address");

}  // namespace mlxn
