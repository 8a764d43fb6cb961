// Weights under Hugging Face's names: a folder with config.json; or, where options.config says what
// they are of, any container that formats::open_tensor_source opens, such as the distributed
// checkpoint of an FSDP trainer, whose model may lie beside its optimizer.
#pragma once

#include <filesystem>
#include <memory>

#include "qianli/convert/model_source.h"

namespace qianli::convert {

bool is_hugging_face(const std::filesystem::path& path);

// Weights stored in float8 blocks or in MXFP4 are read as the float32 numbers they stand for.
std::unique_ptr<ModelSource> open_hugging_face(const std::filesystem::path& path,
                                               const SourceOptions& options);

}  // namespace qianli::convert
