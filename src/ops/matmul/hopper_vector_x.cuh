// x of Hopper's few-row kernel: from memory to operand B of byte matrix instructions (VectorShape), with the
// norm's weights on the way.
#pragma once

#include <cstdint>

#include "cuda_blocks/ptx.cuh"
#include "ops/matmul/hopper_vector_shape.cuh"

namespace mlxn::sm90 {

/// Eight values of x as f32, two pieces of four k, of a block of 32 that four lanes have together. The first
/// piece is for the operand words that the lane stores, the other for those of lane ^ XLane::kOpposite, whose
/// other piece is what is missing in this lane's words.
struct Eight {
  float v[8];
};
/// Which lanes have what. A warp has eight blocks at a time, the first four in lanes 0, 1, 6 and 7 of every
/// eight, the others in lanes 2 to 5; half of a block's lanes have of k 0..7 of its two steps, the others of
/// k 8..15.
///
/// Of f16, a lane loads eight k of a step. Of f32 that would be two loads that touch every 32 bytes twice,
/// and two loads of its pieces would touch every line twice (docs/tried.md). So a load is of the first four
/// blocks, or of the last four, piece after piece. A lane has the same piece of a block of either then; it
/// keeps that of its own, and gets the other step's from lane ^ kTwin.
struct XLane {
  static __device__ __forceinline__ bool has_first(std::uint32_t lane) {
    return ((lane ^ lane >> 1) & 2) == 0;
  }
  static __device__ __forceinline__ std::uint32_t half(std::uint32_t lane) { return lane / 2 % 2; }
  /// Of the words: which step, and whether of t 2 and 3 instead of 0 and 1.
  static __device__ __forceinline__ std::uint32_t step(std::uint32_t lane, bool is_f16) {
    return is_f16 ? lane % 2 : lane / 4 % 2;
  }
  static __device__ __forceinline__ std::uint32_t upper(std::uint32_t lane, bool is_f16) {
    return is_f16 ? half(lane) : lane % 2;
  }
  /// The other words of the step are of lane ^ next().
  static __device__ __forceinline__ int next(bool is_f16) { return is_f16 ? kOpposite : kOther; }
  /// Lanes of the block, as bits, and of the 16 lanes that have a group of blocks.
  static __device__ __forceinline__ std::uint32_t group(std::uint32_t lane) {
    return has_first(lane) ? 0xc3c3c3c3u : 0x3c3c3c3cu;
  }
  static __device__ __forceinline__ std::uint32_t block(std::uint32_t lane) {
    return group(lane) & 0xffu << (lane & 24);
  }
  static constexpr int kOpposite = 6, kOther = 1;  // with both, a block's lanes
  static constexpr int kTwin = 4;
};

/// f16, or bf16 if `is_bf16`.
struct X16 {
  static __device__ __forceinline__ float2 pair(std::uint32_t word, bool is_bf16) {
    const float2 half = f16x2_to_f32(word);
    return make_float2(is_bf16 ? __uint_as_float(word << 16) : half.x,
                       is_bf16 ? __uint_as_float(word & 0xffff0000u) : half.y);
  }
  static __device__ __forceinline__ Eight values(const uint4& raw, bool is_bf16) {
    const bool is_upper = XLane::half(threadIdx.x) != 0;  // of the eight, the second piece is the first one
    const float2 a = pair(is_upper ? raw.z : raw.x, is_bf16), b = pair(is_upper ? raw.w : raw.y, is_bf16),
                 c = pair(is_upper ? raw.x : raw.z, is_bf16), d = pair(is_upper ? raw.y : raw.w, is_bf16);
    return {{a.x, a.y, b.x, b.y, c.x, c.y, d.x, d.y}};
  }
};

/// How x lies in memory, and whether it is normed: of the norm, x is multiplied by the weights here; what is
/// left, one over the root mean square, is a factor of the sums, so that only their end waits for it.
enum class Kind { f32, f16, normed };
__device__ __forceinline__ Kind kind_of(const HopperVectorArgs& args) {
  if (args.norm.ptr != nullptr) return Kind::normed;
  return args.x_type == quant::kElementF32 ? Kind::f32 : Kind::f16;
}

/// Items are eight values of x, four of a block of a row: blocks go by rows first, then along the part's k,
/// eight to a warp. Those kItemThreads apart are a thread's; they are of one row, kItemStep apart.
constexpr int kItemThreads = kWarps * 32;
template <class Shape>
constexpr int kItemStep = kItemThreads / Shape::kRows * 8;
/// And kUnits units, which are whole rounds of pairs: from item to item, places are so many bytes apart.
template <class Shape>
struct ItemSteps {
  static constexpr int kUnits = kItemThreads / Shape::kRows / 16, kPairs = kUnits / Shape::kTogether;
  static_assert(kUnits % (Shape::kTeamWarps * Shape::kTogether) == 0);
  static constexpr int kX = kPairs * Shape::kTogether * 256 * Shape::kRows,
                       kMeta = kPairs * Shape::kTogether * 32 * Shape::kRows,
                       kFlags = kUnits * Shape::kGroups;
};

/// What a thread wants to know of its items that does not depend on x: made before x is there.
template <class Shape>
struct Items {
  static constexpr int kOther = 4 / Shape::kRows * 32;  // of f32, from one load to the other
  std::int64_t at;                                      // of the first load, in elements from x's first
  std::uint32_t k;
  std::int32_t left;  // elements of the part from there
  // Of the first:
  std::uint8_t* words[2][2];  // of operand B: high and low bytes of the lane's two t
  std::uint8_t *meta, *flag;
  bool has_meta, is_first;              // whether the lane stores that; its words are of the first step
  int next;                             // XLane::next
  std::uint32_t high_bytes, low_bytes;  // of the lane's own pair of words and the other lane's
  __device__ __forceinline__ Items(const HopperVectorArgs& args, const Part& part, std::uint32_t thread,
                                   std::uint8_t* memory) {
    using F = typename Shape::Format;
    constexpr std::uint32_t kM = Shape::kRows, kSlots = Shape::kSlots, kTileRows = Shape::kTileRows;
    const bool is_f16 = kind_of(args) == Kind::f16;
    const std::uint32_t first = thread / 32 * 8 + thread / 8 % 4, row = first % kM;
    const std::uint32_t block = (first + (XLane::has_first(thread) ? 0 : 4)) / kM, unit = block / 4;
    const std::uint32_t step = XLane::step(thread, is_f16), upper = XLane::upper(thread, is_f16);
    k = part.first_k +
        (is_f16 ? block * 32 + step * 16 + XLane::half(thread) * 8 : first / kM * 32 + thread % 8 * 4);
    at = row * args.x_stride + k;
    left = row < args.m ? static_cast<std::int32_t>(part.end_k) - static_cast<std::int32_t>(k) : 0;
    const std::uint32_t in_pair = Shape::in_pair(unit) * 8, pair = Shape::pair_of(unit);
    std::uint8_t* x =
        memory + args.at.x + Shape::x_place(pair, block % 4 / kSlots, row / kTileRows) + in_pair + step * 4;
    const std::uint32_t columns = block % kSlots * kTileRows + row % kTileRows;
#pragma unroll
    for (int low = 0; low < 2; ++low) {
#pragma unroll
      for (int i = 0; i < 2; ++i) words[low][i] = x + Shape::place_of(columns, low * 4 + upper * 2 + i);
    }
    meta = memory + args.at.meta + Shape::meta_place(pair, block % 4, row) + in_pair;
    has_meta = upper == 0 && (F::kParts == 2 || step == 0);
    if (F::kParts == 2) meta += step * 4;
    next = XLane::next(is_f16), is_first = step == 0;
    flag = memory + args.at.flags + block / kSlots;
    high_bytes = F::kNeighbours ? 0x7531u : 0x7351u;
    if (thread & 2) high_bytes ^= 0x4444u;
    low_bytes = high_bytes - 0x1111u;
  }
  /// The others' places are those of the first, and these many bytes more.
  __device__ __forceinline__ void advance(std::uint32_t x_bytes, std::uint32_t meta_bytes,
                                          std::uint32_t flag_bytes) {
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i / 2][i % 2] += x_bytes;
    meta += meta_bytes, flag += flag_bytes;
  }
  __device__ __forceinline__ void advance(std::uint32_t items) {
    using Steps = ItemSteps<Shape>;
    advance(items * Steps::kX, items * Steps::kMeta, items * Steps::kFlags);
  }
};

