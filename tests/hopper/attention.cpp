// Attention on matrix instructions: the kernel's source on the host, against float64.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <optional>
#include <random>
#include <vector>

#include "cuda_on_host.h"
//
#include "ops/attention/cuda_attention_mma.cuh"
#include "tests/reference/attention.h"

namespace {

namespace reference = mlxn::test::reference;
using mlxn::ops::AttentionArgs;
using mlxn::sm90::f16_to_f32;
using mlxn::sm90::f32_to_f16;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

struct Case {
  std::int64_t heads = 1, kv_heads = 1, seq = 1, dim = 64, kv_len = 1;
  std::int64_t capacity = 0;  // 0: kv_len and a few
  std::int64_t batch = 1;
  bool causal = true;
  std::int64_t window = -1;
  std::optional<std::int64_t> p0{};
  std::int64_t ring_start = 0;
  float softcap = 0;
  std::optional<float> scale{};
  std::vector<float> sinks{};
  float q_range = 1, k_range = 1;
  bool is_aligned = true;
  bool is_token_major = false;  // q and y [batch, seq, heads, dim]
  std::int64_t seed = 1;

  [[nodiscard]] std::int64_t slots() const { return capacity != 0 ? capacity : kv_len + 5; }
  [[nodiscard]] float factor() const { return scale ? *scale : 1 / std::sqrt(static_cast<float>(dim)); }
};

struct Data {
  std::vector<float> q, k, v;  // [batch, heads, seq, dim], [batch, kv_heads, slots, dim]

