// What families that follow LLaMA have in common: the keys of sizes, norms, tokens, windows, and
// the names of tensors. A family calls what fits and says the rest itself.
#pragma once

#include "qianli/model/config_reader.h"
#include "qianli/model/family.h"

namespace qianli::model {

// Values of absent keys, which differ by family: those of the family's configuration class in
// transformers, since files were written against them.
struct DecoderDefaults {
  int64_t key_value_heads = 0;  // 0: as many as query heads
  int64_t head_dim = 0;         // 0: hidden_size / num_attention_heads
  int64_t max_positions = 2048;
  std::optional<int64_t> bos_token_id;
  std::optional<int64_t> eos_token_id;
};

ForeignNames decoder_names();
void read_decoder(const ConfigReader& config, const DecoderDefaults& defaults, ModelSpec& spec);
void write_decoder(const ModelSpec& spec, OrderedJson& config);

// Qwen's window: `use_sliding_window`, `sliding_window`, `max_window_layers` or `layer_types`.
void read_qwen_window(const ConfigReader& config, ModelSpec& spec);
void write_qwen_window(const ModelSpec& spec, OrderedJson& config);
// Families whose window is one number: `layer_types`, where present, must say the same of all
// layers.
void check_layer_types(const ConfigReader& config, const ModelSpec& spec);

void read_tokens(const ConfigReader& config, std::optional<int64_t> bos, std::optional<int64_t> eos,
                 ModelSpec& spec);
void write_tokens(const ModelSpec& spec, OrderedJson& config);

Activation read_activation(const ConfigReader& config, const std::string& key,
                           const std::string& fallback);
// transformers' word; "gelu_tanh" has two, of which a family uses one.
std::string activation_word(Activation activation, const std::string& gelu_tanh);

}  // namespace qianli::model
