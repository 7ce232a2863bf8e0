// The product with weights, on every device: all formats through both doors, in every numeric class, on both routes,
// against the float64 reference; then what the contract says besides values.
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <mutex>
#include <string>
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
#include "tests/support/page_end.h"
#include "tests/support/random.h"
#include "tests/support/weights.h"

namespace mlxn::test::matmul_suite {
namespace {

enum class Door { raw, prepared };
constexpr Door kDoors[] = {Door::raw, Door::prepared};
constexpr Numerics kClasses[] = {Numerics::exact, Numerics::f16, Numerics::bf16, Numerics::int8act};
constexpr Route kRoutes[] = {Route::vector, Route::tile};

// One weight matrix, as bytes, as values and at both doors of a device.
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

// How the operands lie in memory.
struct Layout {
  DType x = DType::f32;
  DType y = DType::f32;
  std::int64_t x_pad = 0;
  std::int64_t y_pad = 0;
  bool aligned = false;  // the first elements at aligned addresses, not beside them
};

// y of x.size() / k rows. Checks guards, padding and operands.
std::vector<float> multiply(const Device& device, Door door, const Matrix& w, std::span<const float> x,
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

// What runs when the class is asked for; nothing if the device does not have it.
std::optional<Numerics> class_that_runs(const Device& device, Door door, const MatmulShape& shape, const MatmulOptions& options) {
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

testing::AssertionResult all_near(std::span<const float> y, std::span<const Reference> wanted, const Tolerance& tolerance,
                                  std::size_t n) {
  for (std::size_t i = 0; i < y.size(); ++i) {
    const testing::AssertionResult near = is_near(y[i], wanted[i], tolerance);
    if (!near) return testing::AssertionFailure() << "y[" << i / n << "," << i % n << "]: " << near.message();
  }
  return testing::AssertionSuccess();
}

testing::AssertionResult same_bits(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return testing::AssertionFailure() << a.size() << " and " << b.size() << " elements";
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i])) {
      return testing::AssertionFailure() << "element " << i << ": " << std::hexfloat << a[i] << " and " << b[i];
    }
  }
  return testing::AssertionSuccess();
}

std::string describe(Door door, Numerics numerics, Route route) {
  return std::string(door == Door::raw ? "raw" : "prepared") + ", " + std::string(to_string(numerics)) +
         (route == Route::vector ? ", vector" : route == Route::tile ? ", tile" : ", automatic");
}

// ---- every format ------------------------------------------------------------------------------------------------

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

// Sizes around the widths of vectors and tiles. k is in blocks; dense rows take the odd lengths themselves.
struct Size {
  std::size_t n, k_blocks;
};
constexpr Size kSizes[] = {{1, 1}, {2, 1}, {3, 5}, {7, 3}, {17, 1}, {63, 1}, {65, 7}, {65, 1}, {1, 7}, {16, 3}};
constexpr std::size_t kRows[] = {1, 2, 3, 7, 8, 9, 16, 33, 64, 65, 512};
// For an emulator and for sanitizers the sizes that reach every branch: blocks of both lengths, rows of w beyond a tile, both kinds of tiles.
constexpr Size kFewSizes[] = {{1, 1}, {3, 5}, {67, 3}};
constexpr std::size_t kFewRows[] = {1, 3, 8, 10, 33};

TEST_P(Format, EverySizeOnBothRoutesInEveryClass) {
  Random random(1);
  SCOPED_TRACE(random.trace());
  const std::span<const Size> sizes = is_small() ? std::span<const Size>(kFewSizes) : kSizes;
  const std::span<const std::size_t> all_rows = is_small() ? std::span<const std::size_t>(kFewRows) : kRows;
  for (std::size_t number = 0; number < sizes.size(); ++number) {
    const Size& size = sizes[number];
    const std::size_t k = is_block(type()) ? size.k_blocks * unit() : std::size_t{1} << (size.k_blocks - 1) | size.k_blocks;
    const std::size_t most_rows = all_rows.back();
    // At an odd address, at one of which nothing but the parity is known, and aligned.
    const std::uint64_t shift = number % 3 == 0 ? Matrix::odd(type()) : number % 3 == 1 ? std::max<std::uint64_t>(2, Matrix::odd(type())) : 0;
    const Matrix w(device(), type(), size.n, k, random_weights(type(), size.n * k, random), shift);
    const std::vector<float> x = random.uniform(most_rows * k, -1.0f, 1.0f);
    std::map<Numerics, std::vector<Reference>> references;
    for (const Numerics numerics : kClasses) {
      for (const Door door : kDoors) {
        for (const Route route : kRoutes) {
          const MatmulOptions options = {numerics, route};
          const std::optional<Numerics> ran = class_that_runs(device(), door, w.shape(1), options);
          if (!ran || (*ran == Numerics::exact && numerics != Numerics::exact)) continue;
          std::vector<Reference>& wanted = references[*ran];
          if (wanted.empty()) wanted = matmul_reference(x, w.values, w.magnitudes, most_rows, size.n, k, *ran);
          for (const std::size_t m : all_rows) {
            SCOPED_TRACE(testing::Message() << m << "x" << size.n << "x" << k << " " << describe(door, numerics, route));
            if (is_small() && number != 0 && (route == Route::vector ? m > 10 : m < 10)) continue;  // the other route's sizes
            Layout layout;
            layout.aligned = m % 2 != 0;
            layout.x_pad = m % 2 == 0 ? 3 : 0;
            layout.y_pad = m % 3 == 0 ? 5 : 0;
            const std::vector<float> y = multiply(device(), door, w, std::span(x).first(m * k), options, layout);
            ASSERT_TRUE(all_near(y, wanted, matmul_tolerance(*ran, DType::f32, k), size.n));
          }
        }
      }
    }
    EXPECT_TRUE(w.raw.unchanged());
  }
}

TEST_P(Format, AutomaticRouteAndClass) {
  Random random(2);
  SCOPED_TRACE(random.trace());
  const std::size_t k = is_block(type()) ? 3 * unit() : 96;
  const Matrix w = random_matrix(33, k, random);
  for (const Door door : kDoors) {
    const std::int64_t threshold = must(matmul_vector_threshold(device(), w.shape(1), door == Door::prepared));
    for (const std::int64_t m : {std::int64_t{1}, std::min<std::int64_t>(threshold, 100), std::min<std::int64_t>(threshold, 100) + 1}) {
      if (m < 1) continue;
      SCOPED_TRACE(testing::Message() << "m = " << m << " " << describe(door, Numerics::automatic, Route::automatic));
      const std::size_t rows = static_cast<std::size_t>(m);
      const std::optional<Numerics> ran = class_that_runs(device(), door, w.shape(rows), {});
      ASSERT_TRUE(ran);
      const std::vector<float> x = random.uniform(rows * k, -1.0f, 1.0f);
      const std::vector<float> y = multiply(device(), door, w, x, {});
      ASSERT_TRUE(all_near(y, matmul_reference(x, w.values, w.magnitudes, rows, w.n, k, *ran), matmul_tolerance(*ran, DType::f32, k), w.n));
    }
  }
}

