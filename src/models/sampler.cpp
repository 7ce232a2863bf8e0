#include <algorithm>

#include "base/error.h"
#include "mlxn/graph.h"
#include "mlxn/model.h"

namespace mlxn {

class SamplerImpl {
 public:
  Device device;
  std::int64_t vocab = 0;
  SamplerOptions options;
  Tensor id;      // u32 [1]
  Tensor recent;  // u32 [window], a ring; empty for a window of 0
  std::int64_t accepted = 0;
  std::int64_t step = 0;

  Graph draw;     // recorded for the logits tensor of the first draw
  Tensor logits;  // which it reads

  [[nodiscard]] Result<void> record(const Tensor& from);
};

Result<void> SamplerImpl::record(const Tensor& from) {
  MLXN_TRY(draw, Graph::record(device, [&](CommandEncoder& encoder) -> Result<void> {
             MLXN_TRY(const auto step_parameter, encoder.parameter("step", 0));
             RecentTokens window;
             if (recent.defined()) {
               window.ids = recent;
               MLXN_TRY(window.count, encoder.parameter("recent", 0));
             }
             return sample(encoder, from, id, options.sample, step_parameter, window);
           }));
  logits = from;
  return {};
}

Sampler::Sampler(std::unique_ptr<SamplerImpl> impl) noexcept : impl_(std::move(impl)) {}
Sampler::Sampler(Sampler&&) noexcept = default;
Sampler& Sampler::operator=(Sampler&&) noexcept = default;
Sampler::~Sampler() = default;

Result<Sampler> Sampler::create(const Device& device, std::int64_t vocab, const SamplerOptions& options) {
  return detail::guarded([&]() -> Result<Sampler> {
    if (!device.defined()) return make_error(ErrorCode::invalid_argument, "sampler: empty device handle");
    if (vocab < 1) return make_error(ErrorCode::bad_shape, "sampler: a vocabulary of {}", vocab);
    if (options.window < 0) {
      return make_error(ErrorCode::invalid_argument, "sampler: a window of {} tokens, wanted at least 0", options.window);
    }
    auto impl = std::make_unique<SamplerImpl>();
    impl->device = device;
    impl->vocab = vocab;
    impl->options = options;
    MLXN_TRY(impl->id, device.allocate(DType::u32, {1}));
    if (options.window > 0) {
      MLXN_TRY(impl->recent, device.allocate(DType::u32, {options.window}));
    }
    // A draw from zeros checks the options before any model has run.
    MLXN_TRY(const Tensor zeros, device.allocate(DType::f32, {1, vocab}));
    MLXN_CHECK(impl->record(zeros));
    return Sampler(std::move(impl));
  });
}

Result<void> Sampler::accept(TokenId token) {
  return detail::guarded([&]() -> Result<void> {
    if (!impl_) return make_error(ErrorCode::wrong_state, "sampler: it was moved from");
    if (token < 0 || token >= impl_->vocab) {
      return make_error(ErrorCode::out_of_range, "sampler: token {} outside the vocabulary of {}", token, impl_->vocab);
    }
    if (!impl_->recent.defined()) return {};
    MLXN_TRY(const auto ring, impl_->recent.write<std::uint32_t>());
    ring[static_cast<std::size_t>(impl_->accepted % impl_->options.window)] = static_cast<std::uint32_t>(token);
    ++impl_->accepted;
    return {};
  });
}

Result<TokenId> Sampler::next(const Tensor& logits) {
  return detail::guarded([&]() -> Result<TokenId> {
    if (!impl_) return make_error(ErrorCode::wrong_state, "sampler: it was moved from");
    if (!logits.defined() || !(logits.shape() == Shape{1, impl_->vocab})) {
      return make_error(ErrorCode::bad_shape, "sampler: logits must be f32 [1, {}]", impl_->vocab);
    }
    const bool same = logits.allocation() == impl_->logits.allocation() && logits.byte_offset() == impl_->logits.byte_offset();
    if (!same) MLXN_CHECK(impl_->record(logits));
    MLXN_CHECK(impl_->draw.set("step", impl_->step));
    if (impl_->recent.defined()) {
      MLXN_CHECK(impl_->draw.set("recent", std::min(impl_->accepted, impl_->options.window)));
    }
    MLXN_CHECK(impl_->draw.replay_and_wait());
    ++impl_->step;
    TokenId token = 0;
    {
      MLXN_TRY(const auto id, impl_->id.read<std::uint32_t>());
      token = static_cast<TokenId>(id[0]);
    }
    MLXN_CHECK(accept(token));
    return token;
  });
}

}  // namespace mlxn
