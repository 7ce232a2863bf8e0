#include <cstring>

#include "backends/cpu/ceilings.h"
#include "backends/cpu/launch.h"
#include "backends/gpu/launch.h"
#include "base/error.h"
#include "ops/measure/gpu.h"
#include "ops/measure/measure.h"

namespace mlxn::ops {
namespace {

constexpr std::int64_t kLineWords = 16;  // of a thread's own: threads must not share a cache line

void read_cpu(const MeasureReadArgs& args, const CpuContext& context) {
  // Even contiguous shares: what a product does with its rows of weights.
  const auto share = context.share(static_cast<std::uint64_t>(args.bytes), 512);
  const float sum = cpu::ceiling_loops().read(args.data.ptr + share.begin, share.end - share.begin);
  std::memcpy(args.sink.ptr + context.thread * kLineWords, &sum, sizeof sum);
}

void arithmetic_cpu(const MeasureArithmeticArgs& args, const CpuContext& context) {
  const auto loop = args.int8 != 0 ? cpu::ceiling_loops().int8 : cpu::ceiling_loops().f32;
  args.sink.ptr[context.thread * kLineWords] = loop(args.rounds);
}

void empty_cpu(const MeasureEmptyArgs&, const CpuContext&) {}

constexpr auto kRead = cpu::kernel<&read_cpu>("measure_read");
constexpr auto kArithmetic = cpu::kernel<&arithmetic_cpu>("measure_arithmetic");
constexpr auto kEmpty = cpu::kernel<&empty_cpu>("measure_empty");

bool is_cpu(const Device& device) noexcept { return device.capabilities().backend == "cpu"; }

}  // namespace

std::int64_t measure_sink_words(const Device& device) noexcept {
  return is_cpu(device) ? device.capabilities().threads * kLineWords : kLineWords;
}

Result<void> encode_measure_read(CommandEncoder& encoder, const Tensor& data, const Tensor& sink) {
  if (data.bytes() % 512 != 0 || reinterpret_cast<std::uintptr_t>(device_address(data)) % 64 != 0) {
    return make_error(ErrorCode::bad_shape, "measure_read: {} bytes, wanted a multiple of 512, aligned to 64", data.bytes());
  }
  Launch<MeasureReadArgs> launch;
  launch.bind(launch.args.data, data);
  launch.bind(launch.args.sink, sink);
  launch.args.bytes = static_cast<std::int64_t>(data.bytes());
  return gpu::on_gpu(encoder) ? measure_read_gpu(encoder, launch) : cpu::encode(encoder, kRead, launch);
}

std::uint64_t measure_arithmetic_ops(const Device& device, Arithmetic kind) noexcept {
  const Capabilities& c = device.capabilities();
  if (!is_cpu(device)) return kind == Arithmetic::int8 ? 0 : measure_arithmetic_ops_gpu(static_cast<std::uint64_t>(c.compute_units));
  const cpu::CeilingLoops& loops = cpu::ceiling_loops();
  const std::uint64_t of_a_thread = kind == Arithmetic::f32 ? loops.f32_ops : loops.int8 == nullptr ? 0 : loops.int8_ops;
  return of_a_thread * static_cast<std::uint64_t>(c.threads);
}

Result<void> encode_measure_arithmetic(CommandEncoder& encoder, Arithmetic kind, std::uint64_t rounds, const Tensor& sink) {
  if (measure_arithmetic_ops(encoder.device(), kind) == 0) {
    return make_error(ErrorCode::unsupported, "measure_arithmetic: {} has no instruction for it", encoder.device().capabilities().name);
  }
  MLXN_TRY(const Tensor floats, sink.reinterpret(DType::f32, sink.shape()));
  Launch<MeasureArithmeticArgs> launch;
  launch.bind(launch.args.sink, floats);
  launch.args.rounds = rounds;
  launch.args.factor = 0.5f;
  launch.args.int8 = kind == Arithmetic::int8 ? 1 : 0;
  return gpu::on_gpu(encoder) ? measure_arithmetic_gpu(encoder, launch) : cpu::encode(encoder, kArithmetic, launch);
}

Result<void> encode_measure_empty(CommandEncoder& encoder, const Tensor& sink) {
  Launch<MeasureEmptyArgs> launch;
  launch.bind(launch.args.sink, sink);
  return gpu::on_gpu(encoder) ? measure_empty_gpu(encoder, launch) : cpu::encode(encoder, kEmpty, launch);
}

}  // namespace mlxn::ops
