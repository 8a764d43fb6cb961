#include <gtest/gtest.h>

#include "qianli/config/config.h"
#include "tests/config/expect_error.h"

namespace qianli::config {
namespace {

using testing::expect_config_error;
using Overrides = std::vector<std::string>;

Config with(const Overrides& overrides) {
  return from_text("model: {preset: a, num_layers: 2}\noptim: {lr: 1e-3, warmup_steps: 4}\n",
                   "first.yaml", overrides);
}

TEST(Override, replaces_single_values_and_the_last_one_wins) {
  const Config config = with({"optim.lr=3e-4", "optim.betas=[0.5,0.75]", "optim.lr=2e-4",
                              "device=cpu", "run.dir=runs/a=b"});
  EXPECT_EQ(config.optim.lr, 2e-4);
  EXPECT_EQ(config.optim.warmup_steps, 4);
  EXPECT_EQ(config.optim.betas[1], 0.75);
  EXPECT_EQ(config.device, "cpu");
  EXPECT_EQ(config.run.dir, "runs/a=b");
}

TEST(Override, a_model_name_drops_inline_switches) {
  const Config config = with({"model=llama-tiny"});
  EXPECT_EQ(config.model.source, "llama-tiny");
  EXPECT_FALSE(config.model.num_layers.has_value());
  const Config kept = with({"model.preset=b"});
  EXPECT_EQ(kept.model.source, "b");
  EXPECT_EQ(kept.model.num_layers, 2);
}

TEST(Override, a_map_sets_the_keys_it_names) {
  const Config config = with({"optim={min_lr: 1e-4}", "model.num_layers=auto"});
  EXPECT_EQ(config.optim.min_lr, 1e-4);
  EXPECT_EQ(config.optim.lr, 1e-3);
  EXPECT_FALSE(config.model.num_layers.has_value());
}

TEST(Override, replaces_lists_whole) {
  const Config config =
      with({"data.path=[x, y]", "data.path=z", "optim.groups=[{match: '*', lr_scale: 2}]"});
  EXPECT_EQ(config.data.path, (std::vector<DataSource>{{"z", 1.0}}));
  ASSERT_EQ(config.optim.groups.size(), 1u);
  EXPECT_EQ(config.optim.groups[0].lr_scale, 2.0);
}

TEST(Override, errors_quote_the_override) {
  const std::pair<const char*, const char*> cases[] = {
      {"optim.lr=abc", "override 'optim.lr=abc': expected optim.lr to be a number"},
      {"optim.lr", "expected key=value, got 'optim.lr'"},
      {"=3", "expected key=value"},
      {"", "expected key=value"},
      {"lr=1", "(did you mean 'optim.lr'?)"},
      {"optim.lr.x=1", "expected a known option, got 'optim.lr.x'"},
      {"optim.groups.0.lr_scale=1", "give the whole list"},
      {"optim.lr=", "got nothing"},
      {"optim.betas=[0.1", "override 'optim.betas=[0.1'"},
      {"run.dir=&a", "anchor"},
      {"optim.min_lr=1", "override 'optim.min_lr=1': expected optim.min_lr of at most"},
  };
  for (const auto& [text, words] : cases) {
    SCOPED_TRACE(text);
    expect_config_error([text = text] { with({text}); }, words);
  }
}

TEST(Override, serves_without_a_file) {
  const Config config = from_overrides_only(Overrides{"train.steps=5"});
  EXPECT_EQ(config.train.steps, 5);
  EXPECT_EQ(config.run.dir, "runs/run");
}

}  // namespace
}  // namespace qianli::config
