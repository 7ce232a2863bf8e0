// Of cuda_tile_sm90a.cuh: what happens to a tile's sums. They are scaled and stored, or added to those of other parts
// of k first, or go on to what is fused with the product (cuda_tile_fused_sm90a.cuh).
#pragma once

#include <cstdint>

#include "cuda_blocks/cluster.cuh"
#include "cuda_blocks/mma.cuh"
#include "ops/matmul/cuda_tile_config_sm90a.cuh"
#include "ops/matmul/cuda_tile_few_sm90a.cuh"

namespace mlxn::tile {

/// The type of y, in which code that stores much branches once.
template <std::uint32_t kElementType>
struct YType {
  static constexpr int kBytes = kElementType == quant::kElementF32 ? 4 : 2;

  /// Two elements of 16 bits, rounded to nearest; `low` in the lower half.
  static __device__ __forceinline__ std::uint32_t pair(float low, float high) {
    static_assert(kBytes == 2);
    return kElementType == quant::kElementF16 ? sm90::f32_to_f16x2(low, high) : sm90::f32_to_bf16x2(low, high);
  }
};

// Predicated stores: the compiler would branch around each.
__device__ __forceinline__ void store_if(bool wanted, char* to, float v) {
  asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, %2, 0;\n @p st.global.f32 [%0], %1;\n}" ::"l"(
                   __cvta_generic_to_global(to)),
               "f"(v), "r"(int(wanted))
               : "memory");
}
__device__ __forceinline__ void store_if(bool wanted, char* to, std::uint16_t v) {
  asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, %2, 0;\n @p st.global.u16 [%0], %1;\n}" ::"l"(
                   __cvta_generic_to_global(to)),
               "h"(v), "r"(int(wanted))
               : "memory");
}
__device__ __forceinline__ void store_if(bool wanted, char* to, uint2 v) {
  asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, %3, 0;\n @p st.global.v2.u32 [%0], {%1, %2};\n}" ::"l"(
                   __cvta_generic_to_global(to)),
               "r"(v.x), "r"(v.y), "r"(int(wanted))
               : "memory");
}
/// The same, `wanted` or not: kAlways.
template <bool kAlways>
__device__ __forceinline__ void store_of(bool wanted, char* to, float v) {
  if constexpr (kAlways)
    *reinterpret_cast<float*>(to) = v;
  else
    store_if(wanted, to, v);
}
/// Whether four neighbours of y lie at a multiple of their size, where they are stored together.
template <class Y>
__device__ __forceinline__ bool is_aligned(const HopperTileArgs& args, Y) {
  return Y::kBytes == 4 || (reinterpret_cast<std::uintptr_t>(args.y.ptr) | std::uintptr_t(args.y_stride * Y::kBytes)) % 8 == 0;
}
template <class Work>
__device__ __forceinline__ void with_y_type(const HopperTileArgs& args, const Work& work) {
  if (args.y_type == quant::kElementF32)
    work(YType<quant::kElementF32>{});
  else if (args.y_type == quant::kElementF16)
    work(YType<quant::kElementF16>{});
  else
    work(YType<quant::kElementBf16>{});
}

