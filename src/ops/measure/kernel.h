#pragma once

#include "ops/measure/args.h"
#include "portable/dialect.h"

namespace mlxn {
namespace gpu {

/// Groups take tiles by turns; a thread has kLoads loads of 16 bytes in flight. Bound by memory, which is what it measures:
/// the sum is there so that every byte has to arrive.
struct MeasureRead {
  using Args = ops::MeasureReadArgs;
  using Shared = NoShared;
  static constexpr uint32_t kThreads = 256;
  static constexpr uint32_t kLoads = 8;

  static MLXN_FN uint32_t sum_of(u32x4 v) { return v.x + v.y + v.z + v.w; }

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    constexpr int64_t kTile = int64_t(kThreads) * kLoads;
    MLXN_GLOBAL const u32x4* data = (MLXN_GLOBAL const u32x4*)args.data.ptr;
    const int64_t count = args.bytes / int64_t(sizeof(u32x4));
    uint32_t sum = 0;
    int64_t tile = int64_t(t.group.x) * kTile;
    for (; tile + kTile <= count; tile += int64_t(t.groups.x) * kTile) {
      u32x4 v[kLoads];
      MLXN_UNROLL
      for (uint32_t i = 0; i < kLoads; ++i) v[i] = load_wide(data + tile + i * kThreads + t.index);
      MLXN_UNROLL
      for (uint32_t i = 0; i < kLoads; ++i) sum += sum_of(v[i]);
    }
    for (int64_t i = tile + t.index; i < count; i += kThreads) sum += sum_of(load_wide(data + i));  // the last tile's part
    sum = simd_sum(t, sum);
    if (t.lane() == 0) atomic_add(args.sink.ptr, sum);
  }
};

/// Chains of multiply-adds, enough of them in a thread that no instruction waits for the one before it.
struct MeasureArithmetic {
  using Args = ops::MeasureArithmeticArgs;
  using Shared = NoShared;
  static constexpr uint32_t kThreads = 256;
  static constexpr uint32_t kChains = 8, kSteps = 8;  // in a round
  static constexpr uint32_t kOps = 2 * kChains * kSteps;

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    float v[kChains];
    MLXN_UNROLL
    for (uint32_t i = 0; i < kChains; ++i) v[i] = float(t.index + i);
    for (uint64_t round = 0; round < args.rounds; ++round) {
      MLXN_UNROLL
      for (uint32_t step = 0; step < kSteps; ++step) {
        MLXN_UNROLL
        for (uint32_t i = 0; i < kChains; ++i) v[i] = fma(v[i], args.factor, 1.0f);
      }
    }
    float sum = 0.0f;
    MLXN_UNROLL
    for (uint32_t i = 0; i < kChains; ++i) sum += v[i];
    if (sum < 0.0f) *args.sink.ptr = sum;  // never, but no compiler knows
  }
};

struct MeasureEmpty {
  using Args = ops::MeasureEmptyArgs;
  using Shared = NoShared;
  static constexpr uint32_t kThreads = 32;
  static MLXN_FN void run(const Args&, const Thread&, MLXN_SHARED Shared&) {}
};

}  // namespace gpu
}  // namespace mlxn

#define MLXN_KERNELS(KERNEL)                    \
  KERNEL(measure_read, MeasureRead)             \
  KERNEL(measure_arithmetic, MeasureArithmetic) \
  KERNEL(measure_empty, MeasureEmpty)