/// Blocks of 32 values as scales, integers and sums.
template <class Shape>
struct VectorX {
  using F = typename Shape::Format;
  static constexpr int kParts = F::kParts;

  /// Of a block and a row of x, eight bytes: the scale and what the codes' centre or the addend needs.
  ///   kParts 1   f32 scale, then i32 -kCentre * sum or f32 scale * sum
  ///   kParts 2   i32 sum of the first 16 k, scale's upper half in its low 9 bits; i32 sum of the others
  /// sum: of the lane's step of 16 k, which stores its part of either.
  static __device__ __forceinline__ void store_meta(const Items<Shape>& place, int item, float scale,
                                                    std::int32_t sum) {
    std::uint8_t* to = place.meta + item * ItemSteps<Shape>::kMeta;
    if constexpr (kParts == 2) {
      sum += __shfl_xor_sync(0xffffffffu, sum, place.next);
      const std::uint32_t first = static_cast<std::uint32_t>(sum) << 9 | __float_as_uint(scale) >> 22;
      if (place.has_meta)
        *reinterpret_cast<std::uint32_t*>(to) = place.is_first ? first : static_cast<std::uint32_t>(sum);
    } else {
      sum += __shfl_xor_sync(0xffffffffu, sum, XLane::kOther);
      sum += __shfl_xor_sync(0xffffffffu, sum, XLane::kOpposite);
      const int2 meta = make_int2(__float_as_int(scale),
                                  F::kAdds ? __float_as_int(__int2float_rn(sum) * scale) : -F::kCentre * sum);
      if (place.has_meta) *reinterpret_cast<int2*>(to) = meta;
    }
  }

