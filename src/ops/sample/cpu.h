#pragma once

#include "backends/cpu/launch.h"

namespace mlxn::ops {

struct SampleArgs {
  In<float> logits;
  In<std::uint32_t> recent;  ///< null: no penalties; i32 ids read the same, negative ones lie outside the vocabulary
  Out<std::uint32_t> ids;
  Out<float> logprobs;            ///< null: not wanted
  InOut<std::uint8_t> workspace;  ///< one slot of sample_slot_bytes per thread that has rows
  std::int64_t rows, vocab, logits_stride;
  std::int64_t window, recent_stride, count;
  std::int64_t top_k;  ///< 1 .. vocab
  std::uint64_t seed;
  std::int64_t step;
  double min_log;  ///< log(min_p): how far a logit may lie below the greatest
  float temperature, top_p;
  float repetition_penalty, frequency_penalty, presence_penalty;
};

/// A slot: candidates u64 [vocab], logits f32 [vocab], the window u32 [window], weights of the candidates f32 [vocab].
[[nodiscard]] std::uint64_t sample_slot_bytes(std::int64_t vocab, std::int64_t window) noexcept;

void sample_rows(const SampleArgs& args, const CpuContext& context);

}  // namespace mlxn::ops
