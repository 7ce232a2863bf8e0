#include "mlxn/ops/sample.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "ops/row_check.h"
#include "ops/sample/cpu.h"
#include "ops/sample/sample.h"

namespace mlxn::ops {
namespace {

constexpr std::string_view kOp = "sample";
constexpr VariantInfo kInfos[] = {variant_info<CpuIsa::scalar>("sample_scalar"), gpu_variant_info("sample_gpu")};

/// The bits behind the point of a weight: the sum of `vocab` weights, each at most 1, is at most 2^62.
int weight_bits(std::int64_t vocab) noexcept { return 62 - static_cast<int>(std::bit_width(static_cast<std::uint64_t>(vocab - 1))); }

/// log(min_p), rounded up to f32: a difference of logits in f32 is below the one if it is below the other.
float log_upward(float min_p) noexcept {
  const double exact = std::log(static_cast<double>(min_p));
  const auto rounded = static_cast<float>(exact);
  return rounded < exact ? std::nextafter(rounded, 1.0f) : rounded;
}

Result<void> check_options(const SampleOptions& options) {
  const auto check = [](std::string_view name, float value, bool good, std::string_view wanted) -> Result<void> {
    if (std::isfinite(value) && good) return {};
    return make_error(ErrorCode::invalid_argument, "{}: {} is {}, wanted {}", kOp, name, value, wanted);
  };
  MLXN_CHECK(check("temperature", options.temperature, options.temperature >= 0, "a finite number, at least 0"));
  MLXN_CHECK(check("top_p", options.top_p, options.top_p >= 0 && options.top_p <= 1, "0 to 1"));
  MLXN_CHECK(check("min_p", options.min_p, options.min_p >= 0 && options.min_p <= 1, "0 to 1"));
  MLXN_CHECK(
      check("repetition_penalty", options.repetition_penalty, options.repetition_penalty > 0, "a finite number above 0"));
  MLXN_CHECK(check("frequency_penalty", options.frequency_penalty, true, "a finite number"));
  return check("presence_penalty", options.presence_penalty, true, "a finite number");
}

Result<void> check_recent(const CommandEncoder& encoder, const RecentTokens& recent, std::int64_t rows, const Tensor& ids,
                          const Tensor& logprobs) {
  MLXN_CHECK(check_operand(kOp, "recent.ids", encoder, recent.ids, {DType::u32, DType::i32}));
  if (!(recent.ids.rank() == 2 && recent.ids.dim(0) == rows) && !(recent.ids.rank() == 1 && rows == 1)) {
    return make_error(ErrorCode::bad_shape, "{}: recent.ids is {}, wanted [{}, window]", kOp, to_string(recent.ids.shape()),
                      rows);
  }
  MLXN_CHECK(check_last_contiguous(kOp, "recent.ids", recent.ids));
  const std::int64_t window = recent.ids.dim(-1);
  if (recent.count.value < 0 || recent.count.value > window) {
    return make_error(ErrorCode::out_of_range, "{}: recent.count is {}, wanted 0 to {}", kOp, recent.count.value, window);
  }
  MLXN_CHECK(check_no_overlap(kOp, "ids", ids, "recent.ids", recent.ids));
  if (logprobs.defined()) MLXN_CHECK(check_no_overlap(kOp, "logprobs", logprobs, "recent.ids", recent.ids));
  return {};
}

Result<void> encode_sample(CommandEncoder& encoder, const Tensor& logits, const Tensor& ids, const SampleOptions& options,
                           const Scalar<std::int64_t>& step, const RecentTokens& recent, const Tensor& logprobs) {
  MLXN_CHECK(check_encoder(kOp, encoder));
  MLXN_CHECK(check_operand(kOp, "logits", encoder, logits, {DType::f32}));
  if (logits.rank() > 2) {
    return make_error(ErrorCode::bad_shape, "{}: logits is {}, wanted one or two axes", kOp, to_string(logits.shape()));
  }
  MLXN_CHECK(check_rows(kOp, "logits", logits));
  const std::int64_t rows = row_count(logits), vocab = logits.dim(-1);
  if (vocab > INT32_MAX) {
    return make_error(ErrorCode::bad_shape, "{}: rows of logits have {} elements, wanted fewer than 2^31", kOp, vocab);
  }
  MLXN_CHECK(check_operand(kOp, "ids", encoder, ids, {DType::u32}));
  MLXN_CHECK(check_shape(kOp, "ids", ids, {rows}));
  MLXN_CHECK(check_contiguous(kOp, "ids", ids));
  MLXN_CHECK(check_no_overlap(kOp, "ids", ids, "logits", logits));
  if (logprobs.defined()) {
    MLXN_CHECK(check_operand(kOp, "logprobs", encoder, logprobs, {DType::f32}));
    MLXN_CHECK(check_shape(kOp, "logprobs", logprobs, {rows}));
    MLXN_CHECK(check_contiguous(kOp, "logprobs", logprobs));
    MLXN_CHECK(check_no_overlap(kOp, "logprobs", logprobs, "logits", logits));
    MLXN_CHECK(check_no_overlap(kOp, "logprobs", logprobs, "ids", ids));
  }
  MLXN_CHECK(check_options(options));
  const bool penalised = recent.ids.defined();
  if (penalised) MLXN_CHECK(check_recent(encoder, recent, rows, ids, logprobs));
  if (rows == 0) return {};

  Launch<SampleArgs> launch;
  SampleArgs& args = launch.args;
  launch.bind(args.logits, logits);
  launch.bind(args.ids, ids);
  if (logprobs.defined()) launch.bind(args.logprobs, logprobs);
  if (penalised) {
    launch.bind(args.recent, recent.ids);
    args.window = recent.ids.dim(-1);
    args.recent_stride = recent.ids.rank() == 1 ? 0 : recent.ids.stride(0);
    launch.set(args.count, recent.count, 0, args.window);
  }
  args.rows = rows;
  args.vocab = vocab;
  args.logits_stride = logits.rank() == 1 ? 0 : logits.stride(0);
  args.top_k = options.top_k <= 0 ? vocab : std::min(options.top_k, vocab);
  args.seed = options.seed;
  launch.set(args.step, step);
  args.min_log = log_upward(options.min_p);
  args.nucleus = options.top_p < 1.0f ? 1 : 0;
  if (args.nucleus != 0) args.top_p = static_cast<std::uint64_t>(std::ceil(static_cast<double>(options.top_p) * 0x1p64));
  args.weight_scale = std::ldexp(1.0f, weight_bits(vocab));
  args.temperature = options.temperature;
  args.repetition_penalty = options.repetition_penalty;
  args.frequency_penalty = options.frequency_penalty;
  args.presence_penalty = options.presence_penalty;
  if (gpu::on_gpu(encoder)) return sample_gpu(encoder, launch);
  args.slot_bytes = sample_slot_bytes(vocab, args.window);
  const auto slots = static_cast<std::uint64_t>(std::min<std::int64_t>(rows, cpu::threads(encoder)));
  MLXN_TRY(const Tensor workspace, cpu::scratch(encoder, slots * args.slot_bytes));
  launch.bind(args.workspace, workspace);
  return cpu::encode(encoder, cpu::kernel<&sample_rows>("sample_scalar"), launch);
}

}  // namespace

extern const OpInfo op_sample;
const OpInfo op_sample = {"sample", kInfos};

}  // namespace mlxn::ops

namespace mlxn {

Result<void> sample(CommandEncoder& encoder, const Tensor& logits, const Tensor& ids, const SampleOptions& options,
                    const Scalar<std::int64_t>& step, const RecentTokens& recent, const Tensor& logprobs) {
  return detail::guarded([&] { return ops::encode_sample(encoder, logits, ids, options, step, recent, logprobs); });
}

}  // namespace mlxn
