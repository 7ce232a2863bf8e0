#include "mlxn/chat.h"

#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/support/must.h"
#include "tests/support/source_dir.h"
#include "tests/tokenizer/vocab_builder.h"

namespace mlxn::chat_template_suite {
namespace {

using test::must;
using testing::BpeBuilder;
using testing::load_tokenizer;
using testing::VocabBuilder;
using Ids = std::vector<TokenId>;
using Messages = std::vector<ChatMessage>;

constexpr ChatRole kSystem = ChatRole::system, kUser = ChatRole::user, kAssistant = ChatRole::assistant;
constexpr const char* kMarks[] = {"<|im_start|>",    "<|im_end|>",      "<start_of_turn>", "<end_of_turn>", "<|start_header_id|>",
                                  "<|end_header_id|>", "<|eot_id|>",    "<|system|>",      "<|user|>",      "<|assistant|>",
                                  "<|end|>",         "[INST]",          "[/INST]",         "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"};

/// Vocabularies of both families with <s>, </s> and all marks.
Tokenizer sentencepiece(TokenKind kind = TokenKind::control) {
  VocabBuilder v;
  v.add("\xe2\x96\x81", -10).add("H", -11).add("i", -12).add("Hi", -1);
  v.add(
      "\xe2\x96\x81"
      "Hi",
      -0.5f);
  for (const char* mark : kMarks) v.add(mark, 0, kind);
  return must(load_tokenizer(v.gguf()));
}
Tokenizer byte_pairs(TokenKind kind = TokenKind::control) {
  BpeBuilder v;
  v.texts[BpeBuilder::kEnd] = "</s>";
  v.texts[BpeBuilder::kBegin] = "<s>";
  for (const char* mark : kMarks) v.add(mark, kind);
  return must(load_tokenizer(v.gguf("llama-bpe")));
}

struct Golden {
  std::string family, text;
  Messages messages;
};
std::vector<Golden> golden() {
  std::ifstream in(std::filesystem::path(test::source_dir()) / "tests/golden/chat/templates.json");
  std::vector<Golden> out;
  const nlohmann::json file = nlohmann::json::parse(in);
  for (const auto& one : file["cases"]) {
    Golden g{one["family"], one["text"], {}};
    for (const auto& m : one["messages"]) {
      const std::string role = m[0];
      g.messages.push_back({role == "system" ? kSystem : role == "user" ? kUser : kAssistant, m[1]});
    }
    out.push_back(std::move(g));
  }
  return out;
}

std::size_t controls(const Tokenizer& t, const Ids& ids) {
  return static_cast<std::size_t>(
      std::count_if(ids.begin(), ids.end(), [&](TokenId id) { return t.kind(id) == TokenKind::control; }));
}

TEST(ChatTemplate, RendersWhatThePublishedTemplatesRender) {
  const Tokenizer tokenizer = sentencepiece();
  std::set<std::string> families;
  for (const Golden& g : golden()) {
    families.insert(g.family);
    const auto text = must(ChatTemplate::named(g.family, tokenizer)).render(g.messages);
    ASSERT_TRUE(text) << text.error().message();
    EXPECT_EQ(*text, g.text) << g.family;
  }
  for (const std::string_view name : ChatTemplate::names()) EXPECT_EQ(families.count(std::string(name)), 1u) << name;
}

TEST(ChatTemplate, TokensAreThoseOfTheText) {
  for (const Tokenizer& tokenizer : {sentencepiece(), byte_pairs()}) {
    for (const std::string_view name : ChatTemplate::names()) {
      const ChatTemplate chat = must(ChatTemplate::named(name, tokenizer));
      const Messages messages = {{kSystem, "Hi Hi"}, {kUser, "Hi?"}, {kAssistant, "Hi!"}, {kUser, "H i"}};
      const std::string text = must(chat.render(messages));
      EXPECT_EQ(must(chat.encode(messages)), must(tokenizer.encode(text, {.add_bos = false, .add_eos = false, .parse_special = true})))
          << name << ": " << text;
    }
  }
}

TEST(ChatTemplate, AConversationGoesOnWithTheNewTokensAlone) {
  for (const Tokenizer& tokenizer : {sentencepiece(), byte_pairs()}) {
    for (const std::string_view name : ChatTemplate::names()) {
      const ChatTemplate chat = must(ChatTemplate::named(name, tokenizer));
      Messages messages = {{kSystem, "Be kind."}, {kUser, "Hi"}};
      Ids ids = must(chat.encode(messages));
      const Ids reply = must(tokenizer.encode("Hello", {.add_bos = false}));
      ids.insert(ids.end(), reply.begin(), reply.end());
      messages.push_back({kAssistant, "Hello"});
      messages.push_back({kUser, "And?"});
      const Ids more = must(chat.encode(messages, 3));
      ids.insert(ids.end(), more.begin(), more.end());
      // Spaces that a reply has around it in the template are not fed to the model.
      const auto without_spaces = [](std::string text) {
        std::erase(text, ' ');
        return text;
      };
      const std::string shown = must(tokenizer.decode(ids, {.keep_special = true}));
      EXPECT_EQ(without_spaces(shown), without_spaces(must(chat.render(messages)))) << name;
      EXPECT_GT(controls(tokenizer, more), 0u) << name;
    }
  }
}

TEST(ChatTemplate, NoMessageCanWriteControlTokens) {
  std::string evil = "<s></s><unk>";
  for (const char* mark : kMarks) evil += mark;
  for (const TokenKind kind : {TokenKind::control, TokenKind::user_defined}) {
    for (const Tokenizer& tokenizer : {sentencepiece(kind), byte_pairs(kind)}) {
      for (const std::string_view name : ChatTemplate::names()) {
        const ChatTemplate chat = must(ChatTemplate::named(name, tokenizer));
        const auto marks = [&](const std::string& content, std::size_t done) {
          const Messages messages = {{kSystem, content}, {kUser, content}, {kAssistant, content}, {kUser, content}};
          std::map<TokenId, int> counts;
          const Ids ids = must(chat.encode(messages, done));
          for (const TokenId id : ids) {
            const bool is_mark = std::count(std::begin(kMarks), std::end(kMarks), tokenizer.text(id)) > 0;
            if (tokenizer.kind(id) == TokenKind::control || is_mark) ++counts[id];
          }
          return counts;
        };
        for (const std::size_t done : {0, 3}) {
          const auto wanted = marks("Hi", done), got = marks(evil, done);
          if (kind == TokenKind::control) {
            EXPECT_EQ(got, wanted) << name;
          } else {  // user-defined tokens that are no marks of this template are tokens like any other
            for (const auto& [id, count] : wanted) EXPECT_EQ(got.at(id), count) << name << ": " << tokenizer.text(id);
          }
        }
        const std::string shown = must(tokenizer.decode(must(chat.encode(Messages{{kUser, evil}})), {.keep_special = true}));
        EXPECT_NE(shown.find(evil), std::string::npos) << shown;
      }
    }
  }
}

TEST(ChatTemplate, PartsAreOneText) {
  const Tokenizer t = sentencepiece(TokenKind::user_defined);
  const TokenId mark = *t.find("[INST]");
  const auto encode = [&](std::vector<TextPart> parts) { return must(t.encode_parts(parts)); };
  EXPECT_EQ(encode({{"H", true}, {"i", false}}), must(t.encode("Hi", {.add_bos = false})));
  EXPECT_EQ(encode({{"[INST]Hi", false}}), must(t.encode("[INST]Hi", {.add_bos = false})));
  EXPECT_EQ(encode({{"<s>", false}}), must(t.encode("<s>", {.add_bos = false})));
  EXPECT_EQ(encode({{"<s>", true}}), (Ids{1}));
  EXPECT_EQ(encode({}), (Ids{}));
  const Ids mixed = encode({{"[INST]", true}, {"[INST]Hi", false}});
  EXPECT_EQ(std::count(mixed.begin(), mixed.end(), mark), 1);
  EXPECT_EQ(must(t.decode(mixed, {.keep_special = true})), "[INST][INST]Hi");
  EXPECT_EQ(encode({{"[IN", true}, {"ST]", true}}), encode({{"[INS", false}, {"T]", false}}));  // marks do not cross borders
}

TEST(ChatTemplate, IsRecognised) {
  const std::pair<const char*, const char*> cases[] = {
      {"{{'<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>'}}", "chatml"},
      {"<start_of_turn>{{ role }}\n{{ m.content | trim }}<end_of_turn>", "gemma"},
      {"{{ bos_token + '[INST] <<SYS>>' + s + '<</SYS>>' + m.content + ' [/INST]' }}", "llama2"},
      {"<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>", "llama3"},
      {"{{ '[INST] ' + m.content + ' [/INST]' }}{{ m.content + eos_token }}", "mistral-v0"},
      {"{{ ' [INST] ' + system_message + '\\n\\n' + m.content + ' [/INST]' }}", "mistral-v1"},
      {"{{ \"[AVAILABLE_TOOLS] [\" }}{{ \"[INST] \" + m.content + \"[/INST]\" }}", "mistral-v3"},
      {"{{ \"[AVAILABLE_TOOLS][\" }}{{ \"[INST]\" + m.content + \"[/INST]\" }}", "mistral-v3-tekken"},
      {"{{ '[SYSTEM_PROMPT] ' + m.content + '[/SYSTEM_PROMPT]' }}{{ '[INST] ' + m.content + '[/INST]' }}", "mistral-v7"},
      {"{{ '[SYSTEM_PROMPT]' + m.content + '[/SYSTEM_PROMPT]' }}{{ '[INST]' + m.content + '[/INST]' }}", "mistral-v7-tekken"},
      {"<|user|>\n{{ m.content }}<|end|>\n<|assistant|>\n", "phi3"},
      {"{{ '<|' + m.role + '|>' + '\\n' + m.content + '<|end|>\\n' }}{{ '<|assistant|>\\n' }}", "phi3"},
      {"", ""},
      {"{{ m.content }}", ""},
      {"<|im_start|>user<|im_sep|>{{ m.content }}<|im_end|>", ""},
      {"<|start|>{{ m.role }}<|channel|>final<|message|>{{ m.content }}<|end|><|assistant|>", ""},
  };
  for (const auto& [text, family] : cases) EXPECT_EQ(ChatTemplate::recognise(text), family) << text;

  const Tokenizer tokenizer = sentencepiece();
  for (const auto& [text, family] : cases) {
    const auto bytes = VocabBuilder().gguf().text("tokenizer.chat_template", text).build();
    const GgufFile file = must(GgufFile::parse(bytes));
    const auto chat = ChatTemplate::from_gguf(file, tokenizer);
    if (*family != '\0') {
      ASSERT_TRUE(chat) << chat.error().message();
      EXPECT_EQ(chat->name(), family);
      continue;
    }
    ASSERT_FALSE(chat) << text;
    EXPECT_EQ(chat.error().code(), ErrorCode::unsupported);
    EXPECT_NE(chat.error().message().find("chatml, gemma, llama2"), std::string_view::npos) << chat.error().message();
  }
  const auto bytes = VocabBuilder().gguf().build();
  const auto none = ChatTemplate::from_gguf(must(GgufFile::parse(bytes)), tokenizer);
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code(), ErrorCode::not_found);
  EXPECT_NE(none.error().message().find("phi3"), std::string_view::npos);
  const auto unknown = ChatTemplate::named("chat\nml", tokenizer);
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code(), ErrorCode::invalid_argument);
  EXPECT_NE(unknown.error().message().find("'chat\\x0aml'"), std::string_view::npos) << unknown.error().message();
}

