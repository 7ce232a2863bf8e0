#pragma once

// The attention kernels of the CPU, as templates over the vectors S and the element type T of keys and values (float, or
// uint16_t for f16). Both run an online softmax over tiles of kAttentionTile keys and keep, per query row, a state
// {unnormalised output, running maximum, running sum}.
//
//   tiled  many query rows per key head: kAttentionBlock rows of one key head make a work item. Keys are transposed and
//          values copied once per tile, then both products run as register-blocked outer products.
//   split  few query rows (decode): parts of kAttentionPart keys are work items, so that one head can use all threads, and
//          a second phase merges the parts in their order. Every row of K and V is read once for all query rows.
//
// The rows of a key head are numbered (position, head of the group), so that neighbours see nearly the same keys.

#include "backends/cpu/context.h"
#include "ops/attention/args.h"
#include "ops/simd_math.h"

namespace mlxn::ops {

template <class S, class T>
struct Attention {
  using F = typename S::F;
  using I = typename S::I;
  static constexpr int kLanes = S::kLanes;
  static constexpr int kTile = kAttentionTile;
  /// Query rows per register block.
  static constexpr int kRows = S::kRegisters / 4;
  static constexpr int kSplitRowBlock = S::kRegisters / 8;
  /// Keys per panel of transposed keys: two vectors.
  static constexpr int kPanel = 2 * kLanes;

  const AttentionArgs& a;
  std::int64_t kv_len, p0, window, ring_start;
  int group, dim, padded, state_floats;
  bool causal;

  explicit MLXN_SIMD Attention(const AttentionArgs& args) : a(args) {
    kv_len = a.kv_len.value;
    p0 = (a.flags & kAttentionHasP0) != 0 ? a.p0.value : kv_len - a.seq;
    causal = (a.flags & kAttentionCausal) != 0;
    window = a.window;
    ring_start = a.ring_start.value;
    group = a.heads / a.kv_heads;
    dim = a.head_dim;
    padded = attention_padded_dim(dim);
    state_floats = attention_state_floats(dim);
  }

  struct Range {
    std::int64_t begin, end;
  };
  /// The keys that query position i sees.
  MLXN_SIMD Range visible(std::int64_t i) const {
    const std::int64_t p = p0 + i;
    std::int64_t begin = window > 0 ? p - window + 1 : 0;
    std::int64_t end = causal ? p + 1 : kv_len;
    if (begin < 0) begin = 0;
    if (end > kv_len) end = kv_len;
    if (begin >= end) begin = end = 0;
    return {begin, end};
  }
  /// All keys that positions [first, last] see between them; bounds move monotonously with the position.
  MLXN_SIMD Range visible(std::int64_t first, std::int64_t last) const {
    Range all{0, 0};
    // Rows at the edges may see nothing while rows between them see something only if the range is cut by 0 or kv_len.
    std::int64_t begin = window > 0 ? p0 + first - window + 1 : 0;
    std::int64_t end = causal ? p0 + last + 1 : kv_len;
    if (begin < 0) begin = 0;
    if (end > kv_len) end = kv_len;
    if (begin < end) all = {begin, end};
    return all;
  }

  MLXN_SIMD std::int64_t slot(std::int64_t key) const {
    const std::int64_t s = ring_start + key;
    return s >= a.capacity ? s - a.capacity : s;
  }
  static MLXN_SIMD F load(const T* p) {
    if constexpr (sizeof(T) == 4) {
      return S::load(p);
    } else {
      return S::load_f16(p);
    }
  }

