#include "ops/cached_attention/cached_attention.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>

#include "mlxn/graph.h"
#include "ops/attention/args.h"
#include "tests/conformance/variants.h"
#include "tests/reference/attention.h"
#include "tests/reference/rope.h"

namespace mlxn::test::cached_attention_suite {
namespace {

using ops::CachedAttentionRoute;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

struct Case {
  std::int64_t heads = 1, kv_heads = 1, seq = 1, dim = 64, kv_len = 1;
  std::int64_t position = -1;  // -1: kv_len - seq
  std::int64_t capacity = 0;   // 0: what is in use and a few
  DType type = DType::f16;
  std::int64_t window = -1;
  float softcap = 0;
  std::optional<float> scale{};
  std::vector<float> sinks{};
  RopePairing pairing = RopePairing::halves;
  std::int64_t rotated = 0;  // 0: dim

  [[nodiscard]] std::int64_t at() const { return position < 0 ? kv_len - seq : position; }
  [[nodiscard]] std::int64_t slots() const { return capacity != 0 ? capacity : std::max(kv_len, at() + seq) + 5; }
  [[nodiscard]] RopeConfig rope() const {
    RopeConfig config;
    config.head_dim = dim, config.rotated_dims = rotated, config.pairing = pairing;
    return config;
  }
  [[nodiscard]] std::string text() const {
    return std::to_string(heads) + "/" + std::to_string(kv_heads) + " heads, seq " + std::to_string(seq) + ", dim " + std::to_string(dim) +
           ", kv_len " + std::to_string(kv_len) + ", position " + std::to_string(at()) + ", slots " + std::to_string(slots()) + ", window " +
           std::to_string(window) + ", " + std::string(to_string(type));
  }
};

struct Data {
  std::vector<float> qkv;   // per token q [heads, dim], k [kv_heads, dim], v [kv_heads, dim]
  std::vector<float> k, v;  // [kv_heads, slots, dim] as stored before, NaN where no key is
  std::vector<std::int32_t> positions;

