/// When each kernel of a program ran: a library that the CUDA driver loads into it, which asks CUPTI for the
/// records of kernels, those of graphs included, and prints them when the program ends.
///
///   c++ -std=c++20 -O2 -shared -fPIC -I$CUDA/include bench/cuda/trace.cpp -o libtrace.so -L$CUDA/lib64
///   -lcupti
///   LD_LIBRARY_PATH=$CUDA/lib64 CUDA_INJECTION64_PATH=$PWD/libtrace.so TRACE_OUT=trace.txt TRACE_LAST=1670
///       mlxn generate --device cuda -m FILE -p Hello -n 32 --temp 0
///
/// TRACE_OUT is where it prints to, TRACE_LAST how many kernels, the last ones (all). First a line for each
/// kernel's name: launches, mean microseconds from the end of the kernel before to its own, and their sum;
/// then a line for each launch: start, end, name. Kernels that start early overlap, so that ends tell more
/// than durations.

#include <cuda.h>
#include <cupti.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace {

struct Launch {
  std::uint64_t start, end;  // ns
  std::string name;
};

std::mutex mutex;
std::vector<Launch> launches;

void CUPTIAPI give_buffer(std::uint8_t** buffer, std::size_t* bytes, std::size_t* most_records) {
  *bytes = 8 << 20;
  *buffer = static_cast<std::uint8_t*>(std::aligned_alloc(8, *bytes));
  *most_records = 0;
}

void CUPTIAPI take_buffer(CUcontext, std::uint32_t, std::uint8_t* buffer, std::size_t, std::size_t filled) {
  const std::lock_guard<std::mutex> lock(mutex);
  CUpti_Activity* record = nullptr;
  while (cuptiActivityGetNextRecord(buffer, filled, &record) == CUPTI_SUCCESS) {
    if (record->kind != CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) continue;
    const auto* kernel = reinterpret_cast<const CUpti_ActivityKernel9*>(record);
    launches.push_back({kernel->start, kernel->end, kernel->name == nullptr ? "?" : kernel->name});
  }
  std::free(buffer);
}

void print() {
  cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
  const char* out = std::getenv("TRACE_OUT");
  std::FILE* file = out == nullptr ? stderr : std::fopen(out, "w");
  if (file == nullptr) {
    std::fprintf(stderr, "trace: cannot write to '%s'\n", out);
    return;
  }
  std::sort(launches.begin(), launches.end(),
            [](const Launch& a, const Launch& b) { return a.start < b.start; });
  const char* last = std::getenv("TRACE_LAST");
  const std::size_t most = last == nullptr ? launches.size() : std::strtoull(last, nullptr, 10);
  if (launches.size() > most)
    launches.erase(launches.begin(), launches.end() - static_cast<std::ptrdiff_t>(most));

  struct Sum {
    std::size_t count = 0;
    double us = 0;
  };
  std::map<std::string, Sum> kernels;
  for (std::size_t i = 1; i < launches.size(); ++i) {
    Sum& sum = kernels[launches[i].name];
    ++sum.count;
    sum.us += 1e-3 * (static_cast<double>(launches[i].end) - static_cast<double>(launches[i - 1].end));
  }
  for (const auto& [name, sum] : kernels) {
    std::fprintf(file, "%zu launches, %.2f us each, %.1f us: %s\n", sum.count,
                 sum.us / static_cast<double>(sum.count), sum.us, name.c_str());
  }
  for (const Launch& launch : launches) {
    const auto us = [&](std::uint64_t at) { return 1e-3 * static_cast<double>(at - launches.front().start); };
    std::fprintf(file, "%.2f %.2f %s\n", us(launch.start), us(launch.end), launch.name.c_str());
  }
  if (out != nullptr) std::fclose(file);
}

}  // namespace

/// What the driver calls once it has loaded the library.
extern "C" int InitializeInjection() {
  const CUptiResult registered = cuptiActivityRegisterCallbacks(give_buffer, take_buffer);
  const CUptiResult enabled = cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL);
  if (registered != CUPTI_SUCCESS || enabled != CUPTI_SUCCESS) {
    std::fprintf(stderr, "trace: CUPTI gives no records of kernels (%d, %d)\n", registered, enabled);
    return 0;
  }
  std::atexit(print);
  return 1;
}
