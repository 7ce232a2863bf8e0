#pragma once

#include <optional>
#include <span>

#include "backends/gpu/launch.h"
#include "base/cpu_features.h"
#include "ops/check.h"
#include "ops/op_table.h"
#include "ops/rows.h"

namespace mlxn::ops {

/// Of one to three axes, the last one of stride 1 and not empty.
[[nodiscard]] Result<void> check_rows(std::string_view op, std::string_view name, const Tensor& tensor);
/// No two rows share an element: asked of outputs.
[[nodiscard]] Result<void> check_rows_apart(std::string_view op, std::string_view name, const Tensor& tensor);
/// Rows of a tensor that passed check_rows.
[[nodiscard]] std::int64_t row_count(const Tensor& tensor) noexcept;
[[nodiscard]] RowStrides row_strides(const Tensor& tensor) noexcept;
/// Whether `elems` elements (a power of two), from a multiple of `elems` of a row on, stand at an address that is a multiple of
/// their size, in every row.
[[nodiscard]] bool rows_aligned(const Tensor& tensor, std::int64_t elems) noexcept;
/// The same for every row: one row that is read again and again.
inline constexpr RowStrides kSameRow{1, 0, 0};

/// One implementation per instruction set, best first.
template <class Select>
struct IsaVariant {
  CpuIsa isa;
  std::string_view name;
  Select select;
};
template <CpuIsa kIsa>
[[nodiscard]] inline bool runs_here() noexcept {
  return cpu_has(kIsa);
}
template <CpuIsa kIsa>
[[nodiscard]] inline std::string lacks_here() {
  return cpu_lacks(kIsa);
}
/// What the table of operations shows of it.
template <CpuIsa kIsa>
[[nodiscard]] constexpr VariantInfo variant_info(std::string_view name) noexcept {
  return {name, "cpu", &runs_here<kIsa>, &lacks_here<kIsa>};
}
/// The row of an operation's portable kernels in that table.
[[nodiscard]] inline bool has_gpu() noexcept { return true; }
[[nodiscard]] inline std::string lacks_nothing() { return {}; }
[[nodiscard]] constexpr VariantInfo gpu_variant_info(std::string_view name) noexcept {
  return {name, "gpu", &has_gpu, &lacks_nothing};
}
/// That nobody asks a GPU for an instruction set.
[[nodiscard]] Result<void> check_no_isa(std::string_view op, std::optional<CpuIsa> isa);
/// The variant of that instruction set or, without a wish, the best one of this machine.
template <class Select>
[[nodiscard]] Result<const IsaVariant<Select>*> pick(std::string_view op, std::span<const IsaVariant<Select>> variants,
                                                     std::optional<CpuIsa> wanted) {
  for (const IsaVariant<Select>& variant : variants) {
    if (cpu_has(variant.isa) && (!wanted || *wanted == variant.isa)) return &variant;
  }
  return make_error(ErrorCode::unsupported, "{}: no {} variant on this machine", op,
                    wanted ? mlxn::to_string(*wanted) : std::string_view("cpu"));
}

/// The same for the encoder's device: null on a GPU, which runs the portable kernel.
template <class Select>
[[nodiscard]] Result<const IsaVariant<Select>*> pick_for(const CommandEncoder& encoder, std::string_view op,
                                                         std::span<const IsaVariant<Select>> variants,
                                                         std::optional<CpuIsa> wanted) {
  if (!gpu::on_gpu(encoder)) return pick<Select>(op, variants, wanted);
  MLXN_CHECK(check_no_isa(op, wanted));
  return nullptr;
}

}  // namespace mlxn::ops
