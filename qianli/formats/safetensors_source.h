// safetensors as a TensorSource: every tensor is in place.
#pragma once

#include <memory>

#include "qianli/formats/tensor_source.h"

namespace qianli::formats {

std::unique_ptr<TensorSource> open_safetensors_file(const fs::path& file);
// A folder with STEM.safetensors, or shards and their index.
std::unique_ptr<TensorSource> open_safetensors_folder(const fs::path& folder,
                                                      std::string_view stem = "model");

}  // namespace qianli::formats
