// rope_append and attention of few query rows per key head over an f16 cache, in one launch; of Hopper. The
// blocks of a key head are a cluster: each takes the tiles of 64 keys whose number is its rank modulo the
// cluster's blocks, and they join their parts through each other's shared memory.
//
// Every block turns the queries of its key head, the new keys and the new values itself, so that none waits
// for another. The one whose tiles hold a new token's slot writes it to the cache; whoever sees the slot
// takes the new key and value from shared memory, never from the cache.
//
// A thread has eight elements, 16 bytes, of every kStep-th key of a tile: kLanes lanes share a key, and a
// warp has its keys to itself from the product to the output, so that there is no barrier of the block in the
// loop.
//   scores   a lane multiplies its eight elements of kKeys keys with kRows queries. A butterfly over the
//            kLanes lanes, which halves the values at each step, leaves lane l of them the logits of key l /
//            4 and the rows from l % 4 * kMine on.
//   softmax  online, of the warp's keys only; the weights go through shared memory to the lanes of the key.
//   output   a lane adds its eight columns of kKeys values to the outputs of all rows.
// At the end the warps' states are joined, then those of the blocks: block r has columns r * kDim / blocks
// and up. The order of all sums depends on the number of keys and of blocks only, and what a row does not see
// leaves its sums as they are, bit for bit.
//
// The next tile's keys are asked for as soon as this one's are multiplied, and its values likewise; without a
// window the first tile is known, and asked for, before the length of the cache is. What a block sends to
// another counts on a barrier there, so that the last step needs no fence and no block waits for one that is
// behind it. Bound by latency up to a few tiles per block: of memory, of the rotation, of the way to the
// other blocks. Beyond, by the multiply-adds and conversions: by count, 650 cycles a tile of 128 columns for
// four rows, 1150 for eight. On an H200, 8 key heads of 128 with four queries each: 5.2 us with 256 keys, 18.2
// with 4096, where reading the cache would take 3.7.
#pragma once

#include "cuda_blocks/cluster.cuh"
#include "cuda_blocks/ptx.cuh"
#include "ops/attention/kernel.h"
#include "ops/cached_attention/args.h"
#include "ops/cached_attention/shape.h"
#include "ops/rope/angle.h"

namespace mlxn {
namespace gpu {

template <int kDim, int kRows>
struct CachedAttention {
  using Args = ops::CachedAttentionArgs;
  using Shape = ops::CachedAttentionShape<kDim, kRows>;
  static constexpr uint32_t kThreads = Shape::kThreads, kWarps = Shape::kWarps, kTile = Shape::kTile;
  static constexpr uint32_t kLanes = kDim / 8;          // that share a key
  static constexpr uint32_t kSubs = 32 / kLanes;        // keys that a warp has at once
  static constexpr uint32_t kStep = kThreads / kLanes;  // keys that the block has at once
  static constexpr uint32_t kKeys = kTile / kStep;      // of a thread in a tile
  static constexpr uint32_t kMine = kRows / 4;          // rows whose logits a lane has
  static constexpr uint32_t kPairs = kDim / 2;          // that a head may have
  static constexpr uint32_t kDimShift = kDim == 64 ? 6 : 7;
  static constexpr uint32_t kHeadsAtOnce = kThreads / kPairs;
  static constexpr uint32_t kTurns = kRows / kHeadsAtOnce + 1;  // heads of a thread, the key's one of them
  static_assert(kKeys * 4 == kLanes && kKeys * kSubs == 8, "the lanes' logits");

  /// A block's part of shared memory.
  struct Memory {
    float *queries, *weights, *corrections, *outputs, *sinks;
    f16 *keys, *values;
    float2* states;
    float* inbox;
    float4* inbox_states;
    uint32_t barrier;  // of the inbox
  };
  /// A thread's runs of a tile, one of every kStep slots.
  struct Tile {
    const f16 *keys_at, *values_at;  // of the first
    uint4 keys[kKeys], values[kKeys];
  };
  /// What a thread turns of a token: a pair, or two elements beside the pairs, of every kHeadsAtOnce-th head.
  struct Turn {
    const float* rows[kTurns];
    const float* value_at;
    bool is_pair;
    uint32_t first, second;  // elements
    int32_t position;
    float frequency, a[kTurns], b[kTurns], value;
  };

