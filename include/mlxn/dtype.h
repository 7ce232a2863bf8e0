#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace mlxn {

/// The type of a tensor's elements or, for quantised formats, of its blocks. One enumeration serves both, so that no
/// tensor of blocks has to pose as bytes. The first group are plain elements, the second are the block formats.
/// Formats that the library only names (no kernel yet) are here too: using one is ErrorCode::unsupported.
enum class DType : std::uint8_t {
  // plain elements
  f32, f16, bf16, f64, i8, u8, i16, u16, i32, u32, i64, u64, boolean, f8e4m3, f8e5m2, f8e8m0,
  // blocks with kernels
  q4_0, q4_1, q5_0, q5_1, q8_0, q2_K, q3_K, q4_K, q5_K, q6_K, iq4_nl, iq4_xs, mxfp4,
  // blocks that are parsed, sized and named
  q8_1, q8_K, iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s, iq1_s, iq1_m, tq1_0, tq2_0, nvfp4, q1_0, q2_0,
  // blocks with kernels that no GGUF file holds: MLX's affine groups (see AffineInfo), of bits per weight, weights in a group
  // and the type of scales and biases, f16 if none is named. affine4_g32 would be q4_1, which it is called.
  affine4_g64, affine4_g128, affine8_g32, affine8_g64, affine8_g128,
  affine4_g32_bf16, affine4_g64_bf16, affine4_g128_bf16, affine8_g32_bf16, affine8_g64_bf16, affine8_g128_bf16,
  affine4_g32_f32, affine4_g64_f32, affine4_g128_f32, affine8_g32_f32, affine8_g64_f32, affine8_g128_f32,
};
inline constexpr int kDTypeCount = static_cast<int>(DType::affine8_g128_f32) + 1;
/// Whether it is one of them, which a DType cast from a number need not be. Of any other every function that returns a Result is
/// ErrorCode::bad_dtype.
[[nodiscard]] constexpr bool is_dtype(DType type) noexcept { return static_cast<int>(type) < kDTypeCount; }

/// What is known of a DType without looking at data.
struct DTypeInfo {
  std::string_view name;      ///< as GGUF spells it: "q4_0", "q4_K", "f16"; the enumerator's own, but that of boolean is "bool"
  std::uint32_t block_elems;  ///< elements per block, 1 for plain elements
  std::uint32_t block_bytes;  ///< bytes per block
  std::int32_t gguf_id;       ///< id in a GGUF tensor header, -1 if it has none
};

/// Of a value that is no DType: {"unknown dtype", 1, 0, -1}.
[[nodiscard]] const DTypeInfo& info(DType type) noexcept;
[[nodiscard]] inline std::string_view to_string(DType type) noexcept { return info(type).name; }
[[nodiscard]] inline std::uint32_t block_elems(DType type) noexcept { return info(type).block_elems; }
[[nodiscard]] inline std::uint32_t block_bytes(DType type) noexcept { return info(type).block_bytes; }
[[nodiscard]] constexpr bool is_block(DType type) noexcept { return type >= DType::q4_0 && is_dtype(type); }
/// Whether the library can decode the type to numbers and use it as a matrix of weights.
[[nodiscard]] bool is_weight_type(DType type) noexcept;
/// By name, in any case ("Q4_K", "q4_k"); nothing if there is none.
[[nodiscard]] std::optional<DType> parse_dtype(std::string_view name) noexcept;
/// By GGUF tensor type id; nothing if the id is unknown or was removed from the format.
[[nodiscard]] std::optional<DType> dtype_from_gguf(std::uint32_t id) noexcept;
/// Bytes of `elems` elements in whole blocks; nothing if elems is no multiple of the block, the product overflows or
/// there is no such type.
[[nodiscard]] std::optional<std::uint64_t> storage_bytes(DType type, std::uint64_t elems) noexcept;

/// A block of a group of weights in a row: w = scale * q + bias, q without sign.
struct AffineInfo {
  std::uint32_t bits;   ///< of a weight: 4 or 8
  std::uint32_t group;  ///< weights: 32, 64 or 128
  DType scales;         ///< of scale and bias: f16, bf16 or f32
  friend bool operator==(const AffineInfo&, const AffineInfo&) = default;
};
/// What an affine type is made of, q4_1 included; nothing for all others.
[[nodiscard]] constexpr std::optional<AffineInfo> affine_info(DType type) noexcept {
  if (type == DType::q4_1) return AffineInfo{4, 32, DType::f16};
  if (type < DType::affine4_g64 || !is_dtype(type)) return std::nullopt;
  const int i = type < DType::affine4_g32_bf16 ? static_cast<int>(type) - static_cast<int>(DType::affine4_g64) + 1
                                               : static_cast<int>(type) - static_cast<int>(DType::affine4_g32_bf16) + 6;
  return AffineInfo{i % 6 < 3 ? 4u : 8u, 32u << i % 3, i < 6 ? DType::f16 : i < 12 ? DType::bf16 : DType::f32};
}
/// The type that is made of that; nothing if the library has none.
[[nodiscard]] constexpr std::optional<DType> affine_dtype(const AffineInfo& wanted) noexcept {
  for (int i = static_cast<int>(DType::q4_1); i < kDTypeCount; ++i) {
    if (affine_info(static_cast<DType>(i)) == wanted) return static_cast<DType>(i);
  }
  return std::nullopt;
}

/// IEEE binary16 as storage. Conversions round to nearest even; a NaN becomes the quiet 0x7E00 with its sign dropped.
struct f16 {
  std::uint16_t bits = 0;
  f16() = default;
  explicit f16(float value) noexcept;
  explicit operator float() const noexcept;
  static constexpr f16 from_bits(std::uint16_t b) noexcept {
    f16 h;
    h.bits = b;
    return h;
  }
  friend bool operator==(f16, f16) = default;
};

/// The upper half of an IEEE binary32 as storage. Conversions round to nearest even; a NaN is kept, made quiet.
struct bf16 {
  std::uint16_t bits = 0;
  bf16() = default;
  explicit bf16(float value) noexcept;
  explicit operator float() const noexcept { return std::bit_cast<float>(std::uint32_t{bits} << 16); }
  static constexpr bf16 from_bits(std::uint16_t b) noexcept {
    bf16 h;
    h.bits = b;
    return h;
  }
  friend bool operator==(bf16, bf16) = default;
};

/// The DType of a C++ element type.
template <class T>
inline constexpr std::optional<DType> kDTypeOf = std::nullopt;
template <> inline constexpr std::optional<DType> kDTypeOf<float> = DType::f32;
template <> inline constexpr std::optional<DType> kDTypeOf<double> = DType::f64;
template <> inline constexpr std::optional<DType> kDTypeOf<f16> = DType::f16;
template <> inline constexpr std::optional<DType> kDTypeOf<bf16> = DType::bf16;
template <> inline constexpr std::optional<DType> kDTypeOf<std::int8_t> = DType::i8;
template <> inline constexpr std::optional<DType> kDTypeOf<std::uint8_t> = DType::u8;
template <> inline constexpr std::optional<DType> kDTypeOf<std::int16_t> = DType::i16;
template <> inline constexpr std::optional<DType> kDTypeOf<std::uint16_t> = DType::u16;
template <> inline constexpr std::optional<DType> kDTypeOf<std::int32_t> = DType::i32;
template <> inline constexpr std::optional<DType> kDTypeOf<std::uint32_t> = DType::u32;
template <> inline constexpr std::optional<DType> kDTypeOf<std::int64_t> = DType::i64;
template <> inline constexpr std::optional<DType> kDTypeOf<std::uint64_t> = DType::u64;

}  // namespace mlxn
