#pragma once

#include <functional>

#include "tests/conformance/variants.h"

namespace mlxn::test {

using Binary = std::function<Result<void>(CommandEncoder&, const Tensor& a, const Tensor& b, const Tensor& y)>;

inline std::vector<float> apply(const Binary& op, const std::vector<float>& a, const std::vector<float>& b,
                                DType type = DType::f32) {
  const Shape shape{static_cast<std::int64_t>(a.size())};
  Guarded ga(cpu(2), type, shape), gb(cpu(2), type, shape), gy(cpu(2), type, shape);
  write(ga, type, a);
  write(gb, type, b);
  must(run(cpu(2), [&](CommandEncoder& e) { return op(e, ga.tensor(), gb.tensor(), gy.tensor()); }));
  return gy.read();
}

/// An element does not depend on its neighbours nor on where it stands: every suffix gives the same values.
inline void check_suffixes(const Binary& op, DType type) {
  Random random(60);
  const std::vector<float> a = random.uniform(70, -5, 5), b = random.uniform(70, -2, 2);
  const std::vector<float> all = apply(op, a, b, type);
  EXPECT_EQ(apply(op, a, b, type), all) << "twice equals once";
  for (std::ptrdiff_t skip = 1; skip < 70; skip += 3) {
    const auto suffix = [&](const std::vector<float>& v) { return std::vector<float>(v.begin() + skip, v.end()); };
    EXPECT_EQ(apply(op, suffix(a), suffix(b), type), suffix(all)) << "without the first " << skip;
  }
}

}  // namespace mlxn::test
