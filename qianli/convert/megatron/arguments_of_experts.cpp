// How a mixture is told to Megatron-LM (core_v0.12) or MindSpeed-LLM (2.2).
#include "qianli/convert/megatron/attributes.h"

namespace qianli::convert {
namespace {

using model::MixtureOfExperts;
using model::RouterScore;

// Megatron-core's groups are scored by the sum of their best top_k / topk_groups experts.
bool has_groups_of_megatron(const MixtureOfExperts& moe) {
  const int64_t best = moe.group_score == model::GroupScore::kMax ? 1 : 2;
  return moe.num_groups == 1 || moe.top_k / moe.topk_groups == best;
}

// Whether Megatron-LM has words for the router: it always normalizes several sigmoids and never a
// softmax over all experts, and has the selection bias for sigmoids alone.
bool has_router_of_megatron(const MixtureOfExperts& moe) {
  if (moe.sinkhorn) return true;
  if (moe.score == RouterScore::kSparseMixer || !has_groups_of_megatron(moe)) return false;
  if (moe.score == RouterScore::kSigmoid) return moe.normalize_top_k == (moe.top_k > 1);
  return !moe.selection_bias;
}

bool of_sequence(const MixtureOfExperts& moe) {
  return moe.aux_loss_coeff == 0 && moe.sequence_aux_loss_coeff > 0;
}

const char* plain_balancing(const MixtureOfExperts& moe) {
  if (moe.sinkhorn) return "sinkhorn";
  if (of_sequence(moe)) return "seq_aux_loss";
  return moe.aux_loss_coeff == 0 && moe.selection_bias ? "none" : "aux_loss";
}

const char* mindspeed_balancing(const MixtureOfExperts& moe) {
  if (moe.score == RouterScore::kSparseMixer) return "sparsemixer_topk";
  if (moe.sinkhorn) return "sinkhorn";
  if (moe.num_groups > 1 && moe.group_score == model::GroupScore::kMax)
    return "group_limited_greedy";
  if (moe.selection_bias || moe.score == RouterScore::kSigmoid) return "noaux_tc";
  return of_sequence(moe) ? "seq_aux_loss" : "aux_loss";
}

// How the mixture is trained. There is one coefficient for the losses of the microbatch and of each
// sequence.
void add_training(const MixtureOfExperts& moe, bool plain, Attributes& attributes) {
  attributes.add("moe_aux_loss_coeff",
                 of_sequence(moe) ? moe.sequence_aux_loss_coeff : moe.aux_loss_coeff);
  if (!plain) attributes.add("seq_aux", of_sequence(moe));
  const auto add = [&](const char* name, double value) {
    if (value > 0) attributes.add(name, value);
  };
  add("moe_device_level_aux_loss_coeff", moe.device_aux_loss_coeff);
  add("moe_comm_aux_loss_coeff", moe.communication_aux_loss_coeff);
  add("moe_z_loss_coeff", moe.z_loss_coeff);
  add("moe_input_jitter_eps", moe.input_jitter);
  attributes.add("moe_router_bias_update_rate", moe.bias_update_rate);
  if (!moe.capacity_factor) return;
  attributes.add("moe_expert_capacity_factor", *moe.capacity_factor);
  attributes.add("moe_token_drop_policy", to_string(moe.token_drop_policy).c_str());
  attributes.add("moe_pad_expert_input_to_capacity", moe.pad_to_capacity);
}

void add_router(const MixtureOfExperts& moe, bool plain, Attributes& attributes) {
  attributes.add("moe_router_topk", moe.top_k);
  attributes.add("moe_router_score_function",
                 moe.score == RouterScore::kSigmoid ? "sigmoid" : "softmax");
  // A softmax over all experts, divided by the sum of the chosen, is one over these.
  const bool over_chosen = moe.normalize_top_k && moe.num_groups == 1;
  attributes.add("moe_router_pre_softmax", moe.score == RouterScore::kSoftmax && !over_chosen);
  attributes.add("norm_topk_prob", moe.normalize_top_k);
  attributes.add("moe_router_load_balancing_type",
                 plain ? plain_balancing(moe) : mindspeed_balancing(moe));
  attributes.add("moe_router_dtype", to_string(moe.router_dtype).c_str());
  attributes.add("moe_router_enable_expert_bias", moe.selection_bias);
  if (moe.num_groups > 1) {
    attributes.add("moe_router_num_groups", moe.num_groups);
    attributes.add("moe_router_group_topk", moe.topk_groups);
  }
  attributes.add("moe_router_topk_scaling_factor", moe.scaling_factor);
}

// A step, behind the first dense layers in MindSpeed-LLM, or 0 and 1 for each layer.
void add_layers_with_experts(const model::ModelSpec& spec, bool plain, Attributes& attributes) {
  const MixtureOfExperts& moe = *spec.moe;
  const bool steps = moe.layer_offset == 0 && moe.dense_layers.empty();
  if (steps && (!plain || moe.first_k_dense == 0)) {
    if (!plain) attributes.add("first_k_dense_replace", moe.first_k_dense);
    attributes.add("moe_layer_freq", moe.layer_frequency);
    return;
  }
  std::vector<int64_t> layers;
  for (int64_t l = 0; l < spec.num_layers; ++l)
    layers.push_back(spec.layer(l).feed_forward == model::FeedForwardKind::kMoe ? 1 : 0);
  attributes.add("moe_layer_freq", layers);
}

}  // namespace

void add_experts(const model::ModelSpec& spec, bool plain, Attributes& attributes) {
  const MixtureOfExperts& moe = *spec.moe;
  attributes.add("num_experts", moe.num_experts);
  attributes.add("moe_ffn_hidden_size", moe.ffn_hidden_size);
  add_layers_with_experts(spec, plain, attributes);
  if (moe.shared_ffn_hidden_size > 0) {
    attributes.add("moe_shared_expert_intermediate_size", moe.shared_ffn_hidden_size);
    attributes.add("shared_expert_gate", moe.shared_gate);
  }
  if (moe.num_zero_experts > 0) attributes.add("num_zero_experts", moe.num_zero_experts);
  const bool own_words = plain && has_router_of_megatron(moe);
  add_router(moe, own_words, attributes);
  add_training(moe, own_words, attributes);
}

}  // namespace qianli::convert
