// x of Hopper's few-row kernel: from memory to operand B of byte matrix instructions (VectorShape), with the
// norm's weights on the way.
#pragma once

#include <cstdint>

#include "cuda_blocks/ptx.cuh"
#include "ops/matmul/hopper_vector_shape.cuh"

namespace mlxn::sm90 {

/// Eight values of x as f32.
struct Eight {
  float v[8];
};
/// f16, or bf16 if `is_bf16`.
struct X16 {
  static __device__ __forceinline__ float2 pair(std::uint32_t word, bool is_bf16) {
    const float2 half = f16x2_to_f32(word);
    return make_float2(is_bf16 ? __uint_as_float(word << 16) : half.x,
                       is_bf16 ? __uint_as_float(word & 0xffff0000u) : half.y);
  }
  static __device__ __forceinline__ Eight values(const uint4& raw, bool is_bf16) {
    const float2 a = pair(raw.x, is_bf16), b = pair(raw.y, is_bf16), c = pair(raw.z, is_bf16),
                 d = pair(raw.w, is_bf16);
    return {{a.x, a.y, b.x, b.y, c.x, c.y, d.x, d.y}};
  }
};

/// Blocks of 32 values as scales, integers and sums.
template <class Shape>
struct VectorX {
  using F = typename Shape::Format;
  static constexpr int kM = Shape::kRows, kSlots = Shape::kSlots, kTileRows = Shape::kTileRows,
                       kParts = F::kParts;

  /// Of a block and a row of x, eight bytes: the scale and what the codes' centre or the addend needs.
  ///   kParts 1   f32 scale, then i32 -kCentre * sum or f32 scale * sum
  ///   kParts 2   i32 sum of the first 16 k, scale's upper half in its low 9 bits; i32 sum of the others
  static __device__ __forceinline__ void store_meta(std::uint8_t* to, float scale, std::int32_t sum0,
                                                    std::int32_t sum1) {
    int2 meta;
    if constexpr (kParts == 2) {
      meta = make_int2(
          static_cast<std::int32_t>(static_cast<std::uint32_t>(sum0) << 9 | __float_as_uint(scale) >> 22),
          sum1);
    } else {
      const std::int32_t sum = sum0 + sum1;
      meta = make_int2(__float_as_int(scale),
                       F::kAdds ? __float_as_int(__int2float_rn(sum) * scale) : -F::kCentre * sum);
    }
    *reinterpret_cast<int2*>(to) = meta;
  }

