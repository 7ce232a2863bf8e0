#include "ops/matmul/hopper.h"

#include "base/error.h"

namespace mlxn::ops {

bool has_hopper_kernels(DType) noexcept { return false; }

std::int64_t hopper_vector_threshold(const MatmulShape&) noexcept { return 8; }

Result<void> matmul_hopper(std::string_view op, CommandEncoder&, const Tensor&, const GpuOperand&, const Tensor&, const MatmulShape&,
                           const MatmulChoice&) {
  return make_error(ErrorCode::unsupported, "{}: no kernels", op);
}

MatmulGpuPlan plan_matmul_hopper(const MatmulShape&, const MatmulChoice&, std::uint32_t) noexcept { return {}; }

}  // namespace mlxn::ops
