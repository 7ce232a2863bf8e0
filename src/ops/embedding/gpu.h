#pragma once

#include "mlxn/encoder.h"
#include "mlxn/weight.h"

namespace mlxn::ops {

/// mlxn::embedding on a GPU; the operands have been checked, ids is not empty.
[[nodiscard]] Result<void> embedding_gpu(CommandEncoder& encoder, const Tensor& ids, const Weight& table, const Tensor& y, float scale);

}  // namespace mlxn::ops
