#include "tile_check/bench.h"

#include "quant/gpu_weight.h"

namespace tile_check {

Bench::Bench(const Weights& type, int n, int k, int max_m) : type_(type), n_(n), k_(k), sms_(processors()) {
  CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  // 256 rows on the host, the others are copies of them: where they lie is what counts.
  const Matrix part = make_matrix(type.type, 256, k, 0, 11);
  for (int row = 0; row < n; ++row) exponents_.push_back(part.exponents[std::size_t(row) % 256]);
  // Together four times the L2.
  const std::size_t bytes = part.records.size() * (n / 256);
  const int matrices = std::max<int>(16, int((std::size_t(240) << 20) / bytes));
  for (int i = 0; i < matrices; ++i) {
    auto* records = device<std::uint8_t>(bytes);
    CHECK(cudaMemcpy(records, part.records.data(), part.records.size(), cudaMemcpyDefault));
    for (std::size_t done = 1; done < std::size_t(n / 256); ++done) {
      CHECK(cudaMemcpyAsync(records + done * part.records.size(), records, part.records.size(),
                            cudaMemcpyDefault, stream_));
    }
    records_.push_back(records);
  }
  x_ = device<float>(std::size_t(max_m) * k);
  y_ = device<float>(std::size_t(max_m) * n);
  norm_ = upload(std::vector<float>(k, 1.0f));
  fill_random_x(x_, nullptr, (long long)max_m * k, k, 0, quant::kElementF32, 5, stream_);
  narrow_x_ = device<std::uint16_t>(std::size_t(max_m) * k);
  fill_random_x(narrow_x_, nullptr, (long long)max_m * k, k, 0, narrow_type(), 5, stream_);
  CHECK(cudaStreamSynchronize(stream_));
}

Bench::~Bench() {
  if (!type_.dense()) {
    for (auto* p : peers_) cudaFree(p);
  }
  for (auto* p : records_) cudaFree(p);
  cudaFree(x_);
  cudaFree(y_);
  cudaFree(narrow_x_);
  cudaFree(norm_);
}

unsigned Bench::narrow_type() const {
  return type_.type == DType::bf16 ? quant::kElementBf16 : quant::kElementF16;
}

void Bench::make_peers() {
  if (!peers_.empty()) return;
  if (type_.dense()) {
    peers_ = records_;
    return;
  }
  const long long count = (long long)n_ * k_;
  // Together, and each beside the others, more than the L2.
  for (int i = 0; i < 4; ++i) {
    peers_.push_back(device<std::uint8_t>(std::size_t(count) * 2));
    fill_random_x(peers_.back(), nullptr, count, k_, 0, quant::kElementF16, 100 + i, stream_);
  }
}

std::unique_ptr<Product> Bench::product(const HopperTilePlan& plan, const void* function, const Way& way) {
  const void* x = x_;
  if (way.direct) x = narrow_x_;
  return std::make_unique<Product>(plan, function, exponents_, records_[0], x,
                                   way.direct ? narrow_type() : unsigned(quant::kElementF32), k_, y_,
                                   way.narrow_y ? narrow_type() : unsigned(quant::kElementF32), n_, way);
}

double Bench::time(const HopperTilePlan& plan, const void* function, bool stage, bool multiply, bool early,
                   const Way& way, int replays) {
  const std::unique_ptr<Product> p = product(plan, function, way);
  p->run_stage(stream_, false);
  CHECK(cudaStreamSynchronize(stream_));
  Chain chain(stream_, calls_for(int(plan.args.m)), [&](int i) {
    p->use(records_[i % records_.size()]);
    if (stage) p->run_stage(stream_, early);
    if (multiply) p->run(stream_, early);
  });
  if (replays == 0) replays = plan.args.m >= 512 ? 5 : 11;
  for (int i = -2; i < replays; ++i) chain.replay(i >= 0);
  return chain.us();
}

}  // namespace tile_check
