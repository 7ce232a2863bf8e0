#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mlxn/encoder.h"

namespace mlxn {

/// What a kernel takes.
struct KernelBindingInfo {
  Access access = Access::in;
  std::uint64_t min_bytes = 0;
  std::uint64_t alignment_bytes = 1;
};
struct KernelInfo {
  std::string name;
  std::string backend;  ///< "cpu"
  std::vector<KernelBindingInfo> bindings;
  std::uint32_t constants_bytes = 0;
};

/// What a CPU callable sees: the bound bytes, the constants, and its share of the grid's work items.
struct CallableArgs {
  std::span<const std::span<std::byte>> bindings;
  std::span<const std::byte> constants;
  std::uint64_t begin = 0, end = 0;  ///< work items of this call, out of `grid`
  std::uint64_t grid = 0;
};
/// Runs concurrently on several threads with disjoint [begin, end). Its error, or an exception (ErrorCode::device), fails the
/// submission. It must not wait for work, which is wrong_state, nor hold the Device that it is registered with.
using Callable = std::function<Result<void>(const CallableArgs&)>;

/// CUDA C++ of a kernel, compiled at run time for the device that it is registered with. The kernel is a function
/// `extern "C" __global__ void entry(...)`: a pointer for each binding, in their order, then, if there are any, the constants
/// as one struct by value. A dispatch of `grid` work items starts ceil(grid / group_threads) one-dimensional groups; the
/// kernel itself leaves out the items beyond the last.
struct CudaSource {
  std::string_view code = {};
  std::string entry = {};                ///< empty: the kernel's name
  std::uint32_t group_threads = 256;     ///< at most the device's Capabilities::threads
  std::uint32_t shared_bytes = 0;        ///< of a group, besides what the source declares with a fixed size
  std::vector<std::string> options = {};  ///< of the compiler NVRTC, like "-I/usr/local/cuda/include"
};

/// A kernel's machine code on a device.
class DeviceCode {
 public:
  virtual ~DeviceCode() = default;
};

/// A kernel: shared and immutable; handles stay valid when the name is registered anew.
class Kernel {
 public:
  [[nodiscard]] const KernelInfo& info() const noexcept { return info_; }
  [[nodiscard]] std::uint64_t generation() const noexcept { return generation_; }
  [[nodiscard]] const Callable& callable() const noexcept { return callable_; }
  [[nodiscard]] const std::shared_ptr<const DeviceCode>& code() const noexcept { return code_; }
  Kernel(KernelInfo info, Callable callable, std::shared_ptr<const DeviceCode> code, std::uint64_t generation)
      : info_(std::move(info)), callable_(std::move(callable)), code_(std::move(code)), generation_(generation) {}

 private:
  KernelInfo info_;
  Callable callable_;
  std::shared_ptr<const DeviceCode> code_;
  std::uint64_t generation_;
};

/// Kernels of one device by name: those the user registers (a callable on a CPU, CUDA C++ on an NVIDIA GPU), and the list of
/// built-in ones.
/// Thread-safe.
class KernelRegistry {
 public:
  explicit KernelRegistry(DeviceImpl& device);
  /// The registry of no device: every call is invalid_argument.
  explicit KernelRegistry(std::nullptr_t) noexcept;
  ~KernelRegistry();
  KernelRegistry(const KernelRegistry&) = delete;
  KernelRegistry& operator=(const KernelRegistry&) = delete;

  /// Adds a kernel, or replaces the one of that name under a new generation. Errors: invalid_argument (empty name or
  /// callable, the name of a built-in implementation as names() has them or of one for other machines, constants above 4096 bytes, too
  /// many bindings, an access that is none), out_of_memory.
  [[nodiscard]] Result<std::shared_ptr<const Kernel>> register_callable(KernelInfo info, Callable callable);
  /// The same from CUDA C++. The source is compiled at once by NVRTC, which is looked for when it is first needed; equal
  /// sources are compiled once. Errors: as above, and unsupported (no NVIDIA GPU, or no libnvrtc: the text names it), compile
  /// (with the compiler's log), not_found (no such entry), limit_exceeded (threads or shared memory), device_lost.
  [[nodiscard]] Result<std::shared_ptr<const Kernel>> register_cuda_source(KernelInfo info, const CudaSource& source);
  /// A kernel that was registered. Errors: not_found with the name, which those of built-in implementations are too: operations run
  /// them, dispatch() does not.
  [[nodiscard]] Result<std::shared_ptr<const Kernel>> find(std::string_view name) const;
  /// Names of the implementations of the built-in operations that can run here, then those registered.
  [[nodiscard]] Result<std::vector<std::string>> names() const;

 private:
  struct Impl;
  [[nodiscard]] Result<void> check(const KernelInfo& info, std::string_view call) const;
  [[nodiscard]] Result<std::shared_ptr<const Kernel>> add(KernelInfo info, Callable callable, std::shared_ptr<const DeviceCode> code);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mlxn
