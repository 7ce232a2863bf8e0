// rope_append and attention in one kernel: its choice, and its source on the host against float64.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <optional>
#include <random>
#include <vector>

#include "cuda_on_host.h"
//
#include "ops/cached_attention/cached_attention.h"
#include "ops/cached_attention/cuda_cached_attention.cuh"
#include "tests/reference/attention.h"
#include "tests/reference/rope.h"

namespace {

namespace reference = mlxn::test::reference;
using mlxn::RopePairing;
using mlxn::ops::CachedAttentionArgs;
using mlxn::ops::CachedAttentionProblem;
using mlxn::sm90::f16_to_f32;
using mlxn::sm90::f32_to_f16;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();
constexpr float kUntouched = -77777;

struct Case {
  std::int64_t heads = 1, kv_heads = 1, seq = 1, dim = 64, kv_len = 1;
  std::int64_t position = -1;  // -1: kv_len - seq
  unsigned blocks = 1;
  std::int64_t window = -1;
  float softcap = 0;
  std::optional<float> scale{};
  std::vector<float> sinks{};
  RopePairing pairing = RopePairing::halves;
  std::int64_t rotated = 0, split_offset = 0;  // 0: dim, rotated / 2
  std::int64_t first_angle = 1000;             // of the first token; the second one's is 3 more
  std::int64_t seed = 1;

  [[nodiscard]] std::int64_t at() const { return position < 0 ? kv_len - seq : position; }
  [[nodiscard]] std::int64_t slots() const { return std::max(kv_len, at() + seq) + 5; }
  [[nodiscard]] std::int64_t pairs() const { return (rotated == 0 ? dim : rotated) / 2; }
  [[nodiscard]] float factor() const { return scale ? *scale : 1 / std::sqrt(static_cast<float>(dim)); }
  [[nodiscard]] std::int32_t angle(std::int64_t token) const {
    return static_cast<std::int32_t>(first_angle + 3 * token);
  }
  [[nodiscard]] mlxn::RopeConfig rope() const {
    mlxn::RopeConfig config;
    config.head_dim = dim, config.rotated_dims = rotated, config.pairing = pairing,
    config.split_offset = split_offset;
    return config;
  }
};

struct Data {
  std::vector<float> q, k_new, v_new;       // [seq, heads, dim]
  std::vector<std::uint16_t> keys, values;  // [kv_heads, slots, dim]

