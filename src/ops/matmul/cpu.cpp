#include "ops/matmul/cpu.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "backends/cpu/weight_rows16.h"
#include "ops/matmul/kernel_table.h"

/// The loops around the rows16 kernels. Rows of x go in panels; a panel is made ready (quantised, or copied as floats) by
/// all threads, then threads take chunks of weight groups from a shared counter and multiply them with the panel:
///
///   for panel of x:  prepare panel | barrier | for chunk of groups, whoever is free: for slab of k: for group: for tile
///
/// Raw weights are laid out as rows16 in a thread's scratch, one slab at a time, and then treated like prepared ones, so
/// both doors give the same bits. On the tile route the chunks of a slab are unpacked once per panel: to f32 in class exact;
/// in class int8act, where that is slow, to bytes as the integer kernel takes them.
/// Sums over slabs go through memory, which changes no bit.
namespace mlxn::rows16 {
namespace {

// Rows of a panel by route: the weights are read once per panel.
constexpr std::int64_t kVectorRows = 8;
constexpr std::int64_t kTileRows = 64;
constexpr std::int64_t kPanelBytes = 256 << 10;  // of x per slab: half of a 512 KiB second-level cache
constexpr std::int64_t kRawSlabElems = 1024;    // laid out anew and used again while in a near cache
constexpr std::int64_t kMaxChunkGroups = 4;

Kernels make_kernels(CpuIsa isa) noexcept {
  Kernels k{};
  switch (isa) {
#if defined(__x86_64__)
    case CpuIsa::avx512:
      avx512::add_quantised_kernels(k);
      avx512::add_exact_kernels(k);
      return k;
    case CpuIsa::avx2:
      avx2::add_quantised_kernels(k);
      avx2::add_exact_kernels(k);
      return k;
#elif defined(__aarch64__)
    case CpuIsa::neon_i8mm:
      dotprod::add_quantised_kernels(k);
      i8mm::add_pair_kernels(k);
      neon::add_exact_kernels(k);
      return k;
    case CpuIsa::neon_dotprod:
      dotprod::add_quantised_kernels(k);
      neon::add_exact_kernels(k);
      return k;
    case CpuIsa::neon:
      neon::add_quantised_kernels(k);
      neon::add_exact_kernels(k);
      return k;
#endif
    default:
      scalar::add_quantised_kernels(k);
      scalar::add_exact_kernels(k);
      return k;
  }
}

const Kernels& kernels(CpuIsa isa) noexcept {
  static const auto tables = [] {
    std::array<Kernels, kCpuIsaCount> all{};
    for (const CpuIsa level : kIsas) all[static_cast<std::size_t>(level)] = make_kernels(level);
    return all;
  }();
  return tables[static_cast<std::size_t>(isa)];
}

constexpr std::int64_t round_up(std::int64_t value, std::int64_t unit) { return (value + unit - 1) / unit * unit; }

/// Bytes of one row of x, made ready.
std::int64_t ready_row_bytes(const Args& a, std::int64_t k) {
  return a.quantised ? k / 32 * static_cast<std::int64_t>(sizeof(QuantisedX))
                     : round_up(k, kUnitElems) / kUnitElems * kUnitX * 4;
}

/// The parts of a thread's scratch.
struct Scratch {
  std::int64_t totals, slab, packed, bytes;
};
Scratch scratch_layout(const Args& a) {
  Scratch s{};
  s.slab = a.chunk_groups * a.panel_rows * kRows * 4;
  s.packed = s.slab + (!a.decoded ? 0 : a.quantised ? kCodeSlabBytes : kChunkElems / kUnitElems * kUnitFloats * 4);
  s.bytes = round_up(s.packed + (a.prepared ? 0 : group_bytes(format(a.type), std::min(a.slab_elems, round_up(a.k, kUnitElems)))), 64);
  return s;
}

/// Rows [row, row + 1 << log2) of a panel.
struct Tile {
  std::int64_t row;
  int log2;
};

/// Calls f(tile) for the tiles of rows [begin, end); largest: rows of the largest tile.
template <class F>
void for_tiles(std::int64_t begin, std::int64_t end, int largest, F&& f) {
  int log2 = 3;
  for (std::int64_t row = begin; row < end; row += std::int64_t{1} << log2) {
    while ((1 << log2) > largest || (std::int64_t{1} << log2) > end - row) --log2;
    f(Tile{row, log2});
  }
}

class Run {
 public:
  Run(const Args& args, const CpuContext& context)
      : a_(args),
        context_(context),
        kernels_(kernels(static_cast<CpuIsa>(args.isa))),
        weight_(kernels_.weights[static_cast<std::size_t>(args.type)]),
        single_(args.prepared && weight_.ahead != nullptr && cpu_fetches_late() ? weight_.ahead : weight_.quantised[0]),
        format_(format(args.type)),
        pack_(packer(args.type, static_cast<CpuIsa>(args.isa))),
        group_bytes_(group_bytes(format_, args.k)),
        row_bytes_(row_bytes(format_, args.k)),
        largest_(args.quantised ? kernels_.quantised_tile : args.decoded ? kernels_.slab_tile : kernels_.exact_tile) {
    const Scratch layout = scratch_layout(args);
    std::uint8_t* own = args.scratch.ptr + args.x_bytes + context.thread * args.thread_bytes;
    totals_ = reinterpret_cast<float*>(own + layout.totals);
    slab_ = own + layout.slab;
    packed_ = own + layout.packed;
  }

