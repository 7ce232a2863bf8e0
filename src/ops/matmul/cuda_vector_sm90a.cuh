// y[m, n] = x[m, k] * w[n, k]^T for few rows of x, w in q4_0 records (quant/hopper_records.h), on Hopper.
//
// Bound: reading the weights once. An SM needs about 36 KB of copies in flight all the time; everything else
// has to hide behind that.
//
// A block owns `tiles_per_block` tiles of 16 rows of w and one of `splits` ranges of k. Roles of its warps:
//   kWarps math warps   turn x into their operand form once, then take every kWarps-th record of each stage
//   1 copying warp      keeps a ring of stages full, one bulk copy of up to 16 records (18 KB) each
//   1 summing warp      adds the math warps' parts of a finished tile and stores them
// Programmatic launch: the ring's first `prefetch` stages are requested before the wait for the kernel
// before, the others after it: more in front takes bandwidth from that kernel's last blocks. With splits > 1
// parts go to a workspace; the block that arrives last adds them in the order of the splits.
#pragma once

#include <cstdint>

#include "cuda_blocks/barrier.cuh"
#include "cuda_blocks/bulk.cuh"
#include "cuda_blocks/mma.cuh"
#include "cuda_blocks/ptx.cuh"
#include "cuda_blocks/ring.cuh"

namespace mlxn::sm90 {

constexpr std::uint32_t kRecordBytes = 1152;  // 16 rows x 128 k: quants, then scales
constexpr std::uint32_t kRecordScales = 1024;
constexpr std::uint32_t kPartialBuffers = 2;

struct VectorArgs {
  const std::uint8_t* records;  // [tiles, tile_records]
  const void* x;                // [m, k], rows x_stride elements apart, 16-byte aligned
  float* y;                     // [m, n]
  float* workspace;             // [splits, m, tiles * 16], if splits > 1
  std::uint32_t* counters;      // one per group of tiles, zero before and after
  std::uint32_t m, n, k, x_stride;
  std::uint32_t tiles, tile_records;
  std::uint32_t tiles_per_block, splits, split_records;
  std::uint32_t stage_records, stages, prefetch;
  std::uint32_t early_launch;  // let the next kernel start at once, else when all copies have been requested
};

/// Byte offsets in the block's shared memory.
struct VectorShared {
  std::uint32_t x, meta, partial, barriers, bytes;
};

template <class Math, int kWarps>
__host__ __device__ constexpr VectorShared vector_shared(std::uint32_t stages, std::uint32_t stage_records,
                                                         std::uint32_t split_records) {
  VectorShared s{};
  s.x = stages * stage_records * kRecordBytes;
  s.meta = s.x + split_records * Math::kRecordX;
  s.partial = s.meta + split_records * Math::kRecordMeta;
  s.barriers = s.partial + kPartialBuffers * kWarps * Math::kTokens * 16 * 4;
  s.bytes = s.barriers + (2 * stages + 2 * kPartialBuffers + 1) * 8;
  return s;
}

/// Eight values of x as f32. `p` is aligned to 16 bytes.
struct Eight {
  float v[8];
};
struct XF16 {
  using Raw = uint4;
  static constexpr int kBytes = 2;
  static __device__ __forceinline__ Raw load(const void* x, std::uint64_t element) {
    return __ldcg(reinterpret_cast<const uint4*>(static_cast<const std::uint8_t*>(x) + element * 2));
  }
  static __device__ __forceinline__ Raw zero() { return make_uint4(0, 0, 0, 0); }
  static __device__ __forceinline__ Eight values(const Raw& raw) {
    const float2 a = f16x2_to_f32(raw.x), b = f16x2_to_f32(raw.y), c = f16x2_to_f32(raw.z),
                 d = f16x2_to_f32(raw.w);
    return {{a.x, a.y, b.x, b.y, c.x, c.y, d.x, d.y}};
  }
};
struct XF32 {
  struct Raw {
    float4 a, b;
  };
  static constexpr int kBytes = 4;
  static __device__ __forceinline__ Raw load(const void* x, std::uint64_t element) {
    const float4* p = reinterpret_cast<const float4*>(static_cast<const std::uint8_t*>(x) + element * 4);
    return {__ldcg(p), __ldcg(p + 1)};
  }
  static __device__ __forceinline__ Raw zero() { return {make_float4(0, 0, 0, 0), make_float4(0, 0, 0, 0)}; }
  static __device__ __forceinline__ Eight values(const Raw& r) {
    return {{r.a.x, r.a.y, r.a.z, r.a.w, r.b.x, r.b.y, r.b.z, r.b.w}};
  }
};

/// Integer arithmetic. A block of 32 values of x is a power of two times 16-bit integers, or two of them
/// (limbs: the second carries 15 further bits); an integer is 256 h + l in two signed bytes, so h and l are
/// two columns of B and every sum is exact in 32 bits. Against f16 operands: no unpacking beyond one mask per
/// word, a smaller error, any range of x.
///
/// A byte of a record is q + 16 q', rows g and g + 8. Rows g multiply the whole byte and get q' subtracted
/// afterwards, rows g + 8 multiply 16 q'. A record's word is four k of a k16 step, {2t, 2t+8, 2t+1, 2t+9},
/// and two words make the k32 of one instruction; x is laid out in that order.
///
/// Units (tokens times limbs) are pairs of columns. Where they fill fewer than 8, several blocks share an
/// instruction's columns, a slot each, and B is zero outside its block's slot.
template <int kM, int kLimbs>
struct IntegerMath {
  static constexpr int kTokens = kM;
  static constexpr int kUnits = kM * kLimbs;
  static constexpr int kSlots = kUnits < 4 ? 4 / kUnits : 1;  // blocks that share the columns
  static constexpr int kTileUnits = 4 / kSlots;               // units of one block in one instruction
  static constexpr int kColumnTiles = kUnits / kTileUnits;    // instructions per block
  static constexpr int kGroups = 4 / kSlots;                  // of blocks in a record
  static constexpr std::uint32_t kRecordX =
      256 * kUnits;  // [group][column tile][column 8][t 4][word 2][4 bytes]
  static constexpr std::uint32_t kRecordMeta = 4 * kUnits * 8;  // [block][unit] {f32 scale, i32 -8 * sum}
  static_assert(kM > 0 && (kM & (kM - 1)) == 0 && (kLimbs == 1 || kLimbs == 2), "powers of two");

