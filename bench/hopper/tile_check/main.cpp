/// Stand-alone check and benchmark of the library's tile kernels for Hopper
/// (src/ops/matmul/cuda_hopper_*.cu).
///
/// Every kernel of every type: y, poisoned with NaN, against float64 sums of the exact weights and the
/// unrounded x, with tails in m, n and k, whole and in parts of k, and bits that are the same in every one of
/// `--runs` runs (2), every other of which starts early. Then times in graphs of calls over rotated weights,
/// dense ones by turns with cuBLAS. A sweep measures the kernels that were not chosen too: of q4_0, q4_K,
/// q6_K and q8_0, or of the type that is named, from 512 rows on by turns with cuBLAS and in every order of
/// tiles. Beside: what is chosen, of every type, by turns with cuBLAS at 512 and 4096 rows. Each task runs in
/// a child process: one that traps or hangs costs itself only.
///
///   tile_check [--check] [--time] [--sweep] [--beside] [--type NAME] [--m M] [--runs N] [--cublas PATH]
///   (no flag: the first three; types also f16, bf16, and bf16_narrow, bf16 with x rounded to bf16)
///   tile_check --tune [--type NAME] [--m M] > FILE: what bench/hopper/tile_rates.py makes the planner's
///   table from
///
/// Build: bench/hopper/tile_check.sh OUTPUT [TYPE...]

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>

#include "cublas.h"
#include "tile_check/bench.h"
#include "tile_check/case.h"
#include "tile_check/check.h"

namespace {

using namespace tile_check;

/// Runs a task in a process of its own.
void task(const char* name, unsigned seconds, const std::function<void()>& work) {
  std::fflush(stdout);
  const pid_t pid = fork();
  if (pid == 0) {
    alarm(seconds);
    failures = 0;  // the child's own: it starts with what other tasks have left in this process
    int code = 0;
    try {
      work();
      code = failures == 0 ? 0 : 1;
    } catch (const Failure& f) {
      std::printf("%s: %s in %s\n", name, cudaGetErrorString(f.error), f.where);
      code = 3;
    }
    std::fflush(stdout);
    _exit(code);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    std::printf("TASK FAILED: %s (%s %d)\n", name, WIFEXITED(status) ? "exit" : "signal",
                WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    ++failures;
  }
}

}  // namespace

int main(int argc, char** argv) {
  bool checks = false, times = false, sweeps = false, besides = false, tunes = false;
  std::string only, cublas_path;
  int only_m = 0;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--check")
      checks = true;
    else if (arg == "--time")
      times = true;
    else if (arg == "--sweep")
      sweeps = true;
    else if (arg == "--beside")
      besides = true;
    else if (arg == "--tune")
      tunes = true;
    else if (arg == "--type" && i + 1 < argc)
      only = argv[++i];
    else if (arg == "--runs" && i + 1 < argc)
      runs = std::max(1, std::atoi(argv[++i]));
    else if (arg == "--cublas" && i + 1 < argc)
      cublas_path = argv[++i];
    else if (arg == "--m" && i + 1 < argc)
      only_m = std::atoi(argv[++i]);
    else
      return std::fprintf(stderr, "unknown option %s\n", arg.c_str()), 2;
  }
  if (!checks && !times && !sweeps && !besides && !tunes) checks = times = sweeps = true;
  auto wanted = [&](const Weights& type) { return only.empty() || only == type.name(); };
  if (std::none_of(kTypes.begin(), kTypes.end(), wanted)) {
    return std::fprintf(stderr, "type %s is not among those that this was built with\n", only.c_str()), 2;
  }
  const auto is_main = [](const Weights& type) {
    return type.type == DType::q4_0 || type.type == DType::q4_K || type.type == DType::q6_K ||
           type.type == DType::q8_0;
  };
  if (checks) {
    const auto is_q4_0 = [](const Weights& type) { return type.type == DType::q4_0; };
    const bool has_q4_0 = std::any_of(kTypes.begin(), kTypes.end(), is_q4_0);
    if (has_q4_0 && (only.empty() || only == "q4_0")) task("special", 20, check_special);
    for (const Weights& type : kTypes) {
      if (wanted(type)) task(type.name().c_str(), 60, [&] { check_type(type); });
    }
  }
  struct Size {
    int n, k;
  };
  if (tunes) {
    task("device", 20, say_device);
    for (const Weights& type : kTypes) {
      if (!wanted(type)) continue;
      task("tune", 60, [&] {
        for (const Size& size : {Size{4096, 14336}, Size{14336, 4096}, Size{2048, 4096}}) {
          Bench bench(type, size.n, size.k, 4096);
          for (int m : {8, 16, 32, 48, 64, 128, 192, 256, 512, 1024, 4096}) {
            if (only_m == 0 || only_m == m) bench.tune(m);
          }
        }
      });
    }
  }
  const auto beside_cublas = [&](Bench& bench, std::initializer_list<int> rows, bool all) {
    bench::Cublas cublas;
    if (!cublas.open(cublas_path)) throw Failure{cudaErrorUnknown, "cuBLAS"};
    for (int m : rows) {
      if (only_m == 0 || only_m == m) bench.beside_cublas(cublas, m, all);
    }
  };
  for (const Size& size : {Size{4096, 14336}, Size{14336, 4096}}) {
    for (const Weights& weights : kTypes) {
      if (!times || !wanted(weights) || weights.dense()) continue;
      const bool main_type = is_main(weights);
      task("time", 40, [&] {
        Bench bench(weights, size.n, size.k, 4096);
        for (int m : {8, 16, 32, 64, 128, 512, 2048, 4096}) {
          if (only_m != 0 && only_m != m) continue;
          if (!main_type && m != 16 && m != 64 && m != 512) continue;
          bench.chosen(m);
        }
      });
    }
    for (const Weights& type : {Weights{DType::f16}, Weights{DType::bf16}, Weights{DType::bf16, true}}) {
      if ((!times && !sweeps) || !wanted(type)) continue;
      task("dense", 60, [&] {
        Bench bench(type, size.n, size.k, 4096);
        beside_cublas(bench, {1, 16, 32, 64, 128, 256, 512, 2048, 4096}, sweeps);
      });
    }
    for (const Weights& type : kTypes) {
      if (!sweeps || type.dense() || !(only.empty() ? is_main(type) : wanted(type))) continue;
      task("sweep", 60, [&] {
        Bench bench(type, size.n, size.k, 4096);
        for (int m : {8, 16, 32, 64, 128, 256}) {
          if (only_m == 0 || only_m == m) bench.sweep(m);
        }
        beside_cublas(bench, {512, 1024, 2048, 4096}, true);
      });
    }
  }
  for (const Weights& type : kTypes) {
    if (!besides || !wanted(type)) continue;
    for (const Size& size : {Size{4096, 14336}, Size{14336, 4096}}) {
      task("beside", 60, [&] {
        Bench bench(type, size.n, size.k, 4096);
        beside_cublas(bench, {512, 4096}, false);
      });
    }
  }
  std::printf("%s\n", failures == 0 ? "ALL OK" : "FAILURES");
  return failures == 0 ? 0 : 1;
}
