#include "tile_check/product.h"

#include <cuda.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "cuda_blocks/tma.cuh"
#include "quant/gpu_weight.h"
#include "tile_check/data.h"
#include "tile_check/kernels.h"

namespace tile_check {

namespace {

void launch(const void* function, dim3 grid, std::uint32_t threads, std::uint32_t shared,
            std::array<std::uint32_t, 3> cluster, void* args, cudaStream_t stream, bool early) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  cudaLaunchAttribute attributes[2];
  int count = 0;
  if (cluster[0] * cluster[2] > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count].val.clusterDim.x = cluster[0];
    attributes[count].val.clusterDim.y = cluster[1];
    attributes[count++].val.clusterDim.z = cluster[2];
  }
  if (early) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  config.attrs = attributes;
  config.numAttrs = count;
  void* parameters[1] = {args};
  CHECK(cudaLaunchKernelExC(&config, function, parameters));
}

void make_map(gpu::TensorMap& to, const gpu::TensorMapSpec& spec) {
  CUtensorMap made;
  CHECK(sm90::tma::make_map(&made, spec));
  static_assert(sizeof made == sizeof to);
  std::memcpy(&to, &made, sizeof made);
}

}  // namespace

Product::Product(const HopperTilePlan& p, const void* f, const std::vector<std::int32_t>& exponents,
                 const std::uint8_t* records, const void* x, unsigned x_type, std::int64_t x_stride, void* y,
                 unsigned y_type, std::int64_t y_stride, const Way& way)
    : plan(p), function(f) {
  if (function == nullptr) throw Failure{cudaErrorInvalidValue, "no such kernel"};
  auto take = [&](std::size_t bytes, int value = 0xFF) {
    memory.push_back(device<std::uint8_t>(bytes));
    CHECK(cudaMemset(memory.back(), value, std::max<std::size_t>(bytes, 256)));
    return memory.back();
  };
  if (way.onto || way.gate != 0) plan.fuse(way.gate != 0);
  args = plan.args;
  gpu::TensorMapSpec x_map = plan.x_map;
  direct = way.direct && can_map(plan, x, x_type, x_stride);
  if (direct) {
    x_map.base = static_cast<const std::byte*>(x);
    x_map.row_bytes = x_stride * 2;
  } else {
    stage = plan.stage;
    stage.x.ptr = x;
    stage.x_stride = x_stride;
    stage.x_type = x_type;
    stage.norm.ptr = way.norm;
    stage.norm_eps = kNormEps;
    stage.rows.ptr = static_cast<std::uint16_t*>(take(plan.row_bytes));
    stage.scales.ptr = static_cast<float*>(take(plan.scale_bytes));
    args.x_scales.ptr = stage.scales.ptr;
    x_map.base = reinterpret_cast<const std::byte*>(stage.rows.ptr);
  }
  make_map(args.x, x_map);
  args.counters.ptr = static_cast<std::uint32_t*>(take(plan.counters * 4, 0));
  args.workspace.ptr = static_cast<float*>(take(plan.workspace_bytes));
  args.y.ptr = y;
  args.y_stride = y_stride;
  args.y_type = y_type;
  args.activation = way.gate;
  if (way.onto) args.residual.ptr = y;
  if (way.onto) args.residual_stride = y_stride;
  auto* of_rows = static_cast<std::int32_t*>(take(exponents.size() * 4));
  CHECK(cudaMemcpy(of_rows, exponents.data(), exponents.size() * 4, cudaMemcpyDefault));
  args.exponents.ptr = of_rows;
  use(records);
  CHECK(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             int(plan.dynamic_shared_bytes)));
}

Product::~Product() {
  for (void* p : memory) cudaFree(p);
}

bool Product::can_map(const HopperTilePlan& plan, const void* x, unsigned x_type, std::int64_t x_stride) {
  return plan.can_map(x_type, reinterpret_cast<std::uintptr_t>(x),
                      x_stride * (x_type == quant::kElementF32 ? 4 : 2));
}

void Product::use(const std::uint8_t* records) {
  gpu::TensorMapSpec map = plan.map;
  map.base = reinterpret_cast<const std::byte*>(records);
  make_map(args.w, map);
}

void Product::run_stage(cudaStream_t stream, bool early) {
  if (direct) return;
  const StageKernel kernel = stage_kernel(stage.norm.ptr != nullptr);
  launch(kernel.function, dim3(plan.stage_grid), kernel.threads, 0, {1, 1, 1}, &stage, stream, early);
}

void Product::run(cudaStream_t stream, bool early) {
  launch(function, dim3(plan.grid[0], plan.grid[1], plan.grid[2]), plan.threads, plan.dynamic_shared_bytes,
         plan.cluster_dims(), &args, stream, early);
}

}  // namespace tile_check
