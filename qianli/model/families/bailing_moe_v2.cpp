#include "qianli/model/families/moe.h"

namespace qianli::model {
namespace {

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config,
               {.bos_token_id = std::nullopt,
                .eos_token_id = std::nullopt,
                .rope = {.base = 600000.0, .fraction = 0.5}},
               spec);
  spec.qk_norm = config.flag("use_qk_norm", true) ? QkNorm::kHead : QkNorm::kNone;
  read_shared_experts(config, "num_shared_experts", 1, spec);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  write_decoder(spec, config);
  config["partial_rotary_factor"] = spec.rope.fraction;
  config["use_qk_norm"] = spec.qk_norm == QkNorm::kHead;
  config["score_function"] = "sigmoid";
  config["moe_router_enable_expert_bias"] = true;
  write_shared_experts(spec, "num_shared_experts", config);
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  names.embedding = "model.word_embeddings";
  names.qkv = {"attention.query_key_value"};
  names.attention_out = "attention.dense";
  names.query_norm = "attention.query_layernorm";
  names.key_norm = "attention.key_layernorm";
  names.experts = expert_names();
  names.experts.selection_bias = "mlp.gate.expert_bias";
  name_shared_experts("mlp.shared_experts", names.experts);
  names.mtp = deepseek_mtp_names();
  names.mtp.final_norm = "model.layers.{l}.final_layernorm";
  names.mtp.embedding_copy = names.mtp.output_copy = "";
  return names;
}

Family make(const std::string& model_type) {
  return {
      .model_type = model_type,
      .architecture = "BailingMoeV2ForCausalLM",
      .traits = {.family = model_type,
                 .qk_norm = QkNorm::kHead,
                 .rope = {.base = 600000.0, .fraction = 0.5},
                 .moe = MixtureOfExperts{.score = RouterScore::kSigmoid, .selection_bias = true},
                 .mtp = {.after_final_norm = true}},
      .names = names(),
      .keys = with_keys(decoder_keys({.max_positions = 32768}),
                        {{"use_qkv_bias", "qkv_bias", false},
                         {"use_bias", "attention_out_bias", false},
                         {.key = "num_experts",
                          .field = "moe.num_experts",
                          .absent = 256,
                          .also = "num_local_experts"},
                         {"num_experts_per_tok", "moe.top_k", 8},
                         {"moe_intermediate_size", "moe.ffn_hidden_size", 512},
                         {"n_group", "moe.num_groups", 8},
                         {"topk_group", "moe.topk_groups", 4},
                         {"norm_topk_prob", "moe.normalize_top_k", true},
                         {"routed_scaling_factor", "moe.scaling_factor", 2.5},
                         {"first_k_dense_replace", "moe.first_k_dense", 1},
                         {"mtp_loss_scaling_factor", "mtp.loss_scaling_factor", 0.1},
                         mtp_key()}),
      .guards = {{"score_function", {"sigmoid"}},
                 {"moe_router_enable_expert_bias", {true}},
                 {"norm_head", {false}},
                 {"norm_softmax", {false}},
                 {"use_rmsnorm", {true}}},
      .read = read,
      .write = write,
      .silent = {"embedding_dropout", "output_dropout", "output_router_logits", "router_dtype",
                 "max_window_layers", "moe_shared_expert_intermediate_size",
                 "using_split_qkv_in_self_attention"},
  };
}

}  // namespace

const Family& bailing_moe_v2_family() {
  static const Family family = make("bailing_moe_v2");
  return family;
}

// The word of some files of the same models.
const Family& bailing_moe_family() {
  static const Family family = make("bailing_moe");
  return family;
}

}  // namespace qianli::model
