#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>

#include "mlxn/dtype.h"
#include "mlxn/result.h"

namespace mlxn {

class Allocation;
class Device;

inline constexpr int kMaxRank = 6;

/// Up to six dimensions (or strides), outermost first.
class Shape {
 public:
  Shape() = default;
  /// More than kMaxRank dimensions are cut off and make rank() report kMaxRank + 1, which no tensor accepts.
  Shape(std::initializer_list<std::int64_t> dims) noexcept : Shape(std::span(dims.begin(), dims.size())) {}
  explicit Shape(std::span<const std::int64_t> dims) noexcept {
    for (const std::int64_t d : dims) push_back(d);
  }

  [[nodiscard]] int rank() const noexcept { return rank_; }
  [[nodiscard]] std::int64_t operator[](int i) const noexcept { return dims_[static_cast<std::size_t>(i)]; }
  [[nodiscard]] std::int64_t& operator[](int i) noexcept { return dims_[static_cast<std::size_t>(i)]; }
  [[nodiscard]] const std::int64_t* begin() const noexcept { return dims_.data(); }
  [[nodiscard]] const std::int64_t* end() const noexcept { return dims_.data() + (rank_ > kMaxRank ? kMaxRank : rank_); }
  void push_back(std::int64_t d) noexcept {
    if (rank_ < kMaxRank) dims_[static_cast<std::size_t>(rank_)] = d;
    if (rank_ <= kMaxRank) ++rank_;
  }
  friend bool operator==(const Shape& a, const Shape& b) noexcept {
    if (a.rank_ != b.rank_) return false;
    for (int i = 0; i < a.rank_ && i < kMaxRank; ++i) {
      if (a[i] != b[i]) return false;
    }
    return true;
  }

 private:
  std::array<std::int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

/// CPU access to a tensor's elements. While it lives, work that touches the tensor must not be submitted.
/// Debug builds report a second write mapping of overlapping bytes as wrong_state.
template <class T>
class Mapping {
 public:
  Mapping() = default;
  [[nodiscard]] T* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] T* begin() const noexcept { return data_; }
  [[nodiscard]] T* end() const noexcept { return data_ + size_; }
  [[nodiscard]] T& operator[](std::size_t i) const noexcept { return data_[i]; }
  operator std::span<T>() const noexcept { return {data_, size_}; }  // NOLINT: a mapping is a span with a guard

 private:
  friend class Tensor;
  Mapping(T* data, std::size_t size, std::shared_ptr<void> guard) noexcept
      : data_(data), size_(size), guard_(std::move(guard)) {}
  T* data_ = nullptr;
  std::size_t size_ = 0;
  std::shared_ptr<void> guard_;
};

/// A view of device memory: an allocation, an element or block type, a shape, strides and a byte offset. Copies are
/// cheap and share the memory. It computes nothing by itself. Views nest: every offset is relative to the receiver, and
/// every accessor (bytes, mappings, bindings, hazards) is of the view alone.
class Tensor {
 public:
  /// The empty handle: defined() is false, every operation refuses it.
  Tensor() = default;

  [[nodiscard]] bool defined() const noexcept { return dtype_known_; }
  [[nodiscard]] DType dtype() const noexcept { return dtype_; }
  [[nodiscard]] const Shape& shape() const noexcept { return shape_; }
  [[nodiscard]] int rank() const noexcept { return shape_.rank(); }
  /// Dimension i; negative i counts from the end. i must be in range.
  [[nodiscard]] std::int64_t dim(int i) const noexcept { return shape_[i < 0 ? i + shape_.rank() : i]; }
  /// Steps between neighbours along each axis, in elements (multiples of the block along all but the last axis).
  [[nodiscard]] const Shape& strides() const noexcept { return strides_; }
  [[nodiscard]] std::int64_t stride(int i) const noexcept { return strides_[i < 0 ? i + strides_.rank() : i]; }
  [[nodiscard]] std::int64_t elems() const noexcept;
  /// Bytes from the first to the last element of the view, both included; 0 if it has no elements.
  [[nodiscard]] std::uint64_t bytes() const noexcept;
  /// Offset of the first element from the start of the allocation.
  [[nodiscard]] std::uint64_t byte_offset() const noexcept { return byte_offset_; }
  /// Row-major without gaps.
  [[nodiscard]] bool is_contiguous() const noexcept;
  /// The device that owns the memory; an undefined Device for empty tensors.
  [[nodiscard]] Device device() const noexcept;
  /// Whether the two views share a byte. Exact if both are rows of one stride: ranges of rows, of columns or of heads in the
  /// same buffer. Views whose gaps are of several kinds may be said to overlap where one only lies in a gap of the other.
  [[nodiscard]] bool overlaps(const Tensor& other) const noexcept;

