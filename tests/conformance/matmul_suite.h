#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/cpu_features.h"
#include "gtest/gtest.h"
#include "mlxn/ops/matmul.h"
#include "mlxn/quant.h"
#include "ops/matmul/matmul.h"
#include "tests/conformance/variants.h"
#include "tests/reference/matmul.h"
#include "tests/support/devices.h"
#include "tests/support/guarded.h"
#include "tests/support/random.h"
#include "tests/support/weights.h"

// What the suites of the product share: operands between guards, the product through both doors, and what is expected of it.
namespace mlxn::test::matmul_suite {

enum class Door { raw, prepared };
inline constexpr Door kDoors[] = {Door::raw, Door::prepared};
inline constexpr Numerics kClasses[] = {Numerics::exact, Numerics::f16, Numerics::bf16, Numerics::int8act};
inline constexpr Route kRoutes[] = {Route::vector, Route::tile};

/// One weight matrix, as bytes, as values and at both doors of a device.
struct Matrix {
  DType type;
  std::size_t n, k;
  std::vector<std::byte> bytes;
  std::vector<float> values, magnitudes;
  Guarded raw;
  Weight weight;

  // Blocks may stand at any address; elements may not.
  static std::uint64_t odd(DType t) { return is_block(t) ? 1 : block_bytes(t); }
  Matrix(const Device& device, DType t, std::size_t rows, std::size_t columns, std::vector<std::byte> data)
      : Matrix(device, t, rows, columns, std::move(data), odd(t)) {}
  Matrix(const Device& device, DType t, std::size_t rows, std::size_t columns, std::vector<std::byte> data, std::uint64_t shift)
      : type(t), n(rows), k(columns), bytes(std::move(data)), values(decoded(t, bytes)), magnitudes(weight_magnitudes(t, bytes)),
        raw(device, t, {static_cast<std::int64_t>(n), static_cast<std::int64_t>(k)}, {0, shift}) {
    raw.write(std::span<const std::byte>(bytes));
    PrepareOptions options;
    options.mode = PrepareMode::on;
    weight = must(Weight::prepare(device, raw.tensor(), options));
  }

  [[nodiscard]] MatmulShape shape(std::size_t m) const {
    return {static_cast<std::int64_t>(m), static_cast<std::int64_t>(n), static_cast<std::int64_t>(k), type};
  }
};

/// How the operands lie in memory.
struct Layout {
  DType x = DType::f32;
  DType y = DType::f32;
  std::int64_t x_pad = 0;
  std::int64_t y_pad = 0;
  bool aligned = false;  // the first elements at aligned addresses, not beside them
};

/// y of x.size() / k rows. Checks guards, padding and operands.
inline std::vector<float> multiply(const Device& device, Door door, const Matrix& w, std::span<const float> x,
                            const MatmulOptions& options, const Layout& layout = {},
                            std::optional<CpuIsa> isa = std::nullopt) {
  const MatmulShape shape = w.shape(x.size() / w.k);
  Guarded x_buffer(device, layout.x, {shape.m, shape.k}, {layout.x_pad, layout.aligned ? 0 : block_bytes(layout.x)});
  Guarded y_buffer(device, layout.y, {shape.m, shape.n}, {layout.y_pad, layout.aligned ? 0 : block_bytes(layout.y)});
  x_buffer.write(x);
  must(run(device, [&](CommandEncoder& encoder) {
    if (isa) {
      return door == Door::raw ? ops::encode_quantized_matmul_ggml(encoder, x_buffer.tensor(), w.raw.tensor(), y_buffer.tensor(), shape, options, isa)
                               : ops::encode_matmul(encoder, x_buffer.tensor(), w.weight, y_buffer.tensor(), options, isa);
    }
    return door == Door::raw ? quantized_matmul_ggml(encoder, x_buffer.tensor(), w.raw.tensor(), y_buffer.tensor(), shape, options)
                             : matmul(encoder, x_buffer.tensor(), w.weight, y_buffer.tensor(), options);
  }));
  EXPECT_TRUE(y_buffer.intact());
  EXPECT_TRUE(x_buffer.unchanged());
  return y_buffer.read();
}

/// What runs when the class is asked for; nothing if the device does not have it.
inline std::optional<Numerics> class_that_runs(const Device& device, Door door, const MatmulShape& shape, const MatmulOptions& options) {
  const Result<MatmulPlan> plan = plan_matmul(device, shape, door == Door::prepared, options);
  if (!plan) {
    EXPECT_EQ(plan.error().code(), ErrorCode::unsupported) << plan.error().message();
    return std::nullopt;
  }
  EXPECT_FALSE(plan->kernel.empty());
  if (options.route != Route::automatic) {
    EXPECT_EQ(plan->route, options.route) << plan->kernel;
  }
  if (options.numerics == Numerics::automatic) {
    EXPECT_TRUE(plan->numerics == Numerics::exact || plan->numerics == Numerics::f16) << to_string(plan->numerics);
  } else if (plan->numerics != options.numerics) {  // only towards exact, and only where the type lacks the class
    EXPECT_EQ(plan->numerics, Numerics::exact) << plan->kernel;
    EXPECT_TRUE(options.numerics == Numerics::int8act && !has_int8act(shape.type)) << plan->kernel;
  }
  return plan->numerics;
}

inline testing::AssertionResult all_near(std::span<const float> y, std::span<const Reference> wanted, const Tolerance& tolerance,
                                  std::size_t n) {
  for (std::size_t i = 0; i < y.size(); ++i) {
    const testing::AssertionResult near = is_near(y[i], wanted[i], tolerance);
    if (!near) return testing::AssertionFailure() << "y[" << i / n << "," << i % n << "]: " << near.message();
  }
  return testing::AssertionSuccess();
}

inline testing::AssertionResult same_bits(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return testing::AssertionFailure() << a.size() << " and " << b.size() << " elements";
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i])) {
      return testing::AssertionFailure() << "element " << i << ": " << std::hexfloat << a[i] << " and " << b[i];
    }
  }
  return testing::AssertionSuccess();
}

inline std::string describe(Door door, Numerics numerics, Route route) {
  return std::string(door == Door::raw ? "raw" : "prepared") + ", " + std::string(to_string(numerics)) +
         (route == Route::vector ? ", vector" : route == Route::tile ? ", tile" : ", automatic");
}
/// The tests of every weight type on every device: what comes out in matmul.cpp, which bits in matmul_bits.cpp.
class Format : public testing::TestWithParam<std::tuple<std::string, DType>> {
 protected:
  const Device& device() const { return device_named(std::get<0>(GetParam())); }
  DType type() const { return std::get<1>(GetParam()); }
  std::size_t unit() const { return block_elems(type()); }
  bool is_small() const { return wants_small_sizes(device().capabilities().backend); }
  bool is_cpu() const { return device().capabilities().backend == "cpu"; }
  Matrix random_matrix(std::size_t n, std::size_t k, Random& random) const {
    return Matrix(device(), type(), n, k, random_weights(type(), n * k, random));
  }
};

}  // namespace mlxn::test::matmul_suite
