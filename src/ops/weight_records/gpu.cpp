#include "ops/weight_records/weight_records.h"

#include <algorithm>

#include "backends/gpu/launch.h"
#include "ops/prepare_weight/prepare_weight.h"
#include "ops/weight_records/kernel.h"
#include "quant/records.h"

namespace mlxn {

namespace gpu {
namespace {
MLXN_KERNELS(MLXN_GPU_HANDLE)
}  // namespace
static_assert(kRecordRows == quant::kRecordRows && kRecordHalf == quant::kRecordHalf);
}  // namespace gpu

namespace ops {
namespace {

gpu::Kernel<WeightExponentsArgs> exponents_kernel(DType type) noexcept {
  using namespace gpu;
  switch (type) {
    case DType::q4_0: return weight_exponents_q4_0;
    case DType::q4_1: return weight_exponents_q4_1;
    case DType::q5_0: return weight_exponents_q5_0;
    case DType::q5_1: return weight_exponents_q5_1;
    case DType::q8_0: return weight_exponents_q8_0;
    case DType::q2_K: return weight_exponents_q2_K;
    case DType::q3_K: return weight_exponents_q3_K;
    case DType::q4_K: return weight_exponents_q4_K;
    case DType::q5_K: return weight_exponents_q5_K;
    case DType::q6_K: return weight_exponents_q6_K;
    case DType::iq4_nl: return weight_exponents_iq4_nl;
    case DType::iq4_xs: return weight_exponents_iq4_xs;
    case DType::mxfp4: return weight_exponents_mxfp4;
    case DType::bf16: return weight_exponents_bf16;
    default: break;
  }
  const auto affine = affine_info(type);
  if (!affine) return {};  // has no records
  return affine->bits == 4 ? weight_exponents_affine4 : weight_exponents_affine8;
}

/// All but the pointers and the rows.
void fill(WeightRecordsArgs& args, const quant::GpuWeight& view, DType type, std::int64_t k) noexcept {
  const quant::RecordFormat format = quant::record_format(type);
  args.row_blocks = k / format.block_elems;
  const quant::RecordGrid grid = quant::record_grid(format, 1, k);
  args.tile_records = static_cast<std::int64_t>(grid.tile_records);
  args.tile_bytes = static_cast<std::int64_t>(grid.tile_bytes);
  args.block_elems = format.block_elems;
  args.elems = format.elems;
  args.record_bytes = format.bytes();
  args.half_step = format.half_step();
  for (std::uint32_t i = 0; i < 2; ++i) {
    const quant::RecordPlane& plane = format.planes[i];
    const quant::RecordArea& area = format.areas[i];
    args.planes[i] = {view.offset[plane.field] + plane.from, view.step[plane.field], format.plane_offset(0, i), plane.bits, plane.run, plane.flip,
                      plane.rows_apart ? 1u : 0u};
    args.areas[i] = {view.offset[area.field] + area.from, view.step[area.field], format.area_offset(i), area.bytes, 0, 0, 0};
  }
}

}  // namespace

bool has_records(DType type) noexcept { return static_cast<bool>(quant::record_format(type)); }

namespace {
/// Where the exponents begin, a multiple of 16 as the records' bytes are.
std::uint64_t exponents_offset(DType type, std::int64_t n, std::int64_t k) noexcept {
  if (!is_block(type)) return (prepared_layout(type, n, k).bytes + 15) / 16 * 16;
  return quant::record_grid(quant::record_format(type), n, k).bytes();
}
constexpr std::int64_t rows_of_tiles(std::int64_t rows) { return (rows + quant::kRecordRows - 1) / quant::kRecordRows * quant::kRecordRows; }
}  // namespace

std::uint64_t records_bytes(DType type, std::int64_t n, std::int64_t k) noexcept {
  return exponents_offset(type, n, k) + static_cast<std::uint64_t>(rows_of_tiles(n)) * sizeof(std::int32_t);
}

std::uint64_t rows_bytes(DType type, std::int64_t n, std::int64_t k) noexcept {
  return type == DType::bf16 ? records_bytes(type, n, k) : prepared_layout(type, n, k).bytes;
}

Result<Tensor> exponents_of(const Tensor& records, DType type, std::int64_t n, std::int64_t k) {
  return Tensor::make(records.allocation(), DType::i32, {rows_of_tiles(n)}, records.byte_offset() + exponents_offset(type, n, k));
}

Result<void> encode_pack_records(CommandEncoder& encoder, const Tensor& blocks, const quant::GpuWeight& view, const Tensor& records,
                                 DType type, std::int64_t k, std::int64_t first_row, std::int64_t rows) {
  Launch<WeightRecordsArgs> launch;
  WeightRecordsArgs& args = launch.args;
  fill(args, view, type, k);
  launch.bind(args.from, blocks);
  launch.bind(args.to, records);
  args.rows = rows;
  args.first_row = first_row;
  const std::int64_t tiles = (rows + quant::kRecordRows - 1) / quant::kRecordRows;
  MLXN_TRY(const std::uint32_t groups, gpu::groups_for("prepare", tiles * args.tile_records, 1));
  return gpu::encode(encoder, gpu::pack_records, {groups}, launch);
}

Result<void> encode_unpack_records(CommandEncoder& encoder, const Tensor& records, const Tensor& blocks, const quant::GpuWeight& view,
                                   DType type, std::int64_t n, std::int64_t k, const RecordRows& rows) {
  Launch<WeightRecordsArgs> launch;
  WeightRecordsArgs& args = launch.args;
  fill(args, view, type, k);
  launch.bind(args.from, records);
  launch.bind(args.to, blocks);
  if (rows.ids != nullptr) launch.bind(args.ids, *rows.ids);
  args.rows = rows.rows;
  args.first_row = rows.first;
  args.n = n;
  MLXN_TRY(const std::uint32_t groups, gpu::groups_for("unpack", rows.rows, 1));
  // A token's row is looked up with nothing else to do: 5 us in groups of 512 elements, 24 in one (4096 elements of q4_K, H200).
  const std::int64_t parts = rows.ids != nullptr ? std::clamp<std::int64_t>(k / 512, 1, 64) : std::clamp<std::int64_t>(args.row_blocks / 64, 1, 64);
  return gpu::encode(encoder, gpu::unpack_records, {groups, static_cast<std::uint32_t>(parts)}, launch);
}

Result<void> encode_weight_exponents(CommandEncoder& encoder, const Tensor& blocks, const quant::GpuWeight& view, const Tensor& records,
                                     DType type, std::int64_t n, std::int64_t k, std::int64_t first_row, std::int64_t rows) {
  Launch<WeightExponentsArgs> launch;
  WeightExponentsArgs& args = launch.args;
  MLXN_TRY(const Tensor all, exponents_of(records, type, n, k));
  MLXN_TRY(const Tensor some, all.slice(0, first_row, first_row + rows_of_tiles(rows)));
  args.w = view;
  launch.bind(args.w.data, blocks);
  launch.bind(args.exponents, some);
  set_even(type, args.w, device_address(blocks));
  args.rows = rows;
  args.k = k;
  MLXN_TRY(const std::uint32_t groups, gpu::groups_for("prepare", rows_of_tiles(rows), 1));
  return gpu::encode(encoder, exponents_kernel(type), {groups}, launch);
}

}  // namespace ops
}  // namespace mlxn
