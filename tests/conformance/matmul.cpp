// The product with weights, on every device: all formats through both doors, in every numeric class, on both routes, against the
// float64 reference; where operands lie as no kernel likes them, and with numbers that are not finite.
#include <cmath>
#include <limits>
#include <map>

#include "tests/conformance/matmul_suite.h"
#include "tests/support/page_end.h"

namespace mlxn::test::matmul_suite {
namespace {

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

}  // namespace
}  // namespace mlxn::test::matmul_suite
