#include "ops/sample/cpu.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <span>

#include "ops/activation_math.h"
#include "ops/elements.h"
#include "ops/sample/philox.h"
#include "portable/dialect.h"

namespace mlxn::ops {
namespace {

// One body for every machine: with top_k the work is two passes over the logits, which memory bounds, and the tokens that
// come out must not differ between instruction sets, nor from those of kernel.h.
constexpr float kLowest = -std::numeric_limits<float>::infinity();

/// A candidate as one number: ascending order is that of descending logits, then of ascending ids.
std::uint64_t candidate(float logit, std::size_t id) noexcept {
  return (std::uint64_t{~gpu::ascending_bits(logit)} << 32) | id;
}
std::size_t id_of(std::uint64_t c) noexcept { return static_cast<std::uint32_t>(c); }

/// Applies the penalties to the logits of the ids in `window`, which is sorted on the way.
void penalise(const SampleArgs& args, std::span<float> logits, std::span<std::uint32_t> window) noexcept {
  std::sort(window.begin(), window.end());
  for (std::size_t i = 0; i < window.size();) {
    const std::uint32_t id = window[i];
    std::size_t end = i;
    while (end < window.size() && window[end] == id) ++end;
    float& logit = logits[id];
    const float repeated = logit > 0 ? logit / args.repetition_penalty : logit * args.repetition_penalty;
    const float penalty = gpu::add_rn(gpu::mul_rn(static_cast<float>(end - i), args.frequency_penalty), args.presence_penalty);
    logit = gpu::add_rn(repeated, -penalty) + 0.0f;
    if (std::isnan(logit)) logit = kLowest;  // infinity less infinity
    i = end;
  }
}

/// Sign, exponent and two bits of the mantissa, in descending order of the logits.
constexpr int kBinShift = 64 - 11;
constexpr std::size_t kBins = std::size_t{1} << 11;

/// The k greatest logits, in order. A histogram finds the bin of the k-th; what lies in or above it is gathered and only
/// that is sorted.
std::span<const std::uint64_t> greatest(std::span<const float> logits, std::size_t k, std::uint64_t* candidates) noexcept {
  std::uint32_t bins[kBins] = {};
  for (std::size_t i = 0; i < logits.size(); ++i) ++bins[candidate(logits[i], i) >> kBinShift];
  std::uint64_t last = 0;
  for (std::size_t seen = bins[0]; seen < k; seen += bins[last]) ++last;
  std::size_t count = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const std::uint64_t c = candidate(logits[i], i);
    if (c >> kBinShift <= last) candidates[count++] = c;
  }
  if (count > k) std::nth_element(candidates, candidates + k, candidates + count);
  std::sort(candidates, candidates + k);
  return {candidates, k};
}

/// e^((x - top) / temperature), the same bits everywhere. weights may be x.
void to_weights(std::span<const float> x, float top, float temperature, float* weights) noexcept {
  using S = Simd<4>;
  using E = Elements<S, float>;
  const auto weight = [&](S::F v) { return Activation<S>::exp_nonpositive((v - top) / temperature); };
  std::size_t i = 0;
  for (; i + S::kLanes <= x.size(); i += S::kLanes) E::store(weights + i, weight(E::load(&x[i])));
  const auto rest = static_cast<std::int64_t>(x.size() - i);
  if (rest > 0) E::store_part(weights + i, weight(E::load_part(&x[i], rest)), rest);
}

/// A weight as a whole number, see SampleArgs. The product is exact.
std::uint64_t units(const SampleArgs& args, float weight) noexcept {
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(weight * args.weight_scale));
}

struct Draw {
  std::size_t index;
  float logprob;
};

/// The first index whose running sum exceeds u 2^-64 times the total.
Draw draw(const SampleArgs& args, std::span<const float> weights, std::uint64_t u) noexcept {
  std::uint64_t total = 0;
  for (const float w : weights) total += units(args, w);
  std::uint64_t left = gpu::upper_product(u, total);
  for (std::size_t i = 0;; ++i) {
    const std::uint64_t weight = units(args, weights[i]);
    if (weight > left) return {i, static_cast<float>(std::log(static_cast<double>(weight) / static_cast<double>(total)))};
    left -= weight;
  }
}

/// What top_p's part of a sum of weights comes to, rounded up; at least one.
std::uint64_t nucleus_target(const SampleArgs& args, std::uint64_t total) noexcept {
  return std::max<std::uint64_t>(1, gpu::upper_product(args.top_p, total) + (args.top_p * total != 0 ? 1 : 0));
}

/// The number of leading candidates whose weights at temperature 1 reach the target; 0: the one for their own sum. `weights` has
/// room for one per candidate.
std::size_t nucleus(const SampleArgs& args, std::span<const std::uint64_t> candidates, std::span<const float> logits, float top,
                    std::uint64_t target, float* weights) noexcept {
  for (std::size_t i = 0; i < candidates.size(); ++i) weights[i] = logits[id_of(candidates[i])];
  to_weights({weights, candidates.size()}, top, 1.0f, weights);
  if (target == 0) {
    std::uint64_t total = 0;
    for (std::size_t i = 0; i < candidates.size(); ++i) total += units(args, weights[i]);
    target = nucleus_target(args, total);
  }
  std::uint64_t sum = 0;
  std::size_t kept = 0;
  while (sum < target) sum += units(args, weights[kept++]);
  return kept;
}