TEST_P(Format, NarrowActivationsAndOutputs) {
  Random random(3);
  SCOPED_TRACE(random.trace());
  const std::size_t k = is_block(type()) ? 3 * unit() : 77;
  const Matrix w = random_matrix(19, k, random);
  for (const auto& [x_type, y_type] : {std::pair(DType::f16, DType::f32), std::pair(DType::bf16, DType::bf16),
                                       std::pair(DType::f32, DType::f16), std::pair(DType::f16, DType::f16)}) {
    for (const Door door : kDoors) {
      for (const Route route : kRoutes) {
        for (const Numerics numerics : {Numerics::exact, Numerics::bf16, Numerics::int8act}) {
          const std::optional<Numerics> ran = class_that_runs(device(), door, w.shape(5), {numerics, route});
          if (!ran) continue;
          SCOPED_TRACE(testing::Message() << to_string(x_type) << " to " << to_string(y_type) << " " << describe(door, numerics, route));
          std::vector<float> x = random.uniform(11 * k, -1.0f, 1.0f);
          for (float& v : x) v = x_type == DType::f16 ? static_cast<float>(f16(v)) : x_type == DType::bf16 ? static_cast<float>(bf16(v)) : v;
          const std::vector<float> y = multiply(device(), door, w, x, {numerics, route}, {x_type, y_type, 1, 3});
          ASSERT_TRUE(all_near(y, matmul_reference(x, w.values, w.magnitudes, 11, w.n, k, *ran), matmul_tolerance(*ran, y_type, k), w.n));
        }
      }
    }
  }
}

// x of 16 bits where it can be read as it lies: by the alignment of its base and of its rows, whether k ends inside of what a kernel
// takes at a time, and with rows beyond a tile. Products of f16 values are those of the same values in f32.
TEST_P(Format, NarrowActivationsWhereTheyLie) {
  Random random(13);
  SCOPED_TRACE(random.trace());
  const std::size_t block = is_block(type()) ? unit() : 1;
  std::vector<std::size_t> lengths = {std::max<std::size_t>(block, 64) * (is_small() ? 1 : 3)};
  if (block < 64) lengths.push_back(is_small() ? 96 : 480);
  if (block == 1) lengths.push_back(72);
  for (const std::size_t k : lengths) {
    const Matrix w = random_matrix(is_small() ? 19 : 150, k, random);
    const std::size_t most_rows = is_small() ? 11 : 140;
    for (const DType x_type : {DType::f16, DType::bf16}) {
      std::vector<float> x = random.uniform(most_rows * k, -1.0f, 1.0f);
      for (std::size_t i = 0; i < k; ++i) x[k + i] *= 1e-3f, x[2 * k + i] *= 3e4f;
      x = rounded(x_type, x);
      for (const Numerics numerics : {Numerics::automatic, Numerics::f16, Numerics::bf16}) {
        const MatmulOptions options = {numerics, Route::tile};
        const std::optional<Numerics> ran = class_that_runs(device(), Door::prepared, w.shape(most_rows), options);
        if (!ran || (is_small() && numerics != Numerics::automatic)) continue;
        Tolerance tolerance = matmul_tolerance(*ran, DType::f32, k);
        if (*ran == Numerics::f16) tolerance.c *= 2;  // of bf16, rows are scaled
        const bool holds = *ran == Numerics::f16 || (*ran == Numerics::bf16 && x_type == DType::bf16);
        const std::vector<Reference> wanted =
            matmul_reference(x, w.values, w.magnitudes, most_rows, w.n, k, holds ? Numerics::exact : *ran);
        std::vector<float> first;
        for (const std::size_t m : {most_rows, std::size_t{5}}) {
          for (const Layout& layout : {Layout{x_type, DType::f32, 0, 0, true}, Layout{x_type, DType::f32, 8, 3, true},
                                       Layout{x_type, DType::f32, 3, 0, true}, Layout{x_type, DType::f32, 0, 0, false},
                                       Layout{x_type, DType::f16, 0, 5, true}}) {
            SCOPED_TRACE(testing::Message() << m << "x" << w.n << "x" << k << " " << to_string(x_type) << " pad " << layout.x_pad
                                            << (layout.aligned ? " aligned " : " not aligned ")
                                            << describe(Door::prepared, numerics, Route::tile));
            const std::vector<float> y = multiply(device(), Door::prepared, w, std::span(x).first(m * k), options, layout);
            if (layout.y == DType::f16) {  // 3e4 times a product may be beyond f16
              for (std::size_t i = 0; i < y.size(); ++i) {
                if (i / w.n == 2) continue;
                Tolerance narrow = matmul_tolerance(*ran, DType::f16, k);
                narrow.c = std::max(narrow.c, tolerance.c);
                ASSERT_TRUE(is_near(y[i], wanted[i], narrow)) << i;
              }
              continue;
            }
            ASSERT_TRUE(all_near(y, wanted, tolerance, w.n));
            if (layout.x_pad == 0 && layout.aligned && m == most_rows) first = y;
            if (layout.x_pad == 8 && m == most_rows) {
              EXPECT_TRUE(same_bits(y, first)) << "rows at other distances";
            }
          }
        }
      }
    }
  }
}

// What is not finite stays in its own row, where x is read as it lies and where it is not.
TEST_P(Format, NarrowRowsThatAreNotFinite) {
  Random random(14);
  SCOPED_TRACE(random.trace());
  const std::size_t k = std::max<std::size_t>(is_block(type()) ? unit() : 1, 64);
  const Matrix w = random_matrix(21, k, random);
  constexpr std::size_t kM = 12;
  for (const DType x_type : {DType::f16, DType::bf16}) {
    std::vector<float> x = rounded(x_type, random.uniform(kM * k, -1.0f, 1.0f));
    const std::vector<Reference> wanted = matmul_reference(x, w.values, w.magnitudes, kM, w.n, k, Numerics::exact);
    x[3 * k + 7] = std::numeric_limits<float>::quiet_NaN();
    x[8 * k + 1] = std::numeric_limits<float>::infinity();
    std::vector<std::uint16_t> bits;
    for (const float v : x) bits.push_back(x_type == DType::f16 ? f16(v).bits : bf16(v).bits);
    for (const bool aligned : {true, false}) {
      SCOPED_TRACE(testing::Message() << to_string(x_type) << (aligned ? "" : " not aligned"));
      const std::optional<Numerics> ran = class_that_runs(device(), Door::prepared, w.shape(kM), {Numerics::automatic, Route::tile});
      ASSERT_TRUE(ran);
      Tolerance tolerance = matmul_tolerance(*ran, DType::f32, k);
      if (*ran == Numerics::f16) tolerance.c *= 2;
      Guarded x_buffer(device(), x_type, {kM, static_cast<std::int64_t>(k)}, {0, aligned ? 0 : block_bytes(x_type)});
      Guarded y_buffer(device(), DType::f32, {kM, 21});
      x_buffer.write(std::as_bytes(std::span(bits)));
      must(run(device(), [&](CommandEncoder& encoder) {
        return matmul(encoder, x_buffer.tensor(), w.weight, y_buffer.tensor(), {Numerics::automatic, Route::tile});
      }));
      const std::vector<float> y = y_buffer.read();
      for (std::size_t i = 0; i < y.size(); ++i) {
        if (i / 21 == 3) {
          EXPECT_TRUE(std::isnan(y[i])) << i;
        } else if (i / 21 == 8) {
          EXPECT_FALSE(std::isfinite(y[i])) << i;
        } else {
          EXPECT_TRUE(is_near(y[i], wanted[i], tolerance)) << i;
        }
      }
    }
  }
}

