#pragma once

#include "ops/matmul/kernels.h"

/// Class int8act with many rows of x, for a V that multiplies pairs of rows: one instruction takes eight bytes of two rows
/// of weights and of two rows of x to their four dot products. Bound: those instructions. The sums keep the shape they come
/// in, [w0 x0, w0 x1, w1 x0, w1 x1], until a slab is done; scales, which go with the rows of weights, are zipped with
/// themselves and shared by all rows of x, and what goes with x is stored in twos. Tile: four rows of weights times 2, 4 or
/// 8 of x, so that eight vectors of weights, four of x, eight totals and the rest fit 32 registers.
///
/// The order of sums is that of the other kernels of the class, so the bits are the same.
namespace mlxn::rows16 {

/// A unit of a slab of codes has them in another order: for each four rows eight vectors, of which number 2j + h holds
/// octet j (elements 8j .. 8j+7) of rows 2h and 2h+1. Codes are signed here, biases taken off.
template <class V>
inline constexpr int kPairPassBytes = 8 * 4 * V::kLanes;

/// 32 elements of two neighbouring rows of x; takes the place of two QuantisedX.
struct alignas(64) QuantisedPair {
  std::int8_t q[4][2][8];  ///< octet, row
  float d[2], sum[2];
  float half_sum[2][2];  ///< half, row
  std::int32_t padding[8];
};
static_assert(sizeof(QuantisedPair) == 2 * sizeof(QuantisedX));

/// What the kernels need to know of a type.
template <bool kHalvesOfType, bool kMinimumOfType>
struct PairKind {
  static constexpr bool kHalves = kHalvesOfType, kMinimum = kMinimumOfType;
};

/// A tile of one row stays as it is, the rows of the others are stored as pairs.
template <class V>
static void quantise_pairs(const SourceX& x, std::int64_t row, int rows, std::int64_t begin, std::int64_t end,
                           std::int32_t bias, QuantisedX* out) {
  quantise<V>(x, row, rows, begin, end, bias, out);
  if (rows == 1) return;
  for (std::int64_t i = begin / 32 * rows; i < end / 32 * rows; i += 2) {
    QuantisedPair pair{};
    for (int r = 0; r < 2; ++r) {
      const QuantisedX& from = out[i + r];
      for (int octet = 0; octet < 4; ++octet) __builtin_memcpy(pair.q[octet][r], from.q + 8 * octet, 8);
      pair.d[r] = from.d;
      pair.sum[r] = from.sum;
      for (int half = 0; half < 2; ++half) pair.half_sum[half][r] = from.half_sum[half];
    }
    __builtin_memcpy(static_cast<void*>(out + i), &pair, sizeof(pair));
  }
}

template <class V, class T>
static void unpack_pairs(const std::uint8_t* chunk, std::int64_t k, std::uint8_t* slab) {
  using F = typename V::F;
  using I = typename V::I;
  for (int pass = 0; pass < kPasses<V>; ++pass) {
    for_blocks<V, T::kType>(chunk, k, pass, [&](const std::uint8_t* scale, const std::uint8_t* q, std::int64_t i) MLXN_LAMBDA {
      const typename T::Block block = T::open(scale, q);
      repeat<V, T::kGroups, T::kUnrolled>([&](int g) MLXN_LAMBDA {
        std::uint8_t* unit = slab + (i * T::kGroups + g) * kCodeUnitBytes;
        I w[8];
        F s[2], o[2];
        dot_codes<V, T>(block, g, w);
        T::scales(block, g, s, o);
        MLXN_UNROLL
        for (int j = 0; j < 8; j += 2) {
          if constexpr (kDotBias<V, T> != 0) {
            w[j] = V::sub_bytes(w[j], Lanes<V>::bytes(kDotBias<V, T>));
            w[j + 1] = V::sub_bytes(w[j + 1], Lanes<V>::bytes(kDotBias<V, T>));
          }
          std::uint8_t* to = unit + pass * kPairPassBytes<V> + 16 * j;
          V::store(to, V::zip_low(w[j], w[j + 1]));
          V::store(to + 16, V::zip_high(w[j], w[j + 1]));
        }
        MLXN_UNROLL
        for (int h = 0; h < (T::kHalves ? 2 : 1); ++h) {
          const int at = 64 * h + pass * V::kLanes * 4;
          V::store(unit + kCodeUnitScales + at, V::as_int(s[h]));
          if constexpr (T::kMinimum) V::store(unit + kCodeUnitOffsets + at, V::as_int(o[h]));
        }
      });
    });
  }
}

/// `kPairs` pairs of rows of x with a slab of codes.
template <class V, class Kind, int kPairs>
static void multiply_pairs(const std::uint8_t* slab, std::int64_t k, const QuantisedX* x, float* totals) {
  using F = typename V::F;
  using I = typename V::I;
  constexpr int kHalves = Kind::kHalves ? 2 : 1;
  constexpr int kOctets = 4 / kHalves;
  for (int pass = 0; pass < kPasses<V>; ++pass) {
    float* to = totals + pass * V::kLanes;
    F total[kPairs][2];
    MLXN_UNROLL
    for (int p = 0; p < kPairs; ++p) {
      const F first = V::load_f32(to + 32 * p), second = V::load_f32(to + 32 * p + 16);
      total[p][0] = V::zip_low(first, second);
      total[p][1] = V::zip_high(first, second);
    }
    const std::uint8_t* unit = slab;
    const auto* xs = reinterpret_cast<const QuantisedPair*>(x);
    for (std::int64_t i = 0; i < k; i += 32) {
      I w[8];
      F s[2][2], o[2][2];  // half, pair of rows of weights
      MLXN_UNROLL
      for (int j = 0; j < 8; ++j) w[j] = V::load(unit + pass * kPairPassBytes<V> + 16 * j);
      MLXN_UNROLL
      for (int half = 0; half < kHalves; ++half) {
        const std::uint8_t* at = unit + 64 * half + pass * V::kLanes * 4;
        const F scales = V::as_f32(V::load(at + kCodeUnitScales));
        s[half][0] = V::zip_low(scales, scales);
        s[half][1] = V::zip_high(scales, scales);
        if constexpr (Kind::kMinimum) {
          const F offsets = V::as_f32(V::load(at + kCodeUnitOffsets));
          o[half][0] = V::zip_low(offsets, offsets);
          o[half][1] = V::zip_high(offsets, offsets);
        }
      }
      MLXN_UNROLL
      for (int p = 0; p < kPairs; ++p) {
        const QuantisedPair& pair = xs[p];
        const F d = V::as_f32(V::twice(pair.d));
        MLXN_UNROLL
        for (int rows = 0; rows < 2; ++rows) {
          F product = V::set_f32(0.0f);
          MLXN_UNROLL
          for (int half = 0; half < kHalves; ++half) {
            I dot = V::zero();
            MLXN_UNROLL
            for (int j = half * kOctets; j < (half + 1) * kOctets; ++j) {
              dot = V::dot_pairs(dot, w[2 * j + rows], V::load(pair.q[j]));
            }
            product = half == 0 ? V::mul(V::to_f32(dot), s[0][rows]) : V::fma(V::to_f32(dot), s[half][rows], product);
          }
          F& sum = total[p][rows];
          sum = V::fma(product, d, sum);
          if constexpr (Kind::kMinimum) {
            MLXN_UNROLL
            for (int half = 0; half < kHalves; ++half) {
              const float* sums = Kind::kHalves ? pair.half_sum[half] : pair.sum;
              sum = V::fma(o[half][rows], V::as_f32(V::twice(sums)), sum);
            }
          }
        }
      }
      unit += kCodeUnitBytes;
      xs += kPairs;
    }
    MLXN_UNROLL
    for (int p = 0; p < kPairs; ++p) {
      V::store_f32(to + 32 * p, V::unzip_even(total[p][0], total[p][1]));
      V::store_f32(to + 32 * p + 16, V::unzip_odd(total[p][0], total[p][1]));
    }
  }
}

/// One row of x, the last of an odd number: the two quads of an octet are added after their dot products.
template <class V, class Kind>
static void multiply_single(const std::uint8_t* slab, std::int64_t k, const QuantisedX* x, float* totals) {
  using F = typename V::F;
  using I = typename V::I;
  constexpr int kHalves = Kind::kHalves ? 2 : 1;
  constexpr int kOctets = 4 / kHalves;
  for (int pass = 0; pass < kPasses<V>; ++pass) {
    F total = V::load_f32(totals + pass * V::kLanes);
    const std::uint8_t* unit = slab;
    const QuantisedX* xs = x;
    for (std::int64_t i = 0; i < k; i += 32) {
      const auto vector = [&](int offset) MLXN_LAMBDA { return V::as_f32(V::load(unit + offset + pass * V::kLanes * 4)); };
      F product = V::set_f32(0.0f);
      MLXN_UNROLL
      for (int half = 0; half < kHalves; ++half) {
        I dot[2] = {V::zero(), V::zero()};
        MLXN_UNROLL
        for (int j = half * kOctets; j < (half + 1) * kOctets; ++j) {
          const I octet = V::twice(xs->q + 8 * j);
          MLXN_UNROLL
          for (int rows = 0; rows < 2; ++rows) {
            dot[rows] = V::dot_lanes(dot[rows], V::load(unit + pass * kPairPassBytes<V> + 16 * (2 * j + rows)), octet);
          }
        }
        const F dots = V::to_f32(V::add_neighbours(dot[0], dot[1]));
        const F scale = vector(kCodeUnitScales + 64 * half);
        product = half == 0 ? V::mul(dots, scale) : V::fma(dots, scale, product);
      }
      total = V::fma(product, V::set_f32(xs->d), total);
      if constexpr (Kind::kMinimum) {
        MLXN_UNROLL
        for (int half = 0; half < kHalves; ++half) {
          const float sum = Kind::kHalves ? xs->half_sum[half] : xs->sum;
          total = V::fma(vector(kCodeUnitOffsets + 64 * half), V::set_f32(sum), total);
        }
      }
      unit += kCodeUnitBytes;
      ++xs;
    }
    V::store_f32(totals + pass * V::kLanes, total);
  }
}

template <class V, class T>
static void add_pairs(Kernels& to) {
  using Kind = PairKind<T::kHalves, T::kMinimum>;
  WeightKernels& w = to.weights[static_cast<int>(T::kType)];
  w.unpack = &unpack_pairs<V, T>;
  w.codes[0] = &multiply_single<V, Kind>;
  w.codes[1] = &multiply_pairs<V, Kind, 1>;
  w.codes[2] = &multiply_pairs<V, Kind, 2>;
  w.codes[3] = &multiply_pairs<V, Kind, 4>;
}

template <class V>
static void fill_pairs(Kernels& to) {
  add_pairs<V, Q4_0<V>>(to);
  add_pairs<V, Affine<V, DType::q4_1>>(to);
  add_pairs<V, Q5_0<V>>(to);
  add_pairs<V, Q5_1<V>>(to);
  add_pairs<V, Q8_0<V>>(to);
  add_pairs<V, Q2_K<V>>(to);
  add_pairs<V, Q3_K<V>>(to);
  add_pairs<V, Q4_K<V>>(to);
  add_pairs<V, Q5_K<V>>(to);
  add_pairs<V, Q6_K<V>>(to);
  add_pairs<V, IQ4_NL<V>>(to);
  add_pairs<V, IQ4_XS<V>>(to);
  add_pairs<V, MXFP4<V>>(to);
  add_pairs<V, Affine<V, DType::affine4_g64>>(to);
  add_pairs<V, Affine<V, DType::affine4_g128>>(to);
  add_pairs<V, Affine<V, DType::affine4_g32_bf16>>(to);
  add_pairs<V, Affine<V, DType::affine4_g64_bf16>>(to);
  add_pairs<V, Affine<V, DType::affine4_g128_bf16>>(to);
  to.quantise_for_codes = &quantise_pairs<V>;
  to.unpack_rows = 8;  // counted in instructions, not measured: up to five rows the kernels for packed weights take fewer
}

}  // namespace mlxn::rows16
