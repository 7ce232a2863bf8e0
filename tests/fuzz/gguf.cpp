#include "mlxn/gguf.h"

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

}  // namespace

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
    if (const auto a = gguf_architecture(*file); !a && !is_fair(a.error())) return describe(a.error());
    if (const auto t = Tokenizer::from_gguf(*file); !t && !is_fair(t.error())) return describe(t.error());
  }
  return {};
}

}  // namespace mlxn::fuzz

MLXN_FUZZ_ENTRY(mlxn::fuzz::check_gguf)
