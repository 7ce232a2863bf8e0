#include "mlxn/gguf_writer.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <set>

#include "base/check_value.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/join.h"
#include "formats/gguf/cursor.h"
#include "formats/gguf/rules.h"
#include "formats/printable.h"
#include "formats/utf8.h"
#include "io/output_file.h"

namespace mlxn {
namespace {

using Bytes = std::vector<std::byte>;
using Names = std::set<std::string, std::less<>>;

void append(Bytes& out, std::span<const std::byte> bytes) {
  const std::size_t size = out.size();
  out.resize(size + bytes.size());  // GCC 12 warns of an insertion's copy where it knows that the vector was empty
  std::copy(bytes.begin(), bytes.end(), out.data() + size);
}
template <class T>
void append_number(Bytes& out, T value) {
  append(out, std::as_bytes(std::span<const T>(&value, 1)));
}
void append_string(Bytes& out, std::string_view text) {
  append_number<std::uint64_t>(out, text.size());
  append(out, std::as_bytes(std::span(text.data(), text.size())));
}
void append_type(Bytes& out, GgufType type) { append_number(out, static_cast<std::uint32_t>(type)); }

/// Key-value pairs as they lie in a file.
struct Entries {
  Bytes bytes;
  std::uint64_t count = 0;
  std::uint64_t charge = 0;  // what the reader counts for them
};
template <class T>
void append_entry(Entries& out, std::string_view key, GgufType type, T value) {
  append_string(out.bytes, key);
  append_type(out.bytes, type);
  append_number(out.bytes, value);
  ++out.count;
  out.charge += gguf::entry_charge(key.size()) + sizeof(T);
}

/// Takes the name back unless it is kept: what follows the insertion may fail.
class NameGuard {
 public:
  NameGuard(Names& names, std::string_view name) : names_(names), at_(names.emplace(name)) {}
  ~NameGuard() {
    if (at_.second && !kept_) names_.erase(at_.first);
  }
  NameGuard(const NameGuard&) = delete;
  NameGuard& operator=(const NameGuard&) = delete;
  [[nodiscard]] bool fresh() const noexcept { return at_.second; }
  void keep() noexcept { kept_ = true; }

 private:
  Names& names_;
  std::pair<Names::iterator, bool> at_;
  bool kept_ = false;
};

std::string_view without_extension(std::string_view path) noexcept {
  constexpr std::string_view extension = ".gguf";
  return path.ends_with(extension) ? path.substr(0, path.size() - extension.size()) : path;
}

}  // namespace

struct GgufWriter::State {
  enum class Stage : std::uint8_t { describing, writing, finished, failed };
  struct TensorInfo {
    std::string name;
    DType type;
    std::vector<std::uint64_t> ne;
    std::uint64_t bytes;
  };
  struct Part {
    std::size_t first = 0, count = 0;  // tensors
    std::uint64_t header_bytes = 0;    // padding included
    std::uint64_t file_bytes = 0;
  };

  std::string target;
  GgufWriteOptions options;
  Stage stage = Stage::describing;
  std::uint64_t alignment = gguf::kDefaultAlignment;

  Entries entries;
  Names keys;
  std::vector<TensorInfo> tensors;
  std::uint64_t tensors_charge = 0;
  Names names, empty_names;  // of all tensors, and of those without bytes

  bool split = false;  // the files are parts, and say so
  std::vector<Part> parts;
  std::vector<std::string> paths;
  std::vector<io::OutputFile> files;  // of the parts begun so far
  std::uint64_t file_bytes = 0;
  std::size_t tensor = 0;     // the one that takes the next bytes
  std::uint64_t written = 0;  // of it

