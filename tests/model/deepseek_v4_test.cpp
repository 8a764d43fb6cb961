// DeepSeek-V4's config.json in the words of its published files and in those of transformers, what
// its tables hold, and what cannot be one model.
#include <gtest/gtest.h>

#include <set>

#include "qianli/base/error.h"
#include "qianli/model/hugging_face.h"
#include "qianli/model/parameter_table.h"
#include "qianli/model/presets.h"

namespace qianli::model {
namespace {

constexpr auto kPlain = MixerKind::kSlidingAttention;
constexpr auto kSparse = MixerKind::kSparseCompressed;
constexpr auto kHeavy = MixerKind::kHeavyCompressed;

// With a ratio for the layer of multi-token prediction behind the last one.
Json published() {
  return {{"model_type", "deepseek_v4"},
          {"hidden_size", 48},
          {"moe_intermediate_size", 20},
          {"num_hidden_layers", 5},
          {"num_attention_heads", 6},
          {"num_key_value_heads", 1},
          {"head_dim", 40},
          {"qk_rope_head_dim", 16},
          {"vocab_size", 97},
          {"max_position_embeddings", 64},
          {"q_lora_rank", 28},
          {"o_groups", 3},
          {"o_lora_rank", 11},
          {"sliding_window", 9},
          {"compress_ratios", {0, 4, 128, 4, 128, 0}},
          {"compress_rope_theta", 160000},
          {"rope_theta", 10000},
          {"rope_scaling",
           {{"type", "yarn"},
            {"factor", 16},
            {"original_max_position_embeddings", 32},
            {"beta_fast", 32},
            {"beta_slow", 1}}},
          {"index_n_heads", 4},
          {"index_head_dim", 24},
          {"index_topk", 3},
          {"hc_mult", 2},
          {"hc_sinkhorn_iters", 5},
          {"hc_eps", 1e-6},
          {"n_routed_experts", 7},
          {"n_shared_experts", 1},
          {"num_experts_per_tok", 3},
          {"num_hash_layers", 2},
          {"num_nextn_predict_layers", 1},
          {"norm_topk_prob", true},
          {"scoring_func", "sqrtsoftplus"},
          {"topk_method", "noaux_tc"},
          {"routed_scaling_factor", 1.5},
          {"swiglu_limit", 10.0},
          {"expert_dtype", "fp4"},
          {"quantization_config",
           {{"quant_method", "fp8"},
            {"fmt", "e4m3"},
            {"scale_fmt", "ue8m0"},
            {"activation_scheme", "dynamic"},
            {"weight_block_size", {128, 128}}}}};
}

ModelSpec read(const Json& config) { return from_hugging_face(config, "config.json"); }

std::string refusal(const Json& config) {
  try {
    read(config);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(DeepSeekV4, reads_what_is_published) {
  const ModelSpec spec = read(published());
  EXPECT_EQ(spec.layer_pattern, (std::vector{kPlain, kSparse, kHeavy, kSparse, kHeavy}));
  EXPECT_EQ(spec.layer(0).compression, 0);
  EXPECT_EQ(spec.layer(1).compression, 4);
  EXPECT_EQ(spec.layer(2).compression, 128);
  for (int64_t l = 0; l < 5; ++l) {
    EXPECT_EQ(spec.layer(l).window, 9);
    EXPECT_EQ(spec.layer(l).owns_indexer, l == 1 || l == 3);
    EXPECT_EQ(spec.layer(l).routes_by_token, l < 2);
  }
  EXPECT_EQ(spec.mtp.num_layers, 0);
  EXPECT_TRUE(spec.limit_before_activation);
  EXPECT_EQ(spec.activation_limit, std::vector{10.0});
  EXPECT_EQ(spec.moe->shared_ffn_hidden_size, 20);
  // Plain layers turn by the plain rule, those with compressed keys by the stretched one, which
  // does not make its models louder.
  EXPECT_EQ(spec.layer(0).rope->base, 10000.0);
  EXPECT_EQ(spec.layer(0).rope->scaling.kind, RopeScalingKind::kNone);
  EXPECT_EQ(spec.layer(1).rope->base, 160000.0);
  EXPECT_EQ(spec.layer(1).rope->scaling.factor, 16.0);
  EXPECT_EQ(spec.layer(1).rope->scaling.attention_factor, 1.0);
  EXPECT_EQ(spec.rotary_size(spec.rope), 16);
}

TEST(DeepSeekV4, writes_the_words_of_transformers_and_reads_them_back) {
  const ModelSpec spec = read(published());
  const Json written = Json::parse(to_hugging_face(spec).dump());
  EXPECT_EQ(written.at("layer_types").at(1), "compressed_sparse_attention");
  EXPECT_EQ(written.at("layer_types").at(2), "heavily_compressed_attention");
  EXPECT_EQ(written.at("mlp_layer_types").at(1), "hash_moe");
  EXPECT_EQ(written.at("mlp_layer_types").at(2), "moe");
  EXPECT_EQ(written.at("rope_parameters").at("compress").at("attention_factor"), 1.0);
  EXPECT_EQ(differences(read(written), spec), std::vector<std::string>());
  // Layers of one kind alone.
  for (const int ratio : {0, 4, 128}) {
    Json config = published();
    config["compress_ratios"] = std::vector<int>(5, ratio);
    const ModelSpec alike = read(config);
    EXPECT_EQ(alike.indexer.has_value(), ratio == 4);
    const Json again = Json::parse(to_hugging_face(alike).dump());
    EXPECT_EQ(differences(read(again), alike), std::vector<std::string>()) << ratio;
  }
}

TEST(DeepSeekV4, takes_what_its_class_takes_where_nothing_is_said) {
  Json config = published();
  for (const char* key : {"compress_ratios", "num_hash_layers", "qk_rope_head_dim"})
    config.erase(key);
  config["head_dim"] = 48;  // an eighth of it turns
  const ModelSpec spec = read(config);
  EXPECT_EQ(spec.layer_pattern, (std::vector{kHeavy, kHeavy, kHeavy, kSparse}));
  EXPECT_EQ(spec.moe->num_hash_layers, 3);
  EXPECT_EQ(spec.rope.fraction, 0.125);
  config["compress_rates"] = {{"heavily_compressed_attention", 64}};
  config["compress_rate_csa"] = 8;
  EXPECT_EQ(read(config).compressed_attention->heavy_ratio, 64);
  EXPECT_EQ(read(config).compressed_attention->sparse_ratio, 8);
}

TEST(DeepSeekV4, refuses_what_it_cannot_be) {
  const auto with = [](const char* key, const Json& value) {
    Json config = published();
    config[key] = value;
    return refusal(config);
  };
  EXPECT_NE(with("compress_ratios", {0, 4, 16, 4, 128}).find("0, 4 or 128"), std::string::npos);
  EXPECT_NE(with("compress_ratios", {0, 4}).find("one value per layer (5)"), std::string::npos);
  EXPECT_NE(with("layer_types", {"full_attention"}).find("sliding_attention, compressed_sparse"),
            std::string::npos);
  EXPECT_NE(with("mlp_layer_types", {"moe", "hash_moe", "moe", "moe", "moe"}).find("hash_moe for"),
            std::string::npos);
  EXPECT_NE(with("num_key_value_heads", 2).find("num_key_value_heads of 1"), std::string::npos);
  EXPECT_NE(with("o_groups", 4).find("multiple of"), std::string::npos);
  EXPECT_NE(with("index_head_dim", 8).find("rotated dimensions (16), got 8"), std::string::npos);
  EXPECT_NE(with("n_shared_experts", 2).find("n_shared_experts"), std::string::npos);
  EXPECT_NE(with("scoring_func", "softmax").find("scoring_func"), std::string::npos);
  EXPECT_NE(with("swiglu_limit", 0).find("a positive number"), std::string::npos);
}

TEST(DeepSeekV4, tables_send_every_token_to_different_experts) {
  const ModelSpec spec = read(published());
  for (const ParameterEntry& entry : parameter_table(spec)) {
    if (!entry.integral) continue;
    EXPECT_EQ(entry.shape, (std::vector<int64_t>{97, 3}));
    std::vector<float> values(97 * 3), end(5);
    initial_values(entry, 11, 0, values);
    std::set<float> used;
    for (size_t t = 0; t < 97; ++t) {
      const std::set<float> own(values.begin() + static_cast<long>(3 * t),
                                values.begin() + static_cast<long>(3 * t + 3));
      EXPECT_EQ(own.size(), 3u);
      used.insert(own.begin(), own.end());
    }
    EXPECT_EQ(used, (std::set<float>{0, 1, 2, 3, 4, 5, 6}));
    initial_values(entry, 11, 286, end);  // a part is that of the whole
    EXPECT_TRUE(std::equal(end.begin(), end.end(), values.begin() + 286));
  }
}

}  // namespace
}  // namespace qianli::model
