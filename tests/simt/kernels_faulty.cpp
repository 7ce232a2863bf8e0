#include "tests/simt/kernels.h"

namespace mlxn {
namespace test {

using namespace gpu;

namespace {

struct Floats {
  float values[128];
};
struct Bytes {
  uint8_t values[128];
};

// ---- barriers and collectives

struct BarrierSkipped {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 64;
  using Shared = NoShared;
  static constexpr int kLine = __LINE__ + 3;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    if (t.index == args.option) return;
    t.barrier();
  }
};

struct BarrierElsewhere {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 64;
  using Shared = NoShared;
  static constexpr int kFirst = __LINE__ + 4, kSecond = __LINE__ + 6;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    if (args.x.ptr[t.index] == 0.0f) {
      // threads 0 to 31, as the test fills x
      t.barrier();
    } else {
      t.barrier();
    }
  }
};

/// The barriers stand in the dialect's header, the calls of group_sum are told apart.
struct BarrierInGroupsSum {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 64;
  using Shared = Floats;
  static constexpr int kFirst = __LINE__ + 4, kSecond = __LINE__ + 6;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    float sum;
    if (args.x.ptr[t.index] == 0.0f) {
      sum = group_sum<kThreads>(t, 1.0f, shared.values);
    } else {
      sum = group_sum<kThreads>(t, 2.0f, shared.values);
    }
    if (t.index == 0) args.y.ptr[0] = sum;
  }
};

struct CollectiveSkipped {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 64;
  using Shared = NoShared;
  static constexpr int kLine = __LINE__ + 4;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    float v = float(t.lane());
    if (t.index != 40) {
      v = simd_sum(t, v);
    } else if (args.option == 1) {
      t.barrier();
    }
    args.y.ptr[t.index] = v;
  }
};

struct CollectiveElsewhere {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 64;
  using Shared = NoShared;
  static constexpr int kFirst = __LINE__ + 4, kSecond = __LINE__ + 6;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    float v = args.x.ptr[t.index];
    if (t.lane() < 7) {
      v = t.shuffle(v, 3);
    } else {
      v = t.shuffle(v, 3);
    }
    args.y.ptr[t.index] = v;
  }
};

struct BallotSkipped {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 32;
  using Shared = NoShared;
  static constexpr int kLine = __LINE__ + 3;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    if (t.lane() == 9) return;
    args.y.ptr[t.index] = float(t.ballot(true));
  }
};

struct SimdBarrierSkipped {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 64;
  using Shared = NoShared;
  static constexpr int kLine = __LINE__ + 3;
  static MLXN_FN void run(const Args&, const Thread& t, MLXN_SHARED Shared&) {
    if (t.index == 63) return;
    t.simd_barrier();
  }
};

// ---- memory out of bounds, unwritten or of the wrong kind

struct ReadsUnwrittenShared {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 32;
  using Shared = Floats;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    if (t.index != args.option) shared.values[t.index] = 1.0f;
    t.barrier();
    args.y.ptr[t.index] = shared.values[t.index];
  }
};

struct ReadsPastShared {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 32;
  using Shared = Floats;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    if (t.index == 5) args.y.ptr[0] = shared.values[args.at];
  }
};

struct LoadAt {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 32;
  using Shared = NoShared;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    if (t.index == 21) args.y.ptr[0] = args.x.ptr[args.at];
  }
};

struct StoreAt {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 32;
  using Shared = NoShared;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    if (t.index == 21) args.y.ptr[args.at] = 1.0f;
  }
};

struct Four {
  float values[4];
};
/// Sixteen bytes at once, from any multiple of a byte.
struct LoadWideAt {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 32;
  using Shared = NoShared;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    if (t.index != 21) return;
    const Four four = *(MLXN_GLOBAL const Four*)((MLXN_GLOBAL const uint8_t*)args.x.ptr + args.at);
    args.y.ptr[0] = four.values[0] + four.values[1] + four.values[2] + four.values[3];
  }
};

struct Pair {
  uint32_t first, second;
};
/// Eight bytes at once, from any multiple of four.
struct LoadPairAt {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 32;
  using Shared = Pair[2];
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    if (t.index != 21) return;
    shared[0] = *(MLXN_GLOBAL const Pair*)((MLXN_GLOBAL const uint8_t*)args.x.ptr + args.at);
    args.y.ptr[0] = float(shared[0].second);
  }
};

