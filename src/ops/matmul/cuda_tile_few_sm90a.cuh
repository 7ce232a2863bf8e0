// The consumers of tiles of up to 16 tokens: matrix instructions of one warp (m16n8k16), so that nothing is
// rounded but x: codes are whole numbers of f16, their products with a block of x are summed from zero, and
// the block's scale is multiplied to these sums in f32. A warp has 16 rows of w, all tokens, and every
// kKGroups-th half record; no warp waits for another but at the end.
//
// Bound: issue slots and the integer pipe of unpacking beside x read from shared memory, 4 KB a warp for 16
// tokens. Measured on an H200, n 4096, k 14336, x in f16: 8 tokens q4_0 11.8 us (62 % of the read rate), q4_K 12.5,
// iq4_nl, whose look-ups take shared memory too, 12.5; 16 tokens q4_0 12.7 (57 %).
//
// Codes are less their centre in the operand, exactly. What weights add to scale * code (a minimum, a bias) is one
// more instruction per half record, against sums of x over 16 k (sum_x).
//
// A type is Few<F>:
//   Codes             bits and place as in cuda_tile_codes_sm90a.cuh: whole numbers times 2^(place - 24)
//   Rows              scales in f32, as the few-row kernel has them (hopper_vector_formats.cuh)
//   Addend            words(...): of rows g and g + 8, addends of groups 2t and 2t + 1 of 16 k, in f16; either
//                     times a constant over all of k (kIsWhole), or times factors of the half record
#pragma once

#include <cstdint>

#include "cuda_blocks/mma.cuh"
#include "ops/matmul/cuda_tile_config_sm90a.cuh"
#include "ops/matmul/cuda_tile_formats_sm90a.cuh"
#include "ops/matmul/cuda_tile_reader_sm90a.cuh"
#include "ops/matmul/hopper_vector_formats.cuh"

namespace mlxn::tile {

// ---- codes

/// Bytes as the f16 subnormals that they are.
struct WholeByteCodes {
  static __device__ constexpr int place(int, int) { return 0; }
  using Raw = RawWords<16>;

