#pragma once

#include "portable/args.h"

namespace mlxn {
namespace ops {

/// Every device draws the same token. What decides is therefore either a comparison of logits or a sum of integers, which has no
/// order: the weight of a token is e^((logit - top) / temperature), formed in f32 by the same roundings everywhere, and cut to
/// a whole multiple of 2^-weight_bits. A vocabulary of 2^18 leaves 44 bits; weights of one row sum to at most 2^62.
struct SampleArgs {
  In<float> logits;
  In<uint32_t> recent;        ///< null: no penalties; i32 ids read the same, negative ones lie outside the vocabulary
  Out<uint32_t> ids;
  Out<float> logprobs;        ///< null: not wanted
  InOut<uint8_t> workspace;   ///< slots: on a CPU one per thread that has rows, on a GPU one per row
  int64_t rows, vocab, logits_stride;
  int64_t window, recent_stride;
  Index count, step;
  int64_t top_k;              ///< 1 .. vocab
  uint64_t seed, top_p;       ///< top_p in units of 2^-64, rounded up
  uint64_t slot_bytes;
  uint32_t nucleus;           ///< 0: top_p keeps all
  uint32_t chunks;            ///< of a row, on a GPU
  float min_log;              ///< log(min_p): how far a logit may lie below the greatest
  float temperature, weight_scale;  ///< 2^weight_bits
  float repetition_penalty, frequency_penalty, presence_penalty;
};

/// Whether the candidates are put in order; otherwise tokens are drawn by id.
MLXN_ARGS_FN inline bool is_ordered(const SampleArgs& args) { return args.top_k < args.vocab || args.nucleus != 0; }

}  // namespace ops
}  // namespace mlxn
