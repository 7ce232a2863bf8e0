// How x reaches Hopper's tile kernels, on the stand-in of the CUDA runtime: by a map of where it lies, or made ready first; what a
// fusion adds to both launches; and the counters of blocks that share a tile.
#include "backends/allocation.h"
#include "mlxn/ops/fused_matmul.h"
#include "ops/matmul/hopper_tile.h"
#include "tests/cuda_host/support.h"

namespace mlxn {
namespace {

using test::must;

constexpr std::int64_t kM = 16, kN = 256, kK = 8192;

class Tiles : public Cuda {
 protected:
  void SetUp() override {
    Cuda::SetUp();
    for (const char* name : {"matmul_hopper_stage", "matmul_hopper_stage_normed"}) {
      fake::define_kernel(name, {sizeof(ops::HopperStageArgs)}, [this, name](const fake::Launch& launch) {
        launched.emplace_back(name);
        stage = launch.param<ops::HopperStageArgs>(0);
        stage_grid = launch.grid.x;
      });
    }
    for (const char* name : {"matmul_hopper_tile16_f16", "matmul_hopper_tile32_f16"}) {  // as the table of rates chooses
      fake::define_kernel(name, {sizeof(ops::HopperTileArgs)}, [this](const fake::Launch& launch) {
        launched.emplace_back("tile");
        product = launch.param<ops::HopperTileArgs>(0);
        x_map = fake::tensor_map_of(product.x);
        for (std::uint32_t i = 0; i < product.row_tiles * product.token_tiles; ++i) {
          if (product.counters.ptr != nullptr && product.counters.ptr[i] != 0) ++counters_not_zero;
        }
      });
    }
  }
  Weight weight(const Device& device) {
    PrepareOptions on;
    on.mode = PrepareMode::on;
    return must(Weight::prepare(device, must(must(Device::open("cpu")).allocate(DType::f16, {kN, kK})), on));
  }
  static const std::byte* address(const Tensor& t) { return t.allocation()->data() + t.byte_offset(); }

