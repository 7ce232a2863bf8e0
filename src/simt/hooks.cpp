// What the compiler calls before the loads and stores of kernels, which are compiled with -fsanitize=thread for that alone:
// no sanitizer's runtime is linked. (-fsanitize=kernel-address would not do: it leaves the store of `*p += v` out, having
// seen the load.)

#define MLXN_EMULATED  // declares what the kernels call
#include "simt/machine.h"
#include "simt/memory.h"

namespace mlxn::simt {
namespace {

template <Operation operation>
[[gnu::noinline]] void general_access(Memory& memory, std::uintptr_t address, std::size_t bytes, std::size_t alignment) {
  AccessFault fault = memory.check(address, bytes, operation);
  if (fault.kind == AccessFault::Kind::none && address % alignment != 0) {
    fault.kind = AccessFault::Kind::misaligned;
    fault.alignment = alignment;
  }
  if (fault.kind != AccessFault::Kind::none) running_machine->fail(fault);
}

[[gnu::noinline, noreturn]] void fail(std::uintptr_t address, std::size_t bytes, Operation operation, const Finding& finding,
                                      std::size_t offset) {
  running_machine->fail({finding.trouble == Trouble::race ? AccessFault::Kind::race : AccessFault::Kind::unwritten, operation, address,
                         bytes, address + (finding.offset - offset), finding.conflict, 1});
}

/// An access as wide as its type, whose address is a multiple of kAlignment in a correct kernel.
template <std::size_t kBytes, Operation operation>
inline void access(const void* pointer) {
  constexpr std::size_t kAlignment = kBytes < 8 ? kBytes : 8;  // what the compiler promises of wider types, too
  Memory* const memory = memory_of_kernel;
  if (memory == nullptr) return;
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  if (memory->stack.holds(address)) return;
  if (address % kAlignment == 0) [[likely]] {
    const Now& now = memory->now;
    if (memory->shared.holds(address, kBytes)) {
      const std::size_t offset = address - memory->shared.begin;
      const Finding finding = touch<operation>(memory->shared_shadow, offset, kBytes, now, now.barrier, now.group, false);
      if (finding.trouble != Trouble::none) [[unlikely]] fail(address, kBytes, operation, finding, offset);
      return;
    }
    const Segment& segment = memory->segments[memory->recent[Memory::recent_slot(address)]];
    if (segment.extent.holds(address, kBytes)) {
      if (segment.writable) {
        const std::size_t offset = segment.extent.begin % 4 + (address - segment.extent.begin);
        const Finding finding = touch<operation>(segment.shadow, offset, kBytes, now, now.launch, now.launch, segment.readable);
        if (finding.trouble != Trouble::none) [[unlikely]] fail(address, kBytes, operation, finding, offset);
        return;
      }
      if (operation == Operation::load) return;
    }
  }
  general_access<operation>(*memory, address, kBytes, kAlignment);
}

template <Operation operation>
inline void access_range(const void* pointer, std::size_t bytes) {
  if (Memory* const memory = memory_of_kernel) general_access<operation>(*memory, reinterpret_cast<std::uintptr_t>(pointer), bytes, 1);
}

}  // namespace
}  // namespace mlxn::simt

namespace mlxn::gpu {

std::uint32_t atomic_add(std::uint32_t* p, std::uint32_t v) {
  simt::access<sizeof(v), simt::Operation::atomic>(p);
  const std::uint32_t before = *p;
  *p = before + v;
  return before;
}

void check_alignment(const void* p, std::uint32_t bytes) {
  simt::Memory* const memory = simt::memory_of_kernel;
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  if (memory == nullptr || address % bytes == 0) [[likely]] return;
  simt::general_access<simt::Operation::load>(*memory, address, bytes, bytes);
}

}  // namespace mlxn::gpu

#define MLXN_HOOKS(bytes)                                                                                            \
  void __tsan_read##bytes(const void* p) { mlxn::simt::access<bytes, mlxn::simt::Operation::load>(p); }             \
  void __tsan_write##bytes(const void* p) { mlxn::simt::access<bytes, mlxn::simt::Operation::store>(p); }           \
  void __tsan_unaligned_read##bytes(const void* p) { mlxn::simt::access_range<mlxn::simt::Operation::load>(p, bytes); } \
  void __tsan_unaligned_write##bytes(const void* p) { mlxn::simt::access_range<mlxn::simt::Operation::store>(p, bytes); }

extern "C" {
MLXN_HOOKS(1)
MLXN_HOOKS(2)
MLXN_HOOKS(4)
MLXN_HOOKS(8)
MLXN_HOOKS(16)
void __tsan_read_range(const void* p, std::size_t bytes) { mlxn::simt::access_range<mlxn::simt::Operation::load>(p, bytes); }
void __tsan_write_range(const void* p, std::size_t bytes) { mlxn::simt::access_range<mlxn::simt::Operation::store>(p, bytes); }
void __tsan_init() {}
}
