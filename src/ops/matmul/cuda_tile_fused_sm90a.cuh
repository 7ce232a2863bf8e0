// Of cuda_tile_sm90a.cuh: tiles whose product is not yet y, since a residual is added to it or its first half
// of rows is a gate for the second (HopperTileArgs::gate_rows). Their sums go through the memory of the
// stages, which no later tile of the block wants then, so that a thread has both halves of the rows and its
// four elements of y, of whatever type, beside each other.
#pragma once

namespace mlxn::tile {

/// Whether there is something to do with a tile's product.
__device__ __forceinline__ bool is_fused(const HopperTileArgs& args) {
  return args.residual.ptr != nullptr || args.gate_rows != 0;
}

/// act(gate), as silu_mul and gelu_mul have it: (1 + tanh z) / 2 = 1 / (1 + e^-2z).
__device__ __forceinline__ float activated(float gate, std::uint32_t activation) {
  const float z = activation == ops::kHopperTileSilu
                      ? gate
                      : (gate + gate * gate * gate * 0.044715f) * (2.0f * 0.7978845608028654f);
  const float e = expf(-fabsf(z));
  return (z < 0 ? gate * e : gate) / (1.0f + e);
}

/// A tile in shared memory: [token][row], f32. The eight rows of four tokens that a warp writes at a time lie
/// in different banks.
template <class C>
struct TileMemory {
  static constexpr std::uint32_t kStride = C::kRows + 4;
  static constexpr std::uint32_t kTokens = C::kForm == Form::pair ? C::kTokens / 2 : C::kTokens;
  static constexpr std::uint32_t kOffset =
      C::kForm == Form::pair ? C::kSums / 8 * C::kRowThreads * 4 : 0;  // behind what the other block sends
  static_assert((kOffset + kTokens * kStride) * 4 <= C::kXBarriers);
  float* tile;

  explicit __device__ __forceinline__ TileMemory(float4* memory)
      : tile(reinterpret_cast<float*>(memory) + kOffset) {}