  /// Eight values of four lanes, multiples of the scale below 32576, as bytes where the instruction wants
  /// them, and their sum.
  struct Packed {
    std::uint32_t block, row, half, step;
  };
  // 1.5 * 2^23 plus a value is its nearest integer in the low bits. With 128 more, byte 1 is h and byte 0
  // is l + 128.
  static constexpr float kRound = 12582912.0f + 128;
  static __device__ __forceinline__ void pack(const float (&scaled)[8], bool is_valid, const Packed& place,
                                              float scale, std::uint8_t* x_shared,
                                              std::uint8_t* meta_shared) {
    const std::uint32_t block = place.block, row = place.row, half = place.half;
    std::uint32_t q[8], sum = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      q[i] = __float_as_uint(scaled[i] + kRound);
      sum += q[i];
    }
    sum -= 8u * __float_as_uint(kRound);
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    const std::uint32_t other_sum = __shfl_xor_sync(0xffffffffu, sum, 2);
    const std::uint32_t slot = block % kSlots, group = block % 4 / kSlots, tile = row / kTileRows;
    const std::uint32_t unit = block / 4, pair = Shape::pair_of(unit), in_pair = Shape::in_pair(unit) * 8;
    const std::uint32_t column = (slot * kTileRows + row % kTileRows) * 2;
    std::uint8_t* out = x_shared + Shape::x_place(pair, group, tile) +
                        (column * 32 + half * 16) * Shape::kTogether + in_pair + place.step * 4;
    // The lane of k 0..7 of a k16 step writes the words of t = 0 and 1, that of k 8..15 those of t = 2
    // and 3.
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const std::uint32_t low = permute_bytes(q[2 * i], q[2 * i + 1], 0x5410);
      const std::uint32_t high = permute_bytes(q[2 * i + 4], q[2 * i + 5], 0x5410);
      const std::uint32_t other = __shfl_xor_sync(0xffffffffu, half ? low : high, 1);
      const std::uint32_t first = half ? other : low, second = half ? high : other;  // k 2t 2t+1, 2t+8 2t+9
      if (is_valid) {
        *reinterpret_cast<std::uint32_t*>(out + i * 8 * Shape::kTogether) =
            permute_bytes(first, second, F::kNeighbours ? 0x7531 : 0x7351);
        *reinterpret_cast<std::uint32_t*>(out + (i * 8 + 32) * Shape::kTogether) =
            permute_bytes(first, second, F::kNeighbours ? 0x6420 : 0x6240) ^ 0x80808080u;
      }
    }
    if (is_valid && (threadIdx.x & 3) == 0)
      store_meta(meta_shared + Shape::meta_place(pair, block % 4, row) + in_pair, scale,
                 static_cast<std::int32_t>(sum), static_cast<std::int32_t>(other_sum));
  }

  /// What the 32 values of a block, eight in each of four lanes, are multiples of.
  struct Range {
    std::uint32_t exponent;  // of the scale; 255: values that are not finite
    float scale, inverse;
    float largest;  // 0 where nothing can be kept of what the integers leave
    float rest;     // sum of magnitudes of the lane's own values without the largest
  };
  /// Lanes, as bits, whose block has an outlier: in none of its four lanes the others come near the largest.
  static __device__ __forceinline__ std::uint32_t outliers(const Range& range) {
    std::uint32_t calm = __ballot_sync(0xffffffffu, !(range.rest < 0.5f * range.largest));  // NaN is calm
    calm |= calm >> 2 & 0x33333333u;
    calm |= calm >> 1 & 0x11111111u;
    return ~(calm & 0x11111111u) & 0x11111111u;
  }
  static __device__ __forceinline__ Range range_of(const Eight& x) {
    float mine = 0, sum = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) mine = larger_magnitude(mine, x.v[i]), sum += fabsf(x.v[i]);
    float largest = larger_magnitude(mine, __shfl_xor_sync(0xffffffffu, mine, 1));
    largest = larger_magnitude(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
    // e is the exponent field, one more where the mantissa is nearly full: |x| * 2^(141 - e) < 32576, so that
    // h fits a byte.
    const std::uint32_t bits = __float_as_uint(largest), e = min(max((bits + 0x18000u) >> 23, 16u), 255u);
    Range range;
    range.exponent = e;
    range.inverse = __uint_as_float((268u - e) << 23);
    range.scale = bits < 0x7f800000u ? __uint_as_float((e - 14u) << 23) : __uint_as_float(0x7fc00000u);
    range.rest = sum - (mine == largest ? largest : 0.0f);
    range.largest = e > 31 && e < 254 ? largest : 0.0f;
    return range;
  }

  /// Four lanes hold the 32 values of block `block`, eight consecutive ones each; all lanes of the warp come
  /// here. Lanes whose block has an outlier, as bits; `flags` says it of groups of blocks, which 16 lanes
  /// hold.
  static __device__ __forceinline__ std::uint32_t stage(const Eight& x, bool is_valid, std::uint32_t block,
                                                        std::uint32_t row, std::uint8_t* x_shared,
                                                        std::uint8_t* meta_shared, std::uint8_t* flags) {
    const std::uint32_t lane = threadIdx.x & 31;
    const Range range = range_of(x);
    float scaled[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) scaled[i] = x.v[i] * range.inverse;
    pack(scaled, is_valid, {block, row, lane & 1, lane >> 1 & 1}, range.scale, x_shared, meta_shared);
    const std::uint32_t found = outliers(range);
    if (found != 0) {  // the same in all lanes
      if (is_valid && (lane & 15) == 0 && (found >> (lane & 16) & 0xffffu) != 0) flags[block / kSlots] = 1;
    }
    return found;
  }

  /// What the integers of a group of blocks with an outlier leave, likewise.
  static __device__ __forceinline__ void stage_low(const Eight& x, bool is_valid, std::uint32_t block,
                                                   std::uint32_t row, std::uint8_t* x_low,
                                                   std::uint8_t* meta_low) {
    const std::uint32_t lane = threadIdx.x & 31;
    const Range range = range_of(x);
    const bool has_outlier = (outliers(range) >> (lane & 28) & 1) != 0;
    float rest[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float scaled = x.v[i] * range.inverse, rounded = (scaled + kRound) - kRound;
      rest[i] = has_outlier ? (scaled - rounded) * 32768.0f : 0.0f;
    }
    pack(rest, is_valid, {block, row, lane & 1, lane >> 1 & 1}, range.scale * (1.0f / 32768), x_low,
         meta_low);
  }
};

/// Items are eight values of x: item i is of row (i >> 2) % kM, from k (i >> 2) / kM * 32 + i % 4 * 8 of the
/// block's part on. So what lies kItemThreads apart is of one row, kItemStep apart.
constexpr int kItemThreads = kWarps * 32;
template <class Shape>
constexpr int kItemStep = kItemThreads / Shape::kRows * 8;

