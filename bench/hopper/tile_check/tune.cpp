// Every kernel with k in several numbers of parts: to look at, and as lines for bench/hopper/tile_rates.py.
#include <cstdio>
#include <ctime>

#include "tile_check/bench.h"

namespace tile_check {

void Bench::sweep(int m) {
  auto one = [&](const tile::Shape& shape, const void* function, const char* name, std::uint32_t splits) {
    const HopperTilePlan plan = type_.plan(shape, m, n_, k_, splits, sms_);
    if (plan.splits != splits && shape.form == tile::Form::parts) return;
    const std::uint32_t blocks = plan.grid[0] * plan.grid[1] * plan.grid[2];
    if (shape.form == tile::Form::parts && blocks > 4u * sms_ * shape.blocks_per_sm && splits > 1) return;
    const double early = time(plan, function, false, true, true);
    std::printf("sweep %s %-28s n %5d k %5d m %4d parts %2u blocks %4u stages %d %d: %7.2f us early\n",
                type_.name().c_str(), name, n_, k_, m, plan.splits, blocks, shape.x_stages, shape.w_stages,
                early);
    std::fflush(stdout);
  };
  auto all_parts = [&](const tile::Shape& shape, const void* function, const char* name) {
    if (!suits(shape, m)) return;
    for (std::uint32_t splits : {1u, 2u, 3u, 4u, 6u, 8u}) {
      if (splits > 1 && shape.form != tile::Form::parts) break;
      one(shape, function, name, splits);
    }
  };
  for (int kind = 0; kind < type_.kinds(); ++kind) {
    all_parts(type_.shape(kind), kernel_of(type_, type_.kernel(kind)), type_.kernel(kind));
  }
  for (const Variant& v : variants_of(type_)) all_parts(v.shape, v.function, v.name);
}

void Bench::tune(int m) {
  struct Entry {
    int kind;
    HopperTilePlan plan;
    std::unique_ptr<Product> product;
    std::unique_ptr<Chain> chain;
  };
  std::vector<Entry> entries;
  for (int kind = 0; kind < type_.kinds(); ++kind) {
    const tile::Shape shape = type_.shape(kind);
    if (shape.tokens > 2 * m && kind > 0) continue;
    if (shape.tokens < 128 && m > 2 * shape.tokens) continue;
    for (std::uint32_t splits = 1; splits <= 16; ++splits) {
      if (splits > 1 && shape.form != tile::Form::parts) break;
      const HopperTilePlan plan = type_.plan(shape, m, n_, k_, splits, sms_);
      if (plan.splits != splits && shape.form == tile::Form::parts) continue;
      const std::uint32_t blocks = plan.grid[0] * plan.grid[1] * plan.grid[2];
      if (splits > 1 && (plan.args.split_steps < 4 || blocks > 2u * sms_)) break;
      Entry e{kind, plan, product(plan, kernel_of(type_, type_.kernel(kind))), nullptr};
      Product& p = *e.product;
      p.run_stage(stream_, false);
      CHECK(cudaStreamSynchronize(stream_));
      e.chain = std::make_unique<Chain>(stream_, std::max(32, calls_for(m)), [&](int i) {
        p.use(records_[i % records_.size()]);
        p.run(stream_, true);
      });
      entries.push_back(std::move(e));
    }
  }
  // By turns: of many rows the clock depends on what ran before.
  const int replays = m >= 512 ? 3 : 5;
  for (int i = -2; i < replays; ++i) {
    for (Entry& e : entries) e.chain->replay(i >= 0);
  }
  for (Entry& e : entries) {
    const ops::HopperTileTerms t = ops::hopper_tile_terms(e.plan, sms_);
    std::printf(
        "{\"type\":\"%s\",\"kind\":%d,\"n\":%d,\"k\":%d,\"m\":%d,\"parts\":%u,\"us\":%.3f,\"steps\":%.0f,"
        "\"filled\":%.2f,\"beside\":%.0f,\"waves\":%.0f,\"splits\":%.0f,\"alone\":%.0f,\"bytes\":%.0f,\"busy\":%.2f}\n",
        type_.name().c_str(), e.kind, n_, k_, m, e.plan.splits, e.chain->us(), t.steps, t.filled, t.beside, t.waves, t.splits,
        t.alone, t.bytes, t.busy);
  }
  std::fflush(stdout);
}

void say_device() {
  cudaDeviceProp p{};
  CHECK(cudaGetDeviceProperties(&p, 0));
  int driver = 0;
  CHECK(cudaDriverGetVersion(&driver));
  const std::time_t now = std::time(nullptr);
  char date[16];
  std::strftime(date, sizeof date, "%Y-%m-%d", std::gmtime(&now));
  std::printf("{\"device\":\"%s\",\"multiprocessors\":%d,\"cuda\":\"%d.%d\",\"date\":\"%s\"}\n", p.name,
              p.multiProcessorCount, driver / 1000, driver % 1000 / 10, date);
}

}  // namespace tile_check