/// A word in parts of kBytes at a byte's address: misaligned unless that is a multiple.
template <uint32_t kBytes>
struct LoadWordAt {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 32;
  using Shared = NoShared;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    if (t.index != 21) return;
    MLXN_GLOBAL const uint8_t* const p = (MLXN_GLOBAL const uint8_t*)args.x.ptr + args.at;
    args.y.ptr[0] = kBytes == 4 ? float(load_u32(p)) : kBytes == 2 ? float(load_u32_2(p)) : float(load_u32_1(p));
  }
};

/// Four floats by the dialect's wide load.
struct LoadFourAt {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 32;
  using Shared = NoShared;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    if (t.index == 21) args.y.ptr[0] = load_f32x4(args.x.ptr + args.at).w;
  }
};

struct StoreByteAt {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 32;
  using Shared = NoShared;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    if (t.index == 21) ((MLXN_GLOBAL uint8_t*)args.y.ptr)[args.at] = 1;
  }
};

/// The store of a load and a store to the same address.
struct UpdatesInput {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 32;
  using Shared = NoShared;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    if (t.index == 21) *(float*)(args.x.ptr + args.at) += 1.0f;
  }
};

struct ReadsOutput {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 32;
  using Shared = NoShared;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    if (t.index != args.option) args.y.ptr[t.index] = 1.0f;
    args.y.ptr[t.index] += 1.0f;
  }
};

struct StoreThrough {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 32;
  using Shared = NoShared;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    if (t.index == 21) args.z.ptr[args.at] = 1;
  }
};

struct LoadThrough {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 32;
  using Shared = NoShared;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    if (t.index == 21) args.y.ptr[0] = float(args.z.ptr[args.at]);
  }
};

/// Loads from a local array, with an index that may be anything.
struct LoadLocalAt {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 32;
  using Shared = NoShared;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    float local[32];
    float* volatile escaped = local;
    float* const p = escaped;
    for (uint32_t i = 0; i < kSimdWidth; ++i) p[i] = float(i);
    args.y.ptr[t.index] = p[args.at];
  }
};

// ---- races

struct RaceStoreStore {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 64;
  using Shared = Floats;
  static MLXN_FN void run(const Args&, const Thread& t, MLXN_SHARED Shared& shared) {
    if (t.index == 3 || t.index == 40) shared.values[17] = 1.0f;
  }
};

struct RaceLoadStore {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 64;
  using Shared = Floats;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    shared.values[t.index] = 0.0f;
    t.barrier();
    if (t.index == 3) args.y.ptr[0] = shared.values[17];
    if (t.index == 40) shared.values[17] = 1.0f;
  }
};

/// A missing second barrier: the next round's stores meet this round's loads.
struct RaceStoreLoad {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 64;
  using Shared = Floats;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    float sum = 0.0f;
    for (uint32_t round = 0; round < 2; ++round) {
      shared.values[t.index] = float(round);
      t.barrier();
      sum += shared.values[(t.index + 32) % kThreads];
    }
    args.y.ptr[t.index] = sum;
  }
};

struct RaceInSimdGroup {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 32;
  using Shared = Floats;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    shared.values[t.lane()] = 0.0f;
    t.simd_barrier();
    shared.values[t.lane()] = float(t.lane());
    if (args.option == 1) t.simd_barrier();
    args.y.ptr[t.lane()] = shared.values[31 - t.lane()];
  }
};

struct RaceShuffleIsNoBarrier {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 32;
  using Shared = Floats;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    shared.values[t.lane()] = float(t.lane());
    const float sum = simd_sum(t, 1.0f);
    args.y.ptr[t.lane()] = shared.values[31 - t.lane()] + sum;
  }
};

/// Threads write every byte of a word of their own, and one of them its neighbour's too.
struct RaceBytes {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 64;
  using Shared = Bytes;
  static MLXN_FN void run(const Args&, const Thread& t, MLXN_SHARED Shared& shared) {
    shared.values[t.index] = uint8_t(t.index);
    if (t.index == 33) shared.values[34] = 1;
  }
};

struct RaceBetweenGroups {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 32;
  using Shared = NoShared;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    if (t.index == 7 && t.group.z == 1) args.y.ptr[5] = float(t.group.y);
  }
};

struct RaceGroupsLoadStore {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 32;
  using Shared = NoShared;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    if (t.index != 7) return;
    if (t.group.x == 2) {
      args.z.ptr[5] = 1;
    } else {
      args.y.ptr[t.group.x] = float(args.z.ptr[5]);
    }
  }
};

struct RaceAtomicAndStore {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 64;
  using Shared = NoShared;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    if (t.index == args.option) {
      args.z.ptr[0] = 0;
    } else {
      atomic_add(args.z.ptr, 1);
    }
  }
};