/// A thread's items from number `base`, a multiple of kItemThreads, on: where the first begins, in elements
/// from x's first, and how many elements of the part there are from there.
template <class Shape>
struct Items {
  std::int64_t at;
  std::uint32_t k;
  std::int32_t left;
  __device__ __forceinline__ Items(const HopperVectorArgs& args, const Part& part, std::uint32_t item,
                                   std::uint32_t base) {
    constexpr int kM = Shape::kRows;
    const std::uint32_t row = (item >> 2) % kM;
    k = part.first_k + (item >> 2) / kM * 32 + (item & 3) * 8 + base / kM * 8;
    at = row * args.x_stride + k;
    left = row < args.m ? static_cast<std::int32_t>(part.end_k) - static_cast<std::int32_t>(k) : 0;
  }
};

/// Where eight values of f32 are two pieces of 16 bytes, a warp's loads would touch every 32 bytes twice. So
/// lane i takes of its warp's items those that lane i % 16 and lane i % 16 + 16 want, a half of each; the
/// lanes change halves later.
struct Halves {
  float4 a, b;
};
/// From the half of the first item of the lane on, `from`, of which `left` elements of the row are left.
template <class Shape>
__device__ __forceinline__ Halves load_halves(const float* from, std::int32_t left, int i) {
  constexpr int kOther = 16 / Shape::kRows * 8;
  const int at = i * kItemStep<Shape>;
  const float4 zero = make_float4(0, 0, 0, 0);
  return {at < left ? __ldcg(reinterpret_cast<const float4*>(from + at)) : zero,
          at + kOther < left ? __ldcg(reinterpret_cast<const float4*>(from + at + kOther)) : zero};
}
/// The lane's own item.
__device__ __forceinline__ Eight whole(const Halves& halves) {
  const bool upper = (threadIdx.x & 16) != 0;
  const float4 &a = halves.a, &b = halves.b;
  const float away[4] = {upper ? a.x : b.x, upper ? a.y : b.y, upper ? a.z : b.z, upper ? a.w : b.w};
  const float kept[4] = {upper ? b.x : a.x, upper ? b.y : a.y, upper ? b.z : a.z, upper ? b.w : a.w};
  Eight out;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float got = __shfl_xor_sync(0xffffffffu, away[i], 16);
    out.v[i] = upper ? got : kept[i];
    out.v[i + 4] = upper ? kept[i] : got;
  }
  return out;
}

/// Products of two runs.
__device__ __forceinline__ Halves times(const Halves& x, const Halves& w) {
  return {make_float4(x.a.x * w.a.x, x.a.y * w.a.y, x.a.z * w.a.z, x.a.w * w.a.w),
          make_float4(x.b.x * w.b.x, x.b.y * w.b.y, x.b.z * w.b.z, x.b.w * w.b.w)};
}

/// How x lies in memory, and whether it is normed: of the norm, x is multiplied by the weights here; what is
/// left, one over the root mean square, is a factor of the sums, so that only their end waits for it.
enum class Kind { f32, f16, normed };
__device__ __forceinline__ Kind kind_of(const HopperVectorArgs& args) {
  if (args.norm.ptr != nullptr) return Kind::normed;
  return args.x_type == quant::kElementF32 ? Kind::f32 : Kind::f16;
}

/// kCount items of each thread, kItemThreads apart, from its item number `base` + thread on; those behind
/// `items` are zeros. All loads are under way before the first is used: one trip to L2, not one per load. All
/// lanes of a warp together. squares: of what is normed, grows by the squares of all that the lane loaded,
/// which is of one row.
template <class Shape, Kind kKind, int kCount>
__device__ __forceinline__ void load_items(const HopperVectorArgs& args, const Part& part,
                                           std::uint32_t thread, std::uint32_t base, std::uint32_t items,
                                           Eight (&x)[kCount], float& squares) {
  if constexpr (kKind == Kind::f16) {
    const Items<Shape> mine(args, part, thread, base);
    const std::uint16_t* from = static_cast<const std::uint16_t*>(args.x.ptr) + mine.at;
    uint4 raw[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i)
      raw[i] = i * kItemStep<Shape> < mine.left
                   ? __ldcg(reinterpret_cast<const uint4*>(from + i * kItemStep<Shape>))
                   : make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int i = 0; i < kCount; ++i) x[i] = X16::values(raw[i], args.x_type == quant::kElementBf16);
  } else {
    constexpr bool kIsNormed = kKind == Kind::normed;
    const Items<Shape> mine(args, part, thread & ~16u, base);
    const std::uint32_t half = thread / 16 % 2 * 4;
    Halves raw[kCount], weight[kIsNormed ? kCount : 1];
#pragma unroll
    for (int i = 0; i < kCount; ++i)
      raw[i] = load_halves<Shape>(static_cast<const float*>(args.x.ptr) + mine.at + half, mine.left, i);
    if constexpr (kIsNormed) {
#pragma unroll
      for (int i = 0; i < kCount; ++i)
        weight[i] = load_halves<Shape>(args.norm.ptr + mine.k + half, mine.left, i);
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      x[i] = Eight{};
      if (base + i * kItemThreads >= items) continue;  // the same in all threads
      if constexpr (kIsNormed) {
        const float4 &a = raw[i].a, &b = raw[i].b;
        squares = fmaf(a.x, a.x, fmaf(a.y, a.y, fmaf(a.z, a.z, fmaf(a.w, a.w, squares))));
        squares = fmaf(b.x, b.x, fmaf(b.y, b.y, fmaf(b.z, b.z, fmaf(b.w, b.w, squares))));
        raw[i] = times(raw[i], weight[i]);
      }
      x[i] = whole(raw[i]);
    }
  }
}
template <class Shape, int kCount>
__device__ __forceinline__ void load_items(const HopperVectorArgs& args, Kind kind, const Part& part,
                                           std::uint32_t thread, std::uint32_t base, std::uint32_t items,
                                           Eight (&x)[kCount], float& squares) {
  if (kind == Kind::normed)
    load_items<Shape, Kind::normed>(args, part, thread, base, items, x, squares);
  else if (kind == Kind::f32)
    load_items<Shape, Kind::f32>(args, part, thread, base, items, x, squares);
  else
    load_items<Shape, Kind::f16>(args, part, thread, base, items, x, squares);
}