  template <class Reader>
  static __device__ __forceinline__ Raw load(const Reader& from, PlanesAt at, std::uint32_t lane) {
    return ByteCodes::load(from, at, lane);
  }
  static __device__ __forceinline__ void bits(const Raw& raw, int plane, int step, std::uint32_t (&a)[4]) {
#pragma unroll
    for (int upper = 0; upper < 2; ++upper) {
      const std::uint32_t word = raw.w[8 * plane + 2 * step + upper];
      a[upper] = word & 0x00FF00FFu;
      a[upper + 2] = permute(word, 0, 0x4341);
    }
  }
};

// ---- addends

/// A pair of bytes of `word` as f16.
__device__ __forceinline__ std::uint32_t bytes_as_halves(std::uint32_t word, std::uint32_t first,
                                                         std::uint32_t second) {
  constexpr std::uint32_t kLess1024 = 0xE400u;  // a unit is 1 from there to 2048
  return h2_add(permute(word, 0x64646464u, 0x4040u | second << 8 | first), twice(kLess1024));
}

/// What Addend::words sees of a half record.
struct RowPlace {
  const std::uint8_t* rows;
  std::uint32_t g, t, half;
};

struct NoAddend {
  static constexpr bool kAdds = false, kIsWhole = true;
};
/// The second of pairs in f16 or bf16, of groups of 128 / kGroups. Of bf16 it is 2^-kBelow of the number times the
/// row's power, which brings scales, not what codes make of them, into f16.
template <std::uint32_t kGroups, bool kBf16 = false, int kBelow = 0>
struct SecondOfPair {
  static constexpr bool kAdds = true, kIsWhole = true;
  static constexpr float kFactor = 1 << kBelow;
  static __device__ __forceinline__ void words(const sm90::NoHead&, const RowPlace& at, const Scaling& scaling,
                                               std::uint32_t (&a)[2]) {
#pragma unroll
    for (std::uint32_t u = 0; u < 2; ++u) {
      const std::uint32_t m =
          sm90::load_u16(at.rows + ((at.g * 2 + u) * kGroups + at.t / (4 / kGroups)) * 4 + 2);
      if constexpr (kBf16) {
        const float v = float_of_bits(m << 16) * (scaling.rows[u].weight * (1.0f / kFactor));
        a[u] = h2_of(v, v);
      } else {
        a[u] = twice(m);
      }
    }
  }
};
/// Minimums of 6 bits times -dmin (q4_K, q5_K).
struct MinimumsK4 {
  static constexpr bool kAdds = true, kIsWhole = false;
  static __device__ __forceinline__ void words(const sm90::RowsK4::Head& head, const RowPlace& at,
                                               const Scaling&, std::uint32_t (&a)[2]) {
#pragma unroll
    for (int u = 0; u < 2; ++u) a[u] = bytes_as_halves(head.mn[u], at.t, at.t);
  }
  static __device__ __forceinline__ float factor(const sm90::RowsK4::Head& head, int u) {
    return head.minus_dmin[u];
  }
};
/// Minimums of 4 bits times -dmin.
struct MinimumsQ2K {
  static constexpr bool kAdds = true, kIsWhole = false;
  static __device__ __forceinline__ void words(const sm90::RowsQ2K::Head&, const RowPlace& at, const Scaling&,
                                               std::uint32_t (&a)[2]) {
#pragma unroll
    for (std::uint32_t u = 0; u < 2; ++u) {
      const std::uint32_t both = sm90::load_u16(at.rows + at.g * 32 + u * 16 + at.half * 8 + at.t * 2);
      a[u] = bytes_as_halves(both >> 4 & 0x0f0fu, 0, 1);
    }
  }
  static __device__ __forceinline__ float factor(const sm90::RowsQ2K::Head& head, int u) {
    return head.minus_dmin[u];
  }
};
// ---- types

/// Codes less their centre, exact.
template <class CodesT, int kCentre>
struct Centred : CodesT {
  static __device__ __forceinline__ void bits(const typename CodesT::Raw& raw, int plane, int step,
                                              std::uint32_t (&a)[4]) {
    CodesT::bits(raw, plane, step, a);
#pragma unroll
    for (int i = 0; i < 4; ++i)
      a[i] = h2_add(a[i], twice(0x8000u | static_cast<std::uint32_t>(kCentre) << CodesT::place(step, i % 2)));
  }
};

template <class CodesT, class RowsT, class AddendT, bool kIsScaledT = false>
struct FewOf {
  using Codes = CodesT;
  using Rows = RowsT;
  using Addend = AddendT;
  /// Whether scales are multiplied by the row's power of two (Scaling) first: those beyond f16.
  static constexpr bool kIsScaled = kIsScaledT;
  /// What makes values of sums of row g or g + 8, but for what scales were multiplied by: 2^back_power.
  static __device__ constexpr int back_power(int upper) { return 24 - Codes::place(0, upper); }
  static __device__ constexpr float back(int upper) { return static_cast<float>(1 << back_power(upper)); }

