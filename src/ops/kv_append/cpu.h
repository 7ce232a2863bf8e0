#pragma once

#include "backends/cpu/launch.h"
#include "ops/elements.h"
#include "ops/kv_append/args.h"

namespace mlxn::ops {

template <class S, class T>
MLXN_SIMD void kv_append_row(const float* from, T* to, std::int64_t dim) {
  std::int64_t i = 0;
  for (; i + S::kLanes <= dim; i += S::kLanes) Elements<S, T>::store(to + i, S::load(from + i));
  if (i < dim) Elements<S, T>::store_part(to + i, Elements<S, float>::load_part(from + i, dim - i), dim - i);
}

template <class S>
MLXN_SIMD void kv_append_side(const KvAppendSide& side, const float* from, void* cache, std::int64_t t, std::int64_t head,
                              std::int64_t slot) {
  const float* row = from + t * side.new_row + head * side.new_head;
  const std::int64_t at = head * side.cache_head + slot * side.cache_slot;
  if (side.f16_cache != 0) {
    kv_append_row<S>(row, static_cast<f16*>(cache) + at, side.head_dim);
  } else {
    kv_append_row<S>(row, static_cast<float*>(cache) + at, side.head_dim);
  }
}

template <class S>
void kv_append_rows(const KvAppendArgs& args, const CpuContext& context) {
  const auto share = context.share(static_cast<std::uint64_t>(args.seq * args.kv_heads));
  for (std::uint64_t item = share.begin; item < share.end; ++item) {
    const auto head = static_cast<std::int64_t>(item) / args.seq, t = static_cast<std::int64_t>(item) % args.seq;
    const std::int64_t position = args.position.value + t;
    const std::int64_t slot = args.ring != 0 ? position % args.capacity : position;
    kv_append_side<S>(args.k, args.k_new.ptr, args.k_cache.ptr, t, head, slot);
    kv_append_side<S>(args.v, args.v_new.ptr, args.v_cache.ptr, t, head, slot);
  }
}

using KvAppendSelect = cpu::Kernel<KvAppendArgs> (*)(std::string_view name) noexcept;
[[nodiscard]] cpu::Kernel<KvAppendArgs> kv_append_scalar(std::string_view name) noexcept;
[[nodiscard]] cpu::Kernel<KvAppendArgs> kv_append_avx2(std::string_view name) noexcept;
[[nodiscard]] cpu::Kernel<KvAppendArgs> kv_append_avx512(std::string_view name) noexcept;
[[nodiscard]] cpu::Kernel<KvAppendArgs> kv_append_neon(std::string_view name) noexcept;

}  // namespace mlxn::ops
