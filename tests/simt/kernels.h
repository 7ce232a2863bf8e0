#pragma once

#include "simt/kernel_entry.h"

// Kernels for the emulator's tests. All take the same launch struct, whose pointers the tests bind as they like.

namespace mlxn {
namespace test {

struct Args {
  In<float> x;
  Out<float> y;
  InOut<uint32_t> z;
  int64_t at;      ///< an index, for kernels that touch one element
  uint32_t n;      ///< elements
  uint32_t option;  ///< which variant of a bug
};
static_assert(sizeof(Args) == 40, "no padding");

struct Kernel {
  const char* name;
  uint32_t threads;
  uint32_t shared_bytes;
  void (*run)(const void* args, const gpu::Thread& thread, void* shared);
};
template <class K>
constexpr Kernel kernel(const char* name) {
  return {name, K::kThreads, uint32_t(sizeof(typename K::Shared)), &simt::run_kernel<K>};
}

// kernels_faulty.cpp: each has the fault that its name tells. Lines are those of the collectives in question.
extern const Kernel barrier_skipped, barrier_elsewhere, barrier_in_groups_sum, collective_skipped, collective_elsewhere, ballot_skipped,
    simd_barrier_skipped, reads_unwritten_shared, reads_past_shared, load_at, store_at, load_wide_at, load_pair_at, load_word_at[3], load_four_at, store_byte_at,
    updates_input, reads_output, race_store_store, race_load_store, race_store_load, race_in_simd_group, race_shuffle_is_no_barrier,
    race_bytes, race_between_groups, race_groups_load_store, race_atomic_and_store, race_atomic_and_load, race_global_in_group,
    store_through, load_through, load_local_at, depends_on_order;
extern const int barrier_skipped_line, barrier_elsewhere_lines[2], barrier_in_groups_sum_lines[2], collective_skipped_line,
    collective_elsewhere_lines[2], ballot_skipped_line, simd_barrier_skipped_line;

// kernels_correct.cpp
extern const Kernel sums_in_loop, prefix_sums, rotates, ballots, simd_exchange, writes_bytes, writes_halves, counts, global_hand_over,
    reuses_shared, uses_table, reads_struct, marks_groups, updates_in_place, one_lane_loads, conversions;

}  // namespace test
}  // namespace mlxn
