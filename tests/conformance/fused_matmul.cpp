#include "mlxn/ops/fused_matmul.h"

#include "backends/command_list.h"
#include "backends/device_impl.h"
#include "mlxn/ops/add.h"
#include "mlxn/ops/gelu_mul.h"
#include "mlxn/ops/rms_norm.h"
#include "mlxn/ops/silu_mul.h"
#include "tests/conformance/variants.h"
#include "tests/reference/gelu_mul.h"
#include "tests/reference/rms_norm.h"
#include "tests/reference/silu_mul.h"
#include "tests/support/weights.h"

namespace mlxn::test::fused_matmul_suite {
namespace {

constexpr float kEps = 1e-5f;

struct Case {
  DType type;
  std::int64_t m, n, k;
  bool norm = false;
  MatmulGate gate = MatmulGate::none;
  bool residual = false, in_place = false;
  bool prepared = true, batch_invariant = false;
  DType y_type = DType::f32;
};

Tensor uploaded(const Device& device, DType type, std::int64_t n, std::int64_t k, const std::vector<std::byte>& bytes) {
  const Tensor t = must(device.allocate(type, {n, k}));
  must(device.upload(t, bytes));
  return t;
}

void check(const Case& c, Random& random) {
  const bool gated = c.gate != MatmulGate::none;
  const std::int64_t columns = gated ? c.n / 2 : c.n;
  const auto count = [](std::int64_t a, std::int64_t b) { return static_cast<std::size_t>(a * b); };
  const std::vector<std::byte> bytes = random_weights(c.type, count(c.n, c.k), random);
  const std::vector<float> w = decoded(c.type, bytes);
  const std::vector<float> x = random.uniform(count(c.m, c.k), -2, 2), norm = random.uniform(static_cast<std::size_t>(c.k), 0.5f, 2);
  const std::vector<float> before = rounded(c.y_type, random.uniform(count(c.m, columns), -3, 3));

  // Products of the normed rows, and the sums of their terms' magnitudes.
  std::vector<Reference> p;
  for (std::int64_t m = 0; m < c.m; ++m) {
    const std::vector<float> row(x.begin() + m * c.k, x.begin() + (m + 1) * c.k);
    const std::vector<Reference> normed = reference::rms_norm(row, norm, static_cast<double>(kEps));
    for (std::int64_t n = 0; n < c.n; ++n) {
      Reference sum;
      for (std::int64_t i = 0; i < c.k; ++i) {
        const double h = c.norm ? normed[static_cast<std::size_t>(i)].value : static_cast<double>(row[static_cast<std::size_t>(i)]);
        const double term = h * static_cast<double>(w[count(n, c.k) + static_cast<std::size_t>(i)]);
        sum.value += term, sum.magnitude += std::fabs(term);
      }
      p.push_back(sum);
    }
  }

  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name + " " + std::string(to_string(c.type)) + " m " + std::to_string(c.m) + " n " + std::to_string(c.n) + " k " + std::to_string(c.k));
    const Tensor raw = uploaded(v.device, c.type, c.n, c.k, bytes);
    PrepareOptions prepare;
    prepare.mode = c.prepared ? PrepareMode::on : PrepareMode::off;
    const Weight weight = must(Weight::prepare(v.device, raw, prepare));
    MatmulOptions options;
    options.batch_invariant = c.batch_invariant;
    Guarded gx(v.device, DType::f32, {c.m, c.k}, {4, 0}), gn(v.device, DType::f32, {c.k}), gr(v.device, c.y_type, {c.m, columns}, {1, 0});
    write(gx, DType::f32, x);
    write(gn, DType::f32, norm);
    write(gr, c.y_type, before);

