// The model that the arguments beside Megatron's weights describe.
#include "qianli/convert/megatron/stored_arguments.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/convert/megatron/arguments.h"
#include "qianli/model/fitting_family.h"
#include "tests/convert/made_model.h"
#include "tests/support/value_of_json.h"

namespace qianli::convert {
namespace {

using formats::Entries;
using formats::Value;

model::ModelSpec spec_of(const Json& json, int64_t rows = 128) {
  const Value args = testing::value_of(json);
  return spec_of_arguments(StoredArguments(&args, "test"), rows);
}

// A run of Megatron-LM on a Llama-like model.
Json llama() {
  return Json::parse(R"({"num_layers": 2, "hidden_size": 64, "ffn_hidden_size": 96,
    "num_attention_heads": 8, "group_query_attention": true, "num_query_groups": 2,
    "kv_channels": 8, "max_position_embeddings": 256, "normalization": "RMSNorm",
    "norm_epsilon": 1e-06, "swiglu": true, "add_bias_linear": false, "add_qkv_bias": false,
    "position_embedding_type": "rope", "rotary_base": 500000, "rotary_percent": 1.0,
    "untie_embeddings_and_output_weights": true, "vocab_size": null, "padded_vocab_size": 128,
    "num_experts": null, "qk_layernorm": false, "moe_layer_freq": 1})");
}

Json changed(Json json, const char* changes) {
  json.merge_patch(Json::parse(changes));
  return json;
}

std::string message(const Json& json) {
  try {
    spec_of(json);
  } catch (const CheckpointError& error) {
    return error.what();
  }
  return "no error";
}

TEST(Arguments, describe_a_llama) {
  const model::ModelSpec spec = spec_of(llama());
  EXPECT_EQ(spec.family, "llama");
  EXPECT_EQ(spec.num_query_groups, 2);
  EXPECT_EQ(spec.rope.base, 500000.0);
  EXPECT_EQ(spec.norm_eps, 1e-6);
  EXPECT_EQ(spec.vocab_size, 128);
  EXPECT_FALSE(spec.tie_word_embeddings);
}

TEST(Arguments, find_the_family_whose_words_fit) {
  const auto family = [](const Json& json) { return spec_of(json).family; };
  EXPECT_EQ(family(changed(llama(), R"({"add_qkv_bias": true})")), "qwen2");
  EXPECT_EQ(family(changed(llama(), R"({"qk_layernorm": true})")), "qwen3");
  const char* experts = R"({"num_experts": 4, "moe_router_topk": 2, "moe_ffn_hidden_size": 96})";
  EXPECT_EQ(family(changed(llama(), experts)), "mixtral");
  EXPECT_EQ(family(changed(changed(llama(), experts), R"({"qk_layernorm": true})")), "qwen3_moe");
  EXPECT_EQ(family(Json::parse(R"({"num_layers": 2, "hidden_size": 64, "ffn_hidden_size": 256,
      "num_attention_heads": 8, "max_position_embeddings": 256, "normalization": "LayerNorm",
      "layernorm_epsilon": 1e-05, "add_bias_linear": true, "bias_gelu_fusion": true,
      "position_embedding_type": "learned_absolute"})")),
            "gpt2");
  const char* latent = R"({"multi_latent_attention": true, "q_lora_rank": 24, "kv_lora_rank": 16,
      "qk_head_dim": 8, "qk_pos_emb_head_dim": 4, "v_head_dim": 8, "num_experts": 4,
      "moe_router_topk": 2, "moe_ffn_hidden_size": 32, "moe_router_score_function": "sigmoid",
      "moe_router_enable_expert_bias": true, "moe_shared_expert_intermediate_size": 32,
      "moe_layer_freq": [0, 1], "moe_router_topk_scaling_factor": 2.5, "qk_layernorm": true})";
  const model::ModelSpec deepseek = spec_of(changed(llama(), latent));
  EXPECT_EQ(deepseek.family, "deepseek_v3");
  EXPECT_EQ(deepseek.moe->first_k_dense, 1);
  EXPECT_TRUE(deepseek.moe->normalize_top_k);
  EXPECT_TRUE(deepseek.rope.interleaved);
  // No config.json has words for learned positions beside a gated MLP.
  const auto odd = changed(llama(), R"({"position_embedding_type": "learned_absolute"})");
  EXPECT_EQ(spec_of(odd).position, model::PositionKind::kLearned);
}

