#include "backends/cpu/weight_pack.h"
#include "simd/avx512.h"

namespace mlxn::rows16::avx512 {

PackGroup packer(DType type) noexcept { return packer_of<simd::Avx512>(type); }

}  // namespace mlxn::rows16::avx512
