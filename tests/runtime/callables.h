#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "mlxn/kernel.h"
#include "tests/support/must.h"

namespace mlxn::test {

inline Device cpu(int threads = 2, DeviceOptions options = {}) {
  options.threads = threads;
  return must(Device::open("cpu", options));
}

/// Registers a callable under a name of its own; its bindings have these directions.
inline std::shared_ptr<const Kernel> callable(const Device& device, std::vector<Access> directions, Callable function) {
  static std::atomic<int> count{0};
  KernelInfo info;
  info.name = "test_" + std::to_string(count++);
  for (const Access access : directions) info.bindings.push_back({access, 0, 1});
  return must(device.kernels().register_callable(std::move(info), std::move(function)));
}

/// Dispatches a callable on tensors.
inline Result<void> dispatch(CommandEncoder& encoder, const std::shared_ptr<const Kernel>& kernel, const std::vector<Tensor>& tensors,
                             std::uint64_t grid = 1, std::string_view label = {}) {
  std::vector<CommandEncoder::Binding> bindings;
  for (std::size_t i = 0; i < tensors.size(); ++i) bindings.push_back({tensors[i], kernel->info().bindings[i].access});
  CommandEncoder::Dispatch d;
  d.kernel = kernel;
  d.bindings = bindings;
  d.grid = grid;
  d.label = label;
  return encoder.dispatch(d);
}

/// Whether the condition comes true within the time.
inline bool eventually(const std::function<bool()>& condition, std::chrono::milliseconds time = std::chrono::seconds(20)) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  return true;
}

}  // namespace mlxn::test
