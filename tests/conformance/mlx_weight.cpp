// Weights in MLX's own form, on every device: against what MLX itself decodes and multiplies (tools/golden_mlx.py), what a user
// may do with them, and what is refused.
#include <cstring>
#include <fstream>
#include <iterator>

#include "backends/weight_impl.h"
#include "mlxn/ops/embedding.h"
#include "mlxn/ops/fused_matmul.h"
#include "mlxn/ops/matmul.h"
#include "tests/conformance/variants.h"
#include "tests/reference/matmul.h"
#include "tests/support/source_dir.h"
#include "tests/support/weights.h"

namespace mlxn::test::mlx_weight_suite {
namespace {

struct Golden {
  MlxWeight weight;  // in memory of the CPU
  DType blocks;      // what it is to become
  std::int64_t n = 0, k = 0, m = 0;
  std::vector<float> values, x, y;
};

Tensor on_cpu(DType type, const Shape& shape, std::span<const std::byte> bytes) {
  const Device& cpu = device_named("cpu");
  const Tensor t = must(cpu.allocate(type, shape));
  must(cpu.upload(t, bytes));
  return t;
}

Golden read_golden(MlxMode mode, int bits, int group, DType scales) {
  const bool affine = mode == MlxMode::affine;
  const std::string name = (affine ? "affine" + std::to_string(bits) : "mxfp4") + "_g" + std::to_string(group) + "_" + std::string(to_string(scales));
  std::ifstream in(source_dir() + "/tests/golden/mlx/" + name + ".bin", std::ios::binary);
  const std::vector<char> chars(std::istreambuf_iterator<char>(in), {});
  std::span<const std::byte> rest = std::as_bytes(std::span(chars));
  const auto take = [&](std::size_t bytes) {
    EXPECT_GE(rest.size(), bytes) << name;
    const auto first = rest.first(std::min(bytes, rest.size()));
    rest = rest.subspan(first.size());
    return first;
  };
  const auto floats = [&](std::int64_t count) {
    std::vector<float> out(static_cast<std::size_t>(count));
    const auto bytes = take(out.size() * 4);
    std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  };
  Golden g;
  std::uint32_t sizes[3] = {};
  std::memcpy(sizes, take(12).data(), 12);
  g.n = sizes[0], g.k = sizes[1], g.m = sizes[2];
  g.weight.mode = mode, g.weight.bits = bits, g.weight.group_size = group;
  const std::int64_t words = g.k * bits / 32, groups = g.k / group;
  const auto array = [&](DType type, std::int64_t columns) {
    return on_cpu(type, {g.n, columns}, take(static_cast<std::size_t>(g.n * columns) * block_bytes(type)));
  };
  g.weight.codes = array(DType::u32, words);
  g.weight.scales = array(scales, groups);
  if (affine) g.weight.biases = array(scales, groups);
  g.values = floats(g.n * g.k), g.x = floats(g.m * g.k), g.y = floats(g.m * g.n);
  EXPECT_TRUE(rest.empty()) << name;
  g.blocks = affine ? affine_dtype({static_cast<std::uint32_t>(bits), static_cast<std::uint32_t>(group), scales}).value() : DType::mxfp4;
  return g;
}

template <class Each>
void for_goldens(const Each& each) {
  for (const int bits : {4, 8}) {
    for (const int group : {32, 64, 128}) {
      for (const DType scales : {DType::f16, DType::bf16, DType::f32}) {
        SCOPED_TRACE(testing::Message() << "affine " << bits << " bits, groups of " << group << ", " << to_string(scales));
        each(read_golden(MlxMode::affine, bits, group, scales));
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
  SCOPED_TRACE("mxfp4");
  each(read_golden(MlxMode::mxfp4, 4, 32, DType::u8));
}

TEST(MlxWeight, BlocksHoldTheValuesOfMlx) {
  for_goldens([](const Golden& g) {
    const Tensor blocks = must(mlx_blocks(g.weight));
    EXPECT_EQ(blocks.dtype(), g.blocks);
    EXPECT_EQ(blocks.shape(), (Shape{g.n, g.k}));
    EXPECT_EQ(blocks.bytes(), g.weight.codes.bytes() + g.weight.scales.bytes() + (g.weight.biases.defined() ? g.weight.biases.bytes() : 0));
    const auto bytes = must(blocks.read<std::byte>());
    must(validate_blocks(blocks.dtype(), bytes));
    const std::vector<float> got = decoded(blocks.dtype(), bytes);
    for (std::size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], g.values[i]) << "element " << i;  // -0 == 0
  });
}

class MlxDevice : public testing::TestWithParam<std::string> {
 protected:
  const Device& device() const { return device_named(GetParam()); }
  static std::vector<float> magnitudes(const Golden& g) {
    const auto bytes = must(must(mlx_blocks(g.weight)).read<std::byte>());
    return weight_magnitudes(g.blocks, bytes);
  }
};

TEST_P(MlxDevice, ProductsAreThoseOfMlx) {
  for_goldens([&](const Golden& g) {
    for (const PrepareMode mode : {PrepareMode::on, PrepareMode::off}) {
      const Weight weight = must(Weight::prepare(device(), g.weight, {mode, {}}));
      EXPECT_EQ(weight.dtype(), g.blocks);
      EXPECT_EQ(weight.prepared(), mode == PrepareMode::on);
      for (const Numerics numerics : {Numerics::automatic, Numerics::exact}) {
        for (const Route route : {Route::vector, Route::tile}) {
          MatmulOptions options;
          options.numerics = numerics, options.route = route;
          const MatmulPlan plan = must(plan_matmul(device(), {g.m, g.n, g.k, g.blocks}, mode == PrepareMode::on, options));
          SCOPED_TRACE(std::string(plan.kernel));
          Guarded x(device(), DType::f32, {g.m, g.k}), y(device(), DType::f32, {g.m, g.n});
          x.write(g.x);
          must(run(device(), [&](CommandEncoder& e) { return matmul(e, x.tensor(), weight, y.tensor(), options); }));
          const auto k = static_cast<std::size_t>(g.k);
          const auto wanted = matmul_reference(g.x, g.values, magnitudes(g), static_cast<std::size_t>(g.m), static_cast<std::size_t>(g.n), k, Numerics::exact);
          const std::vector<float> got = y.read();
          for (std::size_t i = 0; i < got.size(); ++i) {
            ASSERT_TRUE(is_near(got[i], wanted[i], matmul_tolerance(plan.numerics, DType::f32, k))) << i;
            ASSERT_TRUE(is_near(g.y[i], wanted[i], matmul_tolerance(Numerics::exact, DType::f32, k))) << "MLX's own " << i;
          }
        }
      }
    }
  });
}

// Arrays that lie with the device, in memory that the CPU sees, become blocks there.
TEST_P(MlxDevice, ArraysOfTheDevice) {
  for_goldens([&](const Golden& g) {
    const auto there = [&](const Tensor& t) {
      if (!t.defined()) return t;
      AllocateOptions options;
      options.kind = MemoryKind::shared;
      Tensor copy = must(device().allocate(t.dtype(), {t.dim(0), t.dim(1)}, options));
      const auto bytes = must(t.read<std::byte>());
      must(device().upload(copy, std::span(bytes.data(), bytes.size())));
      return copy;
    };
    MlxWeight weight = g.weight;
    weight.codes = there(weight.codes), weight.scales = there(weight.scales), weight.biases = there(weight.biases);
    const Tensor blocks = must(mlx_blocks(weight)), wanted = must(mlx_blocks(g.weight));
    EXPECT_EQ(blocks.device(), device());
    const auto a = must(blocks.read<std::byte>()), b = must(wanted.read<std::byte>());
    EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end()));
  });
}

TEST_P(MlxDevice, TablesOfEmbeddings) {
  for_goldens([&](const Golden& g) {
    for (const PrepareMode mode : {PrepareMode::on, PrepareMode::off}) {
      const Weight table = must(Weight::prepare(device(), g.weight, {mode, {}}));
      const std::uint32_t rows[] = {3, 0, 2};
      const Tensor ids = must(device().allocate(DType::u32, {3}));
      must(device().upload(ids, std::as_bytes(std::span(rows))));
      Guarded y(device(), DType::f32, {3, g.k});
      must(run(device(), [&](CommandEncoder& e) { return embedding(e, ids, table, y.tensor()); }));
      EXPECT_TRUE(y.intact());
      const std::vector<float> got = y.read();
      for (std::size_t i = 0; i < got.size(); ++i) {
        const auto k = static_cast<std::size_t>(g.k);
        ASSERT_EQ(got[i], g.values[rows[i / k] * k + i % k]) << "element " << i;
      }
    }
  });
}

// Queries, keys and values of one matrix, with a norm before the product and a residual behind it.
TEST_P(MlxDevice, StackedAndInAFusedProduct) {
  Random random(71);
  SCOPED_TRACE(random.trace());
  const std::int64_t n = 16, k = 256;
  for (const DType type : {DType::affine4_g64, DType::affine4_g64_bf16, DType::affine8_g128_f32}) {
    const AffineInfo info = affine_info(type).value();
    std::vector<Tensor> sources;
    std::vector<float> values, magnitudes;
    for (int i = 0; i < 2; ++i) {
      MlxWeight w;
      w.bits = static_cast<int>(info.bits), w.group_size = static_cast<int>(info.group);
      std::vector<std::uint32_t> codes(static_cast<std::size_t>(n * k * w.bits / 32));
      for (std::uint32_t& word : codes) word = static_cast<std::uint32_t>(random.bits());
      w.codes = on_cpu(DType::u32, {n, k * w.bits / 32}, std::as_bytes(std::span(codes)));
      const auto numbers = [&](float size) {
        std::vector<std::byte> bytes(static_cast<std::size_t>(n * k / w.group_size) * block_bytes(info.scales));
        must(quantize(info.scales, random.uniform(static_cast<std::size_t>(n * k / w.group_size), -size, size), bytes));
        return on_cpu(info.scales, {n, k / w.group_size}, bytes);
      };
      w.scales = numbers(1.0f / static_cast<float>(1 << w.bits)), w.biases = numbers(0.5f);
      sources.push_back(must(mlx_blocks(w)));
      const auto bytes = must(sources.back().read<std::byte>());
      for (const float v : decoded(type, bytes)) values.push_back(v);
      for (const float v : weight_magnitudes(type, bytes)) magnitudes.push_back(v);
    }
    const Weight weight = must(Weight::prepare_stacked(device(), sources));
    EXPECT_EQ(weight.n(), 2 * n);
    const std::vector<float> x = random.uniform(static_cast<std::size_t>(k), -1, 1);
    const std::vector<float> add = random.uniform(static_cast<std::size_t>(2 * n), -1, 1);
    Guarded x_buffer(device(), DType::f32, {1, k}), y(device(), DType::f32, {1, 2 * n}), residual(device(), DType::f32, {1, 2 * n});
    x_buffer.write(x), residual.write(add);
    MatmulFusion fusion;
    fusion.residual = residual.tensor();
    must(run(device(), [&](CommandEncoder& e) { return fused_matmul(e, x_buffer.tensor(), weight, y.tensor(), fusion); }));
    auto wanted = matmul_reference(x, values, magnitudes, 1, static_cast<std::size_t>(2 * n), static_cast<std::size_t>(k), Numerics::exact);
    const std::vector<float> got = y.read();
    for (std::size_t i = 0; i < got.size(); ++i) {
      wanted[i].value += static_cast<double>(add[i]), wanted[i].magnitude += std::fabs(static_cast<double>(add[i]));
      EXPECT_TRUE(is_near(got[i], wanted[i], matmul_tolerance(Numerics::f16, DType::f32, static_cast<std::size_t>(k)))) << i;
    }
  }
}

TEST_P(MlxDevice, TakesAsManyBytesAsTheArrays) {
  const std::int64_t n = wants_small_sizes(device().capabilities().backend) ? 256 : 1024, k = 1024;
  for (const int bits : {4, 8}) {
    for (const int group : {32, 64, 128}) {
      for (const DType scales : {DType::f16, DType::bf16, DType::f32}) {
        MlxWeight w;
        w.bits = bits, w.group_size = group;
        w.codes = must(device_named("cpu").allocate(DType::u32, {n, k * bits / 32}));
        w.scales = must(device_named("cpu").allocate(scales, {n, k / group}));
        w.biases = must(device_named("cpu").allocate(scales, {n, k / group}));
        const Weight weight = must(Weight::prepare(device(), w, {PrepareMode::on, {}}));
        const std::uint64_t bytes = w.codes.bytes() + w.scales.bytes() + w.biases.bytes();
        EXPECT_LE(weight.bytes(), bytes + bytes / 50) << bits << " " << group << " " << to_string(scales);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(MlxWeight, MlxDevice, testing::ValuesIn(device_names()), [](const auto& param) { return test_name(param.param); });

// ---- what is refused -----------------------------------------------------------------------------------------------------

MlxWeight valid() {
  const Device& cpu = device_named("cpu");
  MlxWeight w;
  w.codes = must(cpu.allocate(DType::u32, {3, 16}));
  w.scales = must(cpu.allocate(DType::bf16, {3, 2}));
  w.biases = must(cpu.allocate(DType::bf16, {3, 2}));
  return w;
}
Tensor tensor(DType type, const Shape& shape) { return must(device_named("cpu").allocate(type, shape)); }

TEST(MlxWeight, TheUnbrokenSourceIsTaken) {
  const Result<Tensor> blocks = mlx_blocks(valid());
  ASSERT_TRUE(blocks) << blocks.error().message();
  EXPECT_EQ(blocks->dtype(), DType::affine4_g64_bf16);
}

TEST(MlxWeight, WidthsAndGroupsThatAreUnknown) {
  for (const int bits : {2, 3, 5, 6, 0, -1}) {
    MlxWeight w = valid();
    w.bits = bits;
    EXPECT_TRUE(fails_with(mlx_blocks(w), ErrorCode::unsupported, {"bits", std::to_string(bits), "4 or 8"}));
  }
  for (const int group : {16, 48, 256, 0}) {
    MlxWeight w = valid();
    w.group_size = group;
    EXPECT_TRUE(fails_with(mlx_blocks(w), ErrorCode::unsupported, {"group_size", std::to_string(group), "32, 64 or 128"}));
  }
  MlxWeight w = valid();
  w.mode = MlxMode::mxfp4;  // with groups of 64, as valid() has them
  EXPECT_TRUE(fails_with(mlx_blocks(w), ErrorCode::unsupported, {"group_size", "64", "32", "mxfp4"}));
  w.group_size = 32, w.bits = 8;
  EXPECT_TRUE(fails_with(mlx_blocks(w), ErrorCode::unsupported, {"bits", "8", "4", "mxfp4"}));
  w.mode = static_cast<MlxMode>(9);
  EXPECT_TRUE(fails_with(mlx_blocks(w), ErrorCode::invalid_argument, {"mode is 9", "0 to 1"}));
}

TEST(MlxWeight, ArraysOfOtherTypes) {
  MlxWeight w = valid();
  w.codes = tensor(DType::i32, {3, 16});
  EXPECT_TRUE(fails_with(mlx_blocks(w), ErrorCode::bad_dtype, {"codes", "i32", "u32"}));
  w = valid();
  w.scales = tensor(DType::f64, {3, 2});
  EXPECT_TRUE(fails_with(mlx_blocks(w), ErrorCode::bad_dtype, {"scales", "f64", "f16 bf16 f32"}));
  w = valid();
  w.biases = tensor(DType::f16, {3, 2});
  EXPECT_TRUE(fails_with(mlx_blocks(w), ErrorCode::bad_dtype, {"biases", "f16", "wanted bf16"}));
  w = valid();
  w.mode = MlxMode::mxfp4, w.group_size = 32;
  EXPECT_TRUE(fails_with(mlx_blocks(w), ErrorCode::bad_dtype, {"scales", "bf16", "u8 f8e8m0"}));
}

TEST(MlxWeight, ShapesThatDoNotFit) {
  MlxWeight w = valid();
  w.codes = tensor(DType::u32, {3, 12});
  EXPECT_TRUE(fails_with(mlx_blocks(w), ErrorCode::bad_shape, {"codes", "[3, 12]", "96", "64"}));
  w.codes = tensor(DType::u32, {48});
  EXPECT_TRUE(fails_with(mlx_blocks(w), ErrorCode::bad_shape, {"codes", "1 axes", "2"}));
  w.codes = must(tensor(DType::u32, {3, 16}).slice(0, 0, 0));
  EXPECT_TRUE(fails_with(mlx_blocks(w), ErrorCode::bad_shape, {"codes", "[0, 16]"}));
  w = valid();
  w.scales = tensor(DType::bf16, {3, 4});
  EXPECT_TRUE(fails_with(mlx_blocks(w), ErrorCode::bad_shape, {"scales", "[3, 4]", "[3, 2]", "128"}));
  w = valid();
  w.biases = tensor(DType::bf16, {2, 2});
  EXPECT_TRUE(fails_with(mlx_blocks(w), ErrorCode::bad_shape, {"biases", "[2, 2]", "[3, 2]"}));
  w = valid();
  w.codes = must(tensor(DType::u32, {3, 32}).slice(1, 0, 16));
  EXPECT_TRUE(fails_with(mlx_blocks(w), ErrorCode::bad_shape, {"codes", "gaps"}));
}

TEST(MlxWeight, ArraysThatAreMissingOrTooMany) {
  MlxWeight w = valid();
  w.codes = {};
  EXPECT_TRUE(fails_with(mlx_blocks(w), ErrorCode::invalid_argument, {"codes", "empty"}));
  w = valid();
  w.biases = {};
  EXPECT_TRUE(fails_with(mlx_blocks(w), ErrorCode::invalid_argument, {"biases", "empty"}));
  w = valid();
  w.mode = MlxMode::mxfp4, w.group_size = 32;
  w.scales = tensor(DType::u8, {3, 4});
  EXPECT_TRUE(fails_with(mlx_blocks(w), ErrorCode::invalid_argument, {"biases", "mxfp4"}));
  w.biases = {};
  EXPECT_EQ(must(mlx_blocks(w)).dtype(), DType::mxfp4);
}

}  // namespace
}  // namespace mlxn::test::mlx_weight_suite
