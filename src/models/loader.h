#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mlxn/model.h"
#include "mlxn/weight.h"

namespace mlxn::models {

/// A matrix of a model with its optional bias: y = x * weight^T + bias.
struct Linear {
  Weight weight;
  Tensor bias;  // f32 [n], empty if the model has none
};

/// Reads a model's tensors onto a device, one after the other, and drops the file's pages behind it. Every shape is checked
/// against what the metadata implies before anything is read.
class Loader {
 public:
  Loader(const GgufFile& file, const Device& device, const LoadOptions& options);

  [[nodiscard]] const GgufFile& file() const noexcept { return file_; }
  [[nodiscard]] const Device& device() const noexcept { return device_; }
  [[nodiscard]] bool has(std::string_view name) const noexcept { return file_.find_tensor(name) != nullptr; }

  /// [n, k] of any weight type.
  [[nodiscard]] Result<Weight> matrix(const std::string& name, std::int64_t n, std::int64_t k);
  /// `name`.weight and, if the file has it, `name`.bias.
  [[nodiscard]] Result<Linear> linear(const std::string& name, std::int64_t n, std::int64_t k);
  /// A part of a stack: `name`.weight [n, k] and, if the file has it, `name`.bias.
  struct Part {
    std::string name;
    std::int64_t n;
  };
  /// The parts one above the other, for one product instead of several. Empty if they cannot be: weights are not prepared, their
  /// types differ, some have a bias and others none, or rows do not come in whole groups.
  [[nodiscard]] Result<Linear> stacked(std::span<const Part> parts, std::int64_t k);
  /// [n] of any plain weight type, as f32.
  [[nodiscard]] Result<Tensor> vector(const std::string& name, std::int64_t n);
  /// The same, or an empty tensor if the file does not have it.
  [[nodiscard]] Result<Tensor> optional_vector(const std::string& name, std::int64_t n);

  /// Says that a token reads one row of the matrix, not the whole of it.
  void read_by_row(const Weight& matrix) noexcept { by_row_bytes_ += matrix.bytes(); }

  [[nodiscard]] std::uint64_t weight_bytes() const noexcept { return weight_bytes_; }
  [[nodiscard]] std::uint64_t bytes_per_token() const noexcept { return weight_bytes_ - by_row_bytes_; }
  [[nodiscard]] std::int64_t parameters() const noexcept { return parameters_; }
  [[nodiscard]] bool prepares() const noexcept { return mode_ == PrepareMode::on; }
  [[nodiscard]] std::string_view prepare_note() const noexcept { return prepare_note_; }
  /// Those of the matrices, each once.
  [[nodiscard]] const std::vector<DType>& types() const noexcept { return types_; }

 private:
  [[nodiscard]] Result<const GgufTensor*> find(const std::string& name, std::int64_t n, std::int64_t k) const;
  /// The tensor's blocks where they lie in the file or, from a source, in memory that the CPU sees.
  [[nodiscard]] Result<Tensor> blocks(const GgufTensor& tensor, const Shape& shape);
  /// The tensor of a matrix, whose type has kernels.
  [[nodiscard]] Result<const GgufTensor*> find_matrix(const std::string& name, std::int64_t n, std::int64_t k) const;
  void note_type(DType type);
  /// Adds a vector's values to `values`.
  [[nodiscard]] Result<void> read_vector(const std::string& name, std::int64_t n, std::vector<float>& values);
  [[nodiscard]] Result<void> count(const GgufTensor& tensor, std::uint64_t device_bytes);

  GgufFile file_;
  Device device_;
  Device host_;  // the device itself or, if the CPU does not see its memory, a CPU
  LoadOptions options_;
  PrepareMode mode_;
  std::string_view prepare_note_;
  std::uint64_t file_bytes_ = 0, loaded_bytes_ = 0, weight_bytes_ = 0, by_row_bytes_ = 0;
  std::int64_t parameters_ = 0;
  std::vector<DType> types_;
};

}  // namespace mlxn::models
