#pragma once

#include <cstdint>
#include <vector>

#include "tests/support/tolerance.h"

namespace mlxn::test::reference {

/// One row of a table [n, dim] of exact values; zeros for an id outside it.
inline std::vector<Reference> embedding(const std::vector<float>& table, std::int64_t dim, std::uint32_t id, double scale) {
  std::vector<Reference> row(static_cast<std::size_t>(dim));
  const std::size_t begin = static_cast<std::size_t>(id) * row.size();
  if (begin + row.size() > table.size()) return row;
  for (std::size_t i = 0; i < row.size(); ++i) {
    const double value = table[begin + i] * scale;
    row[i] = {value, std::fabs(value)};
  }
  return row;
}

}  // namespace mlxn::test::reference
