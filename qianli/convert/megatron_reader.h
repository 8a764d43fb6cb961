// Opening a Megatron checkpoint.
#pragma once

#include <filesystem>
#include <memory>

#include "qianli/convert/model_source.h"

namespace qianli::convert {

// A folder with latest_checkpointed_iteration.txt, or one of its iterations, or one with mp_rank_*
// folders.
bool is_megatron(const std::filesystem::path& path);

std::unique_ptr<ModelSource> open_megatron(const std::filesystem::path& path,
                                           const SourceOptions& options);

}  // namespace qianli::convert
