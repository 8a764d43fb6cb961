// Per-layer values of Step-3.5's config.json, in the words of its published files and in those of
// transformers, and what cannot be one model.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "qianli/base/error.h"
#include "qianli/model/hugging_face.h"
#include "qianli/model/parameter_table.h"
#include "qianli/model/presets.h"

namespace qianli::model {
namespace {

constexpr const char* kFull = "full_attention";
constexpr const char* kSliding = "sliding_attention";

// With the lists of the published file, which speak of a layer behind the last one too.
Json published() {
  return {{"model_type", "step3p5"},
          {"hidden_size", 48},
          {"intermediate_size", 72},
          {"num_hidden_layers", 5},
          {"num_attention_heads", 6},
          {"num_attention_groups", 2},
          {"head_dim", 8},
          {"vocab_size", 97},
          {"max_position_embeddings", 64},
          {"num_nextn_predict_layers", 1},
          {"moe_num_experts", 4},
          {"moe_top_k", 2},
          {"moe_intermediate_size", 20},
          {"share_expert_dim", 28},
          {"moe_router_scaling_factor", 3.0},
          {"moe_layers_enum", "1, 2,4"},
          {"layer_types", {kFull, kSliding, kSliding, kSliding, kFull, kSliding}},
          {"attention_other_setting",
           {{"attention_type", kSliding},
            {"num_attention_heads", 10},
            {"num_attention_groups", 1},
            {"head_dim", 8},
            {"true_head_dim", 8}}},
          {"sliding_window", 16},
          {"rope_theta", {5e6, 1e4, 1e4, 1e4, 5e6, 1e4}},
          {"partial_rotary_factors", {0.5, 1.0, 1.0, 1.0, 0.5, 1.0}},
          {"rope_scaling",
           {{"rope_type", "llama3"},
            {"factor", 2.0},
            {"low_freq_factor", 1.0},
            {"high_freq_factor", 32.0},
            {"original_max_position_embeddings", 32}}},
          {"yarn_only_types", {kFull}},
          {"swiglu_limits", {0.0, nullptr, 7, 0.0, 0.0, 0.0}},
          {"swiglu_limits_shared", {0.0, 0.0, 16, 0.0, nullptr, 0.0}},
          {"use_rope_layers", Json::array()},
          {"use_moe_router_bias", true},
          {"need_fp32_gate", true}};
}

Json with(Json config, const Json& changes) {
  config.update(changes);
  return config;
}

ModelSpec read(const Json& config) { return from_hugging_face(config, "config.json"); }

std::string refusal(const Json& config) {
  try {
    read(config);
    return "";
  } catch (const ConfigError& error) {
    return error.what();
  }
}

TEST(Step3p5, has_heads_windows_and_positions_of_each_layer) {
  const ModelSpec spec = read(published());
  const LayerSpec full = spec.layer(0), sliding = spec.layer(3);
  EXPECT_EQ(full.num_heads, 6);
  EXPECT_EQ(full.num_groups, 2);
  EXPECT_EQ(full.window, 0);
  EXPECT_EQ(full.rope->base, 5e6);
  EXPECT_EQ(spec.rotary_size(*full.rope), 4);
  EXPECT_EQ(full.rope->scaling.kind, RopeScalingKind::kLlama3);
  EXPECT_EQ(sliding.num_heads, 10);
  EXPECT_EQ(sliding.num_groups, 1);
  EXPECT_EQ(sliding.window, 16);
  EXPECT_EQ(sliding.rope->base, 1e4);
  EXPECT_EQ(spec.rotary_size(*sliding.rope), 8);
  EXPECT_EQ(sliding.rope->scaling.kind, RopeScalingKind::kNone);
  EXPECT_EQ(spec.layer(4).mixer, MixerKind::kAttention);
  EXPECT_EQ(spec.mtp.num_layers, 0);  // passed over
  const auto ignored = foreign_habits(spec).ignored_prefixes;
  EXPECT_NE(std::ranges::find(ignored, "model.layers.5."), ignored.end());
  EXPECT_EQ(std::ranges::find(ignored, "model.layers.4."), ignored.end());
}

TEST(Step3p5, has_experts_and_limits_of_each_layer) {
  const ModelSpec spec = read(published());
  std::vector<bool> mixed;
  std::vector<double> limits, of_experts;
  for (int64_t l = 0; l < spec.num_layers; ++l) {
    const LayerSpec layer = spec.layer(l);
    mixed.push_back(layer.feed_forward == FeedForwardKind::kMoe);
    limits.push_back(layer.activation_limit);
    of_experts.push_back(layer.expert_activation_limit);
  }
  EXPECT_EQ(mixed, (std::vector{false, true, true, false, true}));
  EXPECT_EQ(limits, (std::vector{0.0, 0.0, 16.0, 0.0, 0.0}));
  EXPECT_EQ(of_experts, (std::vector{0.0, 0.0, 7.0, 0.0, 0.0}));
  EXPECT_EQ(spec.moe->scaling_factor, 3.0);
  EXPECT_TRUE(spec.moe->selection_bias && spec.moe->normalize_top_k);
}

TEST(Step3p5, has_parameters_by_the_heads_of_their_layer) {
  const ModelSpec spec = read(published());
  std::map<std::string, std::vector<int64_t>> shapes, stored;
  int64_t total = 0;
  for (const ParameterEntry& entry : parameter_table(spec)) {
    shapes[entry.name] = entry.shape;
    total += entry.elements();
    for (const ForeignPiece& piece : entry.hugging_face) stored[piece.name] = piece.shape;
  }
  using Shape = std::vector<int64_t>;
  const std::string full = "decoder.layers.0.self_attention.",
                    sliding = "decoder.layers.1.self_attention.";
  EXPECT_EQ(shapes.at(full + "linear_qkv.weight"), (Shape{80, 48}));
  EXPECT_EQ(shapes.at(sliding + "linear_qkv.weight"), (Shape{96, 48}));
  EXPECT_EQ(shapes.at(full + "linear_gate.weight"), (Shape{6, 48}));
  EXPECT_EQ(shapes.at(sliding + "linear_gate.weight"), (Shape{10, 48}));
  EXPECT_EQ(shapes.at(sliding + "linear_proj.weight"), (Shape{48, 80}));
  EXPECT_EQ(stored.at("model.layers.1.self_attn.k_proj.weight"), (Shape{8, 48}));
  EXPECT_EQ(stored.at("model.layers.1.moe.gate_proj.weight"), (Shape{4, 20, 48}));
  EXPECT_EQ(stored.at("model.layers.1.moe.up_proj.weight"), (Shape{4, 20, 48}));
  EXPECT_EQ(stored.at("model.layers.1.moe.down_proj.weight"), (Shape{4, 48, 20}));
  EXPECT_EQ(stored.at("model.layers.1.moe.router_bias"), (Shape{4}));
  EXPECT_EQ(stored.at("model.layers.1.share_expert.down_proj.weight"), (Shape{48, 28}));
  EXPECT_EQ(parameter_count(spec), total);
}

TEST(Step3p5, counts_the_work_of_its_windowed_heads) {
  ModelSpec spec = read(published());
  const double work = forward_flops_per_token(spec, 16);
  spec.sliding_num_attention_heads = spec.sliding_num_query_groups = 1;
  // Queries, output and gate of 9 heads in 3 layers, and what they do with 16 positions.
  EXPECT_DOUBLE_EQ(work - forward_flops_per_token(spec, 16),
                   3.0 * 9 * (2 * 48 * (8 + 8 + 1) + 4 * 8 * 16));
}

TEST(Step3p5, reads_the_words_of_transformers_alike) {
  Json config = published();
  for (const char* key : {"num_attention_groups", "moe_num_experts", "moe_top_k", "rope_theta",
                          "partial_rotary_factors", "rope_scaling", "moe_layers_enum"}) {
    config.erase(key);
  }
  Json scaled = published().at("rope_scaling");
  scaled.update({{"rope_theta", 5e6}, {"partial_rotary_factor", 0.5}});
  config.update(
      {{"num_key_value_heads", 2},
       {"n_routed_experts", 4},
       {"num_experts_per_tok", 2},
       {"rope_parameters",
        {{kFull, scaled},
         {kSliding,
          {{"rope_type", "default"}, {"rope_theta", 1e4}, {"partial_rotary_factor", 1}}}}},
       {"mlp_layer_types", {"dense", "sparse", "sparse", "dense", "sparse"}},
       {"query_pre_attn_scalar", 8},
       {"layer_types", {kFull, kSliding, kSliding, kSliding, kFull}}});
  EXPECT_EQ(differences(read(config), read(published())), std::vector<std::string>{});
  config.erase("attention_other_setting");
  config["num_sliding_attention_heads"] = 10;
  config["per_layer_config"] = {{"1", {{"num_attention_heads", 10}}}};
  EXPECT_EQ(read(config).sliding_num_attention_heads, 10);
  EXPECT_EQ(read(config).sliding_num_query_groups, std::nullopt);
}

TEST(Step3p5, writes_what_it_reads) {
  for (const Json& changes :
       {Json::object(), Json{{"use_rope_layers", {true, true, false, true, false}}},
        Json{{"yarn_only_types", {kSliding}}}}) {
    const ModelSpec spec = read(with(published(), changes));
    const Json written = Json::parse(to_hugging_face(spec).dump());
    EXPECT_EQ(differences(read(written), spec), std::vector<std::string>{}) << changes;
  }
}

TEST(Step3p5, has_layers_without_positions_where_the_file_says_so) {
  const ModelSpec spec =
      read(with(published(), {{"use_rope_layers", {true, false, true, false, true}}}));
  EXPECT_EQ(spec.rotary_pattern, (std::vector{true, false}));
  EXPECT_NE(spec.layer(0).rope, nullptr);
  EXPECT_EQ(spec.layer(3).rope, nullptr);
  EXPECT_TRUE(read(with(published(), {{"use_rope_layers", {true, true, true, true, true}}}))
                  .rotary_pattern.empty());
}

TEST(Step3p5, is_the_text_part_of_its_successor) {
  const Json whole{
      {"model_type", "step3p7"}, {"vision_config", {{"width", 16}}}, {"text_config", published()}};
  EXPECT_EQ(read(whole), read(published()));
}

TEST(Step3p5, refuses_what_is_no_such_model) {
  const auto heads = [](const char* key, const Json& value) {
    Json other = published().at("attention_other_setting");
    other[key] = value;
    return Json{{"attention_other_setting", other}};
  };
  const std::vector<std::pair<Json, std::string>> cases{
      {{{"rope_theta", {5e6, 1e4, 2e4, 1e4, 5e6}}}, "one value for all layers of a type"},
      {{{"partial_rotary_factors", {0.5, 1.0}}}, "one value per layer (5)"},
      {{{"rope_theta", {5e6, 1e4, 1e4, 1e4, "x"}}}, "a list of numbers"},
      {{{"swiglu_limits", {1, 2, 3, 4, "5"}}}, "numbers and null"},
      {{{"swiglu_limits", {1, 2, 3, 4, -5}}}, "swiglu_limits to be 0 or more"},
      {{{"swiglu_limits_shared", 7.0}}, "a list"},
      {{{"moe_layers_enum", "1,,2"}}, "numbers of layers with commas"},
      {{{"moe_layers_enum", {-1}}}, "numbers of layers"},
      {{{"use_rope_layers", {1, 1, 1, 1, 1}}}, "true or false for each layer"},
      {{{"num_nextn_predict_layers", -1}}, "between 0 and 64"},
      {{{"sliding_window", nullptr}}, "as no window is set"},
      {heads("head_dim", 16), "that of the other layers (8)"},
      {heads("attention_type", kFull), kSliding},
      {heads("num_attention_heads", 0), "sliding_num_attention_heads between 1"},
      {heads("num_attention_groups", 3), "multiple of sliding_num_query_groups"},
      {{{"per_layer_config", {{"1", {{"num_attention_heads", 4}}}}}}, "layers with a window"},
      {{{"rope_parameters", Json::object()}}, "rope_parameters alone"},
      {{{"use_moe_router_bias", false}}, "use_moe_router_bias"},
      {{{"use_head_wise_attn_gate", false}}, "use_head_wise_attn_gate"},
      {{{"mlp_bias", true}}, "mlp_bias"},
      {{{"hidden_act", "gelu"}}, "silu"},
  };
  for (const auto& [changes, reason] : cases) {
    const std::string text = refusal(with(published(), changes));
    EXPECT_NE(text.find(reason), std::string::npos) << changes << ": " << text;
  }
}

TEST(Step3p5, says_that_its_preset_is_its_class) {
  EXPECT_NE(preset_note("step3.5-flash-196b").find("96 heads"), std::string::npos);
  EXPECT_EQ(preset_note("qwen3-0.6b"), "");
  EXPECT_EQ(preset("step3.5-flash-196b").sliding_window, std::nullopt);
}

// Layers that share an indexer, as the published GLM-5.2 and transformers list them.
TEST(GlmIndexers, go_by_a_list_of_words) {
  Json config = Json::parse(to_hugging_face(preset("glm5.2-744b")).dump());
  const ModelSpec by_numbers = read(config);
  Json types = Json::array();
  for (int64_t l = 0; l < by_numbers.num_layers; ++l) {
    types.push_back(by_numbers.layer(l).owns_indexer ? "full" : "shared");
  }
  EXPECT_EQ(std::count(types.begin(), types.end(), "shared"), 57);
  config.erase("index_topk_freq");
  config.erase("index_skip_topk_offset");
  config["indexer_types"] = types;
  EXPECT_EQ(differences(read(config), by_numbers), std::vector<std::string>{});
  types[70] = types[70] == "full" ? "shared" : "full";
  config["indexer_types"] = types;
  EXPECT_NE(refusal(config).find("then in one of so many"), std::string::npos) << refusal(config);
  types.erase(0);
  config["indexer_types"] = types;
  EXPECT_NE(refusal(config).find("one value per layer (78)"), std::string::npos);
  config["indexer_types"] = Json(std::vector<std::string>(78, "full"));
  EXPECT_EQ(read(config).indexer->frequency, 1);
  EXPECT_EQ(parameter_count(read(config)), parameter_count(preset("glm5-744b")));
  config["indexer_types"][77] = "none";
  EXPECT_NE(refusal(config).find("full or shared"), std::string::npos);
}

}  // namespace
}  // namespace qianli::model
