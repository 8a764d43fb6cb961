#include "qianli/convert/hugging_face/reader.h"

#include "qianli/base/log.h"
#include "qianli/convert/hugging_face/folder_names.h"
#include "qianli/convert/hugging_face/tensors.h"
#include "qianli/formats/block_scaled_source.h"
#include "qianli/model/hugging_face.h"
#include "qianli/model/quantization.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;
using formats::TensorSource;

// The tensors tell by themselves that they are quantised; config.json tells the size of blocks.
std::shared_ptr<const TensorSource> open_weights(const fs::path& folder) {
  const model::Quantization quantization = model::load_quantization(folder);
  auto source = formats::open_tensor_source(folder);
  if (!formats::has_block_scaled_tensors(*source)) return source;
  return formats::dequantize_blocks(std::move(source),
                                    {quantization.block_rows, quantization.block_columns});
}

}  // namespace

bool is_hugging_face(const fs::path& path) {
  return fs::is_directory(path) && fs::exists(path / "config.json");
}

std::unique_ptr<ModelSource> open_hugging_face(const fs::path& folder, const SourceOptions&) {
  auto model = std::make_unique<ModelSource>();
  model->kind = "Hugging Face folder";
  model->spec = model::load_spec(folder);
  model->table = model::parameter_table(model->spec);
  model->companions = folder;
  const auto source = open_weights(folder);
  const FolderNames names(model->spec, *source);
  if (model->spec.mtp.num_layers > 0 && lacks_prediction_heads(model->table, names)) {
    log::info("convert", "{} holds no multi-token prediction heads: left out", folder.string());
    model->spec.mtp.num_layers = 0;
    model->table = model::parameter_table(model->spec);
  }
  model->reader = std::make_unique<ParameterReader>(
      model->table, stored_tensors(model->table, names), std::vector{source}, folder.string(),
      [&](const std::string& name) { return names.ignored(name); });
  return model;
}

}  // namespace qianli::convert
