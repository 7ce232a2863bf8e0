#pragma once

#include <cuda_runtime_api.h>

#include <string_view>

#include "base/error.h"

namespace mlxn::cuda {

/// The typed error of a failed call of the CUDA runtime; the thread's last error is cleared, so that nobody mistakes it for
/// one of a later call.
[[nodiscard]] Error call_error(std::string_view what, cudaError_t code) noexcept;

/// Whether the error is of work that ran on the device and leaves the context unusable.
[[nodiscard]] bool is_fault(cudaError_t code) noexcept;

/// Whether an event or stream has ended: cudaSuccess, cudaErrorNotReady, or a fault. "Not ready" is no error to remember.
[[nodiscard]] inline cudaError_t query(cudaEvent_t event) noexcept {
  const cudaError_t code = cudaEventQuery(event);
  if (code != cudaSuccess) static_cast<void>(cudaGetLastError());
  return code;
}

/// Whether the driver's library is on this machine. Where it is not, nothing of the runtime is called, which would set itself up
/// again at each call, only to fail.
[[nodiscard]] bool driver_is_installed() noexcept;

}  // namespace mlxn::cuda