  struct Sums {
    float v[kColumnTiles][2];  // of the lane's unit t % kTileUnits: rows g, 16 times rows g + 8
  };

  static __device__ __forceinline__ void clear(Sums& sums) {
#pragma unroll
    for (int i = 0; i < kColumnTiles; ++i) sums.v[i][0] = sums.v[i][1] = 0;
  }

  /// Four lanes hold the 32 values of block `block` of the range, eight consecutive ones each; all lanes of
  /// the warp come here.
  static __device__ __forceinline__ void stage(const Eight& x, bool is_valid, std::uint32_t block,
                                               std::uint32_t token, std::uint8_t* x_shared,
                                               std::uint8_t* meta_shared) {
    const std::uint32_t quarter = threadIdx.x & 3, step = quarter >> 1, half = quarter & 1;
    float largest = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) largest = larger_magnitude(largest, x.v[i]);
    largest = larger_magnitude(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
    largest = larger_magnitude(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
    // e is the exponent field, one more where the mantissa is nearly full: |x| * 2^(141 - e) < 32576, so that
    // h fits a byte.
    const std::uint32_t bits = __float_as_uint(largest), e = min(max((bits + 0x18000u) >> 23, 16u), 255u);
    const float inverse = __uint_as_float((268u - e) << 23);
    const float scale = bits < 0x7f800000u ? __uint_as_float((e - 14u) << 23) : __uint_as_float(0x7fffffffu);
    float scaled[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) scaled[i] = x.v[i] * inverse;
#pragma unroll
    for (int limb = 0; limb < kLimbs; ++limb) {
      // 1.5 * 2^23 plus a value is its nearest integer in the low bits. With 128 more, byte 1 is h and byte 0
      // is l + 128.
      constexpr float kRound = 12582912.0f + 128;
      std::uint32_t q[8], sum = 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float rounded = scaled[i] + kRound;
        q[i] = __float_as_uint(rounded);
        sum += q[i];
        if (limb + 1 < kLimbs) scaled[i] = (scaled[i] - (rounded - kRound)) * 32768.0f;
      }
      sum -= 8u * __float_as_uint(kRound);
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      const std::uint32_t unit = token * kLimbs + limb, slot = block % kSlots;
      const std::uint32_t group = block / kSlots, tile = unit / kTileUnits;
      const std::uint32_t column = (slot * kTileUnits + unit % kTileUnits) * 2;
      std::uint8_t* out = x_shared + (group * kColumnTiles + tile) * 256 + column * 32 + half * 16 + step * 4;
      // The lane of k 0..7 of a k16 step writes the words of t = 0 and 1, that of k 8..15 those of t = 2
      // and 3.
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const std::uint32_t low = __byte_perm(q[2 * i], q[2 * i + 1], 0x5410);
        const std::uint32_t high = __byte_perm(q[2 * i + 4], q[2 * i + 5], 0x5410);
        const std::uint32_t other = __shfl_xor_sync(0xffffffffu, half ? low : high, 1);
        const std::uint32_t first = half ? other : low,
                            second = half ? high : other;  // k 2t 2t+1, k 2t+8 2t+9
        if (is_valid) {
          *reinterpret_cast<std::uint32_t*>(out + i * 8) = __byte_perm(first, second, 0x7351);
          *reinterpret_cast<std::uint32_t*>(out + i * 8 + 32) =
              __byte_perm(first, second, 0x6240) ^ 0x80808080u;
        }
      }
      if (is_valid && quarter == 0) {
        const float limb_scale = limb == 0 ? scale : scale * (1.0f / 32768);
        *reinterpret_cast<int2*>(meta_shared + (block * kUnits + unit) * 8) =
            make_int2(__float_as_int(limb_scale), -8 * static_cast<std::int32_t>(sum));
      }
    }
  }

