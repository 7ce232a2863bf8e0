#pragma once

#include "ops/attention/args.h"
#include "portable/dialect.h"

namespace mlxn {
namespace gpu {

// Attention over a cache with an online softmax over tiles of kAttentionTile keys. As on the CPU, the query rows of a key head
// are numbered (position, head of the group), so that neighbours see nearly the same keys, and a row has a state {unnormalised
// output, maximum, sum}. What a row gets does not depend on the rows beside it: tiles and parts start at multiples of their
// sizes, and one in which a row sees no key leaves its state as it was, bit for bit.
//
//   split  few query rows per key head (decode): groups share the keys of a head by parts and leave a state per row and part;
//          merge joins the parts of each row
//   tiled  many: a group has a block of rows and goes through their keys

/// The weight of a key that a row does not see; those of others are at least 0, or NaN.
constexpr float kUnseen = -1.0f;

/// Which keys rows see. Keys are counted in 32 bits, which the host has checked.
struct AttentionSpan {
  int32_t begin, end;
};
struct AttentionNumbers {
  int64_t p0, window;
  int32_t kv_len, ring_start, capacity;
  bool causal;

  /// Of the positions from first to last.
  MLXN_FN AttentionSpan seen(int64_t first, int64_t last) const {
    const int64_t len = kv_len;
    int64_t begin = window > 0 ? p0 + first - window + 1 : 0;
    int64_t end = causal ? p0 + last + 1 : len;
    if (begin < 0) begin = 0;
    if (end > len) end = len;
    AttentionSpan span;
    span.begin = begin < end ? int32_t(begin) : 0;
    span.end = begin < end ? int32_t(end) : 0;
    return span;
  }
  MLXN_FN int64_t slot(int32_t key) const {
    const int64_t s = int64_t(ring_start) + key;
    return s >= capacity ? s - capacity : s;
  }
};
MLXN_FN AttentionNumbers attention_numbers(const ops::AttentionArgs& args) {
  AttentionNumbers n;
  const int64_t kv_len = load(args.kv_len);
  n.p0 = (args.flags & ops::kAttentionHasP0) != 0 ? load(args.p0) : kv_len - args.seq;
  n.window = args.window;
  n.kv_len = int32_t(kv_len);
  n.ring_start = int32_t(load(args.ring_start));
  n.capacity = int32_t(args.capacity);
  n.causal = (args.flags & ops::kAttentionCausal) != 0;
  return n;
}

/// kCount elements from d of a row of dim; those beyond it are 0.
template <uint32_t kCount, class T>
MLXN_FN void attention_load(MLXN_GLOBAL const T* row, uint32_t d, uint32_t dim, bool aligned, float* out) {
  if (aligned && d < dim) {
    load_run<kCount>(row + d, out);
  } else {
    for (uint32_t i = 0; i < kCount; ++i) out[i] = d + i < dim ? load(row + d + i) : 0.0f;
  }
}

MLXN_FN float attention_logit(const ops::AttentionArgs& args, float dot) {
  const float z = dot * args.scale;
  return args.softcap > 0.0f ? args.softcap * tanh(z / args.softcap) : z;
}
/// The larger; NaN loses to any number.
MLXN_FN float attention_max(float a, float b) { return b > a || is_nan(a) ? b : a; }
/// What outputs and sums so far are multiplied by when the maximum rises.
MLXN_FN float attention_correction(float before, float now) { return now == before ? 1.0f : exp(before - now); }

/// The last step of a row: how its sums become its output and LSE, with the sink.
struct AttentionEnd {
  float max;      ///< of logits and sink
  float rescale;  ///< of sums that were formed against the maximum of the logits
};
MLXN_FN AttentionEnd attention_end(float max, float sink) {
  AttentionEnd e;
  e.max = sink > max || is_nan(sink) ? sink : max;
  e.rescale = attention_correction(max, e.max);
  return e;
}

/// Floats of a state of the split kernel: the output in whole 16 bytes, then {maximum, sum, -, -}.
MLXN_FN uint32_t attention_state(uint32_t dim) { return (dim + 3) / 4 * 4 + 4; }

/// A group has up to kRows query rows of one key head and one part of its keys. Scores: eight lanes share a key, 16 bytes of it
/// each at a time, against queries in shared memory. Softmax: a SIMD-group has whole rows. Output: kDim / 4 threads share a value,
/// four elements each for all rows, and the sums of the groups of threads meet at the end of the part. Keys and values go from
/// memory to registers once for all rows of the group. Bound by memory. Grid: parts x key heads x blocks of rows, the last fastest.
template <class T, uint32_t kDim, uint32_t kRows>
struct AttentionSplit {
  using Args = ops::AttentionArgs;
  static constexpr uint32_t kThreads = 128;
  static constexpr uint32_t kTile = ops::kAttentionTile;
  static constexpr uint32_t kSimds = kThreads / kSimdWidth;
  static constexpr uint32_t kKeyLanes = 8;
  static constexpr uint32_t kRun = 16 / sizeof(T);                      // elements of a key that a lane takes at a time
  static constexpr uint32_t kRuns = kDim / (kKeyLanes * kRun);
  static constexpr uint32_t kKeysAtOnce = kThreads / kKeyLanes;
  static constexpr uint32_t kKeyBlock = 2;                              // keys that share a read of the queries
  static constexpr uint32_t kValueLanes = kDim / 4;
  static constexpr uint32_t kSubsets = kThreads / kValueLanes;          // a value of every kSubsets is a thread's
  static constexpr uint32_t kValueBlock = 4;                            // values on their way at once
  static constexpr uint32_t kSimdRows = kRows / kSimds;
  static_assert(kDim >= 64 && kDim <= 512 && kRows % kSimds == 0 && kTile == 2 * kSimdWidth, "see above");
  static_assert(kTile % (kSubsets * kValueBlock) == 0 && kTile % (kKeysAtOnce * kKeyBlock) == 0, "whole steps");

