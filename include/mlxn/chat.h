#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mlxn/gguf.h"
#include "mlxn/result.h"
#include "mlxn/tokenizer.h"

namespace mlxn {

enum class ChatRole : std::uint8_t { system, user, assistant };
[[nodiscard]] std::string_view to_string(ChatRole role) noexcept;

struct ChatMessage {
  ChatRole role;
  std::string content;
};

namespace detail {
struct ChatMarkup;
}

/// How a model was trained to see a conversation: what stands around each message. A cheap handle that holds its
/// tokenizer; copies may be used from several threads.
///
/// Families, by the names that llama.cpp has for them: chatml, gemma, llama2, llama3, mistral-v0 (the first one, without a
/// system prompt), mistral-v1, mistral-v3, mistral-v3-tekken, mistral-v7, mistral-v7-tekken, phi3. The family is
/// recognised from the file's tokenizer.chat_template; that program itself, which nobody vouches for, is never run.
///
/// A conversation is an optional system message, then messages of user and assistant in turn. Two things differ from the
/// usual templates on purpose. Where a family has no place for a system message, it goes before the first message of the
/// user and stays there, so that nothing that was said changes later. And no family invents a system message.
class ChatTemplate {
 public:
  /// The template that the file names. Errors: not_found (the file has none), unsupported (of no known family; the text
  /// lists them), and those of named().
  [[nodiscard]] static Result<ChatTemplate> from_gguf(const GgufFile& file, const Tokenizer& tokenizer) noexcept;
  /// The template of a family. Errors: invalid_argument (no family of this name), not_found (the family ends replies with
  /// an end-of-sequence token, and the tokenizer has none), wrong_state (the tokenizer was moved from).
  [[nodiscard]] static Result<ChatTemplate> named(std::string_view family, const Tokenizer& tokenizer) noexcept;
  /// The name of the family that a chat template belongs to, empty if to none.
  [[nodiscard]] static std::string_view recognise(std::string_view chat_template) noexcept;
  /// All families, in alphabetical order.
  [[nodiscard]] static std::span<const std::string_view> names() noexcept;

  [[nodiscard]] std::string_view name() const noexcept;
  /// Oddities that are no errors: tokens of the markup that the vocabulary does not have.
  [[nodiscard]] std::span<const std::string> notes() const noexcept { return notes_; }

  /// The conversation as text, up to where the assistant's next reply begins (or, if the last message is the assistant's,
  /// to its end). Errors: invalid_argument (an order of messages that no conversation has), wrong_state (the template was moved
  /// from), out_of_memory.
  [[nodiscard]] Result<std::string> render(std::span<const ChatMessage> messages) const noexcept;
  /// The same as tokens, with the beginning-of-sequence token if the model asks for one. What messages contain never
  /// becomes a control token, nor any token that the markup uses, whatever it spells.
  ///
  /// `done` messages are already in the model's context, the last of them a reply as the model wrote it, without the token
  /// that ended it: the tokens are those that come after it. Errors: those of render() and of Tokenizer::encode();
  /// out_of_range (done beyond the messages), invalid_argument (the message before `done` is not the assistant's).
  [[nodiscard]] Result<std::vector<TokenId>> encode(std::span<const ChatMessage> messages, std::size_t done = 0) const noexcept;
  /// Whether a model that samples this token has finished its reply.
  [[nodiscard]] bool ends_reply(TokenId id) const noexcept;

 private:
  struct Part {
    std::string text;
    bool markup;
  };
  ChatTemplate(const detail::ChatMarkup& markup, Tokenizer tokenizer) noexcept
      : markup_(&markup), tokenizer_(std::move(tokenizer)) {}
  [[nodiscard]] Result<std::vector<Part>> parts(std::span<const ChatMessage> messages, std::size_t done) const;
  [[nodiscard]] std::string fill(std::string_view markup) const;

  const detail::ChatMarkup* markup_;
  Tokenizer tokenizer_;
  std::vector<std::string> notes_;
};

}  // namespace mlxn
