#include "qianli/model/resolve.h"

#include <gtest/gtest.h>

#include "qianli/base/error.h"
#include "qianli/config/field.h"
#include "qianli/model/hugging_face.h"
#include "qianli/model/presets.h"
#include "qianli/model/spec_fields.h"
#include "tests/support/test_paths.h"

namespace qianli::model {
namespace {

using config::ModelConfig;

std::string folder(const std::string& family) {
  return testing::source_path("tests/golden/models/" + family).string();
}

std::string refusal(const ModelConfig& model) {
  try {
    resolve(model);
    return "";
  } catch (const ConfigError& error) {
    return error.what();
  }
}

TEST(Resolve, takes_a_preset_as_it_is) {
  const ModelConfig model{.source = "llama-tiny"};
  EXPECT_EQ(resolve(model), preset("llama-tiny"));
  EXPECT_EQ(weights_folder(model), std::nullopt);
}

TEST(Resolve, takes_a_folder_with_its_weights) {
  const ModelConfig model{.source = folder("qwen3")};
  EXPECT_EQ(resolve(model), load_spec(folder("qwen3")));
  EXPECT_EQ(weights_folder(model), folder("qwen3"));
}

TEST(Resolve, puts_switches_over_a_preset) {
  ModelConfig model{.source = "llama-tiny"};
  model.num_layers = 2;
  model.vocab_size = 300;
  model.norm_eps = 1e-6;
  model.qk_norm = "head";
  model.sliding_window = 16;
  const ModelSpec spec = resolve(model);
  EXPECT_EQ(differences(preset("llama-tiny"), spec),
            (std::vector<std::string>{"num_layers: 4 and 2", "vocab_size: 1024 and 300",
                                      "norm_eps: 1e-05 and 1e-06", "qk_norm: none and head",
                                      "sliding_window: none and 16"}));
}

TEST(Resolve, has_a_field_for_every_option_that_is_a_switch) {
  ModelConfig model;
  for (const std::string& path : config::all_paths(config::fields_of(model))) {
    if (path == "preset" || path == "load_weights" || path == "family") continue;
    ModelSpec spec = preset("llama-tiny");
    const auto field = config::find_field(config::fields_of(model), path);
    const bool section = std::holds_alternative<config::Section>(field->value);
    EXPECT_EQ(field_at(spec, path).has_value(), !section) << path;
    const std::string leaf = path.substr(path.rfind('.') + 1);
    if (leaf == "kind" || leaf == "score" || leaf == "position" || leaf == "activation") {
      for (const auto word : field->option.choices) EXPECT_NO_THROW(set_field(spec, path, word));
    }
  }
}

TEST(Resolve, puts_nested_switches_over_a_preset) {
  ModelConfig model{.source = "mixtral-8x7b"};
  model.moe.num_experts = 4;
  model.moe.z_loss_coeff = 1e-3;
  model.rope.scaling.kind = "linear";
  model.rope.scaling.factor = 2.0;
  model.layer_pattern = "sliding_attention,attention";
  model.sliding_window = 64;
  const ModelSpec spec = resolve(model);
  EXPECT_EQ(spec.moe->num_experts, 4);
  EXPECT_EQ(spec.moe->top_k, 2);
  EXPECT_EQ(spec.rope.scaling.factor, 2.0);
  EXPECT_EQ(spec.layer(0).window, 64);
  EXPECT_EQ(spec.layer(1).window, 0);
  model.moe.top_k = 5;
  EXPECT_NE(refusal(model).find("moe.top_k"), std::string::npos);
  ModelConfig window{.source = "llama-tiny"};
  window.layer_pattern = "sliding";
  EXPECT_NE(refusal(window).find("layer_pattern"), std::string::npos) << refusal(window);
}

TEST(Resolve, lets_gemmas_multiplier_follow_its_width) {
  ModelConfig model{.source = "gemma-2b"};
  model.hidden_size = 256;
  EXPECT_EQ(resolve(model).embedding_multiplier, 16.0);
}

TEST(Resolve, lets_sizes_follow_where_they_followed) {
  ModelConfig wider{.source = "llama2-7b"};  // 32 heads of 128, as many key/value heads
  wider.hidden_size = 512;
  wider.num_attention_heads = 8;
  EXPECT_EQ(resolve(wider).head_dim, 64);
  EXPECT_EQ(resolve(wider).num_query_groups, 8);
  ModelConfig qwen{.source = "qwen3-0.6b"};  // heads of 128 whatever the width
  qwen.hidden_size = 512;
  EXPECT_EQ(resolve(qwen).head_dim, 128);
  wider.num_attention_heads = 7;
  EXPECT_NE(refusal(wider).find("model.head_dim"), std::string::npos) << refusal(wider);
}

TEST(Resolve, builds_a_model_from_switches_alone) {
  ModelConfig model;
  model.family = "qwen2";
  model.num_layers = 2;
  model.hidden_size = 64;
  model.ffn_hidden_size = 128;
  model.num_attention_heads = 4;
  model.vocab_size = 100;
  EXPECT_NE(refusal(model).find("max_position_embeddings"), std::string::npos) << refusal(model);
  model.max_position_embeddings = 32;
  const ModelSpec spec = resolve(model);
  EXPECT_EQ(spec.head_dim, 16);
  EXPECT_EQ(spec.num_query_groups, 4);
  EXPECT_TRUE(spec.qkv_bias);
}

TEST(Resolve, gives_the_sizes_of_a_preset_to_another_family) {
  ModelConfig model{.source = "llama-tiny"};
  model.family = "gpt2";
  const ModelSpec spec = resolve(model);
  EXPECT_EQ(spec.hidden_size, 128);
  EXPECT_EQ(spec.position, PositionKind::kLearned);
  EXPECT_TRUE(spec.mlp_bias);
}

TEST(Resolve, refuses_other_shapes_than_those_of_loaded_weights) {
  ModelConfig model{.source = folder("llama2")};
  model.num_layers = 3;
  EXPECT_NE(refusal(model).find("num_layers: 2 and 3"), std::string::npos) << refusal(model);
  EXPECT_NE(refusal(model).find("load_weights: false"), std::string::npos) << refusal(model);
  model.load_weights = false;
  EXPECT_EQ(resolve(model).num_layers, 3);
  EXPECT_EQ(weights_folder(model), std::nullopt);
}

TEST(Resolve, lets_loaded_weights_see_more_positions) {
  ModelConfig model{.source = folder("llama2")};
  model.rope.base = 500000.0;
  model.max_position_embeddings = 4096;
  model.num_layers = 2;  // the folder's own
  EXPECT_EQ(resolve(model).max_position_embeddings, 4096);
  ModelConfig learned{.source = folder("gpt2")};
  learned.max_position_embeddings = 128;
  EXPECT_NE(refusal(learned).find("max_position_embeddings"), std::string::npos);
}

TEST(Resolve, says_what_it_does_not_find) {
  EXPECT_NE(refusal({.source = "lama-tiny"}).find("did you mean 'llama-tiny'"), std::string::npos);
  EXPECT_NE(refusal({.source = "./no/such/folder"}).find("./no/such/folder"), std::string::npos);
  EXPECT_NE(refusal({}).find("preset"), std::string::npos);
  EXPECT_NE(refusal({.source = "llama-tiny", .load_weights = true}).find("no weights"),
            std::string::npos);
  ModelConfig family{.source = "llama-tiny"};
  family.family = "lama";
  EXPECT_NE(refusal(family).find("did you mean 'llama'"), std::string::npos);
}

}  // namespace
}  // namespace qianli::model
