// Attention over an f16 cache on matrix instructions, for many query rows per key head; of every NVIDIA GPU
// from compute capability 8.0 on. As AttentionTiled: the same rows per key head, tiles, spans and grid.
//
// Numerics. Keys and values are f16 and exact. Queries and weights are each the sum of two f16 numbers, of
// which the second is what the first left over: 22 bits, for twice the instructions. So that neither number
// underflows, a row of queries is scaled by a power of two to a largest magnitude of 2^13 to 2^14, and
// weights are 2^15 for the largest logit: they are 2^(factor * product + bias), with bias = 15 - the running
// maximum in units of log 2.
//
// Values that are not finite. Weights of 0 would turn them into NaN for rows that do not see them. Where the
// rows of a group see different keys of a tile, such values are replaced by 0 before the product, and the
// rows that see one are noted. These rows, rows of queries that are not finite and rows that come out not
// finite are computed again as AttentionTiled does, a warp per row. So a key that a row does not see leaves
// its bits alone, and the rest has the same infinities and NaNs.
//
// A warp has 16 rows; thread (g, t) = (lane / 4, lane % 4) has rows g and g + 8 and, of every eight keys or
// columns, 2t and 2t + 1. Sums of logits come out of the instructions where the weights go in. Keys and
// values of the next tile are on their way while one is multiplied. Bound by the matrix instructions.
#pragma once

#include "cuda_blocks/copy.cuh"
#include "cuda_blocks/mma.cuh"
#include "cuda_blocks/ptx.cuh"
#include "ops/attention/kernel.h"
#include "ops/attention/mma_shape.h"

namespace mlxn {
namespace gpu {

/// Told of every row that is computed again; tests count them.
struct AttentionUnwatched {
  static __device__ __forceinline__ void row() {}
};

template <int kDim, class Watch = AttentionUnwatched>
struct AttentionMma {
  using Args = ops::AttentionArgs;
  using Shape = ops::AttentionMmaShape<kDim>;
  static constexpr int kThreads = Shape::kThreads;
  static constexpr int kTile = ops::kAttentionTile;
  static constexpr int kSteps = kDim / 16;   // of the product with keys
  static constexpr int kKeys = kTile / 8;    // runs of eight keys
  static constexpr int kColumns = kDim / 8;  // runs of eight columns of the output
  static constexpr int kAtOnce = kColumns % 8 == 0 ? 8 : 4;
  static constexpr int kRuns = kDim / 8;  // of eight elements of a key, 16 bytes
  static constexpr int kLoads = kTile * kRuns / kThreads;
  static constexpr float kShift = 15.0f;
  static constexpr float kLog2E = 1.4426950408889634f, kLog2 = 0.6931471805599453f;
  static constexpr float kSmallest = 1.17549435e-38f, kLargest = 3.40282347e38f;

  /// Where a group's keys and values come from.
  struct Source {
    const f16 *keys, *values;
    int64_t k_slot, v_slot;
    uint32_t ring_start, capacity, dim;
    AttentionSpan span;  ///< what some row of the group sees
    bool is_aligned;
  };
  /// Keys that some and that all positions of a range see.
  struct Seen {
    AttentionSpan some, all;
  };
  struct Queries {
    uint32_t high[kSteps][4], low[kSteps][4];
  };
  /// Of a thread, for its rows g and g + 8. What they see is in shared memory: seldom needed.
  struct Rows {
    float factor[2];  ///< of products: to logits, in units of log 2 if there is no softcap
    float bias[2], sum[2];
    bool is_exact[2];  ///< has to be computed again
    float out[kColumns][4];
  };

