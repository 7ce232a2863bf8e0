#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mlxn/gguf.h"
#include "mlxn/result.h"

namespace mlxn {

using TokenId = std::int32_t;

/// What a vocabulary says of a token; the numbers are those of tokenizer.ggml.token_type.
enum class TokenKind : std::uint8_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };
[[nodiscard]] std::string_view to_string(TokenKind kind) noexcept;

struct EncodeOptions {
  bool add_bos = true;         ///< put the beginning-of-sequence token first, if the model asks for one
  bool add_eos = true;         ///< put the end-of-sequence token last, if the model asks for one
  bool parse_special = false;  ///< read the texts of control tokens as those tokens; user-defined tokens always are
};

/// A part of a text whose parts are trusted differently; see Tokenizer::encode_parts().
struct TextPart {
  std::string_view text;
  bool trusted = false;
};

struct DecodeOptions {
  bool keep_special = false;       ///< write control and unknown tokens as their texts instead of leaving them out
  bool drop_added_space = true;    ///< undo the space that encode() puts before text at the start and after special tokens
};

namespace detail {
struct TokenizerState;
}

/// Text to tokens and back, as the model was trained with. A cheap handle; copies share one immutable state and may be
/// used from several threads.
///
/// Families: SentencePiece (tokenizer.ggml.model "llama") and byte-level BPE ("gpt2", with the splitting rules that
/// tokenizer.ggml.pre names; a file without that key has the rule "default", and a note says so). Any other is
/// ErrorCode::unsupported.
///
/// decode(encode(x)) is x, byte for byte, for any bytes if the vocabulary has all byte tokens and one for the space, with
/// two exceptions: SentencePiece writes a space as U+2581, so that character comes back as a space; and the special tokens
/// of Phi-3 swallow the white space after them. Without parse_special no text becomes a control token, whatever it spells.
/// Bytes that are no valid UTF-8 keep tokens of their own; byte-level BPE cuts words there as at a symbol.
///
/// Of a handle that was moved from, functions that return a Result are wrong_state, the others have nothing: an empty vocabulary.
class Tokenizer {
 public:
  /// Errors: not_found (no tokenizer in the file), unsupported (another family or splitting rule), corrupt_file with rule V15
  /// (tables that contradict each other), limit_exceeded (special tokens whose texts make a trie of more than 2^22 nodes),
  /// out_of_memory. Special ids outside the vocabulary are left out with a note.
  [[nodiscard]] static Result<Tokenizer> from_gguf(const GgufFile& file) noexcept;

  /// Takes any bytes. Time is n log n in the length of the text, whatever it holds.
  /// A byte that the vocabulary has no token for is left out by byte-level BPE (a note says that there are such).
  /// Errors: not_found (SentencePiece: such a byte, and there is no unknown token), limit_exceeded (2^30 bytes).
  [[nodiscard]] Result<std::vector<TokenId>> encode(std::string_view text, const EncodeOptions& options = {}) const noexcept;
  /// The text that the parts are together, with control tokens read in trusted parts only. A user-defined token that a
  /// trusted part names is no more than its text in the others, so that they cannot pass for the trusted ones. No token at
  /// the beginning or end is added. Errors: as encode().
  [[nodiscard]] Result<std::vector<TokenId>> encode_parts(std::span<const TextPart> parts) const noexcept;
  /// The bytes that the tokens stand for; no valid UTF-8 if the tokens are cut inside a character.
  /// Errors: out_of_range (an id outside the vocabulary).
  [[nodiscard]] Result<std::string> decode(std::span<const TokenId> ids, const DecodeOptions& options = {}) const noexcept;
  /// What one token adds in the middle of a text.
  [[nodiscard]] Result<std::string> piece(TokenId id, bool keep_special = false) const noexcept;

  /// False for a handle that was moved from.
  [[nodiscard]] bool defined() const noexcept { return state_ != nullptr; }
  [[nodiscard]] std::string_view model() const noexcept;  ///< tokenizer.ggml.model
  [[nodiscard]] std::size_t vocab_size() const noexcept;
  [[nodiscard]] bool contains(TokenId id) const noexcept {
    return id >= 0 && static_cast<std::size_t>(id) < vocab_size();
  }
  /// A token's entry in the vocabulary, as it stands there; empty for an id outside.
  [[nodiscard]] std::string_view text(TokenId id) const noexcept;
  /// `unused` for an id outside.
  [[nodiscard]] TokenKind kind(TokenId id) const noexcept;
  /// The token with exactly this entry.
  [[nodiscard]] std::optional<TokenId> find(std::string_view text) const noexcept;

  [[nodiscard]] std::optional<TokenId> bos() const noexcept;
  [[nodiscard]] std::optional<TokenId> eos() const noexcept;
  [[nodiscard]] std::optional<TokenId> eot() const noexcept;  ///< end of a turn in a conversation
  [[nodiscard]] std::optional<TokenId> unknown() const noexcept;
  [[nodiscard]] bool adds_bos() const noexcept;
  [[nodiscard]] bool adds_eos() const noexcept;
  /// Whether a model that samples this token has finished.
  [[nodiscard]] bool is_end_of_generation(TokenId id) const noexcept;
  [[nodiscard]] std::span<const std::string> notes() const noexcept;

 private:
  friend class StreamDecoder;
  explicit Tokenizer(std::shared_ptr<const detail::TokenizerState> state) noexcept : state_(std::move(state)) {}
  std::shared_ptr<const detail::TokenizerState> state_;
};

/// decode() token by token, for output as it is generated: bytes that may become a UTF-8 character are held back until
/// they have or cannot any more, so that nothing printed is half a character. What the pushes and the flush return is
/// together exactly decode() of all tokens.
class StreamDecoder {
 public:
  /// To continue after a prompt, push the prompt first or pass drop_added_space = false.
  explicit StreamDecoder(Tokenizer tokenizer, const DecodeOptions& options = {}) noexcept
      : tokenizer_(std::move(tokenizer)), options_(options), at_start_(options.drop_added_space) {}
  /// The bytes that can be printed now.
  [[nodiscard]] Result<std::string> push(TokenId id) noexcept;
  /// The bytes still held back, at most three. The decoder is then as new.
  [[nodiscard]] std::string flush() noexcept;

 private:
  Tokenizer tokenizer_;
  DecodeOptions options_;
  bool at_start_;
  std::string held_;
};

}  // namespace mlxn
