#pragma once

#include "backends/backend.h"

namespace mlxn::cuda {

/// NVIDIA GPUs. In a build without them every open() is `unsupported` and says why.
[[nodiscard]] Backend backend() noexcept;

}  // namespace mlxn::cuda
