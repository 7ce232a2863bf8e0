#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mlxn/gguf_writer.h"
#include "mlxn/synth.h"

namespace mlxn::models {

/// Writes the keys tokenizer.* of a made-up vocabulary of `size` tokens, its chat template among them. Errors: invalid_argument (size too small for the
/// kind's bytes and special tokens), those of GgufWriter.
[[nodiscard]] Result<void> add_vocabulary(GgufWriter& writer, SynthVocabulary kind, std::uint64_t size, std::uint64_t seed);

}  // namespace mlxn::models
