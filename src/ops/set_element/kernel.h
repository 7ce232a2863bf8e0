#pragma once

#include "ops/set_element/args.h"
#include "portable/dialect.h"

namespace mlxn {
namespace gpu {

/// One thread stores one word. The value's low half is right for either sign.
struct SetElement {
  using Args = ops::SetElementArgs;
  using Shared = NoShared;
  static constexpr uint32_t kThreads = kSimdWidth;

  static MLXN_FN void run(const Args& args, const Thread& t, MLXN_SHARED Shared&) {
    if (t.index == 0) args.y.ptr[load(args.index)] = uint32_t(load(args.value));
  }
};

}  // namespace gpu
}  // namespace mlxn

#define MLXN_KERNELS(KERNEL) KERNEL(set_element_u32, SetElement)
