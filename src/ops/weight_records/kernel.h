#pragma once

#include "ops/weight_records/args.h"
#include "portable/dialect.h"
#include "quant/kernel_decode.h"

namespace mlxn {
namespace gpu {

constexpr uint32_t kRecordRows = 16;
constexpr uint32_t kRecordHalf = 128;

/// Words of a lane that lie beside each other in a plane.
MLXN_FN uint32_t record_words(uint32_t bits) { return bits == 1 ? 2 : 4; }
/// Steps of 16 k that share a word.
MLXN_FN uint32_t record_steps(uint32_t bits) { return bits == 8 ? 1 : 4 / bits; }

/// A group makes one record; a thread gathers a word of codes, or copies a byte of row data. Bound by the loads of single
/// bytes, which come from the nearest cache: a file loads far slower.
struct PackRecords {
  using Args = ops::WeightRecordsArgs;
  using Shared = NoShared;
  static constexpr uint32_t kThreads = 128;

  static MLXN_FN uint32_t code(const Args& args, const ops::RecordPart& plane, int64_t row, int64_t k) {
    const int64_t block = k / args.block_elems;
    if (row >= args.rows || block >= args.row_blocks) return 0;
    const uint32_t e = uint32_t(k % args.block_elems), per = 8 / plane.size;
    MLXN_GLOBAL const uint8_t* p = args.from.ptr + plane.offset + (row * args.row_blocks + block) * plane.step;
    return ((p[e / (plane.run * per) * plane.run + e % plane.run] >> (e / plane.run % per * plane.size)) & ((1u << plane.size) - 1)) ^ plane.flip;
  }

  static MLXN_FN uint32_t word_of(const Args& args, const ops::RecordPart& plane, int64_t row0, int64_t k0, uint32_t at) {
    const uint32_t bits = plane.size, words = record_words(bits), steps = record_steps(bits);
    const uint32_t lane = at / words % kSimdWidth, word = at / (words * kSimdWidth) * words + at % words;
    uint32_t out = 0;
    for (uint32_t j = 0; j < 4; ++j) {
      const uint32_t k = lane % 4 * 2 + j / 2 + j % 2 * 8;
      uint32_t byte = 0;
      if (plane.rows_apart != 0) {  // two neighbours of one row
        for (uint32_t next = 0; next < 2; ++next) {
          byte |= code(args, plane, row0 + lane / 4 + j / 2 * 8, k0 + word * 16 + lane % 4 * 2 + j % 2 * 8 + next) << (next * 4);
        }
      } else if (bits == 8) {
        byte = code(args, plane, row0 + lane / 4 + word % 2 * 8, k0 + word / 2 * 16 + k);
      } else {
        for (uint32_t s = 0; s < steps; ++s) {
          for (uint32_t upper = 0; upper < 2; ++upper) {
            byte |= code(args, plane, row0 + lane / 4 + upper * 8, k0 + (word * steps + s) * 16 + k) << ((s * 2 + upper) * bits);
          }
        }
      }
      out |= byte << (8 * j);
    }
    return out;
  }

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    const uint32_t halves = args.elems / kRecordHalf, blocks = args.elems / args.block_elems;
    const int64_t tile = t.group.x / args.tile_records, record = t.group.x % args.tile_records;
    const int64_t row0 = tile * kRecordRows, k0 = record * args.elems;
    const int64_t begin = record * args.record_bytes, end = args.tile_bytes - begin;  // a tile's last record may be cut
    MLXN_GLOBAL uint8_t* out = args.to.ptr + (args.first_row / kRecordRows + tile) * args.tile_bytes + begin;
    for (uint32_t which = 0; which < 2 && args.planes[which].size != 0; ++which) {
      const ops::RecordPart& plane = args.planes[which];
      const uint32_t words = plane.size * 64;  // 16 x 128 codes
      for (uint32_t i = t.index; i < halves * words; i += kThreads) {
        const uint32_t half = i / words, to = half * args.half_step + plane.at + i % words * 4;
        if (to < end) *(MLXN_GLOBAL uint32_t*)(out + to) = word_of(args, plane, row0, k0 + half * kRecordHalf, i % words);
      }
    }
    for (uint32_t which = 0; which < 2 && args.areas[which].size != 0; ++which) {
      const ops::RecordPart& area = args.areas[which];
      for (uint32_t i = t.index; i < kRecordRows * blocks * area.size; i += kThreads) {
        const uint32_t unit = i / area.size, pair = unit / blocks;
        const int64_t row = row0 + pair / 2 + pair % 2 * 8, block = record * blocks + unit % blocks;
        uint8_t byte = 0;
        if (row < args.rows && block < args.row_blocks) {
          byte = args.from.ptr[area.offset + (row * args.row_blocks + block) * area.step + i % area.size];
        }
        out[area.at + i] = byte;
      }
    }
  }
};

/// A group makes blocks of one row; a thread gathers a byte of them. What exact arithmetic on records costs.
struct UnpackRecords {
  using Args = ops::WeightRecordsArgs;
  using Shared = NoShared;
  static constexpr uint32_t kThreads = 128;

