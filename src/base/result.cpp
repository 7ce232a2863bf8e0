#include "mlxn/result.h"

#include <string>

namespace mlxn {

struct Error::Text {
  std::string message;
  std::string rule;
};

std::string_view to_string(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::invalid_argument: return "invalid argument";
    case ErrorCode::bad_shape: return "bad shape";
    case ErrorCode::bad_dtype: return "bad dtype";
    case ErrorCode::aliased: return "aliased operands";
    case ErrorCode::out_of_range: return "out of range";
    case ErrorCode::wrong_state: return "wrong state";
    case ErrorCode::wrong_device: return "wrong device";
    case ErrorCode::unsupported: return "unsupported";
    case ErrorCode::out_of_memory: return "out of memory";
    case ErrorCode::limit_exceeded: return "limit exceeded";
    case ErrorCode::not_found: return "not found";
    case ErrorCode::io: return "input/output error";
    case ErrorCode::corrupt_file: return "corrupt file";
    case ErrorCode::compile: return "kernel compilation failed";
    case ErrorCode::device: return "device fault";
    case ErrorCode::device_lost: return "device lost";
    case ErrorCode::timeout: return "timeout";
    case ErrorCode::busy: return "busy";
    case ErrorCode::cancelled: return "cancelled";
    case ErrorCode::internal: return "internal error";
  }
  return "unknown error";
}

Error::Error(ErrorCode code, std::string_view message, std::string_view rule) noexcept : code_(code) {
  if (message.empty() && rule.empty()) return;
  try {
    text_ = std::make_shared<const Text>(Text{std::string(message), std::string(rule)});
  } catch (...) {
    // The code alone remains; message() then returns its name.
  }
}

Error::Error(const Error& other) noexcept = default;
Error::Error(Error&& other) noexcept = default;
Error& Error::operator=(const Error& other) noexcept = default;
Error& Error::operator=(Error&& other) noexcept = default;
Error::~Error() = default;

std::string_view Error::message() const noexcept {
  return text_ && !text_->message.empty() ? std::string_view(text_->message) : to_string(code_);
}

std::string_view Error::rule() const noexcept { return text_ ? std::string_view(text_->rule) : std::string_view(); }

Error Error::with_context(std::string_view context) const noexcept {
  try {
    Error out(code_, std::string(context) + ": " + std::string(message()), rule());
    out.native_code_ = native_code_;
    return out;
  } catch (...) {
    return *this;
  }
}

Error Error::with_native_code(std::int64_t native_code) const noexcept {
  Error out = *this;
  out.native_code_ = native_code;
  return out;
}

Error detail::current_exception_error() noexcept {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::out_of_memory);
  } catch (const std::exception& e) {
    return Error(ErrorCode::internal, e.what());
  } catch (...) {
    return Error(ErrorCode::internal, "unknown exception");
  }
}

}  // namespace mlxn
