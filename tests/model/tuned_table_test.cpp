#include "qianli/model/tuned_table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "qianli/base/error.h"
#include "qianli/model/presets.h"

namespace qianli::model {
namespace {

using config::TuneConfig;

std::map<std::string, TunedEntry> by_name(const ModelSpec& spec, const TuneConfig& tune) {
  std::map<std::string, TunedEntry> entries;
  for (TunedEntry& tuned : tuned_table(spec, tune)) entries[tuned.entry.name] = tuned;
  return entries;
}

ModelSpec llama() {
  ModelSpec spec = preset("llama-tiny");
  spec.num_layers = 2;
  spec.hidden_size = 32;
  spec.ffn_hidden_size = 48;
  spec.num_attention_heads = 4;
  spec.num_query_groups = 2;
  spec.head_dim = 8;
  return spec;
}

constexpr const char* kQkv = "decoder.layers.1.self_attention.linear_qkv";

TEST(TunedTable, WithoutTuningIsTheParameterTable) {
  const auto plain = parameter_table(llama());
  const auto tuned = tuned_table(llama(), {});
  ASSERT_EQ(tuned.size(), plain.size());
  for (size_t i = 0; i < plain.size(); ++i) {
    EXPECT_EQ(tuned[i].entry.name, plain[i].name);
    EXPECT_FALSE(tuned[i].frozen);
  }
}

TEST(TunedTable, EachModuleOfAWeightHasAnAdapter) {
  const auto entries = by_name(llama(), {.method = "lora", .r = 4});
  const ParameterEntry& a = entries.at(std::string(kQkv) + ".lora_A").entry;
  const ParameterEntry& b = entries.at(std::string(kQkv) + ".lora_B").entry;
  EXPECT_EQ(a.shape, (std::vector<int64_t>{3 * 4, 32}));
  EXPECT_EQ(b.shape, (std::vector<int64_t>{32 + 16 + 16, 4}));
  EXPECT_TRUE(a.cut.empty());
  EXPECT_EQ(b.cut.size(), 3U);
  EXPECT_NEAR(a.init_std, 1 / std::sqrt(32.0), 1e-15);
  ASSERT_EQ(b.hugging_face.size(), 3U);
  EXPECT_EQ(b.hugging_face[1].name,
            "base_model.model.model.layers.1.self_attn.k_proj.lora_B.weight");
  EXPECT_EQ(b.hugging_face[1].first_row, 32);
  EXPECT_EQ(a.hugging_face[2].first_row, 8);
  // What cuts the weight's columns cuts those of A.
  const auto& last = entries.at("decoder.layers.0.mlp.linear_fc2.lora_A").entry;
  EXPECT_EQ(last.cut_axis, 1);
  EXPECT_EQ(last.cut.size(), 1U);
  EXPECT_TRUE(entries.at("decoder.layers.0.mlp.linear_fc2.lora_B").entry.cut.empty());
}

TEST(TunedTable, OnlyAdaptersAreTrained) {
  size_t trained = 0;
  for (const auto& [name, tuned] : by_name(llama(), {.method = "lora"})) {
    EXPECT_EQ(tuned.frozen, !is_adapter(name)) << name;
    trained += tuned.frozen ? 0 : 1;
  }
  EXPECT_EQ(trained, 2U * 4U * 2U);
}

TEST(TunedTable, TargetsNameModulesOfEitherWorld) {
  const auto targets = [](std::vector<config::NameMatch> names) {
    std::set<std::string> found;
    TuneConfig tune{.method = "lora", .r = 2};
    tune.target_modules = std::move(names);
    for (const auto& [name, tuned] : by_name(llama(), tune)) {
      if (name.ends_with(".lora_A")) found.insert(module_of(name));
    }
    return found;
  };
  const std::set<std::string> both{"decoder.layers.0.self_attention.linear_qkv", kQkv};
  EXPECT_EQ(targets({{"k_proj"}}), both);
  EXPECT_EQ(targets({{"self_attn.k_proj"}}), both);
  EXPECT_EQ(targets({{"linear_qkv"}}), both);
  EXPECT_EQ(targets({{"query_key_value"}}), both);
  EXPECT_EQ(targets({{"*.1.self_attention.linear_qkv"}}), std::set<std::string>{kQkv});
  EXPECT_EQ(targets({{"/layers\\.1\\.self_attn\\.v_proj/"}}), std::set<std::string>{kQkv});
  EXPECT_THROW(targets({{"_proj"}}), ConfigError);
}

// An adapter of a part of a weight's rows.
TEST(TunedTable, AModuleMayBeAdaptedAlone) {
  TuneConfig tune{.method = "lora", .r = 2, .layers = "1"};
  tune.target_modules = {{"k_proj"}};
  const auto entries = by_name(llama(), tune);
  EXPECT_FALSE(entries.contains("decoder.layers.0.self_attention.linear_qkv.lora_A"));
  EXPECT_EQ(entries.at(std::string(kQkv) + ".lora_A").entry.shape, (std::vector<int64_t>{2, 32}));
  EXPECT_EQ(entries.at(std::string(kQkv) + ".lora_B").entry.shape, (std::vector<int64_t>{16, 2}));
  const auto rows = adapted_rows(entries.at(std::string(kQkv) + ".weight").entry, tune);
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].first, 32);
  EXPECT_EQ(rows[0].count, 16);
}

TEST(TunedTable, FirstLayersAndNamedModulesMayBeFrozen) {
  TuneConfig tune{.freeze_layers = 1};
  tune.freeze = {{"final_layernorm"}};
  const auto entries = by_name(llama(), tune);
  EXPECT_TRUE(entries.at("embedding.word_embeddings.weight").frozen);
  EXPECT_TRUE(entries.at("decoder.layers.0.mlp.linear_fc1.weight").frozen);
  EXPECT_FALSE(entries.at("decoder.layers.1.mlp.linear_fc1.weight").frozen);
  EXPECT_TRUE(entries.at("decoder.final_layernorm.weight").frozen);
}

TEST(TunedTable, ExpertsHaveAdaptersOfTheirOwn) {
  const ModelSpec spec = preset("qwen3-30b-a3b");
  const auto entries = by_name(spec, {.method = "lora", .r = 2});
  const auto& b = entries.at("decoder.layers.0.mlp.experts.linear_fc1.lora_B").entry;
  EXPECT_TRUE(b.expert);
  EXPECT_EQ(b.shape, (std::vector<int64_t>{128, 2 * 768, 2}));
  EXPECT_EQ(b.hugging_face.size(), 2U * 128U);
  EXPECT_EQ(b.hugging_face[3].name,
            "base_model.model.model.layers.0.mlp.experts.1.up_proj.lora_B.weight");
  EXPECT_FALSE(entries.contains("decoder.layers.0.mlp.router.lora_A"));
}

TEST(TunedTable, RefusesLayersThatAreNoNumbers) {
  EXPECT_THROW(tuned_table(llama(), {.method = "lora", .layers = "1-x"}), ConfigError);
}

}  // namespace
}  // namespace qianli::model
