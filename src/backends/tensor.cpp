#include "mlxn/tensor.h"

#include <algorithm>
#include <array>
#include <span>

#include "backends/device_impl.h"
#include "base/check_value.h"
#include "base/checked.h"
#include "base/error.h"
#include "ops/check.h"

namespace mlxn {
namespace {

constexpr std::uint64_t kMostElems = std::uint64_t{1} << 60;

Shape row_major(const Shape& shape) noexcept {
  Shape strides = shape;
  std::int64_t step = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    strides[i] = step;
    step *= std::max<std::int64_t>(shape[i], 1);
  }
  return strides;
}

/// The product of the dimensions, each counted at least once so that no later product can overflow.
std::optional<std::uint64_t> count_elems(const Shape& shape) noexcept {
  std::uint64_t product = 1;
  bool empty = false;
  for (const std::int64_t d : shape) {
    const auto next = d < 0 ? std::nullopt : checked_mul(product, static_cast<std::uint64_t>(std::max<std::int64_t>(d, 1)));
    if (!next || *next > kMostElems) return std::nullopt;
    product = *next;
    empty = empty || d == 0;
  }
  return empty ? 0 : product;
}

/// The bytes of a view as `count` runs of `run` bytes, `step` apart: exactly those where its axes allow it (rows of one
/// stride, whatever else lies between them), else a few more.
struct Runs {
  std::int64_t run = 0, step = 0, count = 1;
};

Runs runs_of(const Tensor& tensor) noexcept {
  struct Axis {
    std::int64_t step, count;
  };
  const DTypeInfo& t = info(tensor.dtype());
  const std::int64_t block_elems = t.block_elems, block_bytes = t.block_bytes;
  std::array<Axis, kMaxRank> axes{};  // those of more than one element, in the order of their steps
  std::size_t rank = 0;
  for (int i = 0; i < tensor.rank(); ++i) {
    const bool blocks = i == tensor.rank() - 1 && block_elems > 1;  // they lie side by side
    const std::int64_t count = blocks ? tensor.dim(i) / block_elems : tensor.dim(i);
    const std::int64_t step = blocks ? block_bytes : tensor.stride(i) / block_elems * block_bytes;
    if (count <= 1) continue;
    std::size_t at = rank++;
    for (; at > 0 && axes[at - 1].step > step; --at) axes[at] = axes[at - 1];
    axes[at] = {step, count};
  }
  Runs runs{.run = block_bytes};
  for (const auto [step, count] : std::span(axes).first(rank)) {
    if (runs.count > 1 && step == runs.step * runs.count) {
      runs.count *= count;
      continue;
    }
    if (runs.count > 1) {  // a second stride: the gaps of the first count as bytes of the view
      runs.run += runs.step * (runs.count - 1);
      runs.count = 1;
    }
    if (step <= runs.run) {
      runs.run += step * (count - 1);
    } else {
      runs.step = step;
      runs.count = count;
    }
  }
  return runs;
}

std::int64_t floor_div(std::int64_t a, std::int64_t b) noexcept { return a / b - (a % b < 0 ? 1 : 0); }

/// Whether two sets of runs meet, the second one beginning `distance` bytes after the first.
bool runs_meet(Runs a, Runs b, std::int64_t distance) noexcept {
  if (a.count > 1 && b.count > 1 && a.step != b.step) {
    for (Runs* r : {&a, &b}) *r = {r->run + r->step * (r->count - 1), 0, 1};
  }
  // Run i of a and run j of b meet if -b.run < distance + (j - i) * step < a.run: is there such a difference of i and j?
  const std::int64_t step = std::max({a.count > 1 ? a.step : 0, b.count > 1 ? b.step : 0, std::int64_t{1}});
  const std::int64_t least = std::max(floor_div(-b.run - distance, step) + 1, 1 - a.count);
  const std::int64_t most = std::min(-floor_div(distance - a.run, step) - 1, b.count - 1);
  return least <= most;
}

}  // namespace

