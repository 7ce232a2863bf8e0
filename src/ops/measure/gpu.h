#pragma once

#include "backends/launch.h"
#include "mlxn/encoder.h"
#include "ops/measure/args.h"

namespace mlxn::ops {

[[nodiscard]] Result<void> measure_read_gpu(CommandEncoder& encoder, const Launch<MeasureReadArgs>& launch);
[[nodiscard]] Result<void> measure_arithmetic_gpu(CommandEncoder& encoder, const Launch<MeasureArithmeticArgs>& launch);
[[nodiscard]] Result<void> measure_empty_gpu(CommandEncoder& encoder, const Launch<MeasureEmptyArgs>& launch);
/// Of a round on a device with so many cores.
[[nodiscard]] std::uint64_t measure_arithmetic_ops_gpu(std::uint64_t cores) noexcept;

}  // namespace mlxn::ops
