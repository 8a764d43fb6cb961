#include "qianli/model/families/moe.h"

#include <fmt/core.h>

#include <algorithm>

namespace qianli::model {

ForeignNames::Experts expert_names() {
  return {.router = "mlp.gate",
          .in = {"mlp.experts.{e}.gate_proj", "mlp.experts.{e}.up_proj"},
          .out = "mlp.experts.{e}.down_proj",
          .stacked_in = {"mlp.experts.gate_up_proj"},
          .stacked_out = "mlp.experts.down_proj"};
}

ForeignNames::Experts mixtral_expert_names() {
  return {.router = "block_sparse_moe.gate",
          .in = {"block_sparse_moe.experts.{e}.w1", "block_sparse_moe.experts.{e}.w3"},
          .out = "block_sparse_moe.experts.{e}.w2",
          .stacked_in = {"block_sparse_moe.experts.gate_up_proj"},
          .stacked_out = "block_sparse_moe.experts.down_proj"};
}

void name_shared_experts(const std::string& prefix, ForeignNames::Experts& names) {
  names.shared_in = {prefix + ".gate_proj", prefix + ".up_proj"};
  names.shared_out = prefix + ".down_proj";
}

std::vector<Key> deepseek_moe_keys(const DeepseekMoeDefaults& defaults) {
  return {
      {"n_routed_experts", "moe.num_experts", defaults.experts},
      {"num_experts_per_tok", "moe.top_k", 8},
      {"moe_intermediate_size", "moe.ffn_hidden_size", defaults.width},
      {"n_group", "moe.num_groups", defaults.groups, Fallback(1)},
      {"topk_group", "moe.topk_groups", defaults.topk_groups, Fallback(1)},
      {"norm_topk_prob", "moe.normalize_top_k", defaults.normalize},
      {"routed_scaling_factor", "moe.scaling_factor", defaults.scaling_factor},
      {"first_k_dense_replace", "moe.first_k_dense", defaults.first_k_dense},
  };
}

void read_shared_experts(const ConfigReader& config, const char* key, int64_t absent,
                         ModelSpec& spec) {
  const int64_t count = config.contains(key) ? config.integer(key, 0) : absent;
  if (count < 0 || count > 4096) config.fail(key, "a number of experts between 0 and 4096");
  const int64_t width = spec.moe->ffn_hidden_size;
  // Beyond the limit of any size the width is refused all the same, without overflowing.
  spec.moe->shared_ffn_hidden_size = width > INT32_MAX ? width : count * width;
}

void write_shared_experts(const ModelSpec& spec, const char* key, OrderedJson& config) {
  config[key] = spec.moe->shared_ffn_hidden_size / spec.moe->ffn_hidden_size;
}

void read_sparse_step(const ConfigReader& config, ModelSpec& spec) {
  MixtureOfExperts& moe = *spec.moe;
  moe.layer_frequency = config.integer("decoder_sparse_step", 1);
  if (moe.layer_frequency < 1) config.fail("decoder_sparse_step", "a positive integer");
  moe.layer_offset = moe.layer_frequency - 1;
  moe.dense_layers = config.integers("mlp_only_layers");
}

void write_sparse_step(const ModelSpec& spec, OrderedJson& config) {
  config["decoder_sparse_step"] = spec.moe->layer_frequency;
  config["mlp_only_layers"] = spec.moe->dense_layers;
}

void set_layers_with_experts(const std::vector<bool>& mixed, ModelSpec& spec) {
  MixtureOfExperts& moe = *spec.moe;
  moe.first_k_dense = std::ranges::find(mixed, true) - mixed.begin();
  moe.dense_layers.clear();
  for (auto l = moe.first_k_dense; l < static_cast<int64_t>(mixed.size()); ++l) {
    if (!mixed[static_cast<size_t>(l)]) moe.dense_layers.push_back(l);
  }
}

void read_mlp_layer_types(const ConfigReader& config, ModelSpec& spec) {
  const auto types = config.texts("mlp_layer_types");
  if (types.empty()) return;
  if (static_cast<int64_t>(types.size()) != spec.num_layers) {
    config.fail("mlp_layer_types", fmt::format("one type per layer ({})", spec.num_layers));
  }
  std::vector<bool> mixed;
  for (const std::string& type : types) {
    if (type != "dense" && type != "sparse") {
      config.fail("mlp_layer_types", "dense or sparse for each layer");
    }
    mixed.push_back(type == "sparse");
  }
  set_layers_with_experts(mixed, spec);
}

void write_mlp_layer_types(const ModelSpec& spec, OrderedJson& config) {
  OrderedJson types = OrderedJson::array();
  for (int64_t l = 0; l < spec.num_layers; ++l) {
    const bool sparse = spec.layer(l).feed_forward == FeedForwardKind::kMoe;
    types.push_back(sparse ? "sparse" : "dense");
  }
  config["mlp_layer_types"] = types;
}

void read_aux_loss(const ConfigReader& config, ModelSpec& spec) {
  const double alpha = config.number("aux_loss_alpha", 0);
  const bool of_sequence = config.flag("seq_aux", true);
  (of_sequence ? spec.moe->sequence_aux_loss_coeff : spec.moe->aux_loss_coeff) = alpha;
}

void write_aux_loss(const ModelSpec& spec, OrderedJson& config) {
  const MixtureOfExperts& moe = *spec.moe;
  if (moe.sequence_aux_loss_coeff == 0 && moe.aux_loss_coeff == 0) return;
  const bool of_sequence = moe.sequence_aux_loss_coeff != 0;
  config["aux_loss_alpha"] = of_sequence ? moe.sequence_aux_loss_coeff : moe.aux_loss_coeff;
  config["seq_aux"] = of_sequence;
}

Key mtp_key() { return {"num_nextn_predict_layers", "mtp.num_layers", 0}; }

ForeignNames::Mtp deepseek_mtp_names() {
  return {.layer = "model.layers.{l}.",
          .embedding_norm = "model.layers.{l}.enorm",
          .hidden_norm = "model.layers.{l}.hnorm",
          .projection = "model.layers.{l}.eh_proj",
          .final_norm = "model.layers.{l}.shared_head.norm",
          .embedding_copy = "model.layers.{l}.embed_tokens.weight",
          .output_copy = "model.layers.{l}.shared_head.head.weight"};
}

}  // namespace qianli::model