  static MLXN_FN uint8_t codes_of(const Args& args, uint32_t which, int64_t row, int64_t block, uint32_t byte) {
    const ops::RecordPart& plane = args.planes[which];
    const uint32_t bits = plane.size, per = 8 / bits, words = record_words(bits), steps = record_steps(bits);
    const uint32_t upper = uint32_t(row % kRecordRows) / 8, group = uint32_t(row % 8);
    uint32_t out = 0;
    for (uint32_t i = 0; i < per; ++i) {
      const uint32_t e = byte / plane.run * (plane.run * per) + i * plane.run + byte % plane.run;
      const int64_t k = block * args.block_elems + e;
      const uint32_t in_record = uint32_t(k % args.elems), half = in_record / kRecordHalf, step = in_record % kRecordHalf / 16, in_step = in_record % 16;
      const uint32_t word = bits == 8 ? step * 2 + upper : step / steps;
      const uint32_t lane = group * 4 + in_step % 8 / 2, of_four = in_step / 8 + in_step % 2 * 2;
      const uint32_t shift = plane.rows_apart != 0 ? in_step % 2 * 4 : bits == 8 ? 0 : (step % steps * 2 + upper) * bits;
      const uint32_t at = (word / words * (kSimdWidth * words) + lane * words + word % words) * 4 +
                          (plane.rows_apart != 0 ? upper * 2 + in_step / 8 : of_four);
      MLXN_GLOBAL const uint8_t* p = args.from.ptr + row / kRecordRows * args.tile_bytes + k / args.elems * args.record_bytes +
                                     half * args.half_step + plane.at + at;
      out |= (((*p >> shift) & ((1u << bits) - 1)) ^ plane.flip) << (i * bits);
    }
    return uint8_t(out);
  }

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    const uint32_t blocks = args.elems / args.block_elems;  // of a record
    const int64_t to_row = t.group.x;
    const int64_t row = args.ids.ptr ? int64_t(args.ids.ptr[to_row]) : args.first_row + to_row;
    if (row >= args.n) return;  // the same in all threads
    for (uint32_t which = 0; which < 2 && args.planes[which].size != 0; ++which) {
      const ops::RecordPart& plane = args.planes[which];
      const uint32_t bytes = args.block_elems * plane.size / 8;
      for (int64_t i = int64_t(t.group.y) * kThreads + t.index; i < args.row_blocks * bytes; i += int64_t(t.groups.y) * kThreads) {
        const int64_t block = i / bytes;
        const uint32_t byte = uint32_t(i % bytes);
        args.to.ptr[plane.offset + (to_row * args.row_blocks + block) * plane.step + byte] = codes_of(args, which, row, block, byte);
      }
    }
    for (uint32_t which = 0; which < 2 && args.areas[which].size != 0; ++which) {
      const ops::RecordPart& area = args.areas[which];
      const uint32_t pair = uint32_t(row % 8 * 2 + row % kRecordRows / 8);
      for (int64_t i = int64_t(t.group.y) * kThreads + t.index; i < args.row_blocks * area.size; i += int64_t(t.groups.y) * kThreads) {
        const int64_t block = i / area.size;
        const uint32_t byte = uint32_t(i % area.size);
        args.to.ptr[area.offset + (to_row * args.row_blocks + block) * area.step + byte] =
            args.from.ptr[row / kRecordRows * args.tile_bytes + block / blocks * args.record_bytes + area.at +
                          (pair * blocks + uint32_t(block % blocks)) * area.size + byte];
      }
    }
  }
};

