#pragma once

#include <cstdint>

#include "mlxn/dtype.h"
#include "simd/inline.h"

/// How the codes, scales and minima of each block format come out of the rows16 layout, lane by lane: V is a vector type
/// of src/simd, a lane is a row. Pointers are those of the lanes at hand: vector i of a block at q + 64 i.
///
/// A format has
///   kGroups    groups of 32 elements in a block
///   kCodes     codes lie below it (16 and 32: small enough for a table of floats)
///   kBias      w = scale * (code - kBias), for unsigned codes
///   kSigned    codes are signed bytes (kBias is 0)
///   kUnsigned  codes are bytes above 127 too (kBias is 0); int8act has no kernels for such
///   kValues    codes are indices into this table of signed bytes, or null
///   kMinimum   w = scale * code + offset
///   kHalves    scales (and offsets) are per 16 elements, else per 32
///   kUnrolled  groups of a block are straight code rather than a loop, where V likes that
///   kReady     codes come out as the integer kernel takes them, which adds x's `start` to their products
///   Block      what is read once per block; open(scale, q)
///   codes      w[i] = codes of elements 4i .. 4i+3 of group g, i < 8
///   kTogether  groups whose codes share their vectors; where there are some, codes_together() gives their codes of elements
///              4i .. 4i+3 in w[0] ... from one look at each vector
///   scales     s[h], o[h] of the halves of group g; only [0] is set unless kHalves
namespace mlxn::rows16 {

alignas(16) static constexpr std::int8_t kIq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                     1,    13,   25,  38,  53,  69,  89,  113};
/// Twice E2M1; the scale is halved.
alignas(16) static constexpr std::int8_t kE2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

template <class V>
struct Lanes {
  using F = typename V::F;
  using I = typename V::I;

  static MLXN_SIMD I bytes(int b) { return V::set(b * 0x01010101); }
  static MLXN_SIMD I low_nibbles(I v) { return V::and_(v, bytes(15)); }
  static MLXN_SIMD I high_nibbles(I v) { return V::and_(V::shr(v, 4), bytes(15)); }
  template <int kMask>
  static MLXN_SIMD I bits(I v, int right) {  ///< shifts right (or left if negative), then masks every byte
    return V::and_(right > 0 ? V::shr(v, right) : right < 0 ? V::shl(v, -right) : v, bytes(kMask));
  }
  static MLXN_SIMD I byte(I v, int b) { return b == 3 ? V::shr(v, 24) : V::and_(b ? V::shr(v, 8 * b) : v, V::set(255)); }
  static MLXN_SIMD I signed_byte(I v, int b) { return V::sar(b == 3 ? v : V::shl(v, 24 - 8 * b), 24); }
  static MLXN_SIMD F f16_high(I v) { return V::f16_low(V::shr(v, 16)); }
  static MLXN_SIMD F negative(F v) { return V::as_f32(V::xor_(V::as_int(v), V::set(static_cast<int>(0x80000000u)))); }
  /// Sixteen bytes' nibbles of 16 rows, split in halves.
  static MLXN_SIMD void split_nibbles(const std::uint8_t* q, I* w) {
    MLXN_UNROLL
    for (int i = 0; i < 4; ++i) {
      const I v = V::load(q + 64 * i);
      w[i] = low_nibbles(v);
      w[i + 4] = high_nibbles(v);
    }
  }
};

/// What most formats have; the others hide it.
struct FormatBase {
  static constexpr int kGroups = 1, kCodes = 16, kBias = 0;
  static constexpr int kTogether = 1;
  static constexpr bool kSigned = false, kUnsigned = false, kMinimum = false, kHalves = false, kReady = false;
  static constexpr bool kUnrolled = true;
  static constexpr const std::int8_t* kValues = nullptr;
};

