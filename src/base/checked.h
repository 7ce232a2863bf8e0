#pragma once

#include <concepts>
#include <cstdint>
#include <optional>

namespace mlxn {

/// a + b, a * b and round-up in unsigned 64 bits; nothing on overflow.
[[nodiscard]] constexpr std::optional<std::uint64_t> checked_add(std::uint64_t a, std::uint64_t b) noexcept {
  std::uint64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

[[nodiscard]] constexpr std::optional<std::uint64_t> checked_mul(std::uint64_t a, std::uint64_t b) noexcept {
  std::uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

/// The product of many factors.
template <class... Factors>
[[nodiscard]] constexpr std::optional<std::uint64_t> checked_product(std::uint64_t first, Factors... rest) noexcept {
  std::optional<std::uint64_t> product = first;
  ((product = product ? checked_mul(*product, static_cast<std::uint64_t>(rest)) : std::nullopt), ...);
  return product;
}

/// The least multiple of `unit` (> 0) that is not below `value`.
[[nodiscard]] constexpr std::optional<std::uint64_t> checked_round_up(std::uint64_t value, std::uint64_t unit) noexcept {
  const std::uint64_t rest = value % unit;
  return rest == 0 ? std::optional(value) : checked_add(value, unit - rest);
}

[[nodiscard]] constexpr std::uint64_t ceil_div(std::uint64_t value, std::uint64_t unit) noexcept {
  return value / unit + (value % unit != 0);
}

}  // namespace mlxn
