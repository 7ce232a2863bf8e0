#pragma once

#include <cmath>
#include <limits>

#include "gtest/gtest.h"
#include "mlxn/dtype.h"

namespace mlxn::test {

/// What a float64 reference returns for one element: its value and the sum of the magnitudes that were added (for a dot
/// product, of |a * b|), to which the rounding error of any order of summation is proportional.
struct Reference {
  double value = 0;
  double magnitude = 0;
};

/// Unit roundoff: half the distance from 1 to the next number of the type.
inline double unit_roundoff(DType type) {
  switch (type) {
    case DType::f32: return 0x1p-24;
    case DType::f16: return 0x1p-11;
    case DType::bf16: return 0x1p-8;
    default: return 0;
  }
}
/// Half the least subnormal: the error of a rounding that underflows.
inline double least_rounding(DType type) {
  switch (type) {
    case DType::f32: return 0x1p-150;
    case DType::f16: return 0x1p-25;
    case DType::bf16: return 0x1p-134;
    default: return 0;
  }
}

/// |got - ref| <= u_out * |ref| + c * terms * u_acc * magnitude, computed and never guessed:
/// u_out of the result's type, u_acc of the type that sums, `terms` roundings on the way to a sum, each of them counted
/// c times (1 for one rounding per term and addition).
struct Tolerance {
  DType out = DType::f32;
  double terms = 1;
  double c = 1;
  DType accumulator = DType::f32;

  [[nodiscard]] double bound(Reference ref) const {
    const double sum = c * terms * unit_roundoff(accumulator) * ref.magnitude + terms * least_rounding(accumulator);
    return unit_roundoff(out) * (std::fabs(ref.value) + sum) + sum + least_rounding(out);
  }
};

/// Whether got is a rounding of ref. NaN wants NaN and an infinity wants the same one.
inline testing::AssertionResult is_near(double got, Reference ref, const Tolerance& tolerance) {
  if (std::isnan(ref.value) || std::isinf(ref.value)) {
    if (std::isnan(ref.value) ? std::isnan(got) : got == ref.value) return testing::AssertionSuccess();
    return testing::AssertionFailure() << "got " << got << ", wanted " << ref.value;
  }
  const double bound = tolerance.bound(ref);
  const double error = std::fabs(got - ref.value);
  if (error <= bound) return testing::AssertionSuccess();  // false for NaN
  return testing::AssertionFailure() << "got " << got << ", wanted " << ref.value << ", error " << error << " > " << bound
                                     << " (magnitude " << ref.magnitude << ")";
}

}  // namespace mlxn::test
