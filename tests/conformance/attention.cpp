#include "ops/attention/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "mlxn/graph.h"
#include "mlxn/ops/kv_append.h"
#include "ops/attention/args.h"
#include "tests/conformance/variants.h"
#include "tests/reference/attention.h"

namespace mlxn::test::attention_suite {
namespace {

using ops::AttentionRoute;
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Case {
  std::int64_t heads = 1, kv_heads = 1, seq = 1, dim = 1, kv_len = 1;
  std::int64_t capacity = 0;  // 0: kv_len and a few
  DType type = DType::f32;
  std::int64_t batch = 0;  // 0: no such axis
  bool causal = true;
  std::int64_t window = -1;
  std::optional<std::int64_t> p0{};
  std::int64_t ring_start = 0;
  float softcap = 0;
  std::optional<float> scale{};
  std::vector<float> sinks{};
  float range = 1;
  bool strict = true;  // also hold the fixed bounds for inputs of size 1

  [[nodiscard]] std::int64_t slots() const { return capacity != 0 ? capacity : kv_len + 5; }
  [[nodiscard]] std::int64_t batches() const { return batch == 0 ? 1 : batch; }
  [[nodiscard]] std::string text() const {
    return std::to_string(heads) + "/" + std::to_string(kv_heads) + " heads, seq " + std::to_string(seq) + ", dim " +
           std::to_string(dim) + ", kv_len " + std::to_string(kv_len) + ", window " + std::to_string(window) + ", ring " +
           std::to_string(ring_start) + ", " + std::string(to_string(type));
  }
};

struct Data {
  std::vector<float> q, k, v;  // k, v [batch, kv_heads, capacity, dim] as stored, NaN in slots without a key
};

Data make_data(const Case& c, Random& random) {
  Data data;
  data.q = random.uniform(static_cast<std::size_t>(c.batches() * c.heads * c.seq * c.dim), -c.range, c.range);
  for (std::vector<float>* x : {&data.k, &data.v}) {
    *x = rounded(c.type, random.uniform(static_cast<std::size_t>(c.batches() * c.kv_heads * c.slots() * c.dim), -c.range, c.range));
    for (std::size_t i = 0; i < x->size(); ++i) {
      if (static_cast<std::int64_t>(i) / c.dim % c.slots() >= c.kv_len) (*x)[i] = kNan;
    }
  }
  return data;
}

Shape shape(const Case& c, std::int64_t heads, std::int64_t rows, std::int64_t dim) {
  return c.batch == 0 ? Shape{heads, rows, dim} : Shape{c.batch, heads, rows, dim};
}

struct Output {
  std::vector<float> y, lse;
};

/// aligned: rows begin at addresses that wide loads take, if head_dim lets them.
Output attend(const Case& c, const Data& data, const Variant& variant, AttentionRoute route, bool aligned = false) {
  const Device& device = variant.device;
  Guarded q(device, DType::f32, shape(c, c.heads, c.seq, c.dim), aligned ? GuardedOptions{4, 0} : GuardedOptions{3, 4});
  Guarded k(device, c.type, shape(c, c.kv_heads, c.slots(), c.dim),
            aligned ? GuardedOptions{8, 0} : GuardedOptions{c.dim % 2, block_bytes(c.type)});
  Guarded v(device, c.type, shape(c, c.kv_heads, c.slots(), c.dim));
  Guarded y(device, DType::f32, shape(c, c.heads, c.seq, c.dim), {2, 4});
  Guarded lse(device, DType::f32, c.batch == 0 ? Shape{c.heads, c.seq} : Shape{c.batch, c.heads, c.seq}, {0, 4});
  Guarded sinks(device, DType::f32, {c.heads});
  write(q, DType::f32, data.q);
  write(k, c.type, data.k);
  write(v, c.type, data.v);
  AttentionOptions options;
  options.scale = c.scale;
  options.causal = c.causal;
  options.window = c.window;
  if (c.p0) options.p0 = Scalar<std::int64_t>(*c.p0);
  options.ring_start = c.ring_start;
  options.softcap = c.softcap;
  if (!c.sinks.empty()) {
    write(sinks, DType::f32, c.sinks);
    options.sinks = sinks.tensor();
  }
  options.lse = lse.tensor();
  must(run(device, [&](CommandEncoder& e) {
    return ops::encode_attention(e, q.tensor(), k.tensor(), v.tensor(), y.tensor(), c.kv_len, options, variant.isa, route);
  }));
  EXPECT_TRUE(y.intact());
  EXPECT_TRUE(lse.intact());
  EXPECT_TRUE(q.unchanged());
  EXPECT_TRUE(k.unchanged());
  EXPECT_TRUE(v.unchanged());
  return {y.read(), lse.read()};
}

std::vector<AttentionRoute> routes(const Case& c) {
  std::vector<AttentionRoute> all{AttentionRoute::tiled};
  if (c.heads / c.kv_heads * c.seq <= ops::kAttentionSplitRows) all.push_back(AttentionRoute::split);
  if (c.type == DType::f16) all.push_back(AttentionRoute::portable_tiled);
  return all;
}

/// Bits of a float vector, so that NaN equals itself.
std::vector<std::uint32_t> bits(const std::vector<float>& x) {
  std::vector<std::uint32_t> b(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) b[i] = std::bit_cast<std::uint32_t>(x[i]);
  return b;
}

std::vector<reference::AttentionRow> wanted_rows(const Case& c, const Data& data) {
  reference::AttentionProblem p;
  p.heads = c.heads, p.kv_heads = c.kv_heads, p.seq = c.seq, p.head_dim = c.dim, p.kv_len = c.kv_len;
  p.p0 = c.p0 ? *c.p0 : c.kv_len - c.seq;
  p.causal = c.causal, p.window = c.window, p.softcap = c.softcap;
  p.scale = c.scale ? double{*c.scale} : 1 / std::sqrt(static_cast<double>(c.dim));
  std::vector<reference::AttentionRow> rows;
  for (std::int64_t b = 0; b < c.batches(); ++b) {
    for (std::int64_t h = 0; h < c.heads; ++h) {
      const std::int64_t head = (b * c.kv_heads + h / (c.heads / c.kv_heads)) * c.slots();
      const auto row_of = [&](const std::vector<float>& x) {
        return [&, head](std::int64_t j) { return &x[static_cast<std::size_t>((head + (c.ring_start + j) % c.slots()) * c.dim)]; };
      };
      for (std::int64_t i = 0; i < c.seq; ++i) {
        const float* q = &data.q[static_cast<std::size_t>(((b * c.heads + h) * c.seq + i) * c.dim)];
        rows.push_back(reference::attention_row(p, i, q, row_of(data.k), row_of(data.v),
                                                c.sinks.empty() ? nullptr : &c.sinks[static_cast<std::size_t>(h)]));
      }
    }
  }
  return rows;
}

void compare(const Case& c, const Output& got, const std::vector<reference::AttentionRow>& wanted) {
  // A logit has dim roundings, an output kv_len, and each passes a scale, a softcap, an exponential and a quotient. Every tile
  // may correct the sums so far once more: a difference, an exponential, a product; and a GPU may merge it as a part of its own.
  const std::int64_t tiles = c.kv_len / ops::kAttentionTile + 1;
  const Tolerance tolerance{.terms = static_cast<double>(c.dim + c.kv_len + 8 * tiles + 16)};
  const auto dim = static_cast<std::size_t>(c.dim);
  for (std::size_t r = 0; r < wanted.size(); ++r) {
    ASSERT_TRUE(is_near(got.lse[r], wanted[r].lse, tolerance)) << "lse of row " << r;
    const bool unseen = std::all_of(wanted[r].y.begin(), wanted[r].y.end(), [](const Reference& y) { return y.magnitude == 0; });
    for (std::size_t d = 0; d < dim; ++d) {
      const Reference& y = wanted[r].y[d];
      const float value = got.y[r * dim + d];
      ASSERT_TRUE(is_near(value, y, tolerance)) << "row " << r << " element " << d;
      if (c.strict) {
        ASSERT_LE(std::fabs(double{value} - y.value), 2e-5 + 1e-4 * std::fabs(y.value)) << "row " << r << " element " << d;
      }
      if (unseen) {
        ASSERT_EQ(std::bit_cast<std::uint32_t>(value), 0u) << "row " << r << " sees nothing";
      }
    }
  }
}

void check(const Case& c, Random& random) {
  const Data data = make_data(c, random);
  const std::vector<reference::AttentionRow> wanted = wanted_rows(c, data);
  for (const AttentionRoute route : routes(c)) {
    std::vector<std::pair<std::optional<CpuIsa>, Output>> first;  // of each instruction set with any number of threads, and GPU
    for (const Variant& v : variants()) {
      // Elsewhere it is the route `tiled`.
      if (route == AttentionRoute::portable_tiled && v.device.capabilities().backend != "cuda") continue;
      SCOPED_TRACE(c.text() + ", " + v.name + (route == AttentionRoute::split ? " split" : route == AttentionRoute::tiled ? " tiled" : " portable"));
      const Output got = attend(c, data, v, route);
      compare(c, got, wanted);
      if (testing::Test::HasFatalFailure()) return;
      const auto same = std::find_if(first.begin(), first.end(), [&](const auto& x) { return v.isa && x.first == v.isa; });
      if (same == first.end()) {
        first.emplace_back(v.isa, got);
        if (c.dim % 8 != 0) continue;
        const Output wide = attend(c, data, v, route, true);
        ASSERT_EQ(bits(got.y), bits(wide.y)) << "bits depend on the alignment";
        ASSERT_EQ(bits(got.lse), bits(wide.lse));
        continue;
      }
      ASSERT_EQ(bits(got.y), bits(same->second.y)) << "bits depend on the number of threads";
      ASSERT_EQ(bits(got.lse), bits(same->second.lse));
    }
  }
}

void check_all(const std::vector<Case>& cases, std::uint64_t seed) {
  Random random(seed);
  SCOPED_TRACE(random.trace());
  for (Case c : cases) {
    for (const DType type : {DType::f32, DType::f16}) {
      c.type = type;
      check(c, random);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(Attention, shapes_of_models) {
  check_all({{.heads = 4, .kv_heads = 4, .seq = 32, .dim = 64, .kv_len = 32},
             {.heads = 16, .kv_heads = 8, .seq = 32, .dim = 64, .kv_len = 32},
             {.heads = 16, .kv_heads = 2, .seq = 32, .dim = 64, .kv_len = 32},
             {.heads = 4, .kv_heads = 4, .seq = 1, .dim = 64, .kv_len = 64},
             {.heads = 16, .kv_heads = 8, .seq = 1, .dim = 64, .kv_len = 128},
             {.heads = 4, .kv_heads = 4, .seq = 128, .dim = 32, .kv_len = 128},
             {.heads = 4, .kv_heads = 2, .seq = 16, .dim = 128, .kv_len = 16},
             {.heads = 4, .kv_heads = 2, .seq = 40, .dim = 96, .kv_len = 60},
             {.heads = 4, .kv_heads = 4, .seq = 16, .dim = 32, .kv_len = 16, .batch = 2},
             {.heads = 4, .kv_heads = 4, .seq = 1, .dim = 256, .kv_len = 32, .capacity = 64, .scale = 0.0625f},
             {.heads = 4, .kv_heads = 4, .seq = 1, .dim = 256, .kv_len = 64, .capacity = 128, .window = 16, .strict = false},
             {.heads = 16, .kv_heads = 8, .seq = 1, .dim = 512, .kv_len = 48, .capacity = 64},
             {.heads = 2, .kv_heads = 2, .seq = 50, .dim = 256, .kv_len = 64},
             {.heads = 8, .kv_heads = 2, .seq = 70, .dim = 256, .kv_len = 70},
             {.heads = 2, .kv_heads = 2, .seq = 64, .dim = 512, .kv_len = 72, .scale = 4 / std::sqrt(512.0f)}},
            61);
}

TEST(Attention, rows_and_lengths) {
  std::vector<Case> cases;
  for (const std::int64_t seq : {1, 2, 7, 8, 9, 31, 33}) {
    const bool few = wants_small_sizes() && seq != 1 && seq != 9;  // rows of one route each that see many tiles of keys
    std::vector<std::int64_t> lengths = {seq, seq + 1, 17, 40, 48, 1000};
    if (few) lengths = {seq + 1, 48, 130};
    for (const std::int64_t kv_len : lengths) {
      cases.push_back({.heads = 2, .kv_heads = 1, .seq = seq, .dim = 24, .kv_len = kv_len});
    }
    cases.push_back({.heads = 1, .kv_heads = 1, .seq = seq, .dim = 16, .kv_len = few ? 257 : 4097});
  }
  check_all(cases, 62);
}

TEST(Attention, long_caches) {
  // Beyond 8192 slots the parts of a GPU have more than one tile.
  check_all({{.heads = 4, .kv_heads = 2, .seq = 1, .dim = 16, .kv_len = 700, .capacity = 20000},
             {.heads = 4, .kv_heads = 2, .seq = 3, .dim = 72, .kv_len = 600, .capacity = 9000},
             {.heads = 2, .kv_heads = 1, .seq = 3, .dim = 16, .kv_len = 1300, .capacity = 20000, .window = 300},
             {.heads = 1, .kv_heads = 1, .seq = 3, .dim = 136, .kv_len = 500, .capacity = 20000, .causal = false, .window = 300},
             {.heads = 2, .kv_heads = 1, .seq = 2, .dim = 8, .kv_len = 8300, .capacity = 8300, .window = 8250, .ring_start = 5000}},
            75);
}

TEST(Attention, head_dimensions) {
  std::vector<Case> cases;
  std::vector<std::int64_t> dims = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 40, 63, 65, 72, 80, 96, 112, 127, 192, 511};
  if (wants_small_sizes()) dims = {1, 4, 7, 16, 33, 65, 72, 96, 127, 192, 511};
  for (const std::int64_t dim : dims) {
    cases.push_back({.heads = 2, .kv_heads = 1, .seq = 9, .dim = dim, .kv_len = 70});
    cases.push_back({.heads = 3, .kv_heads = 1, .seq = 14, .dim = dim, .kv_len = 20});
    cases.push_back({.heads = 4, .kv_heads = 2, .seq = 1, .dim = dim, .kv_len = 70});
  }
  check_all(cases, 63);
}

TEST(Attention, groups_of_heads) {
  std::vector<Case> cases;
  for (const std::int64_t group : {1, 2, 3, 4, 5, 7, 8, 16, 20}) {
    for (const std::int64_t seq : {1, 5}) {
      cases.push_back({.heads = 2 * group, .kv_heads = 2, .seq = seq, .dim = 40, .kv_len = wants_small_sizes() ? 90 : 300});
    }
  }
  check_all(cases, 64);
}

TEST(Attention, windows) {
  std::vector<Case> cases;
  for (const std::int64_t window : {1, 2, 31, 32, 33, 64, 100, 130, 1024}) {
    cases.push_back({.heads = 2, .kv_heads = 1, .seq = 40, .dim = 32, .kv_len = 130, .window = window});
    cases.push_back({.heads = 2, .kv_heads = 1, .seq = 3, .dim = 32, .kv_len = 700, .window = window});
    cases.push_back({.heads = 1, .kv_heads = 1, .seq = 20, .dim = 16, .kv_len = 50, .causal = false, .window = window});
  }
  check_all(cases, 65);
}

TEST(Attention, more_queries_than_keys_and_given_positions) {
  check_all({{.heads = 2, .kv_heads = 2, .seq = 70, .dim = 32, .kv_len = 20},
             {.heads = 2, .kv_heads = 1, .seq = 9, .dim = 32, .kv_len = 2},
             {.heads = 2, .kv_heads = 1, .seq = 9, .dim = 32, .kv_len = 60, .p0 = 10},
             {.heads = 2, .kv_heads = 1, .seq = 40, .dim = 32, .kv_len = 60, .p0 = -5},
             {.heads = 2, .kv_heads = 1, .seq = 40, .dim = 32, .kv_len = 60, .window = 8, .p0 = 45},
             {.heads = 2, .kv_heads = 1, .seq = 4, .dim = 32, .kv_len = 60, .window = 8, .p0 = 1000000},
             {.heads = 1, .kv_heads = 1, .seq = 70, .dim = 16, .kv_len = 320, .window = 70, .p0 = 330},
             {.heads = 1, .kv_heads = 1, .seq = 20, .dim = 16, .kv_len = 320, .window = 70, .p0 = 370},
             {.heads = 2, .kv_heads = 1, .seq = 4, .dim = 32, .kv_len = 60, .p0 = -(std::int64_t{1} << 40)},
             {.heads = 2, .kv_heads = 1, .seq = 4, .dim = 32, .kv_len = 60, .window = std::numeric_limits<std::int64_t>::max(),
              .p0 = std::int64_t{1} << 40},
             {.heads = 2, .kv_heads = 1, .seq = 33, .dim = 32, .kv_len = 100, .causal = false},
             {.heads = 2, .kv_heads = 1, .seq = 33, .dim = 8, .kv_len = 0, .capacity = 7},
             {.heads = 2, .kv_heads = 1, .seq = 2, .dim = 8, .kv_len = 0, .capacity = 7, .sinks = {1, -kInf}}},
            66);
}

TEST(Attention, ring_at_every_start) {
  for (std::int64_t start = 0; start < 40; ++start) {
    Random random(67);
    Case c{.heads = 4, .kv_heads = 2, .seq = start % 2 == 0 ? 3 : 33, .dim = 16, .kv_len = 40, .capacity = 40};
    c.type = start % 3 == 0 ? DType::f16 : DType::f32;
    const Data straight = make_data(c, random);
    Data turned = straight;
    for (auto [from, to] : {std::pair(&straight.k, &turned.k), std::pair(&straight.v, &turned.v)}) {
      for (std::int64_t i = 0; i < 2 * 40 * 16; ++i) {
        const std::int64_t h = i / 640, j = i / 16 % 40, d = i % 16;
        (*to)[static_cast<std::size_t>((h * 40 + (start + j) % 40) * 16 + d)] = (*from)[static_cast<std::size_t>(i)];
      }
    }
    Case ring = c;
    ring.ring_start = start;
    for (const Variant& v : variants()) {
      for (const AttentionRoute route : routes(c)) {
        EXPECT_EQ(bits(attend(ring, turned, v, route).y), bits(attend(c, straight, v, route).y)) << ring.text() << ", " << v.name;
      }
    }
  }
  check_all({{.heads = 2, .kv_heads = 1, .seq = 2, .dim = 16, .kv_len = 600, .capacity = 600, .window = 500, .ring_start = 77}}, 68);
}

TEST(Attention, softcap_sinks_and_scale) {
  std::vector<Case> cases;
  for (const std::int64_t seq : {1, 40}) {
    for (const float softcap : {1.0f, 30.0f, 50.0f}) {
      cases.push_back({.heads = 4, .kv_heads = 2, .seq = seq, .dim = 32, .kv_len = 90, .softcap = softcap, .scale = 3.0f, .strict = false});
    }
    cases.push_back({.heads = 4, .kv_heads = 2, .seq = seq, .dim = 32, .kv_len = 300, .sinks = {20, -20, -kInf, 0.5f}});
    cases.push_back({.heads = 2, .kv_heads = 2, .seq = seq + 20, .dim = 32, .kv_len = 10, .sinks = {3, -kInf}});
    cases.push_back({.heads = 2, .kv_heads = 1, .seq = seq, .dim = 256, .kv_len = 300, .scale = 1.0f, .range = 1.7320508f, .strict = false});
    cases.push_back({.heads = 2, .kv_heads = 1, .seq = seq, .dim = 16, .kv_len = 70, .scale = -0.3f});
    cases.push_back({.heads = 2, .kv_heads = 1, .seq = seq, .dim = 16, .kv_len = 70, .scale = 0.0f});
    cases.push_back({.heads = 2, .kv_heads = 1, .seq = seq, .dim = 16, .kv_len = 300, .range = 40, .strict = false});
  }
  check_all(cases, 69);
}

TEST(Attention, keys_that_a_row_does_not_see_never_influence_it) {
  Random random(70);
  for (const auto& [seq, type] : {std::pair<std::int64_t, DType>{6, DType::f32}, {100, DType::f32}, {100, DType::f16}}) {
    for (const std::int64_t window : {std::int64_t{-1}, std::int64_t{9}}) {
      Case c{.heads = 2, .kv_heads = 1, .seq = seq, .dim = 20, .kv_len = 150, .type = type, .window = window};
      const Data clean = make_data(c, random);
      const std::int64_t poisoned = 147;
      for (const float poison : {kNan, kInf, -kInf}) {
        Data data = clean;
        for (std::int64_t d = 0; d < c.dim; ++d) {
          data.k[static_cast<std::size_t>(poisoned * c.dim + d)] = poison;
          data.v[static_cast<std::size_t>(poisoned * c.dim + d)] = poison;
        }
        for (const Variant& v : variants()) {
          for (const AttentionRoute route : routes(c)) {
            SCOPED_TRACE(v.name);
            const std::vector<float> y = attend(c, data, v, route).y, before = attend(c, clean, v, route).y;
            for (std::int64_t i = 0; i < c.seq; ++i) {
              const std::int64_t position = c.kv_len - c.seq + i;
              const bool sees = poisoned <= position && (window < 0 || position - poisoned < window);
              for (std::int64_t h = 0; h < c.heads; ++h) {
                for (std::int64_t d = 0; d < c.dim; ++d) {
                  const auto at = static_cast<std::size_t>((h * c.seq + i) * c.dim + d);
                  if (!sees) {
                    ASSERT_EQ(y[at], before[at]) << c.text() << " row " << i;
                  } else if (std::isnan(poison)) {
                    ASSERT_TRUE(std::isnan(y[at])) << c.text() << " row " << i;
                  }
                }
              }
            }
          }
        }
      }
    }
  }
}

TEST(Attention, split_and_tiled_agree) {
  Random random(71);
  for (const std::int64_t kv_len : {5, 256, 257, 1500}) {
    const Case c{.heads = 8, .kv_heads = 2, .seq = 4, .dim = 64, .kv_len = kv_len};
    const Data data = make_data(c, random);
    for (const Variant& v : variants()) {
      SCOPED_TRACE(v.name);
      const Output tiled = attend(c, data, v, AttentionRoute::tiled), split = attend(c, data, v, AttentionRoute::split);
      for (std::size_t i = 0; i < tiled.y.size(); ++i) ASSERT_NEAR(tiled.y[i], split.y[i], 1e-6);
    }
  }
}

TEST(Attention, token_major_views) {
  // q and y are [seq, heads, head_dim] in memory, keys and values two halves of one buffer.
  Random random(72);
  const Case c{.heads = 4, .kv_heads = 2, .seq = 11, .dim = 24, .kv_len = 30, .capacity = 30};
  const Data data = make_data(c, random);
  const auto wanted = wanted_rows(c, data);
  for (const Variant& variant : families()) {
    SCOPED_TRACE(variant.name);
    const Device& device = variant.device;
    Guarded q(device, DType::f32, {11, 4, 24}), y(device, DType::f32, {11, 4, 24}), kv(device, DType::f32, {2, 30, 48});
    std::vector<float> rows(data.q.size()), both(kv.read().size());
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i / 24 % 11 * 96 + i / 264 * 24 + i % 24] = data.q[i];
    for (std::size_t i = 0; i < data.k.size(); ++i) {
      both[i / 24 * 48 + i % 24] = data.k[i];
      both[i / 24 * 48 + 24 + i % 24] = data.v[i];
    }
    write(q, DType::f32, rows);
    write(kv, DType::f32, both);
    must(run(device, [&](CommandEncoder& e) {
      return attention(e, must(q.tensor().permute({1, 0, 2})), must(kv.tensor().slice(2, 0, 24)), must(kv.tensor().slice(2, 24, 48)),
                       must(y.tensor().permute({1, 0, 2})), c.kv_len);
    }));
    EXPECT_TRUE(y.intact());
    const std::vector<float> got = y.read();
    Output ordered{std::vector<float>(got.size()), {}};
    for (std::size_t i = 0; i < got.size(); ++i) ordered.y[i] = got[i / 24 % 11 * 96 + i / 264 * 24 + i % 24];
    for (const reference::AttentionRow& row : wanted) ordered.lse.push_back(static_cast<float>(row.lse.value));
    compare(c, ordered, wanted);
  }
}

TEST(Attention, a_graph_is_replayed_with_growing_lengths) {
  for (const Variant& variant : families()) {
    SCOPED_TRACE(variant.name);
    Random random(73);
    const Device& device = variant.device;
    const std::int64_t heads = 4, kv_heads = 2, dim = 32, capacity = variant.isa ? 300 : 140;
    const auto make = [&](DType type, const Shape& s) { return must(device.allocate(type, s)); };
    const Tensor q = make(DType::f32, {heads, 1, dim}), y = make(DType::f32, {heads, 1, dim}), y2 = make(DType::f32, {heads, 1, dim});
    const Tensor k_new = make(DType::f32, {1, kv_heads, dim}), v_new = make(DType::f32, {1, kv_heads, dim});
    const Tensor k = make(DType::f16, {kv_heads, capacity, dim}), v = make(DType::f16, {kv_heads, capacity, dim});
    int position_id = -1, length_id = -1;
    Graph graph = must(Graph::record(device, [&](CommandEncoder& e) -> Result<void> {
      MLXN_TRY(const auto position, e.parameter("position", 0));
      MLXN_TRY(const auto length, e.parameter("kv_len", 1));
      position_id = position.parameter, length_id = length.parameter;
      MLXN_CHECK(kv_append(e, k_new, v_new, k, v, position));
      return attention(e, q, k, v, y, length);
    }));
    for (std::int64_t step = 0; step < capacity; ++step) {
      for (const Tensor& x : {q, k_new, v_new}) {
        const std::vector<float> values = random.uniform(static_cast<std::size_t>(x.elems()), -1, 1);
        must(device.upload(x, std::as_bytes(std::span(values))));
      }
      must(graph.set(position_id, step));
      must(graph.set(length_id, step + 1));
      must(graph.replay_and_wait());
      if (step % 37 != 0 && step + 1 != capacity) continue;
      must(run(device, [&](CommandEncoder& e) { return attention(e, q, k, v, y2, step + 1); }));
      std::vector<float> a(static_cast<std::size_t>(heads * dim)), b(a.size());
      must(device.download(std::as_writable_bytes(std::span(a)), y));
      must(device.download(std::as_writable_bytes(std::span(b)), y2));
      for (std::size_t i = 0; i < a.size(); ++i) ASSERT_EQ(a[i], b[i]) << "step " << step;
      ASSERT_NE(a[0], 0.0f);
    }
    EXPECT_TRUE(fails_with(graph.set(position_id, capacity), ErrorCode::out_of_range, {}));
    EXPECT_TRUE(fails_with(graph.set(length_id, capacity + 1), ErrorCode::out_of_range, {}));
  }
}

TEST(Attention, a_graph_takes_lengths_positions_and_ring_starts) {
  for (const Variant& variant : families()) {
    const Device& device = variant.device;
    for (const auto& [seq, window, type] : {std::tuple<std::int64_t, std::int64_t, DType>{3, -1, DType::f32}, {3, 100, DType::f32},
                                            {40, -1, DType::f32}, {40, 50, DType::f32}, {40, 50, DType::f16}}) {
      SCOPED_TRACE(variant.name + ", seq " + std::to_string(seq) + ", window " + std::to_string(window));
      Random random(74);
      const std::int64_t heads = 2, dim = 16, capacity = 300;
      const Case c{.heads = heads, .kv_heads = 1, .seq = seq, .dim = dim, .kv_len = capacity, .capacity = capacity, .type = type};
      const Data data = make_data(c, random);
      Guarded q(device, DType::f32, {heads, seq, dim}), k(device, type, {1, capacity, dim}), v(device, type, {1, capacity, dim});
      Guarded y(device, DType::f32, {heads, seq, dim}), y2(device, DType::f32, {heads, seq, dim});
      write(q, DType::f32, data.q);
      write(k, type, data.k);
      write(v, type, data.v);
      Graph graph = must(Graph::record(device, [&](CommandEncoder& e) -> Result<void> {
        AttentionOptions options;
        options.window = window;
        MLXN_TRY(const auto length, e.parameter("kv_len", 0));
        MLXN_TRY(options.p0, e.parameter("p0", 0));
        MLXN_TRY(options.ring_start, e.parameter("ring_start", 0));
        return attention(e, q.tensor(), k.tensor(), v.tensor(), y.tensor(), length, options);
      }));
      struct Step {
        std::int64_t length, p0, ring_start;
      };
      for (const Step& step : {Step{300, 300 - seq, 0}, Step{0, 0, 0}, Step{1, 0, 0}, Step{64, 64 - seq, 0}, Step{65, 60, 0}, Step{257, 100, 0},
                               Step{300, 300 - seq, 299}, Step{300, 300 - seq, 1}, Step{300, 1000, 0}, Step{300, -2, 7}}) {
        must(graph.set(0, step.length));
        must(graph.set(1, step.p0));
        must(graph.set(2, step.ring_start));
        must(graph.replay_and_wait());
        AttentionOptions options;
        options.window = window;
        options.p0 = Scalar<std::int64_t>(step.p0);
        options.ring_start = step.ring_start;
        must(run(device, [&](CommandEncoder& e) {
          return attention(e, q.tensor(), k.tensor(), v.tensor(), y2.tensor(), step.length, options);
        }));
        ASSERT_EQ(bits(y.read()), bits(y2.read())) << "kv_len " << step.length << ", p0 " << step.p0 << ", ring " << step.ring_start;
        for (const float x : y.read()) ASSERT_TRUE(std::isfinite(x));
      }
    }
  }
}

TEST(Attention, errors) {
  for (const Variant& variant : families()) {
    SCOPED_TRACE(variant.name);
    const Device& device = variant.device;
    const auto make = [&](DType type, const Shape& s) { return must(device.allocate(type, s)); };
    const Tensor q = make(DType::f32, {4, 3, 16}), y = make(DType::f32, {4, 3, 16});
    const Tensor k = make(DType::f32, {2, 10, 16}), v = make(DType::f32, {2, 10, 16}), half = make(DType::f16, {2, 10, 16});
    const auto attempt = [&](const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& d, std::int64_t kv_len = 10,
                             const AttentionOptions& options = {}) {
      CommandEncoder encoder = must(device.encoder());
      return attention(encoder, a, b, c, d, kv_len, options);
    };
    const auto with = [&](auto change, std::int64_t kv_len = 10) {
      AttentionOptions options;
      change(options);
      return attempt(q, k, v, y, kv_len, options);
    };
    EXPECT_TRUE(attempt(q, k, v, y).has_value());
    EXPECT_TRUE(fails_with(attempt({}, k, v, y), ErrorCode::invalid_argument, {"attention", "q", "empty"}));
    EXPECT_TRUE(fails_with(attempt(q, k, v, {}), ErrorCode::invalid_argument, {"attention", "y", "empty"}));
    EXPECT_TRUE(fails_with(attempt(make(DType::f16, {4, 3, 16}), k, v, y), ErrorCode::bad_dtype, {"attention", "q", "f16", "f32"}));
    EXPECT_TRUE(fails_with(attempt(q, make(DType::bf16, {2, 10, 16}), v, y), ErrorCode::bad_dtype, {"k", "bf16"}));
    EXPECT_TRUE(fails_with(attempt(q, k, half, y), ErrorCode::bad_dtype, {"v is f16", "f32"}));
    EXPECT_TRUE(fails_with(attempt(q, k, v, make(DType::f16, {4, 3, 16})), ErrorCode::bad_dtype, {"y is f16"}));
    EXPECT_TRUE(fails_with(attempt(make(DType::f32, {3, 16}), k, v, y), ErrorCode::bad_shape, {"q is [3, 16]"}));
    EXPECT_TRUE(fails_with(attempt(make(DType::f32, {4, 3, 513}), k, v, y), ErrorCode::bad_shape, {"513", "512"}));
    EXPECT_TRUE(fails_with(attempt(q, make(DType::f32, {2, 10, 8}), v, y), ErrorCode::bad_shape, {"k is [2, 10, 8]", "16"}));
    EXPECT_TRUE(fails_with(attempt(q, make(DType::f32, {1, 2, 10, 16}), v, y), ErrorCode::bad_shape, {"k is [1, 2, 10, 16]"}));
    EXPECT_TRUE(fails_with(attempt(q, make(DType::f32, {3, 10, 16}), v, y), ErrorCode::bad_shape, {"4 heads", "3"}));
    EXPECT_TRUE(fails_with(attempt(q, k, make(DType::f32, {2, 11, 16}), y), ErrorCode::bad_shape, {"v is [2, 11, 16]"}));
    EXPECT_TRUE(fails_with(attempt(q, k, v, make(DType::f32, {4, 4, 16})), ErrorCode::bad_shape, {"y is [4, 4, 16]"}));
    EXPECT_TRUE(fails_with(attempt(must(make(DType::f32, {4, 16, 3}).permute({0, 2, 1})), k, v, y), ErrorCode::bad_shape, {"q", "stride"}));
    EXPECT_TRUE(fails_with(attempt(q, k, v, q), ErrorCode::aliased, {"y overlaps q"}));
    EXPECT_TRUE(fails_with(attempt(make(DType::f32, {2, 10, 16}), k, v, k), ErrorCode::aliased, {"y overlaps k"}));
    EXPECT_TRUE(fails_with(attempt(make(DType::f32, {2, 10, 16}), k, v, v), ErrorCode::aliased, {"y overlaps v"}));
    EXPECT_TRUE(fails_with(attempt(q, k, v, y, 11), ErrorCode::out_of_range, {"kv_len is 11", "10"}));
    EXPECT_TRUE(fails_with(attempt(q, k, v, y, -1), ErrorCode::out_of_range, {"kv_len is -1"}));
    EXPECT_TRUE(fails_with(with([](auto& o) { o.window = 0; }), ErrorCode::invalid_argument, {"window is 0"}));
    EXPECT_TRUE(fails_with(with([](auto& o) { o.window = -2; }), ErrorCode::invalid_argument, {"window is -2"}));
    EXPECT_TRUE(fails_with(with([](auto& o) { o.softcap = -1; }), ErrorCode::invalid_argument, {"softcap is -1", "at least 0"}));
    EXPECT_TRUE(fails_with(with([](auto& o) { o.softcap = kNan; }), ErrorCode::invalid_argument, {"softcap"}));
    EXPECT_TRUE(fails_with(with([](auto& o) { o.scale = kInf; }), ErrorCode::invalid_argument, {"scale"}));
    EXPECT_TRUE(fails_with(with([](auto& o) { o.p0 = Scalar<std::int64_t>((std::int64_t{1} << 40) + 1); }), ErrorCode::out_of_range, {"p0"}));
    EXPECT_TRUE(fails_with(with([](auto& o) { o.ring_start = 10; }), ErrorCode::out_of_range, {"ring_start is 10"}));
    EXPECT_TRUE(fails_with(with([](auto& o) { o.ring_start = -1; }), ErrorCode::out_of_range, {"ring_start is -1"}));
    EXPECT_TRUE(fails_with(with([](auto& o) { o.ring_start = 3; }, 9), ErrorCode::out_of_range, {"ring_start is 3", "9 of 10"}));
    EXPECT_TRUE(fails_with(with([&](auto& o) { o.sinks = make(DType::f32, {3}); }), ErrorCode::bad_shape, {"sinks is [3]", "[4]"}));
    EXPECT_TRUE(fails_with(with([&](auto& o) { o.sinks = make(DType::f16, {4}); }), ErrorCode::bad_dtype, {"sinks is f16"}));
    EXPECT_TRUE(fails_with(with([&](auto& o) { o.lse = make(DType::f32, {3, 4}); }), ErrorCode::bad_shape, {"lse is [3, 4]", "[4, 3]"}));
    EXPECT_TRUE(fails_with(with([&](auto& o) { o.lse = make(DType::f16, {4, 3}); }), ErrorCode::bad_dtype, {"lse is f16"}));
    EXPECT_TRUE(fails_with(with([&](auto& o) { o.lse = must(must(y.reshape({192})).slice(0, 0, 12)); o.lse = must(o.lse.reshape({4, 3})); }),
                           ErrorCode::aliased, {"lse overlaps y"}));
    EXPECT_TRUE(fails_with(attempt(must(cpu(1).allocate(DType::f32, {4, 3, 16})), k, v, y), ErrorCode::wrong_device, {"attention", "q"}));
    CommandEncoder encoder = must(device.encoder());
    must(encoder.commit_and_wait());
    EXPECT_TRUE(fails_with(attention(encoder, q, k, v, y, 10), ErrorCode::wrong_state, {"attention"}));
    CommandEncoder open = must(device.encoder());
    EXPECT_TRUE(fails_with(ops::encode_attention(open, make(DType::f32, {4, 33, 16}), k, v, make(DType::f32, {4, 33, 16}), 10, {}, std::nullopt,
                                                 AttentionRoute::split),
                           ErrorCode::unsupported, {"split", "66"}));
    EXPECT_TRUE(attention(open, must(q.slice(1, 0, 0)), k, v, must(y.slice(1, 0, 0)), 10).has_value()) << "no rows";
  }
}

}  // namespace
}  // namespace mlxn::test::attention_suite
