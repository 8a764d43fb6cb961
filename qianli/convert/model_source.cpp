#include "qianli/convert/model_source.h"

#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/convert/hugging_face.h"
#include "qianli/convert/megatron_reader.h"
#include "qianli/formats/tensor_source.h"
#include "qianli/model/hugging_face.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;

// Many folders come without the heads for tokens further ahead that their config.json speaks of.
bool lacks_prediction_heads(const Table& table, const formats::TensorSource& source) {
  for (const model::ParameterEntry& entry : table) {
    if (!entry.name.starts_with("mtp.")) continue;
    for (const model::ForeignPiece& piece : entry.hugging_face) {
      if (source.find(piece.name)) return false;
    }
  }
  return true;
}

bool is_hugging_face(const fs::path& path) {
  return fs::is_directory(path) && fs::exists(path / "config.json");
}

std::unique_ptr<ModelSource> open_hugging_face(const fs::path& folder, const SourceOptions&) {
  auto model = std::make_unique<ModelSource>();
  model->kind = "Hugging Face folder";
  model->spec = model::load_spec(folder);
  model->table = model::parameter_table(model->spec);
  model->companions = folder;
  const std::shared_ptr<const formats::TensorSource> source = formats::open_tensor_source(folder);
  if (model->spec.mtp.num_layers > 0 && lacks_prediction_heads(model->table, *source)) {
    log::info("convert", "{} holds no multi-token prediction heads: left out", folder.string());
    model->spec.mtp.num_layers = 0;
    model->table = model::parameter_table(model->spec);
  }
  const auto has = [&](const std::string& name) { return source->find(name) != nullptr; };
  model->reader = std::make_unique<ParameterReader>(
      model->table, hugging_face_tensors(model->table, has), std::vector{source}, folder.string());
  return model;
}

// One line for every form of model that can be read; the first that knows the path opens it.
struct Form {
  bool (*is)(const fs::path& path);
  std::unique_ptr<ModelSource> (*open)(const fs::path& path, const SourceOptions& options);
};
constexpr Form kForms[] = {
    {is_megatron, open_megatron},
    {is_hugging_face, open_hugging_face},
};

}  // namespace

std::unique_ptr<ModelSource> open_model(const fs::path& path, const SourceOptions& options) {
  for (const Form& form : kForms) {
    if (form.is(path)) return form.open(path, options);
  }
  throw CheckpointError("convert", fmt::format("expected a model, got {}", path.string()),
                        "a Hugging Face folder (config.json and weights) or a Megatron checkpoint "
                        "(latest_checkpointed_iteration.txt or mp_rank_* folders)");
}

}  // namespace qianli::convert
