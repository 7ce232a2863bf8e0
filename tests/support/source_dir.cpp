// The one file whose code depends on where the sources lie, so that compiler caches serve the others in any folder.
#include "tests/support/source_dir.h"

#include <cstdlib>

namespace mlxn::test {

std::string source_dir() {
  const char* folder = std::getenv("MLXN_SOURCE_DIR");
  return folder != nullptr ? folder : MLXN_SOURCE_DIR;
}

}  // namespace mlxn::test
