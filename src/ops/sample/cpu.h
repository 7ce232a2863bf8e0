#pragma once

#include "backends/cpu/launch.h"
#include "ops/sample/args.h"

namespace mlxn::ops {

/// A slot: candidates u64 [vocab], logits f32 [vocab], the window u32 [window], weights of the candidates f32 [vocab].
[[nodiscard]] std::uint64_t sample_slot_bytes(std::int64_t vocab, std::int64_t window) noexcept;

void sample_rows(const SampleArgs& args, const CpuContext& context);

}  // namespace mlxn::ops
