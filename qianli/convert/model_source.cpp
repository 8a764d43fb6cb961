#include "qianli/convert/model_source.h"

#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/convert/hugging_face.h"
#include "qianli/convert/megatron_reader.h"
#include "qianli/formats/tensor_source.h"
#include "qianli/model/hugging_face.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<ModelSource> open_hugging_face(const fs::path& folder) {
  auto model = std::make_unique<ModelSource>();
  model->kind = "Hugging Face folder";
  model->spec = model::load_spec(folder);
  model->table = model::parameter_table(model->spec);
  model->companions = folder;
  const std::shared_ptr<const formats::TensorSource> source = formats::open_tensor_source(folder);
  const auto has = [&](const std::string& name) { return source->find(name) != nullptr; };
  model->reader = std::make_unique<ParameterReader>(
      model->table, hugging_face_tensors(model->table, has), std::vector{source}, folder.string());
  return model;
}

}  // namespace

std::unique_ptr<ModelSource> open_model(const fs::path& path, const SourceOptions& options) {
  if (is_megatron(path)) return open_megatron(path, options);
  if (fs::is_directory(path) && fs::exists(path / "config.json")) return open_hugging_face(path);
  throw CheckpointError("convert", fmt::format("expected a model, got {}", path.string()),
                        "a Hugging Face folder (config.json and weights) or a Megatron checkpoint "
                        "(latest_checkpointed_iteration.txt or mp_rank_* folders)");
}

}  // namespace qianli::convert
