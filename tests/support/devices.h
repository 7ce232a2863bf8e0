#pragma once

#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/must.h"

namespace mlxn::test {

/// Makes Device::open know "simt" in programs that link the emulator; which do is the build's choice (mlxn_test()).
void add_test_devices();

/// Whether tests are to run on devices of this kind. MLXN_TEST_DEVICES names the kinds, commas between them; unset: all.
inline bool wants_device(std::string_view backend) {
  const char* wanted = std::getenv("MLXN_TEST_DEVICES");
  if (wanted == nullptr) return true;
  for (std::string_view rest = wanted; !rest.empty();) {
    const std::string_view name = rest.substr(0, rest.find(','));
    if (name == backend) return true;
    rest.remove_prefix(std::min(rest.size(), name.size() + 1));
  }
  return false;
}

/// Whether cases on such a device are to have the smallest sizes that reach every branch: on the emulator, and everywhere where
/// MLXN_TEST_SIZES is "small": as the GPU bundle sets it for compute-sanitizer, and `./test --full` for emulated processors and
/// the address sanitizer.
inline bool wants_small_sizes(std::string_view backend) {
  const char* sizes = std::getenv("MLXN_TEST_SIZES");
  return backend == "simt" || (sizes != nullptr && std::string_view(sizes) == "small");
}

/// The names of the devices that a suite runs on: the CPU, every GPU that this build can open and, in programs that link
/// the emulator, "simt", as Device::open takes them. Use as testing::ValuesIn(device_names()).
inline std::vector<std::string> device_names() {
  add_test_devices();
  std::vector<std::string> names;
  const Result<std::vector<Capabilities>> all = Device::enumerate();
  if (!all) return {"cpu"};
  for (const Capabilities& device : *all) {
    if (wants_device(device.backend)) names.push_back(device.id);
  }
  return names;
}

/// The device of that name, opened once per process.
inline const Device& device_named(const std::string& name) {
  static std::vector<std::pair<std::string, Device>> open;
  for (const auto& [known, device] : open) {
    if (known == name) return device;
  }
  if (open.capacity() == 0) open.reserve(64);  // references stay valid
  open.emplace_back(name, must(Device::open(name)));
  return open.back().second;
}

/// A parameter's name as GoogleTest takes it: letters, digits and underscores.
inline std::string test_name(std::string text) {
  for (char& c : text) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!letter) c = '_';
  }
  return text;
}

}  // namespace mlxn::test
