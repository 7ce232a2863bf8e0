#pragma once

#include "ops/elementwise_kernel.h"

namespace mlxn {
namespace gpu {

struct Mul {
  static constexpr bool kUnary = false;
  static MLXN_FN float apply(float a, float b, float) {
    return a * b;
  }
};

}  // namespace gpu
}  // namespace mlxn

#define MLXN_KERNELS(KERNEL) MLXN_ELEMENTWISE_MIXED(KERNEL, mul, Mul)
