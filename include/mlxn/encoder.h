#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "mlxn/device.h"

namespace mlxn {

class CommandList;
class SubmissionImpl;
class Kernel;

/// When dispatches of one encoder may overlap.
enum class HazardMode : std::uint8_t {
  automatic,  ///< a join exactly where a dispatch reads or writes what an earlier one of its group writes, or writes what it reads
  manual,     ///< joins where the caller calls barrier(), and between dispatches that share scratch memory of operations
  serial,     ///< a join after every dispatch
};

struct EncoderOptions {
  Queue queue;  ///< default: the device's default queue
  HazardMode hazards = HazardMode::automatic;
  /// Kernels that can (on Hopper GPUs) start before the one in front of them ends, and wait for its results themselves
  /// (programmatic dependent launch); never in serial mode. Without it each starts after the last: slower, the same results.
  bool early_starts = true;
  std::string_view label;  ///< shown in errors of the submission
};

/// A number given to an operation: a value now, or a parameter of the Graph being recorded, whose value each replay sets.
template <class T>
class Scalar {
 public:
  Scalar(T v) noexcept : value(v) {}  // NOLINT: a plain number is a Scalar
  Scalar(T initial, int parameter_id) noexcept : value(initial), parameter(parameter_id) {}
  T value;             ///< the value, or the one used for checks while recording
  int parameter = -1;  ///< id of a Graph parameter, -1 for a constant
};

/// Committed work. Copies share it; usable from any thread.
class Submission {
 public:
  enum class Status : std::uint8_t { pending, running, completed, failed };
  /// When it ran, on the steady clock.
  struct Interval {
    std::chrono::steady_clock::time_point begin, end;
  };

  Submission() = default;
  [[nodiscard]] bool defined() const noexcept { return impl_ != nullptr; }
  [[nodiscard]] Status status() const noexcept;
  /// Whether it has completed or failed.
  [[nodiscard]] bool poll() const noexcept;
  /// Blocks until it is done; its error, if it failed. On a CPU the waiting thread does its share of the work.
  [[nodiscard]] Result<void> wait() const;
  /// As wait(), but gives up with `timeout` after the given time.
  [[nodiscard]] Result<void> wait(std::chrono::nanoseconds timeout) const;
  /// When it ran; nothing while unfinished.
  [[nodiscard]] std::optional<Interval> interval() const noexcept;
  [[nodiscard]] std::string_view label() const noexcept;
  [[nodiscard]] Counters counters() const noexcept;
  /// Calls `done` on a thread of the library once the work has completed or failed (soon, if it already has).
  [[nodiscard]] Result<void> on_complete(std::function<void(const Result<void>&)> done) const;

 private:
  friend class CommandEncoder;
  friend class Graph;
  explicit Submission(std::shared_ptr<SubmissionImpl> impl) noexcept : impl_(std::move(impl)) {}
  std::shared_ptr<SubmissionImpl> impl_;
};

/// How a dispatch touches one of its buffers.
enum class Access : std::uint8_t { in = 1, out = 2, in_out = 3 };

/// Records operations and commits them as one submission. Owned by one thread at a time; movable. Everything recorded stays
/// alive until the submission has completed. Destroying an encoder that was not committed abandons its work. An operation
/// that fails has recorded nothing.
class CommandEncoder {
 public:
  enum class State : std::uint8_t { open, committed };
  CommandEncoder() = default;
  CommandEncoder(CommandEncoder&&) noexcept;
  CommandEncoder& operator=(CommandEncoder&&) noexcept;
  ~CommandEncoder();

  [[nodiscard]] State state() const noexcept;
  [[nodiscard]] Device device() const noexcept;
  /// Later dispatches wait for all earlier ones.
  [[nodiscard]] Result<void> barrier();

  /// One dispatch of a kernel from the registry: tensors in the order and direction of its metadata, then its inline bytes.
  struct Binding {
    Tensor tensor;
    Access access = Access::in;
  };
  struct Dispatch {
    std::shared_ptr<const Kernel> kernel;
    std::span<const Binding> bindings;
    std::span<const std::byte> constants;  ///< at most 4096 bytes
    std::uint64_t grid = 1;                ///< work items, > 0; the callable splits them over threads
    std::string_view label;                ///< default: the kernel's name
  };
  /// Errors: wrong_state, invalid_argument (binding count, direction, constants, grid), bad_shape (a binding below the
  /// kernel's minimum bytes or alignment), wrong_device, out_of_memory. When the callable fails in a submission, dispatches
  /// that wait for it do not run, and the submission's error names the first that failed.
  [[nodiscard]] Result<void> dispatch(const Dispatch& dispatch);

  /// Enqueued forms of upload, download, copy and fill. upload copies the bytes at once and writes them in order with the
  /// work; download writes to host memory that has to stay until the submission has completed.
  [[nodiscard]] Result<void> upload(const Tensor& to, std::span<const std::byte> from);
  [[nodiscard]] Result<void> download(std::span<std::byte> to, const Tensor& from);
  /// Equal dtype, no overlap; both contiguous with equal elements, or of equal shape in evenly spaced rows without gaps.
  [[nodiscard]] Result<void> copy(const Tensor& to, const Tensor& from);
  /// Every byte of a contiguous tensor.
  [[nodiscard]] Result<void> fill(const Tensor& to, std::byte value);

  /// Declares a named parameter of the graph being recorded. Errors: wrong_state if no graph is, invalid_argument if the
  /// name is taken.
  [[nodiscard]] Result<Scalar<std::int64_t>> parameter(std::string_view name, std::int64_t initial);

  /// Hands the work to the queue. Errors: wrong_state, busy (by option), out_of_memory, or the queue's sticky error; the
  /// encoder then stays open with its work, and the call may be repeated.
  [[nodiscard]] Result<Submission> commit();
  /// commit() and Submission::wait().
  [[nodiscard]] Result<void> commit_and_wait();

  /// The record behind the encoder; operations use it.
  [[nodiscard]] CommandList* list() const noexcept { return list_.get(); }

 private:
  friend class Device;
  friend class Graph;
  CommandEncoder(Queue queue, std::shared_ptr<CommandList> list) noexcept;
  Queue queue_;
  std::shared_ptr<CommandList> list_;
};

}  // namespace mlxn