  [[nodiscard]] const float* head(const Case& c, std::int64_t token, std::int64_t h) const {
    return &qkv[static_cast<std::size_t>((token * (c.heads + 2 * c.kv_heads) + h) * c.dim)];
  }
};

Data make_data(const Case& c, Random& random) {
  Data data;
  data.qkv = random.uniform(static_cast<std::size_t>(c.seq * (c.heads + 2 * c.kv_heads) * c.dim), -1, 1);
  for (std::vector<float>* x : {&data.k, &data.v}) {
    *x = rounded(c.type, random.uniform(static_cast<std::size_t>(c.kv_heads * c.slots() * c.dim), -1, 1));
    for (std::size_t i = 0; i < x->size(); ++i) {
      const std::int64_t slot = static_cast<std::int64_t>(i) / c.dim % c.slots();
      if (slot >= c.kv_len || (slot >= c.at() && slot < c.at() + c.seq)) (*x)[i] = kNan;
    }
  }
  for (std::int64_t t = 0; t < c.seq; ++t) data.positions.push_back(static_cast<std::int32_t>(random.below(100000)) - 500);
  return data;
}

struct Output {
  std::vector<float> y;     // [seq, heads, dim]
  std::vector<float> k, v;  // the cache afterwards
};

enum class Run { as_planned, fused, two_ops, one_by_one };  // one_by_one: rope_append and attention themselves

bool can_be_fused(const Device& device, const Case& c) {
  const Tensor q = must(device.allocate(DType::f32, {c.seq, c.heads, c.dim}));
  const Tensor cache = must(device.allocate(c.type, {c.kv_heads, c.slots(), c.dim}));
  const CommandEncoder encoder = must(device.encoder());
  AttentionOptions options;
  options.window = c.window;
  return ops::plan_cached_attention(encoder, q, cache, cache, options, {}).can_be_fused;
}

Output attend(const Case& c, const Data& data, const Device& device, Run kind, bool aligned = true) {
  const std::int64_t row = (c.heads + 2 * c.kv_heads) * c.dim;
  const GuardedOptions placed = aligned ? GuardedOptions{8, 0} : GuardedOptions{3, block_bytes(c.type)};
  Guarded qkv(device, DType::f32, {c.seq, row}, {5, 4}), positions(device, DType::i32, {c.seq});
  Guarded k(device, c.type, {c.kv_heads, c.slots(), c.dim}, placed), v(device, c.type, {c.kv_heads, c.slots(), c.dim}, placed);
  Guarded y(device, DType::f32, {c.seq, c.heads, c.dim}, {3, 4}), sinks(device, DType::f32, {c.heads});
  write(qkv, DType::f32, data.qkv);
  write(k, c.type, data.k);
  write(v, c.type, data.v);
  const auto bytes = std::as_bytes(std::span(data.positions));
  positions.write(std::vector<std::byte>(bytes.begin(), bytes.end()));
  const auto part = [&](std::int64_t head, std::int64_t heads) {
    const Tensor& t = qkv.tensor();
    return must(Tensor::make(t.allocation(), DType::f32, {c.seq, heads, c.dim}, t.byte_offset() + static_cast<std::uint64_t>(head * c.dim) * 4,
                             {t.stride(0), c.dim, 1}));
  };
  const Tensor q = part(0, c.heads), k_new = part(c.heads, c.kv_heads), v_new = part(c.heads + c.kv_heads, c.kv_heads);
  const RopeTable table = must(RopeTable::make(device, c.rope()));
  AttentionOptions options;
  options.scale = c.scale;
  options.window = c.window;
  options.softcap = c.softcap;
  if (!c.sinks.empty()) {
    write(sinks, DType::f32, c.sinks);
    options.sinks = sinks.tensor();
  }
  must(run(device, [&](CommandEncoder& e) -> Result<void> {
    if (kind == Run::one_by_one) {
      MLXN_CHECK(rope_append(e, q, k_new, v_new, positions.tensor(), table, k.tensor(), v.tensor(), c.at()));
      return attention(e, must(q.permute({1, 0, 2})), k.tensor(), v.tensor(), must(y.tensor().permute({1, 0, 2})), c.kv_len, options);
    }
    const auto route = kind == Run::fused ? CachedAttentionRoute::fused
                       : kind == Run::two_ops ? CachedAttentionRoute::two_ops
                                              : CachedAttentionRoute::automatic;
    return ops::encode_cached_attention(e, q, k_new, v_new, positions.tensor(), table, k.tensor(), v.tensor(), c.at(), c.kv_len, y.tensor(),
                                        options, {}, route);
  }));
  EXPECT_TRUE(qkv.intact());
  EXPECT_TRUE(k.intact());
  EXPECT_TRUE(v.intact());
  EXPECT_TRUE(y.intact());
  EXPECT_TRUE(positions.unchanged());
  if (kind != Run::one_by_one) {
    const std::vector<float> after = qkv.read();  // v_new is read only
    for (std::size_t i = 0; i < after.size(); ++i) {
      if (static_cast<std::int64_t>(i) % row < (c.heads + c.kv_heads) * c.dim) continue;
      EXPECT_EQ(after[i], data.qkv[i]) << "v_new";
    }
  }
  return {y.read(), k.read(), v.read()};
}

std::vector<std::uint32_t> bits(const std::vector<float>& x) {
  std::vector<std::uint32_t> b(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) b[i] = std::bit_cast<std::uint32_t>(x[i]);
  return b;
}

void compare(const Case& c, const Data& data, const Output& got) {
  const auto dim = static_cast<std::size_t>(c.dim);
  for (std::size_t i = 0; i < data.k.size(); i += dim) {
    const auto h = static_cast<std::int64_t>(i / dim) / c.slots(), token = static_cast<std::int64_t>(i / dim) % c.slots() - c.at();
    const auto of = [&](const std::vector<float>& x) { return std::span(x).subspan(i, dim); };
    if (token < 0 || token >= c.seq) {
      for (std::size_t d = 0; d < dim; ++d) {
        ASSERT_EQ(std::bit_cast<std::uint32_t>(of(got.k)[d]), std::bit_cast<std::uint32_t>(of(data.k)[d])) << "slot " << token + c.at();
        ASSERT_EQ(std::bit_cast<std::uint32_t>(of(got.v)[d]), std::bit_cast<std::uint32_t>(of(data.v)[d])) << "slot " << token + c.at();
      }
      continue;
    }
    const auto turned = reference::rope_row(c.rope(), {data.head(c, token, c.heads + h), dim}, data.positions[static_cast<std::size_t>(token)], false);
    const float* values = data.head(c, token, c.heads + c.kv_heads + h);
    const std::vector<float> stored_values = rounded(c.type, std::vector<float>(values, values + c.dim));
    for (std::size_t d = 0; d < dim; ++d) {
      ASSERT_TRUE(is_near(of(got.k)[d], turned[d], {.out = c.type, .terms = 8})) << "token " << token << " element " << d;
      ASSERT_EQ(of(got.v)[d], stored_values[d]) << "token " << token << " element " << d;
    }
  }
  // Attention over the cache as it is: one rounding of a new key would else be more than all that follow.
  reference::AttentionProblem p;
  p.heads = c.heads, p.kv_heads = c.kv_heads, p.seq = c.seq, p.head_dim = c.dim, p.kv_len = c.kv_len, p.p0 = c.kv_len - c.seq;
  p.window = c.window, p.softcap = c.softcap;
  p.scale = c.scale ? double{*c.scale} : 1 / std::sqrt(static_cast<double>(c.dim));
  // As attention's own tests count; the turn of the queries is a few roundings more.
  const Tolerance tolerance{.terms = static_cast<double>(c.dim + c.kv_len + 8 * (c.kv_len / ops::kAttentionTile + 1) + 24)};
  std::vector<float> row(dim);
  for (std::int64_t token = 0; token < c.seq; ++token) {
    for (std::int64_t h = 0; h < c.heads; ++h) {
      const auto turned = reference::rope_row(c.rope(), {data.head(c, token, h), dim}, data.positions[static_cast<std::size_t>(token)], false);
      for (std::size_t d = 0; d < dim; ++d) row[d] = static_cast<float>(turned[d].value);
      const auto of = [&](const std::vector<float>& x) {
        return [&, head = h / (c.heads / c.kv_heads) * c.slots()](std::int64_t j) { return &x[static_cast<std::size_t>((head + j) * c.dim)]; };
      };
      const auto wanted = reference::attention_row(p, token, row.data(), of(got.k), of(got.v), c.sinks.empty() ? nullptr : &c.sinks[static_cast<std::size_t>(h)]);
      for (std::size_t d = 0; d < dim; ++d) {
        const float value = got.y[static_cast<std::size_t>(token * c.heads + h) * dim + d];
        ASSERT_TRUE(is_near(value, wanted.y[d], tolerance)) << "token " << token << " head " << h << " element " << d;
      }
    }
  }
}

void check(const Case& c, Random& random) {
  const Data data = make_data(c, random);
  for (const Variant& variant : families()) {
    SCOPED_TRACE(c.text() + ", " + variant.name);
    const Output steps = attend(c, data, variant.device, Run::one_by_one);
    compare(c, data, steps);
    const bool is_fusible = can_be_fused(variant.device, c);
    // Where it cannot be one kernel it is the two operations without a wish.
    const Output two = attend(c, data, variant.device, is_fusible ? Run::two_ops : Run::as_planned);
    ASSERT_EQ(bits(two.y), bits(steps.y));
    ASSERT_EQ(bits(two.k), bits(steps.k));
    ASSERT_EQ(bits(two.v), bits(steps.v));
    if (is_fusible) {
      compare(c, data, attend(c, data, variant.device, Run::as_planned));
      const Output fused = attend(c, data, variant.device, Run::fused);
      compare(c, data, fused);
      if (testing::Test::HasFatalFailure()) return;
      ASSERT_EQ(bits(attend(c, data, variant.device, Run::fused).y), bits(fused.y)) << "same call, same bits";
    }
    if (testing::Test::HasFatalFailure()) return;
  }
}

void check_all(const std::vector<Case>& cases, std::uint64_t seed) {
  Random random(seed);
  SCOPED_TRACE(random.trace());
  for (const Case& c : cases) {
    check(c, random);
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(CachedAttention, shapes_of_models) {
  check_all({{.heads = 32, .kv_heads = 8, .dim = 128, .kv_len = 200, .capacity = 512},
             {.heads = 32, .kv_heads = 8, .dim = 64, .kv_len = 300, .capacity = 512},
             {.heads = 28, .kv_heads = 4, .dim = 128, .kv_len = 130, .capacity = 256},
             {.heads = 32, .kv_heads = 32, .dim = 96, .kv_len = 40, .capacity = 256, .window = 2047},
             {.heads = 14, .kv_heads = 2, .dim = 64, .kv_len = 70, .capacity = 256},
             {.heads = 8, .kv_heads = 4, .dim = 256, .kv_len = 70, .window = 64, .softcap = 50},
             {.heads = 8, .kv_heads = 2, .seq = 20, .dim = 64, .kv_len = 70}},
            211);
}

TEST(CachedAttention, head_dimensions_and_groups) {
  std::vector<Case> cases;
  for (const std::int64_t dim : {8, 20, 64, 80, 96, 128, 136}) {
    for (const std::int64_t group : {1, 2, 3, 4, 5, 6, 7, 8, 9}) {
      for (const std::int64_t seq : {1, 2}) {
        if ((group + seq) % 2 == 0 && dim != 128) continue;
        cases.push_back({.heads = 2 * group, .kv_heads = 2, .seq = seq, .dim = dim, .kv_len = 70});
      }
    }
  }
  check_all(cases, 212);
}

TEST(CachedAttention, edges_of_tiles_and_parts) {
  std::vector<Case> cases;
  for (const std::int64_t kv_len : {1, 2, 63, 64, 65, 129, 512, 513, 700}) {
    for (const std::int64_t capacity : {std::int64_t{0}, std::int64_t{2048}}) {
      cases.push_back({.heads = 4, .kv_heads = 1, .dim = 128, .kv_len = kv_len, .capacity = capacity});
      cases.push_back({.heads = 6, .kv_heads = 2, .seq = 2, .dim = 64, .kv_len = std::max<std::int64_t>(kv_len, 2), .capacity = capacity});
    }
  }
  cases.push_back({.heads = 4, .kv_heads = 1, .dim = 64, .kv_len = 700, .capacity = 9000});  // fused only if it is wished for
  check_all(cases, 213);
}

TEST(CachedAttention, positions_within_the_cache) {
  std::vector<Case> cases;
  for (const std::int64_t position : {0, 1, 62, 63, 64, 127, 198, 200, 230}) {
    for (const std::int64_t seq : {1, 2}) cases.push_back({.heads = 4, .kv_heads = 2, .seq = seq, .dim = 64, .kv_len = 200, .position = position});
  }
  cases.push_back({.heads = 2, .kv_heads = 1, .dim = 64, .kv_len = 0, .position = 0, .sinks = {1, -kInf}});
  cases.push_back({.heads = 2, .kv_heads = 1, .seq = 3, .dim = 64, .kv_len = 2, .position = 0});
  check_all(cases, 214);
}

TEST(CachedAttention, windows) {
  std::vector<Case> cases;
  for (const std::int64_t window : {1, 64, 65, 300, 5000}) {
    for (const std::int64_t seq : {1, 2}) {
      cases.push_back({.heads = 4, .kv_heads = 2, .seq = seq, .dim = 64, .kv_len = 500, .window = window});
      cases.push_back({.heads = 3, .kv_heads = 1, .seq = seq, .dim = 96, .kv_len = 150, .capacity = 4096, .window = window});
    }
  }
  check_all(cases, 215);
}

TEST(CachedAttention, softcap_sinks_scale_and_rotations) {
  check_all({{.heads = 4, .kv_heads = 2, .dim = 64, .kv_len = 90, .softcap = 1, .scale = 3.0f},
             {.heads = 4, .kv_heads = 2, .dim = 128, .kv_len = 90, .softcap = 50},
             {.heads = 4, .kv_heads = 2, .dim = 64, .kv_len = 300, .sinks = {20, -20, -kInf, 0.5f}},
             {.heads = 4, .kv_heads = 2, .seq = 2, .dim = 128, .kv_len = 300, .sinks = {20, -20, -kInf, 0.5f}},
             {.heads = 4, .kv_heads = 2, .dim = 64, .kv_len = 90, .scale = -0.3f},
             {.heads = 4, .kv_heads = 2, .dim = 64, .kv_len = 90, .scale = 0.0f},
             {.heads = 4, .kv_heads = 2, .dim = 64, .kv_len = 90, .pairing = RopePairing::adjacent},
             {.heads = 4, .kv_heads = 2, .dim = 96, .kv_len = 90, .pairing = RopePairing::adjacent, .rotated = 32},
             {.heads = 4, .kv_heads = 2, .dim = 80, .kv_len = 90, .rotated = 20}},
            216);
}

TEST(CachedAttention, a_cache_in_f32) {
  check_all({{.heads = 4, .kv_heads = 2, .dim = 64, .kv_len = 90, .type = DType::f32},
             {.heads = 8, .kv_heads = 1, .seq = 3, .dim = 40, .kv_len = 20, .type = DType::f32}},
            217);
}

TEST(CachedAttention, a_cache_that_is_not_aligned) {
  Random random(218);
  SCOPED_TRACE(random.trace());
  const Case c{.heads = 8, .kv_heads = 2, .dim = 64, .kv_len = 90};
  const Data data = make_data(c, random);
  for (const Variant& variant : families()) {
    SCOPED_TRACE(variant.name);
    const Output got = attend(c, data, variant.device, Run::as_planned, false);
    compare(c, data, got);
    EXPECT_EQ(bits(got.y), bits(attend(c, data, variant.device, Run::one_by_one, false).y));
  }
}

TEST(CachedAttention, Plans) {
  for (const Variant& variant : families()) {
    SCOPED_TRACE(variant.name);
    const Device& device = variant.device;
    const CommandEncoder encoder = must(device.encoder());
    const auto make = [&](DType type, const Shape& s) { return must(device.allocate(type, s)); };
    const Tensor q = make(DType::f32, {1, 32, 128}), cache = make(DType::f16, {8, 512, 128});
    const auto plan = [&](const Tensor& queries, const Tensor& keys, auto change) {
      AttentionOptions options;
      KvAppendOptions append;
      change(options, append);
      return ops::plan_cached_attention(encoder, queries, keys, keys, options, append);
    };
    const auto as_is = [](auto&, auto&) {};
    const ops::CachedAttentionPlan usual = plan(q, cache, as_is);
    if (!gpu::on_gpu(encoder) || !gpu::on_hopper(encoder)) {
      EXPECT_EQ(usual.route, CachedAttentionRoute::two_ops);
      EXPECT_EQ(usual.lacks, "the device is no Hopper GPU");
      continue;
    }
    EXPECT_EQ(usual.route, CachedAttentionRoute::fused);
    EXPECT_EQ(usual.blocks, 8u);
    EXPECT_EQ(usual.kernel->name, "cached_attention_f16_128_rows4");
    EXPECT_EQ(usual.kernel->cluster.x, 8u);
    const ops::CachedAttentionPlan many = plan(q, make(DType::f16, {8, 8192, 128}), as_is);
    EXPECT_EQ(many.route, CachedAttentionRoute::two_ops);
    EXPECT_TRUE(many.can_be_fused);
    const auto refused = [&](const ops::CachedAttentionPlan& p) { return p.route == CachedAttentionRoute::two_ops && !p.can_be_fused && !p.lacks.empty(); };
    EXPECT_TRUE(refused(plan(make(DType::f32, {3, 32, 128}), cache, as_is))) << "twelve rows";
    EXPECT_TRUE(refused(plan(q, make(DType::f32, {8, 512, 128}), as_is)));
    EXPECT_TRUE(refused(plan(q, cache, [](auto& o, auto&) { o.causal = false; })));
    EXPECT_TRUE(refused(plan(q, cache, [](auto& o, auto&) { o.p0 = Scalar<std::int64_t>(0); })));
    EXPECT_TRUE(refused(plan(q, cache, [](auto& o, auto&) { o.ring_start = 1; })));
    EXPECT_TRUE(refused(plan(q, cache, [](auto&, auto& a) { a.ring = true; })));
    EXPECT_TRUE(refused(plan(q, cache, [&](auto& o, auto&) { o.lse = make(DType::f32, {32, 1}); })));
  }
}

TEST(CachedAttention, rings_positions_and_lse_are_those_of_the_operations) {
  Random random(219);
  for (const Variant& variant : families()) {
    SCOPED_TRACE(variant.name);
    const Device& device = variant.device;
    const std::int64_t heads = 4, kv_heads = 2, dim = 16, capacity = 40;
    RopeConfig config;
    config.head_dim = dim;
    const RopeTable table = must(RopeTable::make(device, config));
    const auto make = [&](DType type, const Shape& s) {
      const Tensor t = must(device.allocate(type, s));
      std::vector<float> values = random.uniform(static_cast<std::size_t>(t.elems()), -1, 1);
      must(device.upload(t, stored(type, values)));
      return t;
    };
    const Tensor k = make(DType::f16, {kv_heads, capacity, dim}), v = make(DType::f16, {kv_heads, capacity, dim}), positions = must(device.allocate(DType::i32, {1}));
    must(device.fill(positions, std::byte{1}));
    const Tensor q = make(DType::f32, {1, heads, dim}), k_new = make(DType::f32, {1, kv_heads, dim}), v_new = make(DType::f32, {1, kv_heads, dim});
    const Tensor q2 = must(device.allocate(DType::f32, {1, heads, dim})), k2_new = must(device.allocate(DType::f32, {1, kv_heads, dim}));
    const Tensor y = make(DType::f32, {1, heads, dim}), y2 = make(DType::f32, {1, heads, dim}), lse = make(DType::f32, {heads, 1}), lse2 = make(DType::f32, {heads, 1});
    AttentionOptions options;
    options.ring_start = 8;
    options.lse = lse;
    must(run(device, [&](CommandEncoder& e) -> Result<void> {
      MLXN_CHECK(e.copy(q2, q));
      MLXN_CHECK(e.copy(k2_new, k_new));
      MLXN_CHECK(cached_attention(e, q, k_new, v_new, positions, table, k, v, 47, capacity, y, options, {.ring = true}));
      options.lse = lse2;
      MLXN_CHECK(rope_append(e, q2, k2_new, v_new, positions, table, k, v, 47, {.ring = true}));
      return attention(e, must(q2.permute({1, 0, 2})), k, v, must(y2.permute({1, 0, 2})), capacity, options);
    }));
    for (const auto& [a, b] : {std::pair(y, y2), std::pair(lse, lse2)}) {
      std::vector<float> one(static_cast<std::size_t>(a.elems())), other(one.size());
      must(device.download(std::as_writable_bytes(std::span(one)), a));
      must(device.download(std::as_writable_bytes(std::span(other)), b));
      EXPECT_EQ(one, other);
      for (const float x : one) EXPECT_TRUE(std::isfinite(x));
    }
  }
}

TEST(CachedAttention, a_graph_is_replayed_with_growing_lengths) {
  for (const Variant& variant : families()) {
    SCOPED_TRACE(variant.name);
    Random random(220);
    const Device& device = variant.device;
    const std::int64_t heads = 8, kv_heads = 2, dim = 64, capacity = 140;
    const auto make = [&](DType type, const Shape& s) { return must(device.allocate(type, s)); };
    RopeConfig config;
    config.head_dim = dim;
    const RopeTable table = must(RopeTable::make(device, config));
    const Tensor q = make(DType::f32, {1, heads, dim}), k_new = make(DType::f32, {1, kv_heads, dim}), v_new = make(DType::f32, {1, kv_heads, dim});
    const Tensor positions = make(DType::i32, {1}), y = make(DType::f32, {1, heads, dim}), y2 = make(DType::f32, {1, heads, dim});
    const Tensor k = make(DType::f16, {kv_heads, capacity, dim}), v = make(DType::f16, {kv_heads, capacity, dim});
    const Tensor k2 = make(DType::f16, {kv_heads, capacity, dim}), v2 = make(DType::f16, {kv_heads, capacity, dim});
    for (const Tensor& t : {k, v, k2, v2}) must(device.fill(t, std::byte{0xff}));
    must(device.fill(positions, std::byte{0}));
    int position_id = -1, length_id = -1;
    Graph graph = must(Graph::record(device, [&](CommandEncoder& e) -> Result<void> {
      MLXN_TRY(const auto position, e.parameter("position", 0));
      MLXN_TRY(const auto length, e.parameter("kv_len", 1));
      position_id = position.parameter, length_id = length.parameter;
      return cached_attention(e, q, k_new, v_new, positions, table, k, v, position, length, y);
    }));
    for (std::int64_t step = 0; step < capacity; ++step) {
      std::vector<std::vector<float>> inputs;
      for (const Tensor& x : {q, k_new, v_new}) inputs.push_back(random.uniform(static_cast<std::size_t>(x.elems()), -1, 1));
      const auto upload = [&] {
        const Tensor* const to[] = {&q, &k_new, &v_new};
        for (std::size_t i = 0; i < 3; ++i) must(device.upload(*to[i], std::as_bytes(std::span(inputs[i]))));
      };
      upload();
      must(graph.set(position_id, step));
      must(graph.set(length_id, step + 1));
      must(graph.replay_and_wait());
      upload();
      must(run(device, [&](CommandEncoder& e) { return cached_attention(e, q, k_new, v_new, positions, table, k2, v2, step, step + 1, y2); }));
      std::vector<float> a(static_cast<std::size_t>(heads * dim)), b(a.size());
      must(device.download(std::as_writable_bytes(std::span(a)), y));
      must(device.download(std::as_writable_bytes(std::span(b)), y2));
      ASSERT_EQ(a, b) << "step " << step;
      for (const float x : a) ASSERT_TRUE(std::isfinite(x)) << "step " << step;
    }
    EXPECT_TRUE(fails_with(graph.set(position_id, capacity), ErrorCode::out_of_range, {}));
    EXPECT_TRUE(fails_with(graph.set(length_id, capacity + 1), ErrorCode::out_of_range, {}));
  }
}

TEST(CachedAttention, errors) {
  for (const Variant& variant : families()) {
    SCOPED_TRACE(variant.name);
    const Device& device = variant.device;
    RopeConfig config;
    config.head_dim = 16;
    const RopeTable table = must(RopeTable::make(device, config));
    const auto make = [&](DType type, const Shape& s) { return must(device.allocate(type, s)); };
    const Tensor q = make(DType::f32, {3, 4, 16}), k = make(DType::f32, {3, 2, 16}), v = make(DType::f32, {3, 2, 16});
    const Tensor kc = make(DType::f16, {2, 10, 16}), vc = make(DType::f16, {2, 10, 16}), positions = make(DType::i32, {3}), y = make(DType::f32, {3, 4, 16});
    const auto attempt = [&](const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& p, const Tensor& d, const Tensor& e, const Tensor& out,
                             std::int64_t position = 7, std::int64_t kv_len = 10, const AttentionOptions& options = {}) {
      CommandEncoder encoder = must(device.encoder());
      return cached_attention(encoder, a, b, c, p, table, d, e, position, kv_len, out, options);
    };
    const auto with = [&](auto change) {
      AttentionOptions options;
      change(options);
      return attempt(q, k, v, positions, kc, vc, y, 7, 10, options);
    };
    EXPECT_TRUE(attempt(q, k, v, positions, kc, vc, y));
    EXPECT_TRUE(fails_with(attempt({}, k, v, positions, kc, vc, y), ErrorCode::invalid_argument, {"cached_attention", "q"}));
    EXPECT_TRUE(fails_with(attempt(q, k, v, positions, kc, vc, {}), ErrorCode::invalid_argument, {"cached_attention", "y"}));
    EXPECT_TRUE(fails_with(attempt(make(DType::f16, {3, 4, 16}), k, v, positions, kc, vc, y), ErrorCode::bad_dtype, {"q", "f16"}));
    EXPECT_TRUE(fails_with(attempt(q, k, v, make(DType::f32, {3}), kc, vc, y), ErrorCode::bad_dtype, {"positions"}));
    EXPECT_TRUE(fails_with(attempt(q, make(DType::f32, {3, 3, 16}), make(DType::f32, {3, 3, 16}), positions, make(DType::f16, {3, 10, 16}),
                                   make(DType::f16, {3, 10, 16}), y),
                           ErrorCode::bad_shape, {"cached_attention", "4 heads", "3"}));
    EXPECT_TRUE(fails_with(attempt(q, k, make(DType::f32, {3, 2, 8}), positions, kc, make(DType::f16, {2, 10, 8}), y), ErrorCode::bad_shape, {"v_cache"}));
    EXPECT_TRUE(fails_with(attempt(q, k, v, positions, kc, make(DType::f32, {2, 10, 16}), y), ErrorCode::bad_dtype, {"v_cache is f32", "f16"}));
    EXPECT_TRUE(fails_with(attempt(q, k, v, positions, kc, vc, make(DType::f16, {3, 4, 16})), ErrorCode::bad_dtype, {"y is f16"}));
    EXPECT_TRUE(fails_with(attempt(q, k, v, positions, kc, vc, make(DType::f32, {4, 3, 16})), ErrorCode::bad_shape, {"y is [4, 3, 16]"}));
    EXPECT_TRUE(fails_with(attempt(q, k, v, positions, kc, vc, y, 8), ErrorCode::out_of_range, {"position is 8"}));
    EXPECT_TRUE(fails_with(attempt(q, k, v, positions, kc, vc, y, 7, 11), ErrorCode::out_of_range, {"kv_len is 11"}));
    EXPECT_TRUE(fails_with(attempt(q, k, v, positions, kc, vc, q), ErrorCode::aliased, {"y", "q"}));
    EXPECT_TRUE(fails_with(attempt(q, k, k, positions, kc, vc, y), ErrorCode::aliased, {"k_new", "v_new"}));
    const Tensor both = make(DType::f32, {3, 6, 16});
    EXPECT_TRUE(fails_with(attempt(q, must(both.slice(1, 4, 6)), v, positions, kc, vc, must(both.slice(1, 1, 5))), ErrorCode::aliased, {"y", "k_new"}));
    EXPECT_TRUE(fails_with(attempt(q, k, must(both.slice(1, 4, 6)), positions, kc, vc, must(both.slice(1, 1, 5))), ErrorCode::aliased, {"y", "v_new"}));
    EXPECT_TRUE(fails_with(with([](auto& o) { o.window = 0; }), ErrorCode::invalid_argument, {"cached_attention", "window is 0"}));
    EXPECT_TRUE(fails_with(with([](auto& o) { o.softcap = -1; }), ErrorCode::invalid_argument, {"softcap is -1", "at least 0"}));
    EXPECT_TRUE(fails_with(with([&](auto& o) { o.sinks = make(DType::f32, {3}); }), ErrorCode::bad_shape, {"sinks is [3]", "[4]"}));
    EXPECT_TRUE(fails_with(with([&](auto& o) { o.sinks = must(must(k.reshape({96})).slice(0, 0, 4)); }), ErrorCode::aliased, {"k_new", "sinks"}));
    const RopeTable empty;
    CommandEncoder encoder = must(device.encoder());
    EXPECT_TRUE(fails_with(cached_attention(encoder, q, k, v, positions, empty, kc, vc, 7, 10, y), ErrorCode::invalid_argument, {"cached_attention", "table"}));
    AttentionOptions with_lse;
    with_lse.lse = make(DType::f32, {4, 3});
    EXPECT_TRUE(fails_with(ops::encode_cached_attention(encoder, q, k, v, positions, table, kc, vc, 7, 10, y, with_lse, {}, CachedAttentionRoute::fused),
                           ErrorCode::unsupported, {"cached_attention"}));
    const auto none = [](const Tensor& t) { return must(t.slice(0, 0, 0)); };
    EXPECT_TRUE(attempt(none(q), none(k), none(v), none(positions), kc, vc, none(y)));
    EXPECT_TRUE(attempt(must(q.slice(1, 0, 0)), k, v, positions, kc, vc, must(y.slice(1, 0, 0))));
  }
}

// Not a test of anything: what a launch takes by route, length and shape, in a graph of many. Run on a GPU with
// --gtest_also_run_disabled_tests --gtest_filter='*DISABLED_times*'.
TEST(CachedAttention, DISABLED_times) {
  struct Model {
    std::int64_t heads, kv_heads, dim;
  };
  for (const Variant& variant : families()) {
    const Device& device = variant.device;
    if (device.capabilities().backend != "cuda") continue;
    for (const Model& m : {Model{32, 8, 128}, Model{32, 8, 64}, Model{28, 4, 128}, Model{32, 32, 96}, Model{16, 2, 128}}) {
      for (const std::int64_t bound : {256, 512, 1024, 2048, 4096, 8192}) {
        constexpr int kLayers = 32, kOps = 4 * kLayers, kReplays = 20;
        const auto make = [&](DType type, const Shape& s) {
          const Tensor t = must(device.allocate(type, s));
          must(device.fill(t, std::byte{0}));
          return t;
        };
        RopeConfig config;
        config.head_dim = m.dim;
        const RopeTable table = must(RopeTable::make(device, config));
        const Tensor q = make(DType::f32, {1, m.heads, m.dim}), k_new = make(DType::f32, {1, m.kv_heads, m.dim}), v_new = make(DType::f32, {1, m.kv_heads, m.dim});
        const Tensor positions = make(DType::i32, {1}), y = make(DType::f32, {1, m.heads, m.dim});
        std::vector<Tensor> caches;
        for (int i = 0; i < 2 * kLayers; ++i) caches.push_back(make(DType::f16, {m.kv_heads, bound, m.dim}));
        for (const auto& [name, route] : {std::pair("fused", CachedAttentionRoute::fused), std::pair("two_ops", CachedAttentionRoute::two_ops)}) {
          int position_id = -1, length_id = -1;
          Graph graph = must(Graph::record(device, [&](CommandEncoder& e) -> Result<void> {
            MLXN_TRY(const auto position, e.parameter("position", 0));
            MLXN_TRY(const auto length, e.parameter("kv_len", 1));
            position_id = position.parameter, length_id = length.parameter;
            for (std::size_t i = 0; i < kOps; ++i) {
              MLXN_CHECK(ops::encode_cached_attention(e, q, k_new, v_new, positions, table, caches[i % kLayers * 2], caches[i % kLayers * 2 + 1],
                                                      position, length, y, {}, {}, route));
            }
            return {};
          }));
          for (const std::int64_t length : {bound / 2 + 1, bound}) {
            must(graph.set(position_id, length - 1));
            must(graph.set(length_id, length));
            must(graph.replay_and_wait());
            std::vector<double> times;
            for (int i = 0; i < kReplays; ++i) {
              const auto begin = std::chrono::steady_clock::now();
              must(graph.replay_and_wait());
              times.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count() / kOps);
            }
            std::sort(times.begin(), times.end());
            std::printf("%2d/%2d heads of %3d, bound %5d, length %5d, %-7s %6.2f us\n", static_cast<int>(m.heads), static_cast<int>(m.kv_heads),
                        static_cast<int>(m.dim), static_cast<int>(bound), static_cast<int>(length), name, times[times.size() / 2]);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace mlxn::test::cached_attention_suite
