// Bits of the product with weights: the same for a row in any company, in every tile, from one call to the next, for any number of
// threads, and on the CPU from both doors and routes of an instruction set.
#include <map>

#include "tests/conformance/matmul_suite.h"

namespace mlxn::test::matmul_suite {
namespace {

TEST_P(Format, BatchInvariantRowsEqualSingleRows) {
  Random random(5);
  SCOPED_TRACE(random.trace());
  const std::size_t blocks_k = !is_small() ? 5 * unit() : is_cpu() ? 2 * unit() : 256;
  const std::size_t k = is_block(type()) ? blocks_k : is_small() ? 131 : 333;
  const Matrix w = random_matrix(21, k, random);
  const std::size_t rows = !is_small() ? 67 : is_cpu() ? 19 : 14;
  const std::vector<float> x = random.uniform(rows * k, -1.0f, 1.0f);
  for (const Numerics numerics : kClasses) {
    for (const Door door : kDoors) {
      for (const Route route : {Route::automatic, Route::vector, Route::tile}) {
        const MatmulOptions options = {numerics, route, true};
        const std::optional<Numerics> ran = class_that_runs(device(), door, w.shape(1), options);
        if (!ran || (is_small() && !is_cpu() && *ran != Numerics::exact)) continue;  // on a GPU a class is a matter of x alone
        SCOPED_TRACE(describe(door, numerics, route));
        std::vector<float> single;
        for (std::size_t row = 0; row < rows; ++row) {
          const std::vector<float> y = multiply(device(), door, w, std::span(x).subspan(row * k, k), options);
          single.insert(single.end(), y.begin(), y.end());
        }
        for (const std::size_t m : {std::size_t{2}, std::size_t{7}, std::size_t{8}, std::size_t{13}, rows}) {
          const std::vector<float> y = multiply(device(), door, w, std::span(x).first(m * k), options);
          ASSERT_TRUE(same_bits(y, std::span(single).first(m * w.n))) << m << " rows";
        }
      }
    }
  }
}

// Tiles of every size give the same bits, as do rows that one or several SIMD-groups of a GPU share, for any number of rows.
TEST_P(Format, LargeTilesAndLongRows) {
  Random random(12);
  SCOPED_TRACE(random.trace());
  const std::size_t block = is_block(type()) ? std::max<std::size_t>(unit(), 32) : 36;
  // A GPU takes large tiles where two rows of them occupy half of it.
  const Capabilities& c = device().capabilities();
  const std::size_t columns = c.backend == "cpu" ? 131 : static_cast<std::size_t>(std::max(c.compute_units / 4, 1)) * 128 + 3;
  const Matrix tile(device(), type(), columns, block, random_weights(type(), columns * block, random));
  const std::vector<float> x = random.uniform(133 * block, -1.0f, 1.0f);
  const MatmulOptions by_tile = {Numerics::exact, Route::tile};
  const std::vector<float> large = multiply(device(), Door::prepared, tile, x, by_tile);
  ASSERT_TRUE(all_near(large, matmul_reference(x, tile.values, tile.magnitudes, 133, tile.n, block, Numerics::exact),
                       matmul_tolerance(Numerics::exact, DType::f32, block), tile.n));
  const std::vector<float> small = multiply(device(), Door::prepared, tile, std::span(x).first(5 * block), by_tile);
  ASSERT_TRUE(same_bits(small, std::span(large).first(5 * tile.n)));

  for (const std::size_t k : {std::size_t{2048 + 256}, std::size_t{4096 + 512}}) {
    const Matrix w(device(), type(), 3, k, random_weights(type(), 3 * k, random));
    const std::vector<float> rows = random.uniform(5 * k, -1.0f, 1.0f);
    for (const Door door : kDoors) {
      SCOPED_TRACE(testing::Message() << "k = " << k << " " << describe(door, Numerics::exact, Route::vector));
      const MatmulOptions by_row = {Numerics::exact, Route::vector};
      const std::vector<float> y = multiply(device(), door, w, rows, by_row);
      ASSERT_TRUE(all_near(y, matmul_reference(rows, w.values, w.magnitudes, 5, w.n, k, Numerics::exact),
                           matmul_tolerance(Numerics::exact, DType::f32, k), w.n));
      ASSERT_TRUE(same_bits(multiply(device(), door, w, std::span(rows).first(k), by_row), std::span(y).first(w.n)));
    }
  }
}

TEST_P(Format, SameCallSameBits) {
  Random random(6);
  SCOPED_TRACE(random.trace());
  const std::size_t k = is_block(type()) ? (is_small() && is_cpu() ? 2 : 3) * unit() : is_small() ? 100 : 500;
  const std::size_t n = !is_small() ? 130 : is_cpu() ? 35 : 9;  // 35: some for each of three threads, and not a whole group of 16
  const std::vector<std::byte> bytes = random_weights(type(), n * k, random);
  const std::vector<float> x = random.uniform(37 * k, -1.0f, 1.0f);
  std::vector<Device> devices = {device(), device()};
  if (device().capabilities().backend == "cpu") {  // nor do the bits depend on the number of threads
    for (const int threads : {1, 2, 3}) {
      DeviceOptions options;
      options.threads = threads;
      devices.push_back(must(Device::open("cpu", options)));
    }
  }
  std::map<std::string, std::vector<float>> first;
  for (const Device& d : devices) {
    const Matrix w(d, type(), n, k, bytes);
    for (const Numerics numerics : kClasses) {
      for (const Door door : kDoors) {
        for (const Route route : kRoutes) {
          if (!class_that_runs(d, door, w.shape(1), {numerics, route})) continue;
          const std::vector<float> y = multiply(d, door, w, x, {numerics, route});
          std::vector<float>& before = first[describe(door, numerics, route)];
          if (before.empty()) before = y;
          ASSERT_TRUE(same_bits(y, before)) << describe(door, numerics, route) << ", " << d.capabilities().name;
        }
      }
    }
  }
}
// ---- every instruction set of the CPU ----------------------------------------------------------------------------

class InstructionSet : public testing::TestWithParam<std::tuple<CpuIsa, DType>> {};

// Values against the reference; and, as the kernels promise, the same bits from raw and prepared weights, on both routes,
// for any number of rows and of threads.
TEST_P(InstructionSet, EveryPathGivesTheSameGoodBits) {
  const auto [isa, type] = GetParam();
  if (!cpu_has(isa)) GTEST_SKIP() << "this machine has no " << to_string(isa);
  static const Device devices[] = {must(Device::open("cpu", {.threads = 1})), must(Device::open("cpu", {.threads = 2}))};
  Random random(10);
  SCOPED_TRACE(random.trace());
  const bool is_small = wants_small_sizes("cpu");
  const std::size_t most_rows = is_small ? 35 : 70;
  for (const auto& [n, blocks] : {std::pair<std::size_t, std::size_t>(1, 1), {15, 3}, {33, 9}, {70, 5}}) {
    const std::size_t block = is_block(type) ? block_elems(type) : 37;
    const std::size_t k = (is_small ? std::min(blocks, 512 / block) : blocks) * block;
    const std::vector<std::byte> bytes = random_weights(type, n * k, random);
    const std::vector<float> x = random.uniform(most_rows * k, -1.0f, 1.0f);
    std::map<Numerics, std::vector<Reference>> wanted;
    std::map<Numerics, std::vector<float>> first;
    for (const Device& device : devices) {
      const Matrix w(device, type, n, k, bytes);
      for (const Numerics numerics : {Numerics::exact, Numerics::f16, Numerics::int8act}) {
        if (numerics == Numerics::int8act && !has_int8act(type)) continue;
        if (wanted[numerics].empty()) wanted[numerics] = matmul_reference(x, w.values, w.magnitudes, most_rows, n, k, numerics);
        for (const std::size_t m : {most_rows, std::size_t{1}, std::size_t{3}, std::size_t{12}}) {
          for (const Door door : kDoors) {
            for (const Route route : kRoutes) {
              SCOPED_TRACE(testing::Message() << m << "x" << n << "x" << k << " " << describe(door, numerics, route) << ", "
                                              << device.capabilities().threads << " threads");
              const std::vector<float> y = multiply(device, door, w, std::span(x).first(m * k), {numerics, route}, {}, isa);
              ASSERT_TRUE(all_near(y, wanted[numerics], matmul_tolerance(numerics, DType::f32, k), n));
              if (first[numerics].empty()) first[numerics] = y;
              ASSERT_TRUE(same_bits(y, std::span(first[numerics]).first(m * n)));
            }
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Matmul, InstructionSet,
                         testing::Combine(testing::ValuesIn(kIsas), testing::ValuesIn(kWeightTypes)),
                         [](const auto& param) {
                           return test_name(std::string(to_string(std::get<0>(param.param))) + "_" + std::string(to_string(std::get<1>(param.param))));
                         });

}  // namespace
}  // namespace mlxn::test::matmul_suite
