#pragma once

#include <cstdint>

// How the tile kernels for Hopper use a multiprocessor: what the kernels are made from and the host plans
// with.
namespace mlxn::tile {

/// What a block computes: one tile, or a part of its k (grid: row tiles, token tiles, parts); tile after
/// tile; or half of a tile's k, the other half being the work of its neighbour in a cluster of two.
enum class Form : std::uint8_t { parts, tiles, pair };

/// Whether a type's scales are whole numbers times a super-block's, and its minimums likewise.
enum class Nesting : std::uint8_t { none, scales, minimums };

inline constexpr int kSharedBytes = 232448;  ///< what a block may have

struct Shape {
  int tokens = 0;
  Form form = Form::parts;
  int row_groups = 2;  ///< consumer warpgroups, of 64 rows each...
  int k_groups = 1;    ///< ... that take stages in turn
  int blocks_per_sm = 1;
  int x_planes = 2;  ///< of 64 k, in a stage of x
  int x_stages = 0;
  int w_stages = 0;    ///< of 128 k
  int half_bytes = 0;  ///< of 16 rows x 128 k of weights: half a record, codes and row data
  bool is_dense = false;  ///< weights are two planes of 64 k in the 128-byte swizzle
  /// Sums over a super-block are whole numbers times x, and multiplied by its scale then; minimums take part as products with sums
  /// of x. Twice or three times the registers for sums, and each record ends in a wait for the matrix instructions: for few tokens.
  Nesting by_record = Nesting::none;
  bool few = false;     ///< 8 or 16 tokens: instructions of a warp, scales in f32 (cuda_tile_few_sm90a.cuh)
  int look_up = 0;      ///< bytes from entry to entry of the table of pairs that codes name, or 0 (PairTable)
  bool x_sums = false;  ///< whether the producers sum up x over 16 k

