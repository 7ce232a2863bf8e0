#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

#include "backends/gpu/tensor_map.h"
#include "backends/launch.h"

namespace mlxn::gpu {

/// Groups of threads.
struct Grid {
  std::uint32_t x = 1, y = 1, z = 1;
};
inline constexpr std::uint32_t kMaxGridYZ = 65535;

/// What host code knows of a kernel. One object per kernel, of the portable ones made by MLXN_GPU_HANDLE.
struct KernelInfo {
  std::string_view name;
  std::uint32_t threads;       ///< of a group
  std::uint32_t shared_bytes;  ///< of a group, declared in the kernel
  std::uint32_t args_bytes;
  // Beyond the portable kernels:
  /// Shared memory of a group besides shared_bytes. Both together are at most the device's Capabilities::group_memory_bytes,
  /// of which more than 48 KiB are asked for by the launch.
  std::uint32_t dynamic_shared_bytes = 0;
  /// Groups that run together and reach each other's shared memory. Grids are multiples of it; at most 8 groups.
  Grid cluster = {};
  /// Programmatic dependent launch: the kernel may start before the one before it has ended. Every group of it waits
  /// (griddepcontrol.wait) before it touches memory that earlier work writes or that it writes itself, and thereby before it
  /// ends; what comes after relies on that. The portable kernels are compiled so for the devices that have it.
  bool starts_early = false;
  /// The backend's function, found by name at the first use. A process has one GPU backend at a time that keeps it here;
  /// the emulator's functions have a slot of their own.
  mutable std::atomic<const void*> device_function{nullptr};
  mutable std::atomic<const void*> simt_function{nullptr};
  /// CUDA devices, by ordinal, that were asked for its shared memory.
  mutable std::atomic<std::uint64_t> shared_allowed{0};
};

/// A typed handle of a portable kernel: the wrong launch struct does not compile.
template <class Args>
struct Kernel {
  const KernelInfo* info = nullptr;
};

/// Groups of `per_group` items each that hold `items` (> 0). bad_shape if they are more than a grid takes.
[[nodiscard]] Result<std::uint32_t> groups_for(std::string_view op, std::int64_t items, std::uint32_t per_group);

/// Whether the encoder's device runs portable kernels.
[[nodiscard]] bool on_gpu(const CommandEncoder& encoder) noexcept;
/// Groups that a launch needs at least to occupy the encoder's device: its multiprocessors or cores.
[[nodiscard]] std::uint32_t device_cores(const CommandEncoder& encoder) noexcept;

/// Whether the encoder's device runs the kernels written for every NVIDIA GPU.
[[nodiscard]] bool on_cuda(const CommandEncoder& encoder) noexcept;
/// Whether the encoder's device runs the kernels written for Hopper.
[[nodiscard]] bool on_hopper(const CommandEncoder& encoder) noexcept;
/// See DeviceImpl::tensor_map.
[[nodiscard]] Result<void> tensor_map(const CommandEncoder& encoder, TensorMap& map, const TensorMapSpec& spec);

/// Scratch memory for the dispatches being recorded, aligned to 256 bytes, uninitialised: later requests may hand out the
/// same bytes again, which the order of dispatches allows. Bind it like any tensor. u8 [bytes].
[[nodiscard]] Result<Tensor> scratch(CommandEncoder& encoder, std::uint64_t bytes);

/// 32-bit counters for blocks of one dispatch that wait for none but find out which comes last: zero when it begins, and it has
/// to leave them zero. All dispatches of a command list share them: they run one after the other, and a kernel that starts early has
/// waited for the one before by the time it counts. No launch ever sets them: they are zero from the allocation on, and go from
/// list to list so. u8 [4 * count].
[[nodiscard]] Result<Tensor> counters(CommandEncoder& encoder, std::uint64_t count);

/// Records one dispatch. An empty grid is an error; x is at most 2^31 - 1, y and z kMaxGridYZ. limit_exceeded if the kernel
/// wants more shared memory than the device has.
[[nodiscard]] Result<void> encode_erased(CommandEncoder& encoder, const KernelInfo& kernel, Grid grid, const void* args,
                                         const LaunchRecord& record);
template <class Args>
[[nodiscard]] Result<void> encode(CommandEncoder& encoder, const Kernel<Args>& kernel, Grid grid, const Launch<Args>& launch) {
  return encode_erased(encoder, *kernel.info, grid, &launch.args, launch.record);
}

}  // namespace mlxn::gpu

/// For a kernel header's list: MLXN_KERNELS(MLXN_GPU_HANDLE) makes a handle of each name.
#define MLXN_GPU_HANDLE(name, ...)                                                                                        \
  [[maybe_unused]] static const ::mlxn::gpu::KernelInfo name##_info{#name, __VA_ARGS__::kThreads, sizeof(__VA_ARGS__::Shared),               \
                                                   sizeof(__VA_ARGS__::Args), 0, {}, true};                                 \
  [[maybe_unused]] static constexpr ::mlxn::gpu::Kernel<__VA_ARGS__::Args> name{&name##_info};
