#pragma once

#include "ops/elementwise_kernel.h"

namespace mlxn {
namespace gpu {

struct Scale {
  static constexpr bool kUnary = true;
  static MLXN_FN float apply(float x, float, float factor) {
    return x * factor;
  }
};

}  // namespace gpu
}  // namespace mlxn

#define MLXN_KERNELS(KERNEL) MLXN_ELEMENTWISE(KERNEL, scale, Scale)
