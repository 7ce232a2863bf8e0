#include "mlxn/encoder.h"

#include <algorithm>

#include "backends/command_list.h"
#include "backends/queue_impl.h"
#include "base/error.h"
#include "mlxn/kernel.h"
#include "ops/check.h"

namespace mlxn {

CommandEncoder::CommandEncoder(Queue queue, std::shared_ptr<CommandList> list) noexcept
    : queue_(std::move(queue)), list_(std::move(list)) {}
CommandEncoder::CommandEncoder(CommandEncoder&&) noexcept = default;
CommandEncoder& CommandEncoder::operator=(CommandEncoder&&) noexcept = default;
CommandEncoder::~CommandEncoder() = default;

CommandEncoder::State CommandEncoder::state() const noexcept { return list_ ? State::open : State::committed; }
Device CommandEncoder::device() const noexcept { return list_ ? Device(list_->device()) : Device(); }

Result<void> CommandEncoder::barrier() {
  MLXN_CHECK(ops::check_encoder("barrier", *this));
  list_->barrier();
  return {};
}

namespace {
std::string direction(Access access) {
  switch (access) {
    case Access::in: return "in";
    case Access::out: return "out";
    case Access::in_out: return "in_out";
  }
  return fmt::format("{} (none)", static_cast<int>(access));
}
}  // namespace

Result<void> CommandEncoder::dispatch(const Dispatch& d) {
  return detail::guarded([&]() -> Result<void> {
    MLXN_CHECK(ops::check_encoder("dispatch", *this));
    if (!d.kernel) return make_error(ErrorCode::invalid_argument, "dispatch: no kernel");
    const KernelInfo& kernel = d.kernel->info();
    const std::shared_ptr<DeviceImpl>& device = list_->device();
    if (kernel.backend != device->capabilities().backend) {
      return make_error(ErrorCode::wrong_device, "{}: a kernel for {}, the device is {}", kernel.name, kernel.backend,
                        device->capabilities().backend);
    }
    if (d.bindings.size() != kernel.bindings.size()) {
      return make_error(ErrorCode::invalid_argument, "{}: {} bindings, wanted {}", kernel.name, d.bindings.size(),
                        kernel.bindings.size());
    }
    if (d.bindings.size() > kMaxBindings) {
      return make_error(ErrorCode::limit_exceeded, "{}: {} bindings, at most {}", kernel.name, d.bindings.size(), kMaxBindings);
    }
    if (d.constants.size() != kernel.constants_bytes) {
      return make_error(ErrorCode::invalid_argument, "{}: {} bytes of constants, wanted {}", kernel.name, d.constants.size(),
                        kernel.constants_bytes);
    }
    if (d.grid == 0) return make_error(ErrorCode::invalid_argument, "{}: the grid has no work items", kernel.name);
    LaunchRecord record;
    for (std::size_t i = 0; i < d.bindings.size(); ++i) {
      const Binding& binding = d.bindings[i];
      const KernelBindingInfo& wanted = kernel.bindings[i];
      const Tensor& tensor = binding.tensor;
      if (!tensor.defined()) return make_error(ErrorCode::invalid_argument, "{}: binding {} is an empty tensor", kernel.name, i);
      if (tensor.allocation() && tensor.allocation()->device() != device) {
        return make_error(ErrorCode::wrong_device, "{}: binding {} lives on another device than the encoder", kernel.name, i);
      }
      if (binding.access != wanted.access) {
        return make_error(ErrorCode::invalid_argument, "{}: binding {} has the direction {}, wanted {}", kernel.name, i,
                          direction(binding.access), direction(wanted.access));
      }
      if (tensor.bytes() < wanted.min_bytes) {
        return make_error(ErrorCode::bad_shape, "{}: binding {} has {} bytes, wanted at least {}", kernel.name, i, tensor.bytes(),
                          wanted.min_bytes);
      }
      if (wanted.alignment_bytes > 1 && reinterpret_cast<std::uintptr_t>(device_address(tensor)) % wanted.alignment_bytes != 0) {
        return make_error(ErrorCode::bad_shape, "{}: binding {} is not aligned to {} bytes", kernel.name, i,
                          wanted.alignment_bytes);
      }
      if (tensor.bytes() == 0) continue;
      record.ranges[static_cast<std::size_t>(record.range_count++)] = {&tensor.allocation(), tensor.byte_offset(),
                                                                       tensor.byte_offset() + tensor.bytes(), binding.access,
                                                                       static_cast<std::uint16_t>(i)};
    }
    return list_->dispatch(d, record);
  });
}

Result<void> CommandEncoder::upload(const Tensor& to, std::span<const std::byte> from) {
  return detail::guarded([&]() -> Result<void> {
    MLXN_CHECK(ops::check_encoder("upload", *this));
    MLXN_CHECK(ops::check_operand("upload", "to", *this, to, {to.dtype()}));
    MLXN_CHECK(ops::check_contiguous("upload", "to", to));
    if (from.size() != to.bytes()) {
      return make_error(ErrorCode::bad_shape, "upload: {} bytes given, the tensor has {}", from.size(), to.bytes());
    }
    if (from.empty()) return {};
    return list_->upload(to, from);
  });
}

Result<void> CommandEncoder::download(std::span<std::byte> to, const Tensor& from) {
  return detail::guarded([&]() -> Result<void> {
    MLXN_CHECK(ops::check_encoder("download", *this));
    MLXN_CHECK(ops::check_operand("download", "from", *this, from, {from.dtype()}));
    MLXN_CHECK(ops::check_contiguous("download", "from", from));
    if (to.size() != from.bytes()) {
      return make_error(ErrorCode::bad_shape, "download: room for {} bytes, the tensor has {}", to.size(), from.bytes());
    }
    if (to.empty()) return {};
    return list_->download(to, from);
  });
}

Result<void> CommandEncoder::copy(const Tensor& to, const Tensor& from) {
  return detail::guarded([&]() -> Result<void> {
    MLXN_CHECK(ops::check_encoder("copy", *this));
    MLXN_CHECK(ops::check_operand("copy", "from", *this, from, {from.dtype()}));
    MLXN_CHECK(ops::check_operand("copy", "to", *this, to, {from.dtype()}));
    const bool one_block = from.is_contiguous() && to.is_contiguous() && from.elems() == to.elems();
    if (!one_block && !(from.shape() == to.shape())) {
      return make_error(ErrorCode::bad_shape, "copy: {} to {}, wanted equal shapes or as many elements without gaps",
                        ops::to_string(from.shape()), ops::to_string(to.shape()));
    }
    MLXN_CHECK(ops::check_no_overlap("copy", "to", to, "from", from));
    if (from.elems() == 0) return {};
    return list_->copy(to, from);
  });
}

Result<void> CommandEncoder::fill(const Tensor& to, std::byte value) {
  return detail::guarded([&]() -> Result<void> {
    MLXN_CHECK(ops::check_encoder("fill", *this));
    MLXN_CHECK(ops::check_operand("fill", "to", *this, to, {to.dtype()}));
    MLXN_CHECK(ops::check_contiguous("fill", "to", to));
    if (to.elems() == 0) return {};
    return list_->fill(to, value);
  });
}

Result<Scalar<std::int64_t>> CommandEncoder::parameter(std::string_view name, std::int64_t initial) {
  return detail::guarded([&]() -> Result<Scalar<std::int64_t>> {
    MLXN_CHECK(ops::check_encoder("parameter", *this));
    if (!list_->recording_graph) {
      return make_error(ErrorCode::wrong_state, "parameter: '{}' outside Graph::record", name);
    }
    for (const CommandList::Parameter& p : list_->parameters) {
      if (p.name == name) return make_error(ErrorCode::invalid_argument, "parameter: '{}' is declared twice", name);
    }
    const auto id = static_cast<int>(list_->parameters.size());
    list_->parameters.push_back({std::string(name), initial});
    return Scalar<std::int64_t>(initial, id);
  });
}

Result<Submission> CommandEncoder::commit() {
  return detail::guarded([&]() -> Result<Submission> {
    MLXN_CHECK(ops::check_encoder("commit", *this));
    if (list_->recording_graph) return make_error(ErrorCode::wrong_state, "commit: a graph is being recorded");
    MLXN_TRY(auto submission, queue_.impl_->submit(std::move(list_), false));
    return Submission(std::move(submission));
  });
}

Result<void> CommandEncoder::commit_and_wait() {
  return detail::guarded([&]() -> Result<void> {
    MLXN_CHECK(ops::check_encoder("commit", *this));
    if (list_->recording_graph) return make_error(ErrorCode::wrong_state, "commit: a graph is being recorded");
    MLXN_TRY(auto submission, queue_.impl_->submit(std::move(list_), true));
    count_commit_and_wait();
    return Submission(std::move(submission)).wait();
  });
}

Submission::Status Submission::status() const noexcept {
  if (!impl_) return Status::completed;
  static_cast<void>(impl_->done());
  return impl_->status.load(std::memory_order_acquire);
}
bool Submission::poll() const noexcept { return !impl_ || impl_->done(); }

Result<void> Submission::wait() const {
  return detail::guarded([&]() -> Result<void> {
    if (!impl_) return make_error(ErrorCode::wrong_state, "wait: nothing was submitted");
    if (!impl_->finished()) MLXN_CHECK(impl_->device_->check_fork("wait"));
    MLXN_CHECK(impl_->queue_->wait(*impl_, std::nullopt));
    return impl_->result();
  });
}

Result<void> Submission::wait(std::chrono::nanoseconds timeout) const {
  return detail::guarded([&]() -> Result<void> {
    if (!impl_) return make_error(ErrorCode::wrong_state, "wait: nothing was submitted");
    if (!impl_->finished()) MLXN_CHECK(impl_->device_->check_fork("wait"));
    using Clock = std::chrono::steady_clock;
    const Clock::time_point now = Clock::now();
    const bool endless = timeout > Clock::time_point::max() - now;
    MLXN_CHECK(impl_->queue_->wait(*impl_, endless ? std::nullopt : std::optional(now + timeout)));
    if (!impl_->done()) return make_error(ErrorCode::timeout, "wait: unfinished after {} ns", timeout.count());
    return impl_->result();
  });
}

std::optional<Submission::Interval> Submission::interval() const noexcept {
  if (!impl_ || !impl_->done()) return std::nullopt;
  return Interval{impl_->begin, impl_->end};
}

std::string_view Submission::label() const noexcept {
  return impl_ ? std::string_view(impl_->label_) : std::string_view();
}

Counters Submission::counters() const noexcept {
  Counters c;
  if (!impl_ || !impl_->done()) return c;
  c.dispatches_encoded = impl_->dispatches_encoded;
  c.dispatches_executed = impl_->dispatches_executed;
  c.barriers = impl_->barriers;
  c.submissions = 1;
  return c;
}

Result<void> Submission::on_complete(std::function<void(const Result<void>&)> done) const {
  if (!impl_) return make_error(ErrorCode::wrong_state, "on_complete: nothing was submitted");
  if (!done) return make_error(ErrorCode::invalid_argument, "on_complete: no function");
  MLXN_CHECK(impl_->device_->check_fork("on_complete"));
  return impl_->queue_->add_callback(impl_, std::move(done));
}

}  // namespace mlxn