  void run() {
    const std::int64_t groups = (a_.n + kRows - 1) / kRows;
    const std::int64_t chunks = (groups + a_.chunk_groups - 1) / a_.chunk_groups * a_.x_parts;
    std::int64_t first_chunk = 0;  // of this panel, in the count that goes through all panels
    auto next = static_cast<std::int64_t>(context_.next_chunk());
    for (std::int64_t row = 0; row < a_.m; row += a_.panel_rows, first_chunk += chunks) {
      const std::int64_t rows = std::min(a_.panel_rows, a_.m - row);
      unpacks_ = a_.decoded && (!a_.quantised || rows >= kernels_.unpack_rows);  // changes no bit
      if (row != 0) context_.barrier();  // the panel before is still read
      prepare_x(row, rows);
      context_.barrier();
      while (next < first_chunk + chunks) {
        const std::int64_t chunk = (next - first_chunk) / a_.x_parts;
        const std::int64_t part = (next - first_chunk) % a_.x_parts;
        const std::int64_t tiles = (rows + 7) / 8;  // parts end where tiles do
        const std::int64_t begin = tiles * part / a_.x_parts * 8;
        const std::int64_t end = std::min(rows, tiles * (part + 1) / a_.x_parts * 8);
        const std::int64_t group = chunk * a_.chunk_groups;
        if (begin < end) multiply(row, begin, end, group, std::min(groups, group + a_.chunk_groups));
        next = static_cast<std::int64_t>(context_.next_chunk());
      }
    }
  }

 private:
  std::uint8_t* ready_x(const Tile& tile, std::int64_t k) const {
    return a_.scratch.ptr + tile.row * ready_row_bytes(a_, a_.k) + (ready_row_bytes(a_, k) << tile.log2);
  }

