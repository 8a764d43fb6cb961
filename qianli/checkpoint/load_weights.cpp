// Weights of a Hugging Face folder into the flat buffers.
#include <fmt/core.h>

#include <algorithm>
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

constexpr size_t kShownUnknown = 5;
constexpr uint64_t kFreshSeed = 1234;  // of what the folder leaves out

[[noreturn]] void refuse(const fs::path& folder, const std::string& reason,
                         const std::string& hint = {}) {
  throw CheckpointError("checkpoint", fmt::format("{}: {}", folder.string(), reason), hint);
}

// One folder being read into the parameters of a model.
class FolderReader {
 public:
  FolderReader(const fs::path& folder, nn::ParameterSet& parameters)
      : folder_(folder),
        parameters_(parameters),
        spec_(model::load_spec(folder)),
        habits_(model::foreign_habits(spec_)),
        files_(formats::SafetensorsFolder::open(folder)) {}

  void read();

 private:
  // The stored tensor of this name, or of the same in another spelling; null where there is none.
  const TensorEntry* find(const std::string& name) const;
  const TensorEntry* find_prefixed(const std::string& name) const;
  const TensorEntry& expect(const std::string& name) const;
  at::Tensor values_of(const ForeignTensor& tensor, const TensorEntry& entry) const;
  // Fresh values for layers of multi-token prediction that the folder leaves out.
  bool starts_fresh(const ForeignTensor& tensor);
  void check_copies();
  void check_copy(const TensorEntry& copy, const TensorEntry& original) const;
  // Layers of multi-token prediction that the folder has and the model is made without.
  void leave_out_mtp();
  void refuse_unknown() const;
  bool is_ignored(const std::string& name) const;

  const fs::path& folder_;
  nn::ParameterSet& parameters_;
  model::ModelSpec spec_;
  model::ForeignHabits habits_;
  formats::SafetensorsFolder files_;
  std::unordered_set<const TensorEntry*> used_;
  bool told_of_fresh_ = false;
};

const TensorEntry* FolderReader::find(const std::string& name) const {
  if (const TensorEntry* found = find_prefixed(name)) return found;
  std::string other = name;
  for (const auto& [part, spelling] : habits_.aliases) {
    if (const size_t at = other.find(part); at != other.npos) {
      other.replace(at, part.size(), spelling);
    }
  }
  return other == name ? nullptr : find_prefixed(other);
}

const TensorEntry* FolderReader::find_prefixed(const std::string& name) const {
  const TensorEntry* found = files_.find(name);
  const std::string& prefix = habits_.prefixes[0];
  if (!prefix.empty() && !name.starts_with(prefix)) {
    // Names outside of the prefix (lm_head) stand bare, or behind the prefix of a larger model.
    for (size_t i = 1; i < habits_.prefixes.size() && found == nullptr; ++i) {
      const std::string& other = habits_.prefixes[i];
      if (other.ends_with("model.")) {
        found = files_.find(other.substr(0, other.size() - 6) + name);
      }
    }
    return found;
  }
  for (size_t i = 1; i < habits_.prefixes.size(); ++i) {
    const TensorEntry* other = files_.find(habits_.prefixes[i] + name.substr(prefix.size()));
    if (found != nullptr && other != nullptr) {
      refuse(folder_, fmt::format("holds {} with and without '{}'", shown_name(name), prefix));
    }
    if (found == nullptr) found = other;
  }
  return found;
}

const TensorEntry& FolderReader::expect(const std::string& name) const {
  if (const TensorEntry* found = find(name)) return *found;
  refuse(folder_, fmt::format("expected a tensor {}, found none", shown_name(name)),
         "are all shards there, and is config.json of this model?");
}

at::Tensor FolderReader::values_of(const ForeignTensor& tensor, const TensorEntry& entry) const {
  if (entry.shape != tensor.shape) {
    refuse(folder_,
           fmt::format("tensor {}: expected shape {}, got {}", shown_name(entry.name),
                       shape_text(tensor.shape), shape_text(entry.shape)),
           "is config.json of this model?");
  }
  auto values = view_of(entry);
  if (!values) {
    refuse(folder_,
           fmt::format("tensor {}: expected F64, F32, F16 or BF16, got {}", shown_name(entry.name),
                       formats::dtype_name(entry.dtype)),
           "quantised weights must be converted first");
  }
  return *values;
}

