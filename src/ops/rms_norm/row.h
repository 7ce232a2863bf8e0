#pragma once

#include "portable/dialect.h"

namespace mlxn {
namespace gpu {

/// A row of a group: threads beside each other take four elements beside each other each, kKept times that stay in registers, so
/// that a row up to kKept * 4 * kGroup elements is read once, all of its loads on their way together. What lies beyond is read
/// again from the cache. Sums take their terms in an order that depends on the length of the row alone.
template <class T, class W, uint32_t kGroup>
struct NormRow {
  static constexpr uint32_t kQuad = 4;
  static constexpr uint32_t kKept = 4;
  static constexpr uint32_t kStep = kQuad * kGroup;

  /// Elements i to i + 3; those beyond the row are zeros.
  template <class E>
  static MLXN_FN void load_quad(MLXN_GLOBAL const E* row, int64_t i, int64_t dim, bool aligned, float (&v)[kQuad]) {
    if (aligned && i + kQuad <= dim) {
      load_run<kQuad>(row + i, v);
    } else {
      for (uint32_t e = 0; e < kQuad; ++e) v[e] = i + e < dim ? load(row + i + e) : 0.0f;
    }
  }
  template <class E>
  static MLXN_FN void store_quad(MLXN_GLOBAL E* row, int64_t i, int64_t dim, bool aligned, const float (&v)[kQuad]) {
    if (aligned && i + kQuad <= dim) {
      store_run(row + i, v);
    } else {
      for (uint32_t e = 0; e < kQuad && i + e < dim; ++e) store(row + i + e, v[e]);
    }
  }

  /// y = w * s / rms(s), where s is x or, with `added`, x + added rounded to T, which is stored to `sum`. w may be null.
  template <bool kAdds>
  static MLXN_FN void run(const Thread& t, MLXN_SHARED float* scratch, MLXN_GLOBAL const T* x, MLXN_GLOBAL const T* added,
                          MLXN_GLOBAL T* sum, MLXN_GLOBAL const W* w, MLXN_GLOBAL T* y, int64_t dim, float eps, bool aligned) {
    float kept[kKept][kQuad], weights[kKept][kQuad];
    const int64_t first = int64_t(t.index) * kQuad;
    MLXN_UNROLL
    for (uint32_t k = 0; k < kKept; ++k) {
      const int64_t i = first + k * kStep;
      for (uint32_t e = 0; e < kQuad; ++e) kept[k][e] = weights[k][e] = 0.0f;
      if (i >= dim) continue;
      load_quad(x, i, dim, aligned, kept[k]);
      if (w) load_quad(w, i, dim, aligned, weights[k]);
    }
    if (kAdds) {
      MLXN_UNROLL
      for (uint32_t k = 0; k < kKept; ++k) {
        const int64_t i = first + k * kStep;
        if (i >= dim) continue;
        add_quad(added, sum, i, dim, aligned, kept[k]);
      }
    }
    float squares = 0.0f;
    MLXN_UNROLL
    for (uint32_t k = 0; k < kKept; ++k) squares = add_squares(kept[k], squares);
    for (int64_t i = first + kKept * kStep; i < dim; i += kStep) {
      float v[kQuad];
      load_quad(x, i, dim, aligned, v);
      if (kAdds) add_quad(added, sum, i, dim, aligned, v);
      squares = add_squares(v, squares);
    }
    squares = group_sum<kGroup>(t, squares, scratch);
    const float factor = 1.0f / sqrt(squares / float(dim) + eps);
    MLXN_UNROLL
    for (uint32_t k = 0; k < kKept; ++k) {
      const int64_t i = first + k * kStep;
      if (i < dim) finish(y, i, dim, aligned, kept[k], weights[k], factor, w != nullptr);
    }
    MLXN_GLOBAL const T* again = kAdds ? sum : x;
    for (int64_t i = first + kKept * kStep; i < dim; i += kStep) {
      float v[kQuad], weight[kQuad];
      load_quad(again, i, dim, aligned, v);
      if (w) load_quad(w, i, dim, aligned, weight);
      finish(y, i, dim, aligned, v, weight, factor, w != nullptr);
    }
  }

 private:
  static MLXN_FN float add_squares(const float (&v)[kQuad], float squares) {
    for (uint32_t e = 0; e < kQuad; ++e) squares = fma(v[e], v[e], squares);
    return squares;
  }
  static MLXN_FN void add_quad(MLXN_GLOBAL const T* added, MLXN_GLOBAL T* sum, int64_t i, int64_t dim, bool aligned, float (&v)[kQuad]) {
    float more[kQuad];
    load_quad(added, i, dim, aligned, more);
    for (uint32_t e = 0; e < kQuad; ++e) v[e] = to_float(from_float<T>(add_rn(v[e], more[e])));
    store_quad(sum, i, dim, aligned, v);
  }
  static MLXN_FN void finish(MLXN_GLOBAL T* y, int64_t i, int64_t dim, bool aligned, const float (&v)[kQuad],
                             const float (&weight)[kQuad], float factor, bool weighted) {
    float out[kQuad];
    for (uint32_t e = 0; e < kQuad; ++e) out[e] = weighted ? mul_rn(v[e], factor) * weight[e] : v[e] * factor;
    store_quad(y, i, dim, aligned, out);
  }
};

}  // namespace gpu
}  // namespace mlxn
