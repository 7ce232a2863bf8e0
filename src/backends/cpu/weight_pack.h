#pragma once

#include "backends/cpu/weight_rows16.h"
#include "simd/inline.h"

/// Body of the packers, compiled once per instruction set. Bound by memory: it reads 16 rows in step, each front to back,
/// and writes one stream; four dwords of the 16 rows at a time are transposed in registers.
namespace mlxn::rows16 {

template <class V, DType kType>
struct Packer {
  static constexpr Format kFormat = format(kType);

  static MLXN_SIMD void pack_block(const std::uint8_t* const* rows, std::int64_t offset, std::uint8_t* scale,
                                   std::uint8_t* dst) {
    constexpr int kSingles = kFormat.dwords % 4;
    if constexpr (kFormat.scale_bytes == 2) {
      MLXN_UNROLL
      for (int r = 0; r < kRows; ++r) __builtin_memcpy(scale + 2 * r, rows[r] + offset + kFormat.scale_at, 2);
    } else if constexpr (kFormat.scale_bytes == 1) {
      MLXN_UNROLL
      for (int r = 0; r < kRows; ++r) scale[r] = rows[r][offset + kFormat.scale_at];
    }
    MLXN_UNROLL
    for (int i = 0; i < kSingles; ++i) {
      MLXN_UNROLL
      for (int r = 0; r < kRows; ++r) __builtin_memcpy(dst + 64 * i + 4 * r, rows[r] + offset + kFormat.first + 4 * source_dword(kType, i), 4);
    }
    MLXN_UNROLL
    for (int i = kSingles; i < kFormat.dwords; i += 4) {
      V::transpose4(rows, offset + kFormat.first + 4 * source_dword(kType, i), dst + 64 * i);
    }
  }

  static void run(const std::uint8_t* const* rows, std::int64_t k, std::uint8_t* dst) {
    std::int64_t offset = 0;
    while (k > 0) {
      const std::int64_t elems = k < kChunkElems ? k : kChunkElems;
      const std::int64_t whole = elems / kFormat.block_elems;
      std::uint8_t* scale = dst;
      dst += scales_bytes(kFormat, blocks(kFormat, elems));
      for (std::int64_t b = 0; b < whole; ++b) {
        pack_block(rows, offset, scale, dst);
        offset += kFormat.block_bytes;
        scale += kFormat.scale_bytes * kRows;
        dst += kFormat.dwords * 64;
      }
      if constexpr (kFormat.block_elems == 16) {
        if (const std::int64_t rest = elems % 16; rest != 0) {  // a dense row's end, filled up with zeros
          std::uint8_t padded[kRows][64];
          const std::uint8_t* ends[kRows];
          for (int r = 0; r < kRows; ++r) {
            const std::int64_t bytes = row_bytes(kFormat, rest);
            for (std::int64_t i = 0; i < 64; ++i) padded[r][i] = i < bytes ? rows[r][offset + i] : std::uint8_t{0};
            ends[r] = padded[r];
          }
          pack_block(ends, 0, scale, dst);
        }
      }
      k -= elems;
    }
  }
};

/// The packer of a type, or null for a type that is no weight.
template <class V>
static PackGroup packer_of(DType type) {
  switch (type) {
    case DType::f32: return &Packer<V, DType::f32>::run;
    case DType::f16: return &Packer<V, DType::f16>::run;
    case DType::bf16: return &Packer<V, DType::bf16>::run;
    case DType::q4_0: return &Packer<V, DType::q4_0>::run;
    case DType::q4_1: return &Packer<V, DType::q4_1>::run;
    case DType::q5_0: return &Packer<V, DType::q5_0>::run;
    case DType::q5_1: return &Packer<V, DType::q5_1>::run;
    case DType::q8_0: return &Packer<V, DType::q8_0>::run;
    case DType::q2_K: return &Packer<V, DType::q2_K>::run;
    case DType::q3_K: return &Packer<V, DType::q3_K>::run;
    case DType::q4_K: return &Packer<V, DType::q4_K>::run;
    case DType::q5_K: return &Packer<V, DType::q5_K>::run;
    case DType::q6_K: return &Packer<V, DType::q6_K>::run;
    case DType::iq4_nl: return &Packer<V, DType::iq4_nl>::run;
    case DType::iq4_xs: return &Packer<V, DType::iq4_xs>::run;
    case DType::mxfp4: return &Packer<V, DType::mxfp4>::run;
    default: return nullptr;
  }
}

}  // namespace mlxn::rows16
