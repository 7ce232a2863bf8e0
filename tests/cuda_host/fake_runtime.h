#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

/// A stand-in for the CUDA runtime, which a test program links instead of it: streams are threads, memory of the device is
/// the host's behind addresses that this knows. It shows what the backend does with the runtime where there is no GPU, and
/// does what a GPU does rarely: it runs late, out of memory, or breaks. What a GPU computes it cannot show.
namespace fake {

struct Options {
  int devices = 2;
  int driver_version = 13000;  ///< 0: no driver
  int capability = 90;
  std::uint64_t memory_bytes = std::uint64_t{256} << 20;
  std::vector<int> capabilities = {};     ///< of each device; those beyond have `capability`
  std::vector<int> multiprocessors = {};  ///< of each device; those beyond have 132
  int unavailable = -1;                   ///< the device that another process has for itself
};
/// A machine as new, nothing in use; earlier devices must be closed.
void reset(const Options& options = {});

/// While it lives, streams do not start what they are given.
class Hold {
 public:
  Hold();
  ~Hold();
  void release();

 private:
  bool held_ = true;
};

/// A kernel by the name of its device function: the sizes of its parameters, and what it does on the host.
using Params = std::vector<std::vector<std::byte>>;
struct Launch {
  dim3 grid, threads;
  std::uint64_t shared_bytes = 0;
  const Params& params;
  dim3 cluster = {};           ///< attributes of the launch or of the graph's node
  bool starts_early = false;
  template <class T>
  T param(std::size_t i) const {
    T value;
    __builtin_memcpy(&value, params.at(i).data(), sizeof(value));
    return value;
  }
};
void define_kernel(std::string_view name, std::vector<std::size_t> param_bytes, std::function<void(const Launch&)> run);

/// What the stand-in of the driver writes into a tensor map.
struct TensorMap {
  const std::byte* base = nullptr;
  std::uint64_t sizes[3] = {}, row_bytes = 0, plane_bytes = 0;  ///< columns, rows, planes
  std::uint32_t box[3] = {};
  bool swizzle128 = false;
};
template <class Map>
TensorMap tensor_map_of(const Map& map) {
  TensorMap read;
  static_assert(sizeof(read) <= sizeof(map));
  __builtin_memcpy(static_cast<void*>(&read), &map, sizeof(read));
  return read;
}

/// What the host calls the kernel by.
[[nodiscard]] const void* function_of(std::string_view name);

/// The next piece of work that a stream starts ends in this error, and with it the device.
void break_next_work(cudaError_t code);
/// Whether that has happened.
[[nodiscard]] bool is_broken();
/// The next call of that function fails.
void fail_next_call(std::string_view function, cudaError_t code);

/// Devices that have a context.
[[nodiscard]] int contexts();
/// How often a function was called since the last reset.
[[nodiscard]] int calls(std::string_view function);
/// Blocks, streams, events, graphs and libraries that were made and not given back.
[[nodiscard]] int live_objects();
[[nodiscard]] std::uint64_t bytes_in_use();
/// The thread's last error, as a caller of the runtime beside the library would find it.
[[nodiscard]] cudaError_t last_error();

}  // namespace fake
