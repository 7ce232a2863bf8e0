#include "models/loader.h"

#include <algorithm>

#include "base/call_user.h"
#include "base/error.h"
#include "mlxn/quant.h"
#include "models/host_copy.h"

namespace mlxn::models {
namespace {

/// Preparing may take this share of the memory that is available, in per cent.
constexpr std::uint64_t kPrepareShare = 70;

}  // namespace

Loader::Loader(const GgufFile& file, const Device& device, const LoadOptions& options)
    : file_(file), device_(device), options_(options), mode_(options.prepare) {
  for (const GgufTensor& tensor : file_.tensors()) file_bytes_ += tensor.bytes;
  if (mode_ == PrepareMode::automatic) {
    // Decided once for the whole model, so that it does not depend on the order of its tensors. Where the device has memory of
    // its own, raw blocks would take as much of it as prepared ones: they are no copy beside what stays in the file.
    const bool fits = !device_.capabilities().unified_memory || file_bytes_ <= device_.free_bytes() / 100 * kPrepareShare;
    mode_ = fits ? PrepareMode::on : PrepareMode::off;
    if (!fits) prepare_note_ = "the prepared weights would take more than 70 % of the available memory";
  }
}

Result<const GgufTensor*> Loader::find(const std::string& name, std::int64_t n, std::int64_t k) const {
  const auto rows = static_cast<std::uint64_t>(n), cols = static_cast<std::uint64_t>(k);
  return n == 1 ? file_.expect_tensor(name, {cols}) : file_.expect_tensor(name, {cols, rows});
}

Result<void> Loader::count(const GgufTensor& tensor, std::uint64_t device_bytes) {
  loaded_bytes_ += tensor.bytes;
  weight_bytes_ += device_bytes;
  parameters_ += static_cast<std::int64_t>(tensor.elems);
  if (!options_.progress) return {};
  MLXN_TRY(const bool goes_on, call_user("model: the function `progress`",
                                         [&]() -> Result<bool> { return options_.progress(loaded_bytes_, file_bytes_); }));
  if (!goes_on) return make_error(ErrorCode::cancelled, "the load was cancelled");
  return {};
}

Result<Tensor> Loader::blocks(const GgufTensor& tensor, const Shape& shape) {
  if (!host_.defined()) {
    // Weight::prepare reads the file's bytes where the CPU sees them.
    if (device_.capabilities().unified_memory) {
      host_ = device_;
    } else {
      MLXN_TRY(host_, Device::open("cpu"));
    }
  }
  if (file_.in_place()) {
    MLXN_TRY(const std::span<const std::byte> bytes, file_.data(tensor));
    file_.will_need(tensor);
    // The weights are never written, so the constant bytes may stand behind a Tensor.
    return host_.import_memory(const_cast<std::byte*>(bytes.data()), bytes.size(), [keep = file_.keep_alive()] {}, *tensor.dtype,
                                 shape);
  }
  MLXN_TRY(Tensor out, host_.allocate(*tensor.dtype, shape));
  {
    MLXN_TRY(const auto bytes, out.write<std::byte>());
    MLXN_CHECK(file_.read(tensor, 0, bytes));
  }
  return out;
}

Result<const GgufTensor*> Loader::find_matrix(const std::string& name, std::int64_t n, std::int64_t k) const {
  MLXN_TRY(const GgufTensor* tensor, find(name, n, k));
  if (!tensor->dtype || !is_weight_type(*tensor->dtype)) {
    return make_error(ErrorCode::unsupported, "{}: tensor '{}' has type {}, which has no kernels yet", file_.label(), name,
                      type_name(*tensor));
  }
  return tensor;
}

void Loader::note_type(DType type) {
  if (std::find(types_.begin(), types_.end(), type) == types_.end()) types_.push_back(type);
}

Result<Weight> Loader::matrix(const std::string& name, std::int64_t n, std::int64_t k) {
  MLXN_TRY(const GgufTensor* tensor, find_matrix(name, n, k));
  MLXN_TRY(const Tensor source, blocks(*tensor, {n, k}));
  PrepareOptions prepare;
  prepare.mode = mode_;
  MLXN_TRY(Weight weight, Weight::prepare(device_, source, prepare));
  note_type(weight.dtype());
  if (weight.prepared()) file_.drop_pages(*tensor);
  MLXN_CHECK(count(*tensor, weight.bytes()));
  return weight;
}

Result<Linear> Loader::linear(const std::string& name, std::int64_t n, std::int64_t k) {
  Linear linear;
  MLXN_TRY(linear.weight, matrix(name + ".weight", n, k));
  MLXN_TRY(linear.bias, optional_vector(name + ".bias", n));
  return linear;
}

Result<Linear> Loader::stacked(std::span<const Part> parts, std::int64_t k) {
  if (mode_ == PrepareMode::off) return Linear();
  std::vector<const GgufTensor*> tensors;
  bool has_bias = has(parts.front().name + ".bias");
  for (const Part& part : parts) {
    MLXN_TRY(const GgufTensor* tensor, find_matrix(part.name + ".weight", part.n, k));
    tensors.push_back(tensor);
    if (tensor->dtype != tensors.front()->dtype) return Linear();
    if (has(part.name + ".bias") != has_bias || part.n % Weight::kStackRows != 0) return Linear();
  }
  std::vector<Tensor> sources;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    MLXN_TRY(Tensor source, blocks(*tensors[i], {parts[i].n, k}));
    sources.push_back(std::move(source));
  }
  PrepareOptions prepare;
  prepare.mode = PrepareMode::on;
  Linear linear;
  MLXN_TRY(linear.weight, Weight::prepare_stacked(device_, sources, prepare));
  note_type(linear.weight.dtype());
  for (const GgufTensor* tensor : tensors) {
    file_.drop_pages(*tensor);
    MLXN_CHECK(count(*tensor, tensor == tensors.front() ? linear.weight.bytes() : 0));
  }
  if (!has_bias) return linear;
  std::vector<float> bias;
  for (const Part& part : parts) MLXN_CHECK(read_vector(part.name + ".bias", part.n, bias));
  MLXN_TRY(linear.bias, device_.allocate(DType::f32, {static_cast<std::int64_t>(bias.size())}));
  MLXN_CHECK(to_device<float>(linear.bias, bias));
  return linear;
}

