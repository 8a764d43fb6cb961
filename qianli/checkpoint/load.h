// The reader of Qianli checkpoints behind load_weights.
#pragma once

#include <filesystem>

#include "qianli/nn/parameter_set.h"

namespace qianli::checkpoint {

void load_checkpoint_weights(const std::filesystem::path& step_folder,
                             nn::ParameterSet& parameters);

}  // namespace qianli::checkpoint
