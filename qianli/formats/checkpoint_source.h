// The tensors of a Qianli checkpoint, whatever layout wrote it.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "qianli/formats/manifest.h"
#include "qianli/formats/tensor_source.h"

namespace qianli::formats {

// Weights under their names, optimizer states as state_name() has them. Sizes of all files, and the
// hashes of all but those that hold only tensors of other kinds, are compared with the manifest
// first. Throws CheckpointError.
std::unique_ptr<TensorSource> open_checkpoint_source(const std::filesystem::path& step_folder,
                                                     const Manifest& manifest,
                                                     const std::vector<TensorKind>& kinds);

// "exp_avg.NAME"; a weight's own name. So they are called in the files, too.
std::string state_name(TensorKind kind, const std::string& name);

}  // namespace qianli::formats
