#include <algorithm>
#include <cmath>

#include "qianli/model/families/decoder.h"

namespace qianli::model {
namespace {

constexpr double kGlobalBase = 1e6, kLocalBase = 1e4;

std::vector<MixerKind> layer_pattern(const ConfigReader& config) {
  const int64_t period = config.integer("sliding_window_pattern", 6);
  if (period < 1 || period > 100000) {
    config.fail("sliding_window_pattern", "a period between 1 and 100000");
  }
  std::vector<MixerKind> pattern(static_cast<size_t>(period), MixerKind::kSlidingAttention);
  pattern.back() = MixerKind::kAttention;
  return pattern;
}

// One set of rotary options for the layers that see everything, another for the sliding ones:
// transformers 5 nests them, 4 had a key for the base of the second.
void read_ropes(const ConfigReader& config, ModelSpec& spec) {
  Rope sliding{.base = config.number("rope_local_base_freq", kLocalBase)};
  spec.rope.base = config.number("rope_theta", kGlobalBase);
  if (config.has("rope_parameters")) {
    const ConfigReader both = config.child("rope_parameters");
    const auto read_one = [&](const char* key, Rope& rope) {
      if (!both.has(key)) return;
      read_rope_object(config, both.child(key), {}, spec.max_position_embeddings, rope);
    };
    read_one("full_attention", spec.rope);
    read_one("sliding_attention", sliding);
    if (!both.unread().empty()) {
      config.fail("rope_parameters", "full_attention and sliding_attention and no other key");
    }
  }
  if (config.has("rope_scaling")) {
    read_rope_object(config, config.child("rope_scaling"), {}, spec.max_position_embeddings,
                     spec.rope);
  }
  spec.sliding_rope = sliding;
}

void read(const ConfigReader& config, ModelSpec& spec) {
  spec.activation = read_activation(config, "hidden_activation", "gelu_pytorch_tanh");
  config.raw("hidden_act");  // an older word, without effect
  read_tokens(config, 2, 1, spec);
  spec.attention_out_bias = spec.qkv_bias;
  spec.embedding_multiplier =
      std::sqrt(static_cast<double>(std::max<int64_t>(spec.hidden_size, 0)));
  read_layer_types(config, layer_pattern(config), spec.sliding_window, spec);
  read_ropes(config, spec);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  config["hidden_activation"] = activation_word(spec.activation);
  const Rope local = spec.sliding_rope.value_or(spec.rope);
  OrderedJson full = rope_object(spec.rope), sliding = rope_object(local);
  full["rope_theta"] = spec.rope.base;
  sliding["rope_theta"] = local.base;
  config["rope_parameters"] = {{"full_attention", full}, {"sliding_attention", sliding}};
  write_layer_types(spec, config);
  write_tokens(spec, config);
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  names.other_prefixes = {"language_model.model.", "model.language_model."};
  names.ignored_prefixes = {"vision_tower.", "multi_modal_projector.", "model.vision_tower.",
                            "model.multi_modal_projector."};
  names.query_norm = "self_attn.q_norm";
  names.key_norm = "self_attn.k_norm";
  names.post_attention_norm = "post_attention_layernorm";
  names.mlp_norm = "pre_feedforward_layernorm";
  names.post_mlp_norm = "post_feedforward_layernorm";
  return names;
}

}  // namespace

const Family& gemma3_text_family() {
  static const Family family{
      .model_type = "gemma3_text",
      .architecture = "Gemma3ForCausalLM",
      .traits = {.family = "gemma3_text",
                 .norm_placement = NormPlacement::kSandwich,
                 .norm_zero_centered = true,
                 .qk_norm = QkNorm::kHead,
                 .rope = {.base = kGlobalBase},
                 .sliding_rope = Rope{.base = kLocalBase},
                 .activation = Activation::kGeluTanh,
                 .tie_word_embeddings = true},
      .names = names(),
      .keys = with_keys(
          // text_config of multimodal models leaves out what the class has.
          {{"hidden_size", "hidden_size", 2304},
           {"intermediate_size", "ffn_hidden_size", 9216},
           {"num_hidden_layers", "num_layers", 26},
           {"num_attention_heads", "num_attention_heads", 8},
           {"num_key_value_heads", "num_query_groups", 4, Fallback(as_many_as_heads)},
           {"head_dim", "head_dim", 256},
           {"vocab_size", "vocab_size", 262208},
           {"max_position_embeddings", "max_position_embeddings", 131072},
           {"rms_norm_eps", "norm_eps", 1e-6},
           {"tie_word_embeddings", "tie_word_embeddings", true},
           {"initializer_range", "init_std", 0.02}},
          {{"attention_bias", "qkv_bias", false},
           {"query_pre_attn_scalar", "query_pre_attn_scalar", 256, {}, true},
           {"sliding_window", "sliding_window", 4096},
           {"final_logit_softcapping", "final_logit_softcap", nullptr},
           {"attn_logit_softcapping", "attention_softcap", nullptr}}),
      .guards = {{"use_bidirectional_attention", {false}}},
      .read = read,
      .write = write,
      .silent = {"_sliding_window_pattern", "cache_implementation"},
  };
  return family;
}

}  // namespace qianli::model
