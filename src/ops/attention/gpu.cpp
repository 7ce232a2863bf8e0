#include <bit>

#include "base/checked.h"
#include "base/error.h"
#include "ops/attention/attention.h"
#include "ops/attention/kernel.h"
#include "ops/attention/mma_shape.h"

namespace mlxn {

namespace gpu {
namespace {
MLXN_KERNELS(MLXN_GPU_HANDLE)

#define MLXN_ATTENTION_MMA_HANDLE(name, dim)                                                                           \
  const KernelInfo name##_info{#name, ops::AttentionMmaShape<dim>::kThreads, 0, sizeof(ops::AttentionArgs),            \
                               ops::AttentionMmaShape<dim>::kSharedBytes, {}, true};                                   \
  constexpr Kernel<ops::AttentionArgs> name{&name##_info};
MLXN_ATTENTION_MMA_KERNELS(MLXN_ATTENTION_MMA_HANDLE)
}  // namespace
}  // namespace gpu

namespace ops {
namespace {

using Handle = gpu::Kernel<AttentionArgs>;

/// The kernels for head dimensions up to one.
struct Kernels {
  int max_dim;
  Handle split4, split8;  ///< for up to 4 and 8 rows of a group
  Handle tiled;
  std::uint32_t tiled_rows;  ///< of a group
};
#define MLXN_ATTENTION_KERNELS(type, T, dim)                                                                                     \
  {dim, gpu::attention_split_##type##_##dim##_rows4, gpu::attention_split_##type##_##dim##_rows8, gpu::attention_tiled_##type##_##dim, \
   gpu::AttentionTiled<T, dim>::kRows}
constexpr Kernels kKernels[2][4] = {{MLXN_ATTENTION_KERNELS(f32, float, 64), MLXN_ATTENTION_KERNELS(f32, float, 128),
                                     MLXN_ATTENTION_KERNELS(f32, float, 256), MLXN_ATTENTION_KERNELS(f32, float, 512)},
                                    {MLXN_ATTENTION_KERNELS(f16, gpu::f16, 64), MLXN_ATTENTION_KERNELS(f16, gpu::f16, 128),
                                     MLXN_ATTENTION_KERNELS(f16, gpu::f16, 256), MLXN_ATTENTION_KERNELS(f16, gpu::f16, 512)}};
#undef MLXN_ATTENTION_KERNELS
static_assert(kKernels[0][3].max_dim == kAttentionMaxDim && kKernels[1][3].max_dim == kAttentionMaxDim);

const Kernels& kernels_for(DType type, int head_dim) noexcept {
  const Kernels* kernels = kKernels[type == DType::f16 ? 1 : 0];
  while (kernels->max_dim < head_dim) ++kernels;
  return *kernels;
}

/// CUDA's kernel for head dimensions up to one.
struct MmaKernel {
  int max_dim, rows;  ///< rows of a group
  Handle handle;
};
#define MLXN_ATTENTION_MMA_ROW(name, dim) {dim, AttentionMmaShape<dim>::kRows, gpu::name},
constexpr MmaKernel kMmaKernels[] = {MLXN_ATTENTION_MMA_KERNELS(MLXN_ATTENTION_MMA_ROW)};
#undef MLXN_ATTENTION_MMA_ROW

/// Null if there is none for the call. The alignment makes no difference, so that it makes none to the bits.
const MmaKernel* mma_kernel_for(const CommandEncoder& encoder, DType type, int head_dim) noexcept {
  if (!gpu::on_cuda(encoder) || type != DType::f16) return nullptr;
  for (const MmaKernel& kernel : kMmaKernels) {
    if (head_dim <= kernel.max_dim) return &kernel;
  }
  return nullptr;
}

/// Whether all rows start at addresses that are multiples of 16 bytes and end before one.
bool is_aligned(const Tensor& t) noexcept {
  const std::uint64_t bytes = block_bytes(t.dtype());
  std::uint64_t any = reinterpret_cast<std::uintptr_t>(device_address(t)) | static_cast<std::uint64_t>(t.dim(-1)) * bytes;
  for (int i = 0; i + 1 < t.rank(); ++i) {
    if (t.dim(i) > 1) any |= static_cast<std::uint64_t>(t.stride(i)) * bytes;
  }
  return any % 16 == 0;
}

/// Keys in 32 bits, with room for the tile that goes beyond the last.
constexpr std::int64_t kMaxCapacity = INT32_MAX - kAttentionTile;

Result<void> encode_split(CommandEncoder& encoder, const Kernels& kernels, Launch<AttentionArgs>& launch) {
  AttentionArgs& a = launch.args;
  const bool is_windowed = a.window > 0 && (a.flags & kAttentionCausal) != 0;
  // Parts hold what a row may see, whatever the other rows are.
  const std::int64_t keys = is_windowed ? std::min(a.window, a.capacity) : a.capacity;
  const auto part = std::max<std::uint64_t>(std::bit_ceil(static_cast<std::uint64_t>(keys)) / kAttentionGpuParts, kAttentionTile);
  a.part_shift = std::countr_zero(part);
  // The rows of a head see up to seq - 1 keys more than one, and any range may begin inside a part.
  const std::int64_t span = is_windowed ? std::min(keys + a.seq - 1, a.capacity) : a.capacity;
  std::uint64_t parts = ceil_div(static_cast<std::uint64_t>(a.capacity), part);
  if (is_windowed) parts = std::min(parts, ceil_div(static_cast<std::uint64_t>(span), part) + 1);

  const auto rows = static_cast<std::uint32_t>(a.heads / a.kv_heads * a.seq);
  const Handle kernel = rows <= 4 ? kernels.split4 : kernels.split8;
  const std::uint64_t blocks = ceil_div(std::uint64_t{rows}, rows <= 4 ? 4 : 8);
  const auto groups = checked_product(parts, static_cast<std::uint64_t>(a.batch), a.kv_heads, blocks);
  const auto all_rows = static_cast<std::uint64_t>(a.batch) * static_cast<std::uint64_t>(a.heads) * static_cast<std::uint64_t>(a.seq);
  const auto floats = checked_product(parts, all_rows, (static_cast<std::uint64_t>(a.head_dim) + 3) / 4 * 4 + 4);
  const auto bytes = floats ? checked_mul(*floats, sizeof(float)) : std::nullopt;
  if (!groups || *groups > INT32_MAX || !bytes) {
    return make_error(ErrorCode::bad_shape, "attention: {} batches of {} heads and {} rows with {} slots are more than a launch takes",
                      a.batch, a.heads, a.seq, a.capacity);
  }
  MLXN_TRY(const std::uint32_t merges, gpu::groups_for("attention", static_cast<std::int64_t>(all_rows), 1));
  MLXN_TRY(const Tensor work, gpu::scratch(encoder, *bytes));
  launch.bind(a.work, work);
  MLXN_CHECK(gpu::encode(encoder, kernel, {static_cast<std::uint32_t>(*groups)}, launch));
  return gpu::encode(encoder, gpu::attention_merge, {merges}, launch);
}

}  // namespace

Result<void> attention_gpu(CommandEncoder& encoder, Launch<AttentionArgs>& launch, const Tensor& q, const Tensor& k, const Tensor& v,
                           AttentionRoute route) {
  AttentionArgs& a = launch.args;
  if (a.capacity > kMaxCapacity) {
    return make_error(ErrorCode::bad_shape, "attention: k has {} slots, a GPU takes {}", a.capacity, kMaxCapacity);
  }
  if (is_aligned(q) && is_aligned(k) && is_aligned(v)) a.flags |= kAttentionAligned;
  const Kernels& kernels = kernels_for(k.dtype(), a.head_dim);
  if (route == AttentionRoute::split) return encode_split(encoder, kernels, launch);
  const MmaKernel* mma = route == AttentionRoute::portable_tiled ? nullptr : mma_kernel_for(encoder, k.dtype(), a.head_dim);
  const std::uint64_t rows = static_cast<std::uint64_t>(a.heads / a.kv_heads) * static_cast<std::uint64_t>(a.seq);
  const auto group_rows = mma != nullptr ? static_cast<std::uint64_t>(mma->rows) : kernels.tiled_rows;
  const auto groups = checked_product(ceil_div(rows, group_rows), static_cast<std::uint64_t>(a.batch), a.kv_heads);
  if (!groups || *groups > INT32_MAX) {
    return make_error(ErrorCode::bad_shape, "attention: {} batches of {} heads and {} rows are more than a launch takes", a.batch,
                      a.heads, a.seq);
  }
  return gpu::encode(encoder, mma != nullptr ? mma->handle : kernels.tiled, {static_cast<std::uint32_t>(*groups)}, launch);
}

}  // namespace ops
}  // namespace mlxn
