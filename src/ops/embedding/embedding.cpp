#include "mlxn/ops/embedding.h"

#include <algorithm>

#include "backends/weight_impl.h"
#include "ops/embedding/cpu.h"
#include "ops/embedding/gpu.h"
#include "ops/row_check.h"

namespace mlxn::ops {
namespace {

constexpr std::string_view kOp = "embedding";
constexpr VariantInfo kInfos[] = {variant_info<CpuIsa::scalar>("embedding_scalar"), gpu_variant_info("embedding_gpu")};

Result<void> encode_embedding(CommandEncoder& encoder, const Tensor& ids, const Weight& table, const Tensor& y,
                              float scale) {
  MLXN_CHECK(check_encoder(kOp, encoder));
  MLXN_CHECK(check_operand(kOp, "ids", encoder, ids, {DType::u32}));
  if (ids.rank() != 1) {
    return make_error(ErrorCode::bad_shape, "{}: ids is {}, wanted one axis", kOp, to_string(ids.shape()));
  }
  MLXN_CHECK(check_contiguous(kOp, "ids", ids));
  if (!table.defined()) return make_error(ErrorCode::invalid_argument, "{}: table is an empty weight", kOp);
  const WeightImpl& weight = *table.impl();
  MLXN_CHECK(check_operand(kOp, "table", encoder, weight.storage, {weight.storage.dtype()}));
  MLXN_CHECK(check_operand(kOp, "y", encoder, y, {DType::f32, DType::f16, DType::bf16}));
  MLXN_CHECK(check_shape(kOp, "y", y, {ids.dim(0), weight.k}));
  MLXN_CHECK(check_last_contiguous(kOp, "y", y));
  MLXN_CHECK(check_rows_apart(kOp, "y", y));
  MLXN_CHECK(check_no_overlap(kOp, "y", y, "ids", ids));
  MLXN_CHECK(check_no_overlap(kOp, "y", y, "table", weight.storage));
  MLXN_CHECK(check_finite(kOp, "scale", scale));
  if (ids.dim(0) == 0) return {};
  if (gpu::on_gpu(encoder)) return embedding_gpu(encoder, ids, table, y, scale);

  Launch<EmbeddingArgs> launch;
  EmbeddingArgs& args = launch.args;
  launch.bind(args.ids, ids);
  launch.bind(args.table, weight.storage);
  launch.bind(args.y, y);
  const auto slots = static_cast<std::uint64_t>(std::min<std::int64_t>(ids.dim(0), cpu::threads(encoder)));
  MLXN_TRY(const Tensor row, cpu::scratch(encoder, slots * static_cast<std::uint64_t>(weight.k) * sizeof(float)));
  launch.bind(args.row, row);
  args.seq = ids.dim(0);
  args.n = weight.n;
  args.dim = weight.k;
  args.y_stride = y.stride(0);
  args.row_bytes = storage_bytes(weight.dtype, static_cast<std::uint64_t>(weight.k)).value_or(0);
  args.scale = scale;
  args.type = weight.dtype;
  args.prepared = weight.prepared() ? 1 : 0;
  return cpu::encode(encoder, embedding_kernel("embedding_scalar", y.dtype()), launch);
}

}  // namespace

extern const OpInfo op_embedding;
const OpInfo op_embedding = {kOp, kInfos};

}  // namespace mlxn::ops

namespace mlxn {

Result<void> embedding(CommandEncoder& encoder, const Tensor& ids, const Weight& table, const Tensor& y, float scale) {
  return detail::guarded([&] { return ops::encode_embedding(encoder, ids, table, y, scale); });
}

}  // namespace mlxn
