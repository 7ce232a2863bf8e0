#include "models/kv_cache.h"

#include "base/checked.h"
#include "base/error.h"

namespace mlxn::models {

Result<KvCache> KvCache::create(const Device& device, DType type, std::int64_t layer_count, std::int64_t kv_heads,
                                std::int64_t capacity, std::int64_t k_dim, std::int64_t v_dim) {
  KvCache cache;
  cache.capacity = capacity;
  const auto wanted = checked_product(static_cast<std::uint64_t>(layer_count), kv_heads, capacity, k_dim + v_dim, block_bytes(type));
  // A CPU's system hands out more than it has and kills the process later, so ask first.
  const std::uint64_t available = device.free_bytes();
  if (!wanted || *wanted > available) {
    return make_error(ErrorCode::out_of_memory, "the KV cache of {} positions wants {} bytes, {} are available", capacity,
                      wanted ? *wanted : UINT64_MAX, available);
  }
  cache.bytes = *wanted;
  for (std::int64_t i = 0; i < layer_count; ++i) {
    Layer layer;
    MLXN_TRY(layer.k, device.allocate(type, {kv_heads, capacity, k_dim}));
    MLXN_TRY(layer.v, device.allocate(type, {kv_heads, capacity, v_dim}));
    cache.layers.push_back(std::move(layer));
  }
  return cache;
}

}  // namespace mlxn::models
