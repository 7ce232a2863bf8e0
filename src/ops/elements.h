#pragma once

#include <cstdint>

#include "mlxn/dtype.h"
#include "ops/simd_math.h"

namespace mlxn::ops {

/// Loads and stores of elements of type T (float, f16, bf16) as f32 lanes of S (a Simd<width>), ends of rows included.
/// Stores round to nearest even.
template <class S, class T>
struct Elements {
  static constexpr int kLanes = S::kLanes;
  using F = typename S::F;

  static MLXN_SIMD F load(const T* p) {
    if constexpr (__is_same(T, float))
      return S::load(p);
    else if constexpr (__is_same(T, f16))
      return S::load_f16(reinterpret_cast<const std::uint16_t*>(p));
    else
      return S::load_bf16(reinterpret_cast<const std::uint16_t*>(p));
  }
  static MLXN_SIMD void store(T* p, F v) {
    if constexpr (__is_same(T, float))
      S::store(p, v);
    else if constexpr (__is_same(T, f16))
      S::store_f16(reinterpret_cast<std::uint16_t*>(p), v);
    else
      S::store_bf16(reinterpret_cast<std::uint16_t*>(p), v);
  }

  /// The first `count` < kLanes lanes; the others load as zeros and are not stored.
  static MLXN_SIMD F load_part(const T* p, std::int64_t count) {
    Part part = {};
    __builtin_memcpy(&part, p, static_cast<std::uint64_t>(count) * sizeof(T));
    return load(reinterpret_cast<const T*>(part.bytes));
  }
  static MLXN_SIMD void store_part(T* p, F v, std::int64_t count) {
    Part part;
    store(reinterpret_cast<T*>(part.bytes), v);
    __builtin_memcpy(static_cast<void*>(p), &part, static_cast<std::uint64_t>(count) * sizeof(T));
  }

 private:
  struct Part {
    alignas(64) std::uint8_t bytes[kLanes * sizeof(T)];
  };
};

}  // namespace mlxn::ops