template <int kCount>
__device__ __forceinline__ float4 quad_of(const float (&sums)[kCount], int quad) {
  return make_float4(sums[4 * quad], sums[4 * quad + 1], sums[4 * quad + 2], sums[4 * quad + 3]);
}
__device__ __forceinline__ float4 plus(const float4& a, const float4& b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

/// What the sums of rows row and row + 8 are multiplied by: one number, or where it may be beyond f32's range, two.
struct Back {
  float2 first, second;
  static __device__ __forceinline__ Back one(float low, float high) {
    return {make_float2(low, high), make_float2(1.0f, 1.0f)};
  }
  static __device__ __forceinline__ Back wide(int low, int high) {
    const PowerInTwo a = power_in_two(low), b = power_in_two(high);
    return {make_float2(a.first, b.first), make_float2(a.second, b.second)};
  }
};
template <class C>
__device__ __forceinline__ Back back_of(const HopperTileArgs& args, std::uint32_t row) {
  using F = typename C::Format;
  if constexpr (C::kIsFew) {
    using Type = Few<F>;
    if constexpr (Type::kIsScaled) {
      const Scaling scaling = scaling_of<F>(args, row);
      const auto power = [&](int upper) { return int(__float_as_uint(scaling.rows[upper].weight) >> 23) - 127; };
      return Back::wide(Type::back_power(0) - power(0), Type::back_power(1) - power(1));
    } else {
      return Back::one(Type::back(0), Type::back(1));
    }
  } else if constexpr (C::kByRecord) {
    return Back::one(ByRecord<F>::back(0), ByRecord<F>::back(1));
  } else if constexpr (C::kIsScaled) {
    const Scaling scaling = scaling_of<F>(args, row);
    const int low = scaling.rows[0].back, high = scaling.rows[1].back;
    if constexpr (F::kIsWide)
      return Back::wide(low, high);
    else
      return Back::one(power_of_two(low), power_of_two(high));
  } else {
    return Back::one(1.0f, 1.0f);
  }
}

/// kCount times four sums, quad(i): rows row and row + 8 of tokens token + 8 * i and the one behind. kIsWhole: all of
/// them exist, and y of 16 bits lies at multiples of 8 bytes; kIsScaled: x may have scales. All scales are asked for
/// before the first is used: one wait for the L2, where each store would wait for a load behind it, which might read
/// what it writes for all that the compiler knows.
template <int kCount, bool kIsWhole, bool kIsScaled, class Y, class Quad>
__device__ __forceinline__ void store_quads(const HopperTileArgs& args, Y, std::uint32_t row, std::uint32_t token,
                                            const Back& back, const Quad& quad) {
  float2 scales[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) scales[i] = make_float2(1.0f, 1.0f);
  if (kIsScaled && args.x_scales.ptr != nullptr) {
#pragma unroll
    for (int i = 0; i < kCount; ++i)  // tokens beyond m have scales too, to the end of the tile
      scales[i] = load_scales(args.x_scales.ptr + token + 8 * i);
  }
  const auto scaled = [&](int i) {
    const float4 v = quad(i);
    return make_float4(v.x * back.first.x * scales[i].x * back.second.x, v.y * back.first.x * scales[i].y * back.second.x,
                       v.z * back.first.y * scales[i].x * back.second.y, v.w * back.first.y * scales[i].y * back.second.y);
  };
  const std::int64_t next = args.y_stride * Y::kBytes;
  const bool is_odd = threadIdx.x % 2 != 0;
  if constexpr (Y::kBytes == 2) {
    // A lane's elements of a token are two, eight rows apart. Transposed they are pairs of rows, and with the
    // neighbour's pair four: a warp stores 32 bytes, a whole sector of the L2, of each of eight tokens at a time.
    const std::uint32_t lane = threadIdx.x % 32, pair = lane % 4;
    row += (is_odd ? 2 * pair + 6 : 2 * pair) - lane / 4;
    token += lane / 4 - 2 * pair;
  }
  const int left = int(args.m) - int(token);
  char* to = static_cast<char*>(args.y.ptr) + std::int64_t(token) * next + std::int64_t(row) * Y::kBytes;
  if constexpr (Y::kBytes == 2) {
    const auto four = [&](int i) {
      const float4 v = scaled(i);
      const std::uint32_t low = sm90::transpose(Y::pair(v.x, v.y)), high = sm90::transpose(Y::pair(v.z, v.w));
      const std::uint32_t other = __shfl_xor_sync(~0u, is_odd ? low : high, 1);
      return is_odd ? make_uint2(other, high) : make_uint2(low, other);
    };
    if constexpr (kIsWhole) {
#pragma unroll
      for (int i = 0; i < kCount; ++i, to += 8 * next) *reinterpret_cast<uint2*>(to) = four(i);
    } else if (__all_sync(~0u, is_aligned(args, Y{}) && row + 3 < args.n)) {  // without a branch inside, so that many are under way
#pragma unroll
      for (int i = 0; i < kCount; ++i) store_if(left > 8 * i, to + i * 8 * next, four(i));
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const uint2 v = four(i);
        const int rows = left > 8 * i ? int(args.n) - int(row) : 0;
        char* const at = to + i * 8 * next;
        store_if(rows > 0, at, std::uint16_t(v.x));
        store_if(rows > 1, at + 2, std::uint16_t(v.x >> 16));
        store_if(rows > 2, at + 4, std::uint16_t(v.y));
        store_if(rows > 3, at + 6, std::uint16_t(v.y >> 16));
      }
    }
  } else {
    const bool low = row < args.n, high = row + 8 < args.n;
    char* behind = to + next;
#pragma unroll
    for (int i = 0; i < kCount; ++i, to += 8 * next, behind += 8 * next) {
      const float4 v = scaled(i);
      const bool first = kIsWhole || left > 8 * i, second = kIsWhole || left > 8 * i + 1;
      store_of<kIsWhole>(first && low, to, v.x);
      store_of<kIsWhole>(first && high, to + 8 * Y::kBytes, v.z);
      store_of<kIsWhole>(second && low, behind, v.y);
      store_of<kIsWhole>(second && high, behind + 8 * Y::kBytes, v.w);
    }
  }
}

