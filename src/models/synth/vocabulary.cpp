#include "models/synth/vocabulary.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <unordered_set>

#include "base/error.h"
#include "mlxn/tokenizer.h"
#include "tokenizer/byte_text.h"

namespace mlxn::models {
namespace {

/// Two pieces that make a third one. A space can only be the first character.
struct Merge {
  std::string left, right;
  [[nodiscard]] std::string whole() const { return left + right; }
};

// They come first, so that English text becomes words and not letters.
constexpr std::string_view kWords =
    "the of and to in is you that it he was for on are as with his they at be this have from or one had by word but not "
    "what all were we when your can said there use an each which she do how their if will up other about out many then them "
    "these so some her would make like him into time has look two more write go see number no way could people my than first "
    "water been call who oil its now find long down day did get come made may part over new sound take only little work know "
    "place year live me back give most very after thing our just name good sentence man think say great where help through "
    "much before line right too mean old any same tell boy follow came want show also around form three small set put end "
    "does another well large must big even such because turn here why ask went men read need land different home us move try "
    "kind hand picture again change off play spell air away animal house point page letter mother answer found study still "
    "learn should world high every near add food between own below country plant last school father keep tree never start";

/// Merges in the order of their rank: the words above, letter by letter, with and without a space in front; then pairs of
/// pieces that exist, the earlier the likelier. Every piece can be reached from single letters.
std::vector<Merge> make_merges(std::uint64_t count, std::uint64_t seed) {
  constexpr std::size_t kLongest = 16;
  std::vector<Merge> merges;
  std::unordered_set<std::string> known;
  std::vector<std::string> pieces, tails;  // all of them, and those without a space in front
  for (char c = 'a'; c <= 'z'; ++c) tails.emplace_back(1, c);
  pieces = tails;
  pieces.emplace_back(" ");
  known.insert(pieces.begin(), pieces.end());
  const auto add = [&](const std::string& left, const std::string& right) {
    Merge merge{left, right};
    std::string whole = merge.whole();
    if (merges.size() == count || !known.insert(whole).second) return;
    if (whole.front() != ' ') tails.push_back(whole);
    pieces.push_back(std::move(whole));
    merges.push_back(std::move(merge));
  };
  for (std::size_t at = 0; at < kWords.size();) {
    const std::string_view word = kWords.substr(at, kWords.find(' ', at) - at);
    at += word.size() + 1;
    for (const std::string_view front : {" ", ""}) {
      std::string done(front.empty() ? word.substr(0, 1) : front);
      for (const char c : word.substr(front.empty() ? 1 : 0)) {
        add(done, std::string(1, c));
        done += c;
      }
    }
  }
  std::uint64_t state = seed;
  const auto pick = [&](const std::vector<std::string>& from) -> const std::string& {
    state = state * 6364136223846793005u + 1442695040888963407u;  // Knuth's MMIX
    const double u = static_cast<double>(state >> 11) * 0x1p-53;
    return from[static_cast<std::size_t>(u * u * static_cast<double>(from.size()))];
  };
  while (merges.size() < count) {
    // Copies: adding moves the lists.
    const std::string left = pick(pieces), right = pick(tails);
    if (left.size() + right.size() <= kLongest) add(left, right);
  }
  return merges;
}

/// `piece` with its space, if it has one, spelled as the family does.
std::string spelled(const std::string& piece, std::string_view space) {
  return piece.front() == ' ' ? std::string(space) + piece.substr(1) : piece;
}

struct Tables {
  std::vector<std::string> tokens, merges;
  std::vector<float> scores;
  std::vector<std::int32_t> kinds;

