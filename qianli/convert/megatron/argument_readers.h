// Parts of spec_of_arguments.
#pragma once

#include "qianli/convert/megatron/stored_arguments.h"

namespace qianli::convert {

// Throws CheckpointError at an argument that changes the mathematics in a way that is not followed.
void refuse_unfollowed(const StoredArguments& args);

// Kind of positions, rotary rule and its scaling. Reads spec.max_position_embeddings, and sets it
// where the scaling tells more.
void read_positions(const StoredArguments& args, model::ModelSpec& spec);

bool has_latent_attention(const StoredArguments& args);

}  // namespace qianli::convert