  static __device__ __forceinline__ void run(const Args& args, uint32_t group_index, uint32_t groups,
                                             uint8_t* shared) {
    const AttentionNumbers numbers = attention_numbers(args);
    const uint32_t warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int64_t group = args.heads / args.kv_heads, all = args.seq * group;
    const uint32_t all_heads = uint32_t(args.batch) * uint32_t(args.kv_heads);
    const uint32_t all_head = group_index % all_heads, blocks = groups / all_heads;
    const int64_t batch = all_head / uint32_t(args.kv_heads), kv_head = all_head % uint32_t(args.kv_heads);
    const int64_t first = int64_t(blocks - 1 - group_index / all_heads) * Shape::kRows;
    const int64_t last = (all - first < Shape::kRows ? all : first + Shape::kRows) - 1;
    const Seen seen = seen_by(numbers, first / group, last / group);
    // Rows beyond the last do as it does, for nobody.
    const int64_t warp_first = first + warp * 16;
    const Seen mine = seen_by(numbers, least(warp_first, last) / group, least(warp_first + 15, last) / group);

    Source source;
    source.keys = (const f16*)args.k.ptr + batch * args.k_batch + kv_head * args.k_head;
    source.values = (const f16*)args.v.ptr + batch * args.v_batch + kv_head * args.v_head;
    source.k_slot = args.k_slot, source.v_slot = args.v_slot;
    source.ring_start = uint32_t(numbers.ring_start), source.capacity = uint32_t(numbers.capacity);
    source.dim = uint32_t(args.head_dim);
    source.span = seen.some;
    source.is_aligned = (args.flags & ops::kAttentionAligned) != 0;

    AttentionSpan* spans = reinterpret_cast<AttentionSpan*>(shared + Shape::kSpansAt) + warp * 16 + g;
    uint32_t* lost = reinterpret_cast<uint32_t*>(shared + Shape::kLostAt);
    if (threadIdx.x < Shape::kLost * 2) lost[threadIdx.x] = 0;
    int32_t tile = seen.some.begin / kTile * kTile;
    if (tile < seen.some.end) load_tile(source, tile, shared);

    Rows rows;
    Queries queries;
    const float* q = args.q.ptr + batch * args.q_batch + kv_head * group * args.q_head;
    const float* q_rows[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int64_t row = least(warp_first + g + 8 * r, last);
      if (t == 0) spans[8 * r] = numbers.seen(row / group, row / group);
      rows.bias[r] = -ops::kAttentionLowest;
      rows.sum[r] = 0.0f;
      q_rows[r] = q + row % group * args.q_head + row / group * args.q_row;
    }
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
#pragma unroll
      for (int e = 0; e < 4; ++e) rows.out[c][e] = 0.0f;
    }
    load_queries(args, q_rows, t, source, queries, rows);
    __syncthreads();

    for (uint32_t n = 0; tile < seen.some.end; tile += kTile, ++n) {
      uint8_t* stage = shared + n % 2 * Shape::kStageBytes;
      sm90::copy_async_wait();
      // The mask of this tile is read until the barrier of the next one, and cleared behind that for the tile
      // after next.
      uint32_t* lost_here = lost + n % 4 * 2;
      const bool is_cut = tile < seen.all.begin || tile + kTile > seen.all.end;
      if (is_cut) drop_values(stage + Shape::kTileBytes, lost_here);
      __syncthreads();
      if (threadIdx.x < 2) lost[(n + 2) % 4 * 2 + threadIdx.x] = 0;
      if (tile + kTile < seen.some.end)
        load_tile(source, tile + kTile, shared + (n + 1) % 2 * Shape::kStageBytes);
      if (mine.some.end <= tile || mine.some.begin >= tile + kTile) continue;
      float s[kKeys][4];
      multiply_keys(queries, sm90::shared_address(stage), s);
      if (args.softcap > 0.0f) cap(args.softcap, rows, s);
      if (tile < mine.all.begin || tile + kTile > mine.all.end) mask(spans, tile, t, s);
      if (is_cut) note_lost(spans, tile, lost_here, rows);
      weigh(args.softcap > 0.0f, rows, s);
      multiply_values(sm90::shared_address(stage + Shape::kTileBytes), s, rows);
    }
    finish(args, numbers, source, batch, kv_head, group, warp_first, last, rows);
  }

 private:
  static __device__ __forceinline__ int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

