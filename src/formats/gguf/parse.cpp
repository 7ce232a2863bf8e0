#include <algorithm>
#include <array>
#include <numeric>

#include "base/checked.h"
#include "formats/gguf/cursor.h"
#include "formats/gguf/rules.h"
#include "formats/gguf/state.h"
#include "formats/utf8.h"

namespace mlxn::detail {
namespace {

using namespace gguf;

constexpr std::uint64_t kLeastTensorBytes = 24;  // name length, dimension count, type, offset
constexpr std::uint64_t kLeastEntryBytes = 14;   // key length, one character, value type, one byte
constexpr std::size_t kMaxArrayDepth = 4;
constexpr auto kMaxType = static_cast<std::uint32_t>(GgufType::f64);
// Block types that the format has dropped; what their numbers meant is lost.
constexpr std::array<std::uint32_t, 8> kRemovedTypes = {4, 5, 31, 32, 33, 36, 37, 38};

std::string_view as_text(std::span<const std::byte> bytes) noexcept {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Least bytes that one element of an array takes.
std::uint64_t least_bytes(GgufType type) noexcept {
  return type == GgufType::string ? 8 : type == GgufType::array ? 12 : scalar_bytes(type);
}

Result<void> check_bools(std::span<const std::byte> bytes, std::uint64_t position) {
  const auto bad = std::find_if(bytes.begin(), bytes.end(), [](std::byte b) { return b > std::byte{1}; });
  if (bad == bytes.end()) return {};
  return corrupt("V06", "a bool is {} at byte {}, wanted 0 or 1", std::to_integer<int>(*bad),
                 position + static_cast<std::uint64_t>(bad - bytes.begin()));
}

}  // namespace

struct GgufState::Parser {
  GgufState& state;
  const GgufOptions& options;
  Cursor cursor{state.bytes, state.size};
  std::uint64_t metadata_bytes = 0;
  std::vector<std::uint64_t> value_positions = {};
  std::vector<std::uint64_t> tensor_positions = {};

  Result<void> run() {
    MLXN_TRY(const Counts counts, header());
    for (std::uint64_t i = 0; i < counts.entries; ++i) MLXN_CHECK(entry());
    MLXN_CHECK(sort_keys());
    MLXN_CHECK(read_alignment());
    for (std::uint64_t i = 0; i < counts.tensors; ++i) MLXN_CHECK(tensor());
    MLXN_CHECK(sort_names());
    MLXN_CHECK(place_tensors());
    MLXN_CHECK(check_overlap());
    if (options.strict) MLXN_CHECK(check_order());
    return {};
  }

 private:
  struct Counts {
    std::uint64_t tensors;
    std::uint64_t entries;
  };

  Result<Counts> header() {
    const std::uint64_t size = state.size;
    if (size >= sizeof(kMagic)) {
      MLXN_TRY(const auto magic, cursor.read<std::uint32_t>("the magic"));
      if (magic != kMagic)
        return corrupt("V01", "no GGUF file: the first four bytes are {:08x}, wanted 47475546",
                       __builtin_bswap32(magic));
    }
    if (size < kHeaderBytes) return corrupt("V01", "the file has {} bytes, the header alone takes 24", size);
    MLXN_TRY(state.version, cursor.read<std::uint32_t>("the version"));
    if (state.version != 0 && (state.version & 0xffffu) == 0) {
      return rule_error(ErrorCode::unsupported, "V01",
                        "big-endian not supported: the version at byte 4 reads {:#x}", state.version);
    }
    if (state.version == 0) return corrupt("V01", "version 0 at byte 4, wanted 2 or 3");
    if (state.version != 2 && state.version != 3) {
      return rule_error(ErrorCode::unsupported, "V01", "version {} at byte 4, wanted 2 or 3", state.version);
    }
    Counts counts = {};
    MLXN_TRY(counts.tensors, cursor.read<std::uint64_t>("the tensor count"));
    MLXN_TRY(counts.entries, cursor.read<std::uint64_t>("the entry count"));
    MLXN_CHECK(check_count("tensor", 8, counts.tensors, kLeastTensorBytes, options.limits.tensors));
    MLXN_CHECK(check_count("entry", 16, counts.entries, kLeastEntryBytes, options.limits.entries));
    return counts;
  }

