#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mlxn::test::reference {

/// cache [kv_heads, capacity, dim] <- rows [seq, kv_heads, dim], the first of them at `position`.
template <class T>
void kv_append(std::span<T> cache, std::span<const T> rows, std::int64_t kv_heads, std::int64_t capacity, std::int64_t dim,
               std::int64_t seq, std::int64_t position, bool ring) {
  for (std::int64_t t = 0; t < seq; ++t) {
    const std::int64_t slot = ring ? (position + t) % capacity : position + t;
    for (std::int64_t h = 0; h < kv_heads; ++h) {
      for (std::int64_t d = 0; d < dim; ++d) {
        cache[static_cast<std::size_t>((h * capacity + slot) * dim + d)] = rows[static_cast<std::size_t>((t * kv_heads + h) * dim + d)];
      }
    }
  }
}

}  // namespace mlxn::test::reference