  struct alignas(16) Shared {
    float work[kRows * kThreads * 4];  // queries [row][kDim], at the end outputs [subset][row][kDim]
    float weights[kTile * kRows];      // [key][row]: logits before the scale, then weights
    float corrections[kRows];
  };

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    const AttentionNumbers numbers = attention_numbers(args);
    const uint32_t dim = uint32_t(args.head_dim), group = uint32_t(args.heads / args.kv_heads);
    const uint32_t rows = uint32_t(args.seq) * group;
    const uint32_t blocks = ceil_div(rows, kRows), all_heads = uint32_t(args.batch) * uint32_t(args.kv_heads);
    const uint32_t block = t.group.x % blocks, head_part = t.group.x / blocks;
    const uint32_t all_head = head_part % all_heads, part = head_part / all_heads;
    const int64_t batch = all_head / uint32_t(args.kv_heads), kv_head = all_head % uint32_t(args.kv_heads);
    const uint32_t first = block * kRows, count = min(rows - first, kRows);

    // Parts are counted from the first that any row of the head sees, so that a window needs no more of them than it is wide.
    const AttentionSpan head_span = numbers.seen(0, args.seq - 1);
    const int64_t part_begin = (int64_t(head_span.begin >> args.part_shift) + part) << args.part_shift;
    const int64_t part_end = part_begin + (int64_t(1) << args.part_shift);
    const AttentionSpan span = numbers.seen(first / group, (first + count - 1) / group);
    const int32_t begin = int32_t(max(part_begin, int64_t(span.begin) / kTile * kTile));
    const int32_t end = int32_t(min(part_end, int64_t(span.end)));
    if (part_begin >= span.end || begin >= end) return;

    const bool aligned = (args.flags & ops::kAttentionAligned) != 0;
    for (uint32_t i = t.index; i < kRows * kDim / 4; i += kThreads) {
      const uint32_t r = i / (kDim / 4), d = i % (kDim / 4) * 4;
      float q[4] = {0.0f, 0.0f, 0.0f, 0.0f};
      if (r < count) {
        const int64_t row = first + r, head = kv_head * group + row % group;
        attention_load<4>(args.q.ptr + batch * args.q_batch + head * args.q_head + row / group * args.q_row, d, dim, aligned, q);
      }
      for (uint32_t e = 0; e < 4; ++e) shared.work[r * kDim + d + e] = q[e];
    }
    MLXN_GLOBAL const T* keys = (MLXN_GLOBAL const T*)args.k.ptr + batch * args.k_batch + kv_head * args.k_head;
    MLXN_GLOBAL const T* values = (MLXN_GLOBAL const T*)args.v.ptr + batch * args.v_batch + kv_head * args.v_head;
    float maxima[kSimdRows], sums[kSimdRows];
    AttentionSpan spans[kSimdRows];
    MLXN_UNROLL
    for (uint32_t i = 0; i < kSimdRows; ++i) {
      const uint32_t r = t.simd() + i * kSimds;
      maxima[i] = ops::kAttentionLowest;
      sums[i] = 0.0f;
      spans[i] = numbers.seen((first + r) / group, (first + r) / group);
      if (r >= count) spans[i].end = 0;
    }
    float out[kRows][4];
    MLXN_UNROLL
    for (uint32_t r = 0; r < kRows; ++r) {
      for (uint32_t e = 0; e < 4; ++e) out[r][e] = 0.0f;
    }
    t.barrier();

