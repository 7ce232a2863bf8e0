#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "cublas.h"
#include "tile_check/data.h"
#include "tile_check/kernels.h"
#include "tile_check/product.h"

// Times of kernels in graphs of calls over rotated weights.
namespace tile_check {

/// A graph of calls, and how long its replays took.
class Chain {
 public:
  template <class Call>
  Chain(cudaStream_t stream, int calls, const Call& call) : stream_(stream), calls_(calls) {
    cudaGraph_t graph = nullptr;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < calls; ++i) call(i);
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&exec_, graph, 0));
    CHECK(cudaGraphDestroy(graph));
    CHECK(cudaEventCreate(&begin_));
    CHECK(cudaEventCreate(&end_));
  }
  Chain(const Chain&) = delete;
  ~Chain() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
    cudaGraphExecDestroy(exec_);
  }

  void replay(bool counts) {
    CHECK(cudaEventRecord(begin_, stream_));
    CHECK(cudaGraphLaunch(exec_, stream_));
    CHECK(cudaEventRecord(end_, stream_));
    CHECK(cudaStreamSynchronize(stream_));
    float ms = 0;
    CHECK(cudaEventElapsedTime(&ms, begin_, end_));
    if (counts) times_.push_back(ms);
  }
  /// Microseconds a call, the median.
  double us() {
    std::sort(times_.begin(), times_.end());
    return times_[times_.size() / 2] * 1000.0 / calls_;
  }

 private:
  cudaStream_t stream_;
  int calls_;
  cudaGraphExec_t exec_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  std::vector<float> times_;
};

/// A type's weights of one size, so many of them that no cache holds them, and x.
class Bench {
 public:
  Bench(const Weights& type, int n, int k, int max_m);
  Bench(const Bench&) = delete;
  ~Bench();

  /// The library's choice for m rows of x, and the ways of it (times.cpp).
  void chosen(int m);
  /// The library's choice, and then, if it is to be `all`, every other kernel and way of it, by turns with cuBLAS, which has records'
  /// place taken by as many weights in f16.
  void beside_cublas(bench::Cublas& cublas, int m, bool all);
  /// Every kernel for about m rows, and k in several numbers of parts (tune.cpp).
  void sweep(int m);
  /// Every kernel and parting of k that may be the best, one JSON object a line.
  void tune(int m);

 private:
  /// Calls in a graph.
  int calls_for(int m) const { return m >= 512 ? 8 : std::max<int>(32, int(records_.size())); }
  unsigned narrow_type() const;
  void make_peers();
  std::unique_ptr<Product> product(const HopperTilePlan& plan, const void* function, const Way& way = {});
  /// Microseconds a call.
  double time(const HopperTilePlan& plan, const void* function, bool stage, bool multiply, bool early,
              const Way& way = {}, int replays = 0);

  Weights type_;
  int n_, k_, sms_;
  std::vector<std::int32_t> exponents_;
  cudaStream_t stream_ = nullptr;
  std::vector<std::uint8_t*> records_;  // of as many matrices
  std::vector<std::uint8_t*> peers_;    // cuBLAS's weights: dense ones as they are, else f16, made when they are wanted
  float* x_ = nullptr;
  std::uint16_t* narrow_x_ = nullptr;  // of 16 bits, also cuBLAS's
  float* y_ = nullptr;
  float* norm_ = nullptr;
};

/// The device and the day, as a line for tile_rates.py.
void say_device();

}  // namespace tile_check