/// kTokens tokens of a tile, kTokens / 8 times four sums of each thread, row and token those of the first. Where tiles
/// are large, and most of them whole, what a whole one does not need is left out: no product is under way meanwhile.
template <class C, int kTokens, class Quad>
__device__ __forceinline__ void store_tokens(const HopperTileArgs& args, std::uint32_t row, std::uint32_t token,
                                             const Quad& quad) {
  constexpr int kQuads = kTokens / 8, kBatch = kQuads < 16 ? kQuads : 16;
  const Back back = back_of<C>(args, row);
  with_y_type(args, [&](auto y) {
    const auto store = [&]<bool kIsWhole, bool kIsScaled>() {
#pragma unroll
      for (int first = 0; first < kQuads; first += kBatch) {
        store_quads<kBatch, kIsWhole, kIsScaled>(args, y, row, token + 8 * first, back, [&](int i) { return quad(first + i); });
      }
    };
    if constexpr (C::kTokens == 256) {
      const std::uint32_t first_row = row - threadIdx.x % 32 / 4, first_token = token - threadIdx.x % 4 * 2;
      if (is_aligned(args, y) && first_row + 16 <= args.n && first_token + kTokens <= args.m) {
        if (args.x_scales.ptr != nullptr)
          store.template operator()<true, true>();
        else
          store.template operator()<true, false>();
        return;
      }
    }
    store.template operator()<false, true>();
  });
}

/// What addresses are made of is hidden from the compiler until here: it would compute them before the loop
/// over k and keep them in registers that the sums need.
template <class C>
__device__ __forceinline__ void store_tile(const float (&sums)[C::kSums], const HopperTileArgs& args,
                                           std::uint32_t row, std::uint32_t token) {
  asm volatile("" : "+r"(row), "+r"(token)::"memory");
  store_tokens<C, C::kTokens>(args, row, token, [&](int i) { return quad_of(sums, i); });
}

}  // namespace mlxn::tile

#include "ops/matmul/cuda_tile_fused_sm90a.cuh"

namespace mlxn::tile {

/// The parts of a tile's sums in the workspace, or of a half of its tokens: kQuads times four of each thread.
template <class C, int kQuads>
struct Parts {
  float4* first;  // this thread's
  std::uint32_t tile, count, own;

  __device__ __forceinline__ Parts(const HopperTileArgs& args, const Place& me, std::uint32_t tile_,
                                   std::uint32_t count_, std::uint32_t own_)
      : first(reinterpret_cast<float4*>(args.workspace.ptr) + std::size_t(tile_) * count_ * kQuads * C::kRowThreads +
              me.thread),
        tile(tile_),
        count(count_),
        own(own_) {}

