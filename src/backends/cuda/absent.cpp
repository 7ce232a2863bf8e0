// What stands for the CUDA backend in a build that has none; MLXN_CUDA_ABSENCE says why it has none.
#include <unistd.h>

#include "backends/cuda/backend.h"
#include "base/error.h"
#include "mlxn/native/cuda.h"

namespace mlxn {
namespace cuda {
namespace {

Error absent(std::string_view what) noexcept {
  if (access("/dev/nvidia0", F_OK) == 0) {
    return make_error(ErrorCode::unsupported, "{}: an NVIDIA GPU is there, but this build has no CUDA backend: {}", what,
                      MLXN_CUDA_ABSENCE);
  }
  return make_error(ErrorCode::unsupported, "{}: this build has no CUDA backend: {}", what, MLXN_CUDA_ABSENCE);
}

Result<std::shared_ptr<DeviceImpl>> open(int ordinal, const DeviceOptions&, std::string_view) {
  return absent(fmt::format("cuda:{}", ordinal));
}
Result<std::shared_ptr<DeviceImpl>> open_best(const DeviceOptions&) { return absent("cuda"); }
Result<void> enumerate(std::vector<Capabilities>&) { return {}; }

}  // namespace

Backend backend() noexcept { return {"cuda", &open, &open_best, &enumerate}; }

}  // namespace cuda

namespace native {

Result<int> cuda_ordinal(const Device&) { return cuda::absent("cuda_ordinal"); }
Result<void*> cuda_stream(const Queue&) { return cuda::absent("cuda_stream"); }
Result<Queue> cuda_queue(const Device&, void*) { return cuda::absent("cuda_queue"); }
Result<void*> cuda_pointer(const Tensor&) { return cuda::absent("cuda_pointer"); }

}  // namespace native
}  // namespace mlxn
