#pragma once

#include <span>
#include <string>
#include <string_view>

namespace mlxn::ops {

/// One implementation of an operation.
struct VariantInfo {
  std::string_view name;     ///< "matmul_rows16_avx512"
  std::string_view backend;  ///< "cpu"; "gpu": portable kernels, for every GPU; "cuda"
  bool (*available)();       ///< whether this build on this machine can run it
  std::string (*lacks)();    ///< what this machine lacks for it; empty if nothing
};

/// A built-in operation and its implementations, best first.
struct OpInfo {
  std::string_view name;
  std::span<const VariantInfo> variants;
};

/// Every built-in operation, in alphabetical order; the build generates it from the folders of src/ops.
[[nodiscard]] std::span<const OpInfo* const> op_table() noexcept;

}  // namespace mlxn::ops
