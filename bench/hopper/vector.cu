// Stand-alone bench of the q4_0 kernel for few tokens (src/ops/matmul/cuda_vector_sm90a.cuh): every
// configuration is verified first, then timed in graphs with plain and programmatic edges.
//
//   nvcc -std=c++20 -O3 -gencode=arch=compute_90a,code=sm_90a -cudart static -I src -o hop_vector bench/hopper/vector.cu
//   hop_vector [--shape N,K]... [--m M]... [--kernel PART_OF_NAME] [--check]
#include "ops/matmul/cuda_vector_sm90a.cuh"
#include "support.cuh"

namespace {

using namespace mlxn::sm90;

struct Kernel {
  std::string name;
  int m;        // most tokens
  bool is_f16;  // x
  int warps;
  double nmse_limit;  // 0: nothing to check
  void (*entry)(VectorArgs);
  std::uint32_t record_bytes;  // of x and its sums, per record of the range
  VectorShared (*shared)(std::uint32_t, std::uint32_t, std::uint32_t);
};

template <class Math, class X, int kWarps>
Kernel kernel(const std::string& name, int m, double nmse_limit) {
  const bool is_f16 = X::kBytes == 2;
  return {name + (is_f16 ? " x16" : " x32") + " w" + std::to_string(kWarps),
          m,
          is_f16,
          kWarps,
          nmse_limit,
          vector_kernel<Math, X, kWarps>,
          Math::kRecordX + Math::kRecordMeta,
          vector_shared<Math, kWarps>};
}

template <int kM, int kLimbs, class X, int kWarps>
Kernel integer() {
  return kernel<IntegerMath<kM, kLimbs>, X, kWarps>("int" + std::to_string(kLimbs), kM,
                                                    kLimbs == 1 ? 5e-9 : 1e-11);
}
template <int kM, class X, int kWarps>
Kernel half() {
  return kernel<HalfMath<kM>, X, kWarps>("half", kM, X::kBytes == 2 ? 1e-11 : 6e-8);
}

std::vector<Kernel> kernels() {
  return {
      kernel<ReadOnlyMath, XF16, 8>("read", 1, 0),
      integer<1, 1, XF16, 4>(),
      integer<1, 1, XF16, 8>(),
      integer<1, 1, XF16, 16>(),
      integer<1, 1, XF32, 8>(),
      integer<1, 2, XF16, 8>(),
      integer<1, 2, XF32, 8>(),
      integer<2, 1, XF16, 8>(),
      integer<2, 2, XF32, 8>(),
      integer<4, 1, XF16, 8>(),
      integer<4, 1, XF16, 16>(),
      half<4, XF16, 8>(),
      integer<8, 1, XF16, 7>(),
      integer<8, 1, XF16, 8>(),
      integer<8, 1, XF16, 14>(),
      integer<8, 1, XF16, 16>(),
      half<8, XF16, 7>(),
      half<8, XF16, 8>(),
      half<8, XF16, 14>(),
      half<8, XF32, 8>(),
      integer<16, 1, XF16, 7>(),
      integer<16, 1, XF16, 8>(),
      half<16, XF16, 7>(),
      half<16, XF16, 8>(),
      half<16, XF16, 14>(),
      half<32, XF16, 7>(),
      half<32, XF16, 8>(),
  };
}

struct Config {
  std::uint32_t stages, prefetch, splits, early;
  std::uint32_t most_records = 16;  // of a stage
};

std::uint32_t ceil_div(std::uint32_t a, std::uint32_t b) { return (a + b - 1) / b; }

std::vector<Config> configs(const Kernel& kernel) {
  const bool is_main = kernel.name == "int1 x16 w8" && kernel.m == 1;
  std::vector<Config> out;
  if (kernel.m == 1) {
    const std::vector<std::uint32_t> prefetches =
        is_main ? std::vector<std::uint32_t>{1, 2, 3, 4, 6, 8} : std::vector<std::uint32_t>{1, 2, 3, 8};
    for (std::uint32_t prefetch : prefetches) out.push_back({8, prefetch, 1, 1});
    if (is_main) {
      for (std::uint32_t stages : {4u, 6u, 10u})
        for (std::uint32_t prefetch : {2u, 4u}) out.push_back({stages, prefetch, 1, 1});
      for (std::uint32_t prefetch : {2u, 4u}) out.push_back({8, prefetch, 1, 0});
      for (std::uint32_t prefetch : {2u, 4u}) out.push_back({8, prefetch, 2, 1});
      for (std::uint32_t prefetch : {2u, 3u, 4u, 6u, 8u}) out.push_back({16, prefetch, 1, 1, 8});
    }
    return out;
  }
  for (std::uint32_t splits : {1u, 2u, 4u, 8u, 16u})
    for (std::uint32_t stages : {12u, 10u, 8u, 6u, 4u})
      for (std::uint32_t prefetch : {2u, 4u}) out.push_back({stages, prefetch, splits, 1});
  return out;
}

struct Best {
  double us = 1e9;
  std::string row;
};

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::pair<int, int>> shapes;
  std::vector<int> tokens;
  std::string part;
  bool is_check_only = false;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : "";
    int n = 0, k = 0;
    if (flag == "--check") {
      is_check_only = true;
    } else if (flag == "--shape" && std::sscanf(value, "%d,%d", &n, &k) == 2 && n > 0 && k > 0 &&
               k % 32 == 0) {
      shapes.push_back({n, k}), ++i;
    } else if (flag == "--m" && std::atoi(value) > 0) {
      tokens.push_back(std::atoi(value)), ++i;
    } else if (flag == "--kernel" && *value) {
      part = value, ++i;
    } else {
      std::printf("usage: %s [--shape N,K]... [--m M]... [--kernel PART_OF_NAME] [--check]\n", argv[0]);
      return 2;
    }
  }
  if (shapes.empty()) {
    shapes = {{4096, 14336}, {14336, 4096}, {4096, 4096}};
    if (is_check_only) shapes.insert(shapes.end(), {{100, 2880}, {2112, 704}, {16, 32}, {4100, 11264}});
  }
  if (tokens.empty())
    tokens = is_check_only ? std::vector<int>{1, 2, 3, 4, 7, 8, 13, 16, 25, 32}
                           : std::vector<int>{1, 2, 4, 8, 16, 32};

  cudaDeviceProp device;
  BENCH_CUDA(cudaGetDeviceProperties(&device, 0));
  cudaStream_t stream;
  BENCH_CUDA(cudaStreamCreate(&stream));
  const std::uint32_t sms = device.multiProcessorCount;
  const std::uint32_t most_shared = static_cast<std::uint32_t>(device.sharedMemPerBlockOptin);
  const double ceiling = is_check_only ? 1 : bench::read_ceiling(stream);
  std::printf("%s, %u multiprocessors, read ceiling %.0f GB/s\n", device.name, sms, ceiling);

  constexpr std::uint64_t kRotation = 480ull << 20;
  bench::DeviceArray<std::uint8_t> rotation(is_check_only ? 1152 : kRotation + (64 << 20));
  bench::fill_random_records(rotation.data, rotation.size / kRecordBytes, 7);
  const std::vector<Kernel> all = kernels();
  std::vector<std::string> summary;
  std::printf("%-14s %6s %6s %3s %6s %4s %4s %6s %5s %6s  %8s %8s %6s  %9s %9s\n", "kernel", "N", "K", "M",
              "stages", "rec", "pre", "splits", "early", "blocks", "us", "us PDL", "share", "NMSE",
              "max abs");
  const auto begin = std::chrono::steady_clock::now();
  int n_checked = 0;
  for (const auto& [n, k] : shapes) {
    const int most = *std::max_element(tokens.begin(), tokens.end());
    const bench::Problem problem(most, n, k, 1234 + n + k);
    const mlxn::quant::RecordShape shape(n, k);
    const std::uint64_t matrix_bytes = shape.records() * kRecordBytes;
    const int matrices = static_cast<int>((kRotation + matrix_bytes - 1) / matrix_bytes);
    const int calls = std::max(64, matrices);
    const std::size_t y_size = static_cast<std::size_t>(most) * n;
    bench::DeviceArray<float> y(y_size), y_again(y_size), workspace(16 * most * shape.tiles * 16);
    bench::DeviceArray<std::uint32_t> counters(shape.tiles);
    BENCH_CUDA(cudaMemset(counters.data, 0, counters.size * 4));
    BENCH_CUDA(cudaMemset(workspace.data, 0xff, workspace.size * 4));
    std::vector<float> host(y_size), host_again(y_size);
    for (int m : tokens) {
      Best best_plain, best_programmatic;
      for (const Kernel& kernel : all) {
        const int smallest = kernel.m == 1 ? 1 : kernel.m / 2 + 1;
        if (m > kernel.m || m < smallest || kernel.name.find(part) == std::string::npos) continue;
        std::uint32_t last_splits = 0, tried = 0;
        for (const Config& config : configs(kernel)) {
          VectorArgs args{};
          args.m = m, args.n = n, args.k = k, args.x_stride = k;
          args.x = kernel.is_f16 ? static_cast<const void*>(problem.x16.data) : problem.x32.data;
          args.y = y.data, args.workspace = workspace.data, args.counters = counters.data;
          args.tiles = static_cast<std::uint32_t>(shape.tiles),
          args.tile_records = static_cast<std::uint32_t>(shape.tile_records);
          args.split_records = ceil_div(args.tile_records, config.splits);
          args.splits = ceil_div(args.tile_records, args.split_records);
          if (args.splits != config.splits) continue;
          args.tiles_per_block = ceil_div(args.tiles, std::max(1u, sms / args.splits));
          const std::uint32_t groups = ceil_div(args.tiles, args.tiles_per_block),
                              blocks = groups * args.splits;
          // Stages of at most 16 records, at least one for every warp if there are as many.
          const std::uint32_t most_records =
              kernel.warps == 14 || kernel.warps == 7 ? 14 : config.most_records;
          args.stage_records = ceil_div(args.split_records, ceil_div(args.split_records, most_records));
          args.stages = config.stages, args.prefetch = config.prefetch, args.early_launch = config.early;
          const VectorShared at = kernel.shared(args.stages, args.stage_records, args.split_records);
          if (at.bytes > most_shared) continue;
          if (kernel.m > 1) {  // the deepest ring that fits, and the next
            if (args.splits != last_splits) last_splits = args.splits, tried = 0;
            if (++tried > 3) continue;
          }
          char variant[160];
          std::snprintf(variant, sizeof variant, "%-14s %6d %6d %3d %6u %4u %4u %6u %5u %6u",
                        kernel.name.c_str(), n, k, m, args.stages, args.stage_records, args.prefetch,
                        args.splits, args.early_launch, blocks);
          BENCH_CUDA(cudaFuncSetAttribute(kernel.entry, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          static_cast<int>(at.bytes)));
          const unsigned threads = (kernel.warps + 2) * 32;

          args.records = problem.records.data;
          const std::size_t size = static_cast<std::size_t>(m) * n;
          bench::poison(y.data, size);
          bench::launch(kernel.entry, blocks, threads, at.bytes, stream, false, args);
          bench::wait_or_fail(stream, variant);
          bench::Difference difference;
          if (kernel.nmse_limit > 0) {
            difference = bench::compare(y.data, kernel.is_f16 ? problem.y16.data : problem.y32.data, size);
            if (!difference.is_within(kernel.nmse_limit)) {
              std::printf("%s  NMSE %.2e, max abs %.2e, %llu not finite\n", variant, difference.nmse(),
                          difference.max_abs(), difference.n_not_finite);
              bench::fail("wrong result");
            }
            // The same bits again from a chain of programmatic launches.
            bench::poison(y_again.data, size);
            args.y = y_again.data;
            for (int i = 0; i < 3; ++i)
              bench::launch(kernel.entry, blocks, threads, at.bytes, stream, true, args);
            bench::wait_or_fail(stream, variant);
            args.y = y.data;
            BENCH_CUDA(cudaMemcpy(host.data(), y.data, size * 4, cudaMemcpyDeviceToHost));
            BENCH_CUDA(cudaMemcpy(host_again.data(), y_again.data, size * 4, cudaMemcpyDeviceToHost));
            if (std::memcmp(host.data(), host_again.data(), size * 4) != 0)
              bench::fail(std::string(variant) + ": not the same bits twice");
          }
          ++n_checked;
          if (is_check_only) {
            std::printf("%s  %9.2e %9.2e\n", variant, difference.nmse(), difference.max_abs());
            continue;
          }
          double us[2];
          for (int programmatic = 0; programmatic < 2; ++programmatic)
            us[programmatic] = bench::time_graph(
                stream, calls, 15,
                [&](int i) {
                  VectorArgs call = args;
                  call.records = rotation.data + (i % matrices) * matrix_bytes;
                  bench::launch(kernel.entry, blocks, threads, at.bytes, stream, programmatic, call);
                },
                variant);
          const double bytes = static_cast<double>(matrix_bytes);
          char row[256];
          std::snprintf(row, sizeof row, "%s  %8.2f %8.2f %5.1f%%  %9.2e %9.2e", variant, us[0], us[1],
                        100 * bytes / us[1] / 1000 / ceiling, difference.nmse(), difference.max_abs());
          std::printf("%s\n", row);
          if (kernel.nmse_limit > 0) {
            if (us[0] < best_plain.us) best_plain = {us[0], row};
            if (us[1] < best_programmatic.us) best_programmatic = {us[1], row};
          }
        }
        std::fflush(stdout);
      }
      if (!best_plain.row.empty()) {
        summary.push_back("plain  " + best_plain.row);
        summary.push_back("PDL    " + best_programmatic.row);
      }
    }
  }
  std::printf("\nbest of each shape and M\n");
  for (const std::string& row : summary) std::printf("%s\n", row.c_str());
  std::printf("%d configurations verified, %.1f s\n", n_checked,
              std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  if (n_checked == 0) bench::fail("nothing ran");
  return 0;
}
