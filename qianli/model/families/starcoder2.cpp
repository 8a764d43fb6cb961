#include "qianli/model/families/decoder.h"

namespace qianli::model {
namespace {

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config,
               {.bos_token_id = 50256, .eos_token_id = 50256, .activation = "gelu_pytorch_tanh"},
               spec);
  spec.attention_out_bias = spec.mlp_bias = spec.qkv_bias;
  read_layer_types(config, {MixerKind::kSlidingAttention}, spec.sliding_window, spec);
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  names.mlp_in = {"mlp.c_fc"};
  names.mlp_out = "mlp.c_proj";
  return names;
}

}  // namespace

const Family& starcoder2_family() {
  static const Family family{
      .model_type = "starcoder2",
      .architecture = "Starcoder2ForCausalLM",
      .traits = {.family = "starcoder2",
                 .norm = NormKind::kLayerNorm,
                 .norm_bias = true,
                 .gated_mlp = false,
                 .activation = Activation::kGeluTanh,
                 .qkv_bias = true,
                 .attention_out_bias = true,
                 .mlp_bias = true},
      .names = names(),
      .keys = with_keys(decoder_keys({.key_value_heads = 2, .max_positions = 4096, .tie = true}),
                        {{"norm_epsilon", "norm_eps", 1e-5},
                         {"use_bias", "qkv_bias", true},
                         {"initializer_range", "init_std", 0.018042},
                         {"sliding_window", "sliding_window", nullptr}}),
      .guards = {{"mlp_type", {"default"}}, {"norm_type", {"layer_norm"}}},
      .read = read,
      .write = write_decoder,
      .silent = {"residual_dropout", "attention_softmax_in_fp32", "scale_attention_softmax_in_fp32",
                 "scale_attn_weights"},
  };
  return family;
}

}  // namespace qianli::model
