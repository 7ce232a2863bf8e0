#pragma once

#include "mlxn/encoder.h"
#include "mlxn/weight.h"

namespace mlxn {

/// How products are formed; the sums are always f32.
enum class Numerics : std::uint8_t {
  /// The device's default for the weight's type: exact or f16, never a lesser one. On a Hopper GPU f16 for prepared block types
  /// and for the tiles of f16 and bf16 weights, whose vector route is exact; exact for all else on a GPU.
  automatic,
  exact,      ///< f32 operands
  f16,        ///< x rounded to f16 (nearest even), weights exact or rounded to f16
  bf16,       ///< x rounded to bf16, weights exact; GPUs only
  /// x quantised per 32 values: d = max|x| / 127, q = nearest even of x / d; on CPUs only, for block formats but affine ones of 8
  /// bits or with f32 scales
  int8act,
};
[[nodiscard]] std::string_view to_string(Numerics numerics) noexcept;

enum class Route : std::uint8_t {
  automatic,
  vector,  ///< for few rows of x: weights are the stream
  tile,    ///< for many rows of x: weights are unpacked once per tile
};

struct MatmulOptions {
  Numerics numerics = Numerics::automatic;
  Route route = Route::automatic;
  /// Row m of the result does not depend on how many rows x has, bit for bit. On a GPU, where the routes add in different
  /// orders, Route::automatic is then the vector route for any m; tiles do not divide k then, which few rows pay for.
  bool batch_invariant = false;
};

struct MatmulShape {
  std::int64_t m = 0, n = 0, k = 0;
  DType type = DType::f32;
};

/// y[m,n] = sum_k x[m,k] * w[n,k]                          the product with weights in GGUF blocks as they lie in the file
///
/// x     [m, k]  f32 f16 bf16; last axis contiguous, any row stride
/// raw   [n, k]  a weight type, rows without gaps; or u8 with at least n * row bytes
/// y     [m, n]  f32 f16 bf16; last axis contiguous, any row stride; must not overlap x or raw
/// shape m, n, k > 0, k a multiple of the type's block; must agree with the tensors
/// Numerics: MatmulOptions::numerics; sums in f32. Same call, same bits, whatever the number of threads.
/// A class that the type does not have (int8act with f32, f16 or bf16 weights, see Numerics) runs as exact; plan_matmul says so.
/// Errors: bad_shape, bad_dtype, aliased, invalid_argument (an option that is none), unsupported (a type without kernels, a class that
/// the device does not have), limit_exceeded (rows of raw of 4 GiB or more on a GPU), wrong_device, wrong_state, out_of_memory.
/// Order: recorded on `encoder`, which keeps the arguments alive until its submission completes.
[[nodiscard]] Result<void> quantized_matmul_ggml(CommandEncoder& encoder, const Tensor& x, const Tensor& raw, const Tensor& y,
                                                 const MatmulShape& shape, const MatmulOptions& options = {});

/// The same product with a Weight (prepared or raw), of any weight type, dense ones included. x [m, k], y [m, n] as above.
[[nodiscard]] Result<void> matmul(CommandEncoder& encoder, const Tensor& x, const Weight& weight, const Tensor& y,
                                  const MatmulOptions& options = {});

/// What a call would run.
struct MatmulPlan {
  std::string_view kernel;  ///< the variant's name
  Numerics numerics = Numerics::exact;
  Route route = Route::vector;
};
/// The variant, class and route that a product of this shape takes on the device. `prepared` says which door; on
/// a CPU both take the same, on a GPU raw blocks are taken to begin where an allocation does.
[[nodiscard]] Result<MatmulPlan> plan_matmul(const Device& device, const MatmulShape& shape, bool prepared,
                                             const MatmulOptions& options = {});
/// The largest m that takes the vector route by itself.
[[nodiscard]] Result<std::int64_t> matmul_vector_threshold(const Device& device, const MatmulShape& shape, bool prepared);

}  // namespace mlxn
