#pragma once

#include "ops/matmul/gpu_args.h"
#include "portable/dialect.h"
#include "quant/kernel_decode.h"

namespace mlxn {
namespace gpu {

/// The numbers of x as the class has them. A thread takes an element.
struct MatmulStage {
  using Args = ops::MatmulStageArgs;
  using Shared = NoShared;
  static constexpr uint32_t kThreads = 256;

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    const int64_t column = int64_t(t.group.x) * kThreads + t.index;
    if (column >= args.k) return;
    for (int64_t row = t.group.y; row < args.m; row += t.groups.y) {
      const int64_t at = row * args.x_stride + column;
      float v;
      if (args.x_type == quant::kElementF32) v = load((MLXN_GLOBAL const float*)args.x.ptr + at);
      else if (args.x_type == quant::kElementF16) v = load((MLXN_GLOBAL const f16*)args.x.ptr + at);
      else v = load((MLXN_GLOBAL const bf16*)args.x.ptr + at);
      if (args.round_to == quant::kElementF16) v = to_float(from_float<f16>(v));
      if (args.round_to == quant::kElementBf16) v = to_float(from_float<bf16>(v));
      store_as(args.out.ptr, args.out_type, row * args.out_stride + column, v);
    }
  }
};

// ---- vector route -------------------------------------------------------------------------------------------------------

/// What the threads of a SIMD-group add up: kRows rows of w with kM rows of x. `at` is the thread's place among the `stride`
/// threads that share the rows. Each sum takes its products in an order that depends on k and the stride alone.
template <class F>
struct RowProducts {
  template <bool kWide, uint32_t kM, uint32_t kRows>
  static MLXN_FN void add(const ops::MatmulGpuArgs& args, const int64_t (&first)[kRows], const int64_t (&x_at)[kM], uint32_t at,
                          uint32_t stride, float (&sums)[kRows][kM]) {
    const uint32_t chunks = uint32_t(args.k / kChunkElems);
    for (uint32_t c = at; c < chunks; c += stride) {
      const uint32_t block = c / F::kChunks, in_block = c % F::kChunks;
      typename F::Chunk w[kRows];
      MLXN_UNROLL
      for (uint32_t r = 0; r < kRows; ++r) w[r] = F::template load<kWide>(args.w, first[r], block, in_block);
      MLXN_UNROLL
      for (uint32_t half = 0; half < 2; ++half) {
        MLXN_GLOBAL const float* x = args.x.ptr + (int64_t(block) * F::kElems + F::start(in_block, half));
        Coefficients terms[kRows];
        MLXN_UNROLL
        for (uint32_t r = 0; r < kRows; ++r) terms[r] = coefficients<F>(w[r].scale[half], w[r].addend[half]);
        MLXN_UNROLL
        for (uint32_t quad = 0; quad < 4; ++quad) {
          float v[kRows][4];
          MLXN_UNROLL
          for (uint32_t r = 0; r < kRows; ++r) {
            const uint32_t codes = F::codes(w[r], half, quad);
            MLXN_UNROLL
            for (uint32_t i = 0; i < 4; ++i) v[r][i] = decode<F>(codes, i, terms[r]);
          }
          MLXN_UNROLL
          for (uint32_t m = 0; m < kM; ++m) {
            float q[4];
            load_run<4>(x + x_at[m] + 4 * quad, q);
            MLXN_UNROLL
            for (uint32_t r = 0; r < kRows; ++r) {
              MLXN_UNROLL
              for (uint32_t i = 0; i < 4; ++i) sums[r][m] = fma(v[r][i], q[i], sums[r][m]);
            }
          }
        }
      }
    }
  }
};

/// A thread takes eight elements at a time.
template <class T>
struct RowProducts<Plain<T>> {
  template <bool kWide, uint32_t kM, uint32_t kRows>
  static MLXN_FN void add(const ops::MatmulGpuArgs& args, const int64_t (&first)[kRows], const int64_t (&x_at)[kM], uint32_t at,
                          uint32_t stride, float (&sums)[kRows][kM]) {
    for (int64_t e = int64_t(at) * 8; e < args.k; e += int64_t(stride) * 8) {
      if (e + 8 <= args.k) {
        float v[kRows][8];
        MLXN_UNROLL
        for (uint32_t r = 0; r < kRows; ++r) Plain<T>::template load8<kWide>(Plain<T>::row(args.w, first[r]) + e, v[r]);
        MLXN_UNROLL
        for (uint32_t m = 0; m < kM; ++m) {
          MLXN_UNROLL
          for (uint32_t quad = 0; quad < 2; ++quad) {
            float q[4];
            load_run<4>(args.x.ptr + x_at[m] + e + 4 * quad, q);
            MLXN_UNROLL
            for (uint32_t r = 0; r < kRows; ++r) {
              MLXN_UNROLL
              for (uint32_t i = 0; i < 4; ++i) sums[r][m] = fma(v[r][4 * quad + i], q[i], sums[r][m]);
            }
          }
        }
      } else {
        for (; e < args.k; ++e) {  // the end of the row; the loop above ends too
          MLXN_UNROLL
          for (uint32_t r = 0; r < kRows; ++r) {
            const float w = load(Plain<T>::row(args.w, first[r]) + e);
            MLXN_UNROLL
            for (uint32_t m = 0; m < kM; ++m) sums[r][m] = fma(w, args.x.ptr[x_at[m] + e], sums[r][m]);
          }
        }
      }
    }
  }
};

/// Few rows of x: the weights are the stream, each read once for kM rows of x. A SIMD-group, or `split` of them where rows are
/// long, takes kRows rows of w at a time, 32 elements of each per thread, decodes them in registers and multiplies them with x
/// from the nearest cache; kRows makes up for the traffic of x. More rows of x go along the grid's y. Bound by memory for
/// kM == 1, by arithmetic above.
template <class F, bool kWide, uint32_t kM, uint32_t kRows>
struct MatmulVector {
  using Args = ops::MatmulGpuArgs;
  static constexpr uint32_t kThreads = 128;
  static constexpr uint32_t kSimds = kThreads / kSimdWidth;
  static constexpr uint32_t kSums = kM * kRows;
  struct Shared {
    float sums[kSimds][kSums];
  };

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    const uint32_t split = args.split, sets = kSimds / split;
    const int64_t row = (int64_t(t.group.x) * sets + t.simd() / split) * kRows;
    const uint32_t at = t.simd() % split * kSimdWidth + t.lane();
    int64_t first[kRows];  // rows beyond the last one are the last one, and are not stored
    MLXN_UNROLL
    for (uint32_t r = 0; r < kRows; ++r) first[r] = min(row + r, args.n - 1) * args.w.row_blocks;
    for (int64_t m0 = int64_t(t.group.y) * kM; m0 < args.m; m0 += int64_t(t.groups.y) * kM) {
      int64_t x_at[kM];
      MLXN_UNROLL
      for (uint32_t m = 0; m < kM; ++m) x_at[m] = min(m0 + m, args.m - 1) * args.x_stride;
      float sums[kRows][kM];
      MLXN_UNROLL
      for (uint32_t r = 0; r < kRows; ++r) {
        MLXN_UNROLL
        for (uint32_t m = 0; m < kM; ++m) sums[r][m] = 0.0f;
      }
      RowProducts<F>::template add<kWide, kM, kRows>(args, first, x_at, at, split * kSimdWidth, sums);

      t.barrier();  // the sums before are still read
      MLXN_UNROLL
      for (uint32_t r = 0; r < kRows; ++r) {
        MLXN_UNROLL
        for (uint32_t m = 0; m < kM; ++m) {
          const float sum = simd_sum(t, sums[r][m]);
          if (t.lane() == (r * kM + m) % kSimdWidth) shared.sums[t.simd()][r * kM + m] = sum;
        }
      }
      t.barrier();
      for (uint32_t i = t.index; i < sets * kSums; i += kThreads) {
        const uint32_t set = i / kSums, in_set = i % kSums;
        const int64_t column = (int64_t(t.group.x) * sets + set) * kRows + in_set / kM, y_row = m0 + in_set % kM;
        if (column >= args.n || y_row >= args.m) continue;
        float sum = shared.sums[set * split][in_set];
        for (uint32_t part = 1; part < split; ++part) sum += shared.sums[set * split + part][in_set];
        store_as(args.y.ptr, args.y_type, y_row * args.y_stride + column, sum);
      }
    }
  }
};

