// Opening a Hugging Face folder.
#pragma once

#include <filesystem>
#include <memory>

#include "qianli/convert/model_source.h"

namespace qianli::convert {

bool is_hugging_face(const std::filesystem::path& path);

// Weights stored in float8 blocks or in MXFP4 are read as the float32 numbers they stand for.
std::unique_ptr<ModelSource> open_hugging_face(const std::filesystem::path& folder,
                                               const SourceOptions& options);

}  // namespace qianli::convert