  static __device__ __forceinline__ void run(const Args& args, uint32_t block, uint8_t* shared) {
    sm90::dependency_launch();
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, d = threadIdx.x % kLanes * 8;
    const uint32_t blocks = 1u << args.cluster_shift, rank = block & (blocks - 1);
    const uint32_t kv_head = block >> args.cluster_shift;
    const uint32_t seq = uint32_t(args.seq), group = uint32_t(args.group), count = seq * group;
    const Memory memory = memory_of(shared);
    if (threadIdx.x == 0) {
      sm90::barrier_init(memory.barrier, 1);
      sm90::barrier_init_fence();
    }
    __syncwarp();  // an initialisation counts as the whole warp's for racecheck
    if (threadIdx.x == 0)
      sm90::barrier_arrive_expect(memory.barrier, kRows * kDim * 4 + blocks * kRows * 16);
    sm90::cluster_arrive();  // until its blocks run, their memory and barriers are not there
    const bool is_windowed = args.window > 0;
    Tile now;
    now.keys_at = (const f16*)args.k_cache.ptr + kv_head * args.k_cache_head +
                  threadIdx.x / kLanes * args.k_cache_slot + d;
    now.values_at = (const f16*)args.v_cache.ptr + kv_head * args.v_cache_head +
                    threadIdx.x / kLanes * args.v_cache_slot + d;
    int32_t tile = int32_t(rank * kTile);
    if (!is_windowed) now.keys_at += tile * args.k_cache_slot, now.values_at += tile * args.v_cache_slot;
    Turn turn = turn_of(args, kv_head);
    int32_t token_of[kMine];  // of the rows whose logits the lane has
#pragma unroll
    for (uint32_t v = 0; v < kMine; ++v) token_of[v] = int32_t((lane % 4 * kMine + v) / group);
    sm90::dependency_wait();

    // All that can be asked for is, before the first of it is used.
    turn.frequency = turn.is_pair ? __ldcg(args.inv_freq.ptr + threadIdx.x % kPairs) : 0.0f;
    load_token(args, 0, turn);
    const int64_t kv_len = load(args.kv_len), position = load(args.position);
    if (!is_windowed) {
      load_tile(now.keys_at, args.k_cache_slot, args.head_dim, tile, args.capacity, now.keys);
      load_tile(now.values_at, args.v_cache_slot, args.head_dim, tile, args.capacity, now.values);
    }
    if (threadIdx.x < kRows) {
      memory.sinks[threadIdx.x] = threadIdx.x < count && args.sinks.ptr
                                      ? __ldcg(args.sinks.ptr + kv_head * group + threadIdx.x % group)
                                      : -infinity();
    }
    turn_tokens(args, turn, memory);
    AttentionNumbers numbers;
    numbers.p0 = kv_len - args.seq, numbers.window = args.window;
    numbers.kv_len = int32_t(kv_len), numbers.capacity = args.capacity;
    numbers.ring_start = 0, numbers.causal = true;
    const AttentionSpan span = numbers.seen(0, args.seq - 1);
    if (is_windowed) {
      const uint32_t first = uint32_t(span.begin) / kTile;
      tile = int32_t((first + ((rank - first) & (blocks - 1))) * kTile);
      now.keys_at += tile * args.k_cache_slot, now.values_at += tile * args.v_cache_slot;
      if (tile < span.end) {
        load_tile(now.keys_at, args.k_cache_slot, args.head_dim, tile, span.end, now.keys);
        load_tile(now.values_at, args.v_cache_slot, args.head_dim, tile, span.end, now.values);
      }
    }
    AttentionSpan spans[kMine];
    float maxima[kMine], sums[kMine];
#pragma unroll
    for (uint32_t v = 0; v < kMine; ++v) {
      spans[v] = numbers.seen(token_of[v], token_of[v]);
      if (lane % 4 * kMine + v >= count) spans[v].end = 0;
      maxima[v] = ops::kAttentionLowest, sums[v] = 0.0f;
    }
    float out[kRows * 8];
#pragma unroll
    for (uint32_t i = 0; i < kRows * 8; ++i) out[i] = 0.0f;
    __syncthreads();

    float* weights = memory.weights + warp * (kTile / kWarps) * kRows;
    float* corrections = memory.corrections + warp * kRows;
    const int32_t stride = int32_t(blocks * kTile);
    for (; tile < span.end; tile += stride) {
      const bool has_next = tile + stride < span.end;
      const bool has_new = tile + int64_t(kTile) > position && tile < position + args.seq;
      if (has_new) take_new(memory.keys, seq, tile - position, now.keys);
      float dots[kKeys * kRows];
      multiply_keys(memory.queries + d, now.keys, dots);
      now.keys_at += stride * args.k_cache_slot;
      if (has_next)
        load_tile(now.keys_at, args.k_cache_slot, args.head_dim, tile + stride, span.end, now.keys);
      sum_over_lanes<kKeys * kRows, kLanes / 2, 1>(dots);

      const int32_t key = tile + int32_t(lane % kLanes / 4 * kStep + threadIdx.x / kLanes);
      bool has_risen = false;
      __syncwarp();  // the weights of the last tile are read
#pragma unroll
      for (uint32_t v = 0; v < kMine; ++v) {
        const bool is_seen = key >= spans[v].begin && key < spans[v].end;
        const float z = is_seen ? logit(args, dots[v]) : -infinity();
        float top = z;
#pragma unroll
        for (int step = 4; step < 32; step *= 2)
          top = attention_max(top, __shfl_xor_sync(0xffffffffu, top, step));
        const float max_now = top > maxima[v] ? top : maxima[v];
        const float weight = is_seen ? exp(z - max_now) : kUnseen;
        const float correction = rescale(maxima[v], max_now);
        sums[v] *= correction;
        if (is_seen) sums[v] += weight;
        maxima[v] = max_now;
        weights[lane * kMine + v] = weight;
        if (lane < 4) corrections[lane * kMine + v] = correction;
        has_risen = has_risen || correction != 1.0f;
      }
      has_risen = __any_sync(0xffffffffu, has_risen);
      __syncwarp();
      if (has_risen) {
#pragma unroll
        for (uint32_t r = 0; r < kRows; ++r) {
          const float correction = corrections[r];
#pragma unroll
          for (uint32_t e = 0; e < 8; ++e) out[r * 8 + e] *= correction;
        }
      }
      if (has_new) take_new(memory.values, seq, tile - position, now.values);
      multiply_values(weights + lane / kLanes * kKeys * kRows, now.values, out);
      now.values_at += stride * args.v_cache_slot;
      if (has_next)
        load_tile(now.values_at, args.v_cache_slot, args.head_dim, tile + stride, span.end, now.values);
    }

    // The warps' states to the block's, and these to the blocks that finish their columns.
#pragma unroll
    for (uint32_t v = 0; v < kMine; ++v) {
#pragma unroll
      for (int step = 4; step < 32; step *= 2) sums[v] += __shfl_xor_sync(0xffffffffu, sums[v], step);
      if (lane < 4) memory.states[warp * kRows + lane * kMine + v] = make_float2(maxima[v], sums[v]);
    }
    sum_over_lanes<kRows * 8, 16, kLanes>(out);
#pragma unroll
    for (uint32_t r = 0; r < kRows / kSubs; ++r) {
      float* to = memory.outputs + (warp * kRows + lane / kLanes * (kRows / kSubs) + r) * kDim + d;
      *reinterpret_cast<float4*>(to) =
          make_float4(out[r * 8], out[r * 8 + 1], out[r * 8 + 2], out[r * 8 + 3]);
      *reinterpret_cast<float4*>(to + 4) =
          make_float4(out[r * 8 + 4], out[r * 8 + 5], out[r * 8 + 6], out[r * 8 + 7]);
    }
    sm90::cluster_wait();
    __syncthreads();
    send(args, rank, memory);
    sm90::cluster_barrier_wait(memory.barrier, 0);
    finish(args, rank, kv_head, memory);
    append(args, rank, kv_head, position, memory);
  }

