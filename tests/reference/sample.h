#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <vector>

#include "mlxn/ops/sample.h"

namespace mlxn::test::reference {

/// The probability of every token of a row, straight from the contract: sort everything, apply the filters one by one.
inline std::vector<double> sample(const std::vector<float>& logits, const SampleOptions& o,
                                  const std::vector<std::int64_t>& recent = {}) {
  const double lowest = -std::numeric_limits<double>::infinity();
  const std::size_t n = logits.size();
  std::vector<double> l(n);
  for (std::size_t i = 0; i < n; ++i) l[i] = std::isnan(logits[i]) ? lowest : logits[i];
  std::map<std::int64_t, int> counts;
  for (const std::int64_t id : recent) {
    if (id >= 0 && id < static_cast<std::int64_t>(n)) ++counts[id];
  }
  for (const auto& [id, count] : counts) {
    double& x = l[static_cast<std::size_t>(id)];
    x = x > 0 ? x / o.repetition_penalty : x * o.repetition_penalty;
    x -= count * static_cast<double>(o.frequency_penalty) + o.presence_penalty;
  }

  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return l[a] > l[b]; });
  std::vector<double> p(n, 0.0);
  if (o.temperature == 0) {
    p[order[0]] = 1;
    return p;
  }
  if (o.top_k > 0 && static_cast<std::size_t>(o.top_k) < n) order.resize(static_cast<std::size_t>(o.top_k));
  const double top = l[order[0]];
  if (o.top_p < 1) {
    double total = 0, sum = 0;
    for (const std::size_t i : order) total += std::exp(l[i] - top);
    std::size_t kept = 0;
    while (kept < order.size()) {
      sum += std::exp(l[order[kept++]] - top);
      if (sum >= o.top_p * total) break;
    }
    order.resize(kept);
  }
  while (o.min_p > 0 && l[order.back()] - top < std::log(static_cast<double>(o.min_p))) order.pop_back();
  double total = 0;
  for (const std::size_t i : order) total += p[i] = std::exp((l[i] - top) / o.temperature);
  for (double& v : p) v /= total;
  return p;
}

}  // namespace mlxn::test::reference
