#pragma once

#include "backends/gpu/launch.h"
#include "mlxn/ops/rope_append.h"
#include "ops/rope_append/args.h"

namespace mlxn::ops {

[[nodiscard]] Result<void> rope_append_gpu(CommandEncoder& encoder, Launch<RopeAppendArgs>& launch);

}  // namespace mlxn::ops