  /// Scales of a block, in units of its sums.
  static __device__ __forceinline__ void terms(const typename Rows::Head& head, const std::uint8_t* rows,
                                               std::uint32_t g, std::uint32_t half, std::uint32_t block,
                                               const Scaling& scaling, sm90::Terms<Rows::kParts>& out) {
    Rows::terms(head, rows, g, half, block, out, typename Rows::Constants());
#pragma unroll
    for (int part = 0; part < Rows::kParts; ++part) {
#pragma unroll
      for (int u = 0; u < 2; ++u) {
        if constexpr (kIsScaled) out.scale[part][u] *= scaling.rows[u].weight;
        const int up = Codes::place(part, u) - Codes::place(0, u);
        if (up != 0) out.scale[part][u] *= 1.0f / static_cast<float>(1 << up);
      }
    }
  }
};
template <class F>
struct Few;
template <>
struct Few<Q4_0> : FewOf<Centred<NibbleCodes<0>, 8>, sm90::RowsD, NoAddend> {};
template <>
struct Few<Q4_1> : FewOf<NibbleCodes<0>, sm90::RowsDM, SecondOfPair<4>> {};
template <>
struct Few<Q5_0> : FewOf<Centred<NibbleCodes<1>, 16>, sm90::RowsD, NoAddend> {};
template <>
struct Few<Q5_1> : FewOf<NibbleCodes<1>, sm90::RowsDM, SecondOfPair<4>> {};
template <>
struct Few<Q8_0> : FewOf<Centred<WholeByteCodes, 128>, sm90::RowsD, NoAddend> {};
template <>
struct Few<Q2K> : FewOf<PairCodes<0>, sm90::RowsQ2K, MinimumsQ2K> {};
template <>
struct Few<Q3K> : FewOf<Centred<PairCodes<1>, 4>, sm90::RowsQ3K, NoAddend> {};
template <>
struct Few<Q4K> : FewOf<NibbleCodes<0>, sm90::RowsK4, MinimumsK4> {};
template <>
struct Few<Q5K> : FewOf<NibbleCodes<1>, sm90::RowsK4, MinimumsK4> {};
template <>
struct Few<Q6K> : FewOf<Centred<NibbleCodes<2>, 32>, sm90::RowsQ6K, NoAddend> {};
template <>
struct Few<Iq4Nl> : FewOf<LookUpCodes<Iq4Values>, sm90::RowsD, NoAddend> {};
template <>
struct Few<Iq4Xs> : FewOf<LookUpCodes<Iq4Values>, sm90::RowsIq4Xs, NoAddend> {};
template <>
struct Few<Mxfp4> : FewOf<LookUpCodes<E2m1Values>, sm90::RowsE8M0, NoAddend, true> {
  /// 2^(e - 127) times the row's power, which keeps the row's largest far from the ends of f32: what is lost is
  /// 2^-126 of it.
  static __device__ __forceinline__ void terms(const Rows::Head&, const std::uint8_t* rows, std::uint32_t g,
                                               std::uint32_t, std::uint32_t block, const Scaling& scaling,
                                               sm90::Terms<1>& out) {
#pragma unroll
    for (int u = 0; u < 2; ++u) {
      const auto power = static_cast<std::uint32_t>(__float_as_int(scaling.rows[u].weight)) - (127u << 23);
      const auto bits = static_cast<std::int32_t>(sm90::multiply_add(rows[g * 8 + u * 4 + block], 1u << 23, power));
      out.scale[0][u] = __int_as_float(bits > 0 ? bits : 0);
    }
  }
};
template <std::uint32_t kGroups, bool kBf16>
struct Few<Affine4<kGroups, kBf16>> : FewOf<NibbleCodes<0>, sm90::RowsAffine<kGroups, kBf16>,
                                            SecondOfPair<kGroups, kBf16, kBf16 ? 3 : 0>, kBf16> {};
template <std::uint32_t kGroups, bool kBf16>
struct Few<Affine8<kGroups, kBf16>> : FewOf<WholeByteCodes, sm90::RowsAffine<kGroups, kBf16>,
                                            SecondOfPair<kGroups, kBf16, kBf16 ? 7 : 0>, kBf16> {};

// ---- products

template <class C, int kGroup>
__device__ __forceinline__ void multiply_few(float (&sums)[C::kSums], const HopperTileArgs& args,
                                             std::uint32_t shared, const unsigned char* memory,
                                             sm90::StageBarriers<C::kWStages> ring, std::uint32_t summed,
                                             const Item& item, const Place& me) {
  using F = typename C::Format;
  using Type = Few<F>;
  using Codes = typename Type::Codes;
  using Rows = typename Type::Rows;
  using Addend = typename Type::Addend;
  constexpr int kTiles = C::kTokens / 8, kParts = Rows::kParts;
  constexpr int kHalf = F::kSuper ? kGroup : 0;
  static_assert(C::kKGroups == 2 && C::kXPlanes == 2 && C::kXStages == C::kWStages && C::kForm == Form::parts, "the groups take the halves of records by turns");
  constexpr std::uint32_t kGap = C::kCopies == 1 ? 0 : C::kWBytes / 2 - C::kPieceBytes;
  static_assert(F::kRowsAt + F::kRowBytes <= C::kPieceBytes, "row data lie in the first piece");
  std::uint32_t lane = me.lane;
  asm("" : "+r"(lane));  // else it is read from its special register in every step
  __builtin_assume(lane < 32);  // which piece most loads are from is known then
  const std::uint32_t g = lane / 4, t = lane % 4;
  const std::uint32_t record = C::kWOffset + me.thread / 32 * C::kPieceBytes;
  // Four matrices of x, of 8 tokens x 8 k: with 16 tokens, both halves of a step of 16 k of both; with 8, those
  // of two steps.
  const std::uint32_t token = kTiles == 2 ? lane % 8 + lane / 16 * 8 : lane % 8;
  const std::uint32_t piece = kTiles == 2 ? lane / 8 % 2 : lane / 8;
  constexpr int kLoads = kTiles == 2 ? 4 : 2;  // of a plane
  std::uint32_t x_rows[kLoads];
#pragma unroll
  for (std::uint32_t i = 0; i < kLoads; ++i)
    x_rows[i] = shared + token * 128 + ((piece ^ token ^ i * (8 / kLoads)) & 7) * 16;
  const std::uint32_t sums_row = shared + C::kSumOffset + (kTiles == 2 ? lane : lane % 16) * 16;
  const PairTable table = table_of<C>(shared, lane);
  Scaling scaling{};
  if constexpr (Type::kIsScaled) scaling = scaling_of<F>(args, weight_row<C>(args, item, me));
  float added[kTiles][4] = {};  // addends' sums over all of k

  std::uint32_t slot = kGroup, parity = 0;
#pragma unroll 1
  for (std::uint32_t step = item.begin + kGroup; step < item.end; step += 2) {
    sm90::barrier_wait(ring.full(slot), parity);
    const std::uint32_t stage = record + slot * C::kWBytes;
    const typename Codes::Raw raw = Codes::load(SharedReader<C::kPieceBytes, kGap>{shared + stage, table},
                                                F::planes(kHalf), lane);
    const std::uint8_t* rows = memory + stage + (kHalf == 0 ? F::kRowsAt : 0);
    typename Rows::Head head;
    head.load(rows, g, kHalf);
    const std::uint32_t x = slot * C::kXBytes;
#pragma unroll
    for (int block = 0; block < 4; ++block) {
      std::uint32_t b[kTiles][4];
#pragma unroll
      for (int i = 0; i < kTiles; ++i)
        sm90::load_matrix_x4(b[i], x_rows[block % 2 * kTiles + i] + x + block / 2 * C::kPlaneBytes);
      std::uint32_t a[2][4];
#pragma unroll
      for (int i = 0; i < 2; ++i) Codes::bits(raw, block / 2, block % 2 * 2 + i, a[i]);
      sm90::Terms<kParts> terms;
      Type::terms(head, rows, g, kHalf, block, scaling, terms);
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        float c[kParts][4];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const std::uint32_t b0 = kTiles == 2 ? b[i][2 * tile] : b[0][2 * i];
          const std::uint32_t b1 = kTiles == 2 ? b[i][2 * tile + 1] : b[0][2 * i + 1];
          if (i == 0 || kParts == 2)
            sm90::mma_f16_first(c[kParts == 2 ? i : 0], a[i][0], a[i][1], a[i][2], a[i][3], b0, b1);
          else
            sm90::mma_f16(c[0], a[i][0], a[i][1], a[i][2], a[i][3], b0, b1);
        }
#pragma unroll
        for (int part = 0; part < kParts; ++part) {
#pragma unroll
          for (int j = 0; j < 4; ++j) sums[4 * tile + j] += terms.scale[part][j / 2] * c[part][j];
        }
      }
    }
    if constexpr (Addend::kAdds) {
      sm90::barrier_wait(summed + slot * 8, parity);
      std::uint32_t a[2];
      Addend::words(head, RowPlace{rows, g, t, kHalf}, scaling, a);
      std::uint32_t s[4];  // with 16 tokens: both tiles, then what rounding took; with 8 the matrices come twice
      sm90::load_matrix_x4(s, sums_row + slot * C::kSumBytes);
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        if constexpr (Addend::kIsWhole) {
          sm90::mma_f16(added[tile], a[0], a[1], a[0], a[1], s[tile], s[tile + kTiles]);
        } else {
          float c[4];
          sm90::mma_f16_first(c, a[0], a[1], a[0], a[1], s[tile], s[tile + kTiles]);
#pragma unroll
          for (int j = 0; j < 4; ++j)
            sums[4 * tile + j] += Addend::factor(head, j / 2) * (16.0f / Type::back(j / 2)) * c[j];
        }
      }
    }
    // All that was loaded has been used, or will have come long before a copy that is asked for now: no instruction
    // here keeps loads waiting as wgmma does.
    if constexpr (C::kHasSums) {
      sm90::barrier_arrive(ring.empty(slot));  // every lane for the sums that it read, which a warp writes next
    } else {
      __syncwarp();
      free_stage(ring, slot, me);
    }
    slot += 2;
    if (slot >= C::kWStages) slot -= C::kWStages, parity ^= 1;
  }
  if constexpr (Addend::kAdds && Addend::kIsWhole) {
#pragma unroll
    for (int i = 0; i < C::kSums; ++i)
      sums[i] += Addend::kFactor * (16.0f / Type::back(i % 4 / 2)) * added[i / 4][i % 4];
  }
}

}  // namespace mlxn::tile
