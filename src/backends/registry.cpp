#include <algorithm>
#include <map>
#include <mutex>

#include "base/error.h"
#include "mlxn/kernel.h"
#include "ops/op_table.h"

namespace mlxn {

struct KernelRegistry::Impl {
  std::mutex mutex;
  std::map<std::string, std::shared_ptr<const Kernel>, std::less<>> kernels;
  std::uint64_t generation = 0;
};

KernelRegistry::KernelRegistry() : impl_(std::make_unique<Impl>()) {}
KernelRegistry::~KernelRegistry() = default;

namespace {

constexpr std::uint32_t kMaxConstantsBytes = 4096;

bool is_builtin(std::string_view name) noexcept {
  for (const ops::OpInfo* op : ops::op_table()) {
    for (const ops::VariantInfo& variant : op->variants) {
      if (variant.name == name) return true;
    }
  }
  return false;
}

}  // namespace

Result<std::shared_ptr<const Kernel>> KernelRegistry::register_callable(KernelInfo info, Callable callable) {
  return detail::guarded([&]() -> Result<std::shared_ptr<const Kernel>> {
    if (info.name.empty() || !callable) {
      return make_error(ErrorCode::invalid_argument, "register_callable: '{}' wants a name and a function", info.name);
    }
    if (is_builtin(info.name)) {
      return make_error(ErrorCode::invalid_argument, "register_callable: '{}' is a built-in kernel", info.name);
    }
    if (info.constants_bytes > kMaxConstantsBytes) {
      return make_error(ErrorCode::invalid_argument, "register_callable: '{}' wants {} bytes of constants, at most {}", info.name,
                        info.constants_bytes, kMaxConstantsBytes);
    }
    if (info.backend.empty()) info.backend = "cpu";
    const std::lock_guard lock(impl_->mutex);
    auto kernel = std::make_shared<const Kernel>(std::move(info), std::move(callable), ++impl_->generation);
    impl_->kernels.insert_or_assign(kernel->info().name, kernel);
    return kernel;
  });
}

Result<std::shared_ptr<const Kernel>> KernelRegistry::find(std::string_view name) const {
  return detail::guarded([&]() -> Result<std::shared_ptr<const Kernel>> {
    const std::lock_guard lock(impl_->mutex);
    const auto it = impl_->kernels.find(name);
    if (it == impl_->kernels.end()) return make_error(ErrorCode::not_found, "kernel '{}' is not registered", name);
    return it->second;
  });
}

Result<std::vector<std::string>> KernelRegistry::names() const {
  return detail::guarded([&]() -> Result<std::vector<std::string>> {
    std::vector<std::string> all;
    for (const ops::OpInfo* op : ops::op_table()) {
      for (const ops::VariantInfo& variant : op->variants) {
        if (variant.available()) all.emplace_back(variant.name);
      }
    }
    const std::lock_guard lock(impl_->mutex);
    for (const auto& [name, kernel] : impl_->kernels) all.push_back(name);
    return all;
  });
}

}  // namespace mlxn
