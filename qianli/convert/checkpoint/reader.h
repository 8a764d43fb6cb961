// Qianli's own checkpoints, as models.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "qianli/convert/model_source.h"

namespace qianli::convert {

// The folder of one step that `path` is or stands for: a run's folder and its folder of checkpoints
// stand for the newest one. Nothing where there is none.
std::optional<std::filesystem::path> step_folder(const std::filesystem::path& path);
bool is_checkpoint(const std::filesystem::path& path);

// Files that hold weights are compared with their hashes first.
std::unique_ptr<ModelSource> open_checkpoint(const std::filesystem::path& path,
                                             const SourceOptions& options);

}  // namespace qianli::convert