 private:
  static __device__ __forceinline__ Memory memory_of(uint8_t* shared) {
    Memory m;
    m.queries = reinterpret_cast<float*>(shared + Shape::kQueriesAt);
    m.keys = reinterpret_cast<f16*>(shared + Shape::kKeysAt);
    m.values = reinterpret_cast<f16*>(shared + Shape::kValuesAt);
    m.weights = reinterpret_cast<float*>(shared + Shape::kWeightsAt);
    m.corrections = reinterpret_cast<float*>(shared + Shape::kCorrectionsAt);
    m.outputs = reinterpret_cast<float*>(shared + Shape::kOutputsAt);
    m.states = reinterpret_cast<float2*>(shared + Shape::kStatesAt);
    m.inbox = reinterpret_cast<float*>(shared + Shape::kInboxAt);
    m.inbox_states = reinterpret_cast<float4*>(shared + Shape::kInboxStatesAt);
    m.sinks = reinterpret_cast<float*>(shared + Shape::kSinksAt);
    m.barrier = sm90::shared_address(shared + Shape::kBarrierAt);
    return m;
  }
  /// exp(before - now), what sums against an older maximum are multiplied by; within 2^-24 of the larger
  /// one's part of a sum, and exactly 1 where the maximum stays.
  static __device__ __forceinline__ float rescale(float before, float now) {
    const float factor = sm90::exp2_approx((before - now) * 1.4426950408889634f);
    return now == before ? 1.0f : factor;
  }
  static __device__ __forceinline__ float logit(const Args& args, float dot) {
    const float z = dot * args.scale;
    return args.softcap > 0.0f ? args.softcap * tanh(z / args.softcap) : z;
  }

