#pragma once

#include "ops/elementwise_kernel.h"

namespace mlxn {
namespace gpu {

struct GeluMul {
  static constexpr bool kUnary = false;
  static MLXN_FN float apply(float g, float u, float) {
    // (1 + tanh z) / 2 = 1 / (1 + e^-2z), which does not cancel where tanh z is near -1.
    const float twice_z = (g + g * g * g * 0.044715f) * (2.0f * 0.7978845608028654f);
    return times_sigmoid(g, twice_z) * u;
  }
};

}  // namespace gpu
}  // namespace mlxn

#define MLXN_KERNELS(KERNEL) MLXN_ELEMENTWISE(KERNEL, gelu_mul, GeluMul)
