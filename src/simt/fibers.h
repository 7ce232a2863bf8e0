#pragma once

#include <boost/context/detail/fcontext.hpp>
#include <cstddef>
#include <cstdint>

#include "simt/memory.h"

namespace mlxn::simt {

using Context = boost::context::detail::fcontext_t;

/// Stacks of the threads of a group, kept from launch to launch. Memory that nobody may touch lies below each; no kernel gets
/// there, as the build refuses frames that are too large (cmake/MlxnSimt.cmake).
class Stacks {
 public:
  static constexpr std::size_t kBytes = std::size_t{64} << 10;
  static constexpr std::size_t kGuardBytes = std::size_t{64} << 10;  // a multiple of any page size

  Stacks() = default;
  ~Stacks();
  Stacks(const Stacks&) = delete;
  Stacks& operator=(const Stacks&) = delete;

  /// Room for so many; false without memory.
  [[nodiscard]] bool reserve(std::size_t count) noexcept;
  /// Whether an address is in a stack or between stacks.
  [[nodiscard]] bool holds(std::uintptr_t address) const noexcept {
    return Extent{reinterpret_cast<std::uintptr_t>(memory_), count_ * (kGuardBytes + kBytes)}.holds(address);
  }
  [[nodiscard]] Extent at(std::size_t i) const noexcept {
    return {reinterpret_cast<std::uintptr_t>(memory_) + i * (kGuardBytes + kBytes) + kGuardBytes, kBytes};
  }

 private:
  std::byte* memory_ = nullptr;
  std::size_t count_ = 0;
};

namespace detail {
inline void keep(const boost::context::detail::transfer_t& came) { *static_cast<Context*>(came.data) = came.fctx; }
template <void (*entry)()>
void begin(boost::context::detail::transfer_t came) {
  keep(came);
  entry();
}
[[nodiscard]] Context make(const Stacks& stacks, std::size_t i, void (*begin)(boost::context::detail::transfer_t));
}  // namespace detail

/// A context that calls `entry`, which never returns, on stack i. Whatever ran on the stack before is forgotten.
template <void (*entry)()>
[[nodiscard]] Context make_context(const Stacks& stacks, std::size_t i) {
  return detail::make(stacks, i, detail::begin<entry>);
}

/// Goes on with `to`; what runs now is kept in `from`, and goes on when somebody switches to that.
inline void switch_to(Context to, Context& from) { detail::keep(boost::context::detail::jump_fcontext(to, &from)); }

}  // namespace mlxn::simt
