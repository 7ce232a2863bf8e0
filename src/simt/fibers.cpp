#include "simt/fibers.h"

#include <sys/mman.h>

namespace mlxn::simt {
Stacks::~Stacks() {
  if (memory_ != nullptr) munmap(memory_, count_ * (kGuardBytes + kBytes));
}

bool Stacks::reserve(std::size_t count) noexcept {
  if (count <= count_) return true;
  if (memory_ != nullptr) munmap(memory_, count_ * (kGuardBytes + kBytes));
  count_ = 0;
  void* const memory = mmap(nullptr, count * (kGuardBytes + kBytes), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  memory_ = memory == MAP_FAILED ? nullptr : static_cast<std::byte*>(memory);
  if (memory_ == nullptr) return false;
  for (std::size_t i = 0; i < count; ++i) {
    if (mprotect(memory_ + i * (kGuardBytes + kBytes) + kGuardBytes, kBytes, PROT_READ | PROT_WRITE) != 0) {
      munmap(memory_, count * (kGuardBytes + kBytes));
      memory_ = nullptr;
      return false;
    }
  }
  count_ = count;
  return true;
}

Context detail::make(const Stacks& stacks, std::size_t i, void (*begin)(boost::context::detail::transfer_t)) {
  const Extent stack = stacks.at(i);
  // Equal frames of all threads would share the same few sets of the processor's cache: each begins elsewhere in its page.
  const std::size_t bytes = stack.bytes - i % 16 * 256;
  return boost::context::detail::make_fcontext(reinterpret_cast<void*>(stack.begin + bytes), bytes, begin);
}

}  // namespace mlxn::simt