// A row of x with a single one picks a column of the weights: in class exact it comes out with its very bits.
TEST_P(Format, OneHotRowsReturnTheExactWeights) {
  Random random(4);
  SCOPED_TRACE(random.trace());
  const std::size_t k = is_block(type()) ? std::max<std::size_t>(unit(), 64) : 40;
  const std::size_t n = 35;
  std::vector<std::byte> bytes = random_weights(type(), n * k, random);
  if (type() == DType::mxfp4) {  // all exponents, the extreme ones with codes that stay finite
    for (std::size_t b = 0; b * 17 < bytes.size(); ++b) {
      bytes[b * 17] = static_cast<std::byte>(b % 5 == 0 ? 254 : b % 5 == 1 ? 0 : b % 5 == 2 ? 1 : (b * 3) % 255);
      for (std::size_t i = 1; i < 17 && b % 5 == 0; ++i) bytes[b * 17 + i] &= std::byte{0xbb};
    }
  }
  const Matrix w(device(), type(), n, k, bytes);
  std::vector<float> x(k * k, 0.0f);
  for (std::size_t i = 0; i < k; ++i) x[i * k + i] = 1.0f;
  for (const Door door : kDoors) {
    for (const Route route : kRoutes) {
      SCOPED_TRACE(describe(door, Numerics::exact, route));
      const std::vector<float> y = multiply(device(), door, w, x, {Numerics::exact, route});
      for (std::size_t i = 0; i < k; ++i) {
        for (std::size_t column = 0; column < n; ++column) {
          ASSERT_EQ(y[i * n + column], w.values[column * k + i]) << "weight [" << column << "," << i << "]";  // -0 == 0
        }
      }
    }
  }
}

// Operands that end where memory does: nothing may be read beyond their last element, whatever is done with it.
TEST_P(Format, ReadsStopAtTheEndOfTheOperands) {
  if (device().capabilities().backend != "cpu") GTEST_SKIP() << "pages are the CPU's";
  Random random(11);
  SCOPED_TRACE(random.trace());
  for (const auto& [n, blocks] : {std::pair<std::size_t, std::size_t>(1, 1), {5, 3}, {19, 1}}) {
    const std::size_t k = is_block(type()) ? blocks * unit() : blocks * 11;
    const std::vector<std::byte> bytes = random_weights(type(), n * k, random);
    const Tensor raw = at_page_end(device(), type(), {static_cast<std::int64_t>(n), static_cast<std::int64_t>(k)}, bytes);
    PrepareOptions prepare;
    prepare.mode = PrepareMode::on;
    const Weight weight = must(Weight::prepare(device(), raw, prepare));
    for (const std::size_t m : {1, 3, 13}) {
      const std::vector<float> values = random.uniform(m * k, -1.0f, 1.0f);
      const MatmulShape shape = {static_cast<std::int64_t>(m), static_cast<std::int64_t>(n), static_cast<std::int64_t>(k), type()};
      const Tensor x = at_page_end(device(), DType::f32, {shape.m, shape.k}, std::as_bytes(std::span(values)));
      const Tensor y = at_page_end(device(), DType::f32, {shape.m, shape.n}, std::vector<std::byte>(m * n * 4, std::byte{0xff}));
      for (const Numerics numerics : {Numerics::exact, Numerics::int8act}) {
        if (numerics == Numerics::int8act && !has_int8act(type())) continue;
        const std::vector<Reference> wanted =
            matmul_reference(values, decoded(type(), bytes), weight_magnitudes(type(), bytes), m, n, k, numerics);
        for (const Door door : kDoors) {
          for (const Route route : kRoutes) {
            SCOPED_TRACE(describe(door, numerics, route));
            must(run(device(), [&](CommandEncoder& encoder) {
              const MatmulOptions options = {numerics, route};
              return door == Door::raw ? quantized_matmul_ggml(encoder, x, raw, y, shape, options) : matmul(encoder, x, weight, y, options);
            }));
            std::vector<float> got(m * n);
            must(device().download(std::as_writable_bytes(std::span(got)), y));
            ASSERT_TRUE(all_near(got, wanted, matmul_tolerance(numerics, DType::f32, k), n));
          }
        }
      }
    }
  }
}

TEST_P(Format, BatchInvariantRowsEqualSingleRows) {
  Random random(5);
  SCOPED_TRACE(random.trace());
  const std::size_t blocks_k = !is_small() ? 5 * unit() : is_cpu() ? 2 * unit() : 256;
  const std::size_t k = is_block(type()) ? blocks_k : is_small() ? 131 : 333;
  const Matrix w = random_matrix(21, k, random);
  const std::size_t rows = !is_small() ? 67 : is_cpu() ? 19 : 14;
  const std::vector<float> x = random.uniform(rows * k, -1.0f, 1.0f);
  for (const Numerics numerics : kClasses) {
    for (const Door door : kDoors) {
      for (const Route route : {Route::automatic, Route::vector, Route::tile}) {
        const MatmulOptions options = {numerics, route, true};
        const std::optional<Numerics> ran = class_that_runs(device(), door, w.shape(1), options);
        if (!ran || (is_small() && !is_cpu() && *ran != Numerics::exact)) continue;  // on a GPU a class is a matter of x alone
        SCOPED_TRACE(describe(door, numerics, route));
        std::vector<float> single;
        for (std::size_t row = 0; row < rows; ++row) {
          const std::vector<float> y = multiply(device(), door, w, std::span(x).subspan(row * k, k), options);
          single.insert(single.end(), y.begin(), y.end());
        }
        for (const std::size_t m : {std::size_t{2}, std::size_t{7}, std::size_t{8}, std::size_t{13}, rows}) {
          const std::vector<float> y = multiply(device(), door, w, std::span(x).first(m * k), options);
          ASSERT_TRUE(same_bits(y, std::span(single).first(m * w.n))) << m << " rows";
        }
      }
    }
  }
}

