#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

namespace mlxn {

/// Every way in which a call of this library can fail. The list is closed: a switch over it needs no default.
enum class ErrorCode : std::uint8_t {
  invalid_argument,  ///< a value outside its domain (a flag, an option, a name)
  bad_shape,         ///< a dimension, element count or stride that the operation does not take
  bad_dtype,         ///< an element or block type that the operation does not take
  aliased,           ///< operands overlap in a way the contract excludes
  out_of_range,      ///< an index, offset or position outside its object
  wrong_state,       ///< the call is not legal in the object's present state
  wrong_device,      ///< an object of another device
  unsupported,       ///< valid, but not implemented by this build or backend
  out_of_memory,     ///< an allocation failed or a limit on memory was reached
  limit_exceeded,    ///< a configured limit other than memory was reached
  not_found,         ///< a named thing (kernel, tensor, key, token, device) that does not exist
  io,                ///< the operating system refused a file operation
  corrupt_file,      ///< a file that breaks its format's rules
  compile,           ///< a run-time kernel did not compile
  device,            ///< a kernel or the driver reported a fault
  device_lost,       ///< the device is unusable until it is opened again
  timeout,           ///< a bounded wait ended first
  busy,              ///< a bounded queue is full
  cancelled,         ///< the caller asked to stop
  internal,          ///< a broken invariant of the library: please report it
};

/// What the code means in a few words, for messages and logs: "bad dtype", "input/output error".
[[nodiscard]] std::string_view to_string(ErrorCode code) noexcept;

/// What went wrong: a code and one line of text that names the operation, the argument, what was wanted and what came.
/// Copies share the text, never allocate and may cross threads.
class Error {
 public:
  /// Never throws: if the text cannot be stored, the code's own name stands in for it.
  explicit Error(ErrorCode code, std::string_view message = {}, std::string_view rule = {}) noexcept;
  // Not inline: every function that returns a Result destroys one, and would hold the code that counts a text's users.
  Error(const Error& other) noexcept;
  Error(Error&& other) noexcept;
  Error& operator=(const Error& other) noexcept;
  Error& operator=(Error&& other) noexcept;
  ~Error();

  [[nodiscard]] ErrorCode code() const noexcept { return code_; }
  [[nodiscard]] std::string_view message() const noexcept;
  /// The id of the format or contract rule that was broken ("V12"), or empty.
  [[nodiscard]] std::string_view rule() const noexcept;
  /// The driver's or operating system's own number (errno, CUresult), 0 if none.
  [[nodiscard]] std::int64_t native_code() const noexcept { return native_code_; }
  /// Whether the same call may succeed later: timeout, busy and out_of_memory only.
  [[nodiscard]] bool is_transient() const noexcept {
    return code_ == ErrorCode::timeout || code_ == ErrorCode::busy || code_ == ErrorCode::out_of_memory;
  }
  /// The same error with "context: " put before its text.
  [[nodiscard]] Error with_context(std::string_view context) const noexcept;
  [[nodiscard]] Error with_native_code(std::int64_t native_code) const noexcept;

 private:
  struct Text;
  std::shared_ptr<const Text> text_;
  std::int64_t native_code_ = 0;
  ErrorCode code_;
};

/// Thrown by Result::value() when there is none; only the caller's own use of value() throws it.
class BadResultAccess : public std::exception {
 public:
  explicit BadResultAccess(Error error) noexcept : error_(std::move(error)) {}
  [[nodiscard]] const char* what() const noexcept override { return "mlxn::Result holds an error"; }
  [[nodiscard]] const Error& error() const noexcept { return error_; }

 private:
  Error error_;
};

/// A value or an Error, with the member names of std::expected.
template <class T>
class [[nodiscard]] Result {
 public:
  using value_type = T;
  using error_type = Error;

  template <class U = T>
    requires(std::is_constructible_v<T, U> && !std::is_same_v<std::remove_cvref_t<U>, Result> &&
             !std::is_same_v<std::remove_cvref_t<U>, Error>)
  Result(U&& value) : state_(std::in_place_index<0>, std::forward<U>(value)) {}  // NOLINT: implicit by design
  Result(Error error) noexcept : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT

  [[nodiscard]] bool has_value() const noexcept { return state_.index() == 0; }
  explicit operator bool() const noexcept { return has_value(); }
  T& operator*() & noexcept { return *std::get_if<0>(&state_); }
  const T& operator*() const& noexcept { return *std::get_if<0>(&state_); }
  T&& operator*() && noexcept { return std::move(*std::get_if<0>(&state_)); }
  T* operator->() noexcept { return std::get_if<0>(&state_); }
  const T* operator->() const noexcept { return std::get_if<0>(&state_); }
  [[nodiscard]] const Error& error() const noexcept { return *std::get_if<1>(&state_); }
  T& value() & { return check(), **this; }
  const T& value() const& { return check(), **this; }
  T&& value() && { return check(), *std::move(*this); }
  template <class U>
  [[nodiscard]] T value_or(U&& other) const& {
    return has_value() ? **this : static_cast<T>(std::forward<U>(other));
  }
  /// f(value), which returns a Result; the error passes through.
  template <class F>
  auto and_then(F&& f) && -> std::invoke_result_t<F, T&&> {
    if (!has_value()) return error();
    return std::forward<F>(f)(*std::move(*this));
  }
  /// Result of f(value); the error passes through.
  template <class F>
  auto transform(F&& f) && -> Result<std::invoke_result_t<F, T&&>> {
    if (!has_value()) return error();
    return std::forward<F>(f)(*std::move(*this));
  }

 private:
  void check() const {
    if (!has_value()) throw BadResultAccess(error());
  }
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  using value_type = void;
  using error_type = Error;

  Result() noexcept = default;
  Result(Error error) noexcept : error_(std::move(error)) {}  // NOLINT

  [[nodiscard]] bool has_value() const noexcept { return !error_.has_value(); }
  explicit operator bool() const noexcept { return has_value(); }
  [[nodiscard]] const Error& error() const noexcept { return *error_; }
  void value() const {
    if (error_) throw BadResultAccess(*error_);
  }

 private:
  std::optional<Error> error_;
};

namespace detail {
/// The Error for the exception that is being handled.
[[nodiscard]] Error current_exception_error() noexcept;

/// Where exceptions of the standard library stop: every public function that may allocate runs its body in here.
template <class F>
auto guarded(F&& body) noexcept -> std::invoke_result_t<F> {
  try {
    return std::forward<F>(body)();
  } catch (...) {
    return current_exception_error();
  }
}
}  // namespace detail
}  // namespace mlxn

#define MLXN_CONCAT_INNER(a, b) a##b
#define MLXN_CONCAT(a, b) MLXN_CONCAT_INNER(a, b)
#define MLXN_TRY_IMPL(result, declaration, ...)           \
  auto result = (__VA_ARGS__);                            \
  if (!result.has_value()) return std::move(result).error(); \
  declaration = *std::move(result)

/// MLXN_TRY(auto v, expr): declares v from the value of a Result, or returns its error from the enclosing function.
#define MLXN_TRY(declaration, ...) MLXN_TRY_IMPL(MLXN_CONCAT(mlxn_result_, __LINE__), declaration, __VA_ARGS__)

/// MLXN_CHECK(expr): returns the error of a Result<void> (or of any Result whose value is not needed).
#define MLXN_CHECK(...)                                                              \
  do {                                                                               \
    auto mlxn_check_result = (__VA_ARGS__);                                          \
    if (!mlxn_check_result.has_value()) return mlxn_check_result.error();            \
  } while (false)