  /// One tile's part of the rows' softmax: turns the products in s into weights, updates maxima and sums in the states and
  /// leaves in `correction` what the outputs so far have to be multiplied by. Row r uses weights [begin[r], end[r]) of the tile;
  /// the others become exactly 0. A row without keys in this tile keeps its state.
  MLXN_SIMD void weigh(float* s, float* states, float* correction, const int* begin, const int* end, int rows) const {
    constexpr int kVectors = kTile / kLanes;
    const float infinity = __builtin_inff();
    for (int r = 0; r < rows; ++r) {
      float* row = s + r * kTile;
      float* state = states + static_cast<std::int64_t>(r) * state_floats + padded;
      correction[r] = 1.0f;
      if (begin[r] >= end[r]) {
        MLXN_UNROLL
        for (int v = 0; v < kVectors; ++v) S::store(row + v * kLanes, S::zero());
        continue;
      }
      F z[kVectors];
      MLXN_UNROLL
      for (int v = 0; v < kVectors; ++v) z[v] = S::load(row + v * kLanes) * a.scale;
      if (a.softcap > 0) {
        for (int v = 0; v < kVectors; ++v) z[v] = a.softcap * tanh<S>(z[v] / a.softcap);
      }
      if (begin[r] > 0 || end[r] < kTile) {
        const I index = S::iota();
        MLXN_UNROLL
        for (int v = 0; v < kVectors; ++v) {
          const I key = index + v * kLanes;
          z[v] = S::select((key >= begin[r]) & (key < end[r]), z[v], S::set(-infinity));
        }
      }
      F top = z[0];
      MLXN_UNROLL
      for (int v = 1; v < kVectors; ++v) top = S::max(top, z[v]);
      const float tile_max = S::max_lane(top);
      const float max = tile_max > state[0] ? tile_max : state[0];
      F sum = S::zero();
      MLXN_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        z[v] = exp<S>(z[v] - max);
        S::store(row + v * kLanes, z[v]);
        sum += z[v];
      }
      if (max != state[0]) {
        correction[r] = exp<S>(S::set(state[0] - max))[0];
        state[0] = max;
      }
      state[1] = state[1] * correction[r] + S::sum_lanes(sum);
    }
  }

  /// Divides the merged parts (`part_stride` floats apart) of one query row by their sum, sink included, and writes the row and its LSE.
  MLXN_SIMD void finish(const float* parts, int count, std::int64_t part_stride, int batch, int head, std::int64_t i) const {
    float max = kAttentionLowest;
    for (int p = 0; p < count; ++p) {
      const float m = parts[p * part_stride + padded];
      max = m > max ? m : max;
    }
    const float sink = a.sinks.ptr != nullptr ? a.sinks.ptr[head] : -__builtin_inff();
    if (sink > max || sink != sink) max = sink;
    float sum = 0;
    for (int p = 0; p < count; ++p) {
      const float* state = parts + p * part_stride + padded;
      if (state[1] != 0) sum += state[1] * exp<S>(S::set(state[0] - max))[0];
    }
    const bool seen = sum != 0;
    sum += exp<S>(S::set(sink - max))[0];
    const float inverse = 1.0f / sum;
    float* y = a.y.ptr + batch * a.y_batch + head * a.y_head + i * a.y_row;
    for (int d = 0; d < dim; d += kLanes) {
      F acc = S::zero();
      if (seen) {
        for (int p = 0; p < count; ++p) {
          const float* state = parts + p * part_stride;
          if (state[padded + 1] != 0) acc = S::fma(S::load(state + d), exp<S>(S::set(state[padded] - max)), acc);
        }
        acc *= inverse;
      }
      const int left = dim - d;
      if (left >= kLanes) {
        S::store(y + d, acc);
      } else {
        for (int e = 0; e < left; ++e) y[d + e] = acc[e];
      }
    }
    if (a.lse.ptr != nullptr) {
      const std::int64_t row = (static_cast<std::int64_t>(batch) * a.heads + head) * a.seq + i;
      a.lse.ptr[row] = sum == 0 ? -__builtin_inff() : max + __builtin_logf(sum);
    }
  }

  static MLXN_SIMD void clear(float* state, int padded_dim) {
    for (int d = 0; d < padded_dim; d += kLanes) S::store(state + d, S::zero());
    state[padded_dim] = kAttentionLowest;
    state[padded_dim + 1] = 0;
  }

  // ---- tiled ----------------------------------------------------------------------------------------------------------

