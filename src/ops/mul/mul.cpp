#include "ops/mul/mul.h"

#include "ops/elementwise_encode.h"
#include "ops/mul/cpu.h"

namespace mlxn::ops {
namespace {

constexpr IsaVariant<ElementwiseSelect> kVariants[] = {
#if defined(__x86_64__)
    {CpuIsa::avx512, "mul_avx512", &mul_avx512},
    {CpuIsa::avx2, "mul_avx2", &mul_avx2},
#elif defined(__aarch64__)
    {CpuIsa::neon, "mul_neon", &mul_neon},
#endif
    {CpuIsa::scalar, "mul_scalar", &mul_scalar},
};
constexpr VariantInfo kInfos[] = {
#if defined(__x86_64__)
    variant_info<CpuIsa::avx512>("mul_avx512"),
    variant_info<CpuIsa::avx2>("mul_avx2"),
#elif defined(__aarch64__)
    variant_info<CpuIsa::neon>("mul_neon"),
#endif
    variant_info<CpuIsa::scalar>("mul_scalar"),
    gpu_variant_info("mul_gpu"),
};

}  // namespace

extern const OpInfo op_mul;
const OpInfo op_mul = {"mul", kInfos};

Result<void> encode_mul(CommandEncoder& encoder, const Tensor& a, const Tensor& b, const Tensor& y,
                        std::optional<CpuIsa> isa) {
  return encode_elementwise({"mul", "a", "b", true, kVariants, &mul_gpu}, encoder, a, b, y, 0.0f, isa);
}

}  // namespace mlxn::ops

namespace mlxn {

Result<void> mul(CommandEncoder& encoder, const Tensor& a, const Tensor& b, const Tensor& y) {
  return detail::guarded([&] { return ops::encode_mul(encoder, a, b, y, std::nullopt); });
}

}  // namespace mlxn
