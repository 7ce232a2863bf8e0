#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "gtest/gtest.h"
#include "mlxn/device.h"
#include "mlxn/quant.h"
#include "tests/support/must.h"

namespace mlxn::test {

struct GuardedOptions {
  std::int64_t row_pad = 0;    ///< elements between the rows of a matrix (whole blocks for block types)
  std::uint64_t shift = 0;     ///< bytes from an aligned address to the first element
};

/// A tensor between two guard zones. Guards, row padding and the elements themselves start as bytes 0xFF, which are NaN in
/// f32, f16, bf16 and as the scale of most blocks: an operation that reads beyond its operand returns NaN, one that writes
/// there fails intact(), and one that forgets an output leaves NaN in it.
class Guarded {
 public:
  Guarded(const Device& device, DType dtype, const Shape& shape, const GuardedOptions& options = {})
      : device_(device), dtype_(dtype), shape_(shape) {
    row_bytes_ = bytes_of(shape.rank() > 0 ? shape[shape.rank() - 1] : 1);
    pitch_ = row_bytes_ + bytes_of(options.row_pad);
    rows_ = 1;
    for (int i = 0; i + 1 < shape.rank(); ++i) rows_ *= static_cast<std::uint64_t>(shape[i]);
    begin_ = kGuard + options.shift;
    const std::uint64_t total = begin_ + rows_ * pitch_ + kGuard;
    whole_ = must(device.allocate(DType::u8, {static_cast<std::int64_t>(total)}));
    image_.assign(total, std::byte{0xff});
    must(device_.upload(whole_, image_));
    Shape padded = shape;
    if (options.row_pad != 0) padded[shape.rank() - 1] += options.row_pad;
    tensor_ = must(whole_.reinterpret(dtype, padded, begin_));
    if (options.row_pad != 0) tensor_ = must(tensor_.slice(shape.rank() - 1, 0, shape[shape.rank() - 1]));
  }

  [[nodiscard]] const Tensor& tensor() const noexcept { return tensor_; }

  /// Sets the elements from contiguous storage bytes.
  void write(std::span<const std::byte> bytes) {
    if (bytes.size() != rows_ * row_bytes_) throw std::logic_error("Guarded::write: wrong number of bytes");
    for (std::uint64_t r = 0; r < rows_; ++r) {
      if (row_bytes_ != 0) std::memcpy(&image_[begin_ + r * pitch_], &bytes[r * row_bytes_], row_bytes_);
    }
    must(device_.upload(whole_, image_));
  }
  /// Sets the elements of an f32, f16 or bf16 tensor, rounded to its type.
  void write(std::span<const float> values) {
    std::vector<std::byte> bytes(rows_ * row_bytes_);
    must(quantize(dtype_, values, bytes));
    write(bytes);
  }

  /// The elements as contiguous storage bytes.
  [[nodiscard]] std::vector<std::byte> read_bytes() const {
    const std::vector<std::byte> now = snapshot();
    std::vector<std::byte> bytes(rows_ * row_bytes_);
    for (std::uint64_t r = 0; r < rows_; ++r) {
      if (row_bytes_ != 0) std::memcpy(&bytes[r * row_bytes_], &now[begin_ + r * pitch_], row_bytes_);
    }
    return bytes;
  }
  /// The elements of a weight type as floats.
  [[nodiscard]] std::vector<float> read() const {
    const std::vector<std::byte> bytes = read_bytes();
    std::vector<float> values(bytes.size() / block_bytes(dtype_) * block_elems(dtype_));
    must(dequantize(dtype_, bytes, values));
    return values;
  }

  /// Whether guards and row padding are as they were.
  [[nodiscard]] testing::AssertionResult intact() const {
    const std::vector<std::byte> now = snapshot();
    for (std::uint64_t i = 0; i < now.size(); ++i) {
      const std::uint64_t at = i - begin_;
      const bool inside = i >= begin_ && at < rows_ * pitch_ && at % pitch_ < row_bytes_;
      if (!inside && now[i] != std::byte{0xff}) {
        return testing::AssertionFailure() << "byte " << static_cast<std::int64_t>(at) << " from the first element of "
                                           << rows_ << " rows of " << row_bytes_ << " bytes was overwritten";
      }
    }
    return testing::AssertionSuccess();
  }
  /// intact(), and the elements too are those of the last write().
  [[nodiscard]] testing::AssertionResult unchanged() const {
    if (snapshot() == image_) return testing::AssertionSuccess();
    return testing::AssertionFailure() << "an operand that is only read was changed";
  }

 private:
  static constexpr std::uint64_t kGuard = 256;

  [[nodiscard]] std::uint64_t bytes_of(std::int64_t elems) const {
    return static_cast<std::uint64_t>(elems) / block_elems(dtype_) * block_bytes(dtype_);
  }
  [[nodiscard]] std::vector<std::byte> snapshot() const {
    std::vector<std::byte> now(image_.size());
    must(device_.download(now, whole_));
    return now;
  }

  Device device_;
  DType dtype_;
  Shape shape_;
  std::uint64_t row_bytes_ = 0;
  std::uint64_t pitch_ = 0;
  std::uint64_t rows_ = 0;
  std::uint64_t begin_ = 0;
  Tensor whole_;
  Tensor tensor_;
  std::vector<std::byte> image_;  // what was last uploaded
};

}  // namespace mlxn::test
