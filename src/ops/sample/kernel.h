#pragma once

#include "ops/sample/args.h"
#include "ops/sample/philox.h"
#include "portable/dialect.h"

namespace mlxn {
namespace gpu {

// A row goes through up to four launches, the first three of which spread it over groups chunk by chunk:
//   prepare  applies the penalties, turns logits into ranks, finds the greatest one of each chunk
//   weigh    sums the weights of each chunk; if candidates are put in order, counts or weighs the tokens by their distance
//            from the greatest logit instead
//   gather   lists the tokens near enough to the greatest one to be candidates
//   draw     finds the k-th candidate, the end of the nucleus and the token drawn, each by a radix search over few candidates
// Temperature 0 needs the first and the last one, no filter but min_p all but gather. The order in which tokens are listed or
// added does not matter: sums are of integers, and searches are for the n-th in the order of (rank, id).

/// Tokens of a chunk.
constexpr uint32_t kSampleChunk = 4096;
/// Distances from the greatest logit are binned by quarters, all from 31.75 on in the last one.
constexpr uint32_t kSampleBins = 128;

/// What a row keeps between the launches. Ascending ranks are descending logits.
struct SampleRow {
  MLXN_GLOBAL uint32_t* listed;  ///< [1] candidates in the list
  MLXN_GLOBAL uint32_t* low;     ///< [kSampleBins] lower halves of the bins' sums, and upper ones
  MLXN_GLOBAL uint32_t* high;
  MLXN_GLOBAL uint64_t* best;    ///< [chunks] complement of the rank above, complement of the id below: the greatest is the best
  MLXN_GLOBAL uint64_t* sums;    ///< [chunks] of weights
  MLXN_GLOBAL uint64_t* list;    ///< [vocab] rank above, id below
  MLXN_GLOBAL uint32_t* ranks;   ///< [vocab]
};
constexpr uint32_t kSampleHeadWords = 8 + 2 * kSampleBins;

MLXN_FN SampleRow sample_row(const ops::SampleArgs& args, uint64_t row) {
  MLXN_GLOBAL uint8_t* slot = args.workspace.ptr + row * args.slot_bytes;
  SampleRow r;
  r.listed = (MLXN_GLOBAL uint32_t*)slot;
  r.low = r.listed + 8;
  r.high = r.low + kSampleBins;
  r.best = (MLXN_GLOBAL uint64_t*)(r.listed + kSampleHeadWords);
  r.sums = r.best + args.chunks;
  r.list = r.sums + args.chunks;
  r.ranks = (MLXN_GLOBAL uint32_t*)(r.list + args.vocab);
  return r;
}

/// A group's part of a row.
struct SampleChunk {
  uint32_t row, number, begin, size;
};
MLXN_FN SampleChunk sample_chunk(const ops::SampleArgs& args, const Thread& t) {
  SampleChunk c;
  c.row = t.group.x / args.chunks;
  c.number = t.group.x % args.chunks;
  c.begin = c.number * kSampleChunk;
  c.size = min(kSampleChunk, uint32_t(args.vocab) - c.begin);
  return c;
}

MLXN_FN float sample_logit(uint32_t rank) { return from_ascending_bits(~rank); }

/// How far a logit lies from the greatest one, at most 0. Infinities are none from each other.
MLXN_FN float sample_distance(uint32_t rank, float top) {
  const float logit = sample_logit(rank);
  return logit == top ? 0.0f : logit - top;
}

/// exp_nonpositive of ops/activation_math.h, rounding by rounding.
MLXN_FN float sample_exp(float x) {
  if (x < -87.3f) return 0.0f;
  constexpr float kMagic = 0x1.8p23f;
  const float shifted = add_rn(mul_rn(x, 1.44269504f), kMagic);
  const float n = add_rn(shifted, -kMagic);
  const float r = add_rn(add_rn(x, -mul_rn(n, 0.693359375f)), mul_rn(n, 2.12194440e-4f));
  float p = add_rn(mul_rn(r, 0.000198911803f), 0.00139338209f);
  p = add_rn(mul_rn(p, r), 0.00833331048f);
  p = add_rn(mul_rn(p, r), 0.041666463f);
  p = add_rn(mul_rn(p, r), 0.166666672f);
  p = add_rn(mul_rn(p, r), 0.5f);
  const float mantissa = add_rn(add_rn(mul_rn(p, mul_rn(r, r)), r), 1.0f);
  return mul_rn(mantissa, float_from_bits((float_bits(shifted) - (0x4b400000u - 127u)) << 23));
}
MLXN_FN uint64_t sample_weight(const ops::SampleArgs& args, float distance, float temperature) {
  return uint64_t(mul_rn(sample_exp(distance / temperature), args.weight_scale));
}
/// The weight with which a token is drawn.
MLXN_FN uint64_t drawn_weight(const ops::SampleArgs& args, float distance) {
  return distance >= args.min_log ? sample_weight(args, distance, args.temperature) : 0;
}
/// What top_p's part of a sum of weights comes to, rounded up; at least one.
MLXN_FN uint64_t nucleus_target(const ops::SampleArgs& args, uint64_t total) {
  const uint64_t whole = upper_product(args.top_p, total) + (args.top_p * total != 0 ? 1 : 0);
  return whole == 0 ? 1 : whole;
}

MLXN_FN uint32_t sample_bin(float distance) {
  return distance > -31.75f ? uint32_t(distance * -4.0f) : kSampleBins - 1;
}

/// Adds to a sum whose halves lie apart. Every carry is seen by the one addition that causes it, in whatever order they come.
template <class Word>
MLXN_FN void add_to_sum(Word low, Word high, uint64_t v) {
  const uint32_t before = atomic_add(low, uint32_t(v));
  const uint32_t carry = uint32_t(before + uint32_t(v)) < before ? 1u : 0u;
  const uint32_t upper = uint32_t(v >> 32) + carry;
  if (upper != 0) atomic_add(high, upper);
}

/// A place in a sequence of sums: the first one with which they reach the target.
struct SamplePlace {
  uint32_t index;
  uint64_t before, mass;  ///< the sum of those before it, and its own
};
/// A SIMD-group looks for the place, kPerLane sums a lane; 1 <= target <= their sum.
template <uint32_t kPerLane>
MLXN_FN SamplePlace find_place(const Thread& t, const uint64_t (&sums)[kPerLane], uint64_t upto, uint64_t target) {
  uint64_t before = upto;
  MLXN_UNROLL
  for (uint32_t i = 0; i < kPerLane; ++i) before -= sums[i];
  const bool here = before < target && target <= upto;
  uint32_t index = 0;
  uint64_t mass = 0;
  bool found = !here;
  MLXN_UNROLL
  for (uint32_t i = 0; i < kPerLane; ++i) {
    if (found) continue;
    if (before + sums[i] >= target) {
      index = t.lane() * kPerLane + i;
      mass = sums[i];
      found = true;
    } else {
      before += sums[i];
    }
  }
  SamplePlace place;
  place.index = simd_sum(t, here ? index : 0u);
  place.before = simd_max(t, here ? before : uint64_t(0));
  place.mass = simd_max(t, mass);
  return place;
}
template <uint32_t kPerLane, class Word>
MLXN_FN uint64_t load_sums(const Thread& t, Word low, Word high, uint64_t (&sums)[kPerLane]) {
  uint64_t sum = 0;
  MLXN_UNROLL
  for (uint32_t i = 0; i < kPerLane; ++i) {
    sums[i] = uint64_t(high[t.lane() * kPerLane + i]) << 32 | low[t.lane() * kPerLane + i];
    sum += sums[i];
  }
  return simd_prefix_sum(t, sum);
}

/// The best of a row, as its chunks have it.
template <uint32_t kThreads>
MLXN_FN uint64_t best_of_row(const ops::SampleArgs& args, const SampleRow& row, const Thread& t, MLXN_SHARED uint64_t* scratch) {
  uint64_t best = 0;
  for (uint32_t i = t.index; i < args.chunks; i += kThreads) best = max(best, row.best[i]);
  return group_max<kThreads>(t, best, scratch);
}

/// A group takes a chunk; every group with penalties reads the whole window. Bound by memory.
struct SamplePrepare {
  using Args = ops::SampleArgs;
  static constexpr uint32_t kThreads = 256;
  struct Shared {
    uint32_t counts[kSampleChunk];
    uint64_t best[kThreads / kSimdWidth];
  };

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    const SampleChunk chunk = sample_chunk(args, t);
    const SampleRow row = sample_row(args, chunk.row);
    if (chunk.number == 0) {
      for (uint32_t i = t.index; i < kSampleHeadWords; i += kThreads) row.listed[i] = 0;
    }
    const bool penalised = args.recent.ptr;
    if (penalised) {
      MLXN_GLOBAL const uint32_t* recent = args.recent.ptr + int64_t(chunk.row) * args.recent_stride;
      const int64_t count = load(args.count);
      for (uint32_t i = t.index; i < chunk.size; i += kThreads) shared.counts[i] = 0;
      t.barrier();
      for (int64_t i = t.index; i < count; i += kThreads) {
        const uint32_t place = recent[i] - chunk.begin;
        if (place < chunk.size) atomic_add(&shared.counts[place], 1);
      }
      t.barrier();
    }
    MLXN_GLOBAL const float* logits = args.logits.ptr + int64_t(chunk.row) * args.logits_stride + chunk.begin;
    uint64_t best = 0;
    for (uint32_t i = t.index; i < chunk.size; i += kThreads) {
      float logit = logits[i];
      if (penalised && shared.counts[i] != 0) logit = penalise(args, logit, shared.counts[i]);
      if (is_nan(logit)) logit = -infinity();
      const uint32_t bits = ascending_bits(logit + 0.0f);  // -0 becomes +0
      row.ranks[chunk.begin + i] = ~bits;
      best = max(best, uint64_t(bits) << 32 | uint32_t(~(chunk.begin + i)));
    }
    best = group_max<kThreads>(t, best, shared.best);
    if (t.index == 0) row.best[chunk.number] = best;
  }