  /// Asks for the thread's runs of a tile, of which `at` is the first. What no row sees may be anything: from
  /// the slot `end` on it is zeros, and so are columns beyond the head's.
  static __device__ __forceinline__ void load_tile(const f16* at, int64_t slot_elems, int32_t head_dim,
                                                   int32_t tile, int32_t end, uint4 (&to)[kKeys]) {
    const int32_t slots =
        int32_t(threadIdx.x % kLanes * 8) < head_dim ? end - tile - int32_t(threadIdx.x / kLanes) : 0;
#pragma unroll
    for (uint32_t i = 0; i < kKeys; ++i) {
      to[i] = make_uint4(0, 0, 0, 0);
      if (int32_t(i * kStep) < slots) to[i] = __ldcg(reinterpret_cast<const uint4*>(at));
      at += kStep * slot_elems;
    }
  }
  /// The new tokens' runs instead of the cache's; `ahead` is what the tile begins after the first of them.
  static __device__ __forceinline__ void take_new(const f16* rows, uint32_t seq, int64_t ahead,
                                                  uint4 (&runs)[kKeys]) {
#pragma unroll
    for (uint32_t i = 0; i < kKeys; ++i) {
      const int64_t token = ahead + int64_t(i * kStep + threadIdx.x / kLanes);
      if (token >= 0 && token < int64_t(seq))
        runs[i] = *reinterpret_cast<const uint4*>(rows + token * kDim + threadIdx.x % kLanes * 8);
    }
  }

