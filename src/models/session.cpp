#include <algorithm>
#include <atomic>

#include "base/error.h"
#include "mlxn/graph.h"
#include "mlxn/model.h"
#include "models/model_impl.h"

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

  Graph decode;  // one token; recorded at its first use
  models::Workspace decode_work;

  [[nodiscard]] Result<void> check(std::span<const TokenId> tokens) const;
  /// Writes ids and positions of the next tokens.
  [[nodiscard]] Result<void> place(const models::Workspace& rows, std::span<const TokenId> tokens) const;
  [[nodiscard]] Result<void> run_chunk(std::span<const TokenId> tokens, const Tensor& logits);
  [[nodiscard]] Result<void> run_decode(TokenId token);
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
  MLXN_TRY(const auto ids, rows.ids.write<std::uint32_t>());
  MLXN_TRY(const auto positions, rows.positions.write<std::int32_t>());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    ids[i] = static_cast<std::uint32_t>(tokens[i]);
    positions[i] = static_cast<std::int32_t>(length + static_cast<std::int64_t>(i));
  }
  return {};
}

Result<void> SessionImpl::run_chunk(std::span<const TokenId> tokens, const Tensor& logits) {
  const auto count = static_cast<std::int64_t>(tokens.size());
  models::Step step;
  MLXN_TRY(step.work, work.first(count));
  MLXN_CHECK(place(step.work, tokens));
  step.cache = &cache;
  step.position = length;
  step.kv_len = length + count;
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

Result<void> SessionImpl::run_decode(TokenId token) {
  if (!decode.defined()) {
    MLXN_TRY(decode_work, work.first(1));
    EncoderOptions options;
    options.label = "decode";
    MLXN_TRY(decode, Graph::record(
                         model.device(),
                         [&](CommandEncoder& encoder) -> Result<void> {
                           models::Step step;
                           step.work = decode_work;
                           step.cache = &cache;
                           MLXN_TRY(step.position, encoder.parameter("position", 0));
                           MLXN_TRY(step.kv_len, encoder.parameter("kv_len", 1));
                           step.logits = work.logits;
                           step.matmul = matmul;
                           return model.impl()->decoder->forward(encoder, step);
                         },
                         options));
  }
  MLXN_CHECK(place(decode_work, {&token, 1}));
  MLXN_CHECK(decode.set("position", length));
  MLXN_CHECK(decode.set("kv_len", length + 1));
  MLXN_CHECK(decode.replay_and_wait());
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
    if (options.kv_type != DType::f16 && options.kv_type != DType::f32) {
      return make_error(ErrorCode::bad_dtype, "session: a KV cache of {}, wanted f16 or f32", to_string(options.kv_type));
    }
    auto impl = std::make_unique<SessionImpl>();
    impl->model = model;
    impl->batch = std::min(options.batch, context);
    impl->matmul.numerics = options.numerics;
    if (options.numerics == Numerics::automatic && model.device().capabilities().backend == "cpu") {
      impl->matmul.numerics = Numerics::int8act;
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
      MLXN_CHECK(impl_->run_decode(tokens[0]));
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

Result<void> Session::append_with_logits(std::span<const TokenId> tokens, const Tensor& logits) {
  return detail::guarded([&]() -> Result<void> {
    if (!impl_) return moved_from();
    MLXN_CHECK(impl_->check(tokens));
    const auto count = static_cast<std::int64_t>(tokens.size());
    if (!logits.defined() || logits.dtype() != DType::f32 || !(logits.shape() == Shape{count, impl_->model.info().vocab})) {
      return make_error(ErrorCode::bad_shape, "session: logits must be f32 [{}, {}]", count, impl_->model.info().vocab);
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
