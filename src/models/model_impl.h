#pragma once

#include <memory>
#include <vector>

#include "models/forward.h"

namespace mlxn {

class ModelImpl {
 public:
  Device device;
  ModelInfo info;
  std::vector<DType> types;  // of its matrices, each once
  std::unique_ptr<models::Decoder> decoder;
};

}  // namespace mlxn
