#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/join.h"
#include "cli/commands.h"
#include "formats/printable.h"
#include "mlxn/tokenizer.h"

namespace mlxn::cli {
namespace {

using Clock = std::chrono::steady_clock;

Result<std::string> as_text(const Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
  std::string out;
  for (const TokenId id : ids) {
    MLXN_TRY(const std::string piece, tokenizer.piece(id, true));
    out += fmt::format("{:6} -> '{}'\n", id, printable(piece));
  }
  return out;
}

Result<std::string> as_json(const Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
  nlohmann::ordered_json out = {
      {"count", ids.size()}, {"ids", ids}, {"pieces", nlohmann::ordered_json::array()}};
  for (const TokenId id : ids) {
    MLXN_TRY(std::string piece, tokenizer.piece(id, true));
    out["pieces"].push_back(std::move(piece));
  }
  // A piece may be part of a character; JSON must be UTF-8.
  return out.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

Result<int> tokenize(const TokenizeFlags& flags) {
  std::string text = flags.prompt.value_or("");
  if (flags.prompt_file) {
    MLXN_TRY(text, read_text(*flags.prompt_file));
  }
  MLXN_TRY(const GgufFile file, GgufFile::open(flags.model));
  MLXN_TRY(const Tokenizer tokenizer, Tokenizer::from_gguf(file));
  const EncodeOptions options{
      .add_bos = !flags.no_bos, .add_eos = !flags.no_bos, .parse_special = !flags.no_parse_special};
  const auto begin = Clock::now();
  MLXN_TRY(const std::vector<TokenId> ids, tokenizer.encode(text, options));
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  for (const std::string& note : tokenizer.notes()) complain(note);
  std::string out;
  if (flags.ids) {
    out = fmt::format("[{}]\n", joined(ids));
  } else {
    MLXN_TRY(out, flags.json ? as_json(tokenizer, ids) : as_text(tokenizer, ids));
  }
  if (!print(out)) return kFailed;
  if (flags.stats) {
    show(fmt::format("{} bytes, {} tokens, {:.3f} s, {:.1f} MB/s\n", text.size(), ids.size(), seconds,
                     static_cast<double>(text.size()) / seconds * 1e-6));
  }
  return kOk;
}

}  // namespace

int run_tokenize(const TokenizeFlags& flags) {
  if (flags.prompt.has_value() == flags.prompt_file.has_value()) {
    complain("tokenize: give the text with either -p or -f");
    return kBadUsage;
  }
  const Result<int> result = detail::guarded([&] { return tokenize(flags); });
  return result ? *result : fail(result.error());
}

}  // namespace mlxn::cli