  explicit Data(const Case& c)
      : q(static_cast<std::size_t>(c.seq * c.heads * c.dim)),
        k_new(static_cast<std::size_t>(c.seq * c.kv_heads * c.dim)),
        v_new(k_new.size()),
        keys(static_cast<std::size_t>(c.kv_heads * c.slots() * c.dim)),
        values(keys.size()) {
    std::mt19937 random(static_cast<unsigned>(c.seed));
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (std::vector<float>* x : {&q, &k_new, &v_new})
      for (float& value : *x) value = uniform(random);
    for (std::vector<std::uint16_t>* x : {&keys, &values})
      for (std::size_t i = 0; i < x->size(); ++i) {
        const std::int64_t slot = static_cast<std::int64_t>(i) / c.dim % c.slots();
        const bool is_old = slot < c.kv_len && (slot < c.at() || slot >= c.at() + c.seq);
        const float value = uniform(random);
        (*x)[i] = is_old ? f32_to_f16(value) : 0x7e00;  // NaN where no key is before
      }
  }
};

struct Output {
  std::vector<float> y;                     // [seq, heads, dim]
  std::vector<std::uint16_t> keys, values;  // the cache afterwards
};

/// Memory whose first element is at a multiple of 16 bytes.
template <class T>
struct Placed {
  Placed(std::int64_t n, T value) : all(static_cast<std::size_t>(n) + 32, value), data(all.data()) {
    while (reinterpret_cast<std::uintptr_t>(data) % 16 != 0) ++data;
  }
  Placed(const Placed&) = delete;
  Placed& operator=(const Placed&) = delete;
  std::vector<T> all;
  T* data;
};

template <int kDim, int kRows>
Output attend(const Case& c, const Data& data) {
  const std::int64_t slot = c.dim + 8, q_head = c.dim + 1, y_head = c.dim + 3, k_head = c.dim + 2;
  Placed<float> q(c.seq * (c.heads * q_head + 5), kNan), y(c.seq * (c.heads * y_head + 7), kUntouched);
  Placed<float> k_new(c.seq * c.kv_heads * k_head, kNan), v_new(c.seq * c.kv_heads * k_head, kNan);
  Placed<std::uint16_t> keys(c.kv_heads * c.slots() * slot, 0x7e01),
      values(c.kv_heads * c.slots() * slot, 0x7e01);
  const auto place = [](std::int64_t i, std::int64_t dim, std::int64_t heads, std::int64_t row,
                        std::int64_t head) {
    return i / dim / heads * row + i / dim % heads * head + i % dim;
  };
  const std::int64_t q_row = c.heads * q_head + 5, y_row = c.heads * y_head + 7, k_row = c.kv_heads * k_head;
  for (std::size_t i = 0; i < data.q.size(); ++i)
    q.data[place(static_cast<std::int64_t>(i), c.dim, c.heads, q_row, q_head)] = data.q[i];
  for (std::size_t i = 0; i < data.k_new.size(); ++i) {
    const std::int64_t to = place(static_cast<std::int64_t>(i), c.dim, c.kv_heads, k_row, k_head);
    k_new.data[to] = data.k_new[i], v_new.data[to] = data.v_new[i];
  }
  for (std::size_t i = 0; i < data.keys.size(); ++i) {
    const std::int64_t to =
        static_cast<std::int64_t>(i) / c.dim * slot + static_cast<std::int64_t>(i) % c.dim;
    keys.data[to] = data.keys[i], values.data[to] = data.values[i];
  }
  std::vector<std::int32_t> positions(static_cast<std::size_t>(c.seq));
  for (std::int64_t t = 0; t < c.seq; ++t) positions[static_cast<std::size_t>(t)] = c.angle(t);
  std::vector<float> inv_freq(static_cast<std::size_t>(c.pairs()));
  for (std::size_t p = 0; p < inv_freq.size(); ++p)
    inv_freq[p] = static_cast<float>(reference::rope_angle(c.rope(), static_cast<std::int64_t>(p), 1));

  CachedAttentionArgs a{};
  const std::int64_t kv_len = c.kv_len, position = c.at();
  a.positions.ptr = positions.data(), a.inv_freq.ptr = inv_freq.data();
  a.q.ptr = q.data, a.k_new.ptr = k_new.data, a.v_new.ptr = v_new.data, a.y.ptr = y.data;
  a.k_cache.ptr = keys.data, a.v_cache.ptr = values.data;
  a.sinks.ptr = c.sinks.empty() ? nullptr : c.sinks.data();
  a.q_row = q_row, a.q_head = q_head, a.y_row = y_row, a.y_head = y_head;
  a.k_row = a.v_row = k_row, a.k_head = a.v_head = k_head;
  a.k_cache_slot = a.v_cache_slot = slot, a.k_cache_head = a.v_cache_head = c.slots() * slot;
  a.position.at = &position, a.kv_len.at = &kv_len;
  a.window = c.window;
  a.seq = static_cast<std::int32_t>(c.seq), a.group = static_cast<std::int32_t>(c.heads / c.kv_heads);
  a.head_dim = static_cast<std::int32_t>(c.dim), a.capacity = static_cast<std::int32_t>(c.slots());
  for (unsigned b = c.blocks; b > 1; b /= 2) ++a.cluster_shift;
  a.pairs = static_cast<std::int32_t>(c.pairs());
  a.adjacent = c.pairing == RopePairing::adjacent ? 1 : 0;
  a.split_offset =
      a.adjacent != 0 ? 1 : static_cast<std::int32_t>(c.split_offset == 0 ? c.pairs() : c.split_offset);
  a.magnitude = 1, a.scale = c.factor(), a.softcap = c.softcap;

  using Shape = mlxn::ops::CachedAttentionShape<kDim, kRows>;
  static_assert(Shape::kSharedBytes <= cuda_on_host::kClusterSharedBytes);
  const std::string error = cuda_on_host::run(
      static_cast<unsigned>(c.kv_heads) * c.blocks, Shape::kThreads,
      [&] {
        mlxn::gpu::CachedAttention<kDim, kRows>::run(
            a, blockIdx.x,
            mlxn::sm90::shared + cuda_on_host::cluster_rank() * cuda_on_host::kClusterSharedBytes);
      },
      c.blocks);
  EXPECT_EQ(error, "");
  Output out{std::vector<float>(data.q.size()), std::vector<std::uint16_t>(data.keys.size()),
             std::vector<std::uint16_t>(data.keys.size())};
  for (std::size_t i = 0; i < out.y.size(); ++i) {
    float& value = y.data[place(static_cast<std::int64_t>(i), c.dim, c.heads, y_row, y_head)];
    out.y[i] = value, value = kUntouched;
  }
  for (const float x : y.all) EXPECT_EQ(x, kUntouched) << "between the rows of y";
  for (auto [from, to] : {std::pair(&keys, &out.keys), std::pair(&values, &out.values)}) {
    for (std::size_t i = 0; i < to->size(); ++i) {
      std::uint16_t& value =
          from->data[static_cast<std::int64_t>(i) / c.dim * slot + static_cast<std::int64_t>(i) % c.dim];
      (*to)[i] = value, value = 0x7e01;
    }
    for (const std::uint16_t x : from->all) EXPECT_EQ(x, 0x7e01) << "between the rows of the cache";
  }
  return out;
}

Output attend(const Case& c, const Data& data) {
  const bool is_small = c.heads / c.kv_heads * c.seq <= 4;
  if (c.dim <= 64) return is_small ? attend<64, 4>(c, data) : attend<64, 8>(c, data);
  return is_small ? attend<128, 4>(c, data) : attend<128, 8>(c, data);
}

void check(const Case& c) {
  SCOPED_TRACE(testing::Message() << c.heads << "/" << c.kv_heads << " heads, seq " << c.seq << ", dim "
                                  << c.dim << ", kv_len " << c.kv_len << ", position " << c.at()
                                  << ", window " << c.window << ", blocks " << c.blocks);
  const Data data(c);
  const Output got = attend(c, data);
  // The cache: new rows are the turned keys and the values, rounded once more; the others are as they were.
  const auto dim = static_cast<std::size_t>(c.dim);
  for (std::size_t i = 0; i < data.keys.size(); i += dim) {
    const auto h = static_cast<std::int64_t>(i / dim) / c.slots(),
               token = static_cast<std::int64_t>(i / dim) % c.slots() - c.at();
    if (token < 0 || token >= c.seq) {
      for (std::size_t d = 0; d < dim; ++d) {
        ASSERT_EQ(got.keys[i + d], data.keys[i + d]) << "slot " << token + c.at();
        ASSERT_EQ(got.values[i + d], data.values[i + d]) << "slot " << token + c.at();
      }
      continue;
    }
    const float* k = &data.k_new[static_cast<std::size_t>(token * c.kv_heads + h) * dim];
    const auto turned = reference::rope_row(c.rope(), {k, dim}, c.angle(token), false);
    for (std::size_t d = 0; d < dim; ++d) {
      ASSERT_TRUE(is_near(f16_to_f32(got.keys[i + d]), turned[d], {.out = mlxn::DType::f16, .terms = 8}))
          << "token " << token << " element " << d;
      ASSERT_EQ(got.values[i + d],
                f32_to_f16(data.v_new[static_cast<std::size_t>(token * c.kv_heads + h) * dim + d]));
    }
  }

  reference::AttentionProblem p;
  p.heads = c.heads, p.kv_heads = c.kv_heads, p.seq = c.seq, p.head_dim = c.dim, p.kv_len = c.kv_len,
  p.p0 = c.kv_len - c.seq;
  p.window = c.window, p.softcap = static_cast<double>(c.softcap), p.scale = static_cast<double>(c.factor());
  // As attention's own tests count; the turn of the queries is a few roundings more.
  const mlxn::test::Tolerance tolerance{
      .terms = static_cast<double>(c.dim + c.kv_len + 8 * (c.kv_len / 64 + 1) + 24)};
  std::vector<float> row(dim);
  for (std::int64_t token = 0; token < c.seq; ++token)
    for (std::int64_t h = 0; h < c.heads; ++h) {
      const std::size_t at = static_cast<std::size_t>(token * c.heads + h) * dim;
      const auto turned = reference::rope_row(c.rope(), {&data.q[at], dim}, c.angle(token), false);
      for (std::size_t d = 0; d < dim; ++d) row[d] = static_cast<float>(turned[d].value);
      std::vector<float> key(dim), value(dim);
      const auto of = [&](const std::vector<std::uint16_t>& cache, std::vector<float>& to) {
        return [&](std::int64_t j) {
          const std::size_t from = static_cast<std::size_t>(h / (c.heads / c.kv_heads) * c.slots() + j) * dim;
          for (std::size_t d = 0; d < dim; ++d) to[d] = f16_to_f32(cache[from + d]);
          return to.data();
        };
      };
      const auto wanted =
          reference::attention_row(p, token, row.data(), of(got.keys, key), of(got.values, value),
                                   c.sinks.empty() ? nullptr : &c.sinks[static_cast<std::size_t>(h)]);
      for (std::size_t d = 0; d < dim; ++d)
        ASSERT_TRUE(is_near(got.y[at + d], wanted.y[d], tolerance))
            << "token " << token << " head " << h << " element " << d;
    }
}

TEST(CachedAttention, HeadDimensions) {
  for (const std::int64_t dim : {8, 40, 64})
    check({.heads = 4, .kv_heads = 2, .dim = dim, .kv_len = 70, .blocks = 2});
  for (const std::int64_t dim : {72, 80, 96, 128})
    check({.heads = 8, .kv_heads = 2, .dim = dim, .kv_len = 70, .blocks = 2});
}

TEST(CachedAttention, GroupsAndRows) {
  for (std::int64_t group = 1; group <= 8; ++group)
    for (const std::int64_t dim : {64, 128})
      check({.heads = group, .kv_heads = 1, .dim = dim, .kv_len = 66, .blocks = 2});
  check({.heads = 8, .kv_heads = 2, .seq = 2, .dim = 64, .kv_len = 65, .blocks = 2});
  check({.heads = 4, .kv_heads = 2, .seq = 2, .dim = 128, .kv_len = 65, .blocks = 2});
  check({.heads = 3, .kv_heads = 1, .seq = 2, .dim = 96, .kv_len = 129, .blocks = 4});
  check({.heads = 2, .kv_heads = 2, .seq = 8, .dim = 64, .kv_len = 68, .blocks = 2});
  check({.heads = 2, .kv_heads = 2, .seq = 3, .dim = 64, .kv_len = 2, .position = 0, .blocks = 2});
}

TEST(CachedAttention, EdgesOfTilesAndParts) {
  for (const unsigned blocks : {1u, 2u, 4u, 8u})
    for (const std::int64_t kv_len : {1, 64, 65, 130})
      check({.heads = 2, .kv_heads = 1, .dim = 64, .kv_len = kv_len, .blocks = blocks});
  for (const std::int64_t kv_len : {512, 513, 1100})
    check({.heads = 1, .kv_heads = 1, .dim = 128, .kv_len = kv_len, .blocks = 8});
}

TEST(CachedAttention, PositionsWithinTheCache) {
  for (const std::int64_t position : {0, 62, 63, 64, 127, 199})
    check({.heads = 2,
           .kv_heads = 1,
           .seq = 2,
           .dim = 64,
           .kv_len = 200,
           .position = position == 199 ? 198 : position,
           .blocks = 2});
  check({.heads = 2, .kv_heads = 1, .dim = 64, .kv_len = 100, .position = 100, .blocks = 2});  // written, not
                                                                                               // seen
  check({.heads = 2, .kv_heads = 1, .dim = 64, .kv_len = 100, .position = 300, .blocks = 4});
  check({.heads = 2, .kv_heads = 1, .dim = 64, .kv_len = 0, .position = 0, .blocks = 2, .sinks = {1, -kInf}});
}

TEST(CachedAttention, Windows) {
  for (const std::int64_t window : {1, 2, 64, 65, 100, 1000})
    for (const unsigned blocks : {2u, 4u}) {
      check({.heads = 2, .kv_heads = 1, .dim = 64, .kv_len = 330, .blocks = blocks, .window = window});
      check({.heads = 2,
             .kv_heads = 1,
             .seq = 2,
             .dim = 64,
             .kv_len = 257,
             .blocks = blocks,
             .window = window});
    }
}

TEST(CachedAttention, SoftcapSinksAndScale) {
  const Case c{.heads = 2, .kv_heads = 1, .dim = 64, .kv_len = 100, .blocks = 2};
  for (const float softcap : {1.0f, 50.0f}) {
    Case with = c;
    with.softcap = softcap;
    check(with);
  }
  for (const float sink : {0.5f, 20.0f, -20.0f, -kInf}) {
    Case with = c;
    with.sinks = {sink, 1.0f};
    check(with);
  }
  for (const float scale : {-0.3f, 0.0f, 3.0f}) {
    Case with = c;
    with.scale = scale;
    check(with);
  }
}

TEST(CachedAttention, Rotations) {
  for (const RopePairing pairing : {RopePairing::adjacent, RopePairing::halves})
    for (const std::int64_t rotated : {64, 24, 2})
      check({.heads = 2, .kv_heads = 1, .dim = 64, .kv_len = 9, .pairing = pairing, .rotated = rotated});
  check({.heads = 2, .kv_heads = 1, .dim = 80, .kv_len = 9, .rotated = 20, .split_offset = 40});
  check({.heads = 2,
         .kv_heads = 1,
         .dim = 96,
         .kv_len = 9,
         .rotated = 32,
         .split_offset = 40,
         .first_angle = -70000});
}

TEST(CachedAttention, ARowDoesNotDependOnTheRowsBesideIt) {
  for (const std::int64_t window : {-1, 100}) {
    const Case c{
        .heads = 4, .kv_heads = 1, .seq = 2, .dim = 64, .kv_len = 193, .blocks = 2, .window = window};
    const Data data(c);
    const Output both = attend(c, data);
    // The last token alone, the other one's key being in the cache; the instance for fewer rows runs.
    Case one = c;
    one.seq = 1, one.first_angle = c.angle(1);
    Data last = data;
    last.keys = both.keys, last.values = both.values;
    last.q.assign(data.q.begin() + c.heads * c.dim, data.q.end());
    last.k_new.assign(data.k_new.begin() + c.dim, data.k_new.end());
    last.v_new.assign(data.v_new.begin() + c.dim, data.v_new.end());
    const std::int64_t at = c.kv_len - 1;
    for (std::int64_t d = 0; d < c.dim; ++d) last.keys[static_cast<std::size_t>(at * c.dim + d)] = 0x7e00;
    const Output alone = attend(one, last);
    for (std::size_t i = 0; i < alone.y.size(); ++i) ASSERT_EQ(alone.y[i], both.y[alone.y.size() + i]) << i;
    ASSERT_EQ(alone.keys, both.keys);
  }
}

TEST(CachedAttention, KeysAreSharedByAllBlocksThatHaveATile) {
  // As attention's merge: the blocks' number is the only thing that the bits may depend on, within roundings.
  Case c{.heads = 4, .kv_heads = 1, .dim = 128, .kv_len = 500};
  const Data data(c);
  const Output one = attend(c, data);
  for (const unsigned blocks : {2u, 4u, 8u}) {
    c.blocks = blocks;
    const Output got = attend(c, data);
    for (std::size_t i = 0; i < got.y.size(); ++i) ASSERT_NEAR(got.y[i], one.y[i], 1e-6) << blocks;
    ASSERT_EQ(got.keys, one.keys);
    ASSERT_EQ(attend(c, data).y, got.y) << "same call, same bits";
  }
}

TEST(CachedAttention, ValuesThatAreNotFinite) {
  Case c{.heads = 2, .kv_heads = 1, .seq = 2, .dim = 64, .kv_len = 130, .blocks = 2};
  const Data clean(c);
  const Output before = attend(c, clean);
  Data data = clean;
  data.v_new[64] = kNan;  // of the second token, which the first does not see
  const Output got = attend(c, data);
  for (std::size_t i = 0; i < got.y.size(); ++i) {
    if (i >= 128 && i % 64 == 0) {
      ASSERT_TRUE(std::isnan(got.y[i])) << i;
    } else {
      ASSERT_EQ(got.y[i], before.y[i]) << i;
    }
  }
  data = clean;
  data.keys[70 * 64] = 0x7e00;
  for (const float y : attend(c, data).y) ASSERT_TRUE(std::isnan(y));
  data = clean;
  data.q[0] = kInf;
  const Output of_inf = attend(c, data);
  for (std::size_t i = 0; i < 64; ++i) ASSERT_TRUE(std::isnan(of_inf.y[i]));
  for (std::size_t i = 64; i < of_inf.y.size(); ++i) ASSERT_EQ(of_inf.y[i], before.y[i]);
  c.sinks = {kNan, kInf};
  const Output of_sinks = attend(c, clean);
  for (std::size_t i = 0; i < of_sinks.y.size(); ++i) {
    if (i / 64 % 2 == 0) {
      ASSERT_TRUE(std::isnan(of_sinks.y[i]));
    } else {
      ASSERT_EQ(of_sinks.y[i], 0.0f);
    }
  }
}

TEST(CachedAttentionChoice, BlocksAreTwoOrHaveATileAndAMultiprocessorEach) {
  const auto blocks = [](std::int64_t keys, std::int64_t kv_heads, std::int64_t cores = 132) {
    return mlxn::ops::cached_attention_blocks(
        {.rows = 4, .head_dim = 128, .kv_heads = kv_heads, .keys = keys, .cores = cores});
  };
  EXPECT_EQ(blocks(1, 8), 2u);
  EXPECT_EQ(blocks(64, 8), 2u);
  EXPECT_EQ(blocks(65, 8), 2u);
  EXPECT_EQ(blocks(128, 8), 2u);
  EXPECT_EQ(blocks(129, 8), 4u);
  EXPECT_EQ(blocks(256, 8), 4u);
  EXPECT_EQ(blocks(512, 8), 8u);
  EXPECT_EQ(blocks(100000, 8), 8u);
  EXPECT_EQ(blocks(512, 32), 4u);
  EXPECT_EQ(blocks(512, 100), 2u);
  EXPECT_EQ(blocks(512, 200), 2u);
  EXPECT_EQ(blocks(512, 8, 20), 2u);
}

TEST(CachedAttentionChoice, ManyKeysWantTheWholeDevice) {
  const auto prefers = [](std::int64_t keys, std::int64_t kv_heads) {
    return mlxn::ops::prefers_cached_attention(
        {.rows = 4, .head_dim = 128, .kv_heads = kv_heads, .keys = keys, .cores = 132});
  };
  EXPECT_TRUE(prefers(1, 1));
  EXPECT_TRUE(prefers(4096, 8));
  EXPECT_FALSE(prefers(4097, 8));
  EXPECT_TRUE(prefers(2048, 32));
  EXPECT_FALSE(prefers(4096, 32));
  EXPECT_TRUE(prefers(4096, 1));
  EXPECT_TRUE(prefers(256, 200));
  EXPECT_FALSE(prefers(1024, 200));
}

TEST(CachedAttentionChoice, Shapes) {
  const auto fits = [](std::int64_t rows, std::int64_t dim) {
    return mlxn::ops::fits_cached_attention({.rows = rows, .head_dim = dim});
  };
  EXPECT_TRUE(fits(1, 8));
  EXPECT_TRUE(fits(8, 128));
  EXPECT_FALSE(fits(9, 128));
  EXPECT_FALSE(fits(4, 136));
  EXPECT_FALSE(fits(4, 68));
  EXPECT_FALSE(fits(0, 64));
}

}  // namespace