    for (int32_t tile = begin; tile < end; tile += int32_t(kTile)) {
      // Keys of this tile that some row sees.
      const int32_t low = span.begin > tile ? span.begin - tile : 0;
      const int32_t high = min(end - tile, int32_t(kTile));
      multiply_keys(args, t, shared, numbers, keys, tile, low, high, aligned);
      t.barrier();
      MLXN_UNROLL
      for (uint32_t i = 0; i < kSimdRows; ++i) {
        const uint32_t r = t.simd() + i * kSimds;
        float z[2];
        float top = -infinity();
        for (uint32_t h = 0; h < 2; ++h) {
          const uint32_t j = t.lane() + h * kSimdWidth;
          const int32_t key = tile + int32_t(j);
          z[h] = -infinity();
          if (key >= spans[i].begin && key < spans[i].end) {
            z[h] = attention_logit(args, shared.weights[j * kRows + r]);
            top = attention_max(top, z[h]);
          }
        }
        top = simd_max(t, top);
        const float max_now = top > maxima[i] ? top : maxima[i];
        float sum = 0.0f;
        for (uint32_t h = 0; h < 2; ++h) {
          const uint32_t j = t.lane() + h * kSimdWidth;
          const int32_t key = tile + int32_t(j);
          float weight = kUnseen;
          if (key >= spans[i].begin && key < spans[i].end) {
            weight = exp(z[h] - max_now);
            sum += weight;
          }
          shared.weights[j * kRows + r] = weight;
        }
        sum = simd_sum(t, sum);
        const float correction = attention_correction(maxima[i], max_now);
        sums[i] = sums[i] * correction + sum;
        maxima[i] = max_now;
        if (t.lane() == 0) shared.corrections[r] = correction;
      }
      t.barrier();
      multiply_values(args, t, shared, numbers, values, tile, low, high, aligned, out);
      t.barrier();
    }

    const uint32_t subset = t.index / kValueLanes, d = t.index % kValueLanes * 4;
    MLXN_UNROLL
    for (uint32_t r = 0; r < kRows; ++r) {
      for (uint32_t e = 0; e < 4; ++e) shared.work[(subset * kRows + r) * kDim + d + e] = out[r][e];
    }
    t.barrier();
    // State of row r of this part: [part][batch, heads, seq].
    const uint32_t state = attention_state(dim);
    const int64_t all_rows = int64_t(args.batch) * args.heads * args.seq;
    for (uint32_t i = t.index; i < count * kDim; i += kThreads) {
      const uint32_t r = i / kDim, column = i % kDim;
      if (column >= dim) continue;
      float sum = 0.0f;
      for (uint32_t s = 0; s < kSubsets; ++s) sum += shared.work[(s * kRows + r) * kDim + column];
      args.work.ptr[(part * all_rows + row_index(args, batch, kv_head, group, first + r)) * state + column] = sum;
    }
    MLXN_UNROLL
    for (uint32_t i = 0; i < kSimdRows; ++i) {
      const uint32_t r = t.simd() + i * kSimds;
      if (t.lane() != 0 || r >= count) continue;
      MLXN_GLOBAL float* to = args.work.ptr + (part * all_rows + row_index(args, batch, kv_head, group, first + r) + 1) * state - 4;
      to[0] = maxima[i];
      to[1] = sums[i];
    }
  }

  /// Of a row of a key head among [batch, heads, seq].
  static MLXN_FN int64_t row_index(const Args& args, int64_t batch, int64_t kv_head, uint32_t group, uint32_t row) {
    return (batch * args.heads + kv_head * group + row % group) * args.seq + row / group;
  }

