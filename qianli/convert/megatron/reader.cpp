#include "qianli/convert/megatron/reader.h"

#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/convert/megatron/adapter.h"
#include "qianli/convert/megatron/dist.h"
#include "qianli/convert/megatron/rank_files.h"
#include "qianli/convert/megatron/tensors.h"
#include "qianli/model/hugging_face.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;
using formats::Value;

[[noreturn]] void fail(const std::string& problem, const std::string& hint = {}) {
  throw CheckpointError("convert", problem, hint);
}

constexpr const char* kEmbedding = "word_embeddings.weight";

// The first stage's part of the embedding; null where there is none.
const formats::TensorSpec* find_embedding(const RankFiles& files) {
  for (const formats::TensorSpec& tensor : files.sources.front()->tensors()) {
    if (tensor.name.ends_with(kEmbedding)) return &tensor;
  }
  return nullptr;
}

// Of the whole embedding, from the first rank's part.
int64_t padded_rows(const RankFiles& files) {
  const formats::TensorSource& first = *files.sources.front();
  const formats::TensorSpec* embedding = find_embedding(files);
  if (embedding) return embedding_rows(first, embedding->name) * files.layout.tensor;
  if (holds_adapter(files)) {
    fail(fmt::format("{}: expected a model, got an adapter alone", files.folder.string()),
         "give it as --adapter on its base, or convert it --to peft");
  }
  fail(fmt::format("{}: expected {} on the first stage, found none", first.source(), kEmbedding));
}

// The layout is that of the arguments: where it does not fit, they and the model contradict.
std::vector<ForeignTensor> tensors_of(const RankFiles& files, const ModelSource& model,
                                      const MegatronLayout& layout) {
  try {
    return megatron_tensors(model.spec, model.table, layout);
  } catch (const ConfigError& error) {
    fail(fmt::format("{}: the layout in args does not fit the model: {}", files.told_args->source(),
                     error.what()));
  }
}

// In a model with adapters the tensors of an adapted layer stand one module deeper.
void find_base_layers(const RankFiles& files, std::vector<ForeignTensor>& tensors) {
  for (ForeignTensor& tensor : tensors) {
    const formats::TensorSource& source = *files.sources[tensor.file];
    if (source.find(tensor.name)) continue;
    std::string deeper = tensor.name;
    deeper.insert(deeper.rfind('.'), ".base_layer");
    if (source.find(deeper)) tensor.name = std::move(deeper);
  }
}

std::unique_ptr<ModelSource> open_base(const RankFiles& files, const SourceOptions& options) {
  auto model = std::make_unique<ModelSource>();
  model->kind = "Megatron checkpoint";
  model->path = files.folder;
  MegatronLayout layout = files.layout;
  layout.padded_vocab_size = padded_rows(files);
  model->spec = model_of(files.arguments(), options, layout.padded_vocab_size);
  model->table = model::parameter_table(model->spec);
  if (!options.config.empty() && fs::is_directory(options.config))
    model->companions = options.config;
  read_names(files, model->spec, layout);
  auto tensors = tensors_of(files, *model, layout);
  find_base_layers(files, tensors);
  model->reader = std::make_unique<ParameterReader>(model->table, std::move(tensors), files.sources,
                                                    files.folder.string(), is_adapter_name);
  model->layout = layout;
  return model;
}

}  // namespace

int64_t embedding_rows(const formats::TensorSource& source, const std::string& name) {
  const formats::TensorSpec& tensor = source.at(name);
  if (tensor.shape.size() == 2 && tensor.shape[0] <= INT32_MAX) return tensor.shape[0];
  fail(fmt::format("{}: expected {} of two axes, got {}", source.source(), name,
                   formats::shape_text(tensor.shape)));
}

model::ModelSpec model_of(const StoredArguments& args, const SourceOptions& options,
                          int64_t embedding_rows) {
  if (!options.config.empty()) return spec_of_config(options);
  if (const Value* config = args.find("qianli_config"); config && config->as_text()) {
    const std::string source = args.source() + ": args.qianli_config";
    return model::from_hugging_face(parse_json(*config->as_text(), source, FileRole::kCheckpoint),
                                    source);
  }
  return spec_of_arguments(args, embedding_rows);
}

bool is_megatron(const fs::path& path) {
  return has_tracker(path) || has_rank_folders(path) || is_megatron_dist(path);
}

std::unique_ptr<ModelSource> open_megatron(const fs::path& path, const SourceOptions& options) {
  const fs::path folder = iteration_folder(path);
  if (is_megatron_dist(folder)) return open_megatron_dist(folder, options);
  const RankFiles files = open_rank_files(folder);
  auto base = open_base(files, options);
  if (!holds_adapter(files)) return base;
  const AdapterSource adapter = read_megatron_adapter(files, base->spec, options);
  base->lora_alpha = adapter.model->lora_alpha;
  return with_adapter(std::move(base), as_peft(adapter));
}

AdapterSource open_megatron_adapter(const fs::path& path, const SourceOptions& options) {
  const RankFiles files = open_rank_files(iteration_folder(path));
  const StoredArguments args = files.arguments();
  int64_t rows = 0;
  if (find_embedding(files)) rows = padded_rows(files);
  if (rows == 0) rows = args.integer({"padded_vocab_size"}).value_or(0);
  return read_megatron_adapter(files, model_of(args, options, rows), options);
}

}  // namespace qianli::convert
