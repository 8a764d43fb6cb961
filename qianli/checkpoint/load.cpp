// From a checkpoint back into the flat buffers, whatever layout wrote it.
#include <ATen/ops/empty.h>
#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/checkpoint/checkpoint.h"
#include "qianli/checkpoint/stored_tensor.h"
#include "qianli/config/tune_section.h"
#include "qianli/convert/assembled_source.h"
#include "qianli/convert/model_source.h"
#include "qianli/formats/checkpoint_folder.h"
#include "qianli/formats/checkpoint_source.h"
#include "qianli/formats/reject.h"

namespace qianli::checkpoint {
namespace {

using formats::TensorKind;

constexpr int64_t kElementsAtOnce = int64_t{1} << 24;  // of a tensor of which a rank takes a part

// The states of an optimizer in a checkpoint.
class StateLoader {
 public:
  // Of tensors that are named as state_name() has it.
  explicit StateLoader(std::shared_ptr<const formats::TensorSource> source)
      : source_(std::move(source)) {}

  // `own`: [owned elements].
  void load(TensorKind kind, const nn::ParameterSet& parameters, const at::Tensor& own) {
    for (size_t i = 0; i < parameters.size(); ++i) {
      const auto& entry = parameters.entry(i);
      if (!parameters.is_trained(i)) continue;
      const formats::TensorSpec& tensor = find(formats::state_name(kind, entry.name), entry.shape);
      const nn::FlatPlace& place = parameters.place(i);
      for (const auto& part : parameters.owned().within(place.offset, place.offset + place.count)) {
        read(tensor, parameters.part(i), part.begin - place.offset,
             own.narrow(0, part.place, part.count));
      }
    }
  }

  // The weights that are there where some are frozen.
  void load_trained(nn::ParameterSet& parameters) const {
    for (size_t i = 0; i < parameters.size(); ++i) {
      const auto& entry = parameters.entry(i);
      if (!parameters.is_trained(i) && !entry.buffer) continue;
      const formats::TensorSpec& tensor = find(entry.name, entry.shape);
      const int64_t row = tensor.num_elements() / formats::num_rows(tensor);
      const int64_t step = std::max<int64_t>(1, kElementsAtOnce / row);
      for (int64_t first = 0; first < formats::num_rows(tensor); first += step) {
        const int64_t rows = std::min(step, formats::num_rows(tensor) - first);
        at::Tensor values = at::empty({rows * row}, *scalar_type(tensor.dtype));
        source_->read_rows(tensor, first, rows,
                           {static_cast<std::byte*>(values.mutable_data_ptr()), values.nbytes()});
        parameters.write(i, first * row, values);
      }
    }
    parameters.refresh_from_master();
  }

