// Stand-in of src/cuda_blocks/bulk.cuh on the host.
#pragma once

#include "cuda_blocks/barrier.cuh"

namespace mlxn::sm90 {

inline std::uint64_t policy_read_once() { return 0; }
inline void bulk_load(std::uint32_t to, const void* global, std::uint32_t bytes, Barrier barrier,
                      std::uint64_t) {
  cuda_on_host::start_copy(to, global, bytes, barrier);
}

}  // namespace mlxn::sm90