 private:
  static MLXN_FN float penalise(const Args& args, float logit, uint32_t count) {
    const float repeated = logit > 0.0f ? logit / args.repetition_penalty : mul_rn(logit, args.repetition_penalty);
    return add_rn(repeated, -add_rn(mul_rn(float(count), args.frequency_penalty), args.presence_penalty));
  }
};

/// A group takes a chunk. Bound by memory, unless most tokens fall into one bin, which costs an atomic operation each.
struct SampleWeigh {
  using Args = ops::SampleArgs;
  static constexpr uint32_t kThreads = 256;
  struct Shared {
    uint32_t low[kSampleBins], high[kSampleBins];
    uint64_t best[kThreads / kSimdWidth];
  };

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    const SampleChunk chunk = sample_chunk(args, t);
    const SampleRow row = sample_row(args, chunk.row);
    if (is_ordered(args)) {
      for (uint32_t i = t.index; i < kSampleBins; i += kThreads) shared.low[i] = shared.high[i] = 0;
    }
    const uint64_t best = best_of_row<kThreads>(args, row, t, shared.best);
    const float top = sample_logit(~uint32_t(best >> 32));
    uint64_t sum = 0;
    for (uint32_t i = t.index; i < chunk.size; i += kThreads) {
      const float distance = sample_distance(row.ranks[chunk.begin + i], top);
      if (!is_ordered(args)) {
        sum += drawn_weight(args, distance);
      } else if (args.top_k < args.vocab) {
        atomic_add(&shared.low[sample_bin(distance)], 1);
      } else if (const uint64_t weight = sample_weight(args, distance, 1.0f)) {
        const uint32_t bin = sample_bin(distance);
        add_to_sum(&shared.low[bin], &shared.high[bin], weight);
      }
    }
    if (is_ordered(args)) {
      t.barrier();
      for (uint32_t i = t.index; i < kSampleBins; i += kThreads) {
        const uint64_t bin_sum = uint64_t(shared.high[i]) << 32 | shared.low[i];
        if (bin_sum != 0) add_to_sum(row.low + i, row.high + i, bin_sum);
      }
      return;
    }
    sum = simd_prefix_sum(t, sum);
    t.barrier();  // all have read the best
    if (t.lane() == kSimdWidth - 1) shared.best[t.simd()] = sum;
    t.barrier();
    if (t.index != 0) return;
    uint64_t total = 0;
    for (uint32_t i = 0; i < kThreads / kSimdWidth; ++i) total += shared.best[i];
    row.sums[chunk.number] = total;
  }
};

