// The linker sends every call of gpu::encode_erased, the one door of portable kernels, through here (--wrap in CMakeLists.txt).
#include "tests/bundle/launched.h"

#include <algorithm>
#include <mutex>
#include <set>

#include "backends/cuda/kernel_table.h"
#include "backends/gpu/launch.h"

#define MLXN_ENCODE "_ZN4mlxn3gpu13encode_erasedERNS_14CommandEncoderERKNS0_10KernelInfoENS0_4GridEPKvRKNS_12LaunchRecordE"

namespace mlxn::test {
namespace {

std::mutex mutex;
std::set<std::string, std::less<>>& launched() {
  static std::set<std::string, std::less<>> names;
  return names;
}

}  // namespace

// Seen by the linker alone.
Result<void> real_encode(CommandEncoder& encoder, const gpu::KernelInfo& kernel, gpu::Grid grid, const void* args,
                         const LaunchRecord& record) __asm__("__real_" MLXN_ENCODE);
Result<void> wrapped_encode(CommandEncoder& encoder, const gpu::KernelInfo& kernel, gpu::Grid grid, const void* args,
                            const LaunchRecord& record) __asm__("__wrap_" MLXN_ENCODE);
Result<void> wrapped_encode(CommandEncoder& encoder, const gpu::KernelInfo& kernel, gpu::Grid grid, const void* args,
                            const LaunchRecord& record) {
  {
    const std::lock_guard lock(mutex);
    launched().emplace(kernel.name);
  }
  return real_encode(encoder, kernel, grid, args, record);
}

std::vector<std::string> launched_kernels() {
  const std::lock_guard lock(mutex);
  return {launched().begin(), launched().end()};
}

std::vector<std::string> built_kernels() {
  std::vector<std::string> names;
  int count = 0;
  const cuda::KernelTable* const* tables = cuda::kernel_tables(count);
  for (int i = 0; i < count; ++i) {
    for (int k = 0; k < tables[i]->count; ++k) names.emplace_back(tables[i]->entries[k].name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace mlxn::test
