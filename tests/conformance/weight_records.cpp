// Weights in Hopper's records, and in its rows, on every GPU: what the portable kernels make of them, which pack, unpack and look rows up.
#include "ops/weight_records/weight_records.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <tuple>

#include "backends/device_impl.h"
#include "backends/gpu/weight_prepare.h"
#include "mlxn/ops/embedding.h"
#include "mlxn/ops/matmul.h"
#include "ops/matmul/hopper.h"
#include "ops/matmul/hopper_tile.h"
#include "ops/prepare_weight/prepare_weight.h"
#include "quant/records.h"
#include "tests/conformance/variants.h"
#include "tests/support/weights.h"

namespace mlxn::test::weight_records_suite {
namespace {

std::vector<Device> gpus() {
  std::vector<Device> list;
  for (const std::string& name : device_names()) {
    if (name != "cpu") list.push_back(device_named(name));
  }
  return list;
}

std::vector<DType> types_with_records() {
  std::vector<DType> list;
  for (const DType type : kWeightTypes) {
    if (ops::has_records(type)) list.push_back(type);
  }
  return list;
}

Tensor uploaded(const Device& device, DType type, std::int64_t n, std::int64_t k, const std::vector<std::byte>& bytes) {
  const Tensor t = must(device.allocate(type, {n, k}));
  must(device.upload(t, bytes));
  return t;
}

Weight in_form(const Device& device, std::span<const Tensor> sources, WeightForm form) {
  auto weight = std::make_shared<WeightImpl>();
  weight->dtype = sources.front().dtype();
  for (const Tensor& source : sources) weight->n += source.dim(0);
  weight->k = sources.front().dim(1);
  weight->form = form;
  weight->storage = must(gpu::prepare_weight(device, sources, {}, form));
  return Weight(weight);
}
Weight in_records(const Device& device, std::span<const Tensor> sources) { return in_form(device, sources, WeightForm::records); }

std::vector<std::byte> downloaded(const Device& device, const Tensor& t) {
  std::vector<std::byte> bytes(t.bytes());
  must(device.download(bytes, t));
  return bytes;
}

std::vector<std::byte> encoded(DType type, const std::vector<float>& values) {
  std::vector<std::byte> bytes(values.size() * block_bytes(type));
  must(quantize(type, values, bytes));
  return bytes;
}

/// Of all elements together.
double nmse(const std::vector<float>& got, const std::vector<float>& want) {
  double error = 0, size = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double off = static_cast<double>(got[i]) - static_cast<double>(want[i]);
    error += off * off;
    size += static_cast<double>(want[i]) * static_cast<double>(want[i]);
  }
  return error / size;
}

/// x * weight^T in class exact, which Hopper's matrix units have no part in.
std::vector<float> exact_product(const Device& device, const Guarded& x, const Weight& weight) {
  Guarded y(device, DType::f32, {x.tensor().dim(0), weight.n()});
  MatmulOptions options;
  options.numerics = Numerics::exact;
  must(run(device, [&](CommandEncoder& e) { return matmul(e, x.tensor(), weight, y.tensor(), options); }));
  return y.read();
}

/// y = x * weight^T by one kind of Hopper's tile kernels.
void multiply_by_kind(const Device& device, const Guarded& x, const Weight& weight, const Guarded& y, const ops::HopperKind& kind,
                      Numerics numerics = Numerics::f16, const MatmulFusion& fusion = {}) {
  must(run(device, [&](CommandEncoder& e) {
    return ops::matmul_hopper_kind(e, x.tensor(), {weight.impl()->storage, weight.impl()->form}, y.tensor(),
                                   {x.tensor().dim(0), weight.n(), weight.k(), weight.dtype()}, numerics, kind, fusion);
  }));
}

struct Sizes {
  std::int64_t n, blocks;
};

/// The code of an element, and the bytes of an area, from the file's blocks: a second reading of quant/records.h.
std::byte byte_of(const quant::RecordFormat& format, DType type, const std::vector<std::byte>& blocks, std::int64_t n, std::int64_t k,
                  std::size_t at) {
  const auto view = ops::raw_layout(type, n, k).view;
  const auto grid = quant::record_grid(format, n, k);
  const auto in_record = static_cast<std::uint32_t>(at % grid.tile_bytes % format.bytes());
  const auto row0 = static_cast<std::int64_t>(at / grid.tile_bytes * 16);
  const auto k0 = static_cast<std::int64_t>(at % grid.tile_bytes / format.bytes() * format.elems);
  const auto block_at = [&](std::uint32_t field, std::int64_t row, std::int64_t block) {
    return static_cast<std::size_t>(view.offset[field] + (row * view.row_blocks + block) * static_cast<std::int64_t>(view.step[field]));
  };
  unsigned out = 0;
  for (std::uint32_t half = 0; half < format.elems / 128; ++half) {
    for (std::uint32_t p = 0; p < 2 && format.planes[p].bits != 0; ++p) {
      const quant::RecordPlane& plane = format.planes[p];
      const std::uint32_t begin = format.plane_offset(half, p);
      if (in_record < begin || in_record >= begin + plane.bytes()) continue;
      for (std::uint32_t row = 0; row < 16; ++row) {
        for (std::uint32_t i = 0; i < 128; ++i) {
          const quant::RecordPlace place = quant::record_place(plane, row, i);
          if (begin + place.byte != in_record) continue;
          const std::int64_t kk = k0 + half * 128 + i;
          if (row0 + row >= n || kk >= k) continue;
          const auto e = static_cast<std::uint32_t>(kk % format.block_elems);
          const std::uint32_t per = 8 / plane.bits;
          const auto byte = static_cast<unsigned>(blocks[block_at(plane.field, row0 + row, kk / format.block_elems) + plane.from +
                                                         e / (plane.run * per) * plane.run + e % plane.run]);
          out |= (((byte >> (e / plane.run % per * plane.bits)) & ((1u << plane.bits) - 1)) ^ plane.flip) << place.shift;
        }
      }
      return static_cast<std::byte>(out);
    }
  }
  for (std::uint32_t a = 0; a < 2 && format.areas[a].bytes != 0; ++a) {
    const quant::RecordArea& area = format.areas[a];
    for (std::uint32_t row = 0; row < 16; ++row) {
      for (std::uint32_t b = 0; b < format.blocks(); ++b) {
        const std::uint32_t begin = format.area_offset(a) + quant::record_area_place(area.bytes, format.blocks(), row, b);
        if (in_record < begin || in_record >= begin + area.bytes) continue;
        const std::int64_t block = k0 / format.block_elems + b;
        if (row0 + row >= n || block >= view.row_blocks) return std::byte{0};
        return blocks[block_at(area.field, row0 + row, block) + area.from + in_record - begin];
      }
    }
  }
  ADD_FAILURE() << "byte " << in_record << " of a record belongs to nothing";
  return std::byte{0};
}

TEST(WeightRecords, PackedAsDescribedAndBack) {
  Random random(51);
  SCOPED_TRACE(random.trace());
  for (const Device& device : gpus()) {
    for (const DType type : types_with_records()) {
      const quant::RecordFormat format = quant::record_format(type);
      for (const Sizes& sizes : {Sizes{1, 1}, Sizes{16, 4}, Sizes{37, 5}, Sizes{48, 9}}) {
        const std::int64_t n = sizes.n, k = sizes.blocks * block_elems(type);
        SCOPED_TRACE(std::string(to_string(type)) + " " + std::to_string(n) + " x " + std::to_string(k));
        const std::vector<std::byte> bytes = random_weights(type, static_cast<std::size_t>(n * k), random);
        const Tensor raw = uploaded(device, type, n, k, bytes);
        const Weight weight = in_records(device, {&raw, 1});
        ASSERT_EQ(weight.bytes(), ops::records_bytes(type, n, k));
        const std::vector<std::byte> storage = downloaded(device, weight.impl()->storage);
        const quant::RecordGrid grid = quant::record_grid(format, n, k);
        const std::size_t end = grid.bytes();
        for (std::size_t i = 0; i < end; i += random.below(5) + 1) {
          ASSERT_EQ(storage[i], byte_of(format, type, bytes, n, k, i)) << "byte " << i % grid.tile_bytes << " of tile " << i / grid.tile_bytes;
        }

        // Random codes come near what the scales can express; minimums may take away from it.
        const std::vector<float> values = decoded(type, bytes);
        std::vector<std::int32_t> exponents((storage.size() - end) / 4);
        ASSERT_EQ(exponents.size(), static_cast<std::size_t>((n + 15) / 16 * 16));
        std::memcpy(exponents.data(), storage.data() + end, storage.size() - end);
        for (std::size_t row = 0; row < exponents.size(); ++row) {
          float peak = 0;
          for (std::size_t i = row * static_cast<std::size_t>(k); i < std::min(values.size(), (row + 1) * static_cast<std::size_t>(k)); ++i) {
            peak = std::max(peak, std::fabs(values[i]));
          }
          if (row >= static_cast<std::size_t>(n)) {
            EXPECT_EQ(exponents[row], 0);
          } else if (peak > 0) {
            EXPECT_LT(peak, std::ldexp(1.0, exponents[row])) << row;
            EXPECT_GE(peak, std::ldexp(1.0, exponents[row] - 5)) << row;
          }
        }

        Guarded back(device, DType::u8, {static_cast<std::int64_t>(bytes.size())});
        const auto view = ops::raw_layout(type, n, k).view;
        must(run(device, [&](CommandEncoder& e) {
          return ops::encode_unpack_records(e, weight.impl()->storage, back.tensor(), view, type, n, k, {0, n, nullptr});
        }));
        EXPECT_TRUE(back.intact());
        ASSERT_EQ(downloaded(device, back.tensor()), bytes);
      }
    }
  }
}

// Scales that f32 has no room above for: what they can express counts all the same.
TEST(WeightRecords, ExponentsOfTheLargestScales) {
  for (const Device& device : gpus()) {
    const auto exponents_of_rows = [&](DType type, std::int64_t k, const std::vector<std::byte>& blocks) {
      const Tensor raw = uploaded(device, type, 16, k, blocks);
      const Weight weight = in_records(device, {&raw, 1});
      const std::vector<std::byte> bytes = downloaded(device, must(ops::exponents_of(weight.impl()->storage, type, 16, k)));
      std::vector<std::int32_t> exponents(16);
      std::memcpy(exponents.data(), bytes.data(), 64);
      return exponents;
    };
    // Of 2^(e - 127), codes up to 6.
    const std::vector<int> powers = {0, 1, 2, 3, 100, 127, 200, 241, 242, 250, 251, 252, 253, 254, 254, 254};
    std::vector<std::byte> blocks(16 * block_bytes(DType::mxfp4), std::byte{0x21});
    for (std::size_t row = 0; row < 16; ++row) blocks[row * block_bytes(DType::mxfp4)] = static_cast<std::byte>(powers[row]);
    const std::vector<std::int32_t> of_mxfp4 = exponents_of_rows(DType::mxfp4, 32, blocks);
    for (std::size_t row = 0; row < 16; ++row) EXPECT_EQ(of_mxfp4[row], std::max(powers[row] - 124, -122)) << powers[row];

    // bf16: scale * (2^bits - 1) + bias of the same size.
    for (const DType type : {DType::affine4_g64_bf16, DType::affine8_g64_bf16}) {
      SCOPED_TRACE(to_string(type));
      const int bits = affine_info(type)->bits;
      blocks.assign(16 * block_bytes(type), std::byte{0x21});
      for (std::size_t row = 0; row < 16; ++row) {
        const std::uint16_t pair[2] = {bf16(std::ldexp(1.0f, 112 + static_cast<int>(row))).bits, bf16(-std::ldexp(1.0f, 112 + static_cast<int>(row))).bits};
        std::memcpy(&blocks[row * block_bytes(type)], pair, 4);
      }
      const std::vector<std::int32_t> exponents = exponents_of_rows(type, 64, blocks);
      for (std::size_t row = 0; row < 16; ++row) EXPECT_EQ(exponents[row], 112 + static_cast<int>(row) + bits + 1);
    }
  }
}

// Of a matrix that comes in two pieces; behind the records, where exponents belong, nothing is written.
TEST(WeightRecords, PackedAsOnTheHostAndNoByteFurther) {
  Random random(60);
  SCOPED_TRACE(random.trace());
  for (const Device& device : gpus()) {
    for (const DType type : types_with_records()) {
      for (const std::int64_t k : {32, 96, 160, 192, 704, 1056, 2112, 2880, 768}) {
        if (k % block_elems(type) != 0) continue;
        SCOPED_TRACE(std::string(to_string(type)) + " k " + std::to_string(k));
        const std::int64_t n = 37, first = 16;
        const std::vector<std::byte> bytes = random_weights(type, static_cast<std::size_t>(n * k), random);
        const Tensor raw = uploaded(device, type, n, k, bytes);
        const std::size_t end = quant::record_grid(quant::record_format(type), n, k).bytes();
        Guarded records(device, DType::u8, {static_cast<std::int64_t>(ops::records_bytes(type, n, k))});
        ASSERT_EQ(records.read_bytes().size(), end + 48 * 4);
        must(run(device, [&](CommandEncoder& e) -> Result<void> {
          for (const std::int64_t row : {std::int64_t{0}, first}) {
            const std::int64_t rows = row == 0 ? first : n - first;
            MLXN_TRY(const Tensor piece, raw.slice(0, row, row + rows));
            MLXN_CHECK(ops::encode_pack_records(e, piece, ops::raw_layout(type, rows, k).view, records.tensor(), type, k, row, rows));
          }
          return {};
        }));
        EXPECT_TRUE(records.intact());
        const std::vector<std::byte> got = records.read_bytes();
        std::vector<std::byte> wanted(got.size(), std::byte{0xff});
        quant::pack_records(type, bytes.data(), n, k, wanted.data());
        ASSERT_TRUE(got == wanted);

        Guarded back(device, DType::u8, {static_cast<std::int64_t>(bytes.size())});
        must(run(device, [&](CommandEncoder& e) {
          return ops::encode_unpack_records(e, records.tensor(), back.tensor(), ops::raw_layout(type, n, k).view, type, n, k, {0, n, nullptr});
        }));
        EXPECT_TRUE(back.intact());
        ASSERT_TRUE(back.read_bytes() == bytes);
      }
    }
  }
}

TEST(WeightRecords, RowsAreLookedUp) {
  Random random(52);
  SCOPED_TRACE(random.trace());
  for (const Device& device : gpus()) {
    for (const DType type : types_with_records()) {
      SCOPED_TRACE(to_string(type));
      const std::int64_t n = 37, k = 3 * block_elems(type);
      const std::vector<std::byte> bytes = random_weights(type, static_cast<std::size_t>(n * k), random);
      const std::vector<float> values = decoded(type, bytes);
      const Tensor raw = uploaded(device, type, n, k, bytes);
      const Weight table = in_records(device, {&raw, 1});
      const std::vector<std::uint32_t> rows = {36, 0, 17, 37, 8, 15, 16, 0xffffffff};
      Guarded ids(device, DType::u32, {8}), y(device, DType::f32, {8, k});
      std::vector<std::byte> id_bytes(rows.size() * 4);
      std::memcpy(id_bytes.data(), rows.data(), id_bytes.size());
      ids.write(id_bytes);
      must(run(device, [&](CommandEncoder& e) { return embedding(e, ids.tensor(), table, y.tensor()); }));
      EXPECT_TRUE(y.intact());
      const std::vector<float> got = y.read();
      for (std::size_t i = 0; i < got.size(); ++i) {
        const std::size_t row = rows[i / static_cast<std::size_t>(k)], column = i % static_cast<std::size_t>(k);
        ASSERT_EQ(got[i], row < static_cast<std::size_t>(n) ? values[row * static_cast<std::size_t>(k) + column] : 0.0f) << row << " " << column;
      }
    }
  }
}

TEST(WeightRecords, ExactProductsAreThoseOfPreparedWeights) {
  Random random(53);
  SCOPED_TRACE(random.trace());
  for (const Device& device : gpus()) {
    for (const DType type : types_with_records()) {
      SCOPED_TRACE(to_string(type));
      const std::int64_t k = 3 * block_elems(type);
      std::vector<Tensor> sources;
      for (const std::int64_t n : {32, 16, 21}) {
        sources.push_back(uploaded(device, type, n, k, random_weights(type, static_cast<std::size_t>(n * k), random)));
      }
      const Weight prepared = in_form(device, sources, WeightForm::prepared), records = in_records(device, sources);
      for (const std::int64_t m : {1, 3, 19}) {
        Guarded x(device, DType::f32, {m, k}), y(device, DType::f32, {m, 69}), wanted(device, DType::f32, {m, 69});
        x.write(random.uniform(static_cast<std::size_t>(m * k), -2, 2));
        for (const Route route : {Route::vector, Route::tile}) {
          MatmulOptions options;
          options.numerics = Numerics::exact;
          options.route = route;
          must(run(device, [&](CommandEncoder& e) { return matmul(e, x.tensor(), prepared, wanted.tensor(), options); }));
          must(run(device, [&](CommandEncoder& e) { return matmul(e, x.tensor(), records, y.tensor(), options); }));
          EXPECT_TRUE(y.intact());
          ASSERT_EQ(y.read(), wanted.read()) << "m " << m << " route " << (route == Route::vector ? "vector" : "tile");
        }
      }
    }
  }
}

/// On a Hopper GPU, of one type of records; a test each, since they are many products for a tool that watches every access.
class HopperRecords : public testing::TestWithParam<std::tuple<std::string, DType>> {
 protected:
  const Device device = device_named(std::get<0>(GetParam()));
  const DType type = std::get<1>(GetParam());

