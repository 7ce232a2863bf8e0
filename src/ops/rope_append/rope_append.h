#pragma once

#include "backends/gpu/launch.h"
#include "mlxn/ops/rope_append.h"
#include "ops/rope_append/args.h"

namespace mlxn::ops {

/// What every operation that turns and appends wants of its operands, whose encoder has been checked.
[[nodiscard]] Result<void> check_rope_append(std::string_view op, const CommandEncoder& encoder, const Tensor& q, const Tensor& k_new,
                                             const Tensor& v_new, const Tensor& positions, const RopeTable& table,
                                             const Tensor& k_cache, const Tensor& v_cache, const Scalar<std::int64_t>& position,
                                             const KvAppendOptions& options);
[[nodiscard]] Result<void> encode_rope_append(CommandEncoder& encoder, const Tensor& q, const Tensor& k_new, const Tensor& v_new,
                                              const Tensor& positions, const RopeTable& table, const Tensor& k_cache,
                                              const Tensor& v_cache, const Scalar<std::int64_t>& position,
                                              const KvAppendOptions& options);

[[nodiscard]] Result<void> rope_append_gpu(CommandEncoder& encoder, Launch<RopeAppendArgs>& launch);

}  // namespace mlxn::ops