  /// weights[j][r] = q[r] . keys[tile + j] for j in [low, high), the others without meaning.
  static MLXN_FN void multiply_keys(const Args& args, const Thread& t, MLXN_SHARED Shared& shared, const AttentionNumbers& numbers,
                                    MLXN_GLOBAL const T* keys, int32_t tile, int32_t low, int32_t high, bool aligned) {
    const uint32_t part = t.lane() % kKeyLanes;
    for (uint32_t first = 0; first < kTile; first += kKeysAtOnce * kKeyBlock) {
      if (int32_t(first) >= high || int32_t(first + kKeysAtOnce * kKeyBlock) <= low) continue;
      float dot[kKeyBlock][kRows];
      MLXN_GLOBAL const T* key[kKeyBlock];
      uint32_t length[kKeyBlock];
      MLXN_UNROLL
      for (uint32_t b = 0; b < kKeyBlock; ++b) {
        const int32_t j = int32_t(first + b * kKeysAtOnce + t.index / kKeyLanes);
        const bool wanted = j >= low && j < high;
        length[b] = wanted ? uint32_t(args.head_dim) : 0;
        key[b] = wanted ? keys + numbers.slot(tile + j) * args.k_slot : keys;
        MLXN_UNROLL
        for (uint32_t r = 0; r < kRows; ++r) dot[b][r] = 0.0f;
      }
      MLXN_UNROLL
      for (uint32_t c = 0; c < kRuns; ++c) {
        const uint32_t d = (c * kKeyLanes + part) * kRun;
        float x[kKeyBlock][kRun];
        MLXN_UNROLL
        for (uint32_t b = 0; b < kKeyBlock; ++b) attention_load<kRun>(key[b], d, length[b], aligned, x[b]);
        MLXN_UNROLL
        for (uint32_t r = 0; r < kRows; ++r) {
          for (uint32_t e = 0; e < kRun; e += 4) {
            const f32x4 q = shared_f32x4(shared.work + r * kDim + d + e);
            MLXN_UNROLL
            for (uint32_t b = 0; b < kKeyBlock; ++b) {
              float sum = dot[b][r];
              sum = fma(q.x, x[b][e], sum);
              sum = fma(q.y, x[b][e + 1], sum);
              sum = fma(q.z, x[b][e + 2], sum);
              dot[b][r] = fma(q.w, x[b][e + 3], sum);
            }
          }
        }
      }
      MLXN_UNROLL
      for (uint32_t b = 0; b < kKeyBlock; ++b) {
        MLXN_UNROLL
        for (uint32_t r = 0; r < kRows; ++r) {
          for (uint32_t step = kKeyLanes / 2; step > 0; step /= 2) dot[b][r] += t.shuffle_xor(dot[b][r], step);
        }
        const uint32_t j = first + b * kKeysAtOnce + t.index / kKeyLanes;
        if (part == 0) {
          MLXN_UNROLL
          for (uint32_t r = 0; r < kRows; ++r) shared.weights[j * kRows + r] = dot[b][r];
        }
      }
    }
  }

  /// out = out * correction + weights . values
  static MLXN_FN void multiply_values(const Args& args, const Thread& t, MLXN_SHARED Shared& shared,
                                      const AttentionNumbers& numbers, MLXN_GLOBAL const T* values, int32_t tile, int32_t low,
                                      int32_t high, bool aligned, float (&out)[kRows][4]) {
    const uint32_t subset = t.index / kValueLanes, d = t.index % kValueLanes * 4;
    MLXN_UNROLL
    for (uint32_t r = 0; r < kRows; ++r) {
      const float correction = shared.corrections[r];
      for (uint32_t e = 0; e < 4; ++e) out[r][e] *= correction;
    }
    for (uint32_t first = 0; first < kTile; first += kSubsets * kValueBlock) {
      if (int32_t(first) >= high || int32_t(first + kSubsets * kValueBlock) <= low) continue;
      float x[kValueBlock][4];
      MLXN_UNROLL
      for (uint32_t b = 0; b < kValueBlock; ++b) {
        const int32_t j = int32_t(first + b * kSubsets + subset);
        const bool wanted = j >= low && j < high;
        attention_load<4>(wanted ? values + numbers.slot(tile + j) * args.v_slot : values, d,
                          wanted ? uint32_t(args.head_dim) : 0, aligned, x[b]);
      }
      MLXN_UNROLL
      for (uint32_t b = 0; b < kValueBlock; ++b) {
        MLXN_SHARED const float* weights = shared.weights + (first + b * kSubsets + subset) * kRows;
        MLXN_UNROLL
        for (uint32_t r = 0; r < kRows; r += 4) {
          const f32x4 w = shared_f32x4(weights + r);
          add_value(w.x, x[b], out[r]);
          add_value(w.y, x[b], out[r + 1]);
          add_value(w.z, x[b], out[r + 2]);
          add_value(w.w, x[b], out[r + 3]);
        }
      }
    }
  }
  static MLXN_FN void add_value(float weight, const float (&x)[4], float (&out)[4]) {
    if (weight < 0.0f) return;
    for (uint32_t e = 0; e < 4; ++e) out[e] = fma(weight, x[e], out[e]);
  }
};

/// A group joins the parts of one query row: their maximum and sum first, a thread per part, then the outputs, a SIMD-group for every
/// fourth part. Bound by the latency of reading the states, which are a few per cent of the keys and values.
struct AttentionMerge {
  using Args = ops::AttentionArgs;
  static constexpr uint32_t kThreads = 128;
  static constexpr uint32_t kSimds = kThreads / kSimdWidth;
  /// Rows of one call see as many keys more than a window has as there are positions.
  static constexpr uint32_t kParts = ops::kAttentionGpuParts + 2;
  static constexpr uint32_t kColumns = kSimdWidth * 4;
  struct alignas(16) Shared {
    float out[kSimds][kColumns];
    float weights[kParts];
    float scratch[kSimds];
  };

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    const AttentionNumbers numbers = attention_numbers(args);
    const uint32_t dim = uint32_t(args.head_dim), state = attention_state(dim);
    const uint32_t seq = uint32_t(args.seq);
    const int64_t row = t.group.x, position = t.group.x % seq;
    const int64_t head = t.group.x / seq % uint32_t(args.heads), batch = t.group.x / seq / uint32_t(args.heads);
    const int64_t all_rows = t.groups.x;
    const AttentionSpan span = numbers.seen(position, position);
    const uint32_t head_first = uint32_t(numbers.seen(0, args.seq - 1).begin >> args.part_shift);
    const uint32_t first = uint32_t(span.begin >> args.part_shift) - (span.end > 0 ? head_first : 0);
    const uint32_t count = span.end > 0 ? uint32_t((span.end - 1) >> args.part_shift) - uint32_t(span.begin >> args.part_shift) + 1 : 0;
    MLXN_GLOBAL const float* states = args.work.ptr + (first * all_rows + row) * state;
    const int64_t step = all_rows * state;

