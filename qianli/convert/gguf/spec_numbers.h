// Numbers of a model that stand alone among the keys of a GGUF file.
#pragma once

#include <string>

#include "qianli/convert/gguf/keys.h"
#include "qianli/model/spec.h"

namespace qianli::convert {

// Of the embedding, the branches and the logits; `spec` has its family and sizes already.
void read_multipliers(const GgufKeys& keys, const std::string& prefix, model::ModelSpec& spec);
void read_token_ids(const GgufKeys& keys, model::ModelSpec& spec);

}  // namespace qianli::convert