  static __device__ __forceinline__ Seen seen_by(const AttentionNumbers& numbers, int64_t first,
                                                 int64_t last) {
    Seen seen;
    seen.some = numbers.seen(first, last);
    const AttentionSpan of_last = numbers.seen(last, last);  // later rows see later keys
    seen.all.begin = of_last.begin;
    seen.all.end = of_last.end == 0 ? 0 : numbers.seen(first, first).end;
    return seen;
  }

  /// Starts the copies of this thread's runs of keys and values; zeros stand for those that no row sees.
  static __device__ __forceinline__ void load_tile(const Source& source, int32_t tile, uint8_t* stage) {
    if (!source.is_aligned) return load_tile_by_elements(source, tile, stage);
    const uint32_t to = sm90::shared_address(stage);
    if constexpr (kThreads % kRuns == 0) {
      const int64_t slot = slot_of(source, tile);
      if (tile >= source.span.begin && tile + kTile <= source.span.end &&
          slot + kTile <= int64_t(source.capacity) && source.dim == kDim) {
        constexpr int kStep = kThreads / kRuns;
        const uint32_t at = threadIdx.x / kRuns, d = threadIdx.x % kRuns * 8;
        const f16* key = source.keys + (slot + at) * source.k_slot + d;
        const f16* value = source.values + (slot + at) * source.v_slot + d;
        const uint32_t here = to + at * Shape::kPitch + d * 2;
#pragma unroll
        for (int i = 0; i < kLoads; ++i) {
          sm90::copy_async(here + uint32_t(i * kStep * Shape::kPitch), key, 16);
          sm90::copy_async(here + uint32_t(Shape::kTileBytes + i * kStep * Shape::kPitch), value, 16);
          key += kStep * source.k_slot, value += kStep * source.v_slot;
        }
        return;
      }
    }
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const uint32_t run = uint32_t(i * kThreads) + threadIdx.x, at = run / kRuns, d = run % kRuns * 8;
      const bool is_wanted = is_seen(source, tile + int32_t(at)) && d < source.dim;
      const int64_t slot = is_wanted ? slot_of(source, tile + int32_t(at)) : 0;
      const uint32_t offset = is_wanted ? d : 0, bytes = is_wanted ? 16 : 0;
      sm90::copy_async(to + at * Shape::kPitch + d * 2, source.keys + slot * source.k_slot + offset, bytes);
      sm90::copy_async(to + Shape::kTileBytes + at * Shape::kPitch + d * 2,
                       source.values + slot * source.v_slot + offset, bytes);
    }
  }
  static __device__ __noinline__ void load_tile_by_elements(Source source, int32_t tile, uint8_t* stage) {
#pragma unroll 1
    for (uint32_t run = threadIdx.x; run < uint32_t(kTile * kRuns); run += kThreads) {
      const uint32_t at = run / kRuns, d = run % kRuns * 8;
      const bool is_wanted = is_seen(source, tile + int32_t(at));
      const int64_t slot = is_wanted ? slot_of(source, tile + int32_t(at)) : 0;
      uint16_t* to = reinterpret_cast<uint16_t*>(stage + at * Shape::kPitch) + d;
      for (uint32_t e = 0; e < 8; ++e) {
        const bool is_inside = is_wanted && d + e < source.dim;
        to[e] = is_inside ? source.keys[slot * source.k_slot + d + e].bits : uint16_t(0);
        to[Shape::kTileBytes / 2 + e] =
            is_inside ? source.values[slot * source.v_slot + d + e].bits : uint16_t(0);
      }
    }
  }
  static __device__ __forceinline__ bool is_seen(const Source& source, int32_t key) {
    return key >= source.span.begin && key < source.span.end;
  }
  static __device__ __forceinline__ int64_t slot_of(const Source& source, int32_t key) {
    const uint32_t slot = source.ring_start + uint32_t(key);
    return slot >= source.capacity ? slot - source.capacity : slot;
  }

