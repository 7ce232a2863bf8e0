#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "gtest/gtest.h"
#include "mlxn/device.h"
#include "mlxn/encoder.h"

namespace mlxn::test {

/// The value of a step that the test takes for granted. An error ends the test with the error's text.
template <class T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(std::string(to_string(result.error().code())) + ": " + std::string(result.error().message()));
  return *std::move(result);
}
inline void must(Result<void> result) {
  if (!result) throw std::runtime_error(std::string(to_string(result.error().code())) + ": " + std::string(result.error().message()));
}

/// Records one operation with record(encoder) and waits for it; the first error of either.
template <class Record>
[[nodiscard]] Result<void> run(const Device& device, Record&& record) {
  MLXN_TRY(CommandEncoder encoder, device.encoder());
  MLXN_CHECK(record(encoder));
  return encoder.commit_and_wait();
}

/// Whether the result is an error of this code whose text has all the words: the op's name, what was wanted, what came.
template <class T>
::testing::AssertionResult fails_with(const Result<T>& result, ErrorCode code, std::initializer_list<std::string_view> words) {
  if (result) return ::testing::AssertionFailure() << "succeeded, wanted " << to_string(code);
  const std::string_view text = result.error().message();
  if (result.error().code() != code) {
    return ::testing::AssertionFailure() << "wanted " << to_string(code) << ", got " << to_string(result.error().code()) << ": " << text;
  }
  for (const std::string_view word : words) {
    if (text.find(word) == std::string_view::npos) {
      return ::testing::AssertionFailure() << "\"" << text << "\" does not say \"" << word << "\"";
    }
  }
  return ::testing::AssertionSuccess();
}

}  // namespace mlxn::test
