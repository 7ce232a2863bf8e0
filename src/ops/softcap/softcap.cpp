#include "ops/softcap/softcap.h"

#include <cmath>

#include "ops/elementwise_encode.h"
#include "ops/softcap/cpu.h"

namespace mlxn::ops {
namespace {

constexpr IsaVariant<ElementwiseSelect> kVariants[] = {
#if defined(__x86_64__)
    {CpuIsa::avx512, "softcap_avx512", &softcap_avx512},
    {CpuIsa::avx2, "softcap_avx2", &softcap_avx2},
#elif defined(__aarch64__)
    {CpuIsa::neon, "softcap_neon", &softcap_neon},
#endif
    {CpuIsa::scalar, "softcap_scalar", &softcap_scalar},
};
constexpr VariantInfo kInfos[] = {
#if defined(__x86_64__)
    variant_info<CpuIsa::avx512>("softcap_avx512"),
    variant_info<CpuIsa::avx2>("softcap_avx2"),
#elif defined(__aarch64__)
    variant_info<CpuIsa::neon>("softcap_neon"),
#endif
    variant_info<CpuIsa::scalar>("softcap_scalar"),
    gpu_variant_info("softcap_gpu"),
};

}  // namespace

extern const OpInfo op_softcap;
const OpInfo op_softcap = {"softcap", kInfos};

Result<void> encode_softcap(CommandEncoder& encoder, const Tensor& x, const Tensor& y, float cap,
                            std::optional<CpuIsa> isa) {
  if (!std::isfinite(cap) || cap <= 0) {
    return make_error(ErrorCode::invalid_argument, "softcap: cap is {}, wanted a finite number above 0", cap);
  }
  return encode_elementwise({"softcap", "x", "", false, kVariants, &softcap_gpu}, encoder, x, {}, y, cap, isa);
}

}  // namespace mlxn::ops

namespace mlxn {

Result<void> softcap(CommandEncoder& encoder, const Tensor& x, const Tensor& y, float cap) {
  return detail::guarded([&] { return ops::encode_softcap(encoder, x, y, cap, std::nullopt); });
}

}  // namespace mlxn
