#include "mlxn/dtype.h"

#include "base/checked.h"

namespace mlxn {
namespace {

constexpr std::array<DTypeInfo, kDTypeCount> kInfo = {{
    {"f32", 1, 4, 0},        {"f16", 1, 2, 1},        {"bf16", 1, 2, 30},      {"f64", 1, 8, 28},
    {"i8", 1, 1, 24},        {"u8", 1, 1, -1},        {"i16", 1, 2, 25},       {"u16", 1, 2, -1},
    {"i32", 1, 4, 26},       {"u32", 1, 4, -1},       {"i64", 1, 8, 27},       {"u64", 1, 8, -1},
    {"bool", 1, 1, -1},      {"f8e4m3", 1, 1, -1},    {"f8e5m2", 1, 1, -1},    {"f8e8m0", 1, 1, -1},
    {"q4_0", 32, 18, 2},     {"q4_1", 32, 20, 3},     {"q5_0", 32, 22, 6},     {"q5_1", 32, 24, 7},
    {"q8_0", 32, 34, 8},     {"q2_K", 256, 84, 10},   {"q3_K", 256, 110, 11},  {"q4_K", 256, 144, 12},
    {"q5_K", 256, 176, 13},  {"q6_K", 256, 210, 14},  {"iq4_nl", 32, 18, 20},  {"iq4_xs", 256, 136, 23},
    {"mxfp4", 32, 17, 39},   {"q8_1", 32, 36, 9},     {"q8_K", 256, 292, 15},  {"iq2_xxs", 256, 66, 16},
    {"iq2_xs", 256, 74, 17}, {"iq2_s", 256, 82, 22},  {"iq3_xxs", 256, 98, 18}, {"iq3_s", 256, 110, 21},
    {"iq1_s", 256, 50, 19},  {"iq1_m", 256, 56, 29},  {"tq1_0", 256, 54, 34},  {"tq2_0", 256, 66, 35},
    {"nvfp4", 64, 36, 40},   {"q1_0", 128, 18, 41},   {"q2_0", 64, 18, 42},
    {"affine4_g64", 64, 36, -1}, {"affine4_g128", 128, 68, -1},
    {"affine8_g32", 32, 36, -1}, {"affine8_g64", 64, 68, -1},
    {"affine8_g128", 128, 132, -1}, {"affine4_g32_bf16", 32, 20, -1},
    {"affine4_g64_bf16", 64, 36, -1}, {"affine4_g128_bf16", 128, 68, -1},
    {"affine8_g32_bf16", 32, 36, -1}, {"affine8_g64_bf16", 64, 68, -1},
    {"affine8_g128_bf16", 128, 132, -1}, {"affine4_g32_f32", 32, 24, -1},
    {"affine4_g64_f32", 64, 40, -1}, {"affine4_g128_f32", 128, 72, -1},
    {"affine8_g32_f32", 32, 40, -1}, {"affine8_g64_f32", 64, 72, -1},
    {"affine8_g128_f32", 128, 136, -1},
}};

static_assert([] {
  for (int i = static_cast<int>(DType::q4_1); i < kDTypeCount; ++i) {
    const DType type = static_cast<DType>(i);
    const auto affine = affine_info(type);
    if (!affine) continue;
    const DTypeInfo& t = kInfo[static_cast<std::size_t>(i)];
    if (t.block_elems != affine->group) return false;
    if (t.block_bytes != affine->group * affine->bits / 8 + (affine->scales == DType::f32 ? 8 : 4)) return false;
    if (affine_dtype(*affine) != type) return false;
  }
  return true;
}());

constexpr char lower(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

}  // namespace

const DTypeInfo& info(DType type) noexcept {
  static constexpr DTypeInfo kNone{"unknown dtype", 1, 0, -1};
  return is_dtype(type) ? kInfo[static_cast<std::size_t>(type)] : kNone;
}

bool is_weight_type(DType type) noexcept {
  return type == DType::f32 || type == DType::f16 || type == DType::bf16 ||
         (type >= DType::q4_0 && type <= DType::mxfp4) || affine_info(type);
}

std::optional<DType> parse_dtype(std::string_view name) noexcept {
  for (int i = 0; i < kDTypeCount; ++i) {
    const std::string_view candidate = kInfo[static_cast<std::size_t>(i)].name;
    bool equal = candidate.size() == name.size();
    for (std::size_t c = 0; equal && c < name.size(); ++c) equal = lower(candidate[c]) == lower(name[c]);
    if (equal) return static_cast<DType>(i);
  }
  return std::nullopt;
}

std::optional<DType> dtype_from_gguf(std::uint32_t id) noexcept {
  for (int i = 0; i < kDTypeCount; ++i) {
    const std::int32_t candidate = kInfo[static_cast<std::size_t>(i)].gguf_id;
    if (candidate >= 0 && static_cast<std::uint32_t>(candidate) == id) return static_cast<DType>(i);
  }
  return std::nullopt;
}

std::optional<std::uint64_t> storage_bytes(DType type, std::uint64_t elems) noexcept {
  if (!is_dtype(type)) return std::nullopt;
  const DTypeInfo& t = info(type);
  if (elems % t.block_elems != 0) return std::nullopt;
  return checked_mul(elems / t.block_elems, t.block_bytes);
}

f16::f16(float value) noexcept {
  const std::uint32_t x = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (x >> 16) & 0x8000u;
  const std::uint32_t magnitude = x & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    bits = 0x7e00;
  } else if (magnitude >= 0x477ff000u) {  // 65520 and more round to infinity
    bits = static_cast<std::uint16_t>(sign | 0x7c00u);
  } else if (magnitude < 0x38800000u) {  // below 2^-14: subnormal; adding 0.5 aligns the bits and rounds them
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    bits = static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u));
  } else {
    const std::uint32_t odd = (magnitude >> 13) & 1u;
    bits = static_cast<std::uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
  }
}

f16::operator float() const noexcept {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1fu;
  const std::uint32_t fraction = bits & 0x3ffu;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | (fraction << 13));
  if (exponent == 0) {
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
}

bf16::bf16(float value) noexcept {
  const std::uint32_t x = std::bit_cast<std::uint32_t>(value);
  if ((x & 0x7fffffffu) > 0x7f800000u) {
    bits = static_cast<std::uint16_t>((x >> 16) | 0x40u);
  } else {
    bits = static_cast<std::uint16_t>((x + 0x7fffu + ((x >> 16) & 1u)) >> 16);
  }
}

}  // namespace mlxn
