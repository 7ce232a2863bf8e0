#pragma once

#include <cstdint>

#include "base/cpu_features.h"
#include "mlxn/dtype.h"
#include "portable/args.h"

namespace mlxn::rows16 {

/// A product on the CPU, planned when it is recorded. All fields but the pointers stay as they are on a replay.
struct Args {
  In<std::uint8_t> x;
  In<std::uint8_t> w;  ///< raw rows or rows16 groups
  Out<std::uint8_t> y;
  InOut<std::uint8_t> scratch;
  std::int64_t m, n, k;
  std::int64_t x_row_bytes, y_row_bytes;  ///< strides
  std::int64_t panel_rows;                ///< rows of x that are made ready together
  std::int64_t slab_elems;                ///< elements of k per pass, a multiple of 256
  std::int64_t chunk_groups;              ///< groups of weight rows that a thread takes at a time
  std::int64_t x_parts;                   ///< pieces of a panel that threads take apart, for few groups and many threads
  std::int64_t x_bytes;                   ///< of a panel in scratch
  std::int64_t thread_bytes;              ///< of each thread's own scratch, behind it
  DType type, x_type, y_type;
  std::uint8_t prepared;
  std::uint8_t quantised;  ///< class int8act
  std::uint8_t to_f16;     ///< class f16
  std::uint8_t decoded;    ///< through slabs of unpacked weights
  std::uint8_t isa;        ///< CpuIsa
};
static_assert(sizeof(Args) == 128);

}  // namespace mlxn::rows16
