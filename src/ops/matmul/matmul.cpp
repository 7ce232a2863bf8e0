#include "ops/matmul/matmul.h"

#include "backends/cpu/launch.h"
#include "backends/device_impl.h"
#include "backends/gpu/weight_prepare.h"
#include "backends/weight_impl.h"
#include "base/check_value.h"
#include "base/checked.h"
#include "ops/matmul/cpu.h"
#include "ops/matmul/gpu.h"
#include "ops/matmul/hopper.h"
#include "ops/row_check.h"

namespace mlxn {

std::string_view to_string(Numerics numerics) noexcept {
  switch (numerics) {
    case Numerics::automatic: return "automatic";
    case Numerics::exact: return "exact";
    case Numerics::f16: return "f16";
    case Numerics::bf16: return "bf16";
    case Numerics::int8act: return "int8act";
  }
  return "unknown";
}

namespace ops {
namespace {

constexpr IsaVariant<cpu::Kernel<rows16::Args>> kVariants[] = {
#if defined(__x86_64__)
    {CpuIsa::avx512, "matmul_rows16_avx512", cpu::kernel<&rows16::run>("matmul_rows16_avx512")},
    {CpuIsa::avx2, "matmul_rows16_avx2", cpu::kernel<&rows16::run>("matmul_rows16_avx2")},
#elif defined(__aarch64__)
    {CpuIsa::neon_i8mm, "matmul_rows16_i8mm", cpu::kernel<&rows16::run>("matmul_rows16_i8mm")},
    {CpuIsa::neon_dotprod, "matmul_rows16_dotprod", cpu::kernel<&rows16::run>("matmul_rows16_dotprod")},
    {CpuIsa::neon, "matmul_rows16_neon", cpu::kernel<&rows16::run>("matmul_rows16_neon")},
#endif
    {CpuIsa::scalar, "matmul_rows16_scalar", cpu::kernel<&rows16::run>("matmul_rows16_scalar")},
};
constexpr VariantInfo kInfos[] = {
#if defined(__x86_64__)
    variant_info<CpuIsa::avx512>("matmul_rows16_avx512"),
    variant_info<CpuIsa::avx2>("matmul_rows16_avx2"),
#elif defined(__aarch64__)
    variant_info<CpuIsa::neon_i8mm>("matmul_rows16_i8mm"),
    variant_info<CpuIsa::neon_dotprod>("matmul_rows16_dotprod"),
    variant_info<CpuIsa::neon>("matmul_rows16_neon"),
#endif
    variant_info<CpuIsa::scalar>("matmul_rows16_scalar"),
    gpu_variant_info("matmul_gpu"),
};

/// Type, dimensions and whole blocks; and that the bytes of the matrices can be counted.
Result<void> check_problem(std::string_view op, const MatmulShape& shape) {
  MLXN_CHECK(check_dtype(op, shape.type));
  if (!is_weight_type(shape.type)) {
    return make_error(ErrorCode::unsupported, "{}: type is {}, which has no kernels as a weight", op,
                      mlxn::to_string(shape.type));
  }
  const std::pair<char, std::int64_t> dims[] = {{'m', shape.m}, {'n', shape.n}, {'k', shape.k}};
  for (const auto& [name, value] : dims) {
    if (value <= 0) return make_error(ErrorCode::bad_shape, "{}: {} is {}, wanted at least 1", op, name, value);
  }
  if (shape.k % block_elems(shape.type) != 0) {
    return make_error(ErrorCode::bad_shape, "{}: k is {}, wanted a multiple of {}, the block of {}", op, shape.k,
                      block_elems(shape.type), mlxn::to_string(shape.type));
  }
  const auto elems = checked_product(static_cast<std::uint64_t>(shape.n), static_cast<std::uint64_t>(shape.k));
  if (!elems || *elems >> 58 != 0) {
    return make_error(ErrorCode::bad_shape, "{}: n x k is {} x {}, which is too large", op, shape.n, shape.k);
  }
  return {};
}

/// x [m, k] or y [m, n].
Result<void> check_matrix(std::string_view op, std::string_view name, const CommandEncoder& encoder, const Tensor& tensor,
                          std::int64_t rows, std::int64_t columns) {
  MLXN_CHECK(check_operand(op, name, encoder, tensor, {DType::f32, DType::f16, DType::bf16}));
  MLXN_CHECK(check_shape(op, name, tensor, {rows, columns}));
  return check_last_contiguous(op, name, tensor);
}

/// Where a product runs, as far as the choice of class and route goes.
struct Place {
  bool gpu = false;
  std::uint32_t cores = 0;  // of a GPU
  WeightForm form = WeightForm::raw;
};

/// Whether there are kernels that multiply the type's codes with quantised x, on a CPU.
constexpr bool has_int8act(DType type) noexcept {
  const auto affine = affine_info(type);
  return is_block(type) && (!affine || (affine->bits == 4 && affine->scales != DType::f32));
}

/// Of automatic, by how the weights lie: f16 where matrix units wait for them.
constexpr Numerics default_numerics(WeightForm form) noexcept {
  return form == WeightForm::records || form == WeightForm::rows ? Numerics::f16 : Numerics::exact;
}

std::int64_t vector_threshold(const MatmulShape& shape, const Place& place, Numerics numerics) noexcept {
  return wants_hopper(place.form, shape.type, numerics) ? hopper_vector_threshold(shape, place.cores)
         : place.gpu                        ? kGpuVectorThreshold
                                            : rows16::kVectorThreshold;
}

/// On a CPU every route adds in the same order, so batch_invariant holds without being asked for. On a GPU each route has an
/// order of its own, which m does not change: there the mode stays with the vector route unless the call names one. Weights that
/// lie in records are there for the matrix units, which take f16; rows of f16 and bf16 are for those in tiles, and exact in the
/// vector route.
Result<MatmulChoice> choose(std::string_view op, const MatmulShape& shape, const MatmulOptions& options, const Place& place) {
  MLXN_CHECK(check_enum(op, "numerics", options.numerics, Numerics::int8act));
  MLXN_CHECK(check_enum(op, "route", options.route, Route::tile));
  MatmulChoice choice{options.numerics, options.route, options.batch_invariant};
  switch (options.numerics) {
    case Numerics::automatic: choice.numerics = default_numerics(place.form); break;
    case Numerics::exact:
    case Numerics::f16: break;
    case Numerics::bf16:
      if (!place.gpu) return make_error(ErrorCode::unsupported, "{}: the CPU has no class bf16", op);
      break;
    case Numerics::int8act:
      if (!has_int8act(shape.type)) choice.numerics = Numerics::exact;
      else if (place.gpu) return make_error(ErrorCode::unsupported, "{}: a GPU has no class int8act", op);
      break;
  }
  if (choice.route == Route::automatic) {
    const std::int64_t threshold = vector_threshold(shape, place, choice.numerics);
    choice.route = shape.m <= threshold || (place.gpu && options.batch_invariant) ? Route::vector : Route::tile;
  }
  if (options.numerics == Numerics::automatic && place.form == WeightForm::rows && choice.route == Route::vector) {
    choice.numerics = Numerics::exact;
  }
  return choice;
}

Place place_of(const CommandEncoder& encoder, WeightForm form) {
  const bool on_gpu = gpu::on_gpu(encoder);
  return {on_gpu, on_gpu ? gpu::device_cores(encoder) : 0, form};
}
Place place_of(const Device& device, DType type, bool prepared) {
  const bool gpu = device.impl()->is_gpu();
  const WeightForm form = !prepared ? WeightForm::raw : gpu ? gpu::prepared_form(device, type) : WeightForm::prepared;
  return {gpu, static_cast<std::uint32_t>(device.capabilities().compute_units), form};
}

/// What the plan of a product on a CPU hangs on: all but strides, types of x and y, and pointers.
rows16::Args cpu_args(const MatmulShape& shape, const MatmulChoice& choice, bool prepared, CpuIsa isa) noexcept {
  rows16::Args args{};
  args.m = shape.m;
  args.n = shape.n;
  args.k = shape.k;
  args.type = shape.type;
  args.prepared = prepared ? 1 : 0;
  args.quantised = choice.numerics == Numerics::int8act ? 1 : 0;
  args.to_f16 = choice.numerics == Numerics::f16 ? 1 : 0;
  args.isa = static_cast<std::uint8_t>(isa);
  return args;
}

/// Records the product of operands that have been checked.
Result<void> encode(std::string_view op, CommandEncoder& encoder, const Tensor& x, const GpuOperand& weights, const Tensor& y,
                    const MatmulShape& shape, const MatmulOptions& options, std::optional<CpuIsa> isa) {
  MLXN_TRY(const MatmulChoice choice, choose(op, shape, options, place_of(encoder, weights.form)));
  MLXN_TRY(const auto* variant, pick_for<cpu::Kernel<rows16::Args>>(encoder, op, kVariants, isa));
  if (variant == nullptr) return matmul_gpu(op, encoder, x, weights, y, shape, choice);
  Launch<rows16::Args> launch;
  rows16::Args& args = launch.args;
  args = cpu_args(shape, choice, weights.form == WeightForm::prepared, variant->isa);
  launch.bind(args.x, x);
  launch.bind(args.w, weights.bytes);
  launch.bind(args.y, y);
  args.x_row_bytes = x.stride(0) * block_bytes(x.dtype());
  args.y_row_bytes = y.stride(0) * block_bytes(y.dtype());
  args.x_type = x.dtype();
  args.y_type = y.dtype();
  const int threads = cpu::threads(encoder);
  rows16::plan(args, choice.route == Route::tile, threads);
  MLXN_TRY(const Tensor scratch, cpu::scratch(encoder, rows16::scratch_bytes(args, threads)));
  launch.bind(args.scratch, scratch);
  return cpu::encode(encoder, variant->select, launch);
}

}  // namespace

Result<MatmulChoice> choose_matmul(std::string_view op, const CommandEncoder& encoder, WeightForm form, const MatmulShape& shape,
                                   const MatmulOptions& options) {
  return choose(op, shape, options, place_of(encoder, form));
}

Result<MatmulChoice> choose_matmul(std::string_view op, const Device& device, const MatmulShape& shape, const MatmulOptions& options) {
  if (!device.defined()) return make_error(ErrorCode::invalid_argument, "{}: device is an empty handle", op);
  MLXN_CHECK(check_problem(op, shape));
  return choose(op, shape, options, place_of(device, shape.type, true));
}

extern const OpInfo op_matmul;
const OpInfo op_matmul = {"matmul", kInfos};

Result<void> encode_quantized_matmul_ggml(CommandEncoder& encoder, const Tensor& x, const Tensor& raw, const Tensor& y,
                                          const MatmulShape& shape, const MatmulOptions& options, std::optional<CpuIsa> isa) {
  constexpr std::string_view kOp = "quantized_matmul_ggml";
  MLXN_CHECK(check_encoder(kOp, encoder));
  MLXN_CHECK(check_problem(kOp, shape));
  MLXN_CHECK(check_operand(kOp, "raw", encoder, raw, {shape.type, DType::u8}));
  if (raw.dtype() == shape.type) MLXN_CHECK(check_shape(kOp, "raw", raw, {shape.n, shape.k}));
  MLXN_CHECK(check_contiguous(kOp, "raw", raw));
  const std::uint64_t wanted =
      static_cast<std::uint64_t>(shape.n) * static_cast<std::uint64_t>(shape.k) / block_elems(shape.type) * block_bytes(shape.type);
  if (raw.bytes() < wanted) {
    return make_error(ErrorCode::bad_shape, "{}: raw has {} bytes, wanted {} for {} x {} of {}", kOp, raw.bytes(), wanted,
                      shape.n, shape.k, mlxn::to_string(shape.type));
  }
  MLXN_CHECK(check_matrix(kOp, "x", encoder, x, shape.m, shape.k));
  MLXN_CHECK(check_matrix(kOp, "y", encoder, y, shape.m, shape.n));
  MLXN_CHECK(check_rows_apart(kOp, "y", y));
  MLXN_CHECK(check_no_overlap(kOp, "y", y, "x", x));
  MLXN_CHECK(check_no_overlap(kOp, "y", y, "raw", raw));
  return encode(kOp, encoder, x, {raw, WeightForm::raw}, y, shape, options, isa);
}

Result<void> encode_matmul(CommandEncoder& encoder, const Tensor& x, const Weight& weight, const Tensor& y,
                           const MatmulOptions& options, std::optional<CpuIsa> isa) {
  constexpr std::string_view kOp = "matmul";
  MLXN_CHECK(check_encoder(kOp, encoder));
  if (!weight.defined()) return make_error(ErrorCode::invalid_argument, "{}: weight is an empty handle", kOp);
  const Tensor& storage = weight.impl()->storage;
  MLXN_CHECK(check_operand(kOp, "weight", encoder, storage, {storage.dtype()}));
  if (!x.defined()) return make_error(ErrorCode::invalid_argument, "{}: x is an empty tensor", kOp);
  if (x.rank() != 2) return make_error(ErrorCode::bad_shape, "{}: x is {}, wanted [m, {}]", kOp, to_string(x.shape()), weight.k());
  const MatmulShape shape = {x.dim(0), weight.n(), weight.k(), weight.dtype()};
  MLXN_CHECK(check_problem(kOp, shape));
  MLXN_CHECK(check_matrix(kOp, "x", encoder, x, shape.m, shape.k));
  MLXN_CHECK(check_matrix(kOp, "y", encoder, y, shape.m, shape.n));
  MLXN_CHECK(check_rows_apart(kOp, "y", y));
  MLXN_CHECK(check_no_overlap(kOp, "y", y, "x", x));
  MLXN_CHECK(check_no_overlap(kOp, "y", y, "weight", storage));
  return encode(kOp, encoder, x, {storage, weight.impl()->form}, y, shape, options, isa);
}

namespace {

/// What planning makes of a problem.
struct Planned {
  MatmulChoice choice;
  std::string_view kernel;
  bool decoded = false;         // weights are unpacked before they are multiplied
  std::int64_t panel_rows = 0;  // of x that one pass over the weights serves
  bool taken_apart = false;     // GPU: blocks or records are laid out field by field first
  WeightForm form = WeightForm::raw;
};
Result<Planned> plan_problem(std::string_view op, const Device& device, const MatmulShape& shape, bool prepared,
                             const MatmulOptions& options) {
  if (!device.defined()) return make_error(ErrorCode::invalid_argument, "{}: device is an empty handle", op);
  MLXN_CHECK(check_problem(op, shape));
  const Place place = place_of(device, shape.type, prepared);
  MLXN_TRY(const MatmulChoice choice, choose(op, shape, options, place));
  if (place.gpu) {
    const MatmulGpuPlan plan = plan_matmul_gpu(shape, place.form, choice, place.cores);
    return Planned{choice, plan.kernel, plan.decoded, plan.rows, plan.taken_apart, place.form};
  }
  MLXN_TRY(const auto* variant, pick<cpu::Kernel<rows16::Args>>(op, kVariants, std::nullopt));
  rows16::Args args = cpu_args(shape, choice, prepared, variant->isa);
  rows16::plan(args, choice.route == Route::tile, device.capabilities().threads);
  return Planned{choice, variant->name, args.decoded != 0, args.panel_rows, false, place.form};
}

/// The least m above shape.m for which `differs` holds, 0 if none is near.
template <class Differs>
Result<std::int64_t> next_m(std::string_view op, const Device& device, MatmulShape shape, bool prepared,
                            const MatmulOptions& options, const Differs& differs) {
  constexpr std::int64_t kMost = 1024;
  for (++shape.m; shape.m <= kMost; ++shape.m) {
    MLXN_TRY(const Planned planned, plan_problem(op, device, shape, prepared, options));
    if (differs(planned)) return shape.m;
  }
  return 0;
}

}  // namespace

Result<std::vector<std::string>> explain_matmul(const Device& device, const MatmulShape& shape, bool prepared,
                                                const MatmulOptions& options) {
  constexpr std::string_view kOp = "explain_matmul";
  MLXN_TRY(const Planned planned, plan_problem(kOp, device, shape, prepared, options));
  std::vector<std::string> lines;

  const std::string_view numerics = mlxn::to_string(planned.choice.numerics);
  if (options.numerics == planned.choice.numerics) {
    lines.push_back(fmt::format("class {}: the call asks for it", numerics));
  } else if (options.numerics == Numerics::automatic) {
    const bool by_route = planned.form == WeightForm::rows;
    lines.push_back(fmt::format("class {}: the default of the {}", numerics, by_route ? "route for these weights" : "operation"));
  } else {
    lines.push_back(fmt::format("class {}: {} has no class {}", numerics, mlxn::to_string(shape.type), mlxn::to_string(options.numerics)));
  }

  const bool vector = planned.choice.route == Route::vector;
  const std::string_view route = vector ? "vector" : "tile";
  if (options.route != Route::automatic) {
    lines.push_back(fmt::format("route {}: the call asks for it", route));
  } else if (vector) {
    MLXN_TRY(const std::int64_t m, next_m(kOp, device, shape, prepared, options,
                                          [](const Planned& p) { return p.choice.route == Route::tile; }));
    lines.push_back(m == 0 ? fmt::format("route {}", route) : fmt::format("route {}: tiles are taken from m = {} on", route, m));
  } else {
    MatmulShape one = shape;
    one.m = 0;
    MLXN_TRY(const std::int64_t m, next_m(kOp, device, one, prepared, options,
                                          [](const Planned& p) { return p.choice.route == Route::tile; }));
    lines.push_back(fmt::format("route {}: taken from m = {} on", route, m));
  }

  if (device.impl()->is_gpu()) {
    lines.push_back(planned.decoded ? fmt::format("weights are unpacked once for every {} rows of x", planned.panel_rows)
                                    : fmt::format("weights are unpacked in registers, read once for every {} rows of x", planned.panel_rows));
    const bool records = planned.form == WeightForm::records;
    if (planned.form == WeightForm::rows) {
      lines.push_back("weights lie in rows as in the file, prepared at load");
      return lines;
    }
    lines.push_back(records && planned.taken_apart ? "weights lie in records for matrix units, which this class does not use: they are laid out field by field before they are read"
                    : records             ? "weights lie in records for matrix units, prepared at load"
                    : prepared            ? "weights lie field by field, prepared at load"
                    : planned.taken_apart ? "weights are laid out field by field before they are read"
                                          : "weights are read as they lie in the file");
    return lines;
  }
  std::string inner = planned.decoded ? fmt::format("weights are unpacked once for every {} rows of x", planned.panel_rows)
                                      : fmt::format("weights are multiplied as packed, read once for every {} rows of x", planned.panel_rows);
  if (!planned.decoded) {
    MLXN_TRY(const std::int64_t m, next_m(kOp, device, shape, prepared, options, [](const Planned& p) { return p.decoded; }));
    if (m != 0) inner += fmt::format("; unpacked first from m = {} on", m);
  }
  lines.push_back(std::move(inner));
  lines.push_back(prepared ? "weights lie in groups of 16 rows, prepared at load" : "weights are laid out in groups of 16 rows as they are read");
  return lines;
}

}  // namespace ops

Result<void> quantized_matmul_ggml(CommandEncoder& encoder, const Tensor& x, const Tensor& raw, const Tensor& y,
                                   const MatmulShape& shape, const MatmulOptions& options) {
  return detail::guarded([&] { return ops::encode_quantized_matmul_ggml(encoder, x, raw, y, shape, options, std::nullopt); });
}

Result<void> matmul(CommandEncoder& encoder, const Tensor& x, const Weight& weight, const Tensor& y,
                    const MatmulOptions& options) {
  return detail::guarded([&] { return ops::encode_matmul(encoder, x, weight, y, options, std::nullopt); });
}

Result<MatmulPlan> plan_matmul(const Device& device, const MatmulShape& shape, bool prepared, const MatmulOptions& options) {
  return detail::guarded([&]() -> Result<MatmulPlan> {
    MLXN_TRY(const ops::Planned planned, ops::plan_problem("plan_matmul", device, shape, prepared, options));
    return MatmulPlan{planned.kernel, planned.choice.numerics, planned.choice.route};
  });
}

Result<std::int64_t> matmul_vector_threshold(const Device& device, const MatmulShape& shape, bool prepared) {
  return detail::guarded([&]() -> Result<std::int64_t> {
    constexpr std::string_view kOp = "matmul_vector_threshold";
    if (!device.defined()) return make_error(ErrorCode::invalid_argument, "{}: device is an empty handle", kOp);
    MLXN_CHECK(ops::check_problem(kOp, shape));
    const ops::Place place = ops::place_of(device, shape.type, prepared);
    return ops::vector_threshold(shape, place, ops::default_numerics(place.form));
  });
}

}  // namespace mlxn
