#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/checked.h"
#include "mlxn/gguf.h"

namespace mlxn::gguf {

// What reader and writer agree on.
inline constexpr std::uint32_t kMagic = 0x46554747;  // "GGUF"
inline constexpr std::uint64_t kHeaderBytes = 24;
inline constexpr std::uint64_t kMaxKeyBytes = 65535;
inline constexpr std::uint64_t kMaxDimension = std::uint64_t{1} << 48;
inline constexpr std::uint64_t kMinAlignment = 8;
inline constexpr std::uint64_t kMaxAlignment = std::uint64_t{1} << 20;
inline constexpr std::uint64_t kDefaultAlignment = 32;
inline constexpr std::uint64_t kMaxNameBytes = 63, kMaxLenientNameBytes = 255;
inline constexpr std::uint64_t kMaxParts = 65535;

inline constexpr std::string_view kAlignmentKey = "general.alignment";
inline constexpr std::string_view kSplitNumberKey = "split.no";               // u16, from 0
inline constexpr std::string_view kSplitCountKey = "split.count";             // u16
inline constexpr std::string_view kSplitTensorsKey = "split.tensors.count";   // i32, of all parts

/// What the reader counts against GgufLimits::metadata_bytes: for an entry, besides the bytes of its value (of a string its
/// text, of an array of strings its texts and 8 for each), and for a tensor's description.
[[nodiscard]] constexpr std::uint64_t entry_charge(std::uint64_t key_bytes) noexcept {
  return key_bytes + sizeof(GgufValue) + sizeof(std::string);
}
[[nodiscard]] constexpr std::uint64_t tensor_charge(std::uint64_t name_bytes) noexcept {
  return name_bytes + sizeof(GgufTensor) + sizeof(std::string);
}

[[nodiscard]] constexpr bool is_alignment(std::uint64_t value) noexcept {
  return std::has_single_bit(value) && value >= kMinAlignment && value <= kMaxAlignment;
}
[[nodiscard]] constexpr bool is_printable_ascii(std::string_view text) noexcept {
  for (const char c : text) {
    if (c < 0x20 || c > 0x7e) return false;
  }
  return true;
}

/// The product of the dimensions with those that are zero counted as one: partial products of an empty tensor must be
/// representable too. Nothing on overflow.
template <class Dims>
[[nodiscard]] constexpr std::optional<std::uint64_t> product_of_dims(const Dims& ne) noexcept {
  std::optional<std::uint64_t> product = 1;
  for (const std::uint64_t n : ne) {
    if (product) product = checked_mul(*product, n == 0 ? 1 : n);
  }
  return product;
}

}  // namespace mlxn::gguf
