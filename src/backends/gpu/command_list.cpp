#include "backends/gpu/command_list.h"

#include <cstring>

#include "backends/copy_rows.h"
#include "backends/device_impl.h"
#include "base/error.h"

namespace mlxn::gpu {
namespace {
constexpr std::uint64_t kScratchAlignment = 256;
constexpr std::uint64_t kCounterBytes = std::uint64_t{16} << 10;  // what a list takes at first
constexpr std::uint32_t kMaxGridX = 0x7fffffffu;
}  // namespace

Result<void> GpuCommandList::add(std::string_view name, Node node, const void* args, const LaunchRecord& record) {
  MLXN_CHECK(check_record(name, node.args_bytes, record));
  return mlxn::detail::guarded([&]() -> Result<void> {
    bool has_index = false;
    for (int i = 0; i < record.patch_count; ++i) {
      const ScalarPatch& patch = record.patches[static_cast<std::size_t>(i)];
      if (!patch.is_index) return make_error(ErrorCode::internal, "{}: a graph parameter in a plain field", name);
      if (static_cast<std::size_t>(patch.parameter) >= kMaxParameters) {
        return make_error(ErrorCode::limit_exceeded, "{}: parameter {} of a graph, a GPU takes {}", name, patch.parameter + 1,
                          kMaxParameters);
      }
      has_index = true;
    }
    // All that can fail comes first: a dispatch is recorded as a whole or not at all.
    if (has_index && !parameter_block_) {
      MLXN_TRY(parameter_block_, device_->allocate(sizeof(parameter_values_), {}));
    }
    make_room_for(record);
    make_room(nodes_, 1);
    make_room(touches_, static_cast<std::size_t>(record.range_count));
    const std::size_t bytes = (node.args_bytes + std::size_t{15}) / 16 * 16;
    if (kArgsBlock - args_used_ < bytes) {
      args_.push_back(std::make_unique<ArgsBlock>());
      args_used_ = 0;
    }
    node.args = args_.back()->data + args_used_;
    args_used_ += bytes;
    std::memcpy(node.args, args, node.args_bytes);
    node.first_touch = static_cast<std::uint32_t>(touches_.size());
    node.touches = static_cast<std::uint32_t>(record.range_count);
    for (int i = 0; i < record.range_count; ++i) {
      const BoundRange& range = record.ranges[static_cast<std::size_t>(i)];
      touches_.push_back({range.field, range.access, range.end - range.begin});
    }
    keep(record, node.args, nullptr);
    for (int i = 0; i < record.patch_count; ++i) {
      const ScalarPatch& patch = record.patches[static_cast<std::size_t>(i)];
      std::int64_t& value = parameter_values_[static_cast<std::size_t>(patch.parameter)];
      value = parameters[static_cast<std::size_t>(patch.parameter)].value;
      add_patch(patch, name, reinterpret_cast<std::byte*>(&value));
      const std::byte* const at = parameter_block_->data() + static_cast<std::size_t>(patch.parameter) * sizeof(value);
      std::memcpy(node.args + patch.field + offsetof(Index, at), &at, sizeof(at));
    }
    nodes_.push_back(node);
    return {};
  });
}

Result<void> GpuCommandList::encode(const KernelInfo& kernel, Grid grid, const void* args, const LaunchRecord& record) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > kMaxGridX || grid.y > kMaxGridYZ || grid.z > kMaxGridYZ) {
    return make_error(ErrorCode::internal, "{}: a grid of {} x {} x {} groups, wanted 1 to {} x {} x {}", kernel.name, grid.x,
                      grid.y, grid.z, kMaxGridX, kMaxGridYZ, kMaxGridYZ);
  }
  const Grid& cluster = kernel.cluster;
  if (grid.x % cluster.x != 0 || grid.y % cluster.y != 0 || grid.z % cluster.z != 0) {
    return make_error(ErrorCode::internal, "{}: a grid of {} x {} x {} groups in clusters of {} x {} x {}", kernel.name, grid.x, grid.y,
                      grid.z, cluster.x, cluster.y, cluster.z);
  }
  const std::uint64_t shared = std::uint64_t{kernel.shared_bytes} + kernel.dynamic_shared_bytes;
  if (shared > device_->capabilities().group_memory_bytes) {
    return make_error(ErrorCode::limit_exceeded, "{}: {} bytes of shared memory, the device has {}", kernel.name, shared,
                      device_->capabilities().group_memory_bytes);
  }
  return add(kernel.name, {Kind::kernel, &kernel, grid, nullptr, kernel.args_bytes, 0, 0}, args, record);
}