// Tiles of every size give the same bits, as do rows that one or several SIMD-groups of a GPU share, for any number of rows.
TEST_P(Format, LargeTilesAndLongRows) {
  Random random(12);
  SCOPED_TRACE(random.trace());
  const std::size_t block = is_block(type()) ? std::max<std::size_t>(unit(), 32) : 36;
  // A GPU takes large tiles where two rows of them occupy half of it.
  const Capabilities& c = device().capabilities();
  const std::size_t columns = c.backend == "cpu" ? 131 : static_cast<std::size_t>(std::max(c.compute_units / 4, 1)) * 128 + 3;
  const Matrix tile(device(), type(), columns, block, random_weights(type(), columns * block, random));
  const std::vector<float> x = random.uniform(133 * block, -1.0f, 1.0f);
  const MatmulOptions by_tile = {Numerics::exact, Route::tile};
  const std::vector<float> large = multiply(device(), Door::prepared, tile, x, by_tile);
  ASSERT_TRUE(all_near(large, matmul_reference(x, tile.values, tile.magnitudes, 133, tile.n, block, Numerics::exact),
                       matmul_tolerance(Numerics::exact, DType::f32, block), tile.n));
  const std::vector<float> small = multiply(device(), Door::prepared, tile, std::span(x).first(5 * block), by_tile);
  ASSERT_TRUE(same_bits(small, std::span(large).first(5 * tile.n)));

  for (const std::size_t k : {std::size_t{2048 + 256}, std::size_t{4096 + 512}}) {
    const Matrix w(device(), type(), 3, k, random_weights(type(), 3 * k, random));
    const std::vector<float> rows = random.uniform(5 * k, -1.0f, 1.0f);
    for (const Door door : kDoors) {
      SCOPED_TRACE(testing::Message() << "k = " << k << " " << describe(door, Numerics::exact, Route::vector));
      const MatmulOptions by_row = {Numerics::exact, Route::vector};
      const std::vector<float> y = multiply(device(), door, w, rows, by_row);
      ASSERT_TRUE(all_near(y, matmul_reference(rows, w.values, w.magnitudes, 5, w.n, k, Numerics::exact),
                           matmul_tolerance(Numerics::exact, DType::f32, k), w.n));
      ASSERT_TRUE(same_bits(multiply(device(), door, w, std::span(rows).first(k), by_row), std::span(y).first(w.n)));
    }
  }
}

TEST_P(Format, SameCallSameBits) {
  Random random(6);
  SCOPED_TRACE(random.trace());
  const std::size_t k = is_block(type()) ? (is_small() && is_cpu() ? 2 : 3) * unit() : is_small() ? 100 : 500;
  const std::size_t n = !is_small() ? 130 : is_cpu() ? 35 : 9;  // 35: some for each of three threads, and not a whole group of 16
  const std::vector<std::byte> bytes = random_weights(type(), n * k, random);
  const std::vector<float> x = random.uniform(37 * k, -1.0f, 1.0f);
  std::vector<Device> devices = {device(), device()};
  if (device().capabilities().backend == "cpu") {  // nor do the bits depend on the number of threads
    for (const int threads : {1, 2, 3}) {
      DeviceOptions options;
      options.threads = threads;
      devices.push_back(must(Device::open("cpu", options)));
    }
  }
  std::map<std::string, std::vector<float>> first;
  for (const Device& d : devices) {
    const Matrix w(d, type(), n, k, bytes);
    for (const Numerics numerics : kClasses) {
      for (const Door door : kDoors) {
        for (const Route route : kRoutes) {
          if (!class_that_runs(d, door, w.shape(1), {numerics, route})) continue;
          const std::vector<float> y = multiply(d, door, w, x, {numerics, route});
          std::vector<float>& before = first[describe(door, numerics, route)];
          if (before.empty()) before = y;
          ASSERT_TRUE(same_bits(y, before)) << describe(door, numerics, route) << ", " << d.capabilities().name;
        }
      }
    }
  }
}

// Large activations must not turn into infinities, and what is not finite stays in its own row.
TEST_P(Format, OutliersAndNonFiniteRows) {
  Random random(7);
  SCOPED_TRACE(random.trace());
  const std::size_t k = is_block(type()) ? 2 * unit() : 64;
  const Matrix w = random_matrix(9, k, random);
  std::vector<float> x = random.uniform(10 * k, -1.0f, 1.0f);
  for (std::size_t row = 0; row < 10; row += 3) x[row * k + row] = row % 2 == 0 ? 1e6f : -1e6f;
  for (const Numerics numerics : {Numerics::automatic, Numerics::exact, Numerics::int8act}) {
    for (const Door door : kDoors) {
      for (const Route route : kRoutes) {
        const std::optional<Numerics> ran = class_that_runs(device(), door, w.shape(10), {numerics, route});
        if (!ran) continue;
        SCOPED_TRACE(describe(door, numerics, route));
        const std::vector<float> y = multiply(device(), door, w, x, {numerics, route});
        // A class that scales rows to keep outliers finite rounds as f16 does, relative to each product.
        const Numerics values = *ran == Numerics::int8act ? *ran : Numerics::exact;
        Tolerance tolerance = matmul_tolerance(*ran, DType::f32, k);
        if (*ran == Numerics::f16) tolerance.c *= 2;
        ASSERT_TRUE(all_near(y, matmul_reference(x, w.values, w.magnitudes, 10, w.n, k, values), tolerance, w.n));
      }
    }
  }
  std::vector<float> broken = random.uniform(10 * k, -1.0f, 1.0f);
  const std::vector<Reference> wanted = matmul_reference(broken, w.values, w.magnitudes, 10, w.n, k, Numerics::exact);
  broken[4 * k + 5] = std::numeric_limits<float>::quiet_NaN();
  for (const Door door : kDoors) {
    for (const Route route : kRoutes) {
      SCOPED_TRACE(describe(door, Numerics::exact, route));
      Guarded x_buffer(device(), DType::f32, {10, static_cast<std::int64_t>(k)});
      Guarded y_buffer(device(), DType::f32, {10, 9});
      x_buffer.write(std::as_bytes(std::span(broken)));
      must(run(device(), [&](CommandEncoder& encoder) {
        const MatmulOptions options = {Numerics::exact, route};
        return door == Door::raw ? quantized_matmul_ggml(encoder, x_buffer.tensor(), w.raw.tensor(), y_buffer.tensor(), w.shape(10), options)
                                 : matmul(encoder, x_buffer.tensor(), w.weight, y_buffer.tensor(), options);
      }));
      const std::vector<float> y = y_buffer.read();
      for (std::size_t i = 0; i < y.size(); ++i) {
        if (i / 9 == 4) {
          EXPECT_TRUE(std::isnan(y[i])) << i;
        } else {
          EXPECT_TRUE(is_near(y[i], wanted[i], matmul_tolerance(Numerics::exact, DType::f32, k))) << i;
        }
      }
    }
  }
}

