#include <algorithm>
#include <array>
#include <iterator>

#include "base/error.h"
#include "formats/printable.h"
#include "formats/utf8.h"
#include "mlxn/chat.h"
#include "tokenizer/unicode.h"

namespace mlxn {

/// What stands around messages. <BOS> and <EOS> stand for the tokenizer's tokens, <BOS> for nothing where the model asks
/// for none.
struct detail::ChatMarkup {
  std::string_view name;
  struct Frame {
    std::string_view open, close;
  };
  Frame system, user, assistant;
  /// The system message stands inside the first message of the user, before its text.
  bool system_in_user = false;
  bool trims_together = false;  ///< with that, so that only its end can be trimmed
  std::string_view reply;  ///< what the model's reply follows
  std::string_view end;    ///< the token that ends a reply
  std::string_view after;  ///< what follows it
  enum class Trim : std::uint8_t { none, all, assistant } trim = Trim::none;
};

namespace {

using Markup = detail::ChatMarkup;

// In alphabetical order.
constexpr Markup kFamilies[] = {
    {.name = "chatml",
     .system = {"<|im_start|>system\n", "<|im_end|>\n"},
     .user = {"<|im_start|>user\n", "<|im_end|>\n"},
     .assistant = {"<|im_start|>assistant\n", "<|im_end|>\n"},
     .reply = "<|im_start|>assistant\n",
     .end = "<|im_end|>",
     .after = "\n"},
    {.name = "gemma",
     .system = {"", "\n\n"},
     .user = {"<start_of_turn>user\n", "<end_of_turn>\n"},
     .assistant = {"<start_of_turn>model\n", "<end_of_turn>\n"},
     .system_in_user = true,
     .reply = "<start_of_turn>model\n",
     .end = "<end_of_turn>",
     .after = "\n",
     .trim = Markup::Trim::all},
    {.name = "llama2",
     .system = {"<<SYS>>\n", "\n<</SYS>>\n\n"},
     .user = {"<BOS>[INST] ", " [/INST]"},
     .assistant = {" ", " <EOS>"},
     .system_in_user = true,
     .trims_together = true,
     .reply = "",
     .end = "<EOS>",
     .after = "",
     .trim = Markup::Trim::all},
    {.name = "llama3",
     .system = {"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"},
     .user = {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"},
     .assistant = {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"},
     .reply = "<|start_header_id|>assistant<|end_header_id|>\n\n",
     .end = "<|eot_id|>",
     .after = "",
     .trim = Markup::Trim::all},
    {.name = "mistral-v0",
     .system = {"", "\n\n"},
     .user = {"[INST] ", " [/INST]"},
     .assistant = {"", "<EOS>"},
     .system_in_user = true,
     .reply = "",
     .end = "<EOS>",
     .after = ""},
    {.name = "mistral-v1",
     .system = {"", "\n\n"},
     .user = {" [INST] ", " [/INST]"},
     .assistant = {" ", "<EOS>"},
     .system_in_user = true,
     .reply = "",
     .end = "<EOS>",
     .after = ""},
    {.name = "mistral-v3",
     .system = {"", "\n\n"},
     .user = {"[INST] ", "[/INST]"},
     .assistant = {" ", "<EOS>"},
     .system_in_user = true,
     .reply = "",
     .end = "<EOS>",
     .after = "",
     .trim = Markup::Trim::assistant},
    {.name = "mistral-v3-tekken",
     .system = {"", "\n\n"},
     .user = {"[INST]", "[/INST]"},
     .assistant = {"", "<EOS>"},
     .system_in_user = true,
     .reply = "",
     .end = "<EOS>",
     .after = ""},
    {.name = "mistral-v7",
     .system = {"[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]"},
     .user = {"[INST] ", "[/INST]"},
     .assistant = {" ", "<EOS>"},
     .reply = "",
     .end = "<EOS>",
     .after = ""},
    {.name = "mistral-v7-tekken",
     .system = {"[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"},
     .user = {"[INST]", "[/INST]"},
     .assistant = {"", "<EOS>"},
     .reply = "",
     .end = "<EOS>",
     .after = ""},
    {.name = "phi3",
     .system = {"<|system|>\n", "<|end|>\n"},
     .user = {"<|user|>\n", "<|end|>\n"},
     .assistant = {"<|assistant|>\n", "<|end|>\n"},
     .reply = "<|assistant|>\n",
     .end = "<|end|>",
     .after = "\n"},
};

constexpr std::string_view kKey = "tokenizer.chat_template";

constexpr auto kNames = [] {
  std::array<std::string_view, std::size(kFamilies)> names;
  for (std::size_t i = 0; i < names.size(); ++i) names[i] = kFamilies[i].name;
  return names;
}();

std::string known_families() {
  std::string out;
  for (const std::string_view name : kNames) {
    if (!out.empty()) out += ", ";
    out += name;
  }
  return out;
}

/// Bytes of the white space that begins at `at`, 0 if none does. The set is that of the templates' own trim.
std::size_t space_at(std::string_view text, std::size_t at) noexcept {
  const auto byte = static_cast<unsigned char>(text[at]);
  if (byte < 0x80) return byte == ' ' || (byte >= '\t' && byte <= '\r') || (byte >= 0x1c && byte <= 0x1f) ? 1 : 0;
  const Utf8Step step = utf8_step(text.substr(at));
  if (step.kind != Utf8Step::Kind::whole) return 0;
  const auto code_point = tokenizer::code_point_of(text.substr(at, step.bytes));
  return tokenizer::char_class(code_point) == tokenizer::CharClass::space ? step.bytes : 0;
}

std::string_view trim(std::string_view text) noexcept {
  while (!text.empty()) {
    const std::size_t bytes = space_at(text, 0);
    if (bytes == 0) break;
    text.remove_prefix(bytes);
  }
  while (!text.empty()) {
    std::size_t begin = text.size() - 1;
    while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) --begin;
    if (space_at(text, begin) != text.size() - begin) break;
    text.remove_suffix(text.size() - begin);
  }
  return text;
}

std::string_view trim_end(std::string_view text) noexcept {
  const std::string_view both = trim(text);
  return both.empty() ? both : text.substr(0, static_cast<std::size_t>(both.data() + both.size() - text.data()));
}

Result<void> check(std::span<const ChatMessage> messages) {
  if (messages.empty()) return make_error(ErrorCode::invalid_argument, "chat: a conversation without messages");
  const std::size_t first = messages[0].role == ChatRole::system ? 1 : 0;
  if (first == messages.size()) return make_error(ErrorCode::invalid_argument, "chat: a conversation of a system message alone");
  for (std::size_t i = first; i < messages.size(); ++i) {
    const ChatRole wanted = (i - first) % 2 == 0 ? ChatRole::user : ChatRole::assistant;
    if (messages[i].role != wanted) {
      return make_error(ErrorCode::invalid_argument, "chat: message {} is of {}, wanted {}", i, to_string(messages[i].role),
                        to_string(wanted));
    }
  }
  return {};
}

}  // namespace

std::string_view to_string(ChatRole role) noexcept {
  switch (role) {
    case ChatRole::system:
      return "system";
    case ChatRole::user:
      return "user";
    case ChatRole::assistant:
      return "assistant";
  }
  return "no role";
}

std::span<const std::string_view> ChatTemplate::names() noexcept { return kNames; }
std::string_view ChatTemplate::name() const noexcept { return markup_->name; }

std::string_view ChatTemplate::recognise(std::string_view text) noexcept {
  const auto has = [&](std::string_view part) { return text.find(part) != std::string_view::npos; };
  if (has("<|im_start|>")) return has("<|im_sep|>") || has("<end_of_utterance>") ? "" : "chatml";
  if (has("[INST]")) {
    if (has("[SYSTEM_PROMPT]")) return has("[SYSTEM_PROMPT] ") ? "mistral-v7" : "mistral-v7-tekken";
    if (has("<<SYS>>")) return "llama2";
    if (has(" [INST]")) return "mistral-v1";
    if (!has("[AVAILABLE_TOOLS]")) return "mistral-v0";
    return has("[INST] ") ? "mistral-v3" : "mistral-v3-tekken";
  }
  if (has("<|start_header_id|>") && has("<|end_header_id|>")) return "llama3";
  if (has("<start_of_turn>")) return "gemma";
  // Some write the role into the mark by a variable.
  if (has("<|end|>") && (has("<|assistant|>") || has("<|user|>")) && !has("<|channel|>") && !has("<|begin|>")) return "phi3";
  return "";
}

Result<ChatTemplate> ChatTemplate::from_gguf(const GgufFile& file, const Tokenizer& tokenizer) noexcept {
  return detail::guarded([&]() -> Result<ChatTemplate> {
    if (file.defined() && file.find(kKey) == nullptr) {
      return make_error(ErrorCode::not_found, "{}: no chat template ({}); known ones: {}", file.label(), kKey, known_families());
    }
    MLXN_TRY(const std::string_view text, file.get_string(kKey));
    const std::string_view family = recognise(text);
    if (!family.empty()) return named(family, tokenizer);
    return make_error(ErrorCode::unsupported, "{}: the chat template {} is of no known family; known ones: {}", file.label(),
                      excerpt(text), known_families());
  });
}

Result<ChatTemplate> ChatTemplate::named(std::string_view family, const Tokenizer& tokenizer) noexcept {
  return detail::guarded([&]() -> Result<ChatTemplate> {
    const auto found = std::find_if(std::begin(kFamilies), std::end(kFamilies), [&](const Markup& m) { return m.name == family; });
    if (found == std::end(kFamilies)) {
      return make_error(ErrorCode::invalid_argument, "chat: no template is called '{}'; known ones: {}", printable(family),
                        known_families());
    }
    if (!tokenizer.defined()) return make_error(ErrorCode::wrong_state, "chat: the tokenizer was moved from");
    if (found->end == "<EOS>" && !tokenizer.eos()) {
      return make_error(ErrorCode::not_found, "chat: the template {} needs an end-of-sequence token, the tokenizer has none", family);
    }
    ChatTemplate out(*found, tokenizer);
    if (const std::string end = out.fill(found->end); !tokenizer.find(end)) {
      out.notes_.push_back(fmt::format("the vocabulary has no token '{}', which ends a reply in the chat template {}", end, family));
    }
    return out;
  });
}

std::string ChatTemplate::fill(std::string_view markup) const {
  std::string out(markup);
  const auto replace = [&](std::string_view name, std::string_view text) {
    for (std::size_t at = out.find(name); at != std::string::npos; at = out.find(name, at + text.size())) {
      out.replace(at, name.size(), text);
    }
  };
  replace("<BOS>", tokenizer_.adds_bos() ? tokenizer_.text(*tokenizer_.bos()) : "");
  replace("<EOS>", tokenizer_.eos() ? tokenizer_.text(*tokenizer_.eos()) : "");
  return out;
}

Result<std::vector<ChatTemplate::Part>> ChatTemplate::parts(std::span<const ChatMessage> messages, std::size_t done) const {
  if (!tokenizer_.defined()) return make_error(ErrorCode::wrong_state, "chat: the template was moved from");
  MLXN_CHECK(check(messages));
  if (done > messages.size()) {
    return make_error(ErrorCode::out_of_range, "chat: {} of {} messages are done", done, messages.size());
  }
  if (done > 0 && messages[done - 1].role != ChatRole::assistant) {
    return make_error(ErrorCode::invalid_argument, "chat: message {} is of {}, only a reply can be the last one that is done",
                      done - 1, to_string(messages[done - 1].role));
  }
  const Markup& m = *markup_;
  std::vector<Part> out;
  const auto mark = [&](std::string_view text) {
    if (!text.empty()) out.push_back({fill(text), true});
  };
  const auto content = [&](std::string_view text) { out.push_back({std::string(text), false}); };

  if (done > 0) {
    mark(m.end);
    mark(m.after);
  } else if (tokenizer_.adds_bos() && !m.user.open.starts_with("<BOS>")) {
    mark("<BOS>");
  }
  for (std::size_t i = done; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    const bool trims = m.trim == Markup::Trim::all || (m.trim == Markup::Trim::assistant && message.role == ChatRole::assistant);
    const std::string_view text = trims ? trim(message.content) : std::string_view(message.content);
    switch (message.role) {
      case ChatRole::system:
        if (m.system_in_user) break;  // with the next message
        mark(m.system.open);
        content(text);
        mark(m.system.close);
        break;
      case ChatRole::user:
        mark(m.user.open);
        if (i == 1 && messages[0].role == ChatRole::system && m.system_in_user) {
          mark(m.system.open);
          content(messages[0].content);
          mark(m.system.close);
          content(trims && m.trims_together ? trim_end(message.content) : text);
        } else {
          content(text);
        }
        mark(m.user.close);
        break;
      case ChatRole::assistant:
        mark(m.assistant.open);
        content(text);
        mark(m.assistant.close);
        break;
    }
  }
  if (messages.back().role == ChatRole::user) mark(m.reply);
  return out;
}

Result<std::string> ChatTemplate::render(std::span<const ChatMessage> messages) const noexcept {
  return detail::guarded([&]() -> Result<std::string> {
    MLXN_TRY(const std::vector<Part> all, parts(messages, 0));
    std::string out;
    for (const Part& part : all) out += part.text;
    return out;
  });
}

Result<std::vector<TokenId>> ChatTemplate::encode(std::span<const ChatMessage> messages, std::size_t done) const noexcept {
  return detail::guarded([&]() -> Result<std::vector<TokenId>> {
    MLXN_TRY(const std::vector<Part> all, parts(messages, done));
    std::vector<TextPart> texts;
    for (const Part& part : all) texts.push_back({part.text, part.markup});
    return tokenizer_.encode_parts(texts);
  });
}

bool ChatTemplate::ends_reply(TokenId id) const noexcept {
  if (tokenizer_.is_end_of_generation(id)) return true;
  return markup_->end != "<EOS>" && tokenizer_.contains(id) && tokenizer_.text(id) == markup_->end;
}

}  // namespace mlxn