  /// Adds kCount records, `stride` bytes apart in shared memory and `k_stride` apart in the range of k, to
  /// the sums.
  template <int kCount>
  static __device__ __forceinline__ void multiply(const std::uint8_t* record, std::uint32_t stride,
                                                  std::uint32_t k_record, std::uint32_t k_stride,
                                                  const std::uint8_t* x_shared,
                                                  const std::uint8_t* meta_shared, Sums& sums) {
    const std::uint32_t lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    std::uint32_t w[kCount][8];
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
#pragma unroll
      for (int plane = 0; plane < 2; ++plane) {
        const uint4 q = *reinterpret_cast<const uint4*>(record + i * stride + plane * 512 + lane * 16);
        w[i][plane * 4] = q.x, w[i][plane * 4 + 1] = q.y, w[i][plane * 4 + 2] = q.z,
                     w[i][plane * 4 + 3] = q.w;
      }
    }
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      const std::uint32_t block = group * kSlots + t / kTileUnits;  // the lane's block of the sums
      float d0[kCount], d1[kCount];
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const std::uint8_t* scales = record + i * stride + kRecordScales + g * 16 + block * 2;
        d0[i] = f16_to_f32(*reinterpret_cast<const std::uint16_t*>(scales));
        d1[i] = f16_to_f32(*reinterpret_cast<const std::uint16_t*>(scales + 8));
      }
#pragma unroll
      for (int tile = 0; tile < kColumnTiles; ++tile) {
        std::int32_t c[kCount][4];
        uint2 b[kCount];
        float scale[kCount];
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
          const std::uint32_t k = k_record + i * k_stride;
          b[i] = *reinterpret_cast<const uint2*>(
              x_shared + ((k * kGroups + group) * kColumnTiles + tile) * 256 + lane * 8);
          const int2 meta = *reinterpret_cast<const int2*>(
              meta_shared + ((k * 4 + block) * kUnits + tile * kTileUnits + t % kTileUnits) * 8);
          scale[i] = __int_as_float(meta.x);
          c[i][0] = c[i][2] = 0;
          c[i][1] = 17 * meta.y;
          c[i][3] = 16 * meta.y;
        }
