#include "mlxn/chat.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "base/error.h"
#include "base/system_memory.h"
#include "cli/inference.h"

namespace mlxn::cli {
namespace {

enum class Read : std::uint8_t { message, interrupted, end };

/// The next message of stdin: a line, or several that end in \ but for the last.
Result<Read> read_message(bool shows_prompt, std::string& message) {
  message.clear();
  for (bool first = true;; first = false) {
    if (shows_prompt) show(first ? "> " : "\\ ");
    char* data = nullptr;
    std::size_t capacity = 0;
    errno = 0;
    const ssize_t length = ::getline(&data, &capacity, stdin);
    const int code = errno;
    const std::unique_ptr<char, decltype(&std::free)> line(data, &std::free);
    if (interrupted()) {
      clear_interrupt();
      std::clearerr(stdin);
      return Read::interrupted;
    }
    if (length < 0) {
      if (std::ferror(stdin) != 0) return make_error(ErrorCode::io, "cannot read stdin: {}", std::strerror(code)).with_native_code(code);
      return first ? Read::end : Read::message;
    }
    message.append(line.get(), static_cast<std::size_t>(length));
    if (message.ends_with('\n')) message.pop_back();
    if (message.ends_with('\r')) message.pop_back();
    if (!message.ends_with('\\')) return Read::message;
    message.back() = '\n';
  }
}

Result<ChatTemplate> choose_template(const ChatFlags& flags, const OpenedFile& opened) {
  auto chosen = flags.template_name ? ChatTemplate::named(*flags.template_name, opened.tokenizer)
                                    : ChatTemplate::from_gguf(opened.file, opened.tokenizer);
  if (!chosen && !flags.template_name) {
    return make_error(chosen.error().code(), "{} (--template NAME takes one of them)", chosen.error().message());
  }
  return chosen;
}

/// A conversation and the model's state after it.
class Conversation {
 public:
  Conversation(ChatTemplate chat_template, Tokenizer tokenizer, Session session, Sampler sampler, std::int64_t predict,
               Clock::time_point start)
      : template_(std::move(chat_template)),
        tokenizer_(std::move(tokenizer)),
        session_(std::move(session)),
        sampler_(std::move(sampler)),
        predict_(predict),
        start_(start) {}

  void say_system(std::string text) { messages_.push_back({ChatRole::system, std::move(text)}); }

  /// Adds a message and prints the reply to it. A message that does not fit (out_of_range), and one during whose reading
  /// Ctrl-C came (cancelled), is not part of the conversation, which can go on. False if stdout is closed.
  Result<bool> say(std::string text) {
    messages_.push_back({ChatRole::user, std::move(text)});
    const std::int64_t before = session_.length();
    const auto logits = read_last();
    if (!logits) {
      messages_.pop_back();
      MLXN_CHECK(session_.truncate(before));
      return logits.error();
    }
    return reply(*logits);
  }

  [[nodiscard]] const Timing& timing() const noexcept { return timing_; }
  [[nodiscard]] const Session& session() const noexcept { return session_; }
  void set_load_seconds(double seconds) noexcept { timing_.load = seconds; }

 private:
  /// Feeds what came after the last reply.
  Result<Tensor> read_last() {
    MLXN_TRY(const std::vector<TokenId> tokens, template_.encode(messages_, done_));
    const std::int64_t left = session_.context() - session_.length();
    if (static_cast<std::int64_t>(tokens.size()) >= left) {
      return make_error(ErrorCode::out_of_range,
                        "the message takes {} positions and its reply more, the context of {} has {} left (raise it with -c)",
                        tokens.size(), session_.context(), left);
    }
    const auto begin = Clock::now();
    auto logits = append_prompt(session_, tokens);
    timing_.prompt += seconds_since(begin);
    timing_.prompt_tokens += tokens.size();
    if (logits && interrupted()) return Error(ErrorCode::cancelled);
    if (!logits) return logits.error();
    for (const TokenId token : tokens) MLXN_CHECK(sampler_.accept(token));
    return logits;
  }

