#include "mlxn/ops/sample.h"

#include "tests/conformance/variants.h"

namespace mlxn::test::sample_suite {
namespace {

std::vector<std::uint32_t> draw(const Device& device, std::int64_t rows, const std::vector<float>& logits, const SampleOptions& options) {
  const std::int64_t vocab = static_cast<std::int64_t>(logits.size()) / rows;
  Guarded x(device, DType::f32, {rows, vocab}), ids(device, DType::u32, {rows});
  write(x, DType::f32, logits);
  must(run(device, [&](CommandEncoder& e) { return sample(e, x.tensor(), ids.tensor(), options, 17); }));
  const std::vector<std::byte> bytes = ids.read_bytes();
  std::vector<std::uint32_t> out(static_cast<std::size_t>(rows));
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

const SampleOptions kOptions[] = {
    {.seed = 1}, {.top_k = 30, .seed = 2}, {.top_p = 0.8f, .seed = 3}, {.temperature = 0.7f, .min_p = 0.02f, .seed = 4}};

TEST(SampleProperty, a_row_depends_on_its_place_and_its_logits_only) {
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    Random random(81);
    const std::vector<float> logits = random.uniform(6 * 500, -3, 3);
    for (const SampleOptions& options : kOptions) {
      const std::vector<std::uint32_t> all = draw(v.device, 6, logits, options);
      EXPECT_EQ(draw(v.device, 6, logits, options), all) << "twice equals once";
      for (std::ptrdiff_t rows = 1; rows < 6; ++rows) {
        const std::vector<std::uint32_t> some = draw(v.device, rows, {logits.begin(), logits.begin() + rows * 500}, options);
        EXPECT_EQ(some, std::vector<std::uint32_t>(all.begin(), all.begin() + rows));
      }
    }
  }
}

TEST(SampleProperty, a_common_shift_changes_nothing) {
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    Random random(82);
    std::vector<float> logits = random.uniform(100 * 64, -3, 3);
    for (float& value : logits) value = std::round(value * 256) / 256;  // so that the shift is exact
    std::vector<float> shifted = logits;
    for (float& value : shifted) value += 16;
    for (const SampleOptions& options : kOptions) EXPECT_EQ(draw(v.device, 100, shifted, options), draw(v.device, 100, logits, options));
  }
}

TEST(SampleProperty, filters_that_keep_all_equal_no_filter) {
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    Random random(83);
    const std::vector<float> logits = random.uniform(50 * 64, -3, 3);
    const std::vector<std::uint32_t> plain = draw(v.device, 50, logits, {.seed = 5});
    EXPECT_EQ(draw(v.device, 50, logits, {.top_k = 64, .seed = 5}), plain);
    EXPECT_EQ(draw(v.device, 50, logits, {.top_k = 1000, .seed = 5}), plain);
    EXPECT_EQ(draw(v.device, 50, logits, {.top_k = -1, .min_p = 1e-6f, .seed = 5}), plain);
  }
}

}  // namespace
}  // namespace mlxn::test::sample_suite
