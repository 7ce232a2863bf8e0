#include <cuda.h>

#include <cstring>

#include "backends/cuda/device.h"
#include "backends/gpu/tensor_map.h"
#include "base/error.h"

namespace mlxn::cuda {
namespace {

static_assert(sizeof(gpu::TensorMap) == sizeof(CUtensorMap));

/// A function of the driver, which nothing links against; null if it has none of that name.
template <class Function>
Function* driver_function(const char* name) noexcept {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found{};
  constexpr unsigned kSince = 12000;
  if (cudaGetDriverEntryPointByVersion(name, &entry, kSince, cudaEnableDefault, &found) != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return nullptr;
  }
  return found == cudaDriverEntryPointSuccess ? reinterpret_cast<Function*>(entry) : nullptr;
}

}  // namespace

Result<void> CudaDevice::tensor_map(gpu::TensorMap& map, const gpu::TensorMapSpec& spec) {
  static const auto encode = driver_function<decltype(cuTensorMapEncodeTiled)>("cuTensorMapEncodeTiled");
  if (encode == nullptr) return make_error(ErrorCode::unsupported, "{}: the driver makes no tensor maps", capabilities_.id);
  const CUtensorMapDataType type = spec.element_bytes == 2 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_INT64;
  const cuuint64_t sizes[3] = {spec.columns, spec.rows, spec.planes}, strides[2] = {spec.row_bytes, spec.plane_bytes};
  const cuuint32_t box[3] = {spec.box_columns, spec.box_rows, spec.box_planes}, steps[3] = {1, 1, 1};
  CUtensorMap made{};
  const CUresult code = encode(&made, type, spec.planes == 0 ? 2 : 3, const_cast<std::byte*>(spec.base), sizes, strides, box, steps,
                               CU_TENSOR_MAP_INTERLEAVE_NONE, spec.swizzle128 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE,
                               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (code != CUDA_SUCCESS) {
    return make_error(ErrorCode::internal, "{}: no tensor map of {} x {} x {} elements, box {} x {} x {} (driver error {})",
                      capabilities_.id, spec.planes, spec.rows, spec.columns, spec.box_planes, spec.box_rows, spec.box_columns,
                      static_cast<int>(code));
  }
  std::memcpy(&map, &made, sizeof(map));
  return {};
}

Result<void> CudaDevice::move_tensor_map(gpu::TensorMap& map, const std::byte* base) {
  static const auto replace = driver_function<decltype(cuTensorMapReplaceAddress)>("cuTensorMapReplaceAddress");
  if (replace == nullptr) return make_error(ErrorCode::unsupported, "{}: the driver moves no tensor maps", capabilities_.id);
  CUtensorMap moved;
  std::memcpy(&moved, &map, sizeof(map));
  if (const CUresult code = replace(&moved, const_cast<std::byte*>(base)); code != CUDA_SUCCESS) {
    return make_error(ErrorCode::internal, "{}: a tensor map does not move (driver error {})", capabilities_.id, static_cast<int>(code));
  }
  std::memcpy(&map, &moved, sizeof(map));
  return {};
}

}  // namespace mlxn::cuda