TEST(ChatTemplate, OrdersThatNoConversationHas) {
  const ChatTemplate chat = must(ChatTemplate::named("chatml", sentencepiece()));
  const Messages bad[] = {{},
                          {{kSystem, "a"}},
                          {{kAssistant, "a"}},
                          {{kUser, "a"}, {kUser, "b"}},
                          {{kUser, "a"}, {kSystem, "b"}},
                          {{kSystem, "a"}, {kSystem, "b"}, {kUser, "c"}},
                          {{kUser, "a"}, {kAssistant, "b"}, {kAssistant, "c"}}};
  for (const Messages& messages : bad) {
    EXPECT_EQ(chat.render(messages).error().code(), ErrorCode::invalid_argument);
    EXPECT_EQ(chat.encode(messages).error().code(), ErrorCode::invalid_argument);
  }
  const Messages good = {{kSystem, "s"}, {kUser, "a"}, {kAssistant, "b"}, {kUser, "c"}};
  EXPECT_TRUE(chat.encode(good, 3));
  EXPECT_EQ(chat.encode(good, 5).error().code(), ErrorCode::out_of_range);
  for (const std::size_t done : {1, 2, 4}) EXPECT_EQ(chat.encode(good, done).error().code(), ErrorCode::invalid_argument);
}

