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

/// act(gate), as silu_mul and gelu_mul have it: (1 + tanh z) / 2 = 1 / (1 + e^-2z). The divisor is 1 to 2:
/// the quotient needs none of what makes a division slow for gates far below zero.
__device__ __forceinline__ float activated(float gate, std::uint32_t activation) {
  const float z = activation == ops::kHopperTileSilu
                      ? gate
                      : (gate + gate * gate * gate * 0.044715f) * (2.0f * 0.7978845608028654f);
  const float e = expf(-fabsf(z));
  return __fdividef(z < 0 ? gate * e : gate, 1.0f + e);
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
  __device__ __forceinline__ void put(const Place& me, std::uint32_t token, const Back& back,
                                      const Quad& quad) const {
    float* to = tile + (token + me.token) * kStride + me.row;
#pragma unroll
    for (std::uint32_t i = 0; i < kCount; ++i) {
      const float4 v = quad(i);
      to[8 * i * kStride] = v.x * back.first.x * back.second.x;
      to[(8 * i + 1) * kStride] = v.y * back.first.x * back.second.x;
      to[8 * i * kStride + 8] = v.z * back.first.y * back.second.y;
      to[(8 * i + 1) * kStride + 8] = v.w * back.first.y * back.second.y;
    }
  }
};

/// An element of y or of the residual.
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

/// Four of them, together at a multiple of their size; of 16 bits f16 or bf16.
template <bool kIsF32>
struct Four {
  using Raw = uint4;
  static __device__ __forceinline__ uint4 load(const void* from, std::int64_t at) {
    return __ldcg(reinterpret_cast<const uint4*>(static_cast<const float*>(from) + at));
  }
  static __device__ __forceinline__ float4 add(const float4& v, const uint4& raw, bool) {
    return make_float4(v.x + __uint_as_float(raw.x), v.y + __uint_as_float(raw.y),
                       v.z + __uint_as_float(raw.z), v.w + __uint_as_float(raw.w));
  }
  static __device__ __forceinline__ void store(void* to, std::int64_t at, bool, const float4& v) {
    *reinterpret_cast<float4*>(static_cast<float*>(to) + at) = v;
  }
};
template <>
struct Four<false> {
  using Raw = uint2;
  static __device__ __forceinline__ uint2 load(const void* from, std::int64_t at) {
    return __ldcg(reinterpret_cast<const uint2*>(static_cast<const std::uint16_t*>(from) + at));
  }
  static __device__ __forceinline__ float2 pair(std::uint32_t bits, bool is_f16) {
    return is_f16 ? sm90::f16x2_to_f32(bits)
                  : make_float2(__uint_as_float(bits << 16), __uint_as_float(bits & 0xFFFF0000u));
  }
  static __device__ __forceinline__ float4 add(const float4& v, const uint2& raw, bool is_f16) {
    const float2 a = pair(raw.x, is_f16), b = pair(raw.y, is_f16);
    return make_float4(v.x + a.x, v.y + a.y, v.z + b.x, v.w + b.y);
  }
  static __device__ __forceinline__ void store(void* to, std::int64_t at, bool is_f16, const float4& v) {
    *reinterpret_cast<uint2*>(static_cast<std::uint16_t*>(to) + at) =
        is_f16 ? make_uint2(sm90::f32_to_f16x2(v.x, v.y), sm90::f32_to_f16x2(v.z, v.w))
               : make_uint2(sm90::f32_to_bf16x2(v.x, v.y), sm90::f32_to_bf16x2(v.z, v.w));
  }
};

/// y of a tile in memory, from token `token` and row tile `row_tile` on.
template <class C>
struct FusedStore {
  using Memory = TileMemory<C>;
  const HopperTileArgs& args;
  float* tile;
  std::uint32_t thread, row_tile, token;
  bool gated = args.gate_rows != 0, onto = args.residual.ptr != nullptr,
       scaled = args.x_scales.ptr != nullptr;
  std::uint32_t columns = gated ? C::kRows / 2 : C::kRows;