/// Candidates that survive top_k and top_p, in order.
std::span<const std::uint64_t> leaders(const SampleArgs& args, std::span<const float> logits, float top,
                                       std::uint64_t* candidates, float* weights) noexcept {
  const auto k = static_cast<std::size_t>(args.top_k);
  if (args.nucleus == 0) return greatest(logits, k, candidates);
  if (k < logits.size()) {
    const auto best = greatest(logits, k, candidates);
    return best.first(nucleus(args, best, logits, top, 0, weights));
  }
  // The weight of each bin tells how far the nucleus reaches before anything is sorted.
  std::uint64_t mass[kBins] = {}, total = 0;
  std::uint32_t count[kBins] = {};
  to_weights(logits, top, 1.0f, weights);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const std::size_t bin = candidate(logits[i], i) >> kBinShift;
    const std::uint64_t weight = units(args, weights[i]);
    mass[bin] += weight;
    ++count[bin];
    total += weight;
  }
  const std::uint64_t target = nucleus_target(args, total);
  std::size_t reach = 0;
  for (std::uint64_t sum = 0, bin = 0; sum < target; ++bin) {
    reach += count[bin];
    sum += mass[bin];
  }
  const auto best = greatest(logits, reach, candidates);
  return best.first(nucleus(args, best, logits, top, target, weights));
}

Draw sample_row(const SampleArgs& args, std::int64_t row, std::uint8_t* slot) noexcept {
  const auto vocab = static_cast<std::size_t>(args.vocab);
  auto* candidates = reinterpret_cast<std::uint64_t*>(slot);
  const std::span<float> logits(reinterpret_cast<float*>(candidates + vocab), vocab);
  const float* given = args.logits.ptr + row * args.logits_stride;
  for (std::size_t i = 0; i < vocab; ++i) logits[i] = given[i] == given[i] ? given[i] + 0.0f : kLowest;  // -0 becomes +0
  if (args.recent.ptr != nullptr) {
    const std::uint32_t* recent = args.recent.ptr + row * args.recent_stride;
    auto* window = reinterpret_cast<std::uint32_t*>(logits.data() + vocab);
    std::size_t used = 0;
    for (std::int64_t i = 0; i < args.count.value; ++i) {
      if (recent[i] < vocab) window[used++] = recent[i];
    }
    penalise(args, logits, {window, used});
  }

  float top = kLowest;
  for (const float l : logits) top = l > top ? l : top;
  if (top == kLowest) return {0, kLowest};
  if (args.temperature == 0) {
    return {static_cast<std::size_t>(std::find(logits.begin(), logits.end(), top) - logits.begin()), 0.0f};
  }
  if (top == -kLowest) {  // infinities share among themselves
    for (float& l : logits) l = l == top ? 0.0f : kLowest;
    top = 0;
  }

  const std::uint64_t u = philox_fraction(args.seed, static_cast<std::uint64_t>(args.step.value), static_cast<std::uint64_t>(row));
  const auto kept = [&](float logit) { return logit - top >= args.min_log; };
  if (!is_ordered(args)) {  // tokens by id
    for (float& l : logits) l = kept(l) ? l : kLowest;
    to_weights(logits, top, args.temperature, logits.data());
    return draw(args, logits, u);
  }
  auto* room = reinterpret_cast<float*>(slot + args.vocab * 12 + args.window * 4);
  const auto best = leaders(args, logits, top, candidates, room);
  std::size_t count = 0;
  for (; count < best.size() && kept(logits[id_of(best[count])]); ++count) room[count] = logits[id_of(best[count])];
  const std::span<float> weights(room, count);
  to_weights(weights, top, args.temperature, room);
  const Draw drawn = draw(args, weights, u);
  return {id_of(best[drawn.index]), drawn.logprob};
}

}  // namespace

std::uint64_t sample_slot_bytes(std::int64_t vocab, std::int64_t window) noexcept {
  const std::uint64_t bytes = 16 * static_cast<std::uint64_t>(vocab) + 4 * static_cast<std::uint64_t>(window);
  return (bytes + 63) / 64 * 64;
}

void sample_rows(const SampleArgs& args, const CpuContext& context) {
  const auto share = context.share(static_cast<std::uint64_t>(args.rows));
  std::uint8_t* slot =
      args.workspace.ptr + static_cast<std::uint64_t>(context.thread) * args.slot_bytes;
  for (auto row = static_cast<std::int64_t>(share.begin); row < static_cast<std::int64_t>(share.end); ++row) {
    const Draw drawn = sample_row(args, row, slot);
    args.ids.ptr[row] = static_cast<std::uint32_t>(drawn.index);
    if (args.logprobs.ptr != nullptr) args.logprobs.ptr[row] = drawn.logprob;
  }
}

}  // namespace mlxn::ops
