// Qianli's own checkpoints, as models.
#pragma once

#include <filesystem>
#include <memory>

#include "qianli/convert/model_source.h"

namespace qianli::convert {

// A run's folder and its folder of checkpoints stand for the newest checkpoint.
bool is_checkpoint(const std::filesystem::path& path);

// Files that hold weights are compared with their hashes first.
std::unique_ptr<ModelSource> open_checkpoint(const std::filesystem::path& path,
                                             const SourceOptions& options);

}  // namespace qianli::convert
