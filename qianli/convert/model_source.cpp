#include "qianli/convert/model_source.h"

#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/convert/checkpoint/reader.h"
#include "qianli/convert/gguf/reader.h"
#include "qianli/convert/hugging_face/reader.h"
#include "qianli/convert/megatron/adapter.h"
#include "qianli/convert/megatron/reader.h"
#include "qianli/convert/mindspore/mindspore.h"
#include "qianli/convert/upcycle.h"
#include "qianli/model/hugging_face.h"
#include "qianli/model/presets.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;

// One line for every form of model that can be read; the first that knows the path opens it.
struct Form {
  bool (*is)(const fs::path& path);
  std::unique_ptr<ModelSource> (*open)(const fs::path& path, const SourceOptions& options);
};
constexpr Form kForms[] = {
    {is_checkpoint, open_checkpoint},     {is_megatron, open_megatron},
    {is_mindspore, open_mindspore},       {is_gguf, open_gguf},
    {is_hugging_face, open_hugging_face},
};

std::unique_ptr<ModelSource> adapted(std::unique_ptr<ModelSource> base,
                                     const SourceOptions& options) {
  if (!is_megatron(options.adapter)) {
    const Adapter adapter = open_peft_adapter(options.adapter, base->table);
    return with_adapter(std::move(base), adapter);
  }
  const auto adapter = read_megatron_adapter(open_rank_files(iteration_folder(options.adapter)),
                                             base->spec, options);
  base->lora_alpha = adapter.model->lora_alpha;
  return with_adapter(std::move(base), as_peft(adapter));
}

}  // namespace

model::ModelSpec spec_of_config(const SourceOptions& options) {
  return model::is_preset(options.config) ? model::preset(options.config)
                                          : model::load_spec(options.config);
}

bool is_model(const fs::path& path) {
  return std::ranges::any_of(kForms, [&](const Form& form) { return form.is(path); });
}

std::unique_ptr<ModelSource> open_model(const fs::path& path, const SourceOptions& options) {
  for (const Form& form : kForms) {
    if (!form.is(path)) continue;
    auto model = form.open(path, options);
    if (!options.adapter.empty()) model = adapted(std::move(model), options);
    model->path = path;
    model->adapter = options.adapter;
    if (options.upcycling) model = upcycled(std::move(model), *options.upcycling);
    return model;
  }
  throw CheckpointError(
      "convert", fmt::format("expected a model, got {}", path.string()),
      "a Qianli checkpoint or run, a Hugging Face folder (config.json and weights), weights under "
      "its names and --config, a Megatron checkpoint (latest_checkpointed_iteration.txt or "
      "mp_rank_* folders), MindSpore's .ckpt or a GGUF file");
}

fs::path companion_folder(const ModelSource& model, const fs::path& scratch) {
  if (model.companion_files.empty()) return model.companions;
  fs::create_directories(scratch);
  for (const model::CompanionFile& file : model.companion_files)
    write_file_atomically(scratch / file.name, file.bytes, FileRole::kData);
  return scratch;
}

std::vector<model::CompanionFile> companions_of(const ModelSource& model) {
  auto files = model.companion_files;
  for (auto& file : model::read_companion_files(model.companions)) files.push_back(std::move(file));
  return files;
}

}  // namespace qianli::convert
