#pragma once

#include <string>
#include <vector>

#include "tests/support/must.h"

namespace mlxn::test {

/// The names of the devices that a suite runs on: the CPU and every GPU that this build can open, as Device::open takes
/// them. Use as testing::ValuesIn(device_names()).
inline std::vector<std::string> device_names() {
  std::vector<std::string> names;
  int cuda = 0;
  const Result<std::vector<Capabilities>> all = Device::enumerate();
  if (!all) return {"cpu"};
  for (const Capabilities& device : *all) {
    names.push_back(device.backend == "cuda" ? "cuda:" + std::to_string(cuda++) : device.backend);
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
