#pragma once

/// Functions of the vector types and the kernel bodies built on them. They are always inlined, so that no copy compiled
/// for one instruction set can be linked into the code of another.
#define MLXN_SIMD inline __attribute__((always_inline))

/// Unrolls the loop that follows; its trip count is a small constant.
#define MLXN_UNROLL _Pragma("GCC unroll 32")
/// Leaves the loop that follows a loop.
#define MLXN_ROLLED _Pragma("GCC unroll 1")
/// Nothing is loaded ahead across it: keeps the compiler from fetching more for straight code than the registers hold.
#define MLXN_SETTLE asm volatile("" ::: "memory")
/// After the parameters of a lambda that must vanish into its caller.
#define MLXN_LAMBDA __attribute__((always_inline))
