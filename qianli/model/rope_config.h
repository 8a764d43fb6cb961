// The rotary keys of a config.json: `rope_theta` and `rope_scaling` (transformers 4 and before), or
// one `rope_parameters` object (transformers 5). Written in the first spelling, which both read.
#pragma once

#include "qianli/model/config_reader.h"
#include "qianli/model/spec.h"

namespace qianli::model {

// Sets rope_base and rope_scaling; max_position_embeddings is set already.
void read_rope(const ConfigReader& config, ModelSpec& spec);
void write_rope(const ModelSpec& spec, OrderedJson& config);

}  // namespace qianli::model
