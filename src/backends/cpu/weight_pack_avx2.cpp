#include "backends/cpu/weight_pack.h"
#include "simd/avx2.h"

namespace mlxn::rows16::avx2 {

PackGroup packer(DType type) noexcept { return packer_of<simd::Avx2>(type); }

}  // namespace mlxn::rows16::avx2
