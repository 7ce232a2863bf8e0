// Kernels of the user: compiled by NVRTC, loaded through the runtime's libraries of kernels.
#include <algorithm>

#include "backends/cuda/command_list.h"
#include "backends/cuda/device.h"
#include "backends/cuda/nvrtc.h"

namespace mlxn::cuda {
namespace {

constexpr std::uint32_t kSharedWithoutAsking = 48 << 10;  // more needs an attribute of the kernel

/// The number of parameters, of which each is asked for by its number.
std::size_t parameter_count(const void* function) noexcept {
  std::size_t count = 0, offset = 0, size = 0;
  while (count < 256 && cudaFuncGetParamInfo(function, count, &offset, &size) == cudaSuccess) ++count;
  static_cast<void>(cudaGetLastError());
  return count;
}

/// Whether the kernel takes what dispatches will give it: with fewer parameters than that, or other ones, a launch would read
/// past the arguments.
Result<void> check_parameters(const KernelInfo& info, std::string_view entry, const void* function) {
  const std::size_t wanted = info.bindings.size() + (info.constants_bytes > 0 ? 1 : 0);
  if (const std::size_t count = parameter_count(function); count != wanted) {
    return make_error(ErrorCode::invalid_argument, "{}: '{}' has {} parameters, {} bindings{} want {}", info.name, entry, count,
                      info.bindings.size(), info.constants_bytes > 0 ? " and constants" : "", wanted);
  }
  for (std::size_t i = 0; i < wanted; ++i) {
    std::size_t offset = 0, size = 0;
    static_cast<void>(cudaFuncGetParamInfo(function, i, &offset, &size));
    const std::size_t bytes = i < info.bindings.size() ? sizeof(void*) : info.constants_bytes;
    if (size != bytes) {
      return make_error(ErrorCode::invalid_argument, "{}: parameter {} of '{}' has {} bytes, {} has {}", info.name, i, entry, size,
                        i < info.bindings.size() ? "a pointer" : "the constants", bytes);
    }
  }
  return {};
}

/// Whether a group fits, and room for its shared memory.
Result<void> check_group(CudaDevice& device, const KernelInfo& info, const CudaSource& source, const void* function) {
  cudaFuncAttributes attributes{};
  if (const cudaError_t code = cudaFuncGetAttributes(&attributes, function); code != cudaSuccess) return device.failed(info.name, code);
  if (source.group_threads > static_cast<std::uint32_t>(std::max(attributes.maxThreadsPerBlock, 0))) {
    return make_error(ErrorCode::limit_exceeded, "{}: groups of {} threads, the kernel takes {} (it uses {} registers)", info.name,
                      source.group_threads, attributes.maxThreadsPerBlock, attributes.numRegs);
  }
  const std::uint64_t shared = attributes.sharedSizeBytes + source.shared_bytes;
  if (shared > device.capabilities().group_memory_bytes) {
    return make_error(ErrorCode::limit_exceeded, "{}: {} bytes of shared memory, the device has {}", info.name, shared,
                      device.capabilities().group_memory_bytes);
  }
  if (shared <= kSharedWithoutAsking) return {};
  const cudaError_t code = cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(source.shared_bytes));
  if (code != cudaSuccess) return device.failed(info.name, code);
  return {};
}

}  // namespace

Result<std::shared_ptr<const DeviceCode>> CudaDevice::compile(const KernelInfo& info, const CudaSource& source) {
  return mlxn::detail::guarded([&]() -> Result<std::shared_ptr<const DeviceCode>> {
    MLXN_CHECK(use());
    if (info.backend != "cuda") {
      return make_error(ErrorCode::invalid_argument, "{}: CUDA source for a device of {}", info.name, info.backend);
    }
    if (source.group_threads == 0 || source.group_threads > static_cast<std::uint32_t>(capabilities_.threads)) {
      return make_error(ErrorCode::limit_exceeded, "{}: groups of {} threads, wanted 1 to {}", info.name, source.group_threads,
                        capabilities_.threads);
    }
    const std::string& entry = source.entry.empty() ? info.name : source.entry;
    // All that the code depends on; each piece with its length, so that no two sources share a key.
    std::string key;
    const auto append = [&](std::string_view piece) { key.append(fmt::format("{}:", piece.size())).append(piece); };
    append(source.code);
    append(entry);
    for (const std::string& option : source.options) append(option);
    key += fmt::format("|{}|{}|{}|{}", source.group_threads, source.shared_bytes, info.bindings.size(), info.constants_bytes);
    {
      const std::lock_guard lock(code_mutex_);
      if (const auto known = code_.find(key); known != code_.end()) return known->second;
    }
    int major = 0, minor = 0;
    cudaError_t code = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal_);
    if (code == cudaSuccess) code = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, ordinal_);
    if (code != cudaSuccess) return failed(info.name, code);
    MLXN_TRY(const std::string image, compile_source(info.name, source.code, source.options, major * 10 + minor));
    cudaLibrary_t library = nullptr;
    code = cudaLibraryLoadData(&library, image.data(), nullptr, nullptr, 0, nullptr, nullptr, 0);
    if (code != cudaSuccess) return failed(fmt::format("{}: loading the compiled source", info.name), code);
    cudaKernel_t kernel = nullptr;
    code = cudaLibraryGetKernel(&kernel, library, entry.c_str());
    // Owns the library from here on.
    std::shared_ptr<const UserCode> made;
    try {
      made = std::make_shared<const UserCode>(ordinal_, library, kernel, source.group_threads, source.shared_bytes);
    } catch (...) {
      static_cast<void>(cudaLibraryUnload(library));
      throw;
    }
    if (is_fault(code)) return failed(info.name, code);
    if (code != cudaSuccess) {
      static_cast<void>(cudaGetLastError());
      return make_error(ErrorCode::not_found, "{}: the source has no extern \"C\" __global__ function '{}'", info.name, entry)
          .with_native_code(code);
    }
    MLXN_CHECK(check_parameters(info, entry, made->function()));
    MLXN_CHECK(check_group(*this, info, source, made->function()));
    const std::lock_guard lock(code_mutex_);
    return code_.try_emplace(std::move(key), std::move(made)).first->second;
  });
}

}  // namespace mlxn::cuda
