#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "mlxn/device.h"

namespace mlxn::models {

/// The elements of a contiguous tensor, wherever it lives.
template <class T>
[[nodiscard]] Result<std::vector<T>> to_host(const Tensor& tensor) {
  std::vector<T> values(static_cast<std::size_t>(tensor.bytes() / sizeof(T)));
  MLXN_CHECK(tensor.device().download(std::as_writable_bytes(std::span(values)), tensor));
  return values;
}
/// Sets all elements of a contiguous tensor.
template <class T>
[[nodiscard]] Result<void> to_device(const Tensor& tensor, std::span<const T> values) {
  return tensor.device().upload(tensor, std::as_bytes(values));
}

}  // namespace mlxn::models