    float top = ops::kAttentionLowest;
    for (uint32_t p = t.index; p < count; p += kThreads) top = attention_max(top, states[p * step + state - 4]);
    top = group_max<kThreads>(t, top, shared.scratch);
    const float sink = args.sinks.ptr ? args.sinks.ptr[head] : -infinity();
    top = sink > top || is_nan(sink) ? sink : top;
    float sum = 0.0f;
    for (uint32_t p = t.index; p < count; p += kThreads) {
      const float part_sum = states[p * step + state - 3];
      const float weight = attention_correction(states[p * step + state - 4], top);
      shared.weights[p] = part_sum == 0.0f ? kUnseen : weight;
      if (part_sum != 0.0f) sum += part_sum * weight;
    }
    sum = group_sum<kThreads>(t, sum, shared.scratch);
    t.barrier();
    const bool seen = sum != 0.0f;
    sum += exp(sink - top);
    const float inverse = seen ? 1.0f / sum : 0.0f;
    MLXN_GLOBAL float* y = args.y.ptr + batch * args.y_batch + head * args.y_head + position * args.y_row;
    for (uint32_t c = 0; c < dim; c += kColumns) {
      const uint32_t d = c + t.lane() * 4;
      float out[4] = {0.0f, 0.0f, 0.0f, 0.0f};
      if (d < dim) {
        const uint32_t left = min(dim - d, 4u);
        for (uint32_t p = t.simd(); p < count; p += kSimds) {
          const float weight = shared.weights[p];
          if (weight < 0.0f) continue;
          MLXN_GLOBAL const float* from = states + p * step + d;
          if (left == 4) {
            const f32x4 v = load_f32x4(from);
            out[0] = fma(v.x, weight, out[0]);
            out[1] = fma(v.y, weight, out[1]);
            out[2] = fma(v.z, weight, out[2]);
            out[3] = fma(v.w, weight, out[3]);
          } else {
            for (uint32_t e = 0; e < left; ++e) out[e] = fma(from[e], weight, out[e]);
          }
        }
      }
      if (c > 0) t.barrier();
      for (uint32_t e = 0; e < 4; ++e) shared.out[t.simd()][t.lane() * 4 + e] = out[e];
      t.barrier();
      for (uint32_t i = t.index; i < kColumns && c + i < dim; i += kThreads) {
        float total = 0.0f;
        for (uint32_t s = 0; s < kSimds; ++s) total += shared.out[s][i];
        y[c + i] = seen ? total * inverse : 0.0f;
      }
    }
    if (args.lse.ptr && t.index == 0) args.lse.ptr[row] = sum == 0.0f ? -infinity() : top + log(sum);
  }
};

