#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/pre_tokenizer.h"

#include <pcre2.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "formats/utf8.h"
#include "tokenizer/unicode.h"

namespace mlxn::tokenizer {
namespace {

// The byte of a character from U+0080 on: 1 sets(4) class(3). White space is \v instead, which \s matches and no pattern
// names.
constexpr unsigned kSetBits = 4;
constexpr char kSpaceByte = '\v';
constexpr std::uint32_t kReplacement = 0xfffd;

constexpr unsigned char class_byte(CharClass c, unsigned sets) noexcept {
  return static_cast<unsigned char>(0x80u | sets << 3 | static_cast<unsigned>(c));
}

void* take(std::size_t bytes, void*) { return ::operator new(bytes, std::nothrow); }
void give_back(void* data, void*) { ::operator delete(data); }

template <auto free>
struct Free {
  template <class T>
  void operator()(T* object) const noexcept {
    free(object);
  }
};
using GeneralContext = std::unique_ptr<pcre2_general_context, Free<&pcre2_general_context_free>>;
using CompileContext = std::unique_ptr<pcre2_compile_context, Free<&pcre2_compile_context_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Free<&pcre2_match_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Free<&pcre2_match_data_free>>;
using Code = std::unique_ptr<pcre2_code, Free<&pcre2_code_free>>;

/// What \p{name} stands for, as bytes inside a bracket.
std::optional<std::string> members(std::string_view name, const SplitRule& rule) {
  struct Category {
    std::string_view name, ascii;
    CharClass c;
  };
  constexpr Category kCategories[] = {{"L", "A-Za-z", CharClass::letter},
                                      {"+L", "", CharClass::letter},
                                      {"M", "", CharClass::mark},
                                      {"N", "0-9", CharClass::number},
                                      {"P", "!-#%-*,-/:;?@\\[-\\]_{}", CharClass::punctuation},
                                      {"S", "$+<->^`|~", CharClass::symbol}};
  std::string out;
  const auto add_bytes = [&](auto&& belongs) {
    for (unsigned byte = 0x80; byte < 0x100; ++byte) {
      if (belongs(byte)) out += fmt::format("\\x{:02x}", byte);
    }
  };
  for (const Category& category : kCategories) {
    if (category.name != name) continue;
    out = category.ascii;
    add_bytes([&](unsigned byte) { return (byte & 7) == static_cast<unsigned>(category.c); });
    return out;
  }
  for (std::size_t i = 0; i < rule.sets.size(); ++i) {
    if (rule.sets[i].name != name) continue;
    out = rule.sets[i].ascii;
    add_bytes([&](unsigned byte) { return (byte >> 3 >> i & 1) != 0; });
    return out;
  }
  return std::nullopt;
}

/// The pattern over bytes of classes.
Result<std::string> expand(std::string_view pattern, const SplitRule& rule) {
  std::string out;
  bool in_bracket = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern.substr(i).starts_with("\\p{")) {
      const std::size_t end = pattern.find('}', i);
      const auto bytes = members(pattern.substr(i + 3, end - i - 3), rule);
      if (!bytes) return make_error(ErrorCode::internal, "tokenizer: a splitting pattern with an unknown class: {}", pattern);
      out += in_bracket ? *bytes : "[" + *bytes + "]";
      i = end;
    } else if (pattern[i] == '\\') {
      out += pattern.substr(i++, 2);
    } else {
      if (pattern[i] == '[') in_bracket = true;
      if (pattern[i] == ']') in_bracket = false;
      out += pattern[i];
    }
  }
  return out;
}

struct CompiledPattern {
  Code code;
  bool compiled = false;  // to machine code
};

Result<CompiledPattern> compile(std::string_view text, const SplitRule& rule, pcre2_compile_context* context) {
  MLXN_TRY(const std::string expanded, expand(text, rule));
  int error = 0;
  PCRE2_SIZE at = 0;
  CompiledPattern pattern;
  pattern.code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expanded.data()), expanded.size(),
                                   PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_UTF, &error, &at, context));
  if (!pattern.code) {
    if (error == PCRE2_ERROR_HEAP_FAILED) return Error(ErrorCode::out_of_memory);
    return make_error(ErrorCode::internal, "tokenizer: PCRE2 error {} at {} of a splitting pattern: {}", error, at, text);
  }
  // Fails where memory may not be made executable: the pattern is then interpreted, with the same result.
  pattern.compiled = pcre2_jit_compile(pattern.code.get(), PCRE2_JIT_COMPLETE) == 0;
  return pattern;
}

