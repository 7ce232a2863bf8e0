#include <algorithm>
#include <atomic>
#include <map>

#include "base/check_value.h"
#include "mlxn/graph.h"
#include "mlxn/model.h"
#include "mlxn/ops/set_element.h"
#include "models/host_copy.h"
#include "models/model_impl.h"
#include "models/sampler_impl.h"
#include "ops/check.h"
#include "ops/matmul/gpu.h"

namespace mlxn {

class SessionImpl {
 public:
  Model model;
  models::KvCache cache;
  models::Workspace work;  // of `batch` rows
  MatmulOptions matmul;
  std::int64_t batch = 0;
  std::int64_t length = 0;
  std::atomic<bool> cancelled{false};

  /// One token, for contexts up to `bound`; recorded at its first use.
  struct Decode {
    Graph graph;
    Scalar<std::int64_t> token = 0, position = 0, kv_len = 0;
    SamplerImpl::Parameters draw;
  };
  using DecodeKey = std::pair<std::int64_t, std::uint64_t>;  // its bound, and the sampler's number or 0
  std::map<DecodeKey, Decode> decodes;
  models::Workspace decode_work;

  [[nodiscard]] Result<void> check(std::span<const TokenId> tokens) const;
  /// Writes ids and positions of the next tokens.
  [[nodiscard]] Result<void> place(const models::Workspace& rows, std::span<const TokenId> tokens) const;
  [[nodiscard]] Result<void> run_chunk(std::span<const TokenId> tokens, const Tensor& logits);
  [[nodiscard]] Result<Decode*> decode_graph(const SamplerImpl* sampler);
  /// With a sampler also draws the token that follows.
  [[nodiscard]] Result<void> run_decode(TokenId token, SamplerImpl* sampler);
};

Result<void> SessionImpl::check(std::span<const TokenId> tokens) const {
  if (tokens.empty()) return make_error(ErrorCode::invalid_argument, "session: no tokens");
  const auto count = static_cast<std::int64_t>(tokens.size());
  if (count > cache.capacity - length) {
    return make_error(ErrorCode::out_of_range, "session: {} tokens after {} positions, the context has {}", count, length,
                      cache.capacity);
  }
  for (const TokenId token : tokens) {
    if (token < 0 || token >= model.info().vocab) {
      return make_error(ErrorCode::out_of_range, "session: token {} outside the vocabulary of {}", token, model.info().vocab);
    }
  }
  return {};
}

Result<void> SessionImpl::place(const models::Workspace& rows, std::span<const TokenId> tokens) const {
  std::vector<std::uint32_t> ids(tokens.size());
  std::vector<std::int32_t> positions(tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    ids[i] = static_cast<std::uint32_t>(tokens[i]);
    positions[i] = static_cast<std::int32_t>(length + static_cast<std::int64_t>(i));
  }
  MLXN_CHECK(models::to_device<std::uint32_t>(rows.ids, ids));
  return models::to_device<std::int32_t>(rows.positions, positions);
}

Result<void> SessionImpl::run_chunk(std::span<const TokenId> tokens, const Tensor& logits) {
  const auto count = static_cast<std::int64_t>(tokens.size());
  models::Step step;
  MLXN_TRY(step.work, work.first(count));
  MLXN_CHECK(place(step.work, tokens));
  step.cache = &cache;
  step.position = length;
  step.kv_len = length + count;
  step.kv_bound = length + count;
  step.logits = logits;
  step.matmul = matmul;
  EncoderOptions options;
  options.label = "prefill";
  MLXN_TRY(CommandEncoder encoder, model.device().encoder(options));
  MLXN_CHECK(model.impl()->decoder->forward(encoder, step));
  MLXN_CHECK(encoder.commit_and_wait());
  length += count;
  return {};
}

Result<SessionImpl::Decode*> SessionImpl::decode_graph(const SamplerImpl* sampler) {
  // One graph per power of two, so that short contexts do not pay for the whole cache.
  constexpr std::int64_t kLeastBound = 256;
  std::int64_t bound = kLeastBound;
  while (bound <= length) bound *= 2;
  const DecodeKey key(std::min(bound, cache.capacity), sampler == nullptr ? 0 : sampler->number);
  if (const auto known = decodes.find(key); known != decodes.end()) return &known->second;
  // Graphs of other samplers are of no more use.
  std::erase_if(decodes, [&](const auto& entry) { return entry.first.second != 0 && entry.first.second != key.second; });
  if (!decode_work.x.defined()) {
    MLXN_TRY(decode_work, work.first(1));
  }
  Decode decode;
  EncoderOptions options;
  options.label = "decode";
  MLXN_TRY(decode.graph, Graph::record(
                             model.device(),
                             [&](CommandEncoder& encoder) -> Result<void> {
                               MLXN_TRY(decode.token, encoder.parameter("token", 0));
                               MLXN_TRY(decode.position, encoder.parameter("position", 0));
                               MLXN_TRY(decode.kv_len, encoder.parameter("kv_len", 1));
                               MLXN_CHECK(set_element(encoder, decode_work.ids, 0, decode.token));
                               MLXN_CHECK(set_element(encoder, decode_work.positions, 0, decode.position));
                               models::Step step;
                               step.work = decode_work;
                               step.cache = &cache;
                               step.position = decode.position;
                               step.kv_len = decode.kv_len;
                               step.kv_bound = key.first;
                               step.logits = work.logits;
                               step.matmul = matmul;
                               MLXN_CHECK(model.impl()->decoder->forward(encoder, step));
                               if (sampler == nullptr) return {};
                               MLXN_TRY(decode.draw, sampler->record(encoder, work.logits));
                               return {};
                             },
                             options));
  return &(decodes[key] = std::move(decode));
}

Result<void> SessionImpl::run_decode(TokenId token, SamplerImpl* sampler) {
  MLXN_TRY(Decode * decode, decode_graph(sampler));
  MLXN_CHECK(decode->graph.set(decode->token.parameter, token));
  MLXN_CHECK(decode->graph.set(decode->position.parameter, length));
  MLXN_CHECK(decode->graph.set(decode->kv_len.parameter, length + 1));
  if (sampler != nullptr) MLXN_CHECK(sampler->prepare(decode->graph, decode->draw));
  MLXN_CHECK(decode->graph.replay_and_wait());
  ++length;
  return {};
}

namespace {
Error moved_from() { return make_error(ErrorCode::wrong_state, "session: it was moved from"); }
}  // namespace

Session::Session(std::unique_ptr<SessionImpl> impl) noexcept : impl_(std::move(impl)) {}
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;
Session::~Session() = default;

Result<Session> Session::create(const Model& model, const SessionOptions& options) {
  return detail::guarded([&]() -> Result<Session> {
    if (!model.defined()) return make_error(ErrorCode::invalid_argument, "session: empty model handle");
    const ModelInfo& info = model.info();
    const std::int64_t context = options.context == 0 ? info.context : options.context;
    if (context < 1 || context > (std::int64_t{1} << 31) - 1) {
      return make_error(ErrorCode::invalid_argument, "session: a context of {} positions, wanted 1 to {} (0 for the model's {})",
                        options.context, (std::int64_t{1} << 31) - 1, info.context);
    }
    if (options.batch < 1) return make_error(ErrorCode::invalid_argument, "session: a batch of {}, wanted at least 1", options.batch);
    MLXN_CHECK(check_dtype("session", options.kv_type));
    if (options.kv_type != DType::f16 && options.kv_type != DType::f32) {
      return make_error(ErrorCode::bad_dtype, "session: a KV cache of {}, wanted f16 or f32", to_string(options.kv_type));
    }
    MLXN_CHECK(check_enum("session", "numerics", options.numerics, Numerics::int8act));
    auto impl = std::make_unique<SessionImpl>();
    impl->model = model;
    impl->batch = std::min(options.batch, context);
    impl->matmul.numerics = options.numerics;
    if (options.numerics == Numerics::automatic && model.device().capabilities().backend == "cpu") {
      impl->matmul.numerics = Numerics::int8act;
    }
    // What the first product would say, before there is memory for anything.
    for (const DType type : model.impl()->types) {
      MLXN_CHECK(ops::choose_matmul("session", model.device(), {1, 1, block_elems(type), type}, impl->matmul));
    }
    MLXN_TRY(impl->cache, models::KvCache::create(model.device(), options.kv_type, info.layers, info.kv_heads, context,
                                                  info.head_dim, info.head_dim));
    MLXN_TRY(impl->work, models::Workspace::create(model.device(), info, impl->batch));
    return Session(std::move(impl));
  });
}

Result<Tensor> Session::append(std::span<const TokenId> tokens) {
  return detail::guarded([&]() -> Result<Tensor> {
    if (!impl_) return moved_from();
    MLXN_CHECK(impl_->check(tokens));
    if (tokens.size() == 1) {
      MLXN_CHECK(impl_->run_decode(tokens[0], nullptr));
      return impl_->work.logits;
    }
    for (std::size_t at = 0; at < tokens.size();) {
      const std::size_t count = std::min(tokens.size() - at, static_cast<std::size_t>(impl_->batch));
      MLXN_CHECK(impl_->run_chunk(tokens.subspan(at, count), impl_->work.logits));
      at += count;
      // Taken back here and not at the start, so that a request that comes just before append() is not lost.
      if (impl_->cancelled.exchange(false, std::memory_order_relaxed) && at < tokens.size()) {
        return make_error(ErrorCode::cancelled, "session: stopped after {} of {} tokens", at, tokens.size());
      }
    }
    return impl_->work.logits;
  });
}

Result<TokenId> Session::next(TokenId token, Sampler& sampler) {
  return detail::guarded([&]() -> Result<TokenId> {
    if (!impl_) return moved_from();
    if (!sampler.impl_) return make_error(ErrorCode::wrong_state, "session: the sampler was moved from");
    if (!(sampler.impl_->device == impl_->model.device())) {
      return make_error(ErrorCode::wrong_device, "session: the sampler lives on another device than the model");
    }
    if (sampler.impl_->vocab != impl_->model.info().vocab) {
      return make_error(ErrorCode::bad_shape, "session: the sampler's vocabulary is {}, the model's {}", sampler.impl_->vocab,
                        impl_->model.info().vocab);
    }
    MLXN_CHECK(impl_->check({&token, 1}));
    MLXN_CHECK(impl_->run_decode(token, sampler.impl_.get()));
    return sampler.impl_->take();
  });
}

Result<void> Session::append_with_logits(std::span<const TokenId> tokens, const Tensor& logits) {
  return detail::guarded([&]() -> Result<void> {
    if (!impl_) return moved_from();
    MLXN_CHECK(impl_->check(tokens));
    const auto count = static_cast<std::int64_t>(tokens.size());
    if (!logits.defined() || logits.dtype() != DType::f32 || !(logits.shape() == Shape{count, impl_->model.info().vocab})) {
      return make_error(ErrorCode::bad_shape, "session: logits is {}, wanted f32 [{}, {}]", ops::describe(logits), count,
                        impl_->model.info().vocab);
    }
    for (std::int64_t at = 0; at < count;) {
      const std::int64_t rows = std::min(count - at, impl_->batch);
      MLXN_TRY(const Tensor part, logits.slice(0, at, at + rows));
      MLXN_CHECK(impl_->run_chunk(tokens.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(rows)), part));
      at += rows;
    }
    return {};
  });
}

Result<void> Session::truncate(std::int64_t length) {
  if (!impl_) return moved_from();
  if (length < 0 || length > impl_->length) {
    return make_error(ErrorCode::out_of_range, "session: truncating {} positions to {}", impl_->length, length);
  }
  impl_->length = length;
  return {};
}

std::int64_t Session::length() const noexcept { return impl_ ? impl_->length : 0; }
std::int64_t Session::context() const noexcept { return impl_ ? impl_->cache.capacity : 0; }
std::uint64_t Session::kv_bytes() const noexcept { return impl_ ? impl_->cache.bytes : 0; }
Numerics Session::numerics() const noexcept { return impl_ ? impl_->matmul.numerics : Numerics::automatic; }
void Session::cancel() noexcept {
  if (impl_) impl_->cancelled.store(true, std::memory_order_relaxed);
}

}  // namespace mlxn
