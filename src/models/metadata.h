#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "mlxn/model.h"

namespace mlxn::models {

/// Positions are signed 32-bit numbers in kernels.
inline constexpr std::int64_t kMaxPositions = (std::int64_t{1} << 31) - 1;

/// The keys of one architecture, "<name>.<suffix>", each with the bounds within which it makes sense. A value outside of them,
/// or no number at all, is corrupt_file.
class Metadata {
 public:
  Metadata(const GgufFile& file, std::string_view architecture) : file_(file), architecture_(architecture) {}

  [[nodiscard]] std::string key(std::string_view suffix) const { return architecture_ + "." + std::string(suffix); }
  [[nodiscard]] bool has(std::string_view suffix) const { return file_.find(key(suffix)) != nullptr; }
  /// 0 to `most`.
  [[nodiscard]] Result<std::int64_t> count_or(std::string_view suffix, std::int64_t fallback, std::int64_t most) const;
  /// `least` to `most`.
  [[nodiscard]] Result<double> number_or(std::string_view suffix, double fallback, double least, double most) const;
  /// Finite, above 0.
  [[nodiscard]] Result<double> positive_or(std::string_view suffix, double fallback) const;

 private:
  GgufFile file_;
  std::string architecture_;
};

/// Puts the sizes of the model into `info`. Errors: corrupt_file, not_found (a key is missing), unsupported (experts, layers
/// that differ, heads that attention does not take).
[[nodiscard]] Result<GgufArchitecture> read_architecture(const GgufFile& file, ModelInfo& info);

/// Which keys the layers of a model see.
struct Windows {
  std::int64_t size = -1;     ///< of a window; -1: every layer sees all
  std::vector<bool> windowed;  ///< per layer

  [[nodiscard]] std::int64_t of(std::int64_t layer) const { return windowed[static_cast<std::size_t>(layer)] ? size : -1; }
};
/// attention.sliding_window, 0 being none, and attention.sliding_window_pattern: one bool per layer, or a period whose last
/// layer sees all (0: none does).
[[nodiscard]] Result<Windows> read_windows(const GgufFile& file, const GgufArchitecture& architecture, std::int64_t default_size,
                                           std::int64_t default_period);

}  // namespace mlxn::models
