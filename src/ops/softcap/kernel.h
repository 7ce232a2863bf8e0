#pragma once

#include "ops/elementwise_kernel.h"

namespace mlxn {
namespace gpu {

struct Softcap {
  static constexpr bool kUnary = true;
  static MLXN_FN float apply(float x, float, float cap) {
    return cap * tanh(x / cap);
  }
};

}  // namespace gpu
}  // namespace mlxn

#define MLXN_KERNELS(KERNEL) MLXN_ELEMENTWISE(KERNEL, softcap, Softcap)
