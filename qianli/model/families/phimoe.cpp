#include "qianli/model/families/moe.h"

namespace qianli::model {
namespace {

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config, {.bos_token_id = 1, .eos_token_id = 2, .rope = {.base = 1e6}}, spec);
  spec.attention_out_bias = spec.qkv_bias;
  spec.moe->ffn_hidden_size = spec.ffn_hidden_size;
  read_layer_types(config, {MixerKind::kSlidingAttention}, spec.sliding_window, spec);
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  names.experts = mixtral_expert_names();
  names.aliases = {{".block_sparse_moe.gate.", ".mlp.router."}, {".block_sparse_moe.", ".mlp."}};
  return names;
}

}  // namespace

const Family& phimoe_family() {
  static const Family family{
      .model_type = "phimoe",
      .architecture = "PhimoeForCausalLM",
      .traits = {.family = "phimoe",
                 .norm = NormKind::kLayerNorm,
                 .norm_bias = true,
                 .moe = MixtureOfExperts{.score = RouterScore::kSparseMixer}},
      .names = names(),
      .keys =
          with_keys(decoder_keys({.key_value_heads = 8, .max_positions = 131072, .norm_eps = 1e-5}),
                    {{"attention_bias", "qkv_bias", false},
                     {"lm_head_bias", "output_bias", false},
                     {"sliding_window", "sliding_window", nullptr},
                     {.key = "num_local_experts",
                      .field = "moe.num_experts",
                      .absent = 16,
                      .also = "num_experts"},
                     {"num_experts_per_tok", "moe.top_k", 2},
                     {"router_aux_loss_coef", "moe.aux_loss_coeff", 0.001},
                     {"router_jitter_noise", "moe.sparse_mixer_epsilon", 0.01},
                     {"input_jitter_noise", "moe.input_jitter", 0.0}}),
      .read = read,
      .write = write_decoder,
      .silent = {"output_router_logits"},
  };
  return family;
}

}  // namespace qianli::model
