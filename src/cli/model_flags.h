#pragma once

#include "cli/commands.h"
#include "mlxn/model.h"

namespace mlxn::cli {

/// The values of the flags that every command with a model or a device takes. Errors: invalid_argument.
[[nodiscard]] Result<Numerics> parse_precision(const std::string& text);
[[nodiscard]] Result<PrepareMode> parse_prepare(const std::string& text);
[[nodiscard]] Result<DType> parse_kv_type(const std::string& text);
[[nodiscard]] Result<Device> open_device(const std::string& name, int threads);
/// One line to stderr about what `auto` took and why, if there is a GPU to take or to pass over.
void say_choice(const Device& device);

}  // namespace mlxn::cli
