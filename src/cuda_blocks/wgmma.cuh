// Warpgroup matrix instructions of sm_90a: D[64, N] += A[64, 16] * B[N, 16]^T, f16 or bf16 operands, f32
// sums.
//
// B always comes from shared memory, A from shared memory or from registers. Operands in shared memory are
// K-major tiles of 64 halves (128 bytes) a row in the 128-byte swizzle, as a tensor copy with that swizzle
// leaves them; a tile starts at a multiple of 1024 bytes.
//
// Fragments, with w = warp in the warpgroup, g = lane / 4, t = lane % 4:
//   A registers  a0 (row 16w+g, k 2t, 2t+1)  a1 (row +8)  a2 (k +8)  a3 (row +8, k +8), low half first
//   D registers  d[4j+c]: row 16w + g + 8*(c/2), column 8j + 2t + c%2
//
// Use: fence() after any ordinary write to A or D registers, then the instructions of one group, commit(),
// and wait<n>() until at most n groups are still running. pin() stands for a read and a write of registers
// that the compiler keeps in order with these: on A before fence(), so that no part of it is computed between
// the instructions; on the sums after the last wait().
#pragma once

#include <cstdint>

namespace mlxn::sm90::wgmma {

__device__ __forceinline__ void fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int kRunning>
__device__ __forceinline__ void wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kRunning) : "memory");
}

template <int kCount>
__device__ __forceinline__ void pin(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
template <int kCount>
__device__ __forceinline__ void pin(uint32_t (&a)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(a[i])::"memory");
}

/// Descriptor of a tile in the 128-byte swizzle. Groups of 8 rows lie 1024 bytes apart (bits 32..45, unit 16
/// bytes); the leading offset (bits 16..29) has no meaning in this layout; bits 62..63 = 1 name the swizzle.
__device__ __forceinline__ uint64_t swizzle128_descriptor(uint32_t shared_address) {
  return uint64_t((shared_address & 0x3FFFF) >> 4) | (uint64_t(1) << 16) | (uint64_t(64) << 32) |
         (uint64_t(1) << 62);
}

/// Descriptor of a tile of 16 k without swizzle: pieces of 8 rows x 16 bytes lie one behind the other, those of k 8..15 `other_half`
/// bytes further.
__device__ __forceinline__ uint64_t plain_descriptor(uint32_t shared_address, uint32_t other_half) {
  return uint64_t((shared_address & 0x3FFFF) >> 4) | (uint64_t(other_half >> 4) << 16) | (uint64_t(128 >> 4) << 32);
}

/// The descriptor `bytes` further on; inside a row of 128 bytes one k16 step is 32 bytes.
__device__ __forceinline__ uint64_t advance(uint64_t descriptor, uint32_t bytes) {
  return descriptor + (bytes >> 4);
}

/// What operands are made of.
enum class Element { f16, bf16 };

/// multiply(d, a, b, keep): a is four registers or a descriptor, b a descriptor; keep = 0 starts the sums at
/// 0.
template <int kColumns, Element kElement>
struct Multiply;

#define MLXN_ACC8(i)                                                                          \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define MLXN_ACC16(i) MLXN_ACC8(i), MLXN_ACC8(i + 8)
#define MLXN_ACC32(i) MLXN_ACC16(i), MLXN_ACC16(i + 16)
#define MLXN_ACC64(i) MLXN_ACC32(i), MLXN_ACC32(i + 32)
#define MLXN_ACC128(i) MLXN_ACC64(i), MLXN_ACC64(i + 64)

#define MLXN_D8 "%0,%1,%2,%3,%4,%5,%6,%7"
#define MLXN_D16 MLXN_D8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define MLXN_D32 MLXN_D16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define MLXN_D64                                                         \
  MLXN_D32                                                               \
      ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47" \
      ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define MLXN_D128                                                                    \
  MLXN_D64                                                                           \
      ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79"             \
      ",%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"             \
      ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111" \
      ",%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"

// Operand numbers follow the sums: A, then B, then `keep`.
#define MLXN_WGMMA_OF(TYPE, N, SUMS, A0, A1, A2, A3, B_REGS, KEEP_REGS, B_SHARED, KEEP_SHARED)         \
  template <>                                                                                          \
  struct Multiply<N, Element::TYPE> {                                                                  \
    static __device__ __forceinline__ void run(float (&d)[SUMS], const uint32_t (&a)[4], uint64_t b,   \
                                               int keep) {                                             \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " KEEP_REGS                                       \
                   ", 0;\n"                                                                            \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #TYPE "." #TYPE " {" MLXN_D##SUMS \
                   "}, {" A0 "," A1 "," A2 "," A3 "}, " B_REGS ", p, 1, 1, 0;\n}"                      \
                   : MLXN_ACC##SUMS(0)                                                                 \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep));                   \
    }                                                                                                  \
    static __device__ __forceinline__ void run(float (&d)[SUMS], uint64_t a, uint64_t b, int keep) {   \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " KEEP_SHARED                                     \
                   ", 0;\n"                                                                            \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #TYPE "." #TYPE " {" MLXN_D##SUMS \
                   "}, " A0 ", " B_SHARED ", p, 1, 1, 0, 0;\n}"                                        \
                   : MLXN_ACC##SUMS(0)                                                                 \
                   : "l"(a), "l"(b), "r"(keep));                                                       \
    }                                                                                                  \
  };

#define MLXN_WGMMA(...)           \
  MLXN_WGMMA_OF(f16, __VA_ARGS__) \
  MLXN_WGMMA_OF(bf16, __VA_ARGS__)

MLXN_WGMMA(16, 8, "%8", "%9", "%10", "%11", "%12", "%13", "%9", "%10")
MLXN_WGMMA(32, 16, "%16", "%17", "%18", "%19", "%20", "%21", "%17", "%18")
MLXN_WGMMA(64, 32, "%32", "%33", "%34", "%35", "%36", "%37", "%33", "%34")
MLXN_WGMMA(128, 64, "%64", "%65", "%66", "%67", "%68", "%69", "%65", "%66")
MLXN_WGMMA(256, 128, "%128", "%129", "%130", "%131", "%132", "%133", "%129", "%130")

#undef MLXN_WGMMA
#undef MLXN_WGMMA_OF
#undef MLXN_ACC8
#undef MLXN_ACC16
#undef MLXN_ACC32
#undef MLXN_ACC64
#undef MLXN_ACC128
#undef MLXN_D8
#undef MLXN_D16
#undef MLXN_D32
#undef MLXN_D64
#undef MLXN_D128

template <int kColumns, Element kElement = Element::f16, class A>
__device__ __forceinline__ void multiply(float (&d)[kColumns / 2], const A& a, uint64_t b, int keep) {
  Multiply<kColumns, kElement>::run(d, a, b, keep);
}

}  // namespace mlxn::sm90::wgmma
