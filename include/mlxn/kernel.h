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

/// A kernel: shared and immutable; handles stay valid when the name is registered anew.
class Kernel {
 public:
  [[nodiscard]] const KernelInfo& info() const noexcept { return info_; }
  [[nodiscard]] std::uint64_t generation() const noexcept { return generation_; }
  [[nodiscard]] const Callable& callable() const noexcept { return callable_; }
  Kernel(KernelInfo info, Callable callable, std::uint64_t generation)
      : info_(std::move(info)), callable_(std::move(callable)), generation_(generation) {}

 private:
  KernelInfo info_;
  Callable callable_;
  std::uint64_t generation_;
};

/// Kernels of one device by name: those the user registers (a callable on a CPU), and the list of built-in ones.
/// Thread-safe.
class KernelRegistry {
 public:
  KernelRegistry();
  /// The registry of no device: every call is invalid_argument.
  explicit KernelRegistry(std::nullptr_t) noexcept;
  ~KernelRegistry();
  KernelRegistry(const KernelRegistry&) = delete;
  KernelRegistry& operator=(const KernelRegistry&) = delete;

  /// Adds a kernel, or replaces the one of that name under a new generation. Errors: invalid_argument (empty name or
  /// callable, a built-in's name, constants above 4096 bytes), out_of_memory.
  [[nodiscard]] Result<std::shared_ptr<const Kernel>> register_callable(KernelInfo info, Callable callable);
  /// Errors: not_found with the name.
  [[nodiscard]] Result<std::shared_ptr<const Kernel>> find(std::string_view name) const;
  /// Names of the implementations of the built-in operations that can run here, then those registered.
  [[nodiscard]] Result<std::vector<std::string>> names() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mlxn
