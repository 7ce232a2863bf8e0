#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string_view>
#include <type_traits>

#include "backends/allocation.h"
#include "mlxn/encoder.h"
#include "portable/args.h"

namespace mlxn {
namespace gpu {
struct TensorMap;
}

inline constexpr int kMaxBindings = 12;
inline constexpr int kMaxScalarPatches = 4;
inline constexpr std::size_t kMaxArgsBytes = 384;

/// One pointer argument of a dispatch: which bytes it touches, how, and where in the launch struct it stands.
struct BoundRange {
  const std::shared_ptr<Allocation>* allocation = nullptr;  ///< of the caller's Tensor, alive while the op records
  std::uint64_t begin = 0, end = 0;                         ///< byte offsets in the allocation, half open
  Access access = Access::in;
  std::uint16_t field = 0;  ///< byte offset of the pointer in the launch struct; of a callable the binding's number
  bool is_map = false;      ///< a gpu::TensorMap stands there instead of a pointer
};

/// Where a kernel finds the first element; null for a tensor without elements.
[[nodiscard]] inline std::byte* device_address(const Tensor& tensor) noexcept {
  return tensor.allocation() ? tensor.allocation()->data() + tensor.byte_offset() : nullptr;
}

/// A launch-struct field whose value is a parameter of the graph.
struct ScalarPatch {
  int parameter = -1;
  std::uint16_t field = 0;
  std::uint16_t size = 0;  ///< 4 or 8
  bool is_index = false;   ///< the field is an Index
  std::int64_t min = 0, max = 0;  ///< values that the kernel takes
};

/// The one record of a dispatch's buffers: hazards, lifetime, re-binding and (on other backends) residency come from it.
/// Counts above the arrays' sizes mark a record that was given more than it holds, which encoding refuses.
struct LaunchRecord {
  std::array<BoundRange, kMaxBindings> ranges;
  std::array<ScalarPatch, kMaxScalarPatches> patches;
  int range_count = 0;
  int patch_count = 0;
};

/// The launch struct of a dispatch being filled. `bind` puts a tensor's address into a pointer field and records the access
/// in one step, so the two cannot differ. A tensor without elements binds a null pointer and records nothing.
template <class Args>
struct Launch {
  static_assert(std::is_trivially_copyable_v<Args> && sizeof(Args) <= kMaxArgsBytes);
  Args args{};
  LaunchRecord record{};

  template <class T>
  void bind(In<T>& field, const Tensor& tensor) noexcept {
    field.ptr = static_cast<const T*>(add(&field, tensor, Access::in));
  }
  template <class T>
  void bind(Out<T>& field, const Tensor& tensor) noexcept {
    field.ptr = static_cast<T*>(add(&field, tensor, Access::out));
  }
  template <class T>
  void bind(InOut<T>& field, const Tensor& tensor) noexcept {
    field.ptr = static_cast<T*>(add(&field, tensor, Access::in_out));
  }
  /// Records that the kernel reads a tensor by a map, which the caller has made.
  void bind(const gpu::TensorMap& field, const Tensor& tensor) noexcept {
    const int before = record.range_count;
    add(&field, tensor, Access::in);
    if (record.range_count > before && before < kMaxBindings) record.ranges[static_cast<std::size_t>(before)].is_map = true;
  }
  /// Sets an integer field from a Scalar; a graph parameter is remembered, so that replays write the field anew. The op has
  /// checked the value; min and max bound the values that Graph::set may give later.
  template <class T>
  void set(T& field, const Scalar<std::int64_t>& scalar, std::int64_t min = smallest<T>(), std::int64_t max = largest<T>()) noexcept {
    static_assert(std::is_integral_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
    field = static_cast<T>(scalar.value);
    if (scalar.parameter < 0) return;
    if (record.patch_count < kMaxScalarPatches) {
      record.patches[static_cast<std::size_t>(record.patch_count)] = {scalar.parameter, offset_of(&field), sizeof(T), false, min, max};
    }
    ++record.patch_count;
  }
  /// The same for an Index, which every backend can re-bind.
  void set(Index& field, const Scalar<std::int64_t>& scalar, std::int64_t min = smallest<std::int64_t>(),
           std::int64_t max = largest<std::int64_t>()) noexcept {
    const int before = record.patch_count;
    set(field.value, scalar, min, max);
    field.at = nullptr;
    if (record.patch_count > before && before < kMaxScalarPatches) record.patches[static_cast<std::size_t>(before)].is_index = true;
  }

 private:
  template <class T>
  static constexpr std::int64_t smallest() noexcept {
    return static_cast<std::int64_t>(std::numeric_limits<T>::min());
  }
  template <class T>
  static constexpr std::int64_t largest() noexcept {
    constexpr bool is_u64 = sizeof(T) == 8 && std::is_unsigned_v<T>;
    return is_u64 ? std::numeric_limits<std::int64_t>::max() : static_cast<std::int64_t>(std::numeric_limits<T>::max());
  }
  std::uint16_t offset_of(const void* field) const noexcept {
    return static_cast<std::uint16_t>(static_cast<const char*>(field) - reinterpret_cast<const char*>(&args));
  }
  void* add(const void* field, const Tensor& tensor, Access access) noexcept {
    if (!tensor.allocation() || tensor.bytes() == 0) return nullptr;
    if (record.range_count < kMaxBindings) {
      record.ranges[static_cast<std::size_t>(record.range_count)] = {
          &tensor.allocation(), tensor.byte_offset(), tensor.byte_offset() + tensor.bytes(), access, offset_of(field)};
    }
    ++record.range_count;
    return device_address(tensor);
  }
};

}  // namespace mlxn
