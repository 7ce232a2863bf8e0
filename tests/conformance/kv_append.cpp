#include "ops/kv_append/kv_append.h"

#include <cmath>
#include <limits>

#include "mlxn/graph.h"
#include "tests/conformance/variants.h"
#include "tests/reference/kv_append.h"

namespace mlxn::test::kv_append_suite {
namespace {

struct Case {
  std::int64_t seq, kv_heads, dim, capacity, position;
  bool ring = false;
  std::int64_t v_dim = 0;  // 0: dim
};

void check(const Case& c, DType k_type, DType v_type, Random& random) {
  const std::int64_t v_dim = c.v_dim == 0 ? c.dim : c.v_dim;
  const auto count = [](std::int64_t a, std::int64_t b, std::int64_t d) { return static_cast<std::size_t>(a * b * d); };
  std::vector<float> k_new = random.uniform(count(c.seq, c.kv_heads, c.dim), -2, 2);
  const std::vector<float> v_new = random.uniform(count(c.seq, c.kv_heads, v_dim), -70000, 70000);  // beyond f16 at its ends
  k_new[0] = 1e-7f;
  std::vector<float> k = rounded(k_type, random.uniform(count(c.kv_heads, c.capacity, c.dim), -1, 1));
  std::vector<float> v = rounded(v_type, random.uniform(count(c.kv_heads, c.capacity, v_dim), -1, 1));
  const std::vector<float> k_before = k, v_before = v;
  reference::kv_append<float>(k, rounded(k_type, k_new), c.kv_heads, c.capacity, c.dim, c.seq, c.position, c.ring);
  reference::kv_append<float>(v, rounded(v_type, v_new), c.kv_heads, c.capacity, v_dim, c.seq, c.position, c.ring);
  for (const Variant& variant : variants()) {
    SCOPED_TRACE(variant.name + " seq " + std::to_string(c.seq) + " dim " + std::to_string(c.dim) + " position " +
                 std::to_string(c.position));
    const Device& device = variant.device;
    Guarded gk_new(device, DType::f32, {c.seq, c.kv_heads, c.dim}, {3, 4}), gv_new(device, DType::f32, {c.seq, c.kv_heads, v_dim});
    Guarded gk(device, k_type, {c.kv_heads, c.capacity, c.dim}, {1, block_bytes(k_type)}), gv(device, v_type, {c.kv_heads, c.capacity, v_dim});
    write(gk_new, DType::f32, k_new);
    write(gv_new, DType::f32, v_new);
    write(gk, k_type, k_before);
    write(gv, v_type, v_before);
    must(run(device, [&](CommandEncoder& e) {
      return ops::encode_kv_append(e, gk_new.tensor(), gv_new.tensor(), gk.tensor(), gv.tensor(), c.position, {.ring = c.ring}, variant.isa);
    }));
    EXPECT_TRUE(gk_new.unchanged());
    EXPECT_TRUE(gv_new.unchanged());
    EXPECT_TRUE(gk.intact());
    EXPECT_TRUE(gv.intact());
    ASSERT_EQ(gk.read(), k);
    ASSERT_EQ(gv.read(), v);
  }
}

TEST(KvAppend, places_and_types) {
  Random random(91);
  SCOPED_TRACE(random.trace());
  const Case cases[] = {{1, 2, 16, 8, 0},          {1, 2, 16, 8, 7},        {3, 4, 33, 8, 2},      {8, 1, 5, 8, 0},
                        {4, 2, 128, 64, 13},       {6, 4, 16, 32, 2},       {3, 1, 8, 4, 6, true}, {8, 2, 7, 8, 5, true},
                        {1, 1, 1, 1, 123456, true}, {2, 3, 64, 5, 9, true}, {2, 2, 24, 9, 3, false, 40}};
  for (const Case& c : cases) {
    for (const auto& [k_type, v_type] : {std::pair(DType::f32, DType::f32), std::pair(DType::f16, DType::f16), std::pair(DType::f32, DType::f16)}) {
      check(c, k_type, v_type, random);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(KvAppend, nan_and_infinity_are_stored) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (const DType type : {DType::f32, DType::f16}) {
    for (const Variant& variant : variants()) {
      SCOPED_TRACE(variant.name);
      const Device& device = variant.device;
      Guarded rows(device, DType::f32, {1, 1, 4}), k(device, type, {1, 2, 4}), v(device, type, {1, 2, 4});
      write(rows, DType::f32, {nan, inf, -inf, -0.0f});
      must(run(device, [&](CommandEncoder& e) {
        return ops::encode_kv_append(e, rows.tensor(), rows.tensor(), k.tensor(), v.tensor(), 0, {}, variant.isa);
      }));
      const std::vector<float> got = k.read();
      EXPECT_TRUE(std::isnan(got[0]));
      EXPECT_EQ(got[1], inf);
      EXPECT_EQ(got[2], -inf);
      EXPECT_TRUE(got[3] == 0 && std::signbit(got[3]));
    }
  }
}

TEST(KvAppend, a_replay_takes_positions_inside_the_cache) {
  for (const Variant& variant : families()) {
    SCOPED_TRACE(variant.name);
    const Device& device = variant.device;
    Guarded rows(device, DType::f32, {2, 1, 4}), k(device, DType::f32, {1, 4, 4}), v(device, DType::f32, {1, 4, 4});
    write(rows, DType::f32, std::vector<float>(8, 1));
    write(k, DType::f32, std::vector<float>(16, 0));
    write(v, DType::f32, std::vector<float>(16, 0));
    int id = -1;
    Graph graph = must(Graph::record(device, [&](CommandEncoder& e) -> Result<void> {
      MLXN_TRY(const auto position, e.parameter("position", 0));
      id = position.parameter;
      return kv_append(e, rows.tensor(), rows.tensor(), k.tensor(), v.tensor(), position);
    }));
    for (const std::int64_t position : {std::int64_t{-1}, std::int64_t{3}, std::numeric_limits<std::int64_t>::max()}) {
      EXPECT_TRUE(fails_with(graph.set(id, position), ErrorCode::out_of_range, {}));
    }
    must(graph.set(id, 2));
    must(graph.replay_and_wait());
    EXPECT_TRUE(k.intact());
    std::vector<float> wanted(16, 0);
    std::fill(wanted.begin() + 8, wanted.end(), 1.0f);
    EXPECT_EQ(k.read(), wanted);
    EXPECT_EQ(v.read(), wanted);
  }
}

TEST(KvAppend, errors) {
  for (const Variant& variant : families()) {
    SCOPED_TRACE(variant.name);
    const Device& device = variant.device;
    const auto make = [&](DType type, const Shape& shape) { return must(device.allocate(type, shape)); };
    const Tensor kn = make(DType::f32, {3, 2, 8}), vn = make(DType::f32, {3, 2, 8});
    const Tensor k = make(DType::f16, {2, 10, 8}), v = make(DType::f16, {2, 10, 8});
    const auto attempt = [&](const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& d, std::int64_t position = 0, bool ring = false) {
      CommandEncoder encoder = must(device.encoder());
      return kv_append(encoder, a, b, c, d, position, {.ring = ring});
    };
    EXPECT_TRUE(attempt(kn, vn, k, v, 7).has_value());
    EXPECT_TRUE(attempt(kn, vn, k, v, 700, true).has_value());
    EXPECT_TRUE(attempt(kn, kn, k, v).has_value()) << "the same rows twice";
    EXPECT_TRUE(attempt(must(kn.slice(0, 0, 0)), must(vn.slice(0, 0, 0)), k, v, 10).has_value()) << "no tokens";
    EXPECT_TRUE(fails_with(attempt({}, vn, k, v), ErrorCode::invalid_argument, {"kv_append", "k_new", "empty"}));
    EXPECT_TRUE(fails_with(attempt(kn, vn, k, {}), ErrorCode::invalid_argument, {"kv_append", "v_cache", "empty"}));
    EXPECT_TRUE(fails_with(attempt(make(DType::f16, {3, 2, 8}), vn, k, v), ErrorCode::bad_dtype, {"k_new is f16", "f32"}));
    EXPECT_TRUE(fails_with(attempt(kn, vn, k, make(DType::bf16, {2, 10, 8})), ErrorCode::bad_dtype, {"v_cache is bf16"}));
    EXPECT_TRUE(fails_with(attempt(make(DType::f32, {3, 16}), vn, k, v), ErrorCode::bad_shape, {"k_new is [3, 16]"}));
    EXPECT_TRUE(fails_with(attempt(kn, vn, make(DType::f16, {3, 10, 8}), v), ErrorCode::bad_shape, {"k_cache is [3, 10, 8]", "[2, capacity, 8]"}));
    EXPECT_TRUE(fails_with(attempt(kn, make(DType::f32, {2, 2, 8}), k, v), ErrorCode::bad_shape, {"v_new is [2, 2, 8]"}));
    EXPECT_TRUE(fails_with(attempt(kn, vn, k, make(DType::f16, {2, 9, 8})), ErrorCode::bad_shape, {"v_cache has 9", "10"}));
    EXPECT_TRUE(fails_with(attempt(kn, vn, make(DType::f16, {2, 2, 8}), make(DType::f16, {2, 2, 8}), 0, true), ErrorCode::bad_shape, {"3 tokens", "2 slots"}));
    EXPECT_TRUE(fails_with(attempt(must(make(DType::f32, {3, 8, 2}).permute({0, 2, 1})), vn, k, v), ErrorCode::bad_shape, {"k_new", "stride"}));
    EXPECT_TRUE(fails_with(attempt(kn, vn, k, k), ErrorCode::aliased, {"k_cache overlaps v_cache"}));
    const Tensor cache = make(DType::f32, {2, 10, 8}), inside = must(must(cache.reshape({160})).slice(0, 0, 48));
    EXPECT_TRUE(fails_with(attempt(must(inside.reshape({3, 2, 8})), vn, cache, v), ErrorCode::aliased, {"k_cache overlaps k_new"}));
    EXPECT_TRUE(fails_with(attempt(kn, must(inside.reshape({3, 2, 8})), k, cache), ErrorCode::aliased, {"v_cache overlaps v_new"}));
    EXPECT_TRUE(fails_with(attempt(kn, vn, k, v, 8), ErrorCode::out_of_range, {"position is 8", "3 tokens", "7"}));
    EXPECT_TRUE(fails_with(attempt(kn, vn, k, v, -1), ErrorCode::out_of_range, {"position is -1"}));
    EXPECT_TRUE(fails_with(attempt(kn, vn, k, v, -1, true), ErrorCode::out_of_range, {"position is -1"}));
    EXPECT_TRUE(fails_with(attempt(must(cpu(1).allocate(DType::f32, {3, 2, 8})), vn, k, v), ErrorCode::wrong_device, {"kv_append", "k_new"}));
    CommandEncoder encoder = must(device.encoder());
    must(encoder.commit_and_wait());
    EXPECT_TRUE(fails_with(kv_append(encoder, kn, vn, k, v, 0), ErrorCode::wrong_state, {"kv_append"}));
  }
}

}  // namespace
}  // namespace mlxn::test::kv_append_suite
