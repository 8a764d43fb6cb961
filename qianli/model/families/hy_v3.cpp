#include "qianli/model/families/moe.h"

namespace qianli::model {
namespace {

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(
      config,
      {.bos_token_id = std::nullopt, .eos_token_id = std::nullopt, .rope = {.base = 11158840.0}},
      spec);
  spec.attention_out_bias = spec.qkv_bias;
  read_shared_experts(config, "num_shared_experts", 1, spec);
  read_mlp_layer_types(config, spec);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  write_decoder(spec, config);
  write_shared_experts(spec, "num_shared_experts", config);
  write_mlp_layer_types(spec, config);
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  names.query_norm = "self_attn.q_norm";
  names.key_norm = "self_attn.k_norm";
  names.experts = expert_names();
  names.experts.router = "mlp.router.gate";
  names.experts.selection_bias = "mlp.expert_bias";
  name_shared_experts("mlp.shared_mlp", names.experts);
  names.aliases = {{".mlp.router.gate.", ".mlp.gate."},
                   {".mlp.expert_bias", ".mlp.e_score_correction_bias"},
                   {".mlp.shared_mlp.", ".mlp.shared_experts."}};
  names.mtp = deepseek_mtp_names();
  return names;
}

}  // namespace

const Family& hy_v3_family() {
  static const Family family{
      .model_type = "hy_v3",
      .architecture = "HYV3ForCausalLM",
      .traits = {.family = "hy_v3",
                 .qk_norm = QkNorm::kHead,
                 .rope = {.base = 11158840.0},
                 .moe = MixtureOfExperts{.score = RouterScore::kSigmoid,
                                         .normalize_top_k = true,
                                         .selection_bias = true,
                                         .first_k_dense = 1}},
      .names = names(),
      .keys = with_keys(
          decoder_keys(
              {.key_value_heads = 8, .head_dim = 128, .max_positions = 131072, .norm_eps = 1e-5}),
          {{"attention_bias", "qkv_bias", false},
           {"mlp_bias", "mlp_bias", false},
           {"initializer_range", "init_std", 0.006},
           {.key = "num_experts",
            .field = "moe.num_experts",
            .absent = 192,
            .also = "num_local_experts"},
           {"num_experts_per_tok", "moe.top_k", 8},
           {"moe_intermediate_size", "moe.ffn_hidden_size", 1536},
           {"router_scaling_factor", "moe.scaling_factor", 2.826},
           mtp_key()}),
      .read = read,
      .write = write,
      .silent = {"output_router_logits", "enable_moe_fp32_combine"},
  };
  return family;
}

}  // namespace qianli::model
