#pragma once

#include <span>
#include <string>
#include <string_view>

#include "mlxn/result.h"

namespace mlxn::cuda {

/// CUDA C++ as a device of that compute capability (90 for 9.0) loads it: its machine code, or PTX where the compiler is too
/// old to know the device. NVRTC is opened by the first call. Errors: unsupported (no libnvrtc, with the names tried),
/// compile (the kernel's name and the compiler's log), out_of_memory.
[[nodiscard]] Result<std::string> compile_source(std::string_view name, std::string_view code, std::span<const std::string> options,
                                                 int capability);

}  // namespace mlxn::cuda
