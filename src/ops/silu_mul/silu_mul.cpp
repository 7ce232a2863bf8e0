#include "ops/silu_mul/silu_mul.h"

#include "ops/elementwise_encode.h"
#include "ops/silu_mul/cpu.h"

namespace mlxn::ops {
namespace {

constexpr IsaVariant<ElementwiseSelect> kVariants[] = {
#if defined(__x86_64__)
    {CpuIsa::avx512, "silu_mul_avx512", &silu_mul_avx512},
    {CpuIsa::avx2, "silu_mul_avx2", &silu_mul_avx2},
#elif defined(__aarch64__)
    {CpuIsa::neon, "silu_mul_neon", &silu_mul_neon},
#endif
    {CpuIsa::scalar, "silu_mul_scalar", &silu_mul_scalar},
};
constexpr VariantInfo kInfos[] = {
#if defined(__x86_64__)
    variant_info<CpuIsa::avx512>("silu_mul_avx512"),
    variant_info<CpuIsa::avx2>("silu_mul_avx2"),
#elif defined(__aarch64__)
    variant_info<CpuIsa::neon>("silu_mul_neon"),
#endif
    variant_info<CpuIsa::scalar>("silu_mul_scalar"),
    gpu_variant_info("silu_mul_gpu"),
};

}  // namespace

extern const OpInfo op_silu_mul;
const OpInfo op_silu_mul = {"silu_mul", kInfos};

Result<void> encode_silu_mul(CommandEncoder& encoder, const Tensor& g, const Tensor& u, const Tensor& y,
                             std::optional<CpuIsa> isa) {
  return encode_elementwise({"silu_mul", "g", "u", false, kVariants, &silu_mul_gpu}, encoder, g, u, y, 0.0f, isa);
}

}  // namespace mlxn::ops

namespace mlxn {

Result<void> silu_mul(CommandEncoder& encoder, const Tensor& g, const Tensor& u, const Tensor& y) {
  return detail::guarded([&] { return ops::encode_silu_mul(encoder, g, u, y, std::nullopt); });
}

}  // namespace mlxn
