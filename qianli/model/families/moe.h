// What families with mixtures of experts have in common.
#pragma once

#include <vector>

#include "qianli/model/families/decoder.h"

namespace qianli::model {

// mlp.gate, mlp.experts.{e}.{gate,up,down}_proj; in one tensor each as transformers 5 holds them.
ForeignNames::Experts expert_names();
// block_sparse_moe.gate, block_sparse_moe.experts.{e}.{w1,w3,w2}
ForeignNames::Experts mixtral_expert_names();
void name_shared_experts(const std::string& prefix, ForeignNames::Experts& names);

// n_routed_experts, num_experts_per_tok, moe_intermediate_size, groups, norm_topk_prob,
// routed_scaling_factor, first_k_dense_replace, n_shared_experts.
struct DeepseekMoeDefaults {
  int64_t experts = 256;
  int64_t width = 2048;
  int64_t groups = 1;
  int64_t topk_groups = 1;
  int64_t first_k_dense = 3;
  double scaling_factor = 2.5;
  bool normalize = true;
};
std::vector<Key> deepseek_moe_keys(const DeepseekMoeDefaults& defaults);

// Shared experts as a count of routed ones: n_shared_experts, or `key`.
void read_shared_experts(const ConfigReader& config, const char* key, int64_t absent,
                         ModelSpec& spec);
void write_shared_experts(const ModelSpec& spec, const char* key, OrderedJson& config);

// decoder_sparse_step and mlp_only_layers of Qwen.
void read_sparse_step(const ConfigReader& config, ModelSpec& spec);
void write_sparse_step(const ModelSpec& spec, OrderedJson& config);

// Which layers have experts, a flag for each, as the count of first dense ones and the others'
// list.
void set_layers_with_experts(const std::vector<bool>& mixed, ModelSpec& spec);

// mlp_layer_types: "dense" or "sparse" for each layer; absent: first_k_dense stays.
void read_mlp_layer_types(const ConfigReader& config, ModelSpec& spec);
void write_mlp_layer_types(const ModelSpec& spec, OrderedJson& config);

// aux_loss_alpha, over a sequence where seq_aux says so.
void read_aux_loss(const ConfigReader& config, ModelSpec& spec);
void write_aux_loss(const ModelSpec& spec, OrderedJson& config);

// num_nextn_predict_layers; DeepSeek's names of multi-token prediction.
Key mtp_key();
ForeignNames::Mtp deepseek_mtp_names();

}  // namespace qianli::model
