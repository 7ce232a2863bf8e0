#include "tests/simt/kernels.h"

namespace mlxn {
namespace test {

using namespace gpu;

namespace {

/// y[group] = the sum over rounds r of (max + sum) of x[i] * r over the group's elements; groups from n on end at once.
struct SumsInLoop {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 96;
  struct Shared {
    float scratch[kThreads / kSimdWidth];
  };
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    if (t.group.x >= args.n) return;
    const float x = args.x.ptr[t.group.x * kThreads + t.index];
    float result = 0.0f;
    for (uint32_t round = 1; round <= args.option; ++round) {
      const float v = x * float(round);
      result += group_max<kThreads>(t, v, shared.scratch);
      result += group_sum<kThreads>(t, v, shared.scratch);
    }
    if (t.index == 0) args.y.ptr[t.group.x] = result;
  }
};

/// Prefix sums of z within each SIMD-group, in place.
struct PrefixSums {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 64;
  using Shared = NoShared;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    MLXN_GLOBAL uint32_t* const z = args.z.ptr + t.group.x * kThreads + t.index;
    *z = simd_prefix_sum(t, *z);
  }
};

/// y[i] = x of the lane `at` places further on, plus x of the lane whose number differs in bit 2.
struct Rotates {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 64;
  using Shared = NoShared;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    const uint32_t i = t.group.x * kThreads + t.index;
    const float x = args.x.ptr[i];
    args.y.ptr[i] = t.shuffle(x, (t.lane() + uint32_t(args.at)) % kSimdWidth) + t.shuffle_xor(x, 4);
  }
};

/// z[i] = how many lanes below this one have a positive x; only every second SIMD-group votes.
struct Ballots {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 128;
  using Shared = NoShared;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    if (t.simd() % 2 == 1) return;
    uint32_t below = t.ballot(args.x.ptr[t.index] > 0.0f) & ((1u << t.lane()) - 1u), count = 0;
    for (; below != 0; below &= below - 1) ++count;
    args.z.ptr[t.index] = count;
  }
};

/// Lanes hand values on through shared memory, SIMD-groups run at their own pace.
struct SimdExchange {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 128;
  struct Shared {
    float values[kThreads];
  };
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    MLXN_SHARED float* const own = shared.values + t.simd() * kSimdWidth;
    float v = args.x.ptr[t.index];
    for (uint32_t round = 0; round < args.n + t.simd(); ++round) {
      own[t.lane()] = v;
      t.simd_barrier();
      v = own[(t.lane() + 1) % kSimdWidth];
      t.simd_barrier();
    }
    args.y.ptr[t.index] = v;
  }
};

/// Every thread writes one byte of shared memory, then one of global memory: four threads, and the end of one group and the
/// begin of the next, share a word.
struct WritesBytes {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 32;
  struct Shared {
    uint8_t values[kThreads + 1];
  };
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    shared.values[t.index + 1] = uint8_t(t.group.x * kThreads + t.index);
    t.barrier();
    MLXN_GLOBAL uint8_t* const y = (MLXN_GLOBAL uint8_t*)args.y.ptr + args.at;
    if (t.index < 31) y[t.group.x * 31 + t.index] = shared.values[31 - t.index];
  }
};

/// f32 to f16 and back; three rounds over the same shared halves, whole words read by other threads.
struct WritesHalves {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 64;
  struct Shared {
    f16 values[kThreads];
  };
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    float v = args.x.ptr[t.group.x * kThreads + t.index];
    for (uint32_t round = 0; round < 3; ++round) {
      t.barrier();
      store(shared.values + t.index, v);
      t.barrier();
      v = load(shared.values + (t.index ^ 1)) + load(shared.values + t.index);
    }
    store((MLXN_GLOBAL f16*)args.y.ptr + t.group.x * kThreads + t.index, v);
  }
};

/// A histogram of z[1...] by its value modulo 4 in z's last words; a group counts twice with a barrier in between.
struct Counts {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 64;
  using Shared = NoShared;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    const uint32_t value = args.z.ptr[t.group.x * kThreads + t.index];
    atomic_add(args.z.ptr + args.n + value % 4, 1);
    t.barrier();
    atomic_add(args.z.ptr + args.n + value % 4, 1);
  }
};

