#pragma once

#include <utility>

#include "backends/cpu/weight_rows16.h"
#include "ops/matmul/formats.h"
#include "ops/matmul/kernel_table.h"

/// Kernel bodies over a vector type V of src/simd, compiled once per instruction set.
///
/// Bound: with few rows of x the stream of weights (0.5 to 1 byte per product); with many the integer dot products, or the
/// FMAs of the slab kernel. Tile: 16 columns of y (the lanes; two or four passes where V is narrower) times 1 to 8 rows of
/// x, all of k, sums in registers. One unpacking of 32 codes serves all rows of the tile. Threads: none here, see cpu.cpp.
///
/// Order of sums, the same in every kernel of a class, so that a result depends neither on the tile nor on the route:
///   int8act  total = fma(scale * float(integer dot of 32), d, total) along k; where scales are per 16, the two scaled dots
///            are added first; a minimum adds fma(offset, d * sum of q, total) after it
///   exact    t = fma(code, x, t) over 16 elements, then total = fma(t, scale, total); a minimum adds fma(offset, sum of x,
///            total) after it. Codes, scales and offsets are exact floats (a dense weight is its own code, of scale 1).
namespace mlxn::rows16 {

/// Calls body(block, i) for the blocks of k elements of a group, i counting from 0; `pass` picks the lanes.
template <class V, DType kType, class Body>
static MLXN_SIMD void for_blocks(const std::uint8_t* group, std::int64_t k, int pass, Body&& body) {
  constexpr Format f = format(kType);
  std::int64_t i = 0;
  while (k > 0) {
    const std::int64_t elems = k < kChunkElems ? k : kChunkElems;
    const std::int64_t n = blocks(f, elems);
    const std::uint8_t* scale = group + pass * V::kLanes * f.scale_bytes;
    const std::uint8_t* q = group + scales_bytes(f, n) + pass * V::kLanes * 4;
    for (std::int64_t b = 0; b < n; ++b, ++i) {
      body(scale, q, i);
      scale += kRows * f.scale_bytes;
      q += f.dwords * 64;
    }
    group += chunk_bytes(f, elems);
    k -= elems;
  }
}

/// The same for the units of a slab of codes.
template <class V, class Body>
static MLXN_SIMD void for_units(const std::uint8_t* slab, std::int64_t k, int pass, Body&& body) {
  const std::uint8_t* unit = slab + pass * V::kLanes * 4;
  for (std::int64_t i = 0; i < k / 32; ++i, unit += kCodeUnitBytes) body(unit, unit, i);
}

/// body(0) .. body(kCount - 1): straight code, or a loop where V is for portability rather than speed or kUnrolled says so.
template <class V, int kCount, bool kUnrolled = true, class Body>
static MLXN_SIMD void repeat(Body&& body) {
  if constexpr (V::kUnrolled && (kUnrolled || kCount == 1)) {
    MLXN_UNROLL
    for (int i = 0; i < kCount; ++i) {
      if constexpr (V::kSettled) MLXN_SETTLE;
      body(i);
    }
  } else {
    MLXN_ROLLED
    for (int i = 0; i < kCount; ++i) body(i);
  }
}

template <class V>
static constexpr int kPasses = static_cast<int>(kRows) / V::kLanes;

/// Where many passes go over the same weights, they do so chunk by chunk: the later ones then find them in the nearest cache.
template <class V>
static constexpr std::int64_t kStretch = kPasses<V> > 2 ? kChunkElems : std::int64_t{1} << 62;

/// t[m] += v * x[m]
template <class V, int kCount>
static MLXN_SIMD void add_products(typename V::F v, const float* x, typename V::F* t) {
  if constexpr (V::kProductsByLane && kCount % V::kLanes == 0) {
    MLXN_UNROLL
    for (int m = 0; m < kCount; m += V::kLanes) V::fma_by_lane(v, x + m, t + m);
  } else {
    MLXN_UNROLL
    for (int m = 0; m < kCount; ++m) t[m] = V::fma(v, V::set_f32(x[m]), t[m]);
  }
}

// ---- int8act ----

/// Whether the integer kernel sees codes as signed bytes.
template <class V, class T>
static constexpr bool kDotSigned = V::kSignedBytes && (T::kSigned || T::kValues != nullptr);

/// What the codes that the integer kernel sees are off by.
template <class V, class T>
static constexpr int kDotBias = T::kSigned || T::kValues != nullptr ? (V::kSignedBytes ? 0 : 128) : T::kBias;

/// Tables of values as the dot product takes them: shifted by 128 where it wants unsigned bytes.
template <bool kShifted>
struct DotTable {
  alignas(16) std::int8_t value[16];
  explicit constexpr DotTable(const std::int8_t* from) : value{} {
    for (int i = 0; i < 16; ++i) value[i] = static_cast<std::int8_t>(kShifted ? from[i] ^ -128 : from[i]);
  }
};

template <class V, class T>
static MLXN_SIMD void dot_codes(const typename T::Block& block, int g, typename V::I* w) {
  T::codes(block, g, w);
  if constexpr (T::kReady) {
  } else if constexpr (T::kValues != nullptr) {
    static constexpr DotTable<!V::kSignedBytes> kTable(T::kValues);
    MLXN_UNROLL
    for (int i = 0; i < 8; ++i) w[i] = V::lookup(kTable.value, w[i]);
  } else if constexpr (T::kSigned && !V::kSignedBytes) {
    MLXN_UNROLL
    for (int i = 0; i < 8; ++i) w[i] = V::xor_(w[i], Lanes<V>::bytes(128));
  }
}

template <class V, class T, int kVectors>
static MLXN_SIMD typename V::I dot(std::int32_t start, const typename V::I* w, const std::int8_t* x) {
  if constexpr (kDotSigned<V, T>) return V::template dot_signed<kVectors>(V::zero(), w, x);
  else return V::template dot_unsigned<kVectors, T::kCodes - 1>(kDotBias<V, T> == 0 && !T::kReady ? V::zero() : V::set(start), w, x);
}

/// Formats of a slab of codes, which a kernel reads like weights: unpack() has done what is to do.
template <class V, bool kHalvesOfType, bool kMinimumOfType, bool kSignedCodes>
struct Unpacked : FormatBase {
  static constexpr bool kReady = true, kHalves = kHalvesOfType, kMinimum = kMinimumOfType, kSigned = kSignedCodes;
  static constexpr int kGroups = 1, kCodes = 64;
  using Block = const std::uint8_t*;
  static MLXN_SIMD Block open(const std::uint8_t*, const std::uint8_t* unit) { return unit; }
  static MLXN_SIMD void codes(Block unit, int, typename V::I* w) {
    MLXN_UNROLL
    for (int i = 0; i < 8; ++i) w[i] = V::load(unit + 64 * i);
  }
  static MLXN_SIMD void scales(Block unit, int, typename V::F* s, typename V::F* o) {
    MLXN_UNROLL
    for (int h = 0; h < (kHalves ? 2 : 1); ++h) {
      s[h] = V::as_f32(V::load(unit + kCodeUnitScales + 64 * h));
      if constexpr (kMinimum) o[h] = V::as_f32(V::load(unit + kCodeUnitOffsets + 64 * h));
    }
  }
};

/// One row of x with the groups first .. first + T::kTogether - 1 of a block: the scaled dots of each.
template <class V, class T>
static MLXN_SIMD void dots_together(const typename T::Block& block, int first, const QuantisedX* xs, typename V::F* dots) {
  static_assert(T::kHalves && T::kValues == nullptr && !T::kSigned);
  typename V::F s[T::kTogether][2];
  MLXN_UNROLL
  for (int p = 0; p < T::kTogether; ++p) T::scales(block, first + p, s[p], nullptr);
  MLXN_UNROLL
  for (int h = 0; h < 2; ++h) {
    typename V::I sum[T::kTogether];
    MLXN_UNROLL
    for (int p = 0; p < T::kTogether; ++p) sum[p] = V::set(xs[p].half_start[h]);
    MLXN_UNROLL
    for (int i = 4 * h; i < 4 * h + 4; ++i) {
      typename V::I w[T::kTogether];
      T::codes_together(block, first / T::kTogether, i, w);
      MLXN_UNROLL
      for (int p = 0; p < T::kTogether; ++p) {
        sum[p] = V::template dot_unsigned<1, T::kCodes - 1>(sum[p], &w[p], xs[p].q + 4 * i);
      }
    }
    MLXN_UNROLL
    for (int p = 0; p < T::kTogether; ++p) {
      const typename V::F f = V::to_f32(sum[p]);
      dots[p] = h == 0 ? V::mul(f, s[p][0]) : V::fma(f, s[p][1], dots[p]);
    }
  }
}

/// How far ahead of the products weights are asked for, where they are: beyond what the hardware's streams fetch by
/// themselves, well within the nearest cache.
inline constexpr std::int64_t kAheadBytes = 2048;

/// Asks for part g of a block's lines, `kAheadBytes` on, and for those of its scale with the first.
template <class T>
static MLXN_SIMD void ask_ahead(const std::uint8_t* scale, const std::uint8_t* q, int g) {
  constexpr Format f = format(T::kType);
  if (f.scale_bytes != 0 && g == 0) __builtin_prefetch(scale + kAheadBytes);
  MLXN_UNROLL
  for (int i = f.dwords * g / T::kGroups; i < f.dwords * (g + 1) / T::kGroups; ++i) {
    __builtin_prefetch(q + kAheadBytes + 64 * i);
  }
}

/// kAhead: asks for weights ahead, for weights that stream from memory.
template <class V, class T, int kTile, bool kAhead = false>
static void multiply_quantised(const std::uint8_t* group, std::int64_t k, const QuantisedX* x, float* totals) {
  using F = typename V::F;
  using I = typename V::I;
  for (int pass = 0; pass < kPasses<V>; ++pass) {
    F total[kTile];
    MLXN_UNROLL
    for (int m = 0; m < kTile; ++m) total[m] = V::load_f32(totals + 16 * m + pass * V::kLanes);
    const auto multiply = [&](const std::uint8_t* scale, const std::uint8_t* q, std::int64_t i) MLXN_LAMBDA {
      const typename T::Block block = T::open(scale, q);
      const QuantisedX* xs = x + i * T::kGroups * kTile;
      F together[T::kTogether];
      repeat<V, T::kGroups, T::kUnrolled>([&](int g) MLXN_LAMBDA {
        if constexpr (kAhead) {
          if (pass == 0) ask_ahead<T>(scale, q, g);
        }
        if constexpr (kTile == 1 && V::kGroupsTogether && T::kTogether > 1) {
          if (g % T::kTogether == 0) dots_together<V, T>(block, g, xs + g, together);
          total[0] = V::fma(together[g % T::kTogether], V::set_f32(xs[g].d), total[0]);
          return;
        }
        I w[8];
        F s[2], o[2];
        dot_codes<V, T>(block, g, w);
        T::scales(block, g, s, o);
        MLXN_UNROLL
        for (int m = 0; m < kTile; ++m) {
          const QuantisedX& xm = xs[g * kTile + m];
          F dots;
          if constexpr (T::kHalves) {
            const F low = V::to_f32(dot<V, T, 4>(xm.half_start[0], w, xm.q));
            const F high = V::to_f32(dot<V, T, 4>(xm.half_start[1], w + 4, xm.q + 16));
            dots = V::fma(high, s[1], V::mul(low, s[0]));
          } else {
            dots = V::mul(V::to_f32(dot<V, T, 8>(xm.start, w, xm.q)), s[0]);
          }
          total[m] = V::fma(dots, V::set_f32(xm.d), total[m]);
          if constexpr (T::kMinimum && T::kHalves) {
            total[m] = V::fma(o[0], V::set_f32(xm.half_sum[0]), total[m]);
            total[m] = V::fma(o[1], V::set_f32(xm.half_sum[1]), total[m]);
          } else if constexpr (T::kMinimum) {
            total[m] = V::fma(o[0], V::set_f32(xm.sum), total[m]);
          }
        }
      });
    };
    if constexpr (T::kReady) for_units<V>(group, k, pass, multiply);
    else for_blocks<V, T::kType>(group, k, pass, multiply);
    MLXN_UNROLL
    for (int m = 0; m < kTile; ++m) V::store_f32(totals + 16 * m + pass * V::kLanes, total[m]);
  }
}

/// Unpacks at most a chunk to a slab of codes.
template <class V, class T>
static void unpack(const std::uint8_t* chunk, std::int64_t k, std::uint8_t* slab) {
  using F = typename V::F;
  using I = typename V::I;
  for (int pass = 0; pass < kPasses<V>; ++pass) {
    for_blocks<V, T::kType>(chunk, k, pass, [&](const std::uint8_t* scale, const std::uint8_t* q, std::int64_t i) MLXN_LAMBDA {
      const typename T::Block block = T::open(scale, q);
      repeat<V, T::kGroups, T::kUnrolled>([&](int g) MLXN_LAMBDA {
        std::uint8_t* unit = slab + (i * T::kGroups + g) * kCodeUnitBytes + pass * V::kLanes * 4;
        I w[8];
        F s[2], o[2];
        dot_codes<V, T>(block, g, w);
        T::scales(block, g, s, o);
        MLXN_UNROLL
        for (int j = 0; j < 8; ++j) V::store(unit + 64 * j, w[j]);
        MLXN_UNROLL
        for (int h = 0; h < (T::kHalves ? 2 : 1); ++h) {
          V::store(unit + kCodeUnitScales + 64 * h, V::as_int(s[h]));
          if constexpr (T::kMinimum) V::store(unit + kCodeUnitOffsets + 64 * h, V::as_int(o[h]));
        }
      });
    });
  }
}

// ---- exact ----

/// The values of codes as floats, for look-ups.
template <class T>
struct FloatTable {
  alignas(64) float value[32];
  constexpr FloatTable() : value{} {
    for (int i = 0; i < 32; ++i) value[i] = static_cast<float>(T::kValues != nullptr ? T::kValues[i % 16] : i - T::kBias);
  }
};

/// Turns codes to floats: by table where V has one and the codes fit, else through signed bytes.
template <class V, class T>
struct Values {
  static constexpr bool kTabled = V::kFloatTables && T::kCodes <= 32;
  static constexpr FloatTable<T> kFloats{};
  using F = typename V::F;
  using I = typename V::I;

