#include "mlxn/ops/embedding.h"

#include "tests/conformance/cpu_variants.h"
#include "tests/reference/embedding.h"
#include "tests/support/weights.h"

namespace mlxn::test {
namespace {

std::vector<std::byte> id_bytes(const std::vector<std::uint32_t>& ids) {
  std::vector<std::byte> bytes(ids.size() * 4);
  std::memcpy(bytes.data(), ids.data(), bytes.size());
  return bytes;
}

struct Case {
  DType table, y;
  std::int64_t n, dim;
  std::vector<std::uint32_t> ids;
  float scale = 1;
};

void check(const Case& c, Random& random) {
  const std::vector<std::byte> bytes = random_weights(c.table, static_cast<std::size_t>(c.n * c.dim), random);
  const std::vector<float> values = decoded(c.table, bytes);
  const auto seq = static_cast<std::int64_t>(c.ids.size());
  for (const PrepareMode mode : {PrepareMode::off, PrepareMode::on}) {
    for (const int threads : {1, 2}) {
      SCOPED_TRACE(std::string(to_string(c.table)) + " -> " + std::string(to_string(c.y)) + " [" + std::to_string(c.n) +
                   ", " + std::to_string(c.dim) + "] threads " + std::to_string(threads) +
                   (mode == PrepareMode::on ? " prepared" : " raw"));
      Guarded source(cpu(threads), c.table, {c.n, c.dim}), ids(cpu(threads), DType::u32, {seq});
      Guarded y(cpu(threads), c.y, {seq, c.dim}, {3, block_bytes(c.y)});
      source.write(bytes);
      ids.write(id_bytes(c.ids));
      const Weight weight = prepared(cpu(threads), source.tensor(), mode);
      must(run(cpu(threads), [&](CommandEncoder& e) { return embedding(e, ids.tensor(), weight, y.tensor(), c.scale); }));
      EXPECT_TRUE(y.intact());
      EXPECT_TRUE(source.unchanged());
      const std::vector<float> got = y.read();
      for (std::size_t i = 0; i < c.ids.size(); ++i) {
        const std::vector<Reference> wanted = reference::embedding(values, c.dim, c.ids[i], c.scale);
        for (std::size_t j = 0; j < wanted.size(); ++j) {
          const float at = got[i * wanted.size() + j];
          // Unscaled values are exact in f32, the 16-bit ones their rounding.
          const Tolerance tolerance{.out = c.y, .terms = c.scale == 1 ? 0.0 : 1.0};
          ASSERT_TRUE(is_near(at, wanted[j], tolerance)) << "token " << i << " column " << j;
          if (c.y == DType::f32 && c.scale == 1) {
            ASSERT_EQ(at, static_cast<float>(wanted[j].value));
          }
        }
      }
    }
  }
}

TEST(Embedding, every_weight_type) {
  Random random(31);
  SCOPED_TRACE(random.trace());
  for (const DType type : kWeightTypes) {
    const std::int64_t dim = block_elems(type) == 1 ? 37 : 3 * block_elems(type);
    for (const DType y : kFloats) {
      check({type, y, 19, dim, {0, 18, 3, 3, 16, 15, 7}}, random);
      check({type, y, 19, dim, {11}, 3.5f}, random);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(Embedding, sizes) {
  Random random(32);
  for (const std::int64_t dim : {1, 3, 4, 5, 15, 16, 17, 255, 256, 257, 4099}) {
    check({DType::f32, DType::f16, 2, dim, {1, 0, 1}, 0.25f}, random);
  }
  check({DType::q8_0, DType::f32, 1, 32, {0}}, random);
  check({DType::q8_0, DType::f32, 33, 2048 + 32, {32, 0, 31, 16}}, random);
}

TEST(Embedding, ids_outside_the_table_give_zeros) {
  Random random(33);
  check({DType::f32, DType::f32, 5, 40, {4, 5, 0xFFFFFFFF, 0, 0x80000000}}, random);
  check({DType::q4_0, DType::bf16, 5, 64, {5, 4, 6}}, random);
}

TEST(Embedding, errors) {
  const Device& device = cpu(2);
  const auto make = [&](DType type, const Shape& shape) { return must(device.allocate(type, shape)); };
  const Tensor source = make(DType::f32, {10, 8}), ids = make(DType::u32, {4}), y = make(DType::f32, {4, 8});
  const Weight table = prepared(device, source, PrepareMode::off);
  const auto attempt = [&](const Tensor& i, const Weight& t, const Tensor& out, float scale = 1) {
    CommandEncoder encoder = must(device.encoder());
    return embedding(encoder, i, t, out, scale);
  };
  EXPECT_TRUE(attempt(ids, table, y).has_value());
  EXPECT_TRUE(fails_with(attempt({}, table, y), ErrorCode::invalid_argument, {"embedding", "ids"}));
  EXPECT_TRUE(fails_with(attempt(ids, {}, y), ErrorCode::invalid_argument, {"embedding", "table"}));
  EXPECT_TRUE(fails_with(attempt(ids, table, {}), ErrorCode::invalid_argument, {"embedding", "y"}));
  EXPECT_TRUE(
      fails_with(attempt(make(DType::i32, {4}), table, y), ErrorCode::bad_dtype, {"embedding", "ids", "i32", "u32"}));
  EXPECT_TRUE(fails_with(attempt(ids, table, make(DType::u32, {4, 8})), ErrorCode::bad_dtype, {"embedding", "y", "u32"}));
  EXPECT_TRUE(
      fails_with(attempt(make(DType::u32, {2, 2}), table, y), ErrorCode::bad_shape, {"embedding", "ids", "[2, 2]"}));
  EXPECT_TRUE(
      fails_with(attempt(ids, table, make(DType::f32, {4, 9})), ErrorCode::bad_shape, {"embedding", "y", "[4, 8]"}));
  EXPECT_TRUE(fails_with(attempt(ids, table, must(make(DType::f32, {8, 4}).permute({1, 0}))), ErrorCode::bad_shape, {"y"}));
  EXPECT_TRUE(
      fails_with(attempt(ids, table, must(source.slice(0, 1, 5))), ErrorCode::aliased, {"embedding", "y", "table"}));
  const Tensor over_y = must(must(must(y.reshape({32})).slice(0, 0, 4)).reinterpret(DType::u32, {4}));
  EXPECT_TRUE(fails_with(attempt(over_y, table, y), ErrorCode::aliased, {"embedding", "y", "ids"}));
  for (const float scale : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    EXPECT_TRUE(fails_with(attempt(ids, table, y, scale), ErrorCode::invalid_argument, {"embedding", "scale"}));
  }
  EXPECT_TRUE(fails_with(attempt(must(cpu(1).allocate(DType::u32, {4})), table, y), ErrorCode::wrong_device, {"ids"}));
  const Weight foreign = prepared(cpu(1), must(cpu(1).allocate(DType::f32, {10, 8})), PrepareMode::off);
  EXPECT_TRUE(fails_with(attempt(ids, foreign, y), ErrorCode::wrong_device, {"embedding", "table"}));
  CommandEncoder closed = must(device.encoder());
  must(closed.commit_and_wait());
  EXPECT_TRUE(fails_with(embedding(closed, ids, table, y), ErrorCode::wrong_state, {"embedding"}));
  EXPECT_TRUE(attempt(must(ids.slice(0, 1, 1)), table, must(y.slice(0, 1, 1))).has_value());
}

}  // namespace
}  // namespace mlxn::test
