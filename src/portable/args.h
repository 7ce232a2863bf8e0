#pragma once

// Launch arguments: plain structs that every compiler of a kernel reads (C++14, no standard headers).

namespace mlxn {

/// A pointer argument of a kernel, by the way the kernel touches it. Eight bytes on every device.
template <class T>
struct In {
  const T* ptr;
};
template <class T>
struct Out {
  T* ptr;
};
template <class T>
struct InOut {
  T* ptr;
};
static_assert(sizeof(In<float>) == 8 && sizeof(Out<float>) == 8 && sizeof(InOut<float>) == 8, "args travel as 64-bit pointers");

}  // namespace mlxn
