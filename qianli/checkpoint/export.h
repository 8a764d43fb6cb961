// Writing a model for other programs.
#pragma once

#include <cstdint>
#include <filesystem>

#include "qianli/formats/dtype.h"
#include "qianli/model/spec.h"
#include "qianli/nn/parameter_set.h"

namespace qianli::checkpoint {

struct ExportOptions {
  formats::Dtype dtype = formats::Dtype::kBF16;  // kF32, kBF16, kF16, kF64
  std::filesystem::path tokenizer;  // folder (or file) whose tokenizer files go along; empty: none
  int64_t max_shard_bytes = int64_t{5'000'000'000};
};

// Writes a Hugging Face folder: config.json, generation_config.json, model.safetensors (or shards
// and their index), tokenizer files. It appears under its name when it is whole. Throws
// CheckpointError where the name exists already or writing fails, ConfigError where the family's
// config.json has no words for the spec.
void export_hugging_face(const std::filesystem::path& folder, const model::ModelSpec& spec,
                         const nn::ParameterSet& parameters, const ExportOptions& options = {});

}  // namespace qianli::checkpoint
