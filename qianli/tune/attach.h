// Adapters beside the weights of a model that only computes: as many as wanted, and each sequence
// says which is its own (nn/attached_adapters.h).
#pragma once

#include <cstdint>
#include <filesystem>

#include "qianli/model/spec.h"
#include "qianli/nn/parameter_set.h"

namespace qianli::tune {

// The adapter that stands at `path` (convert::open_adapter), which must be LoRA, rsLoRA or DoRA of
// linear layers with one rank and scale. Returns its number in parameters.attached(). Throws
// CheckpointError for one that is none, belongs to another model, or has modules whole: such a one
// can be merged.
int64_t attach(const std::filesystem::path& path, const model::ModelSpec& spec,
               nn::ParameterSet& parameters);

}  // namespace qianli::tune
