#include "qianli/model/spec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "qianli/base/error.h"

namespace qianli::model {
namespace {

ModelSpec llama2_7b() {
  ModelSpec spec;
  spec.family = "llama";
  spec.num_layers = 32;
  spec.hidden_size = 4096;
  spec.ffn_hidden_size = 11008;
  spec.num_attention_heads = 32;
  spec.num_query_groups = 32;
  spec.head_dim = 128;
  spec.vocab_size = 32000;
  spec.max_position_embeddings = 4096;
  return spec;
}

TEST(TrainingFlops, of_llama2_7b_match_the_published_formula) {
  // 12 h 1.5 L f + 12 L h^2 (1 + 1 + s / 2h) + 6 h V per token, times 4096 tokens.
  EXPECT_NEAR(training_flops(llama2_7b(), 1, 4096) / 1.756e14, 1.0, 5e-4);
  const double mlp = 12.0 * 4096 * 1.5 * 32 * 11008;
  const double attention = 12.0 * 32 * 4096 * 4096 * 2.5;
  const double logits = 6.0 * 4096 * 32000;
  EXPECT_DOUBLE_EQ(training_flops(llama2_7b(), 1, 4096), 4096 * (mlp + attention + logits));
}

TEST(TrainingFlops, count_a_window_as_the_positions_it_sees) {
  ModelSpec spec = llama2_7b();
  const double whole = training_flops(spec, 2, 4096);
  spec.sliding_window = 4096;
  EXPECT_DOUBLE_EQ(training_flops(spec, 2, 4096), whole);
  spec.sliding_window = 1024;
  const double saved = 3.0 * 2 * 4096 * 4 * 32 * 4096 * (2048.0 - (1024 - 128));
  EXPECT_DOUBLE_EQ(training_flops(spec, 2, 4096), whole - saved);
}

TEST(ForwardFlops, are_a_third_of_training_at_the_mean_context) {
  const ModelSpec spec = llama2_7b();
  EXPECT_DOUBLE_EQ(3 * 4096 * forward_flops_per_token(spec, 2048), training_flops(spec, 1, 4096));
}

TEST(ForwardFlops, of_a_token_stop_growing_at_the_window) {
  ModelSpec spec = llama2_7b();
  spec.sliding_window = 100;
  EXPECT_LT(forward_flops_per_token(spec, 50), forward_flops_per_token(spec, 100));
  EXPECT_EQ(forward_flops_per_token(spec, 100), forward_flops_per_token(spec, 5000));
}

struct Fault {
  const char* name;  // a word of the message
  std::function<void(ModelSpec&)> make;
};

TEST(Validate, accepts_a_known_model) { EXPECT_NO_THROW(llama2_7b().validate()); }

TEST(Validate, refuses_what_cannot_be_a_model_and_says_which_field) {
  const int64_t huge = int64_t{1} << 40;
  const std::vector<Fault> faults{
      {"num_layers", [](ModelSpec& s) { s.num_layers = 0; }},
      {"num_layers", [](ModelSpec& s) { s.num_layers = 1000000; }},
      {"hidden_size", [](ModelSpec& s) { s.hidden_size = -4096; }},
      {"hidden_size", [=](ModelSpec& s) { s.hidden_size = huge; }},
      {"ffn_hidden_size", [=](ModelSpec& s) { s.ffn_hidden_size = INT64_MAX; }},
      {"num_query_groups", [](ModelSpec& s) { s.num_query_groups = 0; }},
      {"num_query_groups", [](ModelSpec& s) { s.num_query_groups = 64; }},
      {"multiple", [](ModelSpec& s) { s.num_query_groups = 5; }},
      {"head_dim", [](ModelSpec& s) { s.head_dim = 1 << 20; }},
      {"num_attention_heads * head_dim",
       [](ModelSpec& s) {
         s.head_dim = 1 << 16;
         s.num_attention_heads = s.num_query_groups = 1 << 16;
       }},
      {"parameters", [](ModelSpec& s) { s.vocab_size = INT32_MAX; }},
      {"parameters",
       [](ModelSpec& s) { s.hidden_size = s.ffn_hidden_size = s.vocab_size = INT32_MAX; }},
      {"even number of rotated dimensions", [](ModelSpec& s) { s.head_dim = 127; }},
      {"rope.base", [](ModelSpec& s) { s.rope.base = 0; }},
      {"rope.base", [](ModelSpec& s) { s.rope.base = std::numeric_limits<double>::infinity(); }},
      {"norm_eps", [](ModelSpec& s) { s.norm_eps = -1; }},
      {"norm_eps", [](ModelSpec& s) { s.norm_eps = std::nan(""); }},
      {"norm_bias", [](ModelSpec& s) { s.norm_bias = true; }},
      {"sliding_window", [](ModelSpec& s) { s.sliding_window = 0; }},
      {"sliding attention layers alone", [](ModelSpec& s) { s.sliding_num_attention_heads = 16; }},
      {"sliding_num_attention_heads to be a multiple",
       [](ModelSpec& s) {
         s.sliding_window = 8;
         s.sliding_num_attention_heads = 48;
       }},
      {"sliding_num_attention_heads * head_dim",
       [](ModelSpec& s) {
         s.sliding_window = 8;
         s.sliding_num_attention_heads = 1 << 30;
       }},
      {"rotary_pattern",
       [](ModelSpec& s) {
         s.position = PositionKind::kAlibi;
         s.rotary_pattern = {true};
       }},
      {"activation_limit to be 0 or more",
       [](ModelSpec& s) {
         s.activation_limit = {1, -1};
       }},
      {"activation_limit with a gated MLP",
       [](ModelSpec& s) {
         s.activation_limit = {1};
         s.gated_mlp = false;
       }},
      {"activation_limit above 0",
       [](ModelSpec& s) {
         s.activation = Activation::kClampedSwiglu;
         s.activation_limit = {1, 0};
       }},
      {"init_std", [](ModelSpec& s) { s.init_std = 2; }},
      {"eos_token_id",
       [](ModelSpec& s) {
         s.eos_token_ids = {1, -1};
       }},
      {"family", [](ModelSpec& s) { s.family = "lama"; }},
      {"factor",
       [](ModelSpec& s) {
         s.rope.scaling = {RopeScalingKind::kLinear, 0.0};
       }},
      {"original_max_positions",
       [](ModelSpec& s) {
         s.rope.scaling = {RopeScalingKind::kYarn, 4.0};
       }},
      {"high_freq_factor",
       [](ModelSpec& s) {
         s.rope.scaling = {RopeScalingKind::kLlama3, 8.0, 8192};
         s.rope.scaling.low_freq_factor = 4.0;
       }},
      {"moe.layer_frequency",  // though the first layer is looked at for its indexer
       [](ModelSpec& s) {
         s.latent_attention = {.q_lora_rank = 64,
                               .kv_lora_rank = 64,
                               .qk_nope_head_dim = 64,
                               .qk_rope_head_dim = 64,
                               .v_head_dim = 64};
         s.indexer = {.num_heads = 2, .head_dim = 64, .top_k = 16};
         s.moe = {.num_experts = 4, .top_k = 1, .ffn_hidden_size = 64, .layer_frequency = 0};
       }},
      {"moe.score of sigmoid with moe.sinkhorn",
       [](ModelSpec& s) {
         s.moe = {.num_experts = 4, .top_k = 1, .ffn_hidden_size = 64, .sinkhorn = true};
       }},
      {"no balancing losses with moe.sinkhorn",
       [](ModelSpec& s) {
         s.moe = {.num_experts = 4,
                  .top_k = 2,
                  .ffn_hidden_size = 64,
                  .aux_loss_coeff = 0.1,
                  .sinkhorn = true};
       }},
      {"no moe.capacity_factor with moe.sinkhorn",
       [](ModelSpec& s) {
         s.moe = {.num_experts = 4,
                  .top_k = 2,
                  .ffn_hidden_size = 64,
                  .sinkhorn = true,
                  .capacity_factor = 1.0};
       }},
      {"learned positions",
       [](ModelSpec& s) {
         s.position = PositionKind::kLearned;
         s.rope.scaling = {RopeScalingKind::kLinear, 2.0};
       }},
      {"rotated dimensions",
       [](ModelSpec& s) {
         s.head_dim = 2;
         s.rope.scaling = {RopeScalingKind::kDynamic, 2.0};
       }},
  };
  for (const Fault& fault : faults) {
    ModelSpec spec = llama2_7b();
    fault.make(spec);
    try {
      spec.validate();
      ADD_FAILURE() << "accepted a wrong " << fault.name;
    } catch (const ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find(fault.name), std::string::npos) << error.what();
    }
  }
}

TEST(Differences, name_every_field_that_differs_and_no_other) {
  const ModelSpec a = llama2_7b();
  EXPECT_TRUE(differences(a, a).empty());
  ModelSpec b = a;
  b.norm_eps = 1e-6;
  b.sliding_window = 7;
  b.eos_token_ids = {2};
  EXPECT_EQ(differences(a, b),
            (std::vector<std::string>{"norm_eps: 1e-05 and 1e-06", "sliding_window: none and 7",
                                      "eos_token_ids: none and 2"}));
}

}  // namespace
}  // namespace qianli::model