/// A group has a block of query rows of one key head and goes through the keys that they see, tile by tile; tiles that no row
/// sees are skipped. Threads are 16 x 16: a thread has kRows / 16 rows, four keys of a tile and every fourth run of four columns of
/// the output. Both products go through shared memory in slices, transposed where that makes a thread's reads four
/// floats; the next slice is on its way from memory while one is multiplied. Bound by f32 multiply-adds.
/// Grid: blocks x key heads, the last rows first, because they see the most keys.
template <class T, uint32_t kDim>
struct AttentionTiled {
  using Args = ops::AttentionArgs;
  static constexpr uint32_t kThreads = 256;
  static constexpr uint32_t kTile = ops::kAttentionTile;
  static constexpr uint32_t kRows = kDim <= 256 ? 64 : 32;
  static constexpr uint32_t kMine = kRows / 16;       // rows of a thread
  static constexpr uint32_t kColumns = kDim / 64;     // runs of four columns of a thread
  static constexpr uint32_t kSlice = 16;              // elements of queries and keys in a slice
  static constexpr uint32_t kRowPitch = kRows + 4, kKeyPitch = kTile + 4;
  static constexpr uint32_t kValues = 2048 / kDim;    // values in a slice
  static constexpr uint32_t kValueStep = kThreads * 4 / kDim;
  static constexpr uint32_t kLoads = kValues / kValueStep;
  static constexpr uint32_t kKeysAt = kSlice * kRowPitch;
  static constexpr uint32_t kWork = kKeysAt + kSlice * kKeyPitch > 2048 ? kKeysAt + kSlice * kKeyPitch : 2048;
  static_assert(kTile == 64 && kTile % kValues == 0 && kThreads * 4 == kTile * kSlice, "a thread loads four elements of one key");

  struct alignas(16) Shared {
    float work[kWork];                  // slices of queries [kSlice][row] and keys [kSlice][key]; slice of values [kValues][kDim]
    float weights[kTile * kRowPitch];   // [key][row]
  };

  /// What a thread knows of its rows.
  struct Rows {
    AttentionSpan span[kMine];
    float max[kMine], sum[kMine];
    float out[kMine][kColumns][4];
  };

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    const AttentionNumbers numbers = attention_numbers(args);
    const uint32_t dim = uint32_t(args.head_dim);
    const int64_t group = args.heads / args.kv_heads, all = args.seq * group;
    const uint32_t all_heads = uint32_t(args.batch) * uint32_t(args.kv_heads);
    const uint32_t all_head = t.group.x % all_heads, blocks = t.groups.x / all_heads;
    const int64_t batch = all_head / uint32_t(args.kv_heads), kv_head = all_head % uint32_t(args.kv_heads);
    const int64_t first = int64_t(blocks - 1 - t.group.x / all_heads) * kRows;
    const uint32_t count = uint32_t(min(all - first, int64_t(kRows)));
    const bool aligned = (args.flags & ops::kAttentionAligned) != 0;
    const uint32_t ty = t.index / 16, tx = t.index % 16;

    // The four elements of a slice of queries and of keys that this thread brings: of row and key t.index / 4.
    const uint32_t load_row = t.index / 4, load_d = t.index % 4 * 4;
    const bool has_row = load_row < count;
    const int64_t query = first + (has_row ? load_row : 0);
    MLXN_GLOBAL const float* q = args.q.ptr + batch * args.q_batch + (kv_head * group + query % group) * args.q_head + query / group * args.q_row;
    MLXN_GLOBAL const T* keys = (MLXN_GLOBAL const T*)args.k.ptr + batch * args.k_batch + kv_head * args.k_head;
    MLXN_GLOBAL const T* values = (MLXN_GLOBAL const T*)args.v.ptr + batch * args.v_batch + kv_head * args.v_head;

    Rows mine;
    MLXN_UNROLL
    for (uint32_t r = 0; r < kMine; ++r) {
      const uint32_t row = ty * kMine + r;
      const int64_t position = (first + row) / group;
      mine.span[r] = numbers.seen(position, position);
      if (row >= count) mine.span[r].end = 0;
      mine.max[r] = ops::kAttentionLowest;
      mine.sum[r] = 0.0f;
      MLXN_UNROLL
      for (uint32_t c = 0; c < kColumns; ++c) {
        for (uint32_t e = 0; e < 4; ++e) mine.out[r][c][e] = 0.0f;
      }
    }
    const int64_t first_position = first / group, last_position = (first + count - 1) / group;
    const AttentionSpan span = numbers.seen(first_position, last_position);
    // Keys that every row of the block sees: later rows see later keys.
    const AttentionSpan last_span = numbers.seen(last_position, last_position);
    const int32_t common_begin = last_span.begin;
    const int32_t common_end = last_span.end == 0 ? 0 : numbers.seen(first_position, first_position).end;

