#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "tests/support/tolerance.h"

namespace mlxn::test::reference {

struct AttentionProblem {
  std::int64_t heads = 1, kv_heads = 1, seq = 1, head_dim = 1, kv_len = 1, p0 = 0;
  bool causal = true;
  std::int64_t window = -1;
  double scale = 1, softcap = 0;
};

/// One query row: its output and the logarithm of its denominator. With z the logits, an error dz of a logit moves the
/// output by at most sum_j w_j |v_j - y| dz_j, and dz is proportional to the sum of |q k|: the magnitude is
/// sum_j w_j (|v_j| + |y|) (1 + scale sum_d |q_d k_jd|).
struct AttentionRow {
  std::vector<Reference> y;  // [head_dim]
  Reference lse;
};

/// q [head_dim]; k(j), v(j) give row j of the head's keys and values, oldest first; sink is null if there is none.
/// Keys that the row does not see are never asked for.
template <class Key, class Value>
AttentionRow attention_row(const AttentionProblem& p, std::int64_t i, const float* q, Key&& k, Value&& v, const float* sink) {
  const double lowest = -std::numeric_limits<double>::infinity();
  std::vector<double> z, size;
  std::vector<std::int64_t> seen;
  const std::int64_t position = p.p0 + i;
  for (std::int64_t j = 0; j < p.kv_len; ++j) {
    if (p.causal && j > position) continue;
    if (p.window > 0 && position - j >= p.window) continue;
    double dot = 0, sum = 0;
    for (std::int64_t d = 0; d < p.head_dim; ++d) {
      dot += double{q[d]} * double{k(j)[d]};
      sum += std::fabs(double{q[d]} * double{k(j)[d]});
    }
    double logit = p.scale * dot;
    if (p.softcap > 0) logit = p.softcap * std::tanh(logit / p.softcap);
    z.push_back(logit);
    size.push_back(1 + std::fabs(p.scale) * sum);
    seen.push_back(j);
  }
  double max = sink != nullptr ? double{*sink} : lowest;
  for (const double x : z) max = x > max ? x : max;
  AttentionRow row;
  row.y.resize(static_cast<std::size_t>(p.head_dim));
  double l = 0, lse_size = 1;
  if (max > lowest) {
    for (std::size_t j = 0; j < z.size(); ++j) {
      l += std::exp(z[j] - max);
      lse_size = size[j] > lse_size ? size[j] : lse_size;
    }
    if (sink != nullptr) l += std::exp(*sink - max);
  }
  row.lse = l == 0 ? Reference{lowest, 1} : Reference{max + std::log(l), lse_size + std::fabs(max)};
  if (l == 0) return row;
  for (std::size_t j = 0; j < z.size(); ++j) {
    const double weight = std::exp(z[j] - max) / l;
    const float* value = v(seen[j]);
    for (std::size_t d = 0; d < row.y.size(); ++d) row.y[d].value += weight * double{value[d]};
  }
  for (std::size_t j = 0; j < z.size(); ++j) {
    const double weight = std::exp(z[j] - max) / l;
    const float* value = v(seen[j]);
    for (std::size_t d = 0; d < row.y.size(); ++d) {
      row.y[d].magnitude += weight * (std::fabs(double{value[d]}) + std::fabs(row.y[d].value)) * size[j];
    }
  }
  return row;
}

}  // namespace mlxn::test::reference
