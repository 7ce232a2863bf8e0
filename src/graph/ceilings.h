#pragma once

#include "mlxn/graph.h"

namespace mlxn {

/// Reads memory far beyond the caches with all threads, for a bandwidth taken right beside another measurement: that of a
/// shared machine moves from second to second.
class ReadProbe {
 public:
  [[nodiscard]] static Result<ReadProbe> make(const Device& device);
  /// GB/s of one pass.
  [[nodiscard]] Result<double> gbps();

 private:
  Graph read_;
  std::uint64_t bytes_ = 0;
};

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

}  // namespace mlxn
