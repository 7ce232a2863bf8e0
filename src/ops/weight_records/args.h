#pragma once

#include "portable/args.h"
#include "quant/gpu_weight.h"

namespace mlxn {
namespace ops {

/// A part of records and where its bytes stand in blocks, see quant/records.h: those of block b begin at offset + b * step.
struct RecordPart {
  int64_t offset;
  uint32_t step;
  uint32_t at;    ///< where it begins in a record, a plane in the first half
  uint32_t size;  ///< bits of a plane, bytes of an area; 0: no such part
  uint32_t run, flip;   ///< of a plane
  uint32_t rows_apart;  ///< the same, 0 or 1
};

/// Rows of blocks to tiles of records, or back.
struct WeightRecordsArgs {
  In<uint8_t> from;
  Out<uint8_t> to;
  In<uint32_t> ids;  ///< back: the matrix's row that row i is taken from; null: first_row + i
  int64_t rows;        ///< of blocks
  int64_t row_blocks;
  int64_t tile_records, tile_bytes;
  int64_t first_row;   ///< of the matrix, where `rows` begin; a multiple of 16
  int64_t n;           ///< rows of the matrix: ids beyond it are left out
  RecordPart planes[2], areas[2];
  uint32_t block_elems, elems;       ///< of a block, of a record along k
  uint32_t record_bytes, half_step;  ///< of a whole record; from half to half
};

/// How large weights can be, row by row.
struct WeightExponentsArgs {
  quant::GpuWeight w;
  Out<int32_t> exponents;  ///< one for each row of the launch
  int64_t rows;  ///< of w; those of the launch beyond have none
  int64_t k;
};

}  // namespace ops
}  // namespace mlxn
