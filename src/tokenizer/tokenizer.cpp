#include "mlxn/tokenizer.h"

#include <algorithm>
#include <array>
#include <deque>

#include "base/error.h"
#include "formats/gguf/cursor.h"
#include "formats/named.h"
#include "formats/printable.h"
#include "formats/utf8.h"
#include "tokenizer/bpe.h"
#include "tokenizer/sentencepiece.h"
#include "tokenizer/special_tokens.h"

namespace mlxn {

struct detail::TokenizerState {
  std::string model;
  tokenizer::Vocabulary vocabulary;
  tokenizer::SpecialTokens special;
  std::unique_ptr<const tokenizer::Family> family;
  std::optional<TokenId> bos, eos, eot, unknown;
  bool adds_bos = false, adds_eos = false, adds_space = false;
  std::vector<TokenId> ends;  // of generation, sorted
  std::vector<std::string> notes;

  Result<void> read_settings(const GgufFile& file, const tokenizer::Defaults& defaults);
  Result<std::optional<TokenId>> read_id(const GgufFile& file, std::string_view name,
                                         std::optional<TokenId> fallback);
  Result<void> find_ends(const GgufFile& file);
  /// Appends the tokens of a text given in parts.
  Result<void> encode(std::span<const TextPart> parts, std::vector<TokenId>& out) const;
  [[nodiscard]] std::vector<TokenId> strips_right(const GgufFile& file) const;  // ascending

