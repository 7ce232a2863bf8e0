#pragma once

#include <string>
#include <vector>

namespace mlxn::test {

/// The portable kernels that this process has given to encoders, and those that the build has; each sorted by name.
[[nodiscard]] std::vector<std::string> launched_kernels();
[[nodiscard]] std::vector<std::string> built_kernels();

}  // namespace mlxn::test