  [[nodiscard]] Result<void> check_stage(Stage wanted, std::string_view call) const {
    if (stage == wanted) return {};
    constexpr std::array<std::string_view, 4> names_of = {"before begin()", "after begin()", "after finish()", "after a failure"};
    return make_error(ErrorCode::wrong_state, "gguf: {} is called {}", call, names_of[static_cast<std::size_t>(stage)]);
  }
  [[nodiscard]] Error beyond(std::string_view what, std::uint64_t value, std::uint64_t limit) const {
    return make_error(ErrorCode::limit_exceeded, "gguf: {}: {}, the reader's limit is {}", what, value, limit);
  }
  [[nodiscard]] bool may_split() const noexcept { return options.split_max_bytes != 0 || options.split_max_tensors != 0; }
  /// `charge` is what the reader counts for the value.
  [[nodiscard]] Result<void> add_entry(std::string_view key, const Bytes& typed_value, std::uint64_t charge);
  [[nodiscard]] Result<void> check_text(std::string_view key, std::string_view text) const {
    if (text.size() <= options.limits.string_bytes) return {};
    return beyond(fmt::format("bytes of a text of '{}'", printable(key)), text.size(), options.limits.string_bytes);
  }
  template <class Texts>
  [[nodiscard]] Result<Bytes> elements_of(std::string_view key, const Texts& texts) const {
    Bytes out;
    for (const std::string_view text : texts) {
      MLXN_CHECK(check_text(key, text));
      append_string(out, text);
    }
    return out;
  }
  [[nodiscard]] std::uint64_t info_bytes(const TensorInfo& t) const noexcept {
    return 8 + t.name.size() + 4 + 8 * t.ne.size() + 4 + 8;
  }
  /// What part `part` says of itself; nothing unless the model is split.
  [[nodiscard]] Entries split_entries(std::size_t part) const;
  [[nodiscard]] Result<void> plan_parts();
  [[nodiscard]] Result<void> check_limits(std::size_t part) const;
  [[nodiscard]] Bytes header(std::size_t part) const;
  [[nodiscard]] Result<void> open_part(std::size_t part);
  [[nodiscard]] Result<void> close_part();
  /// Pads tensors that have all their bytes and passes from part to part.
  [[nodiscard]] Result<void> advance();
  [[nodiscard]] Result<void> write(std::span<const std::byte> bytes);
  [[nodiscard]] Result<void> finish();

