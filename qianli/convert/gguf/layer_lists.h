// Keys that are lists with a value for each layer: heads, windows and limits of Step-3.5.
#pragma once

#include <string>

#include "qianli/convert/gguf/keys.h"
#include "qianli/model/spec.h"

namespace qianli::convert {

void write_layer_lists(const model::ModelSpec& spec, const std::string& prefix, GgufKeys& keys);
// Into a spec that has its number of layers. Throws CheckpointError where layers with a window, or
// those without, differ among themselves.
void read_layer_lists(const GgufKeys& keys, const std::string& prefix, model::ModelSpec& spec);

}  // namespace qianli::convert
