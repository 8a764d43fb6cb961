// The two readers behind load_weights.
#pragma once

#include <filesystem>

#include "qianli/nn/parameter_set.h"

namespace qianli::checkpoint {

void load_checkpoint_weights(const std::filesystem::path& step_folder,
                             nn::ParameterSet& parameters);
void load_hugging_face_weights(const std::filesystem::path& folder, nn::ParameterSet& parameters);

}  // namespace qianli::checkpoint
