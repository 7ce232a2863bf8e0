#pragma once

#include "backends/weight_impl.h"
#include "mlxn/ops/matmul.h"

namespace mlxn::ops {

/// The largest m that is better served by the vector route on a GPU.
inline constexpr std::int64_t kGpuVectorThreshold = 8;

/// Weights of a product on a GPU. u8 or blocks.
struct GpuOperand {
  const Tensor& bytes;
  WeightForm form;
};

/// What runs of what was asked for.
struct MatmulChoice {
  Numerics numerics = Numerics::exact;  ///< exact, f16 or bf16 on a GPU
  Route route = Route::vector;          ///< vector or tile
  bool batch_invariant = false;
};

/// The class and the route of a product with a weight in this form, or with one prepared for the device. Errors: unsupported (a
/// class that the device does not have), and of a device also those of plan_matmul.
[[nodiscard]] Result<MatmulChoice> choose_matmul(std::string_view op, const CommandEncoder& encoder, WeightForm form,
                                                 const MatmulShape& shape, const MatmulOptions& options);
[[nodiscard]] Result<MatmulChoice> choose_matmul(std::string_view op, const Device& device, const MatmulShape& shape,
                                                 const MatmulOptions& options);

/// Records the product on a GPU. The operands have been checked.
[[nodiscard]] Result<void> matmul_gpu(std::string_view op, CommandEncoder& encoder, const Tensor& x, const GpuOperand& weights,
                                      const Tensor& y, const MatmulShape& shape, const MatmulChoice& choice);

/// Records the making ready of rows of x [m, k] for the kernels: out [m, at least k], rounded to the class; f32, or of x's type.
[[nodiscard]] Result<void> stage_matmul_rows(std::string_view op, CommandEncoder& encoder, const Tensor& x, const Tensor& out,
                                             Numerics numerics);

/// What it runs on a device of so many cores, for weights that begin at a multiple of 256 bytes.
struct MatmulGpuPlan {
  std::string_view kernel;
  std::int64_t rows = 0;  ///< of x that a pass over the weights serves
  bool taken_apart = false;  ///< blocks, or records, are laid out field by field first
  bool decoded = false;      ///< weights are unpacked to shared memory, for many rows of x
};
[[nodiscard]] MatmulGpuPlan plan_matmul_gpu(const MatmulShape& shape, WeightForm form, const MatmulChoice& choice, std::uint32_t cores) noexcept;

}  // namespace mlxn::ops
