#include "ops/attention/attention.h"

#include <cmath>

#include "tests/conformance/variants.h"

namespace mlxn::test::attention_suite {
namespace {

using ops::AttentionRoute;
constexpr std::int64_t kHeads = 4, kKvHeads = 2, kDim = 32;

struct Inputs {
  std::int64_t seq, kv_len;
  std::vector<float> q, k, v;  // q [heads, seq, dim], k and v [kv_heads, kv_len, dim]
};
Inputs inputs(std::int64_t seq, std::int64_t kv_len, Random& random) {
  const auto keys = static_cast<std::size_t>(kKvHeads * kv_len * kDim);
  return {seq, kv_len, random.uniform(static_cast<std::size_t>(kHeads * seq * kDim), -1, 1), random.uniform(keys, -1, 1),
          random.uniform(keys, -1, 1)};
}

struct Outputs {
  std::vector<float> y, lse;
};
Outputs attend(const Device& device, const Inputs& in, std::int64_t kv_len, const AttentionOptions& options, AttentionRoute route,
               DType type = DType::f32) {
  Guarded q(device, DType::f32, {kHeads, in.seq, kDim}), k(device, type, {kKvHeads, in.kv_len, kDim});
  Guarded v(device, type, {kKvHeads, in.kv_len, kDim}), y(device, DType::f32, {kHeads, in.seq, kDim});
  Guarded lse(device, DType::f32, {kHeads, in.seq});
  write(q, DType::f32, in.q);
  write(k, type, in.k);
  write(v, type, in.v);
  AttentionOptions with_lse = options;
  with_lse.lse = lse.tensor();
  must(run(device, [&](CommandEncoder& e) {
    return ops::encode_attention(e, q.tensor(), k.tensor(), v.tensor(), y.tensor(), kv_len, with_lse, std::nullopt, route);
  }));
  return {y.read(), lse.read()};
}

/// Query rows [begin, end) of every head.
Inputs rows(const Inputs& in, std::int64_t begin, std::int64_t end) {
  Inputs part = in;
  part.seq = end - begin;
  part.q.clear();
  for (std::int64_t h = 0; h < kHeads; ++h) {
    part.q.insert(part.q.end(), in.q.begin() + (h * in.seq + begin) * kDim, in.q.begin() + (h * in.seq + end) * kDim);
  }
  return part;
}

TEST(AttentionProperty, a_row_equals_itself_in_any_batch) {
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    Random random(171);
    SCOPED_TRACE(random.trace());
    for (const auto& [route, seq, type] : {std::tuple(AttentionRoute::tiled, std::int64_t{100}, DType::f32),
                                           std::tuple(AttentionRoute::tiled, std::int64_t{100}, DType::f16),
                                           std::tuple(AttentionRoute::split, std::int64_t{16}, DType::f32)}) {
      for (const std::int64_t window : {std::int64_t{-1}, std::int64_t{50}}) {
        const Inputs in = inputs(seq, 700, random);
        AttentionOptions options;
        options.window = window;
        const Outputs all = attend(v.device, in, 700, options, route, type);
        EXPECT_EQ(attend(v.device, in, 700, options, route, type).y, all.y) << "twice equals once";
        for (const auto& [begin, end] : {std::pair<std::int64_t, std::int64_t>{0, 1}, {3, 4}, {5, 16}, {seq - 7, seq}}) {
          options.p0 = Scalar<std::int64_t>(700 - seq + begin);
          const Outputs part = attend(v.device, rows(in, begin, end), 700, options, route, type);
          for (std::int64_t h = 0; h < kHeads; ++h) {
            for (std::int64_t i = begin; i < end; ++i) {
              const auto at = [&](std::int64_t row, std::int64_t count) { return static_cast<std::size_t>((h * count + row) * kDim); };
              const auto x = part.y.begin() + static_cast<std::ptrdiff_t>(at(i - begin, end - begin));
              ASSERT_TRUE(std::equal(x, x + kDim, all.y.begin() + static_cast<std::ptrdiff_t>(at(i, seq)))) << "row " << i;
            }
          }
          options.p0.reset();
        }
      }
    }
  }
}

TEST(AttentionProperty, prompt_in_chunks_equals_prompt_at_once) {
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    Random random(172);
    SCOPED_TRACE(random.trace());
    const Inputs in = inputs(150, 150, random);
    for (const DType type : {DType::f32, DType::f16}) {
      const Outputs all = attend(v.device, in, 150, {}, AttentionRoute::tiled, type);
      for (std::int64_t begin = 0; begin < 150; begin += 60) {
        const std::int64_t end = std::min<std::int64_t>(begin + 60, 150);
        // Later keys are not there yet.
        const Outputs part = attend(v.device, rows(in, begin, end), end, {}, AttentionRoute::tiled, type);
        for (std::int64_t h = 0; h < kHeads; ++h) {
          for (std::int64_t i = 0; i < (end - begin) * kDim; ++i) {
            ASSERT_EQ(part.y[static_cast<std::size_t>(h * (end - begin) * kDim + i)], all.y[static_cast<std::size_t>((h * 150 + begin) * kDim + i)]);
          }
        }
      }
    }
  }
}

TEST(AttentionProperty, outputs_lie_between_the_values) {
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    Random random(173);
    SCOPED_TRACE(random.trace());
    Inputs in = inputs(40, 90, random);
    std::fill(in.v.begin(), in.v.end(), 0.75f);
    for (const float y : attend(v.device, in, 90, {}, AttentionRoute::tiled).y) ASSERT_NEAR(y, 0.75f, 1e-6);
  }
}

TEST(AttentionProperty, lse_merges_two_halves_of_the_keys) {
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    Random random(174);
    SCOPED_TRACE(random.trace());
    const Inputs in = inputs(3, 600, random);
    AttentionOptions options;
    options.causal = false;
    const Outputs all = attend(v.device, in, 600, options, AttentionRoute::split);
    Inputs first = in, second = in;
    first.kv_len = second.kv_len = 300;
    for (const auto& [part, begin] : {std::pair(&first, 0), std::pair(&second, 300)}) {
      for (const auto& [from, to] : {std::pair(&in.k, &part->k), std::pair(&in.v, &part->v)}) {
        to->clear();
        for (std::int64_t h = 0; h < kKvHeads; ++h) {
          to->insert(to->end(), from->begin() + (h * 600 + begin) * kDim, from->begin() + (h * 600 + begin + 300) * kDim);
        }
      }
    }
    const Outputs a = attend(v.device, first, 300, options, AttentionRoute::split), b = attend(v.device, second, 300, options, AttentionRoute::split);
    for (std::size_t i = 0; i < all.y.size(); ++i) {
      const std::size_t r = i / static_cast<std::size_t>(kDim);
      const double wa = std::exp(double{a.lse[r]} - double{all.lse[r]}), wb = std::exp(double{b.lse[r]} - double{all.lse[r]});
      ASSERT_NEAR(wa + wb, 1.0, 1e-5);
      ASSERT_NEAR(wa * double{a.y[i]} + wb * double{b.y[i]}, double{all.y[i]}, 1e-5);
    }
  }
}

}  // namespace
}  // namespace mlxn::test::attention_suite