    for (int32_t tile = span.begin / int32_t(kTile) * int32_t(kTile); tile < span.end; tile += int32_t(kTile)) {
      const int32_t low = span.begin > tile ? span.begin - tile : 0;  // keys of this tile that some row sees
      const int32_t high = min(span.end - tile, int32_t(kTile));
      float s[kMine][4];
      MLXN_UNROLL
      for (uint32_t r = 0; r < kMine; ++r) {
        for (uint32_t e = 0; e < 4; ++e) s[r][e] = 0.0f;
      }
      const bool has_key = int32_t(load_row) >= low && int32_t(load_row) < high;
      MLXN_GLOBAL const T* key = has_key ? keys + numbers.slot(tile + int32_t(load_row)) * args.k_slot : keys;
      float next_q[4], next_k[4];
      attention_load<4>(q, load_d, has_row ? dim : 0, aligned, next_q);
      attention_load<4>(key, load_d, has_key ? dim : 0, aligned, next_k);
      for (uint32_t d = 0; d < dim; d += kSlice) {
        t.barrier();
        for (uint32_t e = 0; e < 4; ++e) {
          if (load_row < kRows) shared.work[(load_d + e) * kRowPitch + load_row] = next_q[e];
          shared.work[kKeysAt + (load_d + e) * kKeyPitch + load_row] = next_k[e];
        }
        t.barrier();
        if (d + kSlice < dim) {
          attention_load<4>(q, d + kSlice + load_d, has_row ? dim : 0, aligned, next_q);
          attention_load<4>(key, d + kSlice + load_d, has_key ? dim : 0, aligned, next_k);
        }
        multiply_keys(shared, ty, tx, s);
      }
      float next_v[kLoads][4];
      load_values(args, t, numbers, values, tile, 0, low, high, aligned, next_v);
      weigh(args, t, shared, tile, s, mine);
      const bool all_seen = count == kRows && tile >= common_begin && tile + int32_t(kTile) <= common_end;
      for (uint32_t j = 0; j < kTile; j += kValues) {
        t.barrier();
        for (uint32_t i = 0; i < kLoads; ++i) {
          for (uint32_t e = 0; e < 4; ++e) shared.work[(i * kThreads + t.index) * 4 + e] = next_v[i][e];
        }
        t.barrier();
        if (j + kValues < kTile) load_values(args, t, numbers, values, tile, j + kValues, low, high, aligned, next_v);
        if (all_seen) {
          multiply_values<true>(shared, ty, tx, j, mine);
        } else {
          multiply_values<false>(shared, ty, tx, j, mine);
        }
      }
    }