TEST(Arguments, of_a_tokenizer_smaller_than_the_padded_embedding) {
  EXPECT_EQ(spec_of(changed(llama(), R"({"vocab_size": 100})")).vocab_size, 100);
  EXPECT_EQ(spec_of(changed(llama(), R"({"padded_vocab_size": null})"), 192).vocab_size, 192);
}

TEST(Arguments, say_what_is_missing_or_not_followed) {
  const auto expect = [&](const char* changes, const char* word) {
    const std::string text = message(changed(llama(), changes));
    EXPECT_NE(text.find(word), std::string::npos) << text;
  };
  expect(R"({"rotary_base": null})", "do not say rotary_base");
  expect(R"({"hidden_size": null})", "do not say hidden_size");
  expect(R"({"hidden_size": "wide"})", "args.hidden_size: expected an integer of 32 bits");
  expect(R"({"normalization": "GroupNorm"})", "RMSNorm or LayerNorm");
  expect(R"({"position_embedding_type": "mrope"})", "args.position_embedding_type");
  expect(R"({"cla_share_factor": 2})", "args.cla_share_factor");
  expect(R"({"num_query_groups": 3})", "multiple");
  expect(R"({"num_experts": 4, "moe_router_topk": 2, "moe_layer_freq": [1]})", "moe_layer_freq");
  expect(R"({"num_attention_heads": 0})", "at least 1");
  expect(R"({"num_layers": 9223372036854775807})", "num_layers");
}

// MLATransformerConfig of Megatron-core, in the values of DeepSeek-V2.
Json latent() {
  return changed(llama(), R"({"group_query_attention": false, "multi_latent_attention": true,
      "q_lora_rank": 24, "kv_lora_rank": 16, "qk_head_dim": 8, "qk_pos_emb_head_dim": 4,
      "v_head_dim": 8, "qk_layernorm": true, "max_position_embeddings": 4096,
      "rope_type": "yarn", "rotary_scaling_factor": 40.0, "mscale": 0.707,
      "mscale_all_dim": 0.707, "norm_epsilon": 1e-05})");
}

TEST(Arguments, scale_the_rotary_positions_of_latent_attention) {
  using model::RopeScaling;
  using model::RopeScalingKind;
  const RopeScaling yarn{.kind = RopeScalingKind::kYarn,
                         .factor = 40.0,
                         .original_max_positions = 4096,
                         .mscale = 0.707,
                         .mscale_all_dim = 0.707};
  model::ModelSpec spec = spec_of(latent());
  EXPECT_EQ(spec.rope.scaling, yarn);
  EXPECT_EQ(spec.max_position_embeddings, 163840);
  EXPECT_EQ(spec.latent_attention->norm_eps, 1e-5);
  EXPECT_EQ(spec.latent_attention->q_lora_scale, 1.0);
  Json json = latent();
  json.erase("rope_type");  // yarn by default; newer versions name the original length
  spec = spec_of(changed(json, R"({"max_position_embeddings": 163840, "beta_fast": 16,
      "original_max_position_embeddings": 4096})"));
  EXPECT_EQ(spec.rope.scaling.original_max_positions, 4096);
  EXPECT_EQ(spec.rope.scaling.beta_fast, 16.0);
  EXPECT_EQ(spec.max_position_embeddings, 163840);
  spec = spec_of(changed(latent(), R"({"rope_type": "rope", "rotary_scaling_factor": 1.0})"));
  EXPECT_EQ(spec.rope.scaling.kind, RopeScalingKind::kNone);
  // MindSpeed-LLM's names have the last word where they are.
  spec = spec_of(changed(latent(), R"({"rope_scaling_type": "plm"})"));
  EXPECT_EQ(spec.rope.scaling.kind, RopeScalingKind::kNone);
  EXPECT_NE(message(changed(latent(), R"({"mscale_all_dim": 0.0})")).find("args.mscale_all_dim"),
            std::string::npos);
  EXPECT_NE(message(changed(latent(), R"({"rope_type": "rope"})")).find("rotary_scaling_factor"),
            std::string::npos);
}

