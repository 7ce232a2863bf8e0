#include "backends/cuda/runtime.h"

namespace mlxn::cuda {
namespace {

ErrorCode code_of(cudaError_t code) noexcept {
  switch (code) {
    case cudaErrorMemoryAllocation: return ErrorCode::out_of_memory;
    case cudaErrorNoDevice:
    case cudaErrorInvalidDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorStubLibrary:
    case cudaErrorSystemDriverMismatch: return ErrorCode::not_found;
    default: return ErrorCode::device;
  }
}

}  // namespace

Error call_error(std::string_view what, cudaError_t code) noexcept {
  static_cast<void>(cudaGetLastError());
  return make_error(code_of(code), "cuda: {}: {} ({})", what, cudaGetErrorString(code), cudaGetErrorName(code)).with_native_code(code);
}

bool is_fault(cudaError_t code) noexcept {
  switch (code) {
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorIllegalInstruction:
    case cudaErrorHardwareStackError:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContained:
    case cudaErrorTensorMemoryLeak:
    case cudaErrorContextIsDestroyed:
    case cudaErrorExternalDevice:
    case cudaErrorUnknown: return true;
    default: return false;
  }
}

}  // namespace mlxn::cuda