/// A block whose scale stands at the front of the chunk.
template <class V>
struct ScaledBlock {
  typename V::F d;
  const std::uint8_t* q;
};
template <class V>
struct Scaled32 : FormatBase {
  using F = typename V::F;
  using I = typename V::I;
  using Block = ScaledBlock<V>;
  static MLXN_SIMD Block open(const std::uint8_t* scale, const std::uint8_t* q) { return {V::load_f16(scale), q}; }
  static MLXN_SIMD void scales(const Block& b, int, F* s, F*) { s[0] = b.d; }
};

template <class V>
struct Q4_0 : Scaled32<V> {
  static constexpr DType kType = DType::q4_0;
  static constexpr int kBias = 8;
  static MLXN_SIMD void codes(const ScaledBlock<V>& b, int, typename V::I* w) { Lanes<V>::split_nibbles(b.q, w); }
};

template <class V>
struct IQ4_NL : Scaled32<V> {
  static constexpr DType kType = DType::iq4_nl;
  static constexpr const std::int8_t* kValues = kIq4;
  static MLXN_SIMD void codes(const ScaledBlock<V>& b, int, typename V::I* w) { Lanes<V>::split_nibbles(b.q, w); }
};

template <class V>
struct MXFP4 : Scaled32<V> {
  static constexpr DType kType = DType::mxfp4;
  static constexpr const std::int8_t* kValues = kE2m1;
  /// 2^(e - 128) as a product of two powers, since it can be subnormal.
  static MLXN_SIMD ScaledBlock<V> open(const std::uint8_t* scale, const std::uint8_t* q) {
    const auto e = V::load_bytes(scale);
    const auto half = V::shr(e, 1);
    const auto rest = V::add_int(half, V::and_(e, V::set(1)));
    const auto power = [](typename V::I n) { return V::as_f32(V::shl(V::add_int(n, V::set(63)), 23)); };
    return {V::mul(power(half), power(rest)), q};
  }
  static MLXN_SIMD void codes(const ScaledBlock<V>& b, int, typename V::I* w) { Lanes<V>::split_nibbles(b.q, w); }
};

template <class V>
struct Q5_0 : Scaled32<V> {
  static constexpr DType kType = DType::q5_0;
  static constexpr int kBias = 16, kCodes = 32;
  static MLXN_SIMD void codes(const ScaledBlock<V>& b, int, typename V::I* w) {
    using L = Lanes<V>;
    const auto high = V::load(b.q);
    L::split_nibbles(b.q + 64, w);
    MLXN_UNROLL
    for (int i = 0; i < 8; ++i) w[i] = V::or_(w[i], V::and_(V::spread_bits(high, i), L::bytes(16)));
  }
};

template <class V>
struct Q8_0 : Scaled32<V> {
  static constexpr DType kType = DType::q8_0;
  static constexpr int kCodes = 256;
  static constexpr bool kSigned = true;
  static MLXN_SIMD void codes(const ScaledBlock<V>& b, int, typename V::I* w) {
    MLXN_UNROLL
    for (int i = 0; i < 8; ++i) w[i] = V::load(b.q + 64 * i);
  }
};

/// Groups of MLX's affine weights, q4_1 among them.
template <class V, DType kTypeOf>
struct Affine : FormatBase {
  using F = typename V::F;
  using I = typename V::I;
  static constexpr DType kType = kTypeOf;
  static constexpr AffineInfo kInfo = *affine_info(kType);
  static constexpr int kGroups = static_cast<int>(kInfo.group) / 32, kCodes = kInfo.bits == 8 ? 256 : 16;
  static constexpr bool kMinimum = true, kUnsigned = kInfo.bits == 8;
  static constexpr bool kUnrolled = false;  // all groups are alike: many types, little code for each
  struct Block {
    F d, m;
    const std::uint8_t* q;
  };
  static MLXN_SIMD Block open(const std::uint8_t*, const std::uint8_t* q) {
    const I both = V::load(q);
    if constexpr (kInfo.scales == DType::f32) return {V::as_f32(both), V::as_f32(V::load(q + 64)), q + 128};
    else if constexpr (kInfo.scales == DType::f16) return {V::f16_low(both), Lanes<V>::f16_high(both), q + 64};
    else return {V::as_f32(V::shl(both, 16)), V::as_f32(V::and_(both, V::set(static_cast<int>(0xFFFF0000u)))), q + 64};
  }
  static MLXN_SIMD void scales(const Block& b, int, F* s, F* o) {
    s[0] = b.d;
    o[0] = b.m;
  }
  static MLXN_SIMD void codes(const Block& b, int g, I* w) {
    if constexpr (kUnsigned) {
      MLXN_UNROLL
      for (int i = 0; i < 8; ++i) w[i] = V::load(b.q + 64 * (8 * g + i));
    } else {
      Lanes<V>::split_nibbles(b.q + 256 * g, w);
    }
  }
};

