#pragma once

#include <cstdint>
#include <vector>

#include "mlxn/device.h"

namespace mlxn::models {

/// Keys and values of one sequence: per layer two tensors [kv_heads, capacity, head_dim].
struct KvCache {
  struct Layer {
    Tensor k, v;
  };
  std::vector<Layer> layers;
  std::int64_t capacity = 0;
  std::uint64_t bytes = 0;

  /// Errors: out_of_memory, with the bytes wanted for the whole cache and those available.
  [[nodiscard]] static Result<KvCache> create(const Device& device, DType type, std::int64_t layer_count, std::int64_t kv_heads,
                                              std::int64_t capacity, std::int64_t k_dim, std::int64_t v_dim);
};

}  // namespace mlxn::models
