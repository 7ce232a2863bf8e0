#pragma once

#include <string_view>

namespace mlxn::test {

/// Tests of a part, as GoogleTest's filter names them.
struct Subset {
  std::string_view part;
  std::string_view filter;
};

/// What compute-sanitizer runs over, with the smallest sizes that reach every branch (wants_small_sizes()): every kernel is
/// among it. Of the backend's own tests what copies, records graphs and shares streams; not what fills the memory, faults on
/// purpose, moves data by the gigabyte, compiles sources (racecheck takes no kernel with all of a multiprocessor's shared memory), or
/// is about the host alone.
inline constexpr Subset kSanitized[] = {
    {"cuda", "CudaGpu.*-*OutOfMemory*:*Fault*:*TransfersComeAfter*:*KernelsOf*:*UploadsComeBack*"},
    {"conformance", "*-*OffsetsBeyondFourGigabytes*:*BatchInvariant*:*SameCallSameBits*:Attention.shapes_of_models:*rrors*:InstructionSets*:*Plans*:*Refused*:Measure.ceilings*"},
};

}  // namespace mlxn::test