#pragma unroll
        for (int slot = 0; slot < kSlots; ++slot) {
          const bool is_mine = kSlots == 1 || static_cast<int>(g) / (2 * kTileUnits) == slot;
#pragma unroll
          for (int i = 0; i < kCount; ++i) {
            const std::uint32_t w0 = w[i][(group * kSlots + slot) * 2],
                                w1 = w[i][(group * kSlots + slot) * 2 + 1];
            mma_u8_s8(c[i], w0, w0 & 0xf0f0f0f0u, w1, w1 & 0xf0f0f0f0u, is_mine ? b[i].x : 0,
                      is_mine ? b[i].y : 0);
          }
        }
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
          const std::int32_t high = c[i][2] * 256 + c[i][3];
          const std::int32_t low = c[i][0] * 256 + c[i][1] - high;
          sums.v[tile][0] += __int2float_rn(low) * (d0[i] * scale[i]);
          sums.v[tile][1] += __int2float_rn(high) * (d1[i] * scale[i]);
        }
      }
    }
  }

  /// out[token][row 16] of this warp.
  static __device__ __forceinline__ void store(const Sums& sums, float* out) {
    const std::uint32_t lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int tile = 0; tile < kColumnTiles; ++tile) {
      float a = sums.v[tile][0], b = sums.v[tile][1] * 0.0625f;
      if (kLimbs == 2) {
        a += __shfl_xor_sync(0xffffffffu, a, 1);
        b += __shfl_xor_sync(0xffffffffu, b, 1);
      }
#pragma unroll
      for (int bit = kTileUnits; bit < 4; bit *= 2) {  // lanes of the other slots
        a += __shfl_xor_sync(0xffffffffu, a, bit);
        b += __shfl_xor_sync(0xffffffffu, b, bit);
      }
      const std::uint32_t unit = tile * kTileUnits + t % kTileUnits;
      if (t < kTileUnits && unit % kLimbs == 0) {
        out[(unit / kLimbs) * 16 + g] = a;
        out[(unit / kLimbs) * 16 + g + 8] = b;
      }
    }
  }
};

/// f16 arithmetic: x rounded to f16, a column per token. A masked nibble is an f16 subnormal, q * 2^-24 in
/// rows g and q * 2^-20 in rows g + 8, exact in the tensor cores; -8 * sum(x) of the block is where its
/// accumulator starts.
template <int kM>
struct HalfMath {
  static constexpr int kColumnTiles = (kM + 7) / 8;
  static constexpr int kTokens = kColumnTiles * 8;
  static constexpr std::uint32_t kRecordX =
      2048 * kColumnTiles;  // [block 4][column tile][lane 32][k16 step 2][b0 b1]
  static constexpr std::uint32_t kRecordMeta =
      4 * kColumnTiles * 8 * 4;  // [block][column] f32 -8 * sum * 2^-24

  struct Sums {
    float v[kColumnTiles][4];
  };

  static __device__ __forceinline__ void clear(Sums& sums) {
#pragma unroll
    for (int i = 0; i < kColumnTiles; ++i) sums.v[i][0] = sums.v[i][1] = sums.v[i][2] = sums.v[i][3] = 0;
  }

