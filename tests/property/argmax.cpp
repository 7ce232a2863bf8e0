#include "mlxn/ops/argmax.h"

#include <algorithm>

#include "mlxn/ops/sample.h"
#include "tests/conformance/variants.h"

namespace mlxn::test::argmax_suite {
namespace {

std::vector<std::uint32_t> ids_of(const Device& device, std::int64_t rows, const std::vector<float>& x, bool by_sample = false) {
  const std::int64_t n = static_cast<std::int64_t>(x.size()) / rows;
  Guarded gx(device, DType::f32, {rows, n}), ids(device, DType::u32, {rows});
  write(gx, DType::f32, x);
  must(run(device, [&](CommandEncoder& e) {
    return by_sample ? sample(e, gx.tensor(), ids.tensor(), {.temperature = 0}, 0) : argmax(e, gx.tensor(), ids.tensor());
  }));
  const std::vector<std::byte> bytes = ids.read_bytes();
  std::vector<std::uint32_t> out(static_cast<std::size_t>(rows));
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

TEST(ArgmaxProperty, a_row_equals_itself_in_any_batch) {
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    Random random(71);
    const std::vector<float> x = random.uniform(9 * 20001, -3, 3);
    const std::vector<std::uint32_t> all = ids_of(v.device, 9, x);
    EXPECT_EQ(ids_of(v.device, 9, x), all) << "twice equals once";
    for (std::ptrdiff_t r = 0; r < 9; ++r) {
      EXPECT_EQ(ids_of(v.device, 1, {x.begin() + r * 20001, x.begin() + (r + 1) * 20001})[0], all[static_cast<std::size_t>(r)]);
    }
  }
}

TEST(ArgmaxProperty, a_shift_and_a_rotation_move_it_along) {
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    Random random(72);
    std::vector<float> x = random.uniform(777, -3, 3);
    const std::uint32_t at = ids_of(v.device, 1, x)[0];
    for (float& value : x) value *= 2;
    EXPECT_EQ(ids_of(v.device, 1, x)[0], at);
    std::rotate(x.begin(), x.begin() + 100, x.end());
    EXPECT_EQ(ids_of(v.device, 1, x)[0], (at + 677) % 777);
  }
}

TEST(ArgmaxProperty, sampling_at_temperature_zero_is_argmax) {
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    Random random(73);
    for (const std::int64_t n : {1, 17, 1000, 50000}) {
      std::vector<float> x = random.uniform(static_cast<std::size_t>(4 * n), -3, 3);
      for (float& value : x) value = std::round(value * 4) / 4;  // many ties
      EXPECT_EQ(ids_of(v.device, 4, x, true), ids_of(v.device, 4, x));
    }
  }
}

}  // namespace
}  // namespace mlxn::test::argmax_suite
