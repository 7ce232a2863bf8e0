#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/join.h"
#include "cli/commands.h"
#include "formats/printable.h"
#include "mlxn/gguf.h"
#include "mlxn/quant.h"

namespace mlxn::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::uint64_t kShownElems = 8;    // of an array, in text
constexpr std::size_t kShownBytes = 200;    // of a string, in text
constexpr std::uint64_t kJsonElems = 1024;  // longer arrays are described by their count

std::string one_line(std::string_view text) {
  const bool cut = text.size() > kShownBytes;
  return fmt::format("\"{}\"{}", printable(text.substr(0, kShownBytes)), cut ? "..." : "");
}

std::string type_of(const GgufValue& value) {
  if (!value.is_array()) return std::string(to_string(value.type()));
  return fmt::format("{}[{}]", to_string(value.element_type()), value.count());
}

/// Element `index` of a value of fixed-size type.
Json number(const GgufValue& value, std::uint64_t index) {
  switch (value.element_type()) {
    case GgufType::boolean:
      return value.bool_at(index).value();
    case GgufType::f32:
      return static_cast<float>(value.float_at(index).value());
    case GgufType::f64:
      return value.float_at(index).value();
    case GgufType::u8:
    case GgufType::u16:
    case GgufType::u32:
    case GgufType::u64:
      return value.uint_at(index).value();
    case GgufType::i8:
    case GgufType::i16:
    case GgufType::i32:
    case GgufType::i64:
      return value.int_at(index).value();
    case GgufType::string:
    case GgufType::array:
      break;
  }
  return nullptr;
}

/// The same in text: a float of 32 bits with the digits that it needs.
std::string number_text(const GgufValue& value, std::uint64_t index) {
  if (value.element_type() != GgufType::f32) return number(value, index).dump();
  return fmt::format("{}", static_cast<float>(value.float_at(index).value()));
}

std::string text_of(const GgufValue& value) {
  if (!value.is_array()) {
    return value.type() == GgufType::string ? one_line(value.as_string().value()) : number_text(value, 0);
  }
  if (value.element_type() == GgufType::array) return "(nested)";
  const auto strings = value.as_strings();
  std::string out = "[";
  for (std::uint64_t i = 0; i < std::min(value.count(), kShownElems); ++i) {
    if (i > 0) out += ", ";
    out += strings ? one_line((*strings)[i]) : number_text(value, i);
  }
  return out + (value.count() > kShownElems ? ", ...]" : "]");
}

Json to_json(const GgufValue& value) {
  Json out = {{"key", value.key()}, {"type", to_string(value.type())}};
  if (!value.is_array()) {
    out["value"] = value.type() == GgufType::string ? Json(value.as_string().value()) : number(value, 0);
    return out;
  }
  out["element_type"] = to_string(value.element_type());
  out["count"] = value.count();
  if (value.element_type() == GgufType::array || value.count() > kJsonElems) return out;
  const auto strings = value.as_strings();
  Json elements = Json::array();
  for (std::uint64_t i = 0; i < value.count(); ++i) {
    elements.push_back(strings ? Json((*strings)[i]) : number(value, i));
  }
  out["value"] = std::move(elements);
  return out;
}

struct Totals {
  std::uint64_t elems = 0, bytes = 0;
  std::map<std::string, std::uint64_t> types;  // number of tensors
};

Totals add_up(const GgufFile& file) {
  Totals out;
  for (const GgufTensor& t : file.tensors()) {
    if (t.dtype) out.elems += t.elems;
    out.bytes += t.bytes;
    ++out.types[type_name(t)];
  }
  return out;
}

/// What a check has read.
struct Checked {
  std::uint64_t tensors = 0, bytes = 0;
  std::uint64_t left = 0;  // tensors of types without kernels, whose blocks cannot be judged
};

std::string as_text(const Checked& c) {
  const std::string left = c.left == 0 ? "" : fmt::format("; {} of types without kernels were not read", c.left);
  return fmt::format("check passed: all {} of {} tensors read, every scale is a number{}\n", human_bytes(c.bytes), c.tensors, left);
}