  /// Keys [first, first + n) as kt[panel][d][kPanel]; missing ones are 0. `row` holds four rows of f32.
  MLXN_SIMD void pack_keys(const T* k, std::int64_t first, int n, float* kt, float* row) const {
    using F4 = typename VectorTypes<4>::F;
    using I4 = typename VectorTypes<4>::I;
    for (int j = 0; j < kTile; j += 4) {
      const float* source[4];
      for (int c = 0; c < 4; ++c) {
        float* copy = row + c * padded;
        source[c] = copy;
        if (j + c >= n) {
          for (int d = 0; d < padded; d += kLanes) S::store(copy + d, S::zero());
          continue;
        }
        const T* key = k + slot(first + j + c) * a.k_slot;
        if constexpr (sizeof(T) == 4) {
          source[c] = key;
        } else {
          int d = 0;
          for (; d + kLanes <= dim; d += kLanes) S::store(copy + d, load(key + d));
          if (d < dim) S::store(copy + d, load_first<S>(key + d, dim - d));
        }
      }
      float* out = kt + (j / kPanel) * kPanel * dim + j % kPanel;
      int d = 0;
      for (; d + 4 <= dim; d += 4) {
        const F4 x0 = Simd<4>::load(source[0] + d), x1 = Simd<4>::load(source[1] + d);
        const F4 x2 = Simd<4>::load(source[2] + d), x3 = Simd<4>::load(source[3] + d);
        const F4 l01 = __builtin_shuffle(x0, x1, I4{0, 4, 1, 5}), h01 = __builtin_shuffle(x0, x1, I4{2, 6, 3, 7});
        const F4 l23 = __builtin_shuffle(x2, x3, I4{0, 4, 1, 5}), h23 = __builtin_shuffle(x2, x3, I4{2, 6, 3, 7});
        Simd<4>::store(out + (d + 0) * kPanel, __builtin_shuffle(l01, l23, I4{0, 1, 4, 5}));
        Simd<4>::store(out + (d + 1) * kPanel, __builtin_shuffle(l01, l23, I4{2, 3, 6, 7}));
        Simd<4>::store(out + (d + 2) * kPanel, __builtin_shuffle(h01, h23, I4{0, 1, 4, 5}));
        Simd<4>::store(out + (d + 3) * kPanel, __builtin_shuffle(h01, h23, I4{2, 3, 6, 7}));
      }
      for (; d < dim; ++d) {
        for (int c = 0; c < 4; ++c) out[d * kPanel + c] = source[c][d];
      }
    }
  }

  /// Values [first, first + n) as vt[key][padded], missing ones 0. Whether all of them are finite.
  MLXN_SIMD bool pack_values(const T* v, std::int64_t first, int n, float* vt) const {
    F bad = S::zero();
    for (int j = 0; j < kTile; ++j) {
      float* out = vt + static_cast<std::int64_t>(j) * padded;
      if (j >= n) {
        for (int d = 0; d < padded; d += kLanes) S::store(out + d, S::zero());
        continue;
      }
      const T* value = v + slot(first + j) * a.v_slot;
      int d = 0;
      for (; d + kLanes <= dim; d += kLanes) {
        const F x = load(value + d);
        bad = S::fma(x, S::zero(), bad);
        S::store(out + d, x);
      }
      if (d < dim) {
        const F x = load_first<S>(value + d, dim - d);
        bad = S::fma(x, S::zero(), bad);
        S::store(out + d, x);
        d += kLanes;
      }
      for (; d < padded; d += kLanes) S::store(out + d, S::zero());
    }
    return S::sum_lanes(bad) == 0;
  }