// ---- tile route ---------------------------------------------------------------------------------------------------------

/// Many rows of x: a group takes a tile of kTileM x kTileN of y, 32 elements of k at a time. One half of its threads decodes a
/// chunk of a row of w each, the other copies the same elements of x; both lay them in shared memory by k, so that threads
/// beside each other store, and load, words beside each other. Then each thread multiplies its kRM x kRN elements in registers,
/// in four-by-four pieces. A sum takes its products in one order, whatever m is and whichever tile. Bound by arithmetic.
template <class F, uint32_t kThreadsM, uint32_t kRM, uint32_t kRN>
struct MatmulTile {
  using Args = ops::MatmulGpuArgs;
  static constexpr uint32_t kThreadsN = 16;
  static constexpr uint32_t kThreads = kThreadsM * kThreadsN;
  static constexpr uint32_t kTileM = kThreadsM * kRM, kTileN = kThreadsN * kRN;
  static constexpr uint32_t kXParts = kThreads / 2 / kTileM;  // threads that share a row of x
  static_assert(kTileN == kThreads / 2 && (kXParts == 1 || kXParts == 2), "half of the threads take w, the others x");
  static_assert(kRM % 4 == 0 && kRN % 4 == 0, "pieces of four by four");
  struct Shared {
    alignas(16) float w[kChunkElems][kTileN];
    alignas(16) float x[kChunkElems][kTileM];
  };

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    const int64_t n0 = int64_t(t.group.x) * kTileN;
    const uint32_t chunks = uint32_t((args.k + kChunkElems - 1) / kChunkElems);
    const uint32_t at_n = t.index % kThreadsN * 4, at_m = t.index / kThreadsN * 4;
    for (int64_t m0 = int64_t(t.group.y) * kTileM; m0 < args.m; m0 += int64_t(t.groups.y) * kTileM) {
      float sums[kRM][kRN];
      MLXN_UNROLL
      for (uint32_t i = 0; i < kRM; ++i) {
        MLXN_UNROLL
        for (uint32_t j = 0; j < kRN; ++j) sums[i][j] = 0.0f;
      }
      for (uint32_t chunk = 0; chunk < chunks; ++chunk) {
        t.barrier();  // the chunk before is still read
        if (t.index < kTileN) load_w(args, n0, chunk, t.index, shared);
        else load_x(args, m0, chunk, t.index - kTileN, shared);
        t.barrier();
        for (uint32_t i = 0; i < kChunkElems; ++i) {
          float a[kRM], b[kRN];
          load_pieces<kRM, kThreadsM>(shared.x[i] + at_m, a);
          load_pieces<kRN, kThreadsN>(shared.w[i] + at_n, b);
          MLXN_UNROLL
          for (uint32_t p = 0; p < kRM; ++p) {
            MLXN_UNROLL
            for (uint32_t q = 0; q < kRN; ++q) sums[p][q] = fma(b[q], a[p], sums[p][q]);
          }
        }
      }
      MLXN_UNROLL
      for (uint32_t p = 0; p < kRM; ++p) {
        const int64_t row = m0 + p / 4 * (kThreadsM * 4) + at_m + p % 4;
        MLXN_UNROLL
        for (uint32_t q = 0; q < kRN; ++q) {
          const int64_t column = n0 + q / 4 * (kThreadsN * 4) + at_n + q % 4;
          if (row < args.m && column < args.n) store_as(args.y.ptr, args.y_type, row * args.y_stride + column, sums[p][q]);
        }
      }
    }
  }

  /// A thread's elements of a row of shared memory: four at a time, those of kOthers threads between them.
  template <uint32_t kCount, uint32_t kOthers>
  static MLXN_FN void load_pieces(MLXN_SHARED const float* p, float (&out)[kCount]) {
    MLXN_UNROLL
    for (uint32_t i = 0; i < kCount; i += 4) {
      const f32x4 v = shared_f32x4(p + i * kOthers);
      out[i] = v.x, out[i + 1] = v.y, out[i + 2] = v.z, out[i + 3] = v.w;
    }
  }
  // Rows beyond the last one are the last one, and are not stored.
  static MLXN_FN void load_w(const Args& args, int64_t n0, uint32_t chunk, uint32_t row, MLXN_SHARED Shared& shared) {
    float v[kChunkElems];
    WeightRow<F>::template load<true>(args.w, min(n0 + row, args.n - 1) * args.w.row_blocks, args.k, chunk, v);
    MLXN_UNROLL
    for (uint32_t i = 0; i < kChunkElems; ++i) shared.w[i][row] = v[i];
  }
  static MLXN_FN void load_x(const Args& args, int64_t m0, uint32_t chunk, uint32_t place, MLXN_SHARED Shared& shared) {
    const uint32_t row = place % kTileM, part = place / kTileM;
    MLXN_GLOBAL const float* x = args.x.ptr + min(m0 + row, args.m - 1) * args.x_stride;
    MLXN_UNROLL
    for (uint32_t h = 0; h < 2 / kXParts; ++h) {
      const uint32_t half = kXParts == 1 ? h : part;
      const int64_t begin = WeightRow<F>::start(chunk, half);
      MLXN_UNROLL
      for (uint32_t quad = 0; quad < 4; ++quad) {
        const int64_t at = begin + 4 * quad;
        float q[4];
        if (WeightRow<F>::kWhole || at + 4 <= args.k) {
          load_run<4>(x + at, q);
        } else {
          MLXN_UNROLL
          for (uint32_t i = 0; i < 4; ++i) q[i] = at + i < args.k ? x[at + i] : 0.0f;
        }
        MLXN_UNROLL
        for (uint32_t i = 0; i < 4; ++i) shared.x[kHalfElems * half + 4 * quad + i][row] = q[i];
      }
    }
  }
};

}  // namespace gpu
}  // namespace mlxn

