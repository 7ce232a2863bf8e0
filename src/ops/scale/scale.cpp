#include "ops/scale/scale.h"

#include "ops/elementwise_encode.h"
#include "ops/scale/cpu.h"

namespace mlxn::ops {
namespace {

constexpr IsaVariant<ElementwiseSelect> kVariants[] = {
#if defined(__x86_64__)
    {CpuIsa::avx512, "scale_avx512", &scale_avx512},
    {CpuIsa::avx2, "scale_avx2", &scale_avx2},
#elif defined(__aarch64__)
    {CpuIsa::neon, "scale_neon", &scale_neon},
#endif
    {CpuIsa::scalar, "scale_scalar", &scale_scalar},
};
constexpr VariantInfo kInfos[] = {
#if defined(__x86_64__)
    variant_info<CpuIsa::avx512>("scale_avx512"),
    variant_info<CpuIsa::avx2>("scale_avx2"),
#elif defined(__aarch64__)
    variant_info<CpuIsa::neon>("scale_neon"),
#endif
    variant_info<CpuIsa::scalar>("scale_scalar"),
    gpu_variant_info("scale_gpu"),
};

}  // namespace

extern const OpInfo op_scale;
const OpInfo op_scale = {"scale", kInfos};

Result<void> encode_scale(CommandEncoder& encoder, const Tensor& x, const Tensor& y, float factor,
                          std::optional<CpuIsa> isa) {
  MLXN_CHECK(check_finite("scale", "factor", factor));
  return encode_elementwise({"scale", "x", "", false, kVariants, &scale_gpu}, encoder, x, {}, y, factor, isa);
}

}  // namespace mlxn::ops

namespace mlxn {

Result<void> scale(CommandEncoder& encoder, const Tensor& x, const Tensor& y, float factor) {
  return detail::guarded([&] { return ops::encode_scale(encoder, x, y, factor, std::nullopt); });
}

}  // namespace mlxn
