#pragma once

#include "backends/cpu/launch.h"
#include "ops/elements.h"
#include "ops/rms_norm/args.h"

namespace mlxn::ops {

/// 1 / sqrt(mean square + eps). Element j adds to partial sum j mod 32, whatever the width of a vector, and the partial sums
/// are added as a tree: the order depends on nothing but dim, so every instruction set gives the same bits.
template <class S, class T>
MLXN_SIMD float inverse_rms(const T* x, std::int64_t dim, float eps) {
  constexpr int kPartials = 32;
  constexpr int kSums = kPartials / S::kLanes;
  typename Elements<S, T>::F sums[kSums] = {};
  std::int64_t i = 0;
  for (; i + kPartials <= dim; i += kPartials) {
    MLXN_UNROLL
    for (int s = 0; s < kSums; ++s) {
      const auto v = Elements<S, T>::load(x + i + s * S::kLanes);
      sums[s] += v * v;
    }
  }
  for (int s = 0; i < dim; ++s, i += S::kLanes) {
    const auto v = dim - i < S::kLanes ? Elements<S, T>::load_part(x + i, dim - i) : Elements<S, T>::load(x + i);
    sums[s] += v * v;
  }
  float partial[kPartials];
  __builtin_memcpy(partial, sums, sizeof(partial));
  for (int half = kPartials / 2; half > 0; half /= 2) {
    for (int p = 0; p < half; ++p) partial[p] += partial[p + half];
  }
  return 1.0f / __builtin_sqrtf(partial[0] / static_cast<float>(dim) + eps);
}

template <class S, class W>
MLXN_SIMD auto weighted(typename Elements<S, W>::F v, const W* w, std::int64_t i, std::int64_t count) {
  if (w == nullptr) return v;
  return v * (count < S::kLanes ? Elements<S, W>::load_part(w + i, count) : Elements<S, W>::load(w + i));
}

template <class S, class T, class W>
MLXN_SIMD void rms_norm_row(const T* x, const W* w, T* y, std::int64_t dim, float eps) {
  const float factor = inverse_rms<S>(x, dim, eps);
  std::int64_t i = 0;
  for (; i + S::kLanes <= dim; i += S::kLanes) {
    Elements<S, T>::store(y + i, weighted<S>(Elements<S, T>::load(x + i) * factor, w, i, S::kLanes));
  }
  if (const std::int64_t rest = dim - i; rest > 0) {
    Elements<S, T>::store_part(y + i, weighted<S>(Elements<S, T>::load_part(x + i, rest) * factor, w, i, rest), rest);
  }
}

/// Bound by memory: the second pass finds its row in the cache. One thread takes a row as a whole.
template <class S, class T, class W>
void rms_norm_rows(const RmsNormArgs& args, const CpuContext& context) {
  const auto share = context.share(static_cast<std::uint64_t>(args.rows));
  const auto* w = static_cast<const W*>(args.w.ptr);
  for (auto row = static_cast<std::int64_t>(share.begin); row < static_cast<std::int64_t>(share.end); ++row) {
    const T* x = static_cast<const T*>(args.x.ptr) + args.x_strides.at(row);
    T* y = static_cast<T*>(args.y.ptr) + args.y_strides.at(row);
    rms_norm_row<S>(x, w, y, args.dim, args.eps);
  }
}

template <class S>
cpu::Kernel<RmsNormArgs> rms_norm_kernel(std::string_view name, DType x, DType w) noexcept {
  if (x == DType::f32 && w == DType::f32) return cpu::kernel<&rms_norm_rows<S, float, float>>(name);
  if (x == DType::f16 && w == DType::f32) return cpu::kernel<&rms_norm_rows<S, f16, float>>(name);
  if (x == DType::f16 && w == DType::f16) return cpu::kernel<&rms_norm_rows<S, f16, f16>>(name);
  if (x == DType::bf16 && w == DType::f32) return cpu::kernel<&rms_norm_rows<S, bf16, float>>(name);
  if (x == DType::bf16 && w == DType::bf16) return cpu::kernel<&rms_norm_rows<S, bf16, bf16>>(name);
  return {};
}

using RmsNormSelect = cpu::Kernel<RmsNormArgs> (*)(std::string_view name, DType x, DType w) noexcept;
[[nodiscard]] cpu::Kernel<RmsNormArgs> rms_norm_scalar(std::string_view name, DType x, DType w) noexcept;
[[nodiscard]] cpu::Kernel<RmsNormArgs> rms_norm_avx2(std::string_view name, DType x, DType w) noexcept;
[[nodiscard]] cpu::Kernel<RmsNormArgs> rms_norm_avx512(std::string_view name, DType x, DType w) noexcept;
[[nodiscard]] cpu::Kernel<RmsNormArgs> rms_norm_neon(std::string_view name, DType x, DType w) noexcept;

}  // namespace mlxn::ops
