#pragma once

#include "ops/prepare_weight/args.h"
#include "portable/dialect.h"

namespace mlxn {
namespace gpu {

/// A group takes blocks beside each other and, field by field, copies them unit by unit, so that what is stored is stored
/// side by side; what is loaded is in the nearest cache after the first field. Units are of four bytes if the field is, else
/// of two or one; blocks may begin at any address. Bound by memory.
struct PrepareWeight {
  using Args = ops::PrepareWeightArgs;
  using Shared = NoShared;
  static constexpr uint32_t kThreads = 256;

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    const int64_t begin = int64_t(t.group.x) * args.group_blocks;
    const uint32_t blocks = uint32_t(min(int64_t(args.group_blocks), args.blocks - begin));
    for (uint32_t f = 0; f < 4 && args.bytes[f] != 0; ++f) {
      MLXN_GLOBAL const uint8_t* from = args.from.ptr + begin * args.block_bytes + args.from_offset[f];
      MLXN_GLOBAL uint8_t* to = args.to.ptr + args.offset[f] + (args.first + begin) * args.step[f];
      const uint32_t bytes = args.bytes[f], unit = bytes % 4 == 0 ? 4 : bytes % 2 == 0 ? 2 : 1;
      const uint32_t units = bytes / unit;  // of a block
      for (uint32_t i = t.index; i < blocks * units; i += kThreads) {
        const uint32_t block = i / units, at = i % units * unit;
        MLXN_GLOBAL const uint8_t* p = from + uint64_t(block) * args.block_bytes + at;
        MLXN_GLOBAL uint8_t* q = to + uint64_t(block) * args.step[f] + at;
        if (unit == 4) *(MLXN_GLOBAL uint32_t*)q = load_u32_1(p);
        else if (unit == 2) *(MLXN_GLOBAL uint16_t*)q = uint16_t(load_u16_1(p));
        else *q = *p;
      }
    }
  }
};

}  // namespace gpu
}  // namespace mlxn

#define MLXN_KERNELS(KERNEL) KERNEL(prepare_weight, PrepareWeight)
