#include "mlxn/ops/rope_append.h"

#include "mlxn/graph.h"
#include "tests/conformance/variants.h"

namespace mlxn::test::rope_append_suite {
namespace {

struct Case {
  std::int64_t seq, heads, kv_heads, dim, capacity, position;
  RopePairing pairing = RopePairing::adjacent;
  std::int64_t rotated = 0, v_dim = 0;  // 0: dim
  bool ring = false;
};

/// Against the two operations that it stands for, which have references of their own.
void check(const Case& c, DType cache_type, Random& random) {
  const std::int64_t v_dim = c.v_dim == 0 ? c.dim : c.v_dim;
  RopeConfig config;
  config.head_dim = c.dim;
  config.rotated_dims = c.rotated;
  config.pairing = c.pairing;
  // q, k and v of a token beside each other, as one product leaves them.
  const std::int64_t row = (c.heads + c.kv_heads) * c.dim + c.kv_heads * v_dim;
  const std::vector<float> qkv = random.uniform(static_cast<std::size_t>(c.seq * row), -2, 2);
  const std::vector<float> k_before = rounded(cache_type, random.uniform(static_cast<std::size_t>(c.kv_heads * c.capacity * c.dim), -1, 1));
  const std::vector<float> v_before = rounded(cache_type, random.uniform(static_cast<std::size_t>(c.kv_heads * c.capacity * v_dim), -1, 1));
  std::vector<std::int32_t> positions(static_cast<std::size_t>(c.seq));
  for (std::int32_t& p : positions) p = static_cast<std::int32_t>(random.below(100000)) - 500;
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name + " seq " + std::to_string(c.seq) + " heads " + std::to_string(c.heads) + " dim " + std::to_string(c.dim));
    const RopeTable table = must(RopeTable::make(v.device, config));
    struct Run {
      std::vector<float> qkv, k, v;
    };
    const auto outcome = [&](bool fused) {
      Guarded all(v.device, DType::f32, {c.seq, row}, {5, 4}), gp(v.device, DType::i32, {c.seq});
      Guarded gk(v.device, cache_type, {c.kv_heads, c.capacity, c.dim}, {1, block_bytes(cache_type)}), gv(v.device, cache_type, {c.kv_heads, c.capacity, v_dim});
      write(all, DType::f32, qkv);
      write(gk, cache_type, k_before);
      write(gv, cache_type, v_before);
      const auto bytes = std::as_bytes(std::span(positions));
      gp.write(std::vector<std::byte>(bytes.begin(), bytes.end()));
      const auto part = [&](std::int64_t begin, std::int64_t heads, std::int64_t dim) {
        const Tensor& t = all.tensor();
        return must(Tensor::make(t.allocation(), DType::f32, {c.seq, heads, dim}, t.byte_offset() + static_cast<std::uint64_t>(begin) * 4, {t.stride(0), dim, 1}));
      };
      const Tensor q = part(0, c.heads, c.dim), k = part(c.heads * c.dim, c.kv_heads, c.dim);
      const Tensor value = part((c.heads + c.kv_heads) * c.dim, c.kv_heads, v_dim);
      must(run(v.device, [&](CommandEncoder& e) -> Result<void> {
        if (fused) return rope_append(e, q, k, value, gp.tensor(), table, gk.tensor(), gv.tensor(), c.position, {.ring = c.ring});
        MLXN_CHECK(rope(e, q, gp.tensor(), table, q));
        MLXN_CHECK(rope(e, k, gp.tensor(), table, k));
        return kv_append(e, k, value, gk.tensor(), gv.tensor(), c.position, {.ring = c.ring});
      }));
      EXPECT_TRUE(all.intact());
      EXPECT_TRUE(gk.intact());
      EXPECT_TRUE(gv.intact());
      EXPECT_TRUE(gp.unchanged());
      return Run{all.read(), gk.read(), gv.read()};
    };
    const Run one = outcome(true), steps = outcome(false);
    ASSERT_EQ(one.qkv, steps.qkv);
    ASSERT_EQ(one.k, steps.k);
    ASSERT_EQ(one.v, steps.v);
    EXPECT_NE(one.k, k_before);
    EXPECT_NE(one.v, v_before);
  }
}

