#include "qianli/model/families/decoder.h"

namespace qianli::model {
namespace {

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config, {.bos_token_id = 5, .eos_token_id = 255001, .rope = {.base = 500000.0}},
               spec);
  spec.attention_out_bias = spec.qkv_bias;
  spec.qk_norm = config.flag("use_qk_norm", false) ? QkNorm::kLayerNormPerHead : QkNorm::kNone;
}

void write(const ModelSpec& spec, OrderedJson& config) {
  write_decoder(spec, config);
  config["use_qk_norm"] = spec.qk_norm == QkNorm::kLayerNormPerHead;
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  names.query_norm = "self_attn.q_norm";
  names.key_norm = "self_attn.k_norm";
  return names;
}

}  // namespace

const Family& cohere_family() {
  static const Family family{
      .model_type = "cohere",
      .architecture = "CohereForCausalLM",
      .traits = {.family = "cohere",
                 .norm = NormKind::kLayerNorm,
                 .norm_placement = NormPlacement::kParallel,
                 .rope = {.interleaved = true},
                 .tie_word_embeddings = true,
                 .logits_multiplier = 0.0625},
      .names = names(),
      .keys = with_keys(decoder_keys({.max_positions = 8192, .tie = true}),
                        {{"layer_norm_eps", "norm_eps", 1e-5},
                         {"attention_bias", "qkv_bias", false},
                         {"logit_scale", "logits_multiplier", 0.0625}}),
      .read = read,
      .write = write,
  };
  return family;
}

}  // namespace qianli::model