template <class V>
struct Q5_1 : Affine<V, DType::q4_1> {
  static constexpr DType kType = DType::q5_1;
  static constexpr int kCodes = 32;
  static MLXN_SIMD void codes(const typename Affine<V, DType::q4_1>::Block& b, int, typename V::I* w) {
    using L = Lanes<V>;
    const auto high = V::load(b.q);
    L::split_nibbles(b.q + 64, w);
    MLXN_UNROLL
    for (int i = 0; i < 8; ++i) w[i] = V::or_(w[i], V::and_(V::spread_bits(high, i), L::bytes(16)));
  }
};

struct SuperBase : FormatBase {
  static constexpr int kGroups = 8;
};

template <class V>
struct Q2_K : SuperBase {
  static constexpr DType kType = DType::q2_K;
  static constexpr bool kMinimum = true, kHalves = true;
  using F = typename V::F;
  using I = typename V::I;
  struct Block {
    F d, dmin;
    const std::uint8_t* q;
  };
  static MLXN_SIMD Block open(const std::uint8_t*, const std::uint8_t* q) {
    const I both = V::load(q);
    return {V::f16_low(both), Lanes<V>::negative(Lanes<V>::f16_high(both)), q};
  }
  static MLXN_SIMD void codes(const Block& b, int g, I* w) {
    MLXN_UNROLL
    for (int i = 0; i < 8; ++i) w[i] = Lanes<V>::template bits<3>(V::load(b.q + 64 * (5 + 8 * (g / 4) + i)), 2 * (g % 4));
  }
  static MLXN_SIMD void scales(const Block& b, int g, F* s, F* o) {
    const I packed = V::load(b.q + 64 * (1 + g / 2));
    MLXN_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int at = 8 * (2 * (g % 2) + h);
      s[h] = V::mul(b.d, V::to_f32(V::and_(V::shr(packed, at), V::set(15))));
      o[h] = V::mul(b.dmin, V::to_f32(V::and_(V::shr(packed, at + 4), V::set(15))));
    }
  }
};

template <class V>
struct Q3_K : SuperBase {
  static constexpr DType kType = DType::q3_K;
  static constexpr int kBias = 4;
  static constexpr bool kHalves = true;
  using F = typename V::F;
  using I = typename V::I;
  struct Block {
    F d;
    I sc[4];
    const std::uint8_t* q;
  };
  static MLXN_SIMD Block open(const std::uint8_t* scale, const std::uint8_t* q) {
    using L = Lanes<V>;
    const I a = V::load(q), c = V::load(q + 64), high = V::load(q + 128);
    return {V::load_f16(scale),
            {V::or_(L::low_nibbles(a), L::template bits<0x30>(high, -4)),
             V::or_(L::low_nibbles(c), L::template bits<0x30>(high, -2)),
             V::or_(L::high_nibbles(a), L::template bits<0x30>(high, 0)),
             V::or_(L::high_nibbles(c), L::template bits<0x30>(high, 2))},
            q};
  }
  static MLXN_SIMD void codes(const Block& b, int g, I* w) {
    using L = Lanes<V>;
    MLXN_UNROLL
    for (int i = 0; i < 8; ++i) {
      const int high_at = 4 + 2 * i, low_at = g < 4 ? high_at - 1 : 19 + i;
      const I low = L::template bits<3>(V::load(b.q + 64 * low_at), 2 * (g % 4));
      w[i] = V::or_(low, L::template bits<4>(V::load(b.q + 64 * high_at), g - 2));
    }
  }
  static MLXN_SIMD void scales(const Block& b, int g, F* s, F*) {
    MLXN_UNROLL
    for (int h = 0; h < 2; ++h) {
      const I sc = Lanes<V>::byte(b.sc[g / 2], 2 * (g % 2) + h);
      s[h] = V::mul(b.d, V::to_f32(V::add_int(sc, V::set(-32))));
    }
  }
};

