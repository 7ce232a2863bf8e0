#pragma once

#include "mlxn/graph.h"

namespace mlxn {

/// Reads memory far beyond the caches with all of the device, for a bandwidth taken right beside another measurement: that of
/// a shared machine moves from second to second.
class ReadProbe {
 public:
  /// `bytes` to read, a multiple of 512: 0 for 256 MiB or more on a CPU, 2 GiB of random data on a GPU (or a quarter of what is
  /// free there, but four times its cache at least). Fails with `internal` if the device reads other bytes than were written.
  [[nodiscard]] static Result<ReadProbe> make(const Device& device, std::uint64_t bytes = 0);
  /// GB/s of one pass; on a GPU of the passes of one graph, kGpuCalls of them.
  [[nodiscard]] Result<double> gbps();
  /// Copies half of the data over the other half: GB/s, each byte counted where it is read and where it is written.
  [[nodiscard]] Result<double> copy_gbps();
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }

 private:
  Graph read_, copy_;
  Tensor data_;
  std::uint64_t bytes_ = 0;
  std::int64_t passes_ = 1;
};

/// Calls in a graph that is timed as a whole, so that its start is no part of the result.
inline constexpr std::int64_t kGpuCalls = 32;

/// Less work than a measurement wants, for tests; 0 for what the device needs.
struct CeilingOptions {
  std::uint64_t read_bytes = 0, rounds = 0;
};

/// The limits of a device, measured: medians of several runs in this process.
struct Ceilings {
  double read_gbps = 0;   ///< streaming read of memory far beyond the caches, by all of the device
  double copy_gbps = 0;   ///< of a GPU's memory, bytes read and written; 0 on a CPU
  double f32_gflops = 0;  ///< multiply-adds on registers
  double int8_gops = 0;   ///< int8 dot products on registers, 0 if there is no instruction for them
  std::uint64_t read_bytes = 0;
};
[[nodiscard]] Result<Ceilings> measure_ceilings(const Device& device, const CeilingOptions& options = {});

/// The cost of the machinery around kernels.
struct DispatchCosts {
  double record_us = 0;  ///< per dispatch recorded
  double replay_us = 0;  ///< per node of a replayed graph, no joins; on a GPU one after the other
  double join_us = 0;    ///< per join of the team; 0 on a GPU
  double launch_us = 0;  ///< per dispatch committed without a graph, from commit() to its end; 0 on a CPU
  double replay_and_wait_us = 0;  ///< a graph of one dispatch, from replay() until the host knows its end
};
[[nodiscard]] Result<DispatchCosts> measure_dispatch(const Device& device);

}  // namespace mlxn
