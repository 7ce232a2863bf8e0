#include <cuda.h>

#include <cstring>

#include "backends/cuda/device.h"
#include "backends/gpu/tensor_map.h"
#include "base/error.h"

namespace mlxn::cuda {
namespace {

static_assert(sizeof(gpu::TensorMap) == sizeof(CUtensorMap));

/// The driver's function, which nothing links against; null if it has none.
decltype(&cuTensorMapEncodeTiled) encode_function() noexcept {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found{};
  constexpr unsigned kSince = 12000;
  if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, kSince, cudaEnableDefault, &found) != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return nullptr;
  }
  return found == cudaDriverEntryPointSuccess ? reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(entry) : nullptr;
}

}  // namespace

Result<void> CudaDevice::tensor_map(gpu::TensorMap& map, const gpu::TensorMapSpec& spec) {
  static const auto encode = encode_function();
  if (encode == nullptr) return make_error(ErrorCode::unsupported, "{}: the driver makes no tensor maps", capabilities_.id);
  const CUtensorMapDataType type = spec.element_bytes == 2 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_INT64;
  const cuuint64_t sizes[2] = {spec.columns, spec.rows}, strides[1] = {spec.row_bytes};
  const cuuint32_t box[2] = {spec.box_columns, spec.box_rows}, steps[2] = {1, 1};
  CUtensorMap made{};
  const CUresult code = encode(&made, type, 2, const_cast<std::byte*>(spec.base), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                               spec.swizzle128 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE,
                               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (code != CUDA_SUCCESS) {
    return make_error(ErrorCode::internal, "{}: no tensor map of {} x {} elements, box {} x {} (driver error {})", capabilities_.id, spec.rows,
                      spec.columns, spec.box_rows, spec.box_columns, static_cast<int>(code));
  }
  std::memcpy(&map, &made, sizeof(map));
  return {};
}

}  // namespace mlxn::cuda
