#pragma once

#include "backends/cpu/weight_rows16.h"
#include "simd/inline.h"

/// Body of the packers, compiled once per instruction set. Bound by memory: it reads 16 rows in step, each front to back,
/// and writes one stream; four dwords of the 16 rows at a time are transposed in registers.
namespace mlxn::rows16 {

/// Where each dword of a block goes.
template <DType kType>
struct VectorOfDword {
  int at[64];
  constexpr VectorOfDword() : at{} {
    for (int i = 0; i < format(kType).dwords; ++i) at[source_dword(kType, i)] = i;
  }
};

template <class V, DType kType>
struct Packer {
  static constexpr VectorOfDword<kType> kVectors{};
  static constexpr Format kFormat = format(kType);
  static constexpr std::int64_t kBlocks = kChunkElems / kFormat.block_elems;  ///< of a whole chunk

  /// One field of `kBytes` bytes of n blocks: row by row, so that a row's address is fetched once.
  template <int kBytes>
  static MLXN_SIMD void gather(const std::uint8_t* const* rows, std::int64_t offset, std::int64_t n, std::uint8_t* dst,
                               std::int64_t dst_step) {
    const auto blocks_of_row = [&](std::int64_t count) MLXN_LAMBDA {
      for (int r = 0; r < kRows; ++r) {
        const std::uint8_t* from = rows[r] + offset;
        MLXN_UNROLL
        for (std::int64_t b = 0; b < count; ++b) {
          __builtin_memcpy(dst + b * dst_step + kBytes * r, from + b * kFormat.block_bytes, kBytes);
        }
      }
    };
    if (n == kBlocks) blocks_of_row(kBlocks);
    else blocks_of_row(n);
  }

  /// n <= kBlocks whole blocks.
  static MLXN_SIMD void pack_blocks(const std::uint8_t* const* rows, std::int64_t offset, std::int64_t n,
                                    std::uint8_t* scales, std::uint8_t* dst) {
    if constexpr (kFormat.scale_bytes != 0) {
      gather<kFormat.scale_bytes>(rows, offset + kFormat.scale_at, n, scales, kFormat.scale_bytes * kRows);
    }
    // Dwords in fours, from the end of the block; the one to three at its beginning on their own.
    constexpr int kSingles = kFormat.dwords % 4;
    MLXN_UNROLL
    for (int i = 0; i < kSingles; ++i) {
      gather<4>(rows, offset + kFormat.first + 4 * i, n, dst + 64 * kVectors.at[i], kFormat.dwords * 64);
    }
    for (std::int64_t b = 0; b < n; ++b) {
      MLXN_UNROLL
      for (int i = kSingles; i < kFormat.dwords; i += 4) {
        V::transpose4(rows, offset + b * kFormat.block_bytes + kFormat.first + 4 * i, [&](int j) MLXN_LAMBDA {
          return dst + (b * kFormat.dwords + kVectors.at[i + j]) * 64;
        });
      }
    }
  }

  static void run(const std::uint8_t* const* rows, std::int64_t k, std::uint8_t* dst) {
    std::int64_t offset = 0;
    while (k > 0) {
      const std::int64_t elems = k < kChunkElems ? k : kChunkElems;
      const std::int64_t whole = elems / kFormat.block_elems;
      std::uint8_t* scales = dst;
      dst += scales_bytes(kFormat, blocks(kFormat, elems));
      pack_blocks(rows, offset, whole, scales, dst);
      offset += whole * kFormat.block_bytes;
      dst += whole * kFormat.dwords * 64;
      if constexpr (kFormat.block_elems == 16) {
        if (const std::int64_t rest = elems % 16; rest != 0) {  // a dense row's end, filled up with zeros
          std::uint8_t padded[kRows][64];
          const std::uint8_t* ends[kRows];
          for (int r = 0; r < kRows; ++r) {
            const std::int64_t bytes = row_bytes(kFormat, rest);
            for (std::int64_t i = 0; i < 64; ++i) padded[r][i] = i < bytes ? rows[r][offset + i] : std::uint8_t{0};
            ends[r] = padded[r];
          }
          pack_blocks(ends, 0, 1, scales, dst);
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
#define MLXN_AFFINE(name) \
  case DType::name: return &Packer<V, DType::name>::run;
    MLXN_AFFINE(affine4_g64)
    MLXN_AFFINE(affine4_g128)
    MLXN_AFFINE(affine8_g32)
    MLXN_AFFINE(affine8_g64)
    MLXN_AFFINE(affine8_g128)
    MLXN_AFFINE(affine4_g32_f32)
    MLXN_AFFINE(affine4_g64_f32)
    MLXN_AFFINE(affine4_g128_f32)
    MLXN_AFFINE(affine8_g32_f32)
    MLXN_AFFINE(affine8_g64_f32)
    MLXN_AFFINE(affine8_g128_f32)
#undef MLXN_AFFINE
    // Those with bf16 lie as those with f16 do.
    case DType::affine4_g32_bf16: return &Packer<V, DType::q4_1>::run;
    case DType::affine4_g64_bf16: return &Packer<V, DType::affine4_g64>::run;
    case DType::affine4_g128_bf16: return &Packer<V, DType::affine4_g128>::run;
    case DType::affine8_g32_bf16: return &Packer<V, DType::affine8_g32>::run;
    case DType::affine8_g64_bf16: return &Packer<V, DType::affine8_g64>::run;
    case DType::affine8_g128_bf16: return &Packer<V, DType::affine8_g128>::run;
    default: return nullptr;
  }
}

}  // namespace mlxn::rows16