/// A group takes a chunk. Bound by memory.
struct SampleGather {
  using Args = ops::SampleArgs;
  static constexpr uint32_t kThreads = 256;
  struct Shared {
    uint64_t best[kThreads / kSimdWidth];
    uint32_t count, base;
  };

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    const SampleChunk chunk = sample_chunk(args, t);
    const SampleRow row = sample_row(args, chunk.row);
    if (t.index == 0) shared.count = 0;
    const uint64_t best = best_of_row<kThreads>(args, row, t, shared.best);
    const float top = sample_logit(~uint32_t(best >> 32));
    // Every SIMD-group finds the last bin of candidates by itself.
    uint64_t sums[kSampleBins / kSimdWidth];
    const uint64_t upto = load_sums(t, row.low, row.high, sums);
    const uint64_t target = args.top_k < args.vocab ? uint64_t(args.top_k) : nucleus_target(args, simd_max(t, upto));
    const uint32_t last = find_place(t, sums, upto, target).index;
    uint32_t mine = 0;
    for (uint32_t i = t.index; i < chunk.size; i += kThreads) {
      if (sample_bin(sample_distance(row.ranks[chunk.begin + i], top)) <= last) ++mine;
    }
    const uint32_t place = mine != 0 ? atomic_add(&shared.count, mine) : 0;
    t.barrier();
    if (t.index == 0 && shared.count != 0) shared.base = atomic_add(row.listed, shared.count);
    t.barrier();
    if (mine == 0) return;
    MLXN_GLOBAL uint64_t* to = row.list + shared.base + place;
    for (uint32_t i = t.index; i < chunk.size; i += kThreads) {
      const uint32_t rank = row.ranks[chunk.begin + i];
      if (sample_bin(sample_distance(rank, top)) <= last) *to++ = uint64_t(rank) << 32 | (chunk.begin + i);
    }
  }
};

