// The rotary keys of a config.json: `rope_theta` and `rope_scaling` (transformers 4 and before), or
// one `rope_parameters` object (transformers 5). Written in the first spelling, which both read.
#pragma once

#include "qianli/model/config_reader.h"
#include "qianli/model/spec.h"

namespace qianli::model {

// What a family's configuration class takes for absent keys, and whether it rotates parts of heads.
struct RopeDefaults {
  double base = 10000.0;
  std::optional<double> fraction;  // partial_rotary_factor; absent: the family knows no such key
  // original_max_position_embeddings; absent: max_position_embeddings
  std::optional<int64_t> original_max_positions;
};

// Sets spec.rope; max_position_embeddings is set already.
void read_rope(const ConfigReader& config, const RopeDefaults& defaults, ModelSpec& spec);
// Writes partial_rotary_factor where less than the whole head is rotated.
void write_rope(const ModelSpec& spec, OrderedJson& config);

// One object of rotary options, alone: for config.json files that have several.
void read_rope_object(const ConfigReader& config, const ConfigReader& options,
                      const RopeDefaults& defaults, int64_t max_positions, Rope& rope);
OrderedJson rope_object(const Rope& rope);

}  // namespace qianli::model
