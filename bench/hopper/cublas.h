// cuBLAS, opened at run time: the dense product that ours is compared with.
#pragma once

#include <cuda_runtime.h>
#include <dlfcn.h>

#include <cstddef>
#include <cstdio>
#include <string>
#include <vector>

namespace bench {

class Cublas {
 public:
  /// False, said on stdout, where there is none.
  bool open(const std::string& given) {
    std::vector<std::string> places;
    if (!given.empty()) places.push_back(given);
    places.insert(places.end(), {"libcublas.so.13", "/usr/local/cuda/lib64/libcublas.so.13",
                                 "/usr/local/cuda/targets/x86_64-linux/lib/libcublas.so.13",
                                 "libcublas.so.12", "/usr/local/cuda/lib64/libcublas.so.12", "libcublas.so"});
    for (const std::string& place : places) {
      if ((library_ = dlopen(place.c_str(), RTLD_NOW | RTLD_GLOBAL)) != nullptr) break;
    }
    if (library_ == nullptr) {
      std::printf("# no cuBLAS: %s\n", dlerror());
      return false;
    }
    const auto create = reinterpret_cast<int (*)(void**)>(dlsym(library_, "cublasCreate_v2"));
    set_stream_ = reinterpret_cast<int (*)(void*, cudaStream_t)>(dlsym(library_, "cublasSetStream_v2"));
    set_workspace_ =
        reinterpret_cast<int (*)(void*, void*, std::size_t)>(dlsym(library_, "cublasSetWorkspace_v2"));
    gemm_ = reinterpret_cast<Gemm>(dlsym(library_, "cublasGemmEx"));
    if (create == nullptr || set_stream_ == nullptr || set_workspace_ == nullptr || gemm_ == nullptr ||
        create(&handle_) != 0 || cudaMalloc(&workspace_, kWorkspaceBytes) != cudaSuccess) {
      std::printf("# cuBLAS lacks a function, a handle or memory\n");
      return false;
    }
    return true;
  }

  /// y[m, n] = x[m, k] * w[n, k]^T without gaps, f16 or bf16 operands, f32 sums, y in f32 or, if `narrow`, as
  /// the operands. May be captured.
  bool multiply(cudaStream_t stream, bool is_bf16, const void* x, const void* w, void* y, bool narrow, int m,
                int n, int k) {
    constexpr int kTransposed = 1, kPlain = 0, kF32 = 0, kF16 = 2, kBf16 = 14, kCompute32F = 68;
    const float one = 1.0f, zero = 0.0f;
    const int type = is_bf16 ? kBf16 : kF16;
    return set_stream_(handle_, stream) == 0 && set_workspace_(handle_, workspace_, kWorkspaceBytes) == 0 &&
           gemm_(handle_, kTransposed, kPlain, n, m, k, &one, w, type, k, x, type, k, &zero, y,
                 narrow ? type : kF32, n, kCompute32F, -1) == 0;
  }

 private:
  static constexpr std::size_t kWorkspaceBytes = std::size_t{64} << 20;
  using Gemm = int (*)(void*, int, int, int, int, int, const void*, const void*, int, int, const void*, int,
                       int, const void*, void*, int, int, int, int);
  void* library_ = nullptr;
  void* handle_ = nullptr;
  void* workspace_ = nullptr;
  Gemm gemm_ = nullptr;
  int (*set_stream_)(void*, cudaStream_t) = nullptr;
  int (*set_workspace_)(void*, void*, std::size_t) = nullptr;
};

}  // namespace bench