  /// Leaves this block's part; whether that is the last one, which then adds them up.
  template <class Quad>
  __device__ __forceinline__ bool leave(const HopperTileArgs& args, const Place& me, volatile std::uint32_t* is_last,
                                        const Quad& quad) const {
    float4* to = first + std::size_t(own) * kQuads * C::kRowThreads;
#pragma unroll
    for (int i = 0; i < kQuads; ++i) __stcg(to + i * C::kRowThreads, quad(i));
    __threadfence();
    sm90::named_barrier(2, C::kRowThreads);
    if (me.thread == 0) {
      const bool last = atomicAdd(args.counters.ptr + tile, 1u) + 1 == count;
      if (last) args.counters.ptr[tile] = 0;  // as the next product wants it
      *is_last = last;
      __threadfence();
    }
    sm90::named_barrier(2, C::kRowThreads);
    return *is_last != 0;
  }
  /// Quads begin .. begin + kCount - 1 of all parts, in the order of k.
  template <int kCount>
  __device__ __forceinline__ void add(float4 (&totals)[kCount], int begin) const {
#pragma unroll
    for (float4& total : totals) total = make_float4(0, 0, 0, 0);
#pragma unroll 2
    for (std::uint32_t part = 0; part < count; ++part) {
      const float4* from = first + (std::size_t(part) * kQuads + begin) * C::kRowThreads;
#pragma unroll
      for (int i = 0; i < kCount; ++i) totals[i] = plus(totals[i], __ldcg(from + i * C::kRowThreads));
    }
  }
  /// The same of all quads: this block's part becomes the sum of all.
  __device__ __forceinline__ void add_others(float4 (&part_sums)[kQuads]) const {
    float4 totals[kQuads];
#pragma unroll
    for (float4& total : totals) total = make_float4(0, 0, 0, 0);
#pragma unroll 1
    for (std::uint32_t part = 0; part < count; ++part) {
      const float4* from = first + std::size_t(part) * kQuads * C::kRowThreads;
#pragma unroll
      for (int i = 0; i < kQuads; ++i)
        totals[i] = plus(totals[i], part == own ? part_sums[i] : __ldcg(from + i * C::kRowThreads));
    }
#pragma unroll
    for (int i = 0; i < kQuads; ++i) part_sums[i] = totals[i];
  }
};
/// Of this block: its tile, as many parts as the grid has.
template <class C>
using WholeParts = Parts<C, C::kSums / 4>;
template <class C>
__device__ __forceinline__ WholeParts<C> parts_of(const HopperTileArgs& args, const Place& me) {
  return {args, me, blockIdx.y * gridDim.x + blockIdx.x, gridDim.z, blockIdx.z};
}

/// Sums over a part of k: leaves them in the workspace; the block that comes last adds all parts and stores.
template <class C>
__device__ __forceinline__ void finish_part(const float (&sums)[C::kSums], const HopperTileArgs& args,
                                            std::uint32_t row, std::uint32_t token, const Place& me,
                                            volatile std::uint32_t* is_last) {
  constexpr int kQuads = C::kSums / 4, kBatch = kQuads < 8 ? kQuads : 8;
  const WholeParts<C> parts = parts_of<C>(args, me);
  if (!parts.leave(args, me, is_last, [&](int i) { return quad_of(sums, i); })) return;
  const Back back = back_of<C>(args, row);
  with_y_type(args, [&](auto y) {
#pragma unroll 1
    for (int done = 0; done < kQuads; done += kBatch) {
      float4 totals[kBatch];
      parts.add(totals, done);
      store_quads<kBatch, false, true>(args, y, row, token + 8 * done, back, [&](int i) { return totals[i]; });
    }
  });
}

/// The same in clusters of two: each block gets the other's sums of one half of the tokens, and has to do with that
/// half only from then on.
template <class C>
__device__ __forceinline__ void finish_paired(const float (&sums)[C::kSums], const HopperTileArgs& args,
                                              std::uint32_t row, std::uint32_t token, const Place& me,
                                              std::uint32_t shared, float4* memory) {
  constexpr int kQuads = C::kSums / 8;
  std::uint32_t rank = blockIdx.z % 2, thread = me.thread;
  asm volatile("" : "+r"(row), "+r"(token), "+r"(rank), "+r"(thread)::"memory");
  const bool has_upper = rank != 0;
  float4 own[kQuads];
  sm90::cluster_sync();  // both blocks have read their last stage
  const std::uint32_t remote = sm90::cluster_address(shared + thread * 16, rank ^ 1);
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const float4 low = quad_of(sums, i), high = quad_of(sums, i + kQuads), v = has_upper ? low : high;
    own[i] = has_upper ? high : low;
    sm90::cluster_store(remote + i * C::kRowThreads * 16, v.x, v.y, v.z, v.w);
  }
  sm90::cluster_sync();
#pragma unroll
  for (int i = 0; i < kQuads; ++i) own[i] = plus(own[i], memory[i * C::kRowThreads + thread]);
  token += rank * (C::kTokens / 2);
  if (gridDim.z > 2) {
    const std::uint32_t tile = (blockIdx.y * gridDim.x + blockIdx.x) * 2 + rank;
    const Parts<C, kQuads> parts(args, me, tile, gridDim.z / 2, blockIdx.z / 2);
    if (!parts.leave(args, me, reinterpret_cast<std::uint32_t*>(memory), [&](int i) { return own[i]; })) return;
    parts.add_others(own);
  }
  const Back back = back_of<C>(args, row);
  with_y_type(args, [&](auto y) { store_quads<kQuads, false, true>(args, y, row, token, back, [&](int i) { return own[i]; }); });
}

