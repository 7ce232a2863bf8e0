#pragma once

#include "tile_check/kernels.h"

// What is checked. Both count what is wrong in `failures` (case.h).
namespace tile_check {

/// Every kernel of a type.
void check_type(const Weights& type);

/// Rows of x that are not finite spoil themselves only; zeros give zeros.
void check_special();

}  // namespace tile_check
