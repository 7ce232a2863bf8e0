#include "ops/add/add.h"

#include "ops/add/cpu.h"
#include "ops/elementwise_encode.h"

namespace mlxn::ops {
namespace {

constexpr IsaVariant<ElementwiseSelect> kVariants[] = {
#if defined(__x86_64__)
    {CpuIsa::avx512, "add_avx512", &add_avx512},
    {CpuIsa::avx2, "add_avx2", &add_avx2},
#elif defined(__aarch64__)
    {CpuIsa::neon, "add_neon", &add_neon},
#endif
    {CpuIsa::scalar, "add_scalar", &add_scalar},
};
constexpr VariantInfo kInfos[] = {
#if defined(__x86_64__)
    variant_info<CpuIsa::avx512>("add_avx512"),
    variant_info<CpuIsa::avx2>("add_avx2"),
#elif defined(__aarch64__)
    variant_info<CpuIsa::neon>("add_neon"),
#endif
    variant_info<CpuIsa::scalar>("add_scalar"),
    gpu_variant_info("add_gpu"),
};

}  // namespace

extern const OpInfo op_add;
const OpInfo op_add = {"add", kInfos};

Result<void> encode_add(CommandEncoder& encoder, const Tensor& a, const Tensor& b, const Tensor& y,
                        std::optional<CpuIsa> isa) {
  return encode_elementwise({"add", "a", "b", true, kVariants, &add_gpu}, encoder, a, b, y, 0.0f, isa);
}

}  // namespace mlxn::ops

namespace mlxn {

Result<void> add(CommandEncoder& encoder, const Tensor& a, const Tensor& b, const Tensor& y) {
  return detail::guarded([&] { return ops::encode_add(encoder, a, b, y, std::nullopt); });
}

}  // namespace mlxn