/// A group takes a row. A search goes digit by digit of eight bits: a histogram of those that share the digits found so far, in
/// shared memory. Bound by the latency of its barriers, three a digit.
struct SampleDraw {
  using Args = ops::SampleArgs;
  static constexpr uint32_t kThreads = 512;
  static constexpr uint32_t kDigits = 256;
  struct Shared {
    uint32_t low[kDigits], high[kDigits];
    uint64_t best[kThreads / kSimdWidth];
    uint64_t total, target, before, mass;  // what the first SIMD-group finds
    uint32_t digit, id;
  };

  /// What is searched: items with a key and a weight.
  struct Chunks {  ///< by number
    MLXN_GLOBAL const uint64_t* sums;
    uint32_t size;
    MLXN_FN uint32_t key(uint32_t i) const { return i; }
    MLXN_FN uint64_t weight(const Args&, uint32_t i) const { return sums[i]; }
  };
  struct Tokens {  ///< of a chunk, by place
    MLXN_GLOBAL const uint32_t* ranks;
    uint32_t size;
    float top;
    MLXN_FN uint32_t key(uint32_t i) const { return i; }
    MLXN_FN uint64_t weight(const Args& args, uint32_t i) const { return drawn_weight(args, sample_distance(ranks[i], top)); }
  };
  enum Weighing : uint32_t { count, temperature_one, drawn };
  struct Candidates {  ///< up to the last one, by what their ranks lack to the best one's
    MLXN_GLOBAL const uint64_t* list;
    uint32_t size;
    uint32_t best_rank;
    float top;
    uint64_t last;
    Weighing weighing;
    MLXN_FN uint32_t key(uint32_t i) const { return uint32_t(list[i] >> 32) - best_rank; }
    MLXN_FN uint64_t weight(const Args& args, uint32_t i) const { return list[i] <= last ? weight_of(args, key(i)) : 0; }
    MLXN_FN uint64_t weight_of(const Args& args, uint32_t k) const {
      if (weighing == count) return 1;
      const float distance = sample_distance(best_rank + k, top);
      return weighing == drawn ? drawn_weight(args, distance) : sample_weight(args, distance, 1.0f);
    }
  };
  struct Equals {  ///< candidates of one rank up to the last one, by id
    MLXN_GLOBAL const uint64_t* list;
    uint32_t size;
    uint32_t rank;
    uint64_t last;
    MLXN_FN uint32_t key(uint32_t i) const { return uint32_t(list[i]); }
    MLXN_FN uint64_t weight(const Args&, uint32_t i) const { return uint32_t(list[i] >> 32) == rank && list[i] <= last ? 1 : 0; }
  };