Result<void> Allocation::begin_write([[maybe_unused]] std::uint64_t begin, [[maybe_unused]] std::uint64_t end) {
#ifndef NDEBUG
  const std::lock_guard lock(mutex_);
  for (const Range& range : writes_) {
    if (begin < range.end && range.begin < end) {
      return make_error(ErrorCode::wrong_state, "tensor: bytes {} to {} are mapped for writing already", range.begin, range.end);
    }
  }
  writes_.push_back({begin, end});
#endif
  return {};
}

void Allocation::end_write([[maybe_unused]] std::uint64_t begin, [[maybe_unused]] std::uint64_t end) noexcept {
#ifndef NDEBUG
  const std::lock_guard lock(mutex_);
  const auto it = std::find_if(writes_.begin(), writes_.end(), [&](const Range& r) { return r.begin == begin && r.end == end; });
  if (it != writes_.end()) writes_.erase(it);
#endif
}

std::int64_t Tensor::elems() const noexcept {
  if (!defined()) return 0;
  std::int64_t product = 1;
  for (const std::int64_t d : shape_) product *= d;
  return product;
}

std::uint64_t Tensor::bytes() const noexcept {
  if (elems() == 0) return 0;
  std::int64_t last = 0;
  for (int i = 0; i + 1 < rank(); ++i) last += (shape_[i] - 1) * strides_[i];
  const DTypeInfo& t = info(dtype_);
  // The last axis is counted in whole blocks.
  const std::int64_t inner = rank() == 0 ? 1 : (is_block(dtype_) ? shape_[rank() - 1] : (dim(-1) - 1) * stride(-1) + 1);
  return static_cast<std::uint64_t>(last + inner) / t.block_elems * t.block_bytes;
}

bool Tensor::is_contiguous() const noexcept {
  if (!defined()) return false;
  std::int64_t step = 1;
  for (int i = rank() - 1; i >= 0; --i) {
    if (shape_[i] == 0) return true;
    if (shape_[i] != 1 && strides_[i] != step) return false;
    step *= shape_[i];
  }
  return true;
}

Device Tensor::device() const noexcept { return allocation_ ? Device(allocation_->device()) : Device(); }

bool Tensor::overlaps(const Tensor& other) const noexcept {
  if (!allocation_ || !other.allocation_) return false;
  const std::uint64_t a = bytes(), b = other.bytes();
  if (a == 0 || b == 0) return false;
  // Compared by address: two imports may be of the same memory.
  const std::byte* x = allocation_->data() + byte_offset_;
  const std::byte* y = other.allocation_->data() + other.byte_offset_;
  if (x >= y + b || y >= x + a) return false;
  return runs_meet(runs_of(*this), runs_of(other), y - x);
}

void* Tensor::unsafe_data() const noexcept {
  return allocation_ && allocation_->cpu_visible ? allocation_->data() + byte_offset_ : nullptr;
}