TEST(Arguments, scale_rotary_positions_linearly) {
  const auto spec = spec_of(changed(llama(), R"({"rotary_seq_len_interpolation_factor": 4})"));
  EXPECT_EQ(spec.rope.scaling.kind, model::RopeScalingKind::kLinear);
  EXPECT_EQ(spec.rope.scaling.factor, 4.0);
  EXPECT_EQ(spec.family, "llama");
}

TEST(Arguments, of_mindspeed_are_read) {
  const char* yarn = R"({"rope_scaling_type": "yarn", "rope_scaling_factor": 4,
      "rope_scaling_original_max_position_embeddings": 64.0, "rope_scaling_mscale": 0.5})";
  model::ModelSpec spec = spec_of(changed(llama(), yarn));
  EXPECT_EQ(spec.rope.scaling.original_max_positions, 64);
  EXPECT_DOUBLE_EQ(*spec.rope.scaling.attention_factor, 0.05 * std::log(4.0) + 1.0);
  spec = spec_of(changed(llama(), R"({"rope_scaling_type": "longrope", "long_factor": "1.0,2,4,8",
      "short_factor": [1.0, 1.0, 1.0, 1.0], "original_max_position_embeddings": 64})"));
  EXPECT_EQ(spec.rope.scaling.long_factor, (std::vector<double>{1, 2, 4, 8}));
  spec = spec_of(changed(latent(), R"({"mtp_num_layers": 1, "mtp_after_norm": true,
      "enable_mla_scale_q_lora": true, "enable_mla_scale_kv_lora": true})"));
  EXPECT_TRUE(spec.mtp.after_final_norm);
  EXPECT_DOUBLE_EQ(spec.latent_attention->q_lora_scale, std::sqrt(64.0 / 24));
  EXPECT_DOUBLE_EQ(spec.latent_attention->kv_lora_scale, 2.0);
}

TEST(Arguments, tell_the_router) {
  const Json experts = changed(llama(), R"({"num_experts": 8, "moe_router_topk": 4,
      "moe_ffn_hidden_size": 96, "moe_router_score_function": "sigmoid", "moe_router_num_groups": 4,
      "norm_topk_prob": false})");
  model::ModelSpec spec = spec_of(experts);
  EXPECT_EQ(spec.moe->num_groups, 1);  // no number of groups is chosen
  EXPECT_TRUE(spec.moe->normalize_top_k);
  const auto groups = [&](const char* chosen) {
    return spec_of(changed(experts, chosen)).moe->group_score;
  };
  EXPECT_EQ(groups(R"({"moe_router_group_topk": 4})"), model::GroupScore::kMax);
  EXPECT_EQ(groups(R"({"moe_router_group_topk": 2})"), model::GroupScore::kTopTwoSum);
  EXPECT_NE(message(changed(experts, R"({"moe_router_group_topk": 1})")).find("group_topk"),
            std::string::npos);
}

// A Megatron-LM run with experts, `changes` over it.
model::MixtureOfExperts experts_of(const char* changes) {
  const Json experts = changed(llama(), R"({"num_experts": 8, "moe_router_topk": 2,
      "moe_ffn_hidden_size": 96, "moe_aux_loss_coeff": 0.02, "moe_z_loss_coeff": 1e-3,
      "moe_input_jitter_eps": 0.1, "moe_router_load_balancing_type": "aux_loss"})");
  return *spec_of(changed(experts, changes)).moe;
}