/// Threads hand values on through global memory, with a barrier or a simd_barrier.
struct GlobalHandOver {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 64;
  using Shared = NoShared;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    MLXN_GLOBAL float* const y = args.y.ptr + t.group.x * kThreads;
    y[t.index] = float(t.index);
    t.barrier();
    const float other = y[kThreads - 1 - t.index];
    t.barrier();
    y[t.index] = other;
    t.simd_barrier();
    const float neighbour = y[t.index ^ 1];
    t.simd_barrier();
    y[t.index] = neighbour;
  }
};

/// The same shared words in one group after the other, as floats, then as bytes, then as words.
struct ReusesShared {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 32;
  struct Shared {
    uint32_t words[kThreads];
  };
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    shared.words[t.index] = t.index;
    t.barrier();
    const uint32_t other = shared.words[31 - t.index];
    t.barrier();
    MLXN_SHARED uint8_t* const bytes = (MLXN_SHARED uint8_t*)shared.words;
    for (uint32_t i = 0; i < 4; ++i) bytes[i * kThreads + t.index] = uint8_t(other + i);
    t.barrier();
    args.z.ptr[t.group.x * kThreads + t.index] = shared.words[t.index];
  }
};

/// A table in the program, read at an index that the compiler does not know, and through a pointer.
struct UsesTable {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 32;
  using Shared = NoShared;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    constexpr float kTable[4] = {1.0f, 2.0f, 4.0f, 8.0f};
    args.y.ptr[t.index] = kTable[args.z.ptr[t.index] % 4] + args.x.ptr[t.index % 2];
  }
};

struct Six {
  uint16_t values[3];
};
/// Structs that are no power of two, in global and shared memory.
struct ReadsStruct {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 32;
  struct Shared {
    Six values[kThreads];
  };
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    shared.values[t.index] = ((MLXN_GLOBAL const Six*)args.x.ptr)[t.index];
    t.barrier();
    const Six six = shared.values[31 - t.index];
    args.z.ptr[t.index] = uint32_t(six.values[0]) + six.values[1] + six.values[2];
  }
};

/// z of a group = where it is in the grid.
struct MarksGroups {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 32;
  using Shared = NoShared;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    const uint32_t group = (t.group.z * t.groups.y + t.group.y) * t.groups.x + t.group.x;
    if (t.index == 31) args.z.ptr[group] = t.group.x | t.group.y << 8 | t.group.z << 16;
  }
};

/// y may be x: every element is read before its own thread writes it.
struct UpdatesInPlace {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 64;
  using Shared = NoShared;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    const uint32_t i = t.group.x * kThreads + t.index;
    if (i < args.n) args.y.ptr[i] = args.x.ptr[i] * 2.0f;
  }
};

/// All threads read a word that one of them replaces in the next phase.
struct OneLaneLoads {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 128;
  struct Shared {
    float value;
  };
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    float sum = 0.0f;
    for (uint32_t round = 0; round < 5; ++round) {
      if (t.index == round * 25) shared.value = float(round + t.group.x);
      t.barrier();
      sum += shared.value;
      t.barrier();
    }
    args.y.ptr[t.group.x * kThreads + t.index] = sum;
  }
};

/// y = x through bf16.
struct Conversions {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 32;
  using Shared = NoShared;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    const uint32_t i = t.group.x * kThreads + t.index;
    if (i < args.n) args.y.ptr[i] = to_float(from_float<bf16>(args.x.ptr[i]));
  }
};

}  // namespace

const Kernel sums_in_loop = kernel<SumsInLoop>("sums_in_loop");
const Kernel prefix_sums = kernel<PrefixSums>("prefix_sums");
const Kernel rotates = kernel<Rotates>("rotates");
const Kernel ballots = kernel<Ballots>("ballots");
const Kernel simd_exchange = kernel<SimdExchange>("simd_exchange");
const Kernel writes_bytes = kernel<WritesBytes>("writes_bytes");
const Kernel writes_halves = kernel<WritesHalves>("writes_halves");
const Kernel counts = kernel<Counts>("counts");
const Kernel global_hand_over = kernel<GlobalHandOver>("global_hand_over");
const Kernel reuses_shared = kernel<ReusesShared>("reuses_shared");
const Kernel uses_table = kernel<UsesTable>("uses_table");
const Kernel reads_struct = kernel<ReadsStruct>("reads_struct");
const Kernel marks_groups = kernel<MarksGroups>("marks_groups");
const Kernel updates_in_place = kernel<UpdatesInPlace>("updates_in_place");
const Kernel one_lane_loads = kernel<OneLaneLoads>("one_lane_loads");
const Kernel conversions = kernel<Conversions>("conversions");

}  // namespace test
}  // namespace mlxn