  void prepare_x(std::int64_t first, std::int64_t rows) {
    const SourceX source = {a_.x.ptr, a_.x_row_bytes, a_.k, a_.x_type};
    const std::int64_t padded_k = round_up(a_.k, kUnitElems);
    const std::int64_t segments = (padded_k + kRawSlabElems - 1) / kRawSlabElems;
    const std::int64_t units = (rows + 7) / 8 * segments;
    const CpuContext::Share share = context_.share(static_cast<std::uint64_t>(units));
    for (std::uint64_t unit = share.begin; unit < share.end; ++unit) {
      const std::int64_t begin = static_cast<std::int64_t>(unit) % segments * kRawSlabElems;
      const std::int64_t end = std::min(begin + kRawSlabElems, padded_k);
      const std::int64_t eight = static_cast<std::int64_t>(unit) / segments * 8;
      for_tiles(eight, std::min(eight + 8, rows), largest_, [&](const Tile& tile) {
        if (a_.quantised) {
          const QuantiseX quantise = unpacks_ ? kernels_.quantise_for_codes : kernels_.quantise;
          quantise(source, first + tile.row, 1 << tile.log2, begin, end, weight_.bias,
                   reinterpret_cast<QuantisedX*>(ready_x(tile, 0)));
        } else {
          kernels_.copy(source, first + tile.row, 1 << tile.log2, begin, end, a_.to_f16 != 0,
                        reinterpret_cast<float*>(ready_x(tile, 0)));
        }
      });
    }
  }

  /// Rows [begin, end) of the panel with groups [group, end_group).
  void multiply(std::int64_t first, std::int64_t begin, std::int64_t end, std::int64_t group, std::int64_t end_group) {
    const bool whole_k = a_.slab_elems >= a_.k;  // then a group at a time reads the weights in one stream
    const std::int64_t step = whole_k || begin + 8 >= end ? 1 : end_group - group;
    for (; group < end_group; group += step) {
      std::memset(totals_, 0, static_cast<std::size_t>(step * a_.panel_rows * kRows * 4));
      for (std::int64_t k = 0; k < a_.k; k += a_.slab_elems) {
        const std::int64_t elems = std::min(a_.slab_elems, a_.k - k);
        for (std::int64_t g = group; g < group + step; ++g) {
          float* totals = totals_ + (g - group) * a_.panel_rows * kRows;
          const std::uint8_t* weights = slab_of_weights(g, k, elems);
          if (unpacks_) multiply_decoded(weights, k, elems, begin, end, totals);
          else multiply_packed(weights, k, elems, begin, end, totals);
        }
      }
      for (std::int64_t g = group; g < group + step; ++g) {
        store(first, begin, end, g, totals_ + (g - group) * a_.panel_rows * kRows);
      }
    }
  }

  const std::uint8_t* slab_of_weights(std::int64_t group, std::int64_t k, std::int64_t elems) {
    if (a_.prepared) return a_.w.ptr + group * group_bytes_ + group_bytes(format_, k);
    const std::uint8_t* rows[kRows];
    for (std::int64_t r = 0; r < kRows; ++r) {
      rows[r] = a_.w.ptr + std::min(group * kRows + r, a_.n - 1) * row_bytes_ + row_bytes(format_, k);
    }
    pack_(rows, elems, packed_);
    return packed_;
  }

  void multiply_packed(const std::uint8_t* weights, std::int64_t k, std::int64_t elems, std::int64_t begin,
                       std::int64_t end, float* totals) {
    for (std::int64_t at = 0; at < elems; at += kernels_.stretch) {
      const std::int64_t some = std::min(kernels_.stretch, elems - at);
      const std::uint8_t* from = weights + group_bytes(format_, at);
      for_tiles(begin, end, largest_, [&](const Tile& tile) {
        const std::uint8_t* x = ready_x(tile, k + at);
        float* to = totals + tile.row * kRows;
        const MultiplyQuantised quantised = tile.log2 == 0 ? single_ : weight_.quantised[tile.log2];
        if (a_.quantised) quantised(from, some, reinterpret_cast<const QuantisedX*>(x), to);
        else weight_.exact[tile.log2](from, some, reinterpret_cast<const float*>(x), to);
      });
    }
  }

