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
  bool is_chosen_known = false;
  for (const Capabilities& d : *devices) {
    // The automatic choice is the first device of its kind.
    const bool is_chosen = !is_chosen_known && d.backend == chosen.backend;
    is_chosen_known = is_chosen_known || is_chosen;
    if (flags.json) {
      text += nlohmann::json{{"backend", d.backend},
                             {"name", d.name},
                             {"threads", d.threads},
                             {"simd_width", d.simd_width},
                             {"compute_units", d.compute_units},
                             {"group_memory_bytes", d.group_memory_bytes},
                             {"matrix_units", d.matrix_units},
                             {"native_bf16", d.native_bf16},
                             {"total_bytes", d.total_bytes},
                             {"free_bytes", d.free_bytes},
                             {"last_level_cache_bytes", d.last_level_cache_bytes},
                             {"auto", is_chosen},
                             {"auto_reason", chosen.selection_reason}}
                  .dump() +
              "\n";
    } else {
      text += fmt::format("{:6} {}, {} of {} free\n", d.backend, d.name, human_bytes(d.free_bytes), human_bytes(d.total_bytes));
    }
  }
  if (!flags.json) text += fmt::format("auto takes {}: {}\n", chosen.backend, chosen.selection_reason);
  return print(text) ? kOk : kFailed;
}

}  // namespace mlxn::cli