  /// Of the elements that no pair turns, the n-th; those beyond the head count.
  static __device__ __forceinline__ uint32_t unturned(const Args& args, uint32_t n) {
    const uint32_t pairs = uint32_t(args.pairs);
    const uint32_t between = args.adjacent != 0 ? 0 : uint32_t(args.split_offset) - pairs;
    return n < between ? pairs + n : 2 * pairs + n;
  }
  /// Threads beside each other have pairs beside each other.
  static __device__ __forceinline__ Turn turn_of(const Args& args, uint32_t kv_head) {
    const uint32_t pair = threadIdx.x % kPairs, pairs = uint32_t(args.pairs), group = uint32_t(args.group);
    Turn t;
    t.is_pair = pair < pairs;
    const uint32_t n = t.is_pair ? 0 : 2 * (pair - pairs);
    t.first = t.is_pair ? (args.adjacent != 0 ? 2 * pair : pair) : unturned(args, n);
    t.second = t.is_pair ? t.first + uint32_t(args.split_offset) : unturned(args, n + 1);
#pragma unroll
    for (uint32_t i = 0; i < kTurns; ++i) {
      const uint32_t head = threadIdx.x / kPairs + i * kHeadsAtOnce;
      t.rows[i] = head < group ? args.q.ptr + (kv_head * group + head) * args.q_head
                               : args.k_new.ptr + kv_head * args.k_head;
    }
    t.value_at = args.v_new.ptr + kv_head * args.v_head + threadIdx.x;
    return t;
  }
  /// Asks for a token's elements; columns beyond the head's are zeros.
  static __device__ __forceinline__ void load_token(const Args& args, uint32_t token, Turn& t) {
    const uint32_t group = uint32_t(args.group), dim = uint32_t(args.head_dim);
    t.position = __ldcg(args.positions.ptr + token);
#pragma unroll
    for (uint32_t i = 0; i < kTurns; ++i) {
      const uint32_t head = threadIdx.x / kPairs + i * kHeadsAtOnce;
      const float* row = t.rows[i] + token * (head < group ? args.q_row : args.k_row);
      t.a[i] = head <= group && t.first < dim ? __ldcg(row + t.first) : 0.0f;
      t.b[i] = head <= group && t.second < dim ? __ldcg(row + t.second) : 0.0f;
    }
    t.value = threadIdx.x < dim ? __ldcg(t.value_at + token * args.v_row) : 0.0f;
  }
  /// Queries and new keys, turned, and new values to shared memory, with zeros up to kDim columns and for
  /// rows that there are not. The first token is under way.
  static __device__ __forceinline__ void turn_tokens(const Args& args, Turn& t, const Memory& memory) {
    const uint32_t group = uint32_t(args.group), seq = uint32_t(args.seq);
#pragma unroll 1
    for (uint32_t token = 0;;) {
      const SineCosine angle = sine_cosine(t.position, t.frequency);
      const float sine = angle.sine * args.magnitude, cosine = angle.cosine * args.magnitude;
#pragma unroll
      for (uint32_t i = 0; i < kTurns; ++i) {
        const uint32_t head = threadIdx.x / kPairs + i * kHeadsAtOnce;
        const float a = t.is_pair ? t.a[i] * cosine - t.b[i] * sine : t.a[i];
        const float b = t.is_pair ? t.b[i] * cosine + t.a[i] * sine : t.b[i];
        if (head < group) {
          float* to = memory.queries + (token * group + head) * kDim;
          to[t.first] = a, to[t.second] = b;
        } else if (head == group) {
          f16* to = memory.keys + token * kDim;
          store(to + t.first, a);
          store(to + t.second, b);
        }
      }
      if (threadIdx.x < kDim) store(memory.values + token * kDim + threadIdx.x, t.value);
      if (++token == seq) break;
      load_token(args, token, t);
    }
    for (uint32_t i = seq * group * kDim + threadIdx.x; i < kRows * kDim; i += kThreads)
      memory.queries[i] = 0.0f;
  }