TEST(RopeAppend, is_rope_and_kv_append) {
  Random random(191);
  SCOPED_TRACE(random.trace());
  constexpr RopePairing kHalves = RopePairing::halves, kAdjacent = RopePairing::adjacent;
  const Case cases[] = {{1, 4, 2, 16, 8, 5},
                        {1, 32, 8, 128, 64, 63, kHalves},
                        {3, 1, 1, 8, 8, 2},
                        {7, 6, 3, 24, 9, 1, kHalves, 16},
                        {5, 3, 2, 20, 9, 1, kAdjacent, 6, 12},
                        {4, 2, 2, 64, 6, 9, kHalves, 0, 0, true},
                        {2, 9, 1, 96, 33, 30, kHalves, 0, 128}};
  for (const Case& c : cases) {
    for (const DType type : {DType::f32, DType::f16}) {
      check(c, type, random);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(RopeAppend, a_replay_takes_positions_inside_the_cache) {
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    RopeConfig config;
    config.head_dim = 4;
    const RopeTable table = must(RopeTable::make(v.device, config));
    Guarded q(v.device, DType::f32, {1, 1, 4}), k(v.device, DType::f32, {1, 1, 4}), value(v.device, DType::f32, {1, 1, 4});
    Guarded kc(v.device, DType::f32, {1, 4, 4}), vc(v.device, DType::f32, {1, 4, 4}), positions(v.device, DType::i32, {1});
    for (Guarded* rows : {&q, &k, &value}) write(*rows, DType::f32, std::vector<float>(4, 1));
    for (Guarded* cache : {&kc, &vc}) write(*cache, DType::f32, std::vector<float>(16, 0));
    positions.write(std::vector<std::byte>(4));
    int id = -1;
    Graph graph = must(Graph::record(v.device, [&](CommandEncoder& e) -> Result<void> {
      MLXN_TRY(const auto position, e.parameter("position", 0));
      id = position.parameter;
      return rope_append(e, q.tensor(), k.tensor(), value.tensor(), positions.tensor(), table, kc.tensor(), vc.tensor(), position);
    }));
    for (const std::int64_t position : {std::int64_t{-1}, std::int64_t{4}}) {
      EXPECT_TRUE(fails_with(graph.set(id, position), ErrorCode::out_of_range, {}));
    }
    must(graph.set(id, 3));
    must(graph.replay_and_wait());
    std::vector<float> wanted(16, 0);
    std::fill(wanted.begin() + 12, wanted.end(), 1.0f);
    EXPECT_EQ(kc.read(), wanted);
    EXPECT_EQ(vc.read(), wanted);
  }
}

TEST(RopeAppend, errors) {
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    RopeConfig config;
    config.head_dim = 8;
    const RopeTable table = must(RopeTable::make(v.device, config));
    const auto make = [&](DType type, const Shape& shape) { return must(v.device.allocate(type, shape)); };
    const Tensor q = make(DType::f32, {3, 4, 8}), k = make(DType::f32, {3, 2, 8}), value = make(DType::f32, {3, 2, 8});
    const Tensor kc = make(DType::f16, {2, 10, 8}), vc = make(DType::f16, {2, 10, 8}), positions = make(DType::i32, {3});
    const auto attempt = [&](const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& p, const Tensor& d, const Tensor& e,
                             std::int64_t position = 0, const RopeTable* other = nullptr) {
      CommandEncoder encoder = must(v.device.encoder());
      return rope_append(encoder, a, b, c, p, other == nullptr ? table : *other, d, e, position);
    };
    EXPECT_TRUE(attempt(q, k, value, positions, kc, vc));
    const RopeTable empty;
    EXPECT_TRUE(fails_with(attempt(q, k, value, positions, kc, vc, 0, &empty), ErrorCode::invalid_argument, {"rope_append", "table"}));
    EXPECT_TRUE(fails_with(attempt({}, k, value, positions, kc, vc), ErrorCode::invalid_argument, {"rope_append", "q"}));
    EXPECT_TRUE(fails_with(attempt(make(DType::f16, {3, 4, 8}), k, value, positions, kc, vc), ErrorCode::bad_dtype, {"q", "f16"}));
    EXPECT_TRUE(fails_with(attempt(make(DType::f32, {3, 4, 6}), k, value, positions, kc, vc), ErrorCode::bad_shape, {"q", "8"}));
    EXPECT_TRUE(fails_with(attempt(q, make(DType::f32, {2, 2, 8}), value, positions, kc, vc), ErrorCode::bad_shape, {"positions"}));
    EXPECT_TRUE(fails_with(attempt(q, k, make(DType::f32, {3, 1, 8}), positions, kc, vc), ErrorCode::bad_shape, {"v_new"}));
    EXPECT_TRUE(fails_with(attempt(q, k, value, make(DType::f32, {3}), kc, vc), ErrorCode::bad_dtype, {"positions"}));
    EXPECT_TRUE(fails_with(attempt(q, k, value, positions, make(DType::f16, {2, 10, 4}), vc), ErrorCode::bad_shape, {"k_cache"}));
    EXPECT_TRUE(fails_with(attempt(q, k, value, positions, kc, vc, 8), ErrorCode::out_of_range, {"position is 8"}));
    EXPECT_TRUE(fails_with(attempt(q, must(q.slice(1, 0, 2)), value, positions, kc, vc), ErrorCode::aliased, {"q", "k_new"}));
    EXPECT_TRUE(fails_with(attempt(q, k, k, positions, kc, vc), ErrorCode::aliased, {"k_new", "v_new"}));
    const auto none = [](const Tensor& t) { return must(t.slice(0, 0, 0)); };
    EXPECT_TRUE(attempt(none(q), none(k), none(value), none(positions), kc, vc));
  }
}

}  // namespace
}  // namespace mlxn::test::rope_append_suite