  [[nodiscard]] constexpr int rows() const noexcept { return 64 * row_groups; }
  [[nodiscard]] constexpr int threads() const noexcept { return 128 * (1 + row_groups * k_groups); }
  /// Stages after which it is the same group's turn again: groups take one, or a record of two.
  [[nodiscard]] constexpr int turn() const noexcept { return k_groups == 1 ? 1 : by_record == Nesting::none ? k_groups : 2 * k_groups; }
  [[nodiscard]] constexpr int x_stage_bytes() const noexcept { return x_planes * tokens * 128; }
  [[nodiscard]] constexpr int w_stage_bytes() const noexcept { return rows() / 16 * half_bytes; }
  /// Sums of x over every 16 k of a stage, as pairs of f16: what rounding takes from the first is the second.
  [[nodiscard]] constexpr int sum_stage_bytes() const noexcept { return x_sums ? tokens * 32 : 0; }
  [[nodiscard]] constexpr int sum_offset() const noexcept { return x_stages * x_stage_bytes(); }
  [[nodiscard]] constexpr int w_offset() const noexcept { return sum_offset() + x_stages * sum_stage_bytes(); }
  [[nodiscard]] constexpr int ring_bytes() const noexcept { return w_offset() + w_stages * w_stage_bytes(); }
  /// Barriers between k groups, see Config::kExchange.
  [[nodiscard]] constexpr int exchange_offset() const noexcept {
    return ring_bytes() + 16 * (x_stages + w_stages) + (x_sums ? 8 * x_stages : 0);
  }
  [[nodiscard]] constexpr int barrier_end() const noexcept { return exchange_offset() + (k_groups == 2 ? 16 : 0); }
  /// A multiple of 128: a row of 32 banks.
  [[nodiscard]] constexpr int table_offset() const noexcept { return (barrier_end() + 127) / 128 * 128; }
  [[nodiscard]] constexpr int shared_bytes() const noexcept { return look_up != 0 ? table_offset() + 256 * look_up : barrier_end(); }
  /// Whether blocks can have a half of the tokens each to add up.
  [[nodiscard]] constexpr bool can_pair() const noexcept { return form == Form::parts && tokens >= 16; }
  /// Tokens that one copy of x moves.
  [[nodiscard]] constexpr int x_copy_tokens() const noexcept { return form == Form::pair ? tokens / 2 : tokens; }
  /// A row of a tensor copy's box has at most 256 elements of 8 bytes; of dense weights 128 bytes.
  [[nodiscard]] constexpr int copies() const noexcept { return half_bytes > 2048 ? 2 : 1; }
  [[nodiscard]] constexpr int box_columns() const noexcept { return half_bytes / 8 / copies(); }
};

/// As many stages as there is room for, at most ten.
[[nodiscard]] constexpr Shape with_stages(Shape s) noexcept {
  const int end = s.blocks_per_sm == 1 ? kSharedBytes : kSharedBytes / 2 - 512;
  const int room = end - 512 - 256 * s.look_up;
  if (s.tokens == 256) s.x_planes = 1;
  if (s.tokens == 256 || (s.tokens == 128 && s.look_up == 256)) {
    // Stages of x are large: they take what three of weights leave, or two where those are codes of 8 bits, quickly
    // unpacked: one more of x then. H200, 14336x4096, M=4096, y in f16, of cuBLAS's rate: q8_0 0.95 / 0.96, q6_K 0.96 / 0.93.
    s.w_stages = s.half_bytes > 2048 ? 2 : 3;
    s.x_stages = (room - s.w_stages * s.w_stage_bytes()) / s.x_stage_bytes();
  } else {
    int stages = room / (s.x_stage_bytes() + s.sum_stage_bytes() + s.w_stage_bytes());
    if (stages > 10) stages = 10;
    // Each group has slots of its own, whatever the ring's turn: else it might wait for a stage by the parity of another turn.
    s.x_stages = s.w_stages = stages - stages % s.turn();
  }
  return s;
}

inline constexpr int kKinds = 7;
/// What of a type with records decides about its kernels.
struct Traits {
  int half_bytes = 0;  ///< Shape::half_bytes
  Nesting nesting = Nesting::none;
  bool looks_up = false;
  bool adds = false;      ///< weights are more than scale * (code - centre)
};

/// The library's kernels of a type with records.
[[nodiscard]] constexpr Shape shape_of(int kind, const Traits& type) noexcept {
  constexpr int kTokens[kKinds] = {8, 16, 32, 64, 128, 256, 256};
  Shape s;
  s.tokens = kTokens[kind];
  s.form = kind == 6 ? Form::pair : kind == 5 ? Form::tiles : Form::parts;
  s.half_bytes = type.half_bytes;
  const bool is_simple = type.nesting == Nesting::none, has_minimums = type.nesting == Nesting::minimums;
  // Of 16 tokens where that is faster than weights made whole: q4_0 12.7 us against 13.4 at 4096x14336 on an H200, but
  // iq4_nl 14.9 against 13.9 and q4_1 14.8 against 13.8.
  s.few = s.tokens <= (is_simple && !type.adds && !type.looks_up ? 16 : 8);
  if (!s.few && s.tokens <= (has_minimums ? 32 : 64)) s.by_record = type.nesting;
  // Two warps a scheduler leave gaps, four do not; but of many tokens they lack registers for the sums, and of codes
  // of 8 bits stages.
  const int most_of_two = is_simple ? (type.half_bytes > 2048 ? 32 : 64) : has_minimums ? 16 : 32;
  if (s.tokens <= most_of_two) s.k_groups = 2;
  // Of many tokens the stages want the room.
  s.look_up = !type.looks_up ? 0 : s.tokens <= 128 ? 256 : 128;
  s.x_sums = (s.few && type.adds) || s.by_record == Nesting::minimums;
  return with_stages(s);
}

inline constexpr int kDenseHalfBytes = 16 * 128 * 2;
/// As many stages as there is room for: a ring of weights that feeds the tensor cores, and of x what is left.
[[nodiscard]] constexpr Shape with_dense_stages(Shape s, int w_stages) noexcept {
  s.is_dense = true;
  s.half_bytes = kDenseHalfBytes;
  s.x_planes = 1;
  s.w_stages = w_stages;
  s.x_stages = (kSharedBytes - 512 - s.w_stages * s.w_stage_bytes()) / s.x_stage_bytes();
  if (s.x_stages > 12) s.x_stages = 12;
  return s;
}

inline constexpr int kDenseKinds = 6;
/// The library's kernels of a type of dense weights.
[[nodiscard]] constexpr Shape dense_shape_of(int kind) noexcept {
  constexpr int kTokens[kDenseKinds] = {16, 32, 64, 128, 256, 256};
  constexpr int kStages[kDenseKinds] = {6, 6, 5, 4, 3, 3};
  Shape s;
  s.tokens = kTokens[kind];
  s.form = kind == 5 ? Form::pair : kind == 4 ? Form::tiles : Form::parts;
  return with_dense_stages(s, kStages[kind]);
}

}  // namespace mlxn::tile
