#include "mlxn/native/cuda.h"

#include "backends/cuda/device.h"
#include "backends/cuda/queue.h"

namespace mlxn::native {
namespace {

Result<cuda::CudaDevice*> cuda_device(std::string_view op, DeviceImpl* device) {
  if (device == nullptr) return make_error(ErrorCode::invalid_argument, "{}: empty handle", op);
  auto* const found = dynamic_cast<cuda::CudaDevice*>(device);
  if (found == nullptr) {
    return make_error(ErrorCode::wrong_device, "{}: the device is {}, wanted cuda", op, device->capabilities().backend);
  }
  return found;
}

}  // namespace

Result<int> cuda_ordinal(const Device& device) {
  MLXN_TRY(const cuda::CudaDevice* const found, cuda_device("cuda_ordinal", device.impl().get()));
  return found->ordinal();
}

Result<void*> cuda_stream(const Queue& queue) {
  MLXN_CHECK(cuda_device("cuda_stream", queue.defined() ? &queue.impl()->device() : nullptr));
  return static_cast<void*>(static_cast<cuda::CudaQueue&>(*queue.impl()).stream());
}

Result<Queue> cuda_queue(const Device& device, void* stream) {
  return mlxn::detail::guarded([&]() -> Result<Queue> {
    MLXN_TRY(cuda::CudaDevice* const found, cuda_device("cuda_queue", device.impl().get()));
    MLXN_TRY(auto queue, found->adopt_stream(static_cast<cudaStream_t>(stream)));
    return Queue(std::move(queue));
  });
}

Result<void*> cuda_pointer(const Tensor& tensor) {
  if (!tensor.defined()) return make_error(ErrorCode::invalid_argument, "cuda_pointer: empty tensor");
  if (!tensor.allocation()) return static_cast<void*>(nullptr);
  MLXN_CHECK(cuda_device("cuda_pointer", tensor.allocation()->device().get()));
  return static_cast<void*>(device_address(tensor));
}

}  // namespace mlxn::native
