// What products of dense weights take on Hopper and beside it, on the stand-in of the CUDA runtime.
#include "backends/weight_impl.h"
#include "mlxn/ops/matmul.h"
#include "ops/matmul/matmul.h"
#include "ops/weight_records/args.h"
#include "ops/weight_records/weight_records.h"
#include "tests/cuda_host/support.h"

namespace mlxn {
namespace {

using test::must;

std::string planned(const Device& device, DType type, std::int64_t m, Numerics numerics, bool prepared, MatmulOptions options = {}) {
  options.numerics = numerics;
  const MatmulPlan plan = must(plan_matmul(device, {m, 4096, 2880, type}, prepared, options));
  return std::string(plan.kernel) + " " + std::string(to_string(plan.numerics));
}

/// Of Hopper's kernels of tiles and pairs the table of rates chooses one.
void expect_hopper_tile(const std::string& planned, const std::string& type_and_class) {
  EXPECT_EQ(planned.find("matmul_hopper_"), 0u) << planned;
  EXPECT_TRUE(planned.ends_with("_" + type_and_class)) << planned;
}

TEST_F(Cuda, TilesOfDenseWeightsAreHoppersKernels) {
  const Device device = cuda();
  MatmulOptions tile, invariant;
  tile.route = Route::tile;
  invariant.batch_invariant = true;
  for (const DType type : {DType::f16, DType::bf16}) {
    const std::string name(to_string(type));
    expect_hopper_tile(planned(device, type, 16, Numerics::automatic, true), name + " f16");
    expect_hopper_tile(planned(device, type, 4096, Numerics::automatic, true), name + " f16");
    expect_hopper_tile(planned(device, type, 1, Numerics::automatic, true, tile), name + " f16");
    // One row alone, and what asks for the same order whatever m is, are exact, as are raw weights.
    EXPECT_EQ(planned(device, type, 1, Numerics::automatic, true), "matmul_vector1_" + name + " exact");
    EXPECT_EQ(planned(device, type, 16, Numerics::automatic, true, invariant), "matmul_vector8_" + name + " exact");
    EXPECT_EQ(planned(device, type, 16, Numerics::automatic, false), "matmul_tile32_" + name + " exact");
    EXPECT_EQ(planned(device, type, 16, Numerics::exact, true), "matmul_tile32_" + name + " exact");
    EXPECT_EQ(must(matmul_vector_threshold(device, {1, 4096, 2880, type}, true)), 1);
    EXPECT_EQ(must(matmul_vector_threshold(device, {1, 4096, 2880, type}, false)), 8);
  }
  expect_hopper_tile(planned(device, DType::bf16, 16, Numerics::bf16, true), "bf16_narrow bf16");
  EXPECT_EQ(planned(device, DType::f16, 16, Numerics::bf16, true), "matmul_tile32_f16 bf16");
  EXPECT_EQ(planned(device, DType::f32, 16, Numerics::automatic, true), "matmul_tile32_f32 exact");

  std::string text;
  for (const std::string& line : must(ops::explain_matmul(device, {1, 4096, 2880, DType::f16}, true, {}))) text += line + "\n";
  EXPECT_NE(text.find("class exact: the default of the route"), std::string::npos) << text;
  EXPECT_NE(text.find("weights lie in rows"), std::string::npos) << text;
}

TEST_F(Cuda, OtherGpusHaveThePortableTiles) {
  fake::Options options;
  options.capability = 80;
  fake::reset(options);
  EXPECT_EQ(planned(cuda(), DType::f16, 16, Numerics::automatic, true), "matmul_tile32_f16 exact");
  EXPECT_EQ(planned(cuda(), DType::f16, 16, Numerics::f16, true), "matmul_tile32_f16 f16");
}

// f16 is there once its bytes are; of bf16 all rows' exponents are found, behind the last row.
TEST_F(Cuda, RowsOfBf16GetExponents) {
  const Device device = cuda(), cpu = must(Device::open("cpu"));
  int launches = 0;
  std::int64_t rows = 0, offset = 0;
  fake::define_kernel("weight_exponents_bf16", {sizeof(ops::WeightExponentsArgs)}, [&](const fake::Launch& launch) {
    const auto args = launch.param<ops::WeightExponentsArgs>(0);
    ++launches;
    rows = args.rows;
    offset = reinterpret_cast<const std::uint8_t*>(args.exponents.ptr) - args.w.data.ptr;
    EXPECT_EQ(launch.grid.x, 48u);
  });
  PrepareOptions on;
  on.mode = PrepareMode::on;
  for (const DType type : {DType::f16, DType::bf16}) {
    const Weight weight = must(Weight::prepare(device, must(cpu.allocate(type, {37, 136})), on));
    EXPECT_EQ(weight.impl()->form, WeightForm::rows);
    EXPECT_EQ(weight.bytes(), 37u * 136 * 2 + (type == DType::bf16 ? 48 * 4 : 0));
    EXPECT_EQ(launches, type == DType::bf16 ? 1 : 0);
  }
  EXPECT_EQ(rows, 37);
  EXPECT_EQ(offset, 37 * 136 * 2);
}

}  // namespace
}  // namespace mlxn