  // 1.5 * 2^23 plus a value is its nearest integer in the low bits. With 128 more, byte 1 is h and byte 0
  // is l + 128.
  static constexpr float kRound = 12582912.0f + 128;
  /// Multiples of the scale below 32576, as bytes where the instruction wants them, and their sum. All lanes
  /// of a warp.
  static __device__ __forceinline__ void pack(const float (&scaled)[8], const Items<Shape>& place, int item,
                                              float scale) {
    using Steps = ItemSteps<Shape>;
    std::uint32_t q[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) q[i] = __float_as_uint(scaled[i] + kRound);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const std::uint32_t mine = permute_bytes(q[2 * i], q[2 * i + 1], 0x5410);
      const std::uint32_t away = permute_bytes(q[2 * i + 4], q[2 * i + 5], 0x5410);
      const std::uint32_t other = __shfl_xor_sync(0xffffffffu, away, XLane::kOpposite);
      // k 2t, 2t + 1 and 2t + 8, 2t + 9.
      *reinterpret_cast<std::uint32_t*>(place.words[0][i] + item * Steps::kX) =
          permute_bytes(mine, other, place.high_bytes);
      *reinterpret_cast<std::uint32_t*>(place.words[1][i] + item * Steps::kX) =
          permute_bytes(mine, other, place.low_bytes) ^ 0x80808080u;
    }
    std::uint32_t sum = q[0] + q[1] + q[2] + q[3] - 4u * __float_as_uint(kRound);
    sum += __shfl_xor_sync(0xffffffffu, q[4] + q[5] + q[6] + q[7] - 4u * __float_as_uint(kRound),
                           XLane::kOpposite);
    store_meta(place, item, scale, static_cast<std::int32_t>(sum));
  }

  /// What the 32 values of a block, eight in each of four lanes, are multiples of.
  struct Range {
    float scale, inverse;
    float largest;  // 0 where nothing can be kept of what the integers leave
    float rest;     // sum of magnitudes of the lane's own values without its own largest
  };
  /// Whether the lane's own values but one come near the largest of the block; NaN does.
  static __device__ __forceinline__ bool is_calm(const Range& range) {
    return !(range.rest < 0.5f * range.largest);
  }
  static __device__ __forceinline__ Range range_of(const Eight& x) {
    float mine = x.v[0], sum = fabsf(mine);
#pragma unroll
    for (int i = 1; i < 8; ++i) mine = larger_magnitude(mine, x.v[i]), sum += fabsf(x.v[i]);
    float largest = larger_magnitude(mine, __shfl_xor_sync(0xffffffffu, mine, XLane::kOther));
    largest = larger_magnitude(largest, __shfl_xor_sync(0xffffffffu, largest, XLane::kOpposite));
    // e, at its place, is the exponent field, one more where the mantissa is nearly full:
    // |x| * 2^(141 - e) < 32576, so that h fits a byte.
    constexpr std::uint32_t kOne = 1u << 23;
    const std::uint32_t bits = __float_as_uint(largest), e = max((bits + 0x18000u) & 0x7f800000u, 16 * kOne);
    Range range;
    range.inverse = __uint_as_float(268 * kOne - e);
    range.scale = bits < 0x7f800000u ? __uint_as_float(e - 14 * kOne) * F::kOfX : __uint_as_float(0x7fc00000u);
    range.rest = sum - mine;
    range.largest = e - 32 * kOne < 222 * kOne ? largest : 0.0f;
    return range;
  }

  /// The thread's `item`-th from `place` on, and, `low` bytes on, what the integers of groups of blocks with
  /// an outlier leave. Whether a block of the warp has one; flags say it of groups of blocks, which 16 lanes
  /// have. All lanes of a warp; of rows and k that are not there x is zero, and has its place.
  static __device__ __forceinline__ bool stage(const Eight& x, const Items<Shape>& place, int item,
                                               std::uint32_t low) {
    const Range range = range_of(x);
    float scaled[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) scaled[i] = x.v[i] * range.inverse;
    pack(scaled, place, item, range.scale);
    const std::uint32_t calm = __ballot_sync(0xffffffffu, is_calm(range));
    if (calm == 0xffffffffu) return false;  // the same in all lanes
    // Outliers: one value in each of the block's four lanes at most, but for one lane, where there may be more.
    const std::uint32_t lane = threadIdx.x & 31, of_block = calm & XLane::block(lane);
    const bool has_outlier = (of_block & (of_block - 1)) == 0;
    const std::uint32_t found = __ballot_sync(0xffffffffu, has_outlier);
    if (found == 0) return false;
    if ((lane & ~2u) == 0 && (found & XLane::group(lane)) != 0)
      place.flag[item * ItemSteps<Shape>::kFlags] = 1;
    const float factor = has_outlier ? 32768.0f : 0.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) scaled[i] = (scaled[i] - ((scaled[i] + kRound) - kRound)) * factor;
    Items<Shape> low_place = place;
    low_place.advance(low, low, 0);
    pack(scaled, low_place, item, range.scale * (1.0f / 32768));
    return true;
  }
};

