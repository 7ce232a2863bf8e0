#pragma once

#include "mlxn/weight.h"

namespace mlxn {

/// How the bytes of a Weight lie.
enum class WeightForm : std::uint8_t {
  raw,       ///< blocks as in the file, [n, k] of the type
  prepared,  ///< u8, in the layout that the device's backend defines for the type
  records,   ///< u8, Hopper's (quant/records.h), then exponents of their rows (ops/weight_records)
  rows,      ///< u8, on Hopper: f16 or bf16 as `prepared` has them, then exponents of the rows of bf16
};

/// What a Weight refers to. `storage` is the source tensor itself if it is raw.
class WeightImpl {
 public:
  DType dtype = DType::f32;
  std::int64_t n = 0, k = 0;
  WeightForm form = WeightForm::raw;
  Tensor storage;

  [[nodiscard]] bool prepared() const noexcept { return form != WeightForm::raw; }
};

}  // namespace mlxn