  /// Elements [begin, end) along an axis. Along the last axis of a block tensor both must be multiples of the block.
  [[nodiscard]] Result<Tensor> slice(int axis, std::int64_t begin, std::int64_t end) const;
  /// The same elements in another shape; the view must be contiguous and the element counts equal.
  [[nodiscard]] Result<Tensor> reshape(const Shape& shape) const;
  /// Axes in another order: axis i of the result is axis order[i] of the receiver. Block tensors keep their last axis.
  [[nodiscard]] Result<Tensor> permute(std::initializer_list<int> order) const;
  /// The bytes [byte_offset, byte_offset + size of the new view) of a contiguous view as another type and shape.
  /// The offset (from the receiver's first byte) must be a multiple of the new element size, and so must the address.
  [[nodiscard]] Result<Tensor> reinterpret(DType dtype, const Shape& shape, std::uint64_t byte_offset = 0) const;

  /// Scoped CPU access to a contiguous tensor of CPU-visible memory; waits for unfinished work that touches it.
  /// T must be the C++ type of the dtype, or std::byte for any. Errors: bad_dtype, bad_shape, wrong_state, device.
  template <class T>
  [[nodiscard]] Result<Mapping<const T>> read() const {
    MLXN_TRY(auto access, map(type_of<T>(), sizeof(T), false));
    return Mapping<const T>(static_cast<const T*>(access.data), access.size, std::move(access.guard));
  }
  template <class T>
  [[nodiscard]] Result<Mapping<T>> write() const {
    MLXN_TRY(auto access, map(type_of<T>(), sizeof(T), true));
    return Mapping<T>(static_cast<T*>(access.data), access.size, std::move(access.guard));
  }

  /// The address of the first element, unsynchronised: the caller orders accesses. Null if not CPU-visible.
  [[nodiscard]] void* unsafe_data() const noexcept;
  /// The memory behind the view, for code that keeps it alive; null for empty tensors.
  [[nodiscard]] const std::shared_ptr<Allocation>& allocation() const noexcept { return allocation_; }

  /// A view of an allocation; strides empty means row-major. Errors: bad_shape, bad_dtype, out_of_range.
  [[nodiscard]] static Result<Tensor> make(std::shared_ptr<Allocation> allocation, DType dtype, const Shape& shape,
                                           std::uint64_t byte_offset = 0, const Shape& strides = {});

 private:
  struct Access {
    void* data;
    std::size_t size;
    std::shared_ptr<void> guard;
  };
  template <class T>
  static constexpr std::optional<DType> type_of() noexcept {
    static_assert(kDTypeOf<T>.has_value() || sizeof(T) == 1, "no dtype has this C++ type");
    return kDTypeOf<T>;
  }
  [[nodiscard]] Result<Access> map(std::optional<DType> type, std::size_t size, bool write) const;

  std::shared_ptr<Allocation> allocation_;
  Shape shape_;
  Shape strides_;
  std::uint64_t byte_offset_ = 0;
  DType dtype_ = DType::f32;
  bool dtype_known_ = false;
};

}  // namespace mlxn
