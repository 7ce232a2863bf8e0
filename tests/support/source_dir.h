#pragma once

#include <string>

namespace mlxn::test {

/// The folder of the project's sources, where goldens and demo models lie: MLXN_SOURCE_DIR of the environment, else the folder
/// that this program was built from.
[[nodiscard]] std::string source_dir();

}  // namespace mlxn::test
