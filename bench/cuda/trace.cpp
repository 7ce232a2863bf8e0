/// When each kernel of a program ran: a library that the CUDA driver loads into it, which asks CUPTI for the
/// records of kernels, those of graphs included, and prints them when the program ends.
///
///   c++ -std=c++20 -O2 -shared -fPIC -I$CUDA/include bench/cuda/trace.cpp -o trace.so -L$CUDA/lib64 -lcupti
///   export LD_LIBRARY_PATH=$CUDA/lib64 TRACE_OUT=trace.txt TRACE_LAST=1670 TRACE_PERIOD=167
///   CUDA_INJECTION64_PATH=$PWD/trace.so mlxn generate --device cuda -m FILE -p Hello -n 32 --temp 0
///
/// TRACE_OUT is where it prints to, TRACE_LAST how many kernels, the last ones (all). Where they repeat after
/// TRACE_PERIOD of them, as those of a decoded token do (the 167 of an 8B llama), first a line for each
/// place: the median microseconds from the end of the kernel before to its own, for kernels that start early
/// overlap, and its name. Then a line for each launch: start, end, name.

#include <cuda.h>
#include <cupti.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
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
  if (*buffer == nullptr) *bytes = 0;
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
  std::size_t dropped = 0;
  if (cuptiActivityGetNumDroppedRecords(nullptr, 0, &dropped) == CUPTI_SUCCESS && dropped != 0)
    std::fprintf(stderr, "trace: %zu records are missing\n", dropped);
}

void print() {
  cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
  const std::lock_guard<std::mutex> lock(mutex);
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

  const char* every = std::getenv("TRACE_PERIOD");
  const std::size_t period = every == nullptr ? 0 : std::strtoull(every, nullptr, 10);
  for (std::size_t place = 0; place < period && period + place < launches.size(); ++place) {
    std::vector<double> us;
    for (std::size_t i = period + place; i < launches.size(); i += period)
      us.push_back(1e-3 * (static_cast<double>(launches[i].end) - static_cast<double>(launches[i - 1].end)));
    std::nth_element(us.begin(), us.begin() + static_cast<std::ptrdiff_t>(us.size() / 2), us.end());
    std::fprintf(file, "place %zu: %.2f us %s\n", place, us[us.size() / 2],
                 launches[period + place].name.c_str());
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
