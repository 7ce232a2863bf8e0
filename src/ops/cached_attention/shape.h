#pragma once

#include "ops/attention/args.h"

namespace mlxn {
namespace ops {

/// Blocks that may share the keys of a key head.
constexpr int kCachedAttentionBlocks = 8;

/// What host and device know of the kernel for head dimensions up to kDim and up to kRows query rows of a key head.
template <int kDim, int kRows>
struct CachedAttentionShape {
  static constexpr int kWarps = 8;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kTile = kAttentionTile;
  // Offsets in shared memory.
  static constexpr int kQueriesAt = 0;                                       ///< f32 [kRows][kDim], turned
  static constexpr int kKeysAt = kQueriesAt + kRows * kDim * 4;              ///< f16 [kRows][kDim], the new ones
  static constexpr int kValuesAt = kKeysAt + kRows * kDim * 2;
  static constexpr int kWeightsAt = kValuesAt + kRows * kDim * 2;            ///< f32 [kWarps][kTile / kWarps][kRows]
  static constexpr int kCorrectionsAt = kWeightsAt + kTile * kRows * 4;      ///< f32 [kWarps][kRows]
  static constexpr int kOutputsAt = kCorrectionsAt + kWarps * kRows * 4;     ///< f32 [kWarps][kRows][kDim]
  static constexpr int kStatesAt = kOutputsAt + kWarps * kRows * kDim * 4;   ///< {maximum, sum} [kWarps][kRows]
  /// From the blocks of the cluster, this block's columns: f32 [blocks][kRows][kDim / blocks].
  static constexpr int kInboxAt = kStatesAt + kWarps * kRows * 8;
  static constexpr int kInboxStatesAt = kInboxAt + kRows * kDim * 4;         ///< {maximum, sum, -, -} [blocks][kRows]
  static constexpr int kSinksAt = kInboxStatesAt + kCachedAttentionBlocks * kRows * 16;  ///< f32 [kRows]
  static constexpr int kBarrierAt = kSinksAt + kRows * 4;                     ///< of the inbox
  static constexpr int kSharedBytes = kBarrierAt + 8;
  /// Blocks that a multiprocessor has registers for.
  static constexpr int kResident = kRows <= 4 ? 2 : 1;
  static_assert((kDim == 64 || kDim == 128) && (kRows == 4 || kRows == 8), "the lane maps");
  static_assert(kSharedBytes <= 48 << 10, "without asking");
};

}  // namespace ops
}  // namespace mlxn

/// For the list of its instances: KERNEL(name, kDim, kRows).
#define MLXN_CACHED_ATTENTION_KERNELS(KERNEL)       \
  KERNEL(cached_attention_f16_64_rows4, 64, 4)      \
  KERNEL(cached_attention_f16_64_rows8, 64, 8)      \
  KERNEL(cached_attention_f16_128_rows4, 128, 4)    \
  KERNEL(cached_attention_f16_128_rows8, 128, 8)
