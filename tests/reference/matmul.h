#pragma once

#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include "mlxn/ops/matmul.h"
#include "tests/support/tolerance.h"

namespace mlxn::test {

/// The activations as a numeric class sees them, in the same types: f16 and bf16 round each value, int8act takes runs of
/// 32 to d * q with d = max|x| / 127 and q = x / d rounded half to even.
inline std::vector<float> activations(Numerics numerics, std::span<const float> x) {
  std::vector<float> out(x.begin(), x.end());
  switch (numerics) {
    case Numerics::automatic:
    case Numerics::exact: break;
    case Numerics::f16:
      for (float& v : out) v = static_cast<float>(f16(v));
      break;
    case Numerics::bf16:
      for (float& v : out) v = static_cast<float>(bf16(v));
      break;
    case Numerics::int8act:
      for (std::size_t i = 0; i < out.size(); i += 32) {
        float most = 0.0f;
        for (std::size_t j = i; j < i + 32; ++j) most = std::fmax(most, std::fabs(out[j]));
        const float d = most / 127.0f;
        for (std::size_t j = i; j < i + 32; ++j) out[j] = d != 0.0f ? d * std::nearbyint(out[j] / d) : 0.0f;
      }
      break;
  }
  return out;
}

/// y[m,n] = sum_k x[m,k] * w[n,k], with w the exact values of the weights and the magnitude sum_k |x| * w_magnitude.
/// k a multiple of 32 for int8act.
inline std::vector<Reference> matmul_reference(std::span<const float> x, std::span<const float> w,
                                               std::span<const float> w_magnitude, std::size_t m, std::size_t n,
                                               std::size_t k, Numerics numerics) {
  const std::vector<float> a = activations(numerics, x.first(m * k));
  std::vector<Reference> y(m * n);
  for (std::size_t row = 0; row < m; ++row) {
    for (std::size_t column = 0; column < n; ++column) {
      Reference sum;
      for (std::size_t i = 0; i < k; ++i) {
        const double v = a[row * k + i];
        sum.value += v * double{w[column * k + i]};
        sum.magnitude += std::fabs(v) * double{w_magnitude[column * k + i]};
      }
      y[row * n + column] = sum;
    }
  }
  return y;
}

/// The rounding bound of one element of the product: k products and k additions in f32, and for the classes that narrow
/// the weights too, the rounding of each weight.
inline Tolerance matmul_tolerance(Numerics numerics, DType out, std::size_t k) {
  Tolerance tolerance;
  tolerance.out = out;
  tolerance.terms = static_cast<double>(k) + 2;
  double narrowing = 0;
  if (numerics == Numerics::f16) narrowing = unit_roundoff(DType::f16);
  if (numerics == Numerics::bf16) narrowing = unit_roundoff(DType::bf16);
  tolerance.c = 1 + narrowing / (tolerance.terms * unit_roundoff(DType::f32));
  return tolerance;
}

}  // namespace mlxn::test
