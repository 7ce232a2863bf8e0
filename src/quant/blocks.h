// Layouts of the GGUF weight blocks, as the bytes lie in a file, and of MLX's groups. Every compiler of the project reads this header, so it
// keeps to what they share: C++14, plain structs, fixed-width fields.
//
// All multi-byte fields are little-endian. Rows of blocks have no padding, and most block sizes are no multiple of 4:
// an address is sure to be a multiple of 2 only (1 for MXFP4), and bytes from a file promise nothing at all. Host code
// copies a block out before it reads fields. Scales named d, dmin and m are the bits of IEEE halves.
#pragma once

#include <cstdint>

namespace mlxn {
namespace quant {

/// Nibbles of the 32-element formats are split in halves: byte j carries elements j (low) and j + 16 (high).
constexpr int kBlockElems = 32;
constexpr int kSuperElems = 256;

struct BlockF32 {
  std::uint32_t bits;
};
struct BlockF16 {
  std::uint16_t bits;
};
struct BlockBF16 {
  std::uint16_t bits;  // the upper half of an f32
};

struct BlockQ4_0 {  // w = d * (q - 8)
  std::uint16_t d;
  std::uint8_t qs[16];
};
struct BlockQ4_1 {  // w = d * q + m
  std::uint16_t d;
  std::uint16_t m;
  std::uint8_t qs[16];
};
struct BlockQ5_0 {  // w = d * (q - 16)
  std::uint16_t d;
  std::uint8_t qh[4];  // one u32: bit i is bit 4 of element i
  std::uint8_t qs[16];
};
struct BlockQ5_1 {  // w = d * q + m
  std::uint16_t d;
  std::uint16_t m;
  std::uint8_t qh[4];
  std::uint8_t qs[16];
};
struct BlockQ8_0 {  // w = d * q
  std::uint16_t d;
  std::int8_t qs[32];
};

struct BlockQ2_K {  // w = d * sc * q - dmin * mn
  std::uint8_t scales[16];  // per 16 elements: sc low, mn high
  std::uint8_t qs[64];      // two halves of 32 bytes; bit pair j of byte l is element 32 j + l of the half
  std::uint16_t d;
  std::uint16_t dmin;
};
struct BlockQ3_K {  // w = d * (sc - 32) * (q - (bit of hmask ? 0 : 4))
  std::uint8_t hmask[32];   // bit i / 32 of byte i % 32 belongs to element i
  std::uint8_t qs[64];      // as Q2_K
  std::uint8_t scales[12];  // 16 scales of 6 bits: 4 low bits in the first 8 bytes, 2 high bits in the last 4
  std::uint16_t d;
};
struct BlockQ4_K {  // w = d * sc * q - dmin * mn
  std::uint16_t d;
  std::uint16_t dmin;
  std::uint8_t scales[12];  // 8 pairs (sc, mn) of 6 bits: see unpack_k4
  std::uint8_t qs[128];     // four runs of 32 bytes; a run's low nibbles are 32 elements, its high nibbles the next 32
};
struct BlockQ5_K {  // w = d * sc * q - dmin * mn
  std::uint16_t d;
  std::uint16_t dmin;
  std::uint8_t scales[12];
  std::uint8_t qh[32];  // bit i / 32 of byte i % 32 is bit 4 of element i
  std::uint8_t qs[128];
};
struct BlockQ6_K {  // w = d * sc * (q - 32)
  std::uint8_t ql[128];    // two halves of 64 bytes, each four groups of 32: groups 0 and 1 low, 2 and 3 high nibbles
  std::uint8_t qh[64];     // two halves of 32 bytes; bit pair g of byte l belongs to element l of group g
  std::int8_t scales[16];  // per 16 elements
  std::uint16_t d;
};
struct BlockIQ4_NL {  // w = d * table[q]
  std::uint16_t d;
  std::uint8_t qs[16];
};
struct BlockIQ4_XS {  // w = d * (sc - 32) * table[q]
  std::uint16_t d;
  std::uint16_t scales_h;    // 2 high bits of each of 8 scales
  std::uint8_t scales_l[4];  // 4 low bits of each
  std::uint8_t qs[128];      // eight sub-blocks of 16 bytes, nibbles split in halves
};
struct BlockMXFP4 {  // w = e2m1[q] * 2^(e - 127)
  std::uint8_t e;
  std::uint8_t qs[16];
};

// Blocks of the affine types (affine_info in mlxn/dtype.h), w = scale * q + bias: scale and bias in f16, bf16 or f32, then the
// codes of the group. Bytes are in order; nibbles, which MLX has in order too, are split in halves, 32 elements in every 16
// bytes, as in the other formats. q4_1 is one of these types.

static_assert(sizeof(BlockF32) == 4, "F32 is 4 bytes");
static_assert(sizeof(BlockF16) == 2, "F16 is 2 bytes");
static_assert(sizeof(BlockBF16) == 2, "BF16 is 2 bytes");
static_assert(sizeof(BlockQ4_0) == 18, "Q4_0 blocks are 18 bytes");
static_assert(sizeof(BlockQ4_1) == 20, "Q4_1 blocks are 20 bytes");
static_assert(sizeof(BlockQ5_0) == 22, "Q5_0 blocks are 22 bytes");
static_assert(sizeof(BlockQ5_1) == 24, "Q5_1 blocks are 24 bytes");
static_assert(sizeof(BlockQ8_0) == 34, "Q8_0 blocks are 34 bytes");
static_assert(sizeof(BlockQ2_K) == 84, "Q2_K blocks are 84 bytes");
static_assert(sizeof(BlockQ3_K) == 110, "Q3_K blocks are 110 bytes");
static_assert(sizeof(BlockQ4_K) == 144, "Q4_K blocks are 144 bytes");
static_assert(sizeof(BlockQ5_K) == 176, "Q5_K blocks are 176 bytes");
static_assert(sizeof(BlockQ6_K) == 210, "Q6_K blocks are 210 bytes");
static_assert(sizeof(BlockIQ4_NL) == 18, "IQ4_NL blocks are 18 bytes");
static_assert(sizeof(BlockIQ4_XS) == 136, "IQ4_XS blocks are 136 bytes");
static_assert(sizeof(BlockMXFP4) == 17, "MXFP4 blocks are 17 bytes");

}  // namespace quant
}  // namespace mlxn
