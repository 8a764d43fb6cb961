// GGUF files as models (write_model.h: write_gguf).
#pragma once

#include <filesystem>
#include <memory>

#include "qianli/convert/model_source.h"

namespace qianli::convert {

// Told by the first bytes of a file.
bool is_gguf(const std::filesystem::path& path);
// This program's, llama.cpp's and others' of the same form; quantised numbers arrive as float32.
std::unique_ptr<ModelSource> open_gguf(const std::filesystem::path& path,
                                       const SourceOptions& options);

}  // namespace qianli::convert
