#include <fmt/core.h>

#include "qianli/base/file.h"
#include "qianli/convert/conversion_folder.h"
#include "qianli/convert/produce.h"
#include "qianli/convert/write_model.h"
#include "qianli/formats/checkpoint_source.h"
#include "qianli/formats/hashed_file.h"
#include "qianli/formats/safetensors_folder.h"
#include "qianli/formats/torch_types.h"
#include "qianli/model/hugging_face.h"

namespace qianli::convert {

namespace {

using formats::TensorKind;

// The tensors of one kind, and the model whose numbers they are.
struct Kind {
  TensorKind kind;
  const ModelSource* model;
};

std::vector<Kind> kinds_of(const ModelSource& model) {
  if (!model.states) return {{TensorKind::kWeight, &model}};
  return {{TensorKind::kWeight, model.states->weights.get()},
          {TensorKind::kExpAvg, model.states->exp_avg.get()},
          {TensorKind::kExpAvgSq, model.states->exp_avg_sq.get()}};
}

// Under the names that they have in the files. Buffers are no states.
std::vector<ForeignTensor> tensors_of(const Kind& kind) {
  std::vector<ForeignTensor> tensors;
  for (ForeignTensor& tensor : own_tensors(kind.model->table)) {
    const bool buffer = kind.model->table[tensor.parts.front().parameter].buffer;
    if (buffer && kind.kind != TensorKind::kWeight) continue;
    tensor.name = formats::state_name(kind.kind, tensor.name);
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

}  // namespace

void write_checkpoint(const ModelSource& model, const std::filesystem::path& target,
                      const TargetOptions& options, const ProgressFunction& progress) {
  const std::vector<Kind> kinds = kinds_of(model);
  uint64_t all = 0, before = 0;  // bytes of all kinds, and of those that are written
  const ProgressFunction of_all = [&](uint64_t done, uint64_t) {
    if (progress) progress(before + done, all);
  };
  std::vector<Targets> targets;
  for (const Kind& kind : kinds) {
    targets.emplace_back(*kind.model, tensors_of(kind),
                         kind.kind == TensorKind::kWeight ? options.dtype : std::nullopt, of_all);
    all += targets.back().total_bytes();
  }
  const std::string type(formats::torch_type(targets.front().prevailing_dtype()).name);
  const OrderedJson config = model::to_hugging_face(model.spec, type);
  ConversionFolder folder(target,
                          targets.front().identity(fmt::format("checkpoint {} {}{}", config.dump(),
                                                               options.max_shard_bytes,
                                                               model.states ? " with states" : "")),
                          options.journal_step);
  formats::Manifest manifest{.model = config};
  if (model.states) manifest.state = model.states->training;
  const auto add_file = [&](const std::string& name, const std::string& bytes) {
    manifest.files.push_back(formats::write_hashed(folder.path(), name, bytes));
  };
  add_file("config.json", config.dump(2) + "\n");
  for (const model::CompanionFile& file : companions_of(model)) add_file(file.name, file.bytes);
  for (size_t k = 0; k < kinds.size(); ++k) {
    const auto produce = targets[k].producer();
    const auto shards = formats::cut_into_shards(targets[k].specs(), options.max_shard_bytes);
    const std::string stem =
        kinds[k].kind == TensorKind::kWeight ? "model" : std::string(kind_name(kinds[k].kind));
    for (size_t i = 0; i < shards.size(); ++i) {
      const std::string name = formats::shard_name(stem, i, shards.size());
      folder.write(name, [&](FileGrowth growth) {
        manifest.files.push_back(formats::write_hashed_safetensors(folder.path(), name, shards[i],
                                                                   produce, std::move(growth)));
      });
      for (const formats::TensorSpec& tensor : shards[i]) {
        const std::string parameter =
            tensor.name.substr(formats::state_name(kinds[k].kind, "").size());
        manifest.tensors.push_back(formats::whole_tensor(kinds[k].kind, parameter, tensor, name));
      }
    }
    before += targets[k].total_bytes();
  }
  write_file_atomically(folder.path() / formats::kManifestName, to_json(manifest),
                        FileRole::kCheckpoint);
  folder.commit();
}

}  // namespace qianli::convert