Result<Tensor> GpuCommandList::scratch(std::uint64_t bytes) {
  return take_scratch(bytes, kScratchAlignment, [this](std::uint64_t wanted) { return allocate_scratch(wanted); });
}

Result<Tensor> GpuCommandList::counters(std::uint64_t count) {
  const std::uint64_t bytes = count * sizeof(std::uint32_t);
  if (!counters_ || counters_->bytes() < bytes) {
    MLXN_TRY(counters_, allocate_counters(std::max(bytes, kCounterBytes)));
  }
  return Tensor::make(counters_, DType::u8, {static_cast<std::int64_t>(bytes)}, 0);
}

Result<void> GpuCommandList::add_copy(Kind kind, const CopyArgs& args, const LaunchRecord& record) {
  return add("copy", {kind, nullptr, {}, nullptr, sizeof(args), 0, 0}, &args, record);
}

namespace {
void add_range(LaunchRecord& record, const Tensor& tensor, Access access, std::size_t field) noexcept {
  record.ranges[static_cast<std::size_t>(record.range_count++)] = {&tensor.allocation(), tensor.byte_offset(),
                                                                   tensor.byte_offset() + tensor.bytes(), access,
                                                                   static_cast<std::uint16_t>(field)};
}
}  // namespace

Result<void> GpuCommandList::upload(const Tensor& to, std::span<const std::byte> from) {
  MLXN_TRY(const std::span<std::byte> staged, stage(from.size()));
  std::memcpy(staged.data(), from.data(), from.size());
  LaunchRecord record;
  add_range(record, to, Access::out, offsetof(CopyArgs, to));
  return add_copy(Kind::upload, {staged.data(), device_address(to), 1, from.size(), 0, 0}, record);
}

Result<void> GpuCommandList::download(std::span<std::byte> to, const Tensor& from) {
  LaunchRecord record;
  add_range(record, from, Access::in, offsetof(CopyArgs, from));
  return add_copy(Kind::download, {device_address(from), to.data(), 1, to.size(), 0, 0}, record);
}

Result<void> GpuCommandList::copy(const Tensor& to, const Tensor& from) {
  MLXN_TRY(const CopyRows rows, copy_rows_of(to, from));
  LaunchRecord record;
  add_range(record, from, Access::in, offsetof(CopyArgs, from));
  add_range(record, to, Access::out, offsetof(CopyArgs, to));
  return add_copy(Kind::copy, {device_address(from), device_address(to), rows.rows, rows.row_bytes, rows.from_pitch, rows.to_pitch},
                  record);
}

Result<void> GpuCommandList::fill(const Tensor& to, std::byte value) {
  LaunchRecord record;
  add_range(record, to, Access::out, offsetof(FillArgs, to));
  const FillArgs args{device_address(to), to.bytes(), std::to_integer<std::uint32_t>(value)};
  return add("fill", {Kind::fill, nullptr, {}, nullptr, sizeof(args), 0, 0}, &args, record);
}

Result<std::uint32_t> groups_for(std::string_view op, std::int64_t items, std::uint32_t per_group) {
  const std::uint64_t groups = (static_cast<std::uint64_t>(items) + per_group - 1) / per_group;
  if (groups <= kMaxGridX) return static_cast<std::uint32_t>(groups);
  return make_error(ErrorCode::bad_shape, "{}: {} elements, a launch takes {} groups of {}", op, items, kMaxGridX, per_group);
}

bool on_gpu(const CommandEncoder& encoder) noexcept { return encoder.list()->device()->is_gpu(); }

bool on_cuda(const CommandEncoder& encoder) noexcept { return encoder.list()->device()->is_cuda(); }

bool on_hopper(const CommandEncoder& encoder) noexcept { return encoder.list()->device()->is_hopper(); }

Result<void> tensor_map(const CommandEncoder& encoder, TensorMap& map, const TensorMapSpec& spec) {
  return encoder.list()->device()->tensor_map(map, spec);
}

std::uint32_t device_cores(const CommandEncoder& encoder) noexcept {
  return static_cast<std::uint32_t>(encoder.list()->device()->capabilities().compute_units);
}

Result<Tensor> scratch(CommandEncoder& encoder, std::uint64_t bytes) {
  return static_cast<GpuCommandList*>(encoder.list())->scratch(bytes);
}

Result<Tensor> counters(CommandEncoder& encoder, std::uint64_t count) {
  return static_cast<GpuCommandList*>(encoder.list())->counters(count);
}

Result<void> encode_erased(CommandEncoder& encoder, const KernelInfo& kernel, Grid grid, const void* args,
                           const LaunchRecord& record) {
  return static_cast<GpuCommandList*>(encoder.list())->encode(kernel, grid, args, record);
}

}  // namespace mlxn::gpu