  // Refuses tensors of parameters that the model does not have.
  void expect_no_others(nn::ParameterSet& parameters) const {
    for (const formats::TensorSpec& tensor : source_->tensors()) {
      const std::string state = tensor.name.substr(tensor.name.find('.') + 1);
      const auto known = [&](const std::string& name) {
        return parameters.find(name) || parameters.is_elsewhere(name);
      };
      if (!known(tensor.name) && !known(state))
        refuse(tensor.name, "the model has no such parameter");
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

  // Elements [first, first + target.numel()) of what the rank holds of the tensor.
  void read(const formats::TensorSpec& tensor, const plan::ParameterPart& held, int64_t first,
            const at::Tensor& target) const {
    int64_t next = 0;
    for (const formats::Box& box : formats::boxes_of(held.shape, first, target.numel())) {
      const at::Tensor place = target.narrow(0, next, box.elements()).view(box.shape);
      next += box.elements();
      for (const plan::PlacedBox& piece : plan::placed(held, box)) {
        at::Tensor own = place;
        for (size_t axis = 0; axis < box.shape.size(); ++axis) {
          own = own.narrow(static_cast<int64_t>(axis), piece.local.offset[axis] - box.offset[axis],
                           piece.local.shape[axis]);
        }
        read_box(tensor, piece.whole, own);
      }
    }
  }

  // By way of the rows along the first axis that hold the box, not too many at once.
  void read_box(const formats::TensorSpec& tensor, const formats::Box& box,
                const at::Tensor& target) const {
    const int64_t row = tensor.num_elements() / formats::num_rows(tensor);
    const bool one = box.shape.empty();
    const int64_t count = one ? 1 : box.shape[0], offset = one ? 0 : box.offset[0];
    const int64_t step = std::max<int64_t>(1, kElementsAtOnce / row);
    for (int64_t done = 0; done < count; done += step) {
      const int64_t rows = std::min(step, count - done);
      at::Tensor values = at::empty({rows * row}, *scalar_type(tensor.dtype));
      source_->read_rows(tensor, offset + done, rows,
                         {static_cast<std::byte*>(values.mutable_data_ptr()), values.nbytes()});
      if (one) {
        target.copy_(values.view({}));
        return;
      }
      std::vector<int64_t> shape = tensor.shape;
      shape[0] = rows;
      values = values.view(shape);
      for (size_t axis = 1; axis < box.shape.size(); ++axis) {
        values = values.narrow(static_cast<int64_t>(axis), box.offset[axis], box.shape[axis]);
      }
      target.narrow(0, done, rows).copy_(values);
    }
  }

  std::shared_ptr<const formats::TensorSource> source_;
};

// The states of one kind, put together from those of another program as they are asked for.
StateLoader states_of(TensorKind kind, std::shared_ptr<const convert::ModelSource> model) {
  std::vector<convert::ForeignTensor> tensors = convert::own_tensors(model->table);
  for (auto& tensor : tensors) tensor.name = formats::state_name(kind, tensor.name);
  const std::string what = model->path.string();
  return StateLoader(convert::assembled_source(std::move(model), std::move(tensors), what));
}

formats::TrainingState load_foreign(const fs::path& folder, nn::ParameterSet& parameters,
                                    optim::FlatOptimizer& optimizer) {
  const auto model = convert::open_model(folder);
  if (!model->states) {
    throw CheckpointError(
        "checkpoint",
        fmt::format("{}: expected a checkpoint with the states of an optimizer, got a {} without",
                    folder.string(), model->kind),
        "to start from its weights alone: model=FOLDER");
  }
  load_weights(*model->states->weights, parameters);
  states_of(TensorKind::kExpAvg, model->states->exp_avg)
      .load(TensorKind::kExpAvg, parameters, optimizer.exp_avg());
  states_of(TensorKind::kExpAvgSq, model->states->exp_avg_sq)
      .load(TensorKind::kExpAvgSq, parameters, optimizer.exp_avg_sq());
  return model->states->training;
}

formats::TrainingState load_own(const fs::path& folder, nn::ParameterSet& parameters,
                                optim::FlatOptimizer& optimizer) {
  const formats::Manifest manifest = formats::read_manifest(folder);
  if (parameters.tune().freezes()) {
    const StateLoader weights(
        formats::open_checkpoint_source(folder, manifest, {TensorKind::kWeight}));
    weights.expect_no_others(parameters);
    weights.load_trained(parameters);
  } else {
    load_weights(*convert::open_model(folder), parameters);
  }
  StateLoader states(formats::open_checkpoint_source(folder, manifest,
                                                     {TensorKind::kExpAvg, TensorKind::kExpAvgSq}));
  states.load(TensorKind::kExpAvg, parameters, optimizer.exp_avg());
  states.load(TensorKind::kExpAvgSq, parameters, optimizer.exp_avg_sq());
  states.expect_no_others(parameters);
  return manifest.state;
}

}  // namespace

formats::TrainingState load(const fs::path& folder, nn::ParameterSet& parameters,
                            optim::FlatOptimizer& optimizer) {
  // A config.json is of a Hugging Face folder, or of a checkpoint of ours that is damaged.
  const bool foreign = !formats::is_checkpoint(folder) && !fs::exists(folder / "config.json") &&
                       convert::is_model(folder);
  formats::TrainingState state = foreign ? load_foreign(folder, parameters, optimizer)
                                         : load_own(folder, parameters, optimizer);
  optimizer.set_updates_done(state.updates_done);
  return state;
}

}  // namespace qianli::checkpoint