/// A warp's part of its rows' sums of squares, for vector_squares. sums: [warp][row].
template <int kM>
__device__ __forceinline__ void store_squares(float squares, std::uint32_t thread, float* sums) {
#pragma unroll
  for (int bit = 1; bit < 32; bit *= 2) {
    if (bit < 4 || bit >= 4 * kM) squares += __shfl_xor_sync(0xffffffffu, squares, bit);
  }
  if (thread % 32 / 4 < kM && thread % 4 == 0) sums[thread / 32 * kM + thread % 32 / 4] = squares;
}
/// The block's sum of squares of a row.
template <class Shape>
__device__ __forceinline__ float vector_squares(const float* sums, std::uint32_t row) {
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) sum += sums[warp * Shape::kRows + row];
  return sum;
}

/// The operand form of x. Loops are not unrolled where they need not be: all of the kernel has to stay in the
/// instruction cache beside the kernels that run between two of its launches.
template <class Shape>
__device__ __forceinline__ void vector_stage_x(const HopperVectorArgs& args, const Part& part,
                                               std::uint32_t thread, std::uint8_t* memory) {
  using X = VectorX<Shape>;
  constexpr std::uint32_t kM = Shape::kRows, kThreads = kItemThreads;
  constexpr int kBatch = 4, kAtOnce = 1;  // items of a thread: loaded, and staged so that latencies overlap
  const std::uint32_t items = part.units * 4 * kM * 4;  // of eight values
  std::uint8_t *x_shared = memory + args.at.x, *meta_shared = memory + args.at.meta,
               *flags = memory + args.at.flags;
  const Kind kind = kind_of(args);
  std::uint32_t votes = 0;
  float squares = 0;
#pragma unroll 1
  for (std::uint32_t base = 0; base < items; base += kThreads * kBatch) {
    Eight x[kBatch];
    load_items<Shape>(args, kind, part, thread, base, items, x, squares);
    const std::uint32_t end = min(items, base + kThreads * kBatch);
#pragma unroll 1
    for (std::uint32_t first = base; first < end; first += kThreads * kAtOnce) {
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const std::uint32_t item = first + i * kThreads + thread, task = item >> 2;
        votes |= X::stage(x[i], item < items, task / kM, task % kM, x_shared, meta_shared, flags);
      }
#pragma unroll
      for (int i = 0; i + kAtOnce < kBatch; ++i) x[i] = x[i + kAtOnce];
    }
  }
  if (kind == Kind::normed)
    store_squares<kM>(squares, thread, reinterpret_cast<float*>(memory + args.at.sums));
  if (votes == 0) return;  // the same in all lanes of the warp, which had all its groups itself
  if (thread % 32 == 0) flags[part.units * 4 + thread / 32] = 1;
  __syncwarp();
#pragma unroll 1
  for (std::uint32_t item = thread; item - thread % 32 < items; item += kThreads) {
    const std::uint32_t task = item >> 2, block = task / kM;
    const bool is_valid = item < items && flags[block / Shape::kSlots] != 0;
    if (__ballot_sync(0xffffffffu, is_valid) == 0) continue;
    Eight x[1];
    load_items<Shape>(args, kind, part, thread, item - thread, items, x, squares);
    X::stage_low(x[0], is_valid, block, task % kM, memory + args.at.low,
                 memory + args.at.low + (args.at.meta - args.at.x));
  }
}

}  // namespace mlxn::sm90
