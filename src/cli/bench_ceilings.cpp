#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/model_flags.h"
#include "graph/ceilings.h"

namespace mlxn::cli {

int run_bench_ceilings(const BenchCeilingsFlags& flags) {
  const auto result = detail::guarded([&]() -> Result<int> {
    MLXN_TRY(const Device device, open_device(flags.device, flags.threads));
    MLXN_TRY(const Ceilings c, measure_ceilings(device));
    MLXN_TRY(const DispatchCosts d, measure_dispatch(device));
    const std::string& name = device.capabilities().name;
    std::string text;
    if (flags.json) {
      text = nlohmann::json{{"device", name},
                            {"read_bytes", c.read_bytes},
                            {"read_gbps", c.read_gbps},
                            {"copy_gbps", c.copy_gbps},
                            {"f32_gflops", c.f32_gflops},
                            {"int8_gops", c.int8_gops},
                            {"record_us", d.record_us},
                            {"launch_us", d.launch_us},
                            {"replay_us", d.replay_us},
                            {"replay_and_wait_us", d.replay_and_wait_us},
                            {"join_us", d.join_us}}
                 .dump() +
             "\n";
    } else {
      // Budgets are those of the CPU's machinery; recording is the host's work everywhere.
      const bool is_cpu = device.capabilities().backend == "cpu";
      text = fmt::format("{}\n", name);
      text += fmt::format("read bandwidth       {:8.1f} GB/s   of {}\n", c.read_gbps, human_bytes(c.read_bytes));
      if (c.copy_gbps > 0) text += fmt::format("copy bandwidth       {:8.1f} GB/s   read and written\n", c.copy_gbps);
      text += fmt::format("f32 multiply-add     {:8.1f} GFLOP/s\n", c.f32_gflops);
      if (c.int8_gops > 0) text += fmt::format("int8 dot product     {:8.1f} Gop/s\n", c.int8_gops);
      text += fmt::format("record a dispatch    {:8.3f} us   budget 0.5\n", d.record_us);
      if (d.launch_us > 0) text += fmt::format("launch a kernel      {:8.3f} us   committed without a graph\n", d.launch_us);
      text += fmt::format("replay a node        {:8.3f} us   {}\n", d.replay_us, is_cpu ? "budget 0.1" : "of a graph");
      text += fmt::format("replay and wait      {:8.3f} us   a graph of one node\n", d.replay_and_wait_us);
      if (is_cpu) {
        text += fmt::format("join {:2} threads      {:8.3f} us   budget 2 at 2 threads\n", device.capabilities().threads, d.join_us);
      }
    }
    return print(text) ? kOk : kFailed;
  });
  return result ? *result : fail(result.error());
}

}  // namespace mlxn::cli
