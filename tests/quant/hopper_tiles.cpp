// The tile kernels for Hopper without a GPU: what their lanes make of records, and how launches are planned.

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "ops/matmul/cuda_tile_formats_sm90a.cuh"
#include "ops/matmul/hopper_dense.h"
#include "ops/matmul/hopper_tile.h"
#include "ops/matmul/hopper_vector.h"
#include "quant/gpu_weight.h"
#include "quant/codec.h"
#include "quant/random_blocks.h"
#include "quant/records.h"

namespace mlxn {
namespace {

constexpr DType kTypes[] = {DType::q4_0,   DType::q4_1,   DType::q5_0, DType::q5_1, DType::q8_0,
                            DType::q2_K,   DType::q3_K,   DType::q4_K, DType::q5_K, DType::q6_K,
                            DType::iq4_nl, DType::iq4_xs, DType::mxfp4,
#define MLXN_TYPE(name) DType::name,
                            MLXN_HOPPER_VECTOR_AFFINE_TYPES(MLXN_TYPE)
#undef MLXN_TYPE
};

constexpr std::uint32_t kN = 32, kK = 512;

/// A matrix [kN, kK] of random blocks, of types whose records are cut zeros from one block after k 384 on; every fourth row is
/// 2^-spread of the others in size. All are 2^size of what they are by themselves.
struct Matrix {
  std::vector<std::uint8_t> records;  // whole ones: as copies bring them, zeros where they are cut
  std::vector<float> values;
  int exponents[kN] = {};
};
Matrix make_matrix(DType type, int spread, int size = 0) {
  const quant::RecordFormat format = quant::record_format(type);
  const std::uint32_t k = format.has_halves() ? kK : 384 + format.block_elems;
  const quant::RecordGrid grid = quant::record_grid(format, kN, k);
  const std::uint32_t row_blocks = k / block_elems(type), bytes = block_bytes(type);
  std::vector<std::uint8_t> blocks(std::size_t{kN} * row_blocks * bytes);
  Matrix m;
  for (std::uint32_t row = 0; row < kN; ++row) {
    std::uint8_t* first = blocks.data() + std::size_t{row} * row_blocks * bytes;
    quant::fill_random_blocks(type, first, row_blocks, std::ldexp(1.0f, size - (row % 4 == 3 ? spread : 0)), row);
  }
  std::vector<float> values(std::size_t{kN} * k);
  quant::dequantize_blocks(type, blocks.data(), std::uint64_t{kN} * row_blocks, values.data());
  m.values.resize(std::size_t{kN} * kK);
  for (std::uint32_t row = 0; row < kN; ++row) std::copy_n(values.begin() + row * k, k, m.values.begin() + row * kK);
  for (std::uint32_t i = 0; i < kN * kK; ++i) {
    int exponent = -150;  // of zero: below all others
    if (m.values[i] != 0) std::frexp(m.values[i], &exponent);
    // What scales and minimums can express is at most three times what random codes make of them.
    int& of_row = m.exponents[i / kK];
    of_row = i % kK == 0 ? exponent + 2 : std::max(of_row, exponent + 2);
  }
  std::vector<std::uint8_t> records(grid.bytes());
  quant::pack_records(type, blocks.data(), kN, k, records.data());
  const std::size_t whole = kK / format.elems * format.bytes();
  m.records.assign(grid.tiles * whole, 0);
  for (std::size_t tile = 0; tile < grid.tiles; ++tile)
    std::memcpy(m.records.data() + tile * whole, records.data() + tile * grid.tile_bytes, grid.tile_bytes);
  return m;
}

struct HostReader {
  const std::uint8_t* base;
  [[nodiscard]] tile::Words4 words4(std::uint32_t at) const {
    tile::Words4 v;
    std::memcpy(&v, base + at, 16);
    return v;
  }
  void words2(std::uint32_t at, std::uint32_t& a, std::uint32_t& b) const {
    a = u32(at);
    b = u32(at + 4);
  }
  [[nodiscard]] std::uint32_t u32(std::uint32_t at) const {
    std::uint32_t v = 0;
    std::memcpy(&v, base + at, 4);
    return v;
  }
  [[nodiscard]] std::uint32_t u16(std::uint32_t at) const { return u8(at) | u8(at + 1) << 8; }
  [[nodiscard]] std::uint32_t u8(std::uint32_t at) const { return base[at]; }
  const std::uint32_t* pairs = nullptr;
  [[nodiscard]] tile::PairTable table() const { return {pairs}; }
};
/// The table that a kernel would make.
template <class Codes>
const std::uint32_t* pairs_of() {
  static const std::vector<std::uint32_t> pairs = [] {
    std::vector<std::uint32_t> out;
    if constexpr (tile::looks_up<Codes>())
      for (std::uint32_t byte = 0; byte < 256; ++byte) out.push_back(Codes::pair(byte));
    return out;
  }();
  return pairs.data();
}

/// Every fragment of every lane against the weights that the instruction reads there: each within f16's
/// rounding of D, B and the product, all together within what is left of the kernels' 1e-7 when x is rounded.
template <class F>
void expect_fragments(DType type, int spread, int shift = 0) {
  SCOPED_TRACE(std::string(to_string(type)) + ", spread " + std::to_string(spread) + ", times 2^" + std::to_string(shift));
  const quant::RecordFormat format = quant::record_format(type);
  ASSERT_EQ(format.code_bytes(), F::kCodeBytes);
  ASSERT_EQ(format.row_bytes(), F::kRowBytes);
  ASSERT_EQ(format.elems, F::kSuper ? 256u : 128u);
  ASSERT_EQ(format.area_offset(0), F::kRowsAt);
  for (std::uint32_t half = 0; half < format.elems / 128; ++half) {
    const tile::PlanesAt planes = F::planes(half);
    ASSERT_EQ(format.plane_offset(half, 0), half * F::kCodeBytes + planes.first);
    if (format.planes[1].bits != 0) {
      ASSERT_EQ(format.plane_offset(half, 1), half * F::kCodeBytes + planes.second);
    }
  }
  // What the host plans with is what the kernels are made of.
  EXPECT_EQ(F::kNesting, ops::nesting_of(type));
  EXPECT_EQ(tile::looks_up<typename F::Codes>(), format.planes[0].rows_apart);
  if constexpr (requires { F::kAdds; }) {
    EXPECT_EQ(F::kAdds, ops::has_addend(type));
  }
  const Matrix matrix = make_matrix(type, spread, shift);
  double error = 0, size = 0;
  int wrong = 0;
  for (std::uint32_t step = 0; step < kN / 16 * (kK / 128); ++step) {
    const std::uint32_t half = F::kSuper ? step % 2 : 0;
    const std::uint8_t* record = matrix.records.data() + step / (F::kSuper ? 2 : 1) * format.bytes();
    const HostReader codes{record + half * F::kCodeBytes, pairs_of<typename F::WholeCodes>()}, scales{record};
    for (std::uint32_t lane = 0; lane < 32; ++lane) {
      const std::uint32_t row_g = step / (kK / 128) * 16 + lane / 4;
      const tile::Scaling scaling{{F::scaling(matrix.exponents[row_g], 0), F::scaling(matrix.exponents[row_g + 8], 1)}};
      const auto raw = F::load(codes, F::planes(half), lane);
      const auto own = F::own(scales, F::kRowsAt, lane, scaling);
      const auto share = [&](const auto&, int word, int of) {
        return F::own(scales, F::kRowsAt, (lane & 28u) | static_cast<std::uint32_t>(of), scaling).w[word];
      };
      std::uint32_t a[2][4][4];
      if (half == 0) {
        F::template unpack<0, 0>(raw, own, scaling, share, a[0]);
        F::template unpack<0, 1>(raw, own, scaling, share, a[1]);
      } else if constexpr (F::kSuper) {
        F::template unpack<1, 0>(raw, own, scaling, share, a[0]);
        F::template unpack<1, 1>(raw, own, scaling, share, a[1]);
      }
      for (std::uint32_t i = 0; i < 64; ++i) {
        const std::uint32_t plane = i / 32, k16 = i / 8 % 4, reg = i / 2 % 4, upper = i % 2;
        const std::uint32_t row = step / (kK / 128) * 16 + lane / 4 + reg % 2 * 8;
        const std::uint32_t k =
            step % (kK / 128) * 128 + plane * 64 + k16 * 16 + lane % 4 * 2 + upper + reg / 2 * 8;
        const double want = std::ldexp(static_cast<double>(matrix.values[row * kK + k]), -shift);
        const double got = sm90::host::value_of(a[plane][k16][reg] >> 16 * upper & 0xFFFFu) *
                           std::ldexp(1.0, scaling.rows[reg % 2].back - shift);
        const double off = got - want;
        error += off * off;
        size += want * want;
        if (!(std::fabs(off) <= 2e-3 * std::ldexp(1.0, row % 4 == 3 ? -spread : 0))) ++wrong;
      }
    }
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_LT(error / size, 5.5e-8);
}

TEST(HopperTiles, FragmentsAreTheWeights) {
  for (const int spread : {0, 9, 20}) {
    expect_fragments<tile::Q4_0>(DType::q4_0, spread);
    expect_fragments<tile::Q4_1>(DType::q4_1, spread);
    expect_fragments<tile::Q5_0>(DType::q5_0, spread);
    expect_fragments<tile::Q5_1>(DType::q5_1, spread);
    expect_fragments<tile::Q8_0>(DType::q8_0, spread);
    expect_fragments<tile::Q2K>(DType::q2_K, spread);
    expect_fragments<tile::Q3K>(DType::q3_K, spread);
    expect_fragments<tile::Q4K>(DType::q4_K, spread);
    expect_fragments<tile::Q5K>(DType::q5_K, spread);
    expect_fragments<tile::Q6K>(DType::q6_K, spread);
    expect_fragments<tile::Iq4Nl>(DType::iq4_nl, spread);
    expect_fragments<tile::Iq4Xs>(DType::iq4_xs, spread);
    expect_fragments<tile::Mxfp4>(DType::mxfp4, spread);
    expect_fragments<tile::Affine4G64>(DType::affine4_g64, spread);
    expect_fragments<tile::Affine4G128>(DType::affine4_g128, spread);
    expect_fragments<tile::Affine8G32>(DType::affine8_g32, spread);
    expect_fragments<tile::Affine8G64>(DType::affine8_g64, spread);
    expect_fragments<tile::Affine8G128>(DType::affine8_g128, spread);
    expect_fragments<tile::Affine4G32Bf16>(DType::affine4_g32_bf16, spread);
    expect_fragments<tile::Affine4G64Bf16>(DType::affine4_g64_bf16, spread);
    expect_fragments<tile::Affine4G128Bf16>(DType::affine4_g128_bf16, spread);
    expect_fragments<tile::Affine8G32Bf16>(DType::affine8_g32_bf16, spread);
    expect_fragments<tile::Affine8G64Bf16>(DType::affine8_g64_bf16, spread);
    expect_fragments<tile::Affine8G128Bf16>(DType::affine8_g128_bf16, spread);
  }
}

// Of types whose scales have 8 bits of exponent, weights near the ends of f32 too.
TEST(HopperTiles, FragmentsOfWeightsBeyondHalf) {
  for (const int shift : {-100, -60, 60, 100, 122}) {
    expect_fragments<tile::Mxfp4>(DType::mxfp4, 0, shift);
    expect_fragments<tile::Affine4G32Bf16>(DType::affine4_g32_bf16, 9, shift);
    expect_fragments<tile::Affine8G64Bf16>(DType::affine8_g64_bf16, 9, shift);
  }
}

/// Row 0 of a record of scales that are all zero, or of one that is not finite. head: where its d lies in the row data.
template <class F>
void expect_zeros_and_nan(DType type, std::uint32_t head, std::uint32_t scales, std::uint32_t scale_bytes) {
  SCOPED_TRACE(to_string(type));
  Matrix matrix = make_matrix(type, 0);
  std::uint8_t* row = matrix.records.data() + F::kRowsAt;
  const tile::Scaling scaling{{F::scaling(matrix.exponents[0], 0), F::scaling(matrix.exponents[8], 1)}};
  const auto first_of_row = [&](std::uint32_t lane) {
    const HostReader reader{matrix.records.data(), pairs_of<typename F::WholeCodes>()};
    const auto share = [&](const auto&, int word, int of) {
      return F::own(reader, F::kRowsAt, static_cast<std::uint32_t>(of), scaling).w[word];
    };
    std::uint32_t a[4][4];
    F::template unpack<0, 0>(F::load(reader, F::planes(0), lane), F::own(reader, F::kRowsAt, lane, scaling), scaling, share, a);
    return sm90::host::value_of(a[0][0] & 0xFFFFu);
  };
  const std::uint16_t largest = 0x7BFF, infinite = 0x7C00;
  std::memcpy(row + head, &infinite, 2);
  for (std::uint32_t lane = 0; lane < 4; ++lane) EXPECT_FALSE(std::isfinite(first_of_row(lane)));
  std::memcpy(row + head, &largest, 2);
  if (tile::ByRecord<F>::kAdds) std::memcpy(row + head + 2, &largest, 2);
  std::memset(row + scales, 0, scale_bytes);
  for (std::uint32_t lane = 0; lane < 4; ++lane) EXPECT_EQ(first_of_row(lane), 0.0);
}
TEST(HopperTiles, ScalesOfZeroAndScalesThatAreNotFinite) {
  expect_zeros_and_nan<tile::Q4K>(DType::q4_K, 0, 4, 12);
  expect_zeros_and_nan<tile::Q6K>(DType::q6_K, 256, 0, 16);
  expect_zeros_and_nan<tile::Q2K>(DType::q2_K, 256, 0, 16);
}

/// Where sums are kept by record: d times the whole numbers of every fragment, less m times the minimum of the k's group, whose sums
/// of x are 2^-4 of what they are, are the weights, but for what v loses where it is 2^11 or more.
template <class F>
void expect_records(DType type, double most) {
  SCOPED_TRACE(to_string(type));
  using Record = tile::ByRecord<F>;
  const quant::RecordFormat format = quant::record_format(type);
  const Matrix matrix = make_matrix(type, 9);
  double error = 0, size = 0;
  for (std::uint32_t step = 0; step < kN / 16 * (kK / 128); ++step) {
    const std::uint32_t half = step % 2;
    const std::uint8_t* record = matrix.records.data() + step / 2 * format.bytes();
    const HostReader codes{record + half * F::kCodeBytes, pairs_of<typename F::Codes>()}, scales{record};
    for (std::uint32_t lane = 0; lane < 32; ++lane) {
      const auto raw = Record::load(codes, F::planes(half), lane);
      const auto own = Record::own(scales, F::kRowsAt, lane);
      const auto share = [&](const auto&, int word, int of) {
        return Record::own(scales, F::kRowsAt, (lane & 28u) | static_cast<std::uint32_t>(of)).w[word];
      };
      std::uint32_t a[2][4][4];
      if (half == 0) {
        Record::template unpack<0, 0>(raw, own, share, a[0]);
        Record::template unpack<0, 1>(raw, own, share, a[1]);
      } else {
        Record::template unpack<1, 0>(raw, own, share, a[0]);
        Record::template unpack<1, 1>(raw, own, share, a[1]);
      }
      const auto factors = Record::factors(own);
      for (std::uint32_t i = 0; i < 64; ++i) {
        const std::uint32_t plane = i / 32, k16 = i / 8 % 4, reg = i / 2 % 4, upper = i % 2;
        const std::uint32_t row = step / (kK / 128) * 16 + lane / 4 + reg % 2 * 8;
        const std::uint32_t group = plane * 4 + k16;  // of 16 k in the half
        double got = static_cast<double>(factors.d[reg % 2]) * sm90::host::value_of(a[plane][k16][reg] >> 16 * upper & 0xFFFFu);
        if constexpr (Record::kAdds) {
          std::uint32_t minimums[4];  // of the lane that holds k 2t, 2t + 1 of the operand
          const auto holder = Record::own(scales, F::kRowsAt, (lane & 28u) | group / 2);
          if (half == 0)
            Record::template minimums<0>(holder, minimums);
          else
            Record::template minimums<1>(holder, minimums);
          EXPECT_EQ(minimums[reg % 2], minimums[2 + reg % 2]);
          got -= static_cast<double>(factors.m[reg % 2]) *
                 sm90::host::value_of(minimums[reg % 2] >> 16 * (group % 2) & 0xFFFFu) / 16;
        }
        got *= static_cast<double>(Record::back(static_cast<int>(reg % 2)));
        const std::uint32_t k = step % (kK / 128) * 128 + plane * 64 + k16 * 16 + lane % 4 * 2 + upper + reg / 2 * 8;
        const double want = static_cast<double>(matrix.values[row * kK + k]);
        error += (got - want) * (got - want);
        size += want * want;
      }
    }
  }
  EXPECT_LT(error / size, most);
}
TEST(HopperTiles, SumsByRecordTakeTheWeights) {
  expect_records<tile::Q2K>(DType::q2_K, 1e-14);  // as near as f32 is
  expect_records<tile::Q3K>(DType::q3_K, 1e-14);
  expect_records<tile::Q4K>(DType::q4_K, 1e-14);
  expect_records<tile::Q5K>(DType::q5_K, 1e-14);
  expect_records<tile::Q6K>(DType::q6_K, 2.5e-8);
  expect_records<tile::Iq4Xs>(DType::iq4_xs, 3e-8);
}

/// Staged rows are whole planes of 64 k, and the map of them is a stage's copy in the kernel.
void expect_x(const ops::HopperTilePlan& p, std::uint32_t m, std::uint32_t k) {
  const auto tokens = static_cast<std::uint32_t>(p.shape.tokens);
  EXPECT_EQ(p.stage.m, m);
  EXPECT_EQ(p.stage.planes, (k + 63) / 64);
  EXPECT_EQ(p.stage_grid, m);
  EXPECT_EQ(p.row_bytes, std::uint64_t{m} * p.stage.planes * 128);
  EXPECT_EQ(p.scale_bytes, std::uint64_t{p.args.token_tiles} * tokens * 4);
  EXPECT_EQ(p.stage.scale_count * 4, p.scale_bytes);
  EXPECT_EQ(p.x_map.element_bytes, 2u);
  EXPECT_EQ(p.x_map.columns, 64u);
  EXPECT_EQ(p.x_map.rows, m);
  EXPECT_EQ(p.x_map.planes, p.stage.planes);
  EXPECT_EQ(p.x_map.row_bytes, p.stage.planes * 128u);
  EXPECT_EQ(p.x_map.plane_bytes, 128u);
  EXPECT_EQ(p.x_map.box_columns, 64u);
  EXPECT_EQ(p.x_map.box_rows, p.shape.form == tile::Form::pair ? tokens / 2 : tokens);
  EXPECT_EQ(p.x_map.box_columns * p.x_map.box_rows * p.x_map.box_planes * 2u * (p.shape.form == tile::Form::pair ? 2u : 1u),
            static_cast<std::uint32_t>(p.shape.x_stage_bytes()));
  EXPECT_TRUE(p.x_map.swizzle128);
}

TEST(HopperTiles, XIsMappedWhereItLies) {
  constexpr std::uint64_t kBase = 0x7f0000000000;
  const ops::HopperTilePlan p = ops::plan_hopper_tile(DType::q4_0, 64, 4096, 2880, 132);
  EXPECT_TRUE(p.can_map(quant::kElementF16, kBase, 5760));
  EXPECT_TRUE(p.can_map(quant::kElementF16, kBase + 16, 8192));
  EXPECT_FALSE(p.can_map(quant::kElementF16, kBase + 8, 5760));
  EXPECT_FALSE(p.can_map(quant::kElementF16, kBase, 5768));
  EXPECT_FALSE(p.can_map(quant::kElementF16, kBase, 0)) << "one row for all tokens";
  EXPECT_FALSE(p.can_map(quant::kElementF16, kBase, -5760));
  EXPECT_FALSE(p.can_map(quant::kElementF16, kBase, std::int64_t{1} << 40));
  EXPECT_FALSE(p.can_map(quant::kElementBf16, kBase, 5760));
  EXPECT_FALSE(p.can_map(quant::kElementF32, kBase, 11520));
  // Elements behind k would be multiplied with what lies behind the weights' k.
  EXPECT_FALSE(ops::plan_hopper_tile(DType::q4_0, 64, 4096, 2848, 132).can_map(quant::kElementF16, kBase, 5760));
  const auto dense = [](ops::DenseFormat format) { return ops::plan_hopper_dense(format, 64, 4096, 2880, 132); };
  EXPECT_TRUE(dense(ops::DenseFormat::f16).can_map(quant::kElementF16, kBase, 5760));
  EXPECT_TRUE(dense(ops::DenseFormat::bf16).can_map(quant::kElementF16, kBase, 5760));
  EXPECT_FALSE(dense(ops::DenseFormat::bf16).can_map(quant::kElementBf16, kBase, 5760));
  EXPECT_TRUE(dense(ops::DenseFormat::bf16_narrow).can_map(quant::kElementBf16, kBase, 5760));
  EXPECT_FALSE(dense(ops::DenseFormat::bf16_narrow).can_map(quant::kElementF16, kBase, 5760));
  EXPECT_TRUE(ops::plan_hopper_tile(DType::q4_K, 16, 4096, 4096, 132).can_map(quant::kElementF16, kBase, 8192));
  EXPECT_TRUE(ops::plan_hopper_tile(DType::q4_K, 512, 4096, 4096, 132).can_map(quant::kElementF16, kBase, 8192));
}

/// What the blocks of a tile have to do with each other: parts of k, alone or in pairs, each of which has half of the tokens in the end.
void expect_parts(const ops::HopperTilePlan& p) {
  const auto tile = static_cast<std::uint32_t>(p.shape.rows() * p.shape.tokens);
  const bool paired = p.args.paired != 0;
  const std::uint32_t blocks = paired ? 2 : 1;
  const bool adds = p.shape.form == tile::Form::parts && p.splits > blocks;
  EXPECT_EQ(p.counters, adds ? p.args.row_tiles * p.args.token_tiles * blocks : 0u);
  EXPECT_EQ(p.workspace_bytes, std::uint64_t{p.counters} * (p.splits / blocks) * (tile / blocks) * 4);
  EXPECT_TRUE(!paired || (p.splits % 2 == 0 && p.shape.tokens >= 16 && p.shape.form == tile::Form::parts));
  EXPECT_EQ(p.cluster, paired || p.shape.form == tile::Form::pair ? 2u : 1u);
  const std::array<std::uint32_t, 3> cluster = p.cluster_dims();
  EXPECT_EQ(cluster[paired ? 2 : 0], p.cluster);
  EXPECT_EQ(cluster[0] * cluster[1] * cluster[2], p.cluster);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(p.grid[i] % cluster[i], 0u);
}

TEST(HopperTiles, TilesOfAFusionHaveABlockEachAndRowsOfBothHalves) {
  for (const std::uint32_t m : {5u, 64u, 512u, 2048u}) {
    for (const std::uint32_t n : {96u, 4096u, 28672u}) {
      const ops::HopperTilePlan plain = ops::plan_hopper_tile(DType::q4_K, m, n, 4096, 132);
      ops::HopperTilePlan onto = plain, gated = plain;
      onto.fuse(false);
      gated.fuse(true);
      for (const ops::HopperTilePlan& p : {onto, gated}) {
        const bool pair = p.shape.form == tile::Form::pair;
        EXPECT_EQ(p.grid[0] * p.grid[1] * p.grid[2],
                  p.args.row_tiles * p.args.token_tiles * (pair ? 2 : p.splits));
        // What follows the sums wants whole tiles: no parts in pairs.
        EXPECT_EQ(p.args.paired, 0u);
        expect_parts(p);
      }
      EXPECT_EQ(onto.args.n, n);
      EXPECT_EQ(onto.args.gate_rows, 0u);
      EXPECT_EQ(onto.map.planes, 1u);
      EXPECT_EQ(gated.args.n, n / 2);
      EXPECT_EQ(gated.args.gate_rows, n / 2);
      EXPECT_GE(gated.args.row_tiles * static_cast<std::uint32_t>(gated.shape.rows()) / 2, n / 2);
      EXPECT_EQ(gated.map.planes, 2u);
      EXPECT_EQ(gated.map.rows, n / 32);
      EXPECT_EQ(gated.map.plane_bytes, n / 32 * gated.map.row_bytes);
      EXPECT_EQ(gated.map.box_rows * gated.map.box_planes, plain.map.box_rows);
      EXPECT_EQ(gated.map.box_planes, 2u);
    }
  }
}

TEST(HopperTiles, PlansCoverTheProduct) {
  for (const DType type : kTypes) {
    const quant::RecordFormat format = quant::record_format(type);
    for (const std::uint32_t m : {1u, 5u, 16u, 17u, 64u, 100u, 128u, 200u, 512u, 2048u, 4097u}) {
      for (const std::uint32_t n : {1u, 100u, 4096u, 14336u, 128256u}) {
        for (const std::uint32_t k : {256u, 1056u, 2816u, 2880u, 4096u, 14336u}) {
          if (k % format.block_elems != 0) continue;
          SCOPED_TRACE(std::string(to_string(type)) + " " + std::to_string(m) + " " + std::to_string(n) +
                       " " + std::to_string(k));
          const ops::HopperTilePlan p = ops::plan_hopper_tile(type, m, n, k, 132);
          ASSERT_FALSE(p.kernel.empty());
          const auto rows = static_cast<std::uint32_t>(p.shape.rows()),
                     tokens = static_cast<std::uint32_t>(p.shape.tokens);
          EXPECT_GE(p.args.row_tiles * rows, n);
          EXPECT_LT((p.args.row_tiles - 1) * rows, n);
          EXPECT_GE(p.args.token_tiles * tokens, m);
          expect_x(p, m, k);
          EXPECT_EQ(p.stage.rows_type, quant::kElementF16);
          EXPECT_GE(p.args.steps * 128, k);
          // The last step's box begins inside of the map.
          EXPECT_EQ(p.map.columns * 8, format.tile_bytes(k));
          EXPECT_EQ(p.map.row_bytes, format.tile_bytes(k));
          EXPECT_GT(p.map.columns * 8, std::uint64_t{p.args.steps - 1} * 128 / format.elems * format.bytes());
          EXPECT_LE(p.map.box_columns, 256u);
          EXPECT_EQ(p.map.box_columns * 8 * static_cast<std::uint32_t>(p.shape.copies()),
                    format.code_bytes() + format.row_bytes());
          EXPECT_LE(p.dynamic_shared_bytes, 232448u);
          EXPECT_GE(p.shape.x_stages * p.shape.x_planes, 4);
          EXPECT_GE(p.shape.w_stages, p.shape.half_bytes > 2048 ? 2 : 3);
          EXPECT_TRUE(std::has_single_bit(p.args.token_group));
          if (p.shape.form == tile::Form::tiles) {
            EXPECT_LE(p.grid[0], 132u);
          } else {
            // Every part has work, and together they are all of k.
            EXPECT_GE(p.args.split_steps * p.splits, p.args.steps);
            EXPECT_LT(p.args.split_steps * (p.splits - 1), p.args.steps);
            EXPECT_EQ(p.grid[0] * p.grid[1] * p.grid[2], p.args.row_tiles * p.args.token_tiles * p.splits);
          }
          expect_parts(p);
          // Parts are whole records.
          EXPECT_EQ(p.args.split_steps % (format.elems / 128), 0u);
        }
      }
    }
  }
}

constexpr ops::DenseFormat kDenseFormats[] = {ops::DenseFormat::f16, ops::DenseFormat::bf16, ops::DenseFormat::bf16_narrow};

/// What any table of an H200 must lead to: tiles that are no larger than the tokens need, all multiprocessors busy.
struct LikelyPlan {
  std::uint32_t m, n, k;
  int least_tokens, most_tokens;
  std::uint32_t splits;  // 0: any
};
constexpr LikelyPlan kLikelyPlans[] = {
    {8, 4096, 14336, 8, 32, 0},
    {16, 4096, 14336, 8, 32, 0},
    {32, 4096, 14336, 32, 32, 0},
    {64, 4096, 14336, 64, 64, 0},
    {128, 4096, 14336, 128, 128, 0},
    {256, 4096, 14336, 128, 256, 2},
    {512, 4096, 14336, 128, 256, 0},  // one tile of 128 tokens for each multiprocessor, or a pair for one of 256
    {2048, 4096, 14336, 128, 256, 0},
    {4096, 4096, 14336, 128, 256, 0},
    {8, 14336, 4096, 8, 32, 1},
    {16, 14336, 4096, 16, 32, 1},
    {32, 14336, 4096, 32, 32, 1},
    {64, 14336, 4096, 64, 64, 1},
    {128, 14336, 4096, 128, 128, 1},
    {256, 14336, 4096, 256, 256, 0},
    {512, 14336, 4096, 256, 256, 0},
    {2048, 14336, 4096, 256, 256, 0},
    {4096, 14336, 4096, 256, 256, 0}};
void expect_likely(const LikelyPlan& wanted, const ops::HopperTilePlan& p) {
  SCOPED_TRACE(std::string(p.kernel) + " for m " + std::to_string(wanted.m) + " n " + std::to_string(wanted.n));
  EXPECT_GE(p.shape.tokens, wanted.least_tokens);
  EXPECT_LE(p.shape.tokens, wanted.most_tokens);
  // Half of the multiprocessors may read weights as fast as all of them.
  EXPECT_GE(p.args.row_tiles * p.args.token_tiles * p.splits, wanted.m <= 128 ? 64u : 112u);
  if (wanted.splits != 0) {
    EXPECT_EQ(p.splits, wanted.splits);
  }
}
TEST(HopperTiles, PlansOfLikelyShapes) {
  for (const LikelyPlan& wanted : kLikelyPlans) {
    for (const DType type : kTypes) {
      SCOPED_TRACE(to_string(type));
      expect_likely(wanted, ops::plan_hopper_tile(type, wanted.m, wanted.n, wanted.k, 132));
    }
  }
}

/// The chosen plan is the fastest by the table, whatever that says.
template <class PlanOf, class RatesOf>
void expect_fastest(const ops::HopperTilePlan& chosen, int kinds, const PlanOf& plan_of, const RatesOf& rates_of) {
  double least = 0, us = 0;
  for (int kind = 0; kind < kinds; ++kind) {
    for (std::uint32_t splits = 1; splits <= 16; ++splits) {
      const ops::HopperTilePlan p = plan_of(kind, splits);
      if (p.shape.form == tile::Form::parts ? p.splits != splits || (splits > 1 && p.args.split_steps < 4) : splits > 1) continue;
      if (p.shape.form == tile::Form::pair && p.args.steps < 8) continue;
      if (p.shape.form == tile::Form::parts && splits > 1 && p.grid[0] * p.grid[1] * p.grid[2] > 2 * 132) continue;
      const double takes = ops::hopper_tile_us(rates_of(kind), ops::hopper_tile_terms(p, 132));
      EXPECT_GT(takes, 0);
      if (least == 0 || takes < least) least = takes;
      if (p.shape.tokens == chosen.shape.tokens && p.shape.form == chosen.shape.form && p.splits == chosen.splits) us = takes;
    }
  }
  EXPECT_EQ(us, least) << chosen.kernel << " in " << chosen.splits << " parts";
}
TEST(HopperTiles, PlansAreTheFastestByTheTable) {
  for (const std::uint32_t m : {5u, 16u, 40u, 128u, 700u, 4096u}) {
    for (const std::uint32_t n : {512u, 4096u, 28672u}) {
      for (const std::uint32_t k : {512u, 4096u, 14336u}) {
        SCOPED_TRACE(std::to_string(m) + " " + std::to_string(n) + " " + std::to_string(k));
        for (const DType type : kTypes) {
          const auto plan_of = [&](int kind, std::uint32_t splits) {
            return ops::plan_hopper_shape(type, ops::hopper_tile_shape(type, kind), m, n, k, splits, 132);
          };
          expect_fastest(ops::plan_hopper_tile(type, m, n, k, 132), tile::kKinds, plan_of,
                         [&](int kind) { return ops::hopper_tile_rates(type, kind); });
        }
        for (const ops::DenseFormat format : kDenseFormats) {
          const auto plan_of = [&](int kind, std::uint32_t splits) {
            return ops::plan_dense_shape(format, tile::dense_shape_of(kind), m, n, k, splits, 132);
          };
          expect_fastest(ops::plan_hopper_dense(format, m, n, k, 132), tile::kDenseKinds, plan_of,
                         [&](int kind) { return ops::hopper_dense_rates(format, kind); });
        }
      }
    }
  }
}

/// Pairs of blocks want two of them.
TEST(HopperTiles, OneMultiprocessorHasPlans) {
  for (const std::uint32_t m : {5u, 64u, 4096u}) {
    for (const DType type : kTypes) {
      const ops::HopperTilePlan p = ops::plan_hopper_tile(type, m, 4096, 4096, 1);
      EXPECT_FALSE(p.kernel.empty());
      EXPECT_NE(p.shape.form, tile::Form::pair) << p.kernel;
    }
    for (const ops::DenseFormat format : kDenseFormats) {
      const ops::HopperTilePlan p = ops::plan_hopper_dense(format, m, 4096, 4096, 1);
      EXPECT_FALSE(p.kernel.empty());
      EXPECT_NE(p.shape.form, tile::Form::pair) << p.kernel;
    }
  }
}

/// Kernels without a row in the table would never be chosen.
TEST(HopperTiles, TheTableHasAllKernels) {
  const auto expect_rates = [](const ops::HopperTileRates& rates) {
    EXPECT_GT(rates.step, 0);
    EXPECT_LT(rates.step, 20000);
    for (const std::int32_t rate : {rates.filled, rates.beside, rates.wave, rates.parts, rates.each_part}) EXPECT_GE(rate, 0);
  };
#define MLXN_EXPECT(type)                                                                                               \
  for (int kind = 0; kind < tile::kKinds; ++kind) {                                                                     \
    SCOPED_TRACE(ops::hopper_tile_name(DType::type, kind));                                                             \
    expect_rates(ops::hopper_tile_rates(DType::type, kind));                                                            \
  }
  MLXN_HOPPER_VECTOR_TYPES(MLXN_EXPECT)
#undef MLXN_EXPECT
  for (const ops::DenseFormat format : kDenseFormats) {
    for (int kind = 0; kind < tile::kDenseKinds; ++kind) {
      SCOPED_TRACE(ops::hopper_dense_name(format, kind));
      expect_rates(ops::hopper_dense_rates(format, kind));
    }
  }
}

TEST(HopperTiles, TermsOfALaunch) {
  const auto terms = [](int tokens, tile::Form form, std::uint32_t m, std::uint32_t n, std::uint32_t splits) {
    for (int kind = 0; kind < tile::kKinds; ++kind) {
      const tile::Shape shape = ops::hopper_tile_shape(DType::q4_0, kind);
      if (shape.tokens != tokens || shape.form != form) continue;
      return ops::hopper_tile_terms(ops::plan_hopper_shape(DType::q4_0, shape, m, n, 14336, splits, 132), 132);
    }
    ADD_FAILURE() << "no kernel of " << tokens << " tokens";
    return ops::HopperTileTerms{};
  };
  const ops::HopperTileTerms four = terms(32, tile::Form::parts, 30, 4096, 4);  // 32 row tiles in 4 parts of 28 steps
  EXPECT_EQ(four.steps, 28);
  EXPECT_DOUBLE_EQ(four.filled, 28 * 128 / 132.0);
  EXPECT_EQ(four.beside, 0);
  EXPECT_EQ(four.waves, 1);
  EXPECT_EQ(four.splits, 4);
  EXPECT_EQ(four.bytes, 4096 * 14336 * 4.5 / 8);
  EXPECT_EQ(four.busy, 128);
  EXPECT_NEAR(four.read_us, four.bytes / 4.4e6, 1);  // the bandwidth of an H200
  const ops::HopperTileTerms alone = terms(32, tile::Form::parts, 30, 128, 1);
  EXPECT_EQ(alone.steps, 112);
  EXPECT_DOUBLE_EQ(alone.filled, 112 / 132.0);
  EXPECT_EQ(alone.splits, 0);
  EXPECT_EQ(alone.bytes, four.bytes / 32);
  EXPECT_EQ(alone.busy, 1);
  EXPECT_GT(alone.read_us, four.read_us / 4);  // one multiprocessor cannot have all of it
  const ops::HopperTileTerms second = terms(128, tile::Form::parts, 500, 8192, 1);  // 256 blocks
  EXPECT_EQ(second.waves, 2);
  EXPECT_EQ(second.steps, 224);
  EXPECT_EQ(second.beside, 224);
  EXPECT_EQ(second.bytes, 2 * four.bytes * 2);  // twice the rows, in each wave
  const ops::HopperTileTerms pair = terms(256, tile::Form::pair, 512, 4096, 2);  // 64 tiles by two blocks each
  EXPECT_EQ(pair.waves, 1);
  EXPECT_EQ(pair.steps, 56);
  const ops::HopperTileTerms tiles = terms(256, tile::Form::tiles, 4096, 4096, 1);  // 512 tiles
  EXPECT_EQ(tiles.waves, 4);
  EXPECT_EQ(tiles.steps, 448);
  EXPECT_DOUBLE_EQ(tiles.filled, 448 * 128 / 132.0);
  EXPECT_EQ(four.alone, 4);
  EXPECT_EQ(terms(128, tile::Form::parts, 128, 4096, 4).alone, 0);  // two and two
  ops::HopperTileRates rates{100, 10, 1, 1000, 500, 50, 20};
  EXPECT_DOUBLE_EQ(ops::hopper_tile_us(rates, {10, 5, 10, 2, 4, 0, 0.5}), 1.06 + 2 + 0.7);
  EXPECT_DOUBLE_EQ(ops::hopper_tile_us(rates, {10, 5, 10, 2, 4, 4, 0.5}), 1.06 + 2 + 0.78);
  EXPECT_DOUBLE_EQ(ops::hopper_tile_us(rates, {10, 5, 0, 2, 0, 0, 7}), 7 + 2);
}

TEST(HopperDense, PlansCoverTheProduct) {
  for (const ops::DenseFormat format : kDenseFormats) {
    for (const std::uint32_t m : {1u, 5u, 16u, 17u, 64u, 100u, 128u, 200u, 512u, 2048u, 4097u}) {
      for (const std::uint32_t n : {1u, 100u, 129u, 4096u, 14336u, 128256u}) {
        for (const std::uint32_t k : {1u, 64u, 704u, 2112u, 2880u, 4099u, 14336u}) {
          SCOPED_TRACE(std::to_string(m) + " " + std::to_string(n) + " " + std::to_string(k));
          const ops::HopperTilePlan p = ops::plan_hopper_dense(format, m, n, k, 132);
          ASSERT_FALSE(p.kernel.empty());
          const auto rows = static_cast<std::uint32_t>(p.shape.rows()),
                     tokens = static_cast<std::uint32_t>(p.shape.tokens);
          EXPECT_GE(p.args.row_tiles * rows, n);
          EXPECT_LT((p.args.row_tiles - 1) * rows, n);
          EXPECT_GE(p.args.token_tiles * tokens, m);
          expect_x(p, m, k);
          EXPECT_EQ(p.stage.rows_type, format == ops::DenseFormat::bf16_narrow ? quant::kElementBf16 : quant::kElementF16);
          EXPECT_GE(p.args.steps * 128, k);
          EXPECT_LT((p.args.steps - 1) * 128, k);
          EXPECT_EQ(p.map.columns, k);  // what lies behind a row's end is not read
          EXPECT_EQ(p.map.rows, n);
          EXPECT_EQ(p.map.row_bytes % 16, 0u);
          EXPECT_LT(p.map.row_bytes - 2 * k, 16u);
          EXPECT_EQ(p.map.box_columns * 2, 128u);
          EXPECT_EQ(p.map.box_rows, rows);
          EXPECT_LE(p.dynamic_shared_bytes, 232448u);
          expect_parts(p);
          if (p.shape.form == tile::Form::tiles) {
            EXPECT_LE(p.grid[0], 132u);
          } else {
            EXPECT_GE(p.args.split_steps * p.splits, p.args.steps);
            EXPECT_LT(p.args.split_steps * (p.splits - 1), p.args.steps);
          }
        }
      }
    }
  }
}

TEST(HopperDense, PlansOfLikelyShapes) {
  for (const LikelyPlan& wanted : kLikelyPlans) {
    for (const ops::DenseFormat format : kDenseFormats) {
      expect_likely(wanted, ops::plan_hopper_dense(format, wanted.m, wanted.n, wanted.k, 132));
    }
  }
}

/// Which kernel runs may depend on m; in which order a row's products are added may not.
TEST(HopperTiles, BatchInvariantPlansHaveOnePart) {
  int split = 0;
  for (const std::uint32_t m : {1u, 16u, 60u, 128u, 512u, 4096u}) {
    for (const std::uint32_t n : {128u, 4096u, 14336u}) {
      for (const std::uint32_t k : {2816u, 14336u}) {
        for (const DType type : kTypes) {
          split += ops::plan_hopper_tile(type, m, n, k, 132).splits > 1;
          const ops::HopperTilePlan p = ops::plan_hopper_tile(type, m, n, k, 132, true);
          ASSERT_FALSE(p.kernel.empty()) << to_string(type);
          EXPECT_EQ(p.splits, 1u) << p.kernel;
          EXPECT_EQ(p.shape.k_groups, 1) << p.kernel;
          EXPECT_FALSE(p.shape.few) << p.kernel;
          EXPECT_NE(p.shape.form, tile::Form::pair);
          EXPECT_EQ(p.shape.by_record, tile::Nesting::none);  // rounds otherwise
        }
        for (const ops::DenseFormat format : kDenseFormats) {
          split += ops::plan_hopper_dense(format, m, n, k, 132).splits > 1;
          const ops::HopperTilePlan p = ops::plan_hopper_dense(format, m, n, k, 132, true);
          EXPECT_EQ(p.splits, 1u) << p.kernel;
          EXPECT_NE(p.shape.form, tile::Form::pair);
        }
      }
    }
  }
  EXPECT_GT(split, 0);
}

TEST(HopperDense, StagesFillTheMemory) {
  for (int kind = 0; kind < tile::kDenseKinds; ++kind) {
    const tile::Shape s = tile::dense_shape_of(kind);
    EXPECT_LE(s.shared_bytes(), tile::kSharedBytes) << kind;
    EXPECT_GE(s.w_stages, 3) << kind;
    EXPECT_GE(s.x_stages, 4) << kind;
    EXPECT_EQ(s.w_offset() % 1024, 0) << kind;
  }
}

TEST(HopperDense, ClassesOfTypes) {
  EXPECT_EQ(ops::dense_format(DType::f16, Numerics::f16), ops::DenseFormat::f16);
  EXPECT_EQ(ops::dense_format(DType::bf16, Numerics::f16), ops::DenseFormat::bf16);
  EXPECT_EQ(ops::dense_format(DType::bf16, Numerics::bf16), ops::DenseFormat::bf16_narrow);
  for (const Numerics numerics : {Numerics::exact, Numerics::int8act, Numerics::automatic}) {
    EXPECT_FALSE(ops::dense_format(DType::f16, numerics));
    EXPECT_FALSE(ops::dense_format(DType::bf16, numerics));
  }
  EXPECT_FALSE(ops::dense_format(DType::f16, Numerics::bf16));  // would lose bits of the weights too
  EXPECT_FALSE(ops::dense_format(DType::f32, Numerics::f16));
}

/// bf16 on its way to f16: exact to 2^-31 of what the row's largest is below, and close beneath.
TEST(HopperDense, Bf16BecomesF16) {
  for (const int exponent : {-140, -100, -30, 0, 5, 40, 128}) {
    const tile::RowScaling scaling = tile::Bf16::scaling(exponent, 0);
    for (int below = 1; below <= 40 && exponent - below >= -126; ++below) {
      for (const double fraction : {1.0, 1.0 + 1.0 / 128, 1.5, 2.0 - 1.0 / 128}) {
        for (const double sign : {1.0, -1.0}) {
          const double want = sign * std::ldexp(fraction, exponent - below);
          const std::uint32_t bits = bf16(static_cast<float>(want)).bits;
          for (const std::uint32_t pair : {bits, bits << 16}) {
            const std::uint32_t made = tile::Bf16::to_f16(pair, scaling.weight);
            const double got = sm90::host::value_of((bits == pair ? made : made >> 16) & 0xFFFFu) * std::ldexp(1.0, scaling.back);
            EXPECT_EQ(bits == pair ? made >> 16 : made & 0xFFFFu, 0u);
            // The largest is below 2^14, and f16 has bits down to 2^-24.
            EXPECT_NEAR(got, want, below <= 31 ? 0.0 : std::ldexp(1.0, exponent - 39)) << exponent << " " << below;
          }
        }
      }
    }
  }
}

TEST(HopperTiles, KernelsHaveOneNameEach) {
  std::vector<std::string> names;
  for (const DType type : kTypes) {
    for (int kind = 0; kind < tile::kKinds; ++kind) names.emplace_back(ops::hopper_tile_name(type, kind));
  }
  for (const ops::DenseFormat format : kDenseFormats) {
    for (int kind = 0; kind < tile::kDenseKinds; ++kind) names.emplace_back(ops::hopper_dense_name(format, kind));
  }
  std::sort(names.begin(), names.end());
  EXPECT_EQ(std::unique(names.begin(), names.end()), names.end());
  EXPECT_TRUE(ops::hopper_tile_name(DType::f16, 0).empty());
}

/// `largest`: the highest exponent that the type's rows can have.
template <class F>
void expect_finite_scales(int largest) {
  for (int exponent = -140; exponent <= largest; ++exponent) {
    for (const int upper : {0, 1}) {
      const tile::RowScaling scaling = F::scaling(exponent, upper);
      EXPECT_TRUE(std::isnormal(scaling.weight)) << exponent;
      const tile::PowerInTwo back = tile::power_in_two(scaling.back);
      EXPECT_TRUE(std::isnormal(back.first) && std::isnormal(back.second)) << exponent;
      EXPECT_EQ(static_cast<double>(back.first) * static_cast<double>(back.second), std::ldexp(1.0, scaling.back));
      if (!F::kIsWide) {
        EXPECT_LE(std::abs(scaling.back), 60) << exponent;  // one factor does
        continue;
      }
      // Between the two, any power that a row of x can have, and sums that make f32 numbers of it.
      for (const int power : {-126, -20, 0, 20, 115}) {
        for (const int y : {-100, 0, 100, 127}) {
          const int sum = y - power - scaling.back;
          if (sum < -40 || sum > 34) continue;
          EXPECT_EQ(std::ldexp(1.0f, sum) * back.first * std::ldexp(1.0f, power) * back.second, std::ldexp(1.0f, y))
              << exponent << " " << power << " " << sum;
        }
      }
    }
  }
}
TEST(HopperTiles, ScalesOfAnySizeStayFinite) {
  expect_finite_scales<tile::Q4_0>(130);
  expect_finite_scales<tile::Q6K>(130);
  expect_finite_scales<tile::Mxfp4>(131);
  expect_finite_scales<tile::Affine4G64Bf16>(132);
  expect_finite_scales<tile::Affine8G64Bf16>(136);
  expect_finite_scales<tile::Bf16>(128);
  for (int exponent = -140; exponent <= 130; ++exponent) {
    for (const std::uint32_t d : tile::Q4_0::scaling(exponent, 0).d) EXPECT_TRUE(std::isfinite(sm90::host::value_of(d & 0xFFFFu)));
  }
}

}  // namespace
}  // namespace mlxn
