#pragma once

#include "portable/args.h"

namespace mlxn {
namespace ops {

/// Four words: a counter or what comes of it.
struct PhiloxWords {
  uint32_t a, b, c, d;
};

/// Philox4x32 with ten rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): 128 random bits for a
/// counter and a key, without any state.
MLXN_ARGS_FN inline PhiloxWords philox4x32(PhiloxWords counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t x = uint64_t(0xD2511F53u) * counter.a, y = uint64_t(0xCD9E8D57u) * counter.c;
    PhiloxWords next;
    next.a = uint32_t(y >> 32) ^ counter.b ^ key0;
    next.b = uint32_t(y);
    next.c = uint32_t(x >> 32) ^ counter.d ^ key1;
    next.d = uint32_t(x);
    counter = next;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

/// Uniform in [0, 1) with 53 bits, in units of 2^-64.
MLXN_ARGS_FN inline uint64_t philox_fraction(uint64_t seed, uint64_t step, uint64_t row) {
  PhiloxWords counter;
  counter.a = uint32_t(step);
  counter.b = uint32_t(step >> 32);
  counter.c = uint32_t(row);
  counter.d = uint32_t(row >> 32);
  const PhiloxWords bits = philox4x32(counter, uint32_t(seed), uint32_t(seed >> 32));
  return ((uint64_t(bits.a >> 5) << 26) | (bits.b >> 6)) << 11;
}

}  // namespace ops
}  // namespace mlxn
