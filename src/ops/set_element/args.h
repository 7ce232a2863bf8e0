#pragma once

#include "portable/args.h"

namespace mlxn {
namespace ops {

struct SetElementArgs {
  InOut<uint32_t> y;  // bound as a whole, since the place is known only when the kernel runs
  Index index, value;
};

}  // namespace ops
}  // namespace mlxn
