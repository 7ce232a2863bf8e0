#pragma once

#include <iterator>
#include <string>
#include <vector>

#include "base/cpu_features.h"
#include "mlxn/weight.h"
#include "tests/support/devices.h"
#include "tests/support/guarded.h"
#include "tests/support/must.h"
#include "tests/support/random.h"
#include "tests/support/tolerance.h"

namespace mlxn::test {

/// The instruction sets of this machine that operations on floats have variants for: scalar always.
inline std::vector<CpuIsa> isas() {
  std::vector<CpuIsa> present;
  for (const CpuIsa isa : {CpuIsa::scalar, CpuIsa::avx2, CpuIsa::avx512, CpuIsa::neon}) {
    if (cpu_has(isa)) present.push_back(isa);
  }
  return present;
}

/// An instruction set that no machine of this architecture has.
inline constexpr CpuIsa kForeignIsa = kIsas[std::size(kIsas) - 1] == CpuIsa::avx512 ? CpuIsa::neon : CpuIsa::avx2;

/// The CPU with one or two threads.
inline const Device& cpu(int threads) {
  static const Device one = must(Device::open("cpu", {.threads = 1}));
  static const Device two = must(Device::open("cpu", {.threads = 2}));
  return threads == 1 ? one : two;
}

inline Weight prepared(const Device& device, const Tensor& source, PrepareMode mode) {
  PrepareOptions options;
  options.mode = mode;
  return must(Weight::prepare(device, source, options));
}

inline constexpr DType kFloats[] = {DType::f32, DType::f16, DType::bf16};

/// The values as the type stores them, NaN and infinity included.
inline std::vector<std::byte> stored(DType type, const std::vector<float>& values) {
  std::vector<std::byte> bytes(values.size() * block_bytes(type));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const f16 half(values[i]);
    const bf16 brain(values[i]);
    const void* from = type == DType::f16    ? static_cast<const void*>(&half)
                       : type == DType::bf16 ? static_cast<const void*>(&brain)
                                             : static_cast<const void*>(&values[i]);
    std::memcpy(&bytes[i * block_bytes(type)], from, block_bytes(type));
  }
  return bytes;
}
inline std::vector<float> rounded(DType type, const std::vector<float>& values) {
  std::vector<float> out(values.size());
  must(dequantize(type, stored(type, values), out));
  return out;
}
/// Guarded::write for values of any kind.
inline void write(Guarded& guarded, DType type, const std::vector<float>& values) { guarded.write(stored(type, values)); }

}  // namespace mlxn::test