/// Q4_K and Q5_K: eight pairs of 6-bit scales and minima.
template <class V>
struct K4Base : SuperBase {
  static constexpr bool kMinimum = true;
  using F = typename V::F;
  using I = typename V::I;
  struct Block {
    F d, dmin;
    I sc[2], mn[2];
    const std::uint8_t* q;
  };
  static MLXN_SIMD Block open(const std::uint8_t*, const std::uint8_t* q) {
    using L = Lanes<V>;
    const I both = V::load(q), a = V::load(q + 64), b = V::load(q + 128), c = V::load(q + 192);
    return {V::f16_low(both),
            L::negative(L::f16_high(both)),
            {L::template bits<0x3F>(a, 0), V::or_(L::low_nibbles(c), L::template bits<0x30>(a, 2))},
            {L::template bits<0x3F>(b, 0), V::or_(L::high_nibbles(c), L::template bits<0x30>(b, 2))},
            q};
  }
  static MLXN_SIMD void scales(const Block& b, int g, F* s, F* o) {
    s[0] = V::mul(b.d, V::to_f32(Lanes<V>::byte(b.sc[g / 4], g % 4)));
    o[0] = V::mul(b.dmin, V::to_f32(Lanes<V>::byte(b.mn[g / 4], g % 4)));
  }
};

template <class V>
struct Q4_K : K4Base<V> {
  static constexpr DType kType = DType::q4_K;
  static MLXN_SIMD void codes(const typename K4Base<V>::Block& b, int g, typename V::I* w) {
    MLXN_UNROLL
    for (int i = 0; i < 8; ++i) w[i] = Lanes<V>::template bits<15>(V::load(b.q + 64 * (4 + 8 * (g / 2) + i)), 4 * (g % 2));
  }
};

template <class V>
struct Q5_K : K4Base<V> {
  static constexpr DType kType = DType::q5_K;
  static constexpr int kCodes = 32;
  static MLXN_SIMD void codes(const typename K4Base<V>::Block& b, int g, typename V::I* w) {
    using L = Lanes<V>;
    MLXN_UNROLL
    for (int i = 0; i < 8; ++i) {
      const int high_at = 5 + 2 * i, low_at = g < 2 ? high_at - 1 : 12 + 8 * (g / 2) + i;
      const auto low = L::template bits<15>(V::load(b.q + 64 * low_at), 4 * (g % 2));
      w[i] = V::or_(low, L::template bits<16>(V::load(b.q + 64 * high_at), g - 4));
    }
  }
};

