#pragma once

#include "backends/cpu/launch.h"
#include "mlxn/ops/rope.h"
#include "ops/elements.h"
#include "ops/rope/args.h"

namespace mlxn::ops {

/// Sine and cosine of position * inv_freq. The product is formed and reduced to |r| <= pi / 4 in float64, the polynomials
/// (of Cephes' sinf and cosf) are in f32. Without fused operations, so that every width gives the same bits.
template <class S>
MLXN_SIMD void sine_cosine(double position, typename S::F inv_freq, typename S::F& sine, typename S::F& cosine) {
  using F = typename S::F;
  using I = typename S::I;
  using D = typename S::D;
  constexpr double kRound = 0x1.8p52;  // adding it leaves an integer, to nearest
  const D quarters = __builtin_convertvector(inv_freq, D) * position * 0.63661977236758134308;  // of a turn: times 2 / pi
  const D whole = (quarters + kRound) - kRound;
  const D turns = (whole * 0.25 + kRound) - kRound;
  const I quadrant = __builtin_convertvector(whole - 4.0 * turns, I) & 3;
  const F r = __builtin_convertvector((quarters - whole) * 1.57079632679489661923, F);
  const F z = r * r;
  const F s = r + r * z * (-1.6666654611e-1f + z * (8.3321608736e-3f - z * 1.9515295891e-4f));
  const F c = 1.0f - 0.5f * z + z * z * (4.166664568298827e-2f + z * (-1.388731625493765e-3f + z * 2.443315711809948e-5f));
  const I swap = (quadrant & 1) != 0;
  const I sine_sign = (quadrant & 2) << 30;
  const I cosine_sign = ((quadrant + 1) & 2) << 30;
  sine = S::from_bits(S::bits(S::select(swap, c, s)) ^ sine_sign);
  cosine = S::from_bits(S::bits(S::select(swap, s, c)) ^ cosine_sign);
}

template <class S, class T>
struct Rope {
  using E = Elements<S, T>;
  using F = typename S::F;
  static constexpr int kLanes = S::kLanes;
  /// Pairs whose sines and cosines are kept at a time.
  static constexpr int kBlock = 64;

  const RopeArgs& a;

  /// Element i and its partner, i < count <= lanes: both turned, in place of each other.
  static MLXN_SIMD void turn_halves(const T* x, T* y, std::int64_t offset, std::int64_t count, F cosine, F sine) {
    const bool whole = count >= kLanes;
    const F first = whole ? E::load(x) : E::load_part(x, count);
    const F second = whole ? E::load(x + offset) : E::load_part(x + offset, count);
    const F turned_first = first * cosine - second * sine;
    const F turned_second = second * cosine + first * sine;
    if (whole) {
      E::store(y, turned_first);
      E::store(y + offset, turned_second);
    } else {
      E::store_part(y, turned_first, count);
      E::store_part(y + offset, turned_second, count);
    }
  }
  /// `count` neighbouring elements; both elements of a pair have its cosine, sines are negated for the first.
  static MLXN_SIMD void turn_adjacent(const T* x, T* y, std::int64_t count, F cosine, F sine) {
    const bool whole = count >= kLanes;
    const F v = whole ? E::load(x) : E::load_part(x, count);
    const F turned = v * cosine + __builtin_shuffle(v, S::iota() ^ 1) * sine;
    if (whole) {
      E::store(y, turned);
    } else {
      E::store_part(y, turned, count);
    }
  }

  MLXN_SIMD void copy(const T* x, T* y, std::int64_t begin, std::int64_t end) const {
    if (end > begin) __builtin_memmove(static_cast<void*>(y + begin), x + begin, static_cast<std::uint64_t>(end - begin) * sizeof(T));
  }

  MLXN_SIMD void token(std::int64_t t) const {
    const T* x = static_cast<const T*>(a.x.ptr) + t * a.x_row;
    T* y = static_cast<T*>(a.y.ptr) + t * a.y_row;
    const double position = a.positions.ptr[t];
    for (std::int64_t p = 0; p < a.pairs; p += kBlock) {
      const std::int64_t n = a.pairs - p < kBlock ? a.pairs - p : kBlock;
      float cosines[2 * kBlock], sines[2 * kBlock];
      for (std::int64_t i = 0; i < n; i += kLanes) {
        F s, c;
        const float* f = a.inv_freq.ptr + p + i;
        sine_cosine<S>(position, n - i < kLanes ? Elements<S, float>::load_part(f, n - i) : S::load(f), s, c);
        S::store(sines + i, s * (a.sign * a.magnitude));
        S::store(cosines + i, c * a.magnitude);
      }
      if (a.adjacent != 0) {
        for (std::int64_t i = n - 1; i >= 0; --i) {
          const float s = sines[i], c = cosines[i];
          sines[2 * i] = -s;
          sines[2 * i + 1] = s;
          cosines[2 * i] = cosines[2 * i + 1] = c;
        }
      }
      for (std::int64_t h = 0; h < a.heads; ++h) {
        const T* from = x + h * a.x_head;
        T* to = y + h * a.y_head;
        if (a.adjacent != 0) {
          for (std::int64_t i = 0; i < 2 * n; i += kLanes) {
            turn_adjacent(from + 2 * p + i, to + 2 * p + i, 2 * n - i, S::load(cosines + i), S::load(sines + i));
          }
        } else {
          for (std::int64_t i = 0; i < n; i += kLanes) {
            turn_halves(from + p + i, to + p + i, a.split_offset, n - i, S::load(cosines + i), S::load(sines + i));
          }
        }
      }
    }
    if (a.x.ptr == a.y.ptr) return;  // exactly x: the rest is in place
    for (std::int64_t h = 0; h < a.heads; ++h) {
      const T* from = x + h * a.x_head;
      T* to = y + h * a.y_head;
      if (a.adjacent != 0) {
        copy(from, to, 2 * a.pairs, a.head_dim);
      } else {
        copy(from, to, a.pairs, a.split_offset);
        copy(from, to, a.split_offset + a.pairs, a.head_dim);
      }
    }
  }

  MLXN_SIMD void run(const CpuContext& context) const {
    context.for_chunks(static_cast<std::uint64_t>(a.seq), 1, [&](std::uint64_t t, std::uint64_t) { token(static_cast<std::int64_t>(t)); });
  }
};

template <class S, class T>
void rope_tokens(const RopeArgs& args, const CpuContext& context) {
  Rope<S, T>{args}.run(context);
}

template <class S>
cpu::Kernel<RopeArgs> rope_kernel(std::string_view name, DType x) noexcept {
  if (x == DType::f32) return cpu::kernel<&rope_tokens<S, float>>(name);
  if (x == DType::f16) return cpu::kernel<&rope_tokens<S, f16>>(name);
  return cpu::kernel<&rope_tokens<S, bf16>>(name);
}

using RopeSelect = cpu::Kernel<RopeArgs> (*)(std::string_view name, DType x) noexcept;
[[nodiscard]] cpu::Kernel<RopeArgs> rope_scalar(std::string_view name, DType x) noexcept;
[[nodiscard]] cpu::Kernel<RopeArgs> rope_avx2(std::string_view name, DType x) noexcept;
[[nodiscard]] cpu::Kernel<RopeArgs> rope_avx512(std::string_view name, DType x) noexcept;
[[nodiscard]] cpu::Kernel<RopeArgs> rope_neon(std::string_view name, DType x) noexcept;

}  // namespace mlxn::ops