    enum class How { fused, with_memory, steps };
    const auto outcome = [&](How how) {
      Guarded gy(v.device, c.y_type, {c.m, columns}, {3, block_bytes(c.y_type)});
      Guarded gh(v.device, DType::f32, {c.m, c.k}), gp(v.device, c.y_type, {c.m, c.n});
      if (c.in_place) write(gy, c.y_type, before);
      const Tensor& residual = c.in_place ? gy.tensor() : gr.tensor();
      must(run(v.device, [&](CommandEncoder& e) -> Result<void> {
        if (how != How::steps) {
          MatmulFusion fusion;
          if (c.norm) fusion.norm = gn.tensor(), fusion.norm_eps = kEps;
          fusion.gate = c.gate;
          if (c.residual) fusion.residual = residual;
          if (how == How::with_memory) fusion.normed = gh.tensor(), fusion.product = gp.tensor();
          return fused_matmul(e, gx.tensor(), weight, gy.tensor(), fusion, options);
        }
        if (c.norm) MLXN_CHECK(rms_norm(e, gx.tensor(), gn.tensor(), gh.tensor(), kEps));
        const Tensor& last = c.residual ? gp.tensor() : gy.tensor();  // of the product's own operations
        const Tensor product = gated ? gp.tensor() : last;
        MLXN_CHECK(matmul(e, c.norm ? gh.tensor() : gx.tensor(), weight, product, options));
        Tensor sum = product;
        if (gated) {
          MLXN_TRY(const Tensor gate, product.slice(1, 0, columns));
          MLXN_TRY(const Tensor up, product.slice(1, columns, c.n));
          sum = c.residual ? gate : gy.tensor();
          MLXN_CHECK(c.gate == MatmulGate::silu ? silu_mul(e, gate, up, sum) : gelu_mul(e, gate, up, sum));
        }
        return c.residual ? add(e, sum, residual, gy.tensor()) : Result<void>();
      }));
      EXPECT_TRUE(gy.intact());
      EXPECT_TRUE(gh.intact());
      EXPECT_TRUE(gp.intact());
      return gy.read();
    };
    const std::vector<float> y = outcome(How::fused);
    EXPECT_TRUE(gx.unchanged());
    EXPECT_TRUE(gn.unchanged());
    EXPECT_TRUE(gr.unchanged());
    EXPECT_EQ(y, outcome(How::with_memory));
    // Where the product's kernels do not take the gate, they may take the norm.
    const MatmulShape shape = {c.m, c.n, c.k, c.type};
    const bool fuses = c.prepared && (must(fuses_matmul(v.device, shape, c.gate, options)) ||
                                      (c.norm && must(fuses_matmul(v.device, shape, MatmulGate::none, options))));
    if (!fuses) {
      EXPECT_EQ(y, outcome(How::steps));
    }

    // Class f16 rounds both operands, every class the sums of f32; the norm has a few roundings.
    const double relative = 2 * 0x1p-11 + static_cast<double>(c.k + 16) * 0x1p-24;
    const double rounding = c.y_type == DType::f32 ? 0x1p-23 : 2 * unit_roundoff(c.y_type);
    for (std::int64_t m = 0; m < c.m; ++m) {
      for (std::int64_t n = 0; n < columns; ++n) {
        const Reference first = p[count(m, c.n) + static_cast<std::size_t>(n)];
        double value = first.value, error = first.magnitude * relative;
        if (gated) {
          const Reference up = p[count(m, c.n) + static_cast<std::size_t>(n + columns)];
          const double act = c.gate == MatmulGate::silu ? reference::silu_mul(value, 1).value : reference::gelu_mul(value, 1).value;
          const double up_error = up.magnitude * relative;
          error = 1.2 * error * (std::fabs(up.value) + up_error) + std::fabs(act) * (up_error + 2e-5 * std::fabs(up.value));
          value = act * up.value;
        }
        error += rounding * std::fabs(value);
        if (c.residual) value += static_cast<double>(before[count(m, columns) + static_cast<std::size_t>(n)]);
        const double got = static_cast<double>(y[count(m, columns) + static_cast<std::size_t>(n)]);
        ASSERT_LE(std::fabs(got - value), error + rounding * (std::fabs(value) + std::fabs(got))) << "row " << m << " column " << n;
      }
    }
  }
}

