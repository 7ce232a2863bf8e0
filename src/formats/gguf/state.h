#pragma once

#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "io/mapped_file.h"
#include "mlxn/gguf.h"

namespace mlxn::detail {

/// What the handles of one file share. Nothing in here but `bytes` points into the file.
struct GgufState {
  std::span<const std::byte> bytes;  // the whole file, or for a source its header
  std::uint64_t size = 0;            // of the file
  std::shared_ptr<const void> owner;           // keeps `bytes` alive
  std::shared_ptr<const io::MappedFile> file;  // empty for bytes in memory
  std::shared_ptr<const GgufSource> source;    // empty for bytes in place
  std::string label;

  // The files of a split model, each whole in itself; empty for a single one. Keys and values are those of the first, the
  // tensors below are those of all, and everything else is empty.
  std::vector<std::shared_ptr<const GgufState>> parts;
  [[nodiscard]] const GgufState& first() const noexcept { return parts.empty() ? *this : *parts[0]; }
  [[nodiscard]] const GgufState& part(std::uint32_t index) const noexcept { return parts.empty() ? *this : *parts[index]; }

  std::uint32_t version = 0;
  std::uint64_t alignment = 32;
  std::uint64_t data_offset = 0;
  std::deque<std::string> names;  // keys and tensor names; a deque, so that views stay valid as it grows
  std::vector<GgufValue> values;
  std::vector<GgufTensor> tensors;
  // Sorted, not hashed: hostile names cannot degrade a sort.
  std::vector<std::uint32_t> values_by_key;
  std::vector<std::uint32_t> tensors_by_name;
  std::vector<const GgufTensor*> tensors_by_offset;
  std::vector<std::string> notes;

  struct Parser;
  /// Fills the state from `bytes`. Where they are not the whole file and more of it are needed, the error comes with the
  /// number of bytes in `wanted`.
  [[nodiscard]] Result<void> parse(const GgufOptions& options, std::uint64_t* wanted = nullptr);
  /// Fills the state from `parts`: checks that they belong together and lists their tensors.
  [[nodiscard]] Result<void> join();
};

}  // namespace mlxn::detail

namespace mlxn::gguf {

/// Bytes of one value of a fixed-size type; 0 for strings and arrays.
[[nodiscard]] constexpr std::uint64_t scalar_bytes(GgufType type) noexcept {
  switch (type) {
    case GgufType::u8:
    case GgufType::i8:
    case GgufType::boolean:
      return 1;
    case GgufType::u16:
    case GgufType::i16:
      return 2;
    case GgufType::u32:
    case GgufType::i32:
    case GgufType::f32:
      return 4;
    case GgufType::u64:
    case GgufType::i64:
    case GgufType::f64:
      return 8;
    case GgufType::string:
    case GgufType::array:
      return 0;
  }
  return 0;
}

}  // namespace mlxn::gguf
