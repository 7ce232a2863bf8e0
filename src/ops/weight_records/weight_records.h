#pragma once

#include "mlxn/encoder.h"
#include "quant/gpu_weight.h"

// No public operation: what Weight::prepare runs on a Hopper GPU, and the way back for arithmetic that wants whole blocks.
// quant/records.h has the layout.

namespace mlxn::ops {

[[nodiscard]] bool has_records(DType type) noexcept;
/// Of a matrix [n, k]: the records, then an exponent (i32) for each of their rows, see encode_weight_exponents.
[[nodiscard]] std::uint64_t records_bytes(DType type, std::int64_t n, std::int64_t k) noexcept;

/// The same of rows of bf16 (WeightForm::rows) in the prepared layout; of f16, which has no exponents, the layout alone.
[[nodiscard]] std::uint64_t rows_bytes(DType type, std::int64_t n, std::int64_t k) noexcept;

/// i32, a view of the storage of records or of rows.
[[nodiscard]] Result<Tensor> exponents_of(const Tensor& records, DType type, std::int64_t n, std::int64_t k);

/// Records the packing of `rows` rows of blocks, the rows from `first_row` (a multiple of 16) on of a matrix [n, k]. blocks: u8, in
/// the layout of `view` (of the rows alone); records: u8, records_bytes(type, n, k). Tiles that the rows fill in part are filled
/// up with zeros.
[[nodiscard]] Result<void> encode_pack_records(CommandEncoder& encoder, const Tensor& blocks, const quant::GpuWeight& view,
                                               const Tensor& records, DType type, std::int64_t k, std::int64_t first_row,
                                               std::int64_t rows);

/// Which rows come back: `rows` from `first` on, or those that ids (u32 [rows]) names; ids of no row leave theirs as it is.
struct RecordRows {
  std::int64_t first = 0, rows = 0;
  const Tensor* ids = nullptr;
};
/// The inverse, for rows of a matrix [n, k]. blocks: u8, in the layout of `view`, of rows.rows rows.
[[nodiscard]] Result<void> encode_unpack_records(CommandEncoder& encoder, const Tensor& records, const Tensor& blocks,
                                                 const quant::GpuWeight& view, DType type, std::int64_t n, std::int64_t k,
                                                 const RecordRows& rows);

/// Records the finding of the exponents of `rows` rows of a matrix [n, k], the rows from `first_row` (a multiple of 16) on, and of
/// those that fill up their last tile. blocks: u8, in the layout of `view` (of the rows alone); records: as above. Also of rows of
/// bf16.
[[nodiscard]] Result<void> encode_weight_exponents(CommandEncoder& encoder, const Tensor& blocks, const quant::GpuWeight& view,
                                                   const Tensor& records, DType type, std::int64_t n, std::int64_t k,
                                                   std::int64_t first_row, std::int64_t rows);

}  // namespace mlxn::ops