  Result<void> check_count(std::string_view what, std::uint64_t position, std::uint64_t count,
                           std::uint64_t least, std::uint64_t limit) const {
    if (count > cursor.remaining() / least) {
      return corrupt("V02", "the {} count {} at byte {} cannot fit into the {} bytes that follow", what,
                     count, position, cursor.remaining());
    }
    if (count <= limit) return {};
    return rule_error(ErrorCode::limit_exceeded, "V02", "the {} count {} at byte {} exceeds the limit of {}",
                      what, count, position, limit);
  }

  /// Counts memory that the metadata will hold, before it is allocated.
  Result<void> charge(std::uint64_t bytes) {
    const std::optional<std::uint64_t> sum = checked_add(metadata_bytes, bytes);
    if (!sum || *sum > options.limits.metadata_bytes) {
      return rule_error(ErrorCode::limit_exceeded, "V07", "metadata at byte {} exceeds the limit of {} bytes",
                        cursor.position(), options.limits.metadata_bytes);
    }
    metadata_bytes = *sum;
    return {};
  }

  /// A length that was read at `position`, then that many bytes.
  Result<std::span<const std::byte>> string_bytes(std::string_view what) {
    const std::uint64_t position = cursor.position();
    MLXN_TRY(const auto length, cursor.read<std::uint64_t>(what));
    if (length > cursor.remaining()) {
      return corrupt("V05", "the length {} of {} at byte {} passes the end of the file ({} bytes remain)",
                     length, what, position, cursor.remaining());
    }
    if (length > options.limits.string_bytes) {
      return rule_error(ErrorCode::limit_exceeded, "V05",
                        "the length {} of {} at byte {} exceeds the limit of {}", length, what, position,
                        options.limits.string_bytes);
    }
    return cursor.take(length, what);
  }

  Result<GgufType> value_type(std::string_view what, std::string_view rule) {
    const std::uint64_t position = cursor.position();
    MLXN_TRY(const auto type, cursor.read<std::uint32_t>(what));
    if (type > kMaxType)
      return corrupt(rule, "{} is {} at byte {}, wanted 0 to {}", what, type, position, kMaxType);
    return static_cast<GgufType>(type);
  }

  /// Count of an array whose element type is known.
  Result<std::uint64_t> array_count(GgufType element) {
    const std::uint64_t position = cursor.position();
    MLXN_TRY(const auto count, cursor.read<std::uint64_t>("an array's count"));
    if (count > cursor.remaining() / least_bytes(element)) {
      return corrupt("V07", "an array of {} elements at byte {} cannot fit into the {} bytes that follow",
                     count, position, cursor.remaining());
    }
    if (count > options.limits.array_elems) {
      return rule_error(ErrorCode::limit_exceeded, "V07",
                        "an array of {} elements at byte {} exceeds the limit of {}", count, position,
                        options.limits.array_elems);
    }
    return count;
  }

  Result<void> entry() {
    const std::uint64_t position = cursor.position();
    MLXN_TRY(const auto length, cursor.read<std::uint64_t>("a key's length"));
    if (length == 0 || length > kMaxKeyBytes || length > cursor.remaining()) {
      return corrupt("V04",
                     "the key at byte {} has length {}, wanted 1 to {} and at most the {} bytes that follow",
                     position, length, kMaxKeyBytes, cursor.remaining());
    }
    MLXN_CHECK(charge(entry_charge(length)));
    MLXN_TRY(const auto key, cursor.take(length, "a key"));
    state.names.emplace_back(as_text(key));
    if (!is_printable_ascii(state.names.back())) {
      return corrupt("V04", "the key at byte {} holds a byte that is no printable ASCII", position);
    }
    value_positions.push_back(position);

    GgufValue value;
    value.key_ = state.names.back();
    MLXN_TRY(value.type_, value_type("a value's type", "V06"));
    value.element_type_ = value.type_;
    if (value.type_ == GgufType::array) {
      MLXN_CHECK(array(value));
    } else if (value.type_ == GgufType::string) {
      const std::uint64_t start = cursor.position();
      MLXN_TRY(const auto text, string_bytes("a string"));
      MLXN_CHECK(charge(text.size()));
      value.bytes_.assign(text.begin(), text.end());
      if (!is_utf8(as_text(value.bytes_))) {
        return corrupt("V05", "the value of '{}' at byte {} is not UTF-8", value.key_, start);
      }
    } else {
      MLXN_CHECK(scalars(value, scalar_bytes(value.type_)));
    }
    state.values.push_back(std::move(value));
    return {};
  }