Result<void> Loader::read_vector(const std::string& name, std::int64_t n, std::vector<float>& values) {
  MLXN_TRY(const GgufTensor* tensor, find(name, 1, n));
  if (!tensor->dtype || (*tensor->dtype != DType::f32 && *tensor->dtype != DType::f16 && *tensor->dtype != DType::bf16)) {
    return make_error(ErrorCode::unsupported, "{}: tensor '{}' has type {}, wanted f32, f16 or bf16", file_.label(), name,
                      type_name(*tensor));
  }
  std::vector<std::byte> bytes(tensor->bytes);
  MLXN_CHECK(file_.read(*tensor, 0, bytes));
  values.resize(values.size() + static_cast<std::size_t>(n));
  MLXN_CHECK(dequantize(*tensor->dtype, bytes, std::span(values).last(static_cast<std::size_t>(n))));
  return count(*tensor, static_cast<std::uint64_t>(n) * sizeof(float));
}

Result<Tensor> Loader::vector(const std::string& name, std::int64_t n) {
  std::vector<float> values;
  MLXN_CHECK(read_vector(name, n, values));
  MLXN_TRY(Tensor out, device_.allocate(DType::f32, {n}));
  MLXN_CHECK(to_device<float>(out, values));
  return out;
}

Result<Tensor> Loader::optional_vector(const std::string& name, std::int64_t n) {
  if (!has(name)) return Tensor();
  return vector(name, n);
}

}  // namespace mlxn::models
