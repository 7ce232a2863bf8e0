#include <dlfcn.h>

#include "backends/cuda/runtime.h"

namespace mlxn::cuda {

bool driver_is_installed() noexcept {
  void* const driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (driver == nullptr) return false;
  dlclose(driver);
  return true;
}

}  // namespace mlxn::cuda
