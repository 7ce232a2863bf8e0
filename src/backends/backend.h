#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "backends/device_impl.h"

namespace mlxn {

/// A kind of device that Device::open knows by name. The build lists its own; tests add the emulator.
struct Backend {
  std::string_view name;  ///< "cuda"
  /// The device of that number. not_found if there are fewer.
  Result<std::shared_ptr<DeviceImpl>> (*open)(int ordinal, const DeviceOptions& options, std::string_view reason);
  /// The best device that starts, which tells why it was chosen; null if `auto` is not to take this kind. not_found or
  /// unsupported if there is none.
  Result<std::shared_ptr<DeviceImpl>> (*open_best)(const DeviceOptions& options);
  /// Appends what is present, without starting it; nothing if nothing is.
  Result<void> (*enumerate)(std::vector<Capabilities>& devices);
};

/// Makes a backend known to Device::open and enumerate() from now on. Not before main().
void add_backend(const Backend& backend);

}  // namespace mlxn