  /// Runs a step after which there is no going back: if it fails, by an error or for want of memory, all is thrown away.
  template <class F>
  [[nodiscard]] Result<void> commit(F&& step) noexcept {
    Result<void> done = detail::guarded(std::forward<F>(step));
    if (!done) {
      stage = Stage::failed;
      while (!files.empty()) files.pop_back();  // the first part last: a file that was moved aside gets its name back
    }
    return done;
  }
};

Result<void> GgufWriter::State::add_entry(std::string_view key, const Bytes& typed_value, std::uint64_t charge) {
  if (key.empty() || key.size() > gguf::kMaxKeyBytes || !gguf::is_printable_ascii(key)) {
    return make_error(ErrorCode::invalid_argument, "gguf: the key {} of {} bytes, wanted 1 to {} of printable ASCII",
                      excerpt(key), key.size(), gguf::kMaxKeyBytes);
  }
  if (key == gguf::kSplitNumberKey || key == gguf::kSplitCountKey || key == gguf::kSplitTensorsKey) {
    return make_error(ErrorCode::invalid_argument, "gguf: the key '{}' is set by the writer", key);
  }
  NameGuard guard(keys, key);
  if (!guard.fresh()) return make_error(ErrorCode::invalid_argument, "gguf: the key '{}' was added before", key);
  if (entries.count >= options.limits.entries) return beyond("metadata entries", entries.count + 1, options.limits.entries);
  const std::uint64_t all = entries.charge + (may_split() ? 0 : tensors_charge) + gguf::entry_charge(key.size()) + charge;
  if (all > options.limits.metadata_bytes) return beyond("bytes of metadata", all, options.limits.metadata_bytes);
  Bytes entry;
  entry.reserve(8 + key.size() + typed_value.size());
  append_string(entry, key);
  append(entry, typed_value);
  append(entries.bytes, entry);
  ++entries.count;
  entries.charge += gguf::entry_charge(key.size()) + charge;
  guard.keep();
  return {};
}

Entries GgufWriter::State::split_entries(std::size_t part) const {
  Entries out;
  if (!split) return out;
  append_entry(out, gguf::kSplitNumberKey, GgufType::u16, static_cast<std::uint16_t>(part));
  append_entry(out, gguf::kSplitCountKey, GgufType::u16, static_cast<std::uint16_t>(parts.size()));
  append_entry(out, gguf::kSplitTensorsKey, GgufType::i32, static_cast<std::int32_t>(tensors.size()));
  if (part > 0 && alignment != gguf::kDefaultAlignment) {
    append_entry(out, gguf::kAlignmentKey, GgufType::u32, static_cast<std::uint32_t>(alignment));
  }
  return out;
}

Result<void> GgufWriter::State::check_limits(std::size_t number) const {
  const Part& part = parts[number];
  const GgufLimits& limits = options.limits;
  const Entries own = split_entries(number);
  const std::uint64_t count = own.count + (number == 0 ? entries.count : 0);
  std::uint64_t charge = own.charge + (number == 0 ? entries.charge : 0);
  for (std::size_t i = part.first; i < part.first + part.count; ++i) charge += gguf::tensor_charge(tensors[i].name.size());
  const std::string of = split ? fmt::format(" of part {}", number + 1) : "";
  if (part.count > limits.tensors) return beyond("tensors" + of, part.count, limits.tensors);
  if (count > limits.entries) return beyond("metadata entries" + of, count, limits.entries);
  if (charge > limits.metadata_bytes) return beyond("bytes of metadata" + of, charge, limits.metadata_bytes);
  return {};
}

Result<void> GgufWriter::State::plan_parts() {
  const auto padded = [&](std::uint64_t bytes) { return checked_round_up(bytes, alignment); };
  // Sizes of headers cannot overflow: they are in memory. Sums over tensors can.
  const auto place = [&]() -> Result<void> {
    parts.assign(1, {});
    std::uint64_t header = gguf::kHeaderBytes + entries.bytes.size() + split_entries(0).bytes.size();
    std::uint64_t data = 0;
    const auto too_large = [&](std::string_view what, std::uint64_t bytes) {
      return make_error(ErrorCode::limit_exceeded, "gguf: {} takes {} bytes, a part may have at most {}", what, bytes,
                        options.split_max_bytes);
    };
    const auto close = [&](Part& part) {
      part.header_bytes = part.count == 0 ? header : *padded(header);
      part.file_bytes = part.header_bytes + data;
    };
    if (split && options.split_max_bytes != 0 && header > options.split_max_bytes) return too_large("the metadata", header);
    for (std::size_t i = 0; i < tensors.size();) {
      Part& part = parts.back();
      const TensorInfo& t = tensors[i];
      const std::uint64_t longer = header + info_bytes(t);
      const auto bytes = padded(t.bytes);
      const auto all = bytes ? checked_add(data, *bytes) : std::nullopt;
      const auto file = all ? checked_add(*padded(longer), *all) : std::nullopt;
      if (!file) return make_error(ErrorCode::bad_shape, "gguf: the sizes of the tensors up to '{}' pass 64 bits", printable(t.name));
      const bool fits = (options.split_max_bytes == 0 || *file <= options.split_max_bytes) &&
                        (options.split_max_tensors == 0 || part.count < options.split_max_tensors);
      if (!split || fits) {
        header = longer;
        data = *all;
        ++part.count;
        ++i;
        continue;
      }
      if (part.count == 0 && parts.size() > 1) return too_large("tensor '" + printable(t.name) + "'", *file);
      close(part);
      const std::size_t first = i;
      parts.emplace_back().first = first;
      header = gguf::kHeaderBytes + split_entries(parts.size() - 1).bytes.size();
      data = 0;
    }
    close(parts.back());
    return {};
  };
  split = false;
  MLXN_CHECK(place());
  split = !((options.split_max_bytes == 0 || parts[0].file_bytes <= options.split_max_bytes) &&
            (options.split_max_tensors == 0 || tensors.size() <= options.split_max_tensors));
  if (split) MLXN_CHECK(place());
  if (parts.size() > gguf::kMaxParts) {
    return make_error(ErrorCode::limit_exceeded, "gguf: {} parts, wanted at most {}", parts.size(), gguf::kMaxParts);
  }
  if (split && tensors.size() > INT32_MAX) {
    return make_error(ErrorCode::limit_exceeded, "gguf: {} tensors in parts, wanted at most {}", tensors.size(), INT32_MAX);
  }
  file_bytes = 0;
  paths.clear();
  for (std::size_t i = 0; i < parts.size(); ++i) {
    MLXN_CHECK(check_limits(i));
    file_bytes += parts[i].file_bytes;
    if (!split) {
      paths.push_back(target);
    } else {
      MLXN_TRY(std::string path, gguf_part_path(without_extension(target), i + 1, parts.size()));
      paths.push_back(std::move(path));
    }
  }
  return {};
}

Bytes GgufWriter::State::header(std::size_t number) const {
  const Part& part = parts[number];
  const Entries own = split_entries(number);
  Bytes out;
  out.reserve(part.header_bytes);
  append_number(out, gguf::kMagic);
  append_number<std::uint32_t>(out, 3);
  append_number<std::uint64_t>(out, part.count);
  append_number<std::uint64_t>(out, (number == 0 ? entries.count : 0) + own.count);
  if (number == 0) append(out, entries.bytes);
  append(out, own.bytes);
  std::uint64_t offset = 0;
  for (std::size_t i = part.first; i < part.first + part.count; ++i) {
    const TensorInfo& t = tensors[i];
    append_string(out, t.name);
    append_number(out, static_cast<std::uint32_t>(t.ne.size()));
    for (const std::uint64_t n : t.ne) append_number(out, n);
    append_number(out, static_cast<std::uint32_t>(info(t.type).gguf_id));
    append_number(out, offset);
    offset += *checked_round_up(t.bytes, alignment);  // checked when the parts were planned
  }
  out.resize(part.header_bytes);
  return out;
}

Result<void> GgufWriter::State::open_part(std::size_t part) {
  MLXN_TRY(io::OutputFile file, io::OutputFile::create(paths[part]));
  files.push_back(std::move(file));
  return files.back().write(header(part));
}

Result<void> GgufWriter::State::close_part() {
  io::OutputFile& file = files.back();
  const Part& part = parts[files.size() - 1];
  if (file.size() != part.file_bytes) {
    return make_error(ErrorCode::internal, "gguf: {} has {} bytes, planned were {}", file.target(), file.size(), part.file_bytes);
  }
  return file.flush();
}

Result<void> GgufWriter::State::advance() {
  static constexpr std::array<std::byte, 4096> zeros = {};
  while (true) {
    const Part& part = parts[files.size() - 1];
    const bool in_part = tensor < part.first + part.count;
    if (in_part && written < tensors[tensor].bytes) return {};
    if (in_part) {
      for (std::uint64_t left = (alignment - tensors[tensor].bytes % alignment) % alignment; left > 0;) {
        const auto padding = std::span(zeros).first(static_cast<std::size_t>(std::min<std::uint64_t>(left, zeros.size())));
        MLXN_CHECK(files.back().write(padding));
        left -= padding.size();
      }
      ++tensor;
      written = 0;
      continue;
    }
    if (files.size() == parts.size()) return {};
    MLXN_CHECK(close_part());
    MLXN_CHECK(open_part(files.size()));
  }
}

Result<void> GgufWriter::State::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    if (tensor == tensors.size()) {
      return make_error(ErrorCode::out_of_range, "gguf: {} bytes more than the tensors take", bytes.size());
    }
    const auto now = bytes.first(static_cast<std::size_t>(std::min<std::uint64_t>(bytes.size(), tensors[tensor].bytes - written)));
    MLXN_CHECK(files.back().write(now));
    written += now.size();
    bytes = bytes.subspan(now.size());
    MLXN_CHECK(advance());
  }
  return {};
}

