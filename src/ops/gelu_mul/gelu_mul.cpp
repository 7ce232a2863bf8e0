#include "ops/gelu_mul/gelu_mul.h"

#include "ops/elementwise_encode.h"
#include "ops/gelu_mul/cpu.h"

namespace mlxn::ops {
namespace {

constexpr IsaVariant<ElementwiseSelect> kVariants[] = {
#if defined(__x86_64__)
    {CpuIsa::avx512, "gelu_mul_avx512", &gelu_mul_avx512},
    {CpuIsa::avx2, "gelu_mul_avx2", &gelu_mul_avx2},
#elif defined(__aarch64__)
    {CpuIsa::neon, "gelu_mul_neon", &gelu_mul_neon},
#endif
    {CpuIsa::scalar, "gelu_mul_scalar", &gelu_mul_scalar},
};
constexpr VariantInfo kInfos[] = {
#if defined(__x86_64__)
    variant_info<CpuIsa::avx512>("gelu_mul_avx512"),
    variant_info<CpuIsa::avx2>("gelu_mul_avx2"),
#elif defined(__aarch64__)
    variant_info<CpuIsa::neon>("gelu_mul_neon"),
#endif
    variant_info<CpuIsa::scalar>("gelu_mul_scalar"),
    gpu_variant_info("gelu_mul_gpu"),
};

}  // namespace

extern const OpInfo op_gelu_mul;
const OpInfo op_gelu_mul = {"gelu_mul", kInfos};

Result<void> encode_gelu_mul(CommandEncoder& encoder, const Tensor& g, const Tensor& u, const Tensor& y,
                             std::optional<CpuIsa> isa) {
  return encode_elementwise({"gelu_mul", "g", "u", false, kVariants, &gelu_mul_gpu}, encoder, g, u, y, 0.0f, isa);
}

}  // namespace mlxn::ops

namespace mlxn {

Result<void> gelu_mul(CommandEncoder& encoder, const Tensor& g, const Tensor& u, const Tensor& y) {
  return detail::guarded([&] { return ops::encode_gelu_mul(encoder, g, u, y, std::nullopt); });
}

}  // namespace mlxn
