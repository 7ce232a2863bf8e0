#include "ops/set_element/set_element.h"

#include <limits>

#include "backends/cpu/launch.h"
#include "backends/gpu/launch.h"
#include "ops/row_check.h"

namespace mlxn::ops {
namespace {

constexpr std::string_view kOp = "set_element";
constexpr VariantInfo kInfos[] = {variant_info<CpuIsa::scalar>("set_element_scalar"), gpu_variant_info("set_element_gpu")};

void set_element_cpu(const SetElementArgs& args, const CpuContext& context) {
  if (context.thread == 0) args.y.ptr[args.index.value] = static_cast<std::uint32_t>(args.value.value);
}

template <class T>
constexpr std::pair<std::int64_t, std::int64_t> domain() noexcept {
  return {std::numeric_limits<T>::min(), std::numeric_limits<T>::max()};
}

Result<void> encode_set_element(CommandEncoder& encoder, const Tensor& y, const Scalar<std::int64_t>& index,
                                const Scalar<std::int64_t>& value) {
  MLXN_CHECK(check_encoder(kOp, encoder));
  MLXN_CHECK(check_operand(kOp, "y", encoder, y, {DType::u32, DType::i32}));
  if (y.rank() != 1 || y.dim(0) == 0) {
    return make_error(ErrorCode::bad_shape, "{}: y is {}, wanted one axis that is not empty", kOp, to_string(y.shape()));
  }
  MLXN_CHECK(check_contiguous(kOp, "y", y));
  if (index.value < 0 || index.value >= y.dim(0)) {
    return make_error(ErrorCode::out_of_range, "{}: index is {}, wanted 0 to {}", kOp, index.value, y.dim(0) - 1);
  }
  const auto [least, most] = y.dtype() == DType::u32 ? domain<std::uint32_t>() : domain<std::int32_t>();
  if (value.value < least || value.value > most) {
    return make_error(ErrorCode::out_of_range, "{}: value is {}, {} takes {} to {}", kOp, value.value, mlxn::to_string(y.dtype()),
                      least, most);
  }
  Launch<SetElementArgs> launch;
  launch.bind(launch.args.y, y);
  launch.set(launch.args.index, index, 0, y.dim(0) - 1);
  launch.set(launch.args.value, value, least, most);
  if (gpu::on_gpu(encoder)) return set_element_gpu(encoder, launch);
  return cpu::encode(encoder, cpu::kernel<&set_element_cpu>("set_element_scalar"), launch);
}

}  // namespace

extern const OpInfo op_set_element;
const OpInfo op_set_element = {kOp, kInfos};

}  // namespace mlxn::ops

namespace mlxn {

Result<void> set_element(CommandEncoder& encoder, const Tensor& y, const Scalar<std::int64_t>& index,
                         const Scalar<std::int64_t>& value) {
  return detail::guarded([&] { return ops::encode_set_element(encoder, y, index, value); });
}

}  // namespace mlxn
