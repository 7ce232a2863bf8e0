#include "backends/cpu/weight_pack.h"
#include "simd/scalar.h"

namespace mlxn::rows16::scalar {

PackGroup packer(DType type) noexcept { return packer_of<simd::Scalar>(type); }

}  // namespace mlxn::rows16::scalar
