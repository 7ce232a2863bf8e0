#include "ops/kv_append/kv_append.h"

#include "ops/kv_append/cpu.h"
#include "ops/row_check.h"

namespace mlxn::ops {
namespace {

constexpr std::string_view kOp = "kv_append";
constexpr std::int64_t kMaxPosition = std::int64_t{1} << 62;
constexpr std::int64_t kMaxHeadDim = 1 << 20;

constexpr IsaVariant<KvAppendSelect> kVariants[] = {
#if defined(__x86_64__)
    {CpuIsa::avx512, "kv_append_avx512", &kv_append_avx512},
    {CpuIsa::avx2, "kv_append_avx2", &kv_append_avx2},
#elif defined(__aarch64__)
    {CpuIsa::neon, "kv_append_neon", &kv_append_neon},
#endif
    {CpuIsa::scalar, "kv_append_scalar", &kv_append_scalar},
};
constexpr VariantInfo kInfos[] = {
#if defined(__x86_64__)
    variant_info<CpuIsa::avx512>("kv_append_avx512"),
    variant_info<CpuIsa::avx2>("kv_append_avx2"),
#elif defined(__aarch64__)
    variant_info<CpuIsa::neon>("kv_append_neon"),
#endif
    variant_info<CpuIsa::scalar>("kv_append_scalar"),
    gpu_variant_info("kv_append_gpu"),
};

Result<void> check_side(std::string_view op, const CommandEncoder& encoder, std::string_view new_name, const Tensor& rows,
                        std::string_view cache_name, const Tensor& cache) {
  MLXN_CHECK(check_operand(op, new_name, encoder, rows, {DType::f32}));
  MLXN_CHECK(check_operand(op, cache_name, encoder, cache, {DType::f32, DType::f16}));
  if (rows.rank() != 3 || rows.dim(1) == 0 || rows.dim(2) == 0 || rows.dim(2) > kMaxHeadDim) {
    return make_error(ErrorCode::bad_shape, "{}: {} is {}, wanted [seq, kv_heads, head_dim], only seq may be 0", op, new_name,
                      to_string(rows.shape()));
  }
  if (cache.rank() != 3 || cache.dim(0) != rows.dim(1) || cache.dim(1) == 0 || cache.dim(2) != rows.dim(2)) {
    return make_error(ErrorCode::bad_shape, "{}: {} is {}, wanted [{}, capacity, {}] for {} {}", op, cache_name,
                      to_string(cache.shape()), rows.dim(1), rows.dim(2), new_name, to_string(rows.shape()));
  }
  MLXN_CHECK(check_last_contiguous(op, new_name, rows));
  MLXN_CHECK(check_rows(op, cache_name, cache));
  return check_rows_apart(op, cache_name, cache);
}

}  // namespace

extern const OpInfo op_kv_append;
const OpInfo op_kv_append = {"kv_append", kInfos};

std::int64_t last_kv_position(const Tensor& k_new, const Tensor& k_cache, const KvAppendOptions& options) noexcept {
  return options.ring ? kMaxPosition : k_cache.dim(1) - k_new.dim(0);
}

KvAppendSide kv_side(const Tensor& rows, const Tensor& cache) noexcept {
  return {rows.stride(0), rows.stride(1), cache.stride(0), cache.stride(1), static_cast<std::int32_t>(rows.dim(2)),
          cache.dtype() == DType::f16 ? 1 : 0};
}

Result<void> check_kv_append(std::string_view op, const CommandEncoder& encoder, const Tensor& k_new, const Tensor& v_new,
                             const Tensor& k_cache, const Tensor& v_cache, const Scalar<std::int64_t>& position,
                             const KvAppendOptions& options) {
  MLXN_CHECK(check_side(op, encoder, "k_new", k_new, "k_cache", k_cache));
  MLXN_CHECK(check_side(op, encoder, "v_new", v_new, "v_cache", v_cache));
  if (v_new.dim(0) != k_new.dim(0) || v_new.dim(1) != k_new.dim(1)) {
    return make_error(ErrorCode::bad_shape, "{}: v_new is {}, wanted the tokens and heads of k_new {}", op,
                      to_string(v_new.shape()), to_string(k_new.shape()));
  }
  const std::int64_t seq = k_new.dim(0), capacity = k_cache.dim(1);
  if (v_cache.dim(1) != capacity) {
    return make_error(ErrorCode::bad_shape, "{}: v_cache has {} slots, k_cache has {}", op, v_cache.dim(1), capacity);
  }
  if (seq > capacity) return make_error(ErrorCode::bad_shape, "{}: {} tokens, the cache has {} slots", op, seq, capacity);
  MLXN_CHECK(check_no_overlap(op, "k_cache", k_cache, "k_new", k_new));
  MLXN_CHECK(check_no_overlap(op, "k_cache", k_cache, "v_new", v_new));
  MLXN_CHECK(check_no_overlap(op, "k_cache", k_cache, "v_cache", v_cache));
  MLXN_CHECK(check_no_overlap(op, "v_cache", v_cache, "k_new", k_new));
  MLXN_CHECK(check_no_overlap(op, "v_cache", v_cache, "v_new", v_new));
  const std::int64_t last = last_kv_position(k_new, k_cache, options);
  if (position.value < 0 || position.value > last) {
    return make_error(ErrorCode::out_of_range, "{}: position is {} for {} tokens, wanted 0 to {}", op, position.value, seq, last);
  }
  return {};
}

Result<void> encode_kv_append(CommandEncoder& encoder, const Tensor& k_new, const Tensor& v_new, const Tensor& k_cache,
                              const Tensor& v_cache, const Scalar<std::int64_t>& position, const KvAppendOptions& options,
                              std::optional<CpuIsa> isa) {
  MLXN_CHECK(check_encoder(kOp, encoder));
  MLXN_CHECK(check_kv_append(kOp, encoder, k_new, v_new, k_cache, v_cache, position, options));
  MLXN_TRY(const auto* variant, pick_for<KvAppendSelect>(encoder, kOp, kVariants, isa));
  if (k_new.dim(0) == 0) return {};

  Launch<KvAppendArgs> launch;
  launch.bind(launch.args.k_new, k_new);
  launch.bind(launch.args.v_new, v_new);
  launch.bind(launch.args.k_cache, k_cache);
  launch.bind(launch.args.v_cache, v_cache);
  launch.args.k = kv_side(k_new, k_cache);
  launch.args.v = kv_side(v_new, v_cache);
  launch.args.seq = k_new.dim(0);
  launch.args.kv_heads = k_new.dim(1);
  launch.args.capacity = k_cache.dim(1);
  launch.set(launch.args.position, position, 0, last_kv_position(k_new, k_cache, options));
  launch.args.ring = options.ring ? 1 : 0;
  if (variant == nullptr) return kv_append_gpu(encoder, launch);
  return cpu::encode(encoder, variant->select(variant->name), launch);
}

}  // namespace mlxn::ops

namespace mlxn {

Result<void> kv_append(CommandEncoder& encoder, const Tensor& k_new, const Tensor& v_new, const Tensor& k_cache,
                       const Tensor& v_cache, const Scalar<std::int64_t>& position, const KvAppendOptions& options) {
  return detail::guarded(
      [&] { return ops::encode_kv_append(encoder, k_new, v_new, k_cache, v_cache, position, options, std::nullopt); });
}

}  // namespace mlxn
