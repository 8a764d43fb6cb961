// What stacks of Mamba-2 layers have in common.
#pragma once

#include <vector>

#include "qianli/model/families/decoder.h"

namespace qianli::model {

// state_size, head_dim, n_groups, conv_kernel, chunk_size, use_conv_bias and the sizes around them.
std::vector<Key> mamba_keys();
// inner_size from num_heads and head_dim; expand must agree.
void read_mamba(const ConfigReader& config, ModelSpec& spec);
void write_mamba(const ModelSpec& spec, OrderedJson& config);

}  // namespace qianli::model
