#pragma once

#include <string_view>
#include <type_traits>
#include <utility>

#include "mlxn/result.h"

namespace mlxn {

/// The Error for the exception that is being handled, which a function of the caller's has thrown: invalid_argument with the
/// function's name and the exception's text. Memory that ran out in it stays out_of_memory.
[[nodiscard]] Error thrown_by_user(std::string_view function) noexcept;

/// What a function of the caller's returns, a Result. Its exceptions end here, so that none passes for a broken invariant of the
/// library.
template <class F>
[[nodiscard]] auto call_user(std::string_view function, F&& call) noexcept -> std::invoke_result_t<F> {
  try {
    return std::forward<F>(call)();
  } catch (...) {
    return thrown_by_user(function);
  }
}

}  // namespace mlxn
