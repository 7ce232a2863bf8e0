#pragma once

#include "mlxn/device.h"

/// CUDA's own handles, for programs that use the CUDA runtime beside this library. They are passed as void*, so that this
/// header needs none of CUDA's. In a build without the CUDA backend every call is `unsupported`, for another device it is
/// `wrong_device`.
///
/// The library works in the primary context of a GPU, as the CUDA runtime does. Its calls make their GPU current in the calling
/// thread and leave it so.
namespace mlxn::native {

/// The CUDA runtime's number of the GPU.
[[nodiscard]] Result<int> cuda_ordinal(const Device& device);

/// The cudaStream_t of a queue. It lives as long as the queue; a stream of the library's own must not be destroyed. Work that
/// the caller puts there takes part in the queue's order.
[[nodiscard]] Result<void*> cuda_stream(const Queue& queue);

/// A queue that submits to a cudaStream_t of the caller; null is the default stream of the legacy kind. Work of the library
/// and the caller's own then run in the order in which they were given to the stream. The stream must be of the device's GPU,
/// must live until the queue's handles are gone and its submissions have completed, and must not be capturing when work is
/// committed (wrong_state). Errors: invalid_argument (no stream), wrong_device, device_lost.
[[nodiscard]] Result<Queue> cuda_queue(const Device& device, void* stream);

/// The address, as kernels see it, of the first element; null for a tensor without elements. The caller orders accesses and
/// keeps the tensor. (Device::import_memory is the way back: it takes an address of the GPU's memory.)
[[nodiscard]] Result<void*> cuda_pointer(const Tensor& tensor);

}  // namespace mlxn::native
