// Named models: published architectures and small ones for tests and laptops. A preset says nothing
// about weights or tokens (bos, eos): those come with a folder or a tokenizer.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/model/spec.h"

namespace qianli::model {

// A line of presets_data.inc.
struct Preset {
  std::string_view name;
  std::string_view family;
  int64_t num_layers;
  int64_t hidden_size;
  int64_t ffn_hidden_size;
  int64_t num_attention_heads;
  int64_t num_query_groups;
  int64_t head_dim;
  int64_t vocab_size;
  int64_t max_position_embeddings;
  double norm_eps;
  double rope_base;
  double llama3_factor;  // of LLaMA 3.1's rope scaling from 8192 positions; 0: none
  bool tie_word_embeddings;
  int64_t parameters;                         // parameter_count of the spec
  std::optional<Activation> activation = {};  // absent: the family's
};

std::span<const Preset> presets();
std::vector<std::string> preset_names();
bool is_preset(std::string_view name);

// Throws ConfigError with the nearest name.
ModelSpec preset(std::string_view name);

}  // namespace qianli::model