TEST(FusedMatmul, is_a_product_with_what_surrounds_it) {
  Random random(77);
  SCOPED_TRACE(random.trace());
  constexpr MatmulGate kNone = MatmulGate::none, kSilu = MatmulGate::silu, kGelu = MatmulGate::gelu;
  const Case cases[] = {
      {DType::q4_K, 1, 48, 512, true},
      {DType::q4_K, 1, 64, 512, true, kSilu},
      {DType::q4_0, 1, 48, 288, false, kNone, true, true},
      {DType::q8_0, 3, 64, 160, true, kGelu, true},
      {DType::q6_K, 2, 96, 256, false, kSilu, true, true},
      {DType::q5_K, 4, 33, 768, true, kNone, true, true},
      {DType::q4_0, 9, 64, 288, true, kSilu, true, true},
      {DType::q4_0, 6, 64, 288, true, kSilu, true, false, true, true},
      {DType::q4_1, 1, 34, 64, true, kSilu},
      {DType::q4_0, 2, 64, 96, true, kGelu, true, false, false},
      {DType::f16, 2, 40, 72, true, kSilu, true},
      {DType::q4_0, 2, 64, 96, true, kGelu, true, true, true, false, DType::f16},
      {DType::q8_0, 1, 16, 96, false, kNone, true, false, true, false, DType::bf16},
      {DType::iq4_nl, 3, 40, 4128, true, kNone, false},
      // Tiles of a GPU, with ends of rows, tokens and k inside of them.
      {DType::q4_0, 5, 40, 96, true},
      {DType::q8_0, 19, 150, 352, true, kNone, true, true},
      {DType::q4_K, 33, 72, 512, true, kNone, true},
      {DType::q6_K, 12, 40, 768, true, kNone, true, true, true, false, DType::f16},
      {DType::q4_K, 9, 33, 256, true, kNone, true, true, true, false, DType::bf16},
      {DType::f16, 7, 35, 77, true, kNone, true, true},
      {DType::bf16, 18, 40, 136, true, kGelu, true, false},
      {DType::f16, 9, 36, 64, false, kNone, true, false, true, false, DType::bf16},
      {DType::q4_0, 5, 96, 96, false, kSilu},
      {DType::q4_1, 20, 64, 64, true, kGelu, true, false, true, false, DType::f16},
      {DType::q6_K, 37, 160, 512, true, kSilu, true, true},
      {DType::q5_K, 5, 48, 256, true, kSilu},
      {DType::bf16, 70, 300, 136, true, kSilu, true, true, true, false, DType::bf16},
  };
  for (const Case& c : cases) {
    check(c, random);
    if (HasFatalFailure()) return;
  }
}

TEST(FusedMatmul, BatchInvariantRowsHaveTheirBitsInAnyCompany) {
  Random random(78);
  SCOPED_TRACE(random.trace());
  constexpr std::int64_t kRows = 6, kN = 64, kK = 512;
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    const Weight weight = must(Weight::prepare(v.device, uploaded(v.device, DType::q4_K, kN, kK, random_weights(DType::q4_K, kN * kK, random))));
    // Rows that begin at no multiple of 16 bytes, and a norm that does or does not.
    Guarded gx(v.device, DType::f32, {kRows, kK}, {1, 0});
    write(gx, DType::f32, random.uniform(kRows * kK, -2, 2));
    const std::vector<float> norm = random.uniform(kK, 0.5f, 2);
    MatmulOptions options;
    options.batch_invariant = true;
    std::vector<std::vector<float>> results;
    for (const std::uint64_t shift : {0, 4}) {
      Guarded gn(v.device, DType::f32, {kK}, {0, shift});
      write(gn, DType::f32, norm);
      const auto rows = [&](std::int64_t begin, std::int64_t end) {
        Guarded gy(v.device, DType::f32, {end - begin, kN / 2});
        MatmulFusion fusion;
        fusion.norm = gn.tensor(), fusion.norm_eps = kEps, fusion.gate = MatmulGate::silu;
        must(run(v.device, [&](CommandEncoder& e) -> Result<void> {
          MLXN_TRY(const Tensor x, gx.tensor().slice(0, begin, end));
          return fused_matmul(e, x, weight, gy.tensor(), fusion, options);
        }));
        return gy.read();
      };
      const std::vector<float> all = rows(0, kRows);
      for (const std::int64_t count : {1, 2, 3}) {
        const std::vector<float> some = rows(1, 1 + count);
        EXPECT_EQ(some, std::vector<float>(all.begin() + kN / 2, all.begin() + (1 + count) * (kN / 2))) << shift << " " << count;
      }
      results.push_back(all);
    }
    for (std::size_t i = 0; i < results[0].size(); ++i) {
      ASSERT_NEAR(results[0][i], results[1][i], 2e-3f * std::fabs(results[0][i]) + 2e-3f) << i;
    }
  }
}

