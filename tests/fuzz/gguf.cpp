#include "mlxn/gguf.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "mlxn/tokenizer.h"
#include "tests/fuzz/targets.h"

namespace mlxn::fuzz {
namespace {

/// Errors that a file may cause; anything else is the library's own fault.
bool is_fair(const Error& error) {
  return error.code() == ErrorCode::corrupt_file || error.code() == ErrorCode::limit_exceeded ||
         error.code() == ErrorCode::unsupported || error.code() == ErrorCode::not_found;
}

std::string describe(const Error& error) {
  return std::string(to_string(error.code())) + " " + std::string(error.rule()) + ": " +
         std::string(error.message());
}

std::string check_values(const GgufFile& file) {
  for (const GgufValue& value : file.values()) {
    if (file.find(value.key()) != &value) return "a key is not found again";
    const std::uint64_t last = value.count() == 0 ? 0 : value.count() - 1;
    (void)value.uint_at(last);
    (void)value.int_at(last);
    (void)value.float_at(last);
    (void)value.bool_at(last);
    (void)value.as_string();
    if (const auto strings = value.as_strings()) {
      std::uint64_t sum = 0;
      for (const std::string_view s : *strings) {
        for (const char c : s) sum += static_cast<unsigned char>(c);
      }
      if (strings->size() != value.count() || sum == 1u << 31) return "the strings do not add up";
    }
  }
  return {};
}

std::string check_tensors(const GgufFile& file) {
  if (file.tensors_by_offset().size() != file.tensors().size()) return "tensors were lost in sorting";
  for (const GgufTensor& t : file.tensors()) {
    if (file.find_tensor(t.name) != &t) return "a tensor is not found again";
    const auto data = file.data(t);
    if (!data) {
      if (data.error().code() != ErrorCode::unsupported || t.dtype)
        return "data of a checked tensor: " + describe(data.error());
      continue;
    }
    std::uint64_t sum = 0;
    for (const std::byte b : *data) sum += std::to_integer<std::uint64_t>(b);  // the sanitizer judges
    if (data->size() != t.bytes || sum > 255 * t.bytes) return "a tensor's bytes do not add up";
  }
  return {};
}

/// Through a source that gives bytes only when asked, the file is the same.
std::string check_source(const GgufFile& file, std::span<const std::uint8_t> input, const GgufOptions& options) {
  GgufSource source;
  source.label = "source";
  source.bytes = input.size();
  source.read = [&](std::uint64_t offset, std::span<std::byte> out) -> Result<void> {
    if (offset > input.size() || out.size() > input.size() - offset) return Error(ErrorCode::internal, "a read beyond the file");
    std::memcpy(out.data(), input.data() + offset, out.size());
    return {};
  };
  const auto other = GgufFile::open(source, options);
  if (!other) return "through a source: " + describe(other.error());
  if (other->values().size() != file.values().size() || other->tensors().size() != file.tensors().size()) {
    return "a source gives another file";
  }
  for (const GgufTensor& t : other->tensors()) {
    if (!t.dtype) continue;
    std::vector<std::byte> bytes(t.bytes);
    if (const auto read = other->read(t, 0, bytes); !read) return "through a source: " + describe(read.error());
    const auto data = file.data(t);
    if (!data || !std::equal(bytes.begin(), bytes.end(), data->begin(), data->end())) return "a source gives other bytes";
  }
  return {};
}

}  // namespace

std::string check_gguf_parts(std::span<const std::uint8_t> input) {
  std::vector<GgufFile> parts;
  while (input.size() >= 4) {
    std::uint32_t length = 0;
    std::memcpy(&length, input.data(), sizeof(length));
    input = input.subspan(sizeof(length));
    const auto bytes = input.first(std::min<std::size_t>(length, input.size()));
    input = input.subspan(bytes.size());
    auto part = GgufFile::parse(std::as_bytes(bytes));
    if (!part) return is_fair(part.error()) ? std::string() : describe(part.error());
    parts.push_back(*std::move(part));
  }
  if (parts.empty()) return {};
  const auto file = GgufFile::join(parts);
  if (!file) return is_fair(file.error()) && !file.error().rule().empty() ? std::string() : describe(file.error());
  if (std::string broken = check_values(*file); !broken.empty()) return broken;
  return check_tensors(*file);
}

std::string check_gguf(std::span<const std::uint8_t> input) {
  for (const bool strict : {false, true}) {
    GgufOptions options;
    options.strict = strict;
    options.lenient_names = !strict;
    const auto file = GgufFile::parse(std::as_bytes(input), options);
    if (!file) {
      if (!is_fair(file.error()) || file.error().rule().empty()) return describe(file.error());
      continue;
    }
    if (std::string broken = check_values(*file); !broken.empty()) return broken;
    if (std::string broken = check_tensors(*file); !broken.empty()) return broken;
    if (std::string broken = check_source(*file, input, options); !broken.empty()) return broken;
    if (const auto a = gguf_architecture(*file); !a && !is_fair(a.error())) return describe(a.error());
    if (const auto t = Tokenizer::from_gguf(*file); !t && !is_fair(t.error())) return describe(t.error());
  }
  return {};
}

}  // namespace mlxn::fuzz

MLXN_FUZZ_ENTRY(mlxn::fuzz::check_gguf)
