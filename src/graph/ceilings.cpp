#include "graph/ceilings.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <functional>
#include <span>
#include <vector>

#include "base/error.h"
#include "ops/measure/measure.h"

namespace mlxn {
namespace {

using Clock = std::chrono::steady_clock;

bool is_cpu(const Device& device) noexcept { return device.capabilities().backend == "cpu"; }

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

double median(std::span<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// Seconds of the median run.
Result<double> median_seconds(int runs, const std::function<Result<void>()>& run) {
  std::vector<double> seconds;
  for (int i = 0; i < runs; ++i) {
    const auto begin = Clock::now();
    MLXN_CHECK(run());
    seconds.push_back(seconds_since(begin));
  }
  return median(seconds);
}

Result<void> encode_empties(CommandEncoder& encoder, const Tensor& sink, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) MLXN_CHECK(ops::encode_measure_empty(encoder, sink));
  return {};
}

Result<Graph> record_empty(const Device& device, const Tensor& sink, std::int64_t nodes, HazardMode mode) {
  EncoderOptions options;
  options.hazards = mode;
  return Graph::record(device, [&](CommandEncoder& encoder) { return encode_empties(encoder, sink, nodes); }, options);
}

Result<Tensor> make_sink(const Device& device) { return device.allocate(DType::u32, {ops::measure_sink_words(device)}); }

/// Random words all over a tensor: nothing between memory and the kernel may find a pattern in them. Returns their sum modulo
/// 2^32.
Result<std::uint32_t> fill_random(const Device& device, const Tensor& data) {
  constexpr std::uint64_t kMostPiece = std::uint64_t{16} << 20;  // from the host; the rest is copies of it
  const std::uint64_t all = data.bytes(), piece = std::min(all, kMostPiece);
  std::vector<std::uint32_t> words(piece / 4);
  std::uint64_t state = 0x9e3779b97f4a7c15u;
  for (std::uint32_t& word : words) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    word = static_cast<std::uint32_t>(state >> 32);
  }
  std::uint32_t sum = 0;
  for (std::uint64_t at = 0; at < all; at += piece) {
    const std::uint64_t bytes = std::min(piece, all - at);
    for (std::uint64_t i = 0; i < bytes / 4; ++i) sum += words[i];
    MLXN_TRY(const Tensor part, data.slice(0, static_cast<std::int64_t>(at), static_cast<std::int64_t>(at + bytes)));
    if (at == 0) {
      MLXN_CHECK(device.upload(part, std::as_bytes(std::span(words))));
    } else {
      MLXN_TRY(const Tensor first, data.slice(0, 0, static_cast<std::int64_t>(bytes)));
      MLXN_CHECK(device.copy(part, first));
    }
  }
  return sum;
}

std::uint64_t probe_bytes(const Device& device) {
  const Capabilities& c = device.capabilities();
  constexpr std::uint64_t kPage = 4096;
  if (is_cpu(device)) {
    constexpr std::uint64_t kLeast = std::uint64_t{256} << 20;
    return (std::max(kLeast, 8 * c.last_level_cache_bytes) + kPage - 1) / kPage * kPage;
  }
  constexpr std::uint64_t kWanted = std::uint64_t{2} << 30;
  return std::max(std::min(kWanted, device.free_bytes() / 4), 4 * c.last_level_cache_bytes) / kPage * kPage;
}

}  // namespace

Result<ReadProbe> ReadProbe::make(const Device& device, std::uint64_t bytes) {
  if (bytes % 512 != 0) return make_error(ErrorCode::invalid_argument, "ceilings: {} bytes, wanted a multiple of 512", bytes);
  ReadProbe probe;
  probe.bytes_ = bytes != 0 ? bytes : probe_bytes(device);
  probe.passes_ = is_cpu(device) ? 1 : kGpuCalls;
  MLXN_TRY(probe.data_, device.allocate(DType::u8, {static_cast<std::int64_t>(probe.bytes_)}));
  MLXN_TRY(const Tensor sink, make_sink(device));
  std::uint32_t sum = 0;
  if (is_cpu(device)) {
    // Touched pages: untouched ones would all be the one page of zeros.
    MLXN_CHECK(device.fill(probe.data_, std::byte{0x5a}));
  } else {
    MLXN_TRY(sum, fill_random(device, probe.data_));
  }
  MLXN_TRY(probe.read_, Graph::record(device, [&](CommandEncoder& encoder) -> Result<void> {
             for (std::int64_t i = 0; i < probe.passes_; ++i) MLXN_CHECK(ops::encode_measure_read(encoder, probe.data_, sink));
             return {};
           }));
  if (is_cpu(device)) return probe;
  MLXN_CHECK(probe.read_.replay_and_wait());
  std::vector<std::uint32_t> got(static_cast<std::size_t>(sink.elems()));
  MLXN_CHECK(device.download(std::as_writable_bytes(std::span(got)), sink));
  const std::uint32_t wanted = sum * static_cast<std::uint32_t>(probe.passes_);
  if (got[0] != wanted) {
    return make_error(ErrorCode::internal, "ceilings: {} read {} bytes with the sum {}, wanted {}", device.capabilities().name,
                      probe.bytes_, got[0], wanted);
  }
  return probe;
}

