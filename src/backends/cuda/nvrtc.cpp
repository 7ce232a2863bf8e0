#include "backends/cuda/nvrtc.h"

#include <dlfcn.h>
#include <nvrtc.h>

#include <algorithm>
#include <vector>

#include "base/error.h"

namespace mlxn::cuda {
namespace {

/// The functions of NVRTC that are used, by their types in its header.
struct Nvrtc {
#define MLXN_NVRTC(name) decltype(&::nvrtc##name) name = nullptr
  MLXN_NVRTC(CreateProgram);
  MLXN_NVRTC(DestroyProgram);
  MLXN_NVRTC(CompileProgram);
  MLXN_NVRTC(GetProgramLogSize);
  MLXN_NVRTC(GetProgramLog);
  MLXN_NVRTC(GetCUBINSize);
  MLXN_NVRTC(GetCUBIN);
  MLXN_NVRTC(GetPTXSize);
  MLXN_NVRTC(GetPTX);
  MLXN_NVRTC(GetErrorString);
  MLXN_NVRTC(GetNumSupportedArchs);
  MLXN_NVRTC(GetSupportedArchs);
#undef MLXN_NVRTC
  std::string missing;  // why there is none
};

#define MLXN_STRING_INNER(x) #x
#define MLXN_STRING(x) MLXN_STRING_INNER(x)

/// Tried in this order; the system's search path, then where the toolkit is installed by default.
constexpr const char* kNames[] = {
    "libnvrtc.so." MLXN_STRING(MLXN_CUDA_MAJOR), "libnvrtc.so", "/usr/local/cuda/lib64/libnvrtc.so",
    "/usr/local/cuda-" MLXN_STRING(MLXN_CUDA_MAJOR) "/lib64/libnvrtc.so",
};

Nvrtc open_nvrtc() {
  Nvrtc nvrtc;
  void* library = nullptr;
  for (const char* name : kNames) {
    library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) break;
    nvrtc.missing += fmt::format("{}{}", nvrtc.missing.empty() ? "" : ", ", name);
  }
  if (library == nullptr) {
    nvrtc.missing = fmt::format("there is no NVRTC library ({})", nvrtc.missing);
    return nvrtc;
  }
  nvrtc.missing.clear();
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    if (function == nullptr) nvrtc.missing = fmt::format("the NVRTC library has no {}: too old", name);
  };
#define MLXN_NVRTC(name) find(nvrtc.name, "nvrtc" #name)
  MLXN_NVRTC(CreateProgram);
  MLXN_NVRTC(DestroyProgram);
  MLXN_NVRTC(CompileProgram);
  MLXN_NVRTC(GetProgramLogSize);
  MLXN_NVRTC(GetProgramLog);
  MLXN_NVRTC(GetCUBINSize);
  MLXN_NVRTC(GetCUBIN);
  MLXN_NVRTC(GetPTXSize);
  MLXN_NVRTC(GetPTX);
  MLXN_NVRTC(GetErrorString);
  MLXN_NVRTC(GetNumSupportedArchs);
  MLXN_NVRTC(GetSupportedArchs);
#undef MLXN_NVRTC
  return nvrtc;
}

/// A program, destroyed in the end.
struct Program {
  explicit Program(const Nvrtc& library) noexcept : nvrtc(library) {}
  ~Program() {
    if (handle != nullptr) nvrtc.DestroyProgram(&handle);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  const Nvrtc& nvrtc;
  nvrtcProgram handle = nullptr;
};

std::string log_of(const Program& program) {
  std::size_t size = 0;
  if (program.nvrtc.GetProgramLogSize(program.handle, &size) != NVRTC_SUCCESS || size <= 1) return {};
  std::string log(size, '\0');
  if (program.nvrtc.GetProgramLog(program.handle, log.data()) != NVRTC_SUCCESS) return {};
  log.resize(std::min(log.size(), log.find('\0')));
  while (!log.empty() && log.back() == '\n') log.pop_back();
  return log;
}

}  // namespace

Result<std::string> compile_source(std::string_view name, std::string_view code, std::span<const std::string> options, int capability) {
  return mlxn::detail::guarded([&]() -> Result<std::string> {
    static const Nvrtc nvrtc = open_nvrtc();
    if (!nvrtc.missing.empty()) return make_error(ErrorCode::unsupported, "{}: {}", name, nvrtc.missing);
    const auto failed = [&](std::string_view what, nvrtcResult result) {
      const ErrorCode error = result == NVRTC_ERROR_OUT_OF_MEMORY ? ErrorCode::out_of_memory : ErrorCode::compile;
      return make_error(error, "{}: {}: {}", name, what, nvrtc.GetErrorString(result));
    };
    int count = 0;
    nvrtcResult result = nvrtc.GetNumSupportedArchs(&count);
    std::vector<int> known(static_cast<std::size_t>(std::max(count, 0)));
    if (result == NVRTC_SUCCESS && count > 0) result = nvrtc.GetSupportedArchs(known.data());
    if (result != NVRTC_SUCCESS) return failed("the compiler's list of devices", result);
    // The device's own machine code, with what only its kind has; else PTX for the newest device before it.
    const bool exact = std::find(known.begin(), known.end(), capability) != known.end();
    int target = 0;
    for (const int k : known) {
      if (k <= capability) target = std::max(target, k);
    }
    if (target == 0) {
      return make_error(ErrorCode::unsupported, "{}: the NVRTC library knows no device as old as compute capability {}.{}", name,
                        capability / 10, capability % 10);
    }
    const std::string architecture =
        exact ? fmt::format("--gpu-architecture=sm_{}{}", target, target >= 90 ? "a" : "") : fmt::format("--gpu-architecture=compute_{}", target);
    std::vector<const char*> arguments = {architecture.c_str()};
    for (const std::string& option : options) arguments.push_back(option.c_str());
    const std::string source(code), file = fmt::format("{}.cu", name);
    Program program(nvrtc);
    result = nvrtc.CreateProgram(&program.handle, source.c_str(), file.c_str(), 0, nullptr, nullptr);
    if (result != NVRTC_SUCCESS) return failed("the source", result);
    result = nvrtc.CompileProgram(program.handle, static_cast<int>(arguments.size()), arguments.data());
    if (result != NVRTC_SUCCESS) {
      return failed("the CUDA source does not compile", result).code() == ErrorCode::out_of_memory
                 ? failed("compiling", result)
                 : make_error(ErrorCode::compile, "{}: the CUDA source does not compile ({}):\n{}", name, nvrtc.GetErrorString(result),
                              log_of(program));
    }
    std::size_t bytes = 0;
    result = exact ? nvrtc.GetCUBINSize(program.handle, &bytes) : nvrtc.GetPTXSize(program.handle, &bytes);
    std::string image(bytes, '\0');
    if (result == NVRTC_SUCCESS) result = exact ? nvrtc.GetCUBIN(program.handle, image.data()) : nvrtc.GetPTX(program.handle, image.data());
    if (result != NVRTC_SUCCESS || image.empty()) return failed("the compiled code", result);
    return image;
  });
}

}  // namespace mlxn::cuda
