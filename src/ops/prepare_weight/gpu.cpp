#include <algorithm>
#include <bit>

#include "backends/gpu/launch.h"
#include "base/error.h"
#include "ops/prepare_weight/kernel.h"
#include "ops/prepare_weight/prepare_weight.h"
#include "quant/block_fields.h"

namespace mlxn {

namespace gpu {
namespace {
MLXN_KERNELS(MLXN_GPU_HANDLE)
}  // namespace
}  // namespace gpu

namespace ops {
namespace {

constexpr std::int64_t kAlignment = 16;  // of planes and of rows of plain elements: the widest load
constexpr std::int64_t kGroupBytes = 16 << 10;

constexpr std::int64_t round_up(std::int64_t value, std::int64_t unit) { return (value + unit - 1) / unit * unit; }
static_assert(quant::kMaxBlockFields == std::extent_v<decltype(quant::GpuWeight::offset)>);

/// What a kernel's widest load of a field wants its address to be a multiple of.
std::uint64_t alignment_of(DType type, const quant::BlockField& field) {
  if (!is_block(type) || field.bytes % 16 == 0) return 16;
  return field.bytes % 4 == 0 ? 4 : field.bytes % 2 == 0 ? 2 : 1;
}

/// Whether the fields of at least `least` bytes begin at multiples of what `wanted` says of each, in every row.
template <class Wanted>
bool fields_aligned(DType type, const quant::GpuWeight& view, const std::byte* address, std::uint32_t least, const Wanted& wanted) {
  const auto fields = quant::block_fields(type);
  for (std::size_t f = 0; f < fields.size() && fields[f].bytes != 0; ++f) {
    if (fields[f].bytes < least) continue;
    const std::uint64_t multiple = wanted(fields[f]);
    // Plain elements are loaded from the beginnings of rows on.
    const std::uint64_t step = is_block(type) ? view.step[f] : static_cast<std::uint64_t>(view.row_blocks) * view.step[f];
    if ((reinterpret_cast<std::uintptr_t>(address) + static_cast<std::uint64_t>(view.offset[f])) % multiple != 0 || step % multiple != 0) {
      return false;
    }
  }
  return true;
}

}  // namespace

Result<void> check_gpu_row(std::string_view op, DType type, std::int64_t k) {
  const std::uint64_t bytes = static_cast<std::uint64_t>(k / block_elems(type)) * block_bytes(type);
  if (bytes >> 32 == 0) return {};
  return make_error(ErrorCode::limit_exceeded, "{}: rows of {} bytes of weights, a GPU takes less than 4 GiB", op, bytes);
}

WeightLayout raw_layout(DType type, std::int64_t n, std::int64_t k) noexcept {
  WeightLayout layout;
  const auto fields = quant::block_fields(type);
  layout.view.row_blocks = k / block_elems(type);
  if (const auto affine = affine_info(type)) {
    layout.view.scale_type = static_cast<std::uint16_t>(element_type(affine->scales));
    layout.view.group_shift = static_cast<std::uint16_t>(std::countr_zero(affine->group / 32));
  }
  for (std::size_t f = 0; f < fields.size(); ++f) {
    layout.view.offset[f] = fields[f].offset;
    layout.view.step[f] = block_bytes(type);
  }
  layout.bytes = static_cast<std::uint64_t>(n * layout.view.row_blocks) * block_bytes(type);
  return layout;
}

WeightLayout prepared_layout(DType type, std::int64_t n, std::int64_t k) noexcept {
  WeightLayout layout = raw_layout(type, n, k);
  if (!is_block(type)) {
    layout.view.row_blocks = round_up(k, kAlignment / block_bytes(type));
    layout.bytes = static_cast<std::uint64_t>(n * layout.view.row_blocks) * block_bytes(type);
    return layout;
  }
  const auto fields = quant::block_fields(type);
  std::int64_t end = 0;
  for (std::size_t f = 0; f < fields.size() && fields[f].bytes != 0; ++f) {
    layout.view.offset[f] = end;
    layout.view.step[f] = fields[f].bytes;
    end = round_up(end + n * layout.view.row_blocks * fields[f].bytes, kAlignment);
  }
  layout.bytes = static_cast<std::uint64_t>(end);
  return layout;
}

bool is_wide(DType type, const quant::GpuWeight& view, const std::byte* address) noexcept {
  return fields_aligned(type, view, address, 1, [&](const quant::BlockField& field) { return alignment_of(type, field); });
}

void set_even(DType type, quant::GpuWeight& view, const std::byte* address) noexcept {
  view.even = fields_aligned(type, view, address, 2, [](const quant::BlockField&) { return std::uint64_t{2}; }) ? 1 : 0;
}

bool is_prepared_layout(DType type, std::int64_t k) noexcept {
  return !is_block(type) && k * block_bytes(type) % kAlignment == 0;
}

std::uint64_t prepare_unit_bytes(DType type, std::int64_t k) noexcept {
  return is_block(type) ? block_bytes(type) : static_cast<std::uint64_t>(k) * block_bytes(type);
}

Result<void> encode_prepare_weight(CommandEncoder& encoder, const Tensor& from, const Tensor& to, DType type, std::int64_t n,
                                   std::int64_t k, std::int64_t first, std::int64_t blocks) {
  const WeightLayout layout = prepared_layout(type, n, k);
  const std::uint64_t unit = prepare_unit_bytes(type, k);
  MLXN_CHECK(check_gpu_row("prepare", type, k));
  Launch<PrepareWeightArgs> launch;
  PrepareWeightArgs& args = launch.args;
  launch.bind(args.from, from);
  launch.bind(args.to, to);
  args.blocks = blocks;
  args.first = first;
  args.block_bytes = static_cast<std::uint32_t>(unit);
  const auto fields = quant::block_fields(type);
  for (std::size_t f = 0; f < fields.size(); ++f) {
    args.offset[f] = layout.view.offset[f];
    args.step[f] = layout.view.step[f];
    args.from_offset[f] = fields[f].offset;
    args.bytes[f] = fields[f].bytes;
  }
  if (!is_block(type)) {  // whole rows
    args.bytes[0] = args.block_bytes;
    args.step[0] = static_cast<std::uint32_t>(layout.view.row_blocks * block_bytes(type));
  }
  args.group_blocks = static_cast<std::uint32_t>(std::max<std::int64_t>(kGroupBytes / args.block_bytes, 1));
  MLXN_TRY(const std::uint32_t groups, gpu::groups_for("prepare", blocks, args.group_blocks));
  return gpu::encode(encoder, gpu::prepare_weight, {groups}, launch);
}

}  // namespace ops
}  // namespace mlxn
