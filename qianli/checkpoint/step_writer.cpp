#include "qianli/checkpoint/step_writer.h"

#include <fmt/core.h>

#include <span>
#include <stdexcept>
#include <string_view>
#include <unordered_map>

#include "qianli/base/file.h"
#include "qianli/formats/checkpoint_source.h"
#include "qianli/formats/hashed_file.h"
#include "qianli/formats/safetensors_folder.h"
#include "qianli/model/hugging_face.h"

namespace qianli::checkpoint {
namespace {

struct Stored {
  formats::TensorKind kind;
  const StepContents::Place* place;
  formats::TensorEntry entry;  // under its key in the file
};

formats::Dtype dtype_of(const at::Tensor& tensor) {
  if (tensor.scalar_type() == at::kFloat) return formats::Dtype::kF32;
  if (tensor.scalar_type() == at::kDouble) return formats::Dtype::kF64;
  throw std::logic_error("checkpoints keep float32 or float64");
}

Stored stored(formats::TensorKind kind, const StepContents::Place& place, const at::Tensor& flat) {
  Stored tensor{.kind = kind, .place = &place};
  tensor.entry.name = formats::state_name(kind, place.name);
  const at::Tensor& source = place.buffer.defined() ? place.buffer : flat;
  const auto* first = static_cast<const std::byte*>(source.const_data_ptr());
  const auto element = static_cast<size_t>(source.element_size());
  tensor.entry.dtype = dtype_of(source);
  tensor.entry.shape = place.shape;
  tensor.entry.bytes = {first + place.flat.offset * element, place.flat.count * element};
  if (place.buffer.defined()) tensor.entry.bytes = {first, source.nbytes()};
  return tensor;
}

void write_shards(const fs::path& folder, const char* stem, std::span<const Stored> tensors,
                  int64_t max_bytes, formats::Manifest& manifest) {
  std::vector<formats::TensorSpec> specs;
  std::unordered_map<std::string_view, const Stored*> stored_of;
  for (const Stored& tensor : tensors) {
    specs.push_back(tensor.entry);
    stored_of.emplace(tensor.entry.name, &tensor);
  }
  const auto shards = formats::cut_into_shards(specs, static_cast<uint64_t>(max_bytes));
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = formats::shard_name(stem, i, shards.size());
    for (const formats::TensorSpec& spec : shards[i]) {
      const Stored& tensor = *stored_of.at(spec.name);
      manifest.tensors.push_back(
          formats::whole_tensor(tensor.kind, tensor.place->name, spec, name));
    }
    manifest.files.push_back(formats::write_hashed_safetensors(
        folder, name, shards[i],
        [&](const formats::TensorSpec& spec, const formats::ByteSink& sink) {
          sink(stored_of.at(spec.name)->entry.bytes);
        }));
  }
}

}  // namespace

uint64_t StepContents::num_bytes() const {
  uint64_t bytes = weights.nbytes() + exp_avg.nbytes() + exp_avg_sq.nbytes();
  for (const Place& place : places) bytes += place.buffer.defined() ? place.buffer.nbytes() : 0;
  for (const model::CompanionFile& file : companions) bytes += file.bytes.size();
  return bytes;
}

void write_step(const fs::path& folder, const StepContents& contents) {
  formats::Manifest manifest{.state = contents.state};
  const bool wide = contents.weights.scalar_type() == at::kDouble;
  const OrderedJson config = model::to_hugging_face(contents.spec, wide ? "float64" : "float32");
  manifest.model = config;
  manifest.files.push_back(formats::write_hashed(folder, "config.json", config.dump(2) + "\n"));
  for (const model::CompanionFile& file : contents.companions) {
    manifest.files.push_back(formats::write_hashed(folder, file.name, file.bytes));
  }
  std::vector<Stored> weights, states;
  for (const auto& place : contents.places) {
    weights.push_back(stored(formats::TensorKind::kWeight, place, contents.weights));
    if (place.buffer.defined()) continue;
    states.push_back(stored(formats::TensorKind::kExpAvg, place, contents.exp_avg));
    states.push_back(stored(formats::TensorKind::kExpAvgSq, place, contents.exp_avg_sq));
  }
  write_shards(folder, "model", weights, contents.max_shard_bytes, manifest);
  write_shards(folder, "optimizer", states, contents.max_shard_bytes, manifest);
  write_file_atomically(folder / formats::kManifestName, to_json(manifest), FileRole::kCheckpoint);
}

}  // namespace qianli::checkpoint