TEST(FusedMatmul, AMemoryOrderOfTheCallersIsKeptWithinAnOperation) {
  Random random(79);
  SCOPED_TRACE(random.trace());
  constexpr std::int64_t kRows = 3, kN = 64, kK = 256;
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    const Weight weight = must(Weight::prepare(v.device, uploaded(v.device, DType::q8_0, kN, kK, random_weights(DType::q8_0, kN * kK, random))));
    Guarded gx(v.device, DType::f32, {kRows, kK}), gn(v.device, DType::f32, {kK}), gr(v.device, DType::f32, {kRows, kN / 2});
    write(gx, DType::f32, random.uniform(kRows * kK, -2, 2));
    write(gn, DType::f32, random.uniform(kK, 0.5f, 2));
    write(gr, DType::f32, random.uniform(kRows * kN / 2, -3, 3));
    const auto outcome = [&](HazardMode mode) {
      Guarded gh(v.device, DType::f32, {kRows, kK}), gp(v.device, DType::f32, {kRows, kN});
      MatmulFusion fusion;
      fusion.norm = gn.tensor(), fusion.norm_eps = kEps, fusion.gate = MatmulGate::gelu, fusion.residual = gr.tensor();
      fusion.normed = gh.tensor(), fusion.product = gp.tensor();
      const Tensor y = must(gp.tensor().slice(1, 0, kN / 2));  // the left half of the product's memory
      EncoderOptions encoder_options;
      encoder_options.hazards = mode;
      CommandEncoder e = must(v.device.encoder(encoder_options));
      must(fused_matmul(e, gx.tensor(), weight, y, fusion));
      must(e.commit_and_wait());
      std::vector<float> left;
      const std::vector<float> all = gp.read();
      for (std::size_t i = 0; i < all.size(); ++i) {
        if (i % kN < kN / 2) left.push_back(all[i]);
      }
      return left;
    };
    EXPECT_EQ(outcome(HazardMode::manual), outcome(HazardMode::automatic));
    Guarded gy(v.device, DType::f32, {kRows, kN / 2});
    MatmulFusion fusion;
    fusion.norm = gn.tensor(), fusion.norm_eps = kEps, fusion.gate = MatmulGate::gelu, fusion.residual = gr.tensor();
    must(run(v.device, [&](CommandEncoder& e) { return fused_matmul(e, gx.tensor(), weight, gy.tensor(), fusion); }));
    EXPECT_EQ(outcome(HazardMode::automatic), gy.read());
  }
}

TEST(FusedMatmul, IsFusedOnHopper) {
  const MatmulShape shape = {1, 28672, 4096, DType::q4_K};
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    const bool hopper = v.device.impl()->is_hopper();
    EXPECT_EQ(must(fuses_matmul(v.device, shape, MatmulGate::silu)), hopper);
    EXPECT_EQ(must(fuses_matmul(v.device, {4, 4096, 4096, DType::q8_0}, MatmulGate::none)), hopper);
    EXPECT_EQ(must(fuses_matmul(v.device, {1, 4096, 14336, DType::q8_0}, MatmulGate::none)), hopper);
    EXPECT_EQ(must(fuses_matmul(v.device, {5, 4096, 4096, DType::q8_0}, MatmulGate::none)), hopper);
    EXPECT_EQ(must(fuses_matmul(v.device, {2048, 4096, 4096, DType::f16}, MatmulGate::none)), hopper);
    EXPECT_EQ(must(fuses_matmul(v.device, {5, 4096, 4096, DType::q8_0}, MatmulGate::silu)), hopper);
    EXPECT_FALSE(must(fuses_matmul(v.device, {5, 4112, 4096, DType::q8_0}, MatmulGate::silu)));
    EXPECT_EQ(must(fuses_matmul(v.device, {5, 4112, 4096, DType::f16}, MatmulGate::silu)), hopper);
    EXPECT_EQ(must(fuses_matmul(v.device, {4, 4096, 14336, DType::q8_0}, MatmulGate::none)), hopper);
    EXPECT_EQ(must(fuses_matmul(v.device, {4, 4096, 28672, DType::q8_0}, MatmulGate::silu)), hopper);
    EXPECT_FALSE(must(fuses_matmul(v.device, {1, 4112, 4096, DType::q8_0}, MatmulGate::silu)));
    EXPECT_FALSE(must(fuses_matmul(v.device, {1, 4096, 4096, DType::f16}, MatmulGate::none)));
    MatmulOptions exact;
    exact.numerics = Numerics::exact;
    EXPECT_FALSE(must(fuses_matmul(v.device, shape, MatmulGate::silu, exact)));
  }
  EXPECT_TRUE(fails_with(fuses_matmul(Device(), shape, MatmulGate::silu), ErrorCode::invalid_argument, {"device"}));
  EXPECT_TRUE(fails_with(fuses_matmul(families().front().device, {0, 32, 64, DType::q4_0}, MatmulGate::none), ErrorCode::bad_shape, {"m"}));
}

