// Stand-in of src/cuda_blocks/mma.cuh on the host: the lane maps of the PTX manual, element by element.
#pragma once

#include "cuda_blocks/ptx.cuh"

namespace mlxn::sm90 {

struct MmaOperands {
  std::uint32_t a[4], b[2];
};

inline const MmaOperands* mma_exchange(const MmaOperands& mine) {
  return reinterpret_cast<const MmaOperands*>(cuda_on_host::exchange(&mine, sizeof mine));
}

/// Element (row, k) of A and (k, column) of B of m16n8k16.
inline float mma_f16_a(const MmaOperands* lanes, unsigned row, unsigned k) {
  const unsigned lane = row % 8 * 4 + k % 8 / 2, i = row / 8 + k / 8 * 2;
  return f16_to_f32(static_cast<std::uint16_t>(lanes[lane].a[i] >> (k % 2 * 16)));
}
inline float mma_f16_b(const MmaOperands* lanes, unsigned k, unsigned column) {
  return f16_to_f32(static_cast<std::uint16_t>(lanes[column * 4 + k % 8 / 2].b[k / 8] >> (k % 2 * 16)));
}
inline void mma_f16(float (&d)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3,
                    std::uint32_t b0, std::uint32_t b1) {
  const MmaOperands* lanes = mma_exchange({{a0, a1, a2, a3}, {b0, b1}});
  const unsigned lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  for (unsigned i = 0; i < 4; ++i) {
    double sum = static_cast<double>(d[i]);
    for (unsigned k = 0; k < 16; ++k)
      sum += static_cast<double>(mma_f16_a(lanes, g + i / 2 * 8, k)) *
             static_cast<double>(mma_f16_b(lanes, k, 2 * t + i % 2));
    d[i] = static_cast<float>(sum);
  }
}

/// The same of m16n8k32 with bytes, A's of type Byte.
template <class Byte>
inline void mma_bytes(std::int32_t (&d)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                      std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  const MmaOperands* lanes = mma_exchange({{a0, a1, a2, a3}, {b0, b1}});
  const unsigned lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = g + i / 2 * 8, column = 2 * t + i % 2;
    std::int64_t sum = d[i];
    for (unsigned k = 0; k < 32; ++k) {
      const auto a = static_cast<Byte>(lanes[row % 8 * 4 + k % 16 / 4].a[row / 8 + k / 16 * 2] >> (k % 4 * 8));
      const auto b = static_cast<std::int8_t>(lanes[column * 4 + k % 16 / 4].b[k / 16] >> (k % 4 * 8));
      sum += static_cast<std::int64_t>(a) * b;
    }
    if (sum != static_cast<std::int32_t>(sum))
      cuda_on_host::fail("the sum of a matrix instruction overflows");
    d[i] = static_cast<std::int32_t>(sum);
  }
}
inline void mma_u8_s8(std::int32_t (&d)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                      std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  mma_bytes<std::uint8_t>(d, a0, a1, a2, a3, b0, b1);
}
inline void mma_s8_s8(std::int32_t (&d)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                      std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  mma_bytes<std::int8_t>(d, a0, a1, a2, a3, b0, b1);
}
/// The same of 16 k.
inline void mma_u8_s8(std::int32_t (&d)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t b0) {
  mma_u8_s8(d, a0, a1, 0, 0, b0, 0);
}

/// Row `row` of matrix `i` of the four whose rows the lanes name.
inline const std::uint8_t* matrix_row(const std::uint8_t* addresses, unsigned i, unsigned row) {
  std::uint32_t at;
  std::memcpy(&at, addresses + (i * 8 + row) * 4, 4);
  if (at % 16 != 0 || at + 16 > cuda_on_host::kSharedBytes) cuda_on_host::fail("misplaced row of a matrix");
  return shared + at;
}
inline void load_matrix_x4(std::uint32_t (&r)[4], std::uint32_t shared_row) {
  const std::uint8_t* addresses = cuda_on_host::exchange(&shared_row, 4);
  const unsigned lane = threadIdx.x % 32;
  for (unsigned i = 0; i < 4; ++i) std::memcpy(&r[i], matrix_row(addresses, i, lane / 4) + lane % 4 * 4, 4);
}
inline void load_matrix_x4_transposed(std::uint32_t (&r)[4], std::uint32_t shared_row) {
  const std::uint8_t* addresses = cuda_on_host::exchange(&shared_row, 4);
  const unsigned lane = threadIdx.x % 32;
  for (unsigned i = 0; i < 4; ++i) {
    std::uint16_t pair[2];
    for (unsigned k = 0; k < 2; ++k)
      std::memcpy(&pair[k], matrix_row(addresses, i, lane % 4 * 2 + k) + lane / 4 * 2, 2);
    r[i] = pair[0] | static_cast<std::uint32_t>(pair[1]) << 16;
  }
}

}  // namespace mlxn::sm90
