// What families that follow LLaMA have in common: the keys of sizes, norms, tokens, windows, and
// the names of tensors. A family calls what fits and says the rest itself.
#pragma once

#include <string>
#include <vector>

#include "qianli/model/config_reader.h"
#include "qianli/model/family.h"
#include "qianli/model/rope_config.h"

namespace qianli::model {

// Declares the function that families.inc names.
#define QIANLI_FAMILY(name) const Family& name##_family();
#include "qianli/model/families/families.inc"
#undef QIANLI_FAMILY

// Values of absent keys, which differ by family: those of the family's configuration class in
// transformers, since files were written against them.
struct DecoderDefaults {
  int64_t key_value_heads = 0;  // 0: as many as query heads
  int64_t head_dim = 0;         // 0: hidden_size / num_attention_heads
  int64_t max_positions = 2048;
  double norm_eps = 1e-6;
  bool tie = false;
};

ForeignNames decoder_names();
// Sizes, norm_eps, tying and the width of initial weights, in transformers' words of LLaMA.
std::vector<Key> decoder_keys(const DecoderDefaults& defaults);
// `keys` with others in place of those for the same fields, and further ones behind.
std::vector<Key> with_keys(std::vector<Key> keys, const std::vector<Key>& others);
std::vector<Key> without_key(std::vector<Key> keys, const std::string& key);

// The activation under `hidden_act`.
Activation read_activation(const ConfigReader& config, const std::string& key,
                           const std::string& fallback);
// transformers' word; "gelu_tanh" has two, of which a family uses one.
std::string activation_word(Activation activation,
                            const std::string& gelu_tanh = "gelu_pytorch_tanh");

// Activation (hidden_act, silu), rotary positions and tokens, beside decoder_keys.
struct DecoderExtras {
  std::optional<int64_t> bos_token_id;
  std::optional<int64_t> eos_token_id;
  RopeDefaults rope = {};
  const char* activation = "silu";
};
void read_decoder(const ConfigReader& config, const DecoderExtras& extras, ModelSpec& spec);
void write_decoder(const ModelSpec& spec, OrderedJson& config);

// Qwen's window: `use_sliding_window`, `sliding_window`, `max_window_layers` or `layer_types`.
void read_qwen_window(const ConfigReader& config, ModelSpec& spec);
void write_qwen_window(const ModelSpec& spec, OrderedJson& config);
// `layer_types` over the layers, in transformers' words, as a pattern; where absent, `pattern`
// stands. `window` is that of the sliding layers; none are sliding without one. Behind the layers'
// types may stand those of `further` ones (multi-token prediction).
void read_layer_types(const ConfigReader& config, std::vector<MixerKind> pattern,
                      std::optional<int64_t> window, ModelSpec& spec, int64_t further = 0);
void write_layer_types(const ModelSpec& spec, OrderedJson& config);
// Fails unless a list under `key` has one value for each layer, or for `further` ones too.
void check_layers(const ConfigReader& config, const char* key, size_t length, int64_t further,
                  const ModelSpec& spec);

// Of equal patterns the shortest: it repeats over the layers.
template <class Value>
std::vector<Value> shortest(std::vector<Value> pattern) {
  for (size_t period = 1; period < pattern.size(); ++period) {
    bool repeats = true;
    for (size_t l = period; l < pattern.size() && repeats; ++l) {
      repeats = pattern[l] == pattern[l - period];
    }
    if (repeats) {
      pattern.resize(period);
      break;
    }
  }
  return pattern;
}

void read_tokens(const ConfigReader& config, std::optional<int64_t> bos, std::optional<int64_t> eos,
                 ModelSpec& spec);
void write_tokens(const ModelSpec& spec, OrderedJson& config);

int64_t as_many_as_heads(const ModelSpec& spec);
int64_t hidden_by_heads(const ModelSpec& spec);

}  // namespace qianli::model
