// Reading checkpoints and weights. All errors are CheckpointErrors (exit code 6) that name file,
// tensor and reason.
#pragma once

#include <filesystem>

#include "qianli/convert/model_source.h"
#include "qianli/formats/manifest.h"
#include "qianli/nn/parameter_set.h"
#include "qianli/optim/flat_optimizer.h"

namespace qianli::checkpoint {

namespace fs = std::filesystem;

// Fills weights and optimizer states, whatever the layout that wrote them, and sets
// optimizer.updates_done. Of a Qianli checkpoint, or of another program's that has states
// (ModelSource::states). Every tensor of the model must be there exactly once with the right
// shape, and nothing else; sizes and hashes of all files must be those of the manifest. Where some
// are frozen (tune) a checkpoint of ours has only the others: the rest stays as it is. After an
// error the tensors hold anything.
formats::TrainingState load(const fs::path& folder, nn::ParameterSet& parameters,
                            optim::FlatOptimizer& optimizer);

// Fills the weights from any model that convert::open_model knows. Files are
// mapped: no second copy of the model is made. Every tensor of the model must be found exactly once
// with the right shape; tensors the model does not have are refused, except buffers that old
// transformers versions stored and the output layer of a tied model. Layers of multi-token
// prediction may be left out on either side: those that only the model has start fresh.
void load_weights(const fs::path& folder, nn::ParameterSet& parameters);
void load_weights(const convert::ModelSource& source, nn::ParameterSet& parameters);

}  // namespace qianli::checkpoint
