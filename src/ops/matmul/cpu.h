#pragma once

#include "backends/cpu/context.h"
#include "mlxn/ops/matmul.h"
#include "ops/matmul/args.h"

namespace mlxn::rows16 {

/// Fills the fields of `args` that follow from the problem, the route and the number of threads: panel, slab, chunks, scratch.
/// m, n, k, the types and the flags but `decoded` are set.
void plan(Args& args, bool tile, int threads) noexcept;
[[nodiscard]] std::uint64_t scratch_bytes(const Args& args, int threads) noexcept;

/// The kernel: every thread of the team calls it.
void run(const Args& args, const CpuContext& context);

/// The largest m that is better served by the vector route.
inline constexpr std::int64_t kVectorThreshold = 8;

}  // namespace mlxn::rows16