  /// Copies `bytes` bytes of fixed-size values.
  Result<void> scalars(GgufValue& value, std::uint64_t bytes) {
    const std::uint64_t position = cursor.position();
    MLXN_CHECK(charge(bytes));
    MLXN_TRY(const auto data, cursor.take(bytes, "a value"));
    value.bytes_.assign(data.begin(), data.end());
    if (value.element_type_ == GgufType::boolean) MLXN_CHECK(check_bools(value.bytes_, position));
    return {};
  }

  Result<void> array(GgufValue& value) {
    MLXN_TRY(value.element_type_, value_type("an array's element type", "V07"));
    MLXN_TRY(value.count_, array_count(value.element_type_));
    if (value.element_type_ == GgufType::array) return skip_nested(value.count_);
    if (value.element_type_ != GgufType::string) {
      return scalars(value,
                     value.count_ * scalar_bytes(value.element_type_));  // no overflow: it fits the file
    }
    for (std::uint64_t i = 0; i < value.count_; ++i) {
      MLXN_TRY(const auto text, string_bytes("a string of an array"));
      MLXN_CHECK(charge(text.size() + sizeof(std::uint64_t)));
      const std::size_t begin = value.bytes_.size();
      value.bytes_.insert(value.bytes_.end(), text.begin(), text.end());
      value.ends_.push_back(value.bytes_.size());
      value.is_utf8_ = value.is_utf8_ && is_utf8(as_text(std::span(value.bytes_).subspan(begin)));
    }
    return {};
  }

  /// Checks arrays of arrays without keeping them: no key of any model uses them.
  Result<void> skip_nested(std::uint64_t count) {
    std::array<std::uint64_t, kMaxArrayDepth> left = {count};  // arrays still to read per level
    std::size_t depth = 1;
    while (depth > 0) {
      if (left[depth - 1] == 0) {
        --depth;
        continue;
      }
      --left[depth - 1];
      const std::uint64_t position = cursor.position();
      MLXN_TRY(const GgufType element, value_type("an array's element type", "V07"));
      MLXN_TRY(const std::uint64_t inner, array_count(element));
      if (element == GgufType::array && depth + 2 > kMaxArrayDepth) {  // this array is level depth + 1
        return corrupt("V07", "arrays at byte {} are nested deeper than {}", position, kMaxArrayDepth);
      }
      if (element == GgufType::array) {
        left[depth++] = inner;
      } else if (element == GgufType::string) {
        for (std::uint64_t i = 0; i < inner; ++i) MLXN_CHECK(string_bytes("a string of an array"));
      } else {
        const std::uint64_t start = cursor.position();
        MLXN_TRY(const auto data, cursor.take(inner * scalar_bytes(element), "an array"));
        if (element == GgufType::boolean) MLXN_CHECK(check_bools(data, start));
      }
    }
    return {};
  }

  Result<void> sort_keys() {
    auto& order = state.values_by_key;
    order.resize(state.values.size());
    std::iota(order.begin(), order.end(), 0u);
    const auto key = [&](std::uint32_t i) { return state.values[i].key(); };
    std::sort(order.begin(), order.end(),
              [&](std::uint32_t a, std::uint32_t b) { return key(a) != key(b) ? key(a) < key(b) : a < b; });
    const auto twin = std::adjacent_find(order.begin(), order.end(),
                                         [&](std::uint32_t a, std::uint32_t b) { return key(a) == key(b); });
    if (twin == order.end()) return {};
    return corrupt("V04", "the key '{}' at byte {} was there before, at byte {}", key(*twin),
                   value_positions[twin[1]], value_positions[twin[0]]);
  }

  Result<void> read_alignment() {
    for (std::size_t i = 0; i < state.values.size(); ++i) {
      const GgufValue& value = state.values[i];
      if (value.key_ != kAlignmentKey) continue;
      if (value.type_ != GgufType::u32) {
        return corrupt("V08", "general.alignment at byte {} has type {}, wanted u32", value_positions[i],
                       to_string(value.type_));
      }
      MLXN_TRY(const std::uint64_t alignment, value.as_uint());
      if (!is_alignment(alignment)) {
        return corrupt("V08", "general.alignment at byte {} is {}, wanted a power of two from {} to {}",
                       value_positions[i], alignment, kMinAlignment, kMaxAlignment);
      }
      state.alignment = alignment;
    }
    return {};
  }

