// What the layers of Step-3.5 differ in, from config.json and to it.
#pragma once

#include "qianli/model/config_reader.h"
#include "qianli/model/spec.h"

namespace qianli::model {

// Types of layers, heads of those with a window, rotary options, limits of the activation, layers
// with experts. The sizes are read already.
void read_step3p5_layers(const ConfigReader& config, ModelSpec& spec);
// In the words of the published files.
void write_step3p5_layers(const ModelSpec& spec, OrderedJson& config);

}  // namespace qianli::model
