#include "mlxn/ops/embedding.h"

#include "tests/conformance/variants.h"
#include "tests/reference/embedding.h"
#include "tests/support/weights.h"

namespace mlxn::test::embedding_suite {
namespace {

std::vector<std::byte> id_bytes(const std::vector<std::uint32_t>& ids) {
  std::vector<std::byte> bytes(ids.size() * 4);
  std::memcpy(bytes.data(), ids.data(), bytes.size());
  return bytes;
}

/// The CPU, which decodes tables with one plain code, with one and two threads; the GPUs.
std::vector<Variant> devices() {
  std::vector<Variant> list;
  for (const Variant& v : variants()) {
    if (!v.isa || *v.isa == CpuIsa::scalar) list.push_back(v);
  }
  return list;
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
    for (const Variant& v : devices()) {
      SCOPED_TRACE(v.name + " " + std::string(to_string(c.table)) + " -> " + std::string(to_string(c.y)) + " [" +
                   std::to_string(c.n) + ", " + std::to_string(c.dim) + "]" + (mode == PrepareMode::on ? " prepared" : " raw"));
      // Blocks may stand at any address.
      const std::uint64_t shift = c.ids.size() % 2 == 0 ? 0 : is_block(c.table) ? 1 : block_bytes(c.table);
      Guarded source(v.device, c.table, {c.n, c.dim}, {0, shift}), ids(v.device, DType::u32, {seq});
      Guarded y(v.device, c.y, {seq, c.dim}, {3, block_bytes(c.y)});
      source.write(bytes);
      ids.write(id_bytes(c.ids));
      const Weight weight = prepared(v.device, source.tensor(), mode);
      must(run(v.device, [&](CommandEncoder& e) { return embedding(e, ids.tensor(), weight, y.tensor(), c.scale); }));
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

// A file's bytes lie in memory of the CPU: Weight::prepare brings them to the device and says that it has read each once.
TEST(Embedding, tables_of_a_gpu_may_come_from_memory_of_the_cpu) {
  struct Source {
    DType type;
    std::int64_t n, dim;
  };
  const Device host = must(Device::open("cpu"));
  Random random(34);
  SCOPED_TRACE(random.trace());
  for (const Variant& v : families()) {
    if (v.device.capabilities().unified_memory) continue;
    for (const Source& c : {Source{DType::q6_K, 5, 512}, Source{DType::f16, 7, 24}, Source{DType::bf16, 7, 13},
                            Source{DType::q8_0, 9 << 12, 256}}) {  // the last one in several pieces
      SCOPED_TRACE(v.name + " " + std::string(to_string(c.type)));
      const std::vector<std::byte> bytes = random_weights(c.type, static_cast<std::size_t>(c.n * c.dim), random);
      const std::vector<float> values = decoded(c.type, bytes);
      const Tensor source = must(host.allocate(c.type, {c.n, c.dim}));
      must(host.upload(source, bytes));
      const std::vector<std::uint32_t> rows = {0, static_cast<std::uint32_t>(c.n / 2), static_cast<std::uint32_t>(c.n - 1)};
      Guarded ids(v.device, DType::u32, {3}), y(v.device, DType::f32, {3, c.dim});
      ids.write(id_bytes(rows));
      for (const PrepareMode mode : {PrepareMode::on, PrepareMode::off, PrepareMode::automatic}) {
        PrepareOptions options;
        options.mode = mode;
        std::uint64_t end = 0;
        int pieces = 0;
        options.consumed = [&](std::uint64_t offset, std::uint64_t length) {
          EXPECT_EQ(offset, end);
          end = offset + length;
          ++pieces;
        };
        const Weight table = must(Weight::prepare(v.device, source, options));
        EXPECT_EQ(table.prepared(), mode != PrepareMode::off);
        // Layouts may fill up tiles of 16 rows.
        const double row_bytes = static_cast<double>(bytes.size()) / static_cast<double>(c.n);
        EXPECT_LE(static_cast<double>(table.bytes()), 1.02 * row_bytes * static_cast<double>((c.n + 15) / 16 * 16) + 128);
        EXPECT_EQ(end, bytes.size());
        EXPECT_EQ(pieces > 1, bytes.size() > std::size_t{8} << 20);
        must(run(v.device, [&](CommandEncoder& e) { return embedding(e, ids.tensor(), table, y.tensor()); }));
        const std::vector<float> got = y.read();
        for (std::size_t i = 0; i < got.size(); ++i) {
          const auto dim = static_cast<std::size_t>(c.dim);
          ASSERT_EQ(got[i], values[rows[i / dim] * dim + i % dim]) << "token " << i / dim << " column " << i % dim;
        }
        options.consumed = [](std::uint64_t, std::uint64_t) { throw 1; };
        EXPECT_TRUE(fails_with(Weight::prepare(v.device, source, options), ErrorCode::invalid_argument, {"consumed"}));
      }
    }
    const Device other = must(Device::open(v.name));
    if (!(other == v.device)) {
      const Tensor foreign = must(other.allocate(DType::q4_0, {3, 64}));
      EXPECT_TRUE(fails_with(Weight::prepare(v.device, foreign), ErrorCode::wrong_device, {"prepare", "CPU"}));
    }
  }
}

void check_errors(const Device& device) {
  const auto make = [&](DType type, const Shape& shape) { return must(device.allocate(type, shape)); };
  const Tensor source = make(DType::f32, {10, 8}), ids = make(DType::u32, {4}), y = make(DType::f32, {4, 8});
  const Weight table = prepared(device, source, PrepareMode::off);
  const auto attempt = [&](const Tensor& i, const Weight& t, const Tensor& out, float scale = 1) {
    CommandEncoder encoder = must(device.encoder());
    return embedding(encoder, i, t, out, scale);
  };
  const Tensor elsewhere = must(cpu(1).allocate(DType::u32, {4}));
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
  EXPECT_TRUE(fails_with(attempt(elsewhere, table, y), ErrorCode::wrong_device, {"ids"}));
  const Weight foreign = prepared(cpu(1), must(cpu(1).allocate(DType::f32, {10, 8})), PrepareMode::off);
  EXPECT_TRUE(fails_with(attempt(ids, foreign, y), ErrorCode::wrong_device, {"embedding", "table"}));
  CommandEncoder closed = must(device.encoder());
  must(closed.commit_and_wait());
  EXPECT_TRUE(fails_with(embedding(closed, ids, table, y), ErrorCode::wrong_state, {"embedding"}));
  EXPECT_TRUE(attempt(must(ids.slice(0, 1, 1)), table, must(y.slice(0, 1, 1))).has_value());
}

TEST(Embedding, errors) {
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    check_errors(v.device);
  }
}

}  // namespace
}  // namespace mlxn::test::embedding_suite
