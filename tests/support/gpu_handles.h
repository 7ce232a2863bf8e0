#pragma once

#include <vector>

#include "backends/gpu/launch.h"

namespace mlxn::test {

/// The handles of all portable kernels; the build makes it.
[[nodiscard]] std::vector<const gpu::KernelInfo*> gpu_handles();

}  // namespace mlxn::test
