#include "backends/cpu/weight_rows16.h"

#include <algorithm>
#include <cstring>

#include "quant/codec.h"

namespace mlxn::rows16 {

PackGroup packer(DType type, CpuIsa isa) noexcept {
  switch (isa) {
#if defined(__x86_64__)
    case CpuIsa::avx512: return avx512::packer(type);
    case CpuIsa::avx2: return avx2::packer(type);
#elif defined(__aarch64__)
    case CpuIsa::neon:
    case CpuIsa::neon_dotprod:
    case CpuIsa::neon_i8mm: return neon::packer(type);
#endif
    default: return scalar::packer(type);
  }
}

void pack_groups(DType type, const void* source, std::int64_t n, std::int64_t k, std::int64_t begin, std::int64_t end,
                 void* prepared) noexcept {
  const Format f = format(type);
  const PackGroup pack = packer(type, best_isa());
  const std::int64_t row = row_bytes(f, k);
  for (std::int64_t group = begin; group < end; ++group) {
    const std::uint8_t* rows[kRows];
    for (std::int64_t r = 0; r < kRows; ++r) {
      rows[r] = static_cast<const std::uint8_t*>(source) + std::min(group * kRows + r, n - 1) * row;
    }
    pack(rows, k, static_cast<std::uint8_t*>(prepared) + group * group_bytes(f, k));
  }
}

namespace {

/// Calls f(block bytes, elements) for the blocks of a row, as they lay in the file.
template <class F>
void for_blocks_of_row(DType type, const Format& f, const void* prepared, std::int64_t k, std::int64_t row, F&& use) {
  const std::uint8_t* chunk = static_cast<const std::uint8_t*>(prepared) + row / kRows * group_bytes(f, k);
  const std::int64_t lane = row % kRows;
  for (std::int64_t at = 0; at < k; at += kChunkElems) {
    const std::int64_t elems = std::min(kChunkElems, k - at);
    const std::int64_t n = blocks(f, elems);
    const std::uint8_t* dwords = chunk + scales_bytes(f, n);
    for (std::int64_t b = 0; b < n; ++b) {
      std::uint8_t block[256];
      std::memcpy(block + f.scale_at, chunk + (b * kRows + lane) * f.scale_bytes, static_cast<std::size_t>(f.scale_bytes));
      for (int i = 0; i < f.dwords; ++i) {
        std::memcpy(block + f.first + 4 * source_dword(type, i), dwords + (b * f.dwords + i) * 64 + lane * 4, 4);
      }
      use(block, std::min<std::int64_t>(f.block_elems, elems - b * f.block_elems));
    }
    chunk += chunk_bytes(f, elems);
  }
}

}  // namespace

void unpack_row(DType type, const void* prepared, std::int64_t k, std::int64_t row, void* bytes) noexcept {
  const Format f = format(type);
  auto* to = static_cast<std::uint8_t*>(bytes);
  for_blocks_of_row(type, f, prepared, k, row, [&](const std::uint8_t* block, std::int64_t elems) {
    const std::int64_t size = elems == f.block_elems ? f.block_bytes : row_bytes(f, elems);
    std::memcpy(to, block, static_cast<std::size_t>(size));
    to += size;
  });
}

void decode_row(DType type, const void* prepared, std::int64_t k, std::int64_t row, float* out) noexcept {
  const Format f = format(type);
  const bool dense = f.block_elems == 16;
  for_blocks_of_row(type, f, prepared, k, row, [&](const std::uint8_t* block, std::int64_t elems) {
    quant::dequantize_blocks(type, block, static_cast<std::uint64_t>(dense ? elems : 1), out);
    out += elems;
  });
}

}  // namespace mlxn::rows16