unsigned sets_of(std::uint32_t code_point, std::span<const CharSet> sets) noexcept {
  unsigned bits = 0;
  for (std::size_t i = 0; i < sets.size(); ++i) {
    const auto range = std::lower_bound(sets[i].ranges.begin(), sets[i].ranges.end(), code_point,
                                        [](const CharSet::Range& r, std::uint32_t wanted) { return r.last < wanted; });
    if (range != sets[i].ranges.end() && range->first <= code_point) bits |= 1u << i;
  }
  return bits;
}

void classes_of(std::string_view text, std::span<const CharSet> sets, std::string& out) {
  out.resize(text.size());
  std::size_t count = 0;
  for (std::size_t at = 0; at < text.size();) {
    if (static_cast<unsigned char>(text[at]) < 0x80) {
      out[count++] = text[at++];
      continue;
    }
    const Utf8Step step = utf8_step(text.substr(at));
    const bool whole = step.kind == Utf8Step::Kind::whole;
    const std::size_t bytes = whole ? step.bytes : 1;
    const std::uint32_t code_point = whole ? code_point_of(text.substr(at, bytes)) : kReplacement;
    const CharClass c = char_class(code_point);
    out[count++] = c == CharClass::space ? kSpaceByte : static_cast<char>(class_byte(c, sets_of(code_point, sets)));
    at += bytes;
  }
  out.resize(count);
}

}  // namespace

struct PreTokenizer::Impl {
  GeneralContext memory;
  std::vector<CompiledPattern> steps;
  std::span<const CharSet> sets;
};

struct PreTokenizer::Workspace::Impl {
  MatchData data;
  MatchContext context;
  std::string classes;
};

namespace {

/// One text on its way through the steps. Each piece goes through all of them before the next one is looked for, so that
/// no list of pieces is kept.
class Splitter {
 public:
  Splitter(std::span<const CompiledPattern> steps, pcre2_match_data* data, pcre2_match_context* context, std::string_view text,
           std::string_view classes, const PreTokenizer::Visit& visit)
      : steps_(steps), data_(data), context_(context), text_(text), classes_(classes), visit_(visit) {}

  Result<void> run() { return split(0, 0, classes_.size()); }

 private:
  /// The piece from character `begin` to `end`, by the steps from `step` on.
  Result<void> split(std::size_t step, std::size_t begin, std::size_t end) {
    if (begin == end) return {};
    if (step == steps_.size() || end - begin == 1) return emit(end - begin);
    const PCRE2_SIZE length = end - begin;
    for (PCRE2_SIZE at = 0; at < length;) {
      const auto match = find(steps_[step], begin, length, at);
      if (!match) return match.error();
      if (match->begin == match->end) return split(step + 1, begin + at, end);  // none
      MLXN_CHECK(split(step + 1, begin + at, begin + match->begin));
      MLXN_CHECK(split(step + 1, begin + match->begin, begin + match->end));
      at = match->end;
    }
    return {};
  }

