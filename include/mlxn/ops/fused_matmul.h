#pragma once

#include "mlxn/ops/matmul.h"

namespace mlxn {

/// The activation of a gated product: that of silu_mul or of gelu_mul.
enum class MatmulGate : std::uint8_t { none, silu, gelu };

/// What surrounds a product in a layer. Each part may be left out.
struct MatmulFusion {
  Tensor norm;         ///< f32 [k], contiguous: h = rms_norm(x, norm, norm_eps) takes the place of x, which is f32 then
  float norm_eps = 0;  ///< > 0 and finite
  MatmulGate gate = MatmulGate::none;  ///< with one n is even, and y has n / 2 columns
  Tensor residual;  ///< y's shape and dtype, last axis contiguous, any row stride; may be exactly y, else overlaps it nowhere
  // Memory for what lies between the operations where one kernel does not do them all; what is in it afterwards is unspecified,
  // and it overlaps no other argument but for y's exception. Left out, it is taken from the encoder's scratch memory.
  Tensor normed;   ///< f32 [m, k], h
  Tensor product;  ///< y's dtype [m, n], p; with a gate, y may be exactly its left half
};

/// h = rms_norm(x),  p = h * weight^T,  y = act(p[:, 0 : n/2]) * p[:, n/2 : n] + residual        a product and what surrounds it
///
/// x        [m, k]  f32 f16 bf16; last axis contiguous, any row stride
/// weight   [n, k]  of any weight type; with a gate, the gate's rows come first
/// y        [m, n], or [m, n / 2] with a gate; f32 f16 bf16; last axis contiguous, any row stride; overlaps none of x, weight and norm
/// Numerics: that of rms_norm, matmul (options), silu_mul or gelu_mul, and add one after the other, which is also how it is done
/// where no kernel does more in one; where one does (see fuses_matmul) values between these operations stay f32, and h is rounded
/// to the class once. The same call gives the same bits; with options.batch_invariant, rows give theirs in any company.
/// Errors: those of the four operations, and bad_shape where n is odd with a gate; nothing is recorded then, but that after
/// out_of_memory the norm may be.
/// Order: recorded on `encoder`, which keeps the arguments alive until its submission completes.
[[nodiscard]] Result<void> fused_matmul(CommandEncoder& encoder, const Tensor& x, const Weight& weight, const Tensor& y,
                                        const MatmulFusion& fusion, const MatmulOptions& options = {});

/// Whether fused_matmul, with this gate and any of the other parts, leaves them to the product's kernels: on a Hopper GPU, for few
/// rows (each launch takes up to four) of weights prepared for the device in blocks, and on the tile route of Hopper's kernels, where
/// a norm is made with what makes rows ready. The norm begins at a multiple of 16 bytes. shape.n counts the rows of the weight, with a
/// gate and blocks a multiple of 32; else norm and product are one on the tile route, and gate and residual follow. Errors: those of
/// plan_matmul.
[[nodiscard]] Result<bool> fuses_matmul(const Device& device, const MatmulShape& shape, MatmulGate gate,
                                        const MatmulOptions& options = {});

}  // namespace mlxn