Result<double> ReadProbe::gbps() {
  const auto begin = Clock::now();
  MLXN_CHECK(read_.replay_and_wait());
  return static_cast<double>(bytes_) * static_cast<double>(passes_) / seconds_since(begin) * 1e-9;
}

Result<double> ReadProbe::copy_gbps() {
  const auto half = static_cast<std::int64_t>(bytes_ / 2);
  if (!copy_.defined()) {
    MLXN_TRY(const Tensor from, data_.slice(0, 0, half));
    MLXN_TRY(const Tensor to, data_.slice(0, half, 2 * half));
    MLXN_TRY(copy_, Graph::record(data_.device(), [&](CommandEncoder& encoder) -> Result<void> {
               for (std::int64_t i = 0; i < kGpuCalls; ++i) MLXN_CHECK(encoder.copy(to, from));
               return {};
             }));
    MLXN_CHECK(copy_.replay_and_wait());
  }
  const auto begin = Clock::now();
  MLXN_CHECK(copy_.replay_and_wait());
  return 2 * static_cast<double>(half) * static_cast<double>(kGpuCalls) / seconds_since(begin) * 1e-9;
}

Result<Ceilings> measure_ceilings(const Device& device, const CeilingOptions& options) {
  MLXN_TRY(ReadProbe probe, ReadProbe::make(device, options.read_bytes));
  MLXN_TRY(const Tensor sink, make_sink(device));
  Ceilings ceilings;
  ceilings.read_bytes = probe.bytes();
  std::array<double, 9> passes{};
  for (double& gbps : passes) {
    MLXN_TRY(gbps, probe.gbps());
  }
  ceilings.read_gbps = median(passes);
  if (!is_cpu(device)) {
    for (double& gbps : passes) {
      MLXN_TRY(gbps, probe.copy_gbps());
    }
    ceilings.copy_gbps = median(passes);
  }

  for (const ops::Arithmetic kind : {ops::Arithmetic::f32, ops::Arithmetic::int8}) {
    const std::uint64_t of_a_round = ops::measure_arithmetic_ops(device, kind);
    if (of_a_round == 0) continue;
    const std::uint64_t rounds = options.rounds != 0 ? options.rounds : is_cpu(device) ? 2'000'000 : 20'000;  // milliseconds
    MLXN_TRY(Graph loop, Graph::record(device, [&](CommandEncoder& encoder) {
               return ops::encode_measure_arithmetic(encoder, kind, rounds, sink);
             }));
    MLXN_CHECK(loop.replay_and_wait());
    MLXN_TRY(const double seconds, median_seconds(9, [&] { return loop.replay_and_wait(); }));
    (kind == ops::Arithmetic::int8 ? ceilings.int8_gops : ceilings.f32_gflops) = static_cast<double>(of_a_round * rounds) / seconds * 1e-9;
  }
  return ceilings;
}

Result<DispatchCosts> measure_dispatch(const Device& device) {
  constexpr std::int64_t kNodes = 1000;
  constexpr int kRuns = 51;
  MLXN_TRY(const Tensor sink, make_sink(device));
  DispatchCosts costs;
  if (is_cpu(device)) {
    MLXN_TRY(const double record, median_seconds(kRuns, [&]() -> Result<void> {
               MLXN_CHECK(record_empty(device, sink, kNodes, HazardMode::automatic));
               return {};
             }));
    costs.record_us = record / kNodes * 1e6;
  } else {
    std::vector<double> record, launch;
    for (int i = 0; i < kRuns; ++i) {
      const auto begin = Clock::now();
      MLXN_TRY(CommandEncoder encoder, device.encoder());
      MLXN_CHECK(encode_empties(encoder, sink, kNodes));
      const auto recorded = Clock::now();
      MLXN_CHECK(encoder.commit_and_wait());
      launch.push_back(seconds_since(recorded));
      record.push_back(std::chrono::duration<double>(recorded - begin).count());
    }
    costs.record_us = median(record) / kNodes * 1e6;
    costs.launch_us = median(launch) / kNodes * 1e6;
  }
  MLXN_TRY(Graph free_running, record_empty(device, sink, kNodes, HazardMode::manual));
  MLXN_CHECK(free_running.replay_and_wait());
  MLXN_TRY(const double replay, median_seconds(kRuns, [&] { return free_running.replay_and_wait(); }));
  costs.replay_us = replay / kNodes * 1e6;
  MLXN_TRY(Graph single, record_empty(device, sink, 1, HazardMode::manual));
  MLXN_CHECK(single.replay_and_wait());
  MLXN_TRY(const double one, median_seconds(kRuns, [&] { return single.replay_and_wait(); }));
  costs.replay_and_wait_us = one * 1e6;
  if (is_cpu(device)) {
    MLXN_TRY(Graph joined, record_empty(device, sink, kNodes, HazardMode::serial));
    MLXN_TRY(const double serial, median_seconds(kRuns, [&] { return joined.replay_and_wait(); }));
    costs.join_us = std::max(0.0, serial - replay) / kNodes * 1e6;
  }
  return costs;
}

}  // namespace mlxn
