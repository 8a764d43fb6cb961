// From a Qianli checkpoint back into the flat buffers, whatever layout wrote it.
#include <ATen/ops/empty.h>
#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/checkpoint/checkpoint.h"
#include "qianli/checkpoint/stored_tensor.h"
#include "qianli/convert/model_source.h"
#include "qianli/formats/checkpoint_source.h"
#include "qianli/formats/reject.h"

namespace qianli::checkpoint {
namespace {

using formats::TensorKind;

// The states of an optimizer in a checkpoint.
class StateLoader {
 public:
  StateLoader(const fs::path& folder, const formats::Manifest& manifest)
      : source_(formats::open_checkpoint_source(folder, manifest,
                                                {TensorKind::kExpAvg, TensorKind::kExpAvgSq})) {}

  void load(TensorKind kind, nn::ParameterSet& parameters, const at::Tensor& flat) {
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (parameters.entry(i).buffer) continue;
      read(formats::state_name(kind, parameters.entry(i).name), parameters.view(flat, i));
      ++loaded_;
    }
  }

  // Refuses states of parameters that the model does not have.
  void expect_no_others(nn::ParameterSet& parameters) const {
    if (source_->tensors().size() == loaded_) return;
    for (const formats::TensorSpec& tensor : source_->tensors()) {
      const std::string parameter = tensor.name.substr(tensor.name.find('.') + 1);
      if (!parameters.find(parameter)) refuse(tensor.name, "the model has no such parameter");
    }
  }

 private:
  [[noreturn]] void refuse(const std::string& name, const std::string& reason) const {
    throw CheckpointError(
        "checkpoint",
        fmt::format("{}: {}: {}", source_->source(), formats::shown_name(name), reason),
        "is it of another model?");
  }

  void read(const std::string& name, const at::Tensor& target) const {
    const formats::TensorSpec* tensor = source_->find(name);
    if (!tensor) refuse(name, "expected in the checkpoint, found nowhere");
    if (target.sizes() != at::IntArrayRef(tensor->shape)) {
      refuse(name, fmt::format("expected shape {}, got {}", shape_text(target.sizes()),
                               shape_text(tensor->shape)));
    }
    const auto type = scalar_type(tensor->dtype);
    if (!type) refuse(name, fmt::format("cannot use dtype {}", formats::dtype_name(tensor->dtype)));
    const at::Tensor values = at::empty(tensor->shape, *type);
    source_->read(*tensor, {static_cast<std::byte*>(values.mutable_data_ptr()), values.nbytes()});
    target.copy_(values);
  }

  std::unique_ptr<formats::TensorSource> source_;
  size_t loaded_ = 0;
};

}  // namespace

formats::TrainingState load(const fs::path& step_folder, nn::ParameterSet& parameters,
                            optim::FlatOptimizer& optimizer) {
  const formats::Manifest manifest = formats::read_manifest(step_folder);
  load_weights(*convert::open_model(step_folder), parameters);
  StateLoader states(step_folder, manifest);
  states.load(TensorKind::kExpAvg, parameters, optimizer.exp_avg());
  states.load(TensorKind::kExpAvgSq, parameters, optimizer.exp_avg_sq());
  states.expect_no_others(parameters);
  optimizer.set_updates_done(manifest.state.updates_done);
  return manifest.state;
}

}  // namespace qianli::checkpoint
