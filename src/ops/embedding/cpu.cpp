#include "ops/embedding/cpu.h"

#include "backends/cpu/weight_rows16.h"
#include "ops/elements.h"
#include "quant/codec.h"

namespace mlxn::ops {
namespace {

using S = Simd<4>;

/// Decoding bounds it, and that is the codec's plain code: a token costs one row.
template <class T>
void embed(const EmbeddingArgs& args, const CpuContext& context) {
  const auto share = context.share(static_cast<std::uint64_t>(args.seq));
  float* row = args.row.ptr + context.thread * args.dim;
  for (std::uint64_t i = share.begin; i < share.end; ++i) {
    T* y = static_cast<T*>(args.y.ptr) + static_cast<std::int64_t>(i) * args.y_stride;
    const std::uint32_t id = args.ids.ptr[i];
    if (id >= args.n) {
      __builtin_memset(static_cast<void*>(y), 0, static_cast<std::size_t>(args.dim) * sizeof(T));
      continue;
    }
    if (args.prepared != 0) {
      rows16::decode_row(args.type, args.table.ptr, args.dim, id, row);
    } else {
      const auto* raw = static_cast<const std::uint8_t*>(args.table.ptr) + id * args.row_bytes;
      quant::dequantize_blocks(args.type, raw, static_cast<std::uint64_t>(args.dim) / block_elems(args.type), row);
    }
    std::int64_t c = 0;
    for (; c + S::kLanes <= args.dim; c += S::kLanes) Elements<S, T>::store(y + c, S::load(row + c) * args.scale);
    if (const std::int64_t rest = args.dim - c; rest > 0) {
      Elements<S, T>::store_part(y + c, Elements<S, float>::load_part(row + c, rest) * args.scale, rest);
    }
  }
}

}  // namespace

cpu::Kernel<EmbeddingArgs> embedding_kernel(std::string_view name, DType y) noexcept {
  if (y == DType::f16) return cpu::kernel<&embed<f16>>(name);
  if (y == DType::bf16) return cpu::kernel<&embed<bf16>>(name);
  return cpu::kernel<&embed<float>>(name);
}

}  // namespace mlxn::ops