TEST(Arguments, tell_how_experts_are_balanced) {
  model::MixtureOfExperts moe = experts_of("{}");
  EXPECT_EQ(moe.aux_loss_coeff, 0.02);
  EXPECT_EQ(moe.z_loss_coeff, 1e-3);
  EXPECT_EQ(moe.input_jitter, 0.1);
  EXPECT_EQ(moe.sequence_aux_loss_coeff, 0.0);
  for (const char* of_sequence :
       {R"({"moe_router_load_balancing_type": "seq_aux_loss"})",
        R"({"moe_router_load_balancing_type": "none", "seq_aux": true})"}) {
    moe = experts_of(of_sequence);
    EXPECT_EQ(moe.aux_loss_coeff, 0.0);
    EXPECT_EQ(moe.sequence_aux_loss_coeff, 0.02);
  }
  EXPECT_EQ(experts_of(R"({"moe_router_load_balancing_type": "none"})").aux_loss_coeff, 0.0);
  moe = experts_of(R"({"moe_router_load_balancing_type": "pai_megatron_aux_loss",
      "moe_router_topk_scaling_factor": 2.5, "moe_expert_capacity_factor": 1.0})");
  EXPECT_EQ(moe.score, model::RouterScore::kSoftmax);
  EXPECT_EQ(moe.aux_loss_coeff, 0.02);
  EXPECT_EQ(moe.scaling_factor, 1.0);
  EXPECT_FALSE(moe.capacity_factor);
  EXPECT_EQ(experts_of(R"({"moe_router_dtype": "fp64"})").router_dtype,
            model::RouterDtype::kFloat64);
}

TEST(Arguments, tell_sinkhorn) {
  const char* sinkhorn =
      R"({"moe_router_load_balancing_type": "sinkhorn", "moe_aux_loss_coeff": 0.0})";
  model::MixtureOfExperts moe = experts_of(sinkhorn);
  EXPECT_TRUE(moe.sinkhorn);
  EXPECT_EQ(moe.score, model::RouterScore::kSoftmax);
  EXPECT_FALSE(moe.normalize_top_k);
  const char* one = R"({"moe_router_load_balancing_type": "sinkhorn", "moe_aux_loss_coeff": 0.0,
      "moe_router_topk": 1})";
  EXPECT_EQ(experts_of(one).score, model::RouterScore::kSigmoid);
  EXPECT_THROW(experts_of(R"({"moe_router_load_balancing_type": "sinkhorn"})"), CheckpointError);
}

TEST(Arguments, tell_which_tokens_are_dropped) {
  const char* position = R"({"moe_expert_capacity_factor": 1.25,
      "moe_token_drop_policy": "position", "moe_pad_expert_input_to_capacity": true})";
  model::MixtureOfExperts moe = experts_of(position);
  EXPECT_EQ(moe.capacity_factor, 1.25);
  EXPECT_EQ(moe.token_drop_policy, model::TokenDropPolicy::kPosition);
  EXPECT_TRUE(moe.pad_to_capacity);
  moe = experts_of(R"({"moe_expert_capacity_factor": -1.0, "moe_token_drop_policy": "position"})");
  EXPECT_FALSE(moe.capacity_factor);  // MindSpeed's: none
  EXPECT_THROW(experts_of(R"({"moe_expert_capacity_factor": 1.0, "moe_token_drop_policy": "any"})"),
               CheckpointError);
}

// What is written of a mixture's training is read back without the config.json beside it.
TEST(Arguments, written_by_us_tell_how_a_mixture_is_trained) {
  model::ModelSpec spec = spec_of(changed(llama(), R"({"num_experts": 8, "moe_router_topk": 2,
      "moe_ffn_hidden_size": 96})"));
  const auto read_back = [&] {
    const Value args = megatron_arguments(spec, {}, formats::Dtype::kF32);
    Entries entries = *args.as_object()->state.entries();
    std::erase_if(entries, [](const auto& e) { return *e.first.as_text() == "qianli_config"; });
    const Value told = Value::dict(std::move(entries));
    return spec_of_arguments(StoredArguments(&told, "test"), spec.vocab_size);
  };
  spec.moe->sequence_aux_loss_coeff = 0.01;
  spec.moe->z_loss_coeff = 1e-3;
  spec.moe->input_jitter = 0.1;
  spec.moe->bias_update_rate = 2e-3;
  spec.moe->capacity_factor = 1.5;
  spec.moe->token_drop_policy = model::TokenDropPolicy::kPosition;
  spec.moe->pad_to_capacity = true;
  spec.moe->router_dtype = model::RouterDtype::kFloat64;
  EXPECT_EQ(model::differences(spec, read_back()), std::vector<std::string>());
  spec.moe = model::MixtureOfExperts{.num_experts = 8,
                                     .top_k = 2,
                                     .ffn_hidden_size = 96,
                                     .score = model::RouterScore::kSoftmax,
                                     .sinkhorn = true};
  spec.moe->group_score = read_back().moe->group_score;  // of one group: whatever it is
  spec.family = read_back().family;
  EXPECT_EQ(model::differences(spec, read_back()), std::vector<std::string>());
}

