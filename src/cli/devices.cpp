#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "mlxn/device.h"

namespace mlxn::cli {

int run_devices(const DevicesFlags& flags) {
  const auto devices = Device::enumerate();
  if (!devices) return fail(devices.error());
  const auto automatic = Device::open("auto");
  if (!automatic) return fail(automatic.error());
  const Capabilities& chosen = automatic->capabilities();
  std::string text;
  for (const Capabilities& d : *devices) {
    const bool is_chosen = d.id == chosen.id;
    const std::uint64_t free = is_chosen ? chosen.free_bytes : d.free_bytes;  // of a GPU known only once it is open
    if (flags.json) {
      text += nlohmann::json{{"device", d.id},
                             {"backend", d.backend},
                             {"name", d.name},
                             {"threads", d.threads},
                             {"simd_width", d.simd_width},
                             {"compute_units", d.compute_units},
                             {"group_memory_bytes", d.group_memory_bytes},
                             {"matrix_units", d.matrix_units},
                             {"native_bf16", d.native_bf16},
                             {"total_bytes", d.total_bytes},
                             {"free_bytes", free == 0 ? nlohmann::json() : nlohmann::json(free)},
                             {"last_level_cache_bytes", d.last_level_cache_bytes},
                             {"auto", is_chosen},
                             {"auto_reason", chosen.selection_reason}}
                  .dump() +
              "\n";
    } else {
      const std::string room = free == 0 ? human_bytes(d.total_bytes) : fmt::format("{} of {} free", human_bytes(free), human_bytes(d.total_bytes));
      text += fmt::format("{:6} {}, {}\n", d.id, d.name, room);
    }
  }
  if (!flags.json) text += fmt::format("auto takes {}: {}\n", chosen.id, chosen.selection_reason);
  return print(text) ? kOk : kFailed;
}

}  // namespace mlxn::cli