  Result<bool> reply(const Tensor& logits) {
    const auto begin = Clock::now();
    std::string text;
    StreamDecoder shown(tokenizer_, {});
    bool full = false, unread = false;
    TokenId token = 0;
    for (std::int64_t count = 0; !interrupted() && (predict_ < 0 || count < predict_); ++count) {
      MLXN_TRY(token, unread ? session_.next(token, sampler_) : sampler_.next(logits));
      timing_.decoded += unread ? 1 : 0;
      unread = false;
      if (timing_.generated == 0) timing_.first_token = seconds_since(start_);
      ++timing_.generated;
      if (template_.ends_reply(token)) break;
      MLXN_TRY(const std::string piece, shown.push(token));
      text += piece;
      if (!print(piece)) return false;
      full = session_.length() == session_.context();
      if (full) break;
      unread = true;
    }
    // The last token of a reply is read, too: the next message comes after it.
    if (unread) MLXN_CHECK(session_.append({&token, 1}));
    timing_.generate += seconds_since(begin);
    const std::string rest = shown.flush();
    text += rest;
    if (!print(rest + "\n")) return false;
    if (full) complain(fmt::format("the reply ends here: the context of {} positions is full (raise it with -c)", session_.context()));
    messages_.push_back({ChatRole::assistant, std::move(text)});
    done_ = messages_.size();
    return true;
  }

  ChatTemplate template_;
  Tokenizer tokenizer_;
  Session session_;
  Sampler sampler_;
  std::int64_t predict_;
  Clock::time_point start_;
  std::vector<ChatMessage> messages_;
  std::size_t done_ = 0;  // messages that the session has read
  Timing timing_;
};

Result<int> chat(const ChatFlags& f) {
  const auto start = Clock::now();
  catch_interrupts(OnInterrupt::end);
  MLXN_TRY(const InferenceOptions options, read_flags(f.inference));
  MLXN_TRY(const OpenedFile opened, open_file(f.inference.model));
  MLXN_TRY(ChatTemplate chat_template, choose_template(f, opened));
  for (const std::string& note : chat_template.notes()) complain(note);
  catch_interrupts(OnInterrupt::stop_once);
  MLXN_TRY(const Model model, load_model(opened, options.load));
  MLXN_TRY(Session session, make_session(model, f.inference, options.session));
  MLXN_TRY(Sampler sampler, make_sampler(model, session, options.sampler));
  Conversation conversation(std::move(chat_template), opened.tokenizer, std::move(session), std::move(sampler),
                            f.inference.predict, start);
  conversation.set_load_seconds(seconds_since(start));
  if (f.system) conversation.say_system(*f.system);

  catch_interrupts(OnInterrupt::stop);
  const bool terminal = isatty(STDIN_FILENO) != 0;
  bool stopped = false;  // by Ctrl-C, where nobody is there to go on
  std::optional<std::string> first = f.prompt;
  for (std::string message;;) {
    if (first) {
      message = std::move(*first);
      first.reset();
    } else {
      MLXN_TRY(const Read read, read_message(terminal && shows_progress(), message));
      if (read == Read::end) break;
      if (read == Read::interrupted) {
        stopped = !terminal;
        if (stopped) break;
        show("\n(Ctrl-D ends the conversation)\n");
        continue;
      }
    }
    if (message.empty()) continue;
    const auto said = conversation.say(std::move(message));
    clear_interrupt();
    if (said && !*said) return kFailed;
    if (said) continue;
    // A person can go on; a script's next line would answer something that was never said.
    const bool cancelled = said.error().code() == ErrorCode::cancelled;
    stopped = cancelled && !terminal;
    if (stopped) break;
    if (!terminal || (!cancelled && said.error().code() != ErrorCode::out_of_range)) return said.error();
    complain(cancelled ? "stopped: the message was not read" : said.error().message());
  }
  if (terminal && shows_progress()) show("\n");
  if (stopped) complain("interrupted before a message was read");
  print_summary(conversation.timing(), model, conversation.session(), options.sampler.sample.seed);
  if (f.stats) {
    print_counters(opened.device);
    show(fmt::format("peak resident memory {} bytes\n", peak_resident_bytes()));
  }
  return stopped ? kInterrupted : kOk;
}

}  // namespace

int run_chat(const ChatFlags& flags) {
  const Result<int> result = detail::guarded([&] { return chat(flags); });
  return result ? *result : fail(result.error());
}

}  // namespace mlxn::cli
