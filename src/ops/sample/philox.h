#pragma once

#include <array>
#include <cstdint>

namespace mlxn::ops {

/// Philox4x32 with ten rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): 128 random bits for a
/// counter and a key, without any state.
[[nodiscard]] constexpr std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                                                std::array<std::uint32_t, 2> key) noexcept {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53} * counter[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

/// Uniform in [0, 1) with 53 bits.
[[nodiscard]] constexpr double philox_uniform(std::uint64_t seed, std::uint64_t step, std::uint64_t row) noexcept {
  const auto low = [](std::uint64_t v) { return static_cast<std::uint32_t>(v); };
  const auto high = [](std::uint64_t v) { return static_cast<std::uint32_t>(v >> 32); };
  const auto bits = philox4x32({low(step), high(step), low(row), high(row)}, {low(seed), high(seed)});
  return ((std::uint64_t{bits[0]} >> 5 << 26) | (bits[1] >> 6)) * 0x1p-53;
}

}  // namespace mlxn::ops