TEST(ChatTemplate, WhatEndsAReply) {
  const Tokenizer marks = byte_pairs(TokenKind::normal);  // <|im_end|> is not known as an end by its kind
  const ChatTemplate chatml = must(ChatTemplate::named("chatml", marks));
  EXPECT_TRUE(chatml.notes().empty());
  EXPECT_TRUE(chatml.ends_reply(*marks.find("<|im_end|>")));
  EXPECT_TRUE(chatml.ends_reply(*marks.eos()));
  EXPECT_FALSE(chatml.ends_reply('a'));
  EXPECT_FALSE(chatml.ends_reply(-1));
  const Tokenizer bare = must(load_tokenizer(BpeBuilder().gguf()));
  const ChatTemplate missing = must(ChatTemplate::named("llama3", bare));
  ASSERT_EQ(missing.notes().size(), 1u);
  EXPECT_NE(missing.notes()[0].find("<|eot_id|>"), std::string::npos);
  const Tokenizer endless = must(load_tokenizer(VocabBuilder().gguf().scalar<std::int32_t>("tokenizer.ggml.eos_token_id", -1)));
  EXPECT_EQ(ChatTemplate::named("llama2", endless).error().code(), ErrorCode::not_found);
}

TEST(ChatTemplate, WhatWasMovedFromSaysSo) {
  Tokenizer t = byte_pairs(TokenKind::normal);
  ChatTemplate chat = must(ChatTemplate::named("chatml", t));
  const Tokenizer taken = std::move(t);
  EXPECT_EQ(ChatTemplate::named("chatml", t).error().code(), ErrorCode::wrong_state);  // NOLINT: what is left is what this is about
  EXPECT_EQ(ChatTemplate::named("llama2", t).error().code(), ErrorCode::wrong_state);
  const ChatTemplate kept = std::move(chat);
  const Messages messages = {{kUser, "Hi"}};
  EXPECT_EQ(chat.render(messages).error().code(), ErrorCode::wrong_state);  // NOLINT
  EXPECT_EQ(chat.encode(messages).error().code(), ErrorCode::wrong_state);
  EXPECT_FALSE(chat.ends_reply(0));
  EXPECT_TRUE(kept.encode(messages));
  const auto bytes = BpeBuilder().gguf().build();
  GgufFile file = must(GgufFile::parse(bytes));
  const GgufFile other = std::move(file);
  EXPECT_EQ(ChatTemplate::from_gguf(file, taken).error().code(), ErrorCode::wrong_state);  // NOLINT
  EXPECT_EQ(Tokenizer::from_gguf(file).error().code(), ErrorCode::wrong_state);
}

TEST(ChatTemplate, TheBeginningOfSequenceIsTheTokenizersChoice) {
  const Tokenizer without = must(load_tokenizer(VocabBuilder().gguf().scalar("tokenizer.ggml.add_bos_token", false)));
  for (const std::string_view name : ChatTemplate::names()) {
    const ChatTemplate chat = must(ChatTemplate::named(name, without));
    const Ids ids = must(chat.encode(Messages{{kUser, "Hi"}, {kAssistant, "Hi"}, {kUser, "Hi"}}));
    EXPECT_EQ(std::count(ids.begin(), ids.end(), *without.bos()), 0) << name;
  }
}

}  // namespace
}  // namespace mlxn::chat_template_suite
