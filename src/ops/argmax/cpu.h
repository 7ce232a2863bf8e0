#pragma once

#include "backends/cpu/launch.h"
#include "ops/argmax/args.h"
#include "ops/elements.h"

namespace mlxn::ops {

/// Bound by memory: one pass keeps a block's greatest value in vectors and remembers the block, then looks up the index.
template <class S, class T>
MLXN_SIMD ArgmaxPart argmax_of(const T* x, std::int64_t begin, std::int64_t end) {
  using E = Elements<S, T>;
  using F = typename E::F;
  constexpr std::int64_t kBlock = 512;
  const float lowest = -__builtin_inff();
  float best = lowest;
  std::int64_t best_block = begin;
  for (std::int64_t block = begin; block < end; block += kBlock) {
    const std::int64_t stop = end - block < kBlock ? end : block + kBlock;
    F greatest = S::set(lowest);
    std::int64_t i = block;
    for (; i + S::kLanes <= stop; i += S::kLanes) {
      const F v = E::load(x + i);
      greatest = S::select(v > greatest, v, greatest);  // false for NaN
    }
    if (i < stop) {
      const F v = E::load_part(x + i, stop - i);
      for (int lane = 0; lane < stop - i; ++lane) greatest[0] = v[lane] > greatest[0] ? v[lane] : greatest[0];
    }
    float value = lowest;
    for (int lane = 0; lane < S::kLanes; ++lane) value = greatest[lane] > value ? greatest[lane] : value;
    if (value > best) {
      best = value;
      best_block = block;
    }
  }
  // A part of -infinity and NaN alone is searched as a whole.
  for (std::int64_t i = best_block; i < end; i += S::kLanes) {
    const std::int64_t count = end - i < S::kLanes ? end - i : S::kLanes;
    const F v = count < S::kLanes ? E::load_part(x + i, count) : E::load(x + i);
    for (int lane = 0; lane < count; ++lane) {
      if (v[lane] == best) return {i + lane, v[lane], 0};
    }
  }
  return {-1, lowest, 0};
}

/// Few long rows are shared by the team part by part, many rows are shared out. Parts merge in order and only a greater
/// value replaces an earlier one, so the lowest index wins however the row was cut.
template <class S, class T>
void argmax_rows(const ArgmaxArgs& args, const CpuContext& context) {
  const auto row_at = [&](std::int64_t row) { return static_cast<const T*>(args.x.ptr) + row * args.row_stride; };
  const auto put = [&](std::int64_t row, const ArgmaxPart& best) {
    args.ids.ptr[row] = best.index < 0 ? 0 : static_cast<std::uint32_t>(best.index);
    if (args.values.ptr != nullptr) args.values.ptr[row] = best.value;
  };
  const auto share = context.share(static_cast<std::uint64_t>(args.rows));
  const auto begin = static_cast<std::int64_t>(share.begin), end = static_cast<std::int64_t>(share.end);
  if (args.parts.ptr == nullptr) {
    for (std::int64_t row = begin; row < end; ++row) put(row, argmax_of<S>(row_at(row), 0, args.n));
    return;
  }
  const auto part = context.share(static_cast<std::uint64_t>(args.n), 64);
  for (std::int64_t row = 0; row < args.rows; ++row) {
    args.parts.ptr[row * context.threads + context.thread] =
        argmax_of<S>(row_at(row), static_cast<std::int64_t>(part.begin), static_cast<std::int64_t>(part.end));
  }
  context.barrier();
  for (std::int64_t row = begin; row < end; ++row) {
    const ArgmaxPart* parts = args.parts.ptr + row * context.threads;
    ArgmaxPart best = parts[0];
    for (int t = 1; t < context.threads; ++t) {
      if (parts[t].index >= 0 && (best.index < 0 || parts[t].value > best.value)) best = parts[t];
    }
    put(row, best);
  }
}

template <class S>
cpu::Kernel<ArgmaxArgs> argmax_kernel(std::string_view name, DType x) noexcept {
  if (x == DType::f16) return cpu::kernel<&argmax_rows<S, f16>>(name);
  if (x == DType::bf16) return cpu::kernel<&argmax_rows<S, bf16>>(name);
  return cpu::kernel<&argmax_rows<S, float>>(name);
}

using ArgmaxSelect = cpu::Kernel<ArgmaxArgs> (*)(std::string_view name, DType x) noexcept;
[[nodiscard]] cpu::Kernel<ArgmaxArgs> argmax_scalar(std::string_view name, DType x) noexcept;
[[nodiscard]] cpu::Kernel<ArgmaxArgs> argmax_avx2(std::string_view name, DType x) noexcept;
[[nodiscard]] cpu::Kernel<ArgmaxArgs> argmax_avx512(std::string_view name, DType x) noexcept;
[[nodiscard]] cpu::Kernel<ArgmaxArgs> argmax_neon(std::string_view name, DType x) noexcept;

}  // namespace mlxn::ops
