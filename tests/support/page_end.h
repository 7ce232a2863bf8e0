#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>

#include "mlxn/device.h"
#include "tests/support/must.h"

namespace mlxn::test {

/// A CPU tensor with these storage bytes whose last byte is the last of a page that nothing follows: an operation that
/// reads or writes beyond it is stopped by the system, also where guards could not tell.
inline Tensor at_page_end(const Device& device, DType dtype, const Shape& shape, std::span<const std::byte> bytes) {
  const auto page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  const std::uint64_t usable = (bytes.size() + page - 1) / page * page;
  void* memory = mmap(nullptr, usable + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED || mprotect(static_cast<std::byte*>(memory) + usable, page, PROT_NONE) != 0) {
    throw std::runtime_error("at_page_end: the system refused the memory");
  }
  const Tensor pages = must(device.import_memory(memory, usable, [=] { munmap(memory, usable + page); }, DType::u8,
                                                 {static_cast<std::int64_t>(usable)}));
  const Tensor tensor = must(pages.reinterpret(dtype, shape, usable - bytes.size()));
  must(device.upload(tensor, bytes));
  return tensor;
}

}  // namespace mlxn::test