TEST(Arguments, that_are_not_followed_are_refused_unless_they_do_nothing) {
  for (const char* changes :
       {R"({"moe_apply_probs_on_input": true})", R"({"dynamic_factor": 2.5})",
        R"({"apply_residual_connection_post_layernorm": true})", R"({"no_post_layer_norm": true})",
        R"({"softmax_scale": 0.1})", R"({"window_size": [127, 0]})", R"({"qk_l2_norm": true})",
        R"({"hybrid_override_pattern": "M-*"})", R"({"softmax_type": "off-by-one"})",
        R"({"cla_share_factor": 2})", R"({"expert_interval": 2})", R"({"share_kvstates": true})"}) {
    const std::string name = Json::parse(changes).begin().key();
    const std::string text = message(changed(llama(), changes));
    EXPECT_NE(text.find("args." + name + ": expected"), std::string::npos) << text;
  }
  EXPECT_EQ(message(changed(llama(), R"({"moe_apply_probs_on_input": false, "dynamic_factor": 1.0,
      "softmax_scale": null, "window_size": null, "expert_interval": 1, "softmax_type": "vanilla",
      "hybrid_attention_ratio": 0.0, "never_heard_of": 5})")),
            "no error");
}

TEST(Arguments, have_layouts_of_bounded_size) {
  const Value args = testing::value_of(Json::parse(
      R"({"tensor_model_parallel_size": 65536, "pipeline_model_parallel_size": 65536})"));
  EXPECT_THROW(layout_of(StoredArguments(&args, "test")), CheckpointError);
}

TEST(Arguments, tell_uneven_stages) {
  const auto stages = [](const char* changes) {
    const Value args = testing::value_of(
        changed(Json::parse(R"({"num_layers": 14, "pipeline_model_parallel_size": 4})"), changes));
    return layout_of(StoredArguments(&args, "test")).layers_per_stage;
  };
  using Counts = std::vector<int64_t>;
  EXPECT_EQ(stages(R"({"num_layers": 16})"), Counts());
  EXPECT_EQ(stages(R"({"decoder_first_pipeline_num_layers": 2})"), (Counts{2, 4, 4, 4}));
  EXPECT_EQ(stages(R"({"decoder_last_pipeline_num_layers": 5})"), (Counts{3, 3, 3, 5}));
  EXPECT_EQ(stages(R"({"decoder_first_pipeline_num_layers": 1,
                       "decoder_last_pipeline_num_layers": 3})"),
            (Counts{1, 5, 5, 3}));
  EXPECT_EQ(stages(R"({"account_for_embedding_in_pipeline_split": true,
                       "account_for_loss_in_pipeline_split": true})"),
            (Counts{3, 4, 4, 3}));
  EXPECT_EQ(stages(R"({"num_layer_list": "5,3,3,3", "decoder_first_pipeline_num_layers": 2})"),
            (Counts{5, 3, 3, 3}));
  EXPECT_EQ(stages(R"({"pipeline_model_parallel_size": 2, "decoder_first_pipeline_num_layers": 5,
                       "decoder_last_pipeline_num_layers": 9})"),
            (Counts{5, 9}));
  EXPECT_THROW(stages(R"({"decoder_first_pipeline_num_layers": 3})"), CheckpointError);
  EXPECT_THROW(stages(R"({"decoder_first_pipeline_num_layers": -1})"), CheckpointError);
  EXPECT_THROW(stages(R"({"pipeline_model_parallel_size": 2, "decoder_first_pipeline_num_layers": 5,
                          "decoder_last_pipeline_num_layers": 5})"),
               CheckpointError);
  EXPECT_THROW(stages(R"({"pipeline_model_parallel_layout": "Ett|tL"})"), CheckpointError);
}

