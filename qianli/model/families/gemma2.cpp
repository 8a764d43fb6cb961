#include <algorithm>
#include <cmath>

#include "qianli/model/families/decoder.h"

namespace qianli::model {
namespace {

void read(const ConfigReader& config, ModelSpec& spec) {
  spec.activation = read_activation(config, "hidden_activation", "gelu_pytorch_tanh");
  config.raw("hidden_act");  // an older word, without effect
  read_rope(config, {}, spec);
  read_tokens(config, 2, 1, spec);
  spec.attention_out_bias = spec.qkv_bias;
  spec.embedding_multiplier =
      std::sqrt(static_cast<double>(std::max<int64_t>(spec.hidden_size, 0)));
  read_layer_types(config, {MixerKind::kSlidingAttention, MixerKind::kAttention},
                   spec.sliding_window, spec);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  config["hidden_activation"] = activation_word(spec.activation);
  write_rope(spec, config);
  write_layer_types(spec, config);
  write_tokens(spec, config);
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  names.post_attention_norm = "post_attention_layernorm";
  names.mlp_norm = "pre_feedforward_layernorm";
  names.post_mlp_norm = "post_feedforward_layernorm";
  return names;
}

}  // namespace

const Family& gemma2_family() {
  static const Family family{
      .model_type = "gemma2",
      .architecture = "Gemma2ForCausalLM",
      .traits = {.family = "gemma2",
                 .norm_placement = NormPlacement::kSandwich,
                 .norm_zero_centered = true,
                 .activation = Activation::kGeluTanh,
                 .tie_word_embeddings = true},
      .names = names(),
      .keys = with_keys(
          decoder_keys({.key_value_heads = 4, .head_dim = 256, .max_positions = 8192, .tie = true}),
          {{"attention_bias", "qkv_bias", false},
           {"query_pre_attn_scalar", "query_pre_attn_scalar", 256, {}, true},
           {"sliding_window", "sliding_window", 4096},
           {"final_logit_softcapping", "final_logit_softcap", 30.0},
           {"attn_logit_softcapping", "attention_softcap", 50.0}}),
      .guards = {{"use_bidirectional_attention", {false}}},
      .read = read,
      .write = write,
      .silent = {"cache_implementation"},
  };
  return family;
}

}  // namespace qianli::model
