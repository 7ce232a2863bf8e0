#pragma once

#include "ops/elementwise_kernel.h"

namespace mlxn {
namespace gpu {

struct SiluMul {
  static constexpr bool kUnary = false;
  static MLXN_FN float apply(float g, float u, float) {
    return times_sigmoid(g, g) * u;
  }
};

}  // namespace gpu
}  // namespace mlxn

#define MLXN_KERNELS(KERNEL) MLXN_ELEMENTWISE(KERNEL, silu_mul, SiluMul)
