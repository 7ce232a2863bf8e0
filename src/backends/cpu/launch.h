#pragma once

#include "backends/cpu/context.h"
#include "backends/launch.h"

namespace mlxn::cpu {

using ErasedKernel = void (*)(const void* args, const CpuContext& context);

/// A typed handle of a CPU kernel: the wrong launch struct does not compile.
template <class Args>
struct Kernel {
  std::string_view name;
  ErasedKernel run = nullptr;
};

namespace detail {
template <auto F>
struct Thunk;
template <class Args, void (*F)(const Args&, const CpuContext&)>
struct Thunk<F> {
  using ArgsType = Args;
  static void run(const void* args, const CpuContext& context) { F(*static_cast<const Args*>(args), context); }
};
}  // namespace detail

/// The handle of `void f(const Args&, const CpuContext&)`.
template <auto F>
[[nodiscard]] constexpr auto kernel(std::string_view name) noexcept {
  return Kernel<typename detail::Thunk<F>::ArgsType>{name, &detail::Thunk<F>::run};
}

/// The number of threads that will run what `encoder` records.
[[nodiscard]] int threads(const CommandEncoder& encoder) noexcept;

/// Scratch memory for the dispatches being recorded, aligned to 64 bytes: later requests may hand out the same bytes again,
/// which the hazard tracker orders. Bind it like any tensor. u8 [bytes].
[[nodiscard]] Result<Tensor> scratch(CommandEncoder& encoder, std::uint64_t bytes);

/// Records one dispatch.
[[nodiscard]] Result<void> encode_erased(CommandEncoder& encoder, std::string_view name, ErasedKernel run, const void* args,
                                         std::size_t args_bytes, const LaunchRecord& record);
template <class Args>
[[nodiscard]] Result<void> encode(CommandEncoder& encoder, const Kernel<Args>& kernel, const Launch<Args>& launch) {
  return encode_erased(encoder, kernel.name, kernel.run, &launch.args, sizeof(Args), launch.record);
}

}  // namespace mlxn::cpu
