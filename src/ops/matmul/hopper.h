#pragma once

#include <vector>

#include "backends/gpu/launch.h"
#include "mlxn/ops/fused_matmul.h"
#include "ops/matmul/gpu.h"
#include "ops/matmul/hopper_dense.h"

// Products on Hopper's matrix units: of weights that lie in records (quant/records.h), in class f16; of rows of f16 and bf16 in
// the classes of hopper_dense.h, by tiles.

namespace mlxn::ops {

/// How weights of the type are prepared on a Hopper GPU: records, rows, or as on every other.
[[nodiscard]] WeightForm hopper_form(DType type) noexcept;

/// Whether a product is one for Hopper's kernels, if they take its shape and route.
[[nodiscard]] inline bool wants_hopper(WeightForm form, DType type, Numerics numerics) noexcept {
  return form == WeightForm::records ? numerics == Numerics::f16 : form == WeightForm::rows && dense_format(type, numerics).has_value();
}
[[nodiscard]] bool takes_hopper(const MatmulShape& shape, const MatmulChoice& choice, std::uint32_t cores) noexcept;

/// The largest m that the vector route serves better. Rows of f16 and bf16 have no kernel of that route here: one row of x alone
/// keeps the portable one.
[[nodiscard]] std::int64_t hopper_vector_threshold(const MatmulShape& shape, std::uint32_t cores) noexcept;

/// Records the product, which takes_hopper. The operands have been checked.
[[nodiscard]] Result<void> matmul_hopper(std::string_view op, CommandEncoder& encoder, const Tensor& x, const GpuOperand& weights,
                                         const Tensor& y, const MatmulShape& shape, const MatmulChoice& choice);
[[nodiscard]] MatmulGpuPlan plan_matmul_hopper(const MatmulShape& shape, const MatmulChoice& choice, std::uint32_t cores) noexcept;

/// What of a product's surroundings its kernels do: all parts of a fusion, those but the gate, or none.
enum class HopperFuses : std::uint8_t { none, all_but_gate, all };
[[nodiscard]] HopperFuses fuses_hopper(WeightForm form, const MatmulShape& shape, MatmulGate gate, const MatmulChoice& choice,
                                       std::uint32_t cores) noexcept;
/// Records the product with these parts, which fuses_hopper allows. The operands have been checked; norm begins at a multiple of 16
/// bytes.
[[nodiscard]] Result<void> fused_matmul_hopper(std::string_view op, CommandEncoder& encoder, const Tensor& x, const GpuOperand& weights,
                                               const Tensor& y, const MatmulShape& shape, const MatmulFusion& fusion,
                                               const MatmulChoice& choice);

/// One kind of tile kernel (0 to tile::kKinds - 1, or tile::kDenseKinds - 1), in blocks for so many multiprocessors as a plan sees them
/// (0: the device's), with k in so many parts where it has parts.
struct HopperKind {
  int kind = 0;
  std::uint32_t splits = 1;
  std::uint32_t cores = 0;
};
/// The product by it: for tests, which reach every kernel at small sizes so. The operands as above, and wants_hopper; with a gate of
/// records, n is a multiple of 32.
[[nodiscard]] Result<void> matmul_hopper_kind(CommandEncoder& encoder, const Tensor& x, const GpuOperand& weights, const Tensor& y,
                                              const MatmulShape& shape, Numerics numerics, const HopperKind& wanted,
                                              const MatmulFusion& fusion = {});

/// The host's side of all kernels, for the check that the CUDA side has them.
[[nodiscard]] std::vector<const gpu::KernelInfo*> hopper_kernels();

}  // namespace mlxn::ops
