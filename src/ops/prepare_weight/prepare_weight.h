#pragma once

#include "mlxn/encoder.h"
#include "ops/prepare_weight/args.h"
#include "quant/gpu_weight.h"

// No public operation: what Weight::prepare runs on a GPU, and how the portable kernels find a weight.
//
// Prepared weights are the same blocks taken apart: each field (quant/block_fields.h) of all blocks of the matrix in one
// plane, in the order of the blocks. All loads of a field are then aligned, which in the file they are for few formats, and
// no byte is added but some between planes. Rows of f32, f16 and bf16 stay as they are, but begin at multiples of 16 bytes.

namespace mlxn::ops {

/// f32, f16 or bf16 as a launch struct names it.
[[nodiscard]] inline std::uint32_t element_type(DType type) noexcept {
  return type == DType::f16 ? quant::kElementF16 : type == DType::bf16 ? quant::kElementBf16 : quant::kElementF32;
}

/// Rows of weights that the portable kernels can find their way in: less than 4 GiB. limit_exceeded otherwise.
[[nodiscard]] Result<void> check_gpu_row(std::string_view op, DType type, std::int64_t k);

/// A layout of a matrix on a GPU: `view` without its pointer.
struct WeightLayout {
  quant::GpuWeight view{};
  std::uint64_t bytes = 0;
};
/// As in the file: rows of blocks without gaps.
[[nodiscard]] WeightLayout raw_layout(DType type, std::int64_t n, std::int64_t k) noexcept;
[[nodiscard]] WeightLayout prepared_layout(DType type, std::int64_t n, std::int64_t k) noexcept;
/// Whether every field of a matrix of that layout at the address can be loaded by its widest words.
[[nodiscard]] bool is_wide(DType type, const quant::GpuWeight& view, const std::byte* address) noexcept;
/// Sets what a view says of its addresses.
void set_even(DType type, quant::GpuWeight& view, const std::byte* address) noexcept;

/// Whether the bytes of the file are those of the prepared layout already.
[[nodiscard]] bool is_prepared_layout(DType type, std::int64_t k) noexcept;

/// Records the taking apart of `blocks` raw blocks (of plain elements: rows) of a matrix [n, k] of the type, from block `first`
/// on. from: u8, at least their bytes at any address; to: u8, the bytes of the prepared layout.
[[nodiscard]] Result<void> encode_prepare_weight(CommandEncoder& encoder, const Tensor& from, const Tensor& to, DType type,
                                                 std::int64_t n, std::int64_t k, std::int64_t first, std::int64_t blocks);
/// What encode_prepare_weight counts as a block.
[[nodiscard]] std::uint64_t prepare_unit_bytes(DType type, std::int64_t k) noexcept;

}  // namespace mlxn::ops