struct RaceAtomicAndLoad {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 64;
  using Shared = NoShared;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    atomic_add(args.z.ptr, 1);
    t.barrier();
    // In order with this group's additions, not with those of others.
    if (t.index == 0) args.y.ptr[t.group.x] = float(args.z.ptr[0]);
  }
};

struct RaceGlobalInGroup {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 64;
  using Shared = NoShared;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    args.z.ptr[t.index] = t.index;
    if (args.option == 1) t.barrier();
    args.y.ptr[t.index] = float(args.z.ptr[63 - t.index]);
  }
};

/// No race, but whoever comes first gets the first place.
struct DependsOnOrder {
  using Args = test::Args;
  static constexpr uint32_t kThreads = 64;
  using Shared = NoShared;
  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    const uint32_t place = atomic_add(args.z.ptr, 1);
    args.y.ptr[place] = float(t.group.x * kThreads + t.index);
  }
};

}  // namespace

const Kernel barrier_skipped = kernel<BarrierSkipped>("barrier_skipped");
const Kernel barrier_elsewhere = kernel<BarrierElsewhere>("barrier_elsewhere");
const Kernel barrier_in_groups_sum = kernel<BarrierInGroupsSum>("barrier_in_groups_sum");
const Kernel collective_skipped = kernel<CollectiveSkipped>("collective_skipped");
const Kernel collective_elsewhere = kernel<CollectiveElsewhere>("collective_elsewhere");
const Kernel ballot_skipped = kernel<BallotSkipped>("ballot_skipped");
const Kernel simd_barrier_skipped = kernel<SimdBarrierSkipped>("simd_barrier_skipped");
const Kernel reads_unwritten_shared = kernel<ReadsUnwrittenShared>("reads_unwritten_shared");
const Kernel reads_past_shared = kernel<ReadsPastShared>("reads_past_shared");
const Kernel load_at = kernel<LoadAt>("load_at");
const Kernel store_at = kernel<StoreAt>("store_at");
const Kernel load_wide_at = kernel<LoadWideAt>("load_wide_at");
const Kernel load_pair_at = kernel<LoadPairAt>("load_pair_at");
const Kernel load_word_at[3] = {kernel<LoadWordAt<1>>("load_word_at"), kernel<LoadWordAt<2>>("load_word_at"),
                                kernel<LoadWordAt<4>>("load_word_at")};
const Kernel load_four_at = kernel<LoadFourAt>("load_four_at");
const Kernel store_byte_at = kernel<StoreByteAt>("store_byte_at");
const Kernel updates_input = kernel<UpdatesInput>("updates_input");
const Kernel reads_output = kernel<ReadsOutput>("reads_output");
const Kernel race_store_store = kernel<RaceStoreStore>("race_store_store");
const Kernel race_load_store = kernel<RaceLoadStore>("race_load_store");
const Kernel race_store_load = kernel<RaceStoreLoad>("race_store_load");
const Kernel race_in_simd_group = kernel<RaceInSimdGroup>("race_in_simd_group");
const Kernel race_shuffle_is_no_barrier = kernel<RaceShuffleIsNoBarrier>("race_shuffle_is_no_barrier");
const Kernel race_bytes = kernel<RaceBytes>("race_bytes");
const Kernel race_between_groups = kernel<RaceBetweenGroups>("race_between_groups");
const Kernel race_groups_load_store = kernel<RaceGroupsLoadStore>("race_groups_load_store");
const Kernel race_atomic_and_store = kernel<RaceAtomicAndStore>("race_atomic_and_store");
const Kernel race_atomic_and_load = kernel<RaceAtomicAndLoad>("race_atomic_and_load");
const Kernel race_global_in_group = kernel<RaceGlobalInGroup>("race_global_in_group");
const Kernel store_through = kernel<StoreThrough>("store_through");
const Kernel load_through = kernel<LoadThrough>("load_through");
const Kernel load_local_at = kernel<LoadLocalAt>("load_local_at");
const Kernel depends_on_order = kernel<DependsOnOrder>("depends_on_order");

const int barrier_skipped_line = BarrierSkipped::kLine;
const int barrier_elsewhere_lines[2] = {BarrierElsewhere::kFirst, BarrierElsewhere::kSecond};
const int barrier_in_groups_sum_lines[2] = {BarrierInGroupsSum::kFirst, BarrierInGroupsSum::kSecond};
const int collective_skipped_line = CollectiveSkipped::kLine;
const int collective_elsewhere_lines[2] = {CollectiveElsewhere::kFirst, CollectiveElsewhere::kSecond};
const int ballot_skipped_line = BallotSkipped::kLine;
const int simd_barrier_skipped_line = SimdBarrierSkipped::kLine;

}  // namespace test
}  // namespace mlxn
