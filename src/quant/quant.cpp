#include "mlxn/quant.h"

#include <cmath>

#include "base/check_value.h"
#include "quant/codec.h"

namespace mlxn {
namespace {

// The number of whole blocks in `blocks`.
Result<std::uint64_t> count_blocks(const char* op, DType type, std::span<const std::byte> blocks) {
  MLXN_CHECK(check_dtype(op, type));
  if (!is_weight_type(type)) {
    return make_error(ErrorCode::unsupported, "{}: type is {}, wanted one of the weight types", op, to_string(type));
  }
  if (blocks.size() % block_bytes(type) != 0) {
    return make_error(ErrorCode::bad_shape, "{}: blocks has {} bytes, wanted a multiple of {} for {}", op, blocks.size(),
                      block_bytes(type), to_string(type));
  }
  return std::uint64_t{blocks.size() / block_bytes(type)};
}

}  // namespace

Result<void> dequantize(DType type, std::span<const std::byte> blocks, std::span<float> out) {
  MLXN_TRY(const std::uint64_t n_blocks, count_blocks("dequantize", type, blocks));
  const std::uint64_t elems = n_blocks * block_elems(type);  // at most 15 elements per byte that is held: no overflow
  if (out.size() != elems) {
    return make_error(ErrorCode::bad_shape, "dequantize: out has {} elements, wanted {} for {} blocks of {}", out.size(),
                      elems, n_blocks, to_string(type));
  }
  quant::dequantize_blocks(type, blocks.data(), n_blocks, out.data());
  return {};
}

Result<void> quantize(DType type, std::span<const float> x, std::span<std::byte> blocks) {
  MLXN_CHECK(check_dtype("quantize", type));
  if (!quant::has_encoder(type)) {
    return make_error(ErrorCode::unsupported,
                      "quantize: type is {}, wanted one of f32 f16 bf16 q4_0 q4_1 q5_0 q5_1 q8_0 mxfp4",
                      to_string(type));
  }
  const std::uint32_t unit = block_elems(type);
  if (x.size() % unit != 0) {
    return make_error(ErrorCode::bad_shape, "quantize: x has {} elements, wanted a multiple of {} for {}", x.size(),
                      unit, to_string(type));
  }
  const std::uint64_t n_blocks = x.size() / unit;
  const std::uint64_t bytes = n_blocks * block_bytes(type);
  if (blocks.size() != bytes) {
    return make_error(ErrorCode::bad_shape, "quantize: blocks has {} bytes, wanted {} for {} elements of {}",
                      blocks.size(), bytes, x.size(), to_string(type));
  }
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (!std::isfinite(x[i])) {
      return make_error(ErrorCode::out_of_range, "quantize: x[{}] is {}, wanted a finite number", i, x[i]);
    }
  }
  quant::quantize_blocks(type, x.data(), n_blocks, blocks.data());
  const std::uint64_t bad = quant::first_invalid_block(type, blocks.data(), n_blocks);
  if (bad != n_blocks) {
    return make_error(ErrorCode::out_of_range,
                      "quantize: x[{}..{}) is too large for {}, wanted values whose scale is finite", bad * unit,
                      (bad + 1) * unit, to_string(type));
  }
  return {};
}

Result<void> validate_blocks(DType type, std::span<const std::byte> blocks) {
  MLXN_TRY(const std::uint64_t n_blocks, count_blocks("validate_blocks", type, blocks));
  const std::uint64_t bad = quant::first_invalid_block(type, blocks.data(), n_blocks);
  if (bad == n_blocks) return {};
  const Error text = make_error(ErrorCode::corrupt_file,
                                "validate_blocks: block {} of {} ({}) has a scale that is not finite", bad, n_blocks,
                                to_string(type));
  return Error(text.code(), text.message(), "V17");
}

}  // namespace mlxn
