#include "formats/gguf/parts.h"

#include <algorithm>
#include <numeric>

#include "base/checked.h"
#include "base/error.h"
#include "formats/gguf/cursor.h"
#include "formats/gguf/rules.h"
#include "formats/gguf/state.h"
#include "mlxn/gguf_writer.h"

namespace mlxn {
namespace gguf {

Result<std::vector<std::string>> find_parts(const GgufFile& file) {
  std::vector<std::string> names;
  MLXN_TRY(const std::uint64_t count, file.get_uint_or(kSplitCountKey, 1));
  if (count <= 1) return names;
  MLXN_TRY(const std::uint64_t index, file.get_uint(kSplitNumberKey));
  if (index >= count || count > kMaxParts) {
    return corrupt("split", "{} is {} and {} is {}, wanted a number below a count of at most {}", kSplitNumberKey, index, kSplitCountKey,
                   count, kMaxParts);
  }
  MLXN_TRY(const std::string ending, gguf_part_path("", index + 1, count));
  const std::string_view path = file.label();
  if (!path.ends_with(ending)) {
    return make_error(ErrorCode::invalid_argument,
                      "gguf: the file is part {} of {}, wanted a name that ends in {}, from which the names of the others follow",
                      index + 1, count, ending);
  }
  const std::string_view prefix = path.substr(0, path.size() - ending.size());
  if (index != 0) {
    MLXN_TRY(const std::string first, gguf_part_path(prefix, 1, count));
    return make_error(ErrorCode::invalid_argument, "gguf: the file is part {} of {}, wanted the first one: {}", index + 1, count, first);
  }
  for (std::uint64_t i = 1; i <= count; ++i) {
    MLXN_TRY(std::string name, gguf_part_path(prefix, i, count));
    names.push_back(std::move(name));
  }
  return names;
}

}  // namespace gguf

namespace detail {
namespace {

const GgufValue* find(const GgufState& state, std::string_view key) noexcept {
  const auto at = std::find_if(state.values.begin(), state.values.end(), [&](const GgufValue& v) { return v.key() == key; });
  return at == state.values.end() ? nullptr : &*at;
}

/// The number behind a key that every part must have.
Result<std::uint64_t> number(const GgufState& part, std::string_view key) {
  const GgufValue* value = find(part, key);
  if (value == nullptr) return gguf::corrupt("split", "'{}' has no key '{}'", part.label, key);
  return value->as_uint();
}

}  // namespace

Result<void> GgufState::join() {
  if (parts.empty()) return make_error(ErrorCode::invalid_argument, "gguf: no parts to join");
  MLXN_TRY(const std::uint64_t declared, number(*parts[0], gguf::kSplitTensorsKey));
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const GgufState& part = *parts[i];
    MLXN_TRY(const std::uint64_t index, number(part, gguf::kSplitNumberKey));
    MLXN_TRY(const std::uint64_t count, number(part, gguf::kSplitCountKey));
    if (index != i) return gguf::corrupt("split", "'{}' says that it is part {}, wanted part {}", part.label, index + 1, i + 1);
    if (count != parts.size()) return gguf::corrupt("split", "'{}' says that there are {} parts, wanted {}", part.label, count, parts.size());
    MLXN_TRY(const std::uint64_t all, number(part, gguf::kSplitTensorsKey));
    if (all != declared) {
      return gguf::corrupt("split", "'{}' says that the parts have {} tensors, the first one says {}", part.label, all, declared);
    }
    const auto sum = checked_add(size, part.size);
    if (!sum) return gguf::corrupt("split", "the sizes of the parts pass 64 bits");
    size = *sum;
    for (const GgufTensor& t : part.tensors) {
      tensors.push_back(t);
      tensors.back().part = static_cast<std::uint32_t>(i);
    }
    for (const std::string& note : part.notes) notes.push_back(part.label + ": " + note);
  }
  if (tensors.size() != declared) {
    return gguf::corrupt("split", "the {} parts have {} tensors, the first one says {}", parts.size(), tensors.size(), declared);
  }
  tensors_by_name.resize(tensors.size());
  std::iota(tensors_by_name.begin(), tensors_by_name.end(), 0u);
  const auto name = [&](std::uint32_t i) { return tensors[i].name; };
  std::sort(tensors_by_name.begin(), tensors_by_name.end(), [&](std::uint32_t a, std::uint32_t b) { return name(a) < name(b); });
  const auto twin = std::adjacent_find(tensors_by_name.begin(), tensors_by_name.end(),
                                       [&](std::uint32_t a, std::uint32_t b) { return name(a) == name(b); });
  if (twin != tensors_by_name.end()) {
    return gguf::corrupt("split", "tensor '{}' is in '{}' and in '{}'", name(twin[0]), part(tensors[twin[0]].part).label,
                         part(tensors[twin[1]].part).label);
  }
  for (const GgufTensor& t : tensors) tensors_by_offset.push_back(&t);
  std::stable_sort(tensors_by_offset.begin(), tensors_by_offset.end(), [](const GgufTensor* a, const GgufTensor* b) {
    return a->part != b->part ? a->part < b->part : a->offset < b->offset;
  });
  return {};
}

}  // namespace detail
}  // namespace mlxn
