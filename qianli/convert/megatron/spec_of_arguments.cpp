// Megatron-LM core_v0.12, megatron/training/arguments.py; MindSpeed-LLM 2.2,
// mindspeed_llm/training/arguments.py and features_manager.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/convert/megatron/argument_readers.h"
#include "qianli/model/fitting_family.h"
#include "qianli/model/spec_words.h"

namespace qianli::convert {
namespace {

using model::ModelSpec;

constexpr int64_t kMaxLayers = 100000;  // of a list of layers before anything checks it

void read_sizes(const StoredArguments& args, int64_t embedding_rows, ModelSpec& spec) {
  const auto idle = static_cast<int64_t>(args.integers("noop_layers").size());
  spec.num_layers = args.needed_integer({"num_layers", "num_hidden_layers"}) - idle;
  spec.hidden_size = args.needed_integer({"hidden_size"});
  spec.num_attention_heads = args.needed_integer({"num_attention_heads"});
  if (spec.num_attention_heads < 1) args.fail("num_attention_heads", "at least 1");
  spec.num_query_groups = spec.num_attention_heads;
  if (const auto heads = args.integer({"num_key_value_heads"})) {  // of MindSpeed's converter
    spec.num_query_groups = *heads;
  } else if (args.flag({"group_query_attention"})) {
    spec.num_query_groups = args.needed_integer({"num_query_groups"});
  }
  spec.head_dim = args.integer({"kv_channels", "head_dim"})
                      .value_or(spec.hidden_size / spec.num_attention_heads);
  spec.ffn_hidden_size = args.needed_integer({"ffn_hidden_size", "intermediate_size"});
  spec.max_position_embeddings = args.needed_integer({"max_position_embeddings", "seq_length"});
  const auto words = args.integer({"vocab_size"});
  spec.vocab_size = words && *words <= embedding_rows
                        ? *words
                        : args.integer({"padded_vocab_size"}).value_or(embedding_rows);
}

void read_norms_and_biases(const StoredArguments& args, ModelSpec& spec) {
  const std::string kind = args.text("normalization");
  if (kind != "RMSNorm" && kind != "LayerNorm") args.fail("normalization", "RMSNorm or LayerNorm");
  spec.norm = kind == "RMSNorm" ? model::NormKind::kRmsNorm : model::NormKind::kLayerNorm;
  spec.norm_bias = spec.norm == model::NormKind::kLayerNorm;
  spec.norm_eps = args.needed_number({"norm_epsilon", "layernorm_epsilon"});
  spec.norm_zero_centered = args.flag({"add_rmsnorm_offset", "apply_layernorm_1p"});
  spec.embedding_norm = args.flag({"embed_layernorm"});
  if (args.flag({"post_norm"})) spec.norm_placement = model::NormPlacement::kSandwich;
  const bool all = args.flag({"add_bias_linear"});
  spec.qkv_bias = all || args.flag({"add_qkv_bias"});
  spec.attention_out_bias = all || args.flag({"add_dense_bias"});
  spec.mlp_bias = all;
  spec.output_bias = args.flag({"add_output_layer_bias"});
  if (args.find("tie_word_embeddings") && !args.find("untie_embeddings_and_output_weights")) {
    spec.tie_word_embeddings = args.flag({"tie_word_embeddings"});
  } else {
    spec.tie_word_embeddings = !args.flag({"untie_embeddings_and_output_weights"});
  }
}

// The kernel of bias_gelu_fusion is the tanh form, which only takes biases.
void read_mlp(const StoredArguments& args, ModelSpec& spec) {
  using model::Activation;
  const bool silu = args.flag({"swiglu"});
  const bool gated_tanh = args.flag({"gelu_tanh"});
  const bool fused = spec.mlp_bias && args.flag({"bias_gelu_fusion"});
  spec.gated_mlp = silu || gated_tanh || args.flag({"geglu"});
  spec.activation = silu                                                ? Activation::kSilu
                    : args.flag({"squared_relu"})                       ? Activation::kRelu2
                    : gated_tanh || fused || args.flag({"openai_gelu"}) ? Activation::kGeluTanh
                                                                        : Activation::kGelu;
}

void read_windows(const StoredArguments& args, ModelSpec& spec) {
  using model::MixerKind;
  spec.sliding_window = args.integer({"sliding_window"});
  if (const auto window = args.integer({"interleave_sliding_window"})) {
    spec.sliding_window = window;
    spec.layer_pattern = {MixerKind::kSlidingAttention, MixerKind::kAttention};
  }
}

void read_attention(const StoredArguments& args, ModelSpec& spec) {
  read_windows(args, spec);
  spec.attention_softcap = args.number({"attn_logit_softcapping"});
  spec.final_logit_softcap = args.number({"output_logit_softcapping"});
  spec.query_pre_attn_scalar = args.number({"query_pre_attn_scalar"});
  if (!has_latent_attention(args)) {
    if (args.flag({"qk_layernorm"})) spec.qk_norm = model::QkNorm::kHead;
    return;
  }
  model::LatentAttention& latent = spec.latent_attention.emplace();
  latent.q_lora_rank = args.integer({"q_lora_rank"});
  latent.kv_lora_rank = args.needed_integer({"kv_lora_rank"});
  latent.qk_nope_head_dim = args.needed_integer({"qk_head_dim", "qk_nope_head_dim"});
  latent.qk_rope_head_dim = args.needed_integer({"qk_pos_emb_head_dim", "qk_rope_head_dim"});
  latent.v_head_dim = args.needed_integer({"v_head_dim"});
  latent.norm_eps = spec.norm_eps;
  const auto scale = [&](int64_t rank) {  // LongCat's
    return std::sqrt(static_cast<double>(spec.hidden_size) / static_cast<double>(rank));
  };
  if (latent.q_lora_rank && args.flag({"enable_mla_scale_q_lora"}))
    latent.q_lora_scale = scale(*latent.q_lora_rank);
  if (args.flag({"enable_mla_scale_kv_lora"})) latent.kv_lora_scale = scale(latent.kv_lora_rank);
  spec.head_dim = latent.qk_nope_head_dim + latent.qk_rope_head_dim;
  spec.num_query_groups = spec.num_attention_heads;
  spec.rope.interleaved = true;  // both take the pairs of the rotary slice apart
  if (!args.flag({"enable_dsa_indexer"})) return;
  spec.indexer = {.num_heads = args.needed_integer({"index_n_heads"}),
                  .head_dim = args.needed_integer({"index_head_dim"}),
                  .top_k = args.needed_integer({"index_topk"}),
                  .frequency = args.integer({"index_topk_freq"}).value_or(1),
                  .skip = args.integer({"index_skip_topk_offset"}).value_or(0)};
}

// The layers that have experts: a step, or Megatron's list of 0 and 1 for each layer.
void read_moe_layers(const StoredArguments& args, ModelSpec& spec) {
  model::MixtureOfExperts& moe = *spec.moe;
  moe.first_k_dense = args.integer({"first_k_dense_replace"}).value_or(0);
  const formats::Value* frequency = args.find("moe_layer_freq");
  if (!frequency) return;
  if (const auto step = frequency->as_int()) {
    moe.layer_frequency = std::max<int64_t>(1, *step);  // -1: not given
    return;
  }
  const auto list = args.integers("moe_layer_freq");
  if (static_cast<int64_t>(list.size()) != spec.num_layers || spec.num_layers > kMaxLayers)
    args.fail("moe_layer_freq", fmt::format("one number per layer ({})", spec.num_layers));
  const auto first = std::ranges::find(list, 1) - list.begin();
  moe.first_k_dense = first;
  for (auto l = first; l < static_cast<int64_t>(list.size()); ++l) {
    if (list[static_cast<size_t>(l)] == 0) moe.dense_layers.push_back(l);
  }
}

// What the router sees of its groups. Megatron-core adds up the best top_k / group_topk scores of
// each; MindSpeed's own routers are DeepSeek's.
void read_groups(const StoredArguments& args, const std::string& balancing,
                 model::MixtureOfExperts& moe) {
  const auto chosen = args.integer({"moe_router_group_topk", "topk_group"});
  if (!chosen) return;  // whatever their number
  moe.num_groups = args.integer({"moe_router_num_groups", "n_group"}).value_or(1);
  moe.topk_groups = *chosen;
  if (balancing == "group_limited_greedy") moe.group_score = model::GroupScore::kMax;
  if (moe.num_groups <= 1 || balancing == "group_limited_greedy" || balancing == "noaux_tc") return;
  if (*chosen < 1) args.fail("moe_router_group_topk", "at least 1");
  const int64_t best = moe.top_k / *chosen;
  if (best != 1 && best != 2) {
    args.fail("moe_router_group_topk",
              fmt::format("moe_router_topk ({}) or half of it: groups are scored by their best one "
                          "or two experts",
                          moe.top_k));
  }
  moe.group_score = best == 1 ? model::GroupScore::kMax : model::GroupScore::kTopTwoSum;
}

void read_scores(const StoredArguments& args, const std::string& balancing,
                 model::MixtureOfExperts& moe) {
  using model::RouterScore;
  const bool sigmoid = args.text("moe_router_score_function") == "sigmoid" ||
                       args.text("scoring_func") == "sigmoid" || balancing == "noaux_tc";
  const bool normalize = args.flag({"norm_topk_prob"});
  const bool before = args.flag({"moe_router_pre_softmax"}) || balancing == "softmax_topk" ||
                      balancing == "group_limited_greedy" || balancing == "pai_megatron_aux_loss";
  if (balancing == "sparsemixer_topk") {
    moe.score = RouterScore::kSparseMixer;
  } else if (balancing == "sinkhorn") {
    moe.score = moe.top_k == 1 ? RouterScore::kSigmoid : RouterScore::kSoftmax;
  } else if (sigmoid) {
    moe.score = RouterScore::kSigmoid;
    // Megatron-core always normalizes, whatever MindSpeed's norm_topk_prob says.
    moe.normalize_top_k = moe.top_k > 1 && (balancing != "noaux_tc" || normalize);
  } else if (before || normalize) {
    moe.score = RouterScore::kSoftmax;
    moe.normalize_top_k = normalize;
  } else {
    moe.score = RouterScore::kTopKSoftmax;
  }
}

void read_router(const StoredArguments& args, ModelSpec& spec) {
  model::MixtureOfExperts& moe = *spec.moe;
  const std::string balancing = args.text("moe_router_load_balancing_type");
  read_scores(args, balancing, moe);
  moe.sinkhorn = balancing == "sinkhorn";
  if (args.text("moe_router_dtype") == "fp64") moe.router_dtype = model::RouterDtype::kFloat64;
  // These routers look at nothing else.
  if (moe.sinkhorn || balancing == "pai_megatron_aux_loss") return;
  moe.selection_bias =
      args.flag({"moe_router_enable_expert_bias", "router_bias", "add_router_bias"});
  read_groups(args, balancing, moe);
  moe.scaling_factor =
      args.number({"moe_router_topk_scaling_factor", "routed_scaling_factor"}).value_or(1.0);
}

// Of training alone.
void read_balancing(const StoredArguments& args, model::MixtureOfExperts& moe) {
  const std::string balancing = args.text("moe_router_load_balancing_type");
  const double coefficient = args.number({"moe_aux_loss_coeff"}).value_or(0);
  if (balancing == "seq_aux_loss" || args.flag({"seq_aux"})) {
    moe.sequence_aux_loss_coeff = coefficient;
  } else if (balancing != "none" && balancing != "noaux_tc") {
    moe.aux_loss_coeff = coefficient;
  }
  if (balancing == "group_limited_greedy") {
    moe.device_aux_loss_coeff = args.number({"moe_device_level_aux_loss_coeff"}).value_or(0);
    moe.communication_aux_loss_coeff = args.number({"moe_comm_aux_loss_coeff"}).value_or(0);
  }
  moe.z_loss_coeff = args.number({"moe_z_loss_coeff"}).value_or(0);
  moe.input_jitter = args.number({"moe_input_jitter_eps"}).value_or(0);
  moe.bias_update_rate =
      args.number({"moe_router_bias_update_rate"}).value_or(moe.bias_update_rate);
  const auto factor = args.number({"moe_expert_capacity_factor"});
  if (!factor || *factor <= 0 || balancing == "pai_megatron_aux_loss") return;
  moe.capacity_factor = factor;
  moe.pad_to_capacity = args.flag({"moe_pad_expert_input_to_capacity"});
  const std::string policy = args.text("moe_token_drop_policy");
  if (!policy.empty() && !model::from_word(policy, moe.token_drop_policy))
    args.fail("moe_token_drop_policy", "probs or position");
  log::warn("convert",
            "{}: args.moe_expert_capacity_factor: the run left out tokens beyond {} times an even "
            "share of an expert; here training does, and an evaluation takes all",
            args.source(), *factor);
}

void read_experts(const StoredArguments& args, ModelSpec& spec) {
  const int64_t experts = args.integer({"num_experts"}).value_or(0);
  if (experts == 0) return;
  model::MixtureOfExperts& moe = spec.moe.emplace();
  moe.num_experts = experts;
  moe.top_k = args.needed_integer({"moe_router_topk"});
  moe.ffn_hidden_size =
      args.integer({"moe_ffn_hidden_size", "moe_intermediate_size"}).value_or(spec.ffn_hidden_size);
  const int64_t shared = args.integer({"n_shared_experts"}).value_or(0);
  moe.shared_ffn_hidden_size =
      args.integer({"moe_shared_expert_intermediate_size", "shared_expert_intermediate_size"})
          .value_or(shared * moe.ffn_hidden_size);
  moe.shared_gate = args.flag({"shared_expert_gate", "moe_shared_expert_gate"});
  moe.expert_bias = spec.mlp_bias;
  read_router(args, spec);
  read_balancing(args, moe);
  read_moe_layers(args, spec);
}

void read_multipliers(const StoredArguments& args, ModelSpec& spec) {
  if (args.flag({"input_embeds_norm"}))
    spec.embedding_multiplier = std::sqrt(static_cast<double>(spec.hidden_size));
  if (const auto scale = args.number({"scale_emb", "embedding_multiplier_scale"}))
    spec.embedding_multiplier = *scale;
  if (const auto depth = args.number({"scale_depth"}))
    spec.residual_multiplier = *depth / std::sqrt(static_cast<double>(spec.num_layers));
  if (const auto width = args.number({"dim_model_base"}))
    spec.hidden_divisor = static_cast<double>(spec.hidden_size) / *width;
  if (const auto scale = args.number({"output_multiplier_scale"})) spec.logits_multiplier = *scale;
}

}  // namespace

ModelSpec told_by_arguments(const StoredArguments& args, int64_t embedding_rows) {
  refuse_unfollowed(args);
  ModelSpec spec;
  spec.family = "llama";
  read_sizes(args, embedding_rows, spec);
  read_norms_and_biases(args, spec);
  read_mlp(args, spec);
  read_positions(args, spec);
  read_attention(args, spec);
  read_experts(args, spec);
  read_multipliers(args, spec);
  spec.mtp.num_layers = args.integer({"mtp_num_layers"}).value_or(0);
  if (spec.mtp.num_layers > 0) spec.mtp.after_final_norm = args.flag({"mtp_after_norm"});
  spec.init_std = args.number({"init_method_std"}).value_or(0.02);
  try {
    spec.validate();
  } catch (const ConfigError& error) {
    throw CheckpointError("convert", fmt::format("{}: args: {}", args.source(), error.what()));
  }
  return spec;
}

ModelSpec spec_of_arguments(const StoredArguments& args, int64_t embedding_rows) {
  const ModelSpec spec = told_by_arguments(args, embedding_rows);
  if (auto member = model::as_family_member(spec)) return *std::move(member);
  log::info("convert",
            "{}: no family of Hugging Face has words for this model (--config takes one as it is)",
            args.source());
  return spec;
}

}  // namespace qianli::convert
