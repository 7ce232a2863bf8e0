#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/checked.h"
#include "base/error.h"
#include "cli/model_flags.h"
#include "graph/ceilings.h"
#include "mlxn/graph.h"
#include "mlxn/ops/matmul.h"
#include "mlxn/quant.h"
#include "ops/matmul/matmul.h"
#include "ops/op_table.h"
#include "quant/random_blocks.h"

namespace mlxn::cli {
namespace {

using Clock = std::chrono::steady_clock;

struct Shape2 {
  std::int64_t n, k;
};

Result<Shape2> parse_shape(const std::string& text) {
  Shape2 shape{0, 0};
  const std::size_t x = text.find('x');
  const char* end = text.data() + text.size();
  if (x != std::string::npos) {
    const auto n = std::from_chars(text.data(), text.data() + x, shape.n);
    const auto k = std::from_chars(text.data() + x + 1, end, shape.k);
    if (n.ec == std::errc() && n.ptr == text.data() + x && k.ec == std::errc() && k.ptr == end && shape.n > 0 && shape.k > 0) {
      return shape;
    }
  }
  return make_error(ErrorCode::invalid_argument, "--shape: '{}', wanted NxK such as 4096x14336", text);
}

/// Operations of one product, at most: an hour on a fast core.
constexpr std::uint64_t kMostWork = std::uint64_t{1} << 48;

struct Case {
  DType type;
  Shape2 shape;
  std::int64_t m;
};

struct Row {
  double us = 0, low_us = 0, high_us = 0, error = 0;
  double read_gbps = 0;  // of the passes between the product's
  bool cached = false;
  std::uint64_t weight_bytes = 0;
  MatmulPlan plan;
};

/// Weights of one case: enough copies that no cache holds them when they are used in turn.
struct Weights {
  std::vector<std::byte> blocks;  // of each
  std::vector<Tensor> raw;
  std::vector<Weight> prepared;
  bool cached = false;  // a matrix so small that 512 copies of it stay in a cache
};

Result<Weights> make_weights(const Device& device, const Case& c, bool prepare) {
  const auto bytes = storage_bytes(c.type, static_cast<std::uint64_t>(c.shape.n * c.shape.k));
  if (!bytes) return make_error(ErrorCode::internal, "a case was not checked");
  constexpr std::uint64_t kTimesCache = 4, kMostCopies = 512;
  const std::uint64_t cache = std::max<std::uint64_t>(device.capabilities().last_level_cache_bytes, std::uint64_t{8} << 20);
  const std::uint64_t copies = std::clamp<std::uint64_t>(ceil_div(kTimesCache * cache, *bytes) + 1, 2, kMostCopies);
  Weights weights;
  weights.cached = copies * *bytes < kTimesCache * cache;
  weights.blocks.resize(*bytes);
  quant::fill_random_blocks(c.type, weights.blocks.data(), *bytes / block_bytes(c.type), 1.0f, 1);
  MLXN_TRY(const Tensor first, device.allocate(c.type, {c.shape.n, c.shape.k}));
  MLXN_CHECK(device.upload(first, weights.blocks));
  for (std::uint64_t i = 0; i < copies; ++i) {
    Tensor raw = first;
    if (!prepare && i > 0) {
      MLXN_TRY(raw, device.allocate(c.type, {c.shape.n, c.shape.k}));
      MLXN_TRY(CommandEncoder encoder, device.encoder());
      MLXN_CHECK(encoder.copy(raw, first));
      MLXN_CHECK(encoder.commit_and_wait());
    }
    if (prepare) {
      PrepareOptions options;
      options.mode = PrepareMode::on;
      MLXN_TRY(Weight weight, Weight::prepare(device, raw, options));
      weights.prepared.push_back(std::move(weight));
    }
    weights.raw.push_back(std::move(raw));
  }
  return weights;
}

/// What rounding to a type does to numbers, at most, as a share of them.
double rounding(DType type) noexcept { return type == DType::f16 ? 0x1p-11 : type == DType::bf16 ? 0x1p-8 : 0; }

/// The i-th of `count` numbers below n, as far apart as they can be: the first and the last are among them.
std::size_t spread(std::size_t i, std::size_t count, std::size_t n) noexcept { return count > 1 ? i * (n - 1) / (count - 1) : 0; }

/// In float64, which holds products of floats exactly, and sums of them to far less than the classes' errors. Several sums at a time:
/// additions wait for each other.
double dot(std::span<const float> a, std::span<const float> b) noexcept {
  constexpr std::size_t kSums = 8;
  double sums[kSums] = {}, rest = 0;
  std::size_t at = 0;
  for (; at + kSums <= a.size(); at += kSums) {
    for (std::size_t i = 0; i < kSums; ++i) sums[i] += static_cast<double>(a[at + i]) * static_cast<double>(b[at + i]);
  }
  for (; at < a.size(); ++at) rest += static_cast<double>(a[at]) * static_cast<double>(b[at]);
  for (const double sum : sums) rest += sum;
  return rest;
}

/// Normalised mean square error of y against float64 products with the decoded weights, of kChecked elements spread over y: of up to
/// kMostTokens rows of x, and as many rows of w as that leaves, each decoded once. So many that with other random numbers it is the
/// same to about a tenth.
Result<double> check_outputs(const Case& c, std::span<const std::byte> blocks, DType x_type, std::span<const std::byte> x,
                             const Tensor& y) {
  constexpr std::size_t kChecked = 512, kMostTokens = 4;
  const auto m = static_cast<std::size_t>(c.m), n = static_cast<std::size_t>(c.shape.n), k = static_cast<std::size_t>(c.shape.k);
  const std::size_t tokens = std::min(m, kMostTokens), rows = std::min(n, kChecked / tokens);
  std::vector<float> xs(tokens * k), ys(tokens * n), w(k);
  const std::size_t x_bytes = k * block_bytes(x_type), w_bytes = k / block_elems(c.type) * block_bytes(c.type);
  std::vector<std::byte> y_bytes(n * block_bytes(y.dtype()));
  for (std::size_t i = 0; i < tokens; ++i) {
    const std::size_t token = spread(i, tokens, m);
    MLXN_CHECK(dequantize(x_type, x.subspan(token * x_bytes, x_bytes), std::span(xs).subspan(i * k, k)));
    const auto at = static_cast<std::int64_t>(token);
    MLXN_TRY(const Tensor y_row, y.slice(0, at, at + 1));
    MLXN_CHECK(y.device().download(y_bytes, y_row));
    MLXN_CHECK(dequantize(y.dtype(), y_bytes, std::span(ys).subspan(i * n, n)));
  }
  double error = 0, power = 0;
  for (std::size_t i = 0; i < rows; ++i) {
    const std::size_t row = spread(i, rows, n);
    MLXN_CHECK(dequantize(c.type, blocks.subspan(row * w_bytes, w_bytes), w));
    for (std::size_t token = 0; token < tokens; ++token) {
      const double sum = dot(w, std::span(xs).subspan(token * k, k));
      const double difference = static_cast<double>(ys[token * n + row]) - sum;
      error += difference * difference;
      power += sum * sum;
    }
  }
  return error / power;
}

/// What the flags ask for.
struct Wanted {
  MatmulOptions options;
  EncoderOptions encoder;
  DType x = DType::f32, y = DType::f32;
  bool prepared = true;
  std::vector<Case> cases;
};

Result<Row> run_case(const Device& device, const Case& c, const Wanted& wanted, double seconds, ReadProbe& probe) {
  const bool prepare = wanted.prepared;
  const MatmulOptions& options = wanted.options;
  MLXN_TRY(const Weights weights, make_weights(device, c, prepare));
  MLXN_TRY(const Tensor x, device.allocate(wanted.x, {c.m, c.shape.k}));
  MLXN_TRY(const Tensor y, device.allocate(wanted.y, {c.m, c.shape.n}));
  std::vector<std::byte> x_bytes(static_cast<std::size_t>(x.elems()) * block_bytes(wanted.x));
  quant::fill_random_blocks(wanted.x, x_bytes.data(), static_cast<std::uint64_t>(x.elems()), 1.0f, 2);
  MLXN_CHECK(device.upload(x, x_bytes));
  const MatmulShape shape{c.m, c.shape.n, c.shape.k, c.type};
  // Rounds over the copies: on a GPU at least so many calls that the start of their graph, 13 us or more, is a hundredth of the
  // shortest ones' time. Calls of 512 rows take 80 us and more: a few of them do.
  const std::size_t copies = weights.raw.size();
  const std::size_t least = device.capabilities().backend == "cpu" ? 1 : c.m < 512 ? 8 * kGpuCalls : kGpuCalls;
  const std::size_t calls = (least + copies - 1) / copies * copies;
  const auto record = [&](CommandEncoder& encoder) -> Result<void> {
    for (std::size_t i = 0; i < calls; ++i) {
      if (prepare) {
        MLXN_CHECK(matmul(encoder, x, weights.prepared[i % copies], y, options));
      } else {
        MLXN_CHECK(quantized_matmul_ggml(encoder, x, weights.raw[i % copies], y, shape, options));
      }
    }
    return {};
  };
  MLXN_TRY(Graph graph, Graph::record(device, record, wanted.encoder));
  Row row;
  MLXN_TRY(row.plan, plan_matmul(device, shape, prepare, options));
  row.cached = weights.cached;
  row.weight_bytes = prepare ? weights.prepared[0].bytes() : weights.raw[0].bytes();
  MLXN_CHECK(graph.replay_and_wait());
  MLXN_TRY(row.error, check_outputs(c, weights.blocks, wanted.x, x_bytes, y));
  const double of_class = row.plan.numerics == Numerics::int8act ? 5e-4
                          : row.plan.numerics == Numerics::bf16  ? 1e-5
                          : row.plan.numerics == Numerics::f16   ? 1e-6
                                                                 : 1e-11;
  const double bound = of_class + rounding(wanted.y) * rounding(wanted.y);
  if (!(row.error <= bound)) {
    return make_error(ErrorCode::internal, "{} {}x{} m={}: error {:.1e} against the reference, at most {:.0e}", to_string(c.type),
                      c.shape.n, c.shape.k, c.m, row.error, bound);
  }
  std::vector<double> us, reads;
  const auto begin = Clock::now();
  do {
    const auto start = Clock::now();
    MLXN_CHECK(graph.replay_and_wait());
    us.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count() / static_cast<double>(calls));
    MLXN_TRY(const double gbps, probe.gbps());
    reads.push_back(gbps);
  } while (std::chrono::duration<double>(Clock::now() - begin).count() < seconds || us.size() < 3);
  std::sort(us.begin(), us.end());
  std::sort(reads.begin(), reads.end());
  row.read_gbps = reads[reads.size() / 2];
  row.us = us[us.size() / 2];
  row.low_us = us[us.size() / 10];
  row.high_us = us[us.size() - 1 - us.size() / 10];
  return row;
}

/// f32, f16 or bf16, of x and y.
Result<DType> parse_element(std::string_view flag, const std::string& text) {
  for (const DType type : {DType::f32, DType::f16, DType::bf16}) {
    if (to_string(type) == text) return type;
  }
  return make_error(ErrorCode::invalid_argument, "{}: '{}', wanted f32, f16 or bf16", flag, text);
}

Result<Wanted> parse(const BenchMatmulFlags& f) {
  Wanted wanted;
  MatmulOptions& options = wanted.options;
  MLXN_TRY(options.numerics, parse_precision(f.precision));
  if (f.route == "vector") {
    options.route = Route::vector;
  } else if (f.route == "tile") {
    options.route = Route::tile;
  } else if (f.route != "auto") {
    return make_error(ErrorCode::invalid_argument, "--route: '{}', wanted auto, vector or tile", f.route);
  }
  options.batch_invariant = f.batch_invariant;
  MLXN_TRY(wanted.x, parse_element("--x", f.x));
  MLXN_TRY(wanted.y, parse_element("--y", f.y));
  if (f.early_starts != "on" && f.early_starts != "off") {
    return make_error(ErrorCode::invalid_argument, "--early-starts: '{}', wanted on or off", f.early_starts);
  }
  wanted.encoder.early_starts = f.early_starts == "on";
  if (f.door != "prepared" && f.door != "raw") {
    return make_error(ErrorCode::invalid_argument, "--door: '{}', wanted prepared or raw", f.door);
  }
  if (!(f.seconds > 0) || f.seconds > 600) {
    return make_error(ErrorCode::invalid_argument, "--seconds: {}, wanted more than 0 and at most 600", f.seconds);
  }
  wanted.prepared = f.door == "prepared";
  for (const std::string& shape_text : f.shapes) {
    MLXN_TRY(const Shape2 shape, parse_shape(shape_text));
    for (const std::string& type_text : f.types) {
      MLXN_TRY(const DType type, parse_weight_type("--type", type_text, false));
      for (const std::int64_t m : f.rows) {
        if (m < 1) return make_error(ErrorCode::invalid_argument, "--m: {}, wanted at least 1", m);
        if (shape.k % block_elems(type) != 0) {
          return make_error(ErrorCode::invalid_argument, "--shape: K = {} is no multiple of {}, the block of {}", shape.k,
                            block_elems(type), to_string(type));
        }
        const auto elems = checked_product(static_cast<std::uint64_t>(shape.n), shape.k, 4);
        const auto work = checked_product(static_cast<std::uint64_t>(shape.n), shape.k, m, 2);
        if (!elems || !work || *work > kMostWork) {
          return make_error(ErrorCode::invalid_argument, "--shape {} with --m {} is too much work to measure", shape_text, m);
        }
        wanted.cases.push_back({type, shape, m});
      }
    }
  }
  return wanted;
}

/// The device, with the class that is its default; it has the class that was asked for, of every case.
Result<Device> open(const BenchMatmulFlags& f, Wanted& wanted) {
  MLXN_TRY(Device device, open_device(f.device, f.threads));
  MatmulOptions& options = wanted.options;
  if (options.numerics == Numerics::automatic && device.capabilities().backend == "cpu") options.numerics = Numerics::int8act;
  for (const Case& c : wanted.cases) {
    MLXN_CHECK(check_precision(device, MatmulShape{c.m, c.shape.n, c.shape.k, c.type}, wanted.prepared, options));
  }
  return device;
}

Result<int> bench(const BenchMatmulFlags& f) {
  MLXN_TRY(Wanted wanted, parse(f));
  MLXN_TRY(const Device device, open(f, wanted));
  const auto print_ceilings = [&](const Ceilings& c) {
    std::string text = fmt::format("ceilings: read {:.1f} GB/s, ", c.read_gbps);
    if (c.copy_gbps > 0) text += fmt::format("copy {:.1f} GB/s, ", c.copy_gbps);
    text += fmt::format("f32 {:.0f} GFLOP/s", c.f32_gflops);
    if (c.int8_gops > 0) text += fmt::format(", int8 {:.0f} Gop/s", c.int8_gops);
    return print(text + "\n");
  };
  MLXN_TRY(Ceilings ceilings, measure_ceilings(device));
  if (!f.json) {
    const std::string how = fmt::format("x {}, y {}{}{}\n", to_string(wanted.x), to_string(wanted.y),
                                        wanted.options.batch_invariant ? ", batch-invariant" : "",
                                        wanted.encoder.early_starts ? "" : ", no early starts");
    if (!print(device.capabilities().name + "\n") || !print_ceilings(ceilings) || !print(how) ||
        !print(fmt::format("{:8} {:>12} {:>5}  {:28} {:8} {:>10} {:>19} {:>8} {:>9} {:>7}\n", "type", "NxK", "M", "kernel", "class",
                           "us", "10 % .. 90 %", "GB/s", "GFLOP/s", "share"))) {
      return kFailed;
    }
  }
  MLXN_TRY(ReadProbe probe, ReadProbe::make(device));
  for (const Case& c : wanted.cases) {
    MLXN_TRY(const Row row, run_case(device, c, wanted, f.seconds, probe));
    const double gbps = static_cast<double>(row.weight_bytes) / row.us * 1e-3;
    const double gflops = 2.0 * static_cast<double>(c.m * c.shape.n * c.shape.k) / row.us * 1e-3;
    // The nearer of the two limits: memory for few rows, arithmetic for many. Of Hopper's kernels memory always: the peak of the
    // matrix units that they multiply on is not measured, and many times that of f32.
    const bool on_matrix_units = row.plan.kernel.find("_hopper_") != std::string_view::npos;
    const double peak = row.plan.numerics == Numerics::int8act && ceilings.int8_gops > 0 ? ceilings.int8_gops : ceilings.f32_gflops;
    const bool memory_bound = on_matrix_units || gbps / row.read_gbps >= gflops / peak;
    const double share = memory_bound ? gbps / row.read_gbps : gflops / peak;
    bool written = false;
    if (f.json) {
      const nlohmann::json line = {{"op", "matmul"},
                                   {"type", to_string(c.type)},
                                   {"m", c.m},
                                   {"n", c.shape.n},
                                   {"k", c.shape.k},
                                   {"device", device.capabilities().name},
                                   {"kernel", row.plan.kernel},
                                   {"class", to_string(row.plan.numerics)},
                                   {"x", to_string(wanted.x)},
                                   {"y", to_string(wanted.y)},
                                   {"batch_invariant", wanted.options.batch_invariant},
                                   {"early_starts", wanted.encoder.early_starts},
                                   {"us", row.us},
                                   {"gbps", gbps},
                                   {"tflops", gflops * 1e-3},
                                   {"ceiling", memory_bound ? row.read_gbps : peak},
                                   {"share", share},
                                   {"cached", row.cached},
                                   {"nmse", row.error}};
      written = print(line.dump() + "\n");
    } else {
      written = print(fmt::format("{:8} {:>12} {:>5}  {:28} {:8} {:>10.1f} {:>8.1f} .. {:>7.1f} {:>8.1f} {:>9.1f} {:>6.1f}% of {:.1f} {}{}\n",
                                  to_string(c.type), fmt::format("{}x{}", c.shape.n, c.shape.k), c.m, row.plan.kernel,
                                  to_string(row.plan.numerics), row.us, row.low_us, row.high_us, gbps, gflops, share * 100,
                                  memory_bound ? row.read_gbps : peak, memory_bound ? "GB/s" : "GFLOP/s", row.cached ? " (from a cache)" : ""));
    }
    if (!written) return kFailed;
  }
  // Measured again at the end: it tells whether the machine stayed the same.
  MLXN_TRY(const Ceilings after, measure_ceilings(device));
  if (!f.json && !print_ceilings(after)) return kFailed;
  return kOk;
}

/// An operation's implementations, best first: the first one that runs here is taken.
Result<void> explain_op(const ops::OpInfo& op, bool json) {
  std::string text = json ? "" : fmt::format("{}\n", op.name);
  nlohmann::ordered_json variants = nlohmann::ordered_json::array();
  bool taken = false;
  for (const ops::VariantInfo& variant : op.variants) {
    const bool takes = variant.available() && !taken;
    const std::string reason = takes                 ? "taken"
                               : variant.available() ? "runs here too; the first that does is taken"
                                                     : fmt::format("this machine lacks {}", variant.lacks());
    taken = taken || takes;
    text += json ? "" : fmt::format("  {:28}  {}\n", variant.name, reason);
    variants.push_back({{"name", variant.name}, {"backend", variant.backend}, {"taken", takes}, {"reason", reason}});
  }
  if (json) text = nlohmann::ordered_json{{"op", op.name}, {"variants", variants}}.dump() + "\n";
  if (!print(text)) return make_error(ErrorCode::io, "stdout is closed");
  return {};
}

/// `all`: every operation; else the product alone.
Result<int> explain(const BenchMatmulFlags& f, bool all) {
  MLXN_TRY(Wanted wanted, parse(f));
  MLXN_TRY(const Device device, open(f, wanted));
  const Capabilities& machine = device.capabilities();
  if (!f.json && !print(machine.name + "\n")) return kFailed;
  for (const ops::OpInfo* op : ops::op_table()) {
    if ((all || op->name == "matmul") && !explain_op(*op, f.json)) return kFailed;
  }
  for (const Case& c : wanted.cases) {
    const MatmulShape shape{c.m, c.shape.n, c.shape.k, c.type};
    MLXN_TRY(const MatmulPlan plan, plan_matmul(device, shape, wanted.prepared, wanted.options));
    MLXN_TRY(const std::vector<std::string> reasons, ops::explain_matmul(device, shape, wanted.prepared, wanted.options));
    std::string text;
    if (f.json) {
      text = nlohmann::ordered_json{{"op", "matmul"}, {"type", to_string(c.type)},     {"m", c.m},
                                    {"n", c.shape.n}, {"k", c.shape.k},                {"kernel", plan.kernel},
                                    {"class", to_string(plan.numerics)}, {"reasons", reasons}}
                 .dump() +
             "\n";
    } else {
      text = fmt::format("{} {}x{}, m = {}: {}\n", to_string(c.type), c.shape.n, c.shape.k, c.m, plan.kernel);
      for (const std::string& reason : reasons) text += fmt::format("  {}\n", reason);
    }
    if (!print(text)) return kFailed;
  }
  return kOk;
}

}  // namespace

int run_bench_matmul(const BenchMatmulFlags& flags) {
  const Result<int> result = detail::guarded([&] { return flags.explain ? explain(flags, false) : bench(flags); });
  return result ? *result : fail(result.error());
}

int run_bench_explain(const BenchMatmulFlags& flags) {
  const Result<int> result = detail::guarded([&] { return explain(flags, true); });
  return result ? *result : fail(result.error());
}

}  // namespace mlxn::cli
