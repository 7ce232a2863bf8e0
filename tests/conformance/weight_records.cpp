// Weights in Hopper's records on every GPU: what the portable kernels make of them, which pack, unpack and look rows up.
#include "ops/weight_records/weight_records.h"

#include <cmath>

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

namespace mlxn::test {
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

Weight in_records(const Device& device, std::span<const Tensor> sources) {
  auto weight = std::make_shared<WeightImpl>();
  weight->dtype = sources.front().dtype();
  for (const Tensor& source : sources) weight->n += source.dim(0);
  weight->k = sources.front().dim(1);
  weight->form = WeightForm::records;
  weight->storage = must(gpu::prepare_weight(device, sources, {}, WeightForm::records));
  return Weight(weight);
}

std::vector<std::byte> downloaded(const Device& device, const Tensor& t) {
  std::vector<std::byte> bytes(t.bytes());
  must(device.download(bytes, t));
  return bytes;
}

struct Sizes {
  std::int64_t n, blocks;
};

/// The code of an element, and the bytes of an area, from the file's blocks: a second reading of quant/records.h.
std::byte byte_of(const quant::RecordFormat& format, DType type, const std::vector<std::byte>& blocks, std::int64_t n, std::int64_t k,
                  std::size_t at) {
  const auto view = ops::raw_layout(type, n, k).view;
  const auto grid = quant::record_grid(format, n, k);
  const std::size_t record = at / format.bytes();
  const auto in_record = static_cast<std::uint32_t>(at % format.bytes());
  const auto row0 = static_cast<std::int64_t>(record / grid.tile_records * 16);
  const auto k0 = static_cast<std::int64_t>(record % grid.tile_records * format.elems);
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
          const quant::RecordPlace place = quant::record_place(plane.bits, row, i);
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
        const std::size_t end = quant::record_grid(format, n, k).records() * format.bytes();
        for (std::size_t i = 0; i < end; i += random.below(5) + 1) {
          ASSERT_EQ(storage[i], byte_of(format, type, bytes, n, k, i)) << "byte " << i % format.bytes() << " of record " << i / format.bytes();
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
      auto impl = std::make_shared<WeightImpl>();
      impl->dtype = type, impl->n = 69, impl->k = k, impl->form = WeightForm::prepared;
      impl->storage = must(gpu::prepare_weight(device, sources, {}, WeightForm::prepared));
      const Weight prepared(impl), records = in_records(device, sources);
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

// Every tile kernel, also those that only large shapes would take, against exact products of the same weights.
TEST(WeightRecords, EveryTileKernelOfHopper) {
  Random random(54);
  SCOPED_TRACE(random.trace());
  for (const Device& device : gpus()) {
    if (!device.impl()->is_hopper()) continue;
    for (const DType type : types_with_records()) {
      const std::int64_t n = 150, k = block_elems(type) == 256 ? 1280 : 1312;
      const Tensor raw = uploaded(device, type, n, k, random_weights(type, static_cast<std::size_t>(n * k), random));
      const Weight weight = in_records(device, {&raw, 1});
      for (int kind = 0; kind < tile::kKinds; ++kind) {
        for (const std::uint32_t splits : {1u, 3u}) {
          const std::int64_t m = ops::hopper_tile_shape(type, kind).tokens + 5;
          SCOPED_TRACE(std::string(ops::hopper_tile_name(type, kind)) + " parts " + std::to_string(splits));
          Guarded x(device, DType::f32, {m, k}, {4, 0}), y(device, DType::f32, {m, n}, {3, 4}), wanted(device, DType::f32, {m, n});
          x.write(random.uniform(static_cast<std::size_t>(m * k), -2, 2));
          MatmulOptions exact;
          exact.numerics = Numerics::exact;
          must(run(device, [&](CommandEncoder& e) { return matmul(e, x.tensor(), weight, wanted.tensor(), exact); }));
          must(run(device, [&](CommandEncoder& e) {
            return ops::matmul_hopper_kind(e, x.tensor(), {weight.impl()->storage, WeightForm::records}, y.tensor(), {m, n, k, type}, kind, splits);
          }));
          EXPECT_TRUE(y.intact());
          const std::vector<float> got = y.read(), want = wanted.read();
          double error = 0, size = 0;
          for (std::size_t i = 0; i < got.size(); ++i) {
            const double off = static_cast<double>(got[i]) - static_cast<double>(want[i]);
            error += off * off;
            size += static_cast<double>(want[i]) * static_cast<double>(want[i]);
          }
          EXPECT_LE(error / size, 3e-7);
        }
      }
    }
  }
}

}  // namespace
}  // namespace mlxn::test
