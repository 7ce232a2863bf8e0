#pragma once

#include <cstdlib>
#include <iterator>
#include <optional>
#include <stdexcept>
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

/// What a case runs on: a CPU with one instruction set and a number of threads, or a GPU.
struct Variant {
  std::string name;  ///< "cpu avx2 2 threads", "simt"
  Device device;
  std::optional<CpuIsa> isa;  ///< as the encode_ functions take it; nothing on a GPU
  /// Variants of one family give the same bits where a contract says so: all of the CPU, each GPU by itself.
  std::string family;
};

inline const Device& cpu(int threads);

/// Every variant of operations on floats: the instruction sets with one and two threads each, then the GPUs. Where sizes are to
/// be small, two threads for the best instruction set only: how work is divided does not depend on it.
inline const std::vector<Variant>& variants() {
  static const std::vector<Variant> all = [] {
    std::vector<Variant> list;
    for (const int threads : {1, 2}) {
      for (const CpuIsa isa : isas()) {
        if (!wants_device("cpu")) break;
        if (threads > 1 && isa != isas().back() && wants_small_sizes("cpu")) continue;
        list.push_back({"cpu " + std::string(to_string(isa)) + ", threads " + std::to_string(threads), cpu(threads), isa, "cpu"});
      }
    }
    for (const std::string& name : device_names()) {
      if (name != "cpu") list.push_back({name, device_named(name), {}, name});
    }
    if (list.empty()) throw std::runtime_error("no device of those that MLXN_TEST_DEVICES names");
    return list;
  }();
  return all;
}
/// Whether all of them are to have the smallest sizes that reach every branch.
inline bool wants_small_sizes() {
  return std::all_of(variants().begin(), variants().end(),
                     [](const Variant& v) { return wants_small_sizes(v.device.capabilities().backend); });
}
/// One variant of each family: the CPU with its best instruction set and two threads, then the GPUs.
inline const std::vector<Variant>& families() {
  static const std::vector<Variant> all = [] {
    std::vector<Variant> list;
    for (const Variant& v : variants()) {
      if (!list.empty() && list.back().family == v.family) list.pop_back();
      list.push_back(v);
    }
    return list;
  }();
  return all;
}

/// Holds the first result of each family and says whether later ones are the same.
template <class T>
class SameInFamily {
 public:
  testing::AssertionResult operator()(const Variant& variant, const T& result) {
    for (const auto& [family, first] : first_) {
      if (family != variant.family) continue;
      if (first == result) return testing::AssertionSuccess();
      return testing::AssertionFailure() << "the bits on " << variant.name << " are not those of the first variant of " << family;
    }
    first_.emplace_back(variant.family, result);
    return testing::AssertionSuccess();
  }

 private:
  std::vector<std::pair<std::string, T>> first_;
};

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