  explicit Data(const Case& c)
      : q(static_cast<std::size_t>(c.batch * c.heads * c.seq * c.dim)),
        k(static_cast<std::size_t>(c.batch * c.kv_heads * c.slots() * c.dim)),
        v(k.size()) {
    std::mt19937 random(static_cast<unsigned>(c.seed));
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (float& x : q) x = uniform(random) * c.q_range;
    for (std::vector<float>* x : {&k, &v})
      for (std::size_t i = 0; i < x->size(); ++i) {
        const float value = uniform(random) * (x == &k ? c.k_range : 1.0f);
        const bool is_used = static_cast<std::int64_t>(i) / c.dim % c.slots() < c.kv_len;
        (*x)[i] = is_used ? f16_to_f32(f32_to_f16(value)) : kNan;
      }
  }
};

struct Output {
  std::vector<float> y, lse;
};

/// Counts the rows that are computed again, per lane of their warps.
struct Watch {
  static inline std::int64_t lanes = 0;
  static void row() { ++lanes; }
};

constexpr float kUntouched = -77777;

/// Memory whose first element is at a multiple of 16 bytes, or one element behind.
template <class T>
struct Placed {
  Placed(std::size_t n, bool is_aligned, T value) : all(n + 32, value) {
    std::size_t at = 0;
    while (reinterpret_cast<std::uintptr_t>(all.data() + at) % 16 != 0) ++at;
    data = all.data() + at + (is_aligned ? 0 : 1);
  }
  std::vector<T> all;
  T* data;
};

template <int kDim>
Output attend(const Case& c, const Data& data) {
  const bool is_aligned = c.is_aligned;
  const std::int64_t slot = is_aligned ? c.dim + 8 : c.dim + 3, row = is_aligned ? c.dim : c.dim + 1;
  Placed<float> q(static_cast<std::size_t>(c.batch * c.heads * c.seq * row), is_aligned, kNan);
  Placed<float> y(static_cast<std::size_t>(c.batch * c.heads * c.seq * row), is_aligned, kUntouched);
  Placed<std::uint16_t> k(static_cast<std::size_t>(c.batch * c.kv_heads * c.slots() * slot), is_aligned,
                          0x7e00);
  Placed<std::uint16_t> v = k;
  v.data = v.all.data() + (k.data - k.all.data());
  while (reinterpret_cast<std::uintptr_t>(v.data) % 16 != (is_aligned ? 0u : 2u)) ++v.data;

  AttentionArgs a{};
  a.q_head = c.is_token_major ? row : c.seq * row, a.q_row = c.is_token_major ? c.heads * row : row;
  a.q_batch = c.heads * c.seq * row;
  a.y_head = a.q_head, a.y_row = a.q_row, a.y_batch = a.q_batch;
  a.k_slot = slot, a.k_head = c.slots() * slot, a.k_batch = c.kv_heads * a.k_head;
  a.v_slot = a.k_slot, a.v_head = a.k_head, a.v_batch = a.k_batch;
  const auto place = [&](std::int64_t i) {
    const std::int64_t d = i % c.dim, s = i / c.dim % c.seq, h = i / c.dim / c.seq % c.heads;
    return i / c.dim / c.seq / c.heads * a.q_batch + h * a.q_head + s * a.q_row + d;
  };
  for (std::size_t i = 0; i < data.q.size(); ++i) q.data[place(static_cast<std::int64_t>(i))] = data.q[i];
  for (std::size_t i = 0; i < data.k.size(); ++i) {
    const auto at = static_cast<std::int64_t>(i) / c.dim * slot + static_cast<std::int64_t>(i) % c.dim;
    k.data[at] = f32_to_f16(data.k[i]);
    v.data[at] = f32_to_f16(data.v[i]);
  }
  Output out{std::vector<float>(data.q.size()),
             std::vector<float>(static_cast<std::size_t>(c.batch * c.heads * c.seq), kUntouched)};
  const std::int64_t kv_len = c.kv_len, ring_start = c.ring_start;
  a.q.ptr = q.data, a.k.ptr = k.data, a.v.ptr = v.data, a.y.ptr = y.data, a.lse.ptr = out.lse.data();
  a.sinks.ptr = c.sinks.empty() ? nullptr : c.sinks.data();
  a.seq = c.seq, a.capacity = c.slots();
  a.kv_len.at = &kv_len, a.ring_start.at = &ring_start;
  if (c.p0) a.p0.value = *c.p0;
  a.window = c.window;
  a.batch = static_cast<std::int32_t>(c.batch), a.heads = static_cast<std::int32_t>(c.heads);
  a.kv_heads = static_cast<std::int32_t>(c.kv_heads), a.head_dim = static_cast<std::int32_t>(c.dim);
  a.scale = c.factor(), a.softcap = c.softcap;
  a.flags = (c.causal ? mlxn::ops::kAttentionCausal : 0) | (c.p0 ? mlxn::ops::kAttentionHasP0 : 0) |
            (is_aligned ? mlxn::ops::kAttentionAligned : 0);

  using Shape = mlxn::ops::AttentionMmaShape<kDim>;
  static_assert(Shape::kSharedBytes <= cuda_on_host::kSharedBytes);
  const std::int64_t rows = c.heads / c.kv_heads * c.seq;
  const auto groups = static_cast<unsigned>((rows + Shape::kRows - 1) / Shape::kRows * c.batch * c.kv_heads);
  const std::string error = cuda_on_host::run(groups, Shape::kThreads, [&] {
    mlxn::gpu::AttentionMma<kDim, Watch>::run(a, blockIdx.x, groups, mlxn::sm90::shared);
  });
  EXPECT_EQ(error, "");
  std::size_t untouched = 0;
  for (const float x : y.all) untouched += x == kUntouched ? 1 : 0;
  EXPECT_EQ(untouched, y.all.size() - out.y.size()) << "elements between the rows";
  for (std::size_t i = 0; i < out.y.size(); ++i) out.y[i] = y.data[place(static_cast<std::int64_t>(i))];
  return out;
}

Output attend(const Case& c, const Data& data) {
  if (c.dim <= 64) return attend<64>(c, data);
  return c.dim <= 96 ? attend<96>(c, data) : attend<128>(c, data);
}

std::vector<reference::AttentionRow> wanted_rows(const Case& c, const Data& data) {
  reference::AttentionProblem p;
  p.heads = c.heads, p.kv_heads = c.kv_heads, p.seq = c.seq, p.head_dim = c.dim, p.kv_len = c.kv_len;
  p.p0 = c.p0 ? *c.p0 : c.kv_len - c.seq;
  p.causal = c.causal, p.window = c.window, p.softcap = static_cast<double>(c.softcap);
  p.scale = static_cast<double>(c.factor());
  std::vector<reference::AttentionRow> rows;
  for (std::int64_t b = 0; b < c.batch; ++b)
    for (std::int64_t h = 0; h < c.heads; ++h) {
      const std::int64_t head = (b * c.kv_heads + h / (c.heads / c.kv_heads)) * c.slots();
      const auto row_of = [&](const std::vector<float>& x) {
        return [&, head](std::int64_t j) {
          return &x[static_cast<std::size_t>((head + (c.ring_start + j) % c.slots()) * c.dim)];
        };
      };
      for (std::int64_t i = 0; i < c.seq; ++i)
        rows.push_back(reference::attention_row(
            p, i, &data.q[static_cast<std::size_t>(((b * c.heads + h) * c.seq + i) * c.dim)], row_of(data.k),
            row_of(data.v), c.sinks.empty() ? nullptr : &c.sinks[static_cast<std::size_t>(h)]));
    }
  return rows;
}

/// Sums of products and exponentials are a few roundings of f32 away: without one of the two f16 parts of
/// queries or weights it would be thousands.
constexpr mlxn::test::Tolerance kTolerance{.terms = 12};

void check(const Case& c) {
  SCOPED_TRACE(testing::Message() << c.heads << "/" << c.kv_heads << " heads, seq " << c.seq << ", dim "
                                  << c.dim << ", kv_len " << c.kv_len << ", window " << c.window << ", ring "
                                  << c.ring_start << ", aligned " << c.is_aligned);
  const Data data(c);
  Watch::lanes = 0;
  const Output got = attend(c, data);
  ASSERT_EQ(Watch::lanes, 0) << "rows are computed again";
  const auto wanted = wanted_rows(c, data);
  for (std::size_t r = 0; r < wanted.size(); ++r) {
    ASSERT_TRUE(is_near(got.lse[r], wanted[r].lse, kTolerance)) << "lse of row " << r;
    for (std::size_t d = 0; d < wanted[r].y.size(); ++d) {
      const float value = got.y[r * wanted[r].y.size() + d];
      ASSERT_TRUE(is_near(value, wanted[r].y[d], kTolerance)) << "row " << r << " element " << d;
      if (wanted[r].y[d].magnitude == 0) {
        ASSERT_EQ(bits_as<std::uint32_t>(value), 0u) << "row " << r;
      }
    }
  }
}

TEST(AttentionMma, CausalWithPrefixAndGroups) {
  check({.heads = 1, .kv_heads = 1, .seq = 1, .dim = 64, .kv_len = 1});
  check({.heads = 2, .kv_heads = 1, .seq = 50, .dim = 128, .kv_len = 50});
  check({.heads = 4, .kv_heads = 2, .seq = 70, .dim = 64, .kv_len = 70, .batch = 2});
  check({.heads = 1, .kv_heads = 1, .seq = 33, .dim = 128, .kv_len = 200});
  check({.heads = 3, .kv_heads = 1, .seq = 30, .dim = 64, .kv_len = 131, .p0 = 60, .is_token_major = true});
  check({.heads = 1, .kv_heads = 1, .seq = 40, .dim = 64, .kv_len = 70, .causal = false});
}

TEST(AttentionMma, HeadDimensionsAndUnalignedRows) {
  for (const std::int64_t dim : {8, 72, 80, 96, 112})
    check({.heads = 2, .kv_heads = 1, .seq = 9, .dim = dim, .kv_len = 70});
  for (const std::int64_t dim : {1, 7, 64, 95, 127, 128})
    check({.heads = 3, .kv_heads = 1, .seq = 7, .dim = dim, .kv_len = 70, .is_aligned = false});
}

TEST(AttentionMma, TheBitsDoNotDependOnTheAlignment) {
  Case c{.heads = 2, .kv_heads = 1, .seq = 40, .dim = 72, .kv_len = 100, .window = 50};
  const Data data(c);
  const Output aligned = attend(c, data);
  c.is_aligned = false;
  const Output other = attend(c, data);
  EXPECT_EQ(aligned.y, other.y);
  EXPECT_EQ(aligned.lse, other.lse);
}

TEST(AttentionMma, Windows) {
  for (const std::int64_t window : {1, 33, 64, 100}) {
    check({.heads = 2, .kv_heads = 1, .seq = 80, .dim = 64, .kv_len = 210, .window = window});
    check(
        {.heads = 1, .kv_heads = 1, .seq = 20, .dim = 64, .kv_len = 150, .causal = false, .window = window});
  }
}

TEST(AttentionMma, PositionsOutsideTheKeys) {
  check({.heads = 2, .kv_heads = 2, .seq = 70, .dim = 64, .kv_len = 20});
  check({.heads = 2, .kv_heads = 1, .seq = 40, .dim = 64, .kv_len = 60, .p0 = -5});
  check({.heads = 1, .kv_heads = 1, .seq = 70, .dim = 64, .kv_len = 320, .window = 70, .p0 = 330});
  check({.heads = 1, .kv_heads = 1, .seq = 40, .dim = 64, .kv_len = 60, .p0 = std::int64_t{1} << 40});
  check({.heads = 1, .kv_heads = 1, .seq = 40, .dim = 64, .kv_len = 60, .p0 = -(std::int64_t{1} << 40)});
  check({.heads = 2, .kv_heads = 1, .seq = 33, .dim = 64, .kv_len = 0, .capacity = 7, .sinks = {1, -kInf}});
}

TEST(AttentionMma, Rings) {
  for (const std::int64_t start : {1, 63, 64, 100, 149})
    check({.heads = 2,
           .kv_heads = 1,
           .seq = 20,
           .dim = 64,
           .kv_len = 150,
           .capacity = 150,
           .ring_start = start});
  check({.heads = 1,
         .kv_heads = 1,
         .seq = 20,
         .dim = 72,
         .kv_len = 150,
         .capacity = 150,
         .window = 90,
         .ring_start = 77,
         .is_aligned = false});
}

TEST(AttentionMma, SoftcapSinksAndScale) {
  const Case c{.heads = 2, .kv_heads = 1, .seq = 40, .dim = 64, .kv_len = 100};
  for (const float softcap : {1.0f, 50.0f}) {
    Case with = c;
    with.softcap = softcap, with.q_range = 20;
    check(with);
    with.scale = -0.5f;
    check(with);
  }
  for (const float sink : {0.5f, 20.0f, -20.0f, -kInf}) {
    Case with = c;
    with.sinks = {sink, 1.0f};
    check(with);
  }
  for (const float scale : {-0.3f, 0.0f, 1.0f}) {
    Case with = c;
    with.scale = scale;
    check(with);
  }
}

TEST(AttentionMma, SizesOfQueriesAndKeys) {
  for (const float range : {1e-37f, 1e-30f, 1e-6f, 1e-3f, 100.0f, 1e6f, 1e30f}) {
    Case c{.heads = 1, .kv_heads = 1, .seq = 20, .dim = 64, .kv_len = 80};
    c.q_range = range;
    c.scale = 1 / range;
    check(c);
    c.k_range = 1000;
    check(c);
  }
  check({.heads = 1, .kv_heads = 1, .seq = 20, .dim = 64, .kv_len = 80, .q_range = 0});
}

TEST(AttentionMma, ARowDoesNotDependOnTheRowsBesideIt) {
  const Case c{.heads = 4, .kv_heads = 2, .seq = 45, .dim = 64, .kv_len = 150, .window = 100};
  const Data data(c);
  const Output all = attend(c, data);
  for (const std::int64_t i : {0, 17, 44}) {
    Case one = c;
    one.seq = 1, one.p0 = c.kv_len - c.seq + i;
    Data row = data;
    row.q.clear();
    for (std::int64_t h = 0; h < c.heads; ++h)
      row.q.insert(row.q.end(), data.q.begin() + (h * c.seq + i) * c.dim,
                   data.q.begin() + (h * c.seq + i + 1) * c.dim);
    const Output got = attend(one, row);
    for (std::int64_t h = 0; h < c.heads; ++h)
      for (std::int64_t d = 0; d < c.dim; ++d)
        ASSERT_EQ(got.y[static_cast<std::size_t>(h * c.dim + d)],
                  all.y[static_cast<std::size_t>((h * c.seq + i) * c.dim + d)]);
  }
}

// As AttentionTiled: the sum in the order of keys has the infinities and NaNs of exp(z) * v.
TEST(AttentionMma, ValuesThatAreNotFinite) {
  const Case c{.heads = 2, .kv_heads = 1, .seq = 100, .dim = 64, .kv_len = 150, .window = 60};
  const Data clean(c);
  const Output before = attend(c, clean);
  const std::int64_t poisoned = 110;
  for (const float poison : {kNan, kInf, -kInf})
    for (const bool is_key : {false, true}) {
      Data data = clean;
      (is_key ? data.k : data.v)[static_cast<std::size_t>(poisoned * c.dim + 3)] = poison;
      const Output got = attend(c, data);
      for (std::int64_t h = 0; h < c.heads; ++h)
        for (std::int64_t i = 0; i < c.seq; ++i) {
          const auto row = static_cast<std::size_t>(h * c.seq + i);
          const std::int64_t position = c.kv_len - c.seq + i;
          const bool is_seen = poisoned <= position && position - poisoned < c.window;
          const float q = data.q[row * 64 + 3];
          SCOPED_TRACE(testing::Message() << "poison " << poison << " in key " << is_key << " row " << row
                                          << " seen " << is_seen);
          for (std::size_t d = 0; d < 64; ++d) {
            const float y = got.y[row * 64 + d], clean_y = before.y[row * 64 + d];
            if (!is_seen) {
              ASSERT_EQ(y, clean_y);
            } else if (is_key) {  // a logit of -inf is a weight of 0
              ASSERT_EQ(std::isnan(y), std::isnan(poison) || q * poison > 0);
            } else if (d == 3) {
              ASSERT_TRUE(std::isnan(poison) ? std::isnan(y) : y == poison) << y;
            } else {
              ASSERT_NEAR(y, clean_y, 1e-6);
            }
          }
          ASSERT_EQ(std::isnan(got.lse[row]), is_seen && is_key && (std::isnan(poison) || q * poison > 0));
        }
    }
}

// Keys 64 to 255 are those that all rows see; the first tile and the last are seen in part, and four apart.
TEST(AttentionMma, ValuesThatAreNotFiniteInLongWindows) {
  const Case c{.heads = 2, .kv_heads = 1, .seq = 32, .dim = 64, .kv_len = 312, .window = 250};
  const Data clean(c);
  const Output before = attend(c, clean);
  for (const std::int64_t poisoned : {40, 130, 296}) {
    Data data = clean;
    data.v[static_cast<std::size_t>(poisoned * c.dim + 9)] = -kInf;
    Watch::lanes = 0;
    const Output got = attend(c, data);
    std::int64_t seen = 0;
    for (std::int64_t position = 280; position < 312; ++position)
      seen += poisoned <= position && position - poisoned < c.window ? 1 : 0;
    ASSERT_EQ(Watch::lanes, seen * 2 * 32);
    for (std::size_t row = 0; row < 64; ++row) {
      const std::int64_t position = 280 + static_cast<std::int64_t>(row % 32);
      const bool is_seen = poisoned <= position && position - poisoned < c.window;
      for (std::size_t d = 0; d < 64; ++d) {
        const float y = got.y[row * 64 + d], clean_y = before.y[row * 64 + d];
        if (!is_seen) {
          ASSERT_EQ(y, clean_y) << "key " << poisoned << " row " << row;
        } else if (d == 9) {
          ASSERT_EQ(y, -kInf) << "key " << poisoned << " row " << row;
        } else {
          ASSERT_NEAR(y, clean_y, 1e-6);
        }
      }
    }
  }
}

TEST(AttentionMma, QueriesAndSinksThatAreNotFinite) {
  Case c{.heads = 1, .kv_heads = 1, .seq = 20, .dim = 64, .kv_len = 80};
  const Data clean(c);
  const Output before = attend(c, clean);
  Data data = clean;
  data.q[7 * 64 + 5] = kNan;
  data.q[9 * 64 + 5] = kInf;
  const Output got = attend(c, data);
  for (std::size_t r = 0; r < 20; ++r)
    for (std::size_t d = 0; d < 64; ++d) {
      if (r == 7 || r == 9) {
        ASSERT_TRUE(std::isnan(got.y[r * 64 + d])) << r;
      } else {
        ASSERT_EQ(got.y[r * 64 + d], before.y[r * 64 + d]) << r;
      }
    }
  data = clean;
  data.k[5 * 64] = -kInf;
  c.scale = 0.0f;  // times -inf is NaN
  for (const float y : attend(c, data).y) ASSERT_TRUE(std::isnan(y));
  c.scale.reset();
  c.sinks = {kNan};
  for (const float y : attend(c, clean).y) ASSERT_TRUE(std::isnan(y));
  c.sinks = {kInf};
  for (const float y : attend(c, clean).y) ASSERT_EQ(y, 0.0f);
}

}  // namespace
