#include "qianli/model/hugging_face.h"

#include <gtest/gtest.h>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/model/presets.h"
#include "qianli/model/rotary.h"
#include "tests/support/test_paths.h"

namespace qianli::model {
namespace {

Json minimal(const std::string& model_type) {
  return {{"model_type", model_type}, {"hidden_size", 64},        {"intermediate_size", 128},
          {"num_hidden_layers", 2},   {"num_attention_heads", 4}, {"vocab_size", 100},
          {"num_key_value_heads", 2}};
}

Json minimal_gpt2() {
  return {
      {"model_type", "gpt2"}, {"n_embd", 64}, {"n_layer", 2}, {"n_head", 4}, {"vocab_size", 100}};
}

Json with(Json config, const Json& changes) {
  config.update(changes);
  return config;
}

ModelSpec read(const Json& config) { return from_hugging_face(config, "config.json"); }

// The message of the refusal, or "" when the config is accepted.
std::string refusal(const Json& config) {
  try {
    read(config);
    return "";
  } catch (const ConfigError& error) {
    return error.what();
  }
}

TEST(FromHuggingFace, reads_the_old_and_the_new_spelling_alike) {
  for (const std::string family : {"llama3.1", "qwen2_yarn"}) {
    const auto folder = testing::source_path("tests/golden/models/" + family);
    const auto old_spelling = folder / "config_v4.json";
    EXPECT_EQ(load_spec(folder),
              from_hugging_face(read_json(old_spelling, FileRole::kConfig), "old"))
        << family;
  }
}

TEST(FromHuggingFace, reads_every_switch_of_a_llama) {
  const ModelSpec spec = load_spec(testing::source_path("tests/golden/models/llama3.1"));
  EXPECT_EQ(spec.family, "llama");
  EXPECT_EQ(spec.num_layers, 2);
  EXPECT_EQ(spec.hidden_size, 40);
  EXPECT_EQ(spec.ffn_hidden_size, 72);
  EXPECT_EQ(spec.num_attention_heads, 4);
  EXPECT_EQ(spec.num_query_groups, 2);
  EXPECT_EQ(spec.head_dim, 10);
  EXPECT_EQ(spec.vocab_size, 97);
  EXPECT_EQ(spec.max_position_embeddings, 256);
  EXPECT_EQ(spec.norm_eps, 1e-5);
  EXPECT_EQ(spec.rope.base, 500.0);
  EXPECT_EQ(spec.rope.scaling.kind, RopeScalingKind::kLlama3);
  EXPECT_EQ(spec.rope.scaling.factor, 8.0);
  EXPECT_EQ(spec.rope.scaling.original_max_positions, 32);
  EXPECT_TRUE(spec.gated_mlp);
  EXPECT_FALSE(spec.qkv_bias || spec.attention_out_bias || spec.mlp_bias);
  EXPECT_EQ(spec.bos_token_id, 1);
  EXPECT_EQ(spec.eos_token_ids, std::vector<int64_t>{2});
}

TEST(FromHuggingFace, knows_the_switches_that_a_family_implies) {
  EXPECT_TRUE(read(minimal("qwen2")).qkv_bias);
  EXPECT_FALSE(read(minimal("qwen2")).attention_out_bias);
  EXPECT_EQ(read(minimal("qwen3")).qk_norm, QkNorm::kHead);
  EXPECT_EQ(read(minimal("qwen3")).head_dim, 128);
  EXPECT_EQ(read(minimal("mistral")).sliding_window, 4096);
  const ModelSpec gpt2 = read(minimal_gpt2());
  EXPECT_EQ(gpt2.ffn_hidden_size, 256);
  EXPECT_EQ(gpt2.activation, Activation::kGeluTanh);
  EXPECT_EQ(gpt2.position, PositionKind::kLearned);
  EXPECT_TRUE(gpt2.tie_word_embeddings && gpt2.mlp_bias && gpt2.norm_bias && !gpt2.gated_mlp);
}

TEST(FromHuggingFace, takes_absent_and_null_for_the_default) {
  Json config = minimal("llama");
  config.erase("num_key_value_heads");
  EXPECT_EQ(read(config).num_query_groups, 4);
  EXPECT_EQ(read(with(config, {{"num_key_value_heads", nullptr}})).num_query_groups, 4);
  EXPECT_EQ(read(with(config, {{"head_dim", nullptr}})).head_dim, 16);
  EXPECT_EQ(read(with(config, {{"head_dim", 32}})).head_dim, 32);
  EXPECT_EQ(read(with(config, {{"rope_scaling", nullptr}})).rope.base, 10000.0);
}

TEST(FromHuggingFace, reads_end_tokens_as_a_number_a_list_or_nothing) {
  const Json config = minimal("llama");
  EXPECT_EQ(read(with(config, {{"eos_token_id", {5, 6}}})).eos_token_ids,
            (std::vector<int64_t>{5, 6}));
  EXPECT_EQ(read(with(config, {{"eos_token_id", 5}})).eos_token_ids, (std::vector<int64_t>{5}));
  EXPECT_TRUE(read(with(config, {{"eos_token_id", nullptr}})).eos_token_ids.empty());
  EXPECT_EQ(read(config).eos_token_ids, (std::vector<int64_t>{2}));
  EXPECT_EQ(read(with(config, {{"pad_token_id", -1}})).pad_token_id, std::nullopt);
}

TEST(FromHuggingFace, reads_biases_of_a_llama) {
  const ModelSpec spec =
      read(with(minimal("llama"), {{"attention_bias", true}, {"mlp_bias", true}}));
  EXPECT_TRUE(spec.qkv_bias && spec.attention_out_bias && spec.mlp_bias);
}

TEST(FromHuggingFace, ignores_qwens_window_unless_it_is_switched_on) {
  const Json config = with(minimal("qwen2"), {{"sliding_window", 32}, {"max_window_layers", 0}});
  EXPECT_EQ(read(config).sliding_window, std::nullopt);
  EXPECT_EQ(read(with(config, {{"use_sliding_window", true}})).sliding_window, 32);
  const Json late = with(config, {{"use_sliding_window", true}, {"max_window_layers", 2}});
  EXPECT_EQ(read(late).sliding_window, std::nullopt);
  const ModelSpec mixed =
      read(with(config, {{"use_sliding_window", true}, {"max_window_layers", 1}}));
  EXPECT_EQ(mixed.layer(0).window, 0);
  EXPECT_EQ(mixed.layer(1).window, 32);
}

TEST(FromHuggingFace, takes_the_kind_of_each_layer_from_layer_types) {
  const Json config = with(minimal("qwen3"), {{"use_sliding_window", true}, {"sliding_window", 8}});
  const auto types = [&](const char* a, const char* b) {
    return with(config, {{"layer_types", {a, b}}});
  };
  EXPECT_EQ(read(types("full_attention", "full_attention")).sliding_window, std::nullopt);
  const ModelSpec sliding = read(types("sliding_attention", "sliding_attention"));
  EXPECT_EQ(sliding.sliding_window, 8);
  EXPECT_TRUE(sliding.layer_pattern.empty());
  const ModelSpec mixed = read(types("full_attention", "sliding_attention"));
  EXPECT_EQ(mixed.layer(0).window, 0);
  EXPECT_EQ(mixed.layer(1).window, 8);
  EXPECT_NE(refusal(types("full_attention", "linear_attention")).find("gated_delta_net"),
            std::string::npos);
  EXPECT_NE(refusal(types("full_attention", "odd")).find("layer_types"), std::string::npos);
}

TEST(FromHuggingFace, reads_yarn_with_all_its_options) {
  const Json rope{
      {"type", "yarn"},  {"factor", 4.0},        {"original_max_position_embeddings", 512},
      {"beta_fast", 16}, {"beta_slow", nullptr}, {"truncate", false},
      {"mscale", 1.0},   {"mscale_all_dim", 0.5}};
  const ModelSpec spec =
      read(with(minimal("qwen2"), {{"rope_scaling", rope}, {"rope_theta", 5e5}}));
  EXPECT_EQ(spec.rope.base, 5e5);
  EXPECT_EQ(spec.rope.scaling.beta_fast, 16);
  EXPECT_EQ(spec.rope.scaling.beta_slow, 1);
  EXPECT_FALSE(spec.rope.scaling.truncate);
  EXPECT_EQ(spec.rope.scaling.mscale, 1.0);
  EXPECT_EQ(spec.rope.scaling.mscale_all_dim, 0.5);
  const auto rotary = rotary_frequencies(spec.rope, spec.head_dim, spec.max_position_embeddings, 1);
  EXPECT_NEAR(rotary.amplitude, 1.1386294 / 1.0693147, 1e-7);
}

TEST(FromHuggingFace, names_the_known_families_for_an_unknown_one) {
  const std::string message = refusal(minimal("lama"));
  EXPECT_NE(message.find("did you mean 'llama'"), std::string::npos) << message;
  EXPECT_NE(message.find("known families: gpt2, "), std::string::npos) << message;
  EXPECT_NE(refusal(Json::object()).find("model_type"), std::string::npos);
}

TEST(FromHuggingFace, refuses_by_name_what_would_change_the_mathematics) {
  const std::vector<std::pair<Json, std::string>> cases{
      {with(minimal("llama"), {{"partial_rotary_factor", 0.5}}), "partial_rotary_factor"},
      {with(minimal("llama"), {{"hidden_act", "quick_gelu"}}), "hidden_act"},
      {with(minimal("llama"), {{"sliding_window", 8}}), "sliding_window"},
      {with(minimal("llama"), {{"logits_scaling", 8.0}}), "logits_scaling"},
      {with(minimal("llama"), {{"quantization_config", {{"bits", 4}}}}), "quant_method"},
      {with(minimal("llama"), {{"quantization_config", {{"quant_method", "awq"}}}}), "got \"awq\""},
      {with(minimal("llama"), {{"quantization_config", {{"quant_method", "fp8"}}}}),
       "quantization_config.weight_block_size"},
      {with(minimal("llama"),
            {{"quantization_config", {{"quant_method", "fp8"}, {"weight_block_size", {0, 128}}}}}),
       "weight_block_size"},
      {with(minimal("llama"), {{"num_local_experts", 8}}), "num_local_experts"},
      {with(minimal("deepseek_v3"), {{"scoring_func", "softmax"}}), "scoring_func"},
      {with(minimal("phi3"), {{"rope_scaling", {{"type", "linear"}, {"factor", 2}}}}), "longrope"},
      {with(minimal("gemma"), {{"use_bidirectional_attention", true}}), "bidirectional"},
      {with(minimal("falcon"), {{"alibi", true}}), "alibi"},
      {with(minimal("glm4_moe"), {{"n_group", 3}}), "n_group"},
      {with(minimal("mistral"), {{"attention_bias", true}}), "attention_bias"},
      {with(minimal("qwen2"), {{"attention_bias", false}}), "attention_bias"},
      {with(minimal_gpt2(), {{"scale_attn_by_inverse_layer_idx", true}}), "inverse_layer_idx"},
      {with(minimal_gpt2(), {{"scale_attn_weights", false}}), "scale_attn_weights"},
      {with(minimal_gpt2(), {{"reorder_and_upcast_attn", true}}), "reorder_and_upcast_attn"},
      {with(minimal_gpt2(), {{"add_cross_attention", true}}), "add_cross_attention"},
      {with(minimal("llama"), {{"rope_scaling", {{"type", "ntk_alpha"}}}}), "rope_scaling.type"},
      {with(minimal("llama"), {{"rope_scaling", {{"type", "longrope"}}}}), "short_factor"},
      {with(minimal("llama"), {{"rope_scaling", {{"type", "linear"}, {"factor", 2}, {"odd", 1}}}}),
       "rope_scaling.odd"},
      {with(minimal("llama"),
            {{"rope_parameters", {{"full_attention", {{"rope_type", "default"}}}}}}),
       "rope_parameters"},
      {with(minimal("llama"), {{"rope_parameters", {{"partial_rotary_factor", 0.25}}}}),
       "rope_parameters.partial_rotary_factor"},
      {with(minimal("llama"), {{"rope_scaling", {{"type", "linear"}, {"factor", 2}}},
                               {"rope_parameters", {{"rope_type", "default"}}}}),
       "rope_scaling"},
  };
  for (const auto& [config, key] : cases) {
    EXPECT_NE(refusal(config).find(key), std::string::npos) << key << ": " << refusal(config);
  }
}

TEST(FromHuggingFace, refuses_values_of_the_wrong_kind_or_size_naming_the_key) {
  const std::vector<std::pair<Json, std::string>> cases{
      {with(minimal("llama"), {{"hidden_size", "64"}}), "hidden_size"},
      {with(minimal("llama"), {{"hidden_size", 64.5}}), "hidden_size"},
      {with(minimal("llama"), {{"hidden_size", UINT64_MAX}}), "hidden_size"},
      {with(minimal("llama"), {{"hidden_size", nullptr}}), "hidden_size"},
      {with(minimal("llama"), {{"hidden_size", INT64_MAX}}), "hidden_size"},
      {with(minimal("llama"), {{"num_attention_heads", 0}}), "num_attention_heads"},
      {with(minimal("llama"), {{"num_hidden_layers", -1}}), "num_hidden_layers"},
      {with(minimal("llama"), {{"num_key_value_heads", 3}}), "num_key_value_heads"},
      {with(minimal("llama"), {{"rms_norm_eps", "1e-5"}}), "rms_norm_eps"},
      {with(minimal("llama"), {{"tie_word_embeddings", 1}}), "tie_word_embeddings"},
      {with(minimal("llama"), {{"eos_token_id", {1, "x"}}}), "eos_token_id"},
      {with(minimal("llama"), {{"rope_scaling", 7}}), "rope_scaling"},
      {with(minimal("llama"),
            {{"rope_scaling", {{"type", "yarn"}, {"original_max_position_embeddings", 0}}}}),
       "original_max_position_embeddings"},
      {with(minimal("qwen3"), {{"layer_types", {"full_attention"}}}), "layer_types"},
      {with(minimal_gpt2(), {{"n_embd", INT64_MAX}}), "n_embd"},
      {with(minimal_gpt2(), {{"n_head", 0}}), "n_head"},
      {with(minimal_gpt2(), {{"n_head", 5}}), "n_head"},
      {Json::array(), "config.json"},
  };
  for (const auto& [config, key] : cases) {
    EXPECT_NE(refusal(config).find(key), std::string::npos) << key << ": " << refusal(config);
  }
}

TEST(ToHuggingFace, is_read_back_to_the_same_spec) {
  std::vector<ModelSpec> specs;
  for (const auto& folder : fs::directory_iterator(testing::source_path("tests/golden/models"))) {
    specs.push_back(load_spec(folder.path()));
  }
  ASSERT_GE(specs.size(), 11u);
  specs.push_back(
      read(with(minimal("llama"),
                {{"attention_bias", true}, {"mlp_bias", true}, {"hidden_act", "gelu_new"}})));
  specs.push_back(read(with(minimal("qwen3"), {{"use_sliding_window", true},
                                               {"sliding_window", 9},
                                               {"max_window_layers", 0},
                                               {"eos_token_id", {3, 4}}})));
  specs.push_back(read(with(
      minimal("qwen2"),
      {{"rope_scaling",
        {{"type", "yarn"}, {"factor", 2}, {"truncate", false}, {"attention_factor", 1.25}}}})));
  for (const ModelSpec& spec : specs) {
    const auto text = to_hugging_face(spec).dump(2);
    EXPECT_EQ(differences(read(Json::parse(text)), spec), std::vector<std::string>{}) << text;
  }
}

TEST(ToHuggingFace, writes_every_family_so_that_it_reads_back) {
  const Json families =
      read_json(testing::source_path("tests/golden/families.json"), FileRole::kData);
  for (const Json& family : families) {
    const ModelSpec spec = read(family.at("config"));
    const auto text = to_hugging_face(spec).dump(2);
    EXPECT_EQ(differences(read(Json::parse(text)), spec), std::vector<std::string>{}) << text;
  }
}

TEST(ToHuggingFace, keeps_switches_of_training_that_other_programs_have_no_words_for) {
  ModelSpec spec = read(with(minimal("mixtral"), {{"num_local_experts", 4}}));
  spec.moe->z_loss_coeff = 1e-3;
  spec.moe->capacity_factor = 1.25;
  const Json written = Json::parse(to_hugging_face(spec).dump());
  EXPECT_EQ(written.at("qianli_training").size(), 2u) << written.dump(2);
  EXPECT_EQ(differences(read(written), spec), std::vector<std::string>{});
  EXPECT_FALSE(to_hugging_face(preset("mixtral-8x7b")).contains("qianli_training"));
}

TEST(FromHuggingFace, reads_the_text_part_of_a_model_that_sees) {
  const Json text{{"hidden_size", 64}, {"num_hidden_layers", 7}, {"sliding_window", 16}};
  const ModelSpec spec = read(
      {{"model_type", "gemma3"}, {"text_config", text}, {"vision_config", {{"hidden_size", 32}}}});
  EXPECT_EQ(spec.family, "gemma3_text");
  EXPECT_EQ(spec.num_attention_heads, 8);  // what text_config leaves out is the class's
  EXPECT_EQ(spec.layer(5).window, 0);
  EXPECT_EQ(spec.layer(6).window, 16);
  EXPECT_EQ(spec.layer(5).rope->base, 1e6);
  EXPECT_EQ(spec.layer(6).rope->base, 1e4);
}

TEST(FromHuggingFace, takes_either_word_for_the_count_of_experts) {
  const Json config = minimal("qwen3_moe");
  EXPECT_EQ(read(with(config, {{"num_experts", 4}, {"num_experts_per_tok", 2}})).moe->num_experts,
            4);
  EXPECT_EQ(
      read(with(config, {{"num_local_experts", 4}, {"num_experts_per_tok", 2}})).moe->num_experts,
      4);
  EXPECT_NE(
      refusal(with(config, {{"num_experts", 4}, {"num_local_experts", 8}})).find("num_experts"),
      std::string::npos);
}

TEST(ToHuggingFace, refuses_a_switch_the_family_has_no_word_for) {
  ModelSpec spec = read(minimal("llama"));
  spec.qk_norm = QkNorm::kHead;
  try {
    to_hugging_face(spec);
    ADD_FAILURE() << "wrote a llama with qk_norm";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("qk_norm: head and none"), std::string::npos)
        << error.what();
  }
}

TEST(LoadSpec, names_the_file_it_misses) {
  const testing::TemporaryFolder folder;
  try {
    load_spec(folder.path());
    ADD_FAILURE() << "read a folder without config.json";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("config.json"), std::string::npos);
  }
}

}  // namespace
}  // namespace qianli::model