/// A group finds, for one row, the least e such that what scales and addends can express is below 2^e, whatever the codes are;
/// kLargest is the magnitude of a code less its zero. Worked out 2^-kPower times as large, since that may be beyond f32 where scales
/// have 8 bits of exponent. What is not finite does not count. Bound by memory.
template <class F, uint32_t kLargest, int32_t kPower = 0>
struct WeightExponents {
  using Args = ops::WeightExponentsArgs;
  struct Shared {
    float limits[128];
  };
  static constexpr uint32_t kThreads = 128;

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    const int64_t row = t.group.x;
    const uint32_t chunks = row < args.rows ? uint32_t(args.k / kChunkElems) : 0;
    float limit = 0.0f;
    for (uint32_t chunk = t.index; chunk < chunks; chunk += kThreads) {
      const typename F::Chunk c = F::template load<false>(args.w, row * args.w.row_blocks, chunk / F::kChunks, chunk % F::kChunks);
      MLXN_UNROLL
      for (uint32_t half = 0; half < 2; ++half) {
        const float unit = 1.0f / float(1u << kPower);
        const float most = abs(c.scale[half]) * (float(kLargest) * unit) + abs(c.addend[half]) * unit;
        if (most > limit && most <= 3.402823466e38f) limit = most;
      }
    }
    shared.limits[t.index] = limit;
    t.barrier();
    for (uint32_t half = kThreads / 2; half != 0; half /= 2) {
      if (t.index < half && shared.limits[t.index + half] > shared.limits[t.index]) shared.limits[t.index] = shared.limits[t.index + half];
      t.barrier();
    }
    // Subnormal limits are below 2^-126, which is what their exponent field says.
    if (t.index == 0) args.exponents.ptr[row] = shared.limits[0] == 0.0f ? 0 : int32_t(float_bits(shared.limits[0]) >> 23) - 126 + kPower;
  }
};

/// The same of rows of bf16.
struct WeightExponentsBf16 {
  using Args = ops::WeightExponentsArgs;
  struct Shared {
    uint32_t limits[128];
  };
  static constexpr uint32_t kThreads = 128;

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    const int64_t row = t.group.x, elems = row < args.rows ? args.k : 0;
    MLXN_GLOBAL const uint16_t* from = (MLXN_GLOBAL const uint16_t*)args.w.data.ptr + row * args.w.row_blocks;
    uint32_t limit = 0;
    for (int64_t i = t.index; i < elems; i += kThreads) {
      const uint32_t bits = from[i] & 0x7FFFu;
      if (bits > limit && bits < 0x7F80u) limit = bits;
    }
    shared.limits[t.index] = limit;
    t.barrier();
    for (uint32_t half = kThreads / 2; half != 0; half /= 2) {
      if (t.index < half && shared.limits[t.index + half] > shared.limits[t.index]) shared.limits[t.index] = shared.limits[t.index + half];
      t.barrier();
    }
    if (t.index == 0) args.exponents.ptr[row] = shared.limits[0] == 0 ? 0 : int32_t(shared.limits[0] >> 7) - 126;
  }
};

}  // namespace gpu
}  // namespace mlxn

#define MLXN_KERNELS(KERNEL)                                           \
  KERNEL(pack_records, PackRecords)                                    \
  KERNEL(unpack_records, UnpackRecords)                                \
  KERNEL(weight_exponents_q4_0, WeightExponents<Q4_0, 8>)              \
  KERNEL(weight_exponents_q4_1, WeightExponents<Q4_1, 15>)             \
  KERNEL(weight_exponents_q5_0, WeightExponents<Q5_0, 16>)             \
  KERNEL(weight_exponents_q5_1, WeightExponents<Q5_1, 31>)             \
  KERNEL(weight_exponents_q8_0, WeightExponents<Q8_0, 128>)            \
  KERNEL(weight_exponents_q2_K, WeightExponents<Q2K, 3>)               \
  KERNEL(weight_exponents_q3_K, WeightExponents<Q3K, 4>)               \
  KERNEL(weight_exponents_q4_K, WeightExponents<Q4K, 15>)              \
  KERNEL(weight_exponents_q5_K, WeightExponents<Q5K, 31>)              \
  KERNEL(weight_exponents_q6_K, WeightExponents<Q6K, 32>)              \
  KERNEL(weight_exponents_iq4_nl, WeightExponents<Iq4Nl, 127>)         \
  KERNEL(weight_exponents_iq4_xs, WeightExponents<Iq4Xs, 127>)         \
  KERNEL(weight_exponents_mxfp4, WeightExponents<Mxfp4, 12, 4>)        \
  KERNEL(weight_exponents_affine4, WeightExponents<Affine<4>, 15, 4>)  \
  KERNEL(weight_exponents_affine8, WeightExponents<Affine<8>, 255, 8>) \
  KERNEL(weight_exponents_bf16, WeightExponentsBf16)