Result<Tensor> Tensor::make(std::shared_ptr<Allocation> allocation, DType dtype, const Shape& shape, std::uint64_t byte_offset,
                            const Shape& strides) {
  return detail::guarded([&]() -> Result<Tensor> {
    if (shape.rank() > kMaxRank) return make_error(ErrorCode::bad_shape, "tensor: more than {} axes", kMaxRank);
    if (strides.rank() != 0 && strides.rank() != shape.rank()) {
      return make_error(ErrorCode::bad_shape, "tensor: {} strides for {} axes", strides.rank(), shape.rank());
    }
    MLXN_CHECK(check_dtype("tensor", dtype));
    const DTypeInfo& t = info(dtype);
    const std::optional<std::uint64_t> elems = count_elems(shape);
    if (!elems) return make_error(ErrorCode::bad_shape, "tensor: shape {} is negative or too large", ops::to_string(shape));
    const std::uint64_t count = *elems;
    const std::int64_t inner = shape.rank() == 0 ? 1 : shape[shape.rank() - 1];
    if (inner % t.block_elems != 0) {
      return make_error(ErrorCode::bad_shape, "tensor: rows of {} elements are no whole blocks of {}: {} elements a block", inner,
                        t.name, t.block_elems);
    }
    Tensor tensor;
    tensor.shape_ = shape;
    tensor.strides_ = strides.rank() == 0 ? row_major(shape) : strides;
    tensor.dtype_ = dtype;
    tensor.dtype_known_ = true;
    if (count == 0) return tensor;
    std::uint64_t last = 0;
    for (int i = 0; i < shape.rank(); ++i) {
      const std::int64_t stride = tensor.strides_[i];
      const bool block_steps = stride % t.block_elems == 0 || (i == shape.rank() - 1 && stride == 1) || shape[i] == 1;
      const auto reach = stride < 0 ? std::nullopt
                                    : checked_mul(static_cast<std::uint64_t>(shape[i] - 1), static_cast<std::uint64_t>(stride));
      const auto sum = reach ? checked_add(last, *reach) : std::nullopt;
      if (!sum || *sum > kMostElems || !block_steps ||
          (is_block(dtype) && i == shape.rank() - 1 && stride != 1)) {
        return make_error(ErrorCode::bad_shape, "tensor: strides {} do not fit shape {} of {}", ops::to_string(tensor.strides_),
                          ops::to_string(shape), t.name);
      }
      last = *sum;
    }
    if (!allocation) return make_error(ErrorCode::invalid_argument, "tensor: no memory for {} elements", count);
    tensor.byte_offset_ = byte_offset;
    const auto end = checked_add(byte_offset, tensor.bytes());
    if (!end || *end > allocation->bytes()) {
      return make_error(ErrorCode::out_of_range, "tensor: {} bytes from offset {} wanted, the allocation has {}", tensor.bytes(),
                        byte_offset, allocation->bytes());
    }
    if (!is_block(dtype) && reinterpret_cast<std::uintptr_t>(allocation->data() + byte_offset) % t.block_bytes != 0) {
      return make_error(ErrorCode::bad_shape, "tensor: offset {} is not aligned for {}", byte_offset, t.name);
    }
    tensor.allocation_ = std::move(allocation);
    return tensor;
  });
}

Result<Tensor> Tensor::slice(int axis, std::int64_t begin, std::int64_t end) const {
  return detail::guarded([&]() -> Result<Tensor> {
    if (!defined()) return make_error(ErrorCode::invalid_argument, "slice: empty tensor");
    const int a = axis < 0 ? axis + rank() : axis;
    if (a < 0 || a >= rank()) return make_error(ErrorCode::out_of_range, "slice: axis {} of {} axes", axis, rank());
    if (begin < 0 || end < begin || end > shape_[a]) {
      return make_error(ErrorCode::out_of_range, "slice: {} to {} of {} along axis {}", begin, end, shape_[a], axis);
    }
    const DTypeInfo& t = info(dtype_);
    const bool inner = a == rank() - 1;
    if (inner && (begin % t.block_elems != 0 || end % t.block_elems != 0)) {
      return make_error(ErrorCode::bad_shape, "slice: {} to {} cuts blocks of {} elements ({})", begin, end, t.block_elems, t.name);
    }
    Tensor view = *this;
    view.shape_[a] = end - begin;
    view.byte_offset_ += static_cast<std::uint64_t>(begin * strides_[a]) / t.block_elems * t.block_bytes;
    return view;
  });
}

Result<Tensor> Tensor::reshape(const Shape& shape) const {
  return detail::guarded([&]() -> Result<Tensor> {
    if (!defined()) return make_error(ErrorCode::invalid_argument, "reshape: empty tensor");
    if (!is_contiguous()) return make_error(ErrorCode::bad_shape, "reshape: the view is not contiguous");
    const auto wanted = shape.rank() > kMaxRank ? std::nullopt : count_elems(shape);
    if (wanted != static_cast<std::uint64_t>(elems())) {
      return make_error(ErrorCode::bad_shape, "reshape: {} to {} changes the element count", ops::to_string(shape_),
                        ops::to_string(shape));
    }
    return make(allocation_, dtype_, shape, byte_offset_);
  });
}