/// What a thread loads of f32 for an item; zeros behind the `left` elements of the row.
template <class Shape>
struct Pieces {
  float4 first, other;
  __device__ __forceinline__ void load(const float* from, std::int32_t left, int i) {
    const int at = i * kItemStep<Shape>;
    constexpr int kOther = Items<Shape>::kOther;
    const float4 zero = make_float4(0, 0, 0, 0);
    first = at < left ? __ldcg(reinterpret_cast<const float4*>(from + at)) : zero;
    other = at + kOther < left ? __ldcg(reinterpret_cast<const float4*>(from + at + kOther)) : zero;
  }
  /// Both pieces of the lane's own block. All lanes of a warp.
  __device__ __forceinline__ Eight own() const {
    const bool has_first = XLane::has_first(threadIdx.x);
    const float a[4] = {first.x, first.y, first.z, first.w}, b[4] = {other.x, other.y, other.z, other.w};
    Eight out;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      out.v[i] = has_first ? a[i] : b[i];
      out.v[i + 4] = __shfl_xor_sync(0xffffffffu, has_first ? b[i] : a[i], XLane::kTwin);
    }
    return out;
  }
};
__device__ __forceinline__ float squared(const float4& a, float sum) {
  return fmaf(a.x, a.x, fmaf(a.y, a.y, fmaf(a.z, a.z, fmaf(a.w, a.w, sum))));
}
__device__ __forceinline__ float4 times(const float4& a, const float4& b) {
  return {a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w};
}

/// Items of a thread whose loads are under way at a time. With a norm's weights beside them, fewer fit into
/// registers; k is small then.
constexpr int kMostBatch = 4;
__device__ constexpr int batch_of(Kind kind) { return kind == Kind::normed ? 2 : kMostBatch; }

