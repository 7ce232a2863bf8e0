#pragma once

#include <functional>
#include <memory>
#include <string_view>

#include "mlxn/result.h"
#include "tokenizer/split_rules.h"

namespace mlxn::tokenizer {

/// Cuts text into words by a SplitRule. Immutable and shared between threads.
///
/// The patterns do not run over the text but over one byte per character: ASCII as it is, for the others their class and
/// the sets they are in. So the result does not depend on the version of Unicode that PCRE2 was built with, and a byte
/// that belongs to no valid UTF-8 is a character like any other (it has the class of U+FFFD, a symbol).
class PreTokenizer {
 public:
  /// Errors: out_of_memory, internal (a pattern that does not compile).
  [[nodiscard]] static Result<PreTokenizer> make(const SplitRule& rule);
  PreTokenizer(PreTokenizer&&) noexcept;
  PreTokenizer& operator=(PreTokenizer&&) noexcept;
  ~PreTokenizer();

  /// What split() works in: made once for the fragments of a text, used by one thread at a time.
  class Workspace {
   public:
    Workspace(Workspace&&) noexcept;
    Workspace& operator=(Workspace&&) noexcept;
    ~Workspace();

   private:
    friend class PreTokenizer;
    struct Impl;
    explicit Workspace(std::unique_ptr<Impl> impl) noexcept;
    std::unique_ptr<Impl> impl_;
  };
  /// Errors: out_of_memory.
  [[nodiscard]] Result<Workspace> workspace() const;

  using Visit = std::function<Result<void>(std::string_view)>;
  /// visit(word) for every word in order, none of them empty; together they are the text. Stops at the first error.
  [[nodiscard]] Result<void> split(std::string_view text, Workspace& workspace, const Visit& visit) const;

 private:
  struct Impl;
  explicit PreTokenizer(std::unique_ptr<const Impl> impl) noexcept;
  std::unique_ptr<const Impl> impl_;
};

}  // namespace mlxn::tokenizer
