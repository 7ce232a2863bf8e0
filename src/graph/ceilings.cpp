#include "graph/ceilings.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <functional>
#include <vector>

#include "backends/cpu/ceilings.h"
#include "backends/cpu/launch.h"
#include "base/error.h"

namespace mlxn {
namespace {

using Clock = std::chrono::steady_clock;

struct ReadArgs {
  In<std::byte> data;
  Out<float> sink;  // one per thread, 64 bytes apart
  std::uint64_t bytes;
};
void read_kernel(const ReadArgs& args, const CpuContext& context) {
  // Even contiguous shares: what a product does with its rows of weights.
  const auto share = context.share(args.bytes, 512);
  args.sink.ptr[context.thread * 16] = cpu::ceiling_loops().read(args.data.ptr + share.begin, share.end - share.begin);
}

struct LoopArgs {
  Out<float> sink;
  std::uint64_t rounds;
  std::uint32_t int8;
};
void loop_kernel(const LoopArgs& args, const CpuContext& context) {
  const auto loop = args.int8 != 0 ? cpu::ceiling_loops().int8 : cpu::ceiling_loops().f32;
  args.sink.ptr[context.thread * 16] = loop(args.rounds);
}

struct EmptyArgs {
  InOut<float> data;
};
void empty_kernel(const EmptyArgs&, const CpuContext&) {}

constexpr auto kRead = cpu::kernel<&read_kernel>("bench_read");
constexpr auto kLoop = cpu::kernel<&loop_kernel>("bench_loop");
constexpr auto kEmpty = cpu::kernel<&empty_kernel>("bench_empty");

/// Seconds of the median run.
Result<double> median_seconds(int runs, const std::function<Result<void>()>& run) {
  std::vector<double> seconds;
  for (int i = 0; i < runs; ++i) {
    const auto begin = Clock::now();
    MLXN_CHECK(run());
    seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + runs / 2, seconds.end());
  return seconds[static_cast<std::size_t>(runs / 2)];
}

Result<Graph> record_empty(const Device& device, const Tensor& data, std::int64_t nodes, HazardMode mode) {
  EncoderOptions options;
  options.hazards = mode;
  return Graph::record(
      device,
      [&](CommandEncoder& encoder) -> Result<void> {
        for (std::int64_t i = 0; i < nodes; ++i) {
          Launch<EmptyArgs> launch;
          launch.bind(launch.args.data, data);
          MLXN_CHECK(cpu::encode(encoder, kEmpty, launch));
        }
        return {};
      },
      options);
}

}  // namespace

Result<ReadProbe> ReadProbe::make(const Device& device) {
  const Capabilities& c = device.capabilities();
  if (c.backend != "cpu") return make_error(ErrorCode::unsupported, "ceilings: no measurement for {}", c.backend);
  constexpr std::uint64_t kLeastBytes = std::uint64_t{256} << 20;
  ReadProbe probe;
  probe.bytes_ = (std::max(kLeastBytes, 8 * c.last_level_cache_bytes) + 4095) / 4096 * 4096;
  MLXN_TRY(const Tensor data, device.allocate(DType::u8, {static_cast<std::int64_t>(probe.bytes_)}));
  MLXN_TRY(const Tensor sink, device.allocate(DType::f32, {c.threads * 16}));
  // Touched pages: untouched ones would all be the one page of zeros.
  MLXN_CHECK(device.fill(data, std::byte{0x5a}));
  MLXN_TRY(probe.read_, Graph::record(device, [&](CommandEncoder& encoder) -> Result<void> {
             Launch<ReadArgs> launch;
             launch.bind(launch.args.data, data);
             launch.bind(launch.args.sink, sink);
             launch.args.bytes = probe.bytes_;
             return cpu::encode(encoder, kRead, launch);
           }));
  return probe;
}

Result<double> ReadProbe::gbps() {
  MLXN_TRY(const double seconds, median_seconds(1, [&] { return read_.replay_and_wait(); }));
  return static_cast<double>(bytes_) / seconds * 1e-9;
}

Result<Ceilings> measure_ceilings(const Device& device) {
  const Capabilities& c = device.capabilities();
  MLXN_TRY(ReadProbe probe, ReadProbe::make(device));
  MLXN_TRY(const Tensor sink, device.allocate(DType::f32, {c.threads * 16}));
  Ceilings ceilings;
  std::array<double, 9> passes{};
  for (double& gbps : passes) {
    MLXN_TRY(gbps, probe.gbps());
  }
  std::nth_element(passes.begin(), passes.begin() + 4, passes.end());
  ceilings.read_gbps = passes[4];

  for (const bool int8 : {false, true}) {
    const cpu::CeilingLoops& loops = cpu::ceiling_loops();
    if (int8 && loops.int8 == nullptr) continue;
    constexpr std::uint64_t kRounds = 2'000'000;
    MLXN_TRY(Graph loop, Graph::record(device, [&](CommandEncoder& encoder) -> Result<void> {
               Launch<LoopArgs> launch;
               launch.bind(launch.args.sink, sink);
               launch.args.rounds = kRounds;
               launch.args.int8 = int8 ? 1 : 0;
               return cpu::encode(encoder, kLoop, launch);
             }));
    MLXN_TRY(const double seconds, median_seconds(9, [&] { return loop.replay_and_wait(); }));
    const auto ops = static_cast<double>((int8 ? loops.int8_ops : loops.f32_ops) * kRounds) * c.threads;
    (int8 ? ceilings.int8_gops : ceilings.f32_gflops) = ops / seconds * 1e-9;
  }
  return ceilings;
}

Result<DispatchCosts> measure_dispatch(const Device& device) {
  if (device.capabilities().backend != "cpu") {
    return make_error(ErrorCode::unsupported, "dispatch: no measurement for {}", device.capabilities().backend);
  }
  constexpr std::int64_t kNodes = 1000;
  constexpr int kRuns = 51;
  MLXN_TRY(const Tensor data, device.allocate(DType::f32, {64}));
  DispatchCosts costs;
  MLXN_TRY(const double record, median_seconds(kRuns, [&]() -> Result<void> {
             MLXN_CHECK(record_empty(device, data, kNodes, HazardMode::automatic));
             return {};
           }));
  costs.record_us = record / kNodes * 1e6;
  MLXN_TRY(Graph free_running, record_empty(device, data, kNodes, HazardMode::manual));
  MLXN_TRY(const double replay, median_seconds(kRuns, [&] { return free_running.replay_and_wait(); }));
  costs.replay_us = replay / kNodes * 1e6;
  MLXN_TRY(Graph joined, record_empty(device, data, kNodes, HazardMode::serial));
  MLXN_TRY(const double serial, median_seconds(kRuns, [&] { return joined.replay_and_wait(); }));
  costs.join_us = std::max(0.0, serial - replay) / kNodes * 1e6;
  return costs;
}

}  // namespace mlxn