std::vector<std::string> passed_over(const model::ModelSpec& spec,
                                     const MegatronLayout& layout = {}) {
  return passed_over_by_megatron(megatron_arguments(spec, layout, formats::Dtype::kF32));
}

TEST(Arguments, of_mindspeed_alone_are_known_by_name) {
  using Names = std::vector<std::string>;
  for (const char* own : {"llama", "mixtral", "qwen3", "qwen3_moe", "deepseek_v3"})
    EXPECT_EQ(passed_over(testing::small_model(own)), Names()) << own;
  EXPECT_EQ(passed_over(testing::small_model("deepseek_v2")),
            Names{"moe_router_load_balancing_type group_limited_greedy"});
  const Names gemma = passed_over(testing::small_model("gemma2"));
  for (const char* name :
       {"post_norm", "attn_logit_softcapping", "output_logit_softcapping", "scale_emb"})
    EXPECT_NE(std::ranges::find(gemma, name), gemma.end()) << name;
  const auto spec = testing::small_model("llama");
  EXPECT_EQ(passed_over(spec, {.pipeline = 2, .layers_per_stage = {1, 2}}), Names());
  EXPECT_EQ(passed_over(spec, {.pipeline = 4, .layers_per_stage = {1, 1, 2, 1}}),
            Names{"num_layer_list"});
}

// Where Megatron-LM has words of its own they are written, and where it has none MindSpeed-LLM's.
TEST(Arguments, scaling_is_told_in_megatrons_words) {
  const auto told = [](const model::ModelSpec& spec, MegatronNames names) {
    const Value args = megatron_arguments(spec, {.names = names}, formats::Dtype::kF32);
    const StoredArguments stored(&args, "test");
    return std::pair(stored.flag({"use_rope_scaling"}) || stored.text("rope_type") == "yarn",
                     stored.text("rope_scaling_type"));
  };
  using Told = std::pair<bool, std::string>;
  model::ModelSpec spec = spec_of(llama());
  spec.rope.scaling = {
      .kind = model::RopeScalingKind::kLlama3, .factor = 8.0, .original_max_positions = 8192};
  EXPECT_EQ(told(spec, MegatronNames::kCore), (Told{true, ""}));
  EXPECT_EQ(told(spec, MegatronNames::kMindSpeed), (Told{false, "llama3"}));
  spec.rope.scaling.original_max_positions = 4096;
  EXPECT_EQ(told(spec, MegatronNames::kCore), (Told{false, "llama3"}));
  EXPECT_EQ(passed_over(spec), std::vector<std::string>{"rope_scaling_type"});
  const model::ModelSpec yarn = spec_of(latent());
  EXPECT_EQ(told(yarn, MegatronNames::kCore), (Told{true, ""}));
  EXPECT_EQ(told(yarn, MegatronNames::kMindSpeed), (Told{false, "yarn"}));
  for (const auto names : {MegatronNames::kCore, MegatronNames::kMindSpeed}) {
    const Value args = megatron_arguments(yarn, {.names = names}, formats::Dtype::kF32);
    EXPECT_EQ(untold_by_arguments(yarn, args), std::vector<std::string>());
  }
}

// Sizes and switches that differ, where they do something: not how the same layers are counted, nor
// which score groups have where there is one.
std::vector<std::string> told_otherwise(const model::ModelSpec& spec, model::ModelSpec found) {
  found.family = spec.family;
  if (spec.moe && found.moe) {
    bool same_layers = true;
    for (int64_t l = 0; l < spec.num_layers; ++l)
      same_layers = same_layers && spec.layer(l).feed_forward == found.layer(l).feed_forward;
    if (same_layers) {
      found.moe->first_k_dense = spec.moe->first_k_dense;
      found.moe->layer_frequency = spec.moe->layer_frequency;
      found.moe->layer_offset = spec.moe->layer_offset;
      found.moe->dense_layers = spec.moe->dense_layers;
    }
    if (spec.moe->num_groups == 1) found.moe->group_score = spec.moe->group_score;
  }
  return model::differences(spec, found);
}