  /// How far a search goes: to a sum, or to what top_p or a random number makes of the sum of all.
  enum Goal : uint32_t { sum, nucleus, random };
  struct Found {
    uint32_t key;
    uint64_t target, total;
    uint64_t before, mass;  ///< of the lesser keys, and of this one
  };

  /// The least key with which the sum of weights reaches the goal. Keys are below 2^bits, a multiple of 8.
  template <class Items>
  static MLXN_FN Found search(const Args& args, const Thread& t, MLXN_SHARED Shared& shared, const Items& items, uint32_t bits, Goal goal,
                              uint64_t number) {
    Found found;
    found.key = 0;
    found.target = number;
    found.total = found.before = found.mass = 0;
    for (uint32_t shift = bits; shift > 0;) {
      shift -= 8;
      for (uint32_t i = t.index; i < kDigits; i += kThreads) shared.low[i] = shared.high[i] = 0;
      t.barrier();
      for (uint32_t i = t.index; i < items.size; i += kThreads) {
        const uint32_t key = items.key(i);
        if (shift + 8 != bits && key >> (shift + 8) != found.key) continue;
        const uint32_t digit = key >> shift & (kDigits - 1);
        const uint64_t weight = items.weight(args, i);
        if (weight != 0) add_to_sum(&shared.low[digit], &shared.high[digit], weight);
      }
      t.barrier();
      if (t.simd() == 0) {
        uint64_t sums[kDigits / kSimdWidth];
        const uint64_t upto = load_sums(t, shared.low, shared.high, sums);
        if (shift + 8 == bits) {
          found.total = simd_max(t, upto);
          if (goal == nucleus) found.target = nucleus_target(args, found.total);
          if (goal == random) found.target = upper_product(number, found.total) + 1;
        }
        const SamplePlace place = find_place(t, sums, upto, found.target - found.before);
        if (t.lane() == 0) {
          shared.total = found.total;
          shared.target = found.target;
          shared.before = found.before + place.before;
          shared.mass = place.mass;
          shared.digit = place.index;
        }
      }
      t.barrier();
      found.total = shared.total;
      found.target = shared.target;
      found.before = shared.before;
      found.mass = shared.mass;
      found.key = found.key << 8 | shared.digit;
    }
    return found;
  }

  /// The digits' bits of keys up to v.
  static MLXN_FN uint32_t bits_for(uint32_t v) { return v < 0x100u ? 8 : v < 0x10000u ? 16 : v < 0x1000000u ? 24 : 32; }

  static MLXN_FN void put(const Args& args, const Thread& t, uint32_t row, uint32_t id, float logprob) {
    if (t.index != 0) return;
    args.ids.ptr[row] = id;
    if (args.logprobs.ptr) args.logprobs.ptr[row] = logprob;
  }

