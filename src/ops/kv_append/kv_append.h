#pragma once

#include <optional>

#include "backends/gpu/launch.h"
#include "base/cpu_features.h"
#include "mlxn/ops/kv_append.h"
#include "ops/kv_append/args.h"

namespace mlxn::ops {

/// What every operation that appends wants of its operands, whose encoder has been checked.
[[nodiscard]] Result<void> check_kv_append(std::string_view op, const CommandEncoder& encoder, const Tensor& k_new, const Tensor& v_new,
                                           const Tensor& k_cache, const Tensor& v_cache, const Scalar<std::int64_t>& position,
                                           const KvAppendOptions& options);
/// The largest position that it takes.
[[nodiscard]] std::int64_t last_kv_position(const Tensor& k_new, const Tensor& k_cache, const KvAppendOptions& options) noexcept;
[[nodiscard]] KvAppendSide kv_side(const Tensor& rows, const Tensor& cache) noexcept;

/// mlxn::kv_append with the variant of one instruction set; without a wish the best one.
[[nodiscard]] Result<void> encode_kv_append(CommandEncoder& encoder, const Tensor& k_new, const Tensor& v_new,
                                            const Tensor& k_cache, const Tensor& v_cache, const Scalar<std::int64_t>& position,
                                            const KvAppendOptions& options, std::optional<CpuIsa> isa);

[[nodiscard]] Result<void> kv_append_gpu(CommandEncoder& encoder, const Launch<KvAppendArgs>& launch);

}  // namespace mlxn::ops
