#pragma once

#include "backends/gpu/launch.h"
#include "ops/sample/args.h"

namespace mlxn::ops {

/// Fills in what only a GPU needs and records.
[[nodiscard]] Result<void> sample_gpu(CommandEncoder& encoder, Launch<SampleArgs>& launch);

}  // namespace mlxn::ops