  /// The candidate at which a search of candidates ended: the ranks tell them apart, if several are equal their ids do. `each`
  /// is the weight of one of them.
  static MLXN_FN uint64_t candidate_at(const Args& args, const Thread& t, MLXN_SHARED Shared& shared, const Candidates& all,
                                       const Found& found, uint64_t each) {
    const uint32_t rank = all.best_rank + found.key;
    const uint64_t above = uint64_t(rank) << 32;
    if (found.mass == each) {
      // There is one, and it is the only one that passes.
      for (uint32_t i = t.index; i < all.size; i += kThreads) {
        const uint64_t c = all.list[i];
        if (uint32_t(c >> 32) == rank && c <= all.last) shared.id = uint32_t(c);
      }
      t.barrier();
      const uint32_t id = shared.id;
      t.barrier();
      return above | id;
    }
    Equals equals;
    equals.list = all.list;
    equals.size = all.size;
    equals.rank = rank;
    equals.last = all.last;
    const uint64_t nth = (found.target - found.before + each - 1) / each;
    return above | search(args, t, shared, equals, bits_for(uint32_t(args.vocab - 1)), sum, nth).key;
  }

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared& shared) {
    const uint32_t number = t.group.x;
    const SampleRow row = sample_row(args, number);
    const uint64_t best = best_of_row<kThreads>(args, row, t, shared.best);
    const uint32_t best_rank = ~uint32_t(best >> 32);
    const float top = sample_logit(best_rank);
    if (top == -infinity()) return put(args, t, number, 0, -infinity());
    if (args.temperature == 0.0f) return put(args, t, number, ~uint32_t(best), 0.0f);

    const uint64_t u = ops::philox_fraction(args.seed, uint64_t(load(args.step)), number);
    if (!is_ordered(args)) {
      Chunks chunks;
      chunks.sums = row.sums;
      chunks.size = args.chunks;
      const Found chunk = search(args, t, shared, chunks, bits_for(args.chunks - 1), random, u);
      Tokens tokens;
      const uint32_t begin = chunk.key * kSampleChunk;
      tokens.ranks = row.ranks + begin;
      tokens.size = min(kSampleChunk, uint32_t(args.vocab) - begin);
      tokens.top = top;
      const Found token = search(args, t, shared, tokens, bits_for(kSampleChunk - 1), sum, chunk.target - chunk.before);
      return put(args, t, number, begin + token.key, log(float(token.mass) / float(chunk.total)));
    }

    Candidates all;
    all.list = row.list;
    all.size = *row.listed;
    all.best_rank = best_rank;
    all.top = top;
    all.last = ~uint64_t(0);
    uint64_t furthest = 0;
    for (uint32_t i = t.index; i < all.size; i += kThreads) furthest = max(furthest, uint64_t(all.key(i)));
    const uint32_t bits = bits_for(uint32_t(group_max<kThreads>(t, furthest, shared.best)));
    Goal goal = nucleus;
    uint64_t target = 0;
    if (args.top_k < args.vocab) {
      all.weighing = count;
      all.last = candidate_at(args, t, shared, all, search(args, t, shared, all, bits, sum, uint64_t(args.top_k)), 1);
    } else {
      // The candidates are not all: top_p is a part of the whole row's sum.
      uint64_t sums[kSampleBins / kSimdWidth];
      goal = sum;
      target = nucleus_target(args, simd_max(t, load_sums(t, row.low, row.high, sums)));
    }
    if (args.nucleus != 0) {
      all.weighing = temperature_one;
      const Found end = search(args, t, shared, all, bits, goal, target);
      all.last = candidate_at(args, t, shared, all, end, all.weight_of(args, end.key));
    }
    all.weighing = drawn;
    const Found token = search(args, t, shared, all, bits, random, u);
    const uint64_t weight = all.weight_of(args, token.key);
    put(args, t, number, uint32_t(candidate_at(args, t, shared, all, token, weight)), log(float(weight) / float(token.total)));
  }
};

}  // namespace gpu
}  // namespace mlxn

#define MLXN_KERNELS(KERNEL)             \
  KERNEL(sample_prepare, SamplePrepare) \
  KERNEL(sample_weigh, SampleWeigh)     \
  KERNEL(sample_gather, SampleGather)   \
  KERNEL(sample_draw, SampleDraw)