  static __device__ __forceinline__ void stage(const Eight& x, bool is_valid, std::uint32_t block,
                                               std::uint32_t token, std::uint8_t* x_shared,
                                               std::uint8_t* meta_shared) {
    const std::uint32_t quarter = threadIdx.x & 3, step = quarter >> 1, half = quarter & 1;
    const std::uint32_t tile = block * kColumnTiles + token / 8, column = token % 8;
    std::uint8_t* out = x_shared + tile * 512 + column * 64 + step * 8 + half * 4;
    float sum = 0;
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      const std::uint32_t pair = f32_to_f16x2(x.v[2 * t], x.v[2 * t + 1]);
      const float2 rounded = f16x2_to_f32(pair);
      sum += rounded.x + rounded.y;
      if (is_valid) *reinterpret_cast<std::uint32_t*>(out + t * 16) = pair;
    }
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    if (is_valid && quarter == 0)
      *reinterpret_cast<float*>(meta_shared + (tile * 8 + column) * 4) = sum * -0x1p-21f;
  }

  template <int kCount>
  static __device__ __forceinline__ void multiply(const std::uint8_t* record, std::uint32_t stride,
                                                  std::uint32_t k_record, std::uint32_t k_stride,
                                                  const std::uint8_t* x_shared,
                                                  const std::uint8_t* meta_shared, Sums& sums) {
    const std::uint32_t lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const std::uint8_t* r = record + i * stride;
      const uint4 scales = *reinterpret_cast<const uint4*>(r + kRecordScales + g * 16);
      const uint4 planes[2] = {*reinterpret_cast<const uint4*>(r + lane * 16),
                               *reinterpret_cast<const uint4*>(r + 512 + lane * 16)};
#pragma unroll
      for (int block = 0; block < 4; ++block) {
        const uint4& plane = planes[block / 2];
        const uint2 q = block & 1 ? make_uint2(plane.z, plane.w) : make_uint2(plane.x, plane.y);
        const std::uint32_t row = block < 2 ? scales.x : scales.y, row8 = block < 2 ? scales.z : scales.w;
        const float d0 = f16_to_f32(static_cast<std::uint16_t>(row >> ((block & 1) * 16)));
        const float d1 = f16_to_f32(static_cast<std::uint16_t>(row8 >> ((block & 1) * 16)));
        const std::uint32_t a[2][4] = {
            {q.x & 0x000f000fu, q.x & 0x00f000f0u, (q.x >> 8) & 0x000f000fu, (q.x >> 8) & 0x00f000f0u},
            {q.y & 0x000f000fu, q.y & 0x00f000f0u, (q.y >> 8) & 0x000f000fu, (q.y >> 8) & 0x00f000f0u}};
#pragma unroll
        for (int tile = 0; tile < kColumnTiles; ++tile) {
          const std::uint32_t at = ((k_record + i * k_stride) * 4 + block) * kColumnTiles + tile;
          const uint4 b = *reinterpret_cast<const uint4*>(x_shared + at * 512 + lane * 16);
          const float2 start = *reinterpret_cast<const float2*>(meta_shared + at * 32 + t * 8);
          float c[4] = {start.x, start.y, start.x * 16, start.y * 16};
          mma_f16(c, a[0][0], a[0][1], a[0][2], a[0][3], b.x, b.y);
          mma_f16(c, a[1][0], a[1][1], a[1][2], a[1][3], b.z, b.w);
          sums.v[tile][0] += c[0] * d0;
          sums.v[tile][1] += c[1] * d0;
          sums.v[tile][2] += c[2] * d1;
          sums.v[tile][3] += c[3] * d1;
        }
      }
    }
  }

  static __device__ __forceinline__ void store(const Sums& sums, float* out) {
    const std::uint32_t lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int tile = 0; tile < kColumnTiles; ++tile) {
      float* column = out + (tile * 8 + 2 * t) * 16 + g;
      column[0] = sums.v[tile][0] * 0x1p24f;
      column[16] = sums.v[tile][1] * 0x1p24f;
      column[8] = sums.v[tile][2] * 0x1p20f;
      column[24] = sums.v[tile][3] * 0x1p20f;
    }
  }
};

/// Reads the weights and computes nothing of use: what the loop without arithmetic takes.
struct ReadOnlyMath {
  static constexpr int kTokens = 1;
  static constexpr std::uint32_t kRecordX = 0;
  static constexpr std::uint32_t kRecordMeta = 0;
  struct Sums {
    std::uint32_t v;
  };
  static __device__ __forceinline__ void clear(Sums& sums) { sums.v = 0; }
  static __device__ __forceinline__ void stage(const Eight& x, bool is_valid, std::uint32_t, std::uint32_t,
                                               std::uint8_t*, std::uint8_t*) {
    if (is_valid && x.v[0] == 12345.678f) asm volatile("" ::: "memory");
  }
  template <int kCount>
  static __device__ __forceinline__ void multiply(const std::uint8_t* record, std::uint32_t, std::uint32_t,
                                                  std::uint32_t, const std::uint8_t*, const std::uint8_t*,
                                                  Sums& sums) {
    sums.v ^= *reinterpret_cast<const std::uint32_t*>(record + (threadIdx.x & 31) * 4);
  }
  static __device__ __forceinline__ void store(const Sums& sums, float* out) {
    if ((threadIdx.x & 31) < 16) out[threadIdx.x & 31] = __uint_as_float(sums.v & 0x3fffffffu);
  }
};