  void add(std::string text, TokenKind kind, float score = 0) {
    tokens.push_back(std::move(text));
    scores.push_back(score);
    kinds.push_back(static_cast<std::int32_t>(kind));
  }
  [[nodiscard]] std::optional<std::uint32_t> id(std::string_view text) const {
    const auto at = std::find(tokens.begin(), tokens.end(), text);
    if (at == tokens.end()) return std::nullopt;
    return static_cast<std::uint32_t>(at - tokens.begin());
  }
};

/// What tells the kinds apart.
struct Kind {
  std::string_view model, pre;                     // tokenizer.ggml.model, .pre
  std::vector<std::string_view> first, last;       // special tokens before and after the others
  std::string_view reserved;                       // name of the tokens that fill up the special ones, with one number
  TokenKind reserved_kind;
  std::uint64_t special_room, from_size;           // special tokens in all in vocabularies of at least that size
  std::string_view bos, eos, eot, unknown, padding;  // empty: none
  bool add_bos, add_space;
};

Kind kind_of(SynthVocabulary vocabulary) {
  switch (vocabulary) {
    case SynthVocabulary::llama:
      return {"llama", "default", {"<unk>", "<s>", "</s>"}, {}, "", TokenKind::control, 0, 0, "<s>", "</s>", "", "<unk>", "", true, true};
    case SynthVocabulary::gemma:
      return {"llama", "default", {"<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"}, {}, "",
              TokenKind::control, 0, 0, "<bos>", "<eos>", "<end_of_turn>", "<unk>", "<pad>", true, false};
    case SynthVocabulary::phi3:
      return {"llama", "default", {"<unk>", "<s>", "</s>"},
              {"<|endoftext|>", "<|assistant|>", "<|system|>", "<|user|>", "<|end|>"}, "<|placeholder{}|>",
              TokenKind::control, 64, 32000, "<s>", "<|endoftext|>", "<|end|>", "<unk>", "<|endoftext|>", true, true};
    case SynthVocabulary::llama3:
      return {"gpt2", "llama-bpe", {},
              {"<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>"},
              "<|reserved_special_token_{}|>", TokenKind::control, 256, 16384, "<|begin_of_text|>", "<|end_of_text|>",
              "<|eot_id|>", "", "", true, false};
    case SynthVocabulary::qwen2:
      return {"gpt2", "qwen2", {}, {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}, "[PAD{}]", TokenKind::unused, 293, 16384, "",
              "<|endoftext|>", "<|im_end|>", "", "<|endoftext|>", false, false};
  }
  return {};
}

/// What the vocabulary's special tokens are for, in the language of tokenizer.chat_template.
std::string_view chat_template_of(SynthVocabulary vocabulary) {
  switch (vocabulary) {
    case SynthVocabulary::llama:
      return R"({% if messages[0]['role'] == 'system' %})"
             R"({% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}{% set turns = messages[1:] %})"
             R"({% else %}{% set system = '' %}{% set turns = messages %}{% endif %})"
             R"({% for turn in turns %}{% if turn['role'] == 'user' %})"
             R"({{ bos_token + '[INST] ' + ((system if loop.first else '') + turn['content']) | trim + ' [/INST]' }})"
             R"({% else %}{{ ' ' + turn['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %})";
    case SynthVocabulary::gemma:
      return R"({{ bos_token }}{% if messages[0]['role'] == 'system' %})"
             R"({% set system = messages[0]['content'] + '\n\n' %}{% set turns = messages[1:] %})"
             R"({% else %}{% set system = '' %}{% set turns = messages %}{% endif %})"
             R"({% for turn in turns %}{{ '<start_of_turn>' + ('model' if turn['role'] == 'assistant' else 'user') + '\n' }})"
             R"({{ (system if loop.first else '') + turn['content'] | trim + '<end_of_turn>\n' }}{% endfor %})"
             R"({% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %})";
    case SynthVocabulary::phi3:
      return R"({{ bos_token }}{% for turn in messages %}{{ '<|' + turn['role'] + '|>\n' + turn['content'] + '<|end|>\n' }}{% endfor %})"
             R"({% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %})";
    case SynthVocabulary::llama3:
      return R"({{ bos_token }}{% for turn in messages %}{{ '<|start_header_id|>' + turn['role'] + '<|end_header_id|>\n\n' }})"
             R"({{ turn['content'] | trim + '<|eot_id|>' }}{% endfor %})"
             R"({% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %})";
    case SynthVocabulary::qwen2:
      return R"({% for turn in messages %}{{ '<|im_start|>' + turn['role'] + '\n' + turn['content'] + '<|im_end|>\n' }}{% endfor %})"
             R"({% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %})";
  }
  return {};
}

/// The single characters that all else is made of.
void add_base(Tables& tables, bool bytes_as_letters) {
  if (bytes_as_letters) {
    // In GPT-2's order: the bytes that stand for themselves come first.
    for (const bool itself : {true, false}) {
      for (unsigned b = 0; b < 256; ++b) {
        if ((tokenizer::kByteLetters[b] == b) != itself) continue;
        std::string letter;
        tokenizer::append_byte_letter(static_cast<unsigned char>(b), letter);
        tables.add(std::move(letter), TokenKind::normal);
      }
    }
    return;
  }
  for (int b = 0; b < 256; ++b) tables.add(fmt::format("<0x{:02X}>", b), TokenKind::byte);
}

Result<Tables> make_tables(const Kind& kind, std::uint64_t size, std::uint64_t seed) {
  const bool bpe = kind.model == "gpt2";
  const std::string_view space = bpe ? "\u0120" : "\u2581";
  constexpr std::uint64_t kCharacters = 126 - 33 + 1 + 1;  // of SentencePiece: printable ASCII and the space
  const std::uint64_t last = size >= kind.from_size ? std::max<std::uint64_t>(kind.special_room, kind.last.size()) : kind.last.size();
  const std::uint64_t fixed = kind.first.size() + 256 + (bpe ? 0 : kCharacters) + last;
  if (size < fixed) {
    return make_error(ErrorCode::invalid_argument, "synth: a vocabulary of {}, wanted at least {} for its bytes and special tokens",
                      size, fixed);
  }
  Tables tables;
  tables.tokens.reserve(size);
  for (const std::string_view text : kind.first) {
    tables.add(std::string(text), text == kind.unknown ? TokenKind::unknown : TokenKind::control);
  }
  add_base(tables, bpe);
  const std::vector<Merge> merges = make_merges(size - fixed, seed);
  // SentencePiece merges the pair of the highest score first, so scores fall as ranks rise.
  for (const Merge& merge : merges) {
    tables.add(spelled(merge.whole(), space), TokenKind::normal, bpe ? 0 : -static_cast<float>(tables.merges.size()));
    tables.merges.push_back(spelled(merge.left, space) + " " + spelled(merge.right, space));
  }
  if (!bpe) {
    const auto score = [&] { return -static_cast<float>(tables.tokens.size()); };
    tables.add(std::string(space), TokenKind::normal, score());
    for (char c = 33; c <= 126; ++c) tables.add(std::string(1, c), TokenKind::normal, score());
  }
  for (const std::string_view text : kind.last) tables.add(std::string(text), TokenKind::control);
  for (std::uint64_t i = 0; tables.tokens.size() < size; ++i) {
    tables.add(fmt::format(fmt::runtime(kind.reserved), i), kind.reserved_kind);
  }
  return tables;
}

}  // namespace

Result<void> add_vocabulary(GgufWriter& writer, SynthVocabulary vocabulary, std::uint64_t size, std::uint64_t seed) {
  const Kind kind = kind_of(vocabulary);
  MLXN_TRY(const Tables tables, make_tables(kind, size, seed));
  const bool bpe = kind.model == "gpt2";
  MLXN_CHECK(writer.add("tokenizer.ggml.model", kind.model));
  MLXN_CHECK(writer.add("tokenizer.ggml.pre", kind.pre));
  MLXN_CHECK(writer.add_strings("tokenizer.ggml.tokens", tables.tokens));
  if (!bpe) MLXN_CHECK(writer.add_array<float>("tokenizer.ggml.scores", tables.scores));
  MLXN_CHECK(writer.add_array<std::int32_t>("tokenizer.ggml.token_type", tables.kinds));
  if (bpe) MLXN_CHECK(writer.add_strings("tokenizer.ggml.merges", tables.merges));
  const std::pair<std::string_view, std::string_view> ids[] = {
      {"bos", kind.bos}, {"eos", kind.eos}, {"eot", kind.eot}, {"unknown", kind.unknown}, {"padding", kind.padding}};
  for (const auto& [name, text] : ids) {
    if (text.empty()) continue;
    const auto id = tables.id(text);
    if (!id) return make_error(ErrorCode::internal, "synth: the vocabulary has no '{}'", text);
    MLXN_CHECK(writer.add<std::uint32_t>(fmt::format("tokenizer.ggml.{}_token_id", name), *id));
  }
  MLXN_CHECK(writer.add("tokenizer.ggml.add_bos_token", kind.add_bos));
  MLXN_CHECK(writer.add("tokenizer.ggml.add_eos_token", false));
  if (!bpe) MLXN_CHECK(writer.add("tokenizer.ggml.add_space_prefix", kind.add_space));
  return writer.add("tokenizer.chat_template", chat_template_of(vocabulary));
}

}  // namespace mlxn::models
