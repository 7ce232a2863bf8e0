#include "models/forward.h"

#include "mlxn/ops/add.h"

namespace mlxn::models {

Result<Workspace> Workspace::create(const Device& device, const ModelInfo& info, std::int64_t rows) {
  Workspace w;
  MLXN_TRY(w.ids, device.allocate(DType::u32, {rows}));
  MLXN_TRY(w.positions, device.allocate(DType::i32, {rows}));
  MLXN_TRY(w.x, device.allocate(DType::f32, {rows, info.dim}));
  MLXN_TRY(w.h, device.allocate(DType::f32, {rows, info.dim}));
  MLXN_TRY(w.q, device.allocate(DType::f32, {rows, info.heads, info.head_dim}));
  MLXN_TRY(w.k, device.allocate(DType::f32, {rows, info.kv_heads, info.head_dim}));
  MLXN_TRY(w.v, device.allocate(DType::f32, {rows, info.kv_heads, info.head_dim}));
  MLXN_TRY(w.attended, device.allocate(DType::f32, {rows, info.heads, info.head_dim}));
  MLXN_TRY(w.gate, device.allocate(DType::f32, {rows, info.ff_dim}));
  MLXN_TRY(w.up, device.allocate(DType::f32, {rows, info.ff_dim}));
  MLXN_TRY(w.logits, device.allocate(DType::f32, {1, info.vocab}));
  return w;
}

Result<Workspace> Workspace::first(std::int64_t rows) const {
  Workspace w = *this;
  for (Tensor* t : {&w.ids, &w.positions, &w.x, &w.h, &w.q, &w.k, &w.v, &w.attended, &w.gate, &w.up}) {
    MLXN_TRY(*t, t->slice(0, 0, rows));
  }
  return w;
}

Result<void> apply(CommandEncoder& encoder, const Linear& linear, const Tensor& x, const Tensor& y,
                   const MatmulOptions& options) {
  MLXN_CHECK(matmul(encoder, x, linear.weight, y, options));
  if (linear.bias.defined()) MLXN_CHECK(add(encoder, y, linear.bias, y));
  return {};
}

Result<Tensor> flatten_heads(const Tensor& x) { return x.reshape({x.dim(0), x.dim(1) * x.dim(2)}); }

Result<Tensor> last_rows(const Tensor& x, std::int64_t rows) { return x.slice(0, x.dim(0) - rows, x.dim(0)); }

}  // namespace mlxn::models
