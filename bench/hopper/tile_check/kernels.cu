#include "tile_check/kernels.h"

#include "backends/cuda/kernel_table.h"
#include "ops/matmul/cuda_tile_sm90a.cuh"

namespace mlxn::cuda {
/// DO(type, file of its kernels), unless tile_check.sh has written down some of them.
#if __has_include("tile_check_types.h")
#include "tile_check_types.h"
#else
#define MLXN_TYPES(DO)                                                                                      \
  DO(q4_0, q4_0)                                                                                            \
  DO(q4_1, q4_1)                                                                                            \
  DO(q5_0, q5_0)                                                                                            \
  DO(q5_1, q5_1)                                                                                            \
  DO(q8_0, q8_0)                                                                                            \
  DO(q2_K, q2_K)                                                                                            \
  DO(q3_K, q3_K)                                                                                            \
  DO(q4_K, q4_K)                                                                                            \
  DO(q5_K, q5_K)                                                                                            \
  DO(q6_K, q6_K)                                                                                            \
  DO(iq4_nl, iq4_nl)                                                                                        \
  DO(iq4_xs, iq4_xs)                                                                                        \
  DO(mxfp4, mxfp4)                                                                                          \
  DO(affine4_g64, affine4_g64)                                                                              \
  DO(affine4_g128, affine4_g128)                                                                            \
  DO(affine8_g32, affine8_g32)                                                                              \
  DO(affine8_g64, affine8_g64)                                                                              \
  DO(affine8_g128, affine8_g128)                                                                            \
  DO(affine4_g32_bf16, affine4_g32)                                                                         \
  DO(affine4_g64_bf16, affine4_g64)                                                                         \
  DO(affine4_g128_bf16, affine4_g128)                                                                       \
  DO(affine8_g32_bf16, affine8_g32)                                                                         \
  DO(affine8_g64_bf16, affine8_g64)                                                                         \
  DO(affine8_g128_bf16, affine8_g128)
#endif
#define MLXN_TABLE(type, file) extern const KernelTable cuda_hopper_tile_##file;
MLXN_TYPES(MLXN_TABLE)
MLXN_TABLE(f16, f16)
MLXN_TABLE(bf16, bf16)
MLXN_TABLE(bf16_narrow, bf16_narrow)
extern const KernelTable cuda_hopper_stage;
}  // namespace mlxn::cuda

namespace tile_check {

#define MLXN_NAME(type, file) {DType::type},
const std::vector<Weights> kTypes = {MLXN_TYPES(MLXN_NAME){DType::f16}, {DType::bf16}, {DType::bf16, true}};

namespace {

template <class F, int kTokens, int kRowGroups, int kKGroups, int kBlocks>
constexpr tile::Shape variant_shape() {
  tile::Shape s;
  s.tokens = kTokens;
  s.row_groups = kRowGroups;
  s.k_groups = kKGroups;
  s.blocks_per_sm = kBlocks;
  s.half_bytes = F::kCodeBytes + F::kRowBytes;
  return tile::with_stages(s);
}
template <class F, int kTokens, int kRowGroups, int kKGroups, int kBlocks>
using VariantConfig = tile::Config<F, variant_shape<F, kTokens, kRowGroups, kKGroups, kBlocks>()>;
template <class F, int kTokens, int kRowGroups, int kKGroups, int kBlocks>
__global__ void __launch_bounds__(128 * (1 + kRowGroups * kKGroups), kBlocks)
    variant(const __grid_constant__ ops::HopperTileArgs args) {
  tile::tile_matmul<VariantConfig<F, kTokens, kRowGroups, kKGroups, kBlocks>>(args);
}

template <class F, int kTokens, int kRowGroups, int kKGroups, int kBlocks>
Variant make_variant(const char* name) {
  return {name, variant_shape<F, kTokens, kRowGroups, kKGroups, kBlocks>(),
          reinterpret_cast<const void*>(&variant<F, kTokens, kRowGroups, kKGroups, kBlocks>)};
}

}  // namespace

std::vector<Variant> variants_of(const Weights& weights) {
#ifdef MLXN_NO_VARIANTS
  return {};
#else
  if (weights.type != DType::q4_0) return {};
  using F = tile::Q4_0;
  return {make_variant<F, 16, 2, 2, 1>("16 k2"),
          make_variant<F, 32, 2, 1, 1>("32 k1"),
          make_variant<F, 64, 2, 1, 1>("64 k1"),
          make_variant<F, 16, 4, 1, 1>("16 rows256"),
          make_variant<F, 32, 4, 1, 1>("32 rows256"),
          make_variant<F, 64, 4, 1, 1>("64 rows256"),
          make_variant<F, 16, 2, 1, 2>("16 2/sm"),
          make_variant<F, 32, 2, 1, 2>("32 2/sm"),
          make_variant<F, 32, 1, 1, 2>("32 rows64 2/sm"),
          make_variant<F, 64, 1, 1, 2>("64 rows64 2/sm"),
          make_variant<F, 128, 1, 1, 2>("128 rows64 2/sm"),
          make_variant<F, 64, 3, 1, 1>("64 rows192"),
          make_variant<F, 128, 3, 1, 1>("128 rows192")};
#endif
}

namespace {

const void* find(const cuda::KernelTable& table, std::string_view name) {
  for (int i = 0; i < table.count; ++i) {
    if (name == table.entries[i].name) return table.entries[i].function;
  }
  return nullptr;
}

}  // namespace

const void* kernel_of(const Weights& weights, std::string_view name) {
  switch (weights.type) {
    case DType::f16:
      return find(cuda::cuda_hopper_tile_f16, name);
    case DType::bf16:
      return find(weights.narrow ? cuda::cuda_hopper_tile_bf16_narrow : cuda::cuda_hopper_tile_bf16, name);
#define MLXN_FIND(type, file) \
  case DType::type:           \
    return find(cuda::cuda_hopper_tile_##file, name);
    MLXN_TYPES(MLXN_FIND)
    default:
      return nullptr;
  }
}

StageKernel stage_kernel(bool normed) {
  const char* name = normed ? "matmul_hopper_stage_normed" : "matmul_hopper_stage";
  return {find(cuda::cuda_hopper_stage, name), cuda::cuda_hopper_stage.entries[0].threads};
}

}  // namespace tile_check