// No argument tells tokens, or how a model is trained.
model::ModelSpec without_training(model::ModelSpec spec) {
  spec.bos_token_id.reset();
  spec.eos_token_ids.clear();
  spec.pad_token_id.reset();
  if (spec.moe) {
    spec.moe->aux_loss_coeff = spec.moe->sequence_aux_loss_coeff = spec.moe->input_jitter = 0.0;
  }
  return spec;
}

Value without_config(const Value& written) {
  Entries entries = *written.as_object()->state.entries();
  std::erase_if(entries,
                [](const auto& entry) { return *entry.first.as_text() == "qianli_config"; });
  return Value::dict(std::move(entries));
}

TEST(Arguments, that_cannot_tell_a_switch_are_known) {
  std::map<std::string, std::string> untold;
  for (const testing::NamedSpec& model : testing::small_models()) {
    const Value args = megatron_arguments(model.spec, {}, formats::Dtype::kF32);
    for (const std::string& line : untold_by_arguments(model.spec, args))
      untold[model.name] += line + "\n";
  }
  EXPECT_EQ(untold.count("llama"), 0U);
  EXPECT_EQ(untold.count("deepseek_v3"), 0U) << untold["deepseek_v3"];
  EXPECT_NE(untold["dbrx"].find("qkv_clip"), std::string::npos) << untold["dbrx"];
  EXPECT_NE(untold["baichuan2_7b"].find("normalized_output"), std::string::npos);
}

TEST(Arguments, written_by_us_tell_linear_scaling) {
  model::ModelSpec spec = spec_of(llama());
  spec.rope.scaling = {.kind = model::RopeScalingKind::kLinear, .factor = 4.0};
  const Value args = megatron_arguments(spec, {}, formats::Dtype::kF32);
  EXPECT_TRUE(untold_by_arguments(spec, args).empty());
  spec.rope.scaling.kind = model::RopeScalingKind::kDynamic;
  const auto lines = untold_by_arguments(spec, megatron_arguments(spec, {}, formats::Dtype::kF32));
  ASSERT_FALSE(lines.empty());
  EXPECT_NE(lines.front().find("rope"), std::string::npos) << lines.front();
}

// What Qianli writes for Megatron describes the model wherever Megatron's options can.
TEST(Arguments, written_by_us_tell_the_model_without_config) {
  std::set<std::string> different;
  for (const testing::NamedSpec& model : testing::small_models()) {
    const model::ModelSpec spec = without_training(model.spec);
    const Value args = without_config(megatron_arguments(spec, {}, formats::Dtype::kF32));
    try {
      const auto found = spec_of_arguments(StoredArguments(&args, model.name), spec.vocab_size);
      if (!told_otherwise(spec, found).empty()) different.insert(model.name);
    } catch (const CheckpointError& error) {
      different.insert(model.name);
    }
  }
  const std::set<std::string> beyond_megatrons_options = {
      "qwen2",  // layers with and without a window, in no fixed rhythm
      "qwen3_next",
      "mamba2",       // recurrent layers
      "gemma3_text",  // two rotary bases
      "minicpm3",     // latent attention whose rotary pairs are half a head apart
      "glm_moe_dsa",  // an indexer whose pairs are neighbours
      "dbrx",
      "falcon, 7B",
      "falcon, 40B",
      "cohere",
      "cohere2",
      "cohere, no norms of heads",  // norms without bias, parallel blocks
      "gpt_oss",
      "minimax_m2",
      "longcat_flash",
      "hunyuan_v1_moe",
      "hunyuan_large",
      "step3p5",      // heads and limits by layer
      "deepseek_v4",  // compressed keys
      "baichuan2_7b",
      "baichuan2_13b",
      "bailing_moe_v2"};
  EXPECT_EQ(different, beyond_megatrons_options);
}

}  // namespace
}  // namespace qianli::convert
