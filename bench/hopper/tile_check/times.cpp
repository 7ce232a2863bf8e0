// What the library chooses, with the ways of it, and beside cuBLAS.
#include <chrono>
#include <cstdio>
#include <string>

#include "tile_check/bench.h"

namespace tile_check {

void Bench::chosen(int m) {
  const HopperTilePlan plan = type_.plan(m, n_, k_, sms_);
  const void* function = kernel_of(type_, plan.kernel);
  const double plain = time(plan, function, false, true, false),
               early = time(plan, function, false, true, true);
  const double both_plain = time(plan, function, true, true, false),
               both = time(plan, function, true, true, true);
  const double stage = time(plan, function, true, false, true);
  const double normed = time(plan, function, true, false, true, {.norm = norm_}),
               added = time(plan, function, false, true, true, {.onto = true}),
               gated = time(plan, function, false, true, true, {.gate = ops::kHopperTileSilu});
  char direct[64] = "";
  if (plan.can_map(narrow_type(), 0, 2ll * k_)) {
    std::snprintf(direct, sizeof direct, ", from 16 bits %7.2f plain %7.2f early",
                  time(plan, function, true, true, false, {.direct = true}),
                  time(plan, function, true, true, true, {.direct = true}));
  }
  std::printf(
      "%-30s n %5d k %5d m %4d parts %2u: product %7.2f plain %7.2f early, with staging %7.2f plain %7.2f "
      "early, "
      "staging alone %6.2f, with a norm %6.2f, product onto y %7.2f, gated %7.2f early%s us; %4.0f "
      "TFLOP/s, weights "
      "%4.0f GB/s\n",
      std::string(plan.kernel).c_str(), n_, k_, m, plan.splits, plain, early, both_plain, both, stage, normed,
      added, gated, direct, 2e-6 * m * n_ * k_ / early,
      double(plan.map.row_bytes) * double(plan.map.rows) / early * 1e-3);
  std::fflush(stdout);
}

void Bench::beside_cublas(bench::Cublas& cublas, int m, bool all) {
  const HopperTilePlan chosen = type_.plan(m, n_, k_, sms_);
  struct Entry {
    std::string name;
    bool narrow_y;
    std::unique_ptr<Product> product;
    std::unique_ptr<Chain> chain;
  };
  std::vector<Entry> entries;
  const int calls = std::max(32, calls_for(m));
  make_peers();
  auto add = [&](const std::string& name, const HopperTilePlan& plan, const void* function, bool stage,
                 const Way& way = {}) {
    Entry e{name, way.narrow_y, product(plan, function, way), nullptr};
    Product& p = *e.product;
    p.run_stage(stream_, false);
    CHECK(cudaStreamSynchronize(stream_));
    e.chain = std::make_unique<Chain>(stream_, calls, [&](int i) {
      p.use(records_[i % records_.size()]);
      if (stage) p.run_stage(stream_, true);
      p.run(stream_, true);
    });
    entries.push_back(std::move(e));
  };
  const std::string name(chosen.kernel);
  add(name + " parts " + std::to_string(chosen.splits), chosen, kernel_of(type_, name), false);
  add("  with staging", chosen, kernel_of(type_, name), true);
  if (chosen.can_map(narrow_type(), 0, 2ll * k_)) {
    add("  from 16 bits", chosen, kernel_of(type_, name), false, {.direct = true});
    add("  from 16 bits to 16 bits", chosen, kernel_of(type_, name), false,
        {.direct = true, .narrow_y = true});
  }
  if (all) {
    auto try_shape = [&](const tile::Shape& shape, const void* function, const std::string& label) {
      if (!suits(shape, m)) return;
      for (std::uint32_t splits : {1u, 2u, 3u, 4u}) {
        if (splits > 1 && shape.form != tile::Form::parts) break;
        HopperTilePlan plan = type_.plan(shape, m, n_, k_, splits, sms_);
        const std::uint32_t blocks = plan.grid[0] * plan.grid[1] * plan.grid[2];
        if (splits > 1 && blocks > 2u * sms_) break;
        const bool walks = shape.form == tile::Form::tiles && m > 512;
        for (std::uint32_t group : {2u, 4u, 8u, 16u}) {
          if (walks ? group / 2 >= plan.args.token_tiles : group != 8) continue;
          plan.args.token_group = group;
          add(label + " parts " + std::to_string(plan.splits) +
                  (walks ? " group " + std::to_string(group) : ""),
              plan, function, false);
        }
      }
    };
    for (int kind = 0; kind < type_.kinds(); ++kind) {
      try_shape(type_.shape(kind), kernel_of(type_, type_.kernel(kind)), type_.kernel(kind));
    }
    for (const Variant& v : variants_of(type_))
      try_shape(v.shape, v.function, std::string("variant ") + v.name);
  }
  const auto peer_chain = [&](bool narrow_y) {
    return std::make_unique<Chain>(stream_, calls, [&](int i) {
      if (!cublas.multiply(stream_, type_.type == DType::bf16, narrow_x_, peers_[i % peers_.size()], y_,
                           narrow_y, m, n_, k_)) {
        throw Failure{cudaErrorUnknown, "cublasGemmEx"};
      }
    });
  };
  const std::unique_ptr<Chain> peers[2] = {peer_chain(false), peer_chain(true)};  // y in f32, of 16 bits
  const int replays = m >= 2048 ? 7 : m >= 512 ? 21 : 9;
  const auto take_turns = [&](bool counts) {
    for (const auto& peer : peers) peer->replay(counts);
    for (Entry& e : entries) e.chain->replay(counts);
    if (all) peers[0]->replay(counts);
  };
  // Of many rows not before the power limit has set the clock.
  const auto begin = std::chrono::steady_clock::now();
  do take_turns(false);
  while (m >= 512 && std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(600));
  for (int i = 0; i < replays; ++i) take_turns(true);
  const double theirs[2] = {peers[0]->us(), peers[1]->us()};
  std::printf("%s n %5d k %5d m %4d: cuBLAS %7.2f us %4.0f TFLOP/s, y of 16 bits %7.2f us %4.0f TFLOP/s\n",
              type_.name().c_str(), n_, k_, m, theirs[0], 2e-6 * m * n_ * k_ / theirs[0], theirs[1],
              2e-6 * m * n_ * k_ / theirs[1]);
  for (Entry& e : entries) {
    const double us = e.chain->us();
    std::printf("  %-52s %7.2f us %4.0f TFLOP/s %4.0f GB/s  %.3f of cuBLAS's rate\n", e.name.c_str(), us,
                2e-6 * m * n_ * k_ / us, 2e-3 * n_ * k_ / us, theirs[e.narrow_y] / us);
  }
  std::fflush(stdout);
}

}  // namespace tile_check
