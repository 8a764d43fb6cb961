// Opening a Megatron checkpoint.
#pragma once

#include <filesystem>
#include <memory>

#include "qianli/convert/megatron/stored_arguments.h"
#include "qianli/convert/model_source.h"

namespace qianli::convert {

// A folder with latest_checkpointed_iteration.txt, or one of its iterations, or one with mp_rank_*
// folders or the .metadata of torch_dist.
bool is_megatron(const std::filesystem::path& path);

std::unique_ptr<ModelSource> open_megatron(const std::filesystem::path& path,
                                           const SourceOptions& options);

// What the two formats share. The model: --config, what Qianli's own converter left, or what the
// arguments tell.
model::ModelSpec model_of(const StoredArguments& args, const SourceOptions& options,
                          int64_t embedding_rows);
int64_t embedding_rows(const formats::TensorSource& source, const std::string& name);

}  // namespace qianli::convert
