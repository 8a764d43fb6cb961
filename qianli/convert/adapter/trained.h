// Checkpoints of runs that left weights as they were: they hold what was trained alone, adapters
// and whole parameters, and name the model that the rest is in.
#pragma once

#include <filesystem>

#include "qianli/config/tune_section.h"
#include "qianli/convert/adapter/adapter.h"
#include "qianli/formats/manifest.h"

namespace qianli::convert {

// Whether the checkpoint is of such a run.
bool is_partial(const formats::Manifest& manifest);

// What it holds, as an adapter of PEFT's names.
AdapterSource open_trained(const std::filesystem::path& step_folder,
                           const formats::Manifest& manifest);

// The adapter of the model of `base` that stands at `path`: a folder of PEFT's, or a checkpoint or
// run of ours that trained one. Throws CheckpointError where there is none.
Adapter open_adapter(const std::filesystem::path& path, const Table& base);

// An adapter as the parameters that `tune` trains. `path` is for messages.
std::unique_ptr<ModelSource> as_trained(const AdapterTensors& adapter,
                                        const std::filesystem::path& path,
                                        const model::ModelSpec& spec,
                                        const config::TuneConfig& tune);

// The model that the run started from, with what it has trained.
std::unique_ptr<ModelSource> open_with_trained(const std::filesystem::path& step_folder,
                                               const formats::Manifest& manifest);

}  // namespace qianli::convert
