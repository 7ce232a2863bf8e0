#include "base/call_user.h"

#include <exception>
#include <new>

#include "base/error.h"

namespace mlxn {

Error thrown_by_user(std::string_view function) noexcept {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::out_of_memory);
  } catch (const std::exception& e) {
    return make_error(ErrorCode::invalid_argument, "{} threw: {}", function, e.what());
  } catch (...) {
    return make_error(ErrorCode::invalid_argument, "{} threw something that is no std::exception", function);
  }
}

}  // namespace mlxn
