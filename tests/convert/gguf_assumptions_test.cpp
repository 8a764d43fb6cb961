// What llama.cpp takes for granted of a family: met by the published models, and told of others.
#include "qianli/convert/gguf/assumptions.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "qianli/model/presets.h"

namespace qianli::convert {
namespace {

std::vector<std::string> missed_by(const model::ModelSpec& spec) {
  return missed_assumptions(spec, gguf_architecture_of(spec));
}

std::string only_missed(const model::ModelSpec& spec) {
  const auto missed = missed_by(spec);
  return missed.size() == 1 ? missed.front() : std::to_string(missed.size()) + " sentences";
}

TEST(GgufAssumptions, are_met_by_published_models) {
  int held = 0;
  for (const std::string& name : model::preset_names()) {
    model::ModelSpec spec = model::preset(name);
    const auto holds = [&](const GgufArchitecture& one) {
      return std::ranges::find(one.families, spec.family) != one.families.end();
    };
    if (std::ranges::none_of(gguf_architectures(), holds)) continue;
    ++held;
    spec.sliding_window.reset();  // not all architectures have windows
    // llama.cpp computes these otherwise than their authors.
    const bool known = spec.family == "phimoe" || name.ends_with("-236b");
    const auto missed = missed_by(spec);
    EXPECT_EQ(missed.size(), known ? 1 : 0) << name;
  }
  EXPECT_GT(held, 80);
}

TEST(GgufAssumptions, are_told_where_a_model_misses_them) {
  model::ModelSpec mistral = model::preset("mistral-7b");
  mistral.sliding_window = 4096;
  EXPECT_NE(only_missed(mistral).find("the last 4096"), std::string::npos) << only_missed(mistral);
  model::ModelSpec gemma = model::preset("gemma2-9b");
  gemma.query_pre_attn_scalar = 100;
  EXPECT_NE(only_missed(gemma).find("for 256"), std::string::npos) << only_missed(gemma);
  model::ModelSpec lite = model::preset("deepseek-v2-lite-16b");
  lite.num_layers = 4;
  EXPECT_NE(only_missed(lite).find("26 or 27"), std::string::npos) << only_missed(lite);
}

}  // namespace
}  // namespace qianli::convert
