#include "ops/attention/attention.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "backends/cpu/launch.h"
#include "base/checked.h"
#include "mlxn/device.h"
#include "ops/attention/kernels.h"
#include "ops/row_check.h"

namespace mlxn::ops {
namespace {

constexpr std::string_view kOp = "attention";
constexpr std::int64_t kMaxHeads = 1 << 20;
constexpr std::int64_t kMaxRows = std::int64_t{1} << 40;
constexpr std::int64_t kWide = std::int64_t{1} << 60;  // a window that no sum of positions comes near

using Handle = cpu::Kernel<AttentionArgs>;
struct Kernels {
  std::array<Handle, 2> tiled, split;  ///< for f32 and f16 keys and values
};
constexpr Kernels kScalar = {{cpu::kernel<&attention_tiled_f32_scalar>("attention_tiled_f32_scalar"),
                              cpu::kernel<&attention_tiled_f16_scalar>("attention_tiled_f16_scalar")},
                             {cpu::kernel<&attention_split_f32_scalar>("attention_split_f32_scalar"),
                              cpu::kernel<&attention_split_f16_scalar>("attention_split_f16_scalar")}};
#if defined(__x86_64__)
constexpr Kernels kAvx2 = {{cpu::kernel<&attention_tiled_f32_avx2>("attention_tiled_f32_avx2"),
                            cpu::kernel<&attention_tiled_f16_avx2>("attention_tiled_f16_avx2")},
                           {cpu::kernel<&attention_split_f32_avx2>("attention_split_f32_avx2"),
                            cpu::kernel<&attention_split_f16_avx2>("attention_split_f16_avx2")}};
constexpr Kernels kAvx512 = {{cpu::kernel<&attention_tiled_f32_avx512>("attention_tiled_f32_avx512"),
                              cpu::kernel<&attention_tiled_f16_avx512>("attention_tiled_f16_avx512")},
                             {cpu::kernel<&attention_split_f32_avx512>("attention_split_f32_avx512"),
                              cpu::kernel<&attention_split_f16_avx512>("attention_split_f16_avx512")}};
#elif defined(__aarch64__)
constexpr Kernels kNeon = {{cpu::kernel<&attention_tiled_f32_neon>("attention_tiled_f32_neon"),
                            cpu::kernel<&attention_tiled_f16_neon>("attention_tiled_f16_neon")},
                           {cpu::kernel<&attention_split_f32_neon>("attention_split_f32_neon"),
                            cpu::kernel<&attention_split_f16_neon>("attention_split_f16_neon")}};
#endif

constexpr IsaVariant<const Kernels*> kVariants[] = {
#if defined(__x86_64__)
    {CpuIsa::avx512, "attention_avx512", &kAvx512},
    {CpuIsa::avx2, "attention_avx2", &kAvx2},
#elif defined(__aarch64__)
    {CpuIsa::neon, "attention_neon", &kNeon},
#endif
    {CpuIsa::scalar, "attention_scalar", &kScalar},
};
constexpr VariantInfo kInfos[] = {
#if defined(__x86_64__)
    variant_info<CpuIsa::avx512>("attention_tiled_f32_avx512"), variant_info<CpuIsa::avx512>("attention_tiled_f16_avx512"),
    variant_info<CpuIsa::avx512>("attention_split_f32_avx512"), variant_info<CpuIsa::avx512>("attention_split_f16_avx512"),
    variant_info<CpuIsa::avx2>("attention_tiled_f32_avx2"),     variant_info<CpuIsa::avx2>("attention_tiled_f16_avx2"),
    variant_info<CpuIsa::avx2>("attention_split_f32_avx2"),     variant_info<CpuIsa::avx2>("attention_split_f16_avx2"),
#elif defined(__aarch64__)
    variant_info<CpuIsa::neon>("attention_tiled_f32_neon"), variant_info<CpuIsa::neon>("attention_tiled_f16_neon"),
    variant_info<CpuIsa::neon>("attention_split_f32_neon"), variant_info<CpuIsa::neon>("attention_split_f16_neon"),
#endif
    variant_info<CpuIsa::scalar>("attention_tiled_f32_scalar"), variant_info<CpuIsa::scalar>("attention_tiled_f16_scalar"),
    variant_info<CpuIsa::scalar>("attention_split_f32_scalar"), variant_info<CpuIsa::scalar>("attention_split_f16_scalar"),
    {"attention_mma_f16", "cuda", &has_cuda, &lacks_cuda},  // instead of attention_tiled_gpu up to a head_dim of 128
    gpu_variant_info("attention_split_gpu"), gpu_variant_info("attention_tiled_gpu"),
};

/// A tensor [batch, heads, rows, dim], or without the first axis.
struct View {
  explicit View(const Tensor& t) noexcept
      : batch(t.rank() == 4 ? t.dim(0) : 1), heads(t.dim(-3)), rows(t.dim(-2)), dim(t.dim(-1)),
        batch_stride(t.rank() == 4 ? t.stride(0) : 0), head_stride(t.stride(-3)), row_stride(t.stride(-2)) {}
  std::int64_t batch, heads, rows, dim, batch_stride, head_stride, row_stride;
};

/// No two elements of the output are the same one.
Result<void> check_apart(std::string_view op, std::string_view name, const Tensor& t) {
  struct Axis {
    std::int64_t stride, dim;
  };
  std::array<Axis, 3> axes{};  // without the last; those that are missing stay empty
  for (int i = 0; i + 1 < t.rank(); ++i) axes[static_cast<std::size_t>(i)] = {t.stride(i), t.dim(i)};
  std::sort(axes.begin(), axes.end(), [](const Axis& a, const Axis& b) { return a.stride < b.stride; });
  std::int64_t span = t.dim(-1);
  for (const Axis& axis : axes) {
    if (axis.dim <= 1) continue;
    if (axis.stride < span) {
      return make_error(ErrorCode::bad_shape, "{}: {} is {} with strides {}, wanted rows that do not overlap", op, name,
                        to_string(t.shape()), to_string(t.strides()));
    }
    span += axis.stride * (axis.dim - 1);
  }
  return {};
}

Result<void> check_tensors(std::string_view op, const CommandEncoder& encoder, const Tensor& q, const Tensor& k, const Tensor& v,
                           const Tensor& y, const AttentionOptions& options) {
  MLXN_CHECK(check_operand(op, "q", encoder, q, {DType::f32}));
  if (q.rank() != 3 && q.rank() != 4) {
    return make_error(ErrorCode::bad_shape, "{}: q is {}, wanted [heads, seq, head_dim] or one more axis in front", op,
                      to_string(q.shape()));
  }
  const View qv(q);
  if (qv.dim < 1 || qv.dim > kAttentionMaxDim) {
    return make_error(ErrorCode::bad_shape, "{}: q has head_dim {}, wanted 1 to {}", op, qv.dim, kAttentionMaxDim);
  }
  if (qv.batch > kMaxHeads || qv.heads > kMaxHeads || qv.rows > kMaxRows) {
    return make_error(ErrorCode::bad_shape, "{}: q is {}, wanted at most {} batches and heads and {} rows", op,
                      to_string(q.shape()), kMaxHeads, kMaxRows);
  }
  MLXN_CHECK(check_last_contiguous(op, "q", q));
  MLXN_CHECK(check_operand(op, "k", encoder, k, {DType::f32, DType::f16}));
  if (k.rank() != q.rank() || View(k).batch != qv.batch || k.dim(-1) != qv.dim || k.dim(-2) == 0 || k.dim(-3) == 0) {
    return make_error(ErrorCode::bad_shape, "{}: k is {}, wanted [kv_heads, capacity, {}] with the batch of q, {}", op,
                      to_string(k.shape()), qv.dim, to_string(q.shape()));
  }
  if (qv.heads % k.dim(-3) != 0) {
    return make_error(ErrorCode::bad_shape, "{}: q has {} heads, wanted a multiple of the {} of k", op, qv.heads, k.dim(-3));
  }
  MLXN_CHECK(check_last_contiguous(op, "k", k));
  MLXN_CHECK(check_operand(op, "v", encoder, v, {k.dtype()}));
  MLXN_CHECK(check_shape(op, "v", v, k.shape()));
  MLXN_CHECK(check_last_contiguous(op, "v", v));
  MLXN_CHECK(check_operand(op, "y", encoder, y, {DType::f32}));
  MLXN_CHECK(check_shape(op, "y", y, q.shape()));
  MLXN_CHECK(check_last_contiguous(op, "y", y));
  MLXN_CHECK(check_apart(op, "y", y));
  MLXN_CHECK(check_no_overlap(op, "y", y, "q", q));
  MLXN_CHECK(check_no_overlap(op, "y", y, "k", k));
  MLXN_CHECK(check_no_overlap(op, "y", y, "v", v));
  if (const Tensor& sinks = options.sinks; sinks.defined()) {
    MLXN_CHECK(check_operand(op, "sinks", encoder, sinks, {DType::f32}));
    MLXN_CHECK(check_shape(op, "sinks", sinks, {qv.heads}));
    MLXN_CHECK(check_contiguous(op, "sinks", sinks));
    MLXN_CHECK(check_no_overlap(op, "y", y, "sinks", sinks));
  }
  if (const Tensor& lse = options.lse; lse.defined()) {
    MLXN_CHECK(check_operand(op, "lse", encoder, lse, {DType::f32}));
    MLXN_CHECK(check_shape(op, "lse", lse, q.rank() == 4 ? Shape{qv.batch, qv.heads, qv.rows} : Shape{qv.heads, qv.rows}));
    MLXN_CHECK(check_contiguous(op, "lse", lse));
    for (const auto& [name, other] : {std::pair<std::string_view, const Tensor*>{"q", &q}, {"k", &k}, {"v", &v}, {"y", &y},
                                      {"sinks", &options.sinks}}) {
      if (other->defined()) MLXN_CHECK(check_no_overlap(op, "lse", lse, name, *other));
    }
  }
  return {};
}

Result<void> check_numbers(std::string_view op, std::int64_t capacity, const Scalar<std::int64_t>& kv_len,
                           const AttentionOptions& options) {
  if (kv_len.value < 0 || kv_len.value > capacity) {
    return make_error(ErrorCode::out_of_range, "{}: kv_len is {}, wanted 0 to the capacity, {}", op, kv_len.value, capacity);
  }
  const std::int64_t start = options.ring_start.value;
  if (start < 0 || start >= capacity) {
    return make_error(ErrorCode::out_of_range, "{}: ring_start is {}, wanted 0 to {}", op, start, capacity - 1);
  }
  if (start != 0 && kv_len.value != capacity) {
    return make_error(ErrorCode::out_of_range, "{}: ring_start is {} with {} of {} slots in use, wanted 0 until all are", op,
                      start, kv_len.value, capacity);
  }
  if (options.p0 && (options.p0->value > kAttentionMaxPosition || options.p0->value < -kAttentionMaxPosition)) {
    return make_error(ErrorCode::out_of_range, "{}: p0 is {}, wanted at most {} of either sign", op, options.p0->value,
                      kAttentionMaxPosition);
  }
  if (options.window == 0 || options.window < -1) {
    return make_error(ErrorCode::invalid_argument, "{}: window is {}, wanted a number above 0, or -1 for none", op, options.window);
  }
  if (options.scale) MLXN_CHECK(check_finite(op, "scale", double{*options.scale}));
  if (!std::isfinite(options.softcap) || options.softcap < 0) {
    return make_error(ErrorCode::invalid_argument, "{}: softcap is {}, wanted a finite number of at least 0, 0 for none", op, options.softcap);
  }
  return {};
}

}  // namespace

std::string lacks_cuda() {
  const auto devices = Device::enumerate();
  const bool has_one = devices && std::any_of(devices->begin(), devices->end(), [](const Capabilities& c) { return c.backend == "cuda"; });
  return has_one ? "" : "an NVIDIA GPU, or this build the backend for it";
}
bool has_cuda() { return lacks_cuda().empty(); }

extern const OpInfo op_attention;
const OpInfo op_attention = {"attention", kInfos};

Result<void> check_attention(std::string_view op, const CommandEncoder& encoder, const Tensor& q, const Tensor& k, const Tensor& v,
                             const Tensor& y, const Scalar<std::int64_t>& kv_len, const AttentionOptions& options) {
  MLXN_CHECK(check_tensors(op, encoder, q, k, v, y, options));
  return check_numbers(op, k.dim(-2), kv_len, options);
}

float attention_scale(const AttentionOptions& options, std::int64_t head_dim) noexcept {
  return options.scale ? *options.scale : 1.0f / std::sqrt(static_cast<float>(head_dim));
}
std::int64_t attention_window(const AttentionOptions& options) noexcept { return std::min(options.window, kWide); }

Result<void> encode_attention(CommandEncoder& encoder, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& y,
                              const Scalar<std::int64_t>& kv_len, const AttentionOptions& options, std::optional<CpuIsa> isa,
                              AttentionRoute route) {
  MLXN_CHECK(check_encoder(kOp, encoder));
  MLXN_CHECK(check_attention(kOp, encoder, q, k, v, y, kv_len, options));
  MLXN_TRY(const auto* variant, pick_for<const Kernels*>(encoder, kOp, kVariants, isa));
  const View qv(q), kv(k), vv(v), yv(y);
  const std::int64_t rows = qv.heads / kv.heads * qv.rows;  // query rows per key head
  if (route == AttentionRoute::automatic) route = rows <= kAttentionSplitRows ? AttentionRoute::split : AttentionRoute::tiled;
  if (route == AttentionRoute::split && rows > kAttentionSplitRows) {
    return make_error(ErrorCode::unsupported, "{}: {} query rows per key head, the split route takes {}", kOp, rows,
                      kAttentionSplitRows);
  }
  if (q.elems() == 0) return {};

  Launch<AttentionArgs> launch;
  AttentionArgs& a = launch.args;
  launch.bind(a.q, q);
  launch.bind(a.k, k);
  launch.bind(a.v, v);
  launch.bind(a.y, y);
  if (options.sinks.defined()) launch.bind(a.sinks, options.sinks);
  if (options.lse.defined()) launch.bind(a.lse, options.lse);
  a.q_batch = qv.batch_stride, a.q_head = qv.head_stride, a.q_row = qv.row_stride;
  a.y_batch = yv.batch_stride, a.y_head = yv.head_stride, a.y_row = yv.row_stride;
  a.k_batch = kv.batch_stride, a.k_head = kv.head_stride, a.k_slot = kv.row_stride;
  a.v_batch = vv.batch_stride, a.v_head = vv.head_stride, a.v_slot = vv.row_stride;
  a.seq = qv.rows;
  a.capacity = kv.rows;
  launch.set(a.kv_len, kv_len, 0, kv.rows);
  if (options.p0) launch.set(a.p0, *options.p0, -kAttentionMaxPosition, kAttentionMaxPosition);
  launch.set(a.ring_start, options.ring_start, 0, kv.rows - 1);
  a.batch = static_cast<std::int32_t>(qv.batch);
  a.heads = static_cast<std::int32_t>(qv.heads);
  a.kv_heads = static_cast<std::int32_t>(kv.heads);
  a.head_dim = static_cast<std::int32_t>(qv.dim);
  a.flags = (options.causal ? kAttentionCausal : 0) | (options.p0 ? kAttentionHasP0 : 0);
  a.window = attention_window(options);
  a.scale = attention_scale(options, qv.dim);
  a.softcap = options.softcap;
  if (variant == nullptr) return attention_gpu(encoder, launch, q, k, v, route);

  const int dim = static_cast<int>(qv.dim);
  std::optional<std::uint64_t> floats = checked_product(static_cast<std::uint64_t>(cpu::threads(encoder)), attention_work_floats(dim));
  if (route == AttentionRoute::split) {
    const std::uint64_t parts = ceil_div(static_cast<std::uint64_t>(kv.rows), kAttentionPart);
    const auto states = checked_product(static_cast<std::uint64_t>(qv.batch), qv.heads, qv.rows, parts, attention_state_floats(dim));
    floats = floats && states ? checked_add(*floats, *states) : std::nullopt;
  }
  if (floats) floats = checked_mul(*floats, sizeof(float));
  if (!floats) return make_error(ErrorCode::out_of_memory, "{}: scratch memory beyond 64 bits", kOp);
  MLXN_TRY(const Tensor work, cpu::scratch(encoder, *floats));
  launch.bind(a.work, work);
  const Kernels& kernels = *variant->select;
  const std::size_t type = k.dtype() == DType::f16 ? 1 : 0;
  return cpu::encode(encoder, route == AttentionRoute::split ? kernels.split[type] : kernels.tiled[type], launch);
}

}  // namespace mlxn::ops

namespace mlxn {

Result<void> attention(CommandEncoder& encoder, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& y,
                       const Scalar<std::int64_t>& kv_len, const AttentionOptions& options) {
  return detail::guarded([&] {
    return ops::encode_attention(encoder, q, k, v, y, kv_len, options, std::nullopt, ops::AttentionRoute::automatic);
  });
}

}  // namespace mlxn