/// The two blocks of a cluster hold sums over half of k each, and each has the tokens that it finishes in the
/// first half of its sums: it sends the second half to the other and gets, in `memory`, what it adds.
template <class C>
__device__ __forceinline__ void exchange_pair(const float (&sums)[C::kSums], const Place& me,
                                              std::uint32_t shared) {
  constexpr int kQuads = C::kSums / 8;  // sent, and kept
  sm90::cluster_sync();                 // both blocks have read their last stage
  const std::uint32_t remote = sm90::cluster_address(shared + me.thread * 16, (blockIdx.x & 1) ^ 1);
#pragma unroll
  for (int quad = 0; quad < kQuads; ++quad) {
    const float4 v = quad_of(sums, quad + kQuads);
    sm90::cluster_store(remote + quad * C::kRowThreads * 16, v.x, v.y, v.z, v.w);
  }
  sm90::cluster_sync();
}
template <class C>
__device__ __forceinline__ void finish_pair(const float (&sums)[C::kSums], const HopperTileArgs& args,
                                            std::uint32_t row, std::uint32_t token, const Place& me,
                                            std::uint32_t shared, const float4* memory) {
  exchange_pair<C>(sums, me, shared);
  token += (blockIdx.x & 1) * (C::kTokens / 2);
  asm volatile("" : "+r"(row), "+r"(token)::"memory");
  store_tokens<C, C::kTokens / 2>(
      args, row, token, [&](int quad) { return plus(quad_of(sums, quad), memory[quad * C::kRowThreads + me.thread]); });
}

/// A tile whose product is not yet y. The block has no other one.
template <class C>
__device__ __forceinline__ void finish_fused(const float (&sums)[C::kSums], const HopperTileArgs& args,
                                             const Item& item, const Place& me, std::uint32_t shared,
                                             float4* memory) {
  constexpr int kQuads = C::kSums / 4;
  std::uint32_t row = weight_row<C>(args, item, me), token = item.token_tile * C::kTokens;
  asm volatile("" : "+r"(row), "+r"(token)::"memory");
  const TileMemory<C> tile(memory);
  if constexpr (C::kForm == Form::pair) {
    exchange_pair<C>(sums, me, shared);
    token += (blockIdx.x & 1) * (C::kTokens / 2);
    tile.template put<kQuads / 2>(me, 0, back_of<C>(args, row), [&](int quad) {
      return plus(quad_of(sums, quad), memory[quad * C::kRowThreads + me.thread]);
    });
  } else if (C::kForm == Form::parts && gridDim.z > 1) {
    constexpr int kBatch = kQuads < 8 ? kQuads : 8;
    const WholeParts<C> parts = parts_of<C>(args, me);
    if (!parts.leave(args, me, reinterpret_cast<volatile std::uint32_t*>(memory),
                     [&](int i) { return quad_of(sums, i); }))
      return;
    const Back back = back_of<C>(args, row);
    sm90::named_barrier(2, C::kRowThreads);  // all have read the flag
#pragma unroll 1
    for (int done = 0; done < kQuads; done += kBatch) {
      float4 totals[kBatch];
      parts.add(totals, done);
      tile.template put<kBatch>(me, 8 * done, back, [&](int i) { return totals[i]; });
    }
  } else {
    const Back back = back_of<C>(args, row);
    sm90::named_barrier(2, C::kRowThreads);  // all have read their last stage
    tile.template put<kQuads>(me, 0, back, [&](int quad) { return quad_of(sums, quad); });
  }
  sm90::named_barrier(2, C::kRowThreads);
  FusedStore<C>{args, tile.tile, me.thread, item.row_tile, token}.run();
}

}  // namespace mlxn::tile
