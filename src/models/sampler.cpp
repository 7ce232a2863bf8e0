#include "models/sampler_impl.h"

#include <algorithm>
#include <atomic>

#include "base/error.h"
#include "mlxn/ops/set_element.h"
#include "models/host_copy.h"
#include "ops/check.h"

namespace mlxn {

Result<SamplerImpl::Parameters> SamplerImpl::record(CommandEncoder& encoder, const Tensor& from) const {
  Parameters p;
  MLXN_TRY(p.step, encoder.parameter("draw", 0));
  RecentTokens window;
  if (recent.defined()) {
    MLXN_TRY(p.recent, encoder.parameter("recent tokens", 0));
    MLXN_TRY(p.slot, encoder.parameter("slot of the last token", 0));
    MLXN_TRY(p.last, encoder.parameter("last token", 0));
    MLXN_CHECK(set_element(encoder, recent, p.slot, p.last));
    window.ids = recent;
    window.count = p.recent;
  }
  MLXN_CHECK(sample(encoder, from, id, options.sample, p.step, window));
  return p;
}

Result<void> SamplerImpl::prepare(Graph& graph, const Parameters& parameters) {
  MLXN_CHECK(graph.set(parameters.step.parameter, step));
  if (!recent.defined()) return {};
  if (accepted > on_device + 1) {
    MLXN_CHECK(models::to_device<std::uint32_t>(recent, recent_on_host));
    on_device = accepted;
  }
  const std::int64_t slot = accepted == 0 ? 0 : (accepted - 1) % options.window;
  MLXN_CHECK(graph.set(parameters.recent.parameter, std::min(accepted, options.window)));
  MLXN_CHECK(graph.set(parameters.slot.parameter, slot));
  MLXN_CHECK(graph.set(parameters.last.parameter, recent_on_host[static_cast<std::size_t>(slot)]));
  return {};
}

Result<TokenId> SamplerImpl::take() {
  on_device = accepted;  // the replay has brought the last one
  TokenId token = 0;
  {
    MLXN_TRY(const auto drawn, id.read<std::uint32_t>());
    token = static_cast<TokenId>(drawn[0]);
  }
  MLXN_CHECK(accept(token));
  ++step;
  return token;
}

Result<void> SamplerImpl::accept(TokenId token) {
  if (token < 0 || token >= vocab) {
    return make_error(ErrorCode::out_of_range, "sampler: token {} outside the vocabulary of {}", token, vocab);
  }
  if (!recent.defined()) return {};
  recent_on_host[static_cast<std::size_t>(accepted % options.window)] = static_cast<std::uint32_t>(token);
  ++accepted;
  return {};
}

namespace {
std::uint64_t next_number() noexcept {
  static std::atomic<std::uint64_t> count{0};
  return count.fetch_add(1, std::memory_order_relaxed) + 1;
}
Result<void> record_draw(SamplerImpl& sampler, const Tensor& from) {
  MLXN_TRY(sampler.draw, Graph::record(sampler.device, [&](CommandEncoder& encoder) -> Result<void> {
             MLXN_TRY(sampler.draw_parameters, sampler.record(encoder, from));
             return {};
           }));
  sampler.logits = from;
  return {};
}
}  // namespace

Sampler::Sampler(std::unique_ptr<SamplerImpl> impl) noexcept : impl_(std::move(impl)) {}
Sampler::Sampler(Sampler&&) noexcept = default;
Sampler& Sampler::operator=(Sampler&&) noexcept = default;
Sampler::~Sampler() = default;

Result<Sampler> Sampler::create(const Device& device, std::int64_t vocab, const SamplerOptions& options) {
  return detail::guarded([&]() -> Result<Sampler> {
    if (!device.defined()) return make_error(ErrorCode::invalid_argument, "sampler: empty device handle");
    if (vocab < 1) return make_error(ErrorCode::bad_shape, "sampler: a vocabulary of {}, wanted at least 1", vocab);
    if (options.window < 0) {
      return make_error(ErrorCode::invalid_argument, "sampler: a window of {} tokens, wanted at least 0", options.window);
    }
    auto impl = std::make_unique<SamplerImpl>();
    impl->device = device;
    impl->vocab = vocab;
    impl->options = options;
    impl->number = next_number();
    MLXN_TRY(impl->id, device.allocate(DType::u32, {1}, {.kind = MemoryKind::pinned}));
    if (options.window > 0) {
      MLXN_TRY(impl->recent, device.allocate(DType::u32, {options.window}));
      impl->recent_on_host.resize(static_cast<std::size_t>(options.window));
    }
    // A draw from zeros checks the options before any model has run.
    MLXN_TRY(const Tensor zeros, device.allocate(DType::f32, {1, vocab}));
    MLXN_CHECK(record_draw(*impl, zeros));
    return Sampler(std::move(impl));
  });
}

Result<void> Sampler::accept(TokenId token) {
  return detail::guarded([&]() -> Result<void> {
    if (!impl_) return make_error(ErrorCode::wrong_state, "sampler: it was moved from");
    return impl_->accept(token);
  });
}

Result<TokenId> Sampler::next(const Tensor& logits) {
  return detail::guarded([&]() -> Result<TokenId> {
    if (!impl_) return make_error(ErrorCode::wrong_state, "sampler: it was moved from");
    if (!logits.defined() || !(logits.shape() == Shape{1, impl_->vocab})) {
      return make_error(ErrorCode::bad_shape, "sampler: logits is {}, wanted f32 [1, {}]", ops::describe(logits), impl_->vocab);
    }
    const bool same = logits.allocation() == impl_->logits.allocation() && logits.byte_offset() == impl_->logits.byte_offset();
    if (!same) MLXN_CHECK(record_draw(*impl_, logits));
    MLXN_CHECK(impl_->prepare(impl_->draw, impl_->draw_parameters));
    MLXN_CHECK(impl_->draw.replay_and_wait());
    return impl_->take();
  });
}

}  // namespace mlxn