  static MLXN_SIMD auto load() {
    if constexpr (kTabled) return V::load_table(kFloats.value);
    else return 0;
  }
  static MLXN_SIMD void prepare(I* w) {
    if constexpr (!kTabled) {
      MLXN_UNROLL
      for (int i = 0; i < 8; ++i) {
        if constexpr (T::kValues != nullptr) w[i] = V::lookup(T::kValues, w[i]);
        else if constexpr (T::kBias != 0) w[i] = V::sub_bytes(w[i], Lanes<V>::bytes(T::kBias));
      }
    }
  }
  template <class Table>
  static MLXN_SIMD F at(const Table& table, I w, int b) {
    if constexpr (kTabled) return V::template table<T::kCodes>(table, b ? V::shr(w, 8 * b) : w);
    else if constexpr (T::kUnsigned) return V::to_f32(Lanes<V>::byte(w, b));
    else return V::to_f32(Lanes<V>::signed_byte(w, b));
  }
};

template <class V, class T, int kTile>
static void multiply_exact(const std::uint8_t* group, std::int64_t k, const float* x, float* totals) {
  using F = typename V::F;
  using I = typename V::I;
  using Value = Values<V, T>;
  const auto table = Value::load();
  for (int pass = 0; pass < kPasses<V>; ++pass) {
    F total[kTile];
    MLXN_UNROLL
    for (int m = 0; m < kTile; ++m) total[m] = V::load_f32(totals + 16 * m + pass * V::kLanes);
    for_blocks<V, T::kType>(group, k, pass, [&](const std::uint8_t* scale, const std::uint8_t* q, std::int64_t i) MLXN_LAMBDA {
      const typename T::Block block = T::open(scale, q);
      repeat<V, T::kGroups, T::kUnrolled>([&](int g) MLXN_LAMBDA {
        const float* xs = x + (i * T::kGroups + g) * 2 * kUnitX * kTile;
        I w[8];
        F s[2], o[2];
        T::codes(block, g, w);
        Value::prepare(w);
        T::scales(block, g, s, o);
        F t[2][kTile];
        MLXN_UNROLL
        for (int m = 0; m < kTile; ++m) t[0][m] = t[1][m] = V::set_f32(0.0f);
        repeat<V, 16>([&](int e) MLXN_LAMBDA {
          MLXN_UNROLL
          for (int h = 0; h < 2; ++h) {
            const F v = Value::at(table, w[4 * h + e / 4], e % 4);
            add_products<V, kTile>(v, xs + (kUnitX * h + e) * kTile, t[h]);
          }
        });
        MLXN_UNROLL
        for (int h = 0; h < 2; ++h) {
          MLXN_UNROLL
          for (int m = 0; m < kTile; ++m) {
            total[m] = V::fma(t[h][m], s[T::kHalves ? h : 0], total[m]);
            if constexpr (T::kMinimum) {
              total[m] = V::fma(o[T::kHalves ? h : 0], V::set_f32(xs[(kUnitX * h + 16) * kTile + m]), total[m]);
            }
          }
        }
      });
    });
    MLXN_UNROLL
    for (int m = 0; m < kTile; ++m) V::store_f32(totals + 16 * m + pass * V::kLanes, total[m]);
  }
}

template <class V, class T>
static void decode(const std::uint8_t* chunk, std::int64_t k, float* slab) {
  using F = typename V::F;
  using I = typename V::I;
  using Value = Values<V, T>;
  const auto table = Value::load();
  for (int pass = 0; pass < kPasses<V>; ++pass) {
    for_blocks<V, T::kType>(chunk, k, pass, [&](const std::uint8_t* scale, const std::uint8_t* q, std::int64_t i) MLXN_LAMBDA {
      const typename T::Block block = T::open(scale, q);
      repeat<V, T::kGroups, T::kUnrolled>([&](int g) MLXN_LAMBDA {
        float* units = slab + (i * T::kGroups + g) * 2 * kUnitFloats + pass * V::kLanes;
        I w[8];
        F s[2], o[2];
        T::codes(block, g, w);
        Value::prepare(w);
        T::scales(block, g, s, o);
        repeat<V, 32>([&](int e) MLXN_LAMBDA {
          V::store_f32(units + e / 16 * kUnitFloats + 16 * (e % 16), Value::at(table, w[e / 4], e % 4));
        });
        MLXN_UNROLL
        for (int h = 0; h < 2; ++h) {
          V::store_f32(units + h * kUnitFloats + kUnitScale, s[T::kHalves ? h : 0]);
          if constexpr (T::kMinimum) V::store_f32(units + h * kUnitFloats + kUnitOffset, o[T::kHalves ? h : 0]);
        }
      });
    });
  }
}

template <class V, class T, int kTile>
static void multiply_dense(const std::uint8_t* group, std::int64_t k, const float* x, float* totals) {
  using F = typename V::F;
  for (int pass = 0; pass < kPasses<V>; ++pass) {
    F total[kTile];
    MLXN_UNROLL
    for (int m = 0; m < kTile; ++m) total[m] = V::load_f32(totals + 16 * m + pass * V::kLanes);
    for_blocks<V, T::kType>(group, k, pass, [&](const std::uint8_t*, const std::uint8_t* q, std::int64_t i) MLXN_LAMBDA {
      F t[kTile];
      MLXN_UNROLL
      for (int m = 0; m < kTile; ++m) t[m] = V::set_f32(0.0f);
      repeat<V, 16>([&](int e) MLXN_LAMBDA {
        add_products<V, kTile>(T::element(q, e), x + (i * kUnitX + e) * kTile, t);
      });
      MLXN_UNROLL
      for (int m = 0; m < kTile; ++m) total[m] = V::add(total[m], t[m]);
    });
    MLXN_UNROLL
    for (int m = 0; m < kTile; ++m) V::store_f32(totals + 16 * m + pass * V::kLanes, total[m]);
  }
}

template <class V, class T>
static void decode_dense(const std::uint8_t* chunk, std::int64_t k, float* slab) {
  for (int pass = 0; pass < kPasses<V>; ++pass) {
    for_blocks<V, T::kType>(chunk, k, pass, [&](const std::uint8_t*, const std::uint8_t* q, std::int64_t i) MLXN_LAMBDA {
      float* unit = slab + i * kUnitFloats + pass * V::kLanes;
      MLXN_UNROLL
      for (int e = 0; e < 16; ++e) V::store_f32(unit + 16 * e, T::element(q, e));
      V::store_f32(unit + kUnitScale, V::set_f32(1.0f));
    });
  }
}

template <class V, bool kMinimum, int kTile>
static void multiply_slab(const float* slab, std::int64_t k, const float* x, float* totals) {
  using F = typename V::F;
  constexpr int kColumns = V::kSlabColumns;
  for (int pass = 0; pass < kPasses<V>; pass += kColumns) {
    const auto at = [&](int c, int m) MLXN_LAMBDA { return totals + 16 * m + (pass + c) * V::kLanes; };
    F total[kColumns][kTile];
    MLXN_UNROLL
    for (int m = 0; m < kTile; ++m) {
      MLXN_UNROLL
      for (int c = 0; c < kColumns; ++c) total[c][m] = V::load_f32(at(c, m));
    }
    const float* w = slab + pass * V::kLanes;
    const float* xs = x;
    for (std::int64_t i = 0; i < k; i += kUnitElems) {
      F t[kColumns][kTile];
      MLXN_UNROLL
      for (int m = 0; m < kTile; ++m) {
        MLXN_UNROLL
        for (int c = 0; c < kColumns; ++c) t[c][m] = V::set_f32(0.0f);
      }
      repeat<V, 16>([&](int e) MLXN_LAMBDA {
        MLXN_UNROLL
        for (int c = 0; c < kColumns; ++c) add_products<V, kTile>(V::load_f32(w + 16 * e + c * V::kLanes), xs + e * kTile, t[c]);
      });
      MLXN_UNROLL
      for (int c = 0; c < kColumns; ++c) {
        const F s = V::load_f32(w + kUnitScale + c * V::kLanes);
        MLXN_UNROLL
        for (int m = 0; m < kTile; ++m) total[c][m] = V::fma(t[c][m], s, total[c][m]);
        if constexpr (kMinimum) add_products<V, kTile>(V::load_f32(w + kUnitOffset + c * V::kLanes), xs + 16 * kTile, total[c]);
      }
      w += kUnitFloats;
      xs += kUnitX * kTile;
    }
    MLXN_UNROLL
    for (int m = 0; m < kTile; ++m) {
      MLXN_UNROLL
      for (int c = 0; c < kColumns; ++c) V::store_f32(at(c, m), total[c][m]);
    }
  }
}

// ---- x and y ----

template <class V>
static MLXN_SIMD typename V::F load_x(const std::uint8_t* row, DType type, std::int64_t i) {
  if (type == DType::f32) return V::as_f32(V::load(row + 4 * i));
  return type == DType::f16 ? V::load_f16(row + 2 * i) : V::load_bf16(row + 2 * i);
}

template <class V>
static void quantise(const SourceX& x, std::int64_t row, int rows, std::int64_t begin, std::int64_t end, std::int32_t bias,
                     QuantisedX* out) {
  using F = typename V::F;
  constexpr int kVectors = 32 / V::kLanes;
  for (int r = 0; r < rows; ++r) {
    const std::uint8_t* from = x.data + (row + r) * x.row_bytes;
    for (std::int64_t i = begin; i < end; i += 32) {
      QuantisedX& block = out[i / 32 * rows + r];
      F v[kVectors];
      F most = V::set_f32(0.0f), not_finite = V::set_f32(0.0f);
      MLXN_UNROLL
      for (int j = 0; j < kVectors; ++j) {
        v[j] = load_x<V>(from, x.type, i + j * V::kLanes);
        most = V::max(most, V::abs(v[j]));
        not_finite = V::fma(v[j], V::set_f32(0.0f), not_finite);  // NaN once there is an infinity or a NaN
      }
      const float d = V::max_lane(most) / 127.0f;
      const F divisor = V::set_f32(d > 0.0f ? d : 1.0f);
      MLXN_UNROLL
      for (int j = 0; j < kVectors; ++j) V::store_rounded_bytes(block.q + j * V::kLanes, V::div(v[j], divisor));
      std::int32_t half[2] = {0, 0};
      for (int j = 0; j < 32; ++j) half[j / 16] += block.q[j];
      block.d = d + V::sum_lanes(not_finite);
      block.sum = block.d * static_cast<float>(half[0] + half[1]);
      block.start = -bias * (half[0] + half[1]);
      for (int h = 0; h < 2; ++h) {
        block.half_sum[h] = block.d * static_cast<float>(half[h]);
        block.half_start[h] = -bias * half[h];
      }
    }
  }
}

template <class V>
static void copy_x(const SourceX& x, std::int64_t row, int rows, std::int64_t begin, std::int64_t end, bool to_f16,
                   float* out) {
  using F = typename V::F;
  const std::int64_t element_bytes = x.type == DType::f32 ? 4 : 2;
  for (int r = 0; r < rows; ++r) {
    const std::uint8_t* from = x.data + (row + r) * x.row_bytes;
    for (std::int64_t i = begin; i < end; i += kUnitElems) {
      const std::uint8_t* unit = from + i * element_bytes;
      std::uint8_t padded[4 * kUnitElems];
      if (x.k - i < kUnitElems) {  // the row ends inside this unit
        for (std::int64_t b = 0; b < 4 * kUnitElems; ++b) padded[b] = b < (x.k - i) * element_bytes ? unit[b] : std::uint8_t{0};
        unit = padded;
      }
      float lanes[kUnitElems];
      F sum = V::set_f32(0.0f);
      MLXN_UNROLL
      for (int j = 0; j < static_cast<int>(kUnitElems); j += V::kLanes) {
        F v = load_x<V>(unit, x.type, j);
        if (to_f16) v = V::round_f16(v);
        V::store_f32(lanes + j, v);
        sum = V::add(sum, v);
      }
      float* to = out + i / kUnitElems * kUnitX * rows + r;
      for (int j = 0; j < static_cast<int>(kUnitElems); ++j) to[j * rows] = lanes[j];
      to[kUnitElems * rows] = V::sum_lanes(sum);
    }
  }
}

/// To the nearest even; a NaN is kept, made quiet.
static MLXN_SIMD std::uint16_t round_bf16(float value) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

template <class V>
static void store(const float* totals, int count, DType type, std::uint8_t* y) {
  if (type == DType::f32) {
    for (int i = 0; i < count; ++i) __builtin_memcpy(y + 4 * i, totals + i, 4);
    return;
  }
  std::uint16_t halves[16];
  if (type == DType::f16) {
    for (int pass = 0; pass < kPasses<V>; ++pass) {
      V::store_f16(halves + pass * V::kLanes, V::load_f32(totals + pass * V::kLanes));
    }
  } else {
    for (int i = 0; i < 16; ++i) halves[i] = round_bf16(totals[i]);
  }
  for (int i = 0; i < count; ++i) __builtin_memcpy(y + 2 * i, halves + i, 2);
}

// ---- tables ----

template <class V, class T>
static void fill_tiles(MultiplyQuantised* tiles) {
  tiles[0] = &multiply_quantised<V, T, 1>;
  tiles[1] = &multiply_quantised<V, T, 2>;
  if constexpr (V::kMaxTile >= 4) tiles[2] = &multiply_quantised<V, T, 4>;
  if constexpr (V::kMaxTile >= 8) tiles[3] = &multiply_quantised<V, T, 8>;
}

template <class V, class T>
static void add_quantised(Kernels& to) {
  WeightKernels& w = to.weights[static_cast<int>(T::kType)];
  w.bias = kDotBias<V, T>;
  fill_tiles<V, T>(w.quantised);
  if constexpr (V::kAsksAhead) w.ahead = &multiply_quantised<V, T, 1, true>;
  if constexpr (V::kUnpackFirst && (T::kHalves || T::kValues != nullptr)) {
    w.unpack = &unpack<V, T>;
    fill_tiles<V, Unpacked<V, T::kHalves, T::kMinimum, kDotSigned<V, T>>>(w.codes);
  }
}

template <class V>
static void fill_quantised(Kernels& to) {
  add_quantised<V, Q4_0<V>>(to);
  add_quantised<V, Affine<V, DType::q4_1>>(to);
  add_quantised<V, Q5_0<V>>(to);
  add_quantised<V, Q5_1<V>>(to);
  add_quantised<V, Q8_0<V>>(to);
  add_quantised<V, Q2_K<V>>(to);
  add_quantised<V, Q3_K<V>>(to);
  add_quantised<V, Q4_K<V>>(to);
  add_quantised<V, Q5_K<V>>(to);
  add_quantised<V, Q6_K<V>>(to);
  add_quantised<V, IQ4_NL<V>>(to);
  add_quantised<V, IQ4_XS<V>>(to);
  add_quantised<V, MXFP4<V>>(to);
  add_quantised<V, Affine<V, DType::affine4_g64>>(to);
  add_quantised<V, Affine<V, DType::affine4_g128>>(to);
  add_quantised<V, Affine<V, DType::affine4_g32_bf16>>(to);
  add_quantised<V, Affine<V, DType::affine4_g64_bf16>>(to);
  add_quantised<V, Affine<V, DType::affine4_g128_bf16>>(to);
  to.quantise = to.quantise_for_codes = &quantise<V>;
  to.stretch = kStretch<V>;
  to.unpack_rows = 64;
  to.quantised_tile = V::kMaxTile;
}

template <class V, class T>
static void add_exact(Kernels& to) {
  WeightKernels& w = to.weights[static_cast<int>(T::kType)];
  w.exact[0] = &multiply_exact<V, T, 1>;
  w.exact[1] = &multiply_exact<V, T, 2>;
  if constexpr (V::kExactTile >= 4) w.exact[2] = &multiply_exact<V, T, 4>;
  w.decode = &decode<V, T>;
  w.minimum = T::kMinimum;
}
template <class V, class T>
static void add_dense(Kernels& to) {
  WeightKernels& w = to.weights[static_cast<int>(T::kType)];
  w.exact[0] = &multiply_dense<V, T, 1>;
  w.exact[1] = &multiply_dense<V, T, 2>;
  if constexpr (V::kExactTile >= 4) w.exact[2] = &multiply_dense<V, T, 4>;
  w.decode = &decode_dense<V, T>;
}

/// The affine types but q4_1.
inline constexpr int kFirstAffine = static_cast<int>(DType::affine4_g64);
template <class V, int... kIndex>
static void add_affine_exact(Kernels& to, std::integer_sequence<int, kIndex...>) {
  (add_exact<V, Affine<V, static_cast<DType>(kFirstAffine + kIndex)>>(to), ...);
}

template <class V, bool kMinimum>
static void add_slab(Kernels& to) {
  to.slab[kMinimum][0] = &multiply_slab<V, kMinimum, 1>;
  to.slab[kMinimum][1] = &multiply_slab<V, kMinimum, 2>;
  to.slab[kMinimum][2] = &multiply_slab<V, kMinimum, 4>;
  to.slab[kMinimum][3] = &multiply_slab<V, kMinimum, 8>;
}

template <class V>
static void fill_exact(Kernels& to) {
  add_dense<V, DenseF32<V>>(to);
  add_dense<V, DenseF16<V>>(to);
  add_dense<V, DenseBF16<V>>(to);
  add_exact<V, Q4_0<V>>(to);
  add_exact<V, Affine<V, DType::q4_1>>(to);
  add_exact<V, Q5_0<V>>(to);
  add_exact<V, Q5_1<V>>(to);
  add_exact<V, Q8_0<V>>(to);
  add_exact<V, Q2_K<V>>(to);
  add_exact<V, Q3_K<V>>(to);
  add_exact<V, Q4_K<V>>(to);
  add_exact<V, Q5_K<V>>(to);
  add_exact<V, Q6_K<V>>(to);
  add_exact<V, IQ4_NL<V>>(to);
  add_exact<V, IQ4_XS<V>>(to);
  add_exact<V, MXFP4<V>>(to);
  add_affine_exact<V>(to, std::make_integer_sequence<int, kDTypeCount - kFirstAffine>());
  add_slab<V, false>(to);
  add_slab<V, true>(to);
  to.copy = &copy_x<V>;
  to.store = &store<V>;
  to.exact_tile = V::kExactTile;
  to.slab_tile = 8;
}

}  // namespace mlxn::rows16
