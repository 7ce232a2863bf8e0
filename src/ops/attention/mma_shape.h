#pragma once

#include "ops/attention/args.h"

namespace mlxn {
namespace ops {

/// What host and device know of the kernel of attention that runs on matrix instructions, for head dimensions
/// up to kDim.
template <int kDim>
struct AttentionMmaShape {
  static constexpr int kWarps = 4;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kRows = kWarps * 16;  ///< of a group; the arithmetic of a row does not depend on it
  static constexpr int kStages = 2;
  /// Rows of keys and values in shared memory: an odd number of 16 bytes apart, so that the eight rows that a
  /// matrix is loaded from lie in different banks.
  static constexpr int kPitch = kDim * 2 + 16;
  static constexpr int kTileBytes = kAttentionTile * kPitch;
  static constexpr int kStageBytes = 2 * kTileBytes;  ///< keys, values
  static constexpr int kLost = 4;                     ///< masks of keys of a tile
  static constexpr int kLostAt = kStages * kStageBytes;
  static constexpr int kSpansAt = kLostAt + kLost * 8;  ///< of rows
  static constexpr int kSharedBytes = kSpansAt + kRows * 8;
  /// Groups that a multiprocessor has registers for.
  static constexpr int kResident = kDim <= 64 ? 3 : 2;
  static_assert(kDim % 16 == 0 && kPitch / 16 % 2 == 1 && kAttentionTile * kDim / 8 % kThreads == 0,
                "whole steps");
};

}  // namespace ops
}  // namespace mlxn

/// For the list of its instances: KERNEL(name, kDim).
#define MLXN_ATTENTION_MMA_KERNELS(KERNEL) \
  KERNEL(attention_mma_f16_64, 64)         \
  KERNEL(attention_mma_f16_96, 96)         \
  KERNEL(attention_mma_f16_128, 128)
