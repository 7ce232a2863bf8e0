#pragma once

#include <string>
#include <vector>

#include "mlxn/gguf.h"

namespace mlxn::gguf {

/// The paths of all parts of the split model whose first part this is, itself included; none if it is no part. They follow
/// from the file's own path: metadata never says where to look. Errors: invalid_argument (it is another part, or has a name
/// that does not fit its numbers), corrupt_file (numbers of another type).
[[nodiscard]] Result<std::vector<std::string>> find_parts(const GgufFile& file);

}  // namespace mlxn::gguf
