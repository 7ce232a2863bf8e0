#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "simt/emulator.h"
#include "tests/simt/kernels.h"

namespace mlxn::test {

/// A launch of a test's kernel, with buffers that the test fills: x is binding 0 (in), y 1 (out), z 2 (in_out).
struct TestLaunch {
  explicit TestLaunch(const Kernel& k, std::size_t x_elems = 64, std::size_t y_elems = 64, std::size_t z_elems = 64)
      : kernel(k), x(x_elems), y(y_elems, -1.0f), z(z_elems) {
    bind();
  }
  void bind() {
    args.x.ptr = x.data();
    args.y.ptr = y.data();
    args.z.ptr = z.data();
  }

  Result<void> run(std::uint64_t seed) const {
    std::vector<simt::Range> ranges = {range(x, Access::in, 0), range(y, Access::out, 1), range(z, Access::in_out, 2)};
    ranges.insert(ranges.end(), more.begin(), more.end());
    simt::LaunchInfo info;
    info.kernel = kernel.name;
    info.run = kernel.run;
    info.grid = grid;
    info.threads = kernel.threads;
    info.shared_bytes = kernel.shared_bytes;
    info.args = &args;
    info.args_bytes = sizeof(args);
    info.ranges = ranges;
    return simt::run(info, seed);
  }

  template <class T>
  static simt::Range range(const std::vector<T>& values, Access access, int binding) {
    const auto* const begin = reinterpret_cast<const std::byte*>(values.data());
    return {begin, begin + values.size() * sizeof(T), access, binding};
  }

  Kernel kernel;
  gpu::Grid grid;
  alignas(16) Args args{};
  std::vector<float> x, y;
  std::vector<std::uint32_t> z;
  std::vector<simt::Range> more;
};

}  // namespace mlxn::test