/// batch_of items of each thread, from k `base` of its row's on; behind the part's end they are zeros. The
/// warp has `count`, and those behind stay as they are. All loads are under way before the first is used: one
/// trip to L2, not one per load. squares: of what is normed, grows by the squares of all that the lane
/// loaded, which is of one row.
template <class Shape, Kind kKind>
__device__ __forceinline__ void load_items(const HopperVectorArgs& args, const Items<Shape>& mine,
                                           std::uint32_t base, int count, Eight (&x)[kMostBatch],
                                           float& squares) {
  constexpr int kCount = batch_of(kKind);
  const std::int32_t left = mine.left - static_cast<std::int32_t>(base);
  if constexpr (kKind == Kind::f16) {
    const std::uint16_t* from = static_cast<const std::uint16_t*>(args.x.ptr) + mine.at + base;
    uint4 raw[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i)
      raw[i] = i * kItemStep<Shape> < left
                   ? __ldcg(reinterpret_cast<const uint4*>(from + i * kItemStep<Shape>))
                   : make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (i > 0 && i >= count) break;
      x[i] = X16::values(raw[i], args.x_type == quant::kElementBf16);
    }
  } else {
    constexpr bool kIsNormed = kKind == Kind::normed;
    const float* from = static_cast<const float*>(args.x.ptr) + mine.at + base;
    Pieces<Shape> raw[kCount], weight[kIsNormed ? kCount : 1];
#pragma unroll
    for (int i = 0; i < kCount; ++i) raw[i].load(from, left, i);
    if constexpr (kIsNormed) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) weight[i].load(args.norm.ptr + mine.k + base, left, i);
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (i > 0 && i >= count) break;
      if constexpr (kIsNormed) {
        squares = squared(raw[i].other, squared(raw[i].first, squares));
        raw[i].first = times(raw[i].first, weight[i].first);
        raw[i].other = times(raw[i].other, weight[i].other);
      }
      x[i] = raw[i].own();
    }
  }
}
template <class Shape>
__device__ __forceinline__ void load_items(const HopperVectorArgs& args, Kind kind, const Items<Shape>& mine,
                                           std::uint32_t base, int count, Eight (&x)[kMostBatch],
                                           float& squares) {
  if (kind == Kind::normed)
    load_items<Shape, Kind::normed>(args, mine, base, count, x, squares);
  else if (kind == Kind::f32)
    load_items<Shape, Kind::f32>(args, mine, base, count, x, squares);
  else
    load_items<Shape, Kind::f16>(args, mine, base, count, x, squares);
}

/// A warp's part of its rows' sums of squares, for vector_squares. sums: [warp][row].
template <int kM>
__device__ __forceinline__ void store_squares(float squares, std::uint32_t thread, float* sums) {
#pragma unroll
  for (int bit = 1; bit < 32; bit *= 2) {
    if (bit < 8 || bit >= 8 * kM) squares += __shfl_xor_sync(0xffffffffu, squares, bit);
  }
  if (thread % 32 / 8 < kM && thread % 8 == 0) sums[thread / 32 * kM + thread % 32 / 8] = squares;
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
                                               std::uint32_t warp, const Items<Shape>& mine,
                                               const Barriers& barriers, std::uint8_t* memory) {
  using X = VectorX<Shape>;
  constexpr std::uint32_t kM = Shape::kRows, kThreads = kItemThreads;
  constexpr int kAtOnce = 2;  // items of a thread without moves between
  // A thread's items are as many as its warp's first lane has.
  const std::uint32_t items = part.units * 16 * kM,
                      count = items > warp * 32 ? (items - warp * 32 + kThreads - 1) / kThreads : 0;
  std::uint8_t* lows = memory + args.at.lows;
  constexpr std::uint32_t kOfBarrier = ops::kHopperVectorStageUnits * kM / 2;  // times 32 items
  const Kind kind = kind_of(args);
  const std::uint32_t batch = batch_of(kind);
  float squares = 0;
  Items<Shape> place = mine;
  std::uint32_t at = warp;  // in 32 items
#pragma unroll 1
  for (std::uint32_t base = 0; base < count; base += batch) {
    Eight x[kMostBatch];
    load_items<Shape>(args, kind, mine, base * kItemStep<Shape>, static_cast<int>(count - base), x, squares);
#pragma unroll 1
    for (std::uint32_t left = min(count - base, batch);;) {
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        if (i > 0 && left == static_cast<std::uint32_t>(i)) break;
        const bool has_low = X::stage(x[i], place, i, args.at.low - args.at.x);
        if (has_low && threadIdx.x % 32 == 0) lows[at + i * kWarps] = 1;
        // Every lane for what it wrote.
        barrier_arrive(barriers.x_ready + (at + i * kWarps) / kOfBarrier * 8);
      }
      if (left <= kAtOnce) break;
      left -= kAtOnce, at += kAtOnce * kWarps, place.advance(kAtOnce);
#pragma unroll
      for (int i = 0; i + kAtOnce < kMostBatch; ++i) x[i] = x[i + kAtOnce];
    }
    at += kAtOnce * kWarps, place.advance(kAtOnce);
  }
  if (kind == Kind::normed)
    store_squares<kM>(squares, threadIdx.x, reinterpret_cast<float*>(memory + args.at.sums));
}

}  // namespace mlxn::sm90
