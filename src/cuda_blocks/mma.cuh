// Matrix instructions of one warp, and the loads of their operands.
//
// Lane l has g = l / 4 and t = l % 4. D[16, 8]: d0 d1 are row g, columns 2t and 2t+1; d2 d3 the same of row g
// + 8.
//   m16n8k16, f16: A a0 = row g, k 2t 2t+1; a1 = row g + 8, same k; a2 a3 = the same rows, k + 8.
//                  B b0 = column g, k 2t 2t+1; b1 = k + 8.
//   m16n8k32, 8-bit: A a0 = row g, k 4t..4t+3; a1 = row g + 8; a2 a3 = the same rows, k + 16. B b0 = column
//   g, k 4t..4t+3; b1 = k + 16.
//   m16n8k16, 8-bit: the first two registers of A and the first of B.
#pragma once

#include <cstdint>

namespace mlxn::sm90 {

/// d[16, 8] += a[16, 16] * b[16, 8], f16 operands (subnormals count in full), f32 sums.
__device__ __forceinline__ void mma_f16(float (&d)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                                        std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, "
      "%1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/// The same without what d held.
__device__ __forceinline__ void mma_f16_first(float (&d)[4], std::uint32_t a0, std::uint32_t a1,
                                              std::uint32_t a2, std::uint32_t a3, std::uint32_t b0,
                                              std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, "
      "%10, %10, %10};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "f"(0.0f));
}

/// d[16, 8] += a[16, 32] * b[32, 8], unsigned bytes times signed bytes, exact 32-bit sums.
__device__ __forceinline__ void mma_u8_s8(std::int32_t (&d)[4], std::uint32_t a0, std::uint32_t a1,
                                          std::uint32_t a2, std::uint32_t a3, std::uint32_t b0,
                                          std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, "
      "%1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/// The same, both of them signed.
__device__ __forceinline__ void mma_s8_s8(std::int32_t (&d)[4], std::uint32_t a0, std::uint32_t a1,
                                          std::uint32_t a2, std::uint32_t a3, std::uint32_t b0,
                                          std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, "
      "%1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/// The same of 16 k.
__device__ __forceinline__ void mma_u8_s8(std::int32_t (&d)[4], std::uint32_t a0, std::uint32_t a1,
                                          std::uint32_t b0) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a0), "r"(a1), "r"(b0));
}

/// Four 8x8 matrices of 16-bit elements; lane l names row l % 8 of matrix l / 8. Register i is the lane's
/// pair of matrix i: row g, elements 2t and 2t+1.
__device__ __forceinline__ void load_matrix_x4(std::uint32_t (&r)[4], std::uint32_t shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_row)
               : "memory");
}

/// The same, each matrix transposed: register i is elements (2t, g) and (2t + 1, g) of matrix i, so that rows
/// in memory run along k of B.
__device__ __forceinline__ void load_matrix_x4_transposed(std::uint32_t (&r)[4], std::uint32_t shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_row)
               : "memory");
}

/// Transposes an 8x8 matrix of 16-bit elements: a lane has elements (g, 2t) and (g, 2t + 1), and gets (2t, g) and
/// (2t + 1, g). For all lanes of a warp together.
__device__ __forceinline__ std::uint32_t transpose(std::uint32_t pair) {
  std::uint32_t transposed;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(pair));
  return transposed;
}

}  // namespace mlxn::sm90