TEST(FusedMatmul, errors) {
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    Random random(3);
    const auto make = [&](std::int64_t n) {
      return must(Weight::prepare(v.device, uploaded(v.device, DType::q4_0, n, 64, random_weights(DType::q4_0, static_cast<std::size_t>(n * 64), random))));
    };
    const Weight weight = make(32), odd = make(31);
    const auto f32 = [&](std::int64_t rows, std::int64_t columns) { return must(v.device.allocate(DType::f32, {rows, columns})); };
    const Tensor x = f32(2, 64), y = f32(2, 32), half = f32(2, 16), norm = must(v.device.allocate(DType::f32, {64}));
    const Tensor x16 = must(v.device.allocate(DType::f16, {2, 64}));
    MatmulFusion fusion;
    fusion.norm = norm, fusion.norm_eps = kEps;
    const auto result = [&](const Tensor& in, const Weight& w, const Tensor& out) {
      return run(v.device, [&](CommandEncoder& e) { return fused_matmul(e, in, w, out, fusion); });
    };
    EXPECT_TRUE(fails_with(result(x, Weight(), y), ErrorCode::invalid_argument, {"fused_matmul", "weight"}));
    EXPECT_TRUE(fails_with(result(Tensor(), weight, y), ErrorCode::invalid_argument, {"fused_matmul", "x"}));
    EXPECT_TRUE(fails_with(result(x16, weight, y), ErrorCode::bad_dtype, {"fused_matmul", "x", "f16"}));
    EXPECT_TRUE(fails_with(result(f32(2, 65), weight, y), ErrorCode::bad_shape, {"x", "[2, 65]", "[2, 64]"}));
    EXPECT_TRUE(fails_with(result(x, weight, half), ErrorCode::bad_shape, {"y", "[2, 16]", "[2, 32]"}));
    fusion.norm_eps = 0;
    EXPECT_TRUE(fails_with(result(x, weight, y), ErrorCode::invalid_argument, {"norm_eps", "0"}));
    fusion.norm_eps = kEps;
    MatmulOptions options;
    options.numerics = v.device.impl()->is_gpu() ? Numerics::int8act : Numerics::bf16;
    CommandEncoder encoder = must(v.device.encoder());
    EXPECT_TRUE(fails_with(fused_matmul(encoder, x, weight, y, fusion, options), ErrorCode::unsupported, {"fused_matmul", "class"}));
    EXPECT_EQ(encoder.list()->dispatches(), 0u);
    EXPECT_TRUE(fails_with(result(x, weight, x), ErrorCode::bad_shape, {"y"}));
    fusion.norm = must(v.device.allocate(DType::f32, {63}));
    EXPECT_TRUE(fails_with(result(x, weight, y), ErrorCode::bad_shape, {"norm", "[63]", "[64]"}));
    fusion.norm = norm, fusion.gate = MatmulGate::silu;
    EXPECT_TRUE(fails_with(result(x, odd, half), ErrorCode::bad_shape, {"31", "even"}));
    EXPECT_TRUE(fails_with(result(x, weight, y), ErrorCode::bad_shape, {"y", "[2, 32]", "[2, 16]"}));
    fusion.gate = static_cast<MatmulGate>(7);
    EXPECT_TRUE(fails_with(result(x, weight, y), ErrorCode::invalid_argument, {"fused_matmul", "gate is 7", "0 to 2"}));
    EXPECT_TRUE(fails_with(fuses_matmul(v.device, {1, 32, 64, DType::q4_0}, fusion.gate), ErrorCode::invalid_argument, {"gate is 7"}));
    fusion.gate = MatmulGate::none, fusion.residual = half;
    EXPECT_TRUE(fails_with(result(x, weight, y), ErrorCode::bad_shape, {"residual", "[2, 16]", "[2, 32]"}));
    const Tensor three = f32(3, 32);
    fusion.residual = must(three.slice(0, 0, 2));
    EXPECT_TRUE(fails_with(result(x, weight, must(three.slice(0, 1, 3))), ErrorCode::aliased, {"y", "residual"}));
    fusion.residual = Tensor(), fusion.normed = half;
    EXPECT_TRUE(fails_with(result(x, weight, y), ErrorCode::bad_shape, {"normed", "[2, 16]", "[2, 64]"}));
    fusion.normed = x;
    EXPECT_TRUE(fails_with(result(x, weight, y), ErrorCode::aliased, {"normed", "x"}));
    fusion.normed = Tensor(), fusion.product = y;
    EXPECT_TRUE(fails_with(result(x, weight, y), ErrorCode::aliased, {"y", "product"}));
    fusion.gate = MatmulGate::silu;
    EXPECT_TRUE(result(x, weight, must(y.slice(1, 0, 16))).has_value()) << "y may be the left half of product";
    EXPECT_TRUE(fails_with(result(x, weight, must(y.slice(1, 1, 17))), ErrorCode::aliased, {"y", "product"}));
  }
}

}  // namespace
}  // namespace mlxn::test::fused_matmul_suite
