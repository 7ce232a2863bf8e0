#include "ops/cached_attention/cached_attention.h"

#include <algorithm>
#include <bit>

#include "base/checked.h"
#include "mlxn/device.h"
#include "ops/attention/attention.h"
#include "ops/cached_attention/args.h"
#include "ops/cached_attention/shape.h"
#include "ops/kv_append/kv_append.h"
#include "ops/rope_append/rope_append.h"
#include "ops/row_check.h"

namespace mlxn::ops {
namespace {

constexpr std::string_view kOp = "cached_attention";

constexpr VariantInfo kInfos[] = {
    {"cached_attention_f16", "cuda", &has_cuda, &lacks_cuda},  // of Hopper
    gpu_variant_info("cached_attention_gpu"),
    variant_info<CpuIsa::scalar>("rope_append, attention"),
};

// A kernel's handles by the blocks of a cluster: 2, 4 and 8. Not one: what a launch without clusters sends to itself is an illegal
// instruction (H200, driver 580.159.04).
constexpr gpu::KernelInfo kernel_info(std::string_view name, int threads, int shared_bytes, std::uint32_t blocks) {
  return {name, static_cast<std::uint32_t>(threads), 0, sizeof(CachedAttentionArgs), static_cast<std::uint32_t>(shared_bytes),
          {blocks, 1, 1}, true};
}
constexpr int kClusters = std::bit_width(static_cast<unsigned>(kCachedAttentionBlocks)) - 1;
struct Instance {
  int max_dim, max_rows;
  gpu::KernelInfo infos[kClusters];
};
#define MLXN_INFO(name, dim, rows, blocks) \
  kernel_info(#name, CachedAttentionShape<dim, rows>::kThreads, CachedAttentionShape<dim, rows>::kSharedBytes, blocks)
#define MLXN_INSTANCE(name, dim, rows) \
  {dim, rows, {MLXN_INFO(name, dim, rows, 2), MLXN_INFO(name, dim, rows, 4), MLXN_INFO(name, dim, rows, 8)}},
const Instance kInstances[] = {MLXN_CACHED_ATTENTION_KERNELS(MLXN_INSTANCE)};
#undef MLXN_INSTANCE
#undef MLXN_INFO
static_assert(kClusters == 3, "see above");

const Instance* instance_for(std::int64_t rows, std::int64_t head_dim) noexcept {
  for (const Instance& instance : kInstances) {
    if (head_dim <= instance.max_dim && rows <= instance.max_rows) return &instance;
  }
  return nullptr;
}

/// Slots in 32 bits, with room for the tiles beyond the last.
constexpr std::int64_t kMaxCapacity = std::int64_t{1} << 30;
/// Tiles that a multiprocessor may have to go through. A tile is about half a microsecond there; rope_append and the merge of
/// attention's parts are two launches more.
constexpr std::int64_t kMostTiles = 8;

std::int64_t tiles_of(const CachedAttentionProblem& p) noexcept { return ceil_div(std::max<std::int64_t>(p.keys, 1), kAttentionTile); }

CachedAttentionProblem problem_of(const CommandEncoder& encoder, const Tensor& q, const Tensor& k_cache, const AttentionOptions& options) {
  CachedAttentionProblem p;
  const std::int64_t seq = q.dim(0), capacity = k_cache.dim(1);
  p.kv_heads = k_cache.dim(0);
  p.rows = q.dim(1) / p.kv_heads * seq;
  p.head_dim = q.dim(2);
  // A window may begin within a tile.
  p.keys = options.window > 0 && options.window < capacity ? std::min(capacity, options.window + seq + kAttentionTile - 2) : capacity;
  p.cores = gpu::device_cores(encoder);
  return p;
}

Result<void> check(const CommandEncoder& encoder, const Tensor& q, const Tensor& k_new, const Tensor& v_new, const Tensor& positions,
                   const RopeTable& table, const Tensor& k_cache, const Tensor& v_cache, const Scalar<std::int64_t>& position,
                   const Scalar<std::int64_t>& kv_len, const Tensor& y, const AttentionOptions& options, const KvAppendOptions& append) {
  MLXN_CHECK(check_encoder(kOp, encoder));
  MLXN_CHECK(check_rope_append(kOp, encoder, q, k_new, v_new, positions, table, k_cache, v_cache, position, append));
  MLXN_CHECK(check_operand(kOp, "v_cache", encoder, v_cache, {k_cache.dtype()}));
  MLXN_CHECK(check_shape(kOp, "v_cache", v_cache, k_cache.shape()));
  MLXN_CHECK(check_operand(kOp, "y", encoder, y, {DType::f32}));
  MLXN_CHECK(check_shape(kOp, "y", y, q.shape()));
  MLXN_TRY(const Tensor queries, q.permute({1, 0, 2}));
  MLXN_TRY(const Tensor outputs, y.permute({1, 0, 2}));
  MLXN_CHECK(check_attention(kOp, encoder, queries, k_cache, v_cache, outputs, kv_len, options));
  // What one of the operations writes and only the other one reads.
  const auto check_apart = [&](std::string_view name, const Tensor& out) -> Result<void> {
    if (!out.defined()) return {};
    MLXN_CHECK(check_no_overlap(kOp, name, out, "k_new", k_new));
    MLXN_CHECK(check_no_overlap(kOp, name, out, "v_new", v_new));
    MLXN_CHECK(check_no_overlap(kOp, name, out, "positions", positions));
    return table.pairs() > 0 ? check_no_overlap(kOp, name, out, "the table", table.inv_freq()) : Result<void>();
  };
  MLXN_CHECK(check_apart("y", y));
  MLXN_CHECK(check_apart("lse", options.lse));
  if (options.sinks.defined()) {
    for (const auto& [name, out] : {std::pair<std::string_view, const Tensor*>{"q", &q}, {"k_new", &k_new}, {"k_cache", &k_cache}, {"v_cache", &v_cache}}) {
      MLXN_CHECK(check_no_overlap(kOp, name, *out, "sinks", options.sinks));
    }
  }
  for (const auto& [name, cache] : {std::pair<std::string_view, const Tensor*>{"k_cache", &k_cache}, {"v_cache", &v_cache}}) {
    MLXN_CHECK(check_no_overlap(kOp, name, *cache, "positions", positions));
    if (table.pairs() > 0) MLXN_CHECK(check_no_overlap(kOp, name, *cache, "the table", table.inv_freq()));
  }
  return {};
}

Result<void> encode_fused(CommandEncoder& encoder, const CachedAttentionPlan& plan, const Tensor& q, const Tensor& k_new,
                          const Tensor& v_new, const Tensor& positions, const RopeTable& table, const Tensor& k_cache,
                          const Tensor& v_cache, const Scalar<std::int64_t>& position, const Scalar<std::int64_t>& kv_len,
                          const Tensor& y, const AttentionOptions& options, const KvAppendOptions& append) {
  Launch<CachedAttentionArgs> launch;
  CachedAttentionArgs& a = launch.args;
  launch.bind(a.positions, positions);
  if (table.pairs() > 0) launch.bind(a.inv_freq, table.inv_freq());
  launch.bind(a.q, q);
  launch.bind(a.k_new, k_new);
  launch.bind(a.v_new, v_new);
  launch.bind(a.k_cache, k_cache);
  launch.bind(a.v_cache, v_cache);
  launch.bind(a.y, y);
  if (options.sinks.defined()) launch.bind(a.sinks, options.sinks);
  a.q_row = q.stride(0), a.q_head = q.stride(1);
  a.y_row = y.stride(0), a.y_head = y.stride(1);
  a.k_row = k_new.stride(0), a.k_head = k_new.stride(1);
  a.v_row = v_new.stride(0), a.v_head = v_new.stride(1);
  a.k_cache_head = k_cache.stride(0), a.k_cache_slot = k_cache.stride(1);
  a.v_cache_head = v_cache.stride(0), a.v_cache_slot = v_cache.stride(1);
  launch.set(a.position, position, 0, last_kv_position(k_new, k_cache, append));
  launch.set(a.kv_len, kv_len, 0, k_cache.dim(1));
  a.window = attention_window(options);
  a.seq = static_cast<std::int32_t>(q.dim(0));
  a.group = static_cast<std::int32_t>(q.dim(1) / k_cache.dim(0));
  a.head_dim = static_cast<std::int32_t>(q.dim(2));
  a.capacity = static_cast<std::int32_t>(k_cache.dim(1));
  a.cluster_shift = std::countr_zero(plan.blocks);
  a.pairs = static_cast<std::int32_t>(table.pairs());
  a.split_offset = static_cast<std::int32_t>(table.split_offset());
  a.adjacent = table.pairing() == RopePairing::adjacent ? 1 : 0;
  a.magnitude = table.magnitude();
  a.scale = attention_scale(options, q.dim(2));
  a.softcap = options.softcap;
  MLXN_TRY(const std::uint32_t heads, gpu::groups_for(kOp, k_cache.dim(0) * static_cast<std::int64_t>(plan.blocks), 1));
  const gpu::Kernel<CachedAttentionArgs> kernel{plan.kernel};
  return gpu::encode(encoder, kernel, {heads}, launch);
}

}  // namespace

extern const OpInfo op_cached_attention;
const OpInfo op_cached_attention = {"cached_attention", kInfos};

bool fits_cached_attention(const CachedAttentionProblem& p) noexcept {
  return p.rows > 0 && p.head_dim % 8 == 0 && instance_for(p.rows, p.head_dim) != nullptr;
}

std::uint32_t cached_attention_blocks(const CachedAttentionProblem& p) noexcept {
  std::int64_t blocks = 2;
  while (blocks < kCachedAttentionBlocks && blocks < tiles_of(p) && 2 * blocks * p.kv_heads <= p.cores) blocks *= 2;
  return static_cast<std::uint32_t>(blocks);
}

bool prefers_cached_attention(const CachedAttentionProblem& p) noexcept {
  const std::int64_t busy = std::min(p.cores, p.kv_heads * static_cast<std::int64_t>(cached_attention_blocks(p)));
  return tiles_of(p) <= kMostTiles * busy / p.kv_heads;
}

CachedAttentionPlan plan_cached_attention(const CommandEncoder& encoder, const Tensor& q, const Tensor& k_cache, const Tensor& v_cache,
                                          const AttentionOptions& options, const KvAppendOptions& append) {
  const auto two_ops = [](std::string_view lacks) {
    CachedAttentionPlan plan;
    plan.lacks = lacks;
    return plan;
  };
  if (!gpu::on_gpu(encoder) || !gpu::on_hopper(encoder)) return two_ops("the device is no Hopper GPU");
  if (k_cache.dtype() != DType::f16) return two_ops("the cache is not of f16");
  if (!options.causal || options.p0) return two_ops("the queries are not at the newest keys");
  if (append.ring || options.ring_start.parameter >= 0 || options.ring_start.value != 0) return two_ops("the cache is a ring");
  if (options.lse.defined()) return two_ops("lse is wanted");
  if (k_cache.dim(1) > kMaxCapacity) return two_ops("the cache has too many slots");
  const CachedAttentionProblem problem = problem_of(encoder, q, k_cache, options);
  if (!fits_cached_attention(problem)) return two_ops("there is no kernel for so many rows or this head_dim");
  if (!rows_aligned(k_cache, 8) || !rows_aligned(v_cache, 8)) return two_ops("the cache's rows are not at multiples of 16 bytes");
  CachedAttentionPlan plan;
  plan.can_be_fused = true;
  plan.blocks = cached_attention_blocks(problem);
  plan.kernel = &instance_for(problem.rows, problem.head_dim)->infos[std::countr_zero(plan.blocks) - 1];
  if (prefers_cached_attention(problem)) {
    plan.route = CachedAttentionRoute::fused;
  } else {
    plan.lacks = "so many keys want the whole device";
  }
  return plan;
}

Result<void> encode_cached_attention(CommandEncoder& encoder, const Tensor& q, const Tensor& k_new, const Tensor& v_new,
                                     const Tensor& positions, const RopeTable& table, const Tensor& k_cache, const Tensor& v_cache,
                                     const Scalar<std::int64_t>& position, const Scalar<std::int64_t>& kv_len, const Tensor& y,
                                     const AttentionOptions& options, const KvAppendOptions& append, CachedAttentionRoute route) {
  MLXN_CHECK(check(encoder, q, k_new, v_new, positions, table, k_cache, v_cache, position, kv_len, y, options, append));
  const CachedAttentionPlan plan = plan_cached_attention(encoder, q, k_cache, v_cache, options, append);
  if (route == CachedAttentionRoute::fused && !plan.can_be_fused) {
    return make_error(ErrorCode::unsupported, "{}: {}", kOp, plan.lacks);
  }
  if (route == CachedAttentionRoute::automatic) route = plan.route;
  if (route == CachedAttentionRoute::fused) {
    return encode_fused(encoder, plan, q, k_new, v_new, positions, table, k_cache, v_cache, position, kv_len, y, options, append);
  }
  MLXN_TRY(const Tensor queries, q.permute({1, 0, 2}));
  MLXN_TRY(const Tensor outputs, y.permute({1, 0, 2}));
  MLXN_CHECK(encode_rope_append(encoder, q, k_new, v_new, positions, table, k_cache, v_cache, position, append));
  MLXN_CHECK(encoder.barrier());  // the caller, where it orders the memory, cannot part the operations
  return encode_attention(encoder, queries, k_cache, v_cache, outputs, kv_len, options, std::nullopt, AttentionRoute::automatic);
}

std::vector<const gpu::KernelInfo*> cached_attention_kernels() {
  std::vector<const gpu::KernelInfo*> all;
  for (const Instance& instance : kInstances) {
    for (const gpu::KernelInfo& info : instance.infos) all.push_back(&info);
  }
  return all;
}

}  // namespace mlxn::ops

namespace mlxn {

Result<void> cached_attention(CommandEncoder& encoder, const Tensor& q, const Tensor& k_new, const Tensor& v_new,
                              const Tensor& positions, const RopeTable& table, const Tensor& k_cache, const Tensor& v_cache,
                              const Scalar<std::int64_t>& position, const Scalar<std::int64_t>& kv_len, const Tensor& y,
                              const AttentionOptions& options, const KvAppendOptions& append) {
  return detail::guarded([&] {
    return ops::encode_cached_attention(encoder, q, k_new, v_new, positions, table, k_cache, v_cache, position, kv_len, y, options,
                                        append, ops::CachedAttentionRoute::automatic);
  });
}

}  // namespace mlxn
