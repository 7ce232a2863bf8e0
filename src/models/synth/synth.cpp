#include "mlxn/synth.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>
#include <system_error>
#include <thread>

#include "base/call_user.h"
#include "base/check_value.h"
#include "base/system_memory.h"
#include "models/synth/recipes.h"
#include "models/synth/vocabulary.h"
#include "quant/random_blocks.h"

namespace mlxn {
namespace {

using models::SynthFill;
using models::SynthTensor;

/// One piece is the unit of work, and of the seeds: what is in a file does not depend on the threads that made it.
constexpr std::uint64_t kPieceElems = std::uint64_t{1} << 18;
constexpr std::uint64_t kBatchPieces = 64;
constexpr int kMostThreads = 1024;

std::uint64_t mix(std::uint64_t a, std::uint64_t b) noexcept {
  std::uint64_t z = a * 0x9E3779B97F4A7C15u + b + 0x632BE59BD9B4E019u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

/// Sizes and numbers that the reader accepts (rule V15), so that nobody is handed a file that cannot be loaded.
Result<void> check(const SynthModel& m) {
  MLXN_CHECK(check_enum("synth", "vocabulary", m.vocabulary, SynthVocabulary::qwen2));
  struct Range {
    std::string_view what;
    std::uint64_t value, least, most;
  };
  const std::uint64_t most_dim = std::uint64_t{1} << 20;
  const Range ranges[] = {{"layers", m.layers, 1, 1024},
                          {"embedding", m.embedding, 1, most_dim},
                          {"feed_forward", m.feed_forward, 1, std::uint64_t{1} << 24},
                          {"heads", m.heads, 1, 65536},
                          {"kv_heads", m.kv_heads, 1, m.heads},
                          {"head_dim", m.head_dim, 2, most_dim},
                          {"vocab", m.vocab, 1, std::uint64_t{1} << 24},
                          {"context", m.context, 1, INT32_MAX},
                          {"window", m.window, 0, INT32_MAX}};
  for (const Range& r : ranges) {
    if (r.value >= r.least && r.value <= r.most) continue;
    return make_error(ErrorCode::invalid_argument, "synth: {} is {}, wanted {} to {}", r.what, r.value, r.least, r.most);
  }
  if (m.heads % m.kv_heads != 0) {
    return make_error(ErrorCode::invalid_argument, "synth: {} heads for {} kv_heads, wanted a multiple", m.heads, m.kv_heads);
  }
  if (m.head_dim % 2 != 0) return make_error(ErrorCode::invalid_argument, "synth: head_dim is {}, wanted an even number", m.head_dim);
  struct Interval {
    std::string_view what;
    double value, least, most;
    bool zero_is_none;
  };
  // The file keeps them in f32.
  using Float = std::numeric_limits<float>;
  const Interval intervals[] = {{"rms_epsilon", m.rms_epsilon, Float::min(), Float::max(), false},
                                {"rope_base", m.rope_base, 1, Float::max(), false},
                                {"rope_linear", m.rope_linear, 1, 1e6, true},
                                {"rope_llama3", m.rope_llama3, 1, 1e6, true},
                                {"attn_softcap", m.attn_softcap, Float::min(), 1e6, true},
                                {"final_softcap", m.final_softcap, Float::min(), 1e6, true}};
  for (const Interval& i : intervals) {
    if ((i.value >= i.least && i.value <= i.most) || (i.zero_is_none && i.value == 0)) continue;
    return make_error(ErrorCode::invalid_argument, "synth: {} is {}, wanted {} to {}{}", i.what, i.value, i.least, i.most,
                      i.zero_is_none ? ", or 0 for none" : "");
  }
  return {};
}

/// Llama 3.1's divisors: 1 for short wavelengths, `factor` for long ones, between them a smooth way from one to the other.
float rope_factor(const SynthModel& m, std::uint64_t pair) {
  constexpr double kLow = 1, kHigh = 4, kContext = 8192;
  const double frequency = std::pow(m.rope_base, -2.0 * static_cast<double>(pair) / static_cast<double>(m.head_dim));
  const double wavelength = 2 * std::numbers::pi / frequency;
  if (wavelength < kContext / kHigh) return 1;
  if (wavelength > kContext / kLow) return static_cast<float>(m.rope_llama3);
  const double t = (kContext / wavelength - kLow) / (kHigh - kLow);
  return static_cast<float>(1 / ((1 - t) / m.rope_llama3 + t));
}

/// Fills memory with elements [first, first + count) of a tensor, which is one piece.
struct Filler {
  const SynthModel& model;
  SynthFill fill;
  DType type;
  float scale;
  std::uint64_t seed;  // of the tensor

  void operator()(std::uint64_t first, std::uint64_t count, std::byte* out) const noexcept {
    if (fill == SynthFill::rope_factors) {
      for (std::uint64_t i = 0; i < count; ++i) {
        const float value = rope_factor(model, first + i);
        std::memcpy(out + 4 * i, &value, 4);
      }
      return;
    }
    quant::fill_random_blocks(type, out, count / block_elems(type), scale, mix(seed, first));
    if (fill != SynthFill::norm) return;
    for (std::uint64_t i = 0; i < count; ++i) {
      float value = 0;
      std::memcpy(&value, out + 4 * i, 4);
      value += 1;
      std::memcpy(out + 4 * i, &value, 4);
    }
  }
};

/// A batch of consecutive pieces of one tensor that threads fill together.
class Batch {
 public:
  void start(const Filler& filler, std::uint64_t first, std::uint64_t elems, int threads) {
    first_ = first;
    elems_ = elems;
    next_ = 0;
    bytes_.resize(elems / block_elems(filler.type) * block_bytes(filler.type));
    const auto pieces = static_cast<int>((elems + kPieceElems - 1) / kPieceElems);
    for (int i = 0; i < std::min(threads, pieces); ++i) {
      try {
        workers_.emplace_back([this, &filler] { work(filler); });
      } catch (const std::system_error&) {
        break;  // the system gives no more threads: those that there are do it, or finish() does
      }
    }
  }
  /// Waits for the threads, works along, and returns the bytes.
  std::span<const std::byte> finish(const Filler& filler) {
    if (workers_.empty()) work(filler);
    workers_.clear();  // joins
    return bytes_;
  }

 private:
  void work(const Filler& filler) noexcept {
    while (true) {
      const std::uint64_t at = next_.fetch_add(kPieceElems);
      if (at >= elems_) return;
      const std::uint64_t offset = at / block_elems(filler.type) * block_bytes(filler.type);
      filler(first_ + at, std::min(kPieceElems, elems_ - at), bytes_.data() + offset);
    }
  }

  std::uint64_t first_ = 0, elems_ = 0;
  std::atomic<std::uint64_t> next_ = 0;
  std::vector<std::byte> bytes_;
  std::vector<std::jthread> workers_;  // last: they join before what they use goes away
};

class Synthesis {
 public:
  Synthesis(const SynthModel& model, const SynthOptions& options, GgufWriter& writer)
      : model_(model), options_(options), writer_(writer), threads_(options.threads == 0 ? usable_cores() : options.threads) {}

  [[nodiscard]] Result<SynthReport> run(const std::vector<SynthTensor>& tensors) {
    for (const SynthTensor& t : tensors) {
      MLXN_CHECK(writer_.add_tensor(t.name, type_of(t), t.ne));
      report_.parameters += elems_of(t);
      report_.tensor_bytes += *storage_bytes(type_of(t), elems_of(t));  // the writer has checked it
    }
    MLXN_CHECK(writer_.begin());
    for (std::size_t i = 0; i < tensors.size(); ++i) MLXN_CHECK(write(tensors[i], mix(options_.seed, i)));
    MLXN_CHECK(writer_.finish());
    report_.file_bytes = writer_.file_bytes();
    report_.paths.assign(writer_.paths().begin(), writer_.paths().end());
    return std::move(report_);
  }

 private:
  [[nodiscard]] DType type_of(const SynthTensor& t) const noexcept { return t.fill == SynthFill::matrix ? options_.type : DType::f32; }
  [[nodiscard]] static std::uint64_t elems_of(const SynthTensor& t) noexcept { return t.ne.size() == 2 ? t.ne[0] * t.ne[1] : t.ne[0]; }

  /// Fills one batch while the one before it is written.
  Result<void> write(const SynthTensor& tensor, std::uint64_t seed) {
    const DType type = type_of(tensor);
    const float rms = tensor.fill == SynthFill::matrix ? 1.0f / std::sqrt(static_cast<float>(tensor.ne[0])) : 0.05f;
    const Filler filler{model_, tensor.fill, type, quant::random_scale(type, rms), seed};
    const std::uint64_t all = elems_of(tensor), most = kBatchPieces * kPieceElems;
    Batch batches[2];
    batches[0].start(filler, 0, std::min(most, all), threads_);
    for (std::uint64_t at = 0, turn = 0; at < all; at += most, turn ^= 1) {
      const auto bytes = batches[turn].finish(filler);
      if (at + most < all) batches[turn ^ 1].start(filler, at + most, std::min(most, all - at - most), threads_);
      MLXN_CHECK(writer_.write(bytes));
      written_ += bytes.size();
      if (!options_.progress) continue;
      MLXN_TRY(const bool goes_on, call_user("synth: the function `progress`",
                                             [&]() -> Result<bool> { return options_.progress(written_, report_.tensor_bytes); }));
      if (!goes_on) {
        return make_error(ErrorCode::cancelled, "synth: stopped after {} of {} bytes", written_, report_.tensor_bytes);
      }
    }
    return {};
  }

  const SynthModel& model_;
  const SynthOptions& options_;
  GgufWriter& writer_;
  int threads_;
  std::uint64_t written_ = 0;
  SynthReport report_;
};

}  // namespace

Result<SynthReport> synthesize(const std::filesystem::path& target, const SynthModel& wanted, const SynthOptions& options) noexcept {
  return detail::guarded([&]() -> Result<SynthReport> {
    MLXN_CHECK(check_dtype("synth", options.type));
    if (!is_weight_type(options.type) || info(options.type).gguf_id < 0) {
      return make_error(ErrorCode::unsupported, "synth: type {} {}", to_string(options.type),
                        is_weight_type(options.type) ? "is none of GGUF's" : "has no kernels");
    }
    if (options.threads < 0 || options.threads > kMostThreads) {
      return make_error(ErrorCode::invalid_argument, "synth: {} threads, wanted 1 to {}, or 0 for one per core", options.threads, kMostThreads);
    }
    SynthModel model = wanted;
    if (model.kv_heads == 0) model.kv_heads = model.heads;
    if (model.head_dim == 0 && model.heads != 0) {
      if (model.embedding % model.heads != 0) {
        return make_error(ErrorCode::invalid_argument, "synth: an embedding of {} for {} heads, wanted a multiple or a head_dim",
                          model.embedding, model.heads);
      }
      model.head_dim = model.embedding / model.heads;
    }
    MLXN_CHECK(models::synth_traits(model.architecture));
    MLXN_CHECK(check(model));
    MLXN_TRY(GgufWriter writer, GgufWriter::create(target, options.write));
    MLXN_CHECK(models::add_architecture(writer, model, options.type));
    MLXN_CHECK(models::add_vocabulary(writer, model.vocabulary, model.vocab, options.seed));
    MLXN_TRY(const std::vector<SynthTensor> tensors, models::synth_tensors(model));
    return Synthesis(model, options, writer).run(tensors);
  });
}

}  // namespace mlxn
