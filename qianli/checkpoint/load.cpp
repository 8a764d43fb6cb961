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

  // `own`: [owned elements].
  void load(TensorKind kind, const nn::ParameterSet& parameters, const at::Tensor& own) {
    for (size_t i = 0; i < parameters.size(); ++i) {
      const auto& entry = parameters.entry(i);
      if (entry.buffer) continue;
      const formats::TensorSpec& tensor = find(formats::state_name(kind, entry.name), entry.shape);
      const nn::FlatPlace& place = parameters.place(i);
      for (const auto& part : parameters.owned().within(place.offset, place.offset + place.count)) {
        read(tensor, part.begin - place.offset, own.narrow(0, part.place, part.count));
      }
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

  const formats::TensorSpec& find(const std::string& name,
                                  const std::vector<int64_t>& shape) const {
    const formats::TensorSpec* tensor = source_->find(name);
    if (!tensor) refuse(name, "expected in the checkpoint, found nowhere");
    if (tensor->shape != shape) {
      refuse(name, fmt::format("expected shape {}, got {}", shape_text(shape),
                               shape_text(tensor->shape)));
    }
    if (!scalar_type(tensor->dtype)) {
      refuse(name, fmt::format("cannot use dtype {}", formats::dtype_name(tensor->dtype)));
    }
    return *tensor;
  }

  // Elements [first, first + target.numel()) of the tensor, by way of the rows that hold them.
  void read(const formats::TensorSpec& tensor, int64_t first, const at::Tensor& target) const {
    const int64_t row = tensor.num_elements() / formats::num_rows(tensor);
    const int64_t begin = first / row, end = (first + target.numel() + row - 1) / row;
    const at::Tensor rows = at::empty({(end - begin) * row}, *scalar_type(tensor.dtype));
    source_->read_rows(tensor, begin, end - begin,
                       {static_cast<std::byte*>(rows.mutable_data_ptr()), rows.nbytes()});
    target.copy_(rows.narrow(0, first - begin * row, target.numel()));
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