  static __device__ __forceinline__ void to_floats(const uint4& run, float (&x)[8]) {
    const uint32_t words[4] = {run.x, run.y, run.z, run.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 pair = sm90::f16x2_to_f32(words[i]);
      x[2 * i] = pair.x, x[2 * i + 1] = pair.y;
    }
  }
  /// dots[key][row], of the thread's columns. `queries` are those columns of row 0.
  static __device__ __forceinline__ void multiply_keys(const float* queries, const uint4 (&keys)[kKeys],
                                                       float (&dots)[kKeys * kRows]) {
    float x[kKeys][8];
#pragma unroll
    for (uint32_t i = 0; i < kKeys; ++i) to_floats(keys[i], x[i]);
#pragma unroll
    for (uint32_t r = 0; r < kRows; ++r) {
      const float4 low = *reinterpret_cast<const float4*>(queries + r * kDim);
      const float4 high = *reinterpret_cast<const float4*>(queries + r * kDim + 4);
      const float q[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
      for (uint32_t i = 0; i < kKeys; ++i) {
        float sum = 0.0f;
#pragma unroll
        for (int e = 0; e < 8; ++e) sum = __fmaf_rn(q[e], x[i][e], sum);
        dots[i * kRows + r] = sum;
      }
    }
  }
  /// out[row][column] += weights . values. `weights` are those of the thread's first key.
  static __device__ __forceinline__ void multiply_values(const float* weights, const uint4 (&values)[kKeys],
                                                         float (&out)[kRows * 8]) {
#pragma unroll
    for (uint32_t i = 0; i < kKeys; ++i) {
      float x[8];
      to_floats(values[i], x);
#pragma unroll
      for (uint32_t r = 0; r < kRows; r += 4) {
        const float4 of_four = *reinterpret_cast<const float4*>(weights + i * kRows + r);
        const float w[4] = {of_four.x, of_four.y, of_four.z, of_four.w};
#pragma unroll
        for (uint32_t j = 0; j < 4; ++j) {
          if (w[j] < 0.0f) continue;  // a value that the row does not see may be NaN
#pragma unroll
          for (int e = 0; e < 8; ++e) out[(r + j) * 8 + e] = __fmaf_rn(w[j], x[e], out[(r + j) * 8 + e]);
        }
      }
    }
  }
  /// Sums of the first kCount values over the lanes that differ in the bits from kFirst down to kLast. Half
  /// of the values go to either half of the lanes at each step: lane l is left with those from l / kLast % (2
  /// kFirst / kLast) times their number on.
  template <uint32_t kCount, uint32_t kFirst, uint32_t kLast, uint32_t kSize>
  static __device__ __forceinline__ void sum_over_lanes(float (&v)[kSize]) {
    static_assert(kCount % 2 == 0, "halves");
    const bool is_upper = (threadIdx.x & kFirst) != 0;
#pragma unroll
    for (uint32_t i = 0; i < kCount / 2; ++i) {
      const float given = is_upper ? v[i] : v[i + kCount / 2], kept = is_upper ? v[i + kCount / 2] : v[i];
      v[i] = kept + __shfl_xor_sync(0xffffffffu, given, int(kFirst));
    }
    if constexpr (kFirst > kLast) sum_over_lanes<kCount / 2, kFirst / 2, kLast>(v);
  }

  /// The block's state of every row: outputs to the blocks that finish their columns, maximum and sum to all.
  static __device__ __forceinline__ void send(const Args& args, uint32_t rank, const Memory& memory) {
    constexpr uint32_t kRuns = kDim / 4;
    static_assert(kRows * kRuns <= kThreads && kRows * ops::kCachedAttentionBlocks <= int(kThreads),
                  "one each");
    const uint32_t blocks = 1u << args.cluster_shift;
    if (threadIdx.x < kRows * kRuns) {
      const uint32_t row = threadIdx.x / kRuns, column = threadIdx.x % kRuns;
      const float top = top_of_warps(memory, row);
      float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
      for (uint32_t w = 0; w < kWarps; ++w) {
        const float2 state = memory.states[w * kRows + row];
        const float4 x =
            *reinterpret_cast<const float4*>(memory.outputs + (w * kRows + row) * kDim + column * 4);
        if (state.y == 0.0f) continue;
        const float weight = rescale(state.x, top);
        sum.x = __fmaf_rn(x.x, weight, sum.x);
        sum.y = __fmaf_rn(x.y, weight, sum.y);
        sum.z = __fmaf_rn(x.z, weight, sum.z);
        sum.w = __fmaf_rn(x.w, weight, sum.w);
      }
      const uint32_t shift = kDimShift - 2 - uint32_t(args.cluster_shift);  // to the runs of a block
      const uint32_t owner = column >> shift, its = column - (owner << shift);
      float* at = memory.inbox + (((rank * kRows + row) << shift) + its) * 4;
      sm90::cluster_send(sm90::cluster_address(sm90::shared_address(at), owner),
                         sm90::cluster_address(memory.barrier, owner), sum.x, sum.y, sum.z, sum.w);
    }
    if (threadIdx.x < kRows * blocks) {
      const uint32_t row = threadIdx.x % kRows, owner = threadIdx.x / kRows;
      const float top = top_of_warps(memory, row);
      float sum = 0.0f;
#pragma unroll
      for (uint32_t w = 0; w < kWarps; ++w) {
        const float2 state = memory.states[w * kRows + row];
        if (state.y != 0.0f) sum += state.y * rescale(state.x, top);
      }
      float4* at = memory.inbox_states + rank * kRows + row;
      sm90::cluster_send(sm90::cluster_address(sm90::shared_address(at), owner),
                         sm90::cluster_address(memory.barrier, owner), top, sum, 0.0f, 0.0f);
    }
  }
  static __device__ __forceinline__ float top_of_warps(const Memory& memory, uint32_t row) {
    float top = ops::kAttentionLowest;
#pragma unroll
    for (uint32_t w = 0; w < kWarps; ++w) top = attention_max(top, memory.states[w * kRows + row].x);
    return top;
  }

  /// The block's columns of y.
  static __device__ __forceinline__ void finish(const Args& args, uint32_t rank, uint32_t kv_head,
                                                const Memory& memory) {
    const uint32_t blocks = 1u << args.cluster_shift, shift = kDimShift - uint32_t(args.cluster_shift);
    const uint32_t group = uint32_t(args.group), count = uint32_t(args.seq) * group;
    for (uint32_t i = threadIdx.x; i < count << shift; i += kThreads) {
      const uint32_t row = i >> shift, its = i - (row << shift), d = (rank << shift) + its;
      if (d >= uint32_t(args.head_dim)) continue;
      float top = ops::kAttentionLowest;
      for (uint32_t b = 0; b < blocks; ++b) top = attention_max(top, memory.inbox_states[b * kRows + row].x);
      const float sink = memory.sinks[row];
      top = sink > top || is_nan(sink) ? sink : top;
      float sum = 0.0f, out = 0.0f;
      for (uint32_t b = 0; b < blocks; ++b) {
        const float4 state = memory.inbox_states[b * kRows + row];
        if (state.y == 0.0f) continue;
        const float weight = rescale(state.x, top);
        sum += state.y * weight;
        out = __fmaf_rn(memory.inbox[((b * kRows + row) << shift) + its], weight, out);
      }
      const bool is_blind = sum == 0.0f;
      sum += exp(sink - top);
      const int64_t head = kv_head * group + row % group;
      args.y.ptr[row / group * args.y_row + head * args.y_head + d] = is_blind ? 0.0f : out / sum;
    }
  }

  /// New keys and values to the cache, those whose slots are in this block's tiles.
  static __device__ __forceinline__ void append(const Args& args, uint32_t rank, uint32_t kv_head,
                                                int64_t position, const Memory& memory) {
    const uint32_t d = threadIdx.x % kLanes * 8;
    if (int32_t(d) >= args.head_dim) return;
    f16* keys = (f16*)args.k_cache.ptr + kv_head * args.k_cache_head + d;
    f16* values = (f16*)args.v_cache.ptr + kv_head * args.v_cache_head + d;
    for (uint32_t token = threadIdx.x / kLanes; token < uint32_t(args.seq); token += kStep) {
      const int64_t slot = position + token;
      if ((uint32_t(slot / kTile) & ((1u << args.cluster_shift) - 1)) != rank) continue;
      *reinterpret_cast<uint4*>(keys + slot * args.k_cache_slot) =
          *reinterpret_cast<const uint4*>(memory.keys + token * kDim + d);
      *reinterpret_cast<uint4*>(values + slot * args.v_cache_slot) =
          *reinterpret_cast<const uint4*>(memory.values + token * kDim + d);
    }
  }
};

}  // namespace gpu
}  // namespace mlxn