  void multiply_decoded(const std::uint8_t* weights, std::int64_t k, std::int64_t elems, std::int64_t begin,
                        std::int64_t end, float* totals) {
    for (std::int64_t chunk = 0; chunk < elems; chunk += kChunkElems) {
      const std::int64_t some = std::min(kChunkElems, elems - chunk);
      const std::uint8_t* from = weights + group_bytes(format_, chunk);
      float* slab = reinterpret_cast<float*>(slab_);
      if (a_.quantised) weight_.unpack(from, some, slab_);
      else weight_.decode(from, some, slab);
      for_tiles(begin, end, largest_, [&](const Tile& tile) {
        const std::uint8_t* x = ready_x(tile, k + chunk);
        float* to = totals + tile.row * kRows;
        if (a_.quantised) weight_.codes[tile.log2](slab_, some, reinterpret_cast<const QuantisedX*>(x), to);
        else kernels_.slab[weight_.minimum ? 1 : 0][tile.log2](slab, some, reinterpret_cast<const float*>(x), to);
      });
    }
  }

  void store(std::int64_t first, std::int64_t begin, std::int64_t end, std::int64_t group, const float* totals) {
    const std::int64_t column = group * kRows;
    const auto count = static_cast<int>(std::min(kRows, a_.n - column));
    const std::int64_t element_bytes = a_.y_type == DType::f32 ? 4 : 2;
    for (std::int64_t row = begin; row < end; ++row) {
      std::uint8_t* y = a_.y.ptr + (first + row) * a_.y_row_bytes + column * element_bytes;
      if (a_.y_type == DType::f32) {
        std::memcpy(y, totals + row * kRows, static_cast<std::size_t>(count) * 4);
      } else {
        kernels_.store(totals + row * kRows, count, a_.y_type, y);
      }
    }
  }

  const Args& a_;
  const CpuContext& context_;
  const Kernels& kernels_;
  const WeightKernels& weight_;
  const MultiplyQuantised single_;  ///< the kernel of a tile of one row
  const Format format_;
  const PackGroup pack_;
  const std::int64_t group_bytes_, row_bytes_;
  const int largest_;
  bool unpacks_ = false;  ///< this panel goes through a slab of unpacked weights
  float* totals_;
  std::uint8_t* slab_;
  std::uint8_t* packed_;
};

}  // namespace

void plan(Args& a, bool tile, int threads) noexcept {
  const std::int64_t groups = (a.n + kRows - 1) / kRows;
  const Kernels& table = kernels(static_cast<CpuIsa>(a.isa));
  const bool unpacks = table.weights[static_cast<std::size_t>(a.type)].unpack != nullptr && a.m >= table.unpack_rows;
  a.decoded = tile && (!a.quantised || unpacks) ? 1 : 0;
  a.panel_rows = std::min(a.m, tile ? kTileRows : kVectorRows);
  a.chunk_groups = std::clamp<std::int64_t>(groups / (std::int64_t{8} * threads), 1, kMaxChunkGroups);
  a.x_parts = groups >= std::int64_t{2} * threads ? 1 : std::min<std::int64_t>((a.panel_rows + 7) / 8, threads);
  const std::int64_t ready_bytes = ready_row_bytes(a, kChunkElems) * a.panel_rows;
  const std::int64_t whole = round_up(a.k, kChunkElems);
  a.slab_elems = std::min(whole, std::max(kChunkElems, kPanelBytes / ready_bytes * kChunkElems));
  if (!a.prepared) a.slab_elems = std::min(a.slab_elems, kRawSlabElems);
  a.x_bytes = round_up(ready_row_bytes(a, a.k) * a.panel_rows, 64);
  a.thread_bytes = scratch_layout(a).bytes;
}

std::uint64_t scratch_bytes(const Args& a, int threads) noexcept {
  return static_cast<std::uint64_t>(a.x_bytes + a.thread_bytes * threads);
}

void run(const Args& args, const CpuContext& context) { Run(args, context).run(); }

}  // namespace mlxn::rows16