/// The operand form of x[., range of k] of this block. All loads of a batch are under way before the first is
/// used: one trip to L2, not one per load.
template <class Math, class X, int kThreads>
__device__ __forceinline__ void vector_stage_x(const VectorArgs& args, std::uint32_t first_record,
                                               std::uint32_t n_records, std::uint32_t thread,
                                               std::uint8_t* x_shared, std::uint8_t* meta_shared) {
  constexpr int kBatch = 8;
  const std::uint32_t items = n_records * 4 * Math::kTokens * 4;  // of eight values
  for (std::uint32_t base = 0; base < items; base += kThreads * kBatch) {
    typename X::Raw raw[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const std::uint32_t item = base + i * kThreads + thread, task = item >> 2;
      const std::uint32_t token = task % Math::kTokens, block = task / Math::kTokens;
      const std::uint32_t k = (first_record * 4 + block) * 32 + (item & 3) * 8;
      raw[i] = X::zero();
      if (item < items && token < args.m && k < args.k)
        raw[i] = X::load(args.x, static_cast<std::uint64_t>(token) * args.x_stride + k);
    }
#pragma unroll
    for (int i = 0; i < kBatch; i += 2) {
      if (base + i * kThreads >= items) break;  // the same in all threads
#pragma unroll
      for (int j = i; j < i + 2; ++j) {  // no branch between the two, so that their latencies overlap
        const std::uint32_t item = base + j * kThreads + thread, task = item >> 2;
        Math::stage(X::values(raw[j]), item < items, task / Math::kTokens, task % Math::kTokens, x_shared,
                    meta_shared);
      }
    }
  }
}

