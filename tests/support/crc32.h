#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace mlxn::test {

/// The IEEE CRC-32 (as in zip and PNG).
inline std::uint32_t crc32(std::span<const std::byte> bytes) noexcept {
  std::uint32_t crc = 0xffffffffu;
  for (const std::byte b : bytes) {
    crc ^= std::to_integer<std::uint32_t>(b);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1u ? 0xedb88320u : 0u);
  }
  return ~crc;
}

}  // namespace mlxn::test
