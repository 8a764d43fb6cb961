#include "qianli/model/presets.h"

#include <gtest/gtest.h>

#include <set>

#include "qianli/base/error.h"
#include "qianli/model/hugging_face.h"
#include "qianli/model/parameter_table.h"

namespace qianli::model {
namespace {

TEST(Presets, count_the_parameters_that_stand_beside_them) {
  ASSERT_GE(presets().size(), 159u);
  for (const Preset& entry : presets()) {
    EXPECT_EQ(parameter_count(preset(entry.name)), entry.parameters) << entry.name;
  }
}

TEST(Presets, have_a_config_json_that_reads_back) {
  for (const Preset& entry : presets()) {
    const ModelSpec spec = preset(entry.name);
    const Json config = Json::parse(to_hugging_face(spec).dump());
    EXPECT_EQ(differences(from_hugging_face(config, "preset"), spec), std::vector<std::string>{})
        << entry.name;
  }
}

TEST(Presets, have_names_of_their_own) {
  const auto names = preset_names();
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), names.size());
}

TEST(Presets, hold_the_switches_of_their_family) {
  const ModelSpec llama = preset("llama31-8b");
  EXPECT_EQ(llama.rope.scaling.kind, RopeScalingKind::kLlama3);
  EXPECT_EQ(llama.rope.scaling.factor, 8.0);
  EXPECT_EQ(llama.max_position_embeddings, 131072);
  EXPECT_TRUE(preset("qwen25-7b").qkv_bias);
  EXPECT_TRUE(preset("qwen3-0.6b").qk_norm == QkNorm::kHead &&
              preset("qwen3-0.6b").tie_word_embeddings);
  EXPECT_EQ(preset("gpt2-124m").position, PositionKind::kLearned);
  EXPECT_EQ(preset("gpt3-175b").activation, Activation::kGelu);
  EXPECT_EQ(parameter_count(preset("qwen3-0.6b")), 596049920);
  EXPECT_EQ(parameter_count(preset("gpt2-124m")), 124439808);
}

TEST(Presets, suggest_the_nearest_name) {
  try {
    preset("llama2-7B");
    ADD_FAILURE() << "took a name that does not exist";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("'llama2-7b'"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace qianli::model
