#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mlxn/dtype.h"
#include "mlxn/gguf.h"
#include "mlxn/result.h"

namespace mlxn {

struct GgufWriteOptions {
  bool lenient_names = false;  ///< tensor names up to 255 bytes instead of 63
  /// Where a part ends and the next begins; 0 is no limit. With a limit that the whole file does not keep, part i of n is
  /// written as <target without .gguf>-<i>-of-<n>.gguf, five digits each, and all metadata goes into the first one.
  std::uint64_t split_max_bytes = 0;  ///< of a part's file
  std::uint64_t split_max_tensors = 0;
  GgufLimits limits;  ///< of the readers that the files are for; each part keeps them by itself
};

/// Writes a GGUF file (version 3) as a stream: metadata and the list of tensors first, then the tensors' bytes in the order
/// of the list. What it writes, GgufFile reads, by the rules V01 to V13 of the reader and within the same limits.
///
///     create -> add... -> add_tensor... -> begin -> write... -> finish
///
/// The bytes go to temporary names (.mlxn-...tmp) in the target's folder. finish() gives the files their names once all of
/// them are whole and on the disk; without it nothing is left behind. A file that had the name is replaced, and its
/// permissions stay; a name that is a symbolic link stays one, and the file that it leads to is replaced.
/// Of a model in parts, the old first part is moved aside before any other is replaced and the new one comes last: who finds
/// the first part finds all of them. If that fails half-way, the new parts go away and the old ones get their names back.
/// A process or machine that ends half-way leaves no first part, and the old parts under their temporary names.
///
/// Errors: invalid_argument (keys, names, texts, a second one of the same name), bad_shape (dimensions, rows that are no
/// whole blocks, a tensor of another size than its bytes), bad_dtype (a type that files do not have), limit_exceeded (more
/// than `limits` allow, a tensor or the metadata beyond split_max_bytes, more than 65535 parts), out_of_range (more bytes than the tensors take),
/// wrong_state (calls out of order, bytes missing at finish), io (with errno: no folder, no permission, no space),
/// out_of_memory. After a failed begin(), write() or finish() every later call is wrong_state; after any other failure the
/// writer is as it was before.
class GgufWriter {
 public:
  [[nodiscard]] static Result<GgufWriter> create(const std::filesystem::path& target,
                                                 const GgufWriteOptions& options = {}) noexcept;
  GgufWriter(GgufWriter&&) noexcept;
  GgufWriter& operator=(GgufWriter&&) noexcept;
  ~GgufWriter();

  // Metadata, written in the order of the calls. Keys are printable ASCII. The key general.alignment (u32) sets the
  // alignment of the tensors, 32 without it; split.* is the writer's own.
  template <class T>
    requires(detail::kGgufTypeOf<T>.has_value())
  [[nodiscard]] Result<void> add(std::string_view key, T value) noexcept {
    return add_scalar(key, *detail::kGgufTypeOf<T>, std::as_bytes(std::span<const T>(&value, 1)));
  }
  [[nodiscard]] Result<void> add(std::string_view key, std::string_view text) noexcept;  ///< UTF-8
  template <class T>
    requires(detail::kGgufTypeOf<T>.has_value())
  [[nodiscard]] Result<void> add_array(std::string_view key, std::span<const T> values) noexcept {
    return add_elements(key, *detail::kGgufTypeOf<T>, values.size(), std::as_bytes(values));
  }
  [[nodiscard]] Result<void> add_strings(std::string_view key, std::span<const std::string> texts) noexcept;  ///< any bytes
  /// An entry of another file, bit for bit. Unsupported: an array of arrays, whose elements no reader keeps.
  [[nodiscard]] Result<void> add(const GgufValue& value) noexcept;

  /// `ne` has 0 to 4 dimensions, innermost first.
  [[nodiscard]] Result<void> add_tensor(std::string_view name, DType type, std::span<const std::uint64_t> ne) noexcept;

  /// Ends the description: looks whether the disk has room for all of it, opens the first file and writes its header.
  [[nodiscard]] Result<void> begin() noexcept;
  /// The next bytes of the tensors' data, without padding; any amount, also across tensors.
  [[nodiscard]] Result<void> write(std::span<const std::byte> bytes) noexcept;
  /// All bytes of one tensor, which must be the next one. One that has no bytes may come at any time, or not at all.
  [[nodiscard]] Result<void> write_tensor(std::string_view name, std::span<const std::byte> bytes) noexcept;
  [[nodiscard]] Result<void> finish() noexcept;

  /// Bytes of all files together, headers and padding included; 0 before begin().
  [[nodiscard]] std::uint64_t file_bytes() const noexcept;
  /// The files in the order of their parts; empty before begin().
  [[nodiscard]] std::span<const std::string> paths() const noexcept;

 private:
  struct State;
  explicit GgufWriter(std::unique_ptr<State> state) noexcept;
  [[nodiscard]] Result<void> add_scalar(std::string_view key, GgufType type, std::span<const std::byte> bytes) noexcept;
  [[nodiscard]] Result<void> add_elements(std::string_view key, GgufType type, std::uint64_t count,
                                          std::span<const std::byte> bytes) noexcept;
  std::unique_ptr<State> state_;
};

/// The name of part `number` (from 1) of `count`: "<prefix>-00001-of-00003.gguf".
[[nodiscard]] Result<std::string> gguf_part_path(std::string_view prefix, std::uint64_t number, std::uint64_t count) noexcept;

}  // namespace mlxn
