#include "qianli/convert/mindspore/mindspore.h"

#include <fmt/core.h>

#include <algorithm>
#include <fstream>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/base/log.h"
#include "qianli/convert/conversion_folder.h"
#include "qianli/convert/hugging_face/tensors.h"
#include "qianli/convert/produce.h"
#include "qianli/convert/write_model.h"
#include "qianli/formats/mindspore_checkpoint.h"
#include "qianli/formats/torch_types.h"
#include "qianli/model/hugging_face.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFile = "model.ckpt";

// Other programs call their archives .ckpt too; only a message begins with its first field's key.
bool is_message(const fs::path& file) {
  if (file.extension() != ".ckpt" || !fs::is_regular_file(file)) return false;
  return std::ifstream(file, std::ios::binary).get() == '\n';
}

std::vector<fs::path> files_of(const fs::path& path) {
  if (!fs::is_directory(path)) return {path};
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(path)) {
    if (is_message(entry.path())) files.push_back(entry.path());
  }
  std::ranges::sort(files);
  return files;
}

// The weights of one model, in one file or several.
class JoinedFiles : public formats::TensorSource {
 public:
  JoinedFiles(const fs::path& path, const std::vector<fs::path>& files)
      : TensorSource(path.string()) {
    for (const fs::path& file : files) {
      files_.push_back(formats::open_mindspore_source(file));
      for (const formats::TensorSpec& tensor : files_.back()->tensors()) {
        add(tensor);
        places_.push_back({files_.back().get(), &tensor});
      }
    }
  }

 private:
  void copy_rows(size_t index, int64_t first, int64_t count,
                 std::span<std::byte> out) const override {
    const auto& [file, tensor] = places_[index];
    file->read_rows(*tensor, first, count, out);
  }
  std::optional<std::span<const std::byte>> bytes_in_place(size_t index) const override {
    const auto& [file, tensor] = places_[index];
    return file->view(*tensor);
  }

  std::vector<std::unique_ptr<formats::TensorSource>> files_;
  std::vector<std::pair<const formats::TensorSource*, const formats::TensorSpec*>> places_;
};

// The model's tensors under the names that the files have. Heads for tokens further ahead leave the
// model where the files hold none.
std::vector<ForeignTensor> tensors_in(const formats::TensorSource& source, ModelSource& model) {
  const FolderNames names(model.spec, source);
  if (model.spec.mtp.num_layers > 0 && lacks_prediction_heads(model.table, names) &&
      !source.find("model.mtp_hidden_fusers.0.dense.weight")) {
    log::info("convert", "{} holds no multi-token prediction heads: left out", source.source());
    model.spec.mtp.num_layers = 0;
    model.table = model::parameter_table(model.spec);
  }
  if (!source.find("model.tok_embeddings.embedding_weight"))
    return stored_tensors(model.table, names);
  if (const std::string lacks = mindformers_lacks(model.spec); !lacks.empty()) {
    throw CheckpointError(
        "convert",
        fmt::format("{} has the names of MindSpore Transformers, which has none for {}",
                    source.source(), lacks),
        "--config says of which model the weights are");
  }
  return mindformers_tensors(model.spec, model.table, [&](const std::string& name) {
    const formats::TensorSpec* tensor = source.find(name);
    return tensor ? &tensor->shape : nullptr;
  });
}

}  // namespace

bool is_mindspore(const fs::path& path) {
  if (!fs::is_directory(path)) return is_message(path);
  for (const char* name : {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                           "pytorch_model.bin.index.json"}) {
    if (fs::exists(path / name)) return false;
  }
  return !files_of(path).empty();
}

std::unique_ptr<ModelSource> open_mindspore(const fs::path& path, const SourceOptions& options) {
  const fs::path folder = fs::is_directory(path) ? path : path.parent_path();
  auto model = std::make_unique<ModelSource>();
  model->kind = "MindSpore checkpoint";
  if (!options.config.empty()) {
    model->spec = spec_of_config(options);
  } else if (fs::exists(folder / "config.json")) {
    model->spec = model::load_spec(folder);
  } else {
    throw CheckpointError("convert",
                          fmt::format("{} does not say which model it holds", path.string()),
                          "give --config, a folder with the model's config.json or a preset");
  }
  model->companions = fs::is_directory(options.config) ? fs::path(options.config) : folder;
  model->table = model::parameter_table(model->spec);
  const auto source = std::make_shared<const JoinedFiles>(path, files_of(path));
  auto tensors = tensors_in(*source, *model);
  std::vector<std::shared_ptr<const formats::TensorSource>> files = {source};
  model->reader = std::make_unique<ParameterReader>(model->table, std::move(tensors),
                                                    std::move(files), path.string());
  return model;
}

void write_mindspore(const ModelSource& model, const fs::path& target, const TargetOptions& options,
                     const ProgressFunction& progress) {
  const std::string lacks = options.torch_names ? "" : mindformers_lacks(model.spec);
  const bool torch_names = options.torch_names || !lacks.empty();
  if (!lacks.empty()) {
    log::info("convert", "MindSpore Transformers has no names for {}: PyTorch's are written",
              lacks);
  }
  auto tensors = torch_names ? hugging_face_tensors(model.table)
                             : mindformers_tensors(model.spec, model.table);
  const Targets targets(model, std::move(tensors), options.dtype, progress);
  check_cover(model.table, targets.tensors(), target.string());
  const std::string type(formats::torch_type(targets.prevailing_dtype()).name);
  const OrderedJson config = model::to_hugging_face(model.spec, type);
  ConversionFolder folder(target, targets.identity(config.dump()), options.journal_step);
  write_file_atomically(folder.path() / "config.json", config.dump(2) + "\n",
                        FileRole::kCheckpoint);
  for (const model::CompanionFile& file : companions_of(model)) {
    write_file_atomically(folder.path() / file.name, file.bytes, FileRole::kCheckpoint);
  }
  folder.write(kFile, [&](FileGrowth growth) {
    formats::write_mindspore(folder.path() / kFile, targets.specs(), targets.producer(), {},
                             FileRole::kCheckpoint, std::move(growth));
  });
  folder.commit();
}

}  // namespace qianli::convert
