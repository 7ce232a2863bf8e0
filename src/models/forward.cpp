#include "models/forward.h"

#include "base/error.h"
#include "mlxn/ops/add.h"

namespace mlxn::models {
namespace {

/// The views of the parts that lie side by side.
Result<void> name_parts(Workspace& w, std::int64_t heads, std::int64_t kv_heads) {
  MLXN_TRY(w.q, w.qkv.slice(1, 0, heads));
  MLXN_TRY(w.k, w.qkv.slice(1, heads, heads + kv_heads));
  MLXN_TRY(w.v, w.qkv.slice(1, heads + kv_heads, heads + 2 * kv_heads));
  const std::int64_t ff_dim = w.gate_up.dim(1) / 2;
  MLXN_TRY(w.gate, w.gate_up.slice(1, 0, ff_dim));
  MLXN_TRY(w.up, w.gate_up.slice(1, ff_dim, 2 * ff_dim));
  return {};
}

}  // namespace

Result<Workspace> Workspace::create(const Device& device, const ModelInfo& info, std::int64_t rows) {
  Workspace w;
  MLXN_TRY(w.ids, device.allocate(DType::u32, {rows}));
  MLXN_TRY(w.positions, device.allocate(DType::i32, {rows}));
  MLXN_TRY(w.x, device.allocate(DType::f32, {rows, info.dim}));
  MLXN_TRY(w.h, device.allocate(DType::f32, {rows, info.dim}));
  MLXN_TRY(w.qkv, device.allocate(DType::f32, {rows, info.heads + 2 * info.kv_heads, info.head_dim}));
  MLXN_TRY(w.gate_up, device.allocate(DType::f32, {rows, 2 * info.ff_dim}));
  MLXN_TRY(w.attended, device.allocate(DType::f32, {rows, info.heads, info.head_dim}));
  MLXN_TRY(w.logits, device.allocate(DType::f32, {1, info.vocab}));
  MLXN_CHECK(name_parts(w, info.heads, info.kv_heads));
  return w;
}

Result<Workspace> Workspace::first(std::int64_t rows) const {
  Workspace w = *this;
  for (Tensor* t : {&w.ids, &w.positions, &w.x, &w.h, &w.qkv, &w.gate_up, &w.attended}) {
    MLXN_TRY(*t, t->slice(0, 0, rows));
  }
  MLXN_CHECK(name_parts(w, q.dim(1), k.dim(1)));
  return w;
}

Result<void> apply(CommandEncoder& encoder, const Linear& linear, const Tensor& x, const Tensor& y,
                   const MatmulOptions& options) {
  MLXN_CHECK(matmul(encoder, x, linear.weight, y, options));
  if (linear.bias.defined()) MLXN_CHECK(add(encoder, y, linear.bias, y));
  return {};
}

Result<Tensor> flatten_heads(const Tensor& x) {
  return Tensor::make(x.allocation(), x.dtype(), {x.dim(0), x.dim(1) * x.dim(2)}, x.byte_offset(), {x.stride(0), 1});
}

Result<Tensor> last_rows(const Tensor& x, std::int64_t rows) { return x.slice(0, x.dim(0) - rows, x.dim(0)); }

}  // namespace mlxn::models