Result<void> GgufWriter::State::finish() {
  if (tensor < tensors.size()) {
    return make_error(ErrorCode::wrong_state, "gguf: finish() is called when tensor '{}' has {} of its {} bytes",
                      printable(tensors[tensor].name), written, tensors[tensor].bytes);
  }
  MLXN_CHECK(close_part());
  // Who finds the first part finds all of them: the old one goes first, the new one comes last.
  if (split) {
    for (io::OutputFile& file : files) MLXN_CHECK(file.move_old_aside());
  }
  for (std::size_t i = files.size(); i > 0; --i) MLXN_CHECK(files[i - 1].publish());
  for (io::OutputFile& file : files) file.settle();
  return {};
}

GgufWriter::GgufWriter(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
GgufWriter::GgufWriter(GgufWriter&&) noexcept = default;
GgufWriter& GgufWriter::operator=(GgufWriter&&) noexcept = default;
GgufWriter::~GgufWriter() = default;

namespace {
Error moved_from() { return make_error(ErrorCode::wrong_state, "gguf: the writer was moved from"); }
}  // namespace

Result<GgufWriter> GgufWriter::create(const std::filesystem::path& target, const GgufWriteOptions& options) noexcept {
  return detail::guarded([&]() -> Result<GgufWriter> {
    if (!target.has_filename()) {
      return make_error(ErrorCode::invalid_argument, "gguf: '{}' names no file", target.string());
    }
    auto state = std::make_unique<State>();
    state->target = target.string();
    state->options = options;
    return GgufWriter(std::move(state));
  });
}

Result<void> GgufWriter::add_scalar(std::string_view key, GgufType type, std::span<const std::byte> bytes) noexcept {
  return detail::guarded([&]() -> Result<void> {
    if (!state_) return moved_from();
    MLXN_CHECK(state_->check_stage(State::Stage::describing, "add()"));
    std::uint32_t alignment = 0;
    if (key == gguf::kAlignmentKey) {
      const bool is_u32 = type == GgufType::u32;
      if (is_u32) std::memcpy(&alignment, bytes.data(), sizeof(alignment));
      if (!gguf::is_alignment(alignment)) {
        return make_error(ErrorCode::invalid_argument, "gguf: {} is {}, wanted a u32 that is a power of two from {} to {}", key,
                          is_u32 ? fmt::format("{}", alignment) : fmt::format("of type {}", to_string(type)), gguf::kMinAlignment,
                          gguf::kMaxAlignment);
      }
    }
    Bytes value;
    append_type(value, type);
    append(value, bytes);
    MLXN_CHECK(state_->add_entry(key, value, bytes.size()));
    if (alignment != 0) state_->alignment = alignment;
    return {};
  });
}

Result<void> GgufWriter::add(std::string_view key, std::string_view text) noexcept {
  return detail::guarded([&]() -> Result<void> {
    if (!state_) return moved_from();
    MLXN_CHECK(state_->check_stage(State::Stage::describing, "add()"));
    if (!is_utf8(text)) return make_error(ErrorCode::invalid_argument, "gguf: the text of '{}' is not UTF-8", printable(key));
    if (key == gguf::kAlignmentKey) return make_error(ErrorCode::invalid_argument, "gguf: {} is a string, wanted a u32", key);
    MLXN_CHECK(state_->check_text(key, text));
    Bytes value;
    append_type(value, GgufType::string);
    append_string(value, text);
    return state_->add_entry(key, value, text.size());
  });
}

Result<void> GgufWriter::add_elements(std::string_view key, GgufType type, std::uint64_t count,
                                      std::span<const std::byte> bytes) noexcept {
  return detail::guarded([&]() -> Result<void> {
    if (!state_) return moved_from();
    MLXN_CHECK(state_->check_stage(State::Stage::describing, "add()"));
    if (key == gguf::kAlignmentKey) return make_error(ErrorCode::invalid_argument, "gguf: {} is an array, wanted a u32", key);
    if (count > state_->options.limits.array_elems) {
      return state_->beyond(fmt::format("elements of '{}'", printable(key)), count, state_->options.limits.array_elems);
    }
    Bytes value;
    append_type(value, GgufType::array);
    append_type(value, type);
    append_number(value, count);
    append(value, bytes);
    return state_->add_entry(key, value, bytes.size());
  });
}

Result<void> GgufWriter::add_strings(std::string_view key, std::span<const std::string> texts) noexcept {
  return detail::guarded([&]() -> Result<void> {
    if (!state_) return moved_from();
    MLXN_TRY(const Bytes bytes, state_->elements_of(key, texts));
    return add_elements(key, GgufType::string, texts.size(), bytes);
  });
}

Result<void> GgufWriter::add(const GgufValue& value) noexcept {
  return detail::guarded([&]() -> Result<void> {
    if (!state_) return moved_from();
    if (!value.is_array()) {
      if (value.type() != GgufType::string) return add_scalar(value.key(), value.type(), value.bytes_);
      MLXN_TRY(const std::string_view text, value.as_string());
      return add(value.key(), text);
    }
    if (value.element_type() == GgufType::array) {
      return make_error(ErrorCode::unsupported, "gguf: the key '{}' holds arrays of arrays", value.key());
    }
    if (value.element_type() != GgufType::string) return add_elements(value.key(), value.element_type(), value.count(), value.bytes_);
    MLXN_TRY(const GgufStrings texts, value.as_strings());
    MLXN_TRY(const Bytes bytes, state_->elements_of(value.key(), texts));
    return add_elements(value.key(), GgufType::string, texts.size(), bytes);
  });
}

Result<void> GgufWriter::add_tensor(std::string_view name, DType type, std::span<const std::uint64_t> ne) noexcept {
  return detail::guarded([&]() -> Result<void> {
    if (!state_) return moved_from();
    MLXN_CHECK(state_->check_stage(State::Stage::describing, "add_tensor()"));
    const std::uint64_t longest = state_->options.lenient_names ? gguf::kMaxLenientNameBytes : gguf::kMaxNameBytes;
    if (name.empty() || name.size() > longest || name.find('\0') != std::string_view::npos || !is_utf8(name)) {
      return make_error(ErrorCode::invalid_argument, "gguf: the tensor name {} of {} bytes, wanted 1 to {} of UTF-8 without a NUL",
                        excerpt(name), name.size(), longest);
    }
    const auto described = [&] { return fmt::format("tensor '{}' [{}]", printable(name), joined(ne)); };
    MLXN_CHECK(check_dtype("gguf", type));
    if (info(type).gguf_id < 0) {
      return make_error(ErrorCode::bad_dtype, "gguf: {} has type {}, which GGUF files do not have", described(), to_string(type));
    }
    if (ne.size() > 4) return make_error(ErrorCode::bad_shape, "gguf: {} has {} dimensions, wanted 0 to 4", described(), ne.size());
    for (const std::uint64_t n : ne) {
      if (n > gguf::kMaxDimension) return make_error(ErrorCode::bad_shape, "gguf: {}: a dimension of {}, wanted at most 2^48", described(), n);
    }
    const std::uint64_t row = ne.empty() ? 1 : ne[0];
    if (row % block_elems(type) != 0) {
      return make_error(ErrorCode::bad_shape, "gguf: {} has rows of {} elements, wanted a multiple of {} for {}", described(), row,
                        block_elems(type), to_string(type));
    }
    const auto product = gguf::product_of_dims(ne);
    const bool empty = std::find(ne.begin(), ne.end(), std::uint64_t{0}) != ne.end();
    const auto bytes = product ? storage_bytes(type, empty ? 0 : *product) : std::nullopt;
    if (!bytes) return make_error(ErrorCode::bad_shape, "gguf: the size of {} passes 64 bits", described());
    NameGuard guard(state_->names, name);
    if (!guard.fresh()) return make_error(ErrorCode::invalid_argument, "gguf: {} was added before", described());
    const GgufLimits& limits = state_->options.limits;
    const std::uint64_t charge = state_->tensors_charge + gguf::tensor_charge(name.size());
    if (!state_->may_split()) {  // otherwise begin() looks at each part
      if (state_->tensors.size() >= limits.tensors) return state_->beyond("tensors", state_->tensors.size() + 1, limits.tensors);
      const std::uint64_t all = state_->entries.charge + charge;
      if (all > limits.metadata_bytes) return state_->beyond("bytes of metadata", all, limits.metadata_bytes);
    }
    std::optional<NameGuard> empty_guard;
    if (*bytes == 0) empty_guard.emplace(state_->empty_names, name);
    state_->tensors.push_back({std::string(name), type, {ne.begin(), ne.end()}, *bytes});
    state_->tensors_charge = charge;
    guard.keep();
    if (empty_guard) empty_guard->keep();
    return {};
  });
}

Result<void> GgufWriter::begin() noexcept {
  if (!state_) return moved_from();
  MLXN_CHECK(state_->check_stage(State::Stage::describing, "begin()"));
  return state_->commit([&]() -> Result<void> {
    State& s = *state_;
    MLXN_CHECK(s.plan_parts());
    MLXN_TRY(const std::uint64_t room, io::free_bytes_beside(s.target));
    if (s.file_bytes > room) {
      return make_error(ErrorCode::io, "{}: {} bytes are to be written, the disk has room for {}", s.target, s.file_bytes, room)
          .with_native_code(ENOSPC);
    }
    s.files.reserve(s.parts.size());
    MLXN_CHECK(s.open_part(0));
    s.stage = State::Stage::writing;
    return s.advance();
  });
}

Result<void> GgufWriter::write(std::span<const std::byte> bytes) noexcept {
  if (!state_) return moved_from();
  MLXN_CHECK(state_->check_stage(State::Stage::writing, "write()"));
  return state_->commit([&] { return state_->write(bytes); });
}

Result<void> GgufWriter::write_tensor(std::string_view name, std::span<const std::byte> bytes) noexcept {
  if (!state_) return moved_from();
  MLXN_CHECK(state_->check_stage(State::Stage::writing, "write_tensor()"));
  return detail::guarded([&]() -> Result<void> {
    // An empty tensor is passed by as soon as the one before it is whole.
    if (bytes.empty() && state_->empty_names.contains(name)) return {};
    const bool any = state_->tensor < state_->tensors.size();
    if (!any || state_->tensors[state_->tensor].name != name || state_->written != 0) {
      return make_error(ErrorCode::wrong_state, "gguf: the bytes of tensor '{}' came, wanted {}", printable(name),
                        any ? fmt::format("those of '{}' from byte {} on", printable(state_->tensors[state_->tensor].name),
                                          state_->written)
                            : std::string("no more"));
    }
    if (bytes.size() != state_->tensors[state_->tensor].bytes) {
      return make_error(ErrorCode::bad_shape, "gguf: {} bytes came for tensor '{}', wanted {}", bytes.size(), printable(name),
                        state_->tensors[state_->tensor].bytes);
    }
    return write(bytes);
  });
}

Result<void> GgufWriter::finish() noexcept {
  if (!state_) return moved_from();
  MLXN_CHECK(state_->check_stage(State::Stage::writing, "finish()"));
  return state_->commit([&]() -> Result<void> {
    MLXN_CHECK(state_->finish());
    state_->stage = State::Stage::finished;
    return {};
  });
}

std::uint64_t GgufWriter::file_bytes() const noexcept { return state_ ? state_->file_bytes : 0; }
std::span<const std::string> GgufWriter::paths() const noexcept {
  return state_ ? std::span<const std::string>(state_->paths) : std::span<const std::string>();
}

Result<std::string> gguf_part_path(std::string_view prefix, std::uint64_t number, std::uint64_t count) noexcept {
  return detail::guarded([&]() -> Result<std::string> {
    if (number < 1 || number > count || count > gguf::kMaxParts) {
      return make_error(ErrorCode::out_of_range, "gguf: part {} of {}, wanted 1 to at most {}", number, count, gguf::kMaxParts);
    }
    return fmt::format("{}-{:05}-of-{:05}.gguf", prefix, number, count);
  });
}

}  // namespace mlxn
