#pragma once

#include "cli/commands.h"
#include "mlxn/model.h"
#include "mlxn/ops/matmul.h"

namespace mlxn::cli {

/// The values of the flags that every command with a model or a device takes. Errors: invalid_argument.
[[nodiscard]] Result<Numerics> parse_precision(const std::string& text);
/// Whether the device multiplies weights of this shape and type in the class that was asked for; else an error that names the flag.
[[nodiscard]] Result<void> check_precision(const Device& device, const MatmulShape& shape, bool prepared, const MatmulOptions& options);
/// The same for all matrices of a file.
[[nodiscard]] Result<void> check_precision(const Device& device, const GgufFile& file, Numerics numerics);
[[nodiscard]] Result<PrepareMode> parse_prepare(const std::string& text);
/// A weight type with kernels; `in_files`: one that GGUF files have. The error lists them.
[[nodiscard]] Result<DType> parse_weight_type(std::string_view flag, const std::string& text, bool in_files);
[[nodiscard]] Result<DType> parse_kv_type(const std::string& text, std::string_view flag = "--kv-type");
[[nodiscard]] Result<DType> parse_kv_type(const KvTypeFlags& flags);
[[nodiscard]] Result<Device> open_device(const std::string& name, int threads);
/// One line to stderr about what `auto` took and why, if there is a GPU to take or to pass over.
void say_choice(const Device& device);

}  // namespace mlxn::cli
