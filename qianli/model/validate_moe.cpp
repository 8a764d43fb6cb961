// Mixtures of experts.
#include "qianli/model/checks.h"

namespace qianli::model {
namespace {

void check_groups(const MixtureOfExperts& moe) {
  check_count("moe.num_groups", moe.num_groups, moe.num_experts);
  check_count("moe.topk_groups", moe.topk_groups, moe.num_groups);
  check_multiple("moe.num_experts", moe.num_experts, "moe.num_groups", moe.num_groups);
  if (moe.num_groups == 1) return;
  expect(moe.num_zero_experts == 0, "expected no zero experts with groups of experts");
  const int64_t group = moe.num_experts / moe.num_groups;
  expect(group >= 2 || moe.group_score == GroupScore::kMax,
         "expected at least 2 experts in a group, got 1");
  expect(moe.top_k <= moe.topk_groups * group,
         fmt::format("expected moe.top_k of at most the {} experts of {} groups, got {}",
                     moe.topk_groups * group, moe.topk_groups, moe.top_k));
}

// Megatron-core's: the weights are sigmoids where a token has one expert, else the softmax over all
// experts, as they are.
void check_sinkhorn(const MixtureOfExperts& moe) {
  if (!moe.sinkhorn) return;
  const RouterScore score = moe.top_k == 1 ? RouterScore::kSigmoid : RouterScore::kSoftmax;
  expect(moe.score == score,
         fmt::format("expected moe.score of {} with moe.sinkhorn and moe.top_k of {}, got {}",
                     to_string(score), moe.top_k, to_string(moe.score)));
  expect(!moe.normalize_top_k && moe.scaling_factor == 1.0 && moe.num_groups == 1 &&
             !moe.selection_bias,
         "expected moe.sinkhorn without normalize_top_k, scaling_factor, groups or a selection "
         "bias");
  expect(moe.aux_loss_coeff == 0 && moe.sequence_aux_loss_coeff == 0 &&
             moe.device_aux_loss_coeff == 0 && moe.communication_aux_loss_coeff == 0,
         "expected no balancing losses with moe.sinkhorn, which balances by itself");
  expect(!moe.capacity_factor, "expected no moe.capacity_factor with moe.sinkhorn");
}

void check_hash_layers(const ModelSpec& spec) {
  const MixtureOfExperts& moe = *spec.moe;
  check_count("moe.num_hash_layers", moe.num_hash_layers, spec.num_layers, 0);
  if (moe.num_hash_layers == 0) return;
  expect(moe.num_zero_experts == 0 && moe.num_groups == 1 && !moe.shortcut && !moe.sinkhorn &&
             moe.score != RouterScore::kSparseMixer && moe.score != RouterScore::kTopKSoftmax,
         "expected moe.num_hash_layers without zero experts, groups, shortcuts, Sinkhorn balancing "
         "and scores of the chosen experts alone");
  check_product("vocab_size * moe.top_k", spec.vocab_size, moe.top_k);
}

}  // namespace

void check_moe(const ModelSpec& spec) {
  if (!spec.moe) return;
  const MixtureOfExperts& moe = *spec.moe;
  check_count("moe.num_experts", moe.num_experts, kMaxExperts);
  check_count("moe.num_zero_experts", moe.num_zero_experts, kMaxExperts, 0);
  check_count("moe.top_k", moe.top_k, moe.num_experts + moe.num_zero_experts);
  check_count("moe.ffn_hidden_size", moe.ffn_hidden_size);
  check_count("moe.shared_ffn_hidden_size", moe.shared_ffn_hidden_size, kMaxCount, 0);
  expect(!moe.shared_gate || moe.shared_ffn_hidden_size > 0,
         "expected moe.shared_gate with shared experts only");
  check_groups(moe);
  expect(moe.score != RouterScore::kSparseMixer || (moe.top_k == 2 && moe.num_groups == 1),
         "expected moe.top_k of 2 with the sparse mixer");
  expect(moe.score != RouterScore::kSparseMixer || moe.num_experts >= 2,
         "expected at least 2 experts with the sparse mixer");
  check_positive("moe.scaling_factor", moe.scaling_factor);
  check_positive("moe.sparse_mixer_epsilon", moe.sparse_mixer_epsilon);
  check_count("moe.first_k_dense", moe.first_k_dense, kMaxLayers, 0);
  check_count("moe.layer_frequency", moe.layer_frequency, kMaxLayers);
  check_count("moe.layer_offset", moe.layer_offset, moe.layer_frequency - 1, 0);
  expect(moe.dense_layers.size() <= size_t{kMaxLayers},
         "expected at most one entry per layer in moe.dense_layers");
  for (const int64_t l : moe.dense_layers) check_count("moe.dense_layers", l, kMaxLayers, 0);
  expect(!moe.shortcut || spec.num_layers % 2 == 0,
         "expected an even num_layers with moe.shortcut");
  check_not_negative("moe.aux_loss_coeff", moe.aux_loss_coeff);
  check_not_negative("moe.sequence_aux_loss_coeff", moe.sequence_aux_loss_coeff);
  check_not_negative("moe.device_aux_loss_coeff", moe.device_aux_loss_coeff);
  check_not_negative("moe.communication_aux_loss_coeff", moe.communication_aux_loss_coeff);
  check_not_negative("moe.z_loss_coeff", moe.z_loss_coeff);
  check_not_negative("moe.bias_update_rate", moe.bias_update_rate);
  expect(moe.input_jitter >= 0 && moe.input_jitter < 1,
         fmt::format("expected moe.input_jitter in [0, 1), got {}", moe.input_jitter));
  check_positive("moe.capacity_factor", moe.capacity_factor);
  expect(!moe.pad_to_capacity || moe.capacity_factor,
         "expected moe.pad_to_capacity with moe.capacity_factor only");
  check_sinkhorn(moe);
  check_hash_layers(spec);
}

}  // namespace qianli::model
