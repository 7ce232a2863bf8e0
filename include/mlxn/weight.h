#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "mlxn/device.h"

namespace mlxn {

class WeightImpl;

enum class PrepareMode : std::uint8_t {
  automatic,  ///< prepare if the result fits 70 % of the available memory, else keep the raw blocks
  on,
  off,  ///< keep the raw blocks
};

struct PrepareOptions {
  PrepareMode mode = PrepareMode::automatic;
  /// Called with (offset, length) in bytes of the source once that range has been read for good, so that the pages of a
  /// mapped file can be dropped behind it. From several threads, disjoint ranges.
  std::function<void(std::uint64_t, std::uint64_t)> consumed;
};

enum class MlxMode : std::uint8_t { affine, mxfp4 };

/// A matrix [n, k] in MLX's own form: codes packed into words, and numbers for every group of them in a row. Names, and what the
/// numbers mean, are those of mx.quantize:
///   affine  w = scale * q + bias     mxfp4  w = e2m1(q) * 2^(scale - 127)
struct MlxWeight {
  Tensor codes;   ///< u32 [n, k * bits / 32], the first of a word's codes in its lowest bits
  Tensor scales;  ///< [n, k / group_size]  affine: f16 bf16 f32; mxfp4: u8 or f8e8m0
  Tensor biases;  ///< affine: as scales, in shape and dtype; mxfp4: none
  MlxMode mode = MlxMode::affine;
  int bits = 4;         ///< affine: 4 or 8; mxfp4: 4
  int group_size = 64;  ///< affine: 32, 64 or 128; mxfp4: 32
};

/// The same values as a tensor [n, k] of blocks, which Weight::prepare and prepare_stacked take: of an affine type (affine_info
/// of mlxn/dtype.h), which for 4 bits in groups of 32 with f16 scales is q4_1, or of mxfp4. It is allocated on the device of
/// source.codes.
///
/// source  arrays without gaps between their rows, in memory that the CPU sees (Device::import_memory takes what others hold)
/// Numerics: exact; codes, scales and biases keep their bits. As many bytes as the arrays have.
/// Errors: unsupported (bits, group_size), bad_dtype, bad_shape, invalid_argument (an array is missing, or biases of mxfp4),
/// wrong_device, out_of_memory. Scales are not read: validate_blocks finds those that are not finite.
[[nodiscard]] Result<Tensor> mlx_blocks(const MlxWeight& source);

/// An immutable matrix [n, k] of weights, laid out for one device. The values are those of the source, bit for bit.
/// Copies share it; usable from any thread.
class Weight {
 public:
  /// source: [n, k] of a weight type (f32, f16, bf16 or a block format with kernels), rows without gaps, on the same device or,
  /// for a GPU, in memory that the CPU sees, from which it is brought there. Raw blocks of the same device are kept by
  /// reference, so the source's memory lives as long as the weight.
  /// Errors: bad_shape, bad_dtype, unsupported, wrong_device, invalid_argument (a mode that is none, `consumed` threw),
  /// limit_exceeded (rows of 4 GiB or more on a GPU), out_of_memory.
  [[nodiscard]] static Result<Weight> prepare(const Device& device, const Tensor& source, const PrepareOptions& options = {});

  /// prepare(device, mlx_blocks(source), options), but `consumed` is not called: the source is several arrays, which are free to
  /// go afterwards.
  [[nodiscard]] static Result<Weight> prepare(const Device& device, const MlxWeight& source, const PrepareOptions& options = {});

  /// The sources one above the other, a matrix of all their rows, so that one product serves all: queries, keys and values of
  /// the same input. They share type and k; the rows of all but the last are multiples of kStackRows. Always laid out anew:
  /// options.mode must not be off. `consumed` is told offsets in the sources' bytes one after the other. Rows have the bits that
  /// the source's own weight would give them.
  /// Errors: those of prepare; bad_shape and bad_dtype also where the sources do not fit each other.
  [[nodiscard]] static Result<Weight> prepare_stacked(const Device& device, std::span<const Tensor> sources,
                                                      const PrepareOptions& options = {});
  static constexpr std::int64_t kStackRows = 16;

  Weight() = default;
  [[nodiscard]] bool defined() const noexcept { return impl_ != nullptr; }
  [[nodiscard]] DType dtype() const noexcept;
  [[nodiscard]] std::int64_t n() const noexcept;
  [[nodiscard]] std::int64_t k() const noexcept;
  /// Whether the blocks were laid out anew.
  [[nodiscard]] bool prepared() const noexcept;
  /// Bytes that the layout in use occupies.
  [[nodiscard]] std::uint64_t bytes() const noexcept;
  [[nodiscard]] const WeightImpl* impl() const noexcept { return impl_.get(); }
  explicit Weight(std::shared_ptr<const WeightImpl> impl) noexcept : impl_(std::move(impl)) {}

 private:
  std::shared_ptr<const WeightImpl> impl_;
};

}  // namespace mlxn