std::string as_json(const GgufFile& file, bool tensors, const std::optional<Checked>& checked) {
  const Totals totals = add_up(file);
  Json out = {{"file", file.label()},
              {"version", file.version()},
              {"alignment", file.alignment()},
              {"file_bytes", file.file_bytes()},
              {"data_offset", file.data_offset()},
              {"metadata", Json::array()},
              {"tensor_count", file.tensors().size()},
              {"parameters", totals.elems},
              {"tensor_bytes", totals.bytes},
              {"tensor_types", totals.types},
              {"notes", file.notes()}};
  if (file.part_count() > 1) {
    for (std::uint32_t i = 0; i < file.part_count(); ++i) out["parts"].push_back(file.part_label(i));
  }
  for (const GgufValue& value : file.values()) out["metadata"].push_back(to_json(value));
  if (tensors) {
    Json list = Json::array();
    for (const GgufTensor& t : file.tensors()) {
      list.push_back({{"name", t.name},
                      {"type", type_name(t)},
                      {"ne", t.dims()},
                      {"bytes", t.bytes},
                      {"offset", t.offset},
                      {"absolute_offset", t.absolute_offset}});
      if (file.part_count() > 1) list.back()["part"] = t.part;
    }
    out["tensors"] = std::move(list);
  }
  if (checked) out["checked"] = {{"tensors", checked->tensors}, {"bytes", checked->bytes}, {"not_read", checked->left}};
  // Token texts need not be UTF-8; JSON must be.
  return out.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string as_text(const GgufFile& file, bool tensors) {
  const Totals totals = add_up(file);
  std::string out =
      fmt::format("{}: GGUF version {}, {}\n", file.label(), file.version(), human_bytes(file.file_bytes()));
  std::size_t key_width = 0, name_width = 0, type_width = 0;
  for (const GgufValue& v : file.values()) {
    key_width = std::min<std::size_t>(std::max(key_width, v.key().size()), 48);
    type_width = std::max(type_width, type_of(v).size());
  }
  if (file.part_count() > 1) {
    out += fmt::format("{} parts\n", file.part_count());
    for (std::uint32_t i = 0; i < file.part_count(); ++i) out += fmt::format("  {}\n", file.part_label(i));
  }
  out += fmt::format("{} metadata entries\n", file.values().size());
  for (const GgufValue& v : file.values()) {
    out += fmt::format("  {:{}}  {:{}}  {}\n", v.key(), key_width, type_of(v), type_width, text_of(v));
  }
  out += fmt::format("{} tensors, {} parameters, {}", file.tensors().size(), totals.elems,
                     human_bytes(totals.bytes));
  for (const auto& [type, count] : totals.types) out += fmt::format(", {} x {}", count, type);
  out += '\n';
  if (tensors) {
    for (const GgufTensor& t : file.tensors()) name_width = std::max(name_width, one_line(t.name).size());
    for (const GgufTensor& t : file.tensors()) {
      out += fmt::format("  {:{}}  {:8}  [{}]  {} at {}", one_line(t.name), name_width, type_name(t),
                         joined(t.dims()), human_bytes(t.bytes), t.absolute_offset);
      if (file.part_count() > 1) out += fmt::format(" of part {}", t.part + 1);
      out += '\n';
    }
  }
  for (const std::string& note : file.notes()) out += fmt::format("note: {}\n", note);
  return out;
}

/// Reads every block and fails at the first one with a scale that is no number.
Result<Checked> check_blocks(const GgufFile& file) {
  Checked checked;
  for (const GgufTensor* t : file.tensors_by_offset()) {
    if (!t->dtype || !is_weight_type(*t->dtype)) {
      ++checked.left;
      continue;
    }
    MLXN_TRY(const auto blocks, file.data(*t));
    const auto valid = validate_blocks(*t->dtype, blocks);
    if (!valid) return valid.error().with_context(fmt::format("{}: tensor '{}'", file.label(), printable(t->name)));
    file.drop_pages(*t);
    ++checked.tensors;
    checked.bytes += t->bytes;
  }
  return checked;
}

}  // namespace

int run_inspect(const InspectFlags& flags) {
  const auto file = GgufFile::open(flags.model);
  if (!file) return fail(file.error());
  std::optional<Checked> checked;
  if (flags.check) {
    const auto valid = check_blocks(*file);
    if (!valid) return fail(valid.error());
    checked = *valid;
  }
  if (flags.json) return print(as_json(*file, flags.tensors, checked)) ? kOk : kFailed;
  return print(as_text(*file, flags.tensors) + (checked ? as_text(*checked) : "")) ? kOk : kFailed;
}

}  // namespace mlxn::cli
