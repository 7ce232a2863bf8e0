#include "base/check_value.h"
#include "mlxn/weight.h"
#include "quant/mlx.h"

namespace mlxn {
namespace {

bool is_one_of(int value, std::initializer_list<int> wanted) {
  for (const int w : wanted) {
    if (value == w) return true;
  }
  return false;
}

/// One of the arrays, of axes [n, columns].
Result<void> check_array(std::string_view name, const Tensor& array, std::initializer_list<DType> types) {
  if (!array.defined()) return make_error(ErrorCode::invalid_argument, "mlx_blocks: {} is an empty tensor", name);
  bool known = false;
  std::string wanted;
  for (const DType type : types) {
    known = known || array.dtype() == type;
    wanted += wanted.empty() ? "" : " ";
    wanted += to_string(type);
  }
  if (!known) return make_error(ErrorCode::bad_dtype, "mlx_blocks: {} is {}, wanted {}", name, to_string(array.dtype()), wanted);
  if (array.rank() != 2) return make_error(ErrorCode::bad_shape, "mlx_blocks: {} has {} axes, wanted 2", name, array.rank());
  if (!array.is_contiguous()) {
    return make_error(ErrorCode::bad_shape, "mlx_blocks: {} has gaps between its rows, wanted none", name);
  }
  if (array.unsafe_data() == nullptr) {
    return make_error(ErrorCode::wrong_device, "mlx_blocks: {} lives in memory that the CPU does not see", name);
  }
  return {};
}

/// scales or biases: a number for each group.
Result<void> check_groups(std::string_view name, const Tensor& array, std::int64_t n, std::int64_t k, int group_size) {
  if (array.dim(0) == n && array.dim(1) == k / group_size) return {};
  return make_error(ErrorCode::bad_shape, "mlx_blocks: {} is [{}, {}], wanted [{}, {}], one for each group of {} in rows of {}", name,
                    array.dim(0), array.dim(1), n, k / group_size, group_size, k);
}

/// Of the arrays' numbers and types, which also tell the blocks' type.
Result<DType> check_form(const MlxWeight& source) {
  MLXN_CHECK(check_enum("mlx_blocks", "mode", source.mode, MlxMode::mxfp4));
  const bool affine = source.mode == MlxMode::affine;
  const std::string_view mode = affine ? "affine" : "mxfp4";
  if (affine ? !is_one_of(source.bits, {4, 8}) : source.bits != 4) {
    return make_error(ErrorCode::unsupported, "mlx_blocks: bits is {}, wanted {} of {}", source.bits, affine ? "4 or 8" : "4", mode);
  }
  if (affine ? !is_one_of(source.group_size, {32, 64, 128}) : source.group_size != 32) {
    return make_error(ErrorCode::unsupported, "mlx_blocks: group_size is {}, wanted {} of {}", source.group_size,
                      affine ? "32, 64 or 128" : "32", mode);
  }
  MLXN_CHECK(check_array("codes", source.codes, {DType::u32}));
  if (!affine) {
    MLXN_CHECK(check_array("scales", source.scales, {DType::u8, DType::f8e8m0}));
    if (source.biases.defined()) return make_error(ErrorCode::invalid_argument, "mlx_blocks: biases are given, mxfp4 has none");
    return DType::mxfp4;
  }
  MLXN_CHECK(check_array("scales", source.scales, {DType::f16, DType::bf16, DType::f32}));
  MLXN_CHECK(check_array("biases", source.biases, {source.scales.dtype()}));
  const auto type = affine_dtype({static_cast<std::uint32_t>(source.bits), static_cast<std::uint32_t>(source.group_size), source.scales.dtype()});
  if (!type) return make_error(ErrorCode::internal, "mlx_blocks: no type of blocks");
  return *type;
}

Result<Tensor> make_blocks(const MlxWeight& source) {
  MLXN_TRY(const DType type, check_form(source));
  const std::int64_t n = source.codes.dim(0), words = source.codes.dim(1);
  if (n == 0 || words == 0) {
    return make_error(ErrorCode::bad_shape, "mlx_blocks: codes is [{}, {}], wanted at least one word", n, words);
  }
  const std::int64_t k = words * (32 / source.bits);
  if (k % source.group_size != 0) {
    return make_error(ErrorCode::bad_shape, "mlx_blocks: codes is [{}, {}], rows of {} weights of {} bits, wanted a multiple of {}", n,
                      words, k, source.bits, source.group_size);
  }
  MLXN_CHECK(check_groups("scales", source.scales, n, k, source.group_size));
  if (source.biases.defined()) MLXN_CHECK(check_groups("biases", source.biases, n, k, source.group_size));

  AllocateOptions allocate;
  allocate.zero = false;
  allocate.kind = MemoryKind::shared;  // written here, by the CPU
  MLXN_TRY(Tensor blocks, source.codes.device().allocate(type, {n, k}, allocate));
  MLXN_TRY(const auto codes, source.codes.read<std::uint32_t>());
  MLXN_TRY(const auto scales, source.scales.read<std::byte>());
  Mapping<const std::byte> biases;
  if (source.biases.defined()) {
    MLXN_TRY(biases, source.biases.read<std::byte>());
  }
  MLXN_TRY(const auto to, blocks.write<std::byte>());
  quant::pack_mlx(type, codes.data(), scales.data(), biases.data(), static_cast<std::uint64_t>(n * (k / source.group_size)), to.data());
  return blocks;
}

}  // namespace

Result<Tensor> mlx_blocks(const MlxWeight& source) {
  return detail::guarded([&] { return make_blocks(source); });
}

Result<Weight> Weight::prepare(const Device& device, const MlxWeight& source, const PrepareOptions& options) {
  MLXN_TRY(const Tensor blocks, mlx_blocks(source));
  PrepareOptions of_blocks;
  of_blocks.mode = options.mode;
  return prepare(device, blocks, of_blocks);
}

}  // namespace mlxn
