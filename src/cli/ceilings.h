#pragma once

#include "mlxn/device.h"

namespace mlxn::cli {

/// The limits of a device, measured: medians of several runs in this process.
struct Ceilings {
  double read_gbps = 0;   ///< streaming read of memory far beyond the caches, all threads
  double f32_gflops = 0;  ///< multiply-adds on registers
  double int8_gops = 0;   ///< int8 dot products on registers, 0 if there is no instruction for them
};
[[nodiscard]] Result<Ceilings> measure_ceilings(const Device& device);

/// The cost of the machinery around kernels.
struct DispatchCosts {
  double record_us = 0;  ///< per dispatch recorded
  double replay_us = 0;  ///< per node of a replayed graph, no joins
  double join_us = 0;    ///< per join of the team
};
[[nodiscard]] Result<DispatchCosts> measure_dispatch(const Device& device);

}  // namespace mlxn::cli
