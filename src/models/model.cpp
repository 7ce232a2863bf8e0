#include "mlxn/model.h"

#include "base/check_value.h"
#include "formats/printable.h"
#include "models/metadata.h"
#include "models/model_impl.h"

namespace mlxn {
namespace {

struct Family {
  std::string_view architecture;
  std::unique_ptr<models::Decoder> (*make)();
};
constexpr Family kFamilies[] = {
    {"llama", &models::make_llama},   {"qwen2", &models::make_qwen2},   {"qwen3", &models::make_qwen3},
    {"gemma2", &models::make_gemma2}, {"gemma3", &models::make_gemma3}, {"phi3", &models::make_phi3},
};

std::string known_architectures() {
  std::string names;
  for (const Family& family : kFamilies) {
    if (!names.empty()) names += ", ";
    names += family.architecture;
  }
  return names;
}

}  // namespace

Result<Model> Model::load(const GgufFile& file, const Device& device, const LoadOptions& options) {
  return detail::guarded([&]() -> Result<Model> {
    if (!device.defined()) return make_error(ErrorCode::invalid_argument, "model: empty device handle");
    MLXN_CHECK(check_enum("model", "prepare", options.prepare, PrepareMode::off));
    MLXN_TRY(const std::string_view architecture, file.get_string("general.architecture"));
    for (const Family& family : kFamilies) {
      if (family.architecture != architecture) continue;
      auto impl = std::make_shared<ModelImpl>();
      impl->device = device;
      impl->info.architecture = architecture;
      MLXN_TRY(const std::string_view name, file.get_string_or("general.name", ""));
      impl->info.name = name;
      models::Loader loader(file, device, options);
      MLXN_TRY(const GgufArchitecture sizes, models::read_architecture(file, impl->info));
      impl->decoder = family.make();
      MLXN_CHECK(impl->decoder->load(loader, sizes, impl->info));
      impl->info.parameters = loader.parameters();
      impl->info.weight_bytes = loader.weight_bytes();
      impl->info.bytes_per_token = loader.bytes_per_token();
      impl->info.prepared = loader.prepares();
      impl->info.prepare_note = loader.prepare_note();
      impl->types = loader.types();
      return Model(std::move(impl));
    }
    return make_error(ErrorCode::unsupported, "{}: architecture {} is not supported, wanted one of: {}", file.label(),
                      excerpt(architecture), known_architectures());
  });
}

const ModelInfo& Model::info() const noexcept {
  static const ModelInfo none;
  return impl_ ? impl_->info : none;
}
Device Model::device() const noexcept { return impl_ ? impl_->device : Device(); }

}  // namespace mlxn