  /// s[kRows][panel] = q . k for kRows rows packed as q[d][kRows].
  MLXN_SIMD void multiply_keys(const float* q, const float* kt, float* s) const {
    F acc[kRows][2];
    MLXN_UNROLL
    for (int r = 0; r < kRows; ++r) acc[r][0] = acc[r][1] = S::zero();
    for (int d = 0; d < dim; ++d) {
      const F k0 = S::load(kt + d * kPanel), k1 = S::load(kt + d * kPanel + kLanes);
      MLXN_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const F x = S::set(q[d * kRows + r]);
        acc[r][0] = S::fma(x, k0, acc[r][0]);
        acc[r][1] = S::fma(x, k1, acc[r][1]);
      }
    }
    MLXN_UNROLL
    for (int r = 0; r < kRows; ++r) {
      S::store(s + r * kTile, acc[r][0]);
      S::store(s + r * kTile + kLanes, acc[r][1]);
    }
  }

  /// out[r][kVectors] = out * correction + weights[begin, end) . values, for kCount rows and kVectors vectors of columns.
  template <int kCount, int kVectors>
  MLXN_SIMD void multiply_values(const float* weights, const float* correction, const float* vt, int begin, int end,
                                 float* out) const {
    F acc[kCount][kVectors];
    MLXN_UNROLL
    for (int r = 0; r < kCount; ++r) {
      MLXN_UNROLL
      for (int c = 0; c < kVectors; ++c) acc[r][c] = S::load(out + r * state_floats + c * kLanes) * correction[r];
    }
    for (int j = begin; j < end; ++j) {
      F x[kVectors];
      MLXN_UNROLL
      for (int c = 0; c < kVectors; ++c) x[c] = S::load(vt + static_cast<std::int64_t>(j) * padded + c * kLanes);
      MLXN_UNROLL
      for (int r = 0; r < kCount; ++r) {
        const F w = S::set(weights[r * kTile + j]);
        MLXN_UNROLL
        for (int c = 0; c < kVectors; ++c) acc[r][c] = S::fma(w, x[c], acc[r][c]);
      }
    }
    MLXN_UNROLL
    for (int r = 0; r < kCount; ++r) {
      MLXN_UNROLL
      for (int c = 0; c < kVectors; ++c) S::store(out + r * state_floats + c * kLanes, acc[r][c]);
    }
  }

  struct TiledWork {
    float *q, *kt, *vt, *s, *states, *row;
  };

  MLXN_SIMD void tiled_block(const TiledWork& w, int batch, int kv_head, std::int64_t first, int rows) const {
    const int padded_rows = (rows + kRows - 1) / kRows * kRows;
    const T* k = static_cast<const T*>(a.k.ptr) + batch * a.k_batch + kv_head * a.k_head;
    const T* v = static_cast<const T*>(a.v.ptr) + batch * a.v_batch + kv_head * a.v_head;
    for (int r = 0; r < padded_rows; ++r) {
      float* to = w.q + (r / kRows) * kRows * dim + r % kRows;
      clear(w.states + r * state_floats, padded);
      if (r < rows) {
        const std::int64_t i = (first + r) / group, head = kv_head * group + (first + r) % group;
        const float* from = a.q.ptr + batch * a.q_batch + head * a.q_head + i * a.q_row;
        for (int d = 0; d < dim; ++d) to[d * kRows] = from[d];
      } else {
        for (int d = 0; d < dim; ++d) to[d * kRows] = 0;
      }
    }
    float correction[kAttentionBlock];
    int begin[kAttentionBlock], end[kAttentionBlock];
    int block_begin[kAttentionBlock / kRows], block_end[kAttentionBlock / kRows];
    const Range all = visible(first / group, (first + rows - 1) / group);
    for (std::int64_t t = all.begin / kTile * kTile; t < all.end; t += kTile) {
      const int n = static_cast<int>(all.end - t < kTile ? all.end - t : kTile);
      for (int b = 0; b < padded_rows / kRows; ++b) block_begin[b] = kTile, block_end[b] = 0;
      for (int r = 0; r < padded_rows; ++r) {
        begin[r] = end[r] = 0;
        if (r >= rows) continue;
        const Range seen = visible((first + r) / group);
        const std::int64_t lo = seen.begin - t, hi = seen.end - t;
        begin[r] = static_cast<int>(lo < 0 ? 0 : (lo > kTile ? kTile : lo));
        end[r] = static_cast<int>(hi < 0 ? 0 : (hi > kTile ? kTile : hi));
        if (begin[r] >= end[r]) continue;
        const int b = r / kRows;
        block_begin[b] = begin[r] < block_begin[b] ? begin[r] : block_begin[b];
        block_end[b] = end[r] > block_end[b] ? end[r] : block_end[b];
      }
      pack_keys(k, t, n, w.kt, w.row);
      const bool finite = pack_values(v, t, n, w.vt);
      for (int panel = 0; panel < kTile / kPanel; ++panel) {
        for (int b = 0; b < padded_rows / kRows; ++b) {
          if (block_begin[b] >= block_end[b]) continue;
          multiply_keys(w.q + b * kRows * dim, w.kt + panel * kPanel * dim, w.s + b * kRows * kTile + panel * kPanel);
        }
      }
      weigh(w.s, w.states, correction, begin, end, rows);
      for (int r = rows; r < padded_rows; ++r) {
        correction[r] = 1.0f;
        for (int j = 0; j < kTile; j += kLanes) S::store(w.s + r * kTile + j, S::zero());
      }
      int d = 0;
      if (!finite) {
        // 0 * inf would leak from keys that a row does not see: each row takes its own keys only.
        for (int r = 0; r < rows; ++r) {
          if (begin[r] >= end[r]) continue;
          for (d = 0; d < padded; d += kLanes) {
            multiply_values<1, 1>(w.s + r * kTile, correction + r, w.vt + d, begin[r], end[r], w.states + r * state_floats + d);
          }
        }
        continue;
      }
      for (; d + 2 * kLanes <= padded; d += 2 * kLanes) {
        for (int b = 0; b < padded_rows / kRows; ++b) {
          if (block_begin[b] >= block_end[b]) continue;
          multiply_values<kRows, 2>(w.s + b * kRows * kTile, correction + b * kRows, w.vt + d, block_begin[b], block_end[b],
                                    w.states + b * kRows * state_floats + d);
        }
      }
      for (; d < padded; d += kLanes) {
        for (int b = 0; b < padded_rows / kRows; ++b) {
          if (block_begin[b] >= block_end[b]) continue;
          multiply_values<kRows, 1>(w.s + b * kRows * kTile, correction + b * kRows, w.vt + d, block_begin[b], block_end[b],
                                    w.states + b * kRows * state_floats + d);
        }
      }
    }
    for (int r = 0; r < rows; ++r) {
      finish(w.states + r * state_floats, 1, 0, batch, static_cast<int>(kv_head * group + (first + r) % group),
             (first + r) / group);
    }
  }

  MLXN_SIMD void tiled(const CpuContext& context) const {
    float* base = a.work.ptr + static_cast<std::int64_t>(context.thread) * attention_work_floats(dim);
    TiledWork w;
    w.q = base;
    w.kt = w.q + kAttentionBlock * padded;
    w.vt = w.kt + kTile * padded;
    w.s = w.vt + kTile * padded;
    w.states = w.s + kAttentionBlock * kTile;
    w.row = w.states + kAttentionBlock * state_floats;
    const std::int64_t all_rows = a.seq * group;
    const std::int64_t blocks = (all_rows + kAttentionBlock - 1) / kAttentionBlock;
    const std::int64_t kv_heads = static_cast<std::int64_t>(a.batch) * a.kv_heads;
    // The last rows see the most keys: they come first, so that no thread is left alone with a long one.
    context.for_chunks(static_cast<std::uint64_t>(blocks * kv_heads), 1, [&](std::uint64_t item, std::uint64_t) {
      const std::int64_t block = blocks - 1 - static_cast<std::int64_t>(item) / kv_heads;
      const auto kv = static_cast<int>(static_cast<std::int64_t>(item) % kv_heads);
      const std::int64_t left = all_rows - block * kAttentionBlock;
      tiled_block(w, kv / a.kv_heads, kv % a.kv_heads, block * kAttentionBlock,
                  static_cast<int>(left < kAttentionBlock ? left : kAttentionBlock));
    });
  }

  // ---- split ----------------------------------------------------------------------------------------------------------

  /// s[r][0, n) = q[r] . keys[j], four keys and kSplitRowBlock rows at a time; q is [rows][padded], its tails 0.
  MLXN_SIMD void dot_keys(const float* q, const T* const* keys, int n, int rows, float* s) const {
    for (int j = 0; j < n; j += 4) {
      const T* k[4];
      for (int c = 0; c < 4; ++c) k[c] = keys[j + c < n ? j + c : n - 1];
      for (int r = 0; r < rows; r += kSplitRowBlock) {
        F acc[kSplitRowBlock][4];
        MLXN_UNROLL
        for (int x = 0; x < kSplitRowBlock; ++x) {
          MLXN_UNROLL
          for (int c = 0; c < 4; ++c) acc[x][c] = S::zero();
        }
        const float* qr = q + r * padded;
        int d = 0;
        for (; d + kLanes <= dim; d += kLanes) {
          F key[4];
          MLXN_UNROLL
          for (int c = 0; c < 4; ++c) key[c] = load(k[c] + d);
          MLXN_UNROLL
          for (int x = 0; x < kSplitRowBlock; ++x) {
            const F query = S::load(qr + x * padded + d);
            MLXN_UNROLL
            for (int c = 0; c < 4; ++c) acc[x][c] = S::fma(query, key[c], acc[x][c]);
          }
        }
        if (d < dim) {
          F key[4];
          for (int c = 0; c < 4; ++c) key[c] = load_first<S>(k[c] + d, dim - d);
          for (int x = 0; x < kSplitRowBlock; ++x) {
            for (int c = 0; c < 4; ++c) acc[x][c] = S::fma(S::load(qr + x * padded + d), key[c], acc[x][c]);
          }
        }
        MLXN_UNROLL
        for (int x = 0; x < kSplitRowBlock; ++x) {
          Simd<4>::store(s + (r + x) * kTile + j, S::sum_lanes4(acc[x][0], acc[x][1], acc[x][2], acc[x][3]));
        }
      }
    }
  }

  /// As multiply_values, with values straight from the cache.
  template <int kCount, int kVectors>
  MLXN_SIMD void add_values(const float* weights, const float* correction, const T* const* values, int d, int begin, int end,
                            float* out, std::int64_t out_row) const {
    F acc[kCount][kVectors];
    MLXN_UNROLL
    for (int r = 0; r < kCount; ++r) {
      MLXN_UNROLL
      for (int c = 0; c < kVectors; ++c) acc[r][c] = S::load(out + r * out_row + d + c * kLanes) * correction[r];
    }
    const bool whole = d + kVectors * kLanes <= dim;
    for (int j = begin; j < end; ++j) {
      F x[kVectors];
      if (whole) {
        MLXN_UNROLL
        for (int c = 0; c < kVectors; ++c) x[c] = load(values[j] + d + c * kLanes);
      } else {
        for (int c = 0; c < kVectors; ++c) x[c] = load_first<S>(values[j] + d + c * kLanes, dim - d - c * kLanes);
      }
      MLXN_UNROLL
      for (int r = 0; r < kCount; ++r) {
        const F w = S::set(weights[r * kTile + j]);
        MLXN_UNROLL
        for (int c = 0; c < kVectors; ++c) acc[r][c] = S::fma(w, x[c], acc[r][c]);
      }
    }
    MLXN_UNROLL
    for (int r = 0; r < kCount; ++r) {
      MLXN_UNROLL
      for (int c = 0; c < kVectors; ++c) S::store(out + r * out_row + d + c * kLanes, acc[r][c]);
    }
  }

  /// kCount rows of the tile that take the weights [begin, end).
  template <int kCount>
  MLXN_SIMD void add_rows(const float* weights, const float* correction, const T* const* values, int begin, int end, float* out,
                          std::int64_t out_row) const {
    int d = 0;
    for (; d + 4 * kLanes <= dim; d += 4 * kLanes) {
      add_values<kCount, 4>(weights, correction, values, d, begin, end, out, out_row);
    }
    for (; d < dim; d += kLanes) add_values<kCount, 1>(weights, correction, values, d, begin, end, out, out_row);
  }

  MLXN_SIMD void split_part(float* q, float* s, float* parts, int batch, int kv_head, std::int64_t part) const {
    const int rows = static_cast<int>(a.seq) * group;
    const int padded_rows = (rows + kSplitRowBlock - 1) / kSplitRowBlock * kSplitRowBlock;
    // The states of a key head's rows (r = i * group + g) lie together, part after part: [part][row].
    float* states = parts + part * rows * state_floats;
    for (int r = 0; r < padded_rows; ++r) {
      float* to = q + r * padded;
      for (int d = 0; d < padded; d += kLanes) S::store(to + d, S::zero());
      if (r >= rows) continue;
      clear(states + r * state_floats, padded);
      const float* from = a.q.ptr + batch * a.q_batch + (kv_head * group + r % group) * a.q_head + r / group * a.q_row;
      for (int d = 0; d < dim; ++d) to[d] = from[d];
    }
    const T* k = static_cast<const T*>(a.k.ptr) + batch * a.k_batch + kv_head * a.k_head;
    const T* v = static_cast<const T*>(a.v.ptr) + batch * a.v_batch + kv_head * a.v_head;
    Range all = visible(0, a.seq - 1);
    const std::int64_t part_end = (part + 1) * kAttentionPart;
    if (all.end > part_end) all.end = part_end;
    float correction[kAttentionSplitRows];
    int begin[kAttentionSplitRows], end[kAttentionSplitRows];
    const T* keys[kTile];
    const T* values[kTile];
    for (std::int64_t t = part * kAttentionPart; t < all.end; t += kTile) {
      if (t + kTile <= all.begin) continue;
      const int n = static_cast<int>(all.end - t < kTile ? all.end - t : kTile);
      for (int j = 0; j < n; ++j) {
        const std::int64_t at = slot(t + j);
        keys[j] = k + at * a.k_slot;
        values[j] = v + at * a.v_slot;
      }
      bool same = true;
      for (int r = 0; r < rows; ++r) {
        const Range seen = visible(r / group);
        const std::int64_t lo = seen.begin - t, hi = seen.end - t;
        begin[r] = static_cast<int>(lo < 0 ? 0 : (lo > kTile ? kTile : lo));
        end[r] = static_cast<int>(hi < 0 ? 0 : (hi > kTile ? kTile : hi));
        same = same && begin[r] == begin[0] && end[r] == end[0];
      }
      dot_keys(q, keys, n, rows, s);
      weigh(s, states, correction, begin, end, rows);
      int r = 0;
      if (same) {
        for (; r + kSplitRowBlock <= rows; r += kSplitRowBlock) {
          add_rows<kSplitRowBlock>(s + r * kTile, correction + r, values, begin[0], end[0], states + r * state_floats,
                                   state_floats);
        }
      }
      for (; r < rows; ++r) {
        if (begin[r] >= end[r]) continue;
        add_rows<1>(s + r * kTile, correction + r, values, begin[r], end[r], states + r * state_floats, state_floats);
      }
    }
  }

  MLXN_SIMD void split(const CpuContext& context) const {
    float* q = a.work.ptr + static_cast<std::int64_t>(context.thread) * attention_work_floats(dim);
    float* s = q + kAttentionSplitRows * padded;
    float* parts = a.work.ptr + static_cast<std::int64_t>(context.threads) * attention_work_floats(dim);
    const std::int64_t rows = a.seq * group;
    const std::int64_t kv_heads = static_cast<std::int64_t>(a.batch) * a.kv_heads;
    const std::int64_t max_parts = (a.capacity + kAttentionPart - 1) / kAttentionPart;
    const std::int64_t head_floats = max_parts * rows * state_floats;
    const Range all = visible(0, a.seq - 1);
    const std::int64_t first = all.begin / kAttentionPart;
    const std::int64_t count = (all.end + kAttentionPart - 1) / kAttentionPart - first;  // 0 if nothing is seen
    context.for_chunks(static_cast<std::uint64_t>(count * kv_heads), 1, [&](std::uint64_t item, std::uint64_t) {
      const auto kv = static_cast<std::int64_t>(item) / count;
      split_part(q, s, parts + kv * head_floats, static_cast<int>(kv / a.kv_heads), static_cast<int>(kv % a.kv_heads),
                 first + static_cast<std::int64_t>(item) % count);
    });
    context.barrier();
    const CpuContext::Share mine = context.share(static_cast<std::uint64_t>(kv_heads * rows));
    for (std::uint64_t item = mine.begin; item < mine.end; ++item) {
      const std::int64_t kv = static_cast<std::int64_t>(item) / rows, r = static_cast<std::int64_t>(item) % rows;
      finish(parts + kv * head_floats + (first * rows + r) * state_floats, static_cast<int>(count), rows * state_floats,
             static_cast<int>(kv / a.kv_heads), static_cast<int>(kv % a.kv_heads * group + r % group), r / group);
    }
  }
};

}  // namespace mlxn::ops