// On the emulator one affine type for each width and type of scales, with all sizes of groups among them: the portable kernels
// are the same for all types of a width.
std::vector<std::tuple<std::string, DType>> formats() {
  std::vector<std::tuple<std::string, DType>> list;
  for (const std::string& name : device_names()) {
    const bool emulated = device_named(name).capabilities().backend == "simt";
    for (const DType type : kWeightTypes) {
      const auto affine = affine_info(type);
      const std::uint32_t group = !affine                        ? 0
                                  : affine->scales == DType::f16 ? affine->bits * 16
                                  : affine->scales == DType::f32 ? affine->bits * 8
                                                                 : affine->bits == 4 ? 128 : 32;
      if (!emulated || !affine || type == DType::q4_1 || affine->group == group) list.emplace_back(name, type);
    }
  }
  return list;
}

INSTANTIATE_TEST_SUITE_P(Matmul, Format, testing::ValuesIn(formats()),
                         [](const auto& param) {
                           return test_name(std::get<0>(param.param) + "_" + std::string(to_string(std::get<1>(param.param))));
                         });

// ---- every instruction set of the CPU ----------------------------------------------------------------------------

class InstructionSet : public testing::TestWithParam<std::tuple<CpuIsa, DType>> {};

// Values against the reference; and, as the kernels promise, the same bits from raw and prepared weights, on both routes,
// for any number of rows and of threads.
TEST_P(InstructionSet, EveryPathGivesTheSameGoodBits) {
  const auto [isa, type] = GetParam();
  if (!cpu_has(isa)) GTEST_SKIP() << "this machine has no " << to_string(isa);
  static const Device devices[] = {must(Device::open("cpu", {.threads = 1})), must(Device::open("cpu", {.threads = 2}))};
  Random random(10);
  SCOPED_TRACE(random.trace());
  const bool is_small = wants_small_sizes("cpu");
  const std::size_t most_rows = is_small ? 35 : 70;
  for (const auto& [n, blocks] : {std::pair<std::size_t, std::size_t>(1, 1), {15, 3}, {33, 9}, {70, 5}}) {
    const std::size_t block = is_block(type) ? block_elems(type) : 37;
    const std::size_t k = (is_small ? std::min(blocks, 512 / block) : blocks) * block;
    const std::vector<std::byte> bytes = random_weights(type, n * k, random);
    const std::vector<float> x = random.uniform(most_rows * k, -1.0f, 1.0f);
    std::map<Numerics, std::vector<Reference>> wanted;
    std::map<Numerics, std::vector<float>> first;
    for (const Device& device : devices) {
      const Matrix w(device, type, n, k, bytes);
      for (const Numerics numerics : {Numerics::exact, Numerics::f16, Numerics::int8act}) {
        if (numerics == Numerics::int8act && !has_int8act(type)) continue;
        if (wanted[numerics].empty()) wanted[numerics] = matmul_reference(x, w.values, w.magnitudes, most_rows, n, k, numerics);
        for (const std::size_t m : {most_rows, std::size_t{1}, std::size_t{3}, std::size_t{12}}) {
          for (const Door door : kDoors) {
            for (const Route route : kRoutes) {
              SCOPED_TRACE(testing::Message() << m << "x" << n << "x" << k << " " << describe(door, numerics, route) << ", "
                                              << device.capabilities().threads << " threads");
              const std::vector<float> y = multiply(device, door, w, std::span(x).first(m * k), {numerics, route}, {}, isa);
              ASSERT_TRUE(all_near(y, wanted[numerics], matmul_tolerance(numerics, DType::f32, k), n));
              if (first[numerics].empty()) first[numerics] = y;
              ASSERT_TRUE(same_bits(y, std::span(first[numerics]).first(m * n)));
            }
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Matmul, InstructionSet,
                         testing::Combine(testing::ValuesIn(kIsas), testing::ValuesIn(kWeightTypes)),
                         [](const auto& param) {
                           return test_name(std::string(to_string(std::get<0>(param.param))) + "_" + std::string(to_string(std::get<1>(param.param))));
                         });

// ---- the contract ------------------------------------------------------------------------------------------------

class Contract : public testing::TestWithParam<std::string> {
 protected:
  const Device& device() const { return device_named(GetParam()); }
  Tensor make(DType type, const Shape& shape) const { return must(device().allocate(type, shape)); }

  // A valid call of 2 x 3 x 64 with q4_0 weights, of which each test breaks one part.
  struct Call {
    Tensor x, raw, y;
    MatmulShape shape = {2, 3, 64, DType::q4_0};
    MatmulOptions options;
  };
  Call valid_call() const {
    Call call;
    call.x = make(DType::f32, {2, 64});
    call.raw = make(DType::q4_0, {3, 64});
    call.y = make(DType::f32, {2, 3});
    return call;
  }
  Result<void> run_raw(const Call& call) const {
    return run(device(), [&](CommandEncoder& encoder) {
      return quantized_matmul_ggml(encoder, call.x, call.raw, call.y, call.shape, call.options);
    });
  }
};

TEST_P(Contract, TheUnbrokenCallSucceeds) {
  const Result<void> done = run_raw(valid_call());
  EXPECT_TRUE(done) << done.error().message();
}

TEST_P(Contract, ZeroDimensionsAreBadShape) {
  for (std::int64_t MatmulShape::*dim : {&MatmulShape::m, &MatmulShape::n, &MatmulShape::k}) {
    for (const std::int64_t value : {std::int64_t{0}, std::int64_t{-1}, std::numeric_limits<std::int64_t>::min()}) {
      Call call = valid_call();
      call.shape.*dim = value;
      EXPECT_TRUE(fails_with(run_raw(call), ErrorCode::bad_shape, {"quantized_matmul_ggml", std::to_string(value)}));
    }
  }
}

TEST_P(Contract, KMustBeWholeBlocks) {
  Call call = valid_call();
  call.shape.k = 48;
  EXPECT_TRUE(fails_with(run_raw(call), ErrorCode::bad_shape, {"quantized_matmul_ggml", "48", "32"}));
  call.shape.k = 64;
  call.shape.type = DType::q4_K;
  EXPECT_TRUE(fails_with(run_raw(call), ErrorCode::bad_shape, {"quantized_matmul_ggml", "64", "256"}));
}

TEST_P(Contract, TypesWithoutKernelsAreUnsupported) {
  for (const DType type : {DType::iq2_xs, DType::q8_1, DType::q8_K, DType::tq1_0, DType::nvfp4}) {
    Call call = valid_call();
    call.shape = {2, 3, 256, type};
    call.x = make(DType::f32, {2, 256});
    call.raw = make(type, {3, 256});
    EXPECT_TRUE(fails_with(run_raw(call), ErrorCode::unsupported, {"quantized_matmul_ggml", to_string(type)}));
  }
}

TEST_P(Contract, PlainTypesThatAreNoWeightsAreRefused) {
  Call call = valid_call();
  call.shape.type = DType::i32;
  call.raw = make(DType::i32, {3, 64});
  const Result<void> done = run_raw(call);
  ASSERT_FALSE(done);
  EXPECT_TRUE(done.error().code() == ErrorCode::unsupported || done.error().code() == ErrorCode::bad_dtype);
  EXPECT_NE(done.error().message().find("i32"), std::string_view::npos) << done.error().message();
}

TEST_P(Contract, ShapesMustAgreeWithTheTensors) {
  Call call = valid_call();
  call.x = make(DType::f32, {2, 32});
  EXPECT_TRUE(fails_with(run_raw(call), ErrorCode::bad_shape, {"quantized_matmul_ggml", "x", "32", "64"}));
  call.x = make(DType::f32, {3, 64});
  EXPECT_TRUE(fails_with(run_raw(call), ErrorCode::bad_shape, {"quantized_matmul_ggml", "x", "3", "2"}));
  call.x = make(DType::f32, {128});
  EXPECT_TRUE(fails_with(run_raw(call), ErrorCode::bad_shape, {"quantized_matmul_ggml", "x"}));
  call = valid_call();
  call.y = make(DType::f32, {2, 4});
  EXPECT_TRUE(fails_with(run_raw(call), ErrorCode::bad_shape, {"quantized_matmul_ggml", "y", "4", "3"}));
  call.y = make(DType::f32, {1, 3});
  EXPECT_TRUE(fails_with(run_raw(call), ErrorCode::bad_shape, {"quantized_matmul_ggml", "y", "1", "2"}));
  call = valid_call();
  call.raw = make(DType::q4_0, {2, 64});
  EXPECT_TRUE(fails_with(run_raw(call), ErrorCode::bad_shape, {"quantized_matmul_ggml", "raw", "2", "3"}));
  call.raw = make(DType::q4_0, {3, 32});
  EXPECT_TRUE(fails_with(run_raw(call), ErrorCode::bad_shape, {"quantized_matmul_ggml", "raw", "32", "64"}));
}

TEST_P(Contract, RawBytesMayBeMoreButNotFewer) {
  Call call = valid_call();
  call.raw = make(DType::u8, {3 * 36});
  EXPECT_TRUE(run_raw(call));
  call.raw = make(DType::u8, {3 * 36 + 5});
  EXPECT_TRUE(run_raw(call));
  // The view's own length counts, not that of the memory behind it.
  call.raw = must(call.raw.slice(0, 0, 3 * 36 - 1));
  EXPECT_TRUE(fails_with(run_raw(call), ErrorCode::bad_shape, {"quantized_matmul_ggml", "raw", "107", "108"}));
}

TEST_P(Contract, ElementTypesAreChecked) {
  Call call = valid_call();
  call.x = make(DType::i32, {2, 64});
  EXPECT_TRUE(fails_with(run_raw(call), ErrorCode::bad_dtype, {"quantized_matmul_ggml", "x", "i32"}));
  call = valid_call();
  call.y = make(DType::f64, {2, 3});
  EXPECT_TRUE(fails_with(run_raw(call), ErrorCode::bad_dtype, {"quantized_matmul_ggml", "y", "f64"}));
  call = valid_call();
  call.raw = make(DType::q8_0, {3, 64});
  EXPECT_TRUE(fails_with(run_raw(call), ErrorCode::bad_dtype, {"quantized_matmul_ggml", "raw", "q8_0", "q4_0"}));
}

TEST_P(Contract, TheLastAxisIsContiguous) {
  Call call = valid_call();
  call.x = must(make(DType::f32, {64, 2}).permute({1, 0}));
  EXPECT_TRUE(fails_with(run_raw(call), ErrorCode::bad_shape, {"quantized_matmul_ggml", "x"}));
  call = valid_call();
  call.y = must(make(DType::f32, {3, 2}).permute({1, 0}));
  EXPECT_TRUE(fails_with(run_raw(call), ErrorCode::bad_shape, {"quantized_matmul_ggml", "y"}));
  call = valid_call();
  call.raw = must(make(DType::q4_0, {3, 96}).slice(1, 0, 64));  // rows with gaps
  EXPECT_TRUE(fails_with(run_raw(call), ErrorCode::bad_shape, {"quantized_matmul_ggml", "raw"}));
}

TEST_P(Contract, OverlapsAreRefused) {
  const Tensor memory = make(DType::u8, {4096});
  Call call = valid_call();
  call.x = must(memory.reinterpret(DType::f32, {2, 64}, 0));
  call.y = must(memory.reinterpret(DType::f32, {2, 3}, 508));
  EXPECT_TRUE(fails_with(run_raw(call), ErrorCode::aliased, {"quantized_matmul_ggml", "y", "x"}));
  call.y = must(memory.reinterpret(DType::f32, {2, 3}, 512));
  EXPECT_TRUE(run_raw(call));
  call.raw = must(memory.reinterpret(DType::q4_0, {3, 64}, 535));
  EXPECT_TRUE(fails_with(run_raw(call), ErrorCode::aliased, {"quantized_matmul_ggml", "y", "raw"}));
}

TEST_P(Contract, EmptyHandlesAreRefused) {
  for (Tensor Call::*operand : {&Call::x, &Call::raw, &Call::y}) {
    Call call = valid_call();
    call.*operand = Tensor();
    const Result<void> done = run_raw(call);
    ASSERT_FALSE(done);
    EXPECT_NE(done.error().message().find("quantized_matmul_ggml"), std::string_view::npos) << done.error().message();
  }
  const Call call = valid_call();
  const Result<void> done = run(device(), [&](CommandEncoder& encoder) { return matmul(encoder, call.x, Weight(), call.y); });
  ASSERT_FALSE(done);
  EXPECT_NE(done.error().message().find("matmul"), std::string_view::npos) << done.error().message();
  CommandEncoder moved_from = must(device().encoder());
  const CommandEncoder moved_to = std::move(moved_from);
  EXPECT_FALSE(quantized_matmul_ggml(moved_from, call.x, call.raw, call.y, call.shape));
}

TEST_P(Contract, OperandsBelongToTheEncodersDevice) {
  const Device other = must(Device::open("cpu"));
  for (Tensor Call::*operand : {&Call::x, &Call::raw, &Call::y}) {
    Call call = valid_call();
    call.*operand = must(other.allocate((call.*operand).dtype(), (call.*operand).shape()));
    EXPECT_TRUE(fails_with(run_raw(call), ErrorCode::wrong_device, {"quantized_matmul_ggml"}));
  }
  const Call call = valid_call();
  const Weight weight = must(Weight::prepare(other, must(other.allocate(DType::q4_0, {3, 64}))));
  EXPECT_TRUE(fails_with(run(device(), [&](CommandEncoder& encoder) { return matmul(encoder, call.x, weight, call.y); }),
                         ErrorCode::wrong_device, {"matmul"}));
}

TEST_P(Contract, ACommittedEncoderTakesNoMore) {
  const Call call = valid_call();
  CommandEncoder encoder = must(device().encoder());
  must(encoder.commit_and_wait());
  EXPECT_TRUE(fails_with(quantized_matmul_ggml(encoder, call.x, call.raw, call.y, call.shape), ErrorCode::wrong_state, {}));
}

TEST_P(Contract, WeightsAreCheckedAgainstXAndY) {
  const Weight weight = must(Weight::prepare(device(), make(DType::q4_0, {3, 64})));
  EXPECT_EQ(weight.n(), 3);
  EXPECT_EQ(weight.k(), 64);
  EXPECT_EQ(weight.dtype(), DType::q4_0);
  const auto product = [&](const Tensor& x, const Tensor& y) {
    return run(device(), [&](CommandEncoder& encoder) { return matmul(encoder, x, weight, y); });
  };
  const Tensor x = make(DType::f32, {2, 64});
  const Tensor y = make(DType::f32, {2, 3});
  EXPECT_TRUE(product(x, y));
  EXPECT_TRUE(fails_with(product(make(DType::f32, {2, 96}), y), ErrorCode::bad_shape, {"matmul", "96", "64"}));
  EXPECT_TRUE(fails_with(product(x, make(DType::f32, {2, 5})), ErrorCode::bad_shape, {"matmul", "5", "3"}));
  EXPECT_TRUE(fails_with(product(x, make(DType::f32, {4, 3})), ErrorCode::bad_shape, {"matmul", "4", "2"}));
  EXPECT_TRUE(fails_with(product(make(DType::u8, {2, 64}), y), ErrorCode::bad_dtype, {"matmul", "u8"}));
  EXPECT_TRUE(fails_with(product(x, make(DType::i32, {2, 3})), ErrorCode::bad_dtype, {"matmul", "i32"}));
  EXPECT_TRUE(fails_with(product(x, must(must(x.reshape({128})).reinterpret(DType::f32, {2, 3}, 0))), ErrorCode::aliased, {"matmul"}));
  EXPECT_TRUE(fails_with(product(must(x.slice(0, 0, 0)), must(y.slice(0, 0, 0))), ErrorCode::bad_shape, {"matmul", "m is 0"}));
}

TEST_P(Contract, PreparingChecksItsSource) {
  EXPECT_TRUE(fails_with(Weight::prepare(device(), make(DType::q4_0, {64})), ErrorCode::bad_shape, {}));
  EXPECT_FALSE(Weight::prepare(device(), make(DType::i32, {3, 64})));
  EXPECT_TRUE(fails_with(Weight::prepare(device(), make(DType::iq2_xs, {3, 256})), ErrorCode::unsupported, {"iq2_xs"}));
  EXPECT_TRUE(fails_with(Weight::prepare(device(), must(make(DType::q4_0, {3, 96}).slice(1, 0, 64))), ErrorCode::bad_shape, {}));
  EXPECT_FALSE(Weight::prepare(device(), Tensor()));
}

TEST_P(Contract, StackedRowsAreThoseOfTheirOwnWeights) {
  Random random(77);
  SCOPED_TRACE(random.trace());
  for (const DType type : {DType::q4_0, DType::q6_K, DType::mxfp4, DType::f16, DType::f32}) {
    SCOPED_TRACE(to_string(type));
    const std::size_t k = is_block(type) ? 512 : 36;
    std::vector<Matrix> parts;
    std::vector<Tensor> sources;
    parts.reserve(3);
    for (const std::size_t n : {32, 16, 7}) {
      parts.emplace_back(device(), type, n, k, random_weights(type, n * k, random));
      sources.push_back(parts.back().raw.tensor());
    }
    std::uint64_t told = 0;
    PrepareOptions options;
    std::mutex mutex;
    options.consumed = [&](std::uint64_t, std::uint64_t length) {
      const std::lock_guard lock(mutex);
      told += length;
    };
    const Weight stack = must(Weight::prepare_stacked(device(), sources, options));
    EXPECT_EQ(stack.n(), 55);
    EXPECT_EQ(stack.k(), static_cast<std::int64_t>(k));
    EXPECT_TRUE(stack.prepared());
    EXPECT_EQ(told, parts[0].bytes.size() + parts[1].bytes.size() + parts[2].bytes.size());
    const std::vector<float> x = random.uniform(3 * k, -2, 2);
    Guarded x_buffer(device(), DType::f32, {3, static_cast<std::int64_t>(k)}), y_buffer(device(), DType::f32, {3, 55});
    x_buffer.write(x);
    for (const Route route : kRoutes) {
      MatmulOptions by_route;
      by_route.route = route;
      by_route.numerics = Numerics::exact;
      must(run(device(), [&](CommandEncoder& e) { return matmul(e, x_buffer.tensor(), stack, y_buffer.tensor(), by_route); }));
      EXPECT_TRUE(y_buffer.intact());
      const std::vector<float> y = y_buffer.read();
      std::size_t column = 0;
      for (const Matrix& part : parts) {
        const std::vector<float> alone = multiply(device(), Door::prepared, part, x, by_route);
        for (std::size_t row = 0; row < 3; ++row) {
          EXPECT_TRUE(same_bits(std::span(y).subspan(row * 55 + column, part.n), std::span(alone).subspan(row * part.n, part.n)));
        }
        column += part.n;
      }
    }
  }
}

TEST_P(Contract, StackingChecksItsSources) {
  const Tensor a = make(DType::q4_0, {16, 64}), b = make(DType::q4_0, {3, 64});
  const auto stack = [&](std::vector<Tensor> sources, PrepareMode mode = PrepareMode::automatic) {
    PrepareOptions options;
    options.mode = mode;
    return Weight::prepare_stacked(device(), sources, options);
  };
  EXPECT_TRUE(stack({a, b}));
  EXPECT_TRUE(stack({b}));
  EXPECT_TRUE(fails_with(stack({}), ErrorCode::invalid_argument, {"prepare_stacked", "no sources"}));
  EXPECT_TRUE(fails_with(stack({b, a}), ErrorCode::bad_shape, {"prepare_stacked", "3 rows", "16"}));
  EXPECT_TRUE(fails_with(stack({a, make(DType::q8_0, {3, 64})}), ErrorCode::bad_dtype, {"prepare_stacked", "q8_0", "q4_0"}));
  EXPECT_TRUE(fails_with(stack({a, make(DType::q4_0, {3, 96})}), ErrorCode::bad_shape, {"prepare_stacked", "[3, 96]", "64"}));
  EXPECT_TRUE(fails_with(stack({a, make(DType::q4_0, {64})}), ErrorCode::bad_shape, {"prepare"}));
  EXPECT_TRUE(fails_with(stack({a, b}, PrepareMode::off), ErrorCode::invalid_argument, {"prepare_stacked", "off"}));
  EXPECT_FALSE(stack({a, Tensor()}));
}

TEST_P(Contract, PlansCheckTheirShape) {
  EXPECT_TRUE(fails_with(plan_matmul(device(), {0, 3, 64, DType::q4_0}, false), ErrorCode::bad_shape, {}));
  EXPECT_TRUE(fails_with(plan_matmul(device(), {1, 3, 48, DType::q4_0}, false), ErrorCode::bad_shape, {"48", "32"}));
  EXPECT_TRUE(fails_with(plan_matmul(device(), {1, 3, 256, DType::iq2_xs}, true), ErrorCode::unsupported, {"iq2_xs"}));
}

TEST_P(Contract, ExplanationsAgreeWithThePlan) {
  for (const bool prepared : {false, true}) {
    for (const DType type : {DType::q4_0, DType::q4_K, DType::f16}) {
      const std::int64_t threshold = must(matmul_vector_threshold(device(), {1, 96, 256, type}, prepared));
      for (const std::int64_t m : {std::int64_t{1}, threshold, threshold + 1}) {
        const MatmulPlan plan = must(plan_matmul(device(), {m, 96, 256, type}, prepared));
        EXPECT_EQ(plan.route, m <= threshold ? Route::vector : Route::tile);
        std::string text;
        for (const std::string& line : must(ops::explain_matmul(device(), {m, 96, 256, type}, prepared, {}))) text += line + "\n";
        EXPECT_NE(text.find("class " + std::string(to_string(plan.numerics))), std::string::npos) << text;
        EXPECT_NE(text.find(plan.route == Route::vector ? "route vector" : "route tile"), std::string::npos) << text;
        EXPECT_NE(text.find("from m = " + std::to_string(threshold + 1) + " on"), std::string::npos) << text;
      }
    }
  }
}

// Raw blocks and prepared weights hold the same values, so both doors give results within one bound; a slice of rows of a
// raw matrix gives the columns of the whole result.
TEST_P(Contract, SlicesOfRawRowsGiveTheirColumns) {
  Random random(8);
  SCOPED_TRACE(random.trace());
  const Matrix w(device(), DType::q6_K, 40, 512, random_weights(DType::q6_K, 40 * 512, random));
  const std::vector<float> x = random.uniform(3 * 512, -1.0f, 1.0f);
  const std::vector<float> whole = multiply(device(), Door::raw, w, x, {Numerics::exact, Route::vector});
  const Tensor rows = must(w.raw.tensor().slice(0, 11, 24));
  Guarded x_buffer(device(), DType::f32, {3, 512});
  Guarded y_buffer(device(), DType::f32, {3, 13});
  x_buffer.write(std::span<const float>(x));
  must(run(device(), [&](CommandEncoder& encoder) {
    return quantized_matmul_ggml(encoder, x_buffer.tensor(), rows, y_buffer.tensor(), {3, 13, 512, DType::q6_K}, {Numerics::exact, Route::vector});
  }));
  EXPECT_TRUE(y_buffer.intact());
  const std::vector<float> part = y_buffer.read();
  const std::vector<Reference> wanted = matmul_reference(x, w.values, w.magnitudes, 3, 40, 512, Numerics::exact);
  for (std::size_t m = 0; m < 3; ++m) {
    for (std::size_t n = 0; n < 13; ++n) {
      EXPECT_TRUE(is_near(part[m * 13 + n], wanted[m * 40 + n + 11], matmul_tolerance(Numerics::exact, DType::f32, 512)));
      EXPECT_NEAR(part[m * 13 + n], whole[m * 40 + n + 11], 1e-3 * wanted[m * 40 + n + 11].magnitude);
    }
  }
}

// Offsets beyond 32 bits, in memory that is reserved and hardly touched: rows of x and y far apart, blocks far into raw.
TEST_P(Contract, OffsetsBeyondFourGigabytes) {
  if (device().capabilities().backend != "cpu") GTEST_SKIP() << "sparse memory is the CPU's";
  constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
  constexpr std::uint64_t kBytes = 18 * kGiB;
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) GTEST_SKIP() << "no 18 GiB of address space";
  const Tensor all = must(device().import_memory(memory, kBytes, [=] { munmap(memory, kBytes); }, DType::u8, {static_cast<std::int64_t>(kBytes)}));
  constexpr std::int64_t kStride = (std::int64_t{5} << 28) + 8;  // elements, a little more than 5 GiB
  const Tensor x = must(must(all.reinterpret(DType::f32, {2, kStride}, 0)).slice(1, 0, 256));
  const Tensor y = must(must(all.reinterpret(DType::f32, {2, kStride}, 6 * kGiB)).slice(1, 5, 8));
  const Tensor raw = must(all.reinterpret(DType::q8_0, {3, 256}, 17 * kGiB + 2));

  Random random(9);
  SCOPED_TRACE(random.trace());
  const std::vector<std::byte> bytes = random_weights(DType::q8_0, 3 * 256, random);
  const std::vector<float> values = random.uniform(2 * 256, -1.0f, 1.0f);
  must(device().upload(raw, bytes));
  for (std::int64_t m = 0; m < 2; ++m) {
    const auto row = std::span(values).subspan(static_cast<std::size_t>(m) * 256, 256);
    must(device().upload(must(x.slice(0, m, m + 1)), std::as_bytes(row)));
  }
  const std::vector<Reference> wanted = matmul_reference(values, decoded(DType::q8_0, bytes), weight_magnitudes(DType::q8_0, bytes),
                                                         2, 3, 256, Numerics::exact);
  for (const Route route : kRoutes) {
    must(run(device(), [&](CommandEncoder& encoder) {
      return quantized_matmul_ggml(encoder, x, raw, y, {2, 3, 256, DType::q8_0}, {Numerics::exact, route});
    }));
    for (std::int64_t m = 0; m < 2; ++m) {
      float got[3];
      must(device().download(std::as_writable_bytes(std::span(got)), must(y.slice(0, m, m + 1))));
      for (std::size_t n = 0; n < 3; ++n) {
        const Reference& element = wanted[static_cast<std::size_t>(m) * 3 + n];
        EXPECT_TRUE(is_near(got[n], element, matmul_tolerance(Numerics::exact, DType::f32, 256)));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Matmul, Contract, testing::ValuesIn(device_names()),
                         [](const auto& param) { return test_name(param.param); });

}  // namespace
}  // namespace mlxn::test::matmul_suite