  /// Replaces this thread's values that are not finite, and notes their keys.
  static __device__ __forceinline__ void drop_values(uint8_t* values, uint32_t* lost) {
#pragma unroll 1
    for (uint32_t run = threadIdx.x; run < uint32_t(kTile * kRuns); run += kThreads) {
      const uint32_t at = run / kRuns, d = run % kRuns * 8;
      uint4* p = reinterpret_cast<uint4*>(values + at * Shape::kPitch + d * 2);
      const uint4 v = *p;
      const uint4 kept = make_uint4(finite(v.x), finite(v.y), finite(v.z), finite(v.w));
      if (((v.x ^ kept.x) | (v.y ^ kept.y) | (v.z ^ kept.z) | (v.w ^ kept.w)) != 0) {
        *p = kept;
        atomicOr(lost + at / 32, 1u << at % 32);
      }
    }
  }
  /// Of two f16, those that are finite; the others 0.
  static __device__ __forceinline__ uint32_t finite(uint32_t halves) {
    if ((halves & 0x7c00u) == 0x7c00u) halves &= 0xffff0000u;
    if ((halves & 0x7c000000u) == 0x7c000000u) halves &= 0xffffu;
    return halves;
  }
  static __device__ __forceinline__ void note_lost(const AttentionSpan* spans, int32_t tile,
                                                   const uint32_t* lost, Rows& rows) {
    const uint64_t keys = lost[0] | uint64_t(lost[1]) << 32;
    if (keys == 0) return;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int32_t begin = spans[8 * r].begin - tile, end = spans[8 * r].end - tile;
      const int32_t low = begin > 0 ? begin : 0, high = end < kTile ? end : kTile;
      if (low < high && ((keys >> low) & (~uint64_t(0) >> (kTile - high + low))) != 0)
        rows.is_exact[r] = true;
    }
  }

  static __device__ __forceinline__ void load_queries(const Args& args, const float* const (&q)[2],
                                                      uint32_t t, const Source& source, Queries& queries,
                                                      Rows& rows) {
    float x[2][kSteps][4];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (source.is_aligned) {
#pragma unroll
        for (int i = 0; i < kSteps * 2; ++i) {
          const uint32_t d = uint32_t(i * 8) + t * 2;
          const float2 pair =
              d < source.dim ? *reinterpret_cast<const float2*>(q[r] + d) : make_float2(0.0f, 0.0f);
          x[r][i / 2][i % 2 * 2] = pair.x, x[r][i / 2][i % 2 * 2 + 1] = pair.y;
        }
      } else {
#pragma unroll
        for (int i = 0; i < kSteps * 4; ++i) {
          const uint32_t d = uint32_t(i / 2 * 8) + t * 2 + uint32_t(i % 2);
          x[r][i / 4][i % 4] = d < source.dim ? q[r][d] : 0.0f;
        }
      }
      float top = 0.0f;
#pragma unroll
      for (int k = 0; k < kSteps; ++k) {
#pragma unroll
        for (int e = 0; e < 4; ++e) top = sm90::larger_magnitude(top, x[r][k][e]);
      }
      top = sm90::larger_magnitude(top, __shfl_xor_sync(0xffffffffu, top, 1));
      top = sm90::larger_magnitude(top, __shfl_xor_sync(0xffffffffu, top, 2));
      rows.is_exact[r] = !(top <= kLargest);
      // The power of two that takes the largest magnitude to 2^13 or more; rows below 2^-113 stay smaller.
      int32_t power = 140 - int32_t(float_bits(top) >> 23);
      power = power > 126 ? 126 : power;
      const float scale = args.scale < 0.0f ? -args.scale : args.scale;
      const float factor =
          scale * (args.softcap > 0.0f ? 1.0f : kLog2E) * float_from_bits(uint32_t(127 - power) << 23);
      float to = float_from_bits(uint32_t(127 + power) << 23);
      if (args.scale < 0.0f) to = -to;
      if (args.scale == 0.0f) to = 0.0f;
      // Never 0, which would make NaN of a logit that a row does not see.
      rows.factor[r] = factor > kSmallest ? factor : kSmallest;
#pragma unroll
      for (int k = 0; k < kSteps; ++k) {
#pragma unroll
        for (int e = 0; e < 4; ++e) x[r][k][e] = rows.is_exact[r] ? 0.0f : x[r][k][e] * to;
      }
    }
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        split(x[i % 2][k][i / 2 * 2], x[i % 2][k][i / 2 * 2 + 1], queries.high[k][i], queries.low[k][i]);
      }
    }
  }
  /// Two numbers as f16, and what that leaves of them.
  static __device__ __forceinline__ void split(float a, float b, uint32_t& high, uint32_t& low) {
    high = sm90::f32_to_f16x2(a, b);
    const float2 taken = sm90::f16x2_to_f32(high);
    low = sm90::f32_to_f16x2(a - taken.x, b - taken.y);
  }

  /// s = queries . keys
  static __device__ __forceinline__ void multiply_keys(const Queries& queries, uint32_t keys,
                                                       float (&s)[kKeys][4]) {
    const uint32_t lane = threadIdx.x % 32;
    const uint32_t from = keys + (lane / 16 * 8 + lane % 8) * Shape::kPitch + lane / 8 % 2 * 16;
#pragma unroll
    for (int j = 0; j < kKeys; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) s[j][e] = 0.0f;
    }
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      uint32_t b[kKeys / 2][4];
#pragma unroll
      for (int j = 0; j < kKeys / 2; ++j)
        sm90::load_matrix_x4(b[j], from + uint32_t(j * 16 * Shape::kPitch + k * 32));
      multiply(queries.high[k], b, s);
      multiply(queries.low[k], b, s);
    }
  }
  template <int kPairs>
  static __device__ __forceinline__ void multiply(const uint32_t (&a)[4], const uint32_t (&b)[kPairs][4],
                                                  float (&d)[kPairs * 2][4]) {
#pragma unroll
    for (int j = 0; j < kPairs; ++j) {
      sm90::mma_f16(d[2 * j], a[0], a[1], a[2], a[3], b[j][0], b[j][1]);
      sm90::mma_f16(d[2 * j + 1], a[0], a[1], a[2], a[3], b[j][2], b[j][3]);
    }
  }

  /// Products to capped logits.
  static __device__ __forceinline__ void cap(float softcap, const Rows& rows, float (&s)[kKeys][4]) {
    const float inner[2] = {rows.factor[0] / softcap, rows.factor[1] / softcap};
#pragma unroll
    for (int j = 0; j < kKeys; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) s[j][e] = softcap * tanh(s[j][e] * inner[e / 2]);
    }
  }
  static __device__ __forceinline__ void mask(const AttentionSpan* spans, int32_t tile, uint32_t t,
                                              float (&s)[kKeys][4]) {
    int32_t low[2], high[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      low[r] = spans[8 * r].begin - tile - int32_t(t * 2);
      high[r] = spans[8 * r].end - tile - int32_t(t * 2);
    }
#pragma unroll
    for (int j = 0; j < kKeys; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int32_t key = j * 8 + e % 2;
        if (key < low[e / 2] || key >= high[e / 2]) s[j][e] = -infinity();
      }
    }
  }

  /// Logits to weights, and what the sums so far become by them.
  static __device__ __forceinline__ void weigh(bool is_capped, Rows& rows, float (&s)[kKeys][4]) {
    float correction[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float factor = is_capped ? kLog2E : rows.factor[r];
      float top = s[0][2 * r];
#pragma unroll
      for (int j = 0; j < kKeys; ++j) top = fmaxf(top, fmaxf(s[j][2 * r], s[j][2 * r + 1]));
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
      const float bias = fminf(rows.bias[r], __fmaf_rn(-factor, top, kShift));
      correction[r] = sm90::exp2_approx(bias - rows.bias[r]);
      rows.bias[r] = bias;
      float sum = 0.0f;
#pragma unroll
      for (int j = 0; j < kKeys; ++j) {
#pragma unroll
        for (int e = 2 * r; e < 2 * r + 2; ++e) {
          s[j][e] = sm90::exp2_approx(__fmaf_rn(s[j][e], factor, bias));
          sum += s[j][e];
        }
      }
      rows.sum[r] = rows.sum[r] * correction[r] + sum;
    }
    if (__any_sync(0xffffffffu, correction[0] != 1.0f || correction[1] != 1.0f)) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
#pragma unroll
        for (int e = 0; e < 4; ++e) rows.out[c][e] *= correction[e / 2];
      }
    }
  }

  /// out += weights . values
  static __device__ __forceinline__ void multiply_values(uint32_t values, const float (&weights)[kKeys][4],
                                                         Rows& rows) {
    const uint32_t lane = threadIdx.x % 32;
    const uint32_t from = values + (lane / 8 % 2 * 8 + lane % 8) * Shape::kPitch + lane / 16 * 16;
#pragma unroll
    for (int k = 0; k < kTile / 16; ++k) {
      uint32_t high[4], low[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        split(weights[2 * k + i / 2][i % 2 * 2], weights[2 * k + i / 2][i % 2 * 2 + 1], high[i], low[i]);
      }
#pragma unroll
      for (int c = 0; c < kColumns; c += kAtOnce) {
        uint32_t b[kAtOnce / 2][4];
#pragma unroll
        for (int j = 0; j < kAtOnce / 2; ++j) {
          sm90::load_matrix_x4_transposed(b[j], from + uint32_t(k * 16 * Shape::kPitch + (c + 2 * j) * 16));
        }
        float(&out)[kAtOnce][4] = *reinterpret_cast<float(*)[kAtOnce][4]>(&rows.out[c]);
        multiply(high, b, out);
        multiply(low, b, out);
      }
    }
  }

  /// Sums to outputs. Rows that have to be computed again are not written before.
  static __device__ __forceinline__ void finish(const Args& args, const AttentionNumbers& numbers,
                                                const Source& source, int64_t batch, int64_t kv_head,
                                                int64_t group, int64_t warp_first, int64_t last, Rows& rows) {
    const uint32_t g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    uint32_t again[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int64_t row = warp_first + g + 8 * r, taken = least(row, last);
      const int64_t head = kv_head * group + taken % group, position = taken / group;
      const float sink = args.sinks.ptr ? args.sinks.ptr[head] * kLog2E : -infinity();
      float sum = rows.sum[r];
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      const float bias = fminf(rows.bias[r], kShift - sink);
      const float rescale = sm90::exp2_approx(bias - rows.bias[r]);
      const bool is_blind = sum == 0.0f;
      if (!is_blind) sum *= rescale;
      const bool has_output = sum != 0.0f;
      sum += sm90::exp2_approx(sink + bias);
      const float factor = rescale / sum;
      float rest = 0.0f;  // of all outputs: NaN if one is not finite
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
#pragma unroll
        for (int e = 2 * r; e < 2 * r + 2; ++e) {
          rest = __fmaf_rn(rows.out[c][e], 0.0f, rest);
          rows.out[c][e] = has_output ? rows.out[c][e] * factor : 0.0f;
        }
      }
      rest += __shfl_xor_sync(0xffffffffu, rest, 1);
      rest += __shfl_xor_sync(0xffffffffu, rest, 2);
      const bool is_wanted = row <= last;
      const bool is_done = rest == 0.0f && sum <= kLargest && !rows.is_exact[r];
      again[r] = __ballot_sync(0xffffffffu, is_wanted && !is_done);
      if (!is_wanted || !is_done) continue;
      float* y = args.y.ptr + batch * args.y_batch + head * args.y_head + position * args.y_row;
      const bool is_even = source.dim % 2 == 0 && (reinterpret_cast<uint64_t>(y) & 7) == 0;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const uint32_t d = uint32_t(c * 8) + t * 2;
        if (is_even) {
          if (d < source.dim)
            *reinterpret_cast<float2*>(y + d) = make_float2(rows.out[c][2 * r], rows.out[c][2 * r + 1]);
        } else {
          if (d < source.dim) y[d] = rows.out[c][2 * r];
          if (d + 1 < source.dim) y[d + 1] = rows.out[c][2 * r + 1];
        }
      }
      if (args.lse.ptr && t == 0) {
        args.lse.ptr[(batch * args.heads + head) * args.seq + position] =
            sum == 0.0f ? -infinity() : (log2f(sum) - bias) * kLog2;
      }
    }
    if ((again[0] | again[1]) == 0) return;
