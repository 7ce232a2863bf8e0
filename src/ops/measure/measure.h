#pragma once

#include "mlxn/encoder.h"

// No public operations: work whose speed is a limit of the device. graph/ceilings.h measures with it.

namespace mlxn::ops {

enum class Arithmetic : std::uint8_t {
  f32,   ///< multiply-adds on registers
  int8,  ///< dot products of int8 on registers
};

/// What the results go to; one for all of these, u32 [measure_sink_words].
[[nodiscard]] std::int64_t measure_sink_words(const Device& device) noexcept;

/// Reads every byte of a contiguous u8 tensor once: a multiple of 512 of them, aligned to 64. On a GPU word 0 of the sink
/// grows by the sum of the data's words, modulo 2^32.
[[nodiscard]] Result<void> encode_measure_read(CommandEncoder& encoder, const Tensor& data, const Tensor& sink);

/// `rounds` rounds of arithmetic on all of the device, each of so many operations; none where there is no instruction for it.
[[nodiscard]] std::uint64_t measure_arithmetic_ops(const Device& device, Arithmetic kind) noexcept;
[[nodiscard]] Result<void> encode_measure_arithmetic(CommandEncoder& encoder, Arithmetic kind, std::uint64_t rounds, const Tensor& sink);

/// A dispatch that does nothing.
[[nodiscard]] Result<void> encode_measure_empty(CommandEncoder& encoder, const Tensor& sink);

}  // namespace mlxn::ops