  /// Where elements of y lie.
  struct At {
    std::uint32_t token, column;  // in the tile
    bool exists;
  };
  /// Unit u of so many elements.
  __device__ __forceinline__ At at(std::uint32_t u, std::uint32_t elements) const {
    const std::uint32_t first = u * elements;
    const std::uint32_t t = gated ? first / (C::kRows / 2) : first / C::kRows, c = first - t * columns;
    return {t, c, t < Memory::kTokens && token + t < args.m && row_tile * columns + c < args.n};
  }
  __device__ __forceinline__ std::int64_t offset(const At& a, std::int64_t stride) const {
    return (token + a.token) * stride + row_tile * columns + a.column;
  }
  __device__ __forceinline__ float scale(const At& a) const {
    return scaled ? load_scale(args.x_scales.ptr + token + a.token) : 1.0f;
  }

  /// What y is but for the residual takes the place of the sums, by the thread that stores it.
  __device__ __forceinline__ void make_fours() const {
#pragma unroll 1
    for (std::uint32_t u = thread; u < Memory::kTokens * columns / 4; u += C::kRowThreads) {
      const At a = at(u, 4);
      if (!a.exists) continue;
      const float s = scale(a);
      float* const sums = tile + a.token * Memory::kStride + a.column;
      float4 v = *reinterpret_cast<const float4*>(sums);
      v = make_float4(v.x * s, v.y * s, v.z * s, v.w * s);
      if (gated) {
        const float4 by = *reinterpret_cast<const float4*>(sums + C::kRows / 2);
        v.x = activated(v.x, args.activation) * (by.x * s);
        v.y = activated(v.y, args.activation) * (by.y * s);
        v.z = activated(v.z, args.activation) * (by.z * s);
        v.w = activated(v.w, args.activation) * (by.w * s);
      }
      *reinterpret_cast<float4*>(sums) = v;
    }
  }
  template <bool kIsF32>
  __device__ __forceinline__ void store_fours() const {
    using Y = Four<kIsF32>;
    // Loads on their way at a time.
    constexpr std::uint32_t kMost = Memory::kTokens * C::kRows / 4 / C::kRowThreads;
    constexpr std::uint32_t kAtOnce = kMost < 8 ? kMost : 8;
    const bool is_f16 = args.y_type == quant::kElementF16;
#pragma unroll 1
    for (std::uint32_t first = thread; first < Memory::kTokens * columns / 4;
         first += C::kRowThreads * kAtOnce) {
      typename Y::Raw added[kAtOnce]{};
      if (onto) {
#pragma unroll
        for (std::uint32_t i = 0; i < kAtOnce; ++i) {
          const At a = at(first + i * C::kRowThreads, 4);
          if (a.exists) added[i] = Y::load(args.residual.ptr, offset(a, args.residual_stride));
        }
      }
#pragma unroll
      for (std::uint32_t i = 0; i < kAtOnce; ++i) {
        const At a = at(first + i * C::kRowThreads, 4);
        if (!a.exists) continue;
        float4 v = *reinterpret_cast<const float4*>(tile + a.token * Memory::kStride + a.column);
        if (onto) v = Y::add(v, added[i], is_f16);
        Y::store(args.y.ptr, offset(a, args.y_stride), is_f16, v);
      }
    }
  }

  __device__ __forceinline__ void ones() const {
#pragma unroll 1
    for (std::uint32_t u = thread; u < Memory::kTokens * columns; u += C::kRowThreads) {
      const At a = at(u, 1);
      if (!a.exists) continue;
      const float s = scale(a);
      const float* from = tile + a.token * Memory::kStride + a.column;
      float v = from[0] * s;
      if (gated) v = activated(v, args.activation) * (from[C::kRows / 2] * s);
      if (onto) v += load_one(args.residual.ptr, offset(a, args.residual_stride), args.y_type);
      store_one(args.y.ptr, offset(a, args.y_stride), args.y_type, v);
    }
  }

  __device__ __forceinline__ void run() const {
    const bool is_f32 = args.y_type == quant::kElementF32;
    const bool wide =
        (reinterpret_cast<std::uintptr_t>(args.y.ptr) | reinterpret_cast<std::uintptr_t>(args.residual.ptr)) %
                (is_f32 ? 16 : 8) ==
            0 &&
        (args.y_stride | args.residual_stride) % 4 == 0 && args.n % 4 == 0;
    if (!wide) {
      ones();
      return;
    }
    make_fours();
    if (is_f32)
      store_fours<true>();
    else
      store_fours<false>();
  }
};

}  // namespace mlxn::tile
