#include "qianli/model/families/decoder.h"

namespace qianli::model {
namespace {

std::vector<MixerKind> layer_pattern(const ConfigReader& config) {
  const int64_t period = config.integer("sliding_window_pattern", 4);
  if (period < 1 || period > 100000) {
    config.fail("sliding_window_pattern", "a period between 1 and 100000");
  }
  std::vector<MixerKind> pattern(static_cast<size_t>(period), MixerKind::kSlidingAttention);
  pattern.back() = MixerKind::kAttention;
  return pattern;
}

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config, {.bos_token_id = 5, .eos_token_id = 255001}, spec);
  spec.attention_out_bias = spec.qkv_bias;
  read_layer_types(config, layer_pattern(config), spec.sliding_window, spec);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  write_decoder(spec, config);
  write_layer_types(spec, config);
}

}  // namespace

const Family& cohere2_family() {
  static const Family family{
      .model_type = "cohere2",
      .architecture = "Cohere2ForCausalLM",
      .traits = {.family = "cohere2",
                 .norm = NormKind::kLayerNorm,
                 .norm_placement = NormPlacement::kParallel,
                 .rope = {.interleaved = true},
                 .rotary_on_sliding_layers_only = true,
                 .tie_word_embeddings = true,
                 .logits_multiplier = 0.0625},
      .names = decoder_names(),
      .keys = with_keys(decoder_keys({.max_positions = 8192, .tie = true}),
                        {{"layer_norm_eps", "norm_eps", 1e-5},
                         {"attention_bias", "qkv_bias", false},
                         {"logit_scale", "logits_multiplier", 0.0625},
                         {"sliding_window", "sliding_window", 4096}}),
      .guards = {{"use_qk_norm", {false}},
                 {"use_parallel_block", {true}},
                 {"use_gated_activation", {true}}},
      .read = read,
      .write = write,
      .silent = {"cache_implementation", "order_of_interleaved_layers", "position_embedding_type",
                 "rotary_pct", "layer_switch", "use_embedding_sharing"},
  };
  return family;
}

}  // namespace qianli::model