  Result<void> tensor() {
    const std::uint64_t position = cursor.position();
    const std::uint64_t max_name = options.lenient_names ? kMaxLenientNameBytes : kMaxNameBytes;
    MLXN_TRY(const auto length, cursor.read<std::uint64_t>("a tensor name's length"));
    if (length == 0 || length > max_name || length > cursor.remaining()) {
      return corrupt(
          "V09",
          "the tensor name at byte {} has length {}, wanted 1 to {} and at most the {} bytes that follow",
          position, length, max_name, cursor.remaining());
    }
    MLXN_CHECK(charge(tensor_charge(length)));
    MLXN_TRY(const auto name, cursor.take(length, "a tensor name"));
    state.names.emplace_back(as_text(name));
    GgufTensor t;
    t.name = state.names.back();
    if (t.name.find('\0') != std::string_view::npos) {
      return corrupt("V09", "the tensor name at byte {} holds a NUL", position);
    }
    if (!is_utf8(t.name)) return corrupt("V05", "the tensor name at byte {} is not UTF-8", position);

    MLXN_TRY(t.rank, cursor.read<std::uint32_t>("a dimension count"));
    if (t.rank > t.ne.size()) {
      return corrupt("V09", "tensor '{}' at byte {} has {} dimensions, wanted 0 to {}", t.name, position,
                     t.rank, t.ne.size());
    }
    for (std::uint32_t d = 0; d < t.rank; ++d) {
      MLXN_TRY(t.ne[d], cursor.read<std::uint64_t>("a dimension"));
      if (t.ne[d] > kMaxDimension) {
        return corrupt("V09", "tensor '{}' at byte {} has dimension {}, wanted at most 2^48", t.name,
                       position, t.ne[d]);
      }
      t.shape[t.rank - 1 - d] = t.ne[d];
    }
    MLXN_TRY(t.type_id, cursor.read<std::uint32_t>("a tensor type"));
    MLXN_TRY(t.offset, cursor.read<std::uint64_t>("a tensor offset"));
    MLXN_CHECK(size_tensor(t, position));
    tensor_positions.push_back(position);
    state.tensors.push_back(t);
    return {};
  }

  Result<void> size_tensor(GgufTensor& t, std::uint64_t position) const {
    const auto product = product_of_dims(t.ne);
    if (!product)
      return corrupt("V10", "the dimensions of tensor '{}' at byte {} multiply past 64 bits", t.name,
                     position);
    const bool empty = std::find(t.ne.begin(), t.ne.end(), std::uint64_t{0}) != t.ne.end();
    t.elems = empty ? 0 : *product;
    if (std::find(kRemovedTypes.begin(), kRemovedTypes.end(), t.type_id) != kRemovedTypes.end()) {
      return rule_error(ErrorCode::unsupported, "V10",
                        "tensor '{}' at byte {} has type id {}, which the format removed", t.name, position,
                        t.type_id);
    }
    t.dtype = dtype_from_gguf(t.type_id);
    if (!t.dtype) return {};
    if (t.ne[0] % block_elems(*t.dtype) != 0) {
      return corrupt("V10", "tensor '{}' at byte {} has rows of {} elements, wanted a multiple of {} for {}",
                     t.name, position, t.ne[0], block_elems(*t.dtype), to_string(*t.dtype));
    }
    const std::optional<std::uint64_t> bytes = storage_bytes(*t.dtype, t.elems);
    if (!bytes) return corrupt("V10", "the size of tensor '{}' at byte {} passes 64 bits", t.name, position);
    t.bytes = *bytes;
    return {};
  }