#pragma unroll 1
    for (int i = 0; i < 16; ++i) {
      if ((again[i / 8] >> (i % 8 * 4) & 1) == 0) continue;
      Watch::row();
      compute_row(args, numbers, source, batch, kv_head, group, warp_first + i);
    }
  }

  /// A row as AttentionTiled has it, by the threads of a warp.
  static __device__ __noinline__ void compute_row(const Args& args, AttentionNumbers numbers, Source source,
                                                  int64_t batch, int64_t kv_head, int64_t group,
                                                  int64_t row) {
    const uint32_t lane = threadIdx.x % 32;
    const int64_t head = kv_head * group + row % group, position = row / group;
    const AttentionSpan span = numbers.seen(position, position);
    const float* q = args.q.ptr + batch * args.q_batch + head * args.q_head + position * args.q_row;
    float max = ops::kAttentionLowest, sum = 0.0f;
    float out[kDim / 32];
#pragma unroll
    for (int c = 0; c < kDim / 32; ++c) out[c] = 0.0f;
    for (int32_t tile = span.begin / kTile * kTile; tile < span.end; tile += kTile) {
      float z[2];
      float top = -infinity();
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int32_t key = tile + int32_t(lane) + h * 32;
        z[h] = -infinity();
        if (key < span.begin || key >= span.end) continue;
        const f16* k = source.keys + slot_of(source, key) * source.k_slot;
        float dot = 0.0f;
        for (uint32_t d = 0; d < source.dim; ++d) dot = __fmaf_rn(q[d], load(k + d), dot);
        z[h] = attention_logit(args, dot);
        top = attention_max(top, z[h]);
      }
      for (int step = 16; step > 0; step /= 2)
        top = attention_max(top, __shfl_xor_sync(0xffffffffu, top, step));
      const float max_now = top > max ? top : max;
      float sum_now = 0.0f;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int32_t key = tile + int32_t(lane) + h * 32;
        const bool is_unseen = key < span.begin || key >= span.end;
        z[h] = is_unseen ? kUnseen : exp(z[h] - max_now);
        if (!is_unseen) sum_now += z[h];
      }
      for (int step = 16; step > 0; step /= 2) sum_now += __shfl_xor_sync(0xffffffffu, sum_now, step);
      const float correction = attention_correction(max, max_now);
      max = max_now;
      sum = sum * correction + sum_now;
