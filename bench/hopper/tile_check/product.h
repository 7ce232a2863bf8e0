#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <vector>

#include "ops/matmul/hopper_tile.h"
#include "ops/matmul/hopper_tile_args.h"

// A planned product with its memory, launched as the library launches it.
namespace tile_check {

using namespace mlxn;
using ops::HopperStageArgs;
using ops::HopperTileArgs;
using ops::HopperTilePlan;

/// Of norms.
inline constexpr float kNormEps = 1e-5f;

/// What is done with a product beside it.
struct Way {
  bool direct = false;          // x is read where it lies, if the plan allows, else staged...
  const float* norm = nullptr;  // ... also with a norm
  bool onto = false;            // y is added to
  unsigned gate = 0;            // kHopperTileSilu ...
  bool narrow_y = false;        // y has 16 bits
};

/// A plan with its memory.
struct Product {
  HopperTilePlan plan;
  const void* function = nullptr;
  bool direct = false;
  HopperTileArgs args{};
  HopperStageArgs stage{};
  std::vector<void*> memory;

  Product(const HopperTilePlan& p, const void* f, const std::vector<std::int32_t>& exponents,
          const std::uint8_t* records, const void* x, unsigned x_type, std::int64_t x_stride, void* y,
          unsigned y_type, std::int64_t y_stride, const Way& way);
  Product(const Product&) = delete;
  ~Product();

  static bool can_map(const HopperTilePlan& plan, const void* x, unsigned x_type, std::int64_t x_stride);
  /// The weights of the next run.
  void use(const std::uint8_t* records);
  void run_stage(cudaStream_t stream, bool early);
  void run(cudaStream_t stream, bool early);
};

}  // namespace tile_check
