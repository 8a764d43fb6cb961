// config.json of Hugging Face folders, both spellings of transformers 4 and 5.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/base/json.h"
#include "qianli/model/spec.h"

namespace qianli::model {

// The validated spec of a config.json. `source` names it in errors. Throws ConfigError for an
// unknown model_type and for every key that changes the mathematics in a way this program does not
// follow; warns of keys it does not know.
ModelSpec from_hugging_face(const Json& config, const std::string& source);

// A config.json that transformers loads and from_hugging_face reads back to the same spec. `dtype`
// is that of the stored weights: float32, bfloat16, float16, float64. Throws ConfigError where the
// family's config.json has no words for the spec.
OrderedJson to_hugging_face(const ModelSpec& spec, std::string_view dtype = "bfloat16");

// The rates of dropout above 0 that a config.json names, as in "attn_pdrop 0.1": settings of the
// training that made the model, and no part of its spec.
std::vector<std::string> dropout_rates(const Json& config);

// FOLDER/config.json (at most 16 MB).
Json read_config(const std::filesystem::path& folder);
ModelSpec load_spec(const std::filesystem::path& folder);

}  // namespace qianli::model