namespace mlxn {
namespace gpu {
/// Rows of w that a SIMD-group takes on the vector route. More would share the loads of x, but cost so many registers that too
/// few SIMD-groups are left to hide the loads of w.
constexpr uint32_t kVectorRows = 2;
}  // namespace gpu
}  // namespace mlxn

// For every format: one, four and eight rows of x with weights whose words are aligned; one and eight with weights at any
// address; small and large tiles.
#define MLXN_MATMUL_FORMAT(KERNEL, name, ...)                                         \
  KERNEL(matmul_vector1_##name, MatmulVector<__VA_ARGS__, true, 1, kVectorRows>)      \
  KERNEL(matmul_vector4_##name, MatmulVector<__VA_ARGS__, true, 4, kVectorRows>)      \
  KERNEL(matmul_vector8_##name, MatmulVector<__VA_ARGS__, true, 8, kVectorRows>)      \
  KERNEL(matmul_vector1_any_##name, MatmulVector<__VA_ARGS__, false, 1, kVectorRows>) \
  KERNEL(matmul_vector8_any_##name, MatmulVector<__VA_ARGS__, false, 8, kVectorRows>) \
  KERNEL(matmul_tile32_##name, MatmulTile<__VA_ARGS__, 8, 4, 4>)                      \
  KERNEL(matmul_tile128_##name, MatmulTile<__VA_ARGS__, 16, 8, 8>)

#define MLXN_KERNELS(KERNEL)                       \
  KERNEL(matmul_stage, MatmulStage)                \
  MLXN_MATMUL_FORMAT(KERNEL, f32, Plain<float>)    \
  MLXN_MATMUL_FORMAT(KERNEL, f16, Plain<f16>)      \
  MLXN_MATMUL_FORMAT(KERNEL, bf16, Plain<bf16>)    \
  MLXN_MATMUL_FORMAT(KERNEL, q4_0, Q4_0)           \
  MLXN_MATMUL_FORMAT(KERNEL, q4_1, Q4_1)           \
  MLXN_MATMUL_FORMAT(KERNEL, q5_0, Q5_0)           \
  MLXN_MATMUL_FORMAT(KERNEL, q5_1, Q5_1)           \
  MLXN_MATMUL_FORMAT(KERNEL, q8_0, Q8_0)           \
  MLXN_MATMUL_FORMAT(KERNEL, q2_K, Q2K)            \
  MLXN_MATMUL_FORMAT(KERNEL, q3_K, Q3K)            \
  MLXN_MATMUL_FORMAT(KERNEL, q4_K, Q4K)            \
  MLXN_MATMUL_FORMAT(KERNEL, q5_K, Q5K)            \
  MLXN_MATMUL_FORMAT(KERNEL, q6_K, Q6K)            \
  MLXN_MATMUL_FORMAT(KERNEL, iq4_nl, Iq4Nl)        \
  MLXN_MATMUL_FORMAT(KERNEL, iq4_xs, Iq4Xs)        \
  MLXN_MATMUL_FORMAT(KERNEL, mxfp4, Mxfp4)         \
  MLXN_MATMUL_FORMAT(KERNEL, affine4, Affine<4>)   \
  MLXN_MATMUL_FORMAT(KERNEL, affine8, Affine<8>)
