#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "mlxn/device.h"

namespace mlxn::cli {

int run_devices(const DevicesFlags& flags) {
  const auto devices = Device::enumerate();
  if (!devices) return fail(devices.error());
  std::string text;
  for (const Capabilities& d : *devices) {
    if (flags.json) {
      text += nlohmann::json{{"backend", d.backend},
                             {"name", d.name},
                             {"threads", d.threads},
                             {"simd_width", d.simd_width},
                             {"total_bytes", d.total_bytes},
                             {"free_bytes", d.free_bytes},
                             {"last_level_cache_bytes", d.last_level_cache_bytes}}
                  .dump() +
              "\n";
    } else {
      text += fmt::format("{:6} {}, {} of {} free\n", d.backend, d.name, human_bytes(d.free_bytes), human_bytes(d.total_bytes));
    }
  }
  return print(text) ? kOk : kFailed;
}

}  // namespace mlxn::cli