Result<Tensor> Tensor::permute(std::initializer_list<int> order) const {
  return detail::guarded([&]() -> Result<Tensor> {
    if (!defined()) return make_error(ErrorCode::invalid_argument, "permute: empty tensor");
    if (static_cast<int>(order.size()) != rank()) {
      return make_error(ErrorCode::bad_shape, "permute: {} axes named, the tensor has {}", order.size(), rank());
    }
    Tensor view = *this;
    unsigned seen = 0;
    int i = 0;
    for (const int axis : order) {
      if (axis < 0 || axis >= rank() || (seen & (1u << axis)) != 0) {
        return make_error(ErrorCode::out_of_range, "permute: axis {} is out of range or named twice", axis);
      }
      seen |= 1u << axis;
      view.shape_[i] = shape_[axis];
      view.strides_[i] = strides_[axis];
      ++i;
    }
    if (is_block(dtype_) && rank() > 0 && *(order.end() - 1) != rank() - 1) {
      return make_error(ErrorCode::bad_shape, "permute: blocks of {} keep their last axis", mlxn::to_string(dtype_));
    }
    return view;
  });
}

Result<Tensor> Tensor::reinterpret(DType dtype, const Shape& shape, std::uint64_t byte_offset) const {
  return detail::guarded([&]() -> Result<Tensor> {
    if (!defined()) return make_error(ErrorCode::invalid_argument, "reinterpret: empty tensor");
    MLXN_CHECK(check_dtype("reinterpret", dtype));
    if (!is_contiguous()) return make_error(ErrorCode::bad_shape, "reinterpret: the view is not contiguous");
    const auto offset = checked_add(byte_offset_, byte_offset);
    if (!offset) return make_error(ErrorCode::out_of_range, "reinterpret: offset {} overflows", byte_offset);
    MLXN_TRY(Tensor view, make(allocation_, dtype, shape, *offset));
    if (byte_offset > bytes() || view.bytes() > bytes() - byte_offset) {
      return make_error(ErrorCode::out_of_range, "reinterpret: {} bytes from offset {} wanted, the view has {}", view.bytes(),
                        byte_offset, bytes());
    }
    if (!is_block(dtype) && byte_offset % info(dtype).block_bytes != 0) {
      return make_error(ErrorCode::bad_shape, "reinterpret: offset {} is no multiple of the size of {}", byte_offset,
                        mlxn::to_string(dtype));
    }
    return view;
  });
}

Result<Tensor::Access> Tensor::map(std::optional<DType> type, std::size_t size, bool write) const {
  return detail::guarded([&]() -> Result<Access> {
    if (!defined()) return make_error(ErrorCode::invalid_argument, "map: empty tensor");
    if (type && *type != dtype_) {
      return make_error(ErrorCode::bad_dtype, "map: the tensor is {}, wanted {}", mlxn::to_string(dtype_), mlxn::to_string(*type));
    }
    if (!is_contiguous()) return make_error(ErrorCode::bad_shape, "map: the view is not contiguous");
    if (bytes() == 0) return Access{nullptr, 0, nullptr};
    MLXN_CHECK(allocation_->device()->check_fork("map"));
    if (!allocation_->cpu_visible) {
      return make_error(ErrorCode::unsupported, "map: the CPU does not see memory of {}; Device::upload and download copy it",
                        allocation_->device()->capabilities().backend);
    }
    MLXN_CHECK(allocation_->device()->wait_unused(*allocation_));
    std::shared_ptr<void> guard = allocation_;
    if (write) {
      const std::uint64_t begin = byte_offset_, end = byte_offset_ + bytes();
      MLXN_CHECK(allocation_->begin_write(begin, end));
      Allocation* raw = allocation_.get();
      guard = std::shared_ptr<void>(raw, [keep = allocation_, begin, end](void*) { keep->end_write(begin, end); });
    }
    return Access{unsafe_data(), static_cast<std::size_t>(bytes() / size), std::move(guard)};
  });
}

}  // namespace mlxn
