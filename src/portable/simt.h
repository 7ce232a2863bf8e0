#pragma once

// The dialect's face for host C++: what the emulator runs, and what host code reads sizes from. The functions that need the
// emulator are defined in src/simt, which only tests link.

#include <cmath>

#define MLXN_SHARED
// Inlined always: host code that calls the same function must not end up with the instrumented copy, nor a kernel with a copy
// that the emulator cannot see into.
#define MLXN_FN inline __attribute__((always_inline))
// Where in the source a collective stands: parameters of a function, and what it hands on to the collectives that it calls.
#define MLXN_SITE , int site_line = __builtin_LINE(), const char *site_file = __builtin_FILE()
#define MLXN_HERE site_line, site_file
#define MLXN_AT_SITE , MLXN_HERE
// Before a loop of constant length whose counter picks elements of local arrays: they then live in registers.
#if !defined(MLXN_UNROLL)  // CPU kernels have their own
#define MLXN_UNROLL
#endif

namespace mlxn {
namespace gpu {

MLXN_FN float float_from_bits(uint32_t bits) { return __builtin_bit_cast(float, bits); }
MLXN_FN uint32_t float_bits(float v) { return __builtin_bit_cast(uint32_t, v); }
MLXN_FN float f16_to_float(uint16_t bits) {
  // An f16's exponent and fraction, moved into an f32, are 2^-112 times its value; subnormals included.
  const float magnitude = float_from_bits(uint32_t(bits & 0x7fffu) << 13) * float_from_bits((127u + 112u) << 23);
  uint32_t out = float_bits(magnitude);
  if ((bits & 0x7c00u) == 0x7c00u) out = 0x7f800000u | uint32_t(bits & 0x3ffu) << 13;
  return float_from_bits(out | uint32_t(bits & 0x8000u) << 16);
}
MLXN_FN uint16_t float_to_f16(float v) {
  const uint32_t bits = float_bits(v), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return uint16_t(0x7e00u);
  if (magnitude >= 0x47800000u) return uint16_t(sign | 0x7c00u);  // from 65536 on; less rounds up to it below
  if (magnitude < 0x38800000u) {                                   // below 2^-14: adding 0.5 rounds to multiples of 2^-24
    return uint16_t(sign | (float_bits(float_from_bits(magnitude) + 0.5f) - 0x3f000000u));
  }
  return uint16_t(sign | ((magnitude + 0xfffu + (magnitude >> 13 & 1u) - 0x38000000u) >> 13));
}

// Within 1 unit in the last place of f32.
MLXN_FN float exp(float x) { return std::exp(x); }
MLXN_FN float log(float x) { return std::log(x); }
MLXN_FN float tanh(float x) { return std::tanh(x); }
MLXN_FN float sin(float x) { return std::sin(x); }
MLXN_FN float cos(float x) { return std::cos(x); }
MLXN_FN float sqrt(float x) { return std::sqrt(x); }
MLXN_FN float abs(float x) { return std::fabs(x); }
MLXN_FN float floor(float x) { return std::floor(x); }
/// The nearest integer, halves to even.
MLXN_FN float rint(float x) { return std::nearbyint(x); }
/// a * b + c, rounded once.
MLXN_FN float fma(float a, float b, float c) { return std::fma(a, b, c); }
/// a * b and a + b with a rounding of their own: no compiler makes them part of a fused operation. For results that a CPU
/// and a GPU give alike.
MLXN_FN float mul_rn(float a, float b) { return a * b; }
MLXN_FN float add_rn(float a, float b) { return a + b; }

/// What one instruction loads or stores, from an address that is a multiple of its size.
struct __attribute__((may_alias, aligned(16))) f32x4 {
  float x, y, z, w;
};
struct __attribute__((may_alias, aligned(8))) u32x2 {
  uint32_t x, y;
};
struct __attribute__((may_alias, aligned(16))) u32x4 {
  uint32_t x, y, z, w;
};

#if defined(MLXN_EMULATED)  // kernels for the emulator, see cmake/MlxnSimt.cmake
/// Ends the launch where p is no multiple of `bytes`, so many being loaded there.
void check_alignment(const void* p, uint32_t bytes);
#else
MLXN_FN void check_alignment(const void*, uint32_t) {}
#endif

/// The load or store of one of these. The compiler may split it, so the emulator is told what address a GPU wants.
template <class T>
MLXN_FN T load_wide(const T* p) {
  check_alignment(p, sizeof(T));
  return *p;
}

template <class T>
MLXN_FN void store_wide(T* p, T v) {
  check_alignment(p, sizeof(T));
  *p = v;
}

/// Byte i is the byte of high:low (eight bytes) that bits 4 i to 4 i + 2 of `selectors` name; the other bits do not count.
MLXN_FN uint32_t byte_permute(uint32_t low, uint32_t high, uint32_t selectors) {
  const uint64_t bytes = uint64_t(high) << 32 | low;
  uint32_t out = 0;
  for (uint32_t i = 0; i < 4; ++i) out |= (uint32_t(bytes >> (selectors >> 4 * i & 7u) * 8) & 0xffu) << 8 * i;
  return out;
}

/// 16 bytes, and their load from an address that is a multiple of 16.
struct Words4 {
  uint32_t w[4];
};
MLXN_FN Words4 load_words4(const uint8_t* p) {
  const u32x4 v = load_wide(reinterpret_cast<const u32x4*>(p));
  return Words4{{v.x, v.y, v.z, v.w}};
}

struct uint3 {
  uint32_t x, y, z;
};

/// What a thread knows of itself, and what it does together with others.
class Thread {
 public:
  uint3 group;     ///< of this thread's group in the grid
  uint3 groups;    ///< of the grid
  uint32_t index;  ///< of this thread in its group

  /// Place in the SIMD-group, and which SIMD-group of the group it is.
  MLXN_FN uint32_t lane() const { return index % 32; }
  MLXN_FN uint32_t simd() const { return index / 32; }

  /// Waits for all threads of the group; what they wrote before is seen after it. Every thread of the group comes here.
  void barrier(int site_line = __builtin_LINE(), const char* site_file = __builtin_FILE()) const;
  /// The same for the threads of this SIMD-group.
  void simd_barrier(int site_line = __builtin_LINE(), const char* site_file = __builtin_FILE()) const;
  /// The value that a lane of this SIMD-group gives; every lane takes part. T: float, uint32_t, int32_t.
  template <class T>
  MLXN_FN T shuffle(T v, uint32_t from MLXN_SITE) const {
    return from_word<T>(exchange(word(v), from % 32 MLXN_AT_SITE));
  }
  template <class T>
  MLXN_FN T shuffle_xor(T v, uint32_t mask MLXN_SITE) const {
    return from_word<T>(exchange(word(v), (lane() ^ mask) % 32 MLXN_AT_SITE));
  }
  /// A bit for every lane: whether it gives true.
  uint32_t ballot(bool v MLXN_SITE) const;

 private:
  template <class T>
  static MLXN_FN uint32_t word(T v) {
    static_assert(sizeof(T) == 4, "collectives exchange words");
    return __builtin_bit_cast(uint32_t, v);
  }
  template <class T>
  static MLXN_FN T from_word(uint32_t w) {
    return __builtin_bit_cast(T, w);
  }
  uint32_t exchange(uint32_t word, uint32_t from, int site_line, const char* site_file) const;
};

/// Adds to an element of global or shared memory that other threads add to at the same time; what was there before. Orders
/// nothing else.
uint32_t atomic_add(uint32_t* p, uint32_t v);

}  // namespace gpu
}  // namespace mlxn
