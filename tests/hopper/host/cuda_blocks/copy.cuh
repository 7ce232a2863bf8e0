// Stand-in of src/cuda_blocks/copy.cuh on the host.
#pragma once

#include "cuda_blocks/ptx.cuh"

namespace mlxn::sm90 {

inline void copy_async(std::uint32_t to, const void* global, std::uint32_t bytes) {
  cuda_on_host::start_own_copy(to, global, bytes);
}
inline void copy_async_wait() { cuda_on_host::finish_own_copies(); }

}  // namespace mlxn::sm90
