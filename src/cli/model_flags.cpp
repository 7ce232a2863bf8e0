#include "cli/model_flags.h"

#include <fmt/format.h>
#include <unistd.h>

#include "base/error.h"
#include "base/join.h"
#include "cli/commands.h"
#include "mlxn/quant.h"

namespace mlxn::cli {

Result<Numerics> parse_precision(const std::string& text) {
  if (text == "auto") return Numerics::automatic;
  for (const Numerics numerics : {Numerics::exact, Numerics::f16, Numerics::bf16, Numerics::int8act}) {
    if (to_string(numerics) == text) return numerics;
  }
  return make_error(ErrorCode::invalid_argument, "--precision: '{}', wanted auto, exact, f16, bf16 or int8act", text);
}

Result<void> check_precision(const Device& device, const MatmulShape& shape, bool prepared, const MatmulOptions& options) {
  const auto plan = plan_matmul(device, shape, prepared, options);
  if (plan || plan.error().code() != ErrorCode::unsupported || options.numerics == Numerics::automatic) return {};
  return make_error(ErrorCode::invalid_argument, "--precision: '{}', which {} does not have for weights of {} ({})",
                    to_string(options.numerics), device.capabilities().id, to_string(shape.type), plan.error().message());
}

Result<void> check_precision(const Device& device, const GgufFile& file, Numerics numerics) {
  MatmulOptions options;
  options.numerics = numerics;
  for (const GgufTensor& t : file.tensors()) {
    if (t.rank != 2 || !t.dtype || !is_weight_type(*t.dtype)) continue;
    // Whether the sizes are a model's is not known yet; a plan goes by the type alone.
    const auto block = static_cast<std::int64_t>(block_elems(*t.dtype));
    MLXN_CHECK(check_precision(device, MatmulShape{1, 1, block, *t.dtype}, true, options));
  }
  return {};
}

Result<PrepareMode> parse_prepare(const std::string& text) {
  if (text == "auto") return PrepareMode::automatic;
  if (text == "on") return PrepareMode::on;
  if (text == "off") return PrepareMode::off;
  return make_error(ErrorCode::invalid_argument, "--prepare: '{}', wanted auto, on or off", text);
}

Result<DType> parse_weight_type(std::string_view flag, const std::string& text, bool in_files) {
  const auto wanted = [&](DType type) { return is_weight_type(type) && (!in_files || info(type).gguf_id >= 0); };
  if (const auto type = parse_dtype(text); type && wanted(*type)) return *type;
  std::vector<std::string_view> names;
  for (int i = 0; i < kDTypeCount; ++i) {
    if (const auto type = static_cast<DType>(i); wanted(type)) names.push_back(to_string(type));
  }
  return make_error(ErrorCode::invalid_argument, "{}: '{}', wanted one of {}", flag, text, joined(names));
}

Result<DType> parse_kv_type(const std::string& text, std::string_view flag) {
  if (text == "f16") return DType::f16;
  if (text == "f32") return DType::f32;
  return make_error(ErrorCode::invalid_argument, "{}: '{}', wanted f16 or f32", flag, text);
}

Result<DType> parse_kv_type(const KvTypeFlags& flags) {
  if (!flags.keys && !flags.values) return parse_kv_type(flags.both);
  MLXN_TRY(const DType keys, parse_kv_type(flags.keys.value_or("f16"), "--cache-type-k"));
  MLXN_TRY(const DType values, parse_kv_type(flags.values.value_or("f16"), "--cache-type-v"));
  if (keys == values) return keys;
  return make_error(ErrorCode::invalid_argument, "--cache-type-k: {}, --cache-type-v: {}{}, wanted the same", to_string(keys), to_string(values),
                    flags.keys && flags.values ? "" : " (f16 if not given)");
}

Result<Device> open_device(const std::string& name, int threads) {
  DeviceOptions options;
  options.threads = threads;
  return Device::open(name, options);
}

void say_choice(const Device& device) {
  const Capabilities& c = device.capabilities();
  if (c.selection_reason.empty()) return;  // it was named
  const bool is_gpu_there = access("/dev/nvidia0", F_OK) == 0 || access("/dev/dxg", F_OK) == 0;
  if (c.backend != "cpu" || is_gpu_there) complain(fmt::format("device {}: {}", c.id, c.selection_reason));
}

}  // namespace mlxn::cli