#pragma unroll
      for (int c = 0; c < kDim / 32; ++c) out[c] *= correction;
      for (int j = 0; j < kTile; ++j) {
        const float weight = __shfl_sync(0xffffffffu, j < 32 ? z[0] : z[1], j % 32);
        if (weight < 0.0f) continue;
        const f16* v = source.values + slot_of(source, tile + j) * source.v_slot;
#pragma unroll
        for (int c = 0; c < kDim / 32; ++c) {
          const uint32_t d = uint32_t(c * 32) + lane;
          if (d < source.dim) out[c] = __fmaf_rn(weight, load(v + d), out[c]);
        }
      }
    }
    const float sink = args.sinks.ptr ? args.sinks.ptr[head] : -infinity();
    const AttentionEnd end = attention_end(max, sink);
    sum = sum == 0.0f ? 0.0f : sum * end.rescale;
    const bool has_output = sum != 0.0f;
    sum += exp(sink - end.max);
    const float factor = end.rescale / sum;
    float* y = args.y.ptr + batch * args.y_batch + head * args.y_head + position * args.y_row;
#pragma unroll
    for (int c = 0; c < kDim / 32; ++c) {
      const uint32_t d = uint32_t(c * 32) + lane;
      if (d < source.dim) y[d] = has_output ? out[c] * factor : 0.0f;
    }
    if (args.lse.ptr && lane == 0) {
      args.lse.ptr[(batch * args.heads + head) * args.seq + position] =
          sum == 0.0f ? -infinity() : end.max + log(sum);
    }
  }
};

}  // namespace gpu
}  // namespace mlxn