  struct Match {
    PCRE2_SIZE begin, end;
  };
  /// The first match in `length` characters from `begin` on that starts at `at` or later.
  Result<Match> find(const CompiledPattern& pattern, std::size_t begin, PCRE2_SIZE length, PCRE2_SIZE at) {
    const auto subject = reinterpret_cast<PCRE2_SPTR>(classes_.data() + begin);
    int found = PCRE2_ERROR_JIT_STACKLIMIT;
    if (pattern.compiled) {
      found = pcre2_jit_match(pattern.code.get(), subject, length, at, 0, data_, context_);
    }
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
      found = pcre2_match(pattern.code.get(), subject, length, at, PCRE2_NO_JIT, data_, context_);
    }
    if (found == PCRE2_ERROR_NOMATCH) return Match{length, length};
    if (found >= 0) {
      const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data_);
      return Match{ends[0], ends[1]};
    }
    switch (found) {
      case PCRE2_ERROR_NOMEMORY:
      case PCRE2_ERROR_HEAPLIMIT:
        return Error(ErrorCode::out_of_memory);
      case PCRE2_ERROR_MATCHLIMIT:
      case PCRE2_ERROR_DEPTHLIMIT:
        return make_error(ErrorCode::limit_exceeded, "tokenizer: a piece of {} characters takes too long to split", length);
      default:
        return make_error(ErrorCode::internal, "tokenizer: PCRE2 error {}", found);
    }
  }

  Result<void> emit(std::size_t characters) {
    std::size_t bytes = characters;
    if (classes_.size() != text_.size()) {
      for (bytes = 0; characters > 0; --characters) {
        const Utf8Step step = utf8_step(text_.substr(done_ + bytes));
        bytes += step.kind == Utf8Step::Kind::whole ? step.bytes : 1;
      }
    }
    const std::string_view word = text_.substr(done_, bytes);
    done_ += bytes;
    return visit_(word);
  }

  std::span<const CompiledPattern> steps_;
  pcre2_match_data* data_;
  pcre2_match_context* context_;
  std::string_view text_;
  std::string_view classes_;
  const PreTokenizer::Visit& visit_;
  std::size_t done_ = 0;  // bytes of the text
};

}  // namespace

PreTokenizer::PreTokenizer(std::unique_ptr<const Impl> impl) noexcept : impl_(std::move(impl)) {}
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;
PreTokenizer::~PreTokenizer() = default;

Result<PreTokenizer> PreTokenizer::make(const SplitRule& rule) {
  if (rule.sets.size() > kSetBits) return make_error(ErrorCode::internal, "tokenizer: a splitting rule with too many sets");
  auto impl = std::make_unique<Impl>();
  impl->sets = rule.sets;
  impl->memory.reset(pcre2_general_context_create(&take, &give_back, nullptr));
  if (!impl->memory) return Error(ErrorCode::out_of_memory);
  const CompileContext context(pcre2_compile_context_create(impl->memory.get()));
  if (!context) return Error(ErrorCode::out_of_memory);
  for (const std::string_view step : rule.steps) {
    MLXN_TRY(CompiledPattern pattern, compile(step, rule, context.get()));
    impl->steps.push_back(std::move(pattern));
  }
  return PreTokenizer(std::move(impl));
}

PreTokenizer::Workspace::Workspace(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
PreTokenizer::Workspace::Workspace(Workspace&&) noexcept = default;
PreTokenizer::Workspace& PreTokenizer::Workspace::operator=(Workspace&&) noexcept = default;
PreTokenizer::Workspace::~Workspace() = default;

Result<PreTokenizer::Workspace> PreTokenizer::workspace() const {
  auto impl = std::make_unique<Workspace::Impl>();
  impl->data.reset(pcre2_match_data_create(1, impl_->memory.get()));
  impl->context.reset(pcre2_match_context_create(impl_->memory.get()));
  if (!impl->data || !impl->context) return Error(ErrorCode::out_of_memory);
  return Workspace(std::move(impl));
}

Result<void> PreTokenizer::split(std::string_view text, Workspace& workspace, const Visit& visit) const {
  Workspace::Impl& w = *workspace.impl_;
  // No pattern looks at a character more than a few times, however long the text.
  constexpr std::uint64_t kSteps = 32, kLeast = 10'000'000;
  const std::uint64_t limit = std::max<std::uint64_t>(kLeast, kSteps * text.size());
  pcre2_set_match_limit(w.context.get(), static_cast<std::uint32_t>(std::min<std::uint64_t>(limit, std::numeric_limits<std::uint32_t>::max())));
  classes_of(text, impl_->sets, w.classes);
  return Splitter(impl_->steps, w.data.get(), w.context.get(), text, w.classes, visit).run();
}

}  // namespace mlxn::tokenizer