  [[nodiscard]] Weight random_weight(std::int64_t n, std::int64_t k, Random& random) const {
    const Tensor raw = uploaded(device, type, n, k, random_weights(type, static_cast<std::size_t>(n * k), random));
    return in_records(device, {&raw, 1});
  }
  [[nodiscard]] bool is_small() const { return wants_small_sizes(device.capabilities().backend); }
};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(HopperRecords);

std::vector<std::tuple<std::string, DType>> records_on_hopper() {
  std::vector<std::tuple<std::string, DType>> list;
  for (const std::string& name : device_names()) {
    if (name == "cpu" || !device_named(name).impl()->is_hopper()) continue;
    for (const DType type : types_with_records()) list.emplace_back(name, type);
  }
  return list;
}

// Of one row and four, matrices so large that a block has several tiles and its ring goes round.
TEST_P(HopperRecords, FewRowsOfLargeMatrices) {
  Random random(55);
  SCOPED_TRACE(random.trace());
  const std::int64_t n = is_small() ? 2144 : 4112, k = 14336;
  const Weight weight = random_weight(n, k, random);
  for (const std::int64_t m : {1, 2, 4}) {
    SCOPED_TRACE("m " + std::to_string(m));
    Guarded x(device, DType::f32, {m, k}, {4, 0}), y(device, DType::f32, {m, n}, {3, 4});
    x.write(random.uniform(static_cast<std::size_t>(m * k), -2, 2));
    const std::vector<float> want = exact_product(device, x, weight);
    must(run(device, [&](CommandEncoder& e) { return matmul(e, x.tensor(), weight, y.tensor()); }));
    EXPECT_TRUE(y.intact());
    EXPECT_LE(nmse(y.read(), want), 1e-8);
  }
}

// Every tile kernel, also those that only large shapes would take, against exact products of the same weights.
TEST_P(HopperRecords, EveryTileKernel) {
  Random random(54);
  SCOPED_TRACE(random.trace());
  // Rings have ten stages of 128 k at most: a block's whole k goes round.
  const std::int64_t most = is_small() ? 1536 : 3840;
  const std::int64_t block = block_elems(type), n = 150, k = block == 256 ? most : (most + 31 + block) / block * block;
  const Weight weight = random_weight(n, k, random);
  for (int kind = 0; kind < tile::kKinds; ++kind) {
    const std::int64_t m = ops::hopper_tile_shape(type, kind).tokens + 5;
    Guarded x(device, DType::f32, {m, k}, {4, 0});
    x.write(random.uniform(static_cast<std::size_t>(m * k), -2, 2));
    const std::vector<float> want = exact_product(device, x, weight);
    for (const std::uint32_t splits : {1u, 2u, 3u, 4u}) {  // two and four pair up, of many tokens
      SCOPED_TRACE(std::string(ops::hopper_tile_name(type, kind)) + " parts " + std::to_string(splits));
      Guarded y(device, DType::f32, {m, n}, {3, 4});
      multiply_by_kind(device, x, weight, y, {kind, splits});
      EXPECT_TRUE(y.intact());
      EXPECT_LE(nmse(y.read(), want), 3e-7);
    }
  }
}

// 16-bit x and y of few rows, in every pairing.
TEST_P(HopperRecords, FewRowsOfNarrowActivations) {
  Random random(65);
  SCOPED_TRACE(random.trace());
  const std::int64_t n = 90, k = 1280;
  const Weight weight = random_weight(n, k, random);
  for (const std::int64_t m : {1, 4}) {
    for (const DType x_type : {DType::f32, DType::f16, DType::bf16}) {
      Guarded x(device, x_type, {m, k});
      x.write(random.uniform(static_cast<std::size_t>(m * k), -0.05f, 0.05f));
      const std::vector<float> want = exact_product(device, x, weight);
      for (const DType y_type : {DType::f16, DType::bf16}) {
        SCOPED_TRACE("m " + std::to_string(m) + " x " + std::string(to_string(x_type)) + " y " + std::string(to_string(y_type)));
        Guarded y(device, y_type, {m, n}, {3, 4});
        must(run(device, [&](CommandEncoder& e) { return matmul(e, x.tensor(), weight, y.tensor()); }));
        EXPECT_TRUE(y.intact());
        EXPECT_LE(nmse(decoded(y_type, y.read_bytes()), want), y_type == DType::f16 ? 2e-7 : 1e-5);
      }
    }
  }
}

// What follows a product, in every tile kernel: a residual on its own with x made ready, and with a gate, with x as it lies.
TEST_P(HopperRecords, EveryFusedTileKernel) {
  Random random(64);
  SCOPED_TRACE(random.trace());
  const std::int64_t n = 160, k = is_small() ? 512 : 1280;
  const Weight weight = random_weight(n, k, random);
  for (int kind = 0; kind < tile::kKinds; ++kind) {
    const std::int64_t m = ops::hopper_tile_shape(type, kind).tokens + 5;
    for (const bool gated : {false, true}) {
      const std::int64_t columns = gated ? n / 2 : n;
      Guarded x(device, gated ? DType::f16 : DType::f32, {m, k}), residual(device, DType::f32, {m, columns});
      // Products of about 1, so that gates bend.
      x.write(random.uniform(static_cast<std::size_t>(m * k), -0.05f, 0.05f));
      residual.write(random.uniform(static_cast<std::size_t>(m * columns), -1, 1));
      const std::vector<float> p = exact_product(device, x, weight), r = residual.read();
      std::vector<float> want(r.size());
      for (std::size_t i = 0; i < want.size(); ++i) {
        const std::size_t row = i / static_cast<std::size_t>(columns), column = i % static_cast<std::size_t>(columns);
        const double first = static_cast<double>(p[row * static_cast<std::size_t>(n) + column]);
        double v = first;
        if (gated) v = first / (1 + std::exp(-first)) * static_cast<double>(p[row * static_cast<std::size_t>(n) + column + static_cast<std::size_t>(columns)]);
        want[i] = static_cast<float>(v + static_cast<double>(r[i]));
      }
      MatmulFusion fusion;
      fusion.residual = residual.tensor();
      if (gated) fusion.gate = MatmulGate::silu;
      for (const std::uint32_t splits : {1u, 3u}) {
        SCOPED_TRACE(std::string(ops::hopper_tile_name(type, kind)) + (gated ? " gated" : "") + " parts " + std::to_string(splits));
        Guarded y(device, DType::f32, {m, columns}, {3, 4});
        multiply_by_kind(device, x, weight, y, {kind, splits}, Numerics::f16, fusion);
        EXPECT_TRUE(y.intact());
        EXPECT_LE(nmse(y.read(), want), 1e-6);
      }
    }
  }
}

// More tiles than blocks: the blocks' rings go on from tile to tile. x made ready, and as it lies.
TEST_P(HopperRecords, BlocksOfSeveralTiles) {
  Random random(61);
  SCOPED_TRACE(random.trace());
  const int kind = 5;
  ASSERT_EQ(ops::hopper_tile_shape(type, kind).form, tile::Form::tiles);
  const std::int64_t n = 300, m = 600, k = 256;
  const std::uint32_t blocks = 4;
  ASSERT_EQ((n + 127) / 128 * ((m + 255) / 256), 9);
  const Weight weight = random_weight(n, k, random);
  const std::vector<float> rows = random.uniform(static_cast<std::size_t>(m * k), -2, 2);
  for (const DType x_type : {DType::f32, DType::f16}) {
    SCOPED_TRACE("x " + std::string(to_string(x_type)));
    Guarded x(device, x_type, {m, k}), y(device, DType::f32, {m, n});
    x.write(rows);
    const std::vector<float> want = exact_product(device, x, weight);
    multiply_by_kind(device, x, weight, y, {kind, 1, blocks});
    EXPECT_TRUE(y.intact());
    EXPECT_LE(nmse(y.read(), want), 3e-7);
  }
}

// y of 16 bits is y in f32, rounded: where rows lie at multiples of 8 bytes and where they do not, and to the last row and token.
TEST_P(HopperRecords, NarrowResultsAreRoundedOnes) {
  Random random(66);
  SCOPED_TRACE(random.trace());
  const std::int64_t n = 150, k = 512;
  const Weight weight = random_weight(n, k, random);
  for (int kind = 0; kind < tile::kKinds; ++kind) {
    const std::int64_t m = ops::hopper_tile_shape(type, kind).tokens + 5;
    Guarded x(device, DType::f32, {m, k});
    x.write(random.uniform(static_cast<std::size_t>(m * k), -0.05f, 0.05f));
    for (const std::uint32_t splits : {1u, 2u}) {
      SCOPED_TRACE(std::string(ops::hopper_tile_name(type, kind)) + " parts " + std::to_string(splits));
      Guarded exact(device, DType::f32, {m, n});
      multiply_by_kind(device, x, weight, exact, {kind, splits});
      for (const DType y_type : {DType::f16, DType::bf16}) {
        for (const std::int64_t pad : {2, 3}) {
          Guarded y(device, y_type, {m, n}, {pad, 0});
          multiply_by_kind(device, x, weight, y, {kind, splits});
          EXPECT_TRUE(y.intact());
          EXPECT_EQ(y.read_bytes(), encoded(y_type, exact.read())) << to_string(y_type) << ", " << pad << " between rows";
        }
      }
    }
  }
}

// A row has the same bits among any number of others, as the mode chooses, and by every kernel that it may choose.
TEST_P(HopperRecords, BatchInvariantTilesOfAllSizes) {
  Random random(62);
  SCOPED_TRACE(random.trace());
  const std::int64_t n = 4096, k = 512, most = 2304;
  const Weight weight = random_weight(n, k, random);
  Guarded x(device, DType::f32, {most, k}), all(device, DType::f32, {most, n});
  x.write(random.uniform(static_cast<std::size_t>(most * k), -2, 2));
  MatmulOptions options;
  options.route = Route::tile;
  options.batch_invariant = true;
  must(run(device, [&](CommandEncoder& e) { return matmul(e, x.tensor(), weight, all.tensor(), options); }));
  const std::vector<float> want = all.read();
  const auto is_as_wanted = [&](std::int64_t m, const auto& multiply) {
    SCOPED_TRACE("m " + std::to_string(m));
    Guarded y(device, DType::f32, {m, n});
    const Tensor some = must(x.tensor().slice(0, 0, m));
    must(run(device, [&](CommandEncoder& e) { return multiply(e, some, y.tensor()); }));
    const std::vector<float> got = y.read();
    EXPECT_EQ(std::memcmp(got.data(), want.data(), got.size() * sizeof(float)), 0);
  };
  for (const std::int64_t m : {1, 40, 64, 100, 128, 300, 512, 1000, 1025}) {
    is_as_wanted(m, [&](CommandEncoder& e, const Tensor& some, const Tensor& y) { return matmul(e, some, weight, y, options); });
  }
  int kinds = 0;
  for (int kind = 0; kind < tile::kKinds; ++kind) {
    if (!ops::adds_in_order(ops::hopper_tile_shape(type, kind))) continue;
    SCOPED_TRACE(ops::hopper_tile_name(type, kind));
    ++kinds;
    for (const std::int64_t m : {1, 300, 1025}) {
      is_as_wanted(m, [&](CommandEncoder& e, const Tensor& some, const Tensor& y) {
        return ops::matmul_hopper_kind(e, some, {weight.impl()->storage, weight.impl()->form}, y, {m, n, k, type}, Numerics::f16,
                                       {kind, 1});
      });
    }
  }
  EXPECT_GE(kinds, 2);
}

// How a block of x is rounded goes by which values a lane has; it must not go by whether x can be read where it lies.
TEST_P(HopperRecords, BatchInvariantRowsOfOddStride) {
  Random random(63);
  SCOPED_TRACE(random.trace());
  const std::int64_t n = 48, k = 1024;
  const Weight weight = random_weight(n, k, random);
  MatmulOptions options;
  options.route = Route::vector;
  options.batch_invariant = true;
  for (const DType x_type : {DType::f16, DType::bf16, DType::f32}) {
    SCOPED_TRACE("x " + std::string(to_string(x_type)));
    std::vector<float> rows = random.uniform(static_cast<std::size_t>(4 * k), -1e-3f, 1e-3f);
    for (std::size_t i = 0; i < rows.size(); i += 32) rows[i] = 1, rows[i + 1] = rows[i + 4] = 0.3f;
    Guarded apart(device, x_type, {4, k}, {1, 0}), y(device, DType::f32, {4, n});
    apart.write(rows);
    must(run(device, [&](CommandEncoder& e) { return matmul(e, apart.tensor(), weight, y.tensor(), options); }));
    const std::vector<float> got = y.read();
    for (std::int64_t row = 0; row < 4; ++row) {
      Guarded x(device, x_type, {1, k}), alone(device, DType::f32, {1, n});
      x.write(std::span(rows).subspan(static_cast<std::size_t>(row * k), static_cast<std::size_t>(k)));
      must(run(device, [&](CommandEncoder& e) { return matmul(e, x.tensor(), weight, alone.tensor(), options); }));
      EXPECT_EQ(std::memcmp(alone.read().data(), &got[static_cast<std::size_t>(row * n)], static_cast<std::size_t>(n) * sizeof(float)), 0) << row;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(WeightRecords, HopperRecords, testing::ValuesIn(records_on_hopper()), [](const auto& param) {
  return test_name(std::get<0>(param.param) + "_" + std::string(to_string(std::get<1>(param.param))));
});

/// On a Hopper GPU.
class HopperRows : public testing::TestWithParam<std::string> {
 protected:
  const Device device = device_named(GetParam());
};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(HopperRows);
std::vector<std::string> hopper_names() {
  std::vector<std::string> list = device_names();
  std::erase_if(list, [](const std::string& name) { return name == "cpu" || !device_named(name).impl()->is_hopper(); });
  return list;
}
INSTANTIATE_TEST_SUITE_P(WeightRows, HopperRows, testing::ValuesIn(hopper_names()), [](const auto& param) { return test_name(param.param); });

// Weights that come near f32's end: whole numbers times powers of two, so that every kernel's y is exact. A row of x is zero.
TEST_P(HopperRows, LargestScalesOfMxfp4) {
  const std::int64_t n = 16, k = 32;
  struct Values {
    int scale;  // 2^(scale - 127)
    float x;
  };
  for (const Values& v : {Values{242, 1.0f}, Values{254, 0x1p-110f}, Values{3, 0x1p120f}}) {
    std::vector<std::byte> blocks(static_cast<std::size_t>(n) * block_bytes(DType::mxfp4), std::byte{0x22});  // codes of 1
    for (std::size_t row = 0; row < 16; ++row) blocks[row * block_bytes(DType::mxfp4)] = static_cast<std::byte>(v.scale);
    const Tensor raw = uploaded(device, DType::mxfp4, n, k, blocks);
    const Weight weight = in_records(device, {&raw, 1});
    const float want = std::ldexp(32 * v.x, v.scale - 127);
    const auto expect = [&](const Guarded& y) {
      const std::vector<float> got = y.read();
      for (std::size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], i < 16 ? 0.0f : want) << "scale " << v.scale << ", " << i;
    };
    for (const std::int64_t m : {2, 4}) {
      Guarded x(device, DType::f32, {m, k}), y(device, DType::f32, {m, n});
      std::vector<float> rows(static_cast<std::size_t>(m * k), v.x);
      std::fill_n(rows.begin(), k, 0.0f);
      x.write(rows);
      must(run(device, [&](CommandEncoder& e) { return matmul(e, x.tensor(), weight, y.tensor()); }));
      expect(y);
    }
    for (int kind = 0; kind < tile::kKinds; ++kind) {
      SCOPED_TRACE(ops::hopper_tile_name(DType::mxfp4, kind));
      const std::int64_t m = ops::hopper_tile_shape(DType::mxfp4, kind).tokens + 1;
      Guarded x(device, DType::f32, {m, k}), y(device, DType::f32, {m, n});
      std::vector<float> rows(static_cast<std::size_t>(m * k), v.x);
      std::fill_n(rows.begin(), k, 0.0f);
      x.write(rows);
      multiply_by_kind(device, x, weight, y, {kind});
      expect(y);
    }
  }
}

// The same of rows of f16 and bf16, the last of which end inside a copy. Rows of bf16 are as far apart in size as the type allows.
TEST_P(HopperRows, EveryTileKernel) {
  Random random(55);
  SCOPED_TRACE(random.trace());
  for (const ops::DenseFormat format : {ops::DenseFormat::f16, ops::DenseFormat::bf16, ops::DenseFormat::bf16_narrow}) {
    const DType type = format == ops::DenseFormat::f16 ? DType::f16 : DType::bf16;
    const bool narrow = format == ops::DenseFormat::bf16_narrow;
    const std::int64_t n = 150, k = 1307;
    std::vector<float> values = random.uniform(static_cast<std::size_t>(n * k), -2, 2);
    if (type == DType::bf16) {
      for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::ldexp(values[i], static_cast<int>(i / static_cast<std::size_t>(k)) % 3 * 40 - 40);
    }
    const Tensor raw = uploaded(device, type, n, k, encoded(type, values));
    const Weight weight = in_form(device, {&raw, 1}, WeightForm::rows);
    for (int kind = 0; kind < tile::kDenseKinds; ++kind) {
      const std::int64_t m = tile::dense_shape_of(kind).tokens + 5;
      Guarded x(device, DType::f32, {m, k}, {4, 0});
      std::vector<float> rows = random.uniform(static_cast<std::size_t>(m * k), -2, 2);
      if (narrow) {  // x as the class rounds it: what is left are sums
        for (float& v : rows) v = static_cast<float>(bf16(v));
      }
      x.write(rows);
      // Row by row of the weights: the large ones would hide the small.
      const auto alike = [&](std::vector<float> y) {
        for (std::size_t i = 0; i < y.size(); ++i)
          y[i] = std::ldexp(y[i], type == DType::bf16 ? 40 - static_cast<int>(i % static_cast<std::size_t>(n)) % 3 * 40 : 0);
        return y;
      };
      const std::vector<float> want = alike(exact_product(device, x, weight));
      for (const std::uint32_t splits : {1u, 2u, 3u, 4u}) {  // two and four pair up, of many tokens
        SCOPED_TRACE(std::string(ops::hopper_dense_name(format, kind)) + " parts " + std::to_string(splits));
        Guarded y(device, DType::f32, {m, n}, {3, 4});
        multiply_by_kind(device, x, weight, y, {kind, splits}, narrow ? Numerics::bf16 : Numerics::f16);
        EXPECT_TRUE(y.intact());
        EXPECT_LE(nmse(alike(y.read()), want), narrow ? 1e-9 : 3e-7);
      }
    }
  }
}

// Models have sizes that no tile divides: through the public door, every type whose blocks divide k.
TEST_P(HopperRows, SizesThatNoTileDivides) {
  Random random(58);
  SCOPED_TRACE(random.trace());
  const bool small = wants_small_sizes(device.capabilities().backend);
  for (const DType type : kWeightTypes) {
    for (const std::int64_t k : {704, 2112, 2880}) {
      if (ops::hopper_form(type) == WeightForm::prepared || k % block_elems(type) != 0 || (small && k > 704)) continue;
      const std::int64_t n = 201;
      const Tensor raw = uploaded(device, type, n, k, random_weights(type, static_cast<std::size_t>(n * k), random));
      const Weight weight = must(Weight::prepare(device, raw, {PrepareMode::on, {}}));
      for (const std::int64_t m : {7, 70, 300}) {
        SCOPED_TRACE(std::string(to_string(type)) + " k " + std::to_string(k) + " m " + std::to_string(m));
        Guarded x(device, DType::f32, {m, k}), y(device, DType::f32, {m, n});
        x.write(random.uniform(static_cast<std::size_t>(m * k), -2, 2));
        MatmulOptions tiles;
        tiles.route = Route::tile;
        const MatmulPlan plan = must(plan_matmul(device, {m, n, k, type}, true, tiles));
        EXPECT_EQ(plan.kernel.substr(0, 14), "matmul_hopper_");
        EXPECT_EQ(plan.numerics, Numerics::f16);
        must(run(device, [&](CommandEncoder& e) { return matmul(e, x.tensor(), weight, y.tensor(), tiles); }));
        EXPECT_TRUE(y.intact());
        EXPECT_LE(nmse(y.read(), exact_product(device, x, weight)), 3e-7);
      }
    }
  }
}

// What any GPU makes of the form: rows as they were, and the exponents of bf16.
TEST(WeightRows, ArePreparedRowsWithExponents) {
  Random random(56);
  SCOPED_TRACE(random.trace());
  for (const Device& device : gpus()) {
    for (const DType type : {DType::f16, DType::bf16}) {
      for (const std::int64_t k : {std::int64_t{1}, std::int64_t{64}, std::int64_t{131}}) {
        SCOPED_TRACE(std::string(to_string(type)) + " k " + std::to_string(k));
        std::vector<Tensor> sources;
        std::vector<float> values;
        for (const std::int64_t n : {16, 21}) {
          std::vector<float> some = random.uniform(static_cast<std::size_t>(n * k), -3, 3);
          if (type == DType::bf16) {
            for (std::size_t i = 0; i < some.size(); ++i) some[i] = std::ldexp(some[i], 9 * static_cast<int>(i / static_cast<std::size_t>(k)) - 120);
            std::fill_n(some.begin() + 3 * k, k, 0.0f);
            some[static_cast<std::size_t>(5 * k)] = -1e-40f;
          }
          std::vector<std::byte> bytes = encoded(type, some);
          if (type == DType::bf16) {
            const std::uint16_t infinity = 0x7F80;  // does not count
            std::memcpy(&bytes[static_cast<std::size_t>(4 * k) * 2], &infinity, 2);
          }
          sources.push_back(uploaded(device, type, n, k, bytes));
          const std::vector<float> stored = decoded(type, bytes);
          values.insert(values.end(), stored.begin(), stored.end());
        }
        const Weight rows = in_form(device, sources, WeightForm::rows), prepared = in_form(device, sources, WeightForm::prepared);
        ASSERT_EQ(rows.bytes(), ops::rows_bytes(type, 37, k));
        if (type == DType::bf16) {
          const std::vector<std::byte> storage = downloaded(device, must(ops::exponents_of(rows.impl()->storage, type, 37, k)));
          std::vector<std::int32_t> exponents(48);
          ASSERT_EQ(storage.size(), exponents.size() * 4);
          std::memcpy(exponents.data(), storage.data(), storage.size());
          for (std::size_t row = 0; row < 48; ++row) {
            float peak = 0;
            for (std::size_t i = row * static_cast<std::size_t>(k); i < std::min(values.size(), (row + 1) * static_cast<std::size_t>(k)); ++i) {
              if (std::isfinite(values[i])) peak = std::max(peak, std::fabs(values[i]));
            }
            int wanted = 0;
            if (peak > 0) std::frexp(peak, &wanted);
            EXPECT_EQ(exponents[row], peak > 0 ? std::max(wanted, -126) : 0) << row;
          }
        }
        for (const std::int64_t m : {1, 19}) {
          for (const Route route : {Route::vector, Route::tile}) {
            MatmulOptions options;
            options.numerics = Numerics::exact;
            options.route = route;
            Guarded x(device, DType::f32, {m, k}), y(device, DType::f32, {m, 37}), wanted(device, DType::f32, {m, 37});
            x.write(random.uniform(static_cast<std::size_t>(m * k), -2, 2));
            must(run(device, [&](CommandEncoder& e) { return matmul(e, x.tensor(), prepared, wanted.tensor(), options); }));
            must(run(device, [&](CommandEncoder& e) { return matmul(e, x.tensor(), rows, y.tensor(), options); }));
            EXPECT_TRUE(y.intact());
            const std::vector<float> got = y.read(), want = wanted.read();
            EXPECT_EQ(std::memcmp(got.data(), want.data(), got.size() * sizeof(float)), 0);
          }
        }
      }
    }
  }
}

// A named route of tiles keeps the bits of a row, whatever rows stand beside it: k has one part then.
TEST_P(HopperRows, BatchInvariantTiles) {
  Random random(57);
  SCOPED_TRACE(random.trace());
  for (const DType type : {DType::q4_0, DType::q6_K, DType::f16, DType::bf16}) {
    const std::int64_t n = 150, k = 5120;
    const Tensor raw = uploaded(device, type, n, k, random_weights(type, static_cast<std::size_t>(n * k), random));
    const Weight weight = must(Weight::prepare(device, raw, {PrepareMode::on, {}}));
    const std::int64_t most = 300;
    Guarded x(device, DType::f32, {most, k}), all(device, DType::f32, {most, n});
    x.write(random.uniform(static_cast<std::size_t>(most * k), -2, 2));
    MatmulOptions options;
    options.route = Route::tile;
    options.batch_invariant = true;
    must(run(device, [&](CommandEncoder& e) { return matmul(e, x.tensor(), weight, all.tensor(), options); }));
    const std::vector<float> want = all.read();
    for (const std::int64_t m : {1, 17, 40, 100, 200}) {
      SCOPED_TRACE(std::string(to_string(type)) + " m " + std::to_string(m));
      Guarded y(device, DType::f32, {m, n});
      const Tensor some = must(x.tensor().slice(0, 0, m));
      must(run(device, [&](CommandEncoder& e) { return matmul(e, some, weight, y.tensor(), options); }));
      const std::vector<float> got = y.read();
      EXPECT_EQ(std::memcmp(got.data(), want.data(), got.size() * sizeof(float)), 0);
    }
  }
}

}  // namespace
}  // namespace mlxn::test::weight_records_suite
