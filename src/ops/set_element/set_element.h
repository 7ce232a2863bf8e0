#pragma once

#include "backends/launch.h"
#include "mlxn/ops/set_element.h"
#include "ops/set_element/args.h"

namespace mlxn::ops {

[[nodiscard]] Result<void> set_element_gpu(CommandEncoder& encoder, const Launch<SetElementArgs>& launch);

}  // namespace mlxn::ops
