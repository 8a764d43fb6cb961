// What families with multi-head latent attention have in common.
#pragma once

#include <vector>

#include "qianli/model/families/decoder.h"

namespace qianli::model {

struct LatentDefaults {
  std::optional<int64_t> q_lora_rank = 1536;
  int64_t kv_lora_rank = 512;
  int64_t nope = 128;
  int64_t rope = 64;
  int64_t v_head_dim = 128;
};
// Replaces head_dim, which follows from the parts.
std::vector<Key> latent_keys(std::vector<Key> keys, const LatentDefaults& defaults);
// Behind latent_keys: the head size; a head_dim in the file, that of the rotary part, has no
// effect.
void read_latent_heads(const ConfigReader& config, ModelSpec& spec);
// Into the names of a decoder.
void name_latent(ForeignNames& names);

}  // namespace qianli::model