template <class Math, class X, int kWarps>
__global__ void __launch_bounds__((kWarps + 2) * 32, 1)
    vector_kernel(const __grid_constant__ VectorArgs args) {
  extern __shared__ __align__(1024) std::uint8_t shared[];
  const VectorShared at = vector_shared<Math, kWarps>(args.stages, args.stage_records, args.split_records);
  const std::uint32_t warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
  const std::uint32_t stage_bytes = args.stage_records * kRecordBytes;
  const std::uint32_t ring = shared_address(shared);
  const Barrier full = shared_address(shared + at.barriers), empty = full + 8 * args.stages;
  const Barrier partial_full = empty + 8 * args.stages, partial_empty = partial_full + 8 * kPartialBuffers;

  const std::uint32_t split = blockIdx.x % args.splits, group = blockIdx.x / args.splits;
  const std::uint32_t first_tile = group * args.tiles_per_block;
  const std::uint32_t n_tiles = min(args.tiles_per_block, args.tiles - first_tile);
  const std::uint32_t first_record = split * args.split_records;
  const std::uint32_t n_records = min(args.split_records, args.tile_records - first_record);

  // The copying thread does its first requests before anything else happens.
  const bool is_copying = warp == kWarps && elect_lane();
  const std::uint8_t* source = args.records;
  std::uint64_t policy = 0;
  std::uint32_t tile = 0, record = 0, requested = 0;
  RingPosition fill;
  auto request = [&]() {  // the next stage; false after the last
    if (tile == n_tiles) return false;
    const std::uint32_t count = min(args.stage_records, n_records - record);
    const std::uint32_t bytes = count * kRecordBytes;
    const std::uint64_t index =
        static_cast<std::uint64_t>(first_tile + tile) * args.tile_records + first_record + record;
    barrier_arrive_expect(full + 8 * fill.slot, bytes);
    bulk_load(ring + fill.slot * stage_bytes, source + index * kRecordBytes, bytes, full + 8 * fill.slot,
              policy);
    fill.advance(args.stages);
    ++requested;
    record += count;
    if (record == n_records) record = 0, ++tile;
    return true;
  };
  if (is_copying) {
    for (std::uint32_t i = 0; i < args.stages; ++i) {
      barrier_init(full + 8 * i, 1);
      barrier_init(empty + 8 * i, kWarps);
    }
    for (std::uint32_t i = 0; i < kPartialBuffers; ++i) {
      barrier_init(partial_full + 8 * i, kWarps);
      barrier_init(partial_empty + 8 * i, 1);
    }
    barrier_init_fence();
    policy = policy_read_once();
    while (requested < min(args.prefetch, args.stages) && request()) {
    }
    if (args.early_launch) dependency_launch();
  }
  __syncthreads();

  if (warp < kWarps) {
    dependency_wait();
    vector_stage_x<Math, X, kWarps * 32>(args, first_record, n_records, threadIdx.x, shared + at.x,
                                         shared + at.meta);
    named_barrier(1, kWarps * 32);
    RingPosition read;
    for (std::uint32_t i = 0; i < n_tiles; ++i) {
      typename Math::Sums sums;
      Math::clear(sums);
      for (std::uint32_t first = 0; first < n_records; first += args.stage_records) {
        const std::uint32_t count = min(args.stage_records, n_records - first);
        const std::uint8_t* stage = shared + read.slot * stage_bytes;
        barrier_wait(full + 8 * read.slot, read.parity);
        std::uint32_t j = warp;
        for (; j + kWarps < count; j += 2 * kWarps)
          Math::template multiply<2>(stage + j * kRecordBytes, kWarps * kRecordBytes, first + j, kWarps,
                                     shared + at.x, shared + at.meta, sums);
        if (j < count)
          Math::template multiply<1>(stage + j * kRecordBytes, 0, first + j, 0, shared + at.x,
                                     shared + at.meta, sums);
        __syncwarp();
        if (lane == 0) barrier_arrive(empty + 8 * read.slot);
        read.advance(args.stages);
      }
      const std::uint32_t buffer = i % kPartialBuffers, round = i / kPartialBuffers;
      if (round > 0) barrier_wait(partial_empty + 8 * buffer, (round - 1) & 1);
      Math::store(sums, reinterpret_cast<float*>(shared + at.partial) +
                            (buffer * kWarps + warp) * Math::kTokens * 16);
      __syncwarp();
      if (lane == 0) barrier_arrive(partial_full + 8 * buffer);
    }
  } else if (warp == kWarps) {
    if (is_copying) {
      dependency_wait();
      for (;;) {
        // The slot's readers are done with what it held a turn ago; in the first turn nobody reads.
        if (requested >= args.stages && tile < n_tiles) barrier_wait(empty + 8 * fill.slot, fill.parity ^ 1);
        if (!request()) break;
      }
      if (!args.early_launch) dependency_launch();
    }
  } else {
    dependency_wait();
    const std::uint32_t rows = args.tiles * 16;
    for (std::uint32_t i = 0; i < n_tiles; ++i) {
      const std::uint32_t buffer = i % kPartialBuffers, round = i / kPartialBuffers;
      barrier_wait(partial_full + 8 * buffer, round & 1);
      const float* part =
          reinterpret_cast<const float*>(shared + at.partial) + buffer * kWarps * Math::kTokens * 16;
      for (std::uint32_t j = lane; j < args.m * 16; j += 32) {
        float sum = 0;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) sum += part[w * Math::kTokens * 16 + j];
        const std::uint32_t row = (first_tile + i) * 16 + j % 16, token = j / 16;
        if (args.splits > 1)
          __stcg(&args.workspace[(static_cast<std::uint64_t>(split) * args.m + token) * rows + row], sum);
        else if (row < args.n)
          args.y[static_cast<std::uint64_t>(token) * args.n + row] = sum;
      }
      __syncwarp();
      if (lane == 0) barrier_arrive(partial_empty + 8 * buffer);
    }
  }
  if (args.splits == 1) return;

  // All parts of this block are on their way: make them visible, count the block, and let the last one of the
  // group add up.
  std::uint32_t* is_last =
      reinterpret_cast<std::uint32_t*>(shared + at.barriers + 8 * (2 * args.stages + 2 * kPartialBuffers));
  if (warp == kWarps + 1) {
    __threadfence();
    __syncwarp();
    if (lane == 0) {
      const bool last = atomicAdd(&args.counters[group], 1u) == args.splits - 1;
      if (last) args.counters[group] = 0;
      __threadfence();
      *is_last = last;
    }
  }
  __syncthreads();
  if (!*is_last) return;
  const std::uint32_t rows = args.tiles * 16, quads = n_tiles * 4;
  for (std::uint32_t j = threadIdx.x; j < quads * args.m; j += (kWarps + 2) * 32) {
    const std::uint32_t token = j / quads, row = first_tile * 16 + (j % quads) * 4;
    float4 sum = make_float4(0, 0, 0, 0);
    for (std::uint32_t s = 0; s < args.splits; ++s) {
      const float4 part = __ldcg(reinterpret_cast<const float4*>(
          &args.workspace[(static_cast<std::uint64_t>(s) * args.m + token) * rows + row]));
      sum.x += part.x, sum.y += part.y, sum.z += part.z, sum.w += part.w;
    }
    const float out[4] = {sum.x, sum.y, sum.z, sum.w};
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (row + i < args.n) args.y[static_cast<std::uint64_t>(token) * args.n + row + i] = out[i];
  }
}

}  // namespace mlxn::sm90
