#include "qianli/model/families/decoder.h"

namespace qianli::model {
namespace {

void read_attention(const ConfigReader& config, ModelSpec& spec) {
  spec.num_query_groups = spec.num_attention_heads;
  if (!config.has("attn_config")) return read_rope(config, {}, spec);
  const ConfigReader attention = config.child("attn_config");
  spec.num_query_groups = attention.integer("kv_n_heads", 1);
  spec.qkv_clip =
      attention.has("clip_qkv") ? std::optional(attention.number("clip_qkv")) : std::nullopt;
  read_rope(config, {.base = attention.number("rope_theta", 10000.0)}, spec);
}

void read_experts(const ConfigReader& config, ModelSpec& spec) {
  static const Json kEmpty = Json::object();
  const ConfigReader experts = config.has("ffn_config")
                                   ? config.child("ffn_config")
                                   : ConfigReader(kEmpty, config.source(), "ffn_config.");
  MixtureOfExperts& moe = *spec.moe;
  moe.num_experts = experts.integer("moe_num_experts", 4);
  moe.top_k = experts.integer("moe_top_k", 1);
  moe.ffn_hidden_size = spec.ffn_hidden_size = experts.integer("ffn_hidden_size", 3584);
  moe.aux_loss_coeff = experts.number("moe_loss_weight", 0.01);
  moe.input_jitter = experts.number("moe_jitter_eps", 0);
  const double p = experts.number("moe_normalize_expert_weights", 0);
  if (p != 0 && p != 1) experts.fail("moe_normalize_expert_weights", "null or 1 (the sum)");
  moe.normalize_top_k = p == 1;
  if (!experts.has("ffn_act_fn")) return;
  spec.activation = read_activation(experts.child("ffn_act_fn"), "name", "silu");
}

void read(const ConfigReader& config, ModelSpec& spec) {
  spec.head_dim = hidden_by_heads(spec);
  read_attention(config, spec);
  read_experts(config, spec);
  read_tokens(config, std::nullopt, std::nullopt, spec);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  const MixtureOfExperts& moe = *spec.moe;
  OrderedJson& attention = config["attn_config"];
  attention["kv_n_heads"] = spec.num_query_groups;
  attention["clip_qkv"] = spec.qkv_clip ? OrderedJson(*spec.qkv_clip) : OrderedJson();
  attention["rope_theta"] = spec.rope.base;
  OrderedJson& experts = config["ffn_config"];
  experts["ffn_hidden_size"] = moe.ffn_hidden_size;
  experts["moe_num_experts"] = moe.num_experts;
  experts["moe_top_k"] = moe.top_k;
  experts["moe_loss_weight"] = moe.aux_loss_coeff;
  experts["moe_jitter_eps"] = moe.input_jitter > 0 ? OrderedJson(moe.input_jitter) : OrderedJson();
  experts["moe_normalize_expert_weights"] = moe.normalize_top_k ? OrderedJson(1.0) : OrderedJson();
  experts["ffn_act_fn"] = {{"name", activation_word(spec.activation)}};
  write_rope(spec, config);
  write_tokens(spec, config);
}

ForeignNames names() {
  return {
      .optional_prefix = "transformer.",
      .embedding = "transformer.wte",
      .layer = "transformer.blocks.{l}.",
      .input_norm = "norm_attn_norm.norm_1",
      .qkv = {"norm_attn_norm.attn.Wqkv"},
      .attention_out = "norm_attn_norm.attn.out_proj",
      .mlp_norm = "norm_attn_norm.norm_2",
      .experts = {.router = "ffn.router.layer",
                  .stack = ExpertStack::kFlat,
                  .stacked_in = {"ffn.experts.mlp.w1", "ffn.experts.mlp.v1"},
                  .stacked_out = "ffn.experts.mlp.w2"},
      .final_norm = "transformer.norm_f",
      .output = "lm_head",
  };
}

}  // namespace

const Family& dbrx_family() {
  static const Family family{
      .model_type = "dbrx",
      .architecture = "DbrxForCausalLM",
      .traits = {.family = "dbrx",
                 .norm = NormKind::kLayerNorm,
                 .norm_eps = 1e-5,
                 .moe = MixtureOfExperts{}},
      .names = names(),
      .keys = {{"d_model", "hidden_size", 2048},
               {"n_heads", "num_attention_heads", 16},
               {"n_layers", "num_layers", 24},
               {"max_seq_len", "max_position_embeddings", 2048},
               {"vocab_size", "vocab_size"},
               {"tie_word_embeddings", "tie_word_embeddings", false},
               {"initializer_range", "init_std", 0.02}},
      .guards = {{"tie_word_embeddings", {false}}},
      .read = read,
      .write = write,
      .silent = {"num_key_value_heads", "emb_pdrop", "output_router_logits"},
  };
  return family;
}

}  // namespace qianli::model