  /// Appends what a token stands for. `at_start` says whether a space at its beginning was added by encode().
  Result<void> append(TokenId id, const DecodeOptions& options, bool& at_start, std::string& out) const;
};

namespace {

using detail::TokenizerState;
using tokenizer::Fragment;

constexpr std::size_t kMaxText = std::size_t{1} << 30;

Error moved_from() noexcept { return make_error(ErrorCode::wrong_state, "tokenizer: it was moved from"); }

// Texts by which models name the end of a turn, most specific first, for files that give no eot_token_id.
constexpr std::array<std::string_view, 9> kTurnEnds = {
    "<|eot_id|>",        "<|im_end|>", "<|end|>", "<end_of_turn>",
    "<|endoftext|>",     "<EOT>",      "_<EOT>",  "<｜end▁of▁sentence｜>",
    "<end_of_utterance>"};
// Further texts at which generation ends.
constexpr std::array<std::string_view, 6> kGenerationEnds = {"<|eom_id|>",      "<|return|>", "<|call|>",
                                                             "<|end_of_text|>", "[EOT]",      "[EOS]"};

/// Tokens that mark the parts of a text whose middle is to be filled in: key of the id, and the texts by which files that
/// lack the key name it.
struct FillIn {
  std::string_view name, old_name;
  std::array<std::string_view, 8> texts;
  bool ends;  // generation
};
constexpr FillIn kFillIns[] = {
    {"fim_pre",
     "prefix",
     {"<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>", "<|code_prefix|>", "<|prefix|>"},
     false},
    {"fim_suf",
     "suffix",
     {"<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>", "<|suffix|>"},
     false},
    {"fim_mid",
     "middle",
     {"<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>", "<|middle|>"},
     false},
    {"fim_pad", "", {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"}, true},
    {"fim_rep", "", {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"}, true},
    {"fim_sep", "", {"<|file_sep|>"}, true},
};

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

enum class FamilyName : std::uint8_t { sentencepiece, byte_pairs };

Result<FamilyName> parse_family(std::string_view model) {
  if (model == "llama") return FamilyName::sentencepiece;
  if (model == "gpt2") return FamilyName::byte_pairs;
  if (model == "none" || model == "no_vocab") {
    return make_error(ErrorCode::not_found, "tokenizer: the file says that it has none");
  }
  return make_error(ErrorCode::unsupported, "tokenizer: the family {} is not supported, wanted one of: gpt2, llama",
                    excerpt(model));
}

/// The rule by which words are cut; a file of before there were names for them means the default one.
Result<const tokenizer::SplitRule*> split_rule(const GgufFile& file, std::vector<std::string>& notes) {
  constexpr std::string_view key = "tokenizer.ggml.pre", fallback = "default";
  if (file.find(key) == nullptr) {
    notes.push_back(fmt::format("{} is missing, words are cut by the rule '{}'", key, fallback));
  }
  MLXN_TRY(const std::string_view name, file.get_string_or(key, fallback));
  const tokenizer::SplitRule* rule = tokenizer::find_split_rule(name);
  if (rule != nullptr) return rule;
  return make_error(ErrorCode::unsupported, "tokenizer: the splitting rule {} ({}) is not known, wanted one of: {}",
                    excerpt(name), key, tokenizer::split_rule_names());
}

constexpr tokenizer::Defaults kSentencePieceDefaults = {
    .bos = 1, .eos = 2, .unknown = 0, .adds_bos = true, .adds_space = true};

tokenizer::Defaults byte_pair_defaults(const tokenizer::SplitRule& rule) {
  constexpr TokenId kEndOfText = 11;  // of the first byte-level models that files were made of
  return {.bos = rule.has_bos ? std::optional(kEndOfText) : std::nullopt,
          .eos = kEndOfText,
          .unknown = std::nullopt,
          .adds_bos = rule.adds_bos,
          .adds_space = std::nullopt};
}

}  // namespace

Result<std::optional<TokenId>> TokenizerState::read_id(const GgufFile& file, std::string_view name,
                                                       std::optional<TokenId> fallback) {
  const std::string key = fmt::format("tokenizer.ggml.{}_token_id", name);
  const GgufValue* value = file.find(key);
  if (value == nullptr) {
    if (fallback && static_cast<std::size_t>(*fallback) >= vocabulary.size()) return std::optional<TokenId>();
    return fallback;
  }
  // -1 says "none" in some files; an id beyond the vocabulary is the same with a note.
  if (const auto negative = value->as_int(); negative && *negative < 0) return std::optional<TokenId>();
  MLXN_TRY(const std::uint64_t id, value->as_uint());
  if (id < vocabulary.size()) return std::optional<TokenId>(static_cast<TokenId>(id));
  notes.push_back(
      fmt::format("{} is {}, the vocabulary has {} tokens: it is left out", key, id, vocabulary.size()));
  return std::optional<TokenId>();
}

Result<void> TokenizerState::read_settings(const GgufFile& file, const tokenizer::Defaults& defaults) {
  MLXN_TRY(bos, read_id(file, "bos", defaults.bos));
  MLXN_TRY(eos, read_id(file, "eos", defaults.eos));
  MLXN_TRY(unknown, read_id(file, "unknown", defaults.unknown));
  MLXN_TRY(eot, read_id(file, "eot", std::nullopt));
  MLXN_TRY(const std::optional<TokenId> eom, read_id(file, "eom", std::nullopt));
  if (eom) ends.push_back(*eom);
  MLXN_TRY(adds_bos, file.get_bool_or("tokenizer.ggml.add_bos_token", defaults.adds_bos));
  MLXN_TRY(adds_eos, file.get_bool_or("tokenizer.ggml.add_eos_token", false));
  if (defaults.adds_space) {
    MLXN_TRY(adds_space, file.get_bool_or("tokenizer.ggml.add_space_prefix", *defaults.adds_space));
  }
  return {};
}

Result<void> TokenizerState::find_ends(const GgufFile& file) {
  const auto make_control = [&](TokenId id) {
    if (vocabulary.kind(id) == TokenKind::control) return;
    notes.push_back(fmt::format("token {} {} is treated as a control token", id, excerpt(vocabulary.text(id))));
    vocabulary.set_kind(id, TokenKind::control);
  };
  const auto add = [&](std::string_view text) {
    const auto id = vocabulary.find(text);
    if (!id) return;
    ends.push_back(*id);
    make_control(*id);
  };
  for (const std::string_view text : kTurnEnds) {
    add(text);
    if (!eot) eot = vocabulary.find(text);
  }
  for (const std::string_view text : kGenerationEnds) add(text);
  for (const FillIn& fill_in : kFillIns) {
    MLXN_TRY(std::optional<TokenId> id, read_id(file, fill_in.name, std::nullopt));
    if (!id && !fill_in.old_name.empty()) {
      MLXN_TRY(id, read_id(file, fill_in.old_name, std::nullopt));
    }
    for (std::size_t i = 0; i < fill_in.texts.size() && !id; ++i) {
      id = vocabulary.find(fill_in.texts[i]);
      if (id) make_control(*id);
    }
    if (id && fill_in.ends) ends.push_back(*id);
  }
  if (eos) ends.push_back(*eos);
  if (eot) ends.push_back(*eot);
  std::sort(ends.begin(), ends.end());
  return {};
}

std::vector<TokenId> TokenizerState::strips_right(const GgufFile& file) const {
  // Phi-3 was trained with special tokens that take the white space after them along; its files do not say
  // so.
  std::vector<TokenId> out;
  const GgufValue* value = file.find("general.name");
  if (value == nullptr) return out;
  const auto name = value->as_string();
  if (!name) return out;
  const std::string lowered = lower(*name);
  if (lowered.find("phi-3") == std::string::npos && lowered.find("phi3") == std::string::npos) return out;
  for (std::size_t i = 0; i < vocabulary.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    const std::string_view text = vocabulary.text(id);
    if (text == "<unk>" || text == "<s>" || text == "<|endoftext|>") continue;
    const TokenKind kind = vocabulary.kind(id);
    if (kind == TokenKind::control || kind == TokenKind::unknown || kind == TokenKind::user_defined)
      out.push_back(id);
  }
  return out;
}

Result<void> TokenizerState::append(TokenId id, const DecodeOptions& options, bool& at_start,
                                    std::string& out) const {
  if (id < 0 || static_cast<std::size_t>(id) >= vocabulary.size()) {
    return make_error(ErrorCode::out_of_range, "tokenizer: token {} of a vocabulary of {}", id,
                      vocabulary.size());
  }
  switch (vocabulary.kind(id)) {
    case TokenKind::control:
    case TokenKind::unknown:
      if (options.keep_special) out += vocabulary.text(id);
      at_start = options.drop_added_space;
      return {};
    case TokenKind::user_defined:
    case TokenKind::unused:
    case TokenKind::normal:
    case TokenKind::byte:
      break;
  }
  const std::size_t begin = out.size();
  family->append_piece(vocabulary, id, out);
  if (out.size() == begin) return {};
  // A user-defined token that the text named; one whose piece differs from its text came from merges, like
  // any other.
  if (vocabulary.kind(id) == TokenKind::user_defined &&
      std::string_view(out).substr(begin) == vocabulary.text(id)) {
    at_start = options.drop_added_space;
    return {};
  }
  if (at_start && adds_space && out[begin] == ' ') out.erase(begin, 1);
  at_start = false;
  return {};
}

namespace {

Result<std::shared_ptr<const TokenizerState>> load(const GgufFile& file) {
  const auto state = std::make_shared<TokenizerState>();
  MLXN_TRY(state->model, file.get_string("tokenizer.ggml.model"));
  MLXN_TRY(const FamilyName family, parse_family(state->model));
  const tokenizer::SplitRule* rule = nullptr;
  if (family == FamilyName::byte_pairs) {
    MLXN_TRY(rule, split_rule(file, state->notes));
  }
  MLXN_TRY(state->vocabulary, tokenizer::Vocabulary::from_gguf(file));
  MLXN_CHECK(state->read_settings(file, rule == nullptr ? kSentencePieceDefaults : byte_pair_defaults(*rule)));
  MLXN_CHECK(state->find_ends(file));
  MLXN_TRY(state->special, tokenizer::SpecialTokens::make(state->vocabulary, state->strips_right(file)));
  switch (family) {
    case FamilyName::sentencepiece:
      state->family = std::make_unique<tokenizer::SentencePiece>(state->vocabulary, state->unknown);
      break;
    case FamilyName::byte_pairs: {
      MLXN_TRY(state->family, tokenizer::BytePairs::from_gguf(file, state->vocabulary, *rule, state->notes));
      break;
    }
  }
  return std::shared_ptr<const TokenizerState>(state);
}

}  // namespace

Result<Tokenizer> Tokenizer::from_gguf(const GgufFile& file) noexcept {
  return detail::guarded([&]() -> Result<Tokenizer> {
    auto state = load(file);
    if (!state) return named_error(file, state.error());
    return Tokenizer(*std::move(state));
  });
}

Result<void> TokenizerState::encode(std::span<const TextPart> parts, std::vector<TokenId>& out) const {
  std::size_t bytes = 0;
  for (const TextPart& part : parts) {
    if (part.text.size() > kMaxText - bytes) {
      return make_error(ErrorCode::limit_exceeded, "tokenizer: a text of more than {} bytes, at most so many go at once", kMaxText);
    }
    bytes += part.text.size();
  }
  std::vector<std::vector<Fragment>> split;
  std::vector<TokenId> marks;  // named by trusted parts
  for (const TextPart& part : parts) {
    split.push_back(special.split(part.text, part.trusted));
    if (!part.trusted) continue;
    for (const Fragment& fragment : split.back()) {
      if (fragment.token >= 0) marks.push_back(fragment.token);
    }
  }
  std::sort(marks.begin(), marks.end());
  marks.erase(std::unique(marks.begin(), marks.end()), marks.end());
  // Text goes to the family in runs from one special token to the next, over the borders of parts.
  MLXN_TRY(const std::unique_ptr<tokenizer::Encoder> encoder, family->encoder(vocabulary, bytes, out));
  std::deque<std::string> runs;  // which the encoder looks back at
  bool after_special = true, in_run = false;
  const auto end_run = [&]() -> Result<void> {
    if (in_run) MLXN_CHECK(encoder->append(runs.back()));
    after_special = after_special && !in_run;
    in_run = false;
    return {};
  };
  for (std::size_t i = 0; i < parts.size(); ++i) {
    for (const Fragment& fragment : split[i]) {
      const bool is_mark = fragment.token >= 0 && std::binary_search(marks.begin(), marks.end(), fragment.token);
      if (fragment.token >= 0 && (parts[i].trusted || !is_mark)) {
        MLXN_CHECK(end_run());
        out.push_back(fragment.token);
        after_special = true;
        continue;
      }
      if (!in_run) runs.emplace_back(after_special && adds_space ? " " : "");
      in_run = true;
      runs.back() += fragment.text;
    }
  }
  return end_run();
}

Result<std::vector<TokenId>> Tokenizer::encode(std::string_view text,
                                               const EncodeOptions& options) const noexcept {
  return detail::guarded([&]() -> Result<std::vector<TokenId>> {
    if (!state_) return moved_from();
    const TokenizerState& s = *state_;
    std::vector<TokenId> out;
    if (options.add_bos && s.adds_bos && s.bos) out.push_back(*s.bos);
    const TextPart part{text, options.parse_special};
    MLXN_CHECK(s.encode({&part, 1}, out));
    if (options.add_eos && s.adds_eos && s.eos) out.push_back(*s.eos);
    return out;
  });
}

Result<std::vector<TokenId>> Tokenizer::encode_parts(std::span<const TextPart> parts) const noexcept {
  return detail::guarded([&]() -> Result<std::vector<TokenId>> {
    if (!state_) return moved_from();
    std::vector<TokenId> out;
    MLXN_CHECK(state_->encode(parts, out));
    return out;
  });
}

Result<std::string> Tokenizer::decode(std::span<const TokenId> ids,
                                      const DecodeOptions& options) const noexcept {
  return detail::guarded([&]() -> Result<std::string> {
    if (!state_) return moved_from();
    std::string out;
    bool at_start = options.drop_added_space;
    for (const TokenId id : ids) MLXN_CHECK(state_->append(id, options, at_start, out));
    return out;
  });
}

Result<std::string> Tokenizer::piece(TokenId id, bool keep_special) const noexcept {
  return decode({&id, 1}, {keep_special, false});
}

std::string_view Tokenizer::model() const noexcept { return state_ ? std::string_view(state_->model) : std::string_view(); }
std::size_t Tokenizer::vocab_size() const noexcept { return state_ ? state_->vocabulary.size() : 0; }

std::string_view Tokenizer::text(TokenId id) const noexcept {
  return contains(id) ? state_->vocabulary.text(id) : std::string_view();
}

TokenKind Tokenizer::kind(TokenId id) const noexcept {
  return contains(id) ? state_->vocabulary.kind(id) : TokenKind::unused;
}

std::optional<TokenId> Tokenizer::find(std::string_view text) const noexcept {
  return state_ ? state_->vocabulary.find(text) : std::nullopt;
}
std::optional<TokenId> Tokenizer::bos() const noexcept { return state_ ? state_->bos : std::nullopt; }
std::optional<TokenId> Tokenizer::eos() const noexcept { return state_ ? state_->eos : std::nullopt; }
std::optional<TokenId> Tokenizer::eot() const noexcept { return state_ ? state_->eot : std::nullopt; }
std::optional<TokenId> Tokenizer::unknown() const noexcept { return state_ ? state_->unknown : std::nullopt; }
bool Tokenizer::adds_bos() const noexcept { return state_ && state_->adds_bos && state_->bos.has_value(); }
bool Tokenizer::adds_eos() const noexcept { return state_ && state_->adds_eos && state_->eos.has_value(); }
std::span<const std::string> Tokenizer::notes() const noexcept {
  if (!state_) return {};
  return state_->notes;
}

bool Tokenizer::is_end_of_generation(TokenId id) const noexcept {
  return state_ && std::binary_search(state_->ends.begin(), state_->ends.end(), id);
}

Result<std::string> StreamDecoder::push(TokenId id) noexcept {
  return detail::guarded([&]() -> Result<std::string> {
    if (!tokenizer_.state_) return moved_from();
    MLXN_CHECK(tokenizer_.state_->append(id, options_, at_start_, held_));
    std::size_t ready = 0;
    while (ready < held_.size()) {
      const Utf8Step step = utf8_step(std::string_view(held_).substr(ready));
      if (step.kind == Utf8Step::Kind::incomplete) break;
      ready += step.bytes;
    }
    std::string out = held_.substr(0, ready);
    held_.erase(0, ready);
    return out;
  });
}

std::string StreamDecoder::flush() noexcept {
  at_start_ = options_.drop_added_space;
  return std::exchange(held_, {});
}

}  // namespace mlxn
