#include "ops/rope_append/rope_append.h"

#include "backends/cpu/launch.h"
#include "ops/kv_append/kv_append.h"
#include "ops/rope/rope.h"
#include "ops/row_check.h"

namespace mlxn::ops {
namespace {

constexpr std::string_view kOp = "rope_append";
constexpr VariantInfo kInfos[] = {
    variant_info<CpuIsa::scalar>("rope, kv_append"),
    gpu_variant_info("rope_append_gpu"),
};

/// Of an operand that is turned in place.
Result<void> check_turned(std::string_view op, const CommandEncoder& encoder, std::string_view name, const Tensor& x,
                          const Tensor& positions, const RopeTable& table) {
  MLXN_CHECK(check_rope_input(op, name, encoder, x, positions, table));
  MLXN_CHECK(check_operand(op, name, encoder, x, {DType::f32}));
  MLXN_CHECK(check_rows_apart(op, name, x));
  MLXN_CHECK(check_no_overlap(op, name, x, "positions", positions));
  if (table.pairs() > 0) MLXN_CHECK(check_no_overlap(op, name, x, "the table", table.inv_freq()));
  return {};
}

}  // namespace

extern const OpInfo op_rope_append;
const OpInfo op_rope_append = {kOp, kInfos};

Result<void> check_rope_append(std::string_view op, const CommandEncoder& encoder, const Tensor& q, const Tensor& k_new,
                               const Tensor& v_new, const Tensor& positions, const RopeTable& table, const Tensor& k_cache,
                               const Tensor& v_cache, const Scalar<std::int64_t>& position, const KvAppendOptions& options) {
  MLXN_CHECK(check_turned(op, encoder, "q", q, positions, table));
  MLXN_CHECK(check_turned(op, encoder, "k_new", k_new, positions, table));
  MLXN_CHECK(check_kv_append(op, encoder, k_new, v_new, k_cache, v_cache, position, options));
  MLXN_CHECK(check_no_overlap(op, "q", q, "k_cache", k_cache));
  MLXN_CHECK(check_no_overlap(op, "q", q, "v_cache", v_cache));
  MLXN_CHECK(check_no_overlap(op, "q", q, "k_new", k_new));
  MLXN_CHECK(check_no_overlap(op, "q", q, "v_new", v_new));
  return check_no_overlap(op, "k_new", k_new, "v_new", v_new);
}

Result<void> encode_rope_append(CommandEncoder& encoder, const Tensor& q, const Tensor& k_new, const Tensor& v_new,
                                const Tensor& positions, const RopeTable& table, const Tensor& k_cache, const Tensor& v_cache,
                                const Scalar<std::int64_t>& position, const KvAppendOptions& options) {
  MLXN_CHECK(check_encoder(kOp, encoder));
  MLXN_CHECK(check_rope_append(kOp, encoder, q, k_new, v_new, positions, table, k_cache, v_cache, position, options));
  if (k_new.dim(0) == 0) return {};

  if (!gpu::on_gpu(encoder)) {
    MLXN_CHECK(encode_rope(encoder, q, positions, table, q, RopeDirection::forward, std::nullopt));
    MLXN_CHECK(encode_rope(encoder, k_new, positions, table, k_new, RopeDirection::forward, std::nullopt));
    MLXN_CHECK(encoder.barrier());  // the caller, where it orders the memory, cannot part the operations
    return encode_kv_append(encoder, k_new, v_new, k_cache, v_cache, position, options, std::nullopt);
  }
  Launch<RopeAppendArgs> launch;
  RopeAppendArgs& args = launch.args;
  launch.bind(args.positions, positions);
  if (table.pairs() > 0) launch.bind(args.inv_freq, table.inv_freq());
  launch.bind(args.q, q);
  launch.bind(args.k_new, k_new);
  launch.bind(args.v_new, v_new);
  launch.bind(args.k_cache, k_cache);
  launch.bind(args.v_cache, v_cache);
  args.q_row = q.stride(0);
  args.q_head = q.stride(1);
  args.k = kv_side(k_new, k_cache);
  args.v = kv_side(v_new, v_cache);
  args.seq = k_new.dim(0);
  args.heads = q.dim(1);
  args.kv_heads = k_new.dim(1);
  args.capacity = k_cache.dim(1);
  launch.set(args.position, position, 0, last_kv_position(k_new, k_cache, options));
  args.pairs = table.pairs();
  args.split_offset = table.split_offset();
  args.ring = options.ring ? 1 : 0;
  args.adjacent = table.pairing() == RopePairing::adjacent ? 1 : 0;
  args.magnitude = table.magnitude();
  return rope_append_gpu(encoder, launch);
}

}  // namespace mlxn::ops

namespace mlxn {

Result<void> rope_append(CommandEncoder& encoder, const Tensor& q, const Tensor& k_new, const Tensor& v_new, const Tensor& positions,
                         const RopeTable& table, const Tensor& k_cache, const Tensor& v_cache, const Scalar<std::int64_t>& position,
                         const KvAppendOptions& options) {
  return detail::guarded(
      [&] { return ops::encode_rope_append(encoder, q, k_new, v_new, positions, table, k_cache, v_cache, position, options); });
}

}  // namespace mlxn
