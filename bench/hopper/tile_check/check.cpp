#include "tile_check/check.h"

#include <cmath>
#include <cstdio>
#include <vector>

#include "quant/gpu_weight.h"
#include "tile_check/case.h"

namespace tile_check {

void check_type(const Weights& type) {
  const int sms = processors();
  const bool wide = block_elems(type.type) > 32;
  auto all = [&](Case& c, std::initializer_list<unsigned> y_types, bool few) {
    for (int kind = 0; kind < type.kinds(); ++kind) {
      const tile::Shape shape = type.shape(kind);
      for (int m : {shape.tokens - 3, shape.tokens + 5}) {
        if (m > c.tokens || (few && m > shape.tokens)) continue;
        for (std::uint32_t splits : {1u, 2u, 3u, 4u}) {
          if (splits > 1 && shape.form != tile::Form::parts) continue;
          for (unsigned y_type : y_types) {
            c.run(type.plan(shape, m, c.n, c.k, splits, sms), kernel_of(type, type.kernel(kind)),
                  type.kernel(kind), y_type);
          }
        }
      }
    }
    for (const Variant& v : variants_of(type)) {
      if (few) continue;
      for (std::uint32_t splits : {1u, 2u, 3u, 4u}) {
        const int m = v.shape.tokens - 3;
        c.run(type.plan(v.shape, m, c.n, c.k, splits, sms), v.function, v.name, quant::kElementF32);
      }
    }
  };
  {
    Case c(type, 4100, wide ? 2816 : 2880, 270, 0, 0, quant::kElementF32);
    all(c, {quant::kElementF32}, false);
  }
  {
    Case c(type, 100, wide ? 768 : 704, 270, 8, 0, quant::kElementF32);
    all(c, {quant::kElementF16, quant::kElementBf16}, true);
  }
  {
    Case c(type, 272, 11264, 270, 6, 60, quant::kElementF32);
    all(c, {quant::kElementF32}, true);
  }
  {
    Case c(type, 300, 1024, 270, 4, 4, quant::kElementF16);
    all(c, {quant::kElementF32}, true);
  }
  {
    Case c(type, 300, wide ? 1024 : 1056, 270, 4, 60, quant::kElementBf16);
    all(c, {quant::kElementF32}, true);
  }
  {
    // Of f16, or of bf16 where that is what is multiplied, as it lies; k ends inside of a step, and of parts.
    Case c(type, 300, wide ? 2816 : 2880, 270, 4, 2, type.narrow ? quant::kElementBf16 : quant::kElementF16);
    all(c, {quant::kElementF32, quant::kElementF16}, false);
  }
  {
    Case c(type, type.dense() ? 300 : 352, wide ? 2816 : 2880, 270, 4, 2, quant::kElementF32, true);
    all(c, {quant::kElementF32, quant::kElementF16}, true);
  }
  {
    // More k than a thread of the stage keeps.
    Case c(type, 96, wide ? 16640 : 16672, 37, 0, 30, quant::kElementF32, true);
    all(c, {quant::kElementF32, quant::kElementBf16}, true);
  }
  // Ends inside of a plane, of 16 bytes, and in the first plane; or cuts the last records.
  for (int k : type.dense() ? std::vector<int>{2112, 1003, 37} : std::vector<int>{2112, 1056, 704}) {
    if (k % block_elems(type.type) != 0) continue;
    Case c(type, 389, k, 270, 3, 0, quant::kElementF32);
    all(c, {quant::kElementF32}, true);
  }
}

void check_special() {
  const int n = 130, k = 512, m = 20;
  const Matrix matrix = make_matrix(DType::q4_0, n, k, 0, 3);
  std::vector<float> x(m * k);
  for (int i = 0; i < m * k; ++i) x[i] = float(f16(float(mix(i)) / 4294967296.0f - 0.5f));
  x[2 * k + 7] = INFINITY;
  x[5 * k + 300] = NAN;
  for (int i = 0; i < k; ++i) x[9 * k + i] = 0.0f;
  auto* records = upload(matrix.records);
  for (const bool direct : {false, true}) {
    std::vector<std::uint16_t> halves;
    for (int i = 0; i < k; ++i) {  // beyond what f16 holds, or of its subnormals and near its largest
      x[11 * k + i] = direct ? float(f16(x[11 * k + i] * 1e-6f)) : x[11 * k + i] * 1e-38f;
      x[12 * k + i] = direct ? float(f16(x[10 * k + i] * 1.3e5f)) : x[12 * k + i] * 1e37f;
    }
    for (const float v : x) halves.push_back(f16(v).bits);
    void* xd = direct ? static_cast<void*>(upload(halves)) : upload(x);
    auto* y = device<float>(m * n);
    CHECK(cudaMemset(y, 0xFF, m * n * 4));
    const HopperTilePlan plan =
        ops::plan_hopper_shape(DType::q4_0, ops::hopper_tile_shape(DType::q4_0, 1), m, n, k, 2, processors());
    Product product(plan, kernel_of({DType::q4_0}, ops::hopper_tile_name(DType::q4_0, 1)), matrix.exponents, records,
                    xd, direct ? quant::kElementF16 : quant::kElementF32, k, y, quant::kElementF32, n,
                    Way{direct});
    if (product.direct != direct) throw Failure{cudaErrorUnknown, "can_map"};
    product.run_stage(nullptr, false);
    product.run(nullptr, false);
    std::vector<float> out(m * n);
    CHECK(cudaMemcpy(out.data(), y, m * n * 4, cudaMemcpyDefault));
    int wrong = 0;
    for (int token = 0; token < m; ++token) {
      for (int row = 0; row < n; ++row) {
        const float v = out[token * n + row];
        double want = 0, size = 0;
        for (int i = 0; i < k; ++i) {
          want += double(x[token * k + i]) * double(matrix.values[row * k + i]);
          size += std::fabs(double(x[token * k + i]) * double(matrix.values[row * k + i]));
        }
        const bool broken = token == 2 || token == 5;
        const bool good = broken ? !std::isfinite(v) : std::fabs(double(v) - want) <= 1e-3 * size + 1e-44;
        if (!good && ++wrong < 5)
          std::printf("token %d row %d: %g, wanted %g\n", token, row, double(v), want);
      }
    }
    std::printf("special rows%s: %s\n", direct ? ", direct" : "", wrong == 0 ? "ok" : "FAILED");
    failures += wrong != 0;
  }
}

}  // namespace tile_check
