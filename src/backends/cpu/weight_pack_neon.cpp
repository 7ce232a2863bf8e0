#include "backends/cpu/weight_pack.h"
#include "simd/neon.h"

namespace mlxn::rows16::neon {

PackGroup packer(DType type) noexcept { return packer_of<simd::Neon>(type); }

}  // namespace mlxn::rows16::neon
