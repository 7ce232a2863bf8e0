#pragma once

#include <cstdint>

namespace mlxn::cpu {

/// Loops that do nothing but what a ceiling counts, for measuring one. Each returns a value that depends on all of its work,
/// so that no compiler drops it.
struct CeilingLoops {
  /// Reads `bytes` (a multiple of 512) at `data` (aligned to 64) once.
  float (*read)(const void* data, std::uint64_t bytes);
  /// Does `rounds` rounds of independent f32 multiply-adds on registers; `f32_ops` operations a round.
  float (*f32)(std::uint64_t rounds);
  std::uint64_t f32_ops;
  /// The same for dot products of int8; null where the set has no instruction for them.
  float (*int8)(std::uint64_t rounds);
  std::uint64_t int8_ops;
};

/// The loops of the best instruction set of this machine.
[[nodiscard]] const CeilingLoops& ceiling_loops() noexcept;

namespace scalar { extern const CeilingLoops kCeilingLoops; }
namespace avx2 { extern const CeilingLoops kCeilingLoops; }
namespace avx512 { extern const CeilingLoops kCeilingLoops; }
namespace neon { extern const CeilingLoops kCeilingLoops; }
namespace dotprod { extern const CeilingLoops kCeilingLoops; }
namespace i8mm { extern const CeilingLoops kCeilingLoops; }

}  // namespace mlxn::cpu
