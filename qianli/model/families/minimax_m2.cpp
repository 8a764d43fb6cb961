#include "qianli/model/families/moe.h"

namespace qianli::model {
namespace {

// The older word counts the rotated dimensions.
double fraction_of(const ConfigReader& config, const ModelSpec& spec) {
  if (!config.has("rotary_dim") || spec.head_dim < 1) return 1.0;
  return static_cast<double>(config.integer("rotary_dim")) / static_cast<double>(spec.head_dim);
}

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config,
               {.bos_token_id = 200034,
                .eos_token_id = 200020,
                .rope = {.base = 5e6, .fraction = fraction_of(config, spec)}},
               spec);
  spec.moe->ffn_hidden_size = spec.ffn_hidden_size;
  for (const Json& kind : config.raw("attn_type_list")) {
    if (kind != 1) config.fail("attn_type_list", "1 (softmax attention) in every layer");
  }
}

void write(const ModelSpec& spec, OrderedJson& config) {
  write_decoder(spec, config);
  config["partial_rotary_factor"] = spec.rope.fraction;
  config["rotary_dim"] = spec.rotary_size(spec.rope);
  config["scoring_func"] = "sigmoid";
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  names.query_norm = "self_attn.q_norm";
  names.key_norm = "self_attn.k_norm";
  names.experts = mixtral_expert_names();
  names.experts.selection_bias = "block_sparse_moe.e_score_correction_bias";
  names.aliases = {{".block_sparse_moe.", ".mlp."}};
  return names;
}

}  // namespace

const Family& minimax_m2_family() {
  static const Family family{
      .model_type = "minimax_m2",
      .architecture = "MiniMaxM2ForCausalLM",
      .traits = {.family = "minimax_m2",
                 .qk_norm = QkNorm::kProjection,
                 .rope = {.base = 5e6, .fraction = 0.5},
                 .moe = MixtureOfExperts{.score = RouterScore::kSigmoid,
                                         .normalize_top_k = true,
                                         .selection_bias = true}},
      .names = names(),
      .keys =
          with_keys(decoder_keys({.key_value_heads = 8, .head_dim = 128, .max_positions = 196608}),
                    {{.key = "num_local_experts",
                      .field = "moe.num_experts",
                      .absent = 256,
                      .also = "num_experts"},
                     {"num_experts_per_tok", "moe.top_k", 8},
                     {"router_aux_loss_coef", "moe.aux_loss_coeff", 0.001},
                     {"router_jitter_noise", "moe.input_jitter", 0.0}}),
      .guards = {{"scoring_func", {"sigmoid"}},
                 {"use_qk_norm", {true}},
                 {"qk_norm_type", {"per_layer"}},
                 {"shared_intermediate_size", {0}},
                 {"use_routing_bias", {true}},
                 {"layernorm_full_attention_beta", {1.0}},
                 {"layernorm_mlp_beta", {1.0}}},
      .read = read,
      .write = write,
      .silent = {"output_router_logits", "layernorm_linear_attention_beta", "max_model_len",
                 "mlp_intermediate_size", "mtp_transformer_layers", "num_mtp_modules", "use_mtp",
                 "shared_moe_mode"},
  };
  return family;
}

}  // namespace qianli::model
