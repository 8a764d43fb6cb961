// From a Qianli checkpoint back into the flat buffers, whatever layout wrote it.
#include <fmt/core.h>

#include <map>
#include <string_view>
#include <unordered_set>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/checkpoint/checkpoint.h"
#include "qianli/checkpoint/hashed_file.h"
#include "qianli/checkpoint/load.h"
#include "qianli/checkpoint/manifest.h"
#include "qianli/checkpoint/stored_tensor.h"
#include "qianli/formats/reject.h"

namespace qianli::checkpoint {
namespace {

class Reader {
 public:
  explicit Reader(const fs::path& folder) : folder_(folder), manifest_(read_manifest(folder)) {
    verify_files(folder_, manifest_);
    for (const TensorRecord& tensor : manifest_.tensors) {
      places_[{tensor.kind, tensor.name}] = &tensor;
    }
  }

  const Manifest& manifest() const { return manifest_; }

  // Fills `target` from all slices of a tensor, which must have its shape.
  void read(TensorKind kind, const std::string& name, const at::Tensor& target);
  // Refuses a checkpoint that holds tensors of `kind` which the model does not have.
  void expect_only(TensorKind kind, const nn::ParameterSet& parameters) const;

 private:
  [[noreturn]] void refuse(TensorKind kind, const std::string& name, const std::string& reason,
                           const std::string& hint = {}) const;
  const formats::SafetensorsFile& file(const std::string& name);

  fs::path folder_;
  Manifest manifest_;
  std::map<std::pair<TensorKind, std::string>, const TensorRecord*> places_;
  std::map<std::string, formats::SafetensorsFile> files_;
};

void Reader::refuse(TensorKind kind, const std::string& name, const std::string& reason,
                    const std::string& hint) const {
  throw CheckpointError("checkpoint",
                        fmt::format("{}: tensor {} ({}): {}", folder_.string(),
                                    formats::shown_name(name), kind_name(kind), reason),
                        hint);
}

const formats::SafetensorsFile& Reader::file(const std::string& name) {
  auto place = files_.find(name);
  if (place == files_.end()) {
    place = files_.emplace(name, formats::SafetensorsFile::open(folder_ / name)).first;
  }
  return place->second;
}

void Reader::read(TensorKind kind, const std::string& name, const at::Tensor& target) {
  const auto place = places_.find({kind, name});
  if (place == places_.end()) {
    refuse(kind, name, "expected in the checkpoint, found nowhere", "is it of another model?");
  }
  const TensorRecord& tensor = *place->second;
  if (target.sizes() != at::IntArrayRef(tensor.shape)) {
    refuse(kind, name,
           fmt::format("expected shape {}, got {}", shape_text(target.sizes()),
                       shape_text(tensor.shape)),
           "is it of another model?");
  }
  for (const TensorSlice& slice : tensor.slices) {
    const formats::TensorEntry& entry = file(slice.file).at(slice.key);
    if (entry.dtype != tensor.dtype || entry.shape != slice.shape) {
      refuse(kind, name,
             fmt::format("the manifest says {} {} for {} in {}, which holds {} {}",
                         formats::dtype_name(tensor.dtype), shape_text(slice.shape),
                         formats::shown_name(slice.key), slice.file,
                         formats::dtype_name(entry.dtype), shape_text(entry.shape)));
    }
    at::Tensor part = target;
    for (size_t axis = 0; axis < slice.shape.size(); ++axis) {
      part = part.narrow(static_cast<int64_t>(axis), slice.offset[axis], slice.shape[axis]);
    }
    const auto source = view_of(entry);
    if (!source) {
      refuse(kind, name, fmt::format("cannot use dtype {}", formats::dtype_name(entry.dtype)));
    }
    part.copy_(*source);
  }
}

void Reader::expect_only(TensorKind kind, const nn::ParameterSet& parameters) const {
  std::unordered_set<std::string_view> names;
  for (size_t i = 0; i < parameters.size(); ++i) names.insert(parameters.entry(i).name);
  for (const TensorRecord& tensor : manifest_.tensors) {
    if (tensor.kind == kind && !names.contains(tensor.name)) {
      refuse(kind, tensor.name, "the model has no such parameter", "is it of another model?");
    }
  }
}

void load_own_weights(Reader& reader, nn::ParameterSet& parameters) {
  reader.expect_only(TensorKind::kWeight, parameters);
  for (size_t i = 0; i < parameters.size(); ++i) {
    reader.read(TensorKind::kWeight, parameters.entry(i).name, parameters.exact(i));
  }
  parameters.refresh_from_master();
}

}  // namespace

bool is_checkpoint(const fs::path& folder) {
  std::error_code ignored;
  return fs::is_regular_file(folder / kManifestName, ignored);
}

TrainingState read_state(const fs::path& step_folder) { return read_manifest(step_folder).state; }

TrainingState load(const fs::path& step_folder, nn::ParameterSet& parameters,
                   optim::FlatOptimizer& optimizer) {
  Reader reader(step_folder);
  load_own_weights(reader, parameters);
  const std::pair<TensorKind, at::Tensor*> states[] = {
      {TensorKind::kExpAvg, &optimizer.exp_avg()},
      {TensorKind::kExpAvgSq, &optimizer.exp_avg_sq()}};
  for (const auto& [kind, flat] : states) {
    reader.expect_only(kind, parameters);
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (parameters.entry(i).buffer) continue;
      reader.read(kind, parameters.entry(i).name, parameters.view(*flat, i));
    }
  }
  optimizer.set_updates_done(reader.manifest().state.updates_done);
  return reader.manifest().state;
}

void load_checkpoint_weights(const fs::path& folder, nn::ParameterSet& parameters) {
  Reader reader(folder);
  load_own_weights(reader, parameters);
}

}  // namespace qianli::checkpoint