  /// kCount times four sums, quad(i), from token `token` of the tile on, times what those of their row are
  /// multiplied by.
  template <int kCount, class Quad>
  __device__ __forceinline__ void put(const Place& me, std::uint32_t token, const float2& back,
                                      const Quad& quad) const {
    float* to = tile + (token + me.token) * kStride + me.row;
#pragma unroll
    for (std::uint32_t i = 0; i < kCount; ++i) {
      const float4 v = quad(i);
      to[8 * i * kStride] = v.x * back.x;
      to[(8 * i + 1) * kStride] = v.y * back.x;
      to[8 * i * kStride + 8] = v.z * back.y;
      to[(8 * i + 1) * kStride + 8] = v.w * back.y;
    }
  }
};

/// Elements `at` .. `at` + 3 of y or of the residual, together at a multiple of their size.
__device__ __forceinline__ float4 load_four(const void* from, std::int64_t at, std::uint32_t type) {
  if (type == quant::kElementF32)
    return __ldcg(reinterpret_cast<const float4*>(static_cast<const float*>(from) + at));
  const uint2 pairs = __ldcg(reinterpret_cast<const uint2*>(static_cast<const std::uint16_t*>(from) + at));
  if (type == quant::kElementF16) {
    const float2 a = sm90::f16x2_to_f32(pairs.x), b = sm90::f16x2_to_f32(pairs.y);
    return make_float4(a.x, a.y, b.x, b.y);
  }
  return make_float4(__uint_as_float(pairs.x << 16), __uint_as_float(pairs.x & 0xFFFF0000u),
                     __uint_as_float(pairs.y << 16), __uint_as_float(pairs.y & 0xFFFF0000u));
}
__device__ __forceinline__ void store_four(void* to, std::int64_t at, std::uint32_t type, const float4& v) {
  if (type == quant::kElementF32) {
    *reinterpret_cast<float4*>(static_cast<float*>(to) + at) = v;
    return;
  }
  const bool is_f16 = type == quant::kElementF16;
  *reinterpret_cast<uint2*>(static_cast<std::uint16_t*>(to) + at) =
      is_f16 ? make_uint2(sm90::f32_to_f16x2(v.x, v.y), sm90::f32_to_f16x2(v.z, v.w))
             : make_uint2(sm90::f32_to_bf16x2(v.x, v.y), sm90::f32_to_bf16x2(v.z, v.w));
}
/// One of them.
__device__ __forceinline__ float load_one(const void* from, std::int64_t at, std::uint32_t type) {
  if (type == quant::kElementF32) return __ldcg(static_cast<const float*>(from) + at);
  const std::uint16_t bits = __ldcg(static_cast<const std::uint16_t*>(from) + at);
  return type == quant::kElementF16 ? sm90::f16_to_f32(bits) : __uint_as_float(std::uint32_t(bits) << 16);
}
__device__ __forceinline__ void store_one(void* to, std::int64_t at, std::uint32_t type, float v) {
  if (type == quant::kElementF32) {
    static_cast<float*>(to)[at] = v;
    return;
  }
  static_cast<std::uint16_t*>(to)[at] =
      std::uint16_t(type == quant::kElementF16 ? sm90::f32_to_f16x2(v, 0.0f) : sm90::f32_to_bf16x2(v, 0.0f));
}

/// y of a tile in memory, from token `token` and row tile `row_tile` on.
template <class C>
__device__ __forceinline__ void store_fused(const HopperTileArgs& args, const TileMemory<C>& memory,
                                            std::uint32_t thread, std::uint32_t row_tile,
                                            std::uint32_t token) {
  using Memory = TileMemory<C>;
  constexpr std::uint32_t kAtOnce = 4;  // loads on their way at a time
  const bool gated = args.gate_rows != 0, onto = args.residual.ptr != nullptr,
             scaled = args.x_scales.ptr != nullptr;
  const std::uint32_t columns = gated ? C::kRows / 2 : C::kRows;
  // Of unit u of so many elements: its token in the tile, its first column, and whether y has it.
  auto place = [&](std::uint32_t u, std::uint32_t elements, std::uint32_t& t, std::uint32_t& c) {
    const std::uint32_t first = u * elements;
    t = gated ? first / (C::kRows / 2) : first / C::kRows;
    c = first - t * columns;
    return t < Memory::kTokens && token + t < args.m && row_tile * columns + c < args.n;
  };
  const std::uint32_t bytes = args.y_type == quant::kElementF32 ? 16 : 8;  // of four elements
  const bool wide =
      (reinterpret_cast<std::uintptr_t>(args.y.ptr) | reinterpret_cast<std::uintptr_t>(args.residual.ptr)) %
              bytes ==
          0 &&
      (args.y_stride | args.residual_stride) % 4 == 0 && args.n % 4 == 0;
  std::uint32_t t, c;
  if (!wide) {
#pragma unroll 1
    for (std::uint32_t u = thread; u < Memory::kTokens * columns; u += C::kRowThreads) {
      if (!place(u, 1, t, c)) continue;
      const std::int64_t column = row_tile * columns + c;
      const float* from = memory.tile + t * Memory::kStride + c;
      const float scale = scaled ? __ldcg(args.x_scales.ptr + token + t) : 1.0f;
      float v = from[0] * scale;
      if (gated) v = activated(v, args.activation) * (from[C::kRows / 2] * scale);
      if (onto) v += load_one(args.residual.ptr, (token + t) * args.residual_stride + column, args.y_type);
      store_one(args.y.ptr, (token + t) * args.y_stride + column, args.y_type, v);
    }
    return;
  }
#pragma unroll 1
  for (std::uint32_t first = thread; first < Memory::kTokens * columns / 4;
       first += C::kRowThreads * kAtOnce) {
    float4 added[kAtOnce];
    float scales[kAtOnce];
#pragma unroll
    for (std::uint32_t i = 0; i < kAtOnce; ++i) {
      added[i] = make_float4(0, 0, 0, 0);
      scales[i] = 1.0f;
      if (!place(first + i * C::kRowThreads, 4, t, c)) continue;
      if (scaled) scales[i] = __ldcg(args.x_scales.ptr + token + t);
      if (onto) {
        added[i] = load_four(args.residual.ptr, (token + t) * args.residual_stride + row_tile * columns + c,
                             args.y_type);
      }
    }
#pragma unroll
    for (std::uint32_t i = 0; i < kAtOnce; ++i) {
      if (!place(first + i * C::kRowThreads, 4, t, c)) continue;
      const float* from = memory.tile + t * Memory::kStride + c;
      float4 v = *reinterpret_cast<const float4*>(from);
      v = make_float4(v.x * scales[i], v.y * scales[i], v.z * scales[i], v.w * scales[i]);
      if (gated) {
        const float4 by = *reinterpret_cast<const float4*>(from + C::kRows / 2);
        v.x = activated(v.x, args.activation) * (by.x * scales[i]);
        v.y = activated(v.y, args.activation) * (by.y * scales[i]);
        v.z = activated(v.z, args.activation) * (by.z * scales[i]);
        v.w = activated(v.w, args.activation) * (by.w * scales[i]);
      }
      store_four(args.y.ptr, (token + t) * args.y_stride + row_tile * columns + c, args.y_type,
                 plus(v, added[i]));
    }
  }
}

}  // namespace mlxn::tile