  Result<void> sort_names() {
    auto& order = state.tensors_by_name;
    order.resize(state.tensors.size());
    std::iota(order.begin(), order.end(), 0u);
    const auto name = [&](std::uint32_t i) { return state.tensors[i].name; };
    std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
      return name(a) != name(b) ? name(a) < name(b) : a < b;
    });
    const auto twin = std::adjacent_find(
        order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) { return name(a) == name(b); });
    if (twin == order.end()) return {};
    return corrupt("V09", "the tensor name '{}' at byte {} was there before, at byte {}", name(*twin),
                   tensor_positions[twin[1]], tensor_positions[twin[0]]);
  }

  Result<void> place_tensors() {
    state.data_offset = cursor.position();
    if (state.tensors.empty()) return {};
    const std::optional<std::uint64_t> start = checked_round_up(cursor.position(), state.alignment);
    if (!start) return corrupt("V11", "the start of the data section passes 64 bits");
    state.data_offset = *start;
    const std::uint64_t file_bytes = state.size;
    for (std::size_t i = 0; i < state.tensors.size(); ++i) {
      GgufTensor& t = state.tensors[i];
      const std::uint64_t position = tensor_positions[i];
      if (t.bytes > 0 && state.data_offset > file_bytes) {
        return corrupt("V11", "the data section starts at byte {}, the file has {}", state.data_offset,
                       file_bytes);
      }
      if (t.offset % state.alignment != 0) {
        return corrupt("V12", "the offset {} of tensor '{}' (described at byte {}) is no multiple of {}",
                       t.offset, t.name, position, state.alignment);
      }
      const std::optional<std::uint64_t> absolute = checked_add(state.data_offset, t.offset);
      if (!absolute)
        return corrupt("V12", "the offset {} of tensor '{}' at byte {} passes 64 bits", t.offset, t.name,
                       position);
      t.absolute_offset = *absolute;
      if (t.dtype && t.bytes == 0) continue;
      const std::optional<std::uint64_t> end = checked_add(*absolute, t.bytes);
      if (!end || *end > file_bytes) {
        return corrupt("V12",
                       "tensor '{}' (described at byte {}) takes {} bytes from byte {}, the file has {}",
                       t.name, position, t.bytes, *absolute, file_bytes);
      }
    }
    return {};
  }

  Result<void> check_overlap() {
    auto& order = state.tensors_by_offset;
    order.reserve(state.tensors.size());
    for (const GgufTensor& t : state.tensors) order.push_back(&t);
    std::stable_sort(order.begin(), order.end(),
                     [](const GgufTensor* a, const GgufTensor* b) { return a->offset < b->offset; });
    const GgufTensor* last = nullptr;  // the last one with bytes
    std::uint64_t end = 0;             // where it ends, from the data start
    bool end_known = true;
    std::uint64_t holes = 0, hole_bytes = 0, unknown = 0;
    for (const GgufTensor* t : order) {
      if (!t->dtype) {
        ++unknown;
        end_known = false;
        continue;
      }
      if (t->bytes == 0) continue;
      if (last != nullptr && t->offset < end) {
        return corrupt("V13", "tensors '{}' and '{}' overlap at byte {}", last->name, t->name,
                       t->absolute_offset);
      }
      const std::uint64_t padded =
          ceil_div(end, state.alignment) * state.alignment;  // t->offset is not below it
      if (end_known && t->offset > padded) {
        ++holes;
        hole_bytes += t->offset - padded;
      }
      last = t;
      end = t->offset + t->bytes;
      end_known = true;
    }
    if (holes > 0)
      state.notes.push_back(fmt::format("{} bytes in {} holes belong to no tensor", hole_bytes, holes));
    if (unknown > 0) {
      state.notes.push_back(fmt::format(
          "{} tensors have an unknown type: they cannot be read, and overlap with them is not checked",
          unknown));
    }
    return {};
  }

  /// The layout that ggml insists on: every offset is the running sum of the padded sizes before it.
  Result<void> check_order() const {
    std::uint64_t expected = 0;
    for (const GgufTensor& t : state.tensors) {
      if (!t.dtype)
        return corrupt("V13", "tensor '{}' has unknown type id {}, so its extent is unknown", t.name,
                       t.type_id);
      if (t.offset != expected) {
        return corrupt("V13", "tensor '{}' is at offset {}, wanted {}: no holes, in file order", t.name,
                       t.offset, expected);
      }
      const auto padded = checked_round_up(t.bytes, state.alignment);
      const auto next = padded ? checked_add(expected, *padded) : std::nullopt;
      if (!next) return corrupt("V13", "the padded sizes up to tensor '{}' pass 64 bits", t.name);
      expected = *next;
    }
    return {};
  }
};

Result<void> GgufState::parse(const GgufOptions& options, std::uint64_t* wanted) {
  Parser parser{*this, options};
  Result<void> done = parser.run();
  if (wanted != nullptr) *wanted = parser.cursor.wanted();
  return done;
}

}  // namespace mlxn::detail
