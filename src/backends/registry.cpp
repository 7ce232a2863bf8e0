#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

#include "backends/device_impl.h"
#include "backends/launch.h"
#include "base/check_value.h"
#include "mlxn/kernel.h"
#include "ops/op_table.h"

namespace mlxn {

struct KernelRegistry::Impl {
  explicit Impl(DeviceImpl& owner) : device(owner) {}
  DeviceImpl& device;
  std::mutex mutex;
  std::map<std::string, std::shared_ptr<const Kernel>, std::less<>> kernels;
  std::uint64_t generation = 0;
};

KernelRegistry::KernelRegistry(DeviceImpl& device) : impl_(std::make_unique<Impl>(device)) {}
KernelRegistry::KernelRegistry(std::nullptr_t) noexcept {}
KernelRegistry::~KernelRegistry() = default;

namespace {

constexpr std::uint32_t kMaxConstantsBytes = 4096;

Error no_device() noexcept { return make_error(ErrorCode::invalid_argument, "kernels: empty device handle"); }

bool is_builtin(std::string_view name) noexcept {
  for (const ops::OpInfo* op : ops::op_table()) {
    for (const ops::VariantInfo& variant : op->variants) {
      if (variant.name == name) return true;
    }
  }
  return false;
}

}  // namespace

Result<void> KernelRegistry::check(const KernelInfo& info, std::string_view call) const {
  if (is_builtin(info.name)) return make_error(ErrorCode::invalid_argument, "{}: '{}' is a built-in kernel", call, info.name);
  if (info.constants_bytes > kMaxConstantsBytes) {
    return make_error(ErrorCode::invalid_argument, "{}: '{}' wants {} bytes of constants, at most {}", call, info.name,
                      info.constants_bytes, kMaxConstantsBytes);
  }
  if (info.bindings.size() > kMaxBindings) {
    return make_error(ErrorCode::invalid_argument, "{}: '{}' wants {} bindings, at most {}", call, info.name, info.bindings.size(),
                      kMaxBindings);
  }
  for (std::size_t i = 0; i < info.bindings.size(); ++i) {
    MLXN_CHECK(check_enum(call, fmt::format("'{}': access of binding {}", info.name, i), info.bindings[i].access, Access::in_out, Access::in));
  }
  return {};
}

Result<std::shared_ptr<const Kernel>> KernelRegistry::add(KernelInfo info, Callable callable,
                                                          std::shared_ptr<const DeviceCode> code) {
  std::string name = info.name;
  std::shared_ptr<const Kernel> replaced;  // its callable may come to its end: outside the lock
  const std::lock_guard lock(impl_->mutex);
  auto kernel = std::make_shared<const Kernel>(std::move(info), std::move(callable), std::move(code), impl_->generation + 1);
  std::shared_ptr<const Kernel>& place = impl_->kernels.try_emplace(std::move(name)).first->second;
  ++impl_->generation;
  replaced = std::exchange(place, kernel);
  return kernel;
}

Result<std::shared_ptr<const Kernel>> KernelRegistry::register_callable(KernelInfo info, Callable callable) {
  return detail::guarded([&]() -> Result<std::shared_ptr<const Kernel>> {
    if (!impl_) return no_device();
    if (info.name.empty() || !callable) {
      return make_error(ErrorCode::invalid_argument, "register_callable: '{}' wants a name and a function", info.name);
    }
    MLXN_CHECK(check(info, "register_callable"));
    if (info.backend.empty()) info.backend = "cpu";
    return add(std::move(info), std::move(callable), nullptr);
  });
}

Result<std::shared_ptr<const Kernel>> KernelRegistry::register_cuda_source(KernelInfo info, const CudaSource& source) {
  return detail::guarded([&]() -> Result<std::shared_ptr<const Kernel>> {
    if (!impl_) return no_device();
    if (info.name.empty() || source.code.empty()) {
      return make_error(ErrorCode::invalid_argument, "register_cuda_source: '{}' wants a name and a source", info.name);
    }
    MLXN_CHECK(check(info, "register_cuda_source"));
    if (info.backend.empty()) info.backend = "cuda";
    MLXN_TRY(auto code, impl_->device.compile(info, source));
    return add(std::move(info), nullptr, std::move(code));
  });
}

Result<std::shared_ptr<const Kernel>> KernelRegistry::find(std::string_view name) const {
  return detail::guarded([&]() -> Result<std::shared_ptr<const Kernel>> {
    if (!impl_) return no_device();
    const std::lock_guard lock(impl_->mutex);
    const auto it = impl_->kernels.find(name);
    if (it == impl_->kernels.end()) {
      return make_error(ErrorCode::not_found, "kernel '{}' {}", name,
                        is_builtin(name) ? "is built in: operations run it, only registered ones are found" : "is not registered");
    }
    return it->second;
  });
}

Result<std::vector<std::string>> KernelRegistry::names() const {
  return detail::guarded([&]() -> Result<std::vector<std::string>> {
    if (!impl_) return no_device();
    std::vector<std::string> all;
    const std::string_view backend = impl_->device.is_gpu() ? "gpu" : "cpu";
    for (const ops::OpInfo* op : ops::op_table()) {
      for (const ops::VariantInfo& variant : op->variants) {
        const bool is_ours = variant.backend == backend || variant.backend == impl_->device.capabilities().backend;
        if (is_ours && variant.available()) all.emplace_back(variant.name);
      }
    }
    const std::lock_guard lock(impl_->mutex);
    for (const auto& [name, kernel] : impl_->kernels) all.push_back(name);
    return all;
  });
}

}  // namespace mlxn
