#pragma once

#include <memory>

#include "models/forward.h"

namespace mlxn {

class ModelImpl {
 public:
  Device device;
  ModelInfo info;
  std::unique_ptr<models::Decoder> decoder;
};

}  // namespace mlxn