    MLXN_UNROLL
    for (uint32_t r = 0; r < kMine; ++r) {
      const uint32_t row = ty * kMine + r;
      if (row >= count) continue;
      const int64_t head = kv_head * group + (first + row) % group, position = (first + row) / group;
      const float sink = args.sinks.ptr ? args.sinks.ptr[head] : -infinity();
      const AttentionEnd end = attention_end(mine.max[r], sink);
      float sum = mine.sum[r] == 0.0f ? 0.0f : mine.sum[r] * end.rescale;
      const bool seen = sum != 0.0f;
      sum += exp(sink - end.max);
      const float factor = end.rescale / sum;
      MLXN_GLOBAL float* y = args.y.ptr + batch * args.y_batch + head * args.y_head + position * args.y_row;
      MLXN_UNROLL
      for (uint32_t c = 0; c < kColumns; ++c) {
        for (uint32_t e = 0; e < 4; ++e) {
          const uint32_t d = c * 64 + tx * 4 + e;
          if (d < dim) y[d] = seen ? mine.out[r][c][e] * factor : 0.0f;
        }
      }
      if (args.lse.ptr && tx == 0) {
        args.lse.ptr[(batch * args.heads + head) * args.seq + position] = sum == 0.0f ? -infinity() : end.max + log(sum);
      }
    }
  }

  /// s += queries . keys over a slice
  static MLXN_FN void multiply_keys(MLXN_SHARED Shared& shared, uint32_t ty, uint32_t tx, float (&s)[kMine][4]) {
    for (uint32_t d = 0; d < kSlice; ++d) {
      const f32x4 k = shared_f32x4(shared.work + kKeysAt + d * kKeyPitch + tx * 4);
      MLXN_UNROLL
      for (uint32_t r = 0; r < kMine; ++r) {
        const float q = shared.work[d * kRowPitch + ty * kMine + r];
        s[r][0] = fma(q, k.x, s[r][0]);
        s[r][1] = fma(q, k.y, s[r][1]);
        s[r][2] = fma(q, k.z, s[r][2]);
        s[r][3] = fma(q, k.w, s[r][3]);
      }
    }
  }

  /// Products to weights, for the 16 threads of each row together.
  static MLXN_FN void weigh(const Args& args, const Thread& t, MLXN_SHARED Shared& shared, int32_t tile, float (&s)[kMine][4],
                            Rows& mine) {
    const uint32_t ty = t.index / 16, tx = t.index % 16;
    MLXN_UNROLL
    for (uint32_t r = 0; r < kMine; ++r) {
      float top = -infinity();
      for (uint32_t e = 0; e < 4; ++e) {
        const int32_t key = tile + int32_t(tx * 4 + e);
        if (key >= mine.span[r].begin && key < mine.span[r].end) {
          s[r][e] = attention_logit(args, s[r][e]);
          top = attention_max(top, s[r][e]);
        }
      }
      for (uint32_t step = 8; step > 0; step /= 2) top = attention_max(top, t.shuffle_xor(top, step));
      const float max_now = top > mine.max[r] ? top : mine.max[r];
      float sum = 0.0f;
      for (uint32_t e = 0; e < 4; ++e) {
        const int32_t key = tile + int32_t(tx * 4 + e);
        float weight = kUnseen;
        if (key >= mine.span[r].begin && key < mine.span[r].end) {
          weight = exp(s[r][e] - max_now);
          sum += weight;
        }
        s[r][e] = weight;
      }
      for (uint32_t step = 8; step > 0; step /= 2) sum += t.shuffle_xor(sum, step);
      const float correction = attention_correction(mine.max[r], max_now);
      mine.max[r] = max_now;
      mine.sum[r] = mine.sum[r] * correction + sum;
      MLXN_UNROLL
      for (uint32_t c = 0; c < kColumns; ++c) {
        for (uint32_t e = 0; e < 4; ++e) mine.out[r][c][e] *= correction;
      }
      for (uint32_t e = 0; e < 4; ++e) shared.weights[(tx * 4 + e) * kRowPitch + ty * kMine + r] = s[r][e];
    }
  }

  /// This thread's elements of the slice of values from key j of the tile.
  static MLXN_FN void load_values(const Args& args, const Thread& t, const AttentionNumbers& numbers, MLXN_GLOBAL const T* values,
                                  int32_t tile, uint32_t j, int32_t low, int32_t high, bool aligned, float (&next)[kLoads][4]) {
    for (uint32_t i = 0; i < kLoads; ++i) {
      const int32_t at = int32_t(j + i * kValueStep + t.index / (kDim / 4));
      const bool wanted = at >= low && at < high;
      attention_load<4>(wanted ? values + numbers.slot(tile + at) * args.v_slot : values, t.index % (kDim / 4) * 4,
                        wanted ? uint32_t(args.head_dim) : 0, aligned, next[i]);
    }
  }

  /// out += weights . values over a slice. kAllSeen: every row sees every key of the tile.
  template <bool kAllSeen>
  static MLXN_FN void multiply_values(MLXN_SHARED Shared& shared, uint32_t ty, uint32_t tx, uint32_t j, Rows& mine) {
    for (uint32_t i = 0; i < kValues; ++i) {
      float w[kMine];
      MLXN_UNROLL
      for (uint32_t r = 0; r < kMine; ++r) w[r] = shared.weights[(j + i) * kRowPitch + ty * kMine + r];
      MLXN_UNROLL
      for (uint32_t c = 0; c < kColumns; ++c) {
        const f32x4 v = shared_f32x4(shared.work + i * kDim + c * 64 + tx * 4);
        MLXN_UNROLL
        for (uint32_t r = 0; r < kMine; ++r) {
          if (!kAllSeen && w[r] < 0.0f) continue;
          mine.out[r][c][0] = fma(w[r], v.x, mine.out[r][c][0]);
          mine.out[r][c][1] = fma(w[r], v.y, mine.out[r][c][1]);
          mine.out[r][c][2] = fma(w[r], v.z, mine.out[r][c][2]);
          mine.out[r][c][3] = fma(w[r], v.w, mine.out[r][c][3]);
        }
      }
    }
  }
};

}  // namespace gpu
}  // namespace mlxn

#define MLXN_ATTENTION(KERNEL, type, T, dim)                              \
  KERNEL(attention_split_##type##_##dim##_rows4, AttentionSplit<T, dim, 4>) \
  KERNEL(attention_split_##type##_##dim##_rows8, AttentionSplit<T, dim, 8>) \
  KERNEL(attention_tiled_##type##_##dim, AttentionTiled<T, dim>)
#define MLXN_KERNELS(KERNEL)                \
  MLXN_ATTENTION(KERNEL, f32, float, 64)    \
  MLXN_ATTENTION(KERNEL, f32, float, 128)   \
  MLXN_ATTENTION(KERNEL, f32, float, 256)   \
  MLXN_ATTENTION(KERNEL, f32, float, 512)   \
  MLXN_ATTENTION(KERNEL, f16, f16, 64)      \
  MLXN_ATTENTION(KERNEL, f16, f16, 128)     \
  MLXN_ATTENTION(KERNEL, f16, f16, 256)     \
  MLXN_ATTENTION(KERNEL, f16, f16, 512)     \
  KERNEL(attention_merge, AttentionMerge)
