// What the product with weights promises besides values: which arguments it refuses and how, stacks and slices of weights, plans and
// their explanations, offsets beyond 32 bits.
#include <sys/mman.h>

#include <limits>
#include <mutex>

#include "tests/conformance/matmul_suite.h"

namespace mlxn::test::matmul_suite {
namespace {

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

TEST_P(Contract, NumbersThatAreNoTypeAreBadDtype) {
  for (const int number : {kDTypeCount, 200, 255}) {
    const MatmulShape shape = {2, 3, 64, static_cast<DType>(number)};
    const std::string name = "dtype " + std::to_string(number) + " is none";
    Call call = valid_call();
    call.shape = shape;
    EXPECT_TRUE(fails_with(run_raw(call), ErrorCode::bad_dtype, {"quantized_matmul_ggml", name}));
    for (const bool prepared : {false, true}) {
      EXPECT_TRUE(fails_with(plan_matmul(device(), shape, prepared), ErrorCode::bad_dtype, {"plan_matmul", name}));
      EXPECT_TRUE(fails_with(matmul_vector_threshold(device(), shape, prepared), ErrorCode::bad_dtype, {name}));
    }
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

TEST_P(Contract, OptionsAreOfTheirEnumerations) {
  Call call = valid_call();
  call.options.numerics = static_cast<Numerics>(99);
  EXPECT_TRUE(fails_with(run_raw(call), ErrorCode::invalid_argument, {"quantized_matmul_ggml", "numerics is 99", "0 to 4"}));
  EXPECT_TRUE(fails_with(plan_matmul(device(), call.shape, true, call.options), ErrorCode::invalid_argument, {"numerics is 99"}));
  call.options = {};
  call.options.route = static_cast<Route>(99);
  EXPECT_TRUE(fails_with(run_raw(call), ErrorCode::invalid_argument, {"quantized_matmul_ggml", "route is 99", "0 to 2"}));
  EXPECT_TRUE(fails_with(plan_matmul(device(), call.shape, true, call.options), ErrorCode::invalid_argument, {"route is 99"}));
  PrepareOptions options;
  options.mode = static_cast<PrepareMode>(9);
  EXPECT_TRUE(fails_with(Weight::prepare(device(), call.raw, options), ErrorCode::invalid_argument, {"prepare", "mode is 9", "0 to 2"}));
  EXPECT_TRUE(fails_with(Weight::prepare_stacked(device(), {&call.raw, 1}, options), ErrorCode::invalid_argument, {"mode is 9"}));
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
