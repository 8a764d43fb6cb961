// From the `model` section of a configuration to a model.
#pragma once

#include <filesystem>
#include <optional>

#include "qianli/config/sections.h"
#include "qianli/model/spec.h"

namespace qianli::model {

// The validated spec: that of the preset or folder, or `of_weights`, what weights without a
// config.json say of themselves, with the switches of the section put over it.
// Where head_dim follows from hidden_size and num_attention_heads in the source, it goes on
// following them; so do num_query_groups where they equal the heads. Without a source, family and
// all sizes are given.
//
// Throws ConfigError: unknown names, contradictions, and, where weights are loaded, switches that
// give parameters another shape than the folder's.
ModelSpec resolve(const config::ModelConfig& model,
                  const std::optional<ModelSpec>& of_weights = {});

// The model whose weights training starts from; absent: fresh weights.
std::optional<std::filesystem::path> weights_folder(const config::ModelConfig& model);

}  // namespace qianli::model
