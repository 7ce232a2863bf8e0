#include "cuda_on_host.h"

#include <ucontext.h>

#include <cmath>
#include <map>
#include <memory>
#include <vector>

#include "cuda_blocks/ptx.cuh"

namespace mlxn::sm90 {

alignas(1024) std::uint8_t shared[cuda_on_host::kMaxCluster * cuda_on_host::kClusterSharedBytes];

float f16_to_f32(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  double v = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(mantissa + 1024, exponent - 25);
  if (exponent == 31) v = mantissa == 0 ? HUGE_VAL : std::nan("");
  return static_cast<float>(bits & 0x8000 ? -v : v);
}

std::uint16_t f32_to_f16(float value) {
  if (value != value) return 0x7fff;
  const double a = std::fabs(static_cast<double>(value));
  if (a >= 65520) return std::signbit(value) ? 0xfc00 : 0x7c00;
  const int e = std::max(a == 0 ? -14 : std::ilogb(a), -14);
  const int units = static_cast<int>(std::nearbyint(std::ldexp(a, 10 - e)));
  return static_cast<std::uint16_t>((units < 1024 ? units : (e + 15) * 1024 + units - 1024) |
                                    (std::signbit(value) ? 0x8000 : 0));
}

}  // namespace mlxn::sm90

namespace cuda_on_host {
namespace {

constexpr std::size_t kStackBytes = 128 << 10;
static_assert(sizeof(mlxn::sm90::shared) >= kSharedBytes);

struct Copy {
  std::uint32_t to;
  const std::uint8_t* from;
  std::uint32_t bytes, barrier;
};

struct Fiber {
  ucontext_t context;
  std::unique_ptr<std::uint8_t[]> stack;
  const std::function<bool()>* ready = nullptr;  // null: may go on
  bool is_done = false;
  bool has_waited = false;
  std::uint64_t cluster_turn = 0;  // that it arrived for
  bool has_arrived = false;
  std::vector<Copy> copies;  // its own
};

struct Rendezvous {  // of the lanes of a warp
  std::uint64_t turn = 0;
  unsigned here = 0;
  std::vector<std::uint8_t> bytes[2];
};

struct BlockBarrier {
  std::uint64_t turn = 0;
  unsigned here = 0;
};

struct Mbarrier {
  std::uint32_t arrivals = 0, missing = 0, ended = 0;
  std::int64_t bytes = 0;  // announced and not yet here
};

/// Or the blocks of a cluster, one behind the other.
struct Block {
  std::vector<Fiber> fibers;
  unsigned threads = 0;  // of a block
  std::vector<Rendezvous> warps;
  std::map<int, BlockBarrier> barriers;
  BlockBarrier cluster_barrier;
  std::map<std::uint32_t, Mbarrier> mbarriers;
  std::vector<Copy> copies;
  const std::function<void()>* kernel = nullptr;
  ucontext_t scheduler;
  unsigned current = 0;
  std::string error;
};
Block* block = nullptr;

Fiber& self() { return block->fibers[block->current]; }

void enter() {
  (*block->kernel)();
  if (!self().copies.empty()) fail("ends before its copies");
  self().is_done = true;
  swapcontext(&self().context, &block->scheduler);
}

void settle(std::uint32_t at, Mbarrier& barrier) {
  if (barrier.missing != 0 || barrier.bytes != 0) return;
  if (barrier.arrivals == 0) fail("mbarrier at " + std::to_string(at) + " used before its init");
  barrier.missing = barrier.arrivals;
  ++barrier.ended;
}

void finish_copy() {
  const Copy copy = block->copies.front();
  block->copies.erase(block->copies.begin());
  std::memcpy(mlxn::sm90::shared + copy.to, copy.from, copy.bytes);
  Mbarrier& barrier = block->mbarriers[copy.barrier];
  barrier.bytes -= copy.bytes;
  settle(copy.barrier, barrier);
}

std::string run_blocks(unsigned first, unsigned cluster, unsigned threads_of_block, const std::function<void()>& kernel) {
  Block now;
  block = &now;
  now.kernel = &kernel;
  now.threads = threads_of_block;
  const unsigned threads = cluster * threads_of_block;
  now.fibers.resize(threads);
  now.warps.resize((threads + 31) / 32);
  std::memset(mlxn::sm90::shared, 0xff, cluster * std::size_t{kClusterSharedBytes});
  for (Fiber& fiber : now.fibers) {
    fiber.stack = std::make_unique_for_overwrite<std::uint8_t[]>(kStackBytes);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
  }
  for (std::uint64_t pass = 0;; ++pass) {
    bool has_moved = false, is_done = true;
    for (unsigned i = 0; i < threads && now.error.empty(); ++i) {
      Fiber& fiber = now.fibers[i];
      if (fiber.is_done) continue;
      is_done = false;
      if (fiber.ready != nullptr && !(*fiber.ready)()) continue;
      has_moved = true;
      now.current = i;
      threadIdx.x = i % threads_of_block;
      blockIdx.x = first + i / threads_of_block;
      swapcontext(&now.scheduler, &fiber.context);
    }
    if (!now.error.empty()) break;
    if (is_done) break;
    if (!now.copies.empty() && (!has_moved || pass % 3 == 0)) {
      finish_copy();
      has_moved = true;
    }
    if (!has_moved) {
      now.error = "hang: threads";
      for (unsigned i = 0; i < threads; ++i)
        if (!now.fibers[i].is_done) now.error += " " + std::to_string(i);
      break;
    }
  }
  if (now.error.empty() && !now.copies.empty()) now.error = "the block ends before its copies";
  block = nullptr;
  return now.error;
}

}  // namespace

std::string run(unsigned blocks, unsigned threads, const std::function<void()>& kernel, unsigned cluster) {
  if (cluster == 0 || cluster > kMaxCluster || blocks % cluster != 0 || (cluster > 1 && threads % 32 != 0)) return "no such grid";
  for (unsigned i = 0; i < blocks; i += cluster) {
    const std::string error = run_blocks(i, cluster, threads, kernel);
    if (!error.empty()) return "block " + std::to_string(i) + ": " + error;
  }
  return "";
}

unsigned cluster_rank() { return block->current / block->threads; }

void cluster_arrive() {
  if (self().has_arrived) fail("arrives at the barrier of the cluster twice");
  BlockBarrier& barrier = block->cluster_barrier;
  self().has_arrived = true;
  self().cluster_turn = barrier.turn;
  if (++barrier.here == block->fibers.size()) {
    barrier.here = 0;
    ++barrier.turn;
  }
}

void cluster_wait() {
  if (!self().has_arrived) fail("waits at the barrier of the cluster before it arrives");
  self().has_arrived = false;
  const std::uint64_t turn = self().cluster_turn;
  wait_for([&] { return block->cluster_barrier.turn != turn; });
}

void wait_for(const std::function<bool()>& ready) {
  if (ready()) return;
  self().ready = &ready;
  swapcontext(&self().context, &block->scheduler);
  self().ready = nullptr;
}

const std::uint8_t* exchange(const void* mine, std::size_t size) {
  Rendezvous& warp = block->warps[block->current / 32];
  const std::uint64_t turn = warp.turn;
  std::vector<std::uint8_t>& bytes = warp.bytes[turn % 2];
  if (warp.here == 0) bytes.assign(32 * size, 0);
  if (bytes.size() != 32 * size) fail("the lanes of a warp are at different collectives");
  std::memcpy(bytes.data() + block->current % 32 * size, mine, size);
  if (++warp.here == 32) {
    warp.here = 0;
    ++warp.turn;
  }
  wait_for([&] { return warp.turn != turn; });
  return bytes.data();
}

void block_barrier(int id, unsigned threads) {
  BlockBarrier& barrier = block->barriers[id + 16 * static_cast<int>(cluster_rank())];
  const std::uint64_t turn = barrier.turn;
  if (++barrier.here == threads) {
    barrier.here = 0;
    ++barrier.turn;
  }
  wait_for([&] { return barrier.turn != turn; });
}

void start_copy(std::uint32_t to, const void* global, std::uint32_t bytes, std::uint32_t barrier) {
  if (to % 16 != 0 || bytes % 16 != 0 || reinterpret_cast<std::uintptr_t>(global) % 16 != 0)
    fail("misaligned copy");
  if (to % kClusterSharedBytes + bytes > kSharedBytes) fail("copy past the end of shared memory");
  std::memset(mlxn::sm90::shared + to, 0xff, bytes);
  block->copies.push_back({to, static_cast<const std::uint8_t*>(global), bytes, barrier});
}

void start_own_copy(std::uint32_t to, const void* global, std::uint32_t bytes) {
  if (to % 16 != 0 || reinterpret_cast<std::uintptr_t>(global) % 16 != 0) fail("misaligned copy");
  if (to % kClusterSharedBytes + 16 > kSharedBytes) fail("copy past the end of shared memory");
  std::memset(mlxn::sm90::shared + to, 0xff, 16);
  self().copies.push_back({to, static_cast<const std::uint8_t*>(global), bytes, 0});
}

void finish_own_copies() {
  for (const Copy& copy : self().copies) {
    std::memset(mlxn::sm90::shared + copy.to, 0, 16);
    std::memcpy(mlxn::sm90::shared + copy.to, copy.from, copy.bytes);
  }
  self().copies.clear();
}

void fail(const std::string& what) {
  if (block->error.empty()) block->error = "thread " + std::to_string(block->current) + ": " + what;
  swapcontext(&self().context, &block->scheduler);
}

std::uint32_t shared_offset(const void* p) {
  return static_cast<std::uint32_t>(static_cast<const std::uint8_t*>(p) - mlxn::sm90::shared);
}

void barrier_init(std::uint32_t barrier, std::uint32_t arrivals) {
  if (barrier % 8 != 0 || barrier + 8 > sizeof(mlxn::sm90::shared)) fail("misplaced mbarrier");
  block->mbarriers[barrier] = {arrivals, arrivals, 0, 0};
}

void barrier_arrive(std::uint32_t at, std::uint32_t expected_bytes) {
  Mbarrier& barrier = block->mbarriers[at];
  if (barrier.missing == 0) fail("mbarrier at " + std::to_string(at) + " has more arrivals than its count");
  barrier.bytes += expected_bytes;
  --barrier.missing;
  settle(at, barrier);
}

void barrier_complete(std::uint32_t at, std::uint32_t bytes) {
  Mbarrier& barrier = block->mbarriers[at];
  if (barrier.arrivals == 0) fail("mbarrier at " + std::to_string(at) + " used before its init");
  barrier.bytes -= bytes;
  settle(at, barrier);
}

bool barrier_has_ended(std::uint32_t at, std::uint32_t parity) {
  return (block->mbarriers[at].ended & 1) != parity;
}

void set_waited() { self().has_waited = true; }
bool has_waited() { return self().has_waited; }

}  // namespace cuda_on_host

void __syncthreads() {
  cuda_on_host::block_barrier(0, cuda_on_host::block->threads);
}
