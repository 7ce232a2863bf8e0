#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

#include "mlxn/encoder.h"

namespace mlxn {

/// Work recorded once and replayed many times. What it binds stays alive as long as the graph; its scratch memory is fixed.
/// Parameters declared while recording (CommandEncoder::parameter) and buffers may be re-bound between replays.
/// Owned by one thread at a time.
class Graph {
 public:
  /// Records what `body` puts into the encoder. Nothing runs. Errors: those of `body`; invalid_argument (it threw: the text has
  /// the exception's), wrong_state (it gave its encoder away), out_of_memory.
  [[nodiscard]] static Result<Graph> record(const Device& device,
                                            const std::function<Result<void>(CommandEncoder&)>& body,
                                            const EncoderOptions& options = {});
  Graph() = default;

  /// Sets a parameter for the replays that follow. Errors: not_found, out_of_range (a kernel does not take the value),
  /// wrong_state (a replay is unfinished).
  [[nodiscard]] Result<void> set(std::string_view name, std::int64_t value);
  /// By the id of the Scalar that parameter() returned.
  [[nodiscard]] Result<void> set(int parameter, std::int64_t value);
  /// Puts `to` wherever `from` was bound: same dtype, shape, strides and device, no less aligned. A graph that would change
  /// its meaning (the new buffer overlaps another one bound) is refused with `aliased`, one that does not bind `from` with
  /// `not_found`. The graph keeps `to` alive, and `from` no longer.
  [[nodiscard]] Result<void> rebind(const Tensor& from, const Tensor& to);

  /// Submits the recorded work once more.
  [[nodiscard]] Result<Submission> replay();
  [[nodiscard]] Result<void> replay_and_wait();

  [[nodiscard]] bool defined() const noexcept { return impl_ != nullptr; }
  [[nodiscard]] std::size_t dispatches() const noexcept;
  [[nodiscard]] std::size_t barriers() const noexcept;

 private:
  struct Impl;
  explicit Graph(std::shared_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

}  // namespace mlxn
