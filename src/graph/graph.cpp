#include "mlxn/graph.h"

#include "backends/command_list.h"
#include "backends/device_impl.h"
#include "backends/queue_impl.h"
#include "base/call_user.h"
#include "base/error.h"
#include "ops/check.h"

namespace mlxn {

struct Graph::Impl {
  Queue queue;
  std::shared_ptr<CommandList> list;
  std::shared_ptr<SubmissionImpl> last;  // the queue is in order, so all earlier replays are done when this one is

  [[nodiscard]] Result<Submission> submit(bool will_wait);
  [[nodiscard]] Result<void> check_idle(std::string_view what) const {
    if (last && !last->done()) return make_error(ErrorCode::wrong_state, "graph: {} while a replay is unfinished", what);
    return {};
  }
};

Result<Graph> Graph::record(const Device& device, const std::function<Result<void>(CommandEncoder&)>& body,
                            const EncoderOptions& options) {
  return detail::guarded([&]() -> Result<Graph> {
    if (!body) return make_error(ErrorCode::invalid_argument, "graph: no function to record");
    MLXN_TRY(CommandEncoder encoder, device.encoder(options));
    const CommandList* const list = encoder.list_.get();
    encoder.list_->recording_graph = true;
    MLXN_CHECK(call_user("graph: the recording function", [&] { return body(encoder); }));
    if (encoder.list_.get() != list) return make_error(ErrorCode::wrong_state, "graph: the recording function gave its encoder away");
    auto impl = std::make_shared<Impl>();
    impl->queue = encoder.queue_;
    impl->list = std::move(encoder.list_);
    return Graph(std::move(impl));
  });
}

Result<void> Graph::set(std::string_view name, std::int64_t value) {
  if (!impl_) return make_error(ErrorCode::wrong_state, "graph: nothing was recorded");
  const auto& parameters = impl_->list->parameters;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (parameters[i].name == name) return set(static_cast<int>(i), value);
  }
  return make_error(ErrorCode::not_found, "graph: there is no parameter '{}'", name);
}

Result<void> Graph::set(int parameter, std::int64_t value) {
  if (!impl_) return make_error(ErrorCode::wrong_state, "graph: nothing was recorded");
  auto& parameters = impl_->list->parameters;
  if (parameter < 0 || static_cast<std::size_t>(parameter) >= parameters.size()) {
    return make_error(ErrorCode::not_found, "graph: there is no parameter {}", parameter);
  }
  MLXN_CHECK(impl_->check_idle("a parameter was set"));
  MLXN_CHECK(impl_->list->patch(parameter, value));
  parameters[static_cast<std::size_t>(parameter)].value = value;
  return {};
}

Result<void> Graph::rebind(const Tensor& from, const Tensor& to) {
  return detail::guarded([&]() -> Result<void> {
    if (!impl_) return make_error(ErrorCode::wrong_state, "graph: nothing was recorded");
    MLXN_CHECK(impl_->check_idle("a buffer was re-bound"));
    for (const Tensor* tensor : {&from, &to}) {
      if (tensor->allocation()) continue;
      return make_error(ErrorCode::invalid_argument, "graph: `{}` is {}, wanted one that has memory", tensor == &from ? "from" : "to",
                        ops::describe(*tensor));
    }
    if (!(from.device() == to.device()) || to.allocation()->device() != impl_->list->device()) {
      return make_error(ErrorCode::wrong_device, "graph: the new buffer lives on another device");
    }
    if (from.dtype() != to.dtype() || !(from.shape() == to.shape()) || !(from.strides() == to.strides())) {
      return make_error(ErrorCode::bad_shape, "graph: the new buffer is {} with strides {}, wanted {} with strides {}", ops::describe(to),
                        ops::to_string(to.strides()), ops::describe(from), ops::to_string(from.strides()));
    }
    return impl_->list->rebind(from, to);
  });
}

Result<Submission> Graph::Impl::submit(bool will_wait) {
  MLXN_CHECK(list->device()->check_fork("replay"));
  if (last && last->done()) last.reset();  // an error that nobody read goes to the queue, which reports it now
  std::shared_ptr<CommandList> recorded = list;
  MLXN_TRY(last, queue.impl_->submit(std::move(recorded), will_wait));
  return Submission(last);
}

Result<Submission> Graph::replay() {
  return detail::guarded([&]() -> Result<Submission> {
    if (!impl_) return make_error(ErrorCode::wrong_state, "graph: nothing was recorded");
    return impl_->submit(false);
  });
}

Result<void> Graph::replay_and_wait() {
  return detail::guarded([&]() -> Result<void> {
    if (!impl_) return make_error(ErrorCode::wrong_state, "graph: nothing was recorded");
    MLXN_TRY(const Submission submission, impl_->submit(true));
    count_commit_and_wait();
    return submission.wait();
  });
}

std::size_t Graph::dispatches() const noexcept { return impl_ ? impl_->list->dispatches() : 0; }
std::size_t Graph::barriers() const noexcept { return impl_ ? impl_->list->barriers() : 0; }

}  // namespace mlxn
