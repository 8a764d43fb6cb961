#include "qianli/convert/hugging_face/reader.h"

#include <fmt/core.h>

#include "qianli/base/error.h"
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

constexpr const char* kConfig = "config.json";

// Where trainers keep the weights in what they save: beside the optimizer, or in a wrapper.
constexpr const char* kWrappers[] = {"model.", "module.", "state_dict.", "model.module."};

// Those of a source's tensors whose names begin with `prefix`, without it.
class Unwrapped : public TensorSource {
 public:
  Unwrapped(std::shared_ptr<const TensorSource> source, const std::string& prefix)
      : TensorSource(source->source()), source_(std::move(source)) {
    for (const formats::TensorSpec& tensor : source_->tensors()) {
      if (!tensor.name.starts_with(prefix)) continue;
      add({tensor.name.substr(prefix.size()), tensor.dtype, tensor.shape});
      wrapped_.push_back(&tensor);
    }
  }

 private:
  void copy_rows(size_t index, int64_t first, int64_t count,
                 std::span<std::byte> out) const override {
    source_->read_rows(*wrapped_[index], first, count, out);
  }
  std::optional<std::span<const std::byte>> bytes_in_place(size_t index) const override {
    return source_->view(*wrapped_[index]);
  }

  std::shared_ptr<const TensorSource> source_;
  std::vector<const formats::TensorSpec*> wrapped_;
};

// The model's tensors, out of the wrapper that they may lie in.
std::shared_ptr<const TensorSource> unwrapped(std::shared_ptr<const TensorSource> source,
                                              const ModelSource& model) {
  const FolderNames names(model.spec, *source);
  const std::string first = model.table.front().hugging_face.front().name;
  if (names.find(first)) return source;
  for (const char* wrapper : kWrappers) {
    auto inside = std::make_shared<const Unwrapped>(source, wrapper);
    if (FolderNames(model.spec, *inside).find(first)) return inside;
  }
  return source;
}

// The tensors tell by themselves that they are quantised; config.json tells the size of blocks.
std::shared_ptr<const TensorSource> open_weights(const fs::path& path, const fs::path& config) {
  auto source = formats::open_tensor_source(path);
  if (!formats::has_block_scaled_tensors(*source)) return source;
  const model::Quantization quantization = model::load_quantization(config);
  return formats::dequantize_blocks(std::move(source),
                                    {quantization.block_rows, quantization.block_columns});
}

}  // namespace

bool is_hugging_face(const fs::path& path) {
  if (fs::is_directory(path) && fs::exists(path / kConfig)) return true;
  return formats::is_tensor_source(path);
}

std::unique_ptr<ModelSource> open_hugging_face(const fs::path& path, const SourceOptions& options) {
  auto model = std::make_unique<ModelSource>();
  const fs::path folder = fs::is_directory(path) ? path : path.parent_path();
  model->kind = "Hugging Face folder";
  if (!options.config.empty()) {
    model->spec = spec_of_config(options);
  } else if (fs::exists(folder / kConfig)) {
    model->spec = model::load_spec(folder);
  } else {
    throw CheckpointError("convert",
                          fmt::format("{} does not say which model it holds", path.string()),
                          "give --config, a folder with the model's config.json or a preset");
  }
  model->table = model::parameter_table(model->spec);
  model->companions = fs::is_directory(options.config) ? fs::path(options.config) : folder;
  const auto source = unwrapped(open_weights(path, model->companions), *model);
  const FolderNames names(model->spec, *source);
  if (model->spec.mtp.num_layers > 0 && lacks_prediction_heads(model->table, names)) {
    log::info("convert", "{} holds no multi-token prediction heads: left out", path.string());
    model->spec.mtp.num_layers = 0;
    model->table = model::parameter_table(model->spec);
  }
  model->reader = std::make_unique<ParameterReader>(
      model->table, stored_tensors(model->table, names), std::vector{source}, path.string(),
      [&](const std::string& name) { return names.ignored(name); });
  return model;
}

}  // namespace qianli::convert
