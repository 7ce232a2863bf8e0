#pragma once

#include "mlxn/weight.h"

namespace mlxn {

/// What a Weight refers to. `storage` is the source tensor itself (raw blocks, [n, k] of `dtype`) or, when prepared, u8
/// bytes in the layout that the device's backend defines for the type.
class WeightImpl {
 public:
  DType dtype = DType::f32;
  std::int64_t n = 0, k = 0;
  bool prepared = false;
  Tensor storage;
};

}  // namespace mlxn
