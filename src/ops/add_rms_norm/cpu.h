#pragma once

#include "ops/add_rms_norm/args.h"
#include "ops/rms_norm/cpu.h"

namespace mlxn::ops {

template <class S, class T>
MLXN_SIMD void add_row(const T* x, const T* residual, T* sum, std::int64_t dim) {
  using E = Elements<S, T>;
  std::int64_t i = 0;
  for (; i + S::kLanes <= dim; i += S::kLanes) E::store(sum + i, E::load(x + i) + E::load(residual + i));
  if (const std::int64_t rest = dim - i; rest > 0) {
    E::store_part(sum + i, E::load_part(x + i, rest) + E::load_part(residual + i, rest), rest);
  }
}

/// Bound by memory: what comes after the sum finds its row in the cache. One thread takes a row as a whole.
template <class S, class T, class W>
void add_rms_norm_rows(const AddRmsNormArgs& args, const CpuContext& context) {
  const auto share = context.share(static_cast<std::uint64_t>(args.rows));
  const auto* w = static_cast<const W*>(args.w.ptr);
  for (auto row = static_cast<std::int64_t>(share.begin); row < static_cast<std::int64_t>(share.end); ++row) {
    T* sum = static_cast<T*>(args.sum.ptr) + args.sum_strides.at(row);
    add_row<S>(static_cast<const T*>(args.x.ptr) + args.x_strides.at(row),
               static_cast<const T*>(args.residual.ptr) + args.residual_strides.at(row), sum, args.dim);
    rms_norm_row<S>(static_cast<const T*>(sum), w, static_cast<T*>(args.y.ptr) + args.y_strides.at(row), args.dim, args.eps);
  }
}

template <class S>
cpu::Kernel<AddRmsNormArgs> add_rms_norm_kernel(std::string_view name, DType x, DType w) noexcept {
  if (x == DType::f32 && w == DType::f32) return cpu::kernel<&add_rms_norm_rows<S, float, float>>(name);
  if (x == DType::f16 && w == DType::f32) return cpu::kernel<&add_rms_norm_rows<S, f16, float>>(name);
  if (x == DType::f16 && w == DType::f16) return cpu::kernel<&add_rms_norm_rows<S, f16, f16>>(name);
  if (x == DType::bf16 && w == DType::f32) return cpu::kernel<&add_rms_norm_rows<S, bf16, float>>(name);
  if (x == DType::bf16 && w == DType::bf16) return cpu::kernel<&add_rms_norm_rows<S, bf16, bf16>>(name);
  return {};
}

using AddRmsNormSelect = cpu::Kernel<AddRmsNormArgs> (*)(std::string_view name, DType x, DType w) noexcept;
[[nodiscard]] cpu::Kernel<AddRmsNormArgs> add_rms_norm_scalar(std::string_view name, DType x, DType w) noexcept;
[[nodiscard]] cpu::Kernel<AddRmsNormArgs> add_rms_norm_avx2(std::string_view name, DType x, DType w) noexcept;
[[nodiscard]] cpu::Kernel<AddRmsNormArgs> add_rms_norm_avx512(std::string_view name, DType x, DType w) noexcept;
[[nodiscard]] cpu::Kernel<AddRmsNormArgs> add_rms_norm_neon(std::string_view name, DType x, DType w) noexcept;

}  // namespace mlxn::ops