template <class V>
struct Q6_K : SuperBase {
  static constexpr DType kType = DType::q6_K;
  static constexpr int kBias = 32, kCodes = 64, kTogether = 4;
  static constexpr bool kHalves = true;
  using F = typename V::F;
  using I = typename V::I;
  struct Block {
    F d;  ///< over 2^24: scales are read as if they stood in the highest byte of a lane. The products stay exact.
    const std::uint8_t* q;
  };
  static MLXN_SIMD Block open(const std::uint8_t* scale, const std::uint8_t* q) {
    return {V::mul(V::load_f16(scale), V::set_f32(0x1p-24f)), q};
  }
  static MLXN_SIMD void codes(const Block& b, int g, I* w) {
    using L = Lanes<V>;
    const int part = g % 4;
    MLXN_UNROLL
    for (int i = 0; i < 8; ++i) {
      const int half = 4 + 24 * (g / 4), low_at = half + (part % 2 ? 16 + i : 2 * i);
      const I low = L::template bits<15>(V::load(b.q + 64 * low_at), 4 * (part / 2));
      w[i] = V::or_(low, L::template bits<0x30>(V::load(b.q + 64 * (half + 2 * i + 1)), 2 * part - 4));
    }
  }
  static MLXN_SIMD void codes_together(const Block& b, int half, int i, I* w) {
    using L = Lanes<V>;
    const std::uint8_t* q = b.q + 64 * (4 + 24 * half);
    const I even = V::load(q + 128 * i), high = V::load(q + 128 * i + 64), odd = V::load(q + 64 * (16 + i));
    w[0] = V::or_(L::low_nibbles(even), L::template bits<0x30>(high, -4));
    w[1] = V::or_(L::low_nibbles(odd), L::template bits<0x30>(high, -2));
    w[2] = V::or_(L::high_nibbles(even), L::template bits<0x30>(high, 0));
    w[3] = V::or_(L::high_nibbles(odd), L::template bits<0x30>(high, 2));
  }
  static MLXN_SIMD void scales(const Block& b, int g, F* s, F*) {
    const I packed = V::load(b.q + 64 * (g / 2));
    MLXN_UNROLL
    for (int h = 0; h < 2; ++h) s[h] = V::mul(b.d, V::to_f32(V::byte_on_top(packed, 2 * (g % 2) + h)));
  }
};

template <class V>
struct IQ4_XS : SuperBase {
  static constexpr DType kType = DType::iq4_xs;
  static constexpr const std::int8_t* kValues = kIq4;
  using F = typename V::F;
  using I = typename V::I;
  struct Block {
    F d;
    I high, low;
    const std::uint8_t* q;
  };
  static MLXN_SIMD Block open(const std::uint8_t*, const std::uint8_t* q) {
    const I first = V::load(q);
    return {V::f16_low(first), V::shr(first, 16), V::load(q + 64), q};
  }
  static MLXN_SIMD void codes(const Block& b, int g, I* w) { Lanes<V>::split_nibbles(b.q + 64 * (2 + 4 * g), w); }
  static MLXN_SIMD void scales(const Block& b, int g, F* s, F*) {
    const I low = V::and_(V::shr(b.low, 4 * g), V::set(15));
    const I high = V::and_(V::shl(V::shr(b.high, 2 * g), 4), V::set(0x30));
    s[0] = V::mul(b.d, V::to_f32(V::add_int(V::or_(low, high), V::set(-32))));
  }
};

/// Dense rows, 16 elements a block: element(q, i) is element i of every lane.
template <class V>
struct DenseF32 {
  static constexpr DType kType = DType::f32;
  static MLXN_SIMD typename V::F element(const std::uint8_t* q, int i) { return V::as_f32(V::load(q + 64 * i)); }
};
template <class V>
struct DenseF16 {
  static constexpr DType kType = DType::f16;
  static MLXN_SIMD typename V::F element(const std::uint8_t* q, int i) {
    const auto both = V::load(q + 64 * (i / 2));
    return i % 2 ? Lanes<V>::f16_high(both) : V::f16_low(both);
  }
};
template <class V>
struct DenseBF16 {
  static constexpr DType kType = DType::bf16;
  static MLXN_SIMD typename V::F element(const std::uint8_t* q, int i) {
    const auto both = V::load(q + 64 * (i / 2));
    return V::as_f32(i % 2 ? V::and_(both, V::set(static_cast<int>(0xFFFF0000u))) : V::shl(both, 16));
  }
};

}  // namespace mlxn::rows16
