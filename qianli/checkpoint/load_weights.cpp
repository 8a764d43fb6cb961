// Weights of a Hugging Face folder into the flat buffers.
#include <fmt/core.h>

#include <cstring>
#include <unordered_set>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/base/log.h"
#include "qianli/base/strings.h"
#include "qianli/checkpoint/checkpoint.h"
#include "qianli/checkpoint/foreign.h"
#include "qianli/checkpoint/load.h"
#include "qianli/checkpoint/stored_tensor.h"
#include "qianli/formats/reject.h"
#include "qianli/formats/safetensors_folder.h"
#include "qianli/model/hugging_face.h"

namespace qianli::checkpoint {
namespace {

using formats::shown_name;
using formats::TensorEntry;

constexpr std::string_view kTiedOutput = "lm_head.weight";
constexpr size_t kShownUnknown = 5;

[[noreturn]] void refuse(const fs::path& folder, const std::string& reason,
                         const std::string& hint = {}) {
  throw CheckpointError("checkpoint", fmt::format("{}: {}", folder.string(), reason), hint);
}

// The stored tensor of this name, with or without the prefix that some folders leave out.
const TensorEntry& find_tensor(const fs::path& folder, const formats::SafetensorsFolder& files,
                               const std::string& name, const std::string& prefix) {
  const TensorEntry* entry = files.find(name);
  if (!prefix.empty() && name.starts_with(prefix)) {
    const TensorEntry* bare = files.find(name.substr(prefix.size()));
    if (entry != nullptr && bare != nullptr) {
      refuse(folder, fmt::format("holds {} with and without '{}'", shown_name(name), prefix));
    }
    if (entry == nullptr) entry = bare;
  }
  if (entry == nullptr) {
    refuse(folder, fmt::format("expected a tensor {}, found none", shown_name(name)),
           "are all shards there, and is config.json of this model?");
  }
  return *entry;
}

void copy_parts(const fs::path& folder, const ForeignTensor& tensor, const TensorEntry& entry,
                const nn::ParameterSet& parameters) {
  if (entry.shape != tensor.shape) {
    refuse(folder,
           fmt::format("tensor {}: expected shape {}, got {}", shown_name(entry.name),
                       shape_text(tensor.shape), shape_text(entry.shape)),
           "is config.json of this model?");
  }
  auto source = view_of(entry);
  if (!source) {
    refuse(folder,
           fmt::format("tensor {}: expected F64, F32, F16 or BF16, got {}", shown_name(entry.name),
                       formats::dtype_name(entry.dtype)),
           "quantised weights must be converted first");
  }
  if (tensor.transposed) source = source->t();
  for (const ForeignPart& part : tensor.parts) {
    parameters.exact(part.parameter)
        .narrow(0, part.first_row, part.rows)
        .copy_(source->narrow(0, part.foreign_row, part.rows));
  }
}

// Buffers that older versions of transformers stored beside the weights; they follow from
// config.json.
bool is_stored_buffer(std::string_view name) {
  return name.ends_with("rotary_emb.inv_freq") || name.ends_with(".attn.bias") ||
         name.ends_with(".attn.masked_bias");
}

// A tied model has one matrix. Some folders store it twice; only one of the two can be right.
void check_tied_output(const fs::path& folder, const TensorEntry& output,
                       const TensorEntry& embedding) {
  const bool same =
      output.dtype == embedding.dtype && output.shape == embedding.shape &&
      std::memcmp(output.bytes.data(), embedding.bytes.data(), output.bytes.size()) == 0;
  if (same) return;
  log::warn("checkpoint",
            "{}: {} is not the embedding, although config.json ties them; it is left out",
            folder.string(), kTiedOutput);
}

}  // namespace

void load_hugging_face_weights(const fs::path& folder, nn::ParameterSet& parameters) {
  const auto files = formats::SafetensorsFolder::open(folder);
  const std::string prefix = model::optional_foreign_prefix(model::load_spec(folder));
  std::unordered_set<const TensorEntry*> used;
  const bool tied = parameters.find("output_layer.weight") == nullptr;
  const TensorEntry* embedding = nullptr;
  for (const ForeignTensor& tensor : foreign_tensors(parameters)) {
    const TensorEntry& entry = find_tensor(folder, files, tensor.name, prefix);
    copy_parts(folder, tensor, entry, parameters);
    used.insert(&entry);
    if (parameters.entry(tensor.parts[0].parameter).name == "embedding.word_embeddings.weight") {
      embedding = &entry;
    }
  }
  std::vector<std::string> unknown;
  for (const TensorEntry* entry : files.entries()) {
    if (used.contains(entry) || is_stored_buffer(entry->name)) continue;
    if (tied && entry->name == kTiedOutput && embedding != nullptr) {
      check_tied_output(folder, *entry, *embedding);
      continue;
    }
    unknown.push_back(shown_name(entry->name));
  }
  if (!unknown.empty()) {
    const size_t count = unknown.size();
    if (count > kShownUnknown) unknown.resize(kShownUnknown);
    refuse(folder,
           fmt::format("{} tensors that the model does not have: {}{}", count, join(unknown, ", "),
                       count > kShownUnknown ? ", ..." : ""),
           "is config.json of this model?");
  }
  parameters.refresh_from_master();
}

void load_weights(const fs::path& folder, nn::ParameterSet& parameters) {
  if (is_checkpoint(folder)) return load_checkpoint_weights(folder, parameters);
  if (formats::SafetensorsFolder::exists(folder)) {
    return load_hugging_face_weights(folder, parameters);
  }
  const bool pickled = fs::exists(folder / "pytorch_model.bin") ||
                       fs::exists(folder / "pytorch_model.bin.index.json");
  refuse(folder,
         "expected a Qianli checkpoint (manifest.json) or a Hugging Face folder "
         "(model.safetensors or its index), found neither",
         pickled ? "only safetensors are read; save the model with safe serialization" : "");
}

}  // namespace qianli::checkpoint
