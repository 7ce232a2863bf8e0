#include <algorithm>

#include "base/call_user.h"
#include "base/check_value.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/join.h"
#include "formats/gguf/cursor.h"
#include "formats/gguf/parts.h"
#include "formats/gguf/state.h"

namespace mlxn {
namespace {

using detail::GgufState;

Error file_moved_from() noexcept { return make_error(ErrorCode::wrong_state, "gguf: the file was moved from"); }

Result<void> read_source(const GgufSource& source, std::uint64_t offset, std::span<std::byte> out) {
  const auto done = call_user("gguf: the function `read`", [&] { return source.read(offset, out); });
  if (!done) return done.error().with_context(source.label);
  return {};
}

/// No more than any model has, since there is one number for each whatever the file holds.
Result<void> check_layer_count(const GgufFile& file, std::string_view key, std::uint64_t layers) noexcept {
  if (layers <= GgufFile::kMostLayers) return {};
  return make_error(ErrorCode::limit_exceeded, "{}: key '{}' was asked for {} layers, at most {}", file.label(), key, layers,
                    GgufFile::kMostLayers);
}

Result<void> check_options(const GgufOptions& options) noexcept {
  MLXN_CHECK(check_enum("gguf", "source", options.source, GgufOptions::Source::copy));
  return check_enum("gguf", "parts", options.parts, GgufOptions::Parts::single);
}

/// At least one element per layer: a scalar serves all of them.
Result<void> check_layers(const GgufValue& value, std::uint64_t layers) noexcept {
  if (!value.is_array() || value.count() >= layers) return {};
  return gguf::corrupt("V15", "key '{}' has {} elements for {} layers", value.key(), value.count(), layers);
}

std::string describe(std::span<const std::uint64_t> ne) { return fmt::format("[{}]", joined(ne)); }

}  // namespace

std::string type_name(const GgufTensor& tensor) noexcept {
  try {
    return tensor.dtype ? std::string(to_string(*tensor.dtype))
                        : fmt::format("unknown type id {}", tensor.type_id);
  } catch (...) {
    return {};
  }
}

namespace {

Result<std::shared_ptr<const GgufState>> open_file(const std::filesystem::path& path, const GgufOptions& options) {
  const bool copy = options.source == GgufOptions::Source::copy;
  auto file = io::MappedFile::open(path, copy ? io::MappedFile::Mode::copy : io::MappedFile::Mode::map);
  if (!file) {
    const Error& error = file.error();
    return error.code() == ErrorCode::corrupt_file ? Error(error.code(), error.message(), "V01") : error;
  }
  const auto state = std::make_shared<GgufState>();
  state->file = *file;
  state->owner = *file;
  state->bytes = (*file)->bytes();
  state->size = state->bytes.size();
  state->label = (*file)->path();
  if (auto parsed = state->parse(options); !parsed) return parsed.error().with_context(state->label);
  return std::shared_ptr<const GgufState>(state);
}

}  // namespace

Result<GgufFile> GgufFile::open(const std::filesystem::path& path, const GgufOptions& options) noexcept {
  return detail::guarded([&]() -> Result<GgufFile> {
    MLXN_CHECK(check_options(options));
    MLXN_TRY(auto state, open_file(path, options));
    GgufFile first(std::move(state));
    if (options.parts == GgufOptions::Parts::single) return first;
    const auto names = gguf::find_parts(first);
    if (!names) return names.error().with_context(first.label());
    if (names->empty()) return first;
    std::vector<GgufFile> parts = {first};
    for (std::size_t i = 1; i < names->size(); ++i) {
      auto part = open_file((*names)[i], options);
      if (!part) return part.error().with_context(fmt::format("part {} of {}", i + 1, names->size()));
      parts.push_back(GgufFile(*std::move(part)));
    }
    auto joined = join(parts);
    if (!joined) return joined.error().with_context(first.label());
    return joined;
  });
}

Result<GgufFile> GgufFile::open(GgufSource source, const GgufOptions& options) noexcept {
  return detail::guarded([&]() -> Result<GgufFile> {
    MLXN_CHECK(check_options(options));
    constexpr std::uint64_t kFirstRead = std::uint64_t{1} << 16;
    if (!source.read) return make_error(ErrorCode::invalid_argument, "gguf: the source '{}' has no function to read", source.label);
    const auto shared = std::make_shared<const GgufSource>(std::move(source));
    const auto header = std::make_shared<std::vector<std::byte>>();
    // What was read stays as it is; only more of the file is added, until the header ends within it.
    for (std::uint64_t wanted = kFirstRead;;) {
      const std::size_t have = header->size();
      header->resize(static_cast<std::size_t>(std::min(shared->bytes, wanted)));
      if (const auto missing = std::span(*header).subspan(have); !missing.empty()) {
        MLXN_CHECK(read_source(*shared, have, missing));
      }
      const auto state = std::make_shared<GgufState>();
      state->bytes = *header;
      state->size = shared->bytes;
      state->owner = header;
      state->source = shared;
      state->label = shared->label;
      std::uint64_t more = 0;
      auto parsed = state->parse(options, &more);
      if (parsed) {
        // Names and values are copies.
        state->bytes = {};
        state->owner = shared;
        return GgufFile(state);
      }
      if (more <= header->size()) return parsed.error().with_context(shared->label);
      wanted = std::max(more, checked_mul(header->size(), 4).value_or(more));
    }
  });
}

Result<GgufFile> GgufFile::parse(std::span<const std::byte> bytes, const GgufOptions& options,
                                 std::shared_ptr<const void> owner) noexcept {
  return detail::guarded([&]() -> Result<GgufFile> {
    MLXN_CHECK(check_options(options));
    const auto state = std::make_shared<GgufState>();
    state->owner = std::move(owner);
    state->bytes = bytes;
    state->size = bytes.size();
    state->label = "memory";
    MLXN_CHECK(state->parse(options));
    return GgufFile(state);
  });
}

Result<GgufFile> GgufFile::join(std::span<const GgufFile> parts) noexcept {
  return detail::guarded([&]() -> Result<GgufFile> {
    const auto state = std::make_shared<GgufState>();
    const auto owners = std::make_shared<std::vector<std::shared_ptr<const void>>>();
    for (const GgufFile& part : parts) {
      if (!part.defined()) return file_moved_from();
      if (part.part_count() != 1) return make_error(ErrorCode::invalid_argument, "gguf: '{}' is itself of {} parts", part.label(), part.part_count());
      state->parts.push_back(part.state_);
      owners->push_back(part.state_->owner);
    }
    state->owner = owners;
    MLXN_CHECK(state->join());
    return GgufFile(state);
  });
}

std::uint32_t GgufFile::version() const noexcept { return state_ ? state_->first().version : 0; }
std::uint64_t GgufFile::alignment() const noexcept { return state_ ? state_->first().alignment : 0; }
std::uint64_t GgufFile::file_bytes() const noexcept { return state_ ? state_->size : 0; }
std::uint64_t GgufFile::data_offset() const noexcept { return state_ ? state_->first().data_offset : 0; }
std::string_view GgufFile::label() const noexcept {
  if (!state_) return {};
  return state_->first().label;
}
std::uint32_t GgufFile::part_count() const noexcept {
  if (!state_) return 0;
  return state_->parts.empty() ? 1 : static_cast<std::uint32_t>(state_->parts.size());
}
std::string_view GgufFile::part_label(std::uint32_t part) const noexcept {
  return part < part_count() ? std::string_view(state_->part(part).label) : std::string_view();
}
std::span<const std::string> GgufFile::notes() const noexcept {
  if (!state_) return {};
  return state_->notes;
}
std::span<const GgufValue> GgufFile::values() const noexcept {
  if (!state_) return {};
  return state_->first().values;
}
std::span<const GgufTensor> GgufFile::tensors() const noexcept {
  if (!state_) return {};
  return state_->tensors;
}
std::span<const GgufTensor* const> GgufFile::tensors_by_offset() const noexcept {
  if (!state_) return {};
  return state_->tensors_by_offset;
}
std::shared_ptr<const void> GgufFile::keep_alive() const noexcept { return state_ ? state_->owner : nullptr; }

const GgufValue* GgufFile::find(std::string_view key) const noexcept {
  if (!state_) return nullptr;
  const GgufState& state = state_->first();
  const auto& order = state.values_by_key;
  const auto at = std::lower_bound(
      order.begin(), order.end(), key,
      [&](std::uint32_t i, std::string_view wanted) { return state.values[i].key() < wanted; });
  return at != order.end() && state.values[*at].key() == key ? &state.values[*at] : nullptr;
}

const GgufTensor* GgufFile::find_tensor(std::string_view name) const noexcept {
  if (!state_) return nullptr;
  const auto& order = state_->tensors_by_name;
  const auto at = std::lower_bound(
      order.begin(), order.end(), name,
      [&](std::uint32_t i, std::string_view wanted) { return state_->tensors[i].name < wanted; });
  return at != order.end() && state_->tensors[*at].name == name ? &state_->tensors[*at] : nullptr;
}

Error GgufFile::no_key(std::string_view key) const noexcept {
  if (!state_) return file_moved_from();
  return make_error(ErrorCode::not_found, "{}: there is no key '{}'", label(), key);
}

Result<std::uint64_t> GgufFile::get_uint(std::string_view key) const noexcept {
  const GgufValue* value = find(key);
  return value == nullptr ? no_key(key) : named(value->as_uint());
}

Result<std::int64_t> GgufFile::get_int(std::string_view key) const noexcept {
  const GgufValue* value = find(key);
  return value == nullptr ? no_key(key) : named(value->as_int());
}

Result<double> GgufFile::get_float(std::string_view key) const noexcept {
  const GgufValue* value = find(key);
  return value == nullptr ? no_key(key) : named(value->as_float());
}

Result<bool> GgufFile::get_bool(std::string_view key) const noexcept {
  const GgufValue* value = find(key);
  return value == nullptr ? no_key(key) : named(value->as_bool());
}

Result<std::string_view> GgufFile::get_string(std::string_view key) const noexcept {
  const GgufValue* value = find(key);
  return value == nullptr ? no_key(key) : named(value->as_string());
}

Result<GgufStrings> GgufFile::get_strings(std::string_view key) const noexcept {
  const GgufValue* value = find(key);
  return value == nullptr ? no_key(key) : named(value->as_strings());
}

Result<std::uint64_t> GgufFile::get_uint_or(std::string_view key, std::uint64_t fallback) const noexcept {
  return defined() && find(key) == nullptr ? fallback : get_uint(key);
}

Result<std::int64_t> GgufFile::get_int_or(std::string_view key, std::int64_t fallback) const noexcept {
  return defined() && find(key) == nullptr ? fallback : get_int(key);
}

Result<double> GgufFile::get_float_or(std::string_view key, double fallback) const noexcept {
  return defined() && find(key) == nullptr ? fallback : get_float(key);
}

Result<bool> GgufFile::get_bool_or(std::string_view key, bool fallback) const noexcept {
  return defined() && find(key) == nullptr ? fallback : get_bool(key);
}

Result<std::string_view> GgufFile::get_string_or(std::string_view key,
                                                 std::string_view fallback) const noexcept {
  return defined() && find(key) == nullptr ? fallback : get_string(key);
}

Result<std::vector<std::uint64_t>> GgufFile::get_uints_per_layer(std::string_view key,
                                                                 std::uint64_t layers) const noexcept {
  return detail::guarded([&]() -> Result<std::vector<std::uint64_t>> {
    const GgufValue* value = find(key);
    if (value == nullptr) return no_key(key);
    MLXN_CHECK(check_layer_count(*this, key, layers));
    if (const auto enough = check_layers(*value, layers); !enough) return enough.error().with_context(label());
    std::vector<std::uint64_t> out;
    for (std::uint64_t i = 0; i < layers; ++i) {
      MLXN_TRY(const std::uint64_t element, named(value->uint_at(i)));
      out.push_back(element);
    }
    return out;
  });
}

Result<std::vector<std::uint64_t>> GgufFile::get_uints_per_layer_or(std::string_view key,
                                                                    std::uint64_t layers,
                                                                    std::uint64_t fallback) const noexcept {
  if (!defined() || find(key) != nullptr) return get_uints_per_layer(key, layers);
  return detail::guarded([&]() -> Result<std::vector<std::uint64_t>> {
    MLXN_CHECK(check_layer_count(*this, key, layers));
    return std::vector<std::uint64_t>(static_cast<std::size_t>(layers), fallback);
  });
}

Result<std::vector<bool>> GgufFile::get_bools_per_layer(std::string_view key,
                                                        std::uint64_t layers) const noexcept {
  return detail::guarded([&]() -> Result<std::vector<bool>> {
    const GgufValue* value = find(key);
    if (value == nullptr) return no_key(key);
    MLXN_CHECK(check_layer_count(*this, key, layers));
    if (const auto enough = check_layers(*value, layers); !enough) return enough.error().with_context(label());
    std::vector<bool> out;
    for (std::uint64_t i = 0; i < layers; ++i) {
      MLXN_TRY(const bool element, named(value->bool_at(i)));
      out.push_back(element);
    }
    return out;
  });
}

Result<const GgufTensor*> GgufFile::expect_tensor(std::string_view name,
                                                  std::initializer_list<std::uint64_t> ne) const noexcept {
  return detail::guarded([&]() -> Result<const GgufTensor*> {
    if (!state_) return file_moved_from();
    const GgufTensor* tensor = find_tensor(name);
    if (tensor == nullptr)
      return make_error(ErrorCode::not_found, "{}: there is no tensor '{}'", label(), name);
    if (ne.size() > tensor->ne.size()) {
      return make_error(ErrorCode::invalid_argument, "gguf: {} dimensions were expected of '{}'", ne.size(),
                        name);
    }
    for (std::size_t d = 0; d < tensor->ne.size(); ++d) {
      if (tensor->ne[d] == (d < ne.size() ? ne.begin()[d] : 1)) continue;
      return gguf::corrupt("V16", "tensor '{}' has dimensions {}, the metadata wants {}", name,
                           describe(tensor->dims()), describe({ne.begin(), ne.size()}))
          .with_context(label());
    }
    return tensor;
  });
}

/// The struct is the caller's copy, and perhaps of another file.
Result<void> GgufFile::check_extent(const GgufTensor& tensor) const noexcept {
  return detail::guarded([&]() -> Result<void> {
    if (!state_) return file_moved_from();
    if (!tensor.dtype) {
      return make_error(ErrorCode::unsupported, "{}: tensor '{}' has {}", label(), tensor.name,
                        type_name(tensor));
    }
    if (tensor.part >= part_count()) {
      return make_error(ErrorCode::out_of_range, "{}: tensor '{}' is in part {} of {}", label(), tensor.name, tensor.part,
                        part_count());
    }
    const GgufState& part = state_->part(tensor.part);
    if (tensor.bytes > 0 && (tensor.absolute_offset > part.size || tensor.bytes > part.size - tensor.absolute_offset)) {
      return make_error(ErrorCode::out_of_range,
                        "{}: tensor '{}' takes {} bytes from byte {}, the file has {}", part.label, tensor.name,
                        tensor.bytes, tensor.absolute_offset, part.size);
    }
    return {};
  });
}

Result<std::span<const std::byte>> GgufFile::data(const GgufTensor& tensor) const noexcept {
  return detail::guarded([&]() -> Result<std::span<const std::byte>> {
    MLXN_CHECK(check_extent(tensor));
    if (tensor.bytes == 0) return std::span<const std::byte>();
    const GgufState& part = state_->part(tensor.part);
    if (part.source) {
      return make_error(ErrorCode::unsupported, "{}: the bytes of tensor '{}' are not in place, wanted read()", part.label, tensor.name);
    }
    if (part.file) MLXN_CHECK(part.file->check_size());
    return part.bytes.subspan(static_cast<std::size_t>(tensor.absolute_offset), static_cast<std::size_t>(tensor.bytes));
  });
}

bool GgufFile::in_place() const noexcept {
  const auto is_source = [](const auto& part) { return part->source != nullptr; };
  return state_ && !state_->source && std::none_of(state_->parts.begin(), state_->parts.end(), is_source);
}

Result<void> GgufFile::read(const GgufTensor& tensor, std::uint64_t offset, std::span<std::byte> out) const noexcept {
  return detail::guarded([&]() -> Result<void> {
    MLXN_CHECK(check_extent(tensor));
    if (offset > tensor.bytes || out.size() > tensor.bytes - offset) {
      return make_error(ErrorCode::out_of_range, "{}: {} bytes from byte {} of tensor '{}', which has {}", label(), out.size(), offset,
                        tensor.name, tensor.bytes);
    }
    if (out.empty()) return {};
    const GgufState& part = state_->part(tensor.part);
    if (part.source) return read_source(*part.source, tensor.absolute_offset + offset, out);
    MLXN_TRY(const auto bytes, data(tensor));
    std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(offset), out.size(), out.begin());
    return {};
  });
}

void GgufFile::drop_pages(const GgufTensor& tensor) const noexcept {
  if (tensor.part >= part_count()) return;
  const GgufState& part = state_->part(tensor.part);
  if (part.file) part.file->drop_pages(tensor.absolute_offset, tensor.bytes);
}

void GgufFile::will_need(const GgufTensor& tensor) const noexcept {
  if (tensor.part >= part_count()) return;
  const GgufState& part = state_->part(tensor.part);
  if (part.file) part.file->will_need(tensor.absolute_offset, tensor.bytes);
}

}  // namespace mlxn
