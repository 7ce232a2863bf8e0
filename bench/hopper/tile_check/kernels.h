#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ops/matmul/hopper_dense.h"
#include "ops/matmul/hopper_tile.h"

// The kernels that are checked and timed: the library's of every type, and other shapes for comparison.
namespace tile_check {

using namespace mlxn;
using ops::HopperTilePlan;

/// A type of weights, and for dense ones the way of their product.
struct Weights {
  DType type;
  bool narrow = false;

  bool dense() const { return !is_block(type); }
  std::string name() const { return std::string(to_string(type)) + (narrow ? "_narrow" : ""); }
  ops::DenseFormat format() const {
    return type == DType::f16 ? ops::DenseFormat::f16
           : narrow           ? ops::DenseFormat::bf16_narrow
                              : ops::DenseFormat::bf16;
  }
  int kinds() const { return dense() ? tile::kDenseKinds : tile::kKinds; }
  tile::Shape shape(int kind) const {
    return dense() ? tile::dense_shape_of(kind) : ops::hopper_tile_shape(type, kind);
  }
  const char* kernel(int kind) const {
    return (dense() ? ops::hopper_dense_name(format(), kind) : ops::hopper_tile_name(type, kind)).data();
  }
  HopperTilePlan plan(int m, int n, int k, int sms) const {
    return dense() ? ops::plan_hopper_dense(format(), m, n, k, sms)
                   : ops::plan_hopper_tile(type, m, n, k, sms);
  }
  HopperTilePlan plan(const tile::Shape& shape, int m, int n, int k, std::uint32_t splits, int sms) const {
    return dense() ? ops::plan_dense_shape(format(), shape, m, n, k, splits, sms)
                   : ops::plan_hopper_shape(type, shape, m, n, k, splits, sms);
  }
};

/// All types of this build (tile_check.sh).
extern const std::vector<Weights> kTypes;

/// A kernel of the library by its name, or null.
const void* kernel_of(const Weights& weights, std::string_view name);

/// The library's kernel that makes x ready.
struct StageKernel {
  const void* function;
  std::uint32_t threads;
};
StageKernel stage_kernel(bool normed);

/// Another shape than the library's.
struct Variant {
  const char* name;
  tile::Shape shape;
  const void* function;
};
std::vector<Variant> variants_of(const Weights& weights);

/// Whether a kernel is worth a try for m rows of x: they are one tile, or tiles that are large, and fill half of it.
inline bool suits(const tile::Shape& shape, int m) {
  return (shape.tokens >= m || shape.tokens >= 128) && (shape.tokens <= 2 * m || shape.tokens <= 16);
}

}  // namespace tile_check