bool FolderReader::starts_fresh(const ForeignTensor& tensor) {
  const size_t parameter = tensor.parts[0].parameter;
  if (!parameters_.entry(parameter).name.starts_with("mtp.")) return false;
  for (size_t i = 0; i < parameters_.size(); ++i) {  // all of them, or none
    const auto& entry = parameters_.entry(i);
    if (entry.name.starts_with("mtp.") && find(entry.hugging_face[0].name) != nullptr) return false;
  }
  if (!told_of_fresh_) {
    log::warn("checkpoint",
              "{} has no weights for multi-token prediction, although config.json speaks of it; "
              "they start fresh",
              folder_.string());
    told_of_fresh_ = true;
  }
  for (const ForeignPart& part : tensor.parts) parameters_.initialize(part.parameter, kFreshSeed);
  return true;
}

// A tied model has one matrix, which some folders store twice; only one of the two can be right.
void FolderReader::check_copy(const TensorEntry& copy, const TensorEntry& original) const {
  const bool same = copy.dtype == original.dtype && copy.shape == original.shape &&
                    std::memcmp(copy.bytes.data(), original.bytes.data(), copy.bytes.size()) == 0;
  if (same) return;
  log::warn("checkpoint",
            "{}: {} is not {}, although config.json says that they are one; it is left out",
            folder_.string(), shown_name(copy.name), shown_name(original.name));
}

void FolderReader::check_copies() {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const model::ParameterEntry& entry = parameters_.entry(i);
    auto copies = entry.hugging_face_copies;
    const bool tied = parameters_.find("output_layer.weight") == nullptr;
    if (tied && entry.name == "embedding.word_embeddings.weight") {
      copies.push_back(habits_.tied_output);
    }
    for (const std::string& name : copies) {
      const TensorEntry* copy = find(name);
      if (copy == nullptr) continue;
      check_copy(*copy, expect(entry.hugging_face[0].name));
      used_.insert(copy);
    }
  }
}

bool FolderReader::is_ignored(const std::string& name) const {
  const auto starts = [&](const std::string& prefix) { return name.starts_with(prefix); };
  const auto ends = [&](const std::string& suffix) { return name.ends_with(suffix); };
  return std::ranges::any_of(habits_.ignored_prefixes, starts) ||
         std::ranges::any_of(habits_.ignored_suffixes, ends);
}

void FolderReader::leave_out_mtp() {
  if (spec_.mtp.num_layers == 0 || parameters_.find("mtp.layers.0.enorm.weight") != nullptr) return;
  for (const model::ParameterEntry& entry : model::parameter_table(spec_)) {
    auto names = entry.hugging_face_copies;
    if (entry.name.starts_with("mtp.")) {
      for (const auto& piece : entry.hugging_face) names.push_back(piece.name);
      for (const auto& piece : entry.hugging_face_also) names.push_back(piece.name);
    }
    for (const std::string& name : names) used_.insert(find(name));
  }
}

void FolderReader::refuse_unknown() const {
  std::vector<std::string> unknown;
  for (const TensorEntry* entry : files_.entries()) {
    if (used_.contains(entry) || is_ignored(entry->name)) continue;
    unknown.push_back(shown_name(entry->name));
  }
  if (unknown.empty()) return;
  const size_t count = unknown.size();
  if (count > kShownUnknown) unknown.resize(kShownUnknown);
  refuse(folder_,
         fmt::format("{} tensors that the model does not have: {}{}", count, join(unknown, ", "),
                     count > kShownUnknown ? ", ..." : ""),
         "is config.json of this model?");
}

void FolderReader::read() {
  const auto stored = [&](const std::string& name) { return find(name) != nullptr; };
  for (const ForeignTensor& tensor : foreign_tensors(parameters_, stored)) {
    if (!stored(tensor.name) && starts_fresh(tensor)) continue;
    const TensorEntry& entry = expect(tensor.name);
    const at::Tensor values = values_of(tensor, entry);
    for (const ForeignPart& part : tensor.parts) {
      own_rows(part.piece, parameters_.exact(part.parameter))
          .copy_(foreign_rows(part.piece, values));
    }
    used_.insert(&entry);
  }
  check_copies();
  leave_out_mtp();
  refuse_unknown();
  parameters_.refresh_from_master();
}

}  // namespace

void load_hugging_face_weights(const fs::path& folder, nn::ParameterSet& parameters) {
  FolderReader(folder, parameters).read();
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
