#pragma once

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backends/launch.h"
#include "mlxn/encoder.h"

namespace mlxn {

class DeviceImpl;
struct AtomicCounters;

/// The ranges that the current group of dispatches, those that may overlap, reads and writes.
class HazardTracker {
 public:
  /// Whether a dispatch with these ranges conflicts with the group: it reads what the group writes, or writes what the group
  /// touches. Ranges that merely touch do not conflict. With `scratch_only` the caller orders all memory but scratch.
  [[nodiscard]] bool conflicts(const LaunchRecord& record, bool scratch_only) const noexcept;
  void add(const LaunchRecord& record, bool scratch_only) noexcept;
  void start_group() noexcept { size_ = 0; }

 private:
  static constexpr std::size_t kMaxGroupRanges = 96;  // a longer group costs more to check than its join
  /// By address, since two imports may be of the same memory.
  struct Range {
    const std::byte* begin;
    const std::byte* end;
    bool write;
  };
  std::array<Range, kMaxGroupRanges + kMaxBindings> ranges_;
  std::size_t size_ = 0;
};

/// Room for `more` elements, so that adding them cannot fail.
template <class T>
void make_room(std::vector<T>& vector, std::size_t more) {
  if (vector.capacity() - vector.size() < more) vector.reserve(std::max(vector.capacity() * 2, vector.size() + more));
}

/// Recorded work of one encoder or graph. Backends derive from it and keep their own nodes.
class CommandList {
 public:
  CommandList(std::shared_ptr<DeviceImpl> device, const EncoderOptions& options);
  virtual ~CommandList();
  CommandList(const CommandList&) = delete;
  CommandList& operator=(const CommandList&) = delete;

  [[nodiscard]] const std::shared_ptr<DeviceImpl>& device() const noexcept { return device_; }
  [[nodiscard]] const std::string& label() const noexcept { return label_; }
  [[nodiscard]] virtual std::size_t dispatches() const noexcept = 0;
  [[nodiscard]] virtual std::size_t barriers() const noexcept = 0;

  /// Later dispatches wait for all earlier ones.
  void barrier() noexcept;
  [[nodiscard]] virtual Result<void> dispatch(const CommandEncoder::Dispatch& dispatch, const LaunchRecord& record) = 0;
  /// Takes a copy of the bytes.
  [[nodiscard]] virtual Result<void> upload(const Tensor& to, std::span<const std::byte> from) = 0;
  [[nodiscard]] virtual Result<void> copy(const Tensor& to, const Tensor& from) = 0;
  [[nodiscard]] virtual Result<void> fill(const Tensor& to, std::byte value) = 0;

  /// To memory of the caller, which stays until the work has run.
  [[nodiscard]] virtual Result<void> download(std::span<std::byte> to, const Tensor& from) = 0;

  /// Gives a graph parameter to every launch that uses it, or to none: out_of_range if one cannot take it.
  [[nodiscard]] Result<void> patch(int parameter, std::int64_t value);
  /// Puts `to` where `from` was bound. The joins stay right, since `to` may overlap nothing else.
  [[nodiscard]] Result<void> rebind(const Tensor& from, const Tensor& to);
  /// How often rebind() has changed launch structs.
  [[nodiscard]] std::uint64_t rebinds() const noexcept { return rebinds_; }

  struct Parameter {
    std::string name;
    std::int64_t value;
  };
  std::vector<Parameter> parameters;
  bool recording_graph = false;
  AtomicCounters* queue_counters = nullptr;  ///< of the encoder's queue

  /// Whether a dispatch binds the allocation.
  [[nodiscard]] bool binds(const Allocation& allocation) const noexcept;

 protected:
  /// Whether the record is within its bounds and its parameters are of this list.
  [[nodiscard]] Result<void> check_record(std::string_view name, std::size_t args_bytes, const LaunchRecord& record) const;
  /// Room for what keep() and track() keep of a dispatch, so that they cannot fail.
  void make_room_for(const LaunchRecord& record);
  /// Keeps the allocations alive and counts the dispatch. In a graph also remembers what may be re-bound: the pointers stand
  /// in `args`, those of a callable in `bindings`.
  void keep(const LaunchRecord& record, std::byte* args, std::span<std::byte>* bindings) noexcept;
  /// Whether the next dispatch has to wait for the group before it; then it starts a group of its own.
  [[nodiscard]] bool track(const LaunchRecord& record) noexcept;
  /// Writes parameter values of `patch` to `field`, at once and whenever they are set.
  void add_patch(const ScalarPatch& patch, std::string_view name, std::byte* field) noexcept;

  /// Scratch memory; `allocate` makes a block of at least so many bytes.
  [[nodiscard]] Result<Tensor> take_scratch(std::uint64_t bytes, std::uint64_t alignment,
                                            const std::function<Result<std::shared_ptr<Allocation>>(std::uint64_t)>& allocate);

  std::shared_ptr<DeviceImpl> device_;
  HazardTracker hazards_;
  HazardMode mode_;
  bool pending_barrier_ = false;

 private:
  /// Once per list, mostly: an allocation remembers the list that kept it last. (Lists recorded at the same time may take
  /// the mark from one another and keep an allocation twice.)
  void retain(const std::shared_ptr<Allocation>& allocation) noexcept;

  /// Keeps these allocations, and the scratch memory, instead of all that were kept so far.
  void retain_only(std::vector<std::shared_ptr<Allocation>> allocations);

  struct Patch {
    int parameter;
    std::uint16_t size;
    std::int64_t min, max;
    std::byte* field;
    std::string_view name;
  };
  struct Bound {
    std::shared_ptr<Allocation> allocation;
    std::uint64_t begin, end;
    std::byte* field;              // the address (or the map) in a launch struct, or
    std::span<std::byte>* binding;  // the bytes that a callable sees
    std::size_t index;             // of the dispatch
    bool is_map;
    [[nodiscard]] const std::byte* first() const noexcept { return allocation->data() + begin; }
    [[nodiscard]] const std::byte* last() const noexcept { return allocation->data() + end; }
  };

  const std::uint64_t id_;
  std::string label_;
  std::vector<std::shared_ptr<Allocation>> retained_;
  std::vector<Patch> patches_;
  std::vector<Bound> bound_;  // only of a graph, for rebind
  std::shared_ptr<Allocation> arena_;
  std::uint64_t arena_used_ = 0;
  bool arena_bound_ = false;
  std::uint64_t rebinds_ = 0;
};

}  // namespace mlxn