  std::vector<std::string> launched;
  ops::HopperStageArgs stage{};
  ops::HopperTileArgs product{};
  fake::TensorMap x_map;
  unsigned stage_grid = 0;
  int counters_not_zero = 0;
};

using Names = std::vector<std::string>;

TEST_F(Tiles, XOfTheOperandsTypeIsMappedWhereItLies) {
  const Device device = cuda();
  const Weight w = weight(device);
  const Tensor y = must(device.allocate(DType::f32, {kM, kN}));
  const Tensor x = must(device.allocate(DType::f16, {kM, kK + 16}));
  const auto multiply = [&](const Tensor& in) {
    launched.clear();
    must(test::run(device, [&](CommandEncoder& e) { return matmul(e, in, w, y); }));
  };
  const Tensor aligned = must(x.slice(1, 8, kK + 8));
  multiply(aligned);
  EXPECT_EQ(launched, Names{"tile"});
  EXPECT_EQ(x_map.base, address(aligned));
  EXPECT_EQ(x_map.sizes[0], 64u);
  EXPECT_EQ(x_map.sizes[1], static_cast<std::uint64_t>(kM));
  EXPECT_EQ(x_map.sizes[2], static_cast<std::uint64_t>(kK / 64));
  EXPECT_EQ(x_map.row_bytes, static_cast<std::uint64_t>(2 * (kK + 16)));
  EXPECT_EQ(x_map.plane_bytes, 128u);
  EXPECT_EQ(x_map.box[0], 64u);
  EXPECT_TRUE(x_map.box[1] == 16 || x_map.box[1] == 32) << x_map.box[1];
  EXPECT_EQ(x_map.box[2], 1u);
  EXPECT_TRUE(x_map.swizzle128);
  EXPECT_EQ(product.x_scales.ptr, nullptr);
  EXPECT_EQ(product.residual.ptr, nullptr);

  for (const Tensor& other : {must(x.slice(1, 1, kK + 1)), must(device.allocate(DType::f32, {kM, kK})), must(device.allocate(DType::bf16, {kM, kK}))}) {
    multiply(other);
    EXPECT_EQ(launched, (Names{"matmul_hopper_stage", "tile"}));
    EXPECT_EQ(stage.x.ptr, address(other));
    EXPECT_EQ(stage_grid, static_cast<unsigned>(kM));
    EXPECT_EQ(x_map.base, reinterpret_cast<const std::byte*>(stage.rows.ptr));
    EXPECT_EQ(x_map.row_bytes, static_cast<std::uint64_t>(2 * kK));
    EXPECT_EQ(product.x_scales.ptr, stage.scales.ptr);
  }
}

TEST_F(Tiles, AGraphMovesTheMapWithTheTensor) {
  const Device device = cuda();
  const Weight w = weight(device);
  const Tensor y = must(device.allocate(DType::f32, {kM, kN}));
  const Tensor x = must(device.allocate(DType::f16, {2 * kM, kK})), other = must(device.allocate(DType::f16, {2 * kM, kK}));
  const Tensor later = must(x.slice(0, kM, 2 * kM));
  Graph graph = must(Graph::record(device, [&](CommandEncoder& e) { return matmul(e, later, w, y); }));
  must(graph.replay_and_wait());
  EXPECT_EQ(x_map.base, address(later));
  must(graph.rebind(x, other));
  must(graph.replay_and_wait());
  EXPECT_EQ(x_map.base, address(other) + kM * kK * 2);
  EXPECT_EQ(x_map.sizes[1], static_cast<std::uint64_t>(kM));
}

TEST_F(Tiles, CountersAreZeroedOnceAndPassedOn) {
  const Device device = cuda();
  const Weight w = weight(device);
  const Tensor y = must(device.allocate(DType::f32, {kM, kN})), x = must(device.allocate(DType::f16, {kM, kK}));
  const auto twice = [&](CommandEncoder& e) -> Result<void> {
    MLXN_CHECK(matmul(e, x, w, y));
    return matmul(e, x, w, y);
  };
  must(test::run(device, twice));
  EXPECT_GT(product.split_steps, 0u);
  ASSERT_LT(product.split_steps, product.steps) << "k is not in parts";
  const std::uint32_t* const first = product.counters.ptr;
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(counters_not_zero, 0);
  const int fills = fake::calls("cudaMemsetAsync");
  // Of a list that runs and of one that is recorded meanwhile they are different ones.
  {
    CommandEncoder a = must(device.encoder()), b = must(device.encoder());
    must(matmul(a, x, w, y));
    must(matmul(b, x, w, y));
    fake::Hold hold;  // after the new counters were set to zero, which waits
    const Submission sa = must(a.commit()), sb = must(b.commit());
    hold.release();
    must(sa.wait());
    const std::uint32_t* const of_a_or_b = product.counters.ptr;
    must(sb.wait());
    EXPECT_TRUE(of_a_or_b != first || product.counters.ptr != first);
  }
  EXPECT_EQ(counters_not_zero, 0);
  EXPECT_LE(fake::calls("cudaMemsetAsync"), fills + 1) << "one more block of them";
  const int before = fake::calls("cudaMemsetAsync");
  must(test::run(device, twice));
  EXPECT_EQ(fake::calls("cudaMemsetAsync"), before);
}

TEST_F(Tiles, ANormIsMadeWithTheRowsAndTheRestWhereYIsStored) {
  const Device device = cuda();
  const Weight w = weight(device);
  const Tensor x = must(device.allocate(DType::f32, {kM, kK})), norm = must(device.allocate(DType::f32, {kK}));
  const Tensor y = must(device.allocate(DType::f32, {kM, kN}));
  MatmulFusion fusion;
  fusion.norm = norm, fusion.norm_eps = 1e-5f, fusion.residual = y;
  must(test::run(device, [&](CommandEncoder& e) { return fused_matmul(e, x, w, y, fusion); }));
  EXPECT_EQ(launched, (Names{"matmul_hopper_stage_normed", "tile"}));
  EXPECT_EQ(reinterpret_cast<const std::byte*>(stage.norm.ptr), address(norm));
  EXPECT_EQ(stage.norm_eps, 1e-5f);
  EXPECT_EQ(stage.x.ptr, address(x));
  EXPECT_EQ(product.residual.ptr, product.y.ptr);
  EXPECT_EQ(product.residual_stride, kN);
  EXPECT_EQ(product.gate_rows, 0u);
  // A gate's rows come from both halves of the weights, which are planes of their map.
  launched.clear();
  const Tensor half = must(device.allocate(DType::f32, {kM, kN / 2}));
  fusion.residual = half;
  fusion.gate = MatmulGate::gelu;
  must(test::run(device, [&](CommandEncoder& e) { return fused_matmul(e, x, w, half, fusion); }));
  EXPECT_EQ(launched, (Names{"matmul_hopper_stage_normed", "tile"}));
  EXPECT_EQ(product.n, static_cast<std::uint32_t>(kN / 2));
  EXPECT_EQ(product.gate_rows, static_cast<std::uint32_t>(kN / 2));
  EXPECT_EQ(product.activation, ops::kHopperTileGelu);
  const fake::TensorMap of_weights = fake::tensor_map_of(product.w);
  EXPECT_EQ(of_weights.sizes[1], static_cast<std::uint64_t>(kN / 2));
  EXPECT_EQ(of_weights.sizes[2], 2u);
  EXPECT_EQ(of_weights.plane_bytes, static_cast<std::uint64_t>(kN / 2 * kK * 2));
  EXPECT_EQ(of_weights.box[1], 64u);
  EXPECT_EQ(of_weights.box[2], 2u);
  // f16 as it lies, and no norm.
  launched.clear();
  const Tensor x16 = must(device.allocate(DType::f16, {kM, kK})), other = must(device.allocate(DType::f32, {kM, kN + 3}));
  fusion = {};
  fusion.residual = must(other.slice(1, 0, kN));
  must(test::run(device, [&](CommandEncoder& e) { return fused_matmul(e, x16, w, y, fusion); }));
  EXPECT_EQ(launched, Names{"tile"});
  EXPECT_EQ(product.residual.ptr, address(other));
  EXPECT_EQ(product.residual_stride, kN + 3);
}

}  // namespace
}  // namespace mlxn
